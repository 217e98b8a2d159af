//! The innermost loop: an MR × (NP · 16) tile of C as a sum of outer products.
//!
//! ```text
//! acc[r][p][lane] ← acc[r][p][lane] + A(r, k) · Bₚ(k, lane)    k ascending, fused multiply-adds
//!
//! A(r, k) = a[(k / 16)·jump + (k % 16)·KS + r·RS]               broadcast
//! Bₚ(k, ·) = b[p][16·k ..][..16]                                one vector for each panel p
//! ```
//!
//! | A is walked | r counts | k counts | RS | KS | jump |
//! |---|---|---|---|---|---|
//! | along its rows (forward) | lanes of one panel | rows | 1 | 16 | 256 |
//! | along its lanes (both gradients) | rows | lanes, panel by panel | 16 | 1 | one panel |
//! | in tiles of pairs of bf16 | rows of one tile | words | 16 | 1 | 256 |
//!
//! MR + NP loads feed MR·NP multiply-adds. A core with two 512-bit multiply-adders can do as many
//! of them in a cycle as it can load vectors, so one panel, 9 loads for 8, starves it, and three,
//! 11 loads for 24, do not.
//!
//! Every element of C is one chain in ascending k whatever the tile is, so all ISAs give the same
//! bits.
//!
//! Operands of bf16 lie in memory as [`crate::bf16`] says, two in each value; k counts the pairs. Each 16
//! of them are summed as it says.

use crate::bf16::TILE;
use crate::matrix::Panels;
use crate::simd::{LANES, Simd};
use std::ops::Range;

/// How A is walked while the sum runs over k. A type, not a value: no product then carries the
/// code of the other way.
pub(crate) trait Walk: Copy + Sync {
    /// Whether the rows of C lie in blocks of 16, in one of which a tile must lie.
    const IN_BLOCKS: bool;
    /// Whether a value of A and of B is a pair of bf16.
    const PAIRS: bool = false;
}

/// C = Aᵀ·B.
#[derive(Clone, Copy)]
pub(crate) struct Rows;
/// C = A·B.
#[derive(Clone, Copy)]
pub(crate) struct Lanes;
/// C = A·B of bf16.
#[derive(Clone, Copy)]
pub(crate) struct Pairs;

impl Walk for Rows {
    const IN_BLOCKS: bool = true;
}

impl Walk for Lanes {
    const IN_BLOCKS: bool = false;
}

impl Walk for Pairs {
    const IN_BLOCKS: bool = true;
    const PAIRS: bool = true;
}

/// Work that is done between the multiply-adds, which leave most of the processor idle.
pub(crate) trait Aside {
    /// A small part of it, [`parts`] times in a pass. Must be `#[inline(always)]`.
    fn part<S: Simd>(&mut self, s: S);
}

/// No work.
pub(crate) struct Idle;

impl Aside for Idle {
    #[inline(always)]
    fn part<S: Simd>(&mut self, _: S) {}
}

/// How often the microkernel calls [`Aside::part`] in a pass of `k` steps: before each 16 steps,
/// and before the rest.
pub(crate) fn parts(k: usize) -> usize {
    k.div_ceil(LANES)
}

/// The sums of a tile: MR rows of NP panels.
pub(crate) type Acc<S, const MR: usize, const NP: usize> = [[<S as Simd>::F; NP]; MR];

/// What a tile's sums run over: C's rows from `row` on, A and B's micropanels `b` [k, 16] over `k`.
///
/// `k.start` must be a multiple of 16, and with [`Walk::IN_BLOCKS`] the tile's rows must lie in a block.
pub(crate) struct Operands<'t> {
    pub a: Panels<'t>,
    pub b: &'t [&'t [f32]],
    pub row: usize,
    pub k: Range<usize>,
}

/// Adds the products to `acc`. The bounds are checked once per call.
#[inline(always)]
pub(crate) fn microkernel<S: Simd, W: Walk, const MR: usize, const NP: usize>(
    s: S,
    _: W,
    operands: &Operands,
    aside: &mut impl Aside,
    acc: Acc<S, MR, NP>,
) -> Acc<S, MR, NP> {
    let Operands { a, b, row, ref k } = *operands;
    // Without terms A and B may hold no values, and no address in them exists.
    if k.is_empty() {
        return acc;
    }
    let b: &[&[f32]; NP] = b.first_chunk().expect("a micropanel for each panel");
    assert!(b.iter().all(|b| b.len() >= k.len() * LANES) && k.start.is_multiple_of(LANES));
    let b = b.map(|b| b.as_ptr());
    let (start, rows, data) = (k.start, a.rows(), a.data());
    if W::IN_BLOCKS {
        let (block, row) = (row / LANES, row % LANES);
        assert!(k.end <= rows && block < a.panels() && row + MR <= LANES);
        let a = &data[(block * rows + start) * LANES..];
        // SAFETY: k.end rows of A and of each B exist and the tile lies in one panel of A, so
        // every address of the formulas is inside the slices.
        unsafe {
            if W::PAIRS {
                assert!(k.len().is_multiple_of(LANES));
                let a = a[row * LANES..].as_ptr();
                accumulate::<S, W, MR, NP, LANES, 1>(s, k.len(), (a, b), TILE, aside, acc)
            } else {
                let a = a[row..].as_ptr();
                accumulate::<S, W, MR, NP, 1, LANES>(s, k.len(), (a, b), TILE, aside, acc)
            }
        }
    } else {
        assert!(k.end <= a.panels() * LANES && row + MR <= rows);
        let a = data[(start / LANES * rows + row) * LANES..].as_ptr();
        // SAFETY: k.end lanes of A and rows of each B exist, and A has the tile's rows, so every
        // address of the formulas is inside the slices.
        unsafe {
            accumulate::<S, W, MR, NP, LANES, 1>(s, k.len(), (a, b), rows * LANES, aside, acc)
        }
    }
}

/// # Safety
/// `a` and `b` must be readable at every address of the module's formulas, for r < MR and all
/// steps below `k`.
#[inline(always)]
unsafe fn accumulate<
    S: Simd,
    W: Walk,
    const MR: usize,
    const NP: usize,
    const RS: usize,
    const KS: usize,
>(
    s: S,
    k: usize,
    (mut a, mut b): (*const f32, [*const f32; NP]),
    jump: usize,
    aside: &mut impl Aside,
    mut acc: Acc<S, MR, NP>,
) -> Acc<S, MR, NP> {
    for _ in 0..k / LANES {
        aside.part(s);
        // SAFETY: the caller vouches for the addresses of every step.
        unsafe {
            if W::PAIRS {
                pairs::<S, MR, NP>(s, a, b, &mut acc);
            } else {
                // The compiler leaves the whole block a loop. Its bookkeeping costs a narrow tile a
                // twentieth, so that is unrolled; a wide one would lose sums to the stack.
                let unrolled = if NP == 1 { 4 } else { 1 };
                for i in (0..LANES).step_by(unrolled) {
                    for i in i..i + unrolled {
                        step::<S, MR, NP, RS>(s, a.add(i * KS), b, i, &mut acc);
                    }
                }
            }
        }
        a = a.wrapping_add(jump);
        for b in &mut b {
            *b = b.wrapping_add(LANES * LANES);
        }
    }
    if W::PAIRS || k.is_multiple_of(LANES) {
        return acc;
    }
    aside.part(s);
    // SAFETY: as above.
    unsafe {
        for i in 0..k % LANES {
            step::<S, MR, NP, RS>(s, a.add(i * KS), b, i, &mut acc);
        }
    }
    acc
}

/// acc ← acc + (even + odd), the sums of the even and of the odd terms of 16 words.
///
/// # Safety
/// 16 words of each row at `a + 16·r`, r < MR, and 16 rows of 16 at each `b` must be readable.
#[inline(always)]
unsafe fn pairs<S: Simd, const MR: usize, const NP: usize>(
    s: S,
    a: *const f32,
    b: [*const f32; NP],
    acc: &mut Acc<S, MR, NP>,
) {
    // SAFETY: the caller vouches for the addresses.
    let (even, odd) =
        unsafe { (chain::<S, MR, NP, false>(s, a, b), chain::<S, MR, NP, true>(s, a, b)) };
    for ((acc, even), odd) in acc.iter_mut().zip(even).zip(odd) {
        for ((acc, even), odd) in acc.iter_mut().zip(even).zip(odd) {
            *acc = s.add(*acc, s.add(even, odd));
        }
    }
}

/// A's halves of 16 words, aligned to cache lines.
#[repr(align(64))]
struct Halves<const MR: usize>([[f32; LANES]; MR]);

/// The sums of the even terms of 16 words, or of the odd ones, from 0 on.
///
/// # Safety
/// As [`pairs`].
#[inline(always)]
unsafe fn chain<S: Simd, const MR: usize, const NP: usize, const ODD: bool>(
    s: S,
    a: *const f32,
    b: [*const f32; NP],
) -> Acc<S, MR, NP> {
    // Through memory: 16 broadcasts of one value each then need no arithmetic.
    let mut halves = Halves([[0.0; LANES]; MR]);
    for (r, halves) in halves.0.iter_mut().enumerate() {
        // SAFETY: the caller vouches for the addresses.
        let words = unsafe { s.load(&*a.add(r * LANES).cast::<[f32; LANES]>()) };
        s.store(half::<S, ODD>(s, words), halves);
    }
    let mut acc = [[s.splat(0.0); NP]; MR];
    for i in 0..LANES {
        let mut rows = [s.splat(0.0); NP];
        for (row, b) in rows.iter_mut().zip(b) {
            // SAFETY: as above.
            let words = unsafe { s.load(&*b.add(i * LANES).cast::<[f32; LANES]>()) };
            *row = half::<S, ODD>(s, words);
        }
        for (acc, halves) in acc.iter_mut().zip(&halves.0) {
            let a = s.splat(halves[i]);
            for (acc, row) in acc.iter_mut().zip(rows) {
                *acc = s.add_exact_product(a, row, *acc);
            }
        }
    }
    acc
}

/// The first bf16 of each word, or the second one.
#[inline(always)]
fn half<S: Simd, const ODD: bool>(s: S, words: S::F) -> S::F {
    let words = s.bits(words);
    s.float(if ODD { s.and_u(words, s.splat_u(0xffff_0000)) } else { s.shl_u::<16>(words) })
}

/// Steps after which a row of B is needed when it is fetched from L2.
const AHEAD: usize = 16;

/// One outer product: that of row `i` of the micropanels.
///
/// # Safety
/// Row `i` of 16 values at each `b` and one value at `a + r·RS`, r < MR, must be readable.
#[inline(always)]
unsafe fn step<S: Simd, const MR: usize, const NP: usize, const RS: usize>(
    s: S,
    a: *const f32,
    b: [*const f32; NP],
    i: usize,
    acc: &mut Acc<S, MR, NP>,
) {
    // SAFETY: the caller vouches for the addresses.
    unsafe {
        let mut rows = [s.splat(0.0); NP];
        for (row, b) in rows.iter_mut().zip(b) {
            // Where tiles are one panel wide its micropanel, 24 KiB, stays in L1.
            if S::TILE.panels > 1 {
                s.prefetch(b.wrapping_add((i + AHEAD) * LANES));
            }
            *row = s.load(&*b.add(i * LANES).cast::<[f32; LANES]>());
        }
        for (r, acc) in acc.iter_mut().enumerate() {
            let a = s.splat(*a.add(r * RS));
            for (acc, row) in acc.iter_mut().zip(rows) {
                *acc = s.fma(a, row, *acc);
            }
        }
    }
}
