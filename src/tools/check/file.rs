//! Reading a case from safetensors or from an `.npz` archive.

use super::case::{CheckCase, Checked, Divergence, Precision, Reduction, malformed};
use crate::files::error::{Error, Result};
use crate::files::safetensors::TensorFile;
use limbeck_datasets::archive::{self, Values, half};
use ndarray::Array2;
use safetensors::tensor::Dtype;
use std::collections::BTreeMap;
use std::path::Path;

/// The most that a case's file may hold.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// What a case may hold; the first is required.
const TENSORS: [&str; 8] = [
    "student_logits",
    "teacher_logits",
    "teacher_logits_again",
    "labels",
    "mask",
    "loss",
    "d_logits",
    "d_teacher",
];

/// Its metadata; in an `.npz` archive, arrays of one value.
const METADATA: [&str; 8] = [
    "temperature",
    "soft_weight",
    "hard_weight",
    "reduction",
    "divergence",
    "beta",
    "ignore_index",
    "precision",
];

/// A tensor's shape and values, whatever they were stored in.
struct Tensor {
    shape: Vec<usize>,
    values: Vec<f64>,
    dtype: Type,
}

/// What values were stored in.
#[derive(Clone, Copy, PartialEq)]
enum Type {
    Fraction(Precision),
    Integer,
    Bool,
}

struct Parts {
    tensors: BTreeMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
}

impl CheckCase {
    /// Reads a case from safetensors, or from an archive of `numpy.savez` if its name ends in
    /// `.npz`.
    ///
    /// Tensors, in f16, bf16, f32 or f64: `student_logits` and `d_logits` \[B, C\] or \[B, L, C\];
    /// `teacher_logits` of that shape, or with one more side before it for an ensemble;
    /// `teacher_logits_again` and `d_teacher` as one teacher's; `loss` \[1\] or \[\]; in integers
    /// `labels` \[B\] or \[B, L\]; `mask` of that shape, in any of these or bool, 1 where an
    /// example counts and else 0. Metadata, in an archive arrays of one value: `temperature` (`inf` for the
    /// matching of logits), which may be absent without `teacher_logits`; `soft_weight` and
    /// `hard_weight`, by default 1 where there are `teacher_logits` and `labels`, else 0;
    /// `reduction`, `mean` or `sum` over the examples that count, by default `mean`; `divergence`,
    /// `forward`, `reverse`, `symmetric`, `js` with `beta` (by default ½), or `logits`, by default
    /// `forward`; `ignore_index`, the label of examples that do not count; `precision`, `f16`,
    /// `bf16`, `f32` or `f64`, where a result is stored wider than it was computed.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] and [`Error::Dataset`] for a file that is no case or larger
    /// than 1 GiB.
    pub fn load(path: &Path) -> Result<CheckCase> {
        match path.extension().is_some_and(|extension| extension == "npz") {
            true => CheckCase::load_npz(path),
            false => case_of(path, from_safetensors(path)?),
        }
    }

    /// Reads a case from an archive of `numpy.savez`, whatever its name.
    ///
    /// # Errors
    /// As [`CheckCase::load`].
    pub fn load_npz(path: &Path) -> Result<CheckCase> {
        case_of(path, Ok(from_archive(path)?))
    }
}

fn case_of(path: &Path, parts: Checked<Parts>) -> Result<CheckCase> {
    let case = parts.and_then(|parts| parts.case());
    case.and_then(|case| case.validate().map(|()| case)).map_err(|fault| Error::Data {
        path: path.to_path_buf(),
        what: fault.what,
        found: fault.found,
        expected: fault.expected,
    })
}

fn from_safetensors(path: &Path) -> Result<Checked<Parts>> {
    let file = TensorFile::read(path, MAX_FILE_BYTES)?;
    let tensor = |(name, info): &(String, safetensors::tensor::TensorInfo)| {
        let bytes = file.bytes(info);
        let (dtype, values) = match info.dtype {
            Dtype::F16 => {
                (Type::Fraction(Precision::F16), each(bytes, |b| half(u16::from_le_bytes(b))))
            }
            Dtype::BF16 => (Type::Fraction(Precision::Bf16), each(bytes, brain)),
            Dtype::F32 => {
                (Type::Fraction(Precision::F32), each(bytes, |b| f32::from_le_bytes(b).into()))
            }
            Dtype::F64 => (Type::Fraction(Precision::F64), each(bytes, f64::from_le_bytes)),
            Dtype::I64 => (Type::Integer, each(bytes, |b| i64::from_le_bytes(b) as f64)),
            Dtype::I32 => (Type::Integer, each(bytes, |b| i32::from_le_bytes(b).into())),
            Dtype::U8 => (Type::Integer, each(bytes, |[b]: [u8; 1]| b.into())),
            Dtype::BOOL => (Type::Bool, each(bytes, |[b]: [u8; 1]| b.into())),
            other => {
                let expected = "F16, BF16, F32, F64, I64, I32, U8 or BOOL";
                return malformed(name, format!("{other:?}"), expected);
            }
        };
        Ok((name.clone(), Tensor { shape: info.shape.clone(), values, dtype }))
    };
    let tensors = file.tensors.iter().map(tensor).collect::<Checked<_>>();
    Ok(tensors.map(|tensors| Parts { tensors, metadata: file.metadata.clone() }))
}

fn from_archive(path: &Path) -> Result<Parts> {
    let (mut tensors, mut metadata) = (BTreeMap::new(), BTreeMap::new());
    for array in archive::read(path, MAX_FILE_BYTES)? {
        let (values, dtype) = match array.values {
            Values::Text(text) => {
                metadata.insert(array.name, text);
                continue;
            }
            Values::Fractions(values, 2) => (values, Type::Fraction(Precision::F16)),
            Values::Fractions(values, 4) => (values, Type::Fraction(Precision::F32)),
            Values::Fractions(values, _) => (values, Type::Fraction(Precision::F64)),
            Values::Integers(values) => (values, Type::Integer),
            Values::Booleans(values) => (values, Type::Bool),
        };
        if let (true, [value]) = (METADATA.contains(&&array.name[..]), &values[..]) {
            metadata.insert(array.name, value.to_string());
            continue;
        }
        tensors.insert(array.name, Tensor { shape: array.shape, values, dtype });
    }
    Ok(Parts { tensors, metadata })
}

fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.as_chunks().0.iter().map(|bytes| value(*bytes)).collect()
}

/// The number of a bfloat16: the upper half of an f32.
fn brain(bytes: [u8; 2]) -> f64 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16).into()
}

impl Parts {
    fn case(&self) -> Checked<CheckCase> {
        let stranger = self.tensors.keys().find(|name| !TENSORS.contains(&&name[..]));
        if let Some(name) = stranger {
            return malformed("tensors", name, format!("only {}", TENSORS.join(", ")));
        }
        // Frameworks add keys of their own, such as `format`; one that is nearly ours is misspelt.
        for key in self.metadata.keys().filter(|key| !METADATA.contains(&&key[..])) {
            if let Some(near) = METADATA.iter().find(|known| strsim::levenshtein(key, known) <= 2) {
                return malformed("metadata", key, format!("`{near}`"));
            }
        }
        let Some(student) = self.tensors.get("student_logits") else {
            return malformed("student_logits", "no such tensor", "[batch, classes]");
        };
        let (length, shape) = match student.shape[..] {
            [batch, classes] => (1, [batch, classes]),
            [batch, length, classes] => (length, [batch.saturating_mul(length), classes]),
            _ => {
                let expected = "[batch, classes] or [batch, length, classes]";
                return malformed("student_logits", format!("shape {:?}", student.shape), expected);
            }
        };
        let mut teachers = self.teachers(&student.shape, shape)?;
        let first = if teachers.is_empty() { None } else { Some(teachers.remove(0)) };
        let labels = self.labels(&student.shape)?;
        let matching = self.metadata.get("divergence").is_some_and(|name| name.trim() == "logits");
        let temperature = match self.number("temperature")? {
            _ if matching => f64::INFINITY,
            Some(temperature) => temperature,
            None if first.is_none() => 1.0,
            None => {
                let expected = "T > 0, because there are teacher_logits";
                return malformed("metadata `temperature`", "none", expected);
            }
        };
        let of_term = |there: bool| if there { 1.0 } else { 0.0 };
        let (precision, rounded_logits) = self.precision()?;
        Ok(CheckCase {
            temperature,
            soft_weight: self.number("soft_weight")?.unwrap_or(of_term(first.is_some())),
            hard_weight: self.number("hard_weight")?.unwrap_or(of_term(labels.is_some())),
            reduction: match self.metadata.get("reduction").map(|name| name.trim()) {
                None | Some("mean") => Reduction::Mean,
                Some("sum") => Reduction::Sum,
                Some(other) => return malformed("metadata `reduction`", other, "mean or sum"),
            },
            divergence: self.divergence()?,
            ignore_index: self.number("ignore_index")?.map(|index| index as i64),
            length,
            mask: self.mask(&student.shape)?,
            loss: self.loss()?,
            d_logits: self.matrix("d_logits", &student.shape, shape)?,
            d_teacher: self.matrix("d_teacher", &student.shape, shape)?,
            teacher_logits_again: self.matrix("teacher_logits_again", &student.shape, shape)?,
            student_logits: self
                .matrix("student_logits", &student.shape, shape)?
                .unwrap_or_default(),
            teacher_logits: first,
            ensemble: teachers,
            labels,
            precision,
            rounded_logits,
        })
    }

    /// A tensor of fractions that has this shape, as [N, C].
    fn matrix(
        &self,
        name: &str,
        full: &[usize],
        shape: [usize; 2],
    ) -> Checked<Option<Array2<f64>>> {
        let Some(tensor) = self.tensors.get(name) else { return Ok(None) };
        fractions(name, tensor)?;
        if tensor.shape != full {
            let found = format!("shape {:?}", tensor.shape);
            return malformed(name, found, format!("{full:?}, that of student_logits"));
        }
        stacked(name, &tensor.values, shape).map(Some)
    }

    /// The logits of one teacher, or of each of an ensemble.
    fn teachers(&self, full: &[usize], shape: [usize; 2]) -> Checked<Vec<Array2<f64>>> {
        let Some(tensor) = self.tensors.get("teacher_logits") else { return Ok(Vec::new()) };
        fractions("teacher_logits", tensor)?;
        let members = match tensor.shape.split_first() {
            _ if tensor.shape == full => 1,
            Some((&members, rest)) if rest == full && members > 0 => members,
            _ => {
                let found = format!("shape {:?}", tensor.shape);
                let expected = format!(
                    "{full:?}, that of student_logits, or with the members of an ensemble before it"
                );
                return malformed("teacher_logits", found, expected);
            }
        };
        let each = (tensor.values.len() / members).max(1);
        tensor.values.chunks(each).map(|values| stacked("teacher_logits", values, shape)).collect()
    }

    /// The tensor's values, one for each example.
    fn for_each_example(&self, name: &str, full: &[usize]) -> Checked<Option<&Tensor>> {
        let Some(tensor) = self.tensors.get(name) else { return Ok(None) };
        let expected = &full[..full.len() - 1];
        if tensor.shape != expected {
            let found = format!("shape {:?}", tensor.shape);
            return malformed(name, found, format!("{expected:?}, one for each example"));
        }
        Ok(Some(tensor))
    }

    fn labels(&self, full: &[usize]) -> Checked<Option<Vec<i64>>> {
        let Some(tensor) = self.for_each_example("labels", full)? else { return Ok(None) };
        if tensor.dtype != Type::Integer {
            return malformed("labels", tensor.dtype.name(), "I64 or I32");
        }
        Ok(Some(tensor.values.iter().map(|&y| y as i64).collect()))
    }

    fn mask(&self, full: &[usize]) -> Checked<Option<Vec<bool>>> {
        let tensor = self.for_each_example("mask", full)?;
        let Some(tensor) = tensor else { return Ok(None) };
        if let Some(i) = tensor.values.iter().position(|x| ![0.0, 1.0].contains(x)) {
            let what = format!("mask, value {i}");
            return malformed(what, tensor.values[i], "0 or 1: 1 where the token takes part");
        }
        Ok(Some(tensor.values.iter().map(|&x| x == 1.0).collect()))
    }

    fn loss(&self) -> Checked<Option<f64>> {
        let Some(tensor) = self.tensors.get("loss") else { return Ok(None) };
        fractions("loss", tensor)?;
        match tensor.values[..] {
            [loss] => Ok(Some(loss)),
            _ => malformed("loss", format!("shape {:?}", tensor.shape), "one value"),
        }
    }

    fn divergence(&self) -> Checked<Divergence> {
        match self.metadata.get("divergence").map(|name| name.trim()) {
            None | Some("forward" | "logits") => Ok(Divergence::Forward),
            Some("reverse") => Ok(Divergence::Reverse),
            Some("symmetric") => Ok(Divergence::Symmetric),
            Some("js") => {
                Ok(Divergence::JensenShannon { beta: self.number("beta")?.unwrap_or(0.5) })
            }
            Some(other) => {
                let expected = "forward, reverse, symmetric, js or logits";
                malformed("metadata `divergence`", other, expected)
            }
        }
    }

    /// The coarsest of the tensors and of the metadata, and whether the logits are finer.
    fn precision(&self) -> Checked<(Precision, bool)> {
        let stored = |name: &str, tensor: &Tensor| match tensor.dtype {
            Type::Fraction(precision) if name != "mask" => Some(precision),
            _ => None,
        };
        let coarsest = |names: &dyn Fn(&str) -> bool| {
            let tensors = self.tensors.iter().filter(|(name, _)| names(name));
            tensors.filter_map(|(name, tensor)| stored(name, tensor)).min()
        };
        let all = coarsest(&|_| true).unwrap_or(Precision::F64);
        let said = match self.metadata.get("precision").map(|name| name.trim()) {
            None => all,
            Some(name) => match name.trim_start_matches("torch.") {
                "f16" | "float16" | "fp16" | "half" => Precision::F16,
                "bf16" | "bfloat16" => Precision::Bf16,
                "f32" | "float32" | "fp32" | "float" => Precision::F32,
                "f64" | "float64" | "fp64" | "double" => Precision::F64,
                other => return malformed("metadata `precision`", other, "f16, bf16, f32 or f64"),
            },
        };
        let precision = said.min(all);
        let logits = coarsest(&|name| name.ends_with("_logits") && name != "d_logits");
        Ok((precision, precision.is_half() && logits.is_some_and(|logits| logits > precision)))
    }

    fn number(&self, key: &str) -> Checked<Option<f64>> {
        let parse = |text: &String| {
            let number = text.trim().parse();
            number.or_else(|_| malformed(format!("metadata `{key}`"), text, "a number"))
        };
        self.metadata.get(key).map(parse).transpose()
    }
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Type::Fraction(Precision::Bf16) => "BF16",
            Type::Fraction(Precision::F16) => "F16",
            Type::Fraction(Precision::F32) => "F32",
            Type::Fraction(Precision::F64) => "F64",
            Type::Integer => "integers",
            Type::Bool => "BOOL",
        }
    }
}

fn fractions(name: &str, tensor: &Tensor) -> Checked<()> {
    match tensor.dtype {
        Type::Fraction(_) => Ok(()),
        other => malformed(name, other.name(), "F16, BF16, F32 or F64"),
    }
}

fn stacked(name: &str, values: &[f64], shape: [usize; 2]) -> Checked<Array2<f64>> {
    Array2::from_shape_vec(shape, values.to_vec())
        .or_else(|e| malformed(name, e, "as many values as the shape has"))
}
