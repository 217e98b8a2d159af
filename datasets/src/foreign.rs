//! What a file is that is not what it should be, told by its first bytes.
//!
//! A reader whose magic number is missing asks here before it says so: the bytes of a PyTorch
//! archive, read as a length, are a number that helps nobody.

use std::path::Path;

/// How many of a file's first bytes are worth looking at.
pub const START: usize = 4096;

/// What a reader wants, on which the advice depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A model or a training state, in safetensors.
    Tensors,
    /// An array, in `.npy`.
    Array,
    /// Arrays, in `.npz`.
    Archive,
    /// Images or labels, in IDX.
    Idx,
    /// A table, in CSV.
    Table,
    /// Other text: JSON, TOML.
    Text,
}

/// A file of another format than the wanted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// What it is, in words: `a PyTorch archive`.
    pub name: &'static str,
    /// What to do.
    pub advice: &'static str,
}

/// Recognises a file by its `start`, its first [`START`] bytes or all it has; formats that begin
/// alike are told apart by the ending of `path`. `None` for the wanted format and for an unknown one.
///
/// No text is taken for a binary format: each of their marks holds a byte that no text has, or is
/// followed by one.
#[must_use]
pub fn recognise(start: &[u8], path: &Path, wanted: Wanted) -> Option<Foreign> {
    let (format, name) = format(start, path)?;
    let advice = advice(format, name, wanted)?;
    Some(Foreign { name, advice })
}

/// The formats, as far as the advice differs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Empty,
    LfsPointer,
    WebPage,
    WideText,
    Torch,
    Npy,
    Npz,
    Workbook,
    Archive,
    Gzip,
    Safetensors,
    Hdf5,
    ColumnFile,
    Onnx,
    Gguf,
    Pickle,
    Idx,
    Image,
    Database,
    Matlab,
    Document,
    Text,
}

/// What to do with a file of `format` where another is wanted; `None` if it is the wanted one.
fn advice(format: Format, name: &str, wanted: Wanted) -> Option<&'static str> {
    use Format::*;
    use Wanted::{Array, Idx as IdxFiles, Table, Tensors};
    Some(match (format, wanted) {
        (Npy, Array)
        | (Npz, Wanted::Archive)
        | (Safetensors, Tensors)
        | (Idx | Gzip, IdxFiles)
        | (Gzip | Text, Table)
        | (Text, Wanted::Text) => return None,
        (Empty, _) => "write or download it again: nothing arrived",
        (LfsPointer, _) => "fetch the file itself: `git lfs pull`",
        (WebPage, _) => {
            "download the file itself: the address gave a page, perhaps an error or a login"
        }
        (Archive | Gzip, _) => match name {
            "a gzip stream" => "unpack it first: gzip -d FILE",
            "an xz stream" => "unpack it first: xz -d FILE",
            "a Zstandard stream" => "unpack it first: zstd -d FILE",
            "a bzip2 stream" => "unpack it first: bzip2 -d FILE",
            "a ZIP archive" => "unpack it first: unzip FILE",
            "a tar archive" => "unpack it first: tar -xf FILE",
            _ => "unpack it first",
        },
        (WideText, Table | Wanted::Text) => "save it as UTF-8",
        (_, Wanted::Text) => "name the right file, or write it again",

        (Onnx | Gguf | Hdf5, Tensors) => {
            "a teacher in any format is asked once: save what it says of the training examples, \
             numpy.save(\"teacher.npy\", logits), and name that as distillation.teacher_logits; of its \
             weights, a Linear layer each, make a file with safetensors.numpy.save_file({\"0.weight\": …, \
             \"0.bias\": …, \"2.weight\": …}, \"model.safetensors\")"
        }
        (Torch, Tensors) => {
            "convert it: safetensors.torch.save_file(model.state_dict(), \"model.safetensors\"), where \
             model is the net with the weights of torch.load(FILE, map_location=\"cpu\")"
        }
        (Pickle, Tensors) => {
            "of a PyTorch model save safetensors.torch.save_file(model.state_dict(), \
             \"model.safetensors\"); of any other, as scikit-learn's, what it says of the training \
             examples, numpy.save(\"teacher.npy\", model.predict_proba(x)), and name that as \
             distillation.teacher_probs"
        }
        (_, Tensors) => {
            "save the model in safetensors: \
             safetensors.torch.save_file(model.state_dict(), \"model.safetensors\")"
        }

        (Npy | Npz, Table | IdxFiles) => "read it with dataset = \"npz\"",
        (Idx, Table | Wanted::Archive) => "read it with dataset = \"idx\"",
        (Text | WideText, IdxFiles | Wanted::Archive) => "read a CSV table with dataset = \"csv\"",
        (Workbook, Table) => "save it as CSV in UTF-8",
        (_, Table) => "read it in Python and write the table with pandas: to_csv(…, index=False)",

        (Npz, Array) => "save the one array with numpy.save",
        (Torch, Array) => {
            "read it with torch.load and save the tensor: numpy.save(\"t.npy\", tensor.numpy())"
        }
        (_, Array) => "read it in Python and save the array with numpy.save",

        (Npy, Wanted::Archive) => {
            "name the folder of x_train.npy and so on, or save all arrays with numpy.savez"
        }
        (_, Wanted::Archive | IdxFiles) => {
            "read it in Python and save the arrays, for dataset = \"npz\": \
             numpy.savez(\"data.npz\", x_train=…, y_train=…, x_test=…, y_test=…)"
        }
    })
}

/// The format and its name.
fn format(start: &[u8], path: &Path) -> Option<(Format, &'static str)> {
    use Format::*;
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let ends = |endings: &[&str]| endings.iter().any(|known| ending.eq_ignore_ascii_case(known));
    let has = |part: &[u8]| start.windows(part.len()).any(|window| window == part);
    let at = |offset: usize, part: &[u8]| start.get(offset..).is_some_and(|s| s.starts_with(part));
    let name = match start {
        [] => (Empty, "an empty file"),
        // First of all: the length of a header can be the mark of any other format.
        [_, _, _, _, 0, 0, 0, 0, b'{', ..] => (Safetensors, "a safetensors file"),
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => match () {
            () if has(b".npy") || ends(&["npz"]) => (Npz, "a NumPy .npz archive"),
            () if has(b"/data.pkl") || ends(&["pt", "pth"]) => (Torch, "a PyTorch archive"),
            () if has(b"xl/") || ends(&["xlsx", "xlsm"]) => (Workbook, "an Excel workbook"),
            () if has(b"opendocument.spreadsheet") => (Workbook, "an OpenDocument spreadsheet"),
            () if has(b"model.weights.h5") || ends(&["keras"]) => (Hdf5, "a Keras archive"),
            () => (Archive, "a ZIP archive"),
        },
        [0x1f, 0x8b, ..] => (Gzip, "a gzip stream"),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => (Archive, "an xz stream"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => (Archive, "a Zstandard stream"),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => {
            (Archive, "a bzip2 stream")
        }
        [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => (Archive, "a 7z archive"),
        [b'R', b'a', b'r', b'!', 0x1a, 7, ..] => (Archive, "a RAR archive"),
        [0x89, b'H', b'D', b'F', b'\r', b'\n', 0x1a, b'\n', ..] => (Hdf5, "an HDF5 file"),
        [0x89, b'P', b'N', b'G', ..] => (Image, "a PNG image"),
        [0xff, 0xd8, 0xff, ..] => (Image, "a JPEG image"),
        [0xd0, 0xcf, 0x11, 0xe0, ..] => (Workbook, "an old Excel workbook"),
        [b'P', b'A', b'R', b'1', 0x15, ..] => (ColumnFile, "a Parquet file"),
        _ if start.starts_with(b"\x93NUMPY") => (Npy, "a NumPy .npy array"),
        [b'G', b'G', b'U', b'F', 1..=9, 0, 0, 0, ..] => (Gguf, "a GGUF model"),
        _ if start.starts_with(b"ARROW1\0\0") => (ColumnFile, "an Arrow (Feather) file"),
        _ if start.starts_with(b"FEA1\0\0\0\0") => (ColumnFile, "a Feather file"),
        _ if start.starts_with(b"SQLite format 3\0") => (Database, "an SQLite database"),
        // Both have a text of 116 bytes first; then HDF5 or the version.
        _ if start.starts_with(b"MATLAB 5.0 MAT-file") => (Matlab, "a MATLAB .mat file"),
        _ if start.starts_with(b"MATLAB 7.3 MAT-file") => (Matlab, "a MATLAB .mat file"),
        _ if start.starts_with(b"%PDF-") => (Document, "a PDF document"),
        _ if at(257, b"ustar") && matches!(start.get(262), Some(0 | b' ')) => {
            (Archive, "a tar archive")
        }
        [0, 0, 8..=14, 1..=8, ..] => (Idx, "an IDX file"),
        // A pickle of an integer, the magic number of PyTorch before 1.6.
        _ if start.starts_with(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19") => {
            (Torch, "a PyTorch file of the old kind")
        }
        // The protocol, then an instruction.
        [0x80, 2..=5, 1..=0xff, ..] => (Pickle, "a Python pickle"),
        _ if is_onnx(start) => (Onnx, "an ONNX model"),
        _ => return text(start),
    };
    Some(name)
}

/// Whether this is an ONNX model: the version of the format, field 1, and the name of the program
/// that wrote it, field 2.
fn is_onnx(start: &[u8]) -> bool {
    let [0x08, 1..=31, 0x12, length, rest @ ..] = start else { return false };
    let name = rest.get(..usize::from(*length)).unwrap_or_default();
    !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
}

/// The kinds of text.
fn text(start: &[u8]) -> Option<(Format, &'static str)> {
    use Format::{LfsPointer, Text, WebPage, WideText};
    if start.starts_with(&[0xff, 0xfe]) || start.starts_with(&[0xfe, 0xff]) || is_utf16(start) {
        return Some((WideText, "text in UTF-16"));
    }
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let opens = |tag: &str| {
        text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag.as_bytes()))
    };
    if text.starts_with(b"version https://git-lfs.") {
        return Some((LfsPointer, "a Git-LFS pointer in place of the file"));
    }
    if opens("<!doctype html") || opens("<html") || opens("<head") {
        return Some((WebPage, "a web page (HTML)"));
    }
    if opens("<?xml") {
        return Some((WebPage, "an XML document"));
    }
    // The last letter may be cut.
    let whole = match str::from_utf8(start) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && error.valid_up_to() > 0,
    };
    let control = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    (whole && !start.iter().any(control)).then_some((Text, "a text file"))
}

/// Whether these are Latin letters in UTF-16 without its mark: of each two bytes, always the same
/// one is 0 and the other printable.
fn is_utf16(start: &[u8]) -> bool {
    let (units, _) = start[..start.len().min(256)].as_chunks::<2>();
    let letter = |byte: u8| byte >= b' ' || byte.is_ascii_whitespace();
    let all = |high: usize| units.iter().all(|unit| unit[high] == 0 && letter(unit[1 - high]));
    units.len() >= 4 && (all(0) || all(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ZIP archive's first member, stored and empty.
    fn zip(member: &str) -> Vec<u8> {
        let length = member.len() as u8;
        [&b"PK\x03\x04"[..], &[0; 22], &[length, 0, 0, 0], member.as_bytes()].concat()
    }

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    /// The first bytes as the programs of the formats write them.
    fn samples() -> Vec<(&'static str, &'static str, Vec<u8>)> {
        let tar = [&[b'a'; 257][..], b"ustar\x0000"].concat();
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
        let pickle = b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}\x94\x8c\x01a\x94K\x01s.";
        let old_torch = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
        vec![
            ("t", "an empty file", vec![]),
            ("t.safetensors", "a Git-LFS pointer in place of the file", pointer.to_vec()),
            ("t", "a web page (HTML)", b"\n<!DOCTYPE html>\n<html>".to_vec()),
            ("t", "a web page (HTML)", b"<HTML><head>".to_vec()),
            ("t", "an XML document", b"<?xml version=\"1.0\"?><Error>".to_vec()),
            ("t", "text in UTF-16", [&[0xff, 0xfe][..], &utf16("a,b\n1,2\n")].concat()),
            ("t", "text in UTF-16", utf16("a,é\n1,2\n")),
            ("t", "text in UTF-16", [&[0][..], &utf16("a,b\n1,2\n")].concat()),
            ("t", "a PyTorch archive", zip("archive/data.pkl")),
            ("t.PTH", "a PyTorch archive", zip("net")),
            ("t.pt", "a PyTorch file of the old kind", old_torch.to_vec()),
            ("t", "a NumPy .npz archive", zip("x_train.npy")),
            ("t.xlsx", "an Excel workbook", zip("[Content_Types].xml")),
            ("t", "an Excel workbook", zip("xl/workbook.xml")),
            ("t.keras", "a Keras archive", zip("metadata.json")),
            ("t", "a ZIP archive", zip("README")),
            ("t", "a gzip stream", b"\x1f\x8b\x08\0".to_vec()),
            ("t", "an xz stream", b"\xfd7zXZ\0".to_vec()),
            ("t", "a Zstandard stream", b"\x28\xb5\x2f\xfd".to_vec()),
            ("t", "a bzip2 stream", b"BZh91AY&SY".to_vec()),
            ("t", "a tar archive", tar),
            ("t", "an HDF5 file", b"\x89HDF\r\n\x1a\n\0".to_vec()),
            ("t", "a PNG image", b"\x89PNG\r\n\x1a\n".to_vec()),
            ("t", "a JPEG image", b"\xff\xd8\xff\xe0".to_vec()),
            ("t", "an old Excel workbook", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec()),
            ("t", "a Parquet file", b"PAR1\x15\x04".to_vec()),
            ("t", "an Arrow (Feather) file", b"ARROW1\0\0\xff\xff\xff\xff".to_vec()),
            ("t", "a NumPy .npy array", b"\x93NUMPY\x01\0".to_vec()),
            ("t", "an SQLite database", b"SQLite format 3\0".to_vec()),
            ("t", "a MATLAB .mat file", b"MATLAB 5.0 MAT-file, Platform: GLNXA64".to_vec()),
            ("t", "a PDF document", b"%PDF-1.7\n".to_vec()),
            ("t", "an IDX file", b"\0\0\x08\x03\0\0\0\x0a".to_vec()),
            ("t", "a Python pickle", pickle.to_vec()),
            ("t", "a safetensors file", b"\x80\x02\0\0\0\0\0\0{\"a\":".to_vec()),
            ("t", "a safetensors file", b"\x1f\x8b\0\0\0\0\0\0{\"a\":".to_vec()),
            ("t", "a GGUF model", b"GGUF\x03\0\0\0\x01".to_vec()),
            ("t", "an ONNX model", b"\x08\x08\x12\x07pytorch\x1a\x052.1.0".to_vec()),
            ("t", "a text file", b"a,b\n1,2\n".to_vec()),
            ("t", "a text file", "a,é".as_bytes()[..3].to_vec()),
        ]
    }

    #[test]
    fn every_format_is_named_by_its_first_bytes() {
        for (path, name, bytes) in samples() {
            let found = format(&bytes, Path::new(path)).map(|(_, name)| name);
            assert_eq!(found, Some(name), "{bytes:02x?}");
        }
        for unknown in [&b"\0\0\0\0"[..], b"RIFF\0\0", b"\x01\x02\x03", b"PK\x03\x05"] {
            assert_eq!(format(unknown, Path::new("t")), None, "{unknown:02x?}");
        }
    }

    #[test]
    fn the_wanted_format_is_not_foreign_and_all_others_come_with_advice() {
        use Wanted::{Archive, Array, Idx, Table, Tensors, Text};
        let wanted = [
            (Tensors, vec!["a safetensors file"]),
            (Array, vec!["a NumPy .npy array"]),
            (Archive, vec!["a NumPy .npz archive"]),
            (Idx, vec!["an IDX file", "a gzip stream"]),
            (Table, vec!["a text file", "a gzip stream"]),
            (Text, vec!["a text file"]),
        ];
        for (wanted, own) in wanted {
            for (path, name, bytes) in samples() {
                let found = recognise(&bytes, Path::new(path), wanted);
                let expected = (!own.contains(&name)).then_some(name);
                assert_eq!(found.map(|foreign| foreign.name), expected, "{wanted:?}");
                assert!(found.is_none_or(|foreign| foreign.advice.len() > 9), "{found:?}");
            }
        }
        let advice = |wanted, name| {
            let (path, _, bytes) = samples().into_iter().find(|(_, n, _)| *n == name).unwrap();
            recognise(&bytes, Path::new(path), wanted).unwrap().advice
        };
        let pairs = [
            (Tensors, "a PyTorch archive", "safetensors.torch.save_file(model.state_dict()"),
            (Tensors, "a Python pickle", "safetensors.torch.save_file"),
            (Tensors, "a Git-LFS pointer in place of the file", "git lfs pull"),
            (Tensors, "text in UTF-16", "safetensors.torch.save_file"),
            (Tensors, "a JPEG image", "safetensors.torch.save_file"),
            (Array, "a PyTorch archive", "numpy.save"),
            (Array, "a NumPy .npz archive", "numpy.save"),
            (Array, "a Parquet file", "numpy.save"),
            (Archive, "a text file", "dataset = \"csv\""),
            (Archive, "an HDF5 file", "numpy.savez"),
            (Idx, "a NumPy .npz archive", "dataset = \"npz\""),
            (Idx, "a PNG image", "numpy.savez"),
            (Table, "an Excel workbook", "save it as CSV"),
            (Table, "text in UTF-16", "save it as UTF-8"),
            (Table, "an xz stream", "xz -d FILE"),
            (Array, "a gzip stream", "gzip -d"),
            (Tensors, "a GGUF model", "teacher_logits"),
            (Tensors, "an ONNX model", "teacher_logits"),
            (Table, "a Parquet file", "to_csv(…, index=False)"),
            (Table, "an IDX file", "dataset = \"idx\""),
            (Text, "text in UTF-16", "save it as UTF-8"),
            (Text, "a NumPy .npz archive", "name the right file"),
        ];
        for (wanted, name, part) in pairs {
            assert!(advice(wanted, name).contains(part), "{}", advice(wanted, name));
        }
    }
}
