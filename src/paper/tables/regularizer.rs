//! The paper's section 6: soft targets as regularisers. A net is trained on 3 % of the data with
//! hard targets, which overfit, and with the soft targets of the same net trained on all of it.
//!
//! | arm | targets | model |
//! |---|---|---|
//! | hard | labels | that of the last epoch |
//! | hard, early stopping | labels | that of the epoch with the fewest hold-out errors |
//! | soft | the full model's at temperature T, no labels | that of the last epoch |
//!
//! Both arms of a draw share net, initial weights, examples, their order, and the number of steps.
//! A part of p % is seen in √(100/p) times as many epochs as the whole: longer than the hard arm
//! can bear, shorter than equal numbers of steps would be. Early stopping is told by examples that
//! no arm is trained on; it is the same run as the hard arm, read at another epoch.

use super::speech;
use super::transfer::{draw, rows};
use crate::engine::trainer::{EpochRecord, Task, Watched};
use crate::engine::{config::Config, loss::LossSpec};
use crate::files::error::Result;
use crate::paper::experiment::{About, Conclusion, Data, Experiment, ExperimentSpec, Input, Setup};
use crate::paper::graph::{Graph, Memo, Node};
use crate::paper::preset::{Preset, PresetConfigs};
use crate::paper::{experiment_run::ExperimentRun, key::Key, request::Request};
use crate::run::chart::{Chart, Point, Series};
use crate::run::summary::{Claim, Measure, Measures, Row, Summary, Table, Verdict};
use crate::run::{
    context::RunContext,
    folder::RunFolder,
    records::{all_epochs, records},
    statistics::MeanSd,
};
use limbeck_datasets::{Dataset, Split};
use std::{collections::BTreeMap, path::Path, rc::Rc};

/// Percent of the training set, but for all of it.
const PERCENT: [usize; 3] = [30, 10, 3];
/// The paper's part.
const FEW: usize = 3;
/// The paper's accuracies on training and test frames: all of the data, 3 % hard (its best, with
/// early stopping), 3 % soft.
const PAPER: [(&str, [f64; 2]); 3] =
    [("hard, 100 %", [0.634, 0.589]), ("hard, 3 %", [0.673, 0.445]), ("soft, 3 %", [0.654, 0.570])];

/// Of the soft targets of frames: that of the distilled acoustic model, chosen on held-out speakers.
const TEMPERATURE: f32 = 5.0;

const EARLY_EPOCH: Measure = Measure::named("early_epoch");
const TRAIN_EXAMPLES: Measure = Measure::named("train_examples");

/// Errors on a split at the epoch of early stopping.
fn early_errors(split: &str) -> Measure {
    Measure::numbered(format!("early_{split}_errors"))
}

/// The experiment.
pub struct Regularizer;

impl Experiment for Regularizer {
    fn about(&self) -> About {
        About {
            name: "regularizer",
            section: "6",
            shows: "3 % of the data with hard and with soft targets",
            data: &[Data::Speech, Data::Images],
            takes_teachers: false,
            takes_seeds: true,
            has_more_rows: false,
        }
    }

    fn declare(&self, setup: Setup) -> Result<ExperimentSpec> {
        let Setup { run, request, input, out } = setup;
        let setting = Rc::new(match input {
            Input::Images(dataset) => on_images(dataset, request),
            Input::Speech => on_speech(run, request, out)?,
        });
        let Setting { config, loss, draws, .. } = &*setting;
        let first = request.seeds.start;
        let pairs = PERCENT.into_iter().flat_map(|percent| {
            let count = if percent == FEW { draws.0 } else { draws.1 };
            (first..first + count).map(move |seed| (percent, seed))
        });
        let mut nodes = vec![setting.full(first)];
        nodes.extend(pairs.flat_map(|(percent, seed)| {
            ["hard", "soft"].map(|targets| setting.arm(targets, percent, seed, first))
        }));
        Ok(ExperimentSpec {
            experiment: self.about().name,
            dataset: setting.dataset.clone(),
            train_limit: setting.train_limit,
            seeds: (first..first + draws.0.max(draws.1)).collect(),
            configs: vec![("hard", config.clone())],
            loss: Some(*loss),
            paper_errors: Vec::new(),
            graph: Graph::new(nodes),
            conclude: Box::new(move |run| {
                let curve = |targets| {
                    let records = records(&run.folder, &variant(targets, FEW), first);
                    records.map(|records| (targets, records))
                };
                let curves = [curve("hard")?, curve("soft")?];
                let sizes = (setting.dataset.train.len(), setting.dataset.test.len());
                Ok(conclude(&run.summary, setting.examples, sizes, &curves))
            }),
        })
    }
}

/// What the experiment is done on.
struct Setting {
    dataset: Rc<Dataset>,
    train_limit: Option<usize>,
    /// Examples in neither, by which the epoch of early stopping is found.
    holdout: Split,
    /// Net and training of the whole set, the seed aside.
    config: Config,
    /// The loss of the soft arm.
    loss: LossSpec,
    /// The examples of draw `seed` of `percent` % of the training set.
    draw: Box<dyn Fn(u64, usize) -> Vec<u32>>,
    /// Draws of the 3 %, and of each larger part.
    draws: (u64, u64),
    /// What an example is called, in the plural: `images`, `frames`.
    examples: &'static str,
    /// The logits of the full model on the training set.
    logits: Memo<(), Vec<f32>>,
}

/// The images, with the net and the temperature of the MNIST table.
fn on_images(dataset: &Rc<Dataset>, request: &Request) -> Setting {
    let configs = PresetConfigs::new(request.preset, dataset);
    let (epochs, draws) = match request.preset {
        Preset::Smoke => (2, (1, 1)),
        Preset::Quick => (10, (2, 1)),
        Preset::Standard => (30, (5, 2)),
        Preset::Paper => (60, (10, 5)),
    };
    let mut config = configs.baseline.clone();
    config.training.epochs = epochs;
    let train = configs.train_set(dataset);
    let limit = configs.teacher.data.train_limit;
    let (train, holdout) = train.holdout(train.len() / 10);
    let examples = train.len();
    Setting {
        train_limit: limit.filter(|&limit| limit < dataset.train.len()),
        dataset: Rc::new(Dataset { train, ..(**dataset).clone() }),
        holdout,
        config,
        loss: LossSpec { hard_weight: 0.0, ..LossSpec::soft(&configs.student) },
        draw: Box::new(move |seed, percent| draw(examples, seed, percent)),
        draws: (draws.0.max(request.seeds.end - request.seeds.start), draws.1),
        examples: "images",
        logits: Memo::default(),
    }
}

/// The frames of AN4, whose states are frozen first, in the folder `alignment` of `out`; the parts
/// are whole utterances, spread over the speakers.
fn on_speech(run: &mut RunContext, request: &Request, out: &Path) -> Result<Setting> {
    let (labelled, mut config) = speech::aligned(run, request, &out.join("alignment"))?;
    let draws = match request.preset {
        Preset::Smoke => (1, 1),
        Preset::Quick => (2, 1),
        Preset::Standard => (5, 1),
        Preset::Paper => (10, 3),
    };
    // The targets are to be the only regulariser: no dropout, and fewer epochs for that.
    config.model.dropout = None;
    config.training.epochs = (config.training.epochs * 3 / 4).max(1);
    let material = labelled.material.clone();
    let frames: Vec<u32> = (0..labelled.dataset.train.len() as u32).collect();
    Ok(Setting {
        train_limit: None,
        dataset: Rc::new(labelled.dataset.clone()),
        holdout: labelled.holdout.clone(),
        config,
        loss: LossSpec { temperature: TEMPERATURE, soft_weight: 1.0, hard_weight: 0.0 },
        draw: Box::new(move |seed, percent| {
            let (train, frames) = (&material.train, material.train.by_utterance(&frames, 1));
            train.draw(seed, percent).into_iter().flat_map(|u| frames[u]).copied().collect()
        }),
        draws: (draws.0.max(request.seeds.end - request.seeds.start), draws.1),
        examples: "frames",
        logits: Memo::default(),
    })
}

fn variant(targets: &str, percent: usize) -> String {
    format!("{targets}, {percent} %")
}

impl Setting {
    fn full(self: &Rc<Self>, seed: u64) -> Node {
        let (setting, name) = (self.clone(), variant("hard", 100));
        Node::row(name.clone(), seed, Vec::new(), move |run| {
            let Setting { dataset, holdout, config, .. } = &*setting;
            let config = Config { seed, ..config.clone() };
            let watch = [("holdout", holdout), ("test", &dataset.test)];
            let task = Task { watch: &watch, ..Task::hard(&name, &config, &dataset.train) };
            let row = run.train(dataset, &task, seed)?.1;
            Ok(Row { measures: early_stopping(&run.folder, &name, &config)?, ..row })
        })
    }

    /// One of the two arms of a draw; `first` is the seed of the full model.
    fn arm(self: &Rc<Self>, targets: &'static str, percent: usize, seed: u64, first: u64) -> Node {
        let (setting, name) = (self.clone(), variant(targets, percent));
        let full = Key::row(variant("hard", 100), first);
        let needs = if targets == "soft" { vec![full.clone()] } else { Vec::new() };
        Node::row(name.clone(), seed, needs, move |run| {
            let Setting { dataset, holdout, config, loss, .. } = &*setting;
            let mut config = Config { seed, ..config.clone() };
            let longer = (100.0 / percent as f64).sqrt();
            config.training.epochs = (config.training.epochs as f64 * longer).round() as usize;
            let chosen = (setting.draw)(seed, percent);
            let split = dataset.train.subset(&chosen);
            let logits;
            let task = if targets == "soft" {
                logits = rows(&setting.logits(run, &full)?, dataset.classes, &chosen);
                Task::soft(&name, &config, &split, *loss, &logits)
            } else {
                Task::hard(&name, &config, &split)
            };
            let watch = [("train", &split), ("holdout", holdout), ("test", &dataset.test)];
            let row = run.train(dataset, &Task { watch: &watch, ..task }, seed)?.1;
            let mut measures = early_stopping(&run.folder, &name, &config)?;
            measures.extend([TRAIN_EXAMPLES.of(split.len() as f64)]);
            Ok(Row { measures, ..row })
        })
    }

    fn logits(&self, run: &mut ExperimentRun, full: &Key) -> Result<Rc<Vec<f32>>> {
        self.logits.get((), || Ok(run.model(full)?.logits(run.kernels(), &self.dataset.train)))
    }
}

/// The epoch with the fewest errors on the hold-out, the first of several, and the errors there.
///
/// # Errors
/// Those of [`all_epochs`].
fn early_stopping(folder: &RunFolder, name: &str, config: &Config) -> Result<Measures> {
    let records = all_epochs(folder, name, config)?;
    let holdout = |record: &&EpochRecord| record.watched.get("holdout").map(|w| w.errors);
    let best = records.iter().min_by_key(|record| holdout(record).unwrap_or(usize::MAX));
    let Some(best) = best else { return Ok(Measures::new()) };
    let errors = best.watched.iter().map(|(name, w)| early_errors(name).of(w.errors as f64));
    Ok(std::iter::once(EARLY_EPOCH.of(best.epoch as f64)).chain(errors).collect())
}

/// The share of training and test set that is right; `early`: at the epoch of early stopping.
fn accuracies(
    summary: &Summary,
    variant: &str,
    early: bool,
    (train, test): (usize, usize),
) -> [Option<MeanSd>; 2] {
    let of = |split: &str, at_the_end: Measure, examples: &dyn Fn(&Row) -> f64| {
        let errors = if early { early_errors(split) } else { at_the_end };
        let rates = summary
            .rows_of(variant)
            .filter_map(|row| row.value(&errors).map(|errors| 1.0 - errors / examples(row)));
        MeanSd::of(&rates.collect::<Vec<f64>>())
    };
    let train = |row: &Row| row.value(&TRAIN_EXAMPLES).unwrap_or(train as f64);
    [of("train", Measure::TrainErrors, &train), of("test", Measure::TestErrors, &|_| test as f64)]
}

fn percent_cell(accuracy: &MeanSd) -> String {
    let MeanSd { n, mean, sd } = *accuracy;
    MeanSd { n, mean: 100.0 * mean, sd: sd.map(|sd| 100.0 * sd) }.text(2)
}

fn conclude(
    summary: &Summary,
    examples: &str,
    sizes: (usize, usize),
    curves: &[(&str, Vec<EpochRecord>); 2],
) -> Conclusion {
    let arms = [("hard", false), ("hard", true), ("soft", false)];
    let mut table = Table::new(
        format!("Accuracy on {} {examples} in percent, preset {}", summary.dataset, summary.preset),
        &["targets and part of the data", "train", "test", "paper: train", "paper: test"],
    );
    let mut test = BTreeMap::new();
    for percent in std::iter::once(100).chain(PERCENT) {
        for (targets, early) in arms {
            let variant = variant(targets, percent);
            let [train, accuracy] = accuracies(summary, &variant, early, sizes);
            let Some(accuracy) = accuracy else { continue };
            let paper = PAPER.iter().find(|(name, _)| *name == variant && !early);
            let paper = |i: usize| paper.map_or("–".into(), |p| format!("{:.1}", 100.0 * p.1[i]));
            table.push([
                if early { format!("{variant}, early stopping") } else { variant },
                train.map_or("–".into(), |train| percent_cell(&train)),
                percent_cell(&accuracy),
                paper(0),
                paper(1),
            ]);
            test.insert((targets, early, percent), accuracy);
        }
    }
    let draws = summary.rows_of(&variant("hard", FEW)).count();
    table.note(format!(
        "Mean ± standard deviation of the draws, {draws} at {FEW} %; one model on all of the data."
    ));
    table.note("Early stopping by a hold-out that no arm is trained on.");
    table.note(
        "The paper's data are 2000 hours of its own speech; its hard figure at 3 % is the best, \
         before accuracy falls.",
    );
    let at = |targets, early, percent| test.get(&(targets, early, percent));
    let claims = match [at("hard", false, 100), at("hard", false, FEW), at("soft", false, FEW)] {
        [Some(all), Some(hard), Some(soft)] => claims(summary, all, hard, soft, curves),
        _ => Vec::new(),
    };
    let headline = match [at("hard", false, 100), at("hard", false, FEW), at("soft", false, FEW)] {
        [Some(all), Some(hard), Some(soft)] => Some(format!(
            "On {FEW} % of the {examples} soft targets reach {:.1} % test accuracy and labels {:.1} %; \
             labels on all of them {:.1} %.",
            100.0 * soft.mean,
            100.0 * hard.mean,
            100.0 * all.mean
        )),
        _ => None,
    };
    Conclusion {
        headline,
        tables: vec![table],
        claims: if summary.preset == "smoke" { Vec::new() } else { claims },
        charts: vec![
            ("learning-curves".into(), learning_curves(summary, curves)),
            ("parts".into(), parts(summary, &test)),
        ],
    }
}

fn claims(
    summary: &Summary,
    all: &MeanSd,
    hard: &MeanSd,
    soft: &MeanSd,
    curves: &[(&str, Vec<EpochRecord>); 2],
) -> Vec<Claim> {
    // Means of n draws differ by chance by up to two standard errors.
    let noise = |a: &MeanSd| a.sd.map(|sd| 2.0 * sd / (a.n as f64).sqrt());
    let lost = all.mean - hard.mean;
    let recovered = (soft.mean - hard.mean) / lost;
    // By how much soft targets are above the middle of hard ones on few and on all data, s̄ − (h̄ + a)/2, and
    // what chance may make of it.
    let beyond_half = soft.mean - (hard.mean + all.mean) / 2.0;
    let margin = noise(soft).zip(noise(hard)).map(|(soft, hard)| soft + hard / 2.0);
    let percent = |x: f64| format!("{:.1} %", 100.0 * x);
    let mut claims = vec![
        Claim {
            paper: "With hard targets 3 % of the data lose a quarter of the test accuracy \
                    (58.9 % to 44.5 %)."
                .into(),
            ours: format!("{}: {} to {}", summary.dataset, percent(all.mean), percent(hard.mean)),
            // About a quarter: a fifth or more.
            verdict: match noise(hard) {
                Some(noise) if lost - noise >= all.mean / 5.0 => Verdict::Reproduced,
                Some(noise) if lost + noise < all.mean / 5.0 => Verdict::NotReproduced,
                _ => Verdict::Inconclusive,
            },
        },
        Claim {
            paper: "Soft targets recover almost all of that (57.0 %) without early stopping; we \
                    ask for half."
                .into(),
            ours: format!(
                "{}: {}, {} of what was lost; {:.2} points above half{}",
                summary.dataset,
                percent(soft.mean),
                percent(recovered),
                100.0 * beyond_half,
                margin.map_or(String::new(), |margin| format!(", margin {:.2}", 100.0 * margin))
            ),
            verdict: match margin {
                _ if lost <= 0.0 => Verdict::Inconclusive,
                Some(margin) if beyond_half > margin => Verdict::Reproduced,
                Some(margin) if beyond_half < -margin => Verdict::NotReproduced,
                _ => Verdict::Inconclusive,
            },
        },
    ];
    // The fall of the test accuracy from its best epoch to the last.
    let fall = |records: &[EpochRecord]| {
        let rates: Vec<f64> = records.iter().filter_map(|r| accuracy_of(r, "test")).collect();
        Some(rates.iter().copied().fold(f64::MIN, f64::max) - rates.last()?)
    };
    let [(_, hard), (_, soft)] = curves;
    if let (Some(hard), Some(soft)) = (fall(hard), fall(soft)) {
        claims.push(Claim {
            paper: "Hard targets need early stopping, for accuracy falls sharply after its peak; \
                    soft targets converge."
                .into(),
            ours: format!(
                "{}: from the best epoch to the last {} hard, {} soft",
                summary.dataset,
                percent(hard),
                percent(soft)
            ),
            verdict: match (hard, soft) {
                // Sharply: by a hundredth of all, and twice as far as soft.
                (hard, soft) if hard > 0.01 && hard > 2.0 * soft => Verdict::Reproduced,
                (hard, _) if hard <= 0.01 => Verdict::NotReproduced,
                _ => Verdict::Inconclusive,
            },
        });
    }
    claims
}

fn accuracy_of(record: &EpochRecord, split: &str) -> Option<f64> {
    let Watched { examples, errors, .. } = *record.watched.get(split)?;
    Some(1.0 - errors as f64 / examples as f64)
}

/// Accuracy by epoch of the first draw of the 3 %.
fn learning_curves(summary: &Summary, curves: &[(&str, Vec<EpochRecord>); 2]) -> Chart {
    let series = curves.iter().flat_map(|(targets, records)| {
        ["train", "test"].map(|split| {
            let point = |record: &EpochRecord| {
                Some(Point::at(record.epoch as f64, 100.0 * accuracy_of(record, split)?))
            };
            Series::new(format!("{targets} targets, {split}"), records.iter().filter_map(point))
        })
    });
    let title = format!("Learning curves on {FEW} % of {}", summary.dataset);
    Chart {
        caption: format!(
            "Accuracy by epoch of nets on {FEW} % of the data: on what they were trained on, and on the \
             test set."
        ),
        log_x: true,
        ..Chart::new(title, "epoch", "accuracy, %", series)
    }
}

fn parts(summary: &Summary, test: &BTreeMap<(&str, bool, usize), MeanSd>) -> Chart {
    let arms =
        [("hard", false, "hard"), ("hard", true, "hard, early stopping"), ("soft", false, "soft")];
    let series = arms.map(|(targets, early, name)| {
        let point = |&percent: &usize| {
            let accuracy = test.get(&(targets, early, percent))?;
            let spread = 100.0 * accuracy.sd.unwrap_or(0.0);
            Some(Point { x: percent as f64, y: 100.0 * accuracy.mean, spread })
        };
        Series::new(name, PERCENT.iter().rev().filter_map(point))
    });
    let all = test.get(&("hard", false, 100)).into_iter();
    let title = format!("Test accuracy by part of {}", summary.dataset);
    Chart {
        caption:
            "Test accuracy by the part of the training data, with labels and with soft targets."
                .into(),
        log_x: true,
        references: all.map(|all| ("all of the data".into(), 100.0 * all.mean)).collect(),
        ..Chart::new(title, "percent of the training data", "test accuracy, %", series)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_is_recovered_where_the_draws_say_so() {
        let summary = Summary::new("regularizer", "an4", "standard", Vec::new(), &[]);
        let verdict = |soft: [f64; 4]| {
            let [all, hard, soft] =
                [&[0.7][..], &[0.29, 0.31, 0.29, 0.31], &soft].map(|of| MeanSd::of(of).unwrap());
            let curves = ["hard", "soft"].map(|targets| (targets, Vec::new()));
            claims(&summary, &all, &hard, &soft, &curves)[1].verdict
        };
        // Half is 0.5; two standard errors are 0.012 of hard and 0.012 of soft targets.
        assert_eq!(verdict([0.51, 0.53, 0.51, 0.53]), Verdict::Reproduced);
        assert_eq!(verdict([0.50, 0.52, 0.50, 0.52]), Verdict::Inconclusive);
        assert_eq!(verdict([0.48, 0.50, 0.48, 0.50]), Verdict::Inconclusive);
        assert_eq!(verdict([0.47, 0.49, 0.47, 0.49]), Verdict::NotReproduced);
    }
}
