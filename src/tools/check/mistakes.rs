//! The mistakes that `check` knows: a row of [`MISTAKES`] for each.
//!
//! Some are made in several forms (with or without ½, by automatic differentiation or by hand);
//! each is tried. The soft loss may be a cross-entropy or a KL divergence: their gradients are the
//! same.

use super::case::CheckCase;
use super::formula::{Formula, HardTerm, Probs, SoftTerm, Subtracted};

/// A mistake in the distillation loss.
pub struct Mistake {
    /// Its name in results.
    pub id: &'static str,
    /// What the code does.
    pub says: &'static str,
    /// The wrong losses that it may lead to; none where the case could not show it.
    formulas: fn(&Setting) -> Vec<Formula>,
}

impl Mistake {
    /// The wrong losses that it may lead to in this case.
    pub(super) fn formulas(&self, case: &CheckCase) -> Vec<Formula> {
        (self.formulas)(&Setting::new(case))
    }
}

/// Every mistake, in the order in which results name them.
pub static MISTAKES: [Mistake; 15] = [
    Mistake {
        id: "t_squared_missing",
        says: "the soft term lacks its factor T²",
        formulas: |s| s.soft([s.tempered(1.0)]),
    },
    Mistake {
        id: "t_instead_of_t_squared",
        says: "the soft term is multiplied by T, not by T²",
        formulas: |s| s.soft([s.tempered(s.t)]),
    },
    Mistake {
        id: "kl_mean",
        says: "the soft term is divided by batch × classes (PyTorch: use 'batchmean')",
        formulas: |s| s.at_t([Formula { soft_divisor: s.batch * s.classes, ..s.right }]),
    },
    Mistake {
        id: "kl_sum",
        says: "summed over the batch, not averaged",
        formulas: |s| {
            let soft = Formula { soft_divisor: 1.0, ..s.right };
            s.at_t([soft, Formula { hard_divisor: 1.0, ..soft }])
        },
    },
    Mistake {
        id: "reverse_kl",
        says: "KL(student ‖ teacher): the arguments are the wrong way round",
        formulas: |s| s.soft([true, false].map(|divergence| SoftTerm::Reverse { divergence })),
    },
    Mistake {
        id: "probs_as_log_probs",
        says: "probabilities where the KL function takes log-probabilities",
        formulas: |s| s.soft([SoftTerm::ProbsAsInput, SoftTerm::ProbsAsLogTarget]),
    },
    Mistake {
        id: "softmax_twice",
        says: "softmax is applied to what already is a softmax",
        formulas: |s| {
            let mut wrong = Vec::new();
            for by_hand in [false, true] {
                let student = Probs::Twice { inner: 1.0, outer: 1.0 };
                let hard = HardTerm { student, factor: 1.0, by_hand };
                wrong.extend(s.hard([hard]));
                for (inner, outer) in [(s.t, 1.0), (1.0, s.t), (s.t, s.t)] {
                    let student = Probs::Twice { inner, outer };
                    for teacher in [Probs::Softmax(s.t), student] {
                        let factor = s.t * s.t;
                        let soft = SoftTerm::Match { teacher, student, factor, by_hand };
                        wrong.extend(s.soft([soft]));
                        wrong.extend(s.soft_and_hard(soft, hard));
                    }
                }
            }
            wrong
        },
    },
    Mistake {
        id: "teacher_not_tempered",
        says: "the teacher's logits are not divided by T",
        formulas: |s| {
            let (teacher, student) = (Probs::Softmax(1.0), Probs::Softmax(s.t));
            s.soft([s.t * s.t, s.t, 1.0].map(|factor| SoftTerm::Match {
                teacher,
                student,
                factor,
                by_hand: false,
            }))
        },
    },
    Mistake {
        id: "student_not_tempered",
        says: "the student's logits are not divided by T in the soft term",
        formulas: |s| {
            let (teacher, student) = (Probs::Softmax(s.t), Probs::Softmax(1.0));
            let forms = [(s.t * s.t, false), (s.t, false), (1.0, false), (s.t * s.t, true)];
            s.soft(forms.map(|(factor, by_hand)| SoftTerm::Match {
                teacher,
                student,
                factor,
                by_hand,
            }))
        },
    },
    Mistake {
        id: "hard_term_tempered",
        says: "the hard term is at T; it belongs at T = 1",
        formulas: |s| {
            if s.t.is_infinite() || s.case.teacher_logits.is_none() {
                return Vec::new();
            }
            let student = Probs::Softmax(s.t);
            let forms = [(1.0, false), (1.0, true), (s.t * s.t, false)];
            s.hard(forms.map(|(factor, by_hand)| HardTerm { student, factor, by_hand }))
        },
    },
    Mistake {
        id: "weights_swapped",
        says: "soft_weight is on the hard term and hard_weight on the soft term",
        formulas: |s| {
            let Formula { soft_weight, hard_weight, .. } = s.right;
            let swapped = Formula { soft_weight: hard_weight, hard_weight: soft_weight, ..s.right };
            let both = s.case.teacher_logits.is_some() && s.case.labels.is_some();
            both.then_some(swapped).into_iter().collect()
        },
    },
    Mistake {
        id: "max_after_exp",
        says: "the maximum is subtracted after the exponential, not before",
        formulas: |s| {
            let mut wrong = Vec::new();
            for subtracted in [Subtracted::Power, Subtracted::Exponent, Subtracted::Logit] {
                let bad = |t| Probs::AfterExp(t, subtracted);
                let hard = HardTerm { student: bad(1.0), factor: 1.0, by_hand: true };
                wrong.extend(s.hard([hard]));
                let (student, factor) = (bad(s.t), s.t * s.t);
                for teacher in [student, Probs::Softmax(s.t)] {
                    let soft = SoftTerm::Match { teacher, student, factor, by_hand: true };
                    wrong.extend(s.soft([soft]));
                    wrong.extend(s.soft_and_hard(soft, hard));
                }
            }
            wrong
        },
    },
    Mistake {
        id: "mse_of_probs",
        says: "squared differences of probabilities in place of a cross-entropy",
        formulas: |s| {
            // With and without ½, mean or sum over the classes, and T².
            let scales = [(s.t, 1.0), (s.t, s.t * s.t), (1.0, 1.0), (1.0, s.t * s.t)];
            let factors = [2.0 / s.classes, 1.0 / s.classes, 2.0, 1.0];
            s.soft(factors.into_iter().flat_map(|factor| {
                scales.map(|(temperature, scale)| {
                    let factor = factor * scale;
                    SoftTerm::Mse { temperature, factor }
                })
            }))
        },
    },
    Mistake {
        id: "raw_logit_matching",
        says: "squared differences of logits that are not centred",
        formulas: |s| {
            if s.right.soft_weight == 0.0 {
                return Vec::new();
            }
            let form = |factor| {
                let soft = SoftTerm::Logits { centred: false, factor };
                Formula { soft, ..s.right }
            };
            [1.0 / s.classes, 2.0 / s.classes, 1.0, 2.0].map(form).into()
        },
    },
    Mistake {
        id: "hard_instead_of_soft",
        says: "the teacher's most probable class in place of its soft targets",
        formulas: |s| {
            let forms = [(s.t, s.t * s.t), (s.t, 1.0), (1.0, 1.0), (1.0, s.t * s.t)];
            s.soft(forms.map(|(temperature, factor)| SoftTerm::Argmax { temperature, factor }))
        },
    },
];

/// The case that wrong formulas are made for, with the right one, from which each departs.
struct Setting<'a> {
    case: &'a CheckCase,
    right: Formula,
    /// T.
    t: f64,
    /// B.
    batch: f64,
    /// C.
    classes: f64,
}

impl Setting<'_> {
    fn new(case: &CheckCase) -> Setting<'_> {
        let (batch, classes) = case.student_logits.dim();
        let right = Formula::right(case);
        let (batch, classes) = (batch as f64, classes as f64);
        Setting { case, right, t: case.temperature, batch, classes }
    }

    /// factor · CE(softmax(v/T), softmax(z/T)).
    fn tempered(&self, factor: f64) -> SoftTerm {
        let probs = Probs::Softmax(self.t);
        SoftTerm::Match { teacher: probs, student: probs, factor, by_hand: false }
    }

    /// `formulas`, where the case has a soft term at a finite T.
    fn at_t(&self, formulas: impl IntoIterator<Item = Formula>) -> Vec<Formula> {
        let soft_term = self.right.soft_weight > 0.0 && self.t.is_finite();
        formulas.into_iter().filter(|_| soft_term).collect()
    }

    /// The right formula with these soft terms, where the case has one at a finite T.
    fn soft(&self, terms: impl IntoIterator<Item = SoftTerm>) -> Vec<Formula> {
        self.at_t(terms.into_iter().map(|soft| Formula { soft, ..self.right }))
    }

    /// The right formula with these hard terms, where the case has one.
    fn hard(&self, terms: impl IntoIterator<Item = HardTerm>) -> Vec<Formula> {
        let formulas = terms.into_iter().map(|hard| Formula { hard, ..self.right });
        formulas.filter(|formula| formula.hard_weight > 0.0).collect()
    }

    /// The right formula with both terms replaced, where the case has both.
    fn soft_and_hard(&self, soft: SoftTerm, hard: HardTerm) -> Vec<Formula> {
        self.at_t(self.hard([hard]).into_iter().map(|formula| Formula { soft, ..formula }))
    }
}
