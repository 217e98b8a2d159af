//! The data set that a configuration names, and a model that fits it.

use crate::engine::config::{Amount, Config, DatasetKind, SplitKind};
use crate::engine::metrics;
use crate::engine::mlp::Mlp;
use crate::files::about::About;
use crate::files::error::{Error, Result};
use crate::files::model::ModelFile;
use limbeck_datasets::{
    Dataset, Inputs, Remark, Split, glyphs, idx, mnist as mnist_files, npy, synthetic, table,
};
use limbeck_kernels::Context;
use std::collections::BTreeMap;
use std::path::Path;

/// The data set that `config` names, with its hold-out, validation and limit applied.
///
/// # Errors
/// Those of [`load_whole`] and [`cut`].
pub fn load_data(config: &Config, origin: &Path, data: Option<&Path>) -> Result<Dataset> {
    Ok(cut(load_whole(config, origin, data)?, config, origin)?.dataset)
}

/// The data set that `config` names, with all of its training examples.
///
/// # Errors
/// [`Error::Config`] naming `origin` for keys that the data contradict; [`Error::Usage`] for a
/// missing data folder; those of reading the files.
pub fn load_whole(config: &Config, origin: &Path, data: Option<&Path>) -> Result<Dataset> {
    let Config { data: keys, model, .. } = config;
    let fault = |message| Error::Config { path: origin.to_path_buf(), line: None, message };
    let missing =
        |kind: &str, key: &str| fault(format!("dataset = \"{kind}\" needs the key data.{key}"));
    let classes = Some(keys.classes).filter(|classes| *classes > 0);
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
            idx::load_dataset(train_images, train_labels, test_images, test_labels, classes)?
        }
        DatasetKind::Csv => {
            let train = keys.train_table.as_deref();
            let train = train.ok_or_else(|| missing("csv", "train_table"))?;
            let test = keys.test_table.as_deref().filter(|_| keys.holdout.is_none());
            let dataset = table::load_dataset(train, test, &keys.columns(), classes)?;
            if dataset.train.labels.is_none() && keys.holdout.is_some() {
                return Err(fault(format!(
                    "data.label_column: found no column of labels in {}, expected the labels' column \
                     as its first line names it, or its place: a hold-out needs labels",
                    train.display()
                )));
            }
            dataset
        }
        DatasetKind::Npz => {
            let arrays = keys.arrays.as_deref().ok_or_else(|| missing("npz", "arrays"))?;
            npy::load_dataset(arrays, classes, keys.holdout.is_some())?
        }
    };
    dataset.sha256 = by_key(config, dataset.sha256);
    if let (Inputs::Features(_), Some(jitter)) = (&dataset.train.inputs, keys.jitter) {
        return Err(fault(format!(
            "data.jitter: found {jitter}, expected none: it moves images, and the examples of {} \
             are features",
            dataset.name
        )));
    }
    if let Some(&inputs) = model.layers.first()
        && ![0, dataset.train.input_size()].contains(&inputs)
    {
        // What was left out may be what was counted.
        let warnings = dataset.notes.iter().filter_map(|remark| match remark {
            Remark::Warning(text) => Some(format!("; {text}")),
            Remark::Note(_) => None,
        });
        return Err(fault(format!(
            "model.layers: found {inputs} inputs, expected {}, the values of an example of {}{}",
            dataset.train.input_size(),
            dataset.name,
            warnings.collect::<String>()
        )));
    }
    Ok(dataset)
}

/// Puts into `config` what it leaves to the data: classes, the first and last of its layers; and, where it
/// has no layers, those of the model to start from.
///
/// # Errors
/// [`Error::Usage`] for what the data contradict.
pub fn complete(config: &mut Config, dataset: &Dataset, initial: Option<&Mlp>) -> Result<()> {
    let widths = initial.map(Mlp::widths);
    config
        .complete(dataset.train.input_size(), dataset.classes, widths.as_deref())
        .map_err(Error::Usage)
}

/// A data set that was cut in parts.
pub struct Parts {
    /// What is trained on, and what is tested on.
    pub dataset: Dataset,
    /// What is watched.
    pub validation: Option<Split>,
    /// Which of all training examples are trained on.
    pub rows: Vec<u32>,
    /// How many there were.
    pub examples: usize,
}

/// Cuts the training examples: `holdout` of them become the test set, `validation` of the others are
/// watched, and the first `train_limit` of the rest are kept.
///
/// # Errors
/// [`Error::Config`] naming `origin` for a part of all examples, or of examples without labels.
pub fn cut(mut dataset: Dataset, config: &Config, origin: &Path) -> Result<Parts> {
    let keys = &config.data;
    let all = &dataset.train;
    let examples = all.len();
    let mut rows: Vec<u32> = (0..examples as u32).collect();
    let mut take = |key: &str, amount: Option<Amount>| -> Result<Option<Split>> {
        let Some(amount) = amount else { return Ok(None) };
        let (n, held) = (rows.len(), amount.of(rows.len()));
        let fault = |expected: String| Error::Config {
            path: origin.to_path_buf(),
            line: None,
            message: format!("data.{key}: found {amount}, expected {expected}"),
        };
        if held >= n {
            let most = n.saturating_sub(1);
            return Err(fault(format!("1 to {most} of {n} of the {examples} training examples")));
        }
        if all.labels.is_none() {
            return Err(fault("none: the training examples have no labels to compare with".into()));
        }
        let (left, taken) = match keys.split_kind() {
            SplitKind::Last => {
                ((0..(n - held) as u32).collect(), ((n - held) as u32..n as u32).collect())
            }
            SplitKind::Stratified => all.subset(&rows).stratified(held, keys.split_seed),
        };
        let of = |places: Vec<u32>| places.into_iter().map(|i| rows[i as usize]).collect();
        let (left, taken): (Vec<u32>, Vec<u32>) = (of(left), of(taken));
        rows = left;
        Ok(Some(all.subset(&taken)))
    };
    let test = take("holdout", keys.holdout)?;
    let validation = take("validation", keys.validation)?;
    rows.truncate(keys.train_limit.unwrap_or(examples));
    if rows.len() < examples {
        dataset.train = all.subset(&rows);
    }
    if let Some(test) = test {
        dataset.test = test;
    }
    Ok(Parts { dataset, validation, rows, examples })
}

/// SHA-256 by the configuration's keys in place of its paths, which change when files are moved: of a
/// file in the folder `arrays`, `arrays/NAME`.
fn by_key(config: &Config, sha256: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut config = config.clone();
    // As they are named in `sha256`.
    let paths: Vec<(&str, String)> =
        config.paths_mut().map(|(key, path)| (key, path.display().to_string())).collect();
    let name = |path: &str| {
        paths.iter().find_map(|(key, place)| match path.strip_prefix(place)? {
            "" => Some(key.to_string()),
            rest if rest.starts_with(['/', '\\']) => Some(format!("{key}{rest}")),
            _ => None,
        })
    };
    sha256.into_iter().map(|(path, digest)| (name(&path).unwrap_or(path), digest)).collect()
}

/// Brings the test examples of `dataset` into the order of features and classes that the model at `path`
/// knows, by their names; nothing is done where either has none.
///
/// # Errors
/// [`Error::Data`] for a feature or a class that the model has and the data have not, or the other way.
pub fn align(dataset: Dataset, about: &About, path: &Path) -> Result<Dataset> {
    let bad = |what: &str, found: String, expected: String| Error::Data {
        path: path.to_path_buf(),
        what: what.into(),
        found,
        expected,
    };
    let Dataset { mut test, classes, names, .. } = dataset;
    let (mut classes, mut names) = (classes, names);
    let wanted = &about.names;
    if differ(&names.features, &wanted.features) {
        let place = |name: &String| names.features.iter().position(|known| known == name);
        let places: Option<Vec<usize>> = wanted.features.iter().map(place).collect();
        let places = places.filter(|places| places.len() == names.features.len());
        let places = places.ok_or_else(|| {
            let strange = |a: &[String], b: &[String]| {
                let only: Vec<&str> = a.iter().filter(|n| !b.contains(n)).map(|n| &n[..]).collect();
                only.join(", ")
            };
            let [more, less] = [
                strange(&wanted.features, &names.features),
                strange(&names.features, &wanted.features),
            ];
            bad(
                "features of the model",
                format!("[{more}] that the data lack"),
                match &less[..] {
                    "" => "these columns in the data".into(),
                    _ => format!("these columns in the data, which have [{less}] in their place"),
                },
            )
        })?;
        if let Inputs::Features(features) = &test.inputs {
            test.inputs = Inputs::Features(features.reordered(&places));
        }
        names.features.clone_from(&wanted.features);
    }
    let known = wanted.classes_beside(&names);
    names.classes = names.classes_beside(wanted);
    if differ(&names.classes, &known) {
        let place = |name: &String| known.iter().position(|known| known == name);
        let places: Vec<Option<usize>> = names.classes.iter().map(place).collect();
        for label in test.labels.iter_mut().flatten() {
            let name = &names.classes[usize::from(*label)];
            let place = places[usize::from(*label)].ok_or_else(|| {
                let expected = format!("{name:?} among them, as the data have");
                bad("classes of the model", known.join(", "), expected)
            })?;
            *label = place as u16;
        }
        classes = known.len();
        names.classes = known;
    }
    Ok(Dataset { test, classes, names, ..dataset })
}

fn differ(a: &[String], b: &[String]) -> bool {
    !a.is_empty() && !b.is_empty() && a != b
}

/// Reads a model and checks that it fits examples of `inputs` values in `classes` classes.
///
/// # Errors
/// Those of [`ModelFile::load`] and [`expect_fit`].
pub fn load_model(path: &Path, inputs: usize, classes: usize) -> Result<Mlp> {
    let model = Mlp::from_file(&ModelFile::load(path)?.0);
    expect_fit(&model, path, inputs, classes)?;
    Ok(model)
}

/// Checks that `model`, read from `path`, fits examples of `inputs` values in `classes` classes.
///
/// # Errors
/// [`Error::Data`] if the sizes do not fit.
pub fn expect_fit(model: &Mlp, path: &Path, inputs: usize, classes: usize) -> Result<()> {
    let sizes = [
        ("inputs of the model", model.inputs(), inputs),
        ("classes of the model", model.classes(), classes),
    ];
    match sizes.into_iter().find(|(_, found, expected)| found != expected) {
        None => Ok(()),
        Some((what, found, expected)) => Err(Error::Data {
            path: path.to_path_buf(),
            what: what.into(),
            found: found.to_string(),
            expected: format!("{expected}, as the data has"),
        }),
    }
}

/// Errors, likelihood and calibration of `model` on a labelled test set.
///
/// # Errors
/// [`Error::Usage`] if the split has no labels; those of [`finite_logits`].
pub fn evaluate(context: &Context, model: &Mlp, split: &Split) -> Result<metrics::Evaluation> {
    let labels =
        split.labels.as_ref().ok_or_else(|| Error::Usage("the test set has no labels".into()))?;
    let name = |i| format!("test example {i}, counted from 0");
    Ok(metrics::evaluate(&finite_logits(context, model, split, name)?, labels, model.classes()))
}

/// The logits [n, classes] of `model` on a split, whose example i is called `name(i)`.
///
/// # Errors
/// [`Error::Dataset`] with the first example for which one is not finite: a finite feature of 10³⁸
/// overflows in the first layer.
pub fn finite_logits(
    context: &Context,
    model: &Mlp,
    split: &Split,
    name: impl Fn(usize) -> String,
) -> Result<Vec<f32>> {
    let logits = model.logits(context, split);
    let mut rows = logits.chunks(model.classes());
    let Some(example) = rows.position(|row| row.iter().any(|z| !z.is_finite())) else {
        return Ok(logits);
    };
    let cause = match &split.inputs {
        Inputs::Images(_) => "the model's weights are too large".to_string(),
        Inputs::Features(features) => {
            let mut space = vec![0.0; features.input_size()];
            let values = features.input(example, &mut space).iter();
            let largest = values.fold(0.0f32, |most, value| most.max(value.abs()));
            format!(
                "its features reach {largest:e}: correct it, or scale it as the training set was; or the \
                 model's weights are too large"
            )
        }
    };
    let message = format!(
        "{}: found logits of NaN or infinity, expected finite numbers; {cause}",
        name(example)
    );
    Err(Error::Dataset { message, io: false })
}
