//! Evaluation: the logits of many images.

use super::measure::{Machine, Rate, Spread, beside_peak};
use super::step::{EXAMPLES, StepBench, StepTask};
use crate::engine::config::Precision;
use crate::engine::mlp::Mlp;
use crate::files::error::Result;
use limbeck_kernels::Context;
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// The figures of evaluation: the logits of 8192 images.
#[derive(Debug, Serialize)]
pub struct Inference {
    /// Where.
    #[serde(flatten)]
    pub machine: Machine,
    /// Widths of the layers.
    pub net: String,
    /// What the operands of the products are.
    pub precision: Precision,
    /// Images.
    pub examples: usize,
    /// 2·m·n·k for each product.
    pub gflop: f64,
    /// For all images.
    pub ms: Spread,
    /// In the median.
    pub samples_per_second: f64,
    /// Of the median.
    #[serde(flatten)]
    pub rate: Rate,
}

/// Times [`Mlp::logits_in`] of the net `widths` on random images.
///
/// # Errors
/// As [`StepBench::new`].
pub fn inference(context: &Context, widths: &[usize], precision: Precision) -> Result<Inference> {
    let bench = StepBench::new(widths, 1, StepTask::Teacher)?;
    let model = Mlp::new(widths, 0);
    let values: usize = widths.windows(2).map(|w| w[0] * w[1]).sum();
    let flop = 2.0 * (EXAMPLES * values) as f64;
    let (rate, seconds) = context.pool.install(|| {
        beside_peak(context, precision, flop, 15, || {
            std::hint::black_box(model.logits_in(precision, context, &bench.split));
        })
    });
    Ok(Inference {
        machine: Machine::of(context),
        net: bench.net(),
        precision,
        examples: EXAMPLES,
        gflop: flop / 1e9,
        ms: seconds.times(1e3),
        samples_per_second: EXAMPLES as f64 / seconds.median,
        rate,
    })
}

impl Display for Inference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Inference { machine, net, precision, examples, ms, samples_per_second, rate, .. } =
            self;
        let precision = precision.name();
        let Spread { median, min, max } = ms;
        write!(f, "{machine}")?;
        writeln!(
            f,
            "{examples} images through {net} in {precision}: {median:.2} ms ({min:.2} to {max:.2})"
        )?;
        writeln!(f, "{rate}{samples_per_second:.0} samples/s")
    }
}
