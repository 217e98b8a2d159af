//! A [`Chart`] drawn: grid, lines with their names at their ends, and marks that tell their figures.

use super::axis::{Axis, format_tick};
use super::palette::Colours;
use super::svg::{picture, text, width_of};
use super::{Chart, Point, Series, Size, escape};
use crate::run::number::{short, with_spread};
use std::fmt::Write;

/// Space above the plot, for the name of the y axis.
const TOP: f64 = 30.0;
/// Space below the plot, for ticks and the name of the x axis.
const BELOW: f64 = 44.0;
/// Height of a line of text.
const LINE: f64 = 16.0;
/// Lines of more points than these have bands in place of error bars, and no visible marks.
const DENSE: usize = 24;
/// Where names take more than this share of the width, they stand above the plot.
const NAMES: f64 = 0.36;

impl Chart {
    /// The chart as a picture on a page, without its title.
    pub fn picture(&self, size: Size, colours: &Colours) -> String {
        let label = if self.caption.is_empty() { &self.title } else { &self.caption };
        picture(size, label, &self.draw(size, colours))
    }

    /// What is inside of the picture.
    pub(super) fn draw(&self, size: Size, colours: &Colours) -> String {
        let lines: Vec<Line> =
            self.series.iter().filter_map(|series| self.line(series, colours)).collect();
        let names = lines.iter().map(|line| &line.series.name);
        let names = names.chain(self.references.iter().map(|(name, _)| name));
        let widest = names.map(|name| width_of(name)).fold(0.0, f64::max);
        let above = widest > NAMES * size.width;
        let (keys, key_rows) = if above { legend(&lines, size.width) } else { (String::new(), 0) };
        let points = || lines.iter().flat_map(|line| &line.points);
        let ends = |p: &Point| [p.y - p.spread, p.y + p.spread];
        let references = self.references.iter().map(|&(_, y)| y);
        let vertical = (size.height - BELOW, TOP + LINE * key_rows as f64);
        let y = Axis::new(
            points().flat_map(ends).chain(points().map(|p| p.y)).chain(references),
            self.log_y,
            vertical,
        );
        let y_ticks = y.ticks(46.0);
        let tick_width =
            y_ticks.iter().map(|&tick| width_of(&format_tick(tick))).fold(14.0, f64::max);
        let (left, right) = (tick_width + 10.0, if above { 10.0 } else { widest + 16.0 });
        let x = Axis::new(points().map(|p| p.x), self.log_x, (left, size.width - right));
        let mut svg = keys;
        for tick in x.ticks(58.0) {
            let at = x.at(tick);
            let _ =
                writeln!(svg, "<path class=\"grid\" d=\"M{at:.1} {:.1}V{:.1}\"/>", y.to, y.from);
            text(&mut svg, (at, y.from + 17.0), "middle", "axis", &format_tick(tick));
        }
        for tick in y_ticks {
            let at = y.at(tick);
            let _ =
                writeln!(svg, "<path class=\"grid\" d=\"M{:.1} {at:.1}H{:.1}\"/>", x.from, x.to);
            text(&mut svg, (x.from - 7.0, at + 4.5), "end", "axis", &format_tick(tick));
        }
        text(&mut svg, (0.0, 14.0), "start", "axis", &self.y_label);
        text(&mut svg, (x.to, size.height - 8.0), "end", "axis", &self.x_label);
        let mut names: Vec<Name> = Vec::new();
        for (name, value) in &self.references {
            let at = y.at(*value);
            let _ =
                writeln!(svg, "<path class=\"guide\" d=\"M{:.1} {at:.1}H{:.1}\"/>", x.from, x.to);
            names.push(Name { text: name, class: "axis".into(), end: (x.to, at), at });
        }
        for line in &lines {
            let end = line.draw(&mut svg, self, &x, &y);
            if !above {
                names.push(Name {
                    text: &line.series.name,
                    class: format!("name {}", line.class),
                    end,
                    at: end.1,
                });
            }
        }
        if above {
            // What they are held against has room inside.
            for name in &names {
                text(&mut svg, (x.to - 4.0, name.at - 4.0), "end", "axis", name.text);
            }
        } else {
            spread_names(&mut names, y.from);
            names.iter().for_each(|name| name.draw(&mut svg, x.to));
        }
        svg
    }

    /// What is drawn of a series; nothing of one without points.
    fn line<'s>(&'s self, series: &'s Series, colours: &Colours) -> Option<Line<'s>> {
        let fits = |p: &&Point| (!self.log_x || p.x > 0.0) && (!self.log_y || p.y > 0.0);
        let points: Vec<Point> = series.points.iter().filter(fits).copied().collect();
        let class = if series.muted { "muted".to_string() } else { colours.class(&series.name) };
        (!points.is_empty()).then_some(Line { series, points, class })
    }
}

struct Line<'s> {
    series: &'s Series,
    points: Vec<Point>,
    class: String,
}

impl Line<'_> {
    /// Draws the line, and says where it ends.
    fn draw(&self, svg: &mut String, chart: &Chart, x: &Axis, y: &Axis) -> (f64, f64) {
        let Line { series, points, class } = self;
        let dense = points.len() > DENSE;
        let place = |p: &Point| format!("{:.1} {:.1}", x.at(p.x), y.at(p.y));
        let path: Vec<String> = points.iter().map(place).collect();
        let spread = points.iter().any(|p| p.spread > 0.0);
        let _ = writeln!(svg, "<g class=\"{class}\">");
        if spread && dense {
            let edge = |sign: f64| points.iter().map(move |p| (p.x, p.y + sign * p.spread));
            let around: Vec<String> = edge(1.0)
                .chain(edge(-1.0).collect::<Vec<_>>().into_iter().rev())
                .map(|(at, v)| format!("{:.1} {:.1}", x.at(at), y.at(v)))
                .collect();
            let _ = writeln!(svg, "<path class=\"band\" d=\"M{}Z\"/>", around.join("L"));
        }
        let kind = if series.muted { "guide" } else { "line" };
        let _ = writeln!(svg, "<path class=\"{kind}\" d=\"M{}\"/>", path.join("L"));
        for p in points.iter().filter(|_| !series.muted) {
            let (at, middle) = (x.at(p.x), y.at(p.y));
            if p.spread > 0.0 && !dense {
                let [low, high] = [p.y - p.spread, p.y + p.spread].map(|end| y.at(end));
                let _ = writeln!(svg, "<path class=\"bar\" d=\"M{at:.1} {low:.1}V{high:.1}\"/>");
            }
            let quiet = if dense { " quiet" } else { "" };
            let _ = writeln!(
                svg,
                "<circle class=\"mark{quiet}\" cx=\"{at:.1}\" cy=\"{middle:.1}\" r=\"3.5\"><title>{} {}: {}: \
                 {}</title></circle>",
                escape(&chart.x_label),
                short(p.x),
                escape(&series.name),
                with_spread(p.y, p.spread)
            );
        }
        let _ = writeln!(svg, "</g>");
        let last = points.iter().copied().reduce(|a, b| if b.x >= a.x { b } else { a });
        last.map_or((x.to, y.from), |p| (x.at(p.x), y.at(p.y)))
    }
}

/// The names of the lines in rows, each behind a piece of its line; and the number of rows.
fn legend(lines: &[Line], width: f64) -> (String, usize) {
    let (mut svg, mut x, mut row) = (String::new(), 0.0, 1);
    for line in lines {
        let wide = 26.0 + width_of(&line.series.name) + 14.0;
        if x > 0.0 && x + wide > width {
            (x, row) = (0.0, row + 1);
        }
        let y = 14.0 + LINE * row as f64;
        let kind = if line.series.muted { "guide" } else { "line" };
        let _ = writeln!(
            svg,
            "<g class=\"{}\"><path class=\"{kind}\" d=\"M{x:.1} {:.1}h20\"/></g>",
            line.class,
            y - 4.5
        );
        text(&mut svg, (x + 26.0, y), "start", &format!("name {}", line.class), &line.series.name);
        x += wide;
    }
    (svg, row)
}

/// A name at the end of its line.
struct Name<'n> {
    text: &'n str,
    class: String,
    /// Where the line ends.
    end: (f64, f64),
    /// The name's height.
    at: f64,
}

impl Name<'_> {
    fn draw(&self, svg: &mut String, right: f64) {
        let Name { text: name, class, end, at } = self;
        if (at - end.1).abs() > 3.0 || right - end.0 > 3.0 {
            let _ = writeln!(
                svg,
                "<path class=\"lead {class}\" d=\"M{:.1} {:.1}L{:.1} {at:.1}\"/>",
                end.0 + 4.0,
                end.1,
                right + 10.0
            );
        }
        text(svg, (right + 12.0, at + 4.5), "start", class, name);
    }
}

/// Moves names apart so that none overprints another, and none leaves the plot below.
fn spread_names(names: &mut [Name], bottom: f64) {
    names.sort_by(|a, b| a.at.total_cmp(&b.at));
    for i in 1..names.len() {
        names[i].at = names[i].at.max(names[i - 1].at + LINE);
    }
    let mut limit = bottom;
    for name in names.iter_mut().rev() {
        name.at = name.at.min(limit);
        limit = name.at - LINE;
    }
}
