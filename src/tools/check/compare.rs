//! How near a case's results are to those of a formula.

use super::case::{CheckCase, place};
use super::formula::{Formula, Values};
use ndarray::Array2;

/// How far results may be from their values; see the module's documentation.
pub struct Tolerance {
    relative: f64,
    absolute: f64,
}

impl Tolerance {
    pub fn new(case: &CheckCase) -> Tolerance {
        let (batch, classes) = case.student_logits.dim();
        let logits = case.student_logits.iter().chain(case.teacher_logits.iter().flatten());
        let largest = logits.fold(0.0, |m: f64, z| m.max(z.abs()));
        let t = case.temperature;
        let kappa = (classes + batch + 16) as f64 + 8.0 * largest * (1.0 / t).max(1.0);
        let scale = if t.is_finite() { (t * t).max(1.0) } else { 1.0 };
        Tolerance {
            relative: kappa * case.precision.unit_roundoff(),
            absolute: kappa * case.precision.smallest() * scale,
        }
    }

    pub fn of(&self, size: f64) -> f64 {
        self.relative * size + self.absolute
    }

    pub fn holds(&self, found: f64, expected: f64, size: f64) -> bool {
        if expected.is_finite() {
            return (found - expected).abs() <= self.of(size);
        }
        found == expected || (found.is_nan() && expected.is_nan())
    }
}

/// Which of the case's results are those of a formula; `None` for those the case does not have.
#[derive(Clone, Copy)]
pub struct Fit {
    pub loss: Option<bool>,
    pub d_logits: Option<bool>,
}

impl Fit {
    pub fn new(case: &CheckCase, values: &Values, tolerance: &Tolerance) -> Fit {
        let loss = |found: f64| {
            values.losses.iter().any(|&loss| tolerance.holds(found, loss, values.loss_size))
        };
        Fit {
            loss: case.loss.map(loss),
            d_logits: case
                .d_logits
                .as_ref()
                .map(|d| first_difference(d, values, tolerance).is_none()),
        }
    }

    pub fn all(self) -> bool {
        self.loss != Some(false) && self.d_logits != Some(false)
    }
}

/// The first element [row, column] of a gradient that is not that of `values`.
fn first_difference(
    d_logits: &Array2<f64>,
    values: &Values,
    tolerance: &Tolerance,
) -> Option<(usize, usize)> {
    let differs = |at: &(usize, usize)| {
        !tolerance.holds(d_logits[*at], values.d_logits[*at], values.sizes[*at])
    };
    d_logits.indexed_iter().map(|(at, _)| at).find(differs)
}

/// The largest relative and ULP error of loss and gradient.
pub fn errors(case: &CheckCase, right: &Values) -> (f64, f64) {
    let (mut relative, mut ulp) = (0.0f64, 0.0f64);
    let mut worse = |error: f64, size: f64, value: f64| {
        // A NaN is the largest of errors, and max would drop it.
        let error = if error.is_nan() { f64::INFINITY } else { error };
        relative = relative.max(if error == 0.0 { 0.0 } else { error / size });
        ulp = ulp.max(error / case.precision.ulp(value));
    };
    if let Some(loss) = case.loss {
        let off = right.losses.map(|right| (loss - right).abs());
        let value = if off[1] < off[0] { right.losses[1] } else { right.losses[0] };
        worse((loss - value).abs(), value.abs(), value);
    }
    if let Some(d_logits) = &case.d_logits {
        let largest = right.d_logits.iter().fold(0.0, |m: f64, d| m.max(d.abs()));
        for (found, right) in d_logits.iter().zip(&right.d_logits) {
            worse((found - right).abs(), largest, *right);
        }
    }
    (relative, ulp)
}

/// Where results differ, and the factors of the two terms if the gradient is made of them.
pub fn differences(case: &CheckCase, right: &Values, tolerance: &Tolerance) -> String {
    let mut parts = Vec::new();
    if let Some(at) = case.d_logits.as_ref().and_then(|d| first_difference(d, right, tolerance)) {
        let found = case.d_logits.as_ref().map_or(f64::NAN, |d| d[at]);
        parts.push(format!(
            "the first difference is {} = {found:e}, expected {:e} ± {:.0e}",
            place("d_logits", at),
            right.d_logits[at],
            tolerance.of(right.sizes[at]),
        ));
    }
    let [ce, kl] = right.losses;
    if let Some(loss) = case.loss
        && ![ce, kl]
            .into_iter()
            .any(|right_loss| tolerance.holds(loss, right_loss, right.loss_size))
    {
        let or = if kl == ce { String::new() } else { format!(" or, as KL, {kl:e}") };
        let room = tolerance.of(right.loss_size);
        parts.push(format!("loss = {loss:e}, expected {ce:e}{or} ± {room:.0e}"));
    }
    parts.extend(factors(case, tolerance));
    parts.join("; ")
}

/// The factors a and b of d_logits = a·(soft part) + b·(hard part), by least squares, if d_logits
/// is that within the tolerance.
fn factors(case: &CheckCase, tolerance: &Tolerance) -> Option<String> {
    let found = case.d_logits.as_ref()?;
    let right = Formula::right(case);
    let part =
        |soft_weight, hard_weight| Formula { soft_weight, hard_weight, ..right }.values(case);
    let (soft, hard) = (part(case.soft_weight, 0.0), part(0.0, case.hard_weight));
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
    let made_of = Values {
        losses: [0.0; 2],
        loss_size: 0.0,
        d_logits: a * s + b * h,
        sizes: a.abs() * &soft.sizes + b.abs() * &hard.sizes,
    };
    if !(a.is_finite() && b.is_finite()) || first_difference(found, &made_of, tolerance).is_some() {
        return None;
    }
    let mut parts = Vec::new();
    if ss > 0.0 {
        parts.push(format!("{a:.6} times its soft part"));
    }
    if hh > 0.0 {
        parts.push(format!("{b:.6} times its hard part"));
    }
    let t = case.temperature;
    let hint = if ss > 0.0 && t != 1.0 && (a / t - 1.0).abs() < 1e-4 {
        ": the loss carries T², its gradient only T, because softmax(z/T) has the derivative 1/T"
    } else {
        ""
    };
    Some(format!("d_logits is {}{hint}", parts.join(" and ")))
}
