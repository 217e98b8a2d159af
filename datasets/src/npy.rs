//! NumPy's `.npy` files, and `.npz` archives of them: teacher logits and the user's own data.
//!
//! The header is parsed here because existing crates trust it: they allocate what it announces and
//! overflow on huge shapes. Of the format (`numpy.lib.format`, versions 1 to 3) only what
//! `numpy.save` writes for a C-ordered array of little-endian numbers is accepted.

use crate::digest::sha256_of_file;
use crate::{Dataset, Error, Inputs, Split};
use byteorder::{ByteOrder, LittleEndian};
use std::cmp::Ordering;
use std::collections::{BTreeMap, TryReserveError};
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;

const KIND: &str = "a NumPy .npy file";
const ARCHIVE: &str = "an .npz archive of NumPy arrays, or a folder of .npy files";
const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// `numpy.save` needs 118 bytes; NumPy itself refuses more than 10,000.
const MAX_HEADER: usize = 10_000;
/// The longest image side accepted, in pixels.
const MAX_SIDE: usize = 4096;
/// The most values of an example: the width of the widest layer that a net may have.
const MAX_VALUES: usize = 65_536;
/// No deflate stream expands by more than this factor.
const MAX_EXPANSION: u64 = 1032;

/// Reads the logits [rows, classes], row-major, from a matrix of exactly that shape; f64 values
/// are rounded to f32. It needs memory for the logits, and 64 KiB.
///
/// # Errors
/// Not found or unreadable, not a `.npy` file, another type, order or shape, truncated, trailing
/// bytes, or a value that is not finite as f32. Nothing is allocated for the values before the
/// file's length is known to hold them.
pub fn read_logits(path: &Path, rows: usize, classes: usize) -> Result<Vec<f32>, Error> {
    let array = open(path)?;
    match &array.form {
        Some(Form { element, shape }) if element.is_float() && shape[..] == [rows, classes] => {
            array.floats()
        }
        _ => Err(array.unfit(format!(
            "descr '<f4' or '<f8', shape ({rows}, {classes}): \
             one row of {classes} logits for each of the {rows} examples"
        ))),
    }
}

/// Writes logits [rows, classes], row-major, as the bytes of an `.npy` file for [`read_logits`] and
/// NumPy.
#[must_use]
pub fn of_logits(logits: &[f32], classes: usize) -> Vec<u8> {
    let shape = (logits.len() / classes, classes);
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape:?}, }}");
    // The values start at offset 128, a multiple of 64 as the format wants: behind the magic,
    // version and length, 10 bytes, and the header with its line break, 118.
    let mut file = [&MAGIC[..], &[1, 0, 118, 0], format!("{header:<117}\n").as_bytes()].concat();
    file.extend(logits.iter().flat_map(|logit| logit.to_le_bytes()));
    file
}

/// Reads the user's own examples as a data set named `npz`, from the arrays x_train, y_train, x_test
/// and y_test. The names are those of Keras. The file is an archive that `numpy.savez` made of the
/// arrays, or a folder of the four `.npy` files.
///
/// - x is images: u8 of shape (n, height, width); or features: f32 or f64 of shape (n, …), which
///   are flattened and not scaled.
/// - y is labels: integers of any width below `classes`, of shape (n,). Without y_train the training
///   split is an unlabelled transfer set.
///
/// If a part of the training split will be `held_out`, the test arrays are not read and the test
/// split is empty. It needs memory for the values, for features 12 bytes more for each example, and
/// 64 KiB.
///
/// # Errors
/// Not found or unreadable, no such archive, an array that is missing or damaged, another type,
/// order or shape, arrays that do not fit each other, a value that is not finite as f32, or a label
/// that is no class.
pub fn load_dataset(path: &Path, classes: usize, held_out: bool) -> Result<Dataset, Error> {
    let mut arrays = Arrays::open(path)?;
    let train = arrays.split("train", classes, held_out, None)?;
    let test = match held_out {
        true => train.subset(&[]),
        false => arrays.split("test", classes, true, Some(&train))?,
    };
    Ok(Dataset { name: "npz".to_owned(), classes, train, test, sha256: arrays.sha256 })
}

/// The type of an array's values.
#[derive(Clone, Copy)]
struct Element {
    /// `u` and `i` for integers, `f` for floating point.
    kind: u8,
    /// Number of bytes of a value.
    width: usize,
}

impl Element {
    /// Parses a `descr` such as `'<f4'` or `'|u1'`: little-endian, or a single byte.
    fn parse(descr: &str) -> Option<Element> {
        let [b'\'', order, kind, width, b'\'', ..] = *descr.as_bytes() else { return None };
        let width = usize::from(width.wrapping_sub(b'0'));
        let known = match kind {
            b'u' | b'i' => [1, 2, 4, 8].contains(&width),
            b'f' => [4, 8].contains(&width),
            _ => false,
        };
        let in_order = order == b'<' || order == b'|' && width == 1;
        (known && in_order).then_some(Element { kind, width })
    }

    fn is_float(self) -> bool {
        self.kind == b'f'
    }

    fn value(self, bytes: &[u8]) -> f64 {
        match (self.kind, self.width) {
            (b'f', 4) => f64::from(LittleEndian::read_f32(bytes)),
            (b'f', _) => LittleEndian::read_f64(bytes),
            (b'u', width) => LittleEndian::read_uint(bytes, width) as f64,
            (_, width) => LittleEndian::read_int(bytes, width) as f64,
        }
    }
}

/// The type and the shape of a C-ordered array, as its header has them.
struct Form {
    element: Element,
    /// At least one side.
    shape: Vec<usize>,
}

impl Form {
    /// Parses a Python dictionary such as
    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (60000, 10), }`.
    fn parse(header: &str) -> Option<Form> {
        let header: String = header.split_whitespace().collect();
        let fields = header.strip_prefix('{')?.strip_suffix('}')?;
        let value = |key: &str| Some(fields.split_once(&format!("'{key}':"))?.1);
        if !value("fortran_order")?.starts_with("False") {
            return None;
        }
        let (sides, _) = value("shape")?.strip_prefix('(')?.split_once(')')?;
        let sides = sides.trim_end_matches(',').split(',').map(|side| side.parse().ok());
        Some(Form {
            element: Element::parse(value("descr")?)?,
            shape: sides.collect::<Option<_>>()?,
        })
    }

    /// Number of values of a row. The first side counts the rows.
    fn row(&self) -> usize {
        self.shape[1..].iter().fold(1, |size, &side| size.saturating_mul(side))
    }

    fn count(&self) -> usize {
        self.shape[0].saturating_mul(self.row())
    }
}

/// The kind of an array's examples.
#[derive(PartialEq)]
enum Example {
    Image { height: usize, width: usize },
    Features(usize),
}

impl Example {
    /// The examples of an x of this form; `None` for a form that is refused.
    fn of_form(form: &Form) -> Option<Example> {
        let (examples, example) = form.shape.split_first()?;
        let values = form.row();
        if !(1..=u32::MAX as usize).contains(examples) || values == 0 {
            return None;
        }
        match (form.element.kind, form.element.width, example) {
            (b'u', 1, &[height, width]) => {
                (height.max(width) <= MAX_SIDE).then_some(Example::Image { height, width })
            }
            (b'f', _, [_, ..]) => (values <= MAX_VALUES).then_some(Example::Features(values)),
            _ => None,
        }
    }

    fn of(split: &Split) -> Example {
        match &split.inputs {
            Inputs::Images(images) => Example::Image { height: images.height, width: images.width },
            Inputs::Features(frames) => Example::Features(frames.input_size()),
        }
    }

    /// The form of an array of such examples, in words.
    fn form(&self) -> String {
        match self {
            Example::Image { height, width } => {
                format!("descr '|u1', shape (n, {height}, {width}), as x_train")
            }
            Example::Features(values) => {
                format!("descr '<f4' or '<f8', shape (n, {values}), as x_train")
            }
        }
    }
}

/// An array whose header has been read; its values come next.
struct Array<'a> {
    path: PathBuf,
    reader: Box<dyn Read + 'a>,
    /// Number of bytes of the whole file, as its folder or archive has it.
    length: u64,
    /// The most bytes that the file can have, whatever its archive says.
    capacity: u64,
    header: String,
    /// The offset of the header.
    header_offset: usize,
    /// The offset of the values.
    offset: usize,
    /// `None` for a form that is not supported.
    form: Option<Form>,
}

fn open(path: &Path) -> Result<Array<'static>, Error> {
    let from_os = |cause| Error::from_os(path, KIND, cause);
    let file = File::open(path).map_err(from_os)?;
    let length = file.metadata().map_err(from_os)?.len();
    Array::read(path.to_path_buf(), Box::new(BufReader::new(file)), length, length)
}

impl<'a> Array<'a> {
    /// Reads and checks everything before the values: magic, version, size of the header, header.
    fn read(
        path: PathBuf,
        mut reader: Box<dyn Read + 'a>,
        length: u64,
        capacity: u64,
    ) -> Result<Self, Error> {
        let bad = |offset: usize, found: String, expected: String| Error::Content {
            path: path.clone(),
            offset: offset as u64,
            found,
            expected,
        };
        let mut take = |count: usize| -> Result<Vec<u8>, Error> {
            let mut bytes = Vec::with_capacity(count);
            let mut part = reader.by_ref().take(count as u64);
            part.read_to_end(&mut bytes).map_err(|cause| damaged(&path, KIND, cause))?;
            Ok(bytes)
        };
        let start = take(8)?;
        if start.len() < 8 || !start.starts_with(MAGIC) {
            let found = format!("bytes {start:02x?}");
            return Err(bad(0, found, format!("{KIND}, which starts with {MAGIC:02x?}")));
        }
        let size_bytes = match start[6] {
            1 => 2,
            2 | 3 => 4,
            version => return Err(bad(6, format!("version {version}"), "1, 2 or 3".to_owned())),
        };
        let size = take(size_bytes)?;
        let header_offset = 8 + size_bytes;
        if size.len() < size_bytes {
            return Err(bad(8, "the end of the file".to_owned(), "a header".to_owned()));
        }
        let size = LittleEndian::read_uint(&size, size_bytes) as usize;
        if size > MAX_HEADER {
            let expected = format!("at most {MAX_HEADER}");
            return Err(bad(8, format!("a header of {size} bytes"), expected));
        }
        let header = take(size)?;
        if header.len() < size {
            let found = format!("{} bytes of header", header.len());
            return Err(bad(header_offset, found, format!("{size}")));
        }
        let header = String::from_utf8_lossy(&header).trim().to_owned();
        let (offset, form) = (header_offset + size, Form::parse(&header));
        Ok(Array { path, reader, length, capacity, header, header_offset, offset, form })
    }

    /// The error of an array whose header is not as `expected`.
    fn unfit(&self, expected: String) -> Error {
        Error::Content {
            path: self.path.clone(),
            offset: self.header_offset as u64,
            found: self.header.clone(),
            expected: format!("{expected}, fortran_order False"),
        }
    }

    /// Reads all values. `value` makes each of its bytes; it returns `None` for a value that is not
    /// `expected`. The stream is read to its end, where an archive verifies its checksum.
    fn values<T>(
        mut self,
        expected: &str,
        value: impl Fn(Element, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let Some(form) = &self.form else { return Err(self.unfit("numbers".to_owned())) };
        let (element, count, row) = (form.element, form.count(), form.row());
        let (path, width) = (&self.path, element.width);
        let size = count.saturating_mul(width).saturating_add(self.offset) as u64;
        let truncated = |found| Error::Truncated { path: path.clone(), found, expected: size };
        let trailing = || Error::Trailing { path: path.clone(), expected: size };
        match self.length.cmp(&size) {
            Ordering::Less => return Err(truncated(self.length)),
            Ordering::Greater => return Err(trailing()),
            Ordering::Equal => {}
        }
        let mut values = Vec::new();
        let room = usize::try_from(self.capacity).map_or(count, |most| count.min(most / width));
        let refused = |e: TryReserveError| Error::from_os(path, KIND, e.into());
        values.try_reserve_exact(room).map_err(refused)?;
        let mut word = [0; 8];
        for i in 0..count {
            let offset = (self.offset + i * width) as u64;
            self.reader.read_exact(&mut word[..width]).map_err(|cause| match cause.kind() {
                ErrorKind::UnexpectedEof => truncated(offset),
                _ => damaged(path, KIND, cause),
            })?;
            let other = || Error::Content {
                path: path.clone(),
                offset,
                found: format!("{} in row {}, column {}", element.value(&word), i / row, i % row),
                expected: expected.to_owned(),
            };
            values.push(value(element, &word).ok_or_else(other)?);
        }
        match self.reader.read(&mut word[..1]).map_err(|cause| damaged(path, KIND, cause))? {
            0 => Ok(values),
            _ => Err(trailing()),
        }
    }

    fn floats(self) -> Result<Vec<f32>, Error> {
        self.values("a finite 32-bit number", |element, word| {
            Some(element.value(word) as f32).filter(|value| value.is_finite())
        })
    }
}

/// Makes the error of an archive: it is damaged, or the operating system refuses to read it.
fn damaged(path: &Path, kind: &'static str, cause: io::Error) -> Error {
    match cause.kind() {
        ErrorKind::InvalidData
        | ErrorKind::InvalidInput
        | ErrorKind::Unsupported
        | ErrorKind::UnexpectedEof => Error::Archive {
            path: path.to_path_buf(),
            found: cause.to_string(),
            expected: kind.to_owned(),
        },
        _ => Error::from_os(path, kind, cause),
    }
}

/// The archive or the folder that holds the arrays of a data set.
struct Arrays<'p> {
    path: &'p Path,
    /// `None` for a folder.
    archive: Option<ZipArchive<BufReader<File>>>,
    /// Number of bytes of the archive.
    length: u64,
    /// SHA-256 of each file that was read.
    sha256: BTreeMap<String, String>,
}

impl<'p> Arrays<'p> {
    fn open(path: &'p Path) -> Result<Self, Error> {
        let from_os = |cause| Error::from_os(path, ARCHIVE, cause);
        let mut arrays = Arrays { path, archive: None, length: 0, sha256: BTreeMap::new() };
        if path.is_dir() {
            return Ok(arrays);
        }
        let file = File::open(path).map_err(from_os)?;
        arrays.length = file.metadata().map_err(from_os)?.len();
        let opened = ZipArchive::new(BufReader::new(file));
        arrays.archive = Some(opened.map_err(|e| damaged(path, ARCHIVE, e.into()))?);
        arrays.note_sha256(path)?;
        Ok(arrays)
    }

    fn note_sha256(&mut self, path: &Path) -> Result<(), Error> {
        let digest = sha256_of_file(path).map_err(|cause| Error::from_os(path, KIND, cause))?;
        self.sha256.insert(path.display().to_string(), digest);
        Ok(())
    }

    fn contains(&self, name: &str) -> bool {
        match &self.archive {
            None => self.path.join(name).exists(),
            Some(archive) => archive.index_for_name(name).is_some(),
        }
    }

    /// Opens the array in the file `name`.
    fn array(&mut self, name: &str) -> Result<Array<'_>, Error> {
        let path = self.path.join(name);
        if self.archive.is_none() {
            self.note_sha256(&path)?;
        }
        let Some(archive) = &mut self.archive else { return open(&path) };
        let Some(index) = archive.index_for_name(name) else {
            let names: Vec<_> = archive.file_names().filter_map(Result::ok).collect();
            return Err(Error::Archive {
                path: self.path.to_path_buf(),
                found: format!("[{}]", names.join(", ")),
                expected: name.to_owned(),
            });
        };
        let member = archive.by_index(index).map_err(|e| damaged(&path, KIND, e.into()))?;
        let (length, packed) = (member.size(), member.compressed_size().min(self.length));
        let capacity = packed.saturating_mul(MAX_EXPANSION);
        Array::read(path, Box::new(BufReader::new(member)), length, capacity)
    }

    /// Reads x_`part`, whose examples must be like those of `like`, and y_`part`, which must be there
    /// if `labelled`.
    fn split(
        &mut self,
        part: &str,
        classes: usize,
        labelled: bool,
        like: Option<&Split>,
    ) -> Result<Split, Error> {
        let [x, y] = ["x", "y"].map(|name| format!("{name}_{part}.npy"));
        let like = like.map(Example::of);
        let array = self.array(&x)?;
        let example = array.form.as_ref().and_then(Example::of_form);
        let split = match example.filter(|found| like.as_ref().is_none_or(|like| found == like)) {
            Some(Example::Image { height, width }) => {
                let pixels = array.values("a pixel", |_, word| Some(word[0]))?;
                Split::of_images(pixels, (height, width), None)
            }
            Some(Example::Features(values)) => Split::of_features(array.floats()?, values, None),
            None => {
                return Err(array.unfit(like.map_or_else(
                    || {
                        "at least one example: images with descr '|u1', shape (n, height, width), \
                         or features with descr '<f4' or '<f8', shape (n, values)"
                            .to_owned()
                    },
                    |like| like.form(),
                )));
            }
        };
        if !labelled && !self.contains(&y) {
            return Ok(split);
        }
        let array = self.array(&y)?;
        let is_column = |form: &Form| !form.element.is_float() && form.shape[..] == [split.len()];
        if !array.form.as_ref().is_some_and(is_column) {
            return Err(array.unfit(format!(
                "integers, descr '|u1' to '<i8', shape ({},): the label of each row of {x}",
                split.len()
            )));
        }
        let expected = format!("a label from 0 to {}", classes - 1);
        let labels = array.values(&expected, |element, word| {
            let label = element.value(word);
            (0.0..classes as f64).contains(&label).then_some(label as u16)
        })?;
        Ok(Split { labels: Some(labels), ..split })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use tempfile::TempDir;

    const F4: &str = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";

    /// A version-1 file, padded as `numpy.save` does so that the values start at 128.
    fn npy(header: &str, values: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        bytes.extend(format!("{header:<117}\n").into_bytes());
        assert_eq!(bytes.len(), 128);
        bytes.extend(values);
        bytes
    }

    fn le(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn written(bytes: &[u8]) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.npy");
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn read(bytes: &[u8], rows: usize, classes: usize) -> Result<Vec<f32>, Error> {
        let (_dir, path) = written(bytes);
        read_logits(&path, rows, classes)
    }

    /// The message must name the file and hold every one of `parts`.
    #[track_caller]
    fn refused(bytes: &[u8], parts: &[&str]) {
        let error = read(bytes, 2, 3).unwrap_err();
        assert!(!error.is_io(), "{error}");
        let message = error.to_string();
        for part in parts.iter().chain(&["t.npy"]) {
            assert!(message.contains(part), "{part:?} not in: {message}");
        }
    }

    #[test]
    fn both_widths_and_all_versions_come_back_row_major() {
        let values = [1.0, -2.5, 3.0, 0.0, 1e-30, f32::MAX];
        assert_eq!(read(&npy(F4, &le(&values)), 2, 3).unwrap(), values);

        assert_eq!(of_logits(&values, 3), npy(F4, &le(&values)));

        let doubles: Vec<u8> =
            values.iter().flat_map(|&v| (f64::from(v) * (1.0 + 1e-12)).to_le_bytes()).collect();
        let wide = npy(&F4.replace("f4", "f8"), &doubles);
        assert_eq!(read(&wide, 2, 3).unwrap(), values, "rounded to the nearest f32");

        for version in [2, 3] {
            let mut bytes = b"\x93NUMPY".to_vec();
            bytes.extend([version, 0]);
            bytes.extend((F4.len() as u32).to_le_bytes());
            bytes.extend(F4.as_bytes());
            bytes.extend(le(&values));
            assert_eq!(read(&bytes, 2, 3).unwrap(), values);
        }
        // Other writers choose another order of keys and other blanks.
        let header = "{'shape':(2,3),'fortran_order':False,'descr':'<f4'}";
        assert_eq!(read(&npy(header, &le(&values)), 2, 3).unwrap(), values);
    }

    #[test]
    fn other_arrays_are_refused() {
        let values = le(&[0.0; 6]);
        for (from, to) in [
            ("(2, 3)", "(3, 2)"),
            ("(2, 3)", "(6,)"),
            ("(2, 3)", "()"),
            ("(2, 3)", "(2, 3, 1)"),
            ("(2, 3)", "(2, -3)"),
            ("(2, 3)", "(18446744073709551615, 18446744073709551615)"),
            ("(2, 3)", "((((((((((((((((2, 3"),
            ("False", "True"),
            ("<f4", ">f4"),
            ("<f4", "<i4"),
            ("<f4", "<f2"),
            ("'<f4'", "[('a', '<f4')]"),
            ("descr", "dtype"),
            ("}", ""),
        ] {
            let header = F4.replace(from, to);
            refused(&npy(&header, &values), &["offset 10", header.trim(), "shape (2, 3)"]);
        }
    }

    #[test]
    fn damaged_files_are_refused() {
        let good = npy(F4, &le(&[0.0; 6]));
        for length in 0..good.len() {
            assert!(read(&good[..length], 2, 3).is_err(), "{length} bytes");
        }
        refused(&good[..good.len() - 1], &["151", "152"]);
        refused(&[&good[..], &[0]].concat(), &["trailing", "152"]);
        refused(b"", &["offset 0", "[]"]);
        refused(b"PK\x03\x04 an npz archive", &["offset 0", "[50, 4b,"]);
        refused(b"\x93NUMPY\x09\x00", &["offset 6", "version 9"]);
        refused(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", &["offset 8", "4294967295", "10000"]);
        refused(b"\x93NUMPY\x01\x00\x10\x00{\xff", &["offset 10", "2 bytes", "16"]);
    }

    #[test]
    fn huge_expectations_do_not_overflow() {
        let header =
            "{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 2), }";
        let error = read(&npy(header, &[0; 64]), 1 << 62, 2).unwrap_err();
        assert!(matches!(error, Error::Truncated { found: 192, .. }), "{error}");
    }

    #[test]
    fn values_must_be_finite() {
        for (value, shown) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
            let bytes = npy(F4, &le(&[0.0, 0.0, 0.0, 0.0, value, 0.0]));
            refused(&bytes, &["offset 144", shown, "row 1, column 1"]);
        }
        let mut doubles = [0; 48];
        doubles[..8].copy_from_slice(&1e39f64.to_le_bytes());
        let bytes = npy(&F4.replace("f4", "f8"), &doubles);
        refused(&bytes, &["offset 128", "row 0, column 0", "finite 32-bit"]);
    }

    #[test]
    fn a_missing_file_is_an_io_error() {
        let (_dir, path) = written(b"");
        let error = read_logits(&path.with_extension("gone"), 1, 1).unwrap_err();
        assert!(error.is_io() && error.to_string().contains("t.gone"), "{error}");
        assert!(read_logits(path.parent().unwrap(), 1, 1).unwrap_err().is_io());
    }

    /// A small array with a header of `descr` and `shape`.
    fn array(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        npy(&header, values)
    }

    /// Two features an example; the labels are of several widths.
    fn features() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("x_train.npy", array("<f4", "(3, 2)", &le(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.5]))),
            ("y_train.npy", array("<i8", "(3,)", &[2i64, 0, 1].map(i64::to_le_bytes).concat())),
            (
                "x_test.npy",
                array("<f8", "(1, 2, 1)", &[0.5f64, -0.5].map(f64::to_le_bytes).concat()),
            ),
            ("y_test.npy", array("|u1", "(1,)", &[2])),
        ]
    }

    fn zipped(files: &[(&str, Vec<u8>)], method: zip::CompressionMethod) -> Vec<u8> {
        let mut archive = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        for (name, bytes) in files {
            archive.start_file(*name, options).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    fn load(files: &[(&str, Vec<u8>)], classes: usize, held_out: bool) -> Result<Dataset, Error> {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        let folder = load_dataset(dir.path(), classes, held_out);
        for method in [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated] {
            let path = dir.path().join("data.npz");
            std::fs::write(&path, zipped(files, method)).unwrap();
            match (load_dataset(&path, classes, held_out), &folder) {
                (Ok(archive), Ok(folder)) => {
                    assert_eq!((&archive.train, &archive.test), (&folder.train, &folder.test));
                    assert_eq!(archive.sha256.len(), 1);
                }
                (Err(archive), Err(_)) => assert!(archive.to_string().contains("data.npz")),
                _ => panic!("the folder and the archive differ"),
            }
        }
        folder
    }

    #[test]
    fn features_come_back_from_archives_and_folders() {
        let dataset = load(&features(), 3, false).unwrap();
        let [train, test] = [&dataset.train, &dataset.test];
        let expected =
            Split::of_features(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.5], 2, Some(vec![2, 0, 1]));
        assert_eq!(*train, expected);
        assert_eq!(*test, Split::of_features(vec![0.5, -0.5], 2, Some(vec![2])));
        assert_eq!(dataset.sha256.len(), 4, "every file of the folder has its digest");

        let unlabelled = [&features()[..1], &features()[2..]].concat();
        assert_eq!(load(&unlabelled, 3, false).unwrap().train.labels, None);
        let held_out = load(&features()[..2], 3, true).unwrap();
        assert_eq!((held_out.train, held_out.test.len()), (expected, 0));
    }

    #[test]
    fn images_keep_their_sides() {
        let images = [
            ("x_train.npy", array("|u1", "(2, 1, 3)", &[1, 2, 3, 4, 5, 255])),
            ("y_train.npy", array("<u2", "(2,)", &[1, 0, 0, 0])),
            ("x_test.npy", array("|u1", "(1, 1, 3)", &[7, 8, 9])),
            ("y_test.npy", array("|i1", "(1,)", &[0])),
        ];
        let dataset = load(&images, 2, false).unwrap();
        let expected = Split::of_images(vec![1, 2, 3, 4, 5, 255], (1, 3), Some(vec![1, 0]));
        assert_eq!(dataset.train, expected);
        assert_eq!(dataset.test.images().pixels, [7, 8, 9]);
    }

    #[test]
    fn arrays_that_do_not_fit_are_refused_by_name() {
        let one = 1f32.to_le_bytes();
        type Case<'a> = (usize, Option<Vec<u8>>, &'a [&'a str]);
        let cases: [Case; 13] = [
            (0, None, &["x_train.npy"]),
            (3, None, &["y_test.npy"]),
            (0, Some(array("<f4", "(1,)", &one)), &["x_train.npy", "(1,)", "(n, values)"]),
            (0, Some(array("<f4", "(0, 2)", &[])), &["x_train.npy", "at least one example"]),
            (0, Some(array("|u1", "(3, 2)", &[0; 6])), &["x_train.npy", "(n, height, width)"]),
            (0, Some(array("<i4", "(3, 2)", &[0; 24])), &["x_train.npy", "'<i4'"]),
            (1, Some(array("<f4", "(3,)", &[0; 12])), &["y_train.npy", "integers", "(3,)"]),
            (
                1,
                Some(array("|u1", "(2,)", &[0; 2])),
                &["y_train.npy", "(2,)", "each row of x_train"],
            ),
            (
                1,
                Some(array("|u1", "(3,)", &[0, 3, 0])),
                &["y_train.npy", "3 in row 1", "offset 129", "0 to 2"],
            ),
            (1, Some(array("|i1", "(3,)", &[0, 0, 255])), &["y_train.npy", "-1 in row 2"]),
            (2, Some(array("<f4", "(1, 3)", &[0; 12])), &["x_test.npy", "(n, 2), as x_train"]),
            (
                2,
                Some(array("<f4", "(1, 2)", &le(&[0.0, f32::NAN]))),
                &["x_test.npy", "NaN", "column 1"],
            ),
            (2, Some(array("<f4", "(9, 2)", &[0; 8])), &["x_test.npy", "truncated", "136", "200"]),
        ];
        for (changed, bytes, parts) in cases {
            let mut files = features();
            match bytes {
                Some(bytes) => files[changed].1 = bytes,
                None => drop(files.remove(changed)),
            }
            let message = load(&files, 3, false).unwrap_err().to_string();
            for part in parts {
                assert!(message.contains(part), "{part:?} not in: {message}");
            }
        }
    }

    #[test]
    fn damaged_archives_are_refused() {
        let good = zipped(&features(), zip::CompressionMethod::Deflated);
        let load = |bytes: &[u8]| {
            let (_dir, path) = written(bytes);
            load_dataset(&path, 3, false)
        };
        load(&good).unwrap();
        for length in 0..good.len() {
            let error = load(&good[..length]).unwrap_err();
            assert!(!error.is_io() && error.to_string().contains("t.npy"), "{length}: {error}");
        }
        let stored = zipped(&features(), zip::CompressionMethod::Stored);
        let at = stored.windows(4).position(|bytes| bytes == 6.5f32.to_le_bytes()).unwrap();
        let mut flipped = stored;
        flipped[at] ^= 1;
        let message = load(&flipped).unwrap_err().to_string();
        assert!(message.contains("x_train.npy") && message.contains("checksum"), "{message}");

        let without = zipped(&features()[1..], zip::CompressionMethod::Stored);
        let message = load(&without).unwrap_err().to_string();
        assert!(message.contains("[y_train.npy, x_test.npy, y_test.npy]"), "{message}");
        let (_dir, path) = written(b"");
        assert!(load_dataset(&path.with_extension("gone"), 3, false).unwrap_err().is_io());
    }
}
