//! The vector operations the kernels are written in, and no more.
//!
//! A vector has **16 lanes on every ISA** (one zmm, two ymm, or `wide`'s emulation), so a
//! reduction groups its terms the same way everywhere. Together with a correctly rounded
//! fused multiply-add this is what makes the results bit-identical across ISAs.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod portable;

use crate::isa::Kernel;

/// 2⁻¹⁰⁰: gradients and first moments below it count as 0. What they would add to a parameter, with
/// every learning rate and Adam's ε of use, is far below its last bit.
pub(crate) const NEGLIGIBLE: f32 = f32::from_bits((127 - 100) << 23);

/// Lanes of a vector, and the width of a panel (see [`crate::matrix::Panels`]).
pub const LANES: usize = 16;

/// The tile of C whose sums one ISA keeps in registers, in vectors of 16 lanes.
#[derive(Clone, Copy, Debug)]
pub struct RegisterTile {
    /// Sums at once: rows × panels, as many as the registers hold beside the operands.
    pub accumulators: usize,
    /// Most panels that it is wide.
    pub panels: usize,
    /// Fewest rows of a tile that is compiled together with each epilogue. A lower one, which an edge
    /// leaves over, is compiled once.
    pub full_rows: usize,
    /// Whether registers are left for other work between the multiply-adds.
    pub spare_registers: bool,
}

/// Sixteen lanes of f32 and u32 arithmetic on one ISA.
///
/// The implementor is a proof token: it can only be made where the ISA was detected
/// (see [`crate::isa`]). Every method is one `#[inline(always)]` line of intrinsics and must be
/// reached from a `#[target_feature]` trampoline of [`crate::isa`], or it is slow.
pub trait Simd: Copy + Send + Sync + 'static {
    /// 16 × f32.
    type F: Copy;
    /// 16 × u32.
    type U: Copy;
    /// 16 lane conditions.
    type Mask: Copy;

    /// The microtile of the products.
    const TILE: RegisterTile;
    /// Whether the processors with tiles ([`crate::amx`]) have it too, and run it beside them.
    const BESIDE_TILES: bool = false;

    /// Runs `kernel` in a function of its own, compiled for the ISA.
    fn call<K: Kernel>(self, kernel: K) -> K::Output;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F;
    /// Loads 16 consecutive values.
    fn load(self, x: &[f32; LANES]) -> Self::F;
    /// Stores 16 consecutive values.
    fn store(self, v: Self::F, out: &mut [f32; LANES]);
    /// Loads at most 16 consecutive values, and zeros for the rest.
    fn load_part(self, x: &[f32]) -> Self::F;
    /// Stores as many values as `out` holds, at most 16.
    fn store_part(self, v: Self::F, out: &mut [f32]);
    /// 16 bytes as numbers 0 … 255.
    fn load_bytes(self, x: &[u8; LANES]) -> Self::F;
    /// Columns as rows: lane j of vector i becomes lane i of vector j.
    fn transpose(self, rows: [Self::F; LANES]) -> [Self::F; LANES];
    /// Asks for the cache line at `at`, which need not exist, in the level-1 cache.
    fn prefetch(self, at: *const f32);
    /// The same for a line that is to be written, where the ISA can say so: no other core then holds it when
    /// the store comes.
    #[inline(always)]
    fn prefetch_to_write(self, at: *const f32) {
        self.prefetch(at);
    }
    /// The same as [`Simd::prefetch`] in the level-2 cache, where the ISA can say so.
    #[inline(always)]
    fn prefetch_far(self, at: *const f32) {
        self.prefetch(at);
    }
    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a − b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`, correctly rounded.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c` with one rounding.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a · b + c` with one rounding, where `a · b` is an f32: no fused multiply-add is needed. Where it
    /// overflows, the sum of it is infinite without one and may be finite with one.
    #[inline(always)]
    fn add_exact_product(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        self.fma(a, b, c)
    }
    /// `√a`, correctly rounded.
    fn sqrt(self, a: Self::F) -> Self::F;
    /// `a > b`, false for NaN.
    fn gt(self, a: Self::F, b: Self::F) -> Self::Mask;
    /// `if mask { a } else { b }`.
    fn select(self, mask: Self::Mask, a: Self::F, b: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`: when either is NaN, `b`.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a < b { a } else { b }`: when either is NaN, `b`.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;

    /// Whether no lane is infinite or NaN.
    fn all_finite(self, a: Self::F) -> bool;

    /// The bit patterns of `a`.
    fn bits(self, a: Self::F) -> Self::U;
    /// The floats with bit patterns `a`.
    fn float(self, a: Self::U) -> Self::F;
    /// All lanes `x`.
    fn splat_u(self, x: u32) -> Self::U;
    /// Stores the upper halves of the lanes, those of lanes 2i and 2i + 1 as the bits of value i.
    fn store_halves(self, a: Self::U, out: &mut [f32; LANES / 2]);
    /// Loads 16 consecutive words.
    fn load_u(self, x: &[u32; LANES]) -> Self::U;
    /// Wrapping `a + b`.
    fn add_u(self, a: Self::U, b: Self::U) -> Self::U;
    /// Wrapping `a · b`.
    fn mul_u(self, a: Self::U, b: Self::U) -> Self::U;
    /// `a & b`.
    fn and_u(self, a: Self::U, b: Self::U) -> Self::U;
    /// `a ^ b`.
    fn xor_u(self, a: Self::U, b: Self::U) -> Self::U;
    /// `a << N`.
    fn shl_u<const N: u32>(self, a: Self::U) -> Self::U;
    /// `a >> N`, zeros shifted in.
    fn shr_u<const N: u32>(self, a: Self::U) -> Self::U;
    /// `a < b` for values below 2³¹ (compared as signed integers).
    fn lt_u(self, a: Self::U, b: Self::U) -> Self::Mask;

    /// `a`, and 0 where |a| < `limit`; NaN stays.
    ///
    /// With a `limit` far above 2⁻¹²⁶, values that fade away never become subnormal, with which some
    /// processors compute far more slowly.
    #[inline(always)]
    fn flush_below(self, a: Self::F, limit: f32) -> Self::F {
        let zero = self.splat(0.0);
        let size = self.max(a, self.sub(zero, a));
        self.select(self.gt(self.splat(limit), size), zero, a)
    }

    /// The sum of the lanes by a fixed tree: lane i with i+8, then i+4, i+2, i+1.
    #[inline(always)]
    fn reduce_add(self, v: Self::F) -> f32 {
        self.reduce(v, |a, b| a + b)
    }

    /// The maximum of the lanes; NaN lanes are ignored unless all are NaN.
    #[inline(always)]
    fn reduce_max(self, v: Self::F) -> f32 {
        self.reduce(v, f32::max)
    }

    /// Combines the lanes by the fixed tree of [`Simd::reduce_add`].
    #[inline(always)]
    fn reduce(self, v: Self::F, combine: impl Fn(f32, f32) -> f32) -> f32 {
        let mut x = [0.0; LANES];
        self.store(v, &mut x);
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                x[i] = combine(x[i], x[i + half]);
            }
            half /= 2;
        }
        x[0]
    }
}
