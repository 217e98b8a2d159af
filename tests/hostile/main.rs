//! Damaged and hostile files: each is refused with a clear message, or harmless.
#![cfg(feature = "paper")]

#[path = "../common/finding.rs"]
mod finding;
mod formats;
mod mutations;

use cpu_time::ThreadTime;
use finding::Finding;
use formats::{FORMATS, Folder, Format, check_refusal};
use limbeck::Result;
use mutations::mutate;
use peak_alloc::PeakAlloc;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The memory is that of the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The formats that tell their own length.
fn of_known_length() -> impl Iterator<Item = &'static Format> {
    let more = FORMATS.iter().filter(|format| ["check_case", "npy", "wav"].contains(&format.name));
    of_results().chain(more)
}

/// The formats that hold results, which nobody would see by looking that they are damaged.
fn of_results() -> impl Iterator<Item = &'static Format> {
    let names =
        ["safetensors_model", "checkpoint", "alignment", "idx", "idx_labels", "gzip", "npz"];
    FORMATS.iter().filter(move |format| names.contains(&format.name))
}

#[test]
fn valid_files_are_read() -> Result<()> {
    let _alone = alone();
    let folder = Folder::new();
    for format in &FORMATS {
        folder.read(format, &folder.valid(format))?;
    }
    Ok(())
}

fn names<'f>(formats: impl Iterator<Item = &'f Format>) -> String {
    formats.map(|format| format.name).collect::<Vec<_>>().join(", ")
}

#[test]
fn files_cut_short_anywhere_are_refused() {
    let _alone = alone();
    let folder = Folder::new();
    let (mut count, mut accepted) = (0, Vec::new());
    for format in of_known_length() {
        let valid = folder.valid(format);
        for length in 0..valid.len() {
            match folder.read(format, &valid[..length]) {
                Err(error) => check_refusal(format, &error),
                Ok(_) => accepted.push(format!("{length} bytes of {}", format.name)),
            }
            count += 1;
        }
    }
    let figure = format!("all refused: {}", names(of_known_length()));
    let command = "LIMBECK_FINDINGS=results/fault-injection cargo test --test hostile cut";
    let what = "files cut short at every byte";
    Finding::new(what, count, accepted.len() as u64, figure, command).report("cuts");
    assert!(accepted.is_empty(), "{accepted:#?}");
}

/// Detected: refused, or, for IDX files, which carry no checksum, loaded with another SHA-256 than
/// the known one, which `mnist::load` and `--resume` compare. Harmless: loaded to the same values.
#[test]
fn no_flipped_bit_passes_unnoticed_unless_harmless() {
    let _alone = alone();
    let folder = Folder::new();
    let (mut refused, mut other_digest, mut harmless) = (0, 0, 0);
    let mut unnoticed = Vec::new();
    for format in of_results() {
        let valid = folder.valid(format);
        let loaded = folder.read(format, &valid).unwrap();
        let (digest, expected) = (loaded.digest.clone(), loaded.text());
        for bit in 0..8 * valid.len() {
            let mut bytes = valid.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match folder.read(format, &bytes) {
                Err(error) => {
                    check_refusal(format, &error);
                    refused += 1;
                }
                Ok(found) if found.digest != digest => other_digest += 1,
                Ok(found) if found.text() == expected => harmless += 1,
                Ok(_) => {
                    unnoticed.push(format!("{}, byte {}, bit {}", format.name, bit / 8, bit % 8))
                }
            }
        }
    }
    let failures = unnoticed.len() as u64;
    let figure = format!(
        "{refused} refused, {other_digest} known by another SHA-256 (IDX has no checksum of its \
         own), {harmless} loaded to the same values: {}",
        names(of_results())
    );
    let count = refused + other_digest + harmless + failures;
    let command = "LIMBECK_FINDINGS=results/fault-injection cargo test --test hostile flipped";
    let what = "files with one flipped bit, each bit in turn";
    Finding::new(what, count, failures, figure, command).report("flips");
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

/// Files that would make a careless reader allocate or compute far more than they are long.
fn greedy() -> Vec<(&'static str, Vec<u8>)> {
    const MEGABYTE: usize = 1 << 20;
    const MOST_TOML: usize = 1 << 16;
    let header = |json: String| {
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend(json.bytes());
        file
    };
    let repeated = |start: &str, part: &str, end: &str, length: usize| {
        format!("{start}{}{end}", part.repeat(length / part.len()))
    };
    let numbered = |text: fn(usize) -> String, length: usize| {
        let mut all = String::new();
        for i in 0.. {
            if all.len() > length {
                return all;
            }
            all += &text(i);
        }
        all
    };
    let gzip = |parts: &[&[u8]]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        parts.iter().for_each(|part| encoder.write_all(part).unwrap());
        encoder.finish().unwrap()
    };
    let room = MEGABYTE - 100;
    let mut files = Vec::new();

    let entry = r#"{"a":{"dtype":"F32","shape":["#;
    let headers = [
        repeated(entry, "0,", r#"0],"data_offsets":[0,0]}}"#, room),
        repeated(entry, "[", "", room),
        repeated(r#"{"__metadata__":{"#, r#""":"","#, r#""a":""}}"#, room),
        format!(
            "{{{}}}",
            numbered(
                |i| format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}},"#),
                room
            )
            .trim_end_matches(',')
        ),
        // Their ends add up to all of the address space but for eight bytes.
        format!(
            "{{{}}}",
            (0..8u64)
                .map(|i| {
                    let size = (1 << 61) - 1;
                    let (start, end) = (i * size, (i + 1) * size);
                    format!(
                        r#""{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{start},{end}]}}"#
                    )
                })
                .collect::<Vec<_>>()
                .join(",")
        ),
    ];
    for json in headers {
        for name in ["safetensors_model", "checkpoint", "alignment", "check_case"] {
            files.push((name, header(json.clone())));
        }
    }
    for length in [MEGABYTE as u64 + 1, 1 << 40, u64::MAX] {
        files.push(("safetensors_model", length.to_le_bytes().to_vec()));
    }

    // 4 GiB announced, 64 MiB of blanks behind 12 pixels, and members and names without end.
    let idx = |count: u32, side: u32| {
        let words = [0x0803, count, side, side].map(u32::to_be_bytes);
        words.concat()
    };
    files.push(("idx", idx(1024, 2048)));
    files.push(("gzip", gzip(&[&idx(1024, 2048)])));
    files.push(("gzip", gzip(&[&idx(3, 2), &vec![0; 64 * MEGABYTE]])));
    files.push(("gzip", [gzip(&[&idx(3, 2)]), gzip(&[]).repeat(20_000)].concat()));
    let named = [&b"\x1f\x8b\x08\x08\0\0\0\0\0\x03"[..], &vec![b'a'; MEGABYTE]].concat();
    files.push(("gzip", named));
    files.push(("idx_labels", [&[0, 0, 8, 1], &[0xff; 4][..]].concat()));
    files.push(("npy", [&b"\x93NUMPY\x02\0"[..], &[0xff; 4], &[b' '; 20_000]].concat()));

    // An archive of 65,535 members, as its end says and as its directory does.
    let member = [&b"PK\x01\x02"[..], &[0; 24], &[1, 0], &[0; 16], b"a"].concat();
    let end = |directory: usize| {
        let size = (directory as u32).to_le_bytes();
        [&b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff"[..], &size, &[0; 6]].concat()
    };
    for directory in [Vec::new(), vec![0; MEGABYTE], member.repeat(65_535)] {
        files.push(("npz", [&directory[..], &end(directory.len())].concat()));
    }

    let room = MOST_TOML - 100;
    for text in [
        repeated("a = [", "[],", "]", room),
        repeated("a = ", "[", "", room),
        repeated("a = {", "a={", "", room),
        repeated("", "[[a]]\n", "", room),
        repeated("[", "a.", "a]", room),
        repeated("", "a.", "a = 1", room),
        repeated("", "a", " = 1", room),
        repeated("seed = \"", "a", "\"", room),
        repeated("[model]\nlayers = [", "1,", "]", room),
        repeated("[model]\nlayers = [784,", "1,", "9]", room),
        repeated("seed = ", "9", "", room),
        numbered(|i| format!("a{i}=1\n"), room),
        numbered(|i| format!("[a{i}]\n"), room),
        numbered(|i| format!("[a.b{i}.c]\n"), room),
    ] {
        files.push(("config", text.into_bytes()));
    }
    files.push(("config", vec![b'\n'; MOST_TOML + 1]));

    let four = 4 * MEGABYTE;
    for (name, text) in [
        ("table", repeated("", ",", "", four)),
        ("table", repeated("", "a,", "label", four)),
        ("table", repeated("a,label\n", "1,0\n", "", four)),
        ("table", repeated("a,label\n", ",", "", four)),
        ("table", repeated("a,label\n\"", "1", "", four)),
        ("table", repeated("a,label\n", "\n", "1,0\n", four)),
        ("table", repeated("a,label\n0.", "1", ",0\n", four)),
        ("phones", numbered(|i| format!("P{i}\n"), four)),
        ("phones", repeated("", "A", "", four)),
        ("dictionary", numbered(|i| format!("W{i} G\n"), four)),
        ("dictionary", repeated("GO", " G", "\n", four)),
        ("dictionary", numbered(|i| format!("GO({i}) G\n"), four).replace("GO(0)", "GO(1)")),
        ("dictionary", repeated("", "(", ")", four)),
        ("arpa", numbered(|i| format!("-1 W{i}\n"), four)),
        (
            "arpa",
            format!("\\data\\\nngram 1=9\n\\1-grams:\n{}", numbered(|i| format!("-1 {i}\n"), four)),
        ),
        ("arpa", format!("\\data\\\nngram 1={}", "9".repeat(four))),
        ("transcripts", numbered(|i| format!("GO (u{i})\n"), four)),
        ("transcripts", repeated("", "GO ", "(a1)", four)),
        ("transcripts", repeated("", "(", ")", four)),
        ("fileids", repeated("", "/", "", four)),
        ("fileids", repeated("", "a/b/", "c", four)),
        ("summary", repeated("", "[", "", four)),
        ("summary", repeated(r#"{"rows":["#, "{},", "{}]}", four)),
        ("summary", repeated(r#"{"rows":[{"a":["#, "0,", "0]}]}", four)),
        ("summary", repeated(r#"{"rows":[{"misclassified":["#, "0,", "0]}]}", four)),
        ("summary", repeated(r#"{"tables":[{"rows":["#, "[],", "[]]}]}", four)),
        ("summary", repeated(r#"{"tables":[{"columns":["#, r#""","#, r#"""]}]}"#, four)),
        ("summary", repeated("\"", "a", "", four)),
    ] {
        files.push((name, text.into_bytes()));
    }
    let chunks = [&b"RIFF\0\0\0\0WAVE"[..], &b"LIST\0\0\0\0".repeat(8000)].concat();
    files.push(("wav", chunks));
    files.push(("wav", b"RIFF\0\0\0\0WAVELIST\xff\xff\xff\xff".to_vec()));
    files
}

#[test]
fn greedy_files_get_no_more_memory_and_time_than_their_size_allows() {
    let _alone = alone();
    let folder = Folder::new();
    for (name, bytes) in greedy() {
        let format = FORMATS.iter().find(|format| format.name == name).unwrap();
        let valid = folder.valid(format);
        read_within_bounds(&folder, format, &bytes);
        folder.read(format, &valid).unwrap();
    }
}

/// A read, its bounds checked: the documented multiple of the file's size and 1 MiB of memory; with
/// `LIMBECK_FULL` also five seconds of computing.
fn read_within_bounds(folder: &Folder, format: &Format, bytes: &[u8]) {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    // Of this thread: a clock would count what others run meanwhile.
    let start = ThreadTime::now();
    let result = folder.read(format, bytes);
    let (seconds, name) = (start.elapsed(), format.name);
    let memory = ALLOCATOR.peak_usage() - before;
    let each = if name == "config" { 256 } else { 64 };
    assert!(memory <= each * bytes.len() + (1 << 20), "{name}: {memory} bytes of memory");
    let judged = std::env::var_os("LIMBECK_FULL").is_some();
    assert!(!judged || seconds < Duration::from_secs(5), "{name}: {seconds:?}");
    if let Err(error) = result {
        check_refusal(format, &error);
    }
}

/// 3,000 damaged files of each format, or `LIMBECK_MUTATIONS`. A failure names the seed, which is
/// the number of the file.
#[test]
fn no_damage_makes_a_reader_panic_or_grow() {
    let _alone = alone();
    let asked = std::env::var("LIMBECK_MUTATIONS");
    let each: u64 = asked.map_or(3000, |text| text.parse().expect("a number of files"));
    let folder = Folder::new();
    let mut failures = Vec::new();
    for format in &FORMATS {
        let valid = folder.valid(format);
        for seed in 0..each {
            let bytes = mutate(&mut ChaCha8Rng::seed_from_u64(seed), &valid);
            let read = || read_within_bounds(&folder, format, &bytes);
            if catch_unwind(AssertUnwindSafe(read)).is_err() {
                failures.push(format!("{} with seed {seed}", format.name));
            }
        }
        folder.read(format, &valid).unwrap();
    }
    let count = each * FORMATS.len() as u64;
    let figure =
        format!("{each} files of each of {} formats: {}", FORMATS.len(), names(FORMATS.iter()));
    let command = format!(
        "LIMBECK_FULL=1 LIMBECK_MUTATIONS={each} LIMBECK_FINDINGS=results/fault-injection cargo \
         test --test hostile damage_makes"
    );
    let what = "files with random damage read, each within bounds of memory and time";
    Finding::new(what, count, failures.len() as u64, figure, &command).report("mutations");
    assert!(failures.is_empty(), "{failures:#?}");
}
