//! What a run leaves behind: its folder, manifest, records, summary, and the statistics of them.

pub mod by_class;
pub mod chart;
pub mod context;
pub mod folder;
pub mod manifest;
pub mod number;
pub mod records;
pub mod statistics;
pub mod summary;
#[cfg(feature = "paper")]
pub mod tensorboard;
pub mod training;
