//! Atomic writing.

use crate::files::error::{Error, Result};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Replaces `path` by a file of these `bytes`, or leaves it untouched: a temporary file in the
/// same folder is written, synced and renamed, and the folder synced. A link stays, and the file
/// that it leads to is replaced; its permissions stay. What is no regular file, a device or a pipe,
/// is never replaced: the bytes are written into it.
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
    let found = fs::metadata(path).ok();
    if found.as_ref().is_some_and(|found| !found.is_file() && !found.is_dir()) {
        let write_into = || {
            let mut file = BufWriter::new(OpenOptions::new().write(true).open(path)?);
            write(&mut file)?;
            file.flush()
        };
        return write_into().map_err(Error::io("write", path));
    }
    let target = followed(path).map_err(Error::io("write", path))?;
    let name = target.file_name().ok_or_else(|| {
        let kind = io::ErrorKind::InvalidInput;
        Error::io("write", path)(io::Error::new(kind, "not the name of a file"))
    })?;
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(temporary);
    let replace = || -> io::Result<()> {
        let mut file = BufWriter::new(File::create(&temporary)?);
        write(&mut file)?;
        let file = file.into_inner()?;
        if let Some(found) = found {
            file.set_permissions(found.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&temporary, &target)
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

/// Where the links from `path` lead, which need not exist.
fn followed(path: &Path) -> io::Result<PathBuf> {
    // As many as Linux follows.
    const MOST_LINKS: usize = 40;
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(next) => path = path.parent().unwrap_or(Path::new("")).join(next),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("more than 40 links"))
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

    #[cfg(unix)]
    #[test]
    fn links_stay_and_permissions_too() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("sub/secret"), "old").unwrap();
        fs::set_permissions(at("sub/secret"), fs::Permissions::from_mode(0o600)).unwrap();
        symlink("sub/secret", at("link")).unwrap();
        symlink(at("link"), at("second")).unwrap();
        symlink("sub/new", at("dangling")).unwrap();
        atomic_write(&at("second"), b"new").unwrap();
        atomic_write(&at("dangling"), b"made").unwrap();
        assert_eq!(fs::read(at("sub/secret")).unwrap(), b"new");
        assert_eq!(fs::metadata(at("sub/secret")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(at("sub/new")).unwrap(), b"made");
        for link in ["link", "second", "dangling"] {
            assert!(fs::symlink_metadata(at(link)).unwrap().is_symlink(), "{link}");
        }
        assert_eq!(names(folder.path()), ["dangling", "link", "second", "sub"]);
        assert_eq!(names(&at("sub")), ["new", "secret"]);

        symlink("circle", at("circle")).unwrap();
        assert_eq!(atomic_write(&at("circle"), b"x").unwrap_err().exit_code(), 74);
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_written_into() {
        use std::io::Read;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let text = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut text = String::new();
                File::open(&path).unwrap().read_to_string(&mut text).unwrap();
                text
            });
            atomic_write(&path, b"through").unwrap();
            reader.join().unwrap()
        });
        assert_eq!(text, "through");
        assert!(!fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(names(folder.path()), ["pipe"]);
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
