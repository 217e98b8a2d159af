//! A whole training step: gather, dropout, forward, loss, backward, optimiser.
//!
//! One element is one floating-point operation, so "Gelem/s" reads GFLOP/s.

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use limbeck::engine::mlp::Mlp;
use limbeck::tools::bench::{StepBench, StepTask};
use limbeck_kernels::{Context, Isa};
use std::time::Duration;

fn step(criterion: &mut Criterion) {
    for batch in [128, 1024] {
        for (net, task) in
            [([784, 1200, 1200, 10], StepTask::Teacher), ([784, 800, 800, 10], StepTask::Student)]
        {
            let bench = StepBench::new(&net, batch, task).expect("a net");
            let flop = Mlp::new(&net, 0).flop_per_step(batch);
            let mut group = criterion.benchmark_group(format!("{} batch {batch}", bench.name()));
            group.throughput(Throughput::Elements(flop as u64));
            group.sampling_mode(SamplingMode::Flat);
            for threads in [1, 2] {
                let context = Context::new(Isa::best(), threads).expect("threads");
                group.bench_function(BenchmarkId::new("threads", threads), |bencher| {
                    bencher.iter_custom(|steps| {
                        let seconds = bench.seconds(&context, steps as usize);
                        Duration::from_secs_f64(seconds.expect("a training that converges"))
                    });
                });
            }
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(5));
    targets = step
}
criterion_main!(benches);
