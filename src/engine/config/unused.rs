//! Keys whose values play no part beside those of others.

use super::{Config, OptimizerKind, ScheduleKind, TrainingConfig};

/// The teacher's part of the gradient is told where it is less than this share of the labels'.
const HARDLY: f64 = 1e-3;

impl Config {
    /// What the configuration says of the training and nothing reads: a sentence for each. A key with
    /// its default value counts as not given, for a resolved configuration has all keys.
    pub fn unused(&self) -> Vec<String> {
        let (training, default) = (&self.training, TrainingConfig::default());
        let is_adam = matches!(training.optimizer, OptimizerKind::Adam | OptimizerKind::AdamW);
        let is_hinton = training.optimizer == OptimizerKind::Hinton2012;
        let (steps, decays) = (
            training.schedule == ScheduleKind::Step,
            training.schedule == ScheduleKind::Exponential,
        );
        let mut keys = vec![
            ("momentum", !is_hinton, training.momentum, default.momentum),
            ("beta2", is_adam, training.beta2, default.beta2),
            ("epsilon", is_adam, training.epsilon, default.epsilon),
            ("decay", decays, training.decay, default.decay),
            ("step_factor", steps, training.step_factor, default.step_factor),
        ];
        let epochs = [
            ("momentum_epochs", is_hinton, training.momentum_epochs, default.momentum_epochs),
            ("step_epochs", steps, training.step_epochs, default.step_epochs),
        ];
        keys.extend(
            epochs.map(|(key, used, value, default)| (key, used, value as f64, default as f64)),
        );
        let unused = keys.into_iter().filter(|(_, used, value, default)| !used && value != default);
        let told = |(key, _, value, _): (&str, bool, f64, f64)| {
            let beside = match key {
                "decay" | "step_factor" | "step_epochs" => {
                    format!("schedule = \"{}\"", format!("{:?}", training.schedule).to_lowercase())
                }
                _ => format!(
                    "optimizer = \"{}\"",
                    format!("{:?}", training.optimizer).to_lowercase()
                ),
            };
            format!("training.{key} = {value} plays no part: {beside} does not read it")
        };
        unused.map(told).collect()
    }

    /// That the teacher has no part in a distillation, or as good as none: a sentence.
    ///
    /// The soft term's gradient by a logit, soft_weight · T · (q − p), is at most soft_weight · T; that of the
    /// hard term is at most hard_weight.
    pub fn silent_teacher(&self) -> Option<String> {
        let distillation = self.distillation.as_ref()?;
        let (soft, hard, t) =
            (distillation.soft_weight, distillation.hard_weight, distillation.temperature);
        // T may be infinite.
        let most = if soft > 0.0 { soft * t } else { 0.0 };
        let shown = if soft > 0.0 { format!("{most:e}") } else { "0".into() };
        let labels = if hard > 0.0 {
            format!("that of the labels up to hard_weight = {hard}")
        } else {
            "and there is no other".into()
        };
        (most < HARDLY * if hard > 0.0 { hard } else { 1.0 }).then(|| {
            format!(
                "the teacher hardly takes part: its gradient, distillation.soft_weight · T · (q − p), is at most \
                 {shown}, {labels}"
            )
        })
    }
}
