//! The innermost loop: an MR × 16 tile of C as a sum of outer products.
//!
//! ```text
//! acc[r][lane] ← acc[r][lane] + A(r, k) · B(k, lane)      k ascending, one fused multiply-add each
//!
//! A(r, k) = a[(k / 16)·jump + (k % 16)·KS + r·RS]          broadcast
//! B(k, ·) = b[16·k ..][..16]                               one vector
//! ```
//!
//! | A is walked | r counts | k counts | RS | KS | jump |
//! |---|---|---|---|---|---|
//! | along its rows (forward) | lanes of one panel | rows | 1 | 16 | 256 |
//! | along its lanes (both gradients) | rows | lanes, panel by panel | 16 | 1 | one panel |
//!
//! Every element of C is one chain in ascending k whatever MR is, so all ISAs give the same bits.

use crate::matrix::Panels;
use crate::simd::{LANES, Simd};
use std::ops::Range;

/// How A is walked while the sum runs over k.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    /// C = Aᵀ·B.
    Rows,
    /// C = A·B.
    Lanes,
}

/// Work that is done between the multiply-adds, which leave most of the processor idle.
pub(crate) trait Aside {
    /// A small part of it, [`parts`] times in a pass. Must be `#[inline(always)]`.
    fn part<S: Simd>(&mut self, s: S);
}

/// How often the microkernel calls [`Aside::part`] in a pass of `k` steps: before each 16 steps,
/// and before each of the rest.
pub(crate) fn parts(k: usize) -> usize {
    k / LANES + k % LANES
}

/// Adds to `acc` the products for C's rows `row` … `row + MR` over `k`; `b` is the micropanel
/// [k, 16].
///
/// `k.start` must be a multiple of 16; with [`Walk::Rows`] the tile's rows must lie in one
/// panel of A. The bounds are checked once per call.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the operands of one product")]
pub(crate) fn microkernel<S: Simd, const MR: usize>(
    s: S,
    walk: Walk,
    a: Panels,
    b: &[f32],
    row: usize,
    k: Range<usize>,
    aside: &mut impl Aside,
    acc: [S::F; MR],
) -> [S::F; MR] {
    // Without terms A and B may hold no values, and no address in them exists.
    if k.is_empty() {
        return acc;
    }
    assert!(b.len() >= k.len() * LANES && k.start.is_multiple_of(LANES));
    let b = b.as_ptr();
    let (start, rows, data) = (k.start, a.rows(), a.data());
    match walk {
        Walk::Rows => {
            assert!(k.end <= rows && row + MR <= a.panels() * LANES && row % LANES + MR <= LANES);
            let a = data[(row / LANES * rows + start) * LANES + row % LANES..].as_ptr();
            // SAFETY: k.end rows of A and of B exist and the tile lies in one panel of A, so
            // every address of the formulas is inside the two slices.
            unsafe { accumulate::<S, MR, 1, LANES>(s, k.len(), (a, b), LANES * LANES, aside, acc) }
        }
        Walk::Lanes => {
            assert!(k.end <= a.panels() * LANES && row + MR <= rows);
            let a = data[(start / LANES * rows + row) * LANES..].as_ptr();
            // SAFETY: k.end lanes of A and rows of B exist, and A has the tile's rows, so every
            // address of the formulas is inside the two slices.
            unsafe { accumulate::<S, MR, LANES, 1>(s, k.len(), (a, b), rows * LANES, aside, acc) }
        }
    }
}

/// # Safety
/// `a` and `b` must be readable at every address of the module's formulas, for r < MR and all
/// steps below `k`.
#[inline(always)]
unsafe fn accumulate<S: Simd, const MR: usize, const RS: usize, const KS: usize>(
    s: S,
    k: usize,
    (mut a, mut b): (*const f32, *const f32),
    jump: usize,
    aside: &mut impl Aside,
    mut acc: [S::F; MR],
) -> [S::F; MR] {
    for _ in 0..k / LANES {
        aside.part(s);
        for i in 0..LANES {
            // SAFETY: the caller vouches for the addresses of every step.
            unsafe { step::<S, MR, RS>(s, a.add(i * KS), b.add(i * LANES), &mut acc) };
        }
        a = a.wrapping_add(jump);
        b = b.wrapping_add(LANES * LANES);
    }
    for i in 0..k % LANES {
        aside.part(s);
        // SAFETY: as above.
        unsafe { step::<S, MR, RS>(s, a.add(i * KS), b.add(i * LANES), &mut acc) };
    }
    acc
}

/// One outer product.
///
/// # Safety
/// 16 values at `b` and one at `a + r·RS`, r < MR, must be readable.
#[inline(always)]
unsafe fn step<S: Simd, const MR: usize, const RS: usize>(
    s: S,
    a: *const f32,
    b: *const f32,
    acc: &mut [S::F; MR],
) {
    // SAFETY: the caller vouches for the addresses.
    unsafe {
        let b = s.load(&*b.cast::<[f32; LANES]>());
        for (r, acc) in acc.iter_mut().enumerate() {
            *acc = s.fma(s.splat(*a.add(r * RS)), b, *acc);
        }
    }
}
