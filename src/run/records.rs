//! `metrics.jsonl`: one line of JSON for each epoch of each model.

use crate::engine::config::Config;
use crate::engine::trainer::{EpochRecord, Observer, Progress};
use crate::files::error::{Error, Result};
use crate::files::write::atomic_write;
use crate::run::folder::{RunFolder, file_stem};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs::File, path::Path};

/// The observer that writes each epoch to `metrics.jsonl`, and passes everything on to another.
pub(crate) struct Recorder<'a> {
    pub folder: &'a RunFolder,
    /// The seed of the model that is trained.
    pub seed: u64,
    /// The observer behind it.
    pub inner: &'a mut dyn Observer,
    /// Asks the run to end after its current step.
    pub stop: &'a AtomicBool,
}

/// A line of `metrics.jsonl`.
#[derive(Serialize, Deserialize)]
pub struct SeededRecord<R> {
    /// The seed of the model.
    pub seed: u64,
    /// The record of the epoch, whose keys stand beside the seed's.
    #[serde(flatten)]
    pub record: R,
}

/// Reads the epochs of all models from the `metrics.jsonl` at `path`.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] for a line that is no record.
pub fn all_records(path: &Path) -> Result<Vec<SeededRecord<EpochRecord>>> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let record = |(i, line): (usize, io::Result<Vec<u8>>)| {
        let line = line.map_err(Error::io("read", path))?;
        serde_json::from_slice(&line).map_err(|e| Error::Data {
            path: path.to_path_buf(),
            what: format!("line {}", i + 1),
            found: e.to_string(),
            expected: "an epoch's record".into(),
        })
    };
    BufReader::new(file).split(b'\n').enumerate().map(record).collect()
}

/// Reads the epochs of one model from the run's `metrics.jsonl`.
///
/// # Errors
/// Those of [`all_records`].
pub fn records(folder: &RunFolder, variant: &str, seed: u64) -> Result<Vec<EpochRecord>> {
    let _exclusive = folder.exclusive()?;
    let all = all_records(&folder.metrics())?.into_iter();
    let of_model = all.filter(|line| line.record.model == variant && line.seed == seed);
    Ok(of_model.map(|line| line.record).collect())
}

/// Reads the records of a model that was trained for all of its epochs: what is worked out from them is not
/// to be worked out from some.
///
/// # Errors
/// Those of [`records`]; [`Error::Data`] where some are missing.
pub fn all_epochs(folder: &RunFolder, variant: &str, config: &Config) -> Result<Vec<EpochRecord>> {
    let epochs = config.training.epochs;
    let found = records(folder, variant, config.seed)?;
    if found.len() == epochs {
        return Ok(found);
    }
    let checkpoints = folder.checkpoints().join(file_stem(variant, config.seed));
    Err(Error::Data {
        path: folder.metrics(),
        what: format!("records of {variant}, seed {}", config.seed),
        found: format!("those of {} of {epochs} epochs", found.len()),
        expected: format!("all of them: remove {}, and it is trained again", checkpoints.display()),
    })
}

impl Observer for Recorder<'_> {
    /// Removes lines of epochs that will be trained again, and one that a full disk cut short.
    fn on_start(&mut self, model: &str, epochs_done: usize) -> Result<()> {
        let exclusive = self.folder.exclusive()?;
        let path = self.folder.metrics();
        let bytes = match std::fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            read => read.map_err(Error::io("read", &path))?,
        };
        let text = String::from_utf8_lossy(&bytes);
        let (mut kept, mut of_model, mut damaged) = (String::new(), 0, Vec::new());
        for (i, line) in text.lines().enumerate() {
            let Ok(record) = serde_json::from_str::<serde_json::Value>(line) else {
                damaged.push((i + 1).to_string());
                continue;
            };
            let epoch = record["epoch"].as_u64().unwrap_or(0) as usize;
            let is_its = record["model"] == model && record["seed"] == self.seed;
            if !is_its || epoch <= epochs_done {
                of_model += usize::from(is_its);
                kept += line;
                kept.push('\n');
            }
        }
        if kept.as_bytes() != bytes {
            atomic_write(&path, kept.as_bytes())?;
        }
        // The line that a killed process was writing is that of an epoch that is trained again.
        let cut = usize::from(!text.ends_with('\n'));
        if of_model < epochs_done || damaged.len() > cut {
            let lines = match &damaged[..] {
                [] => String::new(),
                lines => format!(", line {} was damaged and is left out", lines.join(", ")),
            };
            self.inner.warn(&format!(
                "{}: found the records of {of_model} of the {epochs_done} epochs of {model}, seed {}\
                 {lines}; its curves have gaps, its weights have none",
                path.display(),
                self.seed
            ));
        }
        drop(exclusive);
        self.inner.on_start(model, epochs_done)
    }

    fn on_step(&mut self, progress: &Progress) {
        self.inner.on_step(progress);
    }

    fn on_epoch(&mut self, record: &EpochRecord) -> Result<()> {
        self.folder.append_metrics(&SeededRecord { seed: self.seed, record })?;
        self.inner.on_epoch(record)
    }

    fn on_checkpoint(&mut self) -> Result<()> {
        self.folder.sync_metrics()
    }

    fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn warn(&mut self, message: &str) {
        self.inner.warn(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Heard(Vec<String>);

    impl Observer for Heard {
        fn on_start(&mut self, _: &str, _: usize) -> Result<()> {
            Ok(())
        }
        fn on_step(&mut self, _: &Progress) {}
        fn on_epoch(&mut self, _: &EpochRecord) -> Result<()> {
            Ok(())
        }
        fn warn(&mut self, message: &str) {
            self.0.push(message.to_string());
        }
    }

    /// What is kept of `text` and what is said where two epochs of m, seed 1, are done.
    fn resumed(text: &str) -> (String, Vec<String>) {
        let (dir, stop) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
        let folder = RunFolder::create(&dir.path().join("run")).unwrap();
        std::fs::write(folder.metrics(), text).unwrap();
        let mut inner = Heard(Vec::new());
        let mut recorder = Recorder { folder: &folder, seed: 1, inner: &mut inner, stop: &stop };
        recorder.on_start("m", 2).unwrap();
        (std::fs::read_to_string(folder.metrics()).unwrap(), inner.0)
    }

    #[test]
    fn records_that_are_lost_are_told_and_those_of_a_killed_process_are_not() {
        let of = |model: &str, epoch: u64| {
            format!("{{\"model\":\"{model}\",\"seed\":1,\"epoch\":{epoch}}}\n")
        };
        let whole = of("m", 1) + &of("other", 1) + &of("m", 2);
        assert_eq!(resumed(&whole), (whole.clone(), Vec::new()));
        // Epoch 3 is trained again; its line may be half there.
        for more in [&of("m", 3), &of("m", 3)[..9]] {
            assert_eq!(resumed(&(whole.clone() + more)), (whole.clone(), Vec::new()));
        }
        let (kept, heard) = resumed(&whole[..whole.len() - 4]);
        assert_eq!(kept, of("m", 1) + &of("other", 1));
        assert!(
            heard[0].contains("1 of the 2 epochs of m, seed 1, line 3 was damaged"),
            "{heard:?}"
        );
        let (kept, heard) = resumed(&whole.replace("{\"model\":\"other", "x"));
        assert_eq!(kept, of("m", 1) + &of("m", 2));
        assert!(heard[0].contains("line 2 was damaged"), "{heard:?}");
        assert!(resumed("").1[0].contains("0 of the 2 epochs"));
    }
}
