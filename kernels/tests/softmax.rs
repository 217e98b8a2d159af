//! Softmax, log-softmax and the distillation gradient against the f64 reference.

mod common;

use common::{Data, EPS, Panel, assert_within, same_bits_everywhere, widen};
use limbeck_kernels::softmax::{Distillation, Loss, log_softmax, softmax};
use limbeck_kernels::{Context, reference};

const TEMPERATURES: [f32; 6] = [0.5, 1.0, 2.0, 5.0, 20.0, 1e4];
/// Those of the distillation loss: the matching of logits too.
const LOSS_TEMPERATURES: [f32; 7] = [0.5, 1.0, 2.0, 5.0, 20.0, 1e4, f32::INFINITY];

/// What rounding in the subnormal range adds.
const TINY: f64 = 1e-44;

/// The soft term and the gradient both count as 0 below 2⁻¹⁰⁰.
const NEGLIGIBLE: f64 = 2.0 / (1u128 << 100) as f64;

/// One example's logits in f64.
fn example(logits: &Panel, lane: usize) -> Vec<f64> {
    (0..logits.rows).map(|row| logits.view().get(row, lane).into()).collect()
}

/// Logits [classes, 19] of all kinds: every lane in its own range, with equal and extreme ones.
fn logits(data: &mut Data, classes: usize) -> Panel {
    let mut values = Vec::new();
    for class in 0..classes {
        for lane in 0..19 {
            values.push(match lane {
                0 => 3.25,
                1 if class % 2 == 0 => 1e4,
                1 => -1e4,
                2 if class == classes / 2 => 1e4,
                3 => -1e4 + data.value(),
                4..8 => 1e4 * data.value(),
                8..12 => 100.0 * data.value(),
                _ => 8.0 * data.value(),
            });
        }
    }
    Panel::from_row_major(classes, 19, &values)
}

/// Row-major [classes, lanes] from a function of one example's logits.
fn by_example(logits: &Panel, of: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let columns: Vec<Vec<f64>> = (0..logits.lanes).map(|lane| of(&example(logits, lane))).collect();
    (0..logits.rows).flat_map(|row| columns.iter().map(move |column| column[row])).collect()
}

#[test]
fn softmax_is_within_its_error_bound_and_has_the_same_bits_everywhere() {
    let mut data = Data::new(20);
    for classes in [2, 10, 17, 1000, 14_000] {
        let logits = logits(&mut data, classes);
        for temperature in TEMPERATURES {
            let t = f64::from(temperature);
            let name = format!("softmax of {classes} classes at T = {temperature}");
            let got = same_bits_everywhere(&name, |context| {
                let mut q = Panel::unwritten(classes, logits.lanes);
                softmax(context, logits.view(), temperature, q.view_mut());
                q.row_major()
            });
            let want = by_example(&logits, |z| reference::softmax(z, t));
            let bound = by_example(&logits, |z| reference::softmax_bounds(z, t));
            assert_within(&name, &got, &want, &bound);
            assert!(got.iter().all(|q| (0.0..=1.0).contains(q)), "{name}: not in 0 … 1");
            for lane in 0..logits.lanes {
                let column = got.iter().skip(lane).step_by(logits.lanes);
                let sum: f64 = column.map(|&q| f64::from(q)).sum();
                let error = (sum - 1.0).abs();
                let bound = (classes + 1) as f64 * EPS;
                assert!(error <= bound, "{name}: example {lane} sums to {sum}");
            }
        }
    }
}

#[test]
fn log_softmax_is_within_its_error_bound_and_has_the_same_bits_everywhere() {
    let mut data = Data::new(21);
    for classes in [2, 10, 17, 1000, 14_000] {
        let logits = logits(&mut data, classes);
        for temperature in TEMPERATURES {
            let t = f64::from(temperature);
            let name = format!("log-softmax of {classes} classes at T = {temperature}");
            let got = same_bits_everywhere(&name, |context| {
                let mut q = Panel::unwritten(classes, logits.lanes);
                log_softmax(context, logits.view(), temperature, q.view_mut());
                q.row_major()
            });
            let want = by_example(&logits, |z| reference::log_softmax(z, t));
            let bound = by_example(&logits, |z| reference::log_softmax_bounds(z, t));
            assert_within(&name, &got, &want, &bound);
            assert!(got.iter().all(|&log_q| log_q <= 0.0), "{name}: above 0");
        }
    }
}

#[test]
fn known_distributions() {
    // Two classes: softmax is the logistic function of the difference over T.
    let logits = Panel::from_row_major(2, 3, &[3.0, 10.0, -1.0, 1.0, 10.0, 7.0]);
    for context in common::contexts() {
        let mut q = Panel::unwritten(2, 3);
        softmax(&context, logits.view(), 2.0, q.view_mut());
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        for (lane, difference) in [2.0, 0.0, -8.0].into_iter().enumerate() {
            let got = f64::from(q.view().get(0, lane));
            assert!((got - logistic(difference / 2.0)).abs() < 4.0 * EPS, "{got}");
        }
    }
    // C equal logits: exactly uniform where C is a power of two.
    let equal = Panel::from_row_major(8, 1, &[1e4; 8]);
    same_bits_everywhere("equal logits", |context| {
        let mut q = Panel::unwritten(8, 1);
        softmax(context, equal.view(), 20.0, q.view_mut());
        assert_eq!(q.row_major(), [0.125; 8]);
        q.row_major()
    });
}

#[test]
fn a_nan_logit_is_never_hidden() {
    for class in 0..3 {
        let mut values = [1.0, 2.0, 3.0];
        values[class] = f32::NAN;
        let logits = Panel::from_row_major(3, 1, &values);
        let task = Distillation { labels: Some(&[0]), ..task() };
        for context in common::contexts() {
            let mut q = Panel::unwritten(3, 1);
            softmax(&context, logits.view(), 1.0, q.view_mut());
            assert!(q.row_major().iter().all(|q| q.is_nan()));
            assert!(gradient(&context, &task, &logits).1.hard.is_nan());
        }
    }
}

/// No teacher, no labels, T = 1, both weights 1.
fn task() -> Distillation<'static> {
    Distillation {
        teacher: None,
        labels: None,
        temperature: 1.0,
        soft_weight: 1.0,
        hard_weight: 1.0,
    }
}

/// The gradient, row-major, and the loss summed over the panels; asserts that padding is zero.
fn gradient(context: &Context, task: &Distillation, logits: &Panel) -> (Vec<f32>, Loss) {
    let unwritten = Loss { soft: f64::NAN, divergence: f64::NAN, hard: f64::NAN };
    let mut losses = vec![unwritten; logits.view().panels()];
    let mut d_logits = Panel::unwritten(logits.rows, logits.lanes);
    task.gradient(context, logits.view(), &mut losses, d_logits.view_mut());
    d_logits.assert_padding_is_zero("d_logits");
    let loss = losses.iter().fold(Loss::default(), |sum, loss| Loss {
        soft: sum.soft + loss.soft,
        divergence: sum.divergence + loss.divergence,
        hard: sum.hard + loss.hard,
    });
    (d_logits.row_major(), loss)
}

/// The same in the reference's terms, for one example.
fn exact<'a>(
    task: &Distillation,
    teacher: Option<&'a [f64]>,
    lane: usize,
) -> reference::Distillation<'a> {
    reference::Distillation {
        teacher,
        label: task.labels.map(|labels| labels[lane].into()),
        temperature: task.temperature.into(),
        soft_weight: task.soft_weight.into(),
        hard_weight: task.hard_weight.into(),
    }
}

/// Bounds for one example: of each gradient component before the division by the batch, and of
/// the soft and the hard loss.
fn bounds(task: &reference::Distillation, z: &[f64]) -> (Vec<f64>, f64, f64) {
    let classes = z.len();
    let (mut d, mut soft, mut hard) = (vec![0.0; classes], 0.0, 0.0);
    let t = task.temperature;
    if let Some(teacher) = task.teacher.filter(|_| t.is_infinite()) {
        // d = z − v has one rounding, its mean those of a sum and a quotient; the difference of
        // the two is rounded once more, and so are the scale, three times, and the product.
        let differences: Vec<f64> = z.iter().zip(teacher).map(|(z, v)| z - v).collect();
        let n = classes as f64;
        let size = differences.iter().map(|d| d.abs()).sum::<f64>() / n;
        let mean = differences.iter().sum::<f64>() / n;
        for (i, difference) in differences.iter().enumerate() {
            let centred = difference - mean;
            let error = EPS * (difference.abs() + (n + 1.0) * size + centred.abs());
            d[i] += task.soft_weight / n * (error + 4.0 * EPS * centred.abs()) + TINY;
            // Of the square, and of a chain of multiply-adds.
            soft += 0.5 / n * ((2.0 * centred.abs() + error) * error + n * EPS * centred * centred);
        }
    } else if let Some(teacher) = task.teacher {
        let factor = task.soft_weight * t;
        for logits in [z, teacher] {
            let (powers, sum) = reference::power_errors(logits, t);
            let q = reference::softmax(logits, t);
            for i in 0..classes {
                // Two roundings of the scale, one of its quotient by S, one of the product, and
                // one of the difference.
                d[i] += factor * (q[i] * (powers[i] + sum + 5.0 * EPS) + TINY);
            }
        }
        // CE = ln S − Σ p·x: the error of ln S, and for each term that of p, of x, and of a
        // chain of `classes` multiply-adds and the division by the sum of p.
        let (powers, sum) = reference::power_errors(teacher, t);
        let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let p = reference::softmax(teacher, t);
        let chain = classes as f64 * EPS + sum + 3.0 * EPS;
        let terms = (0..classes).map(|i| (max - z[i]) / t * (p[i] * (powers[i] + chain) + TINY));
        soft = reference::power_errors(z, t).1 + terms.sum::<f64>();
    }
    if let Some(label) = task.label {
        let (powers, sum) = reference::power_errors(z, 1.0);
        let q = reference::softmax(z, 1.0);
        let so_far = task.teacher.map_or(vec![0.0; classes], |_| {
            reference::Distillation { label: None, ..*task }.gradient(z)
        });
        for i in 0..classes {
            let y = if i == label { 1.0 } else { 0.0 };
            let product = task.hard_weight * q[i];
            // The weight's rounding, its quotient by S, the multiply-add, and the label's.
            d[i] += product * (powers[i] + sum + 2.0 * EPS) + task.hard_weight * TINY;
            d[i] += EPS * (so_far[i].abs() + product);
            d[i] += EPS * (so_far[i].abs() + product + 2.0 * task.hard_weight) * y;
        }
        // CE = ln S − (z_y − m), the difference in f64.
        hard = sum;
    }
    (d, soft, hard)
}

#[test]
fn gradient_and_losses_are_within_their_error_bounds() {
    let mut data = Data::new(22);
    for classes in [2, 10, 17, 1000] {
        let (logits, teacher) = (logits(&mut data, classes), logits(&mut data, classes));
        let batch = logits.lanes;
        let labels: Vec<u16> =
            (0..batch).map(|_| (data.bits() as usize % classes) as u16).collect();
        for temperature in LOSS_TEMPERATURES {
            for (soft, hard) in [
                (Some(teacher.view()), None),
                (None, Some(&labels[..])),
                (Some(teacher.view()), Some(&labels[..])),
            ] {
                let task = Distillation {
                    teacher: soft,
                    labels: hard,
                    temperature,
                    soft_weight: 0.7,
                    hard_weight: 0.3,
                };
                let name = format!(
                    "{classes} classes, T = {temperature}, teacher {}, labels {}",
                    soft.is_some(),
                    hard.is_some()
                );
                let mut losses = Vec::new();
                let got = same_bits_everywhere(&name, |context| {
                    let (got, loss) = gradient(context, &task, &logits);
                    losses.push(loss);
                    got
                });
                assert!(losses.iter().all(|loss| loss == &losses[0]), "{name}: losses differ");

                let (mut want, mut bound) = (vec![0.0; got.len()], vec![0.0; got.len()]);
                let (mut loss, mut loss_bound) = (Loss::default(), Loss::default());
                for lane in 0..batch {
                    let (z, v) = (example(&logits, lane), example(&teacher, lane));
                    let exact = exact(&task, soft.map(|_| &v[..]), lane);
                    let (d_bound, soft_bound, hard_bound) = bounds(&exact, &z);
                    let d = exact.gradient(&z);
                    let sum: f64 =
                        got.iter().skip(lane).step_by(batch).map(|&d| f64::from(d)).sum();
                    let sum_bound = d_bound.iter().sum::<f64>() / batch as f64;
                    assert!(sum.abs() <= sum_bound, "{name}: example {lane} sums to {sum:e}");
                    for class in 0..classes {
                        want[class * batch + lane] = d[class] / batch as f64;
                        bound[class * batch + lane] =
                            d_bound[class] / batch as f64 + TINY + NEGLIGIBLE;
                    }
                    loss.soft += exact.soft_loss(&z);
                    // The entropy is the loss of a student that equals its teacher.
                    loss.divergence += exact.divergence(&z);
                    loss_bound.divergence += soft_bound + bounds(&exact, &v).1;
                    loss.hard += exact.hard_loss(&z);
                    loss_bound.soft += soft_bound;
                    loss_bound.hard += hard_bound;
                }
                assert_within(&name, &got, &want, &bound);
                let subnormal = got.iter().any(|d| d.is_subnormal());
                assert!(!subnormal || temperature.is_infinite(), "{name}: subnormal");
                for (got, want, bound) in [
                    (losses[0].soft, loss.soft, loss_bound.soft),
                    (losses[0].divergence, loss.divergence, loss_bound.divergence),
                    (losses[0].hard, loss.hard, loss_bound.hard),
                ] {
                    // 1e-12 for the sum's own f64.
                    let room = bound + 1e-12 * want;
                    assert!((got - want).abs() <= room, "{name}: loss {got}, expected {want}");
                }
            }
        }
    }
}

/// T²·KL and the gradient at T from the first above the ordinary ones to the largest f32.
///
/// With d the differences less their mean and w the widest |z − m|, |v − m|: d has the roundings
/// of three differences and of a mean of C terms, at most δ = (C + 6)·ε·4w; T²·KL = Σ p·d²·φ₂ then
/// has 2δ/|d| of each term and C + 40 roundings, and p·(d·φ₁ − M) an error of p·(2δ + (C + 40)·ε·2w)
/// before p's own.
#[test]
fn the_divergence_and_the_gradient_keep_their_digits_at_high_temperatures() {
    let mut data = Data::new(29);
    for classes in [2, 10, 1000] {
        let (logits, teacher) = (data.panel(classes, 5), data.panel(classes, 5));
        for temperature in [101.0, 1e3, 1e6, 1e12, 1e30, f32::MAX] {
            let task = Distillation { teacher: Some(teacher.view()), temperature, ..task() };
            let name = format!("{classes} classes, T = {temperature:e}");
            let mut losses = Vec::new();
            let got = same_bits_everywhere(&name, |context| {
                let (got, loss) = gradient(context, &task, &logits);
                losses.push(loss);
                got
            });
            assert!(losses.iter().all(|loss| loss == &losses[0]), "{name}: losses differ");
            let square = f64::from(temperature).powi(2);
            let (mut divergence, mut room) = (0.0, 0.0);
            for lane in 0..5 {
                let (z, v) = (example(&logits, lane), example(&teacher, lane));
                let exact = exact(&task, Some(&v), lane);
                let limit = reference::Distillation { temperature: f64::INFINITY, ..exact };
                let width = |x: &[f64]| {
                    let fold = |f: fn(f64, f64) -> f64, from| x.iter().copied().fold(from, f);
                    fold(f64::max, f64::MIN) - fold(f64::min, f64::MAX)
                };
                let w = width(&z).max(width(&v));
                let roundings = (classes + 40) as f64 * EPS;
                let delta = (classes + 6) as f64 * EPS * 4.0 * w;
                let kl = square * exact.divergence(&z);
                divergence += kl;
                room += roundings * kl + 4.0 * delta * (kl.sqrt() + delta);
                let p = reference::softmax(&v, temperature.into());
                let powers = reference::power_errors(&v, temperature.into());
                for (class, d) in exact.gradient(&z).into_iter().enumerate() {
                    let own = d.abs() * (powers.0[class] + powers.1 + 5.0 * EPS);
                    let bound = p[class] * (2.0 * delta + roundings * 2.0 * w) + own;
                    let off = (5.0 * f64::from(got[class * 5 + lane]) - d).abs();
                    assert!(off <= bound + TINY, "{name}: class {class}, example {lane}: {off:e}");
                    // The limit is nearer than 2w²/T.
                    let far = (d - limit.gradient(&z)[class]).abs();
                    let near = 4.0 * w * w / f64::from(temperature) + 1e-12 * w;
                    assert!(far <= near, "{name}: {far:e} off the limit");
                }
            }
            let off = (square * losses[0].divergence - divergence).abs();
            assert!(off <= room, "{name}: T²·KL is off by {off:e} of {divergence}");
        }
    }
}

#[test]
fn gradient_of_many_classes_has_the_same_bits_everywhere() {
    // Enough values for the parallel path.
    let mut data = Data::new(23);
    let (logits, teacher) = (data.panel(1000, 40), data.panel(1000, 40));
    let labels = vec![7; 40];
    let task = Distillation {
        teacher: Some(teacher.view()),
        labels: Some(&labels),
        temperature: 3.0,
        ..task()
    };
    let mut losses = Vec::new();
    same_bits_everywhere("1000 classes, 40 examples", |context| {
        let (got, loss) = gradient(context, &task, &logits);
        losses.push(loss);
        got
    });
    assert!(losses.iter().all(|loss| loss == &losses[0]));
}

#[test]
fn an_identical_teacher_gives_exactly_no_soft_gradient() {
    let mut data = Data::new(24);
    for classes in [2, 10, 1000] {
        let logits = logits(&mut data, classes);
        for temperature in LOSS_TEMPERATURES {
            let task = Distillation { teacher: Some(logits.view()), temperature, ..task() };
            let got = same_bits_everywhere("identical teacher", |context| {
                gradient(context, &task, &logits).0
            });
            assert!(got.iter().all(|&d| d == 0.0), "{classes} classes, T = {temperature}");
        }
    }
}

#[test]
fn the_ends_of_alpha_leave_one_loss() {
    let mut data = Data::new(25);
    let (logits, teacher) = (data.panel(10, 21), data.panel(10, 21));
    let labels: Vec<u16> = (0..21).map(|_| (data.bits() % 10) as u16).collect();
    let both = Distillation {
        teacher: Some(teacher.view()),
        labels: Some(&labels),
        temperature: 4.0,
        ..task()
    };
    for context in common::contexts() {
        let of = |task: Distillation| gradient(&context, &task, &logits);
        let (hard_only, loss) = of(Distillation { teacher: None, ..both });
        assert_eq!(of(Distillation { soft_weight: 0.0, ..both }).0, hard_only);
        assert_eq!(loss.soft, 0.0);
        let (soft_only, loss) = of(Distillation { labels: None, ..both });
        assert_eq!(of(Distillation { hard_weight: 0.0, ..both }).0, soft_only);
        assert_eq!(loss.hard, 0.0);
        // The controls: each of the two is something, and they differ.
        assert!(hard_only.iter().zip(&soft_only).all(|(a, b)| *a != 0.0 && a != b));
        let (nothing, loss) = of(Distillation { teacher: None, labels: None, ..both });
        assert!(nothing.iter().all(|&d| d == 0.0));
        assert_eq!(loss, Loss::default());
    }
}

#[test]
fn labels_alone_give_softmax_minus_one_hot() {
    let logits = Data::new(26).panel(10, 5);
    let labels = [3, 0, 9, 9, 1];
    for context in common::contexts() {
        let mut q = Panel::unwritten(10, 5);
        softmax(&context, logits.view(), 1.0, q.view_mut());
        // T belongs to the soft term alone.
        let task = Distillation { labels: Some(&labels), temperature: 20.0, ..task() };
        let (got, _) = gradient(&context, &task, &logits);
        let want: Vec<f64> = (0..50)
            .map(|i| {
                let y = if i / 5 == usize::from(labels[i % 5]) { 1.0 } else { 0.0 };
                (f64::from(q.row_major()[i]) - y) / 5.0
            })
            .collect();
        assert_within("label only", &got, &want, &[4.0 * EPS; 50]);
    }
}

/// A student's and a teacher's ten logits, roughly N(0, 4).
fn ten_logits() -> (Vec<f64>, Vec<f64>) {
    let mut data = Data::new(27);
    let mut normal = || 2.0 * (0..3).map(|_| f64::from(data.value())).sum::<f64>();
    ((0..10).map(|_| normal()).collect(), (0..10).map(|_| normal()).collect())
}

#[test]
fn the_reference_gradient_is_the_derivative_of_the_reference_loss() {
    let (z, v) = ten_logits();
    for temperature in [0.5, 1.0, 4.0, 20.0, f64::INFINITY] {
        let task = reference::Distillation {
            teacher: Some(&v),
            label: Some(4),
            temperature,
            soft_weight: 0.7,
            hard_weight: 0.4,
        };
        let gradient = task.gradient(&z);
        let differs = |wrong: f64| {
            (0..10).any(|i| {
                let h = 1e-5;
                let (mut up, mut down) = (z.clone(), z.clone());
                up[i] += h;
                down[i] -= h;
                let slope = (task.loss(&up) - task.loss(&down)) / (2.0 * h);
                (slope - wrong * gradient[i]).abs() > 1e-7
            })
        };
        assert!(!differs(1.0), "T = {temperature}");
        // The control: the check sees a gradient that is 1 % too long.
        assert!(differs(1.01), "T = {temperature}");
    }
}

#[test]
fn at_high_temperature_the_gradient_tends_to_the_centred_difference_of_logits() {
    let (z, v) = ten_logits();
    let mean = |x: &[f64]| x.iter().sum::<f64>() / 10.0;
    let centred: Vec<f64> =
        (0..10).map(|i| ((z[i] - mean(&z)) - (v[i] - mean(&v))) / 10.0).collect();
    let raw: Vec<f64> = (0..10).map(|i| (z[i] - v[i]) / 10.0).collect();
    let distance = |temperature: f64, limit: &[f64]| {
        let task = reference::Distillation {
            teacher: Some(&v),
            label: None,
            temperature,
            soft_weight: 1.0,
            hard_weight: 0.0,
        };
        let d = task.gradient(&z);
        d.iter().zip(limit).map(|(d, limit)| (d - limit).powi(2)).sum::<f64>().sqrt()
    };
    for temperature in [100.0, 1e3, 1e4] {
        // O(1/T): half the distance at twice the temperature.
        let ratio = distance(2.0 * temperature, &centred) / distance(temperature, &centred);
        assert!((ratio - 0.5).abs() < 0.02, "T = {temperature}: {ratio}");
    }
    assert!(distance(1e4, &centred) < 1e-3);
    // The control: against the uncentred difference it does not converge.
    assert!(distance(1e4, &raw) > 0.1);
}

#[test]
fn the_squared_temperature_keeps_the_gradient_s_size() {
    // Without T² in the loss the gradient would shrink a hundredfold from T = 10 to T = 100.
    let (z, v) = ten_logits();
    let values = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<_>>();
    let logits = Panel::from_row_major(10, 1, &values(&z));
    let teacher = Panel::from_row_major(10, 1, &values(&v));
    for context in common::contexts() {
        let norm = |temperature: f32| {
            let task = Distillation { teacher: Some(teacher.view()), temperature, ..task() };
            let d = widen(&gradient(&context, &task, &logits).0);
            d.iter().map(|d| d * d).sum::<f64>().sqrt()
        };
        let ratio = norm(100.0) / norm(10.0);
        assert!((0.8..1.25).contains(&ratio), "{ratio}");
    }
}
