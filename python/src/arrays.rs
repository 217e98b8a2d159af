//! From NumPy arrays to the library's, with the faults of the former.

use limbeck_datasets::Split;
use limbeck_kernels::{Buffer, Panels, PanelsMut, panel_len};
use numpy::{
    Element, PyArray, PyArray1, PyArray2, PyArray3, PyArrayDescrMethods, PyArrayMethods,
    PyUntypedArray, PyUntypedArrayMethods, ndarray::Dimension,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

/// What `name` is, in an error that says what it should be: a TypeError for what is no array or has
/// another dtype, a ValueError for a shape. `dtype` is a name, several with "or", or "integers".
pub fn unfit(name: &str, value: &Bound<'_, PyAny>, dtype: &str, shape: &str) -> PyErr {
    let Ok(array) = value.cast::<PyUntypedArray>() else {
        let found = value.get_type();
        return PyTypeError::new_err(format!(
            "{name}: found {found}, expected a NumPy array of {dtype} {shape}"
        ));
    };
    let found = array.dtype();
    let message =
        format!("{name}: found {found} of shape {:?}, expected {dtype} {shape}", array.shape());
    let is_integer = matches!(found.kind(), b'i' | b'u');
    let found = found.to_string();
    if dtype.split(" or ").any(|one| one == found || one == "integers" && is_integer) {
        PyValueError::new_err(message)
    } else {
        PyTypeError::new_err(message)
    }
}

/// `value` as a NumPy array: one of another library, or a list, is converted by `limbeck._arrays`.
pub fn plain<'py>(name: &str, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if value.is_instance_of::<PyUntypedArray>() {
        return Ok(value.clone());
    }
    value.py().import("limbeck._arrays")?.call_method1("plain", (value, name))
}

/// The values in row-major order, whatever the strides.
fn values<T: Element + Copy, D: Dimension>(array: &Bound<'_, PyArray<T, D>>) -> PyResult<Vec<T>> {
    Ok(array.try_readonly()?.as_array().iter().copied().collect())
}

/// An array [n, classes] in f32.
#[derive(Clone)]
pub struct Logits {
    /// Row-major.
    pub values: Vec<f32>,
    /// n, at least 1.
    pub examples: usize,
    /// At least 1.
    pub classes: usize,
}

impl Logits {
    pub fn extract(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Logits> {
        let unfit = || unfit(name, value, "float32", "[examples, classes], neither of them 0");
        let array = value.cast::<PyArray2<f32>>().map_err(|_| unfit())?;
        let [examples, classes] = [array.shape()[0], array.shape()[1]];
        if examples == 0 || classes == 0 {
            return Err(unfit());
        }
        Ok(Logits { values: values(array)?, examples, classes })
    }

    /// Finite numbers of any dtype, library and order.
    pub fn of_any(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Logits> {
        let arrays = value.py().import("limbeck._arrays")?;
        Logits::extract(name, &arrays.call_method1("matrix", (value, name))?)
    }

    /// The same, which must have the shape of `other`, called `other_name`.
    pub fn like(self, name: &str, other: &Logits, other_name: &str) -> PyResult<Logits> {
        let shape = |logits: &Logits| [logits.examples, logits.classes];
        if shape(&self) == shape(other) {
            return Ok(self);
        }
        let (found, expected) = (shape(&self), shape(other));
        Err(PyValueError::new_err(format!(
            "{name}: found shape {found:?}, expected {expected:?}, that of {other_name}"
        )))
    }

    /// Checks that no logit is infinite: the soft term's p·ln q would be 0·∞ for a class that both exclude.
    pub fn expect_no_infinity(&self, name: &str) -> PyResult<()> {
        let Some(at) = self.values.iter().position(|z| z.is_infinite()) else { return Ok(()) };
        let (row, column) = (at / self.classes, at % self.classes);
        Err(PyValueError::new_err(format!(
            "{name}: found {} at row {row}, column {column}, expected finite numbers; a class is excluded by \
             one far below the others, such as -1e4",
            self.values[at]
        )))
    }

    /// The panel matrix [classes, n].
    pub fn panels(&self) -> Buffer {
        let mut buffer = Buffer::zeroed(panel_len(self.classes, self.examples));
        let mut panels = PanelsMut::new(&mut buffer, self.classes, self.examples);
        panels.copy_from_lane_major(&self.values);
        buffer
    }

    /// The same from a panel matrix of this shape.
    pub fn with(self, panels: &Buffer) -> Logits {
        let Logits { mut values, examples, classes } = self;
        Panels::new(panels, classes, examples).to_lane_major(&mut values);
        Logits { values, examples, classes }
    }

    pub fn into_array(self, py: Python<'_>) -> PyResult<Bound<'_, PyArray2<f32>>> {
        PyArray1::from_vec(py, self.values).reshape([self.examples, self.classes])
    }
}

/// Whole numbers [n] of any dtype.
pub fn integers(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
    let value = &plain(name, value)?;
    let unfit = || unfit(name, value, "integers", "[examples]");
    let array = value.cast::<PyUntypedArray>().map_err(|_| unfit())?;
    if !matches!(array.dtype().kind(), b'i' | b'u') || array.ndim() != 1 {
        return Err(unfit());
    }
    values(value.call_method1("astype", ("int64",))?.cast::<PyArray1<i64>>()?)
}

/// Labels [n], called `name`, one for each of `examples`, below `classes`.
pub fn labels(
    name: &str,
    value: &Bound<'_, PyAny>,
    examples: usize,
    classes: usize,
) -> PyResult<Vec<u16>> {
    let fault = |message| Err(PyValueError::new_err(message));
    let labels = integers(name, value)?;
    if labels.len() != examples {
        return fault(format!("{name}: found {}, expected {examples} examples", labels.len()));
    }
    let valid = |label: i64| u16::try_from(label).ok().filter(|&y| usize::from(y) < classes);
    let mut checked = Vec::with_capacity(examples);
    for (i, label) in labels.into_iter().enumerate() {
        let Some(label) = valid(label) else {
            let largest = (classes - 1).min(u16::MAX.into());
            return fault(format!("{name}: found {label} at index {i}, expected 0 to {largest}"));
        };
        checked.push(label);
    }
    Ok(checked)
}

/// Images of bytes, [n, pixels] or [n, height, width], or features of any other numbers, [n, values], as
/// a split without labels.
pub fn inputs(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Split> {
    let value = &plain(name, value)?;
    let shape = "[examples, pixels] or [examples, height, width], none of them 0, or features \
                 [examples, values] of any other numeric dtype";
    let unfit = || unfit(name, value, "uint8", shape);
    let (pixels, [n, height, width]) = if let Ok(array) = value.cast::<PyArray2<u8>>() {
        (values(array)?, [array.shape()[0], 1, array.shape()[1]])
    } else if let Ok(array) = value.cast::<PyArray3<u8>>() {
        (values(array)?, [array.shape()[0], array.shape()[1], array.shape()[2]])
    } else {
        let ndim = value.cast::<PyUntypedArray>().map(|array| array.ndim());
        if ndim.is_ok_and(|ndim| ndim != 2) {
            return Err(unfit());
        }
        let Logits { values, classes, .. } = Logits::of_any(name, value)?;
        return Ok(Split::of_features(values, classes, None));
    };
    if n == 0 || height == 0 || width == 0 {
        return Err(unfit());
    }
    Ok(Split::of_images(pixels, (height, width), None))
}
