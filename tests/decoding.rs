//! Alignment and the word search against the enumeration of every path, to the last bit; word errors
//! against trying every way.
#![cfg(feature = "paper")]

mod common;

use common::{best, uniform};
use limbeck::speech::align::{self, TooShort};
use limbeck::speech::decode::{Decoder, Hypothesis, Scales};
use limbeck::speech::hmm::{Lexicon, Transitions, UtteranceGraph};
use limbeck::speech::wer::Edit::{self, Deletion, Insertion, Match, Substitution};
use limbeck::speech::wer::{WordErrors, align as align_words, word_errors};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Three words of the phones 1 and 2, the second with two pronunciations; phone 0 is silence.
fn lexicon() -> Lexicon {
    let words: [&[Vec<usize>]; 3] = [&[vec![1]], &[vec![2], vec![2, 1]], &[vec![1, 1]]];
    Lexicon::new(3, 0, words)
}

const WORDS: usize = 3;

fn transitions(seed: u64, states: usize) -> Transitions {
    let ln = |seed| uniform(seed, states).iter().map(|x| 2.0 * (x - 1.0)).collect();
    Transitions { stay: ln(seed), leave: ln(seed + 1) }
}

fn scores(seed: u64, frames: usize, states: usize) -> Vec<f32> {
    uniform(seed, frames * states).iter().map(|x| 8.0 * *x as f32).collect()
}

/// What it costs to come to a word; nothing for silence and inside of words.
type Steps = Vec<(u16, f64)>;

/// Every way to say `words`, which cost `weights`, with silence or not at each place.
fn ways(lexicon: &Lexicon, words: &[usize], weights: &[f64]) -> Vec<Steps> {
    let pauses = || [&[], lexicon.silence()];
    let free = |chain: &[u16]| chain.iter().map(|&state| (state, 0.0)).collect::<Steps>();
    let mut ways: Vec<Steps> = pauses().into_iter().map(free).collect();
    for (&word, &weight) in words.iter().zip(weights) {
        let mut longer = Vec::new();
        for way in &ways {
            for chain in lexicon.pronunciations(word) {
                for pause in pauses() {
                    let mut said = free(chain);
                    said[0].1 = weight;
                    longer.push([way.clone(), said, free(pause)].concat());
                }
            }
        }
        ways = longer;
    }
    ways
}

/// The best of all divisions of the frames among the states of `way`.
fn best_division(
    way: &Steps,
    transitions: &Transitions,
    scores: &[f32],
) -> Option<(f64, Vec<u16>)> {
    /// A path up to its last frame, which has the state of `way[0]`.
    fn extend(
        way: &[(u16, f64)],
        transitions: &Transitions,
        scores: &[f32],
        (score, path): (f64, Vec<u16>),
        best: &mut Option<(f64, Vec<u16>)>,
    ) {
        let width = transitions.stay.len();
        let here = usize::from(way[0].0);
        let left = score + transitions.leave[here];
        if scores.is_empty() {
            if way.len() == 1 && best.as_ref().is_none_or(|best| left > best.0) {
                *best = Some((left, path));
            }
            return;
        }
        let (frame, rest) = scores.split_at(width);
        let mut step = |way: &[(u16, f64)], score: f64| {
            let state = way[0].0;
            let next = (
                score + f64::from(frame[usize::from(state)]),
                [path.clone(), vec![state]].concat(),
            );
            extend(way, transitions, rest, next, best);
        };
        step(way, score + transitions.stay[here]);
        if way.len() > 1 {
            step(&way[1..], left + way[1].1);
        }
    }

    let width = transitions.stay.len();
    if way.is_empty() || scores.len() / width < way.len() {
        return None;
    }
    let (state, weight) = way[0];
    let first = weight + f64::from(scores[usize::from(state)]);
    let mut best = None;
    extend(way, transitions, &scores[width..], (first, vec![state]), &mut best);
    best
}

fn best_of<T>(paths: impl Iterator<Item = (f64, T)>) -> Option<(f64, T)> {
    paths.reduce(|a, b| if b.0 > a.0 { b } else { a })
}

#[test]
fn alignments_are_the_best_of_all_paths() {
    let lexicon = lexicon();
    let states = lexicon.states();
    for (seed, words) in [vec![], vec![0], vec![1], vec![0, 1], vec![1, 0], vec![1, 1], vec![2, 0]]
        .iter()
        .enumerate()
    {
        let graph = UtteranceGraph::new(&lexicon, words);
        let ways = ways(&lexicon, words, &vec![0.0; words.len()]);
        let shortest = ways.iter().map(Vec::len).filter(|&n| n > 0).min().unwrap();
        assert_eq!(graph.shortest(), shortest, "{words:?}");
        for frames in 1..=12 {
            let seed = 100 * seed as u64 + frames as u64;
            let transitions = transitions(seed, states);
            let scores = scores(seed + 50, frames, states);
            let alignment = align::viterbi(&graph, &transitions, &scores);
            let expected =
                best_of(ways.iter().filter_map(|way| best_division(way, &transitions, &scores)));
            match expected {
                Some((score, path)) => {
                    let alignment = alignment.unwrap();
                    assert_eq!(alignment.states, path, "{words:?} in {frames} frames");
                    assert_eq!(alignment.score, score, "{words:?} in {frames} frames");
                }
                None => assert_eq!(alignment, Err(TooShort { frames, needed: shortest })),
            }
        }
    }
}

#[test]
fn an_alignment_with_a_known_answer() {
    // The word 0 between pauses; each frame speaks for one state only.
    let lexicon = lexicon();
    let truth: [u16; 12] = [0, 1, 1, 2, 3, 3, 3, 4, 5, 0, 1, 2];
    let scores: Vec<f32> = truth
        .iter()
        .flat_map(|&state| (0..9).map(move |s| if s == state { 0.0 } else { -10.0 }))
        .collect();
    let graph = UtteranceGraph::new(&lexicon, &[0]);
    let transitions = Transitions::even(9);
    let alignment = align::viterbi(&graph, &transitions, &scores).unwrap();
    assert_eq!(alignment.states, truth);
    // 11 steps between the frames and one out of the last, each of probability ½.
    assert!((alignment.score + 12.0 * std::f64::consts::LN_2).abs() < 1e-12);
}

#[test]
fn equal_parts() {
    assert_eq!(align::equal(&[4, 5, 6], 3).unwrap(), [4, 5, 6]);
    assert_eq!(align::equal(&[4, 5, 6], 8).unwrap(), [4, 4, 4, 5, 5, 5, 6, 6]);
    let error = align::equal(&[4, 5, 6], 2).unwrap_err();
    assert_eq!(error, TooShort { frames: 2, needed: 3 });
    assert!(error.to_string().contains("found 2 frames, expected at least 3"));
    assert_eq!(lexicon().plain_path(&[1, 0]), [0, 1, 2, 6, 7, 8, 3, 4, 5, 0, 1, 2]);
}

#[test]
fn transitions_count_visits() {
    let alignments: [&[u16]; 2] = [&[0, 0, 0, 1, 2], &[0, 1, 1, 2, 2, 0, 1, 2]];
    let transitions = Transitions::estimate(4, alignments);
    // Visits: 3 of state 0 in 5 frames, 3 of 1 in 4, 3 of 2 in 4, none of 3.
    let leave = [4.0 / 7.0, 4.0 / 6.0, 4.0 / 6.0, 1.0 / 2.0];
    for (state, leave) in leave.into_iter().enumerate() {
        assert!((transitions.leave[state].exp() - leave).abs() < 1e-15);
        assert!((transitions.stay[state].exp() - (1.0 - leave)).abs() < 1e-15);
    }
}

/// A random bigram [words + 1, words + 1], of which no pair is impossible but 0 → 2 and 2 → end.
fn bigram(seed: u64) -> Vec<f32> {
    let mut lm: Vec<f32> =
        uniform(seed, (WORDS + 1) * (WORDS + 1)).iter().map(|x| 3.0 * (*x as f32 - 1.0)).collect();
    lm[2] = f32::NEG_INFINITY;
    lm[2 * (WORDS + 1) + WORDS] = f32::NEG_INFINITY;
    lm
}

/// All sequences of up to `most` words.
fn sequences(most: usize) -> Vec<Vec<usize>> {
    if most == 0 {
        return vec![vec![]];
    }
    let shorter = sequences(most - 1);
    let longest = shorter.iter().filter(|words| words.len() == most - 1);
    let longer = longest
        .flat_map(|words| (0..WORDS).map(|word| [words.clone(), vec![word]].concat()))
        .collect();
    [shorter, longer].concat()
}

#[test]
fn decoded_words_are_the_best_of_all_paths_under_a_bigram() {
    let lexicon = lexicon();
    let states = lexicon.states();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..110 {
        let frames = 1 + seed as usize % 11;
        let transitions = transitions(seed, states);
        let lm = bigram(seed + 1000);
        // Powers of two: their products are exact, so that the enumeration may differ in order.
        let scales = Scales { acoustic_scale: 0.5, lm_scale: 2.0, word_penalty: 6.0 };
        let scores = scores(seed + 2000, frames, states);
        let scaled: Vec<f32> = scores.iter().map(|x| 0.5 * x).collect();
        let weight = |previous: usize, next: usize| {
            let penalty = if next == WORDS { 0.0 } else { 6.0 };
            2.0 * f64::from(lm[previous * (WORDS + 1) + next]) + penalty
        };
        let expected = best_of(sequences(frames / 3).into_iter().filter_map(|words| {
            let previous = [vec![WORDS], words.clone()].concat();
            let weights: Vec<f64> = previous
                .iter()
                .zip(&words)
                .map(|(&previous, &next)| weight(previous, next))
                .collect();
            let ways = ways(&lexicon, &words, &weights);
            let (score, _) =
                best_of(ways.iter().filter_map(|way| best_division(way, &transitions, &scaled)))?;
            Some((score + weight(previous[words.len()], WORDS), words))
        }));
        let decoder = Decoder::new(&lexicon, &transitions, &lm, scales);
        let hypothesis = decoder.decode(&scores);
        match expected {
            Some((score, words)) => {
                assert_eq!(hypothesis, Hypothesis { words, score }, "seed {seed}");
                seen.insert(hypothesis.words);
            }
            None => {
                let none = Hypothesis { words: vec![], score: f64::NEG_INFINITY };
                assert_eq!(hypothesis, none, "seed {seed}");
            }
        }
    }
    // The cases are not all the same.
    assert!(seen.len() >= 10 && seen.iter().any(|words| words.len() == 3), "{seen:?}");
}

#[test]
fn a_decoded_score_is_that_of_the_words_alignment() {
    // More frames and words than can be enumerated.
    let lexicon = lexicon();
    let states = lexicon.states();
    let lm = bigram(5);
    for seed in 0..10 {
        let transitions = transitions(seed, states);
        let scores = scores(seed + 1, 200, states);
        let scales = Scales { acoustic_scale: 1.0, lm_scale: 1.0, word_penalty: -1.0 };
        let hypothesis = Decoder::new(&lexicon, &transitions, &lm, scales).decode(&scores);
        let graph = UtteranceGraph::new(&lexicon, &hypothesis.words);
        let acoustic = align::viterbi(&graph, &transitions, &scores).unwrap().score;
        let bounds = [vec![WORDS], hypothesis.words.clone(), vec![WORDS]].concat();
        let language: f64 =
            bounds.windows(2).map(|pair| f64::from(lm[pair[0] * (WORDS + 1) + pair[1]])).sum();
        let words = hypothesis.words.len() as f64;
        assert!(words > 5.0);
        assert!((hypothesis.score - (acoustic + language - words)).abs() < 1e-9);
    }
}

#[test]
fn the_language_model_and_the_penalty_decide_between_homophones_and_insertions() {
    // Words 0 and 1 sound alike; what is heard is twice the one phone.
    let words: [&[Vec<usize>]; 2] = [&[vec![1]], &[vec![1]]];
    let lexicon = Lexicon::new(2, 0, words);
    let transitions = Transitions::even(6);
    let truth: [u16; 6] = [3, 4, 5, 3, 4, 5];
    let scores: Vec<f32> = truth
        .iter()
        .flat_map(|&state| (0..6).map(move |s| if s == state { 0.0 } else { -10.0 }))
        .collect();
    // After the start 0 is likelier, after 0 is 1.
    let lm = [-2.0, -0.5, -1.0, -1.0, -1.0, -1.0, -0.5, -2.0, -3.0];
    let decode = |word_penalty| {
        let scales = Scales { acoustic_scale: 1.0, lm_scale: 1.0, word_penalty };
        Decoder::new(&lexicon, &transitions, &lm, scales).decode(&scores).words
    };
    assert_eq!(decode(0.0), [0, 1]);
    assert_eq!(decode(-40.0), [0]);
}

#[test]
fn silence_and_nothing_have_no_words() {
    let lexicon = lexicon();
    let transitions = Transitions::even(9);
    let lm = bigram(0);
    let scales = Scales { acoustic_scale: 1.0, lm_scale: 1.0, word_penalty: 0.0 };
    let decoder = Decoder::new(&lexicon, &transitions, &lm, scales);
    let nothing = decoder.decode(&[]);
    assert_eq!(nothing, Hypothesis { words: vec![], score: f64::from(lm[15]) });
    let silence: Vec<f32> = [0, 0, 1, 2]
        .iter()
        .flat_map(|&state| (0..9).map(move |s| -20.0 * f32::from(u8::from(s != state))))
        .collect();
    assert!(decoder.decode(&silence).words.is_empty());
}

#[test]
fn many_utterances_keep_their_order_for_any_number_of_threads() {
    let lexicon = lexicon();
    let states = lexicon.states();
    let scales = Scales { acoustic_scale: 1.0, lm_scale: 1.0, word_penalty: 0.0 };
    let transitions = transitions(1, states);
    let decoder = Decoder::new(&lexicon, &transitions, &bigram(2), scales);
    let utterances: Vec<Vec<f32>> =
        (0..20).map(|i| scores(i, 3 + 5 * i as usize % 40, states)).collect();
    let utterances: Vec<&[f32]> = utterances.iter().map(Vec::as_slice).collect();
    let alone: Vec<Hypothesis> = utterances.iter().map(|scores| decoder.decode(scores)).collect();
    for threads in [1, 3] {
        assert_eq!(decoder.decode_all(&best(threads).pool, &utterances), alone);
    }
}

fn words(sentence: &str) -> Vec<&str> {
    sentence.split_whitespace().collect()
}

fn aligned(reference: &str, hypothesis: &str) -> Vec<Edit> {
    align_words(&words(reference), &words(hypothesis))
}

#[test]
fn alignments_by_hand() {
    assert_eq!(aligned("", ""), []);
    assert_eq!(aligned("A B", "A B"), [Match, Match]);
    assert_eq!(aligned("A B", ""), [Deletion, Deletion]);
    assert_eq!(aligned("", "A"), [Insertion]);
    assert_eq!(aligned("A B C", "A C"), [Match, Deletion, Match]);
    assert_eq!(aligned("A C", "A B C"), [Match, Insertion, Match]);
    assert_eq!(aligned("FIVE NINE", "FIVE FIVE NINE"), [Insertion, Match, Match]);
    // Both of length 2: one substitution and one insertion in either order.
    assert_eq!(aligned("A", "B C"), [Insertion, Substitution]);
    // As short as two substitutions are an insertion and a deletion around a match.
    assert_eq!(aligned("A B", "B A"), [Substitution, Substitution]);
    assert_eq!(
        aligned("GO TO ERASE M NINE", "GO RUBOUT N M NINE TWO"),
        [Match, Substitution, Substitution, Match, Match, Insertion]
    );
}

#[test]
fn errors_add_up() {
    let sum: WordErrors = [("A B C D", "A X C"), ("E", "E F G")]
        .map(|(reference, hypothesis)| word_errors(&words(reference), &words(hypothesis)))
        .into_iter()
        .sum();
    let expected = WordErrors { words: 5, substitutions: 1, insertions: 2, deletions: 1 };
    assert_eq!(sum, expected);
    assert_eq!((sum.total(), sum.rate()), (4, 0.8));
}

/// The distance by trying every way, without a table.
fn distance(reference: &[u32], hypothesis: &[u32]) -> usize {
    match (reference, hypothesis) {
        ([], rest) | (rest, []) => rest.len(),
        ([r, reference_rest @ ..], [h, hypothesis_rest @ ..]) => {
            let replaced = distance(reference_rest, hypothesis_rest) + usize::from(r != h);
            let deleted = distance(reference_rest, hypothesis) + 1;
            let inserted = distance(reference, hypothesis_rest) + 1;
            replaced.min(deleted).min(inserted)
        }
    }
}

#[test]
fn alignments_are_shortest_and_lead_from_reference_to_hypothesis() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut sentence = || -> Vec<u32> {
        let length = rng.next_u32() % 7;
        (0..length).map(|_| rng.next_u32() % 3).collect()
    };
    for _ in 0..500 {
        let (reference, hypothesis) = (sentence(), sentence());
        let edits = align_words(&reference, &hypothesis);
        let (mut i, mut j) = (0, 0);
        for &edit in &edits {
            match edit {
                Match => assert_eq!(reference[i], hypothesis[j]),
                Substitution => assert_ne!(reference[i], hypothesis[j]),
                Insertion | Deletion => {}
            }
            i += usize::from(edit != Insertion);
            j += usize::from(edit != Deletion);
        }
        assert_eq!((i, j), (reference.len(), hypothesis.len()));
        let errors = word_errors(&reference, &hypothesis);
        assert_eq!(errors.total(), distance(&reference, &hypothesis));
        assert_eq!(errors.words + errors.insertions, hypothesis.len() + errors.deletions);
    }
}
