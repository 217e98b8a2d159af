//! The program as a process that is started, watched and told to end.

use serde_json::Value;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_limbeck");

/// Only what hangs takes so long, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(600);

/// With no settings from the environment.
pub fn program(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    clean(command.args(args));
    command
}

/// Takes the settings from a command that starts the program, and keeps what it says.
pub fn clean(command: &mut Command) {
    command.env_remove("LIMBECK_DATA").env_remove("LIMBECK_ISA");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The SHA-256 that a run which succeeds prints.
#[track_caller]
pub fn sha256(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["sha256"].as_str().unwrap().to_string()
}

#[track_caller]
pub fn wait_for(what: &str, mut until: impl FnMut() -> bool) {
    let start = Instant::now();
    while !until() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

pub fn signal(child: &Child, name: &str) {
    let kill = format!("kill -s {name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}
