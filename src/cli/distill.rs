//! `limbeck distill`: the model of a configuration, on the soft targets of teachers.

use crate::one_model::{ConfigArgs, ModelRun, Prepared};
use crate::session::Session;
use clap::Args;
use limbeck::engine::communicator::Communicator;
use limbeck::engine::config::Config;
use limbeck::engine::data::{self, Parts};
use limbeck::engine::distill;
use limbeck::engine::loss::LossSpec;
use limbeck::engine::mlp::Mlp;
use limbeck::files::digest::sha256_of;
use limbeck::{Error, Result};
use limbeck_datasets::{Dataset, npy};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct DistillArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// Teacher; several are an ensemble. Absent if the configuration names teacher_logits
    #[arg(long = "teacher", value_name = "MODEL", num_args = 1..)]
    teachers: Vec<PathBuf>,
}

pub fn run(
    session: &Session,
    args: &DistillArgs,
    mut communicator: Option<&mut Communicator>,
) -> Result<()> {
    let Prepared { config, located, parts, resumed } = args.config.prepare(session, "distill")?;
    let (loss, dataset) = (LossSpec::soft(&config), &parts.dataset);
    let file = located.distillation.as_ref().and_then(|table| table.teacher_logits.as_ref());
    let asks = config.distillation.iter().any(|table| !table.views.is_empty());
    let mut teachers = Vec::new();
    let (logits, teacher_hashes) = match (file, &args.teachers[..]) {
        (Some(path), []) => {
            let (logits, hashes) = read_logits(path, &config, &parts)?;
            (Some(logits), hashes)
        }
        (None, [_, ..]) => {
            let hashes;
            (teachers, hashes) = read_teachers(session, &args.teachers, dataset)?;
            if let Some(ranks) = communicator.as_deref_mut() {
                ranks.agree("the teachers", &format!("{hashes:?}"))?;
            }
            let ranks = communicator.as_deref_mut();
            // With views they are asked in each step.
            let once = || ask_teachers(session, &teachers, &config, dataset, ranks);
            ((!asks).then(once).transpose()?, hashes)
        }
        (None, []) => {
            return Err(Error::Usage(
                "no teacher: give --teacher MODEL, or distillation.teacher_logits in the \
                 configuration"
                    .into(),
            ));
        }
        (Some(path), _) => {
            return Err(Error::Usage(format!(
                "two teachers: --teacher and the configuration's teacher_logits ({}); give one",
                path.display()
            )));
        }
    };
    let model = ModelRun {
        command: "distill",
        name: "student",
        config: &config,
        loss,
        teacher_logits: logits.as_deref(),
        asked: if asks { &teachers } else { &[] },
        teacher_hashes,
        teachers: &args.teachers,
    };
    model.train(session, resumed, &parts, communicator)
}

/// Teacher logits of the training split [n, classes], and the SHA-256 of what they come from.
type TeacherLogits = (Vec<f32>, BTreeMap<String, String>);

/// Reads the logits that another program wrote: for all training examples, or for those that hold-out,
/// validation and limit leave.
fn read_logits(path: &Path, config: &Config, parts: &Parts) -> Result<TeacherLogits> {
    let Parts { dataset, examples, .. } = parts;
    let (classes, examples) = (dataset.classes, *examples);
    if config.data.jitter.is_some() {
        return Err(Error::Usage(format!(
            "data.jitter needs a teacher model: the logits in {} are those of unshifted images",
            path.display()
        )));
    }
    let mut logits = npy::read_all_logits(path, classes)?;
    let (rows, kept) = (logits.len() / classes, dataset.train.len());
    if rows != kept && rows != examples {
        let left = format!(", or {kept}, which hold-out, validation and limit leave");
        return Err(Error::Data {
            path: path.to_path_buf(),
            what: "rows of the teacher's logits".into(),
            found: rows.to_string(),
            expected: format!(
                "{examples}, one for each training example{}",
                if kept == examples { "" } else { &left }
            ),
        });
    }
    if rows != kept {
        let rows = parts.rows.iter().map(|&row| &logits[row as usize * classes..][..classes]);
        logits = rows.collect::<Vec<_>>().concat();
    }
    let bytes: Vec<u8> = logits.iter().flat_map(|z| z.to_le_bytes()).collect();
    Ok((logits, BTreeMap::from([("teacher logits".to_string(), sha256_of([&bytes]))])))
}

/// The teacher models, and their SHA-256.
fn read_teachers(
    session: &Session,
    paths: &[PathBuf],
    dataset: &Dataset,
) -> Result<(Vec<Mlp>, BTreeMap<String, String>)> {
    let mut teachers = Vec::new();
    let mut hashes = BTreeMap::new();
    for (i, path) in paths.iter().enumerate() {
        let teacher = Mlp::from_file(&session.model(path)?.0);
        data::expect_fit(&teacher, path, dataset.train.input_size(), dataset.classes)?;
        hashes.insert(format!("teacher {i}"), teacher.to_file().sha256());
        teachers.push(teacher);
    }
    Ok((teachers, hashes))
}

/// The logits of teachers on the training split, of several those of their ensemble.
fn ask_teachers(
    session: &Session,
    teachers: &[Mlp],
    config: &Config,
    dataset: &Dataset,
    ranks: Option<&mut Communicator>,
) -> Result<Vec<f32>> {
    let (context, split) = (&session.context, &dataset.train);
    let t = LossSpec::soft(config).temperature;
    let jitter = config.data.jitter.map(|pixels| pixels as u8);
    match ranks {
        None => Ok(distill::teacher_logits(context, teachers, split, t, jitter)),
        Some(ranks) => distill::teacher_logits_together(context, ranks, teachers, split, t, jitter),
    }
}
