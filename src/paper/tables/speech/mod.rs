//! The paper's section 4 on CMU AN4: ten acoustic models that differ in their seed, their
//! ensemble, and one model distilled from it.
//!
//! ```text
//! transcripts → mixtures of Gaussians (flat start) → a phone's state for each frame
//!             → the states of words, by the mixtures of their phones
//!             → a first net, which aligns once more → the frozen states, labels of all that follows
//! members     ten nets on the labels of the training part, each frame heard at three warps of the
//!             frequency axis (vocal tract length perturbation)
//! ensemble    the arithmetic mean of their posteriors
//! student     the same net without dropout, for longer, on the ensemble's soft targets of the same
//!             frames, its mean posterior p at T: softmax(ln p / T), weights 1 (soft), 0.5 (hard)
//! words       argmax over a loop of words of a·(ln p(state | frame) − ln p(state)) + …
//! ```
//!
//! Frame accuracy is agreement with the frozen states. Scales of the search and the temperature
//! are chosen on eight training speakers who are in no training set; the test speakers choose
//! nothing. Every single net is searched with the scales of the first member.

mod alignment;
mod conclusion;
mod labelled;
mod recognition;
mod spend;

use crate::engine::{config::Config, distill, mlp::Mlp, trainer::Task};
use crate::files::error::{Error, Result};
use crate::paper::experiment::{About, Conclusion, Data, Experiment, ExperimentSpec, Setup};
use crate::paper::graph::{Graph, Memo, Node};
use crate::paper::{
    experiment_run::ExperimentRun, key::Key, preset::Preset, request::Request, scheduler,
};
use crate::run::summary::{Row, Summary};
use crate::run::{context::RunContext, training::combined_row};
use crate::speech::corpus::SpeechCorpus;
use alignment::Alignment;
use conclusion::{Comparison, conclude};
pub(crate) use labelled::Labelled;
use labelled::unlabelled;
use recognition::{HOLDOUT_ERRORS, Search};
use spend::{ENSEMBLE, MEMBER, Spend, loss_at, mean_logits, student_at};
use std::{path::Path, rc::Rc, time::Instant};

/// The corpus, and what the preset spends on it.
///
/// # Errors
/// [`Error::Usage`] without a data folder; those of [`SpeechCorpus::load`].
fn prepare(run: &RunContext, preset: Preset) -> Result<(SpeechCorpus, Spend)> {
    let data = run.data.ok_or_else(|| {
        Error::Usage(
            "speech needs a data folder that holds an4/: set --data or LIMBECK_DATA".into(),
        )
    })?;
    // Training, held-out and test speakers.
    let speakers = match preset {
        Preset::Smoke => Some([6, 1, 2]),
        Preset::Quick => Some([22, 4, 10]),
        Preset::Standard | Preset::Paper => None,
    };
    let material = SpeechCorpus::load(&run.context.pool, data, speakers)?;
    let spend = Spend::new(preset, material.lexicon.states());
    Ok((material, spend))
}

/// The experiment.
pub struct Speech;

impl Experiment for Speech {
    fn about(&self) -> About {
        About {
            name: "speech",
            section: "4",
            shows: "ten acoustic models of AN4, their ensemble, and one distilled from it",
            data: &[Data::Speech],
            takes_teachers: false,
            takes_seeds: false,
            has_more_rows: false,
        }
    }

    /// # Errors
    /// [`Error::Usage`] without a data folder that holds `an4/`; those of [`SpeechCorpus::load`].
    fn declare(&self, setup: Setup) -> Result<ExperimentSpec> {
        let Setup { run, request, .. } = setup;
        let (material, spend) = prepare(run, request.preset)?;
        let first = request.seeds.start;
        let bare = Rc::new(unlabelled(&material));
        let seeds: Vec<u64> = (first..first + spend.members + spend.students).collect();
        let configs = vec![
            ("aligner", spend.alignment.config.clone()),
            ("member", spend.member.clone()),
            ("student", spend.student.clone()),
        ];
        let loss = loss_at(spend.temperatures[0]);
        let alignment = Alignment::new(material, spend.alignment.clone(), first);
        let (members, students) = seeds.split_at(spend.members as usize);
        let (members, students) = (members.to_vec(), students.to_vec());
        let nets = Rc::new(Nets { alignment, spend, members, students, ensemble: Memo::default() });
        let graph = Graph::new(nets.alignment.nodes()).then({
            let nets = nets.clone();
            move |_| Ok(nets.graph())
        });
        Ok(ExperimentSpec {
            experiment: self.about().name,
            dataset: bare,
            train_limit: None,
            seeds,
            configs,
            loss: Some(loss),
            paper_errors: Vec::new(),
            graph,
            conclude: Box::new(move |run| nets.conclude(run)),
        })
    }
}

/// The corpus with the states that are frozen in the run folder `out`, found there first if they are
/// not, and the configuration of the net that aligns.
///
/// # Errors
/// Those of [`Speech::declare`] and [`scheduler::execute`].
pub(super) fn aligned(
    run: &mut RunContext,
    request: &Request,
    out: &Path,
) -> Result<(Rc<Labelled>, Config)> {
    let (material, spend) = prepare(run, request.preset)?;
    let bare = Rc::new(unlabelled(&material));
    let config = spend.alignment.config.clone();
    let alignment = Alignment::new(material, spend.alignment, request.seeds.start);
    let spec = ExperimentSpec {
        experiment: "alignment",
        dataset: bare,
        train_limit: None,
        seeds: vec![request.seeds.start],
        configs: vec![("net", config.clone())],
        loss: None,
        paper_errors: Vec::new(),
        graph: Graph::new(alignment.nodes()),
        conclude: Box::new(|_| Ok(Conclusion::default())),
    };
    // Names of rows are those of the experiment that asks for it.
    let request = Request { only: Vec::new(), ..request.clone() };
    scheduler::execute(run, &request, spec, out)?;
    Ok((alignment.frozen(out)?, config))
}

/// The nets on the frozen states.
struct Nets {
    alignment: Rc<Alignment>,
    spend: Spend,
    /// The seeds.
    members: Vec<u64>,
    students: Vec<u64>,
    /// The logits of the ensemble on the perturbed training frames, good for every temperature.
    ensemble: Memo<(), Vec<f32>>,
}

impl Nets {
    fn member_keys(&self) -> Vec<Key> {
        self.members.iter().map(|&seed| Key::row(MEMBER, seed)).collect()
    }

    /// Members, ensemble and a student at each temperature; then further students at the best one.
    fn graph(self: &Rc<Self>) -> Graph {
        let mut nodes: Vec<_> = self.members.iter().flat_map(|&seed| self.member(seed)).collect();
        nodes.push(self.ensemble());
        let first = self.students[0];
        nodes.extend(self.spend.temperatures.iter().map(|&t| self.student(t, first)));
        let nets = self.clone();
        Graph::new(nodes).then(move |run| {
            let best = nets.best_temperature(&run.summary)?;
            let others = nets.students[1..].iter().map(|&seed| nets.student(best, seed));
            Ok(Graph::new(others.collect()))
        })
    }

    /// A member. It is measured with the search of the first one.
    fn member(self: &Rc<Self>, seed: u64) -> [Node; 2] {
        let nets = self.clone();
        let trained = Node::row(MEMBER, seed, Vec::new(), move |run| {
            let labelled = nets.alignment.frozen(&run.folder.root)?;
            let config = Config { seed, ..nets.spend.member.clone() };
            let task = Task::hard(MEMBER, &config, &labelled.perturbed);
            Ok(run.train(&labelled.dataset, &task, seed)?.1)
        });
        let nets = self.clone();
        let is_first = seed == self.members[0];
        let needs = if is_first { Vec::new() } else { vec![self.measured_first()] };
        let measured = Node::measures(MEMBER, seed, needs, move |run| {
            let labelled = nets.alignment.frozen(&run.folder.root)?;
            let model = run.model(&Key::row(MEMBER, seed))?;
            let logits = labelled.logits(run.kernels(), &model);
            let searches = if is_first { None } else { nets.first_search(run)? };
            Ok(labelled.measures(run.kernels(), logits, searches))
        });
        [trained.concluded(), measured]
    }

    fn measured_first(&self) -> Key {
        Key::Measures(MEMBER.into(), self.members[0])
    }

    /// How the first of the members is searched.
    fn first_search(&self, run: &ExperimentRun) -> Result<Option<[Search; 2]>> {
        Ok(Search::both(run.row_of(&Key::row(MEMBER, self.members[0]))?))
    }

    fn models(run: &mut ExperimentRun, keys: &[Key]) -> Result<Vec<Mlp>> {
        keys.iter().map(|key| Ok((*run.model(key)?).clone())).collect()
    }

    fn ensemble(self: &Rc<Self>) -> Node {
        let (nets, seed) = (self.clone(), self.members[0]);
        Node::row(ENSEMBLE, seed, self.member_keys(), move |run| {
            let labelled = nets.alignment.frozen(&run.folder.root)?;
            let members = Nets::models(run, &nets.member_keys())?;
            let start = Instant::now();
            let logits = mean_logits(run.kernels(), &labelled, &members);
            let row = combined_row(&labelled.dataset, ENSEMBLE, seed, &logits[1], start.elapsed())?;
            let measures = labelled.measures(run.kernels(), logits, None);
            Ok(Row { measures, ..row })
        })
    }

    fn student(self: &Rc<Self>, temperature: f64, seed: u64) -> Node {
        let (nets, name) = (self.clone(), student_at(temperature));
        let needs = self.member_keys().into_iter().chain([self.measured_first()]).collect();
        Node::row(name.clone(), seed, needs, move |run| {
            let labelled = nets.alignment.frozen(&run.folder.root)?;
            let set = &labelled.perturbed;
            let logits = nets.ensemble.get((), || {
                let members = Nets::models(run, &nets.member_keys())?;
                Ok(distill::teacher_logits(run.kernels(), &members, set, 1.0, None))
            })?;
            let config = Config { seed, ..nets.spend.student.clone() };
            let task = Task::soft(&name, &config, set, loss_at(temperature), &logits);
            let (model, row) = run.train(&labelled.dataset, &task, seed)?;
            let logits = labelled.logits(run.kernels(), &model);
            let measures = labelled.measures(run.kernels(), logits, nets.first_search(run)?);
            Ok(Row { measures, ..row })
        })
        .concluded()
    }

    /// The temperature with the fewest held-out errors.
    fn best_temperature(&self, summary: &Summary) -> Result<f64> {
        let errors = |t: f64| {
            let row = summary.row(&student_at(t), self.students[0]);
            row.and_then(|row| row.value(&HOLDOUT_ERRORS)).unwrap_or(f64::INFINITY)
        };
        let all = self.spend.temperatures.iter().copied();
        let best = all.min_by(|&a, &b| errors(a).total_cmp(&errors(b)));
        best.ok_or_else(|| Error::Internal("no temperature".into()))
    }

    fn conclude(&self, run: &mut ExperimentRun) -> Result<Conclusion> {
        let labelled = self.alignment.frozen(&run.folder.root)?;
        let temperature = self.best_temperature(&run.summary)?;
        let of_students = |&seed: &u64| Key::row(student_at(temperature), seed);
        let students: Vec<Key> = self.students.iter().map(of_students).collect();
        let [members, students] = [&self.member_keys(), &students].map(|of| Nets::models(run, of));
        let comparison =
            Comparison::new(run.kernels(), &labelled, &members?, &students?, &run.summary)?;
        Ok(conclude(&run.summary, &self.spend, &labelled, temperature, &comparison))
    }
}
