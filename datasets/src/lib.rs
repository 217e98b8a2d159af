//! Limbeck's data: files and generators to arrays.
//!
//! Several sources give one type, [`Dataset`]: the published MNIST files ([`mnist`]), one's own
//! files ([`idx`], [`table`], [`npy`]) and the embedded handwritten-like digits ([`glyphs`], and
//! [`glyphs::writers`] with many classes), which need no download.
//! Another, [`an4`], is speech: recordings and their transcripts, which become examples once
//! something has turned them into frames and labels.
//! [`Batches`] draws shuffled and, if asked, jittered minibatches from a [`Split`], which holds
//! images or the [`Features`] that speech and tables are made of.
//!
//! Pixels stay resident as the `u8` they were published in; turning them into `f32` belongs to
//! whoever knows a model's input scale. Nothing here knows of models or kernels.
//!
//! Every random choice is a function of (seed, purpose, epoch or example, position), drawn from
//! ChaCha8 with plain integer and IEEE arithmetic: the same seed gives the same bits on every
//! machine.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod an4;
pub mod augment;
mod batches;
pub mod digest;
mod error;
mod features;
#[cfg(feature = "fetch")]
pub mod fetch;
pub mod glyphs;
pub mod idx;
pub mod mnist;
pub mod npy;
mod random;
mod split;
pub mod synthetic;
pub mod table;

pub use batches::{Batch, Batches, permute, shifts};
pub use digest::FileStatus;
pub use error::{Error, shown};
pub use features::Features;
pub use split::{Dataset, Images, Inputs, Split};
