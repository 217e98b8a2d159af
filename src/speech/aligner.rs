//! The flat start: from transcripts to a state for each frame, with nothing aligned beforehand.
//!
//! Viterbi training of one mixture a state (Kaldi's `train_mono.sh` has the same course): every
//! utterance is cut into equal parts, one for each state of its words; then, in turn, the mixtures
//! are estimated from their frames and the frames are aligned by the mixtures, while the mixtures
//! grow.

use crate::speech::align::{self, TooShort};
use crate::speech::gmm::Gmm;
use crate::speech::hmm::{Graph, Lexicon, Transitions};
use limbeck_kernels::Pool;

/// What was said, and how it sounds.
#[derive(Clone, Copy, Debug)]
pub struct Utterance<'a> {
    /// [T, D].
    pub features: &'a [f32],
    /// The words' ids.
    pub words: &'a [usize],
}

/// How an aligner is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Estimations of the mixtures; the frames are aligned anew before each of them.
    pub iterations: usize,
    /// Gaussians of all states in the end.
    pub gaussians: usize,
    /// Iterations at the end in which no Gaussian is added.
    pub settling: usize,
}

impl Default for Recipe {
    fn default() -> Self {
        Self { iterations: 40, gaussians: 1000, settling: 10 }
    }
}

/// A trained aligner.
pub struct Aligner {
    /// p(x | state).
    pub gmm: Gmm,
    /// Of the states.
    pub transitions: Transitions,
    /// For each iteration the score of all alignments, a frame.
    pub history: Vec<f64>,
}

/// An utterance that cannot be aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("utterance {utterance}: {reason}")]
pub struct Unalignable {
    /// Its index.
    pub utterance: usize,
    /// Why.
    #[source]
    pub reason: TooShort,
}

impl Aligner {
    /// Trains an aligner on `utterances` of `dim` features a frame. The number of threads cannot
    /// change a bit.
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
        recipe: &Recipe,
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
        let growing = recipe.iterations.saturating_sub(recipe.settling).max(1);
        for iteration in 1..=recipe.iterations {
            if iteration > 1 {
                let (score, aligned) = aligner.align_scored(pool, lexicon, utterances)?;
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
            let target =
                states + recipe.gaussians.saturating_sub(states) * iteration.min(growing) / growing;
            if iteration < recipe.iterations {
                let counts: Vec<usize> = frames.iter().map(Vec::len).collect();
                aligner.gmm.grow(target, &counts);
            }
        }
        Ok(aligner)
    }

    /// Each utterance's states, `[T]`.
    ///
    /// # Errors
    /// The first utterance that has fewer frames than its words have states.
    pub fn align(
        &self,
        pool: &Pool,
        lexicon: &Lexicon,
        utterances: &[Utterance],
    ) -> Result<Vec<Vec<u16>>, Unalignable> {
        Ok(self.align_scored(pool, lexicon, utterances)?.1)
    }

    /// The alignments, and the score of all of them, a frame.
    fn align_scored(
        &self,
        pool: &Pool,
        lexicon: &Lexicon,
        utterances: &[Utterance],
    ) -> Result<(f64, Vec<Vec<u16>>), Unalignable> {
        let states = lexicon.states();
        let aligned = in_order(pool.map(utterances.len(), |i| {
            let utterance = &utterances[i];
            let graph = Graph::new(lexicon, utterance.words);
            // Only the states that occur are scored.
            let mut occurring: Vec<usize> =
                graph.states().iter().map(|&state| usize::from(state)).collect();
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

/// The results, or the first that is none.
fn in_order<T>(
    results: impl IntoIterator<Item = Result<T, TooShort>>,
) -> Result<Vec<T>, Unalignable> {
    let numbered = results.into_iter().enumerate();
    numbered
        .map(|(utterance, result)| result.map_err(|reason| Unalignable { utterance, reason }))
        .collect()
}
