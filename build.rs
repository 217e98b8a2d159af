//! Tells the program which commit it is built from and how, for `info`, manifests and `verify`.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let level = std::env::var("OPT_LEVEL").expect("Cargo sets OPT_LEVEL");
    println!("cargo::rustc-env=LIMBECK_OPT_LEVEL={level}");
    // A packaged source has no commit, and must not take that of a repository around it.
    if !Path::new(".git").exists() {
        return;
    }
    for changed in [".git/HEAD", ".git/logs/HEAD", "src", "kernels/src", "datasets/src"] {
        println!("cargo::rerun-if-changed={changed}");
    }
    let describe = ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"];
    let described = Command::new("git").env("GIT_OPTIONAL_LOCKS", "0").args(describe).output();
    if let Ok(output) = described
        && output.status.success()
    {
        let commit = String::from_utf8_lossy(&output.stdout);
        println!("cargo::rustc-env=LIMBECK_COMMIT={}", commit.trim());
    }
}
