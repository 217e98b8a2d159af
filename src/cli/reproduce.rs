//! `limbeck reproduce`: a table of the paper.

use super::progress::ProgressLine;
use super::session::Session;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum, value_parser};
use limbeck::experiments::mnist::{self, Preset};
use limbeck::run::{self, Aggregate, Summary};
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
}

#[derive(Clone, Copy, ValueEnum)]
enum Experiment {
    /// Section 3: teacher, plain net, and the same net distilled
    Mnist,
}

fn preset_parser() -> impl TypedValueParser<Value = Preset> {
    const ALL: [Preset; 3] = [Preset::Quick, Preset::Standard, Preset::Paper];
    PossibleValuesParser::new(ALL.map(Preset::name)).try_map(|name| {
        let preset = ALL.into_iter().find(|preset| preset.name() == name);
        preset.ok_or_else(|| Error::Internal(format!("no preset '{name}'")))
    })
}

pub fn run(session: &Session, args: &ReproduceArgs) -> Result<()> {
    let Experiment::Mnist = args.experiment;
    let dataset = session.dataset(None)?;
    let out = match &session.out {
        Some(out) => out.clone(),
        None => run::default_out("reproduce mnist")?,
    };
    session.note(&format!("writing to {}", out.display()));
    let mut progress = ProgressLine::new(session.quiet);
    let seeds = (session.seed.unwrap_or(0), args.seeds);
    let mut lab = session.lab(&mut progress);
    let summary = mnist::reproduce(&mut lab, &dataset, args.preset, seeds, &out)?;
    drop(progress);
    let train_limit = mnist::plan(args.preset, &dataset).teacher.data.train_limit;
    let train_limit = train_limit.filter(|&limit| limit < dataset.train.len());
    session.result(&Table { run: out, train_limit, summary })
}

/// Our figures beside the paper's.
#[derive(Serialize)]
struct Table {
    run: PathBuf,
    /// Training examples used, where the preset takes fewer than there are.
    train_limit: Option<usize>,
    #[serde(flatten)]
    summary: Summary,
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Summary { dataset, preset, aggregate, paper, .. } = &self.summary;
        writeln!(f, "Test errors on {dataset}, preset {preset}")?;
        writeln!(f, "{:<12}{:>16}{:>8}", "", "limbeck", "paper")?;
        for system in self.summary.systems() {
            let ours = aggregate.get(system).map_or(String::new(), shown);
            // The paper's figures are for MNIST.
            let paper = paper.get(system).filter(|_| dataset == "mnist");
            let paper = paper.map_or("–".to_string(), u64::to_string);
            writeln!(f, "{system:<12}{ours:>16}{paper:>8}")?;
        }
        if let Some(limit) = self.train_limit {
            writeln!(f, "Trained on the first {limit} images only: not the paper's experiment.")?;
        }
        writeln!(f, "Run folder: {}", self.run.display())
    }
}

fn shown(aggregate: &Aggregate) -> String {
    match aggregate.sd {
        None => format!("{:.0}", aggregate.mean),
        Some(sd) => format!("{:.1} ± {sd:.1}", aggregate.mean),
    }
}
