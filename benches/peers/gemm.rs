//! Our products beside matrixmultiply's and the gemm crate's, interleaved: a table of rates, shares of
//! the measured peak, and paired ratios.
//!
//! `MATMUL_NUM_THREADS` sets the threads of all (with `RAYON_NUM_THREADS` for the gemm crate);
//! matrixmultiply uses 4 at most. The batch size is the only argument, 128 by default.

#[path = "../common/products.rs"]
mod products;

use limbeck_kernels::{Context, Isa, peak};
use products::{Product, shapes};
use std::time::{Duration, Instant};

const ROUNDS: usize = 41;
/// Least duration of one timing.
const TIMING: Duration = Duration::from_millis(6);
/// Of a measurement of the peak.
const PROBE: Duration = Duration::from_millis(2);

fn main() {
    let number = |text: String| text.parse().unwrap_or_else(|_| panic!("'{text}' is no number"));
    let available = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = std::env::var("MATMUL_NUM_THREADS").map_or(available, number);
    let batch = std::env::args().nth(1).map_or(128, number);
    let context = Context::new(Isa::best(), threads).expect("threads");
    println!(
        "batch {batch}, {threads} threads, {}; GFLOP/s and share of the peak, medians of {ROUNDS} \
         rounds; ratios are the peer's time over the training path's: median (quartiles)\n",
        context.isa
    );
    println!(
        "| product | training path | row-major | matrixmultiply | ratio | gemm crate | ratio |"
    );
    println!("|---|---|---|---|---|---|---|");
    for shape in shapes(batch) {
        let mut product = Product::new(shape);
        product.verify(&context);
        let once = Instant::now();
        product.matrixmultiply();
        let calls = TIMING.div_duration_f64(once.elapsed()).ceil() as usize;

        let mut times: [Vec<f64>; 4] = Default::default();
        let mut peaks = Vec::new();
        for round in 0..ROUNDS {
            peaks.push(peak::flops(&context, PROBE));
            // Each comes first in a quarter of the rounds, and the order turns.
            for i in 0..4 {
                let way = (round + if round % 2 == 0 { i } else { 4 - i }) % 4;
                let seconds = match way {
                    0 => context.pool.install(|| time(calls, || product.training_path(&context))),
                    1 => context.pool.install(|| time(calls, || product.row_major(&context))),
                    2 => time(calls, || product.matrixmultiply()),
                    _ => time(calls, || product.gemm_crate(threads)),
                };
                times[way].push(seconds);
            }
        }
        let [ours, row_major, matrixmultiply, gemm_crate] = &times;
        let rate = |seconds| rate(shape.flop(), seconds, &peaks);
        println!(
            "| {shape} | {} | {} | {} | {} | {} | {} |",
            rate(ours),
            rate(row_major),
            rate(matrixmultiply),
            ratio(matrixmultiply, ours),
            rate(gemm_crate),
            ratio(gemm_crate, ours),
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

fn rate(flop: u64, seconds: &[f64], peaks: &[f64]) -> String {
    let rates = seconds.iter().map(|seconds| flop as f64 / seconds);
    let shares = rates.clone().zip(peaks).map(|(rate, peak)| 100.0 * rate / peak);
    let [_, rate, _] = quartiles(rates.collect());
    let [_, share, _] = quartiles(shares.collect());
    format!("{:.0} ({share:.0} %)", rate / 1e9)
}

fn ratio(theirs: &[f64], ours: &[f64]) -> String {
    let ratios = theirs.iter().zip(ours).map(|(theirs, ours)| theirs / ours).collect();
    let [low, median, high] = quartiles(ratios);
    format!("{median:.2} ({low:.2}–{high:.2})")
}
