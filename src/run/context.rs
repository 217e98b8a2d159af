//! The context of a run: the machine, the data folder, the observer, and the other processes.

use crate::engine::{communicator::Communicator, trainer::Observer};
use crate::files::error::{Error, Result};
use crate::run::manifest::Manifest;
use limbeck_datasets::Dataset;
use limbeck_kernels::Context;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// The context of a run, which every experiment and every training gets.
pub struct RunContext<'a> {
    /// Instruction set and threads of the kernels.
    pub context: &'a Context,
    /// The folder that holds the data sets `mnist/` and `an4/`, if one is known.
    pub data: Option<&'a Path>,
    /// The words of the command line, for the manifest.
    pub command: Vec<String>,
    /// Commit of the source, where known, for the manifest.
    pub git_commit: Option<String>,
    /// Is told of each step and each epoch.
    pub observer: &'a mut dyn Observer,
    /// Set by another thread or a signal: the run ends after its current step.
    pub stop: &'a AtomicBool,
    /// The other ranks, if this is rank 0 of several that train each model together.
    pub communicator: Option<&'a mut Communicator>,
    /// The kernels' measured peak in 10⁹ floating-point operations a second, for the manifest.
    pub peak_gflops: Option<f64>,
}

impl<'a> RunContext<'a> {
    /// The context of a run of this process alone, without a data folder.
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

    /// Checks whether the run may go on.
    ///
    /// # Errors
    /// [`Error::Interrupted`] once [`RunContext::stop`] is set.
    pub fn go_on(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted { command: None });
        }
        Ok(())
    }
}

/// The manifest of a run that begins now, for the caller to add loss contract and configuration.
pub fn manifest(run: &RunContext, dataset: &Dataset, seeds: Vec<u64>) -> Manifest {
    let isa = run.context.isa.to_string();
    let threads = run.context.pool.threads();
    let mut manifest = Manifest::new(run.command.clone(), run.git_commit.clone(), &isa, threads);
    manifest.peak_gflops = run.peak_gflops;
    manifest.seeds = seeds;
    manifest.data = dataset.sha256.clone();
    manifest
}
