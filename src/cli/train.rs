//! `limbeck train` and `limbeck distill`: one model from a configuration.

use super::pages;
use super::progress;
use super::session::Session;
use clap::Args;
use limbeck::engine::communicator::Communicator;
use limbeck::engine::config::Config;
use limbeck::engine::data;
use limbeck::engine::distill;
use limbeck::engine::loss::LossSpec;
use limbeck::engine::trainer::Task;
use limbeck::run::context::RunContext;
use limbeck::run::folder::RunFolder;
use limbeck::run::summary::{Row, Summary};
use limbeck::{Error, Result};
use limbeck_datasets::{Dataset, npy};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

#[derive(Args)]
pub struct TrainArgs {
    /// Configuration in TOML
    #[arg(value_name = "CONFIG", required_unless_present = "resume")]
    config: Option<PathBuf>,

    /// Continue the interrupted run in this folder, with the configuration kept there
    #[arg(long, value_name = "RUN", conflicts_with = "config")]
    resume: Option<PathBuf>,
}

#[derive(Args)]
pub struct DistillArgs {
    #[command(flatten)]
    train: TrainArgs,

    /// Teacher; several are an ensemble. Absent if the configuration names teacher_logits
    #[arg(long = "teacher", value_name = "MODEL", num_args = 1..)]
    teachers: Vec<PathBuf>,
}

pub fn train(
    session: &Session,
    args: &TrainArgs,
    communicator: Option<&mut Communicator>,
) -> Result<()> {
    let (config, begun) = begin(session, args)?;
    let dataset = data(session, args, &config)?;
    let model = Model {
        name: "model",
        config: &config,
        objective: LossSpec::HARD,
        teacher_logits: None,
        teacher_hashes: BTreeMap::new(),
        teachers: &[],
    };
    model.run(session, begun, "train", &dataset, communicator)
}

pub fn distill(
    session: &Session,
    args: &DistillArgs,
    mut communicator: Option<&mut Communicator>,
) -> Result<()> {
    let (config, begun) = begin(session, &args.train)?;
    let objective = LossSpec::soft(&config);
    let logits_file = config.distillation.as_ref().and_then(|table| table.teacher_logits.as_ref());
    let dataset = data(session, &args.train, &config)?;
    let (inputs, classes) = (dataset.train.input_size(), dataset.classes);
    let mut teacher_hashes = BTreeMap::new();
    let logits = match (logits_file, &args.teachers[..]) {
        (Some(path), []) => {
            if config.data.jitter.is_some() {
                return Err(Error::Usage(format!(
                    "data.jitter needs a teacher model: the logits in {} are those of unshifted \
                     images",
                    path.display()
                )));
            }
            let logits = npy::read_logits(path, dataset.train.len(), classes)?;
            let bytes: Vec<u8> = logits.iter().flat_map(|z| z.to_le_bytes()).collect();
            teacher_hashes
                .insert("teacher logits".to_string(), limbeck::files::digest::sha256_of([&bytes]));
            logits
        }
        (None, paths @ [_, ..]) => {
            let mut teachers = Vec::new();
            for (i, path) in paths.iter().enumerate() {
                let teacher = data::load_model(path, inputs, classes)?;
                teacher_hashes.insert(format!("teacher {i}"), teacher.to_file().sha256());
                teachers.push(teacher);
            }
            let (context, split, t) = (&session.context, &dataset.train, objective.temperature);
            let jitter = config.data.jitter.map(|pixels| pixels as u8);
            match &mut communicator {
                None => distill::teacher_logits(context, &teachers, split, t, jitter),
                Some(communicator) => {
                    communicator.agree("the teachers", &format!("{teacher_hashes:?}"))?;
                    distill::teacher_logits_together(
                        context,
                        communicator,
                        &teachers,
                        split,
                        t,
                        jitter,
                    )?
                }
            }
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
    let model = Model {
        name: "student",
        config: &config,
        objective,
        teacher_logits: Some(&logits),
        teacher_hashes,
        teachers: &args.teachers,
    };
    model.run(session, begun, "distill", &dataset, communicator)
}

/// The configuration of a new run, or that of an interrupted one with its folder.
fn begin(session: &Session, args: &TrainArgs) -> Result<(Config, Option<RunFolder>)> {
    let Some(folder) = &args.resume else {
        let path = args.config.as_deref();
        let mut config = Config::load(path.ok_or_else(|| Error::Usage("no CONFIG".into()))?)?;
        config.seed = session.seed.unwrap_or(config.seed);
        return Ok((config, None));
    };
    if !session.leads {
        // The folder is rank 0's.
        return Ok((Config::load(&folder.join("config.toml"))?, None));
    }
    if session.seed.is_some() || session.out.is_some() {
        return Err(Error::Usage(
            "--resume continues a run as it began: leave out --seed and --out".into(),
        ));
    }
    let folder = RunFolder::open(folder)?;
    if folder.summary().exists() {
        let folder = folder.root.display();
        return Err(Error::Usage(format!("the run in {folder} is finished")));
    }
    Ok((Config::load(&folder.config())?, Some(folder)))
}

fn data(session: &Session, args: &TrainArgs, config: &Config) -> Result<Dataset> {
    let kept = args.resume.as_ref().map(|folder| folder.join("config.toml"));
    let origin = kept.or_else(|| args.config.clone()).unwrap_or_default();
    data::load_data(config, &origin, session.data.as_deref())
}

/// The model to train.
struct Model<'a> {
    name: &'a str,
    config: &'a Config,
    objective: LossSpec,
    /// [n, classes] of the training split.
    teacher_logits: Option<&'a [f32]>,
    /// SHA-256 of what the teacher's logits come from.
    teacher_hashes: BTreeMap<String, String>,
    /// The models that they come from.
    teachers: &'a [PathBuf],
}

impl Model<'_> {
    fn run(
        self,
        session: &Session,
        begun: Option<RunFolder>,
        command: &str,
        dataset: &Dataset,
        mut communicator: Option<&mut Communicator>,
    ) -> Result<()> {
        let task = Task {
            name: self.name,
            config: self.config,
            split: &dataset.train,
            objective: self.objective,
            teacher_logits: self.teacher_logits,
            initial: None,
            watch: &[],
        };
        // Before a folder is made for what cannot begin.
        task.check()?;
        if let Some(communicator) = &mut communicator {
            communicator.agree("the data", &format!("{:?}", self.sources(dataset)))?;
        }
        let mut progress = progress::observer(session);
        let mut run = session.run_context(&mut *progress)?;
        if let Some(communicator) =
            communicator.as_deref_mut().filter(|communicator| communicator.rank() > 0)
        {
            // Rank 0 keeps the run folder, and says what there is to say.
            return limbeck::run::training::follow(&run, &task, communicator);
        }
        run.communicator = communicator;
        let folder = match begun {
            Some(folder) => self.resume(dataset, folder)?,
            None => {
                let out = session
                    .out
                    .clone()
                    .map_or_else(|| limbeck::run::folder::default_out(command), Ok)?;
                self.begin(&run, dataset, RunFolder::create(&out)?)?
            }
        };
        session.note(&format!("writing to {}", folder.root.display()));
        let seed = self.config.seed;
        let trained = limbeck::run::training::train_model(&mut run, &folder, dataset, &task, seed);
        drop(progress);
        let resume = || self.resume_command(command, &folder);
        let (_, row) = trained.map_err(|error| session.resumable(error, resume()))?;
        let summary = Summary::new(command, &dataset.name, "config", vec![row.clone()], &[]);
        folder.write_json("summary.json", &summary)?;
        limbeck::run::training::remove_checkpoints(&folder, self.name, seed)?;
        session.result(&Report {
            dataset: dataset.name.clone(),
            test_examples: dataset.test.len(),
            run: folder.root.clone(),
            row,
        })?;
        pages::finish(session, std::slice::from_ref(&folder.root))
    }

    /// SHA-256 of everything that the run reads.
    fn sources(&self, dataset: &Dataset) -> BTreeMap<String, String> {
        let mut sources = dataset.sha256.clone();
        sources.extend(self.teacher_hashes.clone());
        sources
    }

    /// Writes down what is going to be trained.
    fn begin(&self, run: &RunContext, dataset: &Dataset, folder: RunFolder) -> Result<RunFolder> {
        let resolved = self.config.to_toml()?;
        limbeck::files::write::atomic_write(&folder.config(), resolved.as_bytes())?;
        let mut manifest = limbeck::run::context::manifest(run, dataset, vec![self.config.seed]);
        manifest.data = self.sources(dataset);
        manifest.loss_contract = self.teacher_logits.map(|_| self.objective);
        manifest.config = Some(resolved);
        folder.write_json("manifest.json", &manifest)?;
        Ok(folder)
    }

    fn resume_command(&self, command: &str, folder: &RunFolder) -> Vec<String> {
        let shown = |path: &PathBuf| path.display().to_string();
        let mut arguments = vec!["limbeck".into(), command.into()];
        arguments.extend(["--resume".into(), shown(&folder.root)]);
        if !self.teachers.is_empty() {
            arguments.push("--teacher".into());
            arguments.extend(self.teachers.iter().map(shown));
        }
        arguments
    }

    /// Checks that data and teachers are those with which the run began.
    fn resume(&self, dataset: &Dataset, folder: RunFolder) -> Result<RunFolder> {
        folder.expect_data(&self.sources(dataset))?;
        Ok(folder)
    }
}

#[derive(Serialize)]
struct Report {
    dataset: String,
    test_examples: usize,
    run: PathBuf,
    #[serde(flatten)]
    row: Row,
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Report { row, run, .. } = self;
        writeln!(
            f,
            "{} errors in {} test examples of {}, trained in {:.1} s",
            row.test_errors, self.test_examples, self.dataset, row.seconds
        )?;
        writeln!(f, "{}", run.join(&row.model).display())
    }
}
