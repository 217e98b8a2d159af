//! The command line: what can be asked, who answers, and how it ends.
//!
//! Results go to stdout, everything else to stderr. Each command is a file: its arguments and its
//! `run`.

mod bench;
mod check;
mod dashboard;
mod data;
mod eval;
mod export;
mod info;
mod pages;
mod progress;
mod reproduce;
mod session;
mod train;
mod verify;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand, value_parser};
use clap_complete::Shell;
use limbeck::engine::communicator::Communicator;
use limbeck::{Error, Result};
use limbeck_kernels::Isa;
use serde::Serialize;
use session::Session;
use std::fmt::{self, Display, Formatter};
use std::io::Write;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Exit code of a bug, as for [`limbeck::Error::Internal`].
const BUG: u8 = 70;

/// TOML, which records seeds, ends at 2⁶³ − 1; below that is room to count up from here.
const MAX_SEED: u64 = 1 << 62;

/// Knowledge distillation from the instruction set up: train, distil, evaluate
#[derive(Parser)]
#[command(name = "limbeck", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 what was verified is wrong, 2 usage, 65 bad data, 70 a bug of limbeck,
74 input or output failed, 75 interrupted and resumable, 76 diverged.
SIGINT, SIGTERM and SIGUSR1 let a run finish its step, write a checkpoint and name the command that
goes on; a second SIGINT ends it at once, to go on from the checkpoint before.";

/// Options of every command.
#[derive(Args)]
#[command(next_help_heading = "Options of every command")]
struct Global {
    /// Threads of the kernels; as many as the machine runs at once if absent
    #[arg(long, global = true, value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// Instruction set of the kernels
    #[arg(
        long,
        global = true,
        env = "LIMBECK_ISA",
        hide_env_values = true,
        default_value = "auto"
    )]
    #[arg(value_parser = isa_parser())]
    isa: Isa,

    /// Folder that holds the data sets: mnist/, an4/
    #[arg(long, global = true, env = "LIMBECK_DATA", hide_env_values = true, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Output folder of the run; a new one under runs/ if absent. Of a page, its file
    #[arg(long, global = true, value_name = "PATH")]
    out: Option<PathBuf>,

    /// Seed, in place of the configuration's or preset's
    #[arg(long, global = true, value_name = "N", value_parser = value_parser!(u64).range(..=MAX_SEED))]
    seed: Option<u64>,

    /// Print the result as one JSON object
    #[arg(long, global = true)]
    json: bool,

    /// Show no progress and no notes, only results, warnings and errors
    #[arg(long, global = true)]
    quiet: bool,

    /// Under mpirun: seconds that the other ranks may take to answer before the run ends
    #[cfg(feature = "mpi")]
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 120)]
    #[arg(value_parser = value_parser!(u64).range(1..=86_400))]
    peer_timeout: u64,

    /// Under mpirun: sum gradients in any order, which makes the bits depend on the number of ranks
    #[cfg(feature = "mpi")]
    #[arg(long, global = true)]
    fast_allreduce: bool,

    /// Show training as a dashboard with curves, where stderr is a terminal
    #[arg(long, global = true, conflicts_with = "quiet")]
    tui: bool,
}

/// The names for help and completions; the ISA's own parser for what this machine has.
fn isa_parser() -> impl TypedValueParser<Value = Isa> {
    PossibleValuesParser::new(["auto", "avx512", "avx2", "portable"])
        .try_map(|name| name.parse::<Isa>())
}

#[derive(Subcommand)]
enum Command {
    /// A table of the paper: trains its models and prints our figures beside the paper's
    Reproduce(reproduce::ReproduceArgs),
    /// Trains the model of a configuration
    Train(train::TrainArgs),
    /// Trains the model of a configuration on the soft targets of teachers
    Distill(train::DistillArgs),
    /// Errors, likelihood and calibration of models on test data
    Eval(eval::EvalArgs),
    /// Verifies another implementation's distillation loss or gradient, and names the mistake
    Check(check::CheckArgs),
    /// Figures of this machine, each beside its limit
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Runs as one page for a browser: results, curves, confusions, misclassified images
    ///
    /// Written to report.html in the first run's folder; --out names another file.
    Report(pages::ReportArgs),
    /// A run's models as a page on which one draws digits and watches their soft predictions
    ///
    /// Written to demo.html in the run's folder; --out names another file, --seed the models.
    Demo(pages::DemoArgs),
    /// A model as ONNX, or a run's epochs as event files for TensorBoard
    ///
    /// Models are safetensors as they are, with the tensors of PyTorch's Linear by name and order.
    Export(export::ExportArgs),
    /// This program against its own promises: errors within their bounds, one hash everywhere
    ///
    /// Each command tries every instruction set of this machine and several thread counts, whatever
    /// --isa and --threads say, and exits with 70 when a bound is broken or a bit differs. --out
    /// keeps the result with its manifest.
    #[command(subcommand)]
    Verify(verify::VerifyCommand),
    /// The data sets: which are there, and whether they are intact
    #[command(subcommand)]
    Data(data::DataCommand),
    /// This program and this machine
    Info,
    /// Completions for a shell, to stdout
    Completions {
        /// The shell
        shell: Shell,
    },
    /// The manual page in roff, to stdout
    Man,
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    panic::set_hook(Box::new(report_bug));
    panic::catch_unwind(AssertUnwindSafe(parse_and_run)).unwrap_or(ExitCode::from(BUG))
}

fn parse_and_run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Help and version end here too, with code 0. A closed stdout is no one's error.
            let _ = usage.print();
            return ExitCode::from(usage.exit_code() as u8);
        }
    };
    let mut communicator = match join(&cli.global) {
        Ok(communicator) => communicator,
        Err(error) => return failed(&error),
    };
    let stop = Arc::new(AtomicBool::new(false));
    match (run(cli, communicator.as_mut(), &stop), communicator) {
        (Ok(()), _) => ExitCode::SUCCESS,
        (Err(error), None) => failed(&error),
        (Err(error), Some(communicator)) => failed_in_a_job(&error, &communicator, &stop),
    }
}

fn failed(error: &Error) -> ExitCode {
    session::to_stderr(&format!("error: {error}"));
    ExitCode::from(error.exit_code())
}

/// As [`failed`] for a rank of several: what all of them know is told by rank 0, and what only this
/// one knows ends them all.
fn failed_in_a_job(error: &Error, communicator: &Communicator, stop: &AtomicBool) -> ExitCode {
    let together = matches!(error, Error::Interrupted { .. } | Error::Diverged { .. });
    match (communicator.rank(), together) {
        (0, true) => return failed(error),
        (_, true) => return ExitCode::SUCCESS,
        (0, false) => drop(failed(error)),
        (rank, false) => {
            // Where all have the same trouble, rank 0 says so, and the launcher ends the others.
            let start = Instant::now();
            while !stop.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(3) {
                thread::sleep(Duration::from_millis(50));
            }
            if !stop.load(Ordering::Relaxed) {
                session::to_stderr(&format!("error: rank {rank}: {error}"));
            }
        }
    }
    // To take leave of the others takes their answer, and they do not know: the launcher ends them.
    process::exit(i32::from(error.exit_code()))
}

/// The other ranks of the job that this process was started in, if any.
#[cfg(feature = "mpi")]
fn join(global: &Global) -> Result<Option<Communicator>> {
    let patience = Duration::from_secs(global.peer_timeout);
    limbeck::engine::communicator::mpi::join(patience, global.fast_allreduce)
}

/// # Errors
/// [`Error::Usage`] when there are others: each would do the whole work, in the same folder.
#[cfg(not(feature = "mpi"))]
fn join(_: &Global) -> Result<Option<Communicator>> {
    match limbeck::engine::communicator::place_in_the_job() {
        Some((_, ranks @ 2..)) => Err(Error::Usage(format!(
            "one of {ranks} ranks of an MPI job, but this program was built without MPI: build it \
             with --features mpi, or start one process"
        ))),
        _ => Ok(None),
    }
}

fn run(cli: Cli, communicator: Option<&mut Communicator>, stop: &Arc<AtomicBool>) -> Result<()> {
    let leads = communicator.as_ref().is_none_or(|communicator| communicator.rank() == 0);
    let session = Session::new(cli.global, leads, stop.clone())?;
    match cli.command {
        Command::Reproduce(args) => reproduce::run(&session, &args, communicator),
        Command::Train(args) => train::train(&session, &args, communicator),
        Command::Distill(args) => train::distill(&session, &args, communicator),
        Command::Eval(args) => eval::run(&session, &args),
        Command::Check(args) => check::run(&session, &args),
        Command::Bench(command) => bench::run(&session, &command, communicator),
        Command::Report(args) => pages::report(&session, &args),
        Command::Demo(args) => pages::demo(&session, &args),
        Command::Export(args) => export::run(&session, &args),
        Command::Verify(command) => verify::run(&session, &command),
        Command::Data(command) => data::run(&session, &command),
        Command::Info => info::run(&session),
        Command::Completions { shell } => session.result(&Text::new(&completions(shell))),
        Command::Man => session.result(&Text::new(&manual()?)),
    }
}

/// A result that is plain text.
#[derive(Serialize)]
struct Text {
    text: String,
}

impl Text {
    fn new(bytes: &[u8]) -> Text {
        Text { text: String::from_utf8_lossy(bytes).into_owned() }
    }
}

impl Display for Text {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "limbeck", &mut script);
    script
}

/// The manual: a page for the program, then one for each command.
fn manual() -> Result<Vec<u8>> {
    let mut page = Vec::new();
    let mut program = Cli::command();
    program.build();
    let mut commands = vec![program];
    while let Some(command) = commands.pop() {
        let subcommands = command.get_subcommands().filter(|c| c.get_name() != "help");
        commands.extend(subcommands.cloned().collect::<Vec<_>>().into_iter().rev());
        let rendered = clap_mangen::Man::new(command).render(&mut page);
        rendered.map_err(|e| limbeck::Error::Internal(format!("manual page: {e}")))?;
    }
    Ok(page)
}

fn report_bug(panic: &PanicHookInfo) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(|at| format!(" at {at}")).unwrap_or_default();
    // The message may not reach a closed stderr; the exit code still tells.
    let _ = writeln!(
        std::io::stderr(),
        "error: this is a bug in limbeck {}: {message}{place}\n\
         Please report it with the command that you ran and the output of `limbeck info`.",
        env!("CARGO_PKG_VERSION")
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn manual_and_completions_leave_nothing_out() {
        // roff escapes hyphens.
        let mut texts = vec![manual().unwrap()];
        texts.extend(Shell::value_variants().iter().map(|&shell| completions(shell)));
        let mut program = Cli::command();
        program.build();
        let mut words = Vec::new();
        let mut commands = vec![&program];
        while let Some(command) = commands.pop() {
            words.push(command.get_name().to_string());
            words
                .extend(command.get_arguments().filter_map(|arg| arg.get_long()).map(String::from));
            commands.extend(command.get_subcommands());
        }
        assert!(
            words.iter().any(|word| word == "gemm") && words.iter().any(|word| word == "quiet")
        );
        for text in texts {
            let text = String::from_utf8(text).unwrap().replace('\\', "");
            let missing: Vec<_> = words.iter().filter(|word| !text.contains(*word)).collect();
            assert!(missing.is_empty(), "{missing:?} not in {}", &text[..40]);
        }
    }
}
