//! The tile unit of Intel's server processors since Sapphire Rapids: AMX, of which TDPBF16PS computes
//! the contract of [`crate::bf16`] for 16 × 16 elements and 32 terms at once.
//!
//! ```text
//! C(i, j) ← C(i, j) + (Σ A(i, 2w)·B(2w, j) + Σ A(i, 2w + 1)·B(2w + 1, j))      w < 16, i, j < 16
//! ```
//!
//! A tile register holds 16 rows of 64 bytes, 1 KiB. A product keeps 2 × 2 tiles of C in
//! registers over all k: four loads feed four products, where one tile alone would take two loads for
//! one, and the unit can do a product in the time of two loads.
//!
//! Linux lets a process use the tiles when it has asked ([`ARCH_REQ_XCOMP_PERM`]). Their shapes are
//! set once for each task of a product and are the same in all of them.
//!
//! [`ARCH_REQ_XCOMP_PERM`]: https://docs.kernel.org/arch/x86/xstate.html

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
mod emulator;

use crate::bf16::TILE;
use crate::simd::LANES;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows and panels of C in the unit's registers.
pub(crate) const ROWS: usize = 2 * LANES;
/// See [`ROWS`].
pub(crate) const PANELS: usize = 2;

/// Floating-point operations of a product of two tiles.
const FLOP: usize = 2 * 16 * 16 * 32;

/// Sums of 2 × 2 tiles: row r < 32 of panel p lies at 32·p + r. Aligned to cache lines.
#[repr(align(64))]
pub(crate) struct Sums(pub [[f32; LANES]; ROWS * PANELS]);

impl Sums {
    pub fn zeroed() -> Self {
        Self([[0.0; LANES]; ROWS * PANELS])
    }
}

/// Proof that processor and system let this process use tiles.
#[derive(Clone, Copy)]
pub(crate) struct Unit {
    _private: (),
}

static EMULATED: AtomicBool = AtomicBool::new(false);

/// Makes [`crate::Isa::Amx`] available on a machine with AVX-512 and without tiles: their instructions
/// are emulated, thousands of times slower. For tests.
pub fn emulate() {
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
    if Unit::detect().is_none() {
        emulator::install();
        EMULATED.store(true, Ordering::Relaxed);
    }
}

impl Unit {
    /// The token, if there are tiles.
    pub fn detect() -> Option<Self> {
        static GRANTED: OnceLock<bool> = OnceLock::new();
        let found = EMULATED.load(Ordering::Relaxed) || *GRANTED.get_or_init(system::grants_tiles);
        found.then_some(Self { _private: () })
    }

    /// This thread's tiles, in shape.
    pub fn tiles(self) -> Tiles {
        // SAFETY: the token proves that there are tiles.
        unsafe { system::configure() };
        Tiles { _private: () }
    }
}

/// A thread's tiles, until they are dropped.
pub(crate) struct Tiles {
    _private: (),
}

impl Drop for Tiles {
    /// Leaves none in use: the system then saves none when it changes threads.
    fn drop(&mut self) {
        // SAFETY: that there are tiles was proved where `self` was made.
        unsafe { system::release() };
    }
}

impl Tiles {
    /// C ← A·B over `k` tiles of both; `a` are those of one or two blocks of C's rows, one behind the
    /// other, `b` those of as many of its panels.
    ///
    /// # Panics
    /// If they are fewer or more.
    #[inline(always)]
    pub fn multiply(&mut self, k: usize, a: &[f32], b: &[f32], c: &mut Sums) {
        let all = k * TILE;
        if all == 0 {
            *c = Sums::zeroed();
            return;
        }
        let [blocks, panels] = [a, b].map(|of| of.len() / all);
        assert_eq!((a.len(), b.len()), (blocks * all, panels * all), "whole operands");
        let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.0.as_mut_ptr().cast());
        // SAFETY: `self` proves that the tiles are in shape; `blocks` or `panels` times `k` of them lie
        // at `a` and `b`, and four at `c`.
        unsafe {
            match (blocks, panels) {
                (1, 1) => system::multiply_1_1(k, a, b, c),
                (1, 2) => system::multiply_1_2(k, a, b, c),
                (2, 1) => system::multiply_2_1(k, a, b, c),
                (2, 2) => system::multiply_2_2(k, a, b, c),
                other => panic!("one or two blocks and panels, found {other:?}"),
            }
        }
    }

    /// As many products as the unit can do, `rounds` times four of them, without loads; their
    /// floating-point operations.
    pub fn spin(&mut self, rounds: usize) -> usize {
        // SAFETY: `self` proves that the tiles are in shape.
        unsafe { system::spin(rounds.max(1)) };
        rounds.max(1) * 4 * FLOP
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
mod system {
    use super::LANES;
    use crate::bf16::TILE;
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    /// Whether the processor has tiles of bf16 and Linux, asked for them, grants them.
    pub fn grants_tiles() -> bool {
        /// The kernel's request, and its name of the tiles' state.
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        if __cpuid(0).eax < 0x1d {
            return false;
        }
        let (amx_bf16, amx_tile) = (1 << 22, 1 << 24);
        let has = |bit: u32| __cpuid_count(7, 0).edx & bit != 0;
        // Of palette 1: bytes of a row and number of tiles, and rows.
        let palette = __cpuid_count(0x1d, 1);
        let is_usual = palette.ebx == 8 << 16 | 64 && palette.ecx & 0xffff == 16;
        // SAFETY: this call asks for a permission and touches no memory.
        let ask = || unsafe {
            libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
        };
        has(amx_bf16) && has(amx_tile) && is_usual && ask() == 0
    }

    /// LDTILECFG's operand.
    #[repr(C, align(64))]
    struct Shapes {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    /// Eight tiles of 16 rows of 64 bytes.
    static SHAPES: Shapes = Shapes {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };

    /// # Safety
    /// There must be tiles.
    pub unsafe fn configure() {
        // SAFETY: the caller vouches for the instruction; the operand is 64 bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const SHAPES, options(nostack, readonly));
        }
    }

    /// # Safety
    /// There must be tiles.
    pub unsafe fn release() {
        // SAFETY: the caller vouches for the instruction.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }

    /// Four products a round, each into a sum of its own.
    ///
    /// # Safety
    /// [`configure`] must have run in this thread.
    pub unsafe fn spin(rounds: usize) {
        // SAFETY: the caller vouches for the tiles; no memory is touched.
        unsafe {
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "tilezero tmm4", "tilezero tmm5",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm5",
                "tdpbf16ps tmm1, tmm4, tmm5",
                "tdpbf16ps tmm2, tmm4, tmm5",
                "tdpbf16ps tmm3, tmm4, tmm5",
                "dec {rounds}",
                "jnz 2b",
                rounds = inout(reg) rounds => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _,
                options(nostack, nomem),
            );
        }
    }

    /// The sums of one or two blocks of rows × panels: tmm0 … 3 are C, tmm4 and 5 A, tmm6 and 7 B.
    macro_rules! multiply {
        ($name:ident, clear: $($clear:literal)+, step: $($step:literal)+, store: $($store:literal)+) => {
            /// # Safety
            /// [`super::Unit::tiles`] must have run in this thread, `k` > 0, `k` tiles of each block
            /// lie at `a`, of each panel at `b`, and four at `c`.
            #[inline(always)]
            pub unsafe fn $name(k: usize, a: *const f32, b: *const f32, c: *mut f32) {
                // SAFETY: the caller vouches for tiles and addresses.
                unsafe {
                    asm!(
                        $($clear,)+
                        "2:",
                        $($step,)+
                        "add {a0}, 1024", "add {a1}, 1024", "add {b0}, 1024", "add {b1}, 1024",
                        "dec {k}",
                        "jnz 2b",
                        $($store,)+
                        k = inout(reg) k => _,
                        a0 = inout(reg) a => _,
                        a1 = inout(reg) a.wrapping_add(k * TILE) => _,
                        b0 = inout(reg) b => _,
                        b1 = inout(reg) b.wrapping_add(k * TILE) => _,
                        c = in(reg) c,
                        row = in(reg) 4 * LANES,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack),
                    );
                }
            }
        };
    }

    multiply!(multiply_1_1,
        clear: "tilezero tmm0",
        step: "tileloadd tmm4, [{a0} + {row}*1]" "tileloadd tmm6, [{b0} + {row}*1]"
            "tdpbf16ps tmm0, tmm4, tmm6",
        store: "tilestored [{c} + {row}*1], tmm0");
    multiply!(multiply_1_2,
        clear: "tilezero tmm0" "tilezero tmm2",
        step: "tileloadd tmm4, [{a0} + {row}*1]" "tileloadd tmm6, [{b0} + {row}*1]"
            "tdpbf16ps tmm0, tmm4, tmm6"
            "tileloadd tmm7, [{b1} + {row}*1]"
            "tdpbf16ps tmm2, tmm4, tmm7",
        store: "tilestored [{c} + {row}*1], tmm0" "tilestored [{c} + {row}*1 + 2048], tmm2");
    multiply!(multiply_2_1,
        clear: "tilezero tmm0" "tilezero tmm1",
        step: "tileloadd tmm6, [{b0} + {row}*1]" "tileloadd tmm4, [{a0} + {row}*1]"
            "tdpbf16ps tmm0, tmm4, tmm6"
            "tileloadd tmm5, [{a1} + {row}*1]"
            "tdpbf16ps tmm1, tmm5, tmm6",
        store: "tilestored [{c} + {row}*1], tmm0" "tilestored [{c} + {row}*1 + 1024], tmm1");
    multiply!(multiply_2_2,
        clear: "tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3",
        step: "tileloadd tmm6, [{b0} + {row}*1]" "tileloadd tmm4, [{a0} + {row}*1]"
            "tdpbf16ps tmm0, tmm4, tmm6"
            "tileloadd tmm5, [{a1} + {row}*1]"
            "tdpbf16ps tmm1, tmm5, tmm6"
            "tileloadd tmm7, [{b1} + {row}*1]"
            "tdpbf16ps tmm2, tmm4, tmm7"
            "tdpbf16ps tmm3, tmm5, tmm7",
        store: "tilestored [{c} + {row}*1], tmm0" "tilestored [{c} + {row}*1 + 1024], tmm1"
            "tilestored [{c} + {row}*1 + 2048], tmm2" "tilestored [{c} + {row}*1 + 3072], tmm3");
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(miri))))]
mod system {
    //! No tiles, so that no token and none of these calls exist.
    pub fn grants_tiles() -> bool {
        false
    }
    pub unsafe fn configure() {
        unreachable!("no tiles");
    }
    pub unsafe fn release() {
        unreachable!("no tiles");
    }
    pub unsafe fn spin(_: usize) {
        unreachable!("no tiles");
    }
    pub use multiply as multiply_1_1;
    pub use multiply as multiply_1_2;
    pub use multiply as multiply_2_1;
    pub use multiply as multiply_2_2;
    pub unsafe fn multiply(_: usize, _: *const f32, _: *const f32, _: *mut f32) {
        unreachable!("no tiles");
    }
}
