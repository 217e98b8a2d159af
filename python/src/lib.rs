//! The compiled half of the Python package: the library's losses, nets and checks on NumPy arrays.
//!
//! `limbeck/_limbeck.pyi` says what each function takes and gives; here is only the way from arrays
//! to the library and back. Arrays are copied at the border, computation runs without the GIL, and every
//! fault of the arguments is a Python exception before the library could panic.

mod arrays;
mod check;
mod losses;
mod model;
mod training;

use limbeck::Error;
use pyo3::PyErr;
use pyo3::exceptions::{
    PyFloatingPointError, PyKeyboardInterrupt, PyOSError, PyRuntimeError, PyValueError,
};

/// The library's error as the exception that a Python programmer expects.
fn exception(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Io { .. } | Error::Dataset { io: true, .. } => PyOSError::new_err(message),
        Error::Interrupted { .. } => PyKeyboardInterrupt::new_err(message),
        Error::Diverged { .. } => PyFloatingPointError::new_err(message),
        Error::Internal(_) => PyRuntimeError::new_err(message),
        _ => PyValueError::new_err(message),
    }
}

/// Knowledge distillation: exact losses, training with the same bits everywhere, and a checker
/// that names mistakes.
#[pyo3::pymodule(name = "_limbeck")]
mod module {
    #[pymodule_export]
    use crate::check::{check, check_case, mistakes};
    #[pymodule_export]
    use crate::losses::{cross_entropy, distillation, log_softmax, logit_matching, softmax};
    #[pymodule_export]
    use crate::model::Model;
    #[pymodule_export]
    use crate::training::{distill, train};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
