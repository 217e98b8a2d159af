//! What a configuration leaves to its data: the kind of the data set, where its paths tell it; the
//! number of classes; the first and the last of `layers`.
//!
//! Until the data are read, 0 stands for a number that they will tell, and empty `layers` for those of
//! the model to start from.

use limbeck_datasets::glyphs::writers;
use toml::de::DeTable;

use super::check::{Check, Violation, require};
use super::{Config, DatasetKind, ModelConfig};

/// The width of the hidden layers where neither `layers` nor `hidden` says it.
const HIDDEN: [usize; 2] = [1200, 1200];

/// Which keys a text has.
pub(super) struct Given {
    dataset: bool,
    classes: bool,
    layers: bool,
}

impl Given {
    pub fn of(root: &DeTable) -> Given {
        let has = |table: &str, key: &str| {
            let table = root.get(table).and_then(|value| value.get_ref().as_table());
            table.is_some_and(|table| table.contains_key(key))
        };
        Given {
            dataset: has("data", "dataset"),
            classes: has("data", "classes"),
            layers: has("model", "layers"),
        }
    }
}

impl Config {
    /// Puts in what follows from other keys, and 0 for what the data will tell.
    pub(super) fn infer(&mut self, given: &Given) -> Check {
        let Config { data, model, .. } = self;
        if !given.dataset {
            let kinds = [
                (DatasetKind::Idx, data.train_images.is_some() || data.test_images.is_some()),
                (DatasetKind::Csv, data.train_table.is_some() || data.test_table.is_some()),
                (DatasetKind::Npz, data.arrays.is_some()),
            ];
            let mut named = kinds.into_iter().filter(|(_, is_named)| *is_named);
            if let (Some((kind, _)), None) = (named.next(), named.next()) {
                data.dataset = kind;
            }
        }
        if data.dataset == DatasetKind::Writers && !given.classes {
            data.classes = writers::CLASSES;
        }
        let zero = "sizes of 1 to 65536; without `layers` and with `hidden` the data tell the first and \
                    the last";
        let layers = &model.layers;
        require(!layers.contains(&0), "model.layers", zero, format!("{layers:?}"))?;
        require(data.classes > 0, "data.classes", "2 to 65536, or absent", 0)?;
        let (inputs, own) = match data.dataset.inputs() {
            None => (0, true),
            Some((inputs, _)) => (inputs, false),
        };
        if let Some(hidden) = model.hidden.take() {
            require(!given.layers, "model.hidden", "absent beside model.layers", "both")?;
            model.layers = [&[inputs][..], &hidden, &[0]].concat();
        } else if !given.layers && model.initial.is_some() {
            model.layers = Vec::new();
        } else if !given.layers {
            model.layers = [&[inputs][..], &HIDDEN, &[0]].concat();
        }
        if own && !given.classes {
            data.classes = model.layers.last().copied().unwrap_or(0);
        } else if let Some(last) = model.layers.last_mut().filter(|last| **last == 0) {
            *last = data.classes;
        }
        Ok(())
    }

    /// Puts in what the data tell: the `inputs` of an example, the number of `classes`; and the widths
    /// of the model to start from, where the configuration has none.
    pub(crate) fn complete(
        &mut self,
        inputs: usize,
        classes: usize,
        initial: Option<&[usize]>,
    ) -> std::result::Result<(), String> {
        let layers = &mut self.model.layers;
        if let (true, Some(widths)) = (layers.is_empty(), initial) {
            *layers = widths.to_vec();
        }
        if let [first, .., last] = &mut layers[..] {
            for (side, value) in [(first, inputs), (last, classes)] {
                if *side == 0 {
                    *side = value;
                }
            }
        }
        if self.data.classes == 0 {
            self.data.classes = classes;
        }
        let text = |Violation { message, .. }| message;
        self.model.check_complete().map_err(text)?;
        self.check().map_err(text)
    }
}

impl ModelConfig {
    /// Whether nothing is left to the data.
    pub(super) fn check_complete(&self) -> Check {
        let holds = !self.layers.is_empty() && !self.layers.contains(&0);
        require(
            holds,
            "model.layers",
            "at least 2 sizes of 1 to 65536",
            format!("{:?}", self.layers),
        )
    }
}
