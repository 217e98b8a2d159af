//! The net: dense layers with an activation, forwards and backwards.
//!
//! Layer i takes X [B, D] to Z = X·W + b [B, H], W [D, H], for a batch of B examples. Panels are how
//! these matrices are stored: X as [D rows, B lanes], W as [D rows, H lanes].

use crate::engine::config::Precision;
use crate::engine::init;
use crate::engine::pairs::Pairs;
use crate::engine::params::{self, LayerParams};
use crate::files::about::About;
use crate::files::model::{Layer, ModelFile, Standardizer};
use limbeck_datasets::{Batch, Inputs, Split};
use limbeck_kernels::bf16;
use limbeck_kernels::gemm::{self, Factors};
use limbeck_kernels::{
    Activation, Buffer, Context, LANES, Panels, PanelsMut, input, input::Scaling, panel_len, reduce,
};
use limbeck_kernels::{random::Dropout, softmax::Loss};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a stored value becomes an input: x = value · scale + shift.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InputScale {
    /// Factor.
    pub scale: f32,
    /// Summand.
    pub shift: f32,
}

impl InputScale {
    /// 0 … 255 to 0 … 1.
    pub const UNIT: InputScale = InputScale { scale: 1.0 / 255.0, shift: 0.0 };
    /// As they are.
    pub const IDENTITY: InputScale = InputScale { scale: 1.0, shift: 0.0 };

    /// What nets that are trained on such inputs start with: pixels are scaled, features are
    /// normalised by whoever made them.
    pub fn of(inputs: &Inputs) -> InputScale {
        match inputs {
            Inputs::Images(_) => InputScale::UNIT,
            Inputs::Features(_) => InputScale::IDENTITY,
        }
    }
}

fn new_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A multilayer perceptron: Yᵢ = f(Yᵢ₋₁·Wᵢ + bᵢ), the last layer without f.
#[derive(Clone)]
pub struct Mlp {
    layers: Vec<LayerParams>,
    params: Buffer,
    /// See [`Mlp::version`].
    versions: Vec<u64>,
    /// f of the hidden layers.
    activation: Activation,
    /// How its inputs are scaled.
    pub input: InputScale,
    /// In place of that, how each feature is.
    pub standardizer: Option<Standardizer>,
}

impl Mlp {
    /// A net of these widths with ReLU, initialised by [`init::uniform`].
    pub fn new(widths: &[usize], seed: u64) -> Self {
        Self::with_activation(widths, Activation::Relu, seed)
    }

    /// A net of these widths and activation, initialised by [`init::uniform`].
    pub fn with_activation(widths: &[usize], activation: Activation, seed: u64) -> Self {
        let layers = params::layers(widths);
        let mut params = Buffer::zeroed(params::len(&layers));
        init::uniform(seed, activation, &layers, &mut params);
        let versions = layers.iter().map(|_| new_version()).collect();
        let input = InputScale::UNIT;
        Self { layers, params, versions, activation, input, standardizer: None }
    }

    /// The net in a model file.
    pub fn from_file(file: &ModelFile) -> Self {
        let mut widths: Vec<usize> = file.layers.iter().map(|layer| layer.inputs).collect();
        widths.extend(file.layers.last().map(|layer| layer.outputs));
        let layers = params::layers(&widths);
        let mut params = Buffer::zeroed(params::len(&layers));
        for (layer, from) in layers.iter().zip(&file.layers) {
            PanelsMut::new(&mut params[layer.weight.clone()], layer.inputs, layer.outputs)
                .copy_from_lane_major(&from.weight);
            params[layer.bias.clone()][..layer.outputs].copy_from_slice(&from.bias);
        }
        let input = InputScale { scale: file.input_scale, shift: file.input_shift };
        let standardizer = file.standardizer.clone();
        let versions = layers.iter().map(|_| new_version()).collect();
        Self { layers, params, versions, activation: file.activation, input, standardizer }
    }

    /// The net as a model file that says nothing of its data: weights [outputs, inputs].
    pub fn to_file(&self) -> ModelFile {
        let layers = self.layers.iter().enumerate().map(|(i, layer)| {
            let mut weight = vec![0.0; layer.inputs * layer.outputs];
            self.weight(i).to_lane_major(&mut weight);
            let bias = self.bias(i).to_vec();
            Layer { inputs: layer.inputs, outputs: layer.outputs, weight, bias }
        });
        ModelFile {
            layers: layers.collect(),
            activation: self.activation,
            input_scale: self.input.scale,
            input_shift: self.input.shift,
            standardizer: self.standardizer.clone(),
            about: About::default(),
        }
    }

    /// The layers' sizes and places in [`Mlp::params`].
    pub fn layers(&self) -> &[LayerParams] {
        &self.layers
    }

    /// Inputs, width of each hidden layer, classes.
    pub fn widths(&self) -> Vec<usize> {
        let outputs = self.layers.iter().map(|layer| layer.outputs);
        std::iter::once(self.inputs()).chain(outputs).collect()
    }

    /// f of the hidden layers.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Values of an example.
    pub fn inputs(&self) -> usize {
        self.layers[0].inputs
    }

    /// Classes.
    pub fn classes(&self) -> usize {
        self.layers[self.layers.len() - 1].outputs
    }

    /// All parameters, padding included.
    pub fn params(&self) -> &[f32] {
        &self.params
    }

    /// All parameters, padding included.
    pub fn params_mut(&mut self) -> &mut [f32] {
        self.versions.iter_mut().for_each(|version| *version = new_version());
        &mut self.params
    }

    /// Wᵢ, padding included.
    pub(crate) fn weight_mut(&mut self, i: usize) -> &mut [f32] {
        self.versions[i] = new_version();
        &mut self.params[self.layers[i].weight.clone()]
    }

    /// bᵢ, padding included.
    pub(crate) fn bias_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.params[self.layers[i].bias.clone()]
    }

    /// A number that is another one as soon as Wᵢ is, in this and in all other nets.
    pub(crate) fn version(&self, i: usize) -> u64 {
        self.versions[i]
    }

    /// Wᵢ [inputs, outputs].
    pub fn weight(&self, i: usize) -> Panels<'_> {
        let layer = &self.layers[i];
        Panels::new(&self.params[layer.weight.clone()], layer.inputs, layer.outputs)
    }

    /// bᵢ, one value per output.
    pub fn bias(&self, i: usize) -> &[f32] {
        let layer = &self.layers[i];
        &self.params[layer.bias.clone()][..layer.outputs]
    }

    /// Floating-point operations of a training step: those of [`Mlp::flop_of_forward`] for each of the
    /// forward product, the weight gradient and, but for the first layer, the input gradient.
    pub fn flop_per_step(&self, batch: usize) -> f64 {
        let first = &self.layers[0];
        3.0 * self.flop_of_forward(batch) - 2.0 * (batch * first.inputs * first.outputs) as f64
    }

    /// Floating-point operations of the forward products, Σ 2·B·Dᵢ·Hᵢ.
    pub fn flop_of_forward(&self, batch: usize) -> f64 {
        self.layers.iter().map(|l| 2.0 * (batch * l.inputs * l.outputs) as f64).sum()
    }

    /// The logits of the batch that [`Workspace::load`] took, left in `work`; `dropout` has an entry for the
    /// input and one for each hidden layer, or is empty (evaluation). The input's dropout is
    /// applied by [`Workspace::load`].
    pub fn forward(&self, context: &Context, work: &mut Workspace, dropout: &[Option<Dropout>]) {
        let last = self.layers.len() - 1;
        for i in 0..=last {
            let (below, y) = work.arena.split_at_mut(work.activations[i + 1].start);
            let x =
                Panels::new(&below[work.activations[i].clone()], self.layers[i].inputs, work.batch);
            let y = PanelsMut::new(y, self.layers[i].outputs, work.batch);
            let dropout = dropout.get(i + 1).copied().flatten().filter(|_| i < last);
            let activation = (i < last).then_some(self.activation);
            let factors = match &mut work.pairs {
                None => Factors::f32(self.weight(i), x),
                Some(pairs) => {
                    pairs.renew_weights(context, i, self.weight(i), self.version(i));
                    pairs.forward(i, work.batch)
                }
            };
            gemm::forward(context, factors, self.bias(i), activation, dropout, y);
        }
    }

    /// The gradients of all parameters, in the order of [`Mlp::params`], to `grads`, from d_logits
    /// in `work`; [`Mlp::forward`] must have run with the same `dropout`. Last layer first:
    /// dW = Xᵀ·dZ, db = Σ dZ, dZ below = (dZ·Wᵀ) ⊙ f′ ⊙ mask. The input gets no gradient.
    pub fn backward(
        &self,
        context: &Context,
        work: &mut Workspace,
        dropout: &[Option<Dropout>],
        grads: &mut [f32],
    ) {
        for i in (0..self.layers.len()).rev() {
            self.layer_gradient(context, work, dropout, i, &mut grads[self.layers[i].all()]);
        }
    }

    /// [`Mlp::backward`] of layer `i`: its gradients to `grads`, and dZ of the layer below.
    pub(crate) fn layer_gradient(
        &self,
        context: &Context,
        work: &mut Workspace,
        dropout: &[Option<Dropout>],
        i: usize,
        grads: &mut [f32],
    ) {
        self.backward_layer(context, work, dropout, i);
        let LayerParams { inputs, outputs, weight, .. } = &self.layers[i];
        let (factors, db) = work.layer_gradient(self, i, false);
        let (dw, to) = grads.split_at_mut(weight.len());
        gemm::weight_gradient(context, factors, PanelsMut::new(dw, *inputs, *outputs));
        to.copy_from_slice(db);
    }

    /// What [`Mlp::backward`] does for layer `i` but for dW: dZ of the layer below, dZᵀ, and db.
    pub(crate) fn backward_layer(
        &self,
        context: &Context,
        work: &mut Workspace,
        dropout: &[Option<Dropout>],
        i: usize,
    ) {
        let batch = work.batch;
        let LayerParams { inputs, outputs, bias, .. } = &self.layers[i];
        if i + 1 == self.layers.len()
            && let Some(pairs) = &mut work.pairs
        {
            let dz = PanelsMut::new(&mut work.arena[work.gradients[i].clone()], *outputs, batch);
            bf16::round_and_pack(context, dz, pairs.logit_gradients());
        }
        if i > 0 {
            let (known, dx) = work.arena.split_at_mut(work.gradients[i - 1].start);
            let dz = Panels::new(&known[work.gradients[i].clone()], *outputs, batch);
            let y = Panels::new(&known[work.activations[i].clone()], *inputs, batch);
            let dropout = dropout.get(i).copied().flatten();
            let dx = PanelsMut::new(dx, *inputs, batch);
            let factors = match &mut work.pairs {
                None => Factors::f32(self.weight(i), dz),
                Some(pairs) => pairs.input_gradient(i, batch),
            };
            gemm::input_gradient(context, factors, y, self.activation, dropout, dx);
        }
        let (known, scratch) = work.arena.split_at_mut(work.transposed.start);
        let (transposed, db) = scratch.split_at_mut(work.transposed.len());
        let dz = Panels::new(&known[work.gradients[i].clone()], *outputs, batch);
        if work.pairs.is_none() {
            gemm::transpose(context, dz, PanelsMut::new(transposed, batch, *outputs));
        }
        let (db, padding) = db[..bias.len()].split_at_mut(*outputs);
        reduce::row_sums(context, dz, db);
        padding.fill(0.0);
    }

    /// The logits [n, classes], row-major, of all of `split`, without dropout and jitter, in f32.
    ///
    /// # Panics
    /// If the examples do not have [`Mlp::inputs`] values.
    pub fn logits(&self, context: &Context, split: &Split) -> Vec<f32> {
        self.logits_in(Precision::F32, context, split)
    }

    /// [`Mlp::logits`] in another precision.
    ///
    /// # Panics
    /// As [`Mlp::logits`].
    pub fn logits_in(&self, precision: Precision, context: &Context, split: &Split) -> Vec<f32> {
        let mut all = vec![0.0; split.len() * self.classes()];
        self.for_each_part(precision, context, split, |part, logits| {
            let (start, end) = (part.start * self.classes(), part.end * self.classes());
            logits.to_lane_major(&mut all[start..end]);
        });
        all
    }

    /// How many of the labelled examples of `split` the model gets wrong; see
    /// [`crate::engine::metrics::errors`]. The logits of all need not fit in memory.
    ///
    /// # Panics
    /// As [`Mlp::logits`], or if there are no labels.
    pub fn errors(&self, context: &Context, split: &Split) -> usize {
        let labels = split.labels.as_deref().expect("labels");
        let mut errors = 0;
        self.for_each_part(Precision::F32, context, split, |part, logits| {
            errors += reduce::errors(context, logits, &labels[part]);
        });
        errors
    }

    /// Calls `work` with the examples and the logits [C, part] of each part of `split`.
    fn for_each_part(
        &self,
        precision: Precision,
        context: &Context,
        split: &Split,
        mut work: impl FnMut(Range<usize>, Panels) + Send,
    ) {
        const PART: usize = 512;
        context.pool.install(|| {
            let mut space = Workspace::for_evaluation(self, PART, precision);
            let indices: Vec<u32> = (0..split.len() as u32).collect();
            for (i, indices) in indices.chunks(PART).enumerate() {
                space.load(context, self, &split.batch(indices), None);
                self.forward(context, &mut space, &[]);
                work(i * PART..i * PART + indices.len(), space.logits(self));
            }
        });
    }
}

/// Everything a step writes: one arena, allocated once. Each array lies behind those that it is
/// computed from, so that the arena, split at its start, is what is read and what is written.
pub struct Workspace {
    batch: usize,
    capacity: usize,
    /// [capacity, D], once they are needed: images that are shifted, and windows of frames that
    /// reach over an edge, before they become inputs.
    pixels: Vec<u8>,
    values: Vec<f32>,
    arena: Buffer,
    /// X [D, B] and each layer's Y [H, B], the last of which is the logits: layer i leads from i to
    /// i + 1.
    activations: Vec<Range<usize>>,
    /// dZᵢ [Hᵢ, B], the last layer's first in the arena.
    gradients: Vec<Range<usize>>,
    /// dZᵢᵀ [B, Hᵢ] of the layer at hand, in f32.
    transposed: Range<usize>,
    /// db of the layer at hand.
    db: Range<usize>,
    losses: Vec<Loss>,
    /// The operands of the products in bf16; absent in f32.
    pairs: Option<Pairs>,
}

impl Workspace {
    /// Memory for training with batches of at most `capacity` examples.
    pub fn for_training(model: &Mlp, capacity: usize, precision: Precision) -> Self {
        Self::new(model, capacity, precision, true)
    }

    /// Memory for [`Mlp::forward`] alone.
    pub fn for_evaluation(model: &Mlp, capacity: usize, precision: Precision) -> Self {
        Self::new(model, capacity, precision, false)
    }

    fn new(model: &Mlp, capacity: usize, precision: Precision, training: bool) -> Self {
        let mut end = 0;
        let mut place = |len: usize| {
            let start = end;
            end += len;
            start..end
        };
        let layers = &model.layers;
        let widths = std::iter::once(model.inputs()).chain(layers.iter().map(|l| l.outputs));
        let activations = widths.map(|width| place(panel_len(width, capacity))).collect();
        let trained = if training { &layers[..] } else { &[] };
        let mut gradients: Vec<_> =
            trained.iter().rev().map(|l| place(panel_len(l.outputs, capacity))).collect();
        gradients.reverse();
        let widest = trained.iter().map(|l| l.bias.len()).max().unwrap_or(0);
        let transposed = match precision {
            Precision::F32 => place(panel_len(capacity, widest)),
            Precision::Bf16 => place(0),
        };
        let db = place(widest);
        Self {
            batch: 0,
            capacity,
            pixels: Vec::new(),
            values: Vec::new(),
            arena: Buffer::zeroed(end),
            activations,
            gradients,
            transposed,
            db,
            losses: vec![Loss::default(); capacity.div_ceil(LANES)],
            pairs: match precision {
                Precision::F32 => None,
                Precision::Bf16 => Some(Pairs::new(&model.widths(), capacity, training)),
            },
        }
    }

    /// Takes a batch as input, with the input's dropout; see [`input::load`].
    ///
    /// # Panics
    /// If the batch exceeds the capacity or an example does not have D values.
    pub fn load(
        &mut self,
        context: &Context,
        model: &Mlp,
        batch: &Batch,
        dropout: Option<Dropout>,
    ) {
        let InputScale { scale, shift } = model.input;
        let (mut scaling, mut dropout) = match &model.standardizer {
            None => (Scaling::Uniform { scale, shift }, dropout),
            Some(Standardizer { mean, scale }) => (Scaling::Each { mean, scale }, dropout),
        };
        if let Some(pairs) = &mut self.pairs {
            // Whole numbers up to 256 are exact in bf16; their scale goes to the products.
            let whole = matches!(batch.inputs, Inputs::Images(_)) && model.standardizer.is_none();
            pairs.input_scale = 1.0;
            if whole && shift == 0.0 {
                pairs.input_scale = scale * dropout.map_or(1.0, |dropout| dropout.scale());
                scaling = Scaling::NONE;
                dropout = dropout.map(Dropout::unscaled);
            }
        }
        let (inputs, len) = (model.inputs(), self.capacity * model.inputs());
        self.batch = batch.len();
        assert!(self.batch <= self.capacity, "a batch of {} in {}", self.batch, self.capacity);
        let x = PanelsMut::new(&mut self.arena[self.activations[0].clone()], inputs, self.batch);
        match batch.inputs {
            Inputs::Images(_) => {
                self.pixels.resize(len, 0);
                let image = |i: usize, space| batch.image(i, space);
                input::load(context, image, &mut self.pixels, scaling, dropout, x);
            }
            Inputs::Features(frames) => {
                self.values.resize(len, 0.0);
                let input = |i: usize, space| frames.input(batch.indices[i] as usize, space);
                input::load(context, input, &mut self.values, scaling, dropout, x);
            }
        }
        if let Some(pairs) = &mut self.pairs {
            let x =
                PanelsMut::new(&mut self.arena[self.activations[0].clone()], inputs, self.batch);
            bf16::round_and_pack(context, x, pairs.inputs());
        }
    }

    /// The logits [C, B] of the last [`Mlp::forward`].
    pub fn logits(&self, model: &Mlp) -> Panels<'_> {
        let logits = &self.arena[self.activations[model.layers.len()].clone()];
        Panels::new(logits, model.classes(), self.batch)
    }

    /// The first layer whose output in the last [`Mlp::forward`] is not finite.
    pub(crate) fn not_finite(&self, model: &Mlp) -> Option<usize> {
        let finite = |(i, layer): (usize, &LayerParams)| {
            let y = &self.arena[self.activations[i + 1].clone()];
            y[..panel_len(layer.outputs, self.batch)].iter().all(|y| y.is_finite())
        };
        model.layers.iter().enumerate().position(|layer| !finite(layer))
    }

    /// The logits, the losses of each panel, and d_logits to be written.
    pub fn loss_parts(&mut self, model: &Mlp) -> (Panels<'_>, &mut [Loss], PanelsMut<'_>) {
        let last = model.layers.len() - 1;
        let (known, d_logits) = self.arena.split_at_mut(self.gradients[last].start);
        let logits =
            Panels::new(&known[self.activations[last + 1].clone()], model.classes(), self.batch);
        let d_logits = PanelsMut::new(d_logits, model.classes(), self.batch);
        (logits, &mut self.losses[..self.batch.div_ceil(LANES)], d_logits)
    }

    /// X and dZᵀ of layer `i` after [`Mlp::backward_layer`], and db. An `update` in bf16 leaves the new
    /// weights for the next step, when [`Workspace::weights_are`] says so.
    pub(crate) fn layer_gradient(
        &mut self,
        model: &Mlp,
        i: usize,
        update: bool,
    ) -> (Factors<'_>, &[f32]) {
        let LayerParams { inputs, outputs, ref bias, .. } = model.layers[i];
        let db = &self.arena[self.db.clone()][..bias.len()];
        if let Some(pairs) = &mut self.pairs {
            return (pairs.weight_gradient(i, self.batch, update), db);
        }
        let x = Panels::new(&self.arena[self.activations[i].clone()], inputs, self.batch);
        let dz_transposed = Panels::new(&self.arena[self.transposed.clone()], self.batch, outputs);
        (Factors::f32(x, dz_transposed), db)
    }

    /// An update has left the weights of layer `i`, as `model` has them.
    pub(crate) fn weights_are(&mut self, model: &Mlp, i: usize) {
        if let Some(pairs) = &mut self.pairs {
            pairs.weights_are(i, model.version(i));
        }
    }
}
