//! Ranks that train one model together, as threads of this process: the bits of one process, the
//! same stop, the same errors. tests/mpi.rs has the same over MPI. And the model of a step's time.

mod common;

use common::{Silent, best, uniform};
use limbeck::engine::communicator::Communicator;
use limbeck::engine::config::{Config, OptimizerKind, TrainingConfig};
use limbeck::engine::distill;
use limbeck::engine::loss::LossSpec;
use limbeck::engine::mlp::Mlp;
use limbeck::engine::trainer::{self, EpochRecord, Observer, Progress, Task};
use limbeck::tools::bench::scaling::{How, Network, NodeStep};
use limbeck::{Error, Result};
use limbeck_datasets::Split;
use limbeck_kernels::Context;
use std::path::Path;
use std::thread;
use std::time::Duration;

const EXAMPLES: usize = 53;
const CLASSES: usize = 3;
const MIXED: LossSpec = LossSpec { temperature: 4.0, soft_weight: 1.0, hard_weight: 0.3 };

fn images() -> Split {
    let pixels = uniform(1, EXAMPLES * 8).iter().map(|x| (127.0 * (x + 1.0)) as u8).collect();
    let labels = (0..EXAMPLES).map(|i| (i % CLASSES) as u16).collect();
    Split::of_images(pixels, (2, 4), Some(labels))
}

/// Steps of 24 and 24 examples and one of 5, fewer than the microbatches; everything switched on.
fn config(optimizer: OptimizerKind, microbatches: usize) -> Config {
    let mut config = Config { seed: 5, ..Config::default() };
    config.data.jitter = Some(1);
    config.model.layers = vec![8, 21, 17, CLASSES];
    config.model.dropout = Some(vec![0.2, 0.5, 0.5]);
    config.training = TrainingConfig {
        epochs: 4,
        batch_size: 24,
        microbatches,
        learning_rate: 0.02,
        optimizer,
        max_norm: Some(1.0),
        weight_decay: 0.01,
        average: 0.5,
        ..TrainingConfig::default()
    };
    config
}

/// What `work` returns on each of `ranks` ranks.
fn on_each<R: Send>(
    ranks: usize,
    work: impl Fn(&Context, &mut Communicator) -> R + Sync,
) -> Vec<R> {
    let mut communicators = Communicator::in_process(ranks, Duration::from_secs(60));
    thread::scope(|scope| {
        let work = &work;
        let spawn = |communicator| scope.spawn(move || work(&best(1), communicator));
        let ranks: Vec<_> = communicators.iter_mut().map(spawn).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn hash(model: Mlp) -> String {
    model.to_file().sha256()
}

#[test]
fn any_number_of_ranks_gives_the_bits_of_one_process() {
    let split = images();
    let teachers: Vec<Mlp> = (0..2).map(|seed| Mlp::new(&[8, 12, CLASSES], seed)).collect();
    let context = best(1);
    let logits = distill::teacher_logits(&context, &teachers, &split, 4.0, Some(1));
    for optimizer in [OptimizerKind::Nesterov, OptimizerKind::Adam] {
        let mut hashes = Vec::new();
        for microbatches in [1, 4, 8] {
            let config = config(optimizer, microbatches);
            let task = Task::soft("net", &config, &split, MIXED, &logits);
            let alone = trainer::train(&context, &task, None, &mut Silent).unwrap().model;
            let alone = hash(alone);
            for ranks in [1, 2, 4, 8].into_iter().filter(|ranks| *ranks <= microbatches) {
                let together = on_each(ranks, |context, communicator| {
                    let shared = distill::teacher_logits_together(
                        context,
                        communicator,
                        &teachers,
                        &split,
                        4.0,
                        Some(1),
                    );
                    assert!(shared.unwrap() == logits, "logits of {ranks} ranks");
                    let trained =
                        trainer::train_together(context, &task, communicator, None, &mut Silent);
                    hash(trained.unwrap().model)
                });
                assert_eq!(
                    together,
                    vec![alone.clone(); ranks],
                    "{optimizer:?}, {microbatches} microbatches"
                );
            }
            hashes.push(alone);
        }
        hashes.dedup();
        assert_eq!(hashes.len(), 3, "the number of microbatches does not matter to {optimizer:?}");
    }
}

#[test]
fn ranks_draw_the_views_of_one_process_and_ask_the_teachers_about_their_own() {
    let (split, context) = (images(), best(1));
    let teachers: Vec<Mlp> = (0..2).map(|seed| Mlp::new(&[8, 12, CLASSES], seed)).collect();
    let mut config = config(OptimizerKind::Nesterov, 4);
    config.data.jitter = None;
    let plain = config.clone();
    let table = "[distillation]\nviews = [\"mask 0..0.5\", \"mix 0.7..1 + noise 0.1 + block 1\"]";
    config.distillation = Config::from_text(table).unwrap().distillation;
    let trained = |config: &Config, communicator: Option<&mut Communicator>, context: &Context| {
        let task =
            Task { objective: MIXED, teachers: &teachers, ..Task::hard("net", config, &split) };
        let trained = match communicator {
            None => trainer::train(context, &task, None, &mut Silent),
            Some(ranks) => trainer::train_together(context, &task, ranks, None, &mut Silent),
        };
        hash(trained.unwrap().model)
    };
    let alone = trained(&config, None, &context);
    assert_ne!(alone, trained(&plain, None, &context));
    for ranks in [2, 4] {
        let together = on_each(ranks, |context, ranks| trained(&config, Some(ranks), context));
        assert_eq!(together, vec![alone.clone(); ranks]);
    }
}

/// Without dropout the microbatches' gradients sum to that of the batch, whatever their number: the
/// parameters differ by roundings only.
#[test]
fn microbatches_sum_to_the_gradient_of_the_batch() {
    let (split, context) = (images(), best(1));
    let trained = |microbatches| {
        let mut config = config(OptimizerKind::Nesterov, microbatches);
        config.model.dropout = None;
        let task = Task::hard("net", &config, &split);
        trainer::train(&context, &task, None, &mut Silent).unwrap().model.params().to_vec()
    };
    let whole = trained(1);
    for microbatches in [2, 8, 16] {
        let parted = trained(microbatches);
        let distance = whole.iter().zip(&parted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // 12 steps, each of gradients below 1 whose 24 terms are summed in another order, moved by
        // at most 0.02·(1 + m + m² + …) = 0.2: 12 · 0.2 · 24 · 2⁻²⁴ = 3.4e-6.
        assert!(distance < 3.4e-6, "{microbatches} microbatches: {distance:e}");
        assert!(distance > 0.0, "{microbatches} microbatches: not another order of summation");
    }
}

/// Asks to stop in step `at`, counted over the run.
struct StopsAt {
    at: usize,
    steps: usize,
}

impl Observer for StopsAt {
    fn on_step(&mut self, _: &Progress) {
        self.steps += 1;
    }
    fn on_epoch(&mut self, _: &EpochRecord) -> Result<()> {
        Ok(())
    }
    fn stop(&self) -> bool {
        self.steps >= self.at
    }
    fn warn(&mut self, message: &str) {
        panic!("{message}");
    }
}

#[test]
fn one_rank_stops_all_and_any_number_of_ranks_goes_on() {
    let split = images();
    let config = config(OptimizerKind::Adam, 8);
    let task = Task::hard("net", &config, &split);
    let whole = hash(trainer::train(&best(1), &task, None, &mut Silent).unwrap().model);
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("net");
    let go_on = |ranks, stops: Option<usize>| {
        on_each(ranks, |context, communicator| {
            // Only the last rank is asked.
            let asked = stops.filter(|_| communicator.rank() + 1 == communicator.size());
            let mut observer = StopsAt { at: asked.unwrap_or(usize::MAX), steps: 0 };
            // The others have no such folder.
            let folder =
                if communicator.rank() == 0 { &checkpoints } else { Path::new("/nowhere") };
            trainer::train_together(context, &task, communicator, Some(folder), &mut observer)
                .map(|trained| hash(trained.model))
        })
    };
    for (ranks, stops) in [(4, 1), (2, 3), (8, 2), (1, 1)] {
        for outcome in go_on(ranks, Some(stops)) {
            assert!(matches!(outcome, Err(Error::Interrupted { .. })), "{outcome:?}");
        }
    }
    let ended: Vec<String> = go_on(2, None).into_iter().map(Result::unwrap).collect();
    assert_eq!(ended, vec![whole; 2]);
}

#[test]
fn what_cannot_be_shared_is_refused_on_all_ranks() {
    let split = images();
    let refusals = |ranks, config: &(dyn Fn(usize) -> Config + Sync)| -> Vec<String> {
        on_each(ranks, |context, communicator| {
            let config = config(communicator.rank());
            let task = Task::hard("net", &config, &split);
            let outcome = trainer::train_together(context, &task, communicator, None, &mut Silent);
            outcome.err().expect("it was trained").to_string()
        })
    };
    for message in refusals(4, &|_| config(OptimizerKind::Adam, 2)) {
        assert!(message.contains("found 4, expected a power of two up to 2"), "{message}");
    }
    for message in
        refusals(2, &|rank| Config { seed: rank as u64, ..config(OptimizerKind::Adam, 2) })
    {
        assert!(message.contains("found another on rank 1 than on rank 0"), "{message}");
    }
    let diverging = |_| {
        let mut config = config(OptimizerKind::Sgd, 4);
        config.training.learning_rate = 1e30;
        config.training.max_norm = None;
        config
    };
    let all = refusals(4, &diverging);
    assert!(all[0].starts_with("diverged"), "{}", all[0]);
    assert_eq!(all, vec![all[0].clone(); 4]);
}

#[test]
fn a_stranger_is_named() {
    let found = on_each(4, |_, communicator| {
        let text = if communicator.rank() == 2 { "b" } else { "a" };
        communicator.agree("the data", text).unwrap_err().to_string()
    });
    for message in found {
        assert!(message.starts_with("the data: found another on rank 2 than"), "{message}");
    }
    on_each(2, |_, communicator| communicator.agree("the data", "a").unwrap());
    let error = on_each(3, |_, communicator| communicator.agree("the data", "a").unwrap_err());
    assert!(error[1].to_string().contains("found 3, expected a power of two"));
}

const HOW: How = How { overlap: true, bytes_per_value: 4.0 };

/// Two layers of 1 MB and 2 MB, whose step takes 1 + 2 forwards, 3 + 4 backwards and 0.5 ms.
fn node() -> NodeStep {
    let layers = vec![(1e-3, 3e-3, 1e6), (2e-3, 4e-3, 2e6)];
    NodeStep { batch: 8, layers, update: 0.5e-3 }
}

#[test]
fn the_model_has_its_limits() {
    let node = node();
    let network = |latency, bandwidth| Network { latency, bandwidth, addition: f64::INFINITY };
    assert!((node.alone() - 10.5e-3).abs() < 1e-12);
    // One node, or a network that costs nothing.
    assert_eq!(node.on(1, network(1.0, 1.0), HOW), node.alone());
    let free = node.on(64, network(0.0, f64::INFINITY), HOW);
    assert!((free - node.alone()).abs() < 1e-12);
    // 2 nodes at 1 GB/s: a sum of m bytes takes m/1e9. The last layer's 2 ms hide behind the
    // 3 ms of the first, whose own 1 ms does not.
    let two = node.on(2, network(0.0, 1e9), HOW);
    assert!((two - (node.alone() + 1e-3)).abs() < 1e-12, "{two}");
    let apart = node.on(2, network(0.0, 1e9), How { overlap: false, ..HOW });
    assert!((apart - (node.alone() + 3e-3)).abs() < 1e-12, "{apart}");
    // At a tenth of that the first layer waits for the last: known after 7 ms, then 20 + 10.
    let slow = node.on(2, network(0.0, 1e8), HOW);
    assert!((slow - (7e-3 + 30e-3 + 0.5e-3)).abs() < 1e-12, "{slow}");
    let half = node.on(2, network(0.0, 1e8), How { bytes_per_value: 2.0, ..HOW });
    assert!((half - (7e-3 + 15e-3 + 0.5e-3)).abs() < 1e-12, "{half}");
    // 256 nodes: 16 messages of 1 ms a layer, and 255/128 of its bytes.
    let many = network(1e-3, 1e9).sum(256, 1e6);
    assert!((many - (16e-3 + 1e-3 * 255.0 / 128.0)).abs() < 1e-12, "{many}");
}

#[test]
fn a_steps_time_is_shared_out_by_operations() {
    let model = Mlp::new(&[30, 20, 10], 0);
    let node = NodeStep::of(&model, 4, 0.3, 0.1);
    assert!((node.alone() - 0.3).abs() < 1e-12);
    // 600 multiplications in two products of the first layer, 200 in three of the second.
    let part = 0.2 / (2.0 * 600.0 + 3.0 * 200.0);
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
    close(node.layers[0].0, 600.0 * part);
    close(node.layers[0].1, 600.0 * part);
    close(node.layers[1].1, 400.0 * part);
    assert_eq!(node.layers[1].2, 4.0 * 210.0);
}
