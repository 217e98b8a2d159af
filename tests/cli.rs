//! The program as its users meet it: arguments in; output, files and exit code out.
#![cfg(feature = "cli")]

mod common;

use common::required::data_dir;
use limbeck::engine::config::{Config, Precision};
use limbeck::files::about::About;
use limbeck::files::model::{Layer, ModelFile};
use limbeck::paper::preset::{Preset, PresetConfigs};
use limbeck::tools::verify;
use limbeck_datasets::{Dataset, glyphs, idx, mnist};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use tempfile::TempDir;

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    /// Checks the exit code and that stderr holds every one of `parts`.
    #[track_caller]
    fn fails(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} not in: {}", self.stderr);
        }
    }

    /// Checks for success and exactly one JSON object on stdout.
    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        let value: Value = serde_json::from_str(&self.stdout).unwrap();
        assert!(value.is_object());
        value
    }
}

/// Runs the program in `folder`, with no settings from the environment.
fn limbeck_in(folder: &Path, args: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_limbeck"))
        .args(args)
        .current_dir(folder)
        .env_remove("LIMBECK_DATA")
        .env_remove("LIMBECK_ISA")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn limbeck(args: &[&str]) -> Ended {
    limbeck_in(&std::env::temp_dir(), args)
}

static GLYPHS: LazyLock<Dataset> = LazyLock::new(glyphs::default);

/// A net of one layer whose templates are the mean images of the first `examples` training
/// digits: z_c = Σ mean_c·x − ½ Σ mean_c², the nearest mean.
fn nearest_mean(examples: usize) -> ModelFile {
    let train = &GLYPHS.train;
    let scale = 1.0 / 255.0;
    let mut weight = vec![0.0f32; 10 * 784];
    for i in 0..examples {
        let class = i % 10;
        for (w, &pixel) in weight[class * 784..][..784].iter_mut().zip(train.images().image(i)) {
            *w += f32::from(pixel) * scale / (examples / 10) as f32;
        }
    }
    let squares = weight.chunks(784).map(|w| w.iter().map(|w| w * w).sum::<f32>());
    let bias = squares.map(|sum| -0.5 * sum).collect();
    let layers = vec![Layer { inputs: 784, outputs: 10, weight, bias }];
    ModelFile {
        layers,
        activation: limbeck_kernels::Activation::Relu,
        input_scale: scale,
        input_shift: 0.0,
        standardizer: None,
        about: About::default(),
    }
}

/// The test examples that a one-layer net gets wrong, in f64.
fn misclassified(model: &ModelFile) -> Vec<usize> {
    let (test, layer) = (&GLYPHS.test, &model.layers[0]);
    let wrong = |&i: &usize| {
        let logit = |class: usize| {
            let weights = &layer.weight[class * 784..][..784];
            let products = weights
                .iter()
                .zip(test.images().image(i))
                .map(|(&w, &pixel)| f64::from(w) * f64::from(f32::from(pixel) * model.input_scale));
            products.sum::<f64>() + f64::from(layer.bias[class])
        };
        let best = (0..10).max_by(|&a, &b| logit(a).total_cmp(&logit(b))).unwrap();
        best != i % 10
    };
    (0..test.len()).filter(wrong).collect()
}

fn save(dir: &TempDir, name: &str, model: &ModelFile) -> String {
    let path = dir.path().join(name);
    model.save(&path).unwrap();
    path.to_str().unwrap().to_string()
}

/// Whether `value` is a finite number: all that a test may ask of what was measured.
fn is_measured(value: &Value) -> bool {
    value.as_f64().is_some_and(f64::is_finite)
}

fn indices(value: &Value) -> Vec<usize> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn usage_errors_exit_2() {
    limbeck(&["frobnicate"]).fails(2, &["frobnicate"]);
    limbeck(&["distll"]).fails(2, &["similar", "distill"]);
    limbeck(&["info", "--treads", "1"]).fails(2, &["similar", "--threads"]);
    limbeck(&[]).fails(2, &["Usage"]);
    limbeck(&["info", "--isa", "mmx"]).fails(2, &["mmx", "portable"]);
    limbeck(&["info", "--threads", "0"]).fails(2, &["--threads", "1..=1024"]);
    limbeck(&["info", "--seed", "-1"]).fails(2, &["-1"]);
    limbeck(&["eval"]).fails(2, &["MODEL"]);
    limbeck(&["reproduce", "weather"]).fails(2, &["weather", "mnist"]);
    limbeck(&["reproduce", "--preset", "huge"]).fails(2, &["huge", "standard"]);
    limbeck(&["data", "verify"]).fails(2, &["LIMBECK_DATA", "--data"]);
}

#[test]
fn info_tells_the_isa_and_threads_that_were_asked_for() {
    let info = limbeck(&["info", "--json", "--isa", "portable", "--threads", "1"]).json();
    assert_eq!(info["isa"], "portable");
    assert_eq!(info["threads"], 1);
    #[cfg(target_os = "linux")]
    {
        // Against another reading of the same file.
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
        assert_eq!(info["bf16_tiles"], cpuinfo.contains(" amx_bf16"));
        if let Some(model) = info["cpu_model"].as_u64() {
            assert!(cpuinfo.contains(&format!("model\t\t: {model}\n")), "{info}");
        }
    }
    assert!(is_measured(&info["peak_gflops"]), "{info}");
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["isas"].as_array().unwrap().last().unwrap(), "portable");
    assert!(limbeck(&["info"]).stdout.contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_pages_are_printed() {
    for args in [&["man"][..], &["completions", "bash"], &["completions", "zsh"]] {
        let page = limbeck(args);
        assert_eq!(page.code, Some(0), "{}", page.stderr);
        for word in ["reproduce", "eval", "--threads"] {
            let plain = page.stdout.replace('\\', "");
            assert!(plain.contains(word), "{args:?} without {word}");
        }
    }
    assert!(limbeck(&["man", "--json"]).json()["text"].is_string());
    assert_eq!(limbeck(&["--version"]).code, Some(0));
}

/// The sizes that the program is published with take a minute here: with `LIMBECK_FULL`.
fn full() -> bool {
    std::env::var_os("LIMBECK_FULL").is_some()
}

#[test]
fn a_verification_is_kept_with_its_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let exp = limbeck_in(dir.path(), &["verify", "exp", "--json", "--out", "kept"]).json();
    assert_eq!(exp["faults"], serde_json::json!([]));
    assert!(exp["max_ulps"].as_f64().unwrap() < exp["bound_ulps"].as_f64().unwrap());
    let kept: Value =
        serde_json::from_slice(&fs::read(dir.path().join("kept/summary.json")).unwrap()).unwrap();
    assert_eq!(kept, exp);
    let manifest = fs::read(dir.path().join("kept/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["command"][1], "verify");
    assert_eq!(manifest["precision"], "f32");
    let gemm = ["verify", "gemm", "--precision", "bf16", "--quiet", "--out", "gemm"];
    assert_eq!(limbeck_in(dir.path(), &gemm).code, Some(0));
    let manifest = fs::read(dir.path().join("gemm/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["precision"], "bf16");
}

#[test]
fn a_required_instruction_set_must_be_there() {
    let info = limbeck(&["info", "--json"]).json();
    let has = |isa: &str| info["isas"].as_array().unwrap().iter().any(|has| has == isa);
    for isa in ["amx", "avx512", "avx2", "portable"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
        let command = command.args(["verify", "exp", "--quiet"]);
        let output = command.env("LIMBECK_REQUIRE", format!("data, {isa}")).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        let want = if has(isa) { 0 } else { 2 };
        assert_eq!(output.status.code(), Some(want), "{isa}: {told}");
        let missing = told.contains(&format!("LIMBECK_REQUIRE asks for {isa}"));
        assert_eq!(missing, !has(isa), "{isa}: {told}");
    }
    // A name that nothing has asks for nothing.
    for (list, name) in [("data,AMX", "AMX"), ("avx-512", "avx-512")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
        let command = command.args(["verify", "exp", "--quiet"]);
        let output = command.env("LIMBECK_REQUIRE", list).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{list}: {told}");
        assert!(told.contains(&format!("found {name:?}, expected names of")), "{told}");
    }
}

#[test]
fn errors_are_verified_against_their_bounds() {
    let cases = if full() { 20_000 } else { 500 };
    for precision in Precision::ALL {
        let found = verify::gemm::verify(cases, precision).unwrap();
        found.faults.verdict().unwrap();
        let gemm = serde_json::to_value(found).unwrap();
        assert_eq!(gemm["precision"], precision.name());
        assert!(gemm["cases"].as_u64().unwrap() >= cases as u64);
        for row in ["products", "depths"].iter().flat_map(|key| gemm[key].as_array().unwrap()) {
            for data in ["signed", "positive"] {
                let share = row[data]["share_of_bound"].as_f64().unwrap();
                let tried = row["cases"].as_u64().unwrap() > 0;
                assert!(share <= 1.0 && (share > 0.0 || !tried), "{row}");
            }
        }
    }
    if !full() {
        return;
    }
    let gemm = limbeck(&["verify", "gemm", "--json"]).json();
    assert_eq!(gemm["faults"], serde_json::json!([]));
    let softmax = limbeck(&["verify", "softmax", "--json"]).json();
    for row in softmax["errors"].as_array().unwrap() {
        assert!(row["softmax_share_of_bound"].as_f64().unwrap() <= 1.0, "{row}");
        assert!(row["log_softmax_share_of_bound"].as_f64().unwrap() <= 1.0, "{row}");
    }
}

#[test]
fn the_determinism_matrix_has_one_hash_and_names_a_build_that_deviates() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["verify", "determinism", "--json", "--also"];
    // Another build: no program at all, one that says something else, one with other weights.
    limbeck(&[&arguments[..], &["/nowhere/limbeck"]].concat()).fails(74, &["/nowhere/limbeck"]);
    #[cfg(unix)]
    {
        let other = |output: &str| {
            let path = dir.path().join("other");
            fs::write(&path, format!("#!/bin/sh\necho '{output}'\n")).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(&path, mode).unwrap();
            limbeck(&[&arguments[..], &[path.to_str().unwrap()]].concat())
        };
        other("hello").fails(65, &["verify determinism --json", "other"]);
        let cell = serde_json::json!({
            "build": "opt-level 9", "isa": "avx2", "threads": 1, "fused": true,
            "sha256": ["bad", "bad"],
        });
        let deviating = other(&serde_json::json!({"cells": [cell]}).to_string());
        deviating.fails(70, &["opt-level 9, avx2, 1 threads, fused: 2 of 2 repeats give bad"]);
        let matrix: Value = serde_json::from_str(&deviating.stdout).unwrap();
        // That one beside all of this build.
        assert_eq!(matrix["distinct"], 2);
        let cells = matrix["cells"].as_array().unwrap();
        // Five thread counts, fused and not.
        assert_eq!(cells.len(), matrix["isas"].as_array().unwrap().len() * 5 * 2 + 1);
        let own = |hash: &Value| *hash == matrix["sha256"];
        let mut all = cells[..cells.len() - 1].iter().flat_map(|c| c["sha256"].as_array().unwrap());
        assert!(all.all(own), "{matrix}");
    }
    let bf16 = limbeck(&["verify", "determinism", "--precision", "bf16", "--json"]).json();
    assert_eq!((&bf16["precision"], &bf16["distinct"]), (&"bf16".into(), &1.into()));
    if full() {
        let program = env!("CARGO_BIN_EXE_limbeck");
        let matrix = limbeck(&[&arguments[..], &[program]].concat()).json();
        assert_eq!(matrix["distinct"], 1);
    }
}

#[test]
fn bench_prints_the_figures_that_scripts_read() {
    let step = |isa: &str, threads: &str| {
        let net = ["bench", "step", "--net", "784-30-10", "--batch", "16", "--json"];
        limbeck(&[&net[..], &["--isa", isa, "--threads", threads]].concat()).json()
    };
    let figures = step("auto", "1");
    // 2·B·(products of the first layer twice, no input gradient there, of the second thrice).
    let flop = 2.0 * 16.0 * (2.0 * 784.0 * 30.0 + 3.0 * 30.0 * 10.0);
    let gflop = figures["gflop_per_step"].as_f64().unwrap();
    assert!((gflop - flop / 1e9).abs() < 1e-12, "{gflop}");
    let number = |key: &str| figures[key].as_f64().unwrap_or_else(|| panic!("{key}: {figures}"));
    let ms = &figures["ms_per_step"];
    let [min, median, max] = ["min", "median", "max"].map(|key| ms[key].as_f64().unwrap());
    assert!(min <= median && median <= max, "{ms}");
    assert!((number("gflops") * median / 1e3 / gflop - 1.0).abs() < 1e-6, "{figures}");
    for key in ["peak_gflops", "fraction_of_peak", "fork_join_us"] {
        assert!(is_measured(&figures[key]), "{key}: {figures}");
    }
    assert!(number("peak_rss_mb") > 1.0);
    // Of all steps those without a neighbour; which they are depends on the machine.
    let calm = &figures["calm"];
    assert!(calm.is_null() || calm["steps"].as_u64() <= figures["steps"].as_u64(), "{figures}");
    assert!(calm.is_null() || is_measured(&calm["fraction_of_peak"]), "{figures}");
    // One thread forks nothing.
    assert_eq!((number("forks_per_step"), number("fraction_of_forks")), (0.0, 0.0));
    // The trained parameters depend on neither threads nor ISA.
    assert_eq!(figures["params_sha256"].as_str().unwrap().len(), 64);
    assert_eq!(step("portable", "2")["params_sha256"], figures["params_sha256"]);

    let sizes = ["bench", "gemm", "--m", "33", "--n", "17", "--k", "40", "--json"];
    for layout in ["nn", "nt", "tn"] {
        let figures = limbeck(&[&sizes[..], &["--layout", layout]].concat()).json();
        for key in ["gflops", "peak_gflops", "fraction_of_peak"] {
            assert!(is_measured(&figures[key]), "{layout}, {key}: {figures}");
        }
    }

    let dropout = ["bench", "dropout", "--units", "100", "--batch", "100", "--rate", "0.2"];
    let figures = limbeck(&[&dropout[..], &["--threads", "1", "--json"]].concat()).json();
    assert!(is_measured(&figures["dropout_ns"]["median"]), "{figures}");
    // Five standard deviations of the mean of 10,000: 5·√(0.2·0.8)/100.
    let dropped = figures["dropped"].as_f64().unwrap();
    assert!((dropped - 0.2).abs() < 0.02, "{figures}");

    limbeck(&["bench", "dropout", "--rate", "1"]).fails(2, &["between 0 and 1"]);
    limbeck(&["bench", "step", "--net", "784"]).fails(2, &["two widths"]);
    limbeck(&["bench", "gemm", "--m", "0"]).fails(2, &["--m"]);
}

/// An IDX file of one dimension per entry of `sides`, filled with zeros.
fn idx_file(path: &Path, sides: &[u32]) {
    let mut bytes = vec![0, 0, 8, sides.len() as u8];
    bytes.extend(sides.iter().flat_map(|side| side.to_be_bytes()));
    bytes.resize(bytes.len() + sides.iter().product::<u32>() as usize, 0);
    fs::write(path, bytes).unwrap();
}

/// Well-formed files with MNIST's names but other contents.
fn false_mnist() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mnist = dir.path().join("mnist");
    fs::create_dir(&mnist).unwrap();
    for split in ["train", "t10k"] {
        idx_file(&mnist.join(format!("{split}-images-idx3-ubyte")), &[3, 28, 28]);
        idx_file(&mnist.join(format!("{split}-labels-idx1-ubyte")), &[3]);
    }
    assert_eq!(idx::read_labels(&mnist.join("t10k-labels-idx1-ubyte"), 10).unwrap().labels, [0; 3]);
    (dir, mnist)
}

#[test]
fn data_list_tells_what_is_there() {
    let found = |args: &[&str]| -> Vec<(String, bool)> {
        let list = limbeck(args).json();
        let sets = list["datasets"].as_array().unwrap().iter();
        sets.map(|set| (set["name"].as_str().unwrap().into(), set["found"] == true)).collect()
    };
    let expected = |mnist| {
        let sets = [("mnist", mnist), ("an4", false), ("glyphs", true), ("writers", true)];
        sets.map(|(name, found)| (name.to_string(), found)).to_vec()
    };
    assert_eq!(found(&["data", "list", "--json"]), expected(false));
    let (dir, mnist) = false_mnist();
    let data = dir.path().to_str().unwrap();
    assert_eq!(found(&["data", "list", "--json", "--data", data]), expected(true));
    fs::remove_file(mnist.join("t10k-labels-idx1-ubyte")).unwrap();
    assert_eq!(found(&["data", "list", "--json", "--data", data]), expected(false));
}

#[test]
fn data_verify_finds_what_is_wrong() {
    let (dir, mnist) = false_mnist();
    let data = dir.path().to_str().unwrap();
    let verify = || limbeck(&["data", "verify", "--json", "--data", data]);
    let false_files = verify();
    // The published file's digest, and that of ours, as `sha256sum` gives it.
    let published = "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db";
    false_files.fails(65, &["error: ", "train-images-idx3-ubyte", published]);
    let report: Value = serde_json::from_str(&false_files.stdout).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["files"].as_array().unwrap().len(), 4);

    fs::remove_file(mnist.join("train-images-idx3-ubyte")).unwrap();
    verify().fails(74, &["train-images-idx3-ubyte", "no such file"]);

    // Speech alone is looked at alone.
    fs::rename(&mnist, dir.path().join("an4")).unwrap();
    verify().fails(74, &["an4/SHA256SUMS", "no such file"]);
    fs::write(dir.path().join("an4/SHA256SUMS"), "").unwrap();
    let false_sums = verify();
    false_sums.fails(65, &["error: ", "an4/SHA256SUMS", "found SHA-256 e3b0c442"]);
    let report: Value = serde_json::from_str(&false_sums.stdout).unwrap();
    assert_eq!(report["files"].as_array().unwrap().len(), 1);
}

#[test]
fn data_verify_accepts_the_published_files_and_no_copy_with_a_flipped_bit() {
    let Some(data) = data_dir(mnist::is_present) else { return };
    let verify = |folder: &Path| limbeck(&["data", "verify", "--data", folder.to_str().unwrap()]);
    // The program runs elsewhere, so a relative path must not stay relative.
    let data = fs::canonicalize(data).unwrap();
    assert_eq!(verify(&data).code, Some(0));
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("mnist")).unwrap();
    for entry in fs::read_dir(data.join("mnist")).unwrap() {
        let from = entry.unwrap();
        let mut bytes = fs::read(from.path()).unwrap();
        if from.file_name().to_str().unwrap().starts_with("t10k-labels") {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        fs::write(copy.path().join("mnist").join(from.file_name()), bytes).unwrap();
    }
    verify(copy.path()).fails(65, &["t10k-labels"]);
}

#[test]
fn eval_counts_what_plain_arithmetic_counts() {
    let dir = tempfile::tempdir().unwrap();
    let model = nearest_mean(2000);
    let path = save(&dir, "mean.safetensors", &model);
    let expected = misclassified(&model);
    assert!((1000..6000).contains(&expected.len()), "{}", expected.len());

    let report = limbeck(&["eval", &path, "--json"]);
    assert!(report.stderr.contains("glyphs"), "{}", report.stderr);
    let report = report.json();
    assert_eq!(report["dataset"], "glyphs");
    assert_eq!(report["examples"], 10_000);
    assert_eq!(report["errors"], expected.len());
    assert_eq!(report["error_rate"], expected.len() as f64 / 10_000.0);
    assert_eq!(indices(&report["misclassified"]), expected);
    assert_eq!(report["sha256"], model.sha256());
    let nll = report["nll"].as_f64().unwrap();
    assert!(nll > 0.0 && nll.is_finite());

    // For people: the same figures; --quiet leaves stderr empty.
    let text = limbeck(&["eval", &path, "--dataset", "glyphs", "--quiet"]);
    assert!(text.stdout.contains(&format!("{} errors", expected.len())), "{}", text.stdout);
    assert_eq!(text.stderr, "");
}

#[test]
fn eval_compares_several_models() {
    let dir = tempfile::tempdir().unwrap();
    let models = [nearest_mean(100), nearest_mean(8000)];
    let names = ["few", "many"];
    let [few, many] = [0, 1].map(|i| save(&dir, names[i], &models[i]));
    let wrong = models.each_ref().map(misclassified);

    let report = limbeck(&["eval", &few, &many, &few, "--json", "--dataset", "glyphs"]).json();
    for (i, model) in [0, 1, 0].into_iter().enumerate() {
        assert_eq!(indices(&report["models"][i]["misclassified"]), wrong[model]);
    }
    let only = |a: usize, b: usize| wrong[a].iter().filter(|i| !wrong[b].contains(i)).count();
    let pairs = report["mcnemar"].as_array().unwrap();
    assert_eq!(pairs.len(), 3);
    assert_eq!(pairs[0]["first"].as_str(), Some(&few[..]));
    assert_eq!(pairs[0]["only_first"], only(0, 1));
    assert_eq!(pairs[0]["only_second"], only(1, 0));
    assert_eq!(pairs[1]["p_value"], 1.0, "a model does not differ from itself");
    assert!(report["ensemble"]["errors"].as_u64().unwrap() > 0);

    // The mean of a model with itself is the model.
    let twice = limbeck(&["eval", &many, &many, "--json", "--dataset", "glyphs"]).json();
    assert_eq!(indices(&twice["ensemble"]["misclassified"]), wrong[1]);
}

#[test]
fn eval_refuses_what_is_no_fitting_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    limbeck(&["eval", &path("none")]).fails(74, &["none", "No such file"]);
    fs::write(path("text"), "not a model, but long enough to hold a length").unwrap();
    limbeck(&["eval", &path("text")]).fails(65, &["text", "found", "expected a safetensors file"]);

    let mut narrow = nearest_mean(100);
    narrow.layers[0].inputs = 783;
    narrow.layers[0].weight.truncate(7830);
    let narrow = save(&dir, "narrow", &narrow);
    let refused = limbeck(&["eval", &narrow, "--dataset", "glyphs"]);
    refused.fails(65, &[&narrow, "found 783", "expected 784"]);

    let model = save(&dir, "good", &nearest_mean(100));
    let refused = limbeck(&["eval", &model, "--dataset", "mnist"]);
    refused.fails(2, &["--data", "LIMBECK_DATA"]);
    let (false_data, _) = false_mnist();
    let data = false_data.path().to_str().unwrap();
    limbeck(&["eval", &model, "--data", data]).fails(65, &["SHA-256", "train-images"]);

    fs::write(path("config.toml"), "[data]\ndataset = \"glyphs\"\ncolour = 1\n").unwrap();
    let refused = limbeck(&["eval", &model, "--config", &path("config.toml")]);
    refused.fails(65, &["config.toml:3", "colour"]);
}

#[test]
fn eval_takes_the_hold_out_of_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let model = save(&dir, "model", &nearest_mean(100));
    let config = dir.path().join("config.toml");
    fs::write(&config, "[data]\ndataset = \"glyphs\"\nholdout = 500\n").unwrap();
    let config = config.to_str().unwrap();
    let report = limbeck(&["eval", &model, "--json", "--config", config]).json();
    assert_eq!(report["examples"], 500);
    limbeck(&["eval", &model, "--config", config, "--dataset", "glyphs"]).fails(2, &["--dataset"]);
}

#[test]
fn a_closed_or_full_stdout_is_told_apart() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let to = |file: &str| {
        let shell = format!("{} man {file}", env!("CARGO_BIN_EXE_limbeck"));
        let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, message) = to(">/dev/full");
    assert_eq!(code, Some(74), "{message}");
    assert!(message.contains("stdout"), "{message}");
    let (_, message) = to("| head -1");
    assert_eq!(message, "");
}

/// A small, quick model on the glyphs; `more` is appended.
fn tiny_config(dir: &TempDir, name: &str, more: &str) -> String {
    let path = dir.path().join(name);
    let text = format!(
        "seed = 3\n[data]\ndataset = \"glyphs\"\ntrain_limit = 500\n\
         [model]\nlayers = [784, 16, 10]\n\
         [training]\nepochs = 2\nbatch_size = 50\n{more}"
    );
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_string()
}

/// The names of everything below `folder`, which must hold no temporary files.
fn files(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        assert!(path.extension().is_none_or(|e| e != "tmp"), "{path:?}");
        if path.is_dir() {
            names.extend(files(&path));
        } else {
            names.push(path.file_name().unwrap().to_str().unwrap().to_string());
        }
    }
    names.sort();
    names
}

#[test]
fn train_then_distill_then_eval() {
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let config = tiny_config(&dir, "tiny.toml", "");

    let report = limbeck(&["train", &config, "--json", "--out", &out("teacher")]).json();
    let run = dir.path().join("teacher");
    assert_eq!(
        files(&run),
        [
            ".lock",
            "config.toml",
            "manifest.json",
            "metrics.jsonl",
            "model-3.safetensors",
            "report.html",
            "summary.json"
        ]
    );
    let epochs = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert_eq!(epochs.lines().count(), 2);
    let teacher = run.join(report["model"].as_str().unwrap());
    let teacher = teacher.to_str().unwrap();
    let evaluated = limbeck(&["eval", teacher, "--json", "--dataset", "glyphs"]).json();
    assert_eq!(evaluated["errors"], report["test_errors"]);
    assert_eq!(evaluated["sha256"], report["sha256"]);
    assert!(report["test_errors"].as_u64().unwrap() < 8000, "better than chance: {report}");

    // The same seed gives the same bits on another ISA and thread count, another seed others.
    let again = |extra: &[&str], name: &str| {
        let folder = out(name);
        let args = [&["train", &config, "--json", "--out", &folder], extra].concat();
        limbeck(&args).json()["sha256"].clone()
    };
    let portable = again(&["--isa", "portable", "--threads", "1"], "again");
    assert_eq!(portable, report["sha256"]);
    assert_ne!(again(&["--seed", "4"], "other"), report["sha256"]);

    // A finished run is neither overwritten nor resumed.
    limbeck(&["train", &config, "--out", &out("teacher")])
        .fails(2, &["already holds a finished run of `train`", "limbeck report", "--out DIR"]);
    // Options may stand before the command.
    let threads_first = ["--threads", "1", "train", &config, "--out", &out("first")];
    assert_eq!(limbeck(&threads_first).code, Some(0));
    fs::remove_file(dir.path().join("first/summary.json")).unwrap();
    limbeck(&threads_first).fails(2, &["go on with limbeck train --resume"]);
    limbeck(&["train", "--resume", &out("teacher")]).fails(2, &["finished"]);
    // Without its summary, damaged, it is trained again.
    let kept = fs::read(run.join("summary.json")).unwrap();
    fs::write(run.join("summary.json"), &kept[..kept.len() / 2]).unwrap();
    for command in [&["train", "--resume"][..], &["report"]] {
        let damaged = limbeck(&[command, &[&out("teacher")]].concat());
        damaged.fails(65, &["teacher/summary.json", "put a copy in its place"]);
    }
    fs::remove_file(run.join("summary.json")).unwrap();
    let made = limbeck(&["train", "--resume", &out("teacher"), "--json"]).json();
    assert_eq!(made["sha256"], report["sha256"]);

    let student =
        limbeck(&["distill", &config, "--teacher", teacher, "--json", "--out", &out("student")]);
    assert!(student.stderr.contains("student epoch 2/2"), "{}", student.stderr);
    assert_eq!(student.json()["variant"], "student");
    let manifest = dir.path().join("student/manifest.json");
    let begun: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    assert_eq!(begun["loss_contract"]["temperature"], 20.0);
    assert_eq!(begun["data"]["teacher 0"], report["sha256"]);
    // It knows its teacher, wherever it is resumed from.
    assert_eq!(begun["paths"]["teacher 0"], teacher);
    let resume = ["distill", "--resume", &out("student")];
    let summary = dir.path().join("student/summary.json");
    fs::remove_file(&summary).unwrap();
    let again = limbeck_in(dir.path(), &[&resume[..], &["--json"]].concat()).json();
    assert_eq!(again["sha256"], student.json()["sha256"]);

    // It goes on as it began, or not at all.
    fs::remove_file(&summary).unwrap();
    let kept = dir.path().join("student/config.toml");
    let text = fs::read_to_string(&kept).unwrap();
    fs::write(&kept, text.replace("epochs = 2\n", "epochs = 3\n")).unwrap();
    let said = ["student/config.toml", "training.epochs: found 3, expected 2", "new run"];
    limbeck(&resume).fails(65, &said);
    fs::write(&kept, text).unwrap();
    let moved = dir.path().join("moved.safetensors");
    fs::rename(teacher, &moved).unwrap();
    limbeck(&resume).fails(74, &[teacher, "a teacher that the run began with", "--teacher"]);
    // An earlier version did not write down where the teacher lay.
    let mut earlier = begun.clone();
    earlier["paths"].as_object_mut().unwrap().remove("teacher 0");
    fs::write(&manifest, earlier.to_string()).unwrap();
    let said = ["no teacher: limbeck distill --resume", &format!("--teacher {teacher}")];
    limbeck(&resume).fails(2, &said);
    let given = [&resume[..], &["--teacher", moved.to_str().unwrap(), "--json"]].concat();
    assert_eq!(limbeck(&given).json()["sha256"], student.json()["sha256"]);
}

#[test]
fn synthetic_frames_are_learnt_and_evaluated() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("frames.toml");
    let text = |dataset: &str| {
        format!(
            "[data]\ndataset = \"{dataset}\"\nclasses = 20\ntrain_limit = 5120\n\
             [model]\nlayers = [1040, 32, 20]\n\
             [training]\nepochs = 4\noptimizer = \"adam\"\nlearning_rate = 0.003\n"
        )
    };
    fs::write(&config, text("frames")).unwrap();
    let (config, out) = (config.to_str().unwrap(), dir.path().join("run"));
    let out = out.to_str().unwrap();
    limbeck(&["train", config, "--out", out, "--json", "--quiet"]).json();
    let model = format!("{out}/models/model-0.safetensors");
    let report = limbeck(&["eval", &model, "--config", config, "--json"]).json();
    // By chance 95 % would be wrong; the centres of the states are far apart.
    assert_eq!(report["examples"], 2560);
    assert!(report["error_rate"].as_f64().unwrap() < 0.2, "{report}");

    fs::write(config, text("an4")).unwrap();
    limbeck(&["train", config]).fails(65, &["frames.toml", "an4", "reproduce speech"]);
}

/// An `.npy` file.
fn npy(descr: &str, shape: &[usize], values: &[u8]) -> Vec<u8> {
    let sides: String = shape.iter().map(|side| format!("{side},")).collect();
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sides}), }}");
    let start = format!("\x01\0\x76\0{header:<117}\n");
    [b"\x93NUMPY", start.as_bytes(), values].concat()
}

/// The same examples of two features in two classes, left and right, as tables and as arrays, with
/// the logits of a teacher who knows them, in NPY: what any framework can write.
fn own_data(dir: &TempDir) {
    let mut random = 7u32;
    for (split, n) in [("train", 60), ("test", 20)] {
        let (mut table, mut unlabelled) = ("x,label,y\n".to_string(), "x,y\n".to_string());
        let (mut x, mut y, mut logits) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..n {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let side = if i % 2 == 0 { -1.0f32 } else { 1.0 };
            let (across, along) =
                (side * (0.5 + (i % 7) as f32 / 4.0), (random >> 24) as f32 / 256.0);
            table += &format!("{across},{},{along}\n", i % 2);
            unlabelled += &format!("{across},{along}\n");
            x.extend([across, along].map(f32::to_le_bytes).concat());
            y.extend((i as i64 % 2).to_le_bytes());
            logits.extend([-3.0 * side, 3.0 * side].map(f32::to_le_bytes).concat());
        }
        let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        write(&format!("{split}.csv"), table.as_bytes());
        write(&format!("{split}-unlabelled.csv"), unlabelled.as_bytes());
        write(&format!("x_{split}.npy"), &npy("<f4", &[n, 2], &x));
        write(&format!("y_{split}.npy"), &npy("<i8", &[n], &y));
        write(&format!("{split}-logits.npy"), &npy("<f4", &[n, 2], &logits));
    }
}

#[test]
fn own_tables_and_arrays_are_learnt_and_distilled_from_logits_alone() {
    let dir = tempfile::tempdir().unwrap();
    own_data(&dir);
    let run = |args: &[&str]| limbeck_in(dir.path(), args);
    let config = |name: &str, data: &str, more: &str| {
        let text = format!(
            "[data]\nclasses = 2\n{data}\n[model]\nlayers = [2, 8, 2]\n\
             [training]\nepochs = 20\nbatch_size = 10\n{more}"
        );
        fs::write(dir.path().join(name), text).unwrap();
    };
    let tables = "dataset = \"csv\"\ntrain_table = \"train.csv\"\ntest_table = \"test.csv\"";
    config("csv.toml", tables, "");
    config("npz.toml", "dataset = \"npz\"\narrays = \".\"", "");
    let by_table = run(&["train", "csv.toml", "--json", "--out", "csv"]).json();
    let by_array = run(&["train", "npz.toml", "--json", "--out", "npz"]).json();
    assert_eq!((&by_table["dataset"], &by_table["test_examples"]), (&"csv".into(), &20.into()));
    assert_eq!(by_table["test_errors"], 0, "the two classes are apart: {by_table}");
    // Decimal digits of an f32 read back to it.
    assert_eq!(by_table["sha256"], by_array["sha256"]);

    let logits = "[distillation]\ntemperature = 2.0\nteacher_logits = \"train-logits.npy\"\n";
    let unlabelled = tables.replace("train.csv", "train-unlabelled.csv");
    config("labelled.toml", tables, logits);
    config("unlabelled.toml", &unlabelled, &format!("{logits}hard_weight = 0"));
    config("hard.toml", &unlabelled, logits);
    let student = run(&["distill", "labelled.toml", "--json", "--out", "labelled"]).json();
    assert_eq!(student["test_errors"], 0);
    let student = run(&["distill", "unlabelled.toml", "--json", "--out", "unlabelled"]).json();
    assert_eq!((&student["test_errors"], &student["train_errors"]), (&0.into(), &Value::Null));
    run(&["distill", "hard.toml"]).fails(2, &["no labels", "hard_weight"]);
    let model = "unlabelled/models/student-0.safetensors";
    assert_eq!(run(&["eval", model, "--config", "csv.toml", "--json"]).json()["errors"], 0);

    // The hold-out is the table's last lines. The logits may have a row for each line.
    let held_out = tables.replace("test_table = \"test.csv\"", "holdout = 20");
    config("holdout.toml", &held_out, "");
    let kept = run(&["train", "holdout.toml", "--json", "--out", "holdout"]).json();
    assert_eq!((&kept["test_examples"], &kept["test_errors"]), (&20.into(), &0.into()));
    config("rows.toml", &held_out, logits);
    let kept = run(&["distill", "rows.toml", "--json", "--out", "rows"]).json();
    assert_eq!(kept["test_examples"], 20);
    config("rows.toml", &held_out.replace("20", "20\ntrain_limit = 30"), logits);
    run(&["distill", "rows.toml", "--json", "--out", "limited"]).json();
}

/// The data is read once; the report at the end shows it all the same, and a later one does not wait for
/// it to come again.
#[cfg(unix)]
#[test]
fn a_table_from_a_pipe_is_learnt_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    own_data(&dir);
    let pipe = dir.path().join("pipe.csv");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let train = |table: &str| {
        let text = format!(
            "[data]\nclasses = 2\ndataset = \"csv\"\ntrain_table = \"{table}\"\ntest_table = \
             \"test.csv\"\n[model]\nlayers = [2, 8, 2]\n[training]\nepochs = 2\n"
        );
        fs::write(dir.path().join("own.toml"), text).unwrap();
        limbeck_in(
            dir.path(),
            &["train", "own.toml", "--json", "--out", table.trim_end_matches(".csv")],
        )
        .json()
    };
    let filed = train("train.csv");
    let bytes = fs::read(dir.path().join("train.csv")).unwrap();
    let writer = std::thread::spawn(move || fs::write(pipe, bytes).unwrap());
    let piped = train("pipe.csv");
    writer.join().unwrap();
    assert_eq!(piped["sha256"], filed["sha256"]);
    let shown = |run: &str| {
        let page = fs::read_to_string(dir.path().join(run).join("report.html")).unwrap();
        page.contains("What it gets wrong")
    };
    assert!(shown("train") && shown("pipe"));
    assert_eq!(limbeck_in(dir.path(), &["report", "pipe"]).code, Some(0));
    assert!(!shown("pipe"));
}

#[test]
fn own_tables_and_arrays_that_do_not_fit_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    own_data(&dir);
    let refused = |data: &str, code: i32, parts: &[&str]| {
        let text = format!("[data]\nclasses = 2\n{data}\n[model]\nlayers = [2, 8, 2]\n");
        fs::write(dir.path().join("own.toml"), text).unwrap();
        limbeck_in(dir.path(), &["train", "own.toml", "--out", "run"]).fails(code, parts);
        assert!(!dir.path().join("run").exists());
    };
    let csv = "dataset = \"csv\"\ntrain_table = \"train.csv\"";
    refused(csv, 65, &["own.toml", "data.test_table must be a path"]);
    refused(&format!("{csv}\ntest_table = \"gone.csv\""), 74, &["gone.csv"]);
    refused(&format!("{csv}\nholdout = 60"), 65, &["data.holdout", "found 60", "1 to 59"]);
    refused(&format!("{csv}\nholdout = 9\njitter = 2"), 65, &["data.jitter", "features"]);
    refused(
        &format!("{csv}\ntest_table = \"test.csv\"\nlabel_column = \"y\""),
        65,
        &["train.csv:2", "in column \"y\"", "a whole number, the label of a class"],
    );
    fs::write(dir.path().join("test.csv"), "x,y,label\n1,2,0\n1,oh,0\n").unwrap();
    refused(
        &format!("{csv}\ntest_table = \"test.csv\""),
        65,
        &["test.csv:3", "found \"oh\" in column \"y\"", "finite 32-bit number"],
    );
    let npz = "dataset = \"npz\"\narrays = \".\"";
    fs::write(dir.path().join("y_test.npy"), npy("<i8", &[19], &[0; 8 * 19])).unwrap();
    refused(npz, 65, &["y_test.npy", "(19,)", "shape (20,) or (20, 1)"]);
    fs::remove_file(dir.path().join("y_test.npy")).unwrap();
    refused(npz, 65, &["found the arrays [", "x_train, y_train]", "expected y_test.npy"]);
}

#[test]
fn models_and_runs_are_exported_and_what_is_neither_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = idx_config(&dir, "");
    let run = |args: &[&str]| limbeck_in(dir.path(), args);
    let trained = run(&["train", &config, "--json", "--out", "run"]).json();
    let model = format!("run/{}", trained["model"].as_str().unwrap());

    let exported = run(&["export", &model, "--onnx", "model.onnx", "--json"]).json();
    assert_eq!(exported["files"][0], "model.onnx");
    let weights = ModelFile::load(&dir.path().join(&model)).unwrap().0.layers.swap_remove(1).weight;
    let weights = weights.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    let onnx = fs::read(dir.path().join("model.onnx")).unwrap();
    assert!(onnx.windows(weights.len()).any(|part| part == weights), "as they are in the model");

    // The same export again takes the first one's place.
    for _ in 0..2 {
        run(&["export", "run", "--tensorboard", "events", "--json"]).json();
        assert_eq!(files(&dir.path().join("events")), ["events.out.tfevents.0.limbeck"]);
    }

    run(&["eval", &model, "--config", &config, "--logits", "logits.npy"]);
    let logits = limbeck_datasets::npy::read_logits(&dir.path().join("logits.npy"), 10, 2).unwrap();
    let right = |(i, row): (usize, &[f32])| (row[1] > row[0]) == (i % 2 == 1);
    assert!(logits.chunks(2).enumerate().all(right), "as trained: {trained}");

    run(&["export", &model]).fails(2, &["--onnx", "--tensorboard"]);
    run(&["export", &model, "--onnx", "a", "--tensorboard", "b"])
        .fails(2, &["cannot be used with"]);
    run(&["export", "gone", "--onnx", "a"]).fails(74, &["gone"]);
    run(&["export", "idx.toml", "--onnx", "a"]).fails(65, &["idx.toml", "safetensors"]);
    run(&["export", &model, "--onnx", "no/folder"]).fails(74, &["no/folder"]);
    run(&["export", ".", "--tensorboard", "b"]).fails(74, &["metrics.jsonl"]);
    fs::write(dir.path().join("metrics.jsonl"), "").unwrap();
    run(&["export", ".", "--tensorboard", "b"]).fails(65, &["metrics.jsonl", "epochs: found none"]);
    fs::write(dir.path().join("metrics.jsonl"), "{}\n").unwrap();
    run(&["export", ".", "--tensorboard", "b"]).fails(65, &["metrics.jsonl: line 1"]);
}

#[test]
fn the_configurations_of_mnist_are_those_that_are_reproduced() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let dataset = Dataset { name: "mnist".into(), ..GLYPHS.clone() };
    let plan = PresetConfigs::new(Preset::Paper, &dataset);
    for (name, expected) in
        [("teacher", plan.teacher), ("baseline", plan.baseline), ("student", plan.student)]
    {
        let config = Config::load(&folder.join(format!("mnist-{name}.toml"))).unwrap();
        assert_eq!(config, expected, "{name}");
    }
}

#[test]
fn every_configuration_in_the_repository_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let found: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let files: Vec<_> = found.iter().filter(|path| path.is_file()).collect();
    assert!(!files.is_empty());
    for path in files {
        Config::load(path).unwrap();
    }
}

#[test]
fn a_killed_run_resumes_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let with = |name: &str, minutes: &str| {
        let config = tiny_config(&dir, name, &format!("checkpoint_minutes = {minutes}\n"));
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("epochs = 2", "epochs = 1000")).unwrap();
        config
    };
    let through = with("through.toml", "5");
    let through = limbeck(&["train", &through, "--json", "--quiet", "--out", &out("through")]);

    let config = with("killed.toml", "0.001");
    let mut killed = Command::new(env!("CARGO_BIN_EXE_limbeck"))
        .args(["train", &config, "--quiet", "--out", &out("killed")])
        .spawn()
        .unwrap();
    let checkpoints = dir.path().join("killed/checkpoints/model-3");
    let begun = || fs::read_dir(&checkpoints).is_ok_and(|mut files| files.next().is_some());
    while !begun() {
        assert!(killed.try_wait().unwrap().is_none(), "ended without a checkpoint");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!dir.path().join("killed/summary.json").exists());

    let resume = ["train", "--json", "--resume", &out("killed")];
    limbeck(&[&resume[..], &["--seed", "4"]].concat()).fails(2, &["--seed"]);
    let resumed = limbeck(&resume);
    assert_eq!(resumed.json()["sha256"], through.json()["sha256"]);

    // Without its checkpoints it can only begin again, and says so.
    fs::remove_file(dir.path().join("killed/summary.json")).unwrap();
    let again = limbeck(&resume);
    assert_eq!(again.json()["sha256"], through.json()["sha256"]);
    let said = "found no checkpoint of the 1000 epochs that were trained";
    assert!(again.stderr.contains(said), "{}", again.stderr);
    limbeck(&["train", "--resume", &out("nowhere")]).fails(65, &["nowhere", "manifest.json"]);
}

#[test]
fn teacher_logits_from_a_file_teach_like_their_model() {
    let dir = tempfile::tempdir().unwrap();
    let model = nearest_mean(8000);
    let teacher = save(&dir, "teacher", &model);
    let layer = &model.layers[0];
    let logits = (0..500 * 10).flat_map(|k| {
        let (i, class) = (k / 10, k % 10);
        let weights = &layer.weight[class * 784..][..784];
        let products = weights.iter().zip(GLYPHS.train.images().image(i));
        let sum: f64 = products.map(|(&w, &x)| f64::from(w) * f64::from(x) / 255.0).sum();
        (sum + f64::from(layer.bias[class])).to_le_bytes()
    });
    let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (500, 10), }";
    let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    npy.extend(format!("{header:<117}\n").into_bytes());
    npy.extend(logits);
    fs::write(dir.path().join("t.npy"), &npy).unwrap();

    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let plain = tiny_config(&dir, "plain.toml", "");
    let named = tiny_config(&dir, "npy.toml", "[distillation]\nteacher_logits = \"t.npy\"\n");
    let errors = |args: &[&str]| limbeck(args).json()["test_errors"].as_i64().unwrap();
    let by_model =
        errors(&["distill", &plain, "--teacher", &teacher, "--json", "--out", &out("a")]);
    let by_file = errors(&["distill", &named, "--json", "--out", &out("b")]);
    assert!((by_model - by_file).abs() <= 20, "{by_model} {by_file}");

    limbeck(&["distill", &plain]).fails(2, &["--teacher", "teacher_logits"]);
    limbeck(&["distill", &named, "--teacher", &teacher]).fails(2, &["two teachers", "t.npy"]);
    fs::write(dir.path().join("t.npy"), &npy[..1000]).unwrap();
    limbeck(&["distill", &named]).fails(65, &["t.npy", "1000", "40128"]);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = |more: &str| {
        let config = tiny_config(&dir, "bad.toml", more);
        limbeck_in(dir.path(), &["train", &config])
    };
    run("learning_rate = -1\n").fails(65, &["bad.toml:10", "learning_rate", "-1"]);
    run("speed = 1\n").fails(65, &["bad.toml:10", "speed"]);
    run("[distillation]\ntemperature = 0\n").fails(65, &["bad.toml:11", "temperature", "0"]);
    run("learning_rate = 1e30\n").fails(76, &["diverged", "epoch 1", "learning rate"]);
    // The label of a mixture is that of its larger part, or it is not asked.
    for views in ["mix 0.2", "mix 0..1"] {
        let refused = run(&format!("[distillation]\nhard_weight = 0\nviews = [\"{views}\"]\n"));
        refused.fails(2, &["distillation.views", "fainter image", "λ of ½"]);
    }
    let taken = "[distillation]\nhard_weight = 0\nviews = [\"mix 0.5..1\"]\n";
    assert_eq!(run(taken).code, Some(0));
    limbeck(&["train", "none.toml"]).fails(74, &["none.toml"]);
    limbeck(&["train"]).fails(2, &["CONFIG"]);

    let config = tiny_config(&dir, "good.toml", "");
    fs::write(dir.path().join("file"), "").unwrap();
    let inside_a_file = dir.path().join("file/run");
    let refused = limbeck(&["train", &config, "--out", inside_a_file.to_str().unwrap()]);
    refused.fails(74, &["file/run", "Not a directory"]);
}

/// A configuration of IDX files of 4×4 images in two classes, dark and bright, with `more`
/// appended.
fn idx_config(dir: &TempDir, more: &str) -> String {
    for (split, n) in [("train", 40u8), ("test", 10)] {
        let mut images = [&[0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 4, 0, 0, 0, 4][..]].concat();
        images.extend((0..n).flat_map(|i| [i % 2 * 200 + 20; 16]));
        let mut labels = vec![0, 0, 8, 1, 0, 0, 0, n];
        labels.extend((0..n).map(|i| i % 2));
        fs::write(dir.path().join(format!("{split}-images")), images).unwrap();
        fs::write(dir.path().join(format!("{split}-labels")), labels).unwrap();
    }
    let path = dir.path().join("idx.toml");
    let text = format!(
        "[data]\ndataset = \"idx\"\nclasses = 2\n\
                train_images = \"train-images\"\ntrain_labels = \"train-labels\"\n\
                test_images = \"test-images\"\ntest_labels = \"test-labels\"\n\
                [model]\nlayers = [16, 4, 2]\n\
                [training]\nepochs = 20\nbatch_size = 10\n{more}"
    );
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_string()
}

/// A gzip stream of one stored block whose checksum is wrong.
fn corrupt_gzip(bytes: &mut Vec<u8>) {
    let length = bytes.len() as u16;
    let mut stream = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    stream.extend(length.to_le_bytes());
    stream.extend((!length).to_le_bytes());
    stream.append(bytes);
    stream.extend([0; 4]);
    stream.extend(u32::from(length).to_le_bytes());
    *bytes = stream;
}

#[test]
fn damaged_idx_files_are_refused_before_anything_is_written() {
    type Damage = fn(&mut Vec<u8>);
    let cases: [(&str, Damage, &[&str]); 7] = [
        ("train-images", |b| b.truncate(100), &["truncated", "found 100", "expected 656"]),
        ("train-images", |b| b[3] = 1, &["found magic number 0x00000801", "expected 0x00000803"]),
        ("train-labels", |b| b[2] = 9, &["found magic number 0x00000901", "expected 0x00000801"]),
        ("train-labels", |b| b[15] = 2, &["found label 2 at index 7 at offset 15", "0 to 1"]),
        (
            "train-labels",
            |b| {
                b[7] = 39;
                b.truncate(47);
            },
            &["found 40 images", "train-images", "39 labels", "expected equal counts"],
        ),
        ("test-images", |b| b.push(0), &["trailing bytes: found more than the 176"]),
        ("test-images", corrupt_gzip, &["corrupt gzip", "expected an intact gzip stream"]),
    ];
    for (name, damage, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let config = idx_config(&dir, "");
        let path = dir.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let refused = limbeck_in(dir.path(), &["train", &config, "--out", "run"]);
        refused.fails(65, &[&[name], expected].concat());
        assert_eq!(refused.stdout, "");
        assert!(!dir.path().join("run").exists(), "{name}");
    }
}

#[test]
fn an_unlabelled_transfer_set_is_distilled_and_needs_no_hard_weight() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| limbeck_in(dir.path(), args);
    let config = idx_config(&dir, "");
    let teacher = run(&["train", &config, "--json", "--out", "teacher"]).json();
    assert_eq!(teacher["test_errors"], 0, "the two classes are far apart");
    let teacher = format!("teacher/{}", teacher["model"].as_str().unwrap());

    let unlabelled = |weight: &str| {
        let config = idx_config(&dir, &format!("[distillation]\n{weight}"));
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("train_labels", "# train_labels")).unwrap();
        config
    };
    let config = unlabelled("hard_weight = 0");
    let student = run(&["distill", &config, "--teacher", &teacher, "--json", "--out", "student"]);
    assert!(student.stderr.contains("training errors –"), "{}", student.stderr);
    let student = student.json();
    assert_eq!(student["test_errors"], 0);
    assert!(student["train_errors"].is_null(), "{student}");
    let refused = run(&["train", &config, "--out", "refused"]);
    refused.fails(2, &["no labels"]);
    assert!(!dir.path().join("refused").exists());
    let config = unlabelled("");
    let refused = run(&["distill", &config, "--teacher", &teacher]);
    refused.fails(65, &["idx.toml", "hard_weight must be 0", "train_labels", "found 0.05"]);
}

#[test]
fn models_and_nets_that_do_not_fit_the_data_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| limbeck_in(dir.path(), args);
    let config = idx_config(&dir, "");
    let teacher = save(&dir, "wide.safetensors", &nearest_mean(100));
    let refused = run(&["distill", &config, "--teacher", &teacher, "--out", "run"]);
    refused.fails(65, &["wide.safetensors", "inputs of the model", "found 784", "expected 16"]);
    let classes = nearest_mean(100);
    let layer = Layer {
        inputs: 16,
        outputs: 10,
        weight: classes.layers[0].weight[..160].to_vec(),
        ..classes.layers[0].clone()
    };
    let teacher = save(&dir, "ten.safetensors", &ModelFile { layers: vec![layer], ..classes });
    let refused = run(&["distill", &config, "--teacher", &teacher, "--out", "run"]);
    refused.fails(65, &["ten.safetensors", "classes of the model", "found 10", "expected 2"]);
    // One that overflows, whether it is asked once or in each step.
    let layer = Layer { inputs: 16, outputs: 2, weight: vec![3e38; 32], bias: vec![0.0; 2] };
    let large =
        save(&dir, "large.safetensors", &ModelFile { layers: vec![layer], ..nearest_mean(100) });
    for views in ["", "views = [\"mask 0.2\"]\n"] {
        let config = idx_config(&dir, &format!("[distillation]\n{views}"));
        let refused = run(&["distill", &config, "--teacher", &large, "--out", "run"]);
        refused.fails(65, &["large.safetensors: training example 0", "NaN or infinity"]);
    }
    let config = idx_config(&dir, "");

    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("[16, 4, 2]", "[15, 4, 2]")).unwrap();
    let refused = run(&["train", &config, "--out", "run"]);
    refused.fails(65, &["idx.toml", "model.layers", "found 15", "expected 16"]);
    fs::write(&config, text.replace("epochs", "epoch")).unwrap();
    let refused = run(&["train", &config, "--out", "run"]);
    refused.fails(65, &["idx.toml:11", "unknown key `epoch`", "did you mean `epochs`?"]);
    assert!(!dir.path().join("run").exists());
}

#[test]
fn output_folders_that_cannot_be_written_are_refused_before_training() {
    let dir = tempfile::tempdir().unwrap();
    let config = idx_config(&dir, "");
    fs::create_dir(dir.path().join("run")).unwrap();
    fs::write(dir.path().join("run/models"), "").unwrap();
    let refused = limbeck_in(dir.path(), &["train", &config, "--out", "run"]);
    refused.fails(74, &["run/models", "File exists"]);
    assert_eq!(files(&dir.path().join("run")), ["models"]);
    if cfg!(target_os = "linux") {
        // Not even root makes a folder there.
        let refused = limbeck_in(dir.path(), &["train", &config, "--out", "/proc/limbeck"]);
        refused.fails(74, &["create the folder /proc/limbeck"]);
        let refused = limbeck_in(dir.path(), &["reproduce", "mnist", "--out", "/proc/limbeck"]);
        refused.fails(74, &["create the folder /proc/limbeck"]);
    }
}

/// A case of one example, z = (0, 0), v = (2, 0), T = 2, with this gradient of the first class.
fn check_case(dir: &TempDir, name: &str, gradient: f32) -> String {
    let tensors = [
        ("student_logits", vec![1, 2], vec![0.0f32, 0.0]),
        ("teacher_logits", vec![1, 2], vec![2.0, 0.0]),
        ("d_logits", vec![1, 2], vec![gradient, -gradient]),
    ];
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let data: Vec<Vec<u8>> = tensors.iter().map(|(_, _, values)| bytes(values)).collect();
    let views = tensors.iter().zip(&data).map(|((name, shape, _), data)| {
        (*name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap())
    });
    let path = dir.path().join(name);
    let metadata = HashMap::from([("temperature".to_string(), "2".to_string())]);
    safetensors::serialize_to_file(views, Some(metadata), &path).unwrap();
    path.to_str().unwrap().to_string()
}

#[test]
fn check_exits_0_only_on_agreement() {
    let dir = tempfile::tempdir().unwrap();
    // p₀ = 1/(1 + e⁻¹), and T·(q₀ − p₀) with q₀ = ½.
    let difference = 0.5 - 1.0 / (1.0 + (-1.0f32).exp());
    let right = limbeck(&["check", &check_case(&dir, "right", 2.0 * difference), "--json"]).json();
    assert_eq!((&right["verdict"], &right["variant"]), (&"agrees".into(), &Value::Null));
    assert!(right["max_relative_error"].as_f64().unwrap() < 1e-6, "{right}");
    assert!(right["message"].as_str().unwrap().contains("d_logits agrees"), "{right}");

    let wrong = check_case(&dir, "wrong", 0.5 * difference);
    let ended = limbeck(&["check", &wrong, "--json"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (&json["verdict"], &json["variant"]),
        (&"variant".into(), &"t_squared_missing".into())
    );
    assert!((json["max_relative_error"].as_f64().unwrap() - 0.75).abs() < 1e-6, "{json}");
    let ended = limbeck(&["check", &wrong]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("T²") && ended.stderr.contains("does not agree"));

    let ended = limbeck(&["check", &check_case(&dir, "other", 1.234), "--json"]);
    assert_eq!(ended.code, Some(1));
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&json["verdict"], &json["variant"]), (&"unknown".into(), &Value::Null));
    assert!(json["message"].as_str().unwrap().contains("d_logits[0, 0]"), "{json}");

    // A student that equals its teacher has no gradient, as has a program that does nothing.
    let equal = dir.path().join("equal.safetensors");
    let zero = [0u8; 8];
    let names = ["student_logits", "teacher_logits", "d_logits"];
    let views = names.map(|name| (name, TensorView::new(Dtype::F32, vec![1, 2], &zero).unwrap()));
    let metadata = HashMap::from([("temperature".to_string(), "2".to_string())]);
    safetensors::serialize_to_file(views, Some(metadata), &equal).unwrap();
    limbeck(&["check", equal.to_str().unwrap()]).fails(3, &["cannot tell"]);

    let list = limbeck(&["check", "--list", "--json"]).json();
    let mistakes = list["mistakes"].as_array().unwrap();
    let has = |key: &str| mistakes.iter().all(|m| !m[key].as_str().unwrap().is_empty());
    assert!(mistakes.len() > 30 && ["id", "says", "formula", "fix"].iter().all(|key| has(key)));
    let script = limbeck(&["check", "--template"]);
    assert!(script.stdout.contains("save_file(") && script.code == Some(0), "{}", script.stdout);
    limbeck(&["check", "--list", "--template"]).fails(2, &["cannot be used with"]);

    let text = dir.path().join("text");
    fs::write(&text, "not a case").unwrap();
    limbeck(&["check", "--npz", text.to_str().unwrap()]).fails(65, &["text", ".npz"]);
    limbeck(&["check", text.to_str().unwrap()]).fails(65, &["text", "a safetensors file"]);
    limbeck(&["check", "/nowhere"]).fails(74, &["/nowhere"]);
    limbeck(&["check"]).fails(2, &["CASE"]);
}
