//! For maintainers: the gallery of the repository's own experiments, and the picture of the README.
//!
//! `cargo run --example gallery` checks that both are those of the summaries beside them;
//! `cargo run --example gallery results` makes them anew.

use limbeck::files::read::read_json;
use limbeck::pages::contents::RunContents;
use limbeck::pages::figure::Figure;
use limbeck::pages::gallery::{self, Entry};
use limbeck::{Error, Result};
use limbeck_kernels::{Context, Isa};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The run of the README's picture.
const SHOWN: &str = "mnist-paper";
/// The experiments in the order in which the page shows them.
const ORDER: [&str; 8] = [
    "mnist",
    "omitted",
    "temperature",
    "logits",
    "variance",
    "speech",
    "regularizer",
    "specialists",
];

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let (page, picture) = made(&root)?;
    let files = [(root.join("gallery.html"), page), (root.join("gap.svg"), picture)];
    for (path, made) in files {
        if std::env::args_os().nth(1).is_some() {
            fs::write(&path, made).map_err(Error::io("write", &path))?;
        } else {
            let committed = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
            // Not as assert_eq, which would print both pages.
            let is_made = made == committed;
            assert!(
                is_made,
                "{} is not that of the summaries: cargo run --example gallery results",
                path.display()
            );
        }
    }
    println!("results/gallery.html and results/gap.svg are those of the summaries");
    Ok(())
}

/// The page of the experiments below `root`, and the figure of [`SHOWN`].
fn made(root: &Path) -> Result<(String, String)> {
    let context = Context::new(Isa::best(), 1).map_err(|e| Error::Usage(e.to_string()))?;
    let mut folders = Vec::new();
    find(root, &mut folders)?;
    let runs: Result<Vec<RunContents>> =
        folders.iter().map(|folder| RunContents::read(&context, folder, None, None, &[])).collect();
    let runs = runs?;
    let mut entries: Vec<Entry> = runs
        .iter()
        .map(|run| {
            let name = run.root.strip_prefix(root).unwrap_or(&run.root).display().to_string();
            // The page of the claims has a heading for whoever makes some.
            let link = match run.summary.claims.is_empty() {
                true => format!("{name}/manifest.json"),
                false => format!("README.md#{}", name.replace('/', "")),
            };
            Entry { run, name, link: Some(link) }
        })
        .collect();
    // The paper's preset before the others.
    entries.sort_by_key(|entry| {
        let summary = &entry.run.summary;
        let place = ORDER.iter().position(|name| *name == summary.experiment);
        (place, summary.preset != "paper", entry.name.clone())
    });
    let title = "What the experiments of Hinton, Vinyals & Dean 2015 gave here";
    let shown = entries.iter().find(|entry| entry.name == SHOWN);
    let picture = shown.and_then(|entry| Figure::of(entry.run)).map(|figure| figure.to_svg());
    Ok((gallery::page(title, &entries), picture.unwrap_or_default()))
}

/// A comparison of arithmetic, whose runs show nothing of the paper.
const LEFT_OUT: &str = "bf16";

/// The folders of experiments below `folder`. Runs of one configuration are none, and what lies in the
/// folder of a run belongs to it.
fn find(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let summary = folder.join("summary.json");
    if summary.is_file() {
        let summary: Value = read_json(&summary, "summary")?;
        if ORDER.iter().any(|name| summary["experiment"] == *name) {
            found.push(folder.to_path_buf());
        }
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        if path.is_dir() && !path.ends_with(LEFT_OUT) {
            find(&path, found)?;
        }
    }
    Ok(())
}
