//! What a run tells whoever watches it.

use crate::engine::mlp::Mlp;
use crate::files::error::Result;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How far a run is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// [`super::Task::name`].
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
    /// Training examples of this epoch misclassified so far, seen through jitter and dropout; `None`
    /// without labels.
    pub errors: Option<u64>,
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
    /// [`super::Task::name`].
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
    /// What the model makes of [`super::Task::watch`] after the epoch.
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

/// Who watches a training run. An error that it returns ends the run.
pub trait Observer: Send {
    /// Before the first step: a model starts, or goes on after `epochs_done` epochs.
    fn on_start(&mut self, model: &str, epochs_done: usize) -> Result<()> {
        let _ = (model, epochs_done);
        Ok(())
    }
    /// After each step.
    fn on_step(&mut self, progress: &Progress) {
        let _ = progress;
    }
    /// After each epoch.
    fn on_epoch(&mut self, record: &EpochRecord) -> Result<()> {
        let _ = record;
        Ok(())
    }
    /// Before a checkpoint is written: what was kept of earlier epochs must now last.
    fn on_checkpoint(&mut self) -> Result<()> {
        Ok(())
    }
    /// Asked after each step: whether the run is to write a checkpoint and end with
    /// [`Error::Interrupted`](crate::Error::Interrupted).
    fn stop(&self) -> bool {
        false
    }
    /// Where [`Observer::stop`] ended a run: the model that it would have given if that had been its
    /// last step.
    fn on_stop(&mut self, model: Mlp) {
        let _ = model;
    }
    /// Something the user should know.
    fn warn(&mut self, message: &str);
}

/// Nobody watches.
impl Observer for () {
    fn warn(&mut self, _: &str) {}
}
