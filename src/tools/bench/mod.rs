//! What `limbeck bench` measures: the machine's limits, and how near to them we come.
//!
//! Every rate stands beside the peak of fused multiply-adds, measured between the timings with the
//! same threads: a slower clock slows both. Shares are medians of such pairs. A neighbour on a core's
//! other hardware thread takes more from a step than from the peak; `bench step` tells what the steps
//! without one reach. Data is random, never zero; the first calls are not counted; floating-point
//! operations are 2·m·n·k for each product.

mod dropout;
mod gemm;
mod inference;
mod measure;
mod peak;
pub mod scaling;
mod softmax;
mod step;
mod step_case;

pub use dropout::{Dropout, dropout};
pub use gemm::{Gemm, gemm};
pub use inference::{Inference, inference};
pub use measure::{Machine, Rate, Spread};
pub use peak::{Bandwidth, IsaPeak, Neighbours, Peak, peak};
pub use softmax::{Softmax, softmax};
pub use step::{Calm, Step, StepBench, StepTask};
pub use step_case::StepCase;
