//! The IDX format of the MNIST files, plain or gzipped.
//!
//! Images: magic 0x00000803, then count, height and width, then count·height·width bytes.
//! Labels: magic 0x00000801, then count, then count bytes. Header words are 32-bit big-endian.
//! Gzip is recognised by its first two bytes, never by the name. Several members are one file, and
//! zeros that fill up a block may follow each, as `gzip` and Python have it.
//!
//! The reader trusts no file. It checks the dimensions before it allocates. It bounds memory by what
//! the header announces *and* by what a file of that length can hold. It reads the stream to its
//! end, so that the gzip checksum is verified.

use crate::digest::sha256_of;
use crate::foreign::{START, Wanted};
use crate::labels::{Classes, Fault, Labels};
use crate::{Dataset, Error, Split};
use byteorder::{BigEndian, ByteOrder};
use flate2::bufread::GzDecoder;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

const IMAGES_MAGIC: u32 = 0x0803;
const LABELS_MAGIC: u32 = 0x0801;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The longest image side accepted, in pixels.
const MAX_SIDE: usize = 4096;
/// The longest decompressed body accepted, in bytes.
const MAX_BODY: usize = 1 << 32;
/// No deflate stream expands by more than this factor.
const MAX_EXPANSION: u64 = 1032;

/// An image file's contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdxImages {
    /// Number of images, at least 1.
    pub count: usize,
    /// Rows of one image, 1 to 4096.
    pub height: usize,
    /// Columns of one image, 1 to 4096.
    pub width: usize,
    /// `[count, height·width]`, row-major.
    pub pixels: Vec<u8>,
    /// Lower-case hex SHA-256 of the decompressed file.
    pub sha256: String,
}

/// A label file's contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdxLabels {
    /// `[count]`, at least 1 of them.
    pub labels: Vec<u16>,
    /// Lower-case hex SHA-256 of the decompressed file.
    pub sha256: String,
}

/// Reads an image file. It needs memory for the pixels, and 128 KiB.
///
/// # Errors
/// Not found or unreadable, corrupt gzip, wrong magic, a count of 0, a side outside 1..=4096, more
/// than 4 GiB announced, truncated, or trailing bytes.
pub fn read_images(path: &Path) -> Result<IdxImages, Error> {
    let mut file = Source::open(path, IMAGES_MAGIC, "an IDX image file")?;
    let header = file.header::<16>()?;
    let word = |i| BigEndian::read_u32(&header[i..]) as usize;
    let (count, height, width) = (word(4), word(8), word(12));
    let sides = 1..=MAX_SIDE;
    let body = height.checked_mul(width).and_then(|size| size.checked_mul(count));
    let body = body.filter(|body| (1..=MAX_BODY).contains(body));
    let (Some(body), true) = (body, sides.contains(&height) && sides.contains(&width)) else {
        return Err(Error::Dimensions {
            path: path.to_path_buf(),
            found: format!("{count} images of {height}x{width} pixels"),
            expected: format!(
                "at least one image, sides of 1 to {MAX_SIDE}, at most {MAX_BODY} bytes"
            ),
        });
    };
    let (pixels, sha256) = file.body(&header, body)?;
    Ok(IdxImages { count, height, width, pixels, sha256 })
}

/// Whether the regular file at `path` begins as an image file, compressed or not.
///
/// # Errors
/// Not found or unreadable.
pub fn is_images(path: &Path) -> Result<bool, Error> {
    let from_os = |cause| Error::from_os(path, "an IDX image file", cause);
    let file = BufReader::new(File::open(path).map_err(from_os)?);
    let mut start = Vec::new();
    let mut reader = unpacked(file).map_err(from_os)?.take(4);
    // A damaged gzip is told by whoever reads it.
    let _ = reader.read_to_end(&mut start);
    Ok(start == IMAGES_MAGIC.to_be_bytes())
}

/// Reads a label file whose labels must lie in 0..`classes`. It needs three bytes of memory for each
/// label, and 128 KiB.
///
/// # Errors
/// As [`read_images`], or a label out of range.
pub fn read_labels(path: &Path, classes: usize) -> Result<IdxLabels, Error> {
    let mut file = Source::open(path, LABELS_MAGIC, "an IDX label file")?;
    let header = file.header::<8>()?;
    let count = BigEndian::read_u32(&header[4..]) as usize;
    if count == 0 {
        return Err(Error::Dimensions {
            path: path.to_path_buf(),
            found: "0 labels".to_owned(),
            expected: "at least one label".to_owned(),
        });
    }
    let (labels, sha256) = file.body(&header, count)?;
    let stray = labels.iter().position(|&label| usize::from(label) >= classes);
    if let Some(index) = stray {
        return Err(Error::Label {
            path: path.to_path_buf(),
            index,
            found: labels[index],
            classes,
        });
    }
    let labels = labels.into_iter().map(u16::from).collect();
    Ok(IdxLabels { labels, sha256 })
}

/// Reads the user's own image and label files as a data set named `idx`. Without training labels
/// the training split is an unlabelled transfer set. Labels are below `classes`, or count from 0, or are
/// other numbers, such as 1 to 26, which are then the names of the classes in their order.
///
/// # Errors
/// As [`read_images`] and [`read_labels`]; or images and labels that differ in number; or
/// training and test images that differ in size; or labels that are no classes.
pub fn load_dataset(
    train_images: &Path,
    train_labels: Option<&Path>,
    test_images: &Path,
    test_labels: &Path,
    classes: Option<usize>,
) -> Result<Dataset, Error> {
    let mut sha256 = BTreeMap::new();
    let mut train = read_split(train_images, train_labels, &mut sha256)?;
    // A file is read once: a pipe gives its bytes to one reader.
    let mut test = match (test_images, Some(test_labels)) == (train_images, train_labels) {
        true => train.clone(),
        false => read_split(test_images, Some(test_labels), &mut sha256)?,
    };
    let size = |split: &Split| (split.images().height, split.images().width);
    let (found, expected) = (size(&test), size(&train));
    if found != expected {
        return Err(Error::Shape {
            test: test_images.to_path_buf(),
            found,
            train: train_images.to_path_buf(),
            expected,
        });
    }
    let bad = |path: &Path| {
        let path = path.to_path_buf();
        move |Fault { row, found, expected }: Fault| Error::Content {
            path,
            offset: 8 + row.unwrap_or(0) as u64,
            found: match row {
                Some(index) => format!("label {found} at index {index}"),
                None => found,
            },
            expected,
        }
    };
    // An unlabelled transfer set has the classes of what is tested.
    let (path, labels) = match (train_labels, &train.labels) {
        (Some(path), Some(labels)) => (path, labels),
        _ => (test_labels, test.labels.as_ref().expect("read with its labels")),
    };
    let of = |labels: &[u16]| Labels::of(labels.iter().map(|&label| f64::from(label)));
    let known = of(labels).and_then(|labels| Classes::of(&labels, classes));
    let mut classes = known.map_err(bad(path))?;
    for (split, path) in [(&mut train, train_labels), (&mut test, Some(test_labels))] {
        if let (Some(labels), Some(path)) = (&mut split.labels, path) {
            *labels = of(labels).and_then(|labels| classes.index(&labels)).map_err(bad(path))?;
        }
    }
    let mut notes = std::mem::take(&mut classes.notes);
    notes.extend(train.images().remark_of_dark(train_images));
    Ok(Dataset {
        name: "idx".to_owned(),
        classes: classes.count,
        names: classes.names(),
        train,
        test,
        sha256,
        notes,
    })
}

/// Reads images and, if given, their labels, and enters each file's SHA-256 under its path.
fn read_split(
    images_path: &Path,
    labels_path: Option<&Path>,
    sha256: &mut BTreeMap<String, String>,
) -> Result<Split, Error> {
    let images = read_images(images_path)?;
    sha256.insert(images_path.display().to_string(), images.sha256.clone());
    let Some(labels_path) = labels_path else {
        return Ok(images.unlabelled());
    };
    let labels = read_labels(labels_path, 256)?;
    sha256.insert(labels_path.display().to_string(), labels.sha256.clone());
    pair(images_path, images, labels_path, labels)
}

/// Joins images with their labels.
///
/// # Errors
/// If they differ in number; the message names both files and both counts.
pub fn pair(
    images_path: &Path,
    images: IdxImages,
    labels_path: &Path,
    labels: IdxLabels,
) -> Result<Split, Error> {
    if images.count != labels.labels.len() {
        return Err(Error::Counts {
            images: images_path.to_path_buf(),
            image_count: images.count,
            labels: labels_path.to_path_buf(),
            label_count: labels.labels.len(),
        });
    }
    Ok(Split { labels: Some(labels.labels), ..images.unlabelled() })
}

impl IdxImages {
    /// The images as a split without labels.
    #[must_use]
    pub fn unlabelled(self) -> Split {
        Split::of_images(self.pixels, (self.height, self.width), None)
    }
}

/// The bytes behind `reader`'s gzip, if it has one.
pub(crate) fn unpacked<'r>(mut reader: impl BufRead + 'r) -> io::Result<Box<dyn Read + 'r>> {
    Ok(match reader.fill_buf()?.starts_with(&GZIP_MAGIC) {
        true => Box::new(Members(Some(GzDecoder::new(reader)))),
        false => Box::new(reader),
    })
}

/// Makes the error of a read that failed behind `found` decompressed bytes: the gzip is damaged, or the
/// operating system refuses.
pub(crate) fn damaged(path: &Path, kind: &'static str, found: u64, cause: io::Error) -> Error {
    match cause.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::InvalidInput | ErrorKind::InvalidData => {
            Error::Gzip { path: path.to_path_buf(), found, cause }
        }
        _ => Error::from_os(path, kind, cause),
    }
}

/// The decompressed bytes of gzip's members; `None` behind the last.
struct Members<R>(Option<GzDecoder<R>>);

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.0 {
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let rest = self.0.take().map(GzDecoder::into_inner);
            self.0 = rest.map(behind_zeros).transpose()?.flatten().map(GzDecoder::new);
        }
        Ok(0)
    }
}

/// The reader at its next byte that is not 0; `None` if there is none.
fn behind_zeros<R: BufRead>(mut reader: R) -> io::Result<Option<R>> {
    loop {
        let part = reader.fill_buf()?;
        let length = part.len();
        match part.iter().position(|&byte| byte != 0) {
            Some(zeros) => {
                reader.consume(zeros);
                return Ok(Some(reader));
            }
            None if length == 0 => return Ok(None),
            None => reader.consume(length),
        }
    }
}

/// An open IDX file behind its gzip, if it has one.
struct Source<'p> {
    path: &'p Path,
    magic: u32,
    kind: &'static str,
    reader: Box<dyn Read>,
    /// The most decompressed bytes that a file of this length can hold.
    capacity: u64,
}

impl<'p> Source<'p> {
    fn open(path: &'p Path, magic: u32, kind: &'static str) -> Result<Self, Error> {
        let opened = || -> io::Result<(Box<dyn Read>, u64)> {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            let mut file = BufReader::new(file);
            let is_gzip = file.fill_buf()?.starts_with(&GZIP_MAGIC);
            let capacity = if is_gzip { length.saturating_mul(MAX_EXPANSION) } else { length };
            Ok((unpacked(file)?, capacity))
        };
        let (reader, capacity) = opened().map_err(|e| Error::from_os(path, kind, e))?;
        Ok(Self { path, magic, kind, reader, capacity })
    }

    /// Reads `wanted` bytes and at most `probe` more into a buffer; `before` bytes came earlier. A
    /// stream that ends too early gives fewer than `wanted`. Damage and failed reads are errors, and
    /// so is a gzip stream that has all wanted bytes but lost its checksum.
    fn read(&mut self, before: usize, wanted: usize, probe: usize) -> Result<Vec<u8>, Error> {
        let mut buffer = Vec::new();
        buffer
            .try_reserve_exact(wanted.min(self.capacity as usize) + probe)
            .map_err(|refused| Error::from_os(self.path, self.kind, refused.into()))?;
        let mut reader = self.reader.by_ref().take((wanted + probe) as u64);
        let Err(cause) = reader.read_to_end(&mut buffer) else {
            return Ok(buffer);
        };
        match cause.kind() {
            ErrorKind::UnexpectedEof if buffer.len() < wanted => Ok(buffer),
            _ => Err(damaged(self.path, self.kind, (before + buffer.len()) as u64, cause)),
        }
    }

    /// Reads the first N bytes and checks the magic number.
    fn header<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let read = self.read(0, N, 0)?;
        if read.len() >= 4 {
            let found = BigEndian::read_u32(&read);
            if found != self.magic {
                // What cannot be read does not matter: the file is refused anyway.
                let more = self.read(N, START - N, 0).unwrap_or_default();
                Error::if_foreign(&[read, more].concat(), self.path, Wanted::Idx, self.kind)?;
                return Err(Error::Magic {
                    path: self.path.to_path_buf(),
                    found,
                    expected: self.magic,
                    kind: self.kind,
                });
            }
        }
        <[u8; N]>::try_from(read.as_slice()).map_err(|_| Error::Truncated {
            path: self.path.to_path_buf(),
            found: read.len() as u64,
            expected: N as u64,
        })
    }

    /// Reads the `length` bytes behind the header, with which the file must end; returns them and
    /// the SHA-256 of the file.
    fn body(mut self, header: &[u8], length: usize) -> Result<(Vec<u8>, String), Error> {
        // The probe byte takes the reader to the end, where gzip verifies its checksum.
        let body = self.read(header.len(), length, 1)?;
        let path = self.path.to_path_buf();
        let found = (header.len() + body.len()) as u64;
        let expected = (header.len() + length) as u64;
        match body.len().cmp(&length) {
            Ordering::Less => Err(Error::Truncated { path, found, expected }),
            Ordering::Greater => Err(Error::Trailing { path, expected }),
            Ordering::Equal => {
                let sha256 = sha256_of([header, &body]);
                Ok((body, sha256))
            }
        }
    }
}
