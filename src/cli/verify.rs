//! `limbeck verify`: this program against its own promises.

use super::session::{COMMIT, Session};
use clap::{Args, Subcommand};
use limbeck::run::folder::RunFolder;
use limbeck::run::manifest::Manifest;
use limbeck::tools::verify::determinism::{self, Cell, Matrix};
use limbeck::tools::verify::exp::{self, Exp};
use limbeck::tools::verify::gemm::{self, Gemm, Worst};
use limbeck::tools::verify::softmax::{self, Softmax};
use limbeck::tools::verify::{Faults, Place, THREADS};
use limbeck::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Subcommand)]
pub enum VerifyCommand {
    /// The error of the matrix products against f64: layouts, epilogues, shapes, threads
    Gemm(Size),
    /// The error of e^x against f64
    Exp(Size),
    /// The errors of softmax and log-softmax against f64
    Softmax(Size),
    /// The hash of a trained net's weights: one for every way of computing them
    Determinism(DeterminismArgs),
}

#[derive(Args)]
pub struct Size {
    /// The published size, some minutes: a million products, every f32, or a million values for
    /// each row of the table. Without it some seconds
    #[arg(long)]
    full: bool,
}

#[derive(Args)]
pub struct DeterminismArgs {
    /// Ten repeats of each cell in place of two
    #[arg(long)]
    full: bool,
    /// Another build of limbeck, target/debug/limbeck say, whose cells join the matrix
    #[arg(long, value_name = "PROGRAM")]
    also: Vec<PathBuf>,
}

pub fn run(session: &Session, command: &VerifyCommand) -> Result<()> {
    // Before minutes of work: a folder that cannot be made ends the run here.
    let folder = session.out.as_deref().map(RunFolder::create).transpose()?;
    if let Some(folder) = &folder {
        let (isas, threads) = (Place::here().isas.join(", "), THREADS[THREADS.len() - 1]);
        let commit = COMMIT.map(str::to_string);
        let manifest = Manifest::new(session.command(), commit, &isas, threads);
        folder.write_json("manifest.json", &manifest)?;
    }
    let folder = folder.as_ref();
    match command {
        VerifyCommand::Gemm(Size { full }) => {
            finish(session, folder, gemm::verify(if *full { 1_000_000 } else { 20_000 })?)
        }
        VerifyCommand::Exp(Size { full }) => {
            finish(session, folder, exp::verify(if *full { 1 } else { 997 }))
        }
        VerifyCommand::Softmax(Size { full }) => {
            finish(session, folder, softmax::verify(if *full { 1 << 20 } else { 1 << 13 })?)
        }
        VerifyCommand::Determinism(DeterminismArgs { full, also }) => {
            // First those that may not be there.
            let others: Vec<_> =
                also.iter().map(|program| cells_of(program, *full)).collect::<Result<_>>()?;
            let own = determinism::verify(if *full { 10 } else { 2 })?;
            finish(session, folder, others.into_iter().fold(own, Matrix::merge))
        }
    }
}

/// The cells that another build of this program finds.
fn cells_of(program: &Path, full: bool) -> Result<Vec<Cell>> {
    #[derive(Deserialize)]
    struct Other {
        cells: Vec<Cell>,
    }
    let mut command = Command::new(program);
    command.args(["verify", "determinism", "--json"]).args(full.then_some("--full"));
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
fn finish<T: Verified>(session: &Session, folder: Option<&RunFolder>, result: T) -> Result<()>
where
    Report<T>: Display,
{
    let report = Report(result);
    if let Some(folder) = folder {
        folder.write_json("summary.json", &report)?;
    }
    session.result(&report)?;
    report.0.faults().verdict()
}

/// What every result of a verification has.
trait Verified: Serialize {
    fn faults(&self) -> &Faults;
}

macro_rules! verified {
    ($($result:ty)+) => {$(
        impl Verified for $result {
            fn faults(&self) -> &Faults {
                &self.faults
            }
        }
    )+};
}
verified! { Gemm Exp Softmax Matrix }

/// A result to be printed.
#[derive(Serialize)]
#[serde(transparent)]
struct Report<T>(T);

fn place(f: &mut Formatter<'_>, place: &Place) -> fmt::Result {
    write!(f, "{}, {}", place.cpu, place.isas.join(", "))?;
    if !place.missing_isas.is_empty() {
        write!(f, "; not here: {}", place.missing_isas.join(", "))?;
    }
    writeln!(f)
}

impl Display for Report<Gemm> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = &self.0;
        place(f, &report.place)?;
        writeln!(
            f,
            "{} cases ({} shapes, threads {:?}), and {} of integers; \
             errors in ε·S, and their share of the bound",
            report.cases, report.shapes, report.threads, report.exact_cases
        )?;
        writeln!(f, "{:<30} {:>8}  {:>16}  {:>16}", "", "cases", "signed", "positive")?;
        let worst = |worst: &Worst| {
            format!("{:>7.2}  {:>5.1} %", worst.error, 100.0 * worst.share_of_bound)
        };
        for row in report.products.iter().chain(&report.depths) {
            let (signed, positive) = (worst(&row.signed), worst(&row.positive));
            writeln!(f, "{:<30} {:>8}  {signed:>16}  {positive:>16}", row.what, row.cases)?;
        }
        Ok(())
    }
}

impl Display for Report<Exp> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Exp { arguments, max_ulps, at, bound_ulps, .. } = &self.0;
        place(f, &self.0.place)?;
        writeln!(f, "e^x of {arguments} arguments: at most {max_ulps:.4} ULP, at x = {at:e}")?;
        writeln!(f, "bound {bound_ulps} ULP")
    }
}

impl Display for Report<Softmax> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        place(f, &self.0.place)?;
        writeln!(f, "largest errors, and the largest share of the bound")?;
        writeln!(
            f,
            "{:>7} {:>7} {:>9}  {:>14} {:>10} {:>8}  {:>14} {:>8}",
            "classes", "T", "examples", "q≥2⁻¹⁰, ULP", "q, ULP", "", "log q, ε·max", ""
        )?;
        for row in &self.0.errors {
            writeln!(
                f,
                "{:>7} {:>7} {:>9}  {:>14.2} {:>10.2} {:>6.1} %  {:>14.2} {:>6.1} %",
                row.classes,
                row.temperature,
                row.examples,
                row.softmax_likely_ulps,
                row.softmax_ulps,
                100.0 * row.softmax_share_of_bound,
                row.log_softmax,
                100.0 * row.log_softmax_share_of_bound
            )?;
        }
        Ok(())
    }
}

impl Display for Report<Matrix> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Matrix { place: here, repeats, sha256, distinct, cells, .. } = &self.0;
        place(f, here)?;
        writeln!(f, "{:<28} {:<9} {:>7} {:<8} SHA-256", "build", "ISA", "threads", "")?;
        for cell in cells {
            let fused = if cell.fused { "fused" } else { "unfused" };
            let Cell { build, isa, threads, .. } = cell;
            let mut hashes = cell.sha256.clone();
            hashes.dedup();
            writeln!(f, "{build:<28} {isa:<9} {threads:>7} {fused:<8} {}", hashes.join(" "))?;
        }
        writeln!(f, "{} cells, {repeats} repeats each: {distinct} hash(es), {sha256}", cells.len())
    }
}
