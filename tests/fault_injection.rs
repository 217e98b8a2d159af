//! Nothing is lost: the program is interrupted, killed, and refused by the operating system, and
//! goes on to the bits of the run that nothing happened to.
//!
//! Here are short forms. `LIMBECK_KILLS` sets the number of kills; with `LIMBECK_FINDINGS` the
//! findings are written to that folder, from which `examples/fault_injection.rs` makes a page. The tests that are
//! ignored take minutes: see each.

#![cfg(all(unix, feature = "cli"))]

mod common;

use common::finding::Finding;
use common::program::{PROGRAM, clean, program, sha256, signal, stderr, wait_for};
use common::{best, required::is_required};
use limbeck::engine::config::{Config, TrainingConfig};
use limbeck::engine::trainer::{self, EpochRecord, Observer, Progress, Task};
use limbeck::files::checkpoint;
use limbeck_datasets::glyphs;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;
use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A folder with data of its own and a run in it.
struct Place {
    folder: TempDir,
}

impl Place {
    /// 200 images of noise in three classes, and a net with everything that a checkpoint keeps: a
    /// hundredth of a second from start to first step. A checkpoint after each step if `minutes`
    /// is tiny.
    fn new(epochs: usize, minutes: f64) -> Place {
        let folder = tempfile::tempdir().unwrap();
        // Others may have to enter.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (split, n) in [("train", 200u8), ("test", 30)] {
            let mut images = [&[0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 8, 0, 0, 0, 8][..]].concat();
            images.extend((0..usize::from(n) * 64).map(|_| rng.next_u32() as u8));
            let mut labels = vec![0, 0, 8, 1, 0, 0, 0, n];
            labels.extend((0..n).map(|i| i % 3));
            fs::write(folder.path().join(format!("{split}-images")), images).unwrap();
            fs::write(folder.path().join(format!("{split}-labels")), labels).unwrap();
        }
        let text = format!(
            "[data]\ndataset = \"idx\"\nclasses = 3\njitter = 1\n\
             train_images = \"train-images\"\ntrain_labels = \"train-labels\"\n\
             test_images = \"test-images\"\ntest_labels = \"test-labels\"\n\
             [model]\nlayers = [64, 128, 64, 3]\ndropout = [0.1, 0.2, 0.2]\n\
             [training]\nepochs = {epochs}\nbatch_size = 20\noptimizer = \"adam\"\n\
             learning_rate = 0.001\naverage = 0.9\nmax_norm = 3.0\n\
             checkpoint_minutes = {minutes}\n"
        );
        fs::write(folder.path().join("config.toml"), text).unwrap();
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self) -> PathBuf {
        self.path("run")
    }

    fn checkpoints(&self) -> PathBuf {
        self.run().join("checkpoints/model-0")
    }

    /// The run from its beginning.
    fn train(&self, out: &Path) -> Command {
        let (config, out) = (self.path("config.toml"), out.to_str().unwrap().to_string());
        let args = ["train", config.to_str().unwrap(), "--json", "--threads", "1", "--out", &out];
        program(&args)
    }

    /// What a user would type next: the run from where it is.
    fn go_on(&self) -> Command {
        let run = self.run();
        if !run.join("manifest.json").exists() {
            return self.train(&run);
        }
        program(&["train", "--json", "--threads", "1", "--resume", run.to_str().unwrap()])
    }

    /// The SHA-256 of the model of a run that nothing happens to.
    fn undisturbed(&self) -> String {
        sha256(&self.train(&self.path("undisturbed")).output().unwrap())
    }

    /// Epoch and step of the newest checkpoint, which must be intact.
    fn position(&self) -> Option<(u64, u64)> {
        let latest = checkpoint::latest(&self.checkpoints()).unwrap()?;
        assert_eq!(latest.warnings, [""; 0]);
        Some((latest.state.epoch, latest.state.step))
    }

    fn begun(&self) -> bool {
        fs::read_dir(self.checkpoints()).is_ok_and(|mut files| {
            files.any(|file| file.unwrap().path().extension().is_some_and(|e| e == "safetensors"))
        })
    }
}

/// The temporary files anywhere below `folder`.
fn temporaries(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        // A file may go while it is looked at.
        let Ok(path) = entry.map(|entry| entry.path()) else { continue };
        if path.is_dir() {
            found.extend(temporaries(&path));
        } else if path.extension().is_some_and(|ending| ending == "tmp") {
            found.push(path);
        }
    }
    found
}

/// What the run that `start` begins in `run` says when the signal `name` ends it after its first epoch.
/// On a loaded machine the whole run may be over before the signal comes: then it is run again.
fn interrupted(run: &Path, name: &str, start: impl Fn() -> Command) -> Output {
    for _ in 0..100 {
        let child = start().spawn().unwrap();
        wait_for("the first epoch", || {
            fs::metadata(run.join("metrics.jsonl")).is_ok_and(|file| file.len() > 0)
        });
        signal(&child, name);
        let ended = child.wait_with_output().unwrap();
        if ended.status.code() != Some(0) {
            return ended;
        }
        fs::remove_dir_all(run).unwrap();
    }
    panic!("{} ended before {name} came, a hundred times", run.display());
}

/// Runs the command that the program named when it was interrupted.
fn named_command(interrupted: &Output) -> Output {
    assert_eq!(interrupted.status.code(), Some(75), "{}", stderr(interrupted));
    let message = stderr(interrupted);
    let named = message.trim().rsplit_once("continue with: limbeck ").expect("a command").1;
    let line = format!("\"$0\" {named} --json");
    let mut shell = Command::new("sh");
    shell.args(["-c", &line, PROGRAM]).env_remove("LIMBECK_DATA").env_remove("LIMBECK_ISA");
    shell.output().unwrap()
}

#[test]
fn each_signal_ends_the_run_with_a_checkpoint_and_the_command_that_goes_on() {
    let place = Place::new(300, 5.0);
    let expected = place.undisturbed();
    let model = place.path("undisturbed/models/model-0.safetensors");
    for name in ["INT", "TERM", "HUP", "USR1", "USR2", "XCPU"] {
        let run = place.path(&format!("a run's {name}"));
        let ended = interrupted(&run, name, || place.train(&run));
        assert_eq!(fs::read_dir(run.join("checkpoints/model-0")).unwrap().count(), 1);
        assert_eq!(sha256(&named_command(&ended)), expected);
        let lines = fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().count();
        assert_eq!(lines, 300);
    }

    // A student needs its teacher again.
    let text = fs::read_to_string(place.path("config.toml")).unwrap();
    fs::write(place.path("student.toml"), text).unwrap();
    let (config, model) = (place.path("student.toml"), model.to_str().unwrap());
    let distill = |out: &Path| {
        let args = ["distill", config.to_str().unwrap(), "--json", "--teacher", model, "--out"];
        program(&[&args[..], &[out.to_str().unwrap()]].concat())
    };
    let expected = sha256(&distill(&place.path("student")).output().unwrap());
    let run = place.path("interrupted");
    let ended = interrupted(&run, "TERM", || distill(&run));
    assert_eq!(sha256(&named_command(&ended)), expected);
}

/// System and SHA-256 of each row of an experiment.
fn rows(run: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(run.join("summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let rows = summary["rows"].as_array().unwrap().iter();
    rows.map(|row| (text(&row["variant"]), text(&row["sha256"]))).collect()
}

fn reproduce(out: &Path) -> Command {
    let out = out.to_str().unwrap();
    program(&["reproduce", "mnist", "--preset", "smoke", "--quiet", "--out", out])
}

#[test]
fn an_interrupted_experiment_goes_on_with_the_command_that_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, run) = (folder.path().join("whole"), folder.path().join("run"));
    assert_eq!(reproduce(&whole).output().unwrap().status.code(), Some(0));
    let mut ended = reproduce(&run).spawn().unwrap();
    wait_for("the first model", || run.join("summary.json").exists());
    signal(&ended, "TERM");
    let code = ended.wait().unwrap().code();
    assert_eq!(code, Some(75));
    let done = named_command(&ended.wait_with_output().unwrap());
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert_eq!(rows(&run), rows(&whole));
}

/// The signals that wait for a process to take them, as a bit set; 0 where Linux does not tell.
fn pending_signals(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    mask.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).expect("a mask in hexadecimal"))
}

#[test]
fn a_hangup_that_the_caller_has_ignored_stays_ignored() {
    let place = Place::new(300, 5.0);
    let (config, run) = (place.path("config.toml"), place.run());
    let mut shell = Command::new("sh");
    let ignored = "trap '' HUP; exec \"$0\" train \"$1\" --json --out \"$2\"";
    clean(shell.args(["-c", ignored, PROGRAM]).arg(config).arg(&run));
    let child = shell.spawn().unwrap();
    wait_for("the first epoch", || run.join("metrics.jsonl").exists());
    signal(&child, "HUP");
    assert_eq!(sha256(&child.wait_with_output().unwrap()), place.undisturbed());
}

/// A run is stopped, and folder and data are moved: together, apart, and apart for good.
#[test]
fn a_run_that_is_moved_goes_on() {
    let expected = Place::new(300, 5.0).undisturbed();
    let resume = |run: &Path, data: Option<&Path>| {
        let mut command =
            program(&["train", "--json", "--threads", "1", "--resume", run.to_str().unwrap()]);
        command.args(data.map(|folder| format!("--data={}", folder.display())));
        command.output().unwrap()
    };
    for way in ["together", "apart", "apart for good"] {
        let place = Place::new(300, 5.0);
        let elsewhere = tempfile::tempdir().unwrap();
        let (old, new) = (place.path("project"), elsewhere.path().join("here"));
        fs::create_dir(&old).unwrap();
        let names = ["config.toml", "train-images", "train-labels", "test-images", "test-labels"];
        for name in names {
            fs::rename(place.path(name), old.join(name)).unwrap();
        }
        let args = ["train", "config.toml", "--threads", "1", "--out", "runs/a"];
        let ended = interrupted(&old.join("runs/a"), "TERM", || {
            let mut command = program(&args);
            command.current_dir(&old);
            command
        });
        assert_eq!(ended.status.code(), Some(75));
        let (run, data) = match way {
            "together" => {
                fs::rename(&old, &new).unwrap();
                (new.join("runs/a"), None)
            }
            "apart" => {
                fs::rename(old.join("runs/a"), &new).unwrap();
                (new, None)
            }
            _ => {
                fs::rename(old.join("runs/a"), &new).unwrap();
                let data = place.path("renamed");
                fs::rename(&old, &data).unwrap();
                let lost = resume(&new, None);
                assert_eq!(lost.status.code(), Some(74));
                assert!(stderr(&lost).contains("train_images: give its folder as --data DIR"));
                (new, Some(data))
            }
        };
        // Other data are refused by name.
        if let Some(data) = &data {
            let path = data.join("test-labels");
            let labels = fs::read(&path).unwrap();
            let mut changed = labels.clone();
            changed[8] ^= 1;
            fs::write(&path, changed).unwrap();
            let refused = resume(&run, Some(data));
            assert_eq!(refused.status.code(), Some(65));
            let message = stderr(&refused);
            assert!(message.contains("test-labels") && !message.contains("images"), "{message}");
            fs::write(&path, labels).unwrap();
        }
        assert_eq!(sha256(&resume(&run, data.as_deref())), expected, "{way}");
    }
}

#[test]
fn a_second_interrupt_ends_the_program_in_the_middle_of_a_step() {
    let place = Place::new(1, 5.0);
    // Steps of ten billion operations.
    let text = fs::read_to_string(place.path("config.toml")).unwrap();
    let text = text.replace("[64, 128, 64, 3]", "[64, 3000, 3000, 3]").replace("= 20\n", "= 200\n");
    fs::write(place.path("config.toml"), text).unwrap();
    let mut command = place.train(&place.run());
    let mut child = command.args(["--isa", "portable"]).spawn().unwrap();
    wait_for("the first step", || place.checkpoints().exists());
    signal(&child, "INT");
    // Two signals of a kind that wait together are one.
    wait_for("the first signal's handling", || pending_signals(&child) == 0);
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert_eq!(fs::read_dir(place.checkpoints()).unwrap().count(), 0);
    assert_eq!(temporaries(&place.run()), [] as [PathBuf; 0]);
}

#[test]
fn a_run_in_progress_is_not_taken_by_another_process() {
    let place = Place::new(1_000_000, 5.0);
    let mut first = place.train(&place.run()).spawn().unwrap();
    wait_for("the first epoch", || place.run().join("metrics.jsonl").exists());
    let second = place.go_on().output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    let (message, id) = (stderr(&second), first.id().to_string());
    assert!(message.contains(place.run().to_str().unwrap()) && message.contains(&id), "{message}");
    // The lock goes with its process.
    first.kill().unwrap();
    first.wait().unwrap();
    let mut third = place.go_on().spawn().unwrap();
    wait_for("a new holder", || {
        let holder = fs::read_to_string(place.run().join(".lock")).unwrap();
        holder.trim() == third.id().to_string()
    });
    third.kill().unwrap();
    third.wait().unwrap();
}

/// Checks that the run failed on I/O, saying so, and left an intact checkpoint and nothing else.
#[track_caller]
fn ended_on_io(place: &Place, ended: &Output, reason: &str) {
    let message = stderr(ended);
    assert_eq!(ended.status.code(), Some(74), "{message}");
    assert!(message.contains("error: cannot") && message.contains(reason), "{message}");
    assert!(place.position().is_some(), "no checkpoint is left");
    assert_eq!(temporaries(&place.run()), [] as [PathBuf; 0]);
}

/// A file system of `kib` KiB in `at`, while it lives.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Where this process may mount one.
    fn mount(at: &Path, kib: usize) -> Option<SmallDisk> {
        fs::create_dir(at).unwrap();
        let size = format!("size={kib}k");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "limbeck-test"])
            .arg(at)
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| SmallDisk { at: at.to_path_buf() })
    }

    fn grow(&self, kib: usize) {
        let size = format!("remount,size={kib}k");
        let grown = Command::new("mount").args(["-o", &size]).arg(&self.at).status();
        assert!(grown.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
    }
}

#[test]
fn a_full_disk_ends_the_run_and_takes_no_checkpoint_with_it() {
    let place = Place::new(5, 1e-9);
    let expected = place.undisturbed();
    // A checkpoint has four arrays of 17 thousand values, 270 KiB: two fit, a third does not.
    let Some(disk) = SmallDisk::mount(&place.run(), 700) else {
        eprintln!("skipped: this process may not mount a file system");
        return;
    };
    let ended = place.train(&place.run()).output().unwrap();
    ended_on_io(&place, &ended, "No space left");
    disk.grow(64 << 10);
    assert_eq!(sha256(&place.go_on().output().unwrap()), expected);
}

#[test]
fn a_file_that_may_not_grow_ends_the_run() {
    let place = Place::new(2, 1e-9);
    let (config, run) = (place.path("config.toml"), place.run());
    // 64 or 128 KiB by the shell's unit, less than a checkpoint.
    let limited = "ulimit -f 128; exec \"$0\" train \"$1\" --out \"$2\"";
    let mut shell = Command::new("sh");
    let ended = shell.args(["-c", limited, PROGRAM]).arg(config).arg(run).output().unwrap();
    let message = stderr(&ended);
    assert_eq!(ended.status.code(), Some(74), "{message}");
    assert!(message.contains("checkpoint-000000-000001.safetensors"), "{message}");
    assert!(message.contains("File too large"), "{message}");
    assert_eq!(temporaries(&place.run()), [] as [PathBuf; 0]);
    assert_eq!(sha256(&place.go_on().output().unwrap()), place.undisturbed());
}

#[test]
fn a_folder_that_turns_read_only_ends_the_run() {
    let place = Place::new(1_000_000, 1e-4);
    let run = place.run();
    fs::create_dir(&run).unwrap();
    let mut command = place.train(&run);
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        // Root may write everywhere: let nobody train, with a program that nobody can reach.
        let nobody = 65_534;
        chown(&run, Some(nobody), Some(nobody)).unwrap();
        let reachable = place.path("limbeck");
        fs::copy(PROGRAM, &reachable).unwrap();
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        command = Command::new(reachable);
        command.args(args).env_remove("LIMBECK_DATA").env_remove("LIMBECK_ISA");
        command.stdout(Stdio::null()).stderr(Stdio::piped()).uid(nobody).gid(nobody);
    }
    let child = command.spawn().unwrap();
    wait_for("a checkpoint", || place.begun());
    fs::set_permissions(place.checkpoints(), Permissions::from_mode(0o555)).unwrap();
    let ended = child.wait_with_output().unwrap();
    fs::set_permissions(place.checkpoints(), Permissions::from_mode(0o755)).unwrap();
    ended_on_io(&place, &ended, "Permission denied");
}

#[test]
fn a_run_whose_folder_vanishes_says_so() {
    let place = Place::new(1_000_000, 1e-4);
    let child = place.train(&place.run()).spawn().unwrap();
    wait_for("a checkpoint", || place.begun());
    // A checkpoint may be written while the files go.
    wait_for("an empty place", || fs::remove_dir_all(place.run()).is_ok() || !place.run().exists());
    let ended = child.wait_with_output().unwrap();
    let message = stderr(&ended);
    assert_eq!(ended.status.code(), Some(74), "{message}");
    assert!(message.contains(place.run().to_str().unwrap()), "{message}");
    assert!(!place.run().exists());
}

/// Kills that are still to come, and what they did.
struct Killer {
    rng: ChaCha8Rng,
    left: u64,
    in_checkpoint: u64,
    half_written: u64,
}

impl Killer {
    fn new(kills: u64) -> Killer {
        let rng = ChaCha8Rng::seed_from_u64(kills);
        Killer { rng, left: kills, in_checkpoint: 0, half_written: 0 }
    }

    /// Kills `command` after at most `longest`; every other time not before a temporary file is
    /// seen in `run`. Its output if it ended before.
    fn kill(&mut self, mut command: Command, run: &Path, longest: Duration) -> Option<Output> {
        let mut child = command.spawn().unwrap();
        let wait = longest.mul_f64(f64::from(self.rng.next_u32()) / f64::from(u32::MAX));
        let aimed = self.left % 2 == 1;
        let start = Instant::now();
        while start.elapsed() < wait || aimed && temporaries(run).is_empty() {
            if child.try_wait().unwrap().is_some() {
                return Some(child.wait_with_output().unwrap());
            }
        }
        child.kill().unwrap();
        let ended = child.wait_with_output().unwrap();
        if ended.status.code().is_some() {
            return Some(ended);
        }
        self.left -= 1;
        self.in_checkpoint += u64::from(aimed);
        self.half_written += u64::from(!temporaries(run).is_empty());
        None
    }
}

/// Long form: `LIMBECK_KILLS=1000 LIMBECK_FINDINGS=results/fault-injection cargo test --test fault_injection kill`.
#[test]
fn no_kill_loses_work_or_changes_a_bit() {
    let kills: u64 = env::var("LIMBECK_KILLS").map_or(20, |n| n.parse().unwrap());
    let mut killer = Killer::new(kills);
    let (mut failures, mut runs, mut models) = (Vec::new(), 0, 0);

    // Models, with a checkpoint after every step.
    let place = Place::new(3, 1e-9);
    let expected = place.undisturbed();
    let few = kills.div_ceil(5);
    while killer.left > few {
        let _ = fs::remove_dir_all(place.run());
        let (mut position, mut ended) = (None, None);
        while killer.left > few && ended.is_none() {
            ended = killer.kill(place.go_on(), &place.run(), Duration::from_millis(200));
            let finished = place.run().join("summary.json").exists();
            if !finished && ended.is_none() && place.position() < position {
                failures.push(format!("{:?} after {position:?}", place.position()));
            }
            position = place.position();
            if finished {
                break;
            }
        }
        if !place.run().join("summary.json").exists() {
            ended = Some(place.go_on().output().unwrap());
        }
        if let Some(ended) = ended.filter(|ended| ended.status.code() != Some(0)) {
            failures.push(stderr(&ended));
        } else if rows(&place.run()) != [("model".to_string(), expected.clone())] {
            failures.push(format!("{:?}, expected {expected}", rows(&place.run())));
        }
        runs += 1;
        models += 1;
    }

    // An experiment of four models, without checkpoints in between.
    let folder = tempfile::tempdir().unwrap();
    let (whole, run) = (folder.path().join("whole"), folder.path().join("run"));
    assert_eq!(reproduce(&whole).output().unwrap().status.code(), Some(0));
    while killer.left > 0 {
        let _ = fs::remove_dir_all(&run);
        let mut ended = None;
        while killer.left > 0 && ended.is_none() {
            ended = killer.kill(reproduce(&run), &run, Duration::from_millis(1500));
        }
        let ended = ended.unwrap_or_else(|| reproduce(&run).output().unwrap());
        if ended.status.code() != Some(0) {
            failures.push(stderr(&ended));
        } else if rows(&run) != rows(&whole) {
            failures.push(format!("{:?}, expected {:?}", rows(&run), rows(&whole)));
        }
        runs += 1;
        models += 4;
    }

    let Killer { in_checkpoint, half_written, .. } = killer;
    let figure = format!(
        "{in_checkpoint} kills while a file was written, {half_written} of all left it half \
         written; {models} models of {runs} runs ended with the bits of undisturbed ones, and no \
         checkpoint was older than before the kill"
    );
    let what = "kill −9 at random times, half of them while a file is written; then resume";
    let command = format!(
        "LIMBECK_KILLS={kills} LIMBECK_FINDINGS=results/fault-injection cargo test --test fault_injection kill"
    );
    Finding::new(what, kills, failures.len() as u64, figure, &command).report("kills");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What fails, in what way, and how many of it the short form steps over.
const FAULTS: [(&str, &str, usize); 11] = [
    ("openat", "EMFILE", 17),
    ("read", "EIO", 17),
    ("write", "ENOSPC", 17),
    ("fsync", "EIO", 7),
    ("rename", "EACCES", 1),
    ("mkdir", "ENOSPC", 1),
    ("unlink", "EIO", 1),
    ("unlinkat", "EIO", 1),
    ("ftruncate", "EIO", 1),
    ("flock", "ENOLCK", 1),
    ("getdents64", "EIO", 17),
];

/// Lets the `n`-th `call` of the program fail; none if it does not come so far.
fn with_fault(command: &Command, (call, error, n): (&str, &str, usize)) -> Option<Output> {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-e", &format!("trace={call}"), "-o"]).arg(log.path());
    traced.args(["-e", &format!("inject={call}:error={error}:when={n}")]);
    traced.arg(command.get_program()).args(command.get_args());
    let ended = traced.env_remove("LIMBECK_DATA").env_remove("LIMBECK_ISA").output().unwrap();
    fs::read_to_string(log.path()).unwrap().contains("(INJECTED)").then_some(ended)
}

/// Long form: `LIMBECK_FAULTS=all LIMBECK_FINDINGS=results/fault-injection cargo test --test fault_injection fail`.
#[test]
fn whichever_operation_fails_nothing_is_lost() {
    let strace = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !strace.is_ok_and(|status| status.success()) {
        assert!(!is_required("strace"), "no strace, but LIMBECK_REQUIRE asks for it");
        eprintln!("skipped: no strace, or it may not trace");
        return;
    }
    let all = env::var_os("LIMBECK_FAULTS").is_some();
    let place = Place::new(1, 1e-9);
    let text = fs::read_to_string(place.path("config.toml")).unwrap();
    fs::write(place.path("config.toml"), text.replace("= 20\n", "= 100\n")).unwrap();
    let expected = [("model".to_string(), place.undisturbed())];
    let (mut count, mut reported, mut failures) = (0, 0, Vec::new());
    for resumed in [false, true] {
        for (call, error, stride) in FAULTS {
            for n in (1..).step_by(if all { 1 } else { stride }) {
                let _ = fs::remove_dir_all(place.run());
                if resumed {
                    // After configuration, manifest and the first checkpoint.
                    with_fault(&place.go_on(), ("rename", "EIO", 4)).expect("four renames");
                    assert!(place.begun());
                }
                let Some(ended) = with_fault(&place.go_on(), (call, error, n)) else { break };
                count += 1;
                let mut fail = |what: &str| {
                    let message = stderr(&ended);
                    let code = ended.status.code();
                    failures
                        .push(format!("{call} {n}, resumed {resumed}: {what} {code:?} {message}"));
                };
                let message = stderr(&ended);
                match ended.status.code() {
                    Some(0) => {}
                    Some(74) if message.contains("error: ") && !message.contains("bug") => {
                        reported += 1
                    }
                    // The system cannot even start the program.
                    Some(127) if message.contains("shared libraries") => {}
                    _ => fail("unclean end"),
                }
                if !place.run().join("summary.json").exists() {
                    let second = place.go_on().output().unwrap();
                    if second.status.code() != Some(0) {
                        fail(&format!("then {}", stderr(&second)));
                        continue;
                    }
                    if !temporaries(&place.run()).is_empty() {
                        fail("temporaries are left");
                    }
                }
                if rows(&place.run()) != expected {
                    fail("other bits");
                }
            }
        }
    }
    let figure = format!(
        "{reported} ended with code 74 and a message, the others needed the operation only for \
         something else; all models have the bits of an undisturbed run"
    );
    let calls = FAULTS.map(|(call, ..)| call).join(", ");
    let what = format!("{calls}: the first, second, third … fails, in a new run and a resumed one");
    let command = "LIMBECK_FAULTS=all LIMBECK_FINDINGS=results/fault-injection cargo test --test fault_injection fail";
    Finding::new(&what, count, failures.len() as u64, figure, command).report("faults");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Of a process, in bytes.
fn resident(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

/// `LIMBECK_SOAK_MINUTES=60 LIMBECK_FINDINGS=results/fault-injection cargo test --test fault_injection soak -- --ignored`
#[test]
#[ignore = "takes LIMBECK_SOAK_MINUTES, 2 if absent; reads /proc"]
fn soak() {
    let minutes: f64 = env::var("LIMBECK_SOAK_MINUTES").map_or(2.0, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (config, run) = (folder.path().join("config.toml"), folder.path().join("run"));
    let text = "[data]\ndataset = \"glyphs\"\njitter = 2\n\
                [model]\nlayers = [784, 400, 400, 10]\ndropout = [0.2, 0.5, 0.5]\n\
                [training]\nepochs = 1000000\naverage = 0.99\nmax_norm = 3.5\n\
                checkpoint_minutes = 0.2\n";
    fs::write(&config, text).unwrap();
    let args = ["train", config.to_str().unwrap(), "--quiet", "--out", run.to_str().unwrap()];
    let child = program(&args).spawn().unwrap();
    wait_for("the first epoch", || run.join("metrics.jsonl").exists());

    // A sample for each hundredth of the time.
    let mut memory = Vec::new();
    for _ in 0..100 {
        std::thread::sleep(Duration::from_secs_f64(minutes * 0.6));
        memory.push(resident(&child));
    }
    signal(&child, "TERM");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(75), "{}", stderr(&ended));

    // Flat: from a tenth of the time on it grows by less than a hundredth.
    let settled = memory[..10].iter().max().unwrap();
    let grown = memory[10..].iter().filter(|&&bytes| bytes > settled + settled / 100).count();
    let lines = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let records: Vec<EpochRecord> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rate = |tenth: usize| {
        let part =
            &records[tenth * (records.len() - 1) / 10..=(tenth + 1) * (records.len() - 1) / 10];
        let examples: u64 = part[1..].iter().map(|record| record.examples).sum();
        examples as f64 / (part[part.len() - 1].seconds - part[0].seconds)
    };
    let rates: Vec<f64> = (0..10).map(rate).collect();
    let megabytes = |bytes: &u64| *bytes as f64 / 1e6;
    let figure = format!(
        "{} epochs in {minutes} minutes; resident memory {:.1} MB after a tenth of the time, {:.1} \
         MB at the end, {:.1} MB at most; examples/s in each tenth: {}",
        records.len(),
        megabytes(settled),
        megabytes(&memory[99]),
        megabytes(memory.iter().max().unwrap()),
        rates.iter().map(|rate| format!("{rate:.0}")).collect::<Vec<_>>().join(", ")
    );
    let command = format!(
        "LIMBECK_SOAK_MINUTES={minutes} LIMBECK_FINDINGS=results/fault-injection cargo test --test fault_injection soak \
         -- --ignored"
    );
    let what =
        "samples of resident memory in a run with checkpoints, not above its first tenth's by 1 %";
    Finding::new(what, 100, grown as u64, figure, &command).report("soak");
    assert_eq!(grown, 0, "{memory:?}");
}

/// How long checkpoints take within a run.
struct Clock {
    begun: Instant,
    until: Duration,
    steps: Vec<Duration>,
    last: Instant,
    in_checkpoint: bool,
    checkpoints: Vec<Duration>,
}

impl Observer for Clock {
    fn on_step(&mut self, _: &Progress) {
        let took = self.last.elapsed();
        // The step behind a checkpoint is timed together with it.
        let times = if self.in_checkpoint { &mut self.checkpoints } else { &mut self.steps };
        times.push(took);
        self.in_checkpoint = false;
        self.last = Instant::now();
    }
    fn on_epoch(&mut self, _: &EpochRecord) -> limbeck::Result<()> {
        Ok(())
    }
    fn on_checkpoint(&mut self) -> limbeck::Result<()> {
        self.in_checkpoint = true;
        Ok(())
    }
    fn stop(&self) -> bool {
        self.begun.elapsed() > self.until
    }
    fn warn(&mut self, message: &str) {
        panic!("{message}");
    }
}

/// `LIMBECK_FINDINGS=results/fault-injection cargo test --test fault_injection cost -- --ignored`: the time that
/// checkpoints of the paper's MNIST teacher take at the default interval. Runs with and without
/// them cannot tell: from run to run the machine differs by more.
#[test]
#[ignore = "takes two minutes"]
fn the_cost_of_checkpoints() {
    let mut config = Config::default();
    config.data.jitter = Some(2);
    config.model.layers = vec![784, 1200, 1200, 10];
    config.model.dropout = Some(vec![0.2, 0.5, 0.5]);
    config.training = TrainingConfig { epochs: 1000, max_norm: Some(3.5), ..config.training };
    let data = glyphs::default();
    let task = Task::hard("teacher", &config, &data.train);
    let threads = std::thread::available_parallelism().unwrap().get();
    let now = Instant::now();
    let mut clock = Clock {
        begun: now,
        until: Duration::from_secs(120),
        steps: Vec::new(),
        last: now,
        in_checkpoint: false,
        checkpoints: Vec::new(),
    };
    let folder = tempfile::tempdir().unwrap();
    let ended = trainer::train(&best(threads), &task, Some(folder.path()), &mut clock);
    assert_eq!(ended.err().unwrap().exit_code(), 75);

    clock.steps.sort();
    let step = clock.steps[clock.steps.len() / 2];
    let checkpoints: Vec<f64> =
        clock.checkpoints.iter().map(|took| took.saturating_sub(step).as_secs_f64()).collect();
    let total: Duration = clock.steps.iter().chain(&clock.checkpoints).sum();
    let share = 100.0 * checkpoints.iter().sum::<f64>() / total.as_secs_f64();
    let longest = checkpoints.iter().copied().fold(0.0, f64::max);
    let figure = format!(
        "{share:.2} % of {:.0} s, the longest {:.0} ms, beside steps of {:.1} ms",
        total.as_secs_f64(),
        1e3 * longest,
        1e3 * step.as_secs_f64()
    );
    let what = "checkpoints of the MNIST teacher (784-1200-1200-10) at the default interval: they may \
                take 1 % of the time";
    let failed = u64::from(share > 1.0);
    let command = "LIMBECK_FINDINGS=results/fault-injection cargo test --test fault_injection cost -- --ignored";
    Finding::new(what, checkpoints.len() as u64, failed, figure, command).report("cost");
    assert_eq!(failed, 0);
}
