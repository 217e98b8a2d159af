//! Verifies what another implementation computed for the distillation loss, and names its mistake.
//!
//! A [`CheckCase`] holds logits, targets, T and the weights of the loss of [`crate::engine::loss`],
//! and the loss or its gradient as somebody's code computed them. [`check`] computes both in f64, as
//! they should be and as each of [`MISTAKES`] makes them, and says which of these was found.
//!
//! # Tolerance
//! Every number here is a sum of terms tᵢ of exponentials. A computation with unit roundoff ε
//! (2⁻²⁴ for f32, 2⁻⁵³ for f64; that of the coarsest tensor of the case) is off by at most
//! κ·ε·Σ|tᵢ|, in any order of summation: κ = C + B + 16 + 8·max(|z|, |v|)·max(1, 1/T), where the C
//! and B terms of the sums take a rounding each, an exponent is off by at most 4ε of z/T and the
//! maximum subtracted from it, in student and teacher, and 16 is for the remaining operations. To
//! that, κ times the smallest normal number allows for underflow. Σ|tᵢ| is computed with the value.
//! Where two formulas differ by less than this, both are said to fit.

mod case;
mod compare;
mod formula;
mod mistakes;

pub use case::{CheckCase, Malformed, Precision, Reduction};
pub use mistakes::{MISTAKES, Mistake};

use case::Checked;
use compare::{Fit, Tolerance, differences, errors};
use formula::Formula;
use serde::{Serialize, Serializer};
use std::fmt::{self, Display, Formatter};

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The loss and gradient are right.
    Agrees,
    /// They are those of a known mistake.
    Variant,
    /// They are wrong in a way that is not known.
    Unknown,
}

/// The answer to a [`CheckCase`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckReport {
    /// The verdict.
    pub verdict: Verdict,
    /// The mistake, with the verdict `variant`; the first of [`CheckReport::fits`].
    pub variant: Option<&'static str>,
    /// All mistakes whose results are within the tolerance. With the verdict `agrees` the case
    /// cannot tell these from the right formula; at T = 1 there are many.
    pub fits: Vec<&'static str>,
    /// The largest difference from the right values, divided by the largest of these: the greater
    /// of loss and gradient. JSON: null where it is not finite.
    #[serde(serialize_with = "finite_or_null")]
    pub max_relative_error: f64,
    /// The largest difference of an element in units in its last place, in the case's precision.
    #[serde(serialize_with = "finite_or_null")]
    pub max_ulp_error: f64,
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
    let tolerance = Tolerance::new(case);
    let right = Formula::right(case).values(case);
    let agreement = Fit::new(case, &right, &tolerance);
    let wrong: Vec<(&Mistake, Vec<Fit>)> = MISTAKES
        .iter()
        .map(|mistake| {
            let fit = |formula: Formula| Fit::new(case, &formula.values(case), &tolerance);
            (mistake, mistake.formulas(case).into_iter().map(fit).collect())
        })
        .collect();
    let which = |fits: &dyn Fn(Fit) -> bool| -> Vec<&Mistake> {
        let shown = wrong.iter().filter(|(_, forms)| forms.iter().any(|&form| fits(form)));
        shown.map(|(mistake, _)| *mistake).collect()
    };
    let mut fits = which(&Fit::all);
    let mut part = "";
    if !agreement.all() && fits.is_empty() {
        // One of the two may be right and the other show a mistake.
        if agreement.loss == Some(true) {
            fits = which(&|fit| fit.d_logits == Some(true));
            part = "d_logits, though the loss agrees: ";
        } else if agreement.d_logits == Some(true) {
            fits = which(&|fit| fit.loss == Some(true));
            part = "the loss, though d_logits agrees: ";
        }
    }
    let (max_relative_error, max_ulp_error) = errors(case, &right);
    let (verdict, variant, mut message) = if agreement.all() {
        let what = match (case.loss, &case.d_logits) {
            (Some(_), Some(_)) => "loss and d_logits agree",
            (Some(_), None) => "the loss agrees",
            _ => "d_logits agrees",
        };
        let message = format!(
            "{what}: off by at most {max_relative_error:.1e} of the largest value, \
             {max_ulp_error:.1} ULP of an element in {}",
            case.precision
        );
        (Verdict::Agrees, None, message)
    } else if let Some(Mistake { id, says, .. }) = fits.first() {
        (Verdict::Variant, Some(*id), format!("{part}{id}: {says}"))
    } else {
        let message =
            format!("none of the known mistakes: {}", differences(case, &right, &tolerance));
        (Verdict::Unknown, None, message)
    };
    let fits: Vec<&str> = fits.into_iter().map(|mistake| mistake.id).collect();
    let others = if verdict == Verdict::Agrees { &fits[..] } else { fits.get(1..).unwrap_or(&[]) };
    if !others.is_empty() {
        message += &format!("; this case cannot tell it from {}", others.join(", "));
    }
    if case.loss.is_some() && tolerance.of(right.loss_size) > right.losses[1].abs() {
        message += &format!(
            "; in {} the loss is too coarse here to tell anything from its KL part, only d_logits is",
            case.precision
        );
    }
    Ok(CheckReport { verdict, variant, fits, max_relative_error, max_ulp_error, message })
}
