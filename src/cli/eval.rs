//! `limbeck eval`: what models are worth on test data.

use super::session::{DatasetName, Session};
use clap::{Args, ValueEnum};
use limbeck::engine::config::Config;
use limbeck::engine::data;
use limbeck::engine::distill;
use limbeck::engine::metrics::{self, Confusion, Evaluation};
use limbeck::engine::mlp::Mlp;
use limbeck::files::model::ModelFile;
use limbeck::files::read::read_json;
use limbeck::files::shown::ShownPath;
use limbeck::files::write::atomic_write;
use limbeck::run::by_class::ByClass;
use limbeck::run::folder::entries;
use limbeck::run::statistics::{self, McNemar};
use limbeck::run::{manifest, number};
use limbeck::{Error, Result};
use limbeck_datasets::{Dataset, npy};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct EvalArgs {
    /// Model files, or a run's folder; several models are compared and joined to an ensemble
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<PathBuf>,

    /// Test set; if absent that of the model's run, else MNIST if in the data folder, else the glyphs
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    dataset: Option<DatasetName>,

    /// The test set, or the hold-out, of this configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Write the logits on the test set, of several models the ensemble's, as NPY [n, classes]
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
}

pub fn run(session: &Session, args: &EvalArgs) -> Result<()> {
    // The models' files are read, once, before minutes are spent on data.
    let mut config = args.config.as_deref().map(Config::load).transpose()?;
    let models = args.models.iter().map(|path| models_of(path));
    let models = models.collect::<Result<Vec<_>>>()?.concat();
    if let Some(output) = &args.logits {
        let mut inputs = models.clone();
        inputs.extend(args.config.clone());
        inputs.extend(config.iter_mut().flat_map(files_of));
        for path in &models {
            let located = run_of(path).map(|run| located(session, &run)).transpose()?;
            inputs.extend(located.into_iter().flat_map(|(mut config, _)| files_of(&mut config)));
        }
        session.expect_no_input(output, inputs.iter().map(|path| &**path))?;
        session.expect_replaceable(output, b"\x93NUMPY", "array of NumPy")?;
    }
    let files = models.iter().map(|path| session.model(path));
    let files = files.collect::<Result<Vec<_>>>()?;
    let dataset = test_data(session, args, config, &models, &files)?;
    let mut logits = Vec::new();
    let mut reports = Vec::new();
    let mut left_out = Vec::new();
    for (path, (file, sha256)) in models.iter().zip(files) {
        // The data are in the first model's order; others may have another.
        let about = file.about.clone();
        let model = Mlp::from_file(&file.arranged(&dataset.names, path)?);
        match data::expect_fit(&model, path, dataset.test.input_size(), dataset.classes) {
            Ok(()) => {}
            // Not one that was asked for: a run's specialists tell other classes apart than its data have.
            Err(error) if !args.models.contains(path) => {
                left_out.push(error);
                continue;
            }
            Err(error) => return Err(with_advice(error, args)),
        }
        if about.shares_files_with(&dataset) == Some(false) {
            session.warn(&format!(
                "{} was trained on {}, and these are test examples of other data, {}",
                path.display(),
                about.dataset,
                dataset.name
            ));
        }
        let name = |i| format!("{}: test example {i}, counted from 0", path.display());
        logits.push(data::finite_logits(&session.context, &model, &dataset.test, name)?);
        reports.push(ModelReport {
            model: path.clone().into(),
            layers: model.widths(),
            sha256,
            score: score(&dataset, logits.last().map_or(&[], Vec::as_slice)),
        });
    }
    let others = left_out.len();
    if let Some(error) = left_out.into_iter().next() {
        if reports.is_empty() {
            return Err(with_advice(error, args));
        }
        session.note(&format!(
            "{others} of the run's models, of other inputs or classes than {}, are left out",
            dataset.name
        ));
    }
    let dataset_name = dataset.name.clone();
    let write = |logits: &[f32]| match &args.logits {
        Some(path) => atomic_write(path, &npy::of_logits(logits, dataset.classes)),
        None => Ok(()),
    };
    if reports.len() == 1 {
        write(&logits[0])?;
        let report = reports.remove(0);
        return session.result(&Single { dataset: dataset_name, report });
    }
    let mcnemar = pairs(&reports);
    let joint = distill::ensemble_logits(&session.context, logits, dataset.classes, 1.0);
    write(&joint)?;
    session.result(&Several {
        dataset: dataset_name,
        models: reports,
        ensemble: score(&dataset, &joint),
        mcnemar,
    })
}

/// The model files that an argument names: itself, or all of a run's folder.
fn models_of(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let folder = path.join("models");
    let mut files = entries(&folder)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "safetensors"));
    match files.is_empty() {
        false => Ok(files),
        true => Err(Error::Usage(format!(
            "{}: found no models, expected a model file, or a run's folder with models/",
            path.display()
        ))),
    }
}

/// What to do about a model that does not fit data that nobody named.
fn with_advice(error: Error, args: &EvalArgs) -> Error {
    match (error, &args.config) {
        (Error::Data { path, what, found, expected }, None) => {
            let expected = format!("{expected}; --config FILE names data of your own");
            Error::Data { path, what, found, expected }
        }
        (error, _) => error,
    }
}

/// The folder of the run of one model that a model lies in, if it does.
fn run_of(model: &Path) -> Option<PathBuf> {
    let run = model.parent().and_then(Path::parent)?;
    let is_run = ["config.toml", "manifest.json"].iter().all(|file| run.join(file).is_file());
    is_run.then(|| run.to_path_buf())
}

/// The configuration of a run, with the places where its files are now, and its manifest.
fn located(session: &Session, run: &Path) -> Result<(Config, serde_json::Value)> {
    let manifest = read_json(&run.join("manifest.json"), "manifest")?;
    let (data, asked) = (session.data.as_deref(), session.data_is_asked);
    let config = Config::load(&run.join("config.toml"))?;
    Ok((manifest::located(&config, &manifest, data, asked), manifest))
}

/// The files that a configuration names, and those of the folders that it names.
fn files_of(config: &mut Config) -> Vec<PathBuf> {
    let inside = |path: &PathBuf| {
        let entries = path.read_dir().into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let paths: Vec<PathBuf> = config.paths_mut().map(|(_, path)| path.clone()).collect();
    let below: Vec<PathBuf> = paths.iter().flat_map(inside).collect();
    [paths, below].concat()
}

/// What the models are tested on: what is asked for; else the data of the run that they lie in, or of
/// the name that they were trained on; else what there is.
fn test_data(
    session: &Session,
    args: &EvalArgs,
    config: Option<Config>,
    paths: &[PathBuf],
    models: &[(ModelFile, String)],
) -> Result<Dataset> {
    let (about, path) = (&models[0].0.about, &paths[0]);
    if let Some((config, origin)) = config.zip(args.config.as_deref()) {
        let dataset = data::load_data(&config, origin, session.data.as_deref())?;
        return data::align(dataset, about, path);
    }
    if args.dataset.is_some() {
        return session.dataset(args.dataset);
    }
    if let Some(run) = run_of(path) {
        let kept = run.join("config.toml");
        let (mut located, manifest) = located(session, &run)?;
        session.note(&format!("the test examples are those of {}", kept.display()));
        let dataset = data::load_data(&located, &kept, session.data.as_deref())?;
        // The manifest knows teachers and a model to start from too.
        let differing = manifest::differing(&manifest["data"], &dataset.sha256);
        let changed = differing.iter().find(|(key, ..)| dataset.sha256.contains_key(key));
        if let Some((key, ..)) = changed {
            let known = key.split('/').next().unwrap_or_default();
            let changed = located.paths_mut().find(|(path, _)| *path == known);
            let changed = changed.map_or(kept.clone(), |(_, path)| path.clone());
            // What was trained on would be tested.
            if located.data.holdout.is_some() {
                return Err(Error::Data {
                    path: changed,
                    what: format!("the run's {key}"),
                    found: "other content than when it was trained, of which another part would be held \
                            out"
                    .into(),
                    expected: "the file of then, or test examples of their own: --config FILE".into(),
                });
            }
            let path = changed.display();
            session.warn(&format!("{path}: {key} is not as it was when the run was trained"));
        }
        return data::align(dataset, about, path);
    }
    let known = DatasetName::from_str(&about.dataset, false).ok();
    if known.is_none() && !about.dataset.is_empty() {
        return Err(Error::Usage(format!(
            "{} was trained on {} data, which are not at hand: name data in a configuration, --config \
             FILE, or give the model in its run's folder",
            path.display(),
            about.dataset
        )));
    }
    session.dataset(known)
}

/// One model's measures on the test set.
#[derive(Serialize)]
struct Score {
    #[serde(flatten)]
    evaluation: Evaluation,
    /// Wilson's 95 % interval of the error rate.
    interval95: (f64, f64),
    #[serde(flatten)]
    by_class: ByClass,
}

fn score(dataset: &Dataset, logits: &[f32]) -> Score {
    let labels = dataset.test.labels.as_deref().unwrap_or_default();
    let evaluation = metrics::evaluate(logits, labels, dataset.classes);
    let counts = (evaluation.errors as u64, evaluation.examples as u64);
    let confusion = Confusion::new(logits, labels, dataset.classes);
    let interval95 = statistics::wilson_interval(counts.0, counts.1);
    Score { evaluation, interval95, by_class: ByClass::new(&confusion, &dataset.names) }
}

#[derive(Serialize)]
struct ModelReport {
    model: ShownPath,
    layers: Vec<usize>,
    sha256: String,
    #[serde(flatten)]
    score: Score,
}

#[derive(Serialize)]
struct Single {
    dataset: String,
    #[serde(flatten)]
    report: ModelReport,
}

#[derive(Serialize)]
struct Several {
    dataset: String,
    models: Vec<ModelReport>,
    /// The arithmetic mean of the models' distributions.
    ensemble: Score,
    mcnemar: Vec<Pair>,
}

/// Whether two models differ, from the examples that only one of them gets wrong.
#[derive(Serialize)]
struct Pair {
    first: ShownPath,
    second: ShownPath,
    #[serde(flatten)]
    test: McNemar,
}

fn pairs(models: &[ModelReport]) -> Vec<Pair> {
    let wrong = |report: &ModelReport| report.score.evaluation.misclassified.clone();
    let mut pairs = Vec::new();
    for (i, first) in models.iter().enumerate() {
        for second in &models[i + 1..] {
            pairs.push(Pair {
                first: first.model.clone(),
                second: second.model.clone(),
                test: statistics::mcnemar(&wrong(first), &wrong(second)),
            });
        }
    }
    pairs
}

impl Display for Score {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Evaluation { errors, error_rate, nll, calibration_error, .. } = &self.evaluation;
        let [rate, low, high] =
            [*error_rate, self.interval95.0, self.interval95.1].map(|r| r * 100.0);
        write!(
            f,
            "{errors:>6} errors  {rate:.2} % ({low:.2} to {high:.2})  NLL {nll:.4}  \
             calibration error {calibration_error:.4}"
        )
    }
}

impl Display for ModelReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let layers: Vec<String> = self.layers.iter().map(usize::to_string).collect();
        write!(f, "{}  {}  {}", self.score, layers.join("-"), self.model.display())
    }
}

fn heading(f: &mut Formatter<'_>, dataset: &str, examples: usize) -> fmt::Result {
    writeln!(f, "{examples} test examples of {dataset}, rates with their 95 % interval")
}

impl Display for Single {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        heading(f, &self.dataset, self.report.score.evaluation.examples)?;
        writeln!(f, "{}", self.report)?;
        write!(f, "{}", self.report.score.by_class)
    }
}

impl Display for Several {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        heading(f, &self.dataset, self.ensemble.evaluation.examples)?;
        for model in &self.models {
            writeln!(f, "{model}")?;
        }
        writeln!(f, "{}  ensemble of {}", self.ensemble, self.models.len())?;
        for Pair { first, second, test } in &self.mcnemar {
            let McNemar { only_first, only_second, p_value } = test;
            writeln!(
                f,
                "McNemar: {only_first} wrong only in {}, {only_second} only in {}, p = {}",
                first.display(),
                second.display(),
                number::p_value(*p_value)
            )?;
        }
        Ok(())
    }
}
