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
use limbeck_datasets::table::{Rows, Stream};
use limbeck_datasets::{Split, idx, npy};
use serde::Serialize;
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
    /// column of the labels is among them, the answers are compared with it.
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
        let written = predictor.write_all(&mut io::BufWriter::new(io::stdout().lock()));
        return match written {
            // A reader that has gone, as with `| head`.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        };
    };
    session.expect_no_input(out, [&*args.model, &*args.rows].into_iter())?;
    // What goes wrong in reading is told apart from the writing, around which it happens.
    let mut failed = None;
    let written = atomic_write_with(out, |file| {
        predictor.write_all(&mut io::BufWriter::new(file)).map_err(|error| {
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
    fn write_all(&mut self, to: &mut impl Write) -> Result<()> {
        let out = self.session.out.clone().unwrap_or_else(|| "stdout".into());
        let mut csv = Csv { to, path: &out };
        let path = &self.args.rows;
        let mut first = true;
        let mut each =
            |this: &mut Self, csv: &mut Csv<_>, split: Split, labels: Option<Vec<String>>| {
                data::expect_inputs(&this.model, &this.args.model, split.input_size())?;
                if std::mem::take(&mut first) {
                    this.write_header(csv, labels.is_some())?;
                }
                this.write_rows(csv, &split, labels.as_deref())
            };
        match kind(path)? {
            Kind::Table => {
                let names = &self.about.names;
                let (inputs, label) = (self.model.inputs(), names.label.as_deref());
                let mut stream = Stream::open(path, &names.features, inputs, label)?;
                while let Some(Rows { values, labels }) = stream.next_rows()? {
                    each(self, &mut csv, Split::of_features(values, inputs, None), labels)?;
                }
            }
            Kind::Arrays => each(self, &mut csv, npy::read_examples(path)?, None)?,
            Kind::Images => each(self, &mut csv, idx::read_images(path)?.unlabelled(), None)?,
        }
        csv.finish()
    }

    fn write_header<W: Write>(&self, csv: &mut Csv<W>, labelled: bool) -> Result<()> {
        let mut fields = Vec::new();
        if labelled {
            fields.push(self.about.names.label.clone().unwrap_or_else(|| "label".into()));
        }
        fields.extend(["prediction".to_string(), "probability".to_string()]);
        if self.args.probabilities {
            fields.extend((0..self.model.classes()).map(|class| self.about.class(class)));
        }
        csv.row(fields.iter())
    }

    fn write_rows<W: Write>(
        &mut self,
        csv: &mut Csv<W>,
        split: &Split,
        labels: Option<&[String]>,
    ) -> Result<()> {
        let logits = data::finite_logits(&self.session.context, &self.model, split)?;
        let classes = self.model.classes();
        let names: Vec<String> = (0..classes).map(|class| self.about.class(class)).collect();
        for (i, row) in logits.chunks_exact(classes).enumerate() {
            let probs = metrics::soft_prediction(row, self.args.temperature);
            let answer = metrics::predict(row).unwrap_or_default();
            let mut fields = Vec::with_capacity(3 + classes);
            fields.extend(labels.map(|labels| labels[i].clone()));
            fields.extend([names[answer].clone(), shown(probs[answer])]);
            if self.args.probabilities {
                fields.extend(probs.iter().map(|&p| shown(p)));
            }
            csv.row(fields.iter())?;
            self.counts.rows += 1;
            let label = labels.map(|labels| &labels[i]).filter(|label| !label.is_empty());
            let Some(label) = label else { continue };
            let known = names.iter().position(|name| name == label);
            // A whole number is also written with a decimal.
            let number = label.parse::<f64>().ok().filter(|n| n.fract() == 0.0);
            let as_whole =
                || names.iter().position(|name| number.is_some_and(|n| *name == n.to_string()));
            match known.or_else(as_whole) {
                Some(class) => {
                    self.counts.labels.push(class as u16);
                    self.counts.logits.extend_from_slice(row);
                }
                None => {
                    self.counts.strange += 1;
                    self.counts.first_strange.get_or_insert_with(|| label.clone());
                }
            }
        }
        Ok(())
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
    to: W,
    path: &'p Path,
}

impl<W: Write> Csv<'_, W> {
    fn row<'f>(&mut self, fields: impl Iterator<Item = &'f String>) -> Result<()> {
        let mut line = String::new();
        for (i, field) in fields.enumerate() {
            line.push_str(if i > 0 { "," } else { "" });
            match field.contains([',', '"', '\n', '\r']) {
                true => line.push_str(&format!("\"{}\"", field.replace('"', "\"\""))),
                false => line.push_str(field),
            }
        }
        line.push('\n');
        self.to.write_all(line.as_bytes()).map_err(Error::io("write", self.path))
    }

    fn finish(&mut self) -> Result<()> {
        self.to.flush().map_err(Error::io("write", self.path))
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
