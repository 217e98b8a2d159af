//! NumPy's `.npy` files, and `.npz` archives of them: teacher logits and the user's own data.
//!
//! The header is parsed here because existing crates trust it: they allocate what it announces and
//! overflow on huge shapes. Of the format (`numpy.lib.format`, versions 1 to 3) arrays of numbers are
//! accepted: bool, integers, and floating point of 16, 32 and 64 bits, of either byte order, in C or
//! Fortran order; and texts as labels. Python objects and records are not.

use crate::digest::{Hashed, hex, sha256_of_reader};
use crate::foreign::{START, Wanted};
use crate::labels::{self, Classes, Fault, Labels, list};
use crate::{Dataset, Error, Inputs, Remark, Split};
use byteorder::{ByteOrder, LittleEndian};
use sha2::{Digest, Sha256};
use std::cmp::Ordering;
use std::collections::{BTreeMap, TryReserveError};
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek};
use std::iter;
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
/// The most bytes of a text.
const MAX_TEXT: usize = 4096;
/// The most values of an example: the width of the widest layer that a net may have.
const MAX_VALUES: usize = 65_536;
/// No deflate stream expands by more than this factor.
const MAX_EXPANSION: u64 = 1032;

/// What a teacher says of examples, a row for each.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Number of values of a row.
    pub columns: usize,
    /// [rows, columns], row-major.
    pub values: Vec<f32>,
    /// How many probabilities were 0.
    pub zeros: usize,
}

/// Reads the logits [rows, classes], row-major, from a matrix of exactly that shape, as
/// [`read_matrix`] does.
///
/// # Errors
/// As [`read_matrix`], or another shape.
pub fn read_logits(path: &Path, rows: usize, classes: usize) -> Result<Vec<f32>, Error> {
    let matrix = with_array(path, |array| {
        let shape = array.form.as_ref().map(|form| &form.shape[..]);
        if shape != Some(&[rows, classes]) {
            return Err(array.unfit(format!(
                "numbers, shape ({rows}, {classes}): one row of {classes} logits for each of the {rows} \
                 examples"
            )));
        }
        array.matrix(false)
    })?;
    Ok(matrix.values)
}

/// Reads a matrix of numbers, such as logits: an `.npy` file, or an archive of one array. f64 values
/// are rounded to f32, f16 values are exact. It needs memory for the values, twice if they lie in
/// Fortran order, and 64 KiB. A file is read once, so that it may be a pipe, if it is no archive.
///
/// # Errors
/// Missing or unreadable, not a `.npy` file, another type or shape, no rows, truncated, trailing bytes,
/// or a value that is not finite as f32. Nothing is allocated for the values before the file's length
/// is known to hold them.
pub fn read_matrix(path: &Path) -> Result<Matrix, Error> {
    with_array(path, |array| array.matrix(false))
}

/// Reads a matrix of probabilities p as their logarithms ln p, as [`read_matrix`] reads numbers. A
/// probability of 0 is less than its type can hold, and counts as the type's least number above 0:
/// 2⁻²⁴, 2⁻¹⁴⁹ or 2⁻¹⁰⁷⁴, whose logarithms are −16.6, −103.3 and −744.4.
///
/// # Errors
/// As [`read_matrix`], or a value that is no probability. Whether rows sum to 1 is not checked.
pub fn read_log_probs(path: &Path) -> Result<Matrix, Error> {
    with_array(path, |array| array.matrix(true))
}

/// What `read` makes of the one array of `path`.
fn with_array<T>(path: &Path, read: impl Fn(Array) -> Result<T, Error>) -> Result<T, Error> {
    let is_file = path.metadata().is_ok_and(|about| about.is_file());
    if is_file && Arrays::is_archive(path)? {
        let mut arrays = Arrays::open(path)?;
        let names = arrays.names()?;
        let [name] = &names[..] else {
            return Err(Error::Archive {
                path: path.to_path_buf(),
                found: format!("the arrays {}", list(&names)),
                expected: "one array; save it alone with numpy.save".to_owned(),
            });
        };
        return read(arrays.array(name)?);
    }
    let (file, length) = open_file(path)?;
    let reader = Box::new(BufReader::new(file));
    read(Array::read(path.to_path_buf(), reader, length, length.unwrap_or(0))?)
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
/// and y_test. The names are those of Keras; capital letters, `train_images`,
/// `train_labels` and the like are known too. The file is an archive that `numpy.savez` made of the arrays, or a folder of the `.npy` files.
///
/// - x is images: u8 of shape (n, height, width), also with an axis of one channel; or features:
///   numbers of any type and shape (n, …), which are flattened and not scaled.
/// - y is labels of shape (n,) or (n, 1), numbers of any type or texts, which name classes as those of
///   tables do, see [`crate::table::load_dataset`]; or of shape (n, classes), with one 1 in each row.
///   Without y_train the training split is an unlabelled transfer set.
///
/// If a part of the training split will be `held_out`, the test arrays are not read and the test
/// split is empty; x and y alone are enough then. It needs memory for the values, twice for an array in
/// Fortran order, for features 12 bytes more for each example, for labels 12 bytes, and 64 KiB. The
/// files of a folder are read once, so that they may be pipes; an archive, whose directory is at its
/// end, may not.
///
/// # Errors
/// Missing or unreadable, no such archive, an array that is missing or damaged, another type or
/// shape, arrays that do not fit each other, a value that is not finite as f32, or labels that are
/// no classes.
pub fn load_dataset(path: &Path, classes: Option<usize>, held_out: bool) -> Result<Dataset, Error> {
    let mut arrays = Arrays::open(path)?;
    let (train, test, note) = arrays.parts(held_out)?;
    let mut notes = Vec::from_iter(note);
    let (x_train, y_train) = arrays.examples(&train, None, &mut notes)?;
    let tested = match &test {
        None => None,
        Some(test) => Some(arrays.examples(test, Some((&x_train, &train.x)), &mut notes)?),
    };
    // An unlabelled transfer set has the classes of what is tested.
    let of_test = || tested.as_ref().and_then(|(_, y)| y.as_ref());
    let classes = match y_train.as_ref().or_else(of_test) {
        Some(y) => y.classes(classes)?,
        None => Classes::counting(classes.unwrap_or(0)),
    };
    let labelled = |x: Split, y: Option<Answers>| -> Result<Split, Error> {
        Ok(Split { labels: y.map(|y| y.index(&classes)).transpose()?, ..x })
    };
    let train = labelled(x_train, y_train)?;
    let test = match tested {
        None => train.subset(&[]),
        Some((x, y)) => labelled(x, y)?,
    };
    let names = classes.names();
    notes.extend(classes.notes);
    Ok(Dataset {
        name: "npz".to_owned(),
        classes: classes.count,
        names,
        train,
        test,
        sha256: arrays.sha256,
        notes,
    })
}

/// The type of an array's values.
#[derive(Clone, Copy)]
pub(crate) struct Element {
    /// `b` for bool, `u` and `i` for integers, `f` for floating point, `U` and `S` for texts of letters
    /// of 4 bytes and of 1.
    pub(crate) kind: u8,
    /// Number of bytes of a value.
    pub(crate) width: usize,
    big_endian: bool,
}

impl Element {
    /// Parses a `descr` such as `'<f4'`, `'>i8'`, `'|u1'` or `'<U10'`.
    fn parse(descr: &str) -> Option<Element> {
        let [b'\'', order, kind, ..] = *descr.as_bytes() else { return None };
        let (digits, _) = descr.get(3..)?.split_once('\'')?;
        let digits: usize = digits.parse().ok()?;
        let width = if kind == b'U' { digits.checked_mul(4)? } else { digits };
        let known = match kind {
            b'b' => width == 1,
            b'u' | b'i' => [1, 2, 4, 8].contains(&width),
            b'f' => [2, 4, 8].contains(&width),
            b'U' | b'S' => (1..=MAX_TEXT).contains(&width),
            _ => false,
        };
        let single = width == 1 || kind == b'S';
        let ordered = matches!(order, b'<' | b'>') || order == b'|' && single;
        (known && ordered).then_some(Element { kind, width, big_endian: order == b'>' })
    }

    pub(crate) fn is_text(self) -> bool {
        matches!(self.kind, b'U' | b'S')
    }

    /// NumPy's name of the type.
    fn name(self) -> String {
        let bits = 8 * self.width;
        match self.kind {
            b'b' => "bool".to_owned(),
            b'u' => format!("uint{bits}"),
            b'i' => format!("int{bits}"),
            b'f' => format!("float{bits}"),
            _ => "texts".to_owned(),
        }
    }

    /// The text of `word`, which ends before its zeros.
    pub(crate) fn text(self, word: &[u8]) -> Option<String> {
        let text = match (self.kind, self.big_endian) {
            (b'S', _) => str::from_utf8(word).ok()?.to_owned(),
            (_, big_endian) => {
                let code = |letter: &[u8; 4]| match big_endian {
                    true => u32::from_be_bytes(*letter),
                    false => u32::from_le_bytes(*letter),
                };
                word.as_chunks().0.iter().map(|l| char::from_u32(code(l))).collect::<Option<_>>()?
            }
        };
        Some(text.trim_end_matches('\0').to_owned())
    }

    /// The value of `word`, exactly but for integers beyond 2⁵³.
    pub(crate) fn value(self, word: &[u8]) -> f64 {
        if self.is_text() {
            return f64::NAN;
        }
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

    /// Type and shape, as NumPy names them.
    fn words(&self) -> String {
        if self.shape.is_empty() {
            return format!("a single value, {}", self.element.name());
        }
        let sides: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let comma = if sides.len() == 1 { "," } else { "" };
        format!("{} of shape ({}{comma})", self.element.name(), sides.join(", "))
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
        let numbers = !form.element.is_text() && !example.is_empty() && values > 0;
        if !numbers || !(1..=u32::MAX as usize).contains(examples) {
            return None;
        }
        match (form.element.kind, form.element.width, example) {
            (b'u', 1, &([height, width] | [1, height, width] | [height, width, 1])) => {
                (height.max(width) <= MAX_SIDE).then_some(Example::Image { height, width })
            }
            _ => (values <= MAX_VALUES).then_some(Example::Features(values)),
        }
    }

    fn of(split: &Split) -> Example {
        match &split.inputs {
            Inputs::Images(images) => Example::Image { height: images.height, width: images.width },
            Inputs::Features(frames) => Example::Features(frames.input_size()),
        }
    }

    /// The form of an array of such examples, in words.
    fn form(&self, like: &str) -> String {
        match self {
            Example::Image { height, width } => {
                format!("images, uint8, shape (n, {height}, {width}), as {like}")
            }
            Example::Features(values) => {
                format!("numbers that are no uint8 images, shape (n, {values}), as {like}")
            }
        }
    }

    /// What to say of features that could be meant as pixels.
    fn remark(form: &Form, path: &Path) -> Option<Remark> {
        let (element, sides) = (form.element, form.shape.len());
        let bytes = element.kind == b'u' && element.width == 1;
        let may_be_images = bytes || matches!(element.kind, b'u' | b'i') && sides > 2;
        may_be_images.then(|| {
            Remark::Note(format!(
                "{}: {} taken as numbers, not as pixels; images are uint8 of shape (n, height, width)",
                path.display(),
                form.words()
            ))
        })
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
    /// The offset of the values.
    offset: usize,
    /// `None` for a form that is not supported.
    pub(crate) form: Option<Form>,
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
        Ok(Array { path, reader, length, capacity, header, offset, form })
    }

    /// The error of an array whose header is not as `expected`.
    pub(crate) fn unfit(&self, expected: String) -> Error {
        let (found, advice) = match &self.form {
            Some(form) => (form.words(), self.advice_on_shape()),
            None => self.unknown(),
        };
        Error::Archive { path: self.path.clone(), found, expected: expected + advice }
    }

    fn advice_on_shape(&self) -> &'static str {
        match self.form.as_ref().map(|form| (form.element.is_text(), &form.shape[..])) {
            Some((true, _)) => "; texts are labels; make numbers of them, x.astype(\"float32\")",
            Some((_, [1, _])) => "; one row alone: reshape(-1)",
            Some((_, [_])) => {
                "; a row for each example: reshape(-1, 1), or of a decision z between two classes \
                 stack([-z/2, z/2], 1)"
            }
            _ => "",
        }
    }

    /// What an array is whose type has no form here, and what to do about it.
    fn unknown(&self) -> (String, &'static str) {
        let descr = self.header.split_once("'descr':").map_or("", |(_, rest)| rest.trim_start());
        if Element::parse(descr).is_some() {
            let single = self.header.replace(' ', "").contains("'shape':()");
            let found =
                if single { "a single value" } else { &format!("the header {}", self.header) };
            return (found.to_owned(), "");
        }
        let code = descr.trim_start_matches(['\'', '<', '>', '|', '=']);
        let (what, advice) = match code.bytes().next() {
            Some(b'O') => (
                "pickled Python objects",
                "; make numbers of them, x.astype(\"float32\"), or texts of labels, y.astype(str), and \
                 save again",
            ),
            Some(b'U' | b'S') => ("texts that are empty or very long", "; shorten them"),
            Some(b'[') => {
                ("records", "; make one matrix of them, in pandas with to_numpy(\"float32\")")
            }
            Some(b'f' | b'V') => {
                ("floating point of another width", "; convert it, x.astype(\"float32\")")
            }
            Some(b'c') => ("complex numbers", "; take their parts, np.stack([x.real, x.imag], -1)"),
            Some(b'M') => {
                ("dates", "; make numbers of them, (x - x.min()) / np.timedelta64(1, \"D\")")
            }
            Some(b'm') => ("durations", "; make numbers of them, x / np.timedelta64(1, \"s\")"),
            _ => return (format!("the header {}", self.header), ""),
        };
        (what.to_owned(), advice)
    }

    /// Reads all values, in C order. `value` makes each of its bytes; it returns `None` for a value
    /// that is not `expected`. The stream is read to its end, where an archive verifies its checksum.
    pub(crate) fn values<T: Copy>(
        mut self,
        expected: &str,
        mut value: impl FnMut(Element, &[u8]) -> Option<T>,
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
        let mut word = vec![0; width];
        for i in 0..count {
            let offset = (self.offset + i * width) as u64;
            self.reader.read_exact(&mut word).map_err(|cause| match cause.kind() {
                ErrorKind::UnexpectedEof => truncated(offset),
                _ => damaged(path, KIND, cause),
            })?;
            let other = || {
                let place = form.place(i);
                let value = match element.is_text() {
                    true => format!("{:?}", element.text(&word).unwrap_or("no text".to_owned())),
                    false => element.value(&word).to_string(),
                };
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

    /// Reads a matrix of numbers, or the logarithms of one of probabilities.
    fn matrix(self, probs: bool) -> Result<Matrix, Error> {
        let is_matrix =
            |form: &&Form| !form.element.is_text() && form.shape.len() == 2 && form.count() > 0;
        let Some(form) = self.form.as_ref().filter(is_matrix) else {
            return Err(
                self.unfit("numbers, shape (n, classes): a row for each example".to_owned())
            );
        };
        let columns = form.row();
        if !probs {
            return Ok(Matrix { columns, values: self.floats()?, zeros: 0 });
        }
        let least = match (form.element.kind, form.element.width) {
            (b'f', 2) => 2f64.powi(-24),
            (b'f', 8) => f64::from_bits(1),
            _ => f64::from(f32::from_bits(1)),
        };
        let mut zeros = 0;
        let expected = "a probability from 0 to 1; logits are named teacher_logits";
        let values = self.values(expected, |element, word| {
            let p = element.value(word);
            zeros += usize::from(p == 0.0);
            // Rounding may leave a little more than 1.
            (0.0..=1.01).contains(&p).then(|| libm::log(p.max(least)) as f32)
        })?;
        Ok(Matrix { columns, values, zeros })
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

    /// Enters the digest of the array `name` of a folder, which has been read.
    fn note_sha256(&mut self, name: &str) {
        if self.archive.is_none() {
            let digest = hex(std::mem::take(&mut self.hasher));
            let path = self.path.join(format!("{name}.npy"));
            self.sha256.insert(path.display().to_string(), digest);
        }
    }

    /// Whether the regular file at `path` begins as an archive does.
    fn is_archive(path: &Path) -> Result<bool, Error> {
        let from_os = |cause| Error::from_os(path, KIND, cause);
        let mut start = Vec::new();
        File::open(path).and_then(|file| file.take(2).read_to_end(&mut start)).map_err(from_os)?;
        Ok(start == b"PK")
    }

    /// Opens the array called `name`.
    fn array(&mut self, name: &str) -> Result<Array<'_>, Error> {
        let file_name = format!("{name}.npy");
        let path = self.path.join(&file_name);
        let Some(archive) = &mut self.archive else {
            let (file, length) = open_file(&path)?;
            let hashed = Hashed { reader: file, hasher: &mut self.hasher };
            let reader = Box::new(BufReader::new(hashed));
            return Array::read(path, reader, length, length.unwrap_or(0));
        };
        let member = archive.by_name(&file_name).map_err(|e| damaged(&path, KIND, e.into()))?;
        Array::of_member(path, member, self.length)
    }

    /// The names of the arrays, sorted.
    fn names(&self) -> Result<Vec<String>, Error> {
        let stem = |name: &str| name.strip_suffix(".npy").map(str::to_owned);
        let mut names: Vec<String> = match &self.archive {
            Some(archive) => {
                archive.file_names().flatten().filter_map(|name| stem(&name)).collect()
            }
            None => {
                let from_os = |cause| Error::from_os(self.path, ARCHIVE, cause);
                let entries = std::fs::read_dir(self.path).map_err(from_os)?;
                entries.flatten().filter_map(|entry| stem(entry.file_name().to_str()?)).collect()
            }
        };
        names.sort_unstable();
        Ok(names)
    }

    /// Which arrays are the training examples and, unless a part of these is held out, the test
    /// examples.
    fn parts(&self, held_out: bool) -> Result<(Pair, Option<Pair>, Option<Remark>), Error> {
        let names = self.names()?;
        let bad = |expected: String| Error::Archive {
            path: self.path.to_path_buf(),
            found: format!("the arrays [{}]", names.join(", ")),
            expected: match names.is_empty() {
                true => format!(
                    "{expected}; of pictures make an array: numpy.stack([numpy.asarray(PIL.Image.open(file)\
                     .convert(\"L\")) for file in files])"
                ),
                false => expected,
            },
        };
        let find = |part: &str, words: &[&str]| -> Result<Option<String>, Error> {
            let found: Vec<&String> =
                names.iter().filter(|name| is_called(name, part, words)).collect();
            match found[..] {
                [] => Ok(None),
                [name] => Ok(Some(name.clone())),
                [first, second, ..] => {
                    let what = ["x", "y"][usize::from(words[0] == "y")];
                    let part = if part.is_empty() { "" } else { &format!("_{part}") };
                    Err(bad(format!("one {what}{part}; {first} and {second} could both be it")))
                }
            }
        };
        const SAVE: &str = "numpy.savez(…, x_train=…, y_train=…, x_test=…, y_test=…)";
        let known = "x_train, y_train, x_test and y_test";
        let mut train = Pair { x: String::new(), y: find("train", &LABELS)? };
        match find("train", &EXAMPLES)? {
            Some(x) => train.x = x,
            None => {
                let x = find("", &EXAMPLES)?;
                let wanted = match held_out {
                    true => format!("{known}, or X and y; name the arrays: {SAVE}"),
                    false => format!("{known}; name the arrays: {SAVE}"),
                };
                train.x = x.ok_or_else(|| bad(format!("x_train.npy of {wanted}")))?;
                train.y = find("", &LABELS)?;
                if !held_out && find("test", &EXAMPLES)?.is_none() {
                    return Err(bad(format!(
                        "{known}; of {} alone a part is held out for testing with holdout = 0.2 in [data]",
                        train.x
                    )));
                }
            }
        }
        if held_out && train.y.is_none() {
            return Err(bad(format!("y_train.npy, the labels of {}", train.x)));
        }
        let mut notes: Vec<String> = Vec::new();
        let mut said = |name: &str, wanted: &str| {
            if name != wanted {
                notes.push(format!("{wanted} is {name}"));
            }
        };
        said(&train.x, "x_train");
        train.y.iter().for_each(|y| said(y, "y_train"));
        let mut test = None;
        if !held_out {
            let missing = |what: &str| bad(format!("{what}.npy of {known}, or holdout in [data]"));
            let x = find("test", &EXAMPLES)?.ok_or_else(|| missing("x_test"))?;
            let y = find("test", &LABELS)?.ok_or_else(|| missing("y_test"))?;
            said(&x, "x_test");
            said(&y, "y_test");
            test = Some(Pair { x, y: Some(y) });
        }
        let mut sentences = Vec::from_iter((!notes.is_empty()).then(|| notes.join(", ")));
        let of_validation = |name: &str| {
            let mut parts = ["val", "valid", "validation", "dev"].iter();
            parts.any(|part| [EXAMPLES, LABELS].iter().any(|words| is_called(name, part, words)))
        };
        let read: Vec<&String> = iter::once(&train).chain(&test).flat_map(Pair::names).collect();
        let unread: Vec<&str> = names
            .iter()
            .filter(|name| !read.contains(name))
            .map(String::as_str)
            // A folder may hold arrays for other purposes.
            .filter(|name| self.archive.is_some() || of_validation(name))
            .collect();
        if !unread.is_empty() {
            sentences.push(format!("not read: {}", unread.join(", ")));
        }
        if unread.iter().any(|name| of_validation(name)) {
            sentences.push("validation in [data] takes a part of the training examples".into());
        }
        let note = (!sentences.is_empty())
            .then(|| Remark::Note(format!("{}: {}", self.path.display(), sentences.join("; "))));
        Ok((train, test, note))
    }

    /// Reads the examples of a part, which must be like those of `like`, if that is given with its name.
    fn examples(
        &mut self,
        pair: &Pair,
        like: Option<(&Split, &str)>,
        notes: &mut Vec<Remark>,
    ) -> Result<(Split, Option<Answers>), Error> {
        let array = self.array(&pair.x)?;
        let path = array.path.clone();
        let wanted = like.map(|(split, name)| (Example::of(split), name));
        let example = array.form.as_ref().and_then(Example::of_form);
        match (&example, wanted) {
            (Some(found), Some((expected, _))) if *found == expected => {}
            (_, Some((expected, name))) => return Err(array.unfit(expected.form(name))),
            (Some(Example::Features(_)), None) => {
                let form = array.form.as_ref();
                notes.extend(form.and_then(|form| Example::remark(form, &path)));
            }
            (_, None) => {}
        }
        let split = array.split()?;
        if let (Inputs::Images(images), None) = (&split.inputs, like) {
            notes.extend(images.remark_of_dark(&path));
        }
        self.note_sha256(&pair.x);
        let Some(y) = &pair.y else { return Ok((split, None)) };
        let answers = self.array(y)?.answers(split.len(), &pair.x)?;
        self.note_sha256(y);
        Ok((split, Some(answers)))
    }
}

/// Whether the archive or folder at `path` has an array that is called like test examples.
///
/// # Errors
/// As [`load_dataset`], as far as the names go.
pub fn has_test_examples(path: &Path) -> Result<bool, Error> {
    Ok(Arrays::open(path)?.names()?.iter().any(|name| is_called(name, "test", &EXAMPLES)))
}

/// Examples to be asked about.
pub struct Asked {
    /// The examples, without labels.
    pub split: Split,
    /// What their array and that of their labels are called in an archive or folder of several arrays.
    pub names: Option<(String, Option<String>)>,
    /// The label of each example, or why the array that is called like labels has none.
    pub labels: Option<Result<AskedLabels, Error>>,
}

/// Labels of examples to be asked about.
pub enum AskedLabels {
    /// The name of each one's class.
    Names(Vec<String>),
    /// The place of each one's class, of rows with one 1.
    Places(Vec<u16>),
}

/// Reads examples to be asked about: an `.npy` file; the one array of an archive or folder; or of several
/// the one called `x`, `images`, `data`, `features` or `inputs`, alone or with `test`, and the labels that are
/// called so too. They are images or features as in [`load_dataset`].
///
/// # Errors
/// As [`load_dataset`], for the examples.
pub fn read_asked(path: &Path) -> Result<Asked, Error> {
    let alone = |split| Asked { split, names: None, labels: None };
    // A pipe is no archive, of which no byte is taken to look at it.
    let is_archive = path.is_dir() || path.is_file() && Arrays::is_archive(path)?;
    if !is_archive {
        return with_array(path, |array| array.split()).map(alone);
    }
    let mut arrays = Arrays::open(path)?;
    let names = arrays.names()?;
    if let [name] = &names[..] {
        return arrays.array(name)?.split().map(alone);
    }
    let called = |part, words| names.iter().find(|name| is_called(name, part, words)).cloned();
    let pair = ["", "test"]
        .into_iter()
        .find_map(|part| called(part, &EXAMPLES).map(|x| (x, called(part, &LABELS))));
    let (x, y) = pair.ok_or_else(|| Error::Archive {
        path: path.to_path_buf(),
        found: format!("the arrays [{}]", names.join(", ")),
        expected: "one called x or x_test, or one alone".to_owned(),
    })?;
    let split = arrays.array(&x)?.split()?;
    let labels = y.as_deref().map(|y| {
        Ok(match arrays.array(y)?.answers(split.len(), &x)?.what {
            Answer::Named(labels) => AskedLabels::Names(labels.texts()),
            Answer::OneHot(_, places) => AskedLabels::Places(places),
        })
    });
    Ok(Asked { split, names: Some((x, y)), labels })
}

/// What arrays of examples and of labels are called, with `train` or `test` or alone.
const EXAMPLES: [&str; 5] = ["x", "images", "data", "features", "inputs"];
const LABELS: [&str; 5] = ["y", "labels", "label", "targets", "target"];

/// Whether `name` is one of the `words` of a `part`, with a low line between or not, in either order and
/// letters of any case; without a part, one of the words.
fn is_called(name: &str, part: &str, words: &[&str]) -> bool {
    let name: String = name.to_lowercase().chars().filter(|&letter| letter != '_').collect();
    words.iter().any(|word| name == format!("{word}{part}") || name == format!("{part}{word}"))
}

/// The names of the arrays of a part.
struct Pair {
    x: String,
    y: Option<String>,
}

impl Pair {
    fn names(&self) -> impl Iterator<Item = &String> {
        iter::once(&self.x).chain(&self.y)
    }
}

/// The labels of examples, and where they come from.
struct Answers {
    path: PathBuf,
    /// The offset of the first one.
    offset: usize,
    /// Number of bytes of a row.
    width: usize,
    what: Answer,
}

enum Answer {
    Named(Labels),
    /// Rows of so many columns with one 1 each.
    OneHot(usize, Vec<u16>),
}

impl Answers {
    fn classes(&self, given: Option<usize>) -> Result<Classes, Error> {
        match &self.what {
            Answer::Named(labels) => Classes::of(labels, given).map_err(|fault| self.bad(fault)),
            Answer::OneHot(columns, _) => self.expect(*columns, given.unwrap_or(*columns)),
        }
    }

    fn index(self, classes: &Classes) -> Result<Vec<u16>, Error> {
        match &self.what {
            Answer::Named(labels) => classes.index(labels).map_err(|fault| self.bad(fault)),
            Answer::OneHot(columns, _) => {
                self.expect(*columns, classes.count)?;
                let Answer::OneHot(_, labels) = self.what else { return Ok(Vec::new()) };
                Ok(labels)
            }
        }
    }

    fn expect(&self, columns: usize, expected: usize) -> Result<Classes, Error> {
        if columns == expected {
            return Ok(Classes::counting(columns));
        }
        let found = format!("{columns} columns, one for each class");
        Err(self.bad(Fault { row: None, found, expected: expected.to_string() }))
    }

    fn bad(&self, Fault { row, found, expected }: Fault) -> Error {
        Error::Content {
            path: self.path.clone(),
            offset: (self.offset + row.unwrap_or(0) * self.width) as u64,
            found: match row {
                Some(row) => format!("{found} in row {row}"),
                None => found,
            },
            expected,
        }
    }
}

impl Array<'_> {
    /// Its examples, without labels.
    fn split(self) -> Result<Split, Error> {
        match self.form.as_ref().and_then(Example::of_form) {
            Some(Example::Image { height, width }) => {
                let pixels = self.values("a pixel", |_, word| Some(word[0]))?;
                Ok(Split::of_images(pixels, (height, width), None))
            }
            Some(Example::Features(values)) => Ok(Split::of_features(self.floats()?, values, None)),
            None => Err(self.unfit(format!(
                "at least one example: images, uint8 of shape (n, height, width), or features, \
                 numbers of shape (n, values), at most {MAX_VALUES}"
            ))),
        }
    }

    /// Reads the labels of the `n` examples of the array `x`.
    fn answers(self, n: usize, x: &str) -> Result<Answers, Error> {
        let form = self.form.as_ref();
        let shape = form.map_or(&[][..], |form| &form.shape);
        let columns = match *shape {
            [rows] | [rows, 1] if rows == n => 1,
            [rows, columns] if rows == n && columns <= labels::MAX_CLASSES => columns,
            _ => 0,
        };
        let text = form.is_some_and(|form| form.element.is_text());
        if columns == 0 || text && columns > 1 {
            return Err(self.unfit(format!(
                "labels of shape ({n},) or ({n}, 1), one for each row of {x}, or ({n}, classes) with one 1 \
                 in each row"
            )));
        }
        let width = form.map_or(0, |form| form.element.width * columns);
        let (path, offset) = (self.path.clone(), self.offset);
        let answers = |what| Answers { path, offset, width, what };
        if text {
            let mut labels = Ok(Labels::of_texts());
            self.values("a label; a missing one is none", |element, word| {
                let text = element
                    .text(word)
                    .filter(|text| !labels::is_missing(text.trim().as_bytes()))?;
                if let Ok(known) = &mut labels
                    && let Err(fault) = known.push(&text)
                {
                    labels = Err(fault);
                }
                Some(())
            })?;
            let (labels, fault) = match labels {
                Ok(labels) => (labels, None),
                Err(fault) => (Labels::default(), Some(fault)),
            };
            let answers = answers(Answer::Named(labels));
            return fault.map_or(Ok(()), |fault| Err(answers.bad(fault))).map(|()| answers);
        }
        let values = self.values("a number", |element, word| Some(element.value(word)))?;
        if columns == 1 {
            return match Labels::of(values.into_iter()) {
                Ok(labels) => Ok(answers(Answer::Named(labels))),
                Err(fault) => Err(answers(Answer::Named(Labels::default())).bad(fault)),
            };
        }
        let class = |row: &[f64]| {
            let ones = row.iter().filter(|&&value| value == 1.0).count();
            let zeros = row.iter().filter(|&&value| value == 0.0).count();
            (ones == 1 && zeros + 1 == columns).then(|| row.iter().position(|&value| value == 1.0))
        };
        let classes = values.chunks(columns).map(|row| class(row).flatten());
        let classes: Vec<Option<usize>> = classes.collect();
        let stray = classes.iter().position(Option::is_none);
        let labels = classes.into_iter().map(|class| class.unwrap_or(0) as u16).collect();
        let answers = answers(Answer::OneHot(columns, labels));
        match stray {
            None => Ok(answers),
            row @ Some(_) => Err(answers.bad(Fault {
                row,
                found: "a row that is not one 1 and zeros".to_owned(),
                expected:
                    "one 1 in each row, or labels of shape (n,): y.argmax(axis=1); a teacher's \
                           probabilities are named teacher_probs"
                        .to_owned(),
            })),
        }
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
            ("<f4", "<f3"),
            ("<f4", "<c8"),
            ("'<f4'", "[('a', '<f4')]"),
            ("descr", "dtype"),
            ("}", ""),
        ] {
            let header = F4.replace(from, to);
            refused(&npy(&header, &values), &["found ", "expected numbers, shape (2, 3)"]);
        }
        for (descr, advice) in [
            ("|O", "found pickled Python objects, expected numbers"),
            ("|O", "y.astype(str), and save again"),
            ("<U1", "texts of shape (2, 3), expected"),
            ("<f16", "x.astype(\"float32\")"),
            ("<V2", "x.astype(\"float32\")"),
            ("<c8", "x.real, x.imag"),
            ("<M8[D]", "np.timedelta64(1, \"D\")"),
        ] {
            refused(&npy(&F4.replace("<f4", descr), &values), &[advice]);
        }
        refused(&npy(&F4.replace("(2, 3)", "()"), &values[..4]), &["a single value"]);
        for (bytes, _) in [(npy(F4, &values), 0), (npy(&F4.replace("f4", "i4"), &values), 0)] {
            assert_eq!(read(&bytes, 2, 3).unwrap(), [0.0; 6]);
        }
        let records = F4.replace("'<f4'", "[('a', '<f4'), ('b', '<i8')]");
        refused(&npy(&records, &values), &["found records", "to_numpy(\"float32\")"]);
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
        assert_eq!(read_matrix(&path).unwrap().values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(read_matrix(&path).unwrap().columns, 3);
        let (_dir, path) = written(&npy(&F4.replace("(2, 3)", "(0, 3)"), &[]));
        assert!(!read_matrix(&path).unwrap_err().is_io());
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
        let piped = load_dataset(dir.path(), Some(3), false).unwrap();
        let filed = load(&features(), 3, false).unwrap();
        assert_eq!((&piped.train, &piped.test), (&filed.train, &filed.test));
        assert!(piped.sha256.values().eq(filed.sha256.values()));
        // Nobody writes to this one, and nobody waits.
        let archive = dir.path().join("x_train.npy");
        let error = load_dataset(&archive, Some(3), false).unwrap_err();
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
        let error = read_matrix(&pipe).unwrap_err();
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
        refused(b"PK\x03\x04 x.npy", &["invalid Zip archive"]);
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
        let folder = load_dataset(dir.path(), Some(classes), held_out);
        for method in [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated] {
            let path = dir.path().join("data.npz");
            std::fs::write(&path, zipped(files, method)).unwrap();
            match (load_dataset(&path, Some(classes), held_out), &folder) {
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

    /// With a hold-out, of three examples of one feature, and these labels.
    fn labelled(y: Vec<u8>, classes: Option<usize>) -> Result<Dataset, Error> {
        let x = array("<f4", "(3, 1)", &le(&[1.0, 2.0, 3.0]));
        let (_dir, path) =
            written(&zipped(&[("X.npy", x), ("y.npy", y)], zip::CompressionMethod::Stored));
        load_dataset(&path, classes, true)
    }

    #[test]
    fn labels_are_texts_other_numbers_or_rows_of_one_1() {
        let letters = |texts: [&str; 3], big: bool| -> Vec<u8> {
            let letter =
                |letter: u32| if big { letter.to_be_bytes() } else { letter.to_le_bytes() };
            let of = |text: &str| {
                let mut letters: Vec<u32> = text.chars().map(u32::from).collect();
                letters.resize(4, 0);
                letters.into_iter().flat_map(letter).collect::<Vec<u8>>()
            };
            texts.into_iter().flat_map(of).collect()
        };
        let words = ["dög", "cat", "dög"];
        for y in [
            array("<U4", "(3,)", &letters(words, false)),
            array(">U4", "(3, 1)", &letters(words, true)),
            array("|S4", "(3,)", "dögcat\0dög".as_bytes()),
        ] {
            let dataset = labelled(y, None).unwrap();
            assert_eq!(dataset.names.classes, ["cat", "dög"]);
            assert_eq!(dataset.train.labels, Some(vec![1, 0, 1]));
        }
        let missing = array("<U4", "(3,)", &letters(["a", "nan", "b"], false));
        let message = labelled(missing, None).unwrap_err().to_string();
        assert!(message.contains("y.npy: found \"nan\" in row 1"), "{message}");

        let numbers = labelled(array("<i2", "(3,)", &[7, 0, 3, 0, 7, 0]), None).unwrap();
        assert_eq!(
            (&numbers.names.classes[..], numbers.classes),
            (&["3".into(), "7".into()][..], 2)
        );
        let one_hot = array("|b1", "(3, 4)", &[0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0]);
        let dataset = labelled(one_hot.clone(), None).unwrap();
        assert_eq!((dataset.classes, dataset.train.labels), (4, Some(vec![2, 0, 2])));
        assert!(labelled(one_hot, Some(3)).unwrap_err().to_string().contains("found 4 columns"));
        // The same, by columns.
        let header = "{'descr': '|u1', 'fortran_order': True, 'shape': (3, 2), }";
        let dataset = labelled(npy(header, &[0, 1, 1, 1, 0, 0]), None).unwrap();
        assert_eq!(dataset.train.labels, Some(vec![1, 0, 0]));
        let soft = array("<f4", "(3, 2)", &le(&[0.0, 1.0, 0.5, 0.5, 1.0, 0.0]));
        let message = labelled(soft, None).unwrap_err().to_string();
        assert!(message.contains("in row 1") && message.contains("teacher_probs"), "{message}");
    }

    #[test]
    fn arrays_are_known_by_the_names_that_others_give_them() {
        let named = |names: [&str; 4], held_out: bool| {
            let files: Vec<(&str, Vec<u8>)> =
                names.into_iter().zip(features()).map(|(name, (_, bytes))| (name, bytes)).collect();
            load(&files, 3, held_out)
        };
        let expected = load(&features(), 3, false).unwrap();
        for names in [
            ["X_train.npy", "y_train.npy", "X_test.npy", "y_test.npy"],
            // MedMNIST's, and shouted ones.
            ["train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy"],
            ["XTRAIN.npy", "YTRAIN.npy", "XTEST.npy", "YTEST.npy"],
        ] {
            let found = named(names, false).unwrap();
            assert_eq!((&found.train, &found.test), (&expected.train, &expected.test));
            let Remark::Note(note) = &found.notes[0] else { panic!("a warning") };
            assert!(note.contains(names[0].trim_end_matches(".npy")), "{note}");
            assert!(!note.contains("not read"), "{note}");
        }
        let refused = |names, held_out, part: &str| {
            let message = named(names, held_out).unwrap_err().to_string();
            assert!(message.contains(part), "{part:?} not in: {message}");
        };
        let alone = ["X.npy", "y.npy", "other.npy", "more.npy"];
        assert_eq!(named(alone, true).unwrap().train, expected.train);
        refused(alone, false, "of X alone a part is held out for testing with holdout");
        let both = ["x_train.npy", "y_train.npy", "X_train.npy", "y_test.npy"];
        refused(both, false, "X_train and x_train could both be it");
        let unnamed = ["arr_0.npy", "arr_1.npy", "arr_2.npy", "arr_3.npy"];
        refused(unnamed, false, "found the arrays [arr_0, arr_1, arr_2, arr_3]");
        refused(unnamed, false, "x_train=…");
    }

    #[test]
    fn arrays_that_are_not_read_are_said() {
        let mut files = features();
        files.extend([
            ("val_images.npy", files[0].1.clone()),
            ("val_labels.npy", files[1].1.clone()),
            ("weights.npy", files[0].1.clone()),
        ]);
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in &files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        let archive = dir.path().join("data.npz");
        std::fs::write(&archive, zipped(&files, zip::CompressionMethod::Stored)).unwrap();
        for (path, unread) in [
            (archive.as_path(), "val_images, val_labels, weights"),
            // Of a folder weights may be for another purpose.
            (dir.path(), "val_images, val_labels"),
        ] {
            let found = load_dataset(path, Some(3), false).unwrap();
            assert_eq!(found.train, load(&features(), 3, false).unwrap().train);
            let Remark::Note(note) = &found.notes[0] else { panic!("a warning") };
            assert!(note.contains(&format!("not read: {unread}; validation in [data]")), "{note}");
        }
    }

    #[test]
    fn dark_images_and_pixels_as_numbers_are_said() {
        let notes = |x: Vec<u8>| {
            let y = ("y_train.npy", array("|b1", "(2,)", &[1, 0]));
            load(&[("x_train.npy", x), y], 2, true).unwrap().notes
        };
        let dark = notes(array("|u1", "(2, 1, 2)", &[0, 16, 3, 4]));
        assert!(matches!(&dark[..], [Remark::Warning(text)] if text.contains("pixel is 16")));
        assert_eq!(notes(array("|u1", "(2, 1, 2)", &[0, 200, 3, 4])), []);
        for (descr, shape) in [("|u1", "(2, 2)"), ("|u1", "(2, 1, 2, 1, 1)"), ("|i1", "(2, 2, 1)")]
        {
            let numbers = notes(array(descr, shape, &[0, 16, 3, 4]));
            assert!(matches!(&numbers[..], [Remark::Note(text)] if text.contains("as numbers")));
        }
    }

    #[test]
    fn a_matrix_may_be_the_one_array_of_an_archive_and_hold_probabilities() {
        let matrix = npy(F4, &le(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        let files = [("arr_0.npy", matrix.clone()), ("b.npy", matrix)];
        let archive =
            |files: &[(&str, Vec<u8>)]| written(&zipped(files, zip::CompressionMethod::Deflated));
        let (_dir, path) = archive(&files[..1]);
        assert_eq!(read_matrix(&path).unwrap().values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let (_dir, path) = archive(&files);
        let message = read_matrix(&path).unwrap_err().to_string();
        assert!(message.contains("the arrays arr_0, b") && message.contains("numpy.save"));

        // ln 1/2, ln 1/4, and of 0 the logarithm of the least number of the type.
        let probs = [0.5f64, 0.25, 0.25, 1.0, 0.0, 0.0];
        let of = |descr: &str, bytes: Vec<u8>| {
            let (_dir, path) = written(&npy(&F4.replace("<f4", descr), &bytes));
            read_log_probs(&path)
        };
        let single = of("<f4", probs.map(|p| (p as f32).to_le_bytes()).concat()).unwrap();
        let double = of("<f8", probs.map(f64::to_le_bytes).concat()).unwrap();
        let halves = [0x3800u16, 0x3400, 0x3400, 0x3c00, 0, 0];
        let half = of("<f2", halves.map(u16::to_le_bytes).concat()).unwrap();
        for (matrix, least) in [(single, -149.0), (double, -1074.0), (half, -24.0)] {
            let ln2 = std::f64::consts::LN_2;
            let expected = [-1.0, -2.0, -2.0, 0.0, least, least].map(|power| (power * ln2) as f32);
            assert_eq!((matrix.columns, matrix.zeros, &matrix.values[..]), (3, 2, &expected[..]));
        }
        let message = of("<f4", le(&[0.0, 1.5, 0.0, 0.0, 0.0, 0.0])).unwrap_err().to_string();
        assert!(message.contains("1.5 in row 0, column 1") && message.contains("teacher_logits"));
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
        let cases: [Case; 17] = [
            (0, None, &["x_train.npy"]),
            (3, None, &["y_test.npy"]),
            (0, Some(array("<f4", "(1,)", &one)), &["x_train.npy", "(1,)", "reshape(-1, 1)"]),
            (0, Some(array("<f4", "(0, 2)", &[])), &["x_train.npy", "at least one example"]),
            (0, Some(array("<U1", "(3, 1)", &[97, 0, 0, 0].repeat(3))), &["texts", "x.astype"]),
            (1, Some(array("|O", "(3,)", b"\x80\x04")), &["y_train.npy", "pickled", "astype(str)"]),
            (0, Some(array("|b1", "(3, 2)", &[0, 1, 0, 1, 2, 0])), &["x_train.npy", "2 in row 2"]),
            (0, Some(array("|O", "(3, 2)", b"\x80\x04")), &["x_train.npy", "Python objects"]),
            (
                1,
                Some(array("<f4", "(3,)", &le(&[0.0, 0.5, 0.0]))),
                &["0.5 in row 1", "offset 132", "whole number", "qcut"],
            ),
            (1, Some(array("<f4", "(3,)", &le(&[0.0, f32::NAN, 0.0]))), &["NaN in row 1"]),
            (1, Some(array("<i8", "(3, 3)", &[0; 72])), &["y_train.npy", "y.argmax(axis=1)"]),
            (
                1,
                Some(array("|u1", "(2,)", &[0; 2])),
                &["y_train.npy", "uint8 of shape (2,)", "each row of x_train"],
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
            load_dataset(&path, Some(3), false)
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
        assert!(message.contains("the arrays [x_test, y_test, y_train]"), "{message}");
        let (_dir, path) = written(b"");
        assert!(load_dataset(&path.with_extension("gone"), None, false).unwrap_err().is_io());
    }
}
