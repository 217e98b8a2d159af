//! What the global flags decide, once for the whole run.

use super::Global;
use limbeck::engine::trainer::Observer;
use limbeck::run::context::RunContext;
use limbeck::run::manifest::shell_line;
use limbeck::{Error, Result};
use limbeck_datasets::glyphs::{self, writers};
use limbeck_datasets::{Dataset, an4, mnist};
use limbeck_kernels::{Context, peak};
use serde::Serialize;
use signal_hook::consts::signal::*;
use signal_hook::flag;
use std::cell::OnceCell;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Commit of the source, where it was built from a checkout.
pub const COMMIT: Option<&str> = option_env!("LIMBECK_COMMIT");

/// One run of the program.
pub struct Session {
    /// What kernels run on.
    pub context: Context,
    /// The folder of the data sets, if one is known.
    pub data: Option<PathBuf>,
    /// Where the run's files go, if the user chose.
    pub out: Option<PathBuf>,
    /// The user's seed, before any other.
    pub seed: Option<u64>,
    json: bool,
    /// Whether this process speaks for its job: it is rank 0, or alone.
    pub leads: bool,
    /// No progress, no notes.
    pub quiet: bool,
    /// The dashboard in place of a line of progress.
    pub tui: bool,
    peak: OnceCell<f64>,
    /// Set by the first signal to end a run.
    stop: Arc<AtomicBool>,
}

/// What asks a run to write a checkpoint and end.
const SIGNALS: &[i32] = &[
    SIGINT,
    SIGTERM,
    #[cfg(unix)]
    SIGUSR1,
];

/// The exit code of [`Error::Interrupted`].
const INTERRUPTED: i32 = 75;

/// The data sets that have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DatasetName {
    /// The published files in the data folder
    Mnist,
    /// The embedded handwritten-like digits
    Glyphs,
    /// The same by ten writers who are told apart: 100 classes
    Writers,
}

impl Session {
    /// `leads`: whether this process speaks for its job, as rank 0 or alone. `stop` is set by a
    /// signal that is to end a run.
    ///
    /// # Errors
    /// [`Error::Usage`] when the operating system refuses the threads.
    pub fn new(global: Global, leads: bool, stop: Arc<AtomicBool>) -> Result<Session> {
        let available = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = global.threads.map_or_else(available, usize::from);
        Ok(Session {
            context: Context::new(global.isa, threads).map_err(Error::Usage)?,
            data: global.data,
            out: global.out,
            seed: global.seed,
            json: global.json,
            quiet: global.quiet || !leads,
            tui: global.tui && leads,
            leads,
            peak: OnceCell::new(),
            stop,
        })
    }

    /// Prints a command's result: for people, or as one JSON object.
    ///
    /// # Errors
    /// [`Error::Io`] when stdout cannot be written.
    pub fn result(&self, result: &(impl Serialize + Display)) -> Result<()> {
        if !self.leads {
            return Ok(());
        }
        if !self.json {
            return to_stdout(result.to_string().as_bytes());
        }
        let mut json = serde_json::to_vec_pretty(result)
            .map_err(|e| Error::Internal(format!("result to JSON: {e}")))?;
        json.push(b'\n');
        to_stdout(&json)
    }

    /// What experiments run with. From now on SIGINT, SIGTERM and SIGUSR1 end the run after its
    /// step, with a checkpoint; SIGINT after one of them ends it at once, to go on from the
    /// checkpoint before.
    ///
    /// # Errors
    /// [`Error::Internal`] where signals cannot be handled.
    pub fn run_context<'a>(&'a self, observer: &'a mut dyn Observer) -> Result<RunContext<'a>> {
        let listen = || {
            // The order matters: the first SIGINT must find the flag not yet set.
            flag::register_conditional_shutdown(SIGINT, INTERRUPTED, self.stop.clone())?;
            SIGNALS
                .iter()
                .try_for_each(|&signal| flag::register(signal, self.stop.clone()).map(drop))
        };
        listen().map_err(|e: std::io::Error| Error::Internal(format!("signal handlers: {e}")))?;
        Ok(RunContext {
            data: self.data.as_deref(),
            command: self.command(),
            git_commit: COMMIT.map(str::to_string),
            peak_gflops: Some(self.peak() / 1e9),
            ..RunContext::new(&self.context, observer, &self.stop)
        })
    }

    /// The machine's peak in floating-point operations a second, measured once.
    pub fn peak(&self) -> f64 {
        *self.peak.get_or_init(|| peak::best_flops(&self.context))
    }

    /// Adds to an interruption the command that goes on, `arguments` with the data folder.
    pub fn resumable(&self, error: Error, mut arguments: Vec<String>) -> Error {
        let Error::Interrupted { .. } = error else { return error };
        if let (Some(data), None) = (&self.data, std::env::var_os("LIMBECK_DATA"))
            && !arguments.iter().any(|argument| argument.starts_with("--data"))
        {
            arguments.extend(["--data".into(), data.display().to_string()]);
        }
        Error::Interrupted { command: Some(shell_line(&arguments)) }
    }

    /// The command line, for the manifest.
    pub fn command(&self) -> Vec<String> {
        let arguments = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
        std::iter::once("limbeck".to_string()).chain(arguments).collect()
    }

    /// Tells the user what was decided for them.
    pub fn note(&self, message: &str) {
        if !self.quiet {
            to_stderr(&format!("note: {message}"));
        }
    }

    /// The data folder.
    ///
    /// # Errors
    /// [`Error::Usage`] when none is known.
    pub fn data_dir(&self) -> Result<&Path> {
        self.data.as_deref().ok_or_else(|| {
            Error::Usage(
                "no data folder: set LIMBECK_DATA or give --data DIR, a folder that holds mnist/ \
                 or an4/"
                    .into(),
            )
        })
    }

    /// The named data set; without a name MNIST where it is found and else the glyphs, saying so.
    ///
    /// # Errors
    /// As [`Session::data_dir`] and [`mnist::load`].
    pub fn dataset(&self, name: Option<DatasetName>) -> Result<Dataset> {
        match name.unwrap_or_else(|| self.default_dataset()) {
            DatasetName::Mnist => Ok(mnist::load(self.data_dir()?)?),
            DatasetName::Glyphs => Ok(glyphs::default()),
            DatasetName::Writers => Ok(writers::default()),
        }
    }

    /// Whether the data folder holds the speech corpus.
    pub fn has_speech(&self) -> bool {
        self.data.as_deref().is_some_and(an4::is_present)
    }

    fn default_dataset(&self) -> DatasetName {
        let missing = match &self.data {
            Some(folder) if mnist::is_present(folder) => {
                self.note(&format!("MNIST found in {}", folder.display()));
                return DatasetName::Mnist;
            }
            Some(folder) => format!("no complete MNIST in {}", folder.join("mnist").display()),
            None => "no data folder (--data, LIMBECK_DATA)".into(),
        };
        self.note(&format!("{missing}: using the embedded glyphs"));
        DatasetName::Glyphs
    }
}

/// Writes to stdout. That its reader has gone, as with `| head`, is no error.
///
/// # Errors
/// [`Error::Io`] for any other trouble: a full disk must not look like success.
fn to_stdout(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Error::io("write to", Path::new("stdout"))(e))
        }
        _ => Ok(()),
    }
}

/// Writes a line to stderr, if it is still open.
pub fn to_stderr(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
