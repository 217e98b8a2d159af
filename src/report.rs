//! Results for people to look at.

pub mod chart;
pub mod claims;
pub mod demo;
pub mod material;
pub mod page;
pub mod trust;
