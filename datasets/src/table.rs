//! Tables in CSV, as spreadsheets, pandas and R write them, plain or gzipped.
//!
//! Fields are separated by commas, semicolons or tabs, whichever gives all lines the same number of
//! fields; quotes surround fields that hold separators (RFC 4180). The first line names the columns,
//! unless it is like the others. One column is the label, all others are features, which are not
//! scaled; `True` and `False` are 1 and 0. What cannot be meant as a feature, such as a column of
//! words, is an error that says what to do; what is left out is said.

mod stream;

pub use stream::{Rows, Stream};

use crate::digest::sha256_of;
use crate::foreign::{START, Wanted};
use crate::labels::{self, Classes, Fault, Labels, list};
use crate::{Dataset, Error, Names, Remark, Split, idx, nearest};
use csv::{ByteRecord, ErrorKind, ReaderBuilder};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::str::FromStr;

const KIND: &str = "a CSV table";
/// The most features: the width of the widest layer that a net may have.
const MAX_FEATURES: usize = 65_536;
/// The most bytes of a table that is not compressed.
const MAX_BYTES: u64 = 1 << 34;
/// How many lines tell the separator, the header and which columns hold words.
const SAMPLE: usize = 200;
/// How many rows make a column of consecutive numbers suspicious.
const SUSPICIOUS: usize = 20;
/// What is expected of a name or a label in another encoding.
const IN_UTF_8: &str = "a text in UTF-8: in pandas read_csv(…, encoding=\"latin-1\"), to_csv";
/// What columns of labels are called, in small letters.
const LABELS: [&str; 8] =
    ["label", "labels", "target", "targets", "class", "classes", "y", "species"];

/// Which column is which.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    /// The column of the labels. If absent: the one called `label`; else the one called `labels`,
    /// `target`, `targets`, `class`, `classes`, `y` or `species`, in letters of any case; else the only
    /// one of words. A note says which.
    pub label: Option<Column>,
    /// Columns that are neither features nor labels.
    pub ignored: Vec<Column>,
    /// Whether rows that lack a value are left out. Otherwise they are an error.
    pub drop_incomplete: bool,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// By the name that the first line gives it.
    Name(String),
    /// By its place, from 0 on; −1 is the last one.
    Place(i64),
}

impl Display for Column {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Column::Name(name) => write!(f, "{name:?}"),
            Column::Place(place) => write!(f, "{place}"),
        }
    }
}

/// Reads the user's own tables as a data set named `csv`. Labels are classes as whole numbers below
/// `classes`, if that is given, or as they count from 0; other numbers, and words, are the names of the
/// classes in their order. A training table without labels is an unlabelled transfer set. Without a
/// test table the test split is empty: a part of the training split is held out then.
///
/// Columns without a name, which is how pandas and R write the numbers of the lines, are left out; so is
/// a column called `index` or `id` that counts the lines. As a feature the number of a line would tell
/// the label wherever lines are sorted. The columns of the test table are found by their names.
///
/// A file is read once, so that it may be a pipe. Memory is bounded by 64 times the size of the tables,
/// decompressed.
///
/// # Errors
/// Missing or unreadable, of another format, corrupt gzip, two columns of one name, several columns
/// that could be the labels, a line with more or fewer fields than the header, a feature that is no
/// finite 32-bit number, a missing value, labels that are no classes, no examples, or a test table
/// without a column of the training table.
pub fn load_dataset(
    train: &Path,
    test: Option<&Path>,
    columns: &Columns,
    classes: Option<usize>,
) -> Result<Dataset, Error> {
    let bytes = read(train)?;
    let test_bytes = test.filter(|&path| path != train).map(read).transpose()?;
    let mut table = Table::open(train, &bytes)?;
    let other = test.zip(test_bytes.as_deref());
    let mut other = other.map(|(path, bytes)| Table::open(path, bytes)).transpose()?;

    let mut roles = table.roles(columns, other.as_ref())?;
    let mut part = table.rows(&roles, columns.drop_incomplete)?;
    let numbers_of_lines = part.without_numbers_of_lines(&mut roles);
    table.notes.extend(numbers_of_lines.into_iter().chain(part.doubtful_columns(&roles)));
    let named = |table: &Table, part: &Part| -> Result<Option<Classes>, Error> {
        let Some(labels) = &part.labels else { return Ok(None) };
        let known = Classes::of(labels, classes).map_err(|fault| table.label_fault(fault, part))?;
        let names = &table.class_names;
        let fits = classes.is_none_or(|count| count == names.len());
        Ok(Some(if fits { known.named(names.clone()) } else { known }))
    };
    let mut known = named(&table, &part)?;
    let mut other_part = None;
    if let Some(other) = &mut other {
        let roles = other.roles_as(&roles, columns, train)?;
        let part = other.rows(&roles, columns.drop_incomplete)?;
        // An unlabelled transfer set has the classes of what is tested.
        known = known.map_or_else(|| named(other, &part), |known| Ok(Some(known)))?;
        other_part = Some(part);
    }
    let Some(mut classes) = known.or(classes.map(Classes::counting)) else {
        let found = format!("no column of labels among {}", list(&table.names));
        let expected = "the column of the labels, by its name or its place, as label_column";
        return Err(table.bad(table.header_line, found, expected));
    };
    let width = roles.features.len();
    let train_split = table.split(part, width, &classes)?;
    let test_split = match (test, &other, other_part) {
        (None, ..) => train_split.subset(&[]),
        (_, Some(other), Some(part)) => other.split(part, width, &classes)?,
        _ if train_split.labels.is_some() => train_split.clone(),
        _ => {
            let found = format!("no column of labels among {}", list(&table.names));
            let expected = "the labels that a test table has: their column as label_column";
            return Err(table.bad(table.header_line, found, expected));
        }
    };
    let mut sha256 = BTreeMap::from([(train.display().to_string(), sha256_of([&bytes]))]);
    let mut notes = std::mem::take(&mut table.notes);
    if let Some((other, bytes)) = other.as_mut().zip(test_bytes.as_ref()) {
        sha256.insert(other.path.display().to_string(), sha256_of([bytes]));
        notes.append(&mut other.notes);
    }
    notes.append(&mut classes.notes);
    let features = if table.has_header { roles.features } else { Vec::new() };
    roles.label = roles.label.filter(|_| table.has_header);
    Ok(Dataset {
        name: "csv".to_owned(),
        classes: classes.count,
        names: Names { features, label: roles.label, ..classes.names() },
        train: train_split,
        test: test_split,
        sha256,
        notes,
    })
}

/// What the first lines of a table tell of its columns.
#[derive(Debug)]
pub struct Sketch {
    /// The column of the labels.
    pub label: Option<Column>,
    /// Other columns of which at least a tenth are words, which no feature holds. A rarer word is a
    /// mistake.
    pub words: Vec<Column>,
}

/// The columns of the table at `path`, as [`load_dataset`] takes them.
///
/// # Errors
/// As [`load_dataset`].
pub fn sketch(path: &Path, columns: &Columns) -> Result<Sketch, Error> {
    let bytes = read(path)?;
    let mut table = Table::open(path, &bytes)?;
    let label = table.label(columns, None)?;
    let column = |place: usize| match table.has_header {
        true => Column::Name(table.names[place].clone()),
        false => Column::Place(place as i64),
    };
    let is_word = |place: &usize| {
        table.words[*place] >= 0.1 && label != Some(*place) && !table.is_nameless(*place)
    };
    let words = (0..table.names.len()).filter(is_word).map(column).collect();
    Ok(Sketch { label: label.map(column), words })
}

/// The bytes of the file at `path`, decompressed. What is no text is refused by its first bytes.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let from_os = |cause| Error::from_os(path, KIND, cause);
    let mut file = BufReader::new(File::open(path).map_err(from_os)?);
    let size = file.get_ref().metadata().map_err(from_os)?.len() as usize;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(|refused| from_os(refused.into()))?;
    let mut reader = idx::unpacked(&mut file).map_err(from_os)?.take(MAX_BYTES + 1);
    let mut more = |bytes: &mut Vec<u8>, most: u64| {
        let found = bytes.len() as u64;
        reader
            .by_ref()
            .take(most)
            .read_to_end(bytes)
            .map_err(|cause| idx::damaged(path, KIND, found, cause))
    };
    more(&mut bytes, START as u64)?;
    Error::if_foreign(&bytes, path, Wanted::Table, KIND)?;
    if let Some(offset) = bytes.iter().position(|&byte| byte == 0) {
        return Err(Error::Content {
            path: path.to_path_buf(),
            offset: offset as u64,
            found: "a byte 0, which no text has,".to_owned(),
            expected: KIND.to_owned(),
        });
    }
    more(&mut bytes, u64::MAX)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::Trailing { path: path.to_path_buf(), expected: MAX_BYTES });
    }
    Ok(bytes)
}

/// How many fields each of the first lines has if `separator` separates them.
fn fields_of_lines(bytes: &[u8], separator: u8) -> Vec<usize> {
    let (mut counts, mut quoted, mut fields) = (Vec::new(), false, 0);
    for &byte in bytes.iter().chain(b"\n") {
        quoted ^= byte == b'"';
        match byte {
            b'\n' | b'\r' if !quoted => {
                counts.extend((fields > 0).then_some(fields));
                fields = 0;
            }
            byte if byte == separator && !quoted => fields = fields.max(1) + 1,
            _ => fields = fields.max(1),
        }
        if counts.len() == SAMPLE {
            break;
        }
    }
    counts
}

/// The byte that separates the fields: that which gives all lines the same number of them, most if
/// there are several; else a comma if the first line has one outside of quotes, a semicolon or a tab.
fn separator(bytes: &[u8]) -> u8 {
    let mut best = (false, 1, b',');
    for separator in [b',', b';', b'\t'] {
        let counts = fields_of_lines(bytes, separator);
        let Some((&first, rest)) = counts.split_first() else { continue };
        let width = rest.first().copied().unwrap_or(first);
        // R leaves out the name of the column of row names.
        let alike = rest.iter().all(|&count| count == width) && [width, width - 1].contains(&first);
        if alike && width > 1 && (first == width, width) > (best.0, best.1) {
            best = (first == width, width, separator);
        }
    }
    let in_first = |separator: &u8| fields_of_lines(bytes, *separator).first() > Some(&1);
    match best {
        (_, 1, _) => [b',', b';', b'\t'].into_iter().find(in_first).unwrap_or(b','),
        (.., separator) => separator,
    }
}

/// What a line of values has more than the line of names.
#[derive(Clone, Copy, PartialEq)]
enum Extra {
    Nothing,
    /// Row names in front, as R writes them.
    First,
    /// A separator at its end.
    Last,
}

/// What a column is for.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    Nothing,
    Label,
    /// The label, where there is one.
    LabelIfAny,
    /// The feature of this number.
    Feature(usize),
}

/// What the columns are for.
struct Roles {
    uses: Vec<Use>,
    /// The names of the features, in their order.
    features: Vec<String>,
    /// The name of the column of labels.
    label: Option<String>,
}

/// A table of which everything before the values has been read.
struct Table<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    /// Where the first line of values begins.
    start: usize,
    separator: u8,
    /// The names of the columns; without a header, their places from 0 on.
    names: Vec<String>,
    has_header: bool,
    header_line: usize,
    extra: Extra,
    /// The share of words in each column, as far as the first lines tell.
    words: Vec<f64>,
    /// The names of classes in the first line of the tables that scikit-learn and TensorFlow ship.
    class_names: Vec<String>,
    notes: Vec<Remark>,
}

/// Rows that were read.
struct Part {
    /// [examples, features], row-major.
    values: Vec<f32>,
    labels: Option<Labels>,
    /// What to call the column of labels.
    label: String,
    /// Where the line of each example begins.
    offsets: Vec<usize>,
}

impl<'a> Table<'a> {
    fn open(path: &'a Path, bytes: &'a [u8]) -> Result<Self, Error> {
        let mut start = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        // A line of Excel's that names the separator, which is recognised without it.
        if bytes[start..].to_ascii_lowercase().starts_with(b"sep=") {
            start = next_line(bytes, start);
        }
        let (mut comments, mut last) = (0, start);
        while is_comment(&bytes[skip_blank(bytes, start)..]) {
            (comments, last) = (comments + 1, skip_blank(bytes, start));
            start = next_line(bytes, last);
        }
        let separator = separator(&bytes[start..]);
        let mut table = Table {
            path,
            bytes,
            start,
            separator,
            names: Vec::new(),
            has_header: true,
            header_line: 1,
            extra: Extra::Nothing,
            words: Vec::new(),
            class_names: Vec::new(),
            notes: Vec::new(),
        };
        let mut records = table.sample(start)?;
        if records.is_empty() {
            return Err(table.bad(
                1,
                "no line of values",
                "the names of the columns, then examples",
            ));
        }
        // numpy.savetxt writes the names as a comment.
        if comments > 0 {
            let (_, mut first) = table.sample(last)?.swap_remove(0);
            first[0] = first[0].trim_start_matches('#').trim_start().to_owned();
            let values = records[0].1.iter().any(|field| is_number(field));
            if first.len() > 1 && first.len() == records[0].1.len() && values {
                comments -= 1;
                records.insert(0, (last, first));
            }
        }
        if comments > 0 {
            let note = format!("{}: {comments} lines of comment left out", path.display());
            table.notes.push(Remark::Note(note));
        }
        let (first_start, first) = records.remove(0);
        table.header_line = table.line(first_start);
        table.name(first, first_start, &records)?;
        // What is no UTF-8 was replaced when it was made text.
        let line = &bytes[first_start..next_line(bytes, first_start)];
        let strange = table.names.iter().find(|name| name.contains('\u{fffd}'));
        if let Some(name) = strange.filter(|_| str::from_utf8(line).is_err()) {
            return Err(table.bad(table.header_line, format!("the name {name:?}"), IN_UTF_8));
        }
        Ok(table)
    }

    /// The first records from `start` on, each with the place where it begins.
    fn sample(&self, start: usize) -> Result<Vec<(usize, Vec<String>)>, Error> {
        let mut records = Records::new(self, start);
        let mut sample = Vec::new();
        while sample.len() < SAMPLE && records.next()? {
            // Row names and the separator at the end of a line may be one more.
            let fields = records.record.len();
            if fields > MAX_FEATURES + 2 {
                let expected = format!("at most {MAX_FEATURES} and the label");
                let line = self.line(records.offset());
                return Err(self.bad(line, format!("{fields} columns"), expected));
            }
            sample.push((records.offset(), records.record.iter().map(text).collect()));
        }
        Ok(sample)
    }

    /// Names the columns by the `first` record, if it is a header, and tells which hold words by the
    /// `others`.
    fn name(
        &mut self,
        first: Vec<String>,
        first_start: usize,
        others: &[(usize, Vec<String>)],
    ) -> Result<(), Error> {
        let width = others.first().map_or(first.len(), |(_, second)| second.len());
        if let Some(names) = self.names_of_classes(&first, width) {
            self.has_header = false;
            self.names = (0..width).map(|place| place.to_string()).collect();
            self.words = vec![0.0; width];
            self.class_names = names;
            self.start = others.first().map_or(self.bytes.len(), |(start, _)| *start);
            return Ok(());
        }
        let second = others.first();
        if width == first.len() + 1 {
            self.extra = match second {
                Some((_, fields)) if fields[width - 1].is_empty() => Extra::Last,
                Some((start, fields)) => {
                    // R puts the names into quotes.
                    let quoted = self.bytes[skip_blank(self.bytes, *start)..].starts_with(b"\"");
                    if quoted || !is_number(&fields[0]) { Extra::First } else { Extra::Nothing }
                }
                None => Extra::Nothing,
            };
        }
        let shift = usize::from(self.extra == Extra::First);
        let of_column = |column: usize| {
            let fields = others.iter().filter_map(move |(_, record)| record.get(column + shift));
            fields.filter(|field| !is_missing(field))
        };
        let share = |column: usize| {
            let words = of_column(column).filter(|field| !is_value(field)).count();
            words as f64 / of_column(column).count().max(1) as f64
        };
        let words: Vec<f64> = (0..first.len()).map(share).collect();
        let is_word = |field: &String| !is_missing(field) && !is_value(field);
        let numeric = |column: usize| words[column] <= 0.5 && of_column(column).next().is_some();
        let of_first = |holds: &dyn Fn(usize, &String) -> bool| {
            first.iter().enumerate().filter(|(column, field)| holds(*column, field)).count()
        };
        // One word above numbers, among others above numbers, is a mistake in a line of values.
        let above_numbers = of_first(&|column, field| is_word(field) && numeric(column));
        let among_numbers = of_first(&|column, field| is_number(field) && numeric(column));
        let numbers: Vec<&String> = first.iter().filter(|field| is_number(field)).collect();
        // pandas numbers columns without names.
        let numbered = numbers.iter().enumerate().all(|(i, name)| **name == i.to_string());
        // The name of a column of words is not one of its words, which come again.
        let recurs = |column: usize, field: &String| {
            is_word(field) && of_column(column).any(|other| other == field)
        };
        let labels = of_first(&|column, field| {
            LABELS.contains(&&field.to_lowercase()[..]) && !recurs(column, field)
        });
        let recurring = of_first(&recurs);
        // Or, beside whole numbers that differ, as years do, a word that none of the lines below has, of
        // which all words recur.
        let mut different = HashSet::new();
        let like_names = numbers.iter().all(|x| x.parse::<i64>().is_ok() && different.insert(*x));
        let new_word = |column: usize, field: &String| {
            if !like_names || !is_word(field) || numeric(column) {
                return false;
            }
            let words = || of_column(column).filter(|other| !is_value(other));
            let different: HashSet<&String> = words().collect();
            let recur = words().count() >= SUSPICIOUS.max(2 * different.len());
            recur && !different.contains(field)
        };
        let new_words = of_first(&new_word);
        let is_named = others.is_empty() && numbers.is_empty()
            || width > first.len()
            || labels > 0
            || above_numbers > 0 && above_numbers >= among_numbers
            || numbers.is_empty() && recurring == 0
            || numbered && numbers.len() == first.len() && numbers.len() > 2
            || numbered && numbers.len() < first.len() && recurring == 0;
        let has_header = is_named || new_words > 0 && recurring == 0;
        self.words = words;
        self.has_header = has_header;
        if has_header {
            self.start = second.map_or(self.bytes.len(), |(start, _)| *start);
            let all = numbers.len() == first.len();
            if all || !is_named {
                let text = format!(
                    "{}: the first line, {}, taken for names of columns",
                    self.path.display(),
                    list(&first)
                );
                self.notes.push(if all { Remark::Note(text) } else { Remark::Warning(text) });
            }
            self.names = first;
            return self.expect_different_names();
        }
        self.start = first_start;
        for (share, field) in self.words.iter_mut().zip(&first) {
            *share = if others.is_empty() { f64::from(u8::from(is_word(field))) } else { *share };
        }
        self.names = (0..first.len()).map(|place| place.to_string()).collect();
        let note = format!(
            "{}: no names of columns in the first line; columns are counted from 0",
            self.path.display()
        );
        self.notes.push(Remark::Note(note));
        Ok(())
    }

    /// The names of the classes if the first line is `rows,features,class 0,class 1,…`, as in the tables
    /// that scikit-learn (iris.csv) and TensorFlow (iris_training.csv) ship.
    fn names_of_classes(&self, first: &[String], width: usize) -> Option<Vec<String>> {
        let [_, features, names @ ..] = first else { return None };
        let counts = first[..2].iter().all(|field| field.parse::<u32>().is_ok());
        let named = names.len() > 1 && names.iter().all(|name| !name.is_empty() && !is_value(name));
        let fits = features.parse() == Ok(width - 1);
        (counts && named && fits).then(|| names.to_vec())
    }

    fn expect_different_names(&self) -> Result<(), Error> {
        let mut places = HashMap::new();
        for (place, name) in self.names.iter().enumerate().filter(|(_, name)| !is_nameless(name)) {
            if let Some(before) = places.insert(name, place) {
                let found = format!("two columns {name:?}, number {before} and {place} from 0");
                return Err(self.bad(self.header_line, found, "another name for one of them"));
            }
        }
        Ok(())
    }

    /// The place of `column`.
    fn place(&self, column: &Column, key: &str) -> Result<Option<usize>, Error> {
        let width = self.names.len() as i64;
        match column {
            Column::Place(place) => {
                let found = if *place < 0 { width + place } else { *place };
                if (0..width).contains(&found) {
                    return Ok(Some(found as usize));
                }
                let expected = format!("0 to {}, or −1 for the last", width - 1);
                Err(self.bad(self.header_line, format!("{key} = {place}"), expected))
            }
            Column::Name(name) if !self.has_header => Err(self.bad(
                self.header_line,
                format!("no line of names, and {key} = {name:?}"),
                "the place of the column, counted from 0, without quotes; −1 is the last",
            )),
            Column::Name(name) => Ok(self.names.iter().position(|known| known == name)),
        }
    }

    /// The column of the labels, if there is one. If `test` alone has a column `label`, this table is
    /// without labels.
    fn label(&mut self, columns: &Columns, test: Option<&Table>) -> Result<Option<usize>, Error> {
        let all = list(&self.names);
        if let Some(column) = &columns.label {
            let place = self.place(column, "label_column")?;
            let in_test = || test.and_then(|test| test.place(column, "label_column").ok()?);
            if place.is_none() && in_test().is_none() {
                return Err(self.without(column));
            }
            if place.is_none() {
                let text = format!(
                    "{}: no column {column} among {all}: taken for examples without labels",
                    self.path.display()
                );
                self.notes.push(Remark::Warning(text));
            }
            return Ok(place);
        }
        let plain = |table: &Table| {
            table.names.iter().position(|name| table.has_header && name == LABELS[0])
        };
        match (plain(self), test.and_then(plain)) {
            (Some(place), _) => return Ok(Some(place)),
            (None, Some(_)) => return Ok(None),
            (None, None) => {}
        }
        if !self.class_names.is_empty() {
            let last = self.names.len() - 1;
            let text = format!("{}: labels are column {last}, the last", self.path.display());
            self.notes.push(Remark::Note(text));
            return Ok(Some(last));
        }
        let mut ignored = HashSet::new();
        for column in &columns.ignored {
            ignored.extend(self.place(column, "ignore_columns")?);
        }
        let candidates = |holds: &dyn Fn(usize) -> bool| -> Vec<usize> {
            let of_all = (0..self.names.len()).filter(|&place| holds(place));
            of_all.filter(|p| !ignored.contains(p) && !self.is_nameless(*p)).collect()
        };
        let called = |place: usize| LABELS.contains(&&self.names[place].to_lowercase()[..]);
        let named = candidates(&|place| self.has_header && called(place));
        let worded = candidates(&|place| self.words[place] > 0.5);
        let (found, why) =
            if named.is_empty() { (worded, ", the only one of words") } else { (named, "") };
        match found[..] {
            [place] => {
                let last = if place + 1 == self.names.len() { ", the last" } else { "" };
                let text = format!(
                    "{}: labels are column {}{last}{why}",
                    self.path.display(),
                    self.shown(place)
                );
                self.notes.push(Remark::Note(text));
                Ok(Some(place))
            }
            [] if !self.has_header => Err(self.bad(
                self.header_line,
                "no names of columns, and no column of words",
                "the place of the labels: label_column = 0 for the first column, −1 for the last",
            )),
            [] => {
                let text = format!(
                    "{}: no column of labels among {all}: taken for examples without labels; \
                     label_column names it",
                    self.path.display()
                );
                self.notes.push(Remark::Note(text));
                Ok(None)
            }
            _ => {
                let names: Vec<String> = found.iter().map(|&place| self.shown(place)).collect();
                Err(self.bad(
                    self.header_line,
                    format!("columns that could be the labels: {}", names.join(", ")),
                    format!(
                        "label_column = {}, and words that are no labels in ignore_columns",
                        names.join(" or ")
                    ),
                ))
            }
        }
    }

    /// The error of a column that was named and is not there, with the name that is most like it.
    fn without(&self, column: &Column) -> Error {
        let asked = column.to_string();
        let like = nearest(asked.trim_matches('"'), self.names.iter().map(String::as_str));
        let like = like.map_or(String::new(), |name| format!("; did you mean {name:?}?"));
        let found = format!("no column {column} among {}", list(&self.names));
        self.bad(
            self.header_line,
            found,
            format!("the column of the labels, as label_column{like}"),
        )
    }

    fn is_nameless(&self, place: usize) -> bool {
        is_nameless(&self.names[place])
    }

    /// A column's name in quotes; without a header its place.
    fn shown(&self, place: usize) -> String {
        if self.has_header { format!("{:?}", self.names[place]) } else { place.to_string() }
    }

    /// What the columns of a training table are for.
    fn roles(&mut self, columns: &Columns, test: Option<&Table>) -> Result<Roles, Error> {
        let label = self.label(columns, test)?;
        let mut uses = vec![Use::Feature(0); self.names.len()];
        for column in &columns.ignored {
            let Some(place) = self.place(column, "ignore_columns")? else {
                let found = format!("no column {column} among {}", list(&self.names));
                return Err(self.bad(self.header_line, found, "the columns of ignore_columns"));
            };
            if label == Some(place) {
                let found = format!("{} as label_column and in ignore_columns", self.shown(place));
                return Err(self.bad(self.header_line, found, "one of the two"));
            }
            uses[place] = Use::Nothing;
        }
        let mut nameless = Vec::new();
        let mut features = Vec::new();
        for (place, what) in uses.iter_mut().enumerate() {
            if label == Some(place) {
                *what = Use::Label;
            } else if is_nameless(&self.names[place]) {
                nameless.extend((*what != Use::Nothing).then(|| format!("in place {place}")));
                *what = Use::Nothing;
            } else if *what != Use::Nothing {
                *what = Use::Feature(features.len());
                features.push(self.names[place].clone());
            }
        }
        if self.extra == Extra::First {
            nameless.push("of row names in front".to_owned());
        }
        if !nameless.is_empty() {
            self.notes.push(Remark::Warning(format!(
                "{}: left out the column {} (counted from 0), which has no name: pandas and R write the \
                 numbers or names of rows like this",
                self.path.display(),
                nameless.join(", ")
            )));
        }
        if self.extra == Extra::Last {
            let text =
                format!("{}: left out the separator that ends each line", self.path.display());
            self.notes.push(Remark::Warning(text));
        }
        if features.len() > MAX_FEATURES {
            let found = format!("{} features", features.len());
            return Err(self.bad(self.header_line, found, format!("at most {MAX_FEATURES}")));
        }
        if features.is_empty() {
            return Err(self.bad(
                self.header_line,
                "no column but the label",
                "at least one feature, separated by a comma, semicolon or tab",
            ));
        }
        let label = label.map(|place| self.names[place].clone());
        Ok(Roles { uses, features, label })
    }

    /// What the columns of a test table are for: those that have the names of the training table's.
    fn roles_as(&mut self, train: &Roles, columns: &Columns, path: &Path) -> Result<Roles, Error> {
        let label = match &train.label {
            Some(name) => self.names.iter().position(|known| known == name),
            None => self.label(columns, None)?,
        };
        let places: HashMap<&String, usize> = self.names.iter().zip(0..).collect();
        let mut uses = vec![Use::Nothing; self.names.len()];
        for (feature, name) in train.features.iter().enumerate() {
            let Some(&place) = places.get(name) else {
                let found = format!("no column {name:?} among {}", list(&self.names));
                let expected = format!("the features of {}", path.display());
                return Err(self.bad(self.header_line, found, expected));
            };
            uses[place] = Use::Feature(feature);
        }
        let Some(label) = label.filter(|&place| uses[place] == Use::Nothing) else {
            let name = train.label.clone().map(Column::Name).or(columns.label.clone());
            let name = name.unwrap_or_else(|| Column::Name(LABELS[0].to_owned()));
            let found = format!("no column {name} among {}", list(&self.names));
            let expected = "the labels, by which a model is tested; without a table that has them, \
                            hold out a part of the training table: holdout";
            return Err(self.bad(self.header_line, found, expected));
        };
        uses[label] = Use::Label;
        let label = Some(self.names[label].clone());
        Ok(Roles { uses, features: train.features.clone(), label })
    }

    /// Reads the examples of all lines of values.
    fn rows(&mut self, roles: &Roles, drop_incomplete: bool) -> Result<Part, Error> {
        self.rows_if_any(roles, drop_incomplete, false)
    }

    /// The same of a part of a file, which may have none.
    fn rows_if_any(
        &mut self,
        roles: &Roles,
        drop_incomplete: bool,
        may_be_empty: bool,
    ) -> Result<Part, Error> {
        let mut records = Records::new(self, self.start);
        let labelled = roles.uses.iter().any(|what| matches!(what, Use::Label | Use::LabelIfAny));
        let mut labels = labelled.then(Labels::default);
        let (mut values, mut offsets) = (Vec::new(), Vec::new());
        let (mut row, mut empty, mut comments, mut dropped) = (Vec::new(), 0, 0, 0);
        let mut incomplete = vec![0; self.names.len()];
        row.resize(roles.features.len(), 0.0);
        let shift = usize::from(self.extra == Extra::First);
        let columns = self.names.len() + usize::from(self.extra != Extra::Nothing);
        while records.next()? {
            let record = &records.record;
            if record.iter().all(|field| field.trim_ascii().is_empty()) {
                empty += 1;
                continue;
            }
            let line = || self.line(records.offset());
            if record.len() != columns {
                if is_comment(record[0].trim_ascii_start()) {
                    comments += 1;
                    continue;
                }
                let found = format!("{} fields", record.len());
                let mut expected =
                    format!("{columns}, as before{}", hint_of_count(record, columns));
                if self.extra == Extra::Last && record.len() + 1 == columns {
                    expected +=
                        ": a separator ends the lines before, and not this one; take it away there";
                }
                return Err(self.bad(line(), found, expected));
            }
            let last = record.iter().next_back().unwrap_or_default();
            if self.extra == Extra::Last && !last.trim_ascii().is_empty() {
                let expected = "none behind the separator that ends each line, as before";
                return Err(self.bad(line(), format!("{:?}", text(last)), expected));
            }
            let header = self.has_header && self.extra == Extra::Nothing;
            if header && record.iter().zip(&self.names).all(|(a, b)| a.trim_ascii() == b.as_bytes())
            {
                let expected =
                    "an example; where two tables were joined, leave out the second header";
                return Err(self.bad(line(), "the names of the columns again", expected));
            }
            let mut complete = true;
            let mut label = None;
            for (column, field) in record.iter().skip(shift).take(self.names.len()).enumerate() {
                let refuse = |expected: String| {
                    let found = format!("{:?} in column {}", text(field), self.shown(column));
                    Err(self.bad(line(), found, expected))
                };
                let is_label = roles.uses[column] == Use::Label;
                let missing = match roles.uses[column] {
                    Use::Nothing => continue,
                    Use::LabelIfAny => false,
                    Use::Label => labels::is_missing(field.trim_ascii()),
                    Use::Feature(_) => is_missing(&text(field)),
                };
                if missing && drop_incomplete {
                    incomplete[column] += 1;
                    complete = false;
                    continue;
                }
                if missing && is_label {
                    return refuse(
                        "a label; it is missing: leave such rows out with drop_incomplete_rows = true"
                            .to_owned(),
                    );
                }
                if let Use::Feature(feature) = roles.uses[column] {
                    let value = number(field).filter(|value: &f32| value.is_finite());
                    let Some(value) = value else {
                        let name = self.shown(column);
                        // A table without labels is read for a model, which no configuration can change.
                        let chosen = roles.uses.contains(&Use::Label);
                        let hint = hint(field, &name, chosen);
                        return refuse(format!("a finite 32-bit number{hint}"));
                    };
                    row[feature] = value;
                } else {
                    match str::from_utf8(field.trim_ascii()) {
                        Ok(text) if !text.contains(['\n', '\r']) => label = Some(text),
                        Ok(_) => {
                            return refuse(
                                "a label in one line; a quote opens it and is not closed there"
                                    .to_owned(),
                            );
                        }
                        Err(_) => return refuse(IN_UTF_8.to_owned()),
                    }
                }
            }
            if !complete {
                dropped += 1;
                continue;
            }
            if offsets.len() == u32::MAX as usize {
                return Err(self.bad(line(), "one more", format!("at most {} examples", u32::MAX)));
            }
            if let (Some(labels), Some(label)) = (&mut labels, label) {
                labels
                    .push(label)
                    .map_err(|Fault { found, expected, .. }| self.bad(line(), found, expected))?;
            }
            values.extend_from_slice(&row);
            offsets.push(records.offset());
        }
        if let Some(offset) = records.unclosed_quote() {
            let expected = "a quote at the end of each field that begins with one";
            return Err(self.bad(self.line(offset), "a quote that is not closed", expected));
        }
        if offsets.is_empty() && !may_be_empty {
            let line = self.line(self.bytes.len());
            let mut expected = "at least one example".to_owned();
            if dropped > 0 {
                expected += &format!("; all {dropped} rows are incomplete");
            }
            return Err(self.bad(line, "the end of the file", expected));
        }
        let path = self.path.display().to_string();
        if empty > 0 || comments > 0 {
            let text = format!("{path}: left out {empty} empty lines and {comments} comments");
            self.notes.push(Remark::Note(text));
        }
        if dropped > 0 {
            let columns = (0..self.names.len()).filter(|&column| incomplete[column] > 0);
            let columns = columns.map(|c| format!("{} ({})", self.shown(c), incomplete[c]));
            self.notes.push(Remark::Warning(format!(
                "{path}: left out {dropped} of {} rows, which lack values in {}",
                dropped + offsets.len(),
                columns.collect::<Vec<_>>().join(", ")
            )));
        }
        let label = roles.uses.iter().position(|&what| what == Use::Label);
        let label = label.map_or(String::new(), |place| self.shown(place));
        Ok(Part { values, labels, label, offsets })
    }

    /// The examples of a part, [examples, `width`], with the classes of their labels.
    fn split(&self, part: Part, width: usize, classes: &Classes) -> Result<Split, Error> {
        let labels = part.labels.as_ref().map(|labels| classes.index(labels)).transpose();
        let labels = labels.map_err(|fault| self.label_fault(fault, &part))?;
        Ok(Split::of_features(part.values, width, labels))
    }

    fn label_fault(&self, fault: Fault, part: &Part) -> Error {
        let Fault { row, found, expected } = fault;
        let line = row.map_or(self.header_line, |row| self.line(part.offsets[row]));
        self.bad(line, format!("{found} in column {}", part.label), expected)
    }

    /// The line of what begins at `offset`, counted from 1, behind blank lines.
    fn line(&self, offset: usize) -> usize {
        let end = skip_blank(self.bytes, offset.min(self.bytes.len()));
        1 + self.bytes[..end].iter().filter(|&&byte| byte == b'\n').count()
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

impl Part {
    fn column(&self, feature: usize, width: usize) -> impl Iterator<Item = f32> + Clone {
        self.values[feature..].iter().step_by(width).copied()
    }

    /// Takes out columns that are called like the number of the line, and are it.
    fn without_numbers_of_lines(&mut self, roles: &mut Roles) -> Option<Remark> {
        let width = roles.features.len();
        let is_number = |feature: usize| {
            let name = &roles.features[feature];
            let numbers = self.column(feature, width);
            let first = numbers.clone().next();
            ["index", "id"].iter().any(|known| name.eq_ignore_ascii_case(known))
                && self.offsets.len() > 1
                && first.is_some_and(|first| [0.0, 1.0].contains(&first))
                && numbers.clone().zip(numbers.skip(1)).all(|(a, b)| b - a == 1.0)
        };
        let out: Vec<usize> = (0..width).filter(|&feature| is_number(feature)).collect();
        if out.is_empty() || out.len() == width {
            return None;
        }
        let mut place = 0;
        self.values.retain(|_| {
            place += 1;
            !out.contains(&((place - 1) % width))
        });
        let names: Vec<String> = out.iter().map(|&f| format!("{:?}", roles.features[f])).collect();
        let mut feature = 0;
        roles.features.retain(|_| {
            feature += 1;
            !out.contains(&(feature - 1))
        });
        Some(Remark::Warning(format!(
            "left out the column {}, which counts the lines; rename it to have it as a feature",
            names.join(", ")
        )))
    }

    /// Columns of which each number from a least to a largest one occurs once, in whatever order: an
    /// id, by which rows are known, and no feature.
    fn doubtful_columns(&self, roles: &Roles) -> Vec<Remark> {
        let width = roles.features.len();
        let n = self.offsets.len();
        let is_id = |feature: &usize| {
            let numbers = || self.column(*feature, width);
            let least = numbers().fold(f32::INFINITY, f32::min);
            let mut seen = vec![false; n];
            numbers().all(|x| {
                let place = x - least;
                let whole = x.fract() == 0.0 && x.abs() < 16_777_216.0;
                let fits = whole && place < n as f32;
                fits && !std::mem::replace(&mut seen[place as usize], true)
            })
        };
        let ids = (0..width).filter(|_| n >= SUSPICIOUS).filter(is_id);
        ids.map(|feature| {
            Remark::Warning(format!(
                "column {0:?} has each of {n} consecutive numbers once, as the numbers of rows: if it is \
                 no feature, leave it out with ignore_columns = [{0:?}]",
                roles.features[feature]
            ))
        })
        .collect()
    }
}

/// The records from a place on.
struct Records<'t> {
    path: &'t Path,
    bytes: &'t [u8],
    start: usize,
    separator: u8,
    reader: csv::Reader<&'t [u8]>,
    record: ByteRecord,
}

impl<'t> Records<'t> {
    fn new(table: &Table<'t>, start: usize) -> Records<'t> {
        let mut builder = ReaderBuilder::new();
        builder.has_headers(false).flexible(true).delimiter(table.separator);
        Records {
            path: table.path,
            bytes: table.bytes,
            start,
            separator: table.separator,
            reader: builder.from_reader(&table.bytes[start..]),
            record: ByteRecord::new(),
        }
    }

    /// Reads the next record; `false` at the end.
    fn next(&mut self) -> Result<bool, Error> {
        self.reader.read_byte_record(&mut self.record).map_err(|e| match e.into_kind() {
            ErrorKind::Io(cause) => Error::from_os(self.path, KIND, cause),
            other => Error::Archive {
                path: self.path.to_path_buf(),
                found: format!("{other:?}"),
                expected: KIND.to_owned(),
            },
        })
    }

    /// The place of the record. The reader's position of one is the end of the record before: blank
    /// lines and the second half of a CR LF come between.
    fn offset(&self) -> usize {
        let position = self.record.position().map_or(0, |position| position.byte() as usize);
        skip_blank(self.bytes, self.start + position)
    }

    /// Behind the last record: where the line of a field begins whose quote nothing closes.
    fn unclosed_quote(&self) -> Option<usize> {
        let rest = &self.bytes[self.start..];
        let mut quoted = false;
        let mut opened = 0;
        for (at, &byte) in rest.iter().enumerate() {
            let opens = at == 0 || [b'\n', b'\r', self.separator].contains(&rest[at - 1]);
            if byte == b'"' && (quoted || opens) {
                quoted = !quoted;
                opened = at;
            }
        }
        quoted.then(|| {
            let before = rest[..opened].iter().rposition(|&byte| byte == b'\n');
            self.start + before.map_or(0, |at| at + 1)
        })
    }
}

/// The first place from `at` on that is no line break.
fn skip_blank(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().take_while(|&&byte| byte == b'\n' || byte == b'\r').count()
}

/// The place behind the line that begins at `at`.
fn next_line(bytes: &[u8], at: usize) -> usize {
    let end = bytes[at..].iter().position(|&byte| byte == b'\n' || byte == b'\r');
    end.map_or(bytes.len(), |end| skip_blank(bytes, at + end))
}

/// Whether a line is a comment. `#N/A` is how Excel writes a missing value.
fn is_comment(line: &[u8]) -> bool {
    line.starts_with(b"#") && !line.starts_with(b"#N") && !line.starts_with(b"#D")
}

/// Whether a column has no name of its own: pandas reads such a one as `Unnamed: 0`.
fn is_nameless(name: &str) -> bool {
    name.is_empty() || name.starts_with("Unnamed: ")
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

fn is_number(field: &str) -> bool {
    field.parse().is_ok_and(f64::is_finite)
}

/// Whether a field holds what a feature can be, or a number in another notation.
fn is_value(field: &str) -> bool {
    ["True", "true", "TRUE", "False", "false", "FALSE"].contains(&field)
        || is_number(field)
        || is_number(&field.replace(',', "."))
        || is_number(&field.replace(',', ""))
}

/// Whether a field of a feature says that there is no value.
fn is_missing(field: &str) -> bool {
    const WORDS: [&str; 15] = [
        "", "na", "nan", "-nan", "n/a", "<na>", "null", "none", "nat", "?", "-", ".", "#n/a",
        "#value!", "#div/0!",
    ];
    WORDS.contains(&&field.to_ascii_lowercase()[..])
}

/// What a record of another number of fields is probably about.
fn hint_of_count(record: &ByteRecord, columns: usize) -> &'static str {
    let broken = record.iter().any(|field| field.contains(&b'\n'));
    match record.iter().next_back() {
        _ if broken => "; a quote that opens here is not closed before the end of the line",
        Some(last) if record.len() > columns && last.trim_ascii().is_empty() => {
            "; no separator ends a line, or all of them"
        }
        _ if record.len() > columns => {
            "; if numbers have a decimal comma: write them with a point, in pandas read_csv(…, \
             decimal=\",\"), to_csv; if rows have names, as in R: write.csv(…, row.names = FALSE)"
        }
        _ => "",
    }
}

/// What to do about a field that is not the number it should be, of the column called `name`. Where the
/// columns are not `chosen` by a configuration, none of its keys is of use.
fn hint(field: &[u8], name: &str, chosen: bool) -> String {
    let text = text(field);
    let or = |key: &str| if chosen { format!(", or {key}") } else { String::new() };
    let or_without = or(&format!("leave out the column with ignore_columns = [{name}]"));
    let is_date = || {
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        digits > 3 && text.bytes().all(|byte| byte.is_ascii_digit() || b"-/:. TZ".contains(&byte))
    };
    if text.contains(['\n', '\r']) {
        "; a quote that opens here is not closed before the end of the line".to_owned()
    } else if is_missing(&text) {
        let or_dropped = or("leave out such rows with drop_incomplete_rows = true");
        format!(
            "; the value is missing: fill it in, in pandas table.fillna(table.median(numeric_only=\
             True)){or_dropped}{or_without}"
        )
    } else if text.parse::<f64>().is_ok() {
        format!(
            ", of at most 3.4e38: divide the column, or leave out such rows, in pandas table[table[{name}]\
             .abs() < 1e38]"
        )
    } else if is_number(&text.replacen(',', ".", 1)) {
        "; write a decimal point: in pandas read_csv(…, sep=\";\", decimal=\",\"), to_csv; if commas part \
         thousands: read_csv(…, thousands=\",\")"
            .to_owned()
    } else if is_number(&text.replace(',', "")) {
        "; write no commas: in pandas read_csv(…, thousands=\",\"), to_csv".to_owned()
    } else if is_date() && text.contains(['-', '/', ':']) {
        format!(
            "; a date: make numbers of it, in pandas table[{name}] = pandas.to_datetime(table[{name}])\
             .astype(\"int64\"){or_without}"
        )
    } else if text.split([' ', '|', ':']).all(|part| part.is_empty() || is_number(part)) {
        "; separate the fields by commas, semicolons or tabs".to_owned()
    } else if text.starts_with(char::is_numeric) {
        format!("; write the number alone{or_without}")
    } else if chosen {
        format!(
            "; leave out the column with ignore_columns = [{name}], or make columns of numbers of it, in \
             pandas pandas.get_dummies(table, columns=[{name}]); if it holds the labels: label_column = \
             {name}"
        )
    } else {
        "; the model takes numbers here".to_owned()
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
        load_dataset(&train_path, test.map(|_| &*test_path), &Columns::default(), Some(3))
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
        let cases: [(&[u8], &str, &[&str]); 40] = [
            (b"", TEST, &["train.csv", "an empty file", "nothing arrived"]),
            (b"1.5,2,3\n", TEST, &["test.csv:1", "no column \"0\" among label, height"]),
            (b"label,a,label\n", TEST, &["train.csv:1", "two columns \"label\", number 0 and 2"]),
            (b"label\n1\n", TEST, &["train.csv:1", "no column but the label"]),
            (b"a,label\n", TEST, &["train.csv:2", "at least one example"]),
            (b"a,label\n1,0\n\n2\n", TEST, &["train.csv:4", "found 1 fields, expected 2"]),
            (b"a,label\r\n1,0\r\n\r\n2\r\n", TEST, &["train.csv:4", "found 1 fields"]),
            (b"\"a\nb\",label\n1,0\n2", TEST, &["train.csv:4", "found 1 fields"]),
            (b"a,label\n1,0,0\n", TEST, &["train.csv:2", "found 3 fields, expected 2"]),
            (b"a,label\nx,0\n", TEST, &["train.csv:2", "\"x\" in column \"a\"", "finite 32-bit"]),
            (b"a,label\nx,0\n", TEST, &["ignore_columns = [\"a\"]", "get_dummies"]),
            (b"a,label\n,0\n", TEST, &["train.csv:2", "\"\" in column \"a\"", "missing"]),
            (b"a,label\n#N/A,0\n", TEST, &["\"#N/A\" in", "drop_incomplete_rows = true"]),
            (b"a,label\nnan,0\n", TEST, &["\"nan\" in column \"a\"", "fillna"]),
            (b"a,label\n1e39,0\n", TEST, &["\"1e39\" in column \"a\""]),
            (b"a,label\n1,3\n", TEST, &["train.csv:2", "\"3\" in column \"label\"", "0 to 2"]),
            (b"label,a\n1,4\n1.5,0\n", TEST, &["train.csv:3", "\"1.5\" in column \"label\""]),
            (b"label,a\n-1,0\n", TEST, &["train.csv:2", "\"-1\" in column \"label\""]),
            (b"label,a\nnan,0\n", TEST, &["\"nan\" in column \"label\"", "is missing"]),
            (b"label,a\ncat,0\n", TEST, &["1 different labels: cat", "3, as data.classes"]),
            (b"a,label\n1,0\n1,5,0\n", TEST, &["train.csv:3", "3 fields", "decimal comma"]),
            (b"a,label\n1,0\n1,0,\n", TEST, &["train.csv:3", "3 fields", "no separator ends"]),
            (b"a,label\n1,0,\n1,0,3\n", TEST, &["train.csv:3", "\"3\"", "none behind"]),
            (b"a,label\n1,0,\n2,1\n", TEST, &["train.csv:3", "2 fields", "ends the lines before"]),
            (b"a,label\n1,5,0\n", TEST, &["train.csv:2", "3 fields", "row.names = FALSE"]),
            (
                b"a;label\n1,5;0\n",
                TEST,
                &["train.csv:2", "\"1,5\" in column \"a\"", "decimal point"],
            ),
            (b"a,label\n\"1,234.5\",0\n", TEST, &["\"1,234.5\" in column", "thousands=\",\""]),
            (b"a b label\n1 2 0\n", TEST, &["\"1 2 0\" in column", "separate the fields"]),
            (b"a,label\n12%,0\n", TEST, &["\"12%\" in column", "write the number alone"]),
            (b"t,label\n2024-01-31,0\n", TEST, &["a date", "pandas.to_datetime"]),
            (b"a,b\0,label\n1,2,0\n", TEST, &["train.csv", "a byte 0", "offset 3", "a CSV table"]),
            (b"PK\x03\x04 xl/", TEST, &["train.csv", "an Excel workbook", "save it as CSV"]),
            (b"\xfd7zXZ\0", TEST, &["train.csv", "an xz stream", "xz -d"]),
            (b"a,label\n\xff,0\n", TEST, &["train.csv:2", "in column \"a\""]),
            (b"a,label\n1,\xff\n", TEST, &["train.csv:2", "latin-1"]),
            (b"a,label\n\"1,0\n", TEST, &["train.csv:2", "found 1 fields", "not closed"]),
            (b"a,label\n1,cat\n2,\"dog\n3,cat\n", TEST, &["train.csv:3", "not closed"]),
            (b"a,label\n1,cat\n2,\"dog", TEST, &["train.csv:3", "a quote that is not closed"]),
            (TRAIN.as_bytes(), "height,width\n1,2\n", &["test.csv:1", "no column \"label\" among"]),
            (
                b"a,label\n1,0\na,label\n2,1\n",
                TEST,
                &["train.csv:3", "the names of the columns again"],
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
        let message = load(TRAIN, Some("height,label\n1,2\n")).unwrap_err().to_string();
        assert!(
            message.contains("test.csv:1: found no column \"width\" among height"),
            "{message}"
        );
        let wide = "a,".repeat(MAX_FEATURES + 2);
        assert!(load(wide, None).unwrap_err().to_string().contains("65539 columns"));
    }

    /// The columns of the test table are found by their names.
    #[test]
    fn the_order_of_the_columns_may_differ() {
        let other = load(TRAIN, Some("width,more,label,height\n1,x,2,3\n")).unwrap();
        assert_eq!(other.test, Split::of_features(vec![3.0, 1.0], 2, Some(vec![2])));
    }

    fn table(text: impl AsRef<[u8]>, columns: &Columns) -> Result<Dataset, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        std::fs::write(&path, text).unwrap();
        load_dataset(&path, None, columns, None)
    }

    fn plain(text: impl AsRef<[u8]>) -> Dataset {
        table(text, &Columns::default()).unwrap()
    }

    fn remarks(dataset: &Dataset) -> String {
        dataset.notes.iter().map(|remark| format!("{remark:?}\n")).collect()
    }

    /// What is in the table, however it is written down: two rows of 1, 2 and 3, 4.
    #[test]
    fn tables_are_read_as_other_programs_write_them() {
        let expected = Split::of_features(vec![1.0, 2.0, 3.0, 4.0], 2, Some(vec![1, 0]));
        let warned = [
            // pandas with its index, and read and written again.
            (",a,b,label\n0,1,2,1\n1,3,4,0\n", "left out the column in place 0"),
            ("Unnamed: 0,a,b,label\n0,1,2,1\n1,3,4,0\n", "left out the column in place 0"),
            // R's write.csv, write.table, and without quotes.
            ("\"\",\"a\",\"b\",\"label\"\n\"1\",1,2,1\n\"2\",3,4,0\n", "left out the column"),
            ("\"a\",\"b\",\"label\"\n\"1\",1,2,1\n\"2\",3,4,0\n", "of row names in front"),
            ("a,b,label\nMazda RX4,1,2,1\nFiat,3,4,0\n", "of row names in front"),
            ("Id,a,b,label\n1,1,2,1\n2,3,4,0\n", "\\\"Id\\\", which counts the lines"),
            // A separator at the end of lines: of all, of those with values.
            ("a,b,label,\n1,2,1,\n3,4,0,\n", "left out the column in place 3"),
            ("a,b,label\n1,2,1,\n3,4,0,\n", "the separator that ends each line"),
        ];
        for (text, warning) in warned {
            let dataset = plain(text);
            assert_eq!(dataset.train, expected, "{text}");
            let said = remarks(&dataset);
            assert!(said.contains("Warning(") && said.contains(warning), "{text}: {said}");
            assert_eq!(dataset.names.features, ["a", "b"]);
        }
        let noted = [
            ("# made by hand\n#\na,b,label\n1,2,1\n3,4,0\n", "2 lines of comment"),
            ("a,b,label\n1,2,1\n# half\n3,4,0\n,,\n", "1 empty lines and 1 comments"),
            // numpy.savetxt(…, header=…)
            ("# a,b,label\n1.0,2.0,1.0\n3.0,4.0,0.0\n", ""),
            ("sep=;\na;b;label\n1;2;1\n3;4;0\n", ""),
            ("a\tb\tlabel\n1\t2\t1\n3\t4\t0\n", ""),
            ("a, b,label\r1, 2,1\r3,4, 0\r", ""),
        ];
        for (text, note) in noted {
            let dataset = plain(text);
            assert_eq!((&dataset.train, dataset.names.features.len()), (&expected, 2), "{text}");
            let said = remarks(&dataset);
            assert!(said.contains(note) && !said.contains("Warning("), "{said}");
            assert!(!note.is_empty() || said.is_empty(), "{said}");
        }
        // A comma in a name, without quotes.
        let comma = plain("width, mm;b;label\n1;2;1\n3;4;0\n");
        assert_eq!((&comma.train, &comma.names.features[0][..]), (&expected, "width, mm"));
        // In gzip, of several members too.
        let mut gzip = Vec::new();
        for part in ["a,b,label\n1,2", ",1\n3,4,0\n"] {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            std::io::Write::write_all(&mut encoder, part.as_bytes()).unwrap();
            gzip.extend(encoder.finish().unwrap());
        }
        let packed = plain(&gzip);
        assert_eq!(packed.train, expected);
        assert!(packed.sha256.values().eq(plain("a,b,label\n1,2,1\n3,4,0\n").sha256.values()));
        gzip.truncate(40);
        assert!(
            table(&gzip, &Columns::default()).unwrap_err().to_string().contains("corrupt gzip")
        );
    }

    fn label(column: Column) -> Columns {
        Columns { label: Some(column), ..Columns::default() }
    }

    #[test]
    fn a_table_without_names_has_its_labels_by_place() {
        // The first lines of UCI's wine.data and iris.data.
        let wine = "1,14.23,1.71\n2,12.37,.94\n3,12.86,1.35\n1,13.2,1.78\n";
        let dataset = table(wine, &label(Column::Place(0))).unwrap();
        assert_eq!(dataset.names.classes, ["1", "2", "3"]);
        assert_eq!(dataset.names.features, [""; 0]);
        assert_eq!(dataset.train.labels.as_deref(), Some(&[0, 1, 2, 0][..]));
        assert_eq!(table(wine, &label(Column::Place(-3))).unwrap().train, dataset.train);
        let refused = |columns: &Columns| table(wine, columns).unwrap_err().to_string();
        assert!(
            refused(&Columns::default()).contains("label_column = 0 for the first column, −1 for")
        );
        assert!(refused(&label(Column::Place(3))).contains("0 to 2, or −1"));
        assert!(
            refused(&label(Column::Name("0".into()))).contains("counted from 0, without quotes")
        );

        let iris = "5.1,3.5,Iris-setosa\n6.2,2.9,Iris-virginica\n4.9,3.0,Iris-setosa\n";
        let dataset = plain(iris);
        assert_eq!((dataset.classes, dataset.train.len()), (2, 3));
        assert!(remarks(&dataset).contains("labels are column 2, the last, the only one of words"));

        // As UCI's house-votes-84.data: y is no name of a column here.
        let votes = "y,1,republican\nn,2,democrat\ny,3,democrat\nn,4,republican\n";
        let columns = Columns { ignored: vec![Column::Place(0)], ..label(Column::Place(-1)) };
        assert_eq!(table(votes, &columns).unwrap().train.len(), 4);
        // One mistake in the first line of values makes no names of the others.
        let mistake = table("1,2x,3\n4,5,6\n7,8,9\n", &label(Column::Place(-1))).unwrap_err();
        assert!(mistake.to_string().contains("t.csv:1: found \"2x\" in column 1"), "{mistake}");

        // What pandas writes where columns have numbers for names, is a line of names all the same.
        let numbered = plain("0,1,species\n1,2,cat\n3,4,dog\n5,6,cat\n");
        assert_eq!((numbered.names.features.len(), numbered.train.len()), (2, 3));
        let numbers = table("0,1,2\n1.5,2,1\n3,4,0\n", &label(Column::Place(2))).unwrap();
        assert_eq!(numbers.train.len(), 2);
        assert!(remarks(&numbers).contains("0, 1, 2, taken for names"));
    }

    /// scikit-learn's own iris.csv and wine_data.csv; TensorFlow's iris_training.csv is like them.
    #[test]
    fn the_first_line_of_published_tables_names_the_classes() {
        let iris = "3,2,setosa,versicolor\n5.1,3.5,0\n4.9,3.0,1\n4.7,3.2,0\n";
        let dataset = plain(iris);
        assert_eq!(dataset.names.classes, ["setosa", "versicolor"]);
        assert_eq!(dataset.train.labels.as_deref(), Some(&[0, 1, 0][..]));
        let few = table("2,1,a,b,c\n1,0\n2,1\n", &label(Column::Place(-1))).unwrap();
        assert_eq!(few.classes, 3);
    }

    #[test]
    fn the_column_of_labels_is_found_or_asked_for() {
        let found = |header: &str, label: &str| {
            let dataset = plain(format!("{header}\n1,2,0\n3,4,1\n"));
            assert!(
                remarks(&dataset).contains(&format!("labels are column \\\"{label}\\\"")),
                "{header}"
            );
            assert_eq!(dataset.train.labels.as_deref(), Some(&[0, 1][..]));
        };
        found("a,b,target", "target");
        found("a,b,Species", "Species");
        found("x,z,y", "y");
        let words = plain("a,kind,b\n1,cat,2\n2,dog,3\n3,cat,4\n");
        assert_eq!(
            (&words.names.classes[..], words.classes),
            (&["cat".into(), "dog".into()][..], 2)
        );
        assert!(remarks(&words).contains("2 classes: cat, dog"));
        let refused = |text: &str, columns: &Columns, part: &str| {
            let message = table(text, columns).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        };
        let plain_rule = Columns::default();
        refused("a,target,class\n1,0,1\n2,1,0\n", &plain_rule, "\"target\", \"class\"");
        refused("name,kind,b\nx,cat,2\ny,dog,3\n", &plain_rule, "\"name\" or \"kind\"");
        refused("a,b\n1,2\n3,4\n", &plain_rule, "no column of labels among a, b");
        let ids: String = (0..30).map(|i| format!("{i}.5,name{i}\n")).collect();
        refused(&format!("a,name\n{ids}"), &plain_rule, "30 different labels in 30 rows");
        let prices: String = (0..30).map(|i| format!("{i}.5,{}\n", 1000 + i)).collect();
        refused(&format!("a,target\n{prices}"), &plain_rule, "was measured or counts the rows");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        std::fs::write(&path, "name,n,kind,b\nx,1,cat,\ny,2,dog,3\n").unwrap();
        let found = sketch(&path, &label(Column::Place(2))).unwrap();
        assert_eq!(found.label, Some(Column::Name("kind".into())));
        assert_eq!(found.words, [Column::Name("name".into())]);
        // One word among numbers is a mistake, and named where it is.
        refused(
            "a,b,label\n1,2,0\n3,x,1\n4,5,0\n",
            &plain_rule,
            "t.csv:3: found \"x\" in column \"b\"",
        );
        // A first line of numbers and a word that none of the others has is a header.
        let years =
            |last: &str| format!("2019,2020,{last}\n{}", "0.1,-0.6,no\n2,1.4,yes\n".repeat(10));
        let named = plain(years("outcome"));
        assert_eq!((named.train.len(), named.names.label.as_deref()), (20, Some("outcome")));
        assert!(remarks(&named).contains("taken for names of columns"), "{}", remarks(&named));
        assert_eq!(plain(years("no")).train.len(), 21);
        // What holds other words is named.
        let both = "name,kind,b\nx,cat,2\ny,dog,3\n";
        let columns = Columns {
            ignored: vec![Column::Name("name".into())],
            ..label(Column::Name("kind".into()))
        };
        assert_eq!(table(both, &columns).unwrap().names.features, ["b"]);
        let ignored = Columns { label: None, ..columns.clone() };
        assert_eq!(table(both, &ignored).unwrap().train, table(both, &columns).unwrap().train);
        let unknown = Columns { ignored: vec![Column::Name("nam".into())], ..columns };
        refused(both, &unknown, "no column \"nam\" among name, kind, b");
        // So is what looks like a misspelt column of labels.
        let misspelt = label(Column::Name("knd".into()));
        refused(both, &misspelt, "no column \"knd\" among name, kind, b");
        refused(both, &misspelt, "did you mean \"kind\"?");
    }

    #[test]
    fn incomplete_rows_are_left_out_if_asked_and_what_is_doubtful_is_said() {
        let text = "a,b,label\n1,2,1\n,3,0\n4,NA,0\n5,6,\n7,8,0\n";
        let columns = Columns { drop_incomplete: true, ..Columns::default() };
        let dataset = table(text, &columns).unwrap();
        assert_eq!(
            dataset.train,
            Split::of_features(vec![1.0, 2.0, 7.0, 8.0], 2, Some(vec![1, 0]))
        );
        let said = remarks(&dataset);
        assert!(said.contains("left out 3 of 5 rows") && said.contains("label\\\" (1)"), "{said}");
        // A class may be called none.
        assert_eq!(plain("a,label\n1,none\n2,mild\n").names.classes, ["mild", "none"]);
        // Shuffled numbers of rows, under any name; a column with a number twice is none.
        let ids = |last: u32| -> String {
            let of = |i: u32| format!("{},{i}.5,{}\n", 1000 + i * 7 % 25 + last * (i / 24), i % 2);
            "passenger,a,label\n".to_owned() + &(0..25).map(of).collect::<String>()
        };
        let said = remarks(&plain(ids(0)));
        assert!(said.contains("25 consecutive numbers"), "{said}");
        assert!(said.contains("ignore_columns = [\\\"passenger\\\"]"), "{said}");
        assert_eq!(remarks(&plain(ids(1))), "");
        // An id that does not count is a feature, as any other column.
        assert_eq!(plain("id,a,label\n3,9,0\n2,9,1\n").train.input_size(), 2);
        // Labels of the test table have the training table's numbers.
        let named = load("a,label\n1,x\n2,y\n3,z\n", Some("a,label\n5,z\n")).unwrap();
        assert_eq!(named.test.labels.as_deref(), Some(&[2][..]));
        let message = load("a,label\n1,x\n2,y\n3,z\n", Some("a,label\n5,x\n6,w\n")).unwrap_err();
        assert!(
            message.to_string().contains("test.csv:3: found \"w\" in column \"label\""),
            "{message}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_table_may_be_a_pipe_and_an_endless_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let into = pipe.clone();
        let writer = std::thread::spawn(move || std::fs::write(into, TRAIN).unwrap());
        let piped = load_dataset(&pipe, Some(&pipe), &Columns::default(), Some(3)).unwrap();
        writer.join().unwrap();
        let filed = load(TRAIN, None).unwrap();
        assert_eq!((&piped.train, &piped.test), (&filed.train, &filed.train));
        assert!(piped.sha256.values().eq(filed.sha256.values()));
        let message =
            load_dataset(Path::new("/dev/zero"), None, &Columns::default(), None).unwrap_err();
        assert!(message.to_string().contains("a byte 0"), "{message}");
    }

    #[test]
    fn a_missing_table_is_an_io_error() {
        let dir = tempfile::tempdir().unwrap();
        let load = |path: &Path| load_dataset(path, None, &Columns::default(), None).unwrap_err();
        let message = load(&dir.path().join("gone.csv")).to_string();
        assert!(message.contains("gone.csv: no such file") && !message.contains("LIMBECK_DATA"));
        assert!(load(&dir.path().join("gone.csv")).is_io() && load(dir.path()).is_io());
    }
}
