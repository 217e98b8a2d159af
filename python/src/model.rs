//! A net, and what it answers.

use crate::arrays::{self, Logits};
use crate::exception;
use crate::training::context;
use limbeck::engine::config::MAX_PARAMS;
use limbeck::engine::metrics;
use limbeck::engine::mlp::Mlp;
use limbeck::files::about::About;
use limbeck::files::model::{Layer, ModelFile, Standardizer};
use limbeck::files::onnx;
use limbeck_datasets::{Names, Split};
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Weight and bias.
type LayerArrays<'py> = (Bound<'py, PyArray2<f32>>, Bound<'py, PyArray1<f32>>);
/// Mean and scale.
type StandardizerArrays<'py> = (Bound<'py, PyArray1<f32>>, Bound<'py, PyArray1<f32>>);

/// A multilayer perceptron.
///
/// parameters: weight [outputs, inputs] and bias [outputs] of each layer, float32. An input is value *
/// scale + shift of input_scale (1, 0) or, with a standardizer (mean, scale), (value - mean) * scale.
/// activation ("relu"), class_names, feature_names, dataset and data (None) are kept with it; so is
/// class_texts (False), whether the names of the classes are texts also where they read as numbers.
///
/// >>> import limbeck, numpy as np
/// >>> layer = np.eye(2, dtype=np.float32), np.zeros(2, np.float32)
/// >>> limbeck.Model([layer]).predict([[1.0, 3.0]])
/// array([1])
#[pyclass(frozen, module = "limbeck")]
pub struct Model {
    pub net: Mlp,
    pub about: About,
}

#[pymethods]
impl Model {
    #[new]
    #[pyo3(signature = (
        parameters, *, activation="relu", input_scale=(1.0, 0.0), standardizer=None,
        class_names=None, class_texts=false, feature_names=None, dataset="", data=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "Python's keywords")]
    fn new(
        parameters: Vec<(PyReadonlyArray2<f32>, PyReadonlyArray1<f32>)>,
        activation: &str,
        input_scale: (f32, f32),
        standardizer: Option<(PyReadonlyArray1<f32>, PyReadonlyArray1<f32>)>,
        class_names: Option<Vec<String>>,
        class_texts: bool,
        feature_names: Option<Vec<String>>,
        dataset: &str,
        data: Option<BTreeMap<String, String>>,
    ) -> PyResult<Model> {
        let fault = |message: String| Err(PyValueError::new_err(message));
        let flat = |array: &PyReadonlyArray1<f32>| array.as_array().iter().copied().collect();
        let mut layers: Vec<Layer> = Vec::new();
        for (i, (weight, bias)) in parameters.iter().enumerate() {
            let (weight, bias): (_, Vec<f32>) = (weight.as_array(), flat(bias));
            let &[outputs, inputs] = weight.shape() else { unreachable!("two dimensions") };
            let below = layers.last().map_or(inputs, |layer| layer.outputs);
            if inputs != below || inputs == 0 || outputs == 0 || bias.len() != outputs {
                return fault(format!(
                    "parameters: found a weight [{outputs}, {inputs}] and a bias [{}] of layer {i}, \
                     expected [outputs, {below}] and [outputs]",
                    bias.len()
                ));
            }
            layers.push(Layer { inputs, outputs, weight: weight.iter().copied().collect(), bias });
        }
        let (Some(first), Some(last)) = (layers.first(), layers.last()) else {
            return fault("parameters: found no layer, expected at least one".into());
        };
        let (inputs, classes) = (first.inputs, last.outputs);
        let standardizer = standardizer
            .map(|(mean, scale)| Standardizer { mean: flat(&mean), scale: flat(&scale) });
        let scales = [input_scale.0, input_scale.1];
        let numbers = || {
            let layers = layers.iter().flat_map(|layer| [&layer.weight, &layer.bias]);
            layers.chain(standardizer.iter().flat_map(|s| [&s.mean, &s.scale])).flatten()
        };
        if !numbers().chain(&scales).all(|number| number.is_finite()) {
            return fault("parameters: found a number that is not finite".into());
        }
        if numbers().count() > MAX_PARAMS {
            return fault(format!("parameters: found more than {MAX_PARAMS}"));
        }
        let lengths = standardizer.iter().flat_map(|s| [s.mean.len(), s.scale.len()]);
        if let Some(found) = lengths.into_iter().find(|&length| length != inputs) {
            return fault(format!("standardizer: found {found} values, expected {inputs}"));
        }
        let names = names(class_names, class_texts, feature_names, inputs, classes)?;
        let activation = activation.parse().map_err(|_| {
            let message = format!("activation: found '{activation}', expected 'relu' or 'tanh'");
            PyValueError::new_err(message)
        })?;
        let about = About { dataset: dataset.to_string(), data: data.unwrap_or_default(), names };
        let net = Mlp::from_file(&ModelFile {
            layers,
            activation,
            input_scale: input_scale.0,
            input_shift: input_scale.1,
            standardizer,
            about: About::default(),
        });
        Ok(Model { net, about })
    }

    /// What a pickle keeps.
    fn __getnewargs_ex__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let keywords = PyDict::new(py);
        keywords.set_item("activation", self.activation())?;
        keywords.set_item("input_scale", self.input_scale())?;
        keywords.set_item("standardizer", self.standardizer(py))?;
        keywords.set_item("class_names", self.class_names())?;
        keywords.set_item("class_texts", self.class_texts())?;
        keywords.set_item("feature_names", self.feature_names())?;
        keywords.set_item("dataset", &self.about.dataset)?;
        keywords.set_item("data", &self.about.data)?;
        Ok((PyTuple::new(py, [self.parameters(py)?])?, keywords))
    }

    /// Reads a model file (safetensors, written by save or by `limbeck train`).
    #[staticmethod]
    fn load(path: PathBuf) -> PyResult<Model> {
        let (file, _) = ModelFile::load(&path).map_err(exception)?;
        Ok(Model { net: Mlp::from_file(&file), about: file.about })
    }

    /// Writes the model file, atomically; returns the SHA-256 of the parameters.
    fn save(&self, path: PathBuf) -> PyResult<String> {
        self.file().save(&path).map_err(exception)
    }

    /// Writes the net as an ONNX graph from `inputs` [batch, values], taken as they are given to
    /// forward, to `logits` [batch, classes], in float32.
    fn to_onnx(&self, path: PathBuf) -> PyResult<()> {
        onnx::write(&self.file(), Path::new("model"), &path).map_err(exception)
    }

    /// Inputs, units of each hidden layer, classes.
    #[getter]
    fn layers(&self) -> Vec<usize> {
        self.net.widths()
    }

    /// That of the hidden layers: 'relu' or 'tanh'.
    #[getter]
    fn activation(&self) -> String {
        self.net.activation().to_string()
    }

    /// The SHA-256 of the parameters: equal for equal models, whatever trained them.
    #[getter]
    fn sha256(&self) -> String {
        self.net.to_file().sha256()
    }

    /// (scale, shift): an input is value * scale + shift, without a standardizer.
    #[getter]
    fn input_scale(&self) -> (f32, f32) {
        (self.net.input.scale, self.net.input.shift)
    }

    /// (mean, scale) of each feature, float32 [inputs]: an input is (value - mean) * scale; or None.
    #[getter]
    fn standardizer<'py>(&self, py: Python<'py>) -> Option<StandardizerArrays<'py>> {
        let Standardizer { mean, scale } = self.net.standardizer.as_ref()?;
        Some((PyArray1::from_slice(py, mean), PyArray1::from_slice(py, scale)))
    }

    /// What the classes are called, in their order; None where they are numbers from 0.
    #[getter]
    fn class_names(&self) -> Option<Vec<String>> {
        Some(self.about.names.classes.clone()).filter(|names| !names.is_empty())
    }

    /// Whether these are texts although each reads as a number or a truth.
    #[getter]
    fn class_texts(&self) -> bool {
        self.about.names.are_texts
    }

    /// What the inputs are called, in their order, or None.
    #[getter]
    fn feature_names(&self) -> Option<Vec<String>> {
        Some(self.about.names.features.clone()).filter(|names| !names.is_empty())
    }

    /// Weight [outputs, inputs] and bias [outputs] of each layer, float32, as PyTorch's Linear.
    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<Vec<LayerArrays<'py>>> {
        let layers = self.net.to_file().layers.into_iter();
        let arrays = layers.map(|layer| {
            let weight = PyArray1::from_vec(py, layer.weight);
            let bias = PyArray1::from_vec(py, layer.bias);
            Ok((weight.reshape([layer.outputs, layer.inputs])?, bias))
        });
        arrays.collect()
    }

    /// The logits, float32 [n, classes], of images: uint8 [n, pixels] or [n, height, width], or of
    /// features: any other numbers [n, values].
    #[pyo3(signature = (images, *, threads=None))]
    fn forward<'py>(
        &self,
        py: Python<'py>,
        images: &Bound<'py, PyAny>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        self.logits(py, images, threads)?.into_array(py)
    }

    /// softmax(logits / temperature) in float64, [n, classes], of what forward takes.
    #[pyo3(signature = (images, *, temperature=1.0, threads=None))]
    fn predict_proba<'py>(
        &self,
        py: Python<'py>,
        images: &Bound<'py, PyAny>,
        temperature: f64,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(PyValueError::new_err(format!(
                "temperature: found {temperature}, expected a finite number above 0"
            )));
        }
        let Logits { values, examples, classes } = self.logits(py, images, threads)?;
        let mut all: Vec<f64> = Vec::with_capacity(values.len());
        for row in values.chunks(classes) {
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let start = all.len();
            let exp = |&z: &f32| ((f64::from(z) - f64::from(most)) / temperature).exp();
            all.extend(row.iter().map(exp));
            let sum: f64 = all[start..].iter().sum();
            all[start..].iter_mut().for_each(|p| *p /= sum);
        }
        PyArray1::from_vec(py, all).reshape([examples, classes])
    }

    /// The class of the largest logit, int64 [n], of what forward takes.
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

    pub fn __repr__(&self) -> String {
        format!("<limbeck.Model {:?}>", self.layers())
    }
}

impl Model {
    fn file(&self) -> ModelFile {
        ModelFile { about: self.about.clone(), ..self.net.to_file() }
    }

    fn logits(
        &self,
        py: Python,
        images: &Bound<PyAny>,
        threads: Option<usize>,
    ) -> PyResult<Logits> {
        let (split, context) = (arrays::inputs("images", images)?, context(threads)?);
        self.fits(&split)?;
        let values = py.detach(|| self.net.logits(&context, &split));
        Ok(Logits { values, examples: split.len(), classes: self.net.classes() })
    }

    pub fn fits(&self, split: &Split) -> PyResult<()> {
        let (found, expected) = (split.input_size(), self.net.inputs());
        if found == expected {
            return Ok(());
        }
        let what = match &split.inputs {
            limbeck_datasets::Inputs::Images(_) => "pixels",
            limbeck_datasets::Inputs::Features(_) => "features",
        };
        Err(PyValueError::new_err(format!(
            "images: found {found} {what}, expected {expected}, the inputs of {}",
            self.__repr__()
        )))
    }
}

/// The names of a net's classes and inputs, as many as there are.
pub fn names(
    classes: Option<Vec<String>>,
    texts: bool,
    features: Option<Vec<String>>,
    inputs: usize,
    outputs: usize,
) -> PyResult<Names> {
    let checked = |key: &str, names: Option<Vec<String>>, expected: usize| {
        let names = names.unwrap_or_default();
        if names.is_empty() || names.len() == expected {
            return Ok(names);
        }
        let found = names.len();
        let message = format!("{key}: found {found} names, expected {expected}");
        Err(PyValueError::new_err(message))
    };
    Ok(Names {
        features: checked("feature_names", features, inputs)?,
        ..Names::of_classes(checked("class_names", classes, outputs)?, texts)
    })
}
