//! Test examples on which the models disagree, each with what every model says.

use crate::engine::metrics;
use crate::files::error::Result;
use crate::pages::contents::{EvaluatedModel, Predictions};
use crate::pages::html::image_source;
use crate::run::chart::escape;
use crate::run::chart::palette::Colours;
use crate::run::number::{count, short};
use limbeck_datasets::Inputs;
use std::fmt::Write;

/// Examples that are shown of each group.
const SHOWN: usize = 8;
/// Values of a row of a table that are shown.
const VALUES: usize = 8;
/// Bars of a soft prediction: of more classes those that are likeliest.
const BARS: usize = 10;

/// Who is right: a sentence, and whether the models that are right are such.
type Group<'g> = (&'g str, &'g dyn Fn(&[bool]) -> bool);

/// The groups of examples with soft predictions at temperature `t`.
///
/// # Errors
/// [`crate::Error::Internal`] for an image that has no PNG.
pub fn disagreements(predictions: &Predictions, t: f64, colours: &Colours) -> Result<String> {
    let (labels, classes) = (predictions.labels(), predictions.dataset.classes);
    let wrong: Vec<Vec<usize>> = predictions
        .models
        .iter()
        .map(|model| metrics::misclassified(&model.logits, labels, classes))
        .collect();
    let right = |i: usize| -> Vec<bool> {
        wrong.iter().map(|wrong| wrong.binary_search(&i).is_err()).collect()
    };
    let place = |variant: &str| predictions.models.iter().position(|m| m.row.variant == variant);
    let (baseline, student) = (place("baseline"), place("student"));
    let all_wrong = |right: &[bool]| right.iter().all(|right| !right);
    let mut html = String::new();
    if let (Some(baseline), Some(student)) = (baseline, student) {
        let groups: [Group; 3] = [
            ("The student is right, the plain net is wrong", &|right| {
                right[student] && !right[baseline]
            }),
            ("The student is wrong, the plain net is right", &|right| {
                !right[student] && right[baseline]
            }),
            ("All are wrong", &all_wrong),
        ];
        for group in groups {
            html += &cards(predictions, t, colours, group, &right)?;
        }
    } else {
        let groups: [Group; 2] = [
            ("Some are wrong", &|right| right.contains(&true) && right.contains(&false)),
            (if wrong.len() > 1 { "All are wrong" } else { "Wrong" }, &all_wrong),
        ];
        for group in groups {
            html += &cards(predictions, t, colours, group, &right)?;
        }
    }
    if html.is_empty() {
        return Ok("<p>None: every test example is classified as it is labelled.</p>\n".into());
    }
    Ok(format!(
        "<p>Soft predictions at T = {t}; the label's bar is outlined. <span class=\"right\">✓</span> right, \
         <span class=\"wrong\">✗</span> wrong.</p>\n{html}"
    ))
}

/// The first examples of a group as a list; nothing of a group without any.
fn cards(
    predictions: &Predictions,
    t: f64,
    colours: &Colours,
    (title, belongs): Group,
    right: &dyn Fn(usize) -> Vec<bool>,
) -> Result<String> {
    let labels = predictions.labels();
    let found: Vec<usize> = (0..labels.len()).filter(|&i| belongs(&right(i))).collect();
    if found.is_empty() {
        return Ok(String::new());
    }
    let mut html = format!(
        "<h3>{title}: {} of {}</h3>\n<ul class=\"cards\">\n",
        count(found.len()),
        count(labels.len())
    );
    for &i in found.iter().take(SHOWN) {
        let label = usize::from(labels[i]);
        let name = escape(&predictions.class(label));
        html += "<li>";
        html += &shown(predictions, i)?;
        let _ = writeln!(html, "<div><p>example {i}, labelled <strong>{name}</strong></p>");
        for model in &predictions.models {
            html += &says(predictions, model, i, label, t, &colours.class(&model.row.variant));
        }
        html += "</div></li>\n";
    }
    Ok(html + "</ul>\n")
}

/// A test example: its picture, or its values.
fn shown(predictions: &Predictions, i: usize) -> Result<String> {
    match &predictions.dataset.test.inputs {
        Inputs::Images(images) => {
            let source = image_source(images.image(i), images.width, images.height)?;
            let label = predictions.class(predictions.labels()[i].into());
            Ok(format!(
                "<img src=\"{source}\" alt=\"Test image {i}, labelled {}\" width=\"84\" height=\"84\">",
                escape(&label)
            ))
        }
        Inputs::Features(features) => {
            let mut space = vec![0.0; features.input_size()];
            Ok(values(predictions, features.input(i, &mut space)))
        }
    }
}

/// The first values of a row, by the names of their columns.
fn values(predictions: &Predictions, row: &[f32]) -> String {
    let mut html = String::from("<dl class=\"values\">");
    for (i, &value) in row.iter().take(VALUES).enumerate() {
        let name = predictions
            .dataset
            .names
            .features
            .get(i)
            .cloned()
            .unwrap_or(format!("value {}", i + 1));
        let _ = write!(html, "<dt>{}</dt><dd>{}</dd>", escape(&name), short(value.into()));
    }
    if row.len() > VALUES {
        let _ = write!(html, "<dt>and {} more</dt><dd></dd>", row.len() - VALUES);
    }
    html + "</dl>"
}

/// The example that the first model, the teacher where there is one, is most in two minds about, at three
/// temperatures.
///
/// # Errors
/// [`crate::Error::Internal`] for an image that has no PNG.
pub fn at_temperatures(predictions: &Predictions, t: f64, colours: &Colours) -> Result<String> {
    let Some(i) = predictions.in_two_minds() else { return Ok(String::new()) };
    let (model, classes) = (&predictions.models[0], predictions.dataset.classes);
    let label = usize::from(predictions.labels()[i]);
    let mut html = format!(
        "<div><h3>One example, three temperatures</h3>\n<p class=\"note\">What the {} says of test example {i}, \
         labelled {}, of all that it gets right the one between two classes.</p>\n<div class=\"same\">{}<div>\n",
        escape(&model.row.variant),
        escape(&predictions.class(label)),
        shown(predictions, i)?
    );
    let hot = t.max(2.0);
    for t in [1.0, hot.sqrt().round(), hot] {
        let soft = metrics::soft_prediction(&model.logits[i * classes..][..classes], t);
        let _ = writeln!(
            html,
            "<div class=\"says {}\"><span class=\"who\">T = {t}</span>{}</div>",
            colours.class(&model.row.variant),
            bars(predictions, &soft, label)
        );
    }
    Ok(html + "</div></div></div>\n")
}

/// What a model says: its answer, right or wrong, and its soft prediction as bars.
fn says(
    predictions: &Predictions,
    model: &EvaluatedModel,
    i: usize,
    label: usize,
    t: f64,
    colour: &str,
) -> String {
    let classes = predictions.dataset.classes;
    let logits = &model.logits[i * classes..][..classes];
    let soft = metrics::soft_prediction(logits, t);
    let answer = metrics::predict(logits);
    let (kind, sign) = if answer == Some(label) { ("right", "✓") } else { ("wrong", "✗") };
    let answer = answer.map_or("no answer".into(), |class| predictions.class(class));
    format!(
        "<div class=\"says {colour}\"><span class=\"who\">{}</span> <span class=\"{kind}\">{sign} {}</span>{}</div>\n",
        escape(&model.row.variant),
        escape(&answer),
        bars(predictions, &soft, label)
    )
}

/// A soft prediction as bars scaled to the tallest, above the names of their classes.
fn bars(predictions: &Predictions, soft: &[f64], label: usize) -> String {
    let mut shown: Vec<usize> = (0..soft.len()).collect();
    shown.sort_by(|&a, &b| soft[b].total_cmp(&soft[a]));
    let said = shown
        .iter()
        .take(3)
        .map(|&class| format!("{}: {:.1} %", predictions.class(class), 100.0 * soft[class]));
    let said: Vec<String> = said.collect();
    shown.truncate(BARS);
    shown.sort_unstable();
    let most = shown.iter().map(|&class| soft[class]).fold(f64::MIN_POSITIVE, f64::max);
    // In units of the picture: bars of up to 26, names below, of which a letter takes about 5.
    let names: Vec<String> = shown.iter().map(|&class| predictions.class(class)).collect();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(1);
    // A few bars are no wider than many, but for the sake of their names.
    let slot = if longest > 2 { 12 * BARS / shown.len().max(1) } else { 12 };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {} 38\" role=\"img\" aria-label=\"{}\">",
        slot * shown.len().max(if longest > 2 { 1 } else { BARS }),
        escape(&said.join(", "))
    );
    let short = |name: &str| match name.chars().count() > slot / 5 {
        true => name.chars().take((slot / 5).max(2) - 1).chain(['…']).collect(),
        false => name.to_string(),
    };
    for (place, &class) in shown.iter().enumerate() {
        let height = (26.0 * soft[class] / most).max(0.4);
        let own = if class == label { " class=\"own\"" } else { "" };
        let _ = write!(
            svg,
            "<rect{own} x=\"{}\" y=\"{:.1}\" width=\"{}\" height=\"{height:.1}\"/>",
            slot * place + 1,
            27.0 - height,
            slot - 3
        );
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"37\">{}</text>",
            slot * place + slot / 2,
            escape(&short(&names[place]))
        );
    }
    svg + "</svg>"
}
