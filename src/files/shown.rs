//! Paths in results.

use serde::{Serialize, Serializer};
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// A path in a result. JSON holds text only: bytes of the path that are none become U+FFFD.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownPath(PathBuf);

impl From<PathBuf> for ShownPath {
    fn from(path: PathBuf) -> ShownPath {
        ShownPath(path)
    }
}

impl Deref for ShownPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Serialize for ShownPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.display())
    }
}
