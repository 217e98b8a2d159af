//! What the commands do with pages: read a run, write a page, end a run with its report.

use crate::session::Session;
use limbeck::Result;
use limbeck::files::shown::ShownPath;
use limbeck::files::write::atomic_write;
use limbeck::pages::contents::RunContents;
use limbeck::pages::gallery::{self, Entry};
use limbeck::pages::{demo, report};
use limbeck::run::folder::default_out;
use limbeck::run::manifest::shell_line;
use limbeck_datasets::Dataset;
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::slice;

/// What a page begins with.
const PAGE: &[u8] = b"<!doctype html";

/// Reads the run in `root`; its models are those of `seed`, or of its first seed.
///
/// # Errors
/// Those of [`RunContents::read`].
pub fn read_run(session: &Session, root: &Path, seed: Option<u64>) -> Result<RunContents> {
    RunContents::read(&session.context, root, session.data.as_deref(), seed, &[])
}

/// Writes a page and prints where: to `--out`, a file or a folder, else to `name` in the folder
/// `run`.
///
/// # Errors
/// [`limbeck::Error::Io`].
pub fn write_page(session: &Session, run: &Path, name: &str, html: &str) -> Result<()> {
    let page = match &session.out {
        None => run.join(name),
        Some(out) if out.is_dir() => out.join(name),
        Some(out) => out.clone(),
    };
    let records = ["config.toml", "manifest.json", "metrics.jsonl", "summary.json"];
    let records = records.map(|name| run.join(name));
    session.expect_no_input(&page, records.iter().map(|path| &**path))?;
    session.expect_replaceable(&page, PAGE, "page")?;
    atomic_write(&page, html.as_bytes())?;
    session.result(&Page { page: page.into(), bytes: html.len() })
}

/// Writes the page of several runs, which links to their own, and prints where: to `--out`, a file or a
/// folder, else to a new folder under `runs`.
///
/// # Errors
/// [`limbeck::Error::Io`].
pub fn write_gallery(session: &Session, runs: &[RunContents]) -> Result<()> {
    let page = match &session.out {
        Some(out) if !out.is_dir() => out.clone(),
        Some(folder) => folder.join("index.html"),
        None => default_out("report")?.join("index.html"),
    };
    let from = page.parent().unwrap_or(Path::new(""));
    let entries: Vec<Entry> = runs
        .iter()
        .map(|run| Entry {
            run,
            name: run.root.display().to_string(),
            link: link(from, &run.root.join("report.html")),
        })
        .collect();
    let inputs: Vec<PathBuf> = runs.iter().map(|run| run.root.join("report.html")).collect();
    session.expect_no_input(&page, inputs.iter().map(PathBuf::as_path))?;
    session.expect_replaceable(&page, PAGE, "page")?;
    let html = gallery::page(&format!("{} runs", runs.len()), &entries);
    atomic_write(&page, html.as_bytes())?;
    session.result(&Page { page: page.into(), bytes: html.len() })
}

/// The address of a page from another one's folder; none of a page that is not there.
fn link(from: &Path, to: &Path) -> Option<String> {
    let from = if from.as_os_str().is_empty() { Path::new(".") } else { from };
    let (from, to) = (from.canonicalize().ok()?, to.canonicalize().ok()?);
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(common).map(|_| "..".to_string());
    let down =
        to.components().skip(common).map(|part| part.as_os_str().to_string_lossy().into_owned());
    let path: Vec<String> = up.chain(down).collect();
    // What ends or changes a path in an address.
    let path = path.join("/").replace('%', "%25").replace('#', "%23").replace('?', "%3F");
    Some(path.replace(' ', "%20"))
}

/// Writes a report into each of the finished `runs`, whose data sets are `loaded`, and notes the
/// command that a user may want next.
///
/// # Errors
/// Those of [`RunContents::read`] and [`report::page`]; [`limbeck::Error::Io`].
pub fn write_reports(session: &Session, runs: &[PathBuf], loaded: &[Rc<Dataset>]) -> Result<()> {
    let mut next = String::new();
    for root in runs {
        let data = session.data.as_deref();
        let run = RunContents::read(&session.context, root, data, None, loaded)?;
        let path = root.join("report.html");
        atomic_write(&path, report::page(&run)?.as_bytes())?;
        session.note(&format!("report: {}", path.display()));
        if demo::fits(&run) && next.is_empty() {
            next = command("demo", slice::from_ref(root));
        }
    }
    if runs.len() > 1 {
        next = command("report", runs);
    }
    if !next.is_empty() {
        session.note(&format!("next: {next}"));
    }
    Ok(())
}

/// The command line of `name` for these runs.
fn command(name: &str, runs: &[PathBuf]) -> String {
    let mut words = vec!["limbeck".to_string(), name.to_string()];
    words.extend(runs.iter().map(|run| run.display().to_string()));
    shell_line(&words)
}

/// A page that was written.
#[derive(Serialize)]
struct Page {
    page: ShownPath,
    bytes: usize,
}

impl Display for Page {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({:.1} MB)", self.page.display(), self.bytes as f64 / 1e6)
    }
}
