//! The examples of a case one by one, and their sums.

use super::case::CheckCase;
use super::formula::{Examples, Formula, HardTerm, Probs, Side, SoftTerm, Term};
use super::rounding::{Approx, Distribution, Rounding};
use ndarray::{Array2, Axis};
use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Values that a worker takes at once.
const PART: usize = 1 << 16;

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

/// For each group of examples and each class: max z/T and Σ exp(z/T − max).
struct Columns {
    max: Array2<f64>,
    sum: Array2<f64>,
}

/// What a formula gives for a case: the loss as cross-entropy and as divergence with the bounds of
/// their errors, the gradient [N, C] and that of its errors.
pub struct Values {
    pub losses: [f64; 2],
    pub loss_errors: [f64; 2],
    pub d_logits: Array2<f64>,
    pub d_errors: Array2<f64>,
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

    /// A gradient's elements of example `e`, and the bounds of their errors.
    pub fn gradient(&self, row: &Row, formula: &Formula) -> (Vec<f64>, Vec<f64>) {
        let (u, classes) = (self.rounding.u(), self.case.classes());
        let (mut d, mut errors) =
            (vec![0.0; classes], vec![self.rounding.precision.smallest(); classes]);
        let mut add = |term: &Term, factor: f64| {
            for (i, g) in term.gradient.iter().enumerate() {
                d[i] += factor * g.x;
                // Weight, T² and division by the batch, and the sum of the two terms.
                errors[i] += factor.abs() * (g.error(u) + 8.0 * u * g.x.abs());
            }
        };
        let soft = formula.soft_factor * self.weight(formula.soft_examples, row.e);
        if soft != 0.0 {
            add(&row.soft(formula.soft), soft * formula.gradient_factor);
        }
        let hard = formula.hard_factor * self.weight(formula.hard_examples, row.e);
        if let Some(term) = row.hard(formula.hard).filter(|_| hard != 0.0) {
            add(&term, hard);
        }
        (d, errors)
    }

    pub fn row(&self, e: usize) -> Row<'_> {
        Row::new(self, e, true)
    }

    /// `work` on consecutive parts of the examples, in order of the parts; the parts do not depend
    /// on the number of threads.
    fn in_parts<R: Send>(&self, work: impl Fn(Range<usize>) -> R + Sync) -> Vec<R> {
        let examples = self.case.examples();
        let each = (PART / self.case.classes()).max(1);
        let parts = examples.div_ceil(each);
        let part = |i: usize| work(i * each..examples.min((i + 1) * each));
        let workers = thread::available_parallelism().map_or(1, |n| n.get()).min(parts);
        if workers == 1 {
            return (0..parts).map(part).collect();
        }
        let next = AtomicUsize::new(0);
        let take = || {
            let mine = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < parts);
            std::iter::from_fn(mine).map(|i| (i, part(i))).collect::<Vec<_>>()
        };
        let mut results = thread::scope(|scope| {
            let handles: Vec<_> = (0..workers).map(|_| scope.spawn(take)).collect();
            let done = handles.into_iter().flat_map(|handle| handle.join().expect("a worker"));
            done.collect::<Vec<_>>()
        });
        results.sort_by_key(|(i, _)| *i);
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// The whole gradient and its errors.
    pub fn d_logits(&self, formula: &Formula) -> (Array2<f64>, Array2<f64>) {
        let shape = self.case.student_logits.raw_dim();
        let parts = self.in_parts(|examples| {
            let (mut d, mut errors) = (Vec::new(), Vec::new());
            for e in examples {
                let (row_d, row_errors) = self.gradient(&self.row(e), formula);
                d.extend(row_d);
                errors.extend(row_errors);
            }
            (d, errors)
        });
        let (mut d, mut errors) = (Vec::new(), Vec::new());
        for (part_d, part_errors) in parts {
            d.extend(part_d);
            errors.extend(part_errors);
        }
        let whole = |values| Array2::from_shape_vec(shape, values).expect("an element each");
        (whole(d), whole(errors))
    }

    /// Everything of one formula.
    pub fn values(&self, formula: &Formula) -> Values {
        let (d_logits, d_errors) = self.d_logits(formula);
        let [(losses, loss_errors)] = self.losses(std::slice::from_ref(formula))[..] else {
            unreachable!("one formula has one loss")
        };
        Values { losses, loss_errors, d_logits, d_errors }
    }

    /// For each formula its losses, as cross-entropy and as divergence, and their errors. Terms that
    /// several share are computed once.
    pub fn losses(&self, formulas: &[Formula]) -> Vec<([f64; 2], [f64; 2])> {
        let mut softs: Vec<(SoftTerm, Examples)> = Vec::new();
        let mut hards: Vec<(HardTerm, Examples)> = Vec::new();
        for formula in formulas {
            let (soft, hard) =
                ((formula.soft, formula.soft_examples), (formula.hard, formula.hard_examples));
            if formula.soft_factor != 0.0 && !softs.contains(&soft) {
                softs.push(soft);
            }
            if formula.hard_factor != 0.0 && !hards.contains(&hard) {
                hards.push(hard);
            }
        }
        let parts = self.in_parts(|examples| {
            let mut sums = vec![[Sum::default(); 2]; softs.len() + hards.len()];
            for e in examples {
                let row = Row::new(self, e, false);
                let soft = softs.iter().map(|(term, of)| {
                    let weight = self.weight(*of, e);
                    (weight, (weight != 0.0).then(|| row.soft(*term)))
                });
                let hard = hards.iter().map(|(term, of)| (self.weight(*of, e), row.hard(*term)));
                for (sum, (weight, term)) in sums.iter_mut().zip(soft.chain(hard)) {
                    if let Some(term) = term.filter(|_| weight != 0.0) {
                        sum.iter_mut().zip(term.losses).for_each(|(sum, x)| sum.add(x, weight));
                    }
                }
            }
            sums
        });
        let mut sums = vec![[Sum::default(); 2]; softs.len() + hards.len()];
        for part in parts {
            for (sum, part) in sums.iter_mut().flatten().zip(part.iter().flatten()) {
                sum.merge(part);
            }
        }
        let (u, rounding) = (self.rounding.u(), self.rounding.precision);
        let terms = rounding.roundings(self.case.examples()) + 8.0;
        let whole = |formula: &Formula| {
            let soft = softs.iter().position(|s| *s == (formula.soft, formula.soft_examples));
            let hard = hards.iter().position(|h| *h == (formula.hard, formula.hard_examples));
            let soft = soft.map(|i| (formula.soft_factor, sums[i]));
            let hard = hard.map(|i| (formula.hard_factor, sums[softs.len() + i]));
            let (mut losses, mut errors) = ([0.0; 2], [rounding.smallest(); 2]);
            for (factor, sum) in soft.into_iter().chain(hard).filter(|(factor, _)| *factor != 0.0) {
                for i in 0..2 {
                    losses[i] += factor * sum[i].x;
                    errors[i] +=
                        factor.abs() * (sum[i].error + u * (sum[i].m + terms * sum[i].size));
                }
            }
            (losses, errors)
        };
        formulas.iter().map(whole).collect()
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
        let mut columns =
            Columns { max: Array2::from_elem(shape, f64::NEG_INFINITY), sum: Array2::zeros(shape) };
        for (e, row) in logits.axis_iter(Axis(0)).enumerate() {
            let max = columns.max.row_mut(self.group(side, e));
            max.into_iter().zip(row).for_each(|(max, z)| *max = max.max(z / t));
        }
        for (e, row) in logits.axis_iter(Axis(0)).enumerate() {
            let group = self.group(side, e);
            for (i, z) in row.iter().enumerate() {
                columns.sum[[group, i]] += (z / t - columns.max[[group, i]]).exp();
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

/// A sum over examples: its value, error and magnitudes of intermediate results, and the sum of the
/// magnitudes of its terms.
#[derive(Clone, Copy, Default)]
struct Sum {
    x: f64,
    error: f64,
    m: f64,
    size: f64,
}

impl Sum {
    fn add(&mut self, term: Approx, weight: f64) {
        self.x += weight * term.x;
        self.error += weight * term.e;
        self.m += weight * term.m;
        self.size += weight * term.x.abs();
    }

    fn merge(&mut self, part: &Sum) {
        self.x += part.x;
        self.error += part.error;
        self.m += part.m;
        self.size += part.size;
    }
}

/// A list of what was computed, by what it was computed from.
type Cache<K, V> = RefCell<Vec<(K, Rc<V>)>>;

/// One example. What several formulas need of it is computed once.
pub struct Row<'a> {
    rows: &'a Rows<'a>,
    e: usize,
    /// Whether gradients are wanted, not losses alone.
    gradients: bool,
    z: Cow<'a, [f64]>,
    v: Cow<'a, [f64]>,
    students: Cache<Probs, Distribution>,
    teachers: Cache<Probs, Distribution>,
    softs: Cache<SoftTerm, Term>,
    hards: Cache<HardTerm, Term>,
}

fn cached<K: PartialEq, V>(cache: &Cache<K, V>, key: K, make: impl FnOnce() -> V) -> Rc<V> {
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
    fn new(rows: &'a Rows<'a>, e: usize, gradients: bool) -> Row<'a> {
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

    pub fn soft(&self, term: SoftTerm) -> Rc<Term> {
        cached(&self.softs, term, || term.term(self))
    }

    /// `None` where the label is no class, as an ignored one's.
    pub fn hard(&self, term: HardTerm) -> Option<Rc<Term>> {
        let label = self.rows.case.labels.as_ref()?[self.e];
        let label = usize::try_from(label).ok().filter(|label| *label < self.z.len())?;
        Some(cached(&self.hards, term, || term.term(self, label)))
    }

    /// The probabilities of teacher and student by softmax over another side.
    pub fn over(&self, side: Side) -> [Distribution; 2] {
        let (t, rounding) = (self.rows.case.temperature, self.rounding());
        let [student, teacher] = self.rows.side(side);
        let group = self.rows.group(side, self.e);
        let terms = rounding.precision.roundings(self.rows.case.examples());
        let of = |logits: &[f64], columns: &Columns| {
            let class = |i: usize| {
                let log = logits[i] / t - columns.max[[group, i]] - columns.sum[[group, i]].ln();
                let roundings = 16.0 + terms + 8.0 * (log.abs() + logits[i].abs() / t);
                let error = rounding.u() * roundings;
                let q = log.exp();
                let prob = Approx { x: q, e: q * error, m: 0.0 };
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
