//! Known answers and every way an IDX file can lie.

use flate2::{Compression, write::GzEncoder};
use limbeck_datasets::{Error, Remark, idx};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Two images of 2×3, bytes 1 to 12.
fn images() -> Vec<u8> {
    let mut file = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3];
    file.extend(1..=12);
    file
}

/// Labels 7 and 2.
const LABELS: [u8; 10] = [0, 0, 8, 1, 0, 0, 0, 2, 7, 2];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn images_error(&self, bytes: &[u8]) -> Error {
        let path = self.file("hostile", bytes);
        let error = idx::read_images(&path).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert!(!error.is_io(), "{error}");
        error
    }
}

fn assert_says(error: &Error, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "no '{part}' in: {message}");
    }
}

#[test]
fn known_answer_plain_and_gzipped_whatever_the_name() {
    let folder = Folder::new();
    let plain = folder.file("a.gz", &images()); // the name lies
    let gzipped = folder.file("b", &gzip(&images()));
    let read = idx::read_images(&plain).unwrap();
    assert_eq!((read.count, read.height, read.width), (2, 2, 3));
    assert!(read.pixels.iter().copied().eq(1..=12));
    // sha256sum of the 28 bytes
    assert_eq!(read.sha256, "f7169b91c01c82a1c0c44aee0f6db5b5a609be8d0ba16e2ded674fe748c45dfe");
    assert_eq!(idx::read_images(&gzipped).unwrap(), read);

    let labels = idx::read_labels(&folder.file("l", &LABELS), 8).unwrap();
    assert_eq!(labels.labels, [7, 2]);
    assert_eq!(labels.sha256, "ccde9e37761edb216f68e4cda3e7e1a07cc7abea3580be5ea61f98b64667576c");
    let gzipped = folder.file("lz", &gzip(&LABELS));
    assert_eq!(idx::read_labels(&gzipped, 8).unwrap(), labels);
}

#[test]
fn concatenated_gzip_members_are_one_file() {
    let folder = Folder::new();
    let whole = images();
    let path = folder.file("two", &[gzip(&whole[..20]), gzip(&whole[20..])].concat());
    assert!(idx::read_images(&path).unwrap().pixels.into_iter().eq(1..=12));
}

/// A tape or a disk image fills its last block with zeros; `gzip -d` and Python's `gzip` pass over
/// them, behind each member.
#[test]
fn zeros_behind_a_gzip_member_are_padding() {
    let folder = Folder::new();
    let whole = images();
    let plain = idx::read_images(&folder.file("plain", &whole)).unwrap();
    for zeros in [1, 511, 100_000] {
        let padding = vec![0; zeros];
        let one = [&gzip(&whole)[..], &padding].concat();
        let two = [gzip(&whole[..20]), padding.clone(), gzip(&whole[20..]), padding].concat();
        for bytes in [one, two] {
            assert_eq!(idx::read_images(&folder.file("padded", &bytes)).unwrap(), plain);
            let error = folder.images_error(&[&bytes[..], b"rest"].concat());
            assert!(matches!(error, Error::Gzip { found: 28, .. }), "{error}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_is_read_once() {
    let folder = Folder::new();
    let labels = folder.file("labels", &LABELS);
    let pipe = folder.0.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    for bytes in [images(), gzip(&images())] {
        let into = pipe.clone();
        let writer = std::thread::spawn(move || fs::write(into, bytes).unwrap());
        let data = idx::load_dataset(&pipe, Some(&labels), &pipe, &labels, Some(10)).unwrap();
        writer.join().unwrap();
        assert_eq!(
            (data.train.images().image(1), &data.test),
            (&[7, 8, 9, 10, 11, 12][..], &data.train)
        );
    }
}

#[test]
fn files_of_other_formats_are_named() {
    let folder = Folder::new();
    let cases: [(&[u8], &str, &str); 4] = [
        (b"<!DOCTYPE html><html><body>404</body></html>", "a web page (HTML)", "download"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha",
            "a Git-LFS pointer",
            "git lfs pull",
        ),
        (b"\x93NUMPY\x01\0", "a NumPy .npy array", "dataset = \"npz\""),
        (b"a,b,label\n1,2,0\n", "a text file", "dataset = \"csv\""),
    ];
    for (bytes, name, advice) in cases {
        for bytes in [bytes.to_vec(), gzip(bytes)] {
            let error = folder.images_error(&bytes);
            assert!(matches!(error, Error::Foreign { .. }), "{error}");
            assert_says(&error, &[name, advice, "expected an IDX image file"]);
        }
    }
}

#[test]
fn wrong_magic() {
    let folder = Folder::new();
    let path = folder.file("labels", &LABELS);
    let error = idx::read_images(&path).unwrap_err();
    assert!(matches!(error, Error::Magic { .. }));
    assert_says(&error, &["labels", "0x00000801", "0x00000803", "offset 0"]);
    let path = folder.file("images", &gzip(&images()));
    let error = idx::read_labels(&path, 10).unwrap_err();
    assert_says(&error, &["images", "found magic number 0x00000803", "0x00000801"]);
}

#[test]
fn truncation_anywhere_names_found_and_expected() {
    let folder = Folder::new();
    let whole = images();
    for cut in 0..whole.len() {
        let expected = if cut < 16 { 16 } else { 28 };
        for bytes in [whole[..cut].to_vec(), gzip(&whole[..cut])] {
            let error = folder.images_error(&bytes);
            assert!(matches!(error, Error::Truncated { .. }), "{error}");
            assert_says(&error, &[&format!("found {cut} "), &format!("expected {expected}")]);
        }
    }
}

#[test]
fn a_gzip_stream_cut_anywhere_is_an_error() {
    let folder = Folder::new();
    let whole = gzip(&images());
    for cut in 0..whole.len() {
        let error = folder.images_error(&whole[..cut]);
        match error {
            Error::Truncated { found, expected, .. } => assert!(found < expected, "{cut}"),
            // All data there, but not the end of the stream or its checksum.
            Error::Gzip { found, .. } => assert_eq!(found, 28, "{cut}"),
            other => panic!("{cut}: {other}"),
        }
    }
}

#[test]
fn corrupt_gzip() {
    let folder = Folder::new();
    let whole = gzip(&images());
    // checksum and length; below, a reserved block type and a foreign tail
    for place in [whole.len() - 8, whole.len() - 4] {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x10;
        let error = folder.images_error(&bytes);
        assert!(matches!(error, Error::Gzip { .. }), "{error}");
        assert_says(&error, &["corrupt gzip after 28 ", "expected an intact gzip"]);
    }
    let mut bytes = whole.clone();
    bytes[10] = 0x07;
    let error = folder.images_error(&bytes);
    assert!(matches!(error, Error::Gzip { found: 0, .. }), "{error}");
    let error = folder.images_error(&[whole, b"rest".to_vec()].concat());
    assert!(matches!(error, Error::Gzip { .. }), "{error}");
}

#[test]
fn trailing_bytes() {
    let folder = Folder::new();
    let mut bytes = images();
    bytes.push(0);
    for bytes in [bytes.clone(), gzip(&bytes)] {
        let error = folder.images_error(&bytes);
        assert!(matches!(error, Error::Trailing { .. }), "{error}");
        assert_says(&error, &["trailing", "more than the 28 ", "expected"]);
    }
}

#[test]
fn absurd_dimensions_are_refused_before_allocation() {
    let folder = Folder::new();
    let words: [[u32; 3]; 6] = [
        [0, 28, 28],
        [1, 0, 28],
        [1, 28, 0],
        [1, 4097, 1],
        [u32::MAX, u32::MAX, u32::MAX],
        [u32::MAX, 2, 1],
    ];
    for [count, height, width] in words {
        let mut bytes = vec![0, 0, 8, 3];
        for word in [count, height, width] {
            bytes.extend(word.to_be_bytes());
        }
        let error = folder.images_error(&bytes);
        assert!(matches!(error, Error::Dimensions { .. }), "{error}");
        let found = format!("found {count} images of {height}x{width} pixels");
        assert_says(&error, &[&found, "expected at least one image"]);
    }
    let path = folder.file("none", &[0, 0, 8, 1, 0, 0, 0, 0]);
    let error = idx::read_labels(&path, 10).unwrap_err();
    assert_says(&error, &["none", "found 0 labels", "expected at least one"]);
}

#[test]
fn a_small_file_that_announces_gigabytes_is_merely_truncated() {
    let folder = Folder::new();
    // 1024 images of 2048×2048: exactly the 4 GiB allowed, none of them there.
    let bytes = [0, 0, 8, 3, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0, 8, 0];
    for bytes in [bytes.to_vec(), gzip(&bytes)] {
        let error = folder.images_error(&bytes);
        assert_says(&error, &["truncated", "found 16 ", "expected 4294967312"]);
    }
}

#[test]
fn label_out_of_range() {
    let folder = Folder::new();
    let path = folder.file("labels", &LABELS);
    let error = idx::read_labels(&path, 7).unwrap_err();
    assert!(!error.is_io());
    assert_says(&error, &["labels", "label 7 at index 0", "offset 8", "below 7"]);
}

#[test]
fn counts_must_agree() {
    let folder = Folder::new();
    let (x, y) = (folder.file("x", &images()), folder.file("y", &LABELS));
    let three = folder.file("three", &[0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3]);
    let error = idx::load_dataset(&x, Some(&three), &x, &y, Some(10)).unwrap_err();
    assert!(!error.is_io());
    let (x, three) = (x.to_str().unwrap(), three.to_str().unwrap());
    assert_says(&error, &[x, three, "found 2 images", "3 labels"]);
}

#[test]
fn train_and_test_must_have_the_same_shape() {
    let folder = Folder::new();
    let (x, y) = (folder.file("x", &images()), folder.file("y", &LABELS));
    let mut turned = images();
    turned.swap(11, 15);
    let turned = folder.file("turned", &turned);
    let error = idx::load_dataset(&x, Some(&y), &turned, &y, Some(10)).unwrap_err();
    assert_says(&error, &["turned", "found images of 3x2", "expected 2x3"]);
}

#[test]
fn own_files_with_and_without_training_labels() {
    let folder = Folder::new();
    let (x, y) = (folder.file("x", &images()), folder.file("y", &LABELS));
    let data = idx::load_dataset(&x, Some(&y), &x, &y, Some(10)).unwrap();
    assert_eq!((data.name.as_str(), data.classes), ("idx", 10));
    assert_eq!(data.train, data.test);
    assert_eq!(data.train.labels.as_deref(), Some(&[7, 2][..]));
    assert_eq!(data.train.images().image(1), [7, 8, 9, 10, 11, 12]);
    assert_eq!(data.sha256[x.to_str().unwrap()], idx::read_images(&x).unwrap().sha256);

    // As EMNIST's letters, numbers from 1 to 26, are names of classes where nobody says how many.
    let named = idx::load_dataset(&x, Some(&y), &x, &y, None).unwrap();
    assert_eq!((&named.names.classes[..], named.classes), (&["2".into(), "7".into()][..], 2));
    assert_eq!(named.train.labels.as_deref(), Some(&[1, 0][..]));
    let error = idx::load_dataset(&x, Some(&y), &x, &y, Some(7)).unwrap_err();
    assert_says(&error, &["label 7 at index 0", "offset 8", "0 to 6"]);
    // Pixels of at most 12 would be small numbers.
    assert!(matches!(&data.notes[..], [Remark::Warning(text)] if text.contains("pixel is 12")));

    let data = idx::load_dataset(&x, None, &x, &y, Some(10)).unwrap();
    assert!(data.train.labels.is_none());
    assert_eq!(data.train.len(), 2);
}

#[test]
fn not_found_and_unreadable_are_io_trouble() {
    let folder = Folder::new();
    let error = idx::read_images(&folder.0.path().join("absent")).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }) && error.is_io());
    assert_says(&error, &["absent", "no such file", "an IDX image file", "correct the path"]);
    // The file was named by the user; the data folder has nothing to do with it.
    assert!(!error.to_string().contains("LIMBECK_DATA"), "{error}");
    let error = idx::read_labels(folder.0.path(), 10).unwrap_err(); // a folder
    assert!(matches!(error, Error::Io { .. }) && error.is_io());
    assert_says(&error, &[Path::new(folder.0.path()).to_str().unwrap(), "cannot be read"]);
}
