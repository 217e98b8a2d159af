//! What `train` and `distill` share: the run of one model, new or resumed.

use crate::pages;
use crate::progress;
use crate::session::Session;
use clap::Args;
use limbeck::engine::communicator::Communicator;
use limbeck::engine::config::{Config, Overrides, Precision, SplitKind};
use limbeck::engine::data::{self, Parts};
use limbeck::engine::doubts;
use limbeck::engine::loss::LossSpec;
use limbeck::engine::metrics::Confusion;
use limbeck::engine::mlp::Mlp;
use limbeck::engine::standardize;
use limbeck::engine::trainer::{Task, VALIDATION};
use limbeck::files::read::read_json;
use limbeck::files::shown::ShownPath;
use limbeck::files::write::atomic_write;
use limbeck::run::by_class::ByClass;
use limbeck::run::context::{self, RunContext};
use limbeck::run::folder::{RunFolder, default_out};
use limbeck::run::manifest;
use limbeck::run::summary::{Row, Summary};
use limbeck::run::training::{self, BEST_EPOCH};
use limbeck::{Error, Result};
use limbeck_datasets::Dataset;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::slice;

/// Which configuration to train.
#[derive(Args)]
pub struct ConfigArgs {
    /// Configuration in TOML
    #[arg(value_name = "CONFIG", required_unless_present = "resume")]
    config: Option<PathBuf>,

    /// Set a key of the configuration, as in --set training.epochs=20
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "resume")]
    set: Vec<String>,

    /// Continue the interrupted run in this folder, with the configuration kept there
    #[arg(long, value_name = "RUN", conflicts_with = "config")]
    resume: Option<PathBuf>,
}

impl ConfigArgs {
    /// Reads the configuration of a new run of `command`, or that of an interrupted one, whose folder it
    /// opens; and the data. What a new configuration leaves open is decided by the data.
    ///
    /// # Errors
    /// Those of [`Config::load`], [`RunFolder::open`] and [`data::load_data`]; [`Error::Usage`] for a run
    /// that is finished, or options that would change an interrupted one.
    pub fn prepare(&self, session: &Session, command: &str) -> Result<Prepared> {
        let (mut config, resumed) = self.open(session, command)?;
        let (located, teachers) = self.located(session, &config)?;
        let kept = self.resume.as_ref().map(|folder| folder.join("config.toml"));
        let origin = kept.or_else(|| self.config.clone()).unwrap_or_default();
        let whole = data::load_whole(&located, &origin, session.data.as_deref())?;
        whole.notes.iter().for_each(|remark| session.say(remark));
        let parts = data::cut(whole, &located, &origin)?;
        let initial = initial(session, &located, &parts.dataset)?;
        if self.resume.is_none() {
            tell_unused(session, &config, parts.rows.len());
            let silent = config.silent_teacher().filter(|_| command == "distill");
            silent.iter().for_each(|silent| session.warn(silent));
            if config.data.dataset.is_own() {
                decide(session, &mut config, &parts);
            }
        }
        Ok(Prepared { config, located, parts, initial, teachers, resumed })
    }

    fn open(&self, session: &Session, command: &str) -> Result<(Config, Option<RunFolder>)> {
        let Some(folder) = &self.resume else {
            let path = self.config.as_deref();
            let path = path.ok_or_else(|| Error::Usage("no CONFIG".into()))?;
            let mut config = Config::load_with(path, &Overrides::new(&self.set)?)?;
            config.seed = session.seed.unwrap_or(config.seed);
            return Ok((config, None));
        };
        if !session.leads {
            // Only rank 0 opens the folder.
            return Ok((Config::load(&folder.join("config.toml"))?, None));
        }
        if session.seed.is_some() || session.out.is_some() {
            return Err(Error::Usage(
                "--resume continues a run as it began: leave out --seed and --out".into(),
            ));
        }
        let folder = RunFolder::open(folder)?;
        if folder.summary().exists() {
            Summary::read(&folder.summary())?;
            let folder = folder.root.display();
            return Err(Error::Usage(format!(
                "the run in {folder} is finished; its page: limbeck report {folder}"
            )));
        }
        let loss = folder.read_manifest()?.remove("loss_contract").unwrap_or_default();
        let begun = if loss.is_null() { "train" } else { "distill" };
        if begun != command {
            return Err(Error::Usage(format!(
                "{0}: found a run of `{begun}`, expected one of `{command}`: limbeck {begun} --resume {0}",
                folder.root.display()
            )));
        }
        let config = Config::load(&folder.config())?;
        folder.expect_config(&config)?;
        Ok((config, Some(folder)))
    }

    /// `config` with the places where its files are now, and the teacher models that an interrupted run
    /// began with: such a run may have been moved.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that is nowhere; [`Error::Io`] and [`Error::Data`] of the manifest.
    fn located(&self, session: &Session, config: &Config) -> Result<(Config, Vec<PathBuf>)> {
        let Some(folder) = &self.resume else { return Ok((config.clone(), Vec::new())) };
        let manifest = read_json(&folder.join("manifest.json"), "manifest")?;
        let (data, asked) = (session.data.as_deref(), session.data_is_asked);
        let mut located = manifest::located(config, &manifest, data, asked);
        if let Some((key, path)) = located.paths_mut().find(|(_, path)| !path.exists()) {
            let advice = format!("no such file, the run's {key}: give its folder as --data DIR");
            let source = io::Error::new(io::ErrorKind::NotFound, advice);
            return Err(Error::io("read", path)(source));
        }
        Ok((located, manifest::teachers(&manifest, data, asked)))
    }
}

/// Says what a new configuration says in vain, of `n` training examples.
fn tell_unused(session: &Session, config: &Config, n: usize) {
    config.unused().iter().for_each(|unused| session.warn(unused));
    let there_are = |key: &str, value: usize, effect: &str| {
        session.note(&format!("{key} = {value}: there are {n} training examples{effect}"));
    };
    if let Some(limit) = config.data.train_limit.filter(|&limit| limit > n) {
        there_are("data.train_limit", limit, "");
    }
    let batch = config.training.batch_size;
    if batch > n {
        there_are("training.batch_size", batch, ", and each epoch is one step");
    }
}

/// Decides what a new configuration of one's own data leaves open, and says so.
fn decide(session: &Session, config: &mut Config, parts: &Parts) {
    let Parts { dataset, validation, examples, .. } = parts;
    let keys = &mut config.data;
    let split = keys.split_kind();
    keys.split = Some(split);
    let how = match split {
        SplitKind::Last => "the last ones".to_string(),
        SplitKind::Stratified => {
            format!("of each class its share, by split_seed {}", keys.split_seed)
        }
    };
    let held = keys.holdout.map(|_| &dataset.test);
    for (key, part) in [("holdout", held), ("validation", validation.as_ref())] {
        if let Some(part) = part {
            let n = part.len();
            session.note(&format!("{key}: {n} of {examples} training examples, {how}"));
        }
    }
    if held.is_some() && (keys.test_table.is_some() || keys.test_images.is_some()) {
        session.note("the test set is not read: the hold-out takes its place");
    }
    let choice = standardize::choose(keys.standardize, &dataset.train, &dataset.names);
    choice.doubts.iter().for_each(|doubt| session.warn(doubt));
    choice.constant.iter().for_each(|constant| session.note(constant));
    choice.why.iter().for_each(|why| session.note(why));
    keys.standardize = Some(choice.how);
}

/// All that a run begins with.
pub struct Prepared {
    /// What it leaves to the data, [`data::complete`] puts in.
    pub config: Config,
    /// The same with the places where its files are now.
    pub located: Config,
    pub parts: Parts,
    /// The model to start from.
    pub initial: Option<Mlp>,
    /// The teacher models that an interrupted run began with.
    pub teachers: Vec<PathBuf>,
    /// The folder of an interrupted run.
    pub resumed: Option<RunFolder>,
}

/// The model that a located configuration starts from, if it names one.
///
/// # Errors
/// Those of [`Session::model`].
fn initial(session: &Session, located: &Config, dataset: &Dataset) -> Result<Option<Mlp>> {
    let path = located.model.initial.as_deref();
    let model = |path: &Path| {
        let file = session.model(path)?.0.arranged(&dataset.names, path)?;
        Ok(Mlp::from_file(&file))
    };
    path.map(model).transpose()
}

/// The run of one model.
pub struct ModelRun<'a> {
    /// The command that trains it, which also resumes it.
    pub command: &'a str,
    /// The model's name in the files of the run.
    pub name: &'a str,
    pub config: &'a Config,
    pub loss: LossSpec,
    /// [n, classes] of the training split.
    pub teacher_logits: Option<&'a [f32]>,
    /// The teachers that are asked in each step.
    pub asked: &'a [Mlp],
    /// SHA-256 of the files that the teacher's logits come from, by name.
    pub teacher_hashes: BTreeMap<String, String>,
    /// The files of the teacher models.
    pub teachers: &'a [PathBuf],
    /// The model to start from, in place of random weights.
    pub initial: Option<&'a Mlp>,
}

impl ModelRun<'_> {
    /// Trains the model in a new folder or in the `resumed` one, prints its row and writes the
    /// report.
    ///
    /// # Errors
    /// Those of [`training::train_model`]; [`Error::Data`] if a resumed run began with other data
    /// or teachers.
    pub fn train(
        self,
        session: &Session,
        resumed: Option<RunFolder>,
        parts: Parts,
        mut communicator: Option<&mut Communicator>,
    ) -> Result<()> {
        let dataset = &parts.dataset;
        let watch: Vec<_> = parts.validation.iter().map(|part| (VALIDATION, part)).collect();
        let task = Task {
            name: self.name,
            config: self.config,
            split: &dataset.train,
            objective: self.loss,
            teacher_logits: self.teacher_logits,
            teachers: self.asked,
            initial: self.initial,
            watch: &watch,
        };
        // No folder is made for a task that cannot begin.
        task.check()?;
        if let Some(communicator) = &mut communicator {
            communicator.agree("the data", &format!("{:?}", self.sources(dataset)))?;
        }
        let train = &dataset.train;
        let doubts = [
            doubts::labels(&dataset.names, train, "test", &dataset.test),
            parts
                .validation
                .as_ref()
                .and_then(|part| doubts::labels(&dataset.names, train, VALIDATION, part)),
            // Teacher models were judged as they were read.
            self.teacher_logits
                .filter(|_| self.teachers.is_empty())
                .and_then(|logits| doubts::logits(logits, &dataset.train, dataset.classes)),
            standardize::outside(train, "test", &dataset.test, &dataset.names),
            (dataset.train.inputs == dataset.test.inputs).then(|| {
                "the test examples are the training examples: their errors say nothing of others".into()
            }),
        ];
        doubts.into_iter().flatten().for_each(|doubt| session.warn(&doubt));
        let mut progress = progress::observer(session);
        let mut run = session.run_context(&mut *progress)?;
        if let Some(communicator) =
            communicator.as_deref_mut().filter(|communicator| communicator.rank() > 0)
        {
            // Rank 0 keeps the run folder, and prints the result.
            return training::follow(&run, &task, communicator);
        }
        run.communicator = communicator;
        let folder = match resumed {
            Some(folder) => {
                folder.expect_data(&self.sources(dataset))?;
                let lost = training::lost_checkpoints(&folder, self.name, self.config.seed);
                lost.iter().for_each(|lost| session.warn(lost));
                folder
            }
            None => {
                let out = session.out.clone().map_or_else(|| default_out(self.command), Ok)?;
                let folder = RunFolder::create(&out)?;
                self.record_start(&run, dataset, &folder)?;
                folder
            }
        };
        session.note(&format!("writing to {}", folder.root.display()));
        let seed = self.config.seed;
        let trained = training::train_model(&mut run, &folder, dataset, &task, seed);
        drop(progress);
        let resume = || self.resume_command(&folder);
        let (model, row) = trained.map_err(|error| session.resumable(error, resume()))?;
        let by_class = self.by_class(session, dataset, &model);
        let mut summary =
            Summary::new(self.command, &dataset.name, "config", vec![row.clone()], &[]);
        summary.precision = self.config.training.precision;
        summary.test_examples = Some(dataset.test.len());
        folder.write_json("summary.json", &summary)?;
        training::remove_checkpoints(&folder, self.name, seed)?;
        session.result(&Outcome {
            dataset: dataset.name.clone(),
            test_examples: dataset.test.len(),
            precision: self.config.training.precision,
            run: folder.root.clone().into(),
            row,
            by_class,
        })?;
        pages::write_reports(session, slice::from_ref(&folder.root), &[Rc::new(parts.dataset)])
    }

    /// What the model makes of each class of the test set; and a warning where that is nothing.
    fn by_class(&self, session: &Session, dataset: &Dataset, model: &Mlp) -> ByClass {
        let labels = dataset.test.labels.as_deref().unwrap_or_default();
        let logits = model.logits(&session.context, &dataset.test);
        let confusion = Confusion::new(&logits, labels, dataset.classes);
        let failed = doubts::did_not_learn(&confusion, &dataset.names);
        failed.iter().for_each(|failed| session.warn(failed));
        ByClass::new(&confusion, &dataset.names)
    }

    /// SHA-256 of every file that the run reads, by name.
    fn sources(&self, dataset: &Dataset) -> BTreeMap<String, String> {
        let mut sources = dataset.sha256.clone();
        sources.extend(self.teacher_hashes.clone());
        let initial = self.initial.map(|model| ("initial".to_string(), model.to_file().sha256()));
        sources.extend(initial);
        sources
    }

    /// Writes the configuration and the manifest, before any training.
    fn record_start(&self, run: &RunContext, dataset: &Dataset, folder: &RunFolder) -> Result<()> {
        let resolved = self.config.kept_in(&folder.root)?.to_toml()?;
        atomic_write(&folder.config(), resolved.as_bytes())?;
        let mut manifest = context::manifest(run, dataset, vec![self.config.seed]);
        manifest.data = self.sources(dataset);
        manifest.loss_contract = (self.command == "distill").then_some(self.loss);
        let mut config = self.config.clone();
        let paths = config.paths_mut();
        let paths = paths.map(|(key, path)| (key.to_string(), path.display().to_string()));
        manifest.paths = paths.collect();
        for (i, path) in self.teachers.iter().enumerate() {
            let path = std::path::absolute(path).map_err(Error::io("resolve", path))?;
            manifest.paths.insert(manifest::teacher_key(i), path.display().to_string());
        }
        manifest.precision = self.config.training.precision;
        manifest.config = Some(resolved);
        folder.write_json("manifest.json", &manifest)
    }

    /// The command that continues the run.
    fn resume_command(&self, folder: &RunFolder) -> Vec<String> {
        let path = |path: &PathBuf| path.display().to_string();
        let mut arguments = vec!["limbeck".into(), self.command.into()];
        arguments.extend(["--resume".into(), path(&folder.root)]);
        if !self.teachers.is_empty() {
            arguments.push("--teacher".into());
            arguments.extend(self.teachers.iter().map(path));
        }
        arguments
    }
}

/// The trained model and its errors.
#[derive(Serialize)]
struct Outcome {
    dataset: String,
    test_examples: usize,
    precision: Precision,
    run: ShownPath,
    #[serde(flatten)]
    row: Row,
    by_class: ByClass,
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Outcome { row, run, .. } = self;
        writeln!(
            f,
            "{} errors in {} test examples of {}, trained in {:.1} s",
            row.test_errors, self.test_examples, self.dataset, row.seconds
        )?;
        if let (Some(best), Some(epochs)) = (row.value(&BEST_EPOCH), row.epochs) {
            writeln!(
                f,
                "the model of epoch {best}, the best of {epochs} on the validation examples"
            )?;
        }
        let ByClass { balanced_accuracy, commonest, errors_of_commonest, .. } = &self.by_class;
        writeln!(
            f,
            "balanced accuracy {:.2} %; always answering \"{commonest}\" makes {errors_of_commonest} \
             errors",
            100.0 * balanced_accuracy
        )?;
        writeln!(f, "{}", run.join(&row.model).display())
    }
}
