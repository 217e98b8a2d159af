//! The check that names mistakes.

use crate::{arrays, exception};
use limbeck::tools::check::{self as checker, CheckCase, Precision, Reduction};
use numpy::ndarray::Array2;
use numpy::{PyArray2, PyArrayMethods};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use serde::Serialize;
use std::path::PathBuf;

/// A matrix in f64, and whether it was f32.
fn matrix(name: &str, value: &Bound<PyAny>) -> PyResult<(Array2<f64>, bool)> {
    if let Ok(array) = value.cast::<PyArray2<f64>>() {
        return Ok((array.try_readonly()?.as_array().to_owned(), false));
    }
    if let Ok(array) = value.cast::<PyArray2<f32>>() {
        return Ok((array.try_readonly()?.as_array().mapv(f64::from), true));
    }
    Err(arrays::unfit(name, value, "float32 or float64", "[examples, classes]"))
}

/// Verifies a distillation loss and its gradient that other code computed, and names its mistake.
///
/// logits, teacher_logits, d_logits: float32 or float64 [n, classes]; labels: integers [n]; loss: a
/// number, of NumPy's float32 where it was computed in float32. At least one of loss and d_logits
/// is verified, against the formula of distillation; reduction is 'mean' or 'sum' over the batch.
/// Tolerances follow from the precision: float32 where any array is. A weight left out is 1 where
/// its targets are given, else 0.
///
/// Returns the report of `limbeck check --json` as a dict.
#[pyfunction]
#[pyo3(signature = (
    logits, teacher_logits=None, labels=None, *, temperature=None, soft_weight=None,
    hard_weight=None, reduction="mean", loss=None, d_logits=None
))]
#[expect(clippy::too_many_arguments, reason = "Python's keywords")]
pub fn check<'py>(
    py: Python<'py>,
    logits: &Bound<'py, PyAny>,
    teacher_logits: Option<&Bound<'py, PyAny>>,
    labels: Option<&Bound<'py, PyAny>>,
    temperature: Option<f64>,
    soft_weight: Option<f64>,
    hard_weight: Option<f64>,
    reduction: &str,
    loss: Option<&Bound<'py, PyAny>>,
    d_logits: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let (student_logits, mut single) = matrix("logits", logits)?;
    let mut optional = |name, value: Option<&Bound<PyAny>>| {
        let read = value.map(|value| matrix(name, value)).transpose()?;
        Ok::<_, PyErr>(read.map(|(values, f32)| {
            single |= f32;
            values
        }))
    };
    let teacher_logits = optional("teacher_logits", teacher_logits)?;
    let d_logits = optional("d_logits", d_logits)?;
    let loss = match loss {
        None => None,
        Some(loss) => {
            // A NumPy scalar or a 0-dimensional array says what it was computed in.
            let dtype = loss.getattr("dtype").map(|dtype| dtype.to_string());
            single |= dtype.is_ok_and(|dtype| dtype == "float32");
            Some(loss.extract::<f64>().map_err(|_| {
                PyTypeError::new_err(format!("loss: found {}, expected a number", loss.get_type()))
            })?)
        }
    };
    let temperature = match temperature {
        Some(temperature) => temperature,
        None if teacher_logits.is_none() => 1.0,
        None => return Err(PyValueError::new_err("teacher_logits need a temperature")),
    };
    let of_term = |there: bool| if there { 1.0 } else { 0.0 };
    let case = CheckCase {
        soft_weight: soft_weight.unwrap_or(of_term(teacher_logits.is_some())),
        hard_weight: hard_weight.unwrap_or(of_term(labels.is_some())),
        student_logits,
        teacher_logits,
        labels: labels.map(|labels| arrays::integers("labels", labels)).transpose()?,
        temperature,
        reduction: match reduction {
            "mean" => Reduction::Mean,
            "sum" => Reduction::Sum,
            other => {
                let message = format!("reduction: found '{other}', expected 'mean' or 'sum'");
                return Err(PyValueError::new_err(message));
            }
        },
        loss,
        d_logits,
        precision: if single { Precision::F32 } else { Precision::F64 },
        ..CheckCase::default()
    };
    judge(py, &case)
}

/// Verifies the loss and gradient of a case file, as `limbeck check` does; returns what check does.
///
/// path: a safetensors file. A file that is no case is a ValueError, one that cannot be read an
/// OSError.
#[pyfunction]
pub fn check_case(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyAny>> {
    judge(py, &CheckCase::load(&path).map_err(exception)?)
}

/// The mistakes that check and check_case know, as `limbeck check --list --json` prints them.
#[pyfunction]
pub fn mistakes(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    objects(py, &checker::MISTAKES.as_slice())
}

fn judge<'py>(py: Python<'py>, case: &CheckCase) -> PyResult<Bound<'py, PyAny>> {
    let report = py
        .detach(|| checker::check(case))
        .map_err(|malformed| PyValueError::new_err(malformed.to_string()))?;
    objects(py, &report)
}

/// Python's objects from the JSON that the program prints, so that both have the same fields.
fn objects<'py>(py: Python<'py>, value: &impl Serialize) -> PyResult<Bound<'py, PyAny>> {
    let json =
        serde_json::to_string(value).map_err(|fault| PyRuntimeError::new_err(fault.to_string()))?;
    py.import("json")?.call_method1("loads", (json,))
}
