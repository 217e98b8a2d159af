//! Dots in rows: each variant's seeds on a common axis, and how far a student came from the baseline
//! towards its teacher.

use super::axis::{Axis, format_tick};
use super::palette::Colours;
use super::svg::{document, picture, text, width_of};
use super::{Size, escape};
use crate::run::number::short;
use crate::run::statistics::mean;
use std::fmt::Write;

/// A chart of rows over a common axis.
pub struct Dots {
    /// What it is of, in a few words.
    pub title: String,
    /// What it shows, in a sentence.
    pub caption: String,
    /// The quantity of the axis.
    pub x_label: String,
    /// From above to below.
    pub rows: Vec<DotRow>,
    /// From where a student starts and where it is meant to go; both have rows.
    pub gap: Option<(f64, f64)>,
}

/// A variant.
pub struct DotRow {
    /// Its name.
    pub name: String,
    /// What each of its values is of: `seed 3`.
    pub of: Vec<String>,
    /// A value for each seed; at least one.
    pub values: Vec<f64>,
    /// How sure the mean is, from one end to the other.
    pub interval: Option<(f64, f64)>,
    /// Whether it is a student: what it gained is drawn.
    pub is_student: bool,
    /// The paper's figure.
    pub paper: Option<f64>,
    /// The mean as text.
    pub text: String,
    /// What is said of it besides: the share of the gap.
    pub remark: String,
}

/// Height of a row.
const ROW: f64 = 46.0;
/// Height of a row whose name stands above it.
const HIGH_ROW: f64 = 62.0;
const TOP: f64 = 10.0;
const BELOW: f64 = 44.0;
/// The axis is logarithmic where the values differ by more than this factor.
const WIDE_RANGE: f64 = 10.0;

impl Dots {
    /// The chart as a picture on a page, without its title.
    pub fn picture(&self, width: f64, colours: &Colours) -> String {
        let size = self.size(width);
        picture(size, &self.caption, &self.draw(size, colours))
    }

    /// The chart as a document of its own.
    pub fn to_svg(&self) -> String {
        let size = self.size(Size::DOCUMENT.width);
        let colours = Colours::of(self.rows.iter().map(|row| &*row.name));
        document(size, &self.title, &self.draw(size, &colours))
    }

    /// The texts at the left and at the right; on a narrow picture they stand above their rows.
    fn margins(&self, width: f64) -> Option<(f64, f64)> {
        let widest = |of: fn(&DotRow) -> &str| {
            self.rows.iter().map(|row| width_of(of(row))).fold(0.0, f64::max)
        };
        let (left, right) =
            (widest(|row| &row.name), widest(|row| &row.text).max(widest(|row| &row.remark)));
        let (left, right) = (left + 18.0, right + 18.0);
        (left + right < 0.5 * width).then_some((left, right))
    }

    fn size(&self, width: f64) -> Size {
        let row = if self.margins(width).is_some() { ROW } else { HIGH_ROW };
        Size { width, height: TOP + row * self.rows.len() as f64 + BELOW }
    }

    fn draw(&self, size: Size, colours: &Colours) -> String {
        let margins = self.margins(size.width);
        let (row_height, down) = if margins.is_some() { (ROW, 0.5) } else { (HIGH_ROW, 0.68) };
        let (left, right) = margins.unwrap_or((22.0, 22.0));
        let values = || {
            let own = self.rows.iter().flat_map(|row| row.values.iter().copied().chain(row.paper));
            own.chain(self.rows.iter().filter_map(|row| row.interval).flat_map(|(a, b)| [a, b]))
        };
        let (least, most) = values().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(v), b.max(v)));
        let log = least > 0.0 && most / least > WIDE_RANGE;
        let x = Axis::new(values(), log, (left, size.width - right));
        let bottom = size.height - BELOW;
        let mut svg = String::new();
        for tick in x.ticks(62.0) {
            let at = x.at(tick);
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>");
            text(&mut svg, (at, bottom + 17.0), "middle", "axis", &format_tick(tick));
        }
        text(&mut svg, (x.to, size.height - 6.0), "end", "axis", &self.x_label);
        if let Some((from, to)) = self.gap {
            for at in [from, to].map(|value| x.at(value)) {
                let _ = writeln!(svg, "<path class=\"guide\" d=\"M{at:.1} {TOP}V{bottom}\"/>");
            }
        }
        for (i, row) in self.rows.iter().enumerate() {
            let above = TOP + row_height * i as f64;
            let y = above + down * row_height;
            // Dots have no dashes: rows beyond the colours are grey.
            let class = match colours.class(&row.name) {
                class if class.contains(' ') => "muted".to_string(),
                class => class,
            };
            match margins {
                Some(_) => {
                    text(&mut svg, (0.0, y + 4.5), "start", &format!("name {class}"), &row.name);
                    let lines = if row.remark.is_empty() { y + 4.5 } else { y - 3.0 };
                    text(&mut svg, (size.width, lines), "end", "value", &row.text);
                    text(&mut svg, (size.width, y + 12.5), "end", "axis", &row.remark);
                }
                None => {
                    let dot = if row.remark.is_empty() { "" } else { " · " };
                    let said = format!("{}{dot}{}", row.text, row.remark);
                    text(
                        &mut svg,
                        (0.0, above + 16.0),
                        "start",
                        &format!("name {class}"),
                        &row.name,
                    );
                    text(&mut svg, (size.width, above + 16.0), "end", "value", &said);
                }
            }
            row.draw(&mut svg, &x, y, &class, self.gap);
        }
        svg
    }
}

impl DotRow {
    fn draw(&self, svg: &mut String, x: &Axis, y: f64, class: &str, gap: Option<(f64, f64)>) {
        let centre = mean(&self.values);
        let at = x.at(centre);
        let _ = writeln!(svg, "<g class=\"{class}\">");
        if let Some((from, to)) = gap.filter(|_| self.is_student) {
            let [from, to] = [from, to].map(|value| x.at(value));
            let _ = writeln!(
                svg,
                "<path class=\"left\" d=\"M{at:.1} {y:.1}H{to:.1}\"/><path class=\"gained\" d=\"M{from:.1} {y:.1}H{at:.1}\"/>"
            );
        }
        if let Some((low, high)) = self.interval {
            let [low, high] = [low, high].map(|value| x.at(value));
            let _ = writeln!(
                svg,
                "<path class=\"bar\" d=\"M{low:.1} {y:.1}H{high:.1}M{low:.1} {:.1}v8M{high:.1} {:.1}v8\"/>",
                y - 4.0,
                y - 4.0
            );
        }
        let mark = |svg: &mut String, class: &str, at: f64, r: f64, said: &str| {
            let _ = writeln!(
                svg,
                "<circle class=\"mark {class}\" cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"{r}\"><title>{}: {}</title></circle>",
                escape(&self.name),
                escape(said)
            );
        };
        mark(svg, "mean", at, 7.0, &self.text);
        for (value, of) in self.values.iter().zip(&self.of).filter(|_| self.values.len() > 1) {
            mark(svg, "seed", x.at(*value), 3.5, &format!("{of}: {}", short(*value)));
        }
        if let Some(paper) = self.paper {
            let at = x.at(paper);
            let _ = writeln!(
                svg,
                "<path class=\"paper\" d=\"M{at:.1} {:.1}v9\"><title>paper: {}</title></path>",
                y + 8.0,
                short(paper)
            );
            let said = format!("paper {}", short(paper));
            // Beyond the axis are the edge of the picture or the row's texts.
            let (anchor, beside) =
                if at + 5.0 + width_of(&said) <= x.to { ("start", 5.0) } else { ("end", -5.0) };
            text(svg, (at + beside, y + 18.0), anchor, "axis", &said);
        }
        let _ = writeln!(svg, "</g>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_figure_is_named_inside_the_axis() {
        let row = |paper: f64| DotRow {
            name: "baseline".into(),
            of: vec!["seed 0".into(), "seed 1".into()],
            values: vec![60.0, 138.0],
            interval: None,
            is_student: false,
            paper: Some(paper),
            text: "99".into(),
            remark: String::new(),
        };
        for width in [Size::NARROW.width, Size::HALF.width, Size::WIDE.width] {
            for paper in [10.0, 60.0, 100.0, 146.0, 200.0] {
                let dots = Dots {
                    title: String::new(),
                    caption: String::new(),
                    x_label: String::new(),
                    rows: vec![row(paper)],
                    gap: None,
                };
                let svg = dots.picture(width, &Colours::of(["baseline"]));
                let said = format!("paper {paper}");
                let line = svg.lines().find(|line| line.contains(&format!(">{said}<"))).unwrap();
                let at: f64 = line.split('"').nth(1).unwrap().parse().unwrap();
                let (from, to) = match line.contains("\"end\"") {
                    true => (at - width_of(&said), at),
                    false => (at, at + width_of(&said)),
                };
                assert!(from >= 0.0 && to <= width, "{said} from {from} to {to} of {width}");
            }
        }
    }
}
