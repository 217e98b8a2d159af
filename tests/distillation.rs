//! What distillation promises: closed forms of its gradient, the teacher's logits, ensembles,
//! unlabelled transfer sets, and a student that is better for it.
#![cfg(feature = "paper")]

mod common;

use common::{Minibatch, Silent, UNIT, best, engine_logits, engine_step};
use common::{noise, small_net, uniform, whole, widen};
use limbeck::Result;
use limbeck::engine::config::{Config, OptimizerKind};
use limbeck::engine::data;
use limbeck::engine::distill;
use limbeck::engine::loss::LossSpec;
use limbeck::engine::mlp::Mlp;
use limbeck::engine::reference::{Batch, Net};
use limbeck::engine::trainer::{self, EpochRecord, Observer, Progress, Task, Trained};
use limbeck_datasets::{Split, glyphs};
use limbeck_kernels::random::{Dropout, Key};
use limbeck_kernels::reference::softmax;

const CLASSES: usize = 10;

/// 19 examples, teacher and labels for a small net whose logits are some units apart.
fn small_case(objective: LossSpec) -> (Mlp, Minibatch) {
    let mut model = small_net(&[12, 9, CLASSES], 1);
    model.params_mut().iter_mut().for_each(|w| *w *= 2.0);
    let split = noise(2, 19, 3, CLASSES as u8);
    let teacher = uniform(3, 19 * CLASSES).iter().map(|v| 4.0 * *v as f32).collect();
    (model, Minibatch { objective, teacher: Some(teacher), ..whole(&split) })
}

const fn objective(temperature: f32, soft_weight: f32, hard_weight: f32) -> LossSpec {
    LossSpec { temperature, soft_weight, hard_weight }
}

#[test]
fn d_logits_of_each_example_sum_to_zero() {
    for objective in [LossSpec::HARD, objective(20.0, 1.0, 0.0), objective(3.0, 0.6, 0.4)] {
        let (model, batch) = small_case(objective);
        let LossSpec { temperature, soft_weight, hard_weight } = objective;
        // q and p sum to 1 within (C + 1)·2⁻²⁴ each (see `softmax`), so do their multiples, and
        // as much again for the rounding of each difference.
        let weight = f64::from(2.0 * soft_weight * temperature + hard_weight) / 19.0;
        let allowed = 2.0 * (CLASSES + 1) as f64 * UNIT * weight;
        for row in engine_step(&best(1), &model, &batch).d_logits.chunks(CLASSES) {
            let sum: f64 = widen(row).iter().sum();
            assert!(sum.abs() <= allowed, "{sum} {objective:?}");
            assert!(row.iter().any(|d| f64::from(d.abs()) > 100.0 * allowed), "{row:?}");
        }
    }
}

#[test]
fn a_teacher_with_the_students_logits_leaves_nothing_to_learn() {
    for temperature in [0.7, 1.0, 2.0, 20.0] {
        let (model, mut batch) = small_case(objective(temperature, 1.0, 0.0));
        batch.teacher = Some(engine_logits(&best(1), &model, &batch));
        let step = engine_step(&best(1), &model, &batch);
        assert!(step.d_logits.iter().all(|&d| d == 0.0), "{temperature}: {:?}", step.d_logits);
        assert!(step.grads.iter().all(|&g| g == 0.0));
        // A small change of one of the teacher's logits is seen.
        batch.teacher.as_mut().unwrap()[0] += 0.01;
        assert!(engine_step(&best(1), &model, &batch).grads.iter().any(|&g| g != 0.0));
    }
}

/// ‖a − b‖ / ‖b‖
fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn at_high_temperatures_the_logits_are_matched() {
    let (model, batch) = small_case(objective(20.0, 1.0, 0.0));
    let batch_size = batch.size as f64;
    let exact = batch.exact(&model);
    let (logits, teacher) = (Net::new(&model).logits(&exact), exact.teacher.clone().unwrap());
    // The centred difference of the logits over C (paper, section 2.1). That it is reached as 1/T,
    // and the difference that is not centred never, is tested with the kernels' reference.
    let limit = logits.rows().into_iter().zip(teacher.rows()).flat_map(|(z, v)| {
        let difference = &z - &v;
        let mean = difference.sum() / CLASSES as f64;
        (difference - mean) / CLASSES as f64
    });
    let limit: Vec<f64> = limit.collect();
    let gradient = |temperature: f64| -> Vec<f64> {
        let loss = objective(temperature as f32, 1.0, 0.0);
        (Batch { loss, ..exact.clone() }.d_logits(&logits) * batch_size).into_iter().collect()
    };
    // Infinity is the limit, in the engine too.
    assert!(relative_error(&gradient(f64::INFINITY), &limit) < 1e-14);
    let at_infinity = Minibatch { objective: objective(f32::INFINITY, 1.0, 0.0), ..batch.clone() };
    let engine = widen(&engine_step(&best(1), &model, &at_infinity).d_logits);
    let engine: Vec<f64> = engine.iter().map(|d| batch_size * d).collect();
    // Logits of at most 50 within 30 roundings, over 10 classes.
    let off = engine.iter().zip(&limit).fold(0.0, |m: f64, (d, limit)| m.max((d - limit).abs()));
    assert!(off < 50.0 * 30.0 / CLASSES as f64 * UNIT, "{off}");
    // The engine, in f32 at T = 20, against the same function; it divides by the batch too.
    let engine = engine_step(&best(1), &model, &batch).d_logits;
    let expected = gradient(20.0);
    // Logits of at most 50 within 30 roundings move q·T by q·50·30·2⁻²⁴, and q is below ½.
    let allowed = (0.5 * 50.0 * 30.0 + 20.0 * 16.0) * UNIT;
    for (d, expected) in widen(&engine).iter().zip(&expected) {
        assert!((19.0 * d - expected).abs() < allowed, "{} {expected}", 19.0 * d);
    }
    let error = relative_error(&expected, &limit);
    assert!((0.01..0.25).contains(&error), "the approximation at T = 20: {error}");
}

/// A quick configuration for 3×4 images.
fn small_config() -> Config {
    let mut config = Config { seed: 5, ..Config::default() };
    config.model.layers = vec![12, 16, CLASSES];
    config.training.epochs = 3;
    config.training.batch_size = 16;
    config
}

fn train(
    config: &Config,
    split: &Split,
    objective: LossSpec,
    teacher_logits: Option<&[f32]>,
) -> Result<Trained> {
    let task = Task { objective, teacher_logits, ..Task::hard("student", config, split) };
    trainer::train(&best(1), &task, None, &mut Silent)
}

fn sha256(trained: Result<Trained>) -> String {
    trained.unwrap().model.to_file().sha256()
}

#[test]
fn a_term_of_weight_zero_is_not_there() {
    let (config, split) = (small_config(), noise(1, 50, 3, CLASSES as u8));
    let logits: Vec<f32> = uniform(2, 50 * CLASSES).iter().map(|v| 4.0 * *v as f32).collect();
    let hard = sha256(train(&config, &split, LossSpec::HARD, None));
    assert_eq!(sha256(train(&config, &split, objective(20.0, 0.0, 1.0), Some(&logits))), hard);
    assert_ne!(sha256(train(&config, &split, objective(20.0, 0.1, 1.0), Some(&logits))), hard);

    let soft = sha256(train(&config, &split, objective(20.0, 1.0, 0.0), Some(&logits)));
    let mut relabelled = split.clone();
    relabelled.labels.as_mut().unwrap().iter_mut().for_each(|y| *y = 9 - *y);
    for other in [relabelled, split.clone().without_labels()] {
        assert_eq!(sha256(train(&config, &other, objective(20.0, 1.0, 0.0), Some(&logits))), soft);
    }
    assert_ne!(sha256(train(&config, &split, objective(20.0, 1.0, 0.1), Some(&logits))), soft);
}

/// The reducible loss of each epoch.
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn on_step(&mut self, _: &Progress) {}
    fn on_epoch(&mut self, record: &EpochRecord) -> Result<()> {
        self.0.push(record.reducible_loss);
        Ok(())
    }
    fn warn(&mut self, message: &str) {
        panic!("{message}");
    }
}

/// With T² in the loss, training at T differs from that at T = ∞ by O(1/T), in what is learnt and
/// in what is reported: logits of at most 50 over T, some steps on.
#[test]
fn training_at_high_temperatures_tends_to_the_matching_of_logits() {
    let (config, split) = (small_config(), noise(1, 50, 3, CLASSES as u8));
    let logits: Vec<f32> = uniform(2, 50 * CLASSES).iter().map(|v| 4.0 * *v as f32).collect();
    let trained = |temperature: f32| {
        let mut losses = Losses(Vec::new());
        let objective = objective(temperature, 1.0, 0.0);
        let task = Task {
            objective,
            teacher_logits: Some(&logits),
            ..Task::hard("student", &config, &split)
        };
        let model = trainer::train(&best(1), &task, None, &mut losses).unwrap().model;
        (widen(model.params()), losses.0)
    };
    let (limit, limit_losses) = trained(f32::INFINITY);
    assert!(limit_losses[2] < limit_losses[0], "{limit_losses:?}");
    for temperature in [1e3, 1e6, 1e12, 1e30] {
        let (params, losses) = trained(temperature);
        // What rounding adds to 1/T over a dozen steps of f32.
        let near = 100.0 / f64::from(temperature) + 1e-4;
        let off = relative_error(&params, &limit);
        assert!(off < near, "T = {temperature:e}: {off}");
        for (loss, limit) in losses.iter().zip(&limit_losses) {
            assert!(*loss >= 0.0 && (loss / limit - 1.0).abs() < near, "{temperature:e}: {loss}");
        }
    }
}

#[test]
fn what_the_loss_needs_and_does_not_have_is_refused() {
    let (config, split) = (small_config(), noise(1, 50, 3, CLASSES as u8));
    let logits = vec![0.0; 50 * CLASSES];
    let refusal = |split: &Split, objective, logits: Option<&[f32]>| {
        let error = train(&config, split, objective, logits).err().expect("accepted");
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string()
    };
    let unlabelled = split.clone().without_labels();
    let message = refusal(&unlabelled, objective(20.0, 1.0, 0.25), Some(&logits));
    assert!(message.contains("no labels") && message.contains("hard_weight is 0.25"), "{message}");
    assert!(refusal(&unlabelled, LossSpec::HARD, None).contains("no labels"));
    let message = refusal(&split, objective(20.0, 1.0, 0.0), None);
    assert!(message.contains("found 0 values, expected 50 examples × 10"), "{message}");
    let message = refusal(&split, objective(20.0, 1.0, 0.0), Some(&logits[..490]));
    assert!(message.contains("found 490"), "{message}");
    assert!(refusal(&split.truncated(0), LossSpec::HARD, None).contains("empty"));
}

/// |error| of a logit: each of its at most `chain` operations rounds a sum of absolute terms,
/// which for these nets is below 50.
fn logit_tolerance(chain: usize) -> f64 {
    50.0 * chain as f64 * UNIT
}

#[test]
fn teachers_answer_in_evaluation_mode() {
    let split = noise(4, 600, 3, CLASSES as u8);
    let mut config = small_config();
    config.model.dropout = Some(vec![0.2, 0.5]);
    config.data.jitter = Some(2);
    let teacher = train(&config, &split, LossSpec::HARD, None).unwrap().model;
    let context = best(1);
    let ask = |context| {
        distill::teacher_logits(context, std::slice::from_ref(&teacher), &split, 20.0, None)
    };
    let logits = ask(&context);
    assert_eq!(ask(&context), logits);
    assert_eq!(ask(&best(3)), logits);

    // The images as they lie, in batches of any size, without a mask or its scale.
    let exact_logits = |batch: &Minibatch| -> Vec<f64> {
        Net::new(&teacher).logits(&batch.exact(&teacher)).into_iter().collect()
    };
    let expected = exact_logits(&whole(&split));
    for (found, expected) in widen(&logits).iter().zip(&expected) {
        assert!((found - expected).abs() < logit_tolerance(12 + 16), "{found} {expected}");
    }
    // With dropout the logits are others: what is checked here is not always true.
    let mut batch = whole(&split);
    batch.dropout = vec![None, Some(Dropout::new(Key::new(0, 1, 0), 0.5, 600))];
    let dropped = exact_logits(&batch);
    assert!(relative_error(&dropped, &expected) > 0.1);
}

#[test]
fn an_ensembles_soft_targets_are_the_mean_of_its_members() {
    let split = noise(4, 100, 3, CLASSES as u8);
    let teachers = [small_net(&[12, 20, CLASSES], 1), small_net(&[12, 7, 8, CLASSES], 2)];
    let exact_logits = |teacher: &Mlp| Net::new(teacher).logits(&whole(&split).exact(teacher));
    let members = teachers.each_ref().map(exact_logits);
    for temperature in [1.0f32, 2.0, 20.0] {
        let t = f64::from(temperature);
        let logits = distill::teacher_logits(&best(1), &teachers, &split, temperature, None);
        let mut means = [Vec::new(), Vec::new()];
        for (e, found) in logits.chunks(CLASSES).map(widen).enumerate() {
            let [a, b] = [0, 1].map(|m| softmax(&members[m].row(e).to_vec(), t));
            let mean: Vec<f64> = a.iter().zip(&b).map(|(a, b)| (a + b) / 2.0).collect();
            for (found, mean) in found.iter().zip(&mean) {
                // The relative error of a probability is the absolute one of its logit over T;
                // the result is rounded once more.
                let allowed = logit_tolerance(40) + t * 16.0 * UNIT + found.abs() * UNIT;
                assert!((found - t * mean.ln()).abs() < allowed, "{found} {}", t * mean.ln());
            }
            let p = softmax(&found, t);
            assert!(relative_error(&p, &mean) < 1e-5, "{p:?} {mean:?}");
            let geometric = ((&members[0].row(e) + &members[1].row(e)) / 2.0).to_vec();
            means[0].extend(p);
            means[1].extend(softmax(&geometric, t));
        }
        // Not the geometric mean, which the mean of the logits would give.
        assert!(relative_error(&means[0], &means[1]) > 0.01 / (t * t));
    }
    // A constant beside each row's logits changes nothing. At a high T theirs are not what is left of
    // rounded probabilities, and in the end those of the mean.
    let centred = |row: &[f64]| -> Vec<f64> {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        row.iter().map(|z| z - mean).collect()
    };
    for temperature in [150.0f32, 1e4, 1e7, 1e30] {
        let t = f64::from(temperature);
        let logits = distill::teacher_logits(&best(1), &teachers, &split, temperature, None);
        for (e, found) in logits.chunks(CLASSES).map(widen).enumerate() {
            let [a, b] = [0, 1].map(|m| members[m].row(e).to_vec());
            let expected: Vec<f64> = if t > 1e5 {
                a.iter().zip(&b).map(|(a, b)| (a + b) / 2.0).collect()
            } else {
                let [a, b] = [softmax(&a, t), softmax(&b, t)];
                a.iter().zip(&b).map(|(a, b)| t * ((a + b) / 2.0).ln()).collect()
            };
            for (found, expected) in centred(&found).iter().zip(centred(&expected)) {
                let near = (found - expected).abs() < logit_tolerance(40);
                assert!(near, "T = {t}: {found} {expected}");
            }
        }
    }
    // But for the matching of logits it is their mean.
    let logits = distill::teacher_logits(&best(1), &teachers, &split, f32::INFINITY, None);
    for (found, mean) in logits.iter().zip((&members[0] + &members[1]) / 2.0) {
        assert!((f64::from(*found) - mean).abs() < logit_tolerance(40), "{found} {mean}");
    }
}

#[test]
fn an_ensemble_of_one_is_its_member() {
    let split = noise(4, 100, 3, CLASSES as u8);
    let teacher = small_net(&[12, 20, CLASSES], 1);
    let alone =
        distill::teacher_logits(&best(1), std::slice::from_ref(&teacher), &split, 3.0, None);
    assert_eq!(alone, teacher.logits(&best(1), &split));
    let twice = distill::teacher_logits(&best(1), &[teacher.clone(), teacher], &split, 3.0, None);
    for (alone, twice) in alone.chunks(CLASSES).zip(twice.chunks(CLASSES)) {
        let [p, q] = [alone, twice].map(|logits| softmax(&widen(logits), 3.0));
        assert!(relative_error(&p, &q) < 1e-5, "{p:?} {q:?}");
    }
}

/// Few examples of the embedded digits: the plain net overfits, the distilled one has a teacher
/// that saw them shifted and through dropout. The same net, initial weights, order and steps.
#[test]
fn a_distilled_student_beats_its_equal_budget_baseline() {
    let context = best(2);
    let dataset = glyphs::load(1, 2000, 3000);
    let config = |width: usize, epochs: usize| {
        let mut config = Config::default();
        config.model.layers = vec![784, width, width, 10];
        config.training.epochs = epochs;
        config.training.batch_size = 64;
        config.training.optimizer = OptimizerKind::Adam;
        config.training.learning_rate = 1e-3;
        config
    };
    let errors = |config: &Config, objective, teacher_logits| {
        let split = &dataset.train;
        let task = Task { objective, teacher_logits, ..Task::hard("net", config, split) };
        let model = trainer::train(&context, &task, None, &mut Silent).unwrap().model;
        let errors = data::evaluate(&context, &model, &dataset.test).unwrap().errors;
        (model, errors)
    };
    let mut with_dropout = config(400, 40);
    with_dropout.model.dropout = Some(vec![0.2, 0.5, 0.5]);
    with_dropout.data.jitter = Some(2);
    let plain = config(200, 40);
    let (teacher, teacher_errors) = errors(&with_dropout, LossSpec::HARD, None);
    let (_, baseline_errors) = errors(&plain, LossSpec::HARD, None);
    let logits = distill::teacher_logits(&context, &[teacher], &dataset.train, 20.0, None);
    let (_, student_errors) = errors(&plain, objective(20.0, 1.0, 0.0), Some(&logits));
    // Of 3000, on every machine: teacher 247, baseline 481, student 393. Of the gap between
    // baseline and teacher the student has to close a fifth.
    let figures =
        format!("teacher {teacher_errors}, baseline {baseline_errors}, student {student_errors}");
    assert!(teacher_errors < student_errors, "{figures}");
    assert!(student_errors * 10 < baseline_errors * 9, "{figures}");
}
