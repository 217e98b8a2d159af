//! Verifies what another implementation computed for the distillation loss, and names its mistake.
//!
//! A [`CheckCase`] holds logits, targets, T and the weights of the loss of [`crate::engine::loss`],
//! and the loss or its gradient as somebody's code computed them. [`check`] computes both in f64, as
//! they should be and as each of [`MISTAKES`] makes them, and says which of these was found.
//!
//! # What is accepted
//! A result is accepted where each of its elements differs from the right one by no more than what
//! rounding can do to a right implementation: the bound is derived for each element in the module
//! `rounding`, of the precision that is the coarsest of the case's tensors and of its metadata. For
//! one example, with errors δ of the probabilities and their logarithms from there, and the number
//! of roundings σ(n) of a sum of n terms,
//!
//! |δ dᵢ| ≤ (soft_weight·T/B)·(δpᵢ + δqᵢ + u·(9·|qᵢ − pᵢ| + pᵢ + qᵢ·(σ(C) + 5))) + (hard_weight/B)·(the same with p = y, T = 1),
//!
//! |δ CE| ≤ T²·Σ (pᵢ·δ ln qᵢ + |ln qᵢ|·δpᵢ + u·(σ(C) + 1)·pᵢ·|ln qᵢ|),
//!
//! where every term has the weight of its class: one logit of −10⁹ widens nothing.
//!
//! # What is not said
//! A result tells a term that has a weight only where its half is more than rounding may do; else that
//! term could be wrong or missing, and the verdict is [`Verdict::CannotTell`].
//!
//! A test that would accept 0, the negated, the doubled or the halved value as well tells nothing:
//! the verdict is [`Verdict::CannotTell`], and a mistake whose test is such is not named. Of a
//! cross-entropy this is asked of what is left without the entropy of the soft targets, which no
//! student changes.
//!
//! Results agree only if they exclude every known mistake that moves them by an eighth or more: some
//! element must be farther from the mistake's value than rounding may take it in a program that makes
//! that mistake. Such a program's results are all within that, so that they never agree; that the
//! mistake's own test would accept 0 too, where its rounding is as large as its values, is no excuse.
//! Of two mistakes at once, of which there are hundreds, it is asked where rounding has much room, and
//! of those pairs that come as near as the right formula does, each by its own bounds, with a test
//! that tells something. Elsewhere a pair that differs by an eighth fits nothing that is right.
//! Else the verdict is `CannotTell`. A mistake that moves results by less is none in that case, and
//! the message names it.
//!
//! Where loss and gradient are given and this holds of the gradient alone, as of a small KL of many
//! classes in f32, it is the gradient that agrees: [`CheckReport::untold`] and the message say that of
//! the loss nothing can be told. A bound that expects roundings to cancel would tell more, but not of
//! every order of summation. A loss outside its bound is wrong whatever its gradient.

mod case;
mod compare;
mod file;
mod formula;
mod lines;
mod mistake;
mod mistakes;
mod rounding;
mod row;
mod sums;
mod terms;

pub use case::{CheckCase, Divergence, Malformed, Precision, Reduction};
pub use mistake::{List, Mistake};
pub use mistakes::MISTAKES;

use case::Checked;
use compare::{Results, differences, errors};
use formula::Formula;
use lines::{cannot_tell_from, not_finite, out_of_order, sentence, sentences};
use mistake::Aspect;
use row::Rows;
use serde::{Serialize, Serializer};
use std::fmt::{self, Display, Formatter};
use sums::Values;

/// The logits of a large case.
const LARGE: usize = 1 << 20;

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The loss and gradient are right.
    Agrees,
    /// They are those of a known mistake, or of several at once.
    Variant,
    /// They are wrong in a way that is not known.
    Unknown,
    /// They hold NaN or infinity, and what is finite shows no known mistake.
    NotFinite,
    /// They are as they should be, but so would others be.
    CannotTell,
}

/// The answer to a [`CheckCase`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckReport {
    /// The verdict.
    pub verdict: Verdict,
    /// The mistake, with the verdict `variant`; the first of [`CheckReport::mistakes`].
    pub variant: Option<&'static str>,
    /// The mistakes that were made at once, with the verdict `variant`.
    pub mistakes: Vec<&'static str>,
    /// All mistakes whose results are within the tolerance. With the verdict `agrees` the case
    /// cannot tell these from the right formula; at T = 1 there are many.
    pub fits: Vec<&'static str>,
    /// Mistakes that a case of this shape does not show, as those of padding where nothing is padded.
    pub not_shown: Vec<&'static str>,
    /// Where the verdict is of d_logits alone: `loss`, of which nothing can be told.
    pub untold: Option<&'static str>,
    /// The largest difference from the right values, divided by the largest of these: the greater
    /// of loss and gradient. JSON: null where it is not finite.
    #[serde(serialize_with = "finite_or_null")]
    pub max_relative_error: f64,
    /// The largest difference of an element in units in its last place, in the case's precision.
    #[serde(serialize_with = "finite_or_null")]
    pub max_ulp_error: f64,
    /// Where the results differ from the right ones, for people; with the verdicts `variant` and `unknown`.
    pub difference: Option<String>,
    /// All this for people.
    pub message: String,
}

impl Display for CheckReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.message)
    }
}

fn finite_or_null<S: Serializer>(x: &f64, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    x.is_finite().then_some(*x).serialize(serializer)
}

/// Says whether a case's loss and gradient are right, or which known mistake they show.
///
/// # Errors
/// [`Malformed`] as [`CheckCase::validate`].
pub fn check(case: &CheckCase) -> Checked<CheckReport> {
    case.validate()?;
    let rows = Rows::new(case);
    let right = rows.values(&Formula::right(case));
    let undefined = right.losses.iter().chain(&right.d_logits).any(|x| x.is_nan());
    let beyond = |loss: f64| loss == f64::INFINITY && right.losses[1] > case.precision.largest();
    if case.loss.is_some_and(beyond) && right.losses[1].is_finite() && case.d_logits.is_some() {
        // A loss that its format cannot hold says nothing.
        let mut report = check(&CheckCase { loss: None, ..case.clone() })?;
        report.untold = Some("loss");
        report.message +=
            &format!("; the right loss, {:e}, is beyond {}", right.losses[1], case.precision);
        return Ok(report);
    }
    let results = Results::new(case);
    let (max_relative_error, max_ulp_error) = if not_finite(case).is_empty() {
        errors(&results, &right, case.precision)
    } else {
        (f64::INFINITY, f64::INFINITY)
    };
    let answer = match undefined {
        false => Checker { rows: &rows, results, right: &right }.answer(),
        true => Answer::new(
            Verdict::CannotTell,
            Vec::new(),
            "cannot tell: of these logits the right loss is no number, as where the teacher alone \
             excludes a class and the divergence asks the student's for it, or T is beyond what its \
             square can be"
                .into(),
        ),
    };
    let wrong = matches!(answer.verdict, Verdict::Variant | Verdict::Unknown) && !results.none();
    Ok(CheckReport {
        difference: wrong.then(|| differences(&rows, &results, &right)).filter(|it| !it.is_empty()),
        verdict: answer.verdict,
        variant: answer.mistakes.first().map(|mistake| mistake.id),
        mistakes: answer.mistakes.iter().map(|mistake| mistake.id).collect(),
        fits: answer.fits.iter().map(|mistake| mistake.id).collect(),
        not_shown: MISTAKES
            .iter()
            .filter(|mistake| Mistake::together(&[mistake], case).is_empty())
            .map(|mistake| mistake.id)
            .collect(),
        untold: answer.untold,
        max_relative_error,
        max_ulp_error,
        message: answer.message + &out_of_order(case).unwrap_or_default(),
    })
}

/// Mistakes that are made at once.
type Set = Vec<&'static Mistake>;

/// A verdict with its reasons.
struct Answer {
    verdict: Verdict,
    mistakes: Vec<&'static Mistake>,
    fits: Vec<&'static Mistake>,
    untold: Option<&'static str>,
    message: String,
}

impl Answer {
    fn new(verdict: Verdict, fits: Vec<&'static Mistake>, message: String) -> Answer {
        Answer { verdict, mistakes: Vec::new(), fits, untold: None, message }
    }
}

struct Checker<'a> {
    rows: &'a Rows<'a>,
    results: Results<'a>,
    right: &'a Values,
}

impl Checker<'_> {
    fn answer(&self) -> Answer {
        let case = self.rows.case;
        let places = not_finite(case);
        let teachers = of_the_teacher(case);
        if !self.results.none() && self.results.fit(self.right) {
            return match (&places[..], &teachers[..]) {
                ([], []) => self.accepted(),
                ([], _) => {
                    let message = format!(
                        "{} but {}",
                        self.agreement(&self.results),
                        sentences(&teachers, case)
                    );
                    named(teachers, Vec::new(), message)
                }
                _ => self.refused(&places),
            };
        }
        if !self.results.none() {
            let answer = self.named().or_else(|| self.named_in_parts());
            if let Some(mut answer) = answer {
                if !teachers.is_empty() {
                    answer.message += &format!("; and {}", sentences(&teachers, case));
                    answer.mistakes.extend(teachers);
                }
                if !places.is_empty() {
                    answer.message += &format!("; {}: not finite", places.join(" and "));
                }
                return answer;
            }
        }
        if !teachers.is_empty() {
            let nothing = case.d_logits.as_ref().is_some_and(|d| d.iter().all(|d| *d == 0.0));
            let mut mistakes = teachers;
            // What the student lacks, the teacher has.
            let detached = MISTAKES.iter().find(|mistake| mistake.id == "student_detached");
            mistakes.extend(detached.filter(|_| nothing && mistakes[0].id == "teacher_gradient"));
            let rest = if self.results.none() {
                String::new()
            } else {
                format!("; {}", differences(self.rows, &self.results, self.right))
            };
            let message = sentences(&mistakes, case) + &rest;
            return named(mistakes, Vec::new(), message);
        }
        self.refused(&places)
    }

    /// "loss and d_logits agree, within the rounding of f32".
    fn agreement(&self, results: &Results) -> String {
        let what = match (results.loss, results.d_logits) {
            (Some(_), Some(_)) => "loss and d_logits agree",
            (Some(_), None) => "the loss agrees",
            _ => "d_logits agrees",
        };
        format!("{what}, within the rounding of {}", self.rows.case.precision)
    }

    /// The answer to results that fit the right formula.
    fn accepted(&self) -> Answer {
        let both = &self.results;
        let d_logits = Results { loss: None, ..*both };
        let (fits, reason) = match self.agreeing(both) {
            Ok(answer) => return answer,
            Err(untold) => untold,
        };
        if both.loss.is_some()
            && both.d_logits.is_some()
            && let Ok(mut answer) = self.agreeing(&d_logits)
        {
            answer.untold = Some("loss");
            answer.message += &format!("; of the loss nothing can be told: {reason}");
            return answer;
        }
        let too = if both.d_logits.is_none() { "d_logits too, or " } else { "" };
        let message = format!(
            "cannot tell: {reason}; give {too}a case whose student and teacher differ more, at a \
             lower temperature or in a finer precision"
        );
        Answer::new(Verdict::CannotTell, fits, message)
    }

    /// A result, and a term of it whose half is no more than rounding may do: it shows the other alone.
    fn untold_term(&self, results: &Results) -> Option<(&'static str, &'static str)> {
        let right = Formula::right(self.rows.case);
        if right.soft_factor == 0.0 || right.hard_factor == 0.0 {
            return None;
        }
        let alone = [
            ("soft", Formula { hard_factor: 0.0, ..right }),
            ("hard", Formula { soft_factor: 0.0, ..right }),
        ];
        if results.d_logits.is_some() {
            // The first examples tell, but for rare cases. A term that is 0 everywhere, as of a teacher
            // compared with itself, is so whatever its factor.
            let tells = |formula: &Formula, e: usize| {
                let (d, _) = self.rows.gradient(&self.rows.row(e), formula);
                let half = d.iter().map(|d| 0.5 * d.abs());
                let mut pairs = half.clone().zip(self.right.d_errors.row(e));
                (pairs.any(|(half, error)| half > *error), half.sum::<f64>() > 0.0)
            };
            let untold = |formula: &Formula| {
                let mut is_there = false;
                let told = (0..self.rows.case.examples()).any(|e| {
                    let (told, there) = tells(formula, e);
                    is_there |= there;
                    told
                });
                is_there && !told
            };
            if let Some((term, _)) = alone.iter().find(|(_, formula)| untold(formula)) {
                return Some(("d_logits", term));
            }
        }
        results.loss?;
        let losses = self.rows.losses(&alone.map(|(_, formula)| formula));
        let mut terms = alone.iter().zip(losses);
        let untold =
            terms.find(|(_, (l, _))| l[1] != 0.0 && 0.5 * l[1].abs() <= self.right.loss_errors[1]);
        untold.map(|((term, _), _)| ("the loss", *term))
    }

    /// The answer to results that are those of the right formula and of no other; else the mistakes
    /// that they may be of, and why nothing can be told.
    fn agreeing(
        &self,
        results: &Results,
    ) -> std::result::Result<Answer, (Vec<&'static Mistake>, String)> {
        let case = self.rows.case;
        if let Some(what) = results.silent(self.right) {
            let [ce, kl] = self.right.losses;
            let details = if what == "d_logits" {
                format!("rounding in {} may do as much as the whole gradient", case.precision)
            } else if ce == kl {
                let room = self.right.loss_errors[1];
                format!(
                    "rounding in {} may move it by {room:.1e}, and it is {kl:.1e}",
                    case.precision
                )
            } else {
                let rooms = self.right.loss_errors;
                format!(
                    "in {} it is too coarse here to tell anything from its KL part, {kl:.1e}: rounding \
                     may move a KL by {:.1e}, a cross-entropy by {:.1e}",
                    case.precision, rooms[1], rooms[0]
                )
            };
            let reason = format!(
                "{what} would also be accepted if it were 0, negated, doubled or halved: {details}"
            );
            return Err((Vec::new(), reason));
        }
        if let Some((what, term)) = self.untold_term(results) {
            let reason = format!(
                "{what} would also be accepted if its {term} term were halved or left out: rounding in \
                 {} may do as much",
                case.precision
            );
            return Err((Vec::new(), reason));
        }
        let right = Formula::right(case);
        // Of a large case's loss alone, other terms are not computed unless there is much room: one
        // that differs noticeably could be meant only if its own room were much larger.
        let coarse = self.right.loss_errors[1] > self.right.losses[1].abs() / 16.0;
        let few = self.is_large() && results.d_logits.is_none() && !coarse;
        let comparable = |formula: &Formula| !few || same_terms(formula, &right);
        let mut fitting = self.fitting(results, singles(), comparable, false);
        let fits = sets_of(&fitting).concat();
        if !self.is_large() && results.much_room(self.right) {
            fitting.extend(self.fitting(results, pairs(), |_| true, true));
        }
        let other = |(set, formula): &&(Set, Formula)| {
            if formula.is(&right) {
                return false;
            }
            let values = self.rows.values(formula);
            let near = set.len() == 1 || results.distance(&values) <= results.distance(self.right);
            near && results.differ(&values, self.right)
        };
        if let Some((set, _)) = fitting.iter().find(other) {
            let ids: Vec<&str> = set.iter().map(|mistake| mistake.id).collect();
            let says: Vec<&str> = set.iter().map(|mistake| sentence(mistake, case)).collect();
            let reason = format!(
                "within the rounding of {} this is also {}: {}",
                case.precision,
                ids.join(" with "),
                says.join(", and ")
            );
            return Err((fits, reason));
        }
        let message = format!("{}{}", self.agreement(results), cannot_tell_from(&fits));
        Ok(Answer::new(Verdict::Agrees, fits, message))
    }

    /// Sets of mistakes made at once that fit some results, each with every formula that does.
    fn fitting(
        &self,
        results: &Results,
        sets: impl IntoIterator<Item = Set>,
        comparable: impl Fn(&Formula) -> bool,
        shown: bool,
    ) -> Vec<(Set, Formula)> {
        let formulas_of = |set: Set| {
            let formulas = Mistake::together(&set, self.rows.case);
            formulas.into_iter().map(move |formula| (set.clone(), formula))
        };
        let all = sets
            .into_iter()
            .flat_map(formulas_of)
            // A loss alone does not show what its gradient is multiplied by.
            .filter(|(_, f)| results.d_logits.is_some() || f.gradient_factor == 1.0)
            .filter(|(_, formula)| comparable(formula));
        let (sets, formulas): (Vec<Set>, Vec<Formula>) = all.unzip();
        let recognised = results.recognise(self.rows, &formulas, shown);
        let fitting = sets.into_iter().zip(formulas).zip(recognised);
        fitting.filter(|(_, fits)| *fits).map(|(fitting, _)| fitting).collect()
    }

    /// The mistakes that fit some results. Of a large case's loss, those that have the right terms
    /// are tried before others.
    fn mistakes_of(&self, results: &Results) -> Vec<&'static Mistake> {
        let right = Formula::right(self.rows.case);
        let mut fitting = Vec::new();
        if self.is_large() && results.d_logits.is_none() {
            fitting = self.fitting(results, singles(), |f| same_terms(f, &right), true);
        }
        if fitting.is_empty() {
            fitting = self.fitting(results, singles(), |_| true, true);
        }
        sets_of(&fitting).concat()
    }

    fn is_large(&self) -> bool {
        self.rows.case.student_logits.len() > LARGE
    }

    /// The mistake, or those at once, that fit all results.
    fn named(&self) -> Option<Answer> {
        let fits = self.mistakes_of(&self.results);
        if let Some((first, others)) = fits.split_first() {
            let also = cannot_tell_from(others);
            let message = format!("{}{also}", sentences(&[first], self.rows.case));
            return Some(named(vec![first], fits, message));
        }
        // One number of three digits is that of some set always.
        if self.results.d_logits.is_none() && self.rows.case.precision.is_half() {
            return None;
        }
        let mut fitting = self.fitting(&self.results, pairs(), |_| true, true);
        // Three of one number would be found in any number.
        if fitting.is_empty() && self.results.d_logits.is_some() {
            let of = |aspect| MISTAKES.iter().filter(move |mistake| mistake.aspect == aspect);
            let factors = of(Aspect::Temperature)
                .flat_map(|first| of(Aspect::Reduction).map(move |second| [first, second]));
            let threes = factors.flat_map(|[first, second]| {
                MISTAKES.iter().map(move |third| vec![first, second, third])
            });
            fitting = self.fitting(&self.results, threes, |_| true, true);
        }
        let sets = sets_of(&fitting);
        let (mistakes, others) = sets.split_first()?;
        let names = |set: &Vec<&Mistake>| {
            set.iter().map(|mistake| mistake.id).collect::<Vec<_>>().join(" with ")
        };
        let also = match others {
            [] => String::new(),
            _ => {
                let names: Vec<String> = others.iter().map(names).collect();
                format!("; this case cannot tell it from {}", names.join(", "))
            }
        };
        // Two factors are one, which may have another cause.
        let right = Formula::right(self.rows.case);
        let factor = fitting.first().filter(|(_, f)| {
            Formula { soft_factor: f.soft_factor, hard_factor: f.hard_factor, ..right } == *f
        });
        let factor = factor.map_or(String::new(), |(_, f)| {
            let soft = f.soft_factor / right.soft_factor;
            let both = right.hard_factor > 0.0 && f.hard_factor != right.hard_factor;
            let of = if both { "" } else { " in the soft term" };
            format!("; together a factor of {soft:.4}{of}, which may have another cause")
        });
        let message = format!("{}{factor}{also}", sentences(mistakes, self.rows.case));
        let mut fits: Vec<&Mistake> = Vec::new();
        for mistake in sets.iter().flatten() {
            if !fits.iter().any(|known| known.id == mistake.id) {
                fits.push(mistake);
            }
        }
        Some(named(mistakes.clone(), fits, message))
    }

    /// One mistake in the loss, and another or none in the gradient.
    fn named_in_parts(&self) -> Option<Answer> {
        let loss = Results { d_logits: None, ..self.results };
        let d_logits = Results { loss: None, ..self.results };
        if loss.none() || d_logits.none() {
            return None;
        }
        let part = |part: &Results, other: &str, name: &str| {
            let fits = self.mistakes_of(part);
            let (first, others) = fits.split_first()?;
            let also = cannot_tell_from(others);
            let says = sentences(&[first], self.rows.case);
            let message = format!("{name}, though {other} agrees: {says}{also}");
            Some(named(vec![first], fits, message))
        };
        match (loss.fit(self.right), d_logits.fit(self.right)) {
            (true, _) => part(&d_logits, "the loss", "d_logits"),
            (_, true) => part(&loss, "d_logits", "the loss"),
            _ => {
                let of_d = self.mistakes_of(&d_logits);
                let second = of_d.first()?;
                let of_loss = self.mistakes_of(&loss);
                let first = of_loss.first()?;
                let message = format!(
                    "the loss: {}; d_logits: {}",
                    sentences(&[first], self.rows.case),
                    sentences(&[second], self.rows.case)
                );
                let fits = of_loss.iter().chain(&of_d).copied().collect();
                Some(named(vec![*first, *second], fits, message))
            }
        }
    }

    /// The answer to results that are not right and show no known mistake.
    fn refused(&self, places: &[String]) -> Answer {
        let case = self.rows.case;
        let answer = |verdict, message| Answer::new(verdict, Vec::new(), message);
        if !places.is_empty() {
            let infinite = if self.right.losses[1].is_infinite() {
                "; the right loss is infinite too: the student excludes a class of the teacher's"
            } else {
                ""
            };
            let rest = match self.results.none() {
                true => String::new(),
                false if self.results.fit(self.right) => "; what is finite is right".into(),
                false => format!("; {}", differences(self.rows, &self.results, self.right)),
            };
            let message = format!(
                "{}: not finite. The usual causes: log_target forgotten, or the arguments of F.kl_div \
                 exchanged, so that the logarithm of a logarithm is taken; or 0·log 0, from the logarithm of a softmax that underflows or \
                 of an excluded class (use log_softmax, and leave excluded classes out){infinite}{rest}",
                places.join(" and ")
            );
            return answer(Verdict::NotFinite, message);
        }
        let differences = differences(self.rows, &self.results, self.right);
        let wrong = self.results.difference(self.right).map_or(0, |(example, _)| example);
        let half = coarser(case, wrong).map_or(String::new(), |precision| {
            format!(
                "; so near would be right in {precision}: if it was computed in it, say so (the \
                 metadata `precision`, check_loss's dtype); else look for what differs a little"
            )
        });
        answer(Verdict::Unknown, format!("none of the known mistakes: {differences}{half}"))
    }
}

fn singles() -> impl Iterator<Item = Set> {
    MISTAKES.iter().map(|mistake| vec![mistake])
}

fn pairs() -> impl Iterator<Item = Set> {
    let after = |i: usize| MISTAKES[i + 1..].iter();
    MISTAKES.iter().enumerate().flat_map(move |(i, first)| after(i).map(move |m| vec![first, m]))
}

/// Each set of what fits once.
fn sets_of(fitting: &[(Set, Formula)]) -> Vec<Set> {
    let mut sets: Vec<Set> = fitting.iter().map(|(set, _)| set.clone()).collect();
    sets.dedup_by(|a, b| a.iter().zip(b.iter()).all(|(a, b)| a.id == b.id));
    sets
}

fn named(mistakes: Vec<&'static Mistake>, fits: Vec<&'static Mistake>, message: String) -> Answer {
    let fits = if fits.is_empty() { mistakes.clone() } else { fits };
    Answer { mistakes, ..Answer::new(Verdict::Variant, fits, message) }
}

/// Whether two formulas have the same terms, whatever their factors.
fn same_terms(a: &Formula, b: &Formula) -> bool {
    a.soft == b.soft && a.hard == b.hard
}

/// The mistakes about the teacher, which neither loss nor d_logits shows.
fn of_the_teacher(case: &CheckCase) -> Vec<&'static Mistake> {
    let gradient = case.d_teacher.as_ref().is_some_and(|d| d.iter().any(|d| *d != 0.0));
    let differs = match (&case.teacher_logits, &case.teacher_logits_again) {
        (Some(first), Some(again)) => first != again,
        _ => false,
    };
    let shown = [("teacher_gradient", gradient), ("teacher_in_training", differs)];
    let shows = |mistake: &&Mistake| shown.contains(&(mistake.id, true));
    MISTAKES.iter().filter(shows).collect()
}

/// The coarser precision in which a case would be right, whose example `wrong` is not.
fn coarser(case: &CheckCase, wrong: usize) -> Option<Precision> {
    let precisions = [Precision::F32, Precision::F16, Precision::Bf16];
    precisions.into_iter().filter(|coarser| *coarser < case.precision).find(|&precision| {
        let half = CheckCase { precision, rounded_logits: true, ..case.clone() };
        let (rows, results, right) = (Rows::new(&half), Results::new(&half), Formula::right(&half));
        results.fit_at(&rows, wrong, &right) && {
            let right = rows.values(&right);
            results.fit(&right) && results.silent(&right).is_none()
        }
    })
}
