//! Limbeck's data: from files and generators to arrays.
//!
//! Several sources make a [`Dataset`]: the published MNIST files ([`mnist`]), the user's own files
//! ([`idx`], [`table`], [`npy`]), and the embedded handwritten-like digits ([`glyphs`], and
//! [`glyphs::writers`] with many classes), which need no download. [`an4`] is speech: recordings and
//! their transcripts, of which a caller makes frames and labels.
//! [`Batches`] draws shuffled and, if asked, jittered minibatches from a [`Split`]. A split holds
//! images, or the [`Features`] of speech and tables.
//!
//! Pixels stay in memory as the `u8` in which they were published. The caller, who knows a model's
//! input scale, converts them to `f32`. Nothing here knows of models or kernels.
//!
//! Every random choice is a function of (seed, purpose, epoch or example, position), drawn from
//! ChaCha8 with plain integer and IEEE arithmetic: the same seed gives the same bits on every
//! machine.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod an4;
pub mod archive;
pub mod augment;
mod batches;
pub mod digest;
mod error;
mod features;
#[cfg(feature = "fetch")]
pub mod fetch;
pub mod foreign;
pub mod glyphs;
pub mod idx;
mod labels;
pub mod mnist;
pub mod npy;
mod random;
mod split;
pub mod synthetic;
pub mod table;
mod views;

pub use batches::{Batch, Batches, permute, shifts};
pub use digest::FileStatus;
pub use error::{Error, nearest, shown};
pub use features::Features;
pub use split::{Dataset, Images, Inputs, Names, Remark, Split};
pub use views::View;
