//! One training step: the five calls of the crate's documentation.

use super::outcome::StepOutcome;
use super::{Observer, Run, Task, distributed};
use crate::engine::distill;
use crate::engine::loss::{self, LossSpec};
use crate::engine::mlp::{Mlp, Workspace};
use crate::engine::optimizer::{NotFinite, Optimizer};
use crate::engine::{communicator::Communicator, microbatches::Microbatches, params};
use crate::files::error::{Error, Result};
use limbeck_datasets::Batch;
use limbeck_kernels::input::{self, Scaling};
use limbeck_kernels::random::{Dropout, Key};
use limbeck_kernels::softmax::Loss;
use limbeck_kernels::{Buffer, Context, Panels, PanelsMut, panel_len, reduce};

/// Streams of the counter-based generator: dropout of layer i in microbatch m of a batch is stream
/// `DROPOUT + i + MICROBATCH·m`.
const DROPOUT: u64 = 0;
const MICROBATCH: u64 = 1 << 32;

/// Where the gradients of a batch go.
pub(super) enum Update {
    /// Into the optimiser's step, from registers.
    Fused,
    /// Through memory: the sum of those of the microbatches, to the optimiser's step.
    Accumulated(Microbatches),
}

impl Update {
    /// For rank `rank` of `size`.
    ///
    /// # Errors
    /// As [`Microbatches::new`].
    pub fn accumulated(task: &Task, rank: usize, size: usize) -> Result<Update> {
        let layers = params::layers(&task.config.model.layers);
        let count = task.config.training.microbatches;
        Microbatches::new(&layers, count, (rank, size)).map(Update::Accumulated)
    }
}

/// The next step of a run.
#[derive(Clone, Copy)]
pub(super) struct Position {
    /// Epochs done.
    pub epoch: usize,
    /// Steps done in the current epoch.
    pub step: usize,
    /// Steps of an epoch.
    pub steps: usize,
}

impl Position {
    /// Steps done in all.
    fn number(self) -> u64 {
        (self.epoch * self.steps + self.step) as u64
    }

    /// Epochs done, with the share of the current one.
    pub fn epochs_done(self) -> f64 {
        self.epoch as f64 + self.step as f64 / self.steps as f64
    }

    fn diverged(self, task: &Task, (tensor, layer): (String, Option<usize>)) -> Error {
        let (epoch, step) = (self.epoch as u64 + 1, self.step as u64 + 1);
        Error::Diverged { tensor, layer, epoch, step, advice: task.advice() }
    }
}

impl Run<'_> {
    /// One minibatch.
    ///
    /// # Errors
    /// [`Error::Diverged`], [`Error::Lost`].
    pub fn step(&mut self, context: &Context, observer: &dyn Observer) -> Result<StepOutcome> {
        let Run { batches, replica, optimizer, update, communicator, at, .. } = self;
        let early = || Error::Internal("an epoch ended early".into());
        let batch = batches.next().ok_or_else(early)?; // 1
        let outcome = match update {
            Update::Fused => {
                replica.forward(context, &batch, (*at, 0)); // 2
                let outcome = replica.loss(context, &batch, batch.len()); // 3
                replica.expect_finite(outcome.loss, batch.len(), optimizer, *at)?;
                let updated = replica.backward_step(context, optimizer, *at); // 4 and 5
                replica.expect_updated(updated, optimizer, *at)?;
                outcome
            }
            Update::Accumulated(microbatches) => {
                let talk = communicator.as_deref_mut().map(|ranks| (ranks, observer.stop()));
                // 2 to 4 of each microbatch
                let outcome = replica.accumulate(context, &batch, *at, microbatches, talk)?;
                replica.expect_finite(outcome.loss, batch.len(), optimizer, *at)?;
                let ranks = communicator.as_deref_mut();
                let updated = replica.update(context, optimizer, *at, microbatches, ranks)?; // 5
                replica.expect_updated(updated, optimizer, *at)?;
                outcome
            }
        };
        self.sums.add(outcome, batch.len());
        self.at.step += 1;
        Ok(outcome)
    }
}

/// The model of this process, and what its way from the inputs to the gradients needs.
pub(super) struct Replica<'a> {
    task: &'a Task<'a>,
    pub model: Mlp,
    work: Workspace,
    /// Of the input and each hidden layer in this step; empty without dropout.
    dropout: Vec<Option<Dropout>>,
    /// Teacher's logits of the batch, [C, B] panels.
    teacher: Buffer,
    /// [B, C], not written: the teacher's logits are taken from where they lie.
    staging: Vec<f32>,
    /// Of each teacher who is asked in every step.
    asked: Vec<Workspace>,
}

impl<'a> Replica<'a> {
    /// For batches or microbatches of at most `capacity` examples.
    pub fn new(task: &'a Task<'a>, model: Mlp, capacity: usize) -> Self {
        let precision = task.config.training.precision;
        let asked = |teacher| Workspace::for_evaluation(teacher, capacity, precision);
        Replica {
            task,
            work: Workspace::for_training(&model, capacity, precision),
            dropout: Vec::with_capacity(model.layers().len()),
            teacher: Buffer::zeroed(panel_len(model.classes(), capacity)),
            staging: vec![0.0; capacity * model.classes()],
            asked: task.teachers.iter().map(asked).collect(),
            model,
        }
    }

    /// The logits of `batch`, microbatch `microbatch` of the batch at `at`, to the workspace.
    fn forward(&mut self, context: &Context, batch: &Batch, (at, microbatch): (Position, usize)) {
        self.dropout.clear();
        let config = self.task.config;
        let rates = config.model.dropout.iter().flatten();
        self.dropout.extend(rates.map(|&rate| rate as f32).zip(DROPOUT..).map(|(rate, layer)| {
            let stream = layer + MICROBATCH * microbatch as u64;
            let key = Key::new(config.seed, stream, at.number());
            (rate > 0.0).then(|| Dropout::new(key, rate, batch.len()))
        }));
        let input_dropout = self.dropout.first().copied().flatten();
        self.work.load(context, &self.model, batch, input_dropout);
        self.model.forward(context, &mut self.work, &self.dropout);
    }

    /// The loss of `batch`, a part of a batch of `whole` examples, and d_logits to the workspace.
    fn loss(&mut self, context: &Context, batch: &Batch, whole: usize) -> StepOutcome {
        let (classes, size) = (self.model.classes(), batch.len());
        let task = self.task;
        self.ask(context, batch);
        let cached = task.teacher_logits.map(|logits| {
            let row = |i: usize, _| {
                let row = batch.shift(i) * task.split.len() + batch.indices[i] as usize;
                &logits[row * classes..][..classes]
            };
            let panels = PanelsMut::new(&mut self.teacher, classes, size);
            input::load(context, row, &mut self.staging, Scaling::NONE, None, panels);
        });
        let teacher = match (task.teachers, cached) {
            ([], None) => None,
            // One teacher's logits are taken from where they are.
            ([teacher], _) => Some(self.asked[0].logits(teacher)),
            _ => Some(Panels::new(&self.teacher, classes, size)),
        };
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
        StepOutcome { loss, errors: errors as u64, stop: false }
    }

    /// Asks the teachers about the batch, without dropout; the answer of several goes to
    /// [`Replica::teacher`].
    fn ask(&mut self, context: &Context, batch: &Batch) {
        let teachers = self.task.teachers;
        for (teacher, work) in teachers.iter().zip(&mut self.asked) {
            work.load(context, teacher, batch, None);
            teacher.forward(context, work, &[]);
        }
        if let [_, _, ..] = teachers {
            let (classes, size) = (self.model.classes(), batch.len());
            let members = teachers.iter().zip(&self.asked).map(|(teacher, work)| {
                let mut logits = vec![0.0; size * classes];
                work.logits(teacher).to_lane_major(&mut logits);
                logits
            });
            let t = self.task.objective.temperature;
            let joint = distill::ensemble_logits(context, members, classes, t);
            PanelsMut::new(&mut self.teacher, classes, size).copy_from_lane_major(&joint);
        }
    }

    /// The gradients, and the optimiser's step in their place.
    fn backward_step(
        &mut self,
        context: &Context,
        optimizer: &mut Optimizer,
        at: Position,
    ) -> std::result::Result<(), NotFinite> {
        let Replica { model, work, dropout, .. } = self;
        optimizer.backward_step(context, at.epochs_done(), model, work, dropout)
    }

    /// The gradients of this rank's microbatches of `batch`, summed. With other ranks, who are told
    /// whether to stop, the sum over all begins layer by layer.
    fn accumulate(
        &mut self,
        context: &Context,
        batch: &Batch,
        at: Position,
        microbatches: &mut Microbatches,
        mut talk: Option<(&mut Communicator, bool)>,
    ) -> Result<StepOutcome> {
        let mut outcomes = Vec::with_capacity(microbatches.mine.len());
        for microbatch in microbatches.mine.clone() {
            let part = batch.part(microbatches.examples(microbatch, batch.len()));
            let empty = part.indices.is_empty();
            outcomes.push(if empty {
                StepOutcome::default()
            } else {
                self.forward(context, &part, (at, microbatch));
                self.loss(context, &part, batch.len())
            });
            let is_last = microbatch + 1 == microbatches.mine.end;
            let mut talk = talk.as_mut().filter(|_| is_last);
            if let Some((communicator, stop)) = &mut talk {
                distributed::start_outcome(communicator, &outcomes, *stop);
            }
            let Replica { model, work, dropout, .. } = &mut *self;
            for i in (0..model.layers().len()).rev() {
                if empty {
                    microbatches.gradient(i).fill(0.0);
                } else {
                    model.layer_gradient(context, work, dropout, i, microbatches.gradient(i));
                }
                microbatches.add(context, microbatch, i);
                if let Some((communicator, _)) = &mut talk {
                    communicator.start_sum(microbatches.take(i));
                }
            }
        }
        match talk {
            Some((communicator, _)) => distributed::finish_outcome(communicator),
            None => Ok(StepOutcome::of(&outcomes)),
        }
    }

    /// The optimiser's step with the sum of the microbatches' gradients, on all ranks.
    fn update(
        &mut self,
        context: &Context,
        optimizer: &mut Optimizer,
        at: Position,
        microbatches: &mut Microbatches,
        mut communicator: Option<&mut Communicator>,
    ) -> Result<std::result::Result<(), NotFinite>> {
        let rule = optimizer.next_rule(at.epochs_done());
        let mut updated = Ok(());
        for i in (0..self.model.layers().len()).rev() {
            if let Some(communicator) = &mut communicator {
                *microbatches.gradient(i) = communicator.finish_sum()?;
            }
            let grads = microbatches.gradient(i);
            updated = updated
                .and_then(|()| optimizer.step_layer(context, rule, &mut self.model, grads, i));
        }
        optimizer.average(context, &self.model);
        Ok(updated)
    }

    fn expect_finite(
        &self,
        loss: Loss,
        examples: usize,
        optimizer: &Optimizer,
        at: Position,
    ) -> Result<()> {
        if self.task.objective.value(loss, examples).is_finite() {
            return Ok(());
        }
        let asked = self.task.teachers.iter().zip(&self.asked);
        if let Some(i) = asked.map(|(net, work)| work.not_finite(net)).position(|it| it.is_some()) {
            let message = format!(
                "the logits of teacher {i}: found NaN or infinity in epoch {}, step {}, expected finite \
                 numbers",
                at.epoch + 1,
                at.step + 1
            );
            return Err(Error::Dataset { message, io: false });
        }
        let output = || Some(("output".to_string(), self.work.not_finite(&self.model)?));
        let cause = self.not_finite(optimizer).or_else(output);
        let cause = cause.map(|(tensor, layer)| (tensor, Some(layer)));
        Err(at.diverged(self.task, cause.unwrap_or(("loss".to_string(), None))))
    }

    fn expect_updated(
        &self,
        updated: std::result::Result<(), NotFinite>,
        optimizer: &Optimizer,
        at: Position,
    ) -> Result<()> {
        updated.map_err(|NotFinite { layer, update }| {
            let cause = self.not_finite(optimizer).unwrap_or((update.to_string(), layer));
            at.diverged(self.task, (cause.0, Some(cause.1)))
        })
    }

    /// The first of parameters, moments and average that is not finite, and its layer.
    pub fn not_finite(&self, optimizer: &Optimizer) -> Option<(String, usize)> {
        let find = |values: &[f32]| params::not_finite(self.model.layers(), values);
        if let Some((layer, kind)) = find(self.model.params()) {
            return Some((kind.to_string(), layer));
        }
        optimizer.tensors().find_map(|(name, values)| {
            let (layer, kind) = find(values)?;
            Some((format!("{name} of the {kind}"), layer))
        })
    }
}
