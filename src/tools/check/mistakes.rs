//! The mistakes that `check` knows: a row of [`MISTAKES`] for each.
//!
//! Some are made in several forms (with or without ½, by automatic differentiation or by hand);
//! each is tried. The soft loss may be a cross-entropy or a KL divergence: their gradients are the
//! same.

use super::case::{CheckCase, Divergence, Reduction};
use super::formula::{Examples, Formula, HardTerm, Probs, Side, SoftTerm, Subtracted};
use super::mistake::{Aspect, Mistake};

/// The soft term as it is right in PyTorch.
pub(super) const SOFT: &str = "soft = T * T * F.kl_div(F.log_softmax(z / T, -1), F.log_softmax(v / T, -1), reduction='batchmean', log_target=True)";
/// The same over the tokens of sequences that count.
pub(super) const TOKENS: &str = "soft = T * T * F.kl_div(log_q[mask], log_p[mask], reduction='batchmean', log_target=True)  # [tokens that count, C]";
/// The hard term.
pub(super) const HARD: &str = "hard = F.cross_entropy(z, y)";
/// Jensen–Shannon with the mixture of probabilities.
const MIXTURE: &str =
    "log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))  # 0 < beta < 1";

/// Every mistake, in the order in which results name them.
pub static MISTAKES: [Mistake; 35] = [
    Mistake {
        id: "t_squared_missing",
        says: "the soft term lacks its factor T²",
        formula: "KL(p ‖ q)",
        fix: SOFT,
        aspect: Aspect::Temperature,
        forms: |s, from| s.scaled(from, [1.0 / (s.t * s.t)]),
    },
    Mistake {
        id: "t_instead_of_t_squared",
        says: "the soft term is multiplied by T, not by T²",
        formula: "T·KL(p ‖ q)",
        fix: SOFT,
        aspect: Aspect::Temperature,
        forms: |s, from| s.scaled(from, [1.0 / s.t]),
    },
    Mistake {
        id: "kl_mean",
        says: "the soft term is divided by batch × classes (PyTorch: use 'batchmean')",
        formula: "T²·Σ KL(p ‖ q)/(N·C)",
        fix: SOFT,
        aspect: Aspect::Reduction,
        forms: |s, from| {
            // The mean may be over the elements of padding too, and the sum.
            let mean = s.divisor / (s.examples * s.classes);
            let mut forms = s.scaled(from, [1.0 / s.classes]);
            forms.extend(s.also_padded(s.scaled(from, [mean])));
            forms
        },
    },
    Mistake {
        id: "kl_sum",
        says: "summed over the batch, not averaged",
        formula: "T²·Σ KL(p ‖ q)",
        fix: SOFT,
        aspect: Aspect::Reduction,
        forms: |s, from| {
            if s.case.reduction == Reduction::Sum {
                return Vec::new();
            }
            let soft = s.also_padded(s.scaled(from, [s.divisor]));
            let both =
                |soft: &Formula| Formula { hard_factor: soft.hard_factor * s.divisor, ..*soft };
            soft.iter().copied().chain(soft.iter().map(both)).collect()
        },
    },
    Mistake {
        id: "seq_batchmean",
        says: "'batchmean' of [B, L, C] divides by the sequences, not by their tokens",
        formula: "T²·Σ KL(p ‖ q)/B",
        fix: TOKENS,
        aspect: Aspect::Reduction,
        forms: |s, from| {
            let forms = s.also_padded(s.scaled(from, [s.divisor / s.batch]));
            forms.into_iter().filter(|_| s.length > 1.0).collect()
        },
    },
    Mistake {
        id: "length_times_classes",
        says: "the soft term is divided by tokens × classes of a sequence",
        formula: "T²·Σ KL(p ‖ q)/(L·C)",
        fix: TOKENS,
        aspect: Aspect::Reduction,
        forms: |s, from| {
            let forms = s.scaled(from, [s.divisor / (s.length * s.classes), s.divisor / s.length]);
            forms.into_iter().filter(|_| s.length > 1.0).collect()
        },
    },
    Mistake {
        id: "padding_counted",
        says: "padding counts: in the sum, in the number it is divided by, or in both",
        formula: "Σ over all N tokens, or /N",
        fix: TOKENS,
        aspect: Aspect::Reduction,
        forms: |s, from| s.with_padding(from),
    },
    Mistake {
        id: "mean_twice",
        says: "a mean is divided by the number of examples once more",
        formula: "T²·Σ KL(p ‖ q)/N²",
        fix: SOFT,
        aspect: Aspect::Reduction,
        forms: |s, from| {
            let soft = s.scaled(from, [1.0 / s.count, 1.0 / s.batch, 1.0 / s.examples]);
            let both = soft.iter().map(|soft| Formula {
                hard_factor: soft.hard_factor * soft.soft_factor / from.soft_factor,
                ..*soft
            });
            soft.iter().copied().chain(both).collect()
        },
    },
    Mistake {
        id: "mean_of_means",
        says: "the mean over a sequence's tokens is averaged over sequences of unequal length",
        formula: "mean over b of (mean over the tokens of b)",
        fix: TOKENS,
        aspect: Aspect::Reduction,
        forms: |s, from| {
            let soft = Formula { soft_examples: Examples::MeanOfMeans, ..from };
            let both = Formula { hard_examples: Examples::MeanOfMeans, ..soft };
            let forms = s.at_t([soft, both]).into_iter();
            forms.filter(|_| s.length > 1.0 && s.padded()).collect()
        },
    },
    Mistake {
        id: "log_target",
        says: "log_target does not say what the target is: its logarithm is taken once too often, \
               or its exponential",
        formula: "Σ ln p·(ln ln p − ln q), or Σ exp(p)·(p − ln q)",
        fix: SOFT,
        aspect: Aspect::Soft,
        forms: |s, from| {
            let terms = [SoftTerm::LogProbsAsTarget, SoftTerm::ProbsAsLogTarget];
            s.soft(from, terms.map(|term| (term, 1.0)))
        },
    },
    Mistake {
        id: "probs_as_log_probs",
        says: "probabilities where the KL function takes log-probabilities",
        formula: "Σ p·(ln p − q)",
        fix: SOFT,
        aspect: Aspect::Soft,
        forms: |s, from| s.soft(from, [(SoftTerm::ProbsAsInput, 1.0)]),
    },
    Mistake {
        id: "logits_as_log_probs",
        says: "logits where the KL function takes log-probabilities",
        formula: "Σ p·(ln p − z/T)",
        fix: SOFT,
        aspect: Aspect::Soft,
        forms: |s, from| s.soft(from, [s.t, 1.0].map(|t| (SoftTerm::LogitsAsInput { t }, 1.0))),
    },
    Mistake {
        id: "reverse_kl",
        says: "the arguments of KL are the wrong way round: KL(student ‖ teacher)",
        formula: "KL(q ‖ p)",
        fix: SOFT,
        aspect: Aspect::Soft,
        forms: |s, from| match s.case.divergence {
            Divergence::Forward => {
                s.soft(from, [(SoftTerm::Reverse, 1.0), (SoftTerm::ReverseEntropy, 1.0)])
            }
            Divergence::Reverse => s.soft(from, [(s.tempered(), 1.0)]),
            _ => Vec::new(),
        },
    },
    Mistake {
        id: "symmetric_kl",
        says: "both directions of KL where one was meant",
        formula: "KL(p ‖ q) + KL(q ‖ p)",
        fix: SOFT,
        aspect: Aspect::Soft,
        forms: |s, from| match s.case.divergence {
            Divergence::Symmetric => {
                let one = [s.tempered(), SoftTerm::Reverse];
                s.soft(from, one.into_iter().flat_map(|term| [(term, 1.0), (term, 0.5)]))
            }
            _ => s.soft(from, [(SoftTerm::Symmetric, 1.0), (SoftTerm::Symmetric, 2.0)]),
        },
    },
    Mistake {
        id: "js_of_logs",
        says: "Jensen–Shannon mixes log-probabilities, not probabilities",
        formula: "ln m = β·ln p + (1 − β)·ln q",
        fix: MIXTURE,
        aspect: Aspect::Soft,
        forms: |s, from| match s.case.divergence {
            Divergence::JensenShannon { beta } => {
                s.soft(from, [(SoftTerm::JensenShannonOfLogs { beta }, 1.0)])
            }
            _ => Vec::new(),
        },
    },
    Mistake {
        id: "js_beta",
        says: "Jensen–Shannon has its β at an end, where it is a KL, or on the other side",
        formula: "KL(p ‖ q) or KL(q ‖ p), or 1 − β for β",
        fix: MIXTURE,
        aspect: Aspect::Soft,
        forms: |s, from| match s.case.divergence {
            Divergence::JensenShannon { beta } => {
                let other = SoftTerm::JensenShannon { beta: 1.0 - beta };
                let mut terms = vec![(s.tempered(), 1.0), (SoftTerm::Reverse, 1.0)];
                terms.extend((beta != 0.5).then_some((other, 1.0)));
                s.soft(from, terms)
            }
            _ => Vec::new(),
        },
    },
    Mistake {
        id: "softmax_twice",
        says: "softmax is applied to what already is a softmax",
        formula: "softmax(softmax(z/T))",
        fix: "z = model(x)  # logits: no softmax layer at the model's end",
        aspect: Aspect::Soft,
        forms: |s, from| {
            let mut wrong = Vec::new();
            let hard = |by_hand| {
                let student = Probs::Twice { inner: 1.0, outer: 1.0 };
                HardTerm { student, by_hand, smoothing: 0.0 }
            };
            for by_hand in [false, true] {
                wrong.extend(s.hard(from, [(hard(by_hand), 1.0)]));
            }
            for (inner, outer) in [(s.t, 1.0), (1.0, s.t), (s.t, s.t)] {
                let student = Probs::Twice { inner, outer };
                for teacher in [Probs::Softmax(s.t), student] {
                    for (by_hand, soft) in [
                        (false, SoftTerm::Match { teacher, student }),
                        (true, SoftTerm::ByHand { teacher, student }),
                    ] {
                        let soft = s.soft(from, [(soft, 1.0)]);
                        let both = |f: &Formula| s.hard(*f, [(hard(by_hand), 1.0)]);
                        let both: Vec<Formula> = soft.iter().flat_map(both).collect();
                        wrong.extend(soft.into_iter().chain(both));
                    }
                }
            }
            wrong
        },
    },
    Mistake {
        id: "teacher_softmax_twice",
        says: "softmax is applied to the teacher's probabilities",
        formula: "p = softmax(softmax(v)/T)",
        fix: "p = F.softmax(v / T, -1)  # v: the teacher's logits, as they were cached",
        aspect: Aspect::Soft,
        forms: |s, from| {
            let student = Probs::Softmax(s.t);
            s.soft(
                from,
                [(1.0, s.t), (s.t, 1.0), (s.t, s.t)].map(|(inner, outer)| {
                    let teacher = Probs::Twice { inner, outer };
                    (SoftTerm::Match { teacher, student }, 1.0)
                }),
            )
        },
    },
    Mistake {
        id: "teacher_not_tempered",
        says: "the teacher's logits are not divided by T",
        formula: "p = softmax(v)",
        fix: "p = F.softmax(v / T, -1)",
        aspect: Aspect::Soft,
        forms: |s, from| {
            let soft =
                SoftTerm::Match { teacher: Probs::Softmax(1.0), student: Probs::Softmax(s.t) };
            s.soft(from, [1.0, 1.0 / s.t, 1.0 / (s.t * s.t)].map(|factor| (soft, factor)))
        },
    },
    Mistake {
        id: "student_not_tempered",
        says: "the student's logits are not divided by T in the soft term",
        formula: "q = softmax(z)",
        fix: "log_q = F.log_softmax(z / T, -1)",
        aspect: Aspect::Soft,
        forms: |s, from| {
            let (teacher, student) = (Probs::Softmax(s.t), Probs::Softmax(1.0));
            let soft = SoftTerm::Match { teacher, student };
            let forms = [1.0, 1.0 / s.t, 1.0 / (s.t * s.t)].map(|factor| (soft, factor));
            s.soft(from, forms.into_iter().chain([(SoftTerm::ByHand { teacher, student }, 1.0)]))
        },
    },
    Mistake {
        id: "temperature_multiplied",
        says: "logits are multiplied by T, not divided",
        formula: "softmax(z·T)",
        fix: "log_q, log_p = F.log_softmax(z / T, -1), F.log_softmax(v / T, -1)",
        aspect: Aspect::Soft,
        forms: |s, from| {
            let probs = Probs::Softmax(1.0 / s.t);
            let soft = SoftTerm::Match { teacher: probs, student: probs };
            s.soft(from, [(soft, 1.0), (soft, 1.0 / (s.t * s.t))])
        },
    },
    Mistake {
        id: "softmax_over_batch",
        says: "softmax is taken over the batch or the tokens, not over the classes",
        formula: "softmax(z/T, dim=0) or, of [B, L, C], dim=1",
        fix: "log_q = F.log_softmax(z / T, dim=-1)",
        aspect: Aspect::Soft,
        forms: |s, from| {
            let sides = [Side::Batch, Side::Length].map(|side| (SoftTerm::Over(side), 1.0));
            let sides = if s.length > 1.0 { &sides[..] } else { &sides[..1] };
            let one_teacher = s.case.ensemble.is_empty();
            s.soft(from, sides.iter().copied().filter(|_| one_teacher))
        },
    },
    Mistake {
        id: "hard_term_tempered",
        says: "the hard term is at T; it belongs at T = 1",
        formula: "CE(y, softmax(z/T))",
        fix: HARD,
        aspect: Aspect::Hard,
        forms: |s, from| {
            if s.t.is_infinite() || s.case.teacher_logits.is_none() {
                return Vec::new();
            }
            let student = Probs::Softmax(s.t);
            s.hard(
                from,
                [(1.0, false), (1.0, true), (s.t * s.t, false)].map(|(factor, by_hand)| {
                    (HardTerm { student, by_hand, smoothing: 0.0 }, factor)
                }),
            )
        },
    },
    Mistake {
        id: "label_smoothing",
        says: "the hard term smooths its labels",
        formula: "CE((1 − ε)·y + ε/C, softmax(z)), ε of 0.05, 0.1, 0.15 or 0.2",
        fix: HARD,
        aspect: Aspect::Hard,
        forms: |s, from| {
            s.hard(
                from,
                [0.05, 0.1, 0.15, 0.2].map(|smoothing| (HardTerm { smoothing, ..from.hard }, 1.0)),
            )
        },
    },
    Mistake {
        id: "weights_swapped",
        says: "soft_weight is on the hard term and hard_weight on the soft term",
        formula: "hard_weight·soft + soft_weight·hard",
        fix: "loss = soft_weight * soft + hard_weight * hard",
        aspect: Aspect::Weights,
        forms: |s, from| {
            let CheckCase { soft_weight: soft, hard_weight: hard, .. } = *s.case;
            if s.case.teacher_logits.is_none() || s.case.labels.is_none() {
                return Vec::new();
            }
            // A term of weight 0 has its factor from the other's.
            let t_squared = if s.t.is_finite() { s.t * s.t } else { 1.0 / s.classes };
            let soft_factor =
                if soft > 0.0 { from.soft_factor / soft } else { t_squared / s.divisor };
            let hard_factor = if hard > 0.0 { from.hard_factor / hard } else { 1.0 / s.divisor };
            vec![Formula {
                soft_factor: soft_factor * hard,
                hard_factor: hard_factor * soft,
                ..from
            }]
        },
    },
    Mistake {
        id: "max_after_exp",
        says: "the maximum is subtracted after the exponential, not before",
        formula: "e = exp(z/T); q = (e − max e)/Σ(e − max e)",
        fix: "log_q = F.log_softmax(z / T, -1)",
        aspect: Aspect::Soft,
        forms: |s, from| {
            let mut wrong = Vec::new();
            for subtracted in [Subtracted::Power, Subtracted::Exponent, Subtracted::Logit] {
                let bad = |t| Probs::AfterExp(t, subtracted);
                let hard = HardTerm { student: bad(1.0), by_hand: true, smoothing: 0.0 };
                wrong.extend(s.hard(from, [(hard, 1.0)]));
                let student = bad(s.t);
                for teacher in [student, Probs::Softmax(s.t)] {
                    let soft = s.soft(from, [(SoftTerm::ByHand { teacher, student }, 1.0)]);
                    let both = soft.iter().flat_map(|f| s.hard(*f, [(hard, 1.0)]));
                    wrong.extend(soft.iter().copied().chain(both));
                }
            }
            wrong
        },
    },
    Mistake {
        id: "mse_of_probs",
        says: "squared differences of probabilities in place of a cross-entropy",
        formula: "Σ (q − p)²",
        fix: SOFT,
        aspect: Aspect::Soft,
        forms: |s, from| {
            // With and without ½, mean or sum over the classes, and T².
            let scales = [(s.t, 1.0), (s.t, s.t * s.t), (1.0, 1.0), (1.0, s.t * s.t)];
            let factors = [2.0 / s.classes, 1.0 / s.classes, 2.0, 1.0];
            s.soft(
                from,
                factors.into_iter().flat_map(|factor| {
                    scales.map(|(t, scale)| (SoftTerm::Mse { t }, factor * scale / (s.t * s.t)))
                }),
            )
        },
    },
    Mistake {
        id: "raw_logit_matching",
        says: "squared differences of logits that are not centred",
        formula: "Σ (z − v)², or Σ (z/T − v/T)²",
        fix: "d = (z - v) - (z - v).mean(-1, keepdim=True); soft = 0.5 * (d * d).mean(-1).mean()  # T = inf",
        aspect: Aspect::Soft,
        forms: |s, from| {
            if from.soft != s.right.soft || from.soft_factor == 0.0 {
                return Vec::new();
            }
            // At T = ∞ the right term has its 1/C where others have T².
            let known = if s.t.is_finite() { s.t * s.t } else { 1.0 / s.classes };
            let tempered = if s.t.is_finite() { 1.0 / (s.t * s.t) } else { 1.0 };
            let form = |factor: f64| Formula {
                soft: SoftTerm::Logits { centred: false },
                soft_factor: from.soft_factor * factor / known,
                ..from
            };
            let factors = [1.0 / s.classes, 2.0 / s.classes, 1.0, 2.0];
            factors.into_iter().flat_map(|factor| [form(factor), form(factor * tempered)]).collect()
        },
    },
    Mistake {
        id: "hard_instead_of_soft",
        says: "the teacher's most probable class in place of its soft targets",
        formula: "CE(argmax v, q)",
        fix: SOFT,
        aspect: Aspect::Soft,
        forms: |s, from| {
            let forms = [(s.t, s.t * s.t), (s.t, 1.0), (1.0, 1.0), (1.0, s.t * s.t)];
            s.soft(from, forms.map(|(t, factor)| (SoftTerm::Argmax { t }, factor / (s.t * s.t))))
        },
    },
    Mistake {
        id: "ensemble_of_logits",
        says: "the ensemble's logits are averaged, not its probabilities",
        formula: "p = softmax(mean of v/T)",
        fix: "p = torch.stack([F.softmax(v / T, -1) for v in teachers]).mean(0)",
        aspect: Aspect::Soft,
        forms: |s, from| {
            let several = !s.case.ensemble.is_empty();
            s.soft(from, [(SoftTerm::AveragedLogits, 1.0)].into_iter().filter(|_| several))
        },
    },
    Mistake {
        id: "rows_shifted",
        says: "rows of teacher and student are shifted against each other",
        formula: "KL(p of example n ± 1 ‖ q of example n)",
        fix: "v = teacher(x)  # or cached logits in the order of x, and both shifted alike for the next token",
        aspect: Aspect::Soft,
        forms: |s, from| {
            let shifts = [(1, false), (-1, false), (1, true), (-1, true)];
            let shifts = shifts.into_iter().filter(|(_, within)| !within || s.length > 1.0);
            let one = s.case.ensemble.is_empty() && s.examples > 1.0;
            let shifts = shifts.filter(|_| one);
            s.soft(from, shifts.map(|(by, within)| (SoftTerm::Shifted { by, within }, 1.0)))
        },
    },
    Mistake {
        id: "teacher_with_itself",
        says: "the soft term compares the teacher with itself, or is left out",
        formula: "CE(p, p)",
        fix: SOFT,
        aspect: Aspect::Soft,
        forms: |s, from| s.soft(from, [(SoftTerm::Itself, 1.0)]),
    },
    Mistake {
        id: "student_detached",
        says: "no gradient flows from the soft term into the student: the wrong side is detached",
        formula: "∂soft/∂z = 0",
        fix: "log_p = F.log_softmax(v / T, -1).detach()  # and never the student's",
        aspect: Aspect::Soft,
        forms: |s, from| s.at_t([Formula { gradient_factor: 0.0, ..from }]),
    },
    Mistake {
        id: "teacher_gradient",
        says: "the gradient flows into the teacher",
        formula: "∂L/∂v ≠ 0",
        fix: "with torch.no_grad(): v = teacher(x)",
        aspect: Aspect::Teacher,
        forms: |_, _| Vec::new(),
    },
    Mistake {
        id: "teacher_in_training",
        says: "the teacher answers twice differently: it is in training mode",
        formula: "v of a first pass ≠ v of a second",
        fix: "teacher.eval()",
        aspect: Aspect::Teacher,
        forms: |_, _| Vec::new(),
    },
];
