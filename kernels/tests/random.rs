//! The counter-based generator and dropout: known answers, statistics, and vectors against
//! scalars. All seeds are fixed, so a bound of five standard deviations cannot fail by chance.

mod common;

use common::{Panel, load, same_bits_everywhere};
use limbeck_kernels::activation::{self, Activation};
use limbeck_kernels::gemm::{Factors, forward};
use limbeck_kernels::input::Scaling;
use limbeck_kernels::random::{Dropout, Key};

#[test]
fn known_answers() {
    // From an implementation of the documented rounds in another language.
    let first = [0, 1, 153_599, u32::MAX].map(|index| Key::new(0, 0, 0).bits(index));
    assert_eq!(first, [0xff5b_e78e, 0xe934_32da, 0xc397_c19c, 0x1d32_1cc3]);
    let second = [0, 1, 153_599, u32::MAX].map(|index| Key::new(1, 2, 3).bits(index));
    assert_eq!(second, [0x91b5_06ba, 0x6ff8_c7e9, 0x5273_671c, 0x915b_1292]);
}

/// Σ (count − expected)² / expected of 256 bins has mean 255 and standard deviation √510.
fn assert_uniform(what: &str, counts: &[u32; 256]) {
    let expected = counts.iter().sum::<u32>() as f64 / 256.0;
    let chi_square: f64 =
        counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
    assert!((chi_square - 255.0).abs() < 5.0 * 510f64.sqrt(), "{what}: χ² = {chi_square}");
}

#[test]
fn bits_are_uniform() {
    let n = 1 << 20;
    for seed in 0..4 {
        let key = Key::new(seed, 1, 100);
        let (mut sum, mut squares) = (0.0, 0.0);
        let mut counts = [[0; 256]; 4];
        for index in 0..n {
            let bits = key.bits(index);
            // Uniform in ±½: variance 1/12, fourth moment 1/80.
            let x = (f64::from(bits) + 0.5) / 2f64.powi(32) - 0.5;
            sum += x;
            squares += x * x;
            for (counts, byte) in counts.iter_mut().zip(bits.to_le_bytes()) {
                counts[usize::from(byte)] += 1;
            }
        }
        let n = f64::from(n);
        let mean_sigma = (1.0 / 12.0 / n).sqrt();
        assert!((sum / n).abs() < 5.0 * mean_sigma, "mean {}", sum / n);
        let variance_sigma = ((1.0 / 80.0 - 1.0 / 144.0) / n).sqrt();
        assert!((squares / n - 1.0 / 12.0).abs() < 5.0 * variance_sigma, "{}", squares / n);
        for (byte, counts) in counts.iter().enumerate() {
            assert_uniform(&format!("seed {seed}, byte {byte}"), counts);
        }
    }
}

#[test]
fn one_index_over_many_keys_is_uniform() {
    // The other direction: what one unit sees over the training steps, and over the seeds.
    let of: [fn(u64) -> Key; 3] =
        [|i| Key::new(5, 1, i), |i| Key::new(i, 1, 5), |i| Key::new(5, i, 1)];
    for (part, key) in of.iter().enumerate() {
        let mut counts = [[0; 256]; 4];
        for i in 0..1 << 18 {
            for (counts, byte) in counts.iter_mut().zip(key(i).bits(1234).to_le_bytes()) {
                counts[usize::from(byte)] += 1;
            }
        }
        for (byte, counts) in counts.iter().enumerate() {
            assert_uniform(&format!("part {part}, byte {byte}"), counts);
        }
    }
}

#[test]
fn seeds_streams_and_steps_give_different_bits() {
    let parts = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (1 << 40, 0, 0)];
    let keys = parts.map(|(seed, stream, step)| Key::new(seed, stream, step));
    for (i, a) in keys.iter().enumerate() {
        for b in &keys[..i] {
            assert_ne!(a, b);
            // Two of 1000 words agree by chance with probability 2·10⁻⁷.
            assert!((0..1000).all(|index| a.bits(index) != b.bits(index)));
        }
    }
}

const UNITS: usize = 1200;
const BATCH: usize = 128;

/// The mask [unit][example] of one layer and step as 1 − rate (kept) and −rate: mean zero.
fn mask(rate: f32, stream: u64, step: u64) -> Vec<f64> {
    let dropout = Dropout::new(Key::new(77, stream, step), rate, BATCH);
    let keeps = |i| dropout.keeps(i / BATCH, i % BATCH);
    (0..UNITS * BATCH).map(|i| f64::from(u8::from(keeps(i))) - (1.0 - f64::from(rate))).collect()
}

#[test]
fn dropout_keeps_the_stated_share() {
    for rate in [0.2f32, 0.5, 0.9] {
        let p = f64::from(rate);
        assert_eq!(Dropout::new(Key::new(0, 0, 0), rate, 1).scale(), (1.0 / (1.0 - p)) as f32);
        for step in 0..10 {
            let mask = mask(rate, 1, step);
            let mean = mask.iter().sum::<f64>() / mask.len() as f64;
            let sigma = (p * (1.0 - p) / mask.len() as f64).sqrt();
            assert!(mean.abs() < 5.0 * sigma, "rate {rate}, step {step}: {}", mean + 1.0 - p);
        }
    }
}

#[test]
fn dropout_is_independent_of_its_neighbours() {
    for rate in [0.2, 0.5] {
        for step in 0..5 {
            let now = mask(rate, 1, step);
            let correlation = |pairs: &[(usize, usize)], other: &[f64]| {
                let variance = f64::from(rate) * (1.0 - f64::from(rate));
                let sum: f64 = pairs.iter().map(|&(i, j)| now[i] * other[j]).sum();
                // In standard deviations.
                sum / variance / (pairs.len() as f64).sqrt()
            };
            let pairs = |units: usize, examples: usize| -> Vec<(usize, usize)> {
                let all = 0..UNITS * BATCH;
                all.map(|i| (i, i + units * BATCH + examples))
                    .filter(|(i, j)| i % BATCH + examples < BATCH && *j < UNITS * BATCH)
                    .collect()
            };
            for (what, sigmas) in [
                ("the next example", correlation(&pairs(0, 1), &now)),
                ("the example after it", correlation(&pairs(0, 2), &now)),
                ("the next unit", correlation(&pairs(1, 0), &now)),
                ("the next step", correlation(&pairs(0, 0), &mask(rate, 1, step + 1))),
                ("the next layer", correlation(&pairs(0, 0), &mask(rate, 2, step))),
            ] {
                assert!(sigmas.abs() < 5.0, "rate {rate}, step {step}, {what}: {sigmas} σ");
            }
            // The control: with itself the correlation is 1, hundreds of σ.
            assert!(correlation(&pairs(0, 0), &now) > 300.0);
        }
    }
}

#[test]
fn dropout_rates_lie_between_zero_and_one() {
    let keeps = |rate| {
        let dropout = Dropout::new(Key::new(1, 2, 3), rate, 1000);
        (0..100_000).filter(|i| dropout.keeps(i / 1000, i % 1000)).count()
    };
    assert!(keeps(1e-6) > 99_990);
    assert!(keeps(0.9999) < 50);
    for rate in [0.0, 1.0, -0.1, f32::NAN] {
        let new = || Dropout::new(Key::new(1, 2, 3), rate, 1);
        assert!(std::panic::catch_unwind(new).is_err(), "rate {rate}");
    }
}

#[test]
fn vectors_draw_what_scalars_draw() {
    for (units, batch) in [(1, 1), (7, 16), (30, 17), (100, 100), (9, 128)] {
        for rate in [0.2, 0.5] {
            let dropout = Dropout::new(Key::new(9, 8, 7), rate, batch);
            let want: Vec<f32> = (0..units * batch)
                .map(|i| if dropout.keeps(i / batch, i % batch) { dropout.scale() } else { 0.0 })
                .collect();
            let pixels = vec![1; units * batch];
            let got = same_bits_everywhere("input dropout", |context| {
                let mut x = Panel::unwritten(units, batch);
                load(context, &pixels, Scaling::NONE, Some(dropout), x.view_mut());
                x.row_major()
            });
            assert_eq!(got, want, "{units} inputs, {batch} examples");

            let w = Panel::from_row_major(1, units, &vec![0.5; units]);
            let x = Panel::from_row_major(1, batch, &vec![1.0; batch]);
            let bias = vec![0.5; units];
            let got = same_bits_everywhere("hidden dropout", |context| {
                let mut y = Panel::unwritten(units, batch);
                let relu = Some(Activation::Relu);
                forward(
                    context,
                    Factors::f32(w.view(), x.view()),
                    &bias,
                    relu,
                    Some(dropout),
                    y.view_mut(),
                );
                y.row_major()
            });
            assert_eq!(got, want, "{units} units, {batch} examples");

            let got = same_bits_everywhere("a pass of dropout", |context| {
                let mut y = Panel::from_row_major(units, batch, &vec![1.0; units * batch]);
                activation::forward(context, None, Some(dropout), y.view_mut());
                y.assert_padding_is_zero("a pass of dropout");
                y.row_major()
            });
            assert_eq!(got, want, "{units} units, {batch} examples");
        }
    }
}
