//! What the tests share: small nets, minibatches for the engine and for the f64 reference, and how
//! far the two may differ.

#![allow(dead_code, reason = "each test file uses its part")]

#[cfg(all(unix, feature = "cli"))]
pub mod finding;
#[cfg(feature = "cli")]
pub mod program;
#[path = "../../datasets/tests/common/mod.rs"]
pub mod required;

use limbeck::Result;
use limbeck::engine::config::Precision;
use limbeck::engine::loss::{self, LossSpec};
use limbeck::engine::mlp::{Mlp, Workspace};
use limbeck::engine::reference::{Batch, Net};
use limbeck::engine::trainer::{EpochRecord, Observer, Progress};
use limbeck_datasets::Split;
use limbeck_kernels::random::Dropout;
use limbeck_kernels::reference::{self, softmax};
use limbeck_kernels::{Buffer, Context, Isa, Panels, PanelsMut, panel_len};
use ndarray::Array2;
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
    pub objective: LossSpec,
}

impl Minibatch {
    /// The same for the f64 reference.
    pub fn exact(&self, model: &Mlp) -> Batch {
        let widths = Net::new(model).widths;
        let input = model.input;
        let inputs = widen(&reference::load(&self.pixels, input.scale, input.shift));
        let mask = |(i, dropout): (usize, &Option<Dropout>)| {
            let dropout = dropout.as_ref()?;
            let factor = |(example, feature)| match dropout.keeps(feature, example) {
                true => f64::from(dropout.scale()),
                false => 0.0,
            };
            Some(Array2::from_shape_fn((self.size, widths[i]), factor))
        };
        Batch {
            inputs: matrix(self.size, inputs),
            masks: self.dropout.iter().enumerate().map(mask).collect(),
            teacher: self.teacher.as_ref().map(|logits| matrix(self.size, widen(logits))),
            labels: self.labels.as_ref().map(|y| y.iter().map(|&y| y.into()).collect()),
            loss: self.objective,
        }
    }
}

/// `values` as a matrix of `rows` rows.
pub fn matrix(rows: usize, values: Vec<f64>) -> Array2<f64> {
    Array2::from_shape_vec((rows, values.len() / rows), values).unwrap()
}

/// The least |z| of a hidden unit before its ReLU: how far the kinks are. A unit without bias
/// whose inputs were all dropped has z = 0 in any precision and does not count.
pub fn distance_to_kink(net: &Net, batch: &Batch) -> f64 {
    let activations = net.forward(batch);
    let hidden = (0..net.layers() - 1).flat_map(|i| net.linear(i, &activations[i]));
    hidden.filter(|z| *z != 0.0).map(f64::abs).fold(f64::INFINITY, f64::min)
}

/// How far the engine's f32 gradients may be from those of the reference.
///
/// Each number of a step is a chain of at most n operations behind the pixels, with n below the sum
/// of all widths plus batch and 16 for the softmax: its error is at most n·2⁻²⁴ of the sum of the
/// *absolute* terms, which is what backpropagation with |W| and |x| gives for d_logits of
/// soft_weight·T·(q + p) + hard_weight·(q + 1). The logits' own error moves q by no more than q
/// times itself.
pub fn tolerance(net: &Net, batch: &Batch) -> Vec<f64> {
    let absolute = Net { params: net.params.iter().map(|w| w.abs()).collect(), ..net.clone() };
    let chain = (net.widths.iter().sum::<usize>() + batch.inputs.nrows() + 16) as f64;
    // ReLU and dropout of the true net decide which units take part.
    let activations: Vec<_> = net.forward(batch).into_iter().map(|x| x.mapv(f64::abs)).collect();
    let logits = net.logits(batch);
    let (examples, classes) = logits.dim();
    let size = |m: &Array2<f64>| m.iter().fold(1.0, |max: f64, z| max.max(z.abs()));
    let largest = size(&logits);
    let LossSpec { temperature, soft_weight, hard_weight } = batch.loss;
    let [temperature, soft_weight, hard_weight] =
        [temperature, soft_weight, hard_weight].map(f64::from);
    let mut terms = Array2::zeros((examples, classes));
    for (e, z) in logits.rows().into_iter().enumerate() {
        let mut add = |weight: f64, a: &[f64], b: &[f64]| {
            for c in 0..classes {
                terms[(e, c)] += weight * (a[c] + b[c]) / examples as f64;
            }
        };
        let z = z.to_vec();
        if let Some(v) = batch.teacher.as_ref().filter(|_| soft_weight > 0.0) {
            if temperature.is_infinite() {
                // Each logit and each mean of logits enters with a weight of 1/C.
                let share = vec![1.0 / classes as f64; classes];
                add(soft_weight * 2.0 * largest.max(size(v)), &share, &share);
            } else {
                let (q, p) = (softmax(&z, temperature), softmax(&v.row(e).to_vec(), temperature));
                // A logit's error is divided by T in the soft term.
                add(soft_weight * (temperature + largest), &q, &p);
            }
        }
        if batch.labels.is_some() && hard_weight > 0.0 {
            add(hard_weight * largest, &softmax(&z, 1.0), &vec![1.0; classes]);
        }
    }
    let bounds = absolute.backward(batch, &activations, terms);
    bounds.into_iter().map(|bound| bound * chain * UNIT).collect()
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
    let split = Split::of_images(pixels.to_vec(), (1, model.inputs()), None);
    let indices: Vec<u32> = (0..split.len() as u32).collect();
    work.load(context, model, &split.batch(&indices), dropout);
}

/// Steps 1 to 4 of a minibatch's way through the engine, in f32.
pub fn engine_step(context: &Context, model: &Mlp, batch: &Minibatch) -> Step {
    engine_step_in(Precision::F32, context, model, batch)
}

/// The same in another precision.
pub fn engine_step_in(
    precision: Precision,
    context: &Context,
    model: &Mlp,
    batch: &Minibatch,
) -> Step {
    let classes = model.classes();
    let mut work = Workspace::for_training(model, batch.size, precision);
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
    let mut work = Workspace::for_evaluation(model, batch.size, Precision::F32);
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
        pixels: split.images().pixels.clone(),
        dropout: Vec::new(),
        teacher: None,
        labels: split.labels.clone(),
        objective: LossSpec::HARD,
    }
}

/// Random images of `height` × 4 pixels.
pub fn noise(seed: u64, examples: usize, height: usize, classes: u8) -> Split {
    let byte = |x: f64| ((x + 1.0) * 128.0) as u8;
    let pixels = uniform(seed, examples * height * 4).into_iter().map(byte).collect();
    let labels = (0..examples).map(|i| (i % usize::from(classes)) as u16).collect();
    Split::of_images(pixels, (height, 4), Some(labels))
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
