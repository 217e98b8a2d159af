//! Line charts as SVG documents that need nothing else and are legible on light and dark pages.

use crate::run::statistics::MeanSd;
use std::fmt::Write;

/// A chart of one or more lines over a common x.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// The heading.
    pub title: String,
    /// The quantity of the x axis, with its unit.
    pub x_label: String,
    /// The quantity of the y axis, with its unit.
    pub y_label: String,
    /// Whether the x axis is logarithmic; all x must be positive then.
    pub log_x: bool,
    /// Whether the y axis is logarithmic; all y must be positive then.
    pub log_y: bool,
    /// The lines, at most [`MAX_LINES`].
    pub series: Vec<Series>,
    /// Horizontal lines, each with its name and its y: the paper's figures.
    pub references: Vec<(String, f64)>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The name in the legend.
    pub name: String,
    /// The points, in the order in which the line joins them.
    pub points: Vec<Point>,
}

/// A point with an error bar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The place on the x axis.
    pub x: f64,
    /// The value.
    pub y: f64,
    /// The error bar reaches from y − spread to y + spread; 0 for none.
    pub spread: f64,
}

impl Series {
    /// A line of these points, in their order.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = Point>) -> Series {
        Series { name: name.into(), points: points.into_iter().collect() }
    }
}

impl Point {
    /// A point without an error bar.
    pub fn at(x: f64, y: f64) -> Point {
        Point { x, y, spread: 0.0 }
    }

    /// Mean ± sample standard deviation of the `values` at `x`; `None` if there are none.
    pub fn of(x: f64, values: &[f64]) -> Option<Point> {
        let MeanSd { mean, sd, .. } = MeanSd::of(values)?;
        Some(Point { x, y: mean, spread: sd.unwrap_or(0.0) })
    }
}

// Lengths in units of the picture, of which a letter is 12 high.
/// The x at which the plot ends and the legend begins.
const PLOT: f64 = 530.0;
/// The least width of the legend, which grows with its longest name.
const LEGEND: f64 = 190.0;
/// The mean width of a letter.
const LETTER: f64 = 6.8;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 40.0;
/// The y of the x axis.
const BOTTOM: f64 = HEIGHT - 52.0;
/// Okabe and Ito's colours, which the colour-blind tell apart, on white and on black.
const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31"];
/// Dashes, which tell lines of one colour apart.
const DASHES: [&str; 3] = ["none", "7 4", "2 3"];
/// The most lines of a chart: as many as it tells apart, and as its legend has room for.
pub const MAX_LINES: usize = 18;

/// An axis: a range of values, and the range of picture units that shows it.
struct Axis {
    /// Of a logarithmic axis the logarithms to base 10.
    low: f64,
    high: f64,
    log: bool,
    /// Whether all values are whole numbers, such as seeds and epochs: then ticks are too.
    whole: bool,
    /// The picture's unit that shows `low`.
    from: f64,
    /// The picture's unit that shows `high`.
    to: f64,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>, log: bool, (from, to): (f64, f64)) -> Axis {
        let scale = |v: f64| if log { v.log10() } else { v };
        let values = values.map(scale).filter(|v| v.is_finite());
        let (mut low, mut high, mut whole) = (f64::MAX, f64::MIN, !log);
        for v in values {
            (low, high, whole) = (low.min(v), high.max(v), whole && v.fract() == 0.0);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let margin = ((high - low) * 0.06).max(if high == low { 0.5 } else { 0.0 });
        Axis { low: low - margin, high: high + margin, log, whole, from, to }
    }

    /// The place of a value, in units of the picture.
    fn at(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        let share = (value - self.low) / (self.high - self.low);
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Round values inside the range: the places of the grid.
    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let decades = self.low.floor() as i32..=self.high.ceil() as i32;
            let values = decades.flat_map(|d| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(d)));
            return values.filter(|v| (self.low..=self.high).contains(&v.log10())).collect();
        }
        let rough = (self.high - self.low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= rough);
        let step = (factor.unwrap_or(10.0) * power).max(if self.whole { 1.0 } else { 0.0 });
        let (first, last) = ((self.low / step).ceil() as i64, (self.high / step).floor() as i64);
        (first..=last).map(|i| i as f64 * step).collect()
    }
}

impl Chart {
    /// A chart of these lines on linear axes.
    pub fn new(
        title: impl Into<String>,
        x_label: &str,
        y_label: &str,
        series: impl IntoIterator<Item = Series>,
    ) -> Chart {
        Chart {
            title: title.into(),
            x_label: x_label.into(),
            y_label: y_label.into(),
            log_x: false,
            log_y: false,
            series: series.into_iter().collect(),
            references: Vec::new(),
        }
    }

    /// The chart as an SVG document.
    pub fn to_svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let ends = |p: &Point| [p.y - p.spread, p.y + p.spread];
        let references = self.references.iter().map(|&(_, y)| y);
        let x = Axis::new(points().map(|p| p.x), self.log_x, (LEFT, PLOT));
        let y = Axis::new(points().flat_map(ends).chain(references), self.log_y, (BOTTOM, TOP));
        let names = self.series.iter().map(|series| &series.name);
        let letters = names.map(|name| name.chars().count()).max().unwrap_or(0);
        let width = PLOT + LEGEND.max(44.0 + LETTER * letters as f64).round();
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
             <style>text{{fill:#222}}.grid{{stroke:#8884}}.page{{fill:#fff}}\
             @media(prefers-color-scheme:dark){{text{{fill:#ddd}}.page{{fill:#16181d}}}}</style>\n\
             <rect class=\"page\" width=\"100%\" height=\"100%\"/>\n"
        );
        let text = |svg: &mut String, x: f64, y: f64, anchor: &str, more: &str, t: &str| {
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{more}>{}</text>",
                escape(t)
            );
        };
        text(&mut svg, LEFT, 24.0, "start", " font-size=\"15\" font-weight=\"600\"", &self.title);
        for tick in x.ticks() {
            let at = x.at(tick);
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{BOTTOM}\"/>");
            text(&mut svg, at, BOTTOM + 16.0, "middle", "", &format_tick(tick));
        }
        for tick in y.ticks() {
            let at = y.at(tick);
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{PLOT}\"/>");
            text(&mut svg, LEFT - 8.0, at + 4.0, "end", "", &format_tick(tick));
        }
        text(&mut svg, (LEFT + PLOT) / 2.0, HEIGHT - 12.0, "middle", "", &self.x_label);
        let middle = (TOP + BOTTOM) / 2.0;
        let turned = format!(" transform=\"rotate(-90 16 {middle})\"");
        text(&mut svg, 16.0, middle, "middle", &turned, &self.y_label);
        for (name, value) in &self.references {
            let at = y.at(*value);
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {at:.1}H{PLOT}\" stroke=\"#888\" stroke-dasharray=\"5 4\"/>"
            );
            text(&mut svg, PLOT - 4.0, at - 4.0, "end", "", name);
        }
        for (i, series) in self.series.iter().enumerate() {
            if series.points.is_empty() {
                continue;
            }
            let colour = COLOURS[i % COLOURS.len()];
            let dash = DASHES[i / COLOURS.len() % DASHES.len()];
            let stroke =
                format!("stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"");
            let place = |p: &Point| format!("{:.1} {:.1}", x.at(p.x), y.at(p.y));
            let line: Vec<String> = series.points.iter().map(place).collect();
            let _ = writeln!(svg, "<path d=\"M{}\" fill=\"none\" {stroke}/>", line.join("L"));
            for p in &series.points {
                let (at, middle) = (x.at(p.x), y.at(p.y));
                let [low, high] = ends(p).map(|end| y.at(end));
                let _ = writeln!(
                    svg,
                    "<path d=\"M{at:.1} {low:.1}V{high:.1}\" stroke=\"{colour}\"/>\
                     <circle cx=\"{at:.1}\" cy=\"{middle:.1}\" r=\"3\" fill=\"{colour}\"/>"
                );
            }
            let row = TOP + 8.0 + 18.0 * i as f64;
            let at = PLOT + 16.0;
            let end = at + 18.0;
            let _ = writeln!(svg, "<path d=\"M{at} {row}H{end}\" {stroke}/>");
            text(&mut svg, end + 6.0, row + 4.0, "start", "", &series.name);
        }
        svg + "</svg>\n"
    }
}

/// A tick's value with few digits: rounded to 10⁻⁶, in powers of ten where it is small.
fn format_tick(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    if rounded != 0.0 && rounded.abs() < 1e-3 { format!("{value:e}") } else { rounded.to_string() }
}

/// Escapes text for SVG and HTML.
pub fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_where_the_axes_say() {
        let axis = Axis { low: 0.0, high: 10.0, log: false, whole: false, from: 100.0, to: 200.0 };
        assert_eq!([0.0, 5.0, 10.0, 99.0].map(|v| axis.at(v)), [100.0, 150.0, 200.0, 200.0]);
        assert_eq!(axis.ticks(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let axis = Axis { low: 0.0, high: 2.0, log: true, whole: false, from: 0.0, to: 2.0 };
        assert_eq!(axis.at(10.0), 1.0);
        assert_eq!(axis.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        let ticks = |values: &[f64]| Axis::new(values.iter().copied(), false, (0.0, 1.0)).ticks();
        assert_eq!(ticks(&[0.0, 1.0, 2.0]), [0.0, 1.0, 2.0]);
        assert_eq!(ticks(&[3.0]), [3.0]);
        assert_eq!(ticks(&[0.0, 0.5, 1.0]), [0.0, 0.5, 1.0]);
    }
}
