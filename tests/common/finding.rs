//! What the tests that try to make the program fail have found, for `examples/fault_injection.rs`.

use limbeck::files::write::atomic_write;
use limbeck::run::manifest::{cpu_model, utc};
use serde::Serialize;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

/// What was tried, how often, and what came of it: one file of `results/fault-injection`.
#[derive(Serialize)]
pub struct Finding {
    /// What was done to the program.
    pub what: String,
    /// How often.
    pub count: u64,
    /// How often work was lost, damage went unnoticed, or the program panicked.
    pub failures: u64,
    /// What else was measured, in words and figures.
    pub figure: String,
    /// The command that repeats it.
    pub command: String,
    /// When, UTC.
    pub date: String,
    /// Processor, its hardware threads, operating system.
    pub machine: String,
}

impl Finding {
    /// A finding of this moment and machine.
    pub fn new(what: &str, count: u64, failures: u64, figure: String, command: &str) -> Finding {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        Finding {
            what: what.into(),
            count,
            failures,
            figure,
            command: command.into(),
            date: utc(SystemTime::now()),
            machine: format!("{}, {threads} threads, {}", cpu_model(), std::env::consts::OS),
        }
    }

    /// Writes the finding to `name`.json in the folder `LIMBECK_FINDINGS`, if that is set.
    pub fn report(&self, name: &str) {
        let Finding { count, failures, figure, .. } = self;
        eprintln!("{name}: {count} tried, {failures} failed; {figure}");
        let Some(folder) = std::env::var_os("LIMBECK_FINDINGS").map(PathBuf::from) else { return };
        let mut json = serde_json::to_vec_pretty(self).unwrap();
        json.push(b'\n');
        fs::create_dir_all(&folder).unwrap();
        atomic_write(&folder.join(format!("{name}.json")), &json).unwrap();
    }
}
