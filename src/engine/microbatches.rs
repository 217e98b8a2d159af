//! The gradient of a batch as the sum of those of its microbatches.
//!
//! A batch of n examples is parted into S = 2ᵏ microbatches, microbatch m the examples ⌊m·n/S⌋ to
//! ⌊(m + 1)·n/S⌋, whose gradients are summed in the binary tree ((0 + 1) + (2 + 3)) + …. R ≤ S
//! ranks, a power of two, take S/R neighbouring microbatches each and sum them in their branch of the
//! tree; then they sum what the ranks have ([`crate::engine::communicator`]). Which rank does which
//! part changes no bit, so S belongs to the numerics and R does not. Each microbatch has dropout
//! masks of its own.

use crate::engine::params::LayerParams;
use crate::files::error::{Error, Result};
use limbeck_kernels::{Buffer, Context, update};
use std::ops::Range;

/// The microbatches of a rank, and the gradients of those that it has been through.
pub(crate) struct Microbatches {
    /// S.
    pub count: usize,
    /// Those of this rank.
    pub mine: Range<usize>,
    /// The gradient [all parameters of a layer] of the microbatch at hand, by layer.
    current: Vec<Buffer>,
    /// Sums of 2ʲ neighbouring microbatches that wait for their sibling, by j, then by layer.
    waiting: Vec<Vec<Buffer>>,
}

impl Microbatches {
    /// Those of rank `rank` of `size` in training a net of these `layers`.
    ///
    /// # Errors
    /// [`Error::Usage`] unless S is a multiple of the number of ranks, both powers of two.
    pub fn new(
        layers: &[LayerParams],
        count: usize,
        (rank, size): (usize, usize),
    ) -> Result<Microbatches> {
        if !size.is_power_of_two() || size > count {
            return Err(Error::Usage(format!(
                "ranks of the job: found {size}, expected a power of two up to {count}: a batch has \
                 as many microbatches (training.microbatches)"
            )));
        }
        if !count.is_power_of_two() {
            return Err(Error::Usage(format!(
                "training.microbatches: found {count}, expected a power of two"
            )));
        }
        let each = count / size;
        let gradients = || -> Vec<Buffer> {
            layers.iter().map(|layer| Buffer::zeroed(layer.all().len())).collect()
        };
        Ok(Microbatches {
            count,
            mine: rank * each..(rank + 1) * each,
            current: gradients(),
            waiting: (0..each.ilog2()).map(|_| gradients()).collect(),
        })
    }

    /// The examples of a microbatch in a batch of `n`.
    pub fn examples(&self, microbatch: usize, n: usize) -> Range<usize> {
        microbatch * n / self.count..(microbatch + 1) * n / self.count
    }

    /// Where the gradient of the microbatch at hand goes.
    pub fn gradient(&mut self, layer: usize) -> &mut Buffer {
        &mut self.current[layer]
    }

    /// Takes it away, until it is put back.
    pub fn take(&mut self, layer: usize) -> Buffer {
        std::mem::replace(&mut self.current[layer], Buffer::zeroed(0))
    }

    /// Adds the gradient of `microbatch` to those before it, as far as the tree is complete: after
    /// the last one [`Microbatches::gradient`] is the sum of all of this rank.
    pub fn add(&mut self, context: &Context, microbatch: usize, layer: usize) {
        let before = microbatch - self.mine.start;
        let complete = before.trailing_ones() as usize;
        let current = &mut self.current[layer];
        for waiting in &self.waiting[..complete] {
            update::add(context, &waiting[layer], current);
        }
        if let Some(waiting) = self.waiting.get_mut(complete) {
            std::mem::swap(&mut waiting[layer], current);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::params;
    use limbeck_kernels::Isa;

    #[test]
    fn microbatches_cover_a_batch_and_are_summed_in_the_tree() {
        let context = Context::new(Isa::best(), 1).unwrap();
        let layers = params::layers(&[3, 2]);
        let value = |part: usize| [1e8, 1.0, -1e8, 3.0, 0.5, -2e7, 7.0, 1e-3][part];
        for size in [1, 2, 4, 8] {
            for rank in 0..size {
                let mut parts = Microbatches::new(&layers, 8, (rank, size)).unwrap();
                let mine: Vec<usize> = parts.mine.clone().collect();
                for &part in &mine {
                    parts.gradient(0).fill(value(part));
                    parts.add(&context, part, 0);
                }
                fn tree(values: &[f32]) -> f32 {
                    match values.split_at(values.len() / 2) {
                        ([], one) => one[0],
                        (low, high) => tree(low) + tree(high),
                    }
                }
                let values: Vec<f32> = mine.iter().map(|&part| value(part)).collect();
                assert_eq!(parts.gradient(0)[0], tree(&values), "rank {rank} of {size}");
                for n in [1, 7, 8, 100] {
                    let covered: Vec<usize> =
                        (0..8).flat_map(|part| parts.examples(part, n)).collect();
                    assert_eq!(covered, (0..n).collect::<Vec<_>>());
                }
            }
        }
        let refusal = |size| Microbatches::new(&layers, 8, (0, size)).err().unwrap().to_string();
        assert!(refusal(16).contains("found 16, expected a power of two up to 8"));
        assert!(refusal(3).contains("found 3"));
    }
}
