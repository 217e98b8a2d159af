use std::fs;
use std::path::PathBuf;

use super::*;
use crate::files::digest::sha256_of;

fn parse(text: &str) -> Result<Config> {
    Config::from_toml(text, Path::new("/etc/limbeck/a.toml"))
}

fn refusal(text: &str) -> String {
    let error = parse(text).unwrap_err();
    assert_eq!(error.exit_code(), 65);
    error.to_string()
}

const DESIGN: &str = r#"
seed = 0
[data]
dataset = "mnist"
train_limit = 60000
jitter = 2
[model]
layers = [784, 1200, 1200, 10]
dropout = [0.2, 0.5, 0.5]
[training]
epochs = 200
batch_size = 128
learning_rate = 0.05
schedule = "cosine"
optimizer = "sgd"
momentum = 0.9
average = 0.0
max_norm = 3.5
weight_decay = 0.0
checkpoint_minutes = 5
[distillation]
temperature = 20.0
soft_weight = 1.0
hard_weight = 0.05
teacher_logits = "t.npy"
"#;

#[test]
fn the_documented_file_parses_and_resolves() {
    let config = parse(DESIGN).unwrap();
    assert_eq!(config.data.jitter, Some(2));
    assert_eq!(config.model.dropout, Some(vec![0.2, 0.5, 0.5]));
    assert_eq!(config.training.max_norm, Some(3.5));
    assert_eq!(config.training.checkpoint_minutes, 5.0);
    let logits = config.distillation.as_ref().unwrap().teacher_logits.clone();
    assert_eq!(logits, Some(PathBuf::from("/etc/limbeck/t.npy")));

    let resolved = config.to_toml().unwrap();
    assert!(resolved.contains("learning_rate = 0.05\n"), "{resolved}");
    assert!(resolved.contains("beta2 = 0.999\n"), "{resolved}");
    let again = Config::from_toml(&resolved, Path::new("/elsewhere/b.toml")).unwrap();
    assert_eq!(again, config);
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(parse("").unwrap(), Config::default());
    let table = parse("[distillation]").unwrap().distillation.unwrap();
    assert_eq!(table, DistillationConfig::default());
}

#[test]
fn an_infinite_temperature_survives() {
    let config = parse("[distillation]\ntemperature = inf").unwrap();
    assert_eq!(config.distillation.as_ref().unwrap().temperature, f64::INFINITY);
    assert_eq!(parse(&config.to_toml().unwrap()).unwrap(), config);
    assert!(refusal("[distillation]\ntemperature = -inf").contains("found -inf"));
    assert!(refusal("[distillation]\ntemperature = nan").contains("found NaN"));
}

#[test]
fn the_whole_range_of_seeds_survives() {
    let config = Config { seed: u64::MAX, ..Config::default() };
    assert_eq!(parse(&config.to_toml().unwrap()).unwrap(), config);
}

#[test]
fn every_enum_value_parses() {
    for name in ["constant", "exponential", "step", "linear", "cosine"] {
        parse(&format!("[training]\nschedule = \"{name}\"")).unwrap();
    }
    for name in ["sgd", "nesterov", "adam", "adamw", "hinton2012"] {
        parse(&format!("[training]\noptimizer = \"{name}\"")).unwrap();
    }
}

#[test]
fn unknown_names_get_the_nearest_known_one() {
    assert_eq!(
        refusal("[training]\nepochs = 3\nlearning_rat = 0.1\n"),
        "/etc/limbeck/a.toml:3: found the unknown key `learning_rat`; \
         did you mean `learning_rate`? Expected one of: epochs, batch_size, microbatches, \
         precision, learning_rate, schedule, optimizer, momentum, average, max_norm, early_stopping, weight_decay, \
         checkpoint_minutes, beta2, epsilon, momentum_epochs, decay, step_epochs, step_factor"
    );
    assert_eq!(
        refusal("\n\n[data]\ndataset = \"cifar\""),
        "/etc/limbeck/a.toml:4: found the unknown value `cifar`, in `dataset = \"cifar\"`. \
         Expected one of: mnist, glyphs, writers, frames, an4, idx, csv, npz"
    );
    assert!(refusal("[trainning]").contains("did you mean `training`?"));
}

#[test]
fn wrong_types_and_broken_syntax_name_the_line() {
    let message = refusal("seed = 1\n[training]\nepochs = \"many\"");
    assert!(message.starts_with("/etc/limbeck/a.toml:3: "), "{message}");
    assert!(
        message.contains("expected a whole number from 0 on, in `epochs = \"many\"`"),
        "{message}"
    );
    let message = refusal("seed = 1\n[training\nepochs = 2");
    assert!(message.starts_with("/etc/limbeck/a.toml:2: "), "{message}");
    assert!(refusal("seed = -1").contains("a.toml:1: "));
}

#[test]
fn values_out_of_range_name_line_key_range_and_value() {
    assert_eq!(
        refusal("[distillation]\nsoft_weight = 1.0\ntemperature = 0"),
        "/etc/limbeck/a.toml:3: distillation.temperature must be > 0 and finite, or inf \
         to match logits; found 0"
    );
    let cases = [
        ("[distillation]\ntemperature = -2.0", "found -2"),
        ("[distillation]\ntemperature = nan", "found NaN"),
        ("[distillation]\ntemperature = 1e-60", "> 0 and finite"),
        ("[distillation]\nsoft_weight = 0\nhard_weight = 0", "soft_weight must be > 0"),
        ("[distillation]\nhard_weight = -0.5", "hard_weight must be >= 0"),
        ("[model]\nlayers = [784]", "at least 2 sizes; found [784]"),
        ("[model]\nlayers = [784, 0, 10]", "sizes of 1 to 65536"),
        ("[model]\nlayers = [784, 65537, 10]", "sizes of 1 to 65536"),
        ("[model]\nlayers = [784, 65536, 65536, 10]", "parameters"),
        ("[model]\nlayers = [784, 30, 9]", "number of classes, 10"),
        ("[model]\nlayers = [783, 30, 10]", "starting with 784"),
        ("[model]\ndropout = [0.2, 0.5]", "3 values"),
        ("[model]\ndropout = [0.2, 0.5, 1.0]", "values in [0, 1)"),
        ("[model]\ndropout = [0.2, 0.5, 0.999999999999]", "values in [0, 1)"),
        ("[model]\ninit_scale = 0", "init_scale must be > 0"),
        ("[training]\nepochs = 0", "epochs must be 1 to 1000000; found 0"),
        ("[training]\nbatch_size = 0", "1 to 65536; found 0"),
        ("[training]\nbatch_size = 65537", "1 to 65536; found 65537"),
        ("[training]\nlearning_rate = 0", "learning_rate must be > 0"),
        ("[training]\nlearning_rate = 1e39", "learning_rate must be > 0 and finite"),
        ("[training]\nmomentum = 1.0", "momentum must be in [0, 1); found 1"),
        ("[training]\naverage = -0.1", "average must be in [0, 1)"),
        ("[training]\nmax_norm = 0", "max_norm must be > 0"),
        ("[training]\nweight_decay = -1", "weight_decay must be >= 0"),
        ("[training]\ncheckpoint_minutes = 0", "checkpoint_minutes must be > 0"),
        ("[training]\nbeta2 = 1", "beta2 must be in [0, 1)"),
        ("[distillation]\ntemperature = 1e-39", "temperature must be so large that 1/T"),
        ("[training]\nepsilon = 0", "epsilon must be >= 1e-10"),
        ("[training]\nmomentum_epochs = 0", "momentum_epochs must be 1"),
        ("[training]\ndecay = 1.5", "decay must be in (0, 1]"),
        ("[training]\nstep_epochs = 0", "step_epochs must be 1"),
        ("[training]\nstep_factor = 0", "step_factor must be in (0, 1]"),
        (
            "[training]\noptimizer = \"adam\"\nschedule = \"hinton2012\"",
            "optimizer must be \"sgd\"",
        ),
        ("[data]\njitter = 14", "jitter must be 0 to 13 pixels; found 14"),
        ("[data]\ntrain_limit = 0", "train_limit must be at least 1"),
        ("[data]\nholdout = 0", "holdout must be a number of examples, or a share"),
        ("[data]\nholdout = 1.0", "found 1"),
        ("[data]\nvalidation = -0.1", "validation must be a number of examples, or a share"),
        ("[data]\nstandardize = \"yes\"", "expected \"auto\", \"mean\", true or false"),
        ("[training]\nearly_stopping = 5", "early_stopping must be absent without data.validation"),
        ("[data]\nvalidation = 0.1\n[training]\nearly_stopping = 0", "must be 1 to 1000000"),
        ("[data]\nclasses = 12", "classes must be 10"),
        ("[data]\ndataset = \"frames\"\nclasses = 1", "classes must be 2 to 65536; found 1"),
        ("[data]\ndataset = \"frames\"\n[model]\nlayers = [784, 10]", "starting with 1040"),
        (
            "[data]\ndataset = \"glyphs\"\ntrain_images = \"x\"",
            "absent unless data.dataset is \"idx\"",
        ),
        ("[model]\nlayers = [784, 30, 0]", "sizes of 1 to 65536; without `layers`"),
        ("[model]\nhidden = [30, 0]", "sizes of 1 to 65536; found [784, 30, 0, 10]"),
        ("[model]\nlayers = [784, 10]\nhidden = [30]", "hidden must be absent beside model.layers"),
        ("[data]\narrays = \"a\"\nclasses = 0", "classes must be 2 to 65536, or absent"),
        ("[data]\narrays = \"a\"\nlabel_column = 1", "label_column must be absent unless"),
        ("[data]\nignore_columns = [\"a\"]", "absent unless data.dataset is \"csv\""),
        ("[data]\ndrop_incomplete_rows = true", "absent unless data.dataset is \"csv\""),
        ("[data]\nlabel_column = 1.5", "its name in quotes, or its place from 0 on"),
        ("[distillation]\nteacher_logits = \"a\"\nteacher_probs = \"b\"", "absent beside"),
    ];
    for (text, expected) in cases {
        let message = refusal(text);
        assert!(message.contains(expected), "{text}: {message}");
        assert!(!message.starts_with("/etc/limbeck/a.toml: "), "no line: {message}");
    }
}

#[test]
fn idx_needs_its_files() {
    let idx = |rest: &str| format!("[data]\ndataset = \"idx\"\n{rest}");
    assert!(refusal(&idx("")).contains("data.train_images must be a path"));
    assert!(refusal(&idx("train_images = \"a\"")).contains("data.test_images must be"));
    assert!(
        refusal(&idx("train_images = \"a\"\nholdout = 5")).contains("data.train_labels must be")
    );
    let unlabelled = idx("train_images = \"a\"\ntest_images = \"b\"\ntest_labels = \"c\"\n");
    let config = parse(&unlabelled).unwrap();
    assert_eq!(config.data.train_images, Some("/etc/limbeck/a".into()));
    assert_eq!(config.data.train_labels, None);
    assert!(refusal(&format!("{unlabelled}[distillation]")).contains("hard_weight must be 0"));
    parse(&format!("{unlabelled}[distillation]\nhard_weight = 0")).unwrap();
}

#[test]
fn the_writers_classes_are_as_known_as_the_digits() {
    let writers = parse("[data]\ndataset = \"writers\"\n[model]\nhidden = [32]").unwrap();
    assert_eq!((writers.data.classes, &writers.model.layers[..]), (360, &[784, 32, 360][..]));
    let writers = parse("[data]\ndataset = \"writers\"").unwrap();
    assert_eq!(writers.model.layers, [784, 1200, 1200, 360]);
}

#[test]
fn weights_to_start_from_are_not_scaled() {
    let scaled = "[model]\ninitial = \"m\"\ninit_scale = 0.3";
    assert!(refusal(scaled).contains("init_scale must be 1 or absent beside model.initial"));
}

#[test]
fn tables_and_arrays_need_their_files() {
    let csv = |rest: &str| format!("[data]\ndataset = \"csv\"\n{rest}");
    assert!(refusal(&csv("")).contains("data.train_table must be a path"));
    assert!(refusal(&csv("train_table = \"a\"")).contains("data.test_table must be"));
    let config = parse(&csv("train_table = \"a\"\nholdout = 5")).unwrap();
    assert_eq!(config.data.train_table, Some("/etc/limbeck/a".into()));
    assert!(refusal(&csv("arrays = \"a\"")).contains(":3: data.arrays must be absent"));

    let npz = |rest: &str| format!("[data]\ndataset = \"npz\"\n{rest}");
    assert!(refusal(&npz("")).contains("data.arrays must be a path"));
    let config = parse(&npz("arrays = \"a.npz\"\nclasses = 3\n[model]\nlayers = [7, 3]"));
    assert_eq!(config.unwrap().data.arrays, Some("/etc/limbeck/a.npz".into()));
    assert!(refusal(&npz("label_column = \"y\"")).contains("unless data.dataset is \"csv\""));
    assert!(refusal(&npz("arrays = \"a\"\nclasses = 65537")).contains("2 to 65536"));
}

#[test]
fn the_data_tell_what_the_configuration_leaves_out() {
    let config = |text: &str| parse(text).unwrap();
    let kind = |text: &str| config(&format!("[data]\n{text}")).data.dataset;
    assert_eq!(kind("train_table = \"a\"\ntest_table = \"b\""), DatasetKind::Csv);
    assert_eq!(kind("arrays = \"a\""), DatasetKind::Npz);
    assert_eq!(
        kind("train_images = \"a\"\ntest_images = \"b\"\ntest_labels = \"c\""),
        DatasetKind::Idx
    );
    assert!(refusal("[data]\narrays = \"a\"\ntrain_table = \"b\"").contains("absent unless"));

    let open = |rest: &str| config(&format!("[data]\narrays = \"a\"\n{rest}"));
    let completed = |mut config: Config, inputs, classes| {
        config.complete(inputs, classes, None).map(|()| (config.model.layers, config.data.classes))
    };
    assert_eq!(completed(open("[model]\nhidden = [8, 9]"), 4, 3), Ok((vec![4, 8, 9, 3], 3)));
    assert_eq!(completed(open("[model]\nhidden = []"), 4, 3), Ok((vec![4, 3], 3)));
    assert_eq!(completed(open(""), 4, 3), Ok((vec![4, 1200, 1200, 3], 3)));
    let known = open("classes = 5\n[model]\nhidden = [8]");
    assert_eq!((&known.model.layers[..], known.data.classes), (&[0, 8, 5][..], 5));
    // As layers say, which earlier versions compared with a default of 10.
    assert_eq!(open("[model]\nlayers = [4, 8, 10]").data.classes, 10);
    let wide = open("[model]\nhidden = [60000]");
    assert!(completed(wide, 60_000, 3).unwrap_err().contains("parameters"));
    // Of a known data set at once.
    let glyphs = config("[data]\ndataset = \"glyphs\"\n[model]\nhidden = [30]");
    assert_eq!(glyphs.model.layers, [784, 30, 10]);

    // A model to start from brings its widths.
    let mut initial = open("[model]\ninitial = \"m.safetensors\"\ndropout = [0.1, 0.2]");
    assert_eq!(initial.model.initial, Some("/etc/limbeck/m.safetensors".into()));
    initial.complete(4, 3, Some(&[4, 7, 3])).unwrap();
    assert_eq!((&initial.model.layers[..], initial.data.classes), (&[4, 7, 3][..], 3));
    let other = open("[model]\ninitial = \"m\"").complete(4, 3, Some(&[4, 7, 2]));
    assert!(other.unwrap_err().contains("number of classes, 3"));
    // What is kept is complete.
    let mut named = config(
        "[data]\ntrain_table = \"a\"\nholdout = 5\nlabel_column = -1\nignore_columns = [\"id\", 0]\n\
         [model]\nhidden = [8]",
    );
    named.complete(4, 3, None).unwrap();
    let text = named.to_toml().unwrap();
    assert!(text.contains("label_column = -1\nignore_columns = [\"id\", 0]\n"), "{text}");
    assert!(
        text.contains("layers = [\n    4,\n    8,\n    3,\n]")
            || text.contains("layers = [4, 8, 3]")
    );
    assert_eq!(parse(&text).unwrap(), named);
}

/// The keys that earlier versions wrote, and hashed, are written as then.
#[test]
fn own_data_are_kept_in_the_words_of_earlier_versions() {
    let text = "[data]\ntrain_table = \"/t.csv\"\nholdout = 5\nlabel_column = \"y\"\nclasses = 3\n\
                [model]\nlayers = [4, 8, 3]\n[distillation]\nteacher_logits = \"/t.npy\"";
    let text = parse(text).unwrap().to_first_toml().unwrap();
    let data = "seed = 0\n\n[data]\ndataset = \"csv\"\nholdout = 5\ntrain_table = \"/t.csv\"\n\
                label_column = \"y\"\nclasses = 3\n\n[model]\nlayers = [4, 8, 3]\ninit_scale = 1.0\n\n\
                [training]\n";
    assert!(text.starts_with(data), "{text}");
    let soft = "[distillation]\ntemperature = 20.0\nsoft_weight = 1.0\nhard_weight = 0.05\n\
                teacher_logits = \"/t.npy\"\n";
    assert!(text.ends_with(soft), "{text}");
}

#[test]
fn in_memory_violations_are_usage_errors() {
    let mut config = Config::default();
    config.validate().unwrap();
    config.training.epochs = 0;
    assert_eq!(config.validate().unwrap_err().exit_code(), 2);
}

#[test]
fn examples_in_memory_may_have_any_size() {
    let mut config = Config::default();
    config.model.layers = vec![5, 4, 3];
    config.validate_in_memory(5).unwrap();
    let refusal =
        |config: &Config, inputs| config.validate_in_memory(inputs).unwrap_err().to_string();
    assert!(refusal(&config, 6).contains("starting with 6"));
    config.data.jitter = Some(14);
    assert!(refusal(&config, 5).contains("found 14"));
}

#[test]
fn files_that_are_not_text_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    assert_eq!(Config::load(&path).unwrap_err().exit_code(), 74);
    fs::write(&path, b"seed = 1\n\xff").unwrap();
    let message = Config::load(&path).unwrap_err().to_string();
    assert!(message.contains("a.toml:2: found byte 0xff at offset 9"), "{message}");
    fs::write(&path, b"seed = 7").unwrap();
    assert_eq!(Config::load(&path).unwrap().seed, 7);
}

#[test]
fn old_names_stay_valid() {
    let parted = parse("[training]\nshards = 4").unwrap();
    assert_eq!(parted, parse("[training]\nmicrobatches = 4").unwrap());
    assert!(parted.to_toml().unwrap().contains("\nmicrobatches = 4\n"));
    let keywords = "[training]\nshards = 2\nschedule = \"hinton2012\"";
    assert_eq!(Config::from_text(keywords).unwrap(), parse(keywords).unwrap());
    assert!(refusal("[training]\nshards = 3").contains("microbatches must be a power of two"));
    assert!(refusal("[training]\nshards = 4\nmicrobatches = 4").contains("its old name, shards"));

    let hinton = parse("[training]\noptimizer = \"hinton2012\"\nschedule = \"exponential\"");
    let hinton = hinton.unwrap();
    for old in ["", "optimizer = \"sgd\"", "optimizer = \"hinton2012\""] {
        let text = format!("[training]\nschedule = \"hinton2012\"\n{old}");
        assert_eq!(parse(&text).unwrap(), hinton);
    }
    assert!(hinton.to_toml().unwrap().contains("optimizer = \"hinton2012\"\n"));
    assert_eq!(parse(&hinton.to_toml().unwrap()).unwrap(), hinton);
}

/// Against the `config.toml` that the version before these names wrote, and hashed.
#[test]
fn runs_of_earlier_versions_are_known_by_the_same_hash() {
    let known = [
        ("", "6a904c051deb96f149f34c99d582f97342937e1d6dc12233b28d36d4792186d6"),
        ("microbatches = 4", "397e3d50e99d8d451090cf7d71259a323e870f83c29f628a5204db9a9a3d3a9d"),
        (
            "optimizer = \"adam\"\nlearning_rate = 0.002",
            "853b5670b5883bf24a8cb20c7f44f75058c523d6387df4735862fcff7265d715",
        ),
        (
            "optimizer = \"hinton2012\"\nschedule = \"exponential\"\nmomentum_epochs = 2",
            "fe484b6f64a97579d4defb1dba89bc08f18257ef73435faebc315f38c2bc8504",
        ),
        (
            "microbatches = 4\noptimizer = \"hinton2012\"\nschedule = \"exponential\"",
            "dd1139188383ae242a7f8f28b17c1d0c9557ff0f910739b0c4558d671a0cb239",
        ),
    ];
    for (keys, sha256) in known {
        let rate = if keys.contains("learning_rate") { "" } else { "learning_rate = 0.1" };
        let text = format!(
            "seed = 3\n[data]\ndataset = \"glyphs\"\ntrain_limit = 500\n[model]\nlayers = [784, 12, \
             10]\ndropout = [0.1, 0.2]\n[training]\nepochs = 2\nbatch_size = 32\n{rate}\n{keys}"
        );
        let config = parse(&text).unwrap();
        assert_eq!(sha256_of([config.to_first_toml().unwrap()]), sha256, "{keys}");
        // What the absence of later keys meant is the same run.
        let kept = config.kept_by_a_run();
        assert_eq!(kept.data.split, Some(SplitKind::Last));
        assert_eq!(sha256_of([kept.to_first_toml().unwrap()]), sha256, "{keys}");
    }
}

#[test]
fn a_run_keeps_what_its_absent_keys_meant_and_a_file_of_ones_own_leaves_them_open() {
    let folder = tempfile::tempdir().unwrap();
    let [config, manifest] = ["config.toml", "manifest.json"].map(|name| folder.path().join(name));
    std::fs::write(&config, "seed = 1\n").unwrap();
    assert_eq!(Config::load(&config).unwrap().data.standardize, None);
    std::fs::write(&manifest, "{}").unwrap();
    let kept = Config::load(&config).unwrap().data;
    assert_eq!((kept.standardize, kept.split), (Some(Standardize::Off), Some(SplitKind::Last)));
    for (text, value) in [("true", Standardize::On), ("\"auto\"", Standardize::Auto)] {
        let config = parse(&format!("[data]\nstandardize = {text}")).unwrap();
        assert_eq!(config.data.standardize, Some(value));
        assert_eq!(parse(&config.to_toml().unwrap()).unwrap(), config);
    }
    let share = parse("[data]\nholdout = 0.25\nvalidation = 12").unwrap();
    assert_eq!(share.data.holdout.map(|amount| amount.of(150)), Some(38));
    assert_eq!(share.data.validation.map(|amount| amount.of(150)), Some(12));
    assert_eq!(parse(&share.to_toml().unwrap()).unwrap(), share);
}
