//! The contents of a run folder, read for a page: its records, and the logits of its models on the
//! test set.

use crate::engine::config::Config;
use crate::engine::data::load_data;
use crate::engine::metrics;
use crate::engine::mlp::Mlp;
use crate::engine::trainer::EpochRecord;
use crate::files::error::{Error, Result};
use crate::files::{model::ModelFile, read::read_json};
use crate::run::folder::entries;
use crate::run::manifest::{differing, located};
use crate::run::records::{SeededRecord, all_records};
use crate::run::summary::{Row, Summary};
use limbeck_datasets::{Dataset, glyphs, mnist};
use limbeck_kernels::Context;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Variants whose models are evaluated for a page, in the order in which it shows them.
const EVALUATED: [&str; 4] = ["teacher", "baseline", "student", "model"];

/// The contents of a run folder. Reading locks and writes nothing.
pub struct RunContents {
    /// The run folder.
    pub root: PathBuf,
    /// `summary.json`.
    pub summary: Summary,
    /// `manifest.json`, `null` where there is none.
    pub manifest: serde_json::Value,
    /// `metrics.jsonl`, empty where there is none.
    pub(crate) epochs: Vec<SeededRecord<EpochRecord>>,
    /// The configurations of its models: by variant, or `""` for that of its one model.
    pub(crate) configs: BTreeMap<String, Config>,
    /// The figures that the summary does not hold: their names without `.svg`, and the documents.
    pub figures: Vec<(String, Vec<u8>)>,
    /// The models and their logits on the test set; or, in words, what is missing for that.
    pub predictions: std::result::Result<Predictions, String>,
}

/// The models of a run and their predictions of the run's test set.
pub struct Predictions {
    /// A data set whose test set has labels.
    pub dataset: Rc<Dataset>,
    /// At least one model.
    pub models: Vec<EvaluatedModel>,
}

/// A model and its logits on the test set.
pub struct EvaluatedModel {
    /// The model's row of the summary.
    pub row: Row,
    /// The parameters as they are stored.
    pub file: ModelFile,
    /// The net.
    pub model: Mlp,
    /// Logits of the test set [n, classes], row-major.
    pub logits: Vec<f32>,
}

impl Predictions {
    /// The labels of the test set, `[n]`.
    pub fn labels(&self) -> &[u16] {
        self.dataset.test.labels.as_deref().unwrap_or_default()
    }

    /// The name of a class.
    pub fn class(&self, class: usize) -> String {
        match self.dataset.name.as_str() {
            "writers" => glyphs::writers::class_name(class),
            _ => self.dataset.names.class(class),
        }
    }

    /// Whether each model is right on each test example: a list for each model.
    pub fn right(&self) -> Vec<Vec<bool>> {
        let classes = self.dataset.classes;
        let of = |model: &EvaluatedModel| {
            let rows = model.logits.chunks_exact(classes).zip(self.labels());
            rows.map(|(row, &label)| metrics::predict(row) == Some(label.into())).collect()
        };
        self.models.iter().map(of).collect()
    }

    /// Of the test examples that the first model, the teacher where there is one, gets right, the one
    /// that it is most undecided about between two classes; if possible, one that the student gets right
    /// too and the baseline does not.
    pub fn in_two_minds(&self) -> Option<usize> {
        let (right, classes) = (self.right(), self.dataset.classes);
        let place = |variant: &str| self.models.iter().position(|m| m.row.variant == variant);
        let pair = place("student").zip(place("baseline"));
        let told = |i: usize| pair.is_some_and(|(good, bad)| right[good][i] && !right[bad][i]);
        let doubt = |i: usize| {
            let mut soft =
                metrics::soft_prediction(&self.models[0].logits[i * classes..][..classes], 1.0);
            soft.sort_by(|a, b| b.total_cmp(a));
            soft.get(1).unwrap_or(&0.0) - 2.0 * soft.iter().skip(2).sum::<f64>()
        };
        let candidates = (0..self.labels().len()).filter(|&i| right[0][i]);
        let scored = candidates.map(|i| (i, told(i), doubt(i)));
        let best = scored.max_by(|a, b| a.1.cmp(&b.1).then(a.2.total_cmp(&b.2)));
        best.map(|(i, ..)| i)
    }
}

impl RunContents {
    /// Reads the records of the run in `root`, and computes the logits on the test set of its
    /// teacher, baseline and student, or of its one model, of `seed` or the first seed. Where the
    /// run's data set is among those that are `loaded`, it is not read again. `data` is the folder of
    /// the data sets.
    ///
    /// # Errors
    /// [`Error::Data`] if there is no summary or a file is damaged; [`Error::Io`].
    pub fn read(
        context: &Context,
        root: &Path,
        data: Option<&Path>,
        seed: Option<u64>,
        loaded: &[Rc<Dataset>],
    ) -> Result<RunContents> {
        let [summary, manifest, metrics] =
            ["summary.json", "manifest.json", "metrics.jsonl"].map(|name| root.join(name));
        if !summary.is_file() {
            return Err(Error::Data {
                path: root.to_path_buf(),
                what: "run folder".into(),
                found: match manifest.is_file() {
                    true => "a run that is not finished, without summary.json".into(),
                    false => "no summary.json".into(),
                },
                expected: "the output folder of a finished run".into(),
            });
        }
        let path = summary;
        let summary = Summary::read(&path)?;
        let (mut figures, mut configs) = (Vec::new(), BTreeMap::new());
        for path in entries(root)? {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let ending = path.extension().unwrap_or_default();
            if ending == "svg" && !summary.charts.contains_key(&name) {
                figures.push((name, fs::read(&path).map_err(Error::io("read", &path))?));
            } else if ending == "toml" && name.starts_with("config") {
                // One that this version refuses says nothing about the nets; it harms nothing else.
                let variant = name.trim_start_matches("config").trim_start_matches('-');
                configs
                    .extend(Config::load(&path).ok().map(|config| (variant.to_string(), config)));
            }
        }
        let mut run = RunContents {
            root: root.to_path_buf(),
            summary,
            manifest: match manifest.is_file() {
                true => read_json(&manifest, "manifest")?,
                false => serde_json::Value::Null,
            },
            epochs: if metrics.is_file() { all_records(&metrics)? } else { Vec::new() },
            configs,
            figures,
            predictions: Err(String::new()),
        };
        run.predictions = run.predict(context, data, seed, loaded)?;
        Ok(run)
    }

    /// The run's name: the last part of its folder's path.
    pub fn name(&self) -> String {
        let resolved = self.root.canonicalize();
        let path = resolved.as_deref().unwrap_or(&self.root);
        path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The temperature of the run's soft targets. It is 1 for a run without soft targets, or of
    /// matched logits, whose temperature is infinite.
    pub fn temperature(&self) -> f64 {
        let found = self.manifest["loss_contract"]["temperature"].as_f64();
        found.filter(|t| t.is_finite() && *t > 0.0).unwrap_or(1.0)
    }

    /// [`RunContents::predictions`]. A model may be missing, but not damaged.
    fn predict(
        &self,
        context: &Context,
        data: Option<&Path>,
        seed: Option<u64>,
        loaded: &[Rc<Dataset>],
    ) -> Result<std::result::Result<Predictions, String>> {
        let rows = &self.summary.rows;
        let Some(seed) = seed.or(rows.first().map(|row| row.seed)) else {
            return Ok(Err("the summary names no model".into()));
        };
        let rows = EVALUATED.iter().filter_map(|variant| self.summary.row(variant, seed));
        let there = rows.filter(|row| !row.model.is_empty());
        let there: Vec<&Row> = there.filter(|row| self.root.join(&row.model).is_file()).collect();
        if there.is_empty() {
            return Ok(Err(format!(
                "no teacher, baseline, student or single model of seed {seed} in the run folder"
            )));
        }
        let dataset = match self.dataset(data, loaded) {
            Ok(dataset) => dataset,
            Err(why) => return Ok(Err(why)),
        };
        let mut models = Vec::new();
        for row in there {
            let path = self.root.join(&row.model);
            let (file, sha256) = ModelFile::load(&path)?;
            if sha256 != row.sha256 {
                return Err(Error::Data {
                    path,
                    what: "sha256 of the parameters".into(),
                    found: sha256,
                    expected: format!("{}, as the summary says", row.sha256),
                });
            }
            let model = Mlp::from_file(&file);
            if (model.inputs(), model.classes()) != (dataset.test.input_size(), dataset.classes) {
                return Ok(Err(format!(
                    "the {} takes {} values in {} classes, the test set has {} in {}",
                    row.variant,
                    model.inputs(),
                    model.classes(),
                    dataset.test.input_size(),
                    dataset.classes
                )));
            }
            let logits = model.logits(context, &dataset.test);
            models.push(EvaluatedModel { row: row.clone(), file, model, logits });
        }
        Ok(Ok(Predictions { dataset, models }))
    }

    /// The data set that the run was trained on, by its SHA-256: one that is `loaded`, or loads it; or
    /// says why it cannot.
    fn dataset(
        &self,
        data: Option<&Path>,
        loaded: &[Rc<Dataset>],
    ) -> std::result::Result<Rc<Dataset>, String> {
        let is_its = |dataset: &&Rc<Dataset>| {
            let changed = differing(&self.manifest["data"], &dataset.sha256);
            dataset.name == self.summary.dataset && changed.is_empty()
        };
        let dataset = match loaded.iter().find(is_its) {
            Some(dataset) => Rc::clone(dataset),
            None => Rc::new(self.load(data)?),
        };
        match &dataset.test.labels {
            Some(labels) if !labels.is_empty() => Ok(dataset),
            _ => Err(format!("the test set of {} has no labels", dataset.name)),
        }
    }

    fn load(&self, data: Option<&Path>) -> std::result::Result<Dataset, String> {
        let config = self.root.join("config.toml");
        let name = self.summary.dataset.as_str();
        let loaded = if config.is_file() {
            let keys = Config::load(&config).map_err(|error| error.to_string())?;
            let mut keys = located(&keys, &self.manifest, data, false);
            if let Some((_, pipe)) = keys.paths_mut().find(|(_, path)| is_read_once(path)) {
                return Err(format!("{} is a pipe, which can be read once", pipe.display()));
            }
            load_data(&keys, &config, data)
        } else {
            match (name, data) {
                ("mnist", Some(folder)) => mnist::load(folder).map_err(Error::from),
                ("mnist", None) => return Err("no data folder with MNIST was given".into()),
                ("glyphs", _) => Ok(glyphs::default()),
                ("writers", _) => Ok(glyphs::writers::default()),
                _ => return Err(format!("the test set of {name} cannot be loaded by its name")),
            }
        };
        let dataset = loaded.map_err(|error| error.to_string())?;
        let changed = differing(&self.manifest["data"], &dataset.sha256);
        if changed.iter().any(|(name, ..)| dataset.sha256.contains_key(name)) {
            return Err(format!("the data of {name} are others than the run's manifest names"));
        }
        Ok(dataset)
    }
}

/// Whether the file, or one in the folder, is a pipe or a device. Whoever opens it again waits for
/// another writer.
fn is_read_once(path: &Path) -> bool {
    match (path.metadata(), path.read_dir()) {
        (Ok(_), Ok(folder)) => folder.flatten().any(|entry| {
            entry.path().metadata().is_ok_and(|about| !about.is_file() && !about.is_dir())
        }),
        (Ok(about), Err(_)) => !about.is_file(),
        (Err(_), _) => false,
    }
}
