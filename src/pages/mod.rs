//! Results for people to look at.

pub mod claims;
pub mod demo;
pub mod material;
pub mod report;
pub mod trust;
