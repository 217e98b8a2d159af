//! Soft targets: what teachers say about a transfer set, computed once and cached.

use crate::mlp::Mlp;
use limbeck_datasets::Split;
use limbeck_kernels::{Buffer, Context, Panels, PanelsMut, panel_len, softmax};

/// The logits [n, classes] from which the soft targets of `split` are made at temperature T.
///
/// The teachers are in evaluation mode (no dropout) and see the images untranslated. One
/// teacher: its logits, good for any T. Several: logits whose softmax at T is the arithmetic
/// mean of the teachers' distributions at T, v = T · ln((1/M) Σ softmax(v_m/T)) (paper,
/// section 2); for T = ∞ the mean of their logits, to which that tends.
///
/// # Panics
/// If there is no teacher, or they differ in inputs or classes from `split` or each other.
pub fn teacher_logits(
    context: &Context,
    teachers: &[Mlp],
    split: &Split,
    temperature: f32,
) -> Vec<f32> {
    let (first, others) = teachers.split_first().expect("at least one teacher");
    let logits = first.logits(context, split);
    if others.is_empty() {
        return logits;
    }
    let members = std::iter::once(logits).chain(others.iter().map(|t| t.logits(context, split)));
    ensemble_logits(context, members, first.classes(), temperature)
}

/// T · ln of the mean of the members' softmax at T, or the mean of their logits for T = ∞; each
/// member's logits are [n, classes].
///
/// # Panics
/// If the members' lengths differ.
pub fn ensemble_logits(
    context: &Context,
    members: impl IntoIterator<Item = Vec<f32>>,
    classes: usize,
    temperature: f32,
) -> Vec<f32> {
    let mut sum: Vec<f64> = Vec::new();
    let mut count = 0.0;
    for mut member in members {
        if temperature.is_finite() {
            let n = member.len() / classes;
            let mut logits = Buffer::zeroed(panel_len(classes, n));
            let mut probs = logits.clone();
            PanelsMut::new(&mut logits, classes, n).copy_from_lane_major(&member);
            let (logits, mut probs) =
                (Panels::new(&logits, classes, n), PanelsMut::new(&mut probs, classes, n));
            let out = PanelsMut::new(probs.data(), classes, n);
            softmax::softmax(context, logits, temperature, out);
            probs.as_ref().to_lane_major(&mut member);
        }
        sum.resize(member.len(), 0.0);
        assert_eq!(sum.len(), member.len(), "values of each member's logits");
        for (sum, p) in sum.iter_mut().zip(&member) {
            *sum += f64::from(*p);
        }
        count += 1.0;
    }
    // A probability that underflowed in every member stays finite: the smallest f32.
    let floor = f64::from(f32::from_bits(1));
    let to_logit = |mean: f64| {
        if temperature.is_infinite() {
            return mean;
        }
        f64::from(temperature) * libm::log(mean.max(floor))
    };
    sum.into_iter().map(|sum| to_logit(sum / count) as f32).collect()
}
