//! What the benches share: timings beside the peak, their medians, random data.

use crate::engine::config::Precision;
use crate::run::manifest::cpu_model;
use limbeck_kernels::{Buffer, Context, peak};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

/// Operations per second that products in `precision` cannot pass, measured in the time that is given to
/// it between two timings.
pub fn peak_flops(context: &Context, precision: Precision) -> f64 {
    const PROBE: Duration = Duration::from_millis(3);
    match precision {
        Precision::F32 => peak::flops(context, PROBE),
        Precision::Bf16 => peak::bf16_flops(context, PROBE),
    }
}

/// Which of some moments were calm: those in which every core issued at least 3/4 of the instructions of
/// the best of them. A neighbour on a core's other hardware thread takes half.
pub fn calm(issue_rates: &[f64]) -> Vec<bool> {
    let best = issue_rates.iter().copied().fold(0.0, f64::max);
    issue_rates.iter().map(|rate| *rate >= 0.75 * best).collect()
}

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

/// A rate beside the peak.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rate {
    /// In the median.
    pub gflops: f64,
    /// Measured between the timings.
    pub peak_gflops: f64,
    /// Median of paired shares.
    pub fraction_of_peak: f64,
}

impl Rate {
    /// Of `flop` operations in each of `seconds`; `peaks` stand before, between and behind them.
    pub fn of(flop: f64, seconds: &[f64], peaks: &[f64]) -> Rate {
        let peaks = || peaks.windows(2).map(|around| (around[0] + around[1]) / 2.0);
        let shares = seconds.iter().zip(peaks()).map(|(seconds, peak)| flop / seconds / peak);
        Rate {
            gflops: flop / Spread::of(seconds.iter().copied()).median / 1e9,
            peak_gflops: Spread::of(peaks()).median / 1e9,
            fraction_of_peak: Spread::of(shares).median,
        }
    }
}

impl Display for Rate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Rate { gflops, peak_gflops: peak, fraction_of_peak: share } = self;
        writeln!(f, "{gflops:.1} GFLOP/s of a peak of {peak:.1}: {:.1} %", share * 100.0)
    }
}

/// Times `work` of `flop` operations in `precision`, `rounds` times, with the peak before and after
/// each; returns the rate, and the seconds of a call.
pub fn beside_peak(
    context: &Context,
    precision: Precision,
    flop: f64,
    rounds: usize,
    mut work: impl FnMut(),
) -> (Rate, Spread) {
    let mut once = || {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    once();
    let calls = (4e-3 / once()).ceil().clamp(1.0, 1e6) as usize;
    let (mut seconds, mut peaks) = (Vec::new(), vec![peak_flops(context, precision)]);
    for _ in 0..rounds {
        seconds.push(Spread::of((0..calls).map(|_| once())).median);
        peaks.push(peak_flops(context, precision));
    }
    (Rate::of(flop, &seconds, &peaks), Spread::of(seconds))
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
    fn a_moment_with_a_neighbour_is_not_calm() {
        assert_eq!(
            calm(&[14.0, 7.0, 15.0, 11.2, 11.4, 0.1]),
            [true, false, true, false, true, false]
        );
        assert!(calm(&[]).is_empty());
    }

    #[test]
    fn shares_are_medians_of_pairs() {
        // Rates of 1, 4 and 9, between peaks of 2, 5 and 10 in the mean.
        let rate = Rate::of(1.0, &[1.0, 1.0 / 4.0, 1.0 / 9.0], &[2.0, 2.0, 8.0, 12.0]);
        assert_eq!((rate.fraction_of_peak, rate.peak_gflops, rate.gflops), (0.8, 5e-9, 4e-9));
        // Of an even number, the mean of the two in the middle.
        let spread = Spread::of([4.0, 1.0, 8.0, 2.0]);
        assert_eq!((spread.median, spread.min, spread.max), (3.0, 1.0, 8.0));
    }
}
