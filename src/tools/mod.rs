//! For people who benchmark and verify.

pub mod bench;
pub mod check;
pub mod verify;

// For the tests to run its examples.
#[doc = include_str!("../../docs/derivations.md")]
pub mod derivations {}
