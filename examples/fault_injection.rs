//! For maintainers: the page of what was tried to make the program lose work or believe a damaged
//! file.
//!
//! `cargo run --example fault_injection` checks that `results/fault-injection.md` is the page of the
//! findings in `results/fault-injection/`; with that folder as its argument it prints the page anew.
//! The findings are written by the long forms of `tests/fault_injection.rs` and `tests/hostile/`, and
//! by `fuzz/run.sh`.

use limbeck::files::read::read_json;
use limbeck::{Error, Result};
use serde::Deserialize;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// What was tried, how often, and what came of it: one file of `results/fault-injection`.
#[derive(Deserialize)]
struct Finding {
    what: String,
    count: u64,
    failures: u64,
    figure: String,
    command: String,
    date: String,
    machine: String,
}

fn main() -> Result<()> {
    if let Some(folder) = std::env::args_os().nth(1) {
        print!("{}", page(Path::new(&folder))?);
        return Ok(());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let path = root.join("fault-injection.md");
    let committed = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let page = page(&root.join("fault-injection"))?;
    assert_eq!(page, committed, "results/fault-injection.md is not the page of its findings");
    println!("results/fault-injection.md is the page of its findings");
    Ok(())
}

/// The Markdown page of all findings in `root`, by file name.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be read; [`Error::Data`] for a file that is no finding.
pub fn page(root: &Path) -> Result<String> {
    let mut page = String::from(
        "# What was tried to lose work\n\nMade by `cargo run --example fault_injection` from the \
         files in `fault-injection/`; not edited by hand. A failure is work lost, damage unnoticed, or a panic.\n\n\
         | tried | times | failures | found |\n|---|---|---|---|\n",
    );
    let mut sources = String::from("\n## Where the figures come from\n");
    let listed = fs::read_dir(root).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>()
    });
    let mut paths = listed.map_err(Error::io("list", root))?;
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    paths.sort();
    for path in paths {
        let finding: Finding = read_json(&path, "finding")?;
        let Finding { what, count, failures, figure, command, date, machine } = finding;
        let _ = writeln!(page, "| {what} | {count} | {failures} | {figure} |");
        let _ = writeln!(sources, "\n{what}: {date}, {machine}\n\n    {command}");
    }
    Ok(page + &sources)
}
