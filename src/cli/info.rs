//! `limbeck info`: this program and this machine.

use super::session::{COMMIT, Session};
use limbeck::Result;
use limbeck::files::shown::ShownPath;
use limbeck::run::manifest::{cpu_entry, cpu_model};
use limbeck_datasets::mnist;
use limbeck_kernels::{Isa, peak};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Time given to the measurement of the peak.
const MEASURED: Duration = Duration::from_millis(500);

#[derive(Serialize)]
struct Info {
    version: &'static str,
    git_commit: Option<&'static str>,
    target: String,
    cpu: String,
    /// CPUID's family and model, which tell generations of the same name apart.
    cpu_family: Option<u32>,
    cpu_model: Option<u32>,
    /// Whether processor and system have tiles of bf16 (AMX) for this program.
    bf16_tiles: bool,
    cores: usize,
    caches: Vec<Cache>,
    isa: String,
    isas: Vec<String>,
    threads: usize,
    /// Of fused multiply-adds, by these threads and this ISA, measured in half a second.
    peak_gflops: f64,
    data_dir: Option<ShownPath>,
    mnist_found: bool,
}

/// A data or unified cache, as its first core sees it.
#[derive(Serialize, PartialEq, Debug)]
struct Cache {
    level: u32,
    kibibytes: u64,
    /// Hardware threads that share it, as the kernel lists them: `0-1`.
    shared_by: String,
}

pub fn run(session: &Session) -> Result<()> {
    let number = |key| cpu_entry(key)?.parse().ok();
    session.result(&Info {
        version: env!("CARGO_PKG_VERSION"),
        git_commit: COMMIT,
        target: format!("{} {}", std::env::consts::ARCH, std::env::consts::OS),
        cpu: cpu_model(),
        cpu_family: number("cpu family"),
        cpu_model: number("model"),
        bf16_tiles: Isa::Amx.is_available(),
        cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
        caches: caches(Path::new("/sys/devices/system/cpu/cpu0/cache")),
        isa: session.context.isa.to_string(),
        isas: Isa::available().map(|isa| isa.to_string()).collect(),
        threads: session.context.pool.threads(),
        peak_gflops: peak::flops(&session.context, MEASURED) / 1e9,
        data_dir: session.data.clone().map(ShownPath::from),
        mnist_found: session.data.as_deref().is_some_and(mnist::is_present),
    })
}

/// What Linux tells about the caches of a core; nothing elsewhere.
fn caches(folder: &Path) -> Vec<Cache> {
    let indices = (0..).map(|i| folder.join(format!("index{i}")));
    let existing = indices.take_while(|index| index.is_dir());
    existing.filter_map(|index| cache(&index)).collect()
}

fn cache(index: &Path) -> Option<Cache> {
    let read = |name| Some(fs::read_to_string(index.join(name)).ok()?.trim().to_string());
    if read("type")? == "Instruction" {
        return None;
    }
    Some(Cache {
        level: read("level")?.parse().ok()?,
        kibibytes: read("size")?.strip_suffix('K')?.parse().ok()?,
        shared_by: read("shared_cpu_list")?,
    })
}

impl Display for Info {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let commit = self.git_commit.map(|commit| format!(" ({commit})")).unwrap_or_default();
        writeln!(f, "limbeck {}{commit} on {}", self.version, self.target)?;
        write!(f, "cpu      {}, ", self.cpu)?;
        if let (Some(family), Some(model)) = (self.cpu_family, self.cpu_model) {
            write!(f, "family {family}, model {model}, ")?;
        }
        writeln!(f, "{} hardware threads", self.cores)?;
        for Cache { level, kibibytes, shared_by } in &self.caches {
            writeln!(f, "L{level}       {kibibytes} KiB, shared by cpu {shared_by}")?;
        }
        writeln!(f, "isa      {} of {}", self.isa, self.isas.join(", "))?;
        let tiles = if self.bf16_tiles { "for products of bf16" } else { "none" };
        writeln!(f, "tiles    {tiles}")?;
        let Info { threads, peak_gflops, .. } = self;
        writeln!(f, "threads  {threads}")?;
        writeln!(f, "peak     {peak_gflops:.0} GFLOP/s of fused multiply-adds, just measured")?;
        match &self.data_dir {
            None => writeln!(f, "data     no folder: set LIMBECK_DATA or give --data DIR"),
            Some(folder) => {
                let mnist = if self.mnist_found { "with MNIST" } else { "without MNIST" };
                writeln!(f, "data     {}, {mnist}", folder.display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_read_and_instructions_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let files = |index: &str, [level, kind, size, list]: [&str; 4]| {
            let folder = dir.path().join(index);
            fs::create_dir(&folder).unwrap();
            for (name, text) in
                [("level", level), ("type", kind), ("size", size), ("shared_cpu_list", list)]
            {
                fs::write(folder.join(name), format!("{text}\n")).unwrap();
            }
        };
        files("index0", ["1", "Data", "48K", "0"]);
        files("index1", ["1", "Instruction", "32K", "0"]);
        files("index2", ["3", "Unified", "32768K", "0-7"]);
        let cache =
            |level, kibibytes, list: &str| Cache { level, kibibytes, shared_by: list.into() };
        assert_eq!(caches(dir.path()), [cache(1, 48, "0"), cache(3, 32768, "0-7")]);
        assert_eq!(caches(&dir.path().join("none")), []);
    }
}
