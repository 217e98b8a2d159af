//! The machine's limits: fused multiply-adds, products of bf16 tiles, and reading from caches and memory.

use super::measure::{Machine, Spread, calm};
use crate::files::error::{Error, Result};
use limbeck_kernels::{Context, Isa, peak};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

/// The machine's limits.
#[derive(Debug, Serialize)]
pub struct Peak {
    /// Where.
    #[serde(flatten)]
    pub machine: Machine,
    /// Of fused multiply-adds in f32, for the instruction set in use.
    pub peak_gflops: Spread,
    /// Of products of bf16 on tiles; absent where the instruction set in use has none.
    pub tile_gflops: Option<Spread>,
    /// Of every instruction set this machine has, with the same threads.
    pub isas: Vec<IsaPeak>,
    /// How much of the cores was others'; absent where that cannot be told.
    pub neighbours: Option<Neighbours>,
    /// All threads reading at once, each its own memory.
    pub read_gb_per_s: Vec<Bandwidth>,
}

/// How much of the cores was others', by [`peak::issue_rate`] in many short moments.
#[derive(Debug, Serialize)]
pub struct Neighbours {
    /// 10⁹ instructions per second of the slowest thread, none of which needs a unit.
    pub issued_g_per_s: Spread,
    /// Share of the moments in which a core was not this process's own.
    pub fraction_of_moments: f64,
}

impl Neighbours {
    fn of(context: &Context) -> Option<Neighbours> {
        const MOMENTS: usize = 2000;
        const MOMENT: Duration = Duration::from_micros(100);
        let rates: Option<Vec<f64>> =
            (0..MOMENTS).map(|_| peak::issue_rate(context, MOMENT)).collect();
        let rates = rates?;
        let shared = calm(&rates).into_iter().filter(|calm| !calm).count();
        Some(Neighbours {
            issued_g_per_s: Spread::of(rates).times(1e-9),
            fraction_of_moments: shared as f64 / MOMENTS as f64,
        })
    }
}

/// The peak of one instruction set.
#[derive(Debug, Serialize)]
pub struct IsaPeak {
    /// Its name.
    pub isa: String,
    /// Its rate.
    pub gflops: f64,
}

/// A read bandwidth.
#[derive(Debug, Serialize)]
pub struct Bandwidth {
    /// What each thread reads again and again.
    pub kib_per_thread: usize,
    /// 10⁹ bytes per second, all threads together.
    pub gb_per_s: f64,
}

/// Measures the peak and the bandwidth of caches and memory; takes a few seconds.
///
/// # Errors
/// [`Error::Usage`] when threads for the other instruction sets are refused.
pub fn peak(context: &Context) -> Result<Peak> {
    const SHORT: Duration = Duration::from_millis(50);
    let threads = context.pool.threads();
    let rate = |context: &Context| peak::flops(context, SHORT) / 1e9;
    let mut isas = Vec::new();
    for isa in Isa::available() {
        let other = Context::new(isa, threads).map_err(Error::Usage)?;
        let gflops = Spread::of((0..5).map(|_| rate(&other))).median;
        isas.push(IsaPeak { isa: isa.to_string(), gflops });
    }
    let bandwidth = |kib: usize| {
        let once = |_| peak::read_bandwidth(context, kib << 10, SHORT) / 1e9;
        Bandwidth { kib_per_thread: kib, gb_per_s: Spread::of((0..5).map(once)).median }
    };
    Ok(Peak {
        machine: Machine::of(context),
        peak_gflops: Spread::of((0..9).map(|_| rate(context))),
        tile_gflops: (context.isa == Isa::Amx)
            .then(|| Spread::of((0..9).map(|_| peak::bf16_flops(context, SHORT) / 1e9))),
        isas,
        neighbours: Neighbours::of(context),
        read_gb_per_s: [16, 512, 8 << 10, 256 << 10].map(bandwidth).into(),
    })
}

impl Display for Peak {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Peak { machine, peak_gflops, tile_gflops, isas, neighbours, read_gb_per_s } = self;
        let Spread { median, min, max } = peak_gflops;
        write!(f, "{machine}")?;
        writeln!(f, "fused multiply-add  {median:.1} GFLOP/s ({min:.1} to {max:.1})")?;
        if let Some(Spread { median, min, max }) = tile_gflops {
            writeln!(
                f,
                "products of bf16    {median:.1} GFLOP/s ({min:.1} to {max:.1}), on tiles"
            )?;
        }
        for isa in isas {
            writeln!(f, "  {:<16}  {:.1} GFLOP/s", isa.isa, isa.gflops)?;
        }
        if let Some(Neighbours { issued_g_per_s, fraction_of_moments }) = neighbours {
            let Spread { median, min, max } = issued_g_per_s;
            writeln!(f, "instructions        {median:.1} G/s a thread ({min:.1} to {max:.1})")?;
            writeln!(
                f,
                "  with neighbours   {:.0} % of the time: less than 3/4 of the instructions",
                fraction_of_moments * 100.0
            )?;
        }
        for read in read_gb_per_s {
            let size = format!("read {} KiB a thread", read.kib_per_thread);
            writeln!(f, "{size:<26}  {:.1} GB/s", read.gb_per_s)?;
        }
        Ok(())
    }
}
