//! Formulas of losses: the right one, and what every wrong one is made of.
//!
//! One example has logits z and targets v or y; p is the distribution of the targets, q that of the
//! student.

use super::case::{CheckCase, Divergence, Reduction};
use super::rounding::{Approx, Distribution, Rounding, max};

/// How probabilities are made from logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Probs {
    /// softmax(z/T).
    Softmax(f64),
    /// softmax(softmax(z/inner)/outer).
    Twice { inner: f64, outer: f64 },
    /// f/Σf with f = exp(z/T) − M.
    AfterExp(f64, Subtracted),
}

/// What was taken for the maximum M after the exponential.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Subtracted {
    /// max exp(z/T).
    Power,
    /// max z/T.
    Exponent,
    /// max z.
    Logit,
}

impl Probs {
    pub fn of(self, logits: &[f64], rounding: Rounding) -> Distribution {
        match self {
            Probs::Softmax(t) => rounding.softmax(logits, t),
            Probs::Twice { inner, outer } => {
                rounding.softmax_of(&rounding.softmax(logits, inner).probs, outer)
            }
            Probs::AfterExp(t, subtracted) => {
                rounding.after_exp(logits, t, |powers| match subtracted {
                    Subtracted::Power => max(powers),
                    Subtracted::Exponent => max(logits) / t,
                    Subtracted::Logit => max(logits),
                })
            }
        }
    }
}

/// The side of [B, L, C] that a softmax was taken over by mistake.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Side {
    /// B.
    Batch,
    /// L.
    Length,
}

/// A formula of the soft term of an example, without T² and weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SoftTerm {
    /// CE(teacher's, student's), or their KL.
    Match { teacher: Probs, student: Probs },
    /// The same with the gradient (q − p)/T, whatever the student's probabilities are.
    ByHand { teacher: Probs, student: Probs },
    /// KL(q ‖ p).
    Reverse,
    /// −Σ q·ln p.
    ReverseEntropy,
    /// ½·KL(p ‖ q) + ½·KL(q ‖ p).
    Symmetric,
    /// β·KL(p ‖ m) + (1 − β)·KL(q ‖ m), m = β·p + (1 − β)·q.
    JensenShannon { beta: f64 },
    /// The same with ln m = β·ln p + (1 − β)·ln q.
    JensenShannonOfLogs { beta: f64 },
    /// Σ p·(ln p − q).
    ProbsAsInput,
    /// Σ p·(ln p − z/T).
    LogitsAsInput { t: f64 },
    /// Σ exp(p)·(p − ln q).
    ProbsAsLogTarget,
    /// Σ ln p·(ln ln p − ln q): no number, but a gradient.
    LogProbsAsTarget,
    /// ½·Σ (q − p)² at T.
    Mse { t: f64 },
    /// ½·Σ d² with d = z − v, centred or not.
    Logits { centred: bool },
    /// CE(one-hot of the teacher's largest logit, softmax(z/T)).
    Argmax { t: f64 },
    /// CE(softmax(v̄/T), q), v̄ the mean of an ensemble's logits.
    AveragedLogits,
    /// CE with the teacher of the example `by` places on, in the whole batch or in its sequence.
    Shifted { by: isize, within: bool },
    /// CE of softmaxes that were taken over another side than the classes.
    Over(Side),
    /// CE(p, p), or KL(p ‖ p) = 0.
    Itself,
}

/// A formula of the hard term of an example: CE(y, student's), y the label's one-hot vector, of
/// which a share of `smoothing` is spread over all classes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HardTerm {
    pub student: Probs,
    /// Gradient q − y, whatever the student's probabilities are.
    pub by_hand: bool,
    pub smoothing: f64,
}

/// The examples that are summed, and how much each counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Examples {
    /// Those that count.
    Counted,
    /// All, padding too.
    All,
    /// Those that count, each by the mean number in a sequence over that in its own: the mean of
    /// the sequences' means.
    MeanOfMeans,
}

/// A formula of the whole loss: soft_factor · Σ soft + hard_factor · Σ hard, over examples; the
/// factors hold weights, T² and the division by the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Formula {
    pub soft: SoftTerm,
    pub hard: HardTerm,
    pub soft_factor: f64,
    pub hard_factor: f64,
    /// What the soft part of the gradient has beyond the derivative of the loss.
    pub gradient_factor: f64,
    pub soft_examples: Examples,
    pub hard_examples: Examples,
}

impl Formula {
    /// Whether two are the same, whatever way their factors were computed.
    pub fn is(&self, other: &Formula) -> bool {
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-14 * b.abs();
        near(self.soft_factor, other.soft_factor)
            && near(self.hard_factor, other.hard_factor)
            && Formula { soft_factor: other.soft_factor, hard_factor: other.hard_factor, ..*self }
                == *other
    }

    /// The loss of [`crate::engine::loss`], with the case's divergence.
    pub fn right(case: &CheckCase) -> Formula {
        let t = case.temperature;
        let tempered = Probs::Softmax(t);
        let divisor = if case.reduction == Reduction::Mean { case.count() as f64 } else { 1.0 };
        let (soft, factor) = match case.divergence {
            _ if t.is_infinite() => {
                (SoftTerm::Logits { centred: true }, 1.0 / case.classes() as f64)
            }
            Divergence::Forward => {
                (SoftTerm::Match { teacher: tempered, student: tempered }, t * t)
            }
            Divergence::Reverse => (SoftTerm::Reverse, t * t),
            Divergence::Symmetric => (SoftTerm::Symmetric, t * t),
            Divergence::JensenShannon { beta } => (SoftTerm::JensenShannon { beta }, t * t),
        };
        let there = |weight: f64, targets: bool| if targets { weight / divisor } else { 0.0 };
        Formula {
            soft,
            hard: HardTerm { student: Probs::Softmax(1.0), by_hand: false, smoothing: 0.0 },
            soft_factor: factor * there(case.soft_weight, case.teacher_logits.is_some()),
            hard_factor: there(case.hard_weight, case.labels.is_some()),
            gradient_factor: 1.0,
            soft_examples: Examples::Counted,
            hard_examples: Examples::Counted,
        }
    }
}

/// One example's share of a term: its loss as a cross-entropy and as a divergence, and its
/// gradient [C].
#[derive(Clone)]
pub struct Term {
    pub losses: [Approx; 2],
    pub gradient: Vec<Approx>,
}
