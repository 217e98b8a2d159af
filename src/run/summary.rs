//! `summary.json`: what an experiment found, for programs and for people.

use crate::engine::config::Precision;
use crate::files::error::{Error, Result};
use crate::files::read::read_json;
use crate::run::chart::Chart;
use crate::run::number;
use crate::run::statistics::{self, McNemar, MeanSd};
use limbeck_datasets::glyphs;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::{borrow::Cow, collections::BTreeMap};

/// `summary.json`: the results of an experiment, a row for each model trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Name of the experiment, `mnist`.
    pub experiment: String,
    /// Name of the data set.
    pub dataset: String,
    /// Name of the preset.
    pub preset: String,
    /// What the trainings' matrix products were computed in; absent for f32.
    #[serde(default, skip_serializing_if = "Precision::is_f32")]
    pub precision: Precision,
    /// Training examples, where the preset takes fewer than there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// Examples of the test set; absent in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_examples: Option<usize>,
    /// What came out, in a sentence, where the experiment has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headline: Option<String>,
    /// One entry for each model, in the order of training.
    pub rows: Vec<Row>,
    /// Test errors of each variant over its seeds.
    pub aggregate: BTreeMap<String, MeanSd>,
    /// The paper's test errors of each variant.
    pub paper: BTreeMap<String, u64>,
    /// Ours beside the paper's, as printed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<Table>,
    /// What became of the paper's claims.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
    /// The figures, by the names of their files without `.svg`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub charts: BTreeMap<String, Chart>,
}

/// One trained model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `teacher`, `baseline`, `student`, …
    #[serde(alias = "system")]
    pub variant: String,
    /// Its seed.
    pub seed: u64,
    /// Misclassified test examples.
    pub test_errors: u64,
    /// Misclassified training examples, untranslated; absent for an unlabelled transfer set.
    pub train_errors: Option<u64>,
    /// Wall-clock time of the training; 0 for a model that was given.
    pub seconds: f64,
    /// Path of the model, relative to the run folder; empty where several models answer together, or
    /// none was kept.
    pub model: String,
    /// SHA-256 of its parameters, see [`crate::files::model::ModelFile::sha256`]; of several models
    /// that answer together, that of their test logits; empty where no model was kept.
    pub sha256: String,
    /// Mean negative log-likelihood of the test labels, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_nll: Option<f64>,
    /// Epochs trained; absent for a model that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Training throughput.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples_per_second: Option<f64>,
    /// Indices of the misclassified test examples, ascending, for paired tests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub misclassified: Vec<usize>,
    /// `test` for the lowest of several counts on the test set: no result, and in no aggregate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen_on: Option<String>,
    /// What else was measured of this model: `agreement_with_teacher`, `errors_on_3`, …
    #[serde(flatten)]
    pub measures: Measures,
}

/// Part of the name of every variant that was chosen on the test set, or for such a choice: it shows
/// what that gives, and is no result.
pub const TEST_TUNED: &str = "test-tuned";

/// What was measured of a model beside its errors, by the names of [`Measure`].
pub type Measures = BTreeMap<String, f64>;

/// A figure that rows have.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    /// [`Row::test_errors`].
    TestErrors,
    /// [`Row::train_errors`].
    TrainErrors,
    /// [`Row::test_nll`].
    TestNll,
    /// One of [`Row::measures`], a field of that name in `summary.json`.
    Named(Cow<'static, str>),
}

impl Measure {
    /// A figure of an experiment's own.
    pub const fn named(name: &'static str) -> Measure {
        Measure::Named(Cow::Borrowed(name))
    }

    /// One whose name is put together: `errors_at_-3.5`.
    pub fn numbered(name: String) -> Measure {
        Measure::Named(Cow::Owned(name))
    }

    /// The entry of a row's [`Measures`]: `value` under the name of this measure.
    ///
    /// # Panics
    /// If it is not [`Measure::Named`].
    pub fn of(self, value: f64) -> (String, f64) {
        match self {
            Measure::Named(name) => (name.into_owned(), value),
            _ => panic!("{self:?} is a field of the row"),
        }
    }
}

impl Row {
    /// The figure, where the row has it.
    pub fn value(&self, measure: &Measure) -> Option<f64> {
        match measure {
            Measure::TestErrors => Some(self.test_errors as f64),
            Measure::TrainErrors => self.train_errors.map(|errors| errors as f64),
            Measure::TestNll => self.test_nll,
            Measure::Named(name) => self.measures.get(name.as_ref()).copied(),
        }
    }

    /// McNemar's test of this model against another on the same images.
    pub fn mcnemar(&self, other: &Row) -> McNemar {
        statistics::mcnemar(&self.misclassified, &other.misclassified)
    }
}

/// A table for people: `rows` are as long as `columns`, the first cell names the row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// Heads of the columns.
    pub columns: Vec<String>,
    /// Cells.
    pub rows: Vec<Vec<String>>,
    /// What a reader must know to read it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A claim of the paper, and what we found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// What the paper says.
    pub paper: String,
    /// What we measured.
    pub ours: String,
    /// What follows.
    pub verdict: Verdict,
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Our figures show it too.
    Reproduced,
    /// Our figures contradict it.
    NotReproduced,
    /// Our figures cannot tell: too few seeds, or too small a difference.
    Inconclusive,
    /// Not the paper's experiment, see [`Summary::is_judged`].
    NotJudged,
}

impl Verdict {
    /// Of a claim that holds or does not; `None` where that cannot be told.
    pub fn of(holds: Option<bool>) -> Verdict {
        match holds {
            Some(true) => Verdict::Reproduced,
            Some(false) => Verdict::NotReproduced,
            None => Verdict::Inconclusive,
        }
    }

    /// Of the claim that the first of two models is better, by tests of each seed or setting: contradicted
    /// where it makes fewer errors in none.
    pub fn of_pairs(tests: &[McNemar]) -> Verdict {
        if tests.iter().all(McNemar::first_is_better) {
            Verdict::Reproduced
        } else if tests.iter().all(|test| test.only_first >= test.only_second) {
            Verdict::NotReproduced
        } else {
            Verdict::Inconclusive
        }
    }

    /// Of a claim that holds in `shown` of `tests` tests of it, one of each seed or setting.
    pub fn of_tests(shown: usize, tests: usize) -> Verdict {
        match shown {
            0 => Verdict::NotReproduced,
            n if n == tests => Verdict::Reproduced,
            _ => Verdict::Inconclusive,
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Reproduced => "reproduced",
            Verdict::NotReproduced => "not reproduced",
            Verdict::Inconclusive => "inconclusive",
            Verdict::NotJudged => "not judged",
        })
    }
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Table {
        let columns = columns.iter().map(|column| column.to_string()).collect();
        Table { title: title.into(), columns, rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// Unless it has a cell for each column.
    pub fn push(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.columns.len(), "cells of a row of {:?}", self.title);
        self.rows.push(cells);
    }

    /// Adds a note.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let all = || std::iter::once(&self.columns).chain(&self.rows);
        let width = |column: usize| {
            all().filter_map(|cells| Some(cells.get(column)?.chars().count())).max()
        };
        let widths: Vec<usize> = (0..self.columns.len()).filter_map(width).collect();
        writeln!(f, "{}", self.title)?;
        for cells in all() {
            let mut line = String::new();
            for (i, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
                // The first column names the rows; the others are figures.
                let padded =
                    if i == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
                line += &padded;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

impl Summary {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for one that is damaged, or has errors of a row that cannot be those of
    /// the test examples.
    pub fn read(path: &Path) -> Result<Summary> {
        let summary: Summary = read_json(path, "summary").map_err(|error| match error {
            Error::Data { path, what, found, expected } => {
                let expected = format!(
                    "{expected}; put a copy in its place if there is one. Without it the run's command, or \
                     --resume, trains its models again"
                );
                Error::Data { path, what, found, expected }
            }
            other => other,
        })?;
        for row in &summary.rows {
            let Row { variant, seed, test_errors, misclassified, .. } = row;
            let examples = summary.test_examples.unwrap_or(u32::MAX as usize);
            let ascending = misclassified.windows(2).all(|pair| pair[0] < pair[1]);
            let below = misclassified.last().is_none_or(|last| *last < examples);
            let counted = misclassified.is_empty() || misclassified.len() as u64 == *test_errors;
            if !(ascending && below && counted && *test_errors <= examples as u64) {
                let wrong = misclassified.len();
                return Err(Error::Data {
                    path: path.to_path_buf(),
                    what: format!("errors of {variant}, seed {seed}"),
                    found: format!("test_errors {test_errors} and {wrong} misclassified"),
                    expected: match summary.test_examples {
                        Some(n) => {
                            format!("as many ascending indices, below the {n} test examples")
                        }
                        None => "as many ascending indices".into(),
                    },
                });
            }
        }
        Ok(summary)
    }

    /// A summary of these rows, with the aggregate worked out.
    pub fn new(
        experiment: &str,
        dataset: &str,
        preset: &str,
        rows: Vec<Row>,
        paper: &[(&str, u64)],
    ) -> Summary {
        Summary {
            experiment: experiment.to_string(),
            dataset: dataset.to_string(),
            preset: preset.to_string(),
            precision: Precision::F32,
            train_limit: None,
            test_examples: None,
            headline: None,
            aggregate: aggregate(&rows),
            rows,
            paper: paper.iter().map(|&(s, n)| (s.to_string(), n)).collect(),
            tables: Vec::new(),
            claims: Vec::new(),
            charts: BTreeMap::new(),
        }
    }

    /// Examples of the test set, where that is known.
    pub fn examples(&self) -> Option<usize> {
        let by_name = || match (self.dataset.as_str(), self.preset.as_str()) {
            // A hold-out may have taken its place.
            (_, "config") => None,
            ("mnist" | "glyphs", _) => Some(glyphs::DEFAULT_TEST),
            _ => None,
        };
        self.test_examples.or_else(by_name)
    }

    /// What test errors are counted out of: ` of 10,000`; nothing where that is not known.
    pub fn of_examples(&self) -> String {
        self.examples().map_or(String::new(), |n| format!(" of {}", number::count(n)))
    }

    /// Replaces the rows and works out the aggregate.
    pub fn set_rows(&mut self, rows: Vec<Row>) {
        self.aggregate = aggregate(&rows);
        self.rows = rows;
    }

    /// Whether data and preset are those of the paper's experiment, so that its figures can be
    /// held against ours: all of MNIST and the paper's nets.
    pub fn is_the_papers(&self) -> bool {
        self.dataset == "mnist" && ["standard", "paper"].contains(&self.preset.as_str())
    }

    /// Whether the nets and their training are such that the paper's claims can be judged: those of
    /// its own size, not on the glyphs, which stand in where there is no MNIST.
    pub fn is_judged(&self) -> bool {
        self.dataset != "glyphs" && ["standard", "paper"].contains(&self.preset.as_str())
    }

    /// How this differs from the paper's experiment, in a sentence; nothing for the paper's own. Of a run
    /// that is no experiment of the paper's, whether its products were not f32.
    pub fn caveat(&self) -> Option<String> {
        let products = (!self.precision.is_f32()).then(|| "matrix products in bf16".to_string());
        let nets = match self.preset.as_str() {
            "smoke" => Some("nets too small to show anything".to_string()),
            "quick" => Some("small nets, trained for a minute".to_string()),
            "standard" | "paper" => None,
            _ => return products.map(|_| "Trained with matrix products in bf16.".into()),
        };
        let limit = self.train_limit.map(|limit| format!("the first {limit} training images only"));
        let data = match self.dataset.as_str() {
            "mnist" => None,
            "an4" => Some("AN4 in place of the paper's speech".to_string()),
            "writers" => {
                Some("drawn characters of ten writers in place of the paper's images".into())
            }
            other => Some(format!("{other} in place of MNIST")),
        };
        let parts: Vec<String> = [data, limit, nets, products].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| format!("Not the paper's experiment: {}.", parts.join("; ")))
    }

    /// What became of a claim, where it can be judged.
    pub fn verdict(&self, claim: &Claim) -> Verdict {
        if self.is_judged() { claim.verdict } else { Verdict::NotJudged }
    }

    /// The row of a model, if it is there.
    pub fn row(&self, variant: &str, seed: u64) -> Option<&Row> {
        self.rows.iter().find(|row| row.variant == variant && row.seed == seed)
    }

    /// The rows of a variant, in the order of training.
    pub fn rows_of<'s>(&'s self, variant: &'s str) -> impl Iterator<Item = &'s Row> {
        self.rows.iter().filter(move |row| row.variant == variant)
    }

    /// Rows of the variant that has most of them.
    pub fn most_seeds(&self) -> usize {
        self.variants().iter().map(|variant| self.rows_of(variant).count()).max().unwrap_or(0)
    }

    /// [`Row::mcnemar`] of two variants, for each seed that both have.
    pub fn paired(&self, first: &str, second: &str) -> Vec<McNemar> {
        let pair = |row: &Row| Some(row.mcnemar(self.row(second, row.seed)?));
        self.rows_of(first).filter_map(pair).collect()
    }

    /// A figure of a variant's rows, in the order of training.
    pub fn values(&self, variant: &str, measure: &Measure) -> Vec<f64> {
        self.rows_of(variant).filter_map(|row| row.value(measure)).collect()
    }

    /// A figure of a variant as the cell of a table: mean ± standard deviation in so many decimals;
    /// a dash where no row has it.
    pub fn cell(&self, variant: &str, decimals: usize, measure: &Measure) -> String {
        self.cell_of(variant, decimals, |row| row.value(measure))
    }

    /// [`Summary::cell`] of what `figure` works out from a row.
    pub fn cell_of(
        &self,
        variant: &str,
        decimals: usize,
        figure: impl Fn(&Row) -> Option<f64>,
    ) -> String {
        let values: Vec<f64> = self.rows_of(variant).filter_map(figure).collect();
        MeanSd::of(&values).map_or("–".into(), |figure| figure.text(decimals))
    }

    /// [`Summary::cell`] of what is counted: a whole number where there is one model.
    pub fn count_cell(&self, variant: &str, measure: &Measure) -> String {
        let decimals = usize::from(self.rows_of(variant).count() > 1);
        self.cell(variant, decimals, measure)
    }

    /// [`Summary::cell`] of the test errors.
    pub fn errors_cell(&self, variant: &str) -> String {
        self.count_cell(variant, &Measure::TestErrors)
    }

    /// A table of the test errors of `variants` for each seed of the variant `of`, and of the p-value
    /// of [`Row::mcnemar`] for each of `pairs`: the column's name, and two variants.
    pub fn by_seed<const VARIANTS: usize, const PAIRS: usize>(
        &self,
        title: &str,
        of: &str,
        variants: [&str; VARIANTS],
        pairs: [(&str, &str, &str); PAIRS],
    ) -> Table {
        let columns = std::iter::once("seed").chain(variants).chain(pairs.map(|pair| pair.0));
        let mut table = Table::new(title, &columns.collect::<Vec<_>>());
        for Row { seed, .. } in self.rows_of(of) {
            let row = |variant| self.row(variant, *seed);
            let errors = variants.map(|variant| Some(row(variant)?.test_errors.to_string()));
            let p = pairs.map(|(_, first, second)| {
                Some(number::p_value(row(first)?.mcnemar(row(second)?).p_value))
            });
            let cells = errors.into_iter().chain(p).map(|cell| cell.unwrap_or("–".into()));
            table.push(std::iter::once(seed.to_string()).chain(cells));
        }
        table
    }

    /// The variants in the order of their first rows, for printed tables.
    pub fn variants(&self) -> Vec<&str> {
        let mut variants: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !variants.contains(&row.variant.as_str()) {
                variants.push(&row.variant);
            }
        }
        variants
    }

    /// The variants that are results, in the same order: without those of [`TEST_TUNED`].
    pub fn results(&self) -> Vec<&str> {
        let mut variants = self.variants();
        variants.retain(|variant| !variant.contains(TEST_TUNED));
        variants
    }
}

/// Test errors of each variant over its seeds.
fn aggregate(rows: &[Row]) -> BTreeMap<String, MeanSd> {
    let mut errors: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.chosen_on.is_none()) {
        errors.entry(&row.variant).or_default().push(row.test_errors as f64);
    }
    let of = |(name, errors): (&str, Vec<f64>)| Some((name.to_string(), MeanSd::of(&errors)?));
    errors.into_iter().filter_map(of).collect()
}
