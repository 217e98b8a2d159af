//! Which instruction set runs: detected once, overridable, and the only place where a kernel
//! crosses into code compiled for it.

use crate::amx;
use crate::simd::Simd;
use crate::simd::portable::Portable;
#[cfg(target_arch = "x86_64")]
use crate::simd::{avx2::Avx2, avx512::Avx512};
use std::sync::OnceLock;
use std::{fmt, str::FromStr};

/// An instruction set the kernels are compiled for. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512F with AMX: products of bf16 run on tiles, all else as with AVX-512F.
    Amx,
    /// AVX-512F, 8 × 48 microtile.
    Avx512,
    /// AVX2 with FMA, 6 × 16 microtile.
    Avx2,
    /// `wide`: NEON on aarch64; elsewhere a slow fallback that emulates the fused multiply-add.
    Portable,
}

impl Isa {
    /// Every ISA, best first.
    pub const ALL: [Isa; 4] = [Isa::Amx, Isa::Avx512, Isa::Avx2, Isa::Portable];

    /// Whether this CPU and operating system can run it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Avx512::detect().is_some() && amx::Unit::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Avx512::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2::detect().is_some(),
            Isa::Portable => true,
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The tiles, if it has them.
    pub(crate) fn tiles(self) -> Option<amx::Unit> {
        if self == Isa::Amx { amx::Unit::detect() } else { None }
    }

    /// Whether the optimiser's work on a tile is better done between the multiply-adds of the next one
    /// than after its own. Zen's cores have vector units that do not multiply, which take it; Intel's
    /// have none of 512 bits, and what waits there between the multiply-adds keeps some from starting:
    /// an update of 1200 × 1200 weights at batch 128 reached 83 % of the peak so, and 88 % at once.
    pub(crate) fn defers(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self == Isa::Avx512 {
            static INTEL: OnceLock<bool> = OnceLock::new();
            return !*INTEL.get_or_init(|| {
                let vendor = std::arch::x86_64::__cpuid(0);
                [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat()
                    == b"GenuineIntel"
            });
        }
        self != Isa::Amx
    }

    /// The best available ISA.
    pub fn best() -> Isa {
        Self::ALL.into_iter().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
    }

    /// The available ISAs, best first.
    pub fn available() -> impl Iterator<Item = Isa> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Amx => "amx",
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
        })
    }
}

impl FromStr for Isa {
    type Err = String;

    /// Parses `auto`, `amx`, `avx512`, `avx2` or `portable`; an ISA this machine lacks is an error.
    fn from_str(name: &str) -> Result<Isa, String> {
        if name == "auto" {
            return Ok(Isa::best());
        }
        let isa = Self::ALL.into_iter().find(|isa| isa.to_string() == name).ok_or_else(|| {
            format!("unknown ISA '{name}', expected auto, amx, avx512, avx2 or portable")
        })?;
        if isa.is_available() {
            Ok(isa)
        } else {
            let have: Vec<_> = Self::available().map(|isa| isa.to_string()).collect();
            Err(format!("this CPU has no {isa}; it has {}", have.join(", ")))
        }
    }
}

/// Work that is compiled once per ISA. `run` must be `#[inline(always)]`, and so must all it
/// calls with the token: otherwise it is compiled without the ISA's features and is slow.
pub trait Kernel {
    /// What it gives.
    type Output;
    /// The work, with the vector operations of an ISA.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs `kernel` in code compiled for `isa`, or for the best one where `isa` is missing.
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if matches!(isa, Isa::Amx | Isa::Avx512)
            && let Some(token) = Avx512::detect()
        {
            return token.call(kernel);
        }
        if isa != Isa::Portable
            && let Some(token) = Avx2::detect()
        {
            return token.call(kernel);
        }
    }
    let _ = isa;
    Portable.call(kernel)
}
