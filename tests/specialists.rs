//! Specialists: each piece against a closed form or a plain computation, then all of it.
#![cfg(feature = "paper")]

mod common;

use common::{Silent, best, small_net, uniform, whole};
use limbeck::engine::config::{Config, OptimizerKind};
use limbeck::engine::loss::LossSpec;
use limbeck::engine::trainer::{self, Task};
use limbeck::paper;
use limbeck::paper::experiment::Input;
use limbeck::paper::preset::Preset;
use limbeck::paper::request::Request;
use limbeck::paper::specialists::{self, Answers, Opinion};
use limbeck::paper::tables::specialists::Specialists;
use limbeck::run::context::RunContext;
use limbeck_datasets::Split;
use limbeck_datasets::glyphs::writers;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;

/// A distribution without zeros, of `n` outcomes.
fn distribution(seed: u64, n: usize) -> Vec<f64> {
    let weights: Vec<f64> = uniform(seed, n).iter().map(|x| (2.0 * x).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

/// softmax(z), plainly.
fn probs(z: &[f64]) -> Vec<f64> {
    let sum: f64 = z.iter().map(|z| z.exp()).sum();
    z.iter().map(|z| z.exp() / sum).collect()
}

fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
}

/// E(z) from its definition: q's probabilities of each set, and what is left for its dustbin.
fn objective(z: &[f64], generalist: &[f64], opinions: &[Opinion]) -> f64 {
    let q = probs(z);
    let others = opinions.iter().map(|Opinion { set, probs }| {
        let mut of_set: Vec<f64> = set.iter().map(|&class| q[class]).collect();
        of_set.push((0..q.len()).filter(|c| !set.contains(c)).map(|c| q[c]).sum());
        kl(probs, &of_set)
    });
    kl(generalist, &q) + others.sum::<f64>()
}

/// Generalist and two specialists with overlapping sets of seven classes.
struct Case {
    generalist: Vec<f64>,
    sets: [Vec<usize>; 2],
    said: [Vec<f64>; 2],
}

impl Case {
    fn new(seed: u64) -> Case {
        Case {
            generalist: distribution(seed, 7),
            sets: [vec![0, 2, 5], vec![2, 3]],
            said: [distribution(seed + 1, 4), distribution(seed + 2, 3)],
        }
    }

    fn opinions(&self) -> Vec<Opinion<'_>> {
        let both = self.sets.iter().zip(&self.said);
        both.map(|(set, probs)| Opinion { set, probs }).collect()
    }
}

#[test]
fn the_gradient_is_that_of_finite_differences() {
    for seed in 0..5 {
        let case = Case::new(10 * seed);
        let opinions = case.opinions();
        let z = uniform(100 + seed, 7);
        let q = probs(&z);
        let target = specialists::target(&q, &case.generalist, &opinions);
        for j in 0..7 {
            // The central difference errs by E‴·h²/6 and by rounding, 2⁻⁵³·E/h: both below 1e-9.
            let h = 1e-5;
            let at = |step: f64| {
                let mut z = z.clone();
                z[j] += step;
                objective(&z, &case.generalist, &opinions)
            };
            let difference = (at(h) - at(-h)) / (2.0 * h);
            let gradient = 3.0 * (q[j] - target[j]);
            assert!((difference - gradient).abs() < 1e-9, "{j}: {difference} {gradient}");
        }
    }
}

#[test]
fn plain_gradient_descent_ends_at_the_same_distribution() {
    for seed in 0..3 {
        let case = Case::new(10 * seed);
        let opinions = case.opinions();
        let combined = specialists::combine(&case.generalist, &opinions);
        // The Hessian of E is at most (1 + M)/2, so a rate of 2/(1 + M) descends; the start is far
        // from both p_g and the end.
        let mut z = uniform(seed + 7, 7);
        for _ in 0..20_000 {
            let q = probs(&z);
            let target = specialists::target(&q, &case.generalist, &opinions);
            let steps = q.iter().zip(&target).map(|(q, t)| 2.0 * (q - t));
            z.iter_mut().zip(steps).for_each(|(z, step)| *z -= step);
        }
        let (q, expected) = (probs(&combined), probs(&z));
        for (q, expected) in q.iter().zip(&expected) {
            assert!((q - expected).abs() < 1e-9, "{q} {expected}");
        }
        // And no neighbour is better.
        let least = objective(&combined, &case.generalist, &opinions);
        for nudge in 0..20 {
            let mut z = combined.clone();
            let nudges = uniform(500 + nudge, 7);
            z.iter_mut().zip(nudges).for_each(|(z, nudge)| *z += 0.01 * nudge);
            assert!(objective(&z, &case.generalist, &opinions) > least);
        }
    }
}

fn assert_near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        // Where it ends a class is off by at most TOLERANCE times 1/(1 − hidden share) ≤ 1 + M.
        assert!((found - expected).abs() < 3.0 * specialists::TOLERANCE, "{found} {expected}");
    }
}

#[test]
fn combinations_with_a_closed_form() {
    let p = distribution(1, 4);
    // Nobody else speaks: q = p_g.
    assert_near(&probs(&specialists::combine(&p, &[])), &p);

    // A specialist for every class: KL(p, q) + KL(r, q) is least at the mean.
    let r = distribution(2, 4);
    let with_dustbin = [&r[..], &[0.0]].concat();
    let all = Opinion { set: &[0, 1, 2, 3], probs: &with_dustbin };
    let mean: Vec<f64> = p.iter().zip(&r).map(|(p, r)| (p + r) / 2.0).collect();
    assert_near(&probs(&specialists::combine(&p, &[all])), &mean);

    // One specialist for {1, 2}: it and the generalist have equal voices on classes 1, 2 and on
    // the rest together, which the generalist alone divides: q_c = (p_c + r_c)/2 in S and outside
    // p_c/P · (P + r_d)/2, P = Σ p outside.
    let r = distribution(3, 3);
    let one = Opinion { set: &[1, 2], probs: &r };
    let rest = p[0] + p[3];
    let outside = |c: usize| p[c] / rest * (rest + r[2]) / 2.0;
    let expected = [outside(0), (p[1] + r[0]) / 2.0, (p[2] + r[1]) / 2.0, outside(3)];
    assert_near(&probs(&specialists::combine(&p, &[one])), &expected);

    // M specialists for {0} of two classes: everybody is heard alike.
    let says = [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]];
    let opinions: Vec<Opinion> = says.iter().map(|probs| Opinion { set: &[0], probs }).collect();
    let first = (0.3 + 0.9 + 0.5 + 0.2) / 4.0;
    assert_near(&probs(&specialists::combine(&[0.3, 0.7], &opinions)), &[first, 1.0 - first]);

    // A generalist that excludes what a specialist is sure of.
    let z = specialists::combine(
        &[1.0, 0.0, 0.0],
        &[Opinion { set: &[0, 1], probs: &[0.0, 0.0, 1.0] }],
    );
    assert!(z.iter().all(|z| z.is_finite()), "{z:?}");
    assert_near(&probs(&z)[..1], &[0.5]);
}

#[test]
fn only_specialists_for_the_favourite_class_are_heard() {
    // Favourites: class 1, class 0, none.
    let generalist = [0.0, 1.0, 0.5, 2.0, 0.0, 0.0, f32::NAN, 0.0, 0.0];
    let said = Answers { set: vec![1], logits: vec![-1.0, 1.0, 9.0, 0.0, 9.0, 0.0] };
    let combined = specialists::combine_all(&generalist, 3, &[said]);
    assert_eq!(combined[3..6], generalist[3..6]);
    assert!(combined[6].is_nan());
    let p = specialists::softmax(&generalist[..3]);
    let r = specialists::softmax(&[-1.0, 1.0]);
    let z = specialists::combine(&p, &[Opinion { set: &[1], probs: &r }]);
    let z: Vec<f32> = z.iter().map(|&z| z as f32).collect();
    assert_eq!(combined[..3], z);
    assert!(combined[1] < combined[2], "the specialist's doubt is heard");
}

#[test]
fn covariance_of_known_predictions() {
    // Two examples, p = (½, ½, 0) and (¼, ¼, ½) up to e⁻²⁰⁰: p − p̄ = ±(⅛, ⅛, −¼).
    let logits = [0.0, 0.0, -200.0, 0.0, 0.0, 2f32.ln()];
    let covariance = specialists::covariance(&logits, 3);
    let deviation = [0.125, 0.125, -0.25];
    for i in 0..3 {
        for j in 0..3 {
            let expected = deviation[i] * deviation[j];
            // ln 2 in f32 is off by up to 2⁻²⁵ of it.
            assert!((covariance[3 * i + j] - expected).abs() < 1e-8, "{i} {j}");
        }
    }
}

#[test]
fn class_sets_are_the_blocks_of_confusion() {
    // Three groups of confused classes, scattered over nine: 0 4 8, 1 3 5, 2 6 7.
    let groups = [vec![0, 4, 8], vec![1, 3, 5], vec![2, 6, 7]];
    let of = |class: usize| groups.iter().position(|group| group.contains(&class));
    let noise = uniform(3, 81);
    let covariance: Vec<f64> = (0..81)
        .map(|i| {
            let (a, b) = (i / 9, i % 9);
            let (low, high) = (a.min(b), a.max(b));
            let same = if a == b { 0.08 } else { 0.03 * f64::from(u8::from(of(a) == of(b))) };
            same + 1e-3 * noise[9 * low + high]
        })
        .collect();
    let mut sets = specialists::confusable_sets(&covariance, 9, 3, 3);
    assert_eq!(sets, specialists::confusable_sets(&covariance, 9, 3, 3));
    sets.sort();
    assert_eq!(sets, groups);
    // Sets larger than their cluster overlap, smaller ones leave classes out.
    let sets = specialists::confusable_sets(&covariance, 9, 3, 4);
    assert!(sets.iter().all(|set| set.len() == 4 && set.is_sorted()));
    let covered = |class: &usize| sets.iter().filter(|set| set.contains(class)).count();
    assert!((0..9).all(|class| covered(&class) >= 1) && (0..9).any(|class| covered(&class) > 1));
    // One cluster: its centre is the mean of the columns it got; every class is near to it.
    assert_eq!(specialists::confusable_sets(&covariance, 9, 1, 9), [(0..9).collect::<Vec<_>>()]);
}

/// By their lengths the columns of the least variance would be nearest to every centre.
#[test]
fn class_sets_follow_directions_not_variances() {
    // Six groups of five; class c is in group c mod 6, of variance 10^-(c mod 6).
    let covariance: Vec<f64> = (0..900)
        .map(|i| match (i / 30, i % 30) {
            (a, b) if a % 6 != b % 6 => 0.0,
            (a, b) => 0.1f64.powi(a % 6) * if a == b { 1.0 } else { 0.3 },
        })
        .collect();
    let mut sets = specialists::confusable_sets(&covariance, 30, 6, 5);
    sets.sort();
    let groups = (0..6).map(|group| (0..5).map(|i| 6 * i + group).collect::<Vec<_>>());
    assert_eq!(sets, groups.collect::<Vec<_>>());
}

/// Images of one pixel, x; `counts[class][x]` of each.
fn counted(counts: &[[usize; 2]]) -> Split {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for (class, counts) in counts.iter().enumerate() {
        for (x, &count) in counts.iter().enumerate() {
            pixels.extend(vec![255 * x as u8; count]);
            labels.extend(vec![class as u16; count]);
        }
    }
    Split::of_images(pixels, (1, 1), Some(labels))
}

/// p(label | x) by counting.
fn posterior(split: &Split, x: usize, classes: usize) -> Vec<f64> {
    let mut counts = vec![0.0; classes];
    for (i, &label) in split.labels.iter().flatten().enumerate() {
        counts[usize::from(label)] +=
            f64::from(u8::from(split.images().pixels[i] == 255 * x as u8));
    }
    let sum: f64 = counts.iter().sum();
    counts.iter().map(|count| count / sum).collect()
}

/// Five classes, of which 1 and 3 are special: 20 examples, and 80 of the rest.
fn counts() -> Split {
    counted(&[[10, 20], [6, 4], [15, 5], [3, 7], [20, 10]])
}

#[test]
fn half_of_a_training_set_is_special_and_the_rest_is_all_there() {
    let (split, set) = (counts(), [1, 3]);
    let own = specialists::training_set(&split, &set);
    let labels = own.labels.as_ref().unwrap();
    let of = |class| labels.iter().filter(|&&label| label == class).count();
    // 20 special examples four times, 80 others once.
    assert_eq!([0, 1, 2].map(of), [40, 40, 80]);
    // Of x = 1 there are 4 and 7 special ones, and 35 others.
    assert_eq!(posterior(&own, 1, 3), [16.0, 28.0, 35.0].map(|count| count / 79.0));
    // A set of most classes: now the rest is repeated.
    let own = specialists::training_set(&split, &[0, 2, 3, 4]);
    let dustbin = own.labels.iter().flatten().filter(|&&label| label == 4).count();
    assert_eq!((dustbin, own.len()), (90, 180));
}

#[test]
fn the_raised_dustbin_undoes_the_oversampling() {
    let (split, set) = (counts(), [1, 3]);
    let own = specialists::training_set(&split, &set);
    let raise = specialists::dustbin_raise(&split, &set);
    assert!((raise - 4f64.ln()).abs() < 1e-15);
    let relabelled = specialists::relabelled(&split, &set);
    for x in 0..2 {
        // The ideal net of its training set, and that of the data.
        let mut logits: Vec<f64> = posterior(&own, x, 3).iter().map(|p| p.ln()).collect();
        logits[2] += raise;
        for (found, expected) in probs(&logits).iter().zip(posterior(&relabelled, x, 3)) {
            assert!((found - expected).abs() < 1e-12, "{x}: {found} {expected}");
        }
    }
}

fn linear_config(inputs: usize, classes: usize, epochs: usize) -> Config {
    let mut config = Config::default();
    config.model.layers = vec![inputs, classes];
    config.training.epochs = epochs;
    config.training.optimizer = OptimizerKind::Adam;
    config.training.learning_rate = 0.05;
    config
}

fn hard<'a>(config: &'a Config, split: &'a Split) -> Task<'a> {
    let objective = LossSpec::HARD;
    Task { objective, ..Task::hard("net", config, split) }
}

#[test]
fn a_trained_specialist_with_its_dustbin_raised_knows_the_shares_of_the_data() {
    // With one binary input a linear net can fit any posterior.
    let (split, set) = (counts(), [1, 3]);
    let generalist = small_net(&[1, 5], 3);
    let own = specialists::training_set(&split, &set);
    let initial = specialists::initial(&generalist, &set);
    let config = linear_config(1, 3, 400);
    let task = Task { initial: Some(&initial), ..hard(&config, &own) };
    let mut model = trainer::train(&best(1), &task, None, &mut Silent).unwrap().model;
    specialists::raise_dustbin(&mut model, specialists::dustbin_raise(&split, &set));
    let relabelled = specialists::relabelled(&split, &set);
    let images = counted(&[[1, 1]]);
    let logits = model.logits(&best(1), &images);
    for (x, row) in logits.chunks(3).enumerate() {
        let found = specialists::softmax(row);
        // Without the raise the dustbin has 0.56 and 0.44 in place of 0.83 and 0.76.
        for (found, expected) in found.iter().zip(posterior(&relabelled, x, 3)) {
            assert!((found - expected).abs() < 0.01, "{x}: {found} {expected}");
        }
    }
}

#[test]
fn a_specialist_begins_as_its_generalist() {
    let generalist = small_net(&[16, 9, 6], 4);
    let set = [1, 4];
    let specialist = specialists::initial(&generalist, &set);
    assert_eq!(specialist.widths(), [16, 9, 3]);
    let split = common::noise(5, 8, 4, 6);
    let context = best(1);
    let logits = generalist.logits(&context, &split);
    let own = specialist.logits(&context, &split);
    for (row, own) in logits.chunks(6).zip(own.chunks(3)) {
        assert_eq!([row[1], row[4]], own[..2]);
        let outside = [row[0], row[2], row[3], row[5]].map(f64::from);
        let mean = outside.iter().sum::<f64>() / 4.0 + 4f64.ln();
        let exact = outside.iter().map(|z| z.exp()).sum::<f64>().ln();
        // Sums of 9 products in f32, of outputs of magnitude 10 at most.
        assert!((f64::from(own[2]) - mean).abs() < 1e-5, "{} {mean}", own[2]);
        assert!(mean <= exact);
    }
}

#[test]
fn training_starts_from_the_given_model() {
    let split = common::noise(5, 32, 4, 6);
    let context = best(1);
    let initial = small_net(&[16, 6], 4);
    // A step so small that every weight keeps its bits.
    let mut config = linear_config(16, 6, 1);
    config.training.optimizer = OptimizerKind::Sgd;
    config.training.learning_rate = 1e-30;
    let task = Task { initial: Some(&initial), ..hard(&config, &split) };
    let model = trainer::train(&context, &task, None, &mut Silent).unwrap().model;
    assert_eq!(model.to_file().sha256(), initial.to_file().sha256());
    let batch = whole(&split);
    assert_eq!(
        common::engine_logits(&context, &model, &batch),
        common::engine_logits(&context, &initial, &batch)
    );
    // Other widths are refused, with both.
    let other = small_net(&[16, 3, 6], 4);
    let task = Task { initial: Some(&other), ..hard(&config, &split) };
    let Err(error) = trainer::train(&context, &task, None, &mut Silent) else {
        panic!("trained");
    };
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("found the widths [16, 3, 6], expected [16, 6]"), "{error}");
}

/// Ends a run after its second epoch.
struct Interrupted;

impl trainer::Observer for Interrupted {
    fn on_step(&mut self, _: &trainer::Progress) {}
    fn on_epoch(&mut self, record: &trainer::EpochRecord) -> limbeck::Result<()> {
        match record.epoch {
            2 => Err(limbeck::Error::Internal("stop".into())),
            _ => Ok(()),
        }
    }
    fn warn(&mut self, message: &str) {
        panic!("{message}");
    }
}

#[test]
fn a_checkpoint_belongs_to_its_initial_model() {
    let split = common::noise(5, 32, 4, 6);
    let context = best(1);
    let folder = tempfile::tempdir().unwrap();
    let mut config = linear_config(16, 6, 4);
    config.training.batch_size = 8;
    config.training.checkpoint_minutes = 1e-9;
    let (one, two) = (small_net(&[16, 6], 4), small_net(&[16, 6], 5));
    let task = |initial| Task { initial: Some(initial), ..hard(&config, &split) };
    let through = trainer::train(&context, &task(&one), None, &mut Silent).unwrap().model;
    let stopped = trainer::train(&context, &task(&one), Some(folder.path()), &mut Interrupted);
    assert!(stopped.is_err());
    let other = trainer::train(&context, &task(&two), Some(folder.path()), &mut Silent);
    let Err(error) = other else { panic!("went on from another model") };
    assert_eq!(error.exit_code(), 65);
    let resumed = trainer::train(&context, &task(&one), Some(folder.path()), &mut Silent);
    assert_eq!(resumed.unwrap().model.to_file().sha256(), through.to_file().sha256());
}

#[test]
fn the_experiment_runs_small_and_goes_on_where_it_was() {
    let dataset = writers::load(1, 1_080, 720);
    let context = best(2);
    let folder = tempfile::tempdir().unwrap();
    let run = |out: &Path| {
        let mut observer = Silent;
        let stop = AtomicBool::new(false);
        let mut run = RunContext::new(&context, &mut observer, &stop);
        let request = Request { extended: true, ..Request::new(Preset::Quick, 0..1) };
        let input = Input::Images(Rc::new(dataset.clone()));
        paper::reproduce(&mut run, &Specialists, &request, &input, out).unwrap().summary
    };
    let summary = run(folder.path());
    let row = |system: &str| summary.row(system, 0).unwrap();
    let (generalist, combined) = (row("generalist"), row("generalist + specialists"));
    assert!(generalist.test_errors < 720 && row("distilled").test_errors < 720);
    assert!(combined.model.is_empty() && combined.sha256.len() == 64);
    assert_eq!(combined.misclassified.len() as u64, combined.test_errors);

    // The table by coverage adds up to the whole.
    let by_coverage = &summary.tables[1];
    let column = |i: usize| -> i64 {
        by_coverage.rows.iter().map(|row| row[i].parse::<i64>().unwrap()).sum()
    };
    assert_eq!(column(1), 720);
    assert_eq!(column(2), generalist.test_errors as i64 - combined.test_errors as i64);
    assert_eq!(summary.claims.len(), 1);
    let sets = &summary.tables[3].rows;
    assert!(sets.iter().all(|row| row[1].split(' ').count() == 18));

    // Without its last two rows and two specialists the run comes to the same result.
    let path = folder.path().join("summary.json");
    let mut begun = summary.clone();
    let lost = ["generalist + specialists", "distilled", "specialist 23", "specialist 24"];
    begun.rows.retain(|row| !lost.contains(&row.variant.as_str()));
    std::fs::write(&path, serde_json::to_vec(&begun).unwrap()).unwrap();
    let again = run(folder.path());
    let hashes = |summary: &limbeck::run::summary::Summary| -> BTreeMap<String, String> {
        summary.rows.iter().map(|row| (row.variant.clone(), row.sha256.clone())).collect()
    };
    assert_eq!(hashes(&again), hashes(&summary));
    assert_eq!(again.tables, summary.tables);
    assert!(folder.path().join("specialists.svg").is_file());
}
