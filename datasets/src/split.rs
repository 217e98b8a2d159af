//! Data sets and their splits, as arrays.

use crate::augment::shift_into;
use crate::random::{Purpose, below, keystream};
use crate::{Batch, Features};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// Examples with or without labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// What the examples are.
    pub inputs: Inputs,
    /// `[count]`, each below the data set's number of classes; `None` is an unlabelled transfer
    /// set (paper section 2).
    pub labels: Option<Vec<u16>>,
}

/// The inputs of a split.
#[derive(Clone, Debug, PartialEq)]
pub enum Inputs {
    /// Pixels.
    Images(Images),
    /// Real values.
    Features(Features),
}

/// Images of equal size, in memory as the `u8` in which they were published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// `[count, height·width]`, row-major, from 0 (background) to 255 (ink).
    pub pixels: Vec<u8>,
    /// Number of rows of an image.
    pub height: usize,
    /// Number of columns of an image.
    pub width: usize,
}

impl Images {
    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pixels.len().checked_div(self.size()).unwrap_or(0)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of pixels of an image, height·width.
    #[must_use]
    pub fn size(&self) -> usize {
        self.height * self.width
    }

    /// The pixels of image `i`, `[height·width]`.
    ///
    /// # Panics
    /// If `i >= self.len()`.
    #[must_use]
    pub fn image(&self, i: usize) -> &[u8] {
        &self.pixels[i * self.size()..(i + 1) * self.size()]
    }

    /// What to say of images, read from `path`, that use less than half of the range of a pixel, and so
    /// become small numbers where 255 becomes 1.
    pub(crate) fn remark_of_dark(&self, path: &Path) -> Option<Remark> {
        let largest = self.pixels.iter().copied().max().filter(|&largest| largest < 128)?;
        Some(Remark::Warning(format!(
            "{}: the largest pixel is {largest}, and pixels are divided by 255: in NumPy scale them, \
             (x * (255.0 / {})).astype(\"uint8\"), or have them as numbers, x.astype(\"float32\")",
            path.display(),
            largest.max(1)
        )))
    }
}

impl Split {
    /// A split of images of `height` × `width` pixels: `[count, height·width]`, row-major.
    #[must_use]
    pub fn of_images(
        pixels: Vec<u8>,
        (height, width): (usize, usize),
        labels: Option<Vec<u16>>,
    ) -> Self {
        Self { inputs: Inputs::Images(Images { pixels, height, width }), labels }
    }

    /// A split of rows of features, `[count, values]`, row-major. Each row is an example.
    ///
    /// # Panics
    /// As [`Features::new`].
    #[must_use]
    pub fn of_features(features: Vec<f32>, values: usize, labels: Option<Vec<u16>>) -> Self {
        let count = features.len() / values;
        Self { inputs: Inputs::Features(Features::new(features, values, &[count], (0, 0))), labels }
    }

    /// The images of a split that has images.
    ///
    /// # Panics
    /// If it has frames.
    #[must_use]
    pub fn images(&self) -> &Images {
        match &self.inputs {
            Inputs::Images(images) => images,
            Inputs::Features(_) => panic!("images asked of a split of frames"),
        }
    }

    /// Number of examples.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.inputs {
            Inputs::Images(images) => images.len(),
            Inputs::Features(frames) => frames.len(),
        }
    }

    /// Whether there is no example.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of values of an example.
    #[must_use]
    pub fn input_size(&self) -> usize {
        match &self.inputs {
            Inputs::Images(images) => images.size(),
            Inputs::Features(frames) => frames.input_size(),
        }
    }

    /// The examples at `indices`, without jitter and without labels: a batch to evaluate.
    #[must_use]
    pub fn batch<'b>(&'b self, indices: &'b [u32]) -> Batch<'b> {
        Batch { inputs: &self.inputs, shifts: None, views: None, labels: None, indices }
    }

    /// The first `n` examples; all of them if there are fewer.
    #[must_use]
    pub fn truncated(self, n: usize) -> Self {
        if n >= self.len() {
            return self;
        }
        self.subset(&(0..n as u32).collect::<Vec<_>>())
    }

    /// The examples at `indices`, in that order; an index may repeat.
    ///
    /// # Panics
    /// If an index is not below `self.len()`.
    #[must_use]
    pub fn subset(&self, indices: &[u32]) -> Self {
        let inputs = match &self.inputs {
            Inputs::Images(images) => {
                let mut pixels = Vec::with_capacity(indices.len() * images.size());
                for &i in indices {
                    pixels.extend_from_slice(images.image(i as usize));
                }
                Inputs::Images(Images { pixels, ..*images })
            }
            Inputs::Features(frames) => Inputs::Features(frames.subset(indices)),
        };
        let labels = self
            .labels
            .as_ref()
            .map(|labels| indices.iter().map(|&i| labels[i as usize]).collect());
        Self { inputs, labels }
    }

    /// The same examples, with each image translated by (`dx`, `dy`) pixels as by
    /// [`crate::augment::shift_into`].
    ///
    /// # Panics
    /// If the examples are no images.
    #[must_use]
    pub fn shifted(&self, dx: i32, dy: i32) -> Self {
        let images = self.images();
        let (height, width) = (images.height, images.width);
        let mut pixels = vec![0; images.pixels.len()];
        for (i, shifted) in pixels.chunks_exact_mut(images.size().max(1)).enumerate() {
            shift_into(images.image(i), height, width, dx, dy, shifted);
        }
        Self::of_images(pixels, (height, width), self.labels.clone())
    }

    /// The examples whose label passes `keep`.
    ///
    /// # Panics
    /// If the split has no labels.
    #[must_use]
    pub fn of_classes(&self, keep: impl Fn(u16) -> bool) -> Self {
        let labels = self.labels.as_ref().expect("labels to choose by");
        let chosen = (0..).zip(labels).filter(|&(_, &label)| keep(label));
        self.subset(&chosen.map(|(i, _)| i).collect::<Vec<u32>>())
    }

    /// The same examples as an unlabelled transfer set.
    #[must_use]
    pub fn without_labels(mut self) -> Self {
        self.labels = None;
        self
    }

    /// Draws `held` examples so that each class has the share of them that it has of all: those that
    /// are left and those that are drawn, both in their order. A function of (seed, labels, `held`).
    ///
    /// Class c of nᶜ examples gets ⌊held·nᶜ/n⌋, and one more where the remainder is among the largest
    /// (the first class's of equal ones). One example of each class is left as long as there are
    /// others to draw. Without labels all are of one class.
    ///
    /// # Panics
    /// If `held` exceeds the number of examples.
    #[must_use]
    pub fn stratified(&self, held: usize, seed: u64) -> (Vec<u32>, Vec<u32>) {
        let n = self.len();
        assert!(held <= n, "{held} of {n} examples");
        let mut classes: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
        for i in 0..n as u32 {
            let class = self.labels.as_ref().map_or(0, |labels| labels[i as usize]);
            classes.entry(class).or_default().push(i);
        }
        // For each class: examples to draw, and the remainder of the division by n.
        let mut quotas: Vec<(usize, usize)> = classes
            .values()
            .map(|of_class| (held * of_class.len() / n.max(1), held * of_class.len() % n.max(1)))
            .collect();
        let sizes: Vec<usize> = classes.values().map(Vec::len).collect();
        let mut left = held - quotas.iter().map(|quota| quota.0).sum::<usize>();
        let mut by_remainder: Vec<usize> = (0..quotas.len()).collect();
        by_remainder.sort_by_key(|&class| std::cmp::Reverse(quotas[class].1));
        for spared in [1, 0] {
            while left > 0 {
                let before = left;
                for &class in &by_remainder {
                    if left > 0 && quotas[class].0 + spared < sizes[class] {
                        quotas[class].0 += 1;
                        left -= 1;
                    }
                }
                if left == before {
                    break;
                }
            }
        }
        let mut is_held = vec![false; n];
        for ((&class, of_class), &(quota, _)) in classes.iter_mut().zip(&quotas) {
            let mut rng = keystream(seed, Purpose::HoldOut, class.into());
            for drawn in 0..quota {
                let other = drawn + below(&mut rng, (of_class.len() - drawn) as u32) as usize;
                of_class.swap(drawn, other);
                is_held[of_class[drawn] as usize] = true;
            }
        }
        (0..n as u32).partition(|&i| !is_held[i as usize])
    }

    /// Cuts off the `last` last examples as a hold-out: for MNIST and `last` = 10 000 it returns the
    /// usual 50 000 to fit on and 10 000 to choose by. If there are fewer than `last`, all are held
    /// out.
    #[must_use]
    pub fn holdout(&self, last: usize) -> (Self, Self) {
        let first = self.len().saturating_sub(last) as u32;
        let part = |range: Range<u32>| self.subset(&range.collect::<Vec<_>>());
        (part(0..first), part(first..self.len() as u32))
    }
}

/// What the files call classes and features.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `[classes]` where labels are words, or numbers that do not count from 0; else empty.
    pub classes: Vec<String>,
    /// Whether these are texts although each reads as a number or a truth.
    pub are_texts: bool,
    /// `[values of an example]` where columns have names; else empty.
    pub features: Vec<String>,
    /// The column of the labels, where it has a name.
    pub label: Option<String>,
}

/// What a reader took for what, which its caller should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// What was decided for the user.
    Note(String),
    /// What was left out, or is most likely not meant.
    Warning(String),
}

impl Names {
    /// Of classes alone, called `classes`, which are `texts` or may be numbers.
    #[must_use]
    pub fn of_classes(classes: Vec<String>, texts: bool) -> Names {
        let reads = |name: &String| name.parse::<f64>().is_ok() || name.parse::<bool>().is_ok();
        let reads = |name: &String| reads(name) || reads(&name.to_lowercase());
        let are_texts = texts && !classes.is_empty() && classes.iter().all(reads);
        Names { classes, are_texts, ..Names::default() }
    }

    /// The names of the classes. Beside names that are the numbers from 0, as texts are in the order of
    /// texts, classes without names are called by these numbers.
    #[must_use]
    pub fn classes_beside(&self, other: &Names) -> Vec<String> {
        let numbers: Vec<String> =
            (0..other.classes.len()).map(|class| class.to_string()).collect();
        let mut names = other.classes.clone();
        names.sort_unstable_by_key(|name| (name.len(), name.clone()));
        if self.classes.is_empty() && names == numbers { numbers } else { self.classes.clone() }
    }

    /// What class number `class` is called: its name, or the number.
    #[must_use]
    pub fn class(&self, class: usize) -> String {
        self.classes.get(class).cloned().unwrap_or_else(|| class.to_string())
    }

    /// What feature number `feature` is called: its name, or the number.
    #[must_use]
    pub fn feature(&self, feature: usize) -> String {
        self.features.get(feature).cloned().unwrap_or_else(|| feature.to_string())
    }
}

/// A training and a test split over the same classes and input size.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// `mnist`, `glyphs`, `writers`, `frames`, `idx`, `csv` or `npz`.
    pub name: String,
    /// Labels lie in 0..classes.
    pub classes: usize,
    /// What classes and features are called, where the files say so.
    pub names: Names,
    /// The examples that models are trained on.
    pub train: Split,
    /// The examples that results are reported on. Nothing is chosen by them.
    pub test: Split,
    /// The lower-case hex SHA-256 of each decompressed file, by its name; of a generated split, that
    /// of its pixels followed by its labels, by the split's name.
    pub sha256: BTreeMap<String, String>,
    /// What was decided when the files were read.
    pub notes: Vec<Remark>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A net without names, and texts of the same numbers, which are sorted as texts.
    #[test]
    fn classes_without_names_are_the_numbers_that_others_are_called() {
        let texts =
            ["0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9"].map(String::from).to_vec();
        let texts = Names::of_classes(texts, true);
        let numbers: Vec<String> = (0..11).map(|class| class.to_string()).collect();
        assert_eq!(Names::default().classes_beside(&texts), numbers);
        assert_eq!(texts.classes_beside(&Names::default()), texts.classes);
        let words = Names::of_classes(vec!["a".into(), "b".into()], true);
        assert!(texts.are_texts && !words.are_texts);
        assert_eq!(Names::default().classes_beside(&words), [""; 0]);
    }

    /// Image i is [10i, 10i+1], label i.
    fn five() -> Split {
        let pixels = (0..5).flat_map(|i| [10 * i, 10 * i + 1]).collect();
        Split::of_images(pixels, (1, 2), Some((0..5).collect()))
    }

    #[test]
    fn holdout_partitions_in_order() {
        let (fit, held) = five().holdout(2);
        assert_eq!((fit.len(), held.len()), (3, 2));
        assert_eq!(fit.images().pixels, [0, 1, 10, 11, 20, 21]);
        assert_eq!(held.images().pixels, [30, 31, 40, 41]);
        assert_eq!(fit.labels.unwrap(), [0, 1, 2]);
        assert_eq!(held.labels.unwrap(), [3, 4]);
        let (none, all) = five().holdout(9);
        assert!(none.is_empty());
        assert_eq!(all, five());
    }

    #[test]
    fn subset_and_truncated_keep_pixels_with_labels() {
        let some = five().subset(&[4, 0, 4]);
        assert_eq!(some.images().pixels, [40, 41, 0, 1, 40, 41]);
        assert_eq!(some.labels.unwrap(), [4, 0, 4]);
        let first = five().truncated(2);
        assert_eq!(first.images().pixels, [0, 1, 10, 11]);
        assert_eq!(first.labels.unwrap(), [0, 1]);
        assert_eq!(five().truncated(99), five());
    }

    #[test]
    fn shifts_move_every_image_and_classes_are_chosen_by_label() {
        let right = five().shifted(1, 0);
        assert_eq!(right.images().pixels, [0, 0, 0, 10, 0, 20, 0, 30, 0, 40]);
        assert_eq!(five().shifted(0, 0), five());
        let odd = five().of_classes(|label| label % 2 == 1);
        assert_eq!(odd.images().pixels, [10, 11, 30, 31]);
        assert_eq!(odd.labels.unwrap(), [1, 3]);
    }

    /// Images of one pixel with these labels.
    fn labelled(labels: &[u16]) -> Split {
        Split::of_images(vec![0; labels.len()], (1, 1), Some(labels.to_vec()))
    }

    #[test]
    fn a_stratified_part_has_the_shares_of_the_classes() {
        // 60, 30 and 10 of 100, sorted: a tenth of each.
        let labels: Vec<u16> = (0..100).map(|i| u16::from(i >= 60) + u16::from(i >= 90)).collect();
        let split = labelled(&labels);
        let count = |part: &[u32]| {
            let of = |class| part.iter().filter(|&&i| labels[i as usize] == class).count();
            [of(0), of(1), of(2)]
        };
        let (left, held) = split.stratified(10, 0);
        assert_eq!((count(&held), count(&left)), ([6, 3, 1], [54, 27, 9]));
        let mut all = [&left[..], &held].concat();
        assert!(left.is_sorted() && held.is_sorted());
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<u32>>());
        assert_eq!(split.stratified(10, 0), (left, held.clone()), "a function of the seed");
        assert_ne!(split.stratified(10, 1).1, held);
        // Remainders of .8, .9 and .3: two are rounded up.
        assert_eq!(count(&split.stratified(13, 0).1), [8, 4, 1]);
        // Every example of a class is held out equally often; p = 0.001 at 9 degrees is 27.9.
        let drawn = (0..2000).flat_map(|seed| split.stratified(10, seed).1);
        let last: Vec<u32> = drawn.filter(|&i| i >= 90).collect();
        let of = |i: u32| last.iter().filter(|&&drawn| drawn == i).count() as f64;
        let chi2: f64 = (90..100).map(|i| (of(i) - 200.0).powi(2) / 200.0).sum();
        assert!(chi2 < 27.9, "{chi2}");
    }

    #[test]
    fn rare_classes_keep_an_example_as_long_as_there_are_others() {
        let rare = labelled(&[0, 0, 0, 0, 1, 2]);
        assert_eq!(rare.stratified(3, 0).0.iter().filter(|&&i| i >= 4).count(), 2);
        assert_eq!(rare.stratified(4, 0).1.len(), 4);
        assert_eq!(rare.stratified(6, 0).0, []);
        assert_eq!(rare.clone().without_labels().stratified(2, 0).1.len(), 2);
        assert_eq!(rare.stratified(0, 0).1, []);
    }

    #[test]
    fn an_unlabelled_split_stays_unlabelled() {
        let split = five().without_labels();
        assert_eq!(split.len(), 5);
        assert!(split.subset(&[1]).labels.is_none());
        assert!(split.holdout(2).1.labels.is_none());
        assert!(split.truncated(1).labels.is_none());
    }
}
