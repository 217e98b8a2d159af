//! `demo.html`: the models of a run in a page on which one draws.

use super::contents::{EvaluatedModel, Predictions, RunContents};
use super::html::{digest_of, style};
use crate::engine::config::Precision;
use crate::engine::metrics;
use crate::engine::mlp::{Mlp, Workspace};
use crate::files::error::{Error, Result};
use crate::files::model::{Layer, ModelFile};
use crate::run::chart::escape;
use crate::run::chart::palette::Colours;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use limbeck_datasets::{Images, Inputs, Split};
use limbeck_kernels::Context;
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, Instant};

const PAGE: &str = include_str!("demo.html");
const SCRIPT: &str = include_str!("demo.js");
/// Height and width of the images that the page makes from strokes.
const SIDE: usize = 28;
/// Test images to start from in each group.
const SHOWN: usize = 8;
/// The largest weight of a unit. Not 127: weights of fewer values are deflated to fewer bytes.
const LARGEST: f32 = 90.0;
/// The largest difference of a logit between the page, which computes in f64, and the engine, with the
/// page's 8-bit weights.
pub const TOLERANCE: f64 = 1e-4;

/// Whether [`page`] can be made of the run: its models are there and take images of 28 × 28 pixels.
pub fn fits(run: &RunContents) -> bool {
    drawable(run).is_ok()
}

/// The predictions of a run whose images can be drawn; or what was found in their place.
fn drawable(run: &RunContents) -> std::result::Result<&Predictions, String> {
    let predictions = run.predictions.as_ref().map_err(String::clone)?;
    match &predictions.dataset.test.inputs {
        Inputs::Images(Images { height: SIDE, width: SIDE, .. }) => Ok(predictions),
        Inputs::Images(images) => Err(format!("images of {} × {}", images.height, images.width)),
        Inputs::Features(_) => Err("no images".into()),
    }
}

/// The page of a run: its teacher, its baseline and its student. The page checks itself: it compares
/// its logits of some test images with the engine's.
///
/// Weights are stored in 8 bits with a scale for each unit, deflated, in Base64: about a byte each. What
/// that changes on the test set is measured, and stands on the page.
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
    let models: Vec<PageModel> = predictions
        .models
        .iter()
        .map(|model| PageModel::new(context, model, predictions))
        .collect();
    let colours = Colours::of(run.summary.variants());
    let models_json: Result<Vec<Value>> =
        models.iter().map(|model| model.json(context, &colours, predictions)).collect();
    let groups: Vec<Value> = groups(predictions)
        .into_iter()
        .map(|(title, indices)| {
            let samples: Vec<Value> =
                indices.into_iter().map(|i| sample(predictions, &models, i)).collect();
            json!({ "title": title, "samples": samples })
        })
        .collect();
    let data = json!({
        "classes": predictions.dataset.classes,
        "tolerance": TOLERANCE,
        "temperature": run.temperature(),
        "models": models_json?,
        "groups": groups,
        "opening": sample(predictions, &models, predictions.in_two_minds().unwrap_or(0)),
    });
    // The data stand in a script element, which only a `<` could end.
    let data = data.to_string().replace('<', "\\u003c");
    let machine = format!("{}, {} kernels", crate::run::manifest::cpu_model(), context.isa);
    // The data come last: no placeholder is looked for in them.
    let page = PAGE
        .replace("{{policy}}", &digest_of(SCRIPT))
        .replace("{{title}}", &escape(&format!("{}: draw a digit", run.name())))
        .replace("{{name}}", &escape(&run.name()))
        .replace("{{machine}}", &escape(&machine))
        .replace("{{dataset}}", &escape(&predictions.dataset.name))
        .replace("{{style}}", &style())
        .replace("{{script}}", SCRIPT);
    Ok(page.replacen("{{data}}", &data, 1))
}

/// Test images to start from: the first of each class, then those that some of the models get wrong, by
/// which of them.
fn groups(predictions: &Predictions) -> Vec<(String, Vec<usize>)> {
    let (labels, classes) = (predictions.labels(), predictions.dataset.classes);
    let first = |class: usize| labels.iter().position(|&label| usize::from(label) == class);
    let mut groups =
        vec![("One of each class".to_string(), (0..classes).filter_map(first).collect())];
    let right = predictions.right();
    let names: Vec<&str> = predictions.models.iter().map(|model| &*model.row.variant).collect();
    // Each set of models that err, as bits; those of one model come first, those of all last.
    let mut sets: Vec<usize> = (1..1 << names.len()).collect();
    sets.sort_by_key(|set| set.count_ones());
    for set in sets {
        let errs = |m: usize| set >> m & 1 == 1;
        let is_it = |i: &usize| (0..names.len()).all(|m| right[m][*i] != errs(m));
        let found: Vec<usize> = (0..labels.len()).filter(is_it).take(SHOWN).collect();
        let who: Vec<&str> = (0..names.len()).filter(|&m| errs(m)).map(|m| names[m]).collect();
        let title = match who.len() {
            n if n == names.len() && n > 1 => "All are wrong".to_string(),
            _ if names.len() == 1 => "Wrong".to_string(),
            1 => format!("Only the {} is wrong", who[0]),
            _ => format!("{} are wrong", who.join(" and ")),
        };
        if !found.is_empty() {
            groups.push((title, found));
        }
    }
    groups
}

/// A test image with the engine's logits for each of the page's models.
fn sample(predictions: &Predictions, models: &[PageModel], i: usize) -> Value {
    let classes = predictions.dataset.classes;
    let logits: Vec<&[f32]> =
        models.iter().map(|model| &model.logits[i * classes..][..classes]).collect();
    json!({
        "index": i,
        "label": predictions.labels()[i],
        "pixels": BASE64.encode(predictions.dataset.test.images().image(i)),
        "logits": logits,
    })
}

/// A model with the page's weights.
struct PageModel<'r> {
    stored: &'r EvaluatedModel,
    /// Its layers in 8 bits.
    layers: Vec<Bytes>,
    model: Mlp,
    /// Of the test set.
    logits: Vec<f32>,
}

/// A layer whose weights are `scale[output] · weight[output, input]`.
struct Bytes {
    weight: Vec<i8>,
    scale: Vec<f32>,
}

impl Bytes {
    /// The nearest to a layer: the largest weight of a unit is ±[`LARGEST`].
    fn of(layer: &Layer) -> Bytes {
        let rows = || layer.weight.chunks_exact(layer.inputs);
        let largest = |row: &[f32]| row.iter().fold(0.0f32, |most, w| most.max(w.abs()));
        let scale: Vec<f32> =
            rows().map(|row| (largest(row) / LARGEST).max(f32::MIN_POSITIVE)).collect();
        let weight = rows().zip(&scale).flat_map(|(row, scale)| {
            row.iter().map(move |w| (w / scale).round().clamp(-LARGEST, LARGEST) as i8)
        });
        Bytes { weight: weight.collect(), scale }
    }

    /// The layer that these weights are.
    fn layer(&self, like: &Layer) -> Layer {
        let rows = self.weight.chunks_exact(like.inputs).zip(&self.scale);
        let weight = rows.flat_map(|(row, scale)| row.iter().map(move |&w| f32::from(w) * scale));
        Layer { weight: weight.collect(), ..like.clone() }
    }
}

impl<'r> PageModel<'r> {
    fn new(
        context: &Context,
        stored: &'r EvaluatedModel,
        predictions: &Predictions,
    ) -> PageModel<'r> {
        let file = &stored.file;
        let layers: Vec<Bytes> = file.layers.iter().map(Bytes::of).collect();
        let of_page = layers.iter().zip(&file.layers).map(|(bytes, like)| bytes.layer(like));
        let model = Mlp::from_file(&ModelFile { layers: of_page.collect(), ..file.clone() });
        let logits = model.logits(context, &predictions.dataset.test);
        PageModel { stored, layers, model, logits }
    }

    /// The model as the page reads it.
    fn json(
        &self,
        context: &Context,
        colours: &Colours,
        predictions: &Predictions,
    ) -> Result<Value> {
        let PageModel { stored: EvaluatedModel { row, file, model, logits, .. }, .. } = self;
        let (labels, classes) = (predictions.labels(), predictions.dataset.classes);
        let numbers = |values: &[f32]| {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            BASE64.encode(bytes)
        };
        let layers: Result<Vec<Value>> = self
            .layers
            .iter()
            .zip(&file.layers)
            .map(|(bytes, layer)| {
                Ok(json!({
                    "inputs": layer.inputs,
                    "outputs": layer.outputs,
                    "weight": BASE64.encode(deflated(&bytes.weight)?),
                    "scale": numbers(&bytes.scale),
                    "bias": numbers(&layer.bias),
                }))
            })
            .collect();
        let differences = self.logits.iter().zip(logits).map(|(a, b)| (a - b).abs());
        let sizes = file.layers.iter().map(|layer| layer.weight.len() + layer.bias.len());
        let same = metrics::agreement(&self.logits, logits, classes) * labels.len() as f64;
        Ok(json!({
            "variant": row.variant,
            "colour": colours.class(&row.variant),
            "widths": model.widths(),
            "parameters": sizes.sum::<usize>(),
            "test_errors": row.test_errors,
            "test_examples": labels.len(),
            // Of 8-bit weights against the stored ones, over the test set.
            "errors_in_bytes": metrics::errors(&self.logits, labels, classes),
            "answers_changed": labels.len() - same.round() as usize,
            "largest_change": differences.fold(0.0, f32::max),
            "microseconds": latency(context, &self.model, &predictions.dataset.test).as_secs_f64() * 1e6,
            "activation": file.activation.to_string(),
            "input_scale": file.input_scale,
            "input_shift": file.input_shift,
            "layers": layers?,
        }))
    }
}

/// Without a header, as a browser's `deflate-raw` reads it.
fn deflated(bytes: &[i8]) -> Result<Vec<u8>> {
    let bytes: Vec<u8> = bytes.iter().map(|&b| b as u8).collect();
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(&bytes).and_then(|()| encoder.finish());
    written.map_err(|e| Error::Internal(format!("deflating weights: {e}")))
}

/// The time of the logits of one image: the median of 101 passes, after one to fill the caches.
fn latency(context: &Context, model: &Mlp, split: &Split) -> Duration {
    const TIMES: usize = 101;
    context.pool.install(|| {
        let mut work = Workspace::for_evaluation(model, 1, Precision::F32);
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
