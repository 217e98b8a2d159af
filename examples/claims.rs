//! For maintainers: the page of the paper's claims, made from the summaries of run folders.
//!
//! `cargo run --example claims` checks that `results/README.md` is the page of the summaries beside
//! it; `cargo run --example claims results > results/README.md` makes it anew.

use limbeck::files::read::read_json;
use limbeck::run::manifest::shell_line;
use limbeck::run::summary::{Summary, Table, Verdict};
use limbeck::{Error, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<()> {
    if let Some(folder) = std::env::args_os().nth(1) {
        print!("{}", page(Path::new(&folder))?);
        return Ok(());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let path = root.join("README.md");
    let committed = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let is_made = page(&root)? == committed;
    assert!(
        is_made,
        "results/README.md is not the page of its summaries: cargo run --example claims results > \
         results/README.md"
    );
    println!("results/README.md is the page of its summaries");
    Ok(())
}

/// The Markdown page of all run folders below `root`: each claim with our figure and what
/// became of it, then the tables and figures. Folders without claims are left out.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be read; [`Error::Data`] for a summary that is damaged.
pub fn page(root: &Path) -> Result<String> {
    let summaries = summaries(root, root)?;
    let mut page = String::from(
        "# The paper's claims, and what we found\n\nMade by `cargo run --example claims` from the \
         summaries in this folder; not edited by hand.\n\n| claim of the paper | ours | verdict | from |\n\
         |---|---|---|---|\n",
    );
    for (folder, summary) in &summaries {
        for claim in &summary.claims {
            let _ = writeln!(
                page,
                "| {} | {} | **{}** | [{folder}]({folder}) |",
                claim.paper,
                claim.ours,
                summary.verdict(claim)
            );
        }
    }
    for (folder, summary) in &summaries {
        let _ = writeln!(page, "\n## {folder}");
        if let Some(command) = command(&root.join(folder))? {
            let _ = writeln!(page, "\n`{command}`");
        }
        if let Some(caveat) = summary.caveat() {
            let _ = writeln!(page, "\n{caveat}");
        }
        if root.join(folder).join("README.md").is_file() {
            let _ = writeln!(page, "\n[What else is to be said of it]({folder}/README.md).");
        }
        for table in &summary.tables {
            let _ = write!(page, "\n{}", markdown(table));
        }
        for figure in figures(&root.join(folder))? {
            let _ = writeln!(page, "\n![{figure}]({folder}/{figure})");
        }
    }
    Ok(page)
}

/// Of what a summary is: of an experiment, or of something else such as `verify`. Nothing of it is
/// kept in memory.
#[derive(Deserialize)]
struct Kind {
    experiment: Option<IgnoredAny>,
}

/// The summaries with claims of the run folders below `folder`, at any depth: an experiment of
/// several parts has a run folder for each. What lies in the folder of a run belongs to it. By path
/// from `root`.
fn summaries(root: &Path, folder: &Path) -> Result<Vec<(String, Summary)>> {
    let mut found = Vec::new();
    for folder in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        let path = folder.join("summary.json");
        if !path.is_file() {
            found.append(&mut summaries(root, &folder)?);
        } else if read_json::<Kind>(&path, "summary")?.experiment.is_some() {
            let summary: Summary = read_json(&path, "summary")?;
            // Those of a preset that is too small for the paper's claims are none.
            if summary.claims.iter().any(|claim| claim.verdict != Verdict::NotJudged) {
                let below = folder.strip_prefix(root).unwrap_or(&folder);
                found.push((below.display().to_string(), summary));
            }
        }
    }
    Ok(found)
}

/// What a manifest says of the commands that the run was made with, the last of them last.
#[derive(Deserialize)]
struct Commands {
    command: Vec<String>,
    #[serde(default)]
    continued: Vec<Continuation>,
}

#[derive(Deserialize)]
struct Continuation {
    command: Vec<String>,
}

/// Options that leave the figures as they are, and whether a value follows.
const INCIDENTAL: [(&str, bool); 9] = [
    ("--data", true),
    ("--isa", true),
    ("--json", false),
    ("--member", true),
    ("--out", true),
    ("--quiet", false),
    ("--threads", true),
    ("--tui", false),
    ("--worker", true),
];

/// The command that makes the run again: the last one of its manifest, which may ask for more seeds
/// than the first. Nothing where there is no manifest.
fn command(folder: &Path) -> Result<Option<String>> {
    let path = folder.join("manifest.json");
    if !path.is_file() {
        return Ok(None);
    }
    let Commands { command, continued } = read_json(&path, "manifest")?;
    let last = continued.into_iter().next_back().map_or(command, |run| run.command);
    let (mut words, mut kept) = (last.into_iter(), Vec::new());
    while let Some(word) = words.next() {
        let (name, value) = word.split_once('=').map_or((&*word, None), |(n, v)| (n, Some(v)));
        match INCIDENTAL.iter().find(|(option, _)| *option == name) {
            Some(&(_, has_value)) if has_value && value.is_none() => drop(words.next()),
            Some(_) => {}
            None => kept.push(word),
        }
    }
    Ok(Some(shell_line(&kept)))
}

/// What a folder holds, by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>()
    });
    let mut paths = listed.map_err(Error::io("list", folder))?;
    paths.sort();
    Ok(paths)
}

/// The names of a folder's SVG files.
fn figures(folder: &Path) -> Result<Vec<String>> {
    let is_svg = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "svg");
    let name = |path: PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
    Ok(entries(folder)?.into_iter().filter(is_svg).filter_map(name).collect())
}

/// A table in Markdown, its title above it.
fn markdown(table: &Table) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = format!("{}\n\n{}", table.title, line(&table.columns));
    text += &format!("|{}\n", "---|".repeat(table.columns.len()));
    text.extend(table.rows.iter().map(|cells| line(cells)));
    for note in &table.notes {
        text += &format!("\n{note}\n");
    }
    text
}
