//! The paths of a configuration: in its text relative to it, in memory absolute.

use std::borrow::Cow;
use std::iter;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Deserializer, Serializer};

use super::Config;
use crate::files::error::{Error, Result};

/// What begins a path whose bytes are not UTF-8: each such byte follows as `%XX`.
const ESCAPED: &str = "file:";

impl Config {
    /// The files and folders that the configuration names, by key.
    pub fn paths_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut PathBuf)> {
        let data = &mut self.data;
        let teacher = self.distillation.as_mut();
        let (logits, probs) = match teacher {
            Some(table) => (table.teacher_logits.as_mut(), table.teacher_probs.as_mut()),
            None => (None, None),
        };
        let keys = [
            ("train_images", data.train_images.as_mut()),
            ("train_labels", data.train_labels.as_mut()),
            ("test_images", data.test_images.as_mut()),
            ("test_labels", data.test_labels.as_mut()),
            ("train_table", data.train_table.as_mut()),
            ("test_table", data.test_table.as_mut()),
            ("arrays", data.arrays.as_mut()),
            ("teacher_logits", logits),
            ("teacher_probs", probs),
            ("initial", self.model.initial.as_mut()),
        ];
        keys.into_iter().filter_map(|(key, path)| Some((key, path?)))
    }

    /// The configuration as it is kept in `folder`: its paths lead from there, so that folder and data
    /// can be moved together.
    ///
    /// # Errors
    /// [`Error::Io`] where the working directory is unknown.
    pub fn kept_in(&self, folder: &Path) -> Result<Config> {
        let folder = std::path::absolute(folder).map_err(Error::io("resolve", folder))?;
        let mut config = self.clone();
        for (_, path) in config.paths_mut() {
            *path = relative(&folder, path);
        }
        Ok(config)
    }

    /// The configuration without the places of its files, which their contents stand for.
    pub(crate) fn without_places(&self) -> Config {
        let mut config = self.clone();
        config.paths_mut().for_each(|(_, path)| *path = PathBuf::new());
        config
    }
}

/// The way from the folder `from` to `to`, both absolute; `to` itself where they share no root.
fn relative(from: &Path, to: &Path) -> PathBuf {
    // `..` of a linked folder is not the one before it in the path.
    let from = from.canonicalize().map_or(Cow::Borrowed(from), Cow::Owned);
    let resolved = to.parent().and_then(|folder| folder.canonicalize().ok());
    let to = match (resolved, to.file_name()) {
        (Some(folder), Some(name)) => Cow::Owned(folder.join(name)),
        _ => Cow::Borrowed(to),
    };
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    if shared == 0 {
        return to.into_owned();
    }
    let up = iter::repeat_n(Component::ParentDir, from.components().count() - shared);
    up.chain(to.components().skip(shared)).collect()
}

/// A path as a string of TOML.
pub(super) fn serialize<S: Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    let path = path.as_deref().unwrap_or(Path::new(""));
    match path.to_str() {
        Some(text) if !text.starts_with(ESCAPED) => serializer.serialize_str(text),
        _ => serializer.serialize_str(&escaped(path)),
    }
}

/// [`serialize`] backwards.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(Some(text.strip_prefix(ESCAPED).map_or_else(|| PathBuf::from(&text), unescaped)))
}

fn escaped(path: &Path) -> String {
    let mut text = ESCAPED.to_string();
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// The path of a `file:` address: what is no `%XX` stands for itself.
fn unescaped(text: &str) -> PathBuf {
    let text = match text.strip_prefix("//") {
        Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
        None => text,
    };
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let code = tail
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    path_of(bytes)
}

#[cfg(unix)]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_lead_from_the_folder() {
        let cases = [
            ("/p/runs/a", "/p/data/t.csv", "../../data/t.csv"),
            ("/p/runs/a", "/p/runs/a/t.csv", "t.csv"),
            ("/p/runs/a", "/q/t.csv", "../../../q/t.csv"),
        ];
        for (from, to, expected) in cases {
            assert_eq!(relative(Path::new(from), Path::new(to)), Path::new(expected));
        }
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_survive_the_text() {
        let strange = path_of(b"/dat\xe9/100% a.csv".to_vec());
        let text = escaped(&strange);
        assert_eq!(text, "file:/dat%E9/100%25%20a.csv");
        assert_eq!(unescaped(text.strip_prefix(ESCAPED).unwrap()), strange);
        assert_eq!(unescaped("///a/b%20c"), Path::new("/a/b c"));
        assert_eq!(unescaped("100%"), Path::new("100%"));

        let mut config = Config::default();
        config.data.arrays = Some(strange);
        assert_eq!(Config::from_text(&config.to_toml().unwrap()).unwrap(), config);
        config.data.arrays = Some("file:x".into());
        assert_eq!(Config::from_text(&config.to_toml().unwrap()).unwrap(), config);
    }
}
