//! The paper's experiments: each declared in one file, all run by one scheduler.
//!
//! An [`Experiment`] says what it is about and returns a graph of models
//! and what is concluded from them. The [`scheduler`] does the rest. A new table is one file in
//! [`tables`] and one line in [`EXPERIMENTS`].

pub mod experiment;
pub mod experiment_run;
pub mod graph;
pub mod key;
pub mod preset;
pub mod request;
pub mod scheduler;
pub mod specialists;
pub mod tables;

use crate::files::error::Result;
use crate::run::context::RunContext;
use experiment::{Experiment, Input, Outcome, Setup};
use request::Request;
use std::path::Path;

/// In the order of `reproduce all`: the first trains the teachers of the others.
pub const EXPERIMENTS: [&dyn Experiment; 8] = [
    &tables::mnist::Mnist,
    &tables::omitted::Omitted,
    &tables::temperature::Temperature,
    &tables::logits::Logits,
    &tables::variance::Variance,
    &tables::speech::Speech,
    &tables::regularizer::Regularizer,
    &tables::specialists::Specialists,
];

/// Does an experiment on `input` in the run folder `out`, or goes on with it there.
///
/// # Errors
/// Those of [`Experiment::declare`] and [`scheduler::execute`].
pub fn reproduce(
    run: &mut RunContext,
    experiment: &dyn Experiment,
    request: &Request,
    input: &Input,
    out: &Path,
) -> Result<Outcome> {
    let spec = experiment.declare(Setup { run: &mut *run, request, input, out })?;
    let summary = scheduler::execute(run, request, spec, out)?;
    Ok(Outcome { run: out.to_path_buf().into(), summary })
}
