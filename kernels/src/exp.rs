//! e^x, vectorised.
//!
//! 1. n = round(x / ln 2), by adding and subtracting 1.5·2²³.
//! 2. r = x − n·ln 2 in two steps (Cody & Waite), |r| ≤ ln 2 / 2.
//! 3. e^r = 1 + (r + r²·q(r)), q of degree 5, minimax in the relative error of e^r (2⁻³³),
//!    its coefficients rounded to f32 one by one from the lowest.
//! 4. times 2ⁿ, in two factors so that results down to the smallest subnormal are right.
//!
//! The error is below [`ULPS`]: the largest over all f32 is 0.9781, at x = 5.227424. The test
//! below and `limbeck verify exp --full` try every value. e^x is 0 below −104, +∞
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
const ROUND: f32 = 12_582_912.0;

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
    let shifted = s.fma(x, s.splat(LOG2_E), s.splat(ROUND));
    let n = s.sub(shifted, s.splat(ROUND));
    let r = s.fma(n, s.splat(-LN2_HIGH), x);
    let r = s.fma(n, s.splat(-LN2_LOW), r);

    let mut q = s.splat(Q[5]);
    for c in [Q[4], Q[3], Q[2], Q[1], Q[0]] {
        q = s.fma(q, r, s.splat(c));
    }
    let p = s.add(s.splat(1.0), s.fma(s.mul(r, r), q, r));

    // n = n₁ + n₂ with n₁ = ⌊n/2⌋; 2^nᵢ is built from its exponent bits. `shifted` holds
    // n + 2²² in its significand, offset so that both halves come out biased by 127.
    let bits = s.bits(shifted);
    let biased = s.add_u(bits, s.splat_u(254u32.wrapping_sub(ROUND.to_bits())));
    let first = s.shr_u::<1>(biased);
    let second = s.add_u(biased, s.mul_u(first, s.splat_u(u32::MAX)));
    let (first, second) = (s.float(s.shl_u::<23>(first)), s.float(s.shl_u::<23>(second)));
    s.mul(s.mul(p, first), second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Context;
    use crate::reference::ulps;
    use std::sync::Mutex;

    fn exp_of(isa: Isa, mut x: [f32; LANES]) -> [f32; LANES] {
        exp_in_place(isa, &mut x);
        x
    }

    /// e^x in f64, with an error far below an ULP of f32; 2¹²⁸ where f32 has infinity.
    fn oracle(x: f32) -> f64 {
        let x = f64::from(x);
        if x.abs() < 2f64.powi(-20) {
            // The next term is below 2⁻⁶² of the sum.
            1.0 + x * (1.0 + x / 2.0)
        } else if x > 89.0 {
            2f64.powi(128)
        } else if x < -150.0 {
            0.0
        } else {
            x.exp()
        }
    }

    /// The largest error of 16 arguments, with its argument; NaN must give NaN.
    fn worst(isa: Isa, x: [f32; LANES]) -> (f64, f32) {
        let mut worst = (0.0, 0.0);
        for (x, got) in x.into_iter().zip(exp_of(isa, x)) {
            if x.is_nan() {
                assert!(got.is_nan(), "exp({x}) = {got} on {isa}");
                continue;
            }
            let error = ulps(oracle(x), got);
            assert!(error < ULPS, "exp({x:e}) = {got:e} on {isa}: {error} ULP");
            if error > worst.0 {
                worst = (error, x);
            }
        }
        worst
    }

    #[test]
    fn error_is_below_the_documented_bound_everywhere() {
        // All 2³² arguments on the best ISA; that the others give the same bits is sampled below.
        let context = Context::new(Isa::best(), 2).unwrap();
        let found = Mutex::new((0.0, 0.0));
        const TASK: u32 = 1 << 20;
        context.pool.for_each(1 << 12, usize::MAX, |task| {
            let mut here = (0.0, 0.0);
            for first in (0..TASK).step_by(LANES) {
                let first = task as u32 * TASK + first;
                let x = std::array::from_fn(|i| f32::from_bits(first + i as u32));
                let error = worst(context.isa, x);
                if error.0 > here.0 {
                    here = error;
                }
            }
            let mut found = found.lock().unwrap();
            if here.0 > found.0 {
                *found = here;
            }
        });
        let (error, x) = found.into_inner().unwrap();
        // What the module's documentation says.
        assert_eq!((format!("{error:.4}"), x), ("0.9781".into(), 5.227424));
    }

    #[test]
    fn the_same_bits_on_every_isa() {
        for first in (0..u32::MAX - 16).step_by(16_001) {
            let x = std::array::from_fn(|i| f32::from_bits(first + i as u32));
            let want = exp_of(Isa::Portable, x);
            for isa in Isa::available() {
                for (want, got) in want.into_iter().zip(exp_of(isa, x)) {
                    assert!(want.to_bits() == got.to_bits() || want.is_nan() && got.is_nan());
                }
            }
        }
    }

    #[test]
    fn special_values() {
        let smallest = f32::from_bits(1);
        let cases = [
            (0.0, 1.0),
            (-0.0, 1.0),
            (smallest, 1.0),
            (1.0, std::f32::consts::E),
            // e^x is 1.009·2⁻¹⁴⁹ and 0.496·2⁻¹⁴⁹: the smallest subnormal, and nothing.
            (-103.27, smallest),
            (-103.98, 0.0),
            (-104.0, 0.0),
            (-1e30, 0.0),
            (f32::NEG_INFINITY, 0.0),
            // The smallest argument with e^x ≥ 2¹²⁸.
            (f32::from_bits(0x42b1_7218), f32::INFINITY),
            (1e30, f32::INFINITY),
            (f32::INFINITY, f32::INFINITY),
        ];
        for isa in Isa::available() {
            for (x, want) in cases {
                let got = exp_of(isa, [x; LANES]);
                assert_eq!(got, [want; LANES], "exp({x}) on {isa}");
            }
            assert!(exp_of(isa, [f32::from_bits(0x42b1_7217); LANES])[0].is_finite());
            assert!(exp_of(isa, [f32::NAN; LANES]).iter().all(|y| y.is_nan()));
        }
    }
}
