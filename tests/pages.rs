//! The pages made from run folders: what they say, what is left out, and what names cannot do; and the
//! charts on them and their colours.
#![cfg(feature = "cli")]

use limbeck::engine::config::Precision;
use limbeck::pages::contents::RunContents;
use limbeck::pages::figure::Figure;
use limbeck::pages::gallery::{self, Entry};
use limbeck::pages::headline::{breath_beside_others, sentence};
use limbeck::pages::{demo, report as page};
use limbeck::run::chart::palette::{COLOURS, Colours, MAX_LINES, PAPER};
use limbeck::run::chart::{Chart, Point, Series, Size};
use limbeck::run::summary::Summary;
use limbeck_datasets::{Dataset, glyphs};
use limbeck_kernels::{Context, Isa};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
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
    RunContents::read(&context(), root, None, None, &[]).unwrap()
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
fn a_data_set_that_was_loaded_is_taken_only_if_it_is_the_run_s() {
    let logits = |loaded: &[Rc<Dataset>]| {
        let contents = RunContents::read(&context(), &run(), None, None, loaded).unwrap();
        let predictions = contents.predictions.ok().unwrap();
        let logits: Vec<_> = predictions.models.into_iter().map(|model| model.logits).collect();
        (predictions.dataset, logits)
    };
    let (read, expected) = logits(&[]);
    let [other, same] = [glyphs::load(1, 10, 10), glyphs::default()].map(Rc::new);
    let (taken, found) = logits(&[other, Rc::clone(&same)]);
    assert!(Rc::ptr_eq(&taken, &same));
    assert_eq!(read.test, taken.test);
    assert_eq!(expected, found);
}

#[test]
fn a_run_ends_with_its_report_and_names_the_next_command() {
    let html = fs::read_to_string(run().join("report.html")).unwrap();
    let sections = headings(&html).into_iter().filter(|(level, _)| *level == 2);
    let titles: Vec<String> = sections.map(|(_, title)| title).collect();
    assert_eq!(
        titles,
        [
            "Result",
            "What is known of each class",
            "Where the models disagree",
            "What is taken for what",
            "Learning curves",
            "Temperature",
            "Reliability",
            "Speed",
            "How to run it again"
        ]
    );
    // What it is not stands in the heading itself.
    assert!(html.contains("class=\"breath\">One seed. Not the paper's experiment: glyphs"));
    // Teacher, baseline, student: a confusion each, and 8 images of each group and one more.
    assert_eq!(html.matches("class=\"confusion\"").count(), 3);
    assert_eq!(html.matches("data:image/png;base64,").count(), 25);
    assert!(html.contains("class=\"right\">✓") && html.contains("class=\"wrong\">✗"));
    assert!(html.contains("limbeck reproduce mnist --preset smoke --out"));
    assert!(!html.contains("http://") && !html.contains("https://"));
    // No figure has more digits than anyone reads; the sums and versions of the manifest are hexadecimal.
    let figures = html.split(|c: char| !c.is_ascii_digit() && c != '.');
    let long = figures.filter(|text| text.contains('.') && text.len() > 9);
    assert_eq!(long.collect::<Vec<_>>(), Vec::<&str>::new());
    // Twice a smoke run's is a quick run's.
    assert!(html.len() < 300_000, "{} bytes", html.len());
    let next = format!("note: next: limbeck demo {}", text(&run()));
    assert_eq!(RUN.1.lines().last(), Some(&next[..]));
}

#[test]
fn headings_never_skip_a_level() {
    let run = read(&run());
    for html in [page::page(&run).unwrap(), gallery_of(&[&run, &run])] {
        let levels: Vec<u8> = headings(&html).iter().map(|(level, _)| *level).collect();
        assert_eq!(levels.iter().filter(|&&level| level == 1).count(), 1);
        assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{levels:?}");
    }
}

#[test]
fn what_needs_models_is_left_out_where_there_are_none_and_the_page_says_so() {
    let folder = records_only(&summary_of_run());
    let html = page::page(&read(folder.path())).unwrap();
    let titles = headings(&html);
    for absent in ["Learning curves", "Where the models disagree", "Reliability", "Temperature"] {
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
    let run = read(root);
    for html in [page::page(&run).unwrap(), gallery_of(&[&run, &run])] {
        for live in ["<script>alert", "<img src=x", "<b>", "<svg onload"] {
            assert!(!html.contains(live), "{live} in the page");
        }
        // The page's own is the only one, and the only one that the policy lets run.
        assert_eq!(html.matches("<script").count(), 1);
        assert!(html.contains("script-src 'sha256-"));
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
    for (key, value) in [
        ("misclassified", json!([5, 5])),
        ("misclassified", json!([0])),
        ("misclassified", json!([u32::MAX])),
        ("test_errors", json!(1_000_000_000_000u64)),
    ] {
        let mut summary = summary_of_run();
        summary["rows"][0][key] = value;
        fails(records_only(&summary).path(), "errors of teacher, seed 0");
    }
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
        // A byte a weight before it is deflated, in Base64.
        let weight = model["layers"][0]["weight"].as_str().unwrap();
        assert!(weight.len() < evaluated.file.layers[0].weight.len().div_ceil(3) * 4);
        // Rounding to 181 values moves a logit a little. A smoke run's nets are in doubt everywhere, so that
        // more answers change than of nets that are trained.
        let moved = model["largest_change"].as_f64().unwrap();
        assert!(moved > 0.0 && moved < 0.5, "{moved}");
        let changed = model["answers_changed"].as_u64().unwrap();
        assert!(changed <= predictions.labels().len() as u64 / 30, "{changed}");
    }
    let groups = data["groups"].as_array().unwrap();
    let labels = |group: &Value| -> Vec<u64> {
        let samples = group["samples"].as_array().unwrap();
        samples.iter().map(|sample| sample["label"].as_u64().unwrap()).collect()
    };
    assert_eq!(labels(&groups[0]), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    // The groups say who errs, and the images are such.
    let right = predictions.right();
    let baseline = groups.iter().find(|g| g["title"] == "Only the baseline is wrong").unwrap();
    for sample in baseline["samples"].as_array().unwrap() {
        let i = sample["index"].as_u64().unwrap() as usize;
        assert_eq!([0, 1, 2].map(|m| right[m][i]), [true, false, true]);
        // The page's weights are others than the stored ones, and so near that their logits are near.
        let page = sample["logits"][2][9].as_f64().unwrap();
        assert!((page - f64::from(predictions.models[2].logits[10 * i + 9])).abs() < 0.5);
    }
    let opening = data["opening"]["index"].as_u64().unwrap() as usize;
    assert_eq!([0, 1, 2].map(|m| right[m][opening]), [true, false, true]);
}

/// The page of these runs, without links.
fn gallery_of(runs: &[&RunContents]) -> String {
    let entry = |run: &&'_ RunContents| -> String { run.name() };
    let names: Vec<String> = runs.iter().map(entry).collect();
    let entries: Vec<Entry> =
        runs.iter().zip(names).map(|(run, name)| Entry { run, name, link: None }).collect();
    gallery::page("Runs", &entries)
}

/// The smoke run's summary with these test errors of baseline, student and teacher, one list a seed.
fn with_errors(seeds: &[[u64; 3]]) -> Summary {
    let mut summary: Summary = serde_json::from_value(summary_of_run()).unwrap();
    let mut rows = Vec::new();
    for (seed, errors) in seeds.iter().enumerate() {
        for (variant, &errors) in ["baseline", "student", "teacher"].iter().zip(errors) {
            let like = summary.row(variant, 0).unwrap().clone();
            rows.push(limbeck::run::summary::Row {
                seed: seed as u64,
                test_errors: errors,
                ..like
            });
        }
    }
    summary.set_rows(rows);
    summary
}

#[test]
fn a_run_in_bf16_is_told_from_others_on_the_same_page() {
    let mut summary = with_errors(&[[614, 409, 267]]);
    summary.preset = "config".into();
    assert!(!breath_beside_others(&summary).contains("bf16"));
    summary.precision = Precision::Bf16;
    assert!(breath_beside_others(&summary).contains("matrix products in bf16"));
}

#[test]
fn the_sentence_is_made_from_the_result() {
    let says = |seeds: &[[u64; 3]]| sentence(&with_errors(seeds));
    assert_eq!(
        says(&[[614, 409, 267]]),
        "The student closes 59 % of the gap between the plain net and its teacher: 409 test errors of \
         10,000, against 614 and 267."
    );
    assert_eq!(
        says(&[[146, 84, 70], [148, 88, 74]]),
        "The student closes 81 % of the gap between the plain net and its teacher: 86 ± 3 test errors of \
         10,000, against 147 ± 1 and 72 ± 3."
    );
    assert!(says(&[[100, 100, 50]]).starts_with("Distillation did not help here"));
    assert!(says(&[[100, 130, 50]]).starts_with("Distillation did not help here"));
    assert!(says(&[[100, 40, 50]]).starts_with("The student is no worse than its teacher"));
    assert!(says(&[[100, 90, 100]]).starts_with("There was no gap to close"));
    // A net alone, and a test set whose size nobody knows.
    let mut one = with_errors(&[[100, 40, 50]]);
    one.set_rows(one.rows[..1].to_vec());
    (one.rows[0].variant, one.test_examples) = ("model".into(), Some(1000));
    assert_eq!(sentence(&one), "The net makes 100 test errors of 1,000, 10.0 %.");
    (one.test_examples, one.preset) = (None, "config".into());
    assert_eq!(sentence(&one), "The net makes 100 test errors.");
    one.set_rows(Vec::new());
    assert_eq!(sentence(&one), "A run without a finished model.");
}

#[test]
fn every_committed_result_has_a_sentence_and_a_figure() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let mut folders = vec![root];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        folders.extend(entries.filter(|path| path.is_dir()));
        let Ok(text) = fs::read_to_string(folder.join("summary.json")) else { continue };
        let summary: Value = serde_json::from_str(&text).unwrap();
        if summary["experiment"].is_null() {
            continue;
        }
        let run = read(&folder);
        let said = sentence(&run.summary);
        assert!(said.ends_with('.') && !said.contains("NaN"), "{}: {said}", folder.display());
        assert!(Figure::of(&run).is_some(), "{}", folder.display());
        let html = page::page(&run).unwrap();
        assert!(
            !html.contains(">NaN") && !html.contains(" NaN") && html.len() < 600_000,
            "{}",
            folder.display()
        );
        seen += 1;
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn a_table_of_ones_own_is_shown_by_its_columns_and_several_runs_by_a_page_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    // Two classes by the sign of a sum, and a tenth of the labels wrong.
    let line = |i: i32| {
        let (a, b) = (f64::from(i * 37 % 100) - 50.0, f64::from(i * 53 % 100) - 50.0);
        let label = i32::from(a + b > 0.0) ^ i32::from(i % 10 == 0);
        format!("{},{},{label}\n", a / 30.0, b / 30.0)
    };
    let table = |from: i32| (from..from + 200).map(line).collect::<String>();
    for (name, from) in [("train.csv", 0), ("test.csv", 1000)] {
        fs::write(root.join(name), format!("height,\"width, cm\",kind\n{}", table(from))).unwrap();
    }
    let config = "[data]\ndataset = \"csv\"\ntrain_table = \"train.csv\"\ntest_table = \"test.csv\"\n\
                  label_column = \"kind\"\nclasses = 2\n[model]\nlayers = [2, 8, 2]\n\
                  [training]\nepochs = 3\nbatch_size = 16\n[distillation]\ntemperature = 4.0\n";
    fs::write(root.join("own.toml"), config).unwrap();
    let [config, labels, soft] = ["own.toml", "labels", "soft"].map(|name| root.join(name));
    let done = limbeck(&["train", text(&config), "--out", text(&labels)]);
    assert!(done.status.success(), "{done:?}");
    let teacher = labels.join("models/model-0.safetensors");
    let done =
        limbeck(&["distill", text(&config), "--teacher", text(&teacher), "--out", text(&soft)]);
    assert!(done.status.success(), "{done:?}");
    let html = fs::read_to_string(labels.join("report.html")).unwrap();
    assert!(html.contains("test errors of 200"));
    for part in
        ["<dt>height</dt>", "<dt>width, cm</dt>", "Recall", "taken for", "class=\"confusion\""]
    {
        assert!(html.contains(part), "{part}");
    }

    let page = root.join("both.html");
    let before = fs::read(labels.join("report.html")).unwrap();
    let done = limbeck(&["report", text(&labels), text(&soft), "--out", text(&page)]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(fs::read(labels.join("report.html")).unwrap(), before);
    let html = fs::read_to_string(&page).unwrap();
    assert!(
        html.contains("href=\"labels/report.html\"") && html.contains("href=\"soft/report.html\"")
    );
    assert!(html.contains("McNemar") || html.contains("the same number"));
    // It never replaces the page of a run.
    let own = soft.join("report.html");
    let refused = limbeck(&["report", text(&labels), text(&soft), "--out", text(&own)]);
    assert_eq!(refused.status.code(), Some(2));
}

/// Relative luminance and contrast of WCAG 2.
fn linear(colour: &str) -> [f64; 3] {
    [1, 3, 5].map(|at| {
        let c = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
        if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    })
}

fn contrast(a: &str, b: &str) -> f64 {
    let luminance = |colour| {
        let [r, g, b] = linear(colour);
        0.2126 * r + 0.7152 * g + 0.0722 * b
    };
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// What the colour-blind see, in linear RGB: Machado, Oliveira & Fernandes 2009, severity 1.
const SIGHTS: [[[f64; 3]; 3]; 4] = [
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    [
        [0.152_286, 1.052_583, -0.204_868],
        [0.114_503, 0.786_281, 0.099_216],
        [-0.003_882, -0.048_116, 1.051_998],
    ],
    [
        [0.367_322, 0.860_646, -0.227_968],
        [0.280_085, 0.672_501, 0.047_413],
        [-0.011_820, 0.042_940, 0.968_881],
    ],
    [
        [1.255_528, -0.076_749, -0.178_779],
        [-0.078_411, 0.930_809, 0.147_602],
        [0.004_733, 0.691_367, 0.303_900],
    ],
];

/// Oklab, Ottosson 2020, in which distances are about as large as they seem.
fn oklab([r, g, b]: [f64; 3]) -> [f64; 3] {
    let l = (0.412_221_470_8 * r + 0.536_332_536_3 * g + 0.051_445_992_9 * b).cbrt();
    let m = (0.211_903_498_2 * r + 0.680_699_545_1 * g + 0.107_396_956_6 * b).cbrt();
    let s = (0.088_302_461_9 * r + 0.281_718_837_6 * g + 0.629_978_700_5 * b).cbrt();
    [
        0.210_454_255_3 * l + 0.793_617_785_0 * m - 0.004_072_046_8 * s,
        1.977_998_495_1 * l - 2.428_592_205_0 * m + 0.450_593_709_9 * s,
        0.025_904_037_1 * l + 0.782_771_766_2 * m - 0.808_675_766_0 * s,
    ]
}

/// How far apart two colours are to whom they are nearest.
fn least_distance(a: &str, b: &str) -> f64 {
    let seen = |colour: &str, sight: &[[f64; 3]; 3]| {
        let rgb = linear(colour);
        oklab(sight.map(|row| row.iter().zip(rgb).map(|(m, c)| m * c).sum::<f64>().clamp(0.0, 1.0)))
    };
    let distance = |sight| {
        let pairs = seen(a, sight).into_iter().zip(seen(b, sight));
        pairs.map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    };
    SIGHTS.iter().map(distance).fold(f64::MAX, f64::min)
}

#[test]
fn everyone_tells_the_colours_apart_and_reads_them() {
    assert!((contrast("#000000", "#ffffff") - 21.0).abs() < 1e-9);
    // Okabe and Ito's vermilion and green are told apart, red and green of equal lightness are not.
    assert!(least_distance("#d55e00", "#009e73") > 0.09);
    assert!(least_distance("#c04030", "#707000") < 0.05);
    type Theme = fn(&(&'static str, &'static str)) -> &'static str;
    let themes: [(Theme, &str); 2] = [(|pair| pair.0, "#f4f6f8"), (|pair| pair.1, "#20242b")];
    for (theme, soft) in themes {
        let colours = COLOURS.map(|pair| theme(&pair));
        for (i, colour) in colours.iter().enumerate() {
            // AA for text of any size, on the page and on its cards.
            for behind in [theme(&PAPER), soft] {
                assert!(contrast(colour, behind) >= 4.5, "{colour} on {behind}");
            }
            for (j, other) in colours.iter().enumerate().skip(i + 1) {
                // Teacher, baseline and student are in every chart.
                let least = if j < 3 { 0.1 } else { 0.07 };
                let found = least_distance(colour, other);
                assert!(found >= least, "{colour} and {other}: {found}");
            }
        }
    }
    // A model keeps its colour, whatever stands beside it.
    let few = Colours::of(["student"]);
    let many = Colours::of(["student, jittered", "teacher", "student", "baseline"]);
    assert_eq!(few.class("student"), many.class("student"));
    assert_eq!(many.class("teacher"), "c0");
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
    // Under the pointer a mark tells its figure.
    assert!(svg.contains("<title>T 20: one: 7 ± 1</title>"));
}

#[test]
fn names_never_overprint() {
    let series =
        ["a", "b", "c"].map(|name| Series::new(name, [1.0, 2.0].map(|x| Point::at(x, 5.0))));
    let mut chart = Chart::new("", "x", "y", series);
    chart.references = vec![("paper, one".into(), 5.0), ("paper, two".into(), 5.01)];
    let svg = chart.to_svg();
    let height = |name: &str| -> f64 {
        let line = svg.lines().find(|line| line.ends_with(&format!(">{name}</text>"))).unwrap();
        let rest = line.split_once(" y=\"").unwrap().1;
        rest[..rest.find('"').unwrap()].parse().unwrap()
    };
    let mut heights = ["a", "b", "c", "paper, one", "paper, two"].map(height);
    heights.sort_by(f64::total_cmp);
    assert!(heights.windows(2).all(|pair| pair[1] - pair[0] >= 13.0), "{heights:?}");
}

#[test]
fn as_many_lines_as_it_may_have_are_told_apart_and_named_within_the_picture() {
    let name = |i: usize| format!("a run with a long name: student {i}");
    let series = (0..MAX_LINES).map(|i| Series::new(name(i), [Point::at(1.0, 2.0); 2]));
    let chart = Chart::new("", "", "", series);
    let colours = Colours::of(chart.series.iter().map(|series| &*series.name));
    let classes: std::collections::BTreeSet<String> =
        (0..MAX_LINES).map(|i| colours.class(&name(i))).collect();
    assert_eq!(classes.len(), MAX_LINES);
    for size in [Size::WIDE, Size::HALF, Size::NARROW] {
        let svg = chart.picture(size, &colours);
        let number = |after: &str, of: &str| -> f64 {
            let rest = of.split_once(after).unwrap().1;
            rest[..rest.find(['"', ' ']).unwrap()].parse().unwrap()
        };
        for i in 0..MAX_LINES {
            let named = format!(">{}</text>", name(i));
            let line = svg.lines().find(|line| line.ends_with(&named)).unwrap();
            // No letter of these is wider than half of the size of the type, 13, and a bit.
            let letters = name(i).len() as f64;
            assert!(number(" x=\"", line) + 6.7 * letters <= size.width, "{line}");
            assert!((0.0..=size.height).contains(&number(" y=\"", line)), "{line}");
        }
    }
}
