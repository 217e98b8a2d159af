//! The errors of softmax and log-softmax, against f64.
//!
//! For each number of classes and each T, examples of many kinds, on every instruction set with 1
//! and 2 threads. The bounds are derived in [`reference::softmax_bounds`] and
//! [`reference::log_softmax_bounds`]. They grow with (m − z)/T, the distance to the largest logit:
//! a probability of e⁻⁸⁰ has an exponent of 80, whose rounding alone is a relative error of
//! 80 · 2⁻²⁴. The error of log-softmax is given in units of ε·max(1, |log q|): near q = 1 it is
//! absolute.

use super::{Faults, Place, contexts, for_each_job};
use crate::files::error::Result;
use limbeck_kernels::reference::{self, EPSILON, ulps};
use limbeck_kernels::{Buffer, Context, Panels, PanelsMut, panel_len, softmax};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

const CLASSES: [usize; 7] = [2, 3, 10, 17, 100, 1000, 14_000];
const TEMPERATURES: [f32; 8] = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 100.0, 1e4];
/// Threads: the work is shared by examples, and none is split.
const THREADS: [usize; 2] = [1, 2];

/// The errors for one number of classes and one temperature.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Errors {
    /// Classes.
    pub classes: usize,
    /// T.
    pub temperature: f32,
    /// Examples.
    pub examples: usize,
    /// Of softmax where q ≥ 2⁻¹⁰, in units in the last place.
    pub softmax_likely_ulps: f64,
    /// Of all of softmax, in units in the last place.
    pub softmax_ulps: f64,
    /// The largest share of its bound, at most 1.
    pub softmax_share_of_bound: f64,
    /// Of log-softmax, in ε·max(1, |log q|).
    pub log_softmax: f64,
    /// The largest share of its bound, at most 1.
    pub log_softmax_share_of_bound: f64,
}

/// The errors of softmax and log-softmax.
#[derive(Clone, Debug, Serialize)]
pub struct Softmax {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// By classes and temperature.
    pub errors: Vec<Errors>,
    /// What does not hold.
    pub faults: Faults,
}

/// About `values` of them for each number of classes and temperature, in at least 32 examples.
///
/// # Errors
/// [`crate::Error::Usage`] when the operating system refuses the threads.
pub fn verify(values: usize) -> Result<Softmax> {
    let mut report =
        Softmax { place: Place::here(), errors: Vec::new(), faults: Faults::default() };
    let mut rows = Vec::new();
    for_each_job(
        contexts(&THREADS)?,
        CLASSES.len() * TEMPERATURES.len(),
        |contexts, job| {
            let classes = CLASSES[job / TEMPERATURES.len()];
            let temperature = TEMPERATURES[job % TEMPERATURES.len()];
            let examples = (values / classes).max(32);
            (job, judge(contexts, classes, temperature, examples))
        },
        |(job, (errors, faults))| {
            rows.push((job, errors));
            report.faults.merge(faults);
        },
    );
    rows.sort_by_key(|(job, _)| *job);
    report.errors = rows.into_iter().map(|(_, errors)| errors).collect();
    Ok(report)
}

/// Logits [examples, classes] of eight kinds in turn: equal; ±10⁴ by class; one at 10⁴; of
/// magnitudes 10⁴, 100 and 1; all but one far below; and 8 times uniform.
fn logits(classes: usize, examples: usize, seed: u64) -> Vec<f32> {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let mut logits = Vec::with_capacity(classes * examples);
    for example in 0..examples {
        let chosen = rng.next_u32() as usize % classes;
        for class in 0..classes {
            let uniform = rng.next_u32() as i32 as f32 / (1_u32 << 31) as f32;
            logits.push(match example % 8 {
                0 => 3.25,
                1 if class % 2 == 0 => 1e4,
                1 => -1e4,
                2 if class == chosen => 1e4,
                3 => 1e4 * uniform,
                4 => 100.0 * uniform,
                5 => uniform,
                6 if class == chosen => 0.0,
                6 => -80.0 + 8.0 * uniform,
                _ => 8.0 * uniform,
            });
        }
    }
    logits
}

fn judge(contexts: &[Context], classes: usize, t: f32, examples: usize) -> (Errors, Faults) {
    let logits = logits(classes, examples, t.to_bits().into());
    let mut z = Buffer::zeroed(panel_len(classes, examples));
    PanelsMut::new(&mut z, classes, examples).copy_from_lane_major(&logits);
    let z = Panels::new(&z, classes, examples);
    let name = format!("of {classes} classes at T = {t}");

    let mut faults = Faults::default();
    let mut first: Option<[Vec<f32>; 2]> = None;
    for context in contexts {
        let run = |log: bool| {
            let mut out = Buffer::zeroed(panel_len(classes, examples));
            let q = PanelsMut::new(&mut out, classes, examples);
            if log {
                softmax::log_softmax(context, z, t, q);
            } else {
                softmax::softmax(context, z, t, q);
            }
            let mut values = vec![0.0; logits.len()];
            Panels::new(&out, classes, examples).to_lane_major(&mut values);
            values
        };
        let got = context.pool.install(|| [run(false), run(true)]);
        let want = first.get_or_insert_with(|| got.clone());
        for (what, (got, want)) in ["softmax", "log-softmax"].iter().zip(got.iter().zip(want)) {
            if got.iter().zip(&*want).any(|(got, want)| got.to_bits() != want.to_bits()) {
                let (isa, threads) = (context.isa, context.pool.threads());
                faults.add(|| {
                    let first = contexts[0].isa;
                    format!(
                        "{what} {name}: other bits on {isa} with {threads} threads than on {first}"
                    )
                });
            }
        }
    }
    let [q, log_q] = first.expect("at least the portable ISA");

    let mut errors = Errors { classes, temperature: t, examples, ..Errors::default() };
    let rows = logits.chunks(classes).zip(q.chunks(classes)).zip(log_q.chunks(classes));
    for ((z, q), log_q) in rows {
        errors.include(z, q, log_q);
    }
    let shares = [
        ("softmax", errors.softmax_share_of_bound),
        ("log-softmax", errors.log_softmax_share_of_bound),
    ];
    for (what, share) in shares {
        if share > 1.0 {
            faults.add(|| format!("{what} {name}: an error of {share} times its bound"));
        }
    }
    (errors, faults)
}

impl Errors {
    /// One example: its logits, and what the kernels made of them.
    fn include(&mut self, z: &[f32], q: &[f32], log_q: &[f32]) {
        let z: Vec<f64> = z.iter().map(|&z| z.into()).collect();
        let t = f64::from(self.temperature);
        // NaN counts as an infinite error.
        let worse = |old: &mut f64, new: f64| {
            *old = if new.is_nan() { f64::INFINITY } else { old.max(new) };
        };
        let bounds = reference::softmax_bounds(&z, t);
        for ((want, &got), bound) in reference::softmax(&z, t).into_iter().zip(q).zip(bounds) {
            let error = ulps(want, got);
            worse(&mut self.softmax_ulps, error);
            if want >= 1.0 / 1024.0 {
                worse(&mut self.softmax_likely_ulps, error);
            }
            worse(&mut self.softmax_share_of_bound, (f64::from(got) - want).abs() / bound);
        }
        let bounds = reference::log_softmax_bounds(&z, t);
        for ((want, &got), bound) in
            reference::log_softmax(&z, t).into_iter().zip(log_q).zip(bounds)
        {
            let error = (f64::from(got) - want).abs();
            worse(&mut self.log_softmax, error / (EPSILON * want.abs().max(1.0)));
            worse(&mut self.log_softmax_share_of_bound, error / bound);
        }
    }
}

impl Display for Softmax {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        writeln!(f, "largest errors, and the largest share of the bound")?;
        writeln!(
            f,
            "{:>7} {:>7} {:>9}  {:>14} {:>10} {:>8}  {:>14} {:>8}",
            "classes", "T", "examples", "q≥2⁻¹⁰, ULP", "q, ULP", "", "log q, ε·max", ""
        )?;
        for row in &self.errors {
            writeln!(
                f,
                "{:>7} {:>7} {:>9}  {:>14.2} {:>10.2} {:>6.1} %  {:>14.2} {:>6.1} %",
                row.classes,
                row.temperature,
                row.examples,
                row.softmax_likely_ulps,
                row.softmax_ulps,
                100.0 * row.softmax_share_of_bound,
                row.log_softmax,
                100.0 * row.log_softmax_share_of_bound
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_found() {
        let shares = |q: f32, log_q: f32| {
            let mut errors = Errors { temperature: 1.0, ..Errors::default() };
            errors.include(&[1.0, 1.0], &[0.5, q], &[-std::f32::consts::LN_2, log_q]);
            (errors.softmax_share_of_bound, errors.log_softmax_share_of_bound)
        };
        let ln_half = -std::f32::consts::LN_2;
        assert!(shares(0.5, ln_half).0 <= 1.0 && shares(0.5, ln_half).1 <= 1.0);
        assert!(shares(0.500_001, ln_half).0 > 1.0);
        assert!(shares(0.5, ln_half - 1e-6).1 > 1.0);
        assert!(shares(f32::NAN, f32::NAN).0 > 1.0 && shares(f32::NAN, f32::NAN).1 > 1.0);
    }
}
