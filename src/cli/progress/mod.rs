//! What a user sees of training: a line, a log or a dashboard.

mod dashboard;
mod format;
mod line;

use crate::session::Session;
use dashboard::Dashboard;
use limbeck::engine::trainer::Observer;
use line::ProgressLine;
use std::io::IsTerminal;

/// The observer that suits stderr and the options.
pub fn observer(session: &Session) -> Box<dyn Observer> {
    match (session.quiet, std::io::stderr().is_terminal(), session.tui) {
        (true, ..) => Box::new(ProgressLine::silent()),
        (_, false, _) => Box::new(ProgressLine::log(session.peak())),
        (_, true, true) => Box::new(Dashboard::new(session.peak())),
        (_, true, false) => Box::new(ProgressLine::bar(session.peak())),
    }
}
