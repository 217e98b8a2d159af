//! `report.html`: one run, or several side by side, as a page that needs nothing but a browser.

mod curves;
mod html;
mod predictions;

use super::contents::RunContents;
use crate::files::error::Result;
use crate::run::summary::{Measure, Table};
use crate::run::{chart::escape, manifest::shell_line, records::SeededRecord};
use curves::{curve_figures, curves};
use html::{figure_html, head, table_html};
use predictions::{confusions, misclassified, reliability};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The page of these runs. It says what it leaves out because models or test set are missing.
///
/// # Errors
/// [`Error::Internal`](crate::Error::Internal) for an image that has no PNG.
pub fn page(runs: &[RunContents]) -> Result<String> {
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

/// Test errors of each variant in each run, and the learning curves of all.
fn comparison(runs: &[RunContents]) -> String {
    let names: Vec<String> = runs.iter().map(RunContents::name).collect();
    let mut columns = vec!["variant"];
    columns.extend(names.iter().map(String::as_str));
    let mut table = Table::new("Test errors", &columns);
    let mut variants: Vec<&str> = Vec::new();
    for variant in runs.iter().flat_map(|run| run.summary.variants()) {
        if !variants.contains(&variant) {
            variants.push(variant);
        }
    }
    for variant in variants {
        let errors = |run: &RunContents| run.summary.errors_cell(variant);
        table.push(std::iter::once(variant.to_string()).chain(runs.iter().map(errors)));
    }
    table.note("Mean ± standard deviation over the seeds of each run.");
    for (run, name) in runs.iter().zip(&names) {
        if let Some(caveat) = run.summary.caveat() {
            table.note(format!("{name}: {caveat}"));
        }
    }
    let data: BTreeSet<&str> = runs.iter().map(|run| run.summary.dataset.as_str()).collect();
    if data.len() > 1 {
        table.note("The runs have different test sets: compare within a column.");
    }
    let lines = runs.iter().zip(&names).flat_map(|(run, name)| {
        let lines = curves(run).into_iter();
        lines.map(move |(variant, line)| (format!("{name}: {variant}"), line))
    });
    format!(
        "<section aria-labelledby=\"compared\">\n<h2 id=\"compared\">Side by side</h2>\n{}{}\
         </section>\n",
        table_html(&table),
        curve_figures(&lines.collect::<Vec<_>>())
    )
}

/// The part of the page that shows one run.
struct Section<'a> {
    run: &'a RunContents,
    id: String,
    /// Whether it is the only run, which the page's own heading names.
    alone: bool,
}

impl Section<'_> {
    fn html(&self) -> Result<String> {
        let Section { run, id, alone } = self;
        let mut html = String::new();
        let level = if *alone { 2 } else { 3 };
        if !alone {
            let RunContents { summary, .. } = run;
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
        let caveat = run.summary.caveat();
        let caveat = caveat.map(|caveat| format!("<p><strong>{}</strong></p>\n", escape(&caveat)));
        part("Result", caveat.unwrap_or_default() + &self.results());
        part("Claims of the paper", self.claims());
        part("Learning curves", curve_figures(&curves(run)));
        let figures = run.figures.iter().map(|(name, svg)| {
            figure_html(&name.replace(['-', '_'], " "), &format!("Figure of the run: {name}"), svg)
        });
        part("Figures", figures.collect());
        match &run.predictions {
            Ok(predictions) => {
                let t = run.temperature();
                part("What the models see in each class", confusions(predictions, t));
                part("Misclassified images", misclassified(predictions, t)?);
                part("Reliability", reliability(predictions));
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

    /// The tables of the experiment. A run without tables is shown by its rows.
    fn results(&self) -> String {
        let summary = &self.run.summary;
        if !summary.tables.is_empty() {
            return summary.tables.iter().map(table_html).collect();
        }
        let mut table = Table::new(
            format!("Test errors on {}", summary.dataset),
            &["variant", "ours", "paper", "negative log-likelihood"],
        );
        for variant in summary.variants() {
            let paper = summary.paper.get(variant).filter(|_| summary.is_the_papers());
            table.push([
                variant.to_string(),
                summary.errors_cell(variant),
                paper.map_or("–".into(), u64::to_string),
                summary.cell(variant, 4, &Measure::TestNll),
            ]);
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

    fn throughput(&self) -> String {
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
}

/// A value of the manifest as HTML.
fn fact(value: &Value) -> String {
    match value {
        Value::String(text) => escape(text),
        Value::Object(entries) => {
            let entry = |(key, value): (&String, &Value)| {
                format!("<dt>{}</dt><dd>{}</dd>", escape(&key.replace('_', " ")), fact(value))
            };
            format!("<dl>{}</dl>", entries.iter().map(entry).collect::<String>())
        }
        Value::Array(values) => {
            let between = if values.iter().any(Value::is_object) { "" } else { ", " };
            values.iter().map(fact).collect::<Vec<_>>().join(between)
        }
        other => escape(&other.to_string()),
    }
}
