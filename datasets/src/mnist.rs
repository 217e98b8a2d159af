//! The published MNIST files, verified.

use crate::digest::FileStatus;
use crate::idx::{self, IdxImages, IdxLabels};
use crate::{Dataset, Error, Split};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const CLASSES: usize = 10;

/// A published file and the SHA-256 of its decompressed bytes.
struct Published {
    name: &'static str,
    sha256: &'static str,
}

const TRAIN_IMAGES: Published = Published {
    name: "train-images-idx3-ubyte",
    sha256: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
};
const TRAIN_LABELS: Published = Published {
    name: "train-labels-idx1-ubyte",
    sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
};
const TEST_IMAGES: Published = Published {
    name: "t10k-images-idx3-ubyte",
    sha256: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
};
const TEST_LABELS: Published = Published {
    name: "t10k-labels-idx1-ubyte",
    sha256: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
};

impl Published {
    /// `data_dir/mnist/name` or, if only that exists, the same with `.gz`.
    fn path(&self, data_dir: &Path) -> PathBuf {
        let plain = data_dir.join("mnist").join(self.name);
        let gzipped = plain.with_extension("gz");
        if !plain.exists() && gzipped.exists() { gzipped } else { plain }
    }

    fn images(&self, data_dir: &Path) -> Result<IdxImages, Error> {
        let path = self.path(data_dir);
        let images = idx::read_images(&path)?;
        self.check(path, &images.sha256)?;
        Ok(images)
    }

    fn labels(&self, data_dir: &Path) -> Result<IdxLabels, Error> {
        let path = self.path(data_dir);
        let labels = idx::read_labels(&path, CLASSES)?;
        self.check(path, &labels.sha256)?;
        Ok(labels)
    }

    fn check(&self, path: PathBuf, found: &str) -> Result<(), Error> {
        if found == self.sha256 {
            return Ok(());
        }
        Err(Error::Hash { path, found: found.to_owned(), expected: self.sha256.to_owned() })
    }
}

/// Loads `data_dir/mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte`, each plain or `.gz`:
/// 60 000 training and 10 000 test images of 28×28, 10 classes.
///
/// # Errors
/// As [`idx::read_images`] and [`idx::read_labels`], or a file that is not the published one:
/// the message names file, found and expected SHA-256.
pub fn load(data_dir: &Path) -> Result<Dataset, Error> {
    let mut sha256 = BTreeMap::new();
    let mut split = |images: Published, labels: Published| -> Result<Split, Error> {
        for file in [&images, &labels] {
            sha256.insert(file.name.to_owned(), file.sha256.to_owned());
        }
        idx::pair(
            &images.path(data_dir),
            images.images(data_dir)?,
            &labels.path(data_dir),
            labels.labels(data_dir)?,
        )
    };
    let train = split(TRAIN_IMAGES, TRAIN_LABELS)?;
    let test = split(TEST_IMAGES, TEST_LABELS)?;
    Ok(Dataset { name: "mnist".to_owned(), classes: CLASSES, train, test, sha256 })
}

/// Whether all four files exist, plain or `.gz`; their contents are not looked at.
#[must_use]
pub fn is_present(data_dir: &Path) -> bool {
    [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS]
        .iter()
        .all(|file| file.path(data_dir).is_file())
}

/// Reads each of the four files and reports on it; one bad file does not hide the others.
#[must_use]
pub fn verify(data_dir: &Path) -> Vec<FileStatus> {
    let status = |file: Published, read: fn(&Path) -> Result<String, Error>| {
        let path = file.path(data_dir);
        FileStatus { found: read(&path), path, expected: file.sha256.to_owned() }
    };
    let images = |path: &Path| idx::read_images(path).map(|images| images.sha256);
    let labels = |path: &Path| idx::read_labels(path, CLASSES).map(|labels| labels.sha256);
    vec![
        status(TRAIN_IMAGES, images),
        status(TRAIN_LABELS, labels),
        status(TEST_IMAGES, images),
        status(TEST_LABELS, labels),
    ]
}
