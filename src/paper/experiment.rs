//! What an experiment is: what it says of itself, what it is asked for, and what it consists of.

use super::{experiment_run::ExperimentRun, graph::Graph, request::Request};
use crate::engine::{config::Config, loss::LossSpec};
use crate::files::error::Result;
use crate::files::shown::ShownPath;
use crate::run::summary::{Claim, Summary, Table};
use crate::run::{chart::Chart, context::RunContext};
use limbeck_datasets::Dataset;
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::rc::Rc;

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
    /// Whether it is done for each seed that is asked for: else it has seeds of its own.
    pub takes_seeds: bool,
    /// Whether `--extended` adds rows.
    pub has_more_rows: bool,
}

/// The kinds of data that experiments are done on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// MNIST, or the embedded glyphs where it is absent.
    Images,
    /// The embedded digits and letters of ten writers, in 360 classes.
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
    pub paper_errors: Vec<(&'static str, u64)>,
    /// Its models.
    pub graph: Graph,
    /// What is concluded once all of them are there.
    pub conclude: Conclude,
}

/// Draws the conclusion from the rows.
pub type Conclude = Box<dyn FnOnce(&mut ExperimentRun) -> Result<Conclusion>>;

/// What is concluded from the rows.
#[derive(Default)]
pub struct Conclusion {
    /// What came out, in a sentence.
    pub headline: Option<String>,
    /// Ours beside the paper's.
    pub tables: Vec<Table>,
    /// What became of the paper's claims.
    pub claims: Vec<Claim>,
    /// Figures, by file name without `.svg`.
    pub charts: Vec<(String, Chart)>,
}

impl Conclusion {
    /// Leaves out what is said of rows that are not there, whose mean is NaN and whose cell a dash.
    pub(super) fn leave_out_the_unknown(&mut self) {
        let is_known = |text: &str| !text.contains("NaN");
        let cells = self.tables.iter_mut().flat_map(|table| table.rows.iter_mut().flatten());
        cells.filter(|cell| !is_known(cell)).for_each(|cell| *cell = "–".into());
        self.headline = self.headline.take().filter(|text| is_known(text) && !text.contains('–'));
        self.tables.retain(|table| !table.rows.is_empty());
        self.claims.retain(|claim| is_known(&claim.ours));
        self.charts.retain(|(_, chart)| chart.is_finite());
    }
}

/// A finished table: our figures beside the paper's.
#[derive(Serialize)]
pub struct Outcome {
    /// Its run folder.
    pub run: ShownPath,
    /// What was found.
    #[serde(flatten)]
    pub summary: Summary,
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for table in &self.summary.tables {
            writeln!(f, "{table}")?;
        }
        for claim in &self.summary.claims {
            writeln!(f, "{:<15} {} Ours: {}.", claim.verdict, claim.paper, claim.ours)?;
        }
        if let Some(caveat) = self.summary.caveat() {
            writeln!(f, "{caveat}")?;
        }
        writeln!(f, "Run folder: {}", self.run.display())
    }
}
