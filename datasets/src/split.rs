//! Data sets and their splits, as arrays.

use crate::augment::shift_into;
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
        Batch { inputs: &self.inputs, shifts: None, labels: None, indices }
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
    /// `[values of an example]` where columns have names; else empty.
    pub features: Vec<String>,
}

/// What a reader took for what, which its caller should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// What was decided for the user.
    Note(String),
    /// What was left out, or is most likely not meant.
    Warning(String),
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

    #[test]
    fn an_unlabelled_split_stays_unlabelled() {
        let split = five().without_labels();
        assert_eq!(split.len(), 5);
        assert!(split.subset(&[1]).labels.is_none());
        assert!(split.holdout(2).1.labels.is_none());
        assert!(split.truncated(1).labels.is_none());
    }
}
