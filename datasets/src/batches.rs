//! Shuffled minibatches, a pure function of (seed, epoch, step).

use crate::augment::shift_into;
use crate::random::{Purpose, below, keystream};
use crate::views::{Draw, View};
use crate::{Inputs, Split};
use rand::Rng;
use std::ops::Range;

/// One minibatch. The last one of an epoch may be smaller than the others.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'b> {
    /// The examples that the indices are of.
    pub inputs: &'b Inputs,
    /// `[b]`: the translation of each example, if jitter is on.
    pub(crate) shifts: Option<&'b [Shift]>,
    /// What the images become, if there are views; of the batch's first example.
    pub(crate) views: Option<(&'b [View], Place)>,
    /// `[b]`, if the split has labels.
    pub labels: Option<&'b [u16]>,
    /// `[b]`: the row of each example in the split, which is also its row of cached teacher logits.
    pub indices: &'b [u32],
}

impl<'b> Batch<'b> {
    /// Number of examples.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a batch holds at least one example")]
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// The pixels `[height·width]` of image `i` of the batch: those of the split, or with jitter or
    /// views others, which are written to `space`.
    ///
    /// # Panics
    /// If `i` is not below the number of indices, `space` does not hold one image, or the batch is
    /// one of frames.
    #[must_use]
    pub fn image<'s>(&self, i: usize, space: &'s mut [u8]) -> &'s [u8]
    where
        'b: 's,
    {
        let Inputs::Images(images) = self.inputs else { panic!("an image asked of frames") };
        let image = images.image(self.indices[i] as usize);
        match self.shifts.map(|shifts| shifts[i]) {
            Some(Shift { dx, dy, .. }) => {
                shift_into(image, images.height, images.width, dx, dy, space);
            }
            None if self.views.is_none() => return image,
            None => space.copy_from_slice(image),
        }
        if let Some((views, Place { seed, epoch, position })) = self.views {
            let draw = Draw { views, seed, epoch, position: position + i };
            draw.apply(space, images.width, images.len(), |other| images.image(other));
        }
        space
    }

    /// The examples `range` of the batch, as a batch of its own.
    ///
    /// # Panics
    /// If the range does not lie in the batch.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Batch<'b> {
        Batch {
            inputs: self.inputs,
            shifts: self.shifts.map(|shifts| &shifts[range.clone()]),
            views: self.views.map(|(views, place)| {
                (views, Place { position: place.position + range.start, ..place })
            }),
            labels: self.labels.map(|labels| &labels[range.clone()]),
            indices: &self.indices[range],
        }
    }

    /// The number of the translation among [`shifts`] that example `i` of the batch gets; 0 without
    /// jitter. With `indices` it selects the cached teacher logits of shifted images.
    ///
    /// # Panics
    /// If `i` is not below the number of indices.
    #[must_use]
    pub fn shift(&self, i: usize) -> usize {
        self.shifts.map_or(0, |shifts| shifts[i].index)
    }
}

/// Which draws an example gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    seed: u64,
    epoch: u64,
    /// In the epoch.
    position: usize,
}

/// A translation by (dx, dy), number `index` of [`shifts`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shift {
    index: usize,
    dx: i32,
    dy: i32,
}

impl Shift {
    fn new(index: usize, jitter: u8) -> Self {
        let jitter = i32::from(jitter);
        let (span, at) = (2 * jitter + 1, index as i32);
        Self { index, dx: at % span - jitter, dy: at / span - jitter }
    }
}

/// The (2j+1)² translations (dx, dy) that a jitter of j pixels chooses from, row by row.
pub fn shifts(jitter: u8) -> impl Iterator<Item = (i32, i32)> {
    let span = 2 * usize::from(jitter) + 1;
    (0..span * span).map(move |index| {
        let Shift { dx, dy, .. } = Shift::new(index, jitter);
        (dx, dy)
    })
}

/// Endless epochs of minibatches over a split.
///
/// **Order.** Epoch e visits every example once, in the Fisher–Yates permutation drawn from the
/// shuffle keystream of (seed, e): a pure function of (seed, e, number of examples).
///
/// **Jitter.** With `Some(j)` each example is translated by (dx, dy), each uniform on −j..=j with
/// zero fill (paper section 3: j = 2). The shift depends only on (seed, epoch, position in the
/// epoch): position p takes 64-bit word p of the jitter keystream of (seed, epoch), mapped to the
/// (2j+1)² shifts by multiplication, with a bias below 2⁻⁴⁵.
///
/// [`start_epoch`](Self::start_epoch) can therefore go to any step, and the bits are the same as
/// after all steps before it. Only [`new`](Self::new) allocates buffers.
#[derive(Debug)]
pub struct Batches<'a> {
    split: &'a Split,
    batch_size: usize,
    seed: u64,
    jitter: Option<u8>,
    views: &'a [View],
    epoch: u64,
    /// The position in the epoch at which the next batch starts.
    position: usize,
    /// `[n]`: the epoch's permutation.
    order: Vec<u32>,
    /// `[batch_size]`, or empty without jitter.
    shifts: Vec<Shift>,
    /// `[batch_size]`.
    labels: Vec<u16>,
}

impl<'a> Batches<'a> {
    /// Batches of `batch_size` (at least 1) examples, placed at the start of epoch 0.
    ///
    /// # Panics
    /// If `batch_size` is 0, or the split has labels for another number of examples, or more than
    /// `u32::MAX` examples; or if frames, which are no images, are to be jittered.
    #[must_use]
    pub fn new(split: &'a Split, batch_size: usize, seed: u64, jitter: Option<u8>) -> Self {
        assert!(batch_size > 0, "a batch holds at least one example");
        let n = split.len();
        assert!(u32::try_from(n).is_ok(), "{n} examples, at most u32::MAX");
        if let Some(labels) = &split.labels {
            assert_eq!(labels.len(), n, "one label per example");
        }
        let images = matches!(split.inputs, Inputs::Images(_));
        assert!(images || jitter.is_none(), "jitter moves images only");
        let batch_size = batch_size.min(n.max(1));
        let mut batches = Self {
            split,
            batch_size,
            seed,
            jitter,
            views: &[],
            epoch: 0,
            position: 0,
            order: vec![0; n],
            shifts: vec![Shift::new(0, 0); jitter.map_or(0, |_| batch_size)],
            labels: vec![0; batch_size],
        };
        batches.start_epoch(0, 0);
        batches
    }

    /// The same batches with one of `views` of each image, drawn anew for each epoch, see [`View`].
    /// Shifts come before.
    ///
    /// # Panics
    /// If there are views and the examples are no images.
    #[must_use]
    pub fn with_views(self, views: &'a [View]) -> Self {
        let images = matches!(self.split.inputs, Inputs::Images(_));
        assert!(images || views.is_empty(), "views are of images only");
        Self { views, ..self }
    }

    /// Number of batches in an epoch, ⌈n / batch size⌉.
    #[must_use]
    pub fn steps_per_epoch(&self) -> usize {
        self.order.len().div_ceil(self.batch_size)
    }

    /// Makes batch number `step` of `epoch` the next one. If the epoch has fewer steps, no batch is
    /// left.
    pub fn start_epoch(&mut self, epoch: u64, step: usize) {
        self.epoch = epoch;
        self.position = step.saturating_mul(self.batch_size).min(self.order.len());
        permute(self.seed, epoch, &mut self.order);
    }

    /// The next batch of this epoch, valid until the next call; `None` at the epoch's end.
    #[expect(clippy::should_implement_trait, reason = "a batch borrows the buffers")]
    pub fn next(&mut self) -> Option<Batch<'_>> {
        let start = self.position;
        let end = (start + self.batch_size).min(self.order.len());
        if start == end {
            return None;
        }
        self.position = end;
        let indices = &self.order[start..end];
        let labels = self.split.labels.as_ref().map(|labels| {
            for (label, &i) in self.labels.iter_mut().zip(indices) {
                *label = labels[i as usize];
            }
            &self.labels[..indices.len()]
        });
        let shifts = self.jitter.map(|jitter| {
            let mut rng = keystream(self.seed, Purpose::Jitter, self.epoch);
            rng.set_word_pos(2 * start as u128);
            let shifts = &mut self.shifts[..indices.len()];
            shifts.fill_with(|| draw(&mut rng, jitter));
            &*shifts
        });
        let place = Place { seed: self.seed, epoch: self.epoch, position: start };
        let views = (!self.views.is_empty()).then_some((self.views, place));
        Some(Batch { inputs: &self.split.inputs, shifts, views, labels, indices })
    }
}

/// Fills `order` `[n]` with the permutation of 0 … n−1 in which epoch `epoch` of `seed` visits the
/// examples: a Fisher–Yates shuffle by the shuffle keystream of (seed, epoch).
pub fn permute(seed: u64, epoch: u64, order: &mut [u32]) {
    for (place, i) in order.iter_mut().zip(0..) {
        *place = i;
    }
    let mut rng = keystream(seed, Purpose::Shuffle, epoch);
    for last in (1..order.len()).rev() {
        let chosen = below(&mut rng, last as u32 + 1) as usize;
        order.swap(last, chosen);
    }
}

/// Draws one of the (2j+1)² shifts, with exactly one 64-bit word.
fn draw(rng: &mut impl Rng, jitter: u8) -> Shift {
    let span = 2 * u128::from(jitter) + 1;
    Shift::new(((u128::from(rng.next_u64()) * span * span) >> 64) as usize, jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` images of 5x5 whose only ink, in the centre, is the index + 1.
    fn dots(n: usize) -> Split {
        let mut pixels = vec![0; n * 25];
        for (i, image) in pixels.chunks_exact_mut(25).enumerate() {
            image[12] = (i % 255) as u8 + 1;
        }
        let labels = (0..n).map(|i| (i % 7) as u16).collect();
        Split::of_images(pixels, (5, 5), Some(labels))
    }

    type Owned = (Vec<u8>, Option<Vec<u16>>, Vec<u32>);

    /// All images of the batch.
    fn pixels(batch: &Batch) -> Vec<u8> {
        let mut space = [7; 25];
        (0..batch.indices.len()).flat_map(|i| batch.image(i, &mut space).to_vec()).collect()
    }

    fn rest_of_epoch(batches: &mut Batches) -> Vec<Owned> {
        let mut all = Vec::new();
        while let Some(b) = batches.next() {
            all.push((pixels(&b), b.labels.map(<[u16]>::to_vec), b.indices.to_vec()));
        }
        all
    }

    fn order(batches: &mut Batches, epoch: u64) -> Vec<u32> {
        batches.start_epoch(epoch, 0);
        rest_of_epoch(batches).into_iter().flat_map(|b| b.2).collect()
    }

    #[test]
    fn every_image_is_translated_by_the_shift_that_is_named() {
        let split = dots(103);
        let all: Vec<_> = shifts(2).collect();
        assert_eq!((all.len(), all[0], all[12], all[24]), (25, (-2, -2), (0, 0), (2, 2)));
        let mut batches = Batches::new(&split, 10, 3, Some(2));
        let (mut space, mut seen) = ([7; 25], std::collections::BTreeSet::new());
        while let Some(batch) = batches.next() {
            for (i, &example) in batch.indices.iter().enumerate() {
                let (dx, dy) = all[batch.shift(i)];
                let expected = split.shifted(dx, dy);
                assert_eq!(batch.image(i, &mut space), expected.images().image(example as usize));
                seen.insert(batch.shift(i));
            }
        }
        assert!(seen.len() > 15, "{} of 25 shifts in 103 draws", seen.len());
    }

    #[test]
    fn an_epoch_visits_every_example_once_and_each_epoch_differently() {
        let split = dots(103);
        let mut batches = Batches::new(&split, 10, 3, None);
        assert_eq!(batches.steps_per_epoch(), 11);
        let orders: Vec<_> = (0..3).map(|epoch| order(&mut batches, epoch)).collect();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..103));
        }
        assert_ne!(orders[0], orders[1]);
        assert_ne!(orders[1], orders[2]);
        assert_ne!(orders[0], order(&mut Batches::new(&split, 10, 4, None), 0));
        // The batch size cuts the same order elsewhere.
        assert_eq!(orders[0], order(&mut Batches::new(&split, 7, 3, None), 0));
    }

    #[test]
    fn every_permutation_is_equally_likely() {
        // 4! = 24 orders, 23 degrees of freedom: p = 0.001 at 49.7.
        let split = dots(4);
        let mut batches = Batches::new(&split, 4, 8, None);
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..24_000 {
            *counts.entry(order(&mut batches, epoch)).or_insert(0.0) += 1.0;
        }
        assert_eq!(counts.len(), 24);
        let chi2: f64 = counts.values().map(|c: &f64| (c - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi2 < 49.7, "{chi2}");
    }

    #[test]
    fn batches_carry_the_examples_they_name() {
        let split = dots(23);
        let mut batches = Batches::new(&split, 5, 1, None);
        let all = rest_of_epoch(&mut batches);
        assert_eq!(all.iter().map(|b| b.2.len()).collect::<Vec<_>>(), [5, 5, 5, 5, 3]);
        for (pixels, labels, indices) in all {
            let expected = split.subset(&indices);
            assert_eq!(pixels, expected.images().pixels);
            assert_eq!(labels, expected.labels);
        }
    }

    #[test]
    fn seeking_equals_running_through() {
        let split = dots(61);
        for jitter in [None, Some(2)] {
            let mut batches = Batches::new(&split, 8, 9, jitter);
            batches.start_epoch(5, 0);
            let through = rest_of_epoch(&mut batches);
            for step in 0..=through.len() + 1 {
                let mut fresh = Batches::new(&split, 8, 9, jitter);
                fresh.start_epoch(5, step);
                assert_eq!(rest_of_epoch(&mut fresh), through[step.min(through.len())..]);
            }
        }
    }

    #[test]
    fn jitter_is_uniform_over_the_25_shifts() {
        // 24 degrees of freedom: p = 0.001 at 51.2.
        let split = dots(10_000);
        let mut batches = Batches::new(&split, 128, 2, Some(2));
        let mut counts = [0_u32; 25];
        while let Some(batch) = batches.next() {
            for (image, &i) in pixels(&batch).chunks_exact(25).zip(batch.indices) {
                let ink: Vec<_> = (0..25).filter(|&p| image[p] != 0).collect();
                assert_eq!(ink.len(), 1, "one dot, zeros around it");
                assert_eq!(image[ink[0]], (i % 255) as u8 + 1);
                counts[ink[0]] += 1;
            }
        }
        let chi2: f64 = counts.iter().map(|&c| (f64::from(c) - 400.0).powi(2) / 400.0).sum();
        assert!(chi2 < 51.2, "{counts:?}");
    }

    #[test]
    fn jitter_differs_by_epoch_and_zero_jitter_is_none() {
        let split = dots(50);
        let mut batches = Batches::new(&split, 50, 1, Some(2));
        let shifts = |batches: &mut Batches, epoch| -> Vec<_> {
            batches.start_epoch(epoch, 0);
            let pixels = rest_of_epoch(batches).remove(0).0;
            let dot = |image: &[u8]| image.iter().position(|&p| p != 0);
            pixels.chunks_exact(25).map(dot).collect()
        };
        assert_ne!(shifts(&mut batches, 0), shifts(&mut batches, 1));
        let still = rest_of_epoch(&mut Batches::new(&split, 8, 1, Some(0)));
        assert_eq!(still, rest_of_epoch(&mut Batches::new(&split, 8, 1, None)));
    }

    #[test]
    fn the_bits_of_seed_0_never_change() {
        // Computed by a separate implementation of ChaCha8 and of the documented mappings.
        let split = dots(10);
        let mut batches = Batches::new(&split, 10, 0, Some(2));
        let batch = batches.next().unwrap();
        assert_eq!(batch.indices, [0, 2, 3, 6, 1, 8, 4, 7, 9, 5]);
        let dot = |image: &[u8]| image.iter().position(|&p| p != 0).unwrap();
        let places: Vec<_> = pixels(&batch).chunks_exact(25).map(dot).collect();
        assert_eq!(places, [3, 4, 14, 10, 7, 9, 4, 1, 9, 14]);
    }

    #[test]
    fn an_empty_or_unlabelled_split_is_fine() {
        let split = dots(3).truncated(0);
        let mut batches = Batches::new(&split, 4, 0, None);
        assert_eq!(batches.steps_per_epoch(), 0);
        assert!(batches.next().is_none());
        let split = dots(3).without_labels();
        let mut batches = Batches::new(&split, 4, 0, None);
        let batch = batches.next().unwrap();
        assert_eq!(batch.indices.len(), 3);
        assert!(batch.labels.is_none());
    }
}
