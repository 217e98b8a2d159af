//! For people who benchmark and verify.

pub mod bench;
pub mod check;
pub mod derivations;
pub mod verify;
