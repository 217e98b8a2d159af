//! Sums over the batch.

use crate::Context;
use crate::isa::{Kernel, dispatch};
use crate::matrix::Panels;
use crate::pool::chunks;
use crate::simd::Simd;

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
