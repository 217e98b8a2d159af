//! `limbeck check`: whether another implementation's loss and gradient are right.

use super::session::Session;
use clap::Args;
use limbeck::tools::check::{self, CheckCase, Verdict};
use limbeck::{Error, Result};
use std::path::PathBuf;

#[derive(Args)]
pub struct CheckArgs {
    /// A safetensors file: student_logits, teacher_logits and d_logits [batch, classes], labels
    /// [batch], loss [1]; metadata temperature, soft_weight, hard_weight, reduction
    #[arg(value_name = "CASE")]
    case: PathBuf,
}

pub fn run(session: &Session, args: &CheckArgs) -> Result<()> {
    let case = CheckCase::load(&args.case)?;
    let report = check::check(&case)
        .map_err(|fault| Error::Internal(format!("a case that was validated: {fault}")))?;
    session.result(&report)?;
    match report.verdict {
        Verdict::Agrees => Ok(()),
        Verdict::Variant | Verdict::Unknown => {
            Err(Error::Disagrees(format!("{} does not agree", args.case.display())))
        }
    }
}
