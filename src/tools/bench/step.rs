//! A whole training step: gather, dropout, forward, loss, backward, optimiser.

use super::measure::{Machine, Rate, Spread, calm, peak_flops};
use crate::engine::config::{Config, Precision};
use crate::engine::trainer::{self, Observer, Progress, Task, Trained};
use crate::engine::{communicator::Communicator, loss::LossSpec, mlp::Mlp};
use crate::files::error::{Error, Result};
use limbeck_datasets::Split;
use limbeck_kernels::{Context, peak};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

/// Which training a step is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepTask {
    /// Labels; dropout of 0.2 of the inputs and 0.5 of each hidden layer.
    Teacher,
    /// Cached teacher logits at T = 20 and, with weight 0.05, labels; no dropout.
    Student,
}

/// Examples of the random training set.
pub(super) const EXAMPLES: usize = 8192;
/// Steps that are not counted.
const WARM_UP: usize = 8;
/// Timed steps between two measurements of the peak.
const WINDOW: usize = 10;
/// Given to the question whether it is calm, between two steps.
const PROBE: Duration = Duration::from_micros(30);

/// A training whose steps are timed: SGD with momentum 0.9, images resident as u8 and gathered in
/// a new random order each epoch.
pub struct StepBench {
    task: StepTask,
    pub(super) config: Config,
    pub(super) split: Split,
    pub(super) objective: LossSpec,
    pub(super) teacher_logits: Option<Vec<f32>>,
}

/// The figures of a training step.
#[derive(Debug, Serialize)]
pub struct Step {
    /// Where.
    #[serde(flatten)]
    pub machine: Machine,
    /// Widths of the layers.
    pub net: String,
    /// `teacher` or `student`.
    pub task: String,
    /// What the operands of the products are.
    pub precision: Precision,
    /// Examples of a step.
    pub batch: usize,
    /// Timed steps.
    pub steps: usize,
    /// 2·m·n·k for each product; no input gradient for the first layer.
    pub gflop_per_step: f64,
    /// From one step's end to the next one's.
    pub ms_per_step: Spread,
    /// Of the median step.
    #[serde(flatten)]
    pub rate: Rate,
    /// Of the steps between two calm moments alone; absent where there was none, or no telling.
    pub calm: Option<Calm>,
    /// Jobs of a step that were shared out to the threads.
    pub forks_per_step: f64,
    /// What one costs when there is nothing to do, in microseconds.
    pub fork_join_us: f64,
    /// All of them, as a share of the median step.
    pub fraction_of_forks: f64,
    /// Most memory the process held, in 10⁶ bytes; absent where the system does not tell.
    pub peak_rss_mb: Option<f64>,
    /// Of the parameters after the timed steps: the same on every machine.
    pub params_sha256: String,
}

/// Steps before and after which each core was this process's own: see [`peak::issue_rate`].
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Calm {
    /// How many of all.
    pub steps: usize,
    /// 10⁹ instructions per second in the calmest moment. Far less than [`super::Neighbours`] find at other
    /// times means that a neighbour never left, and no step was calm.
    pub issued_g_per_s: f64,
    /// From one step's end to the next one's.
    pub ms_per_step: Spread,
    /// Median of their shares.
    pub fraction_of_peak: f64,
}

impl StepBench {
    /// A training of the net `widths` on random images and labels.
    ///
    /// # Errors
    /// [`Error::Usage`] for a net that cannot be, or a batch of 0.
    pub fn new(widths: &[usize], batch: usize, task: StepTask) -> Result<StepBench> {
        let [inputs, .., classes] = *widths else {
            return Err(Error::Usage("a net needs at least two widths".into()));
        };
        let usable = widths.iter().all(|&width| (1..=1 << 16).contains(&width));
        if !usable || classes < 2 || batch == 0 || batch > EXAMPLES {
            return Err(Error::Usage(format!(
                "net {widths:?}, batch {batch}: expected widths of 1 to 65536, at least 2 \
                 classes, and a batch of 1 to {EXAMPLES}"
            )));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut pixels = vec![0; EXAMPLES * inputs];
        rng.fill_bytes(&mut pixels);
        let labels = (0..EXAMPLES).map(|_| (rng.next_u32() % classes as u32) as u16).collect();
        let mut config = Config::default();
        config.model.layers = widths.to_vec();
        config.training.batch_size = batch;
        config.training.momentum = 0.9;
        // Random labels cannot be learnt; this keeps the weights where they are.
        config.training.learning_rate = 1e-3;
        let (mut objective, mut teacher_logits) = (LossSpec::HARD, None);
        match task {
            StepTask::Teacher => {
                let hidden = widths.len() - 2;
                let rates = std::iter::once(0.2).chain(std::iter::repeat_n(0.5, hidden));
                config.model.dropout = Some(rates.collect());
            }
            StepTask::Student => {
                let mut logit = || rng.next_u32() as i32 as f32 / (1 << 28) as f32;
                teacher_logits = Some((0..EXAMPLES * classes).map(|_| logit()).collect());
                objective = LossSpec { temperature: 20.0, soft_weight: 1.0, hard_weight: 0.05 };
            }
        }
        let split = Split::of_images(pixels, (1, inputs), Some(labels));
        Ok(StepBench { task, config, split, objective, teacher_logits })
    }

    /// Computes the matrix products in `precision`.
    pub fn set_precision(&mut self, precision: Precision) {
        self.config.training.precision = precision;
    }

    /// `teacher` or `student`.
    pub fn name(&self) -> &'static str {
        match self.task {
            StepTask::Teacher => "teacher",
            StepTask::Student => "student",
        }
    }

    pub(super) fn net(&self) -> String {
        let widths: Vec<String> = self.config.model.layers.iter().map(usize::to_string).collect();
        widths.join("-")
    }

    /// Times `steps` steps of one training, after some to warm up. The first step of an epoch
    /// includes the new shuffle.
    ///
    /// # Errors
    /// As [`trainer::train`].
    pub fn run(&self, context: &Context, steps: usize) -> Result<Step> {
        let (stopwatch, model) = self.train(context, steps)?;
        let flop = model.flop_per_step(self.config.training.batch_size);
        let ms_per_step = Spread::of(stopwatch.seconds.iter().map(|s| s * 1e3));
        let windows = stopwatch.seconds.chunks(WINDOW);
        let windows = windows.map(|seconds| Spread::of(seconds.iter().copied()).median);
        let rate = Rate::of(flop, &windows.collect::<Vec<_>>(), &stopwatch.peaks);
        let forks_per_step = stopwatch.forks as f64 / steps as f64;
        let fork_join_us = peak::fork_join(context) * 1e6;
        Ok(Step {
            machine: Machine::of(context),
            net: self.net(),
            task: self.name().into(),
            precision: self.config.training.precision,
            batch: self.config.training.batch_size,
            steps,
            gflop_per_step: flop / 1e9,
            ms_per_step,
            rate: Rate { gflops: flop / ms_per_step.median / 1e6, ..rate },
            calm: stopwatch.calm(flop),
            forks_per_step,
            fork_join_us,
            fraction_of_forks: forks_per_step * fork_join_us / (ms_per_step.median * 1e3),
            peak_rss_mb: peak_rss_mb(),
            params_sha256: model.to_file().sha256(),
        })
    }

    /// Seconds that `steps` steps take together.
    ///
    /// # Errors
    /// As [`trainer::train`].
    pub fn seconds(&self, context: &Context, steps: usize) -> Result<f64> {
        Ok(self.train(context, steps)?.0.seconds.iter().sum())
    }

    /// Seconds of each of `steps` steps with the optimiser's apart from the gradients.
    pub(super) fn unfused(&self, context: &Context, steps: usize) -> Result<Vec<f64>> {
        let run = |task: &Task, watch: &mut Stopwatch| trainer::train_unfused(context, task, watch);
        Ok(self.train_by(context, steps, run)?.0.seconds)
    }

    /// Seconds of each of `steps` steps by all ranks together, a shard each.
    pub(super) fn together(
        mut self,
        context: &Context,
        communicator: &mut Communicator,
        steps: usize,
    ) -> Result<Vec<f64>> {
        self.config.training.microbatches = communicator.size();
        let run = |task: &Task, watch: &mut Stopwatch| {
            trainer::train_together(context, task, communicator, None, watch)
        };
        Ok(self.train_by(context, steps, run)?.0.seconds)
    }

    fn train<'c>(&self, context: &'c Context, steps: usize) -> Result<(Stopwatch<'c>, Mlp)> {
        let run = |task: &Task, watch: &mut Stopwatch| trainer::train(context, task, None, watch);
        self.train_by(context, steps, run)
    }

    fn train_by<'c>(
        &self,
        context: &'c Context,
        steps: usize,
        train: impl FnOnce(&Task, &mut Stopwatch<'c>) -> Result<Trained>,
    ) -> Result<(Stopwatch<'c>, Mlp)> {
        // Whole epochs of just the steps that are needed.
        let batch = self.config.training.batch_size;
        let wanted = WARM_UP + steps;
        let steps_per_epoch = wanted.min(EXAMPLES / batch);
        let mut config = self.config.clone();
        config.training.epochs = wanted.div_ceil(steps_per_epoch);
        let examples = steps_per_epoch * batch;
        let split = self.split.clone().truncated(examples);
        let classes = *config.model.layers.last().unwrap_or(&0);
        let task = Task {
            objective: self.objective,
            teacher_logits: self.teacher_logits.as_ref().map(|v| &v[..examples * classes]),
            ..Task::hard(self.name(), &config, &split)
        };
        let mut stopwatch = Stopwatch {
            context,
            precision: self.config.training.precision,
            skip: WARM_UP,
            steps,
            last: Instant::now(),
            forks_before: 0,
            forks: 0,
            seconds: Vec::with_capacity(steps),
            peaks: Vec::with_capacity(steps / WINDOW + 2),
            issue_rates: Vec::with_capacity(steps + 1),
        };
        let trained = train(&task, &mut stopwatch)?;
        Ok((stopwatch, trained.model))
    }
}

/// Times steps and, between them, the peak and how calm it is.
struct Stopwatch<'c> {
    context: &'c Context,
    precision: Precision,
    /// Steps that are still to be skipped.
    skip: usize,
    steps: usize,
    /// When the last step, or the last measurement of the peak, ended.
    last: Instant,
    /// The pool's forks until then, and those of the timed steps.
    forks_before: u64,
    forks: u64,
    seconds: Vec<f64>,
    /// Before, between and behind windows of steps.
    peaks: Vec<f64>,
    /// Before, between and behind steps.
    issue_rates: Vec<f64>,
}

impl Stopwatch<'_> {
    /// The calm ones of the timed steps, of `flop` operations each.
    fn calm(&self, flop: f64) -> Option<Calm> {
        let calm = calm(&self.issue_rates);
        let between = calm.windows(2).map(|around| around[0] && around[1]);
        let steps: Vec<(f64, f64)> = between
            .zip(self.seconds.iter().enumerate())
            .filter(|(calm, _)| *calm)
            .map(|(_, (step, seconds))| {
                let around = &self.peaks[step / WINDOW..][..2];
                (*seconds, flop / seconds / ((around[0] + around[1]) / 2.0))
            })
            .collect();
        (!steps.is_empty()).then(|| Calm {
            steps: steps.len(),
            issued_g_per_s: Spread::of(self.issue_rates.iter().copied()).max / 1e9,
            ms_per_step: Spread::of(steps.iter().map(|(seconds, _)| seconds * 1e3)),
            fraction_of_peak: Spread::of(steps.iter().map(|(_, share)| *share)).median,
        })
    }
}

impl Observer for Stopwatch<'_> {
    fn on_step(&mut self, _: &Progress) {
        if self.skip > 0 {
            self.skip -= 1;
            if self.skip > 0 {
                return;
            }
        } else if self.seconds.len() < self.steps {
            self.seconds.push(self.last.elapsed().as_secs_f64());
            self.forks += self.context.pool.forks() - self.forks_before;
        } else {
            return;
        }
        let done = self.seconds.len();
        if done.is_multiple_of(WINDOW) || done == self.steps {
            self.peaks.push(peak_flops(self.context, self.precision));
        }
        self.issue_rates.extend(peak::issue_rate(self.context, PROBE));
        self.forks_before = self.context.pool.forks();
        self.last = Instant::now();
    }

    fn warn(&mut self, message: &str) {
        eprintln!("{message}");
    }
}

/// The most memory that the process has held, in 10⁶ bytes, where Linux tells.
pub fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let step = self;
        write!(f, "{}", step.machine)?;
        let ms = step.ms_per_step;
        writeln!(
            f,
            "{} {}, batch {}, {}: {:.3} ms a step ({:.3} to {:.3})",
            step.task,
            step.net,
            step.batch,
            step.precision.name(),
            ms.median,
            ms.min,
            ms.max
        )?;
        write!(f, "{}", step.rate)?;
        if let Some(calm) = &step.calm {
            let Calm { steps, issued_g_per_s, ms_per_step: ms, fraction_of_peak } = calm;
            writeln!(
                f,
                "{steps} of {} steps without neighbours ({issued_g_per_s:.1} G instructions/s): \
                 {:.3} ms ({:.3} to {:.3}), {:.1} %",
                step.steps,
                ms.median,
                ms.min,
                ms.max,
                fraction_of_peak * 100.0
            )?;
        }
        writeln!(f, "{:.0} samples/s", 1e3 * step.batch as f64 / ms.median)?;
        writeln!(
            f,
            "{:.0} fork-joins of {:.2} µs: {:.2} % of the step",
            step.forks_per_step,
            step.fork_join_us,
            step.fraction_of_forks * 100.0
        )?;
        if let Some(mb) = step.peak_rss_mb {
            writeln!(f, "{mb:.0} MB at most")?;
        }
        writeln!(f, "parameters after {} steps: {}", step.steps, step.params_sha256)
    }
}
