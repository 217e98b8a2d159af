//! The paper's section 3, first table: teacher, plain net, and the same net distilled.
//!
//! | system | net | training |
//! |---|---|---|
//! | teacher | 784-1200-1200-10 | dropout, ±2-pixel jitter, labels |
//! | baseline | 784-800-800-10 | labels, no regularisation |
//! | student | 784-800-800-10 | the teacher's soft targets on the untranslated images |
//!
//! Baseline and student share the budget, the optimiser, the initial weights and the order of
//! the examples; only the targets differ.

use super::{Lab, load_model, manifest, train_model};
use crate::config::{Config, DatasetKind, DistillationConfig, OptimizerKind};
use crate::distill;
use crate::error::{Error, Result};
use crate::loss::Objective;
use crate::run::{Row, RunFolder, Summary, atomic_write};
use crate::trainer::Task;
use limbeck_datasets::Dataset;
use std::fs;
use std::path::Path;

/// How much to spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Under 2 minutes on 2 cores: smaller nets, few epochs.
    Quick,
    /// Under 30 minutes: the paper's nets.
    Standard,
    /// Hours: the paper's nets, trained to the end.
    Paper,
}

impl Preset {
    /// Its name on the command line and in `summary.json`.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Quick => "quick",
            Preset::Standard => "standard",
            Preset::Paper => "paper",
        }
    }
}

/// The paper's test errors.
pub const PAPER: [(&str, u64); 3] = [("teacher", 67), ("baseline", 146), ("student", 74)];

/// The three models of one preset.
pub struct Plan {
    /// With dropout and jitter.
    pub teacher: Config,
    /// The small net on labels.
    pub baseline: Config,
    /// The same on soft targets.
    pub student: Config,
}

/// Widths, epochs and, for `quick`, how many of the training examples.
///
/// A teacher that is trained for a minute on all of MNIST is worse than the plain net and has
/// nothing to teach; on few examples the plain net overfits and the order shows. The embedded
/// glyphs have few examples anyway: their epochs are short, and there are more of them. The
/// teacher gets twice the student's epochs, because dropout and jitter make it learn slowly and
/// it is the student's ceiling.
pub fn plan(preset: Preset, dataset: &Dataset) -> Plan {
    let full = dataset.name == "mnist";
    let (widths, epochs, train_limit) = match preset {
        Preset::Quick => ((800, 400), (40, 30), Some(8_000)),
        Preset::Standard if full => ((1200, 800), (120, 60), None),
        Preset::Standard => ((1200, 800), (120, 80), None),
        Preset::Paper if full => ((1200, 800), (400, 300), None),
        Preset::Paper => ((1200, 800), (400, 200), None),
    };
    let config = |width: usize, epochs: usize| {
        let mut config = Config::default();
        config.model.layers = vec![dataset.train.image_size(), width, width, dataset.classes];
        config.data.train_limit = train_limit;
        config.data.dataset = if full { DatasetKind::Mnist } else { DatasetKind::Glyphs };
        config.training.epochs = epochs;
        config.training.optimizer = OptimizerKind::Adam;
        config.training.learning_rate = 1e-3;
        config
    };
    let mut teacher = config(widths.0, epochs.0);
    teacher.model.dropout = Some(vec![0.2, 0.5, 0.5]);
    teacher.data.jitter = Some(2);
    let baseline = config(widths.1, epochs.1);
    let mut student = baseline.clone();
    student.distillation =
        Some(DistillationConfig { hard_weight: 0.0, ..DistillationConfig::default() });
    Plan { teacher, baseline, student }
}

/// Trains the three models for `seeds` seeds from `first_seed` on, in the run folder `out`.
///
/// A folder in which the same experiment was begun is continued: finished models are kept,
/// the interrupted one goes on from its last checkpoint.
///
/// # Errors
/// [`Error::Usage`] if `out` holds another run; those of training and writing.
pub fn reproduce(
    lab: &mut Lab,
    dataset: &Dataset,
    preset: Preset,
    (first_seed, seeds): (u64, u64),
    out: &Path,
) -> Result<Summary> {
    let mut plan = plan(preset, dataset);
    let all: Vec<u64> = (first_seed..first_seed + seeds).collect();
    let (folder, mut rows) = open(lab, dataset, preset, &plan, &all, out)?;
    let (inputs, classes) = (dataset.train.image_size(), dataset.classes);
    let limit = plan.teacher.data.train_limit.unwrap_or(dataset.train.len());
    let train = dataset.train.clone().truncated(limit);
    for seed in all {
        for config in [&mut plan.teacher, &mut plan.baseline, &mut plan.student] {
            config.seed = seed;
        }
        let split = &train;
        let task = |name, config, objective, teacher_logits| Task {
            name,
            config,
            split,
            objective,
            teacher_logits,
        };
        let mut finish = |lab: &mut Lab, task: Task| {
            if let Some(done) = rows.iter().find(|r: &&Row| r.system == task.name && r.seed == seed)
            {
                return load_model(&folder.root.join(&done.model), inputs, classes);
            }
            let (model, row) = train_model(lab, &folder, dataset, &task, seed)?;
            rows.push(row);
            let summary = Summary::new("mnist", &dataset.name, preset.name(), rows.clone(), &PAPER);
            folder.write_json("summary.json", &summary)?;
            Ok(model)
        };
        let teacher = finish(lab, task("teacher", &plan.teacher, Objective::HARD, None))?;
        finish(lab, task("baseline", &plan.baseline, Objective::HARD, None))?;
        let objective = Objective::soft(&plan.student);
        let logits = distill::teacher_logits(lab.context, &[teacher], split, objective.temperature);
        finish(lab, task("student", &plan.student, objective, Some(&logits)))?;
    }
    Ok(Summary::new("mnist", &dataset.name, preset.name(), rows, &PAPER))
}

/// A new run folder with its manifest and configurations, or the one of an interrupted run with
/// its rows.
fn open(
    lab: &Lab,
    dataset: &Dataset,
    preset: Preset,
    plan: &Plan,
    seeds: &[u64],
    out: &Path,
) -> Result<(RunFolder, Vec<Row>)> {
    let configs = [
        ("config-teacher.toml", &plan.teacher),
        ("config-baseline.toml", &plan.baseline),
        ("config-student.toml", &plan.student),
    ];
    if !out.join("manifest.json").exists() {
        let folder = RunFolder::create(out)?;
        for (name, config) in configs {
            atomic_write(&folder.root.join(name), config.to_toml()?.as_bytes())?;
        }
        let mut manifest = manifest(lab, dataset, seeds.to_vec());
        manifest.loss_contract = Some(Objective::soft(&plan.student).contract());
        folder.write_json("manifest.json", &manifest)?;
        return Ok((folder, Vec::new()));
    }
    let folder = RunFolder::open(out)?;
    folder.expect_data(&dataset.sha256)?;
    for (name, config) in configs {
        let path = folder.root.join(name);
        let found = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        if found != config.to_toml()? {
            return Err(Error::Usage(format!(
                "{}: found the configuration of another run, expected that of preset {} on {}; \
                 choose another --out",
                path.display(),
                preset.name(),
                dataset.name
            )));
        }
    }
    let path = folder.summary();
    if !path.exists() {
        return Ok((folder, Vec::new()));
    }
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let summary: Summary = serde_json::from_str(&text).map_err(|e| Error::Data {
        path,
        what: "summary".into(),
        found: e.to_string(),
        expected: "the summary of an interrupted run".into(),
    })?;
    Ok((folder, summary.rows))
}
