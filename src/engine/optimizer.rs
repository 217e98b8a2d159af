//! Learning-rate schedules and the state of the optimiser.

use crate::engine::config::{OptimizerKind, ScheduleKind, TrainingConfig};
use crate::engine::mlp::{Mlp, Workspace};
use crate::engine::params::{self, LayerParams};
use crate::files::error::{Error, Result};
use limbeck_kernels::gemm::{self, WeightStep};
use limbeck_kernels::random::Dropout;
use limbeck_kernels::update::{self, Rule};
use limbeck_kernels::{Buffer, Context, PanelsMut};
use std::borrow::Cow;

/// The learning rate after `epochs_done` epochs (fractional within an epoch), η₀ at the start.
///
/// | schedule | η |
/// |---|---|
/// | constant | η₀ |
/// | exponential | η₀ · decay^⌊e⌋ |
/// | step | η₀ · step_factor^⌊e / step_epochs⌋ |
/// | linear | η₀ · (1 − e/epochs) |
/// | cosine | η₀ · ½(1 + cos(π e/epochs)) |
/// | hinton2012 | η₀ · decay^⌊e⌋, with the momentum of [`momentum`] (arXiv 1207.0580, A.1) |
pub fn learning_rate(training: &TrainingConfig, epochs_done: f64) -> f64 {
    let rate = training.learning_rate;
    let fraction = epochs_done / training.epochs as f64;
    match training.schedule {
        ScheduleKind::Constant => rate,
        ScheduleKind::Exponential | ScheduleKind::Hinton2012 => {
            rate * libm::pow(training.decay, epochs_done.floor())
        }
        ScheduleKind::Step => {
            let steps = (epochs_done / training.step_epochs as f64).floor();
            rate * libm::pow(training.step_factor, steps)
        }
        ScheduleKind::Linear => rate * (1.0 - fraction),
        ScheduleKind::Cosine => rate * 0.5 * (1.0 + libm::cos(std::f64::consts::PI * fraction)),
    }
}

/// The momentum after `epochs_done` epochs: constant, but with `hinton2012` linear from 0.5 to
/// 0.99 over `momentum_epochs`.
pub fn momentum(training: &TrainingConfig, epochs_done: f64) -> f64 {
    match training.schedule {
        ScheduleKind::Hinton2012 => {
            let t = (epochs_done / training.momentum_epochs as f64).min(1.0);
            t * 0.99 + (1.0 - t) * 0.5
        }
        _ => training.momentum,
    }
}

/// The layer of an update from which something is not finite, and of what it is.
pub type NotFinite = (usize, &'static str);

/// Calls `work` with one or two moments as a slice, without allocating.
fn with_moments<'a, R>(
    moments: &mut impl Iterator<Item = &'a mut [f32]>,
    work: impl FnOnce(&mut [&mut [f32]]) -> R,
) -> R {
    match (moments.next(), moments.next()) {
        (Some(v), Some(u)) => work(&mut [v, u]),
        (Some(v), None) => work(&mut [v]),
        _ => work(&mut []),
    }
}

/// Moments, averaged weights, and the rule they follow.
pub struct Optimizer {
    training: TrainingConfig,
    moments: Vec<Buffer>,
    average: Option<Buffer>,
    /// β₁ᵗ and β₂ᵗ after t steps, for Adam.
    powers: [f64; 2],
}

impl Optimizer {
    /// An optimiser at rest for `model`.
    pub fn new(training: &TrainingConfig, model: &Mlp) -> Self {
        let len = params::len(model.layers());
        let moments = if training.optimizer == OptimizerKind::Adam { 2 } else { 1 };
        let average = (training.average > 0.0).then(|| {
            let mut average = Buffer::zeroed(len);
            average.copy_from_slice(model.params());
            average
        });
        Self {
            training: training.clone(),
            moments: (0..moments).map(|_| Buffer::zeroed(len)).collect(),
            average,
            powers: [1.0; 2],
        }
    }

    /// One step with gradients `grads` after `epochs_done` epochs: every layer's weights (with
    /// weight decay) and biases (without), then max-norm on the hidden layers' units, then the
    /// average of the weights.
    ///
    /// # Errors
    /// The layer and kind of an update from which something is not finite.
    pub fn step(
        &mut self,
        context: &Context,
        epochs_done: f64,
        model: &mut Mlp,
        grads: &[f32],
    ) -> std::result::Result<(), NotFinite> {
        let rule = self.rule(epochs_done);
        for i in (0..model.layers().len()).rev() {
            let range = model.layers()[i].all();
            self.step_layer(context, rule, model, &grads[range], i)?;
        }
        self.average(context, model);
        Ok(())
    }

    /// The part of [`Optimizer::step`] that concerns layer `i`, of which `grads` are.
    pub(crate) fn step_layer(
        &mut self,
        context: &Context,
        rule: Rule,
        model: &mut Mlp,
        grads: &[f32],
        i: usize,
    ) -> std::result::Result<(), NotFinite> {
        let WeightStep { weight_decay, max_norm, .. } = self.weight_step(rule, model, i);
        let LayerParams { inputs, outputs, weight, .. } = model.layers()[i].clone();
        let (dw, db) = grads.split_at(weight.len());
        let mut moments = self.moments.iter_mut().map(|m| &mut m[weight.clone()]);
        let params = &mut model.params_mut()[weight.clone()];
        let finite = with_moments(&mut moments, |moments| {
            update::step(context, rule, weight_decay, params, dw, moments)
        });
        let within =
            |limit| update::max_norm(context, limit, PanelsMut::new(params, inputs, outputs));
        if !(finite && max_norm.is_none_or(within)) {
            return Err((i, "weight update"));
        }
        self.step_biases(context, rule, model, db, i)
    }

    /// [`Mlp::backward`] and [`Optimizer::step`] in one, with the same bits: each layer's weights
    /// are updated while their gradient is in registers.
    ///
    /// # Errors
    /// As for [`Optimizer::step`].
    pub fn backward_step(
        &mut self,
        context: &Context,
        epochs_done: f64,
        model: &mut Mlp,
        work: &mut Workspace,
        dropout: &[Option<Dropout>],
    ) -> std::result::Result<(), NotFinite> {
        let rule = self.rule(epochs_done);
        for i in (0..model.layers().len()).rev() {
            model.backward_layer(context, work, dropout, i);
            let LayerParams { inputs, outputs, weight, .. } = model.layers()[i].clone();
            let (x, dz_transposed, db) = work.layer_gradient(model, i);
            let step = self.weight_step(rule, model, i);
            let mut moments = self.moments.iter_mut().map(|m| &mut m[weight.clone()]);
            let w = PanelsMut::new(&mut model.params_mut()[weight.clone()], inputs, outputs);
            let finite = with_moments(&mut moments, |moments| {
                gemm::weight_update(context, x, dz_transposed, step, w, moments)
            });
            if !finite {
                return Err((i, "weight update"));
            }
            self.step_biases(context, rule, model, db, i)?;
        }
        self.average(context, model);
        Ok(())
    }

    /// What happens to the weights of layer `i`: max-norm binds hidden units only.
    fn weight_step(&self, rule: Rule, model: &Mlp, i: usize) -> WeightStep {
        let hidden = i + 1 < model.layers().len();
        let TrainingConfig { weight_decay, max_norm, .. } = self.training;
        let max_norm = max_norm.filter(|_| hidden).map(|limit| limit as f32);
        WeightStep { rule, weight_decay: weight_decay as f32, max_norm }
    }

    fn step_biases(
        &mut self,
        context: &Context,
        rule: Rule,
        model: &mut Mlp,
        db: &[f32],
        i: usize,
    ) -> std::result::Result<(), NotFinite> {
        let bias = model.layers()[i].bias.clone();
        let mut moments = self.moments.iter_mut().map(|m| &mut m[bias.clone()]);
        let params = &mut model.params_mut()[bias.clone()];
        let finite = with_moments(&mut moments, |moments| {
            update::step(context, rule, 0.0, params, db, moments)
        });
        if finite { Ok(()) } else { Err((i, "bias update")) }
    }

    pub(crate) fn average(&mut self, context: &Context, model: &Mlp) {
        if let Some(average) = &mut self.average {
            update::average(context, model.params(), self.training.average as f32, average);
        }
    }

    /// The rule for the next step; counts it.
    pub(crate) fn rule(&mut self, epochs_done: f64) -> Rule {
        let learning_rate = learning_rate(&self.training, epochs_done) as f32;
        let momentum = momentum(&self.training, epochs_done);
        match self.training.optimizer {
            _ if self.training.schedule == ScheduleKind::Hinton2012 => {
                Rule::Hinton2012 { learning_rate, momentum: momentum as f32 }
            }
            OptimizerKind::Sgd => Rule::Sgd { learning_rate, momentum: momentum as f32 },
            OptimizerKind::Nesterov => Rule::Nesterov { learning_rate, momentum: momentum as f32 },
            OptimizerKind::Adam => {
                // A running product: unlike powi it is the same on every platform.
                self.powers[0] *= momentum;
                self.powers[1] *= self.training.beta2;
                Rule::Adam {
                    learning_rate,
                    beta1: momentum as f32,
                    beta2: self.training.beta2 as f32,
                    epsilon: self.training.epsilon as f32,
                    corrections: self.powers.map(|power| (1.0 - power) as f32),
                }
            }
        }
    }

    /// The model to evaluate: the average of its weights where one is kept, else `model` itself.
    pub fn evaluated(&self, mut model: Mlp) -> Mlp {
        if let Some(average) = &self.average {
            model.params_mut().copy_from_slice(average);
        }
        model
    }

    /// The state's arrays by name, for a checkpoint.
    pub fn tensors(&self) -> impl Iterator<Item = (String, &[f32])> {
        let moments = self.moments.iter().enumerate().map(|(i, m)| (format!("moment.{i}"), &m[..]));
        moments.chain(self.average.iter().map(|a| ("average".to_string(), &a[..])))
    }

    /// β₁ᵗ and β₂ᵗ, for a checkpoint.
    pub fn powers(&self) -> [f64; 2] {
        self.powers
    }

    /// Takes back what [`Optimizer::powers`] gave.
    pub(crate) fn set_powers(&mut self, powers: [f64; 2]) {
        self.powers = powers;
    }

    /// The arrays of [`Optimizer::tensors`], to be overwritten.
    pub(crate) fn arrays_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.moments.iter_mut().chain(&mut self.average).map(|array| &mut array[..])
    }

    /// Takes back what [`Optimizer::tensors`] gave.
    ///
    /// # Errors
    /// [`Error::Internal`] if an array is missing or has another length: a checkpoint of this
    /// configuration cannot lack it.
    pub fn restore(&mut self, tensors: &[(String, Cow<[f32]>)]) -> Result<()> {
        let moments = self.moments.iter_mut().enumerate().map(|(i, m)| (format!("moment.{i}"), m));
        for (name, buffer) in
            moments.chain(self.average.iter_mut().map(|a| ("average".to_string(), a)))
        {
            restore(tensors, &name, buffer)?;
        }
        Ok(())
    }
}

/// Copies the array `name` of a checkpoint to `buffer`.
///
/// # Errors
/// [`Error::Internal`] if it is missing or has another length.
pub fn restore(tensors: &[(String, Cow<[f32]>)], name: &str, buffer: &mut [f32]) -> Result<()> {
    let found = tensors.iter().find(|(n, values)| n == name && values.len() == buffer.len());
    let (_, values) = found.ok_or_else(|| {
        Error::Internal(format!("checkpoint without {} values of '{name}'", buffer.len()))
    })?;
    buffer.copy_from_slice(values);
    Ok(())
}
