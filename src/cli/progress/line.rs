//! Training as one line on a terminal, or as a line for each epoch in a log.

use super::format::{format_clock, format_errors, format_share_of_peak};
use crate::session::to_stderr;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use limbeck::Result;
use limbeck::engine::metrics::error_rate;
use limbeck::engine::trainer::{EpochRecord, Observer, Progress, VALIDATION, Watched};
use std::time::{Duration, Instant};

/// Time between two updates of the line.
const REFRESH: Duration = Duration::from_millis(100);

/// Shows training on stderr.
pub struct ProgressLine {
    target: Target,
    /// Of this machine, in floating-point operations a second.
    peak: f64,
}

/// Where the figures go.
enum Target {
    /// A terminal: one line, redrawn.
    Bar {
        /// The line.
        bar: ProgressBar,
        /// When it was last updated; never before the first step.
        updated: Option<Instant>,
        /// What the last epoch's model made of the validation examples.
        validation: Option<Watched>,
    },
    /// A file or a pipe: a line for each finished epoch.
    Log {
        /// The last step seen, for what an epoch's record leaves out.
        last: Option<Progress>,
    },
    /// Warnings only.
    Nothing,
}

impl ProgressLine {
    /// Nothing but warnings.
    pub fn silent() -> ProgressLine {
        ProgressLine { target: Target::Nothing, peak: 0.0 }
    }

    /// A line for each epoch, for a file or a pipe.
    pub fn log(peak: f64) -> ProgressLine {
        ProgressLine { target: Target::Log { last: None }, peak }
    }

    /// One line that is redrawn, for a terminal.
    pub fn bar(peak: f64) -> ProgressLine {
        let style = ProgressStyle::with_template("{prefix} {bar:5} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let bar = bar.with_style(style);
        ProgressLine { target: Target::Bar { bar, updated: None, validation: None }, peak }
    }
}

impl Observer for ProgressLine {
    fn on_step(&mut self, progress: &Progress) {
        match &mut self.target {
            Target::Bar { bar, updated, validation } => {
                let is_last = progress.epoch == progress.epochs && progress.step == progress.steps;
                if !is_last && updated.is_some_and(|updated| updated.elapsed() < REFRESH) {
                    return;
                }
                *updated = Some(Instant::now());
                let done = (progress.epoch - 1) * progress.steps + progress.step;
                bar.set_length((progress.epochs * progress.steps) as u64);
                bar.set_position(done as u64);
                let Progress { model, epoch, epochs, .. } = progress;
                bar.set_prefix(format!("{model} {epoch}/{epochs}"));
                bar.set_message(figures(progress, *validation, self.peak));
            }
            Target::Log { last } => *last = Some(progress.clone()),
            Target::Nothing => {}
        }
    }

    fn on_epoch(&mut self, record: &EpochRecord) -> Result<()> {
        let watched = record.watched.get(VALIDATION).copied();
        if let Target::Log { last: Some(progress) } = &self.target {
            let Progress { model, epoch, epochs, .. } = progress;
            let figures = figures(progress, watched, self.peak);
            to_stderr(&format!("{model} epoch {epoch}/{epochs}  {figures}"));
        }
        if let Target::Bar { validation, .. } = &mut self.target {
            *validation = watched;
        }
        Ok(())
    }

    fn warn(&mut self, message: &str) {
        let print = || to_stderr(&format!("warning: {message}"));
        match &self.target {
            Target::Bar { bar, .. } => bar.suspend(print),
            _ => print(),
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if let Target::Bar { bar, .. } = &self.target {
            bar.finish_and_clear();
        }
    }
}

/// The figures of a step. The most wanted come first: a narrow terminal cuts the end off, and one of 60
/// columns keeps the error rate beside a name of 20 letters.
fn figures(progress: &Progress, validation: Option<Watched>, peak: f64) -> String {
    let validation = validation.map_or(String::new(), |Watched { examples, errors, nll }| {
        format!("  validation {:.2} %, loss {nll:.4}", 100.0 * error_rate(errors, examples))
    });
    format!(
        "training errors {}{validation}  {} left  loss {:.4}  {:.0} samples/s  {:.1} GFLOP/s, {}",
        format_errors(progress),
        format_clock(progress.remaining),
        progress.loss,
        progress.samples_per_second,
        progress.gflops,
        format_share_of_peak(progress.gflops, peak)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_columns_keep_the_error_rate() {
        let progress = Progress {
            model: "student, with labels".into(),
            epoch: 1000,
            epochs: 2000,
            step: 1,
            steps: 2,
            loss: 0.125,
            errors: Some(12),
            examples: 100,
            samples_per_second: 100.0,
            gflops: 40.0,
            remaining: Duration::from_secs(61),
        };
        let Progress { model, epoch, epochs, .. } = &progress;
        let line = format!("{model} {epoch}/{epochs} {:5} {}", "", figures(&progress, None, 80e9));
        let kept: String = line.chars().take(60).collect();
        assert!(kept.contains("training errors 12.00 %"), "{kept}");
    }
}
