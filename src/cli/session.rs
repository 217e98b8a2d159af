//! The session: what the global options and the environment decide, once for every command.

use crate::global::GlobalArgs;
use limbeck::engine::trainer::Observer;
use limbeck::files::model::ModelFile;
use limbeck::files::read::read_start;
use limbeck::run::context::RunContext;
use limbeck::run::manifest::shell_line;
use limbeck::{Error, Result};
use limbeck_datasets::glyphs::{self, writers};
use limbeck_datasets::{Dataset, Remark, an4, mnist, shown};
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

/// Commit of the source; absent where the program was not built from a checkout.
pub const COMMIT: Option<&str> = option_env!("LIMBECK_COMMIT");

/// One call of the program: its global options resolved, its threads started.
///
/// A command gets from it what it runs on ([`Session::context`], [`Session::run_context`]), what it
/// works on ([`Session::dataset`], [`Session::data_dir`]) and how it answers
/// ([`Session::result`], [`Session::note`]).
pub struct Session {
    /// Instruction set and threads of the kernels.
    pub context: Context,
    /// `--data` or `LIMBECK_DATA`: the folder of the data sets.
    pub data: Option<PathBuf>,
    /// Whether `--data` named it, which is a wish, and not the environment, which is a habit.
    pub data_is_asked: bool,
    /// `--out`: where the files of the command go.
    pub out: Option<PathBuf>,
    /// `--seed`, which goes before any seed of a configuration.
    pub seed: Option<u64>,
    /// `--json`: results as one JSON object.
    pub json: bool,
    /// Whether this process answers for its job: it is rank 0, or alone.
    pub leads: bool,
    /// Whether progress and notes are left out.
    pub quiet: bool,
    /// Whether progress is a dashboard, not a line.
    pub tui: bool,
    /// Floating-point operations a second, once they were measured.
    peak: OnceCell<f64>,
    /// Set by the first signal that asks a run to end.
    stop: Arc<AtomicBool>,
}

/// Signals that ask a run to write a checkpoint and end.
///
/// Terminals and ssh send SIGHUP when they go, batch systems SIGUSR1 or SIGUSR2 ahead of the end, a
/// limit of processor time SIGXCPU.
const SIGNALS: &[i32] = &[
    SIGINT,
    SIGTERM,
    #[cfg(unix)]
    SIGHUP,
    #[cfg(unix)]
    SIGUSR1,
    #[cfg(unix)]
    SIGUSR2,
    #[cfg(unix)]
    SIGXCPU,
];

/// The exit code of [`Error::Interrupted`].
const INTERRUPTED: i32 = 75;

/// Data sets that are chosen by name, without a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DatasetName {
    /// The published files in the data folder
    Mnist,
    /// The embedded handwritten-like digits
    Glyphs,
    /// Digits and letters by ten writers who are told apart: 360 classes
    Writers,
}

impl Session {
    /// Starts the threads of the kernels. `leads` says whether this process answers for its job:
    /// it is rank 0, or alone. A signal that asks a run to end sets `stop`.
    ///
    /// # Errors
    /// [`Error::Usage`] when the operating system refuses the threads.
    pub fn new(global: GlobalArgs, leads: bool, stop: Arc<AtomicBool>) -> Result<Session> {
        // A limit of file size must fail a write, with a message, not end the process without one.
        #[cfg(unix)]
        flag::register(SIGXFSZ, Arc::default()).map_err(not_handled)?;
        // Of a container's quota too.
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let asked = global.threads.map_or(cores, usize::from);
        // More would take turns, and wait for each other.
        let threads = asked.min(cores);
        if threads < asked && leads {
            to_stderr(&format!(
                "warning: --threads: found {asked}, expected at most {cores}, which this machine runs \
                 at once: using {threads}, with the same results"
            ));
        }
        let data = global.data.filter(|data| !data.as_os_str().is_empty());
        let habit = std::env::var_os("LIMBECK_DATA");
        let data_is_asked =
            data.as_ref().is_some_and(|data| Some(data.as_os_str()) != habit.as_deref());
        Ok(Session {
            context: Context::new(global.isa, threads).map_err(Error::Usage)?,
            data,
            data_is_asked,
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

    /// Prints a command's result to stdout: as text, or with `--json` as one JSON object. Only the
    /// process that leads its job prints.
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

    /// What training runs with. From this call on, [`SIGNALS`] end the run after its current step,
    /// with a checkpoint. A SIGINT after one of them ends it at once; the run can
    /// then go on from the checkpoint before.
    ///
    /// # Errors
    /// [`Error::Internal`] where signals cannot be handled.
    pub fn run_context<'a>(&'a self, observer: &'a mut dyn Observer) -> Result<RunContext<'a>> {
        let listen = || {
            // Handlers run in this order. The shutdown is conditional on the flag, so that only the
            // second SIGINT finds it set.
            flag::register_conditional_shutdown(SIGINT, INTERRUPTED, self.stop.clone())?;
            SIGNALS
                .iter()
                .filter(|&&signal| !is_left_to_be_ignored(signal))
                .try_for_each(|&signal| flag::register(signal, self.stop.clone()).map(drop))
        };
        listen().map_err(not_handled)?;
        Ok(RunContext {
            data: self.data.as_deref(),
            command: self.command(),
            git_commit: COMMIT.map(str::to_string),
            peak_gflops: Some(self.peak() / 1e9),
            ..RunContext::new(&self.context, observer, &self.stop)
        })
    }

    /// The machine's peak in floating-point operations a second, measured at the first call.
    pub fn peak(&self) -> f64 {
        *self.peak.get_or_init(|| peak::best_flops(&self.context))
    }

    /// Completes an [`Error::Interrupted`] by the command that continues the run: `arguments`, and
    /// the data folder where only `--data` names it. Of an [`Error::Io`], such as a full disk, a
    /// note names that command. Other errors pass unchanged.
    pub fn resumable(&self, error: Error, mut arguments: Vec<String>) -> Error {
        if !matches!(error, Error::Interrupted { .. } | Error::Io { .. }) {
            return error;
        }
        if let (Some(data), true) = (&self.data, self.data_is_asked)
            && !arguments.iter().any(|argument| argument.starts_with("--data"))
        {
            arguments.extend(["--data".into(), data.display().to_string()]);
        }
        let command = shell_line(&arguments);
        if let Error::Io { .. } = error {
            self.warn(&format!("once that is mended, the run goes on with: {command}"));
            return error;
        }
        Error::Interrupted { command: Some(command) }
    }

    /// The words of the command line, as manifests record them.
    pub fn command(&self) -> Vec<String> {
        let arguments = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
        std::iter::once("limbeck".to_string()).chain(arguments).collect()
    }

    /// Prints a note to stderr: what was decided for the user, or what to do next.
    pub fn note(&self, message: &str) {
        if !self.quiet {
            to_stderr(&format!("note: {message}"));
        }
    }

    /// Prints a warning to stderr: what was asked for is most likely not meant.
    pub fn warn(&self, message: &str) {
        if self.leads {
            to_stderr(&format!("warning: {message}"));
        }
    }

    /// Says what was decided, or is doubtful.
    pub fn say(&self, remark: &Remark) {
        match remark {
            Remark::Note(text) => self.note(&shown(text)),
            Remark::Warning(text) => self.warn(&shown(text)),
        }
    }

    /// Reads a model, and warns of what had to be assumed; beside it the SHA-256 of its parameters.
    ///
    /// # Errors
    /// Those of [`ModelFile::load`].
    pub fn model(&self, path: &Path) -> Result<(ModelFile, String)> {
        if path.is_dir() {
            return Err(Error::Usage(format!(
                "{}: found a folder, expected a model file; those of a run are in its models/",
                path.display()
            )));
        }
        let (file, sha256, assumed) = ModelFile::load_noting(path)?;
        if let Some(assumed) = assumed {
            self.warn(&assumed);
        }
        Ok((file, sha256))
    }

    /// Checks that `output` is none of the files that the command reads.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn expect_no_input<'p>(
        &self,
        output: &Path,
        mut inputs: impl Iterator<Item = &'p Path>,
    ) -> Result<()> {
        let Ok(place) = output.canonicalize() else { return Ok(()) };
        let is_output = |input: &&Path| input.canonicalize().is_ok_and(|input| input == place);
        match inputs.find(is_output).filter(|input| input.is_file()) {
            None => Ok(()),
            Some(input) => Err(Error::Usage(format!(
                "{}: found an input of the command, {}, expected another file to write to",
                output.display(),
                input.display()
            ))),
        }
    }

    /// Checks that `output` is no file of another kind than `kind`, whose files begin with `start`, in
    /// letters of any case: data or a configuration may well be named by mistake.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn expect_replaceable(&self, output: &Path, start: &[u8], kind: &str) -> Result<()> {
        if !output.metadata().is_ok_and(|about| about.is_file() && about.len() > 0) {
            return Ok(());
        }
        match read_start(output, start.len())?.eq_ignore_ascii_case(start) {
            true => Ok(()),
            false => Err(Error::Usage(format!(
                "{}: found a file that is no {kind}, which would be replaced: name another, or remove it",
                output.display()
            ))),
        }
    }

    /// The data folder, for a command that cannot work without it.
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

    /// Loads the named data set. Without a name it is MNIST where that is found, else the glyphs,
    /// and a note says which.
    ///
    /// # Errors
    /// As [`Session::data_dir`] and [`mnist::load`]; [`Error::Usage`] without a name where MNIST is
    /// not in the folder of `--data`.
    pub fn dataset(&self, name: Option<DatasetName>) -> Result<Dataset> {
        match name.map_or_else(|| self.default_dataset(), Ok)? {
            DatasetName::Mnist => Ok(mnist::load(self.data_dir()?)?),
            DatasetName::Glyphs => Ok(glyphs::default()),
            DatasetName::Writers => Ok(writers::default()),
        }
    }

    /// Whether the data folder holds the speech corpus AN4.
    pub fn has_speech(&self) -> bool {
        self.data.as_deref().is_some_and(an4::is_present)
    }

    fn default_dataset(&self) -> Result<DatasetName> {
        let missing = match &self.data {
            Some(folder) if mnist::is_present(folder) => {
                self.note(&format!("MNIST found in {}", folder.display()));
                return Ok(DatasetName::Mnist);
            }
            Some(folder) => format!("no complete MNIST in {}", folder.join("mnist").display()),
            None => "no data folder (--data, LIMBECK_DATA)".into(),
        };
        // What was asked for is not replaced by something else.
        let is_there = self.data.as_ref().is_none_or(|folder| folder.is_dir());
        if self.data_is_asked || !is_there {
            return Err(Error::Usage(format!(
                "{missing}: correct the folder, fetch the files with `limbeck data fetch mnist`, or \
                 leave out --data and LIMBECK_DATA for the embedded glyphs"
            )));
        }
        self.note(&format!("{missing}: using the embedded glyphs"));
        Ok(DatasetName::Glyphs)
    }
}

fn not_handled(e: std::io::Error) -> Error {
    Error::Internal(format!("signal handlers: {e}"))
}

/// Whether the caller has this process ignore the signal, as nohup does with SIGHUP. Shells that start
/// a job in the background do it with SIGINT, where other programs listen all the same.
fn is_left_to_be_ignored(signal: i32) -> bool {
    #[cfg(unix)]
    if signal == SIGHUP {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        return ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1);
    }
    false
}

/// Writes to stdout. A reader that has gone, as with `| head`, is no error.
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

/// Writes a line to stderr. Nothing happens if stderr is closed.
pub fn to_stderr(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
