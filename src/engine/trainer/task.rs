//! One model to train, and whether there is all that it needs.

use crate::engine::config::{Config, Standardize};
use crate::engine::mlp::{InputScale, Mlp};
use crate::engine::{loss::LossSpec, standardize};
use crate::files::error::{Error, Result};
use limbeck_datasets::{Inputs, Split, View};

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
    /// The teachers who are asked in each step what they say of what the student sees, in place of
    /// `teacher_logits`; several answer as [`crate::engine::distill`] says.
    pub teachers: &'a [Mlp],
    /// The model to start from, in place of random weights; of the widths that `config` has.
    pub initial: Option<&'a Mlp>,
    /// Labelled splits, by name, on which the model is evaluated after every epoch.
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
            teachers: &[],
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

    /// What each image is drawn as.
    pub(super) fn views(&self) -> &'a [View] {
        self.config.distillation.as_ref().map_or(&[], |table| &table.views)
    }

    /// The model before its first step: the one to start from, or [`Mlp::with_activation`] times
    /// `init_scale`.
    pub fn initial_model(&self) -> Mlp {
        let Config { model: net, seed, .. } = self.config;
        self.initial.cloned().unwrap_or_else(|| {
            let mut model = Mlp::with_activation(&net.layers, net.activation, *seed);
            model.input = InputScale::of(&self.split.inputs);
            match (self.config.data.standardize, &self.split.inputs) {
                (Some(Standardize::On), Inputs::Features(features)) => {
                    model.standardizer = Some(standardize::of(features));
                }
                (Some(Standardize::Mean), Inputs::Features(features)) => {
                    model.standardizer = Some(standardize::to_mean(features));
                }
                (Some(Standardize::Mean), Inputs::Images(images)) => {
                    model.input = standardize::of_pixels(images);
                }
                _ => {}
            }
            let init_scale = net.init_scale as f32;
            model.params_mut().iter_mut().for_each(|p| *p *= init_scale);
            model
        })
    }

    /// Whether there is something to train on, and all that the loss needs.
    ///
    /// # Errors
    /// [`Error::Usage`] for an empty training set, a configuration that is not valid, teacher's logits that are missing or do not fit,
    /// missing labels, or an initial model of other widths; [`Error::Dataset`] for features, logits
    /// or an initial model that are not finite.
    pub fn check(&self) -> Result<()> {
        let examples = self.split.len();
        if examples == 0 {
            return Err(Error::Usage("the training set is empty".into()));
        }
        self.config.validate_in_memory(self.split.input_size())?;
        if let (Inputs::Features(_), Some(jitter)) = (&self.split.inputs, self.config.data.jitter) {
            return Err(Error::Usage(format!(
                "jitter: found {jitter}, expected none: it moves images, and these are features"
            )));
        }
        let on = self.config.data.standardize == Some(Standardize::On);
        if on && matches!(self.split.inputs, Inputs::Images(_)) {
            return Err(Error::Usage(
                "data.standardize: found true, expected \"mean\" or false: these are images, whose pixels \
                 are divided by 255"
                    .into(),
            ));
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
        if let (Inputs::Features(_), Some(view)) = (&self.split.inputs, self.views().first()) {
            return Err(Error::Usage(format!(
                "distillation.views: found {view}, expected none: views are of images, and these are \
                 features"
            )));
        }
        if let Inputs::Images(images) = &self.split.inputs {
            let (height, width) = (images.height, images.width);
            let side = height.min(width);
            if let Some(jitter) = self.config.data.jitter.filter(|&jitter| jitter >= side.max(1)) {
                return Err(Error::Usage(format!(
                    "data.jitter: found {jitter} pixels for images of {height}x{width}, expected less than \
                     either side: such a shift leaves nothing"
                )));
            }
            let hides = |view: &&View| view.hides(height, width);
            if let Some(view) = self.views().iter().find(hides) {
                return Err(Error::Usage(format!(
                    "distillation.views: found {view}, expected one that leaves something of an image \
                     of {height}x{width}"
                )));
            }
        }
        let hides = self.views().iter().find(|view| view.may_hide_the_label());
        if let Some(view) = hides.filter(|_| self.objective.hard_weight > 0.0) {
            return Err(Error::Usage(format!(
                "distillation.views: found {view}, whose label may be that of the fainter image; expected \
                 λ of ½ and more, or a teacher's targets alone: `limbeck distill` with \
                 distillation.hard_weight = 0"
            )));
        }
        let sizes = (self.split.input_size(), classes);
        for teacher in self.teachers {
            let found = (teacher.inputs(), teacher.classes());
            if found != sizes {
                return Err(Error::Usage(format!(
                    "a teacher: found {} inputs and {} classes, expected {} and {}",
                    found.0, found.1, sizes.0, sizes.1
                )));
            }
        }
        if !self.views().is_empty() && !teacher.is_empty() {
            return Err(Error::Usage(
                "the teacher's logits are of the images as they are: views need the teacher itself"
                    .into(),
            ));
        }
        let is_soft = self.objective.soft_weight > 0.0 && self.teachers.is_empty();
        if is_soft && teacher.len() != shifts * examples * classes {
            return Err(Error::Usage(format!(
                "the teacher's logits: found {} values, expected {examples} examples × {classes} \
                 classes × {shifts} shifts",
                teacher.len(),
            )));
        }
        if self.objective.hard_weight > 0.0 && self.split.labels.is_none() {
            return Err(Error::Usage(match self.objective.soft_weight > 0.0 {
                false => "the training set has no labels, and training without a teacher needs \
                          them: add them, or distil from a teacher (`limbeck distill`)"
                    .into(),
                true => format!(
                    "the training set has no labels, but distillation.hard_weight is {}: set it to \
                     0 in the configuration",
                    self.objective.hard_weight
                ),
            }));
        }
        let watches = self.watch.iter().any(|(name, _)| *name == super::VALIDATION);
        if self.config.training.early_stopping.is_some() && !watches {
            return Err(Error::Usage(
                "training.early_stopping needs examples to watch: set data.validation".into(),
            ));
        }
        if let Some((name, _)) = self.watch.iter().find(|(_, split)| split.labels.is_none()) {
            return Err(Error::Usage(format!("the watched split '{name}' has no labels")));
        }
        let (found, expected) = (self.initial.map(Mlp::activation), self.config.model.activation);
        if let Some(found) = found.filter(|found| *found != expected) {
            return Err(Error::Usage(format!(
                "the initial model: found the activation {found}, expected {expected} \
                 (model.activation)"
            )));
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

    /// What to do when training diverges: the first of its causes that is out of the ordinary.
    pub(super) fn advice(&self) -> String {
        /// Inputs of a net are of the order of 1; from here on they are taken for the cause.
        const LARGE: f32 = 100.0;
        let mut space = vec![0.0; self.split.input_size()];
        let mut largest = 0.0f32;
        if let Inputs::Features(features) = &self.split.inputs {
            for i in 0..features.len() {
                let values = features.input(i, &mut space).iter();
                largest = values.fold(largest, |most, value| most.max(value.abs()));
            }
        }
        let standardised = self.config.data.standardize == Some(Standardize::On);
        if largest > LARGE && !standardised {
            return format!(
                "the features reach {largest:e}: set data.standardize = true, or scale each to about \
                 1, as by (x − mean)/sd"
            );
        }
        let init_scale = self.config.model.init_scale;
        if self.initial.is_none() && init_scale > f64::from(LARGE) {
            return format!("model.init_scale is {init_scale:e}: lower it, to 1");
        }
        let teacher = self.teacher_logits.unwrap_or_default().iter();
        let largest = teacher.fold(0.0f32, |most, value| most.max(value.abs()));
        if largest > LARGE * LARGE {
            return format!("the teacher's logits reach {largest:e}: correct them");
        }
        "lower the learning rate".into()
    }
}

fn expect_finite(values: &[f32], what: impl Fn() -> String) -> Result<()> {
    let Some(at) = values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
    let message =
        format!("{}: found {} at index {at}, expected finite numbers", what(), values[at]);
    Err(Error::Dataset { message, io: false })
}
