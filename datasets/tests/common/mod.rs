//! What the machine of a test has, and what its environment says it must have.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};

/// Whether `LIMBECK_REQUIRE`, names with commas between them, lists it: then its test must not be skipped.
pub fn is_required(name: &str) -> bool {
    let required = std::env::var("LIMBECK_REQUIRE").unwrap_or_default();
    required.split(',').any(|item| item.trim() == name)
}

/// The data folder, if it holds `found`; `None` and a line that says so where it is not required.
pub fn data_dir(found: fn(&Path) -> bool) -> Option<PathBuf> {
    let dir = std::env::var_os("LIMBECK_DATA").map(PathBuf::from).filter(|dir| found(dir));
    if dir.is_none() {
        assert!(
            !is_required("data"),
            "LIMBECK_REQUIRE lists data, which LIMBECK_DATA does not hold"
        );
        eprintln!("SKIPPED: LIMBECK_DATA names no folder with the data");
    }
    dir
}
