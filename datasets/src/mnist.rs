//! The published MNIST files, verified.

use crate::digest::FileStatus;
#[cfg(feature = "fetch")]
use crate::fetch::{self, Fetched, Fetcher};
use crate::idx::{self, IdxImages, IdxLabels};
use crate::{Dataset, Error, Names, Split};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const CLASSES: usize = 10;
/// Addresses of folders that hold the four files, gzipped.
#[cfg(feature = "fetch")]
const MIRRORS: [&str; 2] = [
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
];
/// The longest gzipped file accepted, in bytes; the longest published one has 9,912,422.
#[cfg(feature = "fetch")]
const MAX_GZIPPED: u64 = 1 << 24;

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

/// The four files, each with the function that reads it and computes its SHA-256.
const FILES: [(Published, DigestOf); 4] = [
    (TRAIN_IMAGES, digest_of_images),
    (TRAIN_LABELS, digest_of_labels),
    (TEST_IMAGES, digest_of_images),
    (TEST_LABELS, digest_of_labels),
];

type DigestOf = fn(&Path) -> Result<String, Error>;

fn digest_of_images(path: &Path) -> Result<String, Error> {
    idx::read_images(path).map(|images| images.sha256).map_err(Error::of_published)
}

fn digest_of_labels(path: &Path) -> Result<String, Error> {
    idx::read_labels(path, CLASSES).map(|labels| labels.sha256).map_err(Error::of_published)
}

impl Published {
    /// `data_dir/mnist/name` or, if only that exists, the same with `.gz`.
    fn path(&self, data_dir: &Path) -> PathBuf {
        let plain = data_dir.join("mnist").join(self.name);
        let gzipped = plain.with_extension("gz");
        if !plain.exists() && gzipped.exists() { gzipped } else { plain }
    }

    fn images(&self, data_dir: &Path) -> Result<IdxImages, Error> {
        let path = self.path(data_dir);
        let images = idx::read_images(&path).map_err(Error::of_published)?;
        self.check(path, &images.sha256)?;
        Ok(images)
    }

    fn labels(&self, data_dir: &Path) -> Result<IdxLabels, Error> {
        let path = self.path(data_dir);
        let labels = idx::read_labels(&path, CLASSES).map_err(Error::of_published)?;
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
    Ok(Dataset {
        name: "mnist".to_owned(),
        classes: CLASSES,
        names: Names::default(),
        notes: Vec::new(),
        train,
        test,
        sha256,
    })
}

/// Whether all four files exist, plain or `.gz`. Their contents are not read.
#[must_use]
pub fn is_present(data_dir: &Path) -> bool {
    FILES.iter().all(|(file, _)| file.path(data_dir).is_file())
}

/// Reads each of the four files and compares it with the published one. A bad file does not keep the
/// others from being read.
#[must_use]
pub fn verify(data_dir: &Path) -> Vec<FileStatus> {
    let status = |(file, digest): (Published, DigestOf)| {
        let path = file.path(data_dir);
        FileStatus { found: digest(&path), path, expected: file.sha256.to_owned() }
    };
    FILES.into_iter().map(status).collect()
}

/// Downloads those of the four files that are missing or not the published ones, as
/// `data_dir/mnist/NAME.gz`. A bad plain file, which would be read before it, is then removed. A
/// mirror is the address of a folder that holds the four files, gzipped.
///
/// # Errors
/// [`Error::Mirrors`] when no mirror had a file, [`Error::Offline`], [`Error::Write`]; and
/// [`Error::Io`] when a file that is there cannot be read. After an error, files that were there are
/// unchanged.
#[cfg(feature = "fetch")]
pub fn fetch(data_dir: &Path, fetcher: &mut Fetcher<'_>) -> Result<Vec<Fetched>, Error> {
    let fetch = |(file, digest): (Published, DigestOf)| {
        let path = file.path(data_dir);
        match digest(&path).and_then(|found| file.check(path.clone(), &found)) {
            Ok(()) => return Ok(Fetched { path, url: None }),
            Err(error @ Error::Io { .. }) => return Err(error),
            Err(_) => {}
        }
        let gzipped = data_dir.join("mnist").join(format!("{}.gz", file.name));
        let url = |mirror: String| format!("{}/{}.gz", mirror.trim_end_matches('/'), file.name);
        let urls = fetcher.mirrors(&MIRRORS).into_iter().map(url).collect();
        let url = fetcher.get(&gzipped, urls, MAX_GZIPPED, &mut |part| {
            file.check(part.to_path_buf(), &digest(part)?)?;
            fetch::settle(part, &gzipped)
        })?;
        if path != gzipped && path.exists() {
            std::fs::remove_file(&path).map_err(Error::write(&path))?;
        }
        Ok(Fetched { path: gzipped, url: Some(url) })
    };
    FILES.into_iter().map(fetch).collect()
}
