//! How the program ends: the message on stderr and the exit code.

use crate::session::to_stderr;
use limbeck::Error;
use limbeck::engine::communicator::Communicator;
use std::io::Write;
use std::panic::PanicHookInfo;
use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Exit code of a bug, as for [`limbeck::Error::Internal`].
pub const BUG: u8 = 70;

/// The end of the help.
pub const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 what was verified is wrong, 2 usage, 3 what was verified cannot be told from
other values, 65 bad data, 70 a bug of limbeck, 74 input or output failed, 75 interrupted and
resumable, 76 diverged.
SIGINT, SIGTERM and SIGUSR1 let a run finish its step, write a checkpoint and name the command that
goes on; a second SIGINT ends it at once, to go on from the checkpoint before.";

/// Prints the error of a process that is alone.
pub fn failed(error: &Error) -> ExitCode {
    to_stderr(&format!("error: {error}"));
    ExitCode::from(error.exit_code())
}

/// Prints the error of a rank of several. Where all ranks have the same error, only rank 0 prints
/// it. Where this rank alone has one, it ends the whole job.
pub fn failed_in_a_job(error: &Error, communicator: &Communicator, stop: &AtomicBool) -> ExitCode {
    let all_ranks_know = matches!(error, Error::Interrupted { .. } | Error::Diverged { .. });
    match (communicator.rank(), all_ranks_know) {
        (0, true) => return failed(error),
        (_, true) => return ExitCode::SUCCESS,
        (0, false) => drop(failed(error)),
        (rank, false) => {
            // Rank 0 may have the same error: then it prints it, and the launcher ends this rank
            // within these seconds.
            let start = Instant::now();
            while !stop.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(3) {
                thread::sleep(Duration::from_millis(50));
            }
            if !stop.load(Ordering::Relaxed) {
                to_stderr(&format!("error: rank {rank}: {error}"));
            }
        }
    }
    // MPI's regular end waits for the other ranks, which do not know of the error. An exit without
    // it makes the launcher end them.
    process::exit(i32::from(error.exit_code()))
}

/// Prints a panic as what it is, a bug, with what a report of it needs.
pub fn report_bug(panic: &PanicHookInfo) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(|at| format!(" at {at}")).unwrap_or_default();
    // Where stderr is closed, the exit code still tells.
    let _ = writeln!(
        std::io::stderr(),
        "error: this is a bug in limbeck {}: {message}{place}\n\
         Please report it with the command that you ran and the output of `limbeck info`.",
        env!("CARGO_PKG_VERSION")
    );
}
