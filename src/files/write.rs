//! Atomic writing.

use crate::files::error::{Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Replaces `path` by a file of these `bytes`, or leaves it untouched: a temporary file in the
/// same folder is written, synced and renamed, and the folder synced.
///
/// # Errors
/// [`Error::Io`] naming `path`; the temporary file is removed.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<()> {
    atomic_write_with(path, |file| file.write_all(bytes))
}

/// As [`atomic_write`], for content that `write` makes piece by piece.
///
/// # Errors
/// [`Error::Io`] naming the path; the file is then as it was.
pub fn atomic_write_with(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let name = path.file_name().ok_or_else(|| {
        Error::io("write", path)(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not the name of a file",
        ))
    })?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let temporary = folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let replace = || -> io::Result<()> {
        let mut file = BufWriter::new(File::create(&temporary)?);
        write(&mut file)?;
        file.into_inner()?.sync_all()?;
        fs::rename(&temporary, path)
    };
    replace().map_err(|source| {
        // The first failure is the one to report; the temporary may not even exist.
        let _ = fs::remove_file(&temporary);
        Error::io("write", path)(source)
    })?;
    // The rename itself is durable once the folder is; only Unix can open a folder to sync it.
    if cfg!(unix) {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(Error::io("sync the folder of", path))?;
    }
    Ok(())
}

/// Whether this is a temporary file of [`atomic_write_with`]: `.NAME.PID.tmp`.
pub(crate) fn is_temporary(name: &str) -> bool {
    let parts = name.strip_prefix('.').and_then(|rest| rest.strip_suffix(".tmp")?.rsplit_once('.'));
    parts.is_some_and(|(_, id)| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn atomic_writes_replace_the_file_and_leave_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        atomic_write(&path, b"one").unwrap();
        atomic_write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["a.json"]);
    }

    #[test]
    fn failed_writes_name_the_path_and_leave_everything_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        // A folder of that name lets the temporary be written and the rename fail.
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        let error = atomic_write(&taken, b"x").unwrap_err();
        assert_eq!(error.exit_code(), 74);
        assert!(error.to_string().contains(&*taken.to_string_lossy()));
        assert_eq!(names(folder.path()), ["taken"]);
        assert!(names(&taken).is_empty());

        let missing = folder.path().join("missing/a.json");
        let error = atomic_write(&missing, b"x").unwrap_err();
        assert!(error.to_string().contains(&*missing.to_string_lossy()));
        assert_eq!(atomic_write(Path::new("/"), b"x").unwrap_err().exit_code(), 74);
    }
}
