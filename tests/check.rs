//! `check` names every mistake that it knows. Each is made here once more, as a program would make
//! it: plain code in f32 and in f64, with derivatives by dual numbers where a framework would
//! differentiate and by formula where people do.

use limbeck::tools::check::{CheckCase, CheckReport, MISTAKES, Verdict, check};
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
                            _ => cross_entropy(z, task.y[e], 1.0),
                        };
                }
                let factor = match id {
                    "t_squared_missing" | "mse_of_probs" | "raw_logit_matching" | "logits" => 1.0,
                    "t_instead_of_t_squared" => t,
                    "kl_mean" => t * t / classes,
                    "kl_sum" => t * t * batch,
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

#[test]
fn every_mistake_is_named() {
    let task = task(6, 7, 3.0, 0.75, 0.25);
    for dtype in [Dtype::F32, Dtype::F64] {
        for id in MISTAKES.iter().map(|mistake| mistake.id).chain(["softmax_layer"]) {
            let name = if id == "softmax_layer" { "softmax_twice" } else { id };
            for (loss, d_logits) in given(results(id, &task, dtype)) {
                if id == "max_after_exp" && d_logits.is_none() {
                    // Its loss is infinite: the largest class has probability 0.
                    assert!(!loss.unwrap().is_finite());
                }
                let report = CaseFile::new(&task, dtype, loss, d_logits).report();
                assert_eq!(report.verdict, Verdict::Variant, "{id} {dtype:?} {report:?}");
                assert_eq!(report.variant, Some(name), "{id} {dtype:?} {report:?}");
                assert_eq!(report.fits, [name], "{id} {dtype:?} {report:?}");
                assert!(report.message.contains(name), "{report:?}");
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
                        assert_eq!(report.verdict, Verdict::Agrees, "{t} {dtype:?} {report:?}");
                        assert_eq!(report.variant, None);
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
        let report = unknown(None, Some(wrong));
        assert!(report.message.contains("d_logits[4, 2] = NaN"), "{report:?}");
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
    refused(whole, &["student_logits: found I64, expected F32 or F64"]);
    let unknown = change("loss", &|t| t.0 = "losses");
    refused(unknown, &["found losses, expected only student_logits"]);

    let (_dir, path) = case.save();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(CheckCase::load(&path).unwrap_err().exit_code(), 74);
}
