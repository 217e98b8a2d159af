//! `adamw`: w ← w − η·λ·w, then Adam's step with the gradient alone: λ, the key `weight_decay`, is
//! decoupled from the moments (Loshchilov & Hutter 2019).

use super::{Method, StepSize, adam};
use crate::engine::config::TrainingConfig;
use limbeck_kernels::update::Rule;

pub(super) struct AdamW;

impl Method for AdamW {
    fn moments(&self) -> usize {
        2
    }

    fn scalars(&self) -> &'static [(&'static str, f64)] {
        &adam::POWERS
    }

    fn rule(&self, training: &TrainingConfig, at: StepSize, powers: &mut [f64]) -> Rule {
        Rule::AdamW {
            learning_rate: at.learning_rate,
            beta1: training.momentum as f32,
            beta2: training.beta2 as f32,
            epsilon: training.epsilon as f32,
            corrections: adam::corrections(training, powers),
        }
    }
}
