//! Speech on real recordings where there are any, and on a signal made of integers everywhere;
//! features and language models worked out by hand.
//!
//! tests/golden/speech.safetensors holds what kaldi-native-fbank and python_speech_features
//! computed, in f32, and a perplexity; the recipe is beside it. The corpus itself is read through
//! `LIMBECK_DATA`.
#![cfg(feature = "paper")]

mod common;

use common::required::data_dir;
use limbeck::speech::features::{
    BINS, CEPSTRA, FRAME, Fbank, FeatureMatrix, Normalisation, mfcc, subtract_speaker_means,
};
use limbeck::speech::lm::LanguageModel;
use limbeck_datasets::an4;
use safetensors::tensor::{Dtype, SafeTensors};

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
    let fbank = Fbank::warped(1.0).features(samples);
    agrees("fbank", name, every, &fbank, BINS, 1e-3);
    agrees("mfcc", name, every, &mfcc(&fbank), 3 * CEPSTRA, 1e-3);
}

#[test]
fn features_of_a_synthetic_signal_are_kaldis() {
    agrees_with_kaldi("synthetic", 1, &synthetic());
}

#[test]
fn features_of_recordings_are_kaldis() {
    let Some(dir) = data_dir(an4::is_present) else { return };
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

/// exp(−Σ ln P / n) of the n words and ends of the sentences.
fn perplexity(model: &LanguageModel, sentences: &[Vec<usize>]) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for sentence in sentences {
        let words = || sentence.iter().copied().map(Some);
        for (previous, next) in [None].into_iter().chain(words()).zip(words().chain([None])) {
            sum += model.ln_prob(previous, next);
            count += 1;
        }
    }
    (-sum / f64::from(count)).exp()
}

#[test]
fn language_models_of_an4() {
    let Some(dir) = data_dir(an4::is_present) else { return };
    let corpus = an4::load(&dir).unwrap();
    let ids = |split: &[an4::Utterance]| -> Vec<Vec<usize>> {
        split.iter().map(|utterance| corpus.word_ids(utterance)).collect()
    };
    let (train, test) = (ids(&corpus.train), ids(&corpus.test));
    let unigram = LanguageModel::unigram(&corpus.dictionary, &corpus.unigram);
    let bigram = LanguageModel::witten_bell(corpus.dictionary.words().len(), &train);
    // Every word and the end of every sentence: 101 + 1 equally probable outcomes.
    assert!((perplexity(&unigram, &test) - 102.0).abs() < 1e-9);
    let golden = SafeTensors::deserialize(GOLDEN).unwrap();
    let golden = golden.tensor("perplexity").unwrap();
    let golden = f64::from_le_bytes(golden.data().try_into().unwrap());
    assert!((perplexity(&bigram, &test) / golden - 1.0).abs() < 1e-12, "{golden}");

    for model in [&unigram, &bigram] {
        let outcomes = || (0..model.words()).map(Some).chain([None]);
        for previous in outcomes() {
            let sum: f64 = outcomes().map(|next| model.ln_prob(previous, next).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{previous:?}: {sum}");
        }
    }
}

fn of(dim: usize, values: &[f32]) -> FeatureMatrix {
    FeatureMatrix { dim, values: values.to_vec() }
}

#[test]
fn frames_are_those_that_fit() {
    let fbank = Fbank::warped(1.0);
    let counts = [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16_000, 98)];
    for (samples, frames) in counts {
        assert_eq!(fbank.features(&vec![7; samples]).frames(), frames, "{samples} samples");
    }
    // A constant has its mean subtracted, and nothing is left but the floor.
    let silence = fbank.features(&[7; 400]);
    let floor = (2f64.powi(-23).ln()) as f32;
    assert_eq!(silence.frame(0), [floor; BINS]);
}

/// The frequency at which a filter has its peak, from the inverse of mel.
fn peak(bin: usize) -> f64 {
    let mel = |hz: f64| 1127.0 * (1.0 + hz / 700.0).ln();
    let peak = mel(20.0) + (bin + 1) as f64 * (mel(8000.0) - mel(20.0)) / 41.0;
    700.0 * ((peak / 1127.0).exp() - 1.0)
}

fn tone(hz: f64, amplitude: f64) -> Vec<i16> {
    let sample = |i: usize| amplitude * (2.0 * std::f64::consts::PI * hz * i as f64 / 16e3).sin();
    (0..FRAME).map(|i| sample(i).round() as i16).collect()
}

fn loudest(frame: &FeatureMatrix) -> usize {
    (0..BINS).max_by(|&a, &b| frame.values[a].total_cmp(&frame.values[b])).unwrap()
}

#[test]
fn a_tone_peaks_in_its_filter_and_doubling_it_adds_ln_4() {
    let fbank = Fbank::warped(1.0);
    for bin in [5, 20, 35] {
        let loud = fbank.features(&tone(peak(bin), 16_000.0));
        assert_eq!(loudest(&loud), bin);
        let quiet = fbank.features(&tone(peak(bin), 8_000.0));
        let difference = f64::from(loud.values[bin] - quiet.values[bin]);
        assert!((difference - 4f64.ln()).abs() < 1e-3, "{difference}");
    }
}

#[test]
fn a_warped_tone_peaks_where_its_warped_frequency_does() {
    for factor in [0.9, 1.1] {
        for bin in [10, 20, 30] {
            let heard = Fbank::warped(factor).features(&tone(peak(bin) / factor, 16_000.0));
            assert_eq!(loudest(&heard), bin, "filter {bin}, {factor}");
        }
    }
}

#[test]
fn the_cepstrum_of_a_flat_spectrum_is_its_level_alone() {
    let cepstra = mfcc(&of(BINS, &[3.0; 2 * BINS]));
    assert_eq!((cepstra.dim, cepstra.frames()), (39, 2));
    // √(1/40)·40·3; the lifter leaves c(0) alone.
    assert!((cepstra.values[0] - 40f32.sqrt() * 3.0).abs() < 1e-5);
    assert!(cepstra.frame(0)[1..].iter().all(|c| c.abs() < 1e-5));
}

#[test]
fn speakers_are_centred_each_for_itself() {
    let mut utterances = [of(1, &[1.0, 3.0]), of(1, &[10.0]), of(1, &[8.0]), of(1, &[])];
    subtract_speaker_means(&mut utterances, &["a", "b", "a", "c"]);
    assert_eq!(utterances.map(|u| u.values), [vec![-3.0, -1.0], vec![0.0], vec![4.0], vec![]]);
}

#[test]
fn normalised_training_frames_have_mean_0_and_variance_1() {
    let mut train = [of(2, &[1.0, 5.0, 2.0, 5.0]), of(2, &[6.0, 5.0])];
    let normalisation = Normalisation::of(&train).unwrap();
    // Deviations −2, −1, 3: variance 14/3. The second column never varies.
    assert_eq!(normalisation.mean, [3.0, 5.0]);
    assert_eq!(normalisation.sd, [(14.0f64 / 3.0).sqrt(), 1.0]);
    normalisation.apply(&mut train);
    let column = |i| train.iter().flat_map(move |u| u.values.chunks(2).map(move |f| f[i]));
    assert!(column(0).sum::<f32>().abs() < 1e-6);
    assert!((column(0).map(|x| x * x).sum::<f32>() / 3.0 - 1.0).abs() < 1e-6);
    assert!(column(1).all(|x| x == 0.0));

    let mut test = [of(2, &[3.0, 6.0])];
    normalisation.apply(&mut test);
    assert_eq!(test[0].values, [0.0, 1.0]);
    assert_eq!(Normalisation::of(&[of(2, &[])]), None);
    assert_eq!(Normalisation::of(&[]), None);
}

fn sums_to_one(model: &LanguageModel) {
    let outcomes = || (0..model.words()).map(Some).chain([None]);
    for previous in outcomes() {
        let sum: f64 = outcomes().map(|next| model.ln_prob(previous, next).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{previous:?}: {sum}");
    }
}

#[test]
fn a_bigram_by_hand() {
    const A: usize = 0;
    const B: usize = 1;
    const C: usize = 2;
    let model = LanguageModel::witten_bell(3, &[vec![A, B], vec![A, A]]);
    sums_to_one(&model);
    let prob = |previous, next| model.ln_prob(previous, next).exp();
    // A thrice, B once, two ends: 6 tokens of 3 types, over 4 outcomes.
    let single = |count: f64| (count + 3.0 / 4.0) / 9.0;
    let expected = [
        // After the start: A, A.
        (None, Some(A), (2.0 + single(3.0)) / 3.0),
        (None, Some(C), single(0.0) / 3.0),
        (None, None, single(2.0) / 3.0),
        // After A: B, A, end.
        (Some(A), Some(B), (1.0 + 3.0 * single(1.0)) / 6.0),
        (Some(A), None, (1.0 + 3.0 * single(2.0)) / 6.0),
        (Some(A), Some(C), 3.0 * single(0.0) / 6.0),
        // After B: end.
        (Some(B), None, (1.0 + single(2.0)) / 2.0),
        // C was never seen.
        (Some(C), Some(A), single(3.0)),
        (Some(C), Some(C), single(0.0)),
    ];
    for (previous, next, expected) in expected {
        let found = prob(previous, next);
        assert!((found - expected).abs() < 1e-14, "{previous:?} {next:?}: {found} {expected}");
    }

    let product = prob(None, Some(C)) * prob(Some(C), None) * prob(None, None);
    let perplexity = perplexity(&model, &[vec![C], vec![]]);
    assert!((perplexity - product.powf(-1.0 / 3.0)).abs() < 1e-10);
}

#[test]
fn without_sentences_everything_is_equally_probable() {
    let model = LanguageModel::witten_bell(4, &[]);
    sums_to_one(&model);
    assert!((perplexity(&model, &[vec![0, 3, 1]]) - 5.0).abs() < 1e-12);
    assert!(perplexity(&model, &[]).is_nan());
}

#[test]
#[should_panic(expected = "word 2 of a vocabulary of 2")]
fn foreign_words_have_no_probability() {
    LanguageModel::witten_bell(2, &[vec![1]]).ln_prob(Some(2), None);
}
