//! `adam`: v ← β₁v + (1 − β₁)g; u ← β₂u + (1 − β₂)g²; w ← w − η·(v/c₁)/(√(u/c₂) + ε) with
//! cᵢ = 1 − βᵢᵗ in step t (Kingma & Ba 2015). β₁ is the key `momentum`.

use super::{Method, StepSize, scalar};
use crate::engine::config::TrainingConfig;
use crate::files::error::Result;
use limbeck_kernels::update::Rule;
use std::collections::BTreeMap;

/// β₁ᵗ and β₂ᵗ after t steps, as running products: unlike powers they are the same on every
/// platform.
pub(super) struct BetaPowers([f64; 2]);

impl Default for BetaPowers {
    fn default() -> Self {
        BetaPowers([1.0; 2])
    }
}

impl BetaPowers {
    const NAMES: [&str; 2] = ["beta1_power", "beta2_power"];

    /// Counts a step; returns c₁ and c₂.
    pub fn corrections(&mut self, training: &TrainingConfig) -> [f32; 2] {
        self.0[0] *= training.momentum;
        self.0[1] *= training.beta2;
        self.0.map(|power| (1.0 - power) as f32)
    }

    pub fn scalars(&self) -> Vec<(&'static str, f64)> {
        Self::NAMES.into_iter().zip(self.0).collect()
    }

    pub fn restore(&mut self, scalars: &BTreeMap<String, f64>) -> Result<()> {
        for (power, name) in self.0.iter_mut().zip(Self::NAMES) {
            *power = scalar(scalars, name)?;
        }
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct Adam {
    powers: BetaPowers,
}

impl Method for Adam {
    fn moments(&self) -> usize {
        2
    }

    fn rule(&mut self, training: &TrainingConfig, at: StepSize) -> Rule {
        Rule::Adam {
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
