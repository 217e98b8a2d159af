//! The errors of data files: one variant for each way in which a file can be wrong.

use crate::foreign::{Foreign, START, Wanted, recognise};
use std::io;
use std::path::{Path, PathBuf};

/// The most characters of a file's own text in a message.
const MAX_QUOTED: usize = 500;

/// A file's own text in a form fit for a message: cut after 500 characters, and with control
/// characters escaped, which would move a terminal's cursor.
#[must_use]
pub fn shown(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(MAX_QUOTED) {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    if text.chars().nth(MAX_QUOTED).is_some() {
        shown.push('…');
    }
    shown
}

/// The name among `known` that was probably meant by `found`: Levenshtein's distance to it is at most a third
/// of its length and one.
pub fn nearest<'n>(found: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let by_distance = known.into_iter().map(|name| (strsim::levenshtein(found, name), name));
    let (distance, name) = by_distance.min()?;
    (distance <= 1 + name.len() / 3 && distance < found.chars().count()).then_some(name)
}

/// An error of a data file. Every message names the file, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that the caller named is not there.
    #[error("{}: no such file (expected {expected}); correct the path", path.display())]
    Missing {
        /// The path that was named.
        path: PathBuf,
        /// What should have been there.
        expected: &'static str,
    },
    /// A file of a published data set is not in the data folder.
    #[error(
        "{}: no such file (expected {expected}); set LIMBECK_DATA or --data to the folder that holds the data sets, or correct the path",
        path.display()
    )]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
        /// What should have been there.
        expected: &'static str,
    },
    /// The operating system would not let the file be read: permissions, a directory, a bad disk.
    #[error("{}: cannot be read: {cause} (expected {expected})", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What should have been there.
        expected: &'static str,
        /// The operating system's answer.
        cause: io::Error,
    },
    /// The file is of another format.
    #[error("{}: found {found}, expected {expected}; {advice}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is, in words.
        found: &'static str,
        /// What should have been there.
        expected: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The gzip stream is damaged: its header, deflate data or checksum, or bytes that are not 0
    /// follow its end.
    #[error(
        "{}: corrupt gzip after {found} decompressed bytes: {cause} (expected an intact gzip stream)",
        path.display()
    )]
    Gzip {
        /// The file.
        path: PathBuf,
        /// Number of bytes that were decompressed before the damage.
        found: u64,
        /// The decoder's reason.
        cause: io::Error,
    },
    /// The first four bytes are those of another kind of file.
    #[error(
        "{}: found magic number 0x{found:08x} at offset 0, expected 0x{expected:08x} ({kind})",
        path.display()
    )]
    Magic {
        /// The file.
        path: PathBuf,
        /// The four bytes, big-endian.
        found: u32,
        /// The four bytes of the expected kind.
        expected: u32,
        /// The expected kind in words.
        kind: &'static str,
    },
    /// The header announces dimensions that no data set has.
    #[error("{}: found {found} in the header at offset 4, expected {expected}", path.display())]
    Dimensions {
        /// The file.
        path: PathBuf,
        /// The announced dimensions.
        found: String,
        /// The accepted range.
        expected: String,
    },
    /// The file ends before what its header announces.
    #[error(
        "{}: truncated: found {found} (decompressed) bytes, expected {expected}",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes present, header included, after decompression.
        found: u64,
        /// Bytes announced, header included.
        expected: u64,
    },
    /// The file holds more bytes than its header announces.
    #[error(
        "{}: trailing bytes: found more than the {expected} (decompressed) bytes expected from the header",
        path.display()
    )]
    Trailing {
        /// The file.
        path: PathBuf,
        /// Bytes announced, header included.
        expected: u64,
    },
    /// A label names a class that does not exist.
    #[error(
        "{}: found label {found} at index {index} (offset {}), expected a label below {classes}",
        path.display(),
        index + 8
    )]
    Label {
        /// The file.
        path: PathBuf,
        /// The example.
        index: usize,
        /// Its label.
        found: u8,
        /// The number of classes.
        classes: usize,
    },
    /// The numbers of images and labels differ.
    #[error(
        "found {image_count} images in {} but {label_count} labels in {}, expected equal counts",
        images.display(),
        labels.display()
    )]
    Counts {
        /// The image file.
        images: PathBuf,
        /// Images in it.
        image_count: usize,
        /// The label file.
        labels: PathBuf,
        /// Labels in it.
        label_count: usize,
    },
    /// Training and test images differ in size.
    #[error(
        "{}: found images of {}x{} pixels, expected {}x{} as in {}",
        test.display(), found.0, found.1, expected.0, expected.1, train.display()
    )]
    Shape {
        /// The test images.
        test: PathBuf,
        /// Their height and width.
        found: (usize, usize),
        /// The training images.
        train: PathBuf,
        /// Their height and width.
        expected: (usize, usize),
    },
    /// The file is well formed but is not the published one.
    #[error("{}: found SHA-256 {found}, expected {expected} (decompressed, if it is gzipped)", path.display())]
    Hash {
        /// The file.
        path: PathBuf,
        /// Digest of its decompressed bytes, in hex.
        found: String,
        /// The published digest.
        expected: String,
    },
    /// A line of a text file contradicts the file's format, or another file.
    #[error("{}:{line}: found {}, expected {}", path.display(), shown(found), shown(expected))]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is there.
        found: String,
        /// What is needed.
        expected: String,
    },
    /// An archive is damaged, or lacks a part, or an array is of another form.
    #[error("{}: found {}, expected {}", path.display(), shown(found), shown(expected))]
    Archive {
        /// The archive, or the part.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What is needed.
        expected: String,
    },
    /// A binary file is not of its format, or holds something else than is needed.
    #[error("{}: found {} at offset {offset}, expected {expected}", path.display(), shown(found))]
    Content {
        /// The file.
        path: PathBuf,
        /// The place, in bytes from the file's start.
        offset: u64,
        /// What is there.
        found: String,
        /// What is needed.
        expected: String,
    },
    /// The operating system would not let a file or folder be written.
    #[error("{}: cannot be written: {cause}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        cause: io::Error,
    },
    /// A published file is missing, and nothing may be downloaded.
    #[error(
        "{}: the published file is not there, and nothing is downloaded with --offline; \
         get it where there is a network, from {}, and name the copy with --mirror file:///PATH",
        path.display(), urls.join(" or ")
    )]
    Offline {
        /// Where it belongs.
        path: PathBuf,
        /// Where it can be had.
        urls: Vec<String>,
    },
    /// No mirror had the published file.
    #[error(
        "{}: no mirror gave the published file; try again later, which goes on where this ended, \
         or name another with --mirror:{}",
        path.display(),
        attempts.iter().map(|attempt| format!("\n  {}", shown(attempt))).collect::<String>()
    )]
    Mirrors {
        /// Where it belongs.
        path: PathBuf,
        /// For each address, why it failed.
        attempts: Vec<String>,
        /// Whether a mirror answered with other bytes than the published ones.
        wrong: bool,
    },
}

impl Error {
    /// Whether the data could not be reached (exit code 74); otherwise they are wrong (65).
    #[must_use]
    pub fn is_io(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::NotFound { .. } | Self::Io { .. } => true,
            Self::Write { .. } | Self::Offline { .. } => true,
            Self::Mirrors { wrong, .. } => !wrong,
            _ => false,
        }
    }

    /// Makes an [`Error::Write`] that names the file or folder, for `map_err`.
    #[cfg(feature = "fetch")]
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |cause| Self::Write { path, cause }
    }

    /// Makes [`Error::Missing`] or [`Error::Io`] of the operating system's answer.
    pub(crate) fn from_os(path: &Path, expected: &'static str, cause: io::Error) -> Self {
        let path = path.to_path_buf();
        if cause.kind() == io::ErrorKind::NotFound {
            Self::Missing { path, expected }
        } else {
            Self::Io { path, expected, cause }
        }
    }

    /// Makes [`Error::NotFound`] of [`Error::Missing`]: the file is one of a published data set.
    pub(crate) fn of_published(self) -> Self {
        match self {
            Self::Missing { path, expected } => Self::NotFound { path, expected },
            other => other,
        }
    }

    /// Refuses the file at `path`, which starts with the bytes `start`, if it is recognised as of
    /// another format than the `wanted` one, in words `expected`.
    pub(crate) fn if_foreign(
        start: &[u8],
        path: &Path,
        wanted: Wanted,
        expected: &'static str,
    ) -> Result<(), Self> {
        match recognise(&start[..start.len().min(START)], path, wanted) {
            None => Ok(()),
            Some(Foreign { name, advice }) => {
                Err(Self::Foreign { path: path.to_path_buf(), found: name, expected, advice })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn text_in_messages_is_short_and_keeps_the_cursor_where_it_is() {
        assert_eq!(shown("GO(2)  'é' \\"), "GO(2)  'é' \\");
        assert_eq!(shown("a\x1b[2J\r\n\u{9b}"), "a\\u{1b}[2J\\r\\n\\u{9b}");
        assert_eq!(shown(&"é".repeat(500)), "é".repeat(500));
        assert_eq!(shown(&"é".repeat(501)), "é".repeat(500) + "…");
    }
}
