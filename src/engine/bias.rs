//! Correcting the bias of classes that the transfer set lacked.
//!
//! A student that never saw a 3 has learnt from its teacher what a 3 looks like, but its bias of
//! that class is far too low (paper, section 3). One offset δ added to the logits of a set S of
//! classes mends that; here are two ways to choose it.
//!
//! An example is assigned to S exactly when δ exceeds its crossing point
//!
//! ```text
//! t = max_{c ∉ S} z_c − max_{c ∈ S} z_c
//! ```
//!
//! and within S and outside it the order of the classes does not depend on δ. So the number of
//! errors is piecewise constant in δ and changes at crossing points only: sorting them finds its
//! exact minimum.
//!
//! Shapes: logits `[n, classes]` row-major, labels `[n]` below `classes`. A row with a logit that
//! is not finite is an error at every offset and has no crossing point.
//!
//! # Panics
//! Every function panics on shapes that contradict each other, on a label or a member of S that
//! is no class, and when S is empty or holds every class.

use crate::engine::metrics::{labelled_rows, largest, predict};

/// An offset of some classes' logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Correction {
    /// S, the classes that are shifted.
    pub shifted: Vec<usize>,
    /// δ.
    pub offset: f32,
}

impl Correction {
    /// The offset with the fewest errors on labelled examples.
    ///
    /// Of all offsets alike in errors, the middle of their widest interval between two crossing
    /// points; where only unbounded intervals are best, one nat beyond the last crossing point.
    pub fn fewest_errors(
        logits: &[f32],
        labels: &[u16],
        classes: usize,
        shifted: &[usize],
    ) -> Self {
        let mut crossings: Vec<_> = labelled_rows(logits, labels, classes)
            .filter_map(|(row, label)| Some((Crossing::of(row, shifted)?, label)))
            .collect();
        crossings.sort_by(|(a, _), (b, _)| a.at.total_cmp(&b.at));
        // From δ = −∞ upwards, relative to the errors there.
        let (mut errors, mut best) = (0_i64, i64::MAX);
        let (mut offset, mut width) = (0.0, 0.0);
        for i in 0..=crossings.len() {
            let from = if i == 0 { f64::NEG_INFINITY } else { crossings[i - 1].0.at };
            let to = crossings.get(i).map_or(f64::INFINITY, |(crossing, _)| crossing.at);
            // Between equal crossing points lies no offset.
            if from < to {
                // Any bounded interval is preferred to an unbounded one.
                let bounded = if (to - from).is_finite() { to - from } else { 0.0 };
                if errors < best || errors == best && bounded > width {
                    (best, offset, width) = (errors, between(from, to), bounded);
                }
            }
            if let Some((crossing, label)) = crossings.get(i) {
                errors += i64::from(crossing.below == *label) - i64::from(crossing.above == *label);
            }
        }
        Self { shifted: shifted.to_vec(), offset: offset as f32 }
    }

    /// The offset at which S gets round(`share` · n) of the n examples with finite logits: needs no
    /// labels, only how frequent the classes of S are together.
    pub fn matching_share(logits: &[f32], classes: usize, shifted: &[usize], share: f64) -> Self {
        assert!((0.0..=1.0).contains(&share), "a share of {share}");
        assert_eq!(logits.len() % classes, 0, "logits [n, classes]");
        let rows = logits.chunks_exact(classes);
        let mut at: Vec<_> = rows.filter_map(|row| Some(Crossing::of(row, shifted)?.at)).collect();
        at.sort_by(f64::total_cmp);
        let wanted = (share * at.len() as f64).round() as usize;
        let from = if wanted == 0 { f64::NEG_INFINITY } else { at[wanted - 1] };
        let to = at.get(wanted).copied().unwrap_or(f64::INFINITY);
        Self { shifted: shifted.to_vec(), offset: between(from, to) as f32 }
    }

    /// Adds δ to the logits of S.
    pub fn apply(&self, logits: &mut [f32], classes: usize) {
        assert_eq!(logits.len() % classes, 0, "logits [n, classes]");
        for row in logits.chunks_exact_mut(classes) {
            for &class in &self.shifted {
                row[class] += self.offset;
            }
        }
    }
}

/// Where an example passes from the classes outside S to those of S.
struct Crossing {
    /// t.
    at: f64,
    /// The class predicted for δ < t, outside S.
    below: usize,
    /// The class predicted for δ > t, in S.
    above: usize,
}

impl Crossing {
    fn of(row: &[f32], shifted: &[usize]) -> Option<Self> {
        assert!(shifted.iter().all(|&class| class < row.len()), "{shifted:?}: not all are classes");
        predict(row)?;
        let largest_where = |inside: bool| {
            let classes = (0..row.len()).filter(|class| shifted.contains(class) == inside);
            largest(row, classes).expect("classes in S and outside it")
        };
        let (below, above) = (largest_where(false), largest_where(true));
        Some(Self { at: f64::from(row[below]) - f64::from(row[above]), below, above })
    }
}

/// The middle of an interval, or one beyond its only bound; 0 without any.
fn between(from: f64, to: f64) -> f64 {
    match (from.is_finite(), to.is_finite()) {
        (true, true) => from + (to - from) / 2.0,
        (true, false) => from + 1.0,
        (false, true) => to - 1.0,
        (false, false) => 0.0,
    }
}
