//! Optimiser steps, weight averaging and the max-norm constraint against the f64 reference.

mod common;

use common::{Data, EPS, Panel, assert_within, contexts, same_bits_everywhere, widen};
use limbeck_kernels::gemm::{Factors, WeightStep, weight_gradient, weight_update};
use limbeck_kernels::update::{Rule, add, average, max_norm, step};
use limbeck_kernels::{PanelsMut, reference};

/// Values of the arrays: more than two parallel tasks of 2¹⁴ and one odd vector.
const LEN: usize = (2 << 14) + 48;

/// Adam's and AdamW's settings at step `t`.
fn adam_and_adamw(t: i32) -> [Rule; 2] {
    let (learning_rate, beta1, beta2, epsilon) = (1e-3, 0.9_f32, 0.999_f32, 1e-8);
    let corrections = [1.0 - beta1.powi(t), 1.0 - beta2.powi(t)];
    [
        Rule::Adam { learning_rate, beta1, beta2, epsilon, corrections },
        Rule::AdamW { learning_rate, beta1, beta2, epsilon, corrections },
    ]
}

const RULES: usize = 6;

fn rules(t: i32) -> [Rule; RULES] {
    let [adam, adamw] = adam_and_adamw(t);
    [
        Rule::Sgd { learning_rate: 0.1, momentum: 0.0 },
        Rule::Sgd { learning_rate: 0.05, momentum: 0.9 },
        Rule::Nesterov { learning_rate: 0.05, momentum: 0.9 },
        Rule::Hinton2012 { learning_rate: 10.0, momentum: 0.95 },
        adam,
        adamw,
    ]
}

/// Parameters and moments, as f32 or as f64.
struct State<T> {
    w: Vec<T>,
    v: Vec<T>,
    u: Vec<T>,
}

/// Bounds on the rounding errors of one step of one parameter: of w, v and u.
///
/// Each is the number of roundings on a term's way to the result times ε times the sum of the
/// terms' magnitudes. g + decay·w has one rounding, counted with every use.
fn bounds(rule: Rule, decay: f64, (w, g, v, u): (f64, f64, f64, f64)) -> [f64; 3] {
    let decoupled = matches!(rule, Rule::AdamW { .. });
    let g = if decoupled { g.abs() } else { (g + decay * w).abs() };
    // The sizes of v and of the change of w, each with its roundings; for u the product of both.
    let (v_size, v_roundings, move_size, move_roundings, u_size) = match rule {
        Rule::Sgd { learning_rate, momentum } => {
            let v = f64::from(momentum) * v.abs() + g;
            (v, 2.0, f64::from(learning_rate) * v, 2.0, 0.0)
        }
        Rule::Nesterov { learning_rate, momentum } => {
            let v = f64::from(momentum) * v.abs() + g;
            let ahead = f64::from(momentum) * v + g;
            (v, 2.0, f64::from(learning_rate) * ahead, 3.0, 0.0)
        }
        Rule::Hinton2012 { learning_rate, momentum } => {
            let (rate, momentum) = (f64::from(learning_rate), f64::from(momentum));
            // g, 1 − m, its product with η, the product with g, and the multiply-add.
            let v = momentum * v.abs() + (1.0 - momentum) * rate * g;
            (v, 5.0, v, 5.0, 0.0)
        }
        Rule::Adam { learning_rate, beta1, beta2, epsilon, corrections }
        | Rule::AdamW { learning_rate, beta1, beta2, epsilon, corrections } => {
            let (beta1, beta2) = (f64::from(beta1), f64::from(beta2));
            let v = beta1 * v.abs() + (1.0 - beta1) * g;
            let u = beta2 * u + (1.0 - beta2) * g * g;
            let root = (u / f64::from(corrections[1])).sqrt() + f64::from(epsilon);
            let change = f64::from(learning_rate) / f64::from(corrections[0]) * v / root;
            // v: g, 1 − β₁, product, multiply-add = 4. u: g twice, 1 − β₂, two products,
            // multiply-add = 6. The root: half of u's 6 and of two for c₂, its own, and ε's = 6.
            // w: 4 + 6, the quotient, and η/c₁.
            (v, 4.0, change, 12.0, 6.0 * u)
        }
    };
    // AdamW's decay of w: the product η·λ, and w itself once more.
    let decay_error = match rule {
        Rule::AdamW { learning_rate, .. } => w.abs() * (f64::from(learning_rate) * decay + 1.0),
        _ => 0.0,
    };
    // The last operation rounds w itself. The smallest normal number stands for underflow.
    let tiny = f64::from(f32::MIN_POSITIVE);
    let w_bound = EPS * (w.abs() + (move_roundings + 1.0) * move_size + decay_error) + tiny;
    [w_bound, EPS * v_roundings * v_size + tiny, EPS * u_size + tiny]
}

#[test]
fn every_rule_takes_the_step_of_its_formula() {
    let len = 4 * 48;
    for rule_index in 0..RULES {
        for decay in [0.0, 0.01] {
            let mut data = Data::new(50);
            let start = data.values(len);
            let mut f = State { w: start.clone(), v: vec![0.0; len], u: vec![0.0; len] };
            let mut walk = widen(&start);
            let (mut walk_v, mut walk_u) = (vec![0.0; len], vec![0.0; len]);
            for t in 1..=8 {
                let rule = rules(t)[rule_index];
                let grads = data.values(len);
                // The reference starts each step from the f32 state: the bounds are one step's.
                let mut exact = State { w: widen(&f.w), v: widen(&f.v), u: widen(&f.u) };
                let mut bound: [Vec<f64>; 3] = Default::default();
                let decay64 = f64::from(decay);
                for i in 0..len {
                    let g = f64::from(grads[i]);
                    let (w, v, u) = (&mut exact.w[i], &mut exact.v[i], &mut exact.u[i]);
                    let of = bounds(rule, decay64, (*w, g, *v, *u));
                    bound.iter_mut().zip(of).for_each(|(all, one)| all.push(one));
                    reference::step(rule, decay64, w, g, v, u);
                    let (w, v, u) = (&mut walk[i], &mut walk_v[i], &mut walk_u[i]);
                    reference::step(rule, decay64, w, g, v, u);
                }
                let mut next = None;
                let name = format!("{rule:?} with decay {decay}, step {t}");
                same_bits_everywhere(&name, |context| {
                    let (mut w, mut v, mut u) = (f.w.clone(), f.v.clone(), f.u.clone());
                    let mut moments: [&mut [f32]; 2] = [&mut v, &mut u];
                    let moments = &mut moments[..rule.moments()];
                    assert!(step(context, rule, decay, &mut w, &grads, moments));
                    let all = [&w[..], &v, &u].concat();
                    next = Some(State { w, v, u });
                    all
                });
                f = next.expect("a context ran");
                assert_within(&name, &f.w, &exact.w, &bound[0]);
                assert_within(&name, &f.v, &exact.v, &bound[1]);
                if rule.moments() == 2 {
                    assert_within(&name, &f.u, &exact.u, &bound[2]);
                }
            }
            // Undisturbed, the reference ends at the same place, which is not the start.
            let mut moved = 0.0;
            for ((w, walk), start) in f.w.iter().zip(&walk).zip(&start) {
                assert!((f64::from(*w) - walk).abs() < 1e-5, "{w} and {walk}");
                moved += (w - start).abs() / len as f32;
            }
            assert!(moved > 1e-3, "{rule_index}: {moved}");
        }
    }
}

#[test]
fn the_first_steps_are_the_known_ones() {
    // With g = 2 from w = 1: v = 2, w − η·2; then v = 0.5·2 + 2 = 3.
    let one_step = |rule: Rule, v: f32| {
        let context = &contexts()[0];
        let (mut w, mut v, mut u) = (vec![1.0; 16], vec![v; 16], vec![0.0; 16]);
        let mut moments: [&mut [f32]; 2] = [&mut v, &mut u];
        step(context, rule, 0.0, &mut w, &[2.0; 16], &mut moments[..rule.moments()]);
        (w[0], v[0])
    };
    let (learning_rate, momentum) = (0.125, 0.5);
    assert_eq!(one_step(Rule::Sgd { learning_rate, momentum }, 0.0), (0.75, 2.0));
    assert_eq!(one_step(Rule::Sgd { learning_rate, momentum }, 2.0), (0.625, 3.0));
    assert_eq!(one_step(Rule::Nesterov { learning_rate, momentum }, 2.0), (0.5625, 3.5 - 0.5));
    assert_eq!(one_step(Rule::Hinton2012 { learning_rate, momentum }, 0.5), (1.125, 0.125));
    // Adam's first step is the learning rate, whatever the gradient.
    for rule in adam_and_adamw(1) {
        let (w, _) = one_step(rule, 0.0);
        assert!((w - (1.0 - 1e-3)).abs() < 2e-7, "{rule:?}: {w}");
    }
}

/// Without a gradient Adam's decay is a gradient like any other, which it normalises: w moves by
/// about η whatever λ is. AdamW's shrinks w by the factor 1 − η·λ and leaves the moments at rest.
/// Without decay the two are one.
#[test]
fn the_weight_decay_of_adamw_is_not_part_of_the_gradient() {
    let mut data = Data::new(53);
    let (start, grads) = (data.values(48), data.values(48));
    let [adam, adamw] = adam_and_adamw(1);
    for context in contexts() {
        let stepped = |rule: Rule, decay: f32, grads: &[f32]| {
            let (mut w, mut v, mut u) = (start.clone(), vec![0.0; 48], vec![0.0; 48]);
            step(&context, rule, decay, &mut w, grads, &mut [&mut v, &mut u]);
            [w, v, u]
        };
        assert_eq!(stepped(adam, 0.0, &grads), stepped(adamw, 0.0, &grads));

        let [w, v, u] = stepped(adamw, 0.5, &[0.0; 48]);
        assert!([v, u].concat().iter().all(|&moment| moment == 0.0));
        for (w, start) in w.iter().zip(&start) {
            assert_eq!(w.to_bits(), (-5e-4_f32).mul_add(*start, *start).to_bits());
        }
        for decay in [0.5, 0.05] {
            let [w, ..] = stepped(adam, decay, &[0.0; 48]);
            for (w, start) in w.iter().zip(&start) {
                let moved = f64::from(w - start).abs();
                assert!(start.abs() < 1e-3 || (moved - 1e-3).abs() < 1e-6, "{start} by {moved}");
            }
        }
    }
}

/// A unit that has died: moments of any size and no gradient, or one whose square is no f32.
#[test]
fn moments_fade_to_zero_without_becoming_subnormal() {
    let len = 48;
    for rule in rules(1000) {
        for g in [0.0, 1e-25] {
            same_bits_everywhere(&format!("{rule:?}"), |context| {
                let (mut w, grads) = (vec![0.5_f32; len], vec![g; len]);
                let mut v: Vec<f32> = (0..len).map(|i| 10.0_f32.powi(-(i as i32) / 2)).collect();
                let mut u: Vec<f32> = (0..len).map(|i| 10.0_f32.powi(-20 - i as i32 / 3)).collect();
                let mut exact: Vec<_> = (0..len).map(|i| (0.5, v[i].into(), u[i].into())).collect();
                for _ in 0..1500 {
                    let mut moments: [&mut [f32]; 2] = [&mut v, &mut u];
                    step(context, rule, 0.0, &mut w, &grads, &mut moments[..rule.moments()]);
                    assert!(![&v[..], &u].concat().iter().any(|x| x.is_subnormal()));
                    for (w, v, u) in &mut exact {
                        reference::step(rule, 0.0, w, g.into(), v, u);
                    }
                }
                assert!(g > 0.0 || v.iter().all(|&v| v == 0.0), "{v:?}");
                for (&w, (exact, _, _)) in w.iter().zip(&exact) {
                    let exact: f64 = *exact;
                    assert!((f64::from(w) - exact).abs() < 1e-4 * exact.abs().max(1.0), "{exact}");
                }
                w
            });
        }
    }
}

/// Weight decay without a gradient, and the average that follows it.
#[test]
fn decayed_weights_become_zero_and_never_subnormal() {
    let len = 48;
    for rule in rules(1000) {
        same_bits_everywhere(&format!("{rule:?}"), |context| {
            let start: Vec<f32> = (0..len).map(|i| 0.5_f32.powi(i * 2)).collect();
            let (mut w, mut v, mut u) =
                (start.clone(), vec![0.0; start.len()], vec![0.0; start.len()]);
            let (mut mean, grads) = (start.clone(), vec![0.0; start.len()]);
            let mut exact: Vec<_> = start.iter().map(|&w| (f64::from(w), 0.0, 0.0)).collect();
            // Of AdamW the step is 10⁻³ of this.
            let decay = if matches!(rule, Rule::AdamW { .. }) { 100.0 } else { 0.5 };
            for _ in 0..3000 {
                let mut moments: [&mut [f32]; 2] = [&mut v, &mut u];
                step(context, rule, decay, &mut w, &grads, &mut moments[..rule.moments()]);
                average(context, &w, 0.1, &mut mean);
                assert!(![&w[..], &v, &mean].concat().iter().any(|x| x.is_subnormal()));
                for (w, v, u) in &mut exact {
                    reference::step(rule, f64::from(decay), w, 0.0, v, u);
                }
            }
            for (&w, (exact, _, _)) in w.iter().zip(&exact) {
                assert!((f64::from(w) - exact).abs() < 1e-4 * exact.abs().max(1.0), "{exact}");
            }
            // Adam's steps do not shrink with the weights.
            if !matches!(rule, Rule::Adam { .. }) {
                assert!(w.iter().chain(&mean).all(|&w| w == 0.0), "{rule:?}: {w:?}");
            }
            w
        });
    }
}

#[test]
fn long_arrays_have_the_same_bits_everywhere() {
    for rule_index in 0..RULES {
        let rule = rules(3)[rule_index];
        same_bits_everywhere(&format!("{rule:?}"), |context| {
            let mut data = Data::new(51);
            let (mut w, grads) = (data.values(LEN), data.values(LEN));
            let (mut v, mut u) = (data.values(LEN), data.values(LEN));
            u.iter_mut().for_each(|u| *u = u.abs());
            let mut moments: [&mut [f32]; 2] = [&mut v, &mut u];
            step(context, rule, 1e-4, &mut w, &grads, &mut moments[..rule.moments()]);
            [w, v, u].concat()
        });
    }
}

#[test]
fn a_gradient_that_is_not_finite_is_noticed_wherever_it_is() {
    let mut data = Data::new(52);
    for context in contexts() {
        for rule in rules(1) {
            let finite = |grads: &[f32]| {
                let mut arrays = vec![vec![0.5; grads.len()]; 3];
                let [w, v, u] = &mut arrays[..] else { unreachable!() };
                let mut moments: [&mut [f32]; 2] = [v, u];
                step(&context, rule, 0.0, w, grads, &mut moments[..rule.moments()])
            };
            let mut grads = data.values(48);
            // Adam squares them.
            grads[3] = 1e19;
            grads[4] = -1e19;
            grads[5] = f32::from_bits(1);
            assert!(finite(&grads));
            for i in 0..grads.len() {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let good = std::mem::replace(&mut grads[i], bad);
                    assert!(!finite(&grads), "{bad} at {i}: {rule:?} on {}", context.isa);
                    grads[i] = good;
                }
            }
        }
        // In each parallel task.
        let mut grads = data.values(LEN);
        let rule = Rule::Sgd { learning_rate: 0.1, momentum: 0.9 };
        for i in [0, (1 << 14) - 1, 1 << 14, (2 << 14) - 1, 2 << 14, LEN - 1] {
            let good = std::mem::replace(&mut grads[i], f32::NAN);
            let (mut w, mut v) = (vec![0.5; LEN], vec![0.0; LEN]);
            assert!(!step(&context, rule, 0.0, &mut w, &grads, &mut [&mut v]), "NaN at {i}");
            grads[i] = good;
        }
    }
}

#[test]
fn sums_are_rounded_once() {
    let mut data = Data::new(54);
    for len in [0, 16, LEN] {
        let (values, start) = (data.values(len), data.values(len));
        let got = same_bits_everywhere(&format!("sum of {len}"), |context| {
            let mut sum = start.clone();
            add(context, &values, &mut sum);
            sum
        });
        let want: Vec<f32> = values.iter().zip(&start).map(|(a, b)| a + b).collect();
        assert_eq!(got, want);
    }
}

#[test]
fn the_average_moves_towards_the_parameters() {
    let mut data = Data::new(53);
    for len in [16, LEN] {
        let (params, start) = (data.values(len), data.values(len));
        for weight in [1.0, 0.5, 1e-3, 1e-6] {
            let name = format!("average of {len} with weight {weight}");
            let got = same_bits_everywhere(&name, |context| {
                let mut mean = start.clone();
                average(context, &params, weight, &mut mean);
                mean
            });
            let mut want = widen(&start);
            reference::average(&widen(&params), weight.into(), &mut want);
            // The difference's and the weight's roundings, and the last one.
            let bound: Vec<f64> = params
                .iter()
                .zip(&start)
                .zip(&want)
                .map(|((p, s), want)| {
                    let difference = f64::from(*p) - f64::from(*s);
                    EPS * (3.0 * f64::from(weight) * difference.abs() + want.abs())
                })
                .collect();
            assert_within(&name, &got, &want, &bound);
        }
    }
}

/// Weights [inputs, units] whose units' norms grow from well below 1 to well above.
fn weights(inputs: usize, units: usize) -> Panel {
    let mut data = Data::new(54);
    let size = |unit: usize| 2.0 * (unit + 1) as f32 / units as f32 * (3.0 / inputs as f32).sqrt();
    let values: Vec<f32> = (0..inputs * units).map(|i| size(i % units) * data.value()).collect();
    Panel::from_row_major(inputs, units, &values)
}

fn norm_of_unit(w: &[f32], units: usize, unit: usize) -> f64 {
    w.iter().skip(unit).step_by(units).map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn max_norm_shortens_the_incoming_weights_of_each_unit_that_exceeds_it() {
    let limit = 1.0;
    for (inputs, units) in [(1, 1), (5, 3), (37, 30), (16, 100), (784, 33)] {
        let name = format!("max norm of {inputs}×{units}");
        let before = weights(inputs, units).row_major();
        let got = same_bits_everywhere(&name, |context| {
            let mut w = weights(inputs, units);
            max_norm(context, limit, w.view_mut());
            w.assert_padding_is_zero(&name);
            w.row_major()
        });
        let mut want = widen(&before);
        reference::max_norm(limit.into(), units, &mut want);
        // The norm: half of the sum's roundings (four chains and two additions) and the root's;
        // the quotient, the product.
        let roundings = (inputs.div_ceil(4) + 2) as f64 / 2.0 + 3.0;
        let bound: Vec<f64> = want.iter().map(|w| roundings * EPS * w.abs()).collect();
        assert_within(&name, &got, &want, &bound);

        let mut shortened = 0;
        for unit in 0..units {
            let (old, new) = (norm_of_unit(&before, units, unit), norm_of_unit(&got, units, unit));
            assert!(new <= f64::from(limit) * (1.0 + 1e-6), "{name}: unit {unit} has norm {new}");
            if old <= f64::from(limit) * (1.0 - 1e-6) {
                for i in (unit..inputs * units).step_by(units) {
                    assert_eq!(got[i].to_bits(), before[i].to_bits(), "{name}: unit {unit} moved");
                }
            } else {
                shortened += 1;
            }
        }
        assert!(units < 30 || (units / 4..units).contains(&shortened), "{name}: {shortened}");
    }
}

#[test]
fn max_norm_is_about_incoming_weights() {
    // Unit 0 has the norm 5, unit 1 a norm below 1.
    let before = [3.0, 0.25, 4.0, 0.5];
    for context in contexts() {
        let mut w = Panel::from_row_major(2, 2, &before);
        max_norm(&context, 1.0, w.view_mut());
        let want = [0.6, 0.25, 0.8, 0.5];
        assert_within("incoming", &w.row_major(), &want, &[2.0 * EPS; 4]);
    }
    // The control: constraining what each input sends out would shorten unit 1 as well.
    let mut transposed = [3.0, 4.0, 0.25, 0.5];
    reference::max_norm(1.0, 2, &mut transposed);
    assert!(transposed[2] < 0.2 && transposed[3] < 0.2);
}

/// The fused update against the weight gradient and [`step`] in two passes: the same bits, also
/// with more examples than a K block holds, and both see a gradient that is not finite.
#[test]
fn a_fused_update_gives_the_bits_of_gradient_and_step() {
    for (case, (inputs, outputs, batch)) in
        [(1, 1, 1), (17, 10, 5), (40, 33, 128), (100, 30, 700)].into_iter().enumerate()
    {
        let settings = [(0.0, None), (0.01, None), (0.01, Some(0.7))];
        for (rule, (weight_decay, max_norm)) in
            rules(3).into_iter().flat_map(|rule| settings.map(|setting| (rule, setting)))
        {
            let what = format!("{inputs}×{outputs}, {batch} examples, {rule:?}, {max_norm:?}");
            let weight_step = WeightStep { rule, weight_decay, max_norm };
            same_bits_everywhere(&what, |context| {
                let mut data = Data::new(case as u64);
                let mut x = data.panel(inputs, batch);
                let dz = data.panel(batch, outputs);
                let [w, v] = [0, 1].map(|_| data.panel(inputs, outputs).buffer);
                let mut u = v.clone();
                u.iter_mut().for_each(|u| *u = u.abs());
                let moments = rule.moments();

                let (mut fused, mut fused_moments) = (w.clone(), [v.clone(), u.clone()]);
                let [a, b] = &mut fused_moments;
                let finite = weight_update(
                    context,
                    Factors::f32(x.view(), dz.view()),
                    weight_step,
                    PanelsMut::new(&mut fused, inputs, outputs),
                    &mut [&mut a[..], &mut b[..]][..moments],
                );
                assert!(finite, "{what}");

                let mut gradient = Panel::unwritten(inputs, outputs);
                weight_gradient(context, Factors::f32(x.view(), dz.view()), gradient.view_mut());
                let (mut apart, mut apart_moments) = (w, [v, u]);
                let [a, b] = &mut apart_moments;
                let arrays = &mut [&mut a[..], &mut b[..]][..moments];
                step(context, rule, weight_decay, &mut apart, &gradient.buffer, arrays);
                if let Some(limit) = max_norm {
                    let before = apart.to_vec();
                    limbeck_kernels::update::max_norm(
                        context,
                        limit,
                        PanelsMut::new(&mut apart, inputs, outputs),
                    );
                    assert!(inputs < 17 || before != apart.to_vec(), "{what}: a limit that binds");
                }

                let bits = |arrays: [&[f32]; 3]| -> Vec<u32> {
                    arrays.into_iter().flatten().map(|x| x.to_bits()).collect()
                };
                let [a, b] = &fused_moments;
                let [c, d] = &apart_moments;
                assert_eq!(bits([&fused, a, b]), bits([&apart, c, d]), "{what}");

                let result = fused.to_vec();
                *x.buffer.iter_mut().find(|x| **x != 0.0).unwrap() = f32::INFINITY;
                let [a, b] = &mut fused_moments;
                let w = PanelsMut::new(&mut fused, inputs, outputs);
                let arrays = &mut [&mut a[..], &mut b[..]][..moments];
                let (x, dz) = (x.view(), dz.view());
                assert!(
                    !weight_update(context, Factors::f32(x, dz), weight_step, w, arrays),
                    "{what}"
                );
                result
            });
        }
    }
}

/// Weights, second moments and norms that overflow although the gradient is finite, seen by the
/// fused update and by two passes; the controls just do not.
#[test]
fn an_update_that_overflows_is_seen() {
    let (inputs, outputs, batch) = (17, 33, 5);
    let sgd = |learning_rate| Rule::Sgd { learning_rate, momentum: 0.0 };
    let [adam, adamw] = adam_and_adamw(3);
    // Weight decay takes w to −2w; Adam squares g; the norm squares w.
    let cases = [
        (WeightStep { rule: adamw, weight_decay: 3000.0, max_norm: None }, [3.3e38, 0.0], false),
        (WeightStep { rule: adamw, weight_decay: 3000.0, max_norm: None }, [1.6e38, 0.0], true),
        (WeightStep { rule: sgd(300.0), weight_decay: 0.01, max_norm: None }, [3.3e38, 0.0], false),
        (WeightStep { rule: sgd(300.0), weight_decay: 0.01, max_norm: None }, [1.6e38, 0.0], true),
        (WeightStep { rule: adam, weight_decay: 0.0, max_norm: None }, [0.0, 1e25], false),
        (WeightStep { rule: adam, weight_decay: 0.0, max_norm: None }, [0.0, 1e15], true),
        (WeightStep { rule: sgd(0.0), weight_decay: 0.0, max_norm: Some(1.0) }, [1e20, 0.0], false),
        (WeightStep { rule: sgd(0.0), weight_decay: 0.0, max_norm: Some(1.0) }, [1e18, 0.0], true),
    ];
    for (weight_step, [weight, gradient], finite) in cases {
        // One value in the last panel, which is not full.
        let last = |rows: usize, value: f32| {
            let mut values = vec![0.0; rows * outputs];
            values[rows * outputs - 1] = value;
            Panel::from_row_major(rows, outputs, &values)
        };
        let x = Panel::from_row_major(inputs, batch, &vec![1.0; inputs * batch]);
        let dz = last(batch, gradient);
        let WeightStep { rule, weight_decay, max_norm: limit } = weight_step;
        for context in contexts() {
            let mut w = last(inputs, weight);
            let [mut v, mut u] = [(); 2].map(|()| last(inputs, 0.0).buffer);
            let moments = &mut [&mut v[..], &mut u[..]][..rule.moments()];
            let (x, dz) = (x.view(), dz.view());
            let fused =
                weight_update(&context, Factors::f32(x, dz), weight_step, w.view_mut(), moments);

            let mut gradient = last(inputs, 0.0);
            weight_gradient(&context, Factors::f32(x, dz), gradient.view_mut());
            let mut w = last(inputs, weight);
            let [mut v, mut u] = [(); 2].map(|()| last(inputs, 0.0).buffer);
            let moments = &mut [&mut v[..], &mut u[..]][..rule.moments()];
            let stepped =
                step(&context, rule, weight_decay, &mut w.buffer, &gradient.buffer, moments);
            let within = limit.is_none_or(|limit| max_norm(&context, limit, w.view_mut()));
            assert_eq!((fused, stepped && within), (finite, finite), "{weight_step:?}, {weight}");
        }
    }
}
