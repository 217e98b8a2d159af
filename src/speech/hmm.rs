//! Hidden Markov models: a phone is three states from left to right, a word is its phones, an
//! utterance is a graph of its words.
//!
//! ```text
//! stay   stay   stay
//!  ↺      ↺      ↺
//!  s  →  s+1 →  s+2 →      s = 3·phone, each arrow `leave` of the state it comes from
//! ```
//!
//! A path through T frames has one state a frame. Its score is the sum of the frames' scores of
//! their states, of `stay` for each frame whose state is that of the frame before, and of `leave`
//! for each state left, the last one after the last frame included.

use std::array;

/// States of a phone.
pub const STATES_PER_PHONE: usize = 3;

/// How words are said. Phones and words are known by their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lexicon {
    phones: usize,
    silence: [u16; STATES_PER_PHONE],
    /// For each word its pronunciations, each the chain of its states.
    chains: Vec<Vec<Vec<u16>>>,
}

impl Lexicon {
    /// Words with the pronunciations `words[id]`, each of one or more phones below `phones`;
    /// `silence` is the phone of the pauses. State i of phone p is 3·p + i.
    ///
    /// # Panics
    /// If a word has no pronunciation, a pronunciation no phone, a phone is out of range, or there
    /// are more states than a `u16` counts.
    pub fn new<'a>(
        phones: usize,
        silence: usize,
        words: impl IntoIterator<Item = &'a [Vec<usize>]>,
    ) -> Self {
        assert!(phones * STATES_PER_PHONE <= 1 << 16, "{phones} phones");
        let states = |phone: usize| -> [u16; STATES_PER_PHONE] {
            assert!(phone < phones, "phone {phone} of {phones}");
            array::from_fn(|i| (phone * STATES_PER_PHONE + i) as u16)
        };
        let chain = |pronunciation: &Vec<usize>| -> Vec<u16> {
            assert!(!pronunciation.is_empty(), "a pronunciation without phones");
            pronunciation.iter().flat_map(|&phone| states(phone)).collect()
        };
        let word = |pronunciations: &[Vec<usize>]| -> Vec<Vec<u16>> {
            assert!(!pronunciations.is_empty(), "a word without pronunciation");
            pronunciations.iter().map(chain).collect()
        };
        let chains = words.into_iter().map(word).collect();
        Self { phones, silence: states(silence), chains }
    }

    /// Number of words.
    pub fn words(&self) -> usize {
        self.chains.len()
    }

    /// Number of states: three a phone.
    pub fn states(&self) -> usize {
        self.phones * STATES_PER_PHONE
    }

    /// The chain of a pause's states.
    pub fn silence(&self) -> &[u16] {
        &self.silence
    }

    /// A word's pronunciations, each the chain of its states.
    pub fn pronunciations(&self, word: usize) -> &[Vec<u16>] {
        &self.chains[word]
    }

    /// One way to say `words`: the first pronunciation of each, silence before and behind.
    pub fn plain_path(&self, words: &[usize]) -> Vec<u16> {
        let spoken = words.iter().flat_map(|&word| &self.chains[word][0]);
        self.silence.iter().chain(spoken).chain(&self.silence).copied().collect()
    }
}

/// Natural logarithms of a state's probabilities of being followed by itself and by the next.
#[derive(Clone, Debug, PartialEq)]
pub struct Transitions {
    /// ln P(itself), by state.
    pub stay: Vec<f64>,
    /// ln P(the next), by state.
    pub leave: Vec<f64>,
}

impl Transitions {
    /// One half each.
    pub fn even(states: usize) -> Self {
        Self::estimate(states, [])
    }

    /// From alignments, each a state a frame: P(the next) = (visits + 1)/(frames + 2), where a
    /// visit is a run of the state. The added ones are Laplace's; no probability is 0 or 1.
    ///
    /// # Panics
    /// If an alignment names a state that does not exist.
    pub fn estimate<'a>(states: usize, alignments: impl IntoIterator<Item = &'a [u16]>) -> Self {
        let (mut visits, mut frames) = (vec![1.0; states], vec![2.0; states]);
        for alignment in alignments {
            for run in alignment.chunk_by(|a, b| a == b) {
                let state = usize::from(run[0]);
                visits[state] += 1.0;
                frames[state] += run.len() as f64;
            }
        }
        let ln = |counts: &dyn Fn(f64, f64) -> f64| {
            visits.iter().zip(&frames).map(|(&v, &n)| libm::log(counts(v, n) / n)).collect()
        };
        Self { stay: ln(&|visits, frames| frames - visits), leave: ln(&|visits, _| visits) }
    }
}

/// All ways to say an utterance: nodes, each with an HMM state, and the arcs between them. Arcs
/// lead from lower to higher nodes; that every node may follow itself is understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UtteranceGraph {
    states: Vec<u16>,
    /// `before[bounds[n]..bounds[n + 1]]` are the nodes from which an arc leads to node n.
    before: Vec<u32>,
    bounds: Vec<usize>,
    /// Where a path may start.
    starts: Vec<u32>,
    /// Where it may end.
    ends: Vec<u32>,
}

impl UtteranceGraph {
    /// `words` one after another, each in any of its pronunciations, with or without silence
    /// before, between and behind them. The choices cost nothing.
    pub fn new(lexicon: &Lexicon, words: &[usize]) -> Self {
        let mut graph = Self { bounds: vec![0], ..Self::default() };
        // The nodes after which the next word may come.
        let mut ends = vec![graph.add_chain(&lexicon.silence, &[], true)];
        for (i, &word) in words.iter().enumerate() {
            let chains = lexicon.pronunciations(word).iter();
            let mut next: Vec<_> =
                chains.map(|chain| graph.add_chain(chain, &ends, i == 0)).collect();
            next.push(graph.add_chain(&lexicon.silence, &next, false));
            ends = next;
        }
        graph.ends = ends;
        graph
    }

    /// Appends a chain of states that may follow any of the nodes `after`, and at the `start` may
    /// begin a path; returns its last node.
    fn add_chain(&mut self, chain: &[u16], after: &[u32], start: bool) -> u32 {
        let first = self.states.len() as u32;
        if start {
            self.starts.push(first);
        }
        self.before.extend(after);
        self.bounds.push(self.before.len());
        for node in first..first + chain.len() as u32 - 1 {
            self.before.push(node);
            self.bounds.push(self.before.len());
        }
        self.states.extend(chain);
        self.states.len() as u32 - 1
    }

    /// Each node's HMM state.
    pub fn states(&self) -> &[u16] {
        &self.states
    }

    /// The nodes from which an arc leads to `node`, all of them lower.
    pub fn before(&self, node: usize) -> &[u32] {
        &self.before[self.bounds[node]..self.bounds[node + 1]]
    }

    /// The nodes where a path may start.
    pub fn starts(&self) -> &[u32] {
        &self.starts
    }

    /// The nodes where a path may end.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Nodes of the shortest path, which are the frames that an utterance needs at least.
    pub fn shortest(&self) -> usize {
        let mut length = vec![usize::MAX; self.states.len()];
        for &start in &self.starts {
            length[start as usize] = 1;
        }
        for node in 0..length.len() {
            let before = self.before(node).iter().map(|&n| length[n as usize] + 1).min();
            length[node] = before.map_or(length[node], |n| n.min(length[node]));
        }
        self.ends.iter().map(|&end| length[end as usize]).min().unwrap_or(0)
    }
}
