//! `limbeck export`: models and runs for other tools.

use super::session::Session;
use clap::Args;
use limbeck::files::onnx;
use limbeck::files::shown::ShownPath;
use limbeck::run::tensorboard;
use limbeck::{Error, Result};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

#[derive(Args)]
pub struct ExportArgs {
    /// Model file; with --tensorboard, run folder
    #[arg(value_name = "MODEL|RUN")]
    from: PathBuf,

    #[command(flatten)]
    to: Target,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// Write the model as ONNX, its input's normalisation included
    #[arg(long, value_name = "FILE")]
    onnx: Option<PathBuf>,

    /// Write the run's epochs as event files, a folder for each model
    #[arg(long, value_name = "DIR")]
    tensorboard: Option<PathBuf>,
}

pub fn run(session: &Session, args: &ExportArgs) -> Result<()> {
    let files = match (&args.to.onnx, &args.to.tensorboard) {
        (Some(file), _) => {
            session.expect_no_input(file, [&*args.from].into_iter())?;
            // The version of the format, the first field of its message.
            session.expect_replaceable(file, &[8], "ONNX file")?;
            let (model, _) = session.model(&args.from)?;
            onnx::write(&model, &args.from, file)?;
            vec![file.clone()]
        }
        (None, Some(folder)) => tensorboard::write(&args.from.join("metrics.jsonl"), folder)?,
        (None, None) => return Err(Error::Usage("no format".into())),
    };
    session.result(&Exported { files: files.into_iter().map(ShownPath::from).collect() })
}

/// What was written.
#[derive(Serialize)]
struct Exported {
    files: Vec<ShownPath>,
}

impl Display for Exported {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.files.iter().try_for_each(|file| writeln!(f, "{}", file.display()))
    }
}
