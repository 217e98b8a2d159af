//! Matrix products against the f64 reference: row-major in three layouts, and the three products
//! of a dense layer in panel order.

mod common;

use common::{Data, EPS, Panel, assert_within, magnitudes, same_bits_everywhere, widen};
use limbeck_kernels::gemm::{
    Factors, Layout, Packed, forward, gemm, input_gradient, transpose, weight_gradient,
};
use limbeck_kernels::random::{Dropout, Key};
use limbeck_kernels::reduce::{errors, row_sums};
use limbeck_kernels::tanh::ULPS;
use limbeck_kernels::{Activation, Context, MatMut, MatRef, reference};

const LAYOUTS: [Layout; 3] = [Layout::Nn, Layout::Nt, Layout::Tn];

/// What lies between the rows of C and must stay there.
const GAP: f32 = 1234.5;

/// A row-major matrix whose rows are `gap` values longer than its columns.
struct Strided {
    data: Vec<f32>,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl Strided {
    fn new(rows: usize, cols: usize, gap: usize, fill: f32, values: &[f32]) -> Self {
        let stride = cols + gap;
        let mut data = vec![fill; rows * stride];
        for row in 0..rows {
            data[row * stride..][..cols].copy_from_slice(&values[row * cols..][..cols]);
        }
        Self { data, rows, cols, stride }
    }

    fn view(&self) -> MatRef<'_> {
        MatRef::new(&self.data, self.rows, self.cols, self.stride)
    }

    fn view_mut(&mut self) -> MatMut<'_> {
        MatMut::new(&mut self.data, self.rows, self.cols, self.stride)
    }

    /// The values of the matrix; panics if one between the rows is no longer `fill`.
    fn values(&self, fill: f32) -> Vec<f32> {
        let mut values = Vec::new();
        for row in 0..self.rows {
            let (inside, gap) = self.data[row * self.stride..][..self.stride].split_at(self.cols);
            assert!(gap.iter().all(|&x| x == fill), "values right of C's columns were written");
            values.extend_from_slice(inside);
        }
        values
    }
}

/// Operands of one product, contiguous.
struct Case {
    layout: Layout,
    shape: (usize, usize, usize),
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

impl Case {
    fn new(
        layout: Layout,
        shape: (usize, usize, usize),
        draw: impl FnMut(usize) -> Vec<f32>,
    ) -> Self {
        let (m, n, k) = shape;
        let mut draw = draw;
        Self { layout, shape, a: draw(m * k), b: draw(k * n), c: draw(m * n) }
    }

    fn name(&self, beta: f32) -> String {
        format!("{:?} {:?} beta {beta}", self.layout, self.shape)
    }

    /// C ← A·B + beta·C on one context, with gaps of NaN in A and B. For beta = 0 C holds NaN.
    fn fast(&self, context: &Context, beta: f32, packed: &mut Packed) -> Vec<f32> {
        let (m, n, k) = self.shape;
        let (a_rows, a_cols) = if self.layout == Layout::Tn { (k, m) } else { (m, k) };
        let (b_rows, b_cols) = if self.layout == Layout::Nt { (n, k) } else { (k, n) };
        let a = Strided::new(a_rows, a_cols, 3, f32::NAN, &self.a);
        let b = Strided::new(b_rows, b_cols, 5, f32::NAN, &self.b);
        let nan = vec![f32::NAN; m * n];
        let mut c = Strided::new(m, n, 7, GAP, if beta == 0.0 { &nan } else { &self.c });
        gemm(context, self.layout, a.view(), b.view(), beta, c.view_mut(), packed);
        c.values(GAP)
    }

    fn exact(&self, beta: f32) -> Vec<f64> {
        let mut c = widen(&self.c);
        let (a, b) = (widen(&self.a), widen(&self.b));
        reference::gemm(self.layout, self.shape, &a, &b, beta.into(), &mut c);
        c
    }

    /// K·ε·(|A|·|B|) for the K roundings of the chain, which beta·C passes through as well, and
    /// ε·|beta·C| for the rounding of that product.
    fn bound(&self, beta: f32) -> Vec<f64> {
        let mut sum = magnitudes(&self.c);
        let (a, b) = (magnitudes(&self.a), magnitudes(&self.b));
        reference::gemm(self.layout, self.shape, &a, &b, beta.abs().into(), &mut sum);
        let product = magnitudes(&self.c).into_iter().map(|c| f64::from(beta.abs()) * c);
        let k = self.shape.2 as f64;
        sum.iter().zip(product).map(|(sum, product)| EPS * (k * sum + product)).collect()
    }
}

/// (m, n, k) around 16 lanes, tiles of 4, 6 and 16 rows, K blocks of 256 and 512, row blocks of 32
/// and 128, and primes.
const SHAPES: [(usize, usize, usize); 24] = [
    (1, 1, 1),
    (1, 17, 3),
    (17, 1, 31),
    (3, 15, 16),
    (4, 16, 17),
    (5, 17, 15),
    (6, 31, 255),
    (7, 33, 256),
    (9, 21, 1025),
    (11, 16, 257),
    (12, 5, 512),
    (13, 47, 513),
    (15, 48, 19),
    (16, 16, 256),
    (17, 23, 255),
    (18, 32, 64),
    (31, 7, 257),
    (32, 64, 32),
    (33, 37, 33),
    (47, 53, 59),
    (97, 101, 103),
    (127, 17, 129),
    (129, 33, 11),
    (131, 149, 257),
];

#[test]
fn gemm_is_within_its_error_bound_and_has_the_same_bits_everywhere() {
    let mut data = Data::new(1);
    for shape in SHAPES {
        for layout in LAYOUTS {
            let case = Case::new(layout, shape, |len| data.values(len));
            for beta in [0.0, 1.0, 0.5, -0.3] {
                let name = case.name(beta);
                let mut packed = Packed::default();
                let got =
                    same_bits_everywhere(&name, |context| case.fast(context, beta, &mut packed));
                assert_within(&name, &got, &case.exact(beta), &case.bound(beta));
            }
        }
    }
}

#[test]
fn gemm_of_small_integers_is_exact() {
    let mut data = Data::new(2);
    for shape in SHAPES {
        for layout in LAYOUTS {
            let case = Case::new(layout, shape, |len| data.integers(len));
            for beta in [0.0, 1.0, 0.5] {
                let name = case.name(beta);
                let got = same_bits_everywhere(&name, |context| {
                    case.fast(context, beta, &mut Packed::default())
                });
                assert_eq!(widen(&got), case.exact(beta), "{name}");
            }
        }
    }
}

#[test]
fn gemm_with_an_empty_dimension_writes_beta_c() {
    let mut data = Data::new(3);
    for shape in [(0, 5, 3), (5, 0, 3), (0, 0, 0), (1, 1, 0), (7, 19, 0), (35, 3, 0)] {
        for layout in LAYOUTS {
            let case = Case::new(layout, shape, |len| data.values(len));
            for beta in [0.0, 1.0, 0.5] {
                let name = case.name(beta);
                let got = same_bits_everywhere(&name, |context| {
                    case.fast(context, beta, &mut Packed::default())
                });
                assert_eq!(widen(&got), case.exact(beta), "{name}");
            }
        }
    }
}

#[test]
fn packed_operands_of_a_larger_product_do_not_leak_into_a_smaller_one() {
    let mut data = Data::new(4);
    let large = Case::new(Layout::Nn, (40, 50, 60), |len| data.values(len));
    let small = Case::new(Layout::Nt, (19, 21, 23), |len| data.values(len));
    same_bits_everywhere("packed again", |context| {
        let mut packed = Packed::default();
        large.fast(context, 0.0, &mut packed);
        let got = small.fast(context, 0.0, &mut packed);
        assert_within("packed again", &got, &small.exact(0.0), &small.bound(0.0));
        got
    });
}

#[test]
fn gemm_agrees_with_matrixmultiply() {
    let mut data = Data::new(5);
    for shape in [(97, 101, 103), (64, 130, 300)] {
        let (m, n, k) = shape;
        let case = Case::new(Layout::Nn, shape, |len| data.values(len));
        let mut theirs = vec![0.0; m * n];
        let (a, b, c) = (case.a.as_ptr(), case.b.as_ptr(), theirs.as_mut_ptr());
        let (rsa, rsb) = (k as isize, n as isize);
        // SAFETY: row-major matrices of m × k, k × n and m × n values.
        unsafe { matrixmultiply::sgemm(m, k, n, 1.0, a, rsa, 1, b, rsb, 1, 0.0, c, rsb, 1) };
        let got = same_bits_everywhere("sgemm", |context| {
            case.fast(context, 0.0, &mut Packed::default())
        });
        // Each side is within its own bound of the exact product.
        let bound: Vec<f64> = case.bound(0.0).into_iter().map(|bound| 2.0 * bound).collect();
        assert_within("sgemm", &got, &widen(&theirs), &bound);
    }
}

const BATCHES: [usize; 6] = [1, 5, 16, 17, 100, 128];
const WIDTHS: [usize; 5] = [1, 10, 17, 30, 100];

/// Every (inputs, outputs, batch) of the lists above, and one layer deeper than a K block.
fn layers() -> impl Iterator<Item = (usize, usize, usize)> {
    let widths = WIDTHS.into_iter().flat_map(|i| WIDTHS.into_iter().map(move |o| (i, o)));
    let layers = widths.flat_map(|(i, o)| BATCHES.into_iter().map(move |b| (i, o, b)));
    layers.chain([(300, 270, 33), (13, 11, 273)])
}

#[test]
fn forward_is_within_its_error_bound_and_has_the_same_bits_everywhere() {
    let mut data = Data::new(6);
    for (case, shape) in layers().enumerate() {
        let (inputs, outputs, batch) = shape;
        let (w, x) = (data.panel(inputs, outputs), data.panel(inputs, batch));
        let bias = data.values(outputs);
        let dropout = Dropout::new(Key::new(7, 1, case as u64), 0.5, batch);
        let [relu, tanh] = Activation::ALL.map(Some);
        for (f, dropout) in
            [(None, None), (relu, None), (relu, Some(dropout)), (tanh, None), (tanh, Some(dropout))]
        {
            let name = format!("forward {shape:?} {f:?} dropout {}", dropout.is_some());
            let got = same_bits_everywhere(&name, |context| {
                let mut y = Panel::unwritten(outputs, batch);
                forward(context, Factors::f32(w.view(), x.view()), &bias, f, dropout, y.view_mut());
                y.row_major()
            });

            let mask = mask(dropout, outputs, batch);
            let of = |values: fn(&[f32]) -> Vec<f64>, f| {
                let (w, x) = (values(&w.row_major()), values(&x.row_major()));
                reference::forward(shape, &w, &x, &values(&bias), f, Some(&mask))
            };
            let want = of(widen, f);
            // The chain's K roundings, the bias's and the scale's each act on at most
            // scale · (|W|ᵀ|X| + |b|), which no activation enlarges. tanh has an error of its own,
            // and one ULP is at most 2ε.
            let of_f = if f == tanh { 2.0 * ULPS } else { 0.0 };
            let bound: Vec<f64> = of(magnitudes, None)
                .into_iter()
                .zip(&want)
                .map(|(sum, want)| EPS * ((inputs + 2) as f64 * sum + of_f * want.abs()))
                .collect();
            assert_within(&name, &got, &want, &bound);
            for (got, mask) in got.iter().zip(&mask) {
                assert!(*mask != 0.0 || *got == 0.0, "{name}: a dropped unit is not zero");
            }
        }
    }
}

/// Dropout's factor of each element [rows, batch].
fn mask(dropout: Option<Dropout>, rows: usize, batch: usize) -> Vec<f64> {
    (0..rows * batch)
        .map(|i| match dropout {
            Some(dropout) if !dropout.keeps(i / batch, i % batch) => 0.0,
            Some(dropout) => f64::from(dropout.scale()),
            None => 1.0,
        })
        .collect()
}

#[test]
fn forward_keeps_nan_visible_through_the_activation() {
    let (w, bias) = (Data::new(8).panel(3, 5), [0.5; 5]);
    let x = Panel::from_row_major(3, 2, &[0.1, f32::NAN, 0.2, 0.3, 0.4, 0.5]);
    for (context, f) in
        common::contexts().iter().flat_map(|context| Activation::ALL.map(|f| (context, f)))
    {
        let mut y = Panel::unwritten(5, 2);
        forward(context, Factors::f32(w.view(), x.view()), &bias, Some(f), None, y.view_mut());
        for unit in 0..5 {
            assert!(y.view().get(unit, 0).is_finite());
            assert!(y.view().get(unit, 1).is_nan());
        }
    }
}

#[test]
fn gradients_are_within_their_error_bounds_and_have_the_same_bits_everywhere() {
    let mut data = Data::new(9);
    for shape in layers() {
        let (inputs, outputs, batch) = shape;
        let (w, x, dz) =
            (data.panel(inputs, outputs), data.panel(inputs, batch), data.panel(outputs, batch));
        let (w64, x64, dz64) =
            (widen(&w.row_major()), widen(&x.row_major()), widen(&dz.row_major()));

        let (w_size, dz_size) = (magnitudes(&w.row_major()), magnitudes(&dz.row_major()));
        let dropout = Dropout::new(Key::new(7, 2, 0), 0.2, batch);
        for (f, dropout) in
            Activation::ALL.into_iter().flat_map(|f| [(f, None), (f, Some(dropout))])
        {
            let mask = mask(dropout, inputs, batch);
            let y: Vec<f64> = x64.iter().zip(&mask).map(|(f, mask)| f * mask).collect();
            let y32: Vec<f32> = y.iter().map(|&y| y as f32).collect();
            let (y, y64) = (Panel::from_row_major(inputs, batch, &y32), widen(&y32));
            let name = format!("input gradient {shape:?} {f:?} dropout {}", dropout.is_some());
            let got = same_bits_everywhere(&name, |context| {
                let mut dx = Panel::unwritten(inputs, batch);
                input_gradient(
                    context,
                    Factors::f32(w.view(), dz.view()),
                    y.view(),
                    f,
                    dropout,
                    dx.view_mut(),
                );
                dx.assert_padding_is_zero(&name);
                dx.row_major()
            });
            let of = |w: &[f64], dz: &[f64]| {
                reference::input_gradient(shape, w, dz, &y64, f, Some(&mask))
            };
            let (want, sums) = (of(&w64, &dz64), of(&w_size, &dz_size));
            // Of the sum before mask and slope, with which the error of the slope counts.
            let whole = reference::input_gradient(
                shape,
                &w_size,
                &dz_size,
                &vec![1.0; inputs * batch],
                Activation::Relu,
                None,
            );
            // The chain's roundings and the scale's; for tanh those of f = Y / scale, which f²
            // doubles, of the slope, and of the product with it. Where Y ≤ 0 ReLU's bound is zero.
            let of_slope = if f == Activation::Tanh { 2.0 } else { 0.0 };
            let bound: Vec<f64> = (0..inputs * batch)
                .map(|i| {
                    let slope_error = of_slope * mask[i] * (whole[i] + sums[i].abs());
                    EPS * ((outputs + 1) as f64 * sums[i].abs() + slope_error)
                })
                .collect();
            assert_within(&name, &got, &want, &bound);
        }

        let name = format!("weight gradient {shape:?}");
        let got = same_bits_everywhere(&name, |context| {
            let mut dz_transposed = Panel::unwritten(batch, outputs);
            transpose(context, dz.view(), dz_transposed.view_mut());
            dz_transposed.assert_padding_is_zero(&name);
            for unit in 0..outputs {
                for example in 0..batch {
                    let (there, back) =
                        (dz_transposed.view().get(example, unit), dz.view().get(unit, example));
                    assert_eq!(there.to_bits(), back.to_bits(), "transpose {outputs}×{batch}");
                }
            }
            let mut dw = Panel::unwritten(inputs, outputs);
            weight_gradient(context, Factors::f32(x.view(), dz_transposed.view()), dw.view_mut());
            dw.assert_padding_is_zero(&name);
            dw.row_major()
        });
        let want = reference::weight_gradient(shape, &x64, &dz64);
        let sums = reference::weight_gradient(shape, &magnitudes(&x.row_major()), &dz_size);
        let bound: Vec<f64> = sums.iter().map(|sum| batch as f64 * EPS * sum).collect();
        assert_within(&name, &got, &want, &bound);

        let name = format!("row sums {outputs}×{batch}");
        let got = same_bits_everywhere(&name, |context| {
            let mut sums = vec![f32::NAN; outputs];
            row_sums(context, dz.view(), &mut sums);
            sums
        });
        // One rounding for each further panel and four for the tree of 16 lanes.
        let roundings = (batch.div_ceil(16) + 4) as f64;
        let bound: Vec<f64> = reference::row_sums(batch, &dz_size)
            .into_iter()
            .map(|sum| roundings * EPS * sum)
            .collect();
        assert_within(&name, &got, &reference::row_sums(batch, &dz64), &bound);
    }
}

#[test]
fn row_sums_of_more_rows_than_one_task_has() {
    let dz = Data::new(10).panel(1000, 20);
    let want = reference::row_sums(20, &widen(&dz.row_major()));
    let got = same_bits_everywhere("row sums 1000×20", |context| {
        let mut sums = vec![f32::NAN; 1000];
        row_sums(context, dz.view(), &mut sums);
        sums
    });
    let sizes = reference::row_sums(20, &magnitudes(&dz.row_major()));
    let bound: Vec<f64> = sizes.into_iter().map(|sum| 6.0 * EPS * sum).collect();
    assert_within("row sums 1000×20", &got, &want, &bound);
}

/// Against the definition, example by example: few different values, so that many are equal, and
/// some that are not finite.
#[test]
fn errors_are_counted_as_they_are_defined() {
    let mut data = Data::new(11);
    for (classes, batch) in [(1, 1), (2, 15), (3, 16), (10, 33), (792, 128), (17, 1000)] {
        let mut logits: Vec<f32> =
            (0..classes * batch).map(|_| (data.bits() % 3) as f32 - 1.0).collect();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            logits[data.bits() as usize % (classes * batch)] = bad;
        }
        let labels: Vec<u16> = (0..batch).map(|_| (data.bits() % classes as u32) as u16).collect();
        let panel = Panel::from_row_major(classes, batch, &logits);
        let z = |class: usize, i: usize| logits[class * batch + i];
        let wrong = |i: &usize| {
            let label = usize::from(labels[*i]);
            let beaten = (0..classes)
                .any(|c| z(c, *i) > z(label, *i) || c < label && z(c, *i) == z(label, *i));
            beaten || (0..classes).any(|c| !z(c, *i).is_finite())
        };
        let want = (0..batch).filter(wrong).count() as f32;
        let name = format!("errors of {batch} in {classes} classes");
        let got = same_bits_everywhere(&name, |context| {
            vec![errors(context, panel.view(), &labels) as f32]
        });
        assert_eq!(got, [want], "{name}");
    }
}

#[test]
fn an_empty_batch_gives_no_gradient() {
    let (x, dz_transposed) = (Panel::unwritten(9, 0), Panel::unwritten(0, 7));
    let got = same_bits_everywhere("empty batch", |context| {
        let mut dw = Panel::unwritten(9, 7);
        weight_gradient(context, Factors::f32(x.view(), dz_transposed.view()), dw.view_mut());
        dw.row_major()
    });
    assert_eq!(got, [0.0; 63]);
}
