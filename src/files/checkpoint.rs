//! Training states on disk: safetensors with a verified SHA-256 over tensors and metadata.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::tensor::Dtype;

use crate::files::digest::sha256_of;
use crate::files::error::{Error, Result};
use crate::files::safetensors::{MAX_MODEL_BYTES, TensorFile, header, layout, le_bytes, write};

const FORMAT: &str = "limbeck-checkpoint/1";

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
        let mut metadata: BTreeMap<String, String> = [
            ("format", FORMAT.to_string()),
            ("epoch", self.epoch.to_string()),
            ("step", self.step.to_string()),
            ("config_sha256", self.config_sha256.clone()),
        ]
        .map(|(key, value)| (key.to_string(), value))
        .into();
        for (name, count) in &self.counters {
            metadata.insert(format!("counter.{name}"), count.to_string());
        }
        for (name, value) in &self.scalars {
            metadata.insert(format!("scalar.{name}"), format!("{:016x}", value.to_bits()));
        }
        let names = self.tensors.iter().map(|(name, values)| (name.clone(), vec![values.len()]));
        let tensors = layout(Dtype::F32, names);
        let data = || self.tensors.iter().flat_map(|(_, values)| le_bytes(values));
        let unsigned = [header(&metadata, &tensors)?];
        metadata.insert("sha256".to_string(), sha256_of(unsigned.into_iter().chain(data())));
        write(path, &header(&metadata, &tensors)?, data())
    }

    /// Reads a state and verifies its SHA-256.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for anything that [`TrainingState::save`] did not write.
    pub fn load(path: &Path) -> Result<TrainingState<'static>> {
        let mut file = TensorFile::read(path, MAX_MODEL_BYTES)?;
        file.expect("format", FORMAT)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::model::ModelFile;

    fn refusal<T>(result: Result<T>) -> String {
        let error = result.err().expect("a bad file was accepted");
        assert_eq!(error.exit_code(), 65, "{error}");
        error.to_string()
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
            s.tensors
                .iter()
                .map(|(n, v)| (n.clone(), le_bytes(v).collect::<Vec<_>>().concat()))
                .collect()
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
            let mut file = TensorFile::read(&path, MAX_MODEL_BYTES).unwrap();
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
