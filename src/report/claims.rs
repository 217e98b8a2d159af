//! The page of the paper's claims, made from committed summaries.

use crate::error::Result;
use crate::input::read_json;
use crate::run::entries;
use crate::summary::Summary;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The Markdown page of all run folders right below `root`: each claim with our figure and what
/// became of it, then the tables and figures. Folders without claims are left out.
///
/// # Errors
/// [`crate::Error::Io`] if the folder cannot be read; [`crate::Error::Data`] for a summary that is
/// damaged.
pub fn page(root: &Path) -> Result<String> {
    let summaries = summaries(root)?;
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
        let seeds: std::collections::BTreeSet<u64> =
            summary.rows.iter().map(|row| row.seed).collect();
        let _ = writeln!(
            page,
            "\n## {folder}\n\n`limbeck reproduce {} --preset {} --seeds {}`",
            summary.experiment,
            summary.preset,
            seeds.len()
        );
        for table in &summary.tables {
            let _ = write!(page, "\n{}", table.to_markdown());
        }
        for figure in figures(&root.join(folder))? {
            let _ = writeln!(page, "\n![{figure}]({folder}/{figure})");
        }
    }
    Ok(page)
}

/// The summaries with claims, by folder.
fn summaries(root: &Path) -> Result<Vec<(String, Summary)>> {
    let mut summaries = Vec::new();
    for folder in entries(root)? {
        let path = folder.join("summary.json");
        if !path.is_file() {
            continue;
        }
        let summary: Summary = read_json(&path, "summary")?;
        if !summary.claims.is_empty() {
            summaries.push((name(&folder), summary));
        }
    }
    Ok(summaries)
}

fn figures(folder: &Path) -> Result<Vec<String>> {
    let svg = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "svg");
    Ok(entries(folder)?.iter().filter(|path| svg(path)).map(|path| name(path)).collect())
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
