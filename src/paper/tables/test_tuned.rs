//! What a choice on the test set may give: how far the paper's 74 may be one. Never a result.
//!
//! The student of the MNIST table is trained at some temperatures, and its test errors are counted
//! after each epoch. The row `student, test-tuned` is the lowest of these counts. Only whoever saw
//! the test set could have stopped there, so it is compared with no other row: it has no model, no
//! likelihood and no misclassified images, and no claim, sentence or figure takes it up, see
//! [`TEST_TUNED`](crate::run::summary::TEST_TUNED).
//!
//! Each training is a row of its own as well, with the errors of its last epoch, so that a run that
//! is killed goes on with the training that it was at. That at the student's own temperature repeats
//! it: of the student's epochs nothing is known where it was trained without these rows.

use super::transfer::Transfer;
use crate::engine::trainer::{EpochRecord, Task};
use crate::engine::{config::Config, loss::LossSpec};
use crate::files::error::{Error, Result};
use crate::paper::{graph::Node, key::Key};
use crate::run::records::all_epochs;
use crate::run::summary::{Measure, Row, Summary, Table};
use crate::run::{folder::RunFolder, statistics::MeanSd};
use std::rc::Rc;

/// The row that carries the lowest count.
pub(super) const TUNED: &str = "student, test-tuned";

/// The temperatures tried, around the paper's 20. Each costs as much as the student.
const TEMPERATURES: [f32; 5] = [2.0, 5.0, 10.0, 20.0, 40.0];

/// The split that is watched.
const TEST: &str = "test";

/// The lowest count of a training, and the first epoch behind which it was found.
const LOWEST: Measure = Measure::named("lowest_test_errors");
const LOWEST_EPOCH: Measure = Measure::named("lowest_epoch");
/// The temperature of the lowest count of all.
const LOWEST_TEMPERATURE: Measure = Measure::named("lowest_temperature");

/// A training whose epochs the choice is among.
fn tried(temperature: f32) -> String {
    format!("{TUNED}, T = {temperature}")
}

/// Whether the variant is one of the trainings that the choice is among.
pub(super) fn is_tried(variant: &str) -> bool {
    TEMPERATURES.iter().any(|&t| variant == tried(t))
}

/// The trainings of a seed, and the choice among them.
pub(super) fn nodes(transfer: &Rc<Transfer>, seed: u64) -> Vec<Node> {
    let trainings = TEMPERATURES.iter().map(|&t| training(transfer.clone(), t, seed));
    trainings.chain([choice(seed)]).collect()
}

fn training(transfer: Rc<Transfer>, temperature: f32, seed: u64) -> Node {
    let name = tried(temperature);
    Node::row(name.clone(), seed, vec![Transfer::teacher(seed)], move |run| {
        let Transfer { configs, dataset, train, .. } = &*transfer;
        let config = Config { seed, ..configs.student.clone() };
        let loss = LossSpec { temperature, ..LossSpec::soft(&config) };
        let logits = transfer.logits(run, seed)?;
        let watch = [(TEST, &dataset.test)];
        let task = Task { watch: &watch, ..Task::soft(&name, &config, train, loss, &logits) };
        let row = run.train(dataset, &task, seed)?.1;
        let (errors, epoch) = lowest(&run.folder, &name, &config)?;
        let measures = [LOWEST.of(errors as f64), LOWEST_EPOCH.of(epoch as f64)];
        Ok(Row { measures: measures.into(), ..row })
    })
}

/// The lowest count of test errors of a model over its epochs, and the first epoch with it.
///
/// # Errors
/// Those of [`all_epochs`].
fn lowest(folder: &RunFolder, name: &str, config: &Config) -> Result<(usize, usize)> {
    let records = all_epochs(folder, name, config)?;
    let count = |record: &EpochRecord| Some((record.watched.get(TEST)?.errors, record.epoch));
    let lowest = records.iter().filter_map(count).min();
    lowest.ok_or_else(|| Error::Internal(format!("{name}: no epoch was counted")))
}

fn choice(seed: u64) -> Node {
    let key = move |t| Key::row(tried(t), seed);
    Node::row(TUNED, seed, TEMPERATURES.map(key).into(), move |run| {
        let mut counts = Vec::new();
        for t in TEMPERATURES {
            let row = run.row_of(&key(t))?;
            counts.extend(row.value(&LOWEST).zip(row.value(&LOWEST_EPOCH)).map(|(n, e)| (n, t, e)));
        }
        let lowest = counts.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
        let (errors, t, epoch) =
            lowest.ok_or_else(|| Error::Internal(format!("{TUNED}: nothing was counted")))?;
        Ok(Row {
            variant: TUNED.into(),
            seed,
            test_errors: errors as u64,
            train_errors: None,
            seconds: 0.0,
            model: String::new(),
            sha256: String::new(),
            test_nll: None,
            epochs: None,
            samples_per_second: None,
            misclassified: Vec::new(),
            chosen_on: Some(TEST.into()),
            measures: [LOWEST_TEMPERATURE.of(t.into()), LOWEST_EPOCH.of(epoch)].into(),
        })
    })
}

/// What the row is, for whoever reads it in a table; nothing where there is none.
pub(super) fn note(summary: &Summary) -> Option<String> {
    summary.rows_of(TUNED).next()?;
    let gain = |tuned: &Row| {
        let student = summary.row("student", tuned.seed)?;
        Some(student.test_errors as f64 - tuned.test_errors as f64)
    };
    let gains: Vec<f64> = summary.rows_of(TUNED).filter_map(gain).collect();
    let gain = MeanSd::of(&gains).map_or(String::new(), |gain| {
        let gain = gain.text(usize::from(gains.len() > 1));
        format!(", here {gain} errors fewer than the student's")
    });
    Some(format!(
        "'{TUNED}' is no result: it is chosen on the test set, the lowest count over all epochs at T \
         = {}. It shows how much such a choice could give{gain}.",
        TEMPERATURES.map(|t| t.to_string()).join(", ")
    ))
}

/// What each temperature and its epochs give; nothing where there is no such row.
pub(super) fn table(summary: &Summary) -> Option<Table> {
    summary.rows_of(TUNED).next()?;
    let mut table = Table::new(
        format!("Chosen on the test set, no result: what '{TUNED}' is the lowest of"),
        &["T", "last epoch", "lowest of its epochs", "that epoch"],
    );
    for t in TEMPERATURES {
        let variant = tried(t);
        table.push([
            t.to_string(),
            summary.errors_cell(&variant),
            summary.count_cell(&variant, &LOWEST),
            summary.count_cell(&variant, &LOWEST_EPOCH),
        ]);
    }
    Some(table)
}
