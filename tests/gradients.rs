//! The engine's gradients against the f64 reference's, and these, and its steps of SGD, against
//! finite differences.

mod common;

use common::{
    Minibatch, best, distance_to_kink, engine_step, small_net, tolerance, uniform, widen,
};
use limbeck::engine::activation::Activation;
use limbeck::engine::loss::LossSpec;
use limbeck::engine::mlp::Mlp;
use limbeck::engine::reference::{Batch, Net};
use limbeck_kernels::gemm::WeightStep;
use limbeck_kernels::random::{Dropout, Key};
use limbeck_kernels::reference::softmax;
use limbeck_kernels::update::Rule;
use ndarray::{Array2, Axis};

/// Steps of this size keep a hidden unit on its side of the kink: the largest change of a
/// pre-activation is below 2·STEP·2.5·4, dropout's scale times the largest weights that follow.
const STEP: f64 = 5e-4;
const DISTANCE: f64 = 0.01;

/// A net and a minibatch for it, with dropout on the input and each hidden layer.
struct Case {
    model: Mlp,
    batch: Minibatch,
}

/// The first of the seeds that keeps all hidden units this far away from their kinks.
fn case(distance: f64, widths: &[usize], size: usize, dropout: bool, objective: LossSpec) -> Case {
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
    let mut far = cases.filter(|Case { model, batch }| {
        distance_to_kink(&Net::new(model), &batch.exact(model)) > distance
    });
    far.next().expect("a seed away from the kinks")
}

/// Every net, batch, dropout and objective.
fn cases() -> impl Iterator<Item = Case> {
    let temperatures = [1.0, 2.0, 5.0, 10.0, 20.0, 1e4, f32::INFINITY];
    let objectives = temperatures.map(|t| [(t, 1.0, 0.0), (t, 0.7, 0.3)]).concat();
    let objectives: Vec<_> = [(1.0, 0.0, 1.0)].into_iter().chain(objectives).collect();
    let nets = [(&[7, 5, 4, 3][..], 6), (&[7, 5, 4, 3], 19), (&[5, 17, 3], 6), (&[5, 17, 3], 19)];
    nets.into_iter().flat_map(move |(widths, size)| {
        let objectives = objectives.clone();
        [false, true].into_iter().flat_map(move |dropout| {
            let of = move |(temperature, soft_weight, hard_weight)| {
                let objective = LossSpec { temperature, soft_weight, hard_weight };
                case(DISTANCE, widths, size, dropout, objective)
            };
            objectives.clone().into_iter().map(of)
        })
    })
}

/// ∂L/∂w of every parameter by the five-point rule: its error is STEP⁴·L⁽⁵⁾/30 and that of L,
/// 10⁻¹⁴, divided by STEP. L is taken without the entropy of the soft targets, a constant that at
/// T = 10⁴ would leave the rest eight digits fewer.
fn numeric_gradient(net: &Net, batch: &Batch) -> Vec<f64> {
    let loss_at = |k: usize, step: f64| {
        let mut moved = net.clone();
        moved.params[k] += step;
        batch.reducible_loss(&moved.logits(batch))
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
        let (net, objective) = (Net::new(&model), batch.objective);
        let batch = batch.exact(&model);
        let (analytic, numeric) = (net.gradient(&batch), numeric_gradient(&net, &batch));
        let allowed = 1e-7 * largest(&numeric);
        let worst = deviation(&analytic, &numeric, |_| allowed);
        assert!(worst < 1.0, "{worst} {:?} {objective:?}", net.widths);
        // The entropy is all that was left out of L.
        let (logits, v) = (net.logits(&batch), batch.teacher.as_ref().unwrap());
        let t = f64::from(batch.loss.temperature);
        let entropy = |v: &[f64]| -> f64 { softmax(v, t).iter().map(|p| -p * p.ln()).sum() };
        let entropies: f64 = v.rows().into_iter().map(|v| entropy(&v.to_vec())).sum();
        let constant = if t.is_finite() { t * t * entropies / v.nrows() as f64 } else { 0.0 };
        let whole = batch.reducible_loss(&logits) + f64::from(batch.loss.soft_weight) * constant;
        let loss = net.loss(&batch);
        assert!((loss - whole).abs() < 1e-13 * loss, "{loss} {whole} {objective:?}");
    }
}

#[test]
fn the_engines_gradients_and_loss_are_those_in_f64() {
    let context = best(1);
    for Case { model, batch } in cases() {
        let (step, net) = (engine_step(&context, &model, &batch), Net::new(&model));
        let objective = batch.objective;
        let batch = batch.exact(&model);
        let (expected, tolerance) = (net.gradient(&batch), tolerance(&net, &batch));
        let worst = deviation(&Net::flatten(&model, &step.grads), &expected, |k| tolerance[k]);
        assert!(worst < 1.0, "{worst} {:?} {objective:?}", net.widths);
        // The bound is no blank cheque: it stays below a thousandth of the gradient. At T = 10⁴
        // f32 cannot do better, because q − p is 10⁻⁴ of q.
        let loosest = tolerance.iter().fold(0.0, |max: f64, t| max.max(*t));
        if objective.temperature != 1e4 {
            assert!(loosest < 1e-3 * largest(&expected), "{loosest} {objective:?}");
        }
        // The padding lanes of the gradients stay zero.
        let total: f64 = widen(&step.grads).iter().map(|g| g.abs()).sum();
        let real: f64 = Net::flatten(&model, &step.grads).iter().map(|g| g.abs()).sum();
        assert!((total - real).abs() <= 1e-12 * real, "{total} {real}");

        let loss = net.loss(&batch);
        assert!((step.loss - loss).abs() < 64.0 * common::UNIT * loss, "{} {loss}", step.loss);
    }
}

/// tanh has no kinks. |tanh z| ≤ |z| and |tanh′| ≤ 1, so the bound for ReLU holds for the products; the
/// kernel's tanh errs by less than 4 UNIT, less than one more term of each sum.
#[test]
fn a_net_of_tanh_has_the_gradients_of_finite_differences_and_of_f64() {
    let context = best(1);
    for dropout in [false, true] {
        let objective = LossSpec { temperature: 4.0, soft_weight: 0.7, hard_weight: 0.3 };
        let Case { model: relu, batch } = case(0.0, &[7, 17, 5, 3], 19, dropout, objective);
        let mut model = Mlp::with_activation(&relu.widths(), Activation::Tanh, 5);
        model.input = relu.input;
        let (step, net) = (engine_step(&context, &model, &batch), Net::new(&model));
        let batch = batch.exact(&model);
        let (analytic, numeric) = (net.gradient(&batch), numeric_gradient(&net, &batch));
        let allowed = 1e-7 * largest(&numeric);
        assert!(deviation(&analytic, &numeric, |_| allowed) < 1.0);
        let tolerance = tolerance(&net, &batch);
        let found = Net::flatten(&model, &step.grads);
        let worst = deviation(&found, &analytic, |k| tolerance[k]);
        assert!(worst < 1.0, "{worst}");
        // The negative control: ReLU's slope in place of tanh's.
        let wrong = Net { activation: Activation::Relu, ..net.clone() };
        let wrong =
            wrong.backward(&batch, &net.forward(&batch), batch.d_logits(&net.logits(&batch)));
        assert!(deviation(&wrong, &analytic, |k| tolerance[k]) > 10.0);
    }
}

/// The mistakes in circulation, each as the gradient it would give.
#[test]
fn wrong_gradients_are_told_from_right_ones() {
    let objective = LossSpec { temperature: 20.0, soft_weight: 1.0, hard_weight: 0.5 };
    let Case { model, batch } = case(DISTANCE, &[7, 5, 4, 3], 19, true, objective);
    let engine = Net::flatten(&model, &engine_step(&best(1), &model, &batch).grads);
    let (net, t, batch) = (Net::new(&model), 20.0, batch.exact(&model));
    let right = net.gradient(&batch);
    let activations = net.forward(&batch);
    let (logits, teacher) = (net.logits(&batch), batch.teacher.clone().unwrap());
    let each = |logits: &Array2<f64>, t: f64| {
        let rows = logits.rows().into_iter().flat_map(|row| softmax(&row.to_vec(), t));
        common::matrix(19, rows.collect())
    };
    let y = Array2::from_shape_fn((19, 3), |(e, c)| if c == e % 3 { 1.0 } else { 0.0 });
    // soft·(softmax(z/T) − softmax(v/teacher_t)) + hard·(softmax(z/hard_t) − y)
    let composed = |soft: f64, teacher_t: f64, hard: f64, hard_t: f64| {
        let soft = soft * (each(&logits, t) - each(&teacher, teacher_t));
        let d_logits = (soft + hard * (each(&logits, hard_t) - &y)) / 19.0;
        net.backward(&batch, &activations, d_logits)
    };
    let masks: Vec<&Array2<f64>> = batch.masks.iter().flatten().collect();
    let with_masks = |masks: [Option<Array2<f64>>; 3]| {
        let changed = Batch { masks: masks.into(), ..batch.clone() };
        net.backward(&changed, &activations, batch.d_logits(&logits))
    };
    let next: Vec<usize> = (0..19).map(|e| (e + 1) % 19).collect();
    let wrong = [
        ("T² for T in the soft gradient", composed(t * t, t, 0.5, 1.0)),
        ("no T in the soft gradient", composed(1.0, t, 0.5, 1.0)),
        ("no soft term", composed(0.0, t, 0.5, 1.0)),
        ("no hard term", composed(t, t, 0.0, 1.0)),
        ("the hard term at T", composed(t, t, 0.5, t)),
        ("a teacher at T = 1", composed(t, 1.0, 0.5, 1.0)),
        ("no mean over the batch", right.iter().map(|g| g * 19.0).collect()),
        // ReLU's zeros still drop what the masks dropped; only the factor is missing.
        ("no scale of the kept units", {
            with_masks([0, 1, 2].map(|i| Some(masks[i].mapv(f64::signum))))
        }),
        ("no mask of one layer", {
            with_masks([0, 1, 2].map(|i| (i != 2).then(|| masks[i].clone())))
        }),
        ("a mask that is off by an example", {
            with_masks([0, 1, 2].map(|i| Some(masks[i].select(Axis(0), &next))))
        }),
    ];
    let numeric = numeric_gradient(&net, &batch);
    let tolerance = tolerance(&net, &batch);
    let judge = |gradient: &[f64]| {
        let by_difference = deviation(gradient, &numeric, |_| 1e-7 * largest(&numeric));
        let by_engine = deviation(gradient, &engine, |k| tolerance[k]);
        (by_difference < 1.0, by_engine < 1.0)
    };
    assert_eq!(judge(&right), (true, true));
    assert_eq!(judge(&composed(t, t, 0.5, 1.0)), (true, true));
    for (mistake, gradient) in wrong {
        assert_eq!(judge(&gradient), (false, false), "{mistake} went unnoticed");
    }
}

const STEPS: usize = 4;

/// Parameters after steps wₖ₊₁ = project(wₖ − Σⱼ factor(k, j)·gⱼ), j ≤ k, where the momentum is
/// written out as a sum over all gradients so far, and each gradient of L + λ/2·‖w‖² is by finite
/// differences; λ for weights and for biases. And how far the kinks were.
fn numeric_steps(
    net: &Net,
    batch: &Batch,
    factor: impl Fn(usize, usize) -> f64,
    (weights, biases): (f64, f64),
    project: impl Fn(&Net, &mut [f64]),
) -> (Vec<f64>, f64) {
    let (mut net, mut distance) = (net.clone(), f64::INFINITY);
    let mut grads: Vec<Vec<f64>> = Vec::new();
    for k in 0..STEPS {
        distance = distance_to_kink(&net, batch).min(distance);
        let mut gradient = numeric_gradient(&net, batch);
        let is_weight = |i: usize| {
            (0..net.layers()).any(|layer| {
                let [weight, bias, _] = net.place(layer);
                (weight..bias).contains(&i)
            })
        };
        for (i, (g, w)) in gradient.iter_mut().zip(&net.params).enumerate() {
            *g += if is_weight(i) { weights } else { biases } * w;
        }
        grads.push(gradient);
        for (i, w) in net.params.iter_mut().enumerate() {
            *w -= (0..=k).map(|j| factor(k, j) * grads[j][i]).sum::<f64>();
        }
        let mut params = net.params.clone();
        project(&net, &mut params);
        net.params = params;
    }
    (net.params, distance)
}

/// Nesterov's step as Sutskever et al. (2013) write it, with the gradient at θ + m·u; what others
/// store, and this returns, is that point.
fn look_ahead(net: &Net, batch: &Batch, rate: f64, m: f64) -> Vec<f64> {
    let mut at = net.clone();
    let mut theta = net.params.clone();
    let mut u = vec![0.0; theta.len()];
    for _ in 0..STEPS {
        let gradient = numeric_gradient(&at, batch);
        for i in 0..theta.len() {
            u[i] = m * u[i] - rate * gradient[i];
            theta[i] += u[i];
            at.params[i] = theta[i] + m * u[i];
        }
    }
    at.params
}

/// Brings the norm of every column of each layer's W below `limit`; of every row, if `rows`.
fn limit_norms(net: &Net, params: &mut [f64], limit: f64, layers: usize, rows: bool) {
    for i in 0..layers {
        let weight = net.weight(params, i).to_owned();
        let lanes = weight.lanes(Axis(if rows { 1 } else { 0 })).into_iter();
        let norms: Vec<f64> = lanes.map(|lane| lane.dot(&lane).sqrt()).collect();
        for (k, w) in weight.indexed_iter() {
            let norm = norms[if rows { k.0 } else { k.1 }];
            params[net.place(i)[0] + k.0 * weight.ncols() + k.1] = w * (limit / norm).min(1.0);
        }
    }
}

#[test]
fn steps_of_sgd_are_those_of_finite_differences() {
    let objective = LossSpec { temperature: 5.0, soft_weight: 1.0, hard_weight: 0.5 };
    let Case { model, batch } = case(10.0 * DISTANCE, &[7, 5, 4, 3], 6, true, objective);
    let (net, batch) = (Net::new(&model), batch.exact(&model));
    let (rate, m, decay) = (2f64.powi(-11), 0.75f64, 0.125);
    let (learning_rate, momentum) = (rate as f32, m as f32);
    // The largest norms are above the limit, in hidden layers and in the last.
    let largest_norm = |i| {
        let columns = net.weight(&net.params, i).map_axis(Axis(0), |w| w.dot(&w).sqrt());
        columns.into_iter().fold(0.0, f64::max)
    };
    let limit =
        f64::from((0.98 * largest_norm(0).max(largest_norm(1)).min(largest_norm(2))) as f32);
    let steps = |rule: Rule, weight_decay: f64, max_norm: Option<f64>| {
        let (weight_decay, max_norm) = (weight_decay as f32, max_norm.map(|limit| limit as f32));
        let (mut net, mut moments) = (net.clone(), vec![(0.0, 0.0); net.params.len()]);
        for _ in 0..STEPS {
            let gradient = net.gradient(&batch);
            net.step(WeightStep { rule, weight_decay, max_norm }, &gradient, &mut moments);
        }
        net.params
    };
    let sgd = |m: f64| Rule::Sgd { learning_rate, momentum: m as f32 };
    let nesterov = Rule::Nesterov { learning_rate, momentum };
    let hinton = Rule::Hinton2012 { learning_rate, momentum };

    let power = |k: usize, j: usize| m.powi((k - j) as i32);
    let now = |k: usize, j: usize| if j == k { 1.0 } else { 0.0 };
    let numeric =
        |factor: &dyn Fn(usize, usize) -> f64, decay, project: &dyn Fn(&Net, &mut [f64])| {
            numeric_steps(&net, &batch, factor, decay, project)
        };
    let plain = |k, j| rate * now(k, j);
    let classical = |k, j| rate * power(k, j);
    let ahead = |k, j| rate * (now(k, j) + m * power(k, j));
    let weighted = |k, j| rate * (1.0 - m) * power(k, j);
    let free = |_: &Net, _: &mut [f64]| {};
    let hidden = |net: &Net, params: &mut [f64]| limit_norms(net, params, limit, 2, false);

    let agree = |a: &[f64], b: &[f64]| {
        let way: Vec<f64> = b.iter().zip(&net.params).map(|(b, start)| b - start).collect();
        deviation(a, b, |_| 1e-7 * largest(&way)) < 1.0
    };
    let none = (0.0, 0.0);
    for (what, found, expected) in [
        ("plain", steps(sgd(0.0), 0.0, None), numeric(&plain, none, &free)),
        ("classical", steps(sgd(m), 0.0, None), numeric(&classical, none, &free)),
        ("Nesterov", steps(nesterov, 0.0, None), numeric(&ahead, none, &free)),
        ("looking ahead", steps(nesterov, 0.0, None), {
            (look_ahead(&net, &batch, rate, m), DISTANCE)
        }),
        ("Hinton", steps(hinton, 0.0, None), numeric(&weighted, none, &free)),
        ("decay", steps(sgd(0.0), decay, None), numeric(&plain, (decay, 0.0), &free)),
        ("max-norm", steps(sgd(0.0), 0.0, Some(limit)), numeric(&plain, none, &hidden)),
        ("all", steps(sgd(m), decay, Some(limit)), numeric(&classical, (decay, 0.0), &hidden)),
        ("all, Nesterov", steps(nesterov, decay, Some(limit)), {
            numeric(&ahead, (decay, 0.0), &hidden)
        }),
        ("all, Hinton", steps(hinton, decay, Some(limit)), {
            numeric(&weighted, (decay, 0.0), &hidden)
        }),
    ] {
        let (expected, distance) = expected;
        assert!(distance >= DISTANCE, "{what}: {distance} from a kink");
        assert!(agree(&found, &expected), "{what}");
    }

    // Each of these is near enough to be overlooked, and is not.
    let all = steps(sgd(m), decay, Some(limit));
    let everywhere = |net: &Net, params: &mut [f64]| limit_norms(net, params, limit, 3, false);
    let inputs = |net: &Net, params: &mut [f64]| limit_norms(net, params, limit, 2, true);
    for (mistake, wrong) in [
        ("no decay", numeric(&classical, none, &hidden)),
        ("decay of the biases", numeric(&classical, (decay, decay), &hidden)),
        ("the other sign of decay", numeric(&classical, (-decay, 0.0), &hidden)),
        ("no momentum", numeric(&plain, (decay, 0.0), &hidden)),
        ("Nesterov's momentum", numeric(&ahead, (decay, 0.0), &hidden)),
        ("a dampened gradient", numeric(&weighted, (decay, 0.0), &hidden)),
        ("no max-norm", numeric(&classical, (decay, 0.0), &free)),
        ("max-norm of the last layer", numeric(&classical, (decay, 0.0), &everywhere)),
        ("max-norm of outgoing weights", numeric(&classical, (decay, 0.0), &inputs)),
    ] {
        assert!(!agree(&all, &wrong.0), "{mistake} went unnoticed");
    }
    let (too_fast, _) = numeric(&|k, j| (1.0 + 1e-6) * classical(k, j), none, &free);
    assert!(!agree(&steps(sgd(m), 0.0, None), &too_fast));
    assert!(!agree(&steps(nesterov, 0.0, None), &steps(sgd(m), 0.0, None)));
}
