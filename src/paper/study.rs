//! An experiment of several models: its run folder, the models that are finished, its result.
//!
//! A model is known by (system, seed). Its row is written to `summary.json` when it is finished,
//! so that an interrupted experiment goes on with the model, and the step, where it was.
//!
//! Processes that share the run all run the same experiment, and agree through its folder. A model
//! belongs to whoever claims it, until its row is kept or its process has died; then another goes on
//! from its last checkpoint. What depends on other models is the same whoever made them.

use crate::engine::config::Config;
use crate::engine::data::load_model;
use crate::engine::loss::LossContract;
use crate::engine::mlp::Mlp;
use crate::engine::trainer::Task;
use crate::files::error::{Error, Result};
use crate::files::read::read_json;
use crate::files::write::atomic_write;
use crate::run::chart::Chart;
use crate::run::context::{RunContext, manifest};
use crate::run::folder::{Hold, RunFolder};
use crate::run::manifest::utc;
use crate::run::summary::{Claim, Row, Summary, Table};
use crate::run::training::{file_stem, remove_checkpoints, train_model};
use limbeck_datasets::{Dataset, Split};
use limbeck_kernels::Context;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

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

/// What is measured of a model beside its errors, by name.
pub type Measures = BTreeMap<String, f64>;

/// An experiment under way.
pub struct Study<'d> {
    /// Where its files are.
    pub folder: RunFolder,
    /// What has been found so far.
    pub summary: Summary,
    dataset: &'d Dataset,
    member: Option<u32>,
    patience: Patience,
    /// Systems and seeds in the order in which the experiment came to them.
    asked: Vec<(String, u64)>,
}

/// What a process waits for that another is at.
#[derive(Clone, Copy, PartialEq)]
enum Patience {
    /// For nothing that a whole seed depends on: there are others.
    Low,
    /// For what it needs now.
    Some,
    /// For everything.
    Full,
}

/// Whose turn it is to make something.
enum Whose {
    /// Nobody's: it is there.
    Done,
    /// Another process is at it.
    Theirs,
    /// This process's, while it keeps the claim.
    Ours(Hold),
}

/// How often a process looks whether the one it waits for is done.
const WAIT: Duration = Duration::from_millis(200);

impl<'d> Study<'d> {
    /// A new run folder in `out`, or the one in which the same experiment was begun.
    ///
    /// # Errors
    /// [`Error::Usage`] if `out` holds another run, or a process has it that does not share it as
    /// `run` does; [`Error::Data`] for other data than it began with, or a damaged summary;
    /// [`Error::Io`].
    pub fn open(
        run: &RunContext,
        dataset: &'d Dataset,
        design: &Design,
        seeds: &[u64],
        out: &Path,
    ) -> Result<Study<'d>> {
        let Design { experiment, preset, paper, .. } = *design;
        let summary = Summary::new(experiment, &dataset.name, preset, Vec::new(), paper);
        let folder = match run.member {
            Some(_) => RunFolder::share(out)?,
            None if out.join("manifest.json").exists() => RunFolder::open(out)?,
            None => RunFolder::create(out)?,
        };
        let mut study = Study {
            folder,
            summary,
            dataset,
            member: run.member,
            patience: Patience::Full,
            asked: Vec::new(),
        };
        let turn = study.folder.turn()?;
        if study.folder.manifest().exists() {
            study.go_on(run, design, seeds)?;
        } else {
            study.begin(run, design, seeds)?;
        }
        drop(turn);
        // Of models whose rows were kept just before the end.
        for Row { variant: system, seed, .. } in &study.summary.rows {
            if let Some(_claim) = study.folder.claim(&file_stem(system, *seed))? {
                remove_checkpoints(&study.folder, system, *seed)?;
            }
        }
        Ok(study)
    }

    /// Writes down what is going to be done.
    fn begin(&self, run: &RunContext, design: &Design, seeds: &[u64]) -> Result<()> {
        for (name, config) in design.configs {
            atomic_write(&self.config(name), config.to_toml()?.as_bytes())?;
        }
        let mut manifest = manifest(run, self.dataset, seeds.to_vec());
        manifest.loss_contract = design.loss_contract.clone();
        if self.folder.is_shared() {
            // There before anybody looks for it, so that nobody on a network misses it.
            self.folder.write_json("summary.json", &self.summary)?;
        }
        self.folder.write_json("manifest.json", &manifest)
    }

    /// Checks that it is the same, and reads what has been found.
    fn go_on(&mut self, run: &RunContext, design: &Design, seeds: &[u64]) -> Result<()> {
        let Design { experiment, preset, .. } = *design;
        self.folder.expect_data(&self.dataset.sha256)?;
        for (name, config) in design.configs {
            let path = self.config(name);
            let found = fs::read(&path).map_err(Error::io("read", &path))?;
            if found != config.to_toml()?.as_bytes() {
                return Err(Error::Usage(format!(
                    "{}: found the configuration of another run, expected that of {experiment}, \
                     preset {preset}, on {}; choose another --out",
                    path.display(),
                    self.dataset.name
                )));
            }
        }
        self.read_summary()?;
        self.record_continuation(run, seeds)
    }

    fn config(&self, name: &str) -> PathBuf {
        self.folder.root.join(format!("config-{name}.toml"))
    }

    fn read_summary(&mut self) -> Result<()> {
        let path = self.folder.summary();
        if !path.exists() {
            return Ok(());
        }
        let found: Summary = read_json(&path, "summary")?;
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

    /// Adds to the manifest who went on with the run, on what machine.
    fn record_continuation(&self, run: &RunContext, seeds: &[u64]) -> Result<()> {
        let mut kept = self.folder.read_manifest()?;
        let now = manifest(run, self.dataset, seeds.to_vec());
        let entry = json!({
            "started": utc(SystemTime::now()), "git_commit": now.git_commit, "cpu": now.cpu,
            "isa": now.isa, "threads": now.threads, "seeds": now.seeds, "command": now.command,
        });
        let continued = kept.entry("continued").or_insert_with(|| json!([]));
        match continued.as_array_mut() {
            Some(entries) => entries.push(entry),
            None => *continued = json!([entry]),
        }
        self.folder.write_json("manifest.json", &kept)
    }

    /// Adds to the manifest when the run ended: with its last start, how long that took.
    fn record_end(&self) -> Result<()> {
        let mut kept = self.folder.read_manifest()?;
        kept.insert("finished".into(), json!(utc(SystemTime::now())));
        self.folder.write_json("manifest.json", &kept)
    }

    /// Runs `experiment`, which trains the models and gives what is made of them. Where others share
    /// the run it is gone through three times: without the seeds whose first model another process
    /// is at, as [`Study::leaves`] says; then without the models that others are at; then all of it,
    /// in its own order, waiting for them. So no process waits while there is something to do, and
    /// none is done before all is there.
    ///
    /// # Errors
    /// Those of `experiment`.
    pub fn run<T>(
        &mut self,
        run: &mut RunContext,
        experiment: impl Fn(&mut RunContext, &mut Self) -> Result<T>,
    ) -> Result<T> {
        if !self.folder.is_shared() {
            return experiment(run, self);
        }
        let asked = self.asked.len();
        for patience in [Patience::Low, Patience::Some] {
            self.patience = patience;
            experiment(run, self)?;
        }
        self.patience = Patience::Full;
        self.asked.truncate(asked);
        let done = experiment(run, self)?;
        let _turn = self.folder.turn()?;
        self.read_in_order()?;
        Ok(done)
    }

    /// [`Study::run`] of an `experiment` with each seed and its teacher of `config`, trained on
    /// `train`; `systems` are those that it makes, and a seed that has them all is passed over.
    ///
    /// # Errors
    /// Those of `experiment` and of [`Study::teacher`].
    pub fn for_each_teacher(
        &mut self,
        run: &mut RunContext,
        seeds: &[u64],
        systems: &[impl AsRef<str>],
        (config, train): (&Config, &Split),
        experiment: impl Fn(&mut RunContext, &mut Self, u64, Mlp) -> Result<()>,
    ) -> Result<()> {
        self.run(run, |run, study| {
            for seed in study.order(seeds.iter().copied()) {
                let done = study.has(&["teacher"], seed)? & study.has(systems, seed)?;
                if done || study.leaves("teacher", seed)? {
                    continue;
                }
                let config = Config { seed, ..config.clone() };
                let teacher = study.teacher(run, &Task::hard("teacher", &config, train), seed)?;
                experiment(run, study, seed, teacher)?;
            }
            Ok(())
        })
    }

    /// Independent things in the order in which this process takes them: of those that share the
    /// run each begins with its own.
    pub fn order<T>(&self, items: impl IntoIterator<Item = T>) -> Vec<T> {
        let mut items: Vec<T> = items.into_iter().collect();
        if let (Some(member), false) = (self.member, self.is_patient()) {
            let first = member as usize % items.len().max(1);
            items.rotate_left(first);
        }
        items
    }

    /// Where others share the run, makes now those of `items` that nobody is at, so that nobody
    /// waits for one of them while others are still to be made. In a run of one's own, nothing:
    /// there each is made when it is needed. `name` gives the system and seed of a thing's model.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn share_out<T: Clone>(
        &mut self,
        run: &mut RunContext,
        items: &[T],
        name: impl Fn(&T) -> (String, u64),
        make: impl Fn(&mut RunContext, &mut Self, T) -> Result<Mlp>,
    ) -> Result<()> {
        if self.folder.is_shared() {
            for item in self.order(items.to_vec()) {
                let (system, seed) = name(&item);
                if self.wants(run, &system, seed)? {
                    make(run, self, item)?;
                }
            }
        }
        Ok(())
    }

    /// Whether these systems are all finished for `seed`, whoever trained them.
    ///
    /// # Errors
    /// [`Error::Data`] or [`Error::Io`] where the rows of others cannot be read.
    pub fn has(&mut self, systems: &[impl AsRef<str>], seed: u64) -> Result<bool> {
        for system in systems.iter().map(AsRef::as_ref) {
            let asked = |(s, n): &(String, u64)| s == system && *n == seed;
            if !self.asked.iter().any(asked) {
                self.asked.push((system.to_string(), seed));
            }
        }
        let all = |summary: &Summary| {
            systems.iter().all(|system| summary.row(system.as_ref(), seed).is_some())
        };
        if !all(&self.summary) && self.folder.is_shared() {
            let _turn = self.folder.turn()?;
            self.read_summary()?;
        }
        Ok(all(&self.summary))
    }

    /// Whether what needs this model is better left for later: another process is at it.
    ///
    /// # Errors
    /// As [`Study::has`].
    pub fn leaves(&mut self, system: &str, seed: u64) -> Result<bool> {
        Ok(self.patience == Patience::Low
            && !self.has(&[system], seed)?
            && self.folder.claim(&file_stem(system, seed))?.is_none())
    }

    /// Whether this process is to make the model now: it is not finished, and nobody else is at it.
    ///
    /// # Errors
    /// As [`Study::has`]; [`Error::Interrupted`].
    pub fn wants(&mut self, run: &RunContext, system: &str, seed: u64) -> Result<bool> {
        let patient = self.is_patient();
        Ok(matches!(self.whose(run, system, seed, patient)?, Whose::Ours(_)))
    }

    /// As [`Study::wants`] for a model that is needed now: waits for who is at it.
    ///
    /// # Errors
    /// Those of [`Study::wants`].
    pub fn lacks(&mut self, run: &RunContext, system: &str, seed: u64) -> Result<bool> {
        Ok(matches!(self.whose(run, system, seed, true)?, Whose::Ours(_)))
    }

    fn is_patient(&self) -> bool {
        self.patience == Patience::Full
    }

    fn whose(&mut self, run: &RunContext, system: &str, seed: u64, patient: bool) -> Result<Whose> {
        if self.has(&[system], seed)? {
            return Ok(Whose::Done);
        }
        let claim = self.claim(run, &file_stem(system, seed), patient)?;
        // Another may have finished it before the claim was free.
        Ok(match claim {
            Some(claim) if !self.has(&[system], seed)? => Whose::Ours(claim),
            Some(_) => Whose::Done,
            None => Whose::Theirs,
        })
    }

    /// Claims what is called `name`. Who is `patient` waits for another that is at it.
    fn claim(&self, run: &RunContext, name: &str, patient: bool) -> Result<Option<Hold>> {
        loop {
            let claim = self.folder.claim(name)?;
            if claim.is_some() || !patient {
                return Ok(claim);
            }
            run.go_on()?;
            thread::sleep(WAIT);
        }
    }

    /// Claims the file `name` of the run folder, to write it; nothing once it is there. Waits for
    /// another process that is at it.
    ///
    /// # Errors
    /// Those of [`Study::wants`].
    pub fn claim_file(&self, run: &RunContext, name: &str) -> Result<Option<Hold>> {
        let claim = self.claim(run, name, true)?;
        // Not before: on a network a file that was looked for in vain can stay unseen for a while.
        Ok(claim.filter(|_| !self.folder.root.join(name).exists()))
    }

    /// The model (`task.name`, `seed`), needed now: read if it is finished, else trained, evaluated
    /// and measured by `measure`.
    ///
    /// # Errors
    /// Those of training, and of reading and writing.
    pub fn model(
        &mut self,
        run: &mut RunContext,
        task: &Task,
        seed: u64,
        measure: impl FnOnce(&Context, &Mlp) -> Measures,
    ) -> Result<Mlp> {
        let measure =
            |run: &mut RunContext, _: &mut Self, model: &Mlp| Ok(measure(run.context, model));
        self.model_on(run, self.dataset, task, seed, measure)
    }

    /// As [`Study::model`] for a model with classes of its own, those of `dataset`, on whose test
    /// set it is evaluated; or one whose `measure` needs other models.
    ///
    /// # Errors
    /// Those of [`Study::model`] and of `measure`.
    pub fn model_on(
        &mut self,
        run: &mut RunContext,
        dataset: &Dataset,
        task: &Task,
        seed: u64,
        measure: impl FnOnce(&mut RunContext, &mut Self, &Mlp) -> Result<Measures>,
    ) -> Result<Mlp> {
        match self.whose(run, task.name, seed, true)? {
            Whose::Ours(claim) => self.make(run, claim, dataset, task, seed, measure),
            Whose::Done | Whose::Theirs => self.read(dataset, task.name, seed),
        }
    }

    /// As [`Study::model`] for a model that nothing else needs: a finished one is not read, and one
    /// that another process is at is left to it.
    ///
    /// # Errors
    /// Those of [`Study::model`].
    pub fn ensure(
        &mut self,
        run: &mut RunContext,
        task: &Task,
        seed: u64,
        measure: impl FnOnce(&Context, &Mlp) -> Measures,
    ) -> Result<()> {
        let patient = self.is_patient();
        if let Whose::Ours(claim) = self.whose(run, task.name, seed, patient)? {
            let measure =
                |run: &mut RunContext, _: &mut Self, model: &Mlp| Ok(measure(run.context, model));
            self.make(run, claim, self.dataset, task, seed, measure)?;
        }
        Ok(())
    }

    /// As [`Study::ensure`] for a row that is no single model's, which `make` gives.
    ///
    /// # Errors
    /// Those of `make`, and of reading and writing.
    pub fn ensure_row(
        &mut self,
        run: &mut RunContext,
        system: &str,
        seed: u64,
        make: impl FnOnce(&mut RunContext) -> Result<Row>,
    ) -> Result<()> {
        let patient = self.is_patient();
        if let Whose::Ours(_claim) = self.whose(run, system, seed, patient)? {
            let row = make(run)?;
            self.add(row)?;
        }
        Ok(())
    }

    /// Trains the model that is claimed, and keeps its row.
    fn make(
        &mut self,
        run: &mut RunContext,
        claim: Hold,
        dataset: &Dataset,
        task: &Task,
        seed: u64,
        measure: impl FnOnce(&mut RunContext, &mut Self, &Mlp) -> Result<Measures>,
    ) -> Result<Mlp> {
        run.go_on()?;
        let divergence = self.divergence(task.name, seed);
        if let Some(known) = divergence.as_deref().map(Divergence::read).transpose()?.flatten() {
            return Err(known.into());
        }
        let trained = train_model(run, &self.folder, dataset, task, seed);
        if let (Err(error), Some(path)) = (&trained, divergence) {
            Divergence::keep(error, &path)?;
        }
        let (model, row) = trained?;
        // What is measured with other models needs them now.
        let patience = std::mem::replace(&mut self.patience, Patience::Full);
        let measures = measure(run, self, &model);
        self.patience = patience;
        self.add(Row { measures: measures?, ..row })?;
        remove_checkpoints(&self.folder, task.name, seed)?;
        drop(claim);
        run.go_on()?;
        Ok(model)
    }

    /// Where it is kept that a model diverged, so that of those that share the run one trains it.
    fn divergence(&self, system: &str, seed: u64) -> Option<PathBuf> {
        let name = format!("{}.diverged.json", file_stem(system, seed));
        self.folder.is_shared().then(|| self.folder.checkpoints().join(name))
    }

    /// The teacher: given on the command line for this seed, finished, or trained now.
    ///
    /// # Errors
    /// Those of [`Study::model`]; [`Error::Data`] for a given model that does not fit the data.
    pub fn teacher(&mut self, run: &mut RunContext, task: &Task, seed: u64) -> Result<Mlp> {
        let Some(path) = run.teachers.get(&seed).cloned() else {
            return self.model(run, task, seed, |_, _| BTreeMap::new());
        };
        let Whose::Ours(_claim) = self.whose(run, task.name, seed, true)? else {
            return self.read(self.dataset, task.name, seed);
        };
        let given = load_model(&path, self.dataset.train.input_size(), self.dataset.classes)?;
        let row = crate::run::training::evaluated_row(
            run,
            &self.folder,
            self.dataset,
            task,
            seed,
            &given,
        )?;
        self.add(row)?;
        Ok(given)
    }

    /// A finished model.
    fn read(&self, dataset: &Dataset, system: &str, seed: u64) -> Result<Mlp> {
        let row = self.summary.row(system, seed);
        let row = row.ok_or_else(|| Error::Internal(format!("no row of {system}, seed {seed}")))?;
        let path = self.folder.root.join(&row.model);
        load_model(&path, dataset.train.input_size(), dataset.classes)
    }

    /// Keeps the row of what is claimed.
    fn add(&mut self, row: Row) -> Result<()> {
        let _turn = self.folder.turn()?;
        if self.folder.is_shared() {
            self.read_summary()?;
        }
        let mut rows = std::mem::take(&mut self.summary.rows);
        rows.push(row);
        self.summary.set_rows(rows);
        self.folder.write_json("summary.json", &self.summary)
    }

    /// The rows of all, as one process alone would have made them one after the other; those that
    /// the experiment did not come to at the end.
    fn read_in_order(&mut self) -> Result<()> {
        self.read_summary()?;
        let mut rows = std::mem::take(&mut self.summary.rows);
        rows.sort_by_key(|row| {
            let place = self.asked.iter().position(|(s, n)| *s == row.variant && *n == row.seed);
            place.unwrap_or(usize::MAX)
        });
        self.summary.set_rows(rows);
        Ok(())
    }

    /// Writes the summary with what is concluded from it, and the figures.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] where the rows of others cannot be read.
    pub fn finish(mut self, conclude: impl FnOnce(&Summary) -> Conclusion) -> Result<Summary> {
        let Conclusion { tables, claims, charts } = conclude(&self.summary);
        let _turn = self.folder.turn()?;
        for (name, chart) in charts {
            let path = self.folder.root.join(format!("{name}.svg"));
            atomic_write(&path, chart.to_svg().as_bytes())?;
        }
        if self.folder.is_shared() {
            // Others may have been asked for more seeds.
            self.read_in_order()?;
        }
        (self.summary.tables, self.summary.claims) = (tables, claims);
        self.folder.write_json("summary.json", &self.summary)?;
        self.record_end()?;
        Ok(self.summary)
    }
}

/// An [`Error::Diverged`], kept for other processes.
#[derive(Serialize, Deserialize)]
struct Divergence {
    tensor: String,
    layer: Option<usize>,
    epoch: u64,
    step: u64,
}

impl Divergence {
    fn read(path: &Path) -> Result<Option<Divergence>> {
        let bytes = match fs::read(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(Error::io("read", path))?,
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::Data {
            path: path.to_path_buf(),
            what: "divergence".into(),
            found: e.to_string(),
            expected: "tensor, layer, epoch and step".into(),
        })
    }

    /// Keeps `error` if it is one.
    fn keep(error: &Error, path: &Path) -> Result<()> {
        let Error::Diverged { tensor, layer, epoch, step } = error else { return Ok(()) };
        let (tensor, layer, epoch, step) = (tensor.clone(), *layer, *epoch, *step);
        let json = serde_json::to_vec(&Divergence { tensor, layer, epoch, step });
        let json = json.map_err(|e| Error::Internal(format!("divergence to JSON: {e}")))?;
        atomic_write(path, &json)
    }
}

impl From<Divergence> for Error {
    fn from(Divergence { tensor, layer, epoch, step }: Divergence) -> Error {
        Error::Diverged { tensor, layer, epoch, step }
    }
}
