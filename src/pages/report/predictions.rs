//! What the models of a run predict on its test set: confusions, misclassified images, reliability.

use super::html::{figure_html, image_source, table_html};
use crate::engine::metrics;
use crate::files::error::Result;
use crate::pages::contents::{EvaluatedModel, Predictions};
use crate::run::chart::{Chart, Point, Series, escape};
use crate::run::summary::Table;
use std::fmt::Write;

/// Number of misclassified images that are drawn.
const DRAWN: usize = 24;

/// The mean soft prediction at temperature `t` of the test images of each class: a table [classes,
/// classes] for each model, the teacher's first.
pub fn confusions(predictions: &Predictions, t: f64) -> String {
    let mut html = format!(
        "<p>Mean prediction at T = {t} of the test images of each class, in per cent. The \
         diagonal, the class itself, is not shaded; the stronger the shade of another cell, \
         from a model's least to its most, the more similar that wrong class looks to \
         it.</p>\n<div class=\"pair\">\n"
    );
    for EvaluatedModel { row, logits, .. } in &predictions.models {
        let classes = predictions.dataset.classes;
        let confusion = metrics::soft_confusion(logits, predictions.labels(), classes, t);
        let off = |i: usize| i / classes != i % classes;
        let wrong = confusion.iter().enumerate().filter(|&(i, p)| off(i) && p.is_finite());
        let (least, most) = wrong
            .fold((1.0, 0.0), |(least, most): (f64, f64), (_, &p)| (least.min(p), most.max(p)));
        let span = (most - least).max(f64::MIN_POSITIVE);
        let caption = format!("{}, seed {}", row.variant, row.seed);
        let _ = write!(
            html,
            "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Confusion: \
             {0}\"><table class=\"confusion\"><caption>{0}</caption>\n<thead><tr><th \
             scope=\"col\">class</th>",
            escape(&caption)
        );
        for class in 0..classes {
            let _ = write!(html, "<th scope=\"col\">{class}</th>");
        }
        html += "</tr></thead>\n<tbody>\n";
        for (class, means) in confusion.chunks_exact(classes).enumerate() {
            let _ = write!(html, "<tr><th scope=\"row\">{class}</th>");
            for (other, p) in means.iter().enumerate() {
                let _ = match (other == class, p.is_finite()) {
                    (_, false) => write!(html, "<td>–</td>"),
                    (true, _) => write!(html, "<td class=\"own\">{:.1}</td>", p * 100.0),
                    (false, _) => write!(
                        html,
                        "<td style=\"--shade:{:.0}%\">{:.1}</td>",
                        (p - least) / span * 100.0,
                        p * 100.0
                    ),
                };
            }
            html += "</tr>\n";
        }
        html += "</tbody></table></div>\n";
    }
    html + "</div>\n"
}

/// The first of the test images that a model gets wrong, the student's before the others', with the
/// soft predictions at temperature `t`. The baseline counts only where it is the one model.
///
/// # Errors
/// [`crate::Error::Internal`] for an image that has no PNG.
pub fn misclassified(predictions: &Predictions, t: f64) -> Result<String> {
    let (classes, labels) = (predictions.dataset.classes, predictions.labels());
    let all = || predictions.models.iter();
    let pair: Vec<&EvaluatedModel> = all().filter(|m| m.row.variant != "baseline").collect();
    let shown = if pair.is_empty() { all().collect() } else { pair };
    let mut wrong: Vec<usize> = Vec::new();
    for model in shown.iter().rev() {
        for i in metrics::misclassified(&model.logits, labels, classes) {
            if !wrong.contains(&i) {
                wrong.push(i);
            }
        }
    }
    if wrong.is_empty() {
        return Ok("<p>None of the test images.</p>\n".into());
    }
    let names: Vec<&str> = shown.iter().map(|model| model.row.variant.as_str()).collect();
    let mut html = format!(
        "<p>{} of the {} test images that {} gets wrong, with the soft predictions at T = \
         {t}.</p>\n<ul class=\"images\">\n",
        wrong.len().min(DRAWN),
        wrong.len(),
        escape(&names.join(" or "))
    );
    let images = predictions.dataset.test.images();
    for &i in wrong.iter().take(DRAWN) {
        let label = labels[i];
        let source = image_source(images.image(i), images.width, images.height)?;
        let _ = write!(
            html,
            "<li><img src=\"{source}\" alt=\"Test image {i}, labelled \
             {label}\" width=\"84\" height=\"84\">\n<div><p>image {i}, label \
             <strong>{label}</strong></p>\n"
        );
        for model in &shown {
            let row = &model.logits[i * classes..][..classes];
            html += &bars(&model.row.variant, row, t);
        }
        html += "</div></li>\n";
    }
    Ok(html + "</ul>\n")
}

/// A soft prediction as bars, scaled to the tallest, and its three likeliest classes in words.
fn bars(variant: &str, logits: &[f32], temperature: f64) -> String {
    let soft = metrics::soft_prediction(logits, temperature);
    let most = soft.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let mut order: Vec<usize> = (0..soft.len()).collect();
    order.sort_by(|&a, &b| soft[b].total_cmp(&soft[a]));
    let said: Vec<String> =
        order.iter().take(3).map(|&c| format!("{c}: {:.1}\u{a0}%", soft[c] * 100.0)).collect();
    let said = format!("{variant}: {}", said.join(", "));
    // In units of the picture: 10 of width for a class, bars of up to 30, digits where they fit.
    let mut svg = format!(
        "<svg viewBox=\"0 0 {} 42\" role=\"img\" aria-label=\"{}\">",
        10 * soft.len(),
        escape(&said)
    );
    for (class, p) in soft.iter().enumerate() {
        let (x, height) = (10 * class, 30.0 * p / most);
        let _ = write!(
            svg,
            "<rect x=\"{}\" y=\"{:.1}\" width=\"8\" height=\"{height:.1}\"/>",
            x + 1,
            30.0 - height
        );
        if soft.len() <= 10 {
            let _ = write!(svg, "<text x=\"{}\" y=\"40\">{class}</text>", x + 5);
        }
    }
    format!("{svg}</svg><p class=\"said\">{}</p>\n", escape(&said))
}

/// The reliability diagram: accuracy against confidence of each model.
pub fn reliability(predictions: &Predictions) -> String {
    let mut series = Vec::new();
    let mut table =
        Table::new("Calibration on the test set", &["variant", "expected calibration error"]);
    for EvaluatedModel { row, logits, .. } in &predictions.models {
        let (labels, classes) = (predictions.labels(), predictions.dataset.classes);
        let bins = metrics::reliability(logits, labels, classes).unwrap_or_default();
        let filled = bins.iter().filter(|bin| bin.examples > 0);
        let points = filled.map(|bin| {
            let n = bin.examples as f64;
            Point::at(bin.confidence / n, bin.correct as f64 / n)
        });
        series.push(Series::new(&row.variant, points));
        let error = metrics::calibration_error(logits, labels, classes);
        table.push([row.variant.clone(), format!("{error:.4}")]);
    }
    table.note("At T = 1, in 15 bins of equal width.");
    series.push(Series::new("ideal", [0.0, 1.0].map(|x| Point::at(x, x))));
    let chart =
        Chart::new("Reliability", "mean confidence of the bin", "accuracy in the bin", series);
    let alt = "Accuracy against confidence in 15 bins; the calibration errors are in the table.";
    figure_html("Accuracy against confidence, test set", alt, chart.to_svg().as_bytes())
        + &table_html(&table)
}
