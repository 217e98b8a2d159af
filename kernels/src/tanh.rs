//! tanh x, vectorised.
//!
//! 1. y = −2·|x|, exact; beyond |x| = 10 the result is ±1.
//! 2. n and e^r − 1 of y = n·ln 2 + r, as in [`crate::exp`].
//! 3. t = e^y − 1 = 2ⁿ·(e^r − 1) + (2ⁿ − 1), one fused multiply-add. Nothing cancels: t keeps the
//!    relative precision of e^r − 1 down to the smallest |x|.
//! 4. tanh|x| = −t / (t + 2), then the sign of x.
//!
//! Odd, |tanh x| ≤ 1, tanh(±0) = ±0, and NaN for NaN.
//!
//! The error is below [`ULPS`]: the largest over all f32 is 2.4984, at x = ±4.5050907, where t + 2
//! and the quotient are just above and below a power of two. A bound by analysis, with ε = 2⁻²⁴:
//! e^r − 1 has at most the relative error 2.6 ε (of r, of r²·q, of their sum), step 3 adds ε,
//! −t/(t + 2) passes it on times 2/(t + 2) ≤ 1.2 where it counts (n ≥ −1; below, 2ⁿ shrinks it), and
//! step 4 rounds twice: 6.4 ε.

use crate::exp::{ROUND, reduce};
use crate::isa::{Isa, Kernel, dispatch};
use crate::simd::{LANES, Simd};

/// The bound of the error in units of the spacing of f32 at the result, see [`crate::reference::ulps`].
pub const ULPS: f64 = 2.5;

/// x ← tanh x for each value, with the same bits on every ISA.
pub fn tanh_in_place(isa: Isa, values: &mut [f32]) {
    dispatch(isa, InPlace(values));
}

struct InPlace<'a>(&'a mut [f32]);

impl Kernel for InPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (vectors, rest) = self.0.as_chunks_mut::<LANES>();
        for x in vectors {
            s.store(tanh(s, s.load(x)), x);
        }
        let last = tanh(s, s.load_part(rest));
        s.store_part(last, rest);
    }
}

/// tanh x for 16 lanes.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let sign = s.shl_u::<31>(s.shr_u::<31>(s.bits(x)));
    let size = s.float(s.xor_u(s.bits(x), sign));
    // NaN is `min`'s second operand and passes.
    let y = s.mul(s.splat(-2.0), s.min(s.splat(10.0), size));
    let (shifted, p) = reduce(s, y);
    // −29 ≤ n ≤ 0, so 2ⁿ is normal; its exponent bits are n + 127.
    let biased = s.add_u(s.bits(shifted), s.splat_u(127u32.wrapping_sub(ROUND.to_bits())));
    let power = s.float(s.shl_u::<23>(biased));
    let t = s.fma(power, p, s.sub(power, s.splat(1.0)));
    let size = s.div(s.sub(s.splat(0.0), t), s.add(t, s.splat(2.0)));
    s.float(s.xor_u(s.bits(size), sign))
}
