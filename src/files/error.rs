//! The one error type of the library, and the exit codes that it maps to.

use limbeck_datasets::shown;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// Shorthand for results of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong, by whose turn it is to act.
///
/// A wrong value on the command line is [`Error::Usage`] (exit code 2); the same value in a
/// configuration file is [`Error::Config`] (exit code 65), because there the file is at fault and
/// the message has to say where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was to be verified is wrong; the result tells how. Exit code 1.
    #[error("{0}")]
    Disagrees(String),

    /// What was to be verified may be right, but its test would accept other values too. Exit
    /// code 3.
    #[error("{0}")]
    CannotTell(String),

    /// The command line asks for something impossible. Exit code 2.
    #[error("{0}")]
    Usage(String),

    /// A configuration file is malformed or holds a value out of range. Exit code 65.
    #[error("{}{}: {message}", path.display(), optional(":", line))]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// Line of the offending key, counted from 1, where one can be named.
        line: Option<usize>,
        /// Key, value found and value expected.
        message: String,
    },

    /// A file's content contradicts its format. Exit code 65.
    #[error(
        "{}: {}: found {}, expected {}",
        path.display(), shown(what), shown(found), shown(expected)
    )]
    Data {
        /// The file.
        path: PathBuf,
        /// The part of the file at fault: a tensor, a metadata key, a field.
        what: String,
        /// What the file holds there.
        found: String,
        /// What its format asks for.
        expected: String,
    },

    /// A data set could not be loaded. Exit code 74 for a failed read or write, else 65.
    #[error("{message}")]
    Dataset {
        /// File, offset, found and expected, as the data set reports them.
        message: String,
        /// Whether the operating system failed rather than the file's content.
        io: bool,
    },

    /// The operating system refused an operation on a file. Exit code 74.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// A verb: `read`, `write`, `create`.
        action: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },

    /// The run was stopped from outside after its state was saved. Exit code 75.
    #[error("interrupted{}", optional("; continue with: ", command))]
    Interrupted {
        /// The command line that goes on, where there is one.
        command: Option<String>,
    },

    /// Another rank of the job has died or is out of reach. Exit code 74.
    #[error(
        "rank {rank} of {size}: {message}; start the job again as before with --resume RUN: it \
         goes on from the last checkpoint, on any number of ranks"
    )]
    Lost {
        /// The rank that noticed, from 0.
        rank: usize,
        /// Ranks of the job.
        size: usize,
        /// What it noticed.
        message: String,
    },

    /// Training produced a number that is not finite. Exit code 76.
    #[error(
        "diverged: {tensor}{} is not finite in epoch {epoch}, step {step}; \
         lower the learning rate",
        optional(" of layer ", layer)
    )]
    Diverged {
        /// `loss`, `output`, `weight`, `bias`, `moment.0 of the weight`; `weight update` where
        /// only the norm of a unit's weights overflows.
        tensor: String,
        /// The layer it belongs to, counted from 0.
        layer: Option<usize>,
        /// Epoch, counted from 1.
        epoch: u64,
        /// Step within the epoch, counted from 1.
        step: u64,
    },

    /// A promise of this program to itself was broken. Exit code 70.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

fn optional(prefix: &str, value: &Option<impl Display>) -> String {
    let shown = value.as_ref().map(|value| format!("{prefix}{value}"));
    shown.unwrap_or_default()
}

impl From<limbeck_datasets::Error> for Error {
    fn from(error: limbeck_datasets::Error) -> Self {
        Error::Dataset { message: error.to_string(), io: error.is_io() }
    }
}

impl Error {
    /// The process's exit code for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Disagrees(_) => 1,
            Error::Usage(_) => 2,
            Error::CannotTell(_) => 3,
            Error::Config { .. } | Error::Data { .. } | Error::Dataset { io: false, .. } => 65,
            Error::Internal(_) => 70,
            Error::Io { .. } | Error::Dataset { io: true, .. } | Error::Lost { .. } => 74,
            Error::Interrupted { .. } => 75,
            Error::Diverged { .. } => 76,
        }
    }

    /// For `map_err`: an [`Error::Io`] that names the file and what was tried.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { path, action, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let path = PathBuf::from("x");
        let config = Error::Config {
            path: path.clone(),
            line: Some(3),
            message: "epochs must be at least 1; found 0".into(),
        };
        assert_eq!(config.to_string(), "x:3: epochs must be at least 1; found 0");
        let data = Error::Data {
            path: path.clone(),
            what: "layers.0.bias".into(),
            found: "F64".into(),
            expected: "F32".into(),
        };
        assert_eq!(data.to_string(), "x: layers.0.bias: found F64, expected F32");
        let diverged =
            Error::Diverged { tensor: "weight".into(), layer: Some(1), epoch: 2, step: 5 };
        assert!(
            diverged.to_string().contains("weight of layer 1 is not finite in epoch 2, step 5")
        );
        let dataset = |io| Error::Dataset { message: String::new(), io };
        let interrupted = Error::Interrupted { command: Some("limbeck train --resume a".into()) };
        assert!(interrupted.to_string().ends_with("with: limbeck train --resume a"));
        let codes = [
            (Error::Disagrees(String::new()), 1),
            (Error::Usage(String::new()), 2),
            (config, 65),
            (data, 65),
            (dataset(false), 65),
            (Error::Internal(String::new()), 70),
            (dataset(true), 74),
            (Error::io("read", &path)(io::ErrorKind::NotFound.into()), 74),
            (Error::Lost { rank: 1, size: 4, message: String::new() }, 74),
            (interrupted, 75),
            (diverged, 76),
        ];
        for (error, code) in codes {
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }
}
