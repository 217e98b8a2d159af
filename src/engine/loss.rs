//! The loss that is minimised, and its gradient.
//!
//! With student logits z, teacher logits v, labels y, temperature T, batch size B:
//!
//! L = (1/B) Σ [ soft_weight · T² · CE(softmax(v/T), softmax(z/T)) + hard_weight · CE(y, softmax(z)) ]
//!
//! ∂L/∂z = (1/B) [ soft_weight · T · (softmax(z/T) − softmax(v/T)) + hard_weight · (softmax(z) − y) ]
//!
//! The soft term's gradient scales as 1/T² without the factor T², so that factor keeps the two
//! terms' ratio when T changes; one T of it is used up by the derivative of softmax(z/T), which
//! leaves T in the gradient. CE(p, q) = −Σ pᵢ ln qᵢ; it differs from KL(p‖q) by the entropy of p,
//! which no parameter of the student changes. (Paper, section 2.)
//!
//! T = ∞ is allowed and means the limit, in which logits are matched (paper, section 2.1): with
//! d = z − v and d̄ its mean over the C classes, the soft term is soft_weight · ½·Σ(d − d̄)²/C and
//! its gradient soft_weight · (d − d̄)/C.

use crate::engine::config::Config;
use crate::engine::mlp::{Mlp, Workspace};
use limbeck_kernels::softmax::{Distillation, Loss};
use limbeck_kernels::{Context, Panels};
use serde::ser::{Serialize, SerializeStruct, Serializer};

/// The weights of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossSpec {
    /// T > 0 of student and teacher in the soft term; infinity for the matching of logits.
    pub temperature: f32,
    /// Weight of the soft term; 0 for training on labels alone.
    pub soft_weight: f32,
    /// Weight of the hard term; 0 for an unlabelled transfer set.
    pub hard_weight: f32,
}

impl LossSpec {
    /// Cross-entropy with the labels.
    pub const HARD: LossSpec = LossSpec { temperature: 1.0, soft_weight: 0.0, hard_weight: 1.0 };

    /// The loss of the `[distillation]` table, or of its defaults.
    pub fn soft(config: &Config) -> LossSpec {
        let table = config.distillation.clone().unwrap_or_default();
        LossSpec {
            temperature: table.temperature as f32,
            soft_weight: table.soft_weight as f32,
            hard_weight: table.hard_weight as f32,
        }
    }

    /// L of a batch or an epoch from its summed cross-entropies.
    pub fn value(&self, loss: Loss, examples: usize) -> f64 {
        let t = f64::from(self.temperature);
        let factor = if t.is_infinite() { 1.0 } else { t * t };
        let soft = f64::from(self.soft_weight) * factor * loss.soft;
        (soft + f64::from(self.hard_weight) * loss.hard) / examples as f64
    }

    /// L without its constant part, the entropy of the soft targets: T²·KL in place of T²·CE. It
    /// is 0 for a student that equals its teacher.
    pub fn reducible(&self, loss: Loss, examples: usize) -> f64 {
        self.value(Loss { soft: loss.divergence, ..loss }, examples)
    }
}

/// Writes d_logits of the batch in `work` and returns its summed cross-entropies.
///
/// A term without targets or of weight 0 is left out: `teacher` are the teacher's logits
/// \[C, B\], `labels` the class of each example.
pub fn distillation(
    context: &Context,
    objective: &LossSpec,
    model: &Mlp,
    teacher: Option<Panels>,
    labels: Option<&[u16]>,
    work: &mut Workspace,
) -> Loss {
    let LossSpec { temperature, soft_weight, hard_weight } = *objective;
    let task = Distillation {
        teacher: teacher.filter(|_| soft_weight > 0.0),
        labels: labels.filter(|_| hard_weight > 0.0),
        temperature,
        soft_weight,
        hard_weight,
    };
    let (logits, losses, d_logits) = work.loss_parts(model);
    task.gradient(context, logits, losses, d_logits);
    let mut sum = Loss::default();
    losses.iter().for_each(|loss| add(&mut sum, *loss));
    sum
}

/// sum ← sum + loss.
pub fn add(sum: &mut Loss, loss: Loss) {
    sum.soft += loss.soft;
    sum.divergence += loss.divergence;
    sum.hard += loss.hard;
}

/// What the manifest says about the loss: what exactly was minimised, and how it was averaged. JSON
/// has no number for T = ∞, which is the string `inf`.
impl Serialize for LossSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        // The decimal digits that were asked for, not the tail of their nearest f32.
        let digits = |x: f32| x.to_string().parse().unwrap_or(f64::from(x));
        let direction =
            "forward cross-entropy: soft targets p from the teacher, q from the student";
        let mut contract = serializer.serialize_struct("LossSpec", 6)?;
        contract.serialize_field("direction", direction)?;
        contract.serialize_field("reduction", "mean over the batch")?;
        match self.temperature.is_infinite() {
            true => contract.serialize_field("temperature", "inf")?,
            false => contract.serialize_field("temperature", &digits(self.temperature))?,
        }
        contract.serialize_field("t_squared", &true)?;
        contract.serialize_field("soft_weight", &digits(self.soft_weight))?;
        contract.serialize_field("hard_weight", &digits(self.hard_weight))?;
        contract.end()
    }
}
