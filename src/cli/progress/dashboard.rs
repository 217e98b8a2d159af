//! Training as a live dashboard: `--tui`.
//!
//! The dashboard takes the last lines of the terminal, below what was printed before. It leaves the
//! terminal's modes and the cursor alone: Ctrl-C remains a signal, which ends the run after its
//! step, and the terminal stays usable whatever ends the program.

use super::format::{format_clock, format_errors, format_share_of_peak};
use crate::session::to_stderr;
use limbeck::engine::metrics;
use limbeck::engine::trainer::{EpochRecord, Observer, Progress};
use limbeck::{Error, Result};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph, Widget};
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};
use std::io::{Stderr, stderr};
use std::path::Path;
use std::time::{Duration, Instant};

/// Lines of the terminal that the dashboard takes.
const HEIGHT: u16 = 20;
/// Colours of models, in the order of training.
const COLOURS: [Color; 6] =
    [Color::Cyan, Color::Yellow, Color::Green, Color::Magenta, Color::Blue, Color::Red];
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
        Dashboard {
            terminal: None,
            view: View { peak, coloured: !is_plain, ..View::default() },
            drawn: None,
        }
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
        self.view.begin(model);
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
    /// Whether colours are wanted.
    coloured: bool,
    progress: Option<Progress>,
    /// The current model's is the last.
    curves: Vec<Curve>,
    /// Models that were trained before those whose curves are shown.
    before: usize,
}

/// A model's epochs.
#[derive(Default)]
struct Curve {
    model: String,
    /// Of all models, from 0: a model keeps its colour.
    number: usize,
    /// (epoch, loss) of a model on labels.
    hard_loss: Vec<(f64, f64)>,
    /// The same of a model on soft targets, above the least that they allow.
    soft_loss: Vec<(f64, f64)>,
    /// (epoch, share of the training examples that were wrong, in percent).
    errors: Vec<(f64, f64)>,
}

impl Curve {
    fn add(&mut self, record: &EpochRecord) {
        let epoch = record.epoch as f64;
        // Soft targets have an entropy, which no model can lower; labels have none.
        let is_soft = record.loss != record.reducible_loss;
        let losses = if is_soft { &mut self.soft_loss } else { &mut self.hard_loss };
        losses.push((epoch, record.reducible_loss));
        if let Some(errors) = record.train_errors {
            let rate = metrics::error_rate(errors as usize, record.examples as usize);
            self.errors.push((epoch, 100.0 * rate));
        }
    }
}

impl View {
    fn draw(&self, frame: &mut Frame) {
        let [bar, plots, legend, figures] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(1),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        // Losses on labels and on soft targets are not of one size: each kind has a plot of its own.
        type Points = fn(&Curve) -> &Vec<(f64, f64)>;
        let losses: [(&str, Points); 2] = [
            ("loss, labels", |curve| &curve.hard_loss),
            ("loss, soft targets", |curve| &curve.soft_loss),
        ];
        let is_there = |of: Points| self.curves.iter().any(|curve| !of(curve).is_empty());
        let mut shown: Vec<(&str, Points)> =
            losses.into_iter().filter(|(_, of)| is_there(*of)).collect();
        if shown.is_empty() {
            shown.push(("loss", losses[0].1));
        }
        shown.push(("training examples wrong, %", |curve| &curve.errors));
        let places = Layout::horizontal(vec![Constraint::Fill(1); shown.len()]).split(plots);
        for ((title, of), &place) in shown.into_iter().zip(places.iter()) {
            self.plot(frame, place, title, of);
        }
        frame.render_widget(Paragraph::new(self.legend(legend.width)), legend);
        frame.set_cursor_position((figures.x, figures.y));
        let Some(progress) = &self.progress else { return };
        let Progress { model, epoch, epochs, step, steps, .. } = progress;
        let done = ((epoch - 1) * steps + step) as f64 / (epochs * steps).max(1) as f64;
        let label = format!(
            "{model}  epoch {epoch}/{epochs}  step {step}/{steps}  {} left",
            format_clock(progress.remaining)
        );
        let gauge = Gauge::default().ratio(done.clamp(0.0, 1.0)).label(label);
        let style = self.curves.last().map_or(Style::new(), |curve| self.style(curve));
        frame.render_widget(gauge.gauge_style(style), bar);
        let line = format!(
            "loss {:.4}  errors {}  {:.0} samples/s  {:.1} GFLOP/s, {}  Ctrl-C: checkpoint, end",
            progress.loss,
            format_errors(progress),
            progress.samples_per_second,
            progress.gflops,
            format_share_of_peak(progress.gflops, self.peak)
        );
        frame.render_widget(Paragraph::new(line), figures);
    }

    /// A new model, with a curve of its own.
    fn begin(&mut self, model: &str) {
        let number = self.before + self.curves.len();
        self.curves.push(Curve { model: model.into(), number, ..Curve::default() });
        if self.curves.len() > MODELS {
            self.curves.remove(0);
            self.before += 1;
        }
    }

    /// A model keeps its colour; the current one's is bright. Without colours the others are dim.
    fn style(&self, curve: &Curve) -> Style {
        let style = match self.coloured {
            true => Style::new().fg(COLOURS[curve.number % COLOURS.len()]),
            false => Style::new(),
        };
        let is_current = self.curves.last().is_some_and(|last| last.number == curve.number);
        style.add_modifier(if is_current { Modifier::BOLD } else { Modifier::DIM })
    }

    /// The names of the models, the current one's first, as many as there is room for, and the number of
    /// the others.
    fn legend(&self, width: u16) -> Line<'_> {
        let mut spans: Vec<Span> = Vec::new();
        let mut room = usize::from(width);
        for (i, curve) in self.curves.iter().rev().enumerate() {
            let name = format!("▬ {}  ", curve.model);
            let others = self.before + self.curves.len() - i;
            // Room stays for the number of those that have none.
            let needed =
                Span::raw(name.as_str()).width() + if others > 1 { "+ 999".len() } else { 0 };
            if needed > room && i > 0 {
                spans.push(Span::raw(format!("+ {others}")));
                return Line::from(spans);
            }
            room = room.saturating_sub(Span::raw(name.as_str()).width());
            spans.push(Span::styled(name, self.style(curve)));
        }
        if self.before > 0 {
            spans.push(Span::raw(format!("+ {}", self.before)));
        }
        Line::from(spans)
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
        let lines = self.curves.iter().map(|curve| {
            Dataset::default()
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(self.style(curve))
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
            loss,
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
        view.begin("student");
        view.progress = Some(Progress {
            model: "student".into(),
            epoch: 2,
            epochs: 4,
            step: 1,
            steps: 2,
            loss: 0.125,
            errors: Some(5),
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

    #[test]
    fn the_legend_names_the_models_and_losses_of_one_kind_share_an_axis() {
        let mut view = View::default();
        for model in ["teacher", "baseline", "student"] {
            view.begin(model);
            let loss = if model == "student" { 0.03 } else { 0.8 };
            let entropy = if model == "student" { 2.0 } else { 0.0 };
            let curve = view.curves.last_mut().unwrap();
            curve.add(&EpochRecord { loss: loss + entropy, ..record(1, loss) });
        }
        let picture = drawn(&view);
        for text in ["▬ student", "▬ baseline", "▬ teacher", "loss, labels", "loss, soft targets"]
        {
            assert!(picture.contains(text), "{text}:\n{picture}");
        }
        assert!(picture.contains("0.800") && picture.contains("0.030"), "{picture}");
        for i in 0..40 {
            view.begin(&format!("student at temperature {i}"));
        }
        let picture = drawn(&view);
        assert!(picture.contains("▬ student at temperature 39"), "{picture}");
        assert!(picture.contains("+ 40"), "{picture}");
    }
}
