//! A loss that somebody's code computed: what from, and what came out.

pub use super::rounding::Precision;
use ndarray::Array2;
use std::fmt::Display;

/// How examples are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// The mean over the examples that count.
    Mean,
    /// The sum over them.
    Sum,
}

/// What the soft term measures, of p = softmax(v/T) and q = softmax(z/T).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// KL(p ‖ q), or the cross-entropy −Σ p·ln q, whose gradient is the same.
    Forward,
    /// KL(q ‖ p).
    Reverse,
    /// ½·KL(p ‖ q) + ½·KL(q ‖ p).
    Symmetric,
    /// β·KL(p ‖ m) + (1 − β)·KL(q ‖ m) with m = β·p + (1 − β)·q, 0 < β < 1: the generalised
    /// Jensen–Shannon divergence.
    JensenShannon {
        /// The teacher's share.
        beta: f64,
    },
}

/// What a loss was computed from, and what came out; N examples of C classes.
///
/// Sequences \[B, L, C\] are N = B·L examples, the tokens of a sequence one behind the other.
#[derive(Clone, Debug)]
pub struct CheckCase {
    /// z [N, C]; −∞ for a class that is excluded.
    pub student_logits: Array2<f64>,
    /// v [N, C], for the soft term.
    pub teacher_logits: Option<Array2<f64>>,
    /// Further teachers' [N, C]: p is the mean of all teachers' probabilities.
    pub ensemble: Vec<Array2<f64>>,
    /// The teacher's logits [N, C] of a second pass over the same inputs.
    pub teacher_logits_again: Option<Array2<f64>>,
    /// The class of each example, for the hard term.
    pub labels: Option<Vec<i64>>,
    /// The examples that count \[N\]; `None` for all.
    pub mask: Option<Vec<bool>>,
    /// The label of examples that do not count.
    pub ignore_index: Option<i64>,
    /// L, which divides N; 1 for examples that are no sequences.
    pub length: usize,
    /// What the soft term measures.
    pub divergence: Divergence,
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
    /// Its gradient [N, C] to verify.
    pub d_logits: Option<Array2<f64>>,
    /// Its gradient [N, C] with respect to the teacher's logits, which should be 0.
    pub d_teacher: Option<Array2<f64>>,
    /// What it was computed in.
    pub precision: Precision,
    /// Whether the logits are stored wider than that, and were rounded first.
    pub rounded_logits: bool,
}

/// No logits and nothing to verify; both weights 0, T = 1, forward divergence, the mean, f64.
impl Default for CheckCase {
    fn default() -> Self {
        CheckCase {
            student_logits: Array2::zeros((0, 0)),
            teacher_logits: None,
            ensemble: Vec::new(),
            teacher_logits_again: None,
            labels: None,
            mask: None,
            ignore_index: None,
            length: 1,
            divergence: Divergence::Forward,
            temperature: 1.0,
            soft_weight: 0.0,
            hard_weight: 0.0,
            reduction: Reduction::Mean,
            loss: None,
            d_logits: None,
            d_teacher: None,
            precision: Precision::F64,
            rounded_logits: false,
        }
    }
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

pub(super) fn malformed<T>(
    what: impl Display,
    found: impl Display,
    expected: impl Display,
) -> Checked<T> {
    Err(Malformed {
        what: what.to_string(),
        found: found.to_string(),
        expected: expected.to_string(),
    })
}

impl CheckCase {
    /// N.
    pub fn examples(&self) -> usize {
        self.student_logits.nrows()
    }

    /// C.
    pub fn classes(&self) -> usize {
        self.student_logits.ncols()
    }

    /// B: sequences, or examples that are none.
    pub fn batch(&self) -> usize {
        self.examples() / self.length
    }

    /// Whether an example counts.
    pub fn counts(&self, example: usize) -> bool {
        let masked = self.mask.as_ref().is_some_and(|mask| !mask[example]);
        let ignored = match (&self.labels, self.ignore_index) {
            (Some(labels), Some(ignored)) => labels[example] == ignored,
            _ => false,
        };
        !masked && !ignored
    }

    /// How many examples count.
    pub fn count(&self) -> usize {
        (0..self.examples()).filter(|&e| self.counts(e)).count()
    }

    /// An element's name: `d_logits[row, column]`, of sequences `d_logits[sequence, token, column]`.
    pub(super) fn place(&self, name: &str, (row, column): (usize, usize)) -> String {
        match self.length {
            1 => format!("{name}[{row}, {column}]"),
            length => format!("{name}[{}, {}, {column}]", row / length, row % length),
        }
    }

    /// Whether shapes fit and inputs are in range. A loss or gradient that is not finite is no
    /// fault of the case: it may be what a mistake led to.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn validate(&self) -> Checked<()> {
        let (examples, classes) = self.student_logits.dim();
        if examples == 0 || classes == 0 {
            let found = format!("shape [{examples}, {classes}]");
            return malformed("student_logits", found, "at least one example and one class");
        }
        if self.length == 0 || !examples.is_multiple_of(self.length) {
            let expected = format!("a divisor of {examples}, the number of examples");
            return malformed("length of the sequences", self.length, expected);
        }
        self.validate_logits("student_logits", &self.student_logits)?;
        let others = [
            ("teacher_logits", &self.teacher_logits),
            ("teacher_logits_again", &self.teacher_logits_again),
            ("d_logits", &self.d_logits),
            ("d_teacher", &self.d_teacher),
        ];
        let others = others.into_iter().filter_map(|(name, matrix)| Some((name, matrix.as_ref()?)));
        let teachers = self.ensemble.iter().map(|teacher| ("teacher_logits", teacher));
        for (name, matrix) in others.chain(teachers) {
            if matrix.dim() != (examples, classes) {
                let found = format!("shape {:?}", matrix.shape());
                let expected = format!("[{examples}, {classes}], that of student_logits");
                return malformed(name, found, expected);
            }
            if name.starts_with("teacher_logits") {
                self.validate_logits(name, matrix)?;
            }
        }
        if self.mask.as_ref().is_some_and(|mask| mask.len() != examples) {
            return malformed("mask", "another length", format!("{examples}, one an example"));
        }
        self.validate_labels()?;
        if self.count() == 0 {
            return malformed("mask and ignore_index", "no example that counts", "at least one");
        }
        if self.temperature.is_nan() || self.temperature <= 0.0 {
            return malformed("temperature", self.temperature, "T > 0, or inf to match logits");
        }
        if let Divergence::JensenShannon { beta } = self.divergence
            && !(beta > 0.0 && beta < 1.0)
        {
            let expected = "0 < beta < 1; at 0 and 1 it is a KL: divergence forward or reverse";
            return malformed("beta", beta, expected);
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

    fn validate_logits(&self, name: &str, logits: &Array2<f64>) -> Checked<()> {
        let excluded = self.temperature.is_finite();
        let bad = |z: &f64| !(z.is_finite() || excluded && *z == f64::NEG_INFINITY);
        if let Some((at, z)) = logits.indexed_iter().find(|(_, z)| bad(z)) {
            let or = if excluded { ", or -inf for a class that is excluded" } else { "" };
            return malformed(self.place(name, at), z, format!("a finite number{or}"));
        }
        let empty = |row: &ndarray::ArrayView1<f64>| row.iter().all(|z| !z.is_finite());
        match logits.rows().into_iter().position(|row| empty(&row)) {
            Some(row) => malformed(self.place(name, (row, 0)), "a row of -inf", "a finite logit"),
            None => Ok(()),
        }
    }

    fn validate_labels(&self) -> Checked<()> {
        let Some(labels) = &self.labels else { return Ok(()) };
        let (examples, classes) = self.student_logits.dim();
        if labels.len() != examples {
            let expected = format!("{examples}, one for each example");
            return malformed("labels", format!("{} values", labels.len()), expected);
        }
        let valid = |y: i64| usize::try_from(y).is_ok_and(|y| y < classes);
        let used = |e: &usize| {
            self.hard_weight > 0.0 || self.ignore_index.is_some_and(|i| i != labels[*e])
        };
        let bad = |e: &usize| self.counts(*e) && used(e) && !valid(labels[*e]);
        match (0..examples).find(bad) {
            Some(at) => {
                let expected = format!(
                    "0 to {}; examples that do not count need the metadata `ignore_index` or a mask",
                    classes - 1
                );
                malformed(format!("labels[{at}]"), labels[at], expected)
            }
            None => Ok(()),
        }
    }
}
