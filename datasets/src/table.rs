//! Tables in CSV: the first line names the columns, and each further line is an example.
//!
//! Commas separate the fields; quotes surround fields that hold commas (RFC 4180). One column is the
//! label, all others are features. Features are not scaled.

use crate::digest::sha256_of_file;
use crate::{Dataset, Error, Split};
use csv::{ByteRecord, ErrorKind, ReaderBuilder};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

const KIND: &str = "a CSV table";
/// The most features: the width of the widest layer that a net may have.
const MAX_FEATURES: usize = 65_536;

/// Reads the user's own tables as a data set named `csv`. The column `label` holds whole numbers
/// below `classes`; without it the training split is an unlabelled transfer set. Without a test
/// table the test split is empty: a part of the training split is held out then.
///
/// Memory is bounded by 64 times the size of the file.
///
/// # Errors
/// Not found or unreadable, no header, a label column that is missing or named twice, a line with
/// more or fewer fields than the header, a feature that is no finite 32-bit number, a label that is
/// no class, no examples, or a test table with other features than the training table.
pub fn load_dataset(
    train: &Path,
    test: Option<&Path>,
    label: &str,
    classes: usize,
) -> Result<Dataset, Error> {
    let mut table = Table::open(train, label)?;
    let features = table.features.clone();
    let train_split = table.split(classes)?;
    let mut sha256 = BTreeMap::from([digest(train)?]);
    let test_split = match test {
        None => train_split.subset(&[]),
        Some(path) => {
            let mut table = Table::open(path, label)?;
            table.expect(&features, train)?;
            sha256.extend([digest(path)?]);
            table.split(classes)?
        }
    };
    Ok(Dataset { name: "csv".to_owned(), classes, train: train_split, test: test_split, sha256 })
}

fn digest(path: &Path) -> Result<(String, String), Error> {
    let digest = sha256_of_file(path).map_err(|cause| Error::from_os(path, KIND, cause))?;
    Ok((path.display().to_string(), digest))
}

/// A table whose header has been read.
struct Table<'a> {
    path: &'a Path,
    reader: csv::Reader<File>,
    record: ByteRecord,
    /// The name of the column of labels.
    label: &'a str,
    /// The number of the column of labels, if there is one.
    label_column: Option<usize>,
    /// The names of the other columns.
    features: Vec<String>,
}

impl<'a> Table<'a> {
    fn open(path: &'a Path, label: &'a str) -> Result<Self, Error> {
        let file = File::open(path).map_err(|cause| Error::from_os(path, KIND, cause))?;
        let reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(file);
        let record = ByteRecord::new();
        let mut table =
            Table { path, reader, record, label, label_column: None, features: Vec::new() };
        let expected = || format!("the names of the columns, {label:?} for the label");
        if !table.next()? {
            return Err(table.bad(1, "an empty file", expected()));
        }
        let line = table.line();
        if table.record.len() > MAX_FEATURES + 1 {
            let found = format!("{} columns", table.record.len());
            return Err(table.bad(line, found, format!("at most {MAX_FEATURES} and the label")));
        }
        let names: Vec<String> = table.record.iter().map(text).collect();
        let mut labels = (0..names.len()).filter(|&column| names[column] == label);
        table.label_column = labels.next();
        if labels.next().is_some() {
            return Err(table.bad(line, format!("two columns {label:?}"), "one"));
        }
        if table.label_column.is_none() && names.iter().all(|name| name.parse::<f64>().is_ok()) {
            return Err(table.bad(line, names.join(","), expected()));
        }
        table.features = names.into_iter().filter(|name| name != label).collect();
        if table.features.is_empty() {
            return Err(table.bad(line, "no column but the label", "at least one feature"));
        }
        Ok(table)
    }

    /// Checks that the features are those of the training table, and that there are labels.
    fn expect(&self, features: &[String], train: &Path) -> Result<(), Error> {
        let line = self.line();
        if self.label_column.is_none() {
            let expected = format!("the label's column {:?}", self.label);
            return Err(self.bad(
                line,
                format!("the columns {}", self.features.join(",")),
                expected,
            ));
        }
        if self.features.len() != features.len() {
            let expected = format!("{}, as in {}", features.len(), train.display());
            return Err(self.bad(line, format!("{} features", self.features.len()), expected));
        }
        let pairs = self.features.iter().zip(features);
        match pairs.enumerate().find(|(_, (ours, theirs))| ours != theirs) {
            None => Ok(()),
            Some((i, (ours, theirs))) => {
                let found = format!("feature {} named {ours:?}", i + 1);
                Err(self.bad(line, found, format!("{theirs:?}, as in {}", train.display())))
            }
        }
    }

    /// Reads the examples of all further lines.
    fn split(&mut self, classes: usize) -> Result<Split, Error> {
        let (mut values, mut labels) = (Vec::new(), self.label_column.map(|_| Vec::new()));
        let columns = self.features.len() + usize::from(self.label_column.is_some());
        let mut examples = 0u32;
        while self.next()? {
            if self.record.len() != columns {
                let found = format!("{} fields", self.record.len());
                return Err(self.bad(self.line(), found, format!("{columns}, as in the header")));
            }
            let Some(count) = examples.checked_add(1) else {
                return Err(self.bad(
                    self.line(),
                    "one more",
                    format!("at most {examples} examples"),
                ));
            };
            examples = count;
            for (column, field) in self.record.iter().enumerate() {
                let refuse = |name: &str, expected: String| {
                    let found = format!("{:?} in column {name:?}", text(field));
                    self.bad(self.line(), found, expected)
                };
                if let Some(labels) = labels.as_mut().filter(|_| self.label_column == Some(column))
                {
                    let label: Option<u16> = number(field);
                    let label = label.filter(|&label| usize::from(label) < classes);
                    let expected = || format!("a whole number from 0 to {}", classes - 1);
                    labels.push(label.ok_or_else(|| refuse(self.label, expected()))?);
                } else {
                    let value = number(field).filter(|value: &f32| value.is_finite());
                    let before = self.label_column.is_some_and(|label| label < column);
                    let name = || &self.features[column - usize::from(before)];
                    let expected = "a finite 32-bit number";
                    values.push(value.ok_or_else(|| refuse(name(), expected.to_owned()))?);
                }
            }
        }
        if examples == 0 {
            return Err(self.bad(self.line(), "the end of the file", "at least one example"));
        }
        Ok(Split::of_features(values, self.features.len(), labels))
    }

    /// Reads the next record; `false` at the end.
    fn next(&mut self) -> Result<bool, Error> {
        self.reader.read_byte_record(&mut self.record).map_err(|e| match e.into_kind() {
            ErrorKind::Io(cause) => Error::from_os(self.path, KIND, cause),
            other => self.bad(self.line(), format!("{other:?}"), KIND),
        })
    }

    /// The line of the record, counted from 1. The reader's position of a record is the end of the
    /// record before: blank lines and the second half of a CR LF come between.
    fn line(&self) -> usize {
        let start = self.record.position().map_or(0, |position| position.byte());
        let Ok(file) = File::open(self.path) else { return 1 };
        let bytes = BufReader::new(file).bytes().map_while(Result::ok);
        let before =
            (0..).zip(bytes).take_while(|&(at, byte)| at < start || byte == b'\r' || byte == b'\n');
        1 + before.filter(|&(_, byte)| byte == b'\n').count()
    }

    fn bad(&self, line: usize, found: impl Into<String>, expected: impl Into<String>) -> Error {
        Error::Line {
            path: self.path.to_path_buf(),
            line,
            found: found.into(),
            expected: expected.into(),
        }
    }
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field.trim_ascii()).into_owned()
}

fn number<T: std::str::FromStr>(field: &[u8]) -> Option<T> {
    str::from_utf8(field.trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAIN: &str = "height,label,width\n1.5,2,-3e2\n 0 , 0 ,.25\n";
    const TEST: &str = "label,height,width\r\n1,7,8\r\n";

    fn load(train: impl AsRef<[u8]>, test: Option<&str>) -> Result<Dataset, Error> {
        let dir = tempfile::tempdir().unwrap();
        let [train_path, test_path] = ["train.csv", "test.csv"].map(|name| dir.path().join(name));
        std::fs::write(&train_path, train).unwrap();
        std::fs::write(&test_path, test.unwrap_or_default()).unwrap();
        load_dataset(&train_path, test.map(|_| &*test_path), "label", 3)
    }

    #[test]
    fn the_label_is_a_column_and_all_others_are_features_in_their_order() {
        let dataset = load(TRAIN, Some(TEST)).unwrap();
        let expected = Split::of_features(vec![1.5, -300.0, 0.0, 0.25], 2, Some(vec![2, 0]));
        assert_eq!(dataset.train, expected);
        assert_eq!(dataset.test, Split::of_features(vec![7.0, 8.0], 2, Some(vec![1])));
        assert_eq!((dataset.name.as_str(), dataset.classes), ("csv", 3));
        assert_eq!(dataset.sha256.len(), 2);
        assert_eq!(load(TRAIN, None).unwrap().test.len(), 0);

        // A byte-order mark, quotes, a blank line, no line break at the end.
        let same = "\u{feff}height,\"label\",width\n\"1.5\",2,-300\n\n0,0,\"0.25\"";
        assert_eq!(load(same, None).unwrap().train, expected);
        let unlabelled = load("height,width\n1.5,-300\n0,.25\n", Some(TEST)).unwrap().train;
        assert_eq!(unlabelled, expected.without_labels());
        // pandas numbers columns without names.
        assert_eq!(load("0,1,label\n1.5,-300,2\n0,.25,0", None).unwrap().train.input_size(), 2);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let cases: [(&[u8], &str, &[&str]); 19] = [
            (b"", TEST, &["train.csv:1", "an empty file", "\"label\" for the label"]),
            (b"1.5,2,3\n", TEST, &["train.csv:1", "found 1.5,2,3", "the names of the columns"]),
            (b"label,a,label\n", TEST, &["train.csv:1", "two columns \"label\""]),
            (b"label\n1\n", TEST, &["train.csv:1", "no column but the label"]),
            (b"a,label\n", TEST, &["train.csv:2", "at least one example"]),
            (b"a,label\n1,0\n\n2\n", TEST, &["train.csv:4", "found 1 fields, expected 2"]),
            (b"a,label\r\n1,0\r\n\r\n2\r\n", TEST, &["train.csv:4", "found 1 fields"]),
            (b"\"a\nb\",label\n1,0\n2", TEST, &["train.csv:4", "found 1 fields"]),
            (b"a,label\n1,0,0\n", TEST, &["train.csv:2", "found 3 fields, expected 2"]),
            (b"a,label\nx,0\n", TEST, &["train.csv:2", "\"x\" in column \"a\"", "finite 32-bit"]),
            (b"a,label\n,0\n", TEST, &["train.csv:2", "\"\" in column \"a\""]),
            (b"a,label\nnan,0\n", TEST, &["\"nan\" in column \"a\""]),
            (b"a,label\n1e39,0\n", TEST, &["\"1e39\" in column \"a\""]),
            (b"a,label\n1,3\n", TEST, &["\"3\" in column \"label\"", "a whole number from 0 to 2"]),
            (b"label,a\n1.0,0\n", TEST, &["\"1.0\" in column \"label\""]),
            (b"a,label\n\xff,0\n", TEST, &["train.csv:2", "in column \"a\""]),
            (b"a,label\n\"1,0\n", TEST, &["train.csv:2", "found 1 fields"]),
            (TRAIN.as_bytes(), "height,width\n1,2\n", &["test.csv:1", "height,width", "\"label\""]),
            (
                TRAIN.as_bytes(),
                "width,label,height\n1,2,3\n",
                &["test.csv:1", "\"width\"", "\"height\", as in", "train.csv"],
            ),
        ];
        for (train, test, parts) in cases {
            let error = load(train, Some(test)).unwrap_err();
            assert!(!error.is_io(), "{error}");
            for part in parts {
                assert!(error.to_string().contains(part), "{part:?} not in: {error}");
            }
        }
        let message = load(TRAIN, Some("height,label\n1,2\n")).unwrap_err().to_string();
        assert!(message.contains("found 1 features, expected 2, as in"), "{message}");
        let wide = ",".repeat(MAX_FEATURES + 1);
        assert!(load(wide, None).unwrap_err().to_string().contains("65538 columns"));
    }

    #[test]
    fn a_missing_table_is_an_io_error() {
        let dir = tempfile::tempdir().unwrap();
        let load = |path: &Path| load_dataset(path, None, "label", 3).unwrap_err();
        assert!(load(&dir.path().join("gone.csv")).to_string().contains("gone.csv"));
        assert!(load(&dir.path().join("gone.csv")).is_io() && load(dir.path()).is_io());
    }
}
