//! What the fuzz targets share: the formats and their readers, from tests/hostile/.
#![forbid(unsafe_code)]

#[path = "../../tests/hostile/formats.rs"]
#[allow(dead_code, reason = "the tests compare what was read")]
mod formats;

use formats::{FORMATS, Folder, Format, check_refusal};
use std::path::Path;
use std::sync::LazyLock;

/// Made once, in `TMPDIR`; run.sh removes it.
static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);

fn format(name: &str) -> &'static Format {
    FORMATS.iter().find(|format| format.name == name).expect("a format of this name")
}

/// Puts the valid file into the target's corpus.
pub fn seed(name: &str) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    std::fs::create_dir_all(&corpus).expect("the corpus folder");
    let valid = FOLDER.valid(format(name));
    std::fs::write(corpus.join("valid"), valid).expect("the corpus folder");
}

/// Reads the bytes as a file of the format; panics where the reader does, and where its refusal is
/// not as it should be.
pub fn read(name: &str, bytes: &[u8]) {
    let format = format(name);
    if let Err(error) = FOLDER.read(format, bytes) {
        check_refusal(format, &error);
    }
}
