//! Features to mean 0 and variance 1.
//!
//! With the n training examples xᵢⱼ of feature j:
//!
//! meanⱼ = (1/n) Σᵢ xᵢⱼ, sdⱼ² = (1/n) Σᵢ (xᵢⱼ − meanⱼ)², scaleⱼ = 1/sdⱼ
//!
//! in f64, each sum in the order of the examples, rounded once to f32. A column that is constant, or
//! whose deviation is not above the rounding of f32, has the scale 1: it becomes 0, and a value that
//! only a test example has does not become a huge one.

use crate::engine::config::Standardize;
use crate::files::model::Standardizer;
use limbeck_datasets::{Features, Inputs, Names, Split};

/// A deviation below this share of the mean is rounding: 8 units in the last place of an f32.
const ROUNDING: f64 = 1e-6;
/// Mean and deviation of a column that needs no standardising: |mean| and |ln sd| up to this.
const NEAR: f64 = 0.2;

/// What makes the features of `split` standardised.
pub fn of(features: &Features) -> Standardizer {
    let columns = columns(features);
    let scale = |&Column { mean, sd }: &Column| {
        let constant = sd <= ROUNDING * mean.abs() || sd < f64::from(f32::MIN_POSITIVE);
        if constant { 1.0 } else { (1.0 / sd) as f32 }
    };
    Standardizer {
        mean: columns.iter().map(|column| column.mean as f32).collect(),
        scale: columns.iter().map(scale).collect(),
    }
}

/// What a new run is to do with its features.
#[derive(Default)]
pub struct Choice {
    /// Whether they are standardised.
    pub on: bool,
    /// Why, where nobody asked for it.
    pub why: Option<String>,
    /// A column whose values lie so near each other that 32-bit numbers hardly tell them apart, as the
    /// seconds of an epoch.
    pub coarse: Option<String>,
}

/// What a new run on `split` is to do: what is `asked`; where that leaves it open, standardise if there are
/// features that are not rows of frames and some column is not standardised yet.
pub fn choose(asked: Option<Standardize>, split: &Split, names: &Names) -> Choice {
    let asked = match asked {
        Some(Standardize::On) => Some(true),
        Some(Standardize::Off) => Some(false),
        None | Some(Standardize::Auto) => None,
    };
    let Inputs::Features(features) = &split.inputs else { return Choice::default() };
    if !features.are_rows() || features.is_empty() {
        return Choice { on: asked == Some(true), ..Choice::default() };
    }
    let columns = columns(features);
    let far = columns.iter().filter(|column| !column.is_standard()).count();
    let why = match far {
        0 => "features look standardised and are taken as they are; data.standardize = true would \
              standardise them"
            .to_string(),
        _ => format!(
            "features are standardised by mean and deviation of the training examples ({far} of {} \
             columns are not yet); data.standardize = false takes them as they are",
            columns.len()
        ),
    };
    let coarse = columns.iter().position(Column::is_coarse).map(|place| {
        format!(
            "feature {:?}: values about {:e} differ by no more than the rounding of 32-bit numbers: \
             subtract an offset from the column, or leave it out",
            names.feature(place),
            columns[place].mean
        )
    });
    Choice { on: asked.unwrap_or(far > 0), why: asked.is_none().then_some(why), coarse }
}

struct Column {
    mean: f64,
    sd: f64,
}

impl Column {
    /// A constant column is standard if it is 0.
    fn is_standard(&self) -> bool {
        self.mean.abs() <= NEAR && (self.sd == 0.0 || self.sd.ln().abs() <= NEAR)
    }

    /// Whether rounding takes a tenth of the deviation; whole numbers below 2²⁴ lose nothing.
    fn is_coarse(&self) -> bool {
        let step = self.mean.abs() * f64::from(f32::EPSILON);
        step > 0.1 * self.sd && self.mean.abs() >= 16_777_216.0
    }
}

fn columns(features: &Features) -> Vec<Column> {
    let means = mean_of(features, |_, x| x);
    let variances = mean_of(features, |j, x| (x - means[j]) * (x - means[j]));
    means.into_iter().zip(variances).map(|(mean, v)| Column { mean, sd: v.sqrt() }).collect()
}

/// The mean of `of(j, x)` over the values x of each feature j.
fn mean_of(features: &Features, of: impl Fn(usize, f64) -> f64) -> Vec<f64> {
    let (n, size) = (features.len(), features.input_size());
    let (mut space, mut sums) = (vec![0.0; size], vec![0.0f64; size]);
    for i in 0..n {
        for (j, (sum, &x)) in sums.iter_mut().zip(features.input(i, &mut space)).enumerate() {
            *sum += of(j, f64::from(x));
        }
    }
    sums.into_iter().map(|sum| sum / n as f64).collect()
}
