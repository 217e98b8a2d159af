//! A few training steps for another implementation to repeat.

use super::step::StepBench;
use crate::engine::config::Precision;
use crate::engine::loss;
use crate::engine::mlp::{Mlp, Workspace};
use crate::engine::optimizer::{NotFinite, Optimizer};
use crate::files::error::{Error, Result};
use crate::files::write::atomic_write;
use limbeck_kernels::{Buffer, Context, Panels, PanelsMut, panel_len};
use serde::Serialize;
use std::path::Path;

/// A batch, and what three steps of SGD on it without dropout should give.
#[derive(Debug, Serialize)]
pub struct StepCase {
    /// `[batch, inputs]`; an input is pixel / 255.
    pub pixels: Vec<u8>,
    /// `[batch]`.
    pub labels: Vec<u16>,
    /// `[batch, classes]`, for a student.
    pub teacher_logits: Option<Vec<f32>>,
    /// T of the soft term.
    pub temperature: f32,
    /// Weight of T² · CE(softmax(v/T), softmax(z/T)).
    pub soft_weight: f32,
    /// Weight of CE(label, softmax(z)).
    pub hard_weight: f32,
    /// η in w ← w − η·v.
    pub learning_rate: f64,
    /// m in v ← m·v + g.
    pub momentum: f64,
    /// The mean loss before each step.
    pub losses: Vec<f64>,
}

impl StepBench {
    /// Writes to `folder` what another implementation needs to repeat a few steps without dropout,
    /// and the losses that it should find: `model.safetensors`, the initial weights, and
    /// `case.json`, a [`StepCase`].
    ///
    /// # Errors
    /// As [`Optimizer::backward_step`], and [`Error::Io`].
    pub fn write_case(&self, context: &Context, folder: &Path) -> Result<()> {
        let mut config = self.config.clone();
        config.training.learning_rate = 0.1;
        let batch = config.training.batch_size;
        let mut model = Mlp::new(&config.model.layers, config.seed);
        let mut optimizer = Optimizer::new(&config.training, &model);
        let mut work = Workspace::for_training(&model, batch, Precision::F32);
        let (inputs, classes) = (model.inputs(), model.classes());
        let labels = self.split.labels.as_ref().map(|labels| &labels[..batch]);
        let logits = self.teacher_logits.as_ref().map(|v| &v[..batch * classes]);
        let teacher = logits.map(|logits| {
            let mut panels = Buffer::zeroed(panel_len(classes, batch));
            PanelsMut::new(&mut panels, classes, batch).copy_from_lane_major(logits);
            panels
        });
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        model.to_file().save(&folder.join("model.safetensors"))?;
        let mut losses = Vec::new();
        let indices: Vec<u32> = (0..batch as u32).collect();
        for step in 1..=3 {
            work.load(context, &model, &self.split.batch(&indices), None);
            model.forward(context, &mut work, &[]);
            let teacher = teacher.as_ref().map(|v| Panels::new(v, classes, batch));
            let sum =
                loss::distillation(context, &self.objective, &model, teacher, labels, &mut work);
            losses.push(self.objective.value(sum, batch));
            optimizer.backward_step(context, 0.0, &mut model, &mut work, &[]).map_err(
                |NotFinite { layer, update }| Error::Diverged {
                    tensor: update.into(),
                    layer: Some(layer),
                    epoch: 1,
                    step,
                    advice: "lower the learning rate".into(),
                },
            )?;
        }
        let case = StepCase {
            pixels: self.split.images().pixels[..batch * inputs].to_vec(),
            labels: labels.unwrap_or_default().to_vec(),
            teacher_logits: logits.map(<[f32]>::to_vec),
            temperature: self.objective.temperature,
            soft_weight: self.objective.soft_weight,
            hard_weight: self.objective.hard_weight,
            learning_rate: config.training.learning_rate,
            momentum: config.training.momentum,
            losses,
        };
        let json =
            serde_json::to_vec(&case).map_err(|e| Error::Internal(format!("case to JSON: {e}")))?;
        atomic_write(&folder.join("case.json"), &json)
    }
}
