//! The pages made from run folders: what is on them, what is left out, and what names cannot do; and
//! the charts on them.
#![cfg(feature = "cli")]

use limbeck::pages::contents::RunContents;
use limbeck::pages::{demo, report as page};
use limbeck::run::chart::{Chart, MAX_LINES, Point, Series};
use limbeck_kernels::{Context, Isa};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use tempfile::TempDir;

/// A smoke run on the embedded digits, made once by the program, and what it noted.
static RUN: LazyLock<(TempDir, String)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let output = limbeck(&["reproduce", "mnist", "--preset", "smoke", "--out", text(&run)]);
    assert!(output.status.success());
    (folder, String::from_utf8(output.stderr).unwrap())
});

fn run() -> PathBuf {
    RUN.0.path().join("run")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn limbeck(args: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
    command.args(args).env_remove("LIMBECK_DATA").env_remove("LIMBECK_ISA").output().unwrap()
}

fn context() -> Context {
    Context::new(Isa::best(), 1).unwrap()
}

fn read(root: &Path) -> RunContents {
    RunContents::read(&context(), root, None, None).unwrap()
}

/// A run folder with this summary and nothing else.
fn records_only(summary: &Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("summary.json"), summary.to_string()).unwrap();
    folder
}

fn summary_of_run() -> Value {
    serde_json::from_slice(&fs::read(run().join("summary.json")).unwrap()).unwrap()
}

/// The text of the headings of a page.
fn headings(html: &str) -> Vec<(u8, String)> {
    let starts = html.match_indices("<h").filter_map(|(at, _)| {
        let level = html[at + 2..].chars().next()?.to_digit(10)? as u8;
        let (start, end) = (at + html[at..].find('>')? + 1, at + html[at..].find("</h")?);
        Some((level, html[start..end].to_string()))
    });
    starts.collect()
}

#[test]
fn a_run_ends_with_its_report_and_names_the_next_command() {
    let html = fs::read_to_string(run().join("report.html")).unwrap();
    let titles: Vec<String> = headings(&html).into_iter().skip(1).map(|(_, title)| title).collect();
    assert_eq!(
        titles,
        [
            "Result",
            "Learning curves",
            "Figures",
            "What the models see in each class",
            "Misclassified images",
            "Reliability",
            "Throughput",
            "How to run it again"
        ]
    );
    // Teacher, baseline, student: a confusion each, and 24 images as the student gets so many wrong.
    assert_eq!(html.matches("class=\"confusion\"").count(), 3);
    assert_eq!(html.matches("data:image/png;base64,").count(), 24);
    assert!(html.contains("limbeck reproduce mnist --preset smoke --out"));
    assert!(!html.contains("http://") && !html.contains("https://"));
    let next = format!("note: next: limbeck demo {}", text(&run()));
    assert_eq!(RUN.1.lines().last(), Some(&next[..]));
}

#[test]
fn headings_never_skip_a_level() {
    let runs = [read(&run()), read(&run())];
    for html in [page::page(&runs[..1]).unwrap(), page::page(&runs).unwrap()] {
        let levels: Vec<u8> = headings(&html).iter().map(|(level, _)| *level).collect();
        assert_eq!(levels.iter().filter(|&&level| level == 1).count(), 1);
        assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{levels:?}");
    }
}

#[test]
fn what_needs_models_is_left_out_where_there_are_none_and_the_page_says_so() {
    let folder = records_only(&summary_of_run());
    let html = page::page(&[read(folder.path())]).unwrap();
    let titles = headings(&html);
    for absent in ["Learning curves", "Misclassified images", "Reliability", "Figures"] {
        assert!(titles.iter().all(|(_, title)| title != absent), "{absent}");
    }
    assert!(html.contains("Left out, because") && html.contains("in the run folder"));
    assert!(html.contains("holds no manifest.json"));
    let output = limbeck(&["demo", text(folder.path())]);
    assert_eq!(output.status.code(), Some(65));
    assert!(!folder.path().join("demo.html").exists());
}

#[test]
fn hostile_names_stay_text() {
    let evil = "</script><script>alert(1)</script><img src=x onerror='a'>\"&";
    let mut summary = summary_of_run();
    for row in summary["rows"].as_array_mut().unwrap() {
        row["variant"] = json!(evil);
    }
    for key in ["experiment", "dataset", "preset"] {
        summary[key] = json!(evil);
    }
    summary["tables"][0]["title"] = json!(evil);
    summary["tables"][0]["columns"][1] = json!(evil);
    summary["claims"] = json!([{ "paper": evil, "ours": evil, "verdict": "reproduced" }]);
    let folder = records_only(&summary);
    let root = folder.path();
    let record = json!({
        "seed": 0, "model": evil, "epoch": 1, "loss": 1.0, "reducible_loss": 1.0,
        "train_errors": 1, "examples": 2, "learning_rate": 0.1, "seconds": 1.0,
        "samples_per_second": 2.0, "gflops": 1.0,
    });
    fs::write(root.join("metrics.jsonl"), format!("{record}\n")).unwrap();
    let manifest = json!({ evil: evil, "command": ["limbeck", evil], "data": { evil: [evil] } });
    fs::write(root.join("manifest.json"), manifest.to_string()).unwrap();
    fs::write(root.join("<b>.svg"), "<svg onload='alert(1)'><script>alert(1)</script></svg>")
        .unwrap();
    let runs = [read(root), read(root)];
    for html in [page::page(&runs[..1]).unwrap(), page::page(&runs).unwrap()] {
        for live in ["<script", "<img src=x", "<b>", "<svg onload"] {
            assert!(!html.contains(live), "{live} in the page");
        }
        assert!(html.contains("&lt;script&gt;alert(1)"));
    }
}

#[test]
fn damaged_records_and_models_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |root: &Path, part: &str| {
        let output = limbeck(&["report", text(root)]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(65), "{stderr}");
        assert!(stderr.contains(part), "{stderr}");
    };
    fails(folder.path(), "no summary.json");
    let copy = folder.path().join("copy");
    fs::create_dir_all(copy.join("models")).unwrap();
    for name in ["summary.json", "manifest.json"] {
        fs::copy(run().join(name), copy.join(name)).unwrap();
    }
    // Another model of the right shape in the student's place.
    let model = |name: &str| format!("models/{name}-0.safetensors");
    fs::copy(run().join(model("baseline")), copy.join(model("student"))).unwrap();
    fails(&copy, "student-0.safetensors: sha256 of the parameters");
    fs::write(copy.join("metrics.jsonl"), "{}\n").unwrap();
    fails(&copy, "metrics.jsonl: line 1");
}

#[test]
fn the_demo_holds_the_parameters_and_the_engines_logits() {
    let run = read(&run());
    assert!(demo::fits(&run));
    let html = demo::page(&context(), &run).unwrap();
    let (_, rest) = html.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    let data: Value = serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap();
    let predictions = run.predictions.as_ref().unwrap();
    assert_eq!(data["models"].as_array().unwrap().len(), 3);
    for (m, evaluated) in predictions.models.iter().enumerate() {
        let model = &data["models"][m];
        assert_eq!(model["variant"], evaluated.row.variant);
        assert!(model["microseconds"].as_f64().is_some_and(f64::is_finite));
        // Four bytes a value, in base64.
        let weight = model["layers"][0]["weight"].as_str().unwrap();
        assert_eq!(weight.len(), (4 * evaluated.file.layers[0].weight.len()).div_ceil(3) * 4);
    }
    let samples = data["samples"].as_array().unwrap();
    let labels: Vec<u64> = samples.iter().map(|s| s["label"].as_u64().unwrap()).collect();
    assert_eq!(labels[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    for sample in samples {
        let i = sample["index"].as_u64().unwrap() as usize;
        assert_eq!(
            sample["logits"][2][9].as_f64(),
            Some(predictions.models[2].logits[10 * i + 9].into())
        );
    }
}

#[test]
fn a_chart_is_well_formed_and_shows_every_point() {
    let point = |x, y| Point { x, y, spread: 1.0 };
    let series = [Series::new("one", [point(1.0, 5.0), point(20.0, 7.0)]), Series::new("none", [])];
    let mut chart = Chart::new("a < b & c", "T", "errors", series);
    (chart.log_x, chart.references) = (true, vec![("paper".into(), 6.0)]);
    let svg = chart.to_svg();
    assert_eq!(svg.matches("<circle").count(), 2);
    assert!(svg.contains("a &lt; b &amp; c") && svg.contains("paper") && !svg.contains("NaN"));
    let opened = svg.matches('<').count() - svg.matches("</").count();
    assert_eq!(opened, svg.matches("/>").count() + svg.matches("</").count());
}

#[test]
fn as_many_lines_as_it_may_have_are_told_apart_and_named_within_the_picture() {
    let name = |i: usize| format!("a run with a long name: student {i}");
    let series = (0..MAX_LINES).map(|i| Series::new(name(i), [Point::at(1.0, 2.0); 2]));
    let chart = Chart::new("", "", "", series);
    let svg = chart.to_svg();
    let strokes: std::collections::BTreeSet<&str> = svg
        .lines()
        .filter(|line| line.contains("fill=\"none\""))
        .map(|line| line.split_once("stroke=").unwrap().1)
        .collect();
    assert_eq!(strokes.len(), MAX_LINES);
    let number = |after: &str, of: &str| -> f64 {
        let rest = of.split_once(after).unwrap().1;
        rest[..rest.find(['"', ' ']).unwrap()].parse().unwrap()
    };
    let width = number("viewBox=\"0 0 ", &svg);
    let last = svg.lines().find(|line| line.contains(&name(MAX_LINES - 1))).unwrap();
    // No letter of these is wider than half of the size of the type, 12, and a bit.
    let letters = name(MAX_LINES - 1).len() as f64;
    assert!(number("x=\"", last) + 6.2 * letters <= width);
    assert!(number("y=\"", last) <= 388.0);
}
