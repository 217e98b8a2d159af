//! Checkpoints: when one is written, what is in it, and how a run goes on from it.

use super::{EpochSums, Observer, Run};
use crate::engine::{config::Config, optimizer};
use crate::files::checkpoint::{self, TrainingState};
use crate::files::error::{Error, Result};
use limbeck_kernels::softmax::Loss;
use std::time::{Duration, Instant};
use std::{io::ErrorKind, path::Path};

/// When a checkpoint is due: [`checkpoint_minutes`](crate::engine::config::TrainingConfig) after the last
/// one, and at an epoch's end once the last one is paid off, 200 times as long ago as it took to
/// write. Checkpoints at epochs' ends thus take at most 0.5 % of the time, whatever model, disk
/// and length of the epochs. Epochs' ends within ten seconds of the last checkpoint are passed
/// over: the first one's cost is not known yet, and there is little to lose.
pub(super) struct Timetable {
    every: Duration,
    last: Instant,
    /// How long the last one took.
    cost: Duration,
}

impl Timetable {
    /// For a run that starts at `start`.
    pub fn new(config: &Config, start: Instant) -> Self {
        let every = Duration::from_secs_f64(config.training.checkpoint_minutes * 60.0);
        Timetable { every, last: start, cost: Duration::ZERO }
    }

    pub fn is_due(&self, epoch_ended: bool) -> bool {
        let since = self.last.elapsed();
        let paid_off = Duration::from_secs(10).max(200 * self.cost);
        since >= self.every || epoch_ended && since >= paid_off
    }
}

impl Run<'_> {
    /// Goes on from the newest checkpoint in `folder`, if there is one.
    ///
    /// # Errors
    /// [`Error::Data`] for a checkpoint of another configuration or with values that are not
    /// finite; [`Error::Io`].
    pub fn resume(&mut self, folder: &Path, observer: &mut dyn Observer) -> Result<()> {
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
        Ok(())
    }

    /// Writes a checkpoint, if there is a folder for them, and removes old ones.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(
        &self,
        folder: Option<&Path>,
        start: Instant,
        observer: &mut dyn Observer,
        timetable: &mut Timetable,
    ) -> Result<()> {
        let Some(folder) = folder else { return Ok(()) };
        let begun = Instant::now();
        observer.on_checkpoint()?;
        let params = ("params".to_string(), self.replica.model.params());
        let best = self.best.iter().map(|best| ("best".to_string(), &best.params[..]));
        let tensors = std::iter::once(params).chain(best).chain(self.optimizer.tensors());
        let state = TrainingState {
            tensors: tensors.map(|(name, values)| (name, values.into())).collect(),
            ..self.scalars(self.earlier + start.elapsed())
        };
        state.save(&folder.join(state.file_name()))?;
        checkpoint::rotate(folder, 2)?;
        *timetable = Timetable { last: Instant::now(), cost: begun.elapsed(), ..*timetable };
        Ok(())
    }

    fn restore(&mut self, path: &Path, state: &TrainingState) -> Result<()> {
        // Earlier versions knew it by its absolute paths too.
        let earlier = super::config_sha256(self.task, self.task.config)?;
        if ![&self.config_sha256, &earlier].contains(&&state.config_sha256) {
            return Err(Error::Data {
                path: path.to_path_buf(),
                what: "configuration of the checkpoint".into(),
                found: state.config_sha256.clone(),
                expected: format!(
                    "{}, the run's: undo what was changed in config.toml, or begin a new run",
                    self.config_sha256
                ),
            });
        }
        self.restore_scalars(state)?;
        optimizer::restore(&state.tensors, "params", self.replica.model.params_mut())?;
        if let Some(best) = &mut self.best {
            optimizer::restore(&state.tensors, "best", &mut best.params)?;
        }
        self.optimizer.restore(&state.tensors)?;
        if let Some((tensor, layer)) = self.replica.not_finite(&self.optimizer) {
            return Err(Error::Data {
                path: path.to_path_buf(),
                what: format!("{tensor} of layer {layer}"),
                found: "NaN or infinity".into(),
                expected: "finite numbers".into(),
            });
        }
        Ok(())
    }

    /// The state after `trained` of training, without its arrays.
    pub fn scalars(&self, trained: Duration) -> TrainingState<'static> {
        let EpochSums { loss: Loss { soft, divergence, hard }, errors, examples } = self.sums;
        let sums = [("soft", soft), ("divergence", divergence), ("hard", hard)];
        let scalars = sums.into_iter().chain([("seconds", trained.as_secs_f64())]);
        let best = self
            .best
            .iter()
            .flat_map(|best| [("best_epoch", best.epoch as f64), ("best_nll", best.nll)]);
        let scalars = scalars.chain(best).chain(self.optimizer.scalars());
        TrainingState {
            epoch: self.at.epoch as u64,
            step: self.at.step as u64,
            tensors: Vec::new(),
            counters: [("errors", errors), ("examples", examples)]
                .map(|(name, count)| (name.to_string(), count))
                .into(),
            scalars: scalars.map(|(name, value)| (name.to_string(), value)).collect(),
            config_sha256: self.config_sha256.clone(),
        }
    }

    /// Takes back what [`Run::scalars`] gave.
    ///
    /// # Errors
    /// [`Error::Internal`] if a number is missing.
    pub fn restore_scalars(&mut self, state: &TrainingState) -> Result<()> {
        let scalar = |name| optimizer::scalar(&state.scalars, name);
        let counter = |name: &str| {
            let found = state.counters.get(name).copied();
            found.ok_or_else(|| Error::Internal(format!("checkpoint without '{name}'")))
        };
        let soft = scalar("soft")?;
        // Earlier checkpoints hold the entropy of the soft targets.
        let divergence =
            scalar("divergence").or_else(|_| scalar("entropy").map(|entropy| soft - entropy))?;
        self.sums = EpochSums {
            loss: Loss { soft, divergence, hard: scalar("hard")? },
            errors: counter("errors")?,
            examples: counter("examples")?,
        };
        self.earlier = Duration::try_from_secs_f64(scalar("seconds")?).unwrap_or_default();
        if let Some(best) = &mut self.best {
            (best.epoch, best.nll) = (scalar("best_epoch")? as usize, scalar("best_nll")?);
        }
        self.optimizer.restore_scalars(&state.scalars)?;
        self.at.epoch = state.epoch as usize;
        self.at.step = state.step as usize;
        Ok(())
    }
}
