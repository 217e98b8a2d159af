//! The operands of a net's products in bf16.
//!
//! Weights, activations and gradients stay in f32, so that optimiser, biases, logits and loss are those of
//! f32 training. Activations and gradients are rounded once where they arise, and whatever uses them,
//! ReLU′, tanh′ and the biases' gradients too, uses the rounded ones; the logits are not rounded. Pixels
//! are whole numbers and exact: in layer 0 x = pixel, and the scale of the inputs, with that of their
//! dropout, multiplies the finished sums.
//!
//! | matrix | operand along its rows | along its lanes |
//! |---|---|---|
//! | W [inputs, outputs] | A of Wᵀ·X | A of W·dZ |
//! | X [inputs, batch] | B of Wᵀ·X | A of X·dZᵀ |
//! | dZ [outputs, batch] | B of W·dZ | B of X·dZᵀ |
//!
//! Each arises with the matrix: X and dZ in the product before, W in the optimiser's step. What a net's
//! weights were changed by otherwise, the weights' version tells.

use limbeck_kernels::bf16::{Along, Copies, Side, pack, words};
use limbeck_kernels::gemm::Factors;
use limbeck_kernels::{Buffer, Context, Panels, panel_len};

/// The operands of all layers.
pub(super) struct Pairs {
    layers: Vec<LayerPairs>,
    /// Of layer 0's sums.
    pub input_scale: f32,
}

/// Those of a layer, one along the rows and one along the lanes of each matrix. The latter is there for
/// training only; along its lanes W, and along its rows dZ, only where the layer below is trained.
struct LayerPairs {
    inputs: usize,
    outputs: usize,
    w: Both,
    x: Both,
    dz: Both,
    /// Of the weights in `w`.
    version: Option<u64>,
}

struct Both {
    rows: Option<Buffer>,
    lanes: Option<Buffer>,
}

impl Both {
    /// Of a matrix of this shape, where they are needed.
    fn new((rows, lanes): (usize, usize), needed: (bool, bool)) -> Both {
        let of = |along: Along, needed: bool| {
            let (depth, others) = along.of(rows, lanes);
            needed.then(|| Buffer::zeroed(panel_len(words(depth), others)))
        };
        Both { rows: of(Along::Rows, needed.0), lanes: of(Along::Lanes, needed.1) }
    }

    /// To be written, as operands in these places.
    fn copies(&mut self, rows: Side, lanes: Side) -> Copies<'_> {
        Copies::new((rows, self.rows.as_deref_mut()), (lanes, self.lanes.as_deref_mut()))
    }

    fn along_rows(&self, rows: usize, lanes: usize) -> Panels<'_> {
        Panels::new(self.rows.as_ref().expect("an operand of the product"), words(rows), lanes)
    }

    fn along_lanes(&self, rows: usize, lanes: usize) -> Panels<'_> {
        Panels::new(self.lanes.as_ref().expect("an operand of training"), words(lanes), rows)
    }
}

impl Pairs {
    /// For a net of these widths and batches of at most `capacity` examples.
    pub fn new(widths: &[usize], capacity: usize, training: bool) -> Pairs {
        let layers = widths.windows(2).enumerate().map(|(i, ends)| {
            let (inputs, outputs) = (ends[0], ends[1]);
            let trained_below = training && i > 0;
            LayerPairs {
                inputs,
                outputs,
                w: Both::new((inputs, outputs), (true, trained_below)),
                x: Both::new((inputs, capacity), (true, training)),
                dz: Both::new((outputs, capacity), (trained_below, training)),
                version: None,
            }
        });
        Pairs { layers: layers.collect(), input_scale: 1.0 }
    }

    /// What the sums of `layer` over its inputs are multiplied by.
    fn scale(&self, layer: usize) -> f32 {
        if layer == 0 { self.input_scale } else { 1.0 }
    }

    /// Makes the weights of `layer` operands, unless those of this version are.
    pub fn renew_weights(
        &mut self,
        context: &Context,
        layer: usize,
        weights: Panels,
        version: u64,
    ) {
        let LayerPairs { w, version: packed, .. } = &mut self.layers[layer];
        if *packed != Some(version) {
            for operand in w.copies(Side::A, Side::A) {
                pack(context, weights, operand);
            }
            *packed = Some(version);
        }
    }

    /// That what was written as its operands are the weights of `layer` in this version.
    pub fn weights_are(&mut self, layer: usize, version: u64) {
        self.layers[layer].version = Some(version);
    }

    /// The inputs of the net, to be written.
    pub fn inputs(&mut self) -> Copies<'_> {
        self.layers[0].x.copies(Side::B, Side::A)
    }

    /// dZ of the last layer, to be written.
    pub fn logit_gradients(&mut self) -> Copies<'_> {
        self.layers.last_mut().expect("a layer").dz.copies(Side::B, Side::B)
    }

    /// The operands of Wᵀ·X, whose result are the inputs of the layer above.
    pub fn forward(&mut self, layer: usize, batch: usize) -> Factors<'_> {
        let scale = self.scale(layer);
        let (below, above) = self.layers.split_at_mut(layer + 1);
        let LayerPairs { inputs, outputs, w, x, .. } = &below[layer];
        let (w, x) = (w.along_rows(*inputs, *outputs), x.along_rows(*inputs, batch));
        let copies = above.first_mut().map(|above| above.x.copies(Side::B, Side::A));
        Factors::bf16(scale, w, x, copies.unwrap_or_default())
    }

    /// The operands of W·dZ, whose result is dZ of the layer below.
    pub fn input_gradient(&mut self, layer: usize, batch: usize) -> Factors<'_> {
        let (below, above) = self.layers.split_at_mut(layer);
        let LayerPairs { inputs, outputs, w, dz, .. } = &above[0];
        let (w, dz) = (w.along_lanes(*inputs, *outputs), dz.along_rows(*outputs, batch));
        Factors::bf16(1.0, w, dz, below[layer - 1].dz.copies(Side::B, Side::B))
    }

    /// The operands of X·dZᵀ; the copies are those of the weights, which an update makes new.
    pub fn weight_gradient(&mut self, layer: usize, batch: usize, update: bool) -> Factors<'_> {
        let scale = self.scale(layer);
        let LayerPairs { inputs, outputs, w, x, dz, .. } = &mut self.layers[layer];
        let (x, dz) = (x.along_lanes(*inputs, batch), dz.along_lanes(*outputs, batch));
        let copies = if update { w.copies(Side::A, Side::A) } else { Copies::default() };
        Factors::bf16(scale, x, dz, copies)
    }
}
