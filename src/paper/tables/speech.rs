//! The paper's section 4 on CMU AN4: ten acoustic models that differ in their seed, their
//! ensemble, and one model distilled from it.
//!
//! ```text
//! transcripts → mixtures of Gaussians (flat start) → a phone's state for each frame
//!             → the states of words, by the mixtures of their phones
//!             → a first net, which aligns once more → the frozen states, labels of all that follows
//! members     ten nets on the labels of the training part, each frame heard at three warps of the
//!             frequency axis (vocal tract length perturbation)
//! ensemble    the arithmetic mean of their posteriors
//! student     the same net without dropout, for longer, on the ensemble's soft targets of the same
//!             frames, its mean posterior p at T: softmax(ln p / T), weights 1 (soft), 0.5 (hard)
//! words       argmax over a loop of words of a·(ln p(state | frame) − ln p(state)) + …
//! ```
//!
//! Frame accuracy is agreement with the frozen states. Scales of the search and the temperature
//! are chosen on eight training speakers who are in no training set; the test speakers choose
//! nothing. Every single net is searched with the scales of the first member.

use crate::engine::config::{Config, DatasetKind, OptimizerKind};
use crate::engine::distill;
use crate::engine::loss::LossSpec;
use crate::engine::metrics;
use crate::engine::mlp::Mlp;
use crate::engine::trainer::Task;
use crate::files::error::{Error, Result};
use crate::paper::preset::Preset;
use crate::paper::study::{Conclusion, Design, Study};
use crate::run::chart::{Chart, Point, Series};
use crate::run::context::RunContext;
use crate::run::statistics::{self, Paired};
use crate::run::summary::{Claim, Row, Summary, Table, Verdict};
use crate::run::training::combined_row;
use crate::speech::align;
use crate::speech::aligner::{Aligner, Recipe, Utterance};
use crate::speech::decode::{Decoder, Scales};
use crate::speech::features;
use crate::speech::hmm::{Graph, Lexicon, Transitions};
use crate::speech::lm::LanguageModel;
use crate::speech::material::{Alignments, Material, Part, WARPS};
use crate::speech::wer::{WordErrors, word_errors};
use limbeck_datasets::{Dataset, Inputs, Split};
use limbeck_kernels::{Context, Pool};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// The file of the frozen states.
const ALIGNMENT: &str = "alignment.safetensors";
/// The systems' names in the summary.
const MIXTURES: &str = "mixtures";
const ALIGNER: &str = "aligner";
const MEMBER: &str = "member";
const ENSEMBLE: &str = "ensemble";
/// The language models' names in the measures, and how the tables call them.
const MODELS: [&str; 2] = ["unigram", "bigram"];
/// Weight of the hard term in the student's loss (paper, section 4).
const HARD_WEIGHT: f64 = 0.5;
/// Draws of a bootstrap.
const REPLICATES: usize = 10_000;
/// Published word error rates on the same 130 utterances, in percent. Kaldi's scales are chosen on
/// them.
const PUBLISHED: [(&str, &str); 7] = [
    ("Kaldi, monophone mixtures", "10.61"),
    ("Kaldi, triphone mixtures", "10.48"),
    ("Kaldi, LDA + MLLT", "11.38"),
    ("Kaldi, speaker-adapted, first pass", "9.06"),
    ("Kaldi, speaker-adapted, fMLLR", "5.95"),
    ("ESPnet2, transformer", "7.4"),
    ("deepspeech.pytorch", "9.6"),
];

fn student_at(temperature: f64) -> String {
    format!("student, T = {temperature}")
}

/// What a preset spends.
pub(super) struct Plan {
    recipe: Recipe,
    /// Of the net that aligns, the seed aside, on unperturbed frames.
    pub config: Config,
    /// Of the members.
    member: Config,
    student: Config,
    members: u64,
    temperatures: &'static [f64],
    /// At the chosen temperature.
    students: u64,
}

impl Plan {
    /// For nets of so many `states`.
    fn new(preset: Preset, states: usize) -> Plan {
        // Dropout and epochs of the standard nets are those with the fewest held-out errors of those
        // in results/speech-standard/README.md. An epoch of perturbed frames is one of each warp.
        let (layers, [epochs, member_epochs, student_epochs]): (&[usize], _) = match preset {
            Preset::Smoke => (&[64], [3, 1, 2]),
            Preset::Quick => (&[256, 256], [4, 2, 4]),
            Preset::Standard => (&[512, 512, 512], [8, 4, 6]),
            Preset::Paper => (&[1024, 1024, 1024], [12, 8, 16]),
        };
        let mut config = Config::default();
        let inputs = 26 * features::BINS;
        config.model.layers = [&[inputs], layers, &[states]].concat();
        (config.data.dataset, config.data.classes) = (DatasetKind::An4, states);
        config.training.epochs = epochs;
        config.training.batch_size = 256;
        config.training.optimizer = OptimizerKind::Adam;
        config.training.learning_rate = 1e-3;
        if preset != Preset::Smoke {
            let hidden = std::iter::repeat_n(0.15, layers.len());
            config.model.dropout = Some(std::iter::once(0.0).chain(hidden).collect());
        }
        let mut member = config.clone();
        member.training.epochs = member_epochs;
        // Soft targets are a regulariser themselves.
        let mut student = config.clone();
        student.model.dropout = None;
        student.training.epochs = student_epochs;
        let small = Recipe { iterations: 12, gaussians: 250, settling: 4 };
        let medium = Recipe { iterations: 20, gaussians: 500, settling: 6 };
        let (recipe, members, temperatures, students): (_, _, &[f64], _) = match preset {
            Preset::Smoke => (small, 2, &[2.0], 1),
            Preset::Quick => (medium, 3, &[2.0, 5.0], 1),
            Preset::Standard => (Recipe::default(), 10, &[1.0, 2.0, 5.0, 10.0], 3),
            Preset::Paper => (Recipe::default(), 10, &[1.0, 2.0, 5.0, 10.0], 5),
        };
        Plan { recipe, config, member, student, members, temperatures, students }
    }
}

/// The corpus, and what the preset spends on it.
///
/// # Errors
/// [`Error::Usage`] without a data folder; those of [`Material::load`].
pub(super) fn prepare(run: &RunContext, preset: Preset) -> Result<(Material, Plan)> {
    let data = run.data.ok_or_else(|| {
        Error::Usage(
            "speech needs a data folder that holds an4/: set --data or LIMBECK_DATA".into(),
        )
    })?;
    // Training, held-out and test speakers.
    let speakers = match preset {
        Preset::Smoke => Some([6, 1, 2]),
        Preset::Quick => Some([22, 4, 10]),
        Preset::Standard | Preset::Paper => None,
    };
    let material = Material::load(&run.context.pool, data, speakers)?;
    let plan = Plan::new(preset, material.lexicon.states());
    Ok((material, plan))
}

/// The corpus with states of its frames.
pub(super) struct Labelled {
    pub material: Material,
    /// Whose states they are.
    lexicon: Lexicon,
    pub dataset: Dataset,
    pub holdout: Split,
    /// The training part at every warp, with the states of the unwarped frames.
    perturbed: Split,
    /// Estimated from the training part's states.
    transitions: Transitions,
    /// ln of each state's share of the training frames.
    ln_priors: Vec<f32>,
}

/// The data set before there are states: the training and the test part of the corpus.
pub(super) fn unlabelled(material: &Material) -> Dataset {
    Dataset {
        name: "an4".into(),
        classes: material.lexicon.states(),
        train: material.train.split(None),
        test: material.test.split(None),
        sha256: material.sha256.clone(),
    }
}

fn labelled(material: Material, lexicon: Lexicon, alignments: &Alignments) -> Labelled {
    let [train, holdout, test] = &alignments.parts;
    let states = lexicon.states();
    let dataset = Dataset {
        classes: states,
        train: material.train.split(Some(train)),
        test: material.test.split(Some(test)),
        ..unlabelled(&material)
    };
    // One frame more of each state, so that none is impossible.
    let mut counts = vec![1.0; states];
    train.iter().flatten().for_each(|&state| counts[usize::from(state)] += 1.0);
    let total: f64 = counts.iter().sum();
    let states_of_all = train.concat().repeat(WARPS.len());
    Labelled {
        perturbed: Split {
            inputs: Inputs::Features(material.perturbed.clone()),
            labels: Some(states_of_all),
        },
        holdout: material.holdout.split(Some(holdout)),
        transitions: Transitions::estimate(states, train.iter().map(Vec::as_slice)),
        ln_priors: counts.iter().map(|count| libm::log(count / total) as f32).collect(),
        dataset,
        lexicon,
        material,
    }
}

/// The frozen states: read if they were found before, else found by mixtures and one net.
pub(super) fn freeze(
    run: &mut RunContext,
    study: &mut Study,
    plan: &Plan,
    material: Material,
    seed: u64,
) -> Result<Labelled> {
    let path = study.folder.root.join(ALIGNMENT);
    let words = material.lexicon.clone();
    // Their rows come first, also where the states were found before.
    study.has(&[MIXTURES, ALIGNER], seed)?;
    let Some(_claim) = study.claim_file(run, ALIGNMENT)? else {
        let alignments = Alignments::load(&path, &material)?;
        return Ok(labelled(material, words, &alignments));
    };
    let start = Instant::now();
    let pool = &run.context.pool;
    let aligner = {
        let part = &material.train;
        let utterances = part.mfcc.iter().zip(&part.words);
        let utterances: Vec<Utterance> = utterances
            .map(|(features, words)| Utterance { features: &features.values, words })
            .collect();
        let dim = 3 * features::CEPSTRA;
        Aligner::train(pool, &material.phones, dim, &utterances, &plan.recipe)
            .map_err(|e| Error::Dataset { message: format!("an4: {e}"), io: false })?
    };
    let likelihoods = material.parts().map(|part| {
        pool.map(part.mfcc.len(), |i| {
            let features = &part.mfcc[i];
            let mut scores = vec![0.0; features.frames() * material.phones.states()];
            aligner.gmm.log_likelihoods(&features.values, &mut scores);
            scores
        })
    });
    let phones = material.phones.clone();
    let by_phone = align_parts(&material, &phones, &aligner.transitions, |part, i| {
        likelihoods[part][i].clone()
    })?;
    let by_phone = labelled(material, phones, &by_phone);
    study.ensure_row(run, MIXTURES, seed, |run| {
        mixtures_row(run, &by_phone, &likelihoods, seed, start)
    })?;
    let Labelled { material, transitions, .. } = by_phone;
    let kinds = &material.phone_states;
    let of_kinds = |values: &[f64]| kinds.iter().map(|&kind| values[usize::from(kind)]).collect();
    let transitions =
        Transitions { stay: of_kinds(&transitions.stay), leave: of_kinds(&transitions.leave) };
    let width = material.phones.states();
    let by_mixtures = align_parts(&material, &words, &transitions, |part, i| {
        let rows = likelihoods[part][i].chunks_exact(width);
        rows.flat_map(|row| kinds.iter().map(|&kind| row[usize::from(kind)])).collect()
    })?;
    let by_mixtures = labelled(material, words, &by_mixtures);
    let config = Config { seed, ..plan.config.clone() };
    let task = Task::hard(ALIGNER, &config, &by_mixtures.dataset.train);
    let dataset = &by_mixtures.dataset;
    let net = study.model_on(run, dataset, &task, seed, |_, _, _| Ok(BTreeMap::new()))?;
    let Labelled { material, lexicon: words, transitions, ln_priors, .. } = by_mixtures;
    let alignments = align_parts(&material, &words, &transitions, |part, i| {
        let utterance = material.parts()[part].utterance(i);
        scores(&net.logits(run.context, &utterance), &ln_priors, 1.0)
    })?;
    alignments.save(&path)?;
    Ok(labelled(material, words, &alignments))
}

/// The best states of each utterance of each part; `scores` of (part, utterance) are [T, states].
fn align_parts(
    material: &Material,
    lexicon: &Lexicon,
    transitions: &Transitions,
    scores: impl Fn(usize, usize) -> Vec<f32>,
) -> Result<Alignments> {
    let mut parts = [const { Vec::new() }; 3];
    for (i, (part, aligned)) in material.parts().iter().zip(&mut parts).enumerate() {
        for (utterance, words) in part.words.iter().enumerate() {
            let graph = Graph::new(lexicon, words);
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

/// ln p(frame | state) up to a constant of each frame, [T, S]: ln p(state | frame) − ln p(state),
/// where the softmax's denominator is such a constant. `prior_scale` is a factor of ln p(state); 0
/// for likelihoods, which need nothing taken off.
fn scores(logits: &[f32], ln_priors: &[f32], prior_scale: f64) -> Vec<f32> {
    let taken: Vec<f32> = ln_priors.iter().map(|prior| prior_scale as f32 * prior).collect();
    let rows = logits.chunks_exact(ln_priors.len());
    rows.flat_map(|row| row.iter().zip(&taken).map(|(z, prior)| z - prior)).collect()
}

/// How logits are searched for words.
#[derive(Clone, Copy)]
struct Search {
    prior_scale: f64,
    scales: Scales,
}

/// The grid from which the held-out speakers choose. The acoustic scale is relative to the
/// transitions.
const PRIOR_SCALES: [f64; 3] = [0.3, 0.6, 1.0];
const ACOUSTIC_SCALES: [f64; 4] = [0.1, 0.2, 0.3, 0.5];
const LM_SCALES: [f64; 3] = [1.0, 2.0, 3.0];
const WORD_PENALTIES: [f64; 4] = [-6.0, -3.0, 0.0, 3.0];

impl Search {
    /// The search that a row was made with, for the language model of that name.
    fn of(row: &Row, model: &str) -> Option<Search> {
        let get = |what: &str| row.measures.get(&format!("{model}_{what}")).copied();
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
    fn both(row: &Row) -> Option<[Search; 2]> {
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

    fn tables(&self) -> [Vec<f32>; 2] {
        [&self.material.unigram, &self.material.bigram].map(|model| self.table(model))
    }

    /// The word errors of each utterance of a part.
    fn recognise(
        &self,
        pool: &Pool,
        part: &Part,
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
        part: &Part,
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
    fn choose(&self, pool: &Pool, holdout: &[f32], prior_scales: &[f64]) -> [Search; 2] {
        let tables = self.tables();
        let best = |model: usize, prior_scales: &[f64], lm_scales: &[f64]| {
            let mut best: Option<(usize, Search)> = None;
            for &prior_scale in prior_scales {
                let scores = scores(holdout, &self.ln_priors, prior_scale);
                for acoustic_scale in ACOUSTIC_SCALES {
                    for &lm_scale in lm_scales {
                        for word_penalty in WORD_PENALTIES {
                            let scales = Scales { acoustic_scale, lm_scale, word_penalty };
                            let search = Search { prior_scale, scales };
                            let part = &self.material.holdout;
                            let table = &tables[model];
                            let found = self.recognise_scored(pool, part, &scores, table, scales);
                            let errors = found.iter().map(WordErrors::total).sum();
                            if best.is_none_or(|(fewest, _)| errors < fewest) {
                                best = Some((errors, search));
                            }
                        }
                    }
                }
            }
            best.expect("a grid of at least one").1
        };
        // All words alike, the scale of the language model is one with the word penalty.
        let unigram = best(0, prior_scales, &[1.0]);
        [unigram, best(1, &[unigram.prior_scale], &LM_SCALES)]
    }

    /// What is made of the test speakers with these searches, from a system's logits.
    fn word_measures(
        &self,
        pool: &Pool,
        test: &[f32],
        searches: [Search; 2],
    ) -> BTreeMap<String, f64> {
        let mut measures = BTreeMap::new();
        for ((name, search), table) in MODELS.iter().zip(searches).zip(self.tables()) {
            let part = &self.material.test;
            let errors: WordErrors =
                self.recognise(pool, part, test, &table, search).into_iter().sum();
            for (what, value) in [
                ("wer", errors.rate()),
                ("substitutions", errors.substitutions as f64),
                ("insertions", errors.insertions as f64),
                ("deletions", errors.deletions as f64),
                ("prior_scale", search.prior_scale),
                ("acoustic_scale", search.scales.acoustic_scale),
                ("lm_scale", search.scales.lm_scale),
                ("word_penalty", search.scales.word_penalty),
            ] {
                measures.insert(format!("{name}_{what}"), value);
            }
        }
        measures
    }

    /// The measures of nets, from their logits of held-out and test frames, and the held-out
    /// errors; with the searches given or those that they choose.
    fn measures(
        &self,
        context: &Context,
        [holdout, test]: [Vec<f32>; 2],
        searches: Option<[Search; 2]>,
    ) -> BTreeMap<String, f64> {
        let pool = &context.pool;
        let searches = searches.unwrap_or_else(|| self.choose(pool, &holdout, &PRIOR_SCALES));
        let mut measures = self.word_measures(pool, &test, searches);
        let errors = errors_of(&holdout, &self.holdout, self.dataset.classes);
        measures.insert("holdout_errors".into(), errors as f64);
        for ((name, search), table) in MODELS.iter().zip(searches).zip(self.tables()) {
            let found = self.recognise(pool, &self.material.holdout, &holdout, &table, search);
            let errors: WordErrors = found.into_iter().sum();
            measures.insert(format!("{name}_holdout_wer"), errors.rate());
        }
        measures
    }

    fn logits(&self, context: &Context, model: &Mlp) -> [Vec<f32>; 2] {
        [&self.holdout, &self.dataset.test].map(|split| model.logits(context, split))
    }
}

fn errors_of(logits: &[f32], split: &Split, classes: usize) -> usize {
    metrics::errors(logits, split.labels.as_deref().unwrap_or_default(), classes)
}

/// The mixtures as recognisers, and as classifiers of frames by p(frame | state)·p(state).
fn mixtures_row(
    run: &RunContext,
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
    let pool = &run.context.pool;
    let searches = by_phone.choose(pool, &holdout, &[0.0]);
    let mut measures = by_phone.word_measures(pool, &test, searches);
    let errors = errors_of(&posterior(&holdout), held, states);
    measures.insert("holdout_errors".into(), errors as f64);
    let row = combined_row(dataset, MIXTURES, seed, &posterior(&test), start.elapsed())?;
    Ok(Row { measures, ..row })
}

/// Aligns, trains members and students, and recognises, in the run folder `out`.
///
/// # Errors
/// [`Error::Usage`] without a data folder that holds `an4/`; those of [`Material::load`] and of
/// [`super::mnist::reproduce`].
pub fn reproduce(
    run: &mut RunContext,
    preset: Preset,
    first_seed: u64,
    out: &Path,
) -> Result<Summary> {
    let (material, plan) = prepare(run, preset)?;
    let bare = unlabelled(&material);
    let seeds: Vec<u64> = (first_seed..first_seed + plan.members + plan.students).collect();
    let objective = |temperature: f64| LossSpec {
        temperature: temperature as f32,
        soft_weight: 1.0,
        hard_weight: HARD_WEIGHT as f32,
    };
    let design = Design {
        experiment: "speech",
        preset: preset.name(),
        configs: &[("aligner", &plan.config), ("member", &plan.member), ("student", &plan.student)],
        loss_contract: Some(objective(plan.temperatures[0]).contract()),
        paper: &[],
    };
    let mut study = Study::open(run, &bare, &design, &seeds, out)?;
    let labelled = freeze(run, &mut study, &plan, material, first_seed)?;
    let (members, students) = seeds.split_at(plan.members as usize);
    let (members, students) = study.run(run, |run, study| {
        let nets = train_members(run, study, &plan, &labelled, members)?;
        let searches = first_search(study, members);
        let nets_and_searches = (&nets[..], searches);
        let students =
            distilled(run, study, &plan, &labelled, nets_and_searches, students, objective)?;
        Ok((nets, students))
    })?;
    let comparison = Comparison::new(run.context, &labelled, &members, &students, &study.summary)?;
    study.finish(|summary| conclude(summary, &plan, &labelled, &students, &comparison))
}

fn train_members(
    run: &mut RunContext,
    study: &mut Study,
    plan: &Plan,
    labelled: &Labelled,
    seeds: &[u64],
) -> Result<Vec<Mlp>> {
    let member = |run: &mut RunContext, study: &mut Study, seed| {
        train_member(run, study, plan, labelled, seeds, seed)
    };
    study.share_out(run, seeds, |&seed| (MEMBER.into(), seed), member)?;
    let mut members = Vec::new();
    for &seed in seeds {
        members.push(member(run, study, seed)?);
    }
    let dataset = &labelled.dataset;
    study.ensure_row(run, ENSEMBLE, seeds[0], |run| {
        let start = Instant::now();
        let logits = mean_logits(run.context, labelled, &members);
        let row = combined_row(dataset, ENSEMBLE, seeds[0], &logits[1], start.elapsed())?;
        let measures = labelled.measures(run.context, logits, None);
        Ok(Row { measures, ..row })
    })?;
    Ok(members)
}

/// One of the members; it is searched as the first one is.
fn train_member(
    run: &mut RunContext,
    study: &mut Study,
    plan: &Plan,
    labelled: &Labelled,
    seeds: &[u64],
    seed: u64,
) -> Result<Mlp> {
    let config = Config { seed, ..plan.member.clone() };
    let task = Task::hard(MEMBER, &config, &labelled.perturbed);
    study.model_on(run, &labelled.dataset, &task, seed, |run, study, model| {
        // Another process may be at it.
        if seed != seeds[0] && !study.has(&[MEMBER], seeds[0])? {
            train_member(run, study, plan, labelled, seeds, seeds[0])?;
        }
        let logits = labelled.logits(run.context, model);
        Ok(labelled.measures(run.context, logits, first_search(study, seeds)))
    })
}

/// How the first of the members is searched, once that is known.
fn first_search(study: &Study, members: &[u64]) -> Option<[Search; 2]> {
    study.summary.row(MEMBER, members[0]).and_then(Search::both)
}

/// The logits of the members' mean posterior on held-out and test frames.
fn mean_logits(context: &Context, labelled: &Labelled, members: &[Mlp]) -> [Vec<f32>; 2] {
    [&labelled.holdout, &labelled.dataset.test]
        .map(|split| distill::teacher_logits(context, members, split, 1.0, None))
}

/// The students at the temperature with the fewest held-out errors.
struct Students {
    temperature: f64,
    models: Vec<Mlp>,
}

fn distilled(
    run: &mut RunContext,
    study: &mut Study,
    plan: &Plan,
    labelled: &Labelled,
    (members, searches): (&[Mlp], Option<[Search; 2]>),
    seeds: &[u64],
    objective: impl Fn(f64) -> LossSpec,
) -> Result<Students> {
    let set = &labelled.perturbed;
    let context = run.context;
    // Gigabytes and minutes: the same at every temperature, and only if a student is missing.
    let ensemble = || distill::teacher_logits(context, members, set, 1.0, None);
    let logits = OnceCell::new();
    let train = |run: &mut RunContext, study: &mut Study, (temperature, seed): (f64, u64)| {
        let name = student_at(temperature);
        let config = Config { seed, ..plan.student.clone() };
        let lacks = study.lacks(run, &name, seed)?;
        let logits: &[f32] = if lacks { logits.get_or_init(ensemble) } else { &[] };
        let task = Task::soft(&name, &config, set, objective(temperature), logits);
        study.model_on(run, &labelled.dataset, &task, seed, |run, _, model| {
            let logits = labelled.logits(run.context, model);
            Ok(labelled.measures(run.context, logits, searches))
        })
    };
    let train_all =
        |run: &mut RunContext, study: &mut Study, nets: &[(f64, u64)]| -> Result<Vec<Mlp>> {
            study.share_out(run, nets, |&(t, seed)| (student_at(t), seed), train)?;
            nets.iter().map(|&net| train(run, study, net)).collect()
        };
    let each: Vec<_> = plan.temperatures.iter().map(|&t| (t, seeds[0])).collect();
    train_all(run, study, &each)?;
    let errors = |t: f64| {
        let row = study.summary.row(&student_at(t), seeds[0]);
        row.and_then(|row| row.measures.get("holdout_errors").copied()).unwrap_or(f64::INFINITY)
    };
    let best = plan.temperatures.iter().copied().min_by(|&a, &b| errors(a).total_cmp(&errors(b)));
    let temperature = best.ok_or_else(|| Error::Internal("no temperature".into()))?;
    let nets: Vec<_> = seeds.iter().map(|&seed| (temperature, seed)).collect();
    let models = train_all(run, study, &nets)?;
    Ok(Students { temperature, models })
}

/// Paired comparisons on the test utterances: what happened in each, of several nets the mean.
struct Comparison {
    /// Frames that were wrong, and word errors for each language model.
    errors: BTreeMap<&'static str, [Vec<f64>; 3]>,
    frames: Vec<f64>,
    words: Vec<f64>,
}

const STUDENT: &str = "student";

impl Comparison {
    fn new(
        context: &Context,
        labelled: &Labelled,
        members: &[Mlp],
        students: &Students,
        summary: &Summary,
    ) -> Result<Comparison> {
        // Single nets are searched as the first member is.
        let [alone, joined] = [MEMBER, ENSEMBLE].map(|system| {
            let row = summary.rows_of(system).next().and_then(Search::both);
            row.ok_or_else(|| Error::Internal(format!("no search of the {system}")))
        });
        let (alone, joined) = (alone?, joined?);
        let part = &labelled.material.test;
        let labels = labelled.dataset.test.labels.as_deref().unwrap_or_default();
        let classes = labelled.dataset.classes;
        let tables = labelled.tables();
        let of = |logits: &[f32], searches: [Search; 2]| -> [Vec<f64>; 3] {
            let frames = part
                .by_utterance(logits, classes)
                .into_iter()
                .zip(part.by_utterance(labels, 1))
                .map(|(logits, labels)| metrics::errors(logits, labels, classes) as f64);
            let words = [0, 1].map(|model| {
                let (table, search) = (&tables[model], searches[model]);
                let found = labelled.recognise(&context.pool, part, logits, table, search);
                found.iter().map(|errors| errors.total() as f64).collect::<Vec<_>>()
            });
            let [unigram, bigram] = words;
            [frames.collect(), unigram, bigram]
        };
        let mean = |models: &[Mlp]| {
            let test = &labelled.dataset.test;
            let each = models.iter().map(|model| of(&model.logits(context, test), alone));
            let sum = each.reduce(|mut sum, one| {
                for (sum, one) in sum.iter_mut().zip(one) {
                    sum.iter_mut().zip(one).for_each(|(sum, x)| *sum += x);
                }
                sum
            });
            let n = models.len() as f64;
            sum.unwrap_or_default().map(|sum| sum.into_iter().map(|x| x / n).collect())
        };
        let [_, ensemble] = mean_logits(context, labelled, members);
        Ok(Comparison {
            errors: BTreeMap::from([
                (MEMBER, mean(members)),
                (ENSEMBLE, of(&ensemble, joined)),
                (STUDENT, mean(&students.models)),
            ]),
            frames: part.lengths.iter().map(|&n| n as f64).collect(),
            words: part.words.iter().map(|words| words.len() as f64).collect(),
        })
    }

    /// How much lower the second system's rate is, of frames (0), or words by a language model.
    fn gain(&self, first: &str, second: &str, what: usize) -> statistics::Difference {
        let weights = if what == 0 { &self.frames } else { &self.words };
        let pairs = self.errors[second][what].iter().zip(&self.errors[first][what]).zip(weights);
        let pairs: Vec<Paired> =
            pairs.map(|((&first, &second), &weight)| Paired { first, second, weight }).collect();
        statistics::paired_bootstrap(&pairs, REPLICATES, 0)
    }
}

/// Percent, in two decimals.
fn percent(x: f64) -> String {
    format!("{:.2}", 100.0 * x)
}

fn conclude(
    summary: &Summary,
    plan: &Plan,
    labelled: &Labelled,
    students: &Students,
    comparison: &Comparison,
) -> Conclusion {
    let frames = labelled.dataset.test.len() as f64;
    let accuracy = |row: &Row| Some(100.0 * (1.0 - row.test_errors as f64 / frames));
    let wer = |model: &'static str| {
        move |row: &Row| row.measures.get(&format!("{model}_wer")).map(|wer| 100.0 * wer)
    };
    let student = student_at(students.temperature);
    let mut table = Table::new(
        format!("Test frame accuracy and word error rate on AN4, percent, {}", summary.preset),
        &["system", "frame accuracy", "paper", "WER, unigram", "WER, bigram", "paper"],
    );
    for (system, name, paper) in [
        (MIXTURES, "mixtures of Gaussians, states of phones".to_string(), ["–", "–"]),
        (MEMBER, format!("baseline, mean of {}", plan.members), ["58.9", "10.9"]),
        (ENSEMBLE, format!("ensemble of {}", plan.members), ["61.1", "10.7"]),
        (&student, format!("distilled, T = {}", students.temperature), ["60.8", "10.7"]),
    ] {
        table.push([
            name,
            summary.shown(system, 2, accuracy),
            paper[0].into(),
            summary.shown(system, 2, wer(MODELS[0])),
            summary.shown(system, 2, wer(MODELS[1])),
            paper[1].into(),
        ]);
    }
    let words: usize = labelled.material.test.words.iter().map(Vec::len).sum();
    let mut kinds = Table::new(
        format!("Word errors of {words}: substitutions, insertions, deletions; mean of the nets"),
        &["system", "unigram", "bigram"],
    );
    for system in [MIXTURES, MEMBER, ENSEMBLE, &student] {
        let cells = MODELS.map(|model| {
            let mean = |what: &str| {
                let name = format!("{model}_{what}");
                let found: Vec<f64> = summary
                    .rows_of(system)
                    .filter_map(|row| row.measures.get(&name).copied())
                    .collect();
                format!("{:.1}", statistics::mean(&found))
            };
            ["substitutions", "insertions", "deletions"].map(mean).join(", ")
        });
        kinds.push(std::iter::once(system.to_string()).chain(cells));
    }
    let labels = labelled.dataset.test.labels.as_deref().unwrap_or_default();
    let mut counts = vec![0usize; labelled.dataset.classes];
    labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
    let silence: usize = labelled.lexicon.silence().iter().map(|&s| counts[usize::from(s)]).sum();
    let commonest = counts.iter().copied().max().unwrap_or(0) as f64 / frames;
    table.notes.push(format!(
        "Frame accuracy is agreement with the frozen aligner: {} % of the {frames} test frames are \
         silence, {} % the commonest of {} states.",
        percent(silence as f64 / frames),
        percent(commonest),
        counts.len()
    ));
    table.notes.push(
        "The mixtures are judged on the states of phones, 102, which are easier to tell apart."
            .into(),
    );
    table.notes.push(
        "± standard deviation of the nets. Scales and temperature chosen on eight held-out \
         training speakers. The paper's figures are of its own corpus."
            .into(),
    );
    let mut published = Table::new("Published word error rates on the same test set", &["", "WER"]);
    for (system, wer) in PUBLISHED {
        published.push([system.to_string(), wer.to_string()]);
    }
    published
        .notes
        .push("Unigram, all words alike; Kaldi's scales are chosen on the test set.".into());
    let mut paired = Table::new(
        "Paired bootstrap over the test utterances: by how many percent points the second is better",
        &["", "frames", "words, unigram", "words, bigram"],
    );
    for (first, second, name) in [
        (MEMBER, ENSEMBLE, "baseline → ensemble"),
        (MEMBER, STUDENT, "baseline → distilled"),
        (STUDENT, ENSEMBLE, "distilled → ensemble"),
    ] {
        let cells = [0, 1, 2].map(|what| {
            let statistics::Difference { difference, low, high, .. } =
                comparison.gain(first, second, what);
            format!("{} ({} to {})", percent(difference), percent(low), percent(high))
        });
        paired.push(std::iter::once(name.to_string()).chain(cells));
    }
    paired.notes.push(format!("Difference and 95 % interval of {REPLICATES} draws."));
    let mut by_temperature = Table::new(
        "Students by temperature, percent; weights 1 (soft) and 0.5 (hard)",
        &["T", "held-out frame accuracy", "test frame accuracy", "WER, unigram", "WER, bigram"],
    );
    let held = labelled.holdout.len() as f64;
    let holdout = |row: &Row| Some(100.0 * (1.0 - row.measures.get("holdout_errors")? / held));
    for &t in plan.temperatures {
        let system = student_at(t);
        by_temperature.push([
            t.to_string(),
            summary.shown(&system, 2, holdout),
            summary.shown(&system, 2, accuracy),
            summary.shown(&system, 2, wer(MODELS[0])),
            summary.shown(&system, 2, wer(MODELS[1])),
        ]);
    }
    let points = |of: &dyn Fn(&Row) -> Option<f64>| {
        let points = plan.temperatures.iter().filter_map(|&x| {
            let system = student_at(x);
            let values: Vec<f64> = summary.rows_of(&system).filter_map(of).collect();
            Point::of(x, &values)
        });
        points.collect::<Vec<_>>()
    };
    let mean_of = |system: &str| {
        statistics::mean(&summary.rows_of(system).filter_map(accuracy).collect::<Vec<_>>())
    };
    let chart = Chart {
        title: "Frame accuracy of students by temperature".into(),
        x_label: "temperature T".into(),
        y_label: "test frame accuracy, %".into(),
        log_x: true,
        log_y: false,
        series: vec![Series { name: "students".into(), points: points(&accuracy) }],
        references: vec![
            ("ensemble".into(), mean_of(ENSEMBLE)),
            ("baseline, mean".into(), mean_of(MEMBER)),
        ],
    };
    let claims = if summary.preset == "smoke" { Vec::new() } else { claims(comparison) };
    Conclusion {
        tables: vec![table, published, kinds, paired, by_temperature],
        claims,
        charts: vec![("temperature".into(), chart)],
    }
}

fn claims(comparison: &Comparison) -> Vec<Claim> {
    let gain = |first, second| comparison.gain(first, second, 0);
    let ensemble = gain(MEMBER, ENSEMBLE);
    let student = gain(MEMBER, STUDENT);
    let kept = student.difference / ensemble.difference;
    let shown = |d: statistics::Difference| {
        format!("{} points ({} to {})", percent(d.difference), percent(d.low), percent(d.high))
    };
    let mut claims = vec![
        Claim {
            paper: "An ensemble of ten acoustic models classifies more frames rightly than one \
                    (61.1 % to 58.9 %)."
                .into(),
            ours: format!("AN4: {} more", shown(ensemble)),
            verdict: match ensemble {
                d if d.low > 0.0 => Verdict::Reproduced,
                d if d.high < 0.0 => Verdict::NotReproduced,
                _ => Verdict::Inconclusive,
            },
        },
        Claim {
            paper: "More than 80 % of that gain is transferred to the distilled model.".into(),
            ours: format!("AN4: {}, {:.0} % of the gain", shown(student), 100.0 * kept),
            verdict: match (kept > 0.8, student.low > 0.0) {
                (true, true) => Verdict::Reproduced,
                (false, _) => Verdict::NotReproduced,
                _ => Verdict::Inconclusive,
            },
        },
    ];
    for (model, name) in [(1, "unigram"), (2, "bigram")] {
        let (ensemble, student) =
            (comparison.gain(MEMBER, ENSEMBLE, model), comparison.gain(MEMBER, STUDENT, model));
        claims.push(Claim {
            paper: "Ensemble and distilled model make fewer word errors than one (10.7 % to \
                    10.9 %)."
                .into(),
            ours: format!(
                "AN4, {name}: ensemble {}, distilled {}",
                shown(ensemble),
                shown(student)
            ),
            verdict: match (ensemble.low > 0.0, student.low > 0.0) {
                (true, true) => Verdict::Reproduced,
                _ if ensemble.high < 0.0 || student.high < 0.0 => Verdict::NotReproduced,
                _ => Verdict::Inconclusive,
            },
        });
    }
    claims
}
