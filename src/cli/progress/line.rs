//! A training run as one line on a terminal, or as a line per epoch in a log.

use super::dashboard::Dashboard;
use super::session::{Session, to_stderr};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use limbeck::Result;
use limbeck::engine::trainer::{EpochRecord, Observer, Progress};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between two updates of the line.
const REFRESH: Duration = Duration::from_millis(100);

/// Whatever suits stderr and the user.
pub fn observer(session: &Session) -> Box<dyn Observer> {
    if session.quiet {
        return Box::new(ProgressLine { shown: Shown::Nothing, peak: 0.0 });
    }
    let peak = session.peak();
    if !std::io::stderr().is_terminal() {
        return Box::new(ProgressLine { shown: Shown::Log { last: None }, peak });
    }
    if session.tui {
        return Box::new(Dashboard::new(peak));
    }
    let style = ProgressStyle::with_template("{prefix} {bar:10} {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let shown = Shown::Bar { bar: bar.with_style(style), updated: None };
    Box::new(ProgressLine { shown, peak })
}

/// Shows a run on stderr.
struct ProgressLine {
    shown: Shown,
    /// Floating-point operations a second.
    peak: f64,
}

enum Shown {
    /// A terminal: one line, redrawn.
    Bar {
        /// The line.
        bar: ProgressBar,
        /// When it was last updated; never before the first step.
        updated: Option<Instant>,
    },
    /// A file or a pipe: a line for each finished epoch.
    Log {
        /// The last step seen, for what an epoch's record leaves out.
        last: Option<Progress>,
    },
    /// Warnings only.
    Nothing,
}

impl Observer for ProgressLine {
    fn on_step(&mut self, progress: &Progress) {
        match &mut self.shown {
            Shown::Bar { bar, updated } => {
                let is_last = progress.epoch == progress.epochs && progress.step == progress.steps;
                if !is_last && updated.is_some_and(|updated| updated.elapsed() < REFRESH) {
                    return;
                }
                *updated = Some(Instant::now());
                let done = (progress.epoch - 1) * progress.steps + progress.step;
                bar.set_length((progress.epochs * progress.steps) as u64);
                bar.set_position(done as u64);
                let Progress { model, epoch, epochs, .. } = progress;
                bar.set_prefix(format!("{model} epoch {epoch}/{epochs}"));
                bar.set_message(figures(progress, self.peak));
            }
            Shown::Log { last } => *last = Some(progress.clone()),
            Shown::Nothing => {}
        }
    }

    fn on_epoch(&mut self, _: &EpochRecord) -> Result<()> {
        if let Shown::Log { last: Some(progress) } = &self.shown {
            let Progress { model, epoch, epochs, .. } = progress;
            to_stderr(&format!("{model} epoch {epoch}/{epochs}  {}", figures(progress, self.peak)));
        }
        Ok(())
    }

    fn warn(&mut self, message: &str) {
        let print = || to_stderr(&format!("warning: {message}"));
        match &self.shown {
            Shown::Bar { bar, .. } => bar.suspend(print),
            _ => print(),
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if let Shown::Bar { bar, .. } = &self.shown {
            bar.finish_and_clear();
        }
    }
}

/// The most wanted first: a narrow terminal cuts the end off.
fn figures(progress: &Progress, peak: f64) -> String {
    let rate =
        limbeck::engine::metrics::error_rate(progress.errors as usize, progress.examples as usize);
    format!(
        "{} left  loss {:.4}  errors {:.2} %  {:.0} samples/s  {:.1} GFLOP/s, {}",
        clock(progress.remaining),
        progress.loss,
        100.0 * rate,
        progress.samples_per_second,
        progress.gflops,
        share_of_peak(progress.gflops, peak)
    )
}

/// `91 % of peak`: of so many floating-point operations a second.
pub fn share_of_peak(gflops: f64, peak: f64) -> String {
    format!("{:.0} % of peak", 1e11 * gflops / peak)
}

/// Hours, minutes and seconds: `1:02:03`, `2:03`.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_clocks() {
        let shown = [0, 59, 61, 3599, 3600, 90_061].map(|s| clock(Duration::from_secs(s)));
        assert_eq!(shown, ["0:00", "0:59", "1:01", "59:59", "1:00:00", "25:01:01"]);
    }
}
