//! The f64 reference, the f32 engine and the check against PyTorch and JAX: losses, gradients and
//! trained parameters that the scripts of tests/golden computed, in f64 and f32.
//!
//! Of a training with views the pixels are computed apart as well, and the teacher is asked in each step.
//!
//! f64 agrees to 10⁻¹² of the largest value. For f32, each of Limbeck, PyTorch and JAX must be as
//! near to the f64 reference as rounding allows, in whatever order they sum:
//! - gradients: [`common::tolerance`];
//! - logits: the same chain of operations, with the absolute values of weights and inputs;
//! - losses: what that does to the logits, times the gradient, and the rounding of their own sums;
//! - parameters after n steps: as far as the f64 reference itself is led astray when every gradient
//!   of every step is off by its whole tolerance, with random signs, and every parameter is rounded
//!   to f32.

mod common;

use common::{Minibatch, UNIT, best, engine_logits, engine_step, load, matrix, tolerance};
use limbeck::Error;
use limbeck::engine::config::{
    self, Config, DistillationConfig, OptimizerKind, ScheduleKind, TrainingConfig,
};
use limbeck::engine::loss::{self, LossSpec};
use limbeck::engine::mlp::{Mlp, Workspace};
use limbeck::engine::optimizer::Optimizer;
use limbeck::engine::reference::{Batch, Net};
use limbeck::engine::trainer::{self, Observer, Progress, Task as Training};
use limbeck::files::about::About;
use limbeck::files::model::{Layer, ModelFile};
use limbeck::tools::check::{CheckCase, Precision, Verdict, check};
use limbeck_datasets::{Batches, Split, View};
use limbeck_kernels::gemm::WeightStep;
use limbeck_kernels::softmax::{Distillation, Loss};
use limbeck_kernels::update::Rule;
use limbeck_kernels::{Buffer, Panels, PanelsMut, panel_len, reference};
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use safetensors::tensor::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::iter::repeat_n;

const FRAMEWORKS: [&str; 2] = ["pytorch", "jax"];
const BATCH: usize = 11;
const STEPS: [usize; 3] = [1, 10, 100];
const MANY: usize = 14_000;

/// A row of the table in tests/golden/task.py.
struct Task {
    name: &'static str,
    objective: LossSpec,
    learning_rate: f32,
    momentum: f32,
    nesterov: bool,
    weight_decay: f32,
    dropout: bool,
}

const fn objective(temperature: f32, soft_weight: f32, hard_weight: f32) -> LossSpec {
    LossSpec { temperature, soft_weight, hard_weight }
}

const SGD: Task = Task {
    name: "hard",
    objective: LossSpec::HARD,
    learning_rate: 1.0 / 16.0,
    momentum: 0.875,
    nesterov: false,
    weight_decay: 0.0,
    dropout: false,
};

const TASKS: [Task; 5] = [
    SGD,
    Task {
        name: "soft",
        objective: objective(20.0, 1.0, 0.0),
        learning_rate: 1.0 / 64.0,
        nesterov: true,
        ..SGD
    },
    Task {
        name: "mixed",
        objective: objective(4.0, 0.75, 0.25),
        learning_rate: 1.0 / 32.0,
        momentum: 0.75,
        weight_decay: 1.0 / 128.0,
        ..SGD
    },
    Task {
        name: "logits",
        objective: objective(f32::INFINITY, 1.0, 0.0),
        learning_rate: 1.0 / 32.0,
        momentum: 0.5,
        nesterov: true,
        ..SGD
    },
    // The engine draws its masks itself: for the reference alone.
    Task {
        name: "dropout",
        objective: objective(2.0, 0.5, 0.5),
        learning_rate: 1.0 / 32.0,
        weight_decay: 1.0 / 256.0,
        dropout: true,
        ..SGD
    },
];

impl Task {
    fn step(&self) -> WeightStep {
        let Task { learning_rate, momentum, weight_decay, .. } = *self;
        let rule = match self.nesterov {
            true => Rule::Nesterov { learning_rate, momentum },
            false => Rule::Sgd { learning_rate, momentum },
        };
        WeightStep { rule, weight_decay, max_norm: None }
    }

    /// The same for the engine.
    fn training(&self) -> TrainingConfig {
        TrainingConfig {
            schedule: ScheduleKind::Constant,
            learning_rate: self.learning_rate.into(),
            optimizer: if self.nesterov { OptimizerKind::Nesterov } else { OptimizerKind::Sgd },
            momentum: self.momentum.into(),
            weight_decay: self.weight_decay.into(),
            ..TrainingConfig::default()
        }
    }
}

/// A file of tests/golden.
struct Golden(HashMap<String, (Vec<usize>, Vec<f64>)>);

fn bytes_of(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    std::fs::read(format!("{folder}/{name}.safetensors")).unwrap()
}

impl Golden {
    fn load(framework: &str, precision: Precision) -> Golden {
        let bits = if precision == Precision::F32 { 32 } else { 64 };
        Golden::of(&bytes_of(&format!("{framework}-float{bits}")))
    }

    fn of(bytes: &[u8]) -> Golden {
        let tensors = SafeTensors::deserialize(bytes).unwrap();
        let read = |(name, tensor): (&str, safetensors::tensor::TensorView)| {
            let data = tensor.data();
            let values: Vec<f64> = match tensor.dtype() {
                Dtype::U8 => data.iter().map(|&b| b.into()).collect(),
                Dtype::I64 => {
                    data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect()
                }
                Dtype::F32 => {
                    data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect()
                }
                Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
                other => panic!("{name}: {other:?}"),
            };
            (name.to_string(), (tensor.shape().to_vec(), values))
        };
        Golden(tensors.iter().map(read).collect())
    }

    fn get(&self, task: &str, name: &str) -> &[f64] {
        let key = if task.is_empty() { name.into() } else { format!("{task}.{name}") };
        &self.0.get(&key).unwrap_or_else(|| panic!("no tensor {key}")).1
    }

    fn matrix(&self, task: &str, name: &str) -> Array2<f64> {
        matrix(BATCH, self.get(task, name).to_vec())
    }

    /// The engine's net, which takes pixels to pixel/256 − 1/2.
    fn model(&self) -> Mlp {
        self.net("", (1.0 / 256.0, -0.5))
    }

    /// The net whose layers' names begin with `prefix`, with this scale and shift of its pixels.
    fn net(&self, prefix: &str, (input_scale, input_shift): (f32, f32)) -> Mlp {
        let layer = |i: usize| {
            let (shape, weight) = self.0.get(&format!("{prefix}layers.{i}.weight"))?;
            let bias = self.get("", &format!("{prefix}layers.{i}.bias"));
            let narrow = |values: &[f64]| values.iter().map(|&x| x as f32).collect();
            let (weight, bias) = (narrow(weight), narrow(bias));
            Some(Layer { outputs: shape[0], inputs: shape[1], weight, bias })
        };
        let layers = (0..).map_while(layer).collect();
        Mlp::from_file(&ModelFile {
            layers,
            activation: limbeck_kernels::Activation::Relu,
            input_scale,
            input_shift,
            standardizer: None,
            about: About::default(),
        })
    }

    fn minibatch(&self, task: &Task) -> Minibatch {
        Minibatch {
            size: BATCH,
            pixels: self.get("", "pixels").iter().map(|&x| x as u8).collect(),
            dropout: Vec::new(),
            teacher: Some(self.get("", "teacher").iter().map(|&x| x as f32).collect()),
            labels: Some(self.get("", "labels").iter().map(|&x| x as u16).collect()),
            objective: task.objective,
        }
    }

    fn batch(&self, task: &Task, model: &Mlp) -> Batch {
        let mask = |i| Some(self.matrix("", &format!("mask.{i}")));
        let masks = (0..model.layers().len()).filter(|_| task.dropout).map(mask).collect();
        Batch { masks, ..self.minibatch(task).exact(model) }
    }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m: f64, x| m.max(x.abs()))
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    largest(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
}

/// The reference's parameters after each step.
fn train<'b>(
    mut net: Net,
    batches: impl Iterator<Item = &'b Batch>,
    step: WeightStep,
) -> Vec<Vec<f64>> {
    let mut moments = vec![(0.0, 0.0); net.params.len()];
    let after = batches.map(|batch| {
        let grads = net.gradient(batch);
        net.step(step, &grads, &mut moments);
        net.params.clone()
    });
    after.collect()
}

/// How far the parameters may be from the reference's after each step: what becomes of it when every
/// gradient is off by its whole tolerance, with random signs, and every parameter is rounded.
fn astray<'b>(
    net: &Net,
    batches: impl Iterator<Item = &'b Batch> + Clone,
    step: WeightStep,
    tolerance: impl Fn(&Net, &Batch) -> Vec<f64>,
) -> Vec<f64> {
    let exact = train(net.clone(), batches.clone(), step);
    let mut allowed = vec![0.0f64; exact.len()];
    for seed in 0..8 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut net = net.clone();
        let mut moments = vec![(0.0, 0.0); net.params.len()];
        for ((batch, exact), allowed) in batches.clone().zip(&exact).zip(&mut allowed) {
            let mut grads = net.gradient(batch);
            for (g, off) in grads.iter_mut().zip(tolerance(&net, batch)) {
                *g += if rng.next_u32() % 2 == 0 { off } else { -off };
            }
            net.step(step, &grads, &mut moments);
            net.params.iter_mut().for_each(|w| *w = f64::from(*w as f32));
            *allowed = allowed.max(distance(&net.params, exact));
        }
    }
    allowed
}

#[test]
fn the_f64_reference_agrees_to_the_last_digits() {
    for framework in FRAMEWORKS {
        let golden = Golden::load(framework, Precision::F64);
        let model = golden.model();
        let net = Net::new(&model);
        for task in TASKS {
            let batch = golden.batch(&task, &model);
            let logits = net.logits(&batch);
            let same = |what: &str, found: &[f64]| {
                let expected = golden.get(task.name, what);
                let (off, size) = (distance(found, expected), largest(expected));
                assert!(off <= 1e-12 * size, "{framework} {} {what}: {off} of {size}", task.name);
            };
            same("logits", logits.as_slice().unwrap());
            same("loss", &[batch.loss(&logits)]);
            same("reducible_loss", &[batch.reducible_loss(&logits)]);
            same("d_logits", batch.d_logits(&logits).as_slice().unwrap());
            same("grads", &net.gradient(&batch));
            let after = train(net.clone(), repeat_n(&batch, STEPS[2]), task.step());
            for count in STEPS {
                let params = &after[count - 1];
                same(&format!("params.{count}"), params);
                assert!(distance(params, &net.params) > 1e-3, "nothing was learnt");
            }
        }
    }
}

/// How far each result of an f32 computation may be from the reference's.
struct Bounds {
    logits: Vec<f64>,
    loss: f64,
    grads: Vec<f64>,
    params: Vec<f64>,
}

/// The sum of the absolute terms of each logit.
fn absolute_sums(net: &Net, batch: &Batch) -> Array2<f64> {
    let absolute = Net { params: net.params.iter().map(|w| w.abs()).collect(), ..net.clone() };
    absolute.logits(&Batch { inputs: batch.inputs.mapv(f64::abs), ..batch.clone() })
}

/// How far logits and loss may be from the reference's.
fn forward_bounds(net: &Net, batch: &Batch) -> (Vec<f64>, f64) {
    let chain = (net.widths.iter().sum::<usize>() + BATCH + 16) as f64;
    let logits: Vec<f64> = absolute_sums(net, batch).iter().map(|sum| chain * UNIT * sum).collect();
    let z = net.logits(batch);
    let moved: f64 = batch.d_logits(&z).iter().zip(&logits).map(|(d, off)| d.abs() * off).sum();
    (logits, moved + chain * UNIT * batch.loss(&z))
}

fn bounds(net: &Net, batch: &Batch, step: WeightStep) -> Bounds {
    let (logits, loss) = forward_bounds(net, batch);
    let after = astray(net, repeat_n(batch, STEPS[2]), step, tolerance);
    let params = STEPS.map(|count| after[count - 1]).into();
    Bounds { logits, loss, grads: tolerance(net, batch), params }
}

/// The engine's parameters after each number of steps.
fn engine_train(model: &Mlp, task: &Task, batch: &Minibatch) -> Vec<Vec<f64>> {
    let training = task.training();
    let (context, classes) = (best(2), model.classes());
    let mut model = model.clone();
    let mut optimizer = Optimizer::new(&training, &model);
    let mut work = Workspace::for_training(&model, BATCH, config::Precision::F32);
    let mut teacher = Buffer::zeroed(panel_len(classes, BATCH));
    PanelsMut::new(&mut teacher, classes, BATCH)
        .copy_from_lane_major(batch.teacher.as_ref().unwrap());
    let mut after = Vec::new();
    for count in 1..=STEPS[2] {
        load(&context, &model, &mut work, &batch.pixels, None);
        model.forward(&context, &mut work, &[]);
        let teacher = Some(Panels::new(&teacher, classes, BATCH));
        let labels = batch.labels.as_deref();
        loss::distillation(&context, &batch.objective, &model, teacher, labels, &mut work);
        optimizer.backward_step(&context, 0.0, &mut model, &mut work, &[]).unwrap();
        if STEPS.contains(&count) {
            after.push(Net::new(&model).params);
        }
    }
    after
}

#[test]
fn f32_is_as_near_as_rounding_allows() {
    let near = |what: &str, found: &[f64], exact: &[f64], allowed: &dyn Fn(usize) -> f64| {
        for (i, (found, exact)) in found.iter().zip(exact).enumerate() {
            let off = (found - exact).abs();
            assert!(off <= allowed(i), "{what}[{i}]: {found}, expected {exact} ± {}", allowed(i));
        }
    };
    let goldens = FRAMEWORKS.map(|framework| (framework, Golden::load(framework, Precision::F32)));
    let model = goldens[0].1.model();
    let net = Net::new(&model);
    for task in TASKS.into_iter().filter(|task| !task.dropout) {
        let minibatch = goldens[0].1.minibatch(&task);
        let batch = goldens[0].1.batch(&task, &model);
        let bounds = bounds(&net, &batch, task.step());
        let logits = net.logits(&batch);
        let (loss, gradient) = (batch.loss(&logits), net.gradient(&batch));
        let after = train(net.clone(), repeat_n(&batch, STEPS[2]), task.step());
        let exact = STEPS.map(|count| after[count - 1].clone());
        // The bounds are no blank cheques.
        assert!(largest(&bounds.grads) < 1e-3 * largest(&gradient), "{}", task.name);
        assert!(largest(&bounds.logits) < 1e-4 * largest(logits.as_slice().unwrap()));
        for (allowed, params) in bounds.params.iter().zip(&exact) {
            let way = distance(params, &net.params);
            assert!(*allowed < 1e-2 * way, "{}: {allowed} on a way of {way}", task.name);
        }
        let judge = |who: &str, found: [&[f64]; 3], params: &[Vec<f64>]| {
            let what = |what: &str| format!("{who}, {}, {what}", task.name);
            let [found_logits, found_loss, grads] = found;
            near(&what("logits"), found_logits, logits.as_slice().unwrap(), &|i| bounds.logits[i]);
            near(&what("loss"), found_loss, &[loss], &|_| bounds.loss);
            near(&what("gradient"), grads, &gradient, &|i| bounds.grads[i]);
            for (at, params) in params.iter().enumerate() {
                let what = what(&format!("parameters after {}", STEPS[at]));
                near(&what, params, &exact[at], &|_| bounds.params[at]);
            }
        };
        for (framework, golden) in &goldens {
            let found = ["logits", "loss", "grads"].map(|what| golden.get(task.name, what));
            let params = STEPS.map(|n| golden.get(task.name, &format!("params.{n}")).to_vec());
            judge(framework, found, &params);
        }
        let step = engine_step(&best(2), &model, &minibatch);
        let found = common::widen(&engine_logits(&best(2), &model, &minibatch));
        let grads = Net::flatten(&model, &step.grads);
        judge("limbeck", [&found, &[step.loss], &grads], &engine_train(&model, &task, &minibatch));
    }
}

/// The logits of tests/golden/task.py and their labels.
fn many() -> (Array2<f64>, Vec<usize>) {
    let formula =
        |(e, c)| ((e * 7919 + c * 104_729 + e * c % 97 * 31) % 8192) as f64 / 1024.0 - 4.0;
    (Array2::from_shape_fn((5, MANY), formula), (0..5).map(|e| e * 2791 + 13).collect())
}

/// Every 101st gradient of each example and that of the label.
fn sample(d_logits: &Array2<f64>, labels: &[usize]) -> (Vec<f64>, Vec<f64>) {
    let strided = d_logits.rows().into_iter().flat_map(|row| row.to_vec().into_iter().step_by(101));
    (strided.collect(), labels.iter().enumerate().map(|(e, &y)| d_logits[(e, y)]).collect())
}

#[test]
fn the_cross_entropy_of_14000_classes_agrees() {
    let (logits, labels) = many();
    let batch = Batch {
        inputs: Array2::zeros((5, 0)),
        masks: Vec::new(),
        teacher: None,
        labels: Some(labels.clone()),
        loss: LossSpec::HARD,
    };
    let (loss, (d_logits, d_label)) =
        (batch.loss(&logits), sample(&batch.d_logits(&logits), &labels));
    let near = |what: &str, found: &[f64], exact: &[f64], relative: f64| {
        assert_eq!(found.len(), exact.len());
        for (found, exact) in found.iter().zip(exact) {
            let off = (found - exact).abs();
            assert!(off <= relative * exact.abs(), "{what}: {found}, expected {exact}");
        }
    };
    // In f32: C roundings of the sum, and 8·3 of an exponent of at most 8, then as many as 16.
    let f32_relative = (MANY + 8 * 3 + 16) as f64 * UNIT;
    for framework in FRAMEWORKS {
        for (precision, relative) in [(Precision::F64, 1e-12), (Precision::F32, f32_relative)] {
            let golden = Golden::load(framework, precision);
            near(framework, golden.get("many", "loss"), &[loss], relative);
            near(framework, golden.get("many", "d_logits"), &d_logits, relative);
            near(framework, golden.get("many", "d_label"), &d_label, relative);
        }
    }

    let narrow: Vec<f32> = logits.iter().map(|&z| z as f32).collect();
    let (mut z, mut d) = (Buffer::zeroed(panel_len(MANY, 5)), Buffer::zeroed(panel_len(MANY, 5)));
    PanelsMut::new(&mut z, MANY, 5).copy_from_lane_major(&narrow);
    let labels16: Vec<u16> = labels.iter().map(|&y| y as u16).collect();
    let task = Distillation {
        teacher: None,
        labels: Some(&labels16),
        temperature: 1.0,
        soft_weight: 0.0,
        hard_weight: 1.0,
    };
    let mut losses = [Loss::default()];
    let out = PanelsMut::new(&mut d, MANY, 5);
    task.gradient(&best(1), Panels::new(&z, MANY, 5), &mut losses, out);
    let d = Panels::new(&d, MANY, 5);
    let d = Array2::from_shape_fn((5, MANY), |(e, c)| f64::from(d.get(c, e)));
    let (found, found_label) = sample(&d, &labels);
    near("limbeck", &[losses[0].hard / 5.0], &[loss], f32_relative);
    near("limbeck", &found, &d_logits, f32_relative);
    near("limbeck", &found_label, &d_label, f32_relative);
    // The oracle of this test is not the framework that it judges: Σ d = 0 for each example.
    for row in batch.d_logits(&logits).rows() {
        assert!(row.sum().abs() < 1e-15, "{}", row.sum());
    }
    assert!(reference::softmax(&[0.0, 0.0], 1.0) == [0.5, 0.5]);
}

/// What tests/golden/views.py computed: images, nets, and the pixels of the views, from the formulas of
/// datasets/src/views.rs.
struct Views {
    golden: Golden,
    /// The views of each tensor of pixels, `trained` those of the training.
    lists: HashMap<String, Vec<View>>,
    images: Split,
    student: Mlp,
    /// It takes pixels to pixel/128 − 1, unlike the student.
    teacher: Mlp,
}

/// As in views.py.
const VIEWED: Task = Task {
    name: "views",
    objective: objective(4.0, 0.75, 0.25),
    learning_rate: 1.0 / 32.0,
    momentum: 0.75,
    nesterov: true,
    weight_decay: 1.0 / 128.0,
    dropout: false,
};
const VIEWED_SEED: u64 = 11;
const VIEWED_EPOCHS: usize = 4;
const VIEWED_BATCH: usize = 8;

impl Views {
    fn load() -> Views {
        let bytes = bytes_of("views");
        let golden = Golden::of(&bytes);
        let texts = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap();
        let list = |text: &String| text.split(", ").map(|view| view.parse().unwrap()).collect();
        let bytes = |name| golden.get("", name).iter().map(|&x| x as u8).collect();
        let labels = golden.get("", "labels").iter().map(|&y| y as u16).collect();
        Views {
            lists: texts.iter().map(|(name, text)| (name.clone(), list(text))).collect(),
            images: Split::of_images(bytes("images"), (6, 5), Some(labels)),
            student: golden.net("student.", (1.0 / 256.0, -0.5)),
            teacher: golden.net("teacher.", (1.0 / 128.0, -1.0)),
            golden,
        }
    }

    /// The pixels and labels of each step of the training, those of views.py.
    fn seen(&self) -> Vec<Minibatch> {
        let (n, size) = (self.images.len(), self.images.input_size());
        let (pixels, order) = (self.golden.get("pixels", "trained"), self.golden.get("", "order"));
        let labels = self.images.labels.as_ref().unwrap();
        let epochs = pixels.chunks(n * size).zip(order.chunks(n));
        let steps = epochs.flat_map(|(pixels, order)| {
            pixels.chunks(VIEWED_BATCH * size).zip(order.chunks(VIEWED_BATCH))
        });
        let minibatch = |(pixels, order): (&[f64], &[f64])| Minibatch {
            size: order.len(),
            pixels: pixels.iter().map(|&x| x as u8).collect(),
            dropout: Vec::new(),
            teacher: None,
            labels: Some(order.iter().map(|&example| labels[example as usize]).collect()),
            objective: VIEWED.objective,
        };
        steps.map(minibatch).collect()
    }

    /// The same in f64, with what the teacher says of these pixels.
    fn batches(&self) -> Vec<Batch> {
        let teacher = Net::new(&self.teacher);
        let asked = |seen: Minibatch| {
            let answer = teacher.logits(&seen.exact(&self.teacher));
            Batch { teacher: Some(answer), ..seen.exact(&self.student) }
        };
        self.seen().into_iter().map(asked).collect()
    }

    /// The largest sum of the absolute terms of a logit of the teacher.
    fn largest_sum(&self) -> f64 {
        let teacher = Net::new(&self.teacher);
        let sums = self.seen().into_iter().map(|seen| {
            largest(absolute_sums(&teacher, &seen.exact(&self.teacher)).as_slice().unwrap())
        });
        sums.fold(0.0, f64::max)
    }

    fn config(&self) -> Config {
        let mut config = Config { seed: VIEWED_SEED, ..Config::default() };
        config.model.layers = self.student.widths();
        config.training =
            TrainingConfig { epochs: VIEWED_EPOCHS, batch_size: VIEWED_BATCH, ..VIEWED.training() };
        let views = self.lists["trained"].clone();
        config.distillation = Some(DistillationConfig { views, ..DistillationConfig::default() });
        config
    }
}

#[test]
fn every_view_has_the_pixels_of_its_formula() {
    let views = Views::load();
    let Views { golden, lists, images, .. } = &views;
    assert_eq!(lists.len(), 9);
    for (name, list) in lists {
        let pixels = golden.get("pixels", name);
        let is_plain = list[..] == [View::default()];
        assert_eq!(pixels == golden.get("pixels", "0"), is_plain, "{list:?}");
        let mut batches = Batches::new(images, VIEWED_BATCH, VIEWED_SEED, None).with_views(list);
        let mut space = vec![0; images.input_size()];
        let (mut seen, mut order) = (Vec::new(), Vec::new());
        for epoch in 0..VIEWED_EPOCHS {
            batches.start_epoch(epoch as u64, 0);
            while let Some(batch) = batches.next() {
                order.extend(batch.indices.iter().map(|&example| f64::from(example)));
                for i in 0..batch.len() {
                    seen.extend(batch.image(i, &mut space).iter().map(|&x| f64::from(x)));
                }
            }
        }
        assert!(seen == pixels, "{list:?}");
        assert_eq!(order, golden.get("", "order"));
    }
}

/// The nets before each of these steps, from `net` to the parameters `after` the last but one.
fn before(net: &Net, after: &[Vec<f64>]) -> Vec<Net> {
    let params = std::iter::once(&net.params).chain(&after[..after.len() - 1]);
    params.map(|params| Net { params: params.clone(), ..net.clone() }).collect()
}

#[test]
fn the_f64_reference_of_a_training_with_views_agrees_to_the_last_digits() {
    let views = Views::load();
    let batches = views.batches();
    let net = Net::new(&views.student);
    let after = train(net.clone(), batches.iter(), VIEWED.step());
    assert!(distance(after.last().unwrap(), &net.params) > 1e-2, "nothing was learnt");
    let nets = before(&net, &after);
    let losses: Vec<f64> = nets.iter().zip(&batches).map(|(net, b)| net.loss(b)).collect();
    for framework in FRAMEWORKS {
        let golden = Golden::load(framework, Precision::F64);
        for (what, found) in [("loss", &losses), ("params", &after.concat())] {
            let expected = golden.get("views", what);
            let (off, size) = (distance(found, expected), largest(expected));
            assert!(off <= 1e-12 * size, "{framework} {what}: {off} of {size}");
        }
    }
}

/// Ends a training after so many steps and keeps its model, and the loss of the epoch so far after each.
struct Until {
    steps: usize,
    losses: Vec<f64>,
    model: Option<Mlp>,
}

impl Observer for Until {
    fn on_step(&mut self, progress: &Progress) {
        self.losses.push(progress.loss);
    }
    // Asked before the step is told.
    fn stop(&self) -> bool {
        self.losses.len() + 1 == self.steps
    }
    fn on_stop(&mut self, model: Mlp) {
        self.model = Some(model);
    }
    fn warn(&mut self, message: &str) {
        panic!("{message}");
    }
}

/// Step by step, the teacher asked in each.
#[test]
fn a_training_with_views_is_as_near_in_f32_as_rounding_allows() {
    let views = Views::load();
    let batches = views.batches();
    let (net, step) = (Net::new(&views.student), VIEWED.step());
    let after = train(net.clone(), batches.iter(), step);
    // The teacher's logits are off as the student's are: by as many roundings, of a sum of absolute
    // terms S. That moves p by 2·S/T times as much, where the tolerance has p itself.
    let more = 1.0 + 2.0 * views.largest_sum() / f64::from(VIEWED.objective.temperature);
    let tolerance = |net: &Net, batch: &Batch| -> Vec<f64> {
        tolerance(net, batch).into_iter().map(|off| more * off).collect()
    };
    let allowed = astray(&net, batches.iter(), step, tolerance);
    for (allowed, params) in allowed.iter().zip(&after) {
        let way = distance(params, &net.params);
        assert!(*allowed < 1e-2 * way, "{allowed} on a way of {way}");
    }
    let near = |who: &str, step: usize, found: &[f64]| {
        let off = distance(found, &after[step]);
        assert!(off <= allowed[step], "{who}, step {step}: {off} of {}", allowed[step]);
    };
    for framework in FRAMEWORKS {
        let golden = Golden::load(framework, Precision::F32);
        let params = golden.get("views", "params").chunks(net.params.len());
        assert_eq!(params.len(), after.len());
        params.enumerate().for_each(|(step, params)| near(framework, step, params));
    }

    // The engine tells the mean over the epoch so far, without the entropy of the soft targets, whose
    // error is no larger than that of the cross-entropy.
    let (mut losses, mut sums) = (Vec::new(), [0.0; 3]);
    for (i, (net, batch)) in before(&net, &after).iter().zip(&batches).enumerate() {
        let astray = if i == 0 { 0.0 } else { allowed[i - 1] };
        let moved: f64 = net.gradient(batch).iter().map(|g| 2.0 * g.abs() * astray).sum();
        let off = 2.0 * more * forward_bounds(net, batch).1 + moved;
        let examples = batch.inputs.nrows() as f64;
        let of_step = [batch.reducible_loss(&net.logits(batch)), off, 1.0].map(|x| examples * x);
        // An epoch begins.
        sums = if i % 3 == 0 { [0.0; 3] } else { sums };
        sums = std::array::from_fn(|k| sums[k] + of_step[k]);
        losses.push((sums[0] / sums[2], sums[1] / sums[2]));
    }

    let config = views.config();
    let training = Training {
        objective: VIEWED.objective,
        teachers: std::slice::from_ref(&views.teacher),
        initial: Some(&views.student),
        ..Training::hard("student", &config, &views.images)
    };
    for steps in 1..=after.len() {
        let mut until = Until { steps, losses: Vec::new(), model: None };
        let ended = trainer::train(&best(2), &training, None, &mut until);
        assert!(matches!(ended, Err(Error::Interrupted { .. })));
        near("limbeck", steps - 1, &Net::new(&until.model.unwrap()).params);
        assert_eq!(until.losses.len(), steps);
        for (found, (exact, off)) in until.losses.iter().zip(&losses) {
            assert!(*off < 2e-2 * exact, "{off} of {exact}");
            assert!((found - exact).abs() <= *off, "{found}, expected {exact} ± {off}");
        }
    }
}

fn case(
    golden: &Golden,
    task: &Task,
    results: &str,
    loss: &str,
    precision: Precision,
) -> CheckCase {
    CheckCase {
        student_logits: golden.matrix(task.name, "logits"),
        teacher_logits: Some(golden.matrix("", "teacher")),
        labels: Some(golden.get("", "labels").iter().map(|&y| y as i64).collect()),
        temperature: task.objective.temperature.into(),
        soft_weight: task.objective.soft_weight.into(),
        hard_weight: task.objective.hard_weight.into(),
        loss: Some(golden.get(results, loss)[0]),
        d_logits: Some(golden.matrix(results, "d_logits")),
        precision,
        ..CheckCase::default()
    }
}

#[test]
fn the_frameworks_losses_pass_the_check() {
    for framework in FRAMEWORKS {
        for precision in [Precision::F32, Precision::F64] {
            let golden = Golden::load(framework, precision);
            for task in &TASKS {
                for loss in ["loss", "reducible_loss"] {
                    let report = check(&case(&golden, task, task.name, loss, precision)).unwrap();
                    let who = format!("{framework} {precision} {}", task.name);
                    assert_eq!(report.verdict, Verdict::Agrees, "{who}: {report:?}");
                    let unit = if precision == Precision::F32 { 1e-4 } else { 1e-12 };
                    assert!(report.max_relative_error < unit, "{who}: {report:?}");
                }
            }
        }
    }
}

/// `F.kl_div(log_q, p, reduction='mean')`, computed by PyTorch.
#[test]
fn pytorchs_mean_is_named() {
    let soft = &TASKS[1];
    for precision in [Precision::F32, Precision::F64] {
        let golden = Golden::load("pytorch", precision);
        let report = check(&case(&golden, soft, "kl_mean", "loss", precision)).unwrap();
        assert_eq!(report.variant, Some("kl_mean"), "{report:?}");
        assert!(report.message.contains("batchmean"), "{report:?}");
    }
}
