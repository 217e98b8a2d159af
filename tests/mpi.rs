//! The program over MPI, with more ranks than cores: the bits of one process, and nothing lost when
//! ranks die, fall silent or are cut off.
#![cfg(all(unix, feature = "mpi", feature = "cli"))]

mod common;

use common::program::{PROGRAM, clean, program, sha256, stderr, wait_for};
use common::required::is_required;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Open MPI asks to be told that there may be more ranks than cores, that none is bound to a core,
/// and that root may start them; others ignore these variables.
const SETTINGS: [(&str, &str); 5] = [
    ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
    ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
    ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
    ("OMPI_MCA_hwloc_base_binding_policy", "none"),
    // Not all containers let ranks read each other's memory.
    ("OMPI_MCA_btl_vader_single_copy_mechanism", "none"),
];

fn mpirun(ranks: usize, args: &[&str]) -> Command {
    let mut command = Command::new("mpirun");
    // Quiet: what nobody reads would fill the pipe.
    command.args(["-n", &ranks.to_string(), PROGRAM, "--threads", "1", "--quiet"]).args(args);
    clean(&mut command);
    command.envs(SETTINGS);
    command
}

fn alone(args: &[&str]) -> Command {
    program(&[&["--threads", "1"], args].concat())
}

fn signal(id: u32, name: &str) {
    // A process that has just ended needs no signal.
    let _ = Command::new("kill").args(["-s", name, &id.to_string()]).stderr(Stdio::null()).status();
}

/// A folder with 200 points in three classes, and a net with everything that a checkpoint keeps.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new(epochs: usize) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (name, n) in [("train", 200), ("test", 30)] {
            let mut text = String::from("a,b,c,d,label\n");
            for i in 0..n {
                let mut coordinate = || f64::from(rng.next_u32() % 1000) / 1000.0;
                let [a, b, c] = [coordinate(), coordinate(), coordinate()];
                text += &format!("{a},{b},{c},{},{}\n", i % 3, i % 3);
            }
            fs::write(folder.path().join(format!("{name}.csv")), text).unwrap();
        }
        let text = format!(
            "[data]\ndataset = \"csv\"\nclasses = 3\ntrain_table = \"train.csv\"\n\
             test_table = \"test.csv\"\n[model]\nlayers = [4, 48, 32, 3]\n\
             dropout = [0.1, 0.2, 0.2]\n[training]\nepochs = {epochs}\nbatch_size = 40\n\
             shards = 8\noptimizer = \"adam\"\nlearning_rate = 0.001\naverage = 0.9\n\
             max_norm = 3.0\ncheckpoint_minutes = 0.002\n"
        );
        fs::write(folder.path().join("config.toml"), text).unwrap();
        Place { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_string()
    }

    fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// The command for the run: from its beginning, or from where it is.
    fn train(&self) -> Vec<String> {
        let run = self.path("run");
        if self.run().join("manifest.json").exists() {
            return vec!["train".into(), "--json".into(), "--resume".into(), run];
        }
        ["train", &self.path("config.toml"), "--json", "--out", &run].map(String::from).into()
    }

    fn on(&self, ranks: usize, more: &[&str]) -> Command {
        let args = self.train();
        let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
        mpirun(ranks, &args)
    }

    /// The SHA-256 of the model that one process trains.
    fn by_one(&self) -> String {
        let out = self.path("one");
        let ended = alone(&["train", &self.path("config.toml"), "--json", "--out", &out]).output();
        sha256(&ended.unwrap())
    }

    /// The newest checkpoint.
    fn newest(&self) -> Option<String> {
        let folder = fs::read_dir(self.run().join("checkpoints/model-0")).ok()?;
        let names = folder.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".safetensors")).max()
    }

    fn begun(&self) -> bool {
        self.newest().is_some()
    }

    /// The processes of this place's job, by rank.
    fn ranks(&self) -> Vec<(usize, u32)> {
        let mine = self.path("");
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(id) = entry.file_name().to_string_lossy().parse() else { continue };
            let read = |name| fs::read(entry.path().join(name)).unwrap_or_default();
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            let (command, settings) = (text(read("cmdline")), text(read("environ")));
            if !command.starts_with(PROGRAM) || !command.contains(&mine) {
                continue;
            }
            let rank = settings.split('\0').find_map(|v| {
                v.strip_prefix("OMPI_COMM_WORLD_RANK=").or(v.strip_prefix("PMI_RANK="))
            });
            found.extend(rank.and_then(|rank| rank.parse().ok()).map(|rank| (rank, id)));
        }
        found.sort_unstable();
        found
    }
}

/// Waits for the job at most `seconds`.
#[track_caller]
fn ends_within(mut job: Child, seconds: u64) -> Output {
    let start = Instant::now();
    while job.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(seconds) {
            job.kill().unwrap();
            panic!("the job was still there after {seconds} s");
        }
        thread::sleep(Duration::from_millis(10));
    }
    job.wait_with_output().unwrap()
}

#[test]
fn ranks_train_and_distil_to_the_bits_of_one_process() {
    let place = Place::new(20);
    let expected = place.by_one();
    for ranks in [1, 2, 4] {
        assert_eq!(sha256(&place.on(ranks, &[]).output().unwrap()), expected, "{ranks} ranks");
        fs::remove_dir_all(place.run()).unwrap();
    }
    // In any order: a model, and on two ranks, whose only order it is, the same.
    let fast = place.on(2, &["--fast-allreduce"]).output().unwrap();
    assert_eq!(sha256(&fast), expected);

    let teachers =
        [place.path("one"), place.path("run")].map(|run| run + "/models/model-0.safetensors");
    let args = |out: &str| {
        let config = place.path("config.toml");
        let args = ["distill", &config, "--json", "--out", out, "--teacher"].map(String::from);
        [&args[..], &teachers].concat()
    };
    let one = args(&place.path("student"));
    let one: Vec<&str> = one.iter().map(String::as_str).collect();
    let expected = sha256(&alone(&one).output().unwrap());
    for ranks in [2, 4] {
        let args = args(&place.path(&format!("student-{ranks}")));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        assert_eq!(sha256(&mpirun(ranks, &args).output().unwrap()), expected, "{ranks} ranks");
    }
}

/// The models of an experiment are handed out over the ranks.
#[test]
fn ranks_share_an_experiment() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let args = ["reproduce", "mnist", "--preset", "smoke", "--seeds", "2", "--json", "--out"];
    let rows = |output: &Output| -> Vec<(Value, Value, Value)> {
        assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
        let mut report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let rows = report["rows"].as_array_mut().unwrap().iter_mut();
        rows.map(|row| (row["variant"].take(), row["seed"].take(), row["sha256"].take())).collect()
    };
    let expected = rows(&alone(&[&args[..], &[&out("one")]].concat()).output().unwrap());
    let shared = mpirun(4, &[&args[..], &[&out("shared")]].concat()).output().unwrap();
    assert_eq!(rows(&shared), expected);
    let ended = mpirun(2, &["reproduce", "mnist", "--preset", "smoke"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
    assert!(stderr(&ended).contains("--out: found none"), "{}", stderr(&ended));
}

#[test]
fn what_the_job_cannot_do_is_said_once() {
    let place = Place::new(1);
    for (ranks, shards, message) in [
        (3, 8, "ranks of the job: found 3, expected a power of two"),
        (2, 1, "ranks of the job: found 2, expected a power of two up to 1"),
    ] {
        let config = fs::read_to_string(place.path("config.toml")).unwrap();
        let config = config.replace("shards = 8", &format!("shards = {shards}"));
        fs::write(place.path("config.toml"), config).unwrap();
        let ended = place.on(ranks, &[]).output().unwrap();
        assert_eq!(ended.status.code(), Some(2), "{}", stderr(&ended));
        assert_eq!(stderr(&ended).matches(message).count(), 1, "{}", stderr(&ended));
    }
}

#[test]
fn a_signal_to_any_rank_ends_the_job_with_a_checkpoint() {
    let place = Place::new(4000);
    let expected = place.by_one();
    for (ranks, whom, name) in [(4, Some(2), "TERM"), (2, Some(0), "INT"), (4, None, "USR1")] {
        let before = place.newest();
        let job = place.on(ranks, &[]).spawn().unwrap();
        // Once it writes checkpoints of its own it listens to signals.
        wait_for("a checkpoint", || place.newest() > before);
        // Without a rank, the launcher: it passes USR1 on.
        signal(whom.map_or(job.id(), |rank| place.ranks()[rank].1), name);
        let ended = ends_within(job, 60);
        let message = stderr(&ended);
        assert_eq!(ended.status.code(), Some(75), "{message}");
        assert_eq!(
            message.matches("interrupted; continue with: limbeck train --resume").count(),
            1
        );
    }
    assert_eq!(sha256(&place.on(2, &[]).output().unwrap()), expected);
}

/// `LIMBECK_KILLS` times, else eight.
#[test]
fn a_rank_that_is_killed_loses_nothing() {
    let kills = env::var("LIMBECK_KILLS").map_or(8, |n| n.parse().unwrap());
    let place = Place::new(1500);
    let expected = place.by_one();
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut done = 0;
    while done < kills {
        let ranks = [2, 4, 8][rng.next_u32() as usize % 3];
        // mpirun notices the death of a rank but of one that has just been born.
        let job = place.on(ranks, &["--peer-timeout", "20"]).spawn().unwrap();
        wait_for("the ranks", || place.ranks().len() == ranks);
        thread::sleep(Duration::from_millis(u64::from(rng.next_u32() % 1500)));
        let victim = place.ranks().get(rng.next_u32() as usize % ranks).map(|(_, id)| *id);
        if let Some(id) = victim {
            signal(id, "KILL");
            done += 1;
        }
        let ended = ends_within(job, 120);
        if ended.status.code() == Some(0) || place.run().join("summary.json").exists() {
            // It was over, or all but over.
            if ended.status.code() == Some(0) {
                assert_eq!(sha256(&ended), expected);
            }
            fs::remove_dir_all(place.run()).unwrap();
        } else {
            assert!(victim.is_some(), "{}", stderr(&ended));
        }
    }
    assert_eq!(sha256(&place.on(4, &[]).output().unwrap()), expected);
}

#[test]
fn a_rank_that_falls_silent_ends_the_job_in_the_stated_time() {
    let place = Place::new(1_000_000);
    let job = place.on(4, &["--peer-timeout", "3"]).spawn().unwrap();
    wait_for("a checkpoint", || place.begun() && place.ranks().len() == 4);
    let silent = place.ranks()[1].1;
    signal(silent, "STOP");
    let ended = ends_within(job, 120);
    signal(silent, "KILL");
    assert_eq!(ended.status.code(), Some(74), "{}", stderr(&ended));
    let message = stderr(&ended);
    assert!(message.contains("no answer from the other ranks for 3 s"), "{message}");
    assert!(message.contains("start the job again as before with --resume"), "{message}");
    assert!(place.begun());
}

/// Hosts that are network namespaces of this machine, joined by a bridge.
struct Hosts {
    /// Those of the ranks, then that of mpirun.
    names: Vec<String>,
    bridge: String,
    folder: TempDir,
}

impl Hosts {
    /// Where this process may make them. Every link delays, by 2 ms where the kernel can do just that,
    /// else by a bandwidth of 20 Mbit/s: 0.6 ms a packet.
    fn new(n: usize) -> Option<Hosts> {
        let id = std::process::id() % 10_000;
        let hosts = Hosts {
            names: (0..=n).map(|i| format!("lbk{id}-{i}")).collect(),
            bridge: format!("lbk{id}"),
            folder: tempfile::tempdir().unwrap(),
        };
        let bridge = &hosts.bridge;
        let mut steps =
            vec![format!("ip link add {bridge} type bridge"), format!("ip link set {bridge} up")];
        for (i, name) in hosts.names.iter().enumerate() {
            steps.extend([
                format!("ip netns add {name}"),
                format!("ip link add v{name} type veth peer name eth0 netns {name}"),
                format!("ip link set v{name} master {bridge}"),
                format!("ip link set v{name} up"),
                format!("ip -n {name} addr add 10.77.77.{}/24 dev eth0", i + 1),
                format!("ip -n {name} link set eth0 up"),
                format!("ip -n {name} link set lo up"),
            ]);
        }
        let run = |step: &str| {
            let mut words = step.split(' ');
            let mut command = Command::new(words.next().unwrap());
            let done = command.args(words).stderr(Stdio::null()).status();
            done.is_ok_and(|status| status.success())
        };
        if let Some(step) = steps.iter().find(|step| !run(step)) {
            eprintln!("skipped: this process may not make hosts: {step}");
            return None;
        }
        // A host that is cut off is given up after some 2 s of trying, not a quarter of an hour.
        let launcher = format!("ip netns exec {} sysctl -qw net.ipv4.", hosts.names[n]);
        if !run(&(launcher + "tcp_retries2=3")) {
            eprintln!("skipped: this process may not set how long TCP tries");
            return None;
        }
        for name in &hosts.names[..n] {
            let delay = format!("ip netns exec {name} tc qdisc add dev eth0 root ");
            let ways = ["netem delay 2ms", "tbf rate 20mbit burst 4kb latency 400ms"];
            if !ways.iter().any(|way| run(&(delay.clone() + way))) {
                eprintln!("skipped: this process has no way to slow a link");
                return None;
            }
        }
        // What mpirun calls in the place of ssh: AGENT [OPTION …] HOST COMMAND …. A host has a name
        // and temporary files of its own: under one name the ranks' daemons take each other's.
        let agent = "#!/bin/sh\nwhile [ \"${1#-}\" != \"$1\" ]; do shift; done\n\
                     name=PREFIX-$((${1##*.} - 1))\nshift\n\
                     export TMPDIR=\"FOLDER/$name\"\nmkdir -p \"$TMPDIR\"\n\
                     exec ip netns exec \"$name\" unshare --uts sh -c \"hostname $name; $*\"\n";
        let agent = agent.replace("PREFIX", bridge);
        let agent = agent.replace("FOLDER", hosts.folder.path().to_str().unwrap());
        let path = hosts.agent();
        fs::write(&path, agent).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Some(hosts)
    }

    fn agent(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    /// A command of mpirun that starts one rank on each host, over TCP.
    fn spread(&self, mpirun: &Command) -> Command {
        let (launcher, ranks) = self.names.split_last().unwrap();
        let list = self.folder.path().join("hosts");
        let slots = (1..=ranks.len()).map(|i| format!("10.77.77.{i} slots=1\n"));
        fs::write(&list, slots.collect::<String>()).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", launcher]).arg(mpirun.get_program()).args(mpirun.get_args());
        clean(&mut command);
        command.envs(SETTINGS).envs([
            ("OMPI_MCA_plm_rsh_agent", self.agent().to_str().unwrap()),
            ("OMPI_MCA_orte_default_hostfile", list.to_str().unwrap()),
            ("OMPI_MCA_orte_keep_fqdn_hostnames", "1"),
            ("OMPI_MCA_plm", "rsh"),
            ("OMPI_MCA_pml", "ob1"),
            ("OMPI_MCA_btl", "tcp,self"),
            ("OMPI_MCA_btl_tcp_if_include", "10.77.77.0/24"),
            ("OMPI_MCA_oob_tcp_if_include", "10.77.77.0/24"),
            // A connection on which nothing is under way, too.
            ("OMPI_MCA_oob_tcp_keepalive_time", "3"),
            ("OMPI_MCA_oob_tcp_keepalive_intvl", "1"),
            ("OMPI_MCA_oob_tcp_keepalive_probes", "3"),
        ]);
        command
    }

    fn cut(&self, host: usize) {
        let link = format!("v{}", self.names[host]);
        let done = Command::new("ip").args(["link", "set", &link, "down"]).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let ip = |args: &[&str]| Command::new("ip").args(args).stderr(Stdio::null()).status();
        for name in &self.names {
            let _ = ip(&["netns", "del", name]);
            let _ = ip(&["link", "del", &format!("v{name}")]);
        }
        let _ = ip(&["link", "del", &self.bridge]);
    }
}

#[test]
fn hosts_with_slow_links_give_the_same_bits_and_a_cut_one_ends_the_job() {
    let version = Command::new("mpirun").arg("--version").output().unwrap();
    if !String::from_utf8_lossy(&version.stdout).contains("Open MPI") {
        eprintln!("skipped: hosts are for the mpirun of Open MPI");
        return;
    }
    let Some(hosts) = Hosts::new(4) else {
        assert!(!is_required("mpi"), "LIMBECK_REQUIRE=mpi asks for network namespaces");
        return;
    };
    let place = Place::new(6);
    let expected = place.by_one();
    let job = hosts.spread(&place.on(4, &[])).spawn().unwrap();
    assert_eq!(sha256(&ends_within(job, 120)), expected);

    let place = Place::new(1_000_000);
    let job = hosts.spread(&place.on(4, &["--peer-timeout", "4"])).spawn().unwrap();
    wait_for("a checkpoint", || place.begun());
    hosts.cut(3);
    let ended = ends_within(job, 120);
    assert_eq!(ended.status.code(), Some(74), "{}", stderr(&ended));
    // The host that is cut off notices by itself.
    wait_for("the end of all ranks", || place.ranks().is_empty());
    assert!(place.begun());
}
