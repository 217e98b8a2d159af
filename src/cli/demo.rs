//! `limbeck demo`: a run's models as a page on which one draws digits.

use crate::pages::{read_run, write_page};
use crate::session::Session;
use clap::Args;
use limbeck::Result;
use limbeck::pages::demo;
use std::path::PathBuf;

#[derive(Args)]
pub struct DemoArgs {
    /// Run folder with models of 28 × 28 images
    #[arg(value_name = "RUN")]
    run: PathBuf,
}

pub fn run(session: &Session, args: &DemoArgs) -> Result<()> {
    let run = read_run(session, &args.run, session.seed)?;
    write_page(session, &args.run, "demo.html", &demo::page(&session.context, &run)?)
}
