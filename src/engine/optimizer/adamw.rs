//! `adamw`: w ← w − η·λ·w, then Adam's step with the gradient alone: λ, the key `weight_decay`, is
//! decoupled from the moments (Loshchilov & Hutter 2019).

use super::adam::BetaPowers;
use super::{Method, StepSize};
use crate::engine::config::TrainingConfig;
use crate::files::error::Result;
use limbeck_kernels::update::Rule;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct AdamW {
    powers: BetaPowers,
}

impl Method for AdamW {
    fn moments(&self) -> usize {
        2
    }

    fn rule(&mut self, training: &TrainingConfig, at: StepSize) -> Rule {
        Rule::AdamW {
            learning_rate: at.learning_rate,
            beta1: training.momentum as f32,
            beta2: training.beta2 as f32,
            epsilon: training.epsilon as f32,
            corrections: self.powers.corrections(training),
        }
    }

    fn scalars(&self) -> Vec<(&'static str, f64)> {
        self.powers.scalars()
    }

    fn restore(&mut self, scalars: &BTreeMap<String, f64>) -> Result<()> {
        self.powers.restore(scalars)
    }
}
