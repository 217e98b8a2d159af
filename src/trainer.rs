//! The training loop: five calls a step (see the crate's documentation), checkpoints, progress.
//!
//! A run can stop after any step and go on elsewhere with the same bits. A checkpoint holds
//! parameters, moments, average, the powers of Adam's β, the sums of the current epoch, and the
//! position (epoch, step). Nothing more is needed: the order of the examples is a function of
//! (seed, epoch), jitter and dropout of (seed, epoch, step), so that the position of every random
//! stream follows from it; and no sum depends on threads or ISA.

use crate::checkpoint::{self, TrainingState};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::loss::{self, Objective};
use crate::metrics;
use crate::mlp::{InputScale, Mlp, Workspace};
use crate::optimizer::{self, Optimizer};
use crate::params;
use crate::run::sha256_of;
use limbeck_datasets::{Batches, Inputs, Split};
use limbeck_kernels::random::{Dropout, Key};
use limbeck_kernels::softmax::Loss;
use limbeck_kernels::{Buffer, Context, Panels, PanelsMut, panel_len};
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
    pub objective: Objective,
    /// The teacher's logits [shifts, n, classes] for the examples of `split`, row-major, as
    /// [`crate::distill::teacher_logits`] gives them; needed for a soft term.
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
            objective: Objective::HARD,
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
        objective: Objective,
        logits: &'a [f32],
    ) -> Task<'a> {
        Task { objective, teacher_logits: Some(logits), ..Task::hard(name, config, split) }
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
        if let (Inputs::Frames(_), Some(jitter)) = (&self.split.inputs, self.config.data.jitter) {
            return Err(Error::Usage(format!(
                "jitter: found {jitter}, expected none: it moves images, and these are frames"
            )));
        }
        let classes = self.config.model.layers.last().copied().unwrap_or(0);
        let teacher = self.teacher_logits.unwrap_or(&[]);
        let shifts = self.config.data.jitter.map_or(1, |j| (2 * j + 1) * (2 * j + 1));
        if let Inputs::Frames(frames) = &self.split.inputs {
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

/// When a checkpoint is due: [`checkpoint_minutes`](crate::config::TrainingConfig) after the last
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

/// Streams of the counter-based generator: dropout of layer i is stream `DROPOUT + i`.
const DROPOUT: u64 = 0;

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
    context.pool.install(|| Run::new(task)?.train(context, checkpoints, observer))
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
        let mut run = Run::new(task)?;
        run.grads = Some(Buffer::zeroed(run.model.params().len()));
        run.train(context, None, observer)
    })
}

struct Run<'a> {
    task: &'a Task<'a>,
    model: Mlp,
    optimizer: Optimizer,
    batches: Batches<'a>,
    work: Workspace,
    /// The gradients of all parameters, where the optimiser's step is not fused with them.
    grads: Option<Buffer>,
    /// Of the input and each hidden layer in this step; empty without dropout.
    dropout: Vec<Option<Dropout>>,
    /// Teacher's logits of the batch [C, B].
    teacher: Buffer,
    /// Student's logits of the batch, row-major, to count errors.
    logits: Vec<f32>,
    /// Epochs done, and steps done in the current one.
    epoch: usize,
    step: usize,
    /// Sums over the current epoch.
    loss: Loss,
    errors: u64,
    examples: u64,
    /// Training time before this process.
    earlier: Duration,
    config_sha256: String,
}

impl<'a> Run<'a> {
    fn new(task: &'a Task) -> Result<Self> {
        task.check()?;
        let config = task.config;
        let model = task.initial.cloned().unwrap_or_else(|| {
            let mut model = Mlp::new(&config.model.layers, config.seed);
            model.input = InputScale::of(&task.split.inputs);
            let init_scale = config.model.init_scale as f32;
            model.params_mut().iter_mut().for_each(|p| *p *= init_scale);
            model
        });
        let examples = task.split.len();
        let batch = config.training.batch_size.min(examples);
        let objective = format!("{:?} {}", task.objective, task.name);
        let initial = task.initial.map_or(String::new(), |model| model.to_file().sha256());
        let config_sha256 = sha256_of([&config.to_toml()?, &objective, &initial]);
        let jitter = config.data.jitter.map(|j| j as u8);
        Ok(Self {
            optimizer: Optimizer::new(&config.training, &model),
            batches: Batches::new(task.split, batch, config.seed, jitter),
            work: Workspace::for_training(&model, batch),
            grads: None,
            dropout: Vec::with_capacity(model.layers().len()),
            teacher: Buffer::zeroed(panel_len(model.classes(), batch)),
            logits: vec![0.0; batch * model.classes()],
            epoch: 0,
            step: 0,
            loss: Loss::default(),
            errors: 0,
            examples: 0,
            earlier: Duration::ZERO,
            config_sha256,
            task,
            model,
        })
    }

    fn train(
        mut self,
        context: &Context,
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
                let batch = self.step(context, steps)?;
                examples_here += batch as u64;
                flop_here += self.model.flop_per_step(batch);
                let seconds = start.elapsed().as_secs_f64();
                let left =
                    self.task.split.len() as u64 * (epochs - self.epoch) as u64 - self.examples;
                observer.on_step(&Progress {
                    model: name.clone(),
                    epoch: self.epoch + 1,
                    epochs,
                    step: self.step,
                    steps,
                    loss: self.task.objective.reducible(self.loss, self.examples as usize),
                    errors: self.errors,
                    examples: self.examples,
                    samples_per_second: examples_here as f64 / seconds,
                    gflops: flop_here / seconds / 1e9,
                    remaining: Duration::from_secs_f64(
                        left as f64 * seconds / examples_here as f64,
                    ),
                });
                let stop = observer.stop();
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
                loss: self.task.objective.value(self.loss, self.examples as usize),
                reducible_loss: self.task.objective.reducible(self.loss, self.examples as usize),
                train_errors: self.task.split.labels.as_ref().map(|_| self.errors),
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
            (self.loss, self.errors, self.examples) = (Loss::default(), 0, 0);
            if timetable.is_due(true) {
                self.save(checkpoints, start, observer, &mut timetable)?;
            }
        }
        let seconds = (self.earlier + start.elapsed()).as_secs_f64();
        Ok(Trained { model: self.optimizer.evaluated(self.model), seconds })
    }

    fn watched(&self, context: &Context) -> BTreeMap<String, Watched> {
        let watch = self.task.watch;
        if watch.is_empty() {
            return BTreeMap::new();
        }
        let model = self.optimizer.evaluated(self.model.clone());
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

    /// One minibatch; returns its size.
    fn step(&mut self, context: &Context, steps: usize) -> Result<usize> {
        let epochs_done = self.epochs_done(self.step, steps);
        let (task, classes) = (self.task, self.model.classes());
        let number = (self.epoch * steps + self.step) as u64;
        let batch =
            self.batches.next().ok_or_else(|| Error::Internal("an epoch ended early".into()))?;
        let size = batch.len();
        self.dropout.clear();
        self.dropout.extend(task.config.model.dropout.iter().flatten().enumerate().map(
            |(i, &rate)| {
                let key = Key::new(task.config.seed, DROPOUT + i as u64, number);
                (rate > 0.0).then(|| Dropout::new(key, rate as f32, size))
            },
        ));
        let dropout = &self.dropout;

        let input_dropout = dropout.first().copied().flatten();
        self.work.load(context, &self.model, &batch, input_dropout);
        self.model.forward(context, &mut self.work, dropout);
        let teacher = task.teacher_logits.map(|logits| {
            let rows = batch.indices.iter().enumerate();
            for (to, (i, &example)) in self.logits.chunks_exact_mut(classes).zip(rows) {
                let row = batch.shift(i) * task.split.len() + example as usize;
                to.copy_from_slice(&logits[row * classes..][..classes]);
            }
            PanelsMut::new(&mut self.teacher, classes, size)
                .copy_from_lane_major(&self.logits[..size * classes]);
            Panels::new(&self.teacher, classes, size)
        });
        let loss = loss::distillation(
            context,
            &task.objective,
            &self.model,
            teacher,
            batch.labels,
            &mut self.work,
        );
        let value = task.objective.value(loss, size);
        if !value.is_finite() {
            let cause = self.not_finite().or_else(|| {
                let layer = self.work.not_finite(&self.model)?;
                Some(("output".to_string(), layer))
            });
            return Err(match cause {
                Some((tensor, layer)) => self.diverged(&tensor, Some(layer), self.step + 1),
                None => self.diverged("loss", None, self.step + 1),
            });
        }
        let (optimizer, model, work) = (&mut self.optimizer, &mut self.model, &mut self.work);
        let stepped = if let Some(grads) = &mut self.grads {
            model.backward(context, work, dropout, grads);
            optimizer.step(context, epochs_done, model, grads)
        } else {
            optimizer.backward_step(context, epochs_done, model, work, dropout)
        };
        if let Err((layer, update)) = stepped {
            let (tensor, layer) = self.not_finite().unwrap_or((update.into(), layer));
            return Err(self.diverged(&tensor, Some(layer), self.step + 1));
        }

        if let Some(labels) = batch.labels {
            let logits = &mut self.logits[..size * classes];
            self.work.logits(&self.model).to_lane_major(logits);
            self.errors += metrics::errors(logits, labels, classes) as u64;
        }
        loss::add(&mut self.loss, loss);
        self.examples += size as u64;
        self.step += 1;
        Ok(size)
    }

    /// In `step` of this epoch, from 1.
    fn diverged(&self, tensor: &str, layer: Option<usize>, step: usize) -> Error {
        let (epoch, step) = (self.epoch as u64 + 1, step as u64);
        Error::Diverged { tensor: tensor.into(), layer, epoch, step }
    }

    /// The first of parameters, moments and average that is not finite, and its layer.
    fn not_finite(&self) -> Option<(String, usize)> {
        let find = |values: &[f32]| params::not_finite(self.model.layers(), values);
        if let Some((layer, kind)) = find(self.model.params()) {
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
        let params = ("params".to_string(), self.model.params());
        let tensors = std::iter::once(params).chain(self.optimizer.tensors());
        let powers = self.optimizer.powers();
        let seconds = (self.earlier + start.elapsed()).as_secs_f64();
        let state = TrainingState {
            epoch: self.epoch as u64,
            step: self.step as u64,
            tensors: tensors.map(|(name, values)| (name, values.into())).collect(),
            counters: [("errors", self.errors), ("examples", self.examples)]
                .map(|(name, count)| (name.to_string(), count))
                .into(),
            scalars: [
                ("soft", self.loss.soft),
                ("entropy", self.loss.entropy),
                ("hard", self.loss.hard),
                ("seconds", seconds),
                ("beta1_power", powers[0]),
                ("beta2_power", powers[1]),
            ]
            .map(|(name, value)| (name.to_string(), value))
            .into(),
            config_sha256: self.config_sha256.clone(),
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
        let scalar = |name: &str| {
            let missing = || Error::Internal(format!("checkpoint without '{name}'"));
            state.scalars.get(name).copied().ok_or_else(missing)
        };
        let counter = |name: &str| {
            let missing = || Error::Internal(format!("checkpoint without '{name}'"));
            state.counters.get(name).copied().ok_or_else(missing)
        };
        optimizer::restore(&state.tensors, "params", self.model.params_mut())?;
        self.optimizer.restore(&state.tensors, [scalar("beta1_power")?, scalar("beta2_power")?])?;
        if let Some((tensor, layer)) = self.not_finite() {
            return Err(Error::Data {
                path: path.to_path_buf(),
                what: format!("{tensor} of layer {layer}"),
                found: "NaN or infinity".into(),
                expected: "finite numbers".into(),
            });
        }
        self.loss =
            Loss { soft: scalar("soft")?, entropy: scalar("entropy")?, hard: scalar("hard")? };
        self.errors = counter("errors")?;
        self.examples = counter("examples")?;
        self.earlier = Duration::try_from_secs_f64(scalar("seconds")?).unwrap_or_default();
        self.epoch = state.epoch as usize;
        self.step = state.step as usize;
        Ok(())
    }
}
