//! What `limbeck verify` measures: that this program's numbers are what its documentation says.
//!
//! Errors are measured against f64 and judged by bounds that are derived, not tuned; bits are
//! compared between every instruction set of the machine and several thread counts. A bound that
//! is broken, or a bit that differs, is a bug of this program: [`Error::Internal`], exit code 70.

pub mod check;
pub mod determinism;
pub mod exp;
pub mod gemm;
mod losses;
pub mod softmax;

use crate::files::error::{Error, Result};
use crate::run::manifest::cpu_model;
use limbeck_kernels::{Context, Isa};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// The thread counts that everything is tried with.
pub const THREADS: [usize; 5] = [1, 2, 3, 4, 8];

/// Where something was verified.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// The processor, as it calls itself.
    pub cpu: String,
    /// The instruction sets that were tried, best first.
    pub isas: Vec<String>,
    /// Those that this machine lacks.
    pub missing_isas: Vec<String>,
}

/// What `LIMBECK_REQUIRE` may list beside instruction sets: what tests need, and `verify` does not.
const REQUIRABLE: [&str; 6] = ["data", "mpi", "torch", "browser", "strace", "openssl"];

impl Place {
    /// This machine.
    pub fn here() -> Place {
        let names = |available: bool| {
            let all = Isa::ALL.into_iter().filter(move |isa| isa.is_available() == available);
            all.map(|isa| isa.to_string()).collect()
        };
        Place { cpu: cpu_model(), isas: names(true), missing_isas: names(false) }
    }

    /// # Errors
    /// [`Error::Usage`] if the environment's `LIMBECK_REQUIRE`, names with commas between them, lists an
    /// instruction set that this machine lacks, or a name that nothing has.
    pub fn check_required(&self) -> Result<()> {
        let required = std::env::var("LIMBECK_REQUIRE").unwrap_or_default();
        let is_known = |name: &str| {
            let isas = self.isas.iter().chain(&self.missing_isas);
            isas.map(String::as_str).chain(REQUIRABLE).any(|known| known == name)
        };
        let names = required.split(',').map(str::trim);
        if let Some(unknown) = names.filter(|name| !name.is_empty()).find(|name| !is_known(name)) {
            return Err(Error::Usage(format!(
                "LIMBECK_REQUIRE: found {unknown:?}, expected names of {}, with commas between them",
                [&self.isas[..], &self.missing_isas].concat().join(", ")
                    + ", "
                    + &REQUIRABLE.join(", ")
            )));
        }
        let is_required = |isa: &&String| required.split(',').any(|name| name.trim() == **isa);
        match self.missing_isas.iter().find(is_required) {
            None => Ok(()),
            Some(isa) => Err(Error::Usage(format!(
                "LIMBECK_REQUIRE asks for {isa}, which this machine does not have; it has {}",
                self.isas.join(", ")
            ))),
        }
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.cpu, self.isas.join(", "))?;
        if !self.missing_isas.is_empty() {
            write!(f, "; not here: {}", self.missing_isas.join(", "))?;
        }
        writeln!(f)
    }
}

/// For each worker, one context for each available instruction set and each of `threads`.
///
/// # Errors
/// [`Error::Usage`] when the operating system refuses the threads.
fn contexts(threads: &[usize]) -> Result<Vec<Vec<Context>>> {
    let each = |isa| threads.iter().map(move |&threads| Context::new(isa, threads));
    let all = |_| Isa::available().flat_map(each).collect();
    (0..workers()).map(all).collect::<std::result::Result<_, _>>().map_err(Error::Usage)
}

/// What does not hold; empty when all does.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Faults(Vec<String>);

impl Faults {
    /// Most that are listed: one mistake breaks thousands of cases.
    const LISTED: usize = 20;

    fn add(&mut self, fault: impl FnOnce() -> String) {
        if self.0.len() < Self::LISTED {
            self.0.push(fault());
        }
    }

    fn merge(&mut self, other: Faults) {
        other.0.into_iter().for_each(|fault| self.add(|| fault));
    }

    /// # Errors
    /// [`Error::Internal`] naming them, unless there is none.
    pub fn verdict(&self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Error::Internal(format!("verification failed: {}", self.0.join("; "))))
    }
}

/// How many workers to share jobs: as many as the machine runs at once, but no more than 16. Each may have
/// dozens of threads for all the contexts that it compares, and containers limit their number.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(16))
}

/// Calls `work` for every job 0 … `jobs` − 1, shared by one worker for each of `states`, and
/// `collect` for each result, in any order.
fn for_each_job<S: Send, R: Send>(
    states: Vec<S>,
    jobs: usize,
    work: impl Fn(&mut S, usize) -> R + Sync,
    collect: impl FnMut(R),
) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        for mut state in states {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                let mine = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&job| job < jobs);
                while let Some(job) = mine() {
                    sender.send(work(&mut state, job)).expect("the receiver outlives its workers");
                }
            });
        }
        drop(sender);
        results.into_iter().for_each(collect);
    });
}
