//! The examples of a case one by one, with what several formulas need of each.

use super::case::CheckCase;
use super::formula::{Examples, HardTerm, Probs, Side, SoftTerm, Term};
use super::rounding::{Approx, Distribution, Rounding};
use ndarray::{Array2, Axis};
use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::OnceLock;

/// A case, with what its examples share.
pub struct Rows<'a> {
    pub case: &'a CheckCase,
    pub rounding: Rounding,
    /// Whether each example counts.
    counts: Vec<bool>,
    /// For each sequence the weight of its examples in the mean of means.
    of_sequence: OnceLock<Vec<f64>>,
    /// For each [`Side`] the maxima and sums of student and teacher.
    sides: [OnceLock<[Columns; 2]>; 2],
}

/// For each group of examples and each class: max z, S = Σ exp((z − max)/T), and what the exponents'
/// errors add to S.
struct Columns {
    max: Array2<f64>,
    sum: Array2<f64>,
    off: Array2<f64>,
}

impl<'a> Rows<'a> {
    pub fn new(case: &'a CheckCase) -> Rows<'a> {
        Rows {
            case,
            rounding: Rounding { precision: case.precision, rounded_logits: case.rounded_logits },
            counts: (0..case.examples()).map(|e| case.counts(e)).collect(),
            of_sequence: OnceLock::new(),
            sides: [OnceLock::new(), OnceLock::new()],
        }
    }

    /// How much example `e` counts.
    fn weight(&self, examples: Examples, e: usize) -> f64 {
        match examples {
            Examples::All => 1.0,
            _ if !self.counts[e] => 0.0,
            Examples::Counted => 1.0,
            Examples::MeanOfMeans => self.of_sequence()[e / self.case.length],
        }
    }

    fn of_sequence(&self) -> &[f64] {
        self.of_sequence.get_or_init(|| {
            let counts = self.counts.chunks(self.case.length);
            let counts: Vec<f64> =
                counts.map(|seq| seq.iter().filter(|counts| **counts).count() as f64).collect();
            let sequences = counts.iter().filter(|count| **count > 0.0).count() as f64;
            let mean = counts.iter().sum::<f64>() / sequences;
            counts.into_iter().map(|count| mean / count).collect()
        })
    }

    fn side(&self, side: Side) -> &[Columns; 2] {
        self.sides[side as usize].get_or_init(|| {
            let none = Array2::zeros((0, 0));
            let teacher = self.case.teacher_logits.as_ref().unwrap_or(&none);
            [&self.case.student_logits, teacher].map(|logits| self.columns(logits, side))
        })
    }

    fn columns(&self, logits: &Array2<f64>, side: Side) -> Columns {
        let t = self.case.temperature;
        let groups = (0..logits.nrows()).map(|e| self.group(side, e) + 1).max().unwrap_or(0);
        let shape = (groups, logits.ncols());
        let mut columns = Columns {
            max: Array2::from_elem(shape, f64::NEG_INFINITY),
            sum: Array2::zeros(shape),
            off: Array2::zeros(shape),
        };
        for (e, row) in logits.axis_iter(Axis(0)).enumerate() {
            let max = columns.max.row_mut(self.group(side, e));
            max.into_iter().zip(row).for_each(|(max, z)| *max = max.max(*z));
        }
        for (e, row) in logits.axis_iter(Axis(0)).enumerate() {
            let group = self.group(side, e);
            for (i, &z) in row.iter().enumerate() {
                let m = columns.max[[group, i]];
                let power = ((z - m) / t).exp();
                columns.sum[[group, i]] += power;
                if power > 0.0 {
                    columns.off[[group, i]] += power * self.rounding.exponent_error(m, t)(z);
                }
            }
        }
        columns
    }

    /// Which examples lie along a side together.
    fn group(&self, side: Side, e: usize) -> usize {
        match (side, self.case.length) {
            (_, 1) => 0,
            (Side::Length, length) => e / length,
            (Side::Batch, length) => e % length,
        }
    }
}

/// A list of what was computed, by what it was computed from.
pub type Cache<K, V> = RefCell<Vec<(K, Rc<V>)>>;

/// One example. What several formulas need of it is computed once.
pub struct Row<'a> {
    pub rows: &'a Rows<'a>,
    pub e: usize,
    /// Whether gradients are wanted, not losses alone.
    gradients: bool,
    z: Cow<'a, [f64]>,
    v: Cow<'a, [f64]>,
    students: Cache<Probs, Distribution>,
    teachers: Cache<Probs, Distribution>,
    pub softs: Cache<SoftTerm, Term>,
    pub hards: Cache<HardTerm, Term>,
}

pub fn cached<K: PartialEq, V>(cache: &Cache<K, V>, key: K, make: impl FnOnce() -> V) -> Rc<V> {
    if let Some((_, known)) = cache.borrow().iter().find(|(other, _)| *other == key) {
        return known.clone();
    }
    let made = Rc::new(make());
    cache.borrow_mut().push((key, made.clone()));
    made
}

fn values(logits: &Array2<f64>, e: usize) -> Cow<'_, [f64]> {
    let row = logits.row(e);
    row.to_slice().map_or_else(|| Cow::Owned(row.to_vec()), Cow::Borrowed)
}

impl<'a> Row<'a> {
    pub fn new(rows: &'a Rows<'a>, e: usize, gradients: bool) -> Row<'a> {
        let case = rows.case;
        Row {
            rows,
            e,
            gradients,
            z: values(&case.student_logits, e),
            v: rows.mean_v(e),
            students: RefCell::default(),
            teachers: RefCell::default(),
            softs: RefCell::default(),
            hards: RefCell::default(),
        }
    }

    pub fn case(&self) -> &CheckCase {
        self.rows.case
    }

    pub fn rounding(&self) -> Rounding {
        self.rows.rounding
    }

    /// How much this example counts.
    pub fn weight(&self, examples: Examples) -> f64 {
        self.rows.weight(examples, self.e)
    }

    /// Whether gradients are wanted; those of a loss alone are left empty.
    pub fn gradients(&self) -> bool {
        self.gradients
    }

    /// z.
    pub fn z(&self) -> &[f64] {
        &self.z
    }

    /// v; the mean of an ensemble's.
    pub fn v(&self) -> &[f64] {
        &self.v
    }

    /// v of the example `by` places on, in the whole batch or in its sequence.
    pub fn shifted_v(&self, by: isize, within: bool) -> Cow<'a, [f64]> {
        let (examples, length) = (self.rows.case.examples(), self.rows.case.length);
        let on = |place: usize, of: usize| (place as isize + by).rem_euclid(of as isize) as usize;
        match within {
            true => self.rows.mean_v(self.e / length * length + on(self.e % length, length)),
            false => self.rows.mean_v(on(self.e, examples)),
        }
    }

    pub fn student(&self, probs: Probs) -> Rc<Distribution> {
        cached(&self.students, probs, || probs.of(&self.z, self.rounding()))
    }

    pub fn teacher(&self, probs: Probs) -> Rc<Distribution> {
        let case = self.rows.case;
        cached(&self.teachers, probs, || {
            if case.ensemble.is_empty() {
                return probs.of(&self.v, self.rounding());
            }
            let members = case.teacher_logits.iter().chain(&case.ensemble);
            let each = |logits| probs.of(&values(logits, self.e), self.rounding());
            let members: Vec<Distribution> = members.map(each).collect();
            Distribution::mean(&members, self.rounding().precision)
        })
    }

    /// The probabilities of teacher and student by softmax over another side.
    pub fn over(&self, side: Side) -> [Distribution; 2] {
        let (t, rounding) = (self.rows.case.temperature, self.rounding());
        let [student, teacher] = self.rows.side(side);
        let group = self.rows.group(side, self.e);
        let of = |logits: &[f64], columns: &Columns| {
            let together = self.rows.case.examples() / columns.sum.nrows();
            let terms = rounding.precision.roundings(together);
            let class = |i: usize| {
                let at = [group, i];
                let (m, sum) = (columns.max[at], columns.sum[at]);
                if logits[i] < m && logits[i] == f64::NEG_INFINITY {
                    return (Approx::ZERO, Approx::exact(f64::NEG_INFINITY));
                }
                let x = (logits[i] - m) / t;
                let log = x - sum.ln();
                // Of a class that all have the same logit of, as of a masked one, all quotients are
                // the same.
                let exponents = match sum == together as f64 {
                    true => 0.0,
                    false => rounding.exponent_error(m, t)(logits[i]) + columns.off[at] / sum,
                };
                let roundings = 16.0 + terms + 2.0 * (x.abs() + log.abs() + sum.ln().abs());
                let error = exponents + rounding.u() * roundings;
                let q = log.exp();
                let prob = Approx { x: q, e: (q * error.exp_m1()).min(1.0), m: 0.0 };
                (prob, Approx { x: log, e: error, m: 0.0 })
            };
            let (probs, logs) = (0..logits.len()).map(class).unzip();
            Distribution { probs, logs }
        };
        [of(&self.v, teacher), of(&self.z, student)]
    }
}

impl Rows<'_> {
    /// v of example `e`; the mean of an ensemble's, none without a teacher.
    fn mean_v(&self, e: usize) -> Cow<'_, [f64]> {
        let Some(first) = &self.case.teacher_logits else { return Cow::Borrowed(&[]) };
        if self.case.ensemble.is_empty() {
            return values(first, e);
        }
        let members = 1.0 + self.case.ensemble.len() as f64;
        let mut sum = first.row(e).to_owned();
        self.case.ensemble.iter().for_each(|other| sum += &other.row(e));
        Cow::Owned((sum / members).to_vec())
    }
}
