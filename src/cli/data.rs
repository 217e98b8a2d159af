//! `limbeck data`: which data sets are there, and whether they are intact.

use super::session::Session;
use clap::Subcommand;
use limbeck::Result;
use limbeck_datasets::glyphs::{self, writers};
use limbeck_datasets::{Error, mnist};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum DataCommand {
    /// The data sets, their sizes and where they are
    List,
    /// Compares the MNIST files with the published ones by SHA-256
    Verify,
}

pub fn run(session: &Session, command: &DataCommand) -> Result<()> {
    match command {
        DataCommand::List => session.result(&list(session)),
        DataCommand::Verify => verify(session),
    }
}

#[derive(Serialize)]
struct List {
    data_dir: Option<PathBuf>,
    datasets: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: &'static str,
    found: bool,
    /// Folder of the files; absent for what is embedded or has no place to be.
    folder: Option<PathBuf>,
    embedded: bool,
    train: usize,
    test: usize,
    height: usize,
    width: usize,
    classes: usize,
}

fn list(session: &Session) -> List {
    let digits = Entry {
        name: "",
        found: true,
        folder: None,
        embedded: false,
        train: 60_000,
        test: 10_000,
        height: 28,
        width: 28,
        classes: 10,
    };
    let data_dir = session.data.clone();
    List {
        datasets: vec![
            Entry {
                name: "mnist",
                found: data_dir.as_deref().is_some_and(mnist::is_present),
                folder: data_dir.as_deref().map(|folder| folder.join("mnist")),
                ..digits
            },
            Entry {
                name: "glyphs",
                folder: None,
                embedded: true,
                train: glyphs::DEFAULT_TRAIN,
                test: glyphs::DEFAULT_TEST,
                ..digits
            },
            Entry {
                name: "writers",
                embedded: true,
                train: writers::DEFAULT_TRAIN,
                test: writers::DEFAULT_TEST,
                classes: writers::CLASSES,
                ..digits
            },
        ],
        data_dir,
    }
}

impl Display for List {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for set in &self.datasets {
            let place = match (&set.folder, set.found) {
                (None, true) => "embedded".to_string(),
                (Some(folder), true) => folder.display().to_string(),
                (Some(folder), false) => format!("not found in {}", folder.display()),
                (None, false) => "not found: set LIMBECK_DATA or give --data DIR".to_string(),
            };
            writeln!(
                f,
                "{:<8}{:>6} training and {} test images of {}x{}, {} classes  {place}",
                set.name, set.train, set.test, set.height, set.width, set.classes
            )?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Verified {
    ok: bool,
    files: Vec<File>,
}

#[derive(Serialize)]
struct File {
    path: PathBuf,
    ok: bool,
    /// SHA-256 of the decompressed file; absent if it could not be read.
    found: Option<String>,
    expected: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn verify(session: &Session) -> Result<()> {
    let mut first_trouble = None;
    let mut files = Vec::new();
    for status in mnist::verify(session.data_dir()?) {
        let trouble = match &status.found {
            Ok(found) if !status.is_ok() => Some(Error::Hash {
                path: status.path.clone(),
                found: found.clone(),
                expected: status.expected,
            }),
            _ => None,
        };
        let (found, trouble) = match status.found {
            Ok(found) => (Some(found), trouble),
            Err(error) => (None, Some(error)),
        };
        files.push(File {
            path: status.path,
            ok: trouble.is_none(),
            found,
            expected: status.expected,
            error: trouble.as_ref().map(Error::to_string),
        });
        first_trouble = first_trouble.or(trouble);
    }
    session.result(&Verified { ok: first_trouble.is_none(), files })?;
    first_trouble.map_or(Ok(()), |trouble| Err(trouble.into()))
}

impl Display for Verified {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for File { path, found, expected, ok, .. } in &self.files {
            let found = found.as_deref().unwrap_or("unreadable");
            match ok {
                true => writeln!(f, "ok   {}", path.display())?,
                false => writeln!(f, "BAD  {}: {found}, expected {expected}", path.display())?,
            }
        }
        Ok(())
    }
}
