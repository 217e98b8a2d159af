//! Several runs on one page: each one's sentence and figure, their errors side by side, and their learning
//! curves.

use super::contents::RunContents;
use super::figure::{Figure, dots_of_models};
use super::headline::{breath_beside_others, sentence};
use super::html::{document, prose, section, table_html};
use super::report::curves::learning_curves;
use crate::run::chart::dots::Dots;
use crate::run::chart::escape;
use crate::run::chart::palette::{Colours, MAX_LINES};
use crate::run::number::{count, p_is};
use crate::run::summary::{Row, Summary, Table};
use std::fmt::Write;

/// A run and where its own page is, relative to this one; a run may have none.
pub struct Entry<'r> {
    /// The run.
    pub run: &'r RunContents,
    /// What it is called here.
    pub name: String,
    /// Where more of it is.
    pub link: Option<String>,
}

/// The page of these runs under this title.
pub fn page(title: &str, entries: &[Entry]) -> String {
    let mut html = format!("<header>\n<h1>{}</h1>\n", escape(title));
    let comparison = Comparison::of(entries);
    if let Some(comparison) = &comparison {
        let _ = writeln!(html, "<p class=\"lead\">{}</p>", prose(&comparison.sentence()));
    }
    html += "</header>\n";
    if let Some(comparison) = &comparison {
        let shown = Figure::Dots(comparison.dots());
        let colours = Colours::of(entries.iter().map(|entry| &*entry.name));
        html += &shown.across(&colours);
    }
    html += "<ul class=\"gallery\">\n";
    for entry in entries {
        html += &card(entry, comparison.is_none());
    }
    html += "</ul>\n";
    // What was trained for one's own purpose is compared; experiments of the paper have pages of their own.
    let is_own = |entry: &Entry| entry.run.summary.preset == "config";
    if entries.iter().all(is_own) {
        html += &section("Side by side", true, &side_by_side(entries));
        html += &section("Learning curves", false, &curves(entries));
    }
    document(title, &html)
}

/// Runs of one model each on the same test set.
struct Comparison<'e> {
    /// What each is called, and its model; the best first.
    models: Vec<(&'e str, &'e Row)>,
    summary: &'e Summary,
}

impl<'e> Comparison<'e> {
    fn of(entries: &'e [Entry]) -> Option<Comparison<'e>> {
        let test_set = |entry: &Entry| {
            let summary = &entry.run.summary;
            (summary.dataset.clone(), summary.examples())
        };
        let same = entries.iter().all(|entry| test_set(entry) == test_set(&entries[0]));
        let one = |entry: &'e Entry| match &entry.run.summary.rows[..] {
            [row] => Some((&*entry.name, row)),
            _ => None,
        };
        let mut models: Vec<(&str, &Row)> = entries.iter().map(one).collect::<Option<_>>()?;
        models.sort_by_key(|(_, row)| row.test_errors);
        (same && models.len() > 1)
            .then_some(Comparison { models, summary: &entries[0].run.summary })
    }

    /// Which is the best, and whether the next may be worse by chance.
    fn sentence(&self) -> String {
        let [(best, first), (next, second), ..] = self.models[..] else { return String::new() };
        let of = self.summary.of_examples();
        if first.test_errors == second.test_errors {
            return format!(
                "{best} and {next} make the same number of test errors{of}: {}.",
                count(first.test_errors as usize)
            );
        }
        let test = first.mcnemar(second);
        let chance = match test.first_is_better() {
            true => format!("by McNemar's test, p {}, no chance", p_is(test.p_value)),
            false => format!("which may be chance: McNemar's test, p {}", p_is(test.p_value)),
        };
        format!(
            "{best} makes the fewest test errors{of}: {}, against {} of {next}, {chance}.",
            count(first.test_errors as usize),
            count(second.test_errors as usize)
        )
    }

    fn dots(&self) -> Dots {
        dots_of_models(self.summary, &self.models)
    }
}

/// A run: its sentence, what it is not, its figure.
fn card(entry: &Entry, with_figure: bool) -> String {
    let Entry { run, name, link } = entry;
    let summary = &run.summary;
    let mut html = format!("<li><p class=\"kicker\">{}</p>\n", escape(name));
    let said = prose(&sentence(summary));
    let _ = match link {
        Some(link) => writeln!(html, "<h2><a href=\"{}\">{said}</a></h2>", escape(link)),
        None => writeln!(html, "<h2>{said}</h2>"),
    };
    let _ = writeln!(html, "<p class=\"note\">{}</p>", prose(&breath_beside_others(summary)));
    if let Some(shown) = Figure::of(run).filter(|_| with_figure) {
        let colours = Colours::of(summary.variants());
        html += &shown.half(&colours);
    }
    html + "</li>\n"
}

/// Test errors of each variant in each run.
fn side_by_side(entries: &[Entry]) -> String {
    let mut variants: Vec<&str> = Vec::new();
    for variant in entries.iter().flat_map(|entry| entry.run.summary.variants()) {
        if !variants.contains(&variant) {
            variants.push(variant);
        }
    }
    let mut columns = vec!["run", "test set"];
    columns.extend(&variants);
    let mut table = Table::new("Test errors", &columns);
    for Entry { run, name, .. } in entries {
        let set =
            format!("{}{}", run.summary.dataset, run.summary.of_examples().replace(" of", ","));
        let cells = variants.iter().map(|variant| run.summary.errors_cell(variant));
        table.push([name.clone(), set].into_iter().chain(cells));
    }
    table_html(&table)
}

/// The learning curves of all; none where lines could not be told apart.
fn curves(entries: &[Entry]) -> String {
    let runs: Vec<&RunContents> = entries.iter().map(|entry| entry.run).collect();
    let name = |i: usize, variant: &str| format!("{}: {variant}", entries[i].name);
    let names: Vec<String> = (0..runs.len())
        .flat_map(|i| runs[i].summary.variants().into_iter().map(move |variant| name(i, variant)))
        .collect();
    if names.len() > MAX_LINES {
        return String::new();
    }
    let colours = Colours::of(names.iter().map(String::as_str));
    let charts = learning_curves(&runs, name, &colours);
    if charts.is_empty() { charts } else { format!("<div class=\"halves\">\n{charts}</div>\n") }
}
