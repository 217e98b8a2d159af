//! Learning-rate schedules.

use crate::engine::config::{ScheduleKind, TrainingConfig};

/// The learning rate after `epochs_done` epochs (fractional within an epoch), η₀ at the start.
///
/// | schedule | η |
/// |---|---|
/// | constant | η₀ |
/// | exponential | η₀ · decay^⌊e⌋ |
/// | step | η₀ · step_factor^⌊e / step_epochs⌋ |
/// | linear | η₀ · (1 − e/epochs) |
/// | cosine | η₀ · ½(1 + cos(π e/epochs)) |
pub fn learning_rate(training: &TrainingConfig, epochs_done: f64) -> f64 {
    let rate = training.learning_rate;
    let fraction = epochs_done / training.epochs as f64;
    match training.schedule {
        ScheduleKind::Constant => rate,
        ScheduleKind::Exponential => rate * libm::pow(training.decay, epochs_done.floor()),
        ScheduleKind::Step => {
            let steps = (epochs_done / training.step_epochs as f64).floor();
            rate * libm::pow(training.step_factor, steps)
        }
        ScheduleKind::Linear => rate * (1.0 - fraction),
        ScheduleKind::Cosine => rate * 0.5 * (1.0 + libm::cos(std::f64::consts::PI * fraction)),
    }
}
