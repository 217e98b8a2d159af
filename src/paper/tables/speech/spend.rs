//! The nets of the experiment: their names, their loss, and what a preset spends on them.

use super::{alignment, labelled::Labelled};
use crate::engine::config::{Config, DatasetKind, OptimizerKind};
use crate::engine::{distill, loss::LossSpec, mlp::Mlp};
use crate::paper::preset::Preset;
use crate::speech::{aligner::AlignerOptions, features};
use limbeck_kernels::Context;

pub(super) const MEMBER: &str = "member";
pub(super) const ENSEMBLE: &str = "ensemble";
/// Weight of the hard term in the student's loss (paper, section 4).
pub(super) const HARD_WEIGHT: f64 = 0.5;

pub(super) fn student_at(temperature: f64) -> String {
    format!("student, T = {temperature}")
}

pub(super) fn loss_at(temperature: f64) -> LossSpec {
    let (temperature, hard_weight) = (temperature as f32, HARD_WEIGHT as f32);
    LossSpec { temperature, soft_weight: 1.0, hard_weight }
}

pub(super) struct Spend {
    pub(super) alignment: alignment::Spend,
    /// Of the members.
    pub(super) member: Config,
    pub(super) student: Config,
    pub(super) members: u64,
    pub(super) temperatures: &'static [f64],
    /// At the chosen temperature.
    pub(super) students: u64,
}

impl Spend {
    /// For nets of so many `states`.
    pub(super) fn new(preset: Preset, states: usize) -> Spend {
        // Dropout and epochs of the standard nets are those with the fewest held-out errors of those
        // in results/speech-standard/README.md. An epoch of perturbed frames is one of each warp.
        let (layers, [epochs, member_epochs, student_epochs]): (&[usize], _) = match preset {
            Preset::Smoke => (&[64], [3, 1, 2]),
            Preset::Quick => (&[256, 256], [4, 2, 4]),
            Preset::Standard => (&[512, 512, 512], [8, 4, 6]),
            Preset::Paper => (&[1024, 1024, 1024], [12, 8, 16]),
        };
        let mut config = Config::default();
        let inputs = 26 * features::BINS;
        config.model.layers = [&[inputs], layers, &[states]].concat();
        (config.data.dataset, config.data.classes) = (DatasetKind::An4, states);
        config.training.epochs = epochs;
        config.training.batch_size = 256;
        config.training.optimizer = OptimizerKind::Adam;
        config.training.learning_rate = 1e-3;
        if preset != Preset::Smoke {
            let hidden = std::iter::repeat_n(0.15, layers.len());
            config.model.dropout = Some(std::iter::once(0.0).chain(hidden).collect());
        }
        let mut member = config.clone();
        member.training.epochs = member_epochs;
        // Soft targets are a regulariser themselves.
        let mut student = config.clone();
        student.model.dropout = None;
        student.training.epochs = student_epochs;
        let small = AlignerOptions { iterations: 12, gaussians: 250, settling: 4 };
        let medium = AlignerOptions { iterations: 20, gaussians: 500, settling: 6 };
        let (recipe, members, temperatures, students): (_, _, &[f64], _) = match preset {
            Preset::Smoke => (small, 2, &[2.0], 1),
            Preset::Quick => (medium, 3, &[2.0, 5.0], 1),
            Preset::Standard => (AlignerOptions::default(), 10, &[1.0, 2.0, 5.0, 10.0], 3),
            Preset::Paper => (AlignerOptions::default(), 10, &[1.0, 2.0, 5.0, 10.0], 5),
        };
        let alignment = alignment::Spend { recipe, config };
        Spend { alignment, member, student, members, temperatures, students }
    }
}

/// The logits of the members' mean posterior on held-out and test frames.
pub(super) fn mean_logits(context: &Context, corpus: &Labelled, members: &[Mlp]) -> [Vec<f32>; 2] {
    [&corpus.holdout, &corpus.dataset.test]
        .map(|split| distill::teacher_logits(context, members, split, 1.0, None))
}
