//! Features to mean 0 and variance 1, or to mean 0 alone; pixels to mean 0; and what is to be doubted of columns.
//!
//! With the n training examples xᵢⱼ of feature j:
//!
//! meanⱼ = (1/n) Σᵢ xᵢⱼ, sdⱼ² = (1/n) Σᵢ (xᵢⱼ − meanⱼ)², scaleⱼ = 1/sdⱼ
//!
//! in f64, each sum in the order of the examples, rounded once to f32. A column that is constant, or
//! differs by no more than the rounding of f32, has the scale 0: nothing was learnt of it, and a value that
//! only a test example has changes nothing. Of images all pixels have one mean, so that a translated image
//! is a translated input: x = (pixel − mean)/255.

use crate::engine::config::Standardize;
use crate::engine::mlp::InputScale;
use crate::files::model::Standardizer;
use limbeck_datasets::{Features, Images, Inputs, Names, Split};

/// A deviation below this share of the mean is rounding: 8 units in the last place of an f32.
const ROUNDING: f64 = 1e-6;
/// Values farther from the mean than so many deviations are far,
const FAR: f64 = 1.0;
/// and drown the others of a column where the deviation of these is less than this share of the whole one: far
/// values that are all the same, as what stands for a missing value, or no larger a share of all than this one.
/// Others are a cluster of their own.
const DROWNED: f64 = 0.01;
/// How many columns a message names.
const SHOWN: usize = 10;
/// Mean and deviation of a column that needs no standardising: |mean| and |ln sd| up to this.
const NEAR: f64 = 0.2;

/// What brings pixels to mean 0, in place of [`InputScale::UNIT`].
pub fn of_pixels(images: &Images) -> InputScale {
    let sum: u64 = images.pixels.iter().map(|&pixel| u64::from(pixel)).sum();
    let mean = sum as f64 / images.pixels.len().max(1) as f64;
    InputScale { shift: (-mean / 255.0) as f32, ..InputScale::UNIT }
}

/// What brings features to mean 0.
pub fn to_mean(features: &Features) -> Standardizer {
    let mean: Vec<f32> = mean_of(features, |_, x| x).into_iter().map(|mean| mean as f32).collect();
    Standardizer { scale: vec![1.0; mean.len()], mean }
}

/// What makes features standardised.
pub fn of(features: &Features) -> Standardizer {
    let columns = columns(features);
    let scale = |column: &Column| {
        let tells_nothing = column.is_constant() || column.is_coarse();
        if tells_nothing { 0.0 } else { (1.0 / column.sd) as f32 }
    };
    Standardizer {
        mean: columns.iter().map(|column| column.mean as f32).collect(),
        scale: columns.iter().map(scale).collect(),
    }
}

/// What a new run is to do with its features.
pub struct Choice {
    /// How they are standardised.
    pub how: Standardize,
    /// Why, where nobody asked for it.
    pub why: Option<String>,
    /// Columns that tell the model little: their values lie so near each other that 32-bit numbers hardly tell
    /// them apart, as the seconds of an epoch, or a few lie so far off that the others seem the same.
    pub doubts: Vec<String>,
    /// Columns that are standardised and of one value.
    pub constant: Option<String>,
}

/// What a new run on `split` is to do: what is `asked`; where that leaves it open, standardise if there are
/// features that are not rows of frames and some column is not standardised yet.
pub fn choose(asked: Option<Standardize>, split: &Split, names: &Names) -> Choice {
    let asked = asked.filter(|asked| *asked != Standardize::Auto);
    let of_rows = match &split.inputs {
        Inputs::Features(features) => Some(features).filter(|f| f.are_rows() && !f.is_empty()),
        Inputs::Images(_) => None,
    };
    let Some(features) = of_rows else {
        let how = asked.unwrap_or(Standardize::Off);
        return Choice { how, why: None, doubts: Vec::new(), constant: None };
    };
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
    let by_columns = if far > 0 { Standardize::On } else { Standardize::Off };
    let how = asked.unwrap_or(by_columns);
    let all = |which: fn(&Column) -> bool, told: fn(&Column) -> String| {
        let all = columns.iter().enumerate().filter(|(_, column)| which(column));
        listed(names, all.map(|(place, column)| (place, told(column))))
    };
    let left_out = if how == Standardize::On { ", and are left out" } else { "" };
    let coarse = all(Column::is_coarse, |_| String::new()).map(|which| {
        format!(
            "features {which}: their values differ by hardly more than the rounding of 32-bit numbers\
             {left_out}: subtract an offset from the column"
        )
    });
    let far = |column: &Column| {
        format!(" (so far off: {}, up to {})", column.far, plain(column.farthest()))
    };
    let drowned = all(Column::is_drowned, far).map(|which| {
        format!(
            "features {which}: some values lie so far off that the others seem the same beside them: correct \
             them or leave out their rows; a number that stands for a missing value is none to learn from"
        )
    });
    let constant = all(Column::is_constant, |_| String::new()).filter(|_| how == Standardize::On).map(|which| {
        format!(
            "features {which}: all their values are the same as 32-bit numbers{left_out}; where they differ in \
             the data, subtract an offset from the column"
        )
    });
    let doubts = coarse.into_iter().chain(drowned).collect();
    Choice { how, why: asked.is_none().then_some(why), doubts, constant }
}

/// Columns of `other`, which is called `part`, whose mean no training example reaches: another unit, or
/// standardised already. `None` if there is none, or no features.
pub fn outside(split: &Split, part: &str, other: &Split, names: &Names) -> Option<String> {
    let (Inputs::Features(train), Inputs::Features(other)) = (&split.inputs, &other.inputs) else {
        return None;
    };
    if !train.are_rows() || other.is_empty() {
        return None;
    }
    // Of the training examples no more than this: their means and deviations cost two passes more.
    let mut ranges = vec![[f32::MAX, f32::MIN]; train.input_size()];
    let mut space = vec![0.0; ranges.len()];
    for i in 0..train.len() {
        for ([least, most], &x) in ranges.iter_mut().zip(train.input(i, &mut space)) {
            (*least, *most) = (least.min(x), most.max(x));
        }
    }
    let all = ranges.into_iter().zip(mean_of(other, |_, x| x)).enumerate();
    let outside = all.filter_map(|(place, ([least, most], mean))| {
        let is_reached = (f64::from(least)..=f64::from(most)).contains(&mean);
        (!is_reached).then(|| {
            let [mean, least, most] = [mean as f32, least, most].map(plain);
            (place, format!(" ({mean}, beside {least} to {most})"))
        })
    });
    let which = listed(names, outside)?;
    Some(format!(
        "features {which}: no training example reaches their mean over the {part} examples: are both of the same \
         unit, and neither standardised already?"
    ))
}

/// A value as it stands in a table, not as a row of zeros.
fn plain(x: f32) -> String {
    if x.abs() < 1e7 { x.to_string() } else { format!("{x:e}") }
}

/// The names of columns, each with what is told of it; `None` if there are none.
fn listed(names: &Names, columns: impl Iterator<Item = (usize, String)>) -> Option<String> {
    let mut columns = columns.peekable();
    columns.peek()?;
    let name = |(place, told): (usize, String)| format!("{:?}{told}", names.feature(place));
    let shown: Vec<String> = columns.by_ref().take(SHOWN).map(name).collect();
    let more = columns.count();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(shown.join(", ") + &more)
}

struct Column {
    mean: f64,
    sd: f64,
    least: f32,
    most: f32,
    /// Whether all values are whole numbers, which are exact below 2²⁴.
    whole: bool,
    /// How many values are [`FAR`], and their least and most.
    far: usize,
    far_least: f32,
    far_most: f32,
    /// How many are not, their mean, and the sum of their squared distances from it.
    near: usize,
    near_mean: f64,
    near_squares: f64,
}

impl Column {
    /// All the same, or so small that 1/sd is no number.
    fn is_constant(&self) -> bool {
        self.least == self.most || self.sd < f64::from(f32::MIN_POSITIVE)
    }

    /// A constant column is standard if it is 0.
    fn is_standard(&self) -> bool {
        self.mean.abs() <= NEAR && (self.sd == 0.0 || self.sd.ln().abs() <= NEAR)
    }

    /// Whether what differs is hardly more than rounding; whole numbers below 2²⁴ lose nothing.
    fn is_coarse(&self) -> bool {
        let is_exact = self.whole && self.mean.abs() < 16_777_216.0;
        self.sd <= ROUNDING * self.mean.abs() && !is_exact && !self.is_constant()
    }

    /// Whether far values hide what the others differ in; a column of two values has nothing to hide.
    fn is_drowned(&self) -> bool {
        let near_sd = (self.near_squares / self.near.max(1) as f64).sqrt();
        let is_cluster = self.far as f64 > DROWNED * (self.far + self.near) as f64;
        let are_alike = self.far_least == self.far_most;
        let are_strays = self.far > 0 && (are_alike || !is_cluster);
        are_strays && near_sd > 0.0 && near_sd < DROWNED * self.sd
    }

    /// The farthest of its far values.
    fn farthest(&self) -> f32 {
        let [least, most] = [self.far_least, self.far_most];
        if self.distance(least) > self.distance(most) { least } else { most }
    }

    fn distance(&self, x: f32) -> f64 {
        (f64::from(x) - self.mean).abs()
    }

    fn add(&mut self, x: f32) {
        self.least = self.least.min(x);
        self.most = self.most.max(x);
        self.whole &= x.fract() == 0.0;
        if self.distance(x) > FAR * self.sd {
            self.far += 1;
            self.far_least = self.far_least.min(x);
            self.far_most = self.far_most.max(x);
        } else {
            // Welford's sums: beside a far mean the sum of squares itself would lose all digits.
            self.near += 1;
            let from_mean = f64::from(x) - self.near_mean;
            self.near_mean += from_mean / self.near as f64;
            self.near_squares += from_mean * (f64::from(x) - self.near_mean);
        }
    }
}

fn columns(features: &Features) -> Vec<Column> {
    let means = mean_of(features, |_, x| x);
    let variances = mean_of(features, |j, x| (x - means[j]) * (x - means[j]));
    let mut columns: Vec<Column> = means
        .into_iter()
        .zip(variances)
        .map(|(mean, v)| Column {
            mean,
            sd: v.sqrt(),
            least: f32::MAX,
            most: f32::MIN,
            whole: true,
            far: 0,
            far_least: f32::MAX,
            far_most: f32::MIN,
            near: 0,
            near_mean: 0.0,
            near_squares: 0.0,
        })
        .collect();
    let mut space = vec![0.0; columns.len()];
    for i in 0..features.len() {
        for (column, &x) in columns.iter_mut().zip(features.input(i, &mut space)) {
            column.add(x);
        }
    }
    columns
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
