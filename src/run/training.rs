//! Training in a run folder: from a task to a model file and its row of the summary.

use crate::engine::trainer::{self, Observer, Task};
use crate::engine::{communicator::Communicator, data::evaluate, metrics, mlp::Mlp};
use crate::files::about::About;
use crate::files::digest::sha256_of;
use crate::files::error::{Error, Result};
use crate::files::model::ModelFile;
use crate::run::summary::{Measure, Row};
use crate::run::{
    context::RunContext,
    folder::{RunFolder, file_stem},
    records::{Recorder, records},
};
use limbeck_datasets::{Dataset, Inputs, Split};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{collections::BTreeMap, io::ErrorKind, time::Duration};

/// The epoch whose model was kept, where training was to stop early.
pub const BEST_EPOCH: Measure = Measure::named("best_epoch");

/// Trains `task`, writes its metrics, checkpoints and model file to the run folder, and evaluates the
/// model on the test set. The model file is written before the row is returned. Once the caller has
/// written the row, it removes the checkpoints with [`remove_checkpoints`].
///
/// # Errors
/// Those of [`trainer::train`] and of writing the files.
pub fn train_model(
    run: &mut RunContext,
    folder: &RunFolder,
    dataset: &Dataset,
    task: &Task,
    seed: u64,
) -> Result<(Mlp, Row)> {
    let checkpoints = folder.checkpoints().join(file_stem(task.name, seed));
    let mut recorder = Recorder { folder, seed, inner: &mut *run.observer, stop: run.stop };
    let (context, checkpoints) = (run.context, Some(checkpoints.as_path()));
    let trained = match &mut run.communicator {
        None => trainer::train(context, task, checkpoints, &mut recorder),
        Some(communicator) => {
            trainer::train_together(context, task, communicator, checkpoints, &mut recorder)
        }
    }?;
    let row = evaluated_row(run, folder, dataset, task.split, (task.name, seed), &trained.model)?;
    let epochs = trained.epochs as u64;
    let best = trained.best_epoch.map(|epoch| BEST_EPOCH.of(epoch as f64));
    let row = Row {
        seconds: trained.seconds,
        epochs: Some(epochs),
        samples_per_second: Some(epochs as f64 * task.split.len() as f64 / trained.seconds),
        measures: best.into_iter().collect(),
        ..row
    };
    Ok((trained.model, row))
}

/// Takes part in training `task` as a rank above 0, while rank 0 calls [`train_model`].
///
/// # Errors
/// Those of [`trainer::train_together`].
pub fn follow(run: &RunContext, task: &Task, communicator: &mut Communicator) -> Result<()> {
    /// Shows nothing, and stops when asked.
    struct Follower<'a>(&'a AtomicBool);
    impl Observer for Follower<'_> {
        fn stop(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
        fn warn(&mut self, _: &str) {}
    }
    let observer = &mut Follower(run.stop);
    trainer::train_together(run.context, task, communicator, None, observer).map(drop)
}

/// Removes the checkpoints of a finished model. It is no error if there are none.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_checkpoints(folder: &RunFolder, variant: &str, seed: u64) -> Result<()> {
    let checkpoints = folder.checkpoints().join(file_stem(variant, seed));
    match std::fs::remove_dir_all(&checkpoints) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove", &checkpoints)(e)),
        _ => Ok(()),
    }
}

/// That epochs of a model were trained of which no checkpoint is there, as a sentence.
pub fn lost_checkpoints(folder: &RunFolder, variant: &str, seed: u64) -> Option<String> {
    let checkpoints = folder.checkpoints().join(file_stem(variant, seed));
    let is_there = std::fs::read_dir(&checkpoints).is_ok_and(|mut files| files.next().is_some());
    let trained = records(folder, variant, seed).map_or(0, |records| records.len());
    (!is_there && trained > 0).then(|| {
        format!(
            "{}: found no checkpoint of the {trained} epochs that were trained: it begins again",
            checkpoints.display()
        )
    })
}

/// Writes `model` to the run folder; evaluates it on the test set and on `split`, its training set.
pub(crate) fn evaluated_row(
    run: &RunContext,
    folder: &RunFolder,
    dataset: &Dataset,
    split: &Split,
    (variant, seed): (&str, u64),
    model: &Mlp,
) -> Result<Row> {
    let name = file_stem(variant, seed);
    let file = ModelFile { about: About::of(dataset), ..model.to_file() };
    let sha256 = file.save(&folder.model(&name))?;
    let test = evaluate(run.context, model, &dataset.test)?;
    // A training set may hold variants of each example. Then the examples alone count.
    let enlarged = split.len() > dataset.train.len();
    let split = if enlarged { &dataset.train } else { split };
    let train_errors = split.labels.as_ref().map(|_| model.errors(run.context, split) as u64);
    let model = format!("models/{name}.safetensors");
    Ok(Row { train_errors, model, sha256, ..tested_row(dataset, variant, seed, test) })
}

/// The row of a variant that combines several models, such as an ensemble, from its `logits`
/// [n, classes] on the test set.
///
/// # Errors
/// [`Error::Usage`] for a test set without labels.
pub fn combined_row(
    dataset: &Dataset,
    variant: &str,
    seed: u64,
    logits: &[f32],
    time: Duration,
) -> Result<Row> {
    let labels = dataset.test.labels.as_ref();
    let labels = labels.ok_or_else(|| Error::Usage("the test set has no labels".into()))?;
    let test = metrics::evaluate(logits, labels, dataset.classes);
    let sha256 = sha256_of(logits.iter().map(|z| z.to_le_bytes()));
    let seconds = time.as_secs_f64();
    Ok(Row { seconds, sha256, ..tested_row(dataset, variant, seed, test) })
}

/// The row of what was evaluated on the test set; no model yet.
fn tested_row(dataset: &Dataset, variant: &str, seed: u64, test: metrics::Evaluation) -> Row {
    Row {
        variant: variant.into(),
        seed,
        test_errors: test.errors as u64,
        train_errors: None,
        seconds: 0.0,
        model: String::new(),
        sha256: String::new(),
        test_nll: Some(test.nll),
        epochs: None,
        samples_per_second: None,
        chosen_on: None,
        misclassified: match &dataset.test.inputs {
            // Frames of an utterance are not independent, as a test of significance wants it.
            Inputs::Features(frames) if !frames.are_rows() => Vec::new(),
            _ => test.misclassified,
        },
        measures: BTreeMap::new(),
    }
}
