//! The data set that a configuration names, and a model that fits it.

use crate::engine::config::{Config, DatasetKind};
use crate::engine::{metrics, mlp::Mlp};
use crate::files::error::{Error, Result};
use crate::files::model::ModelFile;
use limbeck_datasets::{
    Dataset, Inputs, Split, glyphs, idx, mnist as mnist_files, npy, synthetic, table,
};
use limbeck_kernels::Context;
use std::path::Path;

/// The data set that `config` names, with its hold-out and limit applied: the last `holdout`
/// training examples become the test set, then the first `train_limit` are kept.
///
/// # Errors
/// [`Error::Config`] naming `origin` for keys that the data contradict; [`Error::Usage`] for a
/// missing data folder; those of reading the files.
pub fn load_data(config: &Config, origin: &Path, data: Option<&Path>) -> Result<Dataset> {
    let Config { data: keys, model, .. } = config;
    let fault = |message| Error::Config { path: origin.to_path_buf(), line: None, message };
    let missing =
        |kind: &str, key: &str| fault(format!("dataset = \"{kind}\" needs the key data.{key}"));
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
            let missing = |key| missing("idx", key);
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
            let train = keys.train_table.as_deref();
            let train = train.ok_or_else(|| missing("csv", "train_table"))?;
            let test = keys.test_table.as_deref().filter(|_| keys.holdout.is_none());
            let label = keys.label_column.as_deref().unwrap_or("label");
            table::load_dataset(train, test, label, keys.classes)?
        }
        DatasetKind::Npz => {
            let arrays = keys.arrays.as_deref().ok_or_else(|| missing("npz", "arrays"))?;
            npy::load_dataset(arrays, keys.classes, keys.holdout.is_some())?
        }
    };
    if let (Inputs::Features(_), Some(jitter)) = (&dataset.train.inputs, keys.jitter) {
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
    let sizes = [("inputs", model.inputs(), inputs), ("classes", model.classes(), classes)];
    match sizes.into_iter().find(|(_, found, expected)| found != expected) {
        None => Ok(model),
        Some((what, found, expected)) => Err(Error::Data {
            path: path.to_path_buf(),
            what: format!("{what} of the model"),
            found: found.to_string(),
            expected: format!("{expected}, as the data has"),
        }),
    }
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
