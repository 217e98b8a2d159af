//! Verifies what another implementation computed for the distillation loss, and names its mistake.
//!
//! A [`Case`] holds logits, targets, T and the weights of the loss of [`crate::engine::loss`], and the loss
//! or its gradient as somebody's code computed them. [`check`] computes both in f64, as they should
//! be and as each known mistake makes them, and says which of these was found:
//!
//! | id | what the code does |
//! |---|---|
//! | `t_squared_missing` | the soft term lacks its factor T² |
//! | `t_instead_of_t_squared` | the soft term's factor is T |
//! | `kl_mean` | the soft term is divided by batch · classes, as by PyTorch's `reduction='mean'` |
//! | `kl_sum` | the soft term, or the whole loss, is summed over the batch |
//! | `reverse_kl` | KL(q ‖ p), or the cross-entropy −Σ q·ln p |
//! | `probs_as_log_probs` | probabilities where a KL function takes log-probabilities |
//! | `softmax_twice` | softmax of a softmax, in the soft or the hard term |
//! | `teacher_not_tempered` | p = softmax(v) |
//! | `student_not_tempered` | q = softmax(z) in the soft term |
//! | `hard_term_tempered` | softmax(z/T) in the hard term |
//! | `weights_swapped` | soft_weight on the hard term, hard_weight on the soft term |
//! | `max_after_exp` | the maximum is subtracted after the exponential |
//! | `mse_of_probs` | squared differences of probabilities |
//! | `raw_logit_matching` | squared differences of logits that are not centred |
//! | `hard_instead_of_soft` | the teacher's most probable class as target |
//!
//! Some have several forms (with or without ½, by automatic differentiation or by hand); each is
//! tried. The soft loss may be a cross-entropy or a KL divergence: their gradients are the same.
//!
//! # Tolerance
//! Every number here is a sum of terms tᵢ of exponentials. A computation with unit roundoff ε
//! (2⁻²⁴ for f32, 2⁻⁵³ for f64; that of the coarsest tensor of the case) is off by at most
//! κ·ε·Σ|tᵢ|, in any order of summation: κ = C + B + 16 + 8·max(|z|, |v|)·max(1, 1/T), where the C
//! and B terms of the sums take a rounding each, an exponent is off by at most 4ε of z/T and the
//! maximum subtracted from it, in student and teacher, and 16 is for the remaining operations. To
//! that, κ times the smallest normal number allows for underflow. Σ|tᵢ| is computed with the value.
//! Where two formulas differ by less than this, both are said to fit.

use crate::files::error::Result;
use crate::files::safetensors::TensorFile;
use limbeck_kernels::reference::{log_softmax, softmax};
use ndarray::{Array1, Array2};
use safetensors::tensor::{Dtype, TensorInfo};
use serde::{Serialize, Serializer};
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
    fn unit_roundoff(self) -> f64 {
        match self {
            Precision::F32 => f64::from(f32::EPSILON) / 2.0,
            Precision::F64 => f64::EPSILON / 2.0,
        }
    }

    fn smallest(self) -> f64 {
        match self {
            Precision::F32 => f32::MIN_POSITIVE.into(),
            Precision::F64 => f64::MIN_POSITIVE,
        }
    }

    /// exp(x), infinite where this format overflows.
    fn exp(self, x: f64) -> f64 {
        match self {
            Precision::F32 => f64::from(x.exp() as f32),
            Precision::F64 => x.exp(),
        }
    }

    /// The distance of the numbers of this format around x.
    fn ulp(self, x: f64) -> f64 {
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
pub struct Case {
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

type Checked<T> = std::result::Result<T, Malformed>;

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

fn place(name: &str, (row, column): (usize, usize)) -> String {
    format!("{name}[{row}, {column}]")
}

impl Case {
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
    pub fn load(path: &Path) -> Result<Case> {
        let file = TensorFile::read(path, MAX_FILE_BYTES)?;
        let case = Case::parse(&file);
        case.and_then(|case| case.validate().map(|()| case))
            .map_err(|fault| file.bad(fault.what, fault.found, fault.expected))
    }

    fn parse(file: &TensorFile) -> Checked<Case> {
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
        Ok(Case {
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

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The loss and gradient are right.
    Agrees,
    /// They are those of a known mistake.
    Variant,
    /// They are wrong in a way that is not known.
    Unknown,
}

/// The answer to a [`Case`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// The mistake, with the verdict `variant`; the first of [`Report::fits`].
    pub variant: Option<&'static str>,
    /// All mistakes whose results are within the tolerance. With the verdict `agrees` the case
    /// cannot tell these from the right formula; at T = 1 there are many.
    pub fits: Vec<&'static str>,
    /// The largest difference from the right values, divided by the largest of these: the greater
    /// of loss and gradient. JSON: null where it is not finite.
    #[serde(serialize_with = "finite_or_null")]
    pub max_relative_error: f64,
    /// The largest difference of an element in units in its last place, in the case's precision.
    #[serde(serialize_with = "finite_or_null")]
    pub max_ulp_error: f64,
    /// All this for people.
    pub message: String,
}

fn finite_or_null<S: Serializer>(x: &f64, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    x.is_finite().then_some(*x).serialize(serializer)
}

/// How probabilities are made from logits.
#[derive(Clone, Copy)]
enum Probs {
    /// softmax(z/T).
    Softmax(f64),
    /// softmax(softmax(z/inner)/outer).
    Twice { inner: f64, outer: f64 },
    /// f/Σf with f = exp(z/T) − M.
    AfterExp(f64, Subtracted),
}

/// What was taken for the maximum M after the exponential.
#[derive(Clone, Copy)]
enum Subtracted {
    /// max exp(z/T).
    Power,
    /// max z/T.
    Exponent,
    /// max z.
    Logit,
}

/// Probabilities, their logarithms, and Σ|t| of each.
struct Distribution {
    probs: Vec<f64>,
    logs: Vec<f64>,
    sizes: Vec<f64>,
}

fn max(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

impl Probs {
    fn of(self, logits: &[f64], precision: Precision) -> Distribution {
        match self {
            Probs::Softmax(t) => {
                let probs = softmax(logits, t);
                Distribution { logs: log_softmax(logits, t), sizes: probs.clone(), probs }
            }
            Probs::Twice { inner, outer } => {
                let inner = softmax(logits, inner);
                let probs = softmax(&inner, outer);
                // The inner probabilities are at most 1: that of their error reaches the exponent.
                let sizes = probs.iter().map(|q| q * (1.0 + 1.0 / outer)).collect();
                Distribution { logs: log_softmax(&inner, outer), sizes, probs }
            }
            Probs::AfterExp(t, subtracted) => {
                let powers: Vec<f64> = logits.iter().map(|z| precision.exp(z / t)).collect();
                let m = match subtracted {
                    Subtracted::Power => max(&powers),
                    Subtracted::Exponent => max(logits) / t,
                    Subtracted::Logit => max(logits),
                };
                let sum: f64 = powers.iter().map(|e| e - m).sum();
                let size: f64 = powers.iter().map(|e| e + m.abs()).sum::<f64>() / sum.abs();
                let probs: Vec<f64> = powers.iter().map(|e| (e - m) / sum).collect();
                let sizes = powers.iter().zip(&probs);
                Distribution {
                    logs: probs.iter().map(|q| q.ln()).collect(),
                    sizes: sizes.map(|(e, q)| (e + m.abs()) / sum.abs() + q.abs() * size).collect(),
                    probs,
                }
            }
        }
    }
}

/// One example's share of a term: its loss as a cross-entropy and as a divergence, its gradient,
/// and Σ|t| of both.
struct Term {
    losses: [f64; 2],
    loss_size: f64,
    gradient: Array1<f64>,
    sizes: Array1<f64>,
}

impl Term {
    /// factor · CE(p, q), or KL, with gradient slope · (q − p).
    fn cross_entropy(p: &Distribution, q: &Distribution, factor: f64, slope: f64) -> Term {
        // A class of probability 0 takes no part: in p, one-hot targets have them.
        let there = || (0..p.probs.len()).filter(|&i| p.probs[i] != 0.0);
        let ce = -factor * there().map(|i| p.probs[i] * q.logs[i]).sum::<f64>();
        let negative_entropy = factor * there().map(|i| p.probs[i] * p.logs[i]).sum::<f64>();
        let size = |i: usize| {
            let relative = (q.sizes[i] / q.probs[i]).abs();
            p.probs[i].abs() * (p.logs[i].abs() + q.logs[i].abs() + relative)
        };
        let n = p.probs.len();
        Term {
            losses: [ce, ce + negative_entropy],
            loss_size: factor * there().map(size).sum::<f64>(),
            gradient: (0..n).map(|i| slope * (q.probs[i] - p.probs[i])).collect(),
            sizes: (0..n).map(|i| slope * (q.sizes[i] + p.sizes[i])).collect(),
        }
    }

    /// The same loss as a function of z where the gradient so far is that of s = softmax(z/T):
    /// ∂/∂zᵢ = (1/T)·sᵢ·(gᵢ − Σ s·g).
    fn through_softmax(self, z: &[f64], t: f64) -> Term {
        let s = Array1::from(softmax(z, t));
        let (mean, size) = (s.dot(&self.gradient), s.dot(&self.sizes));
        Term {
            gradient: &s * &(&self.gradient - mean) / t,
            sizes: &s * &(&self.sizes + size) / t,
            ..self
        }
    }

    /// factor/2 · Σ d² with gradient factor · d.
    fn squares(d: Array1<f64>, sizes: Array1<f64>, factor: f64) -> Term {
        let loss = factor / 2.0 * d.dot(&d);
        Term {
            losses: [loss; 2],
            loss_size: factor * sizes.dot(&sizes),
            gradient: d * factor,
            sizes: sizes * factor,
        }
    }
}

/// A reading of the soft term.
#[derive(Clone, Copy)]
enum Soft {
    /// factor · CE(teacher's, student's); `by_hand`: with gradient factor/T · (q − p) whatever the
    /// student's probabilities are.
    Match { teacher: Probs, student: Probs, factor: f64, by_hand: bool },
    /// T² · KL(q ‖ p), or the cross-entropy −Σ q·ln p.
    Reverse { divergence: bool },
    /// T² · Σ p·(ln p − q).
    ProbsAsInput,
    /// T² · Σ exp(p)·(p − ln q).
    ProbsAsLogTarget,
    /// factor/2 · Σ (q − p)² at the temperature.
    Mse { temperature: f64, factor: f64 },
    /// factor/2 · Σ d² with d = z − v, centred or not.
    Logits { centred: bool, factor: f64 },
    /// factor · CE(one-hot of the teacher's largest logit, softmax(z/T)).
    Argmax { temperature: f64, factor: f64 },
}

/// A reading of the hard term: factor · CE(y, student's).
#[derive(Clone, Copy)]
struct Hard {
    student: Probs,
    factor: f64,
    /// Gradient q − y, whatever the student's probabilities are.
    by_hand: bool,
}

fn one_hot(class: usize, classes: usize) -> Distribution {
    let y: Vec<f64> = (0..classes).map(|i| if i == class { 1.0 } else { 0.0 }).collect();
    Distribution { logs: y.iter().map(|y| y.ln()).collect(), sizes: y.clone(), probs: y }
}

/// factor · CE(p, q) with its derivative by z.
fn differentiated(p: &Distribution, student: Probs, z: &[f64], factor: f64, case: &Case) -> Term {
    let q = student.of(z, case.precision);
    match student {
        Probs::Softmax(t) | Probs::AfterExp(t, _) => Term::cross_entropy(p, &q, factor, factor / t),
        Probs::Twice { inner, outer } => {
            Term::cross_entropy(p, &q, factor, factor / outer).through_softmax(z, inner)
        }
    }
}

impl Soft {
    fn term(self, case: &Case, z: &[f64], v: &[f64]) -> Term {
        let (t, classes) = (case.temperature, z.len());
        let tempered = |logits| Probs::Softmax(t).of(logits, case.precision);
        let each = |of: &dyn Fn(usize) -> f64| (0..classes).map(of).collect::<Array1<f64>>();
        match self {
            Soft::Match { teacher, student, factor, by_hand } => {
                let p = teacher.of(v, case.precision);
                if by_hand {
                    let q = student.of(z, case.precision);
                    return Term::cross_entropy(&p, &q, factor, factor / t);
                }
                differentiated(&p, student, z, factor, case)
            }
            Soft::Reverse { divergence } => {
                let (p, q) = (tempered(v), tempered(z));
                let own = if divergence { 1.0 } else { 0.0 };
                let r = each(&|i| own * q.logs[i] - p.logs[i]);
                let size = each(&|i| own * q.logs[i].abs() + p.logs[i].abs() + 1.0);
                let probs = Array1::from(q.probs);
                let (loss, loss_size) = (probs.dot(&r), probs.dot(&size));
                Term {
                    losses: [t * t * loss; 2],
                    loss_size: t * t * loss_size,
                    gradient: t * &probs * &(r - loss),
                    sizes: t * &probs * &(size + loss_size),
                }
            }
            Soft::ProbsAsInput => {
                let (p, q) = (tempered(v), tempered(z));
                let product = each(&|i| p.probs[i] * q.probs[i]);
                let entropy = each(&|i| p.probs[i] * p.logs[i]);
                let (ce, negative_entropy) = (-product.sum(), entropy.sum());
                Term {
                    losses: [t * t * ce, t * t * (negative_entropy + ce)],
                    loss_size: t * t * (2.0 - negative_entropy),
                    gradient: each(&|i| -t * (product[i] + q.probs[i] * ce)),
                    sizes: each(&|i| t * (product[i] - q.probs[i] * ce)),
                }
            }
            Soft::ProbsAsLogTarget => {
                let (p, q) = (tempered(v), tempered(z));
                let target = each(&|i| p.probs[i].exp());
                let sum = target.sum();
                let loss = each(&|i| target[i] * (p.probs[i] - q.logs[i]));
                let size = each(&|i| target[i] * (p.probs[i] - q.logs[i] + 1.0));
                Term {
                    losses: [t * t * loss.sum(); 2],
                    loss_size: t * t * size.sum(),
                    gradient: each(&|i| t * (q.probs[i] * sum - target[i])),
                    sizes: each(&|i| t * (q.probs[i] * sum + target[i])),
                }
            }
            Soft::Mse { temperature, factor } => {
                let (p, q) = (softmax(v, temperature), softmax(z, temperature));
                let d = each(&|i| q[i] - p[i]);
                let sizes = each(&|i| q[i] + p[i]);
                Term::squares(d, sizes, factor).through_softmax(z, temperature)
            }
            Soft::Logits { centred, factor } => {
                let d = each(&|i| z[i] - v[i]);
                let sizes = each(&|i| z[i].abs() + v[i].abs());
                let share = if centred { 1.0 / classes as f64 } else { 0.0 };
                let (mean, size) = (d.sum() * share, sizes.sum() * share);
                Term::squares(d - mean, sizes + size, factor)
            }
            Soft::Argmax { temperature, factor } => {
                let largest = max(v);
                let class = v.iter().position(|v| *v == largest).unwrap_or(0);
                let y = one_hot(class, classes);
                differentiated(&y, Probs::Softmax(temperature), z, factor, case)
            }
        }
    }
}

impl Hard {
    fn term(self, case: &Case, z: &[f64], label: usize) -> Term {
        let y = one_hot(label, z.len());
        if self.by_hand {
            let q = self.student.of(z, case.precision);
            return Term::cross_entropy(&y, &q, self.factor, self.factor);
        }
        differentiated(&y, self.student, z, self.factor, case)
    }
}

/// A reading of the whole loss.
#[derive(Clone, Copy)]
struct Formula {
    soft: Soft,
    hard: Hard,
    soft_weight: f64,
    hard_weight: f64,
    soft_divisor: f64,
    hard_divisor: f64,
}

/// What a formula gives for a case, and Σ|t| of it.
struct Values {
    losses: [f64; 2],
    loss_size: f64,
    d_logits: Array2<f64>,
    sizes: Array2<f64>,
}

impl Formula {
    fn right(case: &Case) -> Formula {
        let (t, (batch, classes)) = (case.temperature, case.student_logits.dim());
        let tempered = Probs::Softmax(t);
        let divisor = if case.reduction == Reduction::Mean { batch as f64 } else { 1.0 };
        Formula {
            soft: if t.is_infinite() {
                Soft::Logits { centred: true, factor: 1.0 / classes as f64 }
            } else {
                Soft::Match { teacher: tempered, student: tempered, factor: t * t, by_hand: false }
            },
            hard: Hard { student: Probs::Softmax(1.0), factor: 1.0, by_hand: false },
            soft_weight: case.soft_weight,
            hard_weight: case.hard_weight,
            soft_divisor: divisor,
            hard_divisor: divisor,
        }
    }

    /// Every known mistake that this case could show, those of the module's table in its order.
    fn wrong(case: &Case) -> Vec<(&'static str, Formula)> {
        let right = Formula::right(case);
        let (t, (batch, classes)) = (case.temperature, case.student_logits.dim());
        let (tempered, plain) = (Probs::Softmax(t), Probs::Softmax(1.0));
        let (batch, classes) = (batch as f64, classes as f64);
        let soft_term = case.soft_weight > 0.0;
        let hard_term = case.hard_weight > 0.0;
        let mut wrong = Vec::new();
        let soft = |soft| Formula { soft, ..right };
        let paired = |teacher, student, factor, by_hand| {
            soft(Soft::Match { teacher, student, factor, by_hand })
        };
        let hard = |student, factor, by_hand| Hard { student, factor, by_hand };

        if soft_term && t.is_finite() {
            wrong.push(("t_squared_missing", paired(tempered, tempered, 1.0, false)));
            wrong.push(("t_instead_of_t_squared", paired(tempered, tempered, t, false)));
            wrong.push(("kl_mean", Formula { soft_divisor: batch * classes, ..right }));
            wrong.push(("kl_sum", Formula { soft_divisor: 1.0, ..right }));
            if hard_term {
                let all = Formula { soft_divisor: 1.0, hard_divisor: 1.0, ..right };
                wrong.push(("kl_sum", all));
            }
            for divergence in [true, false] {
                wrong.push(("reverse_kl", soft(Soft::Reverse { divergence })));
            }
            wrong.push(("probs_as_log_probs", soft(Soft::ProbsAsInput)));
            wrong.push(("probs_as_log_probs", soft(Soft::ProbsAsLogTarget)));
            for by_hand in [false, true] {
                for (inner, outer) in [(t, 1.0), (1.0, t), (t, t)] {
                    let twice = Probs::Twice { inner, outer };
                    for teacher in [tempered, twice] {
                        let once = paired(teacher, twice, t * t, by_hand);
                        wrong.push(("softmax_twice", once));
                        if hard_term {
                            let student = Probs::Twice { inner: 1.0, outer: 1.0 };
                            let hard = hard(student, 1.0, by_hand);
                            wrong.push(("softmax_twice", Formula { hard, ..once }));
                        }
                    }
                }
            }
        }
        if hard_term {
            for by_hand in [false, true] {
                let hard = hard(Probs::Twice { inner: 1.0, outer: 1.0 }, 1.0, by_hand);
                wrong.push(("softmax_twice", Formula { hard, ..right }));
            }
        }
        if soft_term && t.is_finite() {
            for factor in [t * t, t, 1.0] {
                wrong.push(("teacher_not_tempered", paired(plain, tempered, factor, false)));
            }
            for factor in [t * t, t, 1.0] {
                wrong.push(("student_not_tempered", paired(tempered, plain, factor, false)));
            }
            wrong.push(("student_not_tempered", paired(tempered, plain, t * t, true)));
        }
        if hard_term && t.is_finite() && case.teacher_logits.is_some() {
            for (factor, by_hand) in [(1.0, false), (1.0, true), (t * t, false)] {
                let hard = hard(tempered, factor, by_hand);
                wrong.push(("hard_term_tempered", Formula { hard, ..right }));
            }
        }
        if case.teacher_logits.is_some() && case.labels.is_some() {
            let swapped =
                Formula { soft_weight: case.hard_weight, hard_weight: case.soft_weight, ..right };
            wrong.push(("weights_swapped", swapped));
        }
        for subtracted in [Subtracted::Power, Subtracted::Exponent, Subtracted::Logit] {
            let bad = |t| Probs::AfterExp(t, subtracted);
            let hard = hard(bad(1.0), 1.0, true);
            if soft_term && t.is_finite() {
                for teacher in [bad(t), tempered] {
                    let formula = paired(teacher, bad(t), t * t, true);
                    wrong.push(("max_after_exp", formula));
                    if hard_term {
                        wrong.push(("max_after_exp", Formula { hard, ..formula }));
                    }
                }
            }
            if hard_term {
                wrong.push(("max_after_exp", Formula { hard, ..right }));
            }
        }
        if soft_term && t.is_finite() {
            // With and without ½, mean or sum over the classes, and T².
            for factor in [2.0 / classes, 1.0 / classes, 2.0, 1.0] {
                for (temperature, scale) in [(t, 1.0), (t, t * t), (1.0, 1.0), (1.0, t * t)] {
                    let factor = factor * scale;
                    wrong.push(("mse_of_probs", soft(Soft::Mse { temperature, factor })));
                }
            }
        }
        if soft_term {
            for factor in [1.0 / classes, 2.0 / classes, 1.0, 2.0] {
                let raw = Soft::Logits { centred: false, factor };
                wrong.push(("raw_logit_matching", soft(raw)));
            }
        }
        if soft_term && t.is_finite() {
            for (temperature, factor) in [(t, t * t), (t, 1.0), (1.0, 1.0), (1.0, t * t)] {
                let argmax = Soft::Argmax { temperature, factor };
                wrong.push(("hard_instead_of_soft", soft(argmax)));
            }
        }
        wrong
    }

    fn values(&self, case: &Case) -> Values {
        let shape = case.student_logits.raw_dim();
        let mut values = Values {
            losses: [0.0; 2],
            loss_size: 0.0,
            d_logits: Array2::zeros(shape),
            sizes: Array2::zeros(shape),
        };
        for (e, z) in case.student_logits.rows().into_iter().enumerate() {
            let z = z.to_vec();
            let mut add = |term: Term, weight: f64| {
                for (sum, loss) in values.losses.iter_mut().zip(term.losses) {
                    *sum += weight * loss;
                }
                values.loss_size += weight * term.loss_size;
                values.d_logits.row_mut(e).scaled_add(weight, &term.gradient);
                values.sizes.row_mut(e).scaled_add(weight, &term.sizes);
            };
            if let Some(v) = case.teacher_logits.as_ref().filter(|_| self.soft_weight > 0.0) {
                let term = self.soft.term(case, &z, &v.row(e).to_vec());
                add(term, self.soft_weight / self.soft_divisor);
            }
            if let Some(labels) = case.labels.as_ref().filter(|_| self.hard_weight > 0.0) {
                let term = self.hard.term(case, &z, labels[e] as usize);
                add(term, self.hard_weight / self.hard_divisor);
            }
        }
        values
    }
}

/// How far results may be from their values; see the module's documentation.
struct Tolerance {
    relative: f64,
    absolute: f64,
}

impl Tolerance {
    fn new(case: &Case) -> Tolerance {
        let (batch, classes) = case.student_logits.dim();
        let logits = case.student_logits.iter().chain(case.teacher_logits.iter().flatten());
        let largest = logits.fold(0.0, |m: f64, z| m.max(z.abs()));
        let t = case.temperature;
        let kappa = (classes + batch + 16) as f64 + 8.0 * largest * (1.0 / t).max(1.0);
        let scale = if t.is_finite() { (t * t).max(1.0) } else { 1.0 };
        Tolerance {
            relative: kappa * case.precision.unit_roundoff(),
            absolute: kappa * case.precision.smallest() * scale,
        }
    }

    fn of(&self, size: f64) -> f64 {
        self.relative * size + self.absolute
    }

    fn holds(&self, found: f64, expected: f64, size: f64) -> bool {
        if expected.is_finite() {
            return (found - expected).abs() <= self.of(size);
        }
        found == expected || (found.is_nan() && expected.is_nan())
    }
}

/// Which of the case's results are those of a formula; `None` for those the case does not have.
#[derive(Clone, Copy)]
struct Fit {
    loss: Option<bool>,
    d_logits: Option<bool>,
}

impl Fit {
    fn new(case: &Case, values: &Values, tolerance: &Tolerance) -> Fit {
        let loss = |found: f64| {
            values.losses.iter().any(|&loss| tolerance.holds(found, loss, values.loss_size))
        };
        Fit {
            loss: case.loss.map(loss),
            d_logits: case
                .d_logits
                .as_ref()
                .map(|d| first_difference(d, values, tolerance).is_none()),
        }
    }

    fn all(self) -> bool {
        self.loss != Some(false) && self.d_logits != Some(false)
    }
}

fn first_difference(
    d_logits: &Array2<f64>,
    values: &Values,
    tolerance: &Tolerance,
) -> Option<(usize, usize)> {
    let differs = |at: &(usize, usize)| {
        !tolerance.holds(d_logits[*at], values.d_logits[*at], values.sizes[*at])
    };
    d_logits.indexed_iter().map(|(at, _)| at).find(differs)
}

/// Says whether a case's loss and gradient are right, or which known mistake they show.
///
/// # Errors
/// [`Malformed`] as [`Case::validate`].
pub fn check(case: &Case) -> Checked<Report> {
    case.validate()?;
    let tolerance = Tolerance::new(case);
    let right = Formula::right(case).values(case);
    let agreement = Fit::new(case, &right, &tolerance);
    let wrong: Vec<(&'static str, Fit)> = Formula::wrong(case)
        .into_iter()
        .map(|(id, formula)| (id, Fit::new(case, &formula.values(case), &tolerance)))
        .collect();
    let which = |fits: &dyn Fn(Fit) -> bool| {
        let mut ids = Vec::new();
        for (id, fit) in &wrong {
            if fits(*fit) && !ids.contains(id) {
                ids.push(*id);
            }
        }
        ids
    };
    let mut fits = which(&Fit::all);
    let mut part = "";
    if !agreement.all() && fits.is_empty() {
        // One of the two may be right and the other show a mistake.
        if agreement.loss == Some(true) {
            fits = which(&|fit| fit.d_logits == Some(true));
            part = "d_logits, though the loss agrees: ";
        } else if agreement.d_logits == Some(true) {
            fits = which(&|fit| fit.loss == Some(true));
            part = "the loss, though d_logits agrees: ";
        }
    }
    let (max_relative_error, max_ulp_error) = errors(case, &right);
    let (verdict, variant, mut message) = if agreement.all() {
        let what = match (case.loss, &case.d_logits) {
            (Some(_), Some(_)) => "loss and d_logits agree",
            (Some(_), None) => "the loss agrees",
            _ => "d_logits agrees",
        };
        let message = format!(
            "{what}: off by at most {max_relative_error:.1e} of the largest value, \
             {max_ulp_error:.1} ULP of an element in {}",
            case.precision
        );
        (Verdict::Agrees, None, message)
    } else if let Some(id) = fits.first() {
        (Verdict::Variant, Some(*id), format!("{part}{id}: {}", describe(id)))
    } else {
        let message =
            format!("none of the known mistakes: {}", differences(case, &right, &tolerance));
        (Verdict::Unknown, None, message)
    };
    let others = if verdict == Verdict::Agrees { &fits[..] } else { fits.get(1..).unwrap_or(&[]) };
    if !others.is_empty() {
        message += &format!("; this case cannot tell it from {}", others.join(", "));
    }
    if case.loss.is_some() && tolerance.of(right.loss_size) > right.losses[1].abs() {
        message += &format!(
            "; in {} the loss is too coarse here to tell anything from its KL part, only d_logits is",
            case.precision
        );
    }
    Ok(Report { verdict, variant, fits, max_relative_error, max_ulp_error, message })
}

/// The sentence of the module's table.
fn describe(id: &str) -> &'static str {
    match id {
        "t_squared_missing" => "the soft term lacks its factor T²",
        "t_instead_of_t_squared" => "the soft term is multiplied by T, not by T²",
        "kl_mean" => "the soft term is divided by batch × classes (PyTorch: use 'batchmean')",
        "kl_sum" => "summed over the batch, not averaged",
        "reverse_kl" => "KL(student ‖ teacher): the arguments are the wrong way round",
        "probs_as_log_probs" => "probabilities where the KL function takes log-probabilities",
        "softmax_twice" => "softmax is applied to what already is a softmax",
        "teacher_not_tempered" => "the teacher's logits are not divided by T",
        "student_not_tempered" => "the student's logits are not divided by T in the soft term",
        "hard_term_tempered" => "the hard term is at T; it belongs at T = 1",
        "weights_swapped" => "soft_weight is on the hard term and hard_weight on the soft term",
        "max_after_exp" => "the maximum is subtracted after the exponential, not before",
        "mse_of_probs" => "squared differences of probabilities in place of a cross-entropy",
        "raw_logit_matching" => "squared differences of logits that are not centred",
        "hard_instead_of_soft" => "the teacher's most probable class in place of its soft targets",
        _ => "",
    }
}

/// The largest relative and ULP error of loss and gradient.
fn errors(case: &Case, right: &Values) -> (f64, f64) {
    let (mut relative, mut ulp) = (0.0f64, 0.0f64);
    let mut worse = |error: f64, size: f64, value: f64| {
        // A NaN is the largest of errors, and max would drop it.
        let error = if error.is_nan() { f64::INFINITY } else { error };
        relative = relative.max(if error == 0.0 { 0.0 } else { error / size });
        ulp = ulp.max(error / case.precision.ulp(value));
    };
    if let Some(loss) = case.loss {
        let off = right.losses.map(|right| (loss - right).abs());
        let value = if off[1] < off[0] { right.losses[1] } else { right.losses[0] };
        worse((loss - value).abs(), value.abs(), value);
    }
    if let Some(d_logits) = &case.d_logits {
        let largest = right.d_logits.iter().fold(0.0, |m: f64, d| m.max(d.abs()));
        for (found, right) in d_logits.iter().zip(&right.d_logits) {
            worse((found - right).abs(), largest, *right);
        }
    }
    (relative, ulp)
}

/// Where results differ, and the factors of the two terms if the gradient is made of them.
fn differences(case: &Case, right: &Values, tolerance: &Tolerance) -> String {
    let mut parts = Vec::new();
    if let Some(at) = case.d_logits.as_ref().and_then(|d| first_difference(d, right, tolerance)) {
        let found = case.d_logits.as_ref().map_or(f64::NAN, |d| d[at]);
        parts.push(format!(
            "the first difference is {} = {found:e}, expected {:e} ± {:.0e}",
            place("d_logits", at),
            right.d_logits[at],
            tolerance.of(right.sizes[at]),
        ));
    }
    let [ce, kl] = right.losses;
    if let Some(loss) = case.loss
        && ![ce, kl]
            .into_iter()
            .any(|right_loss| tolerance.holds(loss, right_loss, right.loss_size))
    {
        let or = if kl == ce { String::new() } else { format!(" or, as KL, {kl:e}") };
        let room = tolerance.of(right.loss_size);
        parts.push(format!("loss = {loss:e}, expected {ce:e}{or} ± {room:.0e}"));
    }
    parts.extend(factors(case, tolerance));
    parts.join("; ")
}

/// The factors a and b of d_logits = a·(soft part) + b·(hard part), by least squares, if d_logits
/// is that within the tolerance.
fn factors(case: &Case, tolerance: &Tolerance) -> Option<String> {
    let found = case.d_logits.as_ref()?;
    let right = Formula::right(case);
    let part =
        |soft_weight, hard_weight| Formula { soft_weight, hard_weight, ..right }.values(case);
    let (soft, hard) = (part(case.soft_weight, 0.0), part(0.0, case.hard_weight));
    let dot = |a: &Array2<f64>, b: &Array2<f64>| (a * b).sum();
    let (s, h) = (&soft.d_logits, &hard.d_logits);
    let (ss, hh, sh) = (dot(s, s), dot(h, h), dot(s, h));
    let (sf, hf) = (dot(s, found), dot(h, found));
    let (a, b) = match (ss > 0.0, hh > 0.0) {
        (true, true) => {
            let determinant = ss * hh - sh * sh;
            ((sf * hh - hf * sh) / determinant, (hf * ss - sf * sh) / determinant)
        }
        (true, false) => (sf / ss, 0.0),
        (false, true) => (0.0, hf / hh),
        (false, false) => return None,
    };
    let made_of = Values {
        losses: [0.0; 2],
        loss_size: 0.0,
        d_logits: a * s + b * h,
        sizes: a.abs() * &soft.sizes + b.abs() * &hard.sizes,
    };
    if !(a.is_finite() && b.is_finite()) || first_difference(found, &made_of, tolerance).is_some() {
        return None;
    }
    let mut parts = Vec::new();
    if ss > 0.0 {
        parts.push(format!("{a:.6} times its soft part"));
    }
    if hh > 0.0 {
        parts.push(format!("{b:.6} times its hard part"));
    }
    let t = case.temperature;
    let hint = if ss > 0.0 && t != 1.0 && (a / t - 1.0).abs() < 1e-4 {
        ": the loss carries T², its gradient only T, because softmax(z/T) has the derivative 1/T"
    } else {
        ""
    };
    Some(format!("d_logits is {}{hint}", parts.join(" and ")))
}
