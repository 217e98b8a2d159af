//! Whether `check` can be fooled: random losses, right ones and wrong ones, judged by it.
//!
//! The losses are computed here once more, as programs compute them: plain code that rounds each
//! operation to f16, bf16, f32 or f64, with gradients as automatic differentiation makes them. Sums in
//! half precision are accumulated in f32. Logits come with common offsets up to 10⁵, gaps of 10⁴,
//! masked classes and padded tokens, at T from 0.01 to 10⁶ with 2 to 14,000 classes.

use super::{Faults, Place, for_each_job, workers};
use crate::tools::check::{CheckCase, CheckReport, Divergence, Precision, Verdict, check};
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// Cases of a job.
const JOB: usize = 250;

/// A mistake that moves no result by this share of it is none in the case at hand.
const NOTICEABLE: f64 = 0.125;

/// How `check` judged cases of a kind.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Judged {
    /// Cases.
    pub cases: usize,
    /// Those that agree.
    pub agree: usize,
    /// Those of which the mistake, or both, were named, alone or with others that fit.
    pub named: usize,
    /// Those that are wrong in an unknown way.
    pub unknown: usize,
    /// Those that overflow.
    pub not_finite: usize,
    /// Those that cannot be told from others.
    pub cannot_tell: usize,
}

/// What became of the cases.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// Right losses: none may be called wrong.
    pub right: Judged,
    /// Right losses of ordinary size, T from ½ to 20 in f32 or f64, whose student and teacher differ:
    /// all must agree.
    pub ordinary: Judged,
    /// One mistake: none may agree.
    pub one_mistake: Judged,
    /// Two at once: none may agree.
    pub two_mistakes: Judged,
    /// Mistakes that moved no result by an eighth, which are not judged.
    pub unnoticeable: usize,
    /// What does not hold.
    pub faults: Faults,
}

impl Display for Check {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        writeln!(f, "               cases    agree    named  unknown  not finite  cannot tell")?;
        for (name, of) in [
            ("right", self.right),
            ("ordinary", self.ordinary),
            ("one mistake", self.one_mistake),
            ("two mistakes", self.two_mistakes),
        ] {
            let Judged { cases, agree, named, unknown, not_finite, cannot_tell } = of;
            writeln!(
                f,
                "{name:<12} {cases:>7}  {agree:>7}  {named:>7}  {unknown:>7}  {not_finite:>10}  {cannot_tell:>11}"
            )?;
        }
        writeln!(f, "{} mistakes moved no result by an eighth", self.unnoticeable)
    }
}

/// Judges about `cases` cases.
pub fn verify(cases: usize) -> Check {
    let mut report = Check {
        place: Place::here(),
        right: Judged::default(),
        ordinary: Judged::default(),
        one_mistake: Judged::default(),
        two_mistakes: Judged::default(),
        unnoticeable: 0,
        faults: Faults::default(),
    };
    let mut parts = Vec::new();
    for_each_job(
        vec![(); workers()],
        cases.div_ceil(JOB),
        |(), job| (job, judge(job as u64)),
        |part| parts.push(part),
    );
    parts.sort_by_key(|(job, _)| *job);
    for (_, part) in parts {
        for (sum, part) in [
            (&mut report.right, part.right),
            (&mut report.ordinary, part.ordinary),
            (&mut report.one_mistake, part.one_mistake),
            (&mut report.two_mistakes, part.two_mistakes),
        ] {
            sum.cases += part.cases;
            sum.agree += part.agree;
            sum.named += part.named;
            sum.unknown += part.unknown;
            sum.not_finite += part.not_finite;
            sum.cannot_tell += part.cannot_tell;
        }
        report.unnoticeable += part.unnoticeable;
        report.faults.merge(part.faults);
    }
    report
}

struct Part {
    right: Judged,
    ordinary: Judged,
    one_mistake: Judged,
    two_mistakes: Judged,
    unnoticeable: usize,
    faults: Faults,
}

fn judge(job: u64) -> Part {
    let mut part = Part {
        right: Judged::default(),
        ordinary: Judged::default(),
        one_mistake: Judged::default(),
        two_mistakes: Judged::default(),
        unnoticeable: 0,
        faults: Faults::default(),
    };
    let mut random = Random(ChaCha8Rng::seed_from_u64(job));
    for number in 0..JOB {
        let task = Task::random(&mut random);
        let recipe = Recipe::right(random.one_in(2));
        if number % 2 == 0 {
            let report = task.report(&task.compute(&recipe, task.precision), &mut random);
            part.right.count(&report, &[]);
            let fine = [Verdict::Agrees, Verdict::CannotTell, Verdict::NotFinite];
            let overflows = report.verdict == Verdict::NotFinite && !task.precision.is_half();
            if !fine.contains(&report.verdict) || overflows {
                part.faults.add(|| task.fault(job, number, "a right loss", &report));
            }
            if task.ordinary {
                part.ordinary.count(&report, &[]);
                if report.verdict != Verdict::Agrees {
                    part.faults.add(|| task.fault(job, number, "an ordinary right loss", &report));
                }
            }
            continue;
        }
        let several = number % 8 == 7;
        let Some((wrong, ids)) = recipe.with_mistakes(&task, several, &mut random) else {
            continue;
        };
        let exact = |recipe: &Recipe| task.compute(recipe, Precision::F64);
        let (computed, given) = (task.compute(&wrong, task.precision), random.below(3));
        if !noticeable(&exact(&wrong), &exact(&recipe), given) {
            part.unnoticeable += 1;
            continue;
        }
        let report = task.report_of(&computed, given);
        let judged = if several { &mut part.two_mistakes } else { &mut part.one_mistake };
        judged.count(&report, &ids);
        if report.verdict == Verdict::Agrees {
            part.faults.add(|| task.fault(job, number, &ids.join(" and "), &report));
        }
    }
    part
}

impl Judged {
    fn count(&mut self, report: &CheckReport, ids: &[&str]) {
        self.cases += 1;
        let named = ids.iter().all(|id| report.fits.contains(id));
        match report.verdict {
            Verdict::Agrees => self.agree += 1,
            Verdict::Variant => self.named += usize::from(named),
            Verdict::Unknown => self.unknown += 1,
            Verdict::NotFinite => self.not_finite += 1,
            Verdict::CannotTell => self.cannot_tell += 1,
        }
    }
}

/// Whether what is given of two results differs by an eighth or more in each part.
fn noticeable(wrong: &Computed, right: &Computed, given: usize) -> bool {
    let differ = |off: f64, size: f64| !(off <= NOTICEABLE * size);
    let loss = || differ((wrong.loss - right.loss).abs(), right.reducible.abs());
    let gradient = || {
        let pairs = || wrong.d_logits.iter().zip(&right.d_logits);
        let off: f64 = pairs().map(|(a, b)| (a - b).abs()).sum();
        differ(off, pairs().map(|(_, b)| b.abs()).sum())
    };
    match given {
        0 => loss(),
        1 => gradient(),
        _ => loss() || gradient(),
    }
}

/// Random choices.
struct Random(ChaCha8Rng);

impl Random {
    fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * 2f64.powi(-53)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// From `low` to `high`, its logarithm uniform.
    fn log_uniform(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.unit())
    }

    /// About a normal distribution's.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// What a loss is computed from.
struct Task {
    z: Vec<Vec<f64>>,
    v: Vec<Vec<f64>>,
    y: Vec<usize>,
    counts: Vec<bool>,
    length: usize,
    t: f64,
    soft: f64,
    hard: f64,
    divergence: Divergence,
    precision: Precision,
    ordinary: bool,
}

impl Task {
    fn random(random: &mut Random) -> Task {
        let precision = match random.below(10) {
            0 => Precision::F16,
            1 => Precision::Bf16,
            2..6 => Precision::F32,
            _ => Precision::F64,
        };
        let most = [60.0, 60.0, 60.0, 60.0, 60.0, 60.0, 60.0, 60.0, 1000.0, 14_000.0];
        let most = most[random.below(10)];
        let classes = random.log_uniform(2.0, most).round() as usize;
        let room = (20_000 / classes).clamp(1, 8);
        let length = if random.one_in(3) { 1 + random.below(room.min(5)) } else { 1 };
        let examples = length * (1 + random.below((room / length).max(1)));
        let plain = random.one_in(2);
        let temperature = match plain {
            true => random.log_uniform(0.5, 20.0),
            false => random.log_uniform(0.01, 1e6),
        };
        let t = if random.one_in(3) { temperature.max(1.0).round() } else { temperature };
        let (size, offset, gap, excluded) = match plain {
            true => (random.log_uniform(1.0, 4.0), 0.0, false, None),
            false => {
                let offset =
                    if random.one_in(3) { 10f64.powi(random.below(6) as i32) } else { 0.0 };
                let masks = [-1e4, -1e9, -1e30, f64::NEG_INFINITY];
                let excluded = random.one_in(3).then(|| masks[random.below(4)]);
                (random.log_uniform(0.05, 20.0), offset, random.one_in(6), excluded)
            }
        };
        let half = precision == Precision::F16;
        let arithmetic = Arithmetic(precision);
        let masks: Vec<bool> = (0..classes).map(|c| c > 0 && random.one_in(5)).collect();
        let logits = |random: &mut Random| {
            let mut row = |_| {
                let offset = offset * random.normal().abs().min(1.0);
                let shared = if half { offset.min(1000.0) } else { offset };
                let mut row: Vec<f64> =
                    (0..classes).map(|_| shared + size * random.normal()).collect();
                if gap {
                    row[random.below(classes)] += 1e4;
                }
                for (z, _) in row.iter_mut().zip(&masks).filter(|(_, masked)| **masked) {
                    match excluded {
                        Some(mask) if half && mask.is_finite() => *z = -1e4,
                        Some(mask) => *z = mask,
                        None => {}
                    }
                }
                row.into_iter().map(|z| arithmetic.round(z)).collect()
            };
            (0..examples).map(&mut row).collect::<Vec<Vec<f64>>>()
        };
        let (z, v) = (logits(random), logits(random));
        let allowed = |random: &mut Random| loop {
            let y = random.below(classes);
            if !masks[y] {
                return y;
            }
        };
        let y = (0..examples).map(|_| allowed(random)).collect();
        let mut counts: Vec<bool> =
            (0..examples).map(|_| length == 1 || !random.one_in(4)).collect();
        counts[0] = true;
        let divergence = match random.below(8) {
            0 => Divergence::Reverse,
            1 => Divergence::Symmetric,
            2 => Divergence::JensenShannon { beta: 0.1 + 0.8 * random.unit() },
            _ => Divergence::Forward,
        };
        let (soft, hard) = [(1.0, 0.0), (0.7, 0.3), (0.5, 0.5), (0.25, 1.0)][random.below(4)];
        let fine = !precision.is_half() && plain && classes <= 1000;
        Task { z, v, y, counts, length, t, soft, hard, divergence, precision, ordinary: fine }
    }

    fn count(&self) -> f64 {
        self.counts.iter().filter(|counts| **counts).count() as f64
    }

    /// What a check says of the loss, the gradient, or both.
    fn report(&self, computed: &Computed, random: &mut Random) -> CheckReport {
        // A loss in f32 has few digits of its KL at a high T: that is said, and not judged here.
        let given = if self.ordinary { 1 + random.below(2) } else { random.below(3) };
        let given = if self.t > 5.0 && self.ordinary { 1 } else { given };
        self.report_of(computed, given)
    }

    fn report_of(&self, computed: &Computed, given: usize) -> CheckReport {
        let (examples, classes) = (self.z.len(), self.z[0].len());
        let matrix = |rows: Vec<f64>| {
            Array2::from_shape_vec((examples, classes), rows).expect("an element each")
        };
        let case = CheckCase {
            student_logits: matrix(self.z.concat()),
            teacher_logits: Some(matrix(self.v.concat())),
            labels: Some(self.y.iter().map(|&y| y as i64).collect()),
            mask: Some(self.counts.clone()),
            length: self.length,
            divergence: self.divergence,
            temperature: self.t,
            soft_weight: self.soft,
            hard_weight: self.hard,
            loss: (given != 1).then_some(computed.loss),
            d_logits: (given != 0).then(|| matrix(computed.d_logits.clone())),
            precision: self.precision,
            ..CheckCase::default()
        };
        check(&case).unwrap_or_else(|fault| panic!("a malformed case: {fault}"))
    }

    fn fault(&self, job: u64, number: usize, what: &str, report: &CheckReport) -> String {
        let CheckReport { verdict, message, .. } = report;
        format!(
            "case {number} of seed {job}, {what}, {} {:?} × {} × {} at T = {}: {verdict:?}, {message}",
            self.precision,
            self.divergence,
            self.z.len(),
            self.z[0].len(),
            self.t
        )
    }
}

/// A loss and its gradient, and the loss without the entropy of the soft targets.
struct Computed {
    loss: f64,
    reducible: f64,
    d_logits: Vec<f64>,
}

/// What the soft term is computed with.
#[derive(Clone, Copy, PartialEq)]
enum Soft {
    Stated,
    Forward,
    Reverse,
    ProbsAsInput,
    LogitsAsInput,
    ProbsAsLogTarget,
    TeacherRaw,
    StudentRaw,
    TeacherTwice,
    Multiplied,
    Itself,
    Shifted,
    Argmax,
    MseOfProbs,
    MseOfLogits,
}

/// What sums over examples are divided by.
#[derive(Clone, Copy, PartialEq)]
enum Divisor {
    Count,
    TimesClasses,
    One,
    Sequences,
    CountTwice,
    WithPadding,
}

/// How a program computes its loss.
#[derive(Clone, Copy)]
struct Recipe {
    as_kl: bool,
    soft: Soft,
    t_power: i32,
    divisor: Divisor,
    hard_at_t: bool,
    smoothing: f64,
    swapped: bool,
}

/// A mistake's name, what it changes, and the change; `false` where the case could not show it.
type Change = (&'static str, u8, fn(&mut Recipe, &Task) -> bool);

fn soft(recipe: &mut Recipe, soft: Soft, possible: bool) -> bool {
    recipe.soft = soft;
    possible
}

fn forward(task: &Task) -> bool {
    task.divergence == Divergence::Forward
}

/// Whether logits may be squared: none is excluded.
fn square(task: &Task) -> bool {
    forward(task) && task.z.iter().chain(&task.v).flatten().all(|z| z.abs() < 1e8)
}

const CHANGES: [Change; 25] = [
    ("t_squared_missing", 0, |r, _| {
        r.t_power = 0;
        true
    }),
    ("t_instead_of_t_squared", 0, |r, _| {
        r.t_power = 1;
        true
    }),
    ("kl_mean", 1, |r, _| {
        r.divisor = Divisor::TimesClasses;
        true
    }),
    ("kl_sum", 1, |r, _| {
        r.divisor = Divisor::One;
        true
    }),
    ("seq_batchmean", 1, |r, task| {
        r.divisor = Divisor::Sequences;
        task.length > 1
    }),
    ("mean_twice", 1, |r, _| {
        r.divisor = Divisor::CountTwice;
        true
    }),
    ("padding_counted", 1, |r, task| {
        r.divisor = Divisor::WithPadding;
        task.counts.contains(&false)
    }),
    ("reverse_kl", 2, |r, task| soft(r, Soft::Reverse, forward(task))),
    ("reverse_kl", 2, |r, task| soft(r, Soft::Forward, task.divergence == Divergence::Reverse)),
    ("js_beta", 2, |r, task| {
        soft(r, Soft::Forward, matches!(task.divergence, Divergence::JensenShannon { .. }))
    }),
    ("probs_as_log_probs", 2, |r, task| soft(r, Soft::ProbsAsInput, forward(task))),
    ("logits_as_log_probs", 2, |r, task| soft(r, Soft::LogitsAsInput, square(task))),
    ("log_target", 2, |r, task| soft(r, Soft::ProbsAsLogTarget, forward(task) && square(task))),
    ("teacher_not_tempered", 2, |r, task| soft(r, Soft::TeacherRaw, forward(task))),
    ("student_not_tempered", 2, |r, task| soft(r, Soft::StudentRaw, forward(task))),
    ("teacher_softmax_twice", 2, |r, task| soft(r, Soft::TeacherTwice, forward(task))),
    ("temperature_multiplied", 2, |r, task| soft(r, Soft::Multiplied, forward(task))),
    ("teacher_with_itself", 2, |r, task| soft(r, Soft::Itself, forward(task))),
    ("rows_shifted", 2, |r, task| soft(r, Soft::Shifted, forward(task) && task.z.len() > 1)),
    ("hard_instead_of_soft", 2, |r, task| soft(r, Soft::Argmax, forward(task))),
    ("mse_of_probs", 2, |r, task| soft(r, Soft::MseOfProbs, forward(task))),
    ("raw_logit_matching", 2, |r, task| soft(r, Soft::MseOfLogits, square(task))),
    ("weights_swapped", 4, |r, task| {
        r.swapped = true;
        task.soft != task.hard
    }),
    ("hard_term_tempered", 3, |r, task| {
        r.hard_at_t = true;
        task.hard > 0.0
    }),
    ("label_smoothing", 3, |r, task| {
        r.smoothing = 0.1;
        task.hard > 0.0 && square(task)
    }),
];

impl Recipe {
    fn right(as_kl: bool) -> Recipe {
        Recipe {
            as_kl,
            soft: Soft::Stated,
            t_power: 2,
            divisor: Divisor::Count,
            hard_at_t: false,
            smoothing: 0.0,
            swapped: false,
        }
    }

    /// With one mistake or two that change different things; `None` where the case shows none.
    fn with_mistakes(
        self,
        task: &Task,
        two: bool,
        random: &mut Random,
    ) -> Option<(Recipe, Vec<&'static str>)> {
        let mut recipe = self;
        let (first, of, change) = CHANGES[random.below(CHANGES.len())];
        if !change(&mut recipe, task) {
            return None;
        }
        if !two {
            return Some((recipe, vec![first]));
        }
        let (second, other, change) = CHANGES[random.below(CHANGES.len())];
        (other != of && change(&mut recipe, task)).then(|| (recipe, vec![first, second]))
    }
}

/// Operations rounded to a precision.
#[derive(Clone, Copy)]
struct Arithmetic(Precision);

impl Arithmetic {
    /// The nearest number of the precision. f64 holds sums, products and quotients of two f32 with
    /// digits enough that rounding twice is rounding once.
    fn round(self, x: f64) -> f64 {
        let (digits, smallest, largest) = match self.0 {
            Precision::F64 => return x,
            Precision::F32 => return f64::from(x as f32),
            Precision::F16 => (11, 2f64.powi(-24), 65_504.0),
            Precision::Bf16 => (8, 2f64.powi(-133), f64::from(f32::MAX)),
        };
        if x == 0.0 || !x.is_finite() {
            return x;
        }
        let spacing = 2f64.powi(x.abs().log2().floor() as i32 + 1 - digits).max(smallest);
        let rounded = (x / spacing).round_ties_even() * spacing;
        if rounded.abs() > largest { f64::INFINITY.copysign(x) } else { rounded }
    }

    fn sum(self, terms: impl Iterator<Item = f64>) -> f64 {
        let inner = if self.0.is_half() { Arithmetic(Precision::F32) } else { self };
        self.round(terms.fold(0.0, |sum, x| inner.round(sum + x)))
    }

    /// ln softmax(z/T), and its exponential.
    fn log_softmax(self, z: &[f64], t: f64) -> (Vec<f64>, Vec<f64>) {
        let scaled: Vec<f64> = z.iter().map(|z| self.round(z / t)).collect();
        let max = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let shifted: Vec<f64> = scaled.iter().map(|z| self.round(z - max)).collect();
        let sum = self.sum(shifted.iter().map(|x| self.round(x.exp())));
        let ln = self.round(sum.ln());
        let logs: Vec<f64> = shifted.iter().map(|x| self.round(x - ln)).collect();
        let probs = logs.iter().map(|log| self.round(log.exp())).collect();
        (logs, probs)
    }

    /// a·b, and 0 where a probability a is 0 whatever the logarithm b.
    fn times(self, a: f64, b: f64) -> f64 {
        if a == 0.0 { 0.0 } else { self.round(a * b) }
    }
}

impl Task {
    fn compute(&self, recipe: &Recipe, precision: Precision) -> Computed {
        let arithmetic = Arithmetic(precision);
        let r = |x| arithmetic.round(x);
        let (classes, examples) = (self.z[0].len(), self.z.len());
        let t = self.t;
        let all = recipe.divisor == Divisor::WithPadding;
        let divisor = match recipe.divisor {
            Divisor::Count => self.count(),
            Divisor::TimesClasses => self.count() * classes as f64,
            Divisor::One => 1.0,
            Divisor::Sequences => (examples / self.length) as f64,
            Divisor::CountTwice => self.count() * self.count(),
            Divisor::WithPadding => examples as f64,
        };
        let (soft_weight, hard_weight) = match recipe.swapped {
            true => (self.hard, self.soft),
            false => (self.soft, self.hard),
        };
        let factor = r(t.powi(recipe.t_power) * soft_weight / divisor);
        let hard_divisor = if all { examples as f64 } else { self.count() };
        let hard_factor = r(hard_weight / hard_divisor);
        let (mut soft, mut hard, mut entropy) = (Vec::new(), Vec::new(), Vec::new());
        let mut d_logits = vec![0.0; examples * classes];
        for e in (0..examples).filter(|&e| all || self.counts[e]) {
            let (loss, own, gradient) = self.soft_term(recipe, arithmetic, e, factor);
            soft.push(loss);
            entropy.push(own);
            let at = if recipe.hard_at_t { t } else { 1.0 };
            let (logs, probs) = arithmetic.log_softmax(&self.z[e], at);
            let share = recipe.smoothing / classes as f64;
            let y = |i: usize| share + if i == self.y[e] { 1.0 - recipe.smoothing } else { 0.0 };
            if hard_weight > 0.0 {
                hard.push(-arithmetic.sum((0..classes).map(|i| arithmetic.times(y(i), logs[i]))));
            }
            for i in 0..classes {
                let soft = gradient[i];
                let of_y = r(-y(i) * hard_factor);
                let of_hard = r(r(of_y + r(probs[i] * hard_factor)) / at);
                d_logits[e * classes + i] =
                    if hard_weight > 0.0 { r(soft + of_hard) } else { soft };
            }
        }
        let total = |rows: &[f64], factor: f64| r(arithmetic.sum(rows.iter().copied()) * factor);
        let hard = total(&hard, hard_factor);
        let loss = r(total(&soft, factor) + hard);
        Computed { loss, reducible: loss - total(&entropy, factor), d_logits }
    }

    /// The soft loss of an example without its factor, what of it is the entropy of its targets, and
    /// its gradient with the factor.
    fn soft_term(
        &self,
        recipe: &Recipe,
        arithmetic: Arithmetic,
        e: usize,
        factor: f64,
    ) -> (f64, f64, Vec<f64>) {
        let r = |x| arithmetic.round(x);
        let times = |a, b| arithmetic.times(a, b);
        let (z, mut v, t) = (&self.z[e], &self.v[e], self.t);
        if recipe.soft == Soft::Shifted {
            v = &self.v[(e + 1) % self.v.len()];
        }
        let classes = 0..z.len();
        let student_t = match recipe.soft {
            Soft::StudentRaw => 1.0,
            Soft::Multiplied => 1.0 / t,
            _ => t,
        };
        let teacher_t = match recipe.soft {
            Soft::TeacherRaw => 1.0,
            Soft::Multiplied => 1.0 / t,
            _ => t,
        };
        let (lq, q) = arithmetic.log_softmax(z, student_t);
        let (mut lp, mut p) = arithmetic.log_softmax(v, teacher_t);
        if recipe.soft == Soft::TeacherTwice {
            (lp, p) = arithmetic.log_softmax(&arithmetic.log_softmax(v, 1.0).1, t);
        }
        if recipe.soft == Soft::Argmax {
            let largest = v.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let first = v.iter().position(|v| *v == largest).unwrap_or(0);
            p = classes.clone().map(|i| if i == first { 1.0 } else { 0.0 }).collect();
            lp = p.iter().map(|p| p.ln()).collect();
        }
        let own = -arithmetic.sum(classes.clone().map(|i| times(p[i], lp[i])));
        let entropy = if recipe.as_kl { 0.0 } else { own };
        let sum = |f: &dyn Fn(usize) -> f64| arithmetic.sum(classes.clone().map(f));
        // s = ∂f/∂ln q of each class, already times the factor, to the gradient by z.
        let through = |s: &dyn Fn(usize) -> f64| {
            let total = sum(s);
            let back = |i: usize| r(r(s(i) - r(q[i] * total)) / student_t);
            classes.clone().map(back).collect::<Vec<f64>>()
        };
        let stated = match recipe.soft {
            Soft::Forward => Divergence::Forward,
            Soft::Reverse => Divergence::Reverse,
            _ => self.divergence,
        };
        let reverse = |i: usize| times(q[i], r(lq[i] - lp[i]));
        match recipe.soft {
            Soft::ProbsAsInput => {
                let loss = sum(&|i| times(p[i], r(lp[i] - q[i])));
                (loss, 0.0, through(&|i| r(-p[i] * r(q[i] * factor))))
            }
            Soft::LogitsAsInput => {
                let loss = sum(&|i| times(p[i], r(lp[i] - r(z[i] / t))));
                (loss, 0.0, p.iter().map(|p| r(-r(p * factor) / t)).collect())
            }
            Soft::ProbsAsLogTarget => {
                let target = |i: usize| r(p[i].exp());
                let loss = sum(&|i| times(target(i), r(p[i] - lq[i])));
                (loss, 0.0, through(&|i| r(-target(i) * factor)))
            }
            Soft::Itself => (if recipe.as_kl { 0.0 } else { own }, 0.0, vec![0.0; z.len()]),
            Soft::MseOfProbs => {
                let d = |i: usize| r(q[i] - p[i]);
                let loss = r(sum(&|i| r(d(i) * d(i))) / z.len() as f64);
                let share = 2.0 / z.len() as f64;
                (loss, 0.0, through(&|i| r(r(q[i] * d(i)) * r(share * factor))))
            }
            Soft::MseOfLogits => {
                let d = |i: usize| r(z[i] - v[i]);
                let scale = r(factor / t.powi(recipe.t_power));
                let loss = r(sum(&|i| r(d(i) * d(i))) / z.len() as f64);
                let share = 2.0 / z.len() as f64;
                let gradient = classes.clone().map(|i| r(d(i) * r(share * scale))).collect();
                (r(loss / t.powi(recipe.t_power)), 0.0, gradient)
            }
            _ => match stated {
                Divergence::Forward => {
                    let loss = match recipe.as_kl {
                        true => sum(&|i| times(p[i], r(lp[i] - lq[i]))),
                        false => -sum(&|i| times(p[i], lq[i])),
                    };
                    (loss, entropy, through(&|i| r(-p[i] * factor)))
                }
                Divergence::Reverse => {
                    let loss = sum(&reverse);
                    (loss, 0.0, through(&|i| r(r(reverse(i) + q[i]) * factor)))
                }
                Divergence::Symmetric => {
                    let forward = |i: usize| times(p[i], r(lp[i] - lq[i]));
                    let loss = r(r(sum(&forward) + sum(&reverse)) * 0.5);
                    let s = |i: usize| r(r(reverse(i) + q[i]) - p[i]) * 0.5;
                    (loss, 0.0, through(&|i| r(s(i) * factor)))
                }
                Divergence::JensenShannon { beta } => {
                    let m = |i: usize| r(r(beta * p[i]) + r((1.0 - beta) * q[i]));
                    let log_m = |i: usize| r(m(i).ln());
                    let of_q = |i: usize| r(times(q[i], r(lq[i] - log_m(i))) * (1.0 - beta));
                    let of_p = |i: usize| r(times(p[i], r(lp[i] - log_m(i))) * beta);
                    (r(sum(&of_p) + sum(&of_q)), 0.0, through(&|i| r(of_q(i) * factor)))
                }
            },
        }
    }
}
