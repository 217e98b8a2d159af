//! The options that every command has.

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, value_parser};
use limbeck::engine::config::Precision;
use limbeck::{Error, Result};
use limbeck_kernels::Isa;
use std::path::PathBuf;

/// TOML, which records seeds, ends at 2⁶³ − 1. A run counts its seeds up from this one.
const MAX_SEED: u64 = 1 << 62;

/// Options of every command.
#[derive(Args)]
#[command(next_help_heading = "Options of every command")]
pub struct GlobalArgs {
    /// Threads of the kernels, at most as many as the machine runs at once; these if absent
    #[arg(long, global = true, value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,

    /// Instruction set of the kernels
    #[arg(
        long,
        global = true,
        env = "LIMBECK_ISA",
        hide_env_values = true,
        default_value = "auto"
    )]
    #[arg(value_parser = isa_parser())]
    pub isa: Isa,

    /// Folder that holds the data sets: mnist/, an4/
    #[arg(long, global = true, env = "LIMBECK_DATA", hide_env_values = true, value_name = "DIR")]
    // Empty is absent, as for other variables of the environment.
    #[arg(value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub data: Option<PathBuf>,

    /// Output folder of the run; a new one under runs/ if absent. Of a page, its file
    #[arg(long, global = true, value_name = "PATH")]
    pub out: Option<PathBuf>,

    /// Seed, in place of the configuration's or preset's
    #[arg(long, global = true, value_name = "N", value_parser = value_parser!(u64).range(..=MAX_SEED))]
    pub seed: Option<u64>,

    /// Print the result as one JSON object
    #[arg(long, global = true)]
    pub json: bool,

    /// Show no progress and no notes, only results, warnings and errors
    #[arg(long, global = true)]
    pub quiet: bool,

    /// Under mpirun: seconds that the other ranks may take to answer before the run ends
    #[cfg(feature = "mpi")]
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 120)]
    #[arg(value_parser = value_parser!(u64).range(1..=86_400))]
    pub peer_timeout: u64,

    /// Under mpirun: sum gradients in any order, which makes the bits depend on the number of ranks
    #[cfg(feature = "mpi")]
    #[arg(long, global = true)]
    pub fast_allreduce: bool,

    /// Show training as a dashboard with curves, where stderr is a terminal
    #[arg(long, global = true, conflicts_with = "quiet")]
    pub tui: bool,
}

/// For commands that compute without a configuration, which would say it.
#[derive(Args)]
pub struct PrecisionArgs {
    /// What the operands of the matrix products are; sums, weights and losses are f32
    #[arg(long, default_value = "f32", value_parser = named(Precision::ALL, Precision::name))]
    pub precision: Precision,
}

/// One of `all`, by its name.
pub fn named<T: Copy + Send + Sync + 'static, const N: usize>(
    all: [T; N],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.map(name)).try_map(move |text| {
        let found = all.into_iter().find(|&one| name(one) == text);
        found.ok_or_else(|| Error::Internal(format!("nothing is called '{text}'")))
    })
}

/// Names the choices for help and completions. The kernels' own parser then decides whether this
/// machine has the instruction set.
fn isa_parser() -> impl TypedValueParser<Value = Isa> {
    PossibleValuesParser::new(["auto", "amx", "avx512", "avx2", "portable"])
        .try_map(|name| name.parse::<Isa>())
}

/// Commands that compute with the kernels.
const COMPUTING: &[&str] =
    &["reproduce", "train", "distill", "eval", "bench", "report", "demo", "info", "predict"];
/// Commands whose files `--out` names, that draw by `--seed`, show `--tui`, use `--threads` and `--isa`,
/// and read from `--data`.
const TAKES: [(&str, &[&str]); 6] = [
    ("out", &["reproduce", "train", "distill", "report", "demo", "verify", "predict", "init"]),
    ("seed", &["reproduce", "train", "distill", "demo"]),
    ("tui", &["reproduce", "train", "distill"]),
    ("threads", COMPUTING),
    ("isa", COMPUTING),
    ("data", &["reproduce", "train", "distill", "eval", "report", "demo", "data", "info"]),
];
/// Options that are refused where they do nothing: who gives them waits for something. The others are
/// habits, in scripts and in the environment.
const WISHES: [&str; 3] = ["out", "seed", "tui"];

fn takes(command: &str, option: &str) -> bool {
    let known = TAKES.iter().find(|(name, _)| *name == option);
    known.is_none_or(|(_, commands)| commands.contains(&command))
}

/// Leaves out of each command's help the options that mean nothing for it.
pub fn without_unused(program: Command) -> Command {
    let globals = program.get_arguments().filter(|option| option.is_global_set());
    let globals: Vec<Arg> = globals.cloned().collect();
    // A command's own option of the same name goes before the program's.
    program.mut_subcommands(|command| {
        let name = command.get_name().to_string();
        let unused = globals.iter().filter(|option| !takes(&name, option.get_id().as_str()));
        let hidden: Vec<Arg> = unused.map(|option| option.clone().hide(true)).collect();
        command.args(hidden)
    })
}

/// Checks that what the command line asks for means something to its command.
///
/// # Errors
/// [`Error::Usage`].
pub fn expect_used(matches: &ArgMatches) -> Result<()> {
    let Some((name, of_command)) = matches.subcommand() else { return Ok(()) };
    let given = |option: &&&str| {
        of_command.value_source(option) == Some(ValueSource::CommandLine)
            && (**option != "tui" || of_command.get_flag(option))
    };
    match WISHES.iter().filter(|option| !takes(name, option)).find(given) {
        None => Ok(()),
        Some(option) => {
            Err(Error::Usage(format!("--{option} means nothing to `{name}`: leave it out")))
        }
    }
}
