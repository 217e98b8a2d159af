//! Limbeck's numbers: SIMD kernels and multithreaded matrix products for training small nets.
//!
//! Every operation takes a [`Context`], which names the instruction set and holds the threads,
//! and gives **the same bits for every ISA and every thread count**. Each has a naive f64
//! counterpart in [`mod@reference`].
//!
//! Shapes: B batch, D inputs, H hidden units, C classes. Hot matrices are in panel order, see
//! [`matrix`].

pub mod activation;
pub mod amx;
pub mod bf16;
pub mod buffer;
pub mod exp;
pub mod gemm;
pub mod input;
pub mod isa;
pub mod matrix;
pub mod peak;
pub mod pool;
pub mod random;
pub mod reduce;
pub mod reference;
pub mod simd;
pub mod softmax;
pub mod tanh;
pub mod update;

pub use activation::Activation;
pub use buffer::Buffer;
pub use isa::Isa;
pub use matrix::{MatMut, MatRef, Panels, PanelsMut, panel_len};
pub use pool::Pool;
pub use simd::LANES;

/// What every kernel runs on.
pub struct Context {
    /// The instruction set.
    pub isa: Isa,
    /// The threads.
    pub pool: Pool,
}

impl Context {
    /// `threads` threads of `isa`.
    ///
    /// # Errors
    /// When the operating system refuses the threads.
    pub fn new(isa: Isa, threads: usize) -> Result<Self, String> {
        Ok(Self { isa, pool: Pool::new(threads)? })
    }
}
