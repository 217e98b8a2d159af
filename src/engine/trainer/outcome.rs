//! What a step came to.

use crate::engine::loss;
use limbeck_kernels::softmax::Loss;

/// What a step, or one of its microbatches, came to.
#[derive(Clone, Copy, Default)]
pub(super) struct StepOutcome {
    /// Sums over the examples.
    pub loss: Loss,
    /// Examples misclassified.
    pub errors: u64,
    /// Whether a rank is asked to stop.
    pub stop: bool,
}

impl StepOutcome {
    /// That of a whole batch, from those of its microbatches in their order.
    pub fn of(microbatches: &[StepOutcome]) -> StepOutcome {
        let mut whole = StepOutcome::default();
        for part in microbatches {
            loss::add(&mut whole.loss, part.loss);
            whole.errors += part.errors;
            whole.stop |= part.stop;
        }
        whole
    }
}
