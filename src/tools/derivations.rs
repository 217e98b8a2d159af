//! Where every formula comes from, and the errors about them that are in circulation.
//!
//! A chapter to read; it holds no code but examples, which run with the tests. z are the student's
//! logits, v the teacher's, y the label, C the number of classes, B the batch. In the paper
//! (arXiv 1503.02531) this is section 2.
//!
//! # 1. Softmax and its derivative
//!
//! qᵢ = exp(zᵢ/T) / Σⱼ exp(zⱼ/T). Adding a constant to all logits multiplies numerator and
//! denominator by the same factor, so q depends on differences of logits alone; with m = max z,
//! exp((zᵢ − m)/T) is at most 1, does not overflow, and gives the same q. Taking the logarithm,
//!
//! ln qᵢ = (zᵢ − m)/T − ln S, S = Σⱼ exp((zⱼ − m)/T),
//!
//! whose derivative is ∂ ln qᵢ/∂zₖ = (1/T)(δᵢₖ − qₖ), from zᵢ/T and from ln S.
//!
//! # 2. The hard term
//!
//! CE(y, q) = −ln q_y at T = 1, so ∂CE/∂zₖ = qₖ − δ_yₖ: softmax less the one-hot label. The
//! components sum to 0, as they must: along a common shift of all logits nothing changes.
//!
//! # 3. The soft term: T² in the loss, T in the gradient
//!
//! With p = softmax(v/T) and Σ p = 1,
//!
//! ∂/∂zₖ CE(p, q) = −Σᵢ pᵢ·(1/T)(δᵢₖ − qₖ) = (qₖ − pₖ)/T.
//!
//! One 1/T stands there. Another is in q − p itself, which shrinks as 1/T because both tend to the
//! uniform distribution (4.). The gradient therefore falls as 1/T², and a soft term of
//! soft_weight · T² · CE(p, q) keeps its size beside the hard term when T changes. Its gradient is
//!
//! soft_weight · T² · (q − p)/T = soft_weight · **T** · (q − p).
//!
//! ```
//! use limbeck_kernels::reference::{Distillation, softmax};
//! let (z, v, t) = ([1.0, -2.0, 0.5], [3.0, 0.0, -1.0], 4.0);
//! let loss = Distillation {
//!     teacher: Some(&v), label: None, temperature: t, soft_weight: 1.0, hard_weight: 0.0,
//! };
//! // The slope of the loss by finite differences, and T·(q − p).
//! let h = 1e-5;
//! let slope = (loss.loss(&[1.0 + h, -2.0, 0.5]) - loss.loss(&[1.0 - h, -2.0, 0.5])) / (2.0 * h);
//! let difference = softmax(&z, t)[0] - softmax(&v, t)[0];
//! assert!((slope - t * difference).abs() < 1e-8);
//! assert!((slope - t * t * difference).abs() > 0.1, "T² belongs to the loss");
//! ```
//!
//! CE(p, q) = H(p) + KL(p ‖ q), and H(p) does not depend on z: cross-entropy and divergence have the
//! same gradient. KL is 0 for a student that equals its teacher, CE is H(p). At high T the constant
//! T²·H(p) ≈ T²·ln C hides the rest in the last digits, see
//! [`Distillation::divergence`](limbeck_kernels::reference::Distillation::divergence).
//!
//! # 4. The limit of high temperatures
//!
//! For |z| ≪ T, exp(zᵢ/T) = 1 + zᵢ/T + O(1/T²), and with means z̄, v̄ over the classes
//!
//! qᵢ = (1 + zᵢ/T)/(C + Σⱼ zⱼ/T) + O(1/T²) = 1/C + (zᵢ − z̄)/(C·T) + O(1/T²),
//!
//! because 1/(C + C·z̄/T) = (1/C)(1 − z̄/T) + O(1/T²). So
//!
//! T·(qᵢ − pᵢ) → ((zᵢ − z̄) − (vᵢ − v̄))/C, with an error of O(1/T).
//!
//! The paper writes (zᵢ − vᵢ)/(N·T²) for the gradient without T², *assuming* logits of mean zero.
//! Without that assumption the limit is the centred difference, since softmax cannot see a mean.
//! The limit is the gradient of ½·Σ((zᵢ − z̄) − (vᵢ − v̄))²/C: the sum over k of the inner derivative
//! δᵢₖ − 1/C takes the mean of a difference that has mean 0. This is the soft loss at `temperature =
//! inf`, the matching of logits.
//!
//! ```
//! use limbeck_kernels::reference::{Distillation, centred_difference};
//! let (z, v) = ([2.0, -1.0, 0.5, 3.0], [1.0, 0.0, -2.0, 2.5]);
//! let at = |temperature: f64| Distillation {
//!     teacher: Some(&v), label: None, temperature, soft_weight: 1.0, hard_weight: 0.0,
//! };
//! let limit: Vec<f64> = centred_difference(&z, &v).iter().map(|d| d / 4.0).collect();
//! assert_eq!(at(f64::INFINITY).gradient(&z), limit);
//! let off = |t: f64| (at(t).gradient(&z)[0] - limit[0]).abs();
//! assert!((off(200.0) / off(100.0) - 0.5).abs() < 0.02, "half the error at twice T");
//! assert!((at(1e6).loss(&z) - at(1e6).entropy() * 1e12 - at(f64::INFINITY).loss(&z)).abs() < 0.01);
//! ```
//!
//! # 5. Soft targets of other origins
//!
//! An ensemble's p is the mean of its members' p; logits that have it are v = T·ln p, since
//! softmax(v/T) = p/Σp ([`crate::engine::distill`]). As T → ∞ they tend to the mean of the members' logits,
//! up to a constant. Label smoothing, p = (1 − ε)·y + ε/C, is a soft term at T = 1 with the logits
//! ln p:
//!
//! ```
//! use limbeck_kernels::reference::Distillation;
//! let (z, label, epsilon) = ([1.0, -2.0, 0.5], 2, 0.1);
//! let target = |class: usize| {
//!     (1.0 - epsilon) * if class == label { 1.0 } else { 0.0 } + epsilon / 3.0
//! };
//! let v: Vec<f64> = (0..3).map(|class| f64::ln(target(class))).collect();
//! let (soft_weight, hard_weight) = (1.0, 1.0);
//! let task = |teacher, label| Distillation {
//!     teacher, label, temperature: 1.0, soft_weight, hard_weight,
//! };
//! // (1 − ε)·CE(y, q) + ε·(the mean of −ln q over the classes)
//! let ce = |class| task(None, Some(class)).loss(&z);
//! let smoothed = (1.0 - epsilon) * ce(label) + epsilon * (ce(0) + ce(1) + ce(2)) / 3.0;
//! assert!((task(Some(&v), None).loss(&z) - smoothed).abs() < 1e-15);
//! ```
//!
//! # 6. Backpropagation
//!
//! A layer is Z = Y·W + b with an example a row, and L a function of Z with gradient dZ. From
//! Zₑₒ = Σᵢ Yₑᵢ·Wᵢₒ + bₒ and the chain rule,
//!
//! dWᵢₒ = Σₑ Yₑᵢ·dZₑₒ, so dW = Yᵀ·dZ; dbₒ = Σₑ dZₑₒ; dYₑᵢ = Σₒ dZₑₒ·Wᵢₒ, so dY = dZ·Wᵀ.
//!
//! Y = M ⊙ relu(Z′) with dropout's factors M, 0 or 1/(1 − rate): dZ′ = dY ⊙ M where Z′ > 0, else 0.
//! Y > 0 says both that Z′ > 0 and that M is not 0, so that Y alone and the factor suffice. The mean
//! of M is 1, so evaluation needs none of it. ([`crate::engine::reference::Net::backward`]; the engine keeps
//! the transposes, [`crate::engine::mlp`].)
//!
//! # 7. The optimiser
//!
//! - Momentum, v ← m·v + g, w ← w − η·v: unrolled, a gradient takes part in all later steps with
//!   η·(1 + m + m² + …), η/(1 − m) in total.
//! - Nesterov takes the gradient g at the point w = θ + m·u to which momentum alone would lead:
//!   u′ = m·u − η·g, θ′ = θ + u′. Stored is w. Its next value is θ′ + m·u′ = w − m·u + (1 + m)·u′,
//!   which with v = −u/η, v′ = m·v + g, is w − η·((1 + m)·v′ − m·v) = w − η·(g + m·v′): no look-ahead
//!   is left to compute.
//! - Hinton et al. 2012 weigh the gradient with 1 − m: v ← m·v − (1 − m)·η·g, w ← w + v. That is
//!   momentum with a rate of (1 − m)·η as long as m is constant.
//! - Weight decay λ adds λ·w to g, the gradient of λ/2·‖w‖²; biases are left alone.
//! - Max-norm projects a hidden unit's incoming weights on the ball ‖w‖ ≤ c. The nearest point of
//!   the ball lies on the ray to w: w·c/‖w‖.
//! - Adam divides a mean of gradients by the root of a mean of their squares; both means start at
//!   zero and hold only 1 − βᵗ of their weight after t steps, by which they are divided.
//!
//! # 8. Errors in circulation
//!
//! [`crate::tools::check`] recognises those that a loss or a gradient shows.
//!
//! **The maximum subtracted after the exponential.** It overflows in f32 above z/T ≈ 88.7, and it
//! is not a shift of the logits but of the powers: the most probable class gets probability 0.
//!
//! ```
//! let z = [2.0f32, 1.0, 0.0];
//! let powers = z.map(f32::exp);
//! let less = powers.map(|e| e - powers[0]);
//! let wrong = less.map(|e| e / less.iter().sum::<f32>());
//! assert_eq!(wrong[0], 0.0);
//! assert!(89.0f32.exp().is_infinite());
//! ```
//!
//! **T² missing, or T in its place.** The soft term then fades as T grows (3.):
//!
//! ```
//! use limbeck_kernels::reference::Distillation;
//! let soft = |temperature: f64| Distillation {
//!     teacher: Some(&[3.0, 0.0, -1.0]), label: None, temperature, soft_weight: 1.0, hard_weight: 0.0,
//! };
//! let gradient = |t: f64| soft(t).gradient(&[1.0, -2.0, 0.5])[1];
//! assert!((gradient(20.0) / gradient(10.0) - 1.0).abs() < 0.2, "with T² it keeps its size");
//! let without = |t: f64| gradient(t) / (t * t);
//! assert!(without(20.0) / without(10.0) < 0.3, "without, about a quarter at twice T");
//! ```
//!
//! **KL with reduction 'mean'.** PyTorch's `kl_div` divides by the batch *and the classes* unless it
//! is told 'batchmean': with ten classes the soft term has a tenth of its weight.
//!
//! ```
//! use limbeck::tools::check::{CheckCase, check};
//! use limbeck_kernels::reference::Distillation;
//! use ndarray::array;
//! let (z, v) = ([1.0, -2.0, 0.5], [3.0, 0.0, -1.0]);
//! let right = Distillation {
//!     teacher: Some(&v), label: None, temperature: 4.0, soft_weight: 1.0, hard_weight: 0.0,
//! };
//! let case = CheckCase {
//!     student_logits: array![z],
//!     teacher_logits: Some(array![v]),
//!     temperature: 4.0,
//!     soft_weight: 1.0,
//!     loss: Some(right.reducible_loss(&z) / 3.0), // divided by the classes
//!     ..CheckCase::default()
//! };
//! assert_eq!(check(&case).unwrap().variant, Some("kl_mean"));
//! ```
//!
//! **Probabilities where log-probabilities belong.** Σ p·(ln p − q) is no divergence: it is negative,
//! and not 0 for equal distributions.
//!
//! ```
//! use limbeck_kernels::reference::{log_softmax, softmax};
//! let (p, log_p) = (softmax(&[3.0, 0.0, -1.0], 4.0), log_softmax(&[3.0, 0.0, -1.0], 4.0));
//! let kl_div = |input: &[f64]| (0..3).map(|i| p[i] * (log_p[i] - input[i])).sum::<f64>();
//! assert_eq!(kl_div(&log_p), 0.0);
//! assert!(kl_div(&p) < -1.0);
//! ```
//!
//! **Reverse KL.** KL(q ‖ p) forgives a student that ignores a class of the teacher's; KL(p ‖ q),
//! the one that distillation minimises, does not.
//!
//! ```
//! use limbeck_kernels::reference::Distillation;
//! let kl = |p: &[f64], q: &[f64]| Distillation {
//!     teacher: Some(p), label: None, temperature: 1.0, soft_weight: 1.0, hard_weight: 0.0,
//! }.divergence(q);
//! let (teacher, blind) = ([0.0, 0.0, 0.0], [0.0, 0.0, -20.0]);
//! assert!(kl(&teacher, &blind) > 6.0 && kl(&blind, &teacher) < 0.5);
//! ```
//!
//! **Softmax twice**, the output layer's and the loss's. Probabilities are at most 1 apart, so the
//! second softmax cannot be sure of anything:
//!
//! ```
//! use limbeck_kernels::reference::softmax;
//! let sure = softmax(&[50.0, 0.0, 0.0], 1.0);
//! assert!(sure[0] > 0.999_999 && softmax(&sure, 1.0)[0] < 0.58);
//! ```
//!
//! **T on one side only**, or in the hard term. The loss is then least for a student that is not
//! its teacher:
//!
//! ```
//! use limbeck_kernels::reference::softmax;
//! let v = [3.0, 0.0, -1.0];
//! let gradient = |z: &[f64]| softmax(z, 1.0)[0] - softmax(&v, 4.0)[0]; // the student untempered
//! assert!(gradient(&v).abs() > 0.3 && gradient(&v.map(|v| v / 4.0)).abs() < 1e-15);
//! ```
//!
//! **`1 + exp(z/T)` in the expansion for high T.** It is exp(z/T) ≈ 1 + z/T (4.):
//!
//! ```
//! let x = 0.5f64 / 20.0;
//! assert!((x.exp() - (1.0 + x)).abs() < x * x);
//! assert!((x.exp() - (1.0 + x.exp())).abs() > 0.999, "wrong by 1, at any T");
//! ```
//!
//! **Raw differences of logits** as the limit (4.). A constant in all of an example's logits changes
//! neither softmax nor the soft term, but it changes z − v:
//!
//! ```
//! use limbeck_kernels::reference::centred_difference;
//! assert_eq!(centred_difference(&[7.0, 6.0], &[2.0, 1.0]), [0.0, 0.0]);
//! ```
//!
//! **The teacher's most probable class as target.** That is training on the teacher's labels; what
//! distillation adds is the rest of p, and it is gone:
//!
//! ```
//! use limbeck_kernels::reference::softmax;
//! let (sure, unsure) = (softmax(&[9.0, 0.0, 0.0], 2.0), softmax(&[9.0, 8.0, 0.0], 2.0));
//! assert!(sure[1] < 0.02 && unsure[1] > 0.3, "both have the class 0 as their maximum");
//! ```
//!
//! **T at inference.** The student answers at T = 1. The most probable class is the same at any T,
//! so the error rate hides the mistake; likelihood and calibration show it.
//!
//! ```
//! use limbeck_kernels::reference::softmax;
//! let z = [9.0, 2.0, 1.0];
//! assert!(softmax(&z, 1.0)[0] > 0.998 && softmax(&z, 20.0)[0] < 0.5);
//! ```
//!
//! **The teacher run with dropout on.** Its soft targets are then those of a random part of it, and
//! others in every pass. [`crate::engine::distill::teacher_logits`] takes no dropout and cannot:
//!
//! ```
//! use limbeck_kernels::random::{Dropout, Key};
//! let pass = |step| Dropout::new(Key::new(0, 1, step), 0.5, 1);
//! let kept = |step: u64| (0..100).map(|unit| pass(step).keeps(unit, 0)).collect::<Vec<_>>();
//! assert_ne!(kept(0), kept(1));
//! ```
//!
//! **"Two classes left out, the bias raised by 7 to 8."** It is the other way round (paper, section
//! 3): *only* 7s and 8s are in the transfer set, and *their* biases are **lowered** by 7.6, because
//! the student has learnt to expect nothing else. Raising them makes it worse; raising the eight
//! others by as much is the same as lowering the two.
//!
//! ```
//! use limbeck_kernels::reference::softmax;
//! // A 3 as seen by a student that has only met 7s and 8s.
//! let z = [0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 5.0, 6.0, 0.0];
//! let of_three = |z: &[f64], bias: f64| {
//!     let mut z = z.to_vec();
//!     z[7..9].iter_mut().for_each(|z| *z += bias);
//!     softmax(&z, 1.0)[3]
//! };
//! assert!(of_three(&z, -7.6) > 0.8 && of_three(&z, 0.0) < 0.1 && of_three(&z, 7.6) < 1e-4);
//! ```
//!
//! **The best model on the test set.** Of equally good models one is luckiest, and its error count
//! is no estimate of anything:
//!
//! ```
//! use limbeck_kernels::random::Key;
//! // 20 models, 2000 test examples, and for each the same chance of an error: 5 %.
//! let wrong = |model, example| f64::from(Key::new(1, model, 0).bits(example)) < 0.05 * 2f64.powi(32);
//! let errors = |model| (0..2000).filter(|example| wrong(model, *example)).count();
//! let counts: Vec<usize> = (0..20).map(errors).collect();
//! let mean = counts.iter().sum::<usize>() as f64 / 20.0;
//! assert!((mean - 100.0).abs() < 7.0, "{mean}");
//! assert!(*counts.iter().min().unwrap() < 90, "{counts:?}");
//! ```
