//! The row `student, test-tuned` of the MNIST table: the lowest of what was counted, whatever
//! interrupts the run, and no result wherever results are told.
#![cfg(feature = "paper")]

mod common;

use common::best;
use limbeck::engine::trainer::{EpochRecord, Observer, Progress};
use limbeck::pages::contents::RunContents;
use limbeck::pages::figure::Figure;
use limbeck::pages::headline::sentence;
use limbeck::paper::experiment::Input;
use limbeck::paper::preset::Preset;
use limbeck::paper::request::Request;
use limbeck::paper::{self, tables::mnist::Mnist};
use limbeck::run::context::RunContext;
use limbeck::run::records::{SeededRecord, all_records};
use limbeck::run::summary::{Row, Summary};
use limbeck::{Error, Result};
use limbeck_datasets::{Dataset, glyphs};
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

const TUNED: &str = "student, test-tuned";
const TRIED: [&str; 5] = ["2", "5", "10", "20", "40"];
/// Of a student in the smallest preset.
const EPOCHS: usize = 3;

fn tried(t: &str) -> String {
    format!("{TUNED}, T = {t}")
}

/// Stops the run in the step behind the one for which it says so.
struct Stops<'a, F> {
    stop: &'a AtomicBool,
    after: F,
}

impl<F: FnMut(&Progress) -> bool + Send> Observer for Stops<'_, F> {
    fn on_step(&mut self, progress: &Progress) {
        if (self.after)(progress) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
    fn warn(&mut self, message: &str) {
        // One test takes records away.
        assert!(message.contains("its curves have gaps"), "{message}");
    }
}

/// Begins the experiment or goes on with it, until it is stopped.
fn reproduce(out: &Path, stops: impl FnMut(&Progress) -> bool + Send) -> Result<Summary> {
    let digits = glyphs::load(1, 1_200, 400);
    let context = best(2);
    let stop = AtomicBool::new(false);
    let mut observer = Stops { stop: &stop, after: stops };
    let mut run = RunContext::new(&context, &mut observer, &stop);
    let request = Request { extended: true, ..Request::new(Preset::Smoke, 0..2) };
    let input = Input::Images(Rc::new(Dataset { name: "glyphs".into(), ..digits }));
    Ok(paper::reproduce(&mut run, &Mnist, &request, &input, out)?.summary)
}

/// A run that nothing disturbed.
static WHOLE: LazyLock<(TempDir, Summary)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let summary = reproduce(&folder.path().join("run"), |_| false).unwrap();
    (folder, summary)
});

/// The counts of each epoch of the trainings of a seed that are tried.
fn counts(out: &Path, seed: u64) -> Vec<usize> {
    let all = all_records(&out.join("metrics.jsonl")).unwrap();
    let of = |line: &SeededRecord<EpochRecord>| {
        let is_tried = TRIED.iter().any(|t| line.record.model == tried(t));
        (line.seed == seed && is_tried).then(|| line.record.watched["test"].errors)
    };
    all.iter().filter_map(of).collect()
}

#[test]
fn it_is_the_lowest_of_all_epochs_and_temperatures() {
    let (folder, summary) = &*WHOLE;
    for seed in [0, 1] {
        let row = |variant: &str| summary.row(variant, seed).unwrap();
        let counts = counts(&folder.path().join("run"), seed);
        assert_eq!(counts.len(), TRIED.len() * EPOCHS);
        let (tuned, student) = (row(TUNED), row("student"));
        assert_eq!(tuned.test_errors as usize, *counts.iter().min().unwrap());
        assert!(tuned.test_errors <= student.test_errors);
        // At T = 20 it is the paper's student, whose last epoch was counted twice, by two ways.
        let at_20 = row(&tried("20"));
        assert_eq!(at_20.sha256, student.sha256);
        assert_eq!(at_20.test_errors, student.test_errors);
        let last = counts[3 * EPOCHS + EPOCHS - 1];
        assert_eq!(last as u64, student.test_errors);
        let named = tried(&tuned.measures["lowest_temperature"].to_string());
        assert_eq!(row(&named).measures["lowest_test_errors"], tuned.test_errors as f64);
        assert_eq!(row(&named).measures["lowest_epoch"], tuned.measures["lowest_epoch"]);
    }
}

#[test]
fn it_is_told_for_no_result() {
    let (folder, summary) = &*WHOLE;
    let Row { model, misclassified, test_nll, .. } = summary.row(TUNED, 0).unwrap();
    // Without the misclassified no test of significance can take it up.
    assert!(model.is_empty() && misclassified.is_empty() && test_nll.is_none());
    let [errors, by_seed, chosen] = &summary.tables[..] else { panic!("{:?}", summary.tables) };
    let names: Vec<&str> = errors.rows.iter().map(|cells| &*cells[0]).collect();
    assert_eq!(names.iter().filter(|name| name.contains("test-tuned")).count(), 1, "{names:?}");
    let notes = errors.notes.join("\n");
    assert!(notes.contains(&format!("chosen on no test set, but for '{TUNED}'.")), "{notes}");
    let gain = |seed| {
        let errors = |variant| summary.row(variant, seed).unwrap().test_errors as f64;
        errors("student") - errors(TUNED)
    };
    let said = format!("here {:.1} ± ", (gain(0) + gain(1)) / 2.0);
    assert!(notes.contains(&format!("'{TUNED}' is no result")) && notes.contains(&said), "{notes}");
    assert!(chosen.title.contains("no result"));
    assert_eq!(chosen.rows.iter().map(|cells| &*cells[0]).collect::<Vec<_>>(), TRIED);
    let is_named = |text: &str| text.contains("test-tuned");
    assert!(!is_named(&by_seed.to_string()));
    assert!(summary.claims.is_empty() && summary.headline.is_none());

    let mut contents =
        RunContents::read(&best(1), &folder.path().join("run"), None, None, &[]).unwrap();
    assert!(!is_named(&sentence(&contents.summary)));
    let figure = Figure::of(&contents).unwrap().to_svg();
    assert!(figure.contains("label smoothing") && !is_named(&figure), "{figure}");

    // Nor where there is no gap to tell of, and where nothing else is left.
    let mut rest = summary.clone();
    rest.rows.retain(|row| row.variant == "baseline" || is_named(&row.variant));
    assert!(!is_named(&sentence(&rest)), "{}", sentence(&rest));
    rest.rows.retain(|row| is_named(&row.variant));
    assert_eq!(sentence(&rest), "A run without a result.");
    contents.summary = rest;
    assert!(Figure::of(&contents).is_none());
}

#[test]
fn interruptions_lose_no_epoch() {
    let (_, whole) = &*WHOLE;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    // In the second and third epoch of each training that is tried.
    let within = |progress: &Progress| {
        progress.model.starts_with(TUNED) && progress.epoch > 1 && progress.step == 5
    };
    let mut stops = 0;
    let disturbed = loop {
        match reproduce(&out, within) {
            Err(Error::Interrupted { .. }) => stops += 1,
            ended => break ended.unwrap(),
        }
    };
    // Two epochs of five trainings of two seeds.
    assert_eq!(stops, 20);
    let what = |summary: &Summary| -> Vec<_> {
        let of = |row: &Row| {
            let Row { variant, seed, test_errors, sha256, measures, .. } = row.clone();
            (variant, seed, test_errors, sha256, measures)
        };
        summary.rows.iter().map(of).collect()
    };
    assert_eq!(what(&disturbed), what(whole));
    assert_eq!(disturbed.tables, whole.tables);
    for seed in [0, 1] {
        assert_eq!(counts(&out, seed), counts(&WHOLE.0.path().join("run"), seed));
    }
}

#[test]
fn the_lowest_of_some_epochs_is_not_told_for_that_of_all() {
    let (folder, name) = (tempfile::tempdir().unwrap(), tried("5"));
    let out = folder.path().join("run");
    let stopped = reproduce(&out, |progress| *progress.model == *name && progress.epoch == 3);
    assert!(matches!(stopped, Err(Error::Interrupted { .. })));
    fs::write(out.join("metrics.jsonl"), "").unwrap();
    let refused = reproduce(&out, |_| false).unwrap_err();
    assert_eq!(refused.exit_code(), 65);
    let message = refused.to_string();
    assert!(message.contains("those of 1 of 3 epochs"), "{message}");
    // What it advises.
    let checkpoints = out.join("checkpoints/student--test-tuned--T-=-5-0");
    assert!(message.contains(checkpoints.to_str().unwrap()), "{message}");
    fs::remove_dir_all(checkpoints).unwrap();
    let summary = reproduce(&out, |_| false).unwrap();
    assert_eq!(summary.tables, WHOLE.1.tables);
}
