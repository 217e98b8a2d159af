//! Speech: from recordings to words, so that the paper's acoustic experiment (section 4) runs on
//! real data.
//!
//! ```text
//! features   samples at 16 kHz → log-mel filterbanks [frames, 40], MFCC [frames, 39]
//! hmm        phones → states, words and utterances → graphs of states
//! gmm        mixtures of Gaussians: ln p(frame | state)
//! align      a graph and its frames' scores → the state of each frame
//! aligner    the flat start: transcripts → mixtures and alignments
//! decode     scores of frames → words
//! ```

pub mod align;
pub mod aligner;
pub mod decode;
pub mod features;
pub mod gmm;
pub mod hmm;
