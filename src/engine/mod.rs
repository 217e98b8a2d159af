//! A net, its loss, its optimisers, the trainer, distillation and the f64 reference.

pub mod activation;
pub mod bias;
pub mod communicator;
pub mod config;
pub mod data;
pub mod distill;
pub mod doubts;
pub mod init;
pub mod loss;
pub mod metrics;
pub mod microbatches;
pub mod mlp;
pub mod optimizer;
mod pairs;
pub mod params;
pub mod reference;
pub mod standardize;
pub mod teacher;
pub mod trainer;
