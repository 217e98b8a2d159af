//! Learning curves: errors and loss by epoch.

use crate::engine::trainer::EpochRecord;
use crate::pages::contents::RunContents;
use crate::pages::html::half_chart;
use crate::run::chart::palette::{Colours, MAX_LINES};
use crate::run::chart::{Chart, Point, Series};
use std::collections::{BTreeMap, BTreeSet};

/// The most points of a line: of more epochs some are left out, evenly on a logarithmic axis.
const POINTS: f64 = 60.0;

/// The charts of the learning curves of some runs; each line is named by what `name` makes of the run's
/// number and the variant. There are as many charts as there are figures recorded, and more where one has
/// no room for all lines.
pub fn learning_curves(
    runs: &[&RunContents],
    name: impl Fn(usize, &str) -> String,
    colours: &Colours,
) -> String {
    let records = || runs.iter().flat_map(|run| &run.epochs).map(|line| &line.record);
    let watched: BTreeSet<&str> =
        records().flat_map(|record| record.watched.keys()).map(String::as_str).collect();
    let mut html = String::new();
    let mut charts =
        |title: &str, unit: &str, caption: &str, of: &dyn Fn(&EpochRecord) -> Option<f64>| {
            let series: Vec<Series> = runs
                .iter()
                .enumerate()
                .flat_map(|(i, run)| {
                    lines(run, of).into_iter().map(move |(variant, points)| (i, variant, points))
                })
                .map(|(i, variant, points)| Series::new(name(i, variant), points))
                .filter(|series| !series.points.is_empty())
                .collect();
            for lines in series.chunks(MAX_LINES) {
                let mut chart = Chart::new(title, "epoch", unit, lines.to_vec());
                (chart.log_x, chart.log_y, chart.caption) = (true, true, caption.to_string());
                html += &half_chart(&chart, &colours.or_of(lines.iter().map(|line| &*line.name)));
            }
        };
    for split in watched {
        charts(
            &format!("Errors on {split}"),
            "% of the examples",
            &format!("Errors on {split} after each epoch, where they were watched."),
            &|record| {
                let seen = record.watched.get(split)?;
                Some(100.0 * seen.errors as f64 / seen.examples.max(1) as f64)
            },
        );
    }
    charts(
        "Training errors",
        "% of the examples",
        "Errors on training examples as they were seen, with dropout, jitter and views where there are \
         any; epochs without an error are not drawn.",
        &|record| match (record.train_errors, record.examples) {
            (Some(wrong), 1..) => Some(100.0 * wrong as f64 / record.examples as f64),
            _ => None,
        },
    );
    charts(
        "Loss above its minimum",
        "nats",
        "The training loss above the least that the targets allow. Losses on labels and on soft targets \
         are of different targets: compare shapes, not heights.",
        &|record| Some(record.reducible_loss),
    );
    html
}

/// A figure of each variant by epoch: mean ± standard deviation over its seeds.
fn lines<'r>(
    run: &'r RunContents,
    of: &dyn Fn(&EpochRecord) -> Option<f64>,
) -> Vec<(&'r str, Vec<Point>)> {
    let mut variants: Vec<(&str, BTreeMap<usize, Vec<f64>>)> = Vec::new();
    for line in &run.epochs {
        let record = &line.record;
        let at = variants.iter().position(|(variant, _)| *variant == record.model);
        let at = at.unwrap_or_else(|| {
            variants.push((&record.model, BTreeMap::new()));
            variants.len() - 1
        });
        if let Some(value) = of(record).filter(|value| value.is_finite()) {
            variants[at].1.entry(record.epoch).or_default().push(value);
        }
    }
    let thinned = |values: BTreeMap<usize, Vec<f64>>| {
        let last = values.keys().next_back().copied().unwrap_or(1);
        // An epoch is kept if it is the last of its part of the axis.
        let part =
            |epoch: usize| ((epoch as f64).ln() / (last.max(2) as f64).ln() * POINTS) as usize;
        let kept = values
            .iter()
            .filter(|(epoch, _)| **epoch == last || part(**epoch) != part(**epoch + 1));
        kept.filter_map(|(&epoch, found)| Point::of(epoch as f64, found)).collect()
    };
    variants.into_iter().map(|(variant, values)| (variant, thinned(values))).collect()
}
