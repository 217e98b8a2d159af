//! The speech corpus as the experiments use it: three sets of utterances of disjoint speakers, as
//! features and word ids, and the alignment of their frames.

use super::features::{self, Fbank, FeatureMatrix, Normalisation};
use super::hmm::{Lexicon, STATES_PER_PHONE};
use super::lm::LanguageModel;
use crate::files::digest::sha256_of;
use crate::files::error::{Error, Result};
use crate::files::safetensors::{TensorFile, header, layout, write};
use limbeck_datasets::an4::{self, Corpus, SILENCE};
use limbeck_datasets::{Features, Inputs, Split, permute};
use limbeck_kernels::Pool;
use safetensors::tensor::Dtype;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Frames that a net sees before and behind the frame that it classifies (paper, section 4).
pub const CONTEXT: (usize, usize) = (20, 5);
/// Warp factors of the frequency axis: each turns the 66 training voices into as many others.
pub const WARPS: [f64; 3] = [0.9, 1.0, 1.1];
/// Times that a word must occur in the training set to have states of its own.
const OWN_STATES: usize = 10;
/// The longest alignment file accepted, in bytes: 1,400 hours of speech.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Every ninth of the training speakers is held out, eight in all.
const HELD_OUT: (usize, usize) = (9, 8);

/// Features, pronunciations and language models.
pub struct SpeechCorpus {
    /// The pronunciations for the mixtures: three states for each phone.
    pub phones: Lexicon,
    /// The pronunciations for the nets. A net sees 26 frames and can tell the E of B from that of D:
    /// each phone of each pronunciation of a word has states of its own, if the word occurs ten
    /// times in the training set. Rarer words share the states of their phones.
    pub lexicon: Lexicon,
    /// For each state of `lexicon` the state of `phones` that it is a variant of.
    pub phone_states: Vec<u16>,
    /// The training speakers, without those held out.
    pub train: UtteranceSet,
    /// The log-mels of the training set, computed with each of [`WARPS`] in turn; otherwise as
    /// [`UtteranceSet::frames`].
    pub perturbed: Features,
    /// Eight training speakers who are held out: by them everything is chosen.
    pub holdout: UtteranceSet,
    /// The test speakers.
    pub test: UtteranceSet,
    /// The unigram that comes with the corpus: all words are equally probable.
    pub unigram: LanguageModel,
    /// The bigram of the training set's transcripts.
    pub bigram: LanguageModel,
    /// SHA-256 of the corpus' lists, dictionary and language model.
    pub sha256: BTreeMap<String, String>,
}

/// The utterances of some speakers, N of them. Utterance i has T_i frames.
pub struct UtteranceSet {
    /// `[N]`: the speaker.
    pub speakers: Vec<String>,
    /// `[N]`: the ids of the words, in order.
    pub words: Vec<Vec<usize>>,
    /// `[N]`: the number of frames, T_i.
    pub lengths: Vec<usize>,
    /// `[N]`: cepstra with deltas [T_i, 39], for the mixtures. Each speaker's mean is 0.
    pub mfcc: Vec<FeatureMatrix>,
    /// Log-mels [Σ T_i, 40], for the nets: each speaker's mean subtracted, then normalised by mean
    /// and standard deviation of the training set. An example is a frame with its [`CONTEXT`].
    pub frames: Features,
}

impl UtteranceSet {
    /// All frames as examples. Their labels are the states of `alignment`, if there is one.
    pub fn split(&self, alignment: Option<&[Vec<u16>]>) -> Split {
        let labels = alignment.map(|alignment| alignment.concat());
        Split { inputs: Inputs::Features(self.frames.clone()), labels }
    }

    /// The frames of utterance `i` as examples.
    pub fn utterance(&self, i: usize) -> Split {
        let first: usize = self.lengths[..i].iter().sum();
        let indices: Vec<u32> = (first..first + self.lengths[i]).map(|t| t as u32).collect();
        Split { inputs: Inputs::Features(self.frames.subset(&indices)), labels: None }
    }

    /// Cuts an array [Σ T_i, width] into the utterances' own [T_i, width].
    pub fn by_utterance<'a, T>(&self, values: &'a [T], width: usize) -> Vec<&'a [T]> {
        let mut rest = values;
        let cut = self.lengths.iter().map(|&length| {
            let (utterance, behind) = rest.split_at(length * width);
            rest = behind;
            utterance
        });
        cut.collect()
    }

    /// The indices of `percent` % of the utterances, at least one: round after round one of every
    /// speaker, in an order that depends on the seed.
    pub fn draw(&self, seed: u64, percent: usize) -> Vec<usize> {
        let mut order = vec![0; self.words.len()];
        permute(seed, 0, &mut order);
        let wanted = (self.words.len() * percent / 100).max(1);
        let mut rounds: HashMap<&str, usize> = HashMap::new();
        let mut ranked: Vec<(usize, usize, usize)> = order
            .iter()
            .enumerate()
            .map(|(rank, &utterance)| {
                let round = rounds.entry(&self.speakers[utterance as usize]).or_default();
                *round += 1;
                (*round, rank, utterance as usize)
            })
            .collect();
        ranked.sort_unstable();
        ranked.into_iter().take(wanted).map(|(_, _, utterance)| utterance).collect()
    }
}

impl SpeechCorpus {
    /// Reads the corpus in the data folder and computes its features. `speakers` limits how many
    /// training, held-out and test speakers are used: the first ones.
    ///
    /// # Errors
    /// Those of [`an4::load`] and of reading the recordings.
    pub fn load(pool: &Pool, data: &Path, speakers: Option<[usize; 3]>) -> Result<SpeechCorpus> {
        let corpus = an4::load(data)?;
        let names = |utterances: &[an4::Utterance]| {
            let mut names: Vec<String> = utterances.iter().map(|u| u.speaker.clone()).collect();
            names.sort();
            names.dedup();
            names
        };
        let [limit_train, limit_held, limit_test] = speakers.unwrap_or([usize::MAX; 3]);
        let (mut held, mut kept) = (Vec::new(), Vec::new());
        for (i, name) in names(&corpus.train).into_iter().enumerate() {
            let holdout = i % HELD_OUT.0 == 0 && i / HELD_OUT.0 < HELD_OUT.1;
            if holdout { &mut held } else { &mut kept }.push(name);
        }
        let mut tested = names(&corpus.test);
        kept.truncate(limit_train);
        held.truncate(limit_held);
        tested.truncate(limit_test);
        let of = |utterances: &[an4::Utterance], speakers: &[String], warp: f64| {
            RawFeatures::of(pool, &corpus, utterances, speakers, warp)
        };
        let mut parts = [
            of(&corpus.train, &kept, 1.0)?,
            of(&corpus.train, &held, 1.0)?,
            of(&corpus.test, &tested, 1.0)?,
        ];
        let mut perturbed = Vec::new();
        for warp in WARPS {
            perturbed.extend(of(&corpus.train, &kept, warp)?.log_mels);
        }
        if let Some(normalisation) = Normalisation::of(&parts[0].log_mels) {
            parts.iter_mut().for_each(|part| normalisation.apply(&mut part.log_mels));
            normalisation.apply(&mut perturbed);
        }
        let [train, holdout, test] = parts.map(RawFeatures::into_set);
        let silence = corpus.phones.iter().position(|phone| phone == SILENCE);
        let silence = silence.ok_or_else(|| Error::Internal("a corpus without silence".into()))?;
        let pronunciations: Vec<&[Vec<usize>]> =
            corpus.dictionary.words().iter().map(|word| &word.pronunciations[..]).collect();
        let phones = Lexicon::new(corpus.phones.len(), silence, pronunciations.iter().copied());
        let mut counts = vec![0; pronunciations.len()];
        train.words.iter().flatten().for_each(|&word| counts[word] += 1);
        let (own, phone_of) = own_phones(corpus.phones.len(), &pronunciations, &counts);
        let lexicon = Lexicon::new(phone_of.len(), silence, own.iter().map(Vec::as_slice));
        let phone_states = phone_of.iter().flat_map(|&phone| {
            (0..STATES_PER_PHONE).map(move |i| (phone * STATES_PER_PHONE + i) as u16)
        });
        Ok(SpeechCorpus {
            unigram: LanguageModel::unigram(&corpus.dictionary, &corpus.unigram),
            bigram: LanguageModel::witten_bell(lexicon.words(), &train.words),
            phone_states: phone_states.collect(),
            phones,
            lexicon,
            train,
            perturbed: with_context(perturbed),
            holdout,
            test,
            sha256: corpus.sha256,
        })
    }

    /// The training, the held-out and the test set.
    pub fn parts(&self) -> [&UtteranceSet; 3] {
        [&self.train, &self.holdout, &self.test]
    }
}

/// Gives each phone of each pronunciation of a frequent word a number of its own, from `phones` on.
/// Returns the pronunciations, and for each phone, old and new, the old one.
fn own_phones(
    phones: usize,
    pronunciations: &[&[Vec<usize>]],
    counts: &[usize],
) -> (Vec<Vec<Vec<usize>>>, Vec<usize>) {
    let mut phone_of: Vec<usize> = (0..phones).collect();
    let mut of_word = |(word, count): (&&[Vec<usize>], &usize)| {
        let mut own = word.to_vec();
        if *count >= OWN_STATES {
            for phone in own.iter_mut().flatten() {
                phone_of.push(*phone);
                *phone = phone_of.len() - 1;
            }
        }
        own
    };
    let own = pronunciations.iter().zip(counts).map(&mut of_word).collect();
    (own, phone_of)
}

/// A set of utterances before its log-mels are normalised.
struct RawFeatures {
    speakers: Vec<String>,
    words: Vec<Vec<usize>>,
    mfcc: Vec<FeatureMatrix>,
    log_mels: Vec<FeatureMatrix>,
}

impl RawFeatures {
    fn of(
        pool: &Pool,
        corpus: &Corpus,
        utterances: &[an4::Utterance],
        speakers: &[String],
        warp: f64,
    ) -> Result<RawFeatures> {
        let chosen: Vec<&an4::Utterance> =
            utterances.iter().filter(|u| speakers.contains(&u.speaker)).collect();
        let fbank = Fbank::warped(warp);
        let computed = pool.map(chosen.len(), |i| {
            let log_mels = fbank.features(&chosen[i].samples()?);
            Ok((features::mfcc(&log_mels), log_mels))
        });
        let computed: Result<Vec<(FeatureMatrix, FeatureMatrix)>> = computed.into_iter().collect();
        let (mut mfcc, mut log_mels): (Vec<_>, Vec<_>) = computed?.into_iter().unzip();
        let speakers: Vec<&str> = chosen.iter().map(|u| u.speaker.as_str()).collect();
        for features in [&mut mfcc, &mut log_mels] {
            features::subtract_speaker_means(features, &speakers);
        }
        Ok(RawFeatures {
            speakers: speakers.into_iter().map(str::to_string).collect(),
            words: chosen.iter().map(|utterance| corpus.word_ids(utterance)).collect(),
            mfcc,
            log_mels,
        })
    }

    fn into_set(self) -> UtteranceSet {
        let RawFeatures { speakers, words, mfcc, log_mels } = self;
        let lengths = log_mels.iter().map(FeatureMatrix::frames).collect();
        UtteranceSet { speakers, words, lengths, mfcc, frames: with_context(log_mels) }
    }
}

fn with_context(log_mels: Vec<FeatureMatrix>) -> Features {
    let lengths: Vec<usize> = log_mels.iter().map(FeatureMatrix::frames).collect();
    let values: Vec<f32> = log_mels.into_iter().flat_map(|f| f.values).collect();
    Features::new(values, features::BINS, &lengths, CONTEXT)
}

/// The state of every frame, once it is decided: the labels of the nets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alignments {
    /// Of the training, the held-out and the test set: for each utterance the states `[T_i]`.
    pub parts: [Vec<Vec<u16>>; 3],
}

const PARTS: [&str; 3] = ["train", "holdout", "test"];

impl Alignments {
    /// Writes a safetensors file of three `U16` tensors, each the states `[Σ T_i]` of a set. Its
    /// metadata hold the SHA-256 of them all.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = self.parts.each_ref().map(|part| {
            part.iter().flatten().flat_map(|state| state.to_le_bytes()).collect::<Vec<u8>>()
        });
        let names = PARTS.iter().zip(&bytes);
        let names = names.map(|(name, bytes)| (name.to_string(), vec![bytes.len() / 2]));
        let metadata = BTreeMap::from([("sha256".to_string(), sha256_of(&bytes))]);
        write(path, &header(&metadata, &layout(Dtype::U16, names))?, &bytes)
    }

    /// Reads the alignments of `corpus`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for a damaged file or one of another corpus.
    pub fn load(path: &Path, corpus: &SpeechCorpus) -> Result<Alignments> {
        let file = TensorFile::read(path, MAX_FILE_BYTES)?;
        let mut hash = Vec::new();
        let mut parts = Vec::new();
        for (name, part) in PARTS.iter().zip(corpus.parts()) {
            let info = file.tensor(name).ok_or_else(|| file.bad(name, "none", "a tensor"))?;
            let frames: usize = part.lengths.iter().sum();
            if info.dtype != Dtype::U16 || info.shape != [frames] {
                let found = format!("{:?} {:?}", info.dtype, info.shape);
                return Err(file.bad(name, found, format!("U16 [{frames}]")));
            }
            let bytes = file.bytes(info);
            hash.push(bytes);
            let states: Vec<u16> =
                bytes.as_chunks().0.iter().map(|&b| u16::from_le_bytes(b)).collect();
            let stray = |&state: &u16| usize::from(state) >= corpus.lexicon.states();
            if let Some(at) = states.iter().position(stray) {
                let found = format!("state {} at index {at}", states[at]);
                return Err(file.bad(name, found, format!("below {}", corpus.lexicon.states())));
            }
            parts.push(part.by_utterance(&states, 1).into_iter().map(<[u16]>::to_vec).collect());
        }
        file.expect("sha256", &sha256_of(hash))?;
        let parts = <[_; 3]>::try_from(parts).map_err(|_| Error::Internal("three parts".into()))?;
        Ok(Alignments { parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_words_have_phones_of_their_own() {
        let (often, seldom) = (vec![vec![1, 2], vec![2]], vec![vec![2, 0]]);
        let (own, phone_of) = own_phones(3, &[&often, &seldom], &[OWN_STATES, OWN_STATES - 1]);
        assert_eq!(own, [vec![vec![3, 4], vec![5]], seldom]);
        assert_eq!(phone_of, [0, 1, 2, 1, 2, 2]);
    }
}
