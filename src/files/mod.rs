//! What lies on disk: bounded reading, atomic writing, digests, and the files of models.

pub mod checkpoint;
pub mod digest;
pub mod error;
#[cfg(feature = "paper")]
pub mod onnx;
#[cfg(feature = "paper")]
pub(crate) mod protobuf;
pub mod read;
pub mod write;
