//! `limbeck reproduce`: a table of the paper.

use super::progress::ProgressLine;
use super::session::{DatasetName, Session};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum, value_parser};
use limbeck::experiments::{mnist, preset::Plan, preset::Preset, specialists};
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

    /// How much to spend: under 2 minutes, under 30 minutes, or hours (on 2 cores)
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
    /// Section 5: a generalist, and specialists for the classes that it confuses
    Specialists,
}

impl Experiment {
    fn name(self) -> &'static str {
        match self {
            Experiment::Mnist => "mnist",
            Experiment::Specialists => "specialists",
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
    let dataset = match args.experiment {
        Experiment::Mnist => session.dataset(None)?,
        Experiment::Specialists => session.dataset(Some(DatasetName::Writers))?,
    };
    let out = match &session.out {
        Some(out) => out.clone(),
        None => run::default_out(&format!("reproduce {}", args.experiment.name()))?,
    };
    session.note(&format!("writing to {}", out.display()));
    let mut progress = ProgressLine::new(session.quiet);
    let first = session.seed.unwrap_or(0);
    let mut lab = session.lab(&mut progress);
    lab.teachers = (first..).zip(args.teachers.iter().cloned()).collect();
    let seeds = (first, args.seeds);
    let summary = match args.experiment {
        Experiment::Mnist => {
            mnist::reproduce(&mut lab, &dataset, args.preset, seeds, args.extended, &out)?
        }
        Experiment::Specialists => {
            specialists::reproduce(&mut lab, &dataset, args.preset, seeds, args.extended, &out)?
        }
    };
    drop(progress);
    let train_limit = match args.experiment {
        Experiment::Mnist => Plan::new(args.preset, &dataset).teacher.data.train_limit,
        // Says itself in what it is not the paper's.
        Experiment::Specialists => None,
    };
    let train_limit = train_limit.filter(|&limit| limit < dataset.train.len());
    session.result(&Outcome { run: out, train_limit, summary })
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
