//! `demo.html`: the models of a run in a page on which one draws.

use super::STYLE;
use super::contents::{EvaluatedModel, Predictions, RunContents};
use crate::engine::metrics;
use crate::engine::mlp::{Mlp, Workspace};
use crate::files::error::{Error, Result};
use crate::run::chart::escape;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use limbeck_datasets::Split;
use limbeck_kernels::Context;
use serde_json::json;
use std::time::{Duration, Instant};

const PAGE: &str = include_str!("demo.html");
const SCRIPT: &str = include_str!("demo.js");
/// Height and width of the images that the page makes from strokes.
const SIDE: usize = 28;
/// Number of images to start from that some model gets wrong; one of each class comes before them.
const WRONG: usize = 8;
/// The largest difference of a logit between the page, which computes in f64, and the engine.
pub const TOLERANCE: f64 = 1e-4;

/// Whether [`page`] can be made of the run: its models are there and take images of 28 × 28 pixels.
pub fn fits(run: &RunContents) -> bool {
    drawable(run).is_ok()
}

/// The predictions of a run whose images can be drawn; or what was found in their place.
fn drawable(run: &RunContents) -> std::result::Result<&Predictions, String> {
    let predictions = run.predictions.as_ref().map_err(String::clone)?;
    let images = predictions.dataset.test.images();
    match (images.height, images.width) {
        (SIDE, SIDE) => Ok(predictions),
        (height, width) => Err(format!("images of {height} × {width}")),
    }
}

/// The page of a run: its teacher, its baseline and its student. The page checks itself: it compares
/// its logits of some test images with the engine's.
///
/// The parameters are stored in f32 without loss, in Base64: 26 MB for the paper's three nets.
///
/// # Errors
/// [`Error::Data`] if the run has no such models at hand, its data are not, or its images are not
/// of 28 × 28 pixels.
pub fn page(context: &Context, run: &RunContents) -> Result<String> {
    let predictions = drawable(run).map_err(|found| Error::Data {
        path: run.root.clone(),
        what: "models to draw for".into(),
        found,
        expected: format!("trained models of a run on images of {SIDE} × {SIDE} pixels"),
    })?;
    let chosen = choose_samples(predictions);
    let images = predictions.dataset.test.images();
    let models = predictions.models.iter();
    let models: Vec<_> = models.map(|model| model_json(context, model, predictions)).collect();
    let classes = predictions.dataset.classes;
    let samples: Vec<_> = chosen
        .iter()
        .map(|&i| {
            let models = predictions.models.iter();
            let logits = models.map(|model| &model.logits[i * classes..][..classes]);
            json!({
                "index": i,
                "label": predictions.labels()[i],
                "pixels": BASE64.encode(images.image(i)),
                "logits": logits.collect::<Vec<_>>(),
            })
        })
        .collect();
    let data = json!({
        "classes": classes,
        "tolerance": TOLERANCE,
        "temperature": run.temperature(),
        "models": models,
        "samples": samples,
    });
    // The data stand in a script element, which only a `<` could end.
    let data = data.to_string().replace('<', "\\u003c");
    let machine = format!("{}, {} kernels", crate::run::manifest::cpu_model(), context.isa);
    let title = format!("{}: draw for the models", run.name());
    // The data come last: no placeholder is looked for in them.
    let page = PAGE
        .replace("{{title}}", &escape(&title))
        .replace("{{machine}}", &escape(&machine))
        .replace("{{dataset}}", &escape(&predictions.dataset.name))
        .replace("{{style}}", STYLE)
        .replace("{{script}}", SCRIPT);
    Ok(page.replacen("{{data}}", &data, 1))
}

/// The first image of each class, then images that a model gets wrong.
fn choose_samples(predictions: &Predictions) -> Vec<usize> {
    let (labels, classes) = (predictions.labels(), predictions.dataset.classes);
    let first = |class: usize| labels.iter().position(|&label| usize::from(label) == class);
    let mut chosen: Vec<usize> = (0..classes).filter_map(first).collect();
    let wrong = |m: &EvaluatedModel| metrics::misclassified(&m.logits, labels, classes);
    let wrong: Vec<Vec<usize>> = predictions.models.iter().map(wrong).collect();
    let further = (0..labels.len()).filter(|i| wrong.iter().any(|wrong| wrong.contains(i)));
    let further: Vec<usize> = further.filter(|i| !chosen.contains(i)).take(WRONG).collect();
    chosen.extend(further);
    chosen
}

/// A model as the page reads it: weights [outputs, inputs] and biases as little-endian f32.
fn model_json(
    context: &Context,
    evaluated: &EvaluatedModel,
    predictions: &Predictions,
) -> serde_json::Value {
    let EvaluatedModel { row, file, model, .. } = evaluated;
    let base64 = |values: &[f32]| {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        BASE64.encode(bytes)
    };
    let layers = file.layers.iter().map(|layer| {
        json!({
            "inputs": layer.inputs,
            "outputs": layer.outputs,
            "weight": base64(&layer.weight),
            "bias": base64(&layer.bias),
        })
    });
    let sizes = file.layers.iter().map(|layer| layer.weight.len() + layer.bias.len());
    json!({
        "variant": row.variant,
        "seed": row.seed,
        "widths": model.widths(),
        "parameters": sizes.sum::<usize>(),
        "test_errors": row.test_errors,
        "microseconds": latency(context, model, &predictions.dataset.test).as_secs_f64() * 1e6,
        "activation": file.activation.to_string(),
        "input_scale": file.input_scale,
        "input_shift": file.input_shift,
        "layers": layers.collect::<Vec<_>>(),
    })
}

/// The time of the logits of one image: the median of 101 passes, after one to fill the caches.
fn latency(context: &Context, model: &Mlp, split: &Split) -> Duration {
    const TIMES: usize = 101;
    context.pool.install(|| {
        let mut work = Workspace::for_evaluation(model, 1);
        let mut pass = || {
            let start = Instant::now();
            work.load(context, model, &split.batch(&[0]), None);
            model.forward(context, &mut work, &[]);
            start.elapsed()
        };
        pass();
        let mut times: Vec<Duration> = (0..TIMES).map(|_| pass()).collect();
        times.sort();
        times[TIMES / 2]
    })
}
