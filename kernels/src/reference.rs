//! What every fast operation must compute: one plain function each, in f64.
//!
//! Nothing here is fast, and nothing is shared with the fast code but the names in
//! [`Activation`], [`Layout`] and [`Rule`], so an error would have to be made twice to go unnoticed. Inputs are
//! f32 values widened to f64, which is exact; the rounding error of an f64 sum is 2⁻²⁹ of that
//! of the f32 sum it judges and is left out of the tests' error bounds.
//!
//! Matrices are row-major slices without padding and have the shapes of the panel matrices they
//! stand for: W [inputs, outputs], X [inputs, batch], Z [outputs, batch]. Softmax and losses are
//! functions of one example.

use crate::activation::Activation;
use crate::gemm::Layout;
use crate::update::Rule;

/// The unit roundoff of f32, 2⁻²⁴: the largest relative error of one rounding.
pub const EPSILON: f64 = 1.0 / (1 << 24) as f64;

/// |got − want| in units of the spacing of f32 at `want` (2⁻¹⁴⁹ in the subnormal range); infinity
/// counts as 2¹²⁸, the next value after the largest.
#[inline]
pub fn ulps(want: f64, got: f32) -> f64 {
    const OVERFLOW: f64 = (1_u128 << 127) as f64 * 2.0;
    let finite = |x: f64| x.clamp(-OVERFLOW, OVERFLOW);
    // The exponent field of f64, in the range of f32's normal numbers.
    let exponent = ((want.to_bits() >> 52 & 0x7ff) as i32 - 1023).clamp(-126, 127);
    let spacing = f64::from_bits(((exponent - 23 + 1023) as u64) << 52);
    (finite(f64::from(got)) - finite(want)).abs() / spacing
}

/// C ← A·B + beta·C, C [m, n], for a `shape` of (m, n, k). C is not read when `beta` is 0.
pub fn gemm(
    layout: Layout,
    (m, n, k): (usize, usize, usize),
    a: &[f64],
    b: &[f64],
    beta: f64,
    c: &mut [f64],
) {
    for i in 0..m {
        for j in 0..n {
            let mut sum = if beta == 0.0 { 0.0 } else { beta * c[i * n + j] };
            for p in 0..k {
                sum += match layout {
                    Layout::Nn => a[i * k + p] * b[p * n + j],
                    Layout::Nt => a[i * k + p] * b[j * k + p],
                    Layout::Tn => a[p * m + i] * b[p * n + j],
                };
            }
            c[i * n + j] = sum;
        }
    }
}

/// f(z).
pub fn activate(activation: Activation, z: f64) -> f64 {
    match activation {
        Activation::Relu => z.max(0.0),
        Activation::Tanh => z.tanh(),
    }
}

/// f′(z), from y = f(z).
pub fn slope(activation: Activation, y: f64) -> f64 {
    match activation {
        Activation::Relu => f64::from(u8::from(y > 0.0)),
        Activation::Tanh => 1.0 - y * y,
    }
}

/// Y = mask ⊙ f(Wᵀ·X + b), Y [outputs, batch]; `mask` [outputs, batch] holds dropout's factor of
/// each element, 0 or 1/(1 − rate).
pub fn forward(
    (inputs, outputs, batch): (usize, usize, usize),
    w: &[f64],
    x: &[f64],
    bias: &[f64],
    activation: Option<Activation>,
    mask: Option<&[f64]>,
) -> Vec<f64> {
    let mut y = vec![0.0; outputs * batch];
    for o in 0..outputs {
        for e in 0..batch {
            let mut z = bias[o];
            for i in 0..inputs {
                z += w[i * outputs + o] * x[i * batch + e];
            }
            let f = activation.map_or(z, |activation| activate(activation, z));
            y[o * batch + e] = f * mask.map_or(1.0, |mask| mask[o * batch + e]);
        }
    }
    y
}

/// (W·dZ) ⊙ mask ⊙ f′(Z), dZ [outputs, batch], `mask` and the result [inputs, batch];
/// Y = mask ⊙ f(Z), f′(Z) = 1 where f(Z) > 0 for ReLU, 1 − f(Z)² for tanh.
pub fn input_gradient(
    (inputs, outputs, batch): (usize, usize, usize),
    w: &[f64],
    dz: &[f64],
    y: &[f64],
    activation: Activation,
    mask: Option<&[f64]>,
) -> Vec<f64> {
    let mut dx = vec![0.0; inputs * batch];
    for i in 0..inputs {
        for e in 0..batch {
            let mask = mask.map_or(1.0, |mask| mask[i * batch + e]);
            if mask == 0.0 {
                continue;
            }
            let f = y[i * batch + e] / mask;
            let mut sum = 0.0;
            for o in 0..outputs {
                sum += w[i * outputs + o] * dz[o * batch + e];
            }
            dx[i * batch + e] = sum * mask * slope(activation, f);
        }
    }
    dx
}

/// dW = X·dZᵀ, dW [inputs, outputs].
pub fn weight_gradient(
    (inputs, outputs, batch): (usize, usize, usize),
    x: &[f64],
    dz: &[f64],
) -> Vec<f64> {
    let mut dw = vec![0.0; inputs * outputs];
    for i in 0..inputs {
        for o in 0..outputs {
            for e in 0..batch {
                dw[i * outputs + o] += x[i * batch + e] * dz[o * batch + e];
            }
        }
    }
    dw
}

/// The sum of each row of [rows, cols].
pub fn row_sums(cols: usize, values: &[f64]) -> Vec<f64> {
    values.chunks(cols).map(|row| row.iter().sum()).collect()
}

/// log softmax(z / T) = (z − m)/T − ln Σ exp((z − m)/T), m = max z, of one example.
pub fn log_softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|z| ((z - max) / temperature).exp()).sum();
    logits.iter().map(|z| (z - max) / temperature - sum.ln()).collect()
}

/// softmax(z / T) = exp((z − m)/T) / Σ exp((z − m)/T), m = max z, of one example.
pub fn softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|z| ((z - max) / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// Bounds of the errors of one example's softmax(z / T) in f32, as [`crate::softmax::softmax`]
/// computes it.
///
/// (z − m)/T takes three roundings: the difference, 1/T, and the product; e^x has an error of
/// [`crate::exp::ULPS`], 1/S and the last product two roundings more. What rounding adds in the
/// subnormal range is covered by 2⁻¹⁴⁶.
pub fn softmax_bounds(logits: &[f64], temperature: f64) -> Vec<f64> {
    const SUBNORMAL: f64 = 1.2e-44;
    let (powers, sum) = power_errors(logits, temperature);
    let q = softmax(logits, temperature);
    let bound = |(q, power)| q * (power + sum + 2.0 * EPSILON) + SUBNORMAL;
    q.into_iter().zip(powers).map(bound).collect()
}

/// Bounds of the errors of one example's log softmax(z / T) in f32, as
/// [`crate::softmax::log_softmax`] computes it: the exponent's three roundings, the sum's, and one
/// each of ln S and of the difference.
pub fn log_softmax_bounds(logits: &[f64], temperature: f64) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_q = log_softmax(logits, temperature);
    let ln_sum = -log_q.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let fixed = power_errors(logits, temperature).1 + EPSILON * ln_sum;
    let class = |z, log_q: f64| 3.0 * EPSILON * (max - z) / temperature + EPSILON * -log_q;
    logits.iter().zip(log_q).map(|(z, log_q)| fixed + class(z, log_q)).collect()
}

/// Bounds of the relative errors of each exp((z − m)/T) and of their sum, in f32. An error δ of the exponent is a
/// relative error δ of the power; summing C terms takes C − 1 roundings.
pub fn power_errors(logits: &[f64], temperature: f64) -> (Vec<f64>, f64) {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exp = 2.0 * EPSILON * crate::exp::ULPS;
    let power = |z| 3.0 * EPSILON * (max - z) / temperature + exp;
    let powers: Vec<f64> = logits.iter().map(power).collect();
    let q = softmax(logits, temperature);
    let weighted: f64 = q.iter().zip(&powers).map(|(q, error)| q * error).sum();
    (powers, weighted + (logits.len() - 1) as f64 * EPSILON)
}

/// What one example's distillation loss is made of.
#[derive(Clone, Copy, Debug)]
pub struct Distillation<'a> {
    /// The teacher's logits v.
    pub teacher: Option<&'a [f64]>,
    /// The class.
    pub label: Option<usize>,
    /// T of the soft term; infinity for its limit, the matching of logits.
    pub temperature: f64,
    /// Weight of the soft term.
    pub soft_weight: f64,
    /// Weight of the hard term.
    pub hard_weight: f64,
}

impl Distillation<'_> {
    /// H(softmax(v/T)) = −Σ p·log p, the least that [`Distillation::soft_loss`] can be; at T = ∞
    /// and without a teacher 0.
    pub fn entropy(&self) -> f64 {
        let Some(teacher) = self.teacher.filter(|_| self.temperature.is_finite()) else {
            return 0.0;
        };
        let log_p = log_softmax(teacher, self.temperature);
        -log_p.iter().map(|log_p| log_p.exp() * log_p).sum::<f64>()
    }

    /// KL(softmax(v/T) ‖ softmax(z/T)), without T² or weight, never negative; at T = ∞ its limit
    /// ½·Σ d²/C with the [`centred_difference`] d; 0 without a teacher.
    ///
    /// At high T the divergence is of the order 1/T², and Σ p·(log p − log q) would lose it in
    /// rounding. [`Near`] loses nothing.
    pub fn divergence(&self, logits: &[f64]) -> f64 {
        let Some(teacher) = self.teacher else { return 0.0 };
        if self.temperature.is_infinite() {
            let squares = centred_difference(logits, teacher).into_iter().map(|d| d * d);
            return 0.5 * squares.sum::<f64>() / logits.len() as f64;
        }
        if let Some(near) = Near::new(logits, teacher, self.temperature) {
            return near.divergence();
        }
        let p = softmax(teacher, self.temperature);
        let log_p = log_softmax(teacher, self.temperature);
        let log_q = log_softmax(logits, self.temperature);
        // A class that the teacher excludes takes no part, whatever its logarithm is.
        let there = (0..p.len()).filter(|&i| p[i] != 0.0);
        let divergence: f64 = there.map(|i| p[i] * (log_p[i] - log_q[i])).sum();
        if divergence < 0.0 { 0.0 } else { divergence }
    }

    /// CE(softmax(v/T), softmax(z/T)) = H(p) + KL(p ‖ q), without T² or weight.
    pub fn soft_loss(&self, logits: &[f64]) -> f64 {
        self.entropy() + self.divergence(logits)
    }

    /// CE(label, softmax(z)) = −log q of the label at T = 1; 0 without a label.
    pub fn hard_loss(&self, logits: &[f64]) -> f64 {
        self.label.map_or(0.0, |label| -log_softmax(logits, 1.0)[label])
    }

    /// soft_weight · T² · soft loss + hard_weight · hard loss (paper, section 2); at T = ∞ the
    /// soft loss has no factor.
    pub fn loss(&self, logits: &[f64]) -> f64 {
        self.weighted(self.soft_loss(logits), logits)
    }

    /// The same with KL in place of CE: without the entropy, which no student can change.
    pub fn reducible_loss(&self, logits: &[f64]) -> f64 {
        self.weighted(self.divergence(logits), logits)
    }

    fn weighted(&self, soft: f64, logits: &[f64]) -> f64 {
        let factor = if self.temperature.is_infinite() { 1.0 } else { self.temperature.powi(2) };
        self.soft_weight * factor * soft + self.hard_weight * self.hard_loss(logits)
    }

    /// ∂loss/∂z = soft_weight·T·(softmax(z/T) − softmax(v/T)) + hard_weight·(softmax(z) − y); at
    /// T = ∞ the soft part is soft_weight · [`centred_difference`] / C.
    pub fn gradient(&self, logits: &[f64]) -> Vec<f64> {
        let classes = logits.len();
        let mut gradient = vec![0.0; classes];
        if let Some(teacher) = self.teacher.filter(|_| self.temperature.is_infinite()) {
            let difference = centred_difference(logits, teacher);
            for i in 0..classes {
                gradient[i] += self.soft_weight * difference[i] / classes as f64;
            }
        } else if let Some(teacher) = self.teacher {
            let difference = probability_difference(logits, teacher, self.temperature);
            for i in 0..classes {
                gradient[i] += self.soft_weight * difference[i];
            }
        }
        if let Some(label) = self.label {
            let q = softmax(logits, 1.0);
            for i in 0..classes {
                let y = if i == label { 1.0 } else { 0.0 };
                gradient[i] += self.hard_weight * (q[i] - y);
            }
        }
        gradient
    }
}

/// T·(softmax(z/T) − softmax(v/T)) of one example, without loss of digits at high T.
pub fn probability_difference(z: &[f64], v: &[f64], temperature: f64) -> Vec<f64> {
    if let Some(near) = Near::new(z, v, temperature) {
        return near.difference();
    }
    let (q, p) = (softmax(z, temperature), softmax(v, temperature));
    q.iter().zip(&p).map(|(q, p)| temperature * (q - p)).collect()
}

/// Two distributions that are near each other, by what their logits differ in.
///
/// With p = softmax(v/T) and r = (z − v)/T less its mean under p, q = softmax(z/T) has
/// qᵢ = pᵢ·exp(rᵢ)/(1 + M), M = Σ p·(exp(r) − 1). So qᵢ − pᵢ = pᵢ·((exp(rᵢ) − 1) − M)/(1 + M) and
/// KL(p ‖ q) = ln Σ p·exp(r) = ln(1 + Σ p·(exp(r) − 1 − r)), where no nearly equal numbers are
/// subtracted.
pub struct Near {
    temperature: f64,
    p: Vec<f64>,
    r: Vec<f64>,
}

impl Near {
    /// `None` where an |r| is 1 or more, or no number.
    pub fn new(z: &[f64], v: &[f64], temperature: f64) -> Option<Near> {
        let max = |x: &[f64]| x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (z_max, v_max) = (max(z), max(v));
        let p = softmax(v, temperature);
        let difference = |(z, v): (&f64, &f64)| ((z - z_max) - (v - v_max)) / temperature;
        let mut r: Vec<f64> = z.iter().zip(v).map(difference).collect();
        let mean: f64 = p.iter().zip(&r).map(|(p, r)| p * r).sum();
        r.iter_mut().for_each(|r| *r -= mean);
        r.iter().all(|r| r.abs() < 1.0).then_some(Near { temperature, p, r })
    }

    /// KL(p ‖ q).
    pub fn divergence(&self) -> f64 {
        let terms = self.p.iter().zip(&self.r).map(|(p, r)| p * exp_less_tangent(*r));
        terms.sum::<f64>().ln_1p()
    }

    /// T·(q − p).
    pub fn difference(&self) -> Vec<f64> {
        let growth: Vec<f64> = self.r.iter().map(|r| r.exp_m1()).collect();
        let mean: f64 = self.p.iter().zip(&growth).map(|(p, growth)| p * growth).sum();
        let scale = self.temperature / (1.0 + mean);
        self.p.iter().zip(&growth).map(|(p, growth)| p * scale * (growth - mean)).collect()
    }
}

/// exp(x) − 1 − x = x²/2 + x³/6 + …, |x| ≤ 1, to the last digits: the subtraction would lose them
/// for small x.
fn exp_less_tangent(x: f64) -> f64 {
    let (mut term, mut sum) = (x, 0.0);
    for k in 2..20 {
        term *= x / f64::from(k);
        sum += term;
    }
    sum
}

/// (z − z̄) − (v − v̄) of one example.
pub fn centred_difference(z: &[f64], v: &[f64]) -> Vec<f64> {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (z_mean, v_mean) = (mean(z), mean(v));
    z.iter().zip(v).map(|(z, v)| (z - z_mean) - (v - v_mean)).collect()
}

/// `a`, and 0 below 2⁻¹⁰⁰, as [`Rule`] keeps weights and moments.
fn flushed(a: f64) -> f64 {
    if a.abs() < 2.0_f64.powi(-100) { 0.0 } else { a }
}

/// One step of `rule` for one parameter w with the gradient g of the loss and moments v and u.
pub fn step(rule: Rule, weight_decay: f64, w: &mut f64, g: f64, v: &mut f64, u: &mut f64) {
    let g = match rule {
        Rule::AdamW { learning_rate, .. } => {
            *w -= f64::from(learning_rate) * weight_decay * *w;
            g
        }
        _ => g + weight_decay * *w,
    };
    match rule {
        Rule::Sgd { learning_rate, momentum } => {
            *v = f64::from(momentum) * *v + g;
            *w -= f64::from(learning_rate) * *v;
        }
        Rule::Nesterov { learning_rate, momentum } => {
            *v = f64::from(momentum) * *v + g;
            *w -= f64::from(learning_rate) * (g + f64::from(momentum) * *v);
        }
        Rule::Hinton2012 { learning_rate, momentum } => {
            let (learning_rate, momentum) = (f64::from(learning_rate), f64::from(momentum));
            *v = momentum * *v - (1.0 - momentum) * learning_rate * g;
            *w += *v;
        }
        Rule::Adam { learning_rate, beta1, beta2, epsilon, corrections }
        | Rule::AdamW { learning_rate, beta1, beta2, epsilon, corrections } => {
            let (beta1, beta2) = (f64::from(beta1), f64::from(beta2));
            *v = beta1 * *v + (1.0 - beta1) * g;
            *u = beta2 * *u + (1.0 - beta2) * g * g;
            let first = *v / f64::from(corrections[0]);
            let second = *u / f64::from(corrections[1]);
            *w -= f64::from(learning_rate) * first / (second.sqrt() + f64::from(epsilon));
        }
    }
    (*w, *v) = (flushed(*w), flushed(*v));
}

/// average ← (1 − weight) · average + weight · params.
pub fn average(params: &[f64], weight: f64, average: &mut [f64]) {
    for (average, params) in average.iter_mut().zip(params) {
        *average = flushed((1.0 - weight) * *average + weight * params);
    }
}

/// Scales each column of W [inputs, units] whose Euclidean norm exceeds `limit` down to `limit`.
pub fn max_norm(limit: f64, units: usize, w: &mut [f64]) {
    for unit in 0..units {
        let norm = w.iter().skip(unit).step_by(units).map(|w| w * w).sum::<f64>().sqrt();
        if norm > limit {
            w.iter_mut().skip(unit).step_by(units).for_each(|w| *w *= limit / norm);
        }
    }
}

/// value · scale + shift, the product and the sum rounded to f32 one after the other.
pub fn load<T: Copy + Into<f64>>(values: &[T], scale: f32, shift: f32) -> Vec<f32> {
    let load = |&value: &T| {
        let product = value.into() * f64::from(scale);
        let sum = f64::from(product as f32) + f64::from(shift);
        sum as f32
    };
    values.iter().map(load).collect()
}
