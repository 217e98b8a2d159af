//! Sums over the batch, and counts.

use crate::Context;
use crate::isa::{Kernel, dispatch};
use crate::matrix::Panels;
use crate::pool::chunks;
use crate::simd::{LANES, Simd};
use std::sync::atomic::{AtomicUsize, Ordering};

/// `sums[r]` = Σ over lanes of row r: the gradient of a bias, db = Σ dZ.
///
/// Panels are added in order, lane by lane, and the 16 lanes by the fixed tree of
/// [`Simd::reduce_add`]. Padding lanes must be zero.
///
/// # Panics
/// If `sums` is shorter than the rows.
pub fn row_sums(context: &Context, dz: Panels, sums: &mut [f32]) {
    let rows_per_task = dz.rows().div_ceil(context.pool.threads());
    let sums = chunks(&mut sums[..dz.rows()], rows_per_task);
    context.pool.for_each_part(sums, 2 * dz.rows() * dz.panels(), |chunk, sums| {
        dispatch(context.isa, RowSums { dz, first: chunk * rows_per_task, sums });
    });
}

struct RowSums<'a> {
    dz: Panels<'a>,
    first: usize,
    sums: &'a mut [f32],
}

impl Kernel for RowSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (i, sum) in self.sums.iter_mut().enumerate() {
            let mut acc = s.splat(0.0);
            for panel in 0..self.dz.panels() {
                acc = s.add(acc, s.load(self.dz.row(self.first + i, panel)));
            }
            *sum = s.reduce_add(acc);
        }
    }
}

/// Examples whose largest logit, the first of several equal ones, is not that of their label, or
/// that have a logit which is not finite.
///
/// # Panics
/// Unless there is a label for each example.
pub fn errors(context: &Context, logits: Panels, labels: &[u16]) -> usize {
    assert_eq!(labels.len(), logits.lanes(), "a label for each example");
    let wrong = AtomicUsize::new(0);
    context.pool.for_each(logits.panels(), logits.data().len() / LANES, |panel| {
        let labels = &labels[panel * LANES..];
        let labels = &labels[..labels.len().min(LANES)];
        wrong.fetch_add(dispatch(context.isa, Errors { logits, panel, labels }), Ordering::Relaxed);
    });
    wrong.into_inner()
}

struct Errors<'a> {
    logits: Panels<'a>,
    panel: usize,
    labels: &'a [u16],
}

impl Kernel for Errors<'_> {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        let Self { logits, panel, labels } = self;
        let mut largest = s.splat(f32::NEG_INFINITY);
        // 0·z is 0 for a finite z and NaN otherwise.
        let mut finite = s.splat(0.0);
        for row in 0..logits.rows() {
            let z = s.load(logits.row(row, panel));
            largest = s.max(largest, z);
            finite = s.fma(z, s.splat(0.0), finite);
        }
        let (mut top, mut zero) = ([0.0; LANES], [0.0; LANES]);
        s.store(largest, &mut top);
        s.store(finite, &mut zero);
        let wrong = |&(lane, &label): &(usize, &u16)| {
            let first = (0..logits.rows()).find(|&row| logits.row(row, panel)[lane] == top[lane]);
            zero[lane] != 0.0 || first != Some(usize::from(label))
        };
        labels.iter().enumerate().filter(wrong).count()
    }
}
