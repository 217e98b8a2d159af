//! Where in the file a mistake is, and what was probably meant.

use super::Config;
use limbeck_datasets::{nearest, shown};
use toml::de::{DeTable, DeValue};

/// Line of the byte offset `at`, counted from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&b| b == b'\n').count()
}

/// Byte offset of the value of the dotted `key`, where the file spells it out.
pub(super) fn offset_of(text: &str, key: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut offset = None;
    for part in key.split('.') {
        let Some(value) = table.get(part) else { break };
        offset = Some(value.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    offset
}

/// Rewords the parser's message: for an unknown name the table that has it or the nearest known one, else
/// what was found and expected in the words of TOML, and the line at fault.
pub(super) fn explain(text: &str, at: Option<usize>, message: &str) -> String {
    let line = at.and_then(|at| text.lines().nth(line_of(text, at) - 1));
    let line = line.map(str::trim).filter(|line| !line.is_empty());
    let place = line.map(|line| format!(", in `{}`", shown(line))).unwrap_or_default();
    let (kind, names) = if message.starts_with("unknown field") {
        ("key", quoted(message))
    } else if message.starts_with("unknown variant") {
        ("value", quoted(message))
    } else {
        return shown(&in_words(&message.replace('\n', ", "))) + &place;
    };
    let Some((found, known)) = names.split_first() else {
        return shown(message);
    };
    let found = shown(found);
    let table = TABLES.into_iter().find(|table| kind == "key" && has_key(table, &found));
    let meant = match (table, nearest(&found, known.iter().copied())) {
        (Some(table), _) => format!(" here; it is one of [{table}]."),
        (None, Some(name)) => format!("; did you mean `{name}`?"),
        (None, None) => ".".into(),
    };
    let known = known.join(", ");
    let place = if kind == "value" { place } else { String::new() };
    format!("found the unknown {kind} `{found}`{place}{meant} Expected one of: {known}")
}

/// The tables of a configuration.
pub(super) const TABLES: [&str; 4] = ["data", "model", "training", "distillation"];

/// Whether a table has such a key, which the parser tells beside one that is none.
fn has_key(table: &str, key: &str) -> bool {
    let refused = toml::from_str::<Config>(&format!("[{table}]\n\"?\" = 0")).err();
    refused.is_some_and(|error| quoted(error.message()).iter().skip(1).any(|known| *known == key))
}

/// A message of the parser without the names of Rust's types.
fn in_words(message: &str) -> String {
    let told = ["invalid type: ", "invalid value: "].iter().find_map(|kind| {
        let (found, expected) = message.strip_prefix(kind)?.rsplit_once(", expected ")?;
        let found = match found.split_once([' ', '`']).map_or(found, |(kind, _)| kind) {
            "map" => "a table",
            "sequence" => "a list",
            "string" => found.trim_start_matches("string "),
            _ => found.split('`').nth(1).unwrap_or(found),
        };
        let expected = match expected {
            "usize" | "u64" => "a whole number from 0 on",
            "f64" => "a number",
            "a sequence" => "a list, as [1, 2]",
            "a string" => "a text in quotes",
            "a boolean" => "true or false",
            table if table.starts_with("struct ") => "a table of keys",
            other => other,
        };
        Some(format!("found {found}, expected {expected}"))
    });
    let wanted = message.strip_prefix("wanted string or table");
    told.or_else(|| Some(format!("expected one of its names in quotes{}", wanted?)))
        .unwrap_or_else(|| message.to_string())
}

/// The names between backticks.
fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}
