//! Synthetic frames of speech. Acoustic nets of any size can be trained and timed on them where no
//! corpus is large enough.

use crate::random::{Purpose, below, keystream, unit};
use crate::{Dataset, Features, Inputs, Names, Split, digest};
use rand::Rng;
use std::collections::BTreeMap;

/// Number of values of a frame: the paper's log-mel filters.
const BINS: usize = 40;
/// Frames of context before and behind, as in the paper.
const CONTEXT: (usize, usize) = (20, 5);
/// Number of frames of an utterance.
const UTTERANCE: usize = 256;
/// The fewest frames that a state lasts.
const SHORTEST: u32 = 3;
/// The most frames that a state lasts.
const LONGEST: u32 = 8;
/// Numbers of training and test frames.
const SIZES: [usize; 2] = [38_400, 2_560];

/// 38,400 training and 2,560 test frames of `states` states, with the paper's context: inputs of
/// 26·40 values.
///
/// Every state has a centre, uniform on [−√3, √3) in each of 40 dimensions. A frame is
/// centre + ½·noise, with noise of the same distribution. States follow one another at random and
/// last 3 to 8 frames. The data are a function of `states` alone, with the same bits on every
/// machine.
///
/// # Panics
/// If `states` is not between 1 and 65,536.
#[must_use]
pub fn frames(states: usize) -> Dataset {
    assert!((1..=1 << 16).contains(&states), "{states} states");
    let [train, test] = [Purpose::FramesTrain, Purpose::FramesTest];
    let [train, test] = [split(states, train, SIZES[0]), split(states, test, SIZES[1])];
    let sha256 = |(_, digest): &(Split, String)| digest.clone();
    Dataset {
        name: "frames".into(),
        classes: states,
        names: Names::default(),
        notes: Vec::new(),
        sha256: BTreeMap::from([("train".into(), sha256(&train)), ("test".into(), sha256(&test))]),
        train: train.0,
        test: test.0,
    }
}

/// Draws a uniform value of mean 0 and variance 1.
fn standard(rng: &mut impl Rng) -> f32 {
    (2.0 * unit(rng) - 1.0) * 3f32.sqrt()
}

fn split(states: usize, purpose: Purpose, count: usize) -> (Split, String) {
    let mut rng = keystream(0, purpose, 0);
    let mut values = Vec::with_capacity(count * BINS);
    let mut labels = Vec::with_capacity(count);
    while labels.len() < count {
        let state = below(&mut rng, states as u32);
        let lasts = SHORTEST + below(&mut rng, LONGEST - SHORTEST + 1);
        let mut own = keystream(0, Purpose::FramesState, u64::from(state));
        let centre: [f32; BINS] = std::array::from_fn(|_| standard(&mut own));
        for _ in 0..(lasts as usize).min(count - labels.len()) {
            values.extend(centre.map(|centre| centre + 0.5 * standard(&mut rng)));
            labels.push(state as u16);
        }
    }
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let states: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
    let digest = digest::sha256_of([&bytes, &states]);
    let frames = Features::new(values, BINS, &vec![UTTERANCE; count / UTTERANCE], CONTEXT);
    (Split { inputs: Inputs::Features(frames), labels: Some(labels) }, digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_their_states() {
        let data = frames(500);
        assert_eq!(
            (data.train.len(), data.test.len(), data.train.input_size()),
            (38_400, 2_560, 1040)
        );
        assert_eq!(data, frames(500));
        let labels = data.test.labels.as_ref().unwrap();
        assert!(labels.iter().all(|&label| label < 500));
        // The frame asked about is the 21st: nearer to the centre of its state than to others.
        let mut space = vec![0.0; 1040];
        let Inputs::Features(test) = &data.test.inputs else { panic!("frames") };
        let centre = |state: u16| -> Vec<f32> {
            let mut own = keystream(0, Purpose::FramesState, state.into());
            (0..BINS).map(|_| standard(&mut own)).collect()
        };
        let distance =
            |x: &[f32], c: &[f32]| -> f32 { x.iter().zip(c).map(|(x, c)| (x - c) * (x - c)).sum() };
        for i in (0..2_560).step_by(97) {
            let frame = test.input(i, &mut space)[20 * BINS..][..BINS].to_vec();
            let own = distance(&frame, &centre(labels[i]));
            let other = distance(&frame, &centre((labels[i] + 1) % 500));
            assert!(own < other, "frame {i}: {own} {other}");
        }
    }
}
