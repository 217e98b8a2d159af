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

    /// (z − m)/T of one class.
    #[inline(always)]
    fn exponent(&self, s: S, row: usize) -> S::F {
        let z = s.load(self.logits.row(row, self.panel));
        s.mul(s.sub(z, self.max), self.inverse_temperature)
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
    /// Σ H(softmax(v/T)), the least that `soft` can be; at T = ∞ zero.
    pub entropy: f64,
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
        } else if let Some(teacher) = task.teacher {
            let student = Column::new(s, logits, panel, task.temperature);
            let teacher = Column::new(s, teacher, panel, task.temperature);
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
            // CE = ln S − Σ p·(z − m)/T
            loss.soft = total(s, width, [q_sum, p_sum, expected], |_, [q_sum, p_sum, expected]| {
                libm::log(q_sum) - expected / p_sum
            });
            loss.entropy =
                total(s, width, [p_sum, own], |_, [p_sum, own]| libm::log(p_sum) - own / p_sum);
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
