//! What most tables are made of: a teacher for each seed, and the set on which it teaches.

use crate::engine::{config::Config, loss::LossSpec, trainer::Task};
use crate::files::error::{Error, Result};
use crate::paper::experiment::{Conclusion, Data, Experiment, ExperimentSpec, Input, Setup};
use crate::paper::graph::{Graph, Memo, Node};
use crate::paper::{
    experiment_run::ExperimentRun, key::Key, preset::PresetConfigs, request::Request,
};
use crate::run::summary::Summary;
use limbeck_datasets::{Dataset, Split, permute};
use std::rc::Rc;

/// The teachers of all seeds, and the set on which students are trained.
pub(super) struct Transfer {
    pub(super) configs: PresetConfigs,
    pub(super) dataset: Rc<Dataset>,
    /// What teachers and students are trained on: all of the training set, or its first examples.
    pub(super) train: Rc<Split>,
    /// The logits of a seed's teacher on `train`.
    logits: Memo<u64, Vec<f32>>,
}

impl Transfer {
    pub(super) fn new(configs: PresetConfigs, dataset: &Rc<Dataset>) -> Rc<Transfer> {
        let train = Rc::new(configs.train_set(dataset));
        Rc::new(Transfer { configs, dataset: dataset.clone(), train, logits: Memo::default() })
    }

    pub(super) fn teacher(seed: u64) -> Key {
        Key::row("teacher", seed)
    }

    /// The logits [n, C] of the seed's teacher on the training set, untranslated: good for any T.
    pub(super) fn logits(&self, run: &mut ExperimentRun, seed: u64) -> Result<Rc<Vec<f32>>> {
        self.logits.get(seed, || {
            let teacher = run.model(&Transfer::teacher(seed))?;
            Ok(teacher.logits(run.kernels(), &self.train))
        })
    }

    /// A student of the seed's teacher at temperature T.
    pub(super) fn student(
        self: &Rc<Self>,
        name: impl Into<String>,
        config: &Config,
        temperature: f32,
        seed: u64,
    ) -> Node {
        let (transfer, name) = (self.clone(), name.into());
        let config = Config { seed, ..config.clone() };
        Node::row(name.clone(), seed, vec![Transfer::teacher(seed)], move |run| {
            let loss = LossSpec { temperature, ..LossSpec::soft(&config) };
            let logits = transfer.logits(run, seed)?;
            let task = Task::soft(&name, &config, &transfer.train, loss, &logits);
            Ok(run.train(&transfer.dataset, &task, seed)?.1)
        })
    }

    /// What `experiment` consists of: for each seed its teacher and the `students`, and this
    /// conclusion from their rows.
    pub(super) fn spec<S: IntoIterator<Item = Node>>(
        &self,
        experiment: &dyn Experiment,
        request: &Request,
        configs: &[(&'static str, &Config)],
        students: impl Fn(u64) -> S,
        conclude: impl FnOnce(&Summary) -> Conclusion + 'static,
    ) -> ExperimentSpec {
        let Transfer { configs: PresetConfigs { teacher, .. }, train, dataset, .. } = self;
        let of_seed = |seed| {
            let teacher = Node::teacher("teacher", teacher, seed, train, dataset);
            std::iter::once(teacher).chain(students(seed))
        };
        let limit = teacher.data.train_limit;
        ExperimentSpec {
            experiment: experiment.about().name,
            dataset: dataset.clone(),
            train_limit: limit.filter(|&limit| limit < dataset.train.len()),
            seeds: request.seeds.clone().collect(),
            configs: configs.iter().map(|(name, config)| (*name, (*config).clone())).collect(),
            loss: Some(LossSpec::soft(&self.configs.student)),
            paper_errors: Vec::new(),
            graph: Graph::new(request.seeds.clone().flat_map(of_seed).collect()),
            conclude: Box::new(|run| Ok(conclude(&run.summary))),
        }
    }
}

impl<'s> Setup<'s, '_> {
    /// What was asked for, and the images that `experiment` is done on.
    pub(super) fn images(
        &self,
        experiment: &dyn Experiment,
    ) -> Result<(&'s Request, &'s Rc<Dataset>)> {
        match self.input {
            Input::Images(dataset) => Ok((self.request, dataset)),
            Input::Speech => Err(Error::Internal(format!(
                "'{}' is done on {:?}, not on {:?}",
                experiment.about().name,
                experiment.about().data,
                Data::Speech
            ))),
        }
    }
}

/// The first `percent` % of the seed's permutation of `examples`.
pub(super) fn draw(examples: usize, seed: u64, percent: usize) -> Vec<u32> {
    let mut order = vec![0; examples];
    permute(seed, 0, &mut order);
    order.truncate((examples * percent / 100).max(1));
    order
}

/// The rows `chosen` of a row-major matrix of `width` columns.
pub(super) fn rows(matrix: &[f32], width: usize, chosen: &[u32]) -> Vec<f32> {
    chosen.iter().flat_map(|&i| &matrix[i as usize * width..][..width]).copied().collect()
}
