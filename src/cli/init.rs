//! `limbeck init`: a configuration for the user's own data, which runs as it is.

use crate::session::Session;
use clap::Args;
use limbeck::engine::config::{ColumnKey, Config};
use limbeck::engine::data;
use limbeck::engine::doubts;
use limbeck::engine::teacher::{self, Given};
use limbeck::files::read::read_start;
use limbeck::files::shown::ShownPath;
use limbeck::files::write::atomic_write;
use limbeck::run::folder::entries;
use limbeck::run::manifest::shell_line;
use limbeck::{Error, Result};
use limbeck_datasets::foreign::{START, Wanted, recognise};
use limbeck_datasets::table::{self, Column, Columns};
use limbeck_datasets::{Dataset, npy};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

/// Width of the hidden layer.
const HIDDEN: usize = 100;
/// Steps of training that are enough for a small table.
const STEPS: usize = 4000;

#[derive(Args)]
pub struct InitArgs {
    /// A table in CSV, plain or gzipped; an archive or a folder of NumPy arrays; IDX images or their folder
    #[arg(value_name = "DATA")]
    path: PathBuf,

    /// The column of the labels, by its name or its place: 0 is the first, -1 the last
    #[arg(long, value_name = "COLUMN", allow_hyphen_values = true)]
    label_column: Option<String>,

    /// A teacher's logits as NPY, a row for each training example
    #[arg(long, value_name = "FILE")]
    teacher_logits: Option<PathBuf>,

    /// A teacher's probabilities in place of its logits
    #[arg(long, value_name = "FILE", conflicts_with = "teacher_logits")]
    teacher_probs: Option<PathBuf>,
}

pub fn run(session: &Session, args: &InitArgs) -> Result<()> {
    let out = session.out.clone().unwrap_or_else(|| "config.toml".into());
    let absolute = |path: &Path| std::path::absolute(path).map_err(Error::io("resolve", path));
    let mut config = Config::default();
    let teacher = match (&args.teacher_logits, &args.teacher_probs) {
        (Some(path), _) => Some((path, Given::Logits)),
        (None, Some(path)) => Some((path, Given::Probs)),
        (None, None) => None,
    };
    if let Some((path, given)) = teacher {
        let table = config.distillation.get_or_insert_default();
        match given {
            Given::Logits => table.teacher_logits = Some(absolute(path)?),
            Given::Probs => table.teacher_probs = Some(absolute(path)?),
        }
    }
    let tries = tries(&absolute(&args.path)?, args.label_column.as_deref(), config)?;
    if out.exists() {
        return Err(Error::Usage(format!(
            "{}: exists already; name another file: --out FILE",
            out.display()
        )));
    }
    let (mut refused, mut untested) = (None, None);
    for attempt in tries {
        match attempt.load(&out) {
            Ok(dataset) => {
                match &untested {
                    Some((why, true)) => session.warn(&format!(
                        "the test examples cannot be used, and a part of the others is held out: {why}"
                    )),
                    Some((why, false)) => {
                        session.note(&format!("no test examples, a part is held out: {why}"));
                    }
                    None => {}
                }
                return finish(session, args, &out, &attempt, dataset, teacher);
            }
            // The last but one is the plainest: what is wrong with it is wrong with the data.
            Err(error) => {
                if !attempt.held_out {
                    untested = Some((error.to_string(), attempt.has_test));
                }
                refused = Some(refused.filter(|_| attempt.drop_incomplete).unwrap_or(error))
            }
        }
    }
    Err(refused.unwrap_or_else(|| Error::Internal("nothing was tried".into())))
}

/// A way to read the data.
#[derive(Clone)]
struct Attempt {
    /// The paths and columns.
    config: Config,
    held_out: bool,
    /// Whether there are test examples, as good or bad as they are.
    has_test: bool,
    drop_incomplete: bool,
}

impl Attempt {
    /// The data set, with all training examples.
    fn load(&self, out: &Path) -> Result<Dataset> {
        let config = Config::from_toml(&self.text(out, None)?, out)?;
        data::load_whole(&config, out, None)
    }

    /// The configuration; of what was `found` in the data it has examples and comments.
    fn text(&self, out: &Path, found: Option<&Found>) -> Result<String> {
        let folder =
            out.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let kept = self.config.kept_in(folder)?.to_toml()?;
        // Paths and names as the resolved configuration writes them.
        let lines = |keys: &[&str]| -> String {
            let is_key =
                |line: &&str| keys.iter().any(|key| line.starts_with(&format!("{key} = ")));
            kept.lines().filter(is_key).map(|line| format!("{line}\n")).collect()
        };
        let mut text = String::new();
        if let Some(found) = found {
            text += &found.comment();
        }
        text += "[data]\n";
        text += &lines(&[
            "train_images",
            "train_labels",
            "test_images",
            "test_labels",
            "train_table",
            "test_table",
            "label_column",
            "arrays",
        ]);
        let ignored = lines(&["ignore_columns"]);
        if !ignored.is_empty() {
            text += &format!(
                "# They hold words; pandas.get_dummies makes columns of numbers of them.\n{ignored}"
            );
        }
        if self.drop_incomplete {
            text += "# Rows that lack a value are left out; or fill them in, with pandas' fillna.\n\
                     drop_incomplete_rows = true\n";
        }
        if self.held_out {
            text += "# Of each class so many are not trained on, but tested.\nholdout = 0.2\n";
        }
        text += "# So many of the others are watched; then early_stopping = 20 in [training] ends it.\n\
                 # validation = 0.1\n";
        let examples = found.map_or(1, |found| found.examples);
        let batch = if examples < 5000 { 32 } else { 128 };
        let epochs = (STEPS * batch / examples).clamp(20, 200);
        text += &format!(
            "\n[model]\n# Width of each hidden layer.\nhidden = [{HIDDEN}]\n\n\
             [training]\nepochs = {epochs}\nbatch_size = {batch}\noptimizer = \"adam\"\n\
             learning_rate = 0.002\n"
        );
        let teacher = lines(&["teacher_logits", "teacher_probs"]);
        text += &match teacher.is_empty() {
            false => format!(
                "\n[distillation]\n{teacher}temperature = 4.0\n\
                 # Of the labels, beside 1 of the teacher.\nhard_weight = 0.1\n"
            ),
            true => "\n# To distil a teacher: its logits, a row for each training example.\n\
                     # [distillation]\n# teacher_logits = \"teacher.npy\"\n# temperature = 4.0\n\
                     # hard_weight = 0.1\n"
                .to_string(),
        };
        Ok(text)
    }
}

/// The ways to read `path`, the best first: with test examples that lie beside it, with a hold-out.
fn tries(path: &Path, label: Option<&str>, config: Config) -> Result<Vec<Attempt>> {
    let attempt = |change: &dyn Fn(&mut Config), held_out: bool, has_test: bool| {
        let mut config = config.clone();
        change(&mut config);
        Attempt { config, held_out, has_test, drop_incomplete: false }
    };
    let images = images_in(path)?;
    let start = match path.is_dir() {
        true => Vec::new(),
        false => read_start(path, START)?,
    };
    let kind = recognise(&start, path, Wanted::Text).map_or("a text file", |foreign| foreign.name);
    let other = |from: &Path, pairs: &[(&str, &str)]| {
        let mut name = from.file_name()?.to_str()?.to_string();
        for (old, new) in pairs {
            name = name.replacen(old, new, 1);
        }
        let found = from.with_file_name(name);
        (found != from && found.is_file()).then_some(found)
    };
    if let Some(images) = images.or((kind == "an IDX file").then(|| path.to_path_buf())) {
        let labels = |images: &Path| other(images, &[("images", "labels"), ("idx3", "idx1")]);
        let test = other(&images, &[("train", "t10k")]).or(other(&images, &[("train", "test")]));
        let named = |config: &mut Config| {
            config.data.train_images = Some(images.clone());
            config.data.train_labels = labels(&images);
        };
        let tested = |config: &mut Config| {
            named(config);
            config.data.test_labels = test.as_deref().and_then(labels);
            config.data.test_images = test.clone();
        };
        return Ok(vec![attempt(&tested, false, test.is_some()), attempt(&named, true, false)]);
    }
    if path.is_dir() || kind == "a NumPy .npz archive" {
        let named = |config: &mut Config| config.data.arrays = Some(path.to_path_buf());
        let has_test = npy::has_test_examples(path)?;
        return Ok(vec![attempt(&named, false, has_test), attempt(&named, true, false)]);
    }
    let label = label.map(|text| match text.parse() {
        Ok(place) => Column::Place(place),
        Err(_) => Column::Name(text.to_string()),
    });
    let found = table::sketch(path, &Columns { label, ..Columns::default() })?;
    let named = |config: &mut Config| {
        config.data.train_table = Some(path.to_path_buf());
        config.data.label_column = found.label.clone().map(ColumnKey);
        config.data.ignore_columns = found.words.iter().cloned().map(ColumnKey).collect();
    };
    let test = other(path, &[("train", "test")]);
    let tested = |config: &mut Config| {
        named(config);
        config.data.test_table = test.clone();
    };
    let plain = attempt(&named, true, false);
    let mut tries = vec![plain.clone(), Attempt { drop_incomplete: true, ..plain }];
    if test.is_some() {
        let tested = attempt(&tested, false, true);
        tries.splice(0..0, [tested.clone(), Attempt { drop_incomplete: true, ..tested }]);
    }
    Ok(tries)
}

/// The training images in a folder, if it holds IDX files; or `path` itself, where it is called so.
fn images_in(path: &Path) -> Result<Option<PathBuf>> {
    let is_images = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.contains("images") && name.contains("idx")
    };
    if !path.is_dir() {
        return Ok(is_images(path).then(|| path.to_path_buf()));
    }
    let mut found = entries(path)?;
    found.retain(|path| is_images(path));
    found.sort_by_key(|path| !path.to_string_lossy().contains("train"));
    Ok(found.into_iter().next())
}

/// Writes the configuration, and says what was found.
fn finish(
    session: &Session,
    args: &InitArgs,
    out: &Path,
    attempt: &Attempt,
    dataset: Dataset,
    teacher: Option<(&PathBuf, Given)>,
) -> Result<()> {
    dataset.notes.iter().for_each(|remark| session.say(remark));
    if let Some((path, given)) = teacher {
        let (matrix, remark) = teacher::read(path, given)?;
        remark.iter().for_each(|remark| session.say(remark));
        teacher::expect_classes(path, matrix.columns, dataset.classes)?;
        let (rows, examples) = (matrix.values.len() / matrix.columns, dataset.train.len());
        if rows != examples {
            return Err(Error::Data {
                path: path.clone(),
                what: "rows of the teacher's logits".into(),
                found: rows.to_string(),
                expected: format!("{examples}, one for each training example"),
            });
        }
        let doubt = doubts::logits(&matrix.values, &dataset.train, dataset.classes);
        doubt.iter().for_each(|doubt| session.warn(doubt));
    }
    let found = Found::of(&dataset, &args.path, attempt);
    atomic_write(out, attempt.text(out, Some(&found))?.as_bytes())?;
    let command = if teacher.is_some() { "distill" } else { "train" };
    let words = ["limbeck", command, &out.display().to_string()].map(String::from);
    session.result(&Written { config: out.to_path_buf().into(), found, next: shell_line(&words) })
}

/// What the data are.
#[derive(Serialize)]
struct Found {
    data: String,
    examples: usize,
    test_examples: usize,
    inputs: usize,
    label_column: Option<String>,
    left_out: Vec<String>,
    classes: Vec<Class>,
}

#[derive(Serialize)]
struct Class {
    name: String,
    examples: usize,
}

impl Found {
    fn of(dataset: &Dataset, path: &Path, attempt: &Attempt) -> Found {
        let mut counts = vec![0; dataset.classes];
        let labels = dataset.train.labels.iter().flatten();
        labels.for_each(|&label| counts[usize::from(label)] += 1);
        let keys = &attempt.config.data;
        Found {
            data: path.display().to_string(),
            examples: dataset.train.len(),
            test_examples: if attempt.held_out { 0 } else { dataset.test.len() },
            inputs: dataset.train.input_size(),
            label_column: keys.label_column.as_ref().map(ColumnKey::to_string),
            left_out: keys.ignore_columns.iter().map(ColumnKey::to_string).collect(),
            classes: (0..)
                .zip(counts)
                .map(|(class, examples)| Class { name: dataset.names.class(class), examples })
                .collect(),
        }
    }

    fn classes(&self) -> String {
        const SHOWN: usize = 12;
        let class = |Class { name, examples }: &Class| format!("{name} ({examples})");
        let shown: Vec<String> = self.classes.iter().take(SHOWN).map(class).collect();
        let more = self.classes.len().saturating_sub(SHOWN);
        shown.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
    }

    /// In the first lines of the configuration. What a file calls its classes stays in its line.
    fn comment(&self) -> String {
        let lines = [
            format!("{} training examples of {} values", self.examples, self.inputs),
            format!("{} classes: {}", self.classes.len(), self.classes()),
        ];
        lines.map(|line| format!("# {}\n", limbeck_datasets::shown(&line))).concat()
    }
}

/// What was written.
#[derive(Serialize)]
struct Written {
    config: ShownPath,
    #[serde(flatten)]
    found: Found,
    next: String,
}

impl Display for Written {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Found { data, examples, test_examples, inputs, label_column, left_out, classes } =
            &self.found;
        writeln!(f, "{data}: {examples} training examples of {inputs} values")?;
        if *test_examples > 0 {
            writeln!(f, "  test examples: {test_examples}")?;
        }
        if let Some(column) = label_column {
            writeln!(f, "  labels: column {column}")?;
        }
        writeln!(f, "  {} classes: {}", classes.len(), self.found.classes())?;
        if !left_out.is_empty() {
            writeln!(f, "  left out, as they hold words: {}", left_out.join(", "))?;
        }
        writeln!(f, "{} written; next: {}", self.config.display(), self.next)
    }
}
