//! The two trainings whose steps are timed, on random images, through `trainer::train`.

use limbeck::config::Config;
use limbeck::loss::Objective;
use limbeck::mlp::Mlp;
use limbeck::trainer::{self, EpochRecord, Observer, Progress, Task};
use limbeck_datasets::Split;
use limbeck_kernels::Context;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::time::Instant;

/// Images of the training set: 6 MiB, more than a core's own caches hold.
const EXAMPLES: usize = 8192;
const CLASSES: usize = 10;
/// Steps that are not counted.
const WARM_UP: usize = 8;

/// A training to be timed.
pub struct Training {
    /// `teacher` or `student`.
    pub name: &'static str,
    config: Config,
    split: Split,
    objective: Objective,
    teacher_logits: Option<Vec<f32>>,
}

impl Training {
    /// 784-1200-1200-10 on labels, dropout 0.2 of the inputs and 0.5 of the hidden units.
    pub fn teacher(batch: usize) -> Self {
        let mut training = Self::on_random_data("teacher", 1200, batch);
        training.config.model.dropout = Some(vec![0.2, 0.5, 0.5]);
        training
    }

    /// 784-800-800-10 on cached logits at T = 20 and, with weight 0.05, on labels.
    pub fn student(batch: usize) -> Self {
        let mut training = Self::on_random_data("student", 800, batch);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut logit = || rng.next_u32() as i32 as f32 / (1 << 28) as f32;
        training.teacher_logits = Some((0..EXAMPLES * CLASSES).map(|_| logit()).collect());
        training.objective = Objective { temperature: 20.0, soft_weight: 1.0, hard_weight: 0.05 };
        training
    }

    fn on_random_data(name: &'static str, width: usize, batch: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut pixels = vec![0; EXAMPLES * 784];
        rng.fill_bytes(&mut pixels);
        let labels = (0..EXAMPLES).map(|_| (rng.next_u32() % CLASSES as u32) as u16).collect();
        let mut config = Config::default();
        config.model.layers = vec![784, width, width, CLASSES];
        config.training.batch_size = batch;
        config.training.momentum = 0.9;
        // Random labels cannot be learnt; this keeps the weights where they are.
        config.training.learning_rate = 1e-3;
        Self {
            name,
            config,
            split: Split { pixels, labels: Some(labels), height: 28, width: 28 },
            objective: Objective::HARD,
            teacher_logits: None,
        }
    }

    /// The widths of the layers, inputs first.
    pub fn net(&self) -> &[usize] {
        &self.config.model.layers
    }

    /// Floating-point operations of a step.
    pub fn flop(&self) -> f64 {
        Mlp::new(self.net(), 0).flop_per_step(self.config.training.batch_size)
    }

    /// Seconds of each of `steps` consecutive steps of one training, after some to warm up. The
    /// first of an epoch includes the new shuffle.
    pub fn time(&self, context: &Context, steps: usize) -> Vec<f64> {
        let mut config = self.config.clone();
        let steps_per_epoch = EXAMPLES.div_ceil(config.training.batch_size);
        config.training.epochs = (WARM_UP + steps).div_ceil(steps_per_epoch);
        let task = Task {
            name: self.name,
            config: &config,
            split: &self.split,
            objective: self.objective,
            teacher_logits: self.teacher_logits.as_deref(),
        };
        let mut stopwatch = Stopwatch::default();
        trainer::train(context, &task, None, &mut stopwatch).expect("a training that converges");
        let ends = &stopwatch.ends[WARM_UP - 1..][..=steps];
        ends.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }
}

/// When each step ended.
#[derive(Default)]
struct Stopwatch {
    ends: Vec<Instant>,
}

impl Observer for Stopwatch {
    fn on_step(&mut self, _: &Progress) {
        self.ends.push(Instant::now());
    }

    fn on_epoch(&mut self, _: &EpochRecord) -> limbeck::Result<()> {
        Ok(())
    }

    fn warn(&mut self, message: &str) {
        eprintln!("{message}");
    }
}
