//! The colours of all charts and pages, and which model has which.

use std::fmt::Write;

/// The background of a page, light and dark.
pub const PAPER: (&str, &str) = ("#ffffff", "#16181d");

/// The colours of lines, light and dark. The first three are the teacher's, the baseline's and the
/// student's. That the colour-blind tell them apart, and that text in them is legible on
/// [`PAPER`], is computed in `tests/pages.rs`.
pub const COLOURS: [(&str, &str); 6] = [
    ("#2333a0", "#4a8bff"),
    ("#8f3a06", "#ff7a45"),
    ("#0a8061", "#8ff0d6"),
    ("#a738a2", "#bd82b1"),
    ("#807000", "#f4e06a"),
    ("#6b0050", "#fb9797"),
];

/// The most lines that colours and dashes, three of a colour, tell apart.
pub const MAX_LINES: usize = 3 * COLOURS.len();

/// Those whose colours are the same in every chart.
const FIXED: [&str; 3] = ["teacher", "baseline", "student"];

/// Which name has which colour.
#[derive(Clone)]
pub struct Colours(Vec<String>);

impl Colours {
    /// Colours for these names. Teacher, baseline and student have theirs, the others come in their
    /// order.
    pub fn of<'n>(names: impl IntoIterator<Item = &'n str>) -> Colours {
        let names: Vec<&str> = names.into_iter().collect();
        let fixed = FIXED.iter().filter(|_| names.iter().any(|name| FIXED.contains(name)));
        let mut all: Vec<String> = fixed.map(|name| name.to_string()).collect();
        for name in names {
            if !all.iter().any(|known| known == name) {
                all.push(name.to_string());
            }
        }
        Colours(all)
    }

    /// These, where they know one of the `names`; else colours for the `names` alone.
    pub fn or_of<'n>(&'n self, names: impl Iterator<Item = &'n str> + Clone) -> Colours {
        let known = names.clone().any(|name| self.0.iter().any(|known| known == name));
        if known {
            Colours::of(self.0.iter().map(|name| &**name).chain(names))
        } else {
            Colours::of(names)
        }
    }

    /// The classes of a line or mark of this name: `c0` to `c5` for its colour, `d1` and `d2` for
    /// its dashes.
    pub fn class(&self, name: &str) -> String {
        let place = self.0.iter().position(|known| known == name).unwrap_or(0);
        let dash = match place / COLOURS.len() % 3 {
            0 => String::new(),
            dash => format!(" d{dash}"),
        };
        format!("c{}{dash}", place % COLOURS.len())
    }
}

/// The colours as properties that classes set, for either theme.
pub fn palette_css() -> String {
    let mut css = String::new();
    let theme = |css: &mut String, of: fn(&(&'static str, &'static str)) -> &'static str| {
        let _ = write!(css, ":root{{--paper:{};", of(&PAPER));
        for (i, colour) in COLOURS.iter().enumerate() {
            let _ = write!(css, "--c{i}:{};", of(colour));
        }
        css.push('}');
    };
    theme(&mut css, |pair| pair.0);
    css += "\n@media(prefers-color-scheme:dark){";
    theme(&mut css, |pair| pair.1);
    css += "}\n";
    for i in 0..COLOURS.len() {
        let _ = write!(css, ".c{i}{{--c:var(--c{i})}}");
    }
    css + "\n"
}
