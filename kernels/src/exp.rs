//! e^x, vectorised.
//!
//! 1. n = round(x / ln 2), by adding and subtracting 1.5·2²³.
//! 2. r = x − n·ln 2 in two steps (Cody & Waite), |r| ≤ ln 2 / 2.
//! 3. e^r = 1 + (r + r²·q(r)), q of degree 5, minimax in the relative error of e^r (2⁻³³),
//!    its coefficients rounded to f32 one by one from the lowest.
//! 4. times 2ⁿ, in two factors so that results down to the smallest subnormal are right.
//!
//! The error is below [`ULPS`]: the largest over all f32 is 0.9781, at x = 5.227424. The
//! tests and `limbeck verify exp --full` try every value. e^x is 0 below −104, +∞
//! above 88.73 and NaN for NaN.

use crate::isa::{Isa, Kernel, dispatch};
use crate::simd::{LANES, Simd};

/// The bound of the error in units of the spacing of f32 at the result, see [`crate::reference::ulps`].
pub const ULPS: f64 = 0.98;

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// The upper 15 bits of ln 2: n·LN2_HIGH is exact for |n| < 2⁹.
const LN2_HIGH: f32 = 0.693_145_75;
const LN2_LOW: f32 = 1.428_606_8e-6;
const Q: [f32; 6] =
    [0.5, 0.166_666_66, 0.041_666_463, 0.008_333_571, 0.001_393_508_7, 0.000_197_394_85];
/// Adding it leaves round(x) in the low bits of the significand.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// x ← e^x for each value, with the same bits on every ISA.
pub fn exp_in_place(isa: Isa, values: &mut [f32]) {
    dispatch(isa, InPlace(values));
}

struct InPlace<'a>(&'a mut [f32]);

impl Kernel for InPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (vectors, rest) = self.0.as_chunks_mut::<LANES>();
        for x in vectors {
            s.store(exp(s, s.load(x)), x);
        }
        let last = exp(s, s.load_part(rest));
        s.store_part(last, rest);
    }
}

/// e^x for 16 lanes.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // Beyond these bounds the result is already 0 or +∞; NaN passes through `max`'s second operand.
    let x = s.min(s.splat(90.0), s.max(s.splat(-105.0), x));
    let (shifted, p) = reduce(s, x);
    let p = s.add(s.splat(1.0), p);

    // n = n₁ + n₂ with n₁ = ⌊n/2⌋; 2^nᵢ is built from its exponent bits. `shifted` holds
    // n + 2²² in its significand, offset so that both halves come out biased by 127.
    let bits = s.bits(shifted);
    let biased = s.add_u(bits, s.splat_u(254u32.wrapping_sub(ROUND.to_bits())));
    let first = s.shr_u::<1>(biased);
    let second = s.add_u(biased, s.mul_u(first, s.splat_u(u32::MAX)));
    let (first, second) = (s.float(s.shl_u::<23>(first)), s.float(s.shl_u::<23>(second)));
    s.mul(s.mul(p, first), second)
}

/// Steps 1 to 3: n + [`ROUND`], and e^r − 1 = r + r²·q(r).
#[inline(always)]
pub(crate) fn reduce<S: Simd>(s: S, x: S::F) -> (S::F, S::F) {
    let shifted = s.fma(x, s.splat(LOG2_E), s.splat(ROUND));
    let n = s.sub(shifted, s.splat(ROUND));
    let r = s.fma(n, s.splat(-LN2_HIGH), x);
    let r = s.fma(n, s.splat(-LN2_LOW), r);
    let mut q = s.splat(Q[5]);
    for c in [Q[4], Q[3], Q[2], Q[1], Q[0]] {
        q = s.fma(q, r, s.splat(c));
    }
    (shifted, s.fma(s.mul(r, r), q, r))
}
