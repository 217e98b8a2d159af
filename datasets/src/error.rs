//! What can be wrong with data, one variant per way a file can lie.

use std::io;
use std::path::{Path, PathBuf};

/// Trouble with a data file. Every message names the file, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A data file is not where it was looked for.
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
    /// The gzip stream is damaged: header, deflate data, checksum, or something behind its end.
    #[error(
        "{}: corrupt gzip after {found} decompressed bytes: {cause} (expected an intact gzip stream)",
        path.display()
    )]
    Gzip {
        /// The file.
        path: PathBuf,
        /// Decompressed bytes obtained before the damage showed.
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
    /// The file goes on behind what its header announces.
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
    /// Images and labels do not pair up.
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
    #[error("{}:{line}: found {found}, expected {expected}", path.display())]
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
    /// A recording, or a file as a whole, is not what is needed.
    #[error("{}: found {found}, expected {expected}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What is needed.
        expected: String,
    },
    /// A `.npy` file is none, or holds another array than is needed.
    #[error("{}: found {found} at offset {offset}, expected {expected}", path.display())]
    Npy {
        /// The file.
        path: PathBuf,
        /// Where, in bytes from the file's start.
        offset: u64,
        /// What is there.
        found: String,
        /// What is needed.
        expected: String,
    },
}

impl Error {
    /// Whether the trouble is with reaching the data (exit code 74) rather than in it (65).
    #[must_use]
    pub fn is_io(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Io { .. })
    }

    /// Sorts the operating system's answer into "not there" and "not readable".
    pub(crate) fn from_os(path: &Path, expected: &'static str, cause: io::Error) -> Self {
        let path = path.to_path_buf();
        if cause.kind() == io::ErrorKind::NotFound {
            Self::NotFound { path, expected }
        } else {
            Self::Io { path, expected, cause }
        }
    }
}
