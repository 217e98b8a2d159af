//! From the labels of a file, numbers or words, to classes that count from 0.

use crate::{Names, Remark};
use std::collections::HashMap;

/// The most classes: what a label of 16 bits can name.
pub(crate) const MAX_CLASSES: usize = 1 << 16;
/// How many names a message shows.
const SHOWN: usize = 10;

/// The labels of a column or an array. The different ones are kept once.
#[derive(Default)]
pub(crate) struct Labels {
    /// The different labels in the order of their first examples.
    values: Vec<String>,
    /// `[count]`: each example's place in `values`.
    codes: Vec<u32>,
    known: HashMap<String, u32>,
    source: Source,
}

/// What the labels were, before they were texts.
#[derive(Clone, Copy, Default, PartialEq)]
enum Source {
    /// Fields of a table, whose numbers are numbers.
    #[default]
    Fields,
    /// An array of texts: a number in it is a word, as for NumPy.
    Texts,
    /// An array of numbers, in which NaN is no word.
    Numbers,
}

/// What is wrong with labels: at an example, or with all of them.
#[derive(Debug)]
pub(crate) struct Fault {
    pub row: Option<usize>,
    pub found: String,
    pub expected: String,
}

impl Labels {
    /// No labels yet, of an array of texts.
    pub fn of_texts() -> Labels {
        Labels { source: Source::Texts, ..Labels::default() }
    }

    /// Labels that are numbers; the fault of too many different ones.
    pub fn of(numbers: impl Iterator<Item = f64>) -> Result<Labels, Fault> {
        let mut labels = Labels { source: Source::Numbers, ..Labels::default() };
        let mut codes = HashMap::new();
        for number in numbers {
            if let Some(&code) = codes.get(&number.to_bits()) {
                labels.codes.push(code);
            } else {
                labels.push(&number.to_string())?;
                codes.extend(labels.codes.last().map(|&code| (number.to_bits(), code)));
            }
        }
        Ok(labels)
    }

    pub fn len(&self) -> usize {
        self.codes.len()
    }

    /// Adds an example's label; the fault of too many different ones.
    pub fn push(&mut self, value: &str) -> Result<(), Fault> {
        let code = match self.known.get(value) {
            Some(&code) => code,
            None => {
                let code = self.values.len();
                if code == MAX_CLASSES {
                    return Err(Fault {
                        row: Some(self.len()),
                        found: format!("the {}th different label, {value:?}", MAX_CLASSES + 1),
                        expected: format!("at most {MAX_CLASSES}{}", hint_of_many()),
                    });
                }
                self.values.push(value.to_owned());
                self.known.insert(value.to_owned(), code as u32);
                code as u32
            }
        };
        self.codes.push(code);
        Ok(())
    }

    /// The label of each example.
    pub fn texts(&self) -> Vec<String> {
        self.codes.iter().map(|&code| self.values[code as usize].clone()).collect()
    }

    /// The first example whose label is number `code` of the different ones.
    fn fault(&self, code: usize, expected: String) -> Fault {
        let row = self.codes.iter().position(|&other| other as usize == code);
        let value = &self.values[code];
        let found = match self.source {
            Source::Numbers => value.clone(),
            Source::Fields | Source::Texts => format!("{value:?}"),
        };
        Fault { row, found, expected }
    }

    /// What is possible of classes that are words, and may be a mistake.
    fn doubtful_words(&self, sorted: &[String]) -> Vec<Remark> {
        let mut doubts = Vec::new();
        let is_number = |value: &String| value.parse::<f64>().is_ok();
        if self.source == Source::Fields
            && sorted.iter().any(is_number)
            && !sorted.iter().all(is_number)
        {
            doubts.push(format!("labels are numbers and words ({})", list(sorted)));
        }
        let mut spellings = HashMap::new();
        for value in sorted {
            let number = value.parse().ok().map(|x: f64| (x + 0.0).to_string());
            let plain = number.unwrap_or_else(|| value.trim().to_lowercase());
            if let Some(other) = spellings.insert(plain, value) {
                doubts
                    .push(format!("labels {other:?} and {value:?} differ in their spelling alone"));
            }
        }
        let remark = |doubt: String| {
            Remark::Warning(doubt + ": each is a class of its own; correct what is a mistake")
        };
        doubts.into_iter().take(SHOWN).map(remark).collect()
    }
}

fn hint_of_many() -> &'static str {
    "; this looks like a number that was measured or counts the rows, and classes are wanted"
}

/// Whether a text says that there is no label. A class may well be called `none`.
pub(crate) fn is_missing(label: &[u8]) -> bool {
    [&b""[..], b"NaN", b"nan", b"NA", b"N/A", b"<NA>", b"NULL", b"null", b"#N/A"].contains(&label)
}

/// The number that a label is: `2`, `2.0`, `True`. `02` is a code, of which the zero is a part.
fn number(value: &str) -> Option<f64> {
    match value {
        "True" | "true" | "TRUE" => Some(1.0),
        "False" | "false" | "FALSE" => Some(0.0),
        code if matches!(code.as_bytes(), [b'0', b'0'..=b'9', ..]) => None,
        // Adding makes 0 of -0.
        // Beyond 2⁵³ different numbers would be one.
        digits => digits.parse().ok().filter(|x: &f64| x.abs() < 9e15).map(|x| x + 0.0),
    }
}

/// The classes that labels name.
#[derive(Debug, PartialEq)]
pub(crate) struct Classes {
    /// How many there are.
    pub count: usize,
    /// Their names in the order of the classes; empty where labels count from 0.
    pub names: Vec<String>,
    /// The numbers that the names are; `None` for words.
    numbers: Option<Vec<f64>>,
    /// What should be said of them.
    pub notes: Vec<Remark>,
}

impl Classes {
    /// `count` classes whose labels are numbers that count from 0.
    pub fn counting(count: usize) -> Classes {
        let numbers = Some((0..count).map(|class| class as f64).collect());
        Classes { count, names: Vec::new(), numbers, notes: Vec::new() }
    }

    /// The classes of training labels; `given` if the caller knows how many there are.
    ///
    /// Numbers that count from 0 are classes as they are. Other whole numbers, and words, are sorted,
    /// numbers by value and words by letter, and are the names of classes 0, 1, …. Words are the texts of an
    /// array, and all fields of a table if one of them is no number, or a code that begins with 0.
    ///
    /// # Errors
    /// A fraction; other numbers or words than `given`; one class alone, or so many that these are
    /// no classes.
    pub fn of(labels: &Labels, given: Option<usize>) -> Result<Classes, Fault> {
        let numbers: Vec<Option<f64>> = labels.values.iter().map(|value| number(value)).collect();
        let are_words = match labels.source {
            Source::Texts => true,
            Source::Fields => numbers.contains(&None),
            Source::Numbers => false,
        };
        if are_words {
            return Classes::of_words(labels, given);
        }
        let whole = |number: &Option<f64>| number.is_some_and(|x| x.fract() == 0.0);
        if let Some(code) = numbers.iter().position(|number| !whole(number)) {
            return Err(labels.fault(
                code,
                "a whole number, the label of a class; numbers that were measured are no classes: cut \
                 them, as pandas.qcut(y, 4, labels=False) does"
                    .to_owned(),
            ));
        }
        let mut sorted: Vec<f64> = numbers.iter().flatten().copied().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted.dedup();
        let count = given.unwrap_or(sorted.len());
        let counts = sorted.iter().all(|x| (0.0..count as f64).contains(x));
        if !counts && sorted.len() != count {
            let outside = |x: &f64| !(0.0..count as f64).contains(x);
            let code = numbers.iter().position(|x| x.as_ref().is_some_and(outside)).unwrap_or(0);
            return Err(labels.fault(
                code,
                format!("a whole number from 0 to {}, or {count} different ones", count - 1),
            ));
        }
        plausible(labels, sorted.len(), given)?;
        let words = ["True", "true", "TRUE", "False", "false", "FALSE"];
        if counts && labels.values.iter().all(|value| words.contains(&&value[..])) && count == 2 {
            let names = ["False", "True"].map(str::to_owned).to_vec();
            return Ok(Classes { names, ..Classes::counting(2) });
        }
        if counts {
            return Ok(Classes::counting(count));
        }
        let names: Vec<String> = sorted.iter().map(f64::to_string).collect();
        let mut note = format!("{count} classes, called {}", list(&names));
        if let Some(last) = sorted.last().filter(|_| sorted[0] == 0.0) {
            note += &format!("; with data.classes = {} labels count from 0", last + 1.0);
        }
        Ok(Classes { count, names, numbers: Some(sorted), notes: vec![Remark::Note(note)] })
    }

    fn of_words(labels: &Labels, given: Option<usize>) -> Result<Classes, Fault> {
        let mut names = labels.values.clone();
        names.sort_unstable();
        let count = names.len();
        plausible(labels, count, given)?;
        if let Some(given) = given.filter(|given| *given != count) {
            return Err(Fault {
                row: None,
                found: format!("{count} different labels: {}", list(&names)),
                expected: format!("{given}, as data.classes says; without that key all count"),
            });
        }
        let mut notes = vec![Remark::Note(format!("{count} classes: {}", list(&names)))];
        notes.extend(labels.doubtful_words(&names));
        Ok(Classes { count, names, numbers: None, notes })
    }

    /// What they are called.
    pub fn names(&self) -> Names {
        Names::of_classes(self.names.clone(), self.numbers.is_none())
    }

    /// The same classes under the names that the file gives them.
    pub fn named(mut self, names: Vec<String>) -> Classes {
        if self.names.is_empty() && self.count <= names.len() {
            self = Classes::counting(names.len());
            self.names = names;
        }
        self
    }

    /// The class of each example.
    ///
    /// # Errors
    /// A label that is none of these classes'.
    pub fn index(&self, labels: &Labels) -> Result<Vec<u16>, Fault> {
        let class = |value: &String| match &self.numbers {
            Some(numbers) => {
                let value = number(value)?;
                numbers.binary_search_by(|other| other.total_cmp(&value)).ok()
            }
            None => self.names.binary_search(value).ok(),
        };
        let classes: Vec<Option<usize>> = labels.values.iter().map(class).collect();
        if let Some(code) = classes.iter().position(Option::is_none) {
            let expected = match &self.numbers {
                Some(_) if self.names.is_empty() => {
                    format!("a whole number from 0 to {}", self.count - 1)
                }
                _ => format!("a class of the training examples: {}", list(&self.names)),
            };
            return Err(labels.fault(code, expected));
        }
        let class = |&code: &u32| classes[code as usize].unwrap_or(0) as u16;
        Ok(labels.codes.iter().map(class).collect())
    }
}

/// Refuses one class alone, and what looks like an id or a quantity.
fn plausible(labels: &Labels, different: usize, given: Option<usize>) -> Result<(), Fault> {
    let rows = labels.len();
    if given.is_some() {
        return Ok(());
    }
    if different < 2 {
        let value = labels.values.first().map_or("none", String::as_str);
        return Err(Fault {
            row: None,
            found: format!("one label alone, {value:?}"),
            expected: "at least two classes; or the number of classes as data.classes".to_owned(),
        });
    }
    if different > 10 && 2 * different > rows {
        return Err(Fault {
            row: None,
            found: format!("{different} different labels in {rows} rows"),
            expected: format!(
                "classes, each of several rows{}; if these are classes, set data.classes = {different}",
                hint_of_many()
            ),
        });
    }
    Ok(())
}

/// The first names, for a message.
pub(crate) fn list(names: &[String]) -> String {
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[&str]) -> Labels {
        let mut labels = Labels::default();
        values.iter().for_each(|value| labels.push(value).unwrap());
        labels
    }

    #[track_caller]
    fn classes(values: &[&str], given: Option<usize>, names: &[&str], expected: &[u16]) {
        let labels = labels(values);
        let classes = Classes::of(&labels, given).unwrap();
        assert_eq!(classes.names, names);
        assert_eq!(classes.index(&labels).unwrap(), expected);
    }

    /// The order is that of numpy.unique, as of scikit-learn's LabelEncoder.
    #[test]
    fn labels_are_classes_in_the_order_of_numpy() {
        classes(&["2", "0", "1.0"], None, &[], &[2, 0, 1]);
        classes(&["2", "0"], Some(4), &[], &[2, 0]);
        classes(&["10", "9", "2", "10"], None, &["2", "9", "10"], &[2, 1, 0, 2]);
        classes(&["1", "3", "2"], Some(3), &["1", "2", "3"], &[0, 2, 1]);
        classes(&["-1", "1"], None, &["-1", "1"], &[0, 1]);
        classes(&["b", "B", "é", "a"], None, &["B", "a", "b", "é"], &[2, 0, 3, 1]);
        classes(&["True", "False"], None, &["False", "True"], &[1, 0]);
        classes(&["01", "10", "02"], None, &["01", "02", "10"], &[0, 2, 1]);
        let doubtful = |values: &[&str], part: &str| {
            let found = Classes::of(&labels(values), None).unwrap();
            assert_eq!(found.names, values);
            assert!(matches!(&found.notes[1..], [Remark::Warning(text)] if text.contains(part)));
        };
        doubtful(&["1", "2", "O"], "1, 2, O");
        doubtful(&["08", "8", "9"], "\"08\" and \"8\"");
        doubtful(&["Yes", "no", "yes"], "\"Yes\" and \"yes\"");
        let mut texts = Labels::of_texts();
        ["9", "10", "1"].iter().for_each(|text| texts.push(text).unwrap());
        let known = Classes::of(&texts, None).unwrap();
        assert_eq!(
            (&known.names[..], known.notes.len()),
            (&["1", "10", "9"].map(String::from)[..], 1)
        );
        assert_eq!(known.index(&texts).unwrap(), [2, 1, 0]);
        let gap = Classes::of(&labels(&["0", "1", "3"]), None).unwrap();
        assert_eq!((gap.count, gap.names.len()), (3, 3));
    }

    #[test]
    fn what_names_no_classes_is_refused() {
        let refused = |values: &[&str], given, row, parts: &[&str]| {
            let fault = Classes::of(&labels(values), given).unwrap_err();
            assert_eq!(fault.row, row, "{fault:?}");
            let text = format!("{}|{}", fault.found, fault.expected);
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        };
        refused(&["0", "1.5"], None, Some(1), &["\"1.5\"", "qcut"]);
        refused(&["0", "0", "3"], Some(3), Some(2), &["\"3\"", "0 to 2", "3 different"]);
        refused(&["a", "b"], Some(3), None, &["2 different labels: a, b", "data.classes"]);
        refused(&["a", "a"], None, None, &["one label alone", "\"a\""]);
        let all: Vec<String> = (0..40).map(|i| format!("{}", 1000 + i)).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        refused(&all, None, None, &["40 different labels in 40 rows", "data.classes = 40"]);
        classes(&all, Some(40), &all, &(0..40).collect::<Vec<u16>>());

        let known = Classes::of(&labels(&["cat", "dog"]), None).unwrap();
        let fault = known.index(&labels(&["dog", "dog.", "cat"])).unwrap_err();
        assert_eq!((fault.row, &fault.found[..]), (Some(1), "\"dog.\""));
        assert!(fault.expected.contains("cat, dog"));

        let numbers = Labels::of([f64::NAN, 1.0].into_iter()).unwrap();
        assert_eq!(Classes::of(&numbers, None).unwrap_err().row, Some(0));
        let mut many = Labels::default();
        let all = (0..=MAX_CLASSES).map(|i| many.push(&i.to_string()));
        assert_eq!(all.filter(Result::is_err).count(), 1);
    }
}
