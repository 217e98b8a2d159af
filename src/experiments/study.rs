//! An experiment of several models: its run folder, the models that are finished, its result.
//!
//! A model is known by (system, seed). Its row is written to `summary.json` when it is finished,
//! so that an interrupted experiment goes on with the model, and the step, where it was.

use super::{Lab, load_model, manifest, remove_checkpoints, train_model};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::mlp::Mlp;
use crate::report::chart::Chart;
use crate::run::{LossContract, RunFolder, atomic_write, utc};
use crate::summary::{Claim, Row, Summary, Table};
use crate::trainer::Task;
use limbeck_datasets::Dataset;
use limbeck_kernels::Context;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

/// What an experiment is.
pub struct Design<'a> {
    /// Its name on the command line: `mnist`.
    pub experiment: &'a str,
    /// Name of the preset.
    pub preset: &'a str,
    /// The configurations that its models are derived from, by name; written to the run folder,
    /// and not to change while the experiment lasts.
    pub configs: &'a [(&'a str, &'a Config)],
    /// The distillation loss, where there is one.
    pub loss_contract: Option<LossContract>,
    /// The paper's test errors, by system.
    pub paper: &'a [(&'a str, u64)],
}

/// What is concluded from the rows.
pub struct Conclusion {
    /// Ours beside the paper's.
    pub tables: Vec<Table>,
    /// What became of the paper's claims.
    pub claims: Vec<Claim>,
    /// Figures, by file name without `.svg`.
    pub charts: Vec<(String, Chart)>,
}

/// An experiment under way.
pub struct Study<'d> {
    /// Where its files are.
    pub folder: RunFolder,
    /// What has been found so far.
    pub summary: Summary,
    dataset: &'d Dataset,
}

impl<'d> Study<'d> {
    /// A new run folder in `out`, or the one in which the same experiment was begun.
    ///
    /// # Errors
    /// [`Error::Usage`] if `out` holds another run; [`Error::Data`] for other data than it began
    /// with, or a damaged summary; [`Error::Io`].
    pub fn open(
        lab: &Lab,
        dataset: &'d Dataset,
        design: &Design,
        seeds: &[u64],
        out: &Path,
    ) -> Result<Study<'d>> {
        let Design { experiment, preset, configs, paper, .. } = *design;
        let summary = Summary::new(experiment, &dataset.name, preset, Vec::new(), paper);
        let file_name = |name: &str| format!("config-{name}.toml");
        if !out.join("manifest.json").exists() {
            let folder = RunFolder::create(out)?;
            for (name, config) in configs {
                atomic_write(&folder.root.join(file_name(name)), config.to_toml()?.as_bytes())?;
            }
            let mut manifest = manifest(lab, dataset, seeds.to_vec());
            manifest.loss_contract = design.loss_contract.clone();
            folder.write_json("manifest.json", &manifest)?;
            return Ok(Study { folder, summary, dataset });
        }
        let folder = RunFolder::open(out)?;
        folder.expect_data(&dataset.sha256)?;
        for (name, config) in configs {
            let path = folder.root.join(file_name(name));
            let found = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
            if found != config.to_toml()? {
                return Err(Error::Usage(format!(
                    "{}: found the configuration of another run, expected that of {experiment}, \
                     preset {preset}, on {}; choose another --out",
                    path.display(),
                    dataset.name
                )));
            }
        }
        let mut study = Study { folder, summary, dataset };
        study.read_summary()?;
        // Of models whose rows were kept just before the end.
        for row in &study.summary.rows {
            remove_checkpoints(&study.folder, &row.system, row.seed)?;
        }
        study.record_continuation(lab, seeds)?;
        Ok(study)
    }

    fn read_summary(&mut self) -> Result<()> {
        let path = self.folder.summary();
        if !path.exists() {
            return Ok(());
        }
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let damaged = |found: String| Error::Data {
            path: path.clone(),
            what: "summary".into(),
            found,
            expected: format!("the summary of {}", self.summary.experiment),
        };
        let found: Summary = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        if found.experiment != self.summary.experiment {
            return Err(damaged(format!("that of {}", found.experiment)));
        }
        self.summary.set_rows(found.rows);
        Ok(())
    }

    /// Adds to the manifest who went on with the run, on what machine.
    fn record_continuation(&self, lab: &Lab, seeds: &[u64]) -> Result<()> {
        let path = self.folder.manifest();
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let mut kept: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|e| Error::Data {
                path,
                what: "manifest".into(),
                found: e.to_string(),
                expected: "JSON".into(),
            })?;
        let now = manifest(lab, self.dataset, seeds.to_vec());
        let entry = json!({
            "started": utc(SystemTime::now()), "git_commit": now.git_commit, "cpu": now.cpu,
            "isa": now.isa, "threads": now.threads, "seeds": now.seeds, "command": now.command,
        });
        if !kept["continued"].is_array() {
            kept["continued"] = json!([]);
        }
        if let Some(entries) = kept["continued"].as_array_mut() {
            entries.push(entry);
        }
        self.folder.write_json("manifest.json", &kept)
    }

    /// Whether these systems are all finished for `seed`.
    pub fn has(&self, systems: &[impl AsRef<str>], seed: u64) -> bool {
        systems.iter().all(|system| self.summary.row(system.as_ref(), seed).is_some())
    }

    /// The model (`task.name`, `seed`): read if it is finished, else trained, evaluated and
    /// measured by `measure`.
    ///
    /// # Errors
    /// Those of training, and of reading and writing.
    pub fn model(
        &mut self,
        lab: &mut Lab,
        task: &Task,
        seed: u64,
        measure: impl FnOnce(&Context, &Mlp) -> BTreeMap<String, f64>,
    ) -> Result<Mlp> {
        self.model_on(lab, self.dataset, task, seed, measure)
    }

    /// As [`Study::model`] for a model with classes of its own, those of `dataset`, on whose test
    /// set it is evaluated.
    ///
    /// # Errors
    /// Those of [`Study::model`].
    pub fn model_on(
        &mut self,
        lab: &mut Lab,
        dataset: &Dataset,
        task: &Task,
        seed: u64,
        measure: impl FnOnce(&Context, &Mlp) -> BTreeMap<String, f64>,
    ) -> Result<Mlp> {
        if let Some(model) = self.finished(dataset, task.name, seed)? {
            return Ok(model);
        }
        lab.go_on()?;
        let (model, row) = train_model(lab, &self.folder, dataset, task, seed)?;
        let measures = measure(lab.context, &model);
        self.add(Row { measures, ..row })?;
        remove_checkpoints(&self.folder, task.name, seed)?;
        lab.go_on()?;
        Ok(model)
    }

    /// As [`Study::model`] for a model that nothing else needs: a finished one is not read.
    ///
    /// # Errors
    /// Those of [`Study::model`].
    pub fn ensure(
        &mut self,
        lab: &mut Lab,
        task: &Task,
        seed: u64,
        measure: impl FnOnce(&Context, &Mlp) -> BTreeMap<String, f64>,
    ) -> Result<()> {
        if self.summary.row(task.name, seed).is_none() {
            self.model(lab, task, seed, measure)?;
        }
        Ok(())
    }

    /// The teacher: given on the command line for this seed, finished, or trained now.
    ///
    /// # Errors
    /// Those of [`Study::model`]; [`Error::Data`] for a given model that does not fit the data.
    pub fn teacher(&mut self, lab: &mut Lab, task: &Task, seed: u64) -> Result<Mlp> {
        let Some(path) = lab.teachers.get(&seed).cloned() else {
            return self.model(lab, task, seed, |_, _| BTreeMap::new());
        };
        if let Some(model) = self.finished(self.dataset, task.name, seed)? {
            return Ok(model);
        }
        let given = load_model(&path, self.dataset.train.input_size(), self.dataset.classes)?;
        let row = super::evaluated_row(lab, &self.folder, self.dataset, task, seed, &given)?;
        self.add(row)?;
        Ok(given)
    }

    fn finished(&self, dataset: &Dataset, system: &str, seed: u64) -> Result<Option<Mlp>> {
        let Some(row) = self.summary.row(system, seed) else { return Ok(None) };
        let path = self.folder.root.join(&row.model);
        load_model(&path, dataset.train.input_size(), dataset.classes).map(Some)
    }

    /// Keeps a row: of a finished model, or of several that answer together.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add(&mut self, row: Row) -> Result<()> {
        let mut rows = std::mem::take(&mut self.summary.rows);
        rows.push(row);
        self.summary.set_rows(rows);
        self.folder.write_json("summary.json", &self.summary)
    }

    /// Writes the summary with what is concluded from it, and the figures.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(self, conclude: impl FnOnce(&Summary) -> Conclusion) -> Result<Summary> {
        let Conclusion { tables, claims, charts } = conclude(&self.summary);
        for (name, chart) in charts {
            let path = self.folder.root.join(format!("{name}.svg"));
            atomic_write(&path, chart.to_svg().as_bytes())?;
        }
        let summary = Summary { tables, claims, ..self.summary };
        self.folder.write_json("summary.json", &summary)?;
        Ok(summary)
    }
}
