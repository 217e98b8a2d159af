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

use super::experiment::{Conclusion, ExperimentSpec};
use super::graph::{Graph, Make, Node};
use super::{experiment_run::ExperimentRun, key::Key, request::Request};
use crate::files::error::{Error, Result};
use crate::files::write::atomic_write;
use crate::run::context::{RunContext, manifest};
use crate::run::summary::{Row, Summary, Verdict};
use crate::run::training::remove_checkpoints;
use crate::run::{
    folder::{RunFolder, file_stem},
    manifest::utc,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, io::ErrorKind, thread};

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
    mut spec: ExperimentSpec,
    out: &Path,
) -> Result<Summary> {
    for (_, config) in &mut spec.configs {
        config.training.precision = request.precision;
    }
    spec.graph = chosen(spec.graph, request)?;
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
    run.summary.train_limit = spec.train_limit;
    run.summary.test_examples = Some(run.dataset.test.len());
    let mut conclusion = (spec.conclude)(&mut run)?;
    if !request.only.is_empty() {
        conclusion.leave_out_the_unknown();
    }
    if let Some((table, note)) = conclusion.tables.first_mut().zip(run.of_other_requests(&order)) {
        table.note(note);
    }
    run.finish(conclusion, &order)
}

/// Of `graph` the variants that have one of the names of [`Request::only`], or names that begin so, and what
/// they need; all if it is empty.
fn chosen(graph: Graph, request: &Request) -> Result<Graph> {
    let only = &request.only;
    if only.is_empty() {
        return Ok(graph);
    }
    if graph.then.is_some() || graph.nodes.iter().any(|node| node.may_diverge) {
        return Err(Error::Usage(
            "--only: found with an experiment that is concluded from all of its rows, since some follow from \
             others or may diverge; expected without"
                .into(),
        ));
    }
    let keys = || graph.nodes.iter().map(|node| &node.key);
    // What is the whole name of one is not the beginning of others.
    let begins = |key: &Key, with: &str| {
        let whole = keys().any(|key| key.variant() == Some(with));
        key.variant().is_some_and(|name| name == with || !whole && name.starts_with(with))
    };
    if let Some(unknown) = only.iter().find(|with| !keys().any(|key| begins(key, with))) {
        let mut known: Vec<&str> = keys().filter_map(Key::variant).collect();
        let mut seen = BTreeSet::new();
        known.retain(|variant| seen.insert(*variant));
        return Err(Error::Usage(format!(
            "--only: found {unknown:?}, expected what the name of a row begins with: {}{}",
            known.join("; "),
            if request.extended { "" } else { "; some experiments have more with --extended" }
        )));
    }
    let is_asked = |key: &&Key| only.iter().any(|with| begins(key, with));
    let mut wanted: BTreeSet<Key> = keys().filter(is_asked).cloned().collect();
    // Each stands behind what it needs.
    for node in graph.nodes.iter().rev() {
        if wanted.contains(&node.key) {
            wanted.extend(node.needs.iter().cloned());
        }
    }
    let nodes = graph.nodes.into_iter().filter(|node| wanted.contains(&node.key)).collect();
    Ok(Graph::new(nodes))
}

impl<'r, 'c> ExperimentRun<'r, 'c> {
    fn open(
        run: &'r mut RunContext<'c>,
        request: &'r Request,
        spec: &ExperimentSpec,
        out: &Path,
    ) -> Result<Self> {
        let (preset, dataset) = (request.preset.name(), spec.dataset.clone());
        let (experiment, paper) = (spec.experiment, &spec.paper_errors);
        let mut summary = Summary::new(experiment, &dataset.name, preset, Vec::new(), paper);
        summary.precision = request.precision;
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
        // Checkpoints of models whose rows were written just before the process ended.
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
        manifest.experiment = Some(spec.experiment.to_string());
        manifest.loss_contract = spec.loss;
        manifest.precision = self.request.precision;
        if self.folder.is_shared() {
            // There before anybody looks for it, so that nobody on a network misses it.
            self.folder.write_json("summary.json", &self.summary)?;
        }
        self.folder.write_json("manifest.json", &manifest)
    }

    /// Checks that the folder holds the same experiment, reads what was found, and adds to the
    /// manifest who goes on with it, on what machine.
    fn go_on(&mut self, spec: &ExperimentSpec) -> Result<()> {
        self.folder.expect_experiment(spec.experiment)?;
        self.read_summary()?;
        self.folder.expect_data(&self.dataset.sha256)?;
        for (name, config) in &spec.configs {
            let path = self.config(name);
            if !path.exists() {
                // Rows that the experiment is asked for beyond those that it began with.
                atomic_write(&path, config.to_toml()?.as_bytes())?;
                continue;
            }
            let found = fs::read(&path).map_err(Error::io("read", &path))?;
            if found != config.to_toml()?.as_bytes() {
                return Err(Error::Usage(format!(
                    "{}: found the configuration of another run, expected that of {}, preset {}, \
                     on {}, in {}; choose another --out",
                    path.display(),
                    self.summary.experiment,
                    self.summary.preset,
                    self.dataset.name,
                    self.request.precision.name()
                )));
            }
        }
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

    /// The loop of the module's documentation.
    fn make_all(&mut self, nodes: &[Node]) -> Result<()> {
        self.read_rows()?;
        nodes
            .iter()
            .filter(|node| node.may_be_given)
            .try_for_each(|node| self.expect_given(&node.key))?;
        let mut diverged = BTreeSet::new();
        let mut last_seed = None;
        loop {
            self.read_rows()?;
            let missing = |i: &usize| !diverged.contains(i) && !self.has(&nodes[*i].key);
            let missing: Vec<usize> = (0..nodes.len()).filter(missing).collect();
            if self.forget_lost(nodes, &missing)? {
                continue;
            }
            if missing.is_empty() {
                return Ok(());
            }
            let needed: BTreeSet<&Key> = missing.iter().flat_map(|&i| &nodes[i].needs).collect();
            self.models.retain(|key, _| needed.contains(key));
            let ready = |i: &usize| nodes[*i].needs.iter().all(|need| self.has(need));
            let ready: Vec<usize> = missing.into_iter().filter(ready).collect();
            let mut found_one = false;
            for i in self.order(ready, |&i| nodes[i].key.seed() == last_seed) {
                self.run.go_on()?;
                let node = &nodes[i];
                let Some(_lock) = self.folder.try_lock(&node.key.lock_name())? else { continue };
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

    /// Forgets the rows of models that the `missing` ones of `nodes`, or the conclusion, need and whose files
    /// are gone, so that they are made again. Whether there were any.
    fn forget_lost(&mut self, nodes: &[Node], missing: &[usize]) -> Result<bool> {
        let needed: BTreeSet<&Key> = missing.iter().flat_map(|&i| &nodes[i].needs).collect();
        let root = self.folder.root.clone();
        let is_lost = |row: &Row| {
            let key = Key::row(&row.variant, row.seed);
            let node = nodes.iter().find(|node| node.key == key);
            let in_reach = node.is_some_and(|node| node.is_concluded || needed.contains(&key));
            in_reach && !row.model.is_empty() && !root.join(&row.model).exists()
        };
        // This is asked before every node: the summary is written only where something is lost.
        if !self.summary.rows.iter().any(is_lost) {
            return Ok(false);
        }
        let mut lost = Vec::new();
        self.change_rows(|rows| lost.extend(rows.extract_if(.., |row| is_lost(row))))?;
        for Row { variant, seed, model, .. } in &lost {
            let path = root.join(model);
            self.run.observer.warn(&format!(
                "{}: no such file, which is needed: {variant}, seed {seed}, is made again",
                path.display()
            ));
        }
        Ok(true)
    }

    /// Which rows are there beyond those that were asked for, in a sentence.
    fn of_other_requests(&self, order: &[Key]) -> Option<String> {
        let mut seeds: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for row in &self.summary.rows {
            if !order.contains(&Key::row(&row.variant, row.seed)) {
                seeds.entry(&row.variant).or_default().push(row.seed.to_string());
            }
        }
        let text =
            |(variant, seeds): (&str, Vec<String>)| format!("{variant} {}", seeds.join(", "));
        let all: Vec<String> = seeds.into_iter().map(text).collect();
        (!all.is_empty()).then(|| {
            format!(
                "The folder holds rows of another request too, which count where their seed has all of a \
                 figure's: {}.",
                all.join("; ")
            )
        })
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

    /// Makes a node whose lock is held, and keeps what it came to.
    fn make(&mut self, node: &Node) -> Result<()> {
        let divergence = self.divergence(&node.key);
        let known = divergence.as_deref().map(Divergence::read).transpose()?.flatten();
        if let Some(Divergence { tensor, layer, epoch, step, advice }) = known {
            return Err(Error::Diverged { tensor, layer, epoch, step, advice });
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

    /// The file that keeps a divergence, so that only one of the processes trains that model.
    fn divergence(&self, key: &Key) -> Option<PathBuf> {
        let name = format!("{}.diverged.json", key.lock_name());
        self.folder.is_shared().then(|| self.folder.checkpoints().join(name))
    }

    /// Writes the summary with what is concluded from it, and the figures.
    fn finish(mut self, conclusion: Conclusion, order: &[Key]) -> Result<Summary> {
        let Conclusion { headline, tables, claims, charts } = conclusion;
        let _exclusive = self.folder.exclusive()?;
        for (name, chart) in &charts {
            let path = self.folder.root.join(format!("{name}.svg"));
            atomic_write(&path, chart.to_svg().as_bytes())?;
        }
        if self.folder.is_shared() {
            // Others may have been asked for more seeds.
            self.read_summary()?;
            self.sort_rows(order);
        }
        (self.summary.tables, self.summary.claims) = (tables, claims);
        (self.summary.headline, self.summary.charts) = (headline, charts.into_iter().collect());
        if !self.summary.is_judged() {
            self.summary.claims.iter_mut().for_each(|claim| claim.verdict = Verdict::NotJudged);
        }
        self.folder.write_json("summary.json", &self.summary)?;
        let mut kept = self.folder.read_manifest()?;
        kept.insert("finished".into(), json!(utc(SystemTime::now())));
        self.folder.write_json("manifest.json", &kept)?;
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
    #[serde(default)]
    advice: String,
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
        let Error::Diverged { tensor, layer, epoch, step, advice } = error else { return Ok(()) };
        let (tensor, layer, epoch, step) = (tensor.clone(), *layer, *epoch, *step);
        let advice = advice.clone();
        let json = serde_json::to_vec(&Divergence { tensor, layer, epoch, step, advice });
        let json = json.map_err(|e| Error::Internal(format!("divergence to JSON: {e}")))?;
        atomic_write(path, &json)
    }
}
