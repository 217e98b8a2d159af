//! What the benches share: timings beside the peak, their medians, random data.

use crate::run::manifest::cpu_model;
use limbeck_kernels::peak::flops as peak_flops;
use limbeck_kernels::{Buffer, Context};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

/// Time given to one measurement of the peak between two timings.
pub const PROBE: Duration = Duration::from_millis(3);

/// Where figures were measured.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor, as it calls itself.
    pub cpu: String,
    /// The instruction set.
    pub isa: String,
    /// Threads.
    pub threads: usize,
}

impl Machine {
    /// This one, with the threads of `context`.
    pub fn of(context: &Context) -> Machine {
        let (isa, threads) = (context.isa.to_string(), context.pool.threads());
        Machine { cpu: cpu_model(), isa, threads }
    }
}

impl Display for Machine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Machine { cpu, isa, threads } = self;
        writeln!(f, "{cpu}, {isa}, {threads} threads")
    }
}

/// The median and the extremes of some timings or rates.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// Half of the values are at most this.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    ///
    /// # Panics
    /// If there is none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Spread { median: (low + high) / 2.0, min: values[0], max: values[values.len() - 1] }
    }

    /// Each figure, `factor` times.
    pub fn times(self, factor: f64) -> Spread {
        let Spread { median, min, max } = self;
        Spread { median: median * factor, min: min * factor, max: max * factor }
    }
}

/// A rate beside the peak that was measured around it.
#[derive(Clone, Copy)]
pub struct Sample {
    pub flops: f64,
    pub peak: f64,
}

/// Times `work` of `flop` operations, `rounds` times, with the peak before and after each.
pub fn beside_peak(
    context: &Context,
    flop: f64,
    rounds: usize,
    mut work: impl FnMut(),
) -> (Vec<Sample>, Spread) {
    let mut once = || {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    once();
    let calls = (4e-3 / once()).ceil().clamp(1.0, 1e6) as usize;
    let (mut samples, mut seconds) = (Vec::new(), Vec::new());
    let mut before = peak_flops(context, PROBE);
    for _ in 0..rounds {
        let each = Spread::of((0..calls).map(|_| once())).median;
        let after = peak_flops(context, PROBE);
        samples.push(Sample { flops: flop / each, peak: (before + after) / 2.0 });
        seconds.push(each);
        before = after;
    }
    (samples, Spread::of(seconds))
}

/// The shares of the peak that paired samples have reached, and the peak in GFLOP/s: medians.
pub fn median_shares(samples: &[Sample]) -> (f64, f64) {
    let shares = Spread::of(samples.iter().map(|sample| sample.flops / sample.peak)).median;
    (shares, Spread::of(samples.iter().map(|sample| sample.peak)).median / 1e9)
}

/// A rate, its peak and their ratio, as a line.
pub fn write_rate(f: &mut Formatter<'_>, gflops: f64, peak: f64, share: f64) -> fmt::Result {
    writeln!(f, "{gflops:.1} GFLOP/s of a peak of {peak:.1}: {:.1} %", share * 100.0)
}

/// `len` values, uniform in −1 … 1.
pub fn random(seed: u64, len: usize) -> Buffer {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut buffer = Buffer::zeroed(len);
    buffer.fill_with(|| rng.next_u32() as i32 as f32 / (1_u32 << 31) as f32);
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_medians_of_pairs() {
        let samples =
            [(1.0, 2.0), (4.0, 5.0), (9.0, 10.0)].map(|(flops, peak)| Sample { flops, peak });
        let (share, peak) = median_shares(&samples);
        assert_eq!((share, peak), (0.8, 5e-9));
        // Of an even number, the mean of the two in the middle.
        let spread = Spread::of([4.0, 1.0, 8.0, 2.0]);
        assert_eq!((spread.median, spread.min, spread.max), (3.0, 1.0, 8.0));
    }
}
