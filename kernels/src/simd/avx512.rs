//! AVX-512F: a vector of 16 lanes is one 512-bit register.

use super::{LANES, Simd};
use std::arch::x86_64::*;

/// Proof that the CPU has AVX-512F, and with it AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx512 {
    _private: (),
}

impl Avx512 {
    /// The token, if the CPU (and the operating system) support the ISA.
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma"))
        .then_some(Self { _private: () })
    }
}

/// Calls an intrinsic.
macro_rules! call {
    ($intrinsic:path; $($x:expr),*) => {
        // SAFETY: the token `self` exists only where `detect` found AVX-512F.
        unsafe { $intrinsic($($x),*) }
    };
}

impl Simd for Avx512 {
    type F = __m512;
    type U = __m512i;
    type Mask = __mmask16;

    const MR: usize = 16;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        call!(_mm512_set1_ps; x)
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        // SAFETY: `x` holds 16 values; ISA as above.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32; LANES]) {
        // SAFETY: `out` holds 16 values; ISA as above.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        call!(_mm512_add_ps; a, b)
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        call!(_mm512_sub_ps; a, b)
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        call!(_mm512_mul_ps; a, b)
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        call!(_mm512_div_ps; a, b)
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        call!(_mm512_fmadd_ps; a, b, c)
    }
    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        call!(_mm512_sqrt_ps; a)
    }
    #[inline(always)]
    fn gt(self, a: __m512, b: __m512) -> __mmask16 {
        call!(_mm512_cmp_ps_mask::<_CMP_GT_OQ>; a, b)
    }
    #[inline(always)]
    fn select(self, mask: __mmask16, a: __m512, b: __m512) -> __m512 {
        call!(_mm512_mask_blend_ps; mask, b, a)
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        call!(_mm512_max_ps; a, b)
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        call!(_mm512_min_ps; a, b)
    }

    #[inline(always)]
    fn all_finite(self, a: __m512) -> bool {
        // x − x is 0 for finite x, else NaN.
        let d = self.sub(a, a);
        call!(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>; d, d) == 0
    }

    #[inline(always)]
    fn bits(self, a: __m512) -> __m512i {
        call!(_mm512_castps_si512; a)
    }
    #[inline(always)]
    fn float(self, a: __m512i) -> __m512 {
        call!(_mm512_castsi512_ps; a)
    }
    #[inline(always)]
    fn splat_u(self, x: u32) -> __m512i {
        call!(_mm512_set1_epi32; x as i32)
    }
    #[inline(always)]
    fn load_u(self, x: &[u32; LANES]) -> __m512i {
        // SAFETY: `x` holds 16 words; ISA as above.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store_u(self, v: __m512i, out: &mut [u32; LANES]) {
        // SAFETY: `out` holds 16 words; ISA as above.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) }
    }
    #[inline(always)]
    fn add_u(self, a: __m512i, b: __m512i) -> __m512i {
        call!(_mm512_add_epi32; a, b)
    }
    #[inline(always)]
    fn mul_u(self, a: __m512i, b: __m512i) -> __m512i {
        call!(_mm512_mullo_epi32; a, b)
    }
    #[inline(always)]
    fn xor_u(self, a: __m512i, b: __m512i) -> __m512i {
        call!(_mm512_xor_si512; a, b)
    }
    #[inline(always)]
    fn shl_u<const N: u32>(self, a: __m512i) -> __m512i {
        call!(_mm512_slli_epi32::<N>; a)
    }
    #[inline(always)]
    fn shr_u<const N: u32>(self, a: __m512i) -> __m512i {
        call!(_mm512_srli_epi32::<N>; a)
    }
    #[inline(always)]
    fn lt_u(self, a: __m512i, b: __m512i) -> __mmask16 {
        call!(_mm512_cmplt_epi32_mask; a, b)
    }
}
