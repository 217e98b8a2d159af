//! What a run works with: the machine, the data folder, who watches and who may stop it.

use crate::engine::communicator::Communicator;
use crate::engine::trainer::Observer;
use crate::files::error::{Error, Result};
use crate::run::manifest::Manifest;
use limbeck_datasets::Dataset;
use limbeck_kernels::Context;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a run works with.
pub struct RunContext<'a> {
    /// Kernels and threads.
    pub context: &'a Context,
    /// The folder that holds `mnist/`.
    pub data: Option<&'a Path>,
    /// The command line, for the manifest.
    pub command: Vec<String>,
    /// Commit of the source, where known, for the manifest.
    pub git_commit: Option<String>,
    /// Who watches.
    pub observer: &'a mut dyn Observer,
    /// Set from outside to end the run after the step at hand.
    pub stop: &'a AtomicBool,
    /// The other ranks, where this is rank 0 of several that train its models together.
    pub communicator: Option<&'a mut Communicator>,
    /// What the machine can do, 10⁹ operations per second, where it was measured; for the manifest.
    pub peak_gflops: Option<f64>,
}

impl<'a> RunContext<'a> {
    /// A run of this process alone, without data.
    pub fn new(
        context: &'a Context,
        observer: &'a mut dyn Observer,
        stop: &'a AtomicBool,
    ) -> RunContext<'a> {
        RunContext {
            context,
            data: None,
            command: Vec::new(),
            git_commit: None,
            observer,
            stop,
            communicator: None,
            peak_gflops: None,
        }
    }

    /// # Errors
    /// [`Error::Interrupted`] when the run is to end.
    pub fn go_on(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted { command: None });
        }
        Ok(())
    }
}

/// The manifest of this run, to be completed by the experiment.
pub fn manifest(run: &RunContext, dataset: &Dataset, seeds: Vec<u64>) -> Manifest {
    let isa = run.context.isa.to_string();
    let threads = run.context.pool.threads();
    let mut manifest = Manifest::new(run.command.clone(), run.git_commit.clone(), &isa, threads);
    manifest.peak_gflops = run.peak_gflops;
    manifest.seeds = seeds;
    manifest.data = dataset.sha256.clone();
    manifest
}
