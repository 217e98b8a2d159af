//! `limbeck report`: runs as one page for a browser.

use crate::pages::{read_run, write_page};
use crate::session::Session;
use clap::Args;
use limbeck::Result;
use limbeck::pages::contents::RunContents;
use limbeck::pages::report;
use std::path::PathBuf;

#[derive(Args)]
pub struct ReportArgs {
    /// Run folders; several are compared on one page
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
}

pub fn run(session: &Session, args: &ReportArgs) -> Result<()> {
    let runs = args.runs.iter().map(|run| read_run(session, run, None));
    let runs: Vec<RunContents> = runs.collect::<Result<_>>()?;
    write_page(session, &args.runs[0], "report.html", &report::page(&runs)?)
}
