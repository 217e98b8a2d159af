//! The error of the matrix products, against f64.
//!
//! For shapes (m, n, k) around the widths of vectors, tiles and blocks, and primes: every layout
//! of the row-major product, the three products of a dense layer, and each of their epilogues, on
//! every instruction set with 1, 2, 3, 4 and 8 threads. In units of ε = 2⁻²⁴,
//!
//! ```text
//! error = max |C − C64| / (ε · S),   S = |A|·|B|, and the epilogue's own terms in magnitude
//! ```
//!
//! and it must not exceed R, the number of roundings: K in the chain of multiply-adds, and those
//! of the epilogue. Without an epilogue this holds without terms of higher order (Jeannerod &
//! Rump, *SIAM J. Matrix Anal. Appl.* 34, 2013); with one the bound is R/(1 − R·ε) (Higham 2002,
//! Lemma 3.1). Products of small integers must be exact.
//!
//! C64 is summed in f64, whose own error is 2⁻²⁹ of the bound.
//!
//! In bf16 the operands are rounded first, C64 is that of the rounded ones, and R is 17 + ⌈K/32⌉ in
//! place of K, to first order, as [`limbeck_kernels::bf16`] derives it; the row-major products have no
//! such form.

use super::{Faults, Place, THREADS, contexts, for_each_job};
use crate::engine::config::Precision;
use crate::files::error::Result;
use limbeck_kernels::bf16::{self, Along, Copies, Operand, Side, pack, words};
use limbeck_kernels::gemm::{self, Factors, Layout, Packed, WeightStep};
use limbeck_kernels::random::{Dropout, Key};
use limbeck_kernels::reference::{self, EPSILON};
use limbeck_kernels::update::Rule;
use limbeck_kernels::{
    Activation, Buffer, Context, Isa, MatMut, MatRef, Panels, PanelsMut, panel_len,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// What one product computes from A [m, k], B [k, n], C [m, n] and a bias of m values.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Product {
    /// A·B + beta·C, row-major.
    RowMajor(Layout, f32),
    /// dropout(relu(A·B + bias)), where A is Wᵀ: m outputs, a batch of n, k inputs.
    Forward { relu: bool, dropout: bool },
    /// (A·B)·[`SCALE`] where C > 0, else 0, where A is W: m inputs, a batch of n, k outputs.
    InputGradient,
    /// A·B, where A is X and B is dZᵀ: m inputs, n outputs, a batch of k.
    WeightGradient,
    /// C − [`RATE`]·(A·B): the same and a step of SGD.
    WeightUpdate,
}

/// The scale of a kept unit, below the dropout of [`Product::InputGradient`].
const SCALE: f32 = 1.25;
/// The learning rate of [`Product::WeightUpdate`].
const RATE: f32 = 0.5;

const PRODUCTS: [Product; 15] = {
    use Layout::{Nn, Nt, Tn};
    use Product::{Forward, InputGradient, RowMajor, WeightGradient, WeightUpdate};
    [
        RowMajor(Nn, 0.0),
        RowMajor(Nn, 1.0),
        RowMajor(Nn, 0.5),
        RowMajor(Nt, 0.0),
        RowMajor(Nt, 1.0),
        RowMajor(Nt, 0.5),
        RowMajor(Tn, 0.0),
        RowMajor(Tn, 1.0),
        RowMajor(Tn, 0.5),
        Forward { relu: false, dropout: false },
        Forward { relu: true, dropout: false },
        Forward { relu: true, dropout: true },
        InputGradient,
        WeightGradient,
        WeightUpdate,
    ]
};

/// Those that a precision has: the row-major ones come first.
fn products(precision: Precision) -> &'static [Product] {
    match precision {
        Precision::F32 => &PRODUCTS,
        Precision::Bf16 => &PRODUCTS[9..],
    }
}

impl Product {
    fn name(self) -> String {
        match self {
            Product::RowMajor(layout, beta) => {
                format!("{} beta {beta}", format!("{layout:?}").to_lowercase())
            }
            Product::Forward { relu: false, .. } => "forward, bias".into(),
            Product::Forward { dropout: false, .. } => "forward, bias, relu".into(),
            Product::Forward { .. } => "forward, bias, relu, dropout".into(),
            Product::InputGradient => "input gradient, relu'".into(),
            Product::WeightGradient => "weight gradient".into(),
            Product::WeightUpdate => "weight gradient, SGD".into(),
        }
    }

    /// Roundings after the chain.
    fn roundings(self) -> usize {
        match self {
            Product::RowMajor(_, 0.0) | Product::WeightGradient => 0,
            Product::Forward { dropout: true, .. } => 2,
            _ => 1,
        }
    }

    /// The value in f64 from that of A·B, and S from |A|·|B|.
    fn exact(self, sum: f64, size: f64, c: f64, bias: f64, mask: f64) -> (f64, f64) {
        match self {
            Product::RowMajor(_, beta) => {
                let c = f64::from(beta) * c;
                (sum + c, size + c.abs())
            }
            Product::Forward { relu, dropout } => {
                let z = sum + bias;
                let y = if relu { z.max(0.0) } else { z };
                let mask = if dropout { mask } else { 1.0 };
                (mask * y, mask * (size + bias.abs()))
            }
            Product::InputGradient => {
                let scale = if c > 0.0 { f64::from(SCALE) } else { 0.0 };
                (scale * sum, scale * size)
            }
            Product::WeightGradient => (sum, size),
            Product::WeightUpdate => (c - f64::from(RATE) * sum, c.abs() + f64::from(RATE) * size),
        }
    }
}

/// Lengths of sums: around 16 lanes, the blocks of K (384, 512 and 2048), powers of two, primes.
const DEPTHS: [usize; 34] = [
    1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 61, 100, 127, 128, 129, 255, 256, 257, 383, 384, 385, 509,
    511, 512, 513, 769, 1021, 1025, 2047, 2048, 2049, 3001, 4096, 4099,
];
/// Rows and columns of C: around 16 lanes, tiles of 3 to 8 rows and 48 columns, primes.
const WIDTHS: [usize; 22] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 16, 17, 23, 31, 33, 47, 48, 49, 65, 97];
/// Most multiply-adds of a product, so that a million take minutes.
const LARGEST: usize = 1 << 20;

/// What the operands' values are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Values {
    /// ±(2⁻²⁴ … 1), uniform.
    Signed,
    /// 2⁻²⁴ … 1, uniform.
    Positive,
    /// −4 … 4.
    Integers,
}

fn draw(rng: &mut ChaCha8Rng, values: Values, len: usize) -> Vec<f32> {
    let one = |bits: u32| {
        let magnitude = ((bits >> 8) + 1) as f32 / (1 << 24) as f32;
        match values {
            Values::Positive => magnitude,
            Values::Signed if bits & 1 == 0 => magnitude,
            Values::Signed => -magnitude,
            Values::Integers => (bits >> 16) as f32 % 9.0 - 4.0,
        }
    };
    (0..len).map(|_| one(rng.next_u32())).collect()
}

/// The operands of one shape.
struct Operands {
    precision: Precision,
    shape: (usize, usize, usize),
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    bias: Vec<f32>,
    dropout: Dropout,
    /// A·B in f64, and |A|·|B|.
    sums: Vec<f64>,
    sizes: Vec<f64>,
}

impl Operands {
    /// Those of shape `number`: sums of each length in turn, with rows and columns drawn.
    fn new(number: usize, values: Values, precision: Precision) -> Operands {
        let rng = &mut ChaCha8Rng::seed_from_u64(number as u64);
        // Prime to the number of lengths: short and long ones alternate.
        let k = DEPTHS[number * 13 % DEPTHS.len()];
        let (m, n) = loop {
            let [m, n] = [(); 2].map(|()| WIDTHS[rng.next_u32() as usize % WIDTHS.len()]);
            if m * n * k <= LARGEST {
                break (m, n);
            }
        };
        let [mut a, mut b, c, bias] = [m * k, k * n, m * n, m].map(|len| draw(rng, values, len));
        if precision == Precision::Bf16 {
            a.iter_mut().chain(&mut b).for_each(|x| *x = bf16::round(*x));
        }
        let dropout = Dropout::new(Key::new(number as u64, 0, 0), 0.5, n);
        let product = |of: fn(&f32) -> f64| {
            let mut sums = vec![0.0; m * n];
            let [a, b] = [&a, &b].map(|x| x.iter().map(of).collect::<Vec<_>>());
            reference::gemm(Layout::Nn, (m, n, k), &a, &b, 0.0, &mut sums);
            sums
        };
        let sums = product(|&x| f64::from(x));
        let sizes = product(|&x| f64::from(x).abs());
        Operands { precision, shape: (m, n, k), sums, sizes, a, b, c, bias, dropout }
    }

    /// C [m, n], row-major, as the kernels compute it.
    fn fast(&self, context: &Context, product: Product) -> Vec<f32> {
        let (m, n, k) = self.shape;
        let (a, b) = (&self.a, &self.b);
        // The operand A of sums along one of its sides, and B of sums along its rows.
        let of_a = |panel: Panel, along| match self.precision {
            Precision::F32 => panel,
            Precision::Bf16 => panel.packed(context, Side::A, along),
        };
        let of_b = |panel: Panel| match self.precision {
            Precision::F32 => panel,
            Precision::Bf16 => panel.packed(context, Side::B, Along::Rows),
        };
        let factors = |a, b| match self.precision {
            Precision::F32 => Factors::f32(a, b),
            Precision::Bf16 => Factors::bf16(1.0, a, b, Copies::default()),
        };
        match product {
            Product::RowMajor(layout, beta) => {
                let a = if layout == Layout::Tn { transposed(a, m, k) } else { a.clone() };
                let b = if layout == Layout::Nt { transposed(b, k, n) } else { b.clone() };
                let (a_rows, a_cols) = if layout == Layout::Tn { (k, m) } else { (m, k) };
                let (b_rows, b_cols) = if layout == Layout::Nt { (n, k) } else { (k, n) };
                let mut c = if beta == 0.0 { vec![f32::NAN; m * n] } else { self.c.clone() };
                gemm::gemm(
                    context,
                    layout,
                    MatRef::new(&a, a_rows, a_cols, a_cols),
                    MatRef::new(&b, b_rows, b_cols, b_cols),
                    beta,
                    MatMut::new(&mut c, m, n, n),
                    &mut Packed::default(),
                );
                c
            }
            Product::Forward { relu, dropout } => {
                let w = of_a(Panel::new(&transposed(a, m, k), k, m), Along::Rows);
                let x = of_b(Panel::new(b, k, n));
                let mut y = Panel::unwritten(m, n);
                let dropout = dropout.then_some(self.dropout);
                let f = relu.then_some(Activation::Relu);
                let (w, x) = (w.view(), x.view());
                gemm::forward(context, factors(w, x), &self.bias, f, dropout, y.write());
                y.row_major()
            }
            Product::InputGradient => {
                let (w, dz) = (of_a(Panel::new(a, m, k), Along::Lanes), of_b(Panel::new(b, k, n)));
                let y = Panel::new(&self.c, m, n);
                let mut dx = Panel::unwritten(m, n);
                let (w, dz, y, f) = (w.view(), dz.view(), y.view(), Activation::Relu);
                // Kept where Y > 0.
                let dropout = Some(Dropout::new(Key::new(0, 0, 0), 1.0 - 1.0 / SCALE, n));
                gemm::input_gradient(context, factors(w, dz), y, f, dropout, dx.write());
                dx.row_major()
            }
            Product::WeightGradient => {
                let (x, dz) = (of_a(Panel::new(a, m, k), Along::Lanes), of_b(Panel::new(b, k, n)));
                let mut dw = Panel::unwritten(m, n);
                gemm::weight_gradient(context, factors(x.view(), dz.view()), dw.write());
                dw.row_major()
            }
            Product::WeightUpdate => {
                let (x, dz) = (of_a(Panel::new(a, m, k), Along::Lanes), of_b(Panel::new(b, k, n)));
                let mut w = Panel::new(&self.c, m, n);
                let mut velocity = Buffer::zeroed(panel_len(m, n));
                let rule = Rule::Sgd { learning_rate: RATE, momentum: 0.9 };
                let step = WeightStep { rule, weight_decay: 0.0, max_norm: None };
                let moments = &mut [&mut velocity[..]];
                let (x, dz) = (x.view(), dz.view());
                gemm::weight_update(context, factors(x, dz), step, w.write(), moments);
                w.row_major()
            }
        }
    }

    /// The largest error of `got`; for integers, any error is infinite.
    fn judge(&self, product: Product, values: Values, got: &[f32]) -> Worst {
        let (m, n, k) = self.shape;
        let (of_sum, first_order) = match self.precision {
            Precision::F32 => (k, product.roundings() > 0),
            Precision::Bf16 => (17 + k.div_ceil(32), true),
        };
        let roundings = (of_sum + product.roundings()) as f64;
        let higher = if first_order { 1.0 - roundings * EPSILON } else { 1.0 };
        let mut error: f64 = 0.0;
        for (i, &got) in got.iter().enumerate() {
            let (row, lane) = (i / n, i % n);
            let kept = f64::from(u8::from(self.dropout.keeps(row, lane)));
            let mask = kept * f64::from(self.dropout.scale());
            let (c, bias) = (f64::from(self.c[i]), f64::from(self.bias[row]));
            let (want, size) = product.exact(self.sums[i], self.sizes[i], c, bias, mask);
            let off = (f64::from(got) - want).abs();
            // True for NaN; where a unit was dropped, S is 0 and any error infinite.
            if off != 0.0 {
                let infinite = values == Values::Integers || off.is_nan();
                error = error.max(if infinite { f64::INFINITY } else { off / (EPSILON * size) });
            }
        }
        Worst { error, share_of_bound: error / roundings * higher, shape: [m, n, k] }
    }
}

fn transposed(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|col| (0..rows).map(move |row| values[row * cols + col])).collect()
}

/// An owned panel matrix.
struct Panel {
    buffer: Buffer,
    rows: usize,
    lanes: usize,
}

impl Panel {
    /// Of row-major values [rows, lanes].
    fn new(values: &[f32], rows: usize, lanes: usize) -> Panel {
        let mut panel = Panel { buffer: Buffer::zeroed(panel_len(rows, lanes)), rows, lanes };
        panel.write().copy_from_lane_major(&transposed(values, rows, lanes));
        panel
    }

    /// Of NaN: whatever is not written is found.
    fn unwritten(rows: usize, lanes: usize) -> Panel {
        let mut buffer = Buffer::zeroed(panel_len(rows, lanes));
        buffer.fill(f32::NAN);
        Panel { buffer, rows, lanes }
    }

    /// As an operand of bf16.
    fn packed(self, context: &Context, side: Side, along: Along) -> Panel {
        let (depth, others) = along.of(self.rows, self.lanes);
        let mut operand = Panel::unwritten(words(depth), others);
        pack(context, self.view(), Operand { along, side, words: &mut operand.buffer });
        operand
    }

    fn view(&self) -> Panels<'_> {
        Panels::new(&self.buffer, self.rows, self.lanes)
    }

    fn write(&mut self) -> PanelsMut<'_> {
        PanelsMut::new(&mut self.buffer, self.rows, self.lanes)
    }

    fn row_major(&self) -> Vec<f32> {
        let mut lane_major = vec![0.0; self.rows * self.lanes];
        self.view().to_lane_major(&mut lane_major);
        transposed(&lane_major, self.lanes, self.rows)
    }
}

/// The largest error of some cases.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Worst {
    /// max |C − C64| / (ε·S).
    pub error: f64,
    /// The largest share of the bound, at most 1; not always of the same case.
    pub share_of_bound: f64,
    /// (m, n, k) of the largest error.
    pub shape: [usize; 3],
}

impl Worst {
    fn include(&mut self, other: Worst) {
        let share_of_bound = self.share_of_bound.max(other.share_of_bound);
        if other.error > self.error {
            *self = other;
        }
        self.share_of_bound = share_of_bound;
    }
}

/// Errors on signed and on all-positive data.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Errors {
    /// A product and its epilogue, or a range of K.
    pub what: String,
    /// Cases on signed and on positive data together.
    pub cases: usize,
    /// On ±(2⁻²⁴ … 1).
    pub signed: Worst,
    /// On 2⁻²⁴ … 1.
    pub positive: Worst,
}

impl Errors {
    fn include(&mut self, values: Values, worst: Worst, cases: usize) {
        match values {
            Values::Signed => self.signed.include(worst),
            Values::Positive => self.positive.include(worst),
            Values::Integers => return,
        }
        self.cases += cases;
    }
}

/// The error of the matrix products.
#[derive(Clone, Debug, Serialize)]
pub struct Gemm {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What the operands are.
    pub precision: Precision,
    /// Thread counts tried.
    pub threads: Vec<usize>,
    /// Shapes (m, n, k).
    pub shapes: usize,
    /// Shape × product with epilogue × instruction set × threads × signed or positive data.
    pub cases: usize,
    /// The same on integers, all exact.
    pub exact_cases: usize,
    /// By product and epilogue.
    pub products: Vec<Errors>,
    /// By length of the sum, of all products.
    pub depths: Vec<Errors>,
    /// What does not hold.
    pub faults: Faults,
}

/// What became of one shape on one kind of data.
struct Judged {
    values: Values,
    depth: usize,
    worst: Vec<Worst>,
    faults: Faults,
}

/// Upper ends of the ranges of K in the report.
const RANGES: [usize; 5] = [16, 64, 256, 1024, 4099];

/// At least `cases` of them, and half as many on integers.
///
/// # Errors
/// [`crate::Error::Usage`] when the operating system refuses the threads.
pub fn verify(cases: usize, precision: Precision) -> Result<Gemm> {
    const KINDS: [Values; 3] = [Values::Signed, Values::Positive, Values::Integers];
    let contexts_each = Isa::available().count() * THREADS.len();
    let products = products(precision);
    let shapes = cases.div_ceil(2 * products.len() * contexts_each);
    let named = |what: String| Errors { what, ..Errors::default() };
    let ranges = std::iter::once(&0).chain(&RANGES).zip(&RANGES);
    let mut report = Gemm {
        place: Place::here(),
        precision,
        threads: THREADS.into(),
        shapes,
        cases: 2 * shapes * products.len() * contexts_each,
        exact_cases: shapes * products.len() * contexts_each,
        products: products.iter().map(|product| named(product.name())).collect(),
        depths: ranges.map(|(above, to)| named(format!("K {} to {to}", above + 1))).collect(),
        faults: Faults::default(),
    };
    for_each_job(
        contexts(&THREADS)?,
        shapes * KINDS.len(),
        |contexts, job| judge(contexts, job / KINDS.len(), KINDS[job % KINDS.len()], precision),
        |judged: Judged| {
            let range = RANGES.iter().position(|&to| judged.depth <= to).unwrap_or(0);
            for (row, worst) in report.products.iter_mut().zip(judged.worst) {
                row.include(judged.values, worst, contexts_each);
                report.depths[range].include(judged.values, worst, contexts_each);
            }
            report.faults.merge(judged.faults);
        },
    );
    Ok(report)
}

/// Every product of one shape on every context, which all must have the bits of the first.
fn judge(contexts: &[Context], number: usize, values: Values, precision: Precision) -> Judged {
    let operands = Operands::new(number, values, precision);
    let products = products(precision);
    let mut first: Vec<Vec<f32>> = vec![Vec::new(); products.len()];
    let mut worst = vec![Worst::default(); products.len()];
    let mut faults = Faults::default();
    for context in contexts {
        let name = |product: Product| {
            let (isa, threads) = (context.isa, context.pool.threads());
            let (product, shape) = (product.name(), operands.shape);
            format!("{product} of {shape:?}, {values:?}, on {isa} with {threads} threads")
        };
        let each = products.iter().map(|&product| operands.fast(context, product));
        let got: Vec<Vec<f32>> = context.pool.install(|| each.collect());
        for (((&product, got), first), worst) in
            products.iter().zip(got).zip(&mut first).zip(&mut worst)
        {
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            if first.is_empty() {
                *worst = operands.judge(product, values, &got);
                if worst.share_of_bound > 1.0 {
                    faults.add(|| format!("{}: error {:e} ε·S", name(product), worst.error));
                }
                *first = got;
            } else if bits(&got) != bits(first) {
                faults.add(|| format!("{}: other bits than {}", name(product), contexts[0].isa));
            }
        }
    }
    Judged { values, depth: operands.shape.2, worst, faults }
}

impl Display for Gemm {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = self;
        write!(f, "{}", report.place)?;
        writeln!(
            f,
            "{} cases in {} ({} shapes, threads {:?}), and {} of integers; \
             errors in ε·S, and their share of the bound",
            report.cases,
            report.precision.name(),
            report.shapes,
            report.threads,
            report.exact_cases
        )?;
        writeln!(f, "{:<30} {:>8}  {:>16}  {:>16}", "", "cases", "signed", "positive")?;
        let worst = |worst: &Worst| {
            format!("{:>7.2}  {:>5.1} %", worst.error, 100.0 * worst.share_of_bound)
        };
        for row in report.products.iter().chain(&report.depths) {
            let (signed, positive) = (worst(&row.signed), worst(&row.positive));
            writeln!(f, "{:<30} {:>8}  {signed:>16}  {positive:>16}", row.what, row.cases)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use limbeck_kernels::LANES;

    /// The judge must see a single value beyond the bound, a changed integer, and NaN.
    #[test]
    fn wrong_products_are_found() {
        let each = [Precision::F32, Precision::Bf16]
            .into_iter()
            .flat_map(|precision| products(precision).iter().map(move |&p| (precision, p)));
        for (number, (precision, product)) in each.enumerate() {
            let operands = Operands::new(number + 4, Values::Positive, precision);
            let context = Context::new(Isa::best(), 1).unwrap();
            let got = operands.fast(&context, product);
            let share = |got: &[f32]| operands.judge(product, Values::Positive, got).share_of_bound;
            assert!(share(&got) <= 1.0, "{precision:?} {product:?}");
            let k = operands.shape.2 as f64 + 20.0;
            let mut wrong = got.clone();
            let (sum, size) = (f64::from(wrong[0]), 4.0 * operands.sizes[0] + 4.0);
            wrong[0] = (sum + 1.01 * k * EPSILON * size) as f32;
            assert!(share(&wrong) > 1.0, "{product:?}");
            wrong[0] = f32::NAN;
            assert!(share(&wrong) > 1.0, "{product:?}");
        }
        let operands = Operands::new(9, Values::Integers, Precision::F32);
        let context = Context::new(Isa::best(), 1).unwrap();
        let mut got = operands.fast(&context, PRODUCTS[0]);
        assert_eq!(operands.judge(PRODUCTS[0], Values::Integers, &got).error, 0.0);
        *got.last_mut().unwrap() += 1.0;
        assert!(operands.judge(PRODUCTS[0], Values::Integers, &got).error.is_infinite());
    }

    #[test]
    fn shapes_have_every_depth_and_fit() {
        let mut seen = Vec::new();
        for number in 0..DEPTHS.len() {
            let (m, n, k) = Operands::new(number, Values::Signed, Precision::F32).shape;
            assert!(m * n * k <= LARGEST);
            seen.push(k);
        }
        seen.sort();
        assert_eq!(seen, DEPTHS);
        assert!(WIDTHS.contains(&(LANES - 1)) && WIDTHS.contains(&(LANES + 1)));
        assert_eq!(RANGES[RANGES.len() - 1], DEPTHS[DEPTHS.len() - 1]);
    }
}
