//! Word error rate: how far a recognised sentence is from what was said.

use serde::Serialize;
use std::iter::Sum;

/// One step of an alignment, from the reference to the hypothesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// The next word of both is the same.
    Match,
    /// The next words differ.
    Substitution,
    /// The hypothesis has a word more.
    Insertion,
    /// The hypothesis lacks a word.
    Deletion,
}

/// Errors against a reference. Of several utterances they add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WordErrors {
    /// Words of the reference.
    pub words: usize,
    /// Words recognised as others.
    pub substitutions: usize,
    /// Words recognised that were not said.
    pub insertions: usize,
    /// Words not recognised.
    pub deletions: usize,
}

impl WordErrors {
    /// Substitutions, insertions and deletions together.
    pub fn total(&self) -> usize {
        self.substitutions + self.insertions + self.deletions
    }

    /// total/words, the WER: 0 or more, above 1 if insertions abound. Not a number, or infinite,
    /// without a word in the reference.
    pub fn rate(&self) -> f64 {
        self.total() as f64 / self.words as f64
    }
}

impl Sum for WordErrors {
    fn sum<I: Iterator<Item = WordErrors>>(errors: I) -> WordErrors {
        errors.fold(WordErrors::default(), |sum, one| WordErrors {
            words: sum.words + one.words,
            substitutions: sum.substitutions + one.substitutions,
            insertions: sum.insertions + one.insertions,
            deletions: sum.deletions + one.deletions,
        })
    }
}

/// The errors of the alignment that [`align`] chooses.
pub fn word_errors<W: PartialEq>(reference: &[W], hypothesis: &[W]) -> WordErrors {
    let mut errors = WordErrors { words: reference.len(), ..Default::default() };
    for edit in align(reference, hypothesis) {
        match edit {
            Edit::Match => {}
            Edit::Substitution => errors.substitutions += 1,
            Edit::Insertion => errors.insertions += 1,
            Edit::Deletion => errors.deletions += 1,
        }
    }
    errors
}

/// A shortest way from the reference to the hypothesis, each substitution, insertion and deletion
/// of cost 1 (Levenshtein 1966).
///
/// d(i, j), the distance between the first i and the first j words, is
/// min(d(i−1, j−1) + [words i and j differ], d(i−1, j) + 1, d(i, j−1) + 1). Of several shortest ways
/// the one whose last step, and so on towards the front, is the earliest of: match or substitution,
/// deletion, insertion. The total depends on no such choice; nor does insertions − deletions.
pub fn align<W: PartialEq>(reference: &[W], hypothesis: &[W]) -> Vec<Edit> {
    let width = hypothesis.len() + 1;
    let at = |i: usize, j: usize| i * width + j;
    let mut distance: Vec<usize> = (0..width).collect();
    distance.resize(width * (reference.len() + 1), 0);
    let differs = |i: usize, j: usize| usize::from(reference[i - 1] != hypothesis[j - 1]);
    for i in 1..=reference.len() {
        distance[at(i, 0)] = i;
        for j in 1..width {
            let replaced = distance[at(i - 1, j - 1)] + differs(i, j);
            let deleted = distance[at(i - 1, j)] + 1;
            let inserted = distance[at(i, j - 1)] + 1;
            distance[at(i, j)] = replaced.min(deleted).min(inserted);
        }
    }

    let mut edits = Vec::with_capacity(width.max(reference.len()));
    let (mut i, mut j) = (reference.len(), hypothesis.len());
    while i > 0 || j > 0 {
        let here = distance[at(i, j)];
        let edit = if i > 0 && j > 0 && here == distance[at(i - 1, j - 1)] + differs(i, j) {
            if differs(i, j) == 0 { Edit::Match } else { Edit::Substitution }
        } else if i > 0 && here == distance[at(i - 1, j)] + 1 {
            Edit::Deletion
        } else {
            Edit::Insertion
        };
        i -= usize::from(edit != Edit::Insertion);
        j -= usize::from(edit != Edit::Deletion);
        edits.push(edit);
    }
    edits.reverse();
    edits
}
