//! Training in a run folder: from a task to a model file and its row of the summary.

use crate::engine::communicator::Communicator;
use crate::engine::data::evaluate;
use crate::engine::metrics;
use crate::engine::mlp::Mlp;
use crate::engine::trainer::{self, EpochRecord, Observer, Progress, Task};
use crate::files::digest::sha256_of;
use crate::files::error::{Error, Result};
use crate::run::context::RunContext;
use crate::run::folder::RunFolder;
use crate::run::records::Recorder;
use crate::run::summary::Row;
use limbeck_datasets::{Dataset, Inputs, Split};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
    let epochs = task.config.training.epochs as u64;
    let row = Row {
        seconds: trained.seconds,
        epochs: Some(epochs),
        samples_per_second: Some(epochs as f64 * task.split.len() as f64 / trained.seconds),
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
        fn on_step(&mut self, _: &Progress) {}
        fn on_epoch(&mut self, _: &EpochRecord) -> Result<()> {
            Ok(())
        }
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

/// Writes `model` to the run folder and evaluates it on the test set and on `split`, which it was
/// trained on.
pub(crate) fn evaluated_row(
    run: &RunContext,
    folder: &RunFolder,
    dataset: &Dataset,
    split: &Split,
    (variant, seed): (&str, u64),
    model: &Mlp,
) -> Result<Row> {
    let name = file_stem(variant, seed);
    let sha256 = model.to_file().save(&folder.model(&name))?;
    let test = evaluate(run.context, model, &dataset.test)?;
    // A training set may hold variants of each example. Then the examples alone count.
    let enlarged = split.len() > dataset.train.len();
    let split = if enlarged { &dataset.train } else { split };
    let train_errors = split.labels.as_ref().map(|_| model.errors(run.context, split) as u64);
    Ok(Row {
        variant: variant.to_string(),
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
    Ok(Row {
        variant: variant.into(),
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

/// The indices of misclassified test examples, for tests of significance. Frames of an utterance are
/// not independent examples: of them there are none.
fn misclassified(dataset: &Dataset, test: metrics::Evaluation) -> Vec<usize> {
    match &dataset.test.inputs {
        Inputs::Features(frames) if !frames.are_rows() => Vec::new(),
        _ => test.misclassified,
    }
}

/// The file name of a model without its extension, such as `student-T=20-0`.
pub(crate) fn file_stem(variant: &str, seed: u64) -> String {
    format!("{}-{seed}", variant.replace([' ', ',', '/'], "-"))
}
