//! What is said of a mistake where it was found: the sentence and the corrected line for the case's own
//! divergence, reduction, shape and temperature.

use super::case::{CheckCase, Divergence, Reduction};
use super::mistake::Mistake;
use super::mistakes::{HARD, SOFT, TOKENS};
use std::borrow::Cow;

/// ln q and ln p.
const LOGS: &str = "log_q, log_p = F.log_softmax(z / T, -1), F.log_softmax(v / T, -1); ";

/// What the code does, measured by what the case declares.
pub fn sentence(mistake: &Mistake, case: &CheckCase) -> &'static str {
    match (mistake.id, case.divergence, case.reduction) {
        ("reverse_kl", Divergence::Reverse, _) => {
            "the arguments of KL are the wrong way round: KL(teacher ‖ student)"
        }
        ("symmetric_kl", Divergence::Symmetric, _) => {
            "one direction of KL where half of each was meant"
        }
        ("mean_twice", _, Reduction::Sum) => "a mean over the examples where their sum was meant",
        _ => mistake.says,
    }
}

/// The corrected line, in PyTorch.
pub fn line(mistake: &Mistake, case: &CheckCase) -> Cow<'static, str> {
    let of_the_soft_term = [SOFT, TOKENS].contains(&mistake.fix)
        || mistake.id == "raw_logit_matching" && case.temperature.is_finite();
    if of_the_soft_term {
        soft(case).into()
    } else if mistake.fix == HARD {
        hard(case).into()
    } else {
        mistake.fix.into()
    }
}

/// The selection of the tokens that count, from `what`.
fn tokens(case: &CheckCase, what: &[&str]) -> String {
    let each = |of: &str| what.iter().map(|x| format!("{x}{of}")).collect::<Vec<_>>().join(", ");
    let select = match (case.count() < case.examples(), case.length > 1) {
        (true, _) => each("[mask]"),
        (false, true) => what
            .iter()
            .map(|x| if *x == "y" { "y.flatten()".into() } else { format!("{x}.flatten(0, 1)") })
            .collect::<Vec<_>>()
            .join(", "),
        (false, false) => return String::new(),
    };
    format!("{} = {select}; ", what.join(", "))
}

fn soft(case: &CheckCase) -> String {
    let tokens = tokens(case, &["z", "v"]);
    let summed = case.reduction == Reduction::Sum;
    if case.temperature.is_infinite() {
        let over = if summed { "sum" } else { "mean" };
        return format!(
            "{tokens}d = (z - v) - (z - v).mean(-1, keepdim=True); soft = 0.5 * (d * d).mean(-1).{over}()  \
             # T = inf"
        );
    }
    let over = if summed { "sum" } else { "batchmean" };
    let kl = |input: &str, target: &str| {
        format!("F.kl_div({input}, {target}, reduction='{over}', log_target=True)")
    };
    let (z, v) = ("F.log_softmax(z / T, -1)", "F.log_softmax(v / T, -1)");
    let excludes = |logits: &ndarray::Array2<f64>| logits.iter().any(|z| *z == f64::NEG_INFINITY);
    let line = match case.divergence {
        Divergence::Forward if !case.ensemble.is_empty() => format!(
            "p = torch.stack([F.softmax(v / T, -1) for v in teachers]).mean(0); soft = T * T * \
             F.kl_div({z}, p, reduction='{over}')"
        ),
        // exp(−∞)·(−∞) is NaN, and 0·ln 0 in the form with probabilities is 0.
        Divergence::Forward if case.teacher_logits.iter().any(excludes) => format!(
            "soft = T * T * F.kl_div({z}.masked_fill((z == -math.inf) & (v == -math.inf), 0), \
             F.softmax(v / T, -1), reduction='{over}')"
        ),
        Divergence::Forward => format!("soft = T * T * {}", kl(z, v)),
        Divergence::Reverse => format!("soft = T * T * {}", kl(v, z)),
        Divergence::Symmetric => {
            let [there, back] = [kl("log_q", "log_p"), kl("log_p", "log_q")];
            format!("{LOGS}soft = 0.5 * T * T * ({there} + {back})")
        }
        Divergence::JensenShannon { .. } => {
            let [of_p, of_q] = [kl("log_m", "log_p"), kl("log_m", "log_q")];
            format!(
                "{LOGS}log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta)); \
                 soft = T * T * (beta * {of_p} + (1 - beta) * {of_q})"
            )
        }
    };
    tokens + &line
}

fn hard(case: &CheckCase) -> String {
    let over = if case.reduction == Reduction::Sum { ", reduction='sum'" } else { "" };
    format!("{}hard = F.cross_entropy(z, y{over})", tokens(case, &["z", "y"]))
}
