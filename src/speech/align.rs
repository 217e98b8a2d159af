//! Forced alignment: the state of each frame of an utterance whose words are known.

use crate::speech::hmm::{Transitions, UtteranceGraph};

/// An utterance has fewer frames than its words have states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found {frames} frames, expected at least {needed}, one for each state of the words")]
pub struct TooShort {
    /// Frames of the utterance.
    pub frames: usize,
    /// States of the shortest way to say it.
    pub needed: usize,
}

/// The best path through a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Alignment {
    /// `[T]`: each frame's state.
    pub states: Vec<u16>,
    /// The path's score; see [`crate::speech::hmm`].
    pub score: f64,
}

/// The states of `path` evenly over the frames: frame t of T gets that of index ⌊t·len/T⌋.
///
/// # Errors
/// When there are fewer frames than states.
pub fn equal(path: &[u16], frames: usize) -> Result<Vec<u16>, TooShort> {
    if frames < path.len() {
        return Err(TooShort { frames, needed: path.len() });
    }
    Ok((0..frames).map(|t| path[t * path.len() / frames]).collect())
}

/// Viterbi's algorithm: the path through `graph` with the highest score. `scores` [T, states] are
/// ln p(frame | state).
///
/// The search is exact, without a beam. Sums run in f64 in the order of the frames. Of paths with
/// the same score it takes the one that leaves its states later.
///
/// # Errors
/// When there are fewer frames than nodes on the shortest path.
///
/// # Panics
/// If `scores` is not a whole number of frames.
pub fn viterbi(
    graph: &UtteranceGraph,
    transitions: &Transitions,
    scores: &[f32],
) -> Result<Alignment, TooShort> {
    let states = transitions.stay.len();
    assert_eq!(scores.len() % states, 0, "{} scores of {states} states", scores.len());
    let frames = scores.len() / states;
    let needed = graph.shortest();
    if frames < needed.max(1) {
        return Err(TooShort { frames, needed });
    }
    let nodes = graph.states().len();
    let state = |node: usize| usize::from(graph.states()[node]);
    let mut best = vec![f64::NEG_INFINITY; nodes];
    // [T, nodes]: the node of the frame before on the best path to this one.
    let mut from = vec![0_u32; frames * nodes];
    for (t, row) in scores.chunks_exact(states).enumerate() {
        if t == 0 {
            for &start in graph.starts() {
                best[start as usize] = f64::from(row[state(start as usize)]);
            }
            continue;
        }
        // Arcs lead from lower to higher nodes. From the top down, each node therefore still finds
        // the scores of the frame before.
        for node in (0..nodes).rev() {
            let (mut score, mut origin) = (best[node] + transitions.stay[state(node)], node as u32);
            for &before in graph.before(node) {
                let coming = best[before as usize] + transitions.leave[state(before as usize)];
                if coming > score {
                    (score, origin) = (coming, before);
                }
            }
            best[node] = score + f64::from(row[state(node)]);
            from[t * nodes + node] = origin;
        }
    }
    let final_score = |&end: &u32| best[end as usize] + transitions.leave[state(end as usize)];
    let ends = graph.ends().iter().map(|end| (final_score(end), *end));
    let (score, end) = ends.reduce(|a, b| if b.0 > a.0 { b } else { a }).expect("a graph has ends");
    let mut node = end as usize;
    let mut path = vec![0; frames];
    for (t, slot) in path.iter_mut().enumerate().rev() {
        *slot = graph.states()[node];
        node = from[t * nodes + node] as usize;
    }
    Ok(Alignment { states: path, score })
}
