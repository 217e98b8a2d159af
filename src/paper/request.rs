//! What the user asked for.

use super::preset::Preset;
use crate::engine::config::Precision;
use std::{collections::BTreeMap, ops::Range, path::PathBuf};

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// How much to spend.
    pub preset: Preset,
    /// Seeds to train.
    pub seeds: Range<u64>,
    /// Whether to add rows that are not the paper's.
    pub extended: bool,
    /// The names of the variants that are wanted with what they need, or what such names begin with; empty
    /// for all.
    pub only: Vec<String>,
    /// What the trainings' matrix products are computed in.
    pub precision: Precision,
    /// Teachers that are given, by seed; others are trained.
    pub teachers: BTreeMap<u64, PathBuf>,
    /// The number of this process, of several that share the run folder: it begins with its
    /// `worker`-th model, from 0. Different ones get in each other's way least; 0 writes the report.
    /// `None` where the folder is this process's own.
    pub worker: Option<u32>,
}

impl Request {
    /// `seeds` of a preset by this process alone, with teachers of its own.
    pub fn new(preset: Preset, seeds: Range<u64>) -> Request {
        let (extended, precision) = (false, Precision::F32);
        let (only, teachers) = (Vec::new(), BTreeMap::new());
        Request { preset, seeds, extended, only, precision, teachers, worker: None }
    }
}
