//! `unsafe` stays in the few files whose job it is.

use std::fs;
use std::path::{Path, PathBuf};

/// Files below `src` that may hold `unsafe`.
const ALLOWED: [&str; 10] = [
    "amx.rs",
    "amx/emulator.rs",
    "buffer.rs",
    "gemm/microkernel.rs",
    "gemm/pack.rs",
    "gemm/tiles.rs",
    "peak.rs",
    "pool.rs",
    "simd/avx2.rs",
    "simd/avx512.rs",
];

/// Line numbers on which `unsafe` is a word outside of a line comment.
fn unsafe_lines(source: &str) -> Vec<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let code = source.lines().map(|line| line.split("//").next().unwrap_or_default());
    code.enumerate()
        .filter(|(_, code)| code.split(|c| !is_word(c)).any(|word| word == "unsafe"))
        .map(|(index, _)| index + 1)
        .collect()
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn unsafe_is_only_where_it_is_allowed() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    assert!(files.len() > ALLOWED.len(), "only {} files found", files.len());
    for allowed in ALLOWED {
        assert!(src.join(allowed).is_file(), "{allowed} is allowed but does not exist");
    }
    for file in files {
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/");
        let lines = unsafe_lines(&fs::read_to_string(&file).unwrap());
        assert!(
            lines.is_empty() || ALLOWED.contains(&name.as_str()),
            "{name} holds unsafe code on lines {lines:?}"
        );
    }
}

#[test]
fn the_search_finds_words_in_code_alone() {
    let source = "// unsafe\n#![forbid(unsafe_code)]\nlet x = unsafe { f() };\nunsafe fn f() {}\n\
                  x(); // unsafe\n/// unsafe\nlet not_unsafe = 1;";
    assert_eq!(unsafe_lines(source), [3, 4]);
}
