//! Confidence: how temperature spreads it, and whether it is deserved.

use crate::engine::metrics;
use crate::pages::contents::{EvaluatedModel, Predictions};
use crate::pages::html::{half_chart, table_html};
use crate::run::chart::palette::Colours;
use crate::run::chart::{Chart, Point, Series};
use crate::run::summary::Table;

/// The temperatures of the chart.
const TEMPERATURES: [f64; 9] = [1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 40.0];

/// The fewest examples of a bin whose accuracy says anything.
const FEWEST: u64 = 10;

/// What temperature brings out: how much of a prediction goes to other classes than the first.
pub fn by_temperature(predictions: &Predictions, t: f64, colours: &Colours) -> String {
    let classes = predictions.dataset.classes;
    let share = |model: &EvaluatedModel, t: f64| {
        let rows = model.logits.chunks_exact(classes);
        let outside =
            rows.map(|row| 1.0 - metrics::soft_prediction(row, t).into_iter().fold(0.0, f64::max));
        100.0 * outside.sum::<f64>() / predictions.labels().len() as f64
    };
    let series = predictions.models.iter().map(|model| {
        Series::new(&model.row.variant, TEMPERATURES.map(|t| Point::at(t, share(model, t))))
    });
    let first = &predictions.models[0];
    let [cold, hot] = [1.0, t.max(2.0)];
    let chart = Chart {
        caption: format!(
            "How much of a prediction goes to other classes than the first, mean over the test examples: \
             of the {}'s {:.1} % at T = {cold}, {:.0} % at T = {hot}. Temperature is what makes it visible \
             to the loss.",
            first.row.variant,
            share(first, cold),
            share(first, hot)
        ),
        log_x: true,
        log_y: true,
        ..Chart::new("Outside of the first choice", "temperature T", "% of the prediction", series)
    };
    half_chart(&chart, colours)
}

/// The reliability diagram: accuracy against confidence of each model.
pub fn reliability(predictions: &Predictions, colours: &Colours) -> String {
    let mut series = Vec::new();
    let mut table =
        Table::new("Calibration on the test set", &["variant", "expected calibration error"]);
    for EvaluatedModel { row, logits, .. } in &predictions.models {
        let (labels, classes) = (predictions.labels(), predictions.dataset.classes);
        let bins = metrics::reliability(logits, labels, classes).unwrap_or_default();
        let filled = bins.iter().filter(|bin| bin.examples >= FEWEST);
        let points = filled.map(|bin| {
            let n = bin.examples as f64;
            Point::at(100.0 * bin.confidence / n, 100.0 * bin.correct as f64 / n)
        });
        series.push(Series::new(&row.variant, points));
        let error = metrics::calibration_error(logits, labels, classes);
        table.push([row.variant.clone(), format!("{error:.4}")]);
    }
    table.note(
        "At T = 1, in 15 bins of equal width. 0 is a model that is right as often as it says.",
    );
    let ideal = Series::new("ideal", [0.0, 100.0].map(|x| Point::at(x, x)));
    series.push(Series { muted: true, ..ideal });
    let chart = Chart {
        caption: format!(
            "How often a model is right against how sure it says it is, at T = 1. Below the dashed line it \
             is overconfident. Bins of fewer than {FEWEST} examples are not drawn."
        ),
        ..Chart::new("Confidence and accuracy", "confidence, %", "right, %", series)
    };
    format!("{}<div>{}</div>", half_chart(&chart, colours), table_html(&table))
}
