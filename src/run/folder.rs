//! The folder of a run, and the locks that say which process may write in it.
//!
//! Three kinds of lock file, which every version of the program locks the same way:
//!
//! | file | who locks it | for how long |
//! |---|---|---|
//! | `.lock` | the process that has the folder, or all that share it | as long as it works there |
//! | `.turn` | one of those that share it | to write a file that all of them write |
//! | `checkpoints/.NAME.lock` | one of those that share it | to make the model NAME |

use crate::engine::config::Config;
use crate::files::error::{Error, Result};
use crate::files::read::read_json;
use crate::files::write::{atomic_write, is_temporary};
use crate::run::manifest::{differing, utc};
use serde::Serialize;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

/// The folder of one run: `config.toml`, `manifest.json`, `metrics.jsonl`, `summary.json`,
/// `report.html`, `models/` and `checkpoints/`. It is locked until the last clone of this value is
/// dropped or the process ends, however it ends.
#[derive(Debug, Clone)]
pub struct RunFolder {
    /// The folder itself.
    pub root: PathBuf,
    shared: bool,
    _lock: Arc<File>,
}

/// A lock that keeps other processes out until this is dropped or the process ends, however it ends.
/// Nothing is locked where no other process shares the folder.
#[derive(Debug)]
#[must_use = "dropping this unlocks"]
pub struct LockGuard {
    _lock: Option<File>,
}

/// "a run of `train` begun 2026-11-30T01:02:03Z that is not finished: go on with …; or choose another
/// folder": what a folder holds, and what to do.
fn what_it_holds(out: &Path) -> String {
    let manifest: serde_json::Value =
        read_json(&out.join(MANIFEST), "manifest").unwrap_or_default();
    // Options may stand before the command.
    let words = manifest["command"].as_array().into_iter().flatten().skip(1);
    let command = words
        .filter_map(|word| word.as_str())
        .find(|word| ["train", "distill", "reproduce", "verify"].contains(word));
    let of = command.map(|command| format!(" of `{command}`")).unwrap_or_default();
    let begun = manifest["started"].as_str().map(|when| format!(" begun {when}"));
    // An experiment writes its summary with its first row.
    let concluded = command != Some("reproduce") || manifest["finished"].is_string();
    let is_finished = out.join("summary.json").exists() && concluded;
    let (begun, out) = (begun.unwrap_or_default(), out.display());
    let what = match (is_finished, command) {
        // It has no page, and is not gone on with.
        (_, Some("verify")) => {
            return format!("results{of}{begun}; choose another folder, --out DIR");
        }
        (true, _) => format!("a finished run{of}{begun}: see it with limbeck report {out}"),
        (false, Some(command @ ("train" | "distill"))) => {
            format!(
                "a run{of}{begun} that is not finished: go on with limbeck {command} --resume {out}"
            )
        }
        (false, _) => {
            format!("a run{of}{begun} that is not finished: resume it by its own command")
        }
    };
    what + "; or choose another folder, --out DIR"
}

impl RunFolder {
    /// Makes the folder of a new run, and checks that it can be written.
    ///
    /// # Errors
    /// [`Error::Usage`] when the folder already holds a run, or another process has it;
    /// [`Error::Io`] naming the folder that cannot be made or written.
    pub fn create(out: &Path) -> Result<RunFolder> {
        if out.join(MANIFEST).exists() {
            return Err(RunFolder::taken(out));
        }
        RunFolder::expect_no_strangers(out)?;
        RunFolder::acquire(out, false)
    }

    fn taken(out: &Path) -> Error {
        Error::Usage(format!("{} already holds {}", out.display(), what_it_holds(out)))
    }

    /// Checks that the run in the folder is one of this experiment. Earlier versions did not write down which it
    /// is: that of a single model is known by its configuration.
    ///
    /// # Errors
    /// [`Error::Usage`] with what it is, and what to do; those of [`RunFolder::read_manifest`].
    pub fn expect_experiment(&self, experiment: &str) -> Result<()> {
        let manifest = self.read_manifest()?;
        let is_model = manifest.get("config").is_some_and(|config| config.is_string());
        match manifest.get("experiment").and_then(|name| name.as_str()) {
            Some(name) if name != experiment => Err(Error::Usage(format!(
                "{}: found a run of `reproduce {name}`, expected one of `reproduce {experiment}`; choose \
                 another folder, --out DIR",
                self.root.display()
            ))),
            None if is_model => Err(RunFolder::taken(&self.root)),
            _ => Ok(()),
        }
    }

    /// Checks that a folder in which no run was begun holds no file that a run would replace.
    fn expect_no_strangers(out: &Path) -> Result<()> {
        // That of a copied run may be missing.
        if out.join(".lock").exists() || out.join(MANIFEST).exists() {
            return Ok(());
        }
        let names = ["config.toml", "summary.json", "metrics.jsonl", "report.html"];
        match names.into_iter().find(|name| out.join(name).exists()) {
            None => Ok(()),
            Some(name) => Err(Error::Usage(format!(
                "{}: found {name}, expected an output folder without it, which a run would replace; \
                 choose another",
                out.display()
            ))),
        }
    }

    /// Opens the folder of a run to go on with, and removes what a killed process left half
    /// written.
    ///
    /// # Errors
    /// [`Error::Data`] when `root` holds no manifest; [`Error::Usage`] when another process has it;
    /// [`Error::Io`].
    pub fn open(root: &Path) -> Result<RunFolder> {
        if root.join(MANIFEST).is_file() {
            return RunFolder::acquire(root, false);
        }
        Err(Error::Data {
            path: root.to_path_buf(),
            what: "run folder".into(),
            found: "no manifest.json".into(),
            expected: "the output folder of an earlier run".into(),
        })
    }

    /// Makes or opens a folder that other processes share. The first of them removes the files that
    /// a killed process left half written.
    ///
    /// # Errors
    /// [`Error::Usage`] when a process that does not share it has the folder; [`Error::Io`].
    pub fn share(root: &Path) -> Result<RunFolder> {
        RunFolder::expect_no_strangers(root)?;
        RunFolder::acquire(root, true)
    }

    /// Makes the folders that are missing, locks `.lock`, and removes temporary files if no other
    /// process is there: then only dead ones can have left them.
    fn acquire(root: &Path, shared: bool) -> Result<RunFolder> {
        let folders = ["", "models", "checkpoints"].map(|part| root.join(part));
        for folder in &folders {
            fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
        }
        // `.lock` is locked alone for a moment: another process that wants to share must wait for
        // that moment to pass, not find the folder taken.
        let exclusive = shared.then(|| lock_turn(root)).transpose()?;
        let path = root.join(".lock");
        let mut file = open_lock_file(&path)?;
        let alone = is_locked(file.try_lock(), &path)?;
        if alone {
            for folder in &folders {
                remove_temporaries(folder)?;
            }
            for model in entries(&folders[2])?.iter().filter(|path| path.is_dir()) {
                remove_temporaries(model)?;
            }
        }
        if shared && alone {
            file.unlock().map_err(Error::io("unlock", &path))?;
        }
        let acquired = if shared { is_locked(file.try_lock_shared(), &path)? } else { alone };
        if !acquired {
            let mut holder = String::new();
            // Some systems refuse to read a locked file: then the holder stays unknown.
            let _ = file.read_to_string(&mut holder);
            return Err(Error::Usage(format!(
                "{}: found another process at work (id {}), expected {}; wait for it, or choose \
                 another output folder",
                root.display(),
                holder.trim(),
                if shared { "only such as share the run" } else { "none" }
            )));
        }
        let id = std::process::id();
        let others = if shared { " or another that shares the run" } else { "" };
        // This write is also the check that the folder can be written.
        let written = file.set_len(0).and_then(|()| writeln!(file, "{id}{others}"));
        written.map_err(Error::io("write", &path))?;
        drop(exclusive);
        Ok(RunFolder { root: root.to_path_buf(), shared, _lock: Arc::new(file) })
    }

    /// Waits for the lock under which one process at a time reads and writes the files that all of
    /// them write: `manifest.json`, `summary.json`, `metrics.jsonl`.
    ///
    /// Keep it for moments only. A process that waits for it while it has it waits for ever.
    ///
    /// # Errors
    /// [`Error::Io`] where files cannot be locked.
    pub fn exclusive(&self) -> Result<LockGuard> {
        let lock = self.shared.then(|| lock_turn(&self.root)).transpose()?;
        Ok(LockGuard { _lock: lock })
    }

    /// Locks the model called `name` together with its checkpoints; `None` where another process has
    /// locked it. The lock file stays, as `.lock` does.
    ///
    /// # Errors
    /// [`Error::Io`] where files cannot be locked.
    pub fn try_lock(&self, name: &str) -> Result<Option<LockGuard>> {
        if !self.shared {
            return Ok(Some(LockGuard { _lock: None }));
        }
        let path = self.checkpoints().join(format!(".{name}.lock"));
        let file = open_lock_file(&path)?;
        Ok(is_locked(file.try_lock(), &path)?.then_some(LockGuard { _lock: Some(file) }))
    }

    /// Whether other processes may share the folder.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Reads the manifest, whichever version of the program wrote it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] if it is no JSON object.
    pub fn read_manifest(&self) -> Result<serde_json::Map<String, serde_json::Value>> {
        read_json(&self.manifest(), "manifest")
    }

    /// Checks that the run began with the data sets and teachers of `sources`: SHA-256 by name.
    ///
    /// # Errors
    /// [`Error::Data`] with the names and digests of the manifest and those of now.
    pub fn expect_data(&self, sources: &BTreeMap<String, String>) -> Result<()> {
        let mut manifest = self.read_manifest()?;
        let mut part = |name: &str| manifest.remove(name).unwrap_or_default();
        let (data, paths) = (part("data"), part("paths"));
        let differing = differing(&data, sources);
        if differing.is_empty() {
            return Ok(());
        }
        // Where the files of now lie the manifest does not know.
        let now = differing.iter().map(|(name, _, now)| format!("{now} ({name})"));
        let now: Vec<String> = now.collect();
        let then = differing.iter().map(|(name, then, _)| {
            let key = name.split('/').next().unwrap_or_default();
            let path = paths[key].as_str().map(|path| format!(", {path}")).unwrap_or_default();
            format!("{then} ({name}{path})")
        });
        let then: Vec<String> = then.collect();
        Err(Error::Data {
            path: self.manifest(),
            what: "SHA-256 of the data and teachers that the run began with".into(),
            found: format!("{}, as given now", now.join(", ")),
            expected: format!("{}; give the files of then", then.join(", ")),
        })
    }

    /// Checks that `config`, which is kept in the folder, is what the run began with, but for the places
    /// of its files.
    ///
    /// # Errors
    /// [`Error::Config`] with a key that differs, its value of now and that of then; those of
    /// [`RunFolder::read_manifest`] and [`Config::from_toml`].
    pub fn expect_config(&self, config: &Config) -> Result<()> {
        let manifest = self.read_manifest()?;
        let Some(text) = manifest.get("config").and_then(|text| text.as_str()) else {
            return Ok(());
        };
        let begun = Config::from_toml(text, &self.manifest())?.kept_by_a_run();
        match config.difference(&begun)? {
            None => Ok(()),
            Some((key, now, then)) => Err(Error::Config {
                path: self.config(),
                line: None,
                message: format!(
                    "{key}: found {now}, expected {then}, with which the run began; undo the change, or \
                     begin a new run"
                ),
            }),
        }
    }

    /// The file of the resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// The file that records what ran where.
    pub fn manifest(&self) -> PathBuf {
        self.root.join(MANIFEST)
    }

    /// The file with one JSON object a line, in the order of training.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// The file of the results.
    pub fn summary(&self) -> PathBuf {
        self.root.join("summary.json")
    }

    /// The folder of the models.
    pub fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    /// The file of the model called `name`.
    pub fn model(&self, name: &str) -> PathBuf {
        self.models().join(format!("{name}.safetensors"))
    }

    /// The folder of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Writes `value` as indented JSON to the file `name` in the folder, atomically.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Internal`] for a value that has no JSON form.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(value)
            .map_err(|e| Error::Internal(format!("{name} to JSON: {e}")))?;
        json.push(b'\n');
        atomic_write(&self.root.join(name), &json)
    }

    /// Appends `record` as one line of JSON to `metrics.jsonl`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Internal`] for a record that has no JSON form.
    pub fn append_metrics(&self, record: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(record)
            .map_err(|e| Error::Internal(format!("metrics to JSON: {e}")))?;
        line.push(b'\n');
        let path = self.metrics();
        let _exclusive = self.exclusive()?;
        // One unbuffered write of the whole line: a kill leaves whole lines. What a full disk cut short is
        // taken back, lest another that shares the run go on in that line.
        let append = || {
            let mut file = File::options().create(true).append(true).open(&path)?;
            let before = file.metadata()?.len();
            file.write_all(&line).inspect_err(|_| _ = file.set_len(before))
        };
        append().map_err(Error::io("append to", &path))
    }

    /// Writes the lines of [`RunFolder::append_metrics`] through to the disk. Called before a
    /// checkpoint is written: a power cut must not leave a checkpoint without the epochs before it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync_metrics(&self) -> Result<()> {
        let path = self.metrics();
        match File::open(&path).and_then(|file| file.sync_all()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("sync", &path)(e)),
            _ => Ok(()),
        }
    }
}

const MANIFEST: &str = "manifest.json";

/// Opens or makes a lock file. Nobody removes one: another process may have just opened it.
fn open_lock_file(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
    file.map_err(Error::io("write", path))
}

/// Whether an attempt to lock the file at `path` succeeded.
fn is_locked(attempt: std::result::Result<(), TryLockError>, path: &Path) -> Result<bool> {
    match attempt {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) => Err(Error::io("lock", path)(e)),
    }
}

/// Waits for the lock of `.turn`, which the processes that share the folder take one after another.
fn lock_turn(root: &Path) -> Result<File> {
    let path = root.join(".turn");
    let file = open_lock_file(&path)?;
    file.lock().map_err(Error::io("lock", &path))?;
    Ok(file)
}

/// Removes the temporary files in `folder`.
fn remove_temporaries(folder: &Path) -> Result<()> {
    let temporary =
        |path: &&PathBuf| path.file_name().is_some_and(|n| is_temporary(&n.to_string_lossy()));
    for path in entries(folder)?.iter().filter(temporary) {
        fs::remove_file(path).map_err(Error::io("remove", path))?;
    }
    Ok(())
}

/// The file name of a model without its extension, such as `student-T=20-0`.
pub(crate) fn file_stem(variant: &str, seed: u64) -> String {
    format!("{}-{seed}", variant.replace([' ', ',', '/'], "-"))
}

/// The paths of what a folder holds, in the order of the names.
///
/// # Errors
/// [`Error::Io`].
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    };
    let mut paths = list().map_err(Error::io("list", folder))?;
    paths.sort();
    Ok(paths)
}

/// Makes a new, empty folder for a run: `runs/<command>-<UTC date and time>`, followed by a number
/// where several runs start within one second.
///
/// # Errors
/// [`Error::Io`] when it cannot be made.
pub fn default_out(command: &str) -> Result<PathBuf> {
    new_folder(Path::new("runs"), command, SystemTime::now())
}

fn new_folder(parent: &Path, command: &str, now: SystemTime) -> Result<PathBuf> {
    fs::create_dir_all(parent).map_err(Error::io("create the folder", parent))?;
    let stamp = utc(now).replace(['-', ':'], "");
    let base = format!("{}-{stamp}", command.replace([' ', '/', '\\'], "-"));
    let mut attempt = 1u64;
    loop {
        let name = match attempt {
            1 => base.clone(),
            n => format!("{base}-{n}"),
        };
        let folder = parent.join(name);
        // Only one process can make the folder: the others try the next name.
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => attempt += 1,
            Err(e) => return Err(Error::io("create the folder", &folder)(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn default_folders_never_collide() {
        let folder = tempfile::tempdir().unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_425_945_599);
        let made: Vec<PathBuf> =
            (0..3).map(|_| new_folder(folder.path(), "reproduce mnist", now).unwrap()).collect();
        let expected = [
            "reproduce-mnist-20150309T235959Z",
            "reproduce-mnist-20150309T235959Z-2",
            "reproduce-mnist-20150309T235959Z-3",
        ];
        for (made, expected) in made.iter().zip(expected) {
            assert_eq!(made.file_name().unwrap(), expected);
        }
        assert_eq!(entries(folder.path()).unwrap(), made);
    }
}
