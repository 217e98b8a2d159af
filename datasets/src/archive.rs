//! Any archive of `numpy.savez`, of few arrays that fit into memory: each with its name and shape.
//!
//! For arrays that must have a certain form, and for large ones, see [`crate::npy`].

use crate::Error;
pub use crate::npy::half;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;

const ARCHIVE: &str = "an .npz archive of NumPy arrays";
const EXPECTED: &str =
    "descr of '<f2', '<f4', '<f8', '|b1', text, or integers of 1 to 8 bytes, fortran_order False";

/// An array of an archive.
pub struct NamedArray {
    /// Its name, without `.npy`.
    pub name: String,
    /// Its shape; empty for a single value.
    pub shape: Vec<usize>,
    /// What it holds, row-major.
    pub values: Values,
}

/// The values of an array.
pub enum Values {
    /// f16, f32 or f64, with their number of bytes.
    Fractions(Vec<f64>, usize),
    /// Integers; those beyond 2⁵³ are rounded.
    Integers(Vec<f64>),
    /// Truth values: 0 or 1.
    Booleans(Vec<f64>),
    /// A single text.
    Text(String),
}

/// Reads all arrays, whose files may have `most` bytes together.
///
/// # Errors
/// Not found or unreadable, no such archive, larger than `most`, or an array of another type or
/// order or of another length than its header says.
pub fn read(path: &Path, most: u64) -> Result<Vec<NamedArray>, Error> {
    let from_os = |cause| Error::from_os(path, ARCHIVE, cause);
    let file = File::open(path).map_err(from_os)?;
    let damaged = |found: String| Error::Archive {
        path: path.to_path_buf(),
        found,
        expected: ARCHIVE.to_owned(),
    };
    let mut archive =
        ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(error.to_string()))?;
    let (mut arrays, mut left) = (Vec::new(), most);
    for index in 0..archive.len() {
        let member = archive.by_index(index).map_err(|error| damaged(error.to_string()))?;
        let name = member.name().map(|name| name.into_owned()).unwrap_or_default();
        let mut bytes = Vec::new();
        // One byte more than may be tells that there are more.
        let read = member.take(left + 1).read_to_end(&mut bytes);
        read.map_err(|cause: io::Error| damaged(format!("{name}: {cause}")))?;
        left = left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| damaged(format!("more than {most} bytes of arrays")))?;
        arrays.push(array(path.join(&name), &name, &bytes)?);
    }
    Ok(arrays)
}

fn array(path: PathBuf, name: &str, bytes: &[u8]) -> Result<NamedArray, Error> {
    let bad = |offset: usize, found: String, expected: &str| Error::Content {
        path: path.clone(),
        offset: offset as u64,
        found,
        expected: expected.to_owned(),
    };
    let word = |from: usize, len: usize| {
        let word = bytes.get(from..from + len)?;
        Some(word.iter().rev().fold(0, |size, byte| size << 8 | usize::from(*byte)))
    };
    let start = match bytes {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, ..] => word(8, 2).map(|size| (10, size)),
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, ..] => word(8, 4).map(|size| (12, size)),
        _ => None,
    };
    let header = start.and_then(|(from, size)| Some((from, bytes.get(from..from + size)?)));
    let Some((from, header)) = header else {
        let found = format!("bytes {:02x?}", &bytes[..bytes.len().min(8)]);
        return Err(bad(0, found, "a NumPy .npy file"));
    };
    let data = &bytes[from + header.len()..];
    let header = String::from_utf8_lossy(header).trim().to_owned();
    let unfit = || bad(from, header.clone(), EXPECTED);
    let (descr, shape) = parse(&header).ok_or_else(unfit)?;
    let (kind, width) = descr.split_at_checked(2).ok_or_else(unfit)?;
    let width: usize = width.parse().map_err(|_| unfit())?;
    let size = if kind.ends_with('U') { width.saturating_mul(4) } else { width };
    let wanted = shape.iter().fold(size, |count, &side| count.saturating_mul(side));
    if wanted != data.len() {
        let found = format!("{} bytes of values", data.len());
        return Err(bad(from + header.len(), found, &format!("{wanted}, as the header says")));
    }
    let each = |value: &dyn Fn(u64) -> f64| {
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |x, byte| x << 8 | u64::from(*byte));
        data.chunks(width.max(1)).map(|bytes| value(word(bytes))).collect::<Vec<f64>>()
    };
    let values = match (kind, width) {
        ("<f", 2) => Values::Fractions(each(&|bits| half(bits as u16)), 2),
        ("<f", 4) => Values::Fractions(each(&|bits| f32::from_bits(bits as u32).into()), 4),
        ("<f", 8) => Values::Fractions(each(&f64::from_bits), 8),
        ("|b", 1) => Values::Booleans(each(&|bit| bit as f64)),
        ("<u" | "|u", 1 | 2 | 4 | 8) => Values::Integers(each(&|bits| bits as f64)),
        ("<i" | "|i", 1 | 2 | 4 | 8) => {
            let unused = 64 - 8 * width as u32;
            Values::Integers(each(&|bits| ((bits << unused) as i64 >> unused) as f64))
        }
        ("<U", _) if shape.iter().product::<usize>() == 1 => {
            let code = |bytes: &[u8; 4]| char::from_u32(u32::from_le_bytes(*bytes));
            let letters = data.as_chunks().0.iter().filter_map(code);
            Values::Text(letters.filter(|letter| *letter != '\0').collect())
        }
        _ => return Err(unfit()),
    };
    Ok(NamedArray { name: name.trim_end_matches(".npy").to_owned(), shape, values })
}

/// The type and shape of a C-ordered array from a Python dictionary such as
/// `{'descr': '<f4', 'fortran_order': False, 'shape': (60000, 10), }`.
fn parse(header: &str) -> Option<(String, Vec<usize>)> {
    let header: String = header.split_whitespace().collect();
    let value = |key: &str| Some(header.split_once(&format!("'{key}':"))?.1);
    if !value("fortran_order")?.starts_with("False") {
        return None;
    }
    let descr = value("descr")?.strip_prefix('\'')?.split_once('\'')?.0;
    let (sides, _) = value("shape")?.strip_prefix('(')?.split_once(')')?;
    let sides = sides.split(',').filter(|side| !side.is_empty()).map(|side| side.parse().ok());
    Some((descr.to_owned(), sides.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn npy(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        bytes.extend(format!("{header:<117}\n").into_bytes());
        bytes.extend(values);
        bytes
    }

    fn read_one(bytes: &[u8], most: u64) -> Result<NamedArray, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npz");
        let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
        archive.start_file("x.npy", zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
        archive.finish().unwrap();
        read(&path, most).map(|mut arrays| arrays.remove(0))
    }

    #[test]
    fn arrays_come_back_with_name_shape_and_values() {
        // 1, -2, 65504, the smallest subnormal number, infinity.
        let halves = [0x3c00u16, 0xc000, 0x7bff, 1, 0x7c00].map(u16::to_le_bytes).concat();
        let array = read_one(&npy("<f2", "(5,)", &halves), 1000).unwrap();
        assert_eq!((&array.name[..], &array.shape[..]), ("x", &[5][..]));
        let Values::Fractions(values, 2) = array.values else { panic!("another type") };
        assert_eq!(values, [1.0, -2.0, 65_504.0, 2f64.powi(-24), f64::INFINITY]);

        let array = read_one(&npy("<f8", "()", &4.5f64.to_le_bytes()), 1000).unwrap();
        assert!(array.shape.is_empty());
        assert!(matches!(array.values, Values::Fractions(x, 8) if x == [4.5]));
        let array = read_one(&npy("<i4", "(1, 1)", &(-100i32).to_le_bytes()), 1000).unwrap();
        assert!(matches!(array.values, Values::Integers(x) if x == [-100.0]));
        let array = read_one(&npy("|b1", "(2,)", &[0, 1]), 1000).unwrap();
        assert!(matches!(array.values, Values::Booleans(x) if x == [0.0, 1.0]));
        let text = ['s', 'u', 'm'].map(|c| u32::from(c).to_le_bytes()).concat();
        let array = read_one(&npy("<U3", "()", &text), 1000).unwrap();
        assert!(matches!(array.values, Values::Text(text) if text == "sum"));
    }

    #[test]
    fn other_files_are_refused() {
        let good = npy("<f4", "(1,)", &1f32.to_le_bytes());
        for (bytes, words) in [
            (b"text".to_vec(), "a NumPy .npy file"),
            (good[..100].to_vec(), "a NumPy .npy file"),
            (npy("<f4", "(2,)", &[0; 4]), "8, as the header says"),
            (npy("<f4", "(99999999999, 99999999999)", &[0; 4]), "as the header says"),
            (npy("<c8", "(1,)", &[0; 8]), "descr of"),
            (npy(">f4", "(1,)", &[0; 4]), "descr of"),
            (npy("|O", "(1,)", &[0; 8]), "descr of"),
        ] {
            let error = read_one(&bytes, 1000).err().expect("accepted").to_string();
            assert!(error.contains("x.npy") && error.contains(words), "{error}");
        }
        let error = read_one(&good, 100).err().expect("accepted").to_string();
        assert!(error.contains("more than 100 bytes"), "{error}");
    }
}
