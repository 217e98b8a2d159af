//! `limbeck reproduce`: a table of the paper.

use super::pages;
use super::progress;
use super::session::{DatasetName, Session};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum, value_parser};
use limbeck::engine::communicator::Communicator;
use limbeck::paper::preset::{Plan, Preset};
use limbeck::paper::tables::{
    logits, mnist, omitted, regularizer, specialists, speech, temperature, variance,
};
use limbeck::run::context::RunContext;
use limbeck::run::summary::Summary;
use limbeck::{Error, Result};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct ReproduceArgs {
    /// Which table
    #[arg(default_value = "mnist")]
    experiment: Experiment,

    /// How much to spend on each table: a trial of seconds, minutes, half an hour, or hours
    #[arg(long, default_value = "standard", value_parser = preset_parser())]
    preset: Preset,

    /// Number of seeds, counted up from --seed (0 if absent)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u64).range(1..=1000))]
    seeds: u64,

    /// Trained teachers (generalists), one for each seed, in place of training them
    #[arg(long = "teacher", value_name = "MODEL", num_args = 1..)]
    teachers: Vec<PathBuf>,

    /// Also rows that are not the paper's: with or without labels, label smoothing, the teachers of
    /// all seeds together; specialists distilled into one net
    #[arg(long)]
    extended: bool,

    /// One of several processes, each with its own number from 0, that share the run in --out:
    /// each trains what nobody else is at, and all end with the same result
    ///
    /// The folder must lie on a file system that all of them see and on which file locks work. The
    /// number only decides where a process begins; others may join and leave at any time. What one
    /// of them was at when it died another takes over from the last checkpoint.
    #[arg(long, value_name = "I")]
    member: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Experiment {
    /// Section 3: teacher, plain net, and the same net distilled
    Mnist,
    /// Section 3: a transfer set without 3s, or of 7s and 8s alone, and the bias correction
    Omitted,
    /// Section 3: the best temperature against the size of the student
    Temperature,
    /// Section 2.1: the limit of high temperature, and students that match logits
    Logits,
    /// Section 1: variance of the gradient, less data, higher learning rates
    Variance,
    /// Section 4: ten acoustic models of AN4, their ensemble, and one distilled from it
    Speech,
    /// Section 6: 3 % of the data with hard and with soft targets
    Regularizer,
    /// Section 5: a generalist, and specialists for the classes that it confuses
    Specialists,
    /// Every one of them in turn, with the first one's teachers
    All,
}

impl Experiment {
    /// All but [`Experiment::All`]; the first trains the teachers of the others.
    const EACH: [Experiment; 8] = [
        Experiment::Mnist,
        Experiment::Omitted,
        Experiment::Temperature,
        Experiment::Logits,
        Experiment::Variance,
        Experiment::Speech,
        Experiment::Regularizer,
        Experiment::Specialists,
    ];

    fn name(self) -> &'static str {
        match self {
            Experiment::Mnist => "mnist",
            Experiment::Omitted => "omitted",
            Experiment::Temperature => "temperature",
            Experiment::Logits => "logits",
            Experiment::Variance => "variance",
            Experiment::Speech => "speech",
            Experiment::Regularizer => "regularizer",
            Experiment::Specialists => "specialists",
            Experiment::All => "all",
        }
    }
}

fn preset_parser() -> impl TypedValueParser<Value = Preset> {
    PossibleValuesParser::new(Preset::ALL.map(Preset::name)).try_map(|name| {
        let preset = Preset::ALL.into_iter().find(|preset| preset.name() == name);
        preset.ok_or_else(|| Error::Internal(format!("no preset '{name}'")))
    })
}

pub fn run(
    session: &Session,
    args: &ReproduceArgs,
    communicator: Option<&mut Communicator>,
) -> Result<()> {
    // Ranks share a run as other processes do: they need not talk.
    let member = args.member.or(communicator
        .filter(|communicator| communicator.size() > 1)
        .map(|communicator| communicator.rank() as u32));
    if !args.teachers.is_empty() && args.teachers.len() as u64 != args.seeds {
        return Err(Error::Usage(format!(
            "--teacher: found {} models, expected {}, one for each seed",
            args.teachers.len(),
            args.seeds
        )));
    }
    if let (false, Experiment::Speech | Experiment::Regularizer) =
        (args.teachers.is_empty(), args.experiment)
    {
        return Err(Error::Usage(format!(
            "--teacher: found a model, expected none: '{}' trains its own",
            args.experiment.name()
        )));
    }
    let out = match &session.out {
        Some(out) => out.clone(),
        None if member.is_some() => {
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
    run.teachers = (first..).zip(args.teachers.iter().cloned()).collect();
    run.member = member;
    let runs = experiment(session, args, &mut run, &out);
    drop(progress);
    let runs = runs.map_err(|error| {
        // The same again, in the same folder.
        let mut arguments = session.command();
        if session.out.is_none() {
            arguments.extend(["--out".into(), out.display().to_string()]);
        }
        session.resumable(error, arguments)
    })?;
    let folders: Vec<PathBuf> = runs.iter().map(|outcome| outcome.run.clone()).collect();
    match <[Outcome; 1]>::try_from(runs) {
        Ok([outcome]) => session.result(&outcome),
        Err(runs) => session.result(&Outcomes { runs }),
    }?;
    // One page for all.
    match member {
        None | Some(0) => pages::finish(session, &folders),
        Some(_) => Ok(()),
    }
}

/// The tables that were asked for.
fn experiment(
    session: &Session,
    args: &ReproduceArgs,
    run: &mut RunContext,
    out: &Path,
) -> Result<Vec<Outcome>> {
    match args.experiment {
        Experiment::All => {
            let mut runs = Vec::new();
            for experiment in Experiment::EACH {
                if experiment == Experiment::Specialists {
                    // Their data and their generalists are their own.
                    run.teachers.clear();
                }
                if experiment == Experiment::Speech && !session.has_speech() {
                    session.note("no AN4 corpus: without the speech table");
                    continue;
                }
                let done = tables(session, experiment, args, run, &out.join(experiment.name()))?;
                for outcome in done.iter().filter(|o| o.summary.experiment == "mnist") {
                    for row in outcome.summary.rows_of("teacher") {
                        let model = outcome.run.join(&row.model);
                        run.teachers.entry(row.seed).or_insert(model);
                    }
                }
                runs.extend(done);
            }
            Ok(runs)
        }
        experiment => tables(session, experiment, args, run, out),
    }
}

/// The tables of an experiment: one, but for the regulariser with speech and images.
fn tables(
    session: &Session,
    experiment: Experiment,
    args: &ReproduceArgs,
    run: &mut RunContext,
    out: &Path,
) -> Result<Vec<Outcome>> {
    let ReproduceArgs { preset, extended, .. } = *args;
    let seeds = (session.seed.unwrap_or(0), args.seeds);
    let outcome =
        |run: &Path, train_limit, summary| Outcome { run: run.to_path_buf(), train_limit, summary };
    if experiment == Experiment::Speech {
        let summary = speech::reproduce(run, preset, seeds.0, out)?;
        return Ok(vec![outcome(out, None, summary)]);
    }
    let mut done = Vec::new();
    let mut out = out.to_path_buf();
    if experiment == Experiment::Regularizer && session.has_speech() {
        let folder = out.join("speech");
        let summary = regularizer::on_speech(run, preset, seeds, &folder)?;
        done.push(outcome(&folder, None, summary));
        out = out.join("images");
    }
    // Specialists need more classes to confuse than ten.
    let own = experiment == Experiment::Specialists;
    let data = &session.dataset(own.then_some(DatasetName::Writers))?;
    let summary = match experiment {
        Experiment::Mnist => mnist::reproduce(run, data, preset, seeds, extended, &out),
        Experiment::Omitted => omitted::reproduce(run, data, preset, seeds, &out),
        Experiment::Temperature => temperature::reproduce(run, data, preset, seeds, &out),
        Experiment::Logits => logits::reproduce(run, data, preset, seeds, &out),
        Experiment::Variance => variance::reproduce(run, data, preset, seeds, &out),
        Experiment::Regularizer => regularizer::on_images(run, data, preset, seeds, &out),
        Experiment::Specialists => specialists::reproduce(run, data, preset, seeds, extended, &out),
        Experiment::Speech | Experiment::All => {
            Err(Error::Internal(format!("'{}' is no table of images", experiment.name())))
        }
    }?;
    // The specialists' summary says itself how much it trained on.
    let limit = Plan::new(preset, data).teacher.data.train_limit.filter(|_| !own);
    done.push(outcome(&out, limit.filter(|&limit| limit < data.train.len()), summary));
    Ok(done)
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

/// Our figures beside the paper's.
#[derive(Serialize)]
struct Outcome {
    run: PathBuf,
    /// Training examples used, where the preset takes fewer than there are.
    train_limit: Option<usize>,
    #[serde(flatten)]
    summary: Summary,
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for table in &self.summary.tables {
            writeln!(f, "{table}")?;
        }
        for claim in &self.summary.claims {
            writeln!(f, "{:<15} {} Ours: {}.", claim.verdict, claim.paper, claim.ours)?;
        }
        if let Some(limit) = self.train_limit {
            writeln!(f, "Trained on the first {limit} images only: not the paper's experiment.")?;
        }
        writeln!(f, "Run folder: {}", self.run.display())
    }
}
