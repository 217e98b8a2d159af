//! What the formulas give for one example, with its gradient.
//!
//! Most terms are a sum over the classes of f(p, q); with sᵢ = ∂f/∂ln qᵢ the gradient is
//! (sᵢ − qᵢ·Σ s)/T. Each number is an [`Approx`], from which follows how far rounding may take it.

use super::formula::{HardTerm, Probs, SoftTerm, Term};
use super::rounding::{Approx, Distribution, max};
use super::row::{Row, cached};
use limbeck_kernels::reference::{self, probability_difference};
use std::rc::Rc;

impl Row<'_> {
    pub fn soft(&self, term: SoftTerm) -> Rc<Term> {
        cached(&self.softs, term, || term.term(self))
    }

    /// `None` where the label is no class, as an ignored one's.
    pub fn hard(&self, term: HardTerm) -> Option<Rc<Term>> {
        let label = self.case().labels.as_ref()?[self.e];
        let label = usize::try_from(label).ok().filter(|label| *label < self.z().len())?;
        Some(cached(&self.hards, term, || term.term(self, label)))
    }
}

/// p, ln p, q and ln q of a class.
type Class = [Approx; 4];

const ONE: Approx = Approx::exact(1.0);

impl SoftTerm {
    fn term(self, row: &Row) -> Term {
        let case = row.case();
        let t = case.temperature;
        let tempered = Probs::Softmax(t);
        let both = || (row.teacher(tempered), row.student(tempered));
        let sum_of = |f: &dyn Fn(Class) -> (Approx, Approx)| {
            let (p, q) = both();
            sum_over_classes(&p, &q, t, row, f)
        };
        match self {
            SoftTerm::Match { teacher, student } => {
                if let (Probs::Softmax(a), Probs::Softmax(b)) = (teacher, student)
                    && a == b
                    && case.ensemble.is_empty()
                {
                    return forward(row, &row.teacher(teacher), row.v(), a);
                }
                cross_entropy(row, &row.teacher(teacher), student)
            }
            SoftTerm::ByHand { teacher, student } => {
                let (p, q) = (row.teacher(teacher), row.student(student));
                let gradient = p.probs.iter().zip(&q.probs).map(|(&p, &q)| (q - p) * (1.0 / t));
                Term { losses: losses(row, &p, &q), gradient: gradient.collect() }
            }
            SoftTerm::Reverse => {
                let term = sum_of(&|[_, lp, q, lq]| {
                    let f = q * (lq - lp);
                    (f, f + q)
                });
                // KL(q ‖ p) with the roles exchanged, without loss of digits at high T.
                match case.ensemble.is_empty() {
                    true => term.at(divergence(row.v(), row.z(), t)),
                    false => term,
                }
            }
            SoftTerm::ReverseEntropy => sum_of(&|[_, lp, q, _]| {
                let f = q * lp * -1.0;
                (f, f)
            }),
            SoftTerm::Symmetric => sum_of(&|[p, lp, q, lq]| {
                let (forward, reverse) = (p * (lp - lq), q * (lq - lp));
                ((forward + reverse) * 0.5, (reverse + q - p) * 0.5)
            }),
            SoftTerm::JensenShannon { beta } => sum_of(&|[p, lp, q, lq]| {
                let log_m = log_mixture(lp, lq, beta);
                let reverse = q * (lq - log_m) * (1.0 - beta);
                (p * (lp - log_m) * beta + reverse, reverse)
            }),
            SoftTerm::JensenShannonOfLogs { beta } => sum_of(&|[p, lp, q, lq]| {
                let (forward, reverse) = (p * (lp - lq), q * (lq - lp));
                let share = beta * (1.0 - beta);
                ((forward + reverse) * share, (reverse + q - p) * share)
            }),
            SoftTerm::ProbsAsInput => {
                let (p, q) = both();
                let mut term =
                    sum_over_classes(&p, &q, t, row, &|[p, lp, q, _]| (p * (lp - q), p * q * -1.0));
                // Without the entropy of p.
                let terms = p.probs.iter().zip(&q.probs).map(|(&p, &q)| p * q * -1.0);
                term.losses[0] = Approx::sum(terms, row.rounding().precision);
                term
            }
            SoftTerm::LogitsAsInput { t: by } => {
                let (p, _) = both();
                let class = |i: usize| {
                    let z = row.z()[i];
                    let input = Approx { x: z / by, e: 0.0, m: z.abs() / by };
                    (p.probs[i] * input * -1.0, p.probs[i] * p.logs[i])
                };
                let precision = row.rounding().precision;
                let sum = |part: &dyn Fn(usize) -> Approx| {
                    Approx::sum((0..p.probs.len()).map(part), precision)
                };
                let ce = sum(&|i| class(i).0);
                let gradient = p.probs.iter().map(|&p| p * (-1.0 / by)).collect();
                Term { losses: [ce, ce + sum(&|i| class(i).1)], gradient }
            }
            SoftTerm::ProbsAsLogTarget => sum_of(&|[p, _, _, lq]| {
                let target = Approx { x: p.x.exp(), e: p.x.exp() * p.e, m: p.x.exp() };
                (target * (p - lq), target * -1.0)
            }),
            SoftTerm::LogProbsAsTarget => {
                let mut term = sum_of(&|[_, lp, _, _]| (Approx::ZERO, lp * -1.0));
                term.losses = [Approx::exact(f64::NAN); 2];
                term
            }
            SoftTerm::Mse { t } => {
                let (p, q) = (row.teacher(Probs::Softmax(t)), row.student(Probs::Softmax(t)));
                sum_over_classes(&p, &q, t, row, &|[p, _, q, _]| {
                    let d = q - p;
                    (d * d * 0.5, q * d)
                })
            }
            SoftTerm::Logits { centred } => logits(row, centred),
            SoftTerm::Argmax { t } => {
                let largest = max(row.v());
                let class = row.v().iter().position(|v| *v == largest).unwrap_or(0);
                let y = Distribution::one_hot(class, row.v().len());
                cross_entropy(row, &y, Probs::Softmax(t))
            }
            SoftTerm::AveragedLogits => {
                cross_entropy(row, &tempered.of(row.v(), row.rounding()), tempered)
            }
            SoftTerm::Shifted { by, within } => {
                let v = row.shifted_v(by, within);
                forward(row, &tempered.of(&v, row.rounding()), &v, t)
            }
            SoftTerm::Over(side) => {
                let [p, q] = row.over(side);
                let gradient = p.probs.iter().zip(&q.probs).map(|(&p, &q)| (q - p) * (1.0 / t));
                Term { losses: losses(row, &p, &q), gradient: gradient.collect() }
            }
            SoftTerm::Itself => {
                let p = row.teacher(tempered);
                let [entropy, _] = losses(row, &p, &p);
                Term {
                    losses: [entropy, Approx { x: 0.0, ..entropy }],
                    gradient: vec![Approx::ZERO; p.probs.len()],
                }
            }
        }
    }
}

impl HardTerm {
    fn term(self, row: &Row, label: usize) -> Term {
        let classes = row.z().len();
        let mut y = Distribution::one_hot(label, classes);
        if self.smoothing > 0.0 {
            let share = self.smoothing / classes as f64;
            y.probs.iter_mut().for_each(|y| *y = *y * (1.0 - self.smoothing) + ONE * share);
            y.logs = y.probs.iter().map(|y| y.ln()).collect();
        }
        let mut term = if self.by_hand {
            let q = row.student(self.student);
            let gradient = y.probs.iter().zip(&q.probs).map(|(&y, &q)| q - y).collect();
            Term { losses: losses(row, &y, &q), gradient }
        } else {
            cross_entropy(row, &y, self.student)
        };
        // A label has no entropy; a smoothed one's is left in.
        term.losses[1] = term.losses[0];
        term
    }
}

impl Term {
    /// The same with a value that was found another way.
    fn at(mut self, loss: f64) -> Term {
        self.losses = self.losses.map(|sum| at(sum, loss));
        self
    }
}

/// A sum with a value that was found another way, unless it is any number.
fn at(sum: Approx, x: f64) -> Approx {
    if sum.e.is_finite() { Approx { x, ..sum } } else { sum }
}

/// ln(β·p + (1 − β)·q) from the logarithms, where probabilities would underflow. Its error is a mean
/// of those of the two, by their shares.
fn log_mixture(lp: Approx, lq: Approx, beta: f64) -> Approx {
    let (from_p, from_q) = (lp.x + beta.ln(), lq.x + (1.0 - beta).ln());
    let high = from_p.max(from_q);
    if high == f64::NEG_INFINITY {
        return Approx::exact(high);
    }
    let x = high + (from_p.min(from_q) - high).exp().ln_1p();
    Approx { x, e: lp.e.max(lq.e), m: 4.0 * x.abs() + 8.0 }
}

/// −Σ p·ln q, and the same with Σ p·ln p.
fn losses(row: &Row, p: &Distribution, q: &Distribution) -> [Approx; 2] {
    let precision = row.rounding().precision;
    let product = |logs: &[Approx]| {
        Approx::sum(p.probs.iter().zip(logs).map(|(&p, &log)| p * log), precision)
    };
    let ce = product(&q.logs) * -1.0;
    [ce, ce + product(&p.logs)]
}

/// KL(softmax(v/T) ‖ softmax(z/T)).
fn divergence(z: &[f64], v: &[f64], temperature: f64) -> f64 {
    let pair = reference::Distillation {
        teacher: Some(v),
        label: None,
        temperature,
        soft_weight: 1.0,
        hard_weight: 0.0,
    };
    pair.divergence(z)
}

/// CE and KL of p = softmax(v/T) and the student at the same T: the difference of the two is what
/// matters, and at high T it is computed without loss of digits.
fn forward(row: &Row, p: &Distribution, v: &[f64], t: f64) -> Term {
    let q = row.student(Probs::Softmax(t));
    let [ce, kl] = losses(row, p, &q);
    let sum = row.rounding().precision.roundings(v.len()) + 4.0;
    let gradient = p.probs.iter().zip(&q.probs).zip(probability_difference(row.z(), v, t));
    let gradient = gradient.map(|((p, q), difference)| Approx {
        x: difference / t / t,
        e: (p.e + q.e) / t,
        m: (q.x * sum + p.x + q.x + (q.x - p.x).abs()) / t,
    });
    let gradient = if row.gradients() { gradient.collect() } else { Vec::new() };
    let kl = at(kl, divergence(row.z(), v, t));
    Term { losses: [ce, kl], gradient }
}

/// CE(p, student's), or KL, with its derivative by z.
fn cross_entropy(row: &Row, p: &Distribution, student: Probs) -> Term {
    let q = row.student(student);
    let losses = losses(row, p, &q);
    if !row.gradients() {
        return Term { losses, gradient: Vec::new() };
    }
    let s: Vec<Approx> = p.probs.iter().map(|&p| p * -1.0).collect();
    let gradient = match student {
        Probs::Softmax(t) | Probs::AfterExp(t, _) => through_softmax(row, &s, &q, t),
        Probs::Twice { inner, outer } => {
            let by_inner = through_softmax(row, &s, &q, outer);
            let inside = row.student(Probs::Softmax(inner));
            // ∂/∂ln of an inner probability is that probability times its derivative.
            let s: Vec<Approx> = inside.probs.iter().zip(&by_inner).map(|(&q, &g)| q * g).collect();
            through_softmax(row, &s, &inside, inner)
        }
    };
    Term { losses, gradient }
}

/// Σ f(p, q), with f and ∂f/∂ln q of each class.
fn sum_over_classes(
    p: &Rc<Distribution>,
    q: &Rc<Distribution>,
    t: f64,
    row: &Row,
    f: &dyn Fn(Class) -> (Approx, Approx),
) -> Term {
    let class = |i: usize| f([p.probs[i], p.logs[i], q.probs[i], q.logs[i]]);
    let (values, s): (Vec<Approx>, Vec<Approx>) = (0..p.probs.len()).map(class).unzip();
    let loss = Approx::sum(values.into_iter(), row.rounding().precision);
    Term { losses: [loss; 2], gradient: through_softmax(row, &s, q, t) }
}

/// (sᵢ − qᵢ·Σ s)/T.
fn through_softmax(row: &Row, s: &[Approx], q: &Distribution, t: f64) -> Vec<Approx> {
    if !row.gradients() {
        return Vec::new();
    }
    let sum = Approx::sum(s.iter().copied(), row.rounding().precision);
    s.iter().zip(&q.probs).map(|(&s, &q)| (s - q * sum) * (1.0 / t)).collect()
}

/// ½·Σ d² with d = z − v, less its mean or not, and the gradient d.
fn logits(row: &Row, centred: bool) -> Term {
    let (u, precision) = (row.rounding().u(), row.rounding().precision);
    let rounded = if row.rounding().rounded_logits { u } else { 0.0 };
    let differences = row.z().iter().zip(row.v()).map(|(&z, &v)| {
        // A mean that was subtracted from each before costs as much again.
        Approx { x: z - v, e: rounded * (z.abs() + v.abs()), m: (z - v).abs() }
    });
    let mut d: Vec<Approx> = differences.collect();
    if centred {
        let size = |x: &[f64]| x.iter().map(|x| x.abs()).sum::<f64>() / x.len() as f64;
        // The means of z and v may have been taken apart.
        let apart = precision.roundings(d.len()) * (size(row.z()) + size(row.v()));
        let share = 1.0 / d.len() as f64;
        let mut mean = Approx::sum(d.iter().copied(), precision) * share;
        mean.m += apart;
        let own = |i: usize| row.z()[i].abs() + row.v()[i].abs();
        d = (0..d.len())
            .map(|i| {
                let centred = d[i] - mean;
                Approx { m: centred.m + own(i), ..centred }
            })
            .collect();
    }
    let loss = Approx::sum(d.iter().map(|&d| d * d * 0.5), precision);
    Term { losses: [loss; 2], gradient: d }
}
