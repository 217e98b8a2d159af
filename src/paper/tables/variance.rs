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

use super::transfer::{Transfer, draw, rows};
use crate::engine::config::Precision;
use crate::engine::loss::{self, LossSpec};
use crate::engine::mlp::{Mlp, Workspace};
use crate::engine::trainer::Task;
use crate::files::error::Result;
use crate::paper::experiment::{About, Conclusion, Data, Experiment, ExperimentSpec, Setup};
use crate::paper::preset::{Preset, PresetConfigs};
use crate::paper::{experiment_run::ExperimentRun, graph::Node};
use crate::run::chart::{Chart, Point, Series};
use crate::run::statistics;
use crate::run::summary::{Claim, Measure, Measures, Row, Summary, Table, Verdict};
use limbeck_datasets::Split;
use limbeck_kernels::{Buffer, Context, Panels, PanelsMut, panel_len};

/// Temperatures at which the noise of the soft targets' gradient is measured.
const TEMPERATURES: [f64; 10] = [1.0, 2.0, 2.5, 3.0, 4.0, 5.0, 8.0, 10.0, 20.0, 40.0];
/// Percent of the training set.
const PERCENT: [usize; 5] = [1, 3, 10, 30, 100];
/// Factors of the learning rate.
const FACTORS: [f64; 3] = [1.0, 3.0, 10.0];
const TARGETS: [&str; 2] = ["hard", "soft"];
/// The row that holds the noise, measured with its student's weights.
const MEASURED: &str = "soft, 100 % of the data";

/// The noise of the gradient of soft targets at T, or of hard ones, with the `initial` or the
/// `trained` weights.
fn noise(temperature: Option<f64>, when: &str) -> Measure {
    Measure::numbered(match temperature {
        None => format!("noise_hard_{when}"),
        Some(t) => format!("noise_soft_{t}_{when}"),
    })
}

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

/// The experiment.
pub struct Variance;

impl Experiment for Variance {
    fn about(&self) -> About {
        About {
            name: "variance",
            section: "1",
            shows: "variance of the gradient, less data, higher learning rates",
            data: &[Data::Images],
            takes_teachers: true,
            takes_seeds: true,
            has_more_rows: false,
        }
    }

    fn declare(&self, setup: Setup) -> Result<ExperimentSpec> {
        let (request, dataset) = setup.images(self)?;
        let mut configs = PresetConfigs::new(request.preset, dataset);
        let (epochs, cases) = budget(request.preset);
        configs.baseline.training.epochs = epochs;
        configs.student.training.epochs = epochs;
        let transfer = Transfer::new(configs, dataset);
        let nodes = |seed| {
            let node = |net: Net| {
                let (transfer, needs) = (transfer.clone(), vec![Transfer::teacher(seed)]);
                let (name, faster) = (net.name.clone(), net.factor > 1.0);
                let make = move |run: &mut ExperimentRun| net.train(run, &transfer, cases, seed);
                let node = Node::row(name, seed, needs, make);
                // That a learning rate is too high is a result.
                if faster { node.may_diverge() } else { node }
            };
            nets().into_iter().map(node).collect::<Vec<_>>()
        };
        let PresetConfigs { teacher, baseline, student, .. } = &transfer.configs;
        let configs = [("teacher", teacher), ("hard", baseline), ("soft", student)];
        Ok(transfer.spec(self, request, &configs, nodes, conclude))
    }
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
        let faster = FACTORS[1..].iter().map(move |&f| (at_rate(targets, f), 100, f));
        let all = parts.into_iter().chain(faster);
        all.map(move |(name, percent, factor)| Net { name, targets, percent, factor })
    };
    TARGETS.into_iter().flat_map(of).collect()
}

impl Net {
    fn train(
        &self,
        run: &mut ExperimentRun,
        transfer: &Transfer,
        cases: usize,
        seed: u64,
    ) -> Result<Row> {
        let Net { ref name, targets, percent, factor } = *self;
        let Transfer { configs, dataset, train, .. } = transfer;
        let soft = targets == "soft";
        let mut config = if soft { configs.student.clone() } else { configs.baseline.clone() };
        config.seed = seed;
        config.training.learning_rate *= factor;
        config.training.epochs = config.training.epochs * 100 / percent;
        let logits = transfer.logits(run, seed)?;
        let chosen = draw(train.len(), seed, percent);
        let chosen_logits = rows(&logits, dataset.classes, &chosen);
        let split = train.subset(&chosen);
        let task = if soft {
            Task::soft(name, &config, &split, LossSpec::soft(&config), &chosen_logits)
        } else {
            Task::hard(name, &config, &split)
        };
        let (model, row) = run.train(dataset, &task, seed)?;
        if name != MEASURED {
            return Ok(row);
        }
        let initial = task.initial_model();
        let mut measures = Measures::new();
        for (when, model) in [("initial", &initial), ("trained", &*model)] {
            let cases = Cases { model, split: train, logits: &logits, cases };
            for t in std::iter::once(None).chain(TEMPERATURES.map(Some)) {
                let found = cases.noise(run.kernels(), t.map(|t| t as f32));
                measures.extend([noise(t, when).of(found)]);
            }
        }
        Ok(Row { measures, ..row })
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
        let mut work = Workspace::for_training(model, 1, Precision::F32);
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
    let mut noises = Table::new(
        format!(
            "Variance of the gradient between cases over its mean's square, {}",
            summary.dataset
        ),
        &["targets", "initial weights", "trained student"],
    );
    for t in std::iter::once(None).chain(TEMPERATURES.map(Some)) {
        let [initial, trained] =
            ["initial", "trained"].map(|when| summary.cell(MEASURED, 2, &noise(t, when)));
        noises.push([t.map_or("hard".into(), |t| format!("soft, T = {t}")), initial, trained]);
    }
    let errors = |variant: &str| summary.errors_cell(variant);
    let pair = |name: &dyn Fn(&str) -> String| TARGETS.map(|targets| errors(&name(targets)));
    let mut parts = Table::new(
        format!(
            "Test errors{} by part of the training set, {}",
            summary.of_examples(),
            summary.preset
        ),
        &["examples", "hard", "soft"],
    );
    for percent in PERCENT {
        let [hard, soft] = pair(&|targets| part(targets, percent));
        parts.push([format!("{percent} %"), hard, soft]);
    }
    parts.note("Equally many steps for every part.");
    let mut rates = Table::new("Test errors by learning rate", &["learning rate", "hard", "soft"]);
    for factor in FACTORS {
        let [hard, soft] = pair(&|targets| at_rate(targets, factor));
        rates.push([format!("× {factor}"), hard, soft]);
    }
    rates.note("A dash: diverged.");

    let values = |t, when| summary.values(MEASURED, &noise(t, when));
    let series = ["initial", "trained"].map(|when| {
        let points = TEMPERATURES.iter().filter_map(|&t| Point::of(t, &values(Some(t), when)));
        Series::new(format!("soft, {when} weights"), points)
    });
    let title = format!("Variance of the gradient between cases, {}", summary.dataset);
    let chart = Chart {
        caption: "How much the gradient differs from case to case, relative to its mean, by the \
                  temperature of the soft targets."
            .into(),
        log_x: true,
        log_y: true,
        references: ["initial", "trained"]
            .map(|when| (format!("hard, {when}"), statistics::mean(&values(None, when))))
            .into(),
        ..Chart::new(title, "temperature T", "variance / mean²", series)
    };
    let few = PERCENT[0];
    let [hard, soft] = pair(&|targets| part(targets, few));
    Conclusion {
        headline: Some(format!(
            "On {few} % of the data soft targets make {soft} test errors{}, labels {hard}.",
            summary.of_examples()
        )),
        tables: vec![noises, parts, rates],
        claims: claims(summary),
        charts: vec![("variance".into(), chart)],
    }
}

fn claims(summary: &Summary) -> Vec<Claim> {
    let mut claims = Vec::new();
    // With labels and with soft targets at T = 20, the initial weights, for each seed.
    let both = |row: &Row| {
        Some((row.value(&noise(None, "initial"))?, row.value(&noise(Some(20.0), "initial"))?))
    };
    let noises: Vec<(f64, f64)> = summary.rows_of(MEASURED).filter_map(both).collect();
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
    let mean = |variant: &str| statistics::mean(&summary.values(variant, &Measure::TestErrors));
    let few = [1, 3, 10].map(|percent| TARGETS.map(|targets| part(targets, percent)));
    // McNemar's tests, a seed and a part each.
    let tests: Vec<_> = few.iter().flat_map(|[hard, soft]| summary.paired(soft, hard)).collect();
    if !tests.is_empty() {
        let gains = few.map(|[hard, soft]| format!("{:.0} → {:.0}", mean(&hard), mean(&soft)));
        let better = tests.iter().filter(|test| test.first_is_better()).count();
        claims.push(Claim {
            paper: "With soft targets the small net can be trained on much less data.".into(),
            ours: format!(
                "errors of hard → soft targets on 1, 3 and 10 % of it: {}; McNemar p < 0.01 in \
                 {better} of {} pairs",
                gains.join(", "),
                tests.len()
            ),
            verdict: Verdict::of_pairs(&tests),
        });
    }
    let both =
        |row: &Row| Some([borne(summary, "hard", row.seed)?, borne(summary, "soft", row.seed)?]);
    let borne: Vec<[usize; 2]> = summary.rows_of(MEASURED).filter_map(both).collect();
    if !borne.is_empty() {
        let higher = borne.iter().filter(|[hard, soft]| soft > hard).count();
        let [hard, soft] = TARGETS.map(|targets| {
            FACTORS.map(|factor| summary.errors_cell(&at_rate(targets, factor))).join(" → ")
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
    let bears = |row: &Row| !usual.mcnemar(row).first_is_better();
    FACTORS.iter().rposition(|&factor| at(factor).is_some_and(bears))
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
        let row = |variant: String, errors: std::ops::Range<usize>| -> Row {
            let row = serde_json::json!({
                "variant": variant, "seed": 0, "test_errors": errors.len(), "train_errors": 0,
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
