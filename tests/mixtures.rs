//! Gaussian mixtures against their formulas, and the flat start on speech made up from known
//! states.
#![cfg(feature = "paper")]

mod common;

use common::{UNIT, best, uniform};
use limbeck::speech::align::{self, TooShort};
use limbeck::speech::aligner::{Aligner, AlignerOptions, Unalignable, Utterance};
use limbeck::speech::gmm::{Gmm, Mixture};
use limbeck::speech::hmm::{Lexicon, UtteranceGraph};
use std::f64::consts::PI;

/// `n` draws from N(0, 1), by Box and Muller.
fn normal(seed: u64, n: usize) -> Vec<f64> {
    let uniform = uniform(seed, 2 * n);
    uniform
        .chunks_exact(2)
        .map(|u| (-2.0 * (0.5 * (1.0 - u[0])).ln()).sqrt() * (PI * u[1]).cos())
        .collect()
}

/// ln Σ_m w_m·N(x; m) by its formula.
fn log_likelihood(mixture: &Mixture, x: &[f32]) -> f64 {
    let dim = x.len();
    let components = mixture.weights().iter().enumerate().map(|(m, weight)| {
        let parameters = mixture.means()[m * dim..].iter().zip(&mixture.variances()[m * dim..]);
        let density = x.iter().zip(parameters).map(|(&x, (mean, variance))| {
            (-(f64::from(x) - mean).powi(2) / (2.0 * variance)).exp() / (2.0 * PI * variance).sqrt()
        });
        weight * density.product::<f64>()
    });
    components.sum::<f64>().ln()
}

/// One state's frames, from N(−2, 1)·N(0, 4) with probability 0.3 and N(3, 0.25)·N(1, 1) else.
fn two_clusters(seed: u64, n: usize) -> Vec<f32> {
    let (u, z) = (uniform(seed, n), normal(seed + 1, 2 * n));
    u.iter()
        .zip(z.chunks_exact(2))
        .flat_map(|(&u, z)| match u < -0.4 {
            true => [z[0] - 2.0, 2.0 * z[1]],
            false => [0.5 * z[0] + 3.0, z[1] + 1.0],
        })
        .map(|x| x as f32)
        .collect()
}

#[test]
fn a_flat_start_has_the_mean_and_variance_of_all_frames() {
    let (a, b) = ([1.0_f32, 10.0, 3.0, 30.0], [5.0_f32, 20.0]);
    let gmm = Gmm::flat(3, 2, [&a[..], &b]);
    assert_eq!(gmm.gaussians(), 3);
    for mixture in gmm.mixtures() {
        assert_eq!(mixture.means(), [3.0, 20.0]);
        for (found, expected) in mixture.variances().iter().zip([8.0 / 3.0, 200.0 / 3.0]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }
}

#[test]
fn log_likelihoods_follow_the_formula() {
    // 197 frames are twelve blocks and a part.
    let (dim, frames) = (5, 197);
    let features: Vec<f32> = normal(1, dim * frames).iter().map(|&x| 3.0 * x as f32).collect();
    let rows: Vec<&[f32]> = features.chunks_exact(dim).collect();
    let pool = &best(1).pool;
    let mut gmm = Gmm::flat(2, dim, [&features[..]]);
    // Both states learn from other frames, the first with three components.
    let frames_of = [rows[..160].to_vec(), rows[50..].to_vec()];
    gmm.update(pool, &frames_of);
    gmm.grow(5, &[160, 147]);
    gmm.update(pool, &frames_of);
    let components: Vec<usize> = gmm.mixtures().iter().map(|m| m.weights().len()).collect();
    assert_eq!(components, [3, 2]);
    let mut found = vec![f32::NAN; frames * 2];
    gmm.log_likelihoods(&features, &mut found);
    for (row, found) in rows.iter().zip(found.chunks_exact(2)) {
        for (mixture, &found) in gmm.mixtures().iter().zip(found) {
            let expected = log_likelihood(mixture, row);
            // A dozen roundings a feature, of terms that add up to less than |ln p| + 4·D.
            let tolerance = 12.0 * dim as f64 * UNIT * (expected.abs() + 4.0 * dim as f64);
            let error = (f64::from(found) - expected).abs();
            assert!(error <= tolerance, "{found} {expected}");
        }
    }
}

#[test]
fn em_finds_the_gaussians_that_made_the_data() {
    let n = 20_000;
    let features = two_clusters(3, n);
    let rows: Vec<&[f32]> = features.chunks_exact(2).collect();
    let context = best(1);
    let mut gmm = Gmm::flat(1, 2, [&features[..]]);
    gmm.grow(2, &[n]);
    let mut last = f64::NEG_INFINITY;
    for _ in 0..60 {
        let now = gmm.update(&context.pool, std::slice::from_ref(&rows));
        // f32 scores of about 10, n of them.
        assert!(now >= last - n as f64 * 10.0 * UNIT, "{now} after {last}");
        last = now;
    }
    let mixture = &gmm.mixtures()[0];
    let first = usize::from(mixture.means()[0] > 0.0);
    let order = [first, 1 - first];
    // The standard errors of a share, a mean and a variance, five of them; the clusters hardly
    // overlap.
    let truth = [(0.3, [-2.0, 0.0], [1.0, 4.0]), (0.7, [3.0, 1.0], [0.25, 1.0])];
    for (m, (weight, means, variances)) in order.into_iter().zip(truth) {
        let count = weight * n as f64;
        let error = (mixture.weights()[m] - weight).abs();
        assert!(error < 5.0 * (0.21 / n as f64).sqrt(), "{error}");
        for d in 0..2 {
            let (mean, variance) = (mixture.means()[2 * m + d], mixture.variances()[2 * m + d]);
            assert!((mean - means[d]).abs() < 5.0 * (variances[d] / count).sqrt(), "{mean}");
            let error = (variance - variances[d]).abs();
            assert!(error < 5.0 * variances[d] * (2.0 / count).sqrt(), "{variance}");
        }
    }
}

#[test]
fn variances_have_a_floor_and_rare_states_keep_their_mixture() {
    let features: Vec<f32> = normal(9, 400).iter().map(|&x| x as f32).collect();
    let mut gmm = Gmm::flat(2, 1, [&features[..]]);
    let flat = gmm.mixtures()[0].clone();
    let same = [0.5_f32];
    let frames = [vec![&same[..]; 50], vec![&same[..]; 9]];
    gmm.update(&best(1).pool, &frames);
    assert_eq!(gmm.mixtures()[0].means(), [0.5]);
    assert_eq!(gmm.mixtures()[0].variances(), [0.01 * flat.variances()[0]]);
    assert_eq!(gmm.mixtures()[1], flat);
}

#[test]
fn mixtures_grow_where_the_frames_are() {
    let features = two_clusters(3, 100);
    let mut gmm = Gmm::flat(3, 2, [&features[..]]);
    gmm.grow(9, &[10_000, 625, 10]);
    // In proportion to 10:5 and at least 20 frames a component; nothing for 10 frames.
    let components: Vec<usize> = gmm.mixtures().iter().map(|m| m.weights().len()).collect();
    assert_eq!(components, [5, 3, 1]);
    for mixture in gmm.mixtures() {
        assert!((mixture.weights().iter().sum::<f64>() - 1.0).abs() < 1e-15);
    }
    // No more than the frames allow.
    gmm.grow(100_000, &[100, 40, 10]);
    assert_eq!(gmm.gaussians(), 5 + 3 + 1);
}

/// Speech of two words and pauses, each state with a mean of its own, and the truth about it.
struct Speech {
    lexicon: Lexicon,
    words: Vec<Vec<usize>>,
    features: Vec<Vec<f32>>,
    truth: Vec<Vec<u16>>,
}

const DIM: usize = 4;

fn speech(utterances: u64) -> Speech {
    let words: [&[Vec<usize>]; 2] = [&[vec![1, 2]], &[vec![3], vec![3, 1]]];
    let lexicon = Lexicon::new(4, 0, words);
    let means: Vec<f64> = uniform(77, lexicon.states() * DIM).iter().map(|x| 20.0 * x).collect();
    let mut speech = Speech { lexicon, words: Vec::new(), features: Vec::new(), truth: Vec::new() };
    for utterance in 0..utterances {
        // Choices: words, pronunciations, pauses, and how long each state lasts.
        let mut dice = uniform(1000 + utterance, 100).into_iter().map(|u| (u + 1.0) / 2.0);
        let mut below = |n: usize| (dice.next().unwrap() * n as f64) as usize;
        let words: Vec<usize> = (0..1 + below(3)).map(|_| below(2)).collect();
        let mut path = speech.lexicon.silence().to_vec();
        for &word in &words {
            let ways = speech.lexicon.pronunciations(word);
            path.extend(&ways[below(ways.len())]);
            if below(2) == 0 {
                path.extend(speech.lexicon.silence());
            }
        }
        let truth: Vec<u16> =
            path.into_iter().flat_map(|state| vec![state; 2 + below(5)]).collect();
        let noise = normal(2000 + utterance, truth.len() * DIM);
        let mean = |&state: &u16| means[usize::from(state) * DIM..][..DIM].to_vec();
        let features = truth.iter().flat_map(mean).zip(noise).map(|(m, z)| (m + z) as f32);
        speech.features.push(features.collect());
        speech.words.push(words);
        speech.truth.push(truth);
    }
    speech
}

impl Speech {
    fn utterances(&self) -> Vec<Utterance<'_>> {
        let each = self.features.iter().zip(&self.words);
        each.map(|(features, words)| Utterance { features, words }).collect()
    }

    fn train(&self, threads: usize, recipe: &AlignerOptions) -> (Aligner, Vec<Vec<u16>>) {
        let (pool, utterances) = (&best(threads).pool, self.utterances());
        let aligner = Aligner::train(pool, &self.lexicon, DIM, &utterances, recipe).unwrap();
        let (_, aligned) = aligner.align(pool, &self.lexicon, &utterances).unwrap();
        (aligner, aligned)
    }
}

#[test]
fn a_flat_start_finds_the_states() {
    let speech = speech(200);
    let (_, aligned) =
        speech.train(2, &AlignerOptions { iterations: 10, gaussians: 12, settling: 0 });
    let (truth, found) = (speech.truth.concat(), aligned.concat());
    let right = truth.iter().zip(&found).filter(|(a, b)| a == b).count();
    let agreement = right as f64 / truth.len() as f64;
    eprintln!("{agreement}");
    assert!(agreement > 0.99, "{agreement}");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let speech = speech(30);
    let recipe = AlignerOptions { iterations: 6, gaussians: 20, settling: 2 };
    let (one, aligned) = speech.train(1, &recipe);
    for threads in [2, 3] {
        let (other, other_aligned) = speech.train(threads, &recipe);
        assert!(one.gmm == other.gmm && one.transitions == other.transitions);
        assert!(one.history == other.history && aligned == other_aligned);
    }
}

#[test]
fn viterbi_training_never_gets_worse() {
    let speech = speech(150);
    for gaussians in [12, 24] {
        let mut last = f64::NEG_INFINITY;
        for iterations in 1..12 {
            // All Gaussians are there after the first iteration.
            let recipe = AlignerOptions { iterations, gaussians, settling: usize::MAX };
            let (aligner, _) = speech.train(1, &recipe);
            if iterations > 1 {
                assert_eq!(aligner.gmm.gaussians(), gaussians);
            }
            let states = speech.lexicon.states();
            let utterances = speech.utterances();
            let scores = utterances.iter().map(|utterance| {
                let mut scores = vec![0.0; utterance.features.len() / DIM * states];
                aligner.gmm.log_likelihoods(utterance.features, &mut scores);
                let graph = UtteranceGraph::new(&speech.lexicon, utterance.words);
                align::viterbi(&graph, &aligner.transitions, &scores).unwrap().score
            });
            let scores: f64 = scores.sum();
            // Laplace's added counts are a prior, P(stay)·P(leave) of each state.
            let transitions = &aligner.transitions;
            let prior: f64 = transitions.stay.iter().chain(&transitions.leave).sum();
            let now = scores + prior;
            // Scores are rounded to f32 in a dozen steps a feature.
            let tolerance = 12.0 * DIM as f64 * UNIT * now.abs();
            assert!(now >= last - tolerance, "{now} after {last}, iteration {iterations}");
            last = now;
        }
    }
}

#[test]
fn an_utterance_shorter_than_its_words_is_named() {
    let mut speech = speech(5);
    speech.features[3].truncate(7 * DIM);
    speech.words[3] = vec![1];
    let utterances = speech.utterances();
    let context = best(2);
    let recipe = AlignerOptions::default();
    let error = Aligner::train(&context.pool, &speech.lexicon, DIM, &utterances, &recipe);
    let expected = Unalignable { utterance: 3, reason: TooShort { frames: 7, needed: 9 } };
    let error = error.err().expect("too short");
    assert_eq!(error, expected);
    assert!(error.to_string().starts_with("utterance 3: found 7 frames, expected at least 9"));
}
