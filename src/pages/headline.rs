//! What came out of a run, in a sentence made from its figures, in the same breath what it is not, and what
//! someone asks next: what was trained, whether distillation was worth it, and how sure that is.

use super::contents::RunContents;
use crate::engine::config::Config;
use crate::engine::metrics;
use crate::run::number::{count, p_is};
use crate::run::statistics::{MeanSd, mean, wilson_interval};
use crate::run::summary::{Measure, Row, Summary, Verdict};

/// Mean test errors of baseline, student and teacher of the seeds that all three have.
pub struct Gap {
    /// The same net as the student, on labels alone.
    pub baseline: f64,
    /// The net on the teacher's soft targets.
    pub student: f64,
    /// The teacher.
    pub teacher: f64,
    /// The share of the gap that the student closes, of each seed that has a gap.
    pub shares: Vec<f64>,
    /// The number of seeds.
    pub seeds: usize,
}

impl Gap {
    /// The gap of a run that has the three.
    pub fn of(summary: &Summary) -> Option<Gap> {
        let three = |seed| {
            let errors = |variant| Some(summary.row(variant, seed)?.test_errors as f64);
            Some([errors("baseline")?, errors("student")?, errors("teacher")?])
        };
        let seeds: Vec<[f64; 3]> =
            summary.rows_of("student").filter_map(|row| three(row.seed)).collect();
        let of = |i: usize| mean(&seeds.iter().map(|errors| errors[i]).collect::<Vec<_>>());
        let with_gap = seeds.iter().filter(|[baseline, _, teacher]| baseline > teacher);
        let share =
            |&[baseline, student, teacher]: &[f64; 3]| (baseline - student) / (baseline - teacher);
        (!seeds.is_empty()).then(|| Gap {
            baseline: of(0),
            student: of(1),
            teacher: of(2),
            shares: with_gap.map(share).collect(),
            seeds: seeds.len(),
        })
    }

    /// The share of the gap that some errors are away from the baseline's; nothing without a gap.
    pub fn share(&self, errors: f64) -> Option<f64> {
        (self.baseline > self.teacher)
            .then(|| (self.baseline - errors) / (self.baseline - self.teacher))
    }
}

/// The sentence at the head of a run's page.
pub fn sentence(summary: &Summary) -> String {
    if let Some(gap) = Gap::of(summary) {
        return of_gap(summary, &gap);
    }
    if let Some(headline) = &summary.headline {
        return headline.clone();
    }
    let of = summary.of_examples();
    match &summary.rows[..] {
        [] => "A run without a finished model.".into(),
        [row] => {
            let rate = summary.examples().map_or(String::new(), |n| {
                format!(", {}", percent(metrics::error_rate(row.test_errors as usize, n)))
            });
            format!(
                "{} makes {} test errors{of}{rate}.",
                subject(row),
                count(row.test_errors as usize)
            )
        }
        _ if !summary.claims.is_empty() && summary.is_judged() => of_claims(summary),
        _ => {
            let mean_of = |variant: &&str| mean(&summary.values(variant, &Measure::TestErrors));
            let mut variants = summary.results();
            variants.sort_by(|a, b| mean_of(a).total_cmp(&mean_of(b)));
            let cell = |variant: &str| summary.errors_cell(variant);
            match variants[..] {
                [best, .., worst] => format!(
                    "Of {} variants '{best}' makes the fewest test errors, {}{of}; '{worst}' the most, {}.",
                    variants.len(),
                    cell(best),
                    cell(worst)
                ),
                [one] => format!("{one} makes {} test errors{of}.", cell(one)),
                [] => "A run without a result.".into(),
            }
        }
    }
}

fn of_gap(summary: &Summary, gap: &Gap) -> String {
    let text = |variant: &str| {
        let errors = MeanSd::of(&summary.values(variant, &Measure::TestErrors));
        errors.map_or(String::new(), |errors| match errors.sd {
            None => count(errors.mean as usize),
            Some(_) => errors.text(usize::from(errors.mean < 20.0)),
        })
    };
    let [baseline, student, teacher] = ["baseline", "student", "teacher"].map(text);
    let of = summary.of_examples();
    let Gap { baseline: from, student: at, teacher: to, .. } = *gap;
    if to >= from {
        return format!(
            "There was no gap to close: the teacher makes {teacher} test errors{of}, the plain net {baseline}, \
             the student {student}."
        );
    }
    if at >= from {
        return format!(
            "Distillation did not help here: the student makes {student} test errors{of}, the same net on labels \
             alone {baseline}, the teacher {teacher}."
        );
    }
    if at <= to {
        return format!(
            "The student is no worse than its teacher: {student} test errors{of}, against {teacher}, and \
             {baseline} of the same net on labels alone."
        );
    }
    format!(
        "The student closes {:.0} % of the gap between the plain net and its teacher: {student} test errors{of}, \
         against {baseline} and {teacher}.",
        100.0 * gap.share(at).unwrap_or_default()
    )
}

/// What became of the paper's claims, counted.
fn of_claims(summary: &Summary) -> String {
    let verdicts = [Verdict::Reproduced, Verdict::NotReproduced, Verdict::Inconclusive];
    let counted = verdicts.iter().filter_map(|&verdict| {
        let n = summary.claims.iter().filter(|claim| summary.verdict(claim) == verdict).count();
        (n > 0).then(|| format!("{n} {verdict}"))
    });
    let counted: Vec<String> = counted.collect();
    let on = &summary.experiment;
    match &summary.claims[..] {
        [claim] => format!("The paper's claim on {on}: {}.", summary.verdict(claim)),
        claims => {
            format!("Of {} claims of the paper on {on}: {}.", claims.len(), counted.join(", "))
        }
    }
}

fn subject(row: &Row) -> String {
    match row.variant.as_str() {
        "model" => "The net".into(),
        "student" => "The student".into(),
        other => other.to_string(),
    }
}

/// What a reader asks next, each with its answer.
pub fn answers(run: &RunContents) -> Vec<(&'static str, String)> {
    let summary = &run.summary;
    let mut answers = vec![("What was trained", trained(run))];
    if let Some(worth) = worth(summary) {
        answers.push(("Was distillation worth it", worth));
    } else if let Some(chance) = beside_chance(run) {
        answers.push(("How good is that", chance));
    }
    answers.push(("How sure is that", certainty(summary)));
    answers.retain(|(_, answer)| !answer.is_empty());
    answers
}

/// What each image is drawn as, where that is not the image itself.
fn views(config: &Config) -> String {
    let views = config.distillation.iter().flat_map(|table| &table.views);
    let names: Vec<String> = views.map(|view| format!("\"{view}\"")).collect();
    match &names[..] {
        [] => String::new(),
        [one] => format!(", each image seen as {one}"),
        several => format!(", each image seen as one of {}", several.join(", ")),
    }
}

/// The nets and their targets.
fn trained(run: &RunContents) -> String {
    let summary = &run.summary;
    let net = |config: &Config| {
        let layers: Vec<String> = config.model.layers.iter().map(usize::to_string).collect();
        // Weights and biases.
        let size: usize = config.model.layers.windows(2).map(|pair| (pair[0] + 1) * pair[1]).sum();
        let size = match size {
            1_000_000.. => format!("{:.1} million", size as f64 / 1e6),
            _ => count(size),
        };
        // Few layers are named, many counted.
        match layers.len() {
            ..=5 => format!("{} ({size} parameters)", layers.join("-")),
            n => format!(
                "{} layers, {}-{}-…-{} ({size} parameters)",
                n - 1,
                layers[0],
                layers[1],
                layers[n - 1]
            ),
        }
    };
    let temperature = match run.manifest["loss_contract"]["temperature"].as_f64() {
        Some(t) => format!(" at T = {t}"),
        None => String::new(),
    };
    let data = format!(
        "{}{}",
        summary.dataset,
        summary.train_limit.map_or(String::new(), |n| format!(", the first {} examples", count(n)))
    );
    match (run.configs.get("teacher"), run.configs.get("baseline"), run.configs.get("")) {
        (Some(teacher), Some(small), _) if Gap::of(summary).is_some() => format!(
            "On {data}: a teacher, {}; and a smaller net, {}, once on labels, the baseline, and once on the \
             teacher's soft targets{temperature}, the student.",
            net(teacher),
            net(small)
        ),
        (_, _, Some(config)) => format!(
            "On {data}: a net, {}, {}, for {} epoch{}.",
            net(config),
            match summary.experiment.as_str() {
                "distill" => format!("on a teacher's soft targets{temperature}{}", views(config)),
                _ => format!("on labels{}", views(config)),
            },
            config.training.epochs,
            if config.training.epochs == 1 { "" } else { "s" }
        ),
        _ => format!(
            "On {data}: {} models in {} variants; experiment {}, preset {}.",
            summary.rows.len(),
            summary.variants().len(),
            summary.experiment,
            summary.preset
        ),
    }
}

/// Whether the student is better than the same net on labels, and whether chance explains it.
fn worth(summary: &Summary) -> Option<String> {
    let Gap { baseline, student, seeds, .. } = Gap::of(summary)?;
    let paired = summary.paired("student", "baseline");
    let better = paired.iter().filter(|test| test.first_is_better()).count();
    let known = summary.rows.iter().any(|row| !row.misclassified.is_empty());
    let test = match (&paired[..], known) {
        (_, false) => "whether by chance cannot be told: the run keeps no indices".to_string(),
        ([test], _) => format!("McNemar's test on the same examples: p {}", p_is(test.p_value)),
        _ => format!("by McNemar's test, p < 0.01, in {better} of {seeds} seeds"),
    };
    let change = 100.0 * (student / baseline - 1.0);
    let said = match (change < 0.0, better == seeds, known) {
        (true, true, _) => "Yes",
        (true, false, true) => "Not shown",
        (true, false, false) => "It seems so",
        (false, ..) => "No",
    };
    let than = if change < 0.0 { "fewer" } else { "more" };
    Some(format!(
        "{said}: {:.0} % {than} errors than the same net on labels alone; {test}.",
        change.abs()
    ))
}

/// What the commonest class alone would give.
fn beside_chance(run: &RunContents) -> Option<String> {
    let predictions = run.predictions.as_ref().ok()?;
    let [row] = &run.summary.rows[..] else { return None };
    let mut counts = vec![0; predictions.dataset.classes];
    predictions.labels().iter().for_each(|&label| counts[usize::from(label)] += 1);
    let n = predictions.labels().len();
    let commonest = counts.into_iter().max()?;
    Some(format!(
        "{} of the test examples are right; always naming the commonest class would be right on {}.",
        percent(1.0 - metrics::error_rate(row.test_errors as usize, n)),
        percent(commonest as f64 / n as f64)
    ))
}

/// What the spread over seeds or the size of the test set says.
fn certainty(summary: &Summary) -> String {
    let of_student = summary.rows_of("student").count();
    let seeds = summary.most_seeds();
    if seeds > 1 {
        let (least, most) = Gap::of(summary).map_or((0.0, 0.0), |gap| {
            gap.shares.iter().fold((f64::MAX, f64::MIN), |(a, b), &s| (a.min(s), b.max(s)))
        });
        let shares = match of_student > 1 && least <= most && (least, most) != (0.0, 0.0) {
            true => format!(
                " Seed by seed the share of the gap is {:.0} to {:.0} %.",
                100.0 * least,
                100.0 * most
            ),
            false => String::new(),
        };
        let all =
            summary.variants().iter().all(|variant| summary.rows_of(variant).count() == seeds);
        let up_to = if all { "" } else { "Up to " };
        return format!(
            "{up_to}{seeds} seeds of a variant; ± is their standard deviation.{shares}"
        );
    }
    let row = summary.rows_of("student").next().or(summary.rows.first());
    let interval = row.zip(summary.examples()).filter(|(row, n)| row.test_errors as usize <= *n);
    let interval = interval.map_or(String::new(), |(row, n)| {
        let (low, high) = wilson_interval(row.test_errors, n as u64);
        format!(
            " On further examples like these, {} would be wrong on {} to {} (95 % interval).",
            subject(row).to_lowercase(),
            percent(low),
            percent(high)
        )
    });
    format!("One seed: an example, not a statistic.{interval}")
}

/// What is said in the same breath as the sentence: how many seeds it is of, and what it is not.
pub fn breath(summary: &Summary) -> String {
    seeds(summary) + &limits(summary)
}

/// [`breath`] of a run that stands beside others, with which it is compared.
pub fn breath_beside_others(summary: &Summary) -> String {
    match summary.preset.as_str() {
        "config" => seeds(summary) + &summary.caveat().unwrap_or_default(),
        _ => breath(summary),
    }
}

fn seeds(summary: &Summary) -> String {
    match summary.most_seeds() {
        0 => String::new(),
        1 => "One seed. ".to_string(),
        n => format!("{n} seeds. "),
    }
}

/// What the result may not be taken for.
fn limits(summary: &Summary) -> String {
    if let Some(caveat) = summary.caveat() {
        return caveat;
    }
    let mut said = String::new();
    match summary.preset.as_str() {
        "config" if summary.experiment == "distill" => {
            return "Nothing to compare it with: train the same net on labels alone (limbeck train) and put both on \
                    one page (limbeck report A B)."
                .into();
        }
        "config" => return "Nothing to compare it with: one model on one test set.".into(),
        "standard" => said += "Trained for a shorter time than the paper's. ",
        _ => {}
    }
    said += &format!("No claim beyond {}.", summary.dataset);
    if !summary.paper.is_empty() {
        let paper = summary.paper.iter().map(|(variant, errors)| format!("{variant} {errors}"));
        said += &format!(" The paper's figures: {}.", paper.collect::<Vec<_>>().join(", "));
    }
    said
}

/// A share in per cent, to two digits where it is small.
pub fn percent(share: f64) -> String {
    let p = 100.0 * share;
    match p {
        _ if p > 0.0 && p < 1.0 => format!("{p:.2} %"),
        _ if p > 99.0 && p < 100.0 => format!("{p:.2} %"),
        _ => format!("{p:.1} %"),
    }
}
