//! The arrays that everything else works on.

use crate::augment::shift_into;
use std::collections::BTreeMap;

/// Images of equal size, resident as `u8`, with or without labels.
///
/// Shapes: `pixels` `[count, height·width]`, row-major; `labels` `[count]`.
/// Ranges: pixels 0 (background) to 255 (ink); labels below the data set's number of classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// `[count, height·width]`, row-major.
    pub pixels: Vec<u8>,
    /// `[count]`; `None` is an unlabelled transfer set (paper section 2).
    pub labels: Option<Vec<u16>>,
    /// Rows of one image.
    pub height: usize,
    /// Columns of one image.
    pub width: usize,
}

impl Split {
    /// Number of examples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pixels.len().checked_div(self.image_size()).unwrap_or(0)
    }

    /// Whether there is no example.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pixels of one image, height·width.
    #[must_use]
    pub fn image_size(&self) -> usize {
        self.height * self.width
    }

    /// The pixels of example `i`, `[height·width]`.
    ///
    /// # Panics
    /// If `i >= self.len()`.
    #[must_use]
    pub fn example(&self, i: usize) -> &[u8] {
        let size = self.image_size();
        &self.pixels[i * size..(i + 1) * size]
    }

    /// The first `n` examples; all of them if there are fewer.
    #[must_use]
    pub fn truncated(mut self, n: usize) -> Self {
        let n = n.min(self.len());
        self.pixels.truncate(n * self.image_size());
        if let Some(labels) = &mut self.labels {
            labels.truncate(n);
        }
        self
    }

    /// The examples at `indices`, in that order; an index may repeat.
    ///
    /// # Panics
    /// If an index is not below `self.len()`.
    #[must_use]
    pub fn subset(&self, indices: &[u32]) -> Self {
        let mut pixels = Vec::with_capacity(indices.len() * self.image_size());
        for &i in indices {
            pixels.extend_from_slice(self.example(i as usize));
        }
        let labels = self
            .labels
            .as_ref()
            .map(|labels| indices.iter().map(|&i| labels[i as usize]).collect());
        Self { pixels, labels, height: self.height, width: self.width }
    }

    /// The same examples, each image translated by (`dx`, `dy`) pixels, zero where nothing was; see
    /// [`crate::augment::shift_into`].
    #[must_use]
    pub fn shifted(&self, dx: i32, dy: i32) -> Self {
        let mut pixels = vec![0; self.pixels.len()];
        for (i, shifted) in pixels.chunks_exact_mut(self.image_size().max(1)).enumerate() {
            shift_into(self.example(i), self.height, self.width, dx, dy, shifted);
        }
        Self { pixels, labels: self.labels.clone(), height: self.height, width: self.width }
    }

    /// The examples for whose label `keep` says so; all labelled ones must be asked.
    ///
    /// # Panics
    /// If the split has no labels.
    #[must_use]
    pub fn of_classes(&self, keep: impl Fn(u16) -> bool) -> Self {
        let labels = self.labels.as_ref().expect("labels to choose by");
        let chosen = (0..).zip(labels).filter(|&(_, &label)| keep(label));
        self.subset(&chosen.map(|(i, _)| i).collect::<Vec<u32>>())
    }

    /// The same images as an unlabelled transfer set.
    #[must_use]
    pub fn without_labels(mut self) -> Self {
        self.labels = None;
        self
    }

    /// The first `len - last` examples and the last `last`: for MNIST and `last` = 10 000 the
    /// usual 50 000 to fit on and 10 000 to choose by. All go to the second part if there are
    /// fewer than `last`.
    #[must_use]
    pub fn holdout(&self, last: usize) -> (Self, Self) {
        let first = self.len().saturating_sub(last);
        let (fit, held) = self.pixels.split_at(first * self.image_size());
        let labels = self.labels.as_ref().map(|labels| labels.split_at(first));
        let part = |pixels: &[u8], labels: Option<&[u16]>| Self {
            pixels: pixels.to_vec(),
            labels: labels.map(<[u16]>::to_vec),
            height: self.height,
            width: self.width,
        };
        (part(fit, labels.map(|l| l.0)), part(held, labels.map(|l| l.1)))
    }
}

/// A training and a test split over the same classes and image size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// `mnist`, `glyphs`, `writers` or `idx`.
    pub name: String,
    /// Labels lie in 0..classes.
    pub classes: usize,
    /// What models are fitted on.
    pub train: Split,
    /// What is reported and never chosen by.
    pub test: Split,
    /// File or split name to the lower-case hex SHA-256 of the decompressed file, or of the
    /// generated pixels followed by the labels.
    pub sha256: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Image i is [10i, 10i+1], label i.
    fn five() -> Split {
        Split {
            pixels: (0..5).flat_map(|i| [10 * i, 10 * i + 1]).collect(),
            labels: Some((0..5).collect()),
            height: 1,
            width: 2,
        }
    }

    #[test]
    fn holdout_partitions_in_order() {
        let (fit, held) = five().holdout(2);
        assert_eq!((fit.len(), held.len()), (3, 2));
        assert_eq!(fit.pixels, [0, 1, 10, 11, 20, 21]);
        assert_eq!(held.pixels, [30, 31, 40, 41]);
        assert_eq!(fit.labels.unwrap(), [0, 1, 2]);
        assert_eq!(held.labels.unwrap(), [3, 4]);
        let (none, all) = five().holdout(9);
        assert!(none.is_empty());
        assert_eq!(all, five());
    }

    #[test]
    fn subset_and_truncated_keep_pixels_with_labels() {
        let some = five().subset(&[4, 0, 4]);
        assert_eq!(some.pixels, [40, 41, 0, 1, 40, 41]);
        assert_eq!(some.labels.unwrap(), [4, 0, 4]);
        let first = five().truncated(2);
        assert_eq!(first.pixels, [0, 1, 10, 11]);
        assert_eq!(first.labels.unwrap(), [0, 1]);
        assert_eq!(five().truncated(99), five());
    }

    #[test]
    fn shifts_move_every_image_and_classes_are_chosen_by_label() {
        let right = five().shifted(1, 0);
        assert_eq!(right.pixels, [0, 0, 0, 10, 0, 20, 0, 30, 0, 40]);
        assert_eq!(five().shifted(0, 0), five());
        let odd = five().of_classes(|label| label % 2 == 1);
        assert_eq!(odd.pixels, [10, 11, 30, 31]);
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
