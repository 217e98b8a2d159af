//! The engine in f64, plainly: what training must compute, for verifying the fast code and others'.
//!
//! Row-major matrices with an example a row; no panels, no fusing, no threads. Matrix products are
//! [`ndarray`]'s `dot`, which for f64 is `matrixmultiply`'s `dgemm` behind a safe interface.
//! Softmax, losses, update rules and max-norm are the functions of [`limbeck_kernels::reference`],
//! one example or parameter at a time.
//!
//! Nothing here rounds to f32: a result is off by the 2⁻⁵³ of each operation, 2⁻²⁹ of what the
//! engine's may be. It is the oracle of the tests, and agrees with PyTorch and JAX in f64
//! (`tests/golden.rs`).

use crate::engine::{activation::Activation, loss::LossSpec, mlp::Mlp};
use limbeck_kernels::gemm::WeightStep;
use limbeck_kernels::{Panels, reference};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Zip};

/// A minibatch: inputs, dropout, targets and the loss.
#[derive(Clone, Debug)]
pub struct Batch {
    /// X [B, D], before dropout.
    pub inputs: Array2<f64>,
    /// Dropout's factor, 0 or 1/(1 − rate), of each element of X [B, D] and of each hidden layer's
    /// outputs [B, H]; empty or `None` where nothing is dropped.
    pub masks: Vec<Option<Array2<f64>>>,
    /// The teacher's logits V [B, C]; without them there is no soft term.
    pub teacher: Option<Array2<f64>>,
    /// The class of each example; without them there is no hard term.
    pub labels: Option<Vec<usize>>,
    /// The loss.
    pub loss: LossSpec,
}

impl Batch {
    fn mask(&self, i: usize) -> Option<&Array2<f64>> {
        self.masks.get(i).and_then(Option::as_ref)
    }

    /// What is known of example `e` to its loss, and `work` done with it and its logits.
    fn each<R>(
        &self,
        logits: &Array2<f64>,
        work: impl Fn(reference::Distillation, &[f64]) -> R,
    ) -> Vec<R> {
        let LossSpec { temperature, soft_weight, hard_weight } = self.loss;
        let example = |e: usize| {
            let teacher = self.teacher.as_ref().map(|v| v.row(e).to_vec());
            let task = reference::Distillation {
                teacher: teacher.as_deref().filter(|_| soft_weight > 0.0),
                label: self.labels.as_ref().filter(|_| hard_weight > 0.0).map(|y| y[e]),
                temperature: temperature.into(),
                soft_weight: soft_weight.into(),
                hard_weight: hard_weight.into(),
            };
            work(task, &logits.row(e).to_vec())
        };
        (0..logits.nrows()).map(example).collect()
    }

    /// L = (1/B) Σ [soft_weight·T²·CE(p, q) + hard_weight·CE(y, softmax(z))] of the logits Z
    /// [B, C].
    pub fn loss(&self, logits: &Array2<f64>) -> f64 {
        mean(self.each(logits, |task, z| task.loss(z)))
    }

    /// L with KL(p ‖ q) in place of CE(p, q): without the entropy of the soft targets, and exact
    /// where T² makes that entropy so large that L has no digits left for the rest.
    pub fn reducible_loss(&self, logits: &Array2<f64>) -> f64 {
        mean(self.each(logits, |task, z| task.reducible_loss(z)))
    }

    /// ∂L/∂Z [B, C].
    pub fn d_logits(&self, logits: &Array2<f64>) -> Array2<f64> {
        let rows = self.each(logits, |task, z| Array1::from(task.gradient(z)));
        let mut d_logits = Array2::zeros(logits.raw_dim());
        for (mut row, gradient) in d_logits.rows_mut().into_iter().zip(&rows) {
            row.assign(gradient);
        }
        d_logits / logits.nrows() as f64
    }
}

fn mean(values: Vec<f64>) -> f64 {
    let count = values.len() as f64;
    values.into_iter().sum::<f64>() / count
}

/// A multilayer perceptron: Yᵢ = f(Yᵢ₋₁·Wᵢ + bᵢ), the last layer without f.
#[derive(Clone, Debug, PartialEq)]
pub struct Net {
    /// Inputs, hidden widths, classes.
    pub widths: Vec<usize>,
    /// f of the hidden layers.
    pub activation: Activation,
    /// W₀ [D, H], b₀ \[H\], W₁, …: row-major, without padding.
    pub params: Vec<f64>,
}

impl Net {
    /// The net of the engine's `model`.
    pub fn new(model: &Mlp) -> Net {
        let params = Net::flatten(model, model.params());
        Net { widths: model.widths(), activation: model.activation(), params }
    }

    /// An array in the order of [`Mlp::params`], such as gradients, in that of [`Net::params`].
    pub fn flatten(model: &Mlp, values: &[f32]) -> Vec<f64> {
        let mut flat = Vec::new();
        for layer in model.layers() {
            let weight = Panels::new(&values[layer.weight.clone()], layer.inputs, layer.outputs);
            for input in 0..layer.inputs {
                flat.extend((0..layer.outputs).map(|output| f64::from(weight.get(input, output))));
            }
            let bias = &values[layer.bias.clone()][..layer.outputs];
            flat.extend(bias.iter().map(|&b| f64::from(b)));
        }
        flat
    }

    /// Layers with parameters.
    pub fn layers(&self) -> usize {
        self.widths.len() - 1
    }

    /// Where Wᵢ begins in the parameters, and where bᵢ begins and ends.
    pub fn place(&self, i: usize) -> [usize; 3] {
        let before = self.widths.windows(2).take(i).map(|pair| (pair[0] + 1) * pair[1]).sum();
        let bias = before + self.widths[i] * self.widths[i + 1];
        [before, bias, bias + self.widths[i + 1]]
    }

    /// Wᵢ [inputs, outputs] of an array in the order of the parameters.
    pub fn weight<'a>(&self, values: &'a [f64], i: usize) -> ArrayView2<'a, f64> {
        let [start, end, _] = self.place(i);
        ArrayView2::from_shape((self.widths[i], self.widths[i + 1]), &values[start..end])
            .expect("as many values as the shape has")
    }

    /// bᵢ of an array in the order of the parameters.
    pub fn bias<'a>(&self, values: &'a [f64], i: usize) -> ArrayView1<'a, f64> {
        let [_, start, end] = self.place(i);
        ArrayView1::from(&values[start..end])
    }

    /// Zᵢ = Yᵢ₋₁·Wᵢ + bᵢ [B, H] of the layer's inputs [B, D].
    pub fn linear(&self, i: usize, inputs: &Array2<f64>) -> Array2<f64> {
        inputs.dot(&self.weight(&self.params, i)) + self.bias(&self.params, i)
    }

    /// X after its dropout, each hidden layer's f(Z) after its dropout, and the logits.
    pub fn forward(&self, batch: &Batch) -> Vec<Array2<f64>> {
        let dropped = |i, y: Array2<f64>| match batch.mask(i) {
            Some(mask) => y * mask,
            None => y,
        };
        let mut activations = vec![dropped(0, batch.inputs.clone())];
        for i in 0..self.layers() {
            let z = self.linear(i, &activations[i]);
            let hidden = i + 1 < self.layers();
            activations.push(if hidden {
                dropped(i + 1, z.mapv(|z| reference::activate(self.activation, z)))
            } else {
                z
            });
        }
        activations
    }

    /// The logits [B, C].
    pub fn logits(&self, batch: &Batch) -> Array2<f64> {
        self.forward(batch).pop().expect("the logits")
    }

    /// L of the batch.
    pub fn loss(&self, batch: &Batch) -> f64 {
        batch.loss(&self.logits(batch))
    }

    /// ∂L of all parameters, in their order, from the `activations` of [`Net::forward`] and
    /// ∂L/∂Z of the logits; last layer first:
    /// dW = Yᵀ·dZ, db = Σ dZ, dZ below = (dZ·Wᵀ) ⊙ mask ⊙ f′.
    pub fn backward(
        &self,
        batch: &Batch,
        activations: &[Array2<f64>],
        d_logits: Array2<f64>,
    ) -> Vec<f64> {
        let mut grads = vec![0.0; self.params.len()];
        let mut dz = d_logits;
        for i in (0..self.layers()).rev() {
            let [weight, bias, end] = self.place(i);
            let dw = activations[i].t().dot(&dz);
            grads[weight..bias].iter_mut().zip(&dw).for_each(|(g, dw)| *g = *dw);
            let db = dz.sum_axis(Axis(0));
            grads[bias..end].iter_mut().zip(&db).for_each(|(g, db)| *g = *db);
            if i > 0 {
                dz = dz.dot(&self.weight(&self.params, i).t());
                let mut y = activations[i].clone();
                if let Some(mask) = batch.mask(i) {
                    dz *= mask;
                    // f(Z) before the dropout; what was dropped hands nothing down whatever it was.
                    Zip::from(&mut y).and(mask).for_each(|y, &mask| {
                        if mask > 0.0 {
                            *y /= mask;
                        }
                    });
                }
                let slope = |d: &mut f64, y: &f64| *d *= reference::slope(self.activation, *y);
                Zip::from(&mut dz).and(&y).for_each(slope);
            }
        }
        grads
    }

    /// ∂L of all parameters, in their order.
    pub fn gradient(&self, batch: &Batch) -> Vec<f64> {
        let activations = self.forward(batch);
        let d_logits = batch.d_logits(&activations[self.layers()]);
        self.backward(batch, &activations, d_logits)
    }

    /// One step of the optimiser, which holds two `moments` for each parameter, zero at the start.
    /// Weight decay is the weights' alone, max-norm the hidden units'.
    pub fn step(&mut self, step: WeightStep, grads: &[f64], moments: &mut [(f64, f64)]) {
        for i in 0..self.layers() {
            let [weight, bias, end] = self.place(i);
            for k in weight..end {
                let decay = if k < bias { step.weight_decay.into() } else { 0.0 };
                let (v, u) = &mut moments[k];
                reference::step(step.rule, decay, &mut self.params[k], grads[k], v, u);
            }
            if let Some(limit) = step.max_norm.filter(|_| i + 1 < self.layers()) {
                let units = self.widths[i + 1];
                reference::max_norm(limit.into(), units, &mut self.params[weight..bias]);
            }
        }
    }
}
