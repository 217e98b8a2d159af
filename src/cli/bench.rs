//! `limbeck bench`: figures of this machine, each beside its limit.

use super::session::Session;
use clap::{Args, Subcommand, ValueEnum, value_parser};
use limbeck::Result;
use limbeck::engine::communicator::Communicator;
use limbeck::tools::bench::scaling::{self, Here, How, Prediction, Scaling};
use limbeck::tools::bench::{
    self, Dropout, Gemm, Inference, Machine, Peak, Softmax, Step, StepBench, StepTask,
};
use limbeck_kernels::gemm::Layout;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum BenchCommand {
    /// The machine's limits: fused multiply-adds, and reading from caches and memory
    Peak,
    /// A row-major matrix product C [m, n] = A·B, packing included
    Gemm(GemmArgs),
    /// A whole training step: gather, dropout, forward, loss, backward, optimiser
    Step(StepArgs),
    /// A training step over up to 256 nodes, predicted from one node's and a network's figures
    ///
    /// Under mpirun also measured: a step of the job's ranks beside what the model says of it.
    Scaling(ScalingArgs),
    /// Evaluation: the logits of 8192 images
    Inference(InferenceArgs),
    /// Softmax with temperature, its logarithm, and the distillation gradient
    Softmax(SoftmaxArgs),
    /// A dropout mask: drawn, and applied to activations
    Dropout(DropoutArgs),
}

#[derive(Args)]
pub struct GemmArgs {
    /// Rows of C
    #[arg(long, default_value = "128", value_parser = size())]
    m: u32,
    /// Columns of C
    #[arg(long, default_value = "1200", value_parser = size())]
    n: u32,
    /// Terms of each sum
    #[arg(long, default_value = "1200", value_parser = size())]
    k: u32,
    /// Which operand is stored transposed: none, B, or A
    #[arg(long, value_enum, default_value = "nn")]
    layout: LayoutName,
}

/// 2¹⁴: three matrices of that size are 3 GiB.
fn size() -> impl clap::builder::TypedValueParser<Value = u32> {
    value_parser!(u32).range(1..=1 << 14)
}

#[derive(Clone, Copy, ValueEnum)]
enum LayoutName {
    Nn,
    Nt,
    Tn,
}

#[derive(Args)]
pub struct StepArgs {
    /// Widths of the layers, inputs first
    #[arg(long, default_value = "784-1200-1200-10", value_parser = net)]
    net: Net,
    /// Examples of a step
    #[arg(long, default_value = "128", value_parser = value_parser!(u32).range(1..=8192))]
    batch: u32,
    /// What is trained
    #[arg(long, value_enum, default_value = "teacher")]
    task: TaskName,
    /// Also write initial weights, a batch and the losses of its first three steps without
    /// dropout to this folder, for another implementation to repeat
    #[arg(long, value_name = "DIR")]
    case: Option<PathBuf>,
    /// Steps to time
    #[arg(long, default_value = "200", value_parser = value_parser!(u32).range(1..=1_000_000))]
    steps: u32,
}

#[derive(Args)]
pub struct ScalingArgs {
    /// Widths of the layers, inputs first
    #[arg(long, default_value = "784-1200-1200-10", value_parser = net)]
    net: Net,
    /// Examples of a step on one node
    #[arg(long, default_value = "128", value_parser = value_parser!(u32).range(1..=8192))]
    batch: u32,
    /// Bandwidths of the links, 10⁹ bits per second
    #[arg(long, default_value = "10,25,100", value_delimiter = ',', value_parser = positive)]
    gbit: Vec<f64>,
    /// Latency of a message, µs
    #[arg(long, default_value = "20", value_parser = positive)]
    latency: f64,
}

#[derive(Args)]
pub struct InferenceArgs {
    /// Widths of the layers, inputs first
    #[arg(long, default_value = "784-1200-1200-10", value_parser = net)]
    net: Net,
}

/// The widths of a net.
#[derive(Clone)]
struct Net(Vec<usize>);

fn net(text: &str) -> std::result::Result<Net, String> {
    let widths: std::result::Result<_, _> = text.split('-').map(str::parse).collect();
    widths.map(Net).map_err(|_| "expected widths joined by '-', as in 784-800-800-10".into())
}

#[derive(Clone, Copy, ValueEnum)]
enum TaskName {
    /// On labels, with dropout of 0.2 of the inputs and 0.5 of the hidden units
    Teacher,
    /// On cached teacher logits at T = 20 and, with weight 0.05, on labels
    Student,
}

#[derive(Args)]
pub struct SoftmaxArgs {
    /// Classes
    #[arg(long, default_value = "10", value_parser = value_parser!(u32).range(2..=65536))]
    classes: u32,
    /// Examples
    #[arg(long, default_value = "128", value_parser = value_parser!(u32).range(1..=8192))]
    batch: u32,
    /// T
    #[arg(long, default_value = "20", value_parser = positive)]
    temperature: f64,
}

fn positive(text: &str) -> std::result::Result<f64, String> {
    let value = text.parse().ok().filter(|t: &f64| t.is_finite() && *t > 0.0);
    value.ok_or_else(|| "expected a positive number".into())
}

#[derive(Args)]
pub struct DropoutArgs {
    /// Units
    #[arg(long, default_value = "1200", value_parser = value_parser!(u32).range(1..=65536))]
    units: u32,
    /// Examples
    #[arg(long, default_value = "128", value_parser = value_parser!(u32).range(1..=8192))]
    batch: u32,
    /// Probability to be dropped
    #[arg(long, default_value = "0.5", value_parser = probability)]
    rate: f64,
}

fn probability(text: &str) -> std::result::Result<f64, String> {
    // As f32, which the kernels take.
    let inside = |p: &f64| (f32::EPSILON..=1.0 - f32::EPSILON).contains(&(*p as f32));
    text.parse().ok().filter(inside).ok_or_else(|| "expected a number between 0 and 1".into())
}

pub fn run(
    session: &Session,
    command: &BenchCommand,
    communicator: Option<&mut Communicator>,
) -> Result<()> {
    let context = &session.context;
    match command {
        BenchCommand::Peak => session.result(&Report(bench::peak(context)?)),
        BenchCommand::Gemm(args) => {
            let layout = match args.layout {
                LayoutName::Nn => Layout::Nn,
                LayoutName::Nt => Layout::Nt,
                LayoutName::Tn => Layout::Tn,
            };
            let [m, n, k] = [args.m, args.n, args.k].map(|size| size as usize);
            session.result(&Report(bench::gemm(context, m, n, k, layout)))
        }
        BenchCommand::Step(args) => {
            let task = match args.task {
                TaskName::Teacher => StepTask::Teacher,
                TaskName::Student => StepTask::Student,
            };
            let bench = StepBench::new(&args.net.0, args.batch as usize, task)?;
            if let Some(folder) = &args.case {
                bench.write_case(context, folder)?;
            }
            session.result(&Report(bench.run(context, args.steps as usize)?))
        }
        BenchCommand::Scaling(args) => {
            let (net, batch) = (&args.net.0, args.batch as usize);
            let found =
                scaling::measure(context, communicator, net, batch, &args.gbit, args.latency)?;
            session.result(&Report(found))
        }
        BenchCommand::Inference(args) => {
            session.result(&Report(bench::inference(context, &args.net.0)?))
        }
        BenchCommand::Softmax(args) => {
            let (classes, batch) = (args.classes as usize, args.batch as usize);
            session.result(&Report(bench::softmax(context, classes, batch, args.temperature)))
        }
        BenchCommand::Dropout(args) => {
            let (units, batch) = (args.units as usize, args.batch as usize);
            session.result(&Report(bench::dropout(context, units, batch, args.rate)))
        }
    }
}

/// A measurement to be printed.
#[derive(Serialize)]
#[serde(transparent)]
struct Report<T>(T);

fn machine(f: &mut Formatter<'_>, machine: &Machine) -> fmt::Result {
    let Machine { cpu, isa, threads } = machine;
    writeln!(f, "{cpu}, {isa}, {threads} threads")
}

impl Display for Report<Peak> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Peak { machine: place, peak_gflops, isas, read_gb_per_s } = &self.0;
        machine(f, place)?;
        let (low, high) = (peak_gflops.min, peak_gflops.max);
        writeln!(
            f,
            "fused multiply-add  {:.1} GFLOP/s ({low:.1} to {high:.1})",
            peak_gflops.median
        )?;
        for isa in isas {
            writeln!(f, "  {:<16}  {:.1} GFLOP/s", isa.isa, isa.gflops)?;
        }
        for read in read_gb_per_s {
            let size = format!("read {} KiB a thread", read.kib_per_thread);
            writeln!(f, "{size:<26}  {:.1} GB/s", read.gb_per_s)?;
        }
        Ok(())
    }
}

impl Display for Report<Gemm> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Gemm { machine: place, m, n, k, layout, ms, gflops, peak_gflops, fraction_of_peak } =
            &self.0;
        machine(f, place)?;
        writeln!(f, "{m}x{n}x{k} {layout}  {:.4} ms ({:.4} to {:.4})", ms.median, ms.min, ms.max)?;
        rate(f, *gflops, *peak_gflops, *fraction_of_peak)
    }
}

impl Display for Report<Scaling> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let found = &self.0;
        machine(f, &found.machine)?;
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

impl Display for Report<Inference> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = &self.0;
        machine(f, &report.machine)?;
        let (net, examples, ms) = (&report.net, report.examples, report.ms);
        let (median, min, max) = (ms.median, ms.min, ms.max);
        writeln!(f, "{examples} images through {net}: {median:.2} ms ({min:.2} to {max:.2})")?;
        rate(f, report.gflops, report.peak_gflops, report.fraction_of_peak)?;
        writeln!(f, "{:.0} samples/s", report.samples_per_second)
    }
}

impl Display for Report<Step> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let step = &self.0;
        machine(f, &step.machine)?;
        let ms = step.ms_per_step;
        writeln!(
            f,
            "{} {}, batch {}: {:.3} ms a step ({:.3} to {:.3})",
            step.task, step.net, step.batch, ms.median, ms.min, ms.max
        )?;
        rate(f, step.gflops, step.peak_gflops, step.fraction_of_peak)?;
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

fn rate(f: &mut Formatter<'_>, gflops: f64, peak: f64, share: f64) -> fmt::Result {
    writeln!(f, "{gflops:.1} GFLOP/s of a peak of {peak:.1}: {:.1} %", share * 100.0)
}

impl Display for Report<Softmax> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Softmax { machine: place, classes, batch, temperature, .. } = &self.0;
        machine(f, place)?;
        writeln!(f, "{batch} examples of {classes} classes at T = {temperature}, ns an element")?;
        writeln!(f, "softmax                {:.3}", self.0.softmax_ns)?;
        writeln!(f, "log-softmax            {:.3}", self.0.log_softmax_ns)?;
        writeln!(f, "distillation gradient  {:.3}", self.0.distillation_ns)
    }
}

impl Display for Report<Dropout> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Dropout { machine: place, units, batch, rate, dropped, dropout_ns: ns } = &self.0;
        machine(f, place)?;
        writeln!(f, "{batch} examples of {units} units at a rate of {rate}, {dropped:.4} dropped")?;
        writeln!(f, "{:.3} ns an element ({:.3} to {:.3})", ns.median, ns.min, ns.max)
    }
}
