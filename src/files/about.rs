//! What a model file says of the data that its model was trained on.

use std::collections::BTreeMap;

use limbeck_datasets::{Dataset, Names};

use crate::files::error::{Error, Result};
use crate::files::safetensors::TensorFile;

/// The longest names that are kept, in bytes of JSON: what a header has room for.
const MAX_NAMES: usize = 1 << 20;

/// The data set of a model. In the metadata of its file: `dataset`, its name; `data`, a JSON object of
/// SHA-256 by what was hashed; `class_names` and `feature_names`, JSON arrays; `label_name`; `class_type`,
/// `text` where names of classes that read as numbers are none. All may be absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// [`Dataset::name`].
    pub dataset: String,
    /// [`Dataset::sha256`].
    pub data: BTreeMap<String, String>,
    /// [`Dataset::names`].
    pub names: Names,
}

impl About {
    /// Of a model of `dataset`.
    pub fn of(dataset: &Dataset) -> About {
        let Dataset { name, sha256, names, .. } = dataset;
        About { dataset: name.clone(), data: sha256.clone(), names: names.clone() }
    }

    /// Whether some file of `dataset` is one of these; `None` where that is not known.
    pub fn shares_files_with(&self, dataset: &Dataset) -> Option<bool> {
        let known = !self.data.is_empty() && !dataset.sha256.is_empty();
        let shared = |digest| self.data.values().any(|known| known == digest);
        known.then(|| dataset.sha256.values().any(shared))
    }

    /// The entries of the metadata. Names that a header has no room for are left out.
    pub(super) fn metadata(&self) -> Result<BTreeMap<String, String>> {
        let json = |value: serde_json::Result<String>| {
            value.map_err(|e| Error::Internal(format!("metadata to JSON: {e}")))
        };
        let mut metadata = BTreeMap::new();
        if !self.dataset.is_empty() {
            metadata.insert("dataset".to_string(), self.dataset.clone());
        }
        if !self.data.is_empty() {
            metadata.insert("data".to_string(), json(serde_json::to_string(&self.data))?);
        }
        let Names { classes, are_texts, features, label } = &self.names;
        if *are_texts {
            metadata.insert("class_type".to_string(), "text".to_string());
        }
        if let Some(label) = label.as_ref().filter(|label| label.len() <= MAX_NAMES) {
            metadata.insert("label_name".to_string(), label.clone());
        }
        for (key, names) in [("class_names", classes), ("feature_names", features)] {
            let names = json(serde_json::to_string(names))?;
            if names != "[]" && names.len() <= MAX_NAMES {
                metadata.insert(key.to_string(), names);
            }
        }
        Ok(metadata)
    }

    /// Reads what [`About::metadata`] wrote of a model of `inputs` values and `classes` classes.
    pub(super) fn read(file: &TensorFile, inputs: usize, classes: usize) -> Result<About> {
        let text = |key: &str| file.metadata.get(key).map(String::as_str);
        let names = |key: &str, count: usize| -> Result<Vec<String>> {
            let Some(text) = text(key) else { return Ok(Vec::new()) };
            let names: Option<Vec<String>> = serde_json::from_str(text).ok();
            names.filter(|names| names.len() == count).ok_or_else(|| {
                file.bad(
                    format!("metadata `{key}`"),
                    text,
                    format!("a JSON array of {count} names"),
                )
            })
        };
        let data = text("data").map_or(Ok(BTreeMap::new()), |text| {
            let expected = "a JSON object of SHA-256";
            serde_json::from_str(text).map_err(|_| file.bad("metadata `data`", text, expected))
        })?;
        Ok(About {
            dataset: text("dataset").unwrap_or_default().to_string(),
            data,
            names: Names {
                classes: names("class_names", classes)?,
                are_texts: text("class_type") == Some("text"),
                features: names("feature_names", inputs)?,
                label: text("label_name").map(String::from),
            },
        })
    }
}
