//! `limbeck report` and `limbeck demo`: runs as pages for a browser.

use super::session::Session;
use clap::Args;
use limbeck::Result;
use limbeck::files::write::atomic_write;
use limbeck::pages::material::Material;
use limbeck::pages::{demo, report as page};
use limbeck::run::manifest::shell_line;
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::slice::from_ref;

#[derive(Args)]
pub struct ReportArgs {
    /// Run folders; several are compared on one page
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
}

#[derive(Args)]
pub struct DemoArgs {
    /// Run folder with models of 28 × 28 images
    #[arg(value_name = "RUN")]
    run: PathBuf,
}

pub fn report(session: &Session, args: &ReportArgs) -> Result<()> {
    let runs: Vec<Material> =
        args.runs.iter().map(|run| material(session, run, None)).collect::<Result<_>>()?;
    Page::write(session, &args.runs[0], "report.html", &page::page(&runs)?)
}

pub fn demo(session: &Session, args: &DemoArgs) -> Result<()> {
    let run = material(session, &args.run, session.seed)?;
    Page::write(session, &args.run, "demo.html", &demo::page(&session.context, &run)?)
}

/// At the end of `runs`, their results printed: a report in each, and what to do next.
pub fn finish(session: &Session, runs: &[PathBuf]) -> Result<()> {
    let mut next = String::new();
    for root in runs {
        let run = material(session, root, None)?;
        let report = root.join("report.html");
        atomic_write(&report, page::page(from_ref(&run))?.as_bytes())?;
        session.note(&format!("report: {}", report.display()));
        if demo::fits(&run) && next.is_empty() {
            next = command("demo", from_ref(root));
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

fn material(session: &Session, root: &Path, seed: Option<u64>) -> Result<Material> {
    Material::read(&session.context, root, session.data.as_deref(), seed)
}

fn command(name: &str, runs: &[PathBuf]) -> String {
    let mut words = vec!["limbeck".to_string(), name.to_string()];
    words.extend(runs.iter().map(|run| run.display().to_string()));
    shell_line(&words)
}

/// A page that was written.
#[derive(Serialize)]
struct Page {
    page: PathBuf,
    bytes: usize,
}

impl Page {
    /// To --out, a file or a folder, or else into the run.
    fn write(session: &Session, run: &Path, name: &str, html: &str) -> Result<()> {
        let page = match &session.out {
            None => run.join(name),
            Some(out) if out.is_dir() => out.join(name),
            Some(out) => out.clone(),
        };
        atomic_write(&page, html.as_bytes())?;
        session.result(&Page { page, bytes: html.len() })
    }
}

impl Display for Page {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({:.1} MB)", self.page.display(), self.bytes as f64 / 1e6)
    }
}
