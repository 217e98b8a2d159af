//! Files from outside, read without trusting them.
//!
//! Sizes are compared with each other and with the file's before anything is allocated for them.
//! Memory is bounded by the size of the valid file:
//!
//! | file | most accepted | memory while it is read |
//! |---|---|---|
//! | safetensors | as its reader says | the file, its values, and its header 64 times |
//! | header of safetensors | 5 MiB | |
//! | JSON | 64 MiB | the file 64 times |
//! | TOML | 64 KiB | the file 256 times |

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use limbeck_datasets::foreign::{Foreign, START, Wanted, recognise};
use serde::de::DeserializeOwned;

use crate::files::error::{Error, Result};

/// The longest JSON file accepted, in bytes.
const MAX_JSON: u64 = 64 << 20;

/// The next `most` bytes of `file`, which is at `path`; fewer where it ends sooner.
///
/// # Errors
/// [`Error::Io`], also where there is not enough memory.
pub(crate) fn read_part(path: &Path, file: &mut File, most: u64) -> Result<Vec<u8>> {
    let io = |e| Error::io("read", path)(e);
    // A pipe has no size; it gives at most `most` bytes too.
    let size = file.metadata().map_err(io)?.len().min(most);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size as usize).map_err(|_| io(ErrorKind::OutOfMemory.into()))?;
    file.take(most).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// The first `most` bytes of the file at `path`; fewer where it ends sooner.
///
/// # Errors
/// [`Error::Io`].
pub fn read_start(path: &Path, most: usize) -> Result<Vec<u8>> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    read_part(path, &mut file, most as u64)
}

/// The bytes of the file at `path`; none of a file of more than `most` bytes.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn read_at_most(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let bytes = read_start(path, most as usize + 1)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// Refuses the file at `path`, which starts with the bytes `start`, if it is recognised as of
/// another format than the `wanted` one, in words `expected`.
///
/// # Errors
/// [`Error::Data`] that says what the file is and what to do.
pub(crate) fn refuse_foreign(
    path: &Path,
    start: &[u8],
    wanted: Wanted,
    expected: &str,
) -> Result<()> {
    match recognise(&start[..start.len().min(START)], path, wanted) {
        None => Ok(()),
        Some(Foreign { name, advice }) => Err(Error::Data {
            path: path.to_path_buf(),
            what: "file".into(),
            found: name.into(),
            expected: format!("{expected}; {advice}"),
        }),
    }
}

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
    let bytes = read_at_most(path, MAX_JSON)?
        .ok_or_else(|| bad("more bytes".into(), format!("at most {MAX_JSON}")))?;
    serde_json::from_slice(&bytes).map_err(|e| {
        let foreign = refuse_foreign(path, &bytes, Wanted::Text, "a JSON file").err();
        foreign.unwrap_or_else(|| bad(e.to_string(), "intact JSON with all its keys".into()))
    })
}

#[cfg(test)]
mod tests {
    use super::read_json;

    #[test]
    fn what_is_no_json_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.json");
        let wide: Vec<u8> = "\u{feff}[1, 2]".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let cases: [(&[u8], &str); 4] = [
            (&wide, "found text in UTF-16, expected a JSON file; save it as UTF-8"),
            (b"<html><body>", "a web page (HTML)"),
            (b"", "an empty file"),
            (b"[1, 2", "expected intact JSON"),
        ];
        for (bytes, part) in cases {
            std::fs::write(&path, bytes).unwrap();
            let error = read_json::<Vec<u8>>(&path, "list").unwrap_err();
            assert_eq!(error.exit_code(), 65);
            assert!(error.to_string().contains(part), "{error}");
        }
        std::fs::write(&path, "[1, 2]").unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path, "list").unwrap(), [1, 2]);
    }
}
