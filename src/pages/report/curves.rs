//! Learning curves: loss and training errors by epoch.

use super::html::figure_html;
use crate::pages::contents::RunContents;
use crate::run::chart::{Chart, MAX_LINES, Point, Series};
use std::collections::BTreeMap;

/// Loss and training errors of a variant by epoch: mean ± standard deviation over its seeds.
#[derive(Default)]
pub struct Curve {
    /// Nats above the least loss that the targets allow.
    loss: Vec<Point>,
    /// Per cent of the examples.
    errors: Vec<Point>,
}

/// The learning curve of each variant of a run, in the order of training.
pub fn curves(run: &RunContents) -> Vec<(String, Curve)> {
    type Values = BTreeMap<usize, Vec<f64>>;
    let mut variants: Vec<(&str, Values, Values)> = Vec::new();
    for line in &run.epochs {
        let record = &line.record;
        let at = variants.iter().position(|(variant, ..)| *variant == record.model);
        let at = at.unwrap_or_else(|| {
            variants.push((&record.model, Values::new(), Values::new()));
            variants.len() - 1
        });
        let (_, loss, errors) = &mut variants[at];
        loss.entry(record.epoch).or_default().push(record.reducible_loss);
        if let (Some(wrong), 1..) = (record.train_errors, record.examples) {
            let share = 100.0 * wrong as f64 / record.examples as f64;
            errors.entry(record.epoch).or_default().push(share);
        }
    }
    let points = |values: &Values| {
        let points = values.iter().filter_map(|(&epoch, found)| Point::of(epoch as f64, found));
        points.filter(|p| p.y.is_finite()).collect()
    };
    let curve = |(variant, loss, errors): &(&str, Values, Values)| {
        (variant.to_string(), Curve { loss: points(loss), errors: points(errors) })
    };
    variants.iter().map(curve).collect()
}

/// The curves as charts: training errors, and loss. Where a chart has no room for all lines, the rest
/// go into another pair of charts.
pub fn curve_figures(lines: &[(String, Curve)]) -> String {
    let mut html = String::new();
    for lines in lines.chunks(MAX_LINES) {
        let mut chart = |what: &str, unit: &str, of: fn(&Curve) -> &Vec<Point>| {
            let series = lines.iter().map(|(name, curve)| Series::new(name, of(curve).clone()));
            let series: Vec<Series> = series.filter(|line| !line.points.is_empty()).collect();
            if series.is_empty() {
                return;
            }
            let names: Vec<&str> = series.iter().map(|series| series.name.as_str()).collect();
            let caption = format!("{what} in {unit}, by epoch");
            let alt = format!("{caption}, of {}", names.join(", "));
            let chart = Chart::new(what, "epoch", unit, series);
            html += &figure_html(&caption, &alt, chart.to_svg().as_bytes());
        };
        chart("Training errors", "%", |curve| &curve.errors);
        chart("Loss above its minimum", "nats", |curve| &curve.loss);
    }
    html
}
