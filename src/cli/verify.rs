//! `limbeck verify`: this program against its own promises.

use super::global::PrecisionArgs;
use super::session::{COMMIT, Session};
use clap::{Args, Subcommand};
use limbeck::engine::config::Precision;
use limbeck::run::folder::RunFolder;
use limbeck::run::manifest::Manifest;
use limbeck::tools::verify::determinism::{self, Cell, Matrix};
use limbeck::tools::verify::{Faults, Place, THREADS, check, exp, gemm, softmax};
use limbeck::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Subcommand)]
pub enum VerifyCommand {
    /// The error of the matrix products against f64: layouts, epilogues, shapes, threads
    Gemm(GemmArgs),
    /// The error of e^x against f64
    Exp(Size),
    /// The errors of softmax and log-softmax against f64
    Softmax(Size),
    /// Whether `limbeck check` can be fooled: random losses, right ones and wrong ones
    Check(Size),
    /// The hash of a trained net's weights: one for every way of computing them
    Determinism(DeterminismArgs),
}

#[derive(Args)]
pub struct Size {
    /// The published size, some minutes: a million products, every f32, a million values for each
    /// row of the table, or a million losses. Without it some seconds
    #[arg(long)]
    full: bool,
}

#[derive(Args)]
pub struct GemmArgs {
    #[command(flatten)]
    size: Size,
    #[command(flatten)]
    precision: PrecisionArgs,
}

#[derive(Args)]
pub struct DeterminismArgs {
    #[command(flatten)]
    precision: PrecisionArgs,
    /// Ten repeats of each cell in place of two
    #[arg(long)]
    full: bool,
    /// Another build of limbeck, target/debug/limbeck say, whose cells join the matrix
    #[arg(long, value_name = "PROGRAM")]
    also: Vec<PathBuf>,
}

impl VerifyCommand {
    /// What the products that it verifies are computed in.
    fn precision(&self) -> Precision {
        match self {
            VerifyCommand::Gemm(GemmArgs { precision, .. })
            | VerifyCommand::Determinism(DeterminismArgs { precision, .. }) => precision.precision,
            VerifyCommand::Exp(_) | VerifyCommand::Softmax(_) | VerifyCommand::Check(_) => {
                Precision::F32
            }
        }
    }
}

pub fn run(session: &Session, command: &VerifyCommand) -> Result<()> {
    Place::here().check_required()?;
    // Before minutes of work: a folder that cannot be made ends the run here.
    let folder = session.out.as_deref().map(RunFolder::create).transpose()?;
    if let Some(folder) = &folder {
        let (isas, threads) = (Place::here().isas.join(", "), THREADS[THREADS.len() - 1]);
        let commit = COMMIT.map(str::to_string);
        let manifest = Manifest {
            precision: command.precision(),
            ..Manifest::new(session.command(), commit, &isas, threads)
        };
        folder.write_json("manifest.json", &manifest)?;
    }
    let folder = folder.as_ref();
    match command {
        VerifyCommand::Gemm(GemmArgs { size: Size { full }, precision }) => {
            let cases = if *full { 1_000_000 } else { 20_000 };
            let found = gemm::verify(cases, precision.precision)?;
            finish(session, folder, &found, &found.faults)
        }
        VerifyCommand::Exp(Size { full }) => {
            let found = exp::verify(if *full { 1 } else { 997 });
            finish(session, folder, &found, &found.faults)
        }
        VerifyCommand::Softmax(Size { full }) => {
            let found = softmax::verify(if *full { 1 << 20 } else { 1 << 13 })?;
            finish(session, folder, &found, &found.faults)
        }
        VerifyCommand::Check(Size { full }) => {
            let found = check::verify(if *full { 1_000_000 } else { 10_000 });
            finish(session, folder, &found, &found.faults)
        }
        VerifyCommand::Determinism(DeterminismArgs { precision, full, also }) => {
            let precision = precision.precision;
            // First those that may not be there.
            let of = |program: &PathBuf| cells_of(program, *full, precision);
            let others: Vec<_> = also.iter().map(of).collect::<Result<_>>()?;
            let own = determinism::verify(if *full { 10 } else { 2 }, precision)?;
            let matrix = others.into_iter().fold(own, Matrix::merge);
            finish(session, folder, &matrix, &matrix.faults)
        }
    }
}

/// The cells that another build of this program finds.
fn cells_of(program: &Path, full: bool, precision: Precision) -> Result<Vec<Cell>> {
    #[derive(Deserialize)]
    struct Other {
        cells: Vec<Cell>,
    }
    let mut command = Command::new(program);
    command.args(["verify", "determinism", "--json"]).args(full.then_some("--full"));
    // Builds from before there was a choice have f32 alone.
    if precision != Precision::F32 {
        command.args(["--precision", precision.name()]);
    }
    let output = command.output().map_err(Error::io("run", program))?;
    // With 70 it has found deviations, which are then in its cells.
    serde_json::from_slice(&output.stdout).map(|other: Other| other.cells).map_err(|error| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        Error::Data {
            path: program.to_path_buf(),
            what: "output of `verify determinism --json`".into(),
            found: format!("{error} ({}; {})", output.status, stderr.trim()),
            expected: "the JSON of another build of limbeck".into(),
        }
    })
}

/// Prints the result, keeps it where asked, and says whether all is well.
fn finish<T: Serialize + Display>(
    session: &Session,
    folder: Option<&RunFolder>,
    result: &T,
    faults: &Faults,
) -> Result<()> {
    if let Some(folder) = folder {
        folder.write_json("summary.json", result)?;
    }
    session.result(result)?;
    faults.verdict()
}
