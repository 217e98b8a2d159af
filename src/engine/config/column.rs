//! A column of a table, in a configuration: a name, or a place.

use std::fmt;

use super::DataConfig;
use limbeck_datasets::table::{Column, Columns};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// `"name"`, or the place from 0 on, −1 being the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnKey(pub Column);

impl fmt::Display for ColumnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for ColumnKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Column::Name(name) => serializer.serialize_str(name),
            Column::Place(place) => serializer.serialize_i64(*place),
        }
    }
}

impl<'de> Deserialize<'de> for ColumnKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ColumnKey, D::Error> {
        struct NameOrPlace;
        impl Visitor<'_> for NameOrPlace {
            type Value = ColumnKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a column: its name in quotes, or its place from 0 on, −1 being the last",
                )
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<ColumnKey, E> {
                Ok(ColumnKey(Column::Name(name.to_string())))
            }

            fn visit_i64<E: Error>(self, place: i64) -> Result<ColumnKey, E> {
                Ok(ColumnKey(Column::Place(place)))
            }
        }
        deserializer.deserialize_any(NameOrPlace)
    }
}

impl DataConfig {
    /// Which column of a table is which.
    pub fn columns(&self) -> Columns {
        Columns {
            label: self.label_column.as_ref().map(|key| key.0.clone()),
            ignored: self.ignore_columns.iter().map(|key| key.0.clone()).collect(),
            drop_incomplete: self.drop_incomplete_rows,
        }
    }
}
