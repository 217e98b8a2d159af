//! Limbeck: knowledge distillation from the instruction set up.
//!
//! A multilayer-perceptron engine that trains, distils and verifies, and reproduces Hinton,
//! Vinyals & Dean, *Distilling the Knowledge in a Neural Network* (arXiv 1503.02531).
//!
//! A minibatch's way through the house:
//!
//! ```text
//! 1 Batches::next        gather, jitter                              pixels [B, D], labels [B]
//! 2 Mlp::forward         Z = X·W + b, Y = dropout(f(Z)) a layer      logits [B, C]
//! 3 loss::distillation   d_logits = (soft_weight·T·(q − p) + hard_weight·(softmax(z) − y)) / B
//! 4 Mlp::backward        dW = Xᵀ·dZ, db = Σ dZ, dX = dZ·Wᵀ           last layer first
//! 5 Optimizer::step      elementwise over the flat parameters; backward_step fuses it into 4
//! ```
//!
//! # As a library
//!
//! `default-features = false` leaves out the program and what only it needs:
//!
//! | feature | what it adds |
//! |---|---|
//! | `cli` (default) | the program, its command line; brings `paper` |
//! | `fetch` (default) | `datasets::fetch`: downloads of MNIST and AN4 |
//! | `mpi` | `engine::communicator::mpi`: training over the ranks of an MPI job; needs an MPI library and libclang |
//! | `paper` | `paper`, `speech`, `pages`, ONNX and TensorBoard files |
//!
//! Start with [`engine::config::Config`], [`engine::trainer::train`] and [`engine::metrics::evaluate`]; the examples
//! `distil_your_own_classifier`, `softmax_at_t`, `custom_transfer_set` and `ensemble_teacher` run in
//! seconds on the embedded digits.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod engine;
pub mod files;
#[cfg(feature = "paper")]
pub mod pages;
#[cfg(feature = "paper")]
pub mod paper;
pub mod run;
#[cfg(feature = "paper")]
pub mod speech;
pub mod tools;

pub use files::error::{Error, Result};
pub use limbeck_datasets as datasets;
pub use limbeck_kernels as kernels;
