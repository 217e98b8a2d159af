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
        let steps = training.schedule == ScheduleKind::Step;
        let decays = training.schedule == ScheduleKind::Exponential;
        let optimizer = format!("optimizer = \"{:?}\"", training.optimizer).to_lowercase();
        let schedule = format!("schedule = \"{:?}\"", training.schedule).to_lowercase();
        let [momentum, step] = [
            [training.momentum_epochs, default.momentum_epochs],
            [training.step_epochs, default.step_epochs],
        ]
        .map(|epochs| epochs.map(|epochs| epochs as f64));
        // Key, its value and its default, whether it is read, and by what.
        let keys = [
            ("momentum", [training.momentum, default.momentum], !is_hinton, &optimizer),
            ("beta2", [training.beta2, default.beta2], is_adam, &optimizer),
            ("epsilon", [training.epsilon, default.epsilon], is_adam, &optimizer),
            ("decay", [training.decay, default.decay], decays, &schedule),
            ("step_factor", [training.step_factor, default.step_factor], steps, &schedule),
            ("momentum_epochs", momentum, is_hinton, &optimizer),
            ("step_epochs", step, steps, &schedule),
        ];
        let unused =
            keys.into_iter().filter(|(_, [value, default], used, _)| !used && value != default);
        let told = |(key, [value, _], _, reader): (&str, [f64; 2], bool, &String)| {
            format!("training.{key} = {value} plays no part: {reader} does not read it")
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
        let (most, shown) = match soft > 0.0 {
            true => (soft * t, format!("{:e}", soft * t)),
            false => (0.0, "0".into()),
        };
        let (enough, labels) = match hard > 0.0 {
            true => (HARDLY * hard, format!("that of the labels up to hard_weight = {hard}")),
            false => (HARDLY, "and there is no other".into()),
        };
        (most < enough).then(|| {
            format!(
                "the teacher hardly takes part: its gradient, distillation.soft_weight · T · (q − p), is at most \
                 {shown}, {labels}"
            )
        })
    }
}
