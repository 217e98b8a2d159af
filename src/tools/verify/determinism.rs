//! The determinism matrix: one hash of the weights, whatever they were computed with.
//!
//! Two fixed trainings, on glyphs drawn for them: a teacher with dropout, jitter, Nesterov momentum,
//! max-norm, weight decay and averaged weights, and a student of its logits with Adam. They run on
//! every available instruction set, with 1, 2, 3, 4 and 8 threads, with the optimiser fused with
//! backpropagation and apart from it, several times each; and, through [`Matrix::merge`], in other
//! builds of this program. A cell's hash is the SHA-256 of both models' parameters in the order of
//! the model file.

use super::{Faults, Place, THREADS};
use crate::engine::config::{Config, OptimizerKind, Precision};
use crate::engine::trainer::{self, Task};
use crate::engine::{distill, loss::LossSpec};
use crate::files::digest::sha256_of;
use crate::files::error::{Error, Result};
use limbeck_datasets::{Split, glyphs};
use limbeck_kernels::{Context, Isa};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// One way of computing the weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// How the program was built, see [`build`].
    pub build: String,
    /// The instruction set.
    pub isa: String,
    /// Threads.
    pub threads: usize,
    /// Whether the optimiser's step is fused with backpropagation.
    pub fused: bool,
    /// The hash of each repeat: all the same, if all is well.
    pub sha256: Vec<String>,
}

/// The determinism matrix.
#[derive(Clone, Debug, Serialize)]
pub struct Matrix {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What the trainings' matrix products are computed in.
    pub precision: Precision,
    /// Trainings of each cell.
    pub repeats: usize,
    /// The most frequent hash; the only one, if all is well.
    pub sha256: String,
    /// How many different hashes there are: 1, if all is well.
    pub distinct: usize,
    /// Every combination.
    pub cells: Vec<Cell>,
    /// The cells that deviate.
    pub faults: Faults,
}

/// How this program was built: optimisation level, and whether with assertions.
pub fn build() -> String {
    let assertions = if cfg!(debug_assertions) { " with assertions" } else { "" };
    format!("opt-level {}{assertions}", env!("LIMBECK_OPT_LEVEL"))
}

/// The matrix of this build, each cell `repeats` times.
///
/// # Errors
/// [`Error::Usage`] when the operating system refuses the threads; those of training.
pub fn verify(repeats: usize, precision: Precision) -> Result<Matrix> {
    let split = glyphs::load(SEED, EXAMPLES, 1).train;
    let mut cells = Vec::new();
    for isa in Isa::available() {
        for threads in THREADS {
            let context = Context::new(isa, threads).map_err(Error::Usage)?;
            for fused in [true, false] {
                let hash = |_| train(&context, &split, fused, precision);
                let sha256 = (0..repeats).map(hash).collect::<Result<_>>()?;
                cells.push(Cell { build: build(), isa: isa.to_string(), threads, fused, sha256 });
            }
        }
    }
    Ok(Matrix::of(repeats, precision, cells))
}

impl Matrix {
    fn of(repeats: usize, precision: Precision, cells: Vec<Cell>) -> Matrix {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for hash in cells.iter().flat_map(|cell| &cell.sha256) {
            *counts.entry(hash).or_default() += 1;
        }
        let distinct = counts.len();
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let sha256 = most.map(|(hash, _)| hash.to_string()).unwrap_or_default();
        let mut faults = Faults::default();
        for Cell { build, isa, threads, fused, sha256: hashes } in &cells {
            let other: Vec<&str> =
                hashes.iter().filter(|&hash| *hash != sha256).map(|hash| &hash[..]).collect();
            if let Some(hash) = other.first() {
                let (n, of) = (other.len(), hashes.len());
                let fused = if *fused { "fused" } else { "unfused" };
                faults.add(|| {
                    format!(
                        "{build}, {isa}, {threads} threads, {fused}: {n} of {of} repeats give \
                         {hash}, not {sha256}"
                    )
                });
            }
        }
        Matrix { place: Place::here(), precision, repeats, sha256, distinct, cells, faults }
    }

    /// Both matrices in one: those of two builds.
    #[must_use]
    pub fn merge(mut self, cells: Vec<Cell>) -> Matrix {
        self.cells.extend(cells);
        Matrix::of(self.repeats, self.precision, self.cells)
    }
}

const SEED: u64 = 1503;
const EXAMPLES: usize = 96;

/// Trains teacher and student, and hashes both.
fn train(context: &Context, split: &Split, fused: bool, precision: Precision) -> Result<String> {
    let mut config = Config { seed: SEED, ..Config::default() };
    config.training.precision = precision;
    config.data.jitter = Some(2);
    // No layer is a whole number of vectors wide, and the last batch of an epoch is short.
    config.model.layers = vec![784, 39, 21, 10];
    config.model.dropout = Some(vec![0.2, 0.5, 0.5]);
    config.training.epochs = 2;
    config.training.batch_size = 37;
    config.training.optimizer = OptimizerKind::Nesterov;
    config.training.max_norm = Some(0.9);
    config.training.weight_decay = 1e-4;
    config.training.average = 0.9;
    let run = |task: &Task| match fused {
        true => trainer::train(context, task, None, &mut ()),
        false => trainer::train_unfused(context, task, &mut ()),
    };
    let teachers = [run(&Task::hard("teacher", &config, split))?.model];
    let objective = LossSpec { temperature: 20.0, soft_weight: 1.0, hard_weight: 0.05 };
    let t = objective.temperature;
    let logits = distill::teacher_logits(context, &teachers, split, t, Some(2));
    config.training.optimizer = OptimizerKind::Adam;
    config.training.learning_rate = 1e-3;
    let student = run(&Task::soft("student", &config, split, objective, &logits))?.model;
    Ok(sha256_of([&teachers[0], &student].map(|model| model.to_file().sha256())))
}

impl Display for Matrix {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Matrix { place: here, precision, repeats, sha256, distinct, cells, .. } = self;
        write!(f, "{}", here)?;
        writeln!(f, "{:<28} {:<9} {:>7} {:<8} SHA-256", "build", "ISA", "threads", "")?;
        for cell in cells {
            let fused = if cell.fused { "fused" } else { "unfused" };
            let Cell { build, isa, threads, .. } = cell;
            let mut hashes = cell.sha256.clone();
            hashes.dedup();
            writeln!(f, "{build:<28} {isa:<9} {threads:>7} {fused:<8} {}", hashes.join(" "))?;
        }
        let (n, precision) = (cells.len(), precision.name());
        writeln!(
            f,
            "{n} cells in {precision}, {repeats} repeats each: {distinct} hash(es), {sha256}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(build: &str, hashes: &[&str]) -> Cell {
        let sha256 = hashes.iter().map(|hash| hash.to_string()).collect();
        Cell { build: build.into(), isa: "avx2".into(), threads: 3, fused: false, sha256 }
    }

    #[test]
    fn a_deviating_cell_is_named() {
        let cells = vec![cell("opt-level 3", &["a", "a"])];
        let matrix = Matrix::of(2, Precision::F32, cells);
        assert_eq!((matrix.distinct, &matrix.sha256[..]), (1, "a"));
        matrix.faults.verdict().unwrap();
        let matrix = matrix.merge(vec![cell("opt-level 0", &["a", "b"])]);
        assert_eq!((matrix.distinct, matrix.cells.len(), &matrix.sha256[..]), (2, 2, "a"));
        let error = matrix.faults.verdict().unwrap_err();
        assert_eq!(error.exit_code(), 70);
        let named = "opt-level 0, avx2, 3 threads, unfused: 1 of 2 repeats give b, not a";
        assert!(error.to_string().contains(named), "{error}");
    }

    #[test]
    fn each_training_moves_the_hash() {
        let context = Context::new(Isa::best(), 1).unwrap();
        let of = |examples, precision| {
            train(&context, &glyphs::load(SEED, examples, 1).train, true, precision).unwrap()
        };
        assert_eq!(of(40, Precision::F32), of(40, Precision::F32));
        assert_ne!(of(40, Precision::F32), of(41, Precision::F32));
        assert_ne!(of(40, Precision::F32), of(40, Precision::Bf16));
    }
}
