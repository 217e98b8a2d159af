//! The matrix products of a training step, as the trainer computes them, as [`gemm`] does from
//! row-major operands, and as matrixmultiply, the gemm crate and faer do from the same.

use limbeck_kernels::gemm::{self, Factors, Layout, Packed};
use limbeck_kernels::{Activation, Buffer, Context, MatMut, MatRef, Panels, PanelsMut, panel_len};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::fmt::{self, Display, Formatter};

/// What a product is for. B batch, D inputs and H outputs of a layer.
#[derive(Clone, Copy)]
pub enum Role {
    /// Z [B, H] = X·W.
    Forward,
    /// dX [B, D] = dZ·Wᵀ.
    InputGradient,
    /// dW [D, H] = Xᵀ·dZ.
    WeightGradient,
}
use Role::{Forward, InputGradient, WeightGradient};

impl Display for Role {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Forward => "forward",
            InputGradient => "input gradient",
            WeightGradient => "weight gradient",
        })
    }
}

/// C [m, n] as a sum over k.
#[derive(Clone, Copy)]
pub struct Shape {
    pub role: Role,
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

impl Shape {
    pub fn flop(&self) -> u64 {
        2 * (self.m * self.n * self.k) as u64
    }
}

impl Display for Shape {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}x{}x{}", self.role, self.m, self.n, self.k)
    }
}

/// Every product of a step of the teacher 784-1200-1200-10 and of the student 784-800-800-10 at
/// this batch size, wide ones first, then a cube.
pub fn shapes(batch: usize) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for width in [1200, 800] {
        for (inputs, outputs) in [(784, width), (width, width)] {
            shapes.push(Shape { role: Forward, m: batch, n: outputs, k: inputs });
            shapes.push(Shape { role: WeightGradient, m: inputs, n: outputs, k: batch });
        }
        shapes.push(Shape { role: InputGradient, m: batch, n: width, k: width });
        shapes.push(Shape { role: InputGradient, m: batch, n: width, k: 10 });
    }
    for width in [1200, 800] {
        shapes.push(Shape { role: Forward, m: batch, n: 10, k: width });
        shapes.push(Shape { role: WeightGradient, m: width, n: 10, k: batch });
    }
    shapes.push(Shape { role: Forward, m: 2048, n: 2048, k: 2048 });
    shapes
}

/// Who computes a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As the trainer does, from panels; the weight gradient with the transposition it needs.
    TrainingPath,
    /// As [`gemm`] does, packing included, and then other crates, all from row-major operands.
    RowMajor,
    Matrixmultiply,
    GemmCrate,
    #[cfg(feature = "faer")]
    Faer,
}

impl Way {
    pub const ALL: &[Way] = &[
        Way::TrainingPath,
        Way::RowMajor,
        Way::Matrixmultiply,
        Way::GemmCrate,
        #[cfg(feature = "faer")]
        Way::Faer,
    ];
}

impl Display for Way {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::TrainingPath => "training path",
            Way::RowMajor => "row-major",
            Way::Matrixmultiply => "matrixmultiply",
            Way::GemmCrate => "gemm crate",
            #[cfg(feature = "faer")]
            Way::Faer => "faer",
        })
    }
}

/// One shape's operands, the same values for each way to compute it.
pub struct Product {
    shape: Shape,
    /// Row-major: X and dZ have a row for each example, W one for each input.
    a: Buffer,
    b: Buffer,
    c: Buffer,
    packed: Packed,
    /// The operands of the training path, in panels.
    w: Buffer,
    x: Buffer,
    dz: Buffer,
    transposed: Buffer,
    bias: Buffer,
    /// Z, dX or dW.
    out: Buffer,
}

impl Product {
    /// Random operands in −1 … 1.
    pub fn new(shape: Shape) -> Self {
        let Shape { role, m, n, k } = shape;
        let (batch, inputs, outputs) = match role {
            Forward => (m, k, n),
            InputGradient => (m, n, k),
            WeightGradient => (k, m, n),
        };
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut random = |len| {
            let mut buffer = Buffer::zeroed(len);
            buffer.fill_with(|| rng.next_u32() as i32 as f32 / (1u32 << 31) as f32);
            buffer
        };
        let (a, b) = (random(m * k), random(k * n));
        let panels = |rows, lanes, lane_major: &[f32]| {
            let mut buffer = Buffer::zeroed(panel_len(rows, lanes));
            PanelsMut::new(&mut buffer, rows, lanes).copy_from_lane_major(lane_major);
            buffer
        };
        let none = || Buffer::zeroed(0);
        let (w, x, dz, out) = match role {
            Forward => (
                panels(inputs, outputs, &transpose(&b, outputs)),
                panels(inputs, batch, &a),
                none(),
                panel_len(outputs, batch),
            ),
            InputGradient => (
                panels(inputs, outputs, &transpose(&b, outputs)),
                // Active units, through which the whole gradient passes.
                panels(inputs, batch, &vec![1.0; inputs * batch]),
                panels(outputs, batch, &a),
                panel_len(inputs, batch),
            ),
            WeightGradient => (
                none(),
                panels(inputs, batch, &a),
                panels(outputs, batch, &b),
                panel_len(inputs, outputs),
            ),
        };
        Self {
            shape,
            a,
            b,
            c: Buffer::zeroed(m * n),
            packed: Packed::default(),
            w,
            x,
            dz,
            transposed: Buffer::zeroed(panel_len(batch, outputs)),
            bias: Buffer::zeroed(outputs),
            out: Buffer::zeroed(out),
        }
    }

    /// The product, once.
    pub fn compute(&mut self, way: Way, context: &Context) {
        match way {
            Way::TrainingPath => self.training_path(context),
            Way::RowMajor => self.row_major(context),
            Way::Matrixmultiply => self.matrixmultiply(),
            Way::GemmCrate => self.gemm_crate(context.pool.threads()),
            #[cfg(feature = "faer")]
            Way::Faer => self.faer(context.pool.threads()),
        }
    }

    fn training_path(&mut self, context: &Context) {
        let Shape { role, m, n, k } = self.shape;
        match role {
            Forward => gemm::forward(
                context,
                Factors::f32(Panels::new(&self.w, k, n), Panels::new(&self.x, k, m)),
                &self.bias,
                None,
                None,
                PanelsMut::new(&mut self.out, n, m),
            ),
            InputGradient => gemm::input_gradient(
                context,
                Factors::f32(Panels::new(&self.w, n, k), Panels::new(&self.dz, k, m)),
                Panels::new(&self.x, n, m),
                Activation::Relu,
                None,
                PanelsMut::new(&mut self.out, n, m),
            ),
            WeightGradient => {
                let dz = Panels::new(&self.dz, n, k);
                gemm::transpose(context, dz, PanelsMut::new(&mut self.transposed, k, n));
                gemm::weight_gradient(
                    context,
                    Factors::f32(Panels::new(&self.x, m, k), Panels::new(&self.transposed, k, n)),
                    PanelsMut::new(&mut self.out, m, n),
                );
            }
        }
    }

    fn row_major(&mut self, context: &Context) {
        let Shape { role, m, n, k } = self.shape;
        let (layout, a, b) = match role {
            Forward => (Layout::Nn, (m, k), (k, n)),
            InputGradient => (Layout::Nt, (m, k), (n, k)),
            WeightGradient => (Layout::Tn, (k, m), (k, n)),
        };
        gemm::gemm(
            context,
            layout,
            MatRef::new(&self.a, a.0, a.1, a.1),
            MatRef::new(&self.b, b.0, b.1, b.1),
            0.0,
            MatMut::new(&mut self.c, m, n, n),
            &mut self.packed,
        );
    }

    fn matrixmultiply(&mut self) {
        let Shape { role, m, n, k } = self.shape;
        let ((rsa, csa), (rsb, csb)) = steps(role, m, n, k);
        let (a, b, c) = (self.a.as_ptr(), self.b.as_ptr(), self.c.as_mut_ptr());
        let rsc = n as isize;
        // SAFETY: A, B and C were allocated with m·k, k·n and m·n values, which the steps cover.
        unsafe { matrixmultiply::sgemm(m, k, n, 1.0, a, rsa, csa, b, rsb, csb, 0.0, c, rsc, 1) };
    }

    fn gemm_crate(&mut self, threads: usize) {
        let Shape { role, m, n, k } = self.shape;
        let (a_steps, b_steps) = steps(role, m, n, k);
        let threads = match threads {
            1 => ::gemm::Parallelism::None,
            _ => ::gemm::Parallelism::Rayon(threads),
        };
        let (a, b, c) = (self.a.as_ptr(), self.b.as_ptr(), self.c.as_mut_ptr());
        // SAFETY: as for matrixmultiply; the strides are given columns first.
        unsafe {
            ::gemm::gemm(
                m, n, k, c, 1, n as isize, false, a, a_steps.1, a_steps.0, b, b_steps.1, b_steps.0,
                0.0, 1.0, false, false, false, threads,
            );
        }
    }

    #[cfg(feature = "faer")]
    fn faer(&mut self, threads: usize) {
        let Shape { role, m, n, k } = self.shape;
        let a = |rows, cols| faer::MatRef::from_row_major_slice(&self.a, rows, cols);
        let b = |rows, cols| faer::MatRef::from_row_major_slice(&self.b, rows, cols);
        let (a, b) = match role {
            Forward => (a(m, k), b(k, n)),
            InputGradient => (a(m, k), b(n, k).transpose()),
            WeightGradient => (a(k, m).transpose(), b(k, n)),
        };
        let c = faer::MatMut::from_row_major_slice_mut(&mut self.c, m, n);
        let threads = if threads == 1 { faer::Par::Seq } else { faer::Par::rayon(threads) };
        faer::linalg::matmul::matmul(c, faer::Accum::Replace, a, b, 1.0, threads);
    }

    /// C of `way`, row-major.
    fn result(&mut self, way: Way, context: &Context) -> Vec<f32> {
        let Shape { role, m, n, .. } = self.shape;
        self.compute(way, context);
        if way != Way::TrainingPath {
            return self.c.to_vec();
        }
        let mut c = vec![0.0; m * n];
        match role {
            Forward | InputGradient => Panels::new(&self.out, n, m).to_lane_major(&mut c),
            WeightGradient => {
                Panels::new(&self.out, m, n).to_lane_major(&mut c);
                c = transpose(&c, m);
            }
        }
        c
    }

    /// Panics unless all ways give the same product, to rounding.
    pub fn verify(&mut self, context: &Context) {
        let want = self.result(Way::Matrixmultiply, context);
        // Both sides are within K·ε·K of the exact sum of K products of values below 1; the
        // errors of random sums are far below that, and one wrong term is far above.
        let bound = (self.shape.k * self.shape.k) as f32 * f32::EPSILON;
        for &way in Way::ALL {
            // What an earlier way wrote must not pass for this one's.
            self.c.fill(f32::NAN);
            for (found, want) in self.result(way, context).iter().zip(&want) {
                let close = (found - want).abs() <= bound;
                assert!(close, "{}, {way}: {found}, expected {want}", self.shape);
            }
        }
    }
}

/// Steps to the next row and column of A and of B.
fn steps(role: Role, m: usize, n: usize, k: usize) -> ((isize, isize), (isize, isize)) {
    let [m, n, k] = [m, n, k].map(|size| size as isize);
    match role {
        Forward => ((k, 1), (n, 1)),
        InputGradient => ((k, 1), (1, k)),
        WeightGradient => ((1, m), (n, 1)),
    }
}

/// The transpose of a row-major matrix of `cols` columns.
fn transpose(values: &[f32], cols: usize) -> Vec<f32> {
    let columns = (0..cols).map(|col| values[col..].iter().step_by(cols));
    columns.flatten().copied().collect()
}
