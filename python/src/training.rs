//! Nets, training and distillation.

use crate::arrays::{self, Logits};
use crate::exception;
use limbeck::Error;
use limbeck::engine::config::Config;
use limbeck::engine::distill as teachers;
use limbeck::engine::loss::LossSpec;
use limbeck::engine::metrics;
use limbeck::engine::mlp::Mlp;
use limbeck::engine::trainer::{self, EpochRecord, Observer, Progress, Task};
use limbeck::files::model::ModelFile;
use limbeck_datasets::Split;
use limbeck_kernels::{Context, Isa};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict};
use std::path::PathBuf;

/// As many threads as the machine runs at once, or `threads`; no bit depends on it.
fn context(threads: Option<usize>) -> PyResult<Context> {
    let available = || std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = threads.unwrap_or_else(available);
    if !(1..=1024).contains(&threads) {
        let message = format!("threads: found {threads}, expected 1 to 1024");
        return Err(PyValueError::new_err(message));
    }
    Context::new(Isa::best(), threads).map_err(|e| exception(Error::Usage(e)))
}

/// Weight and bias.
type Layer<'py> = (Bound<'py, PyArray2<f32>>, Bound<'py, PyArray1<f32>>);

/// A multilayer perceptron with ReLU.
#[pyclass(frozen, module = "limbeck")]
pub struct Model(Mlp);

#[pymethods]
impl Model {
    /// Reads a model file (safetensors, written by save or by `limbeck train`).
    #[staticmethod]
    fn load(path: PathBuf) -> PyResult<Model> {
        let (file, _) = ModelFile::load(&path).map_err(exception)?;
        Ok(Model(Mlp::from_file(&file)))
    }

    /// Writes the model file, atomically; returns the SHA-256 of the parameters.
    fn save(&self, path: PathBuf) -> PyResult<String> {
        self.0.to_file().save(&path).map_err(exception)
    }

    /// Inputs, units of each hidden layer, classes.
    #[getter]
    fn layers(&self) -> Vec<usize> {
        let widths = self.0.layers().iter().map(|layer| layer.outputs);
        std::iter::once(self.0.inputs()).chain(widths).collect()
    }

    /// The SHA-256 of the parameters: equal for equal models, whatever trained them.
    #[getter]
    fn sha256(&self) -> String {
        self.0.to_file().sha256()
    }

    /// (scale, shift): an input is pixel * scale + shift.
    #[getter]
    fn input_scale(&self) -> (f32, f32) {
        (self.0.input.scale, self.0.input.shift)
    }

    /// Weight [outputs, inputs] and bias [outputs] of each layer, float32, as PyTorch's Linear.
    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<Vec<Layer<'py>>> {
        let layers = self.0.to_file().layers.into_iter();
        let arrays = layers.map(|layer| {
            let weight = PyArray1::from_vec(py, layer.weight);
            let bias = PyArray1::from_vec(py, layer.bias);
            Ok((weight.reshape([layer.outputs, layer.inputs])?, bias))
        });
        arrays.collect()
    }

    /// The logits, float32 [n, classes], of images: uint8 [n, pixels] or [n, height, width].
    #[pyo3(signature = (images, *, threads=None))]
    fn forward<'py>(
        &self,
        py: Python<'py>,
        images: &Bound<'py, PyAny>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        self.logits(py, images, threads)?.into_array(py)
    }

    /// The class of the largest logit, int64 [n], of images: uint8 [n, pixels] or
    /// [n, height, width].
    #[pyo3(signature = (images, *, threads=None))]
    fn predict<'py>(
        &self,
        py: Python<'py>,
        images: &Bound<'py, PyAny>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let logits = self.logits(py, images, threads)?;
        let rows = logits.values.chunks(logits.classes);
        let classes: Option<Vec<i64>> =
            rows.map(|row| metrics::predict(row).map(|class| class as i64)).collect();
        let not_finite = || PyValueError::new_err("the model's logits are not finite");
        Ok(PyArray1::from_vec(py, classes.ok_or_else(not_finite)?))
    }

    fn __repr__(&self) -> String {
        format!("<limbeck.Model {:?}>", self.layers())
    }
}

impl Model {
    fn logits(
        &self,
        py: Python,
        images: &Bound<PyAny>,
        threads: Option<usize>,
    ) -> PyResult<Logits> {
        let (split, context) = (arrays::images(images)?, context(threads)?);
        self.fits(&split)?;
        let values = py.detach(|| self.0.logits(&context, &split));
        Ok(Logits { values, examples: split.len(), classes: self.0.classes() })
    }

    fn fits(&self, split: &Split) -> PyResult<()> {
        let (found, expected) = (split.input_size(), self.0.inputs());
        if found == expected {
            return Ok(());
        }
        Err(PyValueError::new_err(format!(
            "images: found {found} pixels, expected {expected}, the inputs of {}",
            self.__repr__()
        )))
    }
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
            "jitter" => Some("data"),
            "layers" | "dropout" | "activation" | "init_scale" => Some("model"),
            "temperature" | "soft_weight" | "hard_weight" => Some("distillation"),
            // An unknown key is refused there, with the names of those that are known.
            _ => Some("training"),
        };
        let value = toml_value(&key, &value)?;
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
    Config::from_text(&root.to_string()).map_err(|e| {
        let message = e.message().trim().to_string();
        if message.starts_with("unknown field") {
            PyTypeError::new_err(message.replacen("unknown field", "unknown keyword", 1))
        } else {
            PyValueError::new_err(message)
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
/// images: uint8 [n, pixels] or [n, height, width]; labels: integers [n]. on_epoch is called with
/// a dict after each epoch; an exception in it ends the training. threads changes no bit of the
/// result. Every other keyword is a key of a configuration file, with its default: seed, jitter,
/// layers, dropout, activation, init_scale, epochs, batch_size, learning_rate, schedule, optimizer, momentum,
/// average, max_norm, weight_decay, beta2, epsilon, momentum_epochs, decay, step_epochs,
/// step_factor.
#[pyfunction]
#[pyo3(signature = (images, labels, *, on_epoch=None, threads=None, **config))]
pub fn train(
    py: Python,
    images: &Bound<PyAny>,
    labels: &Bound<PyAny>,
    on_epoch: Option<Py<PyAny>>,
    threads: Option<usize>,
    config: Option<&Bound<PyDict>>,
) -> PyResult<Model> {
    let config = self::config(config)?;
    if config.distillation.is_some() {
        let message = "temperature, soft_weight and hard_weight belong to distill";
        return Err(PyTypeError::new_err(message));
    }
    let (split, context) = (self::split(&config, images, Some(labels))?, context(threads)?);
    run(py, &context, "model", &config, &split, LossSpec::HARD, None, on_epoch)
}

/// Trains a net on the soft targets of a teacher and, where there are labels, on these.
///
/// images: uint8 [n, pixels] or [n, height, width]; teacher: its logits, float32 [n, classes], a
/// Model, or a list of Models, whose mean distribution at T is the target; labels: integers [n].
/// Without labels hard_weight must be 0. The other keywords are those of train and temperature
/// (20), soft_weight (1) and hard_weight (0.05), see distillation.
#[pyfunction]
#[pyo3(signature = (images, teacher, labels=None, *, on_epoch=None, threads=None, **config))]
pub fn distill(
    py: Python,
    images: &Bound<PyAny>,
    teacher: &Bound<PyAny>,
    labels: Option<&Bound<PyAny>>,
    on_epoch: Option<Py<PyAny>>,
    threads: Option<usize>,
    config: Option<&Bound<PyDict>>,
) -> PyResult<Model> {
    let mut config = self::config(config)?;
    config.distillation.get_or_insert_default();
    let objective = LossSpec::soft(&config);
    let (split, context) = (self::split(&config, images, labels)?, context(threads)?);
    let logits = soft_targets(py, &context, teacher, &config, &split)?;
    run(py, &context, "student", &config, &split, objective, Some(&logits), on_epoch)
}

/// The logits [n, classes] of one or more models, or as they are given.
fn soft_targets(
    py: Python,
    context: &Context,
    teacher: &Bound<PyAny>,
    config: &Config,
    split: &Split,
) -> PyResult<Vec<f32>> {
    let (n, classes) = (split.len(), config.model.layers[config.model.layers.len() - 1]);
    let models = match teacher.cast::<Model>() {
        Ok(model) => vec![model.clone()],
        Err(_) => match teacher.extract::<Vec<Bound<Model>>>() {
            Ok(models) if !models.is_empty() => models,
            _ => {
                let logits = Logits::extract("teacher", teacher)?;
                let [examples, found] = [logits.examples, logits.classes];
                if config.data.jitter.is_some() {
                    return Err(PyValueError::new_err(
                        "jitter: needs a Model as teacher, found logits, which are those of \
                         unshifted images",
                    ));
                }
                if [examples, found] == [n, classes] {
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
        if model.0.classes() != classes {
            return Err(PyValueError::new_err(format!(
                "teacher: found {}, expected {classes} classes",
                model.__repr__()
            )));
        }
    }
    let models: Vec<Mlp> = models.iter().map(|model| model.get().0.clone()).collect();
    let temperature = LossSpec::soft(config).temperature;
    let jitter = config.data.jitter.map(|pixels| pixels as u8);
    Ok(py.detach(|| teachers::teacher_logits(context, &models, split, temperature, jitter)))
}

/// The training set, which fits the configuration.
fn split(config: &Config, images: &Bound<PyAny>, labels: Option<&Bound<PyAny>>) -> PyResult<Split> {
    let mut split = arrays::images(images)?;
    config.validate_in_memory(split.input_size()).map_err(exception)?;
    let jitter = config.data.jitter.unwrap_or(0);
    let (height, width) = (split.images().height, split.images().width);
    if jitter >= height.min(width) && jitter > 0 {
        return Err(PyValueError::new_err(format!(
            "jitter: found {jitter} pixels for images of {} x {}, expected less than either side; \
             images of two dimensions are [n, height, width]",
            height, width
        )));
    }
    let classes = config.model.layers[config.model.layers.len() - 1];
    split.labels = labels.map(|labels| arrays::labels(labels, split.len(), classes)).transpose()?;
    Ok(split)
}

#[expect(clippy::too_many_arguments, reason = "the parts of a task, and who watches it")]
fn run(
    py: Python,
    context: &Context,
    name: &str,
    config: &Config,
    split: &Split,
    objective: LossSpec,
    teacher_logits: Option<&[f32]>,
    on_epoch: Option<Py<PyAny>>,
) -> PyResult<Model> {
    let task = Task { objective, teacher_logits, ..Task::hard(name, config, split) };
    let mut watcher = Watcher { on_epoch, raised: None };
    let trained = py.detach(|| trainer::train(context, &task, None, &mut watcher));
    match (trained, watcher.raised) {
        (_, Some(raised)) => Err(raised),
        (trained, None) => Ok(Model(trained.map_err(exception)?.model)),
    }
}

/// Passes epochs on to Python, and Ctrl-C or an exception from there back to the trainer.
struct Watcher {
    on_epoch: Option<Py<PyAny>>,
    raised: Option<PyErr>,
}

impl Observer for Watcher {
    fn on_step(&mut self, _: &Progress) {}

    fn on_epoch(&mut self, record: &EpochRecord) -> limbeck::Result<()> {
        let told = Python::attach(|py| {
            py.check_signals()?;
            let Some(on_epoch) = &self.on_epoch else { return Ok(()) };
            let epoch = PyDict::new(py);
            epoch.set_item("epoch", record.epoch)?;
            epoch.set_item("loss", record.loss)?;
            epoch.set_item("reducible_loss", record.reducible_loss)?;
            epoch.set_item("train_errors", record.train_errors)?;
            epoch.set_item("learning_rate", record.learning_rate)?;
            epoch.set_item("seconds", record.seconds)?;
            on_epoch.call1(py, (epoch,)).map(drop)
        });
        told.map_err(|raised| {
            self.raised = Some(raised);
            Error::Interrupted { command: None }
        })
    }

    fn warn(&mut self, _: &str) {}
}
