//! The page of what was tried to make the program lose work or believe a damaged file.

use crate::files::error::{Error, Result};
use crate::files::read::read_json;
use crate::files::write::atomic_write;
use crate::run::folder::entries;
use crate::run::manifest::{cpu_model, utc};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

/// What was tried, how often, and what came of it: one file of `results/trust`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

    /// Writes the finding to `name`.json in `folder`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, folder: &Path, name: &str) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::Internal(format!("{name} to JSON: {e}")))?;
        json.push(b'\n');
        fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
        atomic_write(&folder.join(format!("{name}.json")), &json)
    }
}

/// The Markdown page of all findings in `root`, by file name.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be read; [`Error::Data`] for a file that is no finding.
pub fn page(root: &Path) -> Result<String> {
    let mut page = String::from(
        "# What was tried to lose work\n\nMade by `limbeck trust` from the files in `trust/`; not \
         edited by hand. A failure is work lost, damage unnoticed, or a panic.\n\n\
         | tried | times | failures | found |\n|---|---|---|---|\n",
    );
    let mut sources = String::from("\n## Where the figures come from\n");
    for path in entries(root)? {
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let finding: Finding = read_json(&path, "finding")?;
        let Finding { what, count, failures, figure, command, date, machine } = finding;
        let _ = writeln!(page, "| {what} | {count} | {failures} | {figure} |");
        let _ = writeln!(sources, "\n{what}: {date}, {machine}\n\n    {command}");
    }
    Ok(page + &sources)
}
