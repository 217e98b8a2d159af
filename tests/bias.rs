//! Measures of logits worked out by hand, and bias correction against counting the errors at many
//! offsets.

mod common;

use limbeck::engine::bias::Correction;
use limbeck::engine::metrics::{
    Confusion, agreement, calibration_error, errors, evaluate, mean_kl, misclassified, nll,
    predict, reliability, soft_confusion, soft_prediction,
};

/// Logits of a classifier that finds the label about as often as not and hardly ever says 3.
fn problem(seed: u64, n: usize, classes: usize) -> (Vec<f32>, Vec<u16>) {
    let labels: Vec<u16> = (0..n).map(|i| (i % classes) as u16).collect();
    let mut logits: Vec<f32> =
        common::uniform(seed, n * classes).iter().map(|&v| 4.0 * v as f32).collect();
    for (row, &label) in logits.chunks_exact_mut(classes).zip(&labels) {
        row[usize::from(label)] += 2.0;
        row[3] -= 3.0;
    }
    (logits, labels)
}

fn errors_with(correction: &Correction, logits: &[f32], labels: &[u16], classes: usize) -> usize {
    let mut logits = logits.to_vec();
    correction.apply(&mut logits, classes);
    errors(&logits, labels, classes)
}

#[test]
fn no_offset_on_a_fine_grid_has_fewer_errors() {
    for (seed, shifted) in [(1, vec![3]), (2, vec![3, 4]), (3, vec![0, 1, 2, 4])] {
        let (logits, labels) = problem(seed, 600, 5);
        let tuned = Correction::fewest_errors(&logits, &labels, 5, &shifted);
        let fewest = errors_with(&tuned, &logits, &labels, 5);
        let on_grid = |step: i32| {
            let correction = Correction { shifted: shifted.clone(), offset: step as f32 / 500.0 };
            errors_with(&correction, &logits, &labels, 5)
        };
        let grid = (-10_000..10_000).map(on_grid).min().unwrap();
        assert!(fewest <= grid, "{shifted:?}: {fewest} errors, {grid} on the grid");
        assert!(fewest < on_grid(0), "{shifted:?}: {fewest} errors, {} before", on_grid(0));
    }
}

#[test]
fn the_offset_lies_in_the_middle_of_the_best_interval() {
    // Crossing points: −1 (a 1, to be outside S), 2 and 4 (0s, to be in S), 7 (a 1).
    let logits = [0.0, -1.0, 0.0, 2.0, 0.0, 4.0, 0.0, 7.0];
    let labels = [1, 0, 0, 1];
    let tuned = Correction::fewest_errors(&logits, &labels, 2, &[0]);
    assert_eq!(tuned, Correction { shifted: vec![0], offset: 5.5 });
    assert_eq!(errors_with(&tuned, &logits, &labels, 2), 1);
    // Only unbounded intervals are best: everything belongs into S, or nothing.
    assert_eq!(Correction::fewest_errors(&logits, &[0; 4], 2, &[0]).offset, 8.0);
    assert_eq!(Correction::fewest_errors(&logits, &[1; 4], 2, &[0]).offset, -2.0);
    // Without examples nothing is known, so nothing changes.
    assert_eq!(Correction::fewest_errors(&[], &[], 2, &[0]).offset, 0.0);
}

#[test]
fn rows_that_are_not_finite_do_not_move_the_offset() {
    let (mut logits, mut labels) = problem(4, 200, 5);
    let tuned = Correction::fewest_errors(&logits, &labels, 5, &[3]);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        logits.extend([0.0, bad, 0.0, 0.0, 0.0]);
        labels.push(3);
    }
    assert_eq!(Correction::fewest_errors(&logits, &labels, 5, &[3]), tuned);
}

#[test]
fn the_shifted_classes_get_the_share_asked_for() {
    let (logits, _) = problem(5, 1000, 5);
    for share in [0.0, 0.001, 0.2, 0.5, 0.999, 1.0] {
        for shifted in [&[3][..], &[1, 3]] {
            let matched = Correction::matching_share(&logits, 5, shifted, share);
            let mut logits = logits.clone();
            matched.apply(&mut logits, 5);
            let inside = |row: &&[f32]| shifted.contains(&predict(row).unwrap());
            let count = logits.chunks_exact(5).filter(inside).count();
            assert_eq!(count, (share * 1000.0).round() as usize, "{shifted:?}, {share}");
        }
    }
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-7, "{found} {expected}");
}

/// ln of a probability as the logit of that class: softmax gives the probabilities back.
fn ln(probs: &[f64]) -> Vec<f32> {
    probs.iter().map(|p| p.ln() as f32).collect()
}

#[test]
fn bins_and_confusions_are_those_worked_out_by_hand() {
    // Confidences 3/4, right and wrong, and 1/2 (the lower class on the tie), right.
    let high = 3f32.ln();
    let (logits, labels) = ([high, 0.0, high, 0.0, 0.0, 0.0], [0, 1, 0]);
    let bins = reliability(&logits, &labels, 2).unwrap();
    let filled: Vec<_> = bins.iter().enumerate().filter(|(_, bin)| bin.examples > 0).collect();
    // 3/4 lies in (11/15, 12/15], 1/2 in (7/15, 8/15].
    let [(7, half), (11, most)] = filled[..] else { panic!("{filled:?}") };
    assert_eq!((half.examples, half.correct, most.examples, most.correct), (1, 1, 2, 1));
    near(half.confidence, 0.5);
    near(most.confidence, 1.5);
    // |1 − 1/2| and |1 − 3/2| over three examples.
    near(calibration_error(&logits, &labels, 2), 1.0 / 3.0);
    assert_eq!(reliability(&[f32::NAN, 0.0], &[0], 2), None);

    let seen = soft_confusion(&logits, &labels, 2, 1.0);
    for (found, expected) in seen.iter().zip([0.625, 0.375, 0.75, 0.25]) {
        near(*found, expected);
    }
    // √3 : 1 at T = 2.
    near(soft_prediction(&logits[..2], 2.0)[1], 1.0 / (1.0 + 3f64.sqrt()));
    assert!(soft_confusion(&logits[..2], &[0], 2, 1.0)[2].is_nan());
}

#[test]
fn ties_go_to_the_lowest_class_and_bad_logits_to_none() {
    assert_eq!(predict(&[1.0, 3.0, 3.0]), Some(1));
    assert_eq!(predict(&[0.0, 0.0]), Some(0));
    assert_eq!(predict(&[-0.0, 0.0]), Some(0));
    assert_eq!(predict(&[f32::NAN, 1.0]), None);
    assert_eq!(predict(&[0.0, f32::INFINITY]), None);
    assert_eq!(predict(&[0.0, f32::NEG_INFINITY]), None);
}

#[test]
fn errors_and_their_indices() {
    let logits = [1.0, 0.0, 0.0, 1.0, 2.0, 2.0, f32::NAN, 0.0];
    let labels = [0, 0, 1, 0];
    assert_eq!(errors(&logits, &labels, 2), 3);
    assert_eq!(misclassified(&logits, &labels, 2), [1, 2, 3]);
    let evaluation = evaluate(&logits, &labels, 2);
    assert_eq!((evaluation.examples, evaluation.errors), (4, 3));
    assert_eq!(evaluation.error_rate, 0.75);
    assert!(evaluation.nll.is_nan() && evaluation.calibration_error.is_nan());
}

#[test]
fn nll_of_known_probabilities() {
    let logits = ln(&[0.5, 0.25, 0.25, 0.1, 0.2, 0.7]);
    // −(ln 0.5 + ln 0.2)/2 = ln(10)/2
    near(nll(&logits, &[0, 1], 3), 10f64.ln() / 2.0);
    // Far beyond exp's range: 1000 − 0 for the wrong label, 0 for the right one.
    assert_eq!(nll(&[1000.0, 0.0], &[1], 2), 1000.0);
    assert_eq!(nll(&[1000.0, 0.0], &[0], 2), 0.0);
    assert_eq!(nll(&[-1e30, -1e30], &[0], 2), 2f64.ln());
}

#[test]
fn calibration_of_known_confidences() {
    // Confidence 0.7 and 0.69 share bin (10/15, 11/15], one of them right: |1 − 1.39| = 0.39.
    // Confidence 0.9, right, is alone: 0.1. Mean over three examples.
    let logits = ln(&[0.7, 0.3, 0.31, 0.69, 0.9, 0.1]);
    near(calibration_error(&logits, &[0, 0, 0], 2), 0.49 / 3.0);
    // Full confidence belongs to the last bin, a certain error is as wrong as can be.
    assert_eq!(calibration_error(&[900.0, 0.0], &[0], 2), 0.0);
    assert_eq!(calibration_error(&[900.0, 0.0], &[1], 2), 1.0);
    // A uniform guess over 15 classes has confidence 1/15, up to rounding on the edge.
    near(calibration_error(&[0.0; 15], &[0], 15), 14.0 / 15.0);
}

#[test]
fn agreement_counts_equal_predictions() {
    let a = [1.0, 0.0, 0.0, 1.0, f32::NAN, 0.0];
    let b = [5.0, 2.0, 3.0, 1.0, f32::NAN, 0.0];
    near(agreement(&a, &b, 2), 1.0 / 3.0);
    assert_eq!(agreement(&a[..4], &a[..4], 2), 1.0);
}

#[test]
fn kl_of_known_distributions() {
    let p = ln(&[0.5, 0.5]);
    let q = ln(&[0.9, 0.1]);
    // 0.5·ln(0.5/0.9) + 0.5·ln(0.5/0.1), which differs from the reverse direction.
    let forward = 0.5 * (0.5f64 / 0.9).ln() + 0.5 * 5f64.ln();
    near(mean_kl(&p, &q, 2, 1.0), forward);
    let reverse = 0.9 * (0.9f64 / 0.5).ln() + 0.1 * (0.1f64 / 0.5).ln();
    near(mean_kl(&q, &p, 2, 1.0), reverse);
    assert_eq!(mean_kl(&p, &p, 2, 4.0), 0.0);
    // T = 2 takes the square roots of the odds: 9 : 1 becomes 3 : 1.
    let softened = 0.5 * (0.5f64 / 0.75).ln() + 0.5 * 2f64.ln();
    near(mean_kl(&p, &q, 2, 2.0), softened);
    assert!(mean_kl(&[f32::NAN, 0.0], &p, 2, 1.0).is_nan());
}

#[test]
fn confusions_are_counted_in_the_row_of_the_label() {
    // Predictions 1, 0, 0 and none, of labels 1, 1, 0 and 0.
    let logits = [0.0, 2.0, 3.0, 1.0, 5.0, 4.0, f32::NAN, 0.0];
    let seen = Confusion::new(&logits, &[1, 1, 0, 0], 2);
    assert_eq!((seen.row(0), seen.row(1)), (&[1, 0][..], &[1, 1][..]));
    // The row that has no answer is an example all the same.
    assert_eq!((seen.examples(0), seen.predicted(0), seen.predicted(1)), (2, 2, 1));
    assert_eq!((seen.recall(0), seen.recall(1)), (Some(0.5), Some(0.5)));
    assert_eq!((seen.precision(0), seen.precision(1)), (Some(0.5), Some(1.0)));
    assert_eq!((seen.balanced_accuracy(), seen.commonest()), (0.5, (0, 2)));
    let third = Confusion::new(&[0.0, 1.0, 0.0], &[1], 3);
    assert_eq!((third.recall(2), third.precision(0), third.commonest()), (None, None, (1, 0)));
}
