//! One scheduler for all experiments: it owns order, locks, waiting, resuming and what processes
//! share.
//!
//! A node is known by its [`Key`]. Its row is written to `summary.json` as soon as it is made, so
//! that an interrupted experiment goes on with the model, and the step, where it was. Processes that
//! share a run all run the same graph and agree through its folder:
//!
//! ```text
//! while a node is not made:
//!     of the nodes whose needs are there, in this worker's order:
//!         lock the first that nobody is at, make it, keep its row
//!     if all of them are locked: wait
//! ```
//!
//! A lock ends with its process, however that ends; another then goes on from the last checkpoint.
//! A process by itself finds every lock free and never waits: what one process does and what eight
//! do is this one loop.

use super::graph::{Graph, Key, Make, Node};
use super::{Conclusion, ExperimentSpec, Request};
use crate::engine::data::load_model;
use crate::engine::mlp::Mlp;
use crate::engine::trainer::Task;
use crate::files::error::{Error, Result};
use crate::files::read::read_json;
use crate::files::write::atomic_write;
use crate::run::context::{RunContext, manifest};
use crate::run::folder::RunFolder;
use crate::run::manifest::utc;
use crate::run::summary::{Measures, Row, Summary};
use crate::run::training::{evaluated_row, file_stem, remove_checkpoints, train_model};
use limbeck_datasets::{Dataset, Split};
use limbeck_kernels::Context;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, SystemTime};

/// How often a process looks whether those that it waits for are done.
const WAIT: Duration = Duration::from_millis(200);

/// Makes what `spec` declares in the run folder `out`, a new one or one in which the same experiment
/// was begun, and writes its conclusion.
///
/// # Errors
/// [`Error::Usage`] if `out` holds another run, or a process has it that does not share it;
/// [`Error::Data`] for other data than it began with, or a damaged summary; [`Error::Interrupted`];
/// those of training, reading and writing.
pub fn execute(
    run: &mut RunContext,
    request: &Request,
    spec: ExperimentSpec,
    out: &Path,
) -> Result<Summary> {
    let mut run = ExperimentRun::open(run, request, &spec, out)?;
    let mut order = Vec::new();
    let mut graph = Some(spec.graph);
    while let Some(Graph { nodes, then }) = graph {
        order.extend(nodes.iter().map(|node| node.key.clone()));
        run.make_all(&nodes)?;
        graph = then.map(|then| then(&mut run)).transpose()?;
    }
    run.read_rows()?;
    run.sort_rows(&order);
    let conclusion = (spec.conclude)(&mut run)?;
    run.finish(conclusion, &order)
}

/// An experiment under way, as the nodes see it.
pub struct ExperimentRun<'r, 'c> {
    /// What it works with.
    pub run: &'r mut RunContext<'c>,
    /// Where its files are.
    pub folder: RunFolder,
    /// What has been found so far.
    pub summary: Summary,
    request: &'r Request,
    dataset: Rc<Dataset>,
    /// Finished models that are still needed.
    models: BTreeMap<Key, Rc<Mlp>>,
}

impl<'r, 'c> ExperimentRun<'r, 'c> {
    fn open(
        run: &'r mut RunContext<'c>,
        request: &'r Request,
        spec: &ExperimentSpec,
        out: &Path,
    ) -> Result<Self> {
        let (preset, dataset) = (request.preset.name(), spec.dataset.clone());
        let paper: Vec<_> = spec.paper_errors.iter().map(|(v, n)| (v.as_str(), *n)).collect();
        let summary = Summary::new(spec.experiment, &dataset.name, preset, Vec::new(), &paper);
        let folder = match request.worker {
            Some(_) => RunFolder::share(out)?,
            None if out.join("manifest.json").exists() => RunFolder::open(out)?,
            None => RunFolder::create(out)?,
        };
        let models = BTreeMap::new();
        let mut experiment = ExperimentRun { run, folder, summary, request, dataset, models };
        let exclusive = experiment.folder.exclusive()?;
        if experiment.folder.manifest().exists() {
            experiment.go_on(spec)?;
        } else {
            experiment.begin(spec)?;
        }
        drop(exclusive);
        // Those of models whose rows were kept just before the end.
        for Row { variant, seed, .. } in &experiment.summary.rows {
            if let Some(_lock) = experiment.folder.try_lock(&file_stem(variant, *seed))? {
                remove_checkpoints(&experiment.folder, variant, *seed)?;
            }
        }
        Ok(experiment)
    }

    /// Writes down what is going to be done.
    fn begin(&self, spec: &ExperimentSpec) -> Result<()> {
        for (name, config) in &spec.configs {
            atomic_write(&self.config(name), config.to_toml()?.as_bytes())?;
        }
        let mut manifest = manifest(self.run, &self.dataset, spec.seeds.clone());
        manifest.loss_contract = spec.loss;
        if self.folder.is_shared() {
            // There before anybody looks for it, so that nobody on a network misses it.
            self.folder.write_json("summary.json", &self.summary)?;
        }
        self.folder.write_json("manifest.json", &manifest)
    }

    /// Checks that the folder holds the same experiment, reads what was found, and adds to the
    /// manifest who goes on with it, on what machine.
    fn go_on(&mut self, spec: &ExperimentSpec) -> Result<()> {
        self.folder.expect_data(&self.dataset.sha256)?;
        for (name, config) in &spec.configs {
            let path = self.config(name);
            let found = fs::read(&path).map_err(Error::io("read", &path))?;
            if found != config.to_toml()?.as_bytes() {
                return Err(Error::Usage(format!(
                    "{}: found the configuration of another run, expected that of {}, preset {}, \
                     on {}; choose another --out",
                    path.display(),
                    self.summary.experiment,
                    self.summary.preset,
                    self.dataset.name
                )));
            }
        }
        self.read_summary()?;
        let mut kept = self.folder.read_manifest()?;
        let now = manifest(self.run, &self.dataset, spec.seeds.clone());
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

    fn config(&self, name: &str) -> PathBuf {
        self.folder.root.join(format!("config-{name}.toml"))
    }

    /// Takes the rows of `summary.json`, where it is there.
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

    /// The rows of those that share the run.
    fn read_rows(&mut self) -> Result<()> {
        if self.folder.is_shared() {
            let _exclusive = self.folder.exclusive()?;
            self.read_summary()?;
        }
        Ok(())
    }

    /// Puts the rows in the order of the graph; those of other seeds come last.
    fn sort_rows(&mut self, order: &[Key]) {
        let mut rows = std::mem::take(&mut self.summary.rows);
        rows.sort_by_key(|row| {
            let place = order.iter().position(|key| *key == Key::row(&row.variant, row.seed));
            place.unwrap_or(usize::MAX)
        });
        self.summary.set_rows(rows);
    }

    /// The loop of the module's documentation.
    fn make_all(&mut self, nodes: &[Node]) -> Result<()> {
        let mut diverged = BTreeSet::new();
        let mut last_seed = None;
        loop {
            self.read_rows()?;
            let missing = |i: &usize| !diverged.contains(i) && !self.has(&nodes[*i].key);
            let missing: Vec<usize> = (0..nodes.len()).filter(missing).collect();
            if missing.is_empty() {
                return Ok(());
            }
            self.forget_models(missing.iter().flat_map(|&i| &nodes[i].needs));
            let ready = |i: &usize| nodes[*i].needs.iter().all(|need| self.has(need));
            let ready: Vec<usize> = missing.into_iter().filter(ready).collect();
            let mut found_one = false;
            for i in self.order(ready, |&i| nodes[i].key.seed() == last_seed) {
                self.run.go_on()?;
                let node = &nodes[i];
                let Some(_lock) = self.folder.try_lock(&lock_name(&node.key))? else { continue };
                found_one = true;
                // Another may have finished it before the lock was free.
                self.read_rows()?;
                if !self.has(&node.key) {
                    last_seed = node.key.seed();
                    match self.make(node) {
                        Err(Error::Diverged { .. }) if node.may_diverge => {
                            self.run.observer.warn(&format!("{}: diverged", node.key));
                            diverged.insert(i);
                        }
                        made => made?,
                    }
                }
                break;
            }
            if !found_one {
                if !self.folder.is_shared() {
                    return Err(Error::Internal(
                        "an experiment whose nodes need each other".into(),
                    ));
                }
                self.run.go_on()?;
                thread::sleep(WAIT);
            }
        }
    }

    /// A process by itself takes what is ready in the order of the graph. Of several each begins
    /// elsewhere, and stays with a seed whose teacher it has at hand.
    fn order(&self, mut ready: Vec<usize>, at_hand: impl Fn(&usize) -> bool) -> Vec<usize> {
        if let Some(worker) = self.request.worker {
            let first = worker as usize % ready.len().max(1);
            ready.rotate_left(first);
            ready.sort_by_key(|i| !at_hand(i));
        }
        ready
    }

    /// Whether what this key names is there.
    fn has(&self, key: &Key) -> bool {
        match key {
            Key::Row(variant, seed) => self.summary.row(variant, *seed).is_some(),
            Key::Measures(variant, seed) => {
                self.summary.row(variant, *seed).is_some_and(|row| !row.measures.is_empty())
            }
            Key::File(name) => self.folder.root.join(name).exists(),
        }
    }

    /// Makes a node whose lock is held, and keeps what it came to.
    fn make(&mut self, node: &Node) -> Result<()> {
        let divergence = self.divergence(&node.key);
        if let Some(known) = divergence.as_deref().map(Divergence::read).transpose()?.flatten() {
            return Err(known.into());
        }
        let made = match &node.make {
            Make::Row(make) => make(self).and_then(|row| self.keep(row)),
            Make::Measures(make) => {
                make(self).and_then(|measures| self.keep_measures(&node.key, measures))
            }
            Make::File(make) => make(self),
        };
        if let (Err(error), Some(path)) = (&made, divergence) {
            Divergence::keep(error, &path)?;
        }
        made?;
        self.run.go_on()
    }

    /// Where it is kept that a model diverged, so that of those that share the run one trains it.
    fn divergence(&self, key: &Key) -> Option<PathBuf> {
        let name = format!("{}.diverged.json", lock_name(key));
        self.folder.is_shared().then(|| self.folder.checkpoints().join(name))
    }

    /// Adds a row to the summary. Its model needs no checkpoints any more.
    fn keep(&mut self, row: Row) -> Result<()> {
        let (variant, seed) = (row.variant.clone(), row.seed);
        self.change_rows(|rows| rows.push(row))?;
        remove_checkpoints(&self.folder, &variant, seed)
    }

    fn keep_measures(&mut self, key: &Key, measures: Measures) -> Result<()> {
        let is_of = |row: &&mut Row| Key::Measures(row.variant.clone(), row.seed) == *key;
        self.change_rows(|rows| {
            rows.iter_mut().filter(is_of).for_each(|row| row.measures = measures.clone());
        })
    }

    /// Changes the rows, those of other processes among them, and writes them.
    fn change_rows(&mut self, change: impl FnOnce(&mut Vec<Row>)) -> Result<()> {
        let _exclusive = self.folder.exclusive()?;
        if self.folder.is_shared() {
            self.read_summary()?;
        }
        let mut rows = std::mem::take(&mut self.summary.rows);
        change(&mut rows);
        self.summary.set_rows(rows);
        self.folder.write_json("summary.json", &self.summary)
    }

    /// Drops the models that nothing `needed` names.
    fn forget_models<'k>(&mut self, needed: impl Iterator<Item = &'k Key>) {
        let needed: BTreeSet<&Key> = needed.collect();
        self.models.retain(|key, _| needed.contains(key));
    }

    /// Writes the summary with what is concluded from it, and the figures.
    fn finish(mut self, conclusion: Conclusion, order: &[Key]) -> Result<Summary> {
        let Conclusion { tables, claims, charts } = conclusion;
        let _exclusive = self.folder.exclusive()?;
        for (name, chart) in charts {
            let path = self.folder.root.join(format!("{name}.svg"));
            atomic_write(&path, chart.to_svg().as_bytes())?;
        }
        if self.folder.is_shared() {
            // Others may have been asked for more seeds.
            self.read_summary()?;
            self.sort_rows(order);
        }
        (self.summary.tables, self.summary.claims) = (tables, claims);
        self.folder.write_json("summary.json", &self.summary)?;
        let mut kept = self.folder.read_manifest()?;
        kept.insert("finished".into(), json!(utc(SystemTime::now())));
        self.folder.write_json("manifest.json", &kept)?;
        Ok(self.summary)
    }

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
        let (model, row) = train_model(self.run, &self.folder, dataset, task, seed)?;
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
}

/// What the lock of a node is called.
fn lock_name(key: &Key) -> String {
    match key {
        Key::Row(variant, seed) | Key::Measures(variant, seed) => file_stem(variant, *seed),
        Key::File(name) => name.to_string(),
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
