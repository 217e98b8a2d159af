//! The sums over the examples of a case, of many formulas at once and on all processors.

use super::formula::{Examples, Formula, HardTerm, Probs, SoftTerm, Term};
use super::rounding::Approx;
use super::row::{Row, Rows};
use ndarray::Array2;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Values that a worker takes at once.
const PART: usize = 1 << 16;

/// What a formula gives for a case: the loss as cross-entropy and as divergence with the bounds of
/// their errors, the gradient [N, C] and that of its errors.
pub struct Values {
    pub losses: [f64; 2],
    pub loss_errors: [f64; 2],
    pub d_logits: Array2<f64>,
    pub d_errors: Array2<f64>,
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

impl Rows<'_> {
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
        let soft = formula.soft_factor * row.weight(formula.soft_examples);
        if soft != 0.0 {
            add(&row.soft(formula.soft), soft * formula.gradient_factor);
        }
        let hard = formula.hard_factor * row.weight(formula.hard_examples);
        if let Some(term) = row.hard(formula.hard).filter(|_| hard != 0.0) {
            add(&term, hard);
        }
        if soft != 0.0 {
            // Where T is small, T²·p may underflow before it is divided by T, and so may each
            // term of the sum that qᵢ is multiplied by.
            let t = self.case.temperature;
            let lost = self.rounding.precision.smallest() / t.min(1.0);
            let q = row.student(Probs::Softmax(t));
            for (error, q) in errors.iter_mut().zip(&q.probs) {
                *error += lost * (4.0 + classes as f64 * q.x);
            }
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

    /// Everything of one formula.
    pub fn values(&self, formula: &Formula) -> Values {
        let terms = Terms::of(std::slice::from_ref(formula));
        let parts = self.in_parts(|examples| {
            let (mut sums, mut d, mut errors) = (terms.none(), Vec::new(), Vec::new());
            for e in examples {
                let row = self.row(e);
                let (row_d, row_errors) = self.gradient(&row, formula);
                d.extend(row_d);
                errors.extend(row_errors);
                terms.add(&row, &mut sums);
            }
            (sums, d, errors)
        });
        let (mut sums, mut d, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for (part_sums, part_d, part_errors) in parts {
            sums.push(part_sums);
            d.extend(part_d);
            errors.extend(part_errors);
        }
        let (losses, loss_errors) = self.loss(formula, &terms, &terms.merged(sums));
        let shape = self.case.student_logits.raw_dim();
        let whole = |values| Array2::from_shape_vec(shape, values).expect("an element each");
        Values { losses, loss_errors, d_logits: whole(d), d_errors: whole(errors) }
    }

    /// For each formula its losses, as cross-entropy and as divergence, and their errors.
    pub fn losses(&self, formulas: &[Formula]) -> Vec<([f64; 2], [f64; 2])> {
        let terms = Terms::of(formulas);
        let parts = self.in_parts(|examples| {
            let mut sums = terms.none();
            examples.for_each(|e| terms.add(&Row::new(self, e, false), &mut sums));
            sums
        });
        let sums = terms.merged(parts);
        formulas.iter().map(|formula| self.loss(formula, &terms, &sums)).collect()
    }

    /// A formula's losses and their errors, from the sums of `terms`.
    fn loss(&self, formula: &Formula, terms: &Terms, sums: &[[Sum; 2]]) -> ([f64; 2], [f64; 2]) {
        let (u, rounding) = (self.rounding.u(), self.rounding.precision);
        let roundings = rounding.roundings(self.case.examples()) + 8.0;
        let (mut losses, mut errors) = ([0.0; 2], [rounding.smallest(); 2]);
        for (factor, place) in terms.places(formula) {
            for i in 0..2 {
                let sum = sums[place][i];
                losses[i] += factor * sum.x;
                errors[i] += factor.abs() * (sum.error + u * (sum.m + roundings * sum.size));
            }
        }
        (losses, errors)
    }
}

/// The terms that formulas are sums of. One that several share is computed once.
struct Terms {
    softs: Vec<(SoftTerm, Examples)>,
    hards: Vec<(HardTerm, Examples)>,
}

impl Terms {
    fn of(formulas: &[Formula]) -> Terms {
        let mut terms = Terms { softs: Vec::new(), hards: Vec::new() };
        for formula in formulas {
            let (soft, hard) =
                ((formula.soft, formula.soft_examples), (formula.hard, formula.hard_examples));
            if formula.soft_factor != 0.0 && !terms.softs.contains(&soft) {
                terms.softs.push(soft);
            }
            if formula.hard_factor != 0.0 && !terms.hards.contains(&hard) {
                terms.hards.push(hard);
            }
        }
        terms
    }

    /// The sums over no example, of the soft terms and then of the hard ones.
    fn none(&self) -> Vec<[Sum; 2]> {
        vec![[Sum::default(); 2]; self.softs.len() + self.hards.len()]
    }

    fn add(&self, row: &Row, sums: &mut [[Sum; 2]]) {
        let soft = self.softs.iter().map(|(term, of)| {
            let weight = row.weight(*of);
            (weight, (weight != 0.0).then(|| row.soft(*term)))
        });
        let hard = self.hards.iter().map(|(term, of)| (row.weight(*of), row.hard(*term)));
        for (sum, (weight, term)) in sums.iter_mut().zip(soft.chain(hard)) {
            if let Some(term) = term.filter(|_| weight != 0.0) {
                sum.iter_mut().zip(term.losses).for_each(|(sum, x)| sum.add(x, weight));
            }
        }
    }

    fn merged(&self, parts: Vec<Vec<[Sum; 2]>>) -> Vec<[Sum; 2]> {
        let mut sums = self.none();
        for part in parts {
            for (sum, part) in sums.iter_mut().flatten().zip(part.iter().flatten()) {
                sum.merge(part);
            }
        }
        sums
    }

    /// The factors of a formula's terms, with the places of their sums.
    fn places(&self, formula: &Formula) -> impl Iterator<Item = (f64, usize)> {
        let soft = self.softs.iter().position(|s| *s == (formula.soft, formula.soft_examples));
        let hard = self.hards.iter().position(|h| *h == (formula.hard, formula.hard_examples));
        let soft = soft.map(|i| (formula.soft_factor, i));
        let hard = hard.map(|i| (formula.hard_factor, self.softs.len() + i));
        soft.into_iter().chain(hard).filter(|(factor, _)| *factor != 0.0)
    }
}
