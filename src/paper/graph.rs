//! An experiment as a value: the models it consists of, what each needs of others, how each is made.

use super::{experiment_run::ExperimentRun, key::Key};
use crate::engine::{config::Config, trainer::Task};
use crate::files::error::Result;
use crate::run::summary::{Measures, Row};
use limbeck_datasets::{Dataset, Split};
use std::{cell::RefCell, rc::Rc};

type Making<T> = Box<dyn Fn(&mut ExperimentRun) -> Result<T>>;

pub(super) enum Make {
    Row(Making<Row>),
    Measures(Making<Measures>),
    File(Making<()>),
}

/// One thing to make, once and to the same end by whichever process comes to it first.
pub struct Node {
    pub(super) key: Key,
    pub(super) needs: Vec<Key>,
    pub(super) make: Make,
    pub(super) may_diverge: bool,
    /// Whether it is the user's own model where one was given for its seed.
    pub(super) may_be_given: bool,
    /// Whether the conclusion reads its model.
    pub(super) is_concluded: bool,
}

impl Node {
    fn new(key: Key, needs: Vec<Key>, make: Make) -> Node {
        let (may_diverge, may_be_given, is_concluded) = (false, false, false);
        Node { key, needs, make, may_diverge, may_be_given, is_concluded }
    }

    /// A row that `make` gives once all that it `needs` is there.
    pub fn row(
        variant: impl Into<String>,
        seed: u64,
        needs: Vec<Key>,
        make: impl Fn(&mut ExperimentRun) -> Result<Row> + 'static,
    ) -> Node {
        Node::new(Key::row(variant, seed), needs, Make::Row(Box::new(make)))
    }

    /// Measures of a row, at least one, that are added to it once all that they `need` is there; the
    /// row itself is to have none.
    pub fn measures(
        variant: impl Into<String>,
        seed: u64,
        needs: Vec<Key>,
        make: impl Fn(&mut ExperimentRun) -> Result<Measures> + 'static,
    ) -> Node {
        let variant = variant.into();
        let needs = std::iter::once(Key::row(&variant, seed)).chain(needs).collect();
        Node::new(Key::Measures(variant, seed), needs, Make::Measures(Box::new(make)))
    }

    /// A file of the run folder that `make` writes.
    pub fn file(
        name: &'static str,
        needs: Vec<Key>,
        make: impl Fn(&mut ExperimentRun) -> Result<()> + 'static,
    ) -> Node {
        Node::new(Key::File(name), needs, Make::File(Box::new(make)))
    }

    /// A teacher: the one given for this seed, or one trained on the labels of `train`.
    pub fn teacher(
        variant: &str,
        config: &Config,
        seed: u64,
        train: &Rc<Split>,
        dataset: &Rc<Dataset>,
    ) -> Node {
        let config = Config { seed, ..config.clone() };
        let (train, dataset, name) = (train.clone(), dataset.clone(), variant.to_string());
        let node = Node::row(variant, seed, Vec::new(), move |run| match run.given_teacher(seed) {
            Some(path) => run.evaluate_given(&path, &dataset, &train, (&name, seed)),
            None => Ok(run.train(&dataset, &Task::hard(&name, &config, &train), seed)?.1),
        });
        Node { may_be_given: true, ..node }
    }

    /// That the model diverges is a result: it then has no row, and the others go on.
    pub fn may_diverge(self) -> Node {
        Node { may_diverge: true, ..self }
    }

    /// That the conclusion reads its model, not only its row.
    pub fn concluded(self) -> Node {
        Node { is_concluded: true, ..self }
    }
}

/// The continuation of a graph.
pub type Continuation = Box<dyn FnOnce(&mut ExperimentRun) -> Result<Graph>>;

/// The nodes of an experiment, each behind those that it needs: one process makes them in this
/// order, and so are their rows kept.
pub struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) then: Option<Continuation>,
}

impl Graph {
    /// A graph that is known from the beginning.
    pub fn new(nodes: Vec<Node>) -> Graph {
        Graph { nodes, then: None }
    }

    /// Adds the nodes that are known only when all of this graph is there: what to train at the
    /// temperature that was best, say. It is to depend on nothing but what the graph made.
    pub fn then(self, then: impl FnOnce(&mut ExperimentRun) -> Result<Graph> + 'static) -> Graph {
        Graph { then: Some(Box::new(then)), ..self }
    }
}

/// The last of some values that take long to make and of which many nodes in a row need the same:
/// the logits of a seed's teacher.
pub struct Memo<K, V>(RefCell<Option<(K, Rc<V>)>>);

impl<K: PartialEq, V> Memo<K, V> {
    /// The value of `key`, made now unless it is the last one.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get(&self, key: K, make: impl FnOnce() -> Result<V>) -> Result<Rc<V>> {
        if let Some((of, value)) = &*self.0.borrow()
            && *of == key
        {
            return Ok(value.clone());
        }
        // The old one first: both may not fit in memory.
        self.forget();
        let value = Rc::new(make()?);
        self.0.replace(Some((key, value.clone())));
        Ok(value)
    }
}

impl<K, V> Memo<K, V> {
    /// Gives the memory back.
    pub fn forget(&self) {
        self.0.replace(None);
    }
}

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Memo(RefCell::new(None))
    }
}
