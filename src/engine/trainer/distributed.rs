//! What the ranks of a run tell each other.

use super::{Run, outcome::StepOutcome};
use crate::engine::communicator::Communicator;
use crate::files::error::Result;
use limbeck_kernels::softmax::Loss;

/// Begins to tell all ranks what this one's microbatches came to, and whether it is asked to stop.
pub(super) fn start_outcome(communicator: &mut Communicator, outcomes: &[StepOutcome], stop: bool) {
    let numbers = |StepOutcome { loss, errors, .. }: &StepOutcome| {
        [loss.soft, loss.divergence, loss.hard, *errors as f64, f64::from(stop)]
    };
    let bytes: Vec<u8> = outcomes.iter().flat_map(numbers).flat_map(f64::to_le_bytes).collect();
    let lengths = vec![bytes.len(); communicator.size()];
    communicator.start_gather(bytes, lengths);
}

/// What the whole batch came to, on all ranks alike.
pub(super) fn finish_outcome(communicator: &mut Communicator) -> Result<StepOutcome> {
    let bytes = communicator.finish_gather()?;
    let numbers: Vec<f64> =
        bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    let outcome = |&[soft, divergence, hard, errors, stop]: &[f64; 5]| StepOutcome {
        loss: Loss { soft, divergence, hard },
        errors: errors as u64,
        stop: stop > 0.0,
    };
    let outcomes: Vec<StepOutcome> = numbers.as_chunks().0.iter().map(outcome).collect();
    Ok(StepOutcome::of(&outcomes))
}

impl Run<'_> {
    /// Gives all ranks the state of rank 0, which has read it from a checkpoint or begins.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] for ranks with different tasks; [`crate::Error::Lost`].
    pub fn broadcast_state(&mut self) -> Result<()> {
        let mut state = self.scalars(self.earlier);
        let Some(communicator) = self.communicator.as_deref_mut() else { return Ok(()) };
        let run = format!("{} on {} examples", self.config_sha256, self.task.split.len());
        communicator.agree("configuration and number of training examples", &run)?;
        let position = [state.epoch, state.step];
        let scalars = state.scalars.values().map(|scalar| scalar.to_bits());
        let words = position.into_iter().chain(state.counters.values().copied()).chain(scalars);
        let mut words: Vec<u64> = words.collect();
        communicator.broadcast(bytemuck::cast_slice_mut(&mut words))?;
        let mut words = words.into_iter();
        let counters = state.counters.values_mut();
        let places = [&mut state.epoch, &mut state.step].into_iter().chain(counters);
        places.zip(&mut words).for_each(|(place, word)| *place = word);
        let scalars = state.scalars.values_mut().zip(words);
        scalars.for_each(|(scalar, word)| *scalar = f64::from_bits(word));
        communicator.broadcast(bytemuck::cast_slice_mut(self.replica.model.params_mut()))?;
        if let Some(best) = &mut self.best {
            communicator.broadcast(bytemuck::cast_slice_mut(&mut best.params))?;
        }
        for (_, array) in self.optimizer.tensors_mut() {
            communicator.broadcast(bytemuck::cast_slice_mut(array))?;
        }
        self.restore_scalars(&state)
    }
}
