//! Runs as pages for a browser: a report, and a demo on which one draws.

pub mod contents;
pub mod demo;
pub mod report;

/// The look of both pages.
const STYLE: &str = include_str!("page.css");
