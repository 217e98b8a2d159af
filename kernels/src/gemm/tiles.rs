//! The output of a GEMM, cut into disjoint blocks that threads fill.

use crate::matrix::{MatMut, PanelsMut};
use crate::pool::Pool;
use crate::simd::{LANES, Simd};
use std::marker::PhantomData;
use std::ops::Range;

/// C as a grid of rows × panels of 16 lanes, panel-major or row-major.
pub(crate) struct Tiles<'a> {
    start: *mut f32,
    /// Values from one row of a panel to the next, and from one panel to the next.
    row_stride: usize,
    panel_stride: usize,
    rows: usize,
    /// Lanes that may be written: the last panel of a row-major C can be narrower than 16.
    lanes: usize,
    _borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: the values are reached only through `Block`s, which `for_each_block` makes disjoint.
unsafe impl Sync for Tiles<'_> {}

impl<'a> Tiles<'a> {
    /// A panel-major C; its padding lanes are written too.
    pub fn panels(mut c: PanelsMut<'a>) -> Self {
        let (rows, lanes) = (c.rows(), c.lanes().next_multiple_of(LANES));
        let start = c.data().as_mut_ptr();
        let panel_stride = rows * LANES;
        Self { start, row_stride: LANES, panel_stride, rows, lanes, _borrow: PhantomData }
    }

    /// A row-major C.
    pub fn row_major(mut c: MatMut<'a>) -> Self {
        let (rows, lanes, row_stride) = (c.rows(), c.cols(), c.stride());
        let start = c.data().as_mut_ptr();
        Self { start, row_stride, panel_stride: LANES, rows, lanes, _borrow: PhantomData }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn panels_count(&self) -> usize {
        self.lanes.div_ceil(LANES)
    }

    /// Calls `work` in parallel for blocks of `mc` rows × `nc` panels that cover C.
    pub fn for_each_block(
        self,
        pool: &Pool,
        mc: usize,
        nc: usize,
        work: impl Fn(Block) + Sync + Send,
    ) {
        let (rows, panels) = (self.rows, self.panels_count());
        let blocks = panels.div_ceil(nc);
        // The closure borrows `tiles` whole: its Sync covers the raw pointer inside.
        let tiles = &self;
        pool.for_each(rows.div_ceil(mc) * blocks, |task| {
            let (row, panel) = (task / blocks * mc, task % blocks * nc);
            work(Block {
                tiles,
                rows: row..rows.min(row + mc),
                panels: panel..panels.min(panel + nc),
            });
        });
    }
}

/// A part of C that one thread has for itself.
pub(crate) struct Block<'t> {
    tiles: &'t Tiles<'t>,
    rows: Range<usize>,
    panels: Range<usize>,
}

impl Block<'_> {
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    pub fn panels(&self) -> Range<usize> {
        self.panels.clone()
    }

    /// The address of (row, panel) and how many lanes it has.
    #[inline(always)]
    fn at(&self, row: usize, panel: usize) -> (*mut f32, usize) {
        assert!(self.rows.contains(&row) && self.panels.contains(&panel));
        let Tiles { start, row_stride, panel_stride, lanes, .. } = *self.tiles;
        let offset = row * row_stride + panel * panel_stride;
        (start.wrapping_add(offset), (lanes - panel * LANES).min(LANES))
    }

    /// Reads 16 lanes; those beyond the edge are zero.
    #[inline(always)]
    pub fn load<S: Simd>(&self, s: S, row: usize, panel: usize) -> S::F {
        let (at, width) = self.at(row, panel);
        // SAFETY: `at` checked that (row, panel) lies in this block, which lies inside the
        // borrowed C and overlaps no other block; `width` values of it belong to C.
        unsafe {
            if width == LANES {
                return s.load(&*at.cast::<[f32; LANES]>());
            }
            let mut edge = [0.0; LANES];
            edge[..width].copy_from_slice(std::slice::from_raw_parts(at, width));
            s.load(&edge)
        }
    }

    /// Writes 16 lanes; those beyond the edge are dropped.
    #[inline(always)]
    pub fn store<S: Simd>(&mut self, s: S, row: usize, panel: usize, v: S::F) {
        let (at, width) = self.at(row, panel);
        // SAFETY: as in `load`; the block is borrowed exclusively.
        unsafe {
            if width == LANES {
                return s.store(v, &mut *at.cast::<[f32; LANES]>());
            }
            let mut edge = [0.0; LANES];
            s.store(v, &mut edge);
            std::slice::from_raw_parts_mut(at, width).copy_from_slice(&edge[..width]);
        }
    }
}
