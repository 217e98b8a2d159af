//! The training loop: five calls a step (see the crate's documentation), checkpoints, progress.
//!
//! A run can stop after any step and go on elsewhere with the same bits. A checkpoint holds
//! parameters, moments, average, what the optimiser counts, the sums of the current epoch, and the
//! position (epoch, step). Nothing more is needed: the order of the examples is a function of
//! (seed, epoch), jitter and dropout of (seed, epoch, step), so that the position of every random
//! stream follows from it; and no sum depends on threads or ISA.

mod distributed;
mod observer;
mod outcome;
mod resume;
mod step;
mod task;

pub use observer::{EpochRecord, Observer, Progress, Watched};
pub use task::Task;

use crate::engine::loss::{self, LossSpec};
use crate::engine::optimizer::{Optimizer, schedule};
use crate::engine::{communicator::Communicator, config::Config, metrics, mlp::Mlp};
use crate::files::digest::sha256_of;
use crate::files::error::{Error, Result};
use limbeck_datasets::{Batches, Split};
use limbeck_kernels::{Context, softmax::Loss};
use outcome::StepOutcome;
use resume::Timetable;
use std::time::{Duration, Instant};
use std::{collections::BTreeMap, path::Path, sync::Arc};
use step::{Position, Replica, Update};

/// A trained model.
pub struct Trained {
    /// The model: the average of the weights where one is kept.
    pub model: Mlp,
    /// Time spent training, interruptions not counted.
    pub seconds: f64,
    /// Epochs trained.
    pub epochs: usize,
    /// The epoch whose model this is, where training was to stop early.
    pub best_epoch: Option<usize>,
}

/// The name of the watched split by whose loss training stops early.
pub const VALIDATION: &str = "validation";

/// Trains a model from scratch or from `task.initial`, or goes on from the newest checkpoint in
/// `checkpoints`.
///
/// The weights are a function of configuration, data, teacher and initial model alone: not of
/// threads, ISA, or of where the run was interrupted.
///
/// # Errors
/// [`Error::Diverged`] in the step in which a loss, gradient, weight, bias or moment is not finite,
/// or the norm of a unit's weights where it is limited. So checkpoints are finite.
/// [`Error::Interrupted`] after a checkpoint when
/// [`Observer::stop`] says so. [`Error::Data`] for a checkpoint of another configuration or with
/// values that are not finite; [`Error::Io`] where a checkpoint cannot be written.
pub fn train(
    context: &Context,
    task: &Task,
    checkpoints: Option<&Path>,
    observer: &mut dyn Observer,
) -> Result<Trained> {
    context.pool.install(|| {
        let update = match task.config.training.microbatches {
            1 => Update::Fused,
            _ => Update::accumulated(task, 0, 1)?,
        };
        Run::new(task, update, None)?.train(context, checkpoints, observer)
    })
}

/// [`train`] by all ranks of `communicator` together, each with the same task and its part of every
/// batch ([`crate::engine::microbatches`]). All get the model that one process gets with as many
/// [`microbatches`](crate::engine::config::TrainingConfig::microbatches), bit for bit.
///
/// Rank 0 reads and writes the `checkpoints`, which the others leave alone. When
/// [`Observer::stop`] says so on one rank, all end after the same step.
///
/// # Errors
/// As [`train`], on all ranks alike where the numbers are at fault; [`Error::Usage`] for tasks that
/// differ between ranks, or a number of ranks that does not divide the microbatches; [`Error::Lost`].
pub fn train_together(
    context: &Context,
    task: &Task,
    communicator: &mut Communicator,
    checkpoints: Option<&Path>,
    observer: &mut dyn Observer,
) -> Result<Trained> {
    context.pool.install(|| {
        let update = Update::accumulated(task, communicator.rank(), communicator.size())?;
        let checkpoints = checkpoints.filter(|_| communicator.rank() == 0);
        Run::new(task, update, Some(communicator))?.train(context, checkpoints, observer)
    })
}

/// [`train`] from scratch with the optimiser's step apart from backpropagation: every gradient goes
/// through memory, which is slower and must give the same bits. For verification.
///
/// # Errors
/// As [`train`].
pub fn train_unfused(
    context: &Context,
    task: &Task,
    observer: &mut dyn Observer,
) -> Result<Trained> {
    context.pool.install(|| {
        let update = Update::accumulated(task, 0, 1)?;
        Run::new(task, update, None)?.train(context, None, observer)
    })
}

struct Run<'a> {
    task: &'a Task<'a>,
    batches: Batches<'a>,
    replica: Replica<'a>,
    optimizer: Optimizer,
    update: Update,
    /// Of the epochs so far, where training is to stop early.
    best: Option<Best>,
    /// The other ranks, where there are any.
    communicator: Option<&'a mut Communicator>,
    at: Position,
    sums: EpochSums,
    /// Training time before this process.
    earlier: Duration,
    /// SHA-256 of configuration, loss and initial model: the run that a checkpoint belongs to.
    config_sha256: String,
}

/// The epoch with the lowest validation loss, the first of equal ones.
struct Best {
    /// From 1; 0 before there is one.
    epoch: usize,
    /// Mean negative log-likelihood of the validation labels.
    nll: f64,
    /// Of the model as it is evaluated.
    params: Vec<f32>,
}

/// Sums over the examples of the current epoch.
#[derive(Clone, Copy, Default)]
struct EpochSums {
    loss: Loss,
    /// Examples misclassified.
    errors: u64,
    examples: u64,
}

impl EpochSums {
    fn add(&mut self, outcome: StepOutcome, examples: usize) {
        loss::add(&mut self.loss, outcome.loss);
        self.errors += outcome.errors;
        self.examples += examples as u64;
    }
}

/// How fast this process is.
struct Pace {
    start: Instant,
    examples: u64,
    flop: f64,
}

impl Pace {
    fn samples_per_second(&self) -> f64 {
        self.examples as f64 / self.start.elapsed().as_secs_f64()
    }

    fn gflops(&self) -> f64 {
        self.flop / self.start.elapsed().as_secs_f64() / 1e9
    }
}

impl<'a> Run<'a> {
    fn new(
        task: &'a Task<'a>,
        update: Update,
        communicator: Option<&'a mut Communicator>,
    ) -> Result<Self> {
        task.check()?;
        let config = task.config;
        let model = task.initial_model();
        let batch = config.training.batch_size.min(task.split.len());
        let jitter = config.data.jitter.map(|pixels| pixels as u8);
        let batches = Batches::new(task.split, batch, config.seed, jitter).with_views(task.views());
        // A microbatch of a batch that they do not divide may have one example more.
        let capacity = batch.div_ceil(config.training.microbatches);
        Ok(Self {
            at: Position { epoch: 0, step: 0, steps: batches.steps_per_epoch() },
            optimizer: Optimizer::new(&config.training, &model),
            best: config.training.early_stopping.map(|_| Best {
                epoch: 0,
                nll: f64::INFINITY,
                params: model.params().to_vec(),
            }),
            replica: Replica::new(task, model, capacity),
            config_sha256: config_sha256(task, &task.config.without_places())?,
            sums: EpochSums::default(),
            earlier: Duration::ZERO,
            task,
            batches,
            update,
            communicator,
        })
    }

    fn train(
        mut self,
        context: &Context,
        checkpoints: Option<&Path>,
        observer: &mut dyn Observer,
    ) -> Result<Trained> {
        if let Some(folder) = checkpoints {
            self.resume(folder, observer)?;
        }
        self.broadcast_state()?;
        observer.on_start(self.task.name, self.at.epoch)?;
        let name: Arc<str> = self.task.name.into();
        let mut pace = Pace { start: Instant::now(), examples: 0, flop: 0.0 };
        let mut timetable = Timetable::new(self.task.config, pace.start);
        while !self.is_over() {
            self.batches.start_epoch(self.at.epoch as u64, self.at.step);
            while self.at.step < self.at.steps {
                let before = self.sums.examples;
                let outcome = self.step(context, observer)?;
                let batch = self.sums.examples - before;
                pace.examples += batch;
                // Teachers that are asked in each step do a forward pass.
                let of_teacher = |teacher: &Mlp| teacher.flop_of_forward(batch as usize);
                pace.flop += self.replica.model.flop_per_step(batch as usize)
                    + self.task.teachers.iter().map(of_teacher).sum::<f64>();
                // All ranks stop after the same step.
                let alone = self.communicator.is_none();
                let stop = if alone { observer.stop() } else { outcome.stop };
                observer.on_step(&self.progress(&name, &pace));
                if stop || timetable.is_due(false) {
                    self.save(checkpoints, pace.start, observer, &mut timetable)?;
                }
                if stop {
                    observer.on_stop(self.into_model().0);
                    return Err(Error::Interrupted { command: None });
                }
            }
            let record = self.epoch_record(context, &pace);
            observer.on_epoch(&record)?;
            self.keep_if_best(&record);
            self.at = Position { epoch: self.at.epoch + 1, step: 0, ..self.at };
            self.sums = EpochSums::default();
            if timetable.is_due(true) {
                self.save(checkpoints, pace.start, observer, &mut timetable)?;
            }
        }
        let seconds = (self.earlier + pace.start.elapsed()).as_secs_f64();
        let epochs = self.at.epoch;
        let (model, best_epoch) = self.into_model();
        Ok(Trained { model, seconds, epochs, best_epoch })
    }

    /// The model as it is evaluated: that of the best epoch, and which that is, where there is one.
    fn into_model(self) -> (Mlp, Option<usize>) {
        let mut model = self.optimizer.evaluated(self.replica.model);
        let best = self.best.filter(|best| best.epoch > 0);
        if let Some(best) = &best {
            model.params_mut().copy_from_slice(&best.params);
        }
        (model, best.map(|best| best.epoch))
    }

    /// Whether all epochs are done, or as many without a better one as the configuration waits for.
    fn is_over(&self) -> bool {
        let training = &self.task.config.training;
        let stops =
            training.early_stopping.zip(self.best.as_ref()).is_some_and(|(patience, best)| {
                self.at.epoch - best.epoch >= patience && self.at.step == 0
            });
        self.at.epoch >= training.epochs || stops
    }

    fn keep_if_best(&mut self, record: &EpochRecord) {
        let found = record.watched.get(VALIDATION);
        if let (Some(best), Some(found)) = (&mut self.best, found)
            && found.nll < best.nll
        {
            let model = self.optimizer.evaluated(self.replica.model.clone());
            best.params.copy_from_slice(model.params());
            (best.epoch, best.nll) = (record.epoch, found.nll);
        }
    }

    fn progress(&self, name: &Arc<str>, pace: &Pace) -> Progress {
        let EpochSums { loss, errors, examples } = self.sums;
        let epochs = self.task.config.training.epochs;
        let left = self.task.split.len() as u64 * (epochs - self.at.epoch) as u64 - examples;
        let samples_per_second = pace.samples_per_second();
        Progress {
            model: name.clone(),
            epoch: self.at.epoch + 1,
            epochs,
            step: self.at.step,
            steps: self.at.steps,
            loss: self.task.objective.reducible(loss, examples as usize),
            errors: self.task.split.labels.as_ref().map(|_| errors),
            examples,
            samples_per_second,
            gflops: pace.gflops(),
            remaining: Duration::from_secs_f64(left as f64 / samples_per_second),
        }
    }

    fn epoch_record(&self, context: &Context, pace: &Pace) -> EpochRecord {
        let EpochSums { loss, errors, examples } = self.sums;
        let objective = &self.task.objective;
        let last = Position { step: self.at.steps - 1, ..self.at };
        EpochRecord {
            model: self.task.name.to_string(),
            epoch: self.at.epoch + 1,
            loss: objective.value(loss, examples as usize),
            reducible_loss: objective.reducible(loss, examples as usize),
            train_errors: self.task.split.labels.as_ref().map(|_| errors),
            examples,
            learning_rate: schedule::learning_rate(&self.task.config.training, last.epochs_done()),
            seconds: (self.earlier + pace.start.elapsed()).as_secs_f64(),
            samples_per_second: pace.samples_per_second(),
            gflops: pace.gflops(),
            watched: self.watched(context),
        }
    }

    fn watched(&self, context: &Context) -> BTreeMap<String, Watched> {
        let watch = self.task.watch;
        if watch.is_empty() {
            return BTreeMap::new();
        }
        let model = self.optimizer.evaluated(self.replica.model.clone());
        let evaluate = |split: &Split| {
            let (logits, classes) = (model.logits(context, split), model.classes());
            let labels = split.labels.as_deref().unwrap_or_default();
            Watched {
                examples: labels.len(),
                errors: metrics::errors(&logits, labels, classes),
                nll: metrics::nll(&logits, labels, classes),
            }
        };
        watch.iter().map(|(name, split)| (name.to_string(), evaluate(split))).collect()
    }
}

/// What a checkpoint is known by, in the words of the first version: runs begun with it go on. It says
/// nothing of where the data lie, whose contents the caller knows.
fn config_sha256(task: &Task, config: &Config) -> Result<String> {
    let LossSpec { temperature, soft_weight, hard_weight } = task.objective;
    let loss = format!(
        "Objective {{ temperature: {temperature:?}, soft_weight: {soft_weight:?}, hard_weight: \
         {hard_weight:?} }} {}",
        task.name
    );
    let sha256 = |model: &Mlp| model.to_file().sha256();
    let initial = task.initial.map_or(String::new(), sha256);
    let teachers: String = task.teachers.iter().map(sha256).collect();
    Ok(sha256_of([&config.to_first_toml()?, &loss, &initial, &teachers]))
}
