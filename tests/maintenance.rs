//! The pages that maintainers make from committed results.

#[path = "../examples/claims.rs"]
#[allow(dead_code, reason = "its main")]
mod claims;
#[path = "../examples/fault_injection.rs"]
#[allow(dead_code, reason = "its main")]
mod fault_injection;

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn results() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results")
}

#[test]
fn the_claims_page_tells_what_the_summaries_hold() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let summary = |claims: Value| {
        json!({
            "experiment": "temperature", "dataset": "mnist", "preset": "standard",
            "rows": [], "aggregate": {}, "paper": {},
            "tables": [{ "title": "by T", "columns": ["T"], "rows": [["2.5"]], "notes": ["seeds"] }],
            "claims": claims,
        })
        .to_string()
    };
    let claim = json!({ "paper": "T matters", "ours": "it does", "verdict": "reproduced" });
    write("all/temperature/summary.json", &summary(json!([claim])));
    write("all/temperature/curve.svg", "<svg/>");
    let command = |seeds: &str| {
        let words = ["limbeck", "reproduce", "all", "--out", "here", "--threads=2", "--json"];
        json!([&words[..], &["--worker", "3", "--member=1", "--seeds", seeds]].concat())
    };
    let manifest = json!({ "command": command("1"), "continued": [{ "command": command("2") }] });
    write("all/temperature/manifest.json", &manifest.to_string());
    // None of them has a claim that was judged.
    let trial = json!({ "paper": "T matters", "ours": "in a trial", "verdict": "not_judged" });
    write("trial/summary.json", &summary(json!([trial])));
    write("quiet/summary.json", &summary(json!([])));
    write("verify/summary.json", &json!({ "cases": 1 }).to_string());

    let page = claims::page(root.path()).unwrap();
    let folder = "all/temperature";
    for part in [
        &format!("| T matters | it does | **reproduced** | [{folder}]({folder}) |")[..],
        "by T",
        "| 2.5 |",
        &format!("![curve.svg]({folder}/curve.svg)"),
        // The last command, without what leaves the figures as they are.
        "\n`limbeck reproduce all --seeds 2`\n",
    ] {
        assert!(page.contains(part), "{part:?} not in {page}");
    }
    assert!(["quiet", "verify", "trial"].iter().all(|name| !page.contains(name)), "{page}");

    write("all/temperature/summary.json", "{\"experiment\": 1}");
    let refused = claims::page(root.path()).unwrap_err();
    assert_eq!(refused.exit_code(), 65);
    assert!(refused.to_string().contains("summary.json"), "{refused}");
}

/// The committed page is that of the committed summaries, and leaves out none of their claims that were judged.
#[test]
fn the_committed_claims_page_is_up_to_date() {
    let root = results();
    let page = claims::page(&root).unwrap();
    assert_eq!(page, fs::read_to_string(root.join("README.md")).unwrap());

    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        // What lies in the folder of a run belongs to it, and is no result beside it.
        let Ok(summary) = fs::read_to_string(folder.join("summary.json")) else {
            let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            folders.extend(entries.filter(|path| path.is_dir()));
            continue;
        };
        let summary: Value = serde_json::from_str(&summary).unwrap();
        for claim in summary["claims"].as_array().into_iter().flatten() {
            let ours = claim["ours"].as_str().unwrap();
            let is_judged = claim["verdict"] != "not_judged";
            assert!(!is_judged || page.contains(ours), "{}: {claim}", folder.display());
        }
    }
}

#[test]
fn the_committed_page_of_injected_faults_is_up_to_date() {
    let page = fault_injection::page(&results().join("fault-injection")).unwrap();
    assert_eq!(page, fs::read_to_string(results().join("fault-injection.md")).unwrap());

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.json"), "{}").unwrap();
    let refused = fault_injection::page(folder.path()).unwrap_err();
    assert_eq!(refused.exit_code(), 65);
    assert!(refused.to_string().contains("a.json"), "{refused}");
}
