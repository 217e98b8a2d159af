//! The training loop: five calls a step (see the crate's documentation), checkpoints, progress.
//!
//! A run can stop after any step and go on elsewhere with the same bits. A checkpoint holds
//! parameters, moments, average, the powers of Adam's β, the sums of the current epoch, and the
//! position (epoch, step). Nothing more is needed: the order of the examples is a function of
//! (seed, epoch), jitter and dropout of (seed, epoch, step), so that the position of every random
//! stream follows from it; and no sum depends on threads or ISA.

use crate::engine::communicator::Communicator;
use crate::engine::config::Config;
use crate::engine::loss::{self, LossSpec};
use crate::engine::metrics;
use crate::engine::microbatches::Shards;
use crate::engine::mlp::{InputScale, Mlp, Workspace};
use crate::engine::optimizer::{self, Optimizer};
use crate::engine::params;
use crate::files::checkpoint::{self, TrainingState};
use crate::files::digest::sha256_of;
use crate::files::error::{Error, Result};
use limbeck_datasets::{Batch, Batches, Inputs, Split};
use limbeck_kernels::random::{Dropout, Key};
use limbeck_kernels::softmax::Loss;
use limbeck_kernels::{Buffer, Context, Panels, PanelsMut, activation, panel_len, reduce};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One model to train.
pub struct Task<'a> {
    /// What it is called in progress and metrics: `teacher`, `student`, …
    pub name: &'a str,
    /// Everything but the data and the loss.
    pub config: &'a Config,
    /// The training or transfer set.
    pub split: &'a Split,
    /// The loss.
    pub objective: LossSpec,
    /// The teacher's logits [shifts, n, classes] for the examples of `split`, row-major, as
    /// [`crate::engine::distill::teacher_logits`] gives them; needed for a soft term.
    pub teacher_logits: Option<&'a [f32]>,
    /// The model to start from, in place of random weights; of the widths that `config` has.
    pub initial: Option<&'a Mlp>,
    /// Labelled splits on which the model is evaluated after every epoch, by name; for learning
    /// curves.
    pub watch: &'a [(&'a str, &'a Split)],
}

impl<'a> Task<'a> {
    /// Training on labels.
    pub fn hard(name: &'a str, config: &'a Config, split: &'a Split) -> Task<'a> {
        Task {
            name,
            config,
            split,
            objective: LossSpec::HARD,
            teacher_logits: None,
            initial: None,
            watch: &[],
        }
    }

    /// Training on the teacher's `logits`, with what `objective` says.
    pub fn soft(
        name: &'a str,
        config: &'a Config,
        split: &'a Split,
        objective: LossSpec,
        logits: &'a [f32],
    ) -> Task<'a> {
        Task { objective, teacher_logits: Some(logits), ..Task::hard(name, config, split) }
    }

    /// The model before its first step: the one to start from, or He's weights times `init_scale`.
    pub fn initial_model(&self) -> Mlp {
        let config = self.config;
        self.initial.cloned().unwrap_or_else(|| {
            let mut model = Mlp::new(&config.model.layers, config.seed);
            model.input = InputScale::of(&self.split.inputs);
            let init_scale = config.model.init_scale as f32;
            model.params_mut().iter_mut().for_each(|p| *p *= init_scale);
            model
        })
    }

    /// Whether there is something to train on, and all that the loss needs.
    ///
    /// # Errors
    /// [`Error::Usage`] for an empty training set, teacher's logits that are missing or do not fit,
    /// missing labels, or an initial model of other widths; [`Error::Dataset`] for features, logits
    /// or an initial model that are not finite.
    pub fn check(&self) -> Result<()> {
        let examples = self.split.len();
        if examples == 0 {
            return Err(Error::Usage("the training set is empty".into()));
        }
        if let (Inputs::Features(_), Some(jitter)) = (&self.split.inputs, self.config.data.jitter) {
            return Err(Error::Usage(format!(
                "jitter: found {jitter}, expected none: it moves images, and these are frames"
            )));
        }
        let classes = self.config.model.layers.last().copied().unwrap_or(0);
        let teacher = self.teacher_logits.unwrap_or(&[]);
        let shifts = self.config.data.jitter.map_or(1, |j| (2 * j + 1) * (2 * j + 1));
        if let Inputs::Features(frames) = &self.split.inputs {
            let mut space = vec![0.0; frames.input_size()];
            for i in 0..examples {
                let what = || format!("example {i} of the training set");
                expect_finite(frames.input(i, &mut space), what)?;
            }
        }
        expect_finite(teacher, || "the teacher's logits".into())?;
        expect_finite(self.initial.map_or(&[], Mlp::params), || "the initial model".into())?;
        if self.objective.soft_weight > 0.0 && teacher.len() != shifts * examples * classes {
            return Err(Error::Usage(format!(
                "the teacher's logits: found {} values, expected {examples} examples × {classes} \
                 classes × {shifts} shifts",
                teacher.len(),
            )));
        }
        if self.objective.hard_weight > 0.0 && self.split.labels.is_none() {
            return Err(Error::Usage(format!(
                "the training set has no labels, but hard_weight is {}: set it to 0",
                self.objective.hard_weight
            )));
        }
        if let Some((name, _)) = self.watch.iter().find(|(_, split)| split.labels.is_none()) {
            return Err(Error::Usage(format!("the watched split '{name}' has no labels")));
        }
        let widths = self.initial.map(Mlp::widths);
        if let Some(found) = widths.filter(|widths| *widths != self.config.model.layers) {
            return Err(Error::Usage(format!(
                "the initial model: found the widths {found:?}, expected {:?}",
                self.config.model.layers
            )));
        }
        Ok(())
    }
}

fn expect_finite(values: &[f32], what: impl Fn() -> String) -> Result<()> {
    let Some(at) = values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
    let message =
        format!("{}: found {} at index {at}, expected finite numbers", what(), values[at]);
    Err(Error::Dataset { message, io: false })
}

/// A trained model.
pub struct Trained {
    /// The model: the average of the weights where one is kept.
    pub model: Mlp,
    /// Time spent training, interruptions not counted.
    pub seconds: f64,
}

/// How far a run is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// [`Task::name`].
    pub model: Arc<str>,
    /// The current epoch, from 1.
    pub epoch: usize,
    /// Epochs of the run.
    pub epochs: usize,
    /// Steps done in this epoch.
    pub step: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// Mean loss of this epoch so far, without the entropy of the soft targets.
    pub loss: f64,
    /// Training examples of this epoch misclassified so far, seen through jitter and dropout.
    pub errors: u64,
    /// Examples of this epoch so far.
    pub examples: u64,
    /// Throughput since the run started or was resumed.
    pub samples_per_second: f64,
    /// Floating-point rate since then, by 2·M·N·K for each product.
    pub gflops: f64,
    /// Time left at that rate.
    pub remaining: Duration,
}

/// A finished epoch, one line of `metrics.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EpochRecord {
    /// [`Task::name`].
    pub model: String,
    /// From 1.
    pub epoch: usize,
    /// Mean loss over the epoch.
    pub loss: f64,
    /// The same without the entropy of the soft targets, which no student can lower.
    pub reducible_loss: f64,
    /// Training examples misclassified when they were seen; absent without labels.
    pub train_errors: Option<u64>,
    /// Examples seen.
    pub examples: u64,
    /// Of the epoch's last step.
    pub learning_rate: f64,
    /// Training time since the start.
    pub seconds: f64,
    /// Throughput of the run.
    pub samples_per_second: f64,
    /// Floating-point rate of the run.
    pub gflops: f64,
    /// What the model makes of [`Task::watch`] after the epoch.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub watched: BTreeMap<String, Watched>,
}

/// A model on a split with labels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// Examples of the split.
    pub examples: usize,
    /// Those misclassified.
    pub errors: usize,
    /// Mean negative log-likelihood of the labels, in nats.
    pub nll: f64,
}

/// Who watches a training run.
pub trait Observer: Send {
    /// Before the first step: a model starts, or goes on after `epochs_done` epochs.
    ///
    /// # Errors
    /// Ends the run.
    fn on_start(&mut self, model: &str, epochs_done: usize) -> Result<()> {
        let _ = (model, epochs_done);
        Ok(())
    }
    /// After each step.
    fn on_step(&mut self, progress: &Progress);
    /// After each epoch.
    ///
    /// # Errors
    /// Ends the run.
    fn on_epoch(&mut self, record: &EpochRecord) -> Result<()>;
    /// Before a checkpoint is written: what was kept of earlier epochs must now last.
    ///
    /// # Errors
    /// Ends the run.
    fn on_checkpoint(&mut self) -> Result<()> {
        Ok(())
    }
    /// Asked after each step: whether the run is to write a checkpoint and end with
    /// [`Error::Interrupted`].
    fn stop(&self) -> bool {
        false
    }
    /// Something the user should know.
    fn warn(&mut self, message: &str);
}

/// Nobody watches.
impl Observer for () {
    fn on_step(&mut self, _: &Progress) {}
    fn on_epoch(&mut self, _: &EpochRecord) -> Result<()> {
        Ok(())
    }
    fn warn(&mut self, _: &str) {}
}

/// When a checkpoint is due: [`checkpoint_minutes`](crate::engine::config::TrainingConfig) after the last
/// one, and at an epoch's end once the last one is paid off, 200 times as long ago as it took to
/// write. Checkpoints at epochs' ends thus take at most 0.5 % of the time, whatever model, disk
/// and length of the epochs. Epochs' ends within ten seconds of the last checkpoint are passed
/// over: the first one's cost is not known yet, and there is little to lose.
struct Timetable {
    every: Duration,
    last: Instant,
    /// How long the last one took.
    cost: Duration,
}

impl Timetable {
    fn is_due(&self, epoch_ended: bool) -> bool {
        let since = self.last.elapsed();
        let paid_off = Duration::from_secs(10).max(200 * self.cost);
        since >= self.every || epoch_ended && since >= paid_off
    }
}

/// Streams of the counter-based generator: dropout of layer i in shard s of the batch is stream
/// `DROPOUT + i + SHARD·s`.
const DROPOUT: u64 = 0;
const SHARD: u64 = 1 << 32;

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
    context.pool.install(|| Run::new(task, None)?.train(context, None, checkpoints, observer))
}

/// [`train`] by all ranks of `communicator` together, each with the same task: each takes its part of every
/// batch ([`crate::engine::microbatches`]). All get the model that one process gets with as many
/// [`shards`](crate::engine::config::TrainingConfig::shards), bit for bit.
///
/// Rank 0 reads and writes the `checkpoints`, which the others leave alone. When
/// [`Observer::stop`] says so on one rank, all end after the same step.
///
/// # Errors
/// As [`train`], on all ranks alike where the numbers are at fault; [`Error::Usage`] for tasks that
/// differ between ranks, or a number of ranks that does not divide the shards; [`Error::Lost`].
pub fn train_together(
    context: &Context,
    task: &Task,
    communicator: &mut Communicator,
    checkpoints: Option<&Path>,
    observer: &mut dyn Observer,
) -> Result<Trained> {
    context.pool.install(|| {
        let place = (communicator.rank(), communicator.size());
        let checkpoints = checkpoints.filter(|_| communicator.rank() == 0);
        Run::new(task, Some(place))?.train(context, Some(communicator), checkpoints, observer)
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
    context.pool.install(|| Run::new(task, Some((0, 1)))?.train(context, None, None, observer))
}

struct Run<'a> {
    task: &'a Task<'a>,
    batches: Batches<'a>,
    pass: Pass,
    optimizer: Optimizer,
    /// Where the optimiser's step is not fused with the gradients.
    shards: Option<Shards>,
    /// Epochs done, and steps done in the current one.
    epoch: usize,
    step: usize,
    /// Sums over the current epoch.
    sums: Sums,
    examples: u64,
    /// Training time before this process.
    earlier: Duration,
    config_sha256: String,
}

/// Sums over examples.
#[derive(Clone, Copy, Default)]
struct Sums {
    loss: Loss,
    /// Examples misclassified.
    errors: u64,
}

impl Sums {
    fn add(&mut self, other: Sums) {
        loss::add(&mut self.loss, other.loss);
        self.errors += other.errors;
    }
}

/// The model, and what its way from the inputs to d_logits and back needs.
struct Pass {
    model: Mlp,
    work: Workspace,
    /// Of the input and each hidden layer in this step; empty without dropout.
    dropout: Vec<Option<Dropout>>,
    /// Teacher's logits of the batch [C, B].
    teacher: Buffer,
    /// [B, C], not written: the teacher's logits are taken from where they lie.
    staging: Vec<f32>,
}

impl Pass {
    /// Leaves d_logits of `batch`, shard `shard` of the `whole` examples of step `number`, in
    /// [`Pass::work`].
    fn forward(
        &mut self,
        context: &Context,
        task: &Task,
        batch: &Batch,
        (number, shard): (u64, usize),
        whole: usize,
    ) -> Sums {
        let (classes, size) = (self.model.classes(), batch.len());
        self.dropout.clear();
        let rates = task.config.model.dropout.iter().flatten();
        self.dropout.extend(rates.zip(DROPOUT..).map(|(&rate, stream)| {
            let key = Key::new(task.config.seed, stream + SHARD * shard as u64, number);
            (rate > 0.0).then(|| Dropout::new(key, rate as f32, size))
        }));
        let input_dropout = self.dropout.first().copied().flatten();
        self.work.load(context, &self.model, batch, input_dropout);
        self.model.forward(context, &mut self.work, &self.dropout);
        let teacher = task.teacher_logits.map(|logits| {
            let row = |i: usize, _| {
                let row = batch.shift(i) * task.split.len() + batch.indices[i] as usize;
                &logits[row * classes..][..classes]
            };
            let panels = PanelsMut::new(&mut self.teacher, classes, size);
            activation::load(context, row, &mut self.staging, 1.0, 0.0, None, panels);
            Panels::new(&self.teacher, classes, size)
        });
        // The gradient is that of the mean over the whole batch.
        let share = size as f32 / whole as f32;
        let objective = LossSpec {
            soft_weight: task.objective.soft_weight * share,
            hard_weight: task.objective.hard_weight * share,
            ..task.objective
        };
        let work = &mut self.work;
        let loss =
            loss::distillation(context, &objective, &self.model, teacher, batch.labels, work);
        let logits = self.work.logits(&self.model);
        let errors = batch.labels.map_or(0, |labels| reduce::errors(context, logits, labels));
        Sums { loss, errors: errors as u64 }
    }

    /// What this rank's shards of `batch`, that of step `number`, come to, with those of the other
    /// ranks. Leaves the gradients of all of this rank in `shards`; with others, who are told
    /// whether to stop, it begins to sum them layer by layer.
    fn parted(
        &mut self,
        context: &Context,
        task: &Task,
        batch: &Batch,
        number: u64,
        shards: &mut Shards,
        mut talk: Option<(&mut Communicator, bool)>,
    ) -> Result<Found> {
        let mut each = Vec::with_capacity(shards.mine.len());
        for shard in shards.mine.clone() {
            let part = batch.part(shards.examples(shard, batch.len()));
            let empty = part.indices.is_empty();
            each.push(if empty {
                Sums::default()
            } else {
                self.forward(context, task, &part, (number, shard), batch.len())
            });
            let is_last = shard + 1 == shards.mine.end;
            let mut talk = talk.as_mut().filter(|_| is_last);
            if let Some((communicator, stop)) = &mut talk {
                Found::start(communicator, &each, *stop);
            }
            let Pass { model, work, dropout, .. } = &mut *self;
            for i in (0..model.layers().len()).rev() {
                if empty {
                    shards.gradient(i).fill(0.0);
                } else {
                    model.layer_gradient(context, work, dropout, i, shards.gradient(i));
                }
                shards.add(context, shard, i);
                if let Some((communicator, _)) = &mut talk {
                    communicator.start_sum(shards.take(i));
                }
            }
        }
        match talk {
            Some((communicator, _)) => Found::finish(communicator),
            None => Ok(Found::of(&each)),
        }
    }
}

/// What the shards of a step came to.
struct Found {
    sums: Sums,
    /// Whether a rank is asked to stop.
    stop: bool,
}

impl Found {
    /// In the order of the shards.
    fn of(shards: &[Sums]) -> Found {
        let mut sums = Sums::default();
        shards.iter().for_each(|shard| sums.add(*shard));
        Found { sums, stop: false }
    }

    /// Begins to tell all ranks about the shards of this one.
    fn start(communicator: &mut Communicator, shards: &[Sums], stop: bool) {
        let numbers = |Sums { loss, errors }: &Sums| {
            [loss.soft, loss.entropy, loss.hard, *errors as f64, f64::from(stop)]
        };
        let bytes: Vec<u8> = shards.iter().flat_map(numbers).flat_map(f64::to_le_bytes).collect();
        let lengths = vec![bytes.len(); communicator.size()];
        communicator.start_gather(bytes, lengths);
    }

    /// What all ranks told.
    fn finish(communicator: &mut Communicator) -> Result<Found> {
        let bytes = communicator.finish_gather()?;
        let numbers: Vec<f64> =
            bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        let shards = numbers.as_chunks().0.iter();
        let sums = |&[soft, entropy, hard, errors, _]: &[f64; 5]| Sums {
            loss: Loss { soft, entropy, hard },
            errors: errors as u64,
        };
        let stop = shards.clone().any(|[_, _, _, _, stop]: &[f64; 5]| *stop > 0.0);
        Ok(Found { stop, ..Found::of(&shards.map(sums).collect::<Vec<_>>()) })
    }
}

impl<'a> Run<'a> {
    /// For a rank of several, as (rank, size), or with the optimiser's step apart. Else a batch that
    /// is not parted gets the fused step.
    fn new(task: &'a Task, place: Option<(usize, usize)>) -> Result<Self> {
        task.check()?;
        let config = task.config;
        let model = task.initial_model();
        let examples = task.split.len();
        let batch = config.training.batch_size.min(examples);
        // The words of earlier versions, so that runs begun with them go on.
        let LossSpec { temperature, soft_weight, hard_weight } = task.objective;
        let objective = format!(
            "Objective {{ temperature: {temperature:?}, soft_weight: {soft_weight:?}, hard_weight: \
             {hard_weight:?} }} {}",
            task.name
        );
        let initial = task.initial.map_or(String::new(), |model| model.to_file().sha256());
        let config_sha256 = sha256_of([&config.to_toml()?, &objective, &initial]);
        let jitter = config.data.jitter.map(|j| j as u8);
        let shards = config.training.shards;
        let place = place.or((shards > 1).then_some((0, 1)));
        let parted = place.map(|place| Shards::new(&model, shards, place)).transpose()?;
        // A shard of a batch that the shards do not divide may have one example more.
        let part = batch.div_ceil(shards);
        Ok(Self {
            optimizer: Optimizer::new(&config.training, &model),
            batches: Batches::new(task.split, batch, config.seed, jitter),
            shards: parted,
            epoch: 0,
            step: 0,
            sums: Sums::default(),
            examples: 0,
            earlier: Duration::ZERO,
            config_sha256,
            task,
            pass: Pass {
                work: Workspace::for_training(&model, part),
                dropout: Vec::with_capacity(model.layers().len()),
                teacher: Buffer::zeroed(panel_len(model.classes(), part)),
                staging: vec![0.0; part * model.classes()],
                model,
            },
        })
    }

    fn train(
        mut self,
        context: &Context,
        mut communicator: Option<&mut Communicator>,
        checkpoints: Option<&Path>,
        observer: &mut dyn Observer,
    ) -> Result<Trained> {
        if let Some(folder) = checkpoints {
            // Not the folders above it: where they have vanished, so has the run.
            match std::fs::create_dir(folder) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                    return Err(Error::io("create the folder", folder)(e));
                }
                _ => {}
            }
            if let Some(latest) = checkpoint::latest(folder)? {
                latest.warnings.iter().for_each(|warning| observer.warn(warning));
                self.restore(&latest.path, &latest.state)?;
            }
        }
        if let Some(communicator) = &mut communicator {
            self.start_alike(communicator)?;
        }
        observer.on_start(self.task.name, self.epoch)?;
        let training = &self.task.config.training;
        let (epochs, steps) = (training.epochs, self.batches.steps_per_epoch());
        let every = Duration::from_secs_f64(training.checkpoint_minutes * 60.0);
        let name: Arc<str> = self.task.name.into();
        let start = Instant::now();
        let mut timetable = Timetable { every, last: start, cost: Duration::ZERO };
        let mut examples_here = 0u64;
        let mut flop_here = 0.0;

        while self.epoch < epochs {
            self.batches.start_epoch(self.epoch as u64, self.step);
            while self.step < steps {
                let (batch, stop) =
                    self.step(context, steps, communicator.as_deref_mut(), observer)?;
                examples_here += batch as u64;
                flop_here += self.pass.model.flop_per_step(batch);
                let seconds = start.elapsed().as_secs_f64();
                let left =
                    self.task.split.len() as u64 * (epochs - self.epoch) as u64 - self.examples;
                observer.on_step(&Progress {
                    model: name.clone(),
                    epoch: self.epoch + 1,
                    epochs,
                    step: self.step,
                    steps,
                    loss: self.task.objective.reducible(self.sums.loss, self.examples as usize),
                    errors: self.sums.errors,
                    examples: self.examples,
                    samples_per_second: examples_here as f64 / seconds,
                    gflops: flop_here / seconds / 1e9,
                    remaining: Duration::from_secs_f64(
                        left as f64 * seconds / examples_here as f64,
                    ),
                });
                if stop || timetable.is_due(false) {
                    self.save(checkpoints, start, observer, &mut timetable)?;
                }
                if stop {
                    return Err(Error::Interrupted { command: None });
                }
            }
            let seconds = start.elapsed().as_secs_f64();
            observer.on_epoch(&EpochRecord {
                model: self.task.name.to_string(),
                epoch: self.epoch + 1,
                loss: self.task.objective.value(self.sums.loss, self.examples as usize),
                reducible_loss: self
                    .task
                    .objective
                    .reducible(self.sums.loss, self.examples as usize),
                train_errors: self.task.split.labels.as_ref().map(|_| self.sums.errors),
                examples: self.examples,
                learning_rate: optimizer::learning_rate(
                    training,
                    self.epochs_done(steps - 1, steps),
                ),
                seconds: (self.earlier + start.elapsed()).as_secs_f64(),
                samples_per_second: examples_here as f64 / seconds,
                gflops: flop_here / seconds / 1e9,
                watched: self.watched(context),
            })?;
            self.epoch += 1;
            self.step = 0;
            (self.sums, self.examples) = (Sums::default(), 0);
            if timetable.is_due(true) {
                self.save(checkpoints, start, observer, &mut timetable)?;
            }
        }
        let seconds = (self.earlier + start.elapsed()).as_secs_f64();
        Ok(Trained { model: self.optimizer.evaluated(self.pass.model), seconds })
    }

    fn watched(&self, context: &Context) -> BTreeMap<String, Watched> {
        let watch = self.task.watch;
        if watch.is_empty() {
            return BTreeMap::new();
        }
        let model = self.optimizer.evaluated(self.pass.model.clone());
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

    fn epochs_done(&self, step: usize, steps: usize) -> f64 {
        self.epoch as f64 + step as f64 / steps as f64
    }

    /// One minibatch; returns its size, and whether to stop after it.
    fn step(
        &mut self,
        context: &Context,
        steps: usize,
        mut communicator: Option<&mut Communicator>,
        observer: &dyn Observer,
    ) -> Result<(usize, bool)> {
        let epochs_done = self.epochs_done(self.step, steps);
        let number = (self.epoch * steps + self.step) as u64;
        let (task, pass, optimizer) = (self.task, &mut self.pass, &mut self.optimizer);
        let batch =
            self.batches.next().ok_or_else(|| Error::Internal("an epoch ended early".into()))?;
        let size = batch.len();
        let found = match &mut self.shards {
            None => {
                Found { sums: pass.forward(context, task, &batch, (number, 0), size), stop: false }
            }
            Some(shards) => {
                let talk =
                    communicator.as_deref_mut().map(|communicator| (communicator, observer.stop()));
                pass.parted(context, task, &batch, number, shards, talk)?
            }
        };
        let value = task.objective.value(found.sums.loss, size);
        if !value.is_finite() {
            let cause = self.not_finite().or_else(|| {
                let layer = self.pass.work.not_finite(&self.pass.model)?;
                Some(("output".to_string(), layer))
            });
            return Err(match cause {
                Some((tensor, layer)) => self.diverged(&tensor, Some(layer), self.step + 1),
                None => self.diverged("loss", None, self.step + 1),
            });
        }
        let Pass { model, work, dropout, .. } = pass;
        let stepped = match &mut self.shards {
            None => optimizer.backward_step(context, epochs_done, model, work, dropout),
            Some(shards) => {
                let rule = optimizer.rule(epochs_done);
                let mut outcome = Ok(());
                for i in (0..model.layers().len()).rev() {
                    if let Some(communicator) = &mut communicator {
                        *shards.gradient(i) = communicator.finish_sum()?;
                    }
                    let grads = shards.gradient(i);
                    outcome =
                        outcome.and_then(|()| optimizer.step_layer(context, rule, model, grads, i));
                }
                optimizer.average(context, model);
                outcome
            }
        };
        if let Err((layer, update)) = stepped {
            let (tensor, layer) = self.not_finite().unwrap_or((update.into(), layer));
            return Err(self.diverged(&tensor, Some(layer), self.step + 1));
        }
        self.sums.add(found.sums);
        self.examples += size as u64;
        self.step += 1;
        let stop = if communicator.is_some() { found.stop } else { observer.stop() };
        Ok((size, stop))
    }

    /// Gives all ranks the state of rank 0, which has read it from a checkpoint or begins.
    fn start_alike(&mut self, communicator: &mut Communicator) -> Result<()> {
        let run = format!("{} on {} examples", self.config_sha256, self.task.split.len());
        communicator.agree("configuration and number of training examples", &run)?;
        let mut state = self.numbers(self.earlier.as_secs_f64());
        let places = [state.epoch, state.step];
        let scalars = state.scalars.values().map(|scalar| scalar.to_bits());
        let words = places.into_iter().chain(state.counters.values().copied()).chain(scalars);
        let mut words: Vec<u64> = words.collect();
        communicator.broadcast(bytemuck::cast_slice_mut(&mut words))?;
        let mut words = words.into_iter();
        let counters = state.counters.values_mut();
        let places = [&mut state.epoch, &mut state.step].into_iter().chain(counters);
        places.zip(&mut words).for_each(|(place, word)| *place = word);
        let scalars = state.scalars.values_mut().zip(words);
        scalars.for_each(|(scalar, word)| *scalar = f64::from_bits(word));
        self.take_numbers(&state)?;
        communicator.broadcast(bytemuck::cast_slice_mut(self.pass.model.params_mut()))?;
        let mut arrays = self.optimizer.arrays_mut();
        arrays.try_for_each(|array| communicator.broadcast(bytemuck::cast_slice_mut(array)))
    }

    /// In `step` of this epoch, from 1.
    fn diverged(&self, tensor: &str, layer: Option<usize>, step: usize) -> Error {
        let (epoch, step) = (self.epoch as u64 + 1, step as u64);
        Error::Diverged { tensor: tensor.into(), layer, epoch, step }
    }

    /// The first of parameters, moments and average that is not finite, and its layer.
    fn not_finite(&self) -> Option<(String, usize)> {
        let model = &self.pass.model;
        let find = |values: &[f32]| params::not_finite(model.layers(), values);
        if let Some((layer, kind)) = find(model.params()) {
            return Some((kind.to_string(), layer));
        }
        self.optimizer.tensors().find_map(|(name, values)| {
            let (layer, kind) = find(values)?;
            Some((format!("{name} of the {kind}"), layer))
        })
    }

    /// Writes a checkpoint, if there is a place for them, and removes old ones.
    fn save(
        &self,
        folder: Option<&Path>,
        start: Instant,
        observer: &mut dyn Observer,
        timetable: &mut Timetable,
    ) -> Result<()> {
        let Some(folder) = folder else { return Ok(()) };
        let begun = Instant::now();
        observer.on_checkpoint()?;
        let params = ("params".to_string(), self.pass.model.params());
        let tensors = std::iter::once(params).chain(self.optimizer.tensors());
        let state = TrainingState {
            tensors: tensors.map(|(name, values)| (name, values.into())).collect(),
            ..self.numbers((self.earlier + start.elapsed()).as_secs_f64())
        };
        state.save(&folder.join(state.file_name()))?;
        checkpoint::rotate(folder, 2)?;
        *timetable = Timetable { last: Instant::now(), cost: begun.elapsed(), ..*timetable };
        Ok(())
    }

    fn restore(&mut self, path: &Path, state: &TrainingState) -> Result<()> {
        if state.config_sha256 != self.config_sha256 {
            return Err(Error::Data {
                path: path.to_path_buf(),
                what: "configuration of the checkpoint".into(),
                found: state.config_sha256.clone(),
                expected: format!("{} (this run's)", self.config_sha256),
            });
        }
        self.take_numbers(state)?;
        optimizer::restore(&state.tensors, "params", self.pass.model.params_mut())?;
        self.optimizer.restore(&state.tensors)?;
        if let Some((tensor, layer)) = self.not_finite() {
            return Err(Error::Data {
                path: path.to_path_buf(),
                what: format!("{tensor} of layer {layer}"),
                found: "NaN or infinity".into(),
                expected: "finite numbers".into(),
            });
        }
        Ok(())
    }

    /// The state after `seconds` of training, its arrays left out.
    fn numbers(&self, seconds: f64) -> TrainingState<'static> {
        let Loss { soft, entropy, hard } = self.sums.loss;
        let [beta1, beta2] = self.optimizer.powers();
        TrainingState {
            epoch: self.epoch as u64,
            step: self.step as u64,
            tensors: Vec::new(),
            counters: [("errors", self.sums.errors), ("examples", self.examples)]
                .map(|(name, count)| (name.to_string(), count))
                .into(),
            scalars: [
                ("soft", soft),
                ("entropy", entropy),
                ("hard", hard),
                ("seconds", seconds),
                ("beta1_power", beta1),
                ("beta2_power", beta2),
            ]
            .map(|(name, value)| (name.to_string(), value))
            .into(),
            config_sha256: self.config_sha256.clone(),
        }
    }

    /// Takes back what [`Run::numbers`] gave.
    fn take_numbers(&mut self, state: &TrainingState) -> Result<()> {
        let missing = |name: &str| Error::Internal(format!("checkpoint without '{name}'"));
        let scalar = |name: &str| state.scalars.get(name).copied().ok_or_else(|| missing(name));
        let counter = |name: &str| state.counters.get(name).copied().ok_or_else(|| missing(name));
        let loss =
            Loss { soft: scalar("soft")?, entropy: scalar("entropy")?, hard: scalar("hard")? };
        self.sums = Sums { loss, errors: counter("errors")? };
        self.examples = counter("examples")?;
        self.earlier = Duration::try_from_secs_f64(scalar("seconds")?).unwrap_or_default();
        self.optimizer.set_powers([scalar("beta1_power")?, scalar("beta2_power")?]);
        self.epoch = state.epoch as usize;
        self.step = state.step as usize;
        Ok(())
    }
}
