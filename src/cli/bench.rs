//! `limbeck bench`: figures of this machine, each beside its limit.

use super::global::PrecisionArgs;
use super::session::Session;
use clap::{Args, Subcommand, ValueEnum, value_parser};
use limbeck::Result;
use limbeck::engine::communicator::Communicator;
use limbeck::tools::bench::{self, StepBench, StepTask, scaling};
use limbeck_kernels::gemm::Layout;
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
    #[command(flatten)]
    precision: PrecisionArgs,
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
    #[command(flatten)]
    precision: PrecisionArgs,
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
        BenchCommand::Peak => session.result(&bench::peak(context)?),
        BenchCommand::Gemm(args) => {
            let layout = match args.layout {
                LayoutName::Nn => Layout::Nn,
                LayoutName::Nt => Layout::Nt,
                LayoutName::Tn => Layout::Tn,
            };
            let [m, n, k] = [args.m, args.n, args.k].map(|size| size as usize);
            session.result(&bench::gemm(context, m, n, k, layout))
        }
        BenchCommand::Step(args) => {
            let task = match args.task {
                TaskName::Teacher => StepTask::Teacher,
                TaskName::Student => StepTask::Student,
            };
            let mut bench = StepBench::new(&args.net.0, args.batch as usize, task)?;
            bench.set_precision(args.precision.precision);
            if let Some(folder) = &args.case {
                bench.write_case(context, folder)?;
            }
            session.result(&bench.run(context, args.steps as usize)?)
        }
        BenchCommand::Scaling(args) => {
            let (net, batch) = (&args.net.0, args.batch as usize);
            let found =
                scaling::measure(context, communicator, net, batch, &args.gbit, args.latency)?;
            session.result(&found)
        }
        BenchCommand::Inference(args) => {
            let precision = args.precision.precision;
            session.result(&bench::inference(context, &args.net.0, precision)?)
        }
        BenchCommand::Softmax(args) => {
            let (classes, batch) = (args.classes as usize, args.batch as usize);
            session.result(&bench::softmax(context, classes, batch, args.temperature))
        }
        BenchCommand::Dropout(args) => {
            let (units, batch) = (args.units as usize, args.batch as usize);
            session.result(&bench::dropout(context, units, batch, args.rate))
        }
    }
}
