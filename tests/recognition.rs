//! From recordings to words: mixtures trained on some AN4 speakers recognise another.
#![cfg(feature = "paper")]

mod common;

use common::{best, required::data_dir};
use limbeck::speech::aligner::{Aligner, AlignerOptions, Utterance};
use limbeck::speech::decode::{Decoder, Scales};
use limbeck::speech::features::{Fbank, FeatureMatrix, mfcc, subtract_speaker_means};
use limbeck::speech::hmm::Lexicon;
use limbeck::speech::lm::LanguageModel;
use limbeck::speech::wer::{WordErrors, word_errors};
use limbeck_datasets::an4::{self, Corpus};

/// AN4, where it is there.
fn corpus() -> Option<Corpus> {
    Some(an4::load(&data_dir(an4::is_present)?).unwrap())
}

/// Cepstra and word ids of some speakers.
fn speech(corpus: &Corpus, speakers: &[&str]) -> (Vec<FeatureMatrix>, Vec<Vec<usize>>) {
    let of = |u: &&an4::Utterance| speakers.contains(&u.speaker.as_str());
    let utterances: Vec<&an4::Utterance> = corpus.train.iter().filter(of).collect();
    let fbank = Fbank::warped(1.0);
    let cepstra = |u: &&an4::Utterance| mfcc(&fbank.features(&u.samples().unwrap()));
    let mut features: Vec<FeatureMatrix> = utterances.iter().map(cepstra).collect();
    let speakers: Vec<&str> = utterances.iter().map(|u| u.speaker.as_str()).collect();
    subtract_speaker_means(&mut features, &speakers);
    (features, utterances.iter().map(|u| corpus.word_ids(u)).collect())
}

#[test]
fn words_of_a_stranger_are_recognised() {
    let Some(corpus) = corpus() else { return };
    let mut speakers: Vec<&str> = corpus.train.iter().map(|u| u.speaker.as_str()).collect();
    speakers.dedup();
    let (strangers, known) = speakers[..24].split_at(4);
    let silence = corpus.phones.iter().position(|phone| phone == an4::SILENCE).unwrap();
    let words = corpus.dictionary.words().iter().map(|word| &word.pronunciations[..]);
    let lexicon = Lexicon::new(corpus.phones.len(), silence, words);
    let context = best(2);

    let (features, words) = speech(&corpus, known);
    let utterances: Vec<Utterance> = features
        .iter()
        .zip(&words)
        .map(|(features, words)| Utterance { features: &features.values, words })
        .collect();
    let recipe = AlignerOptions { iterations: 15, gaussians: 300, settling: 3 };
    let dim = features[0].dim;
    let aligner = Aligner::train(&context.pool, &lexicon, dim, &utterances, &recipe).unwrap();
    assert_eq!(aligner.gmm.gaussians(), 300);

    // Each word is said, and no state is visited for nothing.
    let (_, aligned) = aligner.align(&context.pool, &lexicon, &utterances).unwrap();
    for (states, utterance) in aligned.iter().zip(&utterances) {
        assert_eq!(states.len() * dim, utterance.features.len());
        let mut visited: Vec<u16> = states.clone();
        visited.dedup();
        let spoken = visited.iter().filter(|state| !lexicon.silence().contains(state)).count();
        let shortest = |&word: &usize| lexicon.pronunciations(word).iter().map(Vec::len).min();
        let needed: usize = utterance.words.iter().filter_map(shortest).sum();
        assert!(spoken >= needed, "{spoken} of {needed} states");
    }

    let (features, words) = speech(&corpus, strangers);
    let scores: Vec<Vec<f32>> = features
        .iter()
        .map(|features| {
            let mut scores = vec![0.0; features.frames() * lexicon.states()];
            aligner.gmm.log_likelihoods(&features.values, &mut scores);
            scores
        })
        .collect();
    let scores: Vec<&[f32]> = scores.iter().map(Vec::as_slice).collect();
    let lm = LanguageModel::unigram(&corpus.dictionary, &corpus.unigram);
    let outcomes = || (0..lm.words()).map(Some).chain([None]);
    let table: Vec<f32> = outcomes()
        .flat_map(|previous| outcomes().map(move |next| (previous, next)))
        .map(|(previous, next)| lm.ln_prob(previous, next) as f32)
        .collect();
    let scales = Scales { acoustic_scale: 0.2, lm_scale: 1.0, word_penalty: -2.0 };
    let decoder = Decoder::new(&lexicon, &aligner.transitions, &table, scales);
    let found = decoder.decode_all(&context.pool, &scores);
    let errors: WordErrors =
        found.iter().zip(&words).map(|(found, words)| word_errors(words, &found.words)).sum();
    println!("{errors:?}, {:.1} %", 100.0 * errors.rate());
    // A recogniser that has learned nothing gets one word in a hundred right.
    assert!(errors.words > 200 && errors.rate() < 0.5, "{errors:?}");
}
