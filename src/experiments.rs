//! The paper's experiments, one file per table, and what they share.

pub mod logits;
pub mod mnist;
pub mod omitted;
pub mod preset;
pub mod regularizer;
pub mod specialists;
pub mod speech;
pub mod study;
pub mod temperature;
pub mod variance;

use crate::checkpoint::ModelFile;
use crate::config::{Config, DatasetKind};
use crate::error::{Error, Result};
use crate::metrics;
use crate::mlp::Mlp;
use crate::run::{Manifest, RunFolder, sha256_of};
use crate::summary::Row;
use crate::team::Team;
use crate::trainer::{self, EpochRecord, Observer, Progress, Task};
use limbeck_datasets::{
    Dataset, Inputs, Split, glyphs, idx, mnist as mnist_files, npy, permute, synthetic, table,
};
use limbeck_kernels::Context;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What an experiment runs with.
pub struct Lab<'a> {
    /// Kernels and threads.
    pub context: &'a Context,
    /// The folder that holds `mnist/`.
    pub data: Option<&'a Path>,
    /// Teachers that are given, by seed; others are trained.
    pub teachers: BTreeMap<u64, PathBuf>,
    /// The command line, for the manifest.
    pub command: Vec<String>,
    /// Commit of the source, where known, for the manifest.
    pub git_commit: Option<String>,
    /// Who watches.
    pub observer: &'a mut dyn Observer,
    /// Set from outside to end the run after the step at hand.
    pub stop: &'a AtomicBool,
    /// The other ranks, where this is rank 0 of several that train its models together.
    pub team: Option<&'a mut Team>,
    /// Where this process begins, of several that share the run folder: at its `member`-th model,
    /// from 0. Any numbers do; different ones get in each other's way least. `None` where the folder
    /// is this process's own.
    pub member: Option<u32>,
    /// What the machine can do, 10⁹ operations per second, where it was measured; for the manifest.
    pub peak_gflops: Option<f64>,
}

impl<'a> Lab<'a> {
    /// A run of this process alone, without data or teachers.
    pub fn new(
        context: &'a Context,
        observer: &'a mut dyn Observer,
        stop: &'a AtomicBool,
    ) -> Lab<'a> {
        Lab {
            context,
            data: None,
            teachers: BTreeMap::new(),
            command: Vec::new(),
            git_commit: None,
            observer,
            stop,
            team: None,
            member: None,
            peak_gflops: None,
        }
    }

    /// # Errors
    /// [`Error::Interrupted`] when the run is to end.
    pub fn go_on(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted { command: None });
        }
        Ok(())
    }
}

/// MNIST where `data` holds it, else the embedded glyphs.
///
/// # Errors
/// Those of a damaged MNIST.
pub fn mnist_or_glyphs(data: Option<&Path>) -> Result<Dataset> {
    match data {
        Some(folder) if mnist_files::is_present(folder) => Ok(mnist_files::load(folder)?),
        _ => Ok(glyphs::default()),
    }
}

/// The data set that `config` names, with its hold-out and limit applied: the last `holdout`
/// training examples become the test set, then the first `train_limit` are kept.
///
/// # Errors
/// [`Error::Config`] naming `origin` for keys that the data contradict; [`Error::Usage`] for a
/// missing data folder; those of reading the files.
pub fn load_data(config: &Config, origin: &Path, data: Option<&Path>) -> Result<Dataset> {
    let Config { data: keys, model, .. } = config;
    let fault = |message| Error::Config { path: origin.to_path_buf(), line: None, message };
    let mut dataset = match keys.dataset {
        DatasetKind::Mnist => {
            let folder = data.ok_or_else(|| {
                Error::Usage(
                    "dataset = \"mnist\" needs a data folder: set --data or LIMBECK_DATA".into(),
                )
            })?;
            mnist_files::load(folder)?
        }
        DatasetKind::Glyphs => glyphs::default(),
        DatasetKind::Writers => glyphs::writers::default(),
        DatasetKind::Frames => synthetic::frames(keys.classes),
        DatasetKind::An4 => {
            return Err(fault(
                "data.dataset: found \"an4\", expected another: its labels come from an aligner, \
                 see `limbeck reproduce speech`"
                    .into(),
            ));
        }
        DatasetKind::Idx => {
            let missing = |key: &str| fault(format!("dataset = \"idx\" needs the key data.{key}"));
            let train_images =
                keys.train_images.as_deref().ok_or_else(|| missing("train_images"))?;
            let train_labels = keys.train_labels.as_deref();
            // A hold-out is cut from the training split; its labels are needed then.
            let (test_images, test_labels) = match (&keys.test_images, &keys.test_labels) {
                (Some(images), Some(labels)) => (images.as_path(), labels.as_path()),
                (None, None) if keys.holdout.is_some() => {
                    (train_images, train_labels.ok_or_else(|| missing("train_labels"))?)
                }
                (None, _) => return Err(missing("test_images")),
                (_, None) => return Err(missing("test_labels")),
            };
            idx::load_dataset(train_images, train_labels, test_images, test_labels, keys.classes)?
        }
        DatasetKind::Csv => {
            let missing = || fault("dataset = \"csv\" needs the key data.train_table".into());
            let train = keys.train_table.as_deref().ok_or_else(missing)?;
            let test = keys.test_table.as_deref().filter(|_| keys.holdout.is_none());
            let label = keys.label_column.as_deref().unwrap_or("label");
            table::load_dataset(train, test, label, keys.classes)?
        }
        DatasetKind::Npz => {
            let missing = || fault("dataset = \"npz\" needs the key data.arrays".into());
            let arrays = keys.arrays.as_deref().ok_or_else(missing)?;
            npy::load_dataset(arrays, keys.classes, keys.holdout.is_some())?
        }
    };
    if let (Inputs::Frames(_), Some(jitter)) = (&dataset.train.inputs, keys.jitter) {
        return Err(fault(format!(
            "data.jitter: found {jitter}, expected none: it moves images, and the examples of {} \
             are features",
            dataset.name
        )));
    }
    if dataset.train.input_size() != model.layers[0] {
        return Err(fault(format!(
            "model.layers: found {} inputs, expected {}, the values of an example of {}",
            model.layers[0],
            dataset.train.input_size(),
            dataset.name
        )));
    }
    if let Some(last) = keys.holdout {
        let examples = dataset.train.len();
        if last == 0 || last >= examples {
            return Err(fault(format!(
                "data.holdout: found {last}, expected 1 to {} of the {examples} training examples",
                examples - 1
            )));
        }
        (dataset.train, dataset.test) = dataset.train.holdout(last);
    }
    if let Some(limit) = keys.train_limit {
        dataset.train = dataset.train.truncated(limit);
    }
    Ok(dataset)
}

/// Reads a model and checks that it fits images of `inputs` pixels in `classes` classes.
///
/// # Errors
/// Those of [`ModelFile::load`]; [`Error::Data`] if the sizes do not fit.
pub fn load_model(path: &Path, inputs: usize, classes: usize) -> Result<Mlp> {
    let (file, _) = ModelFile::load(path)?;
    let model = Mlp::from_file(&file);
    let unfit = |what: &str, found: usize, expected: usize| Error::Data {
        path: path.to_path_buf(),
        what: what.into(),
        found: found.to_string(),
        expected: format!("{expected}, as the data has"),
    };
    if model.inputs() != inputs {
        return Err(unfit("inputs of the model", model.inputs(), inputs));
    }
    if model.classes() != classes {
        return Err(unfit("classes of the model", model.classes(), classes));
    }
    Ok(model)
}

/// Trains `task` in a run folder (metrics, checkpoints, model file) and evaluates it on the test
/// set. The model is written before its row is returned; once the row is kept, the checkpoints are
/// to be removed with [`remove_checkpoints`].
///
/// # Errors
/// Those of [`trainer::train`] and of writing the files.
pub fn train_model(
    lab: &mut Lab,
    folder: &RunFolder,
    dataset: &Dataset,
    task: &Task,
    seed: u64,
) -> Result<(Mlp, Row)> {
    let checkpoints = folder.checkpoints().join(file_stem(task.name, seed));
    let mut recorder = Recorder { folder, seed, inner: &mut *lab.observer, stop: lab.stop };
    let (context, checkpoints) = (lab.context, Some(checkpoints.as_path()));
    let trained = match &mut lab.team {
        None => trainer::train(context, task, checkpoints, &mut recorder),
        Some(team) => trainer::train_together(context, task, team, checkpoints, &mut recorder),
    }?;
    let row = evaluated_row(lab, folder, dataset, task, seed, &trained.model)?;
    let epochs = task.config.training.epochs as u64;
    let row = Row {
        seconds: trained.seconds,
        epochs: Some(epochs),
        samples_per_second: Some(epochs as f64 * task.split.len() as f64 / trained.seconds),
        ..row
    };
    Ok((trained.model, row))
}

/// What the ranks above 0 do while rank 0 trains `task` with [`train_model`].
///
/// # Errors
/// Those of [`trainer::train_together`].
pub fn follow(lab: &Lab, task: &Task, team: &mut Team) -> Result<()> {
    struct Follower<'a>(&'a AtomicBool);
    impl Observer for Follower<'_> {
        fn on_step(&mut self, _: &Progress) {}
        fn on_epoch(&mut self, _: &EpochRecord) -> Result<()> {
            Ok(())
        }
        fn stop(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
        fn warn(&mut self, _: &str) {}
    }
    let observer = &mut Follower(lab.stop);
    trainer::train_together(lab.context, task, team, None, observer).map(drop)
}

/// Removes the checkpoints of a finished model, if there are any.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_checkpoints(folder: &RunFolder, system: &str, seed: u64) -> Result<()> {
    let checkpoints = folder.checkpoints().join(file_stem(system, seed));
    match std::fs::remove_dir_all(&checkpoints) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove", &checkpoints)(e)),
        _ => Ok(()),
    }
}

/// Writes `model` as the result of `task` and evaluates it on the test set and on the task's own.
fn evaluated_row(
    lab: &Lab,
    folder: &RunFolder,
    dataset: &Dataset,
    task: &Task,
    seed: u64,
    model: &Mlp,
) -> Result<Row> {
    let name = file_stem(task.name, seed);
    let sha256 = model.to_file().save(&folder.model(&name))?;
    let test = evaluate(lab.context, model, &dataset.test)?;
    // Of a training set that was enlarged by variants of its examples, the examples.
    let enlarged = task.split.len() > dataset.train.len();
    let split = if enlarged { &dataset.train } else { task.split };
    let train_errors = split.labels.as_ref().map(|_| model.errors(lab.context, split) as u64);
    Ok(Row {
        system: task.name.to_string(),
        seed,
        test_errors: test.errors as u64,
        train_errors,
        seconds: 0.0,
        model: format!("models/{name}.safetensors"),
        sha256,
        test_nll: Some(test.nll),
        epochs: None,
        samples_per_second: None,
        misclassified: misclassified(dataset, test),
        measures: BTreeMap::new(),
    })
}

/// The row of a system that is no single model, from its test logits.
fn combined_row(
    dataset: &Dataset,
    system: &str,
    seed: u64,
    logits: &[f32],
    time: Duration,
) -> Result<Row> {
    let labels = dataset.test.labels.as_ref();
    let labels = labels.ok_or_else(|| Error::Usage("the test set has no labels".into()))?;
    let test = metrics::evaluate(logits, labels, dataset.classes);
    Ok(Row {
        system: system.into(),
        seed,
        test_errors: test.errors as u64,
        train_errors: None,
        seconds: time.as_secs_f64(),
        model: String::new(),
        sha256: sha256_of(logits.iter().map(|z| z.to_le_bytes())),
        test_nll: Some(test.nll),
        epochs: None,
        samples_per_second: None,
        misclassified: misclassified(dataset, test),
        measures: BTreeMap::new(),
    })
}

/// Frames of an utterance are not independent: no test is made of single ones.
fn misclassified(dataset: &Dataset, test: metrics::Evaluation) -> Vec<usize> {
    match &dataset.test.inputs {
        Inputs::Frames(frames) if !frames.are_rows() => Vec::new(),
        _ => test.misclassified,
    }
}

/// The file name of a model, without its ending: `student-T=20-0`.
pub(crate) fn file_stem(system: &str, seed: u64) -> String {
    format!("{}-{seed}", system.replace([' ', ',', '/'], "-"))
}

/// Errors, likelihood and calibration of `model` on a labelled split.
///
/// # Errors
/// [`Error::Usage`] if the split has no labels.
pub fn evaluate(context: &Context, model: &Mlp, split: &Split) -> Result<metrics::Evaluation> {
    let labels =
        split.labels.as_ref().ok_or_else(|| Error::Usage("the test set has no labels".into()))?;
    Ok(metrics::evaluate(&model.logits(context, split), labels, model.classes()))
}

/// The first `percent` % of the permutation of `examples` that belongs to the seed: a draw without
/// order.
fn draw(examples: usize, seed: u64, percent: usize) -> Vec<u32> {
    let mut order = vec![0; examples];
    permute(seed, 0, &mut order);
    order.truncate((examples * percent / 100).max(1));
    order
}

/// The rows `chosen` of a row-major matrix of `width` columns.
fn rows(matrix: &[f32], width: usize, chosen: &[u32]) -> Vec<f32> {
    chosen.iter().flat_map(|&i| &matrix[i as usize * width..][..width]).copied().collect()
}

/// The manifest of this run, to be completed by the experiment.
pub fn manifest(lab: &Lab, dataset: &Dataset, seeds: Vec<u64>) -> Manifest {
    let isa = lab.context.isa.to_string();
    let threads = lab.context.pool.threads();
    let mut manifest = Manifest::new(lab.command.clone(), lab.git_commit.clone(), &isa, threads);
    manifest.peak_gflops = lab.peak_gflops;
    manifest.seeds = seeds;
    manifest.data = dataset.sha256.clone();
    manifest
}

/// Writes each epoch to `metrics.jsonl` before passing it on.
struct Recorder<'a> {
    folder: &'a RunFolder,
    seed: u64,
    inner: &'a mut dyn Observer,
    stop: &'a AtomicBool,
}

/// A line of `metrics.jsonl`.
#[derive(Serialize, Deserialize)]
pub(crate) struct SeededRecord<R> {
    /// Seed of the model.
    pub seed: u64,
    /// Its epoch.
    #[serde(flatten)]
    pub record: R,
}

/// The epochs of all models in a `metrics.jsonl`.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] for a line that is no record.
pub(crate) fn all_records(path: &Path) -> Result<Vec<SeededRecord<EpochRecord>>> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let record = |(i, line): (usize, io::Result<Vec<u8>>)| {
        let line = line.map_err(Error::io("read", path))?;
        serde_json::from_slice(&line).map_err(|e| Error::Data {
            path: path.to_path_buf(),
            what: format!("line {}", i + 1),
            found: e.to_string(),
            expected: "an epoch's record".into(),
        })
    };
    BufReader::new(file).split(b'\n').enumerate().map(record).collect()
}

/// The epochs of a model in `metrics.jsonl`.
///
/// # Errors
/// Those of [`all_records`].
fn records(folder: &RunFolder, system: &str, seed: u64) -> Result<Vec<EpochRecord>> {
    let _turn = folder.turn()?;
    let all = all_records(&folder.metrics())?.into_iter();
    let of_model = all.filter(|line| line.record.model == system && line.seed == seed);
    Ok(of_model.map(|line| line.record).collect())
}

impl Observer for Recorder<'_> {
    /// Drops the lines of epochs that are about to be trained again, and what is left of a line on
    /// a disk that was full.
    fn on_start(&mut self, model: &str, epochs_done: usize) -> Result<()> {
        let turn = self.folder.turn()?;
        let path = self.folder.metrics();
        let bytes = match std::fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            read => read.map_err(Error::io("read", &path))?,
        };
        let text = String::from_utf8_lossy(&bytes);
        let keep = |line: &&str| {
            let Ok(record) = serde_json::from_str::<serde_json::Value>(line) else { return false };
            let epoch = record["epoch"].as_u64().unwrap_or(0) as usize;
            record["model"] != model || record["seed"] != self.seed || epoch <= epochs_done
        };
        let kept: String = text.lines().filter(keep).flat_map(|line| [line, "\n"]).collect();
        if kept.as_bytes() != bytes {
            crate::run::atomic_write(&path, kept.as_bytes())?;
        }
        drop(turn);
        self.inner.on_start(model, epochs_done)
    }

    fn on_step(&mut self, progress: &Progress) {
        self.inner.on_step(progress);
    }

    fn on_epoch(&mut self, record: &EpochRecord) -> Result<()> {
        self.folder.append_metrics(&SeededRecord { seed: self.seed, record })?;
        self.inner.on_epoch(record)
    }

    fn on_checkpoint(&mut self) -> Result<()> {
        self.folder.sync_metrics()
    }

    fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn warn(&mut self, message: &str) {
        self.inner.warn(message);
    }
}
