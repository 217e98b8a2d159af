//! `nesterov`: momentum that looks ahead, v ← m·v + g; w ← w − η·(g + m·v) (PyTorch's form).

use super::{Method, StepSize};
use crate::engine::config::TrainingConfig;
use limbeck_kernels::update::Rule;

pub(super) struct Nesterov;

impl Method for Nesterov {
    fn rule(&self, training: &TrainingConfig, at: StepSize, _: &mut [f64]) -> Rule {
        Rule::Nesterov { learning_rate: at.learning_rate, momentum: training.momentum as f32 }
    }
}
