//! A row-major matrix product.

use super::measure::{Machine, Rate, Spread, beside_peak, random};
use crate::engine::config::Precision;
use limbeck_kernels::gemm::{self, Layout, Packed};
use limbeck_kernels::{Buffer, Context, MatMut, MatRef};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

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
    #[serde(flatten)]
    pub rate: Rate,
}

/// Times [`gemm::gemm`] on random operands.
pub fn gemm(context: &Context, m: usize, n: usize, k: usize, layout: Layout) -> Gemm {
    let (a, b) = (random(1, m * k), random(2, k * n));
    let mut c = Buffer::zeroed(m * n);
    let mut packed = Packed::default();
    let (a_rows, a_cols) = if layout == Layout::Tn { (k, m) } else { (m, k) };
    let (b_rows, b_cols) = if layout == Layout::Nt { (n, k) } else { (k, n) };
    let flop = 2.0 * (m * n * k) as f64;
    let (rate, seconds) = context.pool.install(|| {
        beside_peak(context, Precision::F32, flop, 25, || {
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
    let layout = format!("{layout:?}").to_lowercase();
    Gemm { machine: Machine::of(context), m, n, k, layout, ms: seconds.times(1e3), rate }
}

impl Display for Gemm {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Gemm { machine, m, n, k, layout, ms, rate } = self;
        write!(f, "{machine}")?;
        writeln!(f, "{m}x{n}x{k} {layout}  {:.4} ms ({:.4} to {:.4})", ms.median, ms.min, ms.max)?;
        write!(f, "{rate}")
    }
}
