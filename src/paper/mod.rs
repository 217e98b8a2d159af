//! The paper's experiments: each declared in one file, all run by one scheduler.
//!
//! An [`Experiment`] says what it is about and returns an [`ExperimentSpec`]: a [`Graph`] of models
//! and what is concluded from them. The [`scheduler`] does the rest. A new table is one file in
//! [`tables`] and one line in [`EXPERIMENTS`].

pub mod graph;
pub mod preset;
pub mod scheduler;
pub mod specialists;
pub mod tables;

use crate::engine::config::Config;
use crate::engine::loss::LossSpec;
use crate::files::error::Result;
use crate::run::chart::Chart;
use crate::run::context::RunContext;
use crate::run::summary::{Claim, Summary, Table};
use graph::Graph;
use limbeck_datasets::Dataset;
use preset::Preset;
use scheduler::ExperimentRun;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The paper's experiments, in the order of `reproduce all`. The first trains the teachers of the
/// others.
pub const EXPERIMENTS: [&dyn Experiment; 8] = [
    &tables::mnist::Mnist,
    &tables::omitted::Omitted,
    &tables::temperature::Temperature,
    &tables::logits::Logits,
    &tables::variance::Variance,
    &tables::speech::Speech,
    &tables::regularizer::Regularizer,
    &tables::specialists::Specialists,
];

/// A table of the paper.
pub trait Experiment: Sync {
    /// What it is about.
    fn about(&self) -> About;

    /// The models and the conclusion.
    ///
    /// # Errors
    /// Those of the data, and of making what must be there first.
    fn declare(&self, setup: Setup) -> Result<ExperimentSpec>;
}

/// What the command line, `reproduce all` and the help text know of an experiment.
pub struct About {
    /// Its name on the command line and in `summary.json`.
    pub name: &'static str,
    /// The paper's section.
    pub section: &'static str,
    /// What it shows, in a line.
    pub shows: &'static str,
    /// What it is done on; a table for each that is there.
    pub data: &'static [Data],
    /// Whether it takes trained teachers in place of its own.
    pub takes_teachers: bool,
}

/// The kinds of data that experiments are done on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// MNIST, or the embedded glyphs where it is absent.
    Images,
    /// The embedded glyphs of ten writers, in 100 classes.
    Writers,
    /// The corpus AN4.
    Speech,
}

/// The data of an experiment.
pub enum Input {
    /// Images in classes.
    Images(Rc<Dataset>),
    /// The speech corpus of the data folder.
    Speech,
}

/// What an experiment is declared from.
pub struct Setup<'s, 'c> {
    /// What it works with.
    pub run: &'s mut RunContext<'c>,
    /// What the user asked for.
    pub request: &'s Request,
    /// Its data.
    pub input: &'s Input,
    /// Its run folder, for what must be there first, such as the states of speech frames.
    pub out: &'s Path,
}

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// How much to spend.
    pub preset: Preset,
    /// Seeds to train.
    pub seeds: Range<u64>,
    /// Whether to add rows that are not the paper's.
    pub extended: bool,
    /// Teachers that are given, by seed; others are trained.
    pub teachers: BTreeMap<u64, PathBuf>,
    /// The number of this process, of several that share the run folder: it begins with its
    /// `worker`-th model, from 0. Any numbers do; different ones get in each other's way least.
    /// `None` where the folder is this process's own.
    pub worker: Option<u32>,
}

impl Request {
    /// `seeds` of a preset by this process alone, with teachers of its own.
    pub fn new(preset: Preset, seeds: Range<u64>) -> Request {
        Request { preset, seeds, extended: false, teachers: BTreeMap::new(), worker: None }
    }
}

/// What an experiment consists of.
pub struct ExperimentSpec {
    /// Its name.
    pub experiment: &'static str,
    /// What its models are evaluated on.
    pub dataset: Rc<Dataset>,
    /// Training examples, where the preset takes fewer than there are.
    pub train_limit: Option<usize>,
    /// The seeds of its models, for the manifest.
    pub seeds: Vec<u64>,
    /// The configurations that its models are derived from, by name; written to the run folder, and
    /// not to change while the experiment lasts.
    pub configs: Vec<(&'static str, Config)>,
    /// The distillation loss, where there is one.
    pub loss: Option<LossSpec>,
    /// The paper's test errors, by variant.
    pub paper_errors: Vec<(String, u64)>,
    /// Its models.
    pub graph: Graph,
    /// What is concluded once all of them are there.
    pub conclude: Conclude,
}

/// Draws the conclusion from the rows.
pub type Conclude = Box<dyn FnOnce(&mut ExperimentRun) -> Result<Conclusion>>;

/// What is concluded from the rows.
pub struct Conclusion {
    /// Ours beside the paper's.
    pub tables: Vec<Table>,
    /// What became of the paper's claims.
    pub claims: Vec<Claim>,
    /// Figures, by file name without `.svg`.
    pub charts: Vec<(String, Chart)>,
}

/// A finished table.
pub struct Outcome {
    /// Its run folder.
    pub run: PathBuf,
    /// Training examples, where the preset takes fewer than there are.
    pub train_limit: Option<usize>,
    /// What was found.
    pub summary: Summary,
}

/// Does an experiment on `input` in the run folder `out`, or goes on with it there.
///
/// # Errors
/// Those of [`Experiment::declare`] and [`scheduler::execute`].
pub fn reproduce(
    run: &mut RunContext,
    experiment: &dyn Experiment,
    request: &Request,
    input: &Input,
    out: &Path,
) -> Result<Outcome> {
    let spec = experiment.declare(Setup { run: &mut *run, request, input, out })?;
    let train_limit = spec.train_limit;
    let summary = scheduler::execute(run, request, spec, out)?;
    Ok(Outcome { run: out.to_path_buf(), train_limit, summary })
}
