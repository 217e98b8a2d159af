//! `report.html`: one run as a page that needs nothing but a browser.

mod calibration;
mod classes;
pub(super) mod curves;
mod examples;

use super::contents::RunContents;
use super::figure::Figure;
use super::headline::{answers, breath, sentence};
use super::html::{document, image_figure, prose, section, table_html, wide_chart};
use crate::files::error::Result;
use crate::run::chart::escape;
use crate::run::chart::palette::Colours;
use crate::run::number::short;
use crate::run::summary::{Measure, Table};
use crate::run::{manifest::command_line, records::SeededRecord};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The page of a run. It says what it leaves out because models or test set are missing.
///
/// # Errors
/// [`Error::Internal`](crate::Error::Internal) for an image that has no PNG.
pub fn page(run: &RunContents) -> Result<String> {
    let body = Report { run, colours: Colours::of(run.summary.variants()) }.html()?;
    let title = format!("{}: {} on {}", run.name(), run.summary.experiment, run.summary.dataset);
    Ok(document(&title, &body))
}

/// A run, and which model has which colour throughout its page.
struct Report<'r> {
    run: &'r RunContents,
    colours: Colours,
}

impl Report<'_> {
    fn html(&self) -> Result<String> {
        let Report { run, colours } = self;
        let mut html = self.head();
        let mut part = |title: &str, content: String| {
            html += &section(title, title == "Result", &content);
        };
        part("Result", self.results());
        part("Claims of the paper", self.claims());
        match &run.predictions {
            Ok(predictions) => {
                let t = run.temperature();
                let several = predictions.models.len() > 1;
                part("What is known of each class", classes::soft_confusions(predictions, t));
                part(
                    if several { "Where the models disagree" } else { "What it gets wrong" },
                    examples::disagreements(predictions, t, colours)?,
                );
                part("What is taken for what", classes::hard_confusions(predictions));
            }
            Err(why) => part(
                "What the models know",
                format!(
                    "<p>Left out, because they need the models and the test set: confusions, examples, \
                     temperature and reliability. Found: {}.</p>\n",
                    escape(why)
                ),
            ),
        }
        let curves = curves::learning_curves(&[run], |_, variant| variant.to_string(), colours);
        part("Learning curves", halves(curves));
        part("Figures of the experiment", self.figures());
        if let Ok(predictions) = &run.predictions {
            let t = run.temperature();
            let chart = calibration::by_temperature(predictions, t, colours);
            part(
                "Temperature",
                halves(chart + &examples::at_temperatures(predictions, t, colours)?),
            );
            part("Reliability", halves(calibration::reliability(predictions, colours)));
        }
        part("Speed", self.speed());
        part("How to run it again", self.replay());
        Ok(html)
    }

    /// The sentence, what is asked next, and the figure.
    fn head(&self) -> String {
        let run = self.run;
        let summary = &run.summary;
        let mut html = format!(
            "<header>\n<p class=\"kicker\">{} · {} · {}{}</p>\n<h1>{}\n<span class=\"breath\">{}</span></h1>\n<dl class=\"answers\">\n",
            escape(&summary.experiment),
            escape(&summary.dataset),
            match summary.preset.as_str() {
                "config" => "a configuration of one's own".into(),
                preset => format!("preset {}", escape(preset)),
            },
            // The day is enough.
            run.manifest["started"].as_str().map_or(String::new(), |started| {
                let day: String = started.chars().take(10).collect();
                format!(" · {}", escape(&day))
            }),
            prose(&sentence(summary)),
            prose(&breath(summary))
        );
        for (question, answer) in answers(run) {
            let _ = writeln!(html, "<div><dt>{question}</dt><dd>{}</dd></div>", prose(&answer));
        }
        html += "</dl>\n</header>\n";
        if let Some(shown) = Figure::of(run) {
            // Its numbers are the table's below.
            html += &shown.across(&self.colours);
        }
        html
    }

    /// The charts of the experiment that do not stand at the head, and figures of earlier versions.
    fn figures(&self) -> String {
        let RunContents { summary, figures, .. } = self.run;
        let at_head = match Figure::of(self.run) {
            Some(Figure::Chart(chart)) => Some(chart),
            _ => None,
        };
        let charts = summary.charts.values().filter(|chart| Some(*chart) != at_head);
        let mut html: String = charts.map(|chart| wide_chart(chart, &self.colours)).collect();
        for (name, svg) in figures {
            html += &image_figure(
                &format!("Figure of the run: {}", name.replace(['-', '_'], " ")),
                svg,
            );
        }
        html
    }

    /// The tables of the experiment. A run without tables is shown by its rows.
    fn results(&self) -> String {
        let summary = &self.run.summary;
        if !summary.tables.is_empty() {
            return summary.tables.iter().map(table_html).collect();
        }
        let mut table = Table::new(
            format!("Test errors{} on {}", summary.of_examples(), summary.dataset),
            &["variant", "test errors", "negative log-likelihood"],
        );
        for variant in summary.variants() {
            let nll = summary.cell(variant, 4, &Measure::TestNll);
            table.push([variant.to_string(), summary.errors_cell(variant), nll]);
        }
        table_html(&table)
    }

    fn claims(&self) -> String {
        let summary = &self.run.summary;
        let claims = &summary.claims;
        if claims.is_empty() {
            return String::new();
        }
        let mut table = Table::new("What became of them", &["claim", "ours", "verdict"]);
        for claim in claims {
            table.push([
                claim.paper.clone(),
                claim.ours.clone(),
                summary.verdict(claim).to_string(),
            ]);
        }
        table_html(&table)
    }

    fn speed(&self) -> String {
        let mut table = Table::new(
            "Training",
            &[
                "variant",
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
        // The last record of a model is about all of its training.
        let mut rates = BTreeMap::new();
        for SeededRecord { seed, record } in &self.run.epochs {
            rates.insert((&record.model[..], *seed), record.gflops);
        }
        for variant in summary.variants() {
            if !summary.rows_of(variant).any(|row| row.samples_per_second.is_some()) {
                continue;
            }
            table.push([
                variant.to_string(),
                summary.cell_of(variant, 0, |row| row.samples_per_second),
                summary.cell_of(variant, 1, |row| rates.get(&(variant, row.seed)).copied()),
                summary.cell_of(variant, 2, |row| Some(rates.get(&(variant, row.seed))? / peak?)),
                summary.cell_of(variant, 1, |row| Some(row.seconds)),
                summary.cell_of(variant, 0, |row| row.epochs.map(|n| n as f64)),
                summary.count_cell(variant, &Measure::TrainErrors),
            ]);
        }
        if table.rows.is_empty() {
            return String::new();
        }
        table.note(
            "Mean ± standard deviation over the seeds; measured while training, whatever else ran \
             on the machine. GFLOP/s counts the matrix products alone; the peak is that of the \
             manifest.",
        );
        table_html(&table)
    }

    /// The command and the manifest, which says what it ran on.
    fn replay(&self) -> String {
        let manifest = &self.run.manifest;
        if manifest.is_null() {
            return "<p>The run folder holds no manifest.json.</p>\n".into();
        }
        let command = command_line(&manifest["command"]);
        let mut html = format!(
            "<pre class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Command\">{}</pre>\n",
            escape(&command)
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
}

/// A value of the manifest as HTML.
fn fact(value: &Value) -> String {
    match value {
        Value::String(text) => escape(text),
        Value::Object(entries) => {
            let entry = |(key, value): (&String, &Value)| {
                let said = match key.as_str() {
                    "command" => escape(&command_line(value)),
                    _ => fact(value),
                };
                format!("<dt>{}</dt><dd>{said}</dd>", escape(&key.replace('_', " ")))
            };
            format!("<dl>{}</dl>", entries.iter().map(entry).collect::<String>())
        }
        Value::Array(values) => {
            let between = if values.iter().any(Value::is_object) { "" } else { ", " };
            values.iter().map(fact).collect::<Vec<_>>().join(between)
        }
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(value) => short(value),
            None => number.to_string(),
        },
        other => escape(&other.to_string()),
    }
}

/// Charts of half the page's width, two beside each other where there is room.
fn halves(charts: String) -> String {
    if charts.is_empty() { charts } else { format!("<div class=\"halves\">\n{charts}</div>\n") }
}
