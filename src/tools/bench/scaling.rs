//! How synchronous training would scale over nodes: a model of a step's time, from what one node's
//! step takes and what a network carries.
//!
//! A node with b examples spends tᶠ(l) and tᵇ(l) on layer l forwards and backwards, in proportion
//! to the floating-point operations of the measured step, and u on the optimiser. The gradient of
//! layer l, m bytes, is summed over n nodes ([`crate::engine::communicator`]) in
//!
//! c(l) = 2·log₂ n·α + m·(n − 1)/n·(2/β + 1/γ)
//!
//! with α the latency of a message, β the bandwidth of a link, and γ the speed of the addition.
//! Sums go one after the other, the last layer's first, each once its gradient is known: with
//! F = Σ tᶠ, layer l is known at r(l) = F + Σ tᵇ over the layers from l up, and its sum ends at
//! e(l) = max(r(l), e(l + 1)) + c(l). A step takes max(r(0), e(0)) + u. Efficiency is the share of
//! n nodes' time that one node would need for the same examples.
//!
//! What the model leaves out: nodes of unequal speed, switches that cannot serve all links at once,
//! the other cores that a message may use, and the wait for the loss (one more small message).

use super::measure::{Machine, Spread, random};
use super::step::{StepBench, StepTask};
use crate::engine::{communicator::Communicator, config::Config, mlp::Mlp, optimizer::Optimizer};
use crate::files::error::Result;
use limbeck_kernels::{Buffer, Context};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::{collections::BTreeSet, time::Instant};

/// A network between nodes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Network {
    /// α, seconds.
    pub latency: f64,
    /// β of a link in one direction, bytes per second.
    pub bandwidth: f64,
    /// γ, bytes of the sum per second.
    pub addition: f64,
}

/// What a step costs one node.
#[derive(Clone, Debug, Serialize)]
pub struct NodeStep {
    /// Examples.
    pub batch: usize,
    /// tᶠ(l), tᵇ(l) in seconds and the bytes of the gradient in f32, first layer first.
    pub layers: Vec<(f64, f64, f64)>,
    /// u, seconds.
    pub update: f64,
}

impl NodeStep {
    /// Of a measured `step` and `update` of a net, in seconds.
    #[must_use]
    pub fn of(model: &Mlp, batch: usize, step: f64, update: f64) -> NodeStep {
        let flop = model.flop_per_step(batch);
        let second = (step - update).max(0.0) / flop;
        let layers = model.layers().iter().enumerate().map(|(i, layer)| {
            let product = 2.0 * (batch * layer.inputs * layer.outputs) as f64;
            let backward = if i == 0 { 1.0 } else { 2.0 };
            let bytes = 4.0 * (layer.inputs * layer.outputs + layer.outputs) as f64;
            (product * second, backward * product * second, bytes)
        });
        NodeStep { batch, layers: layers.collect(), update }
    }

    /// The whole step without a network.
    #[must_use]
    pub fn alone(&self) -> f64 {
        self.layers.iter().map(|(forward, backward, _)| forward + backward).sum::<f64>()
            + self.update
    }

    /// The step over `nodes` nodes with this batch each.
    #[must_use]
    pub fn on(&self, nodes: usize, network: Network, how: How) -> f64 {
        let forward: f64 = self.layers.iter().map(|layer| layer.0).sum();
        let (mut known, mut ended) = (forward, 0.0_f64);
        let mut sums = 0.0;
        for (_, backward, bytes) in self.layers.iter().rev() {
            known += backward;
            let sum = network.sum(nodes, bytes * how.bytes_per_value / 4.0);
            ended = known.max(ended) + sum;
            sums += sum;
        }
        let end = if how.overlap { ended.max(known) } else { known + sums };
        end + self.update
    }
}

impl Network {
    /// c of a message of `bytes`.
    #[must_use]
    pub fn sum(&self, nodes: usize, bytes: f64) -> f64 {
        let n = nodes as f64;
        2.0 * n.log2() * self.latency
            + bytes * (n - 1.0) / n * (2.0 / self.bandwidth + 1.0 / self.addition)
    }
}

/// A way to communicate.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct How {
    /// Whether sums travel while the layers below are differentiated; this program does.
    pub overlap: bool,
    /// 4 for f32, which this program sends; 2 would be bf16.
    pub bytes_per_value: f64,
}

/// What is predicted, and what was measured to predict it.
#[derive(Clone, Debug, Serialize)]
pub struct Scaling {
    /// Where one node was measured.
    #[serde(flatten)]
    pub machine: Machine,
    /// The net.
    pub net: String,
    /// Its parameters.
    pub parameters: usize,
    /// A node with the whole batch, with half of it, and so on.
    pub steps: Vec<NodeStep>,
    /// γ, GB/s.
    pub addition_gb_per_s: f64,
    /// α, µs, as assumed.
    pub latency_us: f64,
    /// One row for each network, way and number of nodes.
    pub rows: Vec<Prediction>,
    /// In a job of several ranks: their network and a step, measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub here: Option<Here>,
}

/// A step over nodes.
#[derive(Clone, Debug, Serialize)]
pub struct Prediction {
    /// Of a link, 10⁹ bits per second.
    pub gbit_per_s: f64,
    /// Nodes.
    pub nodes: usize,
    /// Examples of a node.
    pub batch: usize,
    /// Whether the batch of the job stays the same, or that of a node.
    pub strong: bool,
    /// The way.
    pub how: How,
    /// A step, ms.
    pub ms: f64,
    /// Share of it that is not the node's own work.
    pub waiting: f64,
    /// Share of the nodes' time that is used.
    pub efficiency: f64,
}

/// The model beside the ranks of this job.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Here {
    /// Ranks.
    pub ranks: usize,
    /// α, µs, and β, 10⁹ bits per second, from sums of a small and of a large array.
    pub latency_us: f64,
    /// See `latency_us`.
    pub gbit_per_s: f64,
    /// A step of all ranks, each with `batch` examples, ms.
    pub measured_ms: Spread,
    /// The same by the model.
    pub predicted_ms: f64,
}

/// The largest job that is looked at.
const MOST: usize = 256;

/// Measures steps of `net` with `batch` examples and fewer, and predicts those of up to 256 nodes
/// joined by links of `gbit_per_s` 10⁹ bits per second with `latency_us`; in a job of several
/// ranks also measures one of theirs.
///
/// # Errors
/// As [`StepBench::run`]; those of the communicator.
pub fn measure(
    context: &Context,
    mut communicator: Option<&mut Communicator>,
    widths: &[usize],
    batch: usize,
    gbit_per_s: &[f64],
    latency_us: f64,
) -> Result<Scaling> {
    let model = Mlp::new(widths, 0);
    let update = seconds_of_update(context, widths)?;
    let node = |batch: usize| -> Result<NodeStep> {
        let seconds = bench(widths, batch)?.unfused(context, rounds(&model, batch))?;
        Ok(NodeStep::of(&model, batch, Spread::of(seconds).median, update))
    };
    // All ranks measure at the same time: they share the machine in their steps, too.
    let batches: Vec<usize> =
        (0..=MOST.ilog2()).map(|halves| batch >> halves).take_while(|&b| b > 0).collect();
    let steps: Vec<NodeStep> = batches.iter().map(|&b| node(b)).collect::<Result<_>>()?;
    let addition = addition();
    let here = match &mut communicator {
        Some(communicator) if communicator.size() > 1 => {
            Some(here(context, communicator, widths, &steps[0], addition)?)
        }
        _ => None,
    };
    let ways = [(true, 4.0), (false, 4.0), (true, 2.0)]
        .map(|(overlap, bytes_per_value)| How { overlap, bytes_per_value });
    let mut rows = Vec::new();
    for &gbit_per_s in gbit_per_s {
        let bandwidth = gbit_per_s * 1e9 / 8.0;
        let network = Network { latency: latency_us * 1e-6, bandwidth, addition };
        for how in ways {
            for nodes in (0..=MOST.ilog2()).map(|bits| 1 << bits) {
                let mut predict = |step: &NodeStep, strong| {
                    let seconds = step.on(nodes, network, how);
                    // What one node would take for the examples of all.
                    let one = steps[0].alone() * if strong { 1.0 } else { nodes as f64 };
                    rows.push(Prediction {
                        gbit_per_s,
                        nodes,
                        batch: step.batch,
                        strong,
                        how,
                        ms: seconds * 1e3,
                        waiting: 1.0 - step.alone() / seconds,
                        efficiency: one / (nodes as f64 * seconds),
                    });
                };
                predict(&steps[0], false);
                if let Some(step) = steps.iter().find(|step| step.batch * nodes == batch) {
                    predict(step, true);
                }
            }
        }
    }
    let net = widths.iter().map(usize::to_string).collect::<Vec<_>>().join("-");
    let parameters = model.layers().iter().map(|l| l.inputs * l.outputs + l.outputs).sum();
    let machine = Machine::of(context);
    let addition_gb_per_s = addition / 1e9;
    Ok(Scaling { machine, net, parameters, steps, addition_gb_per_s, latency_us, rows, here })
}

/// Steps that leave the weights where they are: larger ones diverge on random labels.
fn bench(widths: &[usize], batch: usize) -> Result<StepBench> {
    let mut bench = StepBench::new(widths, batch, StepTask::Teacher)?;
    bench.config.training.learning_rate = 1e-6;
    Ok(bench)
}

/// Steps to time: about two seconds of 50 GFLOP/s, but at least five.
fn rounds(model: &Mlp, batch: usize) -> usize {
    (1e11 / model.flop_per_step(batch)).clamp(5.0, 200.0) as usize
}

/// u: the median optimiser's step on random gradients.
fn seconds_of_update(context: &Context, widths: &[usize]) -> Result<f64> {
    let mut config = Config::default();
    config.model.layers = widths.to_vec();
    config.training.learning_rate = 1e-9;
    let mut model = Mlp::new(widths, 0);
    let mut optimizer = Optimizer::new(&config.training, &model);
    let grads = random(1, model.params().len());
    let mut seconds = Vec::new();
    for _ in 0..9 {
        let start = Instant::now();
        let stepped = context.pool.install(|| optimizer.step(context, 0.0, &mut model, &grads));
        stepped.map_err(|e| crate::Error::Internal(format!("{e:?}")))?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(Spread::of(seconds).median)
}

/// γ: one array added to another by one thread, as the thread that talks does it.
fn addition() -> f64 {
    let (mut sum, other) = (random(1, 1 << 22), random(2, 1 << 22));
    let rate = |_| {
        let start = Instant::now();
        sum.iter_mut().zip(&*other).for_each(|(s, o)| *s += o);
        4.0 * sum.len() as f64 / start.elapsed().as_secs_f64()
    };
    Spread::of((0..9).map(rate)).median
}

/// The ranks of this job, and a step of theirs.
fn here(
    context: &Context,
    communicator: &mut Communicator,
    widths: &[usize],
    step: &NodeStep,
    addition: f64,
) -> Result<Here> {
    const LARGE: usize = 1 << 20;
    let ranks = communicator.size();
    let mut sum = |len: usize| -> Result<f64> {
        let mut seconds = Vec::new();
        for _ in 0..21 {
            communicator.gather(vec![0], vec![1; ranks])?;
            let start = Instant::now();
            communicator.start_sum(Buffer::zeroed(len));
            communicator.finish_sum()?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        Ok(Spread::of(seconds).median)
    };
    let (small, large) = (sum(16)?, sum(LARGE)?);
    let n = ranks as f64;
    let latency = small / (2.0 * n.log2());
    let bytes = 4.0 * LARGE as f64 * (n - 1.0) / n;
    let bandwidth = 2.0 / ((large - small) / bytes - 1.0 / addition).max(1e-13);
    let network = Network { latency, bandwidth, addition };
    let rounds = rounds(&Mlp::new(widths, 0), step.batch);
    let seconds = bench(widths, step.batch * ranks)?.together(context, communicator, rounds)?;
    let how = How { overlap: true, bytes_per_value: 4.0 };
    Ok(Here {
        ranks,
        latency_us: latency * 1e6,
        gbit_per_s: bandwidth * 8.0 / 1e9,
        measured_ms: Spread::of(seconds).times(1e3),
        predicted_ms: step.on(ranks, network, how) * 1e3,
    })
}

impl Display for Scaling {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let found = self;
        write!(f, "{}", found.machine)?;
        let node = &found.steps[0];
        writeln!(
            f,
            "{}, {} parameters, batch {}: {:.2} ms a step on one node",
            found.net,
            found.parameters,
            node.batch,
            node.alone() * 1e3
        )?;
        writeln!(f, "efficiency in % (share of the step spent waiting in %), overlapped f32 sums")?;
        let used = |row: &&Prediction| row.how.overlap && row.how.bytes_per_value == 4.0;
        for (strong, title) in [(false, "batch of a node kept"), (true, "batch of the job kept")] {
            writeln!(f, "\n{title:<22}{}", columns(found, |gbit| format!("{gbit} Gbit/s")))?;
            let rows = || found.rows.iter().filter(used).filter(|row| row.strong == strong);
            let nodes: BTreeSet<usize> = rows().map(|row| row.nodes).collect();
            for n in nodes {
                let cell = |gbit: f64| {
                    let row = rows().find(|row| row.nodes == n && row.gbit_per_s == gbit);
                    row.map_or(String::new(), |row| {
                        format!("{:.0} ({:.0})", row.efficiency * 100.0, row.waiting * 100.0)
                    })
                };
                let nodes = if n == 1 { "1 node".into() } else { format!("{n} nodes") };
                writeln!(f, "{nodes:<22}{}", columns(found, cell))?;
            }
        }
        writeln!(f, "\nmost nodes that are half used, batch of a node kept")?;
        for (title, overlap, bytes) in [
            ("as it is", true, 4.0),
            ("without overlap", false, 4.0),
            ("bf16 gradients", true, 2.0),
        ] {
            let cell = |gbit: f64| {
                let fits = |row: &&Prediction| {
                    let How { overlap: o, bytes_per_value: b } = row.how;
                    row.gbit_per_s == gbit && !row.strong && (o, b) == (overlap, bytes)
                };
                let half = |row: &&Prediction| row.efficiency >= 0.5;
                let most = found.rows.iter().filter(fits).filter(half).map(|row| row.nodes).max();
                most.map_or("none".into(), |n| n.to_string())
            };
            writeln!(f, "{title:<22}{}", columns(found, cell))?;
        }
        let Some(Here { ranks, latency_us, gbit_per_s, measured_ms, predicted_ms }) = found.here
        else {
            return Ok(());
        };
        writeln!(
            f,
            "\nhere: {ranks} ranks, {latency_us:.1} µs, {gbit_per_s:.2} Gbit/s: {:.2} ms a step \
             ({:.2} to {:.2}), {predicted_ms:.2} by the model",
            measured_ms.median, measured_ms.min, measured_ms.max
        )
    }
}

/// A cell for each network.
fn columns(found: &Scaling, cell: impl Fn(f64) -> String) -> String {
    let mut networks: Vec<f64> = found.rows.iter().map(|row| row.gbit_per_s).collect();
    networks.dedup();
    networks.into_iter().map(|gbit| format!("{:>14}", cell(gbit))).collect()
}
