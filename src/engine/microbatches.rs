//! The gradient of a batch as the sum of those of its shards.
//!
//! A batch of n examples is parted into S = 2ᵏ shards, shard s the examples ⌊s·n/S⌋ to
//! ⌊(s + 1)·n/S⌋, whose gradients are summed in the binary tree ((0 + 1) + (2 + 3)) + …. R ≤ S
//! ranks, a power of two, take S/R neighbouring shards each, sum them in the tree's branch of
//! theirs, and then each other's ([`crate::engine::communicator`]). Which rank does which part changes no bit, so
//! S belongs to the numerics and R does not. Each shard has dropout masks of its own.

use crate::engine::mlp::Mlp;
use crate::files::error::{Error, Result};
use limbeck_kernels::{Buffer, Context, update};
use std::ops::Range;

/// The shards of a rank, and the gradients of those that it has been through.
pub(crate) struct Shards {
    /// S.
    pub count: usize,
    /// The shards of this rank.
    pub mine: Range<usize>,
    /// The gradient [all parameters of a layer] of the shard at hand, by layer.
    fresh: Vec<Buffer>,
    /// Sums of 2ʲ neighbouring shards that wait for their sibling, by j, then by layer.
    waiting: Vec<Vec<Buffer>>,
}

impl Shards {
    /// The shards of rank `rank` of `size`.
    ///
    /// # Errors
    /// [`Error::Usage`] unless S is a multiple of the number of ranks, both powers of two.
    pub fn new(model: &Mlp, count: usize, (rank, size): (usize, usize)) -> Result<Shards> {
        if !size.is_power_of_two() || size > count {
            return Err(Error::Usage(format!(
                "ranks of the job: found {size}, expected a power of two up to {count}: as many \
                 shards has a batch (training.shards)"
            )));
        }
        let each = count / size;
        let gradients = || -> Vec<Buffer> {
            model.layers().iter().map(|layer| Buffer::zeroed(layer.all().len())).collect()
        };
        Ok(Shards {
            count,
            mine: rank * each..(rank + 1) * each,
            fresh: gradients(),
            waiting: (0..each.ilog2()).map(|_| gradients()).collect(),
        })
    }

    /// The examples of a shard in a batch of `n`.
    pub fn examples(&self, shard: usize, n: usize) -> Range<usize> {
        shard * n / self.count..(shard + 1) * n / self.count
    }

    /// Where the gradient of the shard at hand goes.
    pub fn gradient(&mut self, layer: usize) -> &mut Buffer {
        &mut self.fresh[layer]
    }

    /// Takes it away, until it is put back.
    pub fn take(&mut self, layer: usize) -> Buffer {
        std::mem::replace(&mut self.fresh[layer], Buffer::zeroed(0))
    }

    /// Adds the gradient of `shard` to those of the shards before it, as far as the tree is complete:
    /// after the last one [`Shards::gradient`] is the sum of all shards of this rank.
    pub fn add(&mut self, context: &Context, shard: usize, layer: usize) {
        let before = shard - self.mine.start;
        let complete = before.trailing_ones() as usize;
        let fresh = &mut self.fresh[layer];
        for waiting in &self.waiting[..complete] {
            update::add(context, &waiting[layer], fresh);
        }
        if let Some(waiting) = self.waiting.get_mut(complete) {
            std::mem::swap(&mut waiting[layer], fresh);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use limbeck_kernels::Isa;

    #[test]
    fn shards_cover_a_batch_and_are_summed_in_the_tree() {
        let context = Context::new(Isa::best(), 1).unwrap();
        let model = Mlp::new(&[3, 2], 0);
        let value = |shard: usize| [1e8, 1.0, -1e8, 3.0, 0.5, -2e7, 7.0, 1e-3][shard];
        for size in [1, 2, 4, 8] {
            for rank in 0..size {
                let mut shards = Shards::new(&model, 8, (rank, size)).unwrap();
                let mine: Vec<usize> = shards.mine.clone().collect();
                for &shard in &mine {
                    shards.gradient(0).fill(value(shard));
                    shards.add(&context, shard, 0);
                }
                fn tree(values: &[f32]) -> f32 {
                    match values.split_at(values.len() / 2) {
                        ([], one) => one[0],
                        (low, high) => tree(low) + tree(high),
                    }
                }
                let values: Vec<f32> = mine.iter().map(|&shard| value(shard)).collect();
                assert_eq!(shards.gradient(0)[0], tree(&values), "rank {rank} of {size}");
                for n in [1, 7, 8, 100] {
                    let covered: Vec<usize> =
                        (0..8).flat_map(|shard| shards.examples(shard, n)).collect();
                    assert_eq!(covered, (0..n).collect::<Vec<_>>());
                }
            }
        }
        let refusal = |size| Shards::new(&model, 8, (0, size)).err().unwrap().to_string();
        assert!(refusal(16).contains("found 16, expected a power of two up to 8"));
        assert!(refusal(3).contains("found 3"));
    }
}
