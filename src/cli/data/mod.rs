//! `limbeck data`: which data sets are there, whether they are intact, and downloads.

#[cfg(feature = "fetch")]
mod fetch;

use super::session::Session;
use clap::Subcommand;
use limbeck::Result;
use limbeck::files::shown::ShownPath;
use limbeck_datasets::glyphs::{self, writers};
use limbeck_datasets::{Error, an4, mnist};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::path::Path;

#[derive(Subcommand)]
pub enum DataCommand {
    /// The data sets, their sizes and where they are
    List,
    /// Compares the files of MNIST and AN4 with the published ones by SHA-256
    Verify,
    /// Downloads a data set into the data folder, verified by SHA-256
    ///
    /// What is there and intact is left alone. A broken download goes on where it broke, also in
    /// another run. Proxies are taken from ALL_PROXY, HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
    #[cfg(feature = "fetch")]
    Fetch(fetch::FetchArgs),
}

pub fn run(session: &Session, command: &DataCommand) -> Result<()> {
    match command {
        DataCommand::List => session.result(&list(session)),
        DataCommand::Verify => verify(session),
        #[cfg(feature = "fetch")]
        DataCommand::Fetch(args) => fetch::run(session, args),
    }
}

#[derive(Serialize)]
struct List {
    data_dir: Option<ShownPath>,
    datasets: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: &'static str,
    found: bool,
    /// Folder of the files; absent for what is embedded or has no place to be.
    folder: Option<ShownPath>,
    embedded: bool,
    train: usize,
    test: usize,
    #[serde(flatten)]
    examples: Examples,
}

/// What the examples of a data set are.
#[derive(Serialize)]
#[serde(untagged)]
enum Examples {
    Images { height: usize, width: usize, classes: usize },
    Utterances { speakers: usize, words: usize },
}

fn list(session: &Session) -> List {
    let digits = |classes| Examples::Images { height: 28, width: 28, classes };
    let data_dir = session.data.clone();
    let folder = |name| data_dir.as_deref().map(|folder| folder.join(name).into());
    let found = |is_present: fn(&Path) -> bool| data_dir.as_deref().is_some_and(is_present);
    let datasets = vec![
        Entry {
            name: "mnist",
            found: found(mnist::is_present),
            folder: folder("mnist"),
            embedded: false,
            train: 60_000,
            test: 10_000,
            examples: digits(10),
        },
        Entry {
            name: "an4",
            found: found(an4::is_present),
            folder: folder("an4"),
            embedded: false,
            train: 948,
            test: 130,
            examples: Examples::Utterances { speakers: 84, words: 101 },
        },
        Entry {
            name: "glyphs",
            found: true,
            folder: None,
            embedded: true,
            train: glyphs::DEFAULT_TRAIN,
            test: glyphs::DEFAULT_TEST,
            examples: digits(10),
        },
        Entry {
            name: "writers",
            found: true,
            folder: None,
            embedded: true,
            train: writers::DEFAULT_TRAIN,
            test: writers::DEFAULT_TEST,
            examples: digits(writers::CLASSES),
        },
    ];
    List { data_dir: data_dir.map(ShownPath::from), datasets }
}

impl Display for List {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for Entry { name, found, folder, train, test, examples, .. } in &self.datasets {
            let place = match (folder, found) {
                (None, true) => "embedded".to_string(),
                (Some(folder), true) => folder.display().to_string(),
                (Some(folder), false) => {
                    format!("not found in {}: limbeck data fetch {name}", folder.display())
                }
                (None, false) => "not found: set LIMBECK_DATA or give --data DIR".to_string(),
            };
            let examples = match examples {
                Examples::Images { height, width, classes } => {
                    format!("images of {height}x{width}, {classes} classes")
                }
                Examples::Utterances { speakers, words } => {
                    format!("utterances of {speakers} speakers, {words} words")
                }
            };
            writeln!(f, "{name:<8}{train:>6} training and {test} test {examples}  {place}")?;
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
    path: ShownPath,
    ok: bool,
    /// SHA-256 of the decompressed file; absent if it could not be read.
    found: Option<String>,
    expected: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Looks at MNIST and AN4 where there is a folder for them, and at MNIST if there is for neither,
/// which tells what is missing.
fn verify(session: &Session) -> Result<()> {
    let data_dir = session.data_dir()?;
    let mut statuses = Vec::new();
    if data_dir.join("an4").is_dir() {
        statuses = an4::verify(data_dir);
    }
    if statuses.is_empty() || data_dir.join("mnist").is_dir() {
        statuses.splice(..0, mnist::verify(data_dir));
    }
    let mut first_trouble = None;
    let mut files = Vec::new();
    for status in statuses {
        let path = status.path.clone().into();
        let expected = status.expected.clone();
        let found = status.found.as_ref().ok().cloned();
        let trouble = status.verified().err();
        let error = trouble.as_ref().map(Error::to_string);
        files.push(File { path, ok: trouble.is_none(), found, expected, error });
        first_trouble = first_trouble.or(trouble);
    }
    session.result(&Verified { ok: first_trouble.is_none(), files })?;
    first_trouble.map_or(Ok(()), |trouble| Err(trouble.into()))
}

impl Display for Verified {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for File { path, found, expected, .. } in self.files.iter().filter(|file| !file.ok) {
            let found = found.as_deref().unwrap_or("unreadable");
            writeln!(f, "BAD  {}: {found}, expected {expected}", path.display())?;
        }
        let intact = self.files.iter().filter(|file| file.ok).count();
        writeln!(f, "{intact} of {} files are the published ones", self.files.len())
    }
}
