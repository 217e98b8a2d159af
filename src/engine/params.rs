//! Where each layer's parameters lie in the one flat array.
//!
//! All parameters of a net are one buffer, so that an optimiser step is a pass over an array
//! and a checkpoint one tensor. In order: W₀, b₀, W₁, b₁, …, with W in panel order
//! ([`limbeck_kernels::matrix`]) and each b padded to 16. Padding is zero and stays zero: its
//! gradients are.

use limbeck_kernels::{LANES, panel_len};
use std::ops::Range;

/// One dense layer's sizes and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerParams {
    /// Inputs of the layer.
    pub inputs: usize,
    /// Units of the layer.
    pub outputs: usize,
    /// W [inputs, outputs], a panel matrix.
    pub weight: Range<usize>,
    /// b, `outputs` values padded to a multiple of 16.
    pub bias: Range<usize>,
}

impl LayerParams {
    /// W and b together.
    pub fn all(&self) -> Range<usize> {
        self.weight.start..self.bias.end
    }
}

/// The layers of a net with these widths: `[784, 1200, 10]` has two.
pub fn layers(widths: &[usize]) -> Vec<LayerParams> {
    let mut end = 0;
    let layer = |pair: &[usize]| {
        let (inputs, outputs) = (pair[0], pair[1]);
        let weight = end..end + panel_len(inputs, outputs);
        let bias = weight.end..weight.end + outputs.next_multiple_of(LANES);
        end = bias.end;
        LayerParams { inputs, outputs, weight, bias }
    };
    widths.windows(2).map(layer).collect()
}

/// The first number that is not finite: its layer, and whether it is a `weight` or a `bias`.
pub fn not_finite(layers: &[LayerParams], values: &[f32]) -> Option<(usize, &'static str)> {
    let bad = |range: &Range<usize>| values[range.clone()].iter().any(|value| !value.is_finite());
    layers.iter().enumerate().find_map(|(i, layer)| match (bad(&layer.weight), bad(&layer.bias)) {
        (true, _) => Some((i, "weight")),
        (false, true) => Some((i, "bias")),
        (false, false) => None,
    })
}

/// Length of the flat array.
pub fn len(layers: &[LayerParams]) -> usize {
    layers.last().map_or(0, |last| last.bias.end)
}
