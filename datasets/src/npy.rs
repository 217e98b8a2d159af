//! NumPy's `.npy` files, and `.npz` archives of them: teacher logits and the user's own data.
//!
//! The header is parsed here because existing crates trust it: they allocate what it announces and
//! overflow on huge shapes. Of the format (`numpy.lib.format`, versions 1 to 3) arrays of numbers are
//! accepted: bool, integers, and floating point of 16, 32 and 64 bits, of either byte order, in C or
//! Fortran order. Python objects, texts and records are not.

use crate::digest::{Hashed, hex, sha256_of_reader};
use crate::foreign::{START, Wanted};
use crate::{Dataset, Error, Inputs, Split};
use byteorder::{ByteOrder, LittleEndian};
use sha2::{Digest, Sha256};
use std::cmp::Ordering;
use std::collections::{BTreeMap, TryReserveError};
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};
use zip::ZipArchive;
use zip::read::ZipFile;

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
/// are rounded to f32, f16 values are exact. It needs memory for the logits, twice if they lie in
/// Fortran order, and 64 KiB. A file is read once, so that it may be a pipe.
///
/// # Errors
/// Missing or unreadable, not a `.npy` file, another type or shape, truncated, trailing bytes, or a
/// value that is not finite as f32. Nothing is allocated for the values before the file's length is
/// known to hold them.
pub fn read_logits(path: &Path, rows: usize, classes: usize) -> Result<Vec<f32>, Error> {
    let array = open(path)?;
    if array.logits(classes) == Some(rows) {
        return array.floats();
    }
    Err(array.unfit(format!(
        "floating point, shape ({rows}, {classes}): one row of {classes} logits for each of the \
         {rows} examples"
    )))
}

/// Reads logits as [`read_logits`] does, of as many rows as the file has: [rows, classes].
///
/// # Errors
/// As [`read_logits`], with any number of rows from 1 on.
pub fn read_all_logits(path: &Path, classes: usize) -> Result<Vec<f32>, Error> {
    let array = open(path)?;
    if array.logits(classes).is_some_and(|rows| rows > 0) {
        return array.floats();
    }
    Err(array.unfit(format!(
        "floating point, shape (n, {classes}): one row of {classes} logits for each example"
    )))
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
/// - x is images: u8 of shape (n, height, width), also with an axis of one channel; or features:
///   floating point or bool of shape (n, …), which are flattened, or wider integers of shape
///   (n, values), all of which are not scaled. What is neither could be meant as pixels or as
///   numbers, and is refused with both ways to say so.
/// - y is labels: whole numbers below `classes`, of any type, of shape (n,) or (n, 1). Without
///   y_train the training split is an unlabelled transfer set.
///
/// If a part of the training split will be `held_out`, the test arrays are not read and the test
/// split is empty. It needs memory for the values, twice for an array in Fortran order, for features
/// 12 bytes more for each example, and 64 KiB. The files of a folder are read once, so that they may
/// be pipes; an archive, whose directory is at its end, may not.
///
/// # Errors
/// Missing or unreadable, no such archive, an array that is missing or damaged, another type or
/// shape, arrays that do not fit each other, a value that is not finite as f32, or a label that is
/// no class.
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
pub(crate) struct Element {
    /// `b` for bool, `u` and `i` for integers, `f` for floating point.
    pub(crate) kind: u8,
    /// Number of bytes of a value.
    pub(crate) width: usize,
    big_endian: bool,
}

impl Element {
    /// Parses a `descr` such as `'<f4'`, `'>i8'` or `'|u1'`.
    fn parse(descr: &str) -> Option<Element> {
        let [b'\'', order, kind, width, b'\'', ..] = *descr.as_bytes() else { return None };
        let width = usize::from(width.wrapping_sub(b'0'));
        let known = match kind {
            b'b' => width == 1,
            b'u' | b'i' => [1, 2, 4, 8].contains(&width),
            b'f' => [2, 4, 8].contains(&width),
            _ => false,
        };
        let ordered = matches!(order, b'<' | b'>') || order == b'|' && width == 1;
        (known && ordered).then_some(Element { kind, width, big_endian: order == b'>' })
    }

    /// The value of `word`, exactly but for integers beyond 2⁵³.
    pub(crate) fn value(self, word: &[u8]) -> f64 {
        let mut bytes = [0; 8];
        let bytes = &mut bytes[..self.width];
        bytes.copy_from_slice(&word[..self.width]);
        if self.big_endian {
            bytes.reverse();
        }
        match (self.kind, self.width) {
            (b'f', 2) => half(LittleEndian::read_u16(bytes)),
            (b'f', 4) => f64::from(LittleEndian::read_f32(bytes)),
            (b'f', _) => LittleEndian::read_f64(bytes),
            (b'i', width) => LittleEndian::read_int(bytes, width) as f64,
            (_, width) => LittleEndian::read_uint(bytes, width) as f64,
        }
    }

    /// The value as a 32-bit number; `None` for one that is not finite and for a bool that is
    /// neither 0 nor 1.
    fn finite(self, word: &[u8]) -> Option<f32> {
        let value = self.value(word) as f32;
        (value.is_finite() && (self.kind != b'b' || value <= 1.0)).then_some(value)
    }
}

/// The value of IEEE 754's binary16: sign, 5 bits e of exponent, 10 bits m of mantissa. It is
/// ±(1 + m/2¹⁰)·2^(e−15), for e = 0 the subnormal ±m·2⁻²⁴, and for e = 31 infinite or not a number.
#[must_use]
pub fn half(bits: u16) -> f64 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let magnitude = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + mantissa) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 0 { magnitude } else { -magnitude }
}

/// The type and the shape of an array, as its header has them.
pub(crate) struct Form {
    pub(crate) element: Element,
    /// No side for a single value.
    pub(crate) shape: Vec<usize>,
    /// Whether the first index runs fastest, instead of the last.
    fortran_order: bool,
}

impl Form {
    /// Parses a Python dictionary such as
    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (60000, 10), }`.
    fn parse(header: &str) -> Option<Form> {
        let header: String = header.split_whitespace().collect();
        let fields = header.strip_prefix('{')?.strip_suffix('}')?;
        let value = |key: &str| Some(fields.split_once(&format!("'{key}':"))?.1);
        let order = value("fortran_order")?;
        let fortran_order = order.starts_with("True");
        if !fortran_order && !order.starts_with("False") {
            return None;
        }
        let (sides, _) = value("shape")?.strip_prefix('(')?.split_once(')')?;
        let sides = sides.split_terminator(',');
        // Python 2 wrote a long as `60000L`.
        let sides = sides.map(|side| side.strip_suffix('L').unwrap_or(side).parse().ok());
        Some(Form {
            element: Element::parse(value("descr")?)?,
            shape: sides.collect::<Option<_>>()?,
            fortran_order,
        })
    }

    /// Number of values of a row. The first side counts the rows.
    fn row(&self) -> usize {
        self.shape.iter().skip(1).fold(1, |size, &side| size.saturating_mul(side))
    }

    fn count(&self) -> usize {
        self.shape.first().map_or(1, |rows| rows.saturating_mul(self.row()))
    }

    /// The place in C order, where the last index runs fastest, of the file's value number `i`.
    fn place(&self, i: usize) -> usize {
        if !self.fortran_order {
            return i;
        }
        // The file's number gives up its indices from the first on; in C order they are the digits
        // from the highest on.
        let digit = |(place, rest), &side| (place * side + rest % side, rest / side);
        self.shape.iter().fold((0, i), digit).0
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
        let features = || (values <= MAX_VALUES).then_some(Example::Features(values));
        match (form.element.kind, form.element.width, example) {
            (b'u', 1, &([height, width] | [1, height, width] | [height, width, 1])) => {
                (height.max(width) <= MAX_SIDE).then_some(Example::Image { height, width })
            }
            (b'u', 1, _) => None,
            (b'f' | b'b', _, [_, ..]) | (_, _, [_]) => features(),
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
                format!("images, descr '|u1', shape (n, {height}, {width}), as x_train")
            }
            Example::Features(values) => {
                format!("features, floating point, shape (n, {values}), as x_train")
            }
        }
    }

    /// The forms of x, and what to do about an integer array of another.
    fn forms(found: Option<&Form>) -> String {
        let advice = match found {
            Some(Form { element: Element { kind: b'u' | b'i', width, .. }, shape, .. })
                if shape.len() > 1 =>
            {
                match width {
                    1 => {
                        "; integers of another shape can be pixels, (x / 255).astype(\"float32\"), \
                         or other numbers, x.astype(\"float32\")"
                    }
                    _ => {
                        "; integers of another shape can be images, x.astype(\"uint8\"), or other \
                         numbers, x.astype(\"float32\")"
                    }
                }
            }
            _ => "",
        };
        format!(
            "at least one example: images, uint8 of shape (n, height, width), or features, floating \
             point of shape (n, values), at most {MAX_VALUES}{advice}"
        )
    }
}

/// An array whose header has been read; its values come next.
pub(crate) struct Array<'a> {
    path: PathBuf,
    pub(crate) reader: Box<dyn Read + 'a>,
    /// Number of bytes of the whole file, as its folder or archive has it; `None` for a pipe.
    length: Option<u64>,
    /// The most bytes for which room is made before they are read.
    capacity: u64,
    header: String,
    /// The offset of the header.
    header_offset: usize,
    /// The offset of the values.
    offset: usize,
    /// `None` for a form that is not supported.
    pub(crate) form: Option<Form>,
}

fn open(path: &Path) -> Result<Array<'static>, Error> {
    let (file, length) = open_file(path)?;
    Array::read(path.to_path_buf(), Box::new(BufReader::new(file)), length, length.unwrap_or(0))
}

/// Opens the file and tells its length, which a pipe does not have.
fn open_file(path: &Path) -> Result<(File, Option<u64>), Error> {
    let from_os = |cause| Error::from_os(path, KIND, cause);
    let file = File::open(path).map_err(from_os)?;
    let about = file.metadata().map_err(from_os)?;
    let length = (about.is_file() || about.is_dir()).then_some(about.len());
    Ok((file, length))
}

impl<'a> Array<'a> {
    /// The array in a file of an archive of `packed` bytes.
    pub(crate) fn of_member<R: Read>(
        path: PathBuf,
        member: ZipFile<'a, R>,
        packed: u64,
    ) -> Result<Self, Error> {
        let (length, packed) = (member.size(), member.compressed_size().min(packed));
        let capacity = packed.saturating_mul(MAX_EXPANSION);
        Array::read(path, Box::new(BufReader::new(member)), Some(length), capacity)
    }

    /// Reads and checks everything before the values: magic, version, size of the header, header.
    fn read(
        path: PathBuf,
        mut reader: Box<dyn Read + 'a>,
        length: Option<u64>,
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
            // What cannot be read does not matter: the file is refused anyway.
            let more = take(START - start.len()).unwrap_or_default();
            Error::if_foreign(&[&start[..], &more].concat(), &path, Wanted::Array, KIND)?;
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
    pub(crate) fn unfit(&self, expected: String) -> Error {
        Error::Content {
            path: self.path.clone(),
            offset: self.header_offset as u64,
            found: self.header.clone(),
            expected: expected + self.advice(),
        }
    }

    /// The header from its type on, without the quote before it.
    pub(crate) fn descr(&self) -> &str {
        let descr = self.header.split_once("'descr':").map_or("", |(_, rest)| rest);
        descr.trim_start().trim_start_matches('\'')
    }

    /// What to do about a type that no form has.
    fn advice(&self) -> &'static str {
        let descr = self.descr().trim_start_matches(['<', '>', '|']);
        let types = |letters: &[char]| descr.starts_with(letters);
        match self.form {
            None if types(&['O']) => {
                "; these are Python objects: make numbers of them, x.astype(\"float32\")"
            }
            None if types(&['U', 'S']) => {
                "; these are texts: give each a number, np.unique(y, return_inverse=True)[1]"
            }
            None if types(&['[']) => {
                "; these are records: make one matrix of them, in pandas with to_numpy(\"float32\")"
            }
            None if types(&['f', 'V']) => "; of another floating point: x.astype(\"float32\")",
            _ => "",
        }
    }

    /// The number of rows of a matrix of floating-point logits of `classes` columns; `None` for
    /// another array.
    fn logits(&self, classes: usize) -> Option<usize> {
        match self.form.as_ref()? {
            Form { element: Element { kind: b'f', .. }, shape, .. } => match shape[..] {
                [rows, columns] if columns == classes => Some(rows),
                _ => None,
            },
            _ => None,
        }
    }

    /// Reads all values, in C order. `value` makes each of its bytes; it returns `None` for a value
    /// that is not `expected`. The stream is read to its end, where an archive verifies its checksum.
    pub(crate) fn values<T: Copy>(
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
        match self.length.map(|length| (length, length.cmp(&size))) {
            Some((length, Ordering::Less)) => return Err(truncated(length)),
            Some((_, Ordering::Greater)) => return Err(trailing()),
            Some((_, Ordering::Equal)) | None => {}
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
            let other = || {
                let (value, place) = (element.value(&word), form.place(i));
                Error::Content {
                    path: path.clone(),
                    offset,
                    found: format!("{value} in row {}, column {}", place / row, place % row),
                    expected: expected.to_owned(),
                }
            };
            values.push(value(element, &word).ok_or_else(other)?);
        }
        match self.reader.read(&mut word[..1]).map_err(|cause| damaged(path, KIND, cause))? {
            0 => {}
            _ => return Err(trailing()),
        }
        if !form.fortran_order {
            return Ok(values);
        }
        let mut ordered = Vec::new();
        ordered.try_reserve_exact(count).map_err(refused)?;
        ordered.extend_from_slice(&values);
        for (i, &value) in values.iter().enumerate() {
            ordered[form.place(i)] = value;
        }
        Ok(ordered)
    }

    fn floats(self) -> Result<Vec<f32>, Error> {
        self.values("a finite 32-bit number", Element::finite)
    }
}

/// Makes the error of an archive: it is damaged, or the operating system refuses to read it.
pub(crate) fn damaged(path: &Path, kind: &'static str, cause: io::Error) -> Error {
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
    /// Of the file of a folder that is being read.
    hasher: Sha256,
    /// SHA-256 of each file that was read.
    sha256: BTreeMap<String, String>,
}

impl<'p> Arrays<'p> {
    fn open(path: &'p Path) -> Result<Self, Error> {
        let from_os = |cause| Error::from_os(path, ARCHIVE, cause);
        let hasher = Sha256::new();
        let mut arrays = Arrays { path, archive: None, length: 0, hasher, sha256: BTreeMap::new() };
        let about = path.metadata().map_err(from_os)?;
        if about.is_dir() {
            return Ok(arrays);
        }
        if !about.is_file() {
            return Err(Error::Archive {
                path: path.to_path_buf(),
                found: "a pipe or a device".to_owned(),
                expected: "a regular file: the directory of an archive is at its end".to_owned(),
            });
        }
        let mut file = File::open(path).map_err(from_os)?;
        arrays.length = about.len();
        let mut start = Vec::new();
        file.by_ref().take(START as u64).read_to_end(&mut start).map_err(from_os)?;
        let refuse_foreign = || Error::if_foreign(&start, path, Wanted::Archive, ARCHIVE);
        if !start.starts_with(b"PK") {
            refuse_foreign()?;
        }
        file.rewind().map_err(from_os)?;
        let digest = sha256_of_reader(&mut file).map_err(from_os)?;
        arrays.sha256.insert(path.display().to_string(), digest);
        let archive = ZipArchive::new(BufReader::new(file));
        let archive = archive.map_err(|e| damaged(path, ARCHIVE, e.into()))?;
        if !archive.file_names().flatten().any(|name| name.ends_with(".npy")) {
            refuse_foreign()?;
        }
        arrays.archive = Some(archive);
        Ok(arrays)
    }

    /// Enters the digest of the file `name` of a folder, which has been read.
    fn note_sha256(&mut self, name: &str) {
        if self.archive.is_none() {
            let digest = hex(std::mem::take(&mut self.hasher));
            self.sha256.insert(self.path.join(name).display().to_string(), digest);
        }
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
        let Some(archive) = &mut self.archive else {
            let (file, length) = open_file(&path)?;
            let hashed = Hashed { reader: file, hasher: &mut self.hasher };
            let reader = Box::new(BufReader::new(hashed));
            return Array::read(path, reader, length, length.unwrap_or(0));
        };
        let Some(index) = archive.index_for_name(name) else {
            let names: Vec<_> = archive.file_names().filter_map(Result::ok).collect();
            return Err(Error::Archive {
                path: self.path.to_path_buf(),
                found: format!("[{}]", names.join(", ")),
                expected: format!(
                    "{name}; name the arrays: numpy.savez(…, x_train=…, y_train=…, x_test=…, y_test=…)"
                ),
            });
        };
        let member = archive.by_index(index).map_err(|e| damaged(&path, KIND, e.into()))?;
        Array::of_member(path, member, self.length)
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
                let forms = || Example::forms(array.form.as_ref());
                return Err(array.unfit(like.map_or_else(forms, |like| like.form())));
            }
        };
        self.note_sha256(&x);
        if !labelled && !self.contains(&y) {
            return Ok(split);
        }
        let array = self.array(&y)?;
        let n = split.len();
        let shape = array.form.as_ref().map_or(&[][..], |form| &form.shape);
        if shape != [n] && shape != [n, 1] {
            let advice = match shape {
                [rows, _] if *rows == n => "; of rows with one 1 each: y.argmax(axis=1)",
                _ => "",
            };
            return Err(array.unfit(format!(
                "whole numbers, shape ({n},) or ({n}, 1): the label of each row of {x}{advice}"
            )));
        }
        let expected = format!("a whole number from 0 to {}", classes - 1);
        let labels = array.values(&expected, |element, word| {
            let label = element.value(word);
            let is_class = label.fract() == 0.0 && (0.0..classes as f64).contains(&label);
            is_class.then_some(label as u16)
        })?;
        self.note_sha256(&y);
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
            ("False", "None"),
            ("<f4", "=f4"),
            ("<f4", "|f4"),
            ("<f4", "<i4"),
            ("<f4", "<f3"),
            ("<f4", "<c8"),
            ("<f4", "|b1"),
            ("'<f4'", "[('a', '<f4')]"),
            ("descr", "dtype"),
            ("}", ""),
        ] {
            let header = F4.replace(from, to);
            refused(&npy(&header, &values), &["offset 10", header.trim(), "shape (2, 3)"]);
        }
        for (descr, advice) in [
            ("|O", "Python objects: make numbers of them, x.astype(\"float32\")"),
            ("<U5", "np.unique(y, return_inverse=True)[1]"),
            ("<f16", "x.astype(\"float32\")"),
            ("<V2", "x.astype(\"float32\")"),
        ] {
            refused(&npy(&F4.replace("<f4", descr), &values), &[descr, advice]);
        }
        let records = F4.replace("'<f4'", "[('a', '<f4'), ('b', '<i8')]");
        refused(&npy(&records, &values), &["these are records", "to_numpy(\"float32\")"]);
    }

    /// The value of a binary16 as a sum of powers of two, one for each bit.
    fn sum_of_bits(bits: u16) -> f64 {
        let power = |bit: u16, exponent: i32| f64::from(bits >> bit & 1) * 2f64.powi(exponent);
        let exponent: i32 = (0..5).map(|bit| i32::from(bits >> (10 + bit) & 1) << bit).sum();
        let (first, scale) = if exponent == 0 { (0.0, -14) } else { (1.0, exponent - 15) };
        let fraction: f64 = (0..10).map(|bit| power(bit, i32::from(bit) - 10)).sum();
        let sign = 1.0 - 2.0 * power(15, 0);
        sign * (first + fraction) * 2f64.powi(scale)
    }

    #[test]
    fn every_half_has_its_value() {
        // IEEE 754's examples: 1, the largest, the smallest normal, the smallest, minus 2, a third.
        let known = [
            (0x3c00, 1.0),
            (0x7bff, 65_504.0),
            (0x0400, 6.103_515_625e-5),
            (0x0001, 5.960_464_477_539_063e-8),
            (0xc000, -2.0),
            (0x3555, 0.333_251_953_125),
        ];
        for (bits, value) in known {
            assert_eq!(half(bits), value);
        }
        for bits in 0..=u16::MAX {
            match (bits >> 10 & 31, bits & 1023) {
                (31, 0) => {
                    assert_eq!(half(bits), [f64::INFINITY, -f64::INFINITY][usize::from(bits >> 15)])
                }
                (31, _) => assert!(half(bits).is_nan()),
                _ => assert_eq!(half(bits).to_bits(), sum_of_bits(bits).to_bits(), "{bits:04x}"),
            }
        }
    }

    #[test]
    fn halves_and_big_endian_numbers_are_read_exactly() {
        let values = [1.0, -2.0, 0.333_251_95, 65_504.0, 5.960_464_5e-8, 0.0];
        let halves = [0x3c00u16, 0xc000, 0x3555, 0x7bff, 0x0001, 0x0000];
        let little = npy(&F4.replace("f4", "f2"), &halves.map(u16::to_le_bytes).concat());
        let big = npy(&F4.replace("<f4", ">f2"), &halves.map(u16::to_be_bytes).concat());
        assert_eq!(read(&little, 2, 3).unwrap(), values);
        assert_eq!(read(&big, 2, 3).unwrap(), values);
        let singles = npy(&F4.replace('<', ">"), &values.map(f32::to_be_bytes).concat());
        assert_eq!(read(&singles, 2, 3).unwrap(), values);
        let doubles = values.map(|value| f64::from(value).to_be_bytes()).concat();
        assert_eq!(read(&npy(&F4.replace("<f4", ">f8"), &doubles), 2, 3).unwrap(), values);
        // A half of a mixed-precision teacher that overflowed.
        let overflow = npy(&F4.replace("f4", "f2"), &[&[0; 8][..], &[0, 0x7c, 0, 0]].concat());
        refused(&overflow, &["offset 136", "inf in row 1, column 1"]);
    }

    #[test]
    fn fortran_order_is_transposed() {
        // As numpy.save writes [[1, 2, 3], [4, 5, 6]] of order F.
        let header = F4.replace("False", "True");
        let columns = npy(&header, &le(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
        assert_eq!(read(&columns, 2, 3).unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let broken = npy(&header, &le(&[1.0, 4.0, 2.0, f32::NAN, 3.0, 6.0]));
        refused(&broken, &["offset 140", "NaN in row 1, column 1"]);
        // Three axes: the value at [i, j, k] is 100·i + 10·j + k, and the file runs over i first.
        let value = |i: u8, j: u8, k: u8| 100 * i + 10 * j + k;
        let pixels =
            (0..4u8).flat_map(|k| (0..3).flat_map(move |j| (0..2).map(move |i| value(i, j, k))));
        let header = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3, 4), }";
        let images = [("x_train.npy", npy(header, &pixels.collect::<Vec<_>>()))];
        let expected: Vec<u8> = (0..2)
            .flat_map(|i| (0..3).flat_map(move |j| (0..4).map(move |k| value(i, j, k))))
            .collect();
        let labels = ("y_train.npy", array("|u1", "(2,)", &[0, 1]));
        let train = load(&[&images[..], &[labels]].concat(), 3, true).unwrap().train;
        assert_eq!(train, Split::of_images(expected, (3, 4), Some(vec![0, 1])));
    }

    #[test]
    fn all_rows_of_logits_are_read_whatever_their_number() {
        let (_dir, path) = written(&npy(F4, &le(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])));
        assert_eq!(read_all_logits(&path, 3).unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let message = read_all_logits(&path, 2).unwrap_err().to_string();
        assert!(message.contains("(2, 3)") && message.contains("shape (n, 2)"), "{message}");
        let (_dir, path) = written(&npy(&F4.replace("(2, 3)", "(0, 3)"), &[]));
        assert!(!read_all_logits(&path, 3).unwrap_err().is_io());
    }

    #[cfg(unix)]
    #[test]
    fn arrays_may_be_pipes_and_archives_may_not() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in features() {
            let pipe = dir.path().join(name);
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            std::thread::spawn(move || std::fs::write(pipe, bytes).unwrap());
        }
        let piped = load_dataset(dir.path(), 3, false).unwrap();
        let filed = load(&features(), 3, false).unwrap();
        assert_eq!((&piped.train, &piped.test), (&filed.train, &filed.test));
        assert!(piped.sha256.values().eq(filed.sha256.values()));
        // Nobody writes to this one, and nobody waits.
        let archive = dir.path().join("x_train.npy");
        let error = load_dataset(&archive, 3, false).unwrap_err();
        assert!(
            !error.is_io() && error.to_string().contains("found a pipe or a device"),
            "{error}"
        );
        // A pipe that announces more than there is ends, and makes no room before.
        let pipe = dir.path().join("y_test.npy");
        let short = npy(&F4.replace("(2, 3)", "(4294967296, 3)"), &[0; 12]);
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::write(pipe, short).unwrap()
        });
        let error = read_all_logits(&pipe, 3).unwrap_err();
        assert!(matches!(error, Error::Truncated { found: 140, .. }), "{error}");
        writer.join().unwrap();
    }

    #[test]
    fn damaged_files_are_refused() {
        let good = npy(F4, &le(&[0.0; 6]));
        for length in 0..good.len() {
            assert!(read(&good[..length], 2, 3).is_err(), "{length} bytes");
        }
        refused(&good[..good.len() - 1], &["151", "152"]);
        refused(&[&good[..], &[0]].concat(), &["trailing", "152"]);
        refused(b"\x93NUMPZ\x01\0", &["offset 0", "[93, 4e,"]);
        refused(b"", &["an empty file", "a NumPy .npy file"]);
        refused(b"PK\x03\x04 x.npy", &["a NumPy .npz archive", "numpy.save"]);
        refused(b"<html><body>Not found", &["a web page", "a NumPy .npy file"]);
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
        assert_eq!((&held_out.train, held_out.test.len()), (&expected, 0));

        // The same labels as a column, as whole decimals, and of a big-endian machine.
        for labels in [
            array("<i8", "(3, 1)", &[2i64, 0, 1].map(i64::to_le_bytes).concat()),
            array("<f8", "(3,)", &[2.0f64, 0.0, 1.0].map(f64::to_le_bytes).concat()),
            array(">i4", "(3L,)", &[2i32, 0, 1].map(i32::to_be_bytes).concat()),
        ] {
            let files = [features().remove(0), ("y_train.npy", labels)];
            assert_eq!(load(&files, 3, true).unwrap().train, expected);
        }
    }

    #[test]
    fn whole_numbers_and_truths_are_features_as_they_are() {
        let train = |x: Vec<u8>| {
            let files = [("x_train.npy", x), ("y_train.npy", array("|b1", "(2,)", &[1, 0]))];
            load(&files, 2, true).unwrap().train
        };
        let split = |values: &[f32]| Split::of_features(values.to_vec(), 2, Some(vec![1, 0]));
        let counts = [3i64, -1, 70_000, 0];
        let long = array("<i8", "(2, 2)", &counts.map(i64::to_le_bytes).concat());
        assert_eq!(train(long), split(&[3.0, -1.0, 70_000.0, 0.0]));
        assert_eq!(train(array("|i1", "(2, 2)", &[3, 255, 7, 0])), split(&[3.0, -1.0, 7.0, 0.0]));
        assert_eq!(train(array("|b1", "(2, 2)", &[0, 1, 1, 0])), split(&[0.0, 1.0, 1.0, 0.0]));
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
        // The axis of the one channel, which PyTorch has first and Keras last.
        for shape in ["(2, 1, 2, 3)", "(2, 2, 3, 1)"] {
            let x = array("|u1", shape, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
            let files = [("x_train.npy", x), images[1].clone()];
            let expected = Split::of_images((1..=12).collect(), (2, 3), Some(vec![1, 0]));
            assert_eq!(load(&files, 2, true).unwrap().train, expected);
        }
    }

    #[test]
    fn arrays_that_do_not_fit_are_refused_by_name() {
        let one = 1f32.to_le_bytes();
        type Case<'a> = (usize, Option<Vec<u8>>, &'a [&'a str]);
        let as_numbers = ["x_train.npy", "(x / 255).astype(\"float32\")", "x.astype(\"float32\")"];
        let cases: [Case; 18] = [
            (0, None, &["x_train.npy"]),
            (3, None, &["y_test.npy"]),
            (0, Some(array("<f4", "(1,)", &one)), &["x_train.npy", "(1,)", "(n, values)"]),
            (0, Some(array("<f4", "(0, 2)", &[])), &["x_train.npy", "at least one example"]),
            (0, Some(array("|u1", "(3, 2)", &[0; 6])), &as_numbers),
            (0, Some(array("|u1", "(3, 2, 1, 3)", &[0; 18])), &as_numbers),
            (0, Some(array("<i4", "(3, 2, 1)", &[0; 24])), &["'<i4'", "x.astype(\"uint8\")"]),
            (0, Some(array("|b1", "(3, 2)", &[0, 1, 0, 1, 2, 0])), &["x_train.npy", "2 in row 2"]),
            (0, Some(array("|O", "(3, 2)", b"\x80\x04")), &["x_train.npy", "Python objects"]),
            (
                1,
                Some(array("<f4", "(3,)", &le(&[0.0, 0.5, 0.0]))),
                &["0.5 in row 1", "whole number"],
            ),
            (1, Some(array("<f4", "(3,)", &le(&[0.0, f32::NAN, 0.0]))), &["NaN in row 1"]),
            (1, Some(array("<i8", "(3, 3)", &[0; 72])), &["y_train.npy", "y.argmax(axis=1)"]),
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
