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
//! adding rounds as often as a fused multiply-add, once. That holds for products below 2¹²⁸. A larger one
//! is infinite where it is added in a second step, while a fused multiply-add may bring it back within
//! range: the promise ends where a net diverges.
//!
//! **Error.** With ε = 2⁻²⁴ a term passes at most 16 additions in its chain, one of the two chains and
//! one for each block from its own on:
//! |C − Σ A·B| ≤ (17 + ⌈K/32⌉)·ε·Σ |A|·|B|, to first order in ε. Rounding both operands changes the sum
//! by at most (2·2⁻⁹ + 2⁻¹⁸)·Σ |a|·|b| of what they were, those below 2⁻⁵⁰ aside.
//!
//! # Operands in memory
//!
//! A **word** is the 32 bits of an f32 with two bf16 in them, the first in the lower half. An operand
//! whose products are sums of K terms lies in memory as ⌈n/16⌉ × ⌈K/32⌉ tiles of 16 × 16 words, the
//! terms of 16 of its n rows (A) or lanes (B) one behind the other: a panel matrix of
//! [`words`]\(K) rows and n lanes, whose blocks of 16 rows are
//!
//! | operand | word (i, j) of a tile holds the terms | of C's |
//! |---|---|---|
//! | [`Side::A`] | 2j, 2j + 1 | row i |
//! | [`Side::B`] | 2i, 2i + 1 | lane j |
//!
//! This is what a tile unit reads, a tile at a time. Terms beyond K are 0, whatever the padding of a matrix
//! holds; what stands for rows and lanes beyond n is padding of C.
//! Words are loaded and stored; no arithmetic touches them before their halves are f32 again.

use crate::Context;
use crate::isa::{Kernel, dispatch};
use crate::matrix::{Panels, PanelsMut};
use crate::pool::chunks;
use crate::simd::{LANES, Simd};
use std::array::IntoIter;
use std::iter::Flatten;

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
pub(crate) fn round_lanes<S: Simd>(s: S, x: S::F) -> S::F {
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

/// Words of a tile.
pub(crate) const TILE: usize = LANES * LANES;

/// Rows of an operand whose products are sums of `depth` terms: 16·⌈depth/32⌉.
pub fn words(depth: usize) -> usize {
    depth.div_ceil(2 * LANES) * LANES
}

/// The side of a matrix that a product sums over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    /// Its rows.
    Rows,
    /// Its lanes.
    Lanes,
}

impl Along {
    /// Of rows and lanes those that are summed over, and the others; and back.
    pub fn of(self, rows: usize, lanes: usize) -> (usize, usize) {
        match self {
            Along::Rows => (rows, lanes),
            Along::Lanes => (lanes, rows),
        }
    }
}

/// The place of an operand in a product A·B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first: its terms are C's rows'.
    A,
    /// The second: its terms are C's lanes'.
    B,
}

/// A matrix as an operand of products that sum along one of its sides: ⌈others/16⌉·16·[`words`] words,
/// where `others` are the values of its other side.
pub struct Operand<'a> {
    /// The side.
    pub along: Along,
    /// The place.
    pub side: Side,
    /// The words.
    pub words: &'a mut [f32],
}

/// A matrix as operands, at most one along each of its sides.
#[derive(Default)]
pub struct Copies<'a>(pub(crate) [Option<Operand<'a>>; 2]);

impl<'a> Copies<'a> {
    /// Along its rows and along its lanes, the words of each.
    pub fn new(rows: (Side, Option<&'a mut [f32]>), lanes: (Side, Option<&'a mut [f32]>)) -> Self {
        let operand = |along, (side, words): (Side, Option<&'a mut [f32]>)| {
            words.map(|words| Operand { along, side, words })
        };
        Self([operand(Along::Rows, rows), operand(Along::Lanes, lanes)])
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

impl<'a> IntoIterator for Copies<'a> {
    type Item = Operand<'a>;
    type IntoIter = Flatten<IntoIter<Option<Operand<'a>>, 2>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

/// `values` ← bf16(`values`), and the same to its `copies`; nothing if there are none.
///
/// # Panics
/// As [`pack`].
pub fn round_and_pack(context: &Context, mut values: PanelsMut, copies: Copies) {
    if copies.is_empty() {
        return;
    }
    round_all(context, values.data());
    for operand in copies {
        pack(context, values.as_ref(), operand);
    }
}

/// The rounded values of `src` as an operand.
///
/// # Panics
/// If it has fewer words than it must.
pub fn pack(context: &Context, src: Panels, operand: Operand) {
    let Operand { along, side, words } = operand;
    let (depth, others) = along.of(src.rows(), src.lanes());
    let part = self::words(depth) * LANES;
    let cost = 2 * src.data().len() / LANES;
    let words = &mut words[..others.div_ceil(LANES) * part];
    context.pool.for_each_part(chunks(words, part.max(1)), cost, |block, out| {
        dispatch(context.isa, Pack { src, along, side, block, out });
    });
}

/// The tiles of 16 rows or lanes.
struct Pack<'a> {
    src: Panels<'a>,
    along: Along,
    side: Side,
    block: usize,
    out: &'a mut [f32],
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Pack { mut src, along, side, block, out } = self;
        for (k, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            pack_tile(s, &mut src, along, side, along.of(k, block), out);
        }
    }
}

/// Where the values of an operand come from.
pub(crate) trait Source {
    /// Rows and lanes, so many of which exist.
    fn end(&self) -> (usize, usize);
    /// 16 lanes, of which those beyond the last may hold anything. Must be `#[inline(always)]`.
    fn load<S: Simd>(&mut self, s: S, row: usize, panel: usize) -> S::F;
}

impl Source for Panels<'_> {
    fn end(&self) -> (usize, usize) {
        (self.rows(), self.lanes())
    }

    #[inline(always)]
    fn load<S: Simd>(&mut self, s: S, row: usize, panel: usize) -> S::F {
        s.load(self.row(row, panel))
    }
}

/// A tile of an operand: along the rows of 32 rows from 32·`row` on of one panel, along the lanes of 16
/// rows from 16·`row` on of two panels from 2·`panel` on.
#[inline(always)]
pub(crate) fn pack_tile<S: Simd>(
    s: S,
    src: &mut impl Source,
    along: Along,
    side: Side,
    (row, panel): (usize, usize),
    out: &mut [f32; TILE],
) {
    let (tile, transposed) = match along {
        Along::Rows => (along_rows(s, src, row, panel), side == Side::A),
        Along::Lanes => (along_lanes(s, src, row, panel), side == Side::B),
    };
    let tile = if transposed { s.transpose(tile) } else { tile };
    for (words, out) in tile.into_iter().zip(out.as_chunks_mut::<LANES>().0) {
        s.store(words, out);
    }
}

/// A tile of words, one vector for each of its rows.
type Tile<S> = [<S as Simd>::F; LANES];

/// Word (i, j) holds rows 2i and 2i + 1, counted from 32·`k`, of lane j of `panel`.
#[inline(always)]
fn along_rows<S: Simd>(s: S, src: &mut impl Source, k: usize, panel: usize) -> Tile<S> {
    let mut tile = [s.splat(0.0); LANES];
    let end = src.end().0;
    for (i, words) in tile.iter_mut().enumerate() {
        let mut halves = [s.splat(0.0); 2];
        for (half, row) in halves.iter_mut().zip(2 * (k * LANES + i)..end) {
            *half = round_lanes(s, src.load(s, row, panel));
        }
        let (first, second) = (s.bits(halves[0]), s.bits(halves[1]));
        *words = s.float(s.xor_u(s.shr_u::<16>(first), second));
    }
    tile
}

/// Word (i, j) holds lanes 2j and 2j + 1, counted from 32·`k`, of row 16·`block` + i.
#[inline(always)]
fn along_lanes<S: Simd>(s: S, src: &mut impl Source, block: usize, k: usize) -> Tile<S> {
    let mut tile = [s.splat(0.0); LANES];
    let (rows, lanes) = src.end();
    let panels = lanes.div_ceil(LANES);
    for (words, row) in tile.iter_mut().zip(block * LANES..rows) {
        let mut both = [0.0; LANES];
        for (half, panel) in both.as_chunks_mut().0.iter_mut().zip(2 * k..panels) {
            let mut values = src.load(s, row, panel);
            let exist = lanes - panel * LANES;
            if exist < LANES {
                // The others would be terms of the sums.
                let mut part = [0.0; LANES];
                s.store(values, &mut part);
                part[exist..].fill(0.0);
                values = s.load(&part);
            }
            s.store_halves(s.bits(round_lanes(s, values)), half);
        }
        *words = s.load(&both);
    }
    tile
}
