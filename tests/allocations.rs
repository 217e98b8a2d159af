//! The training loop takes no memory once it runs.
//!
//! A program without the test harness, whose own thread allocates while the test already runs.

mod common;

use limbeck::Result;
use limbeck::engine::config::Config;
use limbeck::engine::loss::LossSpec;
use limbeck::engine::trainer::{self, EpochRecord, Observer, Progress, Task};
use limbeck_kernels::{Context, Isa, Pool};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Blocks allocated by the whole process up to the end of each step.
#[derive(Default)]
struct Allocations {
    blocks: Vec<(usize, u64)>,
}

impl Observer for Allocations {
    fn on_step(&mut self, progress: &Progress) {
        self.blocks.push((progress.epoch, dhat::HeapStats::get().total_blocks));
    }

    fn on_epoch(&mut self, _: &EpochRecord) -> Result<()> {
        Ok(())
    }

    fn warn(&mut self, message: &str) {
        panic!("{message}");
    }
}

fn main() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let split = common::noise(1, 90, 5, 3);
    let teacher: Vec<f32> = common::uniform(2, 9 * 90 * 3).iter().map(|&v| v as f32).collect();
    // All kept to the end: a pool's threads allocate while they end.
    let contexts: Vec<_> = Isa::available()
        .map(|isa| (isa, Context { isa, pool: Pool::new(2).unwrap().eager() }))
        .collect();
    for (isa, context) in &contexts {
        for (optimizer, precision) in ["sgd", "nesterov", "adam"]
            .map(|name| (name, "f32"))
            .into_iter()
            .chain([("adam", "bf16")])
        {
            let config = format!(
                "[data]\ndataset = \"glyphs\"\njitter = 1\n\
                 [model]\nlayers = [784, 40, 33, 10]\ndropout = [0.2, 0.5, 0.5]\n\
                 [training]\nepochs = 3\nbatch_size = 20\nlearning_rate = 0.01\n\
                 precision = \"{precision}\"\noptimizer = \"{optimizer}\"\nmax_norm = 1.0\nweight_decay = 0.001\naverage = 0.9\n"
            );
            let mut config = Config::from_toml(&config, std::path::Path::new("test")).unwrap();
            config.model.layers = vec![20, 40, 33, 3];
            let task = Task {
                name: "student",
                config: &config,
                split: &split,
                objective: LossSpec { temperature: 4.0, soft_weight: 1.0, hard_weight: 0.1 },
                teacher_logits: Some(&teacher),
                teachers: &[],
                initial: None,
                watch: &[],
            };
            let mut allocations = Allocations { blocks: Vec::with_capacity(64) };
            trainer::train(context, &task, None, &mut allocations).unwrap();
            // An epoch's record holds the model's name; within an epoch there is nothing.
            for pair in allocations.blocks.windows(2) {
                let [(epoch, before), (same, after)] = [pair[0], pair[1]];
                assert!(epoch != same || before == after, "{isa}, {optimizer}, epoch {epoch}");
            }
            let steps = allocations.blocks.len();
            assert_eq!(steps, 3 * 5);
        }
    }
}
