//! The epochs of a run as event files of TensorBoard.
//!
//! TensorBoard sees each model as a run: a folder `MODEL-SEED` with one file. All models have the
//! same tags, so that their curves share charts: `train/loss`, `train/reducible_loss`,
//! `train/error_rate`, `learning_rate`, `samples_per_second`, and `SPLIT/error_rate` and `SPLIT/nll`
//! for each split that was evaluated after every epoch. A step is an epoch.
//!
//! A file is a sequence of TFRecords. A TFRecord is the length of a message (u64), the checksum of
//! the length, an Event message, and the checksum of the message. A checksum is a masked CRC-32C.
//! Field numbers are those of event.proto and summary.proto.

use crate::engine::trainer::EpochRecord;
use crate::files::error::{Error, Result};
use crate::files::{protobuf::Message, write::atomic_write};
use crate::run::folder::file_stem;
use crate::run::records::{SeededRecord, all_records};
use crc::{CRC_32_ISCSI, Crc};
use std::path::{Path, PathBuf};
use std::{collections::BTreeMap, fs, time::UNIX_EPOCH};

/// The name of every event file: a second export replaces the first.
const FILE: &str = "events.out.tfevents.0.limbeck";

/// Writes the epochs of a run to folders below `out`, and returns the files. `metrics` is the run's
/// `metrics.jsonl`. Its records hold no wall time: the last epoch of each model gets the time of the
/// file's last change, and the epochs before it are earlier by their training time.
///
/// # Errors
/// [`Error::Data`] for no or damaged metrics; [`Error::Io`].
pub fn write(metrics: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    let changed = fs::metadata(metrics).and_then(|file| file.modified());
    let changed = changed.map_err(Error::io("read", metrics))?;
    let changed = changed.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut models: BTreeMap<String, Vec<EpochRecord>> = BTreeMap::new();
    for SeededRecord { seed, record } in all_records(metrics)? {
        models.entry(file_stem(&record.model, seed)).or_default().push(record);
    }
    if models.is_empty() {
        return Err(Error::Data {
            path: metrics.to_path_buf(),
            what: "epochs".into(),
            found: "none".into(),
            expected: "at least one".into(),
        });
    }
    let mut files = Vec::new();
    for (name, epochs) in models {
        let folder = out.join(name);
        fs::create_dir_all(&folder).map_err(Error::io("create the folder", &folder))?;
        files.push(folder.join(FILE));
        let end = epochs.last().map_or(0.0, |epoch| epoch.seconds);
        let time = |epoch: &EpochRecord| changed - (end - epoch.seconds);
        let begun = epochs.first().map_or(changed, &time);
        let version = Message::default().double(1, begun).part(3, "brain.Event:2"); // file_version
        let events = epochs.iter().map(|epoch| event(time(epoch), epoch));
        let bytes: Vec<u8> = std::iter::once(version).chain(events).flat_map(record).collect();
        atomic_write(&folder.join(FILE), &bytes)?;
    }
    Ok(files)
}

/// An Event message: wall_time, step, summary.
fn event(time: f64, epoch: &EpochRecord) -> Message {
    let rate = |errors: u64, examples: u64| errors as f64 / examples as f64;
    let mut values = vec![
        ("train/loss".to_string(), epoch.loss),
        ("train/reducible_loss".to_string(), epoch.reducible_loss),
        ("learning_rate".to_string(), epoch.learning_rate),
        ("samples_per_second".to_string(), epoch.samples_per_second),
    ];
    if let Some(errors) = epoch.train_errors {
        values.push(("train/error_rate".to_string(), rate(errors, epoch.examples)));
    }
    for (split, watched) in &epoch.watched {
        let errors = rate(watched.errors as u64, watched.examples as u64);
        values.push((format!("{split}/error_rate"), errors));
        values.push((format!("{split}/nll"), watched.nll));
    }
    let summary = values.into_iter().fold(Message::default(), |summary, (tag, value)| {
        // value: tag, simple_value
        summary.part(1, Message::default().part(1, tag).float(2, value as f32))
    });
    Message::default().double(1, time).int(2, epoch.epoch as u64).part(5, summary)
}

/// The TFRecord of a message.
fn record(event: Message) -> Vec<u8> {
    let data = event.as_ref();
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length), data, &masked_crc(data)].concat()
}

/// TFRecord's checksum: the CRC-32C, rotated right by 15 bits, plus a constant. The mask is there
/// because a plain CRC of data that hold their own CRC tells little.
fn masked_crc(data: &[u8]) -> [u8; 4] {
    const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
    CRC.checksum(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}
