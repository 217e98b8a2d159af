//! Tables in CSV: the first line names the columns, and each further line is an example.
//!
//! Commas separate the fields, or semicolons or tabs where the first line has no comma; quotes surround
//! fields that hold separators (RFC 4180). One column is the label, all others are features, which
//! are not scaled. `True` and `False` are 1 and 0.

use crate::digest::sha256_of;
use crate::foreign::{START, Wanted};
use crate::{Dataset, Error, Names, Split};
use csv::{ByteRecord, ErrorKind, ReaderBuilder};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

const KIND: &str = "a CSV table";
/// The most features: the width of the widest layer that a net may have.
const MAX_FEATURES: usize = 65_536;

/// Reads the user's own tables as a data set named `csv`. The column `label` holds whole numbers
/// below `classes`, also as `2.0`; without it the training split is an unlabelled transfer set.
/// Without a test table the test split is empty: a part of the training split is held out then.
///
/// A column without a name, which is how pandas and R write the numbers of the lines, is refused; so
/// is a column called `index` or `id` that counts the lines. As a feature the number of a line would
/// tell the label wherever lines are sorted.
///
/// A file is read once, so that it may be a pipe. Memory is bounded by 64 times the size of the file.
///
/// # Errors
/// Missing or unreadable, of another format, no header, a column without a name, a label column that
/// is missing or named twice, a line with more or fewer fields than the header, a feature that is no
/// finite 32-bit number or numbers the lines, a label that is no class, no examples, or a test table
/// with other features than the training table.
pub fn load_dataset(
    train: &Path,
    test: Option<&Path>,
    label: &str,
    classes: usize,
) -> Result<Dataset, Error> {
    let bytes = read(train)?;
    let mut table = Table::open(train, &bytes, label)?;
    let train_split = table.split(classes)?;
    let features = table.features;
    let mut sha256 = BTreeMap::from([(train.display().to_string(), sha256_of([&bytes]))]);
    drop(bytes);
    let test_split = match test {
        None => train_split.subset(&[]),
        Some(path) if path == train && train_split.labels.is_some() => train_split.clone(),
        Some(path) => {
            let bytes = read(path)?;
            let mut table = Table::open(path, &bytes, label)?;
            table.expect(&features, train)?;
            sha256.insert(path.display().to_string(), sha256_of([&bytes]));
            table.split(classes)?
        }
    };
    Ok(Dataset {
        name: "csv".to_owned(),
        classes,
        names: Names { classes: Vec::new(), features },
        train: train_split,
        test: test_split,
        sha256,
    })
}

/// The bytes of the file at `path`. What is no text is refused by its first bytes.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let from_os = |cause| Error::from_os(path, KIND, cause);
    let mut file = File::open(path).map_err(from_os)?;
    let size = file.metadata().map_err(from_os)?.len() as usize;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(|refused| from_os(refused.into()))?;
    file.by_ref().take(START as u64).read_to_end(&mut bytes).map_err(from_os)?;
    if !bytes.is_empty() {
        Error::if_foreign(&bytes, path, Wanted::Table, KIND)?;
    }
    if let Some(offset) = bytes.iter().position(|&byte| byte == 0) {
        return Err(Error::Content {
            path: path.to_path_buf(),
            offset: offset as u64,
            found: "a byte 0, which no text has,".to_owned(),
            expected: KIND.to_owned(),
        });
    }
    file.read_to_end(&mut bytes).map_err(from_os)?;
    Ok(bytes)
}

/// The byte that separates the fields: a comma or, if the first line has none outside of quotes, a
/// semicolon or a tab.
fn separator(bytes: &[u8]) -> u8 {
    let (mut quoted, mut other) = (false, None);
    for &byte in bytes.iter().skip_while(|&&byte| byte == b'\n' || byte == b'\r') {
        quoted ^= byte == b'"';
        match byte {
            b'\n' | b'\r' if !quoted => break,
            b',' if !quoted => return byte,
            b';' | b'\t' if !quoted => drop(other.get_or_insert(byte)),
            _ => {}
        }
    }
    other.unwrap_or(b',')
}

/// A table whose header has been read.
struct Table<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    reader: csv::Reader<&'a [u8]>,
    record: ByteRecord,
    /// The name of the column of labels.
    label: &'a str,
    /// The number of the column of labels, if there is one.
    label_column: Option<usize>,
    /// The names of the other columns.
    features: Vec<String>,
}

impl<'a> Table<'a> {
    fn open(path: &'a Path, bytes: &'a [u8], label: &'a str) -> Result<Self, Error> {
        let mut builder = ReaderBuilder::new();
        builder.has_headers(false).flexible(true).delimiter(separator(bytes));
        let reader = builder.from_reader(bytes);
        let record = ByteRecord::new();
        let mut table =
            Table { path, bytes, reader, record, label, label_column: None, features: Vec::new() };
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
        if names[0].starts_with("sep=") {
            let expected = "the names of the columns; without that line, which only Excel knows, \
                            the separator is recognised";
            return Err(table.bad(line, format!("{:?}", names[0]), expected));
        }
        let nameless = |name: &str| name.is_empty() || name.starts_with("Unnamed: ");
        if let Some(column) = names.iter().position(|name| nameless(name)) {
            return Err(table.bad(
                line,
                format!("{:?} as the name of column {}", names[column], column + 1),
                "a name; numbers of lines are no feature: write the table without them, in pandas \
                 with to_csv(…, index=False), in R with row.names = FALSE",
            ));
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
                let hint = match self.record.iter().next_back() {
                    Some(last) if self.record.len() > columns && last.trim_ascii().is_empty() => {
                        "; no separator ends a line"
                    }
                    _ if self.record.len() == columns + 1 && examples == 0 => {
                        "; if lines have names: write them without, in R with row.names = FALSE"
                    }
                    _ if self.record.len() > columns => {
                        "; if numbers have a decimal comma: write them with a point"
                    }
                    _ => "",
                };
                let expected = format!("{columns}, as in the header{hint}");
                return Err(self.bad(self.line(), found, expected));
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
                    let label = number(field).and_then(|value| class(value, classes));
                    let expected =
                        || format!("a whole number from 0 to {}{}", classes - 1, hint(field));
                    labels.push(label.ok_or_else(|| refuse(self.label, expected()))?);
                } else {
                    let value = number(field).filter(|value: &f32| value.is_finite());
                    let before = self.label_column.is_some_and(|label| label < column);
                    let name = || &self.features[column - usize::from(before)];
                    let expected = || format!("a finite 32-bit number{}", hint(field));
                    values.push(value.ok_or_else(|| refuse(name(), expected()))?);
                }
            }
        }
        if examples == 0 {
            return Err(self.bad(self.line(), "the end of the file", "at least one example"));
        }
        self.expect_no_line_numbers(&values)?;
        Ok(Split::of_features(values, self.features.len(), labels))
    }

    /// Refuses a column that is called like the number of the line, and is it.
    fn expect_no_line_numbers(&self, values: &[f32]) -> Result<(), Error> {
        let width = self.features.len();
        for (column, name) in self.features.iter().enumerate() {
            let named = ["index", "id"].iter().any(|known| name.eq_ignore_ascii_case(known));
            let counts = || {
                let numbers = || values[column..].iter().step_by(width);
                let steps = numbers().zip(numbers().skip(1)).all(|(a, b)| b - a == 1.0);
                values.len() > width && [0.0, 1.0].contains(&values[column]) && steps
            };
            if named && counts() {
                return Err(Error::Line {
                    path: self.path.to_path_buf(),
                    line: 1,
                    found: format!("a column {name:?} that counts the lines"),
                    expected: "features; write the table without it, or rename it to use it"
                        .to_owned(),
                });
            }
        }
        Ok(())
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
        let end = self.record.position().map_or(0, |position| position.byte() as usize);
        let (before, rest) = self.bytes.split_at(end);
        let blank = rest.iter().take_while(|&&byte| byte == b'\r' || byte == b'\n');
        1 + before.iter().chain(blank).filter(|&&byte| byte == b'\n').count()
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

/// The number that a field holds, in one rounding.
fn number<T: FromStr + From<bool>>(field: &[u8]) -> Option<T> {
    match field.trim_ascii() {
        b"True" | b"true" | b"TRUE" => Some(true.into()),
        b"False" | b"false" | b"FALSE" => Some(false.into()),
        digits => str::from_utf8(digits).ok()?.parse().ok(),
    }
}

/// The class that a number names.
fn class(value: f64, classes: usize) -> Option<u16> {
    (value.fract() == 0.0 && (0.0..classes as f64).contains(&value)).then_some(value as u16)
}

/// What to do about a field that is not the number it should be.
fn hint(field: &[u8]) -> &'static str {
    let text = text(field).to_ascii_lowercase();
    let is_number = |text: &str| text.parse::<f64>().is_ok();
    if ["", "na", "nan", "n/a", "null", "none", "?"].contains(&&*text) {
        "; the value is missing: fill it in, or leave the line out"
    } else if is_number(&text) {
        ""
    } else if is_number(&text.replacen(',', ".", 1)) || is_number(&text.replace(',', "")) {
        "; write a decimal point, and no other commas: in pandas read_csv(…, decimal=\",\"), to_csv"
    } else if text.split([' ', '|', ':']).all(|part| part.is_empty() || is_number(part)) {
        "; separate the fields by commas, semicolons or tabs"
    } else if text.starts_with(char::is_alphabetic) {
        "; give each text a number, as pandas.factorize does"
    } else {
        "; write the number alone"
    }
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
        assert_eq!(unlabelled, expected.clone().without_labels());
        // The other usual separators, also where a name holds a comma.
        for separator in [";", "\t"] {
            let other = TRAIN.replace(',', separator);
            assert_eq!(load(&other, None).unwrap().train, expected);
            let quoted = format!("\r\n{}", other.replace("width", "\"width, mm\""));
            assert_eq!(load(&quoted, None).unwrap().train, expected);
        }
        // pandas writes whole numbers as decimals in a column that once lacked one, and its masks
        // and dummies as words.
        let decimals = "height,label,width\n1.5,2.0,-3e2\nFalse,0.0,.25\n";
        assert_eq!(load(decimals, None).unwrap().train, expected);
        let words = load("a,label\nTrue,TRUE\nfalse,False\n", None).unwrap().train;
        assert_eq!(words, Split::of_features(vec![1.0, 0.0], 1, Some(vec![1, 0])));
        // A decimal is rounded once: the nearest f64 lies in the middle between two f32, of which
        // the even one is further from the decimal.
        let tie = load("a,label\n1.00000005960464477540,0\n", None).unwrap().train;
        let above = f32::from_bits(1.0f32.to_bits() + 1);
        assert_eq!(tie, Split::of_features(vec![above], 1, Some(vec![0])));
        // pandas numbers columns without names.
        assert_eq!(load("0,1,label\n1.5,-300,2\n0,.25,0", None).unwrap().train.input_size(), 2);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let cases: [(&[u8], &str, &[&str]); 37] = [
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
            (b"a,label\n,0\n", TEST, &["train.csv:2", "\"\" in column \"a\"", "missing"]),
            (b"a,label\nnan,0\n", TEST, &["\"nan\" in column \"a\""]),
            (b"a,label\n1e39,0\n", TEST, &["\"1e39\" in column \"a\""]),
            (b"a,label\n1,3\n", TEST, &["\"3\" in column \"label\"", "a whole number from 0 to 2"]),
            (b"label,a\n1.5,0\n", TEST, &["train.csv:2", "\"1.5\" in column \"label\""]),
            (b"label,a\n-1,0\n", TEST, &["train.csv:2", "\"-1\" in column \"label\""]),
            (b"label,a\nnan,0\n", TEST, &["\"nan\" in column \"label\"", "is missing"]),
            (b"label,a\ncat,0\n", TEST, &["\"cat\" in column \"label\"", "pandas.factorize"]),
            (b",a,label\n0,1,0\n", TEST, &["train.csv:1", "found \"\" as the name", "index=False"]),
            (b"\"\",a,label\n7,1,0\n", TEST, &["name of column 1", "row.names = FALSE"]),
            (b"a,label,\n1,0,\n", TEST, &["train.csv:1", "name of column 3"]),
            (b"Unnamed: 0,a,label\n0,1,0\n", TEST, &["found \"Unnamed: 0\"", "index=False"]),
            (b"Id,a,label\n1,9,0\n2,9,1\n", TEST, &["column \"Id\" that counts the lines"]),
            (b"a,label\n1,0,\n", TEST, &["train.csv:2", "3 fields", "no separator ends a line"]),
            (b"a,label\n\"1\",5,0\n", TEST, &["train.csv:2", "3 fields", "row.names = FALSE"]),
            (b"a,label\n1,0\n1,5,0\n", TEST, &["train.csv:3", "3 fields", "decimal comma"]),
            (
                b"a;label\n1,5;0\n",
                TEST,
                &["train.csv:2", "\"1,5\" in column \"a\"", "decimal point"],
            ),
            (b"a,label\n\"1,234.5\",0\n", TEST, &["\"1,234.5\" in column", "no other commas"]),
            (b"a b label\n1 2 0\n", TEST, &["\"1 2 0\" in column", "separate the fields"]),
            (b"a,label\n12%,0\n", TEST, &["\"12%\" in column", "write the number alone"]),
            (b"sep=;\na;label\n1;0\n", TEST, &["train.csv:1", "\"sep=\"", "without that line"]),
            (b"a,b\0,label\n1,2,0\n", TEST, &["train.csv", "a byte 0", "offset 3", "a CSV table"]),
            (b"PK\x03\x04 xl/", TEST, &["train.csv", "an Excel workbook", "save it as CSV"]),
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
        for wide in [&[0xff, 0xfe][..], &[]] {
            let wide = [wide, &TRAIN.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()];
            let message = load(wide.concat(), None).unwrap_err().to_string();
            assert!(
                message.contains("found text in UTF-16, expected a CSV table; save it as UTF-8")
            );
        }
        // An id that does not count is a feature, as any other column; so is one of another name.
        for known in ["id,a,label\n3,9,0\n2,9,1\n", "time,a,label\n0,9,0\n1,9,1\n"] {
            assert_eq!(load(known, None).unwrap().train.input_size(), 2);
        }
        let message = load(TRAIN, Some("height,label\n1,2\n")).unwrap_err().to_string();
        assert!(message.contains("found 1 features, expected 2, as in"), "{message}");
        let wide = "a,".repeat(MAX_FEATURES + 1);
        assert!(load(wide, None).unwrap_err().to_string().contains("65538 columns"));
    }

    #[cfg(unix)]
    #[test]
    fn a_table_may_be_a_pipe_and_an_endless_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let into = pipe.clone();
        let writer = std::thread::spawn(move || std::fs::write(into, TRAIN).unwrap());
        let piped = load_dataset(&pipe, Some(&pipe), "label", 3).unwrap();
        writer.join().unwrap();
        let filed = load(TRAIN, None).unwrap();
        assert_eq!((&piped.train, &piped.test), (&filed.train, &filed.train));
        assert!(piped.sha256.values().eq(filed.sha256.values()));
        let message = load_dataset(Path::new("/dev/zero"), None, "label", 3).unwrap_err();
        assert!(message.to_string().contains("a byte 0"), "{message}");
    }

    #[test]
    fn a_missing_table_is_an_io_error() {
        let dir = tempfile::tempdir().unwrap();
        let load = |path: &Path| load_dataset(path, None, "label", 3).unwrap_err();
        let message = load(&dir.path().join("gone.csv")).to_string();
        assert!(message.contains("gone.csv: no such file") && !message.contains("LIMBECK_DATA"));
        assert!(load(&dir.path().join("gone.csv")).is_io() && load(dir.path()).is_io());
    }
}
