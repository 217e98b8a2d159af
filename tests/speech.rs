//! Speech on real recordings where there are any, and on a signal made of integers everywhere.
//!
//! tests/golden/speech.safetensors holds what kaldi-native-fbank and python_speech_features
//! computed, in f32, and a perplexity; the recipe is beside it. The corpus itself is read through
//! `LIMBECK_DATA`.
#![cfg(feature = "paper")]

use limbeck::speech::features::{BINS, CEPSTRA, Fbank, FeatureMatrix, mfcc};
use limbeck::speech::lm::LanguageModel;
use limbeck_datasets::an4;
use safetensors::tensor::{Dtype, SafeTensors};
use std::path::PathBuf;

/// The data folder; `None` (and a line saying so) if it holds no AN4, which is a failure when
/// `LIMBECK_REQUIRE` lists `data`.
fn data_dir() -> Option<PathBuf> {
    let found =
        std::env::var_os("LIMBECK_DATA").map(PathBuf::from).filter(|dir| an4::is_present(dir));
    if found.is_none() {
        let required = std::env::var("LIMBECK_REQUIRE").is_ok_and(|all| all.contains("data"));
        assert!(!required, "LIMBECK_REQUIRE wants data, but LIMBECK_DATA holds no an4/");
        eprintln!("SKIPPED: LIMBECK_DATA holds no an4/");
    }
    found
}

/// The signal of the recipe.
fn synthetic() -> Vec<i16> {
    let (mut phase, mut step, mut state) = (0u32, 1u32 << 22, 1u32);
    let sample = |_| {
        phase = phase.wrapping_add(step);
        step += 1 << 16;
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((phase >> 18) as i32 - 8192 + (state >> 20) as i32 - 2048) as i16
    };
    (0..16_000).map(sample).collect()
}

const GOLDEN: &[u8] = include_bytes!("golden/speech.safetensors");

/// Compares every `every`-th frame with the golden ones.
#[track_caller]
fn agrees(kind: &str, name: &str, every: usize, ours: &FeatureMatrix, dim: usize, tolerance: f32) {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    let golden = file.tensor(&format!("{kind}/{name}")).unwrap();
    assert_eq!(golden.dtype(), Dtype::F32);
    assert_eq!(ours.dim, dim);
    assert_eq!(golden.shape(), [ours.frames().div_ceil(every), dim]);
    let golden =
        golden.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    let ours = ours.values.chunks_exact(dim).step_by(every).flatten();
    let largest = golden.zip(ours).map(|(golden, ours)| (golden - ours).abs()).fold(0.0, f32::max);
    println!("{kind} {name}: largest difference {largest:.2e}");
    assert!(largest <= tolerance, "{kind} {name}: {largest}");
}

#[track_caller]
fn agrees_with_kaldi(name: &str, every: usize, samples: &[i16]) {
    let fbank = Fbank::new().features(samples);
    agrees("fbank", name, every, &fbank, BINS, 1e-3);
    agrees("mfcc", name, every, &mfcc(&fbank), 3 * CEPSTRA, 1e-3);
}

#[test]
fn features_of_a_synthetic_signal_are_kaldis() {
    agrees_with_kaldi("synthetic", 1, &synthetic());
}

#[test]
fn features_of_recordings_are_kaldis() {
    let Some(dir) = data_dir() else { return };
    let corpus = an4::load(&dir).unwrap();
    for (name, every) in [
        ("an4test_clstk/mmxg/an443-mmxg-b", 1),
        ("an4_clstk/fash/an255-fash-b", 10),
        ("an4test_clstk/fcaw/an406-fcaw-b", 10),
    ] {
        let id = name.rsplit('/').next().unwrap();
        let mut all = corpus.train.iter().chain(&corpus.test);
        let utterance = all.find(|utterance| utterance.id == id).unwrap();
        agrees_with_kaldi(name, every, &utterance.samples().unwrap());
    }
}

#[test]
fn language_models_of_an4() {
    let Some(dir) = data_dir() else { return };
    let corpus = an4::load(&dir).unwrap();
    let ids = |split: &[an4::Utterance]| -> Vec<Vec<usize>> {
        split.iter().map(|utterance| corpus.word_ids(utterance)).collect()
    };
    let (train, test) = (ids(&corpus.train), ids(&corpus.test));
    let unigram = LanguageModel::unigram(&corpus.dictionary, &corpus.unigram);
    let bigram = LanguageModel::witten_bell(corpus.dictionary.words().len(), &train);
    // Every word and the end of every sentence: 101 + 1 equally probable outcomes.
    assert!((unigram.perplexity(&test) - 102.0).abs() < 1e-9);
    let golden = SafeTensors::deserialize(GOLDEN).unwrap();
    let golden = golden.tensor("perplexity").unwrap();
    let golden = f64::from_le_bytes(golden.data().try_into().unwrap());
    assert!((bigram.perplexity(&test) / golden - 1.0).abs() < 1e-12, "{golden}");

    for model in [&unigram, &bigram] {
        let outcomes = || (0..model.words()).map(Some).chain([None]);
        for previous in outcomes() {
            let sum: f64 = outcomes().map(|next| model.ln_prob(previous, next).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{previous:?}: {sum}");
        }
    }
}
