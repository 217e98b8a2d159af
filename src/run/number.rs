//! Numbers as people read them.

/// Smaller p-values are not told apart: below it a 64-bit number loses its digits, and then is 0.
const TINY: f64 = 1e-300;

/// A whole number with its thousands apart: `10,000`.
pub fn count(n: usize) -> String {
    let digits = n.to_string();
    let first = digits.len() % 3;
    let (head, rest) = digits.split_at(first);
    let groups = rest.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    let head = (!head.is_empty()).then(|| head.to_string());
    head.into_iter().chain(groups).collect::<Vec<_>>().join(",")
}

/// A number in at most four significant digits, whole ones in full: `0.0254`, `211.1`, `60,000`.
pub fn short(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    if value.fract() == 0.0 && value.abs() < 1e15 || (1e3..1e9).contains(&value.abs()) {
        let sign = if value < 0.0 { "-" } else { "" };
        return format!("{sign}{}", count(value.abs().round() as usize));
    }
    let size = value.abs().log10().floor() as i32;
    if !(-5..3).contains(&size) {
        return format!("{value:.2e}");
    }
    let text = format!("{value:.*}", (3 - size) as usize);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// A value and its spread, which has as many decimals: `8.306 ± 0.009`; the value alone where there is none.
pub fn with_spread(value: f64, spread: f64) -> String {
    let text = short(value);
    let decimals = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    match spread > 0.0 && !text.contains('e') {
        true => format!("{text} ± {spread:.decimals$}"),
        false => text,
    }
}

/// What a p-value is in a sentence: `= 0.031`, `= 2.68e-22`.
pub fn p_is(p: f64) -> String {
    match p {
        0.001..=1.0 => format!("= {}", short((p * 1e3).round() / 1e3)),
        _ if p < TINY => p_value(p),
        _ => format!("= {}", p_value(p)),
    }
}

/// A p-value of a table. One that is too small for a 64-bit number is not 0.
pub fn p_value(p: f64) -> String {
    if p < TINY { "< 1e-300".into() } else { format!("{p:.2e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(
            [0, 7, 999, 1000, 60_000, 1_234_567].map(count).join(" "),
            "0 7 999 1,000 60,000 1,234,567"
        );
        let shown = [0.0, -1.0, 0.1, 211.144_826, 0.025_43, 12_345.6, 1e-7, 2.5].map(short);
        assert_eq!(shown.join(" "), "0 -1 0.1 211.1 0.02543 12,346 1.00e-7 2.5");
        assert_eq!(short(f64::NAN), "NaN");
        let shown = [(8.3063, 0.008_84), (86.0, 3.6), (7.0, 0.0), (1e-9, 1e-10)];
        let shown = shown.map(|(value, spread)| with_spread(value, spread)).join(", ");
        assert_eq!(shown, "8.306 ± 0.009, 86 ± 4, 7, 1.00e-9");
        assert_eq!(
            [0.0, 1e-301, 2.7e-4, 1.0].map(p_value).join(" "),
            "< 1e-300 < 1e-300 2.70e-4 1.00e0"
        );
        assert_eq!(
            [0.0, 2.7e-4, 0.0313, 1.0].map(p_is).join(" "),
            "< 1e-300 = 2.70e-4 = 0.031 = 1"
        );
    }
}
