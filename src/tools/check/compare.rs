//! How near a case's results are to those of a formula.

use super::case::CheckCase;
use super::formula::Formula;
use super::rounding::Precision;
use super::row::{Row, Rows};
use super::sums::Values;
use ndarray::{Array2, Zip};

/// What a result is multiplied by to see whether a test refuses anything.
const OTHERS: [f64; 4] = [0.0, -1.0, 2.0, 0.5];

/// A mistake that moves a result by less than this share of it is none in the case at hand.
const NOTICEABLE: f64 = 0.125;

/// The results of a case that can be compared: those that are finite, or are in part.
#[derive(Clone, Copy)]
pub struct Results<'a> {
    pub loss: Option<f64>,
    pub d_logits: Option<&'a Array2<f64>>,
}

impl<'a> Results<'a> {
    pub fn new(case: &'a CheckCase) -> Results<'a> {
        let finite = |d: &&Array2<f64>| d.iter().any(|d| d.is_finite());
        Results {
            loss: case.loss.filter(|loss| loss.is_finite()),
            d_logits: case.d_logits.as_ref().filter(finite),
        }
    }

    pub fn none(&self) -> bool {
        self.loss.is_none() && self.d_logits.is_none()
    }

    /// Whether these are a formula's.
    pub fn fit(&self, values: &Values) -> bool {
        self.loss.is_none_or(|loss| loss_fits(loss, values).is_some())
            && self.d_logits.is_none_or(|d| gradient_fits(d, values, 1.0))
    }

    /// Where d_logits first differs.
    pub fn difference(&self, values: &Values) -> Option<(usize, usize)> {
        let d = self.d_logits?;
        let differs = |&at: &(usize, usize)| !near(d[at], values.d_logits[at], values.d_errors[at]);
        d.indexed_iter().map(|(at, _)| at).find(differs)
    }

    /// Whether example `e` of d_logits, if there is one, is that of a formula.
    pub fn fit_at(&self, rows: &Rows, e: usize, formula: &Formula) -> bool {
        self.d_logits.is_none_or(|d| example_fits(d, &rows.row(e), formula))
    }

    /// Which of the results that fit these values would fit as well if they were 0, negated,
    /// doubled or halved: they tell nothing.
    pub fn silent(&self, values: &Values) -> Option<&'static str> {
        let gradient = |d: &Array2<f64>| OTHERS.iter().any(|&k| gradient_fits(d, values, k));
        // A cross-entropy is as far from 0 as its entropy; what the student adds must be seen.
        let loss = |loss| {
            loss_fits(loss, values).is_some_and(|room| {
                values.losses[1].abs() * 0.5 <= room || loss_is_any(loss, values)
            })
        };
        if self.d_logits.is_some_and(gradient) {
            return Some("d_logits");
        }
        self.loss.is_some_and(loss).then_some("the loss")
    }

    /// Whether one of the results, at least, would not fit these values if it were 0, negated,
    /// doubled or halved: it shows something.
    fn tell(&self, values: &Values) -> bool {
        let gradient = |d: &Array2<f64>| !OTHERS.iter().any(|&k| gradient_fits(d, values, k));
        self.d_logits.is_some_and(gradient)
            || self.loss.is_some_and(|loss| !loss_is_any(loss, values))
    }

    /// The largest distance from these values, by its bound.
    pub fn distance(&self, values: &Values) -> f64 {
        let by_bound = |found: f64, x: f64, error: f64| (found - x).abs() / error;
        let of_loss = |loss| {
            let form = |i: usize| by_bound(loss, values.losses[i], values.loss_errors[i]);
            form(0).min(form(1))
        };
        let of_d = |d: &Array2<f64>| {
            let pairs = d.iter().zip(&values.d_logits).zip(&values.d_errors);
            let finite = pairs.filter(|((d, _), _)| d.is_finite());
            finite.map(|((d, x), error)| by_bound(*d, *x, *error)).fold(0.0, f64::max)
        };
        self.loss.map_or(0.0, of_loss).max(self.d_logits.map_or(0.0, of_d))
    }

    /// Whether rounding may do so much to these values that others of about the same room might fit
    /// which differ noticeably: twice the room is not far below that share.
    pub fn much_room(&self, values: &Values) -> bool {
        let much = |room: f64, size: f64| room > size * (NOTICEABLE / 4.0);
        let sum = |of: &Array2<f64>| of.iter().map(|x| x.abs()).sum::<f64>();
        self.loss.is_none_or(|_| much(values.loss_errors[1], values.losses[1].abs()))
            && self.d_logits.is_none_or(|_| much(sum(&values.d_errors), sum(&values.d_logits)))
    }

    /// Whether these values differ noticeably from the right ones in what is compared.
    pub fn differ(&self, values: &Values, right: &Values) -> bool {
        let noticeable = |off: f64, size: f64| off > NOTICEABLE * size;
        let d_logits = || {
            let (mut off, mut size) = (0.0, 0.0);
            Zip::from(&values.d_logits).and(&right.d_logits).for_each(|x: &f64, right| {
                off += (x - right).abs();
                size += right.abs();
            });
            noticeable(off, size)
        };
        // What may be any number, or infinite, differs.
        let loss = || {
            let off = (values.losses[1] - right.losses[1]).abs();
            values.loss_errors[1].is_infinite() || noticeable(off, right.losses[1].abs())
        };
        self.d_logits.is_some() && d_logits() || self.loss.is_some() && loss()
    }

    /// Which of `formulas` these results may be of; with `shown`, of those that they show.
    pub fn recognise(&self, rows: &Rows, formulas: &[Formula], shown: bool) -> Vec<bool> {
        let mut alive: Vec<usize> = (0..formulas.len()).collect();
        if let Some(d) = self.d_logits {
            for e in probes(rows.case) {
                let row = rows.row(e);
                alive.retain(|&i| example_fits(d, &row, &formulas[i]));
            }
        }
        let survivors: Vec<Formula> = alive.iter().map(|&i| formulas[i]).collect();
        let losses = match self.loss {
            Some(_) => rows.losses(&survivors),
            None => vec![([0.0; 2], [0.0; 2]); survivors.len()],
        };
        let mut known: Vec<(Formula, bool)> = Vec::new();
        let mut recognised = vec![false; formulas.len()];
        for (&i, (losses, loss_errors)) in alive.iter().zip(losses) {
            if let Some((_, answer)) = known.iter().find(|(formula, _)| formula.is(&formulas[i])) {
                recognised[i] = *answer;
                continue;
            }
            let none = Array2::zeros((0, 0));
            let mut values = Values { losses, loss_errors, d_logits: none.clone(), d_errors: none };
            let loss_alone = Results { d_logits: None, ..*self };
            let mut answer = loss_alone.fit(&values);
            if answer && self.d_logits.is_some() {
                values = rows.values(&formulas[i]);
                answer = self.fit(&values);
            }
            answer &= !shown || self.tell(&values);
            recognised[i] = answer;
            known.push((formulas[i], answer));
        }
        recognised
    }
}

/// Some examples that tell formulas apart: the first that counts, the last, and one that does not.
fn probes(case: &CheckCase) -> Vec<usize> {
    let counts = |&e: &usize| case.counts(e);
    let mut probes: Vec<usize> = (0..case.examples()).find(counts).into_iter().collect();
    probes.extend((0..case.examples()).rev().find(counts).filter(|last| !probes.contains(last)));
    probes.extend((0..case.examples()).find(|e| !case.counts(*e)));
    probes
}

/// Whether an element is that of a formula; one that is not finite says nothing of it.
fn near(found: f64, expected: f64, error: f64) -> bool {
    !found.is_finite() || within(found, expected, error)
}

/// Whether a number is within the error of what is expected. An infinite one, whose error is infinite
/// too, is not what a finite one was meant to be.
fn within(found: f64, expected: f64, error: f64) -> bool {
    expected.is_finite() && (found - expected).abs() <= error
}

/// Whether one example's gradient is that of a formula.
fn example_fits(d: &Array2<f64>, row: &Row, formula: &Formula) -> bool {
    let (values, errors) = row.rows.gradient(row, formula);
    let found = d.row(row.e);
    let mut pairs = found.iter().zip(&values).zip(&errors);
    pairs.all(|((&d, &x), &error)| near(d, x, error))
}

fn gradient_fits(d: &Array2<f64>, values: &Values, factor: f64) -> bool {
    let mut pairs = d.iter().zip(&values.d_logits).zip(&values.d_errors);
    pairs.all(|((d, x), error)| near(factor * d, *x, *error))
}

/// The room of the form, cross-entropy or divergence, that a loss has.
fn loss_fits(loss: f64, values: &Values) -> Option<f64> {
    let fits = |i: usize| within(loss, values.losses[i], values.loss_errors[i]);
    // The divergence first: its room is for what is left without the entropy.
    [1, 0].into_iter().find(|&i| fits(i)).map(|i| values.loss_errors[i])
}

fn loss_is_any(loss: f64, values: &Values) -> bool {
    OTHERS.iter().any(|factor| loss_fits(factor * loss, values).is_some())
}

/// The largest relative error of loss and gradient, each by the largest value of its own.
pub fn errors(results: &Results, right: &Values, precision: Precision) -> (f64, f64) {
    let (mut relative, mut ulp) = (0.0f64, 0.0f64);
    let mut worse = |error: f64, size: f64, value: f64| {
        // A NaN is the largest of errors, and max would drop it.
        let error = if error.is_nan() { f64::INFINITY } else { error };
        relative = relative.max(if error == 0.0 { 0.0 } else { error / size });
        ulp = ulp.max(error / precision.ulp(value));
    };
    if let Some(loss) = results.loss {
        let off = right.losses.map(|right| (loss - right).abs());
        let value = if off[1] < off[0] { right.losses[1] } else { right.losses[0] };
        worse((loss - value).abs(), value.abs(), value);
    }
    if let Some(d_logits) = results.d_logits {
        let largest = right.d_logits.iter().fold(0.0, |m: f64, d| m.max(d.abs()));
        for (found, right) in d_logits.iter().zip(&right.d_logits) {
            worse((found - right).abs(), largest, *right);
        }
    }
    (relative, ulp)
}

/// Where results differ, and the factors of the terms that they are made of.
pub fn differences(rows: &Rows, results: &Results, right: &Values) -> String {
    let case = rows.case;
    let mut parts = Vec::new();
    if let Some(d) = results.d_logits
        && let Some(at) = results.difference(right)
    {
        parts.push(format!(
            "the first difference is {} = {:e}, expected {:e} ± {:.0e}",
            case.place("d_logits", at),
            d[at],
            right.d_logits[at],
            right.d_errors[at],
        ));
        if d.iter().all(|d| *d == 0.0) {
            parts.push("d_logits is 0 everywhere: no gradient reaches the student".into());
        }
    }
    let wrong_loss = results.loss.filter(|loss| loss_fits(*loss, right).is_none());
    if let Some(loss) = wrong_loss {
        let [ce, kl] = right.losses;
        let or = if kl == ce { String::new() } else { format!(" or, as KL, {kl:e}") };
        let room = right.loss_errors[if kl == ce { 1 } else { 0 }];
        parts.push(format!("loss = {loss:e}, expected {ce:e}{or} ± {room:.0e}"));
        if kl != 0.0 && (loss.abs() <= right.loss_errors[1].min(1e-3) || loss == 0.0) {
            parts.push(
                "a loss of 0 names nothing: the teacher compared with itself, or no term at all"
                    .into(),
            );
        }
    }
    parts.extend(factors(rows, results, right));
    parts.join("; ")
}

/// The factors a and b of d_logits = a·(soft part) + b·(hard part), by least squares, if d_logits
/// is that; or of the loss alone.
fn factors(rows: &Rows, results: &Results, right: &Values) -> Option<String> {
    let (case, formula) = (rows.case, Formula::right(rows.case));
    let soft_alone = Formula { hard_factor: 0.0, ..formula };
    let hard_alone = Formula { soft_factor: 0.0, ..formula };
    let there = [formula.soft_factor > 0.0, formula.hard_factor > 0.0];
    let Some(found) = results.d_logits.filter(|d| d.iter().any(|d| *d != 0.0)) else {
        return loss_factor(results.loss?, right, there);
    };
    if found.iter().any(|d| !d.is_finite()) {
        return None;
    }
    let (soft, hard) = (rows.values(&soft_alone), rows.values(&hard_alone));
    let dot = |a: &Array2<f64>, b: &Array2<f64>| (a * b).sum();
    let (s, h) = (&soft.d_logits, &hard.d_logits);
    let (ss, hh, sh) = (dot(s, s), dot(h, h), dot(s, h));
    let (sf, hf) = (dot(s, found), dot(h, found));
    let (a, b) = match (ss > 0.0, hh > 0.0) {
        (true, true) => {
            let determinant = ss * hh - sh * sh;
            ((sf * hh - hf * sh) / determinant, (hf * ss - sf * sh) / determinant)
        }
        (true, false) => (sf / ss, 0.0),
        (false, true) => (0.0, hf / hh),
        (false, false) => return None,
    };
    let made_of = |a: f64, b: f64| Values {
        losses: [0, 1].map(|i| a * soft.losses[i] + b * hard.losses[i]),
        loss_errors: [0, 1].map(|i| a.abs() * soft.loss_errors[i] + b.abs() * hard.loss_errors[i]),
        d_logits: a * s + b * h,
        d_errors: a.abs() * &soft.d_errors + b.abs() * &hard.d_errors,
    };
    let whole = made_of(a, b);
    if !(a.is_finite() && b.is_finite() && gradient_fits(found, &whole, 1.0)) {
        return None;
    }
    let mut parts = Vec::new();
    if ss > 0.0 {
        parts.push(format!("{a:.6} times its soft part"));
    }
    if hh > 0.0 {
        parts.push(format!("{b:.6} times its hard part"));
    }
    let alike = results.loss.is_some_and(|loss| loss_fits(loss, &whole).is_some());
    let loss_is_right = results.loss.is_none_or(|loss| loss_fits(loss, right).is_some());
    let t = case.temperature;
    let count = case.count() as f64;
    let is = |x: f64| (a / x - 1.0).abs() < 1e-4;
    let hint = if alike && case.length == 1 && a > 1.5 && is(a.round()) && count % a.round() == 0.0
    {
        format!(
            ", as where tokens are summed and divided by their sequences: 'batchmean' over [{}, {}, {}]",
            count / a.round(),
            a.round(),
            case.classes()
        )
    } else if !alike && loss_is_right && ss > 0.0 && t != 1.0 && is(t) && case.length as f64 != t {
        ": the loss carries T², its gradient only T, because softmax(z/T) has the derivative 1/T"
            .into()
    } else {
        String::new()
    };
    let and = if alike { ", and so is the loss" } else { "" };
    Some(format!("d_logits is {}{and}{hint}", parts.join(" and ")))
}

/// A constant factor of a loss, which is that of its only term if it has one.
fn loss_factor(loss: f64, right: &Values, [soft, hard]: [bool; 2]) -> Option<String> {
    let part = match (soft, hard) {
        (true, false) => "its soft part",
        (false, true) => "its hard part",
        _ => "the right one",
    };
    let factor = |i: usize| loss / right.losses[i];
    let (ce, kl) = (factor(0), factor(1));
    if loss == 0.0 || !ce.is_finite() || loss.abs() <= right.loss_errors[1] {
        return None;
    }
    let or = if right.losses[0] == right.losses[1] || !kl.is_finite() {
        String::new()
    } else {
        format!(" or, as KL, {kl:.6} times")
    };
    Some(format!("the loss is {ce:.6} times {part}{or}"))
}
