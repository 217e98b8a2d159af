//! What a run leaves behind: atomic writes, the run folder and its manifest.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::input::read_json;

/// Replaces `path` by a file of these `bytes`, or leaves it untouched: a temporary file in the
/// same folder is written, synced and renamed, and the folder synced.
///
/// # Errors
/// [`Error::Io`] naming `path`; the temporary file is removed.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<()> {
    atomic_write_with(path, |file| file.write_all(bytes))
}

/// As [`atomic_write`], for content that `write` makes piece by piece.
///
/// # Errors
/// [`Error::Io`] naming the path; the file is then as it was.
pub fn atomic_write_with(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let name = path.file_name().ok_or_else(|| {
        Error::io("write", path)(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not the name of a file",
        ))
    })?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let temporary = folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let replace = || -> io::Result<()> {
        let mut file = BufWriter::new(File::create(&temporary)?);
        write(&mut file)?;
        file.into_inner()?.sync_all()?;
        fs::rename(&temporary, path)
    };
    replace().map_err(|source| {
        // The first failure is the one to report; the temporary may not even exist.
        let _ = fs::remove_file(&temporary);
        Error::io("write", path)(source)
    })?;
    // The rename itself is durable once the folder is; only Unix can open a folder to sync it.
    if cfg!(unix) {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(Error::io("sync the folder of", path))?;
    }
    Ok(())
}

/// Whether this is a temporary file of [`atomic_write_with`]: `.NAME.PID.tmp`.
fn is_temporary(name: &str) -> bool {
    let parts = name.strip_prefix('.').and_then(|rest| rest.strip_suffix(".tmp")?.rsplit_once('.'));
    parts.is_some_and(|(_, id)| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The words of a command as a line for a shell, quoted where it would split or change them.
pub fn shell_line(words: &[String]) -> String {
    let quoted = |word: &String| {
        let plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            return word.to_string();
        }
        format!("'{}'", word.replace('\'', "'\\''"))
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// SHA-256 of `bytes` as 64 lowercase hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    sha256_of([bytes])
}

/// SHA-256 of the concatenation of `parts` as 64 lowercase hexadecimal digits.
pub fn sha256_of<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The folder of one run: `config.toml`, `manifest.json`, `metrics.jsonl`, `summary.json`,
/// `report.html`, `models/` and `checkpoints/`.
///
/// One process writes in it, or several that share it: who has it locks `.lock`, alone or with the
/// others, until the last clone of this value is dropped or the process ends, however it ends. Of
/// those that share, one at a time has its [`turn`](RunFolder::turn) to write what all of them
/// write, and each [`claim`](RunFolder::claim)s the model that it trains.
#[derive(Debug, Clone)]
pub struct RunFolder {
    /// The folder itself.
    pub root: PathBuf,
    shared: bool,
    _lock: Arc<File>,
}

/// Keeps other processes out until it is dropped or the process ends, however it ends. Holds nothing
/// where the folder is the process's own.
#[derive(Debug)]
#[must_use = "nothing is held once this is dropped"]
pub struct Hold {
    _lock: Option<File>,
}

impl RunFolder {
    /// Makes the folder of a new run, and makes sure that it can be written to before hours of
    /// training depend on it.
    ///
    /// # Errors
    /// [`Error::Usage`] when the folder already holds a run, or another process has it;
    /// [`Error::Io`] naming the folder that cannot be made or written.
    pub fn create(out: &Path) -> Result<RunFolder> {
        if out.join(MANIFEST).exists() {
            return Err(Error::Usage(format!(
                "{} already holds a run; choose another output folder or resume it",
                out.display()
            )));
        }
        RunFolder::take(out, false)
    }

    /// The folder of a run to go on with. What a killed process left half written is removed.
    ///
    /// # Errors
    /// [`Error::Data`] when `root` holds no manifest; [`Error::Usage`] when another process has it;
    /// [`Error::Io`].
    pub fn open(root: &Path) -> Result<RunFolder> {
        if root.join(MANIFEST).is_file() {
            return RunFolder::take(root, false);
        }
        Err(Error::Data {
            path: root.to_path_buf(),
            what: "run folder".into(),
            found: "no manifest.json".into(),
            expected: "the output folder of an earlier run".into(),
        })
    }

    /// The folder of a new run or of one to go on with, which other processes share. What a killed
    /// process left half written is removed by one that finds itself alone.
    ///
    /// # Errors
    /// [`Error::Usage`] when a process has the folder that does not share it; [`Error::Io`].
    pub fn share(root: &Path) -> Result<RunFolder> {
        RunFolder::take(root, true)
    }

    /// Makes what is missing, locks the folder, and removes the temporary files of dead processes:
    /// behind a lock that nobody shares there are no others.
    fn take(root: &Path, shared: bool) -> Result<RunFolder> {
        let parts = ["", "models", "checkpoints"].map(|part| root.join(part));
        for folder in &parts {
            fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
        }
        // One who looks whether it is alone must not keep out others who would share.
        let turn = shared.then(|| turn(root)).transpose()?;
        let path = root.join(".lock");
        let mut file = lock_file(&path)?;
        let alone = locked(file.try_lock(), &path)?;
        if alone {
            for folder in &parts {
                sweep(folder)?;
            }
            for model in entries(&parts[2])?.iter().filter(|path| path.is_dir()) {
                sweep(model)?;
            }
        }
        if shared && alone {
            file.unlock().map_err(Error::io("unlock", &path))?;
        }
        let taken = if shared { locked(file.try_lock_shared(), &path)? } else { alone };
        if !taken {
            let mut holder = String::new();
            // Where a locked file cannot be read, its holder stays unknown.
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
        // This also shows that the folder can be written before hours of training depend on it.
        file.set_len(0)
            .and_then(|()| writeln!(file, "{id}{others}"))
            .map_err(Error::io("write", &path))?;
        drop(turn);
        Ok(RunFolder { root: root.to_path_buf(), shared, _lock: Arc::new(file) })
    }

    /// Waits for this process's turn to read and write what all that share the folder write:
    /// `manifest.json`, `summary.json`, `metrics.jsonl`. Hold it shortly, and never twice.
    ///
    /// # Errors
    /// [`Error::Io`] where files cannot be locked.
    pub fn turn(&self) -> Result<Hold> {
        let lock = self.shared.then(|| turn(&self.root)).transpose()?;
        Ok(Hold { _lock: lock })
    }

    /// Claims what is called `name`, a model with its checkpoints, or nothing where another process
    /// has it. The files of claims stay, as `.lock` does.
    ///
    /// # Errors
    /// [`Error::Io`] where files cannot be locked.
    pub fn claim(&self, name: &str) -> Result<Option<Hold>> {
        if !self.shared {
            return Ok(Some(Hold { _lock: None }));
        }
        let path = self.checkpoints().join(format!(".{name}.lock"));
        let file = lock_file(&path)?;
        Ok(locked(file.try_lock(), &path)?.then_some(Hold { _lock: Some(file) }))
    }

    /// Whether other processes may share the folder.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// The manifest, whichever version of the program wrote it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] if it is no JSON object.
    pub fn read_manifest(&self) -> Result<serde_json::Map<String, serde_json::Value>> {
        read_json(&self.manifest(), "manifest")
    }

    /// Checks that the run began with these data (and teachers), by name and SHA-256.
    ///
    /// # Errors
    /// [`Error::Data`] naming what the manifest says and what is there now.
    pub fn expect_data(&self, sources: &BTreeMap<String, String>) -> Result<()> {
        let found = self.read_manifest()?.remove("data").unwrap_or_default();
        let expected = serde_json::json!(sources);
        if found == expected {
            return Ok(());
        }
        Err(Error::Data {
            path: self.manifest(),
            what: "data and teachers of the run".into(),
            found: found.to_string(),
            expected: format!("{expected}, as given now"),
        })
    }

    /// The resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// The record of what ran where.
    pub fn manifest(&self) -> PathBuf {
        self.root.join(MANIFEST)
    }

    /// One JSON object per line, in the order of training.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// The results.
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
        let _turn = self.turn()?;
        // One unbuffered write of the whole line: a kill between two calls leaves whole lines.
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(&line))
            .map_err(Error::io("append to", &path))
    }

    /// Makes the lines of [`RunFolder::append_metrics`] last as long as what is written after: a
    /// checkpoint must not survive a power cut that takes the epochs before it.
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

/// Opens a file to lock. It stays: to remove it would take it from under a process that has just
/// opened it.
fn lock_file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).map_err(Error::io("write", path))
}

/// Whether an attempt to lock the file at `path` succeeded.
fn locked(attempt: std::result::Result<(), TryLockError>, path: &Path) -> Result<bool> {
    match attempt {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) => Err(Error::io("lock", path)(e)),
    }
}

/// Waits for the lock that those who share the folder take in turn.
fn turn(root: &Path) -> Result<File> {
    let path = root.join(".turn");
    let file = lock_file(&path)?;
    file.lock().map_err(Error::io("lock", &path))?;
    Ok(file)
}

/// Removes the temporary files that lie in `folder`.
fn sweep(folder: &Path) -> Result<()> {
    let orphan =
        |path: &&PathBuf| path.file_name().is_some_and(|n| is_temporary(&n.to_string_lossy()));
    for path in entries(folder)?.iter().filter(orphan) {
        fs::remove_file(path).map_err(Error::io("remove", path))?;
    }
    Ok(())
}

/// What a folder holds, in the order of the names.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    };
    let mut paths = list().map_err(Error::io("list", folder))?;
    paths.sort();
    Ok(paths)
}

/// Makes a new, empty folder for a run: `runs/<command>-<UTC date and time>`, with a number behind
/// it where two runs start within a second.
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
        // Making the folder claims its name, also against another process.
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => attempt += 1,
            Err(e) => return Err(Error::io("create the folder", &folder)(e)),
        }
    }
}

/// `time` in UTC as ISO 8601 with seconds, `2015-03-09T23:59:59Z`. Times before 1970 show as 1970.
pub fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Days are counted from 1 March of year 0, so that a leap day ends its year; 400 years are
    // 146,097 days, and (153·m + 2)/5 is the number of days before month m of March, April, …
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let second = seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// `manifest.json`: everything needed to run the same thing again and to judge its figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    /// `limbeck`.
    pub program: &'static str,
    /// Version of this crate.
    pub version: &'static str,
    /// Commit of the source, where known.
    pub git_commit: Option<String>,
    /// Start of the run, UTC, ISO 8601.
    pub started: String,
    /// Model name of the processor, or its architecture where the system does not tell.
    pub cpu: String,
    /// Hardware threads available to the process.
    pub cores: usize,
    /// Instruction set that the kernels use.
    pub isa: String,
    /// Threads that the kernels use.
    pub threads: usize,
    /// Peak of their fused multiply-adds when the run began, 10⁹ operations per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_gflops: Option<f64>,
    /// Seed of each model trained.
    pub seeds: Vec<u64>,
    /// SHA-256 of each data file by name.
    pub data: BTreeMap<String, String>,
    /// The distillation loss, where one was minimised.
    pub loss_contract: Option<LossContract>,
    /// The command line to replay.
    pub command: Vec<String>,
    /// The resolved configuration as TOML, for runs of one configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}

impl Manifest {
    /// A manifest of this program, machine and moment; the caller adds seeds, data, loss contract
    /// and configuration.
    pub fn new(
        command: Vec<String>,
        git_commit: Option<String>,
        isa: &str,
        threads: usize,
    ) -> Manifest {
        Manifest {
            program: "limbeck",
            version: env!("CARGO_PKG_VERSION"),
            git_commit,
            started: utc(SystemTime::now()),
            cpu: cpu_model(),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
            isa: isa.to_string(),
            threads,
            peak_gflops: None,
            seeds: Vec::new(),
            data: BTreeMap::new(),
            loss_contract: None,
            command,
            config: None,
        }
    }
}

/// Model name of the processor: from `/proc/cpuinfo` where that exists and tells, else the
/// architecture.
pub fn cpu_model() -> String {
    fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_string())
        })
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| std::env::consts::ARCH.to_string())
}

/// What exactly was minimised:
/// soft_weight · T² · CE(p, q) + hard_weight · CE(label, softmax(z)), p = softmax(v/T) of the
/// teacher, q = softmax(z/T) of the student, averaged over the batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LossContract {
    /// Which distribution is the target.
    pub direction: &'static str,
    /// How examples are combined.
    pub reduction: &'static str,
    /// T; the string `inf`, which JSON has no number for, where logits are matched.
    #[serde(serialize_with = "number_or_inf")]
    pub temperature: f64,
    /// Whether the soft term is multiplied by T².
    pub t_squared: bool,
    /// Weight of the soft term.
    pub soft_weight: f64,
    /// Weight of the hard term.
    pub hard_weight: f64,
}

impl LossContract {
    /// The contract at this temperature and these weights.
    pub fn new(temperature: f64, soft_weight: f64, hard_weight: f64) -> LossContract {
        LossContract {
            direction: "forward cross-entropy: soft targets p from the teacher, q from the student",
            reduction: "mean over the batch",
            temperature,
            t_squared: true,
            soft_weight,
            hard_weight,
        }
    }
}

fn number_or_inf<S: Serializer>(
    value: &f64,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    if value.is_infinite() { serializer.serialize_str("inf") } else { value.serialize(serializer) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn atomic_writes_replace_the_file_and_leave_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        atomic_write(&path, b"one").unwrap();
        atomic_write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["a.json"]);
    }

    #[test]
    fn failed_writes_name_the_path_and_leave_everything_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        // A folder of that name lets the temporary be written and the rename fail.
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        let error = atomic_write(&taken, b"x").unwrap_err();
        assert_eq!(error.exit_code(), 74);
        assert!(error.to_string().contains(&*taken.to_string_lossy()));
        assert_eq!(names(folder.path()), ["taken"]);
        assert!(names(&taken).is_empty());

        let missing = folder.path().join("missing/a.json");
        let error = atomic_write(&missing, b"x").unwrap_err();
        assert!(error.to_string().contains(&*missing.to_string_lossy()));
        assert_eq!(atomic_write(Path::new("/"), b"x").unwrap_err().exit_code(), 74);
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_split_them() {
        let words = ["runs/a-1.2", "", "my runs", "it's", "$HOME"].map(str::to_string);
        assert_eq!(shell_line(&words), r"runs/a-1.2 '' 'my runs' 'it'\''s' '$HOME'");
    }

    #[test]
    fn sha256_of_the_standards_examples() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(sha256_of(["a", "", "bc"]), sha256_hex(b"abc"));
    }

    #[test]
    fn run_folders_are_made_once_and_reopened() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("deep/run");
        assert_eq!(RunFolder::open(&out).unwrap_err().exit_code(), 65);
        let run = RunFolder::create(&out).unwrap();
        assert_eq!(names(&out), [".lock", "checkpoints", "models"]);
        drop(run);
        let run = RunFolder::create(&out).unwrap();
        run.write_json("manifest.json", &1).unwrap();
        assert_eq!(RunFolder::create(&out).unwrap_err().exit_code(), 2);
        drop(run);
        let run = RunFolder::open(&out).unwrap();

        run.append_metrics(&BTreeMap::from([("epoch", 1)])).unwrap();
        run.append_metrics(&BTreeMap::from([("epoch", 2)])).unwrap();
        assert_eq!(fs::read_to_string(run.metrics()).unwrap(), "{\"epoch\":1}\n{\"epoch\":2}\n");
    }

    #[test]
    fn a_run_has_one_writer() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path()).unwrap();
        run.write_json("manifest.json", &1).unwrap();
        let clone = run.clone();
        drop(run);
        let error = RunFolder::open(folder.path()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        for part in [&*folder.path().to_string_lossy(), &std::process::id().to_string()] {
            assert!(error.to_string().contains(part), "{error}");
        }
        drop(clone);
        RunFolder::open(folder.path()).unwrap();
    }

    #[test]
    fn only_the_temporary_files_of_dead_processes_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let run = RunFolder::create(root).unwrap();
        run.write_json("manifest.json", &1).unwrap();
        let model = run.checkpoints().join("net-0");
        fs::create_dir(&model).unwrap();
        let orphans = [&root.to_path_buf(), &run.models(), &run.checkpoints(), &model]
            .map(|at| at.join(".a.b.tar.4711.tmp"));
        let others = [".tmp", ".a.tmp", "a.1.tmp", ".a.x1.tmp", ".a.1.tmp2"];
        let others = others.map(|name| model.join(name));
        for path in orphans.iter().chain(&others) {
            fs::write(path, "half").unwrap();
        }
        drop(run);
        RunFolder::open(root).unwrap();
        assert!(!orphans.iter().any(|path| path.exists()));
        assert!(others.iter().all(|path| path.exists()));
    }

    #[test]
    fn those_that_share_a_run_claim_its_parts_and_keep_others_out() {
        let folder = tempfile::tempdir().unwrap();
        let orphan = folder.path().join(".summary.json.4711.tmp");
        fs::write(&orphan, "half").unwrap();
        let one = RunFolder::share(folder.path()).unwrap();
        assert!(!orphan.exists());
        fs::write(&orphan, "being written").unwrap();
        let two = RunFolder::share(folder.path()).unwrap();
        assert!(orphan.exists());

        let claim = one.claim("net-0").unwrap().expect("free");
        assert!(two.claim("net-0").unwrap().is_none());
        let other = two.claim("net-1").unwrap().expect("free");
        drop(claim);
        drop(two.claim("net-0").unwrap().expect("free again"));
        drop(other);

        let error = RunFolder::create(folder.path()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        drop((one, two));
        let own = RunFolder::create(folder.path()).unwrap();
        assert_eq!(RunFolder::share(folder.path()).unwrap_err().exit_code(), 2);
        // Nobody to share with: everything is free, and nothing is written.
        let claims = [own.claim("net-2").unwrap(), own.claim("net-2").unwrap()];
        assert!(claims.iter().all(Option::is_some));
        assert!(!own.checkpoints().join(".net-2.lock").exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = RunFolder::create(&file.join("run")).unwrap_err();
        assert_eq!(error.exit_code(), 74);
        assert!(error.to_string().contains("file/run"), "{error}");
    }

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
        assert_eq!(names(folder.path()), expected);
    }

    #[test]
    fn dates_agree_with_the_calendar() {
        // Seconds and dates from `date -u -d @SECONDS`.
        let known = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_425_945_599, "2015-03-09T23:59:59Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, date) in known {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), date);
        }
    }

    #[test]
    fn manifests_hold_the_loss_contract() {
        let mut manifest = Manifest::new(vec!["limbeck".into()], None, "avx2", 2);
        manifest.loss_contract = Some(LossContract::new(20.0, 1.0, 0.05));
        let json = serde_json::to_value(&manifest).unwrap();
        assert_eq!(json["program"], "limbeck");
        assert_eq!(json["loss_contract"]["t_squared"], true);
        assert_eq!(json["loss_contract"]["temperature"], 20.0);
        let limit = serde_json::to_value(LossContract::new(f64::INFINITY, 1.0, 0.0)).unwrap();
        assert_eq!(limit["temperature"], "inf");
        assert!(json["cores"].as_u64().unwrap() >= 1);
        assert!(!json["cpu"].as_str().unwrap().is_empty());
        assert!(json.get("config").is_none());
    }
}
