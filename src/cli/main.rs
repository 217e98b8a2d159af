//! The command line: what can be asked, and who answers.
//!
//! Results go to stdout, everything else to stderr. Each command is a file with its arguments and
//! its `run`.

mod bench;
mod check;
mod data;
mod demo;
mod distill;
mod eval;
mod exit;
mod export;
mod global;
mod info;
mod init;
mod manual;
mod one_model;
mod pages;
mod predict;
mod progress;
mod report;
mod reproduce;
mod session;
mod train;
mod verify;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use global::GlobalArgs;
use limbeck::Result;
use limbeck::engine::communicator::Communicator;
use session::Session;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Knowledge distillation from the instruction set up: train, distil, evaluate
#[derive(Parser)]
#[command(name = "limbeck", version, after_help = exit::EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A table of the paper: trains its models and prints our figures beside the paper's
    #[command(after_help = "Example: limbeck reproduce mnist --preset quick --seeds 3")]
    Reproduce(reproduce::ReproduceArgs),
    /// A configuration for data of your own, which runs as it is
    ///
    /// Written to config.toml, or to the file that --out names; what exists is not overwritten.
    #[command(after_help = "Example: limbeck init iris.csv --out iris.toml")]
    Init(init::InitArgs),
    /// Trains the model of a configuration
    #[command(
        after_help = "Example: limbeck train own.toml --set training.epochs=40 --out runs/own"
    )]
    Train(train::TrainArgs),
    /// Trains the model of a configuration on the soft targets of teachers
    #[command(
        after_help = "Example: limbeck distill small.toml --teacher runs/large/models/model-0.safetensors"
    )]
    Distill(distill::DistillArgs),
    /// Errors, likelihood and calibration of models on test data
    #[command(after_help = "Example: limbeck eval runs/own")]
    Eval(eval::EvalArgs),
    /// What a model says of new rows: class and probability, as CSV
    ///
    /// Written to --out, or to stdout.
    #[command(
        after_help = "Example: limbeck predict runs/own/models/model-0.safetensors new.csv --out p.csv"
    )]
    Predict(predict::PredictArgs),
    /// Verifies another implementation's distillation loss or gradient, and names the mistake
    #[command(after_help = "Example: limbeck check case.safetensors")]
    Check(check::CheckArgs),
    /// Figures of this machine, each beside its limit
    #[command(
        subcommand,
        after_help = "Example: limbeck bench step --net 784-1200-1200-10 --batch 128"
    )]
    Bench(bench::BenchCommand),
    /// Runs as one page for a browser: results, curves, confusions, misclassified images
    ///
    /// Written to report.html in the run's folder, of several runs to a new folder under runs; --out names
    /// another place.
    #[command(after_help = "Example: limbeck report runs/own")]
    Report(report::ReportArgs),
    /// A run's models as a page on which one draws digits and watches their soft predictions
    ///
    /// Written to demo.html in the run's folder; --out names another file, --seed the models.
    #[command(after_help = "Example: limbeck demo runs/reproduce-mnist")]
    Demo(demo::DemoArgs),
    /// A model as ONNX, or a run's epochs as event files for TensorBoard
    ///
    /// Models are safetensors as they are, with the tensors of PyTorch's Linear by name and order.
    #[command(
        after_help = "Example: limbeck export runs/own/models/model-0.safetensors --onnx own.onnx"
    )]
    Export(export::ExportArgs),
    /// This program against its own promises: errors within their bounds, one hash everywhere
    ///
    /// Each command tries every instruction set of this machine and several thread counts, whatever
    /// --isa and --threads say, and exits with 70 when a bound is broken or a bit differs. --out
    /// keeps the result with its manifest.
    #[command(subcommand, after_help = "Example: limbeck verify determinism")]
    Verify(verify::VerifyCommand),
    /// The data sets: which are there, and whether they are intact
    #[command(subcommand, after_help = "Example: limbeck data fetch mnist --data ~/data")]
    Data(data::DataCommand),
    /// This program and this machine
    #[command(after_help = "Example: limbeck info --json")]
    Info,
    /// Completions for a shell, to stdout
    #[command(
        after_help = "Example: limbeck completions bash > ~/.local/share/bash-completion/completions/limbeck"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// The manual page in roff, to stdout
    #[command(after_help = "Example: limbeck man | man -l -")]
    Man,
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    panic::set_hook(Box::new(exit::report_bug));
    panic::catch_unwind(AssertUnwindSafe(parse_and_run)).unwrap_or(ExitCode::from(exit::BUG))
}

fn parse_and_run() -> ExitCode {
    let parsed = global::without_unused(Cli::command()).try_get_matches();
    let cli = match parsed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches))) {
        Ok((cli, matches)) => match global::expect_used(&matches) {
            Ok(()) => cli,
            Err(error) => return exit::failed(&error),
        },
        Err(usage) => {
            // Help and version end here too, with code 0. A closed stdout is no one's error.
            let _ = usage.print();
            return ExitCode::from(usage.exit_code() as u8);
        }
    };
    let mut communicator = match join_job(&cli.global) {
        Ok(communicator) => communicator,
        Err(error) => return exit::failed(&error),
    };
    let stop = Arc::new(AtomicBool::new(false));
    match (dispatch(cli, communicator.as_mut(), &stop), communicator) {
        (Ok(()), _) => ExitCode::SUCCESS,
        (Err(error), None) => exit::failed(&error),
        (Err(error), Some(communicator)) => exit::failed_in_a_job(&error, &communicator, &stop),
    }
}

/// Connects this process with the other ranks of the MPI job that it was started in, if any.
#[cfg(feature = "mpi")]
fn join_job(global: &GlobalArgs) -> Result<Option<Communicator>> {
    let patience = std::time::Duration::from_secs(global.peer_timeout);
    limbeck::engine::communicator::mpi::join(patience, global.fast_allreduce)
}

/// # Errors
/// [`limbeck::Error::Usage`] in a job of several ranks: each of them would do the whole work, in
/// the same folder.
#[cfg(not(feature = "mpi"))]
fn join_job(_: &GlobalArgs) -> Result<Option<Communicator>> {
    match limbeck::engine::communicator::place_in_the_job() {
        Some((_, ranks @ 2..)) => Err(limbeck::Error::Usage(format!(
            "one of {ranks} ranks of an MPI job, but this program was built without MPI: build it \
             with --features mpi, or start one process"
        ))),
        _ => Ok(None),
    }
}

/// Has the command answered by its file.
fn dispatch(
    cli: Cli,
    communicator: Option<&mut Communicator>,
    stop: &Arc<AtomicBool>,
) -> Result<()> {
    let leads = communicator.as_ref().is_none_or(|communicator| communicator.rank() == 0);
    let session = Session::new(cli.global, leads, stop.clone())?;
    match cli.command {
        Command::Reproduce(args) => reproduce::run(&session, &args, communicator),
        Command::Init(args) => init::run(&session, &args),
        Command::Train(args) => train::run(&session, &args, communicator),
        Command::Distill(args) => distill::run(&session, &args, communicator),
        Command::Eval(args) => eval::run(&session, &args),
        Command::Predict(args) => predict::run(&session, &args),
        Command::Check(args) => check::run(&session, &args),
        Command::Bench(command) => bench::run(&session, &command, communicator),
        Command::Report(args) => report::run(&session, &args),
        Command::Demo(args) => demo::run(&session, &args),
        Command::Export(args) => export::run(&session, &args),
        Command::Verify(command) => verify::run(&session, &command),
        Command::Data(command) => data::run(&session, &command),
        Command::Info => info::run(&session),
        Command::Completions { shell } => {
            session.result(&manual::completions(global::without_unused(Cli::command()), shell))
        }
        Command::Man => session.result(&manual::manual(global::without_unused(Cli::command()))?),
    }
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
    fn each_help_has_an_example_and_only_what_means_something() {
        let mut program = global::without_unused(Cli::command());
        program.build();
        for command in program.get_subcommands() {
            let name = command.get_name().to_string();
            if name == "help" {
                continue;
            }
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains(&format!("Example: limbeck {name}")), "{help}");
            let expected = ["reproduce", "train", "distill"].contains(&&name[..]);
            assert_eq!(help.contains("--tui"), expected, "{help}");
        }
    }

    #[test]
    fn manual_and_completions_leave_nothing_out() {
        // roff escapes hyphens.
        let completions = |shell| manual::completions(Cli::command(), shell);
        let mut texts = vec![manual::manual(Cli::command()).unwrap().text];
        texts.extend(Shell::value_variants().iter().map(|&shell| completions(shell).text));
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
            let text = text.replace('\\', "");
            let missing: Vec<_> = words.iter().filter(|word| !text.contains(*word)).collect();
            assert!(missing.is_empty(), "{missing:?} not in {}", &text[..40]);
        }
    }
}
