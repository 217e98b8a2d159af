//! Language models: the probability of a word after another.
//!
//! The vocabulary is the dictionary's words, by id; beside them a sentence has a start, which is
//! only ever the word before, and an end, which is only ever the word after.

use limbeck_datasets::an4::{Dictionary, Unigram};
use std::f64::consts::LN_10;

/// ln P(next | previous) for every pair.
#[derive(Debug, Clone, PartialEq)]
pub struct LanguageModel {
    words: usize,
    /// `[words + 1, words + 1]`: rows by the word before, columns by that after; start, end last.
    ln_probs: Vec<f64>,
}

impl LanguageModel {
    /// The unigram of an ARPA file, restricted to the dictionary and the end and normalised there:
    /// P(w) = p(w)/(Σ_v p(v) + p(end)), whatever the word before. A word that the file lacks has
    /// the p of its `<UNK>`; words that the dictionary lacks cannot be recognised and count for
    /// nothing.
    ///
    /// AN4's file gives everything 1/106 and lacks THIRTEEN and NOVEMBER; here each of 101 words
    /// and the end has 1/102. A decoder finds the same words as with 1/106: the factor is the same
    /// for each word, which is what a word penalty is.
    pub fn unigram(dictionary: &Dictionary, unigram: &Unigram) -> LanguageModel {
        let words = dictionary.words().iter().map(|word| unigram.log10_prob(&word.spelling));
        let ln: Vec<f64> = words.chain([unigram.log10_end()]).map(|log10| log10 * LN_10).collect();
        let largest = ln.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let ln_sum = largest + ln.iter().map(|x| (x - largest).exp()).sum::<f64>().ln();
        let row: Vec<f64> = ln.iter().map(|x| x - ln_sum).collect();
        LanguageModel { words: row.len() - 1, ln_probs: row.repeat(row.len()) }
    }

    /// The interpolated Witten-Bell bigram of sentences over a vocabulary of `words` words:
    ///
    /// P(w | h) = (c(h, w) + t(h)·P(w))/(c(h) + t(h)), P(w) = (c(w) + t/(words + 1))/(c + t),
    ///
    /// where c(h, w) counts the pair, c(h) pairs after h, c(w) the word or end, c all words and
    /// ends, t(h) the different words or ends after h, and t all different words or ends. The chance
    /// of something new after h is so the rate at which new words came after h. What never came
    /// before anything has P(w | h) = P(w). Every probability is above 0.
    ///
    /// Source: Witten & Bell, *The zero-frequency problem*, 1991; interpolated as in Chen &
    /// Goodman, *An empirical study of smoothing techniques for language modeling*, 1998.
    ///
    /// # Panics
    /// If a word is not below `words`.
    pub fn witten_bell(words: usize, sentences: &[Vec<usize>]) -> LanguageModel {
        let outcomes = words + 1;
        let mut pairs = vec![0u32; outcomes * outcomes];
        let mut single = vec![0u32; outcomes];
        for (previous, next) in sentences.iter().flat_map(|sentence| steps(sentence)) {
            let next = index(words, next);
            pairs[index(words, previous) * outcomes + next] += 1;
            single[next] += 1;
        }
        let uniform = vec![1.0 / outcomes as f64; outcomes];
        let lower = interpolated(&single, &uniform);
        let rows = pairs.chunks_exact(outcomes).flat_map(|row| interpolated(row, &lower));
        LanguageModel { words, ln_probs: rows.map(f64::ln).collect() }
    }

    /// The size of the vocabulary, without start and end.
    pub fn words(&self) -> usize {
        self.words
    }

    /// ln P(next | previous): `previous` is a word or the sentence's start (`None`), `next` a word
    /// or the sentence's end (`None`).
    ///
    /// # Panics
    /// If a word is not in the vocabulary.
    pub fn ln_prob(&self, previous: Option<usize>, next: Option<usize>) -> f64 {
        let (previous, next) = (index(self.words, previous), index(self.words, next));
        self.ln_probs[previous * (self.words + 1) + next]
    }
}

/// Row or column of a word, or of the start or end.
fn index(words: usize, word: Option<usize>) -> usize {
    let Some(word) = word else { return words };
    assert!(word < words, "word {word} of a vocabulary of {words}");
    word
}

/// (start, first), (first, second), …, (last, end).
fn steps(sentence: &[usize]) -> impl Iterator<Item = (Option<usize>, Option<usize>)> {
    let words = || sentence.iter().copied().map(Some);
    [None].into_iter().chain(words()).zip(words().chain([None]))
}

/// (cᵢ + t·lowerᵢ)/(Σc + t), t the number of cᵢ that are not 0; `lower` if all are.
fn interpolated(counts: &[u32], lower: &[f64]) -> Vec<f64> {
    let types = counts.iter().filter(|&&count| count > 0).count() as f64;
    let total: f64 = counts.iter().copied().map(f64::from).sum();
    if total == 0.0 {
        return lower.to_vec();
    }
    let prob = |(&count, lower): (&u32, &f64)| (f64::from(count) + types * lower) / (total + types);
    counts.iter().zip(lower).map(prob).collect()
}
