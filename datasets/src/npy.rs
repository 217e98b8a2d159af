//! NumPy's `.npy` files, as far as teacher logits need them.
//!
//! The header is read here because the readers at hand trust it: they allocate what it announces
//! and overflow on huge shapes. Of the format (`numpy.lib.format`, versions 1 to 3) only what
//! `numpy.save` writes for a C-ordered matrix of little-endian floats is accepted.

use crate::Error;
use byteorder::{ByteOrder, LittleEndian};
use std::collections::TryReserveError;
use std::fs::File;
use std::io::{BufReader, Read, Take};
use std::path::Path;

const KIND: &str = "a NumPy .npy file";
const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// `numpy.save` needs 118 bytes; NumPy itself refuses more than 10,000.
const MAX_HEADER: usize = 10_000;

/// Reads the logits [rows, classes], row-major, from a matrix of exactly that shape; f64 values
/// are rounded to f32. Takes memory for the logits, and 64 KiB.
///
/// # Errors
/// Not found or unreadable, not a `.npy` file, another type, order or shape, truncated, trailing
/// bytes, or a value that is not finite as f32. Nothing is allocated for the values before the
/// file's length is known to hold them.
pub fn read_logits(path: &Path, rows: usize, classes: usize) -> Result<Vec<f32>, Error> {
    let from_os = |cause| Error::from_os(path, KIND, cause);
    let file = File::open(path).map_err(from_os)?;
    let length = file.metadata().map_err(from_os)?.len();
    let mut reader = BufReader::new(file).take(length);

    let (width, offset) = read_header(path, &mut reader, (rows, classes))?;
    let values = rows.saturating_mul(classes).saturating_mul(width);
    let expected = values.saturating_add(offset) as u64;
    if length < expected {
        return Err(Error::Truncated { path: path.to_path_buf(), found: length, expected });
    }
    if length > expected {
        return Err(Error::Trailing { path: path.to_path_buf(), expected });
    }
    let refused = |e: TryReserveError| Error::from_os(path, KIND, e.into());
    let mut values = Vec::new();
    values.try_reserve_exact(rows * classes).map_err(refused)?;
    let mut word = [0; 8];
    for i in 0..rows * classes {
        reader.read_exact(&mut word[..width]).map_err(from_os)?;
        let value = match width {
            4 => f64::from(LittleEndian::read_f32(&word)),
            _ => LittleEndian::read_f64(&word),
        };
        if !(value as f32).is_finite() {
            return Err(Error::Content {
                path: path.to_path_buf(),
                offset: (offset + i * width) as u64,
                found: format!("{value} in row {}, column {}", i / classes, i % classes),
                expected: "a finite 32-bit number".to_owned(),
            });
        }
        values.push(value as f32);
    }
    Ok(values)
}

/// Checks everything in front of the values: magic, version, and the header, a Python dictionary
/// such as `{'descr': '<f4', 'fortran_order': False, 'shape': (60000, 10), }`.
/// Gives the bytes of one value and the offset of the first.
fn read_header(
    path: &Path,
    reader: &mut Take<BufReader<File>>,
    shape: (usize, usize),
) -> Result<(usize, usize), Error> {
    let bad = |offset: usize, found: String, expected: String| Error::Content {
        path: path.to_path_buf(),
        offset: offset as u64,
        found,
        expected,
    };
    let mut take = |count: usize| -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::with_capacity(count);
        let mut part = reader.by_ref().take(count as u64);
        part.read_to_end(&mut bytes).map_err(|cause| Error::from_os(path, KIND, cause))?;
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
    let offset = 8 + size_bytes;
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
        return Err(bad(offset, found, format!("{size}")));
    }
    let header = String::from_utf8_lossy(&header);
    let (rows, classes) = shape;
    let Some(width) = value_width(&header, &[rows, classes]) else {
        let expected = format!(
            "descr '<f4' or '<f8', fortran_order False, shape ({rows}, {classes}): \
             one row of {classes} logits for each of the {rows} examples"
        );
        return Err(bad(offset, header.trim().to_owned(), expected));
    };
    Ok((width, offset + size))
}

/// Bytes of a value, if the header describes a C-ordered array of this shape of little-endian
/// f32 or f64.
fn value_width(header: &str, shape: &[usize]) -> Option<usize> {
    let header: String = header.split_whitespace().collect();
    let fields = header.strip_prefix('{')?.strip_suffix('}')?;
    let value = |key: &str| Some(fields.split_once(&format!("'{key}':"))?.1);
    let is_c_order = value("fortran_order")?.starts_with("False");
    let (sides, _) = value("shape")?.strip_prefix('(')?.split_once(')')?;
    let sides: Option<Vec<usize>> =
        sides.trim_end_matches(',').split(',').map(|side| side.parse().ok()).collect();
    let descr = value("descr")?;
    let width = match () {
        () if descr.starts_with("'<f4'") => 4,
        () if descr.starts_with("'<f8'") => 8,
        () => return None,
    };
    (is_c_order && sides? == shape).then_some(width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
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
}
