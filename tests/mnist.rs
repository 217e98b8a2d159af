//! The real MNIST, found through `LIMBECK_DATA`: a short training reaches the accuracy that this
//! net has, and a reader that knows nothing but the file format gets the same errors.
#![cfg(feature = "paper")]

mod common;

use common::{Silent, best, required::data_dir};
use limbeck::engine::config::{Config, OptimizerKind};
use limbeck::engine::data;
use limbeck::engine::loss::LossSpec;
use limbeck::engine::trainer::{self, Task};
use limbeck_datasets::{Dataset, Split, mnist};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// MNIST, where it is there.
fn dataset() -> Option<Dataset> {
    Some(mnist::load(&data_dir(mnist::is_present)?).unwrap())
}

/// A layer of a model file in f64: W [outputs, inputs] and b.
struct Dense {
    weight: Vec<f64>,
    bias: Vec<f64>,
}

/// A model file read by hand: 8 bytes of header length, the header in JSON, the data.
fn read_model(path: &Path) -> (Vec<Dense>, f64, f64) {
    let bytes = fs::read(path).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: Value = serde_json::from_slice(header).unwrap();
    let tensor = |name: String| -> Option<Vec<f64>> {
        let offsets = header[&name]["data_offsets"].as_array()?;
        let [start, end] = [0, 1].map(|i| offsets[i].as_u64().unwrap() as usize);
        assert_eq!(header[&name]["dtype"], "F32");
        let words = data[start..end].as_chunks::<4>().0;
        Some(words.iter().map(|word| f64::from(f32::from_le_bytes(*word))).collect())
    };
    let layers = (0..).map_while(|i| {
        let weight = tensor(format!("layers.{i}.weight"))?;
        Some(Dense { weight, bias: tensor(format!("layers.{i}.bias"))? })
    });
    let number =
        |key: &str| -> f32 { header["__metadata__"][key].as_str().unwrap().parse().unwrap() };
    (layers.collect(), number("input_scale").into(), number("input_shift").into())
}

/// The examples that the model gets wrong: x = pixel·input_scale + input_shift, layers of
/// relu(W·x + b), the last without ReLU, the class of the largest logit.
fn misclassified(path: &Path, split: &Split) -> Vec<usize> {
    let (layers, scale, shift) = read_model(path);
    let predict = |pixels: &[u8]| {
        let mut x: Vec<f64> = pixels.iter().map(|&p| f64::from(p) * scale + shift).collect();
        for (i, Dense { weight, bias }) in layers.iter().enumerate() {
            let z = weight
                .chunks(x.len())
                .zip(bias)
                .map(|(row, b)| row.iter().zip(&x).map(|(w, x)| w * x).sum::<f64>() + b);
            let hidden = i + 1 < layers.len();
            x = z.map(|z| if hidden { z.max(0.0) } else { z }).collect();
        }
        (0..x.len()).max_by(|&a, &b| x[a].total_cmp(&x[b]).then(b.cmp(&a))).unwrap()
    };
    let labels = split.labels.as_ref().unwrap();
    (0..split.len())
        .filter(|&i| predict(split.images().image(i)) != usize::from(labels[i]))
        .collect()
}

/// Six epochs of a plain net: 158 test errors with this seed, the same on every machine. 250 leaves
/// room for another seed or order of the examples, not for a mistake.
#[test]
fn a_short_training_stays_under_250_errors_and_any_reader_counts_them() {
    let Some(dataset) = dataset() else { return };
    let mut config = Config::default();
    config.model.layers = vec![784, 400, 400, 10];
    config.training.epochs = 6;
    config.training.optimizer = OptimizerKind::Adam;
    config.training.learning_rate = 1e-3;
    let context = best(2);
    let split = &dataset.train;
    assert_eq!((split.len(), dataset.test.len()), (60_000, 10_000));
    let task = Task {
        name: "net",
        config: &config,
        split,
        objective: LossSpec::HARD,
        teacher_logits: None,
        teachers: &[],
        initial: None,
        watch: &[],
    };
    let model = trainer::train(&context, &task, None, &mut Silent).unwrap().model;
    let evaluation = data::evaluate(&context, &model, &dataset.test).unwrap();
    assert!(evaluation.errors < 250, "{} errors", evaluation.errors);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    model.to_file().save(&path).unwrap();
    assert_eq!(misclassified(&path, &dataset.test), evaluation.misclassified);

    let loaded = data::load_model(&path, model.inputs(), model.classes()).unwrap();
    assert_eq!(data::evaluate(&context, &loaded, &dataset.test).unwrap(), evaluation);

    // Another scale of the inputs, which is stored with the model.
    let some = dataset.test.truncated(2000);
    let mut shifted = model.clone();
    (shifted.input.scale, shifted.input.shift) = (1.0 / 127.5, -0.5);
    shifted.to_file().save(&path).unwrap();
    let wrong = data::evaluate(&context, &shifted, &some).unwrap().misclassified;
    assert_eq!(misclassified(&path, &some), wrong);
    let unshifted = evaluation.misclassified.iter().filter(|&&i| i < some.len());
    assert!(!wrong.iter().eq(unshifted), "the scale changes nothing");
}
