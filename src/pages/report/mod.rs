//! `report.html`: one run, or several side by side, as a page that needs nothing but a browser.

use super::material::{Asked, Material, Trial};
use crate::engine::metrics;
use crate::files::error::{Error, Result};
use crate::run::chart::{Chart, LINES, Point, Series, escape};
use crate::run::manifest::shell_line;
use crate::run::summary::{Measure, Table};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The look of both pages.
pub(crate) const STYLE: &str = include_str!("page.css");
/// Misclassified images drawn.
const DRAWN: usize = 24;

/// The page of these runs. What needs models and test set is left out where they are not at hand,
/// with a line that says so.
///
/// # Errors
/// [`Error::Internal`] for an image that has no PNG.
pub fn page(runs: &[Material]) -> Result<String> {
    let title = match runs {
        [run] => format!("{}: {} on {}", run.name(), run.summary.experiment, run.summary.dataset),
        _ => format!("{} runs compared", runs.len()),
    };
    let mut html = head(&title);
    let _ = write!(html, "<body>\n<main>\n<h1>{}</h1>\n", escape(&title));
    if runs.len() > 1 {
        html += &comparison(runs);
    }
    for (number, run) in runs.iter().enumerate() {
        let alone = runs.len() == 1;
        html += &Section { run, id: format!("run-{number}"), alone }.html()?;
    }
    let _ = write!(
        html,
        "</main>\n<footer>Made by limbeck {} from the files of the run.</footer>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    );
    Ok(html)
}

/// A document up to its body: nothing may be loaded from anywhere.
fn head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         img-src data:; style-src 'unsafe-inline'\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n",
        escape(title)
    )
}

/// Test errors of each system in each run, and the learning curves of all.
fn comparison(runs: &[Material]) -> String {
    let names: Vec<String> = runs.iter().map(Material::name).collect();
    let mut columns = vec!["system"];
    columns.extend(names.iter().map(String::as_str));
    let mut table = Table::new("Test errors", &columns);
    let mut systems: Vec<&str> = Vec::new();
    for system in runs.iter().flat_map(|run| run.summary.variants()) {
        if !systems.contains(&system) {
            systems.push(system);
        }
    }
    for system in systems {
        let errors = |run: &Material| run.summary.errors_cell(system);
        table.push(std::iter::once(system.to_string()).chain(runs.iter().map(errors)));
    }
    table.notes.push("Mean ± standard deviation over the seeds of each run.".into());
    let data: BTreeSet<&str> = runs.iter().map(|run| run.summary.dataset.as_str()).collect();
    if data.len() > 1 {
        table.notes.push("The runs have different test sets: compare within a column.".into());
    }
    let lines = runs.iter().zip(&names).flat_map(|(run, name)| {
        let lines = curves(run).into_iter();
        lines.map(move |(system, line)| (format!("{name}: {system}"), line))
    });
    format!(
        "<section aria-labelledby=\"compared\">\n<h2 id=\"compared\">Side by side</h2>\n{}{}\
         </section>\n",
        table_html(&table),
        curve_figures(&lines.collect::<Vec<_>>())
    )
}

/// A run's part of the page.
struct Section<'a> {
    run: &'a Material,
    id: String,
    /// Whether the page's own heading names the run.
    alone: bool,
}

impl Section<'_> {
    fn html(&self) -> Result<String> {
        let Section { run, id, alone } = self;
        let mut html = String::new();
        let level = if *alone { 2 } else { 3 };
        if !alone {
            let Material { summary, .. } = run;
            let _ = write!(
                html,
                "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{}: {} on {}</h2>\n",
                escape(&run.name()),
                escape(&summary.experiment),
                escape(&summary.dataset)
            );
        }
        let mut part = |title: &str, content: String| {
            if !content.is_empty() {
                let _ = write!(html, "<h{level}>{title}</h{level}>\n{content}");
            }
        };
        part("Result", self.results());
        part("Claims of the paper", self.claims());
        part("Learning curves", curve_figures(&curves(run)));
        let figures = run.figures.iter().map(|(name, svg)| {
            figure(&name.replace(['-', '_'], " "), &format!("Figure of the run: {name}"), svg)
        });
        part("Figures", figures.collect());
        match &run.trial {
            Ok(trial) => {
                part("What the models see in each class", self.confusions(trial));
                part("Misclassified images", self.misclassified(trial)?);
                part("Reliability", reliability(trial));
            }
            Err(why) => part(
                "What the models see",
                format!(
                    "<p>Left out, because they need the models and the test set: confusions, \
                     misclassified images and reliability. Found: {}.</p>\n",
                    escape(why)
                ),
            ),
        }
        part("Throughput", self.throughput());
        part("How to run it again", self.replay());
        if !alone {
            html += "</section>\n";
        }
        Ok(html)
    }

    /// The tables of the experiment; of a run that has none, its rows.
    fn results(&self) -> String {
        let summary = &self.run.summary;
        if !summary.tables.is_empty() {
            return summary.tables.iter().map(table_html).collect();
        }
        let mut table = Table::new(
            format!("Test errors on {}", summary.dataset),
            &["system", "ours", "paper", "negative log-likelihood"],
        );
        for system in summary.variants() {
            let paper = summary.paper.get(system).filter(|_| summary.is_the_papers());
            table.push([
                system.to_string(),
                summary.errors_cell(system),
                paper.map_or("–".into(), u64::to_string),
                summary.cell(system, 4, &Measure::TestNll),
            ]);
        }
        table_html(&table)
    }

    fn claims(&self) -> String {
        let claims = &self.run.summary.claims;
        if claims.is_empty() {
            return String::new();
        }
        let mut table = Table::new("What became of them", &["claim", "ours", "verdict"]);
        for claim in claims {
            table.push([claim.paper.clone(), claim.ours.clone(), claim.verdict.to_string()]);
        }
        table_html(&table)
    }

    fn throughput(&self) -> String {
        let mut table = Table::new(
            "Training",
            &[
                "system",
                "samples/s",
                "GFLOP/s",
                "share of peak",
                "seconds",
                "epochs",
                "training errors",
            ],
        );
        let peak = self.run.manifest["peak_gflops"].as_f64();
        let summary = &self.run.summary;
        // The last record of a model is that of its whole training.
        let rates: BTreeMap<(&str, u64), f64> = self
            .run
            .epochs
            .iter()
            .map(|line| ((line.record.model.as_str(), line.seed), line.record.gflops))
            .collect();
        for system in summary.variants() {
            if !summary.rows_of(system).any(|row| row.samples_per_second.is_some()) {
                continue;
            }
            table.push([
                system.to_string(),
                summary.cell_of(system, 0, |row| row.samples_per_second),
                summary.cell_of(system, 1, |row| rates.get(&(system, row.seed)).copied()),
                summary.cell_of(system, 2, |row| Some(rates.get(&(system, row.seed))? / peak?)),
                summary.cell_of(system, 1, |row| Some(row.seconds)),
                summary.cell_of(system, 0, |row| row.epochs.map(|n| n as f64)),
                summary.count_cell(system, &Measure::TrainErrors),
            ]);
        }
        if table.rows.is_empty() {
            return String::new();
        }
        table.notes.push(
            "Mean ± standard deviation over the seeds; measured while training, whatever else ran \
             on the machine. GFLOP/s counts the matrix products alone; the peak is that of the \
             manifest."
                .into(),
        );
        table_html(&table)
    }

    /// The command and what it ran on.
    fn replay(&self) -> String {
        let manifest = &self.run.manifest;
        if manifest.is_null() {
            return "<p>The run folder holds no manifest.json.</p>\n".into();
        }
        let words = manifest["command"].as_array().into_iter().flatten();
        let words: Vec<String> = words.filter_map(|w| Some(w.as_str()?.to_string())).collect();
        let mut html = format!(
            "<pre class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Command\">{}</pre>\n",
            escape(&shell_line(&words))
        );
        html += "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Manifest\">\
                 <table class=\"facts\"><caption>Manifest</caption>\n<tbody>\n";
        for (key, value) in manifest.as_object().into_iter().flatten() {
            if !matches!(key.as_str(), "command" | "config") && !value.is_null() {
                let key = escape(&key.replace('_', " "));
                let _ =
                    writeln!(html, "<tr><th scope=\"row\">{key}</th><td>{}</td></tr>", fact(value));
            }
        }
        html + "</tbody></table></div>\n"
    }

    /// The mean soft predictions of each model, the teacher's first.
    fn confusions(&self, trial: &Trial) -> String {
        let t = self.run.temperature();
        let mut html = format!(
            "<p>Mean prediction at T = {t} of the test images of each class, in per cent. The \
             diagonal, the class itself, is not shaded; the stronger the shade of another cell, \
             from a model's least to its most, the more similar that wrong class looks to \
             it.</p>\n<div class=\"pair\">\n"
        );
        for Asked { row, logits, .. } in &trial.models {
            let classes = trial.dataset.classes;
            let seen = metrics::soft_confusion(logits, trial.labels(), classes, t);
            let off = |i: usize| i / classes != i % classes;
            let wrong = seen.iter().enumerate().filter(|&(i, p)| off(i) && p.is_finite());
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
            for (class, predictions) in seen.chunks_exact(classes).enumerate() {
                let _ = write!(html, "<tr><th scope=\"row\">{class}</th>");
                for (other, p) in predictions.iter().enumerate() {
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

    /// Images that one of the models gets wrong, the student's first.
    fn misclassified(&self, trial: &Trial) -> Result<String> {
        let t = self.run.temperature();
        let (classes, labels) = (trial.dataset.classes, trial.labels());
        let shown: Vec<&Asked> = {
            let pair: Vec<&Asked> =
                trial.models.iter().filter(|m| m.row.variant != "baseline").collect();
            if pair.is_empty() { trial.models.iter().collect() } else { pair }
        };
        let mut wrong: Vec<usize> = Vec::new();
        for asked in shown.iter().rev() {
            for i in metrics::misclassified(&asked.logits, labels, classes) {
                if !wrong.contains(&i) {
                    wrong.push(i);
                }
            }
        }
        if wrong.is_empty() {
            return Ok("<p>None of the test images.</p>\n".into());
        }
        let names: Vec<&str> = shown.iter().map(|asked| asked.row.variant.as_str()).collect();
        let mut html = format!(
            "<p>{} of the {} test images that {} gets wrong, with the soft predictions at T = \
             {t}.</p>\n<ul class=\"images\">\n",
            wrong.len().min(DRAWN),
            wrong.len(),
            escape(&names.join(" or "))
        );
        let images = trial.dataset.test.images();
        for &i in wrong.iter().take(DRAWN) {
            let label = labels[i];
            let png = png(images.image(i), images.width, images.height)?;
            let _ = write!(
                html,
                "<li><img src=\"data:image/png;base64,{}\" alt=\"Test image {i}, labelled \
                 {label}\" width=\"84\" height=\"84\">\n<div><p>image {i}, label \
                 <strong>{label}</strong></p>\n",
                BASE64.encode(png)
            );
            for asked in &shown {
                let row = &asked.logits[i * classes..][..classes];
                html += &bars(&asked.row.variant, row, t);
            }
            html += "</div></li>\n";
        }
        Ok(html + "</ul>\n")
    }
}

/// A soft prediction as bars, the tallest as high as there is room.
fn bars(system: &str, logits: &[f32], temperature: f64) -> String {
    let soft = metrics::soft_prediction(logits, temperature);
    let most = soft.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let mut order: Vec<usize> = (0..soft.len()).collect();
    order.sort_by(|&a, &b| soft[b].total_cmp(&soft[a]));
    let said: Vec<String> =
        order.iter().take(3).map(|&c| format!("{c}: {:.1}\u{a0}%", soft[c] * 100.0)).collect();
    let said = format!("{system}: {}", said.join(", "));
    // Ten units a class, 30 high, digits below while they fit.
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

/// Accuracy against confidence of each model; on the diagonal they are equal.
fn reliability(trial: &Trial) -> String {
    let point = |x, y| Point { x, y, spread: 0.0 };
    let mut series = Vec::new();
    let mut table =
        Table::new("Calibration on the test set", &["system", "expected calibration error"]);
    for Asked { row, logits, .. } in &trial.models {
        let (labels, classes) = (trial.labels(), trial.dataset.classes);
        let bins = metrics::reliability(logits, labels, classes).unwrap_or_default();
        let filled = bins.iter().filter(|bin| bin.examples > 0);
        let points = filled.map(|bin| {
            let n = bin.examples as f64;
            point(bin.confidence / n, bin.correct as f64 / n)
        });
        series.push(Series { name: row.variant.clone(), points: points.collect() });
        let error = metrics::calibration_error(logits, labels, classes);
        table.push([row.variant.clone(), format!("{error:.4}")]);
    }
    table.notes.push("At T = 1, in 15 bins of equal width.".into());
    series.push(Series { name: "ideal".into(), points: vec![point(0.0, 0.0), point(1.0, 1.0)] });
    let chart = Chart {
        title: "Reliability".into(),
        x_label: "mean confidence of the bin".into(),
        y_label: "accuracy in the bin".into(),
        log_x: false,
        log_y: false,
        series,
        references: Vec::new(),
    };
    let alt = "Accuracy against confidence in 15 bins; the calibration errors are in the table.";
    figure("Accuracy against confidence, test set", alt, chart.to_svg().as_bytes())
        + &table_html(&table)
}

/// Loss and training errors of a system by epoch, over its seeds.
#[derive(Default)]
struct Curve {
    loss: Vec<Point>,
    /// Per cent of the examples.
    errors: Vec<Point>,
}

/// The learning curve of each system, in the order of training.
fn curves(run: &Material) -> Vec<(String, Curve)> {
    type Values = BTreeMap<usize, Vec<f64>>;
    let mut systems: Vec<(&str, Values, Values)> = Vec::new();
    for line in &run.epochs {
        let record = &line.record;
        let at = systems.iter().position(|(system, ..)| *system == record.model);
        let at = at.unwrap_or_else(|| {
            systems.push((&record.model, Values::new(), Values::new()));
            systems.len() - 1
        });
        let (_, loss, errors) = &mut systems[at];
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
    let curve = |(system, loss, errors): &(&str, Values, Values)| {
        (system.to_string(), Curve { loss: points(loss), errors: points(errors) })
    };
    systems.iter().map(curve).collect()
}

/// Training errors and loss on shared axes, in as few pairs of charts as their lines have room in.
fn curve_figures(lines: &[(String, Curve)]) -> String {
    let mut html = String::new();
    for lines in lines.chunks(LINES) {
        let mut chart = |what: &str, unit: &str, of: fn(&Curve) -> &Vec<Point>| {
            let series: Vec<Series> = lines
                .iter()
                .map(|(name, curve)| Series { name: name.clone(), points: of(curve).clone() })
                .filter(|series| !series.points.is_empty())
                .collect();
            if series.is_empty() {
                return;
            }
            let names: Vec<&str> = series.iter().map(|series| series.name.as_str()).collect();
            let caption = format!("{what} in {unit}, by epoch");
            let alt = format!("{caption}, of {}", names.join(", "));
            let chart = Chart {
                title: what.to_string(),
                x_label: "epoch".into(),
                y_label: unit.to_string(),
                log_x: false,
                log_y: false,
                series,
                references: Vec::new(),
            };
            html += &figure(&caption, &alt, chart.to_svg().as_bytes());
        };
        chart("Training errors", "%", |curve| &curve.errors);
        chart("Loss above its minimum", "nats", |curve| &curve.loss);
    }
    html
}

/// A value of the manifest.
fn fact(value: &Value) -> String {
    match value {
        Value::String(text) => escape(text),
        Value::Object(entries) => {
            let entry = |(key, value): (&String, &Value)| {
                format!("<dt>{}</dt><dd>{}</dd>", escape(&key.replace('_', " ")), fact(value))
            };
            format!("<dl>{}</dl>", entries.iter().map(entry).collect::<String>())
        }
        Value::Array(values) => values
            .iter()
            .map(fact)
            .collect::<Vec<_>>()
            .join(if values.iter().any(Value::is_object) { "" } else { ", " }),
        other => escape(&other.to_string()),
    }
}

/// A table in a box that scrolls by itself.
fn table_html(table: &Table) -> String {
    let title = escape(&table.title);
    let mut html = format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{title}\">\
         <table><caption>{title}</caption>\n<thead><tr>"
    );
    for column in &table.columns {
        // A head without words would name nothing.
        let _ = match column.is_empty() {
            true => write!(html, "<td></td>"),
            false => write!(html, "<th scope=\"col\">{}</th>", escape(column)),
        };
    }
    html += "</tr></thead>\n<tbody>\n";
    for cells in &table.rows {
        html += "<tr>";
        for (i, cell) in cells.iter().enumerate() {
            let cell = escape(cell);
            let _ = match i {
                0 => write!(html, "<th scope=\"row\">{cell}</th>"),
                _ => write!(html, "<td>{cell}</td>"),
            };
        }
        html += "</tr>\n";
    }
    html += "</tbody></table></div>\n";
    for note in &table.notes {
        let _ = writeln!(html, "<p class=\"note\">{}</p>", escape(note));
    }
    html
}

/// An SVG document as an image: whatever scripts it holds, none runs.
fn figure(caption: &str, alt: &str, svg: &[u8]) -> String {
    let (caption, alt) = (escape(caption), escape(alt));
    format!(
        "<figure><div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{caption}\">\
         <img class=\"chart\" src=\"data:image/svg+xml;base64,{}\" alt=\"{alt}\"></div>\
         <figcaption>{caption}</figcaption></figure>\n",
        BASE64.encode(svg)
    )
}

/// A greyscale image as a PNG.
fn png(pixels: &[u8], width: usize, height: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder
        .write_header()
        .and_then(|mut writer| {
            writer.write_image_data(pixels)?;
            writer.finish()
        })
        .map_err(|e| Error::Internal(format!("an image to PNG: {e}")))?;
    Ok(bytes)
}
