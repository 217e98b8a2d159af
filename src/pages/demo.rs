//! `demo.html`: the models of a run in a page on which one draws.

use super::material::{Asked, Material, Trial};
use super::report::STYLE;
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
/// Images to start from that some model gets wrong, behind one of each class.
const HARD: usize = 8;
/// The page and the engine may differ by so much in a logit.
pub const TOLERANCE: f64 = 1e-4;

/// Whether [`page`] can be made of the run: its models take images of 28 × 28 pixels.
pub fn fits(run: &Material) -> bool {
    drawable(run).is_ok()
}

fn drawable(run: &Material) -> std::result::Result<&Trial, String> {
    let trial = run.trial.as_ref().map_err(String::clone)?;
    let images = trial.dataset.test.images();
    match (images.height, images.width) {
        (SIDE, SIDE) => Ok(trial),
        (height, width) => Err(format!("images of {height} × {width}")),
    }
}

/// The page of a run: its teacher, baseline and student, with test images whose logits the page
/// compares with the engine's.
///
/// The parameters are stored as they are, in f32: 4/3 of their bytes in base64, 26 MB for the
/// paper's three nets.
///
/// # Errors
/// [`Error::Data`] if the run has no such models at hand, its data are not, or its images are not
/// of 28 × 28 pixels.
pub fn page(context: &Context, run: &Material) -> Result<String> {
    let trial = drawable(run).map_err(|found| Error::Data {
        path: run.root.clone(),
        what: "models to draw for".into(),
        found,
        expected: format!("trained models of a run on images of {SIDE} × {SIDE} pixels"),
    })?;
    let chosen = samples(trial);
    let images = trial.dataset.test.images();
    let models: Vec<_> = trial.models.iter().map(|asked| model(context, asked, trial)).collect();
    let classes = trial.dataset.classes;
    let samples: Vec<_> = chosen
        .iter()
        .map(|&i| {
            let logits = trial.models.iter().map(|asked| &asked.logits[i * classes..][..classes]);
            json!({
                "index": i,
                "label": trial.labels()[i],
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
    // In a script element only `<` could end the data.
    let data = data.to_string().replace('<', "\\u003c");
    let machine = format!("{}, {} kernels", crate::run::manifest::cpu_model(), context.isa);
    let title = format!("{}: draw for the models", run.name());
    // The data last: nothing is looked for in them.
    let page = PAGE
        .replace("{{title}}", &escape(&title))
        .replace("{{machine}}", &escape(&machine))
        .replace("{{dataset}}", &escape(&trial.dataset.name))
        .replace("{{style}}", STYLE)
        .replace("{{script}}", SCRIPT);
    Ok(page.replacen("{{data}}", &data, 1))
}

/// The first image of each class, then images that a model gets wrong.
fn samples(trial: &Trial) -> Vec<usize> {
    let (labels, classes) = (trial.labels(), trial.dataset.classes);
    let first = |class: usize| labels.iter().position(|&label| usize::from(label) == class);
    let mut chosen: Vec<usize> = (0..classes).filter_map(first).collect();
    let wrong: Vec<Vec<usize>> = trial
        .models
        .iter()
        .map(|asked| metrics::misclassified(&asked.logits, labels, classes))
        .collect();
    let hard = (0..labels.len()).filter(|i| wrong.iter().any(|wrong| wrong.contains(i)));
    let hard: Vec<usize> = hard.filter(|i| !chosen.contains(i)).take(HARD).collect();
    chosen.extend(hard);
    chosen
}

/// A model as the page reads it: weights [outputs, inputs] and biases as little-endian f32.
fn model(context: &Context, asked: &Asked, trial: &Trial) -> serde_json::Value {
    let base64 = |values: &[f32]| {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        BASE64.encode(bytes)
    };
    let layers = asked.file.layers.iter().map(|layer| {
        json!({
            "inputs": layer.inputs,
            "outputs": layer.outputs,
            "weight": base64(&layer.weight),
            "bias": base64(&layer.bias),
        })
    });
    let sizes = asked.file.layers.iter().map(|layer| layer.weight.len() + layer.bias.len());
    json!({
        "system": asked.row.variant,
        "seed": asked.row.seed,
        "widths": asked.model.widths(),
        "parameters": sizes.sum::<usize>(),
        "test_errors": asked.row.test_errors,
        "microseconds": latency(context, &asked.model, &trial.dataset.test).as_secs_f64() * 1e6,
        "input_scale": asked.file.input_scale,
        "input_shift": asked.file.input_shift,
        "layers": layers.collect::<Vec<_>>(),
    })
}

/// Time of the logits of a single image: the median of 101, after one that fills the caches.
fn latency(context: &Context, model: &Mlp, split: &Split) -> Duration {
    const TIMES: usize = 101;
    context.pool.install(|| {
        let mut work = Workspace::for_evaluation(model, 1);
        let mut ask = || {
            let start = Instant::now();
            work.load(context, model, &split.batch(&[0]), None);
            model.forward(context, &mut work, &[]);
            start.elapsed()
        };
        ask();
        let mut times: Vec<Duration> = (0..TIMES).map(|_| ask()).collect();
        times.sort();
        times[TIMES / 2]
    })
}
