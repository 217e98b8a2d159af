//! AVX-512F: a vector of 16 lanes is one 512-bit register.

use super::{LANES, RegisterTile, Simd};
use crate::isa::Kernel;
use std::arch::asm;
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

/// The mask of the first `lanes` lanes.
#[inline(always)]
fn first(lanes: usize) -> __mmask16 {
    ((1_u32 << lanes.min(LANES)) - 1) as __mmask16
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn run<K: Kernel>(token: Avx512, kernel: K) -> K::Output {
    kernel.run(token)
}

impl Simd for Avx512 {
    type F = __m512;
    type U = __m512i;
    type Mask = __mmask16;

    const TILE: RegisterTile =
        RegisterTile { accumulators: 24, panels: 3, full_rows: 8, spare_registers: true };
    const BESIDE_TILES: bool = true;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the token proves that the CPU has the features.
        unsafe { run(self, kernel) }
    }
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
    fn load_part(self, x: &[f32]) -> __m512 {
        // SAFETY: the mask is that of the values that exist; ISA as above.
        unsafe { _mm512_maskz_loadu_ps(first(x.len()), x.as_ptr()) }
    }
    #[inline(always)]
    fn store_part(self, v: __m512, out: &mut [f32]) {
        // SAFETY: the mask is that of the values that exist; ISA as above.
        unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), first(out.len()), v) }
    }
    #[inline(always)]
    fn load_bytes(self, x: &[u8; LANES]) -> __m512 {
        // SAFETY: `x` holds 16 bytes; ISA as above.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn transpose(self, rows: [__m512; LANES]) -> [__m512; LANES] {
        // The 4 × 4 blocks within each group of four rows: columns[4g + j] has in its 128-bit
        // part p column 4p + j of rows 4g … 4g + 3.
        let mut columns = rows;
        for g in 0..4 {
            let [a, b, c, d] = [rows[4 * g], rows[4 * g + 1], rows[4 * g + 2], rows[4 * g + 3]];
            let (ab_low, ab_high) =
                (call!(_mm512_unpacklo_ps; a, b), call!(_mm512_unpackhi_ps; a, b));
            let (cd_low, cd_high) =
                (call!(_mm512_unpacklo_ps; c, d), call!(_mm512_unpackhi_ps; c, d));
            columns[4 * g] = call!(_mm512_shuffle_ps::<0x44>; ab_low, cd_low);
            columns[4 * g + 1] = call!(_mm512_shuffle_ps::<0xee>; ab_low, cd_low);
            columns[4 * g + 2] = call!(_mm512_shuffle_ps::<0x44>; ab_high, cd_high);
            columns[4 * g + 3] = call!(_mm512_shuffle_ps::<0xee>; ab_high, cd_high);
        }
        // The 4 × 4 grid of 128-bit parts: even and odd parts, twice.
        let mut out = columns;
        for j in 0..4 {
            let [a, b, c, d] = [columns[j], columns[4 + j], columns[8 + j], columns[12 + j]];
            let even = call!(_mm512_shuffle_f32x4::<0x88>; a, b);
            let odd = call!(_mm512_shuffle_f32x4::<0xdd>; a, b);
            let even_below = call!(_mm512_shuffle_f32x4::<0x88>; c, d);
            let odd_below = call!(_mm512_shuffle_f32x4::<0xdd>; c, d);
            out[j] = call!(_mm512_shuffle_f32x4::<0x88>; even, even_below);
            out[4 + j] = call!(_mm512_shuffle_f32x4::<0x88>; odd, odd_below);
            out[8 + j] = call!(_mm512_shuffle_f32x4::<0xdd>; even, even_below);
            out[12 + j] = call!(_mm512_shuffle_f32x4::<0xdd>; odd, odd_below);
        }
        out
    }
    #[inline(always)]
    fn prefetch(self, at: *const f32) {
        call!(_mm_prefetch::<_MM_HINT_T0>; at.cast());
    }
    #[inline(always)]
    fn prefetch_to_write(self, at: *const f32) {
        // SAFETY: every processor with AVX-512 has it; no address makes it fault, and it changes no memory.
        unsafe { asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly)) };
    }
    #[inline(always)]
    fn prefetch_far(self, at: *const f32) {
        call!(_mm_prefetch::<_MM_HINT_T1>; at.cast());
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
    fn flush_below(self, a: __m512, limit: f32) -> __m512 {
        // Three operations where the selection of the trait is five: they share two ports with the
        // multiply-adds. NaN is not less, so it stays.
        let kept = call!(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>; _mm512_abs_ps(a), self.splat(limit));
        call!(_mm512_maskz_mov_ps; kept, a)
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
    fn store_halves(self, a: __m512i, out: &mut [f32; LANES / 2]) {
        let halves = call!(_mm512_cvtepi32_epi16; self.shr_u::<16>(a));
        // SAFETY: `out` holds 16 halves; ISA as above.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), halves) }
    }
    #[inline(always)]
    fn load_u(self, x: &[u32; LANES]) -> __m512i {
        // SAFETY: `x` holds 16 words; ISA as above.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
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
    fn and_u(self, a: __m512i, b: __m512i) -> __m512i {
        call!(_mm512_and_si512; a, b)
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
