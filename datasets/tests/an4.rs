//! The real corpus where there is one, and a small hand-made one with everything that can be wrong.

mod common;

use common::data_dir;
use limbeck_datasets::an4::{self, Corpus, SAMPLE_RATE, SILENCE, Utterance};
use limbeck_datasets::{Error, FileStatus};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

#[test]
fn the_published_corpus() {
    let Some(dir) = data_dir(an4::is_present) else { return };
    let corpus = an4::load(&dir).unwrap();
    let summary = |split: &[Utterance]| {
        let speakers: BTreeSet<_> = split.iter().map(|u| &u.speaker).collect();
        let words: usize = split.iter().map(|u| u.words.len()).sum();
        let frames: usize =
            split.iter().map(|u| 1 + (u.samples().unwrap().len() - 400) / 160).sum();
        (split.len(), speakers.len(), words, frames)
    };
    assert_eq!(summary(&corpus.train), (948, 74, 5442, 252_734));
    assert_eq!(summary(&corpus.test), (130, 10, 773, 35_440));

    let words = corpus.dictionary.words();
    let pronunciations: usize = words.iter().map(|word| word.pronunciations.len()).sum();
    assert_eq!((words.len(), pronunciations, corpus.phones.len()), (101, 130, 34));
    assert!(words.is_sorted_by(|a, b| a.spelling < b.spelling));
    let and = &words[corpus.dictionary.id("AND").unwrap()];
    let spelled = |phones: &Vec<usize>| -> Vec<&str> {
        phones.iter().map(|&phone| corpus.phones[phone].as_str()).collect()
    };
    let and: Vec<_> = and.pronunciations.iter().map(spelled).collect();
    assert_eq!(and, [["AE", "N", "D"], ["AH", "N", "D"]]);

    let first = &corpus.test[0];
    assert_eq!((first.id.as_str(), first.speaker.as_str()), ("an406-fcaw-b", "fcaw"));
    assert_eq!(first.words, ["RUBOUT", "G", "M", "E", "F", "THREE", "NINE"]);
    let ids = corpus.word_ids(first);
    assert!(ids.iter().zip(&first.words).all(|(&id, word)| words[id].spelling == *word));

    // A uniform unigram of 1/106 = 10^-2.0253; THIRTEEN and NOVEMBER are the words that it lacks.
    for word in ["YES", "THIRTEEN", "NOVEMBER"] {
        assert_eq!(corpus.unigram.log10_prob(word), -2.0253);
    }
    assert_eq!(corpus.unigram.log10_end(), -2.0253);
    assert_eq!(corpus.sha256.len(), 8);

    let status = an4::verify(&dir);
    assert_eq!(status.len(), 1090);
    assert!(status.iter().all(FileStatus::is_ok));
}

/// A corpus of three utterances, in a folder of its own.
struct Toy {
    dir: TempDir,
}

const DIC: &str = "GO      G OW\nGO(2)   G AH\nNO      N OW\n";
const LM: &str = "words\n\\data\\\nngram 1=4\n\n\\1-grams:\n-0.5 <UNK> 0\n-0.6 </s>\n-99 <s> 0\n\
                  -0.7 GO 0.0\n\n\\end\\\n";

impl Toy {
    fn new() -> Toy {
        let toy = Toy { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(toy.folder().join("etc")).unwrap();
        toy.write("etc/an4.phone", "AH\nG\nN\nOW\nSIL\n");
        toy.write("etc/an4.dic", DIC);
        toy.write("etc/an4.lm", LM);
        toy.write("etc/an4_train.fileids", "tr/ann/a1\ntr/bob/b1\n");
        // In another order than the list, as nothing says they must agree.
        toy.write("etc/an4_train.transcription", "<s> GO NO </s> (b1)\n<s> NO </s> (a1)\n");
        toy.write("etc/an4_test.fileids", "te/cid/c1\n");
        toy.write("etc/an4_test.transcription", "GO (c1)\n");
        for name in ["tr/ann/a1", "tr/bob/b1", "te/cid/c1"] {
            let path = toy.folder().join(format!("wav/{name}.wav"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            write_wav(&path, SPEC, &RAMP);
        }
        toy
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("an4")
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.folder().join(name), content).unwrap();
    }

    fn read(&self) -> Result<Corpus, Error> {
        an4::read(&self.folder())
    }

    /// The corpus with `name` holding `content`: refused with a message that holds every part.
    #[track_caller]
    fn refuses(name: &str, content: impl AsRef<[u8]>, parts: &[&str]) {
        let toy = Toy::new();
        toy.write(name, content);
        says(&toy.read().unwrap_err(), &[&[name], parts].concat());
    }
}

const SPEC: hound::WavSpec = hound::WavSpec {
    channels: 1,
    sample_rate: SAMPLE_RATE,
    bits_per_sample: 16,
    sample_format: hound::SampleFormat::Int,
};
const RAMP: [i32; 500] = {
    let mut ramp = [0; 500];
    let mut i = 0;
    while i < 500 {
        ramp[i] = i as i32 * 131 - 32_768;
        i += 1;
    }
    ramp
};

fn write_wav(path: &Path, spec: hound::WavSpec, samples: &[i32]) {
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    for &sample in samples {
        match spec.sample_format {
            hound::SampleFormat::Int => writer.write_sample(sample).unwrap(),
            hound::SampleFormat::Float => writer.write_sample(sample as f32).unwrap(),
        }
    }
    writer.finalize().unwrap();
}

#[track_caller]
fn says(error: &Error, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "no '{part}' in: {message}");
    }
}

#[test]
fn a_small_corpus_reads_back() {
    let toy = Toy::new();
    let corpus = toy.read().unwrap();
    assert_eq!(corpus.phones, ["AH", "G", "N", "OW", SILENCE]);
    let words: Vec<_> = corpus
        .dictionary
        .words()
        .iter()
        .map(|word| (word.spelling.as_str(), word.pronunciations.clone()))
        .collect();
    assert_eq!(words, [("GO", vec![vec![1, 3], vec![1, 0]]), ("NO", vec![vec![2, 3]])]);
    assert_eq!((corpus.dictionary.id("NO"), corpus.dictionary.id("ON")), (Some(1), None));

    let of = |split: &[Utterance]| -> Vec<(String, String, Vec<String>)> {
        split.iter().map(|u| (u.id.clone(), u.speaker.clone(), u.words.clone())).collect()
    };
    let utterance = |id: &str, speaker: &str, words: &[&str]| {
        (id.to_string(), speaker.to_string(), words.iter().map(|word| word.to_string()).collect())
    };
    let train = [utterance("a1", "ann", &["NO"]), utterance("b1", "bob", &["GO", "NO"])];
    assert_eq!(of(&corpus.train), train);
    assert_eq!(of(&corpus.test), [utterance("c1", "cid", &["GO"])]);
    assert_eq!(corpus.word_ids(&corpus.train[1]), [0, 1]);

    assert_eq!(corpus.unigram.log10_prob("GO"), -0.7);
    assert_eq!(corpus.unigram.log10_prob("NO"), -0.5, "<UNK>");
    assert_eq!(corpus.unigram.log10_end(), -0.6);
    // sha256sum of the phone list.
    assert_eq!(corpus.sha256.len(), 7);
    assert_eq!(
        corpus.sha256["etc/an4.phone"],
        "d8ee4adc3a2f11d036774555109bf4d960012820ef084d83dc1ac17dd9a37997"
    );
    for utterance in corpus.train.iter().chain(&corpus.test) {
        let samples = utterance.samples().unwrap();
        assert!(samples.iter().map(|&sample| i32::from(sample)).eq(RAMP));
    }
}

#[test]
fn a_small_corpus_is_not_the_published_one() {
    let toy = Toy::new();
    let data = toy.dir.path();
    assert!(!an4::is_present(data), "no SHA256SUMS");
    says(&an4::load(data).unwrap_err(), &["SHA256SUMS", "no such file", "LIMBECK_DATA"]);
    let [missing] = &an4::verify(data)[..] else { panic!("more than SHA256SUMS") };
    assert!(missing.found.as_ref().unwrap_err().is_io());

    toy.write("SHA256SUMS", "");
    assert!(an4::is_present(data));
    let error = an4::load(data).unwrap_err();
    assert!(!error.is_io());
    // The digest of nothing, and the published one.
    says(&error, &["SHA256SUMS", "found SHA-256 e3b0c442", "expected 2742f3ab"]);
    let [status] = &an4::verify(data)[..] else { panic!("more than SHA256SUMS") };
    assert!(status.found.is_ok() && !status.is_ok());
}

#[test]
fn changed_files_of_the_published_corpus_are_named() {
    let Some(real) = data_dir(an4::is_present) else { return };
    let toy = Toy::new();
    let real = real.join("an4");
    let copy = |name: &str| {
        // The published files are read-only; copies must not be.
        toy.write(name, fs::read(real.join(name)).unwrap());
    };
    let texts = fs::read_dir(real.join("etc")).unwrap();
    for text in texts {
        copy(&format!("etc/{}", text.unwrap().file_name().into_string().unwrap()));
    }
    copy("SHA256SUMS");
    an4::load(toy.dir.path()).unwrap();

    // A word exchanged for another: well formed, but not what was published.
    let name = "etc/an4_test.transcription";
    let text = fs::read_to_string(real.join(name)).unwrap();
    toy.write(name, text.replacen("RUBOUT", "ERASE", 1));
    let error = an4::load(toy.dir.path()).unwrap_err();
    assert!(matches!(error, Error::Hash { .. }));
    says(&error, &[name, "found SHA-256"]);
    let status = an4::verify(toy.dir.path());
    let bad: Vec<_> = status.iter().filter(|s| s.found.is_ok() && !s.is_ok()).collect();
    assert_eq!(bad.len(), 1);
    assert!(bad[0].path.ends_with(name));
    assert_eq!(status.iter().filter(|s| s.found.is_err()).count(), 1078 + 2, "wav and licences");
}

#[test]
fn missing_files() {
    for name in [
        "an4.phone",
        "an4.dic",
        "an4.lm",
        "an4_train.fileids",
        "an4_train.transcription",
        "an4_test.fileids",
        "an4_test.transcription",
    ] {
        let toy = Toy::new();
        fs::remove_file(toy.folder().join("etc").join(name)).unwrap();
        let error = toy.read().unwrap_err();
        assert!(error.is_io());
        says(&error, &[name, "no such file"]);
    }
}

#[test]
fn texts_that_are_none() {
    Toy::refuses("etc/an4.dic", b"GO G OW\nN\xff N", &["an4.dic:2:", "not UTF-8"]);
    Toy::refuses("etc/an4.dic", vec![b' '; (1 << 24) + 1], &["another byte at offset 16777216"]);
}

#[test]
fn phones() {
    let refuses = |content, parts: &[&str]| Toy::refuses("etc/an4.phone", content, parts);
    refuses("AH\nG\n", &["phone:2: found the end", "SIL"]);
    refuses("", &["phone:1: found the end", "SIL"]);
    refuses("AH\nSIL\n\nAH\n", &["phone:4: found 'AH'", "not yet listed"]);
    refuses("AH G\nSIL\n", &["phone:1: found 'AH G'"]);
    // Their states would not fit into 16 bits.
    let many: String = (0..21_846).map(|i| format!("P{i}\n")).collect();
    refuses(&many, &["phone:21846: found 'P21845'", "the end, after 21845 phones"]);
}

#[test]
fn dictionaries() {
    let refuses = |content: &str, parts: &[&str]| Toy::refuses("etc/an4.dic", content, parts);
    refuses("", &["dic:1: found the end"]);
    refuses("GO G OW\nNO N XX\n", &["dic:2: found phone 'XX'", "etc/an4.phone"]);
    refuses("GO\n", &["dic:1: found 'GO' without phones"]);
    refuses("GO G OW\nGO G AH\n", &["dic:2: found 'GO'", "'GO(2)' or another word"]);
    refuses("GO G OW\nGO(3) G AH\n", &["dic:2: found 'GO(3)'", "'GO(2)'"]);
    refuses("GO G OW\nGO(x) G AH\n", &["dic:2: found 'GO(x)'", "'GO(2)'"]);
    refuses("GO(2) G AH\n", &["dic:1: found 'GO(2)'", "without a number"]);
    refuses("(1) G AH\n", &["dic:1: found '(1)'"]);
    refuses("GO G OW\nGO(2) G  OW\n", &["dic:2: found 'GO(2) G  OW' for the second time"]);
    let many = |i: usize| format!("GO({i}) {}\n", "G ".repeat(i));
    let many: String = (2..=101).map(many).collect();
    refuses(&format!("GO G\n{many}"), &["dic:101: found 'GO(101)'", "after 100 pronunciations"]);
}

#[test]
fn language_models() {
    let refuses = |(from, to): (&str, &str), parts: &[&str]| {
        assert!(LM.contains(from));
        Toy::refuses("etc/an4.lm", LM.replace(from, to), parts);
    };
    refuses(("\\data\\", "data"), &["lm:11: found the end", "\\data\\"]);
    refuses(("ngram 1=4", "ngram 2=4"), &["found the end", "ngram 1="]);
    refuses(("ngram 1=4", "ngram 1=four"), &["lm:3: found 'ngram 1=four'"]);
    refuses(("ngram 1=4", "ngram 1=5"), &["lm:11: found '\\end\\' after 4 unigrams", "5"]);
    refuses(("\\1-grams:", "1-grams:"), &["found the end", "\\1-grams:"]);
    refuses(("\\end\\", ""), &["lm:9: found the end", "\\end\\"]);
    refuses(("-0.7 GO", "-O.7 GO"), &["lm:9: found '-O.7 GO 0.0'", "log10"]);
    refuses(("-0.7 GO", "0.7 GO"), &["lm:9: found '0.7 GO 0.0'", "log10"]);
    refuses(("-0.7 GO", "NaN GO"), &["lm:9: found 'NaN GO 0.0'", "log10"]);
    refuses(("-0.7 GO 0.0", "-0.7"), &["lm:9: found '-0.7'", "a word"]);
    refuses(("-0.7 GO", "-0.7 <UNK>"), &["lm:9: found '<UNK>' for the second time"]);
    refuses(("<UNK>", "UNK"), &["lm:11:", "the unigram <UNK>"]);
    refuses(("</s>", "<//s>"), &["lm:11:", "the unigram </s>"]);
}

#[test]
fn lists_and_transcripts() {
    let list =
        |content: &str, parts: &[&str]| Toy::refuses("etc/an4_train.fileids", content, parts);
    list("", &["transcription:1: found (b1)"]);
    list("tr/ann/a1\n", &["transcription:1: found (b1)", "an utterance of", "an4_train.fileids"]);
    list("tr/ann/a1\ntr/bob/b2\n", &["fileids:2: found 'b2'", "an4_train.transcription"]);
    list("tr/ann/a1\ntr/ann/a1\n", &["fileids:2: found 'a1'"]);
    list("tr/a1\n", &["fileids:1: found 'tr/a1'", "folder/speaker/utterance"]);
    list("tr/../a1\n", &["fileids:1: found 'tr/../a1'", "letters"]);
    list("tr//a1\n", &["fileids:1: found 'tr//a1'", "letters"]);
    list("x/tr/ann/a1\n", &["fileids:1: found 'x/tr/ann/a1'"]);

    let said = |content: &str, parts: &[&str]| {
        Toy::refuses("etc/an4_train.transcription", content, parts);
    };
    let rest = "<s> GO </s> (b1)\n";
    said(&format!("<s> GO ON </s> (a1)\n{rest}"), &["transcription:1: found 'ON'", "etc/an4.dic"]);
    said(&format!("{rest}<s> GO (a1)\n"), &["transcription:2: found '<s>'"]);
    said(&format!("GO </s> (a1)\n{rest}"), &["transcription:1: found '</s>'"]);
    said(&format!("</s> GO <s> (a1)\n{rest}"), &["transcription:1: found '</s>'"]);
    said(&format!("<s> </s> (a1)\n{rest}"), &["transcription:1: found no word of (a1)"]);
    said(&format!("(a1)\n{rest}"), &["transcription:1: found no word of (a1)"]);
    said(&format!("GO a1\n{rest}"), &["transcription:1: found 'GO a1'", "(utterance)"]);
    said(&format!("GO a1)\n{rest}"), &["transcription:1: found 'GO a1)'", "(utterance)"]);
    said(&format!("{rest}{rest}"), &["transcription:2: found (b1) for the second time"]);

    let toy = Toy::new();
    toy.write("etc/an4_test.fileids", "te/ann/c1\n");
    says(&toy.read().unwrap_err(), &["an4_test.fileids:1: found the training speaker 'ann'"]);
    let toy = Toy::new();
    for name in ["fileids", "transcription"] {
        toy.write(&format!("etc/an4_test.{name}"), "\n");
    }
    says(&toy.read().unwrap_err(), &["an4_test.fileids:1: found the end", "an utterance"]);
}

#[test]
fn recordings() {
    let toy = Toy::new();
    let corpus = toy.read().unwrap();
    let utterance = &corpus.test[0];
    let path = &utterance.path;
    let refused = |parts: &[&str]| {
        let error = utterance.samples().unwrap_err();
        assert!(!error.is_io(), "{error}");
        says(&error, &[&["c1.wav"], parts].concat());
    };
    let wanted = "1 channel(s), 16000 Hz, 16 bit Int";
    for (spec, found) in [
        (hound::WavSpec { channels: 2, ..SPEC }, "2 channel(s), 16000 Hz, 16 bit Int"),
        (hound::WavSpec { sample_rate: 8000, ..SPEC }, "1 channel(s), 8000 Hz, 16 bit Int"),
        (hound::WavSpec { bits_per_sample: 24, ..SPEC }, "1 channel(s), 16000 Hz, 24 bit Int"),
        (
            hound::WavSpec {
                bits_per_sample: 32,
                sample_format: hound::SampleFormat::Float,
                ..SPEC
            },
            "1 channel(s), 16000 Hz, 32 bit Float",
        ),
    ] {
        write_wav(path, spec, &RAMP);
        refused(&["found", found, "expected", wanted]);
    }
    write_wav(path, SPEC, &RAMP[..399]);
    refused(&["found 399 samples", "400 to 960000"]);
    write_wav(path, SPEC, &vec![0; 960_001]);
    refused(&["found 960001 samples", "400 to 960000"]);

    write_wav(path, SPEC, &RAMP);
    let good = fs::read(path).unwrap();
    assert_eq!(good.len(), 44 + 1000);
    for length in 0..good.len() {
        fs::write(path, &good[..length]).unwrap();
        match length {
            0..44 => refused(&["an intact WAV file"]),
            _ => refused(&["truncated", &format!("found {length}"), "expected 1044"]),
        }
    }
    // Announces 4 GiB, holds 1,000 bytes.
    let mut boastful = good.clone();
    boastful[40..44].copy_from_slice(&[0xfe, 0xff, 0xff, 0xff]);
    fs::write(path, &boastful).unwrap();
    refused(&["found 2147483647 samples"]);
    // A chunk in front of the data makes the file long enough, but not the data.
    let mut short = good[..36].to_vec();
    short.extend(b"LIST\x0a\0\0\0..........");
    short.extend(&good[36..good.len() - 2]);
    fs::write(path, &short).unwrap();
    refused(&["truncated", "found 1060", "expected 1062"]);
    fs::write(path, "an MP3, perhaps").unwrap();
    refused(&["no RIFF tag", "at offset 4", "an intact WAV file"]);
    // 16 bits of each sample in four bytes: what the samples would be is not what was asked for.
    let mut wide = good[..12].to_vec();
    wide.extend(b"fmt \x28\0\0\0\xfe\xff\x01\0\x80\x3e\0\0\0\xfa\0\0\x04\0\x20\0\x16\0\x10\0");
    wide.extend(b"\0\0\0\0\x01\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71");
    wide.extend([b"data", &2000u32.to_le_bytes()[..], &[1; 1000]].concat());
    fs::write(path, &wide).unwrap();
    refused(&["at offset", "an intact WAV file"]);
    fs::write(path, vec![0; 2_000_000]).unwrap();
    refused(&["another byte at offset 1985536", "the end of a file of the AN4 corpus"]);

    fs::remove_file(path).unwrap();
    let error = utterance.samples().unwrap_err();
    assert!(error.is_io());
    says(&error, &["c1.wav", "no such file"]);
    fs::create_dir(path).unwrap();
    assert!(utterance.samples().unwrap_err().is_io());
}
