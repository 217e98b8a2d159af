//! What `limbeck bench` measures: the machine's limits, and how near to them we come.
//!
//! Every rate stands beside the peak of fused multiply-adds, measured between the timings with the
//! same threads: a neighbour on the machine slows both. Shares are medians of such pairs. Data is
//! random, never zero; the first calls are not counted; floating-point operations are 2·m·n·k for
//! each product.

pub mod scaling;

use crate::engine::communicator::Communicator;
use crate::engine::config::Config;
use crate::engine::loss::{self, LossSpec};
use crate::engine::mlp::{Mlp, Workspace};
use crate::engine::optimizer::{NotFinite, Optimizer};
use crate::engine::trainer::{self, EpochRecord, Observer, Progress, Task, Trained};
use crate::files::error::{Error, Result};
use crate::files::write::atomic_write;
use crate::run::manifest::cpu_model;
use limbeck_datasets::Split;
use limbeck_kernels::gemm::{self, Layout, Packed};
use limbeck_kernels::random::{Dropout as Mask, Key};
use limbeck_kernels::softmax::{self, Distillation};
use limbeck_kernels::{
    Buffer, Context, Isa, MatMut, MatRef, Panels, PanelsMut, activation, panel_len, peak,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time given to one measurement of the peak between two timings.
const PROBE: Duration = Duration::from_millis(3);

/// Where figures were measured.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor, as it calls itself.
    pub cpu: String,
    /// The instruction set.
    pub isa: String,
    /// Threads.
    pub threads: usize,
}

impl Machine {
    fn of(context: &Context) -> Machine {
        let (isa, threads) = (context.isa.to_string(), context.pool.threads());
        Machine { cpu: cpu_model(), isa, threads }
    }
}

/// The median and the extremes of some timings or rates.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// Half of the values are at most this.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    ///
    /// # Panics
    /// If there is none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Spread { median: (low + high) / 2.0, min: values[0], max: values[values.len() - 1] }
    }

    fn times(self, factor: f64) -> Spread {
        let Spread { median, min, max } = self;
        Spread { median: median * factor, min: min * factor, max: max * factor }
    }
}

/// A rate beside the peak that was measured around it.
#[derive(Clone, Copy)]
struct Sample {
    flops: f64,
    peak: f64,
}

/// Times `work` of `flop` operations, `rounds` times, with the peak before and after each.
fn beside_peak(
    context: &Context,
    flop: f64,
    rounds: usize,
    mut work: impl FnMut(),
) -> (Vec<Sample>, Spread) {
    let mut once = || {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    once();
    let calls = (4e-3 / once()).ceil().clamp(1.0, 1e6) as usize;
    let (mut samples, mut seconds) = (Vec::new(), Vec::new());
    let mut before = peak::flops(context, PROBE);
    for _ in 0..rounds {
        let each = Spread::of((0..calls).map(|_| once())).median;
        let after = peak::flops(context, PROBE);
        samples.push(Sample { flops: flop / each, peak: (before + after) / 2.0 });
        seconds.push(each);
        before = after;
    }
    (samples, Spread::of(seconds))
}

/// The machine's limits.
#[derive(Debug, Serialize)]
pub struct Peak {
    /// Where.
    #[serde(flatten)]
    pub machine: Machine,
    /// Of fused multiply-adds in f32, for the instruction set in use.
    pub peak_gflops: Spread,
    /// Of every instruction set this machine has, with the same threads.
    pub isas: Vec<IsaPeak>,
    /// All threads reading at once, each its own memory.
    pub read_gb_per_s: Vec<Bandwidth>,
}

/// The peak of one instruction set.
#[derive(Debug, Serialize)]
pub struct IsaPeak {
    /// Its name.
    pub isa: String,
    /// Its rate.
    pub gflops: f64,
}

/// A read bandwidth.
#[derive(Debug, Serialize)]
pub struct Bandwidth {
    /// What each thread reads again and again.
    pub kib_per_thread: usize,
    /// 10⁹ bytes per second, all threads together.
    pub gb_per_s: f64,
}

/// Measures the peak and the bandwidth of caches and memory; takes a few seconds.
///
/// # Errors
/// [`Error::Usage`] when threads for the other instruction sets are refused.
pub fn peak(context: &Context) -> Result<Peak> {
    const SHORT: Duration = Duration::from_millis(50);
    let threads = context.pool.threads();
    let rate = |context: &Context| peak::flops(context, SHORT) / 1e9;
    let mut isas = Vec::new();
    for isa in Isa::available() {
        let other = Context::new(isa, threads).map_err(Error::Usage)?;
        let gflops = Spread::of((0..5).map(|_| rate(&other))).median;
        isas.push(IsaPeak { isa: isa.to_string(), gflops });
    }
    let bandwidth = |kib: usize| {
        let once = |_| peak::read_bandwidth(context, kib << 10, SHORT) / 1e9;
        Bandwidth { kib_per_thread: kib, gb_per_s: Spread::of((0..5).map(once)).median }
    };
    Ok(Peak {
        machine: Machine::of(context),
        peak_gflops: Spread::of((0..9).map(|_| rate(context))),
        isas,
        read_gb_per_s: [16, 512, 8 << 10, 256 << 10].map(bandwidth).into(),
    })
}

/// A row-major product C [m, n] = A·B.
#[derive(Debug, Serialize)]
pub struct Gemm {
    /// Where.
    #[serde(flatten)]
    pub machine: Machine,
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
    /// `nn`, `nt` or `tn`: which operand is stored transposed.
    pub layout: String,
    /// A call, packing included.
    pub ms: Spread,
    /// Of the median call.
    pub gflops: f64,
    /// Measured between the calls.
    pub peak_gflops: f64,
    /// Median of paired shares.
    pub fraction_of_peak: f64,
}

/// Times [`gemm::gemm`] on random operands.
pub fn gemm(context: &Context, m: usize, n: usize, k: usize, layout: Layout) -> Gemm {
    let (a, b) = (random(1, m * k), random(2, k * n));
    let mut c = Buffer::zeroed(m * n);
    let mut packed = Packed::default();
    let (a_rows, a_cols) = if layout == Layout::Tn { (k, m) } else { (m, k) };
    let (b_rows, b_cols) = if layout == Layout::Nt { (n, k) } else { (k, n) };
    let flop = 2.0 * (m * n * k) as f64;
    let (samples, seconds) = context.pool.install(|| {
        beside_peak(context, flop, 25, || {
            gemm::gemm(
                context,
                layout,
                MatRef::new(&a, a_rows, a_cols, a_cols),
                MatRef::new(&b, b_rows, b_cols, b_cols),
                0.0,
                MatMut::new(&mut c, m, n, n),
                &mut packed,
            );
        })
    });
    Gemm {
        machine: Machine::of(context),
        m,
        n,
        k,
        layout: format!("{layout:?}").to_lowercase(),
        ms: seconds.times(1e3),
        gflops: flop / seconds.median / 1e9,
        peak_gflops: Spread::of(samples.iter().map(|s| s.peak)).median / 1e9,
        fraction_of_peak: Spread::of(samples.iter().map(|s| s.flops / s.peak)).median,
    }
}

/// `len` values, uniform in −1 … 1.
fn random(seed: u64, len: usize) -> Buffer {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut buffer = Buffer::zeroed(len);
    buffer.fill_with(|| rng.next_u32() as i32 as f32 / (1_u32 << 31) as f32);
    buffer
}

/// Softmax and its kin on one shape.
#[derive(Debug, Serialize)]
pub struct Softmax {
    /// Where.
    #[serde(flatten)]
    pub machine: Machine,
    /// Classes.
    pub classes: usize,
    /// Examples.
    pub batch: usize,
    /// T.
    pub temperature: f64,
    /// softmax(z/T), nanoseconds an element.
    pub softmax_ns: f64,
    /// log softmax(z/T).
    pub log_softmax_ns: f64,
    /// The gradient and the losses of soft targets at T and of labels, both softmaxes and the
    /// teacher's included.
    pub distillation_ns: f64,
}

/// Times the softmax kernels on random logits.
pub fn softmax(context: &Context, classes: usize, batch: usize, temperature: f64) -> Softmax {
    let scale = |mut z: Buffer| {
        z.iter_mut().for_each(|z| *z *= 8.0);
        z
    };
    let len = panel_len(classes, batch);
    let (z, v) = (scale(random(1, len)), scale(random(2, len)));
    let (z, v) = (Panels::new(&z, classes, batch), Panels::new(&v, classes, batch));
    let labels: Vec<u16> = (0..batch).map(|i| (i % classes) as u16).collect();
    let mut losses = vec![Default::default(); z.panels()];
    let mut out = Buffer::zeroed(len);
    let t = temperature as f32;
    let ns = |work: &mut dyn FnMut()| {
        let (_, seconds) = context.pool.install(|| beside_peak(context, 0.0, 25, work));
        seconds.median * 1e9 / (classes * batch) as f64
    };
    let task = Distillation {
        teacher: Some(v),
        labels: Some(&labels),
        temperature: t,
        soft_weight: 1.0,
        hard_weight: 0.05,
    };
    Softmax {
        machine: Machine::of(context),
        classes,
        batch,
        temperature,
        softmax_ns: ns(&mut || {
            softmax::softmax(context, z, t, PanelsMut::new(&mut out, classes, batch));
        }),
        log_softmax_ns: ns(&mut || {
            softmax::log_softmax(context, z, t, PanelsMut::new(&mut out, classes, batch));
        }),
        distillation_ns: ns(&mut || {
            let d_logits = PanelsMut::new(&mut out, classes, batch);
            task.gradient(context, z, &mut losses, d_logits);
        }),
    }
}

/// Dropout of a matrix of activations.
#[derive(Debug, Serialize)]
pub struct Dropout {
    /// Where.
    #[serde(flatten)]
    pub machine: Machine,
    /// Units.
    pub units: usize,
    /// Examples.
    pub batch: usize,
    /// Probability to be dropped.
    pub rate: f64,
    /// Share that was dropped in the last pass.
    pub dropped: f64,
    /// A pass that draws the random numbers, drops and scales, nanoseconds an element.
    pub dropout_ns: Spread,
}

/// Times [`activation::dropout`] on ones.
pub fn dropout(context: &Context, units: usize, batch: usize, rate: f64) -> Dropout {
    let mut y = random(1, panel_len(units, batch));
    let mask = Mask::new(Key::new(0, 0, 0), rate as f32, batch);
    let pass = |y: &mut Buffer| {
        activation::dropout(context, mask, PanelsMut::new(y, units, batch));
    };
    // The same elements are dropped each time and the others scaled up, to infinity at the most,
    // which takes no longer.
    let (_, seconds) = context.pool.install(|| beside_peak(context, 0.0, 25, || pass(&mut y)));
    let ones = vec![1.0; units * batch];
    PanelsMut::new(&mut y, units, batch).copy_from_lane_major(&ones);
    pass(&mut y);
    let kept = y.iter().filter(|&&y| y > 0.0).count();
    let elements = (units * batch) as f64;
    Dropout {
        machine: Machine::of(context),
        units,
        batch,
        rate,
        dropped: 1.0 - kept as f64 / elements,
        dropout_ns: seconds.times(1e9 / elements),
    }
}

/// The figures of evaluation: the logits of 8192 images.
#[derive(Debug, Serialize)]
pub struct Inference {
    /// Where.
    #[serde(flatten)]
    pub machine: Machine,
    /// Widths of the layers.
    pub net: String,
    /// Images.
    pub examples: usize,
    /// 2·m·n·k for each product.
    pub gflop: f64,
    /// For all images.
    pub ms: Spread,
    /// In the median.
    pub samples_per_second: f64,
    /// In the median.
    pub gflops: f64,
    /// Measured between.
    pub peak_gflops: f64,
    /// Median of paired shares.
    pub fraction_of_peak: f64,
}

/// Times [`Mlp::logits`] of the net `widths` on random images.
///
/// # Errors
/// As [`StepBench::new`].
pub fn inference(context: &Context, widths: &[usize]) -> Result<Inference> {
    let bench = StepBench::new(widths, 1, StepTask::Teacher)?;
    let model = Mlp::new(widths, 0);
    let values: usize = widths.windows(2).map(|w| w[0] * w[1]).sum();
    let flop = 2.0 * (EXAMPLES * values) as f64;
    let (samples, seconds) = context.pool.install(|| {
        beside_peak(context, flop, 15, || {
            std::hint::black_box(model.logits(context, &bench.split));
        })
    });
    Ok(Inference {
        machine: Machine::of(context),
        net: bench.net(),
        examples: EXAMPLES,
        gflop: flop / 1e9,
        ms: seconds.times(1e3),
        samples_per_second: EXAMPLES as f64 / seconds.median,
        gflops: flop / seconds.median / 1e9,
        peak_gflops: Spread::of(samples.iter().map(|s| s.peak)).median / 1e9,
        fraction_of_peak: Spread::of(samples.iter().map(|s| s.flops / s.peak)).median,
    })
}

/// Which training a step is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepTask {
    /// Labels; dropout of 0.2 of the inputs and 0.5 of each hidden layer.
    Teacher,
    /// Cached teacher logits at T = 20 and, with weight 0.05, labels; no dropout.
    Student,
}

/// Examples of the random training set.
const EXAMPLES: usize = 8192;
/// Steps that are not counted.
const WARM_UP: usize = 8;
/// Timed steps between two measurements of the peak.
const WINDOW: usize = 10;

/// A training whose steps are timed: SGD with momentum 0.9, images resident as u8 and gathered in
/// a new random order each epoch.
pub struct StepBench {
    task: StepTask,
    config: Config,
    split: Split,
    objective: LossSpec,
    teacher_logits: Option<Vec<f32>>,
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
    /// Examples of a step.
    pub batch: usize,
    /// Timed steps.
    pub steps: usize,
    /// 2·m·n·k for each product; no input gradient for the first layer.
    pub gflop_per_step: f64,
    /// From one step's end to the next one's.
    pub ms_per_step: Spread,
    /// Of the median step.
    pub gflops: f64,
    /// Measured between the steps.
    pub peak_gflops: f64,
    /// Median of paired shares.
    pub fraction_of_peak: f64,
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

/// A batch, and what three steps of SGD on it without dropout should give.
#[derive(Debug, Serialize)]
pub struct Case {
    /// `[batch, inputs]`; an input is pixel / 255.
    pub pixels: Vec<u8>,
    /// `[batch]`.
    pub labels: Vec<u16>,
    /// `[batch, classes]`, for a student.
    pub teacher_logits: Option<Vec<f32>>,
    /// T of the soft term.
    pub temperature: f32,
    /// Weight of T² · CE(softmax(v/T), softmax(z/T)).
    pub soft_weight: f32,
    /// Weight of CE(label, softmax(z)).
    pub hard_weight: f32,
    /// η in w ← w − η·v.
    pub learning_rate: f64,
    /// m in v ← m·v + g.
    pub momentum: f64,
    /// The mean loss before each step.
    pub losses: Vec<f64>,
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

    /// `teacher` or `student`.
    pub fn name(&self) -> &'static str {
        match self.task {
            StepTask::Teacher => "teacher",
            StepTask::Student => "student",
        }
    }

    fn net(&self) -> String {
        let widths: Vec<String> = self.config.model.layers.iter().map(usize::to_string).collect();
        widths.join("-")
    }

    /// Floating-point operations of a step.
    pub fn flop(&self) -> f64 {
        let Config { model, training, .. } = &self.config;
        let products = |i| if i == 0 { 2.0 } else { 3.0 };
        let layers = model.layers.windows(2).enumerate();
        let values = |w: &[usize]| (w[0] * w[1] * training.batch_size) as f64;
        layers.map(|(i, widths)| 2.0 * products(i) * values(widths)).sum()
    }

    /// Times `steps` steps of one training, after some to warm up. The first step of an epoch
    /// includes the new shuffle.
    ///
    /// # Errors
    /// As [`trainer::train`].
    pub fn run(&self, context: &Context, steps: usize) -> Result<Step> {
        let flop = self.flop();
        let (stopwatch, model) = self.train(context, steps)?;
        let ms_per_step = Spread::of(stopwatch.seconds.iter().map(|s| s * 1e3));
        let shares = stopwatch.seconds.chunks(WINDOW).zip(stopwatch.peaks.windows(2));
        let shares = shares.map(|(seconds, peaks)| {
            let seconds = Spread::of(seconds.iter().copied()).median;
            flop / seconds / ((peaks[0] + peaks[1]) / 2.0)
        });
        let forks_per_step = stopwatch.forks as f64 / steps as f64;
        let fork_join_us = peak::fork_join(context) * 1e6;
        Ok(Step {
            machine: Machine::of(context),
            net: self.net(),
            task: self.name().into(),
            batch: self.config.training.batch_size,
            steps,
            gflop_per_step: flop / 1e9,
            ms_per_step,
            gflops: flop / ms_per_step.median / 1e6,
            peak_gflops: Spread::of(stopwatch.peaks.iter().copied()).median / 1e9,
            fraction_of_peak: Spread::of(shares).median,
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
    fn unfused(&self, context: &Context, steps: usize) -> Result<Vec<f64>> {
        let run = |task: &Task, watch: &mut Stopwatch| trainer::train_unfused(context, task, watch);
        Ok(self.train_by(context, steps, run)?.0.seconds)
    }

    /// Seconds of each of `steps` steps by all ranks together, a shard each.
    fn together(
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

    /// Writes to `folder` what another implementation needs to repeat a few steps without dropout,
    /// and the losses that it should find: `model.safetensors`, the initial weights, and
    /// `case.json`, a [`Case`].
    ///
    /// # Errors
    /// As [`Optimizer::backward_step`], and [`Error::Io`].
    pub fn write_case(&self, context: &Context, folder: &Path) -> Result<()> {
        let mut config = self.config.clone();
        config.training.learning_rate = 0.1;
        let batch = config.training.batch_size;
        let mut model = Mlp::new(&config.model.layers, config.seed);
        let mut optimizer = Optimizer::new(&config.training, &model);
        let mut work = Workspace::for_training(&model, batch);
        let (inputs, classes) = (model.inputs(), model.classes());
        let labels = self.split.labels.as_ref().map(|labels| &labels[..batch]);
        let logits = self.teacher_logits.as_ref().map(|v| &v[..batch * classes]);
        let teacher = logits.map(|logits| {
            let mut panels = Buffer::zeroed(panel_len(classes, batch));
            PanelsMut::new(&mut panels, classes, batch).copy_from_lane_major(logits);
            panels
        });
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        model.to_file().save(&folder.join("model.safetensors"))?;
        let mut losses = Vec::new();
        let indices: Vec<u32> = (0..batch as u32).collect();
        for step in 1..=3 {
            work.load(context, &model, &self.split.batch(&indices), None);
            model.forward(context, &mut work, &[]);
            let teacher = teacher.as_ref().map(|v| Panels::new(v, classes, batch));
            let sum =
                loss::distillation(context, &self.objective, &model, teacher, labels, &mut work);
            losses.push(self.objective.value(sum, batch));
            optimizer.backward_step(context, 0.0, &mut model, &mut work, &[]).map_err(
                |NotFinite { layer, update }| Error::Diverged {
                    tensor: update.into(),
                    layer: Some(layer),
                    epoch: 1,
                    step,
                },
            )?;
        }
        let case = Case {
            pixels: self.split.images().pixels[..batch * inputs].to_vec(),
            labels: labels.unwrap_or_default().to_vec(),
            teacher_logits: logits.map(<[f32]>::to_vec),
            temperature: self.objective.temperature,
            soft_weight: self.objective.soft_weight,
            hard_weight: self.objective.hard_weight,
            learning_rate: config.training.learning_rate,
            momentum: config.training.momentum,
            losses,
        };
        let json =
            serde_json::to_vec(&case).map_err(|e| Error::Internal(format!("case to JSON: {e}")))?;
        atomic_write(&folder.join("case.json"), &json)
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
        let epochs = wanted.div_ceil(steps_per_epoch);
        let mut config = self.config.clone();
        config.training.epochs = epochs;
        let examples = steps_per_epoch * batch;
        let split = self.split.clone().truncated(examples);
        let classes = *config.model.layers.last().unwrap_or(&0);
        let task = Task {
            name: self.name(),
            config: &config,
            split: &split,
            objective: self.objective,
            teacher_logits: self.teacher_logits.as_ref().map(|v| &v[..examples * classes]),
            initial: None,
            watch: &[],
        };
        let mut stopwatch = Stopwatch {
            context,
            skip: WARM_UP,
            steps,
            last: Instant::now(),
            forks_before: 0,
            forks: 0,
            seconds: Vec::with_capacity(steps),
            peaks: Vec::with_capacity(steps / WINDOW + 2),
        };
        let trained = train(&task, &mut stopwatch)?;
        Ok((stopwatch, trained.model))
    }
}

/// Times steps and, between them, the peak.
struct Stopwatch<'c> {
    context: &'c Context,
    /// Steps that are still to be skipped.
    skip: usize,
    /// Steps wanted.
    steps: usize,
    /// When the last step, or the last measurement of the peak, ended.
    last: Instant,
    /// The pool's forks until then, and those of the timed steps.
    forks_before: u64,
    forks: u64,
    seconds: Vec<f64>,
    peaks: Vec<f64>,
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
            self.peaks.push(peak::flops(self.context, PROBE));
        }
        self.forks_before = self.context.pool.forks();
        self.last = Instant::now();
    }

    fn on_epoch(&mut self, _: &EpochRecord) -> Result<()> {
        Ok(())
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
