//! The rows of a table for a model that knows its columns, a block at a time.

use super::{Extra, KIND, Roles, Table, Use, list};
use crate::foreign::Wanted;
use crate::{Error, idx};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Bytes of a block. Memory is a few times as much, however long the table is.
const BLOCK: usize = if cfg!(test) { 100 } else { 1 << 24 };

/// Some rows of a table.
pub struct Rows {
    /// [rows, features], row-major.
    pub values: Vec<f32>,
    /// The labels, where the table has their column; empty texts where it holds none.
    pub labels: Option<Vec<String>>,
}

/// What the columns of a table were found to be, from its first lines.
struct Head {
    separator: u8,
    names: Vec<String>,
    has_header: bool,
    extra: Extra,
    roles: Roles,
}

/// Reads a table in blocks of whole rows.
pub struct Stream {
    path: PathBuf,
    reader: Box<dyn Read>,
    head: Head,
    /// What was read and not yet used: rows, the last of which may be cut.
    rest: Vec<u8>,
    /// Line breaks before that.
    lines: usize,
    /// Whether all was read.
    ended: bool,
    /// Whether there was an example.
    begun: bool,
}

impl Stream {
    /// Opens the table at `path` for a model of these `features`: columns are found by their names, and
    /// others are left out; without names there must be `inputs` columns of numbers, in their order. The
    /// column called `label`, if there is one, holds labels. A pipe is read too.
    ///
    /// # Errors
    /// As [`super::load_dataset`].
    pub fn open(
        path: &Path,
        features: &[String],
        inputs: usize,
        label: Option<&str>,
    ) -> Result<Stream, Error> {
        let from_os = |cause| Error::from_os(path, KIND, cause);
        let file = BufReader::new(File::open(path).map_err(from_os)?);
        let reader = Box::new(idx::unpacked(file).map_err(from_os)?);
        let head = Head {
            separator: b',',
            names: Vec::new(),
            has_header: false,
            extra: Extra::Nothing,
            roles: Roles { uses: Vec::new(), features: features.to_vec(), label: None },
        };
        let path = path.to_path_buf();
        let mut stream =
            Stream { path, reader, head, rest: Vec::new(), lines: 0, ended: false, begun: false };
        stream.fill()?;
        Error::if_foreign(&stream.rest, &stream.path, Wanted::Table, KIND)?;
        let block = stream.rest.clone();
        let table = Table::open(&stream.path, &block)?;
        let head = Head {
            roles: roles(&table, features, inputs, label)?,
            separator: table.separator,
            names: table.names.clone(),
            has_header: table.has_header,
            extra: table.extra,
        };
        let start = table.start;
        stream.head = head;
        stream.skip(start);
        Ok(stream)
    }

    /// Whether the first line names the columns.
    pub fn has_names(&self) -> bool {
        self.head.has_header
    }

    /// The next rows; none at the end.
    ///
    /// # Errors
    /// As [`super::load_dataset`]; a row without a value is an error, so that there is an answer for each.
    pub fn next_rows(&mut self) -> Result<Option<Rows>, Error> {
        loop {
            self.fill()?;
            let end = if self.ended { self.rest.len() } else { end_of_rows(&self.rest) };
            let is_blank = self.rest[..end].iter().all(u8::is_ascii_whitespace);
            let rows = if is_blank { None } else { self.rows_before(end)? };
            self.skip(end);
            if rows.is_some() || self.ended {
                return Ok(rows);
            }
        }
    }

    /// The rows of a block that ends there; none where it has but empty lines and comments, unless that is all
    /// that the file has.
    fn rows_before(&mut self, end: usize) -> Result<Option<Rows>, Error> {
        let Head { separator, names, has_header, extra, roles } = &self.head;
        let mut table = Table {
            path: &self.path,
            bytes: &self.rest[..end],
            start: 0,
            separator: *separator,
            names: names.clone(),
            has_header: *has_header,
            header_line: 1,
            extra: *extra,
            words: Vec::new(),
            class_names: Vec::new(),
            notes: Vec::new(),
        };
        let lines = self.lines;
        let may_be_empty = self.begun || !self.ended;
        let part = table.rows_if_any(roles, false, may_be_empty).map_err(|error| match error {
            Error::Line { path, line, found, expected } => {
                Error::Line { path, line: line + lines, found, expected }
            }
            other => other,
        })?;
        if part.values.is_empty() {
            return Ok(None);
        }
        self.begun = true;
        let labels = part.labels.map(|labels| labels.texts());
        Ok(Some(Rows { values: part.values, labels }))
    }

    /// Reads until there is a block, or the end.
    fn fill(&mut self) -> Result<(), Error> {
        while !self.ended && (self.rest.len() < BLOCK || end_of_rows(&self.rest) == 0) {
            let before = self.rest.len();
            let mut part = self.reader.by_ref().take(BLOCK as u64);
            part.read_to_end(&mut self.rest)
                .map_err(|cause| idx::damaged(&self.path, KIND, before as u64, cause))?;
            self.ended = self.rest.len() == before;
        }
        Ok(())
    }

    fn skip(&mut self, bytes: usize) {
        self.lines += self.rest[..bytes].iter().filter(|&&byte| byte == b'\n').count();
        self.rest.drain(..bytes);
    }
}

/// Where the last whole row ends: behind the last line break outside of quotes.
fn end_of_rows(bytes: &[u8]) -> usize {
    let (mut quoted, mut end) = (false, 0);
    for (at, &byte) in bytes.iter().enumerate() {
        quoted ^= byte == b'"';
        if byte == b'\n' && !quoted {
            end = at + 1;
        }
    }
    end
}

fn roles(
    table: &Table,
    features: &[String],
    inputs: usize,
    label: Option<&str>,
) -> Result<Roles, Error> {
    let mut uses = vec![Use::Nothing; table.names.len()];
    let place = |name: &str| table.names.iter().position(|known| table.has_header && known == name);
    let label = label.and_then(place);
    if features.is_empty() || !table.has_header {
        let free = (0..uses.len()).filter(|place| Some(*place) != label);
        let free: Vec<usize> = free.collect();
        if free.len() != inputs {
            let found = format!("{} columns of features", free.len());
            let more = if free.len() > inputs {
                "; the model does not know their names: leave out the labels and all that is no feature"
            } else {
                ""
            };
            let expected = format!("{inputs}, the inputs of the model{more}");
            return Err(table.bad(table.header_line, found, expected));
        }
        free.iter().enumerate().for_each(|(i, &place)| uses[place] = Use::Feature(i));
    }
    for (i, name) in features.iter().enumerate().filter(|_| table.has_header) {
        let Some(place) = place(name) else {
            let found = format!("no column {name:?} among {}", list(&table.names));
            let expected = format!("the features of the model, {}", list(features));
            return Err(table.bad(table.header_line, found, expected));
        };
        uses[place] = Use::Feature(i);
    }
    if let Some(place) = label.filter(|&place| uses[place] == Use::Nothing) {
        uses[place] = Use::LabelIfAny;
    }
    let names = (0..inputs).map(|i| features.get(i).cloned().unwrap_or_else(|| i.to_string()));
    Ok(Roles { uses, features: names.collect(), label: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, features: &[&str], label: Option<&str>) -> Result<Rows, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, text).unwrap();
        let features: Vec<String> = features.iter().map(|name| name.to_string()).collect();
        let mut stream = Stream::open(&path, &features, 2, label)?;
        let (mut all, mut blocks) = (Rows { values: Vec::new(), labels: None }, 0);
        while let Some(rows) = stream.next_rows()? {
            all.values.extend(rows.values);
            if let Some(labels) = rows.labels {
                all.labels.get_or_insert_default().extend(labels);
            }
            blocks += 1;
        }
        assert!(blocks > 1 || text.len() < 3 * BLOCK, "a block at a time");
        Ok(all)
    }

    /// 60 rows of which each has a name with a line break in quotes.
    fn table(header: &str) -> String {
        let row = |i: usize| format!("\"no, {i}\nof 60\",{i},kind {},-{i}.5\r\n", i % 3);
        format!("{header}\r\n{}", (0..60).map(row).collect::<String>())
    }

    #[test]
    fn columns_are_found_by_name_over_all_blocks() {
        let text = table("name,a,kind,b");
        let Rows { values, labels } = read(&text, &["b", "a"], Some("kind")).unwrap();
        let expected = (0..60).flat_map(|i| [-(i as f32) - 0.5, i as f32]);
        assert!(values.into_iter().eq(expected.map(|x| if x == -0.5 { -0.5 } else { x })));
        let labels = labels.unwrap();
        assert!(labels.into_iter().eq((0..60).map(|i| format!("kind {}", i % 3))));
        assert!(read(&text, &["b", "a"], Some("gone")).unwrap().labels.is_none());
        let plain = "1,2\n3,4\n";
        assert_eq!(read(plain, &[], None).unwrap().values, [1.0, 2.0, 3.0, 4.0]);
        let long = plain.repeat(200);
        assert_eq!(read(&long, &["x", "y"], None).unwrap().values.len(), 800);
    }

    #[test]
    fn blocks_without_an_example_are_passed_over() {
        let text = table("name,a,kind,b");
        let expected = read(&text, &["b", "a"], None).unwrap().values;
        let (first, second) = text.split_at(text.len() / 2);
        let cut = first.rfind("\r\n\"").unwrap() + 2;
        for nothing in [",,,\r\n", "\r\n", "# a comment\r\n"] {
            let behind = format!("{text}{}", nothing.repeat(60));
            assert_eq!(read(&behind, &["b", "a"], None).unwrap().values, expected, "{nothing:?}");
            let between = [&first[..cut], &nothing.repeat(60), &first[cut..], second].concat();
            assert_eq!(read(&between, &["b", "a"], None).unwrap().values, expected, "{nothing:?}");
            let (header, rows) = text.split_once("\r\n").unwrap();
            let before = format!("{header}\r\n{}{rows}", nothing.repeat(60));
            assert_eq!(read(&before, &["b", "a"], None).unwrap().values, expected, "{nothing:?}");
        }
        let none = format!("name,a,kind,b\r\n{}", ",,,\r\n".repeat(60));
        let message = read(&none, &["b", "a"], None).err().unwrap().to_string();
        assert!(message.contains("at least one example"), "{message}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        // The header, and two lines for each row before.
        let text = table("name,a,kind,b").replace("-50.5", "much");
        let message = read(&text, &["a", "b"], None).err().unwrap().to_string();
        assert!(message.contains("t.csv:102: ") && message.contains("\"much\""), "{message}");
        let missing = table("name,a,kind,b").replace("-50.5", "");
        let message = read(&missing, &["a", "b"], None).err().unwrap().to_string();
        assert!(message.contains("t.csv:102: ") && message.contains("missing"), "{message}");
        // No key of a configuration is of use to who asks a model.
        for field in ["", "much", "2024-05-01", "12 kg"] {
            let table = table("name,a,kind,b").replace("-50.5", field);
            let message = read(&table, &["a", "b"], None).err().unwrap().to_string();
            let keys = ["ignore_columns", "drop_incomplete_rows", "label_column"];
            assert!(keys.iter().all(|key| !message.contains(key)), "{message}");
        }
        let message = read(&text, &["a", "c"], None).err().unwrap().to_string();
        assert!(message.contains("no column \"c\"") && message.contains("a, c"), "{message}");
        let message = read("1,2,3\n4,5,6\n", &[], None).err().unwrap().to_string();
        assert!(message.contains("3 columns of features, expected 2"), "{message}");
    }
}
