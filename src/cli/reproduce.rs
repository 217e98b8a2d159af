//! `limbeck reproduce`: a table of the paper.

use super::progress::ProgressLine;
use super::session::{DatasetName, Session};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum, value_parser};
use limbeck::experiments::preset::{Plan, Preset};
use limbeck::experiments::{
    Lab, logits, mnist, omitted, regularizer, specialists, temperature, variance,
};
use limbeck::run;
use limbeck::summary::Summary;
use limbeck::{Error, Result};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

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

    /// Also rows that are not the paper's: with or without labels, label smoothing, ten teachers;
    /// specialists distilled into one net
    #[arg(long)]
    extended: bool,
}

#[derive(Clone, Copy, ValueEnum)]
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
    /// Section 6: 3 % of the data with hard and with soft targets
    Regularizer,
    /// Section 5: a generalist, and specialists for the classes that it confuses
    Specialists,
    /// Every one of them in turn, with the first one's teachers
    All,
}

impl Experiment {
    /// All but [`Experiment::All`]; the first trains the teachers of the others.
    const EACH: [Experiment; 7] = [
        Experiment::Mnist,
        Experiment::Omitted,
        Experiment::Temperature,
        Experiment::Logits,
        Experiment::Variance,
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

pub fn run(session: &Session, args: &ReproduceArgs) -> Result<()> {
    if !args.teachers.is_empty() && args.teachers.len() as u64 != args.seeds {
        return Err(Error::Usage(format!(
            "--teacher: found {} models, expected {}, one for each seed",
            args.teachers.len(),
            args.seeds
        )));
    }
    let out = match &session.out {
        Some(out) => out.clone(),
        None => run::default_out(&format!("reproduce {}", args.experiment.name()))?,
    };
    session.note(&format!("writing to {}", out.display()));
    let mut progress = ProgressLine::new(session.quiet);
    let first = session.seed.unwrap_or(0);
    let mut lab = session.lab(&mut progress);
    lab.teachers = (first..).zip(args.teachers.iter().cloned()).collect();
    let Experiment::All = args.experiment else {
        let outcome = one(session, args.experiment, args, &mut lab, out)?;
        drop(progress);
        return session.result(&outcome);
    };
    let mut runs = Vec::new();
    for experiment in Experiment::EACH {
        if let Experiment::Specialists = experiment {
            // Its data and its generalists are its own.
            lab.teachers.clear();
        }
        let outcome = one(session, experiment, args, &mut lab, out.join(experiment.name()))?;
        for row in outcome.summary.rows_of("teacher") {
            lab.teachers.entry(row.seed).or_insert_with(|| outcome.run.join(&row.model));
        }
        runs.push(outcome);
    }
    drop(progress);
    session.result(&Outcomes { runs })
}

fn one(
    session: &Session,
    experiment: Experiment,
    args: &ReproduceArgs,
    lab: &mut Lab,
    out: PathBuf,
) -> Result<Outcome> {
    // Specialists need more classes to confuse than ten.
    let name = matches!(experiment, Experiment::Specialists).then_some(DatasetName::Writers);
    let data = &session.dataset(name)?;
    let ReproduceArgs { preset, extended, .. } = *args;
    let seeds = (session.seed.unwrap_or(0), args.seeds);
    let summary = match experiment {
        Experiment::Mnist => mnist::reproduce(lab, data, preset, seeds, extended, &out),
        Experiment::Omitted => omitted::reproduce(lab, data, preset, seeds, &out),
        Experiment::Temperature => temperature::reproduce(lab, data, preset, seeds, &out),
        Experiment::Logits => logits::reproduce(lab, data, preset, seeds, &out),
        Experiment::Variance => variance::reproduce(lab, data, preset, seeds, &out),
        Experiment::Regularizer => regularizer::on_images(lab, data, preset, seeds, &out),
        Experiment::Specialists => specialists::reproduce(lab, data, preset, seeds, extended, &out),
        Experiment::All => Err(Error::Internal("'all' is no single experiment".into())),
    }?;
    // The specialists' summary says itself how much it trained on.
    let limit = Plan::new(preset, data).teacher.data.train_limit.filter(|_| name.is_none());
    let train_limit = limit.filter(|&limit| limit < data.train.len());
    Ok(Outcome { run: out, train_limit, summary })
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
