//! Optimiser steps, elementwise over flat arrays, and the max-norm constraint.

use crate::Context;
use crate::isa::{Kernel, dispatch};
use crate::matrix::PanelsMut;
use crate::pool::{Parts, chunks};
use crate::simd::{LANES, NEGLIGIBLE, Simd};
use std::sync::atomic::{AtomicBool, Ordering};

/// 2⁻⁵⁷: gradients below it count as 0 in Adam's second moment, and (2⁻⁵⁷)² in that moment itself.
/// Its root over √(1 − β₂) is 2·10⁻¹⁶ at β₂ = 0.999, below the last bit of an ε of 10⁻⁸ and
/// 2 millionths of one of 10⁻¹⁰, the least that a configuration may have.
const NEGLIGIBLE_ROOT: f32 = f32::from_bits((127 - 57) << 23);

/// How a parameter w moves for a gradient g; v and u are its moments, zero at the start.
///
/// The moments of a unit that no longer learns fade away, and so do weights under weight decay. Once
/// |w| or |v| < 2⁻¹⁰⁰ or u < 2⁻¹¹⁴ they are kept as 0, and g² with |g| < 2⁻⁵⁷ counts as 0: they would
/// become subnormal numbers and stay so, with which some processors compute far more slowly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// v ← m·v + g; w ← w − η·v (PyTorch's form).
    Sgd {
        /// η
        learning_rate: f32,
        /// m
        momentum: f32,
    },
    /// v ← m·v + g; w ← w − η·(g + m·v) (Nesterov in PyTorch's form).
    Nesterov {
        /// η
        learning_rate: f32,
        /// m
        momentum: f32,
    },
    /// v ← m·v − (1 − m)·η·g; w ← w + v (Hinton et al. 2012, arXiv 1207.0580, appendix A.1).
    Hinton2012 {
        /// η
        learning_rate: f32,
        /// m
        momentum: f32,
    },
    /// v ← β₁v + (1 − β₁)g; u ← β₂u + (1 − β₂)g²; w ← w − η·(v/c₁)/(√(u/c₂) + ε), where
    /// cᵢ = 1 − βᵢᵗ at step t (Kingma & Ba 2015).
    Adam {
        /// η
        learning_rate: f32,
        /// β₁
        beta1: f32,
        /// β₂
        beta2: f32,
        /// ε
        epsilon: f32,
        /// c₁ and c₂
        corrections: [f32; 2],
    },
    /// w ← w − η·λ·w, then Adam's step with a gradient free of the weight decay λ (Loshchilov &
    /// Hutter 2019). With λ = 0 the bits are Adam's.
    AdamW {
        /// η
        learning_rate: f32,
        /// β₁
        beta1: f32,
        /// β₂
        beta2: f32,
        /// ε
        epsilon: f32,
        /// c₁ and c₂
        corrections: [f32; 2],
    },
}

impl Rule {
    /// How many moment arrays the rule keeps: 1, or 2 for Adam and AdamW.
    pub fn moments(&self) -> usize {
        match self {
            Rule::Adam { .. } | Rule::AdamW { .. } => 2,
            _ => 1,
        }
    }
}

/// A rule with its coefficients, each in all lanes: between the multiply-adds of a product they then
/// come from memory, at no cost of the ports that those keep busy.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Step {
    rule: Rule,
    /// λ, or −ηλ of AdamW.
    decay: All,
    /// −η, or −η/c₁ of Adam.
    rate: All,
    /// m or β₁,
    keep: All,
    /// and −(1 − m)·η or 1 − β₁.
    take: All,
    /// β₂,
    keep_square: All,
    /// 1 − β₂,
    take_square: All,
    /// 1/c₂
    unbias: All,
    /// and ε.
    epsilon: All,
}

/// A value in all lanes.
type All = [f32; LANES];

impl Step {
    /// `rule` with the weight decay λ.
    pub fn new(rule: Rule, weight_decay: f32) -> Self {
        let [decay, rate, keep, take, keep_square, take_square, unbias, epsilon] = match rule {
            Rule::Sgd { learning_rate: rate, momentum: keep }
            | Rule::Nesterov { learning_rate: rate, momentum: keep } => {
                [weight_decay, -rate, keep, 0.0, 0.0, 0.0, 0.0, 0.0]
            }
            Rule::Hinton2012 { learning_rate: rate, momentum: keep } => {
                [weight_decay, 0.0, keep, -(1.0 - keep) * rate, 0.0, 0.0, 0.0, 0.0]
            }
            Rule::Adam { learning_rate: rate, beta1, beta2, epsilon, corrections: [c1, c2] }
            | Rule::AdamW { learning_rate: rate, beta1, beta2, epsilon, corrections: [c1, c2] } => {
                let decay = match rule {
                    Rule::AdamW { .. } => -rate * weight_decay,
                    _ => weight_decay,
                };
                [decay, -rate / c1, beta1, 1.0 - beta1, beta2, 1.0 - beta2, 1.0 / c2, epsilon]
            }
        }
        .map(|x| [x; LANES]);
        Self { rule, decay, rate, keep, take, keep_square, take_square, unbias, epsilon }
    }

    /// The new [w, v, u] of 16 parameters with the gradient `g` of the loss. The weight decay λ is
    /// added to it as λ·w, or shrinks w itself under [`Rule::AdamW`]; u is passed through where the
    /// rule has none.
    #[inline(always)]
    pub fn apply<S: Simd>(&self, s: S, [w, g, v, u]: [S::F; 4]) -> [S::F; 3] {
        let (decay, rate, keep) = (s.load(&self.decay), s.load(&self.rate), s.load(&self.keep));
        let (w, g) = match self.rule {
            Rule::AdamW { .. } => (s.fma(decay, w, w), g),
            _ => (w, s.fma(decay, w, g)),
        };
        let (w, v, u) = match self.rule {
            Rule::Sgd { .. } => {
                let v = s.fma(keep, v, g);
                (s.fma(rate, v, w), v, u)
            }
            Rule::Nesterov { .. } => {
                let v = s.fma(keep, v, g);
                let ahead = s.fma(keep, v, g);
                (s.fma(rate, ahead, w), v, u)
            }
            Rule::Hinton2012 { .. } => {
                let v = s.fma(keep, v, s.mul(s.load(&self.take), g));
                (s.add(w, v), v, u)
            }
            Rule::Adam { .. } | Rule::AdamW { .. } => {
                let v = s.fma(keep, v, s.mul(s.load(&self.take), g));
                let g = s.flush_below(g, NEGLIGIBLE_ROOT);
                let square = s.mul(s.mul(s.load(&self.take_square), g), g);
                let u = s.fma(s.load(&self.keep_square), u, square);
                let u = s.flush_below(u, NEGLIGIBLE_ROOT * NEGLIGIBLE_ROOT);
                let root = s.sqrt(s.mul(u, s.load(&self.unbias)));
                let quotient = s.div(v, s.add(root, s.load(&self.epsilon)));
                (s.fma(rate, quotient, w), v, u)
            }
        };
        [s.flush_below(w, NEGLIGIBLE), s.flush_below(v, NEGLIGIBLE), u]
    }
}

/// `seen`, and NaN where `x` is not finite: 0·x is 0 for a finite x and NaN otherwise, and NaN survives
/// every later sum.
#[inline(always)]
pub(crate) fn watch<S: Simd>(s: S, x: S::F, seen: S::F) -> S::F {
    s.fma(x, s.splat(0.0), seen)
}

/// Values of one parallel task: 64 KiB an array.
const CHUNK: usize = 1 << 14;

/// One step of `rule` with the gradient `grads` of the loss and the weight decay λ = `weight_decay`:
/// g = `grads` + λ·`params`, and g = `grads` under [`Rule::AdamW`].
///
/// `moments` holds v (and u for Adam and AdamW). All arrays have the same length, a multiple of 16.
/// Returns whether everything was finite: gradients, parameters, and second moments.
///
/// # Panics
/// If the lengths differ, are no multiple of 16, or a moment is missing.
pub fn step(
    context: &Context,
    rule: Rule,
    weight_decay: f32,
    params: &mut [f32],
    grads: &[f32],
    moments: &mut [&mut [f32]],
) -> bool {
    let len = params.len();
    assert!(len.is_multiple_of(LANES) && grads.len() == len, "lengths of parameters and gradients");
    assert!(moments.iter().all(|m| m.len() == len), "lengths of the moments");
    let (v, rest) = moments.split_first_mut().expect("a first moment");
    let u: &mut [f32] = match rest.first_mut() {
        Some(u) if rule.moments() == 2 => u,
        _ => &mut [],
    };
    assert!(rule.moments() == 1 || u.len() == len, "the second moment");

    let isa = context.isa;
    let step = &Step::new(rule, weight_decay);
    let finite = AtomicBool::new(true);
    let parts = chunks(params, CHUNK).zip(chunks(v, CHUNK)).zip(chunks(u, CHUNK));
    context.pool.for_each_part(parts, 5 * len / LANES, |i, ((params, v), u)| {
        let grads = &grads[i * CHUNK..][..params.len()];
        if !dispatch(isa, StepAll { step, params, grads, v, u }) {
            finite.store(false, Ordering::Relaxed);
        }
    });
    finite.into_inner()
}

struct StepAll<'a> {
    step: &'a Step,
    params: &'a mut [f32],
    grads: &'a [f32],
    v: &'a mut [f32],
    u: &'a mut [f32],
}

impl Kernel for StepAll<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        // NaN and ∞ of g and v reach w under every rule, g² reaches u.
        let mut finite = s.splat(0.0);
        let params = self.params.as_chunks_mut::<LANES>().0;
        let grads = self.grads.as_chunks::<LANES>().0;
        let v = self.v.as_chunks_mut::<LANES>().0;
        let u = self.u.as_chunks_mut::<LANES>().0;
        for (i, ((params, grads), v)) in params.iter_mut().zip(grads).zip(v).enumerate() {
            let (w, g) = (s.load(params), s.load(grads));
            let (old_v, old_u) = (s.load(v), u.get(i).map_or(s.splat(0.0), |u| s.load(u)));
            let [w, new_v, new_u] = self.step.apply(s, [w, g, old_v, old_u]);
            finite = watch(s, new_u, watch(s, w, finite));
            s.store(new_v, v);
            if let Some(u) = u.get_mut(i) {
                s.store(new_u, u);
            }
            s.store(w, params);
        }
        s.reduce_add(finite) == 0.0
    }
}

/// sum ← sum + `values`.
///
/// # Panics
/// If the lengths differ or are no multiple of 16.
pub fn add(context: &Context, values: &[f32], sum: &mut [f32]) {
    assert!(sum.len().is_multiple_of(LANES) && values.len() == sum.len(), "lengths");
    let cost = 3 * sum.len() / LANES;
    context.pool.for_each_part(chunks(sum, CHUNK), cost, |i, sum| {
        dispatch(context.isa, Add { values: &values[i * CHUNK..][..sum.len()], sum });
    });
}

struct Add<'a> {
    values: &'a [f32],
    sum: &'a mut [f32],
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let values = self.values.as_chunks::<LANES>().0;
        for (sum, values) in self.sum.as_chunks_mut::<LANES>().0.iter_mut().zip(values) {
            s.store(s.add(s.load(sum), s.load(values)), sum);
        }
    }
}

/// average ← average + `weight`·(params − average), and 0 below 2⁻¹⁰⁰, as [`Rule`] has it.
///
/// # Panics
/// If the lengths differ or are no multiple of 16.
pub fn average(context: &Context, params: &[f32], weight: f32, average: &mut [f32]) {
    assert!(params.len().is_multiple_of(LANES) && params.len() == average.len(), "lengths");
    let cost = 3 * params.len() / LANES;
    context.pool.for_each_part(chunks(average, CHUNK), cost, |i, average| {
        let params = &params[i * CHUNK..][..average.len()];
        dispatch(context.isa, Average { params, weight, average });
    });
}

struct Average<'a> {
    params: &'a [f32],
    weight: f32,
    average: &'a mut [f32],
}

impl Kernel for Average<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let params = self.params.as_chunks::<LANES>().0;
        for (average, params) in self.average.as_chunks_mut::<LANES>().0.iter_mut().zip(params) {
            let old = s.load(average);
            let v = s.fma(s.splat(self.weight), s.sub(s.load(params), old), old);
            s.store(s.flush_below(v, NEGLIGIBLE), average);
        }
    }
}

/// Scales the incoming weights of each unit (a lane of W [inputs, units]) down to the Euclidean
/// norm `limit`, if they exceed it (Hinton et al. 2012). Biases are not constrained. Returns
/// whether every squared norm was finite; finite weights of a unit whose is not become 0.
pub fn max_norm(context: &Context, limit: f32, mut w: PanelsMut) -> bool {
    let len = (w.rows() * LANES).max(1);
    let cost = 3 * w.data().len() / LANES;
    let finite = AtomicBool::new(true);
    context.pool.for_each_part(chunks(w.data(), len), cost, |_, panel| {
        if !dispatch(context.isa, MaxNorm { limit, panel }) {
            finite.store(false, Ordering::Relaxed);
        }
    });
    finite.into_inner()
}

struct MaxNorm<'a> {
    limit: f32,
    panel: &'a mut [f32],
}

impl Kernel for MaxNorm<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        limit_norms(s, self.limit, self.panel.as_chunks_mut::<LANES>().0)
    }
}

/// [`max_norm`] of one panel's 16 units.
#[inline(always)]
pub(crate) fn limit_norms<S: Simd>(s: S, limit: f32, rows: &mut [[f32; LANES]]) -> bool {
    // Four chains, rows i mod 4, hide the latency of the multiply-add.
    let mut sums = [s.splat(0.0); 4];
    for (i, row) in rows.iter().enumerate() {
        let w = s.load(row);
        sums[i % 4] = s.fma(w, w, sums[i % 4]);
    }
    let square = s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]));
    let norm = s.sqrt(square);
    let limit = s.splat(limit);
    let exceeds = s.gt(norm, limit);
    let factor = s.select(exceeds, s.div(limit, norm), s.splat(1.0));
    if s.reduce_max(s.select(exceeds, s.splat(1.0), s.splat(0.0))) == 0.0 {
        return s.all_finite(norm);
    }
    for row in rows {
        let w = s.mul(s.load(row), factor);
        s.store(w, row);
    }
    s.all_finite(norm)
}
