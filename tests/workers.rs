//! Several processes share a run: they come to the result of one, whatever becomes of them.

#![cfg(all(unix, feature = "cli"))]

mod common;

use common::program::{program, signal, stderr, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Output};
use std::sync::LazyLock;
use tempfile::TempDir;

const SMOKE: [&str; 6] = ["--preset", "smoke", "--seeds", "2", "--threads", "1"];

/// Starts one of those that share the run `out`, or, without a number, a process of its own.
fn start(experiment: &str, out: &Path, worker: Option<usize>, more: &[&str]) -> Child {
    let mut command = program(&["reproduce", experiment, "--json"]);
    command.args(SMOKE).args(more).arg("--out").arg(out);
    command.args(worker.iter().flat_map(|worker| ["--worker".into(), worker.to_string()]));
    command.spawn().unwrap()
}

/// What a process prints that succeeds.
#[track_caller]
fn result(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// `reproduce all` by one process, and what it printed.
static ALONE: LazyLock<(TempDir, Value)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let printed = result(start("all", &folder.path().join("run"), None, &[]));
    (folder, printed)
});

/// Without what a clock has measured, where, and the long lists that the hashes stand for.
fn timeless(mut summary: Value) -> Value {
    let remove = |from: &mut Value, keys: &[&str]| {
        keys.iter().for_each(|&key| drop(from.as_object_mut().unwrap().remove(key)));
    };
    for row in summary["rows"].as_array_mut().unwrap() {
        remove(row, &["seconds", "samples_per_second", "misclassified"]);
    }
    remove(&mut summary, &["run"]);
    summary
}

fn summary(run: &Path) -> Value {
    let text = fs::read_to_string(run.join("summary.json")).unwrap();
    timeless(serde_json::from_str(&text).unwrap())
}

/// Model, seed and epoch of each line of the metrics; a line that is being written is left out.
fn epochs(run: &Path) -> Vec<(String, u64, u64)> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of = |record: Value| {
        let number = |key: &str| record[key].as_u64().unwrap();
        (record["model"].as_str().unwrap().to_string(), number("seed"), number("epoch"))
    };
    records.map(of).collect()
}

/// Checks that the run in `out` came to what one process comes to, and that each epoch was kept
/// once.
#[track_caller]
fn as_alone(out: &Path, experiment: &str) {
    let alone = ALONE.0.path().join("run").join(experiment);
    assert_eq!(summary(out), summary(&alone));
    let (mine, expected) = (epochs(out), epochs(&alone));
    assert_eq!(BTreeSet::from_iter(&mine), BTreeSet::from_iter(&expected));
    assert_eq!(mine.len(), expected.len());
}

fn teacher_begun(out: &Path, seed: u64) -> bool {
    epochs(out).contains(&("teacher".into(), seed, 1))
}

fn teacher_done(out: &Path, seed: u64) -> bool {
    out.join("summary.json").exists()
        && summary(out)["rows"]
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["variant"] == "teacher" && row["seed"] == seed)
}

/// The portable instruction set gives the same bits, and takes its time.
const SLOWLY: [&str; 2] = ["--isa", "portable"];

#[test]
fn three_processes_come_to_the_result_of_one() {
    let (folder, printed) = &*ALONE;
    let out = folder.path().join("shared");
    let workers: Vec<Child> = (0..3).map(|i| start("all", &out, Some(i), &[])).collect();
    let expected: Vec<Value> = printed["runs"].as_array().unwrap().clone();
    for worker in workers {
        let runs = result(worker)["runs"].take();
        for (run, expected) in runs.as_array().unwrap().iter().zip(&expected) {
            assert_eq!(timeless(run.clone()), timeless(expected.clone()));
        }
    }
    for run in &expected {
        let experiment = run["experiment"].as_str().unwrap();
        as_alone(&out.join(experiment), experiment);
        assert!(out.join(experiment).join("report.html").exists());
    }
    // Each of the three is in the manifest.
    let manifest = fs::read_to_string(out.join("mnist/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let continued = manifest["continued"].as_array().unwrap().iter();
    let commands = continued.chain([&manifest]).map(|entry| entry["command"].to_string());
    assert_eq!(commands.collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn what_a_killed_process_was_at_another_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut killed = start("mnist", &out, Some(1), &SLOWLY);
    wait_for("the killed one's first epoch", || teacher_begun(&out, 1));
    let other = start("mnist", &out, Some(0), &[]);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!teacher_done(&out, 1), "killed too late");
    result(other);
    as_alone(&out, "mnist");
}

/// The offset of the hold-out's student is a measure of the other.
#[test]
fn a_model_is_measured_when_what_it_needs_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let teacher = |seed: u64| {
        let model = format!("run/mnist/models/teacher-{seed}.safetensors");
        ALONE.0.path().join(model).to_str().unwrap().to_string()
    };
    let (first, second) = (teacher(0), teacher(1));
    let teachers = ["--teacher", &first, &second];
    let slow = start("omitted", &out, Some(0), &[&teachers[..], &SLOWLY].concat());
    let first_student = ("student without 3s, hold-out".to_string(), 0, 1);
    wait_for("the slow one's first epoch", || epochs(&out).contains(&first_student));
    // Begins with the same seed, at the second student while the other is at the first.
    let fast = start("omitted", &out, Some(2), &teachers);
    [slow, fast].into_iter().for_each(|worker| drop(result(worker)));
    as_alone(&out, "omitted");
}

#[test]
fn a_run_is_shared_or_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |holder: Option<usize>, other: Option<usize>| {
        let out = folder.path().join(format!("{holder:?}"));
        let mut first = start("mnist", &out, holder, &SLOWLY);
        wait_for("the first epoch", || !epochs(&out).is_empty());
        let output = start("mnist", &out, other, &[]).wait_with_output().unwrap();
        first.kill().unwrap();
        first.wait().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{message}");
        let holder = format!("found another process at work (id {}", first.id());
        assert!(message.contains(&holder) && message.contains(out.to_str().unwrap()), "{message}");
    };
    refused(Some(0), None);
    refused(None, Some(0));

    // By its old name.
    let nowhere = program(&["reproduce", "mnist", "--member", "0"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(stderr(&nowhere).contains("--out"), "{}", stderr(&nowhere));
}

#[test]
fn signals_end_all_of_them_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let out: PathBuf = folder.path().join("run");
    let workers = [0, 1].map(|i| start("mnist", &out, Some(i), &SLOWLY));
    wait_for("both first epochs", || [0, 1].iter().all(|&seed| teacher_begun(&out, seed)));
    workers.iter().for_each(|worker| signal(worker, "TERM"));
    let ended: Vec<Output> = workers.map(|worker| worker.wait_with_output().unwrap()).into();
    for (i, output) in ended.iter().enumerate() {
        let message = stderr(output);
        assert_eq!(output.status.code(), Some(75), "{message}");
        assert!(message.contains(&format!("--worker {i}")), "{message}");
    }
    let kept = |seed: u64| {
        let files = fs::read_dir(out.join(format!("checkpoints/teacher-{seed}")));
        files.is_ok_and(|files| files.count() == 1)
    };
    assert!([0, 1].iter().any(|&seed| kept(seed)), "ended too late");
    let workers: Vec<Child> = (0..3).map(|i| start("mnist", &out, Some(i), &[])).collect();
    workers.into_iter().for_each(|worker| drop(result(worker)));
    as_alone(&out, "mnist");
    // Checkpoints go with their models.
    let left = fs::read_dir(out.join("checkpoints")).unwrap();
    assert!(left.map(|entry| entry.unwrap().path()).all(|path| path.is_file()));
}
