//! Words from the logits of nets, and the scales of the search that finds them.

use super::labelled::Labelled;
use crate::engine::{metrics, mlp::Mlp};
use crate::run::summary::{Measure, Measures, Row};
use crate::speech::decode::{Decoder, Scales};
use crate::speech::wer::{WordErrors, word_errors};
use crate::speech::{corpus::UtteranceSet, lm::LanguageModel};
use limbeck_datasets::Split;
use limbeck_kernels::{Context, Pool};

/// The language models' names in the measures, and how the tables call them.
pub(super) const MODELS: [&str; 2] = ["unigram", "bigram"];
/// Frames of the held-out speakers that are wrong.
pub(super) const HOLDOUT_ERRORS: Measure = Measure::named("holdout_errors");

/// What was found with one of [`MODELS`]: `wer`, `substitutions`, a scale.
pub(super) fn word_measure(model: &str, what: &str) -> Measure {
    Measure::numbered(format!("{model}_{what}"))
}

/// ln p(frame | state) up to a constant of each frame, [T, S]: ln p(state | frame) − ln p(state),
/// where the softmax's denominator is such a constant. `prior_scale` is a factor of ln p(state); 0
/// for likelihoods, which need nothing taken off.
pub(super) fn scores(logits: &[f32], ln_priors: &[f32], prior_scale: f64) -> Vec<f32> {
    let taken: Vec<f32> = ln_priors.iter().map(|prior| prior_scale as f32 * prior).collect();
    let rows = logits.chunks_exact(ln_priors.len());
    rows.flat_map(|row| row.iter().zip(&taken).map(|(z, prior)| z - prior)).collect()
}

/// How logits are searched for words.
#[derive(Clone, Copy)]
pub(super) struct Search {
    pub prior_scale: f64,
    pub scales: Scales,
}

/// The grid from which the held-out speakers choose.
const PRIOR_SCALES: [f64; 3] = [0.3, 0.6, 1.0];
const ACOUSTIC_SCALES: [f64; 4] = [0.1, 0.2, 0.3, 0.5];
const LM_SCALES: [f64; 3] = [1.0, 2.0, 3.0];
const WORD_PENALTIES: [f64; 4] = [-6.0, -3.0, 0.0, 3.0];

impl Search {
    /// The search that a row was made with, for the language model of that name.
    fn of(row: &Row, model: &str) -> Option<Search> {
        let get = |what: &str| row.value(&word_measure(model, what));
        Some(Search {
            prior_scale: get("prior_scale")?,
            scales: Scales {
                acoustic_scale: get("acoustic_scale")?,
                lm_scale: get("lm_scale")?,
                word_penalty: get("word_penalty")?,
            },
        })
    }

    /// Those for both language models.
    pub fn both(row: &Row) -> Option<[Search; 2]> {
        Some([Search::of(row, MODELS[0])?, Search::of(row, MODELS[1])?])
    }
}

impl Labelled {
    /// The language model as the search wants it: [words + 1, words + 1].
    fn table(&self, model: &LanguageModel) -> Vec<f32> {
        let words = model.words();
        let all = || (0..words).map(Some).chain([None]);
        all().flat_map(|h| all().map(move |w| model.ln_prob(h, w) as f32)).collect()
    }

    pub(super) fn tables(&self) -> [Vec<f32>; 2] {
        [&self.material.unigram, &self.material.bigram].map(|model| self.table(model))
    }

    /// The word errors of each utterance of a part.
    pub(super) fn recognise(
        &self,
        pool: &Pool,
        part: &UtteranceSet,
        logits: &[f32],
        table: &[f32],
        search: Search,
    ) -> Vec<WordErrors> {
        let scores = scores(logits, &self.ln_priors, search.prior_scale);
        self.recognise_scored(pool, part, &scores, table, search.scales)
    }

    /// [`Labelled::recognise`] of the frames' [`scores`].
    fn recognise_scored(
        &self,
        pool: &Pool,
        part: &UtteranceSet,
        scores: &[f32],
        table: &[f32],
        scales: Scales,
    ) -> Vec<WordErrors> {
        let decoder = Decoder::new(&self.lexicon, &self.transitions, table, scales);
        let found = decoder.decode_all(pool, &part.by_utterance(scores, self.lexicon.states()));
        found.iter().zip(&part.words).map(|(h, words)| word_errors(words, &h.words)).collect()
    }

    /// For each language model the search with the fewest word errors on the held-out speakers, the
    /// first of several; the prior's scale is that of the unigram for both.
    pub(super) fn choose(&self, pool: &Pool, holdout: &[f32], prior_scales: &[f64]) -> [Search; 2] {
        let tables = self.tables();
        let best = |model: usize, prior_scales: &[f64], lm_scales: &[f64]| {
            let pairs = ACOUSTIC_SCALES.iter().flat_map(|a| lm_scales.iter().map(move |l| (a, l)));
            let scales = pairs.flat_map(|(&acoustic_scale, &lm_scale)| {
                WORD_PENALTIES.map(|word_penalty| Scales { acoustic_scale, lm_scale, word_penalty })
            });
            let scales: Vec<Scales> = scales.collect();
            let searches = prior_scales.iter().flat_map(|&prior_scale| {
                let scores = scores(holdout, &self.ln_priors, prior_scale);
                let errors = |&scales: &Scales| {
                    let (part, table) = (&self.material.holdout, &tables[model]);
                    let found = self.recognise_scored(pool, part, &scores, table, scales);
                    let errors: usize = found.iter().map(WordErrors::total).sum();
                    (errors, Search { prior_scale, scales })
                };
                scales.iter().map(errors).collect::<Vec<_>>()
            });
            searches.min_by_key(|(errors, _)| *errors).expect("a grid of at least one").1
        };
        // All words alike, the scale of the language model is one with the word penalty.
        let unigram = best(0, prior_scales, &[1.0]);
        [unigram, best(1, &[unigram.prior_scale], &LM_SCALES)]
    }

    /// What is made of the test speakers with these searches, from a system's logits.
    pub(super) fn word_measures(
        &self,
        pool: &Pool,
        test: &[f32],
        searches: [Search; 2],
    ) -> Measures {
        let mut measures = Measures::new();
        for ((name, search), table) in MODELS.iter().zip(searches).zip(self.tables()) {
            let part = &self.material.test;
            let errors: WordErrors =
                self.recognise(pool, part, test, &table, search).into_iter().sum();
            let figures = [
                ("wer", errors.rate()),
                ("substitutions", errors.substitutions as f64),
                ("insertions", errors.insertions as f64),
                ("deletions", errors.deletions as f64),
                ("prior_scale", search.prior_scale),
                ("acoustic_scale", search.scales.acoustic_scale),
                ("lm_scale", search.scales.lm_scale),
                ("word_penalty", search.scales.word_penalty),
            ];
            measures.extend(figures.map(|(what, value)| word_measure(name, what).of(value)));
        }
        measures
    }

    /// The measures of nets, from their logits of held-out and test frames, and the held-out
    /// errors; with the searches given or those that they choose.
    pub(super) fn measures(
        &self,
        context: &Context,
        [holdout, test]: [Vec<f32>; 2],
        searches: Option<[Search; 2]>,
    ) -> Measures {
        let pool = &context.pool;
        let searches = searches.unwrap_or_else(|| self.choose(pool, &holdout, &PRIOR_SCALES));
        let mut measures = self.word_measures(pool, &test, searches);
        let errors = errors_of(&holdout, &self.holdout, self.dataset.classes);
        measures.extend([HOLDOUT_ERRORS.of(errors as f64)]);
        for ((name, search), table) in MODELS.iter().zip(searches).zip(self.tables()) {
            let found = self.recognise(pool, &self.material.holdout, &holdout, &table, search);
            let errors: WordErrors = found.into_iter().sum();
            measures.extend([word_measure(name, "holdout_wer").of(errors.rate())]);
        }
        measures
    }

    pub(super) fn logits(&self, context: &Context, model: &Mlp) -> [Vec<f32>; 2] {
        [&self.holdout, &self.dataset.test].map(|split| model.logits(context, split))
    }
}

pub(super) fn errors_of(logits: &[f32], split: &Split, classes: usize) -> usize {
    metrics::errors(logits, split.labels.as_deref().unwrap_or_default(), classes)
}
