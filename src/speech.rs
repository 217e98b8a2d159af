//! Speech: from recordings to words, so that the paper's acoustic experiment (section 4) runs on
//! real data.
//!
//! ```text
//! features   samples at 16 kHz → log-mel filterbanks [frames, 40], MFCC [frames, 39]
//! aligner    MFCC and transcripts → Gaussian mixtures → a state for each frame
//! lm         ln P(word | word before it): a uniform unigram, a Witten-Bell bigram
//! decode     scores [frames, states], lexicon, language model → words
//! wer        words against words: substitutions, insertions, deletions
//! ```

pub mod align;
pub mod aligner;
pub mod decode;
pub mod features;
pub mod gmm;
pub mod hmm;
pub mod lm;
pub mod wer;
