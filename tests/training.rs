//! Whole training runs: step by step against the oracles, the same bits on any threads and ISA
//! and after any interruption, constraints, divergence and schedules.

mod common;
use common::required::is_required;
use common::{
    Minibatch, Silent, UNIT, best, distance_to_kink, load, noise, tolerance, uniform, widen,
};
use limbeck::engine::activation::Activation;
use limbeck::engine::config::{
    Config, OptimizerKind, Precision, ScheduleKind, Standardize, TrainingConfig,
};
use limbeck::engine::distill;
use limbeck::engine::loss::{self, LossSpec};
use limbeck::engine::metrics;
use limbeck::engine::mlp::{InputScale, Mlp, Workspace};
use limbeck::engine::optimizer::Optimizer;
use limbeck::engine::optimizer::hinton2012::momentum;
use limbeck::engine::optimizer::schedule::learning_rate;
use limbeck::engine::reference::Net;
use limbeck::engine::trainer::{self, EpochRecord, Observer, Progress, Task};
use limbeck::files::checkpoint::{self, TrainingState};
use limbeck::files::model::Standardizer;
use limbeck::{Error, Result};
use limbeck_datasets::{Batches, Features, Inputs, Split, glyphs};
use limbeck_kernels::gemm::WeightStep;
use limbeck_kernels::random::{Dropout, Key};
use limbeck_kernels::update::Rule;
use limbeck_kernels::{Context, Isa, Pool, reference};
use std::fs;
use std::path::Path;

const CLASSES: u8 = 3;
const MIXED: LossSpec = LossSpec { temperature: 4.0, soft_weight: 1.0, hard_weight: 0.3 };

/// 20 images of 2×4 pixels make steps of 8, 8 and 4 examples, with everything switched on.
fn config(optimizer: OptimizerKind) -> Config {
    let mut config = Config { seed: 11, ..Config::default() };
    config.data.jitter = Some(1);
    config.model.layers = vec![8, 6, 5, CLASSES.into()];
    config.model.dropout = Some(vec![0.2, 0.5, 0.5]);
    config.training = TrainingConfig {
        epochs: 1,
        batch_size: 8,
        learning_rate: 0.1,
        schedule: ScheduleKind::Linear,
        optimizer,
        max_norm: Some(1.0),
        weight_decay: 0.01,
        average: 0.5,
        epsilon: 0.05,
        momentum_epochs: 2,
        ..TrainingConfig::default()
    };
    config
}

/// Logits for each of the 25 shifts of 2 pixels; fewer shifts take the first.
fn teacher(examples: usize, classes: u8) -> Vec<f32> {
    uniform(3, 25 * examples * usize::from(classes)).iter().map(|v| 4.0 * *v as f32).collect()
}

/// Those of the shifts that the configuration draws from.
fn seen<'t>(config: &Config, split: &Split, teacher: &'t [f32]) -> &'t [f32] {
    let shifts = config.data.jitter.map_or(1, |pixels| (2 * pixels + 1).pow(2));
    &teacher[..shifts * split.len() * config.model.layers.last().unwrap()]
}

fn run(context: &Context, config: &Config, split: &Split, teacher: &[f32]) -> Mlp {
    let task = Task {
        name: "net",
        config,
        split,
        objective: MIXED,
        teacher_logits: Some(seen(config, split, teacher)),
        teachers: &[],
        initial: None,
        watch: &[],
    };
    trainer::train(context, &task, None, &mut Silent).unwrap().model
}

/// The averaged weights after an epoch of three steps of `rule(step)`, in f64, and how far f32
/// may be from them: 8·Σ η·(error of the gradients), where 8 covers momentum's 1 + m + m² < 3,
/// the mixing of a unit's weights by max-norm and the gradients' change with the weights, and
/// `gain` is what the rule makes of an error; then 3 steps of at most 8 roundings.
fn three_steps(
    config: &Config,
    split: &Split,
    teacher: &[f32],
    gain: f64,
    rule: impl Fn(usize) -> (f32, Rule),
) -> (Vec<f64>, f64) {
    let model = Mlp::new(&config.model.layers, config.seed);
    let mut net = Net::new(&model);
    let mut average = net.params.clone();
    let mut moments = vec![(0.0, 0.0); average.len()];
    let mut batches = Batches::new(split, 8, config.seed, Some(1));
    let mut allowed = 24.0 * UNIT;
    for step in 0..3 {
        let drawn = batches.next().unwrap();
        let size = drawn.indices.len();
        let mut space = vec![0; split.input_size()];
        let rows = drawn.indices.iter().enumerate();
        let row = |(i, &example)| drawn.shift(i) * split.len() + example as usize;
        let rows = rows.map(row).flat_map(|row: usize| &teacher[row * 3..][..3]);
        let dropout = config.model.dropout.iter().flatten().enumerate().map(|(i, &rate)| {
            Some(Dropout::new(Key::new(config.seed, i as u64, step as u64), rate as f32, size))
        });
        let batch = Minibatch {
            size,
            pixels: (0..size).flat_map(|i| drawn.image(i, &mut space).to_vec()).collect(),
            dropout: dropout.collect(),
            teacher: Some(rows.copied().collect()),
            labels: drawn.labels.map(<[u16]>::to_vec),
            objective: MIXED,
        };
        let batch = batch.exact(&model);
        assert!(distance_to_kink(&net, &batch) > 1e-5, "too near to a kink for f32");
        let (grads, tolerance) = (net.gradient(&batch), tolerance(&net, &batch));
        let (learning_rate, rule) = rule(step);
        allowed +=
            8.0 * gain * f64::from(learning_rate) * tolerance.into_iter().fold(0.0, f64::max);
        let weight_decay = config.training.weight_decay as f32;
        net.step(WeightStep { rule, weight_decay, max_norm: Some(1.0) }, &grads, &mut moments);
        let weight = (1.0 - config.training.average).max(1.0 / (step + 1) as f64);
        reference::average(&net.params, weight, &mut average);
    }
    assert!(batches.next().is_none());
    (average, allowed)
}

#[test]
fn pixels_are_brought_to_mean_0_by_the_training_images() {
    let split = noise(1, 20, 2, CLASSES);
    let mut config = config(OptimizerKind::Sgd);
    config.data.standardize = Some(Standardize::Mean);
    let task = Task::hard("net", &config, &split);
    let input = task.initial_model().input;
    let pixels = &split.images().pixels;
    let x = pixels.iter().map(|&p| f64::from(f32::from(p) * input.scale + input.shift));
    let mean = x.sum::<f64>() / pixels.len() as f64;
    assert!(input.shift < -0.1 && mean.abs() < 1e-7, "{input:?} {mean}");
    // Variance 1 is for features: of images it would be passed over.
    config.data.standardize = Some(Standardize::On);
    let refused = Task::hard("net", &config, &split).check().unwrap_err().to_string();
    assert!(refused.contains("data.standardize") && refused.contains("\"mean\""), "{refused}");
}

#[test]
fn three_steps_of_every_optimizer_are_those_in_f64() {
    let split = noise(1, 20, 2, CLASSES);
    let teacher = teacher(20, CLASSES);
    let rate = |step: usize| (0.1 * (1.0 - step as f64 / 3.0)) as f32;
    let check = |config: &Config, gain, rule: &dyn Fn(usize) -> (f32, Rule)| {
        let (expected, allowed) = three_steps(config, &split, &teacher, gain, rule);
        let model = run(&best(1), config, &split, &teacher);
        let found = Net::new(&model).params;
        let start = Net::new(&Mlp::new(&config.model.layers, config.seed)).params;
        let distance =
            |a: &[f64]| a.iter().zip(&expected).fold(0.0, |m: f64, (a, e)| m.max((a - e).abs()));
        let (off, way) = (distance(&found), distance(&start));
        assert!(off < allowed, "{off} {allowed} {:?}", config.training.optimizer);
        assert!(allowed < way / 100.0, "a bound of {allowed} on a way of {way}");
    };
    let momentum = 0.9f32;
    check(&config(OptimizerKind::Sgd), 1.0, &|step| {
        (rate(step), Rule::Sgd { learning_rate: rate(step), momentum })
    });
    check(&config(OptimizerKind::Nesterov), 2.0, &|step| {
        (rate(step), Rule::Nesterov { learning_rate: rate(step), momentum })
    });
    // ∂(v̂/(√û + ε))/∂g is at most 2/ε.
    check(&config(OptimizerKind::Adam), 2.0 / 0.05, &|step| {
        let corrections = [0.9, 0.999].map(|beta: f64| (1.0 - beta.powi(step as i32 + 1)) as f32);
        let rule = Rule::Adam {
            learning_rate: rate(step),
            beta1: momentum,
            beta2: 0.999,
            epsilon: 0.05,
            corrections,
        };
        (rate(step), rule)
    });
    check(&config(OptimizerKind::AdamW), 2.0 / 0.05, &|step| {
        let corrections = [0.9, 0.999].map(|beta: f64| (1.0 - beta.powi(step as i32 + 1)) as f32);
        let rule = Rule::AdamW {
            learning_rate: rate(step),
            beta1: momentum,
            beta2: 0.999,
            epsilon: 0.05,
            corrections,
        };
        (rate(step), rule)
    });
    let mut hinton = config(OptimizerKind::Hinton2012);
    hinton.training.schedule = ScheduleKind::Exponential;
    hinton.training.learning_rate = 0.5;
    check(&hinton, 1.0, &|step| {
        let momentum = (0.5 + 0.49 * step as f64 / 3.0 / 2.0) as f32;
        (0.5, Rule::Hinton2012 { learning_rate: 0.5, momentum })
    });
}

/// Optimisers with the activation of the net that they are tried on.
const METHODS: [(OptimizerKind, Activation); 4] = [
    (OptimizerKind::Sgd, Activation::Relu),
    (OptimizerKind::Nesterov, Activation::Tanh),
    (OptimizerKind::Adam, Activation::Relu),
    (OptimizerKind::AdamW, Activation::Tanh),
];

/// [`Optimizer::backward_step`] updates weights where their gradient arises; it must not show.
#[test]
fn the_fused_step_has_the_bits_of_the_plain_one() {
    let split = noise(1, 40, 5, CLASSES);
    let labels = split.labels.as_deref();
    for (optimizer, activation) in METHODS {
        let mut config = config(optimizer);
        config.model.layers = vec![20, 37, 5, CLASSES.into()];
        for isa in isas(Precision::Bf16) {
            let context = Context::new(isa, 2).unwrap();
            let train = |fused: bool, precision: Precision| {
                let widths = &config.model.layers;
                let mut model = Mlp::with_activation(widths, activation, config.seed);
                let mut optimizer = Optimizer::new(&config.training, &model);
                let mut work = Workspace::for_training(&model, 40, precision);
                for step in 0..3 {
                    let drop = |i| Some(Dropout::new(Key::new(1, i, step), 0.5, 40));
                    let dropout = [0, 1, 2].map(drop);
                    load(&context, &model, &mut work, &split.images().pixels, dropout[0]);
                    model.forward(&context, &mut work, &dropout);
                    let hard = LossSpec::HARD;
                    loss::distillation(&context, &hard, &model, None, labels, &mut work);
                    let (epochs, model) = (step as f64 / 3.0, &mut model);
                    if fused {
                        optimizer.backward_step(&context, epochs, model, &mut work, &dropout)
                    } else {
                        let mut grads = vec![f32::NAN; model.params().len()];
                        model.backward(&context, &mut work, &dropout, &mut grads);
                        optimizer.step(&context, epochs, model, &grads)
                    }
                    .unwrap();
                }
                (model.to_file().sha256(), optimizer.evaluated(model).to_file().sha256())
            };
            for precision in Precision::ALL {
                assert_eq!(train(true, precision), train(false, precision), "{isa} {precision:?}");
            }
        }
    }
}

/// The instruction sets that products in `precision` differ on: tiles, emulated where need be, are for
/// bf16.
fn isas(precision: Precision) -> Vec<Isa> {
    limbeck_kernels::amx::emulate();
    Isa::available().filter(|isa| *isa != Isa::Amx || precision == Precision::Bf16).collect()
}

#[test]
fn the_same_bits_on_any_threads_and_isa() {
    assert!(Isa::Avx512.is_available() || !is_required("avx512"), "this CPU has no AVX-512");
    let split = glyphs::load(2, 200, 1).train;
    let teacher = teacher(200, 10);
    let methods = METHODS.into_iter().flat_map(|method| Precision::ALL.map(|p| (method, p)));
    for ((optimizer, activation), precision) in methods {
        let mut config = config(optimizer);
        config.training.precision = precision;
        config.model.activation = activation;
        config.data.jitter = Some(2);
        config.model.layers = vec![784, 40, 33, 10];
        config.training.epochs = 2;
        config.training.batch_size = 64;
        config.training.learning_rate = 0.01;
        let sha256 = |isa, pool, config: &Config| {
            run(&Context { isa, pool }, config, &split, &teacher).to_file().sha256()
        };
        let pool = |threads| Pool::new(threads).unwrap();
        let fast = isas(Precision::F32)[0];
        let expected = sha256(fast, pool(1), &config);
        for isa in isas(precision) {
            for threads in [1, 2, 3] {
                let found = sha256(isa, pool(threads).eager(), &config);
                assert_eq!(found, expected, "{isa}, {threads} threads, every job shared");
            }
            // So small a net leaves some jobs to one thread.
            assert_eq!(sha256(isa, pool(2), &config), expected, "{isa}, 2 threads where they pay");
        }
        // Each of them is at work: without it the bits differ.
        let changes: [fn(&mut Config); 7] = [
            |c| {
                c.training.precision = match c.training.precision {
                    Precision::F32 => Precision::Bf16,
                    Precision::Bf16 => Precision::F32,
                }
            },
            |c| c.seed += 1,
            |c| c.data.jitter = None,
            |c| c.model.dropout = None,
            |c| c.training.max_norm = None,
            |c| c.training.weight_decay = 0.0,
            |c| c.training.average = 0.0,
        ];
        for (i, change) in changes.into_iter().enumerate() {
            let mut changed = config.clone();
            change(&mut changed);
            assert_ne!(sha256(fast, pool(2), &changed), expected, "change {i}");
        }
    }
}

/// Notes what it is told, and ends the run after the epoch `until`.
#[derive(Default)]
struct Notes {
    until: Option<usize>,
    started: Option<usize>,
    epochs: Vec<(usize, f64, Option<u64>, u64)>,
    warnings: Vec<String>,
}

impl Observer for Notes {
    fn on_start(&mut self, _: &str, epochs_done: usize) -> Result<()> {
        self.started = Some(epochs_done);
        Ok(())
    }
    fn on_step(&mut self, _: &Progress) {}
    fn on_epoch(&mut self, record: &EpochRecord) -> Result<()> {
        self.epochs.push((record.epoch, record.loss, record.train_errors, record.examples));
        match self.until {
            Some(epoch) if epoch == record.epoch => Err(Error::Interrupted { command: None }),
            _ => Ok(()),
        }
    }
    fn warn(&mut self, message: &str) {
        self.warnings.push(message.to_string());
    }
}

#[test]
fn an_interrupted_run_ends_in_the_same_bits() {
    let split = noise(1, 50, 2, CLASSES);
    let teacher = teacher(50, CLASSES);
    for optimizer in [OptimizerKind::Sgd, OptimizerKind::Adam] {
        let mut config = config(optimizer);
        config.training.epochs = 4;
        // A checkpoint after every step.
        config.training.checkpoint_minutes = 1e-9;
        let go = |config: &Config, folder: Option<&Path>, notes: &mut Notes| {
            let task = Task {
                name: "net",
                config,
                split: &split,
                objective: MIXED,
                teacher_logits: Some(seen(config, &split, &teacher)),
                teachers: &[],
                initial: None,
                watch: &[],
            };
            let trained = trainer::train(&best(1), &task, folder, notes)?;
            Ok::<_, Error>(trained.model.to_file().sha256())
        };
        let mut through = Notes::default();
        let expected = go(&config, None, &mut through).unwrap();
        assert_eq!(through.epochs.len(), 4);

        let folder = tempfile::tempdir().unwrap();
        let at =
            |step: usize| folder.path().join(format!("checkpoint-000001-{step:06}.safetensors"));
        let interrupt = || {
            let mut notes = Notes { until: Some(2), ..Notes::default() };
            let error = go(&config, Some(folder.path()), &mut notes).unwrap_err();
            assert_eq!(error.exit_code(), 75);
            assert!(at(6).exists() && at(7).exists() && !at(5).exists());
        };
        // At an epoch's end, and in its middle: the newest file is damaged, the one before serves.
        for damaged in [false, true] {
            interrupt();
            if damaged {
                fs::write(at(7), "half a file").unwrap();
            }
            let mut notes = Notes::default();
            assert_eq!(go(&config, Some(folder.path()), &mut notes).unwrap(), expected);
            assert_eq!(notes.started, Some(1));
            assert_eq!(notes.epochs, through.epochs[1..]);
            assert_eq!(notes.warnings.len(), usize::from(damaged), "{:?}", notes.warnings);
            for entry in fs::read_dir(folder.path()).unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
            }
        }

        interrupt();
        let changes: [fn(&mut Config); 2] =
            [|c| c.training.learning_rate *= 2.0, |c| c.training.precision = Precision::Bf16];
        for change in changes {
            let mut changed = config.clone();
            change(&mut changed);
            let error = go(&changed, Some(folder.path()), &mut Notes::default()).unwrap_err();
            assert_eq!(error.exit_code(), 65);
            assert!(error.to_string().contains("configuration of the checkpoint"), "{error}");
        }
    }
}

/// Ends the run after each step.
struct OneStep;

impl Observer for OneStep {
    fn on_step(&mut self, _: &Progress) {}
    fn on_epoch(&mut self, _: &EpochRecord) -> Result<()> {
        Ok(())
    }
    fn stop(&self) -> bool {
        true
    }
    fn warn(&mut self, message: &str) {
        panic!("{message}");
    }
}

#[test]
fn a_run_stopped_after_every_step_goes_on_anywhere_with_the_same_bits() {
    let split = noise(1, 50, 2, CLASSES);
    let teacher = teacher(50, CLASSES);
    let places: Vec<(Isa, usize)> = Isa::available().flat_map(|isa| [(isa, 2), (isa, 1)]).collect();
    for (optimizer, precision) in [
        (OptimizerKind::Sgd, Precision::F32),
        (OptimizerKind::Adam, Precision::F32),
        (OptimizerKind::Adam, Precision::Bf16),
    ] {
        let mut config = config(optimizer);
        config.training.precision = precision;
        config.training.epochs = 2;
        let expected = run(&best(1), &config, &split, &teacher).to_file().sha256();
        let logits = seen(&config, &split, &teacher);
        let task = Task::soft("net", &config, &split, MIXED, logits);
        let folder = tempfile::tempdir().unwrap();
        let mut places = places.iter().cycle();
        let mut stops = 0;
        let trained = loop {
            let &(isa, threads) = places.next().unwrap();
            let context = Context { isa, pool: Pool::new(threads).unwrap().eager() };
            match trainer::train(&context, &task, Some(folder.path()), &mut OneStep) {
                Err(Error::Interrupted { .. }) => stops += 1,
                ended => break ended.unwrap(),
            }
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), stops.min(2));
        };
        // 7 steps of 8 examples and fewer in each epoch.
        assert_eq!(stops, 14);
        assert_eq!(trained.model.to_file().sha256(), expected);
    }
}

/// 20 frames of 2 values in utterances of 12 and 8, each with 2 neighbours before and 1 behind it.
fn frames(context: (usize, usize)) -> Features {
    let features: Vec<f32> = uniform(8, 40).into_iter().map(|x| x as f32).collect();
    Features::new(features, 2, &[12, 8], context)
}

#[test]
fn frames_with_neighbours_are_trained_on_as_if_the_windows_were_written_out() {
    let context = best(2);
    let mut config = config(OptimizerKind::Adam);
    config.data.jitter = None;
    config.training.epochs = 3;
    let teacher = teacher(20, CLASSES);
    let labels: Vec<u16> = (0..20).map(|i| i % u16::from(CLASSES)).collect();
    let trained = |frames: Features| {
        let split = Split { inputs: Inputs::Features(frames), labels: Some(labels.clone()) };
        let model = run(&context, &config, &split, &teacher);
        (model.to_file().sha256(), model.logits(&context, &split), model.input)
    };
    let seen = frames((2, 1));
    let mut space = vec![0.0; 8];
    let written: Vec<f32> = (0..20).flat_map(|i| seen.input(i, &mut space).to_vec()).collect();
    let table = Features::new(written, 8, &[20], (0, 0));
    let (of_windows, of_table) = (trained(seen), trained(table));
    assert_eq!(of_windows, of_table);
    assert_eq!(of_windows.2, InputScale::IDENTITY);
}

/// Keeps the records of the epochs.
#[derive(Default)]
struct Kept(Vec<EpochRecord>);

impl Observer for Kept {
    fn on_step(&mut self, _: &Progress) {}
    fn on_epoch(&mut self, record: &EpochRecord) -> Result<()> {
        self.0.push(record.clone());
        Ok(())
    }
    fn warn(&mut self, message: &str) {
        panic!("{message}");
    }
}

#[test]
fn watched_splits_are_judged_by_the_model_of_each_epoch() {
    let context = best(2);
    let (train, other) = (noise(1, 20, 2, CLASSES), noise(2, 37, 2, CLASSES));
    for average in [0.0, 0.5] {
        let mut config = config(OptimizerKind::Sgd);
        config.training.schedule = ScheduleKind::Constant;
        config.training.average = average;
        config.training.epochs = 3;
        let mut kept = Kept::default();
        let watch = [("train", &train), ("other", &other)];
        let task = Task { watch: &watch, ..Task::hard("net", &config, &train) };
        trainer::train(&context, &task, None, &mut kept).unwrap();
        assert_eq!(kept.0.len(), 3);
        for (epochs, record) in (1..).zip(&kept.0) {
            // Without a schedule the model of an epoch is that of a run which ends there.
            config.training.epochs = epochs;
            let task = Task::hard("net", &config, &train);
            let model = trainer::train(&context, &task, None, &mut Silent).unwrap().model;
            for (name, split) in watch {
                let (logits, labels) =
                    (model.logits(&context, split), split.labels.as_ref().unwrap());
                let watched = record.watched[name];
                assert_eq!(watched.examples, split.len());
                assert_eq!(watched.errors, metrics::errors(&logits, labels, CLASSES.into()));
                assert_eq!(watched.nll, metrics::nll(&logits, labels, CLASSES.into()));
            }
        }
    }
    let unlabelled = other.without_labels();
    let config = config(OptimizerKind::Sgd);
    let watch = [("other", &unlabelled)];
    let task = Task { watch: &watch, ..Task::hard("net", &config, &train) };
    assert!(task.check().unwrap_err().to_string().contains("'other' has no labels"));
}

#[test]
fn training_stops_early_with_the_model_of_the_best_epoch() {
    let context = best(2);
    // Labels without a pattern: what is learnt of some is wrong of others.
    let (train, other) = (noise(1, 40, 2, CLASSES), noise(2, 37, 2, CLASSES));
    let watch = [("validation", &other)];
    for average in [0.0, 0.5] {
        let mut config = config(OptimizerKind::Adam);
        config.training.schedule = ScheduleKind::Constant;
        config.training.average = average;
        config.training.epochs = 500;
        config.training.early_stopping = Some(6);
        let mut kept = Kept::default();
        let task = Task { watch: &watch, ..Task::hard("net", &config, &train) };
        let trained = trainer::train(&context, &task, None, &mut kept).unwrap();
        let losses: Vec<f64> =
            kept.0.iter().map(|record| record.watched["validation"].nll).collect();
        let lowest = losses.iter().copied().fold(f64::INFINITY, f64::min);
        let best = 1 + losses.iter().position(|loss| *loss == lowest).unwrap();
        assert!(best + 6 < 500, "it stops early");
        assert_eq!(
            (trained.best_epoch, trained.epochs, losses.len()),
            (Some(best), best + 6, best + 6)
        );
        // The model is that of a run which ends there.
        let mut ends = config.clone();
        (ends.training.epochs, ends.training.early_stopping) = (best, None);
        let task = Task::hard("net", &ends, &train);
        let expected = trainer::train(&context, &task, None, &mut Silent).unwrap().model;
        let sha256 = trained.model.to_file().sha256();
        assert_eq!(sha256, expected.to_file().sha256());

        // However often it is interrupted.
        config.training.checkpoint_minutes = 1e-9;
        let folder = tempfile::tempdir().unwrap();
        let task = Task { watch: &watch, ..Task::hard("net", &config, &train) };
        let mut stops = 0;
        let resumed = loop {
            match trainer::train(&context, &task, Some(folder.path()), &mut OneStep) {
                Ok(trained) => break trained,
                Err(Error::Interrupted { .. }) => stops += 1,
                Err(error) => panic!("{error}"),
            }
        };
        assert!(stops > 2, "{stops}");
        assert_eq!((resumed.best_epoch, resumed.epochs), (Some(best), best + 6));
        assert_eq!(resumed.model.to_file().sha256(), sha256);
    }
    let mut config = config(OptimizerKind::Adam);
    config.training.early_stopping = Some(6);
    let error = Task::hard("net", &config, &train).check().unwrap_err().to_string();
    assert!(error.contains("set data.validation"), "{error}");
}

#[test]
fn a_net_that_standardises_is_the_net_of_standardised_features() {
    let context = best(2);
    let mut config = config(OptimizerKind::Adam);
    config.data.jitter = None;
    config.training.epochs = 3;
    config.model.layers[0] = 3;
    // Columns of a large mean, of a tiny scale, and one that is constant.
    let mut raw: Vec<f32> = uniform(8, 60).into_iter().map(|x| x as f32).collect();
    for row in raw.chunks_mut(3) {
        (row[0], row[1], row[2]) = (1e4 + row[0], 1e-6 * row[1], 7.0);
    }
    let labels: Vec<u16> = (0..20).map(|i| i % u16::from(CLASSES)).collect();
    let split = |values: &[f32]| Split::of_features(values.to_vec(), 3, Some(labels.clone()));
    let teacher = teacher(20, CLASSES);
    let plain = run(&context, &config, &split(&raw), &teacher);
    config.data.standardize = Some(Standardize::On);
    let model = run(&context, &config, &split(&raw), &teacher);

    // The mean and deviation of each column, in f64.
    let column = |j: usize| raw.iter().skip(j).step_by(3).map(|&x| f64::from(x));
    let mean: Vec<f64> = (0..3).map(|j| column(j).sum::<f64>() / 20.0).collect();
    let sd = |j: usize| (column(j).map(|x| (x - mean[j]).powi(2)).sum::<f64>() / 20.0).sqrt();
    let scale = [1.0 / sd(0), 1.0 / sd(1), 0.0].map(|scale| scale as f32);
    let mean: Vec<f32> = mean.into_iter().map(|mean| mean as f32).collect();
    let expected = Standardizer { mean: mean.clone(), scale: scale.to_vec() };
    assert_eq!(model.standardizer.as_ref(), Some(&expected));

    let value = |(i, &x): (usize, &f32)| (x - mean[i % 3]) * scale[i % 3];
    let standard: Vec<f32> = raw.iter().enumerate().map(value).collect();
    assert!(standard.iter().step_by(3).any(|x| x.abs() > 0.5), "they are of the order of 1");
    config.data.standardize = Some(Standardize::Off);
    let by_hand = run(&context, &config, &split(&standard), &teacher);
    assert_eq!(model.params(), by_hand.params());
    assert_ne!(model.params(), plain.params());
    let logits = by_hand.logits(&context, &split(&standard));
    assert_eq!(model.logits(&context, &split(&raw)), logits);
    let loaded = Mlp::from_file(&model.to_file());
    assert_eq!(loaded.logits(&context, &split(&raw)), logits);
    // Nothing was learnt of the constant column, so that its value does not matter.
    let other: Vec<f32> = raw.iter().map(|&x| if x == 7.0 { 20_240_101.0 } else { x }).collect();
    assert_eq!(model.logits(&context, &split(&other)), logits);
}

#[test]
fn jitter_of_frames_is_refused() {
    let config = config(OptimizerKind::Adam);
    let split = Split { inputs: Inputs::Features(frames((2, 1))), labels: Some(vec![0; 20]) };
    let error = Task::hard("net", &config, &split).check().unwrap_err();
    assert!(error.to_string().contains("these are features"), "{error}");
    assert_eq!(error.exit_code(), 2);
}

/// The images of the first epoch as `config` has them seen.
fn viewed(config: &Config, split: &Split) -> Split {
    let views = &config.distillation.as_ref().unwrap().views;
    let (size, mut pixels) = (split.input_size(), split.images().pixels.clone());
    let mut batches = Batches::new(split, config.training.batch_size, config.seed, None);
    batches = batches.with_views(views);
    let mut space = vec![0; size];
    while let Some(batch) = batches.next() {
        for (i, &example) in batch.indices.iter().enumerate() {
            pixels[example as usize * size..][..size].copy_from_slice(batch.image(i, &mut space));
        }
    }
    Split::of_images(pixels, (2, 4), split.labels.clone())
}

#[test]
fn teachers_are_asked_about_what_the_student_sees() {
    let context = best(2);
    let split = noise(1, 50, 2, CLASSES);
    let teachers = [5, 6].map(|seed| Mlp::new(&[8, 9, CLASSES.into()], seed));
    for (teachers, optimizer, microbatches) in
        [(&teachers[..1], OptimizerKind::Sgd, 1), (&teachers[..], OptimizerKind::Adam, 2)]
    {
        let mut config = config(optimizer);
        config.data.jitter = None;
        config.training.microbatches = microbatches;
        let table =
            "[distillation]\nviews = [\"mask 0..0.5\", \"mix 0.7..1 + noise 0.1\", \"block 1\"]";
        config.distillation = Config::from_text(table).unwrap().distillation;
        let task = Task { objective: MIXED, teachers, ..Task::hard("net", &config, &split) };
        let trained = trainer::train(&context, &task, None, &mut Silent).unwrap().model;

        // In one epoch it is a run on the images as they are seen, with the teachers' answers to those.
        let seen = viewed(&config, &split);
        assert_ne!(seen, split);
        let t = MIXED.temperature;
        let logits = distill::teacher_logits(&context, teachers, &seen, t, None);
        let mut plain = config.clone();
        plain.distillation = None;
        let task = Task::soft("net", &plain, &seen, MIXED, &logits);
        let expected = trainer::train(&context, &task, None, &mut Silent).unwrap().model;
        assert_eq!(trained.to_file().sha256(), expected.to_file().sha256());

        // Each epoch has other views; no thread, instruction set or interruption has.
        config.training.epochs = 2;
        assert_ne!(viewed(&Config { seed: 12, ..config.clone() }, &split), seen);
        let task = Task { objective: MIXED, teachers, ..Task::hard("net", &config, &split) };
        let through = trainer::train(&best(1), &task, None, &mut Silent).unwrap().model;
        let folder = tempfile::tempdir().unwrap();
        let isas: Vec<Isa> = Isa::available().collect();
        let mut isas = isas.into_iter().cycle();
        let resumed = loop {
            let context =
                Context { isa: isas.next().unwrap(), pool: Pool::new(2).unwrap().eager() };
            match trainer::train(&context, &task, Some(folder.path()), &mut OneStep) {
                Err(Error::Interrupted { .. }) => {}
                ended => break ended.unwrap().model,
            }
        };
        assert_eq!(resumed.to_file().sha256(), through.to_file().sha256());
    }
}

#[test]
fn views_that_cannot_be_are_refused() {
    let split = noise(1, 20, 2, CLASSES);
    let mut config = config(OptimizerKind::Sgd);
    config.data.jitter = None;
    config.distillation =
        Config::from_text("[distillation]\nviews = [\"mask 0.5\"]").unwrap().distillation;
    let logits = teacher(20, CLASSES);
    let cached = Task::soft("net", &config, &split, MIXED, seen(&config, &split, &logits));
    let refused = |task: &Task| task.check().unwrap_err().to_string();
    assert!(refused(&cached).contains("views need the teacher itself"));
    let plain_and =
        |view: &str| format!("[distillation]\nhard_weight = 0\nviews = [\"plain\", \"{view}\"]");
    // Of no image is anything left by the first two, of one of 2 × 4 pixels by the last.
    for hiding in ["mask 1", "mix 0.5 + mask 0.999..1"] {
        let config = Config::from_toml(&plain_and(hiding), Path::new("c.toml"));
        let message = config.unwrap_err().to_string();
        let said = format!("views that leave something of an image; found {hiding}");
        assert!(message.contains(&said), "{message}");
    }
    let distillation = Config::from_text(&plain_and("mix 0.5 + block 4")).unwrap().distillation;
    let blocked = Config { distillation, ..config.clone() };
    let message = refused(&Task::hard("net", &blocked, &split));
    let said = "found mix 0.5 + block 4, expected one that leaves something of an image of 2x4";
    assert!(message.contains(said), "{message}");
    let narrow = [Mlp::new(&[8, 4], 0)];
    let task = Task { teachers: &narrow, objective: MIXED, ..Task::hard("net", &config, &split) };
    assert!(refused(&task).contains("found 8 inputs and 4 classes, expected 8 and 3"));
    config.model.layers[0] = 2;
    let frames = Split { inputs: Inputs::Features(frames((0, 0))), labels: Some(vec![0; 20]) };
    let message = refused(&Task::hard("net", &config, &frames));
    assert!(message.contains("views: found mask 0.5, expected none"), "{message}");
}

#[test]
fn max_norm_holds_for_every_hidden_unit() {
    let split = noise(1, 50, 2, CLASSES);
    let teacher = teacher(50, CLASSES);
    let norms = |max_norm: Option<f64>, layer: usize| {
        let mut config = config(OptimizerKind::Sgd);
        config.training.epochs = 5;
        config.training.max_norm = max_norm;
        let file = run(&best(1), &config, &split, &teacher).to_file();
        let layer = &file.layers[layer];
        let norm = |w: &[f32]| widen(w).iter().map(|w| w * w).sum::<f64>().sqrt();
        layer.weight.chunks(layer.inputs).map(norm).collect::<Vec<_>>()
    };
    for limit in [0.5, 1.0] {
        for hidden in [0, 1] {
            let limited = norms(Some(limit), hidden);
            assert!(limited.iter().all(|&n| n < limit * (1.0 + 16.0 * UNIT)), "{limited:?}");
            assert!(norms(None, hidden).iter().any(|&n| n > 1.1 * limit));
        }
        // The last layer has no hidden units.
        assert!(norms(Some(limit), 2).iter().any(|&n| n > 1.1 * limit));
    }
}

#[test]
fn divergence_names_epoch_and_step() {
    let split = noise(1, 20, 2, CLASSES);
    for (batch_size, expected) in [(8, (1, 2)), (20, (2, 1))] {
        let mut config = config(OptimizerKind::Sgd);
        config.data.jitter = None;
        config.model.dropout = None;
        config.training.epochs = 3;
        config.training.batch_size = batch_size;
        config.training.max_norm = None;
        config.training.schedule = ScheduleKind::Constant;
        config.training.learning_rate = 1e25;
        let task = Task {
            name: "net",
            config: &config,
            split: &split,
            objective: LossSpec::HARD,
            teacher_logits: None,
            teachers: &[],
            initial: None,
            watch: &[],
        };
        let error = trainer::train(&best(1), &task, None, &mut Silent).err().expect("diverges");
        assert_eq!(error.exit_code(), 76);
        let Error::Diverged { epoch, step, .. } = error else { panic!("{error}") };
        assert_eq!((epoch, step), expected, "{error}");
        let message = error.to_string();
        assert!(message.contains(&format!("epoch {epoch}, step {step}")), "{message}");
    }
}

/// The run's error: exit code, message, and the step of a divergence.
fn failure(task: &Task, folder: Option<&Path>) -> (u8, String, Option<(u64, u64)>) {
    let error = trainer::train(&best(1), task, folder, &mut Silent).err().expect("an error");
    let step = match error {
        Error::Diverged { epoch, step, .. } => Some((epoch, step)),
        _ => None,
    };
    (error.exit_code(), error.to_string(), step)
}

const NOT_FINITE: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

#[test]
fn what_is_not_finite_from_the_start_is_named() {
    let split = noise(1, 20, 2, CLASSES);
    let mut config = config(OptimizerKind::Sgd);
    config.data.jitter = None;
    let model = Mlp::new(&config.model.layers, 1);
    let logits = &teacher(20, CLASSES)[..60];
    let features: Vec<f32> = uniform(8, 160).into_iter().map(|x| x as f32).collect();
    for bad in NOT_FINITE {
        let mut initial = model.clone();
        initial.params_mut()[3] = bad;
        let of_initial = Task { initial: Some(&initial), ..Task::hard("net", &config, &split) };
        let mut logits = logits.to_vec();
        logits[59] = bad;
        let of_logits = Task::soft("net", &config, &split, MIXED, &logits);
        let mut features = features.clone();
        features[17] = bad;
        let frames = Split {
            inputs: Inputs::Features(Features::new(features, 8, &[20], (0, 0))),
            labels: Some(vec![0; 20]),
        };
        let of_features = Task::hard("net", &config, &frames);
        for (task, what) in [
            (&of_initial, "the initial model: found"),
            (&of_logits, "the teacher's logits: found"),
            (&of_features, "example 2 of the training set: found"),
        ] {
            let (code, message, _) = failure(task, None);
            assert!(code == 65 && message.contains(what), "{code} {message}");
            assert!(message.contains(&bad.to_string()), "{message}");
        }
    }
}

#[test]
fn a_checkpoint_with_values_that_are_not_finite_is_refused_by_the_tensors_name() {
    let split = noise(1, 50, 2, CLASSES);
    let teacher = teacher(50, CLASSES);
    let config = config(OptimizerKind::Adam);
    let logits = seen(&config, &split, &teacher);
    let task = Task::soft("net", &config, &split, MIXED, logits);
    let folder = tempfile::tempdir().unwrap();
    let stopped = trainer::train(&best(1), &task, Some(folder.path()), &mut OneStep);
    assert!(matches!(stopped, Err(Error::Interrupted { .. })));
    let path = folder.path().join("checkpoint-000000-000001.safetensors");
    let good = TrainingState::load(&path).unwrap();
    let layers = Mlp::new(&config.model.layers, 1).layers().to_vec();
    let mut cases = 0;
    for t in 0..good.tensors.len() {
        let of = match &good.tensors[t].0[..] {
            "params" => String::new(),
            name => format!("{name} of the "),
        };
        for (i, layer) in layers.iter().enumerate() {
            for (kind, at) in [("weight", &layer.weight), ("bias", &layer.bias)] {
                for bad in NOT_FINITE {
                    let mut state = good.clone();
                    state.tensors[t].1.to_mut()[at.start + 1] = bad;
                    state.save(&path).unwrap();
                    let (code, message, _) = failure(&task, Some(folder.path()));
                    let what = format!("000001.safetensors: {of}{kind} of layer {i}: found");
                    assert!(code == 65 && message.contains(&what), "{what}: {message}");
                    cases += 1;
                }
            }
        }
    }
    // Parameters, two moments and the average of three layers.
    assert_eq!(cases, 4 * 3 * 2 * 3);
}

#[test]
fn divergence_names_the_tensor_and_leaves_the_last_finite_checkpoint() {
    let mut split = noise(1, 24, 2, CLASSES);
    // A pixel that is always dark, and whose weights thus have no gradient.
    let Inputs::Images(images) = &mut split.inputs else { unreachable!() };
    images.pixels.chunks_exact_mut(8).for_each(|image| image[0] = 0);
    let mut config = config(OptimizerKind::Sgd);
    config.data.jitter = None;
    config.model.dropout = None;
    config.training.schedule = ScheduleKind::Constant;
    config.training.momentum = 0.0;
    config.training.max_norm = None;
    config.training.average = 0.0;
    config.training.weight_decay = 0.0;
    config.training.epochs = 3;
    config.training.checkpoint_minutes = 1e-9;
    let model = Mlp::new(&config.model.layers, 1);
    let start = |at: usize, value: f32| {
        let mut model = model.clone();
        model.params_mut()[at] = value;
        model
    };
    let loud = LossSpec { hard_weight: 1e25, ..LossSpec::HARD };
    // From the first hidden unit to the next layer's: 10²⁰·10²⁰.
    let mut overflowing = start(model.layers()[0].bias.start, 1e20);
    overflowing.params_mut()[model.layers()[1].weight.start] = 1e20;
    let changed = |change: &dyn Fn(&mut Config)| {
        let mut changed = config.clone();
        change(&mut changed);
        changed
    };
    let cases = [
        // The gradient of the last layer times the learning rate.
        (
            changed(&|c| c.training.learning_rate = 1e30),
            loud,
            start(0, 0.0),
            "weight of layer 2",
            (1, 1),
        ),
        // w ← (1 − 300·0.01)·w = −2w, of a weight that no example feels.
        (
            changed(&|c| {
                (c.training.learning_rate, c.training.weight_decay) = (300.0, 0.01);
                c.training.checkpoint_minutes = 5.0;
            }),
            LossSpec::HARD,
            start(0, -3.3e38),
            "weight of layer 0",
            (1, 1),
        ),
        // The square of a weight that no example feels, in the norm that is limited.
        (
            changed(&|c| c.training.max_norm = Some(1.0)),
            LossSpec::HARD,
            start(0, 1e20),
            "weight update of layer 0",
            (1, 1),
        ),
        // g² of Adam.
        (
            changed(&|c| (c.training.optimizer, c.training.batch_size) = (OptimizerKind::Adam, 24)),
            loud,
            start(0, 0.0),
            "moment.1 of the weight of layer",
            (1, 1),
        ),
        (config.clone(), LossSpec::HARD, overflowing, "output of layer 1", (1, 1)),
    ];
    for (i, (config, objective, initial, what, at)) in cases.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let task = Task {
            objective: *objective,
            initial: Some(initial),
            ..Task::hard("net", config, &split)
        };
        let (code, message, step) = failure(&task, Some(folder.path()));
        assert!(code == 76 && message.contains(what), "case {i}: {message}");
        assert_eq!(step, Some(*at), "case {i}: {message}");
        // What is there is finite.
        let kept = checkpoint::latest(folder.path()).unwrap();
        for (name, values) in kept.iter().flat_map(|latest| &latest.state.tensors) {
            assert!(values.iter().all(|value| value.is_finite()), "case {i}: {name}");
        }
    }
}

#[test]
fn schedules_pass_through_their_known_values() {
    use ScheduleKind::{Constant, Cosine, Exponential, Linear, Step};
    let training = |schedule| TrainingConfig {
        epochs: 1000,
        learning_rate: 0.1,
        schedule,
        momentum: 0.9,
        decay: 0.998,
        step_epochs: 100,
        step_factor: 0.5,
        momentum_epochs: 500,
        ..TrainingConfig::default()
    };
    // η at 0, 250.5, 500 and 1000 of 1000 epochs, by hand or by `python3 -c`.
    let known = [
        (Constant, [0.1, 0.1, 0.1, 0.1]),
        (Exponential, [0.1, 0.060_622_706_5, 0.036_751_125_5, 0.013_506_452_2]),
        (Step, [0.1, 0.025, 0.003_125, 0.1 / 1024.0]),
        (Linear, [0.1, 0.074_95, 0.05, 0.0]),
        (Cosine, [0.1, 0.085_299_759_4, 0.05, 0.0]),
    ];
    for (schedule, rates) in known {
        let training = training(schedule);
        for (epochs, expected) in [0.0, 250.5, 500.0, 1000.0].into_iter().zip(rates) {
            let found = learning_rate(&training, epochs);
            assert!((found - expected).abs() < 1e-9, "{schedule:?} {epochs}: {found} {expected}");
        }
    }
    let hinton = training(Exponential);
    for (epochs, expected) in
        [(0.0, 0.5), (125.0, 0.6225), (250.0, 0.745), (500.0, 0.99), (900.0, 0.99)]
    {
        assert!((momentum(&hinton, epochs) - expected).abs() < 1e-12, "{epochs}");
    }
}
