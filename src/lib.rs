//! Limbeck: knowledge distillation from the instruction set up.
//!
//! A multilayer-perceptron engine that trains, distils and verifies, and reproduces Hinton,
//! Vinyals & Dean, *Distilling the Knowledge in a Neural Network* (arXiv 1503.02531).
//!
//! A minibatch's way through the house:
//!
//! ```text
//! 1 Batches::next        gather, jitter                              pixels [B, D], labels [B]
//! 2 Mlp::forward         Z = Wᵀ·X + b, Y = dropout(relu(Z)) a layer  logits [C, B]
//! 3 loss::distillation   d_logits = (soft_weight·T·(q − p) + hard_weight·(softmax(z) − y)) / B
//! 4 Mlp::backward        dW = X·dZᵀ, db = Σ dZ, dX = W·dZ            last layer first
//! 5 Optimizer::step      elementwise over the flat parameters; backward_step fuses it into 4
//! ```
//!
//! # As a library
//!
//! `cargo add limbeck --no-default-features` leaves out the program and what only it needs:
//!
//! | feature | what it adds |
//! |---|---|
//! | `cli` (default) | the program, its command line; brings `paper` |
//! | `fetch` (default) | `datasets::fetch`: downloads of MNIST and AN4 |
//! | `mpi` | `team::mpi`: training over the ranks of an MPI job; needs an MPI library and libclang |
//! | `paper` | `experiments`, `speech`, `report` and `export` |
//!
//! Start with [`config::Config`], [`trainer::train`] and [`metrics::evaluate`]; the examples
//! `distil_your_own_classifier`, `softmax_at_t`, `custom_transfer_set` and `ensemble_teacher` run in
//! seconds on the embedded digits.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod bench;
pub mod bias;
pub mod check;
pub mod checkpoint;
pub mod config;
pub mod derivations;
pub mod distill;
pub mod error;
#[cfg(feature = "paper")]
pub mod experiments;
#[cfg(feature = "paper")]
pub mod export;
pub mod init;
pub mod input;
pub mod loss;
pub mod metrics;
pub mod mlp;
pub mod optimizer;
pub mod params;
pub mod reference;
#[cfg(feature = "paper")]
pub mod report;
pub mod run;
pub mod shards;
pub mod specialists;
#[cfg(feature = "paper")]
pub mod speech;
pub mod stats;
pub mod summary;
pub mod team;
pub mod trainer;
pub mod verify;

pub use error::{Error, Result};
pub use limbeck_datasets as datasets;
pub use limbeck_kernels as kernels;
