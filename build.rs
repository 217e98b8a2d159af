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
    for changed in ["src", "kernels/src", "datasets/src"] {
        println!("cargo::rerun-if-changed={changed}");
    }
    // In a worktree they lie outside of .git, and a path that does not exist would make every build anew.
    for changed in git(&["rev-parse", "--git-path", "HEAD", "--git-path", "logs/HEAD"]).lines() {
        println!("cargo::rerun-if-changed={changed}");
    }
    let commit = git(&["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]);
    if !commit.is_empty() {
        println!("cargo::rustc-env=LIMBECK_COMMIT={}", commit.trim());
    }
}

/// What git prints; nothing where it fails.
fn git(arguments: &[&str]) -> String {
    let output = Command::new("git").env("GIT_OPTIONAL_LOCKS", "0").args(arguments).output();
    let printed = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    String::from_utf8_lossy(&printed.unwrap_or_default()).into_owned()
}
