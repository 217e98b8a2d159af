//! An experiment under way, as its nodes see it: what was found so far, and how to make more.

use super::{key::Key, request::Request};
use crate::engine::{data::load_model, mlp::Mlp, trainer::Task};
use crate::files::error::{Error, Result};
use crate::files::model::ModelFile;
use crate::run::summary::{Measures, Row, Summary};
use crate::run::training::{evaluated_row, remove_checkpoints, train_model};
use crate::run::{context::RunContext, folder::RunFolder};
use limbeck_datasets::{Dataset, Split};
use limbeck_kernels::Context;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// An experiment under way, as the nodes see it.
pub struct ExperimentRun<'r, 'c> {
    /// What it works with.
    pub run: &'r mut RunContext<'c>,
    /// Where its files are.
    pub folder: RunFolder,
    /// What has been found so far.
    pub summary: Summary,
    pub(super) request: &'r Request,
    pub(super) dataset: Rc<Dataset>,
    /// Finished models that are still needed.
    pub(super) models: BTreeMap<Key, Rc<Mlp>>,
}

impl<'c> ExperimentRun<'_, 'c> {
    /// Kernels and threads.
    pub fn kernels(&self) -> &'c Context {
        self.run.context
    }

    /// The row of a finished node.
    ///
    /// # Errors
    /// [`Error::Internal`] for one that the node at hand does not need.
    pub fn row_of(&self, key: &Key) -> Result<&Row> {
        let row = match key {
            Key::Row(variant, seed) | Key::Measures(variant, seed) => {
                self.summary.row(variant, *seed)
            }
            Key::File(_) => None,
        };
        row.ok_or_else(|| Error::Internal(format!("no row of {key}")))
    }

    /// A finished model of the experiment's own inputs and classes.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn model(&mut self, key: &Key) -> Result<Rc<Mlp>> {
        let dataset = self.dataset.clone();
        self.model_with(key, dataset.train.input_size(), dataset.classes)
    }

    /// A finished model of so many inputs and classes.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn model_with(&mut self, key: &Key, inputs: usize, classes: usize) -> Result<Rc<Mlp>> {
        if let Some(model) = self.models.get(key) {
            return Ok(model.clone());
        }
        let path = self.folder.root.join(&self.row_of(key)?.model);
        let model = Rc::new(load_model(&path, inputs, classes)?);
        self.models.insert(key.clone(), model.clone());
        Ok(model)
    }

    /// Trains the model of the node at hand and evaluates it on the test set of `dataset`.
    ///
    /// # Errors
    /// Those of [`train_model`].
    pub fn train(&mut self, dataset: &Dataset, task: &Task, seed: u64) -> Result<(Rc<Mlp>, Row)> {
        let mut config = task.config.clone();
        config.training.precision = self.request.precision;
        let task = Task { config: &config, ..*task };
        let (model, row) = train_model(self.run, &self.folder, dataset, &task, seed)?;
        let model = Rc::new(model);
        self.models.insert(Key::row(task.name, seed), model.clone());
        Ok((model, row))
    }

    /// The teacher that the user gave for this seed.
    pub fn given_teacher(&self, seed: u64) -> Option<PathBuf> {
        self.request.teachers.get(&seed).cloned()
    }

    /// Takes a given model as that of the node at hand; its training errors are those on `train`.
    ///
    /// # Errors
    /// [`Error::Data`] for one that does not fit the data; those of reading and writing.
    pub fn evaluate_given(
        &mut self,
        path: &Path,
        dataset: &Dataset,
        train: &Split,
        (name, seed): (&str, u64),
    ) -> Result<Row> {
        let given = load_model(path, dataset.train.input_size(), dataset.classes)?;
        let row = evaluated_row(self.run, &self.folder, dataset, train, (name, seed), &given)?;
        self.models.insert(Key::row(name, seed), Rc::new(given));
        Ok(row)
    }

    /// Checks that a teacher that was given is the one that the row is of, where there is one.
    ///
    /// # Errors
    /// [`Error::Usage`] with the digests of both; those of reading the model.
    pub(super) fn expect_given(&self, key: &Key) -> Result<()> {
        let path = key.seed().and_then(|seed| self.given_teacher(seed));
        let Some((path, row)) = path.zip(self.row_of(key).ok()) else { return Ok(()) };
        let (_, sha256) = ModelFile::load(&path)?;
        if sha256 == row.sha256 {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "--teacher: found {}, weights of SHA-256 {sha256}, expected those of the {key} that the run in {} \
             has, {}; choose another --out",
            path.display(),
            self.folder.root.display(),
            row.sha256
        )))
    }

    /// Whether what this key names is there.
    pub(super) fn has(&self, key: &Key) -> bool {
        match key {
            Key::Row(variant, seed) => self.summary.row(variant, *seed).is_some(),
            Key::Measures(variant, seed) => {
                self.summary.row(variant, *seed).is_some_and(|row| !row.measures.is_empty())
            }
            Key::File(name) => self.folder.root.join(name).exists(),
        }
    }

    /// Reads the rows of `summary.json`, if it exists.
    pub(super) fn read_summary(&mut self) -> Result<()> {
        let path = self.folder.summary();
        if !path.exists() {
            return Ok(());
        }
        let found = Summary::read(&path)?;
        if found.experiment != self.summary.experiment {
            return Err(Error::Data {
                path,
                what: "summary".into(),
                found: format!("that of {}", found.experiment),
                expected: format!("the summary of {}", self.summary.experiment),
            });
        }
        self.summary.set_rows(found.rows);
        Ok(())
    }

    /// The rows of those that share the run.
    pub(super) fn read_rows(&mut self) -> Result<()> {
        if self.folder.is_shared() {
            let _exclusive = self.folder.exclusive()?;
            self.read_summary()?;
        }
        Ok(())
    }

    /// Puts the rows in the order of the graph; those of other seeds come last.
    pub(super) fn sort_rows(&mut self, order: &[Key]) {
        let mut rows = std::mem::take(&mut self.summary.rows);
        rows.sort_by_key(|row| {
            let place = order.iter().position(|key| *key == Key::row(&row.variant, row.seed));
            place.unwrap_or(usize::MAX)
        });
        self.summary.set_rows(rows);
    }

    /// Adds a row to the summary. Its model needs no checkpoints any more.
    pub(super) fn keep(&mut self, row: Row) -> Result<()> {
        let (variant, seed) = (row.variant.clone(), row.seed);
        self.change_rows(|rows| rows.push(row))?;
        remove_checkpoints(&self.folder, &variant, seed)
    }

    pub(super) fn keep_measures(&mut self, key: &Key, measures: Measures) -> Result<()> {
        let is_of = |row: &&mut Row| Key::Measures(row.variant.clone(), row.seed) == *key;
        self.change_rows(|rows| {
            rows.iter_mut().filter(is_of).for_each(|row| row.measures = measures.clone());
        })
    }

    /// Changes the rows, those of other processes among them, and writes them.
    pub(super) fn change_rows(&mut self, change: impl FnOnce(&mut Vec<Row>)) -> Result<()> {
        let _exclusive = self.folder.exclusive()?;
        if self.folder.is_shared() {
            self.read_summary()?;
        }
        let mut rows = std::mem::take(&mut self.summary.rows);
        change(&mut rows);
        self.summary.set_rows(rows);
        self.folder.write_json("summary.json", &self.summary)
    }
}
