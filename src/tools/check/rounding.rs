//! What rounding may do to a right implementation: numbers that carry the bound of their error.
//!
//! With unit roundoff u, x = (z − m)/T and m = max z, of each class alone:
//!
//! | of | at most |
//! |---|---|
//! | the exponent xᵢ | eᵢ = u·(a²·\|xᵢ\| + a·\|zᵢ\|/T), the latter \|max z\|/2T where T is a power of 2 |
//! | exp(xᵢ) | exp(xᵢ)·(exp(eᵢ + c·u) − 1) |
//! | S = Σ exp(x), relative | s = Σ qᵢ·(eᵢ + c·u) + σ(C)·u |
//! | qᵢ = exp(xᵢ)/S | qᵢ·(eᵢ + s + u·(2c + a·\|xᵢ\| + a·\|ln qᵢ\|)) |
//! | ln qᵢ | eᵢ + s + u·(2c + a·\|xᵢ\| + a·\|ln S\| + a·\|ln qᵢ\|) |
//!
//! A class of probability 0 adds nothing, however far away its logit is. a is 2, for
//! divisors that are rounded first; c, the roundings of an exponential, is 4; σ(n), those of a sum of
//! n terms in any order, is n. In half precision, of which PyTorch, JAX and NumPy compute quotients,
//! exponentials and sums in f32, a and c are 1 and σ(n)·u is 2u + n·2⁻²⁴. Whatever is made of these numbers adds u times each intermediate result, by the rules
//! of [`Approx`].

use std::fmt::{self, Display, Formatter};
use std::ops::{Add, Mul, Sub};

/// The number format of a computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    /// bfloat16: 8 significant bits, the range of f32.
    Bf16,
    /// IEEE binary16.
    F16,
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
}

impl Precision {
    /// Significant bits.
    fn digits(self) -> i32 {
        match self {
            Precision::Bf16 => 8,
            Precision::F16 => 11,
            Precision::F32 => 24,
            Precision::F64 => 53,
        }
    }

    /// u of somebody's computation, and of ours in f64 beside it.
    pub fn unit_roundoff(self) -> f64 {
        2f64.powi(-self.digits()) + f64::EPSILON / 2.0
    }

    /// Whether it has 16 bits.
    pub fn is_half(self) -> bool {
        self < Precision::F32
    }

    /// σ(n): what summing n terms costs, in roundings.
    pub fn roundings(self, n: usize) -> f64 {
        let n = n as f64;
        if self.is_half() { 2.0 + n * 2f64.powi(-24) / self.unit_roundoff() } else { n }
    }

    /// c: what an exponential costs, in roundings.
    fn exponential(self) -> f64 {
        if self.is_half() { 1.0 } else { 4.0 }
    }

    /// a: the roundings of a quotient.
    fn quotient(self) -> f64 {
        if self.is_half() { 1.0 } else { 2.0 }
    }

    /// What underflow may take from a number: the smallest normal one where a processor may flush
    /// subnormal numbers to 0, the smallest of all in f16.
    pub fn smallest(self) -> f64 {
        match self {
            Precision::F16 => 2f64.powi(-24),
            Precision::Bf16 | Precision::F32 => f32::MIN_POSITIVE.into(),
            Precision::F64 => f64::MIN_POSITIVE,
        }
    }

    /// The largest finite number.
    pub fn largest(self) -> f64 {
        match self {
            Precision::F16 => 65_504.0,
            Precision::Bf16 | Precision::F32 => f32::MAX.into(),
            Precision::F64 => f64::MAX,
        }
    }

    /// exp(x), infinite where this format overflows.
    pub fn exp(self, x: f64) -> f64 {
        let power = x.exp();
        if power > self.largest() { f64::INFINITY } else { power }
    }

    /// The distance of the numbers of this format around x.
    pub fn ulp(self, x: f64) -> f64 {
        let exponent = x.abs().max(self.smallest()).log2().floor();
        2f64.powf(exponent + 1.0 - f64::from(self.digits()))
    }
}

impl Display for Precision {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
            Precision::F32 => "f32",
            Precision::F64 => "f64",
        })
    }
}

/// How a case's numbers were computed.
#[derive(Clone, Copy)]
pub struct Rounding {
    pub precision: Precision,
    /// Whether the logits were rounded to it before anything else: they are stored wider.
    pub rounded_logits: bool,
}

/// A number x, the bound e of the error of what it was made from, and the sum m of the magnitudes
/// of all intermediate results: x is off by at most e + u·m.
#[derive(Clone, Copy, Debug, Default)]
pub struct Approx {
    pub x: f64,
    pub e: f64,
    pub m: f64,
}

impl Approx {
    pub const ZERO: Approx = Approx { x: 0.0, e: 0.0, m: 0.0 };

    pub const fn exact(x: f64) -> Approx {
        Approx { x, e: 0.0, m: 0.0 }
    }

    /// The bound of its error.
    pub fn error(self, u: f64) -> f64 {
        self.e + u * self.m
    }

    /// ln x, of a number above its error.
    pub fn ln(self) -> Approx {
        if self.x == 0.0 {
            return Approx::exact(f64::NEG_INFINITY);
        }
        let x = self.x.ln();
        Approx { x, e: self.e / self.x, m: self.m / self.x + x.abs() + 1.0 }
    }

    /// The sum of `terms`, in any order.
    pub fn sum(terms: impl Iterator<Item = Approx>, precision: Precision) -> Approx {
        let (mut sum, mut size, mut n) = (Approx::ZERO, 0.0, 0);
        for term in terms {
            sum = Approx { x: sum.x + term.x, e: sum.e + term.e, m: sum.m + term.m };
            size += term.x.abs();
            n += 1;
        }
        Approx { m: sum.m + precision.roundings(n) * size, ..sum }
    }
}

impl Add for Approx {
    type Output = Approx;
    fn add(self, o: Approx) -> Approx {
        let x = self.x + o.x;
        Approx { x, e: self.e + o.e, m: self.m + o.m + x.abs() }
    }
}

impl Sub for Approx {
    type Output = Approx;
    fn sub(self, o: Approx) -> Approx {
        self + o * -1.0
    }
}

impl Mul for Approx {
    type Output = Approx;
    /// 0 that is exact makes 0 of everything: a class that is excluded takes no part, whatever its
    /// logarithm.
    fn mul(self, o: Approx) -> Approx {
        let none = |a: Approx| a.x == 0.0 && a.e == 0.0;
        if none(self) || none(o) {
            return Approx::ZERO;
        }
        // What may be 0, times infinity, is 0 or infinity: a probability that underflows, say, and
        // the logarithm of one that is 0.
        let any = |a: Approx, b: Approx| a.x.is_infinite() && b.e >= b.x.abs();
        if any(self, o) || any(o, self) {
            return Approx { x: 0.0, e: f64::INFINITY, m: 0.0 };
        }
        let both = |a: f64, b: f64| if a == 0.0 || b == 0.0 { 0.0 } else { a * b };
        let x = both(self.x, o.x);
        Approx {
            x,
            e: both(self.x.abs(), o.e) + both(o.x.abs(), self.e) + self.e * o.e,
            m: both(self.x.abs(), o.m) + both(o.x.abs(), self.m) + x.abs(),
        }
    }
}

impl Mul<f64> for Approx {
    type Output = Approx;
    /// By a number that both sides know; its own rounding is one of the result's.
    fn mul(self, k: f64) -> Approx {
        Approx { x: self.x * k, e: self.e * k.abs(), m: self.m * k.abs() + (self.x * k).abs() }
    }
}

/// Probabilities of one example's classes, and their logarithms.
#[derive(Clone, Default)]
pub struct Distribution {
    pub probs: Vec<Approx>,
    pub logs: Vec<Approx>,
}

/// At least exp(x) − 1, x ≥ 0, and near it where x is small.
fn growth(x: f64) -> f64 {
    if x < 0.25 { x * (1.0 + x) } else { x.min(700.0).exp_m1() }
}

pub fn max(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

impl Rounding {
    pub fn u(self) -> f64 {
        self.precision.unit_roundoff()
    }

    /// The bound eᵢ of the error of (zᵢ − m)/T, as a function of zᵢ.
    pub fn exponent_error(self, m: f64, t: f64) -> impl Fn(f64) -> f64 {
        let (u, a) = (self.u(), self.precision.quotient());
        let exact = t.log2().fract() == 0.0;
        move |z: f64| {
            // A logsumexp, near m/T, is rounded even where the quotients are not.
            let divided = if exact { 0.5 * m.abs() / t } else { a * z.abs() / t };
            let rounded = if self.rounded_logits { (z.abs() + m.abs()) / t } else { 0.0 };
            u * (a * a * (z - m).abs() / t + divided + rounded)
        }
    }

    /// softmax(z/T).
    pub fn softmax(self, z: &[f64], t: f64) -> Distribution {
        self.normalised(z, t, self.exponent_error(max(z), t))
    }

    /// softmax(p/T) of what already are probabilities.
    pub fn softmax_of(self, p: &[Approx], t: f64) -> Distribution {
        let values: Vec<f64> = p.iter().map(|p| p.x).collect();
        let worst = p.iter().map(|p| p.error(self.u())).fold(0.0, f64::max);
        let error = self.exponent_error(max(&values), t);
        self.normalised(&values, t, |z| error(z) + 2.0 * worst / t)
    }

    /// softmax(z/T) where the exponent of a logit z is off by at most `error(z)`.
    fn normalised(self, z: &[f64], t: f64, error: impl Fn(f64) -> f64) -> Distribution {
        let (m, u, tiny) = (max(z), self.u(), self.precision.smallest());
        let (a, c) = (self.precision.quotient(), self.precision.exponential());
        // Where the largest logit's own error is large, all others move against it.
        let shift = Some(error(m)).filter(|shift| *shift > 0.25).unwrap_or(0.0);
        let error = |z: f64| if z == m && shift > 0.0 { 0.0 } else { error(z) + shift };
        let (mut sum, mut off) = (0.0, 0.0);
        let powers: Vec<[f64; 4]> = z
            .iter()
            .map(|&z| {
                if z == f64::NEG_INFINITY {
                    return [z, 0.0, 0.0, 0.0];
                }
                let (x, e) = ((z - m) / t, error(z));
                let power = x.exp();
                // A power is at most 1, whatever its exponent's error.
                let e_power = if power == 0.0 {
                    (x + e + c * u).min(0.0).exp()
                } else {
                    power * growth(e + c * u)
                }
                .min(1.0);
                sum += power;
                off += e_power;
                [x, e, power, e_power]
            })
            .collect();
        let ln_sum = f64::ln(sum);
        let s = (off / sum + self.precision.roundings(z.len()) * u).min(0.999);
        let s = s / (1.0 - s);
        let each = |&[x, e, power, e_power]: &[f64; 4]| {
            if x == f64::NEG_INFINITY {
                return (Approx::ZERO, Approx::exact(x));
            }
            let (q, log) = (power / sum, x - ln_sum);
            let size = 2.0 * c + a * (x.abs() + log.abs());
            let lost = if e_power > 0.0 { tiny } else { 0.0 };
            let of_q = e_power / sum * (1.0 + s) + q * (s + u * size);
            let of_log = e + s + u * (size + a * ln_sum.abs());
            let q = Approx { x: q, e: of_q.min(1.0) + lost, m: 0.0 };
            (q, Approx { x: log, e: of_log, m: 0.0 })
        };
        let (probs, logs) = powers.iter().map(each).unzip();
        Distribution { probs, logs }
    }

    /// f/Σf with f = exp(z/T) − `m`(exp(z/T)), the maximum subtracted too late.
    pub fn after_exp(self, z: &[f64], t: f64, m: impl Fn(&[f64]) -> f64) -> Distribution {
        let powers: Vec<f64> = z.iter().map(|z| self.precision.exp(z / t)).collect();
        let m = m(&powers);
        let u = self.u();
        let terms = powers.iter().zip(z).map(|(power, z)| {
            let error = u * (power * (8.0 + 4.0 * z.abs() / t) + 4.0 * m.abs());
            Approx { x: power - m, e: error, m: 0.0 }
        });
        let terms: Vec<Approx> = terms.collect();
        let sum = Approx::sum(terms.iter().copied(), self.precision);
        let relative = sum.error(u) / sum.x.abs();
        let probs = terms.iter().map(|f| {
            let q = f.x / sum.x;
            let error = (f.e / sum.x).abs() + q.abs() * (relative + 4.0 * u);
            Approx { x: q, e: error, m: 0.0 }
        });
        let probs: Vec<Approx> = probs.collect();
        Distribution { logs: probs.iter().map(|q| q.ln()).collect(), probs }
    }
}

impl Distribution {
    /// The mean of several.
    pub fn mean(members: &[Distribution], precision: Precision) -> Distribution {
        let share = 1.0 / members.len() as f64;
        let class =
            |i: usize| Approx::sum(members.iter().map(|member| member.probs[i]), precision) * share;
        let probs: Vec<Approx> = (0..members[0].probs.len()).map(class).collect();
        Distribution { logs: probs.iter().map(|p| p.ln()).collect(), probs }
    }

    /// All of one class.
    pub fn one_hot(class: usize, classes: usize) -> Distribution {
        let probs: Vec<Approx> =
            (0..classes).map(|i| Approx::exact(if i == class { 1.0 } else { 0.0 })).collect();
        Distribution { logs: probs.iter().map(|p| Approx::exact(p.x.ln())).collect(), probs }
    }
}
