//! Every other machine, by `wide` (SSE2 on old x86, NEON on aarch64).
//!
//! `wide` rounds twice in `mul_add` where the compile target has no fused multiply-add. The
//! numerical contract needs one rounding, so there the sum is computed in f64, rounded to odd,
//! and only then to f32, which is exact (Boldo & Melquiond 2008) and slow: bits before speed.

use super::{LANES, RegisterTile, Simd};
use crate::isa::Kernel;
use wide::{f32x16, u32x16};

/// The token of the portable backend; needs no proof.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

/// Whether `wide`'s `mul_add` rounds once on the compile target.
const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// `a·b + c` rounded once, with f64 arithmetic.
///
/// The product of two f32 is exact in f64 (24 + 24 ≤ 53 bits). Knuth's two-sum gives the
/// rounding error of the f64 sum; where it is not zero the sum is moved to its odd neighbour
/// on the error's side. 53 ≥ 24 + 2 bits, so rounding the odd value to f32 equals rounding the
/// exact one.
#[inline(always)]
fn fused_multiply_add(a: f32, b: f32, c: f32) -> f32 {
    let (p, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let s = p + c;
    let t = s - p;
    let error = (p - (s - t)) + (c - t);
    let bits = s.to_bits();
    // NaN and ±0 errors compare false: overflow, NaN and exact sums stay as they are.
    let inexact = u64::from(error > 0.0) | u64::from(error < 0.0);
    let toward_zero = u64::from((error > 0.0) != (s > 0.0));
    let even = !bits & 1;
    f64::from_bits(
        bits.wrapping_add(inexact & even).wrapping_sub((inexact & even & toward_zero) << 1),
    ) as f32
}

impl Simd for Portable {
    type F = f32x16;
    type U = u32x16;
    type Mask = f32x16;

    const TILE: RegisterTile =
        RegisterTile { accumulators: 4, panels: 1, full_rows: 1, spare_registers: false };

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
    #[inline(always)]
    fn splat(self, x: f32) -> f32x16 {
        f32x16::splat(x)
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> f32x16 {
        f32x16::new(*x)
    }
    #[inline(always)]
    fn store(self, v: f32x16, out: &mut [f32; LANES]) {
        *out = v.to_array();
    }
    #[inline(always)]
    fn load_part(self, x: &[f32]) -> f32x16 {
        let mut edge = [0.0; LANES];
        let width = x.len().min(LANES);
        edge[..width].copy_from_slice(&x[..width]);
        f32x16::new(edge)
    }
    #[inline(always)]
    fn store_part(self, v: f32x16, out: &mut [f32]) {
        let width = out.len().min(LANES);
        out[..width].copy_from_slice(&v.to_array()[..width]);
    }
    #[inline(always)]
    fn load_bytes(self, x: &[u8; LANES]) -> f32x16 {
        f32x16::new(x.map(f32::from))
    }
    #[inline(always)]
    fn transpose(self, rows: [f32x16; LANES]) -> [f32x16; LANES] {
        let rows = rows.map(|row| row.to_array());
        std::array::from_fn(|j| f32x16::new(std::array::from_fn(|i| rows[i][j])))
    }
    #[inline(always)]
    fn prefetch(self, _: *const f32) {}
    #[inline(always)]
    fn add(self, a: f32x16, b: f32x16) -> f32x16 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f32x16, b: f32x16) -> f32x16 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f32x16, b: f32x16) -> f32x16 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f32x16, b: f32x16) -> f32x16 {
        a / b
    }
    #[inline(always)]
    fn fma(self, a: f32x16, b: f32x16, c: f32x16) -> f32x16 {
        if FUSED {
            return a.mul_add(b, c);
        }
        let (a, b, c) = (a.to_array(), b.to_array(), c.to_array());
        f32x16::new(std::array::from_fn(|i| fused_multiply_add(a[i], b[i], c[i])))
    }
    #[inline(always)]
    fn add_exact_product(self, a: f32x16, b: f32x16, c: f32x16) -> f32x16 {
        if FUSED { a.mul_add(b, c) } else { a * b + c }
    }
    #[inline(always)]
    fn sqrt(self, a: f32x16) -> f32x16 {
        a.sqrt()
    }
    #[inline(always)]
    fn gt(self, a: f32x16, b: f32x16) -> f32x16 {
        a.simd_gt(b)
    }
    #[inline(always)]
    fn select(self, mask: f32x16, a: f32x16, b: f32x16) -> f32x16 {
        mask.bitselect(a, b)
    }
    #[inline(always)]
    fn max(self, a: f32x16, b: f32x16) -> f32x16 {
        self.select(a.simd_gt(b), a, b)
    }
    #[inline(always)]
    fn min(self, a: f32x16, b: f32x16) -> f32x16 {
        self.select(a.simd_lt(b), a, b)
    }

    #[inline(always)]
    fn all_finite(self, a: f32x16) -> bool {
        a.to_array().into_iter().all(f32::is_finite)
    }

    #[inline(always)]
    fn bits(self, a: f32x16) -> u32x16 {
        u32x16::new(a.to_array().map(f32::to_bits))
    }
    #[inline(always)]
    fn float(self, a: u32x16) -> f32x16 {
        f32x16::new(a.to_array().map(f32::from_bits))
    }
    #[inline(always)]
    fn splat_u(self, x: u32) -> u32x16 {
        u32x16::splat(x)
    }
    #[inline(always)]
    fn store_halves(self, a: u32x16, out: &mut [f32; LANES / 2]) {
        for (out, [low, high]) in out.iter_mut().zip(a.to_array().as_chunks().0) {
            *out = f32::from_bits(low >> 16 | high & 0xffff_0000);
        }
    }
    #[inline(always)]
    fn load_u(self, x: &[u32; LANES]) -> u32x16 {
        u32x16::new(*x)
    }
    #[inline(always)]
    fn add_u(self, a: u32x16, b: u32x16) -> u32x16 {
        a + b
    }
    #[inline(always)]
    fn mul_u(self, a: u32x16, b: u32x16) -> u32x16 {
        a * b
    }
    #[inline(always)]
    fn and_u(self, a: u32x16, b: u32x16) -> u32x16 {
        a & b
    }
    #[inline(always)]
    fn xor_u(self, a: u32x16, b: u32x16) -> u32x16 {
        a ^ b
    }
    #[inline(always)]
    fn shl_u<const N: u32>(self, a: u32x16) -> u32x16 {
        a << N
    }
    #[inline(always)]
    fn shr_u<const N: u32>(self, a: u32x16) -> u32x16 {
        a >> N
    }
    #[inline(always)]
    fn lt_u(self, a: u32x16, b: u32x16) -> f32x16 {
        self.float(a.simd_lt(b))
    }
}

#[cfg(test)]
mod tests {
    use super::fused_multiply_add;
    use proptest::prelude::*;

    proptest! {
        /// Against the standard library's correctly rounded `mul_add`, over all bit patterns.
        #[test]
        fn rounds_once(a: u32, b: u32, c: u32, near in -2i32..=2) {
            let (a, b, c) = (f32::from_bits(a), f32::from_bits(b), f32::from_bits(c));
            // The second addend nearly cancels the product: the hard case for rounding.
            for c in [c, f32::from_bits((-(a * b)).to_bits().wrapping_add_signed(near))] {
                let (got, want) = (fused_multiply_add(a, b, c), a.mul_add(b, c));
                prop_assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                    "{a:e}·{b:e} + {c:e}: {got:e}, expected {want:e}");
            }
        }
    }

    #[test]
    fn resolves_ties_by_the_part_that_f64_drops() {
        // 1 + 2⁻²⁴ is halfway between two f32; 2⁻⁸⁰ below f64's reach decides.
        let tiny = 2f32.powi(-40);
        for sign in [1.0, -1.0] {
            let a = 1.0 + 2f32.powi(-12);
            let got = fused_multiply_add(tiny * sign, tiny, a * a);
            assert_eq!(got.to_bits(), (tiny * sign).mul_add(tiny, a * a).to_bits());
        }
    }
}
