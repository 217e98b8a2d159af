//! Block sizes: one table, a row for each ISA, and the split of rows into tiles.

use crate::isa::Isa;
use std::ops::Range;

/// Block sizes in elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocking {
    /// Depth of one pass over K. Between passes C is stored and loaded again, which costs more
    /// than reading the tile's micropanels (one of A and [`crate::simd::RegisterTile::panels`] of B, kc × 16
    /// × 4 bytes each) from L2: only where they would not leave room there for the next ones is K
    /// cut.
    pub kc: usize,
    /// Values of A in a task: mc × kc × 4 bytes stay in L2 while every panel of B passes.
    pub a: usize,
}

impl Blocking {
    pub fn of(isa: Isa) -> Self {
        match isa {
            // Measured for the nets 784-1200-1200-10 and 784-800-800-10: on Zen 4, 1 MiB of L2, a
            // tile of one panel was 5 to 8 % faster than with kc 256; on Sapphire Rapids, 2 MiB of
            // L2, that of three panels is 1 to 7 % faster than with kc 400 … 128.
            Isa::Amx | Isa::Avx512 => Self { kc: 2048, a: 96 << 10 },
            // Measured on Zen 3, 512 KiB of L2, against kc 128 … 2048: 24 KiB of B in a 32 KiB L1.
            Isa::Avx2 => Self { kc: 384, a: 96 << 10 },
            // The arithmetic is the limit (emulated) or NEON's 128-bit loads are; as AVX2.
            Isa::Portable => Self { kc: 384, a: 96 << 10 },
        }
    }

    /// Most rows of a task whose sum has `depth` terms.
    pub fn mc(self, depth: usize) -> usize {
        self.a / depth.clamp(1, self.kc)
    }
}

/// Cuts `rows` (or panels) into as few tiles of at most `mr` as possible, as even as possible: 16
/// rows become 6 + 5 + 5, not 6 + 6 + 4. A thin last tile would have too few accumulators to hide
/// the latency of the multiply-add.
pub(crate) fn tiles(rows: Range<usize>, mr: usize) -> impl Iterator<Item = Range<usize>> {
    let count = rows.len().div_ceil(mr).max(1);
    let (base, longer) = (rows.len() / count, rows.len() % count);
    (0..count).map(move |i| {
        let start = rows.start + i * base + i.min(longer);
        start..start + base + usize::from(i < longer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_the_rows_evenly() {
        for mr in [4, 6, 16] {
            for rows in 1..100 {
                let tiles: Vec<_> = tiles(7..7 + rows, mr).collect();
                assert_eq!(tiles[0].start, 7);
                assert!(tiles.windows(2).all(|w| w[0].end == w[1].start));
                assert_eq!(tiles.last().unwrap().end, 7 + rows);
                assert_eq!(tiles.len(), rows.div_ceil(mr));
                let lengths: Vec<_> = tiles.iter().map(|t| t.len()).collect();
                assert!(lengths.iter().max().unwrap() - lengths.iter().min().unwrap() <= 1);
                assert!(lengths.iter().all(|&l| l <= mr));
            }
        }
    }
}
