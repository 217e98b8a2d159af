//! Gaussian mixtures with diagonal covariances, one for each HMM state.
//!
//! ```text
//! p(x | s) = Σ_m w_m · Π_d N(x_d; μ_md, σ²_md)
//! ```
//!
//! Shapes: T frames, D features a frame, S states, M components of a mixture. Estimation runs in
//! f64, scoring in f32. A state's mixture is estimated by one thread from its frames in order, so
//! that the number of threads cannot change a bit.

use limbeck_kernels::Pool;
use std::{array, f64::consts::PI};

/// Frames scored at once, so that the compiler can keep one in each lane of its vectors.
const BLOCK: usize = 16;

/// One number for each frame of a block.
type Lanes = [f32; BLOCK];

/// Up to a block of frames, `[D]` rows of lanes; lanes without a frame are 0.
fn transposed<'a>(frames: impl Iterator<Item = &'a [f32]>, block: &mut [Lanes]) {
    block.fill([0.0; BLOCK]);
    for (lane, frame) in frames.enumerate() {
        block.iter_mut().zip(frame).for_each(|(row, &x)| row[lane] = x);
    }
}

/// The mixture of one state.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    /// `[M]`, of sum 1.
    weights: Vec<f64>,
    /// [M, D].
    means: Vec<f64>,
    /// [M, D].
    variances: Vec<f64>,
    /// `[M]`: ln w_m − ½·Σ_d ln(2π·σ²_md).
    constants: Vec<f32>,
    /// [M, D]: (μ_md, 1/(2·σ²_md)).
    terms: Vec<(f32, f32)>,
}

impl Mixture {
    /// Weights `[M]`, means [M, D] and variances [M, D].
    ///
    /// # Panics
    /// If the lengths contradict each other.
    pub fn new(weights: Vec<f64>, means: Vec<f64>, variances: Vec<f64>) -> Self {
        assert_eq!(means.len(), variances.len(), "as many means as variances");
        assert_eq!(means.len() % weights.len(), 0, "means of {} components", weights.len());
        let dim = means.len() / weights.len();
        let constants = weights.iter().zip(variances.chunks_exact(dim)).map(|(&w, variances)| {
            let ln_volume: f64 = variances.iter().map(|v| libm::log(2.0 * PI * v)).sum();
            (libm::log(w) - 0.5 * ln_volume) as f32
        });
        let constants = constants.collect();
        let terms = means.iter().zip(&variances).map(|(&m, &v)| (m as f32, (0.5 / v) as f32));
        let terms = terms.collect();
        Self { weights, means, variances, constants, terms }
    }

    /// `[M]`, of sum 1.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// [M, D].
    pub fn means(&self) -> &[f64] {
        &self.means
    }

    /// [M, D].
    pub fn variances(&self) -> &[f64] {
        &self.variances
    }

    /// M.
    fn components(&self) -> usize {
        self.weights.len()
    }

    /// D.
    fn dim(&self) -> usize {
        self.means.len() / self.components()
    }

    /// ln p(x | s) of a block of frames; `joint` becomes `[M]` rows of ln(w_m·N(x; m)).
    fn score(&self, block: &[Lanes], joint: &mut Vec<Lanes>) -> Lanes {
        joint.clear();
        let mut max = [f32::NEG_INFINITY; BLOCK];
        for (&constant, terms) in self.constants.iter().zip(self.terms.chunks_exact(self.dim())) {
            let mut distance = [0.0; BLOCK];
            for (x, &(mean, half_precision)) in block.iter().zip(terms) {
                for (distance, x) in distance.iter_mut().zip(x) {
                    let d = x - mean;
                    *distance += d * d * half_precision;
                }
            }
            let scores = distance.map(|distance| constant - distance);
            max = array::from_fn(|lane| max[lane].max(scores[lane]));
            joint.push(scores);
        }
        if joint.len() == 1 {
            return max;
        }
        let mut sum = [0.0; BLOCK];
        for scores in joint {
            for lane in 0..BLOCK {
                let below = scores[lane] - max[lane];
                if below > NEGLIGIBLE {
                    sum[lane] += libm::expf(below);
                }
            }
        }
        array::from_fn(|lane| max[lane] + libm::logf(sum[lane]))
    }

    /// One step of the EM algorithm on a state's frames; returns their log-likelihood before it,
    /// Σ_t ln p(x_t | s). With γ_tm = w_m·N(x_t; m)/p(x_t | s) and n_m = Σ_t γ_tm,
    ///
    /// ```text
    /// w_m = n_m/T    μ_m = Σ_t γ_tm·x_t/n_m    σ²_m = max(Σ_t γ_tm·x_t²/n_m − μ_m², floor)
    /// ```
    ///
    /// Components with n_m < [`MIN_COUNT`] are dropped, but for the largest; a state with fewer
    /// frames than that keeps its mixture.
    fn update(&mut self, frames: &[&[f32]], floor: &[f64]) -> f64 {
        let (components, dim) = (self.components(), self.dim());
        let mut counts = vec![0.0; components];
        let mut sums = vec![0.0; components * dim];
        let mut squares = sums.clone();
        let (mut block, mut joint) = (vec![[0.0; BLOCK]; dim], Vec::new());
        let mut total = 0.0;
        for frames in frames.chunks(BLOCK) {
            transposed(frames.iter().copied(), &mut block);
            let scores = self.score(&block, &mut joint);
            for (lane, (frame, score)) in frames.iter().zip(scores).enumerate() {
                total += f64::from(score);
                for (m, joint) in joint.iter().enumerate() {
                    let share = f64::from(libm::expf(joint[lane] - score));
                    counts[m] += share;
                    let sums = sums[m * dim..][..dim].iter_mut();
                    for ((sum, square), &x) in sums.zip(&mut squares[m * dim..]).zip(*frame) {
                        let x = f64::from(x);
                        *sum += share * x;
                        *square += share * x * x;
                    }
                }
            }
        }
        if (frames.len() as f64) < MIN_COUNT {
            return total;
        }
        let least = counts.iter().copied().fold(0.0, f64::max).min(MIN_COUNT);
        let kept: Vec<usize> = (0..components).filter(|&m| counts[m] >= least).collect();
        let all: f64 = kept.iter().map(|&m| counts[m]).sum();
        let weights = kept.iter().map(|&m| counts[m] / all).collect();
        let (mut means, mut variances) = (Vec::new(), Vec::new());
        for m in kept {
            for d in 0..dim {
                let mean = sums[m * dim + d] / counts[m];
                means.push(mean);
                variances.push((squares[m * dim + d] / counts[m] - mean * mean).max(floor[d]));
            }
        }
        *self = Self::new(weights, means, variances);
        total
    }

    /// The mixture with one component more: in place of that of the largest weight two of half its
    /// weight, [`SPLIT`]·σ to either side of its mean.
    fn split(&self) -> Self {
        let dim = self.dim();
        let largest = (0..self.components())
            .fold(0, |a, b| if self.weights[b] > self.weights[a] { b } else { a });
        let (mut weights, mut means, mut variances) =
            (self.weights.clone(), self.means.clone(), self.variances.clone());
        weights[largest] *= 0.5;
        weights.push(weights[largest]);
        let range = largest * dim..(largest + 1) * dim;
        variances.extend_from_within(range.clone());
        means.extend_from_within(range.clone());
        let (old, new) = means.split_at_mut(self.means.len());
        for ((low, high), variance) in
            old[range.clone()].iter_mut().zip(new).zip(&self.variances[range])
        {
            let step = SPLIT * variance.sqrt();
            *low -= step;
            *high += step;
        }
        Self::new(weights, means, variances)
    }
}

/// ln of a share of the largest component below which another is not added: in f32 it would change
/// a sum of 1 or more by less than half a rounding.
const NEGLIGIBLE: f32 = -17.5;

/// Features that a component needs.
const MIN_COUNT: f64 = 10.0;

/// How far a split moves the means, in standard deviations.
const SPLIT: f64 = 0.2;

/// The least variance, as a share of that of all frames.
const VARIANCE_FLOOR: f64 = 0.01;

/// A state gets components in proportion to this power of its frames: rare ones several, too.
const GROWTH: f64 = 0.25;

/// A mixture for each state.
#[derive(Clone, Debug, PartialEq)]
pub struct Gmm {
    mixtures: Vec<Mixture>,
    /// `[D]`: the least variances.
    floor: Vec<f64>,
}

impl Gmm {
    /// One Gaussian a state, all with the mean and the variance of all `features`, each [T, D].
    ///
    /// # Panics
    /// If there is no frame.
    pub fn flat<'a>(
        states: usize,
        dim: usize,
        features: impl IntoIterator<Item = &'a [f32]>,
    ) -> Self {
        let (mut frames, mut sums, mut squares) = (0.0, vec![0.0; dim], vec![0.0; dim]);
        for frame in features.into_iter().flat_map(|features| features.chunks_exact(dim)) {
            frames += 1.0;
            for ((sum, square), &x) in sums.iter_mut().zip(&mut squares).zip(frame) {
                *sum += f64::from(x);
                *square += f64::from(x) * f64::from(x);
            }
        }
        assert!(frames > 0.0, "a flat start without frames");
        let means: Vec<f64> = sums.iter().map(|sum| sum / frames).collect();
        // A feature that never varies has the variance of rounding, not 0.
        let variance = |(square, mean): (&f64, &f64)| {
            (square / frames - mean * mean).max(f64::from(f32::EPSILON))
        };
        let variances: Vec<f64> = squares.iter().zip(&means).map(variance).collect();
        let floor = variances.iter().map(|v| v * VARIANCE_FLOOR).collect();
        Self { mixtures: vec![Mixture::new(vec![1.0], means, variances); states], floor }
    }

    /// The states' mixtures.
    pub fn mixtures(&self) -> &[Mixture] {
        &self.mixtures
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.floor.len()
    }

    /// Components of all states.
    pub fn gaussians(&self) -> usize {
        self.mixtures.iter().map(Mixture::components).sum()
    }

    /// ln p(x_t | s) of every frame and state: `features` [T, D] to `out` [T, S], summed in f32.
    ///
    /// # Panics
    /// If `out` has another number of frames.
    pub fn log_likelihoods(&self, features: &[f32], out: &mut [f32]) {
        self.log_likelihoods_of(0..self.mixtures.len(), features, out);
    }

    /// [`Gmm::log_likelihoods`] of some `states` only; the others' places in `out` stay.
    pub(crate) fn log_likelihoods_of(
        &self,
        states: impl Iterator<Item = usize> + Clone,
        features: &[f32],
        out: &mut [f32],
    ) {
        let (dim, width) = (self.dim(), self.mixtures.len());
        assert_eq!(features.len() / dim, out.len() / width, "frames of features and of scores");
        let (mut block, mut joint) = (vec![[0.0; BLOCK]; dim], Vec::new());
        for (features, out) in features.chunks(BLOCK * dim).zip(out.chunks_mut(BLOCK * width)) {
            transposed(features.chunks_exact(dim), &mut block);
            for state in states.clone() {
                let scores = self.mixtures[state].score(&block, &mut joint);
                for (out, score) in out.chunks_exact_mut(width).zip(scores) {
                    out[state] = score;
                }
            }
        }
    }

    /// One step of the EM algorithm in each state on the frames aligned to it; returns the
    /// log-likelihood of all of them before the step.
    ///
    /// # Panics
    /// If `frames` is not one list a state.
    pub fn update(&mut self, pool: &Pool, frames: &[Vec<&[f32]>]) -> f64 {
        assert_eq!(frames.len(), self.mixtures.len(), "states with frames");
        let updated = pool.map(frames.len(), |state| {
            let mut mixture = self.mixtures[state].clone();
            let total = mixture.update(&frames[state], &self.floor);
            (mixture, total)
        });
        let totals;
        (self.mixtures, totals) = updated.into_iter().collect::<(_, Vec<f64>)>();
        totals.iter().sum()
    }

    /// Splits components until there are `total`: each time in the state with the most
    /// frames^¼ a component of those that can afford one more.
    pub fn grow(&mut self, total: usize, frames: &[usize]) {
        for _ in self.gaussians()..total {
            let claim = |state: usize| {
                let components = self.mixtures[state].components() as f64;
                libm::pow(frames[state] as f64, GROWTH) / components
            };
            let affords = |&state: &usize| {
                frames[state] as f64
                    >= 2.0 * MIN_COUNT * (self.mixtures[state].components() + 1) as f64
            };
            let best = (0..frames.len())
                .filter(affords)
                .reduce(|a, b| if claim(b) > claim(a) { b } else { a });
            let Some(state) = best else { return };
            self.mixtures[state] = self.mixtures[state].split();
        }
    }
}
