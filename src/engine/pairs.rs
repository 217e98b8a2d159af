//! The operands of a net's products in bf16: made of its f32 arrays just before each product.
//!
//! Weights, activations and gradients stay in f32, so that optimiser, biases, logits and loss are those of
//! f32 training. Activations and gradients are rounded once where they arise, and whatever uses them,
//! ReLU′, tanh′ and the biases' gradients too, uses the rounded ones; the logits are not rounded. Pixels
//! are whole numbers and exact: in layer 0 x = pixel, and the scale of the inputs, with that of their
//! dropout, multiplies the finished sums.

use limbeck_kernels::bf16::pack;
use limbeck_kernels::gemm::{self, Factors};
use limbeck_kernels::{Buffer, Context, Panels, PanelsMut, panel_len};

/// Memory for the operands of the layer at hand.
pub(super) struct Pairs {
    /// W along its rows or its lanes.
    weights: Buffer,
    /// X or dZ along its rows.
    by_rows: Buffer,
    /// dZ or X along its lanes.
    by_lanes: Buffer,
    /// dZᵀ along its rows.
    transposed: Buffer,
    /// Of layer 0's sums.
    pub input_scale: f32,
}

impl Pairs {
    /// For a net of these widths and batches of at most `capacity` examples.
    pub fn new(widths: &[usize], capacity: usize, training: bool) -> Pairs {
        let largest = |len: &dyn Fn(usize) -> usize| {
            Buffer::zeroed(widths.iter().map(|&width| len(width)).max().unwrap_or(0))
        };
        let of_training = |len: &dyn Fn(usize) -> usize| match training {
            true => largest(len),
            false => Buffer::zeroed(0),
        };
        let layers = widths.windows(2).map(|ends| {
            let (inputs, outputs) = (ends[0], ends[1]);
            panel_len(inputs.div_ceil(2), outputs).max(panel_len(inputs, outputs.div_ceil(2)))
        });
        Pairs {
            weights: Buffer::zeroed(layers.max().unwrap_or(0)),
            by_rows: largest(&|width| panel_len(width.div_ceil(2), capacity)),
            by_lanes: of_training(&|width| panel_len(width, capacity.div_ceil(2))),
            transposed: of_training(&|width| panel_len(capacity.div_ceil(2), width)),
            input_scale: 1.0,
        }
    }

    /// What the sums of `layer` over its inputs are multiplied by.
    fn scale(&self, layer: usize) -> f32 {
        if layer == 0 { self.input_scale } else { 1.0 }
    }

    /// The operands of Wᵀ·X.
    pub fn forward(
        &mut self,
        context: &Context,
        layer: usize,
        w: Panels,
        x: Panels,
    ) -> Factors<'_> {
        let inputs = w.rows().div_ceil(2);
        pack(context, w, Some(PanelsMut::new(&mut self.weights, inputs, w.lanes())), None);
        pack(context, x, Some(PanelsMut::new(&mut self.by_rows, inputs, x.lanes())), None);
        let w = Panels::new(&self.weights, inputs, w.lanes());
        let x = Panels::new(&self.by_rows, inputs, x.lanes());
        Factors::bf16(self.scale(layer), w, x)
    }

    /// The operands of W·dZ.
    pub fn input_gradient(&mut self, context: &Context, w: Panels, dz: Panels) -> Factors<'_> {
        let outputs = w.lanes().div_ceil(2);
        pack(context, w, None, Some(PanelsMut::new(&mut self.weights, w.rows(), outputs)));
        pack(context, dz, Some(PanelsMut::new(&mut self.by_rows, outputs, dz.lanes())), None);
        let w = Panels::new(&self.weights, w.rows(), outputs);
        Factors::bf16(1.0, w, Panels::new(&self.by_rows, outputs, dz.lanes()))
    }

    /// Makes the operands of X·dZᵀ, which [`Pairs::operands`] gives.
    pub fn weight_gradient(&mut self, context: &Context, x: Panels, dz: Panels) {
        let (outputs, pairs) = (dz.rows(), x.lanes().div_ceil(2));
        pack(context, dz, None, Some(PanelsMut::new(&mut self.by_lanes, outputs, pairs)));
        let dz = Panels::new(&self.by_lanes, outputs, pairs);
        gemm::transpose(context, dz, PanelsMut::new(&mut self.transposed, pairs, outputs));
        pack(context, x, None, Some(PanelsMut::new(&mut self.by_lanes, x.rows(), pairs)));
    }

    /// X and dZᵀ of `layer`.
    pub fn operands(
        &self,
        layer: usize,
        inputs: usize,
        outputs: usize,
        batch: usize,
    ) -> Factors<'_> {
        let pairs = batch.div_ceil(2);
        let x = Panels::new(&self.by_lanes, inputs, pairs);
        Factors::bf16(self.scale(layer), x, Panels::new(&self.transposed, pairs, outputs))
    }
}
