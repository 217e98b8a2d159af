//! What a run leaves behind: its folder and who may write there, the manifest, the summary, and the
//! statistics behind its claims.

use limbeck::engine::loss::LossSpec;
use limbeck::run::folder::RunFolder;
use limbeck::run::manifest::{Manifest, shell_line, utc};
use limbeck::run::statistics::{
    Difference, MeanInterval, mcnemar, mcnemar_p, mean, paired_bootstrap, sample_sd,
    wilson_interval,
};
use limbeck::run::summary::{Row, Summary, Table};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn run_folders_are_made_once_and_reopened() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("deep/run");
    assert_eq!(RunFolder::open(&out).unwrap_err().exit_code(), 65);
    let run = RunFolder::create(&out).unwrap();
    assert_eq!(names(&out), [".lock", "checkpoints", "models"]);
    drop(run);
    let run = RunFolder::create(&out).unwrap();
    run.write_json("manifest.json", &1).unwrap();
    assert_eq!(RunFolder::create(&out).unwrap_err().exit_code(), 2);
    drop(run);
    let run = RunFolder::open(&out).unwrap();

    run.append_metrics(&BTreeMap::from([("epoch", 1)])).unwrap();
    run.append_metrics(&BTreeMap::from([("epoch", 2)])).unwrap();
    assert_eq!(fs::read_to_string(run.metrics()).unwrap(), "{\"epoch\":1}\n{\"epoch\":2}\n");
}

#[test]
fn a_run_has_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(folder.path()).unwrap();
    run.write_json("manifest.json", &1).unwrap();
    let clone = run.clone();
    drop(run);
    let error = RunFolder::open(folder.path()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    for part in [&*folder.path().to_string_lossy(), &std::process::id().to_string()] {
        assert!(error.to_string().contains(part), "{error}");
    }
    drop(clone);
    RunFolder::open(folder.path()).unwrap();
}

#[test]
fn only_the_temporary_files_of_dead_processes_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let run = RunFolder::create(root).unwrap();
    run.write_json("manifest.json", &1).unwrap();
    let model = run.checkpoints().join("net-0");
    fs::create_dir(&model).unwrap();
    let orphans = [&root.to_path_buf(), &run.models(), &run.checkpoints(), &model]
        .map(|at| at.join(".a.b.tar.4711.tmp"));
    let others = [".tmp", ".a.tmp", "a.1.tmp", ".a.x1.tmp", ".a.1.tmp2"];
    let others = others.map(|name| model.join(name));
    for path in orphans.iter().chain(&others) {
        fs::write(path, "half").unwrap();
    }
    drop(run);
    RunFolder::open(root).unwrap();
    assert!(!orphans.iter().any(|path| path.exists()));
    assert!(others.iter().all(|path| path.exists()));
}

#[test]
fn processes_that_share_a_run_lock_its_models_and_keep_others_out() {
    let folder = tempfile::tempdir().unwrap();
    let orphan = folder.path().join(".summary.json.4711.tmp");
    fs::write(&orphan, "half").unwrap();
    let one = RunFolder::share(folder.path()).unwrap();
    assert!(!orphan.exists());
    fs::write(&orphan, "being written").unwrap();
    let two = RunFolder::share(folder.path()).unwrap();
    assert!(orphan.exists());

    let lock = one.try_lock("net-0").unwrap().expect("free");
    assert!(two.try_lock("net-0").unwrap().is_none());
    let other = two.try_lock("net-1").unwrap().expect("free");
    drop(lock);
    drop(two.try_lock("net-0").unwrap().expect("free again"));
    drop(other);

    let error = RunFolder::create(folder.path()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    drop((one, two));
    let own = RunFolder::create(folder.path()).unwrap();
    assert_eq!(RunFolder::share(folder.path()).unwrap_err().exit_code(), 2);
    // Nobody to share with: everything is free, and nothing is written.
    let locks = [own.try_lock("net-2").unwrap(), own.try_lock("net-2").unwrap()];
    assert!(locks.iter().all(Option::is_some));
    assert!(!own.checkpoints().join(".net-2.lock").exists());
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = RunFolder::create(&file.join("run")).unwrap_err();
    assert_eq!(error.exit_code(), 74);
    assert!(error.to_string().contains("file/run"), "{error}");
}

#[test]
fn words_are_quoted_where_a_shell_would_split_them() {
    let words = ["runs/a-1.2", "", "my runs", "it's", "$HOME"].map(str::to_string);
    assert_eq!(shell_line(&words), r"runs/a-1.2 '' 'my runs' 'it'\''s' '$HOME'");
}

#[test]
fn dates_agree_with_the_calendar() {
    // Seconds and dates from `date -u -d @SECONDS`.
    let known = [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399, "2000-02-28T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (951_868_800, "2000-03-01T00:00:00Z"),
        (1_425_945_599, "2015-03-09T23:59:59Z"),
        (1_704_067_199, "2023-12-31T23:59:59Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
    ];
    for (seconds, date) in known {
        assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), date);
    }
}

#[test]
fn manifests_hold_the_loss_contract() {
    let mut manifest = Manifest::new(vec!["limbeck".into()], None, "avx2", 2);
    manifest.loss_contract =
        Some(LossSpec { temperature: 20.0, soft_weight: 1.0, hard_weight: 0.05 });
    let json = serde_json::to_value(&manifest).unwrap();
    assert_eq!(json["program"], "limbeck");
    assert_eq!(json["loss_contract"]["t_squared"], true);
    assert_eq!(json["loss_contract"]["temperature"], 20.0);
    let limit = serde_json::to_value(LossSpec {
        temperature: f32::INFINITY,
        soft_weight: 1.0,
        hard_weight: 0.0,
    })
    .unwrap();
    assert_eq!(limit["temperature"], "inf");
    assert!(json["cores"].as_u64().unwrap() >= 1);
    assert!(!json["cpu"].as_str().unwrap().is_empty());
    assert!(json.get("config").is_none());
}

#[test]
fn summaries_aggregate_by_variant_and_keep_their_order() {
    let row = |variant: &str, seed, test_errors| Row {
        variant: variant.into(),
        seed,
        test_errors,
        train_errors: None,
        seconds: 1.5,
        model: format!("models/{variant}-{seed}.safetensors"),
        sha256: "00".into(),
        chosen_on: None,
        test_nll: None,
        epochs: Some(3),
        samples_per_second: None,
        misclassified: Vec::new(),
        measures: BTreeMap::new(),
    };
    let rows = vec![
        row("teacher", 0, 67),
        row("baseline", 0, 140),
        row("baseline", 1, 150),
        row("baseline", 2, 160),
    ];
    let summary = Summary::new("mnist", "mnist", "quick", rows, &[("teacher", 67)]);
    assert_eq!(summary.variants(), ["teacher", "baseline"]);
    let teacher = summary.aggregate["teacher"];
    assert_eq!((teacher.n, teacher.mean, teacher.sd), (1, 67.0, None));
    let baseline = summary.aggregate["baseline"];
    assert_eq!((baseline.n, baseline.mean, baseline.sd), (3, 150.0, Some(10.0)));

    let json = serde_json::to_string(&summary).unwrap();
    assert!(json.contains(r#""teacher":{"n":1,"mean":67.0,"sd":null}"#), "{json}");
    assert!(json.contains(r#""paper":{"teacher":67}"#), "{json}");
    assert_eq!(serde_json::from_str::<Summary>(&json).unwrap(), summary);
}

/// A rate of the speech table, whose last digit an inexact reader of decimals changes.
#[test]
fn figures_survive_being_read_and_written() {
    let rate = 16.0 / 43.0;
    let json = serde_json::to_string(&rate).unwrap();
    assert_eq!(serde_json::from_str::<f64>(&json).unwrap().to_bits(), f64::to_bits(rate));
}

#[test]
fn tables_align_for_people() {
    let mut table = Table::new("Errors", &["", "ours", "paper"]);
    table.push(["teacher".into(), "7".into(), "67".into()]);
    table.push(["net".into(), "146 ± 2".into(), "–".into()]);
    table.note("A note.");
    let text = "Errors\n            ours  paper\nteacher        7     67\n\
                net      146 ± 2      –\nA note.\n";
    assert_eq!(table.to_string(), text);
}

#[test]
fn mean_and_standard_deviation() {
    assert_eq!(mean(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]), 5.0);
    // Squared deviations 9 + 1 + 1 + 1 + 0 + 0 + 4 + 16 = 32, over 7.
    let sd = sample_sd(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
    assert!((sd * sd - 32.0 / 7.0).abs() < 1e-14);
    assert_eq!(sample_sd(&[3.0]), None);
    assert_eq!(sample_sd(&[3.0, 3.0]), Some(0.0));
}

#[test]
fn the_first_is_better_only_beyond_chance() {
    // 2/2⁷ and 2/2⁸.
    assert!(!mcnemar(&[], &[1, 2, 3, 4, 5, 6, 7]).first_is_better());
    assert!(mcnemar(&[], &[1, 2, 3, 4, 5, 6, 7, 8]).first_is_better());
    assert!(!mcnemar(&[1, 2, 3, 4, 5, 6, 7, 8], &[]).first_is_better());
}

#[test]
fn mcnemar_agrees_with_counting() {
    // 2·(1 + 12 + 66)/2¹²
    assert!((mcnemar_p(10, 2) - 158.0 / 4096.0).abs() < 1e-15);
    assert_eq!(mcnemar_p(2, 10), mcnemar_p(10, 2));
    assert!((mcnemar_p(0, 5) - 2.0 / 32.0).abs() < 1e-15);
    assert_eq!(mcnemar_p(0, 0), 1.0);
    assert_eq!(mcnemar_p(7, 7), 1.0);
    // Every split of up to 60 discordant examples against Pascal's triangle in integers.
    let mut pascal = vec![1u64];
    for n in 0..=60usize {
        for b in 0..=n {
            let tail: u64 = pascal[..=b.min(n - b)].iter().sum();
            let expected = (2.0 * tail as f64 / (n as f64).exp2()).min(1.0);
            let p = mcnemar_p(b, n - b);
            assert!((p - expected).abs() <= 1e-13 * expected, "{n} {b}: {p} {expected}");
        }
        let next = (1..pascal.len()).map(|k| pascal[k - 1] + pascal[k]);
        pascal = std::iter::once(1).chain(next).chain([1]).collect();
    }
}

#[test]
fn mcnemar_survives_many_examples() {
    // Far beyond the range of 2¹⁰²⁴; expected values from exact integer arithmetic.
    let exact = [(4900, 5100, 0.046_585_527_704_947_39), (4500, 5500, 1.551_064_056_824_604_2e-23)];
    for (b, c, expected) in exact {
        let p = mcnemar_p(b, c);
        assert!((p / expected - 1.0).abs() < 1e-10, "{p} {expected}");
    }
    assert_eq!(mcnemar_p(0, 100_000), 0.0);
}

#[test]
fn mcnemar_counts_discordant_examples() {
    let test = mcnemar(&[1, 2, 3, 8], &[2, 9]);
    assert_eq!((test.only_first, test.only_second), (3, 1));
    assert_eq!(test.p_value, mcnemar_p(3, 1));
    assert_eq!(mcnemar(&[], &[]).p_value, 1.0);
}

/// Against printed tables of Student's distribution.
#[test]
fn intervals_of_means_are_students() {
    let quantiles = [
        (2, 12.706205),
        (3, 4.302653),
        (4, 3.182446),
        (5, 2.776445),
        (10, 2.262157),
        (11, 2.228139),
        (31, 2.042272),
        (101, 1.983972),
    ];
    for (n, t) in quantiles {
        // Mean 7, and n − 1 times the variance is n − 1.
        let half = ((n - 1) as f64 / (n - n % 2) as f64).sqrt();
        let values: Vec<f64> = (0..n)
            .map(|i| if i == n - 1 && n % 2 == 1 { 7.0 } else { 7.0 + half * [1.0, -1.0][i % 2] })
            .collect();
        let MeanInterval { mean, low, high } = MeanInterval::of(&values).unwrap();
        let want = t / (n as f64).sqrt();
        assert!((mean - 7.0).abs() < 1e-12);
        assert!((high - mean - want).abs() < 1e-6 && (mean - low - want).abs() < 1e-6, "{n}");
    }
    assert_eq!([MeanInterval::of(&[]), MeanInterval::of(&[1.0])], [None, None]);
}

#[test]
fn wilson_ends_solve_the_score_equation() {
    for (errors, examples) in [(1, 10), (74, 10_000), (500, 1000), (9, 10)] {
        let n = examples as f64;
        let rate = errors as f64 / n;
        let (low, high) = wilson_interval(errors, examples);
        assert!(low < rate && rate < high);
        for p in [low, high] {
            let z = (rate - p).abs() / (p * (1.0 - p) / n).sqrt();
            assert!((z - 1.959_964).abs() < 1e-6, "{errors}/{examples}: {z}");
        }
    }
    // Without errors the ends are 0 and z²/(n + z²), up to rounding.
    let (low, high) = wilson_interval(0, 50);
    assert!((0.0..1e-15).contains(&low));
    assert!((high - 0.071_347_6).abs() < 1e-6, "{high}");
    assert_eq!(wilson_interval(50, 50).1, 1.0);
    assert_eq!(wilson_interval(0, 0), (0.0, 1.0));
}

#[test]
fn bootstrap_of_many_clusters_is_normal() {
    // Correlated systems over clusters of 1 to 20 examples.
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut unit = || f64::from(rng.next_u32() >> 8) / f64::from(1u32 << 24);
    let weights: Vec<f64> = (0..2000).map(|_| 1.0 + (20.0 * unit()).floor()).collect();
    let first: Vec<f64> = weights.iter().map(|weight| weight * unit()).collect();
    let mut gain: Vec<f64> = weights.iter().map(|weight| weight * (unit() - 0.5)).collect();
    let total: f64 = weights.iter().sum();
    // The linearised variance of a ratio: Σ (dᵢ − D·wᵢ)²/(Σ w)².
    let d = gain.iter().sum::<f64>() / total;
    let squares = gain.iter().zip(&weights).map(|(gain, weight)| (gain - d * weight).powi(2));
    let se = squares.sum::<f64>().sqrt() / total;
    // Moves D to one standard error above 0; the residuals stay.
    gain.iter_mut().zip(&weights).for_each(|(gain, weight)| *gain += (se - d) * weight);
    let second = [first.iter().zip(&gain).map(|(first, gain)| first + gain).collect()];
    let first = [first];

    const REPLICATES: usize = 20_000;
    let outcome = paired_bootstrap(&first, &second, &weights, REPLICATES, 7);
    assert!((outcome.difference - se).abs() < 1e-12);
    // Five standard errors of a quantile, √(q(1 − q)/n)/φ(1.96), and as much as 1/√2000 for
    // what a linearised ratio neglects.
    let n = REPLICATES as f64;
    let slack = 5.0 * (0.025f64 * 0.975 / n).sqrt() / 0.058_45 + 2000f64.sqrt().recip();
    for (found, expected) in [(outcome.low, 1.0 - 1.96), (outcome.high, 1.0 + 1.96)] {
        let found = found / se;
        assert!((found - expected).abs() < slack, "{found} {expected}, slack {slack}");
    }
    // Φ(−1), with the same allowance.
    let share = outcome.share_below_zero;
    let slack = 5.0 * (0.1587f64 * 0.8413 / n).sqrt() + 0.242 * 2000f64.sqrt().recip();
    assert!((share - 0.158_655).abs() < slack, "{share}");

    assert_eq!(outcome, paired_bootstrap(&first, &second, &weights, REPLICATES, 7));
    assert_ne!(outcome, paired_bootstrap(&first, &second, &weights, REPLICATES, 8));
}

#[test]
fn bootstrap_of_nets_and_clusters_adds_their_variances() {
    // Counts are a sum of a net's share and a cluster's: D has three independent parts, of
    // variances s²/R for the R nets of each system and Σ (d − D)²/n² for n clusters. Many nets make
    // each part close to normal.
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut unit = || f64::from(rng.next_u32() >> 8) / f64::from(1u32 << 24) - 0.5;
    let mut draws = |n: usize, size: f64| (0..n).map(|_| size * unit()).collect::<Vec<f64>>();
    let (firsts, seconds) = (draws(40, 3.0), draws(30, 2.0));
    let (level, gain) = (draws(400, 50.0), draws(400, 9.0));
    let variance = |values: &[f64]| sample_sd(values).unwrap().powi(2) / values.len() as f64;
    let se = (variance(&firsts) + variance(&seconds) + variance(&gain)).sqrt();
    // No part is negligible: without it the interval would be narrower by more than the allowance.
    for part in [&firsts, &seconds, &gain] {
        assert!((1.0 - variance(part) / se.powi(2)).sqrt() < 0.93, "{se}");
    }
    let first: Vec<Vec<f64>> =
        firsts.iter().map(|net| level.iter().map(|u| u + net).collect()).collect();
    let with_gain = || level.iter().zip(&gain).map(|(u, gain)| u + gain);
    let second: Vec<Vec<f64>> =
        seconds.iter().map(|net| with_gain().map(|u| u + net).collect()).collect();
    let outcome = paired_bootstrap(&first, &second, &[1.0; 400], 20_000, 1);
    let d = mean(&seconds) + mean(&gain) - mean(&firsts);
    assert!((outcome.difference - d).abs() < 1e-9);
    // Five standard errors of a quantile are 0.094 of se, see above; and 0.03 for what is not normal
    // in the means of thirty.
    for (found, expected) in [(outcome.low, -1.96), (outcome.high, 1.96)] {
        let found = (found - d) / se;
        assert!((found - expected).abs() < 0.125, "{found} {expected}");
    }
}

/// All values of D for two nets against one on two clusters, each as likely as another: of two
/// nets one is drawn, of two clusters two.
#[test]
fn bootstrap_of_nets_is_that_of_all_draws() {
    let (first, second) = ([vec![4.0, 1.0], vec![2.0, 0.0]], [vec![3.0, 3.0]]);
    let weights = [1.0, 3.0];
    let mut all = Vec::new();
    for net in &first {
        for drawn in [[0, 0], [0, 1], [1, 0], [1, 1]] {
            let difference: f64 = drawn.iter().map(|&u| second[0][u] - net[u]).sum();
            all.push(difference / drawn.iter().map(|&u| weights[u]).sum::<f64>());
        }
    }
    // −1, ¼, ¼, ⅔, then 1, 1, 1, 1: one draw of eight is below 0.
    let below = all.iter().filter(|&&d| d < 0.0).count() as f64 / all.len() as f64;
    let (low, high) = all.iter().fold((f64::MAX, f64::MIN), |(l, h), &d| (l.min(d), h.max(d)));
    let outcome = paired_bootstrap(&first, &second, &weights, 10_000, 0);
    // (3 − 3 + 3 − ½)/4.
    assert_eq!((outcome.difference, outcome.low, outcome.high), (0.625, low, high));
    // Five times √(7/64/10,000).
    assert!((outcome.share_below_zero - below).abs() < 0.017, "{outcome:?} {below}");
}

#[test]
fn bootstrap_of_two_clusters_by_hand() {
    // Differences −1 and 3: drawn twice −1 with probability 1/4, twice 3 as often.
    let (first, second) = ([vec![4.0, 0.0]], [vec![3.0, 3.0]]);
    let outcome = paired_bootstrap(&first, &second, &[1.0, 1.0], 10_000, 0);
    assert_eq!((outcome.difference, outcome.low, outcome.high), (1.0, -1.0, 3.0));
    // Five times √(3/16/10,000).
    assert!((outcome.share_below_zero - 0.25).abs() < 0.022, "{outcome:?}");
    // The weight counts: (3 − 1)/(1 + 3).
    assert_eq!(paired_bootstrap(&first, &second, &[1.0, 3.0], 1, 0).difference, 0.5);
    // One cluster leaves no doubt, and no difference is not below 0.
    let same = [vec![2.0]];
    let none = Difference { difference: 0.0, low: 0.0, high: 0.0, share_below_zero: 0.0 };
    assert_eq!(paired_bootstrap(&same, &same, &[5.0], 3, 1), none);
}
