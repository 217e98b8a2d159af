//! The manifest of a run: what is needed to repeat the run and to judge its figures.

use crate::engine::config::{Config, Precision};
use crate::engine::loss::LossSpec;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{collections::BTreeMap, fs};

/// `manifest.json`: what is needed to repeat the run and to judge its figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    /// `limbeck`.
    pub program: &'static str,
    /// The experiment whose run it is; absent for a single model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    /// Version of this crate.
    pub version: &'static str,
    /// Commit of the source; absent where the program was not built from a checkout.
    pub git_commit: Option<String>,
    /// Start of the run, UTC, ISO 8601.
    pub started: String,
    /// The processor, as [`cpu_model`] names it.
    pub cpu: String,
    /// Hardware threads available to the process.
    pub cores: usize,
    /// Instruction set that the kernels use.
    pub isa: String,
    /// Threads that the kernels use.
    pub threads: usize,
    /// What the trainings' matrix products were computed in.
    pub precision: Precision,
    /// The kernels' peak when the run began, in 10⁹ floating-point operations a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_gflops: Option<f64>,
    /// The seeds of the models.
    pub seeds: Vec<u64>,
    /// SHA-256 of each data file and teacher: by the configuration's key, or its published name.
    pub data: BTreeMap<String, String>,
    /// Where the files of the configuration's keys and the teacher models lay when the run began, by the
    /// names that they have in `data`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub paths: BTreeMap<String, String>,
    /// The distillation loss; absent for training on labels alone.
    pub loss_contract: Option<LossSpec>,
    /// The words of the command line that repeats the run.
    pub command: Vec<String>,
    /// The resolved configuration as TOML; absent for experiments of several configurations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}

impl Manifest {
    /// One of this program, machine and moment, without seeds, data, loss contract, configuration.
    pub fn new(
        command: Vec<String>,
        git_commit: Option<String>,
        isa: &str,
        threads: usize,
    ) -> Manifest {
        Manifest {
            program: "limbeck",
            experiment: None,
            version: env!("CARGO_PKG_VERSION"),
            git_commit,
            started: utc(SystemTime::now()),
            cpu: cpu_model(),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
            isa: isa.to_string(),
            threads,
            precision: Precision::F32,
            peak_gflops: None,
            seeds: Vec::new(),
            data: BTreeMap::new(),
            paths: BTreeMap::new(),
            loss_contract: None,
            command,
            config: None,
        }
    }
}

/// `config`, which is the run's that has this `manifest`, with the places where its files are now: where
/// it says; else in `data` by their names; else where they lay when the run began. A folder that was
/// `asked` for goes first.
pub fn located(
    config: &Config,
    manifest: &serde_json::Value,
    data: Option<&Path>,
    asked: bool,
) -> Config {
    let mut config = config.clone();
    for (key, path) in config.paths_mut() {
        *path = place(path, manifest["paths"][key].as_str(), data, asked);
    }
    config
}

/// The teacher models with which the run that has this `manifest` began, where they are now: where they
/// lay then, or in `data` by their names. Versions that did not write it down know none.
pub fn teachers(manifest: &serde_json::Value, data: Option<&Path>, asked: bool) -> Vec<PathBuf> {
    let then = |i| manifest["paths"][teacher_key(i)].as_str().map(Path::new);
    (0..).map_while(then).map(|then| place(then, None, data, asked)).collect()
}

/// The name of a teacher model in [`Manifest::data`] and [`Manifest::paths`].
pub fn teacher_key(i: usize) -> String {
    format!("teacher {i}")
}

/// The first place where there is a file: `kept`, `data` with its name, or where it was `then`. With
/// `asked` the second one goes first. `kept` where there is none.
fn place(kept: &Path, then: Option<&str>, data: Option<&Path>, asked: bool) -> PathBuf {
    let by_name = data.zip(kept.file_name()).map(|(folder, name)| folder.join(name));
    let mut places = [Some(kept.to_path_buf()), by_name, then.map(PathBuf::from)];
    if asked {
        places.swap(0, 1);
    }
    let there = places.into_iter().flatten().find(|place| place.exists());
    there.unwrap_or_else(|| kept.to_path_buf())
}

/// What of `sources`, SHA-256 by name, differs from the `data` of a manifest: name, digest there and
/// digest here. Earlier versions named the files of a configuration by their paths; such a file is
/// known by its content.
pub fn differing(
    data: &serde_json::Value,
    sources: &BTreeMap<String, String>,
) -> Vec<(String, String, String)> {
    let none = || "none".to_string();
    let of = |name: &str| data[name].as_str().map(str::to_string);
    let by_path = |digest: &str| {
        let files = data.as_object().into_iter().flatten();
        files.into_iter().any(|(name, found)| found == digest && name.contains(['/', '\\']))
    };
    let changed = sources
        .iter()
        .filter(|(name, digest)| match of(name) {
            Some(found) => found != **digest,
            None => !by_path(digest),
        })
        .map(|(name, digest)| (name.clone(), of(name).unwrap_or_else(none), digest.clone()));
    let gone = data.as_object().into_iter().flatten().filter_map(|(name, found)| {
        let found = found.as_str().unwrap_or_default();
        let is_here = sources.contains_key(name) || sources.values().any(|digest| digest == found);
        (!is_here).then(|| (name.clone(), found.to_string(), none()))
    });
    changed.chain(gone).collect()
}

/// The processor's model name, as `/proc/cpuinfo` has it; where it has none, the architecture.
pub fn cpu_model() -> String {
    let model = cpu_entry("model name").filter(|name| !name.is_empty());
    model.unwrap_or_else(|| std::env::consts::ARCH.to_string())
}

/// What `/proc/cpuinfo` says of the first processor's `key`, where there is such a file and key.
pub fn cpu_entry(key: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let entries = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = entries.filter(|(name, _)| name.trim() == key).map(|(_, value)| value);
    values.next().map(|value| value.trim().to_string())
}

/// `time` in UTC as ISO 8601, `2015-03-09T23:59:59Z`; before 1970, the start of 1970.
pub fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Days are counted from 1 March of year 0, so that a leap day is the last of its year. An era of
    // 400 years has 146,097 days. (153·m + 2)/5 days come before month m, counted from March as 0.
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

/// The `command` of a manifest as a line for a shell.
pub fn command_line(words: &serde_json::Value) -> String {
    let words = words.as_array().into_iter().flatten();
    let words: Vec<String> = words.filter_map(|word| Some(word.as_str()?.to_string())).collect();
    shell_line(&words)
}

/// A command as a line for a shell: words that it would split or change are quoted.
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
