//! The statistics behind a claim: spread over seeds, error rates with their uncertainty, and
//! whether two classifiers tested on the same examples differ.

use serde::Serialize;

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

/// Wilson's 95 % score interval of an error rate: the rates p with |p̂ − p| ≤ z·√(p(1 − p)/n),
/// p̂ = errors/n and z = 1.96. Both ends lie in [0, 1]; (0, 1) for no examples.
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

/// Outcome of McNemar's test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct McNemar {
    /// Examples that only the first classifier gets wrong.
    pub only_first: usize,
    /// Examples that only the second gets wrong.
    pub only_second: usize,
    /// Probability of a split at least this uneven if both were equally good, two-sided.
    pub p_value: f64,
}

/// McNemar's exact test of two classifiers on the same examples, from the indices that each
/// misclassifies, both strictly ascending.
///
/// # Panics
/// If a list is not strictly ascending.
pub fn mcnemar(first: &[usize], second: &[usize]) -> McNemar {
    for list in [first, second] {
        let ascending = list.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(ascending, "misclassified indices must be strictly ascending");
    }
    let without =
        |a: &[usize], b: &[usize]| a.iter().filter(|i| b.binary_search(i).is_err()).count();
    let only_first = without(first, second);
    let only_second = without(second, first);
    McNemar { only_first, only_second, p_value: mcnemar_p(only_first, only_second) }
}

/// min(1, 2·Σ_{k ≤ m} C(n, k)/2ⁿ) with n = b + c and m = min(b, c): the two-sided binomial
/// probability of b successes and c failures at even odds.
///
/// The sum starts from its largest term, whose logarithm is taken, and goes down by the ratios
/// C(n, k − 1)/C(n, k) = k/(n − k + 1), so that nothing overflows; the relative error stays below
/// 1e-10 for n ≤ 10,000.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_standard_deviation() {
        assert_eq!(mean(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]), 5.0);
        // Squared deviations 9 + 1 + 1 + 1 + 0 + 0 + 4 + 16 = 32, over 7.
        let sd = sample_sd(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert!((sd * sd - 32.0 / 7.0).abs() < 1e-14);
        assert_eq!(sample_sd(&[3.0]), None);
        assert_eq!(sample_sd(&[3.0, 3.0]), Some(0.0));
    }

    #[test]
    fn mcnemar_agrees_with_counting() {
        // 2·(1 + 12 + 66)/2¹²
        assert!((mcnemar_p(10, 2) - 158.0 / 4096.0).abs() < 1e-15);
        assert_eq!(mcnemar_p(2, 10), mcnemar_p(10, 2));
        assert!((mcnemar_p(0, 5) - 2.0 / 32.0).abs() < 1e-15);
        assert_eq!(mcnemar_p(0, 0), 1.0);
        assert_eq!(mcnemar_p(7, 7), 1.0);
        // Every split of up to 60 discordant examples against Pascal's triangle in integers.
        let mut pascal = vec![1u64];
        for n in 0..=60usize {
            for b in 0..=n {
                let tail: u64 = pascal[..=b.min(n - b)].iter().sum();
                let expected = (2.0 * tail as f64 / (n as f64).exp2()).min(1.0);
                let p = mcnemar_p(b, n - b);
                assert!((p - expected).abs() <= 1e-13 * expected, "{n} {b}: {p} {expected}");
            }
            let next = (1..pascal.len()).map(|k| pascal[k - 1] + pascal[k]);
            pascal = std::iter::once(1).chain(next).chain([1]).collect();
        }
    }

    #[test]
    fn mcnemar_survives_many_examples() {
        // Far beyond the range of 2¹⁰²⁴; expected values from exact integer arithmetic.
        let exact =
            [(4900, 5100, 0.046_585_527_704_947_39), (4500, 5500, 1.551_064_056_824_604_2e-23)];
        for (b, c, expected) in exact {
            let p = mcnemar_p(b, c);
            assert!((p / expected - 1.0).abs() < 1e-10, "{p} {expected}");
        }
        assert_eq!(mcnemar_p(0, 100_000), 0.0);
    }

    #[test]
    fn mcnemar_counts_discordant_examples() {
        let test = mcnemar(&[1, 2, 3, 8], &[2, 9]);
        assert_eq!((test.only_first, test.only_second), (3, 1));
        assert_eq!(test.p_value, mcnemar_p(3, 1));
        assert_eq!(mcnemar(&[], &[]).p_value, 1.0);
    }

    #[test]
    fn wilson_ends_solve_the_score_equation() {
        for (errors, examples) in [(1, 10), (74, 10_000), (500, 1000), (9, 10)] {
            let n = examples as f64;
            let rate = errors as f64 / n;
            let (low, high) = wilson_interval(errors, examples);
            assert!(low < rate && rate < high);
            for p in [low, high] {
                let z = (rate - p).abs() / (p * (1.0 - p) / n).sqrt();
                assert!((z - 1.959_964).abs() < 1e-6, "{errors}/{examples}: {z}");
            }
        }
        // Without errors the ends are 0 and z²/(n + z²), up to rounding.
        let (low, high) = wilson_interval(0, 50);
        assert!((0.0..1e-15).contains(&low));
        assert!((high - 0.071_347_6).abs() < 1e-6, "{high}");
        assert_eq!(wilson_interval(50, 50).1, 1.0);
        assert_eq!(wilson_interval(0, 0), (0.0, 1.0));
    }
}
