//! What the global flags decide, once for the whole run.

use super::Global;
use limbeck::experiments::Lab;
use limbeck::trainer::Observer;
use limbeck::{Error, Result};
use limbeck_datasets::glyphs::{self, writers};
use limbeck_datasets::{Dataset, an4, mnist};
use limbeck_kernels::Context;
use serde::Serialize;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

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
    /// No progress, no notes.
    pub quiet: bool,
}

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
    /// # Errors
    /// [`Error::Usage`] when the operating system refuses the threads.
    pub fn new(global: Global) -> Result<Session> {
        let available = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = global.threads.map_or_else(available, usize::from);
        Ok(Session {
            context: Context::new(global.isa, threads).map_err(Error::Usage)?,
            data: global.data,
            out: global.out,
            seed: global.seed,
            json: global.json,
            quiet: global.quiet,
        })
    }

    /// Prints a command's result: for people, or as one JSON object.
    ///
    /// # Errors
    /// [`Error::Io`] when stdout cannot be written.
    pub fn result(&self, result: &(impl Serialize + Display)) -> Result<()> {
        if !self.json {
            return to_stdout(result.to_string().as_bytes());
        }
        let mut json = serde_json::to_vec_pretty(result)
            .map_err(|e| Error::Internal(format!("result to JSON: {e}")))?;
        json.push(b'\n');
        to_stdout(&json)
    }

    /// What experiments run with.
    pub fn lab<'a>(&'a self, observer: &'a mut dyn Observer) -> Lab<'a> {
        Lab {
            context: &self.context,
            data: self.data.as_deref(),
            command: self.command(),
            teachers: Default::default(),
            git_commit: COMMIT.map(str::to_string),
            observer,
        }
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
