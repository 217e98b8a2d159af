//! Safetensors files: reading one without trusting it, and writing one.
//!
//! The header is composed here from the crate's own [`TensorInfo`] because the crate's writer
//! sorts tensors by name (`layers.10` before `layers.2`, `bias` before `weight`) and writes
//! metadata in hash-map order. Ours keeps the tensors in the order given and sorts the metadata, so
//! that equal contents are equal files.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use limbeck_datasets::foreign::{START, Wanted};
use limbeck_datasets::npy::half;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::files::error::{Error, Result};
use crate::files::read::{read_part, refuse_foreign};
use crate::files::write::atomic_write_with;

/// The longest header accepted, in bytes: that of 6,000 layers, and the names of a data set.
const MAX_HEADER: u64 = 5 << 20;
/// A file starts with the length of its header, a little-endian `u64`.
const LENGTH_BYTES: u64 = 8;

/// The largest file of a model or a training state accepted, in bytes: four copies of the largest
/// model of a configuration (parameters, two moments, an average) and room for the header.
pub(crate) const MAX_MODEL_BYTES: u64 = 17 << 30;

/// A safetensors file in memory: the tensors in the order of their data.
pub(crate) struct TensorFile {
    path: PathBuf,
    /// What the header says of the whole.
    pub metadata: BTreeMap<String, String>,
    /// Name, type, shape and place of each tensor.
    pub tensors: Vec<(String, TensorInfo)>,
    data: Vec<u8>,
}

impl TensorFile {
    /// Reads a file of at most `most` bytes.
    pub fn read(path: &Path, most: u64) -> Result<TensorFile> {
        let io = |e| Error::io("read", path)(e);
        let bad = |what: &str, found: String, expected: String| Error::Data {
            path: path.to_path_buf(),
            what: what.to_string(),
            found,
            expected,
        };
        let kind = fs::metadata(path).map_err(io)?.file_type();
        if !kind.is_file() && !kind.is_dir() {
            let expected = "a regular file: it is read more than once, and its size is compared";
            return Err(bad("file", "a pipe or a device".into(), expected.into()));
        }
        let mut file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        if size > most {
            return Err(bad("file", format!("{size} bytes"), format!("at most {most}")));
        }
        // A file that shrinks meanwhile ends early; each part's length is compared.
        let start = read_part(path, &mut file, START as u64)?;
        refuse_foreign(path, &start, Wanted::Tensors, "a safetensors file")?;
        file.rewind().map_err(io)?;
        let mut part = |wanted: u64| read_part(path, &mut file, wanted);

        let length = part(LENGTH_BYTES)?;
        let Ok(length) = <[u8; 8]>::try_from(&length[..]) else {
            let found = format!("{} bytes", length.len());
            return Err(bad("file", found, "a safetensors file, at least 8 bytes".into()));
        };
        let length = u64::from_le_bytes(length);
        let room = size.saturating_sub(LENGTH_BYTES);
        if length > MAX_HEADER.min(room) {
            let most = MAX_HEADER.min(room);
            let expected = format!("a safetensors file, here with a header of at most {most}");
            return Err(bad("length at offset 0", format!("a header of {length} bytes"), expected));
        }
        let header = part(length)?;
        let parsed: Metadata = serde_json::from_slice(&header).map_err(|e| {
            let expected = "a safetensors header, its tensors one behind the other";
            bad("header at offset 8", e.to_string(), expected.into())
        })?;
        let (wanted, found) = (parsed.data_len() as u64, room - length);
        if wanted != found {
            let what = format!("tensors from offset {}", LENGTH_BYTES + length);
            let expected = format!("{wanted}, as the header says");
            return Err(bad(&what, format!("{found} bytes"), expected));
        }
        let data = part(wanted)?;
        if data.len() as u64 != wanted {
            let found = format!("{} bytes", data.len());
            return Err(bad("tensors", found, format!("{wanted}, as before")));
        }
        let tensors = parsed
            .offset_keys()
            .into_iter()
            .filter_map(|name| parsed.info(&name).cloned().map(|info| (name, info)))
            .collect();
        let metadata = parsed.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone()));
        Ok(TensorFile { path: path.to_path_buf(), metadata: metadata.collect(), tensors, data })
    }

    /// The bytes of all tensors.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The tensor called `name`, if there is one.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|(known, _)| known == name).map(|(_, info)| info)
    }

    /// The bytes of a tensor.
    pub fn bytes(&self, info: &TensorInfo) -> &[u8] {
        &self.data[info.data_offsets.0..info.data_offsets.1]
    }

    /// The values of an `F32` tensor.
    pub fn values(&self, name: &str, info: &TensorInfo) -> Result<Vec<f32>> {
        if info.dtype != Dtype::F32 {
            return Err(self.bad(name, format!("type {:?}", info.dtype), "F32"));
        }
        let (words, _) = self.bytes(info).as_chunks::<4>();
        Ok(words.iter().map(|&word| f32::from_le_bytes(word)).collect())
    }

    /// The values of a tensor of floating point as f32: those of `F16` and `BF16` are exact, those of
    /// `F64` rounded.
    pub fn floats(&self, name: &str, info: &TensorInfo) -> Result<Vec<f32>> {
        let bytes = self.bytes(info);
        let words = || bytes.as_chunks().0.iter().map(|&word| u16::from_le_bytes(word));
        Ok(match info.dtype {
            Dtype::F16 => words().map(|bits| half(bits) as f32).collect(),
            Dtype::BF16 => words().map(|bits| f32::from_bits(u32::from(bits) << 16)).collect(),
            Dtype::F64 => {
                let words = bytes.as_chunks().0.iter();
                words.map(|&word| f64::from_le_bytes(word) as f32).collect()
            }
            _ => return self.values(name, info),
        })
    }

    /// An [`Error::Data`] of this file.
    pub fn bad(&self, what: impl Display, found: impl Display, expected: impl Display) -> Error {
        Error::Data {
            path: self.path.clone(),
            what: what.to_string(),
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }

    /// The metadata under `key`.
    pub fn text(&self, key: &str) -> Result<&str> {
        let text = self.metadata.get(key).map(String::as_str);
        text.ok_or_else(|| self.bad(format!("metadata `{key}`"), "none", "a value"))
    }

    /// Checks that the metadata under `key` is `expected`.
    pub fn expect(&self, key: &str, expected: &str) -> Result<()> {
        let found = self.metadata.get(key).map_or("none", String::as_str);
        if found == expected {
            return Ok(());
        }
        let [found, expected] = [found, expected].map(|text| format!("`{text}`"));
        Err(self.bad(format!("metadata `{key}`"), found, expected))
    }

    /// The metadata under `key` as a value for which `holds` is true; `expected` says what that is.
    pub fn parse<T: std::str::FromStr>(
        &self,
        key: &str,
        expected: &str,
        holds: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let text = self.text(key)?;
        let value = text.parse().ok().filter(holds);
        value.ok_or_else(|| self.bad(format!("metadata `{key}`"), format!("`{text}`"), expected))
    }
}

/// The little-endian bytes of `values`, a little at a time: a copy of a large tensor would double
/// the memory.
pub(crate) fn le_bytes(values: &[f32]) -> impl Iterator<Item = Vec<u8>> {
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
    values.chunks(1 << 14).map(bytes)
}

/// The header's entries of tensors of one type that lie one behind the other.
pub(crate) fn layout(
    dtype: Dtype,
    tensors: impl Iterator<Item = (String, Vec<usize>)>,
) -> Vec<(String, TensorInfo)> {
    let mut end = 0;
    let place = |(name, shape): (String, Vec<usize>)| {
        let start = end;
        end += dtype.bitsize() / 8 * shape.iter().product::<usize>();
        (name, TensorInfo { dtype, shape, data_offsets: (start, end) })
    };
    tensors.map(place).collect()
}

/// The JSON header of a safetensors file: a function of its content alone.
pub(crate) fn header(
    metadata: &BTreeMap<String, String>,
    tensors: &[(String, TensorInfo)],
) -> Result<Vec<u8>> {
    struct Header<'a>(&'a BTreeMap<String, String>, &'a [(String, TensorInfo)]);
    impl Serialize for Header<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(None)?;
            map.serialize_entry("__metadata__", self.0)?;
            for (name, info) in self.1 {
                map.serialize_entry(name, info)?;
            }
            map.end()
        }
    }
    serde_json::to_vec(&Header(metadata, tensors))
        .map_err(|e| Error::Internal(format!("safetensors header to JSON: {e}")))
}

/// Writes a safetensors file atomically: length of the header (u64, little-endian), header, data.
/// Spaces extend the header so that the data starts at a multiple of 8 bytes.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn write(
    path: &Path,
    header: &[u8],
    data: impl IntoIterator<Item = impl AsRef<[u8]>>,
) -> Result<()> {
    let padded = header.len().next_multiple_of(8);
    atomic_write_with(path, |file| {
        file.write_all(&(padded as u64).to_le_bytes())?;
        file.write_all(header)?;
        file.write_all(&vec![b' '; padded - header.len()])?;
        data.into_iter().try_for_each(|bytes| file.write_all(bytes.as_ref()))
    })
}
