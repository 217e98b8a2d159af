//! What the nodes of an experiment are known by.

use crate::run::folder::file_stem;
use std::fmt::{self, Display, Formatter};

/// What a node leaves in the run folder, by which it is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The row of the summary of this variant and seed, and its model where it is that of one.
    Row(String, u64),
    /// The measures of that row, where they need more than the model itself.
    Measures(String, u64),
    /// The file of this name.
    File(&'static str),
}

impl Key {
    /// The row of a variant and a seed.
    pub fn row(variant: impl Into<String>, seed: u64) -> Key {
        Key::Row(variant.into(), seed)
    }

    /// What its lock in the run folder is called.
    pub(super) fn lock_name(&self) -> String {
        match self {
            Key::Row(variant, seed) | Key::Measures(variant, seed) => file_stem(variant, *seed),
            Key::File(name) => name.to_string(),
        }
    }

    pub(super) fn variant(&self) -> Option<&str> {
        match self {
            Key::Row(variant, _) | Key::Measures(variant, _) => Some(variant),
            Key::File(_) => None,
        }
    }

    pub(super) fn seed(&self) -> Option<u64> {
        match self {
            Key::Row(_, seed) | Key::Measures(_, seed) => Some(*seed),
            Key::File(_) => None,
        }
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Key::Row(variant, seed) => write!(f, "{variant}, seed {seed}"),
            Key::Measures(variant, seed) => write!(f, "measures of {variant}, seed {seed}"),
            Key::File(name) => f.write_str(name),
        }
    }
}
