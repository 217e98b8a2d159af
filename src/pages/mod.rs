//! Runs as pages for a browser: a report, a gallery of several runs, and a demo on which one draws.

pub mod contents;
pub mod demo;
pub mod figure;
pub mod gallery;
pub mod headline;
mod html;
pub mod report;
