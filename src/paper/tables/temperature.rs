//! The paper's section 3: the best temperature against the size of the student.
//!
//! Students of one teacher, 784-H-H-10 with H from 30 to 800, at temperatures from 1 to 40. The
//! T²-weighted loss keeps the gradient's size about the same at every T, so that one learning
//! rate serves all.

use super::transfer::Transfer;
use crate::files::error::Result;
use crate::paper::experiment::{About, Conclusion, Data, Experiment, ExperimentSpec, Setup};
use crate::paper::preset::{Preset, PresetConfigs};
use crate::run::chart::{Chart, Point, Series};
use crate::run::statistics::{self, MeanSd};
use crate::run::summary::{Claim, Measure, Summary, Table, Verdict};

/// The grid: temperatures, widths, and epochs of each student.
fn grid(preset: Preset) -> (&'static [f64], &'static [usize], usize) {
    const ALL: [f64; 10] = [1.0, 2.0, 2.5, 3.0, 4.0, 5.0, 8.0, 10.0, 20.0, 40.0];
    match preset {
        Preset::Smoke => (&[1.0, 3.0, 10.0, 20.0], &[30, 300], 2),
        Preset::Quick => (&[1.0, 3.0, 20.0], &[30, 300], 15),
        Preset::Standard => (&ALL, &[30, 100, 300, 800], 20),
        Preset::Paper => (&ALL, &[30, 100, 300, 800], 60),
    }
}

fn variant(width: usize, temperature: f64) -> String {
    format!("{width} units, T = {temperature}")
}

/// The experiment.
pub struct Temperature;

impl Experiment for Temperature {
    fn about(&self) -> About {
        About {
            name: "temperature",
            section: "3",
            shows: "the best temperature against the size of the student",
            data: &[Data::Images],
            takes_teachers: true,
        }
    }

    fn declare(&self, setup: Setup) -> Result<ExperimentSpec> {
        let (request, dataset) = setup.images(self)?;
        let (temperatures, widths, epochs) = grid(request.preset);
        let mut configs = PresetConfigs::new(request.preset, dataset);
        configs.student.training.epochs = epochs;
        let transfer = Transfer::new(configs, dataset);
        let PresetConfigs { teacher, student, .. } = &transfer.configs;
        let cells = || widths.iter().flat_map(|&w| temperatures.iter().map(move |&t| (w, t)));
        let students = |seed| {
            let student = |(width, t)| {
                let mut config = student.clone();
                let hidden = config.model.layers.len() - 1;
                config.model.layers[1..hidden].fill(width);
                transfer.student(variant(width, t), &config, t as f32, seed)
            };
            cells().map(student).collect::<Vec<_>>()
        };
        let configs = [("teacher", teacher), ("student", student)];
        Ok(transfer.spec(self, request, &configs, students, move |summary| {
            conclude(summary, temperatures, widths)
        }))
    }
}

/// Test errors of one cell over the seeds.
fn errors(summary: &Summary, width: usize, temperature: f64) -> Vec<f64> {
    summary.values(&variant(width, temperature), &Measure::TestErrors)
}

fn conclude(summary: &Summary, temperatures: &[f64], widths: &[usize]) -> Conclusion {
    let heads: Vec<String> = widths.iter().map(|width| format!("{width} units")).collect();
    let mut columns = vec!["T"];
    columns.extend(heads.iter().map(String::as_str));
    let mut table = Table::new(
        format!(
            "Test errors{} on {} by temperature and width, {}",
            summary.of_examples(),
            summary.dataset,
            summary.preset
        ),
        &columns,
    );
    for &t in temperatures {
        let cells = widths.iter().map(|&width| summary.errors_cell(&variant(width, t)));
        table.push(std::iter::once(t.to_string()).chain(cells));
    }
    let seeds = errors(summary, widths[0], temperatures[0]).len();
    table.note(format!("Mean ± standard deviation of {seeds} seeds."));
    let series = widths.iter().map(|&width| {
        let point = |&t: &f64| Point::of(t, &errors(summary, width, t));
        Series::new(format!("{width} units a layer"), temperatures.iter().filter_map(point))
    });
    let title = format!("Test errors against temperature, {}", summary.dataset);
    let chart = Chart {
        caption:
            "Test errors of students by the temperature they were distilled at, for each width; \
                  bars are the standard deviation of the seeds."
                .into(),
        log_x: true,
        log_y: true,
        ..Chart::new(title, "temperature T", "test errors", series)
    };
    let mean = |width, t| statistics::mean(&errors(summary, width, t));
    // Standard deviation of an error count between seeds, pooled over the temperatures.
    let pooled = |width| {
        let variance = |&t: &f64| Some(statistics::sample_sd(&errors(summary, width, t))?.powi(2));
        let variances: Vec<f64> = temperatures.iter().filter_map(variance).collect();
        (!variances.is_empty()).then(|| statistics::mean(&variances).sqrt())
    };
    // Two means differ by chance by up to about this much.
    let noise = |width| pooled(width).map(|sd| 2.0 * sd * (2.0 / seeds as f64).sqrt());
    let mut claims = Vec::new();
    let high: Vec<f64> = temperatures.iter().copied().filter(|&t| t > 8.0).collect();
    for &width in widths.iter().filter(|&&width| width >= 300 && high.len() > 1) {
        let means: Vec<f64> = high.iter().map(|&t| mean(width, t)).collect();
        let (low, top) =
            means.iter().fold((f64::MAX, f64::MIN), |(low, top), &m| (low.min(m), top.max(m)));
        let noise = noise(width);
        claims.push(Claim {
            paper: format!(
                "With {width} units a layer all temperatures above 8 give about the same."
            ),
            ours: format!(
                "{low:.1} to {top:.1} errors, noise of a difference {}",
                noise.map_or("unknown (one seed)".into(), |noise| format!("{noise:.1}"))
            ),
            // Alike: as chance has it, or within a tenth.
            verdict: Verdict::of(noise.map(|noise| top - low <= noise.max(0.1 * low))),
        });
    }
    let inside = |t: f64| (2.5..=4.0).contains(&t);
    let best = |of: &dyn Fn(f64) -> bool| {
        let means = temperatures.iter().filter(|&&t| of(t)).map(|&t| mean(30, t));
        means.reduce(f64::min)
    };
    let parts = [best(&inside), best(&|t| t < 2.5), best(&|t| t > 4.0)];
    if let (true, [Some(best), Some(below), Some(above)]) = (widths.contains(&30), parts) {
        let gain = below.min(above) - best;
        claims.push(Claim {
            paper: "With 30 units a layer temperatures from 2.5 to 4 are clearly better than \
                    higher or lower ones."
                .into(),
            ours: format!("best mean there {best:.1}, below {below:.1}, above {above:.1} errors"),
            verdict: match noise(30) {
                Some(noise) if gain > noise => Verdict::Reproduced,
                Some(noise) if gain < -noise => Verdict::NotReproduced,
                _ => Verdict::Inconclusive,
            },
        });
    }
    Conclusion {
        headline: headline(summary, temperatures, widths),
        tables: vec![table],
        claims,
        charts: vec![("temperature".into(), chart)],
    }
}

/// The best temperature of the narrowest and of the widest student, beside the highest.
fn headline(summary: &Summary, temperatures: &[f64], widths: &[usize]) -> Option<String> {
    let mean = |width: usize, t: f64| Some(MeanSd::of(&errors(summary, width, t))?.mean);
    let hottest = temperatures.iter().copied().reduce(f64::max)?;
    let best = |width: usize| {
        let found = temperatures.iter().filter_map(|&t| Some((t, mean(width, t)?)));
        let (t, least) = found.min_by(|a, b| a.1.total_cmp(&b.1))?;
        let at_hottest = mean(width, hottest)?;
        Some(format!("T = {t} makes the fewest, {least:.0}, and T = {hottest} {at_hottest:.0}"))
    };
    let (&narrow, &wide) = (widths.iter().min()?, widths.iter().max()?);
    Some(format!(
        "Test errors{}: with {narrow} units a layer {}; with {wide} units {}.",
        summary.of_examples(),
        best(narrow)?,
        best(wide)?
    ))
}
