//! `metrics.jsonl`: one line of JSON for each epoch of each model.

use crate::engine::trainer::{EpochRecord, Observer, Progress};
use crate::files::error::{Error, Result};
use crate::files::write::atomic_write;
use crate::run::folder::RunFolder;
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
        let keep = |line: &&str| {
            let Ok(record) = serde_json::from_str::<serde_json::Value>(line) else { return false };
            let epoch = record["epoch"].as_u64().unwrap_or(0) as usize;
            record["model"] != model || record["seed"] != self.seed || epoch <= epochs_done
        };
        let kept: String = text.lines().filter(keep).flat_map(|line| [line, "\n"]).collect();
        if kept.as_bytes() != bytes {
            atomic_write(&path, kept.as_bytes())?;
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
