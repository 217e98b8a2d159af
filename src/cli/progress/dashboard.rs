//! Training as a live dashboard: `--tui`.
//!
//! The dashboard takes the last lines of the terminal, below what was printed before. It leaves the
//! terminal's modes and the cursor alone: Ctrl-C remains a signal, which ends the run after its
//! step, and the terminal stays usable whatever ends the program.

use super::format::{format_clock, format_share_of_peak};
use crate::session::to_stderr;
use limbeck::engine::metrics;
use limbeck::engine::trainer::{EpochRecord, Observer, Progress};
use limbeck::{Error, Result};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph, Widget};
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};
use std::io::{Stderr, stderr};
use std::path::Path;
use std::time::{Duration, Instant};

/// Lines of the terminal that the dashboard takes.
const HEIGHT: u16 = 20;
/// Models whose curves are shown: the current one and those before it.
const MODELS: usize = 8;
/// Time between two pictures.
const REFRESH: Duration = Duration::from_millis(200);

/// Draws training on stderr.
pub struct Dashboard {
    /// Absent until the first model begins: before it, notes are printed.
    terminal: Option<Terminal<CrosstermBackend<Stderr>>>,
    view: View,
    drawn: Option<Instant>,
}

impl Dashboard {
    /// The dashboard of a machine that does `peak` floating-point operations a second.
    pub fn new(peak: f64) -> Dashboard {
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = (!is_plain).then_some(Color::Cyan);
        Dashboard { terminal: None, view: View { peak, colour, ..View::default() }, drawn: None }
    }

    /// Draws the current picture. An error is ignored: it is no reason to end a run.
    fn draw(&mut self) {
        self.drawn = Some(Instant::now());
        if let Some(terminal) = &mut self.terminal {
            let _ = terminal.draw(|frame| self.view.draw(frame));
        }
    }
}

impl Observer for Dashboard {
    fn on_start(&mut self, model: &str, _: usize) -> Result<()> {
        let failed = Error::io("draw on", Path::new("the terminal"));
        if self.terminal.is_none() {
            let options = TerminalOptions { viewport: Viewport::Inline(HEIGHT) };
            let opened = Terminal::with_options(CrosstermBackend::new(stderr()), options);
            self.terminal = Some(opened.map_err(failed)?);
        }
        // Clears what was printed since the last model.
        if let Some(terminal) = &mut self.terminal {
            let _ = terminal.clear();
        }
        self.view.curves.push(Curve { model: model.into(), ..Curve::default() });
        if self.view.curves.len() > MODELS {
            self.view.curves.remove(0);
        }
        Ok(())
    }

    fn on_step(&mut self, progress: &Progress) {
        self.view.progress = Some(progress.clone());
        if self.drawn.is_none_or(|drawn| drawn.elapsed() > REFRESH) {
            self.draw();
        }
    }

    fn on_epoch(&mut self, record: &EpochRecord) -> Result<()> {
        if let Some(curve) = self.view.curves.last_mut() {
            curve.add(record);
        }
        self.draw();
        Ok(())
    }

    fn warn(&mut self, message: &str) {
        let warning = format!("warning: {message}");
        match &mut self.terminal {
            Some(terminal) => {
                let _ = terminal.insert_before(1, |line| {
                    Paragraph::new(warning).render(line.area, line);
                });
            }
            None => to_stderr(&warning),
        }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        // What is printed next begins below the last picture.
        self.draw();
        if self.terminal.is_some() {
            to_stderr("");
        }
    }
}

/// What is drawn.
#[derive(Default)]
struct View {
    peak: f64,
    /// Of the current model; absent where colours are not wanted.
    colour: Option<Color>,
    progress: Option<Progress>,
    /// The current model's is the last.
    curves: Vec<Curve>,
}

/// A model's epochs.
#[derive(Default)]
struct Curve {
    model: String,
    /// (epoch, loss).
    loss: Vec<(f64, f64)>,
    /// (epoch, share of the training examples that were wrong, in percent).
    errors: Vec<(f64, f64)>,
}

impl Curve {
    fn add(&mut self, record: &EpochRecord) {
        let epoch = record.epoch as f64;
        self.loss.push((epoch, record.reducible_loss));
        if let Some(errors) = record.train_errors {
            let rate = metrics::error_rate(errors as usize, record.examples as usize);
            self.errors.push((epoch, 100.0 * rate));
        }
    }
}

impl View {
    fn draw(&self, frame: &mut Frame) {
        let [bar, plots, figures] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)])
                .areas(frame.area());
        let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(plots);
        self.plot(frame, left, "loss", |curve| &curve.loss);
        self.plot(frame, right, "training examples wrong, %", |curve| &curve.errors);
        frame.set_cursor_position((figures.x, figures.y));
        let Some(progress) = &self.progress else { return };
        let Progress { model, epoch, epochs, step, steps, .. } = progress;
        let done = ((epoch - 1) * steps + step) as f64 / (epochs * steps).max(1) as f64;
        let label = format!(
            "{model}  epoch {epoch}/{epochs}  step {step}/{steps}  {} left",
            format_clock(progress.remaining)
        );
        let gauge = Gauge::default().ratio(done.clamp(0.0, 1.0)).label(label);
        frame.render_widget(gauge.gauge_style(self.style(true)), bar);
        let rate = metrics::error_rate(progress.errors as usize, progress.examples as usize);
        let line = format!(
            "loss {:.4}  errors {:.2} %  {:.0} samples/s  {:.1} GFLOP/s, {}  Ctrl-C: checkpoint, end",
            progress.loss,
            100.0 * rate,
            progress.samples_per_second,
            progress.gflops,
            format_share_of_peak(progress.gflops, self.peak)
        );
        frame.render_widget(Paragraph::new(line), figures);
    }

    /// The current model's curve stands out by colour, or where there is none by not being dim.
    fn style(&self, is_current: bool) -> Style {
        match (is_current, self.colour) {
            (true, Some(colour)) => Style::new().fg(colour),
            (true, None) => Style::new(),
            (false, _) => Style::new().add_modifier(Modifier::DIM),
        }
    }

    fn plot(
        &self,
        frame: &mut Frame,
        area: Rect,
        title: &str,
        of: impl Fn(&Curve) -> &Vec<(f64, f64)>,
    ) {
        let points = || self.curves.iter().flat_map(&of);
        let epochs = self.progress.as_ref().map_or(1, |progress| progress.epochs);
        let last = points().map(|point| point.0).fold(epochs as f64, f64::max);
        // Losses of labels and of soft targets start from 0.
        let highest = points().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max);
        let current = self.curves.len().saturating_sub(1);
        let lines = self.curves.iter().enumerate().map(|(i, curve)| {
            Dataset::default()
                .name(curve.model.as_str())
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(self.style(i == current))
                .data(of(curve))
        });
        let chart = Chart::new(lines.collect())
            .block(Block::bordered().title(format!(" {title} ")))
            .x_axis(Axis::default().bounds([0.0, last]).labels(["0".into(), format!("{last}")]))
            .y_axis(
                Axis::default()
                    .bounds([0.0, highest])
                    .labels(["0".into(), format!("{highest:.3}")]),
            );
        frame.render_widget(chart, area);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::backend::TestBackend;
    use std::collections::BTreeMap;

    fn record(epoch: usize, loss: f64) -> EpochRecord {
        EpochRecord {
            model: "student".into(),
            epoch,
            loss: loss + 1.0,
            reducible_loss: loss,
            train_errors: Some(25 / epoch as u64),
            examples: 100,
            learning_rate: 0.1,
            seconds: 1.0,
            samples_per_second: 100.0,
            gflops: 40.0,
            watched: BTreeMap::new(),
        }
    }

    fn drawn(view: &View) -> String {
        let mut terminal = Terminal::new(TestBackend::new(100, HEIGHT)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let cells = terminal.backend().buffer().content.chunks(100);
        cells.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    #[test]
    fn figures_and_curves_are_drawn() {
        let is_dot = |c: char| ('\u{2801}'..='\u{28ff}').contains(&c);
        let mut view = View { peak: 80e9, ..View::default() };
        assert!(!drawn(&view).contains(is_dot));
        view.curves.push(Curve { model: "student".into(), ..Curve::default() });
        view.progress = Some(Progress {
            model: "student".into(),
            epoch: 2,
            epochs: 4,
            step: 1,
            steps: 2,
            loss: 0.125,
            errors: 5,
            examples: 100,
            samples_per_second: 100.0,
            gflops: 40.0,
            remaining: Duration::from_secs(61),
        });
        view.curves[0].add(&record(1, 0.8));
        view.curves[0].add(&record(2, 0.2));
        let picture = drawn(&view);
        for text in
            ["student  epoch 2/4  step 1/2  1:01 left", "50 % of peak", "errors 5.00 %", "0.800"]
        {
            assert!(picture.contains(text), "{text}:\n{picture}");
        }
        // Percent of wrong examples: 25 at most, 12 at the end.
        assert!(picture.contains("25.000"), "{picture}");
        assert!(picture.contains(is_dot), "{picture}");
    }
}
