//! A dropout mask: drawn, and applied to activations.

use super::measure::{Machine, Spread, beside_peak, random};
use crate::engine::config::Precision;
use limbeck_kernels::random::{Dropout as Mask, Key};
use limbeck_kernels::{Buffer, Context, PanelsMut, activation, panel_len};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// Dropout of a matrix of activations.
#[derive(Debug, Serialize)]
pub struct Dropout {
    /// Where.
    #[serde(flatten)]
    pub machine: Machine,
    /// Units.
    pub units: usize,
    /// Examples.
    pub batch: usize,
    /// Probability to be dropped.
    pub rate: f64,
    /// Share that was dropped in the last pass.
    pub dropped: f64,
    /// A pass that draws the random numbers, drops and scales, nanoseconds an element.
    pub dropout_ns: Spread,
}

/// Times [`activation::forward`] without an activation, on ones.
pub fn dropout(context: &Context, units: usize, batch: usize, rate: f64) -> Dropout {
    let mut y = random(1, panel_len(units, batch));
    let mask = Mask::new(Key::new(0, 0, 0), rate as f32, batch);
    let pass = |y: &mut Buffer| {
        activation::forward(context, None, Some(mask), PanelsMut::new(y, units, batch));
    };
    // The same elements are dropped each time and the others scaled up, to infinity at the most,
    // which takes no longer.
    let (_, seconds) =
        context.pool.install(|| beside_peak(context, Precision::F32, 0.0, 25, || pass(&mut y)));
    let ones = vec![1.0; units * batch];
    PanelsMut::new(&mut y, units, batch).copy_from_lane_major(&ones);
    pass(&mut y);
    let kept = y.iter().filter(|&&y| y > 0.0).count();
    let elements = (units * batch) as f64;
    Dropout {
        machine: Machine::of(context),
        units,
        batch,
        rate,
        dropped: 1.0 - kept as f64 / elements,
        dropout_ns: seconds.times(1e9 / elements),
    }
}

impl Display for Dropout {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Dropout { machine, units, batch, rate, dropped, dropout_ns: ns } = self;
        write!(f, "{machine}")?;
        writeln!(f, "{batch} examples of {units} units at a rate of {rate}, {dropped:.4} dropped")?;
        writeln!(f, "{:.3} ns an element ({:.3} to {:.3})", ns.median, ns.min, ns.max)
    }
}
