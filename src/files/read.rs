//! Files from outside, read without trusting them.
//!
//! Sizes are compared with each other and with the file's before anything is allocated for them.
//! Memory is bounded by the size of the valid file:
//!
//! | file | most accepted | memory while it is read |
//! |---|---|---|
//! | safetensors | as its reader says | the file, its values, and its header 64 times |
//! | header of safetensors | 1 MiB | |
//! | JSON | 64 MiB | the file 64 times |

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::de::DeserializeOwned;

use crate::files::error::{Error, Result};

/// The longest header of a safetensors file accepted, in bytes: that of 6,000 layers.
const MAX_HEADER: u64 = 1 << 20;
/// The longest JSON file accepted, in bytes.
const MAX_JSON: u64 = 64 << 20;
/// A safetensors file starts with the length of its header, a little-endian `u64`.
const LENGTH_BYTES: u64 = 8;

/// Reads a JSON file of at most 64 MiB; `what` it is, in words.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] with line and column of what is no JSON or not as expected.
pub fn read_json<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    let bad = |found: String, expected: String| Error::Data {
        path: path.to_path_buf(),
        what: what.to_string(),
        found,
        expected,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::io("read", path))?;
    file.take(MAX_JSON + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > MAX_JSON {
        return Err(bad("more bytes".into(), format!("at most {MAX_JSON}")));
    }
    serde_json::from_slice(&bytes)
        .map_err(|e| bad(e.to_string(), "intact JSON with all its keys".into()))
}

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
        let file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        if size > most {
            return Err(bad("file", format!("{size} bytes"), format!("at most {most}")));
        }
        let mut file = file.take(size);
        // A file that shrinks meanwhile ends early; each part's length is compared.
        let mut part = |wanted: u64| -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            bytes
                .try_reserve_exact(wanted as usize)
                .map_err(|_| io(io::ErrorKind::OutOfMemory.into()))?;
            file.by_ref().take(wanted).read_to_end(&mut bytes).map_err(io)?;
            Ok(bytes)
        };

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
