//! The paper's section 3, first table: teacher, plain net, and the same net distilled.
//!
//! | variant | net | training |
//! |---|---|---|
//! | teacher | 784-1200-1200-10 | dropout, ±2-pixel jitter, labels |
//! | baseline | 784-800-800-10 | labels, no regularisation |
//! | student | 784-800-800-10 | the teacher's soft targets on the untranslated images |
//!
//! Baseline and student share the budget, the optimiser, the initial weights and the order of
//! the examples; only the targets differ. Rows of our own, with the same net and budget:
//!
//! | variant | differs from the student in |
//! |---|---|
//! | student, jittered | the transfer set, which is translated by up to 2 pixels |
//! | student, masked views | the transfer set, which teacher and student see as it is, masked, or mixed, otherwise in each epoch, budget and learning rate |
//! | baseline, masked views | the targets of that, labels: what the masks alone do |
//! | baseline, same steps | the transfer set of that, the images as they are: what the budget alone does |
//! | student, no labels | the weight of the hard term, 0 |
//! | student, with labels | the weight of the hard term, 0.05 |
//! | label smoothing | the targets, 0.9 of the label and 0.1 of all classes alike, at T = 1 |
//! | student of N | the teacher, the mean of those of all N seeds, the same for every seed |
//! | student, test-tuned | no result: the lowest test error over epochs and temperatures, see `test_tuned.rs` |

use super::{test_tuned, transfer::Transfer};
use crate::engine::{config::Config, distill, loss::LossSpec, metrics, mlp::Mlp, trainer::Task};
use crate::files::error::Result;
use crate::paper::experiment::{About, Conclusion, Data, Experiment, ExperimentSpec, Setup};
use crate::paper::graph::{Memo, Node};
use crate::paper::{experiment_run::ExperimentRun, key::Key, preset::PresetConfigs};
use crate::run::statistics;
use crate::run::summary::{Claim, Measure, Measures, Row, Summary, Table, Verdict};
use limbeck_datasets::{Dataset, Split};
use limbeck_kernels::Context;
use std::rc::Rc;

/// The paper's test errors.
pub const PAPER: [(&str, u64); 3] = [("teacher", 67), ("baseline", 146), ("student", 74)];

/// A student on images that are translated as the teacher's were: not the paper's.
const JITTERED: &str = "student, jittered";
const UNLABELLED: &str = "student, no labels";
const LABELLED: &str = "student, with labels";
const SMOOTHED: &str = "label smoothing";
/// A student who asks its teacher at more points than the training set has, none of them a translation.
const VIEWED: &str = "student, masked views";
const VIEWED_LABELS: &str = "baseline, masked views";
const SAME_STEPS: &str = "baseline, same steps";
/// Begins the name of a student of several teachers, before their number.
const OF_SEVERAL: &str = "student of ";
/// Weight of the hard term in [`LABELLED`].
const HARD_WEIGHT: f64 = 0.05;
/// Share of a smoothed label that is spread over all classes.
const SMOOTHING: f32 = 0.1;

/// Share of the test images on which a model and its teacher say the same.
const AGREEMENT: Measure = Measure::named("agreement");
/// KL divergence of the two at T = 1, mean over the test images, in nats.
const KL: Measure = Measure::named("kl");

/// The experiment.
pub struct Mnist;

impl Experiment for Mnist {
    fn about(&self) -> About {
        About {
            name: "mnist",
            section: "3",
            shows: "teacher, plain net, and the same net distilled",
            data: &[Data::Images],
            takes_teachers: true,
            takes_seeds: true,
            has_more_rows: true,
        }
    }

    fn declare(&self, setup: Setup) -> Result<ExperimentSpec> {
        let (request, dataset) = setup.images(self)?;
        let configs = PresetConfigs::new(request.preset, dataset);
        let loss = LossSpec::soft(&configs.student);
        let models = Rc::new(Models {
            transfer: Transfer::new(configs, dataset),
            on_test: Memo::default(),
            ensemble: Memo::default(),
        });
        let viewed = ("viewed", &models.transfer.configs.viewed);
        let mut configs = models.transfer.configs.all().to_vec();
        configs.extend(request.extended.then_some(viewed));
        let nets = |seed| {
            let mut nets = models.of_seed(seed, loss, request.extended);
            if request.extended {
                nets.extend(test_tuned::nodes(&models.transfer, seed));
            }
            nets
        };
        let mut spec = models.transfer.spec(self, request, &configs, nets, conclude);
        spec.paper_errors = PAPER.into();
        // The teacher of one seed alone is not an ensemble.
        if request.extended && spec.seeds.len() > 1 {
            let of_all = spec.seeds.iter().map(|&seed| models.of_all_teachers(seed, &spec.seeds));
            spec.graph.nodes.extend(of_all);
        }
        Ok(spec)
    }
}

/// What a net is trained on.
#[derive(Clone, Copy)]
enum Targets {
    Labels,
    Teacher(LossSpec),
    /// The teacher's logits, on images that are translated as the teacher's were.
    Jittered(LossSpec),
    SmoothedLabels,
    /// The teacher's answers to masked views.
    Viewed(LossSpec),
    /// Labels, on the same views.
    ViewedLabels,
    /// Labels, on the images, for as many steps.
    SameSteps,
}

struct Models {
    transfer: Rc<Transfer>,
    /// The logits of a seed's teacher on the test set.
    on_test: Memo<u64, Vec<f32>>,
    /// The logits of all teachers together, on the training and on the test set.
    ensemble: Memo<(), [Vec<f32>; 2]>,
}

impl Models {
    fn of_seed(self: &Rc<Self>, seed: u64, loss: LossSpec, extended: bool) -> Vec<Node> {
        let mut nets = vec![
            ("baseline", Targets::Labels),
            ("student", Targets::Teacher(loss)),
            (JITTERED, Targets::Jittered(loss)),
        ];
        if extended {
            let (variant, loss) = other_hard_weight(loss);
            nets.extend([
                (VIEWED, Targets::Viewed(LossSpec { hard_weight: 0.0, ..loss })),
                (VIEWED_LABELS, Targets::ViewedLabels),
                (SAME_STEPS, Targets::SameSteps),
                (variant, Targets::Teacher(loss)),
                (SMOOTHED, Targets::SmoothedLabels),
            ]);
        }
        let net = |(variant, targets)| {
            let models = self.clone();
            let needs = vec![Transfer::teacher(seed)];
            Node::row(variant, seed, needs, move |run| models.train(run, variant, targets, seed))
        };
        nets.into_iter().map(net).collect()
    }

    fn train(
        &self,
        run: &mut ExperimentRun,
        variant: &str,
        targets: Targets,
        seed: u64,
    ) -> Result<Row> {
        let Transfer { configs, dataset, train, .. } = &*self.transfer;
        let of = match targets {
            Targets::Labels | Targets::SmoothedLabels => &configs.baseline,
            Targets::Teacher(_) | Targets::Jittered(_) => &configs.student,
            Targets::Viewed(_) | Targets::ViewedLabels | Targets::SameSteps => &configs.viewed,
        };
        let mut config = Config { seed, ..of.clone() };
        let teacher = run.model(&Transfer::teacher(seed))?;
        let teachers = std::slice::from_ref(&*teacher);
        let mut asked: &[Mlp] = &[];
        let (loss, logits) = match targets {
            Targets::Labels | Targets::ViewedLabels => (LossSpec::HARD, None),
            Targets::SameSteps => {
                config.distillation = None;
                (LossSpec::HARD, None)
            }
            Targets::Viewed(loss) => {
                asked = teachers;
                (loss, None)
            }
            Targets::Teacher(loss) => (loss, Some(self.transfer.logits(run, seed)?)),
            Targets::Jittered(loss) => {
                config.data.jitter = configs.teacher.data.jitter;
                let jitter = config.data.jitter.map(|pixels| pixels as u8);
                let context = run.kernels();
                let logits = distill::teacher_logits(context, teachers, train, 1.0, jitter);
                (loss, Some(Rc::new(logits)))
            }
            Targets::SmoothedLabels => {
                let at_one = LossSpec { temperature: 1.0, soft_weight: 1.0, hard_weight: 0.0 };
                (at_one, Some(Rc::new(smoothed_labels(train, dataset.classes))))
            }
        };
        let teacher_logits = logits.as_ref().map(|logits| &logits[..]);
        let task = Task {
            objective: loss,
            teacher_logits,
            teachers: asked,
            ..Task::hard(variant, &config, train)
        };
        let (model, row) = run.train(dataset, &task, seed)?;
        let on_test =
            self.on_test.get(seed, || Ok(teacher.logits(run.kernels(), &dataset.test)))?;
        Ok(Row { measures: with_teacher(run.kernels(), &model, &on_test, dataset), ..row })
    }

    /// A student that is taught by the teachers of all seeds.
    fn of_all_teachers(self: &Rc<Self>, seed: u64, seeds: &[u64]) -> Node {
        let name = format!("{OF_SEVERAL}{}", seeds.len());
        let models = self.clone();
        let teachers: Vec<Key> = seeds.iter().map(|&seed| Transfer::teacher(seed)).collect();
        Node::row(name.clone(), seed, teachers.clone(), move |run| {
            let Transfer { configs, dataset, train, .. } = &*models.transfer;
            let config = Config { seed, ..configs.student.clone() };
            let loss = LossSpec::soft(&config);
            let ensemble = models.ensemble.get((), || {
                let members: Result<Vec<Mlp>> =
                    teachers.iter().map(|key| Ok((*run.model(key)?).clone())).collect();
                let (members, context) = (members?, run.kernels());
                let of = |split, t| distill::teacher_logits(context, &members, split, t, None);
                Ok([of(train, loss.temperature), of(&dataset.test, 1.0)])
            })?;
            let [targets, on_test] = &*ensemble;
            let task = Task::soft(&name, &config, train, loss, targets);
            let (model, row) = run.train(dataset, &task, seed)?;
            Ok(Row { measures: with_teacher(run.kernels(), &model, on_test, dataset), ..row })
        })
    }
}

/// The student with labels where the student has none, and the other way round.
fn other_hard_weight(loss: LossSpec) -> (&'static str, LossSpec) {
    if loss.hard_weight > 0.0 {
        (UNLABELLED, LossSpec { hard_weight: 0.0, ..loss })
    } else {
        (LABELLED, LossSpec { hard_weight: HARD_WEIGHT as f32, ..loss })
    }
}

/// How near a model comes to its teacher on the test set.
fn with_teacher(context: &Context, model: &Mlp, teacher: &[f32], dataset: &Dataset) -> Measures {
    let logits = model.logits(context, &dataset.test);
    let agreement = metrics::agreement(teacher, &logits, dataset.classes);
    let kl = metrics::mean_kl(teacher, &logits, dataset.classes, 1.0);
    [AGREEMENT.of(agreement), KL.of(kl)].into()
}

/// Logits whose softmax at T = 1 is (1 − ε)·label + ε/C, row-major [n, C].
fn smoothed_labels(split: &Split, classes: usize) -> Vec<f32> {
    let low = SMOOTHING / classes as f32;
    let (low, high) = (low.ln(), (1.0 - SMOOTHING + low).ln());
    let labels = split.labels.iter().flatten();
    let logit = move |c, label| if c == usize::from(label) { high } else { low };
    labels.flat_map(|&label| (0..classes).map(move |c| logit(c, label))).collect()
}

fn conclude(summary: &Summary) -> Conclusion {
    let on_mnist = summary.dataset == "mnist";
    let mut table = Table::new(
        format!(
            "Test errors{} on {}, preset {}",
            summary.of_examples(),
            summary.dataset,
            summary.preset
        ),
        &["variant", "ours", "paper", "negative log-likelihood", "agreement with teacher", "KL"],
    );
    let shown = summary.variants().into_iter().filter(|variant| !test_tuned::is_tried(variant));
    for variant in shown {
        // The paper's figures are for MNIST.
        let paper = summary.paper.get(variant).filter(|_| on_mnist);
        table.push([
            variant.to_string(),
            summary.errors_cell(variant),
            paper.map_or("–".into(), u64::to_string),
            summary.cell(variant, 4, &Measure::TestNll),
            summary.cell(variant, 4, &AGREEMENT),
            summary.cell(variant, 4, &KL),
        ]);
    }
    let students = ["student", "baseline", "teacher"].map(|name| summary.rows_of(name).count());
    let seeds = students.into_iter().find(|&n| n > 0).unwrap_or(0);
    let tuned = test_tuned::note(summary);
    let but =
        tuned.as_ref().map_or(String::new(), |_| format!(", but for '{}'", test_tuned::TUNED));
    table.note(match seeds {
        1 => "One seed: an example, not a statistic.".into(),
        n => format!(
            "Mean ± standard deviation of {n} seeds, last epoch, chosen on no test set{but}."
        ),
    });
    table.notes.extend(tuned);
    if summary.rows_of(JITTERED).next().is_some() {
        table
            .note(format!("'{JITTERED}' translates the transfer set, which the paper did not do."));
    }
    let of_views = [VIEWED, VIEWED_LABELS, SAME_STEPS];
    if of_views.iter().any(|variant| summary.rows_of(variant).next().is_some()) {
        table.note(format!(
            "'{VIEWED}' asks its teacher about images as they are, with pixels masked and mixed with each \
             other, others each time; \
             '{VIEWED_LABELS}' learns the labels of the same images, '{SAME_STEPS}' those of the \
             images as they are, for as many steps. The paper did none of these. Views, epochs and rate \
             stand in config-viewed.toml."
        ));
    }
    let of_several = |variant: &&str| variant.starts_with(OF_SEVERAL);
    if let Some(variant) = summary.variants().into_iter().find(of_several) {
        table.note(format!(
            "'{variant}': of the mean of all these seeds' teachers, the same for every seed, with \
             which it is compared."
        ));
    }
    let pairs = [
        ("p teacher/student", "teacher", "student"),
        ("p student/baseline", "student", "baseline"),
    ];
    let variants = ["teacher", "baseline", "student"];
    let mut each = summary.by_seed("Every seed", "student", variants, pairs);
    each.note("p: McNemar's exact test of the two models on the same images.");
    Conclusion {
        // That of teacher, baseline and student is made from the rows.
        headline: None,
        tables: [table, each].into_iter().chain(test_tuned::table(summary)).collect(),
        claims: if summary.is_the_papers() { claims(summary) } else { Vec::new() },
        charts: Vec::new(),
    }
}

/// What the paper claims of these three models.
fn claims(summary: &Summary) -> Vec<Claim> {
    let mut claims = Vec::new();
    for (variant, what) in [
        ("teacher", "The net with dropout and jitter makes 67 test errors"),
        ("baseline", "The smaller net without regularisation makes 146"),
        ("student", "The same net on the teacher's soft targets at T = 20 makes 74"),
    ] {
        let Some(&paper) = summary.paper.get(variant) else { continue };
        let errors = summary.values(variant, &Measure::TestErrors);
        if errors.is_empty() {
            continue;
        }
        let mut ours = summary.errors_cell(variant);
        let viewed = summary.values(VIEWED, &Measure::TestErrors);
        if variant == "student" && !viewed.is_empty() {
            let reach = |errors: &[f64]| {
                let those = errors.iter().filter(|&&errors| errors <= paper as f64).count();
                format!("{paper} or fewer for {those} of {} seeds", errors.len())
            };
            ours = format!(
                "{ours} in its own setting, {}; with masked views {}, {}",
                reach(&errors),
                summary.errors_cell(VIEWED),
                reach(&viewed)
            );
        }
        let verdict = near_a_single_run(paper as f64, &errors);
        claims.push(Claim { paper: format!("{what}."), ours, verdict });
    }
    let pairs = summary.paired("student", "baseline");
    if !pairs.is_empty() {
        let better = pairs.iter().filter(|pair| pair.first_is_better()).count();
        claims.push(Claim {
            paper: "Soft targets make the small net better than labels do.".into(),
            ours: format!("McNemar p < 0.01 for {better} of {} seeds", pairs.len()),
            verdict: Verdict::of_pairs(&pairs),
        });
    }
    claims
}

/// Whether our mean is as far from the paper's single run, in errors, as chance would explain. The
/// test images are the same, so that chance is that of the training alone, s of our seeds:
/// ours − paper ≤ 1.96·s·√(1 + 1/n), the paper's one run and our mean of n. Fewer errors are
/// better, and as good as reproduced. A single seed, whose s is unknown, shows nothing by more
/// errors unless they exceed what other test images would explain too, 1.96·√paper.
fn near_a_single_run(paper: f64, errors: &[f64]) -> Verdict {
    let excess = statistics::mean(errors) - paper;
    let noise = |sd: f64| 1.96 * sd * (1.0 + 1.0 / errors.len() as f64).sqrt();
    match statistics::sample_sd(errors).map(noise) {
        _ if excess <= 0.0 => Verdict::Reproduced,
        Some(noise) if excess <= noise => Verdict::Reproduced,
        None if excess <= 1.96 * paper.sqrt() => Verdict::Inconclusive,
        _ => Verdict::NotReproduced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothed_labels_are_a_distribution() {
        let labels = Some(vec![2, 0]);
        let split = Split::of_images(vec![0; 2], (1, 1), labels);
        let probs: Vec<f32> = smoothed_labels(&split, 4).iter().map(|z| z.exp()).collect();
        for (row, label) in probs.chunks(4).zip([2, 0]) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            assert!((row[label] - 0.925).abs() < 1e-6 && (row[1] - 0.025).abs() < 1e-6);
        }
    }

    #[test]
    fn the_claim_of_74_tells_the_papers_setting_from_masked_views() {
        let errors = [("student", [86, 90]), (VIEWED, [73, 76])];
        let rows = errors.iter().flat_map(|(variant, errors)| {
            errors.iter().zip(0..).map(move |(errors, seed)| -> Row {
                let row = serde_json::json!({
                    "variant": variant, "seed": seed, "test_errors": errors, "train_errors": 0,
                    "seconds": 0.0, "model": "", "sha256": "",
                });
                serde_json::from_value(row).unwrap()
            })
        });
        let claim = |rows: Vec<Row>| {
            claims(&Summary::new("mnist", "mnist", "paper", rows, &PAPER)).remove(0)
        };
        let both = claim(rows.clone().collect());
        assert_eq!(both.verdict, Verdict::NotReproduced);
        assert_eq!(
            both.ours,
            "88.0 ± 2.8 in its own setting, 74 or fewer for 0 of 2 seeds; with masked views 74.5 ± 2.1, 74 or \
             fewer for 1 of 2 seeds"
        );
        assert_eq!(claim(rows.take(2).collect()).ours, "88.0 ± 2.8");
    }

    #[test]
    fn verdicts_allow_for_chance_and_not_for_more() {
        assert_eq!(near_a_single_run(74.0, &[74.0]), Verdict::Reproduced);
        assert_eq!(near_a_single_run(74.0, &[60.0, 62.0]), Verdict::Reproduced);
        assert_eq!(near_a_single_run(74.0, &[90.0]), Verdict::Inconclusive);
        assert_eq!(near_a_single_run(74.0, &[91.0]), Verdict::NotReproduced);
        assert_eq!(near_a_single_run(74.0, &[91.0, 92.0]), Verdict::NotReproduced);
        // s = √8 and √2: 6.8 and 3.4 errors of the difference are chance.
        assert_eq!(near_a_single_run(74.0, &[78.0, 82.0]), Verdict::Reproduced);
        assert_eq!(near_a_single_run(74.0, &[79.0, 81.0]), Verdict::NotReproduced);
    }
}
