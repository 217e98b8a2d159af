//! A loss that somebody's code computed: what from, and what came out; read from safetensors.

use crate::files::error::Result;
use crate::files::safetensors::TensorFile;
use ndarray::Array2;
use safetensors::tensor::{Dtype, TensorInfo};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::path::Path;

/// The most that a case's file may hold.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// How examples are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// The mean over the batch.
    Mean,
    /// The sum over the batch.
    Sum,
}

/// The number format of a computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
}

impl Precision {
    pub(super) fn unit_roundoff(self) -> f64 {
        match self {
            Precision::F32 => f64::from(f32::EPSILON) / 2.0,
            Precision::F64 => f64::EPSILON / 2.0,
        }
    }

    pub(super) fn smallest(self) -> f64 {
        match self {
            Precision::F32 => f32::MIN_POSITIVE.into(),
            Precision::F64 => f64::MIN_POSITIVE,
        }
    }

    /// exp(x), infinite where this format overflows.
    pub(super) fn exp(self, x: f64) -> f64 {
        match self {
            Precision::F32 => f64::from(x.exp() as f32),
            Precision::F64 => x.exp(),
        }
    }

    /// The distance of the numbers of this format around x.
    pub(super) fn ulp(self, x: f64) -> f64 {
        match self {
            Precision::F32 => {
                let x = (x as f32).abs().min(f32::MAX / 2.0);
                f64::from(x.next_up()) - f64::from(x)
            }
            Precision::F64 => {
                let x = x.abs().min(f64::MAX / 2.0);
                x.next_up() - x
            }
        }
    }
}

impl Display for Precision {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Precision::F32 { "f32" } else { "f64" })
    }
}

/// What a loss was computed from, and what came out; B examples of C classes.
#[derive(Clone, Debug)]
pub struct CheckCase {
    /// z [B, C].
    pub student_logits: Array2<f64>,
    /// v [B, C], for the soft term.
    pub teacher_logits: Option<Array2<f64>>,
    /// The class of each example, for the hard term.
    pub labels: Option<Vec<i64>>,
    /// T > 0; infinity for the matching of logits.
    pub temperature: f64,
    /// Weight of the soft term.
    pub soft_weight: f64,
    /// Weight of the hard term.
    pub hard_weight: f64,
    /// How examples are combined.
    pub reduction: Reduction,
    /// The loss to verify.
    pub loss: Option<f64>,
    /// Its gradient [B, C] to verify.
    pub d_logits: Option<Array2<f64>>,
    /// What it was computed in.
    pub precision: Precision,
}

/// A part of a case that cannot be verified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: found {found}, expected {expected}")]
pub struct Malformed {
    /// A tensor or a metadata key.
    pub what: String,
    /// What it holds.
    pub found: String,
    /// What it should hold.
    pub expected: String,
}

pub(super) type Checked<T> = std::result::Result<T, Malformed>;

fn malformed<T>(what: impl Display, found: impl Display, expected: impl Display) -> Checked<T> {
    Err(Malformed {
        what: what.to_string(),
        found: found.to_string(),
        expected: expected.to_string(),
    })
}

fn finite(name: &str, values: &Array2<f64>) -> Checked<()> {
    match values.indexed_iter().find(|(_, x)| !x.is_finite()) {
        Some((at, x)) => malformed(place(name, at), x, "a finite number"),
        None => Ok(()),
    }
}

pub(super) fn place(name: &str, (row, column): (usize, usize)) -> String {
    format!("{name}[{row}, {column}]")
}

impl CheckCase {
    /// Reads a case from safetensors.
    ///
    /// Tensors, in f32 or f64: `student_logits` and `teacher_logits` \[B, C\], `d_logits`
    /// \[B, C\], `loss` \[1\] or \[\]; `labels` \[B\] in i64 or i32. Metadata: `temperature`
    /// (`inf` for the matching of logits), which may be absent without `teacher_logits`;
    /// `soft_weight` and `hard_weight`, by default 1 where there are `teacher_logits` and `labels`,
    /// else 0; `reduction`, `mean` or `sum` over the batch, by default `mean`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io); [`Error::Data`](crate::Error::Data) for a file that is no
    /// case or larger than 1 GiB.
    pub fn load(path: &Path) -> Result<CheckCase> {
        let file = TensorFile::read(path, MAX_FILE_BYTES)?;
        let case = CheckCase::parse(&file);
        case.and_then(|case| case.validate().map(|()| case))
            .map_err(|fault| file.bad(fault.what, fault.found, fault.expected))
    }

    fn parse(file: &TensorFile) -> Checked<CheckCase> {
        const TENSORS: [&str; 5] =
            ["student_logits", "teacher_logits", "labels", "loss", "d_logits"];
        let stranger = file.tensors.iter().find(|(name, _)| !TENSORS.contains(&&name[..]));
        if let Some((name, _)) = stranger {
            return malformed("tensors", name, format!("only {}", TENSORS.join(", ")));
        }
        let get = |name: &str| file.tensor(name).map(|info| (info, file.bytes(info)));
        let matrix = |name: &str| get(name).map(|tensor| read_matrix(name, tensor)).transpose();
        let Some(student_logits) = matrix("student_logits")? else {
            return malformed("student_logits", "no such tensor", "[batch, classes]");
        };
        let teacher_logits = matrix("teacher_logits")?;
        let labels = get("labels").map(read_labels).transpose()?;
        let loss = get("loss").map(read_loss).transpose()?;
        let mut fractions = file.tensors.iter().filter(|(name, _)| name != "labels");
        let coarse = fractions.any(|(_, info)| info.dtype == Dtype::F32);
        let of_term = |there: bool| if there { 1.0 } else { 0.0 };
        let metadata = &file.metadata;
        let temperature = match number(metadata, "temperature")? {
            Some(temperature) => temperature,
            None if teacher_logits.is_none() => 1.0,
            None => {
                return malformed(
                    "metadata `temperature`",
                    "none",
                    "T > 0, because there are teacher_logits",
                );
            }
        };
        Ok(CheckCase {
            temperature,
            soft_weight: number(metadata, "soft_weight")?
                .unwrap_or(of_term(teacher_logits.is_some())),
            hard_weight: number(metadata, "hard_weight")?.unwrap_or(of_term(labels.is_some())),
            reduction: match metadata.get("reduction").map(String::as_str) {
                None | Some("mean") => Reduction::Mean,
                Some("sum") => Reduction::Sum,
                Some(other) => return malformed("metadata `reduction`", other, "mean or sum"),
            },
            d_logits: matrix("d_logits")?,
            precision: if coarse { Precision::F32 } else { Precision::F64 },
            student_logits,
            teacher_logits,
            labels,
            loss,
        })
    }

    /// Whether shapes fit and inputs are in range. A loss or gradient that is not finite is no
    /// fault of the case: it may be what a mistake led to.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn validate(&self) -> Checked<()> {
        let (batch, classes) = self.student_logits.dim();
        if batch == 0 || classes == 0 {
            let found = format!("shape [{batch}, {classes}]");
            return malformed("student_logits", found, "at least one example and one class");
        }
        finite("student_logits", &self.student_logits)?;
        for (name, matrix) in
            [("teacher_logits", &self.teacher_logits), ("d_logits", &self.d_logits)]
        {
            if let Some(matrix) = matrix.as_ref().filter(|m| m.dim() != (batch, classes)) {
                let found = format!("shape {:?}", matrix.shape());
                let expected = format!("[{batch}, {classes}], that of student_logits");
                return malformed(name, found, expected);
            }
        }
        if let Some(teacher) = &self.teacher_logits {
            finite("teacher_logits", teacher)?;
        }
        if let Some(labels) = &self.labels {
            if labels.len() != batch {
                let expected = format!("{batch}, one for each example");
                return malformed("labels", format!("{} values", labels.len()), expected);
            }
            let valid = |y: &i64| usize::try_from(*y).is_ok_and(|y| y < classes);
            if let Some((at, y)) = labels.iter().enumerate().find(|(_, y)| !valid(y)) {
                return malformed(format!("labels[{at}]"), y, format!("0 to {}", classes - 1));
            }
        }
        if self.temperature.is_nan() || self.temperature <= 0.0 {
            return malformed("temperature", self.temperature, "T > 0, or inf to match logits");
        }
        for (name, weight, there, targets) in [
            ("soft_weight", self.soft_weight, self.teacher_logits.is_some(), "teacher_logits"),
            ("hard_weight", self.hard_weight, self.labels.is_some(), "labels"),
        ] {
            if !weight.is_finite() || weight < 0.0 {
                return malformed(name, weight, "a finite number that is not negative");
            }
            if weight > 0.0 && !there {
                return malformed(targets, "none", format!("targets, because {name} is {weight}"));
            }
        }
        if self.soft_weight == 0.0 && self.hard_weight == 0.0 {
            return malformed("soft_weight and hard_weight", "both 0", "one above 0");
        }
        if self.loss.is_none() && self.d_logits.is_none() {
            return malformed("loss and d_logits", "neither", "at least one, to be verified");
        }
        Ok(())
    }
}

/// A tensor's entry in the header, and its bytes.
type Tensor<'a> = (&'a TensorInfo, &'a [u8]);

fn read_matrix(name: &str, tensor: Tensor) -> Checked<Array2<f64>> {
    let shape = &tensor.0.shape;
    let [batch, classes] = shape[..] else {
        return malformed(name, format!("shape {shape:?}"), "[batch, classes]");
    };
    let values = read_numbers(name, tensor)?;
    Array2::from_shape_vec((batch, classes), values)
        .or_else(|e| malformed(name, e, "as many values as the shape has"))
}

fn read_loss(tensor: Tensor) -> Checked<f64> {
    match read_numbers("loss", tensor)?[..] {
        [loss] => Ok(loss),
        _ => malformed("loss", format!("shape {:?}", tensor.0.shape), "one value"),
    }
}

fn read_numbers(name: &str, (info, bytes): Tensor) -> Checked<Vec<f64>> {
    match info.dtype {
        Dtype::F32 => {
            Ok(bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect())
        }
        Dtype::F64 => Ok(bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()),
        other => malformed(name, format!("{other:?}"), "F32 or F64"),
    }
}

fn read_labels((info, bytes): Tensor) -> Checked<Vec<i64>> {
    let shape = &info.shape;
    if shape.len() != 1 {
        return malformed("labels", format!("shape {shape:?}"), "[batch]");
    }
    match info.dtype {
        Dtype::I64 => Ok(bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()),
        Dtype::I32 => {
            Ok(bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b).into()).collect())
        }
        other => malformed("labels", format!("{other:?}"), "I64 or I32"),
    }
}

fn number(metadata: &BTreeMap<String, String>, key: &str) -> Checked<Option<f64>> {
    let parse = |text: &String| {
        text.trim().parse().or_else(|_| malformed(format!("metadata `{key}`"), text, "a number"))
    };
    metadata.get(key).map(parse).transpose()
}
