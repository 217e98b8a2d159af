//! Training and distillation.

use crate::arrays::{self, Logits};
use crate::exception;
use crate::model::{Model, names};
use limbeck::Error;
use limbeck::engine::config::{Amount, Config};
use limbeck::engine::distill as teachers;
use limbeck::engine::doubts;
use limbeck::engine::loss::LossSpec;
use limbeck::engine::mlp::Mlp;
use limbeck::engine::standardize;
use limbeck::engine::teacher::judge;
use limbeck::engine::trainer::{self, EpochRecord, Observer, Progress, Task, VALIDATION};
use limbeck::files::about::About;
use limbeck_datasets::{Inputs, Names, Remark, Split};
use limbeck_kernels::{Context, Isa};
use pyo3::exceptions::{PyTypeError, PyUserWarning, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList};
use std::ffi::CString;
use std::time::{Duration, Instant};

/// As many threads as the machine runs at once, or `threads`; no bit depends on it.
pub fn context(threads: Option<usize>) -> PyResult<Context> {
    let available = || std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = threads.unwrap_or_else(available);
    if !(1..=1024).contains(&threads) {
        let message = format!("threads: found {threads}, expected 1 to 1024");
        return Err(PyValueError::new_err(message));
    }
    Context::new(Isa::best(), threads).map_err(|e| exception(Error::Usage(e)))
}

/// The configuration of keyword arguments: the keys of a configuration file without their tables.
fn config(keywords: Option<&Bound<PyDict>>) -> PyResult<Config> {
    let mut root = toml::Table::new();
    for (key, value) in keywords.into_iter().flatten() {
        let key: String = key.extract()?;
        if value.is_none() {
            continue;
        }
        let name = match &key[..] {
            "seed" => None,
            "jitter" | "standardize" | "split_seed" => Some("data"),
            "layers" | "dropout" | "activation" | "init_scale" => Some("model"),
            "temperature" | "soft_weight" | "hard_weight" => Some("distillation"),
            // An unknown key is refused there, with the names of those that are known.
            _ => Some("training"),
        };
        let value = match key == "standardize" && value.is_instance_of::<PyBool>() {
            true => value.extract::<bool>()?.into(),
            false => toml_value(&key, &value)?,
        };
        let table = match name {
            None => &mut root,
            Some(name) => root
                .entry(name)
                .or_insert_with(|| toml::Table::new().into())
                .as_table_mut()
                .expect("no key is called as a table"),
        };
        table.insert(key, value);
    }
    Config::from_text(&root.to_string()).map_err(|message| {
        match message.strip_prefix("found the unknown key ") {
            Some(rest) => PyTypeError::new_err(format!("unknown keyword {rest}")),
            None => PyValueError::new_err(message),
        }
    })
}

fn toml_value(key: &str, value: &Bound<PyAny>) -> PyResult<toml::Value> {
    if value.is_instance_of::<PyBool>() {
        // Which would else be the number 0 or 1.
    } else if let Ok(number) = value.extract::<i64>() {
        return Ok(number.into());
    } else if let Ok(number) = value.extract::<f64>() {
        return Ok(number.into());
    } else if let Ok(text) = value.extract::<String>() {
        return Ok(text.into());
    } else if let Ok(items) = value.extract::<Vec<Bound<PyAny>>>() {
        let items = items.iter().map(|item| toml_value(key, item));
        return Ok(toml::Value::Array(items.collect::<PyResult<_>>()?));
    }
    let found = value.get_type();
    Err(PyTypeError::new_err(format!("{key}: found {found}, expected a number, a name or a list")))
}

/// Trains a net on labels.
///
/// images: uint8 [n, pixels] or [n, height, width], or features: any other numbers [n, values];
/// labels: integers [n]. on_epoch is called with a dict after each epoch; an exception in it ends the
/// training, and so does Ctrl-C, within a step: the KeyboardInterrupt's `model` is what was trained so
/// far. validation: a number or share of the examples, drawn by class, or a pair (images, labels),
/// evaluated after each epoch. threads (all) changes no bit of the result. class_names, class_texts,
/// feature_names: kept in the model, see Model. The other keywords are the keys of a configuration file
/// with their defaults: seed (0), jitter (None), standardize ("auto"), split_seed (0), layers ([784, 1200, 1200, 10]), dropout (None),
/// activation ("relu"), init_scale (1), epochs (200), batch_size (128), microbatches (1), precision
/// ("f32"), learning_rate (0.05), schedule ("cosine"), optimizer ("sgd"), momentum (0.9), average (0), max_norm (None),
/// early_stopping (None: epochs without a lower validation loss), weight_decay (0), beta2 (0.999), epsilon
/// (1e-8), momentum_epochs (500), decay (0.998), step_epochs (100), step_factor (0.5).
///
/// >>> import limbeck, numpy as np
/// >>> x = np.random.default_rng(0).normal(size=(200, 2))
/// >>> model = limbeck.train(x, (x[:, 0] > 0).astype(int), layers=[2, 8, 2], epochs=30)
/// >>> model.predict([[1.0, 0.0], [-1.0, 0.0]])
/// array([1, 0])
#[pyfunction]
#[pyo3(signature = (
    images, labels, *, on_epoch=None, threads=None, validation=None, class_names=None,
    class_texts=false, feature_names=None, **config
))]
#[expect(clippy::too_many_arguments, reason = "Python's keywords")]
pub fn train(
    py: Python,
    images: &Bound<PyAny>,
    labels: &Bound<PyAny>,
    on_epoch: Option<Py<PyAny>>,
    threads: Option<usize>,
    validation: Option<&Bound<PyAny>>,
    class_names: Option<Vec<String>>,
    class_texts: bool,
    feature_names: Option<Vec<String>>,
    config: Option<&Bound<PyDict>>,
) -> PyResult<Model> {
    let config = self::config(config)?;
    if config.distillation.is_some() {
        let message = "temperature, soft_weight and hard_weight belong to distill";
        return Err(PyTypeError::new_err(message));
    }
    let split = self::split("images", &config, images, Some(("labels", labels)))?;
    let run =
        Run { config, split, objective: LossSpec::HARD, logits: None, watched: None, on_epoch };
    let names = |inputs, outputs| names(class_names, class_texts, feature_names, inputs, outputs);
    run.watching(validation)?.train(py, &context(threads)?, "model", names)
}

/// Trains a net on the soft targets of a teacher and, where there are labels, on these.
///
/// images: as for train; teacher: its logits, numbers [n, classes], a Model, or a list of Models, whose
/// mean distribution at T is the target; labels: integers [n]. Without labels hard_weight must be 0. The
/// other keywords are those of train and temperature (20), soft_weight (1) and hard_weight (0.05), see
/// distillation.
///
/// >>> import limbeck, numpy as np
/// >>> x = np.random.default_rng(0).normal(size=(200, 2))
/// >>> logits = np.stack([-x[:, 0], x[:, 0]], axis=1)
/// >>> student = limbeck.distill(x, logits, layers=[2, 8, 2], epochs=30, temperature=2, hard_weight=0)
/// >>> student.predict([[1.0, 0.0], [-1.0, 0.0]])
/// array([1, 0])
#[pyfunction]
#[pyo3(signature = (
    images, teacher, labels=None, *, on_epoch=None, threads=None, validation=None,
    class_names=None, class_texts=false, feature_names=None, **config
))]
#[expect(clippy::too_many_arguments, reason = "Python's keywords")]
pub fn distill(
    py: Python,
    images: &Bound<PyAny>,
    teacher: &Bound<PyAny>,
    labels: Option<&Bound<PyAny>>,
    on_epoch: Option<Py<PyAny>>,
    threads: Option<usize>,
    validation: Option<&Bound<PyAny>>,
    class_names: Option<Vec<String>>,
    class_texts: bool,
    feature_names: Option<Vec<String>>,
    config: Option<&Bound<PyDict>>,
) -> PyResult<Model> {
    let mut config = self::config(config)?;
    config.distillation.get_or_insert_default();
    let objective = LossSpec::soft(&config);
    let split = self::split("images", &config, images, labels.map(|labels| ("labels", labels)))?;
    let context = context(threads)?;
    let logits = Some(soft_targets(py, &context, teacher, &config, &split)?);
    let run = Run { config, split, objective, logits, watched: None, on_epoch };
    let names = |inputs, outputs| names(class_names, class_texts, feature_names, inputs, outputs);
    run.watching(validation)?.train(py, &context, "student", names)
}

/// The logits [n, classes] of one or more models, or as they are given.
fn soft_targets(
    py: Python,
    context: &Context,
    teacher: &Bound<PyAny>,
    config: &Config,
    split: &Split,
) -> PyResult<Vec<f32>> {
    let (n, classes) = (split.len(), classes(config));
    let models = match teacher.cast::<Model>() {
        Ok(model) => vec![model.clone()],
        Err(_) => match teacher.extract::<Vec<Bound<Model>>>() {
            Ok(models) if !models.is_empty() => models,
            _ => {
                if teacher.cast::<PyList>().is_ok_and(|list| list.is_empty()) {
                    let shape = "[examples, classes], or Models";
                    return Err(arrays::unfit("teacher", teacher, "floats", shape));
                }
                let logits = Logits::of_any("teacher", teacher)?;
                let [examples, found] = [logits.examples, logits.classes];
                if config.data.jitter.is_some() {
                    return Err(PyValueError::new_err(
                        "jitter: needs a Model as teacher, found logits, which are those of \
                         unshifted images",
                    ));
                }
                if [examples, found] == [n, classes] {
                    let remark = judge(&logits.values, classes).map_err(|found| {
                        PyValueError::new_err(format!(
                            "teacher: found {found}, expected the values before the softmax; of \
                             probabilities, which sum to 1, their logarithms: numpy.log(p)"
                        ))
                    })?;
                    if let Some(Remark::Warning(doubt)) = remark {
                        warn(py, doubt)?;
                    }
                    return Ok(logits.values);
                }
                return Err(PyValueError::new_err(format!(
                    "teacher: found shape [{examples}, {found}], expected [{n}, {classes}]"
                )));
            }
        },
    };
    for model in &models {
        let model = model.get();
        model.fits(split)?;
        if model.net.classes() != classes {
            return Err(PyValueError::new_err(format!(
                "teacher: found {}, expected {classes} classes",
                model.__repr__()
            )));
        }
    }
    let models: Vec<Mlp> = models.iter().map(|model| model.get().net.clone()).collect();
    let temperature = LossSpec::soft(config).temperature;
    let jitter = config.data.jitter.map(|pixels| pixels as u8);
    Ok(py.detach(|| teachers::teacher_logits(context, &models, split, temperature, jitter)))
}

fn classes(config: &Config) -> usize {
    config.model.layers.last().copied().unwrap_or(0)
}

/// A set of examples, which fits the configuration. `name` and that of the labels are for errors.
fn split(
    name: &str,
    config: &Config,
    images: &Bound<PyAny>,
    labels: Option<(&str, &Bound<PyAny>)>,
) -> PyResult<Split> {
    let mut split = arrays::inputs(name, images)?;
    config.validate_in_memory(split.input_size()).map_err(exception)?;
    let jitter = config.data.jitter.unwrap_or(0);
    if let Inputs::Images(images) = &split.inputs
        && jitter >= images.height.min(images.width)
        && jitter > 0
    {
        return Err(PyValueError::new_err(format!(
            "jitter: found {jitter} pixels for images of {} x {}, expected less than either side; \
             images of two dimensions are [n, height, width]",
            images.height, images.width
        )));
    }
    let count = split.len();
    let of = |(name, labels)| arrays::labels(name, labels, count, classes(config));
    split.labels = labels.map(of).transpose()?;
    Ok(split)
}

/// What is to be trained, and on what.
struct Run {
    config: Config,
    split: Split,
    objective: LossSpec,
    /// The teacher's.
    logits: Option<Vec<f32>>,
    /// The validation examples.
    watched: Option<Split>,
    on_epoch: Option<Py<PyAny>>,
}

impl Run {
    /// With the examples that `validation` says, which are not trained on.
    fn watching(mut self, validation: Option<&Bound<PyAny>>) -> PyResult<Run> {
        let Some(validation) = validation else { return Ok(self) };
        if let Ok((images, labels)) = validation.extract::<(Bound<PyAny>, Bound<PyAny>)>() {
            let labels = Some(("validation labels", &labels));
            self.watched = Some(split("validation images", &self.config, &images, labels)?);
            return Ok(self);
        }
        let amount = match validation.is_instance_of::<PyBool>() {
            true => None,
            false => validation
                .extract::<usize>()
                .map(Amount::Count)
                .or_else(|_| validation.extract::<f64>().map(Amount::Share))
                .ok(),
        };
        let n = self.split.len();
        let fits = |amount: &Amount| match amount {
            Amount::Count(count) => (1..n).contains(count),
            Amount::Share(share) => *share > 0.0 && *share < 1.0 && amount.of(n) < n,
        };
        let Some(amount) = amount else {
            let found = validation.get_type();
            return Err(PyTypeError::new_err(format!(
                "validation: found {found}, expected a number, a share, or a pair (images, labels)"
            )));
        };
        if !fits(&amount) {
            return Err(PyValueError::new_err(format!(
                "validation: found {amount}, expected 1 to {} of the {n} examples, or a share of \
                 them between 0 and 1",
                n - 1
            )));
        }
        if self.split.labels.is_none() {
            return Err(PyValueError::new_err("validation: found no labels, expected some"));
        }
        if self.config.data.jitter.is_some() && self.logits.is_some() {
            let message = "validation: with jitter give a pair (images, labels)";
            return Err(PyValueError::new_err(message));
        }
        let (left, held) = self.split.stratified(amount.of(n), self.config.data.split_seed);
        let classes = classes(&self.config);
        self.logits = self.logits.map(|logits| {
            let row = |&i: &u32| &logits[i as usize * classes..][..classes];
            left.iter().flat_map(row).copied().collect()
        });
        self.watched = Some(self.split.subset(&held));
        self.split = self.split.subset(&left);
        Ok(self)
    }

    /// Trains without the GIL.
    fn train(
        mut self,
        py: Python,
        context: &Context,
        name: &str,
        names: impl FnOnce(usize, usize) -> PyResult<Names>,
    ) -> PyResult<Model> {
        let (inputs, outputs) = (self.split.input_size(), classes(&self.config));
        let names = names(inputs, outputs)?;
        let about = About { names, ..About::default() };
        let asked = self.config.data.standardize;
        let choice = standardize::choose(asked, &self.split, &about.names);
        self.config.data.standardize = Some(choice.how);
        // Those of shifted images say little of the images.
        let logits = self.logits.as_deref().filter(|_| self.config.data.jitter.is_none());
        let of_teacher = logits.and_then(|logits| doubts::logits(logits, &self.split, outputs));
        for doubt in choice
            .doubts
            .into_iter()
            .chain(self.config.unused())
            .chain(self.config.silent_teacher())
            .chain(of_teacher)
        {
            warn(py, doubt)?;
        }

        let Run { config, split, objective, logits, watched, on_epoch } = &self;
        let watch: Vec<_> = watched.iter().map(|split| (VALIDATION, split)).collect();
        let task = Task {
            objective: *objective,
            teacher_logits: logits.as_deref(),
            watch: &watch,
            ..Task::hard(name, config, split)
        };
        let mut watcher = Watcher {
            on_epoch: on_epoch.as_ref(),
            asked: Instant::now(),
            raised: None,
            stopped: None,
        };
        let trained = py.detach(|| trainer::train(context, &task, None, &mut watcher));
        let Watcher { raised, stopped, .. } = watcher;
        match (trained, raised) {
            (trained, Some(raised)) => {
                if let Some(net) = trained.map(|trained| trained.model).ok().or(stopped) {
                    raised.value(py).setattr("model", Model { net, about }.into_pyobject(py)?)?;
                }
                Err(raised)
            }
            (trained, None) => Ok(Model { net: trained.map_err(exception)?.model, about }),
        }
    }
}

fn warn(py: Python, doubt: String) -> PyResult<()> {
    PyErr::warn(py, &py.get_type::<PyUserWarning>(), &CString::new(doubt)?, 1)
}

/// Passes epochs on to Python, and Ctrl-C or an exception from there back to the trainer.
///
/// Python tells only its main thread of a Ctrl-C, and only when that asks. The trainer's steps are on the
/// thread that called it, so this asks after a step, every [`MOMENT`].
struct Watcher<'a> {
    on_epoch: Option<&'a Py<PyAny>>,
    asked: Instant,
    raised: Option<PyErr>,
    /// The model where it was stopped.
    stopped: Option<Mlp>,
}

const MOMENT: Duration = Duration::from_millis(50);

impl Observer for Watcher<'_> {
    fn on_step(&mut self, _: &Progress) {
        // What was raised first is what is told.
        if self.raised.is_none() && self.asked.elapsed() >= MOMENT {
            self.raised = Python::attach(|py| py.check_signals()).err();
            self.asked = Instant::now();
        }
    }

    fn on_epoch(&mut self, record: &EpochRecord) -> limbeck::Result<()> {
        let Some(on_epoch) = &self.on_epoch else { return Ok(()) };
        let told = Python::attach(|py| {
            let epoch = PyDict::new(py);
            epoch.set_item("epoch", record.epoch)?;
            epoch.set_item("loss", record.loss)?;
            epoch.set_item("reducible_loss", record.reducible_loss)?;
            epoch.set_item("train_errors", record.train_errors)?;
            let validation = record.watched.get(VALIDATION);
            epoch.set_item("validation_loss", validation.map(|watched| watched.nll))?;
            epoch.set_item("validation_errors", validation.map(|watched| watched.errors))?;
            epoch.set_item("validation_examples", validation.map(|watched| watched.examples))?;
            epoch.set_item("learning_rate", record.learning_rate)?;
            epoch.set_item("seconds", record.seconds)?;
            on_epoch.call1(py, (epoch,)).map(drop)
        });
        // The trainer stops after its next step, and hands over the model.
        self.raised = told.err();
        Ok(())
    }

    fn stop(&self) -> bool {
        self.raised.is_some()
    }

    fn on_stop(&mut self, model: Mlp) {
        self.stopped = Some(model);
    }

    fn warn(&mut self, _: &str) {}
}
