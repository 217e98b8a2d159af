//! Real-valued examples: rows of a table, or frames with their neighbours in time.

use std::sync::Arc;

/// The frames of utterances, each an example together with its neighbours; or the rows of a table.
///
/// The input of the example at frame t is the frames t − left … t + right of its utterance, one
/// after another: `[(left + 1 + right)·dim]`. Before the first frame stands the first frame again,
/// behind the last the last. The paper's acoustic model sees 26 frames and predicts the state of the
/// 21st (section 4): left = 20, right = 5. The rows of a table have no neighbours: left = right = 0.
///
/// Features are stored once, although several examples use each, and all subsets share them.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// `[total, dim]`, row-major.
    features: Arc<[f32]>,
    dim: usize,
    left: usize,
    right: usize,
    examples: Vec<Window>,
}

/// A frame, and the first frame and the end of its utterance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    frame: u32,
    first: u32,
    end: u32,
}

impl Features {
    /// Makes an example of every frame of `features` `[total, dim]`, row-major. The utterances follow
    /// one another; utterance i has `lengths[i]` frames.
    ///
    /// # Panics
    /// If `dim` is 0, the lengths do not add up to the features, or there are more than `u32::MAX`
    /// frames.
    #[must_use]
    pub fn new(
        features: impl Into<Arc<[f32]>>,
        dim: usize,
        lengths: &[usize],
        (left, right): (usize, usize),
    ) -> Self {
        let features = features.into();
        assert!(dim > 0, "a frame has at least one value");
        let total: usize = lengths.iter().sum();
        assert_eq!(features.len(), total * dim, "values of {total} frames of {dim}");
        assert!(u32::try_from(total).is_ok(), "{total} frames, at most u32::MAX");
        let mut examples = Vec::with_capacity(total);
        let mut first = 0;
        for &length in lengths {
            let end = first + length as u32;
            examples.extend((first..end).map(|frame| Window { frame, first, end }));
            first = end;
        }
        Self { features, dim, left, right, examples }
    }

    /// Number of examples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there is no example.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// Whether examples have no neighbours, as the rows of a table.
    #[must_use]
    pub fn are_rows(&self) -> bool {
        (self.left, self.right) == (0, 0)
    }

    /// Number of values of an example: (left + 1 + right)·dim.
    #[must_use]
    pub fn input_size(&self) -> usize {
        (self.left + 1 + self.right) * self.dim
    }

    /// The input of example `i` `[input size]`. Where its window lies within the utterance, it is a
    /// part of the stored features. Else it is put together in `space` `[input size]`.
    ///
    /// # Panics
    /// If `i >= self.len()`, or `space` does not hold one input.
    #[must_use]
    pub fn input<'s>(&'s self, i: usize, space: &'s mut [f32]) -> &'s [f32] {
        let Window { frame, first, end } = self.examples[i];
        let (frame, first, end) = (frame as usize, first as usize, end as usize);
        let from = frame as isize - self.left as isize;
        if from >= first as isize && frame + self.right < end {
            return &self.features[from as usize * self.dim..][..self.input_size()];
        }
        for (offset, out) in space.chunks_exact_mut(self.dim).enumerate() {
            let seen = (from + offset as isize).clamp(first as isize, end as isize - 1) as usize;
            out.copy_from_slice(&self.features[seen * self.dim..][..self.dim]);
        }
        space
    }

    /// The same examples with value `places[j]` of each row as value j.
    ///
    /// # Panics
    /// If these are frames with neighbours, or a place is not below the number of values.
    #[must_use]
    pub fn reordered(&self, places: &[usize]) -> Self {
        assert!(self.are_rows(), "frames are not reordered");
        let rows = self.features.chunks_exact(self.dim);
        let features: Vec<f32> =
            rows.flat_map(|row| places.iter().map(|&place| row[place])).collect();
        Self { features: features.into(), dim: places.len(), ..self.clone() }
    }

    /// The examples at `indices`, in that order, over the same features.
    ///
    /// # Panics
    /// If an index is not below `self.len()`.
    #[must_use]
    pub fn subset(&self, indices: &[u32]) -> Self {
        let examples = indices.iter().map(|&i| self.examples[i as usize]).collect();
        Self { examples, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two utterances of 3 and 2 frames (t, −t).
    fn frames(context: (usize, usize)) -> Features {
        let features: Vec<f32> = (0..5u8).flat_map(|t| [f32::from(t), -f32::from(t)]).collect();
        Features::new(features, 2, &[3, 2], context)
    }

    /// The first value of each frame that example `i` sees.
    fn seen(frames: &Features, i: usize) -> Vec<f32> {
        let mut space = vec![9.0; frames.input_size()];
        let input = frames.input(i, &mut space);
        assert!(input.chunks(2).all(|frame| frame[1] == -frame[0]));
        input.iter().step_by(2).copied().collect()
    }

    #[test]
    fn windows_repeat_the_edges_of_their_own_utterance() {
        let wide = frames((2, 1));
        assert_eq!((wide.len(), wide.input_size()), (5, 8));
        let all: Vec<Vec<f32>> = (0..5).map(|i| seen(&wide, i)).collect();
        assert_eq!(all[0], [0.0, 0.0, 0.0, 1.0]);
        assert_eq!(all[1], [0.0, 0.0, 1.0, 2.0]);
        assert_eq!(all[2], [0.0, 1.0, 2.0, 2.0]);
        assert_eq!(all[3], [3.0, 3.0, 3.0, 4.0]);
        assert_eq!(all[4], [3.0, 3.0, 4.0, 4.0]);
        let alone = frames((0, 0));
        assert_eq!(
            (0..5).map(|i| seen(&alone, i)[0]).collect::<Vec<_>>(),
            [0.0, 1.0, 2.0, 3.0, 4.0]
        );
    }

    #[test]
    fn subsets_keep_their_neighbours() {
        let some = frames((1, 1)).subset(&[2, 1, 4]);
        assert_eq!(some.len(), 3);
        assert_eq!(seen(&some, 0), [1.0, 2.0, 2.0]);
        assert_eq!(seen(&some, 1), [0.0, 1.0, 2.0]);
        assert_eq!(seen(&some, 2), [3.0, 4.0, 4.0]);
    }
}
