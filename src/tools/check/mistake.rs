//! What a mistake is, and what the known ones are made from.

use super::case::{CheckCase, Reduction};
use super::formula::{Examples, Formula, HardTerm, Probs, SoftTerm};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// A mistake in the distillation loss.
#[derive(Serialize)]
pub struct Mistake {
    /// Its name in results.
    pub id: &'static str,
    /// What the code does.
    pub says: &'static str,
    /// What it computes so; z, v, y: logits of student and teacher, label; p = softmax(v/T),
    /// q = softmax(z/T); N examples, C classes, B sequences of L tokens.
    pub formula: &'static str,
    /// The corrected line, in PyTorch.
    pub fix: &'static str,
    /// What it changes. Two mistakes may be made at once where they change different things.
    #[serde(skip)]
    pub(super) aspect: Aspect,
    /// What it makes of a loss; nothing where the case could not show it.
    #[serde(skip)]
    pub(super) forms: fn(&Setting, Formula) -> Vec<Formula>,
}

/// A part of the loss.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Aspect {
    Temperature,
    Reduction,
    Soft,
    Hard,
    Weights,
    /// Nothing of the loss or its gradient by z.
    Teacher,
}

impl Mistake {
    /// The wrong losses that one or several may lead to together in this case; none where two change the same thing.
    pub(super) fn together(mistakes: &[&Mistake], case: &CheckCase) -> Vec<Formula> {
        let repeated = |i: usize| mistakes[..i].iter().any(|m| m.aspect == mistakes[i].aspect);
        if (0..mistakes.len()).any(|i| mistakes[i].aspect == Aspect::Teacher || repeated(i)) {
            return Vec::new();
        }
        let setting = Setting::new(case);
        mistakes.iter().fold(vec![setting.right], |formulas, mistake| {
            formulas.into_iter().flat_map(|formula| (mistake.forms)(&setting, formula)).collect()
        })
    }
}

/// All mistakes, for people and as JSON.
#[derive(Serialize)]
pub struct List {
    /// All that are known.
    pub mistakes: &'static [Mistake],
}

impl Display for List {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for Mistake { id, says, formula, fix, .. } in self.mistakes {
            writeln!(f, "{id}: {says}\n    wrong   {formula}\n    right   {fix}")?;
        }
        Ok(())
    }
}

/// The case that wrong formulas are made for, with the right one, from which each departs.
pub struct Setting<'a> {
    pub case: &'a CheckCase,
    pub right: Formula,
    /// T.
    pub t: f64,
    /// N.
    pub examples: f64,
    /// B.
    pub batch: f64,
    /// L.
    pub length: f64,
    /// C.
    pub classes: f64,
    /// Examples that count.
    pub count: f64,
    /// What sums over examples are divided by.
    pub divisor: f64,
}

impl Setting<'_> {
    fn new(case: &CheckCase) -> Setting<'_> {
        let count = case.count() as f64;
        let summed = case.reduction == Reduction::Sum;
        Setting {
            case,
            right: Formula::right(case),
            t: case.temperature,
            examples: case.examples() as f64,
            batch: case.batch() as f64,
            length: case.length as f64,
            classes: case.classes() as f64,
            count,
            divisor: if summed { 1.0 } else { count },
        }
    }

    /// Whether some examples do not count.
    pub fn padded(&self) -> bool {
        self.count < self.examples
    }

    /// CE(softmax(v/T), softmax(z/T)).
    pub fn tempered(&self) -> SoftTerm {
        let probs = Probs::Softmax(self.t);
        SoftTerm::Match { teacher: probs, student: probs }
    }

    /// `formulas`, where the case has a soft term at a finite T.
    pub fn at_t(&self, formulas: impl IntoIterator<Item = Formula>) -> Vec<Formula> {
        let soft_term = self.right.soft_factor > 0.0 && self.t.is_finite();
        formulas.into_iter().filter(|_| soft_term).collect()
    }

    /// `from` with its soft term multiplied.
    pub fn scaled(&self, from: Formula, factors: impl IntoIterator<Item = f64>) -> Vec<Formula> {
        let scaled = |factor| Formula { soft_factor: from.soft_factor * factor, ..from };
        self.at_t(factors.into_iter().map(scaled))
    }

    /// `forms` and, where some examples do not count, the same with these in the sum of the soft term.
    pub fn also_padded(&self, mut forms: Vec<Formula>) -> Vec<Formula> {
        if self.padded() {
            let all = |f: &Formula| Formula { soft_examples: Examples::All, ..*f };
            forms.extend(forms.clone().iter().map(all));
        }
        forms
    }

    /// `from` with each of these soft terms and factors, unless its soft term is another's already.
    pub fn soft(
        &self,
        from: Formula,
        terms: impl IntoIterator<Item = (SoftTerm, f64)>,
    ) -> Vec<Formula> {
        let untouched = from.soft == self.right.soft;
        let form =
            |(soft, factor)| Formula { soft, soft_factor: from.soft_factor * factor, ..from };
        self.at_t(terms.into_iter().filter(|_| untouched).map(form))
    }

    /// `from` with each of these hard terms and factors, where it has one that is untouched.
    pub fn hard(
        &self,
        from: Formula,
        terms: impl IntoIterator<Item = (HardTerm, f64)>,
    ) -> Vec<Formula> {
        let there = from.hard_factor > 0.0 && from.hard == self.right.hard;
        let form =
            |(hard, factor)| Formula { hard, hard_factor: from.hard_factor * factor, ..from };
        terms.into_iter().filter(|_| there).map(form).collect()
    }

    /// `from` with padding in the sums, in the divisors, or in both, of the soft term or of both.
    pub fn with_padding(&self, from: Formula) -> Vec<Formula> {
        if !self.padded() {
            return Vec::new();
        }
        let share = self.count / self.examples;
        let mut forms = Vec::new();
        for (examples, factor) in
            [(Examples::All, share), (Examples::Counted, share), (Examples::All, 1.0)]
        {
            let soft =
                Formula { soft_examples: examples, soft_factor: from.soft_factor * factor, ..from };
            let hard = from.hard_factor * factor;
            let both = Formula { hard_examples: examples, hard_factor: hard, ..soft };
            let divided = Formula { hard_factor: hard, ..soft };
            forms.extend([soft, both, divided]);
            // The hard term alone.
            if from.hard_factor > 0.0 {
                forms.push(Formula { hard_examples: examples, hard_factor: hard, ..from });
            }
        }
        forms
    }
}
