//! AN4 from the archive of the repository that publishes it.

use super::{MAX_WAV, SUMS, SUMS_SHA256, folder, verify};
use crate::digest::{FileStatus, sha256_of};
use crate::fetch::{Fetched, Fetcher, settle};
use crate::{Error, an4};
use flate2::read::GzDecoder;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tar::{Archive, Entry};

/// The commit whose files these are.
const MIRRORS: [&str; 1] =
    ["https://github.com/cmusphinx/an4/archive/b567d132f43304e70a2b2eca6077f22255311812.tar.gz"];
/// The longest archive accepted, in bytes; the published one has about 65 million.
const MAX_ARCHIVE: u64 = 1 << 27;
/// The most bytes that it may unpack to; the published one has about 95 million.
const MAX_UNPACKED: u64 = 1 << 28;
/// The files beside the recordings, as the archive names them.
const TEXTS: [&str; 11] = [
    "LICENSE",
    UPSTREAM_README,
    "etc/an4.dic",
    "etc/an4.filler",
    "etc/an4.lm",
    "etc/an4.phone",
    "etc/an4_test.fileids",
    "etc/an4_test.transcription",
    "etc/an4_train.fileids",
    "etc/an4_train.transcription",
    "etc/feat.params",
];
const UPSTREAM_README: &str = "README.md";

/// Downloads the corpus into `data_dir/an4/`, unless every file of it is there and the published
/// one. A mirror is the `.tar.gz` archive of the repository.
///
/// The archive is unpacked to a folder of its own. `SHA256SUMS` is made of its files, and compared
/// with the digest of the published list: so every file is verified. Then each file replaces the one
/// in its place, the list last. Other files in the folder stay.
///
/// # Errors
/// [`Error::Mirrors`] when no mirror had the corpus, [`Error::Offline`], [`Error::Write`]. After an
/// error, files that were there are unchanged.
pub fn fetch(data_dir: &Path, fetcher: &mut Fetcher<'_>) -> Result<Vec<Fetched>, Error> {
    let corpus = folder(data_dir);
    if an4::is_present(data_dir) && verify(data_dir).iter().all(FileStatus::is_ok) {
        return Ok(vec![Fetched { path: corpus, url: None }]);
    }
    let urls = fetcher.mirrors(&MIRRORS);
    let archive = data_dir.join("an4.tar.gz");
    let staging = data_dir.join(".an4.unpacked");
    let url = fetcher.get(&archive, urls, MAX_ARCHIVE, &mut |part| {
        let unpacked = unpack(part, &staging).and_then(|sums| install(&staging, sums, &corpus));
        remove(&staging)?;
        unpacked?;
        fs::remove_file(part).map_err(Error::write(part))
    })?;
    Ok(vec![Fetched { path: corpus, url: Some(url) }])
}

/// Unpacks the corpus's files into a new folder; returns their SHA-256 by name if they are the
/// published ones.
fn unpack(archive: &Path, staging: &Path) -> Result<BTreeMap<String, String>, Error> {
    remove(staging)?;
    let file = File::open(archive).map_err(Error::write(archive))?;
    let damaged = |cause: io::Error| Error::Content {
        path: archive.to_path_buf(),
        offset: 0,
        found: format!("damage: {cause}"),
        expected: "a tar archive in gzip".to_owned(),
    };
    let mut sums = BTreeMap::new();
    let mut archive_of = Archive::new(GzDecoder::new(file).take(MAX_UNPACKED));
    for entry in archive_of.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let Some(name) = wanted(&entry) else { continue };
        let mut bytes = Vec::new();
        entry.by_ref().take(MAX_WAV).read_to_end(&mut bytes).map_err(damaged)?;
        let path = staging.join(&name);
        make_parent(&path)?;
        fs::write(&path, &bytes).map_err(Error::write(&path))?;
        sums.insert(name, sha256_of([&bytes]));
    }
    let list: String = sums.iter().map(|(name, sha256)| format!("{sha256}  ./{name}\n")).collect();
    let path = staging.join(SUMS);
    let found = Ok(sha256_of([list.as_bytes()]));
    FileStatus { path: path.clone(), found, expected: SUMS_SHA256.to_owned() }.verified()?;
    fs::write(&path, list).map_err(Error::write(&path))?;
    Ok(sums)
}

/// Renames the unpacked files to their places.
fn install(staging: &Path, sums: BTreeMap<String, String>, corpus: &Path) -> Result<(), Error> {
    for name in sums.into_keys().chain([SUMS.to_owned()]) {
        let place = corpus.join(&name);
        make_parent(&place)?;
        settle(&staging.join(&name), &place)?;
    }
    Ok(())
}

/// The name in the corpus of an archive's entry `FOLDER/NAME`; `None` for other entries.
fn wanted(entry: &Entry<'_, impl Read>) -> Option<String> {
    if !entry.header().entry_type().is_file() {
        return None;
    }
    let path = entry.path().ok()?;
    let (_, name) = path.to_str()?.split_once('/')?;
    if name == UPSTREAM_README {
        return Some("README.upstream.md".to_owned());
    }
    // Only plain names pass: no path may lead out of the folder.
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let is_recording = || {
        let file = name.strip_prefix("wav/").and_then(|name| name.strip_suffix(".wav"));
        file.is_some_and(|file| file.split('/').all(|part| part.chars().all(plain)))
    };
    (TEXTS.contains(&name) || is_recording()).then(|| name.to_owned())
}

fn make_parent(path: &Path) -> Result<(), Error> {
    let folder: PathBuf = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    fs::create_dir_all(&folder).map_err(Error::write(&folder))
}

/// Removes a folder and all that is in it, if it is there.
fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(Error::write(folder)(cause)),
        _ => Ok(()),
    }
}
