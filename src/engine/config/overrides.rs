//! Keys that the command line sets: `training.epochs=20`.

use std::fmt::{self, Display, Formatter};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::explain::TABLES;
use crate::files::error::{Error, Result};

/// Values of keys that go before those of a file.
#[derive(Default)]
pub struct Overrides {
    /// Each as a document of one key, `training.epochs = 20`.
    documents: Vec<String>,
}

impl Overrides {
    /// Of texts `KEY=VALUE`: the key with its table, the value as in TOML; what is none of its values
    /// is a text.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn new(texts: &[String]) -> Result<Overrides> {
        let mut overrides = Overrides::default();
        for text in texts {
            let is_key = |key: &str| {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                key.split('.').all(|part| !part.is_empty() && part.chars().all(plain))
            };
            let Some((key, value)) = text.split_once('=').map(|(k, v)| (k.trim(), v.trim())) else {
                return Err(Error::Usage(format!(
                    "--set: found {text}, expected KEY=VALUE, such as training.epochs=20"
                )));
            };
            if !is_key(key) {
                return Err(Error::Usage(format!(
                    "--set: found the key {key:?}, expected one of the configuration with its table, \
                     such as training.epochs"
                )));
            }
            let as_it_is = format!("{key} = {value}");
            let is_table = TABLES.contains(&key);
            if is_table && !value.starts_with('{') {
                return Err(Error::Usage(format!(
                    "--set: found {text}, expected a key of the table, such as {key}.KEY=VALUE"
                )));
            }
            let is_value = DeTable::parse(&as_it_is).is_ok_and(|table| table.get_ref().len() == 1);
            let text = || format!("{key} = {}", toml::Value::String(value.to_string()));
            overrides.documents.push(if is_value { as_it_is } else { text() });
        }
        Ok(overrides)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// Each alone.
    pub(super) fn each(&self) -> impl Iterator<Item = Overrides> {
        self.documents.iter().map(|document| Overrides { documents: vec![document.clone()] })
    }

    /// Whether one is of the key `name`, which is given without its table, or of a table that has it.
    pub(super) fn has(&self, name: &str) -> bool {
        let has = |document: &String| {
            DeTable::parse(document).is_ok_and(|table| is_in(table.get_ref(), name))
        };
        self.documents.iter().any(has)
    }

    /// Puts the values into the tables of a document.
    pub(super) fn apply<'d>(&'d self, root: &mut DeTable<'d>) {
        for document in &self.documents {
            if let Ok(table) = DeTable::parse(document) {
                merge(root, table.into_inner());
            }
        }
    }
}

/// Whether a table, or one in it, has such a key.
fn is_in(table: &DeTable, name: &str) -> bool {
    table.iter().any(|(key, value)| {
        let inner = value.get_ref().as_table();
        key.get_ref() == name || inner.is_some_and(|inner| is_in(inner, name))
    })
}

fn merge<'d>(into: &mut DeTable<'d>, from: DeTable<'d>) {
    for (key, value) in from {
        let nowhere = |value| Spanned::new(0..0, value);
        match (into.get_mut(key.get_ref().as_ref()).map(Spanned::get_mut), value.into_inner()) {
            (Some(DeValue::Table(known)), DeValue::Table(table)) => merge(known, table),
            (Some(place), value) => *place = value,
            (None, value) => drop(into.insert(key, nowhere(value))),
        }
    }
}

impl Display for Overrides {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.documents.join(", ").replace(" = ", "="))
    }
}
