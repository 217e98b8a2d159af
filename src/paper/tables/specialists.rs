//! The paper's section 5 at MNIST's size: a generalist, and specialists for what it confuses.
//!
//! The paper had 100 million images in 15,000 classes and 61 specialists of 300, 1.2 for a class. Here
//! are 360 classes, digits and letters as ten writers write them ([`writers`]), and 24 specialists of
//! 18, again 1.2 for a class. The paper's generalist was right on a quarter of the images, for its net
//! was small for so many classes. Ours is a net of 16 units a layer, which is right on half of them and
//! hardly on more of its training set. The method is [`crate::paper::specialists`].
//!
//! | variant | what it is |
//! |---|---|
//! | generalist | a net for all classes |
//! | specialist 1, 2, … | the generalist's net trained on for a class set and a dustbin; its errors are those among these classes |
//! | generalist + specialists | both, by the paper's equation 5 |
//! | generalist, trained on briefly | a control of ours: the generalist trained on with all classes for as many steps as one specialist, the time that they take side by side |
//! | generalist, trained on | a control of ours: the same for as many steps as all specialists together, one after the other |
//! | distilled | not in the paper, which left it undone: the generalist's net on the soft targets of generalist and specialists |

use crate::engine::config::{Config, DatasetKind, DistillationConfig, OptimizerKind};
use crate::engine::{loss::LossSpec, mlp::Mlp, trainer::Task};
use crate::files::error::{Error, Result};
use crate::paper::experiment::{About, Conclusion, Data, Experiment, ExperimentSpec, Setup};
use crate::paper::graph::{Graph, Memo, Node};
use crate::paper::specialists::{self, Answers};
use crate::paper::{experiment_run::ExperimentRun, key::Key, preset::Preset};
use crate::run::chart::{Chart, Point, Series};
use crate::run::statistics::{McNemar, MeanSd};
use crate::run::summary::{Claim, Measure, Row, Summary, Table, Verdict};
use crate::run::training::combined_row;
use limbeck_datasets::glyphs::writers;
use limbeck_datasets::{Dataset, Split};
use std::collections::{BTreeMap, BTreeSet};
use std::{rc::Rc, time::Instant};

const GENERALIST: &str = "generalist";
const COMBINED: &str = "generalist + specialists";
const CONTINUED: &str = "generalist, trained on";
const BRIEFLY: &str = "generalist, trained on briefly";
const DISTILLED: &str = "distilled";
/// Between the seeds of two specialists: farther than `--seeds` counts.
const SPECIALIST_SEEDS: u64 = 1 << 32;

/// How much is spent, and on what.
#[derive(Clone)]
struct SpecialistConfigs {
    generalist: Config,
    specialist: Config,
    /// The generalist trained on, by the control's name.
    controls: [(&'static str, Config); 2],
    distilled: Config,
    specialists: usize,
    /// Classes of a specialist, its dustbin not counted.
    size: usize,
}

impl SpecialistConfigs {
    /// Every preset has the narrow net: what specialists add, they add where a net is too small to know
    /// all classes as well as it could. Chosen on 18,000 further examples of the training stream, see
    /// `results/specialists-standard`, and not on the test set.
    fn new(preset: Preset, dataset: &Dataset) -> SpecialistConfigs {
        let (epochs, specialist_epochs, train_limit) = match preset {
            Preset::Smoke => (2, 1, Some(2_000)),
            Preset::Quick => (10, 1, Some(36_000)),
            Preset::Standard => (40, 2, None),
            Preset::Paper => (160, 6, None),
        };
        let (width, specialists, size) = (16, 24, dataset.classes / 20);
        let config = |classes: usize, epochs: usize| {
            let mut config = Config::default();
            config.data.dataset = DatasetKind::Writers;
            config.data.classes = classes;
            config.data.train_limit = train_limit;
            config.model.layers = vec![dataset.train.input_size(), width, width, classes];
            config.training.epochs = epochs;
            config.training.optimizer = OptimizerKind::Adam;
            config.training.learning_rate = 1e-3;
            config
        };
        let generalist = config(dataset.classes, epochs);
        // An epoch of a specialist shows each example of the rest once and as many of its set.
        let briefly = config(dataset.classes, 2 * specialist_epochs);
        let continued = config(dataset.classes, 2 * specialist_epochs * specialists);
        // T and weights of the paper's speech experiment.
        let table = DistillationConfig {
            temperature: 2.0,
            hard_weight: 0.5,
            ..DistillationConfig::default()
        };
        let distilled = Config { distillation: Some(table), ..generalist.clone() };
        let specialist = config(size + 1, specialist_epochs);
        SpecialistConfigs {
            generalist,
            specialist,
            controls: [(BRIEFLY, briefly), (CONTINUED, continued)],
            distilled,
            specialists,
            size,
        }
    }
}

/// What is added to the dustbin's logit, for there are fewer examples of it than there would be.
const DUSTBIN_RAISE: Measure = Measure::named("dustbin_raise");

/// The experiment.
pub struct Specialists;

impl Experiment for Specialists {
    fn about(&self) -> About {
        About {
            name: "specialists",
            section: "5",
            shows: "a generalist, and specialists for the classes that it confuses",
            data: &[Data::Writers],
            takes_teachers: true,
            takes_seeds: true,
            has_more_rows: true,
        }
    }

    /// # Errors
    /// [`Error::Usage`] if a class has no training example.
    fn declare(&self, setup: Setup) -> Result<ExperimentSpec> {
        let (request, dataset) = setup.images(self)?;
        let configs = SpecialistConfigs::new(request.preset, dataset);
        let limit = configs.generalist.data.train_limit.unwrap_or(dataset.train.len());
        let train = Rc::new(dataset.train.clone().truncated(limit));
        let occurs = |c: usize| train.labels.iter().flatten().any(|&label| usize::from(label) == c);
        if let Some(class) = (0..dataset.classes).find(|&class| !occurs(class)) {
            return Err(Error::Usage(format!(
                "found no training example of class {class}, expected some of each of the {} \
                 classes",
                dataset.classes
            )));
        }
        let SpecialistConfigs { generalist, specialist, distilled, .. } = configs.clone();
        let loss = request.extended.then(|| LossSpec::soft(&distilled));
        let seeds: Vec<u64> = request.seeds.clone().collect();
        let models = Rc::new(Models {
            configs,
            dataset: dataset.clone(),
            train,
            generalists: Memo::default(),
        });
        let nodes = seeds.iter().flat_map(|&seed| models.of_seed(seed, request.extended));
        Ok(ExperimentSpec {
            experiment: self.about().name,
            dataset: models.dataset.clone(),
            // The summary says itself how much was trained on.
            train_limit: None,
            configs: vec![
                ("generalist", generalist),
                ("specialist", specialist),
                ("distilled", distilled),
            ],
            loss,
            paper_errors: Vec::new(),
            graph: Graph::new(nodes.collect()),
            seeds: seeds.clone(),
            conclude: Box::new(move |run| {
                let sets = seeds.into_iter().map(|seed| {
                    let generalist = models.generalist(run, seed)?;
                    Ok((seed, generalist.sets.clone()))
                });
                let sets = sets.collect::<Result<_>>()?;
                Ok(conclude(&run.summary, &models.dataset, &sets))
            }),
        })
    }
}

/// The name of the specialist for the `i`-th set, from 0.
fn nth_specialist(i: usize) -> String {
    format!("specialist {}", i + 1)
}

struct Models {
    configs: SpecialistConfigs,
    dataset: Rc<Dataset>,
    /// What they are trained on.
    train: Rc<Split>,
    generalists: Memo<u64, Generalist>,
}

struct Generalist {
    model: Rc<Mlp>,
    /// Its logits on the training set.
    on_train: Vec<f32>,
    /// The classes of each specialist.
    sets: Vec<Vec<usize>>,
}

impl Models {
    fn generalist(&self, run: &mut ExperimentRun, seed: u64) -> Result<Rc<Generalist>> {
        self.generalists.get(seed, || {
            let Models { configs, dataset, train, .. } = self;
            let model = run.model(&Key::row(GENERALIST, seed))?;
            let on_train = model.logits(run.kernels(), train);
            let covariance = specialists::covariance(&on_train, dataset.classes);
            let (count, size) = (configs.specialists, configs.size);
            let sets = specialists::confusable_sets(&covariance, dataset.classes, count, size);
            Ok(Generalist { model, on_train, sets })
        })
    }

    fn of_seed(self: &Rc<Self>, seed: u64, extended: bool) -> Vec<Node> {
        let Models { configs, dataset, train, .. } = &**self;
        let generalist = || Key::row(GENERALIST, seed);
        let members = || (0..configs.specialists).map(|i| Key::row(nth_specialist(i), seed));
        let all = || std::iter::once(generalist()).chain(members()).collect::<Vec<_>>();
        let generalist_node = Node::teacher(GENERALIST, &configs.generalist, seed, train, dataset);
        let mut nodes = vec![generalist_node.concluded()];
        nodes.extend(configs.controls.clone().map(|(name, config)| {
            let models = self.clone();
            Node::row(name, seed, vec![generalist()], move |run| {
                let config = Config { seed, ..config.clone() };
                let generalist = run.model(&Key::row(GENERALIST, seed))?;
                let task = Task::hard(name, &config, &models.train);
                let task = Task { initial: Some(&generalist), ..task };
                Ok(run.train(&models.dataset, &task, seed)?.1)
            })
        }));
        nodes.extend((0..configs.specialists).map(|i| {
            let models = self.clone();
            Node::row(nth_specialist(i), seed, vec![generalist()], move |run| {
                models.train_specialist(run, i, seed)
            })
        }));
        let models = self.clone();
        nodes.push(Node::row(COMBINED, seed, all(), move |run| {
            let start = Instant::now();
            let dataset = &models.dataset;
            let generalist = models.generalist(run, seed)?;
            let on_test = generalist.model.logits(run.kernels(), &dataset.test);
            let logits = models.combine(run, seed, &dataset.test, &on_test)?;
            combined_row(dataset, COMBINED, seed, &logits, start.elapsed())
        }));
        if extended {
            let models = self.clone();
            nodes.push(Node::row(DISTILLED, seed, all(), move |run| {
                let config = Config { seed, ..models.configs.distilled.clone() };
                let generalist = models.generalist(run, seed)?;
                let train = &models.train;
                let targets = models.combine(run, seed, train, &generalist.on_train)?;
                let loss = LossSpec::soft(&config);
                let task = Task::soft(DISTILLED, &config, train, loss, &targets);
                Ok(run.train(&models.dataset, &task, seed)?.1)
            }));
        }
        nodes
    }

    /// The specialist for the `i`-th set, its dustbin not yet raised.
    fn train_specialist(&self, run: &mut ExperimentRun, i: usize, seed: u64) -> Result<Row> {
        let generalist = self.generalist(run, seed)?;
        let set = &generalist.sets[i];
        // Two specialists for the same set are not the same net.
        let own_seed = seed + (i as u64 + 1) * SPECIALIST_SEEDS;
        let config = Config { seed: own_seed, ..self.configs.specialist.clone() };
        let own = specialists::dataset(&self.train, &self.dataset, set);
        let initial = specialists::initial(&generalist.model, set);
        let name = nth_specialist(i);
        let task = Task { initial: Some(&initial), ..Task::hard(&name, &config, &own.train) };
        let row = run.train(&own, &task, seed)?.1;
        let raise = specialists::dustbin_raise(&self.train, set);
        Ok(Row { measures: [DUSTBIN_RAISE.of(raise)].into(), ..row })
    }

    /// The logits of generalist and specialists together on `split`, where the generalist's are
    /// `on_split`.
    fn combine(
        &self,
        run: &mut ExperimentRun,
        seed: u64,
        split: &Split,
        on_split: &[f32],
    ) -> Result<Vec<f32>> {
        let generalist = self.generalist(run, seed)?;
        let mut answers = Vec::new();
        for (i, set) in generalist.sets.iter().enumerate() {
            let (key, inputs) = (Key::row(nth_specialist(i), seed), split.input_size());
            let mut model = (*run.model_with(&key, inputs, set.len() + 1)?).clone();
            specialists::raise_dustbin(&mut model, specialists::dustbin_raise(&self.train, set));
            answers.push(Answers { set: set.clone(), logits: model.logits(run.kernels(), split) });
        }
        Ok(specialists::combine_all(on_split, self.dataset.classes, &answers))
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

    /// By how many percent more examples are right than by the generalist, if any by it.
    fn gain(&self, row: &Row) -> Option<f64> {
        let [of_row, before] = [row, self.generalist].map(|row| self.accuracy(row, |_| true));
        (before > 0.0).then(|| 100.0 * (of_row / before - 1.0))
    }
}

/// The classes of each specialist, by seed.
type ClassSets = BTreeMap<u64, Vec<Vec<usize>>>;

fn conclude(summary: &Summary, dataset: &Dataset, sets: &ClassSets) -> Conclusion {
    let coverages: BTreeMap<u64, Coverage> = summary
        .rows_of(GENERALIST)
        .filter_map(|row| Some((row.seed, Coverage::new(dataset, sets.get(&row.seed)?, row))))
        .collect();
    let (by_coverage, chart) = by_coverage(summary, &coverages);
    let mean = |variant| {
        summary.cell_of(variant, 2, |row| {
            let coverage = coverages.get(&row.seed)?;
            Some(coverage.accuracy(row, |_| true))
        })
    };
    Conclusion {
        headline: Some(format!(
            "With its specialists the generalist is right on {} % of the test images, without them on \
             {} %.",
            mean(COMBINED),
            mean(GENERALIST)
        )),
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
        &["variant", "conditional test accuracy", "test accuracy", "relative gain in %", "paper"],
    );
    for variant in [GENERALIST, COMBINED, BRIEFLY, CONTINUED, DISTILLED] {
        if summary.rows_of(variant).next().is_none() {
            continue;
        }
        let of = |measure: &dyn Fn(&Coverage, &Row) -> f64| {
            summary.cell_of(variant, 2, |row| Some(measure(coverages.get(&row.seed)?, row)))
        };
        let gain = summary.cell_of(variant, 2, |row| coverages.get(&row.seed)?.gain(row));
        let paper = match variant {
            GENERALIST => "25.0",
            COMBINED => "26.1 (+4.4)",
            _ => "–",
        };
        table.push([
            variant.to_string(),
            of(&|c, row| c.accuracy(row, |n| n > 0)),
            of(&|c, row| c.accuracy(row, |_| true)),
            if variant == GENERALIST { "–".into() } else { gain },
            paper.to_string(),
        ]);
    }
    table.note(
        "Conditional: of the test images whose class is in some specialist's set; the paper's 43.1 \
         became 45.9. Its data are 100 million images in 15,000 classes; ours are 360 classes.",
    );
    table.note(format!(
        "The generalist trained on: '{BRIEFLY}' for at least as many steps as one specialist, \
         '{CONTINUED}' as all specialists together."
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
        points.extend(change.map(|change| Point::at(n as f64, change)));
        table.push([
            n.to_string(),
            format!("{examples}"),
            format!("{delta:+}"),
            change.map_or("–".into(), |change| format!("{change:+.1}")),
        ]);
    }
    let mut chart = Chart::new(
        "What specialists add, by how many cover the correct class",
        "specialists that cover the correct class",
        "relative change of accuracy, %",
        [Series::new("ours", points)],
    );
    chart.caption =
        "What specialists change in the accuracy, by how many of them know the correct class."
            .into();
    chart.references = vec![("paper, overall".into(), 4.4)];
    (table, chart)
}

fn every_seed(summary: &Summary) -> Table {
    let variants = [GENERALIST, COMBINED, BRIEFLY, CONTINUED];
    let pairs = [
        ("p generalist", GENERALIST, COMBINED),
        ("p trained on briefly", BRIEFLY, COMBINED),
        ("p trained on", CONTINUED, COMBINED),
    ];
    let mut table = summary.by_seed("Test errors of every seed", COMBINED, variants, pairs);
    table.note("p: McNemar's exact test against generalist + specialists on the same images.");
    table
}

/// As in the paper's table 2, the first seed's.
fn class_sets(dataset: &Dataset, sets: &ClassSets) -> Table {
    let mut table = Table::new("Class sets of the first seed", &["specialist", "classes"]);
    let name = |&class: &usize| match dataset.name.as_str() {
        "writers" => writers::class_name(class),
        _ => class.to_string(),
    };
    for (i, set) in sets.values().next().into_iter().flatten().enumerate() {
        table.push([(i + 1).to_string(), set.iter().map(name).collect::<Vec<_>>().join(" ")]);
    }
    table.note("3c: the 3 of the third writer.");
    table.note(alike(sets));
    table
}

/// How much the sets of any seed have in common.
fn alike(sets: &ClassSets) -> String {
    let (mut most, mut size, mut covered) = (0, 0, Vec::new());
    for sets in sets.values() {
        for (i, set) in sets.iter().enumerate() {
            let shared = |other: &Vec<usize>| other.iter().filter(|c| set.contains(c)).count();
            most = sets[..i].iter().map(shared).fold(most, usize::max);
            size = set.len();
        }
        covered.push(sets.iter().flatten().collect::<BTreeSet<_>>().len() as f64);
    }
    let covered = MeanSd::of(&covered).map_or("–".into(), |covered| covered.text(0));
    format!(
        "Of all seeds: the two sets most alike share {most} of their {size} classes, and {covered} classes \
         are in some set."
    )
}

fn claims(summary: &Summary, coverages: &BTreeMap<u64, Coverage>) -> Vec<Claim> {
    // Each seed's tests against the generalist and both controls. The paper's argument is the time of
    // specialists that are trained side by side: the verdict is by the generalist, and by what it gains
    // in that time. What it gains in the time of all of them is told beside it.
    let tests = |row: &Row| -> Option<Vec<McNemar>> {
        coverages.get(&row.seed)?;
        let others = [GENERALIST, BRIEFLY, CONTINUED].into_iter();
        others.map(|other| Some(row.mcnemar(summary.row(other, row.seed)?))).collect()
    };
    let tests: Vec<Vec<McNemar>> = summary.rows_of(COMBINED).filter_map(tests).collect();
    if tests.is_empty() {
        return Vec::new();
    }
    let than = |i: usize| tests.iter().filter(|tests| tests[i].first_is_better()).count();
    let judged: Vec<McNemar> = tests.iter().flat_map(|tests| tests[..2].to_vec()).collect();
    let accuracy = |variant| {
        let of = |row: &Row| Some(coverages.get(&row.seed)?.accuracy(row, |_| true));
        summary.cell_of(variant, 2, of)
    };
    let gain = |variant| summary.cell_of(variant, 1, |row| coverages.get(&row.seed)?.gain(row));
    vec![Claim {
        paper: "Specialists improve the generalist: 25.0 to 26.1 % right, 4.4 % relative.".into(),
        ours: format!(
            "{} to {} % right, {} % relative; the generalist trained on for the steps of one specialist \
             {} %, for those of all {} %; McNemar p < 0.01 against these three for {}, {} and {} of {} seeds",
            accuracy(GENERALIST),
            accuracy(COMBINED),
            gain(COMBINED),
            gain(BRIEFLY),
            gain(CONTINUED),
            than(0),
            than(1),
            than(2),
            tests.len()
        ),
        verdict: Verdict::of_pairs(&judged),
    }]
}
