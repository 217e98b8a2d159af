//! Soft targets: what teachers say about a transfer set, computed once and cached.

use crate::engine::{communicator::Communicator, mlp::Mlp};
use crate::files::error::Result;
use limbeck_datasets::{Split, shifts};
use limbeck_kernels::{Buffer, Context, Panels, PanelsMut, panel_len, softmax};

/// Examples of which an ensemble is asked at once, few enough that its answers stay in the cache.
const PART: usize = 512;
/// Parts that the threads share out.
const AT_ONCE: usize = 32;

/// The logits [shifts, n, classes] from which the soft targets of `split` are made at temperature
/// T. Without `jitter` there is one shift, none at all; with j pixels of it all (2j + 1)²
/// translations in the order of [`limbeck_datasets::shifts`].
///
/// The teachers are in evaluation mode: no dropout. The paper's transfer set is untranslated. One
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
    jitter: Option<u8>,
) -> Vec<f32> {
    let (first, others) = teachers.split_first().expect("at least one teacher");
    let of = |split: &Split| {
        if others.is_empty() {
            return first.logits(context, split);
        }
        // A part at a time: what the members say of it is wanted only until it is averaged. Each
        // thread does whole parts.
        let all: Vec<u32> = (0..split.len() as u32).collect();
        let parts: Vec<&[u32]> = all.chunks(PART).collect();
        let mut logits = Vec::with_capacity(split.len() * first.classes());
        for parts in parts.chunks(AT_ONCE) {
            let mean = |i: usize| {
                let part = split.subset(parts[i]);
                let members = teachers.iter().map(|teacher| teacher.logits(context, &part));
                ensemble_logits(context, members, first.classes(), temperature)
            };
            context.pool.map(parts.len(), mean).iter().for_each(|mean| logits.extend(mean));
        }
        logits
    };
    match jitter {
        None => of(split),
        Some(pixels) => shifts(pixels).flat_map(|(dx, dy)| of(&split.shifted(dx, dy))).collect(),
    }
}

/// [`teacher_logits`] of which each rank of `communicator` works out its part of the examples; all get all,
/// with the bits that one process gets.
///
/// # Errors
/// [`crate::Error::Lost`].
///
/// # Panics
/// As [`teacher_logits`].
pub fn teacher_logits_together(
    context: &Context,
    communicator: &mut Communicator,
    teachers: &[Mlp],
    split: &Split,
    temperature: f32,
    jitter: Option<u8>,
) -> Result<Vec<f32>> {
    let (rank, size) = (communicator.rank(), communicator.size());
    let part = |rank: usize| rank * split.len() / size..(rank + 1) * split.len() / size;
    let mine: Vec<u32> = part(rank).map(|i| i as u32).collect();
    let own = teacher_logits(context, teachers, &split.subset(&mine), temperature, jitter);
    let shifts = jitter.map_or(1, |pixels| shifts(pixels).count());
    // Of one example under one shift.
    let row = size_of::<f32>() * teachers.first().map_or(0, Mlp::classes);
    let lengths: Vec<usize> = (0..size).map(|rank| shifts * part(rank).len() * row).collect();
    let gathered = communicator.gather(bytemuck::cast_slice(&own).to_vec(), lengths.clone())?;
    // From [rank, shifts, examples of the rank, classes] to [shifts, examples, classes].
    let mut all = Vec::with_capacity(gathered.len() / size_of::<f32>());
    for shift in 0..shifts {
        let mut start = 0;
        for (rank, length) in lengths.iter().enumerate() {
            let bytes = &gathered[start..][shift * part(rank).len() * row..];
            let values = bytes[..part(rank).len() * row].as_chunks().0;
            all.extend(values.iter().map(|bytes| f32::from_ne_bytes(*bytes)));
            start += length;
        }
    }
    Ok(all)
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
    let t = f64::from(temperature);
    let is_high = temperature.is_finite() && temperature > softmax::HIGH;
    for mut member in members {
        if temperature.is_finite() && !is_high {
            let n = member.len() / classes;
            let mut logits = Buffer::zeroed(panel_len(classes, n));
            let mut probs = logits.clone();
            PanelsMut::new(&mut logits, classes, n).copy_from_lane_major(&member);
            let out = PanelsMut::new(&mut probs, classes, n);
            softmax::softmax(context, Panels::new(&logits, classes, n), temperature, out);
            Panels::new(&probs, classes, n).to_lane_major(&mut member);
        }
        if count == 0.0 {
            sum.resize(member.len(), 0.0);
        }
        assert_eq!(sum.len(), member.len(), "values of each member's logits");
        let rows = sum.chunks_mut(classes).zip(member.chunks(classes));
        rows.for_each(|(sum, row)| match is_high {
            true => add_excess(sum, row, t),
            false => sum.iter_mut().zip(row).for_each(|(sum, p)| *sum += f64::from(*p)),
        });
        count += 1.0;
    }
    // A probability that underflowed in every member stays finite: the smallest f32, or the least that is
    // told from 0 where the excess over the uniform one is taken.
    let floor = f64::from(f32::from_bits(1));
    let to_logit = |mean: f64| match temperature {
        f32::INFINITY => mean,
        _ if is_high => t * libm::log1p(mean.max(f64::EPSILON - 1.0)),
        _ => t * libm::log(mean.max(floor)),
    };
    let parts: Vec<&[f64]> = sum.chunks(1 << 14).collect();
    let part = |i: usize| -> Vec<f32> {
        parts[i].iter().map(|sum| to_logit(sum / count) as f32).collect()
    };
    context.pool.map(parts.len(), part).concat()
}

/// Adds to each sum by how much softmax(z/T) of the row exceeds the uniform distribution, relatively:
///
/// ```text
/// C·softmax(z/T)_c − 1 = exp(l_c/T) − 1    l_c = (z_c − m) − T·ln(1 + (1/C) Σ_k (exp((z_k − m)/T) − 1))
/// ```
///
/// with m = max z. At a high T all probabilities are near 1/C, where f32 and even f64 would keep little of
/// what tells them apart; of this nothing is lost. The logarithm of 1 + its mean differs from that of the
/// mean probability by ln C, the same for every class.
fn add_excess(sum: &mut [f64], row: &[f32], t: f64) {
    let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let below = row.iter().map(|&z| f64::from(z) - max);
    let mean = below.clone().map(|z| libm::expm1(z / t)).sum::<f64>() / row.len() as f64;
    let level = t * libm::log1p(mean);
    sum.iter_mut().zip(below).for_each(|(sum, z)| *sum += libm::expm1((z - level) / t));
}
