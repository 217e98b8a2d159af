//! Activations of the hidden layers, Y = f(Z).
//!
//! One activation is a variant of [`Activation`], whose kernels are its own: f in the epilogue of the
//! forward product, f′ from Y in that of the input gradient, both in f64 in
//! [`limbeck_kernels::reference`]. Here is what a net needs beside them.

pub use limbeck_kernels::Activation;
use serde::{Deserialize, Deserializer, Serializer};

/// a of the initial weights W ~ U(−a, a) of a layer.
///
/// | activation | a | keeps |
/// |---|---|---|
/// | ReLU | √(6/inputs) | the scale of Y (He et al. 2015) |
/// | tanh | √(6/(inputs + outputs)) | that of Y and of its gradient (Glorot & Bengio 2010) |
pub fn initial_bound(activation: Activation, inputs: usize, outputs: usize) -> f64 {
    let fan = match activation {
        Activation::Relu => inputs,
        Activation::Tanh => inputs + outputs,
    };
    (6.0 / fan as f64).sqrt()
}

pub(crate) fn is_relu(activation: &Activation) -> bool {
    *activation == Activation::Relu
}

pub(crate) fn serialize<S: Serializer>(
    activation: &Activation,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(activation)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Activation, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}
