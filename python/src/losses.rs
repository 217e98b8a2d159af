//! Softmax and the losses with their gradients.

use crate::arrays::{self, Logits};
use crate::exception;
use limbeck::Error;
use limbeck::engine::loss::{LossSpec, add};
use limbeck_kernels::softmax::{self as kernels, Distillation, Loss};
use limbeck_kernels::{Buffer, Context, Isa, Panels, PanelsMut, panel_len};
use numpy::PyArray2;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::sync::OnceLock;

type Array<'py> = Bound<'py, PyArray2<f32>>;

/// The best instruction set with one thread; the count changes no bit, and batches are small. It is made
/// once: even a pool of one thread has one in waiting.
fn context() -> PyResult<&'static Context> {
    static CONTEXT: OnceLock<Context> = OnceLock::new();
    if let Some(context) = CONTEXT.get() {
        return Ok(context);
    }
    let context = Context::new(Isa::best(), 1).map_err(|e| exception(Error::Usage(e)))?;
    Ok(CONTEXT.get_or_init(|| context))
}

/// `value` as the f32 it is computed with.
fn number(name: &str, value: f64, valid: impl Fn(f32) -> bool, range: &str) -> PyResult<f32> {
    let rounded = value as f32;
    if valid(rounded) {
        return Ok(rounded);
    }
    Err(PyValueError::new_err(format!("{name}: found {value:?}, expected {range} in float32")))
}

/// Whether 1/T can be told from infinity.
fn is_temperature(t: f32) -> bool {
    t > 0.0 && (1.0 / t).is_finite()
}

fn weight(name: &str, value: f64) -> PyResult<f32> {
    number(name, value, |w| w >= 0.0 && w.is_finite(), "a finite number of at least 0")
}

fn normalise<'py>(
    py: Python<'py>,
    logits: &Bound<'py, PyAny>,
    temperature: f64,
    of: fn(&Context, Panels, f32, PanelsMut),
) -> PyResult<Array<'py>> {
    let valid = |t: f32| is_temperature(t) && t.is_finite();
    let temperature =
        number("temperature", temperature, valid, "a finite number above 0 with a finite 1/T")?;
    let (logits, context) = (Logits::extract("logits", logits)?, context()?);
    let Logits { examples, classes, .. } = logits;
    let out = py.detach(|| {
        let z = logits.panels();
        let mut out = Buffer::zeroed(z.len());
        let z = Panels::new(&z, classes, examples);
        of(context, z, temperature, PanelsMut::new(&mut out, classes, examples));
        logits.with(&out)
    });
    out.into_array(py)
}

/// softmax(logits / T) over the classes.
///
/// logits: float32 [n, classes]; temperature: T > 0. Returns float32 [n, classes]. The maximum is
/// subtracted before the exponential, so nothing overflows.
#[pyfunction]
#[pyo3(signature = (logits, temperature=1.0))]
pub fn softmax<'py>(
    py: Python<'py>,
    logits: &Bound<'py, PyAny>,
    temperature: f64,
) -> PyResult<Array<'py>> {
    normalise(py, logits, temperature, kernels::softmax)
}

/// log softmax(logits / T) over the classes, (z - m)/T - log sum exp((z - m)/T) with m = max z.
///
/// logits: float32 [n, classes]; temperature: T > 0. Returns float32 [n, classes].
#[pyfunction]
#[pyo3(signature = (logits, temperature=1.0))]
pub fn log_softmax<'py>(
    py: Python<'py>,
    logits: &Bound<'py, PyAny>,
    temperature: f64,
) -> PyResult<Array<'py>> {
    normalise(py, logits, temperature, kernels::log_softmax)
}

/// The distillation loss, averaged over the batch, and its gradient with respect to the logits.
///
/// loss = mean(soft_weight T^2 CE(softmax(v/T), softmax(z/T)) + hard_weight CE(y, softmax(z)))
/// d_logits = (soft_weight T (softmax(z/T) - softmax(v/T)) + hard_weight (softmax(z) - y)) / n
///
/// logits z, teacher_logits v: float32 [n, classes]; labels y: integers [n]. A term whose targets
/// are None must have weight 0. T = inf matches the centred logits, the limit of large T. The soft term takes
/// no infinite logits: -1e4 excludes a class. Returns (loss, d_logits float32 [n, classes]).
#[pyfunction]
#[pyo3(signature = (
    logits, teacher_logits=None, labels=None, *, temperature=20.0, soft_weight=1.0, hard_weight=0.05
))]
pub fn distillation<'py>(
    py: Python<'py>,
    logits: &Bound<'py, PyAny>,
    teacher_logits: Option<&Bound<'py, PyAny>>,
    labels: Option<&Bound<'py, PyAny>>,
    temperature: f64,
    soft_weight: f64,
    hard_weight: f64,
) -> PyResult<(f64, Array<'py>)> {
    let objective = LossSpec {
        temperature: number(
            "temperature",
            temperature,
            is_temperature,
            "a number above 0 with a finite 1/T",
        )?,
        soft_weight: weight("soft_weight", soft_weight)?,
        hard_weight: weight("hard_weight", hard_weight)?,
    };
    let missing = |weight: &str, value, targets: &str| {
        Err(PyValueError::new_err(format!("{weight} is {value} without {targets}: set it to 0")))
    };
    if teacher_logits.is_none() && soft_weight > 0.0 {
        return missing("soft_weight", soft_weight, "teacher_logits");
    }
    if labels.is_none() && hard_weight > 0.0 {
        return missing("hard_weight", hard_weight, "labels");
    }
    let logits = Logits::extract("logits", logits)?;
    let teacher = teacher_logits.map(|teacher| {
        let name = "teacher_logits";
        Logits::extract(name, teacher)?.like(name, &logits, "logits")
    });
    let teacher = teacher.transpose()?;
    if objective.soft_weight > 0.0 {
        logits.expect_no_infinity("logits")?;
        teacher.iter().try_for_each(|teacher| teacher.expect_no_infinity("teacher_logits"))?;
    }
    let labels =
        labels.map(|labels| arrays::labels("labels", labels, logits.examples, logits.classes));
    let (labels, context) = (labels.transpose()?, context()?);
    let (loss, d_logits) =
        py.detach(|| gradient(context, logits, teacher.as_ref(), labels.as_deref(), objective));
    Ok((loss, d_logits.into_array(py)?))
}

fn gradient(
    context: &Context,
    logits: Logits,
    teacher: Option<&Logits>,
    labels: Option<&[u16]>,
    objective: LossSpec,
) -> (f64, Logits) {
    let Logits { examples, classes, .. } = logits;
    let z = logits.panels();
    let z = Panels::new(&z, classes, examples);
    let v = teacher.map(Logits::panels);
    let LossSpec { temperature, soft_weight, hard_weight } = objective;
    let task = Distillation {
        // A term of weight 0 is left out, whatever its targets: 0·NaN is NaN.
        teacher: v
            .as_ref()
            .filter(|_| soft_weight > 0.0)
            .map(|v| Panels::new(v, classes, examples)),
        labels: labels.filter(|_| hard_weight > 0.0),
        temperature,
        soft_weight,
        hard_weight,
    };
    let mut losses = vec![Loss::default(); z.panels()];
    let mut d_logits = Buffer::zeroed(panel_len(classes, examples));
    task.gradient(context, z, &mut losses, PanelsMut::new(&mut d_logits, classes, examples));
    let mut sum = Loss::default();
    losses.into_iter().for_each(|loss| add(&mut sum, loss));
    (objective.value(sum, examples), logits.with(&d_logits))
}

/// Cross-entropy with labels at T = 1, averaged over the batch, and its gradient.
///
/// loss = mean(-log softmax(z)_y); d_logits = (softmax(z) - y) / n
///
/// logits z: float32 [n, classes]; labels y: integers [n]. Returns (loss, d_logits).
#[pyfunction]
pub fn cross_entropy<'py>(
    py: Python<'py>,
    logits: &Bound<'py, PyAny>,
    labels: &Bound<'py, PyAny>,
) -> PyResult<(f64, Array<'py>)> {
    distillation(py, logits, None, Some(labels), 1.0, 0.0, 1.0)
}

/// Matching of logits, the limit of the soft loss for large T, averaged over the batch.
///
/// d = z - v less its mean over the classes; loss = mean(sum(d^2) / 2 classes);
/// d_logits = d / (classes n)
///
/// logits z, teacher_logits v: float32 [n, classes]. Returns (loss, d_logits).
#[pyfunction]
pub fn logit_matching<'py>(
    py: Python<'py>,
    logits: &Bound<'py, PyAny>,
    teacher_logits: &Bound<'py, PyAny>,
) -> PyResult<(f64, Array<'py>)> {
    distillation(py, logits, Some(teacher_logits), None, f64::INFINITY, 1.0, 0.0)
}
