//! Results for people to look at.

pub mod demo;
pub mod material;
pub mod report;
