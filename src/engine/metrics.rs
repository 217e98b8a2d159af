//! Measures of a classifier's logits.
//!
//! Shapes: logits `[n, classes]` row-major, labels `[n]` below `classes`. Sums run in f64 in index
//! order, so that a figure does not depend on how the logits were computed in batches.
//!
//! # Panics
//! Every function panics on shapes that contradict each other and on a label that is no class:
//! both are established when data and model are loaded.

use limbeck_kernels::reference::Distillation;
use serde::Serialize;

/// Bins of the calibration error.
const BINS: usize = 15;

/// What `eval` reports of one model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// n.
    pub examples: usize,
    /// Misclassified examples.
    pub errors: usize,
    /// errors/n.
    pub error_rate: f64,
    /// See [`nll`].
    pub nll: f64,
    /// See [`calibration_error`].
    pub calibration_error: f64,
    /// Indices of the misclassified examples, ascending.
    pub misclassified: Vec<usize>,
}

/// All measures of `logits` against `labels`.
pub fn evaluate(logits: &[f32], labels: &[u16], classes: usize) -> Evaluation {
    let misclassified = misclassified(logits, labels, classes);
    Evaluation {
        examples: labels.len(),
        errors: misclassified.len(),
        error_rate: error_rate(misclassified.len(), labels.len()),
        nll: nll(logits, labels, classes),
        calibration_error: calibration_error(logits, labels, classes),
        misclassified,
    }
}

/// Class of the largest logit, the lowest such class on ties; none when a logit is not finite.
pub fn predict(row: &[f32]) -> Option<usize> {
    if row.iter().any(|z| !z.is_finite()) {
        return None;
    }
    largest(row, 0..row.len())
}

/// Of these `classes`, that of the largest logit, the first such class on ties; none of none.
pub(crate) fn largest(row: &[f32], classes: impl Iterator<Item = usize>) -> Option<usize> {
    classes.reduce(|best, class| if row[class] > row[best] { class } else { best })
}

/// Number of examples whose prediction is not their label. A row with a logit that is not finite
/// is an error whatever its label.
pub fn errors(logits: &[f32], labels: &[u16], classes: usize) -> usize {
    misclassified(logits, labels, classes).len()
}

/// errors/examples; 0 for no examples.
pub fn error_rate(errors: usize, examples: usize) -> f64 {
    errors as f64 / examples.max(1) as f64
}

/// Indices, ascending, of the examples that [`errors`] counts.
pub fn misclassified(logits: &[f32], labels: &[u16], classes: usize) -> Vec<usize> {
    let rows = labelled_rows(logits, labels, classes).enumerate();
    let wrong = rows.filter(|&(_, (row, label))| predict(row) != Some(label));
    wrong.map(|(index, _)| index).collect()
}

/// Which class is taken for which.
#[derive(Debug, Clone, PartialEq)]
pub struct Confusion {
    /// `[classes, classes]`: row = label, column = prediction; empty for more than
    /// [`Confusion::MOST`] classes, of which it would fill the memory.
    counts: Vec<u64>,
    /// `[classes]`: labels, predicted or not.
    labelled: Vec<u64>,
    /// `[classes]`: predictions.
    predicted: Vec<u64>,
    /// `[classes]`: predictions that are the label.
    right: Vec<u64>,
}

impl Confusion {
    /// The most classes of which each is counted against each: 8 MB.
    pub const MOST: usize = 1000;

    /// Of `logits`. A row with a logit that is not finite has no prediction.
    pub fn new(logits: &[f32], labels: &[u16], classes: usize) -> Confusion {
        let size = if classes <= Confusion::MOST { classes * classes } else { 0 };
        let [labelled, predicted, right] = [(); 3].map(|()| vec![0; classes]);
        let mut confusion = Confusion { counts: vec![0; size], labelled, predicted, right };
        for (row, label) in labelled_rows(logits, labels, classes) {
            confusion.labelled[label] += 1;
            let Some(prediction) = predict(row) else { continue };
            confusion.predicted[prediction] += 1;
            confusion.right[label] += u64::from(prediction == label);
            if let Some(count) = confusion.counts.get_mut(label * classes + prediction) {
                *count += 1;
            }
        }
        confusion
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.labelled.len()
    }

    /// How often each class was predicted for examples of `label`.
    ///
    /// # Panics
    /// For more than [`Confusion::MOST`] classes.
    pub fn row(&self, label: usize) -> &[u64] {
        &self.counts[label * self.classes()..][..self.classes()]
    }

    /// Examples of a class.
    pub fn examples(&self, label: usize) -> u64 {
        self.labelled[label]
    }

    /// Examples.
    pub fn all_examples(&self) -> u64 {
        self.labelled.iter().sum()
    }

    /// Examples that are recognised.
    pub fn all_right(&self) -> u64 {
        self.right.iter().sum()
    }

    /// Examples that were taken for a class.
    pub fn predicted(&self, class: usize) -> u64 {
        self.predicted[class]
    }

    /// The share of a class's examples that are recognised; none of a class without examples.
    pub fn recall(&self, class: usize) -> Option<f64> {
        share(self.right[class], self.examples(class))
    }

    /// The share of what is taken for a class that is of it; none for a class never predicted.
    pub fn precision(&self, class: usize) -> Option<f64> {
        share(self.right[class], self.predicted(class))
    }

    /// The mean recall over the classes that have examples; NaN for no examples.
    pub fn balanced_accuracy(&self) -> f64 {
        let recalls: Vec<f64> =
            (0..self.classes()).filter_map(|class| self.recall(class)).collect();
        recalls.iter().sum::<f64>() / recalls.len() as f64
    }

    /// The class with the most examples, the first of equal ones, and the errors that always
    /// answering it makes.
    pub fn commonest(&self) -> (usize, u64) {
        let most = (0..self.classes()).rev().max_by_key(|&class| self.labelled[class]).unwrap_or(0);
        (most, self.all_examples() - self.labelled[most])
    }
}

fn share(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

/// Mean negative log-likelihood of the labels, in nats: (1/n)·Σ (ln Σ_c exp(z_c) − z_label),
/// the maximum of each row taken out before the exponential.
/// NaN when a logit is not finite or there are no examples.
pub fn nll(logits: &[f32], labels: &[u16], classes: usize) -> f64 {
    let rows = labelled_rows(logits, labels, classes);
    let sum: f64 = rows.map(|(row, label)| -LogSoftmax::new(row, 1.0).of(row[label])).sum();
    sum / labels.len() as f64
}

/// Expected calibration error: Σ_b (n_b/n)·|accuracy_b − confidence_b| over the bins of
/// [`reliability`]. In [0, 1]; NaN when a logit is not finite or there are no examples.
pub fn calibration_error(logits: &[f32], labels: &[u16], classes: usize) -> f64 {
    let Some(bins) = reliability(logits, labels, classes) else { return f64::NAN };
    // n_b·(accuracy_b − confidence_b) of a bin.
    let gaps = bins.iter().map(|bin| (bin.correct as f64 - bin.confidence).abs());
    gaps.sum::<f64>() / labels.len() as f64
}

/// The examples whose confidence lies in one bin.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bin {
    /// Their number, n_b.
    pub examples: u64,
    /// Those classified as labelled: n_b·accuracy_b.
    pub correct: u64,
    /// Sum of their confidences: n_b·confidence_b.
    pub confidence: f64,
}

/// The examples by confidence, in 15 bins of equal width: bin b holds those whose confidence
/// max_c softmax(z)_c lies in (b/15, (b + 1)/15]. None when a logit is not finite.
///
/// Source: Guo et al. 2017, On Calibration of Modern Neural Networks, section 2.
pub fn reliability(logits: &[f32], labels: &[u16], classes: usize) -> Option<[Bin; BINS]> {
    let mut bins = [Bin::default(); BINS];
    for (row, label) in labelled_rows(logits, labels, classes) {
        let predicted = predict(row)?;
        let confidence = libm::exp(LogSoftmax::new(row, 1.0).of(row[predicted]));
        let bin = (confidence * BINS as f64).ceil() as usize;
        let bin = &mut bins[bin.clamp(1, BINS) - 1];
        bin.examples += 1;
        bin.correct += u64::from(predicted == label);
        bin.confidence += confidence;
    }
    Some(bins)
}

/// softmax(z/T) of one row of logits; NaN when a logit is not finite.
pub fn soft_prediction(row: &[f32], temperature: f64) -> Vec<f64> {
    let log = LogSoftmax::new(row, temperature);
    row.iter().map(|&z| libm::exp(log.of(z))).collect()
}

/// What a model sees in each class: row c is the mean of [`soft_prediction`] over the examples
/// labelled c, `[classes, classes]` row-major. NaN in the row of a class without examples, and
/// where a logit is not finite.
pub fn soft_confusion(logits: &[f32], labels: &[u16], classes: usize, t: f64) -> Vec<f64> {
    let mut sums = vec![0.0; classes * classes];
    let mut counts = vec![0u64; classes];
    for (row, label) in labelled_rows(logits, labels, classes) {
        counts[label] += 1;
        let sums = &mut sums[label * classes..][..classes];
        for (sum, p) in sums.iter_mut().zip(soft_prediction(row, t)) {
            *sum += p;
        }
    }
    for (row, count) in sums.chunks_exact_mut(classes).zip(counts) {
        row.iter_mut().for_each(|sum| *sum /= count as f64);
    }
    sums
}

/// Share of the examples for which two models predict the same class, in [0, 1]. A row with a
/// logit that is not finite agrees with nothing. NaN for no examples.
pub fn agreement(a: &[f32], b: &[f32], classes: usize) -> f64 {
    let same = |(a, b): &(&[f32], &[f32])| predict(a).is_some_and(|c| Some(c) == predict(b));
    row_pairs(a, b, classes).filter(same).count() as f64 / (a.len() / classes) as f64
}

/// Mean over the examples of KL(p ‖ q) = Σ_c p_c·(ln p_c − ln q_c) in nats, p = softmax(v/T) of
/// the teacher's logits v, q = softmax(z/T) of the student's logits z; never negative, and exact at
/// high T too. NaN when a logit is not finite or there are no examples.
///
/// Forward direction and mean over the examples alone, as in the distillation loss, but without
/// its factor T².
pub fn mean_kl(teacher: &[f32], student: &[f32], classes: usize, temperature: f64) -> f64 {
    assert!(temperature > 0.0, "temperature {temperature}");
    let sum: f64 = row_pairs(teacher, student, classes)
        .map(|(v, z)| {
            if v.iter().chain(z).any(|x| !x.is_finite()) {
                return f64::NAN;
            }
            let wide = |row: &[f32]| row.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
            let v = wide(v);
            let pair = Distillation {
                teacher: Some(&v),
                label: None,
                temperature,
                soft_weight: 1.0,
                hard_weight: 0.0,
            };
            pair.divergence(&wide(z))
        })
        .sum();
    sum / (teacher.len() / classes) as f64
}

/// ln softmax(z/T) of one row: (z − max)/T − ln Σ_c exp((z_c − max)/T). The two shifts are kept
/// apart: added up, a large maximum would swallow the logarithm.
struct LogSoftmax {
    max: f64,
    ln_sum: f64,
    temperature: f64,
}

impl LogSoftmax {
    /// Everything is NaN when a logit is not finite.
    fn new(row: &[f32], temperature: f64) -> LogSoftmax {
        let finite = row.iter().all(|z| z.is_finite());
        let max = match finite {
            true => row.iter().copied().fold(f32::MIN, f32::max).into(),
            false => f64::NAN,
        };
        // Early stopping chooses by it: not by the exponential of the platform.
        let exp = |&z: &f32| libm::exp((f64::from(z) - max) / temperature);
        let sum: f64 = row.iter().map(exp).sum();
        LogSoftmax { max, ln_sum: libm::log(sum), temperature }
    }

    fn of(&self, logit: f32) -> f64 {
        (f64::from(logit) - self.max) / self.temperature - self.ln_sum
    }
}

/// Each row with its label.
pub(crate) fn labelled_rows<'a>(
    logits: &'a [f32],
    labels: &'a [u16],
    classes: usize,
) -> impl Iterator<Item = (&'a [f32], usize)> {
    assert_eq!(
        logits.len(),
        labels.len() * classes,
        "logits must be [{}, {classes}]",
        labels.len()
    );
    let labels = labels.iter().map(move |&label| {
        let label = usize::from(label);
        assert!(label < classes, "label {label} of {classes} classes");
        label
    });
    logits.chunks_exact(classes).zip(labels)
}

fn row_pairs<'a>(
    a: &'a [f32],
    b: &'a [f32],
    classes: usize,
) -> impl Iterator<Item = (&'a [f32], &'a [f32])> {
    assert_eq!(a.len(), b.len(), "both logits must have the same shape");
    assert_eq!(a.len() % classes, 0, "logits must be [n, {classes}]");
    a.chunks_exact(classes).zip(b.chunks_exact(classes))
}
