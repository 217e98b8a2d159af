//! `adam`: v ← β₁v + (1 − β₁)g; u ← β₂u + (1 − β₂)g²; w ← w − η·(v/c₁)/(√(u/c₂) + ε) with
//! cᵢ = 1 − βᵢᵗ in step t (Kingma & Ba 2015). β₁ is the key `momentum`.

use super::{Method, StepSize};
use crate::engine::config::TrainingConfig;
use limbeck_kernels::update::Rule;

/// β₁ᵗ and β₂ᵗ after t steps, as running products: powers differ between platforms.
pub(super) const POWERS: [(&str, f64); 2] = [("beta1_power", 1.0), ("beta2_power", 1.0)];

/// Counts a step in [`POWERS`]; returns c₁ and c₂.
pub(super) fn corrections(training: &TrainingConfig, powers: &mut [f64]) -> [f32; 2] {
    powers[0] *= training.momentum;
    powers[1] *= training.beta2;
    [0, 1].map(|i| (1.0 - powers[i]) as f32)
}

pub(super) struct Adam;

impl Method for Adam {
    fn moments(&self) -> usize {
        2
    }

    fn scalars(&self) -> &'static [(&'static str, f64)] {
        &POWERS
    }

    fn rule(&self, training: &TrainingConfig, at: StepSize, powers: &mut [f64]) -> Rule {
        Rule::Adam {
            learning_rate: at.learning_rate,
            beta1: training.momentum as f32,
            beta2: training.beta2 as f32,
            epsilon: training.epsilon as f32,
            corrections: corrections(training, powers),
        }
    }
}
