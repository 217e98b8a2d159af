//! The states of the frames: from transcripts by mixtures and a net, then frozen in a file.

use super::labelled::{Labelled, labelled};
use super::recognition::{HOLDOUT_ERRORS, errors_of, scores};
use crate::engine::{config::Config, trainer::Task};
use crate::files::error::{Error, Result};
use crate::paper::graph::{Memo, Node};
use crate::paper::{experiment_run::ExperimentRun, key::Key};
use crate::run::{summary::Row, training::combined_row};
use crate::speech::aligner::{Aligner, AlignerOptions, Utterance};
use crate::speech::corpus::{Alignments, SpeechCorpus};
use crate::speech::hmm::{Lexicon, Transitions, UtteranceGraph};
use crate::speech::{align, features};
use limbeck_kernels::{Context, Pool};
use std::{path::Path, rc::Rc, time::Instant};

const ALIGNMENT: &str = "alignment.safetensors";
/// Their variants in the summary.
pub(super) const MIXTURES: &str = "mixtures";
pub(super) const ALIGNER: &str = "aligner";

/// What the preset spends on the alignment.
#[derive(Clone)]
pub(super) struct Spend {
    /// Of the mixtures.
    pub recipe: AlignerOptions,
    /// Of the net that aligns, the seed aside, on unperturbed frames.
    pub config: Config,
}

/// The way from transcripts to frozen states.
pub(super) struct Alignment {
    pub material: Rc<SpeechCorpus>,
    pub spend: Spend,
    pub seed: u64,
    mixtures: Memo<(), Mixtures>,
    by_mixtures: Memo<(), Labelled>,
    frozen: Memo<(), Labelled>,
}

/// What the mixtures say.
struct Mixtures {
    /// ln p(frame | state of a phone) of each utterance of each part.
    likelihoods: [Vec<Vec<f32>>; 3],
    by_phone: Labelled,
    start: Instant,
}

impl Alignment {
    pub fn new(material: SpeechCorpus, spend: Spend, seed: u64) -> Rc<Alignment> {
        Rc::new(Alignment {
            material: Rc::new(material),
            spend,
            seed,
            mixtures: Memo::default(),
            by_mixtures: Memo::default(),
            frozen: Memo::default(),
        })
    }

    /// The mixtures, the net that aligns once more, and the file of the frozen states.
    pub fn nodes(self: &Rc<Self>) -> Vec<Node> {
        let seed = self.seed;
        let [mixtures, aligner, file] = [self.clone(), self.clone(), self.clone()];
        vec![
            Node::row(MIXTURES, seed, Vec::new(), move |run| {
                let found = mixtures.mixtures(&run.kernels().pool)?;
                let Mixtures { likelihoods, by_phone, start } = &*found;
                mixtures_row(run.kernels(), by_phone, likelihoods, seed, *start)
            }),
            Node::row(ALIGNER, seed, vec![Key::row(MIXTURES, seed)], move |run| {
                let by_mixtures = aligner.by_mixtures(&run.kernels().pool)?;
                let config = Config { seed, ..aligner.spend.config.clone() };
                let task = Task::hard(ALIGNER, &config, &by_mixtures.dataset.train);
                Ok(run.train(&by_mixtures.dataset, &task, seed)?.1)
            }),
            Node::file(ALIGNMENT, vec![Key::row(ALIGNER, seed)], move |run| file.freeze(run)),
        ]
    }

    /// The corpus with the frozen states, once the file of them is in the run folder.
    ///
    /// # Errors
    /// Those of [`Alignments::load`].
    pub fn frozen(&self, folder: &Path) -> Result<Rc<Labelled>> {
        self.frozen.get((), || {
            let alignments = Alignments::load(&folder.join(ALIGNMENT), &self.material)?;
            Ok(labelled(&self.material, self.material.lexicon.clone(), &alignments))
        })
    }

    fn mixtures(&self, pool: &Pool) -> Result<Rc<Mixtures>> {
        self.mixtures.get((), || {
            let (material, start) = (&*self.material, Instant::now());
            let part = &material.train;
            let utterances = part.mfcc.iter().zip(&part.words);
            let utterances =
                utterances.map(|(mfcc, words)| Utterance { features: &mfcc.values, words });
            let utterances: Vec<Utterance> = utterances.collect();
            let dim = 3 * features::CEPSTRA;
            let aligner =
                Aligner::train(pool, &material.phones, dim, &utterances, &self.spend.recipe)
                    .map_err(|e| Error::Dataset { message: format!("an4: {e}"), io: false })?;
            let likelihoods = material.parts().map(|part| {
                pool.map(part.mfcc.len(), |i| {
                    let features = &part.mfcc[i];
                    let mut scores = vec![0.0; features.frames() * material.phones.states()];
                    aligner.gmm.log_likelihoods(&features.values, &mut scores);
                    scores
                })
            });
            let phones = material.phones.clone();
            let by_phone = align_parts(material, &phones, &aligner.transitions, |part, i| {
                likelihoods[part][i].clone()
            })?;
            let by_phone = labelled(&self.material, phones, &by_phone);
            Ok(Mixtures { likelihoods, by_phone, start })
        })
    }

    /// The states of words by the mixtures of their phones.
    fn by_mixtures(&self, pool: &Pool) -> Result<Rc<Labelled>> {
        let mixtures = self.mixtures(pool)?;
        self.by_mixtures.get((), || {
            let Mixtures { likelihoods, by_phone, .. } = &*mixtures;
            let kinds = &self.material.phone_states;
            let of_kinds = |of: &[f64]| kinds.iter().map(|&kind| of[usize::from(kind)]).collect();
            let Transitions { stay, leave } = &by_phone.transitions;
            let transitions = Transitions { stay: of_kinds(stay), leave: of_kinds(leave) };
            let width = self.material.phones.states();
            let words = self.material.lexicon.clone();
            let aligned = align_parts(&self.material, &words, &transitions, |part, i| {
                let rows = likelihoods[part][i].chunks_exact(width);
                rows.flat_map(|row| kinds.iter().map(|&kind| row[usize::from(kind)])).collect()
            })?;
            Ok(labelled(&self.material, words, &aligned))
        })
    }

    /// Aligns by the net and writes the states.
    fn freeze(&self, run: &mut ExperimentRun) -> Result<()> {
        let net = run.model(&Key::row(ALIGNER, self.seed))?;
        let context = run.kernels();
        let by_mixtures = self.by_mixtures(&context.pool)?;
        let Labelled { lexicon, transitions, ln_priors, .. } = &*by_mixtures;
        let material = &self.material;
        let alignments = align_parts(material, lexicon, transitions, |part, i| {
            let utterance = material.parts()[part].utterance(i);
            scores(&net.logits(context, &utterance), ln_priors, 1.0)
        })?;
        alignments.save(&run.folder.root.join(ALIGNMENT))?;
        // Likelihoods of every frame, which nothing needs any more.
        self.mixtures.forget();
        self.by_mixtures.forget();
        Ok(())
    }
}

/// The best states of each utterance of each part; `scores` of (part, utterance) are [T, states].
fn align_parts(
    material: &SpeechCorpus,
    lexicon: &Lexicon,
    transitions: &Transitions,
    scores: impl Fn(usize, usize) -> Vec<f32>,
) -> Result<Alignments> {
    let mut parts = [const { Vec::new() }; 3];
    for (i, (part, aligned)) in material.parts().iter().zip(&mut parts).enumerate() {
        for (utterance, words) in part.words.iter().enumerate() {
            let graph = UtteranceGraph::new(lexicon, words);
            let found = align::viterbi(&graph, transitions, &scores(i, utterance));
            let found = found.map_err(|e| Error::Dataset {
                message: format!("an4: utterance {utterance} of part {i}: {e}"),
                io: false,
            })?;
            aligned.push(found.states);
        }
    }
    Ok(Alignments { parts })
}

/// The mixtures as recognisers, and as classifiers of frames by p(frame | state)·p(state).
fn mixtures_row(
    context: &Context,
    by_phone: &Labelled,
    [_, holdout, test]: &[Vec<Vec<f32>>; 3],
    seed: u64,
    start: Instant,
) -> Result<Row> {
    let Labelled { dataset, holdout: held, ln_priors, .. } = by_phone;
    let states = dataset.classes;
    let (holdout, test) = (holdout.concat(), test.concat());
    let posterior = |scores: &[f32]| -> Vec<f32> {
        let rows = scores.chunks_exact(states);
        rows.flat_map(|row| row.iter().zip(ln_priors).map(|(s, prior)| s + prior)).collect()
    };
    let pool = &context.pool;
    let searches = by_phone.choose(pool, &holdout, &[0.0]);
    let mut measures = by_phone.word_measures(pool, &test, searches);
    let errors = errors_of(&posterior(&holdout), held, states);
    measures.extend([HOLDOUT_ERRORS.of(errors as f64)]);
    let row = combined_row(dataset, MIXTURES, seed, &posterior(&test), start.elapsed())?;
    Ok(Row { measures, ..row })
}
