//! Softmax with temperature, its logarithm, and the distillation gradient.

use super::measure::{Machine, beside_peak, random};
use crate::engine::config::Precision;
use limbeck_kernels::softmax::{self, Distillation};
use limbeck_kernels::{Buffer, Context, Panels, PanelsMut, panel_len};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// Softmax and its kin on one shape.
#[derive(Debug, Serialize)]
pub struct Softmax {
    /// Where.
    #[serde(flatten)]
    pub machine: Machine,
    /// Classes.
    pub classes: usize,
    /// Examples.
    pub batch: usize,
    /// T.
    pub temperature: f64,
    /// softmax(z/T), nanoseconds an element.
    pub softmax_ns: f64,
    /// log softmax(z/T).
    pub log_softmax_ns: f64,
    /// The gradient and the losses of soft targets at T and of labels, all three softmaxes
    /// included.
    pub distillation_ns: f64,
}

/// Times the softmax kernels on random logits.
pub fn softmax(context: &Context, classes: usize, batch: usize, temperature: f64) -> Softmax {
    let scale = |mut z: Buffer| {
        z.iter_mut().for_each(|z| *z *= 8.0);
        z
    };
    let len = panel_len(classes, batch);
    let (z, v) = (scale(random(1, len)), scale(random(2, len)));
    let (z, v) = (Panels::new(&z, classes, batch), Panels::new(&v, classes, batch));
    let labels: Vec<u16> = (0..batch).map(|i| (i % classes) as u16).collect();
    let mut losses = vec![Default::default(); z.panels()];
    let mut out = Buffer::zeroed(len);
    let t = temperature as f32;
    let ns = |work: &mut dyn FnMut()| {
        let (_, seconds) =
            context.pool.install(|| beside_peak(context, Precision::F32, 0.0, 25, work));
        seconds.median * 1e9 / (classes * batch) as f64
    };
    let task = Distillation {
        teacher: Some(v),
        labels: Some(&labels),
        temperature: t,
        soft_weight: 1.0,
        hard_weight: 0.05,
    };
    Softmax {
        machine: Machine::of(context),
        classes,
        batch,
        temperature,
        softmax_ns: ns(&mut || {
            softmax::softmax(context, z, t, PanelsMut::new(&mut out, classes, batch));
        }),
        log_softmax_ns: ns(&mut || {
            softmax::log_softmax(context, z, t, PanelsMut::new(&mut out, classes, batch));
        }),
        distillation_ns: ns(&mut || {
            let d_logits = PanelsMut::new(&mut out, classes, batch);
            task.gradient(context, z, &mut losses, d_logits);
        }),
    }
}

impl Display for Softmax {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Softmax { machine, classes, batch, temperature, .. } = self;
        write!(f, "{machine}")?;
        writeln!(f, "{batch} examples of {classes} classes at T = {temperature}, ns an element")?;
        writeln!(f, "softmax                {:.3}", self.softmax_ns)?;
        writeln!(f, "log-softmax            {:.3}", self.log_softmax_ns)?;
        writeln!(f, "distillation gradient  {:.3}", self.distillation_ns)
    }
}
