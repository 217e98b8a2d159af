//! Losses with their gradients in f64: the right one, and what every wrong one is made of.
//!
//! One example has logits z and targets v or y; p is the distribution of the targets, q that of the
//! student. Beside each number stands the sum Σ|tᵢ| of the magnitudes of its terms, from which
//! follows how far rounding may take it.

use super::case::{CheckCase, Precision, Reduction};
use limbeck_kernels::reference::{log_softmax, softmax};
use ndarray::{Array1, Array2};

/// How probabilities are made from logits.
#[derive(Clone, Copy)]
pub enum Probs {
    /// softmax(z/T).
    Softmax(f64),
    /// softmax(softmax(z/inner)/outer).
    Twice { inner: f64, outer: f64 },
    /// f/Σf with f = exp(z/T) − M.
    AfterExp(f64, Subtracted),
}

/// What was taken for the maximum M after the exponential.
#[derive(Clone, Copy)]
pub enum Subtracted {
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

/// A formula of the soft term of an example.
#[derive(Clone, Copy)]
pub enum SoftTerm {
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

/// A formula of the hard term of an example: factor · CE(y, student's).
#[derive(Clone, Copy)]
pub struct HardTerm {
    pub student: Probs,
    pub factor: f64,
    /// Gradient q − y, whatever the student's probabilities are.
    pub by_hand: bool,
}

fn one_hot(class: usize, classes: usize) -> Distribution {
    let y: Vec<f64> = (0..classes).map(|i| if i == class { 1.0 } else { 0.0 }).collect();
    Distribution { logs: y.iter().map(|y| y.ln()).collect(), sizes: y.clone(), probs: y }
}

/// factor · CE(p, q) with its derivative by z.
fn differentiated(
    p: &Distribution,
    student: Probs,
    z: &[f64],
    factor: f64,
    case: &CheckCase,
) -> Term {
    let q = student.of(z, case.precision);
    match student {
        Probs::Softmax(t) | Probs::AfterExp(t, _) => Term::cross_entropy(p, &q, factor, factor / t),
        Probs::Twice { inner, outer } => {
            Term::cross_entropy(p, &q, factor, factor / outer).through_softmax(z, inner)
        }
    }
}

impl SoftTerm {
    fn term(self, case: &CheckCase, z: &[f64], v: &[f64]) -> Term {
        let (t, classes) = (case.temperature, z.len());
        let tempered = |logits| Probs::Softmax(t).of(logits, case.precision);
        let each = |of: &dyn Fn(usize) -> f64| (0..classes).map(of).collect::<Array1<f64>>();
        match self {
            SoftTerm::Match { teacher, student, factor, by_hand } => {
                let p = teacher.of(v, case.precision);
                if by_hand {
                    let q = student.of(z, case.precision);
                    return Term::cross_entropy(&p, &q, factor, factor / t);
                }
                differentiated(&p, student, z, factor, case)
            }
            SoftTerm::Reverse { divergence } => {
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
            SoftTerm::ProbsAsInput => {
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
            SoftTerm::ProbsAsLogTarget => {
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
            SoftTerm::Mse { temperature, factor } => {
                let (p, q) = (softmax(v, temperature), softmax(z, temperature));
                let d = each(&|i| q[i] - p[i]);
                let sizes = each(&|i| q[i] + p[i]);
                Term::squares(d, sizes, factor).through_softmax(z, temperature)
            }
            SoftTerm::Logits { centred, factor } => {
                let d = each(&|i| z[i] - v[i]);
                let sizes = each(&|i| z[i].abs() + v[i].abs());
                let share = if centred { 1.0 / classes as f64 } else { 0.0 };
                let (mean, size) = (d.sum() * share, sizes.sum() * share);
                Term::squares(d - mean, sizes + size, factor)
            }
            SoftTerm::Argmax { temperature, factor } => {
                let largest = max(v);
                let class = v.iter().position(|v| *v == largest).unwrap_or(0);
                let y = one_hot(class, classes);
                differentiated(&y, Probs::Softmax(temperature), z, factor, case)
            }
        }
    }
}

impl HardTerm {
    fn term(self, case: &CheckCase, z: &[f64], label: usize) -> Term {
        let y = one_hot(label, z.len());
        if self.by_hand {
            let q = self.student.of(z, case.precision);
            return Term::cross_entropy(&y, &q, self.factor, self.factor);
        }
        differentiated(&y, self.student, z, self.factor, case)
    }
}

/// A formula of the whole loss: soft_weight / soft_divisor times the sum of the soft terms of the
/// batch, and the same of the hard terms.
#[derive(Clone, Copy)]
pub struct Formula {
    pub soft: SoftTerm,
    pub hard: HardTerm,
    pub soft_weight: f64,
    pub hard_weight: f64,
    pub soft_divisor: f64,
    pub hard_divisor: f64,
}

/// What a formula gives for a case: the loss as cross-entropy and as divergence, its gradient
/// [B, C], and Σ|t| of both.
pub struct Values {
    pub losses: [f64; 2],
    pub loss_size: f64,
    pub d_logits: Array2<f64>,
    pub sizes: Array2<f64>,
}

impl Formula {
    /// The loss of [`crate::engine::loss`].
    pub fn right(case: &CheckCase) -> Formula {
        let (t, (batch, classes)) = (case.temperature, case.student_logits.dim());
        let tempered = Probs::Softmax(t);
        let divisor = if case.reduction == Reduction::Mean { batch as f64 } else { 1.0 };
        Formula {
            soft: if t.is_infinite() {
                SoftTerm::Logits { centred: true, factor: 1.0 / classes as f64 }
            } else {
                SoftTerm::Match {
                    teacher: tempered,
                    student: tempered,
                    factor: t * t,
                    by_hand: false,
                }
            },
            hard: HardTerm { student: Probs::Softmax(1.0), factor: 1.0, by_hand: false },
            soft_weight: case.soft_weight,
            hard_weight: case.hard_weight,
            soft_divisor: divisor,
            hard_divisor: divisor,
        }
    }

    /// The loss and gradient of the whole case.
    pub fn values(&self, case: &CheckCase) -> Values {
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
