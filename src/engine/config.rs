//! The training configuration: a TOML file of five tables in which unknown keys are refused.
//!
//! Fractions are held as `f64`, so that the resolved file prints the digits that were read, and
//! are checked as the `f32` that the engine will compute with: a learning rate of 1e-60 is zero.

use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use limbeck_datasets::shown;
use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};

use crate::files::error::{Error, Result};

/// Largest number of parameters a model may have: 4 GiB of `f32`.
pub const MAX_PARAMS: usize = 1 << 30;

/// A whole configuration. Absent keys take the defaults of each table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seed of every random stream: initialisation, shuffles, dropout, jitter.
    pub seed: u64,
    /// What is trained on.
    pub data: DataConfig,
    /// The network.
    pub model: ModelConfig,
    /// How it is trained.
    pub training: TrainingConfig,
    /// The distillation loss; absent = [`DistillationConfig::default`] where a teacher is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distillation: Option<DistillationConfig>,
}

/// The `[data]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// Where the examples come from.
    pub dataset: DatasetKind,
    /// The first N of the training split (after the hold-out is taken); absent = all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// The last N of the training split are held out and take the test set's place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holdout: Option<usize>,
    /// Largest random translation of a training image, in pixels, 0 to 13; absent = none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<usize>,
    /// `idx`: training images. Relative paths in a file are relative to that file's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_images: Option<PathBuf>,
    /// `idx`: training labels; absent = an unlabelled transfer set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_labels: Option<PathBuf>,
    /// `idx`: test images; may be absent only with `holdout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_images: Option<PathBuf>,
    /// `idx`: test labels; may be absent only with `holdout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_labels: Option<PathBuf>,
    /// `csv`: the training table, see [`limbeck_datasets::table`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_table: Option<PathBuf>,
    /// `csv`: the test table; may be absent only with `holdout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_table: Option<PathBuf>,
    /// `csv`: the column of the labels; absent = `label`. A training table without it is an
    /// unlabelled transfer set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
    /// `npz`: an archive of arrays or a folder of them, see [`limbeck_datasets::npy`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrays: Option<PathBuf>,
    /// Number of classes, labels are below it: 2 to 256 for `idx`, to 65,536 for `csv`, `npz`,
    /// `frames` and `an4`.
    pub classes: usize,
}

/// Source of the examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatasetKind {
    /// The MNIST files of the data folder.
    Mnist,
    /// The embedded handwritten-like digits.
    Glyphs,
    /// The same by ten writers who are told apart: 100 classes.
    Writers,
    /// Synthetic frames of speech of `classes` states, see [`limbeck_datasets::synthetic`].
    Frames,
    /// The speech corpus of the data folder; only `reproduce` trains on it, for its labels come
    /// from an aligner.
    An4,
    /// IDX files named in the configuration.
    Idx,
    /// Tables in CSV named in the configuration.
    Csv,
    /// Arrays of NumPy in a file or folder named in the configuration.
    Npz,
}

impl Display for DatasetKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// The `[model]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Inputs, width of each hidden layer, classes: `[784, 1200, 1200, 10]`.
    pub layers: Vec<usize>,
    /// Probability of dropping a unit, in [0, 1): the inputs, then each hidden layer.
    /// Absent = none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<Vec<f64>>,
    /// Factor > 0 of the initial weights, see [`crate::engine::init::he_uniform`]; 1 = He's.
    pub init_scale: f64,
}

/// The `[training]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingConfig {
    /// Passes over the training set, 1 to 1,000,000.
    pub epochs: usize,
    /// Examples per step, 1 to 65,536.
    pub batch_size: usize,
    /// Parts of a batch whose gradients are summed in a fixed tree, a power of two up to 1024 and
    /// at most `batch_size`; 1 = the batch as a whole. Part of the numerics: the same bits however
    /// many processes share the shards, see [`crate::engine::microbatches`].
    #[serde(skip_serializing_if = "is_one")]
    pub shards: usize,
    /// Base learning rate, > 0, scaled by the schedule.
    pub learning_rate: f64,
    /// How the learning rate changes over the run.
    pub schedule: ScheduleKind,
    /// The update rule.
    pub optimizer: OptimizerKind,
    /// In [0, 1): the velocity's decay for `sgd` and `nesterov`, β₁ for `adam`. The schedule
    /// `hinton2012` brings its own.
    pub momentum: f64,
    /// In [0, 1): decay of the exponential average of the weights that evaluation uses; 0 = none.
    pub average: f64,
    /// Largest L2 norm of a hidden unit's incoming weights, > 0; absent = none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_norm: Option<f64>,
    /// Coefficient λ ≥ 0 of the L2 penalty λ/2·‖W‖².
    pub weight_decay: f64,
    /// Minutes between checkpoints, > 0 and at most 1,000,000. At an epoch's end there is one
    /// sooner, where that costs less than 0.5 % of the time: see [`crate::engine::trainer`].
    pub checkpoint_minutes: f64,
    /// In [0, 1): β₂ of `adam`.
    pub beta2: f64,
    /// ε > 0 of `adam`.
    pub epsilon: f64,
    /// Schedule `hinton2012`: epochs over which the momentum rises, at least 1.
    pub momentum_epochs: usize,
    /// In (0, 1]: factor per epoch of the schedules `exponential` and `hinton2012`.
    pub decay: f64,
    /// Schedule `step`: epochs between two steps, at least 1.
    pub step_epochs: usize,
    /// In (0, 1]: factor of each step of the schedule `step`.
    pub step_factor: f64,
}

/// A batch that is not parted is not spoken of: runs begun before there were shards go on.
fn is_one(shards: &usize) -> bool {
    *shards == 1
}

/// The update rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// The same with Nesterov's look-ahead.
    Nesterov,
    /// Adam.
    Adam,
}

/// How the learning rate changes over the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Not at all.
    Constant,
    /// Times `decay` every epoch.
    Exponential,
    /// Times `step_factor` every `step_epochs` epochs.
    Step,
    /// A straight line to zero.
    Linear,
    /// Half a cosine to zero.
    Cosine,
    /// Times `decay` every epoch while the momentum rises over `momentum_epochs`, with the
    /// gradient weighted by one minus the momentum (Hinton et al. 2012). Only with `sgd`.
    Hinton2012,
}

/// The `[distillation]` table:
/// soft_weight · T² · CE(softmax(v/T), softmax(z/T)) + hard_weight · CE(label, softmax(z)).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DistillationConfig {
    /// T > 0 of teacher and student alike; `inf` for the limit in which logits are matched, see
    /// [`crate::engine::loss`].
    pub temperature: f64,
    /// Weight ≥ 0 of the soft term; not both weights may be 0.
    pub soft_weight: f64,
    /// Weight ≥ 0 of the hard term; 0 for an unlabelled transfer set.
    pub hard_weight: f64,
    /// Teacher logits from a file, in place of a teacher model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher_logits: Option<PathBuf>,
}

impl Default for DataConfig {
    fn default() -> Self {
        DataConfig {
            dataset: DatasetKind::Mnist,
            train_limit: None,
            holdout: None,
            jitter: None,
            train_images: None,
            train_labels: None,
            test_images: None,
            test_labels: None,
            train_table: None,
            test_table: None,
            label_column: None,
            arrays: None,
            classes: 10,
        }
    }
}

impl Default for ModelConfig {
    fn default() -> Self {
        ModelConfig { layers: vec![784, 1200, 1200, 10], dropout: None, init_scale: 1.0 }
    }
}

impl Default for TrainingConfig {
    fn default() -> Self {
        TrainingConfig {
            epochs: 200,
            batch_size: 128,
            shards: 1,
            learning_rate: 0.05,
            schedule: ScheduleKind::Cosine,
            optimizer: OptimizerKind::Sgd,
            momentum: 0.9,
            average: 0.0,
            max_norm: None,
            weight_decay: 0.0,
            checkpoint_minutes: 5.0,
            beta2: 0.999,
            epsilon: 1e-8,
            momentum_epochs: 500,
            decay: 0.998,
            step_epochs: 100,
            step_factor: 0.5,
        }
    }
}

impl Default for DistillationConfig {
    fn default() -> Self {
        DistillationConfig {
            temperature: 20.0,
            soft_weight: 1.0,
            hard_weight: 0.05,
            teacher_logits: None,
        }
    }
}

impl Config {
    /// Parses and checks `text`. `origin` is the file it came from: messages name it, and relative
    /// paths in `text` are taken from its folder and made absolute.
    ///
    /// # Errors
    /// [`Error::Config`] with file, line, what was found and what was expected.
    pub fn from_toml(text: &str, origin: &Path) -> Result<Config> {
        let error = |offset: Option<usize>, message: String| Error::Config {
            path: origin.to_path_buf(),
            line: offset.map(|at| line_of(text, at)),
            message,
        };
        let mut config: Config = toml::from_str(text).map_err(|e| {
            let at = e.span().map(|span| span.start);
            let message = explain(text, at, e.message());
            // Too deep a nesting has no place of its own.
            let expected =
                if at.is_none() { ", expected the tables of a configuration" } else { "" };
            error(at, message + expected)
        })?;
        config.check().map_err(|violation| {
            let at = offset_of(text, violation.key);
            error(at, violation.message)
        })?;

        let origin = std::path::absolute(origin).map_err(Error::io("resolve", origin))?;
        let folder = origin.parent().unwrap_or(&origin);
        let data = &mut config.data;
        let paths = [
            &mut data.train_images,
            &mut data.train_labels,
            &mut data.test_images,
            &mut data.test_labels,
            &mut data.train_table,
            &mut data.test_table,
            &mut data.arrays,
        ];
        let logits = config.distillation.as_mut().map(|table| &mut table.teacher_logits);
        for path in paths.into_iter().chain(logits).flatten() {
            *path = folder.join(&*path);
        }
        Ok(config)
    }

    /// Reads, parses and checks the file at `path`, of at most 64 KiB, in at most 256 times its
    /// size of memory.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, else as [`Config::from_toml`].
    pub fn load(path: &Path) -> Result<Config> {
        const MAX_BYTES: u64 = 1 << 16;
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
            .map_err(Error::io("read", path))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Error::Config {
                path: path.to_path_buf(),
                line: None,
                message: format!("found more than {MAX_BYTES} bytes, expected a TOML file"),
            });
        }
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            Error::Config {
                path: path.to_path_buf(),
                line: Some(1 + e.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count()),
                message: format!(
                    "found byte {:#04x} at offset {at}, expected UTF-8 text",
                    e.as_bytes()[at]
                ),
            }
        })?;
        Config::from_toml(&text, path)
    }

    /// The resolved configuration: every key with its value, defaults included.
    /// [`Config::from_toml`] reads it back unchanged.
    ///
    /// # Errors
    /// [`Error::Internal`] for a path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::Internal(format!("configuration to TOML: {e}")))
    }

    /// Checks every range. For a configuration put together in memory, from the command line.
    ///
    /// # Errors
    /// [`Error::Usage`] with key, value expected and value found.
    pub fn validate(&self) -> Result<()> {
        self.check().map_err(|violation| Error::Usage(violation.message))
    }

    /// [`Config::validate`] for examples in memory, of `inputs` values each: `data.dataset`, its
    /// paths and classes play no part.
    ///
    /// # Errors
    /// [`Error::Usage`] with key, value expected and value found.
    pub fn validate_in_memory(&self, inputs: usize) -> Result<()> {
        let check = || {
            self.data.check_jitter()?;
            self.model.check()?;
            self.training.check()?;
            self.distillation.as_ref().map_or(Ok(()), DistillationConfig::check)?;
            let layers = &self.model.layers;
            require(
                layers[0] == inputs,
                "model.layers",
                &format!("starting with {inputs}, the values of an example"),
                format!("{layers:?}"),
            )
        };
        check().map_err(|violation| Error::Usage(violation.message))
    }

    fn check(&self) -> Check {
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
        let layers = &self.model.layers;
        require(
            layers.last() == Some(&self.data.classes),
            "model.layers",
            &format!("ending in the number of classes, {}", self.data.classes),
            format!("{layers:?}"),
        )?;
        let (inputs, expected) = match self.data.dataset {
            DatasetKind::Idx | DatasetKind::Csv | DatasetKind::Npz => return Ok(()),
            DatasetKind::Frames | DatasetKind::An4 => {
                (26 * 40, "starting with 1040, the values of 26 frames")
            }
            _ => (28 * 28, "starting with 784, the pixels of a 28x28 image"),
        };
        require(layers[0] == inputs, "model.layers", expected, format!("{layers:?}"))
    }
}

impl DataConfig {
    fn check_jitter(&self) -> Check {
        let jitter = self.jitter.unwrap_or(0);
        require(jitter <= 13, "data.jitter", "0 to 13 pixels", jitter)
    }

    fn check(&self) -> Check {
        let at_least_one =
            |key, value: Option<usize>| require(value != Some(0), key, "at least 1", 0);
        at_least_one("data.train_limit", self.train_limit)?;
        at_least_one("data.holdout", self.holdout)?;
        self.check_jitter()?;
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let keys = [
            (DatasetKind::Idx, "data.train_images", path(&self.train_images)),
            (DatasetKind::Idx, "data.train_labels", path(&self.train_labels)),
            (DatasetKind::Idx, "data.test_images", path(&self.test_images)),
            (DatasetKind::Idx, "data.test_labels", path(&self.test_labels)),
            (DatasetKind::Csv, "data.train_table", path(&self.train_table)),
            (DatasetKind::Csv, "data.test_table", path(&self.test_table)),
            (DatasetKind::Csv, "data.label_column", self.label_column.clone()),
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
        let classes = |range: RangeInclusive<usize>, expected| {
            require(range.contains(&self.classes), "data.classes", expected, self.classes)
        };
        match self.dataset {
            DatasetKind::Mnist | DatasetKind::Glyphs => {
                classes(10..=10, "10 when data.dataset is \"mnist\" or \"glyphs\"")
            }
            DatasetKind::Writers => classes(100..=100, "100 when data.dataset is \"writers\""),
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
    fn check(&self) -> Check {
        const MAX_WIDTH: usize = 65_536;
        let layers = &self.layers;
        let shown = || format!("{layers:?}");
        require(layers.len() >= 2, "model.layers", "at least 2 sizes", shown())?;
        require(
            layers.iter().all(|n| (1..=MAX_WIDTH).contains(n)),
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
        require(positive(self.init_scale), "model.init_scale", "> 0 and finite", self.init_scale)
    }
}

impl TrainingConfig {
    fn check(&self) -> Check {
        let size = |key, value: usize, most: usize| {
            require((1..=most).contains(&value), key, &format!("1 to {most}"), value)
        };
        let positive_value = |key, value| require(positive(value), key, "> 0 and finite", value);
        let fraction = |key, value| require(below_one(value), key, "in [0, 1)", value);
        let factor = |key, value| require(positive(value) && value <= 1.0, key, "in (0, 1]", value);
        size("training.epochs", self.epochs, 1_000_000)?;
        size("training.batch_size", self.batch_size, 65_536)?;
        require(
            self.shards.is_power_of_two() && self.shards <= self.batch_size.min(1024),
            "training.shards",
            "a power of two up to 1024, and at most training.batch_size",
            self.shards,
        )?;
        positive_value("training.learning_rate", self.learning_rate)?;
        fraction("training.momentum", self.momentum)?;
        fraction("training.average", self.average)?;
        if let Some(max_norm) = self.max_norm {
            positive_value("training.max_norm", max_norm)?;
        }
        not_negative("training.weight_decay", self.weight_decay)?;
        require(
            positive(self.checkpoint_minutes) && self.checkpoint_minutes <= 1e6,
            "training.checkpoint_minutes",
            "> 0 and at most 1000000",
            self.checkpoint_minutes,
        )?;
        fraction("training.beta2", self.beta2)?;
        positive_value("training.epsilon", self.epsilon)?;
        size("training.momentum_epochs", self.momentum_epochs, 1_000_000)?;
        factor("training.decay", self.decay)?;
        size("training.step_epochs", self.step_epochs, 1_000_000)?;
        factor("training.step_factor", self.step_factor)?;
        require(
            self.schedule != ScheduleKind::Hinton2012 || self.optimizer == OptimizerKind::Sgd,
            "training.optimizer",
            "\"sgd\" with the schedule \"hinton2012\"",
            format!("{:?}", self.optimizer).to_lowercase(),
        )
    }
}

impl DistillationConfig {
    fn check(&self) -> Check {
        require(
            positive(self.temperature) || self.temperature == f64::INFINITY,
            "distillation.temperature",
            "> 0 and finite, or inf to match logits",
            self.temperature,
        )?;
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
struct Violation {
    key: &'static str,
    message: String,
}

type Check = std::result::Result<(), Violation>;

fn require(holds: bool, key: &'static str, expected: &str, found: impl Display) -> Check {
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

/// Line of the byte offset `at`, counted from 1.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&b| b == b'\n').count()
}

/// Byte offset of the value of the dotted `key`, where the file spells it out.
fn offset_of(text: &str, key: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut offset = None;
    for part in key.split('.') {
        let Some(value) = table.get(part) else { break };
        offset = Some(value.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    offset
}

/// Rewords the parser's message: the nearest known name for an unknown one, else the line at fault.
fn explain(text: &str, at: Option<usize>, message: &str) -> String {
    let (kind, names) = if message.starts_with("unknown field") {
        ("key", quoted(message))
    } else if message.starts_with("unknown variant") {
        ("value", quoted(message))
    } else {
        let line = at.and_then(|at| text.lines().nth(line_of(text, at) - 1));
        let line = line.map(str::trim).filter(|line| !line.is_empty());
        let line = line.map(|line| format!(", in `{}`", shown(line))).unwrap_or_default();
        return shown(&message.replace('\n', ", ")) + &line;
    };
    let Some((found, known)) = names.split_first() else {
        return shown(message);
    };
    let found = shown(found);
    let nearest = known
        .iter()
        .map(|name| (edit_distance(&found, name), name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3)
        .map_or(String::from("."), |(_, name)| format!("; did you mean `{name}`?"));
    let known = known.join(", ");
    format!("found the unknown {kind} `{found}`{nearest} Expected one of: {known}")
}

/// The names between backticks.
fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

/// Levenshtein's distance: insertions, deletions and replacements that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::from_toml(text, Path::new("/etc/limbeck/a.toml"))
    }

    fn refusal(text: &str) -> String {
        let error = parse(text).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        error.to_string()
    }

    const DESIGN: &str = r#"
seed = 0
[data]
dataset = "mnist"
train_limit = 60000
jitter = 2
[model]
layers = [784, 1200, 1200, 10]
dropout = [0.2, 0.5, 0.5]
[training]
epochs = 200
batch_size = 128
learning_rate = 0.05
schedule = "cosine"
optimizer = "sgd"
momentum = 0.9
average = 0.0
max_norm = 3.5
weight_decay = 0.0
checkpoint_minutes = 5
[distillation]
temperature = 20.0
soft_weight = 1.0
hard_weight = 0.05
teacher_logits = "t.npy"
"#;

    #[test]
    fn the_documented_file_parses_and_resolves() {
        let config = parse(DESIGN).unwrap();
        assert_eq!(config.data.jitter, Some(2));
        assert_eq!(config.model.dropout, Some(vec![0.2, 0.5, 0.5]));
        assert_eq!(config.training.max_norm, Some(3.5));
        assert_eq!(config.training.checkpoint_minutes, 5.0);
        let logits = config.distillation.as_ref().unwrap().teacher_logits.clone();
        assert_eq!(logits, Some(PathBuf::from("/etc/limbeck/t.npy")));

        let resolved = config.to_toml().unwrap();
        assert!(resolved.contains("learning_rate = 0.05\n"), "{resolved}");
        assert!(resolved.contains("beta2 = 0.999\n"), "{resolved}");
        let again = Config::from_toml(&resolved, Path::new("/elsewhere/b.toml")).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(parse("").unwrap(), Config::default());
        let table = parse("[distillation]").unwrap().distillation.unwrap();
        assert_eq!(table, DistillationConfig::default());
    }

    #[test]
    fn an_infinite_temperature_survives() {
        let config = parse("[distillation]\ntemperature = inf").unwrap();
        assert_eq!(config.distillation.as_ref().unwrap().temperature, f64::INFINITY);
        assert_eq!(parse(&config.to_toml().unwrap()).unwrap(), config);
        assert!(refusal("[distillation]\ntemperature = -inf").contains("found -inf"));
        assert!(refusal("[distillation]\ntemperature = nan").contains("found NaN"));
    }

    #[test]
    fn the_whole_range_of_seeds_survives() {
        let config = Config { seed: u64::MAX, ..Config::default() };
        assert_eq!(parse(&config.to_toml().unwrap()).unwrap(), config);
    }

    #[test]
    fn every_enum_value_parses() {
        for name in ["constant", "exponential", "step", "linear", "cosine", "hinton2012"] {
            parse(&format!("[training]\nschedule = \"{name}\"")).unwrap();
        }
        for name in ["sgd", "nesterov", "adam"] {
            parse(&format!("[training]\noptimizer = \"{name}\"")).unwrap();
        }
    }

    #[test]
    fn unknown_names_get_the_nearest_known_one() {
        assert_eq!(
            refusal("[training]\nepochs = 3\nlearning_rat = 0.1\n"),
            "/etc/limbeck/a.toml:3: found the unknown key `learning_rat`; \
             did you mean `learning_rate`? Expected one of: epochs, batch_size, shards, \
             learning_rate, schedule, optimizer, momentum, average, max_norm, weight_decay, \
             checkpoint_minutes, beta2, epsilon, momentum_epochs, decay, step_epochs, step_factor"
        );
        assert_eq!(
            refusal("\n\n[data]\ndataset = \"cifar\""),
            "/etc/limbeck/a.toml:4: found the unknown value `cifar`. \
             Expected one of: mnist, glyphs, writers, frames, an4, idx, csv, npz"
        );
        assert!(refusal("[trainning]").contains("did you mean `training`?"));
    }

    #[test]
    fn wrong_types_and_broken_syntax_name_the_line() {
        let message = refusal("seed = 1\n[training]\nepochs = \"many\"");
        assert!(message.starts_with("/etc/limbeck/a.toml:3: "), "{message}");
        assert!(message.contains("expected usize, in `epochs = \"many\"`"), "{message}");
        let message = refusal("seed = 1\n[training\nepochs = 2");
        assert!(message.starts_with("/etc/limbeck/a.toml:2: "), "{message}");
        assert!(refusal("seed = -1").contains("a.toml:1: "));
    }

    #[test]
    fn values_out_of_range_name_line_key_range_and_value() {
        assert_eq!(
            refusal("[distillation]\nsoft_weight = 1.0\ntemperature = 0"),
            "/etc/limbeck/a.toml:3: distillation.temperature must be > 0 and finite, or inf \
             to match logits; found 0"
        );
        let cases = [
            ("[distillation]\ntemperature = -2.0", "found -2"),
            ("[distillation]\ntemperature = nan", "found NaN"),
            ("[distillation]\ntemperature = 1e-60", "> 0 and finite"),
            ("[distillation]\nsoft_weight = 0\nhard_weight = 0", "soft_weight must be > 0"),
            ("[distillation]\nhard_weight = -0.5", "hard_weight must be >= 0"),
            ("[model]\nlayers = [784]", "at least 2 sizes; found [784]"),
            ("[model]\nlayers = [784, 0, 10]", "sizes of 1 to 65536"),
            ("[model]\nlayers = [784, 65537, 10]", "sizes of 1 to 65536"),
            ("[model]\nlayers = [784, 65536, 65536, 10]", "parameters"),
            ("[model]\nlayers = [784, 30, 9]", "number of classes, 10"),
            ("[model]\nlayers = [783, 30, 10]", "starting with 784"),
            ("[model]\ndropout = [0.2, 0.5]", "3 values"),
            ("[model]\ndropout = [0.2, 0.5, 1.0]", "values in [0, 1)"),
            ("[model]\ndropout = [0.2, 0.5, 0.999999999999]", "values in [0, 1)"),
            ("[model]\ninit_scale = 0", "init_scale must be > 0"),
            ("[training]\nepochs = 0", "epochs must be 1 to 1000000; found 0"),
            ("[training]\nbatch_size = 0", "1 to 65536; found 0"),
            ("[training]\nbatch_size = 65537", "1 to 65536; found 65537"),
            ("[training]\nlearning_rate = 0", "learning_rate must be > 0"),
            ("[training]\nlearning_rate = 1e39", "learning_rate must be > 0 and finite"),
            ("[training]\nmomentum = 1.0", "momentum must be in [0, 1); found 1"),
            ("[training]\naverage = -0.1", "average must be in [0, 1)"),
            ("[training]\nmax_norm = 0", "max_norm must be > 0"),
            ("[training]\nweight_decay = -1", "weight_decay must be >= 0"),
            ("[training]\ncheckpoint_minutes = 0", "checkpoint_minutes must be > 0"),
            ("[training]\nbeta2 = 1", "beta2 must be in [0, 1)"),
            ("[training]\nepsilon = 0", "epsilon must be > 0"),
            ("[training]\nmomentum_epochs = 0", "momentum_epochs must be 1"),
            ("[training]\ndecay = 1.5", "decay must be in (0, 1]"),
            ("[training]\nstep_epochs = 0", "step_epochs must be 1"),
            ("[training]\nstep_factor = 0", "step_factor must be in (0, 1]"),
            (
                "[training]\noptimizer = \"adam\"\nschedule = \"hinton2012\"",
                "optimizer must be \"sgd\"",
            ),
            ("[data]\njitter = 14", "jitter must be 0 to 13 pixels; found 14"),
            ("[data]\ntrain_limit = 0", "train_limit must be at least 1"),
            ("[data]\nholdout = 0", "holdout must be at least 1"),
            ("[data]\nclasses = 12", "classes must be 10"),
            ("[data]\ndataset = \"frames\"\nclasses = 1", "classes must be 2 to 65536; found 1"),
            ("[data]\ndataset = \"frames\"\n[model]\nlayers = [784, 10]", "starting with 1040"),
            ("[data]\ntrain_images = \"x\"", "absent unless data.dataset is \"idx\""),
        ];
        for (text, expected) in cases {
            let message = refusal(text);
            assert!(message.contains(expected), "{text}: {message}");
            assert!(!message.starts_with("/etc/limbeck/a.toml: "), "no line: {message}");
        }
    }

    #[test]
    fn idx_needs_its_files() {
        let idx = |rest: &str| format!("[data]\ndataset = \"idx\"\n{rest}");
        assert!(refusal(&idx("")).contains("data.train_images must be a path"));
        assert!(refusal(&idx("train_images = \"a\"")).contains("data.test_images must be"));
        assert!(
            refusal(&idx("train_images = \"a\"\nholdout = 5"))
                .contains("data.train_labels must be")
        );
        let unlabelled = idx("train_images = \"a\"\ntest_images = \"b\"\ntest_labels = \"c\"\n");
        let config = parse(&unlabelled).unwrap();
        assert_eq!(config.data.train_images, Some("/etc/limbeck/a".into()));
        assert_eq!(config.data.train_labels, None);
        assert!(refusal(&format!("{unlabelled}[distillation]")).contains("hard_weight must be 0"));
        parse(&format!("{unlabelled}[distillation]\nhard_weight = 0")).unwrap();
    }

    #[test]
    fn tables_and_arrays_need_their_files() {
        let csv = |rest: &str| format!("[data]\ndataset = \"csv\"\n{rest}");
        assert!(refusal(&csv("")).contains("data.train_table must be a path"));
        assert!(refusal(&csv("train_table = \"a\"")).contains("data.test_table must be"));
        let config = parse(&csv("train_table = \"a\"\nholdout = 5")).unwrap();
        assert_eq!(config.data.train_table, Some("/etc/limbeck/a".into()));
        assert!(refusal(&csv("arrays = \"a\"")).contains(":3: data.arrays must be absent"));

        let npz = |rest: &str| format!("[data]\ndataset = \"npz\"\n{rest}");
        assert!(refusal(&npz("")).contains("data.arrays must be a path"));
        let config = parse(&npz("arrays = \"a.npz\"\nclasses = 3\n[model]\nlayers = [7, 3]"));
        assert_eq!(config.unwrap().data.arrays, Some("/etc/limbeck/a.npz".into()));
        assert!(refusal(&npz("label_column = \"y\"")).contains("unless data.dataset is \"csv\""));
        assert!(refusal(&npz("arrays = \"a\"\nclasses = 65537")).contains("2 to 65536"));
    }

    #[test]
    fn in_memory_violations_are_usage_errors() {
        let mut config = Config::default();
        config.validate().unwrap();
        config.training.epochs = 0;
        assert_eq!(config.validate().unwrap_err().exit_code(), 2);
    }

    #[test]
    fn examples_in_memory_may_have_any_size() {
        let mut config = Config::default();
        config.model.layers = vec![5, 4, 3];
        config.validate_in_memory(5).unwrap();
        let refusal =
            |config: &Config, inputs| config.validate_in_memory(inputs).unwrap_err().to_string();
        assert!(refusal(&config, 6).contains("starting with 6"));
        config.data.jitter = Some(14);
        assert!(refusal(&config, 5).contains("found 14"));
    }

    #[test]
    fn files_that_are_not_text_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        assert_eq!(Config::load(&path).unwrap_err().exit_code(), 74);
        fs::write(&path, b"seed = 1\n\xff").unwrap();
        let message = Config::load(&path).unwrap_err().to_string();
        assert!(message.contains("a.toml:2: found byte 0xff at offset 9"), "{message}");
        fs::write(&path, b"seed = 7").unwrap();
        assert_eq!(Config::load(&path).unwrap().seed, 7);
    }

    #[test]
    fn edit_distances() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("epoch", "epochs"), 1);
        assert_eq!(edit_distance("same", "same"), 0);
    }
}
