//! Where in the file a mistake is, and what was probably meant.

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

/// Rewords the parser's message: the nearest known name for an unknown one, else the line at fault.
pub(super) fn explain(text: &str, at: Option<usize>, message: &str) -> String {
    let (kind, names) = if message.starts_with("unknown field") {
        ("key", quoted(message))
    } else if message.starts_with("unknown variant") {
        ("value", quoted(message))
    } else {
        let line = at.and_then(|at| text.lines().nth(line_of(text, at) - 1));
        let line = line.map(str::trim).filter(|line| !line.is_empty());
        let line = line.map(|line| format!(", in `{}`", shown(line))).unwrap_or_default();
        return shown(&message.replace('\n', ", ")) + &line;
    };
    let Some((found, known)) = names.split_first() else {
        return shown(message);
    };
    let found = shown(found);
    let nearest = nearest(&found, known.iter().copied());
    let nearest = nearest.map_or(".".to_owned(), |name| format!("; did you mean `{name}`?"));
    let known = known.join(", ");
    format!("found the unknown {kind} `{found}`{nearest} Expected one of: {known}")
}

/// The names between backticks.
fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}
