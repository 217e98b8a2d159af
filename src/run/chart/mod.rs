//! Charts as SVG: what they show, and how it is drawn, on a page or as a document of its own.

mod axis;
pub mod dots;
mod lines;
pub mod palette;
mod svg;

pub use svg::STYLE;

use crate::run::statistics::MeanSd;
use serde::{Deserialize, Serialize};

/// A chart of one or more lines over a common x.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// What it is of, in a few words.
    pub title: String,
    /// What it shows, in a sentence; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub caption: String,
    /// The quantity of the x axis, with its unit.
    pub x_label: String,
    /// The quantity of the y axis, with its unit.
    pub y_label: String,
    /// Whether the x axis is logarithmic; points whose x is not positive are left out then.
    #[serde(default)]
    pub log_x: bool,
    /// Whether the y axis is logarithmic; points whose y is not positive are left out then.
    #[serde(default)]
    pub log_y: bool,
    /// The lines, at most [`palette::MAX_LINES`].
    pub series: Vec<Series>,
    /// Horizontal lines, each with its name and its y: the paper's figures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<(String, f64)>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The name beside it.
    pub name: String,
    /// The points, in the order in which the line joins them.
    pub points: Vec<Point>,
    /// Whether it is no model's, but what models are held against: grey and dashed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub muted: bool,
}

/// A point with an error bar.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The place on the x axis.
    pub x: f64,
    /// The value.
    pub y: f64,
    /// The error bar reaches from y − spread to y + spread; 0 for none.
    #[serde(default)]
    pub spread: f64,
}

/// Width and height of a picture, in units of which a letter is 13 high.
#[derive(Clone, Copy)]
pub struct Size {
    /// The width.
    pub width: f64,
    /// The height.
    pub height: f64,
}

impl Size {
    /// The whole column of a page.
    pub const WIDE: Size = Size { width: 1000.0, height: 400.0 };
    /// Half of the column of a page, or a document of its own.
    pub const HALF: Size = Size { width: 470.0, height: 340.0 };
    /// A telephone's screen.
    pub const NARROW: Size = Size { width: 360.0, height: 330.0 };
    /// A document of its own.
    pub const DOCUMENT: Size = Size { width: 720.0, height: 420.0 };
}

impl Series {
    /// A line of these points, in their order. Those that are not finite are left out.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = Point>) -> Series {
        let is_finite = |p: &Point| p.x.is_finite() && p.y.is_finite();
        Series {
            name: name.into(),
            points: points.into_iter().filter(is_finite).collect(),
            muted: false,
        }
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

impl Chart {
    /// Whether it has points, and no value of it is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let values = points().flat_map(|point| [point.x, point.y, point.spread]);
        let references = self.references.iter().map(|(_, y)| *y);
        points().next().is_some() && values.chain(references).all(f64::is_finite)
    }

    /// A chart of these lines on linear axes.
    pub fn new(
        title: impl Into<String>,
        x_label: &str,
        y_label: &str,
        series: impl IntoIterator<Item = Series>,
    ) -> Chart {
        Chart {
            title: title.into(),
            caption: String::new(),
            x_label: x_label.into(),
            y_label: y_label.into(),
            log_x: false,
            log_y: false,
            series: series.into_iter().collect(),
            references: Vec::new(),
        }
    }

    /// The chart as a document of its own.
    pub fn to_svg(&self) -> String {
        let names = self.series.iter().filter(|series| !series.muted).map(|series| &*series.name);
        svg::document(
            Size::DOCUMENT,
            &self.title,
            &self.draw(Size::DOCUMENT, &palette::Colours::of(names)),
        )
    }
}

/// Escapes text for SVG and HTML.
pub fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;")
}
