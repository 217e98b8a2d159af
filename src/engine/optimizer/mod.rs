//! Optimisers: how the parameters move, and the state that they move with.
//!
//! One optimiser is one file here: what it computes, the rule of [`limbeck_kernels::update`] that
//! does it, and what it keeps between steps. [`limbeck_kernels::reference::step`] is the same in
//! f64. [`Optimizer`] has what all share: moments, max-norm, the average of the weights, and the
//! update of weights while their gradient is still in registers.

mod adam;
mod adamw;
pub mod hinton2012;
mod nesterov;
pub mod schedule;
mod sgd;

use crate::engine::config::{OptimizerKind, TrainingConfig};
use crate::engine::mlp::{Mlp, Workspace};
use crate::engine::params::{self, LayerParams};
use crate::files::error::{Error, Result};
use limbeck_kernels::gemm::{self, WeightStep};
use limbeck_kernels::random::Dropout;
use limbeck_kernels::update::{self, Rule};
use limbeck_kernels::{Buffer, Context, PanelsMut};
use schedule::learning_rate;
use std::{borrow::Cow, collections::BTreeMap};

/// What is different in each optimiser.
trait Method: Send + Sync {
    /// Moments of a parameter: arrays as large as the model that are kept between steps.
    fn moments(&self) -> usize {
        1
    }

    /// What is kept between steps beside the moments: names in a checkpoint, and first values.
    fn scalars(&self) -> &'static [(&'static str, f64)] {
        &[]
    }

    /// What the next step does to a parameter. It is called once a step, so that what depends on
    /// the number of steps can be counted in `scalars`, those of [`Method::scalars`].
    fn rule(&self, training: &TrainingConfig, at: StepSize, scalars: &mut [f64]) -> Rule;
}

/// What the schedule says about a step.
#[derive(Clone, Copy)]
struct StepSize {
    /// Fractional within an epoch.
    epochs_done: f64,
    /// η.
    learning_rate: f32,
}

fn method(kind: OptimizerKind) -> &'static dyn Method {
    match kind {
        OptimizerKind::Sgd => &sgd::Sgd,
        OptimizerKind::Nesterov => &nesterov::Nesterov,
        OptimizerKind::Adam => &adam::Adam,
        OptimizerKind::AdamW => &adamw::AdamW,
        OptimizerKind::Hinton2012 => &hinton2012::Hinton2012,
    }
}

/// A step after which a parameter or a moment of a layer is NaN or infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite {
    /// The layer, from 0.
    pub layer: usize,
    /// `weight update` or `bias update`.
    pub update: &'static str,
}

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

/// What a checkpoint calls the number of steps that the average is of.
const AVERAGED: &str = "averaged";

/// An optimiser at work on a model: its moments and, if asked for, the average of the weights.
pub struct Optimizer {
    training: TrainingConfig,
    method: &'static dyn Method,
    /// The values of [`Method::scalars`].
    scalars: Vec<f64>,
    moments: Vec<Buffer>,
    average: Option<Buffer>,
    /// Steps that the average is of.
    averaged: f64,
}

impl Optimizer {
    /// An optimiser at rest for `model`.
    pub fn new(training: &TrainingConfig, model: &Mlp) -> Self {
        let len = params::len(model.layers());
        let method = method(training.optimizer);
        let average = (training.average > 0.0).then(|| {
            let mut average = Buffer::zeroed(len);
            average.copy_from_slice(model.params());
            average
        });
        Self {
            training: training.clone(),
            scalars: method.scalars().iter().map(|(_, first)| *first).collect(),
            moments: (0..method.moments()).map(|_| Buffer::zeroed(len)).collect(),
            method,
            average,
            averaged: 0.0,
        }
    }

    /// One step with gradients `grads` after `epochs_done` epochs: every layer's weights (with
    /// weight decay) and biases (without), then max-norm on the hidden layers' units, then the
    /// average of the weights.
    ///
    /// # Errors
    /// [`NotFinite`] for the first such layer, from the last one down.
    pub fn step(
        &mut self,
        context: &Context,
        epochs_done: f64,
        model: &mut Mlp,
        grads: &[f32],
    ) -> std::result::Result<(), NotFinite> {
        let rule = self.next_rule(epochs_done);
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
        let params = model.weight_mut(i);
        let finite = with_moments(&mut moments, |moments| {
            update::step(context, rule, weight_decay, params, dw, moments)
        });
        let within =
            |limit| update::max_norm(context, limit, PanelsMut::new(params, inputs, outputs));
        if !(finite && max_norm.is_none_or(within)) {
            return Err(NotFinite { layer: i, update: "weight update" });
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
        let rule = self.next_rule(epochs_done);
        for i in (0..model.layers().len()).rev() {
            model.backward_layer(context, work, dropout, i);
            let LayerParams { inputs, outputs, weight, .. } = model.layers()[i].clone();
            let (factors, db) = work.layer_gradient(model, i, true);
            let step = self.weight_step(rule, model, i);
            let mut moments = self.moments.iter_mut().map(|m| &mut m[weight.clone()]);
            let w = PanelsMut::new(model.weight_mut(i), inputs, outputs);
            let finite = with_moments(&mut moments, |moments| {
                gemm::weight_update(context, factors, step, w, moments)
            });
            if !finite {
                return Err(NotFinite { layer: i, update: "weight update" });
            }
            self.step_biases(context, rule, model, db, i)?;
            work.weights_are(model, i);
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
        let params = model.bias_mut(i);
        let finite = with_moments(&mut moments, |moments| {
            update::step(context, rule, 0.0, params, db, moments)
        });
        if finite { Ok(()) } else { Err(NotFinite { layer: i, update: "bias update" }) }
    }

    /// average ← average + w·(W − average) with w = max(1 − `training.average`, 1/t) in step t. So the average
    /// is the plain mean of the first 1/(1 − `training.average`) steps, and the initial weights, which
    /// would outlast many more, have no part in it.
    pub(crate) fn average(&mut self, context: &Context, model: &Mlp) {
        if let Some(average) = &mut self.average {
            self.averaged += 1.0;
            let weight = (1.0 - self.training.average).max(1.0 / self.averaged);
            update::average(context, model.params(), weight as f32, average);
        }
    }

    /// The rule for the next step, which is counted.
    pub(crate) fn next_rule(&mut self, epochs_done: f64) -> Rule {
        let learning_rate = learning_rate(&self.training, epochs_done) as f32;
        let at = StepSize { epochs_done, learning_rate };
        self.method.rule(&self.training, at, &mut self.scalars)
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

    /// The state's numbers by name, for a checkpoint.
    pub fn scalars(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let names = self.method.scalars().iter().map(|(name, _)| *name);
        let averaged = self.average.iter().map(|_| (AVERAGED, self.averaged));
        names.zip(self.scalars.iter().copied()).chain(averaged)
    }

    /// [`Optimizer::tensors`], to be overwritten.
    pub(crate) fn tensors_mut(&mut self) -> impl Iterator<Item = (String, &mut [f32])> {
        let moments = self.moments.iter_mut().enumerate();
        let moments = moments.map(|(i, m)| (format!("moment.{i}"), &mut m[..]));
        moments.chain(self.average.iter_mut().map(|a| ("average".to_string(), &mut a[..])))
    }

    /// Takes back what [`Optimizer::scalars`] gave; other names are passed over.
    ///
    /// # Errors
    /// [`Error::Internal`] if one is missing: a checkpoint of this configuration cannot lack it.
    pub fn restore_scalars(&mut self, scalars: &BTreeMap<String, f64>) -> Result<()> {
        for (value, (name, _)) in self.scalars.iter_mut().zip(self.method.scalars()) {
            *value = scalar(scalars, name)?;
        }
        // A checkpoint from before steps were counted has an average that goes on as it began.
        self.averaged = scalars.get(AVERAGED).copied().unwrap_or(f64::INFINITY);
        Ok(())
    }

    /// Takes back what [`Optimizer::tensors`] gave.
    ///
    /// # Errors
    /// [`Error::Internal`] if an array is missing or has another length: a checkpoint of this
    /// configuration cannot lack it.
    pub fn restore(&mut self, tensors: &[(String, Cow<[f32]>)]) -> Result<()> {
        self.tensors_mut().try_for_each(|(name, array)| restore(tensors, &name, array))
    }
}

/// The number `name` of a checkpoint.
///
/// # Errors
/// [`Error::Internal`] if it is missing.
pub(crate) fn scalar(scalars: &BTreeMap<String, f64>, name: &str) -> Result<f64> {
    let found = scalars.get(name).copied();
    found.ok_or_else(|| Error::Internal(format!("checkpoint without '{name}'")))
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
