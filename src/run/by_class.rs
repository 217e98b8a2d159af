//! What a model makes of each class: confusions, recall, precision.

use crate::engine::metrics::Confusion;
use limbeck_datasets::Names;
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// Of more classes the counts [C, C] are left out of files.
const MOST_COUNTED: usize = 256;
/// Of more classes the table is not printed.
const MOST_SHOWN: usize = 20;
/// The longest name that is printed whole.
const WIDTH: usize = 16;

/// Recall and precision of each class, and what is expected of a model that does not look.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ByClass {
    /// The mean recall over the classes that have examples.
    pub balanced_accuracy: f64,
    /// The class with the most examples.
    pub commonest: String,
    /// The errors that always answering it makes.
    pub errors_of_commonest: u64,
    /// In the order of the classes.
    pub classes: Vec<Class>,
    /// [C, C], row = label, column = prediction; absent for more than 256 classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confusion: Option<Vec<Vec<u64>>>,
}

/// One class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Class {
    /// Its name, or its number.
    pub class: String,
    /// Its examples.
    pub examples: u64,
    /// Examples that were taken for it.
    pub predicted: u64,
    /// The share of its examples that are recognised.
    pub recall: Option<f64>,
    /// The share of what was taken for it that is of it.
    pub precision: Option<f64>,
}

impl ByClass {
    /// Of `confusion`, with the names of the classes where they have some.
    pub fn new(confusion: &Confusion, names: &Names) -> ByClass {
        let classes = 0..confusion.classes();
        let (commonest, errors_of_commonest) = confusion.commonest();
        let class = |c| Class {
            class: names.class(c),
            examples: confusion.examples(c),
            predicted: confusion.predicted(c),
            recall: confusion.recall(c),
            precision: confusion.precision(c),
        };
        let counted = classes.len() <= MOST_COUNTED;
        let counts = || classes.clone().map(|c| confusion.row(c).to_vec()).collect();
        ByClass {
            balanced_accuracy: confusion.balanced_accuracy(),
            commonest: names.class(commonest),
            errors_of_commonest,
            confusion: counted.then(counts),
            classes: classes.clone().map(class).collect(),
        }
    }
}

impl Display for ByClass {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "balanced accuracy {:.2} %; always answering \"{}\" makes {} errors",
            100.0 * self.balanced_accuracy,
            self.commonest,
            self.errors_of_commonest
        )?;
        let Some(counts) = self.confusion.as_ref().filter(|counts| counts.len() <= MOST_SHOWN)
        else {
            return Ok(());
        };
        let short = |name: &str| match name.chars().count() > WIDTH {
            false => name.to_string(),
            true => name.chars().take(WIDTH - 1).chain(['…']).collect(),
        };
        let names: Vec<String> = self.classes.iter().map(|class| short(&class.class)).collect();
        let digits = counts.iter().flatten().max().map_or(1, |most| most.to_string().len());
        let widths = names.iter().map(|name| name.chars().count().max(digits));
        let widths: Vec<usize> = widths.collect();
        let first = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(5);
        write!(f, "{:first$}", "label")?;
        for (name, width) in names.iter().zip(&widths) {
            write!(f, "  {name:>width$}")?;
        }
        writeln!(f, "  recall  precision")?;
        let percent =
            |share: Option<f64>| share.map_or("–".into(), |s| format!("{:.1} %", 100.0 * s));
        for ((class, name), row) in self.classes.iter().zip(&names).zip(counts) {
            write!(f, "{name:first$}")?;
            for (count, width) in row.iter().zip(&widths) {
                match count {
                    0 => write!(f, "  {:>width$}", "·")?,
                    _ => write!(f, "  {count:>width$}")?,
                }
            }
            let (recall, precision) = (percent(class.recall), percent(class.precision));
            writeln!(f, "  {recall:>6}  {precision:>9}")?;
        }
        Ok(())
    }
}
