//! The paper's tables, one file each.

pub mod logits;
pub mod mnist;
pub mod omitted;
pub mod regularizer;
pub mod specialists;
pub mod speech;
pub mod temperature;
mod test_tuned;
mod transfer;
pub mod variance;
