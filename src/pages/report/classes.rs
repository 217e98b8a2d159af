//! What the models take each class for.

use crate::engine::metrics::{self, Confusion};
use crate::pages::contents::{EvaluatedModel, Predictions};
use crate::pages::html::table_html;
use crate::run::chart::escape;
use crate::run::number::count;
use crate::run::summary::Table;
use std::cmp::Reverse;
use std::fmt::Write;

/// The most classes of a table [classes, classes] that can be read.
const MOST_CLASSES: usize = 16;
/// Pairs and classes that are shown where there are more.
const SHOWN: usize = 12;

/// The mean soft prediction at temperature `t` of the test examples of each class: a table [classes,
/// classes] for each model, the teacher's first, and a sentence about the first. Nothing where there are
/// too many classes.
pub fn soft_confusions(predictions: &Predictions, t: f64) -> String {
    let classes = predictions.dataset.classes;
    if classes > MOST_CLASSES {
        return String::new();
    }
    let mut html = format!(
        "<p>The mean prediction at T = {t} for the test examples of each class, a row each, in per cent. The \
         darker a cell off the diagonal, the more a model finds of a class that is not there: labels alone \
         teach none of this.</p>\n"
    );
    if let Some(first) = predictions.models.first() {
        let _ = writeln!(html, "<p>{}</p>", escape(&likest(predictions, first, t)));
    }
    html += "<div class=\"thirds\">\n";
    for EvaluatedModel { row, logits, .. } in &predictions.models {
        let confusion = metrics::soft_confusion(logits, predictions.labels(), classes, t);
        let caption = format!("{}, seed {}", row.variant, row.seed);
        html += &matrix(predictions, &caption, "confusion", &confusion, |p| {
            let p = 100.0 * p;
            // As many digits as a telephone has room for.
            if p < 9.95 { format!("{p:.1}") } else { format!("{p:.0}") }
        });
    }
    html + "</div>\n"
}

/// Which other class the model's first three classes look like most.
fn likest(predictions: &Predictions, model: &EvaluatedModel, t: f64) -> String {
    let classes = predictions.dataset.classes;
    let confusion = metrics::soft_confusion(&model.logits, predictions.labels(), classes, t);
    let mut pairs: Vec<(usize, usize, f64)> = Vec::new();
    for class in 0..classes {
        let others = (0..classes).filter(|&other| other != class);
        let likest = others.max_by(|&a, &b| {
            confusion[class * classes + a].total_cmp(&confusion[class * classes + b])
        });
        pairs.extend(likest.map(|other| (class, other, confusion[class * classes + other])));
    }
    pairs.retain(|pair| pair.2.is_finite());
    pairs.sort_by(|a, b| b.2.total_cmp(&a.2));
    let said: Vec<String> = pairs
        .iter()
        .take(3)
        .map(|&(class, other, p)| {
            format!(
                "{} looks like {} ({:.1} %)",
                predictions.class(class),
                predictions.class(other),
                100.0 * p
            )
        })
        .collect();
    format!("To the {}, {}.", model.row.variant, said.join(", "))
}

/// A table [classes, classes] whose cells off the diagonal are shaded between their least and their most.
fn matrix(
    predictions: &Predictions,
    caption: &str,
    kind: &str,
    values: &[f64],
    text: impl Fn(f64) -> String,
) -> String {
    let classes = predictions.dataset.classes;
    let off = |i: usize| i / classes != i % classes;
    let wrong = values.iter().enumerate().filter(|&(i, p)| off(i) && p.is_finite());
    let (least, most) =
        wrong.fold((f64::MAX, f64::MIN), |(least, most), (_, &p)| (least.min(p), most.max(p)));
    let span = (most - least).max(f64::MIN_POSITIVE);
    let mut html = format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{0}\"><table \
         class=\"{kind}\"><caption>{0}</caption>\n<thead><tr><td></td>",
        escape(caption)
    );
    for class in 0..classes {
        let _ = write!(html, "<th scope=\"col\">{}</th>", escape(&predictions.class(class)));
    }
    html += "</tr></thead>\n<tbody>\n";
    for (class, row) in values.chunks_exact(classes).enumerate() {
        let _ = write!(html, "<tr><th scope=\"row\">{}</th>", escape(&predictions.class(class)));
        for (other, &p) in row.iter().enumerate() {
            let _ = match (other == class, p.is_finite()) {
                (_, false) => write!(html, "<td>–</td>"),
                (true, _) => write!(html, "<td class=\"own\">{}</td>", text(p)),
                (false, _) => {
                    let shade = 100.0 * (p - least) / span;
                    write!(html, "<td style=\"--shade-of:{shade:.0}%\">{}</td>", text(p))
                }
            };
        }
        html += "</tr>\n";
    }
    html + "</tbody></table></div>\n"
}

/// What the models get wrong: the classes they confuse, and how many of each class they find.
pub fn hard_confusions(predictions: &Predictions) -> String {
    let (classes, labels) = (predictions.dataset.classes, predictions.labels());
    if classes > Confusion::MOST {
        return String::new();
    }
    let confusions: Vec<Confusion> = predictions
        .models
        .iter()
        .map(|model| Confusion::new(&model.logits, labels, classes))
        .collect();
    // Pair i: examples of class i / classes taken for class i % classes.
    let of_pair = |confusion: &Confusion, i: usize| confusion.row(i / classes)[i % classes];
    let names: Vec<&str> = predictions.models.iter().map(|model| &*model.row.variant).collect();
    let mut pairs: Vec<(u64, usize)> = (0..classes * classes)
        .filter(|i| i / classes != i % classes)
        .map(|i| (confusions.iter().map(|confusion| of_pair(confusion, i)).sum(), i))
        .filter(|&(sum, _)| sum > 0)
        .collect();
    pairs.sort_by_key(|&(sum, i)| (Reverse(sum), i));
    let with = |first: &[&'static str]| -> Vec<String> {
        first
            .iter()
            .map(|name| name.to_string())
            .chain(names.iter().map(|name| name.to_string()))
            .collect()
    };
    let columns = with(&["labelled", "taken for"]);
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut confused = Table::new("Test examples of a class taken for another", &columns);
    for &(_, i) in pairs.iter().take(SHOWN) {
        let cells = confusions.iter().map(|confusion| count(of_pair(confusion, i) as usize));
        confused.push(
            [predictions.class(i / classes), predictions.class(i % classes)]
                .into_iter()
                .chain(cells),
        );
    }
    if pairs.len() > SHOWN {
        confused.note(format!("The {SHOWN} most frequent of {} pairs.", count(pairs.len())));
    }
    let mut recall: Vec<(usize, u64, Vec<f64>)> = (0..classes)
        .filter_map(|class| {
            let n = confusions.first()?.examples(class);
            let found = confusions.iter().filter_map(|confusion| confusion.recall(class));
            (n > 0).then(|| (class, n, found.collect()))
        })
        .collect();
    let columns = with(&["class", "test examples"]);
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut found = Table::new("Recall: the share of each class that is found", &columns);
    if recall.len() > MOST_CLASSES {
        recall.sort_by(|a, b| {
            a.2.last().partial_cmp(&b.2.last()).unwrap_or(std::cmp::Ordering::Equal)
        });
        found.note(format!("The {SHOWN} classes with the least recall of {}.", recall.len()));
        recall.truncate(SHOWN);
    }
    for (class, n, shares) in recall {
        let cells = shares.into_iter().map(|share| format!("{:.1} %", 100.0 * share));
        found.push([predictions.class(class), count(n as usize)].into_iter().chain(cells));
    }
    let confused = if confused.rows.is_empty() { String::new() } else { table_html(&confused) };
    format!("<div class=\"halves\"><div>{}</div><div>{confused}</div></div>\n", table_html(&found))
}
