//! `check` names every mistake that it knows. Each is made here once more, as a program would make
//! it: plain code in f32 and in f64, with derivatives by dual numbers where a framework would
//! differentiate and by formula where people do.

use limbeck::tools::check::check;
use limbeck::tools::check::{
    CheckCase, CheckReport, Divergence, MISTAKES, Precision, Reduction, Verdict,
};
use limbeck::tools::verify;
use limbeck_kernels::reference::{self, log_softmax, softmax};
use ndarray::{Array2, array};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use std::collections::HashMap;
use std::path::PathBuf;
use tempfile::TempDir;

/// What a loss is computed from; f64, but f32's numbers.
#[derive(Clone)]
struct Task {
    z: Vec<Vec<f64>>,
    v: Vec<Vec<f64>>,
    y: Vec<usize>,
    t: f64,
    soft: f64,
    hard: f64,
}

/// `examples` of logits about as far apart as a trained net's.
fn task(examples: usize, classes: usize, t: f64, soft: f64, hard: f64) -> Task {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut logit = || f64::from(rng.next_u32() >> 8) / f64::from(1 << 21) - 4.0;
    let mut rows = || (0..examples).map(|_| (0..classes).map(|_| logit()).collect()).collect();
    let (z, v) = (rows(), rows());
    Task { z, v, y: (0..examples).map(|e| (3 * e + 1) % classes).collect(), t, soft, hard }
}

/// Implementations in one number format: `results` gives a loss and d_logits.
macro_rules! implementations {
    ($format:ident) => {
        mod $format {
            use super::Task;
            use std::ops::{Add, Div, Mul, Sub};

            type F = $format;

            /// x and its derivative by one of the logits.
            #[derive(Clone, Copy)]
            struct Dual {
                x: F,
                d: F,
            }

            impl Add for Dual {
                type Output = Dual;
                fn add(self, o: Dual) -> Dual {
                    Dual { x: self.x + o.x, d: self.d + o.d }
                }
            }
            impl Sub for Dual {
                type Output = Dual;
                fn sub(self, o: Dual) -> Dual {
                    Dual { x: self.x - o.x, d: self.d - o.d }
                }
            }
            impl Mul for Dual {
                type Output = Dual;
                fn mul(self, o: Dual) -> Dual {
                    Dual { x: self.x * o.x, d: self.d * o.x + self.x * o.d }
                }
            }
            impl Div for Dual {
                type Output = Dual;
                fn div(self, o: Dual) -> Dual {
                    let x = self.x / o.x;
                    Dual { x, d: (self.d - x * o.d) / o.x }
                }
            }

            fn constant(x: F) -> Dual {
                Dual { x, d: 0.0 }
            }
            fn exp(a: Dual) -> Dual {
                Dual { x: a.x.exp(), d: a.d * a.x.exp() }
            }
            fn ln(a: Dual) -> Dual {
                Dual { x: a.x.ln(), d: a.d / a.x }
            }
            fn sum(values: &[Dual]) -> Dual {
                values.iter().fold(constant(0.0), |sum, &x| sum + x)
            }
            fn each(a: &[Dual], f: impl Fn(Dual) -> Dual) -> Vec<Dual> {
                a.iter().map(|&a| f(a)).collect()
            }
            fn both(a: &[Dual], b: &[Dual], f: impl Fn(Dual, Dual) -> Dual) -> Vec<Dual> {
                a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
            }

            fn log_softmax(z: &[Dual], t: F) -> Vec<Dual> {
                let scaled = each(z, |z| z / constant(t));
                let max = scaled.iter().fold(F::NEG_INFINITY, |max, z| max.max(z.x));
                let shifted = each(&scaled, |z| z - constant(max));
                let total = ln(sum(&each(&shifted, exp)));
                each(&shifted, |z| z - total)
            }
            fn softmax(z: &[Dual], t: F) -> Vec<Dual> {
                each(&log_softmax(z, t), exp)
            }
            /// Σ target · (ln target − input), as PyTorch's kl_div takes them.
            fn kl_div(input: &[Dual], target: &[Dual]) -> Dual {
                sum(&both(input, target, |input, target| target * (ln(target) - input)))
            }
            fn cross_entropy(z: &[Dual], y: usize, t: F) -> Dual {
                constant(0.0) - log_softmax(z, t)[y]
            }
            fn mse(a: &[Dual], b: &[Dual]) -> Dual {
                let squares = both(a, b, |a, b| (a - b) * (a - b));
                sum(&squares) / constant(a.len() as F)
            }
            /// The logits less their mean.
            fn centred(z: &[Dual]) -> Vec<Dual> {
                let mean = sum(z) / constant(z.len() as F);
                each(z, |z| z - mean)
            }
            fn largest(v: &[Dual]) -> usize {
                (0..v.len()).max_by(|&a, &b| v[a].x.total_cmp(&v[b].x)).unwrap()
            }

            /// The loss of a program with the mistake `id`, or with none.
            fn loss(id: &str, task: &Task, z: &[Vec<Dual>]) -> Dual {
                let (t, batch) = (task.t as F, z.len() as F);
                let classes = z[0].len() as F;
                let (mut soft, mut hard) = (constant(0.0), constant(0.0));
                for (e, z) in z.iter().enumerate() {
                    let v: Vec<Dual> = task.v[e].iter().map(|&v| constant(v as F)).collect();
                    let (p, log_q) = (softmax(&v, t), log_softmax(z, t));
                    soft = soft
                        + match id {
                            "reverse_kl" => kl_div(&each(&p, ln), &each(&log_q, exp)),
                            "probs_as_log_probs" => kl_div(&softmax(z, t), &p),
                            "logits_as_log_probs" => kl_div(&each(z, |z| z / constant(t)), &p),
                            "log_target" => sum(&both(&log_q, &p, |log_q, p| exp(p) * (p - log_q))),
                            "symmetric_kl" => {
                                kl_div(&each(&p, ln), &each(&log_q, exp)) + kl_div(&log_q, &p)
                            }
                            "teacher_softmax_twice" => {
                                kl_div(&log_q, &softmax(&softmax(&v, 1.0), t))
                            }
                            "temperature_multiplied" => {
                                kl_div(&log_softmax(z, 1.0 / t), &softmax(&v, 1.0 / t))
                            }
                            "rows_shifted" => {
                                let next = &task.v[(e + 1) % task.v.len()];
                                let next: Vec<Dual> =
                                    next.iter().map(|&v| constant(v as F)).collect();
                                kl_div(&log_q, &softmax(&next, t))
                            }
                            "teacher_with_itself" => {
                                constant(0.0) - sum(&both(&p, &each(&p, ln), |p, log_p| p * log_p))
                            }
                            "student_detached" => {
                                let x = kl_div(&log_q, &p).x;
                                constant(x)
                            }
                            "softmax_twice" => kl_div(&log_softmax(&softmax(z, t), 1.0), &p),
                            "softmax_layer" => kl_div(&log_softmax(&softmax(z, 1.0), t), &p),
                            "teacher_not_tempered" => kl_div(&log_q, &softmax(&v, 1.0)),
                            "student_not_tempered" => kl_div(&log_softmax(z, 1.0), &p),
                            "mse_of_probs" => mse(&softmax(z, t), &p),
                            "raw_logit_matching" => mse(z, &v),
                            "hard_instead_of_soft" => cross_entropy(z, largest(&v), t),
                            "cross-entropy" => {
                                constant(0.0) - sum(&both(&p, &log_q, |p, log_q| p * log_q))
                            }
                            "logits" => mse(&centred(z), &centred(&v)) / constant(2.0),
                            _ => kl_div(&log_q, &p),
                        };
                    hard = hard
                        + match id {
                            "hard_term_tempered" => cross_entropy(z, task.y[e], t),
                            "softmax_layer" => cross_entropy(&softmax(z, 1.0), task.y[e], 1.0),
                            "label_smoothing" => {
                                let all = sum(&log_softmax(z, 1.0)) / constant(classes);
                                cross_entropy(z, task.y[e], 1.0) * constant(0.9)
                                    - all * constant(0.1)
                            }
                            _ => cross_entropy(z, task.y[e], 1.0),
                        };
                }
                let factor = match id {
                    "t_squared_missing" | "mse_of_probs" | "raw_logit_matching" | "logits" => 1.0,
                    "t_instead_of_t_squared" => t,
                    "kl_mean" => t * t / classes,
                    "kl_sum" => t * t * batch,
                    "mean_twice" => t * t / batch,
                    _ => t * t,
                };
                let (mut soft_weight, mut hard_weight) = (task.soft as F, task.hard as F);
                if id == "weights_swapped" {
                    (soft_weight, hard_weight) = (hard_weight, soft_weight);
                }
                let soft = soft * constant(factor * soft_weight / batch);
                soft + hard * constant(hard_weight / batch)
            }

            /// Loss and d_logits, in f64.
            pub fn results(id: &str, task: &Task) -> (f64, Vec<f64>) {
                if id == "max_after_exp" {
                    return max_after_exp(task);
                }
                let at = |moved: usize| {
                    let mut index = 0;
                    let mut dual = |x: &f64| {
                        index += 1;
                        Dual { x: *x as F, d: if index == moved + 1 { 1.0 } else { 0.0 } }
                    };
                    let z: Vec<Vec<Dual>> =
                        task.z.iter().map(|row| row.iter().map(&mut dual).collect()).collect();
                    loss(id, task, &z)
                };
                let gradient = (0..task.z.len() * task.z[0].len()).map(|k| at(k).d as f64);
                (at(0).x as f64, gradient.collect())
            }

            /// A NumPy program's: e = exp(z/T); e -= e.max(); q = e/e.sum(), its gradient by hand.
            fn max_after_exp(task: &Task) -> (f64, Vec<f64>) {
                let softmax = |z: &[f64], t: F| {
                    let e: Vec<F> = z.iter().map(|&z| (z as F / t).exp()).collect();
                    let max = e.iter().fold(F::NEG_INFINITY, |m, &e| m.max(e));
                    let sum: F = e.iter().map(|e| e - max).sum();
                    e.iter().map(|e| (e - max) / sum).collect::<Vec<F>>()
                };
                let (t, batch) = (task.t as F, task.z.len() as F);
                let (mut loss, mut gradient) = (0.0 as F, Vec::new());
                for e in 0..task.z.len() {
                    let (q, p) = (softmax(&task.z[e], t), softmax(&task.v[e], t));
                    let hard = softmax(&task.z[e], 1.0);
                    for i in 0..q.len() {
                        let y = if i == task.y[e] { 1.0 } else { 0.0 };
                        if p[i] > 0.0 {
                            loss -= task.soft as F * t * t * p[i] * q[i].ln() / batch;
                        }
                        let soft = task.soft as F * t * (q[i] - p[i]);
                        gradient
                            .push((soft + task.hard as F * (hard[i] - y)) as f64 / batch as f64);
                    }
                    loss -= task.hard as F * hard[task.y[e]].ln() / batch;
                }
                (loss as f64, gradient)
            }
        }
    };
}

implementations!(f32);
implementations!(f64);

fn results(id: &str, task: &Task, dtype: Dtype) -> (f64, Vec<f64>) {
    if dtype == Dtype::F32 { f32::results(id, task) } else { f64::results(id, task) }
}

/// The binary16 nearest to x, of those that are normal or 0.
fn half(x: f64) -> u16 {
    let exponent = x.abs().log2().floor();
    if x == 0.0 || exponent < -14.0 {
        return 0;
    }
    let bits = (x.abs() * 2f64.powf(10.0 - exponent)).round_ties_even() as i32 - 1024;
    (bits + (exponent as i32 + 15) * 1024) as u16 | if x < 0.0 { 0x8000 } else { 0 }
}

/// Name, format, shape and values.
type Tensor = (&'static str, Dtype, Vec<usize>, Vec<f64>);

/// A file with tensors and metadata, as other programs write it.
#[derive(Clone)]
struct CaseFile {
    tensors: Vec<Tensor>,
    metadata: HashMap<String, String>,
}

impl CaseFile {
    fn new(task: &Task, dtype: Dtype, loss: Option<f64>, d_logits: Option<Vec<f64>>) -> CaseFile {
        let shape = vec![task.z.len(), task.z[0].len()];
        let mut tensors = vec![("student_logits", dtype, shape.clone(), task.z.concat())];
        tensors.push(("teacher_logits", dtype, shape.clone(), task.v.concat()));
        let labels = task.y.iter().map(|&y| y as f64).collect();
        tensors.push(("labels", Dtype::I64, vec![task.y.len()], labels));
        tensors.extend(loss.map(|loss| ("loss", dtype, vec![1], vec![loss])));
        tensors.extend(d_logits.map(|d| ("d_logits", dtype, shape, d)));
        let numbers =
            [("temperature", task.t), ("soft_weight", task.soft), ("hard_weight", task.hard)];
        let metadata = numbers.map(|(key, number)| (key.to_string(), number.to_string()));
        CaseFile { tensors, metadata: metadata.into_iter().collect() }
    }

    fn without(mut self, name: &str) -> CaseFile {
        self.tensors.retain(|tensor| tensor.0 != name);
        self
    }

    fn with(mut self, key: &str, value: &str) -> CaseFile {
        self.metadata.insert(key.into(), value.into());
        self
    }

    fn save(&self) -> (TempDir, PathBuf) {
        let bytes = |dtype, values: &[f64]| -> Vec<u8> {
            let bytes = |x: &f64| match dtype {
                Dtype::F16 => half(*x).to_le_bytes().to_vec(),
                Dtype::BF16 => (*x as f32).to_le_bytes()[2..].to_vec(),
                Dtype::U8 => vec![*x as u8],
                Dtype::F32 => (*x as f32).to_le_bytes().to_vec(),
                Dtype::F64 => x.to_le_bytes().to_vec(),
                Dtype::I32 => (*x as i32).to_le_bytes().to_vec(),
                Dtype::I64 => (*x as i64).to_le_bytes().to_vec(),
                other => panic!("{other:?}"),
            };
            values.iter().flat_map(bytes).collect()
        };
        let data: Vec<Vec<u8>> =
            self.tensors.iter().map(|(_, dtype, _, values)| bytes(*dtype, values)).collect();
        let views = self.tensors.iter().zip(&data).map(|((name, dtype, shape, _), data)| {
            (*name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("case.safetensors");
        serialize_to_file(views, Some(self.metadata.clone()), &path).unwrap();
        (dir, path)
    }

    fn report(&self) -> CheckReport {
        let (_dir, path) = self.save();
        check(&CheckCase::load(&path).unwrap()).unwrap()
    }

    fn refusal(&self) -> String {
        let (_dir, path) = self.save();
        let error = CheckCase::load(&path).expect_err("accepted");
        assert_eq!(error.exit_code(), 65, "{error}");
        error.to_string()
    }
}

/// The loss alone, the gradient alone, and both.
fn given((loss, d): (f64, Vec<f64>)) -> [(Option<f64>, Option<Vec<f64>>); 3] {
    [(Some(loss), None), (None, Some(d.clone())), (Some(loss), Some(d))]
}

/// What [`every_mistake_is_named`] makes; the tests below make the others.
const MADE: [&str; 24] = [
    "t_squared_missing",
    "t_instead_of_t_squared",
    "kl_mean",
    "kl_sum",
    "mean_twice",
    "log_target",
    "probs_as_log_probs",
    "logits_as_log_probs",
    "reverse_kl",
    "symmetric_kl",
    "softmax_twice",
    "teacher_softmax_twice",
    "teacher_not_tempered",
    "student_not_tempered",
    "temperature_multiplied",
    "hard_term_tempered",
    "label_smoothing",
    "weights_swapped",
    "max_after_exp",
    "mse_of_probs",
    "raw_logit_matching",
    "hard_instead_of_soft",
    "rows_shifted",
    "teacher_with_itself",
];
const MADE_BELOW: [&str; 11] = [
    "seq_batchmean",
    "length_times_classes",
    "padding_counted",
    "mean_of_means",
    "js_of_logs",
    "js_beta",
    "softmax_over_batch",
    "ensemble_of_logits",
    "student_detached",
    "teacher_gradient",
    "teacher_in_training",
];

#[test]
fn no_mistake_is_left_untested() {
    let mut known: Vec<&str> = MISTAKES.iter().map(|mistake| mistake.id).collect();
    let mut made: Vec<&str> = MADE.into_iter().chain(MADE_BELOW).collect();
    known.sort_unstable();
    made.sort_unstable();
    assert_eq!(known, made);
}

#[test]
fn every_mistake_is_named() {
    let task = task(6, 7, 2.5, 0.75, 0.25);
    for dtype in [Dtype::F32, Dtype::F64] {
        for id in MADE.into_iter().chain(["softmax_layer", "student_detached"]) {
            let name = if id == "softmax_layer" { "softmax_twice" } else { id };
            for (loss, d_logits) in given(results(id, &task, dtype)) {
                let of_loss = loss.filter(|_| d_logits.is_none());
                let report = CaseFile::new(&task, dtype, loss, d_logits).report();
                if id == "max_after_exp" && of_loss.is_some() {
                    // Its loss is infinite: the largest class has probability 0.
                    assert_eq!(report.verdict, Verdict::NotFinite, "{report:?}");
                    continue;
                }
                if id == "student_detached" && of_loss.is_some() {
                    assert_eq!(report.verdict, Verdict::Agrees, "{report:?}");
                    continue;
                }
                assert_eq!(report.verdict, Verdict::Variant, "{id} {dtype:?} {report:?}");
                assert!(report.message.contains(name), "{report:?}");
                if ["student_detached", "teacher_with_itself"].contains(&id) {
                    // The gradients are the same.
                    assert!(report.fits.contains(&name), "{id} {dtype:?} {report:?}");
                    continue;
                }
                assert_eq!(report.variant, Some(name), "{id} {dtype:?} {report:?}");
                assert_eq!(report.fits, [name], "{id} {dtype:?} {report:?}");
                assert_eq!(report.mistakes, [name], "{id} {dtype:?} {report:?}");
            }
        }
    }
}

#[test]
fn the_right_loss_agrees_at_every_temperature() {
    for t in [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 1e4] {
        for (soft, hard) in [(1.0, 0.0), (0.75, 0.25), (0.0, 1.0)] {
            let task = task(6, 7, t, soft, hard);
            for dtype in [Dtype::F32, Dtype::F64] {
                for id in ["right", "cross-entropy"] {
                    for (loss, d_logits) in given(results(id, &task, dtype)) {
                        let precise = loss.is_none() && dtype == Dtype::F64;
                        let report = CaseFile::new(&task, dtype, loss, d_logits).report();
                        assert_eq!(report.variant, None);
                        if report.verdict == Verdict::CannotTell {
                            // In f32 nothing is left of a KL below an entropy of 10⁸·ln 7.
                            assert!(
                                t > 100.0 && soft > 0.0 && dtype == Dtype::F32,
                                "{t} {report:?}"
                            );
                            assert!(!report.message.contains("d_logits would"), "{t} {report:?}");
                            continue;
                        }
                        assert_eq!(report.verdict, Verdict::Agrees, "{t} {dtype:?} {report:?}");
                        // The tolerance is no blank cheque, but at 10⁴ the losses have only a few
                        // digits left below their entropy of T²·ln C.
                        if t <= 20.0 || precise {
                            let unit = if dtype == Dtype::F32 { 1e-4 } else { 1e-10 };
                            assert!(report.max_relative_error < unit, "{t} {dtype:?} {report:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_limit_of_high_temperatures_is_the_matching_of_centred_logits() {
    let limit = task(6, 7, f64::INFINITY, 1.0, 0.25);
    for dtype in [Dtype::F32, Dtype::F64] {
        for (loss, d_logits) in given(results("logits", &limit, dtype)) {
            let report = CaseFile::new(&limit, dtype, loss, d_logits).report();
            assert_eq!(report.verdict, Verdict::Agrees, "{report:?}");
        }
        for (loss, d_logits) in given(results("raw_logit_matching", &limit, dtype)) {
            let report = CaseFile::new(&limit, dtype, loss, d_logits).report();
            assert_eq!(report.variant, Some("raw_logit_matching"), "{report:?}");
        }
    }
}

#[test]
fn a_sum_over_the_batch_agrees_where_it_is_said() {
    let task = task(6, 7, 3.0, 1.0, 0.0);
    let (loss, d_logits) = f64::results("right", &task);
    let summed: Vec<f64> = d_logits.iter().map(|d| 6.0 * d).collect();
    let case = CaseFile::new(&task, Dtype::F64, Some(6.0 * loss), Some(summed));
    assert_eq!(case.report().variant, Some("kl_sum"));
    assert_eq!(case.with("reduction", "sum").report().verdict, Verdict::Agrees);
}

#[test]
fn what_a_case_cannot_tell_apart_is_said() {
    // At T = 1 every T² is 1.
    let at_one = task(6, 7, 1.0, 1.0, 0.0);
    let (loss, d_logits) = f64::results("right", &at_one);
    let report = CaseFile::new(&at_one, Dtype::F64, Some(loss), Some(d_logits)).report();
    assert_eq!(report.verdict, Verdict::Agrees);
    let same = [
        "t_squared_missing",
        "t_instead_of_t_squared",
        "teacher_not_tempered",
        "student_not_tempered",
        "temperature_multiplied",
    ];
    assert_eq!(report.fits, same);
    assert!(same.iter().all(|id| report.message.contains(id)), "{report:?}");
    // Ten classes at T = 10: a factor of 1/T and one of 1/C are the same.
    let ten = task(6, 10, 10.0, 1.0, 0.0);
    let (_, d_logits) = f64::results("kl_mean", &ten);
    let report = CaseFile::new(&ten, Dtype::F64, None, Some(d_logits)).report();
    assert_eq!(report.fits, ["t_instead_of_t_squared", "kl_mean"]);
    assert!(report.message.contains("cannot tell it from kl_mean"), "{report:?}");
}

#[test]
fn what_is_unknown_is_placed() {
    let task = task(6, 7, 3.0, 0.75, 0.25);
    for (dtype, off) in [(Dtype::F32, 1e-3), (Dtype::F64, 1e-11)] {
        let (loss, d_logits) = results("right", &task, dtype);
        let unknown = |loss, d_logits| {
            let report = CaseFile::new(&task, dtype, loss, d_logits).report();
            assert_eq!((report.verdict, report.variant), (Verdict::Unknown, None), "{report:?}");
            assert!(report.fits.is_empty());
            report
        };
        // One element of 42, by far more than rounding and far less than any mistake.
        let mut wrong = d_logits.clone();
        wrong[4 * 7 + 2] += off;
        let report = unknown(Some(loss), Some(wrong.clone()));
        assert!(report.message.contains("first difference is d_logits[4, 2]"), "{report:?}");
        assert!(report.max_relative_error > off, "{report:?}");
        wrong[4 * 7 + 2] = f64::NAN;
        let report = CaseFile::new(&task, dtype, None, Some(wrong)).report();
        assert_eq!((report.verdict, report.variant), (Verdict::NotFinite, None), "{report:?}");
        assert!(report.message.contains("d_logits[4, 2] is NaN: not finite"), "{report:?}");
        assert!(report.message.contains("what is finite is right"), "{report:?}");
        assert!(report.max_relative_error.is_infinite());
        let report = unknown(Some(loss * (1.0 + 100.0 * off)), None);
        assert!(report.message.contains("loss = "), "{report:?}");

        // T² in a gradient written by hand.
        let soft_part = f64::results("right", &Task { hard: 0.0, ..task.clone() }).1;
        let hand = d_logits.iter().zip(&soft_part).map(|(d, s)| d + 2.0 * s).collect();
        let report = unknown(None, Some(hand));
        let words = ["3.000000 times its soft part", "1.000000 times its hard", "only T"];
        assert!(words.iter().all(|word| report.message.contains(word)), "{report:?}");
    }
}

#[test]
fn a_mistake_in_the_gradient_alone_is_named() {
    let task = task(6, 7, 3.0, 0.75, 0.25);
    let ((loss, right), (wrong_loss, wrong)) =
        (f64::results("right", &task), f64::results("reverse_kl", &task));
    let report = CaseFile::new(&task, Dtype::F64, Some(loss), Some(wrong)).report();
    assert_eq!(report.variant, Some("reverse_kl"));
    assert!(report.message.contains("though the loss agrees"), "{report:?}");
    let report = CaseFile::new(&task, Dtype::F64, Some(wrong_loss), Some(right)).report();
    assert_eq!(report.variant, Some("reverse_kl"));
    assert!(report.message.contains("though d_logits agrees"), "{report:?}");
}

#[test]
fn an_exponential_that_overflows_in_f32_is_recognised() {
    let mut task = task(6, 7, 2.0, 1.0, 0.0);
    task.z[3][1] = 200.0;
    for (dtype, finite) in [(Dtype::F32, false), (Dtype::F64, true)] {
        let (_, d_logits) = results("max_after_exp", &task, dtype);
        assert_eq!(d_logits.iter().all(|d| d.is_finite()), finite);
        let report = CaseFile::new(&task, dtype, None, Some(d_logits)).report();
        assert_eq!(report.variant, Some("max_after_exp"), "{report:?}");
    }
}

#[test]
fn a_case_may_leave_out_what_it_does_not_need() {
    let task = task(6, 7, 3.0, 1.0, 0.0);
    let (loss, d_logits) = f64::results("right", &task);
    let case = CaseFile::new(&task, Dtype::F64, Some(loss), Some(d_logits));
    assert_eq!(case.clone().without("labels").report().verdict, Verdict::Agrees);
    // Without weights each term that has targets weighs 1.
    let mut bare = case.clone().without("labels");
    bare.metadata.retain(|key, _| key == "temperature");
    assert_eq!(bare.report().verdict, Verdict::Agrees);

    let hard = Task { soft: 0.0, hard: 1.0, ..task };
    let (loss, d_logits) = f64::results("right", &hard);
    let mut labels = CaseFile::new(&hard, Dtype::F64, Some(loss), Some(d_logits));
    labels = labels.without("teacher_logits");
    labels.metadata.clear();
    labels.tensors.iter_mut().filter(|t| t.0 == "labels").for_each(|t| t.1 = Dtype::I32);
    labels.tensors.iter_mut().filter(|t| t.0 == "loss").for_each(|t| t.2.clear());
    assert_eq!(labels.report().verdict, Verdict::Agrees);
}

#[test]
fn malformed_cases_are_refused() {
    let task = task(6, 7, 3.0, 0.75, 0.25);
    let case = CaseFile::new(&task, Dtype::F64, Some(1.0), Some(vec![0.0; 42]));
    let refused = |case: CaseFile, words: &[&str]| {
        let message = case.refusal();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    let mut bare = case.clone();
    bare.metadata.remove("temperature");
    refused(bare, &["case.safetensors: metadata `temperature`: found none", "teacher_logits"]);
    for temperature in ["0", "-1", "nan"] {
        refused(case.clone().with("temperature", temperature), &["temperature", "T > 0"]);
    }
    refused(case.clone().with("temperature", "warm"), &["found warm, expected a number"]);
    refused(case.clone().with("soft_weight", "-1"), &["soft_weight: found -1"]);
    refused(case.clone().with("reduction", "none"), &["`reduction`: found none", "mean or sum"]);
    let both = case.clone().with("soft_weight", "0").with("hard_weight", "0");
    refused(both, &["both 0"]);
    refused(case.clone().without("student_logits"), &["student_logits: found no such tensor"]);
    refused(case.clone().without("teacher_logits"), &["teacher_logits", "soft_weight is 0.75"]);
    refused(case.clone().without("labels"), &["labels", "hard_weight is 0.25"]);
    refused(case.clone().without("loss").without("d_logits"), &["neither", "to be verified"]);

    let change = |name: &str, change: &dyn Fn(&mut Tensor)| {
        let mut changed = case.clone();
        changed.tensors.iter_mut().filter(|t| t.0 == name).for_each(change);
        changed
    };
    refused(
        change("teacher_logits", &|t| t.2 = vec![7, 6]),
        &["teacher_logits: found shape [7, 6], expected [6, 7]"],
    );
    refused(change("d_logits", &|t| t.2 = vec![42]), &["d_logits: found shape [42]"]);
    refused(change("labels", &|t| t.3[5] = 7.0), &["labels[5]: found 7, expected 0 to 6"]);
    refused(change("labels", &|t| t.3[0] = -100.0), &["labels[0]: found -100"]);
    refused(change("labels", &|t| t.2 = vec![6, 1]), &["labels: found shape [6, 1]"]);
    refused(change("labels", &|t| t.1 = Dtype::F64), &["labels: found F64, expected I64 or I32"]);
    refused(change("student_logits", &|t| t.3[9] = f64::NAN), &["student_logits[1, 2]: found NaN"]);
    let infinite = change("teacher_logits", &|t| t.3[0] = f64::INFINITY);
    refused(infinite, &["teacher_logits[0, 0]: found inf"]);
    let whole = change("student_logits", &|t| t.1 = Dtype::I64);
    refused(whole, &["student_logits: found integers, expected F16, BF16, F32 or F64"]);
    let unknown = change("loss", &|t| t.0 = "losses");
    refused(unknown, &["found losses, expected only student_logits"]);

    let (_dir, path) = case.save();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(CheckCase::load(&path).unwrap_err().exit_code(), 74);
}

/// A case without a file: z, v, T, and the soft term alone.
fn case_of(z: Array2<f64>, v: Array2<f64>, temperature: f64, precision: Precision) -> CheckCase {
    CheckCase {
        student_logits: z,
        teacher_logits: Some(v),
        temperature,
        soft_weight: 1.0,
        precision,
        ..CheckCase::default()
    }
}

/// A function of one example's z and v for each of a case, [N, C].
fn each_row(case: &CheckCase, f: impl Fn(&[f64], &[f64]) -> Vec<f64>) -> Array2<f64> {
    let v = case.teacher_logits.as_ref().unwrap();
    let mut out = case.student_logits.clone();
    for e in 0..out.nrows() {
        let row = f(&case.student_logits.row(e).to_vec(), &v.row(e).to_vec());
        out.row_mut(e).assign(&ndarray::Array1::from(row));
    }
    out
}

/// T·(q − p)/N.
fn gradient(case: &CheckCase) -> Array2<f64> {
    let (t, n) = (case.temperature, case.student_logits.nrows() as f64);
    each_row(case, |z, v| {
        let (q, p) = (softmax(z, t), softmax(v, t));
        q.iter().zip(&p).map(|(q, p)| t * (q - p) / n).collect()
    })
}

/// KL(p ‖ q) of each example, without T².
fn divergences(case: &CheckCase) -> Vec<f64> {
    let v = case.teacher_logits.as_ref().unwrap();
    let kl = |e: usize| {
        let v = v.row(e).to_vec();
        let pair = reference::Distillation {
            teacher: Some(&v),
            label: None,
            temperature: case.temperature,
            soft_weight: 1.0,
            hard_weight: 0.0,
        };
        pair.divergence(&case.student_logits.row(e).to_vec())
    };
    (0..v.nrows()).map(kl).collect()
}

fn rounded(d: &Array2<f64>, precision: Precision) -> Array2<f64> {
    if precision == Precision::F32 { d.mapv(|x| f64::from(x as f32)) } else { d.clone() }
}

fn with_gradient(case: &CheckCase, d: Array2<f64>) -> CheckReport {
    let d_logits = Some(rounded(&d, case.precision));
    check(&CheckCase { d_logits, ..case.clone() }).unwrap()
}

fn with_loss(case: &CheckCase, loss: f64) -> CheckReport {
    check(&CheckCase { loss: Some(loss), ..case.clone() }).unwrap()
}

/// Masks of −10⁹, −10³⁰ and −∞ and a common offset of 10⁵ once made the tolerance larger than every
/// value.
#[test]
fn a_masked_logit_or_an_offset_blinds_nothing() {
    let masked = |mask: f64, precision| {
        let (z, v) = (
            array![[0.0, 1.0, mask], [2.0, 0.5, mask]],
            array![[1.0, 0.0, mask], [0.0, 1.5, mask]],
        );
        case_of(z, v, 2.0, precision)
    };
    let offset = case_of(
        array![[1e5, 1e5 + 1.0, 1e5 - 2.0], [1e5 + 0.5, 1e5, 1e5 - 1.0]],
        array![[1e5 + 1.0, 1e5, 1e5], [1e5 - 2.0, 1e5, 1e5 + 0.5]],
        2.0,
        Precision::F32,
    );
    for case in [
        masked(-1e9, Precision::F32),
        masked(-1e30, Precision::F64),
        masked(-1e30, Precision::F32),
        masked(f64::NEG_INFINITY, Precision::F32),
        offset,
    ] {
        let right = gradient(&case);
        let report = with_gradient(&case, right.clone());
        assert_eq!(report.verdict, Verdict::Agrees, "{case:?} {report:?}");
        for factor in [0.0, -1.0, 2.0, 0.5] {
            let report = with_gradient(&case, &right * factor);
            assert_ne!(report.verdict, Verdict::Agrees, "{factor} {case:?} {report:?}");
            assert_ne!(report.verdict, Verdict::CannotTell, "{factor} {case:?} {report:?}");
        }
        let report = with_gradient(&case, &right / 4.0);
        assert_eq!(report.variant, Some("t_squared_missing"), "{case:?} {report:?}");
        let kl = 4.0 * divergences(&case).iter().sum::<f64>() / 2.0;
        assert_eq!(with_loss(&case, kl).verdict, Verdict::Agrees, "{:?}", with_loss(&case, kl));
        assert_eq!(with_loss(&case, kl / 4.0).variant, Some("t_squared_missing"), "{case:?}");
        assert_eq!(with_loss(&case, 0.0).verdict, Verdict::Unknown, "{case:?}");
    }
}

#[test]
fn right_losses_agree_at_the_ends_of_what_is_representable() {
    for precision in [Precision::F32, Precision::F64] {
        // KL of ½, ½ and 1, e⁻⁸⁰⁰: ½·800 − ln 2.
        let gap = case_of(array![[0.0, -800.0]], array![[0.0, 0.0]], 1.0, precision);
        let kl = 400.0 - 2f64.ln();
        assert_eq!(with_loss(&gap, kl).verdict, Verdict::Agrees, "{:?}", with_loss(&gap, kl));
        assert_eq!(with_loss(&gap, 400.0).verdict, Verdict::Agrees, "its cross-entropy");
        for (t, scale) in [(0.01, 1.0), (0.01, 10.0), (1.0, 1e4), (20.0, 1e4)] {
            let z = array![[1.0, -0.5, 0.25, 0.0], [-1.0, 0.5, 1.0, -0.25]] * scale;
            let v = array![[-0.5, 1.0, 0.0, 0.25], [-0.75, 0.5, 1.0, -0.25]] * scale;
            let case = case_of(z, v, t, precision);
            let kl = t * t * divergences(&case).iter().sum::<f64>() / 2.0;
            for report in [with_loss(&case, kl), with_gradient(&case, gradient(&case))] {
                assert_eq!(report.verdict, Verdict::Agrees, "{t} {scale} {report:?}");
            }
        }
        // Both are certain of the same classes: any factor of 0 is 0.
        let same = case_of(array![[1e4, 0.0]], array![[2e4, 0.0]], 1.0, precision);
        assert_eq!(with_loss(&same, 0.0).verdict, Verdict::CannotTell);
    }
}

/// Student and teacher of 6 examples and 7 classes, at T = 4.
fn ordinary(precision: Precision) -> CheckCase {
    let task = task(6, 7, 4.0, 1.0, 0.0);
    let matrix = |rows: &[Vec<f64>]| Array2::from_shape_vec((6, 7), rows.concat()).unwrap();
    case_of(matrix(&task.z), matrix(&task.v), 4.0, precision)
}

#[test]
fn what_is_not_finite_or_near_zero_names_nothing() {
    for precision in [Precision::F32, Precision::F64] {
        let case = ordinary(precision);
        for loss in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let report = with_loss(&case, loss);
            assert_eq!((report.verdict, report.variant), (Verdict::NotFinite, None), "{report:?}");
            let words = [&format!("the loss is {loss}"), "log_target", "0·log 0"];
            assert!(words.iter().all(|word| report.message.contains(*word)), "{report:?}");
        }
        let report = with_gradient(&case, gradient(&case) * f64::NAN);
        assert_eq!((report.verdict, report.variant), (Verdict::NotFinite, None), "{report:?}");
        assert!(report.message.contains("d_logits[0, 0] is NaN (and 41 more)"), "{report:?}");
        // The logarithm of a logarithm is NaN, its gradient is not: −ln p, less q times its sum.
        let wrong = each_row(&case, |z, v| {
            let (q, log_p) = (softmax(z, 4.0), log_softmax(v, 4.0));
            let sum: f64 = log_p.iter().sum();
            (0..7).map(|i| 4.0 * (q[i] * sum - log_p[i]) / 6.0).collect()
        });
        let (loss, d_logits) = (Some(f64::NAN), Some(rounded(&wrong, precision)));
        let report = check(&CheckCase { loss, d_logits, ..case.clone() }).unwrap();
        assert_eq!(report.variant, Some("log_target"), "{report:?}");
        assert!(report.message.contains("the loss is NaN: not finite"), "{report:?}");

        // The teacher compared with itself, in f32.
        let report = with_loss(&case, -6e-6);
        assert_eq!((report.verdict, report.variant), (Verdict::Unknown, None), "{report:?}");
        let report = with_gradient(&case, gradient(&case) * 0.0);
        assert_eq!((report.verdict, report.variant), (Verdict::Unknown, None), "{report:?}");
        assert!(report.message.contains("0 everywhere"), "{report:?}");
    }
}

#[test]
fn two_mistakes_at_once_are_both_named() {
    let both = task(6, 7, 4.0, 0.75, 0.25);
    let part =
        |id: &str, soft: f64, hard: f64| f64::results(id, &Task { soft, hard, ..both.clone() });
    let sum = |(a, x): (f64, Vec<f64>), factor: f64, (b, y): (f64, Vec<f64>)| {
        (factor * a + b, x.iter().zip(&y).map(|(x, y)| factor * x + y).collect::<Vec<f64>>())
    };
    let pairs = [
        ("t_squared_missing", 1.0 / 7.0, "right", ["t_squared_missing", "kl_mean"]),
        ("t_squared_missing", 6.0, "right", ["t_squared_missing", "kl_sum"]),
        ("t_instead_of_t_squared", 1.0 / 7.0, "right", ["t_instead_of_t_squared", "kl_mean"]),
        ("probs_as_log_probs", 1.0 / 7.0, "right", ["kl_mean", "probs_as_log_probs"]),
        ("reverse_kl", 1.0 / 16.0, "right", ["t_squared_missing", "reverse_kl"]),
        ("reverse_kl", 1.0 / 7.0, "right", ["kl_mean", "reverse_kl"]),
        ("kl_mean", 1.0, "hard_term_tempered", ["kl_mean", "hard_term_tempered"]),
        ("t_squared_missing", 1.0, "label_smoothing", ["t_squared_missing", "label_smoothing"]),
        ("teacher_softmax_twice", 1.0 / 7.0, "right", ["kl_mean", "teacher_softmax_twice"]),
    ];
    for (soft, factor, hard, ids) in pairs {
        let (loss, d) = sum(part(soft, 0.75, 0.0), factor, part(hard, 0.0, 0.25));
        for (loss, d) in given((loss, d)) {
            let report = CaseFile::new(&both, Dtype::F64, loss, d).report();
            assert_eq!(report.mistakes, ids, "{report:?}");
            assert!(ids.iter().all(|id| report.message.contains(id)), "{report:?}");
        }
    }
}

/// nn.KLDivLoss() of two softmaxes: the mean over all elements, no T², and no logarithm.
#[test]
fn three_mistakes_at_once_are_named() {
    let task = task(6, 7, 4.0, 1.0, 0.0);
    let (loss, d) = f64::results("probs_as_log_probs", &task);
    let factor = 1.0 / (7.0 * 16.0);
    let d = d.iter().map(|d| factor * d).collect();
    let report = CaseFile::new(&task, Dtype::F64, Some(factor * loss), Some(d)).report();
    assert_eq!(
        report.mistakes,
        ["t_squared_missing", "kl_mean", "probs_as_log_probs"],
        "{report:?}"
    );
}

#[test]
fn a_constant_factor_is_said_of_a_loss_and_of_a_gradient() {
    let case = ordinary(Precision::F64);
    let kl = 16.0 * divergences(&case).iter().sum::<f64>() / 6.0;
    let report = with_loss(&case, 1.7 * kl);
    assert!(report.message.contains("as KL, 1.700000 times"), "{report:?}");
    let report = with_gradient(&case, gradient(&case) * 1.7);
    assert!(report.message.contains("1.700000 times its soft part"), "{report:?}");
    assert!(!report.message.contains("the loss is"), "{report:?}");
}

/// Two sequences of four tokens, of which those after the first three and two are padding.
fn sequences(padded: bool) -> CheckCase {
    let task = task(8, 7, 4.0, 1.0, 0.0);
    let matrix = |rows: &[Vec<f64>]| Array2::from_shape_vec((8, 7), rows.concat()).unwrap();
    let mask = vec![true, true, true, false, true, true, false, false];
    CheckCase {
        length: 4,
        mask: padded.then_some(mask),
        ..case_of(matrix(&task.z), matrix(&task.v), 4.0, Precision::F64)
    }
}

/// Loss and gradient where the examples' divergences have these weights, times T².
fn weighted(case: &CheckCase, weight: impl Fn(usize) -> f64) -> (f64, Array2<f64>) {
    let loss = divergences(case).iter().enumerate().map(|(e, kl)| weight(e) * 16.0 * kl).sum();
    let mut d = gradient(case) * case.student_logits.nrows() as f64;
    d.rows_mut().into_iter().enumerate().for_each(|(e, mut row)| row *= weight(e));
    (loss, d)
}

#[test]
fn reductions_over_sequences_are_told_apart() {
    let report_of = |case: &CheckCase, weight: &dyn Fn(usize) -> f64| {
        let (loss, d) = weighted(case, weight);
        let whole = CheckCase { loss: Some(loss), d_logits: Some(d.clone()), ..case.clone() };
        let reports = [check(&whole).unwrap(), with_loss(case, loss), with_gradient(case, d)];
        assert!(reports.iter().all(|other| other.verdict == reports[0].verdict), "{reports:?}");
        reports
    };
    let counts = |e: usize| [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0][e];
    for (padded, id, weight) in [
        (false, "", &(|_| 1.0 / 8.0) as &dyn Fn(usize) -> f64),
        (true, "", &|e| counts(e) / 5.0),
        // L = T: not to be taken for a gradient that carries T².
        (false, "seq_batchmean", &|_| 1.0 / 2.0),
        (true, "seq_batchmean", &|e| counts(e) / 2.0),
        (true, "seq_batchmean", &|_| 1.0 / 2.0),
        (false, "kl_mean", &|_| 1.0 / 56.0),
        (false, "length_times_classes", &|_| 1.0 / 28.0),
        (true, "kl_mean", &|_| 1.0 / 56.0),
        (true, "kl_sum", &|_| 1.0),
        (true, "padding_counted", &|_| 1.0 / 8.0),
        (true, "padding_counted", &|e| counts(e) / 8.0),
        (true, "padding_counted", &|_| 1.0 / 5.0),
        (true, "mean_twice", &|e| counts(e) / 25.0),
        (true, "mean_of_means", &|e| counts(e) / [3.0, 2.0][e / 4] / 2.0),
    ] {
        let case = sequences(padded);
        for report in report_of(&case, weight) {
            let expected = if id.is_empty() { Verdict::Agrees } else { Verdict::Variant };
            assert_eq!(report.verdict, expected, "{padded} {id} {report:?}");
            assert!(id.is_empty() || report.fits.contains(&id), "{padded} {id} {report:?}");
            assert!(!report.message.contains("only T"), "{report:?}");
        }
        // The same by the labels of tokens that do not count.
        if padded && id.is_empty() {
            let labels = (0..8).map(|e| if counts(e) > 0.0 { 3 } else { -100 }).collect();
            let ignored = CheckCase {
                mask: None,
                labels: Some(labels),
                ignore_index: Some(-100),
                ..case.clone()
            };
            assert!(report_of(&ignored, weight).iter().all(|r| r.verdict == Verdict::Agrees));
        }
    }
    // What is divided by where a sum is wanted.
    for (id, weight) in [("seq_batchmean", 1.0 / 2.0), ("length_times_classes", 1.0 / 28.0)] {
        let case = sequences(false);
        let (loss, d) = weighted(&case, |_| weight);
        let summed = CheckCase { reduction: Reduction::Sum, ..case };
        let report = check(&CheckCase { loss: Some(loss), d_logits: Some(d), ..summed }).unwrap();
        assert!(report.fits.contains(&id), "{id} {report:?}");
    }
    // Where the sides are not told, [8, 7] as [2, 4, 7], it is a factor of the number of tokens.
    let flat = CheckCase { length: 1, ..sequences(false) };
    let (loss, d) = weighted(&flat, |_| 1.0 / 2.0);
    let report = check(&CheckCase { loss: Some(loss), d_logits: Some(d), ..flat }).unwrap();
    assert!(report.message.contains("'batchmean' over [2, 4, 7]"), "{report:?}");
    assert!(!report.message.contains("only T"), "{report:?}");
}

/// What a class adds to a divergence, of p, ln p, q and ln q.
type OfClass<'a> = &'a dyn Fn([f64; 4]) -> f64;
/// Mistakes, each with what it makes of it.
type Wrong<'a> = &'a [(&'a str, OfClass<'a>)];

#[test]
fn other_divergences_are_verified_as_stated() {
    let t = 4.0;
    let rows = |case: &CheckCase| -> Vec<[Vec<f64>; 4]> {
        let v = case.teacher_logits.as_ref().unwrap();
        let each = |e: usize| {
            let (z, v) = (case.student_logits.row(e).to_vec(), v.row(e).to_vec());
            [softmax(&v, t), log_softmax(&v, t), softmax(&z, t), log_softmax(&z, t)]
        };
        (0..v.nrows()).map(each).collect()
    };
    let mean = |case: &CheckCase, f: &dyn Fn([f64; 4]) -> f64| {
        let of = |[p, lp, q, lq]: &[Vec<f64>; 4]| -> f64 {
            (0..p.len()).map(|i| f([p[i], lp[i], q[i], lq[i]])).sum()
        };
        t * t * rows(case).iter().map(of).sum::<f64>() / case.student_logits.nrows() as f64
    };
    let forward = |[p, lp, _, lq]: [f64; 4]| p * (lp - lq);
    let reverse = |[_, lp, q, lq]: [f64; 4]| q * (lq - lp);
    let both = move |x: [f64; 4]| 0.5 * forward(x) + 0.5 * reverse(x);
    let js = |beta: f64| {
        move |[p, lp, q, lq]: [f64; 4]| {
            let log_m = (beta * p + (1.0 - beta) * q).ln();
            beta * p * (lp - log_m) + (1.0 - beta) * q * (lq - log_m)
        }
    };
    let of_logs = |[p, lp, q, lq]: [f64; 4]| {
        let log_m = 0.3 * lp + 0.7 * lq;
        0.3 * p * (lp - log_m) + 0.7 * q * (lq - log_m)
    };
    let cases: [(Divergence, OfClass, Wrong); 3] = [
        (Divergence::Reverse, &reverse, &[("reverse_kl", &forward), ("symmetric_kl", &both)]),
        (Divergence::Symmetric, &both, &[("symmetric_kl", &forward), ("symmetric_kl", &reverse)]),
        (
            Divergence::JensenShannon { beta: 0.3 },
            &js(0.3),
            &[
                ("js_of_logs", &of_logs),
                ("js_beta", &forward),
                ("js_beta", &reverse),
                ("js_beta", &js(0.7)),
            ],
        ),
    ];
    for (divergence, right, wrong) in cases {
        let case = CheckCase { divergence, ..ordinary(Precision::F64) };
        // The gradient by central differences of the loss; its error is far below 10⁻⁷.
        let slope = |f: &dyn Fn([f64; 4]) -> f64| {
            let mut d = case.student_logits.clone();
            for at in ndarray::indices(d.dim()) {
                let moved = |h: f64| {
                    let mut moved = case.clone();
                    moved.student_logits[at] += h;
                    mean(&moved, f)
                };
                d[at] = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            }
            d
        };
        let coarse = CheckCase { precision: Precision::F32, ..case.clone() };
        let report = with_loss(&case, mean(&case, right));
        assert_eq!(report.verdict, Verdict::Agrees, "{divergence:?} {report:?}");
        let report = with_gradient(&coarse, slope(right));
        assert_eq!(report.verdict, Verdict::Agrees, "{divergence:?} {report:?}");
        for (id, wrong) in wrong {
            for report in
                [with_loss(&case, mean(&case, wrong)), with_gradient(&coarse, slope(wrong))]
            {
                assert_eq!(report.variant, Some(*id), "{divergence:?} {report:?}");
            }
        }
    }
}

/// The corrected line is that of the case: of its divergence, reduction, shape and excluded classes.
#[test]
fn the_corrected_line_is_the_cases_own() {
    let says = |case: &CheckCase, parts: &[&str]| {
        let (loss, d) = weighted(case, |_| 0.25);
        let d_logits = Some(d);
        let message =
            check(&CheckCase { loss: Some(loss), d_logits, ..case.clone() }).unwrap().message;
        for part in parts {
            assert!(message.contains(part), "{part:?} not in: {message}");
        }
    };
    let flat = CheckCase { length: 1, ..sequences(false) };
    let of_logs =
        "F.kl_div(F.log_softmax(z / T, -1), F.log_softmax(v / T, -1), reduction='batchmean'";
    says(&flat, &["Right: soft = T * T * ", of_logs]);
    says(
        &CheckCase { reduction: Reduction::Sum, ..flat.clone() },
        &["reduction='sum', log_target"],
    );
    says(&sequences(true), &["Right: z, v = z[mask], v[mask]; soft = T * T * ", of_logs]);
    says(&sequences(false), &["Right: z, v = z.flatten(0, 1), v.flatten(0, 1); soft"]);
    let mut excluded = flat.clone();
    for logits in excluded.teacher_logits.iter_mut().chain([&mut excluded.student_logits]) {
        logits.column_mut(2).fill(f64::NEG_INFINITY);
    }
    says(&excluded, &["x.masked_fill(x == -math.inf, -1e9) for x in (z, v)]; soft", of_logs]);
    // Forward, where the reverse is meant.
    let reverse = CheckCase { divergence: Divergence::Reverse, ..flat };
    let (loss, d) = weighted(&reverse, |_| 0.125);
    let report = check(&CheckCase { loss: Some(loss), d_logits: Some(d), ..reverse }).unwrap();
    assert_eq!(report.variant, Some("reverse_kl"));
    let line = "KL(teacher ‖ student). Right: soft = T * T * F.kl_div(F.log_softmax(v / T, -1), \
                F.log_softmax(z / T, -1), reduction";
    assert!(report.message.contains(line), "{}", report.message);
}

/// Two mistakes that are one factor are called that too.
#[test]
fn a_factor_that_two_mistakes_make_may_have_another_cause() {
    let task = task(8, 7, 4.0, 1.0, 0.0);
    let matrix = |rows: &[Vec<f64>]| Array2::from_shape_vec((8, 7), rows.concat()).unwrap();
    let case = case_of(matrix(&task.z), matrix(&task.v), 4.0, Precision::F64);
    let (loss, d) = weighted(&case, |_| 0.5 / 8.0);
    let report = check(&CheckCase { loss: Some(loss), d_logits: Some(d), ..case }).unwrap();
    assert!(
        report.message.contains("together a factor of 0.5000 in the soft term"),
        "{}",
        report.message
    );
}

/// No program can give the number that its format cannot hold, and nobody one that does not exist.
#[test]
fn what_cannot_be_given_is_not_asked_for() {
    let far = |scale: f64| {
        let z = array![[scale, 0.0, -scale], [0.0, scale, -scale]];
        let v = array![[-scale, 0.0, scale], [scale, -scale, 0.0]];
        CheckCase { rounded_logits: true, ..case_of(z, v, 40.0, Precision::F16) }
    };
    let case = far(4096.0);
    let d_logits = Some(gradient(&case));
    let report = check(&CheckCase { loss: Some(f64::INFINITY), d_logits, ..case }).unwrap();
    // Of probabilities of 0 and 1 nothing can be told, but nothing is wrong.
    assert_eq!((report.verdict, report.untold), (Verdict::CannotTell, Some("loss")), "{report:?}");
    assert!(report.message.contains("is beyond f16"), "{report:?}");
    // Where f16 holds it, it is wrong.
    let case = far(512.0);
    let d_logits = Some(gradient(&case));
    let report = check(&CheckCase { loss: Some(f64::INFINITY), d_logits, ..case }).unwrap();
    assert_eq!(report.verdict, Verdict::NotFinite, "{report:?}");

    let mut excluded = ordinary(Precision::F64);
    excluded.divergence = Divergence::Reverse;
    excluded.teacher_logits.as_mut().unwrap()[(0, 0)] = f64::NEG_INFINITY;
    let report = with_loss(&excluded, 1.0);
    assert_eq!(report.verdict, Verdict::CannotTell, "{report:?}");
}

#[test]
fn softmax_over_the_batch_is_named() {
    let case = ordinary(Precision::F64);
    let columns = |logits: &Array2<f64>| {
        let mut out = logits.clone();
        for (mut column, values) in out.columns_mut().into_iter().zip(logits.columns()) {
            column.assign(&ndarray::Array1::from(softmax(&values.to_vec(), 4.0)));
        }
        out
    };
    let (p, q) = (columns(case.teacher_logits.as_ref().unwrap()), columns(&case.student_logits));
    let loss = 16.0 * (&p * &(p.ln() - q.ln())).sum() / 6.0;
    let d = (&q - &p) * 4.0 / 6.0;
    for report in [with_loss(&case, loss), with_gradient(&case, d)] {
        assert_eq!(report.variant, Some("softmax_over_batch"), "{report:?}");
    }
}

#[test]
fn an_ensemble_is_a_mean_of_probabilities() {
    let first = ordinary(Precision::F64);
    let other = first.teacher_logits.as_ref().unwrap().mapv(|v| 2.0 - 1.5 * v * v);
    let case = CheckCase { ensemble: vec![other.clone()], ..first.clone() };
    let mean = each_row(&case, |_, v| softmax(v, 4.0));
    let others = case_of(first.student_logits.clone(), other.clone(), 4.0, Precision::F64);
    let mean = (mean + each_row(&others, |_, v| softmax(v, 4.0))) / 2.0;
    let q = each_row(&case, |z, _| softmax(z, 4.0));
    let report = with_gradient(&case, (&q - &mean) * 4.0 / 6.0);
    assert_eq!(report.verdict, Verdict::Agrees, "{report:?}");
    let logits = (first.teacher_logits.as_ref().unwrap() + &other) / 2.0;
    let averaged = case_of(first.student_logits, logits, 4.0, Precision::F64);
    let report = with_gradient(&case, gradient(&averaged));
    assert_eq!(report.variant, Some("ensemble_of_logits"), "{report:?}");
}

#[test]
fn what_reaches_the_teacher_is_named() {
    let case = ordinary(Precision::F64);
    let d = gradient(&case);
    let right = CheckCase { d_logits: Some(d.clone()), ..case.clone() };
    let shown = |case: CheckCase| check(&case).unwrap();
    let teacher = case.teacher_logits.clone();
    let still = CheckCase { teacher_logits_again: teacher.clone(), ..right.clone() };
    assert_eq!(shown(still).verdict, Verdict::Agrees);
    let none = CheckCase { d_teacher: Some(&d * 0.0), ..right.clone() };
    assert_eq!(shown(none).verdict, Verdict::Agrees);
    let flows = CheckCase { d_teacher: Some(-&d), ..right.clone() };
    assert_eq!(shown(flows).variant, Some("teacher_gradient"));
    let dropout = teacher.map(|v| v * 1.25);
    let training = CheckCase { teacher_logits_again: dropout, ..right };
    assert_eq!(shown(training).variant, Some("teacher_in_training"));
    // The wrong side is detached.
    let detached = CheckCase { d_logits: Some(&d * 0.0), d_teacher: Some(-&d), ..case };
    assert_eq!(shown(detached).mistakes, ["teacher_gradient", "student_detached"]);
}

#[test]
fn half_precision_is_judged_as_such() {
    let task = task(6, 7, 2.0, 0.75, 0.25);
    let (loss, d) = f64::results("right", &task);
    for (dtype, name) in [(Dtype::F16, "f16"), (Dtype::BF16, "bf16")] {
        let case = CaseFile::new(&task, dtype, Some(loss), Some(d.clone()));
        let report = case.report();
        assert_eq!(report.verdict, Verdict::Agrees, "{report:?}");
        assert!(report.message.contains(&format!("rounding of {name}")), "{report:?}");
        assert!(!report.message.contains("ULP"), "{report:?}");
        let (wrong, wrong_d) = f64::results("kl_mean", &task);
        let report = CaseFile::new(&task, dtype, Some(wrong), Some(wrong_d)).report();
        assert_eq!(report.variant, Some("kl_mean"), "{report:?}");
    }
    // The same, stored wider: an error of 2⁻¹¹ is one of f32's, unless it is said.
    let coarse: Vec<f64> = d.iter().map(|d| d * (1.0 + 2f64.powi(-11))).collect();
    let case = CaseFile::new(&task, Dtype::F32, None, Some(coarse));
    let report = case.report();
    assert_eq!(report.verdict, Verdict::Unknown);
    assert!(report.message.contains("would be right in f16"), "{report:?}");
    // f32, stored as f64.
    let (loss, d) = f32::results("right", &task);
    let report = CaseFile::new(&task, Dtype::F64, Some(loss), Some(d)).report();
    assert_eq!(report.verdict, Verdict::Unknown);
    assert!(report.message.contains("right in f32"), "{report:?}");
    for name in ["f16", "torch.float16", "bf16"] {
        let report = case.clone().with("precision", name).report();
        assert_eq!(report.verdict, Verdict::Agrees, "{report:?}");
    }
    let message = case.with("precision", "f8").refusal();
    assert!(message.contains("`precision`: found f8, expected f16, bf16, f32 or f64"), "{message}");
}

#[test]
fn a_case_that_tells_nothing_says_so() {
    for precision in [Precision::F32, Precision::F64] {
        let equal = CheckCase {
            teacher_logits: Some(ordinary(precision).student_logits),
            ..ordinary(precision)
        };
        for report in [with_loss(&equal, 0.0), with_gradient(&equal, gradient(&equal))] {
            assert_eq!((report.verdict, report.variant), (Verdict::CannotTell, None), "{report:?}");
            assert!(report.message.contains("0, negated, doubled or halved"), "{report:?}");
        }
    }
}

/// The student excludes a class. What the teacher gives it is 0 in f32 or infinity, if it underflows
/// there; else the right loss is infinite, and a finite one is not it.
#[test]
fn an_infinite_loss_is_none_that_is_finite() {
    for (v, verdict) in [(-200.0, Verdict::CannotTell), (-1.0, Verdict::Unknown)] {
        let z = array![[0.0, 1.0, f64::NEG_INFINITY]];
        let case = case_of(z, array![[1.0, 0.0, v]], 1.0, Precision::F32);
        let others = case_of(array![[0.0, 1.0]], array![[1.0, 0.0]], 1.0, Precision::F32);
        let report = with_loss(&case, divergences(&others)[0]);
        assert_eq!(report.verdict, verdict, "{report:?}");
    }
}

/// A sum of 14,000 terms in f32 may be off by as much as half of a small KL: the gradient tells what
/// the loss cannot.
#[test]
fn a_gradient_settles_what_a_loss_cannot() {
    let task = task(2, 14_000, 4.0, 1.0, 0.0);
    let matrix = |rows: &[Vec<f64>]| Array2::from_shape_vec((2, 14_000), rows.concat()).unwrap();
    let (z, other) = (matrix(&task.z), matrix(&task.v));
    let case = case_of(z.clone(), z + 0.43 * other, 4.0, Precision::F32);
    let kl = 16.0 * divergences(&case).iter().sum::<f64>() / 2.0;
    assert!((0.4..0.6).contains(&kl), "{kl}");
    let d = rounded(&gradient(&case), Precision::F32);
    let both = |loss: f64, d: &Array2<f64>| {
        let (loss, d_logits) = (Some(loss), Some(d.clone()));
        check(&CheckCase { loss, d_logits, ..case.clone() }).unwrap()
    };
    assert_eq!(with_loss(&case, kl).verdict, Verdict::CannotTell);
    for loss in [kl, kl * 0.5] {
        let report = both(loss, &d);
        assert_eq!((report.verdict, report.untold), (Verdict::Agrees, Some("loss")), "{report:?}");
        assert!(report.message.starts_with("d_logits agrees"), "{report:?}");
        assert!(report.message.contains("of the loss nothing can be told"), "{report:?}");
    }
    for (loss, d) in [(10.0 * kl, d.clone()), (kl, &d * 0.5), (kl, &d * 0.0), (kl, -&d)] {
        let report = both(loss, &d);
        assert!(
            [Verdict::Variant, Verdict::Unknown].contains(&report.verdict),
            "{loss} {report:?}"
        );
    }
    // In f64 both tell.
    let fine = CheckCase { precision: Precision::F64, ..case };
    let report = check(&CheckCase { loss: Some(kl), d_logits: Some(gradient(&fine)), ..fine });
    assert_eq!(report.map(|r| (r.verdict, r.untold)), Ok((Verdict::Agrees, None)));
}

#[test]
fn sequences_masks_and_archives_are_read() {
    let case = sequences(true);
    let (loss, d) = weighted(&case, |e| if case.counts(e) { 0.2 } else { 0.0 });
    let (z, v) = (&case.student_logits, case.teacher_logits.as_ref().unwrap());
    let mask = |e| if case.counts(e) { 1.0 } else { 0.0 };
    let flat = |values: &Array2<f64>| values.iter().copied().collect::<Vec<f64>>();
    let file = CaseFile {
        tensors: vec![
            ("student_logits", Dtype::F64, vec![2, 4, 7], flat(z)),
            ("teacher_logits", Dtype::F64, vec![2, 4, 7], flat(v)),
            ("mask", Dtype::U8, vec![2, 4], (0..8).map(mask).collect()),
            ("loss", Dtype::F64, vec![], vec![loss]),
            ("d_logits", Dtype::F64, vec![2, 4, 7], flat(&d)),
        ],
        metadata: HashMap::from([("temperature".to_string(), "4".to_string())]),
    };
    assert_eq!(file.report().verdict, Verdict::Agrees, "{:?}", file.report());
    let mut ensemble = file.clone();
    ensemble.tensors[1] =
        ("teacher_logits", Dtype::F64, vec![2, 2, 4, 7], [flat(v), flat(v)].concat());
    assert_eq!(ensemble.report().verdict, Verdict::Agrees, "{:?}", ensemble.report());

    // What numpy.savez writes: .npy files, stored.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("case.npz");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    let mut write = |name: &str, shape: String, values: &[f64]| {
        use std::io::Write;
        let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}");
        let stored = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored);
        archive.start_file(format!("{name}.npy"), stored).unwrap();
        archive.write_all(b"\x93NUMPY\x01\x00\x76\x00").unwrap();
        archive.write_all(format!("{header:<117}\n").as_bytes()).unwrap();
        values.iter().for_each(|x| archive.write_all(&x.to_le_bytes()).unwrap());
    };
    for (name, _, shape, values) in &file.tensors {
        let sides: Vec<String> = shape.iter().map(|side| format!("{side},")).collect();
        write(name, format!("({})", sides.concat()), values);
    }
    write("temperature", "()".into(), &[4.0]);
    archive.finish().unwrap();
    let report = check(&CheckCase::load(&path).unwrap()).unwrap();
    assert_eq!(report.verdict, Verdict::Agrees, "{report:?}");
    let plain = dir.path().join("case");
    std::fs::rename(&path, &plain).unwrap();
    assert_eq!(check(&CheckCase::load_npz(&plain).unwrap()).unwrap(), report);
}

#[test]
fn logits_kept_in_another_order_are_noticed() {
    let task = task(200, 10, 4.0, 0.75, 0.25);
    let (loss, _) = f64::results("right", &Task { z: task.z[..3].to_vec(), ..task.clone() });
    let report = CaseFile::new(&task, Dtype::F64, Some(loss), None).report();
    assert!(report.message.contains("in the order of the examples?"), "{report:?}");
}

/// Random losses in all precisions, right ones and wrong ones; a million with `LIMBECK_FULL`.
#[test]
fn check_is_not_fooled() {
    let full = std::env::var_os("LIMBECK_FULL").is_some();
    let found = verify::check::verify(if full { 1_000_000 } else { 3000 });
    println!("{found}");
    found.faults.verdict().unwrap();
    assert!(found.ordinary.cases > 500 && found.one_mistake.cases > 500);
    // Most are named, not only refused.
    assert!(found.one_mistake.named * 10 > found.one_mistake.cases * 8, "{found}");
}

/// Wrong losses that once agreed: f32 at T from 300 to 440,000, whose rounding is as large as the
/// values of the mistake, so that it was taken to show nothing; and in f16 a pair whose mistakes
/// outweigh each other, and one that is infinite but for underflow.
#[test]
fn rounding_does_not_hide_a_mistake_that_is_as_small() {
    let found = verify::check::of_seeds(&[1126, 1996, 2121, 2177, 2282, 3464, 3862, 2216, 3619]);
    found.faults.verdict().unwrap();
}

/// A soft term that is a hundredth of a loss in f32 at T = 40 could be dropped, negated or doubled within the
/// loss's bound, which grows as T²: the loss alone says nothing of it, its gradient does.
#[test]
fn each_term_must_be_told_by_what_agrees() {
    let mut random = task(8, 10, 40.0, 0.7, 0.3);
    for row in random.z.iter_mut().chain(&mut random.v) {
        row.iter_mut().for_each(|z| *z = f64::from((*z / 40.0) as f32));
    }
    let (loss, d) = f32::results("right", &random);
    let matrix = |rows: &[Vec<f64>]| Array2::from_shape_vec((8, 10), rows.concat()).unwrap();
    let case = |loss: Option<f64>, d: Option<&Vec<f64>>| CheckCase {
        labels: Some(random.y.iter().map(|&y| y as i64).collect()),
        soft_weight: 0.7,
        hard_weight: 0.3,
        loss,
        d_logits: d.map(|d| Array2::from_shape_vec((8, 10), d.clone()).unwrap()),
        ..case_of(matrix(&random.z), matrix(&random.v), 40.0, Precision::F32)
    };
    let alone = check(&case(Some(loss), None)).unwrap();
    assert_eq!(alone.verdict, Verdict::CannotTell, "{alone:?}");
    assert!(alone.message.contains("soft term"), "{}", alone.message);
    let gradient = check(&case(None, Some(&d))).unwrap();
    assert_eq!(gradient.verdict, Verdict::Agrees, "{gradient:?}");
    // In f64 the loss tells both.
    let (loss, _) = f64::results("right", &random);
    let fine = CheckCase { precision: Precision::F64, ..case(Some(loss), None) };
    assert_eq!(check(&fine).unwrap().verdict, Verdict::Agrees);
}

/// The page's table of mistakes is that of the source.
#[test]
fn the_page_lists_every_mistake() {
    let page = std::fs::read_to_string(
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/verification.md"),
    );
    let page = page.unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> =
        MISTAKES.iter().map(|m| format!("| `{}` | {} | {} |", m.id, m.says, m.formula)).collect();
    let rows: Vec<&str> = rows
        .into_iter()
        .filter(|row| MISTAKES.iter().any(|m| row.starts_with(&format!("| `{}`", m.id))))
        .collect();
    assert_eq!(rows, expected, "docs/verification.md");
}
