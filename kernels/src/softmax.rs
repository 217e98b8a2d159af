//! Softmax at temperature T, log-softmax, and the gradient of the distillation loss.
//!
//! Matrices are panels [classes, examples]: 16 examples are computed side by side, whatever the
//! number of classes. With m = maxᵢ zᵢ, taken *before* the exponential, nothing overflows:
//!
//! qᵢ = exp((zᵢ − m)/T) / S,  S = Σⱼ exp((zⱼ − m)/T),  log qᵢ = (zᵢ − m)/T − ln S.
//!
//! The distillation loss takes T = ∞ as well: there its gradient is that of matching logits.

use crate::Context;
use crate::exp::exp;
use crate::isa::{Kernel, dispatch};
use crate::matrix::{Panels, PanelsMut};
use crate::pool::{Parts, chunks};
use crate::simd::{LANES, NEGLIGIBLE, Simd};

/// What 16 values cost, in multiply-adds: about 10 ns.
const COST: usize = 32;

/// Calls `work(panel, values)` for each panel of `out`, in parallel where that pays.
fn for_each_panel(context: &Context, mut out: PanelsMut, work: impl Fn(usize, &mut [f32]) + Sync) {
    let len = (out.rows() * LANES).max(1);
    let cost = COST * out.data().len() / LANES;
    context.pool.for_each_part(chunks(out.data(), len), cost, work);
}

/// out ← softmax(logits / T) over the classes (rows) of each example (lane); in [0, 1], each
/// example's sum is 1 within (classes + 1) · 2⁻²⁴ (paper, section 2).
///
/// # Panics
/// If the shapes differ or T is not positive.
pub fn softmax(context: &Context, logits: Panels, temperature: f32, out: PanelsMut) {
    normalise(context, logits, temperature, false, out);
}

/// out ← log softmax(logits / T); at most 0, exact where softmax itself would underflow.
///
/// # Panics
/// If the shapes differ or T is not positive.
pub fn log_softmax(context: &Context, logits: Panels, temperature: f32, out: PanelsMut) {
    normalise(context, logits, temperature, true, out);
}

fn normalise(context: &Context, logits: Panels, temperature: f32, log: bool, out: PanelsMut) {
    assert_eq!((out.rows(), out.lanes()), (logits.rows(), logits.lanes()), "shape of the result");
    assert!(temperature > 0.0, "temperature {temperature} is not positive");
    for_each_panel(context, out, |panel, out| {
        dispatch(context.isa, Normalise { logits, panel, temperature, log, out });
    });
}

struct Normalise<'a> {
    logits: Panels<'a>,
    panel: usize,
    temperature: f32,
    log: bool,
    out: &'a mut [f32],
}

impl Kernel for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let column = Column::new(s, self.logits, self.panel, self.temperature);
        let sum = column.sum(s);
        let rows = self.out.as_chunks_mut::<LANES>().0;
        if self.log {
            let mut ln = [0.0; LANES];
            s.store(sum, &mut ln);
            let ln = s.load(&ln.map(|sum| libm::log(f64::from(sum)) as f32));
            for (row, out) in rows.iter_mut().enumerate() {
                s.store(s.sub(column.exponent(s, row), ln), out);
            }
        } else {
            let scale = s.div(s.splat(1.0), sum);
            for (row, out) in rows.iter_mut().enumerate() {
                s.store(s.mul(exp(s, column.exponent(s, row)), scale), out);
            }
        }
    }
}

/// The logits of 16 examples at a temperature.
struct Column<'a, S: Simd> {
    logits: Panels<'a>,
    panel: usize,
    max: S::F,
    inverse_temperature: S::F,
}

impl<'a, S: Simd> Column<'a, S> {
    #[inline(always)]
    fn new(s: S, logits: Panels<'a>, panel: usize, temperature: f32) -> Self {
        let mut max = s.splat(f32::NEG_INFINITY);
        for row in 0..logits.rows() {
            // The running maximum is the second operand: a NaN logit is skipped here and
            // reappears in the exponent.
            max = s.max(s.load(logits.row(row, panel)), max);
        }
        Self { logits, panel, max, inverse_temperature: s.splat(1.0 / temperature) }
    }

    /// z − m of one class.
    #[inline(always)]
    fn shifted(&self, s: S, row: usize) -> S::F {
        s.sub(s.load(self.logits.row(row, self.panel)), self.max)
    }

    /// (z − m)/T of one class.
    #[inline(always)]
    fn exponent(&self, s: S, row: usize) -> S::F {
        s.mul(self.shifted(s, row), self.inverse_temperature)
    }

    /// S = Σ exp((z − m)/T) over the classes, in order.
    #[inline(always)]
    fn sum(&self, s: S) -> S::F {
        let mut sum = s.splat(0.0);
        for row in 0..self.logits.rows() {
            sum = s.add(sum, exp(s, self.exponent(s, row)));
        }
        sum
    }
}

/// Above this T the probabilities of student and teacher are so much alike that their difference
/// would be lost in rounding, and the differences of the logits are taken instead.
pub const HIGH: f32 = 100.0;

/// Student and teacher at a high T, by what their logits differ in.
///
/// With p = softmax(v/T) and dᵢ = zᵢ − vᵢ less its mean under p, q = softmax(z/T) has
/// qᵢ = pᵢ·exp(dᵢ/T)/(1 + M/T), M = T·Σ p·(exp(d/T) − 1). Therefore
///
/// T·(qᵢ − pᵢ) = pᵢ·(dᵢ·φ₁(dᵢ/T) − M)/(1 + M/T),  KL(p ‖ q) = ln(1 + E/T²),  E = Σ p·d²·φ₂(d/T),
///
/// φ₁(r) = (exp(r) − 1)/r and φ₂(r) = (exp(r) − 1 − r)/r². No difference of nearly equal numbers is
/// left, and as T → ∞ these are the gradient and the loss of matching logits.
struct Near<'a, S: Simd> {
    student: &'a Column<'a, S>,
    teacher: &'a Column<'a, S>,
    temperature: f32,
    /// Σ exp((v − m)/T).
    p_sum: S::F,
    /// Σ p·(z − v), each less its maximum.
    mean: S::F,
}

impl<'a, S: Simd> Near<'a, S> {
    /// `None` at an ordinary T and where a |d| exceeds T/2.
    #[inline(always)]
    fn new(
        s: S,
        student: &'a Column<'a, S>,
        teacher: &'a Column<'a, S>,
        temperature: f32,
        classes: usize,
    ) -> Option<Self> {
        if temperature <= HIGH {
            return None;
        }
        let p_sum = teacher.sum(s);
        let mut near = Self { student, teacher, temperature, p_sum, mean: s.splat(0.0) };
        let mut sum = s.splat(0.0);
        for row in 0..classes {
            sum = s.fma(near.power(s, row), near.difference(s, row), sum);
        }
        near.mean = s.div(sum, p_sum);
        let mut widest = s.splat(0.0);
        for row in 0..classes {
            let d = near.difference(s, row);
            widest = s.max(s.max(d, s.sub(s.splat(0.0), d)), widest);
        }
        (s.reduce_max(widest) <= 0.5 * temperature).then_some(near)
    }

    /// exp((v − m)/T) of one class.
    #[inline(always)]
    fn power(&self, s: S, row: usize) -> S::F {
        exp(s, self.teacher.exponent(s, row))
    }

    /// d of one class.
    #[inline(always)]
    fn difference(&self, s: S, row: usize) -> S::F {
        let d = s.sub(self.student.shifted(s, row), self.teacher.shifted(s, row));
        s.sub(d, self.mean)
    }

    /// Writes weight·T·(q − p) of all classes; the sums of CE and of KL over the first `width`
    /// examples.
    #[inline(always)]
    fn gradient(&self, s: S, weight: f32, width: usize, rows: &mut [[f32; LANES]]) -> [f64; 2] {
        let inverse = s.splat(1.0 / self.temperature);
        let (mut m, mut e, mut own) = (s.splat(0.0), s.splat(0.0), s.splat(0.0));
        for (row, out) in rows.iter_mut().enumerate() {
            let (p, d) = (self.power(s, row), self.difference(s, row));
            let r = s.mul(d, inverse);
            let phi2 = phi2(s, r);
            let tangent = s.mul(d, s.fma(r, phi2, s.splat(1.0)));
            m = s.fma(p, tangent, m);
            e = s.fma(s.mul(p, d), s.mul(d, phi2), e);
            own = s.fma(p, self.teacher.exponent(s, row), own);
            s.store(tangent, out);
        }
        let m = s.div(m, self.p_sum);
        let scale = s.div(s.splat(weight), s.mul(self.p_sum, s.fma(m, inverse, s.splat(1.0))));
        for (row, out) in rows.iter_mut().enumerate() {
            let d = s.mul(s.mul(self.power(s, row), scale), s.sub(s.load(out), m));
            s.store(s.flush_below(d, NEGLIGIBLE), out);
        }
        let square = f64::from(self.temperature) * f64::from(self.temperature);
        let divergence = |e: f64, p_sum: f64| libm::log1p(e / p_sum / square);
        [
            total(s, width, [self.p_sum, own, e], |_, [p_sum, own, e]| {
                libm::log(p_sum) - own / p_sum + divergence(e, p_sum)
            }),
            total(s, width, [self.p_sum, e], |_, [p_sum, e]| divergence(e, p_sum)),
        ]
    }
}

/// (exp(r) − 1 − r)/r² = 1/2 + r/6 + r²/24 + …, |r| ≤ ½, up to r⁷/9!: what is left is below 2⁻²⁷.
#[inline(always)]
fn phi2<S: Simd>(s: S, r: S::F) -> S::F {
    const FACTORIALS: [f32; 8] = [
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        1.0 / 2.0,
    ];
    let mut sum = s.splat(FACTORIALS[0]);
    for &coefficient in &FACTORIALS[1..] {
        sum = s.fma(sum, r, s.splat(coefficient));
    }
    sum
}

/// What a distillation loss compares the student with, and how.
#[derive(Clone, Copy)]
pub struct Distillation<'a> {
    /// The teacher's logits v, panels [classes, examples]; without them there is no soft term.
    pub teacher: Option<Panels<'a>>,
    /// The class of each example; without them there is no hard term.
    pub labels: Option<&'a [u16]>,
    /// T, of student and teacher in the soft term; the hard term is at T = 1. Infinity is the
    /// limit T → ∞, in which the centred logits are matched instead of the probabilities.
    pub temperature: f32,
    /// Weight of T² · CE(softmax(v/T), softmax(z/T)), or of its limit ½·Σ(d − d̄)²/C, d = z − v.
    pub soft_weight: f32,
    /// Weight of CE(label, softmax(z)).
    pub hard_weight: f32,
}

/// Cross-entropies summed over examples, unweighted, in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// Σ CE(softmax(v/T), softmax(z/T)), without the factor T²; at T = ∞ the sum over examples
    /// of ½·Σ(d − d̄)²/C.
    pub soft: f64,
    /// Σ KL(softmax(v/T) ‖ softmax(z/T)): `soft` without the entropy of softmax(v/T), the least
    /// that it can be; never negative. At T = ∞ it is `soft`.
    pub divergence: f64,
    /// Σ CE(label, softmax(z)).
    pub hard: f64,
}

impl Distillation<'_> {
    /// d_logits ← (soft_weight·T·(softmax(z/T) − softmax(v/T)) + hard_weight·(softmax(z) − y)) / B
    /// and, for each panel of 16 examples, its [`Loss`].
    ///
    /// The factor is T, not T²: the loss carries T² and the derivative of softmax(z/T) 1/T
    /// (paper, section 2). At T = ∞ the soft part is its limit soft_weight·(d − d̄)/C with
    /// d = z − v and d̄ its mean over the classes (section 2.1). Padding lanes of `d_logits` become
    /// zero, and so do values below 2⁻¹⁰⁰ of the other parts: examples that are all but certain would
    /// fill the layers below with subnormal numbers, with which some processors are far slower.
    ///
    /// # Panics
    /// If shapes differ, a label is out of range, T is not positive, or `losses` does not have
    /// one entry for each panel.
    pub fn gradient(
        &self,
        context: &Context,
        logits: Panels,
        losses: &mut [Loss],
        mut d_logits: PanelsMut,
    ) {
        let (classes, batch) = (logits.rows(), logits.lanes());
        assert_eq!((d_logits.rows(), d_logits.lanes()), (classes, batch), "shape of d_logits");
        assert_eq!(losses.len(), logits.panels(), "a loss for each panel");
        assert!(self.temperature > 0.0, "temperature {} is not positive", self.temperature);
        if let Some(v) = self.teacher {
            assert_eq!((v.rows(), v.lanes()), (classes, batch), "shape of the teacher's logits");
        }
        if let Some(labels) = self.labels {
            assert_eq!(labels.len(), batch, "a label for each example");
            assert!(labels.iter().all(|&y| usize::from(y) < classes), "labels below {classes}");
        }
        let len = (classes * LANES).max(1);
        let work = |panel, d_logits: &mut [f32], loss: &mut Loss| {
            *loss = dispatch(context.isa, Gradient { task: self, logits, panel, d_logits });
        };
        let cost = COST * d_logits.data().len() / LANES;
        let parts = chunks(d_logits.data(), len).zip(chunks(losses, 1));
        context.pool.for_each_part(parts, cost, |panel, (d_logits, losses)| {
            work(panel, d_logits, &mut losses[0]);
        });
    }
}

struct Gradient<'a> {
    task: &'a Distillation<'a>,
    logits: Panels<'a>,
    panel: usize,
    d_logits: &'a mut [f32],
}

impl Kernel for Gradient<'_> {
    type Output = Loss;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Loss {
        let Self { task, logits, panel, d_logits } = self;
        let (classes, batch) = (logits.rows(), logits.lanes());
        let width = LANES.min(batch - panel * LANES);
        let rows = d_logits.as_chunks_mut::<LANES>().0;
        rows.fill([0.0; LANES]);
        let mut loss = Loss::default();

        if let Some(teacher) = task.teacher.filter(|_| task.temperature.is_infinite()) {
            let difference =
                |row| s.sub(s.load(logits.row(row, panel)), s.load(teacher.row(row, panel)));
            let mut mean = s.splat(0.0);
            for row in 0..classes {
                mean = s.add(mean, difference(row));
            }
            mean = s.div(mean, s.splat(classes as f32));
            let scale = s.splat(task.soft_weight / batch as f32 / classes as f32);
            let mut squares = s.splat(0.0);
            for (row, d) in rows.iter_mut().enumerate() {
                let centred = s.sub(difference(row), mean);
                squares = s.fma(centred, centred, squares);
                s.store(s.mul(centred, scale), d);
            }
            let per_class = 0.5 / classes as f64;
            loss.soft = total(s, width, [squares], |_, [squares]| per_class * squares);
            loss.divergence = loss.soft;
        } else if let Some(teacher) = task.teacher {
            let student = Column::new(s, logits, panel, task.temperature);
            let teacher = Column::new(s, teacher, panel, task.temperature);
            let weight = task.soft_weight / batch as f32;
            let near = Near::new(s, &student, &teacher, task.temperature, classes);
            if let Some(near) = near {
                [loss.soft, loss.divergence] = near.gradient(s, weight, width, rows);
            } else {
                let (q_sum, p_sum) = (student.sum(s), teacher.sum(s));
                let scale = s.splat(task.soft_weight * task.temperature / batch as f32);
                let (q_scale, p_scale) = (s.div(scale, q_sum), s.div(scale, p_sum));
                let mut expected = s.splat(0.0);
                let mut own = s.splat(0.0);
                for (row, d) in rows.iter_mut().enumerate() {
                    let exponent = student.exponent(s, row);
                    let teacher_exponent = teacher.exponent(s, row);
                    let p = exp(s, teacher_exponent);
                    expected = s.fma(p, exponent, expected);
                    own = s.fma(p, teacher_exponent, own);
                    // One product each, subtracted last: identical logits give exactly zero.
                    let difference = s.sub(s.mul(exp(s, exponent), q_scale), s.mul(p, p_scale));
                    s.store(s.flush_below(difference, NEGLIGIBLE), d);
                }
                let sums = [q_sum, p_sum, expected, own];
                // CE = ln S − Σ p·(z − m)/T
                let ce =
                    |[q_sum, p_sum, expected, _]: [f64; 4]| libm::log(q_sum) - expected / p_sum;
                let entropy = |[_, p_sum, _, own]: [f64; 4]| libm::log(p_sum) - own / p_sum;
                loss.soft = total(s, width, sums, |_, sums| ce(sums));
                // Rounding may take the difference below 0; a NaN stays one.
                loss.divergence = total(s, width, sums, |_, sums| {
                    let divergence = ce(sums) - entropy(sums);
                    if divergence < 0.0 { 0.0 } else { divergence }
                });
            }
        }

        if let Some(labels) = task.labels {
            let labels = &labels[panel * LANES..][..width];
            let student = Column::new(s, logits, panel, 1.0);
            let sum = student.sum(s);
            let weight = task.hard_weight / batch as f32;
            let scale = s.div(s.splat(weight), sum);
            for (row, d) in rows.iter_mut().enumerate() {
                let q = exp(s, student.exponent(s, row));
                s.store(s.flush_below(s.fma(q, scale, s.load(d)), NEGLIGIBLE), d);
            }
            for (lane, &label) in labels.iter().enumerate() {
                rows[usize::from(label)][lane] -= weight;
            }
            // CE = ln S − (z_y − m)
            loss.hard = total(s, width, [sum, student.max], |lane, [sum, max]| {
                let z = logits.row(usize::from(labels[lane]), panel)[lane];
                libm::log(sum) - (f64::from(z) - max)
            });
        }

        for row in &mut rows[..classes] {
            row[width..].fill(0.0);
        }
        loss
    }
}

/// Σ over the first `width` lanes of `term(lane, values)`, in f64 and in order.
#[inline(always)]
fn total<S: Simd, const N: usize>(
    s: S,
    width: usize,
    vectors: [S::F; N],
    term: impl Fn(usize, [f64; N]) -> f64,
) -> f64 {
    let mut values = [[0.0; LANES]; N];
    for (values, vector) in values.iter_mut().zip(vectors) {
        s.store(vector, values);
    }
    (0..width).map(|lane| term(lane, std::array::from_fn(|i| f64::from(values[i][lane])))).sum()
}
