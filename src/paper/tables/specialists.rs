//! The paper's section 5 at MNIST's size: a generalist, and specialists for what it confuses.
//!
//! The paper had 100 million images in 15,000 classes and 61 specialists of 300. Here are 100
//! classes, ten digits as ten writers write them ([`writers`]), and 12 specialists of 10, so that
//! each covers a tenth where the paper's covered a fiftieth. The method is [`crate::paper::specialists`].
//!
//! | system | what it is |
//! |---|---|
//! | generalist | a net with dropout for all classes |
//! | specialist 1, 2, … | the generalist's net trained on for a class set and a dustbin; its errors are those among these classes |
//! | generalist + specialists | both, by the paper's equation 5 |
//! | generalist, trained on | a control of ours: the generalist trained on with all classes, for at least as many steps as a specialist |
//! | distilled | not in the paper, which left it undone: the generalist's net on the soft targets of generalist and specialists |

use crate::engine::config::{Config, DatasetKind, DistillationConfig, OptimizerKind};
use crate::engine::loss::LossSpec;
use crate::engine::mlp::Mlp;
use crate::engine::trainer::Task;
use crate::files::error::{Error, Result};
use crate::paper::preset::Preset;
use crate::paper::specialists::{self, Answers};
use crate::paper::study::{Conclusion, Design, Study};
use crate::run::chart::{Chart, Point, Series};
use crate::run::context::RunContext;
use crate::run::statistics;
use crate::run::summary::{Claim, Row, Summary, Table, Verdict};
use crate::run::training::combined_row;
use limbeck_datasets::glyphs::writers;
use limbeck_datasets::{Dataset, Split};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

const GENERALIST: &str = "generalist";
const COMBINED: &str = "generalist + specialists";
const CONTINUED: &str = "generalist, trained on";
const DISTILLED: &str = "distilled";
/// Between the seeds of two specialists: farther than `--seeds` counts.
const SPECIALIST_SEEDS: u64 = 1 << 32;

/// How much is spent, and on what.
struct Plan {
    generalist: Config,
    specialist: Config,
    continued: Config,
    distilled: Config,
    specialists: usize,
    /// Classes of a specialist, its dustbin not counted.
    size: usize,
}

impl Plan {
    /// Dropout keeps the generalist unsure of its training examples, which tell what it confuses.
    /// Specialists start with a coarse dustbin: of 1, 3 and 6 epochs at `quick`, more were better.
    /// Seen on 10,000 further examples of the training stream, not on the test set.
    fn new(preset: Preset, dataset: &Dataset) -> Plan {
        let (width, epochs, specialist_epochs, train_limit) = match preset {
            Preset::Smoke => (32, 2, 1, Some(2_000)),
            Preset::Quick => (256, 16, 3, Some(20_000)),
            Preset::Standard => (512, 30, 6, None),
            Preset::Paper => (1200, 80, 12, None),
        };
        let size = dataset.classes / 10;
        let config = |classes: usize, epochs: usize| {
            let mut config = Config::default();
            config.data.dataset = DatasetKind::Writers;
            config.data.classes = classes;
            config.data.train_limit = train_limit;
            config.model.layers = vec![dataset.train.input_size(), width, width, classes];
            config.model.dropout = Some(vec![0.0, 0.3, 0.3]);
            config.training.epochs = epochs;
            config.training.optimizer = OptimizerKind::Adam;
            config.training.learning_rate = 1e-3;
            config
        };
        let generalist = config(dataset.classes, epochs);
        // An epoch of a specialist shows each example of the rest once and as many of its set.
        let continued = config(dataset.classes, 2 * specialist_epochs);
        // T and weights of the paper's speech experiment; soft targets in place of dropout.
        let table = DistillationConfig {
            temperature: 2.0,
            hard_weight: 0.5,
            ..DistillationConfig::default()
        };
        let mut distilled = Config { distillation: Some(table), ..generalist.clone() };
        distilled.model.dropout = None;
        let specialist = config(size + 1, specialist_epochs);
        Plan { generalist, specialist, continued, distilled, specialists: 12, size }
    }
}

/// Trains the models for `seeds` seeds from `first_seed` on, in the run folder `out`; `extended`
/// adds the distilled net. An interrupted run in `out` is continued.
///
/// # Errors
/// [`Error::Usage`] if `out` holds another run, or a class of `dataset` has no training example;
/// those of training and writing.
pub fn reproduce(
    run: &mut RunContext,
    dataset: &Dataset,
    preset: Preset,
    (first_seed, seeds): (u64, u64),
    extended: bool,
    out: &Path,
) -> Result<Summary> {
    let plan = Plan::new(preset, dataset);
    let limit = plan.generalist.data.train_limit.unwrap_or(dataset.train.len());
    let train = dataset.train.clone().truncated(limit);
    let missing = (0..dataset.classes)
        .find(|&class| !train.labels.iter().flatten().any(|&label| usize::from(label) == class));
    if let Some(class) = missing {
        return Err(Error::Usage(format!(
            "found no training example of class {class}, expected some of each of the {} classes",
            dataset.classes
        )));
    }
    let all: Vec<u64> = (first_seed..first_seed + seeds).collect();
    let design = Design {
        experiment: "specialists",
        preset: preset.name(),
        configs: &[
            ("generalist", &plan.generalist),
            ("specialist", &plan.specialist),
            ("distilled", &plan.distilled),
        ],
        loss_contract: extended.then(|| LossSpec::soft(&plan.distilled).contract()),
        paper: &[],
    };
    let mut study = Study::open(run, dataset, &design, &all, out)?;
    let sets = study.run(run, |run, study| {
        let mut sets = BTreeMap::new();
        for seed in study.order(all.iter().copied()) {
            if study.leaves(GENERALIST, seed)? {
                continue;
            }
            let models = Seed { plan: &plan, dataset, train: &train, seed };
            sets.insert(seed, models.run(run, study, extended)?);
        }
        Ok(sets)
    })?;
    study.finish(|summary| conclude(summary, dataset, &sets))
}

/// The name of the specialist for the `i`-th set, from 0.
fn nth_specialist(i: usize) -> String {
    format!("specialist {}", i + 1)
}

/// The models of one seed.
struct Seed<'a> {
    plan: &'a Plan,
    dataset: &'a Dataset,
    train: &'a Split,
    seed: u64,
}

impl Seed<'_> {
    /// Returns the class sets.
    fn run(
        &self,
        run: &mut RunContext,
        study: &mut Study,
        extended: bool,
    ) -> Result<Vec<Vec<usize>>> {
        let Seed { plan, dataset, train, seed } = *self;
        let config = |of: &Config| Config { seed, ..of.clone() };
        let none = |_: &_, _: &Mlp| BTreeMap::new();

        let generalist_config = config(&plan.generalist);
        let hard = self.task(GENERALIST, &generalist_config);
        let generalist = study.teacher(run, &hard, seed)?;
        let classes = dataset.classes;
        let on_train = generalist.logits(run.context, train);
        let covariance = specialists::covariance(&on_train, classes);
        let sets = specialists::confusable_sets(&covariance, classes, plan.specialists, plan.size);

        let continued = config(&plan.continued);
        let task = Task { initial: Some(&generalist), ..self.task(CONTINUED, &continued) };
        study.ensure(run, &task, seed, none)?;

        let all: Vec<usize> = (0..sets.len()).collect();
        let mut systems: Vec<String> = all.iter().map(|&i| nth_specialist(i)).collect();
        systems.push(COMBINED.into());
        systems.extend(extended.then(|| DISTILLED.into()));
        if study.has(&systems, seed)? {
            return Ok(sets);
        }
        let specialist = |run: &mut RunContext, study: &mut Study, i: usize| {
            self.specialist(run, study, &generalist, i, &sets[i])
        };
        study.share_out(run, &all, |&i| (nth_specialist(i), seed), specialist)?;
        let mut members = Vec::new();
        for i in all {
            members.push(specialist(run, study, i)?);
        }
        let combine = |run: &RunContext, split: &Split, generalist: &[f32]| {
            let answers = sets.iter().zip(&members).map(|(set, member)| Answers {
                set: set.clone(),
                logits: member.logits(run.context, split),
            });
            specialists::combine_all(generalist, classes, &answers.collect::<Vec<_>>())
        };
        study.ensure_row(run, COMBINED, seed, |run| {
            let start = Instant::now();
            let on_test = generalist.logits(run.context, &dataset.test);
            let logits = combine(run, &dataset.test, &on_test);
            combined_row(dataset, COMBINED, seed, &logits, start.elapsed())
        })?;
        if extended && study.wants(run, DISTILLED, seed)? {
            let distilled = config(&plan.distilled);
            let targets = combine(run, train, &on_train);
            let task = Task {
                objective: LossSpec::soft(&distilled),
                teacher_logits: Some(&targets),
                ..self.task(DISTILLED, &distilled)
            };
            study.ensure(run, &task, seed, none)?;
        }
        Ok(sets)
    }

    /// The specialist for the `i`-th set, its dustbin raised.
    fn specialist(
        &self,
        run: &mut RunContext,
        study: &mut Study,
        generalist: &Mlp,
        i: usize,
        set: &[usize],
    ) -> Result<Mlp> {
        // Two specialists for the same set are not the same net.
        let seed = self.seed + (i as u64 + 1) * SPECIALIST_SEEDS;
        let config = Config { seed, ..self.plan.specialist.clone() };
        let own = specialists::dataset(self.train, self.dataset, set);
        let initial = specialists::initial(generalist, set);
        let name = nth_specialist(i);
        let task = Task { split: &own.train, initial: Some(&initial), ..self.task(&name, &config) };
        let raise = specialists::dustbin_raise(self.train, set);
        let mut model = study.model_on(run, &own, &task, self.seed, |_, _, _| {
            Ok(BTreeMap::from([("dustbin_raise".into(), raise)]))
        })?;
        specialists::raise_dustbin(&mut model, raise);
        Ok(model)
    }

    fn task<'t>(&'t self, name: &'t str, config: &'t Config) -> Task<'t> {
        let objective = LossSpec::HARD;
        Task { objective, ..Task::hard(name, config, self.train) }
    }
}

/// Test examples by the number of specialists for their class.
struct Coverage<'a> {
    /// That number for each test example.
    of_example: Vec<usize>,
    generalist: &'a Row,
}

impl<'a> Coverage<'a> {
    fn new(dataset: &Dataset, sets: &[Vec<usize>], generalist: &'a Row) -> Self {
        let covers = |&label: &u16| {
            sets.iter().filter(|set| set.binary_search(&label.into()).is_ok()).count()
        };
        let of_example = dataset.test.labels.iter().flatten().map(covers).collect();
        Self { of_example, generalist }
    }

    fn examples(&self, covered: impl Fn(usize) -> bool) -> f64 {
        self.of_example.iter().filter(|&&n| covered(n)).count() as f64
    }

    fn errors(&self, row: &Row, covered: impl Fn(usize) -> bool) -> f64 {
        row.misclassified.iter().filter(|&&i| covered(self.of_example[i])).count() as f64
    }

    /// In percent, of the examples whose class is covered so.
    fn accuracy(&self, row: &Row, covered: impl Fn(usize) -> bool) -> f64 {
        100.0 * (1.0 - self.errors(row, &covered) / self.examples(&covered))
    }
}

fn conclude(
    summary: &Summary,
    dataset: &Dataset,
    sets: &BTreeMap<u64, Vec<Vec<usize>>>,
) -> Conclusion {
    let coverages: BTreeMap<u64, Coverage> = summary
        .rows_of(GENERALIST)
        .filter_map(|row| Some((row.seed, Coverage::new(dataset, sets.get(&row.seed)?, row))))
        .collect();
    let (by_coverage, chart) = by_coverage(summary, &coverages);
    Conclusion {
        tables: vec![
            accuracies(summary, &coverages),
            by_coverage,
            every_seed(summary),
            class_sets(dataset, sets),
        ],
        claims: claims(summary, &coverages),
        charts: vec![("specialists".into(), chart)],
    }
}

/// The paper's table 3.
fn accuracies(summary: &Summary, coverages: &BTreeMap<u64, Coverage>) -> Table {
    let mut table = Table::new(
        format!("Accuracy on {} in %, preset {}", summary.dataset, summary.preset),
        &["system", "conditional test accuracy", "test accuracy", "relative gain in %", "paper"],
    );
    for system in [GENERALIST, COMBINED, CONTINUED, DISTILLED] {
        if summary.rows_of(system).next().is_none() {
            continue;
        }
        let of = |measure: &dyn Fn(&Coverage, &Row) -> f64| {
            summary.shown(system, 2, |row| Some(measure(coverages.get(&row.seed)?, row)))
        };
        let all = |_| true;
        let gain = |c: &Coverage, row: &Row| {
            100.0 * (c.accuracy(row, all) / c.accuracy(c.generalist, all) - 1.0)
        };
        let paper = match system {
            GENERALIST => "25.0",
            COMBINED => "26.1 (+4.4)",
            _ => "–",
        };
        table.push([
            system.to_string(),
            of(&|c, row| c.accuracy(row, |n| n > 0)),
            of(&|c, row| c.accuracy(row, all)),
            if system == GENERALIST { "–".into() } else { of(&gain) },
            paper.to_string(),
        ]);
    }
    table.notes.push(
        "Conditional: of the test images whose class is in some specialist's set. The paper's are \
         100 million images in 15,000 classes; ours are 100 classes."
            .into(),
    );
    table.notes.push(format!(
        "'{CONTINUED}': the generalist for at least as many further steps as one specialist."
    ));
    table
}

/// The paper's table 4, summed over the seeds.
fn by_coverage(summary: &Summary, coverages: &BTreeMap<u64, Coverage>) -> (Table, Chart) {
    let mut table = Table::new(
        "By the number of specialists that cover the correct class",
        &[
            "specialists",
            "test examples",
            "delta in top-1 correct",
            "relative accuracy change in %",
        ],
    );
    let most = coverages.values().flat_map(|c| &c.of_example).max().copied().unwrap_or(0);
    let mut points = Vec::new();
    for n in 0..=most {
        let (mut examples, mut correct, mut delta) = (0.0, 0.0, 0.0);
        for (&seed, coverage) in coverages {
            let Some(combined) = summary.row(COMBINED, seed) else { continue };
            let errors = |row| coverage.errors(row, |covered| covered == n);
            let before = errors(coverage.generalist);
            let here = coverage.examples(|covered| covered == n);
            examples += here;
            correct += here - before;
            delta += before - errors(combined);
        }
        if examples == 0.0 {
            continue;
        }
        // Nothing is relative to no correct example.
        let change = (correct > 0.0).then_some(100.0 * delta / correct);
        points.extend(change.map(|y| Point { x: n as f64, y, spread: 0.0 }));
        table.push([
            n.to_string(),
            format!("{examples}"),
            format!("{delta:+}"),
            change.map_or("–".into(), |change| format!("{change:+.1}")),
        ]);
    }
    let chart = Chart {
        title: "What specialists add, by how many cover the correct class".into(),
        x_label: "specialists that cover the correct class".into(),
        y_label: "relative change of accuracy, %".into(),
        log_x: false,
        log_y: false,
        series: vec![Series { name: "ours".into(), points }],
        references: vec![("paper, overall".into(), 4.4)],
    };
    (table, chart)
}

fn every_seed(summary: &Summary) -> Table {
    let mut table = Table::new(
        "Test errors of every seed",
        &["seed", GENERALIST, COMBINED, CONTINUED, "p generalist", "p trained on"],
    );
    for combined in summary.rows_of(COMBINED) {
        let row = |system| summary.row(system, combined.seed);
        let errors = |system| row(system).map_or("–".into(), |row| row.test_errors.to_string());
        let p = |system| match row(system) {
            Some(other) => {
                let test = statistics::mcnemar(&other.misclassified, &combined.misclassified);
                format!("{:.2e}", test.p_value)
            }
            None => "–".into(),
        };
        table.push([
            combined.seed.to_string(),
            errors(GENERALIST),
            combined.test_errors.to_string(),
            errors(CONTINUED),
            p(GENERALIST),
            p(CONTINUED),
        ]);
    }
    table.notes.push(
        "p: McNemar's exact test against generalist + specialists on the same images.".into(),
    );
    table
}

/// As in the paper's table 2, the first seed's.
fn class_sets(dataset: &Dataset, sets: &BTreeMap<u64, Vec<Vec<usize>>>) -> Table {
    let mut table = Table::new("Class sets of the first seed", &["specialist", "classes"]);
    let name = |&class: &usize| match dataset.name.as_str() {
        "writers" => writers::class_name(class),
        _ => class.to_string(),
    };
    for (i, set) in sets.values().next().into_iter().flatten().enumerate() {
        table.push([(i + 1).to_string(), set.iter().map(name).collect::<Vec<_>>().join(" ")]);
    }
    table.notes.push("3c: the digit 3 of the third writer.".into());
    table
}

/// Specialists improve the generalist.
fn claims(summary: &Summary, coverages: &BTreeMap<u64, Coverage>) -> Vec<Claim> {
    let pairs: Vec<_> = summary
        .rows_of(COMBINED)
        .filter_map(|combined| Some((combined, coverages.get(&combined.seed)?)))
        .collect();
    if pairs.is_empty() {
        return Vec::new();
    }
    let tests = pairs.iter().map(|(combined, coverage)| {
        statistics::mcnemar(&combined.misclassified, &coverage.generalist.misclassified)
    });
    let tests: Vec<_> = tests.collect();
    let better = tests.iter().filter(|test| test.first_is_better()).count();
    let accuracy = |system| {
        let of = |row: &Row| Some(coverages.get(&row.seed)?.accuracy(row, |_| true));
        summary.shown(system, 2, of)
    };
    vec![Claim {
        paper: "Specialists improve the generalist: 25.0 to 26.1 % right, 4.4 % relative.".into(),
        ours: format!(
            "{} to {} % right, McNemar p < 0.01 for {better} of {} seeds",
            accuracy(GENERALIST),
            accuracy(COMBINED),
            pairs.len()
        ),
        verdict: match better {
            n if n == pairs.len() => Verdict::Reproduced,
            _ if tests.iter().all(|test| test.only_first >= test.only_second) => {
                Verdict::NotReproduced
            }
            _ => Verdict::Inconclusive,
        },
    }]
}
