//! bf16: the upper half of an f32, 8 of its 24 significant bits; and products of bf16 operands
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
//! A **word** is the 32 bits of an f32 with two bf16 in them, the first in the lower half. A panel matrix
//! [rows, lanes] becomes one of words in two ways:
//!
//! | | shape in words | a word at (i, j) holds |
//! |---|---|---|
//! | along the rows, [`pack_rows`] | [⌈rows/2⌉, lanes] | (2i, j) and (2i + 1, j) |
//! | along the lanes, [`pack_lanes`] | [rows, ⌈lanes/2⌉] | (i, 2j) and (i, 2j + 1) |
//!
//! [`crate::gemm::transpose`] of the latter is the former of the transposed matrix. Words are loaded
//! and stored; no arithmetic touches them before their halves are f32 again.

use crate::Context;
use crate::isa::{Kernel, dispatch};
use crate::matrix::{Panels, PanelsMut};
use crate::pool::chunks;
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

/// The rounded values of `src` [rows, lanes] in pairs along its rows, `dst` [⌈rows/2⌉, lanes].
///
/// # Panics
/// Unless `dst` has this shape.
pub fn pack_rows(context: &Context, src: Panels, mut dst: PanelsMut) {
    let words = src.rows().div_ceil(2);
    assert_eq!((dst.rows(), dst.lanes()), (words, src.lanes()), "words along the rows");
    let cost = src.data().len() / LANES;
    context.pool.for_each_part(chunks(dst.data(), words * LANES), cost, |panel, out| {
        dispatch(context.isa, PackRows { src, panel, out });
    });
}

/// One panel.
struct PackRows<'a> {
    src: Panels<'a>,
    panel: usize,
    out: &'a mut [f32],
}

impl Kernel for PackRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (word, out) in self.out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mut halves = [s.splat(0.0); 2];
            for (half, row) in halves.iter_mut().zip(2 * word..self.src.rows()) {
                *half = round_lanes(s, s.load(self.src.row(row, self.panel)));
            }
            let (first, second) = (s.bits(halves[0]), s.bits(halves[1]));
            s.store(s.float(s.xor_u(s.shr_u::<16>(first), second)), out);
        }
    }
}

/// The rounded values of `src` [rows, lanes] in pairs along its lanes, `dst` [rows, ⌈lanes/2⌉].
///
/// # Panics
/// Unless `dst` has this shape.
pub fn pack_lanes(context: &Context, src: Panels, mut dst: PanelsMut) {
    let shape = (src.rows(), src.lanes().div_ceil(2));
    assert_eq!((dst.rows(), dst.lanes()), shape, "words along the lanes");
    let cost = src.data().len() / LANES;
    context.pool.for_each_part(chunks(dst.data(), src.rows() * LANES), cost, |pair, out| {
        dispatch(context.isa, PackLanes { src, first: 2 * pair, out });
    });
}

/// Two panels from `first` on, which are one of words.
struct PackLanes<'a> {
    src: Panels<'a>,
    first: usize,
    out: &'a mut [f32],
}

impl Kernel for PackLanes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (half, out) in self.out.as_chunks_mut::<{ LANES / 2 }>().0.iter_mut().enumerate() {
            let (row, panel) = (half / 2, self.first + half % 2);
            let mut values = s.splat(0.0);
            if panel < self.src.panels() {
                values = round_lanes(s, s.load(self.src.row(row, panel)));
            }
            s.store_halves(s.bits(values), out);
        }
    }
}
