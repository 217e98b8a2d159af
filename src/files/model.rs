//! Models on disk: safetensors with a verified SHA-256.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::Path;

use limbeck_datasets::Names;
use limbeck_kernels::Activation;
use safetensors::tensor::{Dtype, TensorInfo};

use crate::files::about::About;
use crate::files::digest::sha256_of;
use crate::files::error::{Error, Result};
use crate::files::safetensors::{MAX_MODEL_BYTES, TensorFile, header, layout, le_bytes, write};
use crate::files::state_dict;

const FORMAT: &str = "limbeck-mlp/1";
const METADATA_SHA256: &str = "metadata_sha256";
const MEAN: &str = "standardize.mean";
const SCALE: &str = "standardize.scale";
/// The metadata that only a model of this format has.
const OWN_KEYS: [&str; 6] =
    ["activation", "input_scale", "input_shift", "classes", "sha256", METADATA_SHA256];
/// What the safetensors packages of other frameworks write as `format`.
const FRAMEWORKS: [&str; 5] = ["pt", "np", "tf", "flax", "mlx"];

/// One dense layer, y = x·Wᵀ + b.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Units of the layer below.
    pub inputs: usize,
    /// Units of this layer.
    pub outputs: usize,
    /// W, `[outputs, inputs]` row-major.
    pub weight: Vec<f32>,
    /// b, `[outputs]`.
    pub bias: Vec<f32>,
}

/// How features become inputs of mean 0 and variance 1: xⱼ = (valueⱼ − meanⱼ)·scaleⱼ.
#[derive(Debug, Clone, PartialEq)]
pub struct Standardizer {
    /// `[inputs]`.
    pub mean: Vec<f32>,
    /// `[inputs]`: one over the standard deviation; 0 for a column that is constant.
    pub scale: Vec<f32>,
}

/// A trained network: dense layers with ReLU between them, on inputs
/// x = value·input_scale + input_shift or, with a [`Standardizer`], x = (value − mean)·scale.
///
/// File: safetensors with `layers.{i}.weight`, `[outputs, inputs]`, and `layers.{i}.bias`,
/// `[outputs]`, behind these `standardize.mean` and `standardize.scale`, `[inputs]`, where features
/// are standardised, all in f32 (f16, bf16 and f64 are read too), and the metadata `format`,
/// `activation`, `input_scale`, `input_shift`, `classes`, those of [`About`], `sha256`, that of the
/// tensors, and `metadata_sha256`, that of all other metadata as JSON with sorted keys and no
/// blanks.
///
/// In PyTorch: names, shapes and order are those of the `state_dict` of a module whose `layers` is a
/// `ModuleList` of `Linear`. Of a `Sequential` of `Linear` and `ReLU` in turn, `layers.{i}` is
/// called `{2i}`. tests/interop.py loads both, and a net of PyTorch's the other way.
///
/// A `state_dict` that was saved as it is, without this metadata, is read too where the names tell the
/// order of the layers: [`ModelFile::load_noting`].
///
/// A file in which one bit was flipped or that was cut short is refused or loads to the same model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFile {
    /// First layer first; each takes the outputs of the one before.
    pub layers: Vec<Layer>,
    /// f of the hidden layers.
    pub activation: Activation,
    /// Factor of a pixel of 0 to 255.
    pub input_scale: f32,
    /// Added to the scaled pixel.
    pub input_shift: f32,
    /// In place of these, for features.
    pub standardizer: Option<Standardizer>,
    /// What the model was trained on.
    pub about: About,
}

impl ModelFile {
    /// SHA-256 of the tensors as little-endian f32 in the canonical order layers.0.weight,
    /// layers.0.bias, layers.1.weight, …, standardize.mean, standardize.scale. That is the order of the
    /// files written here; a file in another order has the same hash.
    pub fn sha256(&self) -> String {
        sha256_of(self.parameters().flat_map(|(_, _, values)| le_bytes(values)))
    }

    /// Writes the model atomically and returns [`ModelFile::sha256`]. Metadata floats are printed
    /// with the digits that parse back to the same f32.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Internal`] for a model that [`ModelFile::load`] would refuse.
    pub fn save(&self, path: &Path) -> Result<String> {
        self.check().map_err(|f| Error::Internal(format!("saving a model: {f}")))?;
        let sha256 = self.sha256();
        let classes = self.layers.last().map_or(0, |layer| layer.outputs);
        let mut metadata: BTreeMap<String, String> = [
            ("format", FORMAT.to_string()),
            ("activation", self.activation.to_string()),
            ("input_scale", self.input_scale.to_string()),
            ("input_shift", self.input_shift.to_string()),
            ("classes", classes.to_string()),
            ("sha256", sha256.clone()),
        ]
        .map(|(key, value)| (key.to_string(), value))
        .into();
        metadata.extend(self.about.metadata()?);
        metadata.insert(METADATA_SHA256.to_string(), metadata_sha256(&metadata)?);
        let names = self.parameters().map(|(name, shape, _)| (name, shape));
        let header = header(&metadata, &layout(Dtype::F32, names))?;
        write(path, &header, self.parameters().flat_map(|(_, _, values)| le_bytes(values)))?;
        Ok(sha256)
    }

    /// Reads and checks a model; returns it with its [`ModelFile::sha256`]. The tensors may come
    /// in any order, and `sha256` and `metadata_sha256` may be absent, as in files of other
    /// programs. A file of another program that has none of the metadata is read as
    /// [`ModelFile::load_noting`] says.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for a file that is no safetensors file, is larger than
    /// 17 GiB, is no regular file, has other metadata, other tensors, another type or shape, layers
    /// that do not chain, a parameter that is not finite, or content that contradicts its digests.
    pub fn load(path: &Path) -> Result<(ModelFile, String)> {
        ModelFile::load_noting(path).map(|(model, sha256, _)| (model, sha256))
    }

    /// Reads a model as [`ModelFile::load`] does, and says what had to be assumed.
    ///
    /// A PyTorch `state_dict` has no metadata. Where its tensors are a weight and a bias for each of
    /// some modules, whose paths differ in one number (`0.weight`, `2.weight`; `net.0.weight`;
    /// `fc1.weight`), they are taken for `Linear` layers in the order of the numbers, with ReLU between
    /// them, on inputs as they are: scale 1, shift 0. The note says so.
    ///
    /// # Errors
    /// As [`ModelFile::load`].
    pub fn load_noting(path: &Path) -> Result<(ModelFile, String, Option<String>)> {
        let mut file = TensorFile::read(path, MAX_MODEL_BYTES)?;
        let format = file.metadata.get("format");
        let foreign = format.is_none_or(|format| FRAMEWORKS.contains(&&format[..]));
        if foreign && !OWN_KEYS.iter().any(|&key| file.metadata.contains_key(key)) {
            return of_state_dict(path, &file);
        }
        file.expect("format", FORMAT)?;
        if let Some(stored) = file.metadata.remove(METADATA_SHA256) {
            let actual = metadata_sha256(&file.metadata)?;
            if stored != actual {
                return Err(file.bad("sha256 of the metadata", actual, stored));
            }
        }
        let activation = file.parse("activation", "`relu` or `tanh`", |_: &Activation| true)?;
        let input_scale = file.parse("input_scale", "a finite number", |x: &f32| x.is_finite())?;
        let input_shift = file.parse("input_shift", "a finite number", |x: &f32| x.is_finite())?;
        let standardizer = standardizer(&mut file)?;
        let layers = layers(&file)?;
        let [inputs, outputs] = [
            layers.first().map_or(0, |layer| layer.inputs),
            layers.last().map_or(0, |layer| layer.outputs),
        ];
        file.parse(
            "classes",
            &format!("{outputs}, the outputs of the last layer"),
            |&classes: &usize| classes == outputs,
        )?;
        let about = About::read(&file, inputs, outputs)?;
        let model = ModelFile { layers, activation, input_scale, input_shift, standardizer, about };
        let sha256 = model.sha256();
        if file.metadata.contains_key("sha256") {
            file.expect("sha256", &sha256)?;
        }
        model.check().map_err(|f| file.bad(f.what, f.found, f.expected))?;
        Ok((model, sha256, None))
    }

    /// The same net for data that call features and classes by these `names`, in their order: columns of
    /// the first layer and rows of the last change places. By place where either has no names.
    ///
    /// # Errors
    /// [`Error::Data`] of `path`, where it was read from, for other names.
    pub fn arranged(mut self, names: &Names, path: &Path) -> Result<ModelFile> {
        let places = |what: &str, ours: &[String], theirs: &[String]| {
            if ours.is_empty() || theirs.is_empty() || ours == theirs {
                return Ok(None);
            }
            let place = |name: &String| ours.iter().position(|known| known == name);
            let places: Option<Vec<usize>> = theirs.iter().map(place).collect();
            let places = places.filter(|places| places.len() == ours.len());
            places.map(Some).ok_or_else(|| Error::Data {
                path: path.to_path_buf(),
                what: format!("{what} of the model"),
                found: ours.join(", "),
                expected: format!("those of the data, {}", theirs.join(", ")),
            })
        };
        let features = places("features", &self.about.names.features, &names.features)?;
        let ours = self.about.names.classes_beside(names);
        let theirs = names.classes_beside(&self.about.names);
        let classes = places("classes", &ours, &theirs)?;
        let pick = |values: &[f32], places: &[usize]| -> Vec<f32> {
            places.iter().map(|&place| values[place]).collect()
        };
        if let (Some(places), Some(first)) = (features, self.layers.first_mut()) {
            let rows = first.weight.chunks_exact(first.inputs);
            first.weight = rows.flat_map(|row| pick(row, &places)).collect();
            if let Some(Standardizer { mean, scale }) = &mut self.standardizer {
                (*mean, *scale) = (pick(mean, &places), pick(scale, &places));
            }
            self.about.names.features.clone_from(&names.features);
        }
        if let (Some(places), Some(last)) = (classes, self.layers.last_mut()) {
            let row = |&place: &usize| &last.weight[place * last.inputs..][..last.inputs];
            last.weight = places.iter().flat_map(row).copied().collect();
            last.bias = pick(&last.bias, &places);
            self.about.names.classes.clone_from(&names.classes);
            self.about.names.are_texts = names.are_texts;
        }
        Ok(self)
    }

    /// Name, shape and values of each tensor in the canonical order.
    fn parameters(&self) -> impl Iterator<Item = (String, Vec<usize>, &[f32])> {
        let standardizer = self.standardizer.iter().flat_map(|Standardizer { mean, scale }| {
            [(MEAN, mean), (SCALE, scale)].map(|(n, v)| (n.to_string(), vec![v.len()], &v[..]))
        });
        let layers = self.layers.iter().enumerate().flat_map(|(i, layer)| {
            let weight_shape = vec![layer.outputs, layer.inputs];
            let bias_shape = vec![layer.outputs];
            [
                (weight_name(i), weight_shape, &layer.weight[..]),
                (bias_name(i), bias_shape, &layer.bias[..]),
            ]
        });
        layers.chain(standardizer)
    }

    fn check(&self) -> std::result::Result<(), Fault> {
        let fault = |what: String, found: String, expected: &str| Fault {
            what,
            found,
            expected: expected.to_string(),
        };
        if self.layers.is_empty() {
            return Err(fault("model".into(), "no layers".into(), "at least one"));
        }
        for (name, value) in [("input_scale", self.input_scale), ("input_shift", self.input_shift)]
        {
            if !value.is_finite() {
                return Err(fault(name.into(), value.to_string(), "a finite number"));
            }
        }
        for (i, pair) in self.layers.windows(2).enumerate() {
            if pair[0].outputs != pair[1].inputs {
                return Err(fault(
                    weight_name(i + 1),
                    format!("{} inputs", pair[1].inputs),
                    &format!("{}, the outputs of layer {i}", pair[0].outputs),
                ));
            }
        }
        if let Some(Standardizer { mean, scale }) = &self.standardizer {
            let inputs = self.layers[0].inputs;
            for (name, values) in [(MEAN, mean), (SCALE, scale)] {
                if values.len() != inputs {
                    let expected = format!("{inputs}, the inputs of layer 0");
                    return Err(fault(name.into(), format!("{} values", values.len()), &expected));
                }
            }
        }
        for (name, shape, values) in self.parameters() {
            if shape.contains(&0) || shape.iter().product::<usize>() != values.len() {
                let found = format!("shape {shape:?} and {} values", values.len());
                return Err(fault(name, found, "as many values as its shape, above 0"));
            }
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                let found = format!("{} at index {at}", values[at]);
                return Err(fault(name, found, "finite numbers"));
            }
        }
        Ok(())
    }
}

/// A part of a model that cannot be saved or used.
struct Fault {
    what: String,
    found: String,
    expected: String,
}

impl Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: found {}, expected {}", self.what, self.found, self.expected)
    }
}

/// Takes the tensors of a standardiser out of the file, if it has one.
fn standardizer(file: &mut TensorFile) -> Result<Option<Standardizer>> {
    let mut take = |name: &str| -> Result<Option<Vec<f32>>> {
        let Some(place) = file.tensors.iter().position(|(known, _)| known == name) else {
            return Ok(None);
        };
        let (_, info) = file.tensors.remove(place);
        if info.shape.len() != 1 {
            return Err(file.bad(name, format!("shape {:?}", info.shape), "[inputs]"));
        }
        file.values(name, &info).map(Some)
    };
    match (take(MEAN)?, take(SCALE)?) {
        (None, None) => Ok(None),
        (Some(mean), Some(scale)) => Ok(Some(Standardizer { mean, scale })),
        (None, _) => Err(file.bad(MEAN, "none", format!("a tensor beside `{SCALE}`"))),
        (_, None) => Err(file.bad(SCALE, "none", format!("a tensor beside `{MEAN}`"))),
    }
}

/// The layers of a model: exactly `layers.{i}.weight` and `layers.{i}.bias` for 0 ≤ i < n.
fn layers(file: &TensorFile) -> Result<Vec<Layer>> {
    let tensors: BTreeMap<&str, &TensorInfo> =
        file.tensors.iter().map(|(name, info)| (&name[..], info)).collect();
    let mut layers = Vec::new();
    loop {
        let (weight, bias) = (weight_name(layers.len()), bias_name(layers.len()));
        let (w, b) = match (tensors.get(&weight[..]), tensors.get(&bias[..])) {
            (Some(w), Some(b)) => (w, b),
            (None, None) if 2 * layers.len() == tensors.len() && !layers.is_empty() => {
                return Ok(layers);
            }
            (None, None) => {
                let known: BTreeSet<String> =
                    (0..layers.len()).flat_map(|i| [weight_name(i), bias_name(i)]).collect();
                let stranger = tensors.keys().find(|&&name| !known.contains(name));
                let found = stranger.map_or("no tensors".into(), |n| format!("tensor `{n}`"));
                let expected = format!("`{weight}` or nothing else");
                return Err(file.bad("tensors", found, expected));
            }
            (None, Some(_)) => return Err(file.bad(weight, "none", "a tensor")),
            (Some(_), None) => return Err(file.bad(bias, "none", "a tensor")),
        };
        layers.push(layer(file, (&weight, w), (&bias, b))?);
    }
}

/// The layer of a weight and a bias, each with its name.
fn layer(
    file: &TensorFile,
    (weight, w): (&str, &TensorInfo),
    (bias, b): (&str, &TensorInfo),
) -> Result<Layer> {
    let &[outputs, inputs] = &w.shape[..] else {
        let found = format!("shape {:?}", w.shape);
        return Err(file.bad(weight, found, "[outputs, inputs]"));
    };
    if b.shape != [outputs] {
        let expected = format!("[{outputs}], the outputs of `{weight}`");
        return Err(file.bad(bias, format!("shape {:?}", b.shape), expected));
    }
    let (weight, bias) = (file.floats(weight, w)?, file.floats(bias, b)?);
    Ok(Layer { inputs, outputs, weight, bias })
}

/// The model of a file without metadata, its hash, and what was assumed.
fn of_state_dict(path: &Path, file: &TensorFile) -> Result<(ModelFile, String, Option<String>)> {
    const EXPECTED: &str = "a Linear layer each with its number (`0.weight`, `0.bias`, `2.weight`, … \
        of a Sequential; `fc1.weight`, …), or, renamed, layers.{i}.weight [outputs, inputs] and \
        layers.{i}.bias [outputs] with i = 0, 1, …, and the metadata format = limbeck-mlp/1, \
        activation = relu or tanh, input_scale = 1, input_shift = 0, classes = N, as texts: \
        save_file(tensors, path, metadata={…})";
    let names = || file.tensors.iter().map(|(name, _)| &name[..]);
    let modules = state_dict::modules(names()).ok_or_else(|| {
        let names: Vec<&str> = names().collect();
        file.bad("tensors without metadata", format!("[{}]", names.join(", ")), EXPECTED)
    })?;
    let mut layers = Vec::new();
    for module in &modules {
        let [weight, bias] = ["weight", "bias"].map(|part| format!("{module}.{part}"));
        if let (Some(w), Some(b)) = (file.tensor(&weight), file.tensor(&bias)) {
            layers.push(layer(file, (&weight, w), (&bias, b))?);
        }
    }
    let model = ModelFile {
        layers,
        activation: Activation::Relu,
        input_scale: 1.0,
        input_shift: 0.0,
        standardizer: None,
        about: About::default(),
    };
    model.check().map_err(|fault| {
        // The fault names layers.{i}; the file has other names.
        let theirs = modules.iter().enumerate().find_map(|(i, module)| {
            let part = fault.what.strip_prefix(&format!("layers.{i}."))?;
            Some(format!("{module}.{part}"))
        });
        file.bad(theirs.unwrap_or(fault.what), fault.found, fault.expected)
    })?;
    let sizes = |(module, layer): (&String, &Layer)| {
        format!("{module} ({} to {})", layer.inputs, layer.outputs)
    };
    let mapping: Vec<String> = modules.iter().zip(&model.layers).map(sizes).collect();
    let wide = file.tensors.iter().any(|(_, info)| info.dtype == Dtype::F64);
    let note = format!(
        "{}: no metadata; read as the Linear layers {} of PyTorch{} with ReLU between them, on inputs as \
         they are (pixels from 0 to 255). Where that is wrong, save the metadata format, activation, \
         input_scale, input_shift and classes with the tensors layers.{{i}}.weight and .bias",
        path.display(),
        mapping.join(", "),
        if wide { ", rounded from float64 to float32," } else { "" },
    );
    let sha256 = model.sha256();
    Ok((model, sha256, Some(note)))
}

fn weight_name(layer: usize) -> String {
    format!("layers.{layer}.weight")
}

fn bias_name(layer: usize) -> String {
    format!("layers.{layer}.bias")
}

fn metadata_sha256(metadata: &BTreeMap<String, String>) -> Result<String> {
    let json = serde_json::to_vec(metadata)
        .map_err(|e| Error::Internal(format!("metadata to JSON: {e}")))?;
    Ok(sha256_of([json]))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs::{self, File};

    use safetensors::tensor::{SafeTensors, TensorView};

    use super::*;

    /// 3 inputs, 2 hidden units, 3 classes.
    fn model() -> ModelFile {
        ModelFile {
            layers: vec![
                Layer {
                    inputs: 3,
                    outputs: 2,
                    weight: vec![0.5, -1.25, 3.0, 0.0, 1e-3, 2.0],
                    bias: vec![0.1, -0.2],
                },
                Layer {
                    inputs: 2,
                    outputs: 3,
                    weight: vec![1.0, -1.0, 0.25, 4.0, -8.0, 16.0],
                    bias: vec![0.0, 7.0, -3.5],
                },
            ],
            activation: Activation::Relu,
            input_scale: 1.0 / 127.5,
            input_shift: -1.0,
            standardizer: None,
            about: About::default(),
        }
    }

    /// Of the parameters of [`model`], by Python's `hashlib` and `struct.pack('<f', …)`.
    const MODEL_SHA256: &str = "c6cbff67eb4d8284116842661f7b7356043b787075c0b5c048b3b61c785d2f61";

    /// What a file of another program holds: name, type, shape and bytes of each tensor.
    type Foreign = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

    fn foreign(model: &ModelFile) -> Foreign {
        model
            .parameters()
            .map(|(name, shape, values)| {
                (name, Dtype::F32, shape, le_bytes(values).collect::<Vec<_>>().concat())
            })
            .collect()
    }

    fn foreign_metadata() -> HashMap<String, String> {
        let entries = [
            ("format", FORMAT),
            ("activation", "relu"),
            ("input_scale", "0.007843138"),
            ("input_shift", "-1"),
            ("classes", "3"),
        ];
        entries.map(|(key, value)| (key.to_string(), value.to_string())).into()
    }

    /// Loads a file written by the safetensors crate, which orders the tensors by name.
    fn load_foreign(
        tensors: &Foreign,
        metadata: HashMap<String, String>,
    ) -> Result<(ModelFile, String)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.safetensors");
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
            (name, view)
        });
        let bytes = safetensors::serialize(views, Some(metadata)).unwrap();
        fs::write(&path, bytes).unwrap();
        ModelFile::load(&path)
    }

    fn refusal<T>(result: Result<T>) -> String {
        let error = result.err().expect("a bad file was accepted");
        assert_eq!(error.exit_code(), 65, "{error}");
        error.to_string()
    }

    #[test]
    fn models_come_back_with_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let sha256 = model().save(&path).unwrap();
        assert_eq!(sha256, MODEL_SHA256);
        let (loaded, loaded_sha256) = ModelFile::load(&path).unwrap();
        assert_eq!(loaded, model());
        assert_eq!(loaded_sha256, sha256);
        let first = fs::read(&path).unwrap();
        model().save(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first);
    }

    #[test]
    fn model_files_are_safetensors_in_the_order_of_the_network() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        // Twelve layers, so that order by name would put layers.10 before layers.2.
        let mut deep = model();
        deep.layers = (0..12)
            .map(|i| Layer {
                inputs: 1,
                outputs: 1,
                weight: vec![2.0 * i as f32],
                bias: vec![2.0 * i as f32 + 1.0],
            })
            .collect();
        deep.save(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.len(), 24);
        assert_eq!(file.tensor("layers.11.weight").unwrap().shape(), [1, 1]);
        assert_eq!(file.tensor("layers.11.bias").unwrap().shape(), [1]);
        let data: Vec<f32> = bytes[bytes.len() - 24 * 4..]
            .chunks(4)
            .map(|word| f32::from_le_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(data, (0..24).map(|i| i as f32).collect::<Vec<_>>());
        let start = bytes.len() - 24 * 4;
        assert_eq!(start % 8, 0);
        assert_eq!(deep.sha256(), sha256_of([&bytes[start..]]));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        let keys: BTreeSet<&str> = metadata.keys().map(String::as_str).collect();
        let expected = [
            "format",
            "activation",
            "input_scale",
            "input_shift",
            "classes",
            "sha256",
            "metadata_sha256",
        ];
        assert_eq!(keys, BTreeSet::from(expected));
        assert_eq!(metadata["classes"], "1");
        let scale: f32 = metadata["input_scale"].parse().unwrap();
        assert_eq!(scale.to_bits(), deep.input_scale.to_bits());
        assert_eq!(ModelFile::load(&path).unwrap().0, deep);
    }

    /// [`model`] of a data set with names, whose features are standardised.
    fn model_of_data() -> ModelFile {
        let names = |names: [&str; 3]| names.map(String::from).to_vec();
        let names = Names {
            classes: names(["a", "b, \"c\"", "ü"]),
            are_texts: false,
            features: names(["x", "", "z"]),
            label: Some("kind".into()),
        };
        ModelFile {
            standardizer: Some(Standardizer {
                mean: vec![0.1, 1e-30, -7e8],
                scale: vec![1.0, 3e7, 1e-9],
            }),
            about: About {
                dataset: "csv".into(),
                data: [("train_table".to_string(), "ab".to_string())].into(),
                names,
            },
            ..model()
        }
    }

    #[test]
    fn what_a_model_was_trained_on_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let sha256 = model_of_data().save(&path).unwrap();
        assert_eq!(ModelFile::load(&path).unwrap(), (model_of_data(), sha256.clone()));
        assert_ne!(sha256, MODEL_SHA256, "the standardiser is a part of the function");
        // Texts that read as numbers stay texts.
        let mut codes = model_of_data();
        codes.about.names.classes = ["01", "1", "2"].map(String::from).to_vec();
        codes.about.names.are_texts = true;
        codes.save(&path).unwrap();
        assert_eq!(ModelFile::load(&path).unwrap().0, codes);
        // Names without end are left out, as a header could not hold them.
        let mut long = model_of_data();
        long.about.names.features[1] = "n".repeat(1 << 20);
        long.save(&path).unwrap();
        long.about.names.features.clear();
        assert_eq!(ModelFile::load(&path).unwrap().0, long);
    }

    #[test]
    fn a_model_is_arranged_for_data_by_their_names() {
        let logits = |model: &ModelFile, x: [f64; 3]| -> Vec<f64> {
            let Standardizer { mean, scale } = model.standardizer.as_ref().unwrap();
            let mut y: Vec<f64> =
                (0..3).map(|j| (x[j] - f64::from(mean[j])) * f64::from(scale[j])).collect();
            for (i, layer) in model.layers.iter().enumerate() {
                let rows = layer.weight.chunks(layer.inputs).zip(&layer.bias);
                let z = rows.map(|(row, b)| {
                    let sum: f64 = row.iter().zip(&y).map(|(w, y)| f64::from(*w) * y).sum();
                    sum + f64::from(*b)
                });
                y = z.map(|z| if i == 0 { z.max(0.0) } else { z }).collect();
            }
            y
        };
        let model = model_of_data();
        let mut names = model.about.names.clone();
        names.features.swap(0, 2);
        names.classes.rotate_left(1);
        let path = Path::new("m.safetensors");
        let arranged = model.clone().arranged(&names, path).unwrap();
        assert_eq!(arranged.about.names, names);
        let (z, v) = (logits(&model, [1.0, 2.0, 3.0]), logits(&arranged, [3.0, 2.0, 1.0]));
        assert!(
            [v[2], v[0], v[1]].iter().zip(&z).all(|(a, b)| (a - b).abs() < 1e-9),
            "{z:?} {v:?}"
        );
        // By place where there are no names.
        assert_eq!(model.clone().arranged(&Names::default(), path).unwrap(), model);
        names.classes[0] = "other".into();
        let message = refusal(model.clone().arranged(&names, path));
        assert!(message.contains("classes of the model: found a, ") && message.contains("other"));
        let fewer = Names { features: vec!["x".into(), "z".into()], ..Names::default() };
        assert!(refusal(model.arranged(&fewer, path)).contains("features of the model"));
    }

    #[test]
    fn wrong_standardisers_and_names_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.safetensors");
        let tensors = || foreign(&model_of_data());
        let mut metadata = foreign_metadata();
        for (key, value, expected) in [
            ("class_names", "[\"a\"]", "`class_names`: found [\"a\"], expected a JSON array of 3"),
            ("feature_names", "a, b", "`feature_names`: found a, b, expected a JSON array of 3"),
            ("data", "7", "metadata `data`: found 7, expected a JSON object"),
        ] {
            let mut metadata = metadata.clone();
            metadata.insert(key.into(), value.into());
            let message = refusal(load_foreign(&tensors(), metadata));
            assert!(message.contains(expected), "{message}");
        }
        metadata.remove("sha256");
        let refused = |change: &dyn Fn(&mut Foreign)| {
            let mut tensors = tensors();
            change(&mut tensors);
            refusal(load_foreign(&tensors, metadata.clone()))
        };
        let message = refused(&|t| drop(t.pop()));
        assert!(message.contains("standardize.scale: found none, expected a tensor"), "{message}");
        let message = refused(&|t| drop(t.remove(4)));
        assert!(message.contains("standardize.mean: found none, expected a tensor"), "{message}");
        let message = refused(&|t| {
            t[5].2 = vec![2];
            t[5].3.truncate(8);
        });
        assert!(message.contains("standardize.scale: found 2 values, expected 3"), "{message}");
        let mut broken = model_of_data();
        broken.standardizer.as_mut().unwrap().mean[1] = f32::NAN;
        assert!(
            broken.save(&path).unwrap_err().to_string().contains("standardize.mean: found NaN")
        );
    }

    #[test]
    fn models_of_other_programs_are_accepted_in_any_order() {
        let (loaded, sha256) = load_foreign(&foreign(&model()), foreign_metadata()).unwrap();
        assert_eq!(loaded, model());
        assert_eq!(sha256, MODEL_SHA256);
    }

    /// The tensors of [`model`] under the names of the modules.
    fn state_dict(modules: [&str; 2]) -> Foreign {
        let mut tensors = foreign(&model());
        for (i, tensor) in tensors.iter_mut().enumerate() {
            tensor.0 = format!("{}.{}", modules[i / 2], ["weight", "bias"][i % 2]);
        }
        tensors
    }

    #[test]
    fn a_state_dict_of_pytorch_is_read_by_the_numbers_of_its_layers() {
        let expected = ModelFile { input_scale: 1.0, input_shift: 0.0, ..model() };
        let pt: HashMap<_, _> = [("format".to_string(), "pt".to_string())].into();
        for modules in [["0", "2"], ["net.0", "net.3"], ["fc1", "fc2"], ["layers.0", "layers.1"]] {
            for metadata in [pt.clone(), HashMap::new()] {
                let (loaded, sha256) = load_foreign(&state_dict(modules), metadata).unwrap();
                assert_eq!((&loaded, &sha256[..]), (&expected, MODEL_SHA256));
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        model().save(&path).unwrap();
        assert_eq!(ModelFile::load_noting(&path).unwrap().2, None);
    }

    /// As `model.half()`, `.bfloat16()` and `.double()` save it; bf16 is the upper half of an f32.
    #[test]
    fn weights_of_other_widths_are_read_and_rounding_is_said() {
        let one = |dtype: Dtype, words: [&[u8]; 2]| {
            let tensor = |name: &str, shape: &[usize], word: &[u8]| {
                let count = shape.iter().product();
                (name.to_string(), dtype, shape.to_vec(), word.repeat(count))
            };
            vec![tensor("fc1.weight", &[2, 3], words[0]), tensor("fc1.bias", &[2], words[1])]
        };
        let third = 1f64 / 3.0;
        let cases = [
            (Dtype::F16, [&[0x00u8, 0xbc][..], &[0x55, 0x35]], [-1.0, 0.333_251_95]),
            (Dtype::BF16, [&[0x80, 0xbf], &[0xab, 0x3e]], [-1.0, 0.333_984_38]),
            (Dtype::F64, [&(-1f64).to_le_bytes(), &third.to_le_bytes()], [-1.0, third as f32]),
        ];
        for (dtype, words, [weight, bias]) in cases {
            let layer =
                Layer { inputs: 3, outputs: 2, weight: vec![weight; 6], bias: vec![bias; 2] };
            let (loaded, _) = load_foreign(&one(dtype, words), HashMap::new()).unwrap();
            assert_eq!(loaded.layers, [layer]);
            let mut own = one(dtype, words);
            own.iter_mut().for_each(|tensor| tensor.0 = tensor.0.replace("fc1", "layers.0"));
            let metadata = HashMap::from([("classes".into(), "2".into())]);
            let metadata = foreign_metadata().into_iter().chain(metadata).collect();
            assert_eq!(load_foreign(&own, metadata).unwrap().0.layers, loaded.layers);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let wide = [1f64.to_le_bytes(); 8].concat();
        let views = [("0.weight", vec![2, 3], 0..48), ("0.bias", vec![2], 48..64)].map(
            |(name, shape, place)| {
                (name, TensorView::new(Dtype::F64, shape, &wide[place]).unwrap())
            },
        );
        fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        let note = ModelFile::load_noting(&path).unwrap().2.unwrap();
        assert!(note.contains("layers 0 (3 to 2) of PyTorch, rounded from float64"), "{note}");
    }

    #[test]
    fn a_state_dict_that_tells_no_order_is_refused_with_all_that_it_needs() {
        let refused = |tensors: &Foreign| refusal(load_foreign(tensors, HashMap::new()));
        for modules in [["hidden", "out"], ["0", "1"]] {
            let message = refused(&state_dict(modules));
            let weight = format!("{}.weight", modules[1]);
            for part in [&weight[..], "layers.{i}.weight", "layers.{i}.bias", "limbeck-mlp/1"] {
                assert!(message.contains(part), "{part:?} not in: {message}");
            }
            let keys = ["format", "activation", "input_scale", "input_shift", "classes"];
            assert!(keys.iter().all(|key| message.contains(&format!("{key} = "))), "{message}");
            assert!(message.ends_with("metadata={…})"), "cut short: {message}");
        }
        let mut bytes = state_dict(["0", "2"]);
        (bytes[0].1, bytes[0].2) = (Dtype::I8, vec![2, 12]);
        assert!(refused(&bytes).contains("0.weight: found type I8, expected F32"));
        // In the file's own names.
        let mut narrow = state_dict(["0", "2"]);
        narrow[2].2 = vec![3, 1];
        narrow[2].3.truncate(12);
        assert!(refused(&narrow).contains("2.weight: found 1 inputs, expected 2"));
        let mut broken = model();
        broken.layers[1].weight[4] = f32::NAN;
        let mut tensors = foreign(&broken);
        tensors.iter_mut().for_each(|t| t.0 = t.0.replace("layers.", "fc"));
        assert!(refused(&tensors).contains("fc1.weight: found NaN at index 4"));
    }

    #[test]
    fn the_activation_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tanh.safetensors");
        let tanh = ModelFile { activation: Activation::Tanh, ..model() };
        tanh.save(&path).unwrap();
        assert_eq!(ModelFile::load(&path).unwrap().0, tanh);
    }

    #[test]
    fn wrong_metadata_is_refused() {
        let cases = [
            ("format", Some("pt"), "metadata `format`: found `pt`, expected `limbeck-mlp/1`"),
            ("format", None, "metadata `format`: found `none`"),
            ("activation", Some("gelu"), "found `gelu`, expected `relu` or `tanh`"),
            ("activation", None, "metadata `activation`: found none"),
            ("input_scale", Some("inf"), "found `inf`, expected a finite number"),
            ("input_scale", None, "metadata `input_scale`: found none"),
            ("input_shift", Some("x"), "found `x`, expected a finite number"),
            ("classes", Some("10"), "found `10`, expected 3, the outputs of the last layer"),
            ("sha256", Some("00"), "metadata `sha256`: found `00`"),
            ("metadata_sha256", Some("00"), "sha256 of the metadata: found"),
        ];
        for (key, value, expected) in cases {
            let mut metadata = foreign_metadata();
            metadata.remove(key);
            if let Some(value) = value {
                metadata.insert(key.to_string(), value.to_string());
            }
            let message = refusal(load_foreign(&foreign(&model()), metadata));
            assert!(message.contains(expected), "{message}");
            assert!(message.contains("other.safetensors"), "{message}");
        }
    }

    #[test]
    fn wrong_tensors_are_refused() {
        type Change = fn(&mut Foreign);
        let cases: [(Change, &str); 10] = [
            (
                |t| (t[0].1, t[0].2) = (Dtype::F64, vec![3]),
                "layers.0.weight: found shape [3], expected [outputs, inputs]",
            ),
            (
                |t| (t[1].1, t[1].2) = (Dtype::F16, vec![2, 2]),
                "layers.0.bias: found shape [2, 2], expected [2]",
            ),
            (|t| t[1].1 = Dtype::I32, "layers.0.bias: found type I32, expected F32"),
            (
                |t| t[2].2 = vec![2, 3],
                "layers.1.bias: found shape [3], expected [2], the outputs of `layers.1.weight`",
            ),
            (
                |t| {
                    t[2].2 = vec![3, 1];
                    t[2].3.truncate(12);
                },
                "layers.1.weight: found 1 inputs, expected 2, the outputs of layer 0",
            ),
            (|t| drop(t.remove(3)), "layers.1.bias: found none, expected a tensor"),
            (|t| drop(t.remove(2)), "layers.1.weight: found none, expected a tensor"),
            (|t| t[3].0 = "layers.1.scale".into(), "layers.1.bias: found none"),
            (
                |t| t.push(("head.weight".into(), Dtype::F32, vec![1], vec![0; 4])),
                "found tensor `head.weight`, expected `layers.2.weight` or nothing else",
            ),
            (|t| t.clear(), "tensors: found no tensors, expected `layers.0.weight`"),
        ];
        for (change, expected) in cases {
            let mut tensors = foreign(&model());
            change(&mut tensors);
            let message = refusal(load_foreign(&tensors, foreign_metadata()));
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn parameters_that_are_not_finite_are_refused_both_ways() {
        let mut broken = model();
        broken.layers[1].weight[4] = f32::NAN;
        let message = refusal(load_foreign(&foreign(&broken), foreign_metadata()));
        assert!(message.contains("layers.1.weight: found NaN at index 4"), "{message}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let error = broken.save(&path).unwrap_err();
        assert_eq!(error.exit_code(), 70);
        assert!(error.to_string().contains("layers.1.weight"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn models_that_do_not_fit_together_are_not_saved() {
        let changes: [fn(&mut ModelFile); 4] = [
            |m| m.layers.clear(),
            |m| m.layers[0].outputs = 4,
            |m| m.layers[1].bias.truncate(2),
            |m| m.input_scale = f32::INFINITY,
        ];
        for change in changes {
            let mut broken = model();
            change(&mut broken);
            let error = broken.save(Path::new("never-written")).unwrap_err();
            assert_eq!(error.exit_code(), 70, "{error}");
        }
    }

    #[test]
    fn damaged_model_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        model().save(&path).unwrap();
        let good = fs::read(&path).unwrap();
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            refusal(ModelFile::load(&path));
        }
        // The low bit of the last parameter: still a valid file, only the hash can tell.
        let mut bad = good.clone();
        let last = bad.len() - 4;
        bad[last] ^= 1;
        fs::write(&path, bad).unwrap();
        let message = refusal(ModelFile::load(&path));
        assert!(message.contains("metadata `sha256`"), "{message}");
        // A header that claims almost all of the address space.
        let mut bad = good;
        bad[..8].copy_from_slice(&(u64::MAX - 8).to_le_bytes());
        fs::write(&path, bad).unwrap();
        let message = refusal(ModelFile::load(&path));
        assert!(message.contains("at offset 0: found a header of 18446744073709551607 bytes"));
    }

    #[test]
    fn files_of_other_formats_are_named_with_what_to_do() {
        let save = "safetensors.torch.save_file(model.state_dict(), \"model.safetensors\")";
        let torch = [&b"PK\x03\x04"[..], &[0; 26], b"archive/data.pkl"].concat();
        let wide: Vec<u8> = "{\"a\": 1}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let cases: [(&str, &[u8], [&str; 2]); 6] = [
            ("m.pt", &torch, ["a PyTorch archive", save]),
            ("m.pkl", b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}", ["a Python pickle", save]),
            ("m", b"version https://git-lfs.github.com/spec/v1\n", ["a Git-LFS", "git lfs pull"]),
            ("m", b"<!doctype html><title>Sign in</title>", ["a web page", "download the file"]),
            ("m", &wide, ["text in UTF-16", save]),
            ("m", b"", ["an empty file", "again"]),
        ];
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes, parts) in cases {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            let message = refusal(ModelFile::load(&path));
            assert!(message.contains("expected a safetensors file"), "{message}");
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let message = refusal(ModelFile::load(&pipe));
        assert!(message.contains("found a pipe or a device, expected a regular file"), "{message}");
    }

    #[test]
    fn oversized_and_missing_files_are_refused_unread() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        assert_eq!(ModelFile::load(&path).unwrap_err().exit_code(), 74);
        // A hole of this length takes no space.
        File::create(&path).and_then(|file| file.set_len(MAX_MODEL_BYTES + 1)).unwrap();
        assert!(refusal(ModelFile::load(&path)).contains("at most 18253611008"));
    }
}
