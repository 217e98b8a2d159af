//! People's own files, as they are: what is most likely not meant is said, advice is right, what was
//! asked for is done or refused, and nothing that was there is lost.
#![cfg(all(unix, feature = "cli"))]

mod common;

use common::program::{program, sha256, stderr};
use limbeck::engine::mlp::Mlp;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use tempfile::TempDir;

/// 60 rows of two features that tell three classes apart, as CSV: `scale` times (label, −label) and
/// a little more from row to row. Rows are in the order of `labels`.
fn table(labels: impl Iterator<Item = usize>, scale: f64) -> String {
    let mut text = "a,b,label\n".to_string();
    for (i, label) in labels.enumerate() {
        let (x, more) = (label as f64, (i % 7) as f64 * 0.02);
        let _ = writeln!(text, "{},{},{label}", scale * (x + more), scale * (more - x));
    }
    text
}

fn mixed() -> impl Iterator<Item = usize> {
    (0..60).map(|i| i % 3)
}

/// A folder with the table and a configuration that learns it, with `more` at its end.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new(table: &str, data: &str, more: &str) -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        fs::write(place.path("t.csv"), table).unwrap();
        place.configure(data, more);
        place
    }

    fn configure(&self, data: &str, more: &str) {
        let text = format!(
            "[data]\ndataset = \"csv\"\nclasses = 3\ntrain_table = \"t.csv\"\n{data}\n\
             [model]\nlayers = [2, 16, 3]\n{more}"
        );
        fs::write(self.path("c.toml"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `limbeck COMMAND c.toml` in the folder.
    fn run(&self, command: &str, out: &str) -> Output {
        self.limbeck(&[command, "c.toml", "--json", "--out", out])
    }

    fn limbeck(&self, args: &[&str]) -> Output {
        program(args).current_dir(self.folder.path()).output().unwrap()
    }
}

#[track_caller]
fn says(output: &Output, code: i32, parts: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} not in: {message}");
    }
}

fn errors(output: &Output) -> u64 {
    sha256(output);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    report["test_errors"].as_u64().unwrap()
}

const HELD: &str = "holdout = 15";
const TRAINING: &str = "[training]\nepochs = 60\nbatch_size = 15\nlearning_rate = 0.1\n";

/// Whoever follows the advice has a net that learns.
#[test]
fn the_advice_for_a_run_that_diverges_is_right() {
    let as_they_are = "holdout = 15\nstandardize = false";
    let place = Place::new(&table(mixed(), 1e20), as_they_are, TRAINING);
    says(&place.run("train", "large"), 76, &["features reach 2", "e20", "standardize = true"]);
    place.configure("holdout = 15\nstandardize = true", TRAINING);
    assert_eq!(errors(&place.run("train", "standardised")), 0);
    fs::write(place.path("t.csv"), table(mixed(), 1.0)).unwrap();
    place.configure(as_they_are, TRAINING);
    assert_eq!(errors(&place.run("train", "scaled")), 0);

    place.configure(HELD, &format!("init_scale = 1e30\n{TRAINING}"));
    says(&place.run("train", "weights"), 76, &["model.init_scale is 1e30: lower it"]);
    place.configure(HELD, &format!("init_scale = 1\n{TRAINING}"));
    assert_eq!(errors(&place.run("train", "one")), 0);

    place.configure(HELD, &TRAINING.replace("0.1", "1e30"));
    says(&place.run("train", "rate"), 76, &["lower the learning rate"]);
}

/// Images of 4×4: of class c the row c is bright.
fn images(place: &Place, turned: usize) {
    let of = |i: usize, pixel: usize| if pixel / 4 == i % 3 { 200 + (i % 50) as u8 } else { 20 };
    let pixels = |from: usize| -> Vec<u8> {
        (from..from + 60).flat_map(|i| (0..16).map(move |pixel| of(i, pixel))).collect()
    };
    let header = |kind: u8, sizes: &[u32]| -> Vec<u8> {
        let sizes = sizes.iter().flat_map(|size| size.to_be_bytes());
        [0, 0, 8, kind].into_iter().chain(sizes).collect()
    };
    let labels = |turned: usize| (0..60).map(|i| ((i + turned) % 3) as u8).collect::<Vec<_>>();
    for (name, head, rest) in [
        ("x.idx", header(3, &[60, 4, 4]), pixels(0)),
        ("t.idx", header(3, &[60, 4, 4]), pixels(60)),
        ("y.idx", header(1, &[60]), labels(turned)),
    ] {
        fs::write(place.path(name), [head, rest].concat()).unwrap();
    }
}

const IDX: &str = "[data]\ndataset = \"idx\"\ntrain_images = \"x.idx\"\ntrain_labels = \"y.idx\"\n\
                   test_labels = \"y.idx\"\ntest_images = ";

#[test]
fn a_teacher_of_other_classes_is_told_however_the_images_are_shown() {
    let place = Place::new("", HELD, TRAINING);
    let config = format!("{IDX}\"t.idx\"\n[model]\nlayers = [16, 8, 3]\n{TRAINING}");
    fs::write(place.path("c.toml"), config).unwrap();
    images(&place, 1);
    says(&place.run("train", "teacher"), 0, &[]);
    images(&place, 0);
    for (i, shown) in
        ["distillation.views=[]", "distillation.views=[\"mask 0.1\"]", "data.jitter=1"]
            .into_iter()
            .enumerate()
    {
        let told = place.limbeck(&[
            "distill",
            "c.toml",
            "--teacher",
            "teacher/models/model-0.safetensors",
            "--set",
            shown,
            "--out",
            &format!("student-{i}"),
        ]);
        says(&told, 0, &["model-0.safetensors: ", "agree with 0 of 60 labels, and with 60 if"]);
        assert_eq!(stderr(&told).matches("agree with").count(), 1, "{shown}");
    }
    let far = place.limbeck(&["train", "c.toml", "--set", "data.jitter=4", "--out", "far"]);
    says(&far, 2, &["data.jitter: found 4 pixels for images of 4x4"]);
    assert!(!place.path("far").exists());
}

#[test]
fn a_test_set_that_is_the_training_set_is_told() {
    let place = Place::new("", HELD, TRAINING);
    images(&place, 0);
    for (test, told) in [("t.idx", false), ("x.idx", true)] {
        let config = format!("{IDX}\"{test}\"\n[model]\nlayers = [16, 8, 3]\n{TRAINING}");
        fs::write(place.path("c.toml"), config).unwrap();
        let output = place.run("train", test.trim_end_matches(".idx"));
        says(&output, 0, &[]);
        assert_eq!(stderr(&output).contains("the test examples are the training examples"), told);
    }
}

#[test]
fn training_without_labels_is_told_what_it_lacks() {
    let unlabelled = table(mixed(), 1.0).replace(",label", "");
    let rows: Vec<&str> = unlabelled.lines().collect();
    let rows = rows.iter().map(|row| row.splitn(3, ',').take(2).collect::<Vec<_>>().join(","));
    let place = Place::new(&(rows.collect::<Vec<_>>().join("\n") + "\n"), "", TRAINING);
    fs::write(place.path("test.csv"), table(mixed(), 1.0)).unwrap();
    place.configure("test_table = \"test.csv\"", TRAINING);
    let refused = place.run("train", "run");
    says(&refused, 2, &["no labels", "limbeck distill"]);
    assert!(!stderr(&refused).contains("hard_weight"));
    assert!(!place.path("run").exists());
}

#[test]
fn a_feature_that_overflows_the_net_is_named_and_not_counted() {
    let place = Place::new(&table(mixed(), 1.0), "test_table = \"test.csv\"", TRAINING);
    let mut test = table(mixed().take(6), 1.0);
    test += "3e38,-3e38,0\n";
    fs::write(place.path("test.csv"), &test).unwrap();
    says(&place.run("train", "run"), 65, &["test example 6", "reach 3e38"]);
    let model = place.path("run/models/model-0.safetensors");
    let eval = place.limbeck(&["eval", model.to_str().unwrap(), "--config", "c.toml"]);
    says(&eval, 65, &["test example 6", "reach 3e38"]);
}

#[test]
fn what_is_most_likely_not_meant_is_said() {
    let sorted = (0..60).map(|i| i / 20);
    let place = Place::new(&table(sorted, 1.0), HELD, TRAINING);
    place.configure("holdout = 20\nsplit = \"last\"", TRAINING);
    says(&place.run("train", "sorted"), 0, &["20 of 20 test examples", "(2)", "stratified"]);
    place.configure(HELD, TRAINING);
    fs::write(place.path("t.csv"), table(mixed(), 1.0)).unwrap();
    assert_eq!(stderr(&place.limbeck(&["train", "c.toml", "--quiet", "--out", "mixed"])), "");

    let soft = format!("{TRAINING}[distillation]\ntemperature = 2\nteacher_logits = \"v.npy\"\n");
    place.configure(HELD, &soft);
    let distil = |logits: &dyn Fn(usize, usize) -> f32, rows: usize, out: &str| {
        let values: Vec<f32> = (0..rows).flat_map(|i| (0..3).map(move |c| logits(i, c))).collect();
        fs::write(place.path("v.npy"), limbeck_datasets::npy::of_logits(&values, 3)).unwrap();
        place.limbeck(&["distill", "c.toml", "--json", "--quiet", "--out", out])
    };
    let right = |i: usize, c: usize| if i % 3 == c { 4.0 } else { (c + i % 5) as f32 * 0.1 };
    let probabilities = |i: usize, c: usize| if i % 3 == c { 0.5 } else { 0.25 };
    says(&distil(&probabilities, 45, "p"), 65, &["probabilities", "are named teacher_probs"]);
    assert!(!place.path("p").exists());
    let shuffled = |i: usize, c: usize| right(i / 3, c);
    says(&distil(&shuffled, 45, "s"), 0, &["agree with", "hardly more than chance"]);

    // A row for each row of the table, of which the hold-out takes the last, is as good.
    place.configure("holdout = 15\nsplit = \"last\"", &soft);
    let (few, all) = (distil(&right, 45, "few"), distil(&right, 60, "all"));
    assert_eq!((stderr(&few), sha256(&few)), (String::new(), sha256(&all)));
    // Columns in another order.
    let turned = |i: usize, c: usize| right(i, (c + 1) % 3);
    says(&distil(&turned, 45, "t"), 0, &["agree with 0 of 45", "with 45 if", "the order 2, 0, 1"]);
    says(&distil(&right, 50, "neither"), 65, &["found 50", "expected 60", "or 45"]);
}

/// However the examples are written down, the same model comes of them.
#[test]
fn the_same_examples_make_the_same_model() {
    let plain = table(mixed(), 1.0);
    let place = Place::new(&plain, HELD, TRAINING);
    let expected = sha256(&place.run("train", "plain"));
    let open = |data: &str, out: &str| {
        fs::write(
            place.path("c.toml"),
            format!("[data]\n{data}\n{HELD}\n[model]\nhidden = [16]\n{TRAINING}"),
        )
        .unwrap();
        let output = place.run("train", out);
        assert_eq!(sha256(&output), expected, "{data}");
        stderr(&output)
    };
    // Words in the order of the numbers, with pandas' index in front, behind semicolons.
    let mut words = ";a;kind;b\n".to_string();
    for (i, line) in plain.lines().skip(1).enumerate() {
        let fields: Vec<&str> = line.split(',').collect();
        let kind = ["ant", "bee", "cow"][fields[2].parse::<usize>().unwrap()];
        let _ = writeln!(words, "{i};{};{kind};{}", fields[0], fields[1]);
    }
    fs::write(place.path("words.csv"), &words).unwrap();
    let said = open("train_table = \"words.csv\"", "words");
    assert!(said.contains("warning: ") && said.contains("in place 0"), "{said}");
    assert!(said.contains("labels are column \"kind\""), "{said}");
    assert!(said.contains("3 classes: ant, bee, cow"), "{said}");
    // Without names, gzipped, the labels in front.
    let bare: String = plain
        .lines()
        .skip(1)
        .map(|line| {
            let (values, label) = line.rsplit_once(',').unwrap();
            format!("{},{values}\n", label.parse::<u8>().unwrap() + 7)
        })
        .collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    std::io::Write::write_all(&mut gzip, bare.as_bytes()).unwrap();
    fs::write(place.path("bare.csv.gz"), gzip.finish().unwrap()).unwrap();
    let said = open("train_table = \"bare.csv.gz\"\nlabel_column = 0", "bare");
    assert!(said.contains("3 classes, called 7, 8, 9"), "{said}");
    // As arrays: the logits' writer makes matrices of f32.
    let rows =
        || plain.lines().skip(1).map(|line| line.split(',').map(|x| x.parse::<f32>().unwrap()));
    let x: Vec<f32> = rows().flat_map(|row| row.take(2)).collect();
    let one_hot: Vec<f32> = rows()
        .flat_map(|mut row| {
            (0..3).map({
                let label = row.nth(2).unwrap();
                move |class| f32::from(u8::from(class as f32 == label))
            })
        })
        .collect();
    fs::create_dir(place.path("arrays")).unwrap();
    fs::write(place.path("arrays/X.npy"), limbeck_datasets::npy::of_logits(&x, 2)).unwrap();
    fs::write(place.path("arrays/y.npy"), limbeck_datasets::npy::of_logits(&one_hot, 3)).unwrap();
    open("arrays = \"arrays\"", "arrays");
    let kept = fs::read_to_string(place.path("words/config.toml")).unwrap();
    assert!(kept.contains("classes = 3\n") && kept.contains("layers = [2, 16, 3]\n"), "{kept}");
}

#[test]
fn what_is_no_example_is_named_with_what_to_do() {
    let place = Place::new("", "", "");
    let refused = |table: &str, data: &str, parts: &[&str]| {
        fs::write(place.path("t.csv"), table).unwrap();
        let text = format!(
            "[data]\ntrain_table = \"t.csv\"\nholdout = 2\n{data}\n[model]\nhidden = [4]\n"
        );
        fs::write(place.path("c.toml"), text).unwrap();
        says(&place.run("train", "none"), 65, &[&["t.csv:"], parts].concat());
        assert!(!place.path("none").exists());
    };
    let pets = "a,name,label\n1,rex,dog\n2,tom,cat\n3,ace,dog\n";
    refused(
        pets,
        "",
        &["t.csv:2: found \"rex\" in column \"name\"", "ignore_columns = [\"name\"]"],
    );
    refused("a,label\n1,x\n,y\n3,x\n", "", &["t.csv:3: found \"\"", "drop_incomplete_rows = true"]);
    refused(pets, "label_column = \"a\"\nignore_columns = [\"nam\"]", &["no column \"nam\" among"]);
    refused("a,b\n1,2\n1,3\n", "label_column = 5", &["label_column = 5", "0 to 1"]);
    let prices: String = (0..40).map(|i| format!("{i}.5,{}\n", 990 + i * i)).collect();
    refused(&format!("a,label\n{prices}"), "", &["40 different labels", "measured"]);
}

/// ln softmax(v) differs from v in a constant for each row, which no softmax sees.
#[test]
fn a_teacher_may_give_probabilities_or_very_large_logits() {
    let place = Place::new(&table(mixed(), 1.0), HELD, TRAINING);
    let distil = |key: &str, values: &[f32], out: &str| {
        fs::write(place.path("v.npy"), limbeck_datasets::npy::of_logits(values, 3)).unwrap();
        let soft = format!("[distillation]\ntemperature = 2\nhard_weight = 0\n{key} = \"v.npy\"\n");
        place.configure(HELD, &format!("{TRAINING}{soft}"));
        place.run("distill", out)
    };
    let logits: Vec<f32> =
        (0..180).map(|i| if i / 3 % 3 == i % 3 { 4.0 } else { i as f32 * 0.01 }).collect();
    let exps: Vec<f64> = logits.iter().map(|&v| f64::from(v).exp()).collect();
    let probs: Vec<f32> = exps
        .chunks(3)
        .flat_map(|row| row.iter().map(|e| (e / row.iter().sum::<f64>()) as f32))
        .collect();
    let logs: Vec<f32> = probs.iter().map(|&p| f64::from(p).ln() as f32).collect();
    let [by_probs, by_logs] = [("teacher_probs", &probs, "p"), ("teacher_logits", &logs, "l")]
        .map(|(key, values, out)| distil(key, values, out));
    assert_eq!(sha256(&by_probs), sha256(&by_logs));
    assert_eq!(errors(&by_probs), errors(&distil("teacher_logits", &logits, "v")));
    says(&by_logs, 0, &["logarithms of probabilities, which are logits for every temperature"]);
    says(&distil("teacher_probs", &logits, "x"), 65, &["from 0 to 1", "teacher_logits"]);

    // At T = 2 the softmax is 1 for one class and 0 for all others.
    let large: Vec<f32> = logits.iter().map(|v| 1e4 * (v - 2.0)).collect();
    assert_eq!(errors(&distil("teacher_logits", &large, "large")), 0);
    // What is meant for other classes is refused before anything is made.
    let other = distil("teacher_logits", &logits[..120], "rows");
    says(&other, 65, &["rows of the teacher's logits: found 40, expected 60"]);
    fs::write(place.path("v.npy"), limbeck_datasets::npy::of_logits(&logits, 4)).unwrap();
    says(&place.run("distill", "four"), 65, &["classes of the teacher: found 4, expected 3"]);
    assert!(!place.path("four").exists());
}

#[test]
fn a_run_goes_on_from_a_model() {
    let place = Place::new(&table(mixed(), 1.0), HELD, TRAINING);
    let first = sha256(&place.run("train", "first"));
    // A step that is too small to change anything; the widths are the model's.
    let still = "[training]\nepochs = 1\nbatch_size = 15\nlearning_rate = 1e-30\n";
    let configure = |model: &str| {
        let text = format!("[data]\ntrain_table = \"t.csv\"\n{HELD}\n[model]\n{model}\n{still}");
        fs::write(place.path("c.toml"), text).unwrap();
    };
    let initial = "initial = \"first/models/model-0.safetensors\"";
    configure(initial);
    assert_eq!(sha256(&place.run("train", "second")), first);
    let manifest = fs::read_to_string(place.path("second/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["data"]["initial"], first);
    assert!(manifest["paths"]["initial"].as_str().unwrap().ends_with("model-0.safetensors"));
    configure(&format!("hidden = [16]\n{initial}"));
    let teacher = place.path("first/models/model-0.safetensors");
    let distil =
        ["distill", "c.toml", "--json", "--out", "third", "--teacher", teacher.to_str().unwrap()];
    assert_eq!(sha256(&place.limbeck(&distil)), first);
    configure(&format!("hidden = [8]\n{initial}"));
    says(
        &place.run("train", "none"),
        2,
        &["initial model: found the widths [2, 16, 3]", "[2, 8, 3]"],
    );
    configure("initial = \"t.csv\"");
    says(&place.run("train", "none"), 65, &["t.csv", "a text file", "safetensors"]);
    configure("initial = \"gone\"");
    says(&place.run("train", "none"), 74, &["gone"]);
    assert!(!place.path("none").exists());
}

/// Of a transfer set without labels the teacher knows how many classes there are.
#[test]
fn an_unlabelled_set_has_the_classes_of_its_teacher() {
    let place = Place::new("a,b\n1,2\n3,4\n5,6\n", "", "");
    fs::write(place.path("test.csv"), "a,b,label\n1,2,0\n3,4,1\n").unwrap();
    let v = [4.0f32, 0.0, 1.0, 0.5, 3.0, 0.0, 0.0, 1.0, 2.0];
    fs::write(place.path("v.npy"), limbeck_datasets::npy::of_logits(&v, 3)).unwrap();
    let config = "[data]\ntrain_table = \"t.csv\"\ntest_table = \"test.csv\"\n[model]\nhidden = [4]\n\
                  [training]\nepochs = 2\n[distillation]\nhard_weight = 0\nteacher_logits = \"v.npy\"\n";
    fs::write(place.path("c.toml"), config).unwrap();
    sha256(&place.run("distill", "run"));
    let kept = fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert!(kept.contains("classes = 3\n") && kept.contains("layers = [2, 4, 3]\n"), "{kept}");
}

#[test]
fn init_writes_a_configuration_that_runs_and_overwrites_nothing() {
    let text = table(mixed(), 1.0).replace("a,b,label", "a,b,kind");
    let names = |label: &str| ["ant", "bee", "cow"][label.parse::<usize>().unwrap()];
    let lines: Vec<String> = text
        .lines()
        .enumerate()
        .map(|(i, line)| match line.rsplit_once(',') {
            Some((values, label)) if i > 0 => format!("x{i},{values},{}", names(label)),
            _ => format!("name,{line}"),
        })
        .collect();
    let place = Place::new(&(lines.join("\n") + "\n"), "", "");
    let init = |args: &[&str]| place.limbeck(&[&["init", "--json"], args].concat());
    says(&init(&["t.csv"]), 65, &["\"name\" or \"kind\"", "label_column"]);
    let output = init(&["t.csv", "--label-column", "kind"]);
    says(&output, 0, &["3 classes: ant, bee, cow"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["examples"], 60);
    assert_eq!(report["classes"][1], serde_json::json!({ "name": "bee", "examples": 20 }));
    assert_eq!(
        (&report["left_out"][0], &report["next"]),
        (&"\"name\"".into(), &"limbeck train config.toml".into())
    );
    assert_eq!(errors(&place.limbeck(&["train", "config.toml", "--json", "--out", "run"])), 0);
    let config = fs::read_to_string(place.path("config.toml")).unwrap();
    assert!(config.contains("# 3 classes: ant (20), bee (20), cow (20)\n"), "{config}");
    says(&init(&["t.csv", "--label-column", "-1"]), 2, &["config.toml: exists already", "--out"]);
    assert_eq!(fs::read_to_string(place.path("config.toml")).unwrap(), config);

    // Elsewhere, with a value missing and with a teacher.
    let mut incomplete = lines.clone();
    incomplete[5] = "x5,NA,0.5,bee".to_string();
    fs::write(place.path("t.csv"), incomplete.join("\n")).unwrap();
    let logits: Vec<f32> = (0..180).map(|i| if i / 3 % 3 == i % 3 { 4.0 } else { 0.0 }).collect();
    let write = |rows: usize| {
        let bytes = limbeck_datasets::npy::of_logits(&logits[..3 * rows], 3);
        fs::write(place.path("v.npy"), bytes).unwrap();
    };
    write(60);
    fs::create_dir(place.path("below")).unwrap();
    let more =
        ["t.csv", "--label-column", "-1", "--teacher-logits", "v.npy", "--out", "below/c.toml"];
    says(&init(&more), 65, &["rows of the teacher's logits: found 60, expected 59"]);
    fs::write(place.path("t.csv"), lines.join("\n")).unwrap();
    says(&init(&more), 0, &[]);
    assert_eq!(errors(&place.limbeck(&["distill", "below/c.toml", "--json", "--out", "soft"])), 0);

    // Arrays and images.
    fs::create_dir(place.path("arrays")).unwrap();
    fs::write(place.path("arrays/X.npy"), limbeck_datasets::npy::of_logits(&logits, 3)).unwrap();
    fs::write(
        place.path("arrays/y.npy"),
        limbeck_datasets::npy::of_logits(&logits.iter().map(|v| v / 4.0).collect::<Vec<_>>(), 3),
    )
    .unwrap();
    says(&init(&["arrays", "--out", "arrays.toml"]), 0, &[]);
    assert_eq!(errors(&place.limbeck(&["train", "arrays.toml", "--json", "--out", "ra"])), 0);
    fs::create_dir(place.path("images")).unwrap();
    let images: Vec<u8> = (0..20u8).flat_map(|i| [i % 2 * 250, 250 - i % 2 * 250]).collect();
    let labels: Vec<u8> = (0..20).map(|i| 1 + i % 2).collect();
    let header = |magic: u8, sides: &[u8]| -> Vec<u8> {
        let words = [20].iter().chain(sides).flat_map(|&side| [0, 0, 0, side]);
        [0, 0, 8, magic].into_iter().chain(words).collect()
    };
    let write = |name: &str, parts: [Vec<u8>; 2]| {
        fs::write(place.path("images").join(name), parts.concat()).unwrap()
    };
    write("train-images-idx3-ubyte", [header(3, &[1, 2]), images]);
    write("train-labels-idx1-ubyte", [header(1, &[]), labels]);
    says(&init(&["images", "--out", "images.toml"]), 0, &["2 classes, called 1, 2"]);
    assert_eq!(errors(&place.limbeck(&["train", "images.toml", "--json", "--out", "ri"])), 0);
}

#[test]
fn a_folder_that_was_asked_for_is_not_replaced_by_the_glyphs() {
    let place = Place::new(&table(mixed(), 1.0), HELD, TRAINING);
    sha256(&place.run("train", "run"));
    let model = place.path("of-own-data.safetensors");
    fs::copy(place.path("run/models/model-0.safetensors"), &model).unwrap();
    let nameless = place.limbeck(&["eval", model.to_str().unwrap()]);
    says(&nameless, 2, &["trained on csv data", "--config FILE"]);
    let model = place.path("of-digits.safetensors");
    Mlp::new(&[784, 10], 0).to_file().save(&model).unwrap();
    let eval = ["eval", model.to_str().unwrap(), "--quiet"];
    let reproduce = ["reproduce", "mnist", "--preset", "smoke", "--quiet", "--out", "smoke"];
    for args in [&eval[..], &reproduce] {
        let typo = place.limbeck(&[args, &["--data", "/nonexistent"]].concat());
        says(&typo, 2, &["/nonexistent/mnist"]);
        let mut command = program(args);
        let typo = command.env("LIMBECK_DATA", "/nonexistent").output().unwrap();
        says(&typo, 2, &["/nonexistent/mnist"]);
    }
    assert!(!place.path("smoke").exists());
}

#[test]
fn a_folder_whose_name_is_no_text_is_a_folder() {
    let place = Place::new(&table(mixed(), 1.0), HELD, TRAINING);
    let expected = sha256(&place.run("train", "run"));
    let strange = place.folder.path().join(OsStr::from_bytes(b"dat\xe9"));
    fs::create_dir(&strange).unwrap();
    for name in ["c.toml", "t.csv"] {
        fs::rename(place.path(name), strange.join(name)).unwrap();
    }
    let train = |out: &Path| {
        let mut command = program(&["train", "--json"]);
        command.arg(strange.join("c.toml")).arg("--out").arg(out).output().unwrap()
    };
    assert_eq!(sha256(&train(&strange.join("inside"))), expected);
    let outside = place.path("outside");
    assert_eq!(sha256(&train(&outside)), expected);
    // Its configuration still leads to the table.
    let [config, model] = ["config.toml", "models/model-0.safetensors"].map(|n| outside.join(n));
    let mut eval = program(&["eval", "--json", "--config"]);
    assert!(eval.arg(config).arg(model).output().unwrap().status.success());
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn what_comes_through_a_pipe_is_read_once_or_refused() {
    let place = Place::new(&table(mixed(), 1.0), HELD, TRAINING);
    let expected = sha256(&place.run("train", "run"));
    let table = fs::read(place.path("t.csv")).unwrap();
    fs::remove_file(place.path("t.csv")).unwrap();
    let [csv, net] = ["t.csv", "net"].map(|name| place.path(name));
    make_pipe(&csv);
    thread::scope(|scope| {
        scope.spawn(|| fs::write(&csv, &table).unwrap());
        assert_eq!(sha256(&place.run("train", "piped")), expected);
    });
    // A model's size must be known. Nobody writes into this pipe: who opened it would wait.
    make_pipe(&net);
    says(&place.limbeck(&["eval", "net", "--config", "c.toml"]), 65, &["net", "pipe"]);
}

#[test]
fn a_pipe_that_takes_an_export_stays_one() {
    let place = Place::new(&table(mixed(), 1.0), HELD, TRAINING);
    sha256(&place.run("train", "run"));
    let (model, pipe) = ("run/models/model-0.safetensors", place.path("pipe"));
    says(&place.limbeck(&["export", model, "--onnx", "file"]), 0, &[]);
    make_pipe(&pipe);
    let taken = thread::scope(|scope| {
        let taken = scope.spawn(|| fs::read(&pipe).unwrap());
        says(&place.limbeck(&["export", model, "--onnx", "pipe"]), 0, &[]);
        taken.join().unwrap()
    });
    assert_eq!(taken, fs::read(place.path("file")).unwrap());
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
}

#[test]
fn what_is_not_the_papers_experiment_says_so_and_judges_nothing() {
    let place = Place::new("", "", "");
    let smoke = ["reproduce", "temperature", "--preset", "smoke", "--out", "smoke"];
    let output = place.limbeck(&smoke);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let page = fs::read_to_string(place.path("smoke/report.html")).unwrap();
    let summary = fs::read_to_string(place.path("smoke/summary.json")).unwrap();
    for shown in [&text, &page] {
        assert!(shown.contains("Not the paper's experiment: glyphs in place of MNIST"), "{shown}");
        assert!(shown.contains("not judged") && !shown.contains("reproduced"), "{shown}");
    }
    assert!(summary.contains("not_judged") && !summary.contains("reproduced\""), "{summary}");
}

#[test]
fn threads_above_the_cores_are_capped_with_a_warning() {
    let place = Place::new("", "", "");
    let info = place.limbeck(&["info", "--threads", "1024", "--json"]);
    says(&info, 0, &["warning: --threads: found 1024"]);
    let report: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
    let cores = thread::available_parallelism().unwrap().get() as u64;
    assert_eq!(report["threads"], 1024.min(cores));
}

fn json(output: &Output) -> serde_json::Value {
    says(output, 0, &[]);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_sorted_table_is_held_out_and_watched_by_class() {
    let sorted = (0..60).map(|i| i / 20);
    let place = Place::new(&table(sorted, 1.0), "holdout = 0.25\nvalidation = 0.2", TRAINING);
    let trained = place.run("train", "run");
    says(&trained, 0, &["holdout: 15 of 60", "validation: 9 of 60", "of each class its share"]);
    assert!(!stderr(&trained).contains("warning"), "{}", stderr(&trained));
    let report = json(&trained);
    for class in 0..3 {
        assert_eq!(report["by_class"]["classes"][class]["examples"], 5);
    }
    assert_eq!(report["by_class"]["errors_of_commonest"], 10);
    let metrics = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert_eq!(last["watched"]["validation"]["examples"], 9);
    assert_eq!(last["examples"], 36);

    // The split is that of the data: another seed of the training leaves it.
    let again = json(&place.limbeck(&["train", "c.toml", "--seed", "7", "--json", "--out", "b"]));
    assert_eq!(again["test_examples"], 15);
    for (model, expected) in [("run", &report), ("b", &again)] {
        let eval = json(&place.limbeck(&["eval", model, "--json"]));
        assert_eq!(eval["errors"], expected["test_errors"], "the run's own test examples");
        assert_eq!(eval["examples"], 15);
    }

    // Fewer epochs, with the best one's model.
    let early = ["training.early_stopping=3", "training.epochs=500", "training.learning_rate=0.5"];
    let mut args = vec!["train", "c.toml", "--json", "--out", "early"];
    early.iter().for_each(|set| args.extend(["--set", set]));
    let early = json(&place.limbeck(&args));
    let [best, epochs] = ["best_epoch", "epochs"].map(|key| early[key].as_f64().unwrap());
    assert!(epochs < 500.0 && epochs == best + 3.0, "{best} {epochs}");
    let kept = fs::read_to_string(place.path("early/config.toml")).unwrap();
    for line in ["epochs = 500", "early_stopping = 3", "split = \"stratified\"", "standardize = "] {
        assert!(kept.contains(line), "{line} not in {kept}");
    }
}

#[test]
fn keys_are_set_on_the_command_line_and_refused_with_their_name() {
    let place = Place::new(&table(mixed(), 1.0), HELD, TRAINING);
    let set = |value: &str| place.limbeck(&["train", "c.toml", "--set", value, "--out", "no"]);
    says(&set("training.epochs"), 2, &["training.epochs", "expected KEY=VALUE"]);
    says(&set("training.epoch=2"), 2, &["--set training.epoch=2", "did you mean `epochs`"]);
    says(&set("training.epochs=0"), 2, &["--set training.epochs=0", "1 to 1000000", "found 0"]);
    says(&set("training.epochs=two"), 2, &["--set training.epochs=\"two\"", "found \"two\""]);
    says(&set("a b=2"), 2, &["the key \"a b\""]);
    let view = set("distillation.views=[\"shift 2\"]");
    says(&view, 2, &["found \"shift 2\"", "joined by +"]);
    assert!(!stderr(&view).contains("in `"), "no line of the file: {}", stderr(&view));
    says(&set("data.train_table=gone.csv"), 74, &["gone.csv"]);
    assert!(!place.path("no").exists());
    // A path leads from where the command is given, as any path there.
    fs::create_dir(place.path("there")).unwrap();
    fs::rename(place.path("c.toml"), place.path("there/c.toml")).unwrap();
    let args = ["train", "there/c.toml", "--json", "--set", "data.train_table=t.csv", "--set"];
    json(&place.limbeck(&[&args[..], &["training.epochs=1", "--out", "run"]].concat()));
    let table = [
        "train",
        "there/c.toml",
        "--json",
        "--set",
        "data={train_table=\"t.csv\"}",
        "--out",
        "table",
    ];
    json(&place.limbeck(&table));
}

#[test]
fn a_net_that_learns_nothing_is_called_that() {
    // 58 of 60 are of one class, and the features say nothing.
    let rare = (0..60).map(|i| usize::from(i % 30 == 7));
    let text: String = table(rare, 1.0)
        .lines()
        .enumerate()
        .map(|(i, line)| match i {
            0 => format!("{line}\n"),
            _ => format!("{},{},{}\n", i % 7, i % 5, line.rsplit(',').next().unwrap()),
        })
        .collect();
    let place = Place::new(&text, "holdout = 30", TRAINING);
    let trained = place.run("train", "run");
    says(&trained, 0, &["did not learn", "always answering \"0\" makes 1"]);
    let eval = place.limbeck(&["eval", "run/models/model-0.safetensors"]);
    let shown = String::from_utf8(eval.stdout).unwrap();
    assert!(shown.contains("balanced accuracy 50.00 %"), "{shown}");
    assert!(shown.contains("recall  precision"), "{shown}");
}

#[test]
fn a_model_meets_its_features_and_classes_by_name() {
    let place = Place::new(&table(mixed(), 1.0), HELD, TRAINING);
    json(&place.run("train", "run"));
    // The same test examples with columns in another order.
    let rows = table(mixed(), 1.0);
    let swapped: String = rows
        .lines()
        .map(|line| line.splitn(3, ',').collect::<Vec<_>>())
        .map(|row| format!("{},{},{}\n", row[1], row[0], row[2]))
        .collect();
    fs::write(place.path("swapped.csv"), &swapped).unwrap();
    fs::write(place.path("strange.csv"), swapped.replace("b,a", "b,c")).unwrap();
    let eval = |table: &str| {
        let text = format!(
            "[data]\ndataset = \"csv\"\nclasses = 3\ntrain_table = \"{table}\"\ntest_table = \
             \"{table}\"\n[model]\nlayers = [2, 3]\n"
        );
        fs::write(place.path("e.toml"), text).unwrap();
        let model = "run/models/model-0.safetensors";
        place.limbeck(&["eval", model, "--config", "e.toml", "--json"])
    };
    let plain = eval("t.csv");
    assert!(!stderr(&plain).contains("warning"), "{}", stderr(&plain));
    let swapped = eval("swapped.csv");
    says(&swapped, 0, &["trained on csv", "test examples of other data"]);
    assert_eq!(json(&swapped)["errors"], json(&plain)["errors"]);
    assert_eq!(json(&swapped)["errors"], 0);

    // Of several models, each its own order.
    let text = fs::read_to_string(place.path("c.toml")).unwrap().replace("t.csv", "swapped.csv");
    fs::write(place.path("c.toml"), text).unwrap();
    json(&place.run("train", "other"));
    let models = ["run/models/model-0.safetensors", "other/models/model-0.safetensors"];
    for [first, second] in [models, [models[1], models[0]]] {
        let both = place.limbeck(&["eval", first, second, "--config", "e.toml", "--json"]);
        let errors = |i: usize| json(&both)["models"][i]["errors"].clone();
        assert_eq!((errors(0), errors(1)), (0.into(), 0.into()), "{first}, {second}");
    }

    says(&eval("strange.csv"), 65, &["features of the model", "[a] that the data lack", "[c]"]);
}

#[test]
fn a_table_with_words_comes_back_with_its_words() {
    // As scikit-learn's iris frame with names for the classes, sorted.
    let names = ["setosa", "versi, color", "virginica"];
    let rows = table((0..60).map(|i| i / 20), 10.0);
    let text: String = rows
        .lines()
        .enumerate()
        .map(|(i, line)| match line.rsplit_once(',').unwrap() {
            (values, "label") => format!("{values},species,seen\n"),
            (values, class) => {
                format!("{values},\"{}\",{}\n", names[class.parse::<usize>().unwrap()], i / 7)
            }
        })
        .collect();
    let place = Place::new("", "", "");
    fs::write(place.path("iris.csv"), &text).unwrap();
    let config = "[data]\ntrain_table = \"iris.csv\"\nlabel_column = \"species\"\nignore_columns = \
                  [\"seen\"]\nholdout = 0.25\n[model]\nhidden = [16]\n[training]\nepochs = 60\n\
                  batch_size = 15\nlearning_rate = 0.1\n";
    fs::write(place.path("c.toml"), config).unwrap();
    let trained = json(&place.run("train", "run"));
    assert_eq!((&trained["test_examples"], &trained["test_errors"]), (&15.into(), &0.into()));
    assert_eq!(trained["by_class"]["classes"][1]["class"], names[1]);

    let model = "run/models/model-0.safetensors";
    let predict = |args: &[&str]| {
        let output = place.limbeck(&[&["predict", model], args].concat());
        says(&output, 0, &[]);
        String::from_utf8(output.stdout).unwrap()
    };
    let answers = predict(&["iris.csv"]);
    let lines: Vec<&str> = answers.lines().collect();
    assert_eq!((lines[0], lines.len()), ("species,prediction,probability", 61));
    assert!(lines[21].starts_with("\"versi, color\",\"versi, color\",0."), "{}", lines[21]);
    // New rows: no labels, columns in another order, one more.
    fs::write(place.path("new.csv"), "when;b;a\n1;-20;20\n2;0.1;0\n").unwrap();
    let all = predict(&["new.csv", "--probabilities"]);
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines[0], "prediction,probability,setosa,\"versi, color\",virginica");
    let probs =
        |line: &str| -> Vec<f64> { line.split(',').skip(1).map(|p| p.parse().unwrap()).collect() };
    let first = probs(lines[1]);
    assert!((first[1..].iter().sum::<f64>() - 1.0).abs() < 1e-6, "{first:?}");
    // At T the ratio of two probabilities is its T-th root.
    let warm = predict(&["new.csv", "--probabilities", "--temperature", "4"]);
    let warm = probs(warm.lines().nth(1).unwrap());
    let ratio = |p: &[f64]| p[1] / p[3];
    assert!((ratio(&warm) - ratio(&first).powf(0.25)).abs() < 1e-4 * ratio(&warm));

    let output = place.limbeck(&["predict", model, "iris.csv", "--out", "p.csv", "--json"]);
    let report = json(&output);
    assert_eq!((&report["rows"], &report["errors"]), (&60.into(), &0.into()));
    assert_eq!(fs::read_to_string(place.path("p.csv")).unwrap(), answers);
    // Without a file the answers go to stdout, and how good they are is said beside them.
    let beside = place.limbeck(&["predict", model, "iris.csv"]);
    says(&beside, 0, &["0 errors in 60 rows with labels"]);
    says(&place.limbeck(&["predict", model, "iris.csv", "--json"]), 2, &["--out FILE"]);
    fs::write(place.path("bare.csv"), "20,-20\n0.1,0\n").unwrap();
    says(&place.limbeck(&["predict", model, "bare.csv"]), 0, &["no names of columns", "a, b"]);
    let into = place.limbeck(&["predict", model, "iris.csv", "--out", "iris.csv"]);
    says(&into, 2, &["an input of the command"]);

    // What is wrong is said, and what was there stays.
    fs::write(place.path("bad.csv"), "a,b\n1,2\n1,\n").unwrap();
    let bad = place.limbeck(&["predict", model, "bad.csv", "--out", "p.csv"]);
    says(&bad, 65, &["bad.csv:3", "missing"]);
    assert_eq!(fs::read_to_string(place.path("p.csv")).unwrap(), answers);
    says(&place.limbeck(&["predict", model, "gone.csv"]), 74, &["gone.csv"]);
    fs::write(place.path("other.csv"), "a,c\n1,2\n").unwrap();
    says(&place.limbeck(&["predict", model, "other.csv"]), 65, &["no column \"b\"", "a, b"]);
}

/// Of a table that has grown another part would be held out, and most of it was trained on.
#[test]
fn a_run_is_not_tested_on_a_table_that_has_changed() {
    let place = Place::new(&table(mixed(), 1.0), HELD, TRAINING);
    json(&place.run("train", "run"));
    // What else a run was made of, a teacher and weights to start from, is none of its test examples.
    let model = place.path("run/models/model-0.safetensors");
    let more = format!("{TRAINING}[distillation]\ntemperature = 2\n");
    place.configure(HELD, &more);
    let teacher = model.to_str().unwrap();
    json(&place.limbeck(&["distill", "c.toml", "--teacher", teacher, "--json", "--out", "soft"]));
    place.configure(HELD, &format!("initial = {teacher:?}\n{TRAINING}"));
    json(&place.run("train", "further"));
    for run in ["run", "soft", "further"] {
        let eval = place.limbeck(&["eval", run]);
        says(&eval, 0, &["the test examples are those of"]);
        assert!(!stderr(&eval).contains("warning"), "{}", stderr(&eval));
    }
    let grown = table(mixed().chain([0, 1]), 1.0);
    fs::write(place.path("t.csv"), &grown).unwrap();
    says(&place.limbeck(&["eval", "run"]), 65, &["t.csv", "held out", "--config FILE"]);

    let tested = Place::new(&table(mixed(), 1.0), "test_table = \"u.csv\"", TRAINING);
    fs::write(tested.path("u.csv"), table(mixed().take(9), 1.0)).unwrap();
    json(&tested.run("train", "run"));
    fs::write(tested.path("u.csv"), table(mixed().take(6), 1.0)).unwrap();
    says(&tested.limbeck(&["eval", "run"]), 0, &["u.csv: test_table is not as it was"]);
}

/// A test set that cannot be used is not passed over in silence.
#[test]
fn init_says_why_the_test_examples_are_not_taken() {
    let place = Place::new(&table(mixed(), 1.0), HELD, TRAINING);
    fs::write(place.path("train.csv"), table(mixed(), 1.0)).unwrap();
    fs::write(place.path("test.csv"), table(mixed().take(6), 1.0).replace("b,label", "c,label"))
        .unwrap();
    let init = place.limbeck(&["init", "train.csv", "--quiet", "--out", "i.toml"]);
    says(&init, 0, &["warning: the test examples cannot be used", "no column \"b\""]);
    // A gap in the training table is no fault of the test set.
    fs::write(place.path("train.csv"), table(mixed(), 1.0) + "1,,2\n").unwrap();
    fs::write(place.path("test.csv"), table(mixed().take(6), 1.0)).unwrap();
    let init = place.limbeck(&["init", "train.csv", "--out", "j.toml", "--json"]);
    says(&init, 0, &["left out 1 of 61 rows"]);
    assert_eq!(json(&init)["test_examples"], 6);
}

#[test]
fn a_teacher_and_a_start_meet_the_data_by_their_names() {
    let place = Place::new(&table(mixed(), 1.0), HELD, TRAINING);
    json(&place.run("train", "run"));
    let swapped: String = table(mixed(), 1.0)
        .lines()
        .map(|line| line.splitn(3, ',').collect::<Vec<_>>())
        .map(|row| format!("{},{},{}\n", row[1], row[0], row[2]))
        .collect();
    fs::write(place.path("t.csv"), swapped).unwrap();
    let model = "run/models/model-0.safetensors";
    // A rate so small that the student stays what it starts from.
    let still = "initial = \"run/models/model-0.safetensors\"\n[training]\nepochs = 1\nlearning_rate = 1e-12\n";
    place.configure(HELD, still);
    assert_eq!(errors(&place.run("train", "still")), 0);
    place.configure(HELD, &format!("{TRAINING}[distillation]\nhard_weight = 0\n"));
    let distil = ["distill", "c.toml", "--teacher", model, "--json", "--out", "soft"];
    let student = place.limbeck(&distil);
    assert!(!stderr(&student).contains("warning"), "{}", stderr(&student));
    assert_eq!(errors(&student), 0);
    fs::write(place.path("t.csv"), table(mixed(), 1.0).replace("a,b", "a,c")).unwrap();
    let other = place.limbeck(&[&distil[..5], &["--out", "other"]].concat());
    says(&other, 65, &["features of the model", "found a, b", "the data, a, c"]);
    assert!(!place.path("other").exists());
}

#[test]
fn outputs_replace_nothing_of_another_kind() {
    let place = Place::new(&table(mixed(), 1.0), HELD, TRAINING);
    json(&place.run("train", "run"));
    let model = "run/models/model-0.safetensors";
    let table = fs::read(place.path("t.csv")).unwrap();
    for (args, why) in [
        (&["eval", "run", "--logits", "t.csv"][..], "found an input of the command"),
        (&["export", model, "--onnx", "t.csv"], "would be replaced"),
        (&["report", "run", "--out", "t.csv"], "would be replaced"),
        (&["report", "run", "run", "--out", "t.csv"], "would be replaced"),
    ] {
        says(&place.limbeck(args), 2, &["t.csv", why]);
        assert_eq!(fs::read(place.path("t.csv")).unwrap(), table, "{args:?}");
    }
    for _ in 0..2 {
        says(&place.limbeck(&["eval", "run", "--logits", "z.npy"]), 0, &[]);
        says(&place.limbeck(&["export", model, "--onnx", "m.onnx"]), 0, &[]);
        says(&place.limbeck(&["report", "run", "--out", "page.html"]), 0, &[]);
    }
}

#[test]
fn what_figures_cannot_show_is_said() {
    // One of the rare class, which stays with the training examples.
    let rare = (0..60).map(|i| usize::from(i == 7) + 2 * usize::from(i % 2 == 1));
    let place = Place::new(&table(rare, 1.0), "holdout = 6", TRAINING);
    let trained = place.run("train", "rare");
    says(&trained, 0, &["no test example is of 1 of the 3 classes", "say nothing"]);
    // Seconds of an epoch, of which 32 bits tell every 128th.
    let seconds = table(mixed(), 1.0)
        .lines()
        .enumerate()
        .map(|(i, line)| match i {
            0 => format!("time,{line}\n"),
            _ => format!("{},{line}\n", 1_700_000_000 + 20 * i),
        })
        .collect::<String>();
    fs::write(place.path("t.csv"), seconds).unwrap();
    let text = "[data]\ntrain_table = \"t.csv\"\nholdout = 15\n[model]\nhidden = [8]\n[training]\nepochs = 2\n";
    fs::write(place.path("c.toml"), text).unwrap();
    let trained = place.run("train", "seconds");
    says(
        &trained,
        0,
        &["features \"time\": their values differ by hardly more", "subtract an offset"],
    );
    // To be scored: some labels are not known yet.
    let scored = "a,b,label\n0,0,0\n1,-1,\n2,-2,2\n2,-2,strange\n";
    fs::write(place.path("t.csv"), table(mixed(), 1.0)).unwrap();
    fs::write(place.path("s.csv"), scored).unwrap();
    place.configure(HELD, TRAINING);
    json(&place.run("train", "run"));
    let model = "run/models/model-0.safetensors";
    let output = place.limbeck(&["predict", model, "s.csv", "--out", "p.csv", "--json"]);
    says(&output, 0, &["1, the first \"strange\""]);
    let report = json(&output);
    assert_eq!((&report["rows"], &report["labelled"]), (&4.into(), &2.into()));
}

/// `table` with the field `column` of row `row` replaced.
fn with_value(table: &str, row: usize, column: usize, value: &str) -> String {
    let lines = table.lines().enumerate().map(|(i, line)| {
        let mut fields: Vec<&str> = line.split(',').collect();
        if i == row {
            fields[column] = value;
        }
        fields.join(",") + "\n"
    });
    lines.collect()
}

#[test]
fn a_value_that_hides_the_others_of_its_column_is_named() {
    let plain = table(mixed(), 1.0);
    let place = Place::new(&with_value(&plain, 7, 0, "1e12"), "holdout = 15", TRAINING);
    // Wherever it lands, in the training examples or in the test set.
    place.configure("test_table = \"test.csv\"", TRAINING);
    fs::write(place.path("test.csv"), &plain).unwrap();
    let run = place.run("train", "far");
    says(&run, 0, &["\"a\" (so far off: 1, up to 1e12)", "stands for a missing value"]);
    assert!(!stderr(&run).contains("\"b\" (so far"), "{}", stderr(&run));
    let many = (0..6).fold(plain.clone(), |text, i| with_value(&text, 3 + 9 * i, 1, "-99999"));
    fs::write(place.path("t.csv"), many).unwrap();
    says(&place.run("train", "many"), 0, &["\"b\" (so far off: 6, up to -99999)"]);

    let third = (0..60).step_by(3).fold(plain, |text, i| with_value(&text, 1 + i, 1, "-99999"));
    fs::write(place.path("t.csv"), third).unwrap();
    says(&place.run("train", "third"), 0, &["\"b\" (so far off: 20, up to -99999)"]);

    // A rare indicator, a tail and two clusters are columns as any.
    let rows = (0..600).map(|i| {
        let (rare, tail) = (usize::from(i % 100 == 3), (0.05 * (i * 37 % 600) as f64).exp());
        let cluster = f64::from(u8::from(i % 5 == 1)) + (i % 7) as f64 * 0.0002;
        format!("{rare},{tail},{cluster},{}\n", i % 3)
    });
    fs::write(place.path("t.csv"), format!("a,b,c,label\n{}", rows.collect::<String>())).unwrap();
    let text = "[data]\ntrain_table = \"t.csv\"\nholdout = 15\n[model]\nhidden = [4]\n[training]\nepochs = 1\n";
    fs::write(place.path("c.toml"), text).unwrap();
    let run = place.run("train", "usual");
    says(&run, 0, &[]);
    assert!(!stderr(&run).contains("far off"), "{}", stderr(&run));
}

#[test]
fn test_examples_in_another_unit_are_told() {
    let place = Place::new(&table(mixed(), 1.0), "test_table = \"test.csv\"", TRAINING);
    fs::write(place.path("test.csv"), table(mixed(), 25.4)).unwrap();
    let said = ["\"a\" (26.87", "beside 0 to 2.12", "of the same unit"];
    says(&place.run("train", "other"), 0, &said);
    fs::write(place.path("test.csv"), table(mixed(), 1.1)).unwrap();
    let run = place.run("train", "same");
    assert!(!stderr(&run).contains("unit"), "{}", stderr(&run));
}

#[test]
fn what_a_configuration_says_in_vain_is_told() {
    let place = Place::new(&table(mixed(), 1.0), HELD, TRAINING);
    let set = |values: &[&str], out: &str| {
        let values = values.iter().flat_map(|value| ["--set", value]);
        let args: Vec<&str> = ["train", "c.toml", "--out", out].into_iter().chain(values).collect();
        place.limbeck(&args)
    };
    let few = ["data.train_limit=100", "training.batch_size=64"];
    let vain = set(&[&["training.beta2=0.5", "training.decay=0.5"], &few[..]].concat(), "vain");
    says(&vain, 0, &["training.beta2 = 0.5 plays no part: optimizer = \"sgd\""]);
    says(&vain, 0, &["training.decay = 0.5 plays no part", "train_limit = 100: there are 45"]);
    says(
        &vain,
        0,
        &["batch_size = 64: there are 45 training examples, and each epoch is one step"],
    );
    let read = ["training.beta2=0.5", "training.optimizer=adam", "training.decay=0.5"];
    let read = set(&[&read[..], &["training.schedule=exponential"]].concat(), "read");
    says(&read, 0, &[]);
    assert!(!stderr(&read).contains("no part"), "{}", stderr(&read));
    // Neither does the resolved configuration of a run, which has all keys.
    let again = place.limbeck(&["train", "read/config.toml", "--out", "again"]);
    says(&again, 0, &[]);
    assert!(!stderr(&again).contains("no part"), "{}", stderr(&again));

    let teacher = "read/models/model-0.safetensors";
    let distil = |values: &str, out: &str| {
        place.configure(HELD, &format!("{TRAINING}[distillation]\n{values}\n"));
        place.limbeck(&["distill", "c.toml", "--teacher", teacher, "--out", out])
    };
    // What only distilling reads is none of a training's.
    place.configure(HELD, &format!("{TRAINING}[distillation]\nsoft_weight = 0\n"));
    let trained = place.run("train", "plain");
    says(&trained, 0, &[]);
    assert!(!stderr(&trained).contains("hardly"), "{}", stderr(&trained));
    let cold = distil("temperature = 1e-30", "cold");
    says(&cold, 0, &["the teacher hardly takes part", "at most 1e-30, that of the labels up to"]);
    says(
        &distil("soft_weight = 0", "labels"),
        0,
        &["the teacher hardly takes part", "at most 0, that"],
    );
    let warm = distil("temperature = 4", "warm");
    assert!(!stderr(&warm).contains("hardly"), "{}", stderr(&warm));
}

#[test]
fn the_key_at_fault_is_named_in_words() {
    let place = Place::new(&table(mixed(), 1.0), HELD, TRAINING);
    let set = |value: &str, said: &[&str]| {
        let args = ["train", "c.toml", "--out", "no", "--set", value, "--set", "training.epochs=1"];
        says(&place.limbeck(&args), 2, said);
    };
    set(
        "training.batch_size=1.5",
        &["--set training.batch_size=1.5: found 1.5, expected a whole number"],
    );
    set("seed=99999999999999999999", &["found 99999999999999999999, expected a whole number"]);
    set("training.learning_rate=fast", &["found \"fast\", expected a number"]);
    set("model.hidden=7", &["found 7, expected a list"]);
    set("training.max_norm=[1]", &["found a list, expected a number"]);
    set("training=5", &["--set: found training=5", "training.KEY=VALUE"]);
    set("training.train_limit=7", &["unknown key `train_limit` here; it is one of [data]"]);
    set("epochs=7", &["it is one of [training]"]);
}

/// An archive's labels are what its answers are compared with.
#[test]
fn arrays_are_answered_with_the_labels_beside_them() {
    let place = Place::new(&table(mixed(), 1.0), HELD, TRAINING);
    json(&place.run("train", "run"));
    let arrays = place.path("arrays");
    fs::create_dir(&arrays).unwrap();
    let rows: Vec<f32> = table(mixed(), 1.0)
        .lines()
        .skip(1)
        .flat_map(|line| {
            line.split(',').take(2).map(|x| x.parse::<f32>().unwrap()).collect::<Vec<_>>()
        })
        .collect();
    let labels: Vec<f32> = mixed().map(|label| label as f32).collect();
    let array = limbeck_datasets::npy::of_logits;
    fs::write(arrays.join("x_train.npy"), array(&rows[..20], 2)).unwrap();
    fs::write(arrays.join("x_test.npy"), array(&rows, 2)).unwrap();
    fs::write(arrays.join("y_test.npy"), array(&labels, 1)).unwrap();
    let predict = || {
        let model = "run/models/model-0.safetensors";
        place.limbeck(&["predict", model, "arrays", "--out", "answers.csv"])
    };
    let said = ["the rows are x_test, and their labels are y_test", "model's features, a, b"];
    let answered = predict();
    says(&answered, 0, &said);
    let shown = String::from_utf8(answered.stdout).unwrap();
    assert!(shown.contains("0 errors in 60 rows with labels"), "{shown}");
    let answers = fs::read_to_string(place.path("answers.csv")).unwrap();
    assert!(answers.starts_with("label,prediction,probability\n0,0,"), "{answers}");
    // One 1 in each row names a class by its place, whatever it is called.
    let one_hot: Vec<f32> =
        mixed().flat_map(|y| [0, 1, 2].map(|c| f32::from(u8::from(c == y)))).collect();
    fs::write(arrays.join("y_test.npy"), array(&one_hot, 3)).unwrap();
    let words =
        table(mixed(), 1.0).replace(",0\n", ",x\n").replace(",1\n", ",y\n").replace(",2\n", ",z\n");
    fs::write(place.path("t.csv"), words).unwrap();
    json(&place.run("train", "words"));
    let model = "words/models/model-0.safetensors";
    let answered = place.limbeck(&["predict", model, "arrays", "--out", "words.csv"]);
    let shown = String::from_utf8(answered.stdout).unwrap();
    assert!(shown.contains("0 errors in 60 rows with labels"), "{shown}");
    fs::write(arrays.join("y_test.npy"), array(&labels[1..], 1)).unwrap();
    says(&predict(), 0, &["no answer is compared", "y_test.npy"]);
}
