//! Bias correction against counting the errors at many offsets.

mod common;

use limbeck::engine::bias::Correction;
use limbeck::engine::metrics::{errors, predict};

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
