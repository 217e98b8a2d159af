//! `sgd`: stochastic gradient descent with momentum, v ← m·v + g; w ← w − η·v.

use super::{Method, StepSize};
use crate::engine::config::TrainingConfig;
use limbeck_kernels::update::Rule;

pub(super) struct Sgd;

impl Method for Sgd {
    fn rule(&self, training: &TrainingConfig, at: StepSize, _: &mut [f64]) -> Rule {
        Rule::Sgd { learning_rate: at.learning_rate, momentum: training.momentum as f32 }
    }
}
