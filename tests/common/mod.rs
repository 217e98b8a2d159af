//! The whole net in f64, put together from the kernels' oracles, and what the tests share.

#![allow(dead_code, reason = "each test file uses its part")]

use limbeck::Result;
use limbeck::loss::{self, Objective};
use limbeck::mlp::{Mlp, Workspace};
use limbeck::trainer::{EpochRecord, Observer, Progress};
use limbeck_datasets::Split;
use limbeck_kernels::random::Dropout;
use limbeck_kernels::{Buffer, Context, Isa, Panels, PanelsMut, panel_len, reference};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Rounding to f32 changes a number by at most this share of it.
pub const UNIT: f64 = 1.0 / (1 << 24) as f64;

/// `n` numbers in (−1, 1).
pub fn uniform(seed: u64, n: usize) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| f64::from(rng.next_u32() >> 8) / f64::from(1 << 23) - 1.0).collect()
}

pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

pub fn best(threads: usize) -> Context {
    Context::new(Isa::best(), threads).unwrap()
}

/// A net with biases that are not zero, so that they are tested too.
pub fn small_net(widths: &[usize], seed: u64) -> Mlp {
    let mut model = Mlp::new(widths, seed);
    for layer in model.layers().to_vec() {
        let biases = uniform(seed + 1, layer.outputs);
        for (b, value) in model.params_mut()[layer.bias].iter_mut().zip(biases) {
            *b = 0.5 * value as f32;
        }
    }
    model
}

/// One minibatch as the engine gets it.
#[derive(Clone)]
pub struct Minibatch {
    pub size: usize,
    /// [B, D], row-major.
    pub pixels: Vec<u8>,
    /// For the input and each hidden layer, or empty.
    pub dropout: Vec<Option<Dropout>>,
    /// [B, C], row-major.
    pub teacher: Option<Vec<f32>>,
    pub labels: Option<Vec<u16>>,
    pub objective: Objective,
}

impl Minibatch {
    /// Dropout of the inputs of layer `i`.
    fn dropout(&self, i: usize) -> Option<&Dropout> {
        self.dropout.get(i).and_then(Option::as_ref)
    }

    /// What a kept input of layer `i` was multiplied by.
    fn scale(&self, i: usize) -> f64 {
        self.dropout(i).map_or(1.0, |dropout| dropout.scale().into())
    }
}

/// Dropout's factor of each element [rows, lanes].
fn mask(dropout: Option<&Dropout>, rows: usize, lanes: usize) -> Option<Vec<f64>> {
    let dropout = dropout?;
    let factor = |i| match dropout.keeps(i / lanes, i % lanes) {
        true => f64::from(dropout.scale()),
        false => 0.0,
    };
    Some((0..rows * lanes).map(factor).collect())
}

/// The net in f64. Its flat arrays hold W₀ [D, H], b₀ [H], W₁, …, row-major without padding.
#[derive(Clone)]
pub struct Net {
    pub widths: Vec<usize>,
    pub params: Vec<f64>,
    pub input: (f32, f32),
}

impl Net {
    pub fn new(model: &Mlp) -> Net {
        let mut widths = vec![model.inputs()];
        widths.extend(model.layers().iter().map(|layer| layer.outputs));
        let input = (model.input.scale, model.input.shift);
        Net { widths, params: Net::flat(model, model.params()), input }
    }

    /// An array in the order of [`Mlp::params`] in the order of [`Net::params`].
    pub fn flat(model: &Mlp, values: &[f32]) -> Vec<f64> {
        let mut flat = Vec::new();
        for layer in model.layers() {
            let weight = Panels::new(&values[layer.weight.clone()], layer.inputs, layer.outputs);
            for row in 0..layer.inputs {
                flat.extend((0..layer.outputs).map(|lane| f64::from(weight.get(row, lane))));
            }
            flat.extend(widen(&values[layer.bias.clone()][..layer.outputs]));
        }
        flat
    }

    pub fn layers(&self) -> usize {
        self.widths.len() - 1
    }

    /// Inputs and outputs of a layer, and where its W begins; its b follows.
    pub fn layer(&self, i: usize) -> (usize, usize, usize) {
        let before = self.widths.windows(2).take(i).map(|pair| (pair[0] + 1) * pair[1]).sum();
        (self.widths[i], self.widths[i + 1], before)
    }

    fn weight(&self, i: usize) -> &[f64] {
        let (inputs, outputs, start) = self.layer(i);
        &self.params[start..][..inputs * outputs]
    }

    fn bias(&self, i: usize) -> &[f64] {
        let (inputs, outputs, start) = self.layer(i);
        &self.params[start + inputs * outputs..][..outputs]
    }

    /// X, then each layer's Y after ReLU and dropout; all [features, batch].
    pub fn activations(&self, batch: &Minibatch) -> Vec<Vec<f64>> {
        let (inputs, size) = (self.widths[0], batch.size);
        let rows = widen(&reference::load_pixels(&batch.pixels, self.input.0, self.input.1));
        let masks = |i: usize| mask(batch.dropout(i), self.widths[i], size);
        let input_mask = masks(0);
        let x = (0..inputs * size).map(|i| {
            let (feature, example) = (i / size, i % size);
            rows[example * inputs + feature] * input_mask.as_ref().map_or(1.0, |mask| mask[i])
        });
        let mut activations = vec![x.collect::<Vec<f64>>()];
        for i in 0..self.layers() {
            let hidden = i + 1 < self.layers();
            let mask = masks(i + 1).filter(|_| hidden);
            let y = reference::forward(
                (self.widths[i], self.widths[i + 1], size),
                self.weight(i),
                &activations[i],
                self.bias(i),
                hidden,
                mask.as_deref(),
            );
            activations.push(y);
        }
        activations
    }

    /// The least |z| of a hidden unit before its ReLU: how far the kinks are. A unit without bias
    /// whose inputs were all dropped has z = 0 in any precision and does not count.
    pub fn distance_to_kink(&self, batch: &Minibatch) -> f64 {
        let activations = self.activations(batch);
        let hidden = (0..self.layers() - 1).flat_map(|i| {
            let sizes = (self.widths[i], self.widths[i + 1], batch.size);
            reference::forward(sizes, self.weight(i), &activations[i], self.bias(i), false, None)
        });
        hidden.filter(|z| *z != 0.0).map(f64::abs).fold(f64::INFINITY, f64::min)
    }

    /// Logits of each example.
    pub fn logits(&self, batch: &Minibatch) -> Vec<Vec<f64>> {
        let logits = self.activations(batch).pop().unwrap();
        (0..batch.size)
            .map(|e| logits.iter().skip(e).step_by(batch.size).copied().collect())
            .collect()
    }

    /// What the loss of example `e` is made of.
    pub fn with_task<R>(
        batch: &Minibatch,
        e: usize,
        work: impl FnOnce(&reference::Distillation) -> R,
    ) -> R {
        let Objective { temperature, soft_weight, hard_weight } = batch.objective;
        let teacher = batch.teacher.as_ref().filter(|_| soft_weight > 0.0).map(|logits| {
            let classes = logits.len() / batch.size;
            widen(&logits[e * classes..][..classes])
        });
        let labels = batch.labels.as_ref().filter(|_| hard_weight > 0.0);
        work(&reference::Distillation {
            teacher: teacher.as_deref(),
            label: labels.map(|labels| usize::from(labels[e])),
            temperature: temperature.into(),
            soft_weight: soft_weight.into(),
            hard_weight: hard_weight.into(),
        })
    }

    /// L of the batch.
    pub fn loss(&self, batch: &Minibatch) -> f64 {
        let logits = self.logits(batch);
        let losses =
            (0..batch.size).map(|e| Net::with_task(batch, e, |task| task.loss(&logits[e])));
        losses.sum::<f64>() / batch.size as f64
    }

    /// d_logits [C, B] from a function of an example and its logits, divided by B.
    pub fn d_logits(
        &self,
        batch: &Minibatch,
        gradient: impl Fn(usize, &[f64]) -> Vec<f64>,
    ) -> Vec<f64> {
        let classes = self.widths[self.layers()];
        let mut d_logits = vec![0.0; classes * batch.size];
        for (e, logits) in self.logits(batch).iter().enumerate() {
            for (class, d) in gradient(e, logits).into_iter().enumerate() {
                d_logits[class * batch.size + e] = d / batch.size as f64;
            }
        }
        d_logits
    }

    /// The gradients of all parameters from d_logits, by backpropagation.
    pub fn backward(&self, batch: &Minibatch, d_logits: Vec<f64>) -> Vec<f64> {
        self.backward_with(&self.activations(batch), batch.size, d_logits, |i| batch.scale(i))
    }

    /// The same, from the activations, with a factor for each layer's inputs.
    pub fn backward_with(
        &self,
        activations: &[Vec<f64>],
        size: usize,
        d_logits: Vec<f64>,
        scale: impl Fn(usize) -> f64,
    ) -> Vec<f64> {
        let mut grads = vec![0.0; self.params.len()];
        let mut dz = d_logits;
        for i in (0..self.layers()).rev() {
            let (inputs, outputs, start) = self.layer(i);
            let (sizes, x) = ((inputs, outputs, size), &activations[i]);
            let dw = reference::weight_gradient(sizes, x, &dz);
            grads[start..][..dw.len()].copy_from_slice(&dw);
            let db = reference::row_sums(size, &dz);
            grads[start + dw.len()..][..outputs].copy_from_slice(&db);
            if i > 0 {
                dz = reference::input_gradient(sizes, self.weight(i), &dz, x, scale(i));
            }
        }
        grads
    }

    /// The gradients of L.
    pub fn gradient(&self, batch: &Minibatch) -> Vec<f64> {
        let d_logits =
            self.d_logits(batch, |e, z| Net::with_task(batch, e, |task| task.gradient(z)));
        self.backward(batch, d_logits)
    }

    /// How far the engine's f32 gradients may be from [`Net::gradient`].
    ///
    /// Each number of a step is a chain of at most n operations behind the pixels, with n below
    /// the sum of all widths plus batch and 16 for the softmax: its error is at most n·2⁻²⁴ of
    /// the sum of the *absolute* terms, which is what backpropagation with |W| and |x| gives for
    /// d_logits of soft_weight·T·(q + p) + hard_weight·(q + 1). The logits' own error moves q by
    /// no more than q times itself.
    pub fn tolerance(&self, batch: &Minibatch) -> Vec<f64> {
        let absolute =
            Net { params: self.params.iter().map(|w| w.abs()).collect(), ..self.clone() };
        let chain = (self.widths.iter().sum::<usize>() + batch.size + 16) as f64;
        let largest = self.logits(batch).concat().into_iter().fold(1.0, |m: f64, z| m.max(z.abs()));
        let terms = self.d_logits(batch, |e, z| {
            Net::with_task(batch, e, |task| {
                let q = reference::softmax(z, task.temperature);
                let p = task
                    .teacher
                    .map_or(vec![0.0; z.len()], |v| reference::softmax(v, task.temperature));
                let hard = reference::softmax(z, 1.0);
                let soft_weight = if task.teacher.is_some() { task.soft_weight } else { 0.0 };
                (0..z.len())
                    .map(|c| {
                        // A logit's error is divided by T in the soft term.
                        let soft = soft_weight * (task.temperature + largest) * (q[c] + p[c]);
                        soft + task.hard_weight * largest * (hard[c] + 1.0)
                    })
                    .collect()
            })
        });
        // ReLU and dropout of the true net decide which units take part.
        let mut activations = self.activations(batch);
        activations.iter_mut().flatten().for_each(|x| *x = x.abs());
        let bounds = absolute.backward_with(&activations, batch.size, terms, |i| batch.scale(i));
        bounds.into_iter().map(|bound| bound * chain * UNIT).collect()
    }
}

/// A step's results in the engine.
pub struct Step {
    /// L.
    pub loss: f64,
    /// [C, B], row-major.
    pub d_logits: Vec<f32>,
    /// In the order of [`Mlp::params`].
    pub grads: Vec<f32>,
}

/// Takes `pixels` [B, D] as the inputs of `work`.
pub fn load(
    context: &Context,
    model: &Mlp,
    work: &mut Workspace,
    pixels: &[u8],
    dropout: Option<Dropout>,
) {
    let size = model.inputs();
    let image = |i: usize| &pixels[i * size..][..size];
    work.load(context, model, pixels.len() / size, |i, _| image(i), dropout);
}

/// Steps 1 to 4 of a minibatch's way through the engine.
pub fn engine_step(context: &Context, model: &Mlp, batch: &Minibatch) -> Step {
    let classes = model.classes();
    let mut work = Workspace::for_training(model, batch.size);
    load(context, model, &mut work, &batch.pixels, batch.dropout.first().copied().flatten());
    model.forward(context, &mut work, &batch.dropout);
    let mut teacher = Buffer::zeroed(panel_len(classes, batch.size));
    if let Some(logits) = &batch.teacher {
        PanelsMut::new(&mut teacher, classes, batch.size).copy_from_lane_major(logits);
    }
    let teacher = batch.teacher.as_ref().map(|_| Panels::new(&teacher, classes, batch.size));
    let labels = batch.labels.as_deref();
    let loss = loss::distillation(context, &batch.objective, model, teacher, labels, &mut work);
    let d_logits = work.loss_parts(model).2;
    let d_logits = (0..classes * batch.size)
        .map(|i| d_logits.as_ref().get(i % classes, i / classes))
        .collect();
    let mut grads = vec![f32::NAN; model.params().len()];
    model.backward(context, &mut work, &batch.dropout, &mut grads);
    let loss = batch.objective.value(loss, batch.size);
    Step { loss, d_logits, grads }
}

/// The logits [B, C], row-major, of a minibatch with its dropout.
pub fn engine_logits(context: &Context, model: &Mlp, batch: &Minibatch) -> Vec<f32> {
    let mut work = Workspace::for_evaluation(model, batch.size);
    load(context, model, &mut work, &batch.pixels, batch.dropout.first().copied().flatten());
    model.forward(context, &mut work, &batch.dropout);
    let mut logits = vec![0.0; batch.size * model.classes()];
    work.logits(model).to_lane_major(&mut logits);
    logits
}

/// All of a split as one minibatch in evaluation mode.
pub fn whole(split: &Split) -> Minibatch {
    Minibatch {
        size: split.len(),
        pixels: split.pixels.clone(),
        dropout: Vec::new(),
        teacher: None,
        labels: split.labels.clone(),
        objective: Objective::HARD,
    }
}

/// Random images of `height` × 4 pixels.
pub fn noise(seed: u64, examples: usize, height: usize, classes: u8) -> Split {
    let byte = |x: f64| ((x + 1.0) * 128.0) as u8;
    Split {
        pixels: uniform(seed, examples * height * 4).into_iter().map(byte).collect(),
        labels: Some((0..examples).map(|i| (i % usize::from(classes)) as u16).collect()),
        height,
        width: 4,
    }
}

/// Nobody watches.
pub struct Silent;

impl Observer for Silent {
    fn on_step(&mut self, _: &Progress) {}
    fn on_epoch(&mut self, _: &EpochRecord) -> Result<()> {
        Ok(())
    }
    fn warn(&mut self, message: &str) {
        panic!("{message}");
    }
}
