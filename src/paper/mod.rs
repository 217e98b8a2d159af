//! The paper's experiments, one file per table, and what they share.

pub mod preset;
pub mod specialists;
pub mod study;
pub mod tables;

use limbeck_datasets::permute;

/// The first `percent` % of the permutation of `examples` that belongs to the seed: a draw without
/// order.
fn draw(examples: usize, seed: u64, percent: usize) -> Vec<u32> {
    let mut order = vec![0; examples];
    permute(seed, 0, &mut order);
    order.truncate((examples * percent / 100).max(1));
    order
}

/// The rows `chosen` of a row-major matrix of `width` columns.
fn rows(matrix: &[f32], width: usize, chosen: &[u32]) -> Vec<f32> {
    chosen.iter().flat_map(|&i| &matrix[i as usize * width..][..width]).copied().collect()
}
