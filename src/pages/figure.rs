//! The one figure that shows what came out of a run.

use super::contents::RunContents;
use super::headline::Gap;
use super::html::{self, wide_and_narrow};
use crate::run::chart::dots::{DotRow, Dots};
use crate::run::chart::palette::Colours;
use crate::run::chart::{Chart, Size};
use crate::run::number::count;
use crate::run::statistics::{MeanSd, wilson_interval};
use crate::run::summary::{Measure, Row, Summary};

/// The most variants that are shown as rows of dots.
const MOST_ROWS: usize = 12;

/// A figure.
pub enum Figure<'r> {
    /// Every variant's test errors.
    Dots(Dots),
    /// A chart of the experiment's own.
    Chart(&'r Chart),
}

impl Figure<'_> {
    /// The figure of a run: dots where the run has a gap, is small or has no chart of its own.
    pub fn of(run: &RunContents) -> Option<Figure<'_>> {
        let summary = &run.summary;
        let own = summary.charts.values().next();
        let chart = own.filter(|_| Gap::of(summary).is_none() && summary.variants().len() > 1);
        match (chart, summary.results().is_empty()) {
            (Some(chart), _) => Some(Figure::Chart(chart)),
            (None, true) => None,
            (None, false) => Some(Figure::Dots(dots(summary))),
        }
    }

    /// What it is of.
    fn title(&self) -> &str {
        match self {
            Figure::Dots(dots) => &dots.title,
            Figure::Chart(chart) => &chart.title,
        }
    }

    /// What it shows, in a sentence.
    fn caption(&self) -> &str {
        match self {
            Figure::Dots(dots) => &dots.caption,
            Figure::Chart(chart) if chart.caption.is_empty() => &chart.title,
            Figure::Chart(chart) => &chart.caption,
        }
    }

    /// The figure across a page, drawn once for wide screens and once for telephones.
    pub fn across(&self, colours: &Colours) -> String {
        let pictures =
            wide_and_narrow(self.picture(Size::WIDE, colours), self.picture(Size::NARROW, colours));
        html::figure(self.title(), self.caption(), &pictures, "")
    }

    /// The figure in half of a page.
    pub fn half(&self, colours: &Colours) -> String {
        html::figure(self.title(), self.caption(), &self.picture(Size::HALF, colours), "")
    }

    /// The picture, as wide as `size` is.
    fn picture(&self, size: Size, colours: &Colours) -> String {
        match self {
            Figure::Dots(dots) => dots.picture(size.width, colours),
            Figure::Chart(chart) => {
                let names = chart.series.iter().map(|series| &*series.name);
                chart.picture(size, &colours.or_of(names))
            }
        }
    }

    /// The figure as a document of its own.
    pub fn to_svg(&self) -> String {
        match self {
            Figure::Dots(dots) => dots.to_svg(),
            Figure::Chart(chart) => chart.to_svg(),
        }
    }
}

/// Baseline, students and teacher in this order, or the variants that are results in theirs.
fn dots(summary: &Summary) -> Dots {
    let gap = Gap::of(summary);
    let mut variants = summary.results();
    if gap.is_some() {
        let place = |variant: &&str| match *variant {
            "baseline" => 0,
            "teacher" => 2,
            _ => 1,
        };
        variants.sort_by_key(place);
    }
    let shown = variants.len().min(MOST_ROWS);
    let one_seed = variants.iter().all(|variant| summary.rows_of(variant).count() == 1);
    let rows = variants[..shown].iter().filter_map(|variant| row(summary, variant, gap.as_ref()));
    let papers = if summary.is_the_papers() && gap.is_some() {
        " Ticks are the paper's figures."
    } else {
        ""
    };
    let spread = match (one_seed, summary.examples().is_some()) {
        (true, true) => "One seed; bars are the 95 % interval for further test examples.",
        (true, false) => "One seed.",
        _ => "Small dots are seeds, large ones their means.",
    };
    let path = match &gap {
        Some(gap) if gap.share(gap.student).is_some() => {
            " From the plain net on labels towards its teacher: the thick line is what a student gained."
        }
        _ => "",
    };
    let more = match variants.len() - shown {
        0 => String::new(),
        n => format!(" The table has {n} more."),
    };
    Dots {
        title: format!("Test errors{} on {}", summary.of_examples(), summary.dataset),
        caption: format!(
            "Test errors{}: fewer are better.{path} {spread}{papers}{more}",
            summary.of_examples()
        ),
        x_label: format!("test errors{}, fewer are better", summary.of_examples()),
        rows: rows.collect(),
        gap: gap.filter(|gap| gap.baseline > gap.teacher).map(|gap| (gap.baseline, gap.teacher)),
    }
}

/// The models of several runs on the same test set.
pub fn dots_of_models(summary: &Summary, models: &[(&str, &Row)]) -> Dots {
    let of = summary.of_examples();
    let rows = models.iter().map(|&(name, row)| DotRow {
        name: name.to_string(),
        of: vec![format!("seed {}", row.seed)],
        values: vec![row.test_errors as f64],
        interval: interval(summary, row.test_errors as f64),
        is_student: false,
        paper: None,
        text: count(row.test_errors as usize),
        remark: String::new(),
    });
    Dots {
        title: format!("Test errors{of} on {}", summary.dataset),
        caption: format!(
            "Test errors{of} of each run; bars are the 95 % interval for further test examples."
        ),
        x_label: format!("test errors{of}, fewer are better"),
        rows: rows.collect(),
        gap: None,
    }
}

/// The 95 % interval of a number of errors among the test examples.
fn interval(summary: &Summary, errors: f64) -> Option<(f64, f64)> {
    let of = summary.examples().filter(|&of| errors as usize <= of)?;
    let (low, high) = wilson_interval(errors as u64, of as u64);
    Some((low * of as f64, high * of as f64))
}

fn row(summary: &Summary, variant: &str, gap: Option<&Gap>) -> Option<DotRow> {
    let values = summary.values(variant, &Measure::TestErrors);
    let MeanSd { mean, sd, n } = MeanSd::of(&values)?;
    let interval = interval(summary, mean).filter(|_| n == 1);
    let is_student = gap.is_some() && !["teacher", "baseline"].contains(&variant);
    let share = gap.filter(|_| is_student).and_then(|gap| gap.share(mean));
    let text = match sd {
        None => count(mean as usize),
        Some(sd) if mean >= 1000.0 => format!("{} ± {sd:.0}", count(mean.round() as usize)),
        Some(_) => MeanSd { mean, sd, n }.text(1),
    };
    Some(DotRow {
        name: variant.to_string(),
        of: summary.rows_of(variant).map(|row| format!("seed {}", row.seed)).collect(),
        values,
        interval,
        is_student,
        paper: summary.paper.get(variant).filter(|_| summary.is_the_papers()).map(|&p| p as f64),
        text,
        remark: share.map_or(String::new(), |share| format!("{:.0} % of the gap", 100.0 * share)),
    })
}
