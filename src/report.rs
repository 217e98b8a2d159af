//! Results for people to look at.

pub mod chart;
pub mod claims;
pub mod trust;
