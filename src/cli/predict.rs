//! `limbeck predict`: what a model says of rows.

use crate::session::Session;
use clap::Args;
use limbeck::engine::data;
use limbeck::engine::metrics::{self, Confusion};
use limbeck::engine::mlp::Mlp;
use limbeck::files::about::About;
use limbeck::files::shown::ShownPath;
use limbeck::files::write::atomic_write_with;
use limbeck::run::by_class::ByClass;
use limbeck::{Error, Result};
use limbeck_datasets::npy::{Asked, AskedLabels};
use limbeck_datasets::table::{Rows, Stream};
use limbeck_datasets::{Split, idx, npy};
use serde::Serialize;
use std::collections::HashSet;
use std::fmt::{self, Display, Formatter};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct PredictArgs {
    /// Model file
    model: PathBuf,

    /// Rows: CSV, also gzipped, NPY or NPZ, or images in IDX
    ///
    /// Columns of a table are found by the names that the model knows; others are left out. Where the
    /// column of the labels is among them, or an archive has labels beside its examples, the answers are
    /// compared with these.
    rows: PathBuf,

    /// Print the probability of every class
    #[arg(long)]
    probabilities: bool,

    /// T of the probabilities, softmax(z/T)
    #[arg(long, value_name = "T", default_value_t = 1.0, value_parser = temperature)]
    temperature: f64,
}

fn temperature(text: &str) -> std::result::Result<f64, String> {
    let number = text.parse().ok().filter(|t: &f64| *t > 0.0 && t.is_finite());
    number.ok_or_else(|| "expected a finite number above 0".into())
}

pub fn run(session: &Session, args: &PredictArgs) -> Result<()> {
    let (file, _) = session.model(&args.model)?;
    let model = Mlp::from_file(&file);
    let mut predictor =
        Predictor { session, args, model, about: file.about, counts: Counts::default() };
    let Some(out) = &session.out else {
        if session.json {
            return Err(Error::Usage(
                "--json: the answers are CSV; name a file for them, --out FILE".into(),
            ));
        }
        return match predictor.write_all(io::stdout().lock()) {
            // A reader that has gone, as with `| head`.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Ok(()) => {
                let Outcome { labelled, errors, .. } = predictor.outcome(Path::new("stdout"));
                let said =
                    |n| format!("{n} errors in {labelled} rows with labels; --out FILE tells more");
                errors.into_iter().for_each(|n| session.note(&said(n)));
                Ok(())
            }
            other => other,
        };
    };
    session.expect_no_input(out, [&*args.model, &*args.rows].into_iter())?;
    // What goes wrong in reading is told apart from the writing, around which it happens.
    let mut failed = None;
    let written = atomic_write_with(out, |file| {
        predictor.write_all(file).map_err(|error| {
            let cause = io::Error::other(error.to_string());
            failed = Some(error);
            cause
        })
    });
    match failed {
        Some(error) => Err(error),
        None => written,
    }?;
    session.result(&predictor.outcome(out))
}

struct Predictor<'a> {
    session: &'a Session,
    args: &'a PredictArgs,
    model: Mlp,
    about: About,
    counts: Counts,
}

/// What was answered.
#[derive(Default)]
struct Counts {
    rows: usize,
    /// Rows without a known label, where there are labels.
    strange: usize,
    first_strange: Option<String>,
    /// Of rows with one: logits and labels.
    logits: Vec<f32>,
    labels: Vec<u16>,
}

impl Predictor<'_> {
    fn write_all(&mut self, to: impl Write) -> Result<()> {
        let out = self.session.out.clone().unwrap_or_else(|| "stdout".into());
        let mut csv = Csv { writer: csv::Writer::from_writer(to), path: &out };
        let path = &self.args.rows;
        match kind(path)? {
            Kind::Table => {
                let names = &self.about.names;
                let (inputs, label) = (self.model.inputs(), names.label.as_deref());
                let mut stream = Stream::open(path, &names.features, inputs, label)?;
                if !stream.has_names() {
                    self.warn_of_places(&format!(
                        "{}: no names of columns in the first line",
                        path.display()
                    ));
                }
                while let Some(Rows { values, labels }) = stream.next_rows()? {
                    let split = Split::of_features(values, inputs, None);
                    self.write_rows(&mut csv, &split, labels.as_deref())?;
                }
            }
            Kind::Arrays => {
                let Asked { split, names, labels } = npy::read_asked(path)?;
                if let Some((x, y)) = names {
                    let labels = y.map_or(String::new(), |y| format!(", and their labels are {y}"));
                    let path = path.display();
                    self.session.note(&format!("{path}: the rows are {x}{labels}"));
                }
                self.warn_of_places(&format!(
                    "{}: an array has no names of columns",
                    path.display()
                ));
                let labels = labels.transpose().unwrap_or_else(|error| {
                    self.session.warn(&format!("no answer is compared: {error}"));
                    None
                });
                let name = |&place: &u16| self.about.names.class(usize::from(place));
                let labels = labels.map(|labels| match labels {
                    AskedLabels::Names(names) => names,
                    AskedLabels::Places(places) => places.iter().map(name).collect(),
                });
                self.write_rows(&mut csv, &split, labels.as_deref())?;
            }
            Kind::Images => {
                self.write_rows(&mut csv, &idx::read_images(path)?.unlabelled(), None)?;
            }
        }
        csv.finish()
    }

    /// Rows without names where the model knows those of its features.
    fn warn_of_places(&self, why: &str) {
        let features = &self.about.names.features;
        if !features.is_empty() {
            let features = features.join(", ");
            self.session
                .warn(&format!("{why}: taken in the order of the model's features, {features}"));
        }
    }

    fn write_header<W: Write>(&self, csv: &mut Csv<W>, labelled: bool) -> Result<()> {
        let names = &self.about.names;
        let label = || names.label.clone().unwrap_or_else(|| "label".into());
        let mut fields: Vec<String> = labelled.then(label).into_iter().collect();
        fields.extend(["prediction".to_string(), "probability".to_string()]);
        if self.args.probabilities {
            fields.extend((0..self.model.classes()).map(|class| names.class(class)));
        }
        // A class may be called as another column is.
        let mut taken = HashSet::new();
        for field in &mut fields {
            while !taken.insert(field.clone()) {
                field.push('_');
            }
        }
        csv.row(&fields)
    }

    fn write_rows<W: Write>(
        &mut self,
        csv: &mut Csv<W>,
        split: &Split,
        labels: Option<&[String]>,
    ) -> Result<()> {
        let (classes, rows) = (self.model.classes(), &self.args.rows);
        if split.input_size() != self.model.inputs() {
            return Err(Error::Data {
                path: rows.clone(),
                what: "values of a row".into(),
                found: split.input_size().to_string(),
                expected: format!("{}, the inputs of the model", self.model.inputs()),
            });
        }
        if self.counts.rows == 0 {
            self.write_header(csv, labels.is_some())?;
        }
        let before = self.counts.rows;
        let name = |i| format!("{}: row {}, counted from 0", rows.display(), before + i);
        let logits = data::finite_logits(&self.session.context, &self.model, split, name)?;
        let names: Vec<String> = (0..classes).map(|class| self.about.names.class(class)).collect();
        for (i, row) in logits.chunks_exact(classes).enumerate() {
            let probs = metrics::soft_prediction(row, self.args.temperature);
            let answer = metrics::predict(row).unwrap_or_default();
            let label = labels.map(|labels| &labels[i]);
            let mut fields: Vec<String> = label.into_iter().cloned().collect();
            fields.extend([names[answer].clone(), shown(probs[answer])]);
            if self.args.probabilities {
                fields.extend(probs.iter().map(|&p| shown(p)));
            }
            csv.row(&fields)?;
            self.counts.rows += 1;
            if let Some(label) = label.filter(|label| !label.is_empty()) {
                self.compare(row, label, &names);
            }
        }
        Ok(())
    }

    /// Counts a row that has a label.
    fn compare(&mut self, logits: &[f32], label: &str, names: &[String]) {
        let known = |label: &str| names.iter().position(|name| name == label);
        // A whole number is also written with a decimal.
        let number = label.parse::<f64>().ok().filter(|n| n.fract() == 0.0);
        match known(label).or_else(|| known(&number?.to_string())) {
            Some(class) => {
                self.counts.labels.push(class as u16);
                self.counts.logits.extend_from_slice(logits);
            }
            None => {
                self.counts.strange += 1;
                self.counts.first_strange.get_or_insert_with(|| label.to_string());
            }
        }
    }

    fn outcome(&self, out: &Path) -> Outcome {
        let Counts { rows, strange, first_strange, logits, labels } = &self.counts;
        let by_class = (!labels.is_empty()).then(|| {
            let confusion = Confusion::new(logits, labels, self.model.classes());
            ByClass::new(&confusion, &self.about.names)
        });
        let errors = metrics::errors(logits, labels, self.model.classes());
        if let Some(first) = first_strange {
            self.session.warn(&format!(
                "labels that are none of the model's classes: {strange}, the first {first:?}; they are \
                 not counted"
            ));
        }
        Outcome {
            out: out.to_path_buf().into(),
            rows: *rows,
            labelled: labels.len(),
            errors: by_class.is_some().then_some(errors),
            by_class,
        }
    }
}

/// A probability with as many digits as tell it from its neighbours in f32.
fn shown(p: f64) -> String {
    (p as f32).to_string()
}

/// What kind of file it is.
enum Kind {
    Table,
    Arrays,
    Images,
}

fn kind(path: &Path) -> Result<Kind> {
    let is = |extensions: &[&str]| {
        path.extension().is_some_and(|found| extensions.iter().any(|known| found == *known))
    };
    if path.is_dir() || is(&["npy", "npz"]) {
        return Ok(Kind::Arrays);
    }
    // A table may be a pipe, of which no byte is taken to look at it.
    if path.metadata().is_ok_and(|about| about.is_file()) && idx::is_images(path)? {
        return Ok(Kind::Images);
    }
    Ok(Kind::Table)
}

/// Rows of CSV.
struct Csv<'p, W: Write> {
    writer: csv::Writer<W>,
    path: &'p Path,
}

impl<W: Write> Csv<'_, W> {
    fn row(&mut self, fields: &[String]) -> Result<()> {
        self.writer.write_record(fields).map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(cause) => Error::io("write", self.path)(cause),
            other => Error::Internal(format!("a row of CSV: {other:?}")),
        })
    }

    fn finish(&mut self) -> Result<()> {
        self.writer.flush().map_err(Error::io("write", self.path))
    }
}

/// How many rows were answered and, where they have labels, how well.
#[derive(Serialize)]
struct Outcome {
    out: ShownPath,
    rows: usize,
    labelled: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by_class: Option<ByClass>,
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} rows answered: {}", self.rows, self.out.display())?;
        if let (Some(errors), Some(by_class)) = (self.errors, &self.by_class) {
            writeln!(f, "{errors} errors in {} rows with labels", self.labelled)?;
            write!(f, "{by_class}")?;
        }
        Ok(())
    }
}
