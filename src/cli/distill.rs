//! `limbeck distill`: the model of a configuration, on the soft targets of teachers.

use crate::one_model::{ConfigArgs, ModelRun, Prepared};
use crate::session::Session;
use clap::Args;
use limbeck::engine::communicator::Communicator;
use limbeck::engine::config::Config;
use limbeck::engine::data::{self, Parts};
use limbeck::engine::distill;
use limbeck::engine::doubts;
use limbeck::engine::loss::LossSpec;
use limbeck::engine::mlp::Mlp;
use limbeck::engine::teacher::{self, Given};
use limbeck::files::digest::sha256_of;
use limbeck::run::manifest::{self, command_line};
use limbeck::{Error, Result};
use limbeck_datasets::Dataset;
use limbeck_datasets::npy::Matrix;
use std::collections::BTreeMap;
use std::io;
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
    let Prepared { mut config, located, mut parts, initial, teachers: began_with, resumed } =
        args.config.prepare(session, "distill")?;
    let models = match &args.teachers[..] {
        [] => &began_with[..],
        given => given,
    };
    if let Some(gone) = models.iter().find(|path| args.teachers.is_empty() && !path.exists()) {
        let advice = "no such file, a teacher that the run began with: give its folder as --data DIR, or the \
                      models as --teacher";
        return Err(Error::io("read", gone)(io::Error::new(io::ErrorKind::NotFound, advice)));
    }
    let loss = LossSpec::soft(&config);
    let table = located.distillation.as_ref();
    let file = table.and_then(|table| {
        let logits = table.teacher_logits.as_deref().map(|path| (path, Given::Logits));
        logits.or(table.teacher_probs.as_deref().map(|path| (path, Given::Probs)))
    });
    let asks = config.distillation.iter().any(|table| !table.views.is_empty());
    let mut teachers = Vec::new();
    let (logits, teacher_hashes) = match (file, models) {
        (Some((path, given)), []) => {
            let (matrix, remark) = teacher::read(path, given)?;
            remark.iter().for_each(|remark| session.say(remark));
            learn_classes(matrix.columns, &config, &mut parts.dataset);
            teacher::expect_classes(path, matrix.columns, parts.dataset.classes)?;
            let (logits, hashes) = of_file(path, matrix, &config, &parts)?;
            (Some(logits), hashes)
        }
        (None, [_, ..]) => {
            let hashes;
            (teachers, hashes) = read_teachers(session, models, &config, &mut parts.dataset)?;
            if let Some(ranks) = communicator.as_deref_mut() {
                ranks.agree("the teachers", &format!("{hashes:?}"))?;
            }
            let ranks = communicator.as_deref_mut();
            // With views they are asked in each step.
            let once = || ask_teachers(session, &teachers, &config, &parts.dataset, ranks);
            ((!asks).then(once).transpose()?, hashes)
        }
        (None, []) => {
            return Err(Error::Usage(match &resumed {
                None => "no teacher: give --teacher MODEL, or distillation.teacher_logits or teacher_probs \
                         in the configuration"
                    .into(),
                // Of a version that did not write down where they lay.
                Some(folder) => {
                    let command = folder.read_manifest()?.remove("command").unwrap_or_default();
                    format!(
                        "no teacher: limbeck distill --resume {} --teacher with the models that the run \
                         began with: {}",
                        folder.root.display(),
                        command_line(&command)
                    )
                }
            }));
        }
        (Some((path, _)), _) => {
            return Err(Error::Usage(format!(
                "two teachers: --teacher and the configuration's teacher_logits or teacher_probs ({}); \
                 give one",
                path.display()
            )));
        }
    };
    data::complete(&mut config, &parts.dataset, initial.as_ref())?;
    let model = ModelRun {
        command: "distill",
        name: "student",
        config: &config,
        loss,
        teacher_logits: logits.as_deref(),
        asked: if asks { &teachers } else { &[] },
        teacher_hashes,
        teachers: models,
        initial: initial.as_ref(),
    };
    model.train(session, resumed, parts, communicator)
}

/// Teacher logits of the training split [n, classes], and the SHA-256 of what they come from.
type TeacherLogits = (Vec<f32>, BTreeMap<String, String>);

/// A transfer set without labels, whose classes nobody has counted, has those of its teacher.
fn learn_classes(found: usize, config: &Config, dataset: &mut Dataset) {
    let unknown = config.data.classes == 0 && dataset.train.labels.is_none();
    if unknown && dataset.names.classes.is_empty() {
        dataset.classes = dataset.classes.max(found);
    }
}

/// The logits that another program wrote: for all training examples, or for those that hold-out,
/// validation and limit leave.
fn of_file(path: &Path, matrix: Matrix, config: &Config, parts: &Parts) -> Result<TeacherLogits> {
    let Parts { dataset, examples, .. } = parts;
    let (classes, examples) = (dataset.classes, *examples);
    if config.data.jitter.is_some() {
        return Err(Error::Usage(format!(
            "data.jitter needs a teacher model: the logits in {} are those of unshifted images",
            path.display()
        )));
    }
    let mut logits = matrix.values;
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
    config: &Config,
    dataset: &mut Dataset,
) -> Result<(Vec<Mlp>, BTreeMap<String, String>)> {
    let mut teachers = Vec::new();
    let mut hashes = BTreeMap::new();
    for (i, path) in paths.iter().enumerate() {
        let (file, sha256) = session.model(path)?;
        let teacher = Mlp::from_file(&file.arranged(&dataset.names, path)?);
        learn_classes(teacher.classes(), config, dataset);
        data::expect_fit(&teacher, path, dataset.train.input_size(), dataset.classes)?;
        // Here, where its file is known, and of the images as they are, however they are shown later: a
        // teacher that overflows is refused, and one of other classes told.
        let n = dataset.train.len();
        let asked: Vec<u32> = (0..n.min(10_000)).map(|i| (i * n / n.min(10_000)) as u32).collect();
        let name =
            |i: usize| format!("{}: training example {}, counted from 0", path.display(), asked[i]);
        let examples = dataset.train.subset(&asked);
        let logits = data::finite_logits(&session.context, &teacher, &examples, name)?;
        if let Some(doubt) = doubts::logits(&logits, &examples, dataset.classes) {
            session.warn(&format!("{}: {doubt}", path.display()));
        }
        hashes.insert(manifest::teacher_key(i), sha256);
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
