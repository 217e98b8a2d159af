//! Specialists: nets for the classes that a generalist confuses (paper, section 5).
//!
//! 1. *Class sets.* [`covariance`] of the generalist's predictions, and [`confusable_sets`] by
//!    online k-means on its columns: classes that are predicted together.
//! 2. *A specialist* tells the classes of its set S apart and has one more class, the *dustbin*,
//!    for all others. It starts from the generalist ([`initial`]) and learns from as many examples
//!    of S as of the rest ([`training_set`]); its dustbin's logit is then raised ([`raise_dustbin`]).
//! 3. *Inference.* [`combine`] finds, for each example, the distribution over all classes that is
//!    nearest to what the generalist and the specialists of its favourite class say.
//!
//! Shapes: logits `[n, C]` row-major; a set is a list of its classes, ascending; a specialist's
//! classes are those of its set in that order, then the dustbin. Everything here is f64 in a fixed
//! order, with `libm` for exp and ln: the same bits everywhere.

use crate::engine::{metrics::predict, mlp::Mlp};
use limbeck_datasets::{Dataset, Names, Split};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Passes of [`confusable_sets`] over the columns, at most.
const PASSES: usize = 100;
/// Beginnings of which [`confusable_sets`] takes the best.
const BEGINNINGS: u64 = 10;

/// [`combine`] ends where no component of ∂E/∂z exceeds this, in units of probability.
pub const TOLERANCE: f64 = 1e-10;

/// The covariance matrix `[C, C]` of the predictions p = softmax(z) over n examples,
/// Σ = (1/n) Σᵢ (pᵢ − p̄)(pᵢ − p̄)ᵀ.
///
/// # Panics
/// If there is no example, or the logits are not [n, `classes`].
pub fn covariance(logits: &[f32], classes: usize) -> Vec<f64> {
    let n = logits.len() / classes;
    assert!(n > 0 && logits.len() == n * classes, "logits [n, {classes}]");
    let mut probs: Vec<f64> = logits.chunks_exact(classes).flat_map(softmax).collect();
    let mut mean = vec![0.0; classes];
    for p in probs.chunks_exact(classes) {
        mean.iter_mut().zip(p).for_each(|(mean, p)| *mean += p / n as f64);
    }
    let mut sum = vec![0.0; classes * classes];
    for p in probs.chunks_exact_mut(classes) {
        p.iter_mut().zip(&mean).for_each(|(p, mean)| *p -= mean);
        for (row, &a) in sum.chunks_exact_mut(classes).zip(&*p) {
            row.iter_mut().zip(&*p).for_each(|(sum, &b)| *sum += a * b);
        }
    }
    sum.iter_mut().for_each(|sum| *sum /= n as f64);
    sum
}

/// `count` sets of `size` classes that are predicted together: each the columns of the
/// `[C, C]` covariance matrix that point most nearly the way of one of the centres of online k-means.
///
/// Columns are compared by their directions, cos(x, c) = x·c/(|x|·|c|), which the paper does not
/// mention. By their distances the columns of the least variance would be nearest to every centre,
/// and all sets alike. Scaled to length 1, as they are here, the mean of columns that have nothing in
/// common is short and so nearer to every column (at 1) than another column is (at √2): one cluster
/// would take most classes, and the other centres would stay with the one class that they began at.
///
/// Online k-means (MacQueen 1967, by directions as Zhong 2005): one column after the other, in the
/// order of the classes, goes to the centre c of the largest cosine, which becomes c + x; passes are
/// repeated until one changes no column's centre, at most 100. The centres begin as k-means++ has it
/// (Arthur & Vassilvitskii 2007): each at a column drawn in proportion to its squared distance
/// 2 − 2·cos from the nearest centre so far. Of 10 beginnings, from fixed seeds, the one is taken
/// whose columns are nearest to their centres in the end, by the sum of their cosines. Ties go to
/// the lowest class, centre or seed.
///
/// The paper does not say how k-means gave sets of 300; its table 4 shows that they overlap and do
/// not cover every class, as do the nearest columns.
///
/// # Panics
/// If the matrix is not `classes` × `classes`, or `count` or `size` exceeds the classes.
pub fn confusable_sets(
    covariance: &[f64],
    classes: usize,
    count: usize,
    size: usize,
) -> Vec<Vec<usize>> {
    assert_eq!(covariance.len(), classes * classes, "a matrix of {classes} × {classes}");
    assert!(count <= classes && size <= classes, "{count} sets of {size} of {classes} classes");
    // Σ is symmetric: its rows are its columns. A class that is never predicted keeps zeros.
    let columns: Vec<Vec<f64>> = covariance.chunks_exact(classes).map(unit).collect();
    let nearest = |centre: Vec<f64>| {
        let cosine: Vec<f64> = columns.iter().map(|column| dot(column, &centre)).collect();
        let mut order: Vec<usize> = (0..classes).collect();
        // Stable: of equally near classes the lower ones are taken.
        order.sort_by(|&a, &b| cosine[b].total_cmp(&cosine[a]));
        order.truncate(size);
        order.sort_unstable();
        order
    };
    let beginnings = (0..BEGINNINGS).map(|seed| online_kmeans(&columns, count, seed));
    let best = beginnings.reduce(|a, b| if b.nearness > a.nearness { b } else { a });
    best.into_iter().flat_map(|clusters| clusters.centres).map(nearest).collect()
}

/// Where online k-means ended.
struct Clusters {
    /// Of length 1.
    centres: Vec<Vec<f64>>,
    /// Σ cos(x, c) over all columns x and their centres c.
    nearness: f64,
}

/// `k` clusters of the columns, from the beginning of `seed`; see [`confusable_sets`].
fn online_kmeans(columns: &[Vec<f64>], k: usize, seed: u64) -> Clusters {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sums: Vec<Vec<f64>> = Vec::new();
    // Of the first centre every column is as likely as another: 4 is the largest distance².
    let mut distance2 = vec![4.0; columns.len()];
    while sums.len() < k {
        // 53 bits are what a f64 in [0, 1) has.
        let uniform = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = uniform * distance2.iter().sum::<f64>();
        let drawn = distance2.iter().position(|d| {
            left -= d;
            left < 0.0
        });
        // Where all columns are centres already, the first is one again.
        let drawn = &columns[drawn.unwrap_or(0)];
        for (d, column) in distance2.iter_mut().zip(columns) {
            *d = d.min((2.0 - 2.0 * dot(column, drawn)).max(0.0));
        }
        sums.push(drawn.clone());
    }
    let mut centres = sums.clone();
    let mut assigned = vec![(usize::MAX, 0.0); columns.len()];
    for _ in 0..PASSES {
        let before = assigned.clone();
        for (column, assigned) in columns.iter().zip(&mut assigned) {
            let cosines = centres.iter().enumerate().map(|(c, at)| (c, dot(column, at)));
            let Some(nearest) = cosines.reduce(|a, b| if b.1 > a.1 { b } else { a }) else {
                continue;
            };
            *assigned = nearest;
            let c = nearest.0;
            sums[c].iter_mut().zip(column).for_each(|(sum, x)| *sum += x);
            centres[c] = unit(&sums[c]);
        }
        if assigned.iter().zip(&before).all(|(now, before)| now.0 == before.0) {
            break;
        }
    }
    Clusters { centres, nearness: assigned.iter().map(|&(_, cosine)| cosine).sum() }
}

/// The vector scaled to length 1; zeros stay zeros.
fn unit(vector: &[f64]) -> Vec<f64> {
    let length = dot(vector, vector).sqrt().max(f64::MIN_POSITIVE);
    vector.iter().map(|x| x / length).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The same examples with a specialist's labels: the place in `set`, or the dustbin,
/// `set.len()`.
///
/// # Panics
/// If the split has no labels.
pub fn relabelled(split: &Split, set: &[usize]) -> Split {
    let labels = split.labels.as_ref().expect("labels to translate");
    let place = |&label: &u16| set.binary_search(&label.into()).unwrap_or(set.len()) as u16;
    Split { labels: Some(labels.iter().map(place).collect()), ..split.clone() }
}

/// What a specialist for `set` learns from, with its labels: half examples of its classes, half
/// of all others. Both lists are taken whole and the shorter one is repeated to the length of the
/// longer, so that one epoch shows all of the data.
///
/// # Panics
/// If the split has no labels, or no example in `set` or none outside it.
pub fn training_set(split: &Split, set: &[usize]) -> Split {
    let split = relabelled(split, set);
    let labels = split.labels.iter().flatten();
    let (special, rest): (Vec<_>, Vec<_>) =
        (0u32..).zip(labels).partition(|&(_, &label)| usize::from(label) < set.len());
    assert!(!special.is_empty() && !rest.is_empty(), "examples in the set and outside it");
    let half = special.len().max(rest.len());
    let repeated = |list: &[(u32, &u16)]| -> Vec<u32> {
        list.iter().map(|&(i, _)| i).cycle().take(half).collect()
    };
    split.subset(&[repeated(&special), repeated(&rest)].concat())
}

/// What a specialist for `set` is trained and tested on: its [`training_set`] of `train`, and all
/// of the test set with its labels.
///
/// # Panics
/// As [`training_set`].
pub fn dataset(train: &Split, all: &Dataset, set: &[usize]) -> Dataset {
    Dataset {
        name: all.name.clone(),
        classes: set.len() + 1,
        names: Names::default(),
        notes: Vec::new(),
        train: training_set(train, set),
        test: relabelled(&all.test, set),
        sha256: all.sha256.clone(),
    }
}

/// A specialist for `set` before its training: the generalist, whose last layer keeps the units
/// of the set. The dustbin's logit begins as ln(C − |S|) plus the mean of the logits outside S,
/// which is the nearest that a linear unit comes from below to their ln Σ exp (Jensen).
///
/// # Panics
/// If the set names a class that the generalist lacks, or all that it has.
pub fn initial(generalist: &Mlp, set: &[usize]) -> Mlp {
    let classes = generalist.classes();
    let outside: Vec<usize> = (0..classes).filter(|c| set.binary_search(c).is_err()).collect();
    assert!(!outside.is_empty(), "a set of all {classes} classes leaves none for the dustbin");
    let mut file = generalist.to_file();
    let layer = file.layers.last_mut().expect("a net has layers");
    let (inputs, weight, bias) = (layer.inputs, &layer.weight, &layer.bias);
    let n = outside.len() as f64;
    let mean = |of: &dyn Fn(usize) -> f32| -> f64 {
        outside.iter().map(|&c| f64::from(of(c))).sum::<f64>() / n
    };
    let row = |c: usize| &weight[c * inputs..][..inputs];
    let mut weights: Vec<f32> = set.iter().flat_map(|&c| row(c)).copied().collect();
    weights.extend((0..inputs).map(|i| mean(&|c| row(c)[i]) as f32));
    let mut biases: Vec<f32> = set.iter().map(|&c| bias[c]).collect();
    biases.push((mean(&|c| bias[c]) + libm::log(n)) as f32);
    (layer.outputs, layer.weight, layer.bias) = (set.len() + 1, weights, biases);
    Mlp::from_file(&file)
}

/// By how much training on a [`training_set`] makes a specialist's dustbin too small, as a
/// logarithm: ln(n_rest/n_special) of the examples of `split` outside `set` and inside it.
///
/// A net that fits its training set says p′(y | x) ∝ p(x | y)·π′(y), with the classes' shares π′
/// in that set: the n_special examples of S and the n_rest others each make up half of it,
/// whereas of the data they are n_special/n and n_rest/n. Bayes' rule with the shares π of the
/// data gives p(y | x) ∝ p′(y | x)·π(y)/π′(y), where π/π′ is 2·n_special/n in S and 2·n_rest/n
/// for the dustbin. Softmax ignores what all classes share; what is left is the factor
/// n_rest/n_special of the dustbin, or this logarithm on its logit: the log of the proportion by
/// which the special classes were oversampled.
///
/// # Panics
/// If the split has no labels.
pub fn dustbin_raise(split: &Split, set: &[usize]) -> f64 {
    let labels = split.labels.as_ref().expect("labels to count");
    let special = labels.iter().filter(|&&label| set.binary_search(&label.into()).is_ok()).count();
    libm::log((labels.len() - special) as f64 / special as f64)
}

/// Adds `raise` to the logit of the last class, the dustbin.
pub fn raise_dustbin(specialist: &mut Mlp, raise: f64) {
    let dustbin = specialist.classes() - 1;
    let bias = specialist.layers().last().expect("a net has layers").bias.start;
    specialist.params_mut()[bias + dustbin] += raise as f32;
}

/// softmax(z) of one row.
pub fn softmax(row: &[f32]) -> Vec<f64> {
    let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let mut probs: Vec<f64> = row.iter().map(|&z| libm::exp(f64::from(z) - max)).collect();
    let sum: f64 = probs.iter().sum();
    probs.iter_mut().for_each(|p| *p /= sum);
    probs
}

/// What one specialist says of an example.
pub struct Opinion<'a> {
    /// S, ascending.
    pub set: &'a [usize],
    /// Probability of each class of S, then of the dustbin.
    pub probs: &'a [f64],
}

impl Opinion<'_> {
    /// The specialist's word on every class: its probability in S; outside, the dustbin's, shared
    /// out as `q` shares its own.
    fn spread_over(&self, q: &[f64], mut add: impl FnMut(usize, f64)) {
        let mut set = self.set.iter().peekable();
        let mut outside = |class: &usize| set.next_if_eq(&class).is_none();
        let rest: Vec<usize> = (0..q.len()).filter(|class| outside(class)).collect();
        let (dustbin, special) = self.probs.split_last().expect("a dustbin");
        self.set.iter().zip(special).for_each(|(&class, &p)| add(class, p));
        let total: f64 = rest.iter().map(|&class| q[class]).sum();
        rest.into_iter().for_each(|class| add(class, dustbin * q[class] / total));
    }
}

/// τ = (p_g + Σ_m t_m)/(1 + M), where t_m is specialist m's probability for a class of S_m and
/// p_m(dustbin)·q_c/Q_m for a class c outside, Q_m = Σ_{c ∉ S_m} q_c: the gradient of
/// [`combine`]'s objective is ∂E/∂z = (1 + M)·(q − τ).
pub fn target(q: &[f64], generalist: &[f64], opinions: &[Opinion]) -> Vec<f64> {
    let mut target = generalist.to_vec();
    for opinion in opinions {
        opinion.spread_over(q, |class, p| target[class] += p);
    }
    let voices = 1.0 + opinions.len() as f64;
    target.iter_mut().for_each(|t| *t /= voices);
    target
}

/// The logits z whose q = softmax(z) minimises
///
/// ```text
/// E(z) = KL(p_g ‖ q) + Σ_m KL(p_m ‖ q_m)
/// ```
///
/// over the M specialists of this example (paper, equation 5); q_m are the probabilities of S_m
/// under q and, for the dustbin, the sum Q_m of all others. With
/// ∂ ln q_c/∂z_j = [c = j] − q_j and ∂ ln Q_m/∂z_j = [j ∉ S_m]·q_j/Q_m − q_j, and Σ p = 1,
/// ∂E/∂z_j = (1 + M)·q_j − p_g(j) − Σ_m t_m(j) = (1 + M)·(q_j − τ_j); see [`target`].
///
/// Gradient descent from z = ln p_g. A class's curvature is in proportion to its q_j, so that with
/// one learning rate a class of probability q takes some 1/q steps. Each coordinate therefore has
/// its own, 1/((1 + M)·L(q_j, τ_j)) with the logarithmic mean L(a, b) = (a − b)/(ln a − ln b) > 0:
///
/// ```text
/// z_j ← z_j − (1/((1 + M)·L(q_j, τ_j))) · ∂E/∂z_j = z_j − ln q_j + ln τ_j
/// ```
///
/// and as Σ τ = 1, simply q ← τ. That is the EM algorithm for the classes which the dustbins
/// hide: no step raises E, and near the minimum a step leaves of the error the share that is
/// hidden, at most M/(1 + M). In q, E is convex and has one minimum, so the start does not matter.
/// The last step is the one from where every |∂E/∂z_j| ≤ [`TOLERANCE`].
///
/// Without specialists z = ln p_g; a specialist for all classes (whose dustbin has probability 0)
/// gives the mean of both distributions. A probability of 0 counts as the smallest positive
/// number.
pub fn combine(generalist: &[f64], opinions: &[Opinion]) -> Vec<f64> {
    let voices = 1.0 + opinions.len() as f64;
    let mut q: Vec<f64> = generalist.iter().map(|p| p.max(f64::MIN_POSITIVE)).collect();
    loop {
        let next = target(&q, generalist, opinions);
        let slope = q.iter().zip(&next).map(|(q, t)| voices * (q - t).abs()).fold(0.0, f64::max);
        q = next;
        if slope <= TOLERANCE {
            return q.iter().map(|&q| libm::log(q.max(f64::MIN_POSITIVE))).collect();
        }
    }
}

/// A trained specialist's say on a split.
pub struct Answers {
    /// S, ascending.
    pub set: Vec<usize>,
    /// Its logits `[n, |S| + 1]`, the dustbin raised.
    pub logits: Vec<f32>,
}

/// [`combine`] for each example of a split: the generalist's logits `[n, C]`, and the answers of
/// those specialists whose set has the generalist's most probable class (the paper's n = 1).
/// Returns z `[n, C]`; where no specialist is active, or a logit is not finite, the generalist's.
pub fn combine_all(generalist: &[f32], classes: usize, specialists: &[Answers]) -> Vec<f32> {
    let mut combined = generalist.to_vec();
    for (i, row) in combined.chunks_exact_mut(classes).enumerate() {
        let Some(favourite) = predict(row) else { continue };
        let active = specialists.iter().filter(|s| s.set.binary_search(&favourite).is_ok());
        let said: Vec<(&[usize], &[f32])> = active
            .map(|Answers { set, logits }| {
                let width = set.len() + 1;
                (&set[..], &logits[i * width..][..width])
            })
            .collect();
        if said.is_empty() || said.iter().any(|(_, logits)| predict(logits).is_none()) {
            continue;
        }
        let probs: Vec<Vec<f64>> = said.iter().map(|(_, logits)| softmax(logits)).collect();
        let opinions = said.iter().zip(&probs).map(|(&(set, _), probs)| Opinion { set, probs });
        let z = combine(&softmax(row), &opinions.collect::<Vec<_>>());
        row.iter_mut().zip(z).for_each(|(row, z)| *row = z as f32);
    }
    combined
}
