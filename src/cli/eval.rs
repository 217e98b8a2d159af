//! `limbeck eval`: what models are worth on test data.

use super::session::{DatasetName, Session};
use clap::Args;
use limbeck::engine::config::Config;
use limbeck::engine::data;
use limbeck::engine::distill;
use limbeck::engine::metrics::{self, Evaluation};
use limbeck::engine::mlp::Mlp;
use limbeck::files::shown::ShownPath;
use limbeck::files::write::atomic_write;
use limbeck::run::number;
use limbeck::run::statistics::{self, McNemar};
use limbeck::{Error, Result};
use limbeck_datasets::{Dataset, npy};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

#[derive(Args)]
pub struct EvalArgs {
    /// Model files; several are compared and joined to an ensemble
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<PathBuf>,

    /// Test set; MNIST if absent and in the data folder, else the glyphs
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
    if let Some(output) = &args.logits {
        let data = config.iter_mut().flat_map(Config::paths_mut).map(|(_, path)| &**path);
        let inputs = args.models.iter().chain(&args.config).map(|path| &**path);
        session.expect_no_input(output, inputs.chain(data))?;
    }
    let files = args.models.iter().map(|path| session.model(path));
    let files = files.collect::<Result<Vec<_>>>()?;
    let dataset = match config.zip(args.config.as_deref()) {
        Some((config, path)) => data::load_data(&config, path, session.data.as_deref())?,
        None => session.dataset(args.dataset)?,
    };
    let mut logits = Vec::new();
    let mut models = Vec::new();
    for (path, (file, sha256)) in args.models.iter().zip(files) {
        let model = Mlp::from_file(&file);
        let fit = data::expect_fit(&model, path, dataset.test.input_size(), dataset.classes);
        fit.map_err(|error| match (error, &args.config) {
            (Error::Data { path, what, found, expected }, None) => {
                let expected = format!("{expected}; --config FILE names data of your own");
                Error::Data { path, what, found, expected }
            }
            (error, _) => error,
        })?;
        logits.push(data::finite_logits(&session.context, &model, &dataset.test)?);
        models.push(ModelReport {
            model: path.clone().into(),
            layers: model.widths(),
            sha256,
            score: score(&dataset, logits.last().map_or(&[], Vec::as_slice)),
        });
    }
    let dataset_name = dataset.name.clone();
    let write = |logits: &[f32]| match &args.logits {
        Some(path) => atomic_write(path, &npy::of_logits(logits, dataset.classes)),
        None => Ok(()),
    };
    if models.len() == 1 {
        write(&logits[0])?;
        let report = models.remove(0);
        return session.result(&Single { dataset: dataset_name, report });
    }
    let mcnemar = pairs(&models);
    let joint = distill::ensemble_logits(&session.context, logits, dataset.classes, 1.0);
    write(&joint)?;
    session.result(&Several {
        dataset: dataset_name,
        models,
        ensemble: score(&dataset, &joint),
        mcnemar,
    })
}

/// One model's measures on the test set.
#[derive(Serialize)]
struct Score {
    #[serde(flatten)]
    evaluation: Evaluation,
    /// Wilson's 95 % interval of the error rate.
    interval95: (f64, f64),
}

fn score(dataset: &Dataset, logits: &[f32]) -> Score {
    let labels = dataset.test.labels.as_deref().unwrap_or_default();
    let evaluation = metrics::evaluate(logits, labels, dataset.classes);
    let counts = (evaluation.errors as u64, evaluation.examples as u64);
    Score { evaluation, interval95: statistics::wilson_interval(counts.0, counts.1) }
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
        writeln!(f, "{}", self.report)
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
