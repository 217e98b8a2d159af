//! The statistics behind a claim: the spread over seeds, the uncertainty of an error rate, and
//! whether two classifiers differ that were tested on the same examples.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Arithmetic mean; NaN for no values.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Sample standard deviation √(Σ(x − x̄)²/(n − 1)); absent below two values.
pub fn sample_sd(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// Mean and sample standard deviation of some values, most often one for each seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanSd {
    /// The number of values.
    pub n: usize,
    /// The mean.
    pub mean: f64,
    /// The sample standard deviation; absent for a single value.
    pub sd: Option<f64>,
}

impl MeanSd {
    /// Mean and standard deviation of `values`; `None` if there are none.
    pub fn of(values: &[f64]) -> Option<MeanSd> {
        let (n, sd) = (values.len(), sample_sd(values));
        (n > 0).then(|| MeanSd { n, mean: mean(values), sd })
    }

    /// The text `mean ± sd` with so many decimals.
    pub fn text(&self, decimals: usize) -> String {
        let MeanSd { mean, sd, .. } = self;
        match sd {
            None => format!("{mean:.decimals$}"),
            Some(sd) => format!("{mean:.decimals$} ± {sd:.decimals$}"),
        }
    }
}

/// A mean with its 95 % interval by Student's t, x̄ ± t·s/√n, where t is the 97.5 % quantile with n − 1
/// degrees of freedom. It holds where the values are independent and roughly normal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanInterval {
    /// The mean.
    pub mean: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl MeanInterval {
    /// Of `values`; `None` below two of them.
    pub fn of(values: &[f64]) -> Option<MeanInterval> {
        let (n, mean) = (values.len(), mean(values));
        let half = student_t(n.checked_sub(1)?) * sample_sd(values)? / (n as f64).sqrt();
        Some(MeanInterval { mean, low: mean - half, high: mean + half })
    }
}

/// The t with P(|T| ≤ t) = 0.95 for Student's distribution with ν ≥ 1 degrees of freedom, by bisection of
/// the finite series in θ = atan(t/√ν):
///
/// ```text
/// ν odd:  P = 2/π·(θ + sin θ·(cos θ + 2/3·cos³θ + … + (2·4···(ν − 3))/(3·5···(ν − 2))·cos^(ν−2) θ))
/// ν even: P = sin θ·(1 + 1/2·cos²θ + … + (1·3···(ν − 3))/(2·4···(ν − 2))·cos^(ν−2) θ)
/// ```
///
/// Source: Abramowitz & Stegun 26.7.3 and 26.7.4.
fn student_t(nu: usize) -> f64 {
    use std::f64::consts::{FRAC_PI_2, PI};
    let within = |theta: f64| {
        let (sin, cos) = theta.sin_cos();
        let odd = nu % 2;
        let (mut term, mut sum) = (if odd == 1 { cos } else { 1.0 }, 0.0);
        for k in (odd..nu.saturating_sub(1)).step_by(2) {
            sum += term;
            term *= (k + 1) as f64 / (k + 2) as f64 * cos * cos;
        }
        if odd == 1 { 2.0 / PI * (theta + sin * sum) } else { sin * sum }
    };
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    for _ in 0..100 {
        let theta = (low + high) / 2.0;
        if within(theta) < 0.95 { low = theta } else { high = theta }
    }
    low.tan() * (nu as f64).sqrt()
}

/// Wilson's 95 % score interval of an error rate p̂ = errors/n: all rates p with
///
/// ```text
/// |p̂ − p| ≤ z·√(p(1 − p)/n)    z = 1.96
/// ```
///
/// Both ends lie in [0, 1]. Without examples it is (0, 1).
///
/// # Panics
/// If there are more errors than examples.
pub fn wilson_interval(errors: u64, examples: u64) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    assert!(errors <= examples, "{errors} errors in {examples} examples");
    if examples == 0 {
        return (0.0, 1.0);
    }
    let n = examples as f64;
    let rate = errors as f64 / n;
    let centre = rate + Z * Z / (2.0 * n);
    let half = Z * (rate * (1.0 - rate) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    let end = |x: f64| (x / scale).clamp(0.0, 1.0);
    (end(centre - half), end(centre + half))
}

/// The outcome of McNemar's test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct McNemar {
    /// Number of examples that only the first classifier gets wrong.
    pub only_first: usize,
    /// Number of examples that only the second gets wrong.
    pub only_second: usize,
    /// The two-sided probability of a split at least this uneven if both were equally good.
    pub p_value: f64,
}

impl McNemar {
    /// Whether the first classifier is better: it has fewer errors, and p < 0.01.
    pub fn first_is_better(&self) -> bool {
        self.only_first < self.only_second && self.p_value < 0.01
    }
}

/// McNemar's exact test of two classifiers on the same examples. Each is given by the indices of the
/// examples that it misclassifies, strictly ascending.
///
/// # Panics
/// If a list is not strictly ascending.
pub fn mcnemar(first: &[usize], second: &[usize]) -> McNemar {
    for list in [first, second] {
        let ascending = list.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(ascending, "misclassified indices must be strictly ascending");
    }
    let only = |a: &[usize], b: &[usize]| a.iter().filter(|i| b.binary_search(i).is_err()).count();
    let (only_first, only_second) = (only(first, second), only(second, first));
    McNemar { only_first, only_second, p_value: mcnemar_p(only_first, only_second) }
}

/// The p-value of McNemar's exact test: the two-sided binomial probability of b successes and c
/// failures at even odds,
///
/// ```text
/// min(1, 2·Σ_{k ≤ m} C(n, k)/2ⁿ)    n = b + c, m = min(b, c)
/// ```
///
/// Numerics: the sum starts from its largest term, which is computed as a logarithm. Each smaller
/// term follows by the ratio C(n, k − 1)/C(n, k) = k/(n − k + 1), so that nothing overflows. The
/// relative error is below 1e-10 for n ≤ 10,000.
pub fn mcnemar_p(b: usize, c: usize) -> f64 {
    let n = (b + c) as f64;
    let m = b.min(c);
    let ln_largest: f64 = (1..=m).map(|k| ((n - (m - k) as f64) / k as f64).ln()).sum::<f64>()
        - n * std::f64::consts::LN_2;
    let (mut ratio, mut sum) = (1.0, 1.0);
    for k in (1..=m).rev() {
        ratio *= k as f64 / (n - k as f64 + 1.0);
        sum += ratio;
    }
    (2.0 * ln_largest.exp() * sum).min(1.0)
}

/// The outcome of [`paired_bootstrap`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// The second system's rate minus the first's.
    pub difference: f64,
    /// The 2.5 % quantile of the resampled differences.
    pub low: f64,
    /// The 97.5 % quantile of the resampled differences.
    pub high: f64,
    /// The share of the resampled differences that is below 0.
    pub share_below_zero: f64,
}

/// The percentile bootstrap of the difference of the rates of two systems on the same clusters of
/// examples, such as utterances, each system the mean of its nets:
///
/// ```text
/// D = Σ_u (s̄_u − f̄_u)/Σ_u w_u    f̄_u, s̄_u: mean count of the first's, the second's nets in cluster u
/// ```
///
/// `first` and `second` hold a list for each net, with its count in each cluster, such as word errors;
/// `weights` what they are counted out of, such as words. Clusters are taken to be independent of each
/// other, even if the examples within one are not, and so are nets. Another corpus and other nets
/// would both give another D. Each of `replicates` times it therefore draws, with replacement, as many
/// clusters as there are, the same for all nets, and the nets of each system, the same for all
/// clusters (the crossed bootstrap of Owen, 2007). Quantiles interpolate linearly between neighbours.
/// The generator is ChaCha8, seeded with `seed`: the same arguments give the same bits.
///
/// Of R > 1 nets it draws R − 1. The mean of m draws has the variance s²(R − 1)/(R·m), which with
/// m = R − 1 is that of a mean of R nets, s²/R (Rao & Wu 1988); with m = R it would be a third too
/// small for three nets. A single net is kept: its interval is one of the clusters alone. What is
/// special to a net in a cluster is counted up to three times, so that the interval is rather too wide.
///
/// Sources: Efron & Tibshirani 1993, chapter 13; for word error rates Bisani & Ney, ICASSP 2004;
/// Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007.
///
/// # Panics
/// Without nets, clusters or replicates, if a list is not as long as `weights`, or if a weight is not
/// above 0.
pub fn paired_bootstrap(
    first: &[Vec<f64>],
    second: &[Vec<f64>],
    weights: &[f64],
    replicates: usize,
    seed: u64,
) -> Difference {
    let clusters = weights.len();
    assert!(clusters > 0 && replicates > 0, "nothing to draw");
    assert!(!first.is_empty() && !second.is_empty(), "a system without nets");
    let fits = |net: &Vec<f64>| net.len() == clusters;
    assert!(first.iter().chain(second).all(fits), "a net without a count in each cluster");
    assert!(weights.iter().all(|&weight| weight > 0.0), "a cluster without weight");
    let mean_count = |nets: &[&Vec<f64>], u: usize| {
        nets.iter().map(|net| net[u]).sum::<f64>() / nets.len() as f64
    };
    let rate_difference = |first: &[&Vec<f64>], second: &[&Vec<f64>], drawn: &[usize]| {
        let (mut difference, mut weight) = (0.0, 0.0);
        for &u in drawn {
            difference += mean_count(second, u) - mean_count(first, u);
            weight += weights[u];
        }
        difference / weight
    };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // The high word of a 128-bit product. Its bias is n/2⁶⁴: negligible.
    let mut draw = |n: usize| ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize;
    let mut resampled = Vec::with_capacity(replicates);
    for _ in 0..replicates {
        let drawn: Vec<usize> = (0..clusters).map(|_| draw(clusters)).collect();
        let [of_first, of_second] = [first, second].map(|nets| -> Vec<&Vec<f64>> {
            let draws = nets.len().max(2) - 1;
            (0..draws).map(|_| &nets[draw(nets.len())]).collect()
        });
        resampled.push(rate_difference(&of_first, &of_second, &drawn));
    }
    resampled.sort_by(f64::total_cmp);
    let quantile = |q: f64| {
        let place = q * (replicates - 1) as f64;
        let (below, above) = (resampled[place.floor() as usize], resampled[place.ceil() as usize]);
        below + place.fract() * (above - below)
    };
    let all: Vec<usize> = (0..clusters).collect();
    let [every_first, every_second] = [first, second].map(|nets| nets.iter().collect::<Vec<_>>());
    Difference {
        difference: rate_difference(&every_first, &every_second, &all),
        low: quantile(0.025),
        high: quantile(0.975),
        share_below_zero: resampled.partition_point(|&d| d < 0.0) as f64 / replicates as f64,
    }
}
