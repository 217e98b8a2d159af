//! Every table of the paper at the smallest scale, through the command line, on the embedded
//! digits: what is trained, kept, continued and concluded.
#![cfg(feature = "cli")]

mod common;

use common::program::{program, stderr};
use common::required::data_dir;
use limbeck_datasets::an4;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use tempfile::TempDir;

/// Runs the program with no settings from the environment; its JSON, or its error.
fn limbeck(args: &[&str]) -> Result<Value, (Option<i32>, String)> {
    let output = program(args).args(["--json", "--quiet"]).output().unwrap();
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout).unwrap());
    }
    Err((output.status.code(), stderr(&output)))
}

const SMOKE: [&str; 4] = ["--preset", "smoke", "--seeds", "2"];

/// `reproduce all`, run once for all tests, and what it printed.
static ALL: LazyLock<(TempDir, Value)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("all");
    let args = [&["reproduce", "all", "--out", out.to_str().unwrap()], &SMOKE[..]].concat();
    let printed = limbeck(&args).unwrap();
    (folder, printed)
});

fn summary(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("summary.json")).unwrap()).unwrap()
}

fn rows(summary: &Value) -> &Vec<Value> {
    summary["rows"].as_array().unwrap()
}

fn systems(summary: &Value, seed: u64) -> Vec<&str> {
    let of_seed = rows(summary).iter().filter(|row| row["seed"] == seed);
    of_seed.map(|row| row["variant"].as_str().unwrap()).collect()
}

/// Copies a run folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn every_experiment_trains_its_models_and_says_what_it_found() {
    let (folder, printed) = &*ALL;
    let runs = printed["runs"].as_array().unwrap();
    let names: Vec<_> = runs.iter().map(|run| run["experiment"].as_str().unwrap()).collect();
    let all =
        ["mnist", "omitted", "temperature", "logits", "variance", "regularizer", "specialists"];
    assert_eq!(names, all);
    for (run, name) in runs.iter().zip(names) {
        let kept = summary(&folder.path().join("all").join(name));
        assert_eq!(run["rows"], kept["rows"]);
        assert!(!run["tables"].as_array().unwrap().is_empty());
        // The regulariser has one model of all the data, and draws of the smallest part.
        if name != "regularizer" {
            assert_eq!(systems(&kept, 0), systems(&kept, 1));
        }
        for row in rows(&kept) {
            let errors = row["test_errors"].as_u64().unwrap();
            assert_eq!(row["misclassified"].as_array().unwrap().len() as u64, errors);
        }
    }
    assert_eq!(
        systems(&summary(&folder.path().join("all/mnist")), 0),
        ["teacher", "baseline", "student", "student, jittered"]
    );
    for figure in [
        "omitted/offsets.svg",
        "temperature/temperature.svg",
        "logits/limit.svg",
        "variance/variance.svg",
    ] {
        let svg = fs::read_to_string(folder.path().join("all").join(figure)).unwrap();
        assert!(svg.contains("<circle") && !svg.contains("NaN"), "{figure}");
    }
}

#[test]
fn rows_that_were_asked_for_are_trained_alone_and_the_others_added() {
    let folder = tempfile::tempdir().unwrap();
    let run = |experiment: &str, only: &[&str]| {
        let out = folder.path().join(experiment);
        let args = ["reproduce", experiment, "--preset", "smoke", "--out", out.to_str().unwrap()];
        let only = [&["--only"][..], only].concat();
        limbeck(&[&args[..], if only.len() > 1 { &only } else { &[] }].concat())
    };
    let variants = |printed: &Value| -> Vec<String> {
        let names = rows(printed).iter().map(|row| row["variant"].as_str().unwrap());
        names.map(str::to_string).collect()
    };
    // What is concluded from the rows bears that some are not there.
    let first = ["mnist", "omitted", "temperature", "logits"].map(|name| (name, "teacher"));
    for (experiment, only) in
        first.into_iter().chain([("specialists", "generalist"), ("regularizer", "hard, 100 %")])
    {
        let found = variants(&run(experiment, &[only]).unwrap());
        assert_eq!(found, [only], "{experiment}");
        let kept = fs::read_to_string(folder.path().join(experiment).join("summary.json")).unwrap();
        assert!(!kept.contains("NaN"), "{experiment}: {kept}");
        let kept: Value = serde_json::from_str(&kept).unwrap();
        for table in kept["tables"].as_array().unwrap() {
            assert_ne!(table["rows"].as_array().unwrap().len(), 0, "{experiment}: {table}");
        }
    }
    let narrow = run("temperature", &["30 units, T = 1", "30 units, T = 3"]).unwrap();
    assert_eq!(variants(&narrow), ["teacher", "30 units, T = 1", "30 units, T = 3"]);
    let narrow = run("temperature", &["30 units"]).unwrap();
    assert_eq!(variants(&narrow).len(), 5);
    let whole = run("temperature", &[]).unwrap();
    assert_eq!(variants(&whole).len(), 9);
    assert_eq!(rows(&whole)[..5], rows(&narrow)[..]);

    let (code, error) = run("mnist", &["teachers"]).unwrap_err();
    assert!(code == Some(2) && error.contains("found \"teachers\""), "{error}");
    assert!(error.contains("teacher; baseline; student"), "{error}");
    assert!(error.contains("more with --extended"), "{error}");
    // Some of the variance table's may diverge, which is a result of its own.
    for experiment in ["all", "variance"] {
        let (code, error) = run(experiment, &["teacher"]).unwrap_err();
        assert!(code == Some(2) && error.contains("--only"), "{error}");
    }
}

#[test]
fn the_folder_of_another_run_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let run = |experiment: &str, more: &[&str]| {
        let out = folder.path().join("run");
        let args = ["reproduce", experiment, "--preset", "smoke", "--out", out.to_str().unwrap()];
        limbeck(&[&args[..], more].concat())
    };
    run("mnist", &["--only", "teacher"]).unwrap();
    let place = folder.path().join("run");
    let listing = || {
        let mut names: Vec<_> =
            fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = listing();
    // The two have teachers of the same configuration. Nor is it one where there is no row yet.
    for _ in 0..2 {
        let (code, error) = run("omitted", &[]).unwrap_err();
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains("found a run of `reproduce mnist`, expected one of"), "{error}");
        let _ = fs::remove_file(place.join("summary.json"));
    }
    assert_eq!(listing().len() + 1, before.len());
    // A copied run is shared too, whose lock is left behind.
    fs::remove_file(place.join(".lock")).unwrap();
    run("mnist", &["--only", "teacher", "--worker", "0"]).unwrap();
    // What the conclusion reads is made again where it is gone.
    let out = folder.path().join("specialists");
    let args = ["reproduce", "specialists", "--preset", "smoke", "--out", out.to_str().unwrap()];
    let made = limbeck(&args).unwrap();
    fs::remove_dir_all(out.join("models")).unwrap();
    let again = limbeck(&args).unwrap();
    let of = |printed: &Value| rows(printed)[0]["sha256"].clone();
    assert_eq!(of(&again), of(&made));
}

#[test]
fn another_teacher_than_the_runs_own_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = |out: &str, more: &[&str]| {
        let out = folder.path().join(out);
        let args = ["reproduce", "mnist", "--preset", "smoke", "--only", "teacher", "--out"];
        limbeck(&[&args[..], &[out.to_str().unwrap()], more].concat())
    };
    run("first", &[]).unwrap();
    run("second", &["--seed", "1"]).unwrap();
    let model = |run: &str, seed: u64| {
        let path = folder.path().join(format!("{run}/models/teacher-{seed}.safetensors"));
        path.to_str().unwrap().to_string()
    };
    run("first", &["--teacher", &model("first", 0)]).unwrap();
    let (code, error) = run("first", &["--teacher", &model("second", 1)]).unwrap_err();
    assert!(code == Some(2) && error.contains("another --out"), "{error}");
}

#[test]
fn teachers_are_trained_once() {
    let (folder, _) = &*ALL;
    let teacher = |name: &str| {
        let summary = summary(&folder.path().join("all").join(name));
        rows(&summary)[0].clone()
    };
    let trained = teacher("mnist");
    assert!(trained["epochs"].is_u64());
    for name in ["omitted", "temperature", "logits", "variance"] {
        let given = teacher(name);
        assert_eq!((&given["variant"], &given["seed"]), (&trained["variant"], &trained["seed"]));
        assert_eq!(given["sha256"], trained["sha256"]);
        assert!(given["epochs"].is_null());
    }
}

#[test]
fn a_continued_experiment_ends_with_the_same_models() {
    let (folder, _) = &*ALL;
    let whole = folder.path().join("all/mnist");
    let part = folder.path().join("part");
    copy(&whole, &part);
    // As if it had been killed after the third model.
    let mut cut = summary(&part);
    cut["rows"].as_array_mut().unwrap().truncate(3);
    fs::write(part.join("summary.json"), cut.to_string()).unwrap();
    let args = [&["reproduce", "mnist", "--out", part.to_str().unwrap()], &SMOKE[..]].concat();
    limbeck(&args).unwrap();
    let (before, after) = (summary(&whole), summary(&part));
    let hashes = |summary: &Value| -> Vec<_> {
        rows(summary).iter().map(|row| (row["variant"].clone(), row["sha256"].clone())).collect()
    };
    assert_eq!(hashes(&before), hashes(&after));
    let manifest = fs::read_to_string(part.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["continued"].as_array().unwrap().len(), 1);
    // UTC in ISO 8601 sorts as it reads.
    let [started, finished] = ["started", "finished"].map(|key| manifest[key].as_str().unwrap());
    assert!(started < finished, "{started} to {finished}");
    // A finished one is not touched, even where its models are gone.
    fs::remove_dir_all(part.join("models")).unwrap();
    fs::create_dir(part.join("models")).unwrap();
    limbeck(&args).unwrap();
    assert_eq!(rows(&summary(&part)), rows(&after));
    // Nor does one in another precision take the folder,
    let (code, error) = limbeck(&[&args[..], &["--precision", "bf16"]].concat()).unwrap_err();
    assert!(code == Some(2) && error.contains("config-teacher.toml"), "{code:?} {error}");
    assert!(error.contains("in bf16"), "{error}");
    // or another experiment.
    let other = [&["reproduce", "omitted", "--out", part.to_str().unwrap()], &SMOKE[..]].concat();
    let (code, error) = limbeck(&other).unwrap_err();
    assert!(code == Some(2) && error.contains("found a run of `reproduce mnist`"), "{error}");
    // An earlier version wrote that into the summary alone.
    let mut earlier = manifest;
    earlier.as_object_mut().unwrap().remove("experiment").unwrap();
    fs::write(part.join("manifest.json"), earlier.to_string()).unwrap();
    let (code, error) = limbeck(&other).unwrap_err();
    assert!(code == Some(65) && error.contains("summary.json"), "{code:?} {error}");
}

#[test]
fn an_experiment_in_bf16_says_so_everywhere() {
    let (folder, _) = &*ALL;
    let out = folder.path().join("bf16");
    let args = ["reproduce", "mnist", "--precision", "bf16", "--out", out.to_str().unwrap()];
    let printed = limbeck(&[&args[..], &SMOKE[..]].concat()).unwrap();
    assert_eq!(printed["precision"], "bf16");
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    let manifest: Value = serde_json::from_str(&read("manifest.json")).unwrap();
    assert_eq!(manifest["precision"], "bf16");
    assert!(read("config-student.toml").contains("precision = \"bf16\""));
    assert!(read("report.html").contains("matrix products in bf16"));
    let f32 = summary(&folder.path().join("all/mnist"));
    assert!(f32.get("precision").is_none());
    for (row, other) in rows(&summary(&out)).iter().zip(rows(&f32)) {
        assert_eq!(row["variant"], other["variant"]);
        assert_ne!(row["sha256"], other["sha256"]);
    }
}

#[test]
fn a_damaged_record_of_an_experiment_is_refused_and_kept() {
    let (folder, _) = &*ALL;
    let run = folder.path().join("damaged");
    copy(&folder.path().join("all/mnist"), &run);
    let args = [&["reproduce", "mnist", "--out", run.to_str().unwrap()], &SMOKE[..]].concat();
    let not_text = "[training]\nepochs = \u{e9}".chars().map(|c| c as u8).collect::<Vec<_>>();
    for (name, damaged, code, says) in [
        ("manifest.json", b"[]".to_vec(), 65, "expected a map"),
        (
            "manifest.json",
            b"{\"data\":{}}".to_vec(),
            65,
            "data and teachers that the run began with",
        ),
        ("summary.json", b"{\"experiment\":\"mnist\"".to_vec(), 65, "summary"),
        ("config-student.toml", not_text, 2, "another run"),
    ] {
        let path = run.join(name);
        let valid = fs::read(&path).unwrap();
        fs::write(&path, &damaged).unwrap();
        let (found, error) = limbeck(&args).unwrap_err();
        assert_eq!(found, Some(code), "{name}: {error}");
        assert!(error.contains(name) && error.contains(says), "{error}");
        assert_eq!(fs::read(&path).unwrap(), damaged, "{name}");
        fs::write(&path, valid).unwrap();
    }
    limbeck(&args).unwrap();
}

#[test]
fn extended_rows_are_added_to_a_finished_experiment() {
    let (folder, _) = &*ALL;
    let extended = folder.path().join("extended");
    copy(&folder.path().join("all/mnist"), &extended);
    let out = extended.to_str().unwrap();
    let args = [&["reproduce", "mnist", "--extended", "--out", out], &SMOKE[..]].concat();
    limbeck(&args).unwrap();
    let summary = summary(&extended);
    for seed in [0, 1] {
        let systems = systems(&summary, seed);
        for system in
            ["student, with labels", "label smoothing", "student, test-tuned", "student of 2"]
        {
            assert!(systems.contains(&system), "{system} in {systems:?}");
        }
    }
}

#[test]
fn no_bias_correction_beats_the_one_that_saw_the_test_labels() {
    let (folder, _) = &*ALL;
    let summary = summary(&folder.path().join("all/omitted"));
    for row in rows(&summary).iter().filter(|row| row["errors_test"].is_number()) {
        let errors = |key: &str| row[key].as_f64().unwrap();
        // Exact on the test set: no other offset, nor none, has fewer errors there.
        for other in ["errors_hold-out", "errors_share", "test_errors"] {
            assert!(errors("errors_test") <= errors(other), "{other}");
        }
        assert_eq!(errors("errors_at_0"), errors("test_errors"));
        let drawn =
            row.as_object().unwrap().iter().filter(|(key, _)| key.starts_with("errors_at_"));
        assert!(drawn.clone().count() > 40);
        assert!(drawn.into_iter().all(|(_, found)| found.as_f64() >= Some(errors("errors_test"))));
    }
}

#[test]
fn given_teachers_must_be_as_many_as_the_seeds() {
    let (code, error) =
        limbeck(&["reproduce", "omitted", "--seeds", "2", "--teacher", "a"]).unwrap_err();
    assert!(code == Some(2) && error.contains("found 1 models, expected 2"), "{code:?} {error}");
}

#[test]
fn speech_is_aligned_distilled_and_recognised() {
    let Some(data) = data_dir(an4::is_present) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (out, data) = (folder.path().join("run"), data.to_str().unwrap().to_string());
    let args = ["reproduce", "speech", "--preset", "smoke", "--data", &data, "--out"];
    let args = [&args[..], &[out.to_str().unwrap()]].concat();
    let printed = limbeck(&args).unwrap();
    let kept = summary(&out);
    let names: Vec<&str> = rows(&kept).iter().map(|row| row["variant"].as_str().unwrap()).collect();
    assert_eq!(names, ["mixtures", "aligner", "member", "member", "ensemble", "student, T = 2"]);
    // Two test speakers, of some thousand frames and dozens of words.
    for row in rows(&kept).iter().filter(|row| row["variant"] != "aligner") {
        for model in ["unigram", "bigram"] {
            let wer = row[format!("{model}_wer")].as_f64().unwrap();
            assert!((0.0..0.8).contains(&wer), "{}: {wer}", row["variant"]);
        }
    }
    assert_eq!(printed["tables"].as_array().unwrap().len(), 5);
    assert!(out.join("temperature.svg").exists());

    // A finished run is not trained again; one without its student trains only that, to the same
    // bits, on the states that were frozen before.
    fs::remove_file(out.join("models/student--T-=-2-2.safetensors")).unwrap();
    let mut shortened = kept.clone();
    shortened["rows"].as_array_mut().unwrap().pop();
    fs::write(out.join("summary.json"), shortened.to_string()).unwrap();
    let frozen = fs::read(out.join("alignment.safetensors")).unwrap();
    limbeck(&args).unwrap();
    let again = summary(&out);
    let hashes = |summary: &Value| -> Vec<Value> {
        rows(summary).iter().map(|row| row["sha256"].clone()).collect()
    };
    assert_eq!(hashes(&kept), hashes(&again));
    assert_eq!(fs::read(out.join("alignment.safetensors")).unwrap(), frozen);

    // A damaged alignment is noticed.
    let mut damaged = frozen.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(out.join("alignment.safetensors"), damaged).unwrap();
    let (code, message) = limbeck(&args).unwrap_err();
    assert_eq!(code, Some(65), "{message}");
    assert!(message.contains("alignment.safetensors"), "{message}");
}

#[test]
fn speech_without_its_corpus_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program(&["reproduce", "speech", "--preset", "smoke"]);
    let output = command.current_dir(folder.path()).output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("an4/"), "{message}");
    // The folder that it chose for the run is gone with the request.
    assert_eq!(fs::read_dir(folder.path().join("runs")).unwrap().count(), 0);
}
