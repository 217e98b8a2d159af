//! The corpus with states of its frames.

use crate::speech::corpus::{Alignments, SpeechCorpus, WARPS};
use crate::speech::hmm::{Lexicon, Transitions};
use limbeck_datasets::{Dataset, Inputs, Names, Split};
use std::rc::Rc;

pub(crate) struct Labelled {
    pub material: Rc<SpeechCorpus>,
    /// Whose states they are.
    pub lexicon: Lexicon,
    pub dataset: Dataset,
    pub holdout: Split,
    /// The training part at every warp, with the states of the unwarped frames.
    pub perturbed: Split,
    /// Estimated from the training part's states.
    pub transitions: Transitions,
    /// ln of each state's share of the training frames.
    pub ln_priors: Vec<f32>,
}

/// The data set before there are states: the training and the test part of the corpus.
pub(super) fn unlabelled(material: &SpeechCorpus) -> Dataset {
    Dataset {
        name: "an4".into(),
        classes: material.lexicon.states(),
        names: Names::default(),
        notes: Vec::new(),
        train: material.train.split(None),
        test: material.test.split(None),
        sha256: material.sha256.clone(),
    }
}

pub(super) fn labelled(
    material: &Rc<SpeechCorpus>,
    lexicon: Lexicon,
    alignments: &Alignments,
) -> Labelled {
    let [train, holdout, test] = &alignments.parts;
    let states = lexicon.states();
    let dataset = Dataset {
        classes: states,
        train: material.train.split(Some(train)),
        test: material.test.split(Some(test)),
        ..unlabelled(material)
    };
    // One frame more of each state, so that none is impossible.
    let mut counts = vec![1.0; states];
    train.iter().flatten().for_each(|&state| counts[usize::from(state)] += 1.0);
    let total: f64 = counts.iter().sum();
    let states_of_all = train.concat().repeat(WARPS.len());
    Labelled {
        perturbed: Split {
            inputs: Inputs::Features(material.perturbed.clone()),
            labels: Some(states_of_all),
        },
        holdout: material.holdout.split(Some(holdout)),
        transitions: Transitions::estimate(states, train.iter().map(Vec::as_slice)),
        ln_priors: counts.iter().map(|count| libm::log(count / total) as f32).collect(),
        dataset,
        lexicon,
        material: material.clone(),
    }
}
