//! What all charts are written with.

use super::palette::palette_css;
use super::{Size, escape};
use std::fmt::Write;

/// The look of charts, in a page as in a document of its own.
pub const STYLE: &str = include_str!("chart.css");
/// The mean width of a bold letter, in the wider of the fonts that systems have.
const LETTER: f64 = 7.9;
/// Height of a heading in a document of its own, and the space around it.
const HEADING: f64 = 40.0;
const MARGIN: f64 = 14.0;

/// About how wide a text is; short ones may be of wide letters.
pub fn width_of(text: &str) -> f64 {
    6.0 + LETTER * text.chars().count() as f64
}

/// Adds a text at a place; `anchor` says which part of it is there.
pub fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, class: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{}</text>",
        escape(text)
    );
}

/// A picture of this size on a page, whose style it has.
pub fn picture(size: Size, label: &str, body: &str) -> String {
    format!(
        "<svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n{body}</svg>\n",
        size.width,
        size.height,
        escape(label)
    )
}

/// A document of its own, with a heading above the picture.
pub fn document(size: Size, title: &str, body: &str) -> String {
    let mut heading = String::new();
    text(&mut heading, (MARGIN, 26.0), "start", "value", title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 {} {}\">\n<style>{}\
         :root{{--ink:#1b1f24;--dim:#57606a;--line:#d8dde3}}\
         @media(prefers-color-scheme:dark){{:root{{--ink:#e6e8eb;--dim:#a3abb5;--line:#3a4048}}}}\n\
         {STYLE}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"var(--paper)\"/>\n\
         {heading}<g transform=\"translate({MARGIN} {HEADING})\">\n{body}</g></svg>\n",
        size.width + 2.0 * MARGIN,
        size.height + HEADING + MARGIN / 2.0,
        palette_css()
    )
}
