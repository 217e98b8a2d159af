//! The scheduler of experiments, with nodes that only sleep and write: what one process does and what
//! eight do.
#![cfg(feature = "paper")]

mod common;

use common::{Silent, best, noise};
use limbeck::engine::config::Config;
use limbeck::engine::trainer::{EpochRecord, Observer, Progress, Task};
use limbeck::paper::experiment::{Conclusion, ExperimentSpec};
use limbeck::paper::experiment_run::ExperimentRun;
use limbeck::paper::graph::{Graph, Node};
use limbeck::paper::key::Key;
use limbeck::paper::preset::Preset;
use limbeck::paper::request::Request;
use limbeck::paper::scheduler::execute;
use limbeck::run::context::RunContext;
use limbeck::run::summary::{Measure, Row, Summary, Table};
use limbeck::{Error, Result};
use limbeck_datasets::{Dataset, Names};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const SUM: Measure = Measure::named("sum");

/// A row with so many errors, after a while in which others may come.
fn row(run: &ExperimentRun, variant: &str, seed: u64, errors: u64) -> Result<Row> {
    let log = run.folder.root.join("log");
    let mut log = OpenOptions::new().create(true).append(true).open(log).unwrap();
    // In one write: those of several workers would mix.
    log.write_all(format!("{variant} {seed}\n").as_bytes()).unwrap();
    thread::sleep(Duration::from_millis(3 + 7 * (errors % 5)));
    Ok(serde_json::from_value(serde_json::json!({
        "variant": variant, "seed": seed, "test_errors": errors, "train_errors": null,
        "seconds": 0.0, "model": "", "sha256": "",
    }))
    .unwrap())
}

fn errors(run: &ExperimentRun, key: &Key) -> u64 {
    run.row_of(key).unwrap().test_errors
}

/// For each seed s a base of s errors, a sum of the bases so far as its measure, and twice the base;
/// then, known only from all of these, a node for each of the best.
fn graph(seeds: u64) -> Graph {
    let mut nodes = vec![Node::file("made.txt", Vec::new(), |run| {
        fs::write(run.folder.root.join("made.txt"), "made")
            .map_err(|e| Error::Internal(e.to_string()))
    })];
    for seed in 0..seeds {
        let base = Key::row("base", seed);
        nodes.push(Node::row("base", seed, vec![Key::File("made.txt")], move |run| {
            assert!(run.folder.root.join("made.txt").exists());
            row(run, "base", seed, seed)
        }));
        let before = seed.checked_sub(1).map(|seed| Key::Measures("base".into(), seed));
        let needs = before.iter().cloned().collect();
        nodes.push(Node::measures("base", seed, needs, move |run| {
            let before = match &before {
                Some(before) => run.row_of(before)?.value(&SUM).unwrap(),
                None => 0.0,
            };
            Ok([SUM.of(before + seed as f64)].into())
        }));
        nodes.push(Node::row("twice", seed, vec![base.clone()], move |run| {
            row(run, "twice", seed, 2 * errors(run, &base))
        }));
    }
    Graph::new(nodes).then(move |run| {
        let most = run.summary.values("twice", &Measure::TestErrors);
        let most = most.into_iter().fold(0.0, f64::max) as u64;
        let best = move |seed| {
            Node::row("best", seed, Vec::new(), move |run| row(run, "best", seed, most + seed))
        };
        Ok(Graph::new((0..2).map(best).collect()))
    })
}

fn spec(graph: Graph) -> ExperimentSpec {
    let (train, test) = (noise(1, 30, 4, 3), noise(2, 30, 4, 3));
    let dataset = Dataset {
        name: "noise".into(),
        classes: 3,
        names: Names::default(),
        notes: Vec::new(),
        train,
        test,
        sha256: BTreeMap::new(),
    };
    let conclude = |summary: &Summary| {
        assert_eq!(summary.rows_of("best").count(), 2);
        Conclusion::default()
    };
    ExperimentSpec {
        experiment: "test",
        dataset: Rc::new(dataset),
        train_limit: None,
        seeds: vec![0],
        configs: Vec::new(),
        loss: None,
        paper_errors: Vec::new(),
        graph,
        conclude: Box::new(move |run| Ok(conclude(&run.summary))),
    }
}

fn worker(out: &Path, worker: Option<u32>, stop: &AtomicBool) -> Result<Summary> {
    let (context, mut observer) = (best(1), Silent);
    let mut run = RunContext::new(&context, &mut observer, stop);
    let request = Request { worker, ..Request::new(Preset::Smoke, 0..1) };
    execute(&mut run, &request, spec(graph(6)), out)
}

/// Each line of the nodes' log once, in some order.
fn made(out: &Path) -> Vec<String> {
    let log = fs::read_to_string(out.join("log")).unwrap();
    let mut lines: Vec<String> = log.lines().map(str::to_string).collect();
    lines.sort();
    lines
}

#[test]
fn one_worker_and_eight_come_to_the_same_and_make_everything_once() {
    let folder = tempfile::tempdir().unwrap();
    let (alone, shared) = (folder.path().join("alone"), folder.path().join("shared"));
    let go_on = AtomicBool::new(false);
    let expected = worker(&alone, None, &go_on).unwrap();
    let order: Vec<_> = expected.rows.iter().map(|row| (row.variant.as_str(), row.seed)).collect();
    let seeds = (0..6).flat_map(|seed| [("base", seed), ("twice", seed)]);
    assert_eq!(order, seeds.chain([("best", 0), ("best", 1)]).collect::<Vec<_>>());
    assert_eq!(expected.values("base", &SUM), [0.0, 1.0, 3.0, 6.0, 10.0, 15.0]);
    assert_eq!(expected.values("best", &Measure::TestErrors), [10.0, 11.0]);

    thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|i| {
                scope.spawn({
                    let (shared, go_on) = (&shared, &go_on);
                    move || worker(shared, Some(i), go_on).unwrap()
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| assert_eq!(worker.join().unwrap(), expected));
    });
    assert_eq!(made(&shared), made(&alone));
    assert_eq!(made(&shared).len(), 14);
    let kept: Summary =
        serde_json::from_str(&fs::read_to_string(shared.join("summary.json")).unwrap()).unwrap();
    assert_eq!(kept, expected);
}

#[test]
fn a_stopped_run_goes_on_with_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let stop = AtomicBool::new(false);
    // Stops when some rows are there.
    thread::scope(|scope| {
        scope.spawn(|| {
            while fs::read_to_string(out.join("log")).map_or(0, |log| log.lines().count()) < 3 {
                thread::sleep(Duration::from_millis(1));
            }
            stop.store(true, Ordering::Relaxed);
        });
        let error = worker(&out, None, &stop).unwrap_err();
        assert!(matches!(error, Error::Interrupted { .. }), "{error}");
    });
    let before = made(&out).len();
    assert!((3..14).contains(&before), "{before} made before the stop");
    let done = worker(&out, None, &AtomicBool::new(false)).unwrap();
    // Nothing twice.
    assert_eq!(made(&out).len(), 14);
    assert_eq!(done.values("base", &SUM), [0.0, 1.0, 3.0, 6.0, 10.0, 15.0]);
}

#[test]
fn a_model_that_is_gone_is_made_again_where_it_is_needed_and_other_requests_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = |seeds: u64| {
        let (context, mut observer, stop) = (best(1), Begun(0), AtomicBool::new(false));
        let mut run = RunContext::new(&context, &mut observer, &stop);
        let nodes = (0..seeds).flat_map(|seed| {
            let base = Node::row("base", seed, Vec::new(), move |run| {
                let model = run.folder.root.join("base");
                fs::write(model, "").map_err(|e| Error::Internal(e.to_string()))?;
                Ok(Row { model: "base".into(), ..row(run, "base", seed, 0)? })
            });
            // As the student of all teachers has their number in its name.
            let name = format!("of {seeds}");
            let needs = vec![Key::row("base", 0)];
            let of_all = Node::row(name.clone(), seed, needs, move |run| row(run, &name, seed, 0));
            [base, of_all]
        });
        let spec = ExperimentSpec {
            graph: Graph::new(nodes.collect()),
            conclude: Box::new(|_| {
                let tables = vec![Table::new("table", &["column"])];
                Ok(Conclusion { tables, ..Conclusion::default() })
            }),
            ..spec(Graph::new(Vec::new()))
        };
        let request = Request::new(Preset::Smoke, 0..seeds);
        execute(&mut run, &request, spec, folder.path()).unwrap().tables.remove(0).notes
    };
    assert!(run(1).is_empty());
    // Nobody needs it any more.
    fs::remove_file(folder.path().join("base")).unwrap();
    assert!(run(1).is_empty());
    let notes = run(2);
    assert!(matches!(&notes[..], [note] if note.contains("of 1 0.")), "{notes:?}");
    assert_eq!(made(folder.path()), ["base 0", "base 0", "base 1", "of 1 0", "of 2 0", "of 2 1"]);
}

#[test]
fn nodes_that_need_each_other_are_an_error_and_no_endless_wait() {
    let folder = tempfile::tempdir().unwrap();
    let node = |variant: &'static str, other: &'static str| {
        Node::row(variant, 0, vec![Key::row(other, 0)], move |run| row(run, variant, 0, 0))
    };
    let (context, mut observer, stop) = (best(1), Silent, AtomicBool::new(false));
    let mut run = RunContext::new(&context, &mut observer, &stop);
    let request = Request::new(Preset::Smoke, 0..1);
    let circle = spec(Graph::new(vec![node("a", "b"), node("b", "a")]));
    let error = execute(&mut run, &request, circle, folder.path()).unwrap_err();
    assert_eq!(error.exit_code(), 70, "{error}");
}

/// Counts the models that are begun.
struct Begun(usize);

impl Observer for Begun {
    fn on_start(&mut self, _: &str, _: usize) -> Result<()> {
        self.0 += 1;
        Ok(())
    }
    fn on_step(&mut self, _: &Progress) {}
    fn on_epoch(&mut self, _: &EpochRecord) -> Result<()> {
        Ok(())
    }
    fn warn(&mut self, _: &str) {}
}

#[test]
fn what_diverged_for_one_is_not_tried_by_another() {
    let mut config = Config::default();
    config.model.layers = vec![16, 8, 3];
    config.training.learning_rate = 1e30;
    let folder = tempfile::tempdir().unwrap();
    let (context, mut begun, stop) = (best(1), Begun(0), AtomicBool::new(false));
    let messages = [0, 1].map(|worker| {
        let mut run = RunContext::new(&context, &mut begun, &stop);
        let request = Request { worker: Some(worker), ..Request::new(Preset::Smoke, 0..1) };
        let spec = spec(Graph::new(Vec::new()));
        let (dataset, config) = (spec.dataset.clone(), config.clone());
        let net = Node::row("net", 0, Vec::new(), move |run| {
            Ok(run.train(&dataset, &Task::hard("net", &config, &dataset.train), 0)?.1)
        });
        let spec = ExperimentSpec { graph: Graph::new(vec![net]), ..spec };
        let error = execute(&mut run, &request, spec, folder.path()).unwrap_err();
        assert!(matches!(error, Error::Diverged { .. }), "{error}");
        error.to_string()
    });
    assert_eq!(messages[0], messages[1]);
    assert_eq!(begun.0, 1);
}
