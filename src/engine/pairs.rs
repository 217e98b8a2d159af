//! The operands of a net's products in bf16: made of its f32 arrays just before each product.
//!
//! Weights, activations and gradients stay in f32, so that optimiser, biases, logits and loss are those of
//! f32 training. Activations and gradients are rounded once where they arise, and whatever uses them,
//! ReLU′, tanh′ and the biases' gradients too, uses the rounded ones; the logits are not rounded. Pixels
//! are whole numbers and exact: in layer 0 x = pixel, and the scale of the inputs, with that of their
//! dropout, multiplies the finished sums.

use limbeck_kernels::bf16::{pack_lanes, pack_rows};
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
    /// Of layer 0's sums.
    pub input_scale: f32,
}

impl Pairs {
    /// For a net of these widths and batches of at most `capacity` examples.
    pub fn new(widths: &[usize], capacity: usize, training: bool) -> Pairs {
        let widest = widths.iter().copied().max().unwrap_or(0);
        let layers = widths.windows(2).map(|ends| {
            let (inputs, outputs) = (ends[0], ends[1]);
            panel_len(inputs.div_ceil(2), outputs).max(panel_len(inputs, outputs.div_ceil(2)))
        });
        Pairs {
            weights: Buffer::zeroed(layers.max().unwrap_or(0)),
            by_rows: Buffer::zeroed(panel_len(widest.div_ceil(2), capacity)),
            by_lanes: Buffer::zeroed(match training {
                true => panel_len(widest, capacity.div_ceil(2)),
                false => 0,
            }),
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
        pack_rows(context, w, PanelsMut::new(&mut self.weights, inputs, w.lanes()));
        pack_rows(context, x, PanelsMut::new(&mut self.by_rows, inputs, x.lanes()));
        let w = Panels::new(&self.weights, inputs, w.lanes());
        let x = Panels::new(&self.by_rows, inputs, x.lanes());
        Factors::bf16(self.scale(layer), w, x)
    }

    /// The operands of W·dZ.
    pub fn input_gradient(&mut self, context: &Context, w: Panels, dz: Panels) -> Factors<'_> {
        let outputs = w.lanes().div_ceil(2);
        pack_lanes(context, w, PanelsMut::new(&mut self.weights, w.rows(), outputs));
        pack_rows(context, dz, PanelsMut::new(&mut self.by_rows, outputs, dz.lanes()));
        let w = Panels::new(&self.weights, w.rows(), outputs);
        Factors::bf16(1.0, w, Panels::new(&self.by_rows, outputs, dz.lanes()))
    }

    /// Makes the operands of X·dZᵀ: X, which [`Pairs::operands`] gives, and dZᵀ along its rows.
    pub fn weight_gradient(
        &mut self,
        context: &Context,
        x: Panels,
        dz: Panels,
        transposed: &mut [f32],
    ) {
        let (outputs, pairs) = (dz.rows(), x.lanes().div_ceil(2));
        pack_lanes(context, dz, PanelsMut::new(&mut self.by_lanes, outputs, pairs));
        let dz = Panels::new(&self.by_lanes, outputs, pairs);
        gemm::transpose(context, dz, PanelsMut::new(transposed, pairs, outputs));
        pack_lanes(context, x, PanelsMut::new(&mut self.by_lanes, x.rows(), pairs));
    }

    /// The operands of X·dZᵀ of `layer`, as [`Pairs::weight_gradient`] left them.
    pub fn operands<'p>(
        &'p self,
        layer: usize,
        (inputs, outputs): (usize, usize),
        batch: usize,
        transposed: &'p [f32],
    ) -> Factors<'p> {
        let pairs = batch.div_ceil(2);
        let x = Panels::new(&self.by_lanes, inputs, pairs);
        Factors::bf16(self.scale(layer), x, Panels::new(transposed, pairs, outputs))
    }
}
