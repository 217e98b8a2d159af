//! CMU AN4, the "Census" corpus: spelled names, addresses, dates and digits read by 84 speakers.
//!
//! The layout is CMU's, `<data>/an4/`:
//!
//! ```text
//! etc/an4_{train,test}.fileids          an4_clstk/fash/an251-fash-b: folder/speaker/utterance
//! etc/an4_{train,test}.transcription    <s> GO </s> (an253-fash-b); the test lines lack <s>, </s>
//! etc/an4.dic                           AND    AE N D; a further pronunciation is AND(2)
//! etc/an4.phone                         the phones and SIL, one a line
//! etc/an4.lm                            ARPA; the unigrams are read
//! wav/<fileid>.wav                      16 kHz, mono, 16 bit
//! SHA256SUMS                            of all these
//! ```
//!
//! [`load`] checks the SHA-256 of every text file and every reference from one file into another. In
//! a [`Corpus`] each word is therefore in the dictionary, and each phone in the list.
//! [`Utterance::samples`] opens one recording at a time.
//!
//! Source: Acero, *Acoustical and Environmental Robustness in Automatic Speech Recognition*, Kluwer
//! 1993, made the recordings; the files are those of <https://github.com/cmusphinx/an4>.

#[cfg(feature = "fetch")]
mod archive;
#[cfg(feature = "fetch")]
pub use archive::fetch;

use crate::Error;
use crate::digest::{FileStatus, sha256_of, sha256_of_file};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

/// Samples a second.
pub const SAMPLE_RATE: u32 = 16_000;
/// The phone of the pauses.
pub const SILENCE: &str = "SIL";

/// SHA-256 of the published `SHA256SUMS`.
const SUMS_SHA256: &str = "2742f3ab03789aa276eb39295e9e024f8aea20f018d36bed3fc47a848a50b3ca";
const SUMS: &str = "SHA256SUMS";
const DICTIONARY: &str = "etc/an4.dic";
const PHONES: &str = "etc/an4.phone";
const LANGUAGE_MODEL: &str = "etc/an4.lm";
const TRAIN: [&str; 2] = ["etc/an4_train.fileids", "etc/an4_train.transcription"];
const TEST: [&str; 2] = ["etc/an4_test.fileids", "etc/an4_test.transcription"];

const KIND: &str = "a file of the AN4 corpus";
/// The longest text file accepted, in bytes; the longest published one has 112,995.
const MAX_TEXT: u64 = 1 << 24;
/// Number of samples of a recording: from 25 ms, which is one frame, to a minute.
const SAMPLES: std::ops::RangeInclusive<u32> = 400..=60 * SAMPLE_RATE;
/// The longest WAV file accepted, in bytes: a minute, and 64 KiB of other chunks.
const MAX_WAV: u64 = 2 * 60 * SAMPLE_RATE as u64 + (1 << 16);
/// The most phones. Each has three states, whose numbers have 16 bits.
const MAX_PHONES: usize = (1 << 16) / 3;
/// The most pronunciations of a word.
const MAX_PRONUNCIATIONS: usize = 100;

/// The corpus without its recordings.
#[derive(Clone, Debug, PartialEq)]
pub struct Corpus {
    /// The training utterances, in the order of their list.
    pub train: Vec<Utterance>,
    /// The test utterances, of other speakers, in the order of their list.
    pub test: Vec<Utterance>,
    /// A dictionary that holds every word of both splits.
    pub dictionary: Dictionary,
    /// The language model's unigrams.
    pub unigram: Unigram,
    /// The phones in the order of their list; [`SILENCE`] is one of them.
    pub phones: Vec<String>,
    /// Lower-case hex SHA-256 of each text file, under its name.
    pub sha256: BTreeMap<String, String>,
}

/// A recording and the words that are said in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Utterance {
    /// Its name, unique in its split: `an251-fash-b`.
    pub id: String,
    /// Its speaker, the name of the folder: `fash`.
    pub speaker: String,
    /// The words, at least one, each in the dictionary.
    pub words: Vec<String>,
    /// The WAV file.
    pub path: PathBuf,
}

/// How words are pronounced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dictionary {
    words: Vec<Word>,
}

/// A word of the [`Dictionary`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The word as transcripts write it.
    pub spelling: String,
    /// At least one pronunciation, each of at least one phone: indices into [`Corpus::phones`].
    pub pronunciations: Vec<Vec<usize>>,
}

impl Dictionary {
    /// The words, strictly ascending by spelling. A word's index here is its id.
    #[must_use]
    pub fn words(&self) -> &[Word] {
        &self.words
    }

    /// The id of a word.
    #[must_use]
    pub fn id(&self, spelling: &str) -> Option<usize> {
        self.words.binary_search_by(|word| word.spelling.as_str().cmp(spelling)).ok()
    }
}

/// Probabilities of single words, as log₁₀.
#[derive(Clone, Debug, PartialEq)]
pub struct Unigram {
    words: BTreeMap<String, f64>,
    unknown: f64,
    end: f64,
}

impl Unigram {
    /// log₁₀ P(word); a word that the model lacks has the probability of its `<UNK>`.
    #[must_use]
    pub fn log10_prob(&self, word: &str) -> f64 {
        self.words.get(word).copied().unwrap_or(self.unknown)
    }

    /// log₁₀ P(`</s>`), the sentence's end.
    #[must_use]
    pub fn log10_end(&self) -> f64 {
        self.end
    }
}

impl Corpus {
    /// The words of an utterance of this corpus as ids of its dictionary.
    ///
    /// # Panics
    /// If the utterance is of another corpus and has a word that this dictionary lacks.
    #[must_use]
    pub fn word_ids(&self, utterance: &Utterance) -> Vec<usize> {
        let id = |word: &String| self.dictionary.id(word).expect("a word of the dictionary");
        utterance.words.iter().map(id).collect()
    }
}

impl Utterance {
    /// Reads the recording: 25 ms to 60 s of 16-bit samples at 16 kHz. It needs memory for the file
    /// and its samples.
    ///
    /// # Errors
    /// Not found or unreadable; and, naming file and offset: not a WAV file, not 16 kHz, mono and
    /// 16-bit integer, too short or too long, more than 64 KiB of other chunks, or truncated.
    pub fn samples(&self) -> Result<Vec<i16>, Error> {
        let bytes = read_limited(&self.path, MAX_WAV)?;
        let mut file = Cursor::new(&bytes[..]);
        let wrong = |offset: u64, found, expected: &str| Error::Content {
            path: self.path.clone(),
            offset,
            found,
            expected: expected.to_owned(),
        };
        const INTACT: &str = "an intact WAV file";
        let header = hound::WavReader::new(&mut file).map(|file| (file.spec(), file.len()));
        // The offset at which the samples begin, or at which the parser gave up.
        let start = file.position();
        let (spec, count) = header.map_err(|e| wrong(start, e.to_string(), INTACT))?;
        let expected = hound::WavSpec {
            channels: 1,
            sample_rate: SAMPLE_RATE,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        if spec != expected {
            let shown = |spec: hound::WavSpec| {
                let hound::WavSpec { channels, sample_rate, bits_per_sample, sample_format } = spec;
                format!(
                    "{channels} channel(s), {sample_rate} Hz, {bits_per_sample} bit {sample_format:?}"
                )
            };
            return Err(wrong(start, shown(spec), &shown(expected)));
        }
        if !SAMPLES.contains(&count) {
            let (least, most) = (SAMPLES.start(), SAMPLES.end());
            return Err(wrong(start, format!("{count} samples"), &format!("{least} to {most}")));
        }
        let (found, expected) = (bytes.len() as u64, start + 2 * u64::from(count));
        if found < expected {
            return Err(Error::Truncated { path: self.path.clone(), found, expected });
        }
        file.set_position(0);
        let mut samples = Vec::with_capacity(count as usize);
        let read = hound::WavReader::new(&mut file).and_then(|file| {
            file.into_samples().try_for_each(|sample| sample.map(|sample| samples.push(sample)))
        });
        read.map_err(|e| wrong(file.position(), e.to_string(), INTACT))?;
        Ok(samples)
    }
}

/// Loads `data_dir/an4/`: 948 utterances of 74 speakers to train on and 130 of 10 others to test,
/// 101 words with 130 pronunciations, 33 phones and silence.
///
/// # Errors
/// As [`read`]; or a text file that is not the published one: the message names file, found and
/// expected SHA-256. Recordings are compared by [`verify`].
pub fn load(data_dir: &Path) -> Result<Corpus, Error> {
    let folder = folder(data_dir);
    let sums = published(&folder)?;
    let mut corpus = read(&folder)?;
    for (name, found) in &corpus.sha256 {
        // The published list, which this is, names every text file.
        let path = folder.join(name);
        let expected = sums[name].clone();
        FileStatus { path, found: Ok(found.clone()), expected }.verified()?;
    }
    corpus.sha256.insert(SUMS.to_owned(), SUMS_SHA256.to_owned());
    Ok(corpus)
}

/// Whether the text files and a folder `wav` exist. Their contents are not read.
#[must_use]
pub fn is_present(data_dir: &Path) -> bool {
    let folder = folder(data_dir);
    let mut texts = [SUMS, DICTIONARY, PHONES, LANGUAGE_MODEL].into_iter().chain(TRAIN).chain(TEST);
    texts.all(|name| folder.join(name).is_file()) && folder.join("wav").is_dir()
}

/// Reads `SHA256SUMS` and each of the 1,089 files that it lists, and compares each with the published
/// one. A bad file does not keep the others from being read. If `SHA256SUMS` is not the published
/// one, the report holds it alone.
#[must_use]
pub fn verify(data_dir: &Path) -> Vec<FileStatus> {
    let folder = folder(data_dir);
    let sums = FileStatus {
        path: folder.join(SUMS),
        found: Text::read(&folder, SUMS).map(|text| text.sha256),
        expected: SUMS_SHA256.to_owned(),
    };
    let Ok(published) = published(&folder) else {
        return vec![sums];
    };
    let status = |(name, expected)| {
        let path = folder.join(name);
        let found = sha256_of_file(&path)
            .map_err(|cause| Error::from_os(&path, KIND, cause).of_published());
        FileStatus { path, found, expected }
    };
    std::iter::once(sums).chain(published.into_iter().map(status)).collect()
}

fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("an4")
}

/// The published SHA-256 of every file, by name.
fn published(folder: &Path) -> Result<BTreeMap<String, String>, Error> {
    let text = Text::read(folder, SUMS)?;
    let (path, found) = (text.path.clone(), Ok(text.sha256.clone()));
    FileStatus { path, found, expected: SUMS_SHA256.to_owned() }.verified()?;
    let entry = |(line, entry): (usize, &str)| match entry.split_once("  ./") {
        Some((sha256, name)) => Ok((name.to_owned(), sha256.to_owned())),
        None => Err(text.fault(line, format!("'{entry}'"), "a digest and a file name")),
    };
    text.lines().map(entry).collect()
}

/// Reads the corpus in `folder` without comparing it with the published one: a user's own corpus in
/// AN4's layout, without `SHA256SUMS`. It needs at most 64 times the memory of the text files, each
/// of at most 16 MiB.
///
/// # Errors
/// A text file that is not found, unreadable, too long or not UTF-8; and, naming file and line: an
/// unknown phone or the 21,846th; a pronunciation that is empty, given twice, out of order or a
/// word's 101st; a word that the dictionary lacks; half a pair of `<s>` and `</s>`; an utterance without words, listed
/// twice, or only in one of the two lists; a test speaker who is also a training speaker; a list
/// without an entry; a language model without `\data\`, `\1-grams:`, `<UNK>`, `</s>` or the number
/// of unigrams that it announces, or with a log₁₀ that is no number or above 0.
pub fn read(folder: &Path) -> Result<Corpus, Error> {
    let mut sha256 = BTreeMap::new();
    let mut text = |name: &str| -> Result<Text, Error> {
        let text = Text::read(folder, name)?;
        sha256.insert(name.to_owned(), text.sha256.clone());
        Ok(text)
    };
    let phones = read_phones(&text(PHONES)?)?;
    let dictionary = read_dictionary(&text(DICTIONARY)?, &phones)?;
    let unigram = read_unigram(&text(LANGUAGE_MODEL)?)?;
    let mut split = |[list, transcripts]: [&str; 2], others: &[Utterance]| {
        read_split(folder, &text(list)?, &text(transcripts)?, &dictionary, others)
    };
    let train = split(TRAIN, &[])?;
    let test = split(TEST, &train)?;
    Ok(Corpus { train, test, dictionary, unigram, phones, sha256 })
}

/// Reads a file of at most `most` bytes.
fn read_limited(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .map_err(|cause| Error::from_os(path, KIND, cause).of_published())?;
    if bytes.len() as u64 > most {
        let (path, found) = (path.to_path_buf(), "another byte".to_owned());
        let expected = format!("the end of {KIND}");
        return Err(Error::Content { path, offset: most, found, expected });
    }
    Ok(bytes)
}

/// A text file in memory.
struct Text {
    path: PathBuf,
    content: String,
    sha256: String,
}

impl Text {
    fn read(folder: &Path, name: &str) -> Result<Text, Error> {
        let path = folder.join(name);
        let bytes = read_limited(&path, MAX_TEXT)?;
        let sha256 = sha256_of([&bytes]);
        match String::from_utf8(bytes) {
            Ok(content) => Ok(Text { path, content, sha256 }),
            Err(error) => {
                let start = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                Err(Error::Line {
                    path,
                    line: 1 + start.iter().filter(|&&byte| byte == b'\n').count(),
                    found: "bytes that are not UTF-8".to_owned(),
                    expected: "text".to_owned(),
                })
            }
        }
    }

    /// The lines that are not blank, trimmed, each with its number, counted from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.content.lines().enumerate();
        lines.map(|(i, line)| (i + 1, line.trim())).filter(|(_, line)| !line.is_empty())
    }

    fn fault(&self, line: usize, found: impl Into<String>, expected: impl Into<String>) -> Error {
        let (found, expected) = (found.into(), expected.into());
        Error::Line { path: self.path.clone(), line, found, expected }
    }

    /// The error of a file that ends too early.
    fn ended(&self, expected: impl Into<String>) -> Error {
        self.fault(self.content.lines().count().max(1), "the end of the file", expected)
    }
}

fn read_phones(text: &Text) -> Result<Vec<String>, Error> {
    let mut phones = Vec::new();
    let mut known = BTreeSet::new();
    for (line, phone) in text.lines() {
        if phone.contains(char::is_whitespace) || !known.insert(phone) {
            return Err(text.fault(line, format!("'{phone}'"), "a phone that is not yet listed"));
        }
        if phones.len() == MAX_PHONES {
            let expected = format!("the end, after {MAX_PHONES} phones");
            return Err(text.fault(line, format!("'{phone}'"), expected));
        }
        phones.push(phone.to_owned());
    }
    if !known.contains(SILENCE) {
        return Err(text.ended(format!("the phone {SILENCE}")));
    }
    Ok(phones)
}

fn read_dictionary(text: &Text, phones: &[String]) -> Result<Dictionary, Error> {
    let phones: BTreeMap<&str, usize> =
        phones.iter().enumerate().map(|(index, phone)| (phone.as_str(), index)).collect();
    let mut words: BTreeMap<&str, Vec<Vec<usize>>> = BTreeMap::new();
    for (line, entry) in text.lines() {
        let mut fields = entry.split_whitespace();
        let name = fields.next().unwrap_or_default();
        // "AND(2)" is the second pronunciation of "AND".
        let (spelling, variant) = match name.strip_suffix(')').and_then(|n| n.split_once('(')) {
            Some((spelling, variant)) => (spelling, variant.parse().ok()),
            None => (name, Some(1)),
        };
        let pronunciations = words.entry(spelling).or_default();
        let next = pronunciations.len() + 1;
        if variant != Some(next) || spelling.is_empty() || next > MAX_PRONUNCIATIONS {
            let expected = match next {
                1 => "a word's first pronunciation, without a number".to_owned(),
                2..=MAX_PRONUNCIATIONS => format!("'{spelling}({next})' or another word"),
                _ => format!("another word, after {MAX_PRONUNCIATIONS} pronunciations"),
            };
            return Err(text.fault(line, format!("'{name}'"), expected));
        }
        let phone = |name: &str| {
            phones.get(name).copied().ok_or_else(|| {
                text.fault(line, format!("phone '{name}'"), format!("a phone of {PHONES}"))
            })
        };
        let pronunciation: Vec<usize> = fields.map(phone).collect::<Result<_, _>>()?;
        if pronunciation.is_empty() || pronunciations.contains(&pronunciation) {
            let found = match pronunciation.as_slice() {
                [] => format!("'{name}' without phones"),
                _ => format!("'{entry}' for the second time"),
            };
            return Err(text.fault(line, found, "a pronunciation that is not yet listed"));
        }
        pronunciations.push(pronunciation);
    }
    if words.is_empty() {
        return Err(text.ended("a word"));
    }
    let word =
        |(spelling, pronunciations)| Word { spelling: String::from(spelling), pronunciations };
    Ok(Dictionary { words: words.into_iter().map(word).collect() })
}

/// Reads the unigrams of an ARPA file. Everything before `\data\` is commentary. N-grams of higher
/// order are skipped.
fn read_unigram(text: &Text) -> Result<Unigram, Error> {
    const COUNT: &str = "ngram 1=";
    let mut lines = text.lines();
    let mut find = |wanted: &dyn Fn(&str) -> bool, expected: &str| {
        lines.find(|(_, line)| wanted(line)).ok_or_else(|| text.ended(expected))
    };
    find(&|line| line == r"\data\", r"\data\")?;
    let (line, count) = find(&|line| line.starts_with(COUNT), COUNT)?;
    let count: usize = count[COUNT.len()..]
        .trim()
        .parse()
        .map_err(|_| text.fault(line, format!("'{count}'"), "a number of unigrams"))?;
    find(&|line| line == r"\1-grams:", r"\1-grams:")?;

    let mut words = BTreeMap::new();
    let mut last = 0;
    for (line, entry) in lines {
        if entry.starts_with('\\') {
            if words.len() != count {
                let found = format!("'{entry}' after {} unigrams", words.len());
                return Err(text.fault(line, found, format!("{count}, as announced")));
            }
            let mut special = |word: &str| {
                words.remove(word).ok_or_else(|| {
                    text.fault(line, format!("'{entry}'"), format!("the unigram {word} before it"))
                })
            };
            let (unknown, end) = (special("<UNK>")?, special("</s>")?);
            words.remove("<s>");
            return Ok(Unigram { words, unknown, end });
        }
        let mut fields = entry.split_whitespace();
        let log10 = fields.next().and_then(|field| field.parse().ok());
        let log10 = log10.filter(|log10: &f64| log10.is_finite() && *log10 <= 0.0);
        let word = fields.next();
        let (Some(log10), Some(word)) = (log10, word) else {
            let expected = "a log10 probability of at most 0 and a word";
            return Err(text.fault(line, format!("'{entry}'"), expected));
        };
        if words.insert(word.to_owned(), log10).is_some() {
            return Err(text.fault(line, format!("'{word}' for the second time"), "another word"));
        }
        last = line;
    }
    Err(text.fault(last.max(1), "the end of the unigrams", r"\end\ or the next section"))
}

/// Joins a list of recordings with their transcripts. `others` are the utterances whose speakers
/// must not occur.
fn read_split(
    folder: &Path,
    list: &Text,
    transcripts: &Text,
    dictionary: &Dictionary,
    others: &[Utterance],
) -> Result<Vec<Utterance>, Error> {
    let mut said = BTreeMap::new();
    for (line, entry) in transcripts.lines() {
        let (id, words) = read_transcript(transcripts, line, entry, dictionary)?;
        if said.insert(id, (line, words)).is_some() {
            let found = format!("({id}) for the second time");
            return Err(transcripts.fault(line, found, "one transcript for each utterance"));
        }
    }
    let taken: BTreeSet<&str> = others.iter().map(|other| other.speaker.as_str()).collect();
    let mut utterances = Vec::new();
    for (line, file) in list.lines() {
        // Only plain names pass: no path may lead out of the folder.
        let is_name = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        let parts: Vec<&str> = file.splitn(4, '/').collect();
        let [_, speaker, id] = parts[..] else {
            return Err(list.fault(line, format!("'{file}'"), "folder/speaker/utterance"));
        };
        if !parts.iter().all(|part| is_name(part)) {
            let expected = "folder/speaker/utterance, each of letters, digits, '-' and '_'";
            return Err(list.fault(line, format!("'{file}'"), expected));
        }
        if taken.contains(speaker) {
            let found = format!("the training speaker '{speaker}'");
            return Err(list.fault(line, found, "speakers that were not trained on"));
        }
        let Some((_, words)) = said.remove(id) else {
            let expected = format!("one utterance for each line of {}", transcripts.path.display());
            return Err(list.fault(line, format!("'{id}'"), expected));
        };
        utterances.push(Utterance {
            id: id.to_owned(),
            speaker: speaker.to_owned(),
            words,
            path: folder.join("wav").join(format!("{file}.wav")),
        });
    }
    if let Some((id, (line, _))) = said.into_iter().min_by_key(|(_, (line, _))| *line) {
        let expected = format!("an utterance of {}", list.path.display());
        return Err(transcripts.fault(line, format!("({id})"), expected));
    }
    if utterances.is_empty() {
        return Err(list.ended("an utterance"));
    }
    Ok(utterances)
}

/// `<s> GO </s> (an253-fash-b)` or `GO (an409-fcaw-b)`: the id and the words.
fn read_transcript<'t>(
    text: &Text,
    line: usize,
    entry: &'t str,
    dictionary: &Dictionary,
) -> Result<(&'t str, Vec<String>), Error> {
    let parts = entry.strip_suffix(')').and_then(|entry| entry.rsplit_once('('));
    let Some((sentence, id)) = parts else {
        return Err(text.fault(line, format!("'{entry}'"), "words and (utterance)"));
    };
    let all: Vec<&str> = sentence.split_whitespace().collect();
    let words = match all.as_slice() {
        ["<s>", words @ .., "</s>"] => words,
        words => words,
    };
    if words.is_empty() {
        return Err(text.fault(line, format!("no word of ({id})"), "at least one"));
    }
    // A lone <s> or </s> ends here too.
    if let Some(word) = words.iter().find(|word| dictionary.id(word).is_none()) {
        return Err(text.fault(line, format!("'{word}'"), format!("a word of {DICTIONARY}")));
    }
    Ok((id, words.iter().map(|&word| word.to_owned()).collect()))
}
