//! Speech: from recordings to words, so that the paper's acoustic experiment (section 4) runs on
//! real data.
//!
//! ```text
//! features   samples at 16 kHz → log-mel filterbanks [frames, 40], MFCC [frames, 39]
//! lm         ln P(word | word before it): a uniform unigram, a Witten-Bell bigram
//! wer        words against words: substitutions, insertions, deletions
//! ```

pub mod features;
pub mod lm;
pub mod wer;
