//! The operands of a net's products in bf16: made of its f32 arrays just before each product.
//!
//! Weights, activations and gradients stay in f32, so that optimiser, biases, logits and loss are those of
//! f32 training. Activations and gradients are rounded once where they arise, and whatever uses them,
//! ReLU′, tanh′ and the biases' gradients too, uses the rounded ones; the logits are not rounded. Pixels
//! are whole numbers and exact: in layer 0 x = pixel, and the scale of the inputs, with that of their
//! dropout, multiplies the finished sums.

use limbeck_kernels::bf16::{Along, pack_a, pack_b, words};
use limbeck_kernels::gemm::Factors;
use limbeck_kernels::{Buffer, Context, Panels, PanelsMut, panel_len};

/// Memory for the operands of the layer at hand.
pub(super) struct Pairs {
    /// W, A of both products with it.
    weights: Buffer,
    /// X or dZ, B of those.
    batch: Buffer,
    /// X and dZ, A and B of the weight gradient.
    inputs: Buffer,
    gradients: Buffer,
    /// Of layer 0's sums.
    pub input_scale: f32,
}

impl Pairs {
    /// For a net of these widths and batches of at most `capacity` examples.
    pub fn new(widths: &[usize], capacity: usize, training: bool) -> Pairs {
        let widest = widths.iter().copied().max().unwrap_or(0);
        let layers = widths.windows(2).map(|ends| {
            let (inputs, outputs) = (ends[0], ends[1]);
            panel_len(words(inputs), outputs).max(panel_len(words(outputs), inputs))
        });
        let of_batch = || match training {
            true => Buffer::zeroed(panel_len(words(capacity), widest)),
            false => Buffer::zeroed(0),
        };
        Pairs {
            weights: Buffer::zeroed(layers.max().unwrap_or(0)),
            batch: Buffer::zeroed(panel_len(words(widest), capacity)),
            inputs: of_batch(),
            gradients: of_batch(),
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
        let terms = words(w.rows());
        pack_a(context, w, Along::Rows, PanelsMut::new(&mut self.weights, terms, w.lanes()));
        pack_b(context, x, Along::Rows, PanelsMut::new(&mut self.batch, terms, x.lanes()));
        let w = Panels::new(&self.weights, terms, w.lanes());
        Factors::bf16(self.scale(layer), w, Panels::new(&self.batch, terms, x.lanes()))
    }

    /// The operands of W·dZ.
    pub fn input_gradient(&mut self, context: &Context, w: Panels, dz: Panels) -> Factors<'_> {
        let terms = words(w.lanes());
        pack_a(context, w, Along::Lanes, PanelsMut::new(&mut self.weights, terms, w.rows()));
        pack_b(context, dz, Along::Rows, PanelsMut::new(&mut self.batch, terms, dz.lanes()));
        let w = Panels::new(&self.weights, terms, w.rows());
        Factors::bf16(1.0, w, Panels::new(&self.batch, terms, dz.lanes()))
    }

    /// Makes the operands of X·dZᵀ, which [`Pairs::operands`] gives.
    pub fn weight_gradient(&mut self, context: &Context, x: Panels, dz: Panels) {
        let terms = words(x.lanes());
        pack_a(context, x, Along::Lanes, PanelsMut::new(&mut self.inputs, terms, x.rows()));
        pack_b(context, dz, Along::Lanes, PanelsMut::new(&mut self.gradients, terms, dz.rows()));
    }

    /// The operands of X·dZᵀ of `layer`, as [`Pairs::weight_gradient`] left them.
    pub fn operands(
        &self,
        layer: usize,
        (inputs, outputs): (usize, usize),
        batch: usize,
    ) -> Factors<'_> {
        let terms = words(batch);
        let x = Panels::new(&self.inputs, terms, inputs);
        Factors::bf16(self.scale(layer), x, Panels::new(&self.gradients, terms, outputs))
    }
}
