//! Our products beside matrixmultiply's, interleaved: a table of rates and of paired ratios.
//!
//! `MATMUL_NUM_THREADS` sets the threads of both sides; matrixmultiply uses 4 at most. The batch
//! size is the only argument, 128 by default.

#[path = "../common/products.rs"]
mod products;

use limbeck_kernels::{Context, Isa};
use products::{Product, shapes};
use std::time::{Duration, Instant};

const ROUNDS: usize = 41;
/// Least duration of one timing.
const TIMING: Duration = Duration::from_millis(8);

fn main() {
    let number = |text: String| text.parse().unwrap_or_else(|_| panic!("'{text}' is no number"));
    let available = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = std::env::var("MATMUL_NUM_THREADS").map_or(available, number);
    let batch = std::env::args().nth(1).map_or(128, number);
    let context = Context::new(Isa::best(), threads).expect("threads");
    println!(
        "batch {batch}, {threads} threads, {}; median of {ROUNDS} rounds; ratios are \
         matrixmultiply's time over ours: median (quartiles)\n",
        context.isa
    );
    println!("| product | matrixmultiply GFLOP/s | row-major | ratio | training path | ratio |");
    println!("|---|---|---|---|---|---|");
    for shape in shapes(batch) {
        let mut product = Product::new(shape);
        product.verify(&context);
        let once = Instant::now();
        product.matrixmultiply();
        let calls = TIMING.div_duration_f64(once.elapsed()).ceil() as usize;

        let mut times: [Vec<f64>; 3] = Default::default();
        for round in 0..ROUNDS {
            // Each is first in a third of the rounds, and follows each of the others.
            for i in 0..3 {
                let way = (round + if round % 2 == 0 { i } else { 3 - i }) % 3;
                let seconds = match way {
                    0 => time(calls, || product.matrixmultiply()),
                    1 => context.pool.install(|| time(calls, || product.row_major(&context))),
                    _ => context.pool.install(|| time(calls, || product.training_path(&context))),
                };
                times[way].push(seconds);
            }
        }
        let [theirs, row_major, training_path] = &times;
        println!(
            "| {shape} | {} | {} | {} | {} | {} |",
            rate(shape.flop(), theirs),
            rate(shape.flop(), row_major),
            ratio(theirs, row_major),
            rate(shape.flop(), training_path),
            ratio(theirs, training_path),
        );
    }
}

/// Seconds a call, after one that is not counted.
fn time(calls: usize, mut call: impl FnMut()) -> f64 {
    call();
    let start = Instant::now();
    (0..calls).for_each(|_| call());
    start.elapsed().as_secs_f64() / calls as f64
}

/// The first quartile, the median and the third quartile.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

fn rate(flop: u64, seconds: &[f64]) -> String {
    let [_, median, _] = quartiles(seconds.to_vec());
    format!("{:.1}", flop as f64 / median / 1e9)
}

fn ratio(theirs: &[f64], ours: &[f64]) -> String {
    let ratios = theirs.iter().zip(ours).map(|(theirs, ours)| theirs / ours).collect();
    let [low, median, high] = quartiles(ratios);
    format!("{median:.2} ({low:.2}–{high:.2})")
}
