//! Every product of a training step: the trainer's, the row-major one, and those of
//! matrixmultiply, the gemm crate and, with the feature `faer`, that one.
//!
//! One element is one floating-point operation, so "Gelem/s" reads GFLOP/s. All are timed
//! one after the other; for ratios on a noisy machine see `peers/gemm.rs`.

#[path = "common/products.rs"]
mod products;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use limbeck_kernels::{Context, Isa};
use products::{Product, Way, shapes};
use std::time::Duration;

fn gemm(criterion: &mut Criterion) {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let context = Context::new(Isa::best(), threads).expect("threads");
    for shape in shapes(128) {
        let mut product = Product::new(shape);
        product.verify(&context);
        let mut group = criterion.benchmark_group(shape.to_string());
        group.throughput(Throughput::Elements(shape.flop()));
        for &way in Way::ALL {
            group.bench_function(way.to_string(), |bencher| match way {
                Way::TrainingPath | Way::RowMajor => {
                    context.pool.install(|| bencher.iter(|| product.compute(way, &context)))
                }
                _ => bencher.iter(|| product.compute(way, &context)),
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = gemm
}
criterion_main!(benches);
