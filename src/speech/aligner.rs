//! The flat start: from transcripts to a state for each frame, with nothing aligned beforehand.
//!
//! Viterbi training of one mixture for each state, in the order of Kaldi's `train_mono.sh`:
//! 1. cut every utterance into equal parts, one for each state of its words;
//! 2. estimate the mixtures from the frames of their states, and split some of their Gaussians;
//! 3. align the frames by the mixtures, and go on with 2.

use crate::speech::align::{self, TooShort};
use crate::speech::gmm::Gmm;
use crate::speech::hmm::{Lexicon, Transitions, UtteranceGraph};
use limbeck_kernels::Pool;

/// The features of an utterance, and the words that were said.
#[derive(Clone, Copy, Debug)]
pub struct Utterance<'a> {
    /// [T, D], row-major.
    pub features: &'a [f32],
    /// The ids of the words, in order.
    pub words: &'a [usize],
}

/// How an aligner is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlignerOptions {
    /// Number of times that the mixtures are estimated. The frames are aligned again before each.
    pub iterations: usize,
    /// Number of Gaussians in the end, of all states together.
    pub gaussians: usize,
    /// Number of iterations at the end in which no Gaussian is added.
    pub settling: usize,
}

impl Default for AlignerOptions {
    fn default() -> Self {
        Self { iterations: 40, gaussians: 1000, settling: 10 }
    }
}

/// A trained aligner.
pub struct Aligner {
    /// p(x | state).
    pub gmm: Gmm,
    /// ln P of staying in each state, and of leaving it.
    pub transitions: Transitions,
    /// The score per frame of all alignments, for each iteration but the first.
    pub history: Vec<f64>,
}

/// An utterance that cannot be aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("utterance {utterance}: {reason}")]
pub struct Unalignable {
    /// The index of the utterance.
    pub utterance: usize,
    /// How many frames it has, and needs.
    #[source]
    pub reason: TooShort,
}

impl Aligner {
    /// Trains on `utterances` of `dim` features a frame; to the same bits on any number of threads.
    ///
    /// # Errors
    /// The first utterance that has fewer frames than its words, said in their first pronunciation
    /// with silence before and behind, have states.
    ///
    /// # Panics
    /// If there is no utterance.
    pub fn train(
        pool: &Pool,
        lexicon: &Lexicon,
        dim: usize,
        utterances: &[Utterance],
        options: &AlignerOptions,
    ) -> Result<Self, Unalignable> {
        let states = lexicon.states();
        let mut aligner = Self {
            gmm: Gmm::flat(states, dim, utterances.iter().map(|u| u.features)),
            transitions: Transitions::even(states),
            history: Vec::new(),
        };
        let mut alignments = in_order(utterances.iter().map(|utterance| {
            let path = lexicon.plain_path(utterance.words);
            align::equal(&path, utterance.features.len() / dim)
        }))?;
        let growing = options.iterations.saturating_sub(options.settling).max(1);
        for iteration in 1..=options.iterations {
            if iteration > 1 {
                let (score, aligned) = aligner.align(pool, lexicon, utterances)?;
                aligner.history.push(score);
                alignments = aligned;
            }
            let mut frames: Vec<Vec<&[f32]>> = vec![Vec::new(); states];
            for (utterance, alignment) in utterances.iter().zip(&alignments) {
                for (frame, &state) in utterance.features.chunks_exact(dim).zip(alignment) {
                    frames[usize::from(state)].push(frame);
                }
            }
            aligner.gmm.update(pool, &frames);
            aligner.transitions =
                Transitions::estimate(states, alignments.iter().map(Vec::as_slice));
            let target = states
                + options.gaussians.saturating_sub(states) * iteration.min(growing) / growing;
            if iteration < options.iterations {
                let counts: Vec<usize> = frames.iter().map(Vec::len).collect();
                aligner.gmm.grow(target, &counts);
            }
        }
        Ok(aligner)
    }

    /// Aligns each utterance: the score per frame of all, and the states `[T]` of each one's frames.
    ///
    /// # Errors
    /// The first utterance that has fewer frames than its words have states.
    pub fn align(
        &self,
        pool: &Pool,
        lexicon: &Lexicon,
        utterances: &[Utterance],
    ) -> Result<(f64, Vec<Vec<u16>>), Unalignable> {
        let states = lexicon.states();
        let aligned = in_order(pool.map(utterances.len(), |i| {
            let utterance = &utterances[i];
            let graph = UtteranceGraph::new(lexicon, utterance.words);
            // Only the states that occur are scored.
            let mut occurring: Vec<usize> = graph.states().iter().map(|&s| s.into()).collect();
            occurring.sort_unstable();
            occurring.dedup();
            let frames = utterance.features.len() / self.gmm.dim();
            let mut scores = vec![0.0; frames * states];
            let occurring = occurring.iter().copied();
            self.gmm.log_likelihoods_of(occurring, utterance.features, &mut scores);
            align::viterbi(&graph, &self.transitions, &scores)
        }))?;
        let frames: usize = aligned.iter().map(|alignment| alignment.states.len()).sum();
        let score: f64 = aligned.iter().map(|alignment| alignment.score).sum();
        let states = aligned.into_iter().map(|alignment| alignment.states).collect();
        Ok((score / frames as f64, states))
    }
}

/// Collects the results; or the first error, with the number of its utterance.
fn in_order<T>(
    results: impl IntoIterator<Item = Result<T, TooShort>>,
) -> Result<Vec<T>, Unalignable> {
    let numbered = results.into_iter().enumerate();
    numbered
        .map(|(utterance, result)| result.map_err(|reason| Unalignable { utterance, reason }))
        .collect()
}
