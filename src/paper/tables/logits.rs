//! The paper's section 2.1: at a high temperature distillation is the matching of logits.
//!
//! With student logits z, teacher logits v, their difference d = z − v and its mean d̄ over the N
//! classes, the gradient of the T²-weighted soft term tends to the centred difference:
//!
//! ```text
//! T·(softmax(z/T) − softmax(v/T)) → (d − d̄)/N,   the difference between the two being O(1/T)
//! ```
//!
//! whether or not anybody centres the logits: softmax does not see a shift. That is measured on the
//! real teacher's logits and those of a net trained on labels, beside the raw difference d/N, to
//! which nothing converges. Then students are trained at T = 20, at a T so high that only rounding
//! is left of the difference, and by matching logits, T = ∞.

use crate::engine::config::Config;
use crate::engine::distill;
use crate::engine::loss::LossSpec;
use crate::engine::trainer::Task;
use crate::files::error::Result;
use crate::paper::preset::{Plan, Preset};
use crate::paper::study::{Conclusion, Design, Study};
use crate::run::chart::{Chart, Point, Series};
use crate::run::context::RunContext;
use crate::run::statistics;
use crate::run::summary::{Claim, Summary, Table, Verdict};
use limbeck_datasets::Dataset;
use limbeck_kernels::reference::softmax;
use std::collections::BTreeMap;
use std::path::Path;

/// Where the limit is measured.
const LIMIT: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1e3, 1e4, 1e5];
/// The students.
const STUDENTS: [(&str, f32); 3] =
    [("T = 20", 20.0), ("T = 1000", 1e3), ("logit matching", f32::INFINITY)];

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
    let plan = Plan::new(preset, dataset);
    let all: Vec<u64> = (first_seed..first_seed + seeds).collect();
    let design = Design {
        experiment: "logits",
        preset: preset.name(),
        configs: &[
            ("teacher", &plan.teacher),
            ("baseline", &plan.baseline),
            ("student", &plan.student),
        ],
        loss_contract: Some(LossSpec::soft(&plan.student).contract()),
        paper: &[],
    };
    let mut study = Study::open(run, dataset, &design, &all, out)?;
    let train = plan.train_set(dataset);
    let systems: Vec<_> = std::iter::once("baseline").chain(STUDENTS.map(|s| s.0)).collect();
    let teachers = (&plan.teacher, &train);
    study.for_each_teacher(run, &all, &systems, teachers, |run, study, seed, teacher| {
        let [baseline, student] =
            [&plan.baseline, &plan.student].map(|config| Config { seed, ..config.clone() });
        let logits = distill::teacher_logits(run.context, &[teacher], &train, 1.0, None);
        let task = Task::hard("baseline", &baseline, &train);
        study.ensure(run, &task, seed, |context, model| {
            limit_errors(&model.logits(context, &train), &logits, dataset.classes)
        })?;
        for (name, temperature) in study.order(STUDENTS) {
            let objective = LossSpec { temperature, ..LossSpec::soft(&student) };
            let task = Task::soft(name, &student, &train, objective, &logits);
            study.ensure(run, &task, seed, |_, _| BTreeMap::new())?;
        }
        Ok(())
    })?;
    study.finish(conclude)
}

/// ‖g − (d − d̄)/N‖/‖(d − d̄)/N‖ and ‖g − d/N‖/‖d/N‖ over all examples, g = T·(softmax(z/T) −
/// softmax(v/T)), for each T of [`LIMIT`], in f64.
fn limit_errors(z: &[f32], v: &[f32], classes: usize) -> BTreeMap<String, f64> {
    let widen = |row: &[f32]| -> Vec<f64> { row.iter().map(|&x| x.into()).collect() };
    let mut measures = BTreeMap::new();
    for t in LIMIT {
        // Squared distance to each limit, and the limit's own square.
        let mut sums = [[0.0; 2]; 2];
        for (z, v) in z.chunks_exact(classes).zip(v.chunks_exact(classes)) {
            let (z, v) = (widen(z), widen(v));
            let difference: Vec<f64> = z.iter().zip(&v).map(|(z, v)| z - v).collect();
            let mean = statistics::mean(&difference);
            let (q, p) = (softmax(&z, t), softmax(&v, t));
            for ((q, p), d) in q.iter().zip(&p).zip(&difference) {
                let gradient = t * (q - p);
                for (sums, limit) in sums.iter_mut().zip([d - mean, *d]) {
                    let limit = limit / classes as f64;
                    sums[0] += (gradient - limit).powi(2);
                    sums[1] += limit.powi(2);
                }
            }
        }
        for (name, [distance, size]) in ["centred", "raw"].iter().zip(sums) {
            measures.insert(format!("{name}_error_{t}"), (distance / size).sqrt());
        }
    }
    measures
}

fn conclude(summary: &Summary) -> Conclusion {
    let errors = |name: &str, t: f64| -> Vec<f64> {
        let key = format!("{name}_error_{t}");
        let rows = summary.rows_of("baseline");
        rows.filter_map(|row| row.measures.get(&key).copied()).collect()
    };
    let mean = |name: &str, t: f64| statistics::mean(&errors(name, t));
    let mut limit = Table::new(
        format!("The gradient at T against its limits, relative error, {}", summary.dataset),
        &["T", "centred difference", "raw difference", "centred error × T"],
    );
    for t in LIMIT {
        let [centred, raw] = ["centred", "raw"].map(|name| mean(name, t));
        let cells = [centred, raw].map(|error| format!("{error:.2e}"));
        let [centred_cell, raw_cell] = cells;
        limit.push([t.to_string(), centred_cell, raw_cell, format!("{:.3}", centred * t)]);
    }
    let mut students = Table::new(
        format!("Test errors of students, {}, {}", summary.dataset, summary.preset),
        &["student", "errors", "negative log-likelihood"],
    );
    for (name, _) in STUDENTS {
        students.push([
            name.to_string(),
            summary.shown_errors(name),
            summary.shown(name, 4, |row| row.test_nll),
        ]);
    }
    let series = ["centred", "raw"].map(|name| Series {
        name: format!("{name} difference"),
        points: LIMIT.map(|x| Point { x, y: mean(name, x), spread: 0.0 }).into(),
    });
    let chart = Chart {
        title: format!("Distance of the soft gradient from its limits, {}", summary.dataset),
        x_label: "temperature T".into(),
        y_label: "relative error".into(),
        log_x: true,
        log_y: true,
        series: series.into(),
        references: Vec::new(),
    };
    // The exponent p of error ~ Tᵖ between T = 100 and T = 10,000.
    let slope = (mean("centred", 1e4) / mean("centred", 1e2)).log10() / 2.0;
    let (far, raw) = (mean("centred", 1e4), mean("raw", 1e4));
    let holds = (slope + 1.0).abs() < 0.05 && far < 1e-2 && raw > 10.0 * far;
    let claims = if slope.is_finite() {
        vec![Claim {
            paper: "At high temperature, and with logits of zero mean for each case, distillation \
                    minimises the squared difference of the logits."
                .into(),
            ours: format!(
                "relative error of the centred limit {:.1} % at T = 20, falling as T to the power \
                 {slope:.2}; of the raw difference {:.1} % at any high T",
                100.0 * mean("centred", 20.0),
                100.0 * raw
            ),
            verdict: if holds { Verdict::Reproduced } else { Verdict::NotReproduced },
        }]
    } else {
        Vec::new()
    };
    Conclusion { tables: vec![limit, students], claims, charts: vec![("limit".into(), chart)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_reached_as_one_over_t() {
        // Two classes: T·(σ(a/T) − σ(b/T)) against (a − b)/4 in each, a = z₀ − z₁, b = v₀ − v₁.
        let errors = limit_errors(&[3.0, 1.0], &[0.5, 1.5], 2);
        let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
        for t in LIMIT {
            let (gradient, limit) = (t * (sigma(2.0 / t) - sigma(-1.0 / t)), 0.75);
            let expected = ((gradient - limit) / limit).abs();
            let found = errors[&format!("centred_error_{t}")];
            assert!((found - expected).abs() < 1e-9, "T = {t}: {found}, expected {expected}");
        }
        // The raw difference is (2.5, −0.5)/2: its mean, 1/2, stays in the way at every T.
        let raw = (0.5 / (1.25f64.powi(2) + 0.25f64.powi(2)).sqrt()) * 2f64.sqrt();
        assert!((errors["raw_error_100000"] - raw).abs() < 1e-4);
    }
}
