//! Counter-based random numbers: a function of (seed, stream, step, index), without state.
//!
//! Any element can be drawn in any order by any thread. The generator is two rounds of
//! multiply-xorshift on the 32-bit index with a 64-bit key; its use is dropout, for which
//! `tests` check the mean, uniformity, and independence across indices, streams and steps.
//! It is not cryptographic.

use crate::simd::{LANES, Simd};

/// The key of one (seed, stream, step): e.g. stream = layer, step = training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    low: u32,
    high: u32,
}

/// The finaliser of SplitMix64 (Steele, Lea & Flood 2014): a bijection that mixes all 64 bits.
fn mix64(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The golden ratio in 64 bits: SplitMix64's increment, which keeps zero inputs apart.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

const MULTIPLIERS: [u32; 2] = [0x7feb_352d, 0x846c_a68b];

impl Key {
    /// The key of (seed, stream, step).
    pub fn new(seed: u64, stream: u64, step: u64) -> Self {
        let key = [seed, stream, step]
            .into_iter()
            .fold(0, |key: u64, part| mix64(key.wrapping_add(GOLDEN).wrapping_add(part)));
        Self { low: key as u32, high: (key >> 32) as u32 }
    }

    /// 32 uniform bits for `index`.
    pub fn bits(self, index: u32) -> u32 {
        let mut x = index.wrapping_add(self.low);
        x = (x ^ (x >> 16)).wrapping_mul(MULTIPLIERS[0]) ^ self.high;
        x = (x ^ (x >> 15)).wrapping_mul(MULTIPLIERS[1]);
        x ^ (x >> 16)
    }

    /// [`Key::bits`] for `index + lane`, lane = 0 … 15.
    #[inline(always)]
    pub(crate) fn bits16<S: Simd>(self, s: S, index: u32) -> S::U {
        const LANE: [u32; LANES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let x = s.add_u(s.load_u(&LANE), s.splat_u(index.wrapping_add(self.low)));
        let x = s.mul_u(s.xor_u(x, s.shr_u::<16>(x)), s.splat_u(MULTIPLIERS[0]));
        let x = s.xor_u(x, s.splat_u(self.high));
        let x = s.mul_u(s.xor_u(x, s.shr_u::<15>(x)), s.splat_u(MULTIPLIERS[1]));
        s.xor_u(x, s.shr_u::<16>(x))
    }
}

/// Inverted dropout: an element is kept with probability 1 − rate and then scaled by
/// 1/(1 − rate), so that the expectation is unchanged and evaluation needs no scaling
/// (the "weight scaling" of Srivastava et al. 2014, moved to training).
///
/// Element (row, lane) of a panel matrix is kept iff the upper 31 bits of
/// `key.bits(row · width + lane)` are below (1 − rate) · 2³¹, rounded: the probability is exact
/// to 2⁻³². `width` is the batch size, which makes the mask independent of padding.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    key: Key,
    threshold: u32,
    scale: f32,
    width: u32,
}

impl Dropout {
    /// Dropout at `rate` for a matrix of `width` lanes.
    ///
    /// # Panics
    /// Unless 0 < rate < 1.
    pub fn new(key: Key, rate: f32, width: usize) -> Self {
        assert!(rate > 0.0 && rate < 1.0, "dropout rate {rate} is not between 0 and 1");
        let keep = 1.0 - f64::from(rate);
        Self {
            key,
            threshold: ((keep * f64::from(1u32 << 31)).round() as u32).min((1 << 31) - 1),
            scale: (1.0 / keep) as f32,
            width: width as u32,
        }
    }

    /// What a kept element is multiplied by: 1/(1 − rate).
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The same mask, by which kept elements stay as they are.
    #[must_use]
    pub fn unscaled(self) -> Self {
        Self { scale: 1.0, ..self }
    }

    /// Lanes of the matrix.
    pub fn width(&self) -> usize {
        self.width as usize
    }

    /// Whether element (row, lane) is kept.
    pub fn keeps(&self, row: usize, lane: usize) -> bool {
        let index = (row as u32).wrapping_mul(self.width).wrapping_add(lane as u32);
        self.key.bits(index) >> 1 < self.threshold
    }

    /// Drops and scales 16 lanes of `row` from lane `lane` on.
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(&self, s: S, row: usize, lane: usize, v: S::F) -> S::F {
        let index = (row as u32).wrapping_mul(self.width).wrapping_add(lane as u32);
        let bits = s.shr_u::<1>(self.key.bits16(s, index));
        let keep = s.lt_u(bits, s.splat_u(self.threshold));
        s.select(keep, s.mul(v, s.splat(self.scale)), s.splat(0.0))
    }
}
