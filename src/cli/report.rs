//! `limbeck report`: runs as one page for a browser.

use crate::pages::{read_run, write_gallery, write_page};
use crate::session::Session;
use clap::Args;
use limbeck::Result;
use limbeck::pages::contents::RunContents;
use limbeck::pages::report;
use std::path::PathBuf;

#[derive(Args)]
pub struct ReportArgs {
    /// Run folders; several are shown on a page of their own, under runs or at --out
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
}

pub fn run(session: &Session, args: &ReportArgs) -> Result<()> {
    let runs = args.runs.iter().map(|run| read_run(session, run, None));
    let runs: Vec<RunContents> = runs.collect::<Result<_>>()?;
    match &runs[..] {
        [run] => {
            if let Err(why) = &run.predictions {
                session.note(&format!(
                    "the page is without confusions, examples and calibration: {why}"
                ));
            }
            write_page(session, &run.root, "report.html", &report::page(run)?)
        }
        _ => write_gallery(session, &runs),
    }
}
