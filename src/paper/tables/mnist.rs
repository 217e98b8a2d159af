//! The paper's section 3, first table: teacher, plain net, and the same net distilled.
//!
//! | system | net | training |
//! |---|---|---|
//! | teacher | 784-1200-1200-10 | dropout, ±2-pixel jitter, labels |
//! | baseline | 784-800-800-10 | labels, no regularisation |
//! | student | 784-800-800-10 | the teacher's soft targets on the untranslated images |
//!
//! Baseline and student share the budget, the optimiser, the initial weights and the order of
//! the examples; only the targets differ. Rows of our own, with the same net and budget:
//!
//! | system | differs from the student in |
//! |---|---|
//! | student, jittered | the transfer set, which is translated by up to 2 pixels |
//! | student, no labels | the weight of the hard term, 0 |
//! | student, with labels | the weight of the hard term, 0.05 |
//! | label smoothing | the targets, 0.9 of the label and 0.1 of all classes alike, at T = 1 |
//! | student of N | the teacher, the mean of those of all N seeds, the same for every seed |

use crate::engine::config::Config;
use crate::engine::distill;
use crate::engine::loss::LossSpec;
use crate::engine::metrics;
use crate::engine::mlp::Mlp;
use crate::engine::trainer::Task;
use crate::files::error::Result;
use crate::paper::preset::{Plan, Preset};
use crate::paper::study::{Conclusion, Design, Study};
use crate::run::chart::{Chart, Point, Series};
use crate::run::context::RunContext;
use crate::run::statistics;
use crate::run::summary::{Claim, Summary, Table, Verdict};
use limbeck_datasets::{Dataset, Split};
use limbeck_kernels::Context;
use std::collections::BTreeMap;
use std::path::Path;

/// The paper's test errors.
pub const PAPER: [(&str, u64); 3] = [("teacher", 67), ("baseline", 146), ("student", 74)];

/// A student of the teacher's logits on the images translated as for the teacher: not the
/// paper's.
const JITTERED: &str = "student, jittered";
const UNLABELLED: &str = "student, no labels";
const LABELLED: &str = "student, with labels";
const SMOOTHED: &str = "label smoothing";
/// Begins the name of a student of several teachers, before their number.
const OF_SEVERAL: &str = "student of ";
/// Weight of the hard term in [`LABELLED`].
const HARD_WEIGHT: f64 = 0.05;
/// Share of a smoothed label that is spread over all classes.
const SMOOTHING: f32 = 0.1;

/// Trains the models for `seeds` seeds from `first_seed` on, in the run folder `out`; `extended`
/// adds the rows that are not the paper's.
///
/// A folder in which the same experiment was begun is continued: finished models are kept,
/// the interrupted one goes on from its last checkpoint.
///
/// # Errors
/// [`crate::Error::Usage`] if `out` holds another run; those of training and writing.
pub fn reproduce(
    run: &mut RunContext,
    dataset: &Dataset,
    preset: Preset,
    (first_seed, seeds): (u64, u64),
    extended: bool,
    out: &Path,
) -> Result<Summary> {
    let plan = Plan::new(preset, dataset);
    let all: Vec<u64> = (first_seed..first_seed + seeds).collect();
    let design = Design {
        experiment: "mnist",
        preset: preset.name(),
        configs: &[
            ("teacher", &plan.teacher),
            ("baseline", &plan.baseline),
            ("student", &plan.student),
        ],
        loss_contract: Some(LossSpec::soft(&plan.student).contract()),
        paper: &PAPER,
    };
    let mut study = Study::open(run, dataset, &design, &all, out)?;
    let train = plan.train_set(dataset);
    let of_seed = |seed| Seed { plan: &plan, dataset, train: &train, seed };
    study.run(run, |run, study| {
        let seeds = study.order(all.iter().copied());
        seeds.into_iter().try_for_each(|seed| of_seed(seed).run(run, study, extended))?;
        // The teacher of one seed alone is not an ensemble.
        if extended && all.len() > 1 { ensemble(run, study, &all, &of_seed) } else { Ok(()) }
    })?;
    study.finish(conclude)
}

/// A student of every seed that is taught by the teachers of all of them.
fn ensemble<'a>(
    run: &mut RunContext,
    study: &mut Study,
    seeds: &[u64],
    of_seed: &impl Fn(u64) -> Seed<'a>,
) -> Result<()> {
    let name = format!("{OF_SEVERAL}{}", seeds.len());
    for &seed in seeds {
        if study.leaves("teacher", seed)? {
            return Ok(());
        }
    }
    let mut taught = None;
    for seed in study.order(seeds.iter().copied()) {
        let Seed { plan, dataset, train, .. } = of_seed(seed);
        if !study.wants(run, &name, seed)? {
            continue;
        }
        let student = Config { seed, ..plan.student.clone() };
        let soft = LossSpec::soft(&student);
        let (targets, test) = match &taught {
            Some(taught) => taught,
            None => {
                let mut teachers = Vec::new();
                for &seed in seeds {
                    teachers.push(of_seed(seed).teacher(run, study)?);
                }
                let of = |split, t| distill::teacher_logits(run.context, &teachers, split, t, None);
                taught.insert((of(train, soft.temperature), of(&dataset.test, 1.0)))
            }
        };
        let task = Task::soft(&name, &student, train, soft, targets);
        study.ensure(run, &task, seed, |context, model| {
            with_teacher(context, model, test, dataset)
        })?;
    }
    Ok(())
}

/// The models of one seed.
struct Seed<'a> {
    plan: &'a Plan,
    dataset: &'a Dataset,
    train: &'a Split,
    seed: u64,
}

impl Seed<'_> {
    fn run(&self, run: &mut RunContext, study: &mut Study, extended: bool) -> Result<()> {
        let Seed { plan, dataset, train, seed } = *self;
        let config = |of: &Config| Config { seed, ..of.clone() };
        let (baseline, student) = (config(&plan.baseline), config(&plan.student));
        let soft = LossSpec::soft(&student);
        let variant = variant_of(soft);
        let mut systems = vec!["teacher", "baseline", "student", JITTERED];
        if extended {
            systems.extend([variant.0, SMOOTHED]);
        }
        if study.has(&systems, seed)? || study.leaves("teacher", seed)? {
            return Ok(());
        }

        let model = self.teacher(run, study)?;
        let test = model.logits(run.context, &dataset.test);
        let compare = |context: &Context, model: &Mlp| with_teacher(context, model, &test, dataset);
        let hard = Task::hard("baseline", &baseline, train);
        study.ensure(run, &hard, seed, compare)?;

        let logits = |run: &RunContext, jitter| {
            let teachers = std::slice::from_ref(&model);
            distill::teacher_logits(run.context, teachers, train, soft.temperature, jitter)
        };
        let targets = logits(run, None);
        study.ensure(
            run,
            &Task::soft("student", &student, train, soft, &targets),
            seed,
            compare,
        )?;

        let mut jittered = student.clone();
        jittered.data.jitter = plan.teacher.data.jitter;
        if study.wants(run, JITTERED, seed)? {
            let jitter = jittered.data.jitter.map(|pixels| pixels as u8);
            let targets = logits(run, jitter);
            study.ensure(
                run,
                &Task::soft(JITTERED, &jittered, train, soft, &targets),
                seed,
                compare,
            )?;
        }
        if !extended {
            return Ok(());
        }

        let (name, objective) = variant;
        study.ensure(
            run,
            &Task::soft(name, &student, train, objective, &targets),
            seed,
            compare,
        )?;
        let smooth = smoothed_labels(train, dataset.classes);
        let at_one = LossSpec { temperature: 1.0, soft_weight: 1.0, hard_weight: 0.0 };
        study.ensure(run, &Task::soft(SMOOTHED, &baseline, train, at_one, &smooth), seed, compare)
    }

    fn teacher(&self, run: &mut RunContext, study: &mut Study) -> Result<Mlp> {
        let config = Config { seed: self.seed, ..self.plan.teacher.clone() };
        study.teacher(run, &Task::hard("teacher", &config, self.train), self.seed)
    }
}

/// The student with labels where the student has none, and the other way round.
fn variant_of(soft: LossSpec) -> (&'static str, LossSpec) {
    if soft.hard_weight > 0.0 {
        (UNLABELLED, LossSpec { hard_weight: 0.0, ..soft })
    } else {
        (LABELLED, LossSpec { hard_weight: HARD_WEIGHT as f32, ..soft })
    }
}

/// How near a model comes to its teacher on the test set.
fn with_teacher(
    context: &Context,
    model: &Mlp,
    teacher: &[f32],
    dataset: &Dataset,
) -> BTreeMap<String, f64> {
    let logits = model.logits(context, &dataset.test);
    let agreement = metrics::agreement(teacher, &logits, dataset.classes);
    let kl = metrics::mean_kl(teacher, &logits, dataset.classes, 1.0);
    BTreeMap::from([("agreement".into(), agreement), ("kl".into(), kl)])
}

/// Logits whose softmax at T = 1 is (1 − ε)·label + ε/C, row-major [n, C].
fn smoothed_labels(split: &Split, classes: usize) -> Vec<f32> {
    let low = SMOOTHING / classes as f32;
    let (low, high) = (low.ln(), (1.0 - SMOOTHING + low).ln());
    let labels = split.labels.iter().flatten();
    labels
        .flat_map(|&label| {
            (0..classes).map(move |c| if c == usize::from(label) { high } else { low })
        })
        .collect()
}

fn conclude(summary: &Summary) -> Conclusion {
    let on_mnist = summary.dataset == "mnist";
    let mut table = Table::new(
        format!("Test errors on {}, preset {}", summary.dataset, summary.preset),
        &["system", "ours", "paper", "negative log-likelihood", "agreement with teacher", "KL"],
    );
    for system in summary.variants() {
        // The paper's figures are for MNIST.
        let paper = summary.paper.get(system).filter(|_| on_mnist);
        table.push([
            system.to_string(),
            summary.shown_errors(system),
            paper.map_or("–".into(), u64::to_string),
            summary.shown(system, 4, |row| row.test_nll),
            summary.shown(system, 4, |row| row.measures.get("agreement").copied()),
            summary.shown(system, 4, |row| row.measures.get("kl").copied()),
        ]);
    }
    let seeds = summary.rows_of("student").count();
    table.notes.push(match seeds {
        1 => "One seed: an example, not a statistic.".into(),
        n => format!("Mean ± standard deviation of {n} seeds, last epoch, chosen on no test set."),
    });
    if summary.rows_of(JITTERED).next().is_some() {
        table
            .notes
            .push(format!("'{JITTERED}' translates the transfer set, which the paper did not do."));
    }
    let of_several = |system: &&str| system.starts_with(OF_SEVERAL);
    if let Some(system) = summary.variants().into_iter().find(of_several) {
        table.notes.push(format!(
            "'{system}': of the mean of all these seeds' teachers, the same for every seed, with \
             which it is compared."
        ));
    }
    let pairs = [("teacher", "student"), ("student", "baseline")];
    let mut each = Table::new(
        "Every seed",
        &["seed", "teacher", "baseline", "student", "p teacher/student", "p student/baseline"],
    );
    for student in summary.rows_of("student") {
        let of = |system| summary.row(system, student.seed);
        let errors = |system| of(system).map_or("–".into(), |row| row.test_errors.to_string());
        let p = |(a, b)| match (of(a), of(b)) {
            (Some(a), Some(b)) => {
                format!("{:.2e}", statistics::mcnemar(&a.misclassified, &b.misclassified).p_value)
            }
            _ => "–".into(),
        };
        let [teacher, baseline] = ["teacher", "baseline"].map(errors);
        let [first, second] = pairs.map(p);
        let errors = student.test_errors.to_string();
        each.push([student.seed.to_string(), teacher, baseline, errors, first, second]);
    }
    each.notes.push("p: McNemar's exact test of the two models on the same images.".into());
    Conclusion {
        tables: vec![table, each],
        claims: if summary.is_the_papers() { claims(summary) } else { Vec::new() },
        charts: vec![("seeds".into(), errors_by_seed(summary))],
    }
}

/// How far the seeds differ, beside the paper's single run.
fn errors_by_seed(summary: &Summary) -> Chart {
    let series = summary.variants().into_iter().map(|system| Series {
        name: system.to_string(),
        points: summary
            .rows_of(system)
            .map(|row| Point { x: row.seed as f64, y: row.test_errors as f64, spread: 0.0 })
            .collect(),
    });
    let papers = PAPER.iter().filter(|_| summary.dataset == "mnist");
    Chart {
        title: format!("Test errors of every seed, {}", summary.dataset),
        x_label: "seed".into(),
        y_label: "test errors".into(),
        log_x: false,
        log_y: false,
        series: series.collect(),
        references: papers.map(|&(of, errors)| (format!("paper, {of}"), errors as f64)).collect(),
    }
}

/// What the paper claims of these three models.
fn claims(summary: &Summary) -> Vec<Claim> {
    let mut claims = Vec::new();
    for (system, what) in [
        ("teacher", "The net with dropout and jitter makes 67 test errors"),
        ("baseline", "The smaller net without regularisation makes 146"),
        ("student", "The same net on the teacher's soft targets at T = 20 makes 74"),
    ] {
        let errors = summary.rows_of(system).map(|row| row.test_errors as f64);
        let Some(&paper) = summary.paper.get(system) else { continue };
        let errors: Vec<f64> = errors.collect();
        if !errors.is_empty() {
            claims.push(Claim {
                paper: format!("{what}."),
                ours: summary.shown_errors(system),
                verdict: near_a_single_run(paper as f64, &errors),
            });
        }
    }
    let pairs = summary.rows_of("student").filter_map(|student| {
        let baseline = summary.row("baseline", student.seed)?;
        Some(statistics::mcnemar(&student.misclassified, &baseline.misclassified))
    });
    let pairs: Vec<_> = pairs.collect();
    if !pairs.is_empty() {
        let better = pairs.iter().filter(|pair| pair.first_is_better()).count();
        claims.push(Claim {
            paper: "Soft targets make the small net better than labels do.".into(),
            ours: format!("McNemar p < 0.01 for {better} of {} seeds", pairs.len()),
            verdict: Verdict::of_tests(better, pairs.len()),
        });
    }
    claims
}

/// Whether our mean is as far from the paper's single run, in errors, as chance would explain. The
/// test images are the same, so that chance is that of the training alone, s of our seeds:
/// ours − paper ≤ 1.96·s·√(1 + 1/n), the paper's one run and our mean of n. Fewer errors are
/// better, and as good as reproduced. A single seed, whose s is unknown, shows nothing by more
/// errors unless they exceed what other test images would explain too, 1.96·√paper.
fn near_a_single_run(paper: f64, errors: &[f64]) -> Verdict {
    let excess = statistics::mean(errors) - paper;
    let noise = |sd: f64| 1.96 * sd * (1.0 + 1.0 / errors.len() as f64).sqrt();
    match statistics::sample_sd(errors).map(noise) {
        _ if excess <= 0.0 => Verdict::Reproduced,
        Some(noise) if excess <= noise => Verdict::Reproduced,
        None if excess <= 1.96 * paper.sqrt() => Verdict::Inconclusive,
        _ => Verdict::NotReproduced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothed_labels_are_a_distribution() {
        let labels = Some(vec![2, 0]);
        let split = Split::of_images(vec![0; 2], (1, 1), labels);
        let probs: Vec<f32> = smoothed_labels(&split, 4).iter().map(|z| z.exp()).collect();
        for (row, label) in probs.chunks(4).zip([2, 0]) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            assert!((row[label] - 0.925).abs() < 1e-6 && (row[1] - 0.025).abs() < 1e-6);
        }
    }

    #[test]
    fn verdicts_allow_for_chance_and_not_for_more() {
        assert_eq!(near_a_single_run(74.0, &[74.0]), Verdict::Reproduced);
        assert_eq!(near_a_single_run(74.0, &[60.0, 62.0]), Verdict::Reproduced);
        assert_eq!(near_a_single_run(74.0, &[90.0]), Verdict::Inconclusive);
        assert_eq!(near_a_single_run(74.0, &[91.0]), Verdict::NotReproduced);
        assert_eq!(near_a_single_run(74.0, &[91.0, 92.0]), Verdict::NotReproduced);
        // s = √8 and √2: 6.8 and 3.4 errors of the difference are chance.
        assert_eq!(near_a_single_run(74.0, &[78.0, 82.0]), Verdict::Reproduced);
        assert_eq!(near_a_single_run(74.0, &[79.0, 81.0]), Verdict::NotReproduced);
    }
}
