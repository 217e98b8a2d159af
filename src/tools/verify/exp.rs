//! The error of e^x, against f64, over all or some of the 2³² values of f32.

use super::{Faults, Place, for_each_job, workers};
use limbeck_kernels::{Isa, exp::ULPS, exp::exp_in_place, reference::ulps};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// The error of e^x.
#[derive(Clone, Debug, Serialize)]
pub struct Exp {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// Arguments tried, each on every instruction set, which all must give the same bits.
    pub arguments: u64,
    /// The largest error in units in the last place.
    pub max_ulps: f64,
    /// Its argument.
    pub at: f32,
    /// What is documented.
    pub bound_ulps: f64,
    /// What does not hold.
    pub faults: Faults,
}

/// What became of some arguments.
#[derive(Default)]
struct Part {
    max_ulps: f64,
    at: f32,
    faults: Faults,
}

/// Arguments of a job.
const PART: usize = 1 << 20;
/// Arguments computed at a time.
const BLOCK: usize = 1 << 10;

/// Every `stride`-th of the 2³² bit patterns, from 0 on: all of them for a stride of 1; one prime
/// to 2³² visits every exponent.
///
/// # Panics
/// If `stride` is 0.
pub fn verify(stride: u32) -> Exp {
    let arguments = (1_u64 << 32).div_ceil(stride.into());
    let mut report = Exp {
        place: Place::here(),
        arguments,
        max_ulps: 0.0,
        at: 0.0,
        bound_ulps: ULPS,
        faults: Faults::default(),
    };
    for_each_job(
        vec![(); workers()],
        arguments.div_ceil(PART as u64) as usize,
        |(), job| {
            let first = (job * PART) as u64;
            let numbers = first..arguments.min(first + PART as u64);
            let patterns: Vec<u32> = numbers.map(|i| (i * u64::from(stride)) as u32).collect();
            judge(&patterns)
        },
        |part: Part| {
            // Of equal errors the one of the first argument, whichever part ended first.
            let key = |error: f64, at: f32| (error, std::cmp::Reverse(at.to_bits()));
            if key(part.max_ulps, part.at) > key(report.max_ulps, report.at) {
                (report.max_ulps, report.at) = (part.max_ulps, part.at);
            }
            report.faults.merge(part.faults);
        },
    );
    report
}

fn judge(patterns: &[u32]) -> Part {
    let mut part = Part::default();
    let isas: Vec<Isa> = Isa::available().collect();
    let mut results = vec![[0.0; BLOCK]; isas.len()];
    for patterns in patterns.chunks(BLOCK) {
        for (isa, values) in isas.iter().zip(&mut results) {
            for (value, &pattern) in values.iter_mut().zip(patterns) {
                *value = f32::from_bits(pattern);
            }
            exp_in_place(*isa, values);
        }
        let (first, others) = results.split_first().expect("at least the portable ISA");
        for (i, &pattern) in patterns.iter().enumerate() {
            part.judge(f32::from_bits(pattern), first[i]);
            for (isa, other) in isas[1..].iter().zip(others) {
                let (got, want) = (other[i], first[i]);
                if got.to_bits() != want.to_bits() && !(got.is_nan() && want.is_nan()) {
                    let x = f32::from_bits(pattern);
                    part.faults
                        .add(|| format!("exp({x:e}) is {got:e} on {isa}, {want:e} on {}", isas[0]));
                }
            }
        }
    }
    part
}

impl Part {
    fn judge(&mut self, x: f32, got: f32) {
        if x.is_nan() {
            if !got.is_nan() {
                self.faults.add(|| format!("exp(NaN) is {got}"));
            }
            return;
        }
        let error = ulps(f64::from(x).exp(), got);
        // A NaN is no number of units.
        if error.is_nan() || error >= ULPS {
            self.faults.add(|| format!("exp({x:e}) is {got:e}: {error} ULP"));
        }
        if error > self.max_ulps {
            (self.max_ulps, self.at) = (error, x);
        }
    }
}

impl Display for Exp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Exp { arguments, max_ulps, at, bound_ulps, .. } = self;
        write!(f, "{}", self.place)?;
        writeln!(f, "e^x of {arguments} arguments: at most {max_ulps:.4} ULP, at x = {at:e}")?;
        writeln!(f, "bound {bound_ulps} ULP")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_found() {
        let faults = |x: f32, got: f32| {
            let mut part = Part::default();
            part.judge(x, got);
            part.faults.0.len()
        };
        let e = std::f32::consts::E;
        assert_eq!(faults(1.0, e), 0);
        assert_eq!(faults(1.0, e.next_up().next_up()), 1);
        assert_eq!(faults(1.0, f32::NAN), 1);
        assert_eq!(faults(f32::NAN, 1.0), 1);
        assert_eq!(faults(100.0, f32::MAX), 1);
        assert_eq!(faults(100.0, f32::INFINITY), 0);
    }
}
