//! Features: log-mel filterbanks for the nets, cepstra for the aligner, and their normalisation.
//!
//! ```text
//! samples, 16 kHz, i16   [n]
//! Fbank::features        [T, 40]  ln of the energy in 40 mel filters, T = 1 + ⌊(n − 400)/160⌋
//! mfcc                   [T, 39]  13 cepstra, their slopes, and the slopes' slopes
//! subtract_speaker_means          x − mean of the speaker
//! Normalisation                   (x − μ)/σ, μ and σ those of the training frames
//! ```
//!
//! A frame is 25 ms of sound, 400 samples; one starts every 10 ms, 160 samples.
//!
//! The paper's input is 40 mel-scaled filterbank coefficients every 10 ms (section 4), which it
//! does not define; the definition here is Kaldi's `compute-fbank-feats` without dither.
//! `tests/speech.rs` compares it with another implementation of that on real recordings.
//!
//! Each step computes in f64, by scalar arithmetic and [`libm`], and rounds to f32 once at its end:
//! the same bits on every machine.

use limbeck_datasets::an4::SAMPLE_RATE;
use realfft::{RealFftPlanner, RealToComplex};
use std::f64::consts::{PI, SQRT_2};
use std::{collections::BTreeMap, sync::Arc};

/// Samples of a frame: 25 ms at 16 kHz.
pub const FRAME: usize = 400;
/// Samples from the start of a frame to that of the next: 10 ms.
pub const SHIFT: usize = 160;
/// Log-mel filters.
pub const BINS: usize = 40;
/// Cepstral coefficients, the zeroth included.
pub const CEPSTRA: usize = 13;

const FFT: usize = 512;
const PREEMPHASIS: f64 = 0.97;
const LOWEST_HZ: f64 = 20.0;
const HIGHEST_HZ: f64 = 8000.0;
/// The 4800 Hz of [`Fbank::warped`], where the warp bends.
const LINEAR_HZ: f64 = 4800.0;
/// The least energy, ε = 2⁻²³, as in Kaldi: the distance from 1 to the next f32.
const FLOOR: f64 = f32::EPSILON as f64;
const LIFTER: f64 = 22.0;
/// A delta is fitted to so many frames on either side.
const DELTA_WINDOW: usize = 2;

/// The features of an utterance, a row for each frame.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureMatrix {
    /// Features of a frame.
    pub dim: usize,
    /// `[frames, dim]`, row-major.
    pub values: Vec<f32>,
}

impl FeatureMatrix {
    /// The number of frames.
    pub fn frames(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Frame `t`, counted from 0: `[dim]`.
    pub fn frame(&self, t: usize) -> &[f32] {
        &self.values[t * self.dim..(t + 1) * self.dim]
    }
}

/// The log-mel filterbank.
pub struct Fbank {
    /// `[FRAME]`
    window: Vec<f64>,
    fft: Arc<dyn RealToComplex<f64>>,
    filters: Vec<Filter>,
}

/// A triangular filter over FFT bins: the weights of the bins from `first` on.
struct Filter {
    first: usize,
    weights: Vec<f64>,
}

impl Fbank {
    /// The filterbank for 16 kHz that treats a frequency f as if it were warp(f). A voice then sounds as if its
    /// vocal tract were 1/α times as long. With α = `factor`, 1 for the plain filterbank:
    ///
    /// ```text
    /// warp(f) = α·f                             f ≤ f₀ = 4800·min(α, 1)/α
    ///         = 8000 − s·(8000 − f)             f > f₀, s = (8000 − α·f₀)/(8000 − f₀)
    /// ```
    ///
    /// Source: Jaitly & Hinton, *Vocal Tract Length Perturbation (VTLP) improves speech
    /// recognition*, ICML 2013 workshop on deep learning for audio, speech and language processing.
    pub fn warped(factor: f64) -> Fbank {
        let window = (0..FRAME).map(povey).collect();
        let fft = RealFftPlanner::new().plan_fft_forward(FFT);
        Fbank { window, fft, filters: filters(factor) }
    }

    /// ln max(ε, Σₖ wᵦₖ·|X(k)|²) for each frame and filter b: `[1 + (n − 400)/160, 40]` for n
    /// samples in the range of `i16`, no frame for n < 400.
    ///
    /// Of frame t, samples 160·t to 160·t + 399:
    /// 1. subtract their mean;
    /// 2. pre-emphasis: x(i) − 0.97·x(i − 1), and 0.03·x(0) for the first;
    /// 3. times the Povey window (0.5 − 0.5·cos(2πi/399))^0.85;
    /// 4. X = discrete Fourier transform of the 400 values and 112 zeros;
    /// 5. filter b weighs bin k by the height at mel(k·16000/512) of the triangle with feet
    ///    m(b), m(b + 2) and its peak of 1 at m(b + 1); the 42 m are equidistant from mel(20 Hz)
    ///    to mel(8000 Hz), mel(f) = 1127·ln(1 + f/700). Bin 256 belongs to no filter;
    /// 6. ε = 2⁻²³.
    ///
    /// Source: Kaldi's `feature-window.cc`, `mel-computations.cc`, `feature-fbank.cc`.
    pub fn features(&self, samples: &[i16]) -> FeatureMatrix {
        let mut padded = self.fft.make_input_vec();
        let mut spectrum = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        let mut values = Vec::with_capacity(samples.len() / SHIFT * BINS);
        for frame in samples.windows(FRAME).step_by(SHIFT) {
            // Exact: 400 values of 16 bits.
            let sum: i32 = frame.iter().map(|&sample| i32::from(sample)).sum();
            let mean = f64::from(sum) / FRAME as f64;
            let mut before = f64::from(frame[0]) - mean;
            padded.fill(0.0);
            for ((x, &sample), weight) in padded.iter_mut().zip(frame).zip(&self.window) {
                let centred = f64::from(sample) - mean;
                *x = (centred - PREEMPHASIS * before) * weight;
                before = centred;
            }
            self.fft
                .process_with_scratch(&mut padded, &mut spectrum, &mut scratch)
                .expect("buffers of the plan's own lengths");
            values.extend(self.filters.iter().map(|Filter { first, weights }| {
                let bins = weights.iter().zip(&spectrum[*first..]);
                let energy: f64 = bins.map(|(weight, x)| weight * x.norm_sqr()).sum();
                libm::log(energy.max(FLOOR)) as f32
            }));
        }
        FeatureMatrix { dim: BINS, values }
    }
}

fn povey(i: usize) -> f64 {
    let hann = 0.5 - 0.5 * libm::cos(2.0 * PI * i as f64 / (FRAME - 1) as f64);
    libm::pow(hann, 0.85)
}

fn mel(hz: f64) -> f64 {
    1127.0 * libm::log(1.0 + hz / 700.0)
}

fn warp(hz: f64, factor: f64) -> f64 {
    let bent = LINEAR_HZ * factor.min(1.0);
    let bend = bent / factor;
    if hz <= bend {
        return factor * hz;
    }
    HIGHEST_HZ - (HIGHEST_HZ - bent) / (HIGHEST_HZ - bend) * (HIGHEST_HZ - hz)
}

fn filters(factor: f64) -> Vec<Filter> {
    let lowest = mel(LOWEST_HZ);
    let step = (mel(HIGHEST_HZ) - lowest) / (BINS + 1) as f64;
    let hz = |k: usize| k as f64 * f64::from(SAMPLE_RATE) / FFT as f64;
    let bins: Vec<f64> = (0..FFT / 2).map(|k| mel(warp(hz(k), factor))).collect();
    let filter = |b: usize| {
        let peak = lowest + (b + 1) as f64 * step;
        let height = |m: f64| 1.0 - (m - peak).abs() / step;
        let first = bins.partition_point(|&m| height(m) <= 0.0 && m < peak);
        let weights = bins[first..].iter().map(|&m| height(m)).take_while(|&h| h > 0.0).collect();
        Filter { first, weights }
    };
    (0..BINS).map(filter).collect()
}

/// 13 cepstra with their deltas and those of the deltas: `[frames, 39]` from log-mels
/// `[frames, bins]`.
///
/// c(q) = l(q)·a(q)·Σ_b cos(πq(b + ½)/bins)·logmel(b), the orthonormal DCT-II with a(0) = √(1/bins)
/// and else a(q) = √(2/bins), and the lifter l(q) = 1 + 11·sin(πq/22).
///
/// Then δ(t) = Σ_{n = 1, 2} n·(c(t + n) − c(t − n))/10, the slope of the line fitted to five
/// frames; before the first and behind the last frame these repeat. The deltas' deltas are δ of δ.
///
/// Source: Kaldi's `feature-mfcc.cc` (with `--use-energy=false`); the HTK book's delta.
pub fn mfcc(log_mels: &FeatureMatrix) -> FeatureMatrix {
    let bins = log_mels.dim;
    let row = |q: usize| {
        let lifter = 1.0 + 0.5 * LIFTER * libm::sin(PI * q as f64 / LIFTER);
        let scale = lifter * (if q == 0 { 1.0 } else { SQRT_2 }) / (bins as f64).sqrt();
        (0..bins).map(move |b| scale * libm::cos(PI * q as f64 * (b as f64 + 0.5) / bins as f64))
    };
    let transform: Vec<Vec<f64>> = (0..CEPSTRA).map(|q| row(q).collect()).collect();
    let cepstra_of = |frame: &[f32]| -> Vec<f64> {
        let sum = |row: &Vec<f64>| row.iter().zip(frame).map(|(w, &x)| w * f64::from(x)).sum();
        transform.iter().map(sum).collect()
    };
    let cepstra: Vec<f64> = log_mels.values.chunks_exact(bins).flat_map(cepstra_of).collect();
    let slopes = deltas(&cepstra, CEPSTRA);
    let curvatures = deltas(&slopes, CEPSTRA);
    let parts = [cepstra, slopes, curvatures];
    let frames = 0..log_mels.frames();
    let values = frames.flat_map(|t| {
        let range = t * CEPSTRA..(t + 1) * CEPSTRA;
        parts.iter().flat_map(move |part| part[range.clone()].iter().map(|&value| value as f32))
    });
    FeatureMatrix { dim: 3 * CEPSTRA, values: values.collect() }
}

/// δ of each column of `[frames, dim]`.
fn deltas(values: &[f64], dim: usize) -> Vec<f64> {
    let frames: Vec<&[f64]> = values.chunks_exact(dim).collect();
    let last = frames.len().saturating_sub(1);
    let spread = (1..=DELTA_WINDOW).map(|n| 2 * n * n).sum::<usize>() as f64;
    let slope = |(t, i): (usize, usize)| {
        let rise =
            |n: usize| n as f64 * (frames[(t + n).min(last)][i] - frames[t.saturating_sub(n)][i]);
        (1..=DELTA_WINDOW).map(rise).sum::<f64>() / spread
    };
    (0..frames.len()).flat_map(|t| (0..dim).map(move |i| (t, i))).map(slope).collect()
}

/// Subtracts from each frame the mean of all frames of its speaker (cepstral mean normalisation):
/// the microphone, the room and the level of the voice add a constant to every log-mel.
/// `speakers[i]` speaks `utterances[i]`.
///
/// # Panics
/// If there is not one speaker for each utterance, or utterances differ in `dim`.
pub fn subtract_speaker_means(utterances: &mut [FeatureMatrix], speakers: &[&str]) {
    assert_eq!(utterances.len(), speakers.len(), "utterances and speakers");
    let mut of_speaker: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, speaker) in speakers.iter().enumerate() {
        of_speaker.entry(speaker).or_default().push(i);
    }
    for indices in of_speaker.values() {
        let Some(Moments { mean, .. }) = Moments::of(indices.iter().map(|&i| &utterances[i]))
        else {
            continue;
        };
        for &i in indices {
            for frame in utterances[i].values.chunks_exact_mut(mean.len()) {
                for (x, mean) in frame.iter_mut().zip(&mean) {
                    *x = (f64::from(*x) - mean) as f32;
                }
            }
        }
    }
}

/// The normalisation x ↦ (x − μ)/σ of each feature, with μ and σ of the training frames.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalisation {
    /// `[dim]`: μ.
    pub mean: Vec<f64>,
    /// `[dim]`: σ = √(mean of (x − μ)²); 1 where all values are equal.
    pub sd: Vec<f64>,
}

impl Normalisation {
    /// That which gives all frames of `train` mean 0 and variance 1; absent without frames.
    ///
    /// # Panics
    /// If utterances differ in `dim`.
    pub fn of(train: &[FeatureMatrix]) -> Option<Normalisation> {
        let Moments { mean, variance } = Moments::of(train.iter())?;
        let sd = variance.iter().map(|&v| if v > 0.0 { v.sqrt() } else { 1.0 }).collect();
        Some(Normalisation { mean, sd })
    }

    /// Normalises the frames of utterances in place.
    ///
    /// # Panics
    /// If their `dim` is not that of the training frames.
    pub fn apply(&self, utterances: &mut [FeatureMatrix]) {
        for FeatureMatrix { dim, values } in utterances {
            assert_eq!(*dim, self.mean.len(), "features of a frame");
            for frame in values.chunks_exact_mut(*dim) {
                for ((x, mean), sd) in frame.iter_mut().zip(&self.mean).zip(&self.sd) {
                    *x = ((f64::from(*x) - mean) / sd) as f32;
                }
            }
        }
    }
}

struct Moments {
    mean: Vec<f64>,
    variance: Vec<f64>,
}

impl Moments {
    /// Mean, and mean square around it, of each feature over all frames; in two passes.
    fn of<'f>(utterances: impl Iterator<Item = &'f FeatureMatrix> + Clone) -> Option<Moments> {
        let dim = utterances.clone().next()?.dim;
        let mean_of = |term: &dyn Fn(usize, f64) -> f64| -> Option<Vec<f64>> {
            let (mut sums, mut count) = (vec![0.0; dim], 0);
            for utterance in utterances.clone() {
                assert_eq!(utterance.dim, dim, "features of a frame");
                count += utterance.frames();
                for frame in utterance.values.chunks_exact(dim) {
                    for (i, (sum, &x)) in sums.iter_mut().zip(frame).enumerate() {
                        *sum += term(i, f64::from(x));
                    }
                }
            }
            (count > 0).then(|| sums.iter().map(|sum| sum / count as f64).collect())
        };
        let mean = mean_of(&|_, x| x)?;
        let variance = mean_of(&|i, x| (x - mean[i]).powi(2))?;
        Some(Moments { mean, variance })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warp_bends_to_the_highest_frequency() {
        // On the line through 0, where it bends, half of the way from there to 8000 Hz, and there.
        for (factor, pairs) in [
            (0.9, [(1000.0, 900.0), (4800.0, 4320.0), (6400.0, 6160.0), (8000.0, 8000.0)]),
            (1.1, [(1000.0, 1100.0), (4363.63636, 4800.0), (6181.81818, 6400.0), (8000.0, 8000.0)]),
        ] {
            for (hz, expected) in pairs {
                assert!((warp(hz, factor) - expected).abs() < 1e-4, "{hz} Hz times {factor}");
            }
        }
    }

    #[test]
    fn filters_share_the_bins_between_the_first_and_the_last_peak() {
        let mut sums = [0.0; FFT / 2];
        for Filter { first, weights } in filters(1.0) {
            assert!(weights.iter().all(|&weight| weight > 0.0 && weight <= 1.0));
            sums[first..].iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
        }
        let step = (mel(8000.0) - mel(20.0)) / 41.0;
        for (k, sum) in sums.into_iter().enumerate() {
            let m = mel(k as f64 * 31.25);
            if (mel(20.0) + step..=mel(8000.0) - step).contains(&m) {
                assert!((sum - 1.0).abs() < 1e-12, "bin {k}: {sum}");
            }
        }
    }

    #[test]
    fn deltas_are_slopes() {
        // 2t in one column, t² in the other.
        let values: Vec<f64> = (0..9).flat_map(|t| [2.0 * t as f64, (t * t) as f64]).collect();
        let slopes = deltas(&values, 2);
        for t in 2..7 {
            assert_eq!(slopes[2 * t], 2.0);
            assert!((slopes[2 * t + 1] - 2.0 * t as f64).abs() < 1e-12);
        }
        // Frame 0: (1·(2 − 0) + 2·(4 − 0))/10; frame 1: (1·(4 − 0) + 2·(6 − 0))/10.
        assert_eq!((slopes[0], slopes[2]), (1.0, 1.6));
        assert_eq!((slopes[16], slopes[14]), (1.0, 1.6));
        assert_eq!(deltas(&[5.0], 1), [0.0]);
        assert!(deltas(&[], 1).is_empty());
    }
}
