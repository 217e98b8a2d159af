//! Speech: hidden Markov models over phones, their alignment and the search for words.

pub mod align;
pub mod aligner;
pub mod decode;
pub mod gmm;
pub mod hmm;
