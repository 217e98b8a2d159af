//! What lies on disk: bounded reading, atomic writing, digests, and the files of models.

pub mod about;
pub mod checkpoint;
pub mod error;
pub mod model;
pub mod onnx;
pub(crate) mod protobuf;
pub mod read;
pub(crate) mod safetensors;
pub mod shown;
mod state_dict;
pub mod write;

pub use limbeck_datasets::digest;
