//! `hinton2012`: v ← m·v − (1 − m)·η·g; w ← w + v, with a momentum that rises (Hinton et al. 2012,
//! arXiv 1207.0580, appendix A.1). The paper lets η fall with the schedule `exponential`.

use super::{Method, StepSize};
use crate::engine::config::TrainingConfig;
use limbeck_kernels::update::Rule;

/// The momentum after `epochs_done` epochs: linear from 0.5 to 0.99 over `momentum_epochs`.
pub fn momentum(training: &TrainingConfig, epochs_done: f64) -> f64 {
    let t = (epochs_done / training.momentum_epochs as f64).min(1.0);
    t * 0.99 + (1.0 - t) * 0.5
}

pub(super) struct Hinton2012;

impl Method for Hinton2012 {
    fn rule(&self, training: &TrainingConfig, at: StepSize, _: &mut [f64]) -> Rule {
        let momentum = momentum(training, at.epochs_done) as f32;
        Rule::Hinton2012 { learning_rate: at.learning_rate, momentum }
    }
}
