//! Models and training states on disk, both as safetensors with a verified SHA-256.
//!
//! The header is composed here from the crate's own [`TensorInfo`] because the crate's writer
//! sorts tensors by name (`layers.10` before `layers.2`, `bias` before `weight`) and writes
//! metadata in hash-map order. Ours keeps the tensors in the order of the network and sorts the
//! metadata, so that equal contents are equal files.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorInfo};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::files::digest::sha256_of;
use crate::files::error::{Error, Result};
use crate::files::read::TensorFile;
use crate::files::write::atomic_write_with;

const MODEL_FORMAT: &str = "limbeck-mlp/1";
const STATE_FORMAT: &str = "limbeck-checkpoint/1";
const METADATA_SHA256: &str = "metadata_sha256";

/// Four copies of the largest model of a configuration (parameters, two moments, an average) and
/// room for the header.
const MAX_FILE_BYTES: u64 = 17 << 30;

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

/// A trained network: dense layers with ReLU between them, on inputs
/// x = pixel·input_scale + input_shift.
///
/// File: safetensors with `layers.{i}.weight`, `[outputs, inputs]`, and `layers.{i}.bias`,
/// `[outputs]`, in f32 and the metadata `format`, `activation`, `input_scale`, `input_shift`,
/// `classes`, `sha256`, that of the parameters, and `metadata_sha256`, that of all other metadata
/// as JSON with sorted keys and no blanks.
///
/// In PyTorch: names, shapes and order are those of the `state_dict` of a module whose `layers` is a
/// `ModuleList` of `Linear`. Of a `Sequential` of `Linear` and `ReLU` in turn, `layers.{i}` is
/// called `{2i}`. tests/interop.py loads both, and a net of PyTorch's the other way.
///
/// A file in which one bit was flipped or that was cut short is refused or loads to the same model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFile {
    /// First layer first; each takes the outputs of the one before.
    pub layers: Vec<Layer>,
    /// Factor of a pixel of 0 to 255.
    pub input_scale: f32,
    /// Added to the scaled pixel.
    pub input_shift: f32,
}

impl ModelFile {
    /// SHA-256 of the parameters as little-endian f32 in the canonical order layers.0.weight,
    /// layers.0.bias, layers.1.weight, … That is the order of the files written here; a file in
    /// another order has the same hash.
    pub fn sha256(&self) -> String {
        sha256_of(self.parameters().flat_map(|(_, _, values)| pieces(values)))
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
        let mut metadata = metadata([
            ("format", MODEL_FORMAT.to_string()),
            ("activation", "relu".to_string()),
            ("input_scale", self.input_scale.to_string()),
            ("input_shift", self.input_shift.to_string()),
            ("classes", classes.to_string()),
            ("sha256", sha256.clone()),
        ]);
        metadata.insert(METADATA_SHA256.to_string(), metadata_sha256(&metadata)?);
        let tensors = layout(self.parameters().map(|(name, shape, _)| (name, shape)));
        let values = self.parameters().map(|(_, _, values)| values);
        write(path, &header(&metadata, &tensors)?, values)?;
        Ok(sha256)
    }

    /// Reads and checks a model; returns it with its [`ModelFile::sha256`]. The tensors may come
    /// in any order, and `sha256` and `metadata_sha256` may be absent, as in files of other
    /// programs.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for a file that is no safetensors file, is larger than
    /// 17 GiB, has other metadata, other tensors, another type or shape, layers that do not
    /// chain, a parameter that is not finite, or content that contradicts its digests.
    pub fn load(path: &Path) -> Result<(ModelFile, String)> {
        let mut file = TensorFile::read(path, MAX_FILE_BYTES)?;
        file.expect("format", MODEL_FORMAT)?;
        if let Some(stored) = file.metadata.remove(METADATA_SHA256) {
            let actual = metadata_sha256(&file.metadata)?;
            if stored != actual {
                return Err(file.bad("sha256 of the metadata", actual, stored));
            }
        }
        file.expect("activation", "relu")?;
        let input_scale = file.parse("input_scale", "a finite number", |x: &f32| x.is_finite())?;
        let input_shift = file.parse("input_shift", "a finite number", |x: &f32| x.is_finite())?;
        let model = ModelFile { layers: file.layers()?, input_scale, input_shift };
        let outputs = model.layers.last().map_or(0, |layer| layer.outputs);
        file.parse(
            "classes",
            &format!("{outputs}, the outputs of the last layer"),
            |&classes: &usize| classes == outputs,
        )?;
        let sha256 = model.sha256();
        if file.metadata.contains_key("sha256") {
            file.expect("sha256", &sha256)?;
        }
        model.check().map_err(|f| file.bad(f.what, f.found, f.expected))?;
        Ok((model, sha256))
    }

    /// Name, shape and values of each tensor in the canonical order.
    fn parameters(&self) -> impl Iterator<Item = (String, Vec<usize>, &[f32])> {
        self.layers.iter().enumerate().flat_map(|(i, layer)| {
            let weight_shape = vec![layer.outputs, layer.inputs];
            let bias_shape = vec![layer.outputs];
            [
                (weight_name(i), weight_shape, &layer.weight[..]),
                (bias_name(i), bias_shape, &layer.bias[..]),
            ]
        })
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

/// What a run needs to go on as if it had never stopped.
///
/// File: safetensors with the tensors as given, one-dimensional, and everything else as metadata.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainingState<'a> {
    /// Epochs completed.
    pub epoch: u64,
    /// Steps completed within the epoch that follows.
    pub step: u64,
    /// Parameters, moments, averages: distinct names, at least one value each.
    pub tensors: Vec<(String, Cow<'a, [f32]>)>,
    /// Whole numbers: errors and examples of the current epoch.
    pub counters: BTreeMap<String, u64>,
    /// Running sums; stored by their bits, so that they come back exactly, NaN included.
    pub scalars: BTreeMap<String, f64>,
    /// SHA-256 of the resolved configuration that the state belongs to.
    pub config_sha256: String,
}

/// The state to continue from, and what had to be passed over to find it.
#[derive(Debug, Clone, PartialEq)]
pub struct Latest {
    /// Its file.
    pub path: PathBuf,
    /// The state.
    pub state: TrainingState<'static>,
    /// One message for each newer file that could not be used.
    pub warnings: Vec<String>,
}

impl TrainingState<'_> {
    /// The file name under which [`latest`] finds this state.
    pub fn file_name(&self) -> String {
        format!("checkpoint-{:06}-{:06}.safetensors", self.epoch, self.step)
    }

    /// Writes the state atomically, with a SHA-256 over tensors and metadata.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Internal`] for an empty tensor or two of the same name.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut names = BTreeSet::from(["__metadata__"]);
        for (name, values) in &self.tensors {
            if values.is_empty() || !names.insert(name) {
                return Err(Error::Internal(format!(
                    "saving a checkpoint: tensor `{name}` is empty or its name is taken"
                )));
            }
        }
        let mut metadata = metadata([
            ("format", STATE_FORMAT.to_string()),
            ("epoch", self.epoch.to_string()),
            ("step", self.step.to_string()),
            ("config_sha256", self.config_sha256.clone()),
        ]);
        for (name, count) in &self.counters {
            metadata.insert(format!("counter.{name}"), count.to_string());
        }
        for (name, value) in &self.scalars {
            metadata.insert(format!("scalar.{name}"), format!("{:016x}", value.to_bits()));
        }
        let tensors = layout(self.tensors.iter().map(|(name, v)| (name.clone(), vec![v.len()])));
        let values = || self.tensors.iter().map(|(_, values)| &values[..]);
        let unsigned = [header(&metadata, &tensors)?];
        let sha256 = sha256_of(unsigned.into_iter().chain(values().flat_map(pieces)));
        metadata.insert("sha256".to_string(), sha256);
        write(path, &header(&metadata, &tensors)?, values())
    }

    /// Reads a state and verifies its SHA-256.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for anything that [`TrainingState::save`] did not write.
    pub fn load(path: &Path) -> Result<TrainingState<'static>> {
        let mut file = TensorFile::read(path, MAX_FILE_BYTES)?;
        file.expect("format", STATE_FORMAT)?;
        let stored = file.metadata.remove("sha256");
        let actual = sha256_of([&header(&file.metadata, &file.tensors)?[..], file.data()]);
        if stored.as_ref() != Some(&actual) {
            let stored = stored.unwrap_or_else(|| "none".to_string());
            return Err(file.bad("sha256 of the content", actual, stored));
        }
        let any = |_: &u64| true;
        let mut state = TrainingState {
            epoch: file.parse("epoch", "a whole number", any)?,
            step: file.parse("step", "a whole number", any)?,
            config_sha256: file.text("config_sha256")?.to_string(),
            ..TrainingState::default()
        };
        for (key, value) in &file.metadata {
            if let Some(name) = key.strip_prefix("counter.") {
                let count = file.parse(key, "a whole number", any)?;
                state.counters.insert(name.to_string(), count);
            } else if let Some(name) = key.strip_prefix("scalar.") {
                let bits = u64::from_str_radix(value, 16)
                    .map_err(|_| file.bad(key, value, "16 hexadecimal digits"))?;
                state.scalars.insert(name.to_string(), f64::from_bits(bits));
            }
        }
        for (name, info) in &file.tensors {
            state.tensors.push((name.clone(), file.values(name, info)?.into()));
        }
        Ok(state)
    }
}

/// The newest intact state in the folder, none when it holds no checkpoint or does not exist.
///
/// # Errors
/// [`Error::Data`] when there are checkpoints and all are damaged, [`Error::Io`] when the folder
/// cannot be listed or none is intact and one cannot be read.
pub fn latest(dir: &Path) -> Result<Option<Latest>> {
    let mut errors = Vec::new();
    for path in newest_first(dir)? {
        match TrainingState::load(&path) {
            Ok(state) => {
                let warnings = errors.iter().map(Error::to_string).collect();
                return Ok(Some(Latest { path, state, warnings }));
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        return Ok(None);
    }
    if let Some(unread) = errors.iter().position(|error| matches!(error, Error::Io { .. })) {
        return Err(errors.swap_remove(unread));
    }
    let found: Vec<String> = errors.iter().map(Error::to_string).collect();
    Err(Error::Data {
        path: dir.to_path_buf(),
        what: "checkpoints".into(),
        found: found.join("; "),
        expected: "at least one that is intact".into(),
    })
}

/// Removes all but the newest `keep` checkpoints of the folder. Two are always kept, because the
/// newest may turn out damaged.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be listed or a file not removed.
pub fn rotate(dir: &Path, keep: usize) -> Result<()> {
    for path in newest_first(dir)?.into_iter().skip(keep.max(2)) {
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    Ok(())
}

fn newest_first(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", dir)(e)),
    };
    let mut found: Vec<((u64, u64), PathBuf)> = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("list", dir))?.path();
        if let Some(position) = path.file_name().and_then(|name| position(name.to_str()?)) {
            found.push((position, path));
        }
    }
    found.sort();
    Ok(found.into_iter().rev().map(|(_, path)| path).collect())
}

/// Epoch and step of a checkpoint's file name.
fn position(name: &str) -> Option<(u64, u64)> {
    let numbers = name.strip_prefix("checkpoint-")?;
    let (epoch, step) = numbers.strip_suffix(".safetensors")?.split_once('-')?;
    Some((epoch.parse().ok()?, step.parse().ok()?))
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

impl TensorFile {
    /// The layers of a model: exactly `layers.{i}.weight` and `layers.{i}.bias` for 0 ≤ i < n.
    fn layers(&self) -> Result<Vec<Layer>> {
        let tensors: BTreeMap<&str, &TensorInfo> =
            self.tensors.iter().map(|(name, info)| (&name[..], info)).collect();
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
                    return Err(self.bad("tensors", found, expected));
                }
                (None, Some(_)) => return Err(self.bad(weight, "none", "a tensor")),
                (Some(_), None) => return Err(self.bad(bias, "none", "a tensor")),
            };
            let &[outputs, inputs] = &w.shape[..] else {
                let found = format!("shape {:?}", w.shape);
                return Err(self.bad(weight, found, "[outputs, inputs]"));
            };
            if b.shape != [outputs] {
                let expected = format!("[{outputs}], the outputs of `{weight}`");
                return Err(self.bad(bias, format!("shape {:?}", b.shape), expected));
            }
            layers.push(Layer {
                inputs,
                outputs,
                weight: self.values(&weight, w)?,
                bias: self.values(&bias, b)?,
            });
        }
    }
}

fn weight_name(layer: usize) -> String {
    format!("layers.{layer}.weight")
}

fn bias_name(layer: usize) -> String {
    format!("layers.{layer}.bias")
}

fn metadata<const N: usize>(entries: [(&str, String); N]) -> BTreeMap<String, String> {
    entries.map(|(key, value)| (key.to_string(), value)).into()
}

fn metadata_sha256(metadata: &BTreeMap<String, String>) -> Result<String> {
    let json = serde_json::to_vec(metadata)
        .map_err(|e| Error::Internal(format!("metadata to JSON: {e}")))?;
    Ok(sha256_of([json]))
}

fn le_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The bytes of `values`, a little at a time: a copy of a large tensor would double the memory.
fn pieces(values: &[f32]) -> impl Iterator<Item = Vec<u8>> {
    values.chunks(1 << 14).map(le_bytes)
}

/// The tensors' entries for the header: `f32`, one after the other.
fn layout(tensors: impl Iterator<Item = (String, Vec<usize>)>) -> Vec<(String, TensorInfo)> {
    let mut end = 0;
    let place = |(name, shape): (String, Vec<usize>)| {
        let start = end;
        end += size_of::<f32>() * shape.iter().product::<usize>();
        (name, TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, end) })
    };
    tensors.map(place).collect()
}

/// The JSON header of a safetensors file: a function of its content alone.
fn header(
    metadata: &BTreeMap<String, String>,
    tensors: &[(String, TensorInfo)],
) -> Result<Vec<u8>> {
    struct Header<'a>(&'a BTreeMap<String, String>, &'a [(String, TensorInfo)]);
    impl Serialize for Header<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(None)?;
            map.serialize_entry("__metadata__", self.0)?;
            for (name, info) in self.1 {
                map.serialize_entry(name, info)?;
            }
            map.end()
        }
    }
    serde_json::to_vec(&Header(metadata, tensors))
        .map_err(|e| Error::Internal(format!("safetensors header to JSON: {e}")))
}

/// Writes a safetensors file atomically: length of the header (u64, little-endian), header, data.
/// Spaces extend the header so that the data starts at a multiple of 8 bytes.
fn write<'a>(
    path: &Path,
    header: &[u8],
    mut tensors: impl Iterator<Item = &'a [f32]>,
) -> Result<()> {
    let padded = header.len().next_multiple_of(8);
    atomic_write_with(path, |file| {
        file.write_all(&(padded as u64).to_le_bytes())?;
        file.write_all(header)?;
        file.write_all(&vec![b' '; padded - header.len()])?;
        tensors.try_for_each(|values| pieces(values).try_for_each(|piece| file.write_all(&piece)))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs::File;

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
            input_scale: 1.0 / 127.5,
            input_shift: -1.0,
        }
    }

    /// Of the parameters of [`model`], by Python's `hashlib` and `struct.pack('<f', …)`.
    const MODEL_SHA256: &str = "c6cbff67eb4d8284116842661f7b7356043b787075c0b5c048b3b61c785d2f61";

    /// What a file of another program holds: name, type, shape and bytes of each tensor.
    type Foreign = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

    fn foreign(model: &ModelFile) -> Foreign {
        model
            .parameters()
            .map(|(name, shape, values)| (name, Dtype::F32, shape, le_bytes(values)))
            .collect()
    }

    fn foreign_metadata() -> HashMap<String, String> {
        let entries = [
            ("format", MODEL_FORMAT),
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

    #[test]
    fn models_of_other_programs_are_accepted_in_any_order() {
        let (loaded, sha256) = load_foreign(&foreign(&model()), foreign_metadata()).unwrap();
        assert_eq!(loaded, model());
        assert_eq!(sha256, MODEL_SHA256);
    }

    #[test]
    fn wrong_metadata_is_refused() {
        let cases = [
            ("format", Some("pt"), "metadata `format`: found `pt`, expected `limbeck-mlp/1`"),
            ("format", None, "metadata `format`: found `none`"),
            ("activation", Some("tanh"), "found `tanh`, expected `relu`"),
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
    fn oversized_and_missing_files_are_refused_unread() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        assert_eq!(ModelFile::load(&path).unwrap_err().exit_code(), 74);
        // A hole of this length takes no space.
        File::create(&path).and_then(|file| file.set_len(MAX_FILE_BYTES + 1)).unwrap();
        assert!(refusal(ModelFile::load(&path)).contains("at most 18253611008"));
    }

    fn state(epoch: u64, step: u64) -> TrainingState<'static> {
        TrainingState {
            epoch,
            step,
            tensors: vec![
                ("velocity".into(), vec![f32::NAN, -0.0, 1e-40].into()),
                ("params".into(), vec![1.5].into()),
            ],
            counters: BTreeMap::from([("adam_steps".into(), u64::MAX)]),
            scalars: BTreeMap::from([
                ("loss".into(), 0.1 + 0.2),
                ("nan".into(), f64::from_bits(0x7ff8_0000_0000_1234)),
            ]),
            config_sha256: "ab".into(),
        }
    }

    #[test]
    fn states_come_back_with_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let saved = state(12, 345);
        let path = folder.path().join(saved.file_name());
        assert!(path.ends_with("checkpoint-000012-000345.safetensors"));
        saved.save(&path).unwrap();
        let loaded = TrainingState::load(&path).unwrap();
        assert_eq!((loaded.epoch, loaded.step), (12, 345));
        assert_eq!(loaded.counters, saved.counters);
        assert_eq!(loaded.config_sha256, saved.config_sha256);
        let scalars = |s: &TrainingState| -> Vec<(String, u64)> {
            s.scalars.iter().map(|(n, x)| (n.clone(), x.to_bits())).collect()
        };
        assert_eq!(scalars(&loaded), scalars(&saved));
        let tensors = |s: &TrainingState| -> Vec<(String, Vec<u8>)> {
            s.tensors.iter().map(|(n, v)| (n.clone(), le_bytes(v))).collect()
        };
        assert_eq!(tensors(&loaded), tensors(&saved));
    }

    #[test]
    fn any_damaged_byte_of_a_state_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.safetensors");
        state(1, 2).save(&path).unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&path, &bad).unwrap();
            let result = TrainingState::load(&path);
            assert!(result.is_err(), "byte {at} of {}", good.len());
        }
        fs::write(&path, &good).unwrap();
        TrainingState::load(&path).unwrap();
        assert!(refusal(ModelFile::load(&path)).contains("limbeck-mlp/1"));
    }

    /// A damaged file cannot be told by its digest if the digest is made anew.
    #[test]
    fn states_whose_digest_agrees_are_checked_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.safetensors");
        type Change = fn(&mut TensorFile);
        let cases: [(Change, &str); 6] = [
            (|f| drop(f.metadata.remove("epoch")), "metadata `epoch`: found none"),
            (
                |f| drop(f.metadata.insert("step".into(), "-1".into())),
                "metadata `step`: found `-1`, expected a whole number",
            ),
            (|f| drop(f.metadata.remove("config_sha256")), "`config_sha256`: found none"),
            (
                |f| drop(f.metadata.insert("counter.x".into(), "1.5".into())),
                "metadata `counter.x`: found `1.5`, expected a whole number",
            ),
            (
                |f| drop(f.metadata.insert("scalar.x".into(), "0.5".into())),
                "scalar.x: found 0.5, expected 16 hexadecimal digits",
            ),
            (|f| f.tensors[1].1.dtype = Dtype::U32, "params: found type U32, expected F32"),
        ];
        for (change, expected) in cases {
            state(1, 2).save(&path).unwrap();
            let mut file = TensorFile::read(&path, MAX_FILE_BYTES).unwrap();
            file.metadata.remove("sha256");
            change(&mut file);
            let unsigned = header(&file.metadata, &file.tensors).unwrap();
            let sha256 = sha256_of([&unsigned[..], file.data()]);
            file.metadata.insert("sha256".into(), sha256);
            let signed = header(&file.metadata, &file.tensors).unwrap();
            let length = (signed.len() as u64).to_le_bytes();
            fs::write(&path, [&length, &signed[..], file.data()].concat()).unwrap();
            let message = refusal(TrainingState::load(&path));
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn ambiguous_states_are_not_saved() {
        for name in ["params", "__metadata__"] {
            let mut twice = state(0, 0);
            twice.tensors.push((name.into(), vec![0.0].into()));
            let error = twice.save(Path::new("never-written")).unwrap_err();
            assert_eq!(error.exit_code(), 70);
        }
        let mut empty = state(0, 0);
        empty.tensors[0].1 = Vec::new().into();
        assert!(empty.save(Path::new("never-written")).is_err());
    }

    #[test]
    fn the_latest_intact_state_is_found_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        assert_eq!(latest(&dir.join("none")).unwrap(), None);
        fs::write(dir.join("notes.txt"), "x").unwrap();
        assert_eq!(latest(dir).unwrap(), None);

        // By number, not by name: 1000000 has a digit more.
        for (epoch, step) in [(9, 0), (1_000_000, 0), (10, 7), (10, 6)] {
            let state = state(epoch, step);
            state.save(&dir.join(state.file_name())).unwrap();
        }
        let found = latest(dir).unwrap().unwrap();
        assert_eq!(found.state.epoch, 1_000_000);
        assert!(found.warnings.is_empty());

        fs::write(&found.path, "damaged").unwrap();
        let found = latest(dir).unwrap().unwrap();
        assert_eq!((found.state.epoch, found.state.step), (10, 7));
        assert_eq!(found.warnings.len(), 1);
        assert!(found.warnings[0].contains("checkpoint-1000000-000000"));

        rotate(dir, 3).unwrap();
        assert!(!dir.join(state(9, 0).file_name()).exists());
        rotate(dir, 0).unwrap();
        assert!(dir.join(state(10, 7).file_name()).exists());
        assert!(!dir.join(state(10, 6).file_name()).exists());
        assert!(dir.join("notes.txt").exists());

        fs::write(&found.path, "damaged too").unwrap();
        let message = refusal(latest(dir));
        assert!(message.contains("checkpoint-000010-000007"), "{message}");
    }
}
