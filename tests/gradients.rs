//! The engine's gradients against backpropagation in f64, and that against finite differences.

mod common;

use common::{Minibatch, Net, best, engine_step, small_net, uniform, widen};
use limbeck::loss::Objective;
use limbeck_kernels::random::{Dropout, Key};
use limbeck_kernels::reference::softmax;

/// Steps of this size keep a hidden unit on its side of the kink: the largest change of a
/// pre-activation is below 2·STEP·2.5·4, dropout's scale times the largest weights that follow.
const STEP: f64 = 5e-4;
const DISTANCE: f64 = 0.01;

/// A net and a minibatch for it, with dropout on the input and each hidden layer.
struct Case {
    model: limbeck::mlp::Mlp,
    batch: Minibatch,
}

/// The first of the seeds that keeps all hidden units away from their kinks.
fn case(widths: &[usize], size: usize, dropout: bool, objective: Objective) -> Case {
    let (inputs, classes) = (widths[0], widths[widths.len() - 1]);
    let cases = (0..10_000).map(|seed| {
        let model = small_net(widths, seed);
        let pixels =
            uniform(seed + 7, size * inputs).into_iter().map(|x| ((x + 1.0) * 128.0) as u8);
        let drop = |i: usize| {
            let rate = if i == 0 { 0.2 } else { 0.5 };
            Some(Dropout::new(Key::new(seed, i as u64, 5), rate, size))
        };
        let logits = uniform(seed + 8, size * classes).iter().map(|v| 6.0 * *v as f32).collect();
        let batch = Minibatch {
            size,
            pixels: pixels.collect(),
            dropout: (0..widths.len() - 1).filter(|_| dropout).map(drop).collect(),
            teacher: Some(logits),
            labels: Some((0..size).map(|e| (e % classes) as u16).collect()),
            objective,
        };
        Case { model, batch }
    });
    let mut far = cases.filter(|c| Net::new(&c.model).distance_to_kink(&c.batch) > DISTANCE);
    far.next().expect("a seed away from the kinks")
}

/// Every net, batch, dropout and objective.
fn cases() -> impl Iterator<Item = Case> {
    let objectives = [
        (1.0, 0.0, 1.0),
        (1.0, 1.0, 0.0),
        (2.0, 1.0, 0.0),
        (20.0, 1.0, 0.0),
        (2.0, 0.7, 0.3),
        (20.0, 1.0, 0.05),
    ];
    let nets = [(&[7, 5, 4, 3][..], 6), (&[7, 5, 4, 3], 19), (&[5, 17, 3], 6), (&[5, 17, 3], 19)];
    nets.into_iter().flat_map(move |(widths, size)| {
        [false, true].into_iter().flat_map(move |dropout| {
            objectives.into_iter().map(move |(temperature, soft_weight, hard_weight)| {
                let objective = Objective { temperature, soft_weight, hard_weight };
                case(widths, size, dropout, objective)
            })
        })
    })
}

/// ∂L/∂w of every parameter by the five-point rule: its error is STEP⁴·L⁽⁵⁾/30 and that of L,
/// 10⁻¹³, divided by STEP.
fn numeric_gradient(net: &Net, batch: &Minibatch) -> Vec<f64> {
    let loss_at = |k: usize, step: f64| {
        let mut moved = net.clone();
        moved.params[k] += step;
        moved.loss(batch)
    };
    let slope = |k: usize| {
        let near = loss_at(k, STEP) - loss_at(k, -STEP);
        let far = loss_at(k, 2.0 * STEP) - loss_at(k, -2.0 * STEP);
        (8.0 * near - far) / (12.0 * STEP)
    };
    (0..net.params.len()).map(slope).collect()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |max, x| max.max(x.abs()))
}

/// The largest deviation in units of what is allowed: at most 1 if the gradients agree.
fn deviation(found: &[f64], expected: &[f64], allowed: impl Fn(usize) -> f64) -> f64 {
    assert_eq!(found.len(), expected.len());
    let excess = |k: usize| (found[k] - expected[k]).abs() / allowed(k).max(f64::MIN_POSITIVE);
    (0..found.len()).map(excess).fold(0.0, f64::max)
}

#[test]
fn f64_gradients_are_the_finite_differences() {
    for Case { model, batch } in cases() {
        let net = Net::new(&model);
        let (analytic, numeric) = (net.gradient(&batch), numeric_gradient(&net, &batch));
        let allowed = 1e-7 * largest(&numeric);
        let worst = deviation(&analytic, &numeric, |_| allowed);
        assert!(worst < 1.0, "{worst} {:?} {:?}", net.widths, batch.objective);
    }
}

#[test]
fn the_engines_gradients_and_loss_are_those_in_f64() {
    let context = best(1);
    for Case { model, batch } in cases() {
        let net = Net::new(&model);
        let (step, expected) = (engine_step(&context, &model, &batch), net.gradient(&batch));
        let tolerance = net.tolerance(&batch);
        let worst = deviation(&Net::flat(&model, &step.grads), &expected, |k| tolerance[k]);
        assert!(worst < 1.0, "{worst} {:?} {:?}", net.widths, batch.objective);
        // The bound is no blank cheque: it stays below a thousandth of the gradient.
        let loosest = tolerance.iter().fold(0.0, |max: f64, t| max.max(*t));
        assert!(loosest < 1e-3 * largest(&expected), "{loosest} {:?}", batch.objective);
        // The padding lanes of the gradients stay zero.
        let total: f64 = widen(&step.grads).iter().map(|g| g.abs()).sum();
        let real: f64 = Net::flat(&model, &step.grads).iter().map(|g| g.abs()).sum();
        assert!((total - real).abs() <= 1e-12 * real, "{total} {real}");

        let loss = net.loss(&batch);
        assert!((step.loss - loss).abs() < 64.0 * common::UNIT * loss, "{} {loss}", step.loss);
    }
}

/// The mistakes in circulation, each as the gradient it would give.
#[test]
fn wrong_gradients_are_told_from_right_ones() {
    let objective = Objective { temperature: 20.0, soft_weight: 1.0, hard_weight: 0.5 };
    let Case { model, batch } = case(&[7, 5, 4, 3], 19, true, objective);
    let (net, t) = (Net::new(&model), 20.0);
    let right = net.gradient(&batch);
    let teacher = |e: usize| widen(&batch.teacher.as_ref().unwrap()[e * 3..][..3]);
    // soft·(softmax(z/T) − softmax(v/T)) + hard·(softmax(z/hard_t) − y)
    let composed = |soft: f64, hard_t: f64| {
        let d_logits = net.d_logits(&batch, |e, z| {
            let (q, p) = (softmax(z, t), softmax(&teacher(e), t));
            let hard = softmax(z, hard_t);
            let y = |c: usize| if c == e % 3 { 1.0 } else { 0.0 };
            (0..3).map(|c| soft * (q[c] - p[c]) + 0.5 * (hard[c] - y(c))).collect()
        });
        net.backward(&batch, d_logits)
    };
    let without_mean: Vec<f64> = right.iter().map(|g| g * batch.size as f64).collect();
    // ReLU's zeros still drop what the masks dropped; only the factor is missing.
    let without_scale = {
        let d_logits =
            net.d_logits(&batch, |e, z| Net::with_task(&batch, e, |task| task.gradient(z)));
        net.backward_with(&net.activations(&batch), batch.size, d_logits, |_| 1.0)
    };
    let wrong = [
        ("T² for T in the soft gradient", composed(t * t, 1.0)),
        ("no T in the soft gradient", composed(1.0, 1.0)),
        ("no mean over the batch", without_mean),
        ("no scale of the kept units", without_scale),
        ("the hard term at T", composed(t, t)),
    ];
    let numeric = numeric_gradient(&net, &batch);
    let engine = Net::flat(&model, &engine_step(&best(1), &model, &batch).grads);
    let tolerance = net.tolerance(&batch);
    let judge = |gradient: &[f64]| {
        let by_difference = deviation(gradient, &numeric, |_| 1e-7 * largest(&numeric));
        let by_engine = deviation(gradient, &engine, |k| tolerance[k]);
        (by_difference < 1.0, by_engine < 1.0)
    };
    assert_eq!(judge(&right), (true, true));
    assert_eq!(judge(&composed(t, 1.0)), (true, true));
    for (mistake, gradient) in wrong {
        assert_eq!(judge(&gradient), (false, false), "{mistake} went unnoticed");
    }
}
