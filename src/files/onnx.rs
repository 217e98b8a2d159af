//! A model as an ONNX graph.
//!
//! ```text
//! inputs [batch, D] ─ Mul input_scale ─ Add input_shift ─ Gemm W₀, b₀ ─ Relu or Tanh ─ … ─ logits [batch, C]
//! ```
//!
//! `inputs` are f32 as the model file takes them: pixels of 0 to 255, or features as they are. Their
//! normalisation x = input·scale + shift is part of the graph, without the factor 1 and the summand
//! 0; for standardised features it is Sub standardize.mean, Mul standardize.scale. The metadata has
//! `class_names` and `feature_names` as JSON arrays where the model knows them. Weights are [outputs, inputs], as in our files (Gemm's transB); the size of the batch is free.
//! Message and field numbers are those of onnx.proto, IR version 8, operators of opset 13.

use crate::files::error::{Error, Result};
use crate::files::model::{ModelFile, Standardizer};
use crate::files::protobuf::Message;
use crate::files::write::atomic_write;
use limbeck_kernels::Activation;
use std::path::Path;

/// No protobuf message is longer.
const MAX_BYTES: usize = i32::MAX as usize;
/// TensorProto.DataType and AttributeProto.AttributeType.
const FLOAT: u64 = 1;
const INT: u64 = 2;

/// Writes `model`, which was read from `from`, to `path`, atomically.
///
/// # Errors
/// [`Error::Data`] for a model that is too large; [`Error::Io`].
pub fn write(model: &ModelFile, from: &Path, path: &Path) -> Result<()> {
    let layers = model.layers.iter();
    let parameters: usize = layers.map(|layer| 4 * (layer.weight.len() + layer.bias.len())).sum();
    // Names, shapes and nodes take less than 1 KiB a layer.
    if parameters + 1024 * (model.layers.len() + 1) > MAX_BYTES {
        return Err(Error::Data {
            path: from.to_path_buf(),
            what: "parameters".into(),
            found: format!("{parameters} bytes"),
            expected: format!("less than {MAX_BYTES}, the most that an ONNX file holds"),
        });
    }
    atomic_write(path, encode(model)?.as_ref())
}

/// ModelProto.
fn encode(model: &ModelFile) -> Result<Message> {
    let property = |key: &str, value: &str| {
        Message::default().part(1, key).part(2, value) // StringStringEntryProto
    };
    let encoded = Message::default()
        .int(1, 8) // ir_version
        .part(2, "limbeck") // producer_name
        .part(3, env!("CARGO_PKG_VERSION")) // producer_version
        .part(7, graph(model))
        .part(8, Message::default().part(1, "").int(2, 13)) // opset_import: domain, version
        .part(14, property("input_scale", &model.input_scale.to_string())) // metadata_props
        .part(14, property("input_shift", &model.input_shift.to_string()));
    let about = model.about.metadata()?;
    let properties = about.iter().map(|(key, value)| property(key, value));
    Ok(properties.fold(encoded, |encoded, property| encoded.part(14, property)))
}

/// GraphProto.
fn graph(model: &ModelFile) -> Message {
    let mut graph = Message::default().part(2, "limbeck-mlp"); // name
    let add = |graph: Message, op: &str, inputs: &[&str], output: &str| {
        graph.part(1, node(op, inputs, output)) // node
    };
    let mut x = "inputs".to_string();
    let [scale, shift] = [[model.input_scale], [model.input_shift]];
    let steps: [(&str, &str, &[usize], &[f32]); 2] = match &model.standardizer {
        None => [("Mul", "input_scale", &[], &scale), ("Add", "input_shift", &[], &shift)],
        Some(Standardizer { mean, scale }) => [
            ("Sub", "standardize.mean", &[mean.len()], mean),
            ("Mul", "standardize.scale", &[scale.len()], scale),
        ],
    };
    for (op, name, shape, values) in steps {
        if ![("Mul", &[1.0][..]), ("Add", &[0.0])].contains(&(op, values)) {
            let output = format!("{op}.{name}");
            graph = add(graph, op, &[&x, name], &output).part(5, tensor(name, shape, values));
            x = output;
        }
    }
    for (i, layer) in model.layers.iter().enumerate() {
        let last = i + 1 == model.layers.len();
        let [weight, bias] = ["weight", "bias"].map(|part| format!("layers.{i}.{part}"));
        let z = if last { "logits".to_string() } else { format!("z.{i}") };
        graph = add(graph, "Gemm", &[&x, &weight, &bias], &z)
            .part(5, tensor(&weight, &[layer.outputs, layer.inputs], &layer.weight)) // initializer
            .part(5, tensor(&bias, &[layer.outputs], &layer.bias));
        x = z;
        if !last {
            let y = format!("y.{i}");
            graph = add(graph, operator(model.activation), &[&x], &y);
            x = y;
        }
    }
    let widths = [model.layers.first().map(|l| l.inputs), model.layers.last().map(|l| l.outputs)];
    let [inputs, classes] = widths.map(Option::unwrap_or_default);
    graph.part(11, matrix("inputs", inputs)).part(12, matrix("logits", classes)) // input, output
}

/// The operator of an activation.
fn operator(activation: Activation) -> &'static str {
    match activation {
        Activation::Relu => "Relu",
        Activation::Tanh => "Tanh",
    }
}

/// NodeProto. Gemm takes the weights transposed.
fn node(op: &str, inputs: &[&str], output: &str) -> Message {
    let node = inputs.iter().fold(Message::default(), |node, input| node.part(1, input)); // input
    // output, name, op_type
    let node = node.part(2, output).part(3, format!("{op}:{output}")).part(4, op);
    if op != "Gemm" {
        return node;
    }
    // attribute: name, i, type
    node.part(5, Message::default().part(1, "transB").int(3, 1).int(20, INT))
}

/// TensorProto: dims, data_type, name, raw_data.
fn tensor(name: &str, shape: &[usize], values: &[f32]) -> Message {
    let tensor = shape.iter().fold(Message::default(), |t, &side| t.int(1, side as u64));
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor.int(2, FLOAT).part(8, name).part(9, bytes)
}

/// ValueInfoProto of an f32 matrix [batch, columns].
fn matrix(name: &str, columns: usize) -> Message {
    let batch = Message::default().part(2, "batch"); // dim_param
    let columns = Message::default().int(1, columns as u64); // dim_value
    let shape = Message::default().part(1, batch).part(1, columns); // TensorShapeProto: dim
    let tensor = Message::default().int(1, FLOAT).part(2, shape); // elem_type, shape
    // name, type: tensor_type
    Message::default().part(1, name).part(2, Message::default().part(1, tensor))
}
