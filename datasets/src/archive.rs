//! Any archive of `numpy.savez`, of few arrays that fit into memory: each with its name and shape.
//!
//! For arrays that must have a certain form, and for large ones, see [`crate::npy`].

use crate::Error;
pub use crate::npy::half;
use crate::npy::{Array, Form, damaged};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use zip::ZipArchive;

const ARCHIVE: &str = "an .npz archive of NumPy arrays";
const EXPECTED: &str = "numbers, bool, or a single text";

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
/// Not found or unreadable, no such archive, larger than `most`, or an array of another type or of
/// another length than its header says.
pub fn read(path: &Path, most: u64) -> Result<Vec<NamedArray>, Error> {
    let from_os = |cause| Error::from_os(path, ARCHIVE, cause);
    let file = File::open(path).map_err(from_os)?;
    let packed = file.metadata().map_err(from_os)?.len();
    let archive = ZipArchive::new(BufReader::new(file));
    let mut archive = archive.map_err(|error| damaged(path, ARCHIVE, error.into()))?;
    let (mut arrays, mut left) = (Vec::new(), most);
    for index in 0..archive.len() {
        let member = archive.by_index(index).map_err(|e| damaged(path, ARCHIVE, e.into()))?;
        left = left.checked_sub(member.size()).ok_or_else(|| Error::Archive {
            path: path.to_path_buf(),
            found: format!("more than {most} bytes of arrays"),
            expected: ARCHIVE.to_owned(),
        })?;
        let name = member.name().map(|name| name.into_owned()).unwrap_or_default();
        let (shape, values) = values(Array::of_member(path.join(&name), member, packed)?)?;
        arrays.push(NamedArray { name: name.trim_end_matches(".npy").to_owned(), shape, values });
    }
    Ok(arrays)
}

fn values(array: Array) -> Result<(Vec<usize>, Values), Error> {
    let Some(Form { element, shape, .. }) = &array.form else {
        return Err(array.unfit(EXPECTED.to_owned()));
    };
    let (element, shape) = (*element, shape.clone());
    if element.is_text() {
        if !shape.is_empty() {
            return Err(array.unfit(EXPECTED.to_owned()));
        }
        let mut text = String::new();
        array.values("a text", |element, word| {
            text = element.text(word)?;
            Some(())
        })?;
        return Ok((shape, Values::Text(text)));
    }
    let values = array.values("a number", |element, word| Some(element.value(word)))?;
    let values = match element.kind {
        b'f' => Values::Fractions(values, element.width),
        b'b' => Values::Booleans(values),
        _ => Values::Integers(values),
    };
    Ok((shape, values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn npy(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        ordered(descr, shape, "False", values)
    }

    fn ordered(descr: &str, shape: &str, fortran: &str, values: &[u8]) -> Vec<u8> {
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
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
        for (descr, bytes) in
            [("<U4", u32::to_le_bytes as fn(u32) -> [u8; 4]), (">U4", u32::to_be_bytes)]
        {
            let text = ['s', 'u', 'm', '\0'].map(|c| bytes(u32::from(c))).concat();
            let array = read_one(&npy(descr, "()", &text), 1000).unwrap();
            assert!(matches!(array.values, Values::Text(text) if text == "sum"));
        }
    }

    #[test]
    fn either_order_of_bytes_and_of_indices_is_read() {
        let wide = [1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0].map(f64::to_be_bytes).concat();
        let array = read_one(&ordered(">f8", "(2, 3)", "True", &wide), 1000).unwrap();
        assert_eq!(array.shape, [2, 3]);
        let Values::Fractions(values, 8) = array.values else { panic!("another type") };
        assert_eq!(values, [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
        let array = read_one(&npy(">i2", "(1,)", &(-3i16).to_be_bytes()), 1000).unwrap();
        assert!(matches!(array.values, Values::Integers(x) if x == [-3.0]));
    }

    #[test]
    fn other_files_are_refused() {
        let good = npy("<f4", "(1,)", &1f32.to_le_bytes());
        for (bytes, words) in [
            (b"text".to_vec(), "a NumPy .npy file"),
            (good[..100].to_vec(), "90 bytes of header"),
            (npy("<f4", "(2,)", &[0; 4]), "136"),
            (npy("<f4", "(1,)", &[0; 8]), "132"),
            (npy("<f4", "(99999999999, 99999999999)", &[0; 4]), "132"),
            (npy("<c8", "(1,)", &[0; 8]), "a single text"),
            (npy("|O", "(1,)", &[0; 8]), "astype"),
            (npy("<U1", "(2,)", &[65, 0, 0, 0, 66, 0, 0, 0]), "a single text"),
            (npy("<U99999999999", "()", &[65, 0, 0, 0]), "a single text"),
        ] {
            let error = read_one(&bytes, 1000).err().expect("accepted").to_string();
            assert!(error.contains("x.npy") && error.contains(words), "{error}");
        }
        let error = read_one(&good, 100).err().expect("accepted").to_string();
        assert!(error.contains("more than 100 bytes"), "{error}");
    }
}
