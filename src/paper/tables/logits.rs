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

use super::transfer::Transfer;
use crate::engine::{config::Config, trainer::Task};
use crate::files::error::Result;
use crate::paper::experiment::{About, Conclusion, Data, Experiment, ExperimentSpec, Setup};
use crate::paper::{graph::Node, preset::PresetConfigs};
use crate::run::chart::{Chart, Point, Series};
use crate::run::statistics;
use crate::run::summary::{Claim, Measure, Measures, Row, Summary, Table, Verdict};
use limbeck_kernels::reference::softmax;
use std::rc::Rc;

/// Where the limit is measured.
const LIMIT: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1e3, 1e4, 1e5];
const BASELINE: &str = "baseline";
const STUDENTS: [(&str, f32); 3] =
    [("T = 20", 20.0), ("T = 1000", 1e3), ("logit matching", f32::INFINITY)];

/// What the soft gradient is held against: (d − d̄)/N and d/N.
const DIFFERENCES: [&str; 2] = ["centred", "raw"];

/// The gradient's relative distance from one of [`DIFFERENCES`] at T.
fn distance(difference: &str, temperature: f64) -> Measure {
    Measure::numbered(format!("{difference}_error_{temperature}"))
}

/// The experiment.
pub struct Logits;

impl Experiment for Logits {
    fn about(&self) -> About {
        About {
            name: "logits",
            section: "2.1",
            shows: "the limit of high temperature, and students that match logits",
            data: &[Data::Images],
            takes_teachers: true,
            takes_seeds: true,
            has_more_rows: false,
        }
    }

    fn declare(&self, setup: Setup) -> Result<ExperimentSpec> {
        let (request, dataset) = setup.images(self)?;
        let transfer = Transfer::new(PresetConfigs::new(request.preset, dataset), dataset);
        let configs = &transfer.configs;
        let nets = |seed| {
            let student = |(name, t)| transfer.student(name, &configs.student, t, seed);
            std::iter::once(plain(&transfer, seed)).chain(STUDENTS.map(student))
        };
        Ok(transfer.spec(self, request, &configs.all(), nets, conclude))
    }
}

/// The net on labels, with which the limit is measured.
fn plain(transfer: &Rc<Transfer>, seed: u64) -> Node {
    let transfer = transfer.clone();
    Node::row(BASELINE, seed, vec![Transfer::teacher(seed)], move |run| {
        let Transfer { configs, dataset, train, .. } = &*transfer;
        let config = Config { seed, ..configs.baseline.clone() };
        let (model, row) = run.train(dataset, &Task::hard(BASELINE, &config, train), seed)?;
        let (z, v) = (model.logits(run.kernels(), train), transfer.logits(run, seed)?);
        Ok(Row { measures: limit_errors(&z, &v, dataset.classes), ..row })
    })
}

/// ‖g − (d − d̄)/N‖/‖(d − d̄)/N‖ and ‖g − d/N‖/‖d/N‖ over all examples, g = T·(softmax(z/T) −
/// softmax(v/T)), for each T of [`LIMIT`], in f64.
fn limit_errors(z: &[f32], v: &[f32], classes: usize) -> Measures {
    let widen = |row: &[f32]| -> Vec<f64> { row.iter().map(|&x| x.into()).collect() };
    let mut measures = Measures::new();
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
        let of = |(name, [gap, size]): (&str, [f64; 2])| distance(name, t).of((gap / size).sqrt());
        measures.extend(DIFFERENCES.into_iter().zip(sums).map(of));
    }
    measures
}

fn conclude(summary: &Summary) -> Conclusion {
    let mean = |name, t| statistics::mean(&summary.values(BASELINE, &distance(name, t)));
    let mut limit = Table::new(
        format!("The gradient at T against its limits, relative error, {}", summary.dataset),
        &["T", "centred difference", "raw difference", "centred error × T"],
    );
    for t in LIMIT {
        let [centred, raw] = DIFFERENCES.map(|name| mean(name, t));
        let [of_centred, of_raw] = [centred, raw].map(|error| format!("{error:.2e}"));
        limit.push([t.to_string(), of_centred, of_raw, format!("{:.3}", centred * t)]);
    }
    let mut students = Table::new(
        format!(
            "Test errors{} of students, {}, {}",
            summary.of_examples(),
            summary.dataset,
            summary.preset
        ),
        &["student", "errors", "negative log-likelihood"],
    );
    for (name, _) in STUDENTS {
        let nll = summary.cell(name, 4, &Measure::TestNll);
        students.push([name.to_string(), summary.errors_cell(name), nll]);
    }
    let series = DIFFERENCES.map(|name| {
        let points = LIMIT.map(|t| Point::at(t, mean(name, t)));
        Series::new(format!("{name} difference"), points)
    });
    let title = format!("Distance of the soft gradient from its limits, {}", summary.dataset);
    let chart = Chart {
        caption: "How far the gradient of the soft loss is from that of matched logits; at high \
                  temperature the two are the same, if the logits are centred."
            .into(),
        log_x: true,
        log_y: true,
        ..Chart::new(title, "temperature T", "relative error", series)
    };
    // The exponent p of error ~ Tᵖ between T = 100 and T = 10,000.
    let (far, raw) = (mean("centred", 1e4), mean("raw", 1e4));
    let slope = (far / mean("centred", 1e2)).log10() / 2.0;
    let holds = (slope + 1.0).abs() < 0.05 && far < 1e-2 && raw > 10.0 * far;
    let claim = slope.is_finite().then(|| Claim {
        paper: "At high temperature, and with logits of zero mean for each case, distillation \
                minimises the squared difference of the logits."
            .into(),
        ours: format!(
            "relative error of the centred limit {:.1} % at T = 20, falling as T to the power \
             {slope:.2}; of the raw difference {:.1} % at any high T",
            100.0 * mean("centred", 20.0),
            100.0 * raw
        ),
        verdict: Verdict::of(Some(holds)),
    });
    let [at_20, .., matched] = STUDENTS.map(|(name, _)| summary.errors_cell(name));
    Conclusion {
        headline: Some(format!(
            "Students that match the teacher's logits, the limit of high temperature, make {matched} \
             test errors{}; those at T = 20 make {at_20}.",
            summary.of_examples()
        )),
        tables: vec![limit, students],
        claims: claim.into_iter().collect(),
        charts: vec![("limit".into(), chart)],
    }
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
