//! Figures of training as text, for the line and for the dashboard.

use limbeck::engine::metrics::error_rate;
use limbeck::engine::trainer::Progress;
use std::time::Duration;

/// The share of the epoch's examples so far that were misclassified, `1.25 %`; a dash without labels.
pub fn format_errors(progress: &Progress) -> String {
    let rate = |errors| error_rate(errors as usize, progress.examples as usize);
    progress.errors.map_or("–".into(), |errors| format!("{:.2} %", 100.0 * rate(errors)))
}

/// `91 % of peak`: 10⁹ operations a second as a share of `peak` operations a second.
pub fn format_share_of_peak(gflops: f64, peak: f64) -> String {
    format!("{:.0} % of peak", 1e11 * gflops / peak)
}

/// Hours, minutes and seconds: `1:02:03`, or `2:03` below an hour.
pub fn format_clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_clocks() {
        let shown = [0, 59, 61, 3599, 3600, 90_061].map(|s| format_clock(Duration::from_secs(s)));
        assert_eq!(shown, ["0:00", "0:59", "1:01", "59:59", "1:00:00", "25:01:01"]);
    }
}
