//! What each key may be.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use limbeck_datasets::shown;

use super::{
    Amount, ColumnKey, Config, DataConfig, DatasetKind, DistillationConfig, MAX_PARAMS,
    ModelConfig, TrainingConfig,
};

impl Config {
    pub(super) fn check(&self) -> Check {
        self.data.check()?;
        self.model.check()?;
        self.training.check()?;
        if let Some(distillation) = &self.distillation {
            distillation.check()?;
            let unlabelled =
                self.data.dataset == DatasetKind::Idx && self.data.train_labels.is_none();
            require(
                !unlabelled || distillation.hard_weight == 0.0,
                "distillation.hard_weight",
                "0 when data.train_labels is absent",
                distillation.hard_weight,
            )?;
        }
        require(
            self.training.early_stopping.is_none() || self.data.validation.is_some(),
            "training.early_stopping",
            "absent without data.validation, the examples that it watches",
            self.training.early_stopping.unwrap_or_default(),
        )?;
        let layers = &self.model.layers;
        if layers.is_empty() {
            return Ok(());
        }
        require(
            layers.last() == Some(&self.data.classes),
            "model.layers",
            &format!("ending in the number of classes, {}", self.data.classes),
            format!("{layers:?}"),
        )?;
        let Some((inputs, words)) = self.data.dataset.inputs() else { return Ok(()) };
        let expected = format!("starting with {inputs}, {words}");
        require(layers[0] == inputs, "model.layers", &expected, format!("{layers:?}"))
    }
}

impl DataConfig {
    pub(super) fn check_jitter(&self) -> Check {
        let jitter = self.jitter.unwrap_or(0);
        require(jitter <= 13, "data.jitter", "0 to 13 pixels", jitter)
    }

    pub(super) fn check(&self) -> Check {
        let at_least_one =
            |key, value: Option<usize>| require(value != Some(0), key, "at least 1", 0);
        at_least_one("data.train_limit", self.train_limit)?;
        for (key, amount) in [("data.holdout", self.holdout), ("data.validation", self.validation)]
        {
            let (holds, found) = match amount {
                None => continue,
                Some(Amount::Count(count)) => (count > 0, count.to_string()),
                Some(Amount::Share(share)) => (share > 0.0 && share < 1.0, share.to_string()),
            };
            require(holds, key, "a number of examples, or a share of them between 0 and 1", found)?;
        }
        self.check_jitter()?;
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let shown_key = |key: &ColumnKey| key.to_string();
        let keys = [
            (DatasetKind::Idx, "data.train_images", path(&self.train_images)),
            (DatasetKind::Idx, "data.train_labels", path(&self.train_labels)),
            (DatasetKind::Idx, "data.test_images", path(&self.test_images)),
            (DatasetKind::Idx, "data.test_labels", path(&self.test_labels)),
            (DatasetKind::Csv, "data.train_table", path(&self.train_table)),
            (DatasetKind::Csv, "data.test_table", path(&self.test_table)),
            (DatasetKind::Csv, "data.label_column", self.label_column.as_ref().map(shown_key)),
            (DatasetKind::Csv, "data.ignore_columns", self.ignore_columns.first().map(shown_key)),
            (
                DatasetKind::Csv,
                "data.drop_incomplete_rows",
                self.drop_incomplete_rows.then(|| "true".to_string()),
            ),
            (DatasetKind::Npz, "data.arrays", path(&self.arrays)),
        ];
        for (dataset, key, found) in &keys {
            if let Some(found) = found.as_ref().filter(|_| *dataset != self.dataset) {
                let expected = format!("absent unless data.dataset is \"{dataset}\"");
                require(false, key, &expected, found)?;
            }
        }
        let needs = |key: &'static str, why: &str| {
            let found = keys.iter().any(|(_, known, found)| *known == key && found.is_some());
            require(found, key, &format!("a path ({why})"), "none")
        };
        let own = self.dataset.is_own();
        let classes = |range: RangeInclusive<usize>, expected| {
            let holds = range.contains(&self.classes) || own && self.classes == 0;
            require(holds, "data.classes", expected, self.classes)
        };
        match self.dataset {
            DatasetKind::Mnist | DatasetKind::Glyphs => {
                classes(10..=10, "10 when data.dataset is \"mnist\" or \"glyphs\"")
            }
            DatasetKind::Writers => classes(360..=360, "360 when data.dataset is \"writers\""),
            DatasetKind::Frames | DatasetKind::An4 => classes(2..=1 << 16, "2 to 65536"),
            DatasetKind::Idx => {
                classes(2..=256, "2 to 256")?;
                needs("data.train_images", "data.dataset is \"idx\"")?;
                if self.holdout.is_some() {
                    return needs("data.train_labels", "data.holdout is tested on its labels");
                }
                needs("data.test_images", "data.holdout is absent")?;
                needs("data.test_labels", "data.holdout is absent")
            }
            DatasetKind::Csv => {
                classes(2..=1 << 16, "2 to 65536")?;
                needs("data.train_table", "data.dataset is \"csv\"")?;
                match self.holdout {
                    Some(_) => Ok(()),
                    None => needs("data.test_table", "data.holdout is absent"),
                }
            }
            DatasetKind::Npz => {
                classes(2..=1 << 16, "2 to 65536")?;
                needs("data.arrays", "data.dataset is \"npz\"")
            }
        }
    }
}

impl ModelConfig {
    pub(super) fn check(&self) -> Check {
        const MAX_WIDTH: usize = 65_536;
        let layers = &self.layers;
        let shown = || format!("{layers:?}");
        require(
            self.initial.is_none() || self.init_scale == 1.0,
            "model.init_scale",
            "1 or absent beside model.initial, whose weights are taken as they are",
            self.init_scale,
        )?;
        // Those of the model to start from.
        if layers.is_empty() && self.initial.is_some() {
            return self.check_scale();
        }
        require(layers.len() >= 2, "model.layers", "at least 2 sizes", shown())?;
        // The data tell a first and a last that are 0.
        let hidden = &layers[1..layers.len() - 1];
        require(
            layers.iter().all(|n| *n <= MAX_WIDTH) && !hidden.contains(&0),
            "model.layers",
            "sizes of 1 to 65536",
            shown(),
        )?;
        // Each product is below 2^33, and the sum saturates: no overflow however many layers.
        let params = layers.windows(2).fold(0usize, |sum, w| sum.saturating_add((w[0] + 1) * w[1]));
        require(
            params <= MAX_PARAMS,
            "model.layers",
            &format!("at most {MAX_PARAMS} parameters"),
            format!("{params}"),
        )?;
        if let Some(dropout) = &self.dropout {
            require(
                dropout.len() == layers.len() - 1,
                "model.dropout",
                &format!("{} values, the inputs and each hidden layer", layers.len() - 1),
                format!("{dropout:?}"),
            )?;
            require(
                dropout.iter().all(|&p| below_one(p)),
                "model.dropout",
                "values in [0, 1)",
                format!("{dropout:?}"),
            )?;
        }
        self.check_scale()
    }

    fn check_scale(&self) -> Check {
        require(positive(self.init_scale), "model.init_scale", "> 0 and finite", self.init_scale)
    }
}

impl TrainingConfig {
    pub(super) fn check(&self) -> Check {
        let size = |key, value: usize, most: usize| {
            require((1..=most).contains(&value), key, &format!("1 to {most}"), value)
        };
        let positive_value = |key, value| require(positive(value), key, "> 0 and finite", value);
        let fraction = |key, value| require(below_one(value), key, "in [0, 1)", value);
        let factor = |key, value| require(positive(value) && value <= 1.0, key, "in (0, 1]", value);
        size("training.epochs", self.epochs, 1_000_000)?;
        size("training.batch_size", self.batch_size, 65_536)?;
        require(
            self.microbatches.is_power_of_two() && self.microbatches <= self.batch_size.min(1024),
            "training.microbatches",
            "a power of two up to 1024, and at most training.batch_size",
            self.microbatches,
        )?;
        positive_value("training.learning_rate", self.learning_rate)?;
        fraction("training.momentum", self.momentum)?;
        fraction("training.average", self.average)?;
        if let Some(max_norm) = self.max_norm {
            positive_value("training.max_norm", max_norm)?;
        }
        if let Some(patience) = self.early_stopping {
            size("training.early_stopping", patience, 1_000_000)?;
        }
        not_negative("training.weight_decay", self.weight_decay)?;
        require(
            positive(self.checkpoint_minutes) && self.checkpoint_minutes <= 1e6,
            "training.checkpoint_minutes",
            "> 0 and at most 1000000",
            self.checkpoint_minutes,
        )?;
        fraction("training.beta2", self.beta2)?;
        // Squares below 2⁻¹¹⁴ are taken for 0, which is nothing beside this and would be much beside less.
        require(
            positive(self.epsilon) && self.epsilon >= 1e-10,
            "training.epsilon",
            ">= 1e-10 and finite",
            self.epsilon,
        )?;
        size("training.momentum_epochs", self.momentum_epochs, 1_000_000)?;
        factor("training.decay", self.decay)?;
        size("training.step_epochs", self.step_epochs, 1_000_000)?;
        factor("training.step_factor", self.step_factor)
    }
}

impl DistillationConfig {
    pub(super) fn check(&self) -> Check {
        require(
            positive(self.temperature) || self.temperature == f64::INFINITY,
            "distillation.temperature",
            "> 0 and finite, or inf to match logits",
            self.temperature,
        )?;
        require(
            (1.0 / self.temperature as f32).is_finite(),
            "distillation.temperature",
            "so large that 1/T does not overflow",
            self.temperature,
        )?;
        require(
            self.views.is_empty() || self.teacher_logits.is_none() && self.teacher_probs.is_none(),
            "distillation.views",
            "absent with teacher_logits or teacher_probs: the teachers are asked about each view",
            self.views.iter().map(|view| view.to_string()).collect::<Vec<_>>().join(", "),
        )?;
        // Whatever the size of the images.
        let black = self.views.iter().find(|view| view.hides(usize::MAX, usize::MAX));
        if let Some(view) = black {
            let expected = "views that leave something of an image";
            require(false, "distillation.views", expected, view)?;
        }
        if let (Some(_), Some(probs)) = (&self.teacher_logits, &self.teacher_probs) {
            let expected = "absent beside distillation.teacher_logits";
            require(false, "distillation.teacher_probs", expected, probs.display())?;
        }
        not_negative("distillation.soft_weight", self.soft_weight)?;
        not_negative("distillation.hard_weight", self.hard_weight)?;
        require(
            self.soft_weight as f32 + self.hard_weight as f32 > 0.0,
            "distillation.soft_weight",
            "> 0 when distillation.hard_weight is 0",
            self.soft_weight,
        )
    }
}

/// A value out of range: the dotted key, and a message that names it, the range and the value.
pub(super) struct Violation {
    pub key: &'static str,
    pub message: String,
}

pub(super) type Check = std::result::Result<(), Violation>;

pub(super) fn require(
    holds: bool,
    key: &'static str,
    expected: &str,
    found: impl Display,
) -> Check {
    if holds {
        return Ok(());
    }
    let message = format!("{key} must be {expected}; found {}", shown(&found.to_string()));
    Err(Violation { key, message })
}

fn not_negative(key: &'static str, value: f64) -> Check {
    let holds = (value as f32).is_finite() && value >= 0.0;
    require(holds, key, ">= 0 and finite", value)
}

fn positive(value: f64) -> bool {
    (value as f32).is_finite() && value as f32 > 0.0
}

fn below_one(value: f64) -> bool {
    value >= 0.0 && (value as f32) < 1.0
}
