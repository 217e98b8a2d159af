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
use crate::run::statistics::{self, MeanInterval, MeanSd};
use crate::run::summary::{Claim, Measure, Row, Summary, Table, Verdict};

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

fn cells<'g>(
    temperatures: &'g [f64],
    widths: &'g [usize],
) -> impl Iterator<Item = (usize, f64)> + 'g {
    widths.iter().flat_map(move |&width| temperatures.iter().map(move |&t| (width, t)))
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
            takes_seeds: true,
            has_more_rows: false,
        }
    }

    fn declare(&self, setup: Setup) -> Result<ExperimentSpec> {
        let (request, dataset) = setup.images(self)?;
        let (temperatures, widths, epochs) = grid(request.preset);
        let mut configs = PresetConfigs::new(request.preset, dataset);
        configs.student.training.epochs = epochs;
        let transfer = Transfer::new(configs, dataset);
        let PresetConfigs { teacher, student, .. } = &transfer.configs;
        let students = |seed| {
            let student = |(width, t)| {
                let mut config = student.clone();
                let hidden = config.model.layers.len() - 1;
                config.model.layers[1..hidden].fill(width);
                transfer.student(variant(width, t), &config, t as f32, seed)
            };
            cells(temperatures, widths).map(student).collect::<Vec<_>>()
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
    let students = || cells(temperatures, widths).map(|(w, t)| errors(summary, w, t).len());
    table.note(match (students().filter(|&n| n > 0).min(), students().max()) {
        (_, None | Some(0 | 1)) => "One seed: an example, not a statistic.".into(),
        (Some(few), Some(most)) if few < most => {
            format!("Mean ± standard deviation of {few} to {most} seeds.")
        }
        (_, Some(n)) => format!("Mean ± standard deviation of {n} seeds."),
    });
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
    // Two means of `seeds` each differ by chance by up to about this much.
    let noise =
        |width, seeds: usize| pooled(width).map(|sd| 2.0 * sd * (2.0 / seeds as f64).sqrt());
    let mut claims = Vec::new();
    let high: Vec<f64> = temperatures.iter().copied().filter(|&t| t > 8.0).collect();
    for &width in widths.iter().filter(|&&width| width >= 300 && high.len() > 1) {
        let few = high.iter().map(|&t| errors(summary, width, t).len()).min().unwrap_or(0);
        if few == 0 {
            continue;
        }
        let means: Vec<f64> = high.iter().map(|&t| mean(width, t)).collect();
        let (low, top) =
            means.iter().fold((f64::MAX, f64::MIN), |(low, top), &m| (low.min(m), top.max(m)));
        let noise = noise(width, few);
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
    claims.extend(narrow_claim(summary, temperatures));
    Conclusion {
        headline: headline(summary, temperatures, widths),
        tables: vec![table],
        claims,
        charts: vec![("temperature".into(), chart)],
    }
}

/// Whether 30 units do better at T from 2.5 to 4 than at the nearest temperatures on either side.
///
/// Each seed's mean over the temperatures inside is taken from its errors at those two; nothing is
/// chosen among the results. "Clearly better" is a difference whose interval lies above 0. It is not
/// there if an interval lies below a twentieth of the errors.
fn narrow_claim(summary: &Summary, temperatures: &[f64]) -> Option<Claim> {
    let inside = |t: &f64| (2.5..=4.0).contains(t);
    let below = temperatures.iter().copied().filter(|&t| t < 2.5).reduce(f64::max)?;
    let above = temperatures.iter().copied().filter(|&t| t > 4.0).reduce(f64::min)?;
    let at = |t: f64, seed| Some(summary.row(&variant(30, t), seed)?.test_errors as f64);
    // Of each seed that has all of them: there, below and above.
    let of_seed = |row: &Row| {
        let there = temperatures.iter().copied().filter(inside).map(|t| at(t, row.seed));
        let there = statistics::mean(&there.collect::<Option<Vec<_>>>()?);
        Some([there, at(below, row.seed)? - there, at(above, row.seed)? - there])
    };
    let seeds: Vec<[f64; 3]> = summary.rows_of(&variant(30, below)).filter_map(of_seed).collect();
    if seeds.is_empty() {
        return None;
    }
    let column = |i: usize| seeds.iter().map(|seed| seed[i]).collect::<Vec<f64>>();
    let (mean, more) = (statistics::mean(&column(0)), [column(1), column(2)]);
    let intervals = more.each_ref().map(|more| MeanInterval::of(more));
    let text = |i: usize, t: f64| match intervals[i] {
        None => format!("{:.1} more at T = {t}", statistics::mean(&more[i])),
        Some(MeanInterval { mean, low, high }) => {
            format!("{mean:.1} more at T = {t} ({low:.1} to {high:.1})")
        }
    };
    Some(Claim {
        paper:
            "With 30 units a layer temperatures from 2.5 to 4 are clearly better than higher or \
                lower ones."
                .into(),
        ours: format!(
            "{mean:.1} errors there in the mean of {} seeds, {}, {}",
            seeds.len(),
            text(0, below),
            text(1, above)
        ),
        verdict: match intervals {
            [Some(a), Some(b)] if a.low > 0.0 && b.low > 0.0 => Verdict::Reproduced,
            [Some(a), Some(b)] if a.high.min(b.high) < 0.05 * mean => Verdict::NotReproduced,
            _ => Verdict::Inconclusive,
        },
    })
}

/// The best temperature of the narrowest and of the widest student, beside the highest.
fn headline(summary: &Summary, temperatures: &[f64], widths: &[usize]) -> Option<String> {
    let mean = |width: usize, t: f64| Some(MeanSd::of(&errors(summary, width, t))?.mean);
    let hottest = temperatures.iter().copied().reduce(f64::max)?;
    let best = |width: usize| {
        let found = temperatures.iter().filter_map(|&t| Some((t, mean(width, t)?)));
        let (t, least) = found.min_by(|a, b| a.1.total_cmp(&b.1))?;
        let at_hottest = mean(width, hottest)?;
        Some(format!(
            "T = {t} makes the fewest, {least:.0}, and T = {hottest} makes {at_hottest:.0}"
        ))
    };
    let (&narrow, &wide) = (widths.iter().min()?, widths.iter().max()?);
    Some(format!(
        "Test errors{}: with {narrow} units a layer {}; with {wide} units {}.",
        summary.of_examples(),
        best(narrow)?,
        best(wide)?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict on 30 units, where each seed makes so many errors at T = 2, 2.5, 4 and 5.
    fn verdict(seeds: &[[u64; 4]]) -> Verdict {
        let temperatures = [2.0, 2.5, 4.0, 5.0];
        let rows = seeds.iter().enumerate().flat_map(|(seed, errors)| {
            temperatures.iter().zip(errors).map(move |(&t, &errors)| -> Row {
                let row = serde_json::json!({
                    "variant": variant(30, t), "seed": seed, "test_errors": errors,
                    "train_errors": 0, "seconds": 0.0, "model": "", "sha256": "",
                });
                serde_json::from_value(row).unwrap()
            })
        });
        let summary = Summary::new("temperature", "mnist", "quick", rows.collect(), &[]);
        narrow_claim(&summary, &temperatures).unwrap().verdict
    }

    #[test]
    fn narrow_students_are_judged_by_both_neighbours_of_the_range() {
        let better = [[340, 300, 310, 350], [335, 310, 290, 345], [345, 305, 305, 355]];
        assert_eq!(verdict(&better), Verdict::Reproduced);
        assert_eq!(verdict(&better[..1]), Verdict::Inconclusive, "one seed");
        // As good at T = 2: a gain of a twentieth is ruled out.
        let same = [[304, 300, 310, 350], [301, 310, 290, 345], [306, 305, 305, 355]];
        assert_eq!(verdict(&same), Verdict::NotReproduced);
        // The seeds differ too much at T = 2.
        let unsure = [[344, 300, 310, 350], [261, 310, 290, 345], [336, 305, 305, 355]];
        assert_eq!(verdict(&unsure), Verdict::Inconclusive);
    }
}
