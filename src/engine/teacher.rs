//! What a teacher of any framework says of the training examples, from a file, and whether it is logits.

use crate::files::error::{Error, Result};
use limbeck_datasets::npy::{self, Matrix};
use limbeck_datasets::{Remark, shown};
use std::path::Path;

/// How far the sum of a row of probabilities may be from 1: f16 rounds each of them by up to 2⁻¹¹ of it.
const SUM: f64 = 1e-2;

/// Logits of nets hardly reach a hundred.
const HUGE: f32 = 1e5;

/// What the numbers of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// The values before a softmax.
    Logits,
    /// Softmax outputs at T = 1.
    Probs,
}

/// Reads a teacher's logits [rows, columns], and what should be said of them.
///
/// Probabilities p are read as the logits ln p: softmax(ln p) = p, and softmax(ln p/T) ∝ p^(1/T) is what
/// the logits that gave p would have given. So are logarithms of probabilities, which are logits as
/// they are; only probabilities in the place of logits would be another teacher, and are refused.
///
/// # Errors
/// Those of [`npy::read_matrix`] and [`npy::read_log_probs`]; [`Error::Data`] for probabilities given as
/// logits, and rows of probabilities that do not sum to 1.
pub fn read(path: &Path, given: Given) -> Result<(Matrix, Option<Remark>)> {
    let bad = |what: &str, found: String, expected: &str| Error::Data {
        path: path.to_path_buf(),
        what: what.into(),
        found,
        expected: expected.into(),
    };
    let place = shown(&path.display().to_string());
    if given == Given::Probs {
        let matrix = npy::read_log_probs(path)?;
        let mut rows = matrix.values.chunks(matrix.columns).map(sum_of_exp).enumerate();
        if let Some((row, sum)) = rows.find(|(_, sum)| !is_one(*sum)) {
            let found = format!("{sum:.4} as the sum of row {row}");
            return Err(bad("teacher_probs", found, "1; logits are named teacher_logits"));
        }
        let remark = (matrix.zeros > 0).then(|| {
            Remark::Note(format!(
                "{place}: {} of {} probabilities are 0, taken for the least number of their type; logits \
                 tell them apart",
                matrix.zeros,
                matrix.values.len()
            ))
        });
        return Ok((matrix, remark));
    }
    let matrix = npy::read_matrix(path)?;
    let remark = judge(&matrix.values, matrix.columns).map_err(|found| {
        let expected =
            "the values before the softmax; probabilities, which sum to 1, are named teacher_probs";
        bad("teacher_logits", found.into(), expected)
    })?;
    let place = |text: String| format!("{place}: {text}");
    let remark = remark.map(|remark| match remark {
        Remark::Note(text) => Remark::Note(place(text)),
        Remark::Warning(text) => Remark::Warning(place(text)),
    });
    Ok((matrix, remark))
}

/// What should be said of a teacher's logits [n, columns].
///
/// # Errors
/// What they are in place of logits: probabilities or percentages.
pub fn judge(logits: &[f32], columns: usize) -> std::result::Result<Option<Remark>, &'static str> {
    let rows = || logits.chunks(columns);
    let in_unit = |row: &[f32]| row.iter().all(|p| (0.0..=1.01).contains(p));
    // Of their rounding to whole ones as many halves as there are classes.
    let most = (0.5 * columns as f64 + 0.1).min(5.0);
    let is_hundred = |row: &[f32]| row.iter().all(|&p| p >= 0.0) && (sum(row) - 100.0).abs() < most;
    if rows().all(|row| in_unit(row) && is_one(sum(row))) {
        return Err("probabilities: each row sums to 1");
    }
    if rows().all(is_hundred) {
        return Err("percentages: each row sums to 100");
    }
    let largest = logits.iter().fold(0.0f32, |most, z| most.max(z.abs()));
    Ok(if rows().all(in_unit) {
        Some(Remark::Warning(
            "all of the teacher's logits lie between 0 and 1: are they outputs of a sigmoid? The values before \
             it are wanted"
                .into(),
        ))
    } else if rows().all(|row| row.iter().all(|&z| z <= 0.0) && is_one(sum_of_exp(row))) {
        let text = "logarithms of probabilities, which are logits for every temperature";
        Some(Remark::Note(text.into()))
    } else if largest > HUGE {
        let row = logits.iter().position(|z| z.abs() == largest).unwrap_or(0) / columns;
        Some(Remark::Warning(format!(
            "the teacher's logits reach {largest:e} (row {row}), beside which no temperature softens anything: \
             is it a value that fills a gap?"
        )))
    } else {
        None
    })
}

fn sum(row: &[f32]) -> f64 {
    row.iter().map(|&p| f64::from(p)).sum()
}

/// ln of probabilities sums to what these sum to.
fn sum_of_exp(row: &[f32]) -> f64 {
    row.iter().map(|&z| libm::exp(f64::from(z))).sum()
}

fn is_one(sum: f64) -> bool {
    (sum - 1.0).abs() < SUM
}

/// Checks that a teacher, called `path`, has the data's classes.
///
/// # Errors
/// [`Error::Data`].
pub fn expect_classes(path: &Path, found: usize, classes: usize) -> Result<()> {
    if found == classes {
        return Ok(());
    }
    Err(Error::Data {
        path: path.to_path_buf(),
        what: "classes of the teacher".into(),
        found: found.to_string(),
        expected: format!(
            "{classes}, as the data has; of classes without an example data.classes says how many there are"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write::atomic_write;

    fn read_values(values: &[f32], given: Given) -> Result<(Matrix, Option<Remark>)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.npy");
        atomic_write(&path, &npy::of_logits(values, 3)).unwrap();
        read(&path, given)
    }

    #[test]
    fn probabilities_are_recognised_and_their_logarithms_are_logits() {
        let probs = [0.5f32, 0.25, 0.25, 0.1, 0.2, 0.7];
        let message = read_values(&probs, Given::Logits).unwrap_err().to_string();
        assert!(message.contains("are named teacher_probs"), "{message}");
        let (matrix, remark) = read_values(&probs, Given::Probs).unwrap();
        assert_eq!(remark, None);
        // softmax(ln p/T) is p^(1/T), normalised.
        for (row, probs) in matrix.values.chunks(3).zip(probs.chunks(3)) {
            for t in [1.0f64, 2.0, 20.0] {
                let soft: Vec<f64> = row.iter().map(|&v| (f64::from(v) / t).exp()).collect();
                let power: Vec<f64> = probs.iter().map(|&p| f64::from(p).powf(1.0 / t)).collect();
                let sums = [soft.iter().sum::<f64>(), power.iter().sum()];
                let pairs = soft.iter().zip(&power);
                assert!(pairs.into_iter().all(|(a, b)| (a / sums[0] - b / sums[1]).abs() < 1e-6));
            }
        }
        let logs: Vec<f32> = probs.iter().map(|p| p.ln()).collect();
        let (same, remark) = read_values(&logs, Given::Logits).unwrap();
        assert!(same.values.iter().zip(&matrix.values).all(|(a, b)| (a - b).abs() < 1e-6));
        assert!(matches!(remark, Some(Remark::Note(text)) if text.contains("every temperature")));

        let message = read_values(&[0.5; 6], Given::Probs).unwrap_err().to_string();
        assert!(message.contains("1.5000 as the sum of row 0"), "{message}");
        let message = read_values(&logs, Given::Probs).unwrap_err().to_string();
        assert!(message.contains("teacher_logits"), "{message}");
        let (_, remark) = read_values(&[0.5; 6], Given::Logits).unwrap();
        assert!(matches!(remark, Some(Remark::Warning(text)) if text.contains("sigmoid")));
        let message = read_values(&[50.0, 25.0, 25.0, 10.0, 20.0, 70.0], Given::Logits);
        assert!(message.unwrap_err().to_string().contains("percentages: each row sums to 100"));
        let (_, remark) = read_values(&[4.0, -1.0, 0.5, 0.0, -1e30, 0.0], Given::Logits).unwrap();
        assert!(matches!(remark, Some(Remark::Warning(text)) if text.contains("1e30 (row 1)")));
        let (_, remark) = read_values(&[4.0, -1.0, 0.5, 0.0, 1.0, 0.0], Given::Logits).unwrap();
        assert_eq!(remark, None);
        let (matrix, remark) = read_values(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0], Given::Probs).unwrap();
        assert!(matrix.values.iter().all(|v| v.is_finite()));
        assert!(matches!(remark, Some(Remark::Note(text)) if text.contains("4 of 6")));
    }
}
