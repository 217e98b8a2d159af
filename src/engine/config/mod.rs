//! The training configuration: a TOML file of five tables in which unknown keys are refused.
//!
//! Fractions are held as `f64`, so that the resolved file prints the digits that were read, and
//! are checked as the `f32` that the engine will compute with: a learning rate of 1e-60 is zero.

mod check;
mod column;
mod explain;
mod inferred;
mod old_names;
mod overrides;
mod paths;
mod tables;
#[cfg(test)]
mod tests;
mod unused;

pub use column::ColumnKey;
pub use tables::{
    Amount, DataConfig, DatasetKind, DistillationConfig, ModelConfig, OptimizerKind, Precision,
    ScheduleKind, SplitKind, Standardize, TrainingConfig,
};

pub use overrides::Overrides;

use std::collections::BTreeMap;
use std::path::Path;

use limbeck_datasets::foreign::Wanted;
use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use crate::files::error::{Error, Result};
use crate::files::read::{read_at_most, refuse_foreign};
use check::{Violation, require};
use explain::{explain, line_of, offset_of};
use inferred::Given;

/// Largest number of parameters a model may have: 4 GiB of `f32`.
pub const MAX_PARAMS: usize = 1 << 30;

/// A whole configuration. Absent keys take the defaults of each table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seed of every random stream: initialisation, shuffles, dropout, jitter.
    pub seed: u64,
    /// What is trained on.
    pub data: DataConfig,
    /// The network.
    pub model: ModelConfig,
    /// How it is trained.
    pub training: TrainingConfig,
    /// The distillation loss; absent = [`DistillationConfig::default`] where a teacher is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distillation: Option<DistillationConfig>,
}

/// What is wrong in a text: the offset of its byte, where it has a place, and a message.
type Fault = (Option<usize>, String);

impl Config {
    /// Parses and checks `text`. `origin` is the file it came from: messages name it, and relative
    /// paths in `text` are taken from its folder and made absolute.
    ///
    /// # Errors
    /// [`Error::Config`] with file, line, what was found and what was expected.
    pub fn from_toml(text: &str, origin: &Path) -> Result<Config> {
        Config::parse(text, origin, &Overrides::default())
    }

    fn parse(text: &str, origin: &Path, overrides: &Overrides) -> Result<Config> {
        let error = |(offset, message): Fault| Error::Config {
            path: origin.to_path_buf(),
            line: offset.map(|at| line_of(text, at)),
            message,
        };
        let mut config = Config::read(text, overrides).map_err(error)?;
        config.check().map_err(|v| error((offset_of(text, v.key), v.message)))?;

        let origin = std::path::absolute(origin).map_err(Error::io("resolve", origin))?;
        let folder = origin.parent().unwrap_or(&origin);
        for (key, path) in config.paths_mut() {
            // What the command line says is said where the command was given.
            *path = match overrides.has(key) {
                true => std::path::absolute(&*path).map_err(Error::io("resolve", path))?,
                false => folder.join(&*path),
            };
        }
        Ok(config)
    }

    /// Parses `text`; of what is wrong the place and what it is, in words.
    fn read(text: &str, overrides: &Overrides) -> std::result::Result<Config, Fault> {
        let not_toml = |e: toml::de::Error| {
            // What the command line says has no place in the file.
            let at = e.span().filter(|_| overrides.is_empty()).map(|span| span.start);
            let message = explain(text, at, e.message());
            // Too deep a nesting has no place of its own.
            let expected = match at.is_none() && overrides.is_empty() {
                true => ", expected the tables of a configuration",
                false => "",
            };
            (at, message + expected)
        };
        let violation = |v: Violation| (offset_of(text, v.key), v.message);
        let mut document = DeTable::parse(text).map_err(not_toml)?;
        overrides.apply(document.get_mut());
        old_names::replace(document.get_mut()).map_err(violation)?;
        let given = Given::of(document.get_ref());
        let mut config =
            Config::deserialize(toml::Deserializer::from(document)).map_err(not_toml)?;
        config.infer(&given).map_err(violation)?;
        Ok(config)
    }

    /// The configuration of a `text` that is no file's, such as keywords that a program was given:
    /// paths stay as they are, ranges are for [`Config::validate`].
    ///
    /// # Errors
    /// What is no TOML or no key or value of a configuration, in words.
    pub fn from_text(text: &str) -> std::result::Result<Config, String> {
        Config::read(text, &Overrides::default()).map_err(|(_, message)| message)
    }

    /// Reads, parses and checks the file at `path`, of at most 64 KiB, in at most 256 times its
    /// size of memory.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, else as [`Config::from_toml`].
    pub fn load(path: &Path) -> Result<Config> {
        Config::load_with(path, &Overrides::default())
    }

    /// [`Config::load`] with other values for some keys.
    ///
    /// # Errors
    /// As [`Config::load`]; [`Error::Usage`] where the file is right without these values.
    pub fn load_with(path: &Path, overrides: &Overrides) -> Result<Config> {
        const MAX_BYTES: u64 = 1 << 16;
        let bytes = read_at_most(path, MAX_BYTES)?.ok_or_else(|| Error::Config {
            path: path.to_path_buf(),
            line: None,
            message: format!("found more than {MAX_BYTES} bytes, expected a TOML file"),
        })?;
        refuse_foreign(path, &bytes, Wanted::Text, "a configuration in TOML")?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            Error::Config {
                path: path.to_path_buf(),
                line: Some(1 + e.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count()),
                message: format!(
                    "found byte {:#04x} at offset {at}, expected UTF-8 text",
                    e.as_bytes()[at]
                ),
            }
        })?;
        let parsed = Config::parse(&text, path, overrides);
        let config = parsed.or_else(|error| match error {
            Error::Config { message, .. } if !overrides.is_empty() => {
                // What is wrong without these values is the file's.
                Config::from_toml(&text, path)?;
                // So is what one of them says alone; else they contradict each other.
                let alone =
                    overrides.each().find_map(|one| match Config::parse(&text, path, &one) {
                        Err(Error::Config { message, .. }) => Some((one, message)),
                        _ => None,
                    });
                Err(Error::Usage(match alone {
                    Some((one, message)) => format!("--set {one}: {message}"),
                    None => format!("--set {overrides}: {message}"),
                }))
            }
            other => Err(other),
        })?;
        // Beside a manifest lies the configuration of a run.
        let is_kept =
            path.ends_with("config.toml") && path.with_file_name("manifest.json").is_file();
        Ok(if is_kept { config.kept_by_a_run() } else { config })
    }

    /// The resolved configuration: every key with its value, defaults included.
    /// [`Config::from_toml`] reads it back unchanged. A path that is not UTF-8 is written as a
    /// `file:` address, its bytes as `%XX`.
    ///
    /// # Errors
    /// [`Error::Internal`], which no configuration gives.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::Internal(format!("configuration to TOML: {e}")))
    }

    /// A key whose value differs from that in `other`, such as `training.epochs`, and both values; where
    /// the files lie is no difference.
    ///
    /// # Errors
    /// As [`Config::to_toml`].
    pub fn difference(&self, other: &Config) -> Result<Option<(String, String, String)>> {
        let (here, there) = (self.without_places().keys()?, other.without_places().keys()?);
        let mut keys = here.keys().chain(there.keys());
        let Some(key) = keys.find(|key| here.get(*key) != there.get(*key)) else { return Ok(None) };
        let value = |config: &Config| -> Result<String> {
            Ok(config.keys()?.remove(key).unwrap_or_else(|| "none".into()))
        };
        Ok(Some((key.clone(), value(self)?, value(other)?)))
    }

    /// Every key with its value in TOML.
    fn keys(&self) -> Result<BTreeMap<String, String>> {
        let table = toml::Table::try_from(self)
            .map_err(|e| Error::Internal(format!("configuration to TOML: {e}")))?;
        let mut keys = BTreeMap::new();
        for (name, value) in table {
            match value {
                toml::Value::Table(table) => {
                    keys.extend(
                        table.iter().map(|(key, v)| (format!("{name}.{key}"), v.to_string())),
                    );
                }
                value => _ = keys.insert(name, value.to_string()),
            }
        }
        Ok(keys)
    }

    /// Checks every range. For a configuration put together in memory, from the command line.
    ///
    /// # Errors
    /// [`Error::Usage`] with key, value expected and value found.
    pub fn validate(&self) -> Result<()> {
        self.check().map_err(|violation| Error::Usage(violation.message))
    }

    /// [`Config::validate`] for examples in memory, of `inputs` values each: `data.dataset`, its
    /// paths and classes play no part.
    ///
    /// # Errors
    /// [`Error::Usage`] with key, value expected and value found.
    pub fn validate_in_memory(&self, inputs: usize) -> Result<()> {
        let check = || {
            self.data.check_jitter()?;
            self.model.check()?;
            self.model.check_complete()?;
            self.training.check()?;
            self.distillation.as_ref().map_or(Ok(()), DistillationConfig::check)?;
            let layers = &self.model.layers;
            require(
                layers[0] == inputs,
                "model.layers",
                &format!("starting with {inputs}, the values of an example"),
                format!("{layers:?}"),
            )
        };
        check().map_err(|violation| Error::Usage(violation.message))
    }
}
