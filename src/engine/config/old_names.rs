//! Names of earlier versions, which stay valid.
//!
//! | then | now |
//! |---|---|
//! | `shards` | `microbatches` |
//! | no `data.standardize`, in a run's folder | `standardize = false` |
//! | no `data.split`, in a run's folder | `split = "last"` |
//! | `schedule = "hinton2012"`, with `optimizer = "sgd"` or without | `optimizer = "hinton2012"`, `schedule = "exponential"` |

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::{Check, require};
use super::{Config, SplitKind, Standardize};
use crate::files::error::Result;

const HINTON: &str = "hinton2012";

/// Gives old keys and values their names of today.
pub(super) fn replace(root: &mut DeTable) -> Check {
    let Some(DeValue::Table(training)) = root.get_mut("training").map(Spanned::get_mut) else {
        return Ok(());
    };
    if let Some(value) = training.remove("shards") {
        require(
            !training.contains_key("microbatches"),
            "training.microbatches",
            "given once",
            "it beside its old name, shards",
        )?;
        training.insert(Spanned::new(0..0, Cow::Borrowed("microbatches")), value);
    }
    let text = |key| training.get(key).map(|value| value.get_ref().as_str().unwrap_or_default());
    if text("schedule") != Some(HINTON) {
        return Ok(());
    }
    let optimizer = text("optimizer");
    require(
        matches!(optimizer, None | Some("sgd" | HINTON)),
        "training.optimizer",
        "\"sgd\" with the schedule \"hinton2012\"",
        optimizer.unwrap_or_default(),
    )?;
    for (key, name) in [("schedule", "exponential"), ("optimizer", HINTON)] {
        let [key, name] = [key, name].map(Cow::Borrowed);
        training.insert(Spanned::new(0..0, key), Spanned::new(0..0, DeValue::String(name)));
    }
    Ok(())
}

impl Config {
    /// Gives a configuration that a run keeps the values that its absent keys then had.
    pub(crate) fn kept_by_a_run(mut self) -> Config {
        self.data.standardize.get_or_insert(Standardize::Off);
        self.data.split.get_or_insert(SplitKind::Last);
        self
    }

    /// [`Config::to_toml`] in the words of the first version. A checkpoint knows the run that it
    /// belongs to by the SHA-256 of this text, so that runs begun with any version go on.
    ///
    /// # Errors
    /// As [`Config::to_toml`].
    pub(crate) fn to_first_toml(&self) -> Result<String> {
        let text = self.to_toml()?.replace("\nmicrobatches = ", "\nshards = ");
        let text =
            text.replace("\nstandardize = false\n", "\n").replace("\nsplit = \"last\"\n", "\n");
        Ok(text.replace(
            "\nschedule = \"exponential\"\noptimizer = \"hinton2012\"\n",
            "\nschedule = \"hinton2012\"\noptimizer = \"sgd\"\n",
        ))
    }
}
