//! Token passing: the exact search for the words of an utterance.
//!
//! The network is a loop over the words. Each pronunciation is a chain of states. Each word is
//! followed by a silence of its own, which may be skipped: in a silence that all words shared, the
//! word before would be forgotten when the next one starts. One more silence may precede the first
//! word. The score of words w₁ … w_n along a path is
//!
//! ```text
//! Σ_t acoustic_scale·score(t, state) + transitions + Σ_i (lm_scale·ln P(w_i | w_(i−1)) + word_penalty)
//!   + lm_scale·ln P(end | w_n)
//! ```
//!
//! and the search finds the best path, without a beam (Young, Russell & Thornton 1989). A unigram is
//! a bigram whose rows are equal.

use crate::speech::hmm::{Lexicon, Transitions};
use limbeck_kernels::Pool;

/// The weights of the acoustic and the language model in a path's score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales {
    /// Factor of each frame's ln p(frame | state).
    pub acoustic_scale: f64,
    /// Factor of each ln P(word | word before).
    pub lm_scale: f64,
    /// Added for each word. The lower it is, the fewer words are found.
    pub word_penalty: f64,
}

/// The recognised words.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// The ids of the words, in order.
    pub words: Vec<usize>,
    /// The score of their best path; −∞ where every path needs more frames than there are.
    pub score: f64,
}

/// A chain of states in the network: a pronunciation of a word, or the silence behind it.
struct Chain {
    /// The word; that of the start is one more than the last.
    word: usize,
    silence: bool,
    /// The first of its nodes, which has no state: it holds the token that comes in.
    entry: usize,
    /// The last of its nodes.
    last: usize,
    /// ln P of leaving the state of the last node.
    leave: f64,
}

/// The words that a token has passed: the index of the end of its last word in a table
/// [T, words + 1], whose entries lead on to the word before.
type Link = u32;

/// The best path to a node so far.
#[derive(Clone, Copy)]
struct Token {
    score: f64,
    link: Link,
}

impl Token {
    /// No path leads to the node.
    const DEAD: Token = Token { score: f64::NEG_INFINITY, link: 0 };

    /// The better of two tokens; `self` if they are equal.
    fn or(self, other: Token) -> Token {
        if other.score > self.score { other } else { self }
    }

    fn plus(self, score: f64) -> Token {
        Token { score: self.score + score, ..self }
    }
}

/// The network of words, with the scores of its arcs.
pub struct Decoder {
    acoustic_scale: f64,
    /// [words + 1, words + 1]: the score of going from a word, or the start, to a word, or the end.
    weights: Vec<f64>,
    states: usize,
    chains: Vec<Chain>,
    /// The state of each node; unused for an entry.
    state: Vec<u16>,
    /// ln P of staying in each node.
    stay: Vec<f64>,
    /// ln P of leaving the node before each.
    arrive: Vec<f64>,
}

impl Decoder {
    /// A search for words of `lexicon` whose language model is `lm` [words + 1, words + 1],
    /// row-major: ln P(next | previous), the last row for the start as the previous and the last
    /// column for the end as the next. An impossible pair is −∞.
    ///
    /// # Panics
    /// If `lm` has another size, or `transitions` are for other states.
    pub fn new(lexicon: &Lexicon, transitions: &Transitions, lm: &[f32], scales: Scales) -> Self {
        let words = lexicon.words();
        let histories = words + 1;
        assert_eq!(lm.len(), histories * histories, "pairs of {words} words and the boundary");
        assert_eq!(transitions.stay.len(), lexicon.states(), "states with transitions");
        let weights = lm.iter().enumerate().map(|(i, &ln_p)| {
            let penalty = if i % histories == words { 0.0 } else { scales.word_penalty };
            scales.lm_scale * f64::from(ln_p) + penalty
        });
        let mut decoder = Self {
            acoustic_scale: scales.acoustic_scale,
            weights: weights.collect(),
            states: lexicon.states(),
            chains: Vec::new(),
            state: Vec::new(),
            stay: Vec::new(),
            arrive: Vec::new(),
        };
        for word in 0..words {
            for chain in lexicon.pronunciations(word) {
                decoder.add_chain(word, false, chain, transitions);
            }
        }
        for word in 0..histories {
            decoder.add_chain(word, true, lexicon.silence(), transitions);
        }
        decoder
    }

    fn add_chain(&mut self, word: usize, silence: bool, chain: &[u16], transitions: &Transitions) {
        let entry = self.state.len();
        // The token of an entry is overwritten before it is used: these values never matter.
        self.state.push(0);
        self.stay.push(f64::NEG_INFINITY);
        self.arrive.push(f64::NEG_INFINITY);
        let mut leave = 0.0;
        for &state in chain {
            self.state.push(state);
            self.stay.push(transitions.stay[usize::from(state)]);
            self.arrive.push(leave);
            leave = transitions.leave[usize::from(state)];
        }
        self.chains.push(Chain { word, silence, entry, last: self.state.len() - 1, leave });
    }

    /// Finds the words of an utterance. `scores` [T, states] are ln p(frame | state), up to a
    /// constant for each frame.
    ///
    /// Sums run in f64 in the order of the frames. Of equal scores the path wins that stays longer
    /// in its state, then the word or pronunciation with the lower number.
    ///
    /// # Panics
    /// If `scores` is not a whole number of frames.
    pub fn decode(&self, scores: &[f32]) -> Hypothesis {
        assert_eq!(scores.len() % self.states, 0, "{} scores of {}", scores.len(), self.states);
        let frames = scores.len() / self.states;
        let start = self.histories() - 1;
        // [T, words + 1]: the link of the token at each word's end.
        let mut links: Vec<Link> = Vec::with_capacity(frames * self.histories());
        let mut tokens = vec![Token::DEAD; self.state.len()];
        let mut ends = vec![Token::DEAD; self.histories()];
        ends[start] = Token { score: 0.0, link: 0 };
        // The tokens from which a silence may begin. Before the first frame there is only the start.
        let mut pauses = ends.clone();
        let mut best: Vec<(f64, u32)> = Vec::new();
        let mut row = vec![0.0; self.states];
        for frame in scores.chunks_exact(self.states) {
            self.enter(&ends, &mut best);
            let first_link = links.len() as Link;
            links.extend(ends.iter().map(|token| token.link));
            for chain in &self.chains {
                tokens[chain.entry] = if chain.silence {
                    pauses[chain.word]
                } else {
                    let (score, previous) = best[chain.word];
                    Token { score, link: first_link + previous }
                };
            }
            for (scaled, &score) in row.iter_mut().zip(frame) {
                *scaled = self.acoustic_scale * f64::from(score);
            }
            // From the top down, each node still finds the tokens of the frame before.
            for node in (1..tokens.len()).rev() {
                let coming = tokens[node - 1].plus(self.arrive[node]);
                let token = tokens[node].plus(self.stay[node]).or(coming);
                tokens[node] = token.plus(row[usize::from(self.state[node])]);
            }
            ends.fill(Token::DEAD);
            pauses.fill(Token::DEAD);
            for chain in &self.chains {
                let token = tokens[chain.last].plus(chain.leave);
                ends[chain.word] = ends[chain.word].or(token);
                if !chain.silence {
                    pauses[chain.word] = pauses[chain.word].or(token);
                }
            }
        }
        self.enter(&ends, &mut best);
        let (score, last) = best[start];
        let mut words = Vec::new();
        if score == f64::NEG_INFINITY {
            return Hypothesis { words, score };
        }
        let (mut word, mut link) = (last as usize, ends[last as usize].link as usize);
        while word != start {
            words.push(word);
            (word, link) = (link % self.histories(), links[link] as usize);
        }
        words.reverse();
        Hypothesis { words, score }
    }

    /// [`Decoder::decode`] for each utterance, several at a time.
    pub fn decode_all(&self, pool: &Pool, utterances: &[&[f32]]) -> Vec<Hypothesis> {
        pool.map(utterances.len(), |i| self.decode(utterances[i]))
    }

    /// Number of histories: each word, and the start.
    fn histories(&self) -> usize {
        self.weights.len().isqrt()
    }

    /// For each word, and the end: the best score of any history followed by it, and that history.
    fn enter(&self, ends: &[Token], best: &mut Vec<(f64, u32)>) {
        best.clear();
        best.resize(ends.len(), (f64::NEG_INFINITY, 0));
        for (previous, (end, row)) in
            ends.iter().zip(self.weights.chunks_exact(ends.len())).enumerate()
        {
            for (best, weight) in best.iter_mut().zip(row) {
                let score = end.score + weight;
                if score > best.0 {
                    *best = (score, previous as u32);
                }
            }
        }
    }
}
