//! The page of the paper's claims, made from committed summaries.

use crate::files::error::Result;
use crate::files::read::read_json;
use crate::run::folder::entries;
use crate::run::manifest::shell_line;
use crate::run::summary::Summary;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The Markdown page of all run folders below `root`: each claim with our figure and what
/// became of it, then the tables and figures. Folders without claims are left out.
///
/// # Errors
/// [`crate::Error::Io`] if the folder cannot be read; [`crate::Error::Data`] for a summary that is
/// damaged.
pub fn page(root: &Path) -> Result<String> {
    let summaries = summaries(root, root)?;
    let mut page = String::from(
        "# The paper's claims, and what we found\n\nMade by `limbeck claims` from the summaries in \
         this folder; not edited by hand.\n\n| claim of the paper | ours | verdict | from |\n\
         |---|---|---|---|\n",
    );
    for (folder, summary) in &summaries {
        for claim in &summary.claims {
            let _ = writeln!(
                page,
                "| {} | {} | **{}** | [{folder}]({folder}) |",
                claim.paper, claim.ours, claim.verdict
            );
        }
    }
    for (folder, summary) in &summaries {
        let _ = writeln!(page, "\n## {folder}");
        if let Some(command) = command(&root.join(folder))? {
            let _ = writeln!(page, "\n`{command}`");
        }
        for table in &summary.tables {
            let _ = write!(page, "\n{}", table.to_markdown());
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
/// several parts has a run folder for each. By path from `root`.
fn summaries(root: &Path, folder: &Path) -> Result<Vec<(String, Summary)>> {
    let mut found = Vec::new();
    for folder in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        let path = folder.join("summary.json");
        if !path.is_file() {
            found.append(&mut summaries(root, &folder)?);
        } else if read_json::<Kind>(&path, "summary")?.experiment.is_some() {
            let summary: Summary = read_json(&path, "summary")?;
            if !summary.claims.is_empty() {
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
const INCIDENTAL: [(&str, bool); 8] = [
    ("--data", true),
    ("--isa", true),
    ("--json", false),
    ("--member", true),
    ("--out", true),
    ("--quiet", false),
    ("--threads", true),
    ("--tui", false),
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

fn figures(folder: &Path) -> Result<Vec<String>> {
    let svg = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "svg");
    Ok(entries(folder)?.iter().filter(|path| svg(path)).map(|path| name(path)).collect())
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
