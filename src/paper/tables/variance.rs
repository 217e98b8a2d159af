//! The paper's introduction: soft targets have "much less variance in the gradient between
//! training cases", so the student can be trained "on much less data" and "using a much higher
//! learning rate".
//!
//! With gᵢ the gradient of all parameters for case i alone and ḡ their mean over n cases,
//!
//! ```text
//! noise = ((1/n) Σ ‖gᵢ‖² − ‖ḡ‖²) / ‖ḡ‖²
//! ```
//!
//! is the variance between cases relative to the signal: a factor before the loss, such as T²,
//! does not change it. It is measured for hard targets and for soft ones at each T, with the
//! initial weights and with those of a trained student. Then nets are trained on hard and on soft
//! targets with a part of the data, and with higher learning rates, for equally many steps.

use crate::engine::distill;
use crate::engine::loss::{self, LossSpec};
use crate::engine::mlp::{Mlp, Workspace};
use crate::engine::trainer::Task;
use crate::files::error::{Error, Result};
use crate::paper::preset::{Plan, Preset};
use crate::paper::study::{Conclusion, Design, Study};
use crate::run::chart::{Chart, Point, Series};
use crate::run::context::RunContext;
use crate::run::statistics;
use crate::run::summary::{Claim, Row, Summary, Table, Verdict};
use limbeck_datasets::{Dataset, Split};
use limbeck_kernels::{Buffer, Context, Panels, PanelsMut, panel_len};
use std::collections::BTreeMap;
use std::path::Path;

/// Temperatures at which the noise of the soft targets' gradient is measured.
const TEMPERATURES: [f64; 10] = [1.0, 2.0, 2.5, 3.0, 4.0, 5.0, 8.0, 10.0, 20.0, 40.0];
/// Percent of the training set.
const PERCENT: [usize; 5] = [1, 3, 10, 30, 100];
/// Factors of the learning rate.
const FACTORS: [f64; 3] = [1.0, 3.0, 10.0];
const TARGETS: [&str; 2] = ["hard", "soft"];
/// The row that holds the noise, measured with its student's weights.
const MEASURED: &str = "soft, 100 % of the data";

fn part(targets: &str, percent: usize) -> String {
    format!("{targets}, {percent} % of the data")
}

fn at_rate(targets: &str, factor: f64) -> String {
    match factor {
        1.0 => part(targets, 100),
        _ => format!("{targets}, learning rate × {factor}"),
    }
}

/// Epochs on the whole set, and cases of which gradients are taken one by one.
fn budget(preset: Preset) -> (usize, usize) {
    match preset {
        Preset::Smoke => (1, 10),
        Preset::Quick => (8, 100),
        Preset::Standard => (20, 500),
        Preset::Paper => (60, 1000),
    }
}

/// Measures, and trains the models for `seeds` seeds from `first_seed` on, in the run folder `out`.
///
/// # Errors
/// Those of [`super::mnist::reproduce`].
pub fn reproduce(
    run: &mut RunContext,
    dataset: &Dataset,
    preset: Preset,
    (first_seed, seeds): (u64, u64),
    out: &Path,
) -> Result<Summary> {
    let mut plan = Plan::new(preset, dataset);
    let (epochs, cases) = budget(preset);
    plan.baseline.training.epochs = epochs;
    plan.student.training.epochs = epochs;
    let all: Vec<u64> = (first_seed..first_seed + seeds).collect();
    let design = Design {
        experiment: "variance",
        preset: preset.name(),
        configs: &[("teacher", &plan.teacher), ("hard", &plan.baseline), ("soft", &plan.student)],
        loss_contract: Some(LossSpec::soft(&plan.student).contract()),
        paper: &[],
    };
    let mut study = Study::open(run, dataset, &design, &all, out)?;
    let train = plan.train_set(dataset);
    let nets = nets();
    let systems: Vec<&str> = nets.iter().map(|net| net.name.as_str()).collect();
    let teachers = (&plan.teacher, &train);
    study.for_each_teacher(run, &all, &systems, teachers, |run, study, seed, teacher| {
        let logits = distill::teacher_logits(run.context, &[teacher], &train, 1.0, None);
        let seed = Seed { plan: &plan, train: &train, logits: &logits, seed, cases };
        study.order(&nets).into_iter().try_for_each(|net| seed.train(run, study, net))
    })?;
    study.finish(conclude)
}

/// One of the nets of a seed.
struct Net {
    name: String,
    targets: &'static str,
    /// Of the training set.
    percent: usize,
    /// Of the learning rate.
    factor: f64,
}

fn nets() -> Vec<Net> {
    let of = |targets: &'static str| {
        let parts = PERCENT.map(|percent| (part(targets, percent), percent, 1.0));
        let faster =
            FACTORS[1..].iter().map(move |&factor| (at_rate(targets, factor), 100, factor));
        let all = parts.into_iter().chain(faster);
        all.map(move |(name, percent, factor)| Net { name, targets, percent, factor })
    };
    TARGETS.into_iter().flat_map(of).collect()
}

/// The models of one seed.
struct Seed<'a> {
    plan: &'a Plan,
    train: &'a Split,
    /// The teacher's [n, C].
    logits: &'a [f32],
    seed: u64,
    cases: usize,
}

impl Seed<'_> {
    fn train(&self, run: &mut RunContext, study: &mut Study, net: &Net) -> Result<()> {
        let Seed { plan, train, logits, seed, cases } = *self;
        let Net { ref name, targets, percent, factor } = *net;
        if !study.wants(run, name, seed)? {
            return Ok(());
        }
        let soft = targets == "soft";
        let mut config = if soft { plan.student.clone() } else { plan.baseline.clone() };
        config.seed = seed;
        config.training.learning_rate *= factor;
        config.training.epochs = config.training.epochs * 100 / percent;
        let chosen = crate::paper::draw(train.len(), seed, percent);
        let classes = logits.len() / train.len();
        let chosen_logits = crate::paper::rows(logits, classes, &chosen);
        let split = train.subset(&chosen);
        let task = if soft {
            Task::soft(name, &config, &split, LossSpec::soft(&config), &chosen_logits)
        } else {
            Task::hard(name, &config, &split)
        };
        let noise = |context: &Context, model: &Mlp| {
            let initial = task.initial_model();
            let mut measures = BTreeMap::new();
            for (when, model) in [("initial", &initial), ("trained", model)] {
                let cases = Cases { model, split: train, logits, cases };
                measures.insert(format!("noise_hard_{when}"), cases.noise(context, None));
                for t in TEMPERATURES {
                    let noise = cases.noise(context, Some(t as f32));
                    measures.insert(format!("noise_soft_{t}_{when}"), noise);
                }
            }
            measures
        };
        let done = match name.as_str() {
            MEASURED => study.ensure(run, &task, seed, noise),
            _ => study.ensure(run, &task, seed, |_, _| BTreeMap::new()),
        };
        match done {
            // That a learning rate is too high is a result.
            Err(Error::Diverged { .. }) if factor > 1.0 => {
                run.observer.warn(&format!("{name}, seed {seed}: diverged"));
                Ok(())
            }
            done => done,
        }
    }
}

/// Examples whose gradients are taken one by one.
struct Cases<'a> {
    model: &'a Mlp,
    split: &'a Split,
    logits: &'a [f32],
    cases: usize,
}

impl Cases<'_> {
    /// The noise of the gradient of soft targets at T, or of hard ones.
    fn noise(&self, context: &Context, temperature: Option<f32>) -> f64 {
        let Cases { model, split, logits, cases } = *self;
        let (classes, n) = (model.classes(), cases.min(split.len()));
        let objective = match temperature {
            Some(temperature) => LossSpec { temperature, soft_weight: 1.0, hard_weight: 0.0 },
            None => LossSpec::HARD,
        };
        let labels = split.labels.as_deref().unwrap_or_default();
        let mut work = Workspace::for_training(model, 1);
        let mut grads = Buffer::zeroed(model.params().len());
        let mut teacher = Buffer::zeroed(panel_len(classes, 1));
        let (mut sum, mut squares) = (vec![0.0; grads.len()], 0.0);
        context.pool.install(|| {
            for i in 0..n {
                work.load(context, model, &split.batch(&[i as u32]), None);
                model.forward(context, &mut work, &[]);
                PanelsMut::new(&mut teacher, classes, 1)
                    .copy_from_lane_major(&logits[i * classes..][..classes]);
                let teacher = Panels::new(&teacher, classes, 1);
                let label = &labels[i..=i];
                let (teacher, label) = (Some(teacher), Some(label));
                loss::distillation(context, &objective, model, teacher, label, &mut work);
                model.backward(context, &mut work, &[], &mut grads);
                for (sum, &g) in sum.iter_mut().zip(grads.iter()) {
                    *sum += f64::from(g);
                    squares += f64::from(g) * f64::from(g);
                }
            }
        });
        let n = n as f64;
        let signal: f64 = sum.iter().map(|sum| (sum / n) * (sum / n)).sum();
        (squares / n - signal) / signal
    }
}

fn conclude(summary: &Summary) -> Conclusion {
    let noise = |key: String| summary.shown(MEASURED, 2, |row| row.measures.get(&key).copied());
    let mut noises = Table::new(
        format!(
            "Variance of the gradient between cases over its mean's square, {}",
            summary.dataset
        ),
        &["targets", "initial weights", "trained student"],
    );
    let cells = |key: &str| ["initial", "trained"].map(|when| noise(format!("{key}_{when}")));
    let [initial, trained] = cells("noise_hard");
    noises.push(["hard".into(), initial, trained]);
    for t in TEMPERATURES {
        let [initial, trained] = cells(&format!("noise_soft_{t}"));
        noises.push([format!("soft, T = {t}"), initial, trained]);
    }
    let errors = |system: &str| summary.shown_errors(system);
    let pair = |name: &dyn Fn(&str) -> String| TARGETS.map(|targets| errors(&name(targets)));
    let mut parts = Table::new(
        format!("Test errors by part of the training set, {}", summary.preset),
        &["examples", "hard", "soft"],
    );
    for percent in PERCENT {
        let [hard, soft] = pair(&|targets| part(targets, percent));
        parts.push([format!("{percent} %"), hard, soft]);
    }
    parts.notes.push("Equally many steps for every part.".into());
    let mut rates = Table::new("Test errors by learning rate", &["learning rate", "hard", "soft"]);
    for factor in FACTORS {
        let [hard, soft] = pair(&|targets| at_rate(targets, factor));
        rates.push([format!("× {factor}"), hard, soft]);
    }
    rates.notes.push("A dash: diverged.".into());

    let values = |key: String| -> Vec<f64> {
        summary.rows_of(MEASURED).filter_map(|row| row.measures.get(&key).copied()).collect()
    };
    let series = ["initial", "trained"].map(|when| Series {
        name: format!("soft, {when} weights"),
        points: TEMPERATURES
            .iter()
            .filter_map(|&x| Point::of(x, &values(format!("noise_soft_{x}_{when}"))))
            .collect(),
    });
    let chart = Chart {
        title: format!("Variance of the gradient between cases, {}", summary.dataset),
        x_label: "temperature T".into(),
        y_label: "variance / mean²".into(),
        log_x: true,
        log_y: true,
        series: series.into(),
        references: ["initial", "trained"]
            .map(|when| {
                (format!("hard, {when}"), statistics::mean(&values(format!("noise_hard_{when}"))))
            })
            .into(),
    };
    Conclusion {
        tables: vec![noises, parts, rates],
        claims: claims(summary),
        charts: vec![("variance".into(), chart)],
    }
}

fn claims(summary: &Summary) -> Vec<Claim> {
    let mut claims = Vec::new();
    // With labels and with soft targets at T = 20, the initial weights, for each seed.
    let noise = |row: &Row| {
        let of = |key| row.measures.get(key).copied();
        Some((of("noise_hard_initial")?, of("noise_soft_20_initial")?))
    };
    let noises: Vec<(f64, f64)> = summary.rows_of(MEASURED).filter_map(noise).collect();
    if !noises.is_empty() {
        let mean = |of: fn(&(f64, f64)) -> f64| {
            statistics::mean(&noises.iter().map(of).collect::<Vec<_>>())
        };
        let halved = noises.iter().filter(|(hard, soft)| *soft < 0.5 * hard).count();
        claims.push(Claim {
            paper: "Soft targets have much less variance in the gradient between cases; we ask \
                    for half."
                .into(),
            ours: format!(
                "relative to the mean's square {:.2} at T = 20, {:.2} with labels, initial \
                 weights; half or less for {halved} of {} seeds",
                mean(|n| n.1),
                mean(|n| n.0),
                noises.len()
            ),
            verdict: Verdict::of_tests(halved, noises.len()),
        });
    }
    let mean_errors = |system: &str| {
        let errors: Vec<f64> = summary.rows_of(system).map(|row| row.test_errors as f64).collect();
        statistics::mean(&errors)
    };
    let few = [1, 3, 10].map(|percent| TARGETS.map(|targets| part(targets, percent)));
    // McNemar's tests, a seed and a part each.
    let tests = few.iter().flat_map(|[hard, soft]| {
        summary.rows_of(soft).filter_map(move |soft| {
            let hard = summary.row(hard, soft.seed)?;
            Some(statistics::mcnemar(&soft.misclassified, &hard.misclassified))
        })
    });
    let tests: Vec<_> = tests.collect();
    if !tests.is_empty() {
        let gains = few
            .iter()
            .map(|[hard, soft]| format!("{:.0} → {:.0}", mean_errors(hard), mean_errors(soft)));
        let better = tests.iter().filter(|test| test.first_is_better()).count();
        claims.push(Claim {
            paper: "With soft targets the small net can be trained on much less data.".into(),
            ours: format!(
                "errors of hard → soft targets on 1, 3 and 10 % of it: {}; McNemar p < 0.01 in \
                 {better} of {} pairs",
                gains.collect::<Vec<_>>().join(", "),
                tests.len()
            ),
            verdict: Verdict::of_tests(better, tests.len()),
        });
    }
    let borne: Vec<[usize; 2]> = summary
        .rows_of(MEASURED)
        .filter_map(|row| {
            Some([borne(summary, "hard", row.seed)?, borne(summary, "soft", row.seed)?])
        })
        .collect();
    if !borne.is_empty() {
        let higher = borne.iter().filter(|[hard, soft]| soft > hard).count();
        let [hard, soft] = TARGETS.map(|targets| {
            FACTORS.map(|factor| summary.shown_errors(&at_rate(targets, factor))).join(" → ")
        });
        claims.push(Claim {
            paper: "With soft targets the learning rate can be much higher.".into(),
            ours: format!(
                "errors at × 1, 3 and 10: {hard} with hard targets, {soft} with soft ones; which \
                 bear a higher rate, by McNemar's test against × 1, for {higher} of {} seeds",
                borne.len()
            ),
            verdict: of_borne(&borne),
        });
    }
    claims
}

/// The highest of [`FACTORS`], by index, at which the errors are no more than at × 1 but by chance.
fn borne(summary: &Summary, targets: &str, seed: u64) -> Option<usize> {
    let at = |factor| summary.row(&at_rate(targets, factor), seed);
    let usual = at(1.0)?;
    FACTORS.iter().rposition(|&factor| {
        at(factor).is_some_and(|row| {
            !statistics::mcnemar(&usual.misclassified, &row.misclassified).first_is_better()
        })
    })
}

/// Of the rates that hard and soft targets bear, for each seed. A seed in which hard ones bear the
/// highest rate that was tried cannot tell.
fn of_borne(borne: &[[usize; 2]]) -> Verdict {
    let all = |holds: fn(&[usize; 2]) -> bool| borne.iter().all(holds);
    if all(|[hard, soft]| soft > hard) {
        Verdict::Reproduced
    } else if all(|[hard, soft]| soft <= hard && *hard < FACTORS.len() - 1) {
        Verdict::NotReproduced
    } else {
        Verdict::Inconclusive
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use limbeck_kernels::Isa;

    #[test]
    fn a_higher_rate_is_borne_where_errors_do_not_grow_beyond_chance() {
        let row = |system: String, errors: std::ops::Range<usize>| -> Row {
            let row = serde_json::json!({
                "system": system, "seed": 0, "test_errors": errors.len(), "train_errors": 0,
                "seconds": 0.0, "model": "", "sha256": "", "misclassified": Vec::from_iter(errors),
            });
            serde_json::from_value(row).unwrap()
        };
        // Twelve more errors and none fewer: p = 2⁻¹¹; three: a quarter.
        let rows = vec![
            row(part("hard", 100), 0..10),
            row(at_rate("hard", 3.0), 0..13),
            row(at_rate("hard", 10.0), 0..22),
            row(part("soft", 100), 0..10),
            row(at_rate("soft", 10.0), 0..9),
        ];
        let summary = Summary::new("variance", "mnist", "quick", rows, &[]);
        assert_eq!(borne(&summary, "hard", 0), Some(1));
        // At × 3 it diverged.
        assert_eq!(borne(&summary, "soft", 0), Some(2));
        assert_eq!(borne(&summary, "soft", 1), None);

        assert_eq!(of_borne(&[[1, 2], [0, 1]]), Verdict::Reproduced);
        assert_eq!(of_borne(&[[1, 2], [1, 1]]), Verdict::Inconclusive);
        assert_eq!(of_borne(&[[1, 1], [1, 0]]), Verdict::NotReproduced);
        assert_eq!(of_borne(&[[2, 2], [2, 2]]), Verdict::Inconclusive);
    }

    /// One layer, zero weights: the gradient of case i is xᵢ ⊗ (½, ½) minus its target's part, so
    /// that two cases of the same label and image give no variance and opposite ones all of it.
    #[test]
    fn noise_of_cases_known_by_hand() {
        let context = Context::new(Isa::best(), 1).unwrap();
        let mut model = Mlp::new(&[1, 2], 0);
        model.params_mut().fill(0.0);
        let split = |labels: [u16; 2]| Split::of_images(vec![255; 2], (1, 1), Some(labels.into()));
        let noise = |labels| {
            let split = split(labels);
            let cases = Cases { model: &model, split: &split, logits: &[0.0; 4], cases: 2 };
            cases.noise(&context, None)
        };
        assert_eq!(noise([1, 1]), 0.0);
        assert_eq!(noise([0, 1]), f64::INFINITY);
        // Soft targets of (σ, 1 − σ) and (½, ½): gradients a·(1, −1) and 0, so ḡ = a/2·(1, −1) and
        // the noise is (a²/2 − a²/4)/(a²/4) = 1, whatever a and T.
        let split = split([0, 0]);
        let cases = Cases { model: &model, split: &split, logits: &[3.0, 1.0, 0.0, 0.0], cases: 2 };
        for t in [1.0, 20.0] {
            assert!((cases.noise(&context, Some(t)) - 1.0).abs() < 1e-5);
        }
    }
}
