//! The source of every random bit of this crate.
//!
//! (seed, purpose, index) selects one ChaCha8 keystream: the 32-byte key is
//! `"limbeck\0" ‖ seed ‖ purpose ‖ 0` and the 64-bit stream number is the index (an epoch or an
//! example), integers little-endian. Different triples are different pairs of key and stream, whose
//! keystreams never overlap. Only raw 32- and 64-bit words are taken from the generator: no change
//! in `rand`'s distributions can change a bit.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The purpose of a keystream.
#[derive(Clone, Copy)]
pub enum Purpose {
    /// The order of an epoch; index = epoch.
    Shuffle = 1,
    /// The shifts of an epoch; index = epoch.
    Jitter = 2,
    /// The drawing of a training digit; index = example.
    GlyphsTrain = 3,
    /// The drawing of a test digit; index = example.
    GlyphsTest = 4,
    /// A writer's style; index = writer.
    WriterStyle = 5,
    /// The drawing of a training example of a writer; index = example.
    WritersTrain = 6,
    /// The drawing of a test example of a writer; index = example.
    WritersTest = 7,
    /// Synthetic training frames; index 0.
    FramesTrain = 8,
    /// Synthetic test frames; index 0.
    FramesTest = 9,
    /// The centre of a state of synthetic frames; index = state.
    FramesState = 10,
    /// The examples of a class that are held out; index = class.
    HoldOut = 11,
    /// The views of an epoch's images; index = epoch.
    Views = 12,
}

/// The keystream of (seed, purpose, index), at its first word.
pub fn keystream(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(b"limbeck\0");
    key[8..16].copy_from_slice(&seed.to_le_bytes());
    key[16..24].copy_from_slice(&(purpose as u64).to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(index);
    rng
}

/// Uniform on 0..bound without bias.
///
/// Takes the high word of word·bound. A word whose low product word is below 2³² mod bound is drawn
/// again (Lemire, *Fast random integer generation in an interval*, 2019).
pub fn below(rng: &mut impl Rng, bound: u32) -> u32 {
    let rejected = bound.wrapping_neg() % bound;
    loop {
        let product = u64::from(rng.next_u32()) * u64::from(bound);
        if product as u32 >= rejected {
            return (product >> 32) as u32;
        }
    }
}

/// Uniform on [0, 1) in steps of 2⁻²⁴, exact in f32.
pub fn unit(rng: &mut impl Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_draws_are_uniform() {
        // 7 does not divide 2³²; 6 degrees of freedom, p = 0.001 at 22.5.
        let mut rng = keystream(5, Purpose::Shuffle, 0);
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[below(&mut rng, 7) as usize] += 1;
        }
        let chi2: f64 = counts.iter().map(|&c| (f64::from(c) - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi2 < 22.5, "{counts:?}");
    }

    #[test]
    fn biased_words_are_drawn_again() {
        // For bound 3·2³⁰ a quarter of all words must be rejected: without rejection,
        // values divisible by 3 would come twice as often as the others.
        let mut rng = keystream(6, Purpose::Shuffle, 0);
        let bound = 3 << 30;
        let thirds = (0..30_000).filter(|_| below(&mut rng, bound) % 3 == 0).count();
        assert!((9_700..10_300).contains(&thirds), "{thirds}");
    }

    #[test]
    fn streams_differ_in_every_coordinate() {
        let first = |seed, purpose, index| keystream(seed, purpose, index).next_u64();
        let base = first(1, Purpose::Shuffle, 1);
        assert_eq!(base, first(1, Purpose::Shuffle, 1));
        assert_ne!(base, first(2, Purpose::Shuffle, 1));
        assert_ne!(base, first(1, Purpose::Jitter, 1));
        assert_ne!(base, first(1, Purpose::Shuffle, 2));
    }
}
