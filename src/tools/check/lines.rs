//! What is said of a case: the sentence and the corrected line of a mistake, for the case's own divergence,
//! reduction, shape and temperature; what is not finite; labels that the teacher does not know.

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
    if mistake.id == "padding_counted" && case.hard_weight > 0.0 {
        format!("{}; {}", soft(case), hard(case)).into()
    } else if of_the_soft_term {
        soft(case).into()
    } else if mistake.fix == HARD {
        hard(case).into()
    } else {
        mistake.fix.into()
    }
}

/// The selection of the tokens that count from each of `names`.
fn tokens(case: &CheckCase, names: &[&str]) -> String {
    let padded = case.count() < case.examples();
    if !padded && case.length == 1 {
        return String::new();
    }
    let of = |name: &str| match (padded, name) {
        (true, _) => format!("{name}[mask]"),
        (false, "y") => "y.flatten()".into(),
        (false, _) => format!("{name}.flatten(0, 1)"),
    };
    let each = names.iter().map(|&name| match name {
        "teachers" => format!("[{} for v in teachers]", of("v")),
        name => of(name),
    });
    format!("{} = {}; ", names.join(", "), each.collect::<Vec<_>>().join(", "))
}

fn soft(case: &CheckCase) -> String {
    let teacher = if case.ensemble.is_empty() { "v" } else { "teachers" };
    let mut before = tokens(case, &["z", teacher]);
    let summed = case.reduction == Reduction::Sum;
    if case.temperature.is_infinite() {
        let over = if summed { "sum" } else { "mean" };
        return format!(
            "{before}d = (z - v) - (z - v).mean(-1, keepdim=True); soft = 0.5 * (d * d).mean(-1).{over}()  \
             # T = inf"
        );
    }
    // exp(−∞)·(−∞) is NaN, and exp(−10⁹/T)·(−10⁹/T) is 0.
    let excludes = |logits: &ndarray::Array2<f64>| logits.iter().any(|z| *z == f64::NEG_INFINITY);
    if case.teacher_logits.iter().chain(&case.ensemble).any(excludes) {
        let each = match teacher {
            "v" => "z, v = [x.masked_fill(x == -math.inf, -1e9) for x in (z, v)]; ",
            _ => "z, *teachers = [x.masked_fill(x == -math.inf, -1e9) for x in (z, *teachers)]; ",
        };
        before += each;
    }
    let over = if summed { "sum" } else { "batchmean" };
    let kl = |input: &str, target: &str| {
        format!("F.kl_div({input}, {target}, reduction='{over}', log_target=True)")
    };
    let (z, v) = ("F.log_softmax(z / T, -1)", "F.log_softmax(v / T, -1)");
    let line = match case.divergence {
        Divergence::Forward if !case.ensemble.is_empty() => format!(
            "p = torch.stack([F.softmax(v / T, -1) for v in teachers]).mean(0); soft = T * T * \
             F.kl_div({z}, p, reduction='{over}')"
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
    before + &line
}

fn hard(case: &CheckCase) -> String {
    let over = if case.reduction == Reduction::Sum { ", reduction='sum'" } else { "" };
    format!("{}hard = F.cross_entropy(z, y{over})", tokens(case, &["z", "y"]))
}

/// `id: what it does, and id: what it does. Right: the corrected line`.
pub fn sentences(mistakes: &[&Mistake], case: &CheckCase) -> String {
    let says = |mistake: &&Mistake| format!("{}: {}", mistake.id, sentence(mistake, case));
    let says: Vec<String> = mistakes.iter().map(says).collect();
    let mut fixes: Vec<_> = mistakes.iter().map(|mistake| line(mistake, case)).collect();
    fixes.dedup();
    format!("{}. Right: {}", says.join(", and "), fixes.join("; "))
}

pub fn cannot_tell_from(others: &[&Mistake]) -> String {
    if others.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = others.iter().map(|mistake| mistake.id).collect();
    format!("; this case cannot tell it from {}", names.join(", "))
}

/// The results that are not finite: "the loss is NaN", "d_logits[2, 1] and 6 more are".
pub fn not_finite(case: &CheckCase) -> Vec<String> {
    let mut places = Vec::new();
    if let Some(loss) = case.loss.filter(|loss| !loss.is_finite()) {
        places.push(format!("the loss is {loss}"));
    }
    if let Some(d) = &case.d_logits {
        let bad = || d.indexed_iter().filter(|(_, d)| !d.is_finite());
        if let Some((at, first)) = bad().next() {
            let more = bad().count() - 1;
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            places.push(format!("{} is {first}{more}", case.place("d_logits", at)));
        }
    }
    places
}

/// A warning where the teacher knows the labels no better than chance: its logits may have been
/// kept in another order. Of fewer than 100 examples it would say nothing.
pub fn out_of_order(case: &CheckCase) -> Option<String> {
    let (labels, teacher) = (case.labels.as_ref()?, case.teacher_logits.as_ref()?);
    let counted: Vec<usize> = (0..case.examples()).filter(|&e| case.counts(e)).collect();
    let right = |&&e: &&usize| {
        let row = teacher.row(e);
        usize::try_from(labels[e])
            .is_ok_and(|y| y < row.len() && row.iter().all(|other| *other <= row[y]))
    };
    let (n, chance) = (counted.len() as f64, 1.0 / case.classes() as f64);
    let known = counted.iter().filter(right).count() as f64;
    let likely = n * chance + 3.0 * (n * chance * (1.0 - chance)).sqrt();
    (n >= 100.0 && case.classes() > 1 && known <= likely).then(|| {
        format!(
            "; note: the teacher's largest logit is the label of {known} of {n} examples, no more than \
             chance: are its logits in the order of the examples?"
        )
    })
}
