//! An axis: from values to places, and which values are named.

use crate::run::number::short;

/// An axis: a range of values, and the range of picture units that shows it.
pub(super) struct Axis {
    /// Of a logarithmic axis the logarithms to base 10.
    pub low: f64,
    pub high: f64,
    pub log: bool,
    /// Whether all values are whole numbers, such as seeds and epochs: then ticks are too.
    pub whole: bool,
    /// The picture's unit that shows `low`.
    pub from: f64,
    /// The picture's unit that shows `high`.
    pub to: f64,
}

impl Axis {
    pub fn new(values: impl Iterator<Item = f64>, log: bool, (from, to): (f64, f64)) -> Axis {
        let scale = |v: f64| if log { v.log10() } else { v };
        let values = values.map(scale).filter(|v| v.is_finite());
        let (mut low, mut high, mut whole) = (f64::MAX, f64::MIN, !log);
        for v in values {
            (low, high, whole) = (low.min(v), high.max(v), whole && v.fract() == 0.0);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let margin = ((high - low) * 0.05).max(if high == low { 0.5 } else { 0.0 });
        Axis { low: low - margin, high: high + margin, log, whole, from, to }
    }

    /// The place of a value, in units of the picture.
    pub fn at(&self, value: f64) -> f64 {
        // What an error bar reaches below 0 has no logarithm: it ends at the edge.
        let value = if self.log { value.max(f64::MIN_POSITIVE).log10() } else { value };
        let share = (value - self.low) / (self.high - self.low);
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Round values inside the range, at most one for each `space` of the picture.
    pub fn ticks(&self, space: f64) -> Vec<f64> {
        let most = ((self.to - self.from).abs() / space).max(2.0);
        if !self.log {
            return linear(self.low, self.high, most, self.whole);
        }
        let (low, high) = (10f64.powf(self.low), 10f64.powf(self.high));
        let decades = self.low.floor() as i32..=self.high.ceil() as i32;
        let of = |parts: &[f64]| -> Vec<f64> {
            let values = decades.clone().flat_map(|d| parts.iter().map(move |m| m * 10f64.powi(d)));
            values.filter(|v| (low..=high).contains(v)).collect()
        };
        // Less than a decade has too few of these: its ticks are those of a linear axis.
        let choices = [of(&[1.0, 2.0, 5.0]), of(&[1.0, 3.0]), of(&[1.0])];
        let fits = |ticks: &&Vec<f64>| ticks.len() as f64 <= most + 1.0;
        match choices.iter().find(fits) {
            Some(ticks) if ticks.len() >= 3 => ticks.clone(),
            Some(_) if high / low < 20.0 => linear(low, high, most, false),
            Some(ticks) => ticks.clone(),
            None => choices[2].iter().copied().step_by(2).collect(),
        }
    }
}

fn linear(low: f64, high: f64, most: f64, whole: bool) -> Vec<f64> {
    let rough = (high - low) / most;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= rough);
    let step = (factor.unwrap_or(10.0) * power).max(if whole { 1.0 } else { 0.0 });
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    // Rounded, so that 3 × 0.1 is 0.3.
    (first..=last).map(|i| (i as f64 * step * 1e9).round() / 1e9).collect()
}

/// A tick's value.
pub(super) fn format_tick(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-3 { format!("{value:e}") } else { short(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_where_the_axes_say() {
        let axis = Axis { low: 0.0, high: 10.0, log: false, whole: false, from: 100.0, to: 200.0 };
        assert_eq!([0.0, 5.0, 10.0, 99.0].map(|v| axis.at(v)), [100.0, 150.0, 200.0, 200.0]);
        assert_eq!(axis.ticks(20.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let axis = Axis { low: 0.0, high: 2.0, log: true, whole: false, from: 0.0, to: 2.0 };
        assert_eq!(axis.at(10.0), 1.0);
        assert_eq!(axis.ticks(0.25), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(axis.ticks(0.5), [1.0, 3.0, 10.0, 30.0, 100.0]);
        let ticks =
            |values: &[f64]| Axis::new(values.iter().copied(), false, (0.0, 1.0)).ticks(0.2);
        assert_eq!(ticks(&[0.0, 1.0, 2.0]), [0.0, 1.0, 2.0]);
        assert_eq!(ticks(&[3.0]), [3.0]);
        assert_eq!(ticks(&[0.0, 0.5, 1.0]), [0.0, 0.5, 1.0]);
        // Within a decade a logarithmic axis has enough of them too.
        let axis = Axis::new([86.0, 147.0].into_iter(), true, (0.0, 1.0));
        assert_eq!(axis.ticks(0.2), [100.0, 120.0, 140.0]);
    }
}
