//! Whether `check` can be fooled: random losses, right ones and wrong ones, judged by it.
//!
//! The losses are computed once more, as programs compute them: plain code that rounds each operation
//! to f16, bf16, f32 or f64, with gradients as automatic differentiation makes them. Sums in half
//! precision are accumulated in f32. Logits come with common offsets up to 10⁵, gaps of 10⁴,
//! masked classes and padded tokens, at T from 0.01 to 10⁶ with 2 to 14,000 classes.

use super::losses::{Computed, Random, Recipe, Task};
use super::{Faults, Place, for_each_job, workers};
use crate::tools::check::{CheckCase, CheckReport, Precision, Verdict, check};
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
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
    /// Mistakes that moved no result by an eighth: not judged.
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
        writeln!(f, "{} mistakes moved no result noticeably", self.unnoticeable)
    }
}

/// Judges about `cases` cases.
pub fn verify(cases: usize) -> Check {
    let seeds: Vec<u64> = (0..cases.div_ceil(JOB) as u64).collect();
    of_seeds(&seeds)
}

/// Judges the cases that these seeds make, 250 each.
pub fn of_seeds(seeds: &[u64]) -> Check {
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
        seeds.len(),
        |(), job| (job, judge(seeds[job])),
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

#[derive(Default)]
struct Part {
    right: Judged,
    ordinary: Judged,
    one_mistake: Judged,
    two_mistakes: Judged,
    unnoticeable: usize,
    faults: Faults,
}

fn judge(job: u64) -> Part {
    let mut part = Part::default();
    let mut random = Random(ChaCha8Rng::seed_from_u64(job));
    for number in 0..JOB {
        let task = Task::random(&mut random);
        let recipe = Recipe::right().by_kl(random.one_in(2));
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
        let exact = |recipe: &Recipe| task.compute(&recipe.by_kl(true), Precision::F64);
        let (computed, given) = (task.compute(&wrong, task.precision), random.below(3));
        // What f64 itself may add to T²·KL.
        let noise = 1e-13 * task.t * task.t;
        if !noticeable(&exact(&wrong), &exact(&recipe), given, noise) {
            part.unnoticeable += 1;
            continue;
        }
        let report = task.report_of(&computed, given);
        if report.untold.is_some() && !noticeable(&exact(&wrong), &exact(&recipe), 1, noise) {
            // What agrees is the gradient, which the mistake did not move.
            part.unnoticeable += 1;
            continue;
        }
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

/// Whether what is given of two results differs noticeably, and by more than noise.
fn noticeable(wrong: &Computed, right: &Computed, given: usize, noise: f64) -> bool {
    let differ = |off: f64, size: f64| off.is_nan() || off > NOTICEABLE * size;
    let loss = || differ((wrong.loss - right.loss).abs() - noise, right.loss.abs());
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

impl Task {
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
