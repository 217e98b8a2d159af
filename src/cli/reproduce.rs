//! `limbeck reproduce`: a table of the paper.

use super::global::{PrecisionArgs, named};
use super::pages;
use super::progress;
use super::session::{DatasetName, Session};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, value_parser};
use limbeck::engine::communicator::Communicator;
use limbeck::paper::experiment::{About, Data, Experiment, Input, Outcome};
use limbeck::paper::preset::Preset;
use limbeck::paper::request::Request;
use limbeck::paper::{self, EXPERIMENTS};
use limbeck::run::context::RunContext;
use limbeck::{Error, Result};
use limbeck_datasets::Dataset;
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

#[derive(Args)]
pub struct ReproduceArgs {
    /// Which table
    #[arg(default_value = "mnist", value_parser = experiment_parser())]
    experiment: Choice,

    /// How much to spend on each table: a trial of seconds, minutes, half an hour, or hours
    #[arg(long, default_value = "standard", value_parser = named(Preset::ALL, Preset::name))]
    preset: Preset,

    /// Number of seeds, counted up from --seed (0 if absent)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u64).range(1..=1000))]
    seeds: u64,

    /// Trained teachers (generalists), one for each seed, in place of training them
    #[arg(long = "teacher", value_name = "MODEL", num_args = 1..)]
    teachers: Vec<PathBuf>,

    /// Also rows that are not the paper's: with or without labels, label smoothing, masked views, the
    /// teachers of all seeds together, what a choice on the test set would give; specialists distilled into
    /// one net
    #[arg(long)]
    extended: bool,

    /// Only the rows of these names, or whose names begin so, as in --only "30 units", and what they need;
    /// without it the same command adds the others
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,

    #[command(flatten)]
    precision: PrecisionArgs,

    /// One of several processes, each with its own number from 0, that share the run in --out:
    /// each trains what nobody else is at, and all end with the same result
    ///
    /// The folder must lie on a file system that all of them see and on which file locks work. The
    /// number decides where a process begins, and 0 writes the report; others may join and leave at any
    /// time. What one of them was at when it died another takes over from the last checkpoint.
    #[arg(long, value_name = "I", alias = "member")]
    worker: Option<u32>,
}

/// A table of the paper, or all of them.
#[derive(Clone, Copy)]
enum Choice {
    One(&'static dyn Experiment),
    All,
}

impl Choice {
    fn name(self) -> &'static str {
        match self {
            Choice::One(experiment) => experiment.about().name,
            Choice::All => "all",
        }
    }
}

fn experiment_parser() -> impl TypedValueParser<Value = Choice> {
    let each = EXPERIMENTS.map(|experiment| {
        let About { name, section, shows, .. } = experiment.about();
        PossibleValue::new(name).help(format!("Section {section}: {shows}"))
    });
    let all =
        PossibleValue::new("all").help("Every one of them in turn, with the first one's teachers");
    PossibleValuesParser::new(each.into_iter().chain([all])).map(|name| {
        let experiment = EXPERIMENTS.into_iter().find(|e| e.about().name == name);
        experiment.map_or(Choice::All, Choice::One)
    })
}

pub fn run(
    session: &Session,
    args: &ReproduceArgs,
    communicator: Option<&mut Communicator>,
) -> Result<()> {
    // Ranks share a run as other processes do: they need not talk.
    let worker = args.worker.or(communicator
        .filter(|communicator| communicator.size() > 1)
        .map(|communicator| communicator.rank() as u32));
    if !args.teachers.is_empty() && args.teachers.len() as u64 != args.seeds {
        return Err(Error::Usage(format!(
            "--teacher: found {} models, expected {}, one for each seed",
            args.teachers.len(),
            args.seeds
        )));
    }
    if let Choice::One(experiment) = args.experiment
        && !(args.teachers.is_empty() || experiment.about().takes_teachers)
    {
        return Err(Error::Usage(format!(
            "--teacher: found a model, expected none: '{}' trains its own",
            args.experiment.name()
        )));
    }
    if let Choice::One(experiment) = args.experiment {
        let About { name, takes_seeds, has_more_rows, .. } = experiment.about();
        if args.seeds > 1 && !takes_seeds {
            session.note(&format!("--seeds changes nothing: '{name}' has seeds of its own"));
        }
        if args.extended && !has_more_rows {
            session.note(&format!("--extended changes nothing: '{name}' has no further rows"));
        }
    }
    if let (Choice::All, [_, ..]) = (args.experiment, &args.only[..]) {
        return Err(Error::Usage(
            "--only: found with `all`, expected with one experiment, whose rows it names".into(),
        ));
    }
    let out = match &session.out {
        Some(out) => out.clone(),
        None if worker.is_some() => {
            return Err(Error::Usage(
                "--out: found none, expected the folder that the processes share".into(),
            ));
        }
        None => {
            limbeck::run::folder::default_out(&format!("reproduce {}", args.experiment.name()))?
        }
    };
    session.note(&format!("writing to {}", out.display()));
    let mut progress = progress::observer(session);
    let first = session.seed.unwrap_or(0);
    let mut run = session.run_context(&mut *progress)?;
    let mut request = Request {
        preset: args.preset,
        seeds: first..first + args.seeds,
        extended: args.extended,
        only: args.only.clone(),
        precision: args.precision.precision,
        teachers: (first..).zip(args.teachers.iter().cloned()).collect(),
        worker,
    };
    let mut loaded = Loaded::new();
    let runs = match args.experiment {
        Choice::One(experiment) => {
            tables(session, experiment, &request, &mut run, &out, &mut loaded)
        }
        Choice::All => all(session, &mut request, &mut run, &out, &mut loaded),
    };
    drop(progress);
    let runs = runs.map_err(|error| {
        // The same again, in the same folder.
        let mut arguments = session.command();
        if session.out.is_none() {
            // A request that was refused has written nothing there; what is not empty stays.
            let _ = fs::remove_dir(&out);
            arguments.extend(["--out".into(), out.display().to_string()]);
        }
        session.resumable(error, arguments)
    })?;
    let folders: Vec<PathBuf> = runs.iter().map(|outcome| outcome.run.to_path_buf()).collect();
    match <[Outcome; 1]>::try_from(runs) {
        Ok([outcome]) => session.result(&outcome),
        Err(runs) => session.result(&Outcomes { runs }),
    }?;
    // One page for all.
    match worker {
        None | Some(0) => {
            let loaded: Vec<_> = loaded.into_iter().map(|(_, dataset)| dataset).collect();
            pages::write_reports(session, &folders, &loaded)
        }
        Some(_) => Ok(()),
    }
}

/// Every experiment in its own folder; the first one's teachers serve the others.
fn all(
    session: &Session,
    request: &mut Request,
    run: &mut RunContext,
    out: &Path,
    loaded: &mut Loaded,
) -> Result<Vec<Outcome>> {
    let mut runs: Vec<Outcome> = Vec::new();
    for experiment in EXPERIMENTS {
        let About { name, data, .. } = experiment.about();
        if data == [Data::Speech] && !session.has_speech() {
            session.note("no AN4 corpus: without the speech table");
            continue;
        }
        // Writers have generalists of their own.
        let mut own = request.clone();
        if !data.contains(&Data::Images) {
            own.teachers.clear();
        }
        runs.extend(tables(session, experiment, &own, run, &out.join(name), loaded)?);
        if let [first] = &runs[..] {
            for row in first.summary.rows_of("teacher") {
                let model = first.run.join(&row.model);
                request.teachers.entry(row.seed).or_insert(model);
            }
        }
    }
    Ok(runs)
}

/// The tables of an experiment: one for each kind of data that is there.
fn tables(
    session: &Session,
    experiment: &dyn Experiment,
    request: &Request,
    run: &mut RunContext,
    out: &Path,
    loaded: &mut Loaded,
) -> Result<Vec<Outcome>> {
    let kinds = experiment.about().data;
    let is_there =
        |data: &&Data| kinds.len() == 1 || **data != Data::Speech || session.has_speech();
    let there: Vec<Data> = kinds.iter().filter(is_there).copied().collect();
    let mut done = Vec::new();
    for &data in &there {
        let (input, folder) = match data {
            Data::Images => (Input::Images(dataset(session, data, None, loaded)?), "images"),
            Data::Writers => {
                let name = Some(DatasetName::Writers);
                (Input::Images(dataset(session, data, name, loaded)?), "writers")
            }
            Data::Speech => (Input::Speech, "speech"),
        };
        let out = if there.len() > 1 { out.join(folder) } else { out.to_path_buf() };
        done.push(paper::reproduce(run, experiment, request, &input, &out)?);
    }
    Ok(done)
}

/// The data sets that were loaded.
type Loaded = Vec<(Data, Rc<Dataset>)>;

/// Loads the data set `name`, unless it is `loaded`.
fn dataset(
    session: &Session,
    data: Data,
    name: Option<DatasetName>,
    loaded: &mut Loaded,
) -> Result<Rc<Dataset>> {
    if let Some((_, dataset)) = loaded.iter().find(|(of, _)| *of == data) {
        return Ok(Rc::clone(dataset));
    }
    let dataset = Rc::new(session.dataset(name)?);
    loaded.push((data, Rc::clone(&dataset)));
    Ok(dataset)
}

/// Those of several experiments.
#[derive(Serialize)]
struct Outcomes {
    runs: Vec<Outcome>,
}

impl Display for Outcomes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.runs.iter().try_for_each(|outcome| writeln!(f, "{outcome}"))
    }
}
