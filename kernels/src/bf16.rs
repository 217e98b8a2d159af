//! bf16: the upper half of an f32, an eighth of its mantissa's bits; and products of bf16 operands
//! with sums in f32, which have **the same bits** with and without a tile unit.
//!
//! # The contract
//!
//! **Rounding.** bf16(x) is the nearest number with 8 significant bits, of two equally near ones that
//! whose last bit is 0. Where |x| < 2⁻⁵⁰ it is 0. NaN stays NaN.
//!
//! **Sums.** C(i, j) = Σ A(i, k)·B(k, j) over k < K goes in blocks of 32 k, ascending. In a block the
//! even and the odd k are two chains of fused multiply-adds, each from 0 and in ascending order:
//!
//! ```text
//! even ← A(i, k)·B(k, j) + even       k = 32b, 32b + 2, … 32b + 30
//! odd  ← A(i, k)·B(k, j) + odd        k = 32b + 1, 32b + 3, … 32b + 31
//! C    ← C + (even + odd)
//! ```
//!
//! Terms beyond K are 0 and change nothing. This is what Intel's TDPBF16PS computes. (VDPBF16PS is
//! one chain of which the odd term is the first, and cannot give these bits.)
//!
//! **Why all machines agree.** An operand is a multiple of 2⁻⁵⁷, or 0, so that each product and each
//! sum is a multiple of 2⁻¹¹⁴: none is subnormal, and that the tile unit flushes subnormal numbers
//! makes no difference. A product has 16 significant bits and is exact in f32: multiplying and then
//! adding rounds as often as a fused multiply-add, once.
//!
//! **Error.** With ε = 2⁻²⁴ a term passes at most 16 additions in its chain, one of the two chains and
//! one for each block from its own on:
//! |C − Σ A·B| ≤ (17 + ⌈K/32⌉)·ε·Σ |A|·|B|, to first order in ε. Rounding both operands changes the sum
//! by at most (2·2⁻⁹ + 2⁻¹⁸)·Σ |a|·|b| of what they were, those below 2⁻⁵⁰ aside.
//!
//! # Pairs
//!
//! A **word** is the 32 bits of an f32 with two bf16 in them, the first in the lower half. [`pack`]
//! makes two panel matrices of words of a panel matrix [rows, lanes]:
//!
//! | | shape in words | a word at (i, j) holds |
//! |---|---|---|
//! | along the rows | [⌈rows/2⌉, lanes] | (2i, j) and (2i + 1, j) |
//! | along the lanes | [rows, ⌈lanes/2⌉] | (i, 2j) and (i, 2j + 1) |
//!
//! [`crate::gemm::transpose`] of the latter is the former of the transposed matrix. Words are loaded
//! and stored; no arithmetic touches them before their halves are f32 again.

use crate::Context;
use crate::isa::{Kernel, dispatch};
use crate::matrix::{Panels, PanelsMut};
use crate::pool::{Parts, chunks};
use crate::simd::{LANES, Simd};

/// 2⁻⁵⁰: what is smaller becomes 0.
pub const SMALLEST: f32 = f32::from_bits((127 - 50) << 23);

/// bf16(x) as an f32.
pub fn round(x: f32) -> f32 {
    if x.is_nan() {
        return f32::NAN;
    }
    if x.abs() < SMALLEST {
        return 0.0;
    }
    let bits = x.to_bits();
    // A carry out of the mantissa is the next exponent, and from the largest one infinity.
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// [`round`] of 16 lanes.
#[inline(always)]
fn round_lanes<S: Simd>(s: S, x: S::F) -> S::F {
    let bits = s.bits(s.flush_below(x, SMALLEST));
    let last = s.and_u(s.shr_u::<16>(bits), s.splat_u(1));
    let up = s.add_u(bits, s.add_u(last, s.splat_u(0x7fff)));
    let rounded = s.float(s.and_u(up, s.splat_u(0xffff_0000)));
    let number = s.lt_u(s.and_u(bits, s.splat_u(0x7fff_ffff)), s.splat_u(0x7f80_0001));
    s.select(number, rounded, s.splat(f32::NAN))
}

/// Values of one parallel task: 64 KiB.
const CHUNK: usize = 1 << 14;

/// `values` ← bf16(`values`). Their number must be a multiple of 16.
///
/// # Panics
/// If it is not.
pub fn round_all(context: &Context, values: &mut [f32]) {
    assert!(values.len().is_multiple_of(LANES), "a multiple of 16 values");
    let cost = values.len() / LANES;
    context.pool.for_each_part(chunks(values, CHUNK), cost, |_, values| {
        dispatch(context.isa, Round { values });
    });
}

struct Round<'a> {
    values: &'a mut [f32],
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for values in self.values.as_chunks_mut::<LANES>().0 {
            s.store(round_lanes(s, s.load(values)), values);
        }
    }
}

/// The rounded values of `src` [rows, lanes] in pairs, along its rows to `by_rows`
/// [⌈rows/2⌉, lanes], along its lanes to `by_lanes` [rows, ⌈lanes/2⌉], where they are wanted.
///
/// # Panics
/// If the shapes do not fit.
pub fn pack(
    context: &Context,
    src: Panels,
    by_rows: Option<PanelsMut>,
    by_lanes: Option<PanelsMut>,
) {
    let (rows, lanes) = (src.rows(), src.lanes());
    if rows == 0 || lanes == 0 {
        return;
    }
    let wanted =
        [by_rows.is_some(), by_lanes.is_some()].into_iter().filter(|wanted| *wanted).count();
    let by_rows = words(by_rows, (rows.div_ceil(2), lanes));
    let by_lanes = words(by_lanes, (rows, lanes.div_ceil(2)));
    // Two panels of the source are one of pairs along the lanes.
    let parts = chunks(by_rows, 2 * rows.div_ceil(2) * LANES).zip(chunks(by_lanes, rows * LANES));
    let cost = wanted * src.data().len() / LANES;
    context.pool.for_each_part(parts, cost, |pair, (by_rows, by_lanes)| {
        dispatch(context.isa, Pack { src, first: 2 * pair, by_rows, by_lanes });
    });
}

/// The values of a matrix of this shape, or none.
fn words(dst: Option<PanelsMut<'_>>, shape: (usize, usize)) -> &mut [f32] {
    let Some(dst) = dst else { return &mut [] };
    assert_eq!((dst.rows(), dst.lanes()), shape, "words of the matrix");
    dst.into_data()
}

/// Two panels of `src` from `first` on.
struct Pack<'a> {
    src: Panels<'a>,
    first: usize,
    by_rows: &'a mut [f32],
    by_lanes: &'a mut [f32],
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Pack { src, first, by_rows, by_lanes } = self;
        let (rows, words) = (src.rows(), src.rows().div_ceil(2));
        let by_rows = by_rows.as_chunks_mut::<LANES>().0;
        let by_lanes = by_lanes.as_chunks_mut::<{ LANES / 2 }>().0;
        for side in 0..2 {
            let panel = first + side;
            for pair in 0..words {
                let mut halves = [s.splat(0.0); 2];
                for (i, half) in halves.iter_mut().enumerate() {
                    let row = 2 * pair + i;
                    if row < rows && panel < src.panels() {
                        *half = round_lanes(s, s.load(src.row(row, panel)));
                    }
                    if row < rows
                        && let Some(out) = by_lanes.get_mut(2 * row + side)
                    {
                        s.store_halves(s.bits(*half), out);
                    }
                }
                if let Some(out) = by_rows.get_mut(side * words + pair) {
                    let [even, odd] = halves.map(|half| s.bits(half));
                    s.store(s.float(s.xor_u(s.shr_u::<16>(even), odd)), out);
                }
            }
        }
    }
}
