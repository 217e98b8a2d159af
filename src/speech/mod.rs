//! Speech: from recordings to words, so that the paper's acoustic experiment (section 4) runs on
//! real data.
//!
//! ```text
//! features   samples at 16 kHz → log-mel filterbanks [frames, 40], MFCC [frames, 39]
//! corpus     three sets of utterances of disjoint speakers, as features and word ids
//! hmm        phones → states, words and utterances → graphs of states
//! gmm        mixtures of Gaussians: ln p(frame | state)
//! align      a graph and its frames' scores → the state of each frame
//! aligner    the flat start: transcripts → mixtures, and an alignment of every utterance
//! lm         ln P(word | word before)
//! decode     scores of frames → words
//! wer        words found and words said → substitutions, insertions, deletions
//! ```

pub mod align;
pub mod aligner;
pub mod corpus;
pub mod decode;
pub mod features;
pub mod gmm;
pub mod hmm;
pub mod lm;
pub mod wer;
