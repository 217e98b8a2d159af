//! Fingerprints of data.

use crate::Error;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// What was found when a file was compared with the published one.
#[derive(Debug)]
pub struct FileStatus {
    /// The file looked at.
    pub path: PathBuf,
    /// SHA-256 of its decompressed bytes in hex, or why there is none.
    pub found: Result<String, Error>,
    /// The published SHA-256.
    pub expected: String,
}

impl FileStatus {
    /// Whether the file is the published one.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.found.as_ref().is_ok_and(|found| *found == self.expected)
    }

    /// The file's SHA-256.
    ///
    /// # Errors
    /// Why there is none, or [`Error::Hash`] if it is not the published one.
    pub fn verified(self) -> Result<String, Error> {
        let FileStatus { path, found, expected } = self;
        let found = found?;
        if found == expected { Ok(found) } else { Err(Error::Hash { path, found, expected }) }
    }
}

/// Lower-case hex SHA-256 of the parts, one behind the other.
pub fn sha256_of<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hex(hasher)
}

/// The same of a file, which is not held in memory.
pub fn sha256_of_file(path: &Path) -> io::Result<String> {
    sha256_of_reader(File::open(path)?)
}

/// The same of all that is left in `reader`.
pub(crate) fn sha256_of_reader(reader: impl Read) -> io::Result<String> {
    let mut file = BufReader::new(reader);
    let mut hasher = Sha256::new();
    loop {
        let part = file.fill_buf()?;
        if part.is_empty() {
            return Ok(hex(hasher));
        }
        hasher.update(part);
        let length = part.len();
        file.consume(length);
    }
}

/// A reader whose bytes all go into a digest, so that a file need not be read again for it.
pub(crate) struct Hashed<'h, R> {
    pub(crate) reader: R,
    pub(crate) hasher: &'h mut Sha256,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// The digest in lower-case hex.
pub(crate) fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn known_answer() {
        // FIPS 180-4's example.
        assert_eq!(
            super::sha256_of(["a", "", "bc"]),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
