//! AVX2 with FMA: a vector of 16 lanes is two 256-bit registers.

use super::{LANES, RegisterTile, Simd};
use crate::isa::Kernel;
use std::arch::x86_64::*;

/// Proof that the CPU has AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2 {
    _private: (),
}

impl Avx2 {
    /// The token, if the CPU (and the operating system) support the ISA.
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"))
            .then_some(Self { _private: () })
    }
}

/// 16 × f32.
#[derive(Clone, Copy)]
pub(crate) struct F(__m256, __m256);
/// 16 × u32.
#[derive(Clone, Copy)]
pub(crate) struct U(__m256i, __m256i);

impl Avx2 {
    /// The masks of the first `lanes` lanes.
    #[inline(always)]
    fn first(self, lanes: usize) -> (__m256i, __m256i) {
        let lanes = lanes.min(LANES) as i32;
        // SAFETY: the token `self` exists only where `detect` found AVX2 and FMA.
        unsafe {
            let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            (
                _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), lane),
                _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes - 8), lane),
            )
        }
    }

    /// Columns as rows.
    #[inline(always)]
    fn transpose8(self, rows: [__m256; 8]) -> [__m256; 8] {
        let mut columns = rows;
        for g in [0, 4] {
            let [a, b, c, d] = [rows[g], rows[g + 1], rows[g + 2], rows[g + 3]];
            // SAFETY: the token `self` exists only where `detect` found AVX2 and FMA.
            unsafe {
                let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                columns[g] = _mm256_shuffle_ps::<0x44>(ab_low, cd_low);
                columns[g + 1] = _mm256_shuffle_ps::<0xee>(ab_low, cd_low);
                columns[g + 2] = _mm256_shuffle_ps::<0x44>(ab_high, cd_high);
                columns[g + 3] = _mm256_shuffle_ps::<0xee>(ab_high, cd_high);
            }
        }
        let mut out = columns;
        for j in 0..4 {
            let (above, below) = (columns[j], columns[4 + j]);
            // SAFETY: as above.
            unsafe {
                out[j] = _mm256_permute2f128_ps::<0x20>(above, below);
                out[4 + j] = _mm256_permute2f128_ps::<0x31>(above, below);
            }
        }
        out
    }
}

/// Applies an intrinsic to both halves.
macro_rules! halves {
    ($wrap:ident, $intrinsic:path; $($x:expr),+) => {
        // SAFETY: the token `self` exists only where `detect` found AVX2 and FMA.
        unsafe { $wrap($intrinsic($($x.0),+), $intrinsic($($x.1),+)) }
    };
}

#[target_feature(enable = "avx2,fma")]
fn run<K: Kernel>(token: Avx2, kernel: K) -> K::Output {
    kernel.run(token)
}

impl Simd for Avx2 {
    type F = F;
    type U = U;
    type Mask = F;

    const TILE: RegisterTile =
        RegisterTile { accumulators: 6, panels: 1, full_rows: 1, spare_registers: false };

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the token proves that the CPU has the features.
        unsafe { run(self, kernel) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> F {
        // SAFETY: the token `self` exists only where `detect` found AVX2 and FMA.
        let v = unsafe { _mm256_set1_ps(x) };
        F(v, v)
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F {
        // SAFETY: `x` holds 16 values, so both halves are in bounds; ISA as above.
        unsafe { F(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) }
    }
    #[inline(always)]
    fn store(self, v: F, out: &mut [f32; LANES]) {
        // SAFETY: `out` holds 16 values, so both halves are in bounds; ISA as above.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), v.0);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), v.1);
        }
    }
    #[inline(always)]
    fn load_part(self, x: &[f32]) -> F {
        let (low, high) = self.first(x.len());
        let at = x.as_ptr();
        // SAFETY: the masks are those of the values that exist; ISA as above.
        unsafe { F(_mm256_maskload_ps(at, low), _mm256_maskload_ps(at.wrapping_add(8), high)) }
    }
    #[inline(always)]
    fn store_part(self, v: F, out: &mut [f32]) {
        let (low, high) = self.first(out.len());
        let at = out.as_mut_ptr();
        // SAFETY: the masks are those of the values that exist; ISA as above.
        unsafe {
            _mm256_maskstore_ps(at, low, v.0);
            _mm256_maskstore_ps(at.wrapping_add(8), high, v.1);
        }
    }
    #[inline(always)]
    fn load_bytes(self, x: &[u8; LANES]) -> F {
        // SAFETY: `x` holds 16 bytes; ISA as above.
        unsafe {
            let bytes = _mm_loadu_si128(x.as_ptr().cast());
            let high = _mm_unpackhi_epi64(bytes, bytes);
            F(
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(high)),
            )
        }
    }
    #[inline(always)]
    fn transpose(self, rows: [F; LANES]) -> [F; LANES] {
        // Four blocks of 8 × 8; those off the diagonal change places.
        let mut out = rows;
        let (mut upper, mut lower) = ([rows[0].0; 8], [rows[0].0; 8]);
        for i in 0..8 {
            (upper[i], lower[i]) = (rows[i].0, rows[8 + i].0);
        }
        (upper, lower) = (self.transpose8(upper), self.transpose8(lower));
        for i in 0..8 {
            out[i] = F(upper[i], lower[i]);
        }
        for i in 0..8 {
            (upper[i], lower[i]) = (rows[i].1, rows[8 + i].1);
        }
        (upper, lower) = (self.transpose8(upper), self.transpose8(lower));
        for i in 0..8 {
            out[8 + i] = F(upper[i], lower[i]);
        }
        out
    }
    #[inline(always)]
    fn prefetch(self, at: *const f32) {
        // SAFETY: the token `self` exists only where `detect` found AVX2 and FMA.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        halves!(F, _mm256_add_ps; a, b)
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        halves!(F, _mm256_sub_ps; a, b)
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        halves!(F, _mm256_mul_ps; a, b)
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        halves!(F, _mm256_div_ps; a, b)
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        halves!(F, _mm256_fmadd_ps; a, b, c)
    }
    #[inline(always)]
    fn sqrt(self, a: F) -> F {
        halves!(F, _mm256_sqrt_ps; a)
    }
    #[inline(always)]
    fn gt(self, a: F, b: F) -> F {
        halves!(F, _mm256_cmp_ps::<_CMP_GT_OQ>; a, b)
    }
    #[inline(always)]
    fn select(self, mask: F, a: F, b: F) -> F {
        halves!(F, _mm256_blendv_ps; b, a, mask)
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        halves!(F, _mm256_max_ps; a, b)
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        halves!(F, _mm256_min_ps; a, b)
    }

    #[inline(always)]
    fn all_finite(self, a: F) -> bool {
        // x − x is 0 for finite x, else NaN.
        let d = self.sub(a, a);
        // SAFETY: the token `self` exists only where `detect` found AVX2 and FMA.
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(d.0, d.1)) == 0 }
    }

    #[inline(always)]
    fn bits(self, a: F) -> U {
        halves!(U, _mm256_castps_si256; a)
    }
    #[inline(always)]
    fn float(self, a: U) -> F {
        halves!(F, _mm256_castsi256_ps; a)
    }
    #[inline(always)]
    fn splat_u(self, x: u32) -> U {
        // SAFETY: the token `self` exists only where `detect` found AVX2 and FMA.
        let v = unsafe { _mm256_set1_epi32(x as i32) };
        U(v, v)
    }
    #[inline(always)]
    fn store_halves(self, a: U, out: &mut [f32; LANES / 2]) {
        let U(low, high) = self.shr_u::<16>(a);
        // SAFETY: `out` holds 16 halves; ISA as above.
        unsafe {
            let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low, high));
            _mm256_storeu_si256(out.as_mut_ptr().cast(), halves);
        }
    }
    #[inline(always)]
    fn load_u(self, x: &[u32; LANES]) -> U {
        // SAFETY: `x` holds 16 words, so both halves are in bounds; ISA as above.
        unsafe {
            U(_mm256_loadu_si256(x.as_ptr().cast()), _mm256_loadu_si256(x.as_ptr().add(8).cast()))
        }
    }
    #[inline(always)]
    fn add_u(self, a: U, b: U) -> U {
        halves!(U, _mm256_add_epi32; a, b)
    }
    #[inline(always)]
    fn mul_u(self, a: U, b: U) -> U {
        halves!(U, _mm256_mullo_epi32; a, b)
    }
    #[inline(always)]
    fn and_u(self, a: U, b: U) -> U {
        halves!(U, _mm256_and_si256; a, b)
    }
    #[inline(always)]
    fn xor_u(self, a: U, b: U) -> U {
        halves!(U, _mm256_xor_si256; a, b)
    }
    #[inline(always)]
    fn shl_u<const N: u32>(self, a: U) -> U {
        // SAFETY: the token `self` exists only where `detect` found AVX2 and FMA.
        unsafe {
            let n = _mm_cvtsi32_si128(N as i32);
            U(_mm256_sll_epi32(a.0, n), _mm256_sll_epi32(a.1, n))
        }
    }
    #[inline(always)]
    fn shr_u<const N: u32>(self, a: U) -> U {
        // SAFETY: the token `self` exists only where `detect` found AVX2 and FMA.
        unsafe {
            let n = _mm_cvtsi32_si128(N as i32);
            U(_mm256_srl_epi32(a.0, n), _mm256_srl_epi32(a.1, n))
        }
    }
    #[inline(always)]
    fn lt_u(self, a: U, b: U) -> F {
        self.float(halves!(U, _mm256_cmpgt_epi32; b, a))
    }
}
