//! The keys of each table, their defaults and what they mean.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use super::{ColumnKey, paths};
use crate::engine::activation::{self, Activation};
use limbeck_datasets::View;
use serde::{Deserialize, Serialize};

/// The `[data]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// Where the examples come from.
    pub dataset: DatasetKind,
    /// The first N of the training split (after the hold-out is taken); absent = all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// So many training examples, or such a share of them below 1, are held out and take the test
    /// set's place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holdout: Option<Amount>,
    /// So many of the others, or such a share, are not trained on: what the model makes of them
    /// is shown after each epoch, and decides where `early_stopping` ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Amount>,
    /// Which examples are held out; absent = `stratified` for `csv`, `npz` and `idx`, `last` for
    /// others. An interrupted run that has no such key began with `last`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitKind>,
    /// Seed by which `stratified` draws. It is not that of the training, so that runs of several
    /// seeds, and a teacher and its student, have the same test examples.
    #[serde(skip_serializing_if = "is_zero")]
    pub split_seed: u64,
    /// Whether features get mean 0 and variance 1, see [`crate::engine::standardize`]; absent =
    /// `"auto"`. An interrupted run that has no such key began without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standardize: Option<Standardize>,
    /// Largest random translation of a training image, in pixels, 0 to 13; absent = none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<usize>,
    /// `idx`: training images. Relative paths in a file are relative to that file's folder.
    #[serde(with = "paths", skip_serializing_if = "Option::is_none")]
    pub train_images: Option<PathBuf>,
    /// `idx`: training labels; absent = an unlabelled transfer set.
    #[serde(with = "paths", skip_serializing_if = "Option::is_none")]
    pub train_labels: Option<PathBuf>,
    /// `idx`: test images; may be absent only with `holdout`.
    #[serde(with = "paths", skip_serializing_if = "Option::is_none")]
    pub test_images: Option<PathBuf>,
    /// `idx`: test labels; may be absent only with `holdout`.
    #[serde(with = "paths", skip_serializing_if = "Option::is_none")]
    pub test_labels: Option<PathBuf>,
    /// `csv`: the training table, see [`limbeck_datasets::table`].
    #[serde(with = "paths", skip_serializing_if = "Option::is_none")]
    pub train_table: Option<PathBuf>,
    /// `csv`: the test table; may be absent only with `holdout`.
    #[serde(with = "paths", skip_serializing_if = "Option::is_none")]
    pub test_table: Option<PathBuf>,
    /// `csv`: the column of the labels, by its name or its place from 0 on, −1 being the last; absent =
    /// as [`limbeck_datasets::table::Columns`] says. A training table without it is an unlabelled
    /// transfer set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_column: Option<ColumnKey>,
    /// `csv`: columns that are neither features nor labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore_columns: Vec<ColumnKey>,
    /// `csv`: leave out the rows that lack a value, which are an error otherwise.
    #[serde(skip_serializing_if = "is_false")]
    pub drop_incomplete_rows: bool,
    /// `npz`: an archive of arrays or a folder of them, see [`limbeck_datasets::npy`].
    #[serde(with = "paths", skip_serializing_if = "Option::is_none")]
    pub arrays: Option<PathBuf>,
    /// Number of classes: 2 to 256 for `idx`, to 65,536 for `csv`, `npz`, `frames` and `an4`. Absent for
    /// `idx`, `csv` and `npz` = the last of `layers`, else as many as the labels name; until these are
    /// read it is 0.
    pub classes: usize,
}

/// How the examples of a hold-out are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitKind {
    /// At random, of each class its share: [`limbeck_datasets::Split::stratified`].
    Stratified,
    /// The last ones.
    Last,
}

/// A number of examples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "toml::Value")]
pub enum Amount {
    /// So many.
    Count(usize),
    /// This share of all, above 0 and below 1; rounded to the nearest number, at least 1.
    Share(f64),
}

impl TryFrom<toml::Value> for Amount {
    type Error = String;

    fn try_from(value: toml::Value) -> std::result::Result<Amount, String> {
        let count = |n: i64| usize::try_from(n).ok().map(Amount::Count);
        let amount = match &value {
            toml::Value::Integer(n) => count(*n),
            toml::Value::Float(share) => Some(Amount::Share(*share)),
            _ => None,
        };
        amount.ok_or_else(|| {
            format!("found {value}, expected a number of examples, or a share below 1")
        })
    }
}

impl Amount {
    /// How many of `n` examples.
    pub fn of(self, n: usize) -> usize {
        match self {
            Amount::Count(count) => count,
            Amount::Share(share) => ((share * n as f64).round() as usize).max(1),
        }
    }
}

impl Display for Amount {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Count(count) => write!(f, "{count}"),
            Amount::Share(share) => write!(f, "{share}"),
        }
    }
}

fn is_zero(seed: &u64) -> bool {
    *seed == 0
}

/// Whether inputs are standardised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub enum Standardize {
    /// `"auto"`: unless they look standardised.
    Auto,
    /// `true`: to mean 0 and variance 1, features alone.
    On,
    /// `"mean"`: to mean 0; pixels by the mean of all of them.
    Mean,
    /// `false`.
    Off,
}

impl TryFrom<toml::Value> for Standardize {
    type Error = String;

    fn try_from(value: toml::Value) -> std::result::Result<Standardize, String> {
        match value {
            toml::Value::Boolean(true) => Ok(Standardize::On),
            toml::Value::Boolean(false) => Ok(Standardize::Off),
            toml::Value::String(text) if text == "auto" => Ok(Standardize::Auto),
            toml::Value::String(text) if text == "mean" => Ok(Standardize::Mean),
            other => Err(format!(
                "standardize: found {other}, expected \"auto\", \"mean\", true or false"
            )),
        }
    }
}

impl Serialize for Standardize {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Standardize::Auto => to.serialize_str("auto"),
            Standardize::Mean => to.serialize_str("mean"),
            Standardize::On => to.serialize_bool(true),
            Standardize::Off => to.serialize_bool(false),
        }
    }
}

/// Source of the examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatasetKind {
    /// The MNIST files of the data folder.
    Mnist,
    /// The embedded handwritten-like digits.
    Glyphs,
    /// Digits and letters by ten writers who are told apart: 360 classes.
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
    /// Inputs, width of each hidden layer, classes: `[784, 1200, 1200, 10]`. Absent = those of
    /// `initial`, else of `hidden` between what the data tell, which are 0 until these are read.
    pub layers: Vec<usize>,
    /// Width of each hidden layer, in place of `layers`, into which it goes.
    #[serde(skip_serializing)]
    pub hidden: Option<Vec<usize>>,
    /// A model file to start from, in place of random weights.
    #[serde(with = "paths", skip_serializing_if = "Option::is_none")]
    pub initial: Option<PathBuf>,
    /// Probability of dropping a unit, in [0, 1): the inputs, then each hidden layer.
    /// Absent = none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<Vec<f64>>,
    /// f of the hidden layers: `relu` or `tanh`.
    #[serde(with = "activation", skip_serializing_if = "activation::is_relu")]
    pub activation: Activation,
    /// Factor > 0 of the initial weights, see [`crate::engine::init::uniform`]; 1 = as they are there.
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
    /// many processes share the microbatches, see [`crate::engine::microbatches`]. `shards`, its old
    /// name, is read too.
    #[serde(skip_serializing_if = "is_one")]
    pub microbatches: usize,
    /// What the operands of the matrix products are. Part of the numerics.
    #[serde(skip_serializing_if = "Precision::is_f32")]
    pub precision: Precision,
    /// Base learning rate, > 0, scaled by the schedule.
    pub learning_rate: f64,
    /// How the learning rate changes over the run.
    pub schedule: ScheduleKind,
    /// The update rule.
    pub optimizer: OptimizerKind,
    /// In [0, 1): the velocity's decay for `sgd` and `nesterov`, β₁ for `adam` and `adamw`. `hinton2012` has a
    /// schedule of its own instead.
    pub momentum: f64,
    /// In [0, 1): decay of the exponential average of the weights that evaluation uses; 0 = none.
    pub average: f64,
    /// Largest L2 norm of a hidden unit's incoming weights, > 0; absent = none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_norm: Option<f64>,
    /// Epochs without a better validation loss after which training ends, ≥ 1; the model of the best
    /// epoch is kept. Absent = all epochs and the last one's model. Needs `data.validation`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<usize>,
    /// Coefficient λ ≥ 0 of the L2 penalty λ/2·‖W‖²; of `adamw` the decoupled decay.
    pub weight_decay: f64,
    /// Minutes between checkpoints, > 0 and at most 1,000,000. At an epoch's end there is one
    /// sooner, where that costs less than 0.5 % of the time: see [`crate::engine::trainer`].
    pub checkpoint_minutes: f64,
    /// In [0, 1): β₂ of `adam` and `adamw`.
    pub beta2: f64,
    /// ε ≥ 10⁻¹⁰ of `adam` and `adamw`.
    pub epsilon: f64,
    /// Optimiser `hinton2012`: epochs over which the momentum rises, at least 1.
    pub momentum_epochs: usize,
    /// In (0, 1]: factor per epoch of the schedule `exponential`.
    pub decay: f64,
    /// Schedule `step`: epochs between two steps, at least 1.
    pub step_epochs: usize,
    /// In (0, 1]: factor of each step of the schedule `step`.
    pub step_factor: f64,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// The key is left out where the batch is whole: runs that began before there was such a key go on.
fn is_one(microbatches: &usize) -> bool {
    *microbatches == 1
}

impl DatasetKind {
    /// Whether these are files of the user's own.
    pub fn is_own(self) -> bool {
        matches!(self, DatasetKind::Idx | DatasetKind::Csv | DatasetKind::Npz)
    }

    /// The values of an example, and in words; of the user's own files these alone tell it.
    pub(super) fn inputs(self) -> Option<(usize, &'static str)> {
        match self {
            DatasetKind::Idx | DatasetKind::Csv | DatasetKind::Npz => None,
            DatasetKind::Frames | DatasetKind::An4 => Some((26 * 40, "the values of 26 frames")),
            _ => Some((28 * 28, "the pixels of a 28x28 image")),
        }
    }
}

impl DataConfig {
    /// How the examples of a hold-out are chosen: as `split` says, or as where it is absent.
    pub fn split_kind(&self) -> SplitKind {
        let default = if self.dataset.is_own() { SplitKind::Stratified } else { SplitKind::Last };
        self.split.unwrap_or(default)
    }
}

/// What the operands of a training step's matrix products are. Sums, weights, moments, logits and losses
/// are f32 in either case, and so is evaluation.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// bf16, see [`limbeck_kernels::bf16`].
    Bf16,
}

impl Precision {
    /// Both.
    pub const ALL: [Precision; 2] = [Precision::F32, Precision::Bf16];

    /// Whether it is f32. Such a key is left out: runs that began before there was one go on.
    pub fn is_f32(&self) -> bool {
        *self == Precision::F32
    }

    /// Its name in a configuration and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
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
    /// Adam with decoupled weight decay.
    AdamW,
    /// Gradient descent whose momentum rises over `momentum_epochs`, with the gradient weighted by
    /// one minus the momentum (Hinton et al. 2012, with the schedule `exponential`).
    Hinton2012,
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
    /// What each example of a batch is drawn as, one of these at random, for teacher and student alike:
    /// [`limbeck_datasets::View`]. The teachers are then asked in every step. Absent = the images as
    /// they are, and the teachers' logits once.
    #[serde(with = "views", skip_serializing_if = "Vec::is_empty")]
    pub views: Vec<View>,
    /// Teacher logits from a file, in place of a teacher model.
    #[serde(with = "paths", skip_serializing_if = "Option::is_none")]
    pub teacher_logits: Option<PathBuf>,
    /// A teacher's probabilities, softmax outputs at T = 1, from a file in place of logits.
    #[serde(with = "paths", skip_serializing_if = "Option::is_none")]
    pub teacher_probs: Option<PathBuf>,
}

impl Default for DataConfig {
    fn default() -> Self {
        DataConfig {
            dataset: DatasetKind::Mnist,
            train_limit: None,
            holdout: None,
            validation: None,
            split: None,
            split_seed: 0,
            standardize: None,
            jitter: None,
            train_images: None,
            train_labels: None,
            test_images: None,
            test_labels: None,
            train_table: None,
            test_table: None,
            label_column: None,
            ignore_columns: Vec::new(),
            drop_incomplete_rows: false,
            arrays: None,
            classes: 10,
        }
    }
}

impl Default for ModelConfig {
    fn default() -> Self {
        ModelConfig {
            layers: vec![784, 1200, 1200, 10],
            hidden: None,
            initial: None,
            dropout: None,
            activation: Activation::Relu,
            init_scale: 1.0,
        }
    }
}

impl Default for TrainingConfig {
    fn default() -> Self {
        TrainingConfig {
            epochs: 200,
            batch_size: 128,
            microbatches: 1,
            precision: Precision::F32,
            learning_rate: 0.05,
            schedule: ScheduleKind::Cosine,
            optimizer: OptimizerKind::Sgd,
            momentum: 0.9,
            average: 0.0,
            max_norm: None,
            early_stopping: None,
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
            views: Vec::new(),
            teacher_logits: None,
            teacher_probs: None,
        }
    }
}

/// Views as their texts.
mod views {
    use super::View;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(views: &[View], to: S) -> Result<S::Ok, S::Error> {
        views.iter().map(View::to_string).collect::<Vec<_>>().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<View>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
    }
}
