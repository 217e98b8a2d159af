//! The output of a GEMM, cut into disjoint blocks that threads fill.

use crate::bf16::{Along, Copies, Operand, Side, Source, TILE, pack_tile, words};
use crate::isa::Kernel;
use crate::matrix::{MatMut, PanelsMut};
use crate::pool::Pool;
use crate::simd::{LANES, Simd};
use std::marker::PhantomData;
use std::ops::Range;

/// P planes of one geometry, a grid of rows × panels of 16 lanes, panel-major or row-major: C
/// alone, or the weights with their moments.
pub(crate) struct Tiles<'a, const P: usize> {
    starts: [*mut f32; P],
    /// Values from one row of a panel to the next, and from one panel to the next.
    row_stride: usize,
    panel_stride: usize,
    rows: usize,
    /// Lanes that hold values.
    lanes: usize,
    /// Lanes that may be written: those, in a row-major C, and padding as well in a panel.
    written: usize,
    /// Of plane 0, once it is finished.
    copies: [Option<Words>; 2],
    _borrow: PhantomData<&'a mut [f32]>,
}

/// An [`Operand`] that threads fill.
#[derive(Clone, Copy)]
struct Words {
    along: Along,
    side: Side,
    start: *mut f32,
    /// Tiles of 16 of its rows or lanes.
    tiles: usize,
}

// SAFETY: the values are reached only through `Block`s, which `for_each_block` makes disjoint.
unsafe impl<const P: usize> Sync for Tiles<'_, P> {}

impl<'a> Tiles<'a, 1> {
    /// A row-major C.
    pub fn row_major(mut c: MatMut<'a>) -> Self {
        let (rows, lanes, row_stride) = (c.rows(), c.cols(), c.stride());
        let starts = [c.data().as_mut_ptr()];
        let (copies, _borrow) = Default::default();
        let (panel_stride, written) = (LANES, lanes);
        Self { starts, row_stride, panel_stride, rows, lanes, written, copies, _borrow }
    }
}

impl<'a, const P: usize> Tiles<'a, P> {
    /// Panel-major planes; their padding lanes are written too.
    ///
    /// # Panics
    /// If they differ in shape.
    pub fn panels(mut planes: [PanelsMut<'a>; P]) -> Self {
        let (rows, lanes) = (planes[0].rows(), planes[0].lanes());
        assert!(
            planes.iter().all(|p| (p.rows(), p.lanes()) == (rows, lanes)),
            "shapes of the planes"
        );
        let starts = planes.each_mut().map(|plane| plane.data().as_mut_ptr());
        let (row_stride, panel_stride) = (LANES, rows * LANES);
        let written = lanes.next_multiple_of(LANES);
        let (copies, _borrow) = Default::default();
        Self { starts, row_stride, panel_stride, rows, lanes, written, copies, _borrow }
    }

    /// The same with copies of plane 0.
    ///
    /// # Panics
    /// If one has too few words.
    pub fn with_copies(mut self, copies: Copies<'a>) -> Self {
        self.copies = copies.0.map(|operand| {
            let Operand { along, side, words: values } = operand?;
            let (depth, others) = along.of(self.rows, self.lanes);
            let tiles = words(depth) / LANES;
            assert!(values.len() >= others.div_ceil(LANES) * tiles * TILE, "words of an operand");
            Some(Words { along, side, start: values.as_mut_ptr(), tiles })
        });
        self
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn panels_count(&self) -> usize {
        self.lanes.div_ceil(LANES)
    }

    /// Calls `work` in parallel for blocks of at most `size` that cover C, whose values are sums of `depth`
    /// terms. Blocks begin at multiples of `unit`, of which `size` is one. Both are rows and panels.
    ///
    /// Each thread owns a range of the panels, if `by_panels`, or else of the rows, and goes
    /// through it once for each block of the other side: that side's operand stays in its L2. The
    /// ranges are as even as units allow, and each is cut evenly.
    pub fn for_each_block(
        self,
        pool: &Pool,
        (size, unit): ((usize, usize), (usize, usize)),
        by_panels: bool,
        depth: usize,
        work: impl Fn(Block<P>) + Sync,
    ) {
        // What is owned, and the other side, of (rows, panels); and back.
        let sides = |(rows, panels)| if by_panels { (panels, rows) } else { (rows, panels) };
        let threads = pool.threads();
        let (owned, other) = sides((self.rows, self.panels_count()));
        let ((owned_size, other_size), (unit, _)) = (sides(size), sides(unit));
        let units = owned.div_ceil(unit);
        let own = (units.div_ceil(threads) * unit).div_ceil(owned_size);
        let others = other.div_ceil(other_size);
        let cost = owned * other * depth;
        // The closure borrows `tiles` whole: its Sync covers the raw pointer inside.
        let tiles = &self;
        pool.for_each(threads * own * others, cost, |task| {
            let (thread, place) = (task / (own * others), task % (own * others));
            let first = thread * units / threads;
            let count = (thread + 1) * units / threads - first;
            let start = |block: usize| owned.min((first + count * block / own) * unit);
            let (block, other_start) = (place % own, place / own * other_size);
            let (start, end) = (start(block), start(block + 1));
            if start == end {
                return;
            }
            let (rows, panels) = sides((start, other_start));
            let (rows_end, panels_end) = sides((end, other.min(other_start + other_size)));
            work(Block { tiles, rows: rows..rows_end, panels: panels..panels_end });
        });
    }
}

/// A part of the planes that one thread has for itself.
pub(crate) struct Block<'t, const P: usize> {
    tiles: &'t Tiles<'t, P>,
    rows: Range<usize>,
    panels: Range<usize>,
}

impl<const P: usize> Block<'_, P> {
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    pub fn panels(&self) -> Range<usize> {
        self.panels.clone()
    }

    /// Row `row` of `panel`.
    #[inline(always)]
    pub fn row(&mut self, row: usize, panel: usize) -> Row<'_, P> {
        let mut rect = self.rect(row..row + 1, panel..panel + 1);
        let row = rect.next_row().and_then(|(_, mut panels)| panels.next_panel());
        row.expect("one row of one panel").1
    }

    /// `rows` of `panels`. The bounds are checked here and nowhere else.
    #[inline(always)]
    pub fn rect(&mut self, rows: Range<usize>, panels: Range<usize>) -> Rect<'_, P> {
        assert!(self.rows.start <= rows.start && rows.end <= self.rows.end);
        assert!(self.panels.start <= panels.start && panels.end <= self.panels.end);
        let Tiles { starts, row_stride, panel_stride, written, .. } = *self.tiles;
        let mut at = starts;
        for at in &mut at {
            *at = at.wrapping_add(rows.start * row_stride + panels.start * panel_stride);
        }
        let across = Across { at, panel_stride, panels, written, _borrow: PhantomData };
        Rect { rows, row_stride, across }
    }

    /// Asks for the cache lines of row `row` of each of `panels` in all planes, which are to be written. They
    /// need not exist.
    #[inline(always)]
    pub fn prefetch<S: Simd>(&self, s: S, row: usize, panels: Range<usize>) {
        let Tiles { starts, row_stride, panel_stride, .. } = *self.tiles;
        let first = row * row_stride + panels.start * panel_stride;
        for start in starts {
            for i in 0..panels.len() {
                s.prefetch_to_write(start.wrapping_add(first + i * panel_stride));
            }
        }
    }

    /// Writes the copies of plane 0, in a function of its own.
    ///
    /// # Panics
    /// If there are any, and the block does not begin and end at multiples of 32 rows and of two panels,
    /// or at the end of the planes.
    #[inline(always)]
    pub fn copy<S: Simd>(&mut self, s: S) {
        if self.tiles.copies.iter().any(Option::is_some) {
            s.call(CopyBlock(self));
        }
    }

    /// All rows of `panel` in a plane, which must be panel-major and wholly in this block.
    #[inline(always)]
    pub fn panel(&mut self, plane: usize, panel: usize) -> &mut [[f32; LANES]] {
        let Tiles { starts, row_stride, panel_stride, rows, .. } = *self.tiles;
        assert!(self.rows == (0..rows) && self.panels.contains(&panel) && row_stride == LANES);
        let start = starts[plane].wrapping_add(panel * panel_stride).cast();
        // SAFETY: the panel's rows lie one after the other in this block, which lies inside the
        // borrowed planes, overlaps no other block and is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(start, rows) }
    }
}

/// [`Block::copy`].
struct CopyBlock<'b, 't, const P: usize>(&'b mut Block<'t, P>);

impl<const P: usize> Kernel for CopyBlock<'_, '_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const ROWS: usize = 2 * LANES;
        let block = self.0;
        let (rows, panels) = (block.rows(), block.panels());
        let whole = |end: usize, all: usize, of: usize| end == all || end.is_multiple_of(of);
        assert!(rows.start.is_multiple_of(ROWS) && panels.start.is_multiple_of(2));
        assert!(whole(rows.end, block.tiles.rows, ROWS));
        assert!(whole(panels.end, block.tiles.panels_count(), 2));
        for Words { along, side, start, tiles } in block.tiles.copies.into_iter().flatten() {
            let (high, wide) = if along == Along::Rows { (ROWS, 1) } else { (LANES, 2) };
            for panel in panels.clone().step_by(wide) {
                for row in rows.clone().step_by(high) {
                    let at = (row / high, panel / wide);
                    let (k, others) = along.of(at.0, at.1);
                    let out: *mut [f32; TILE] =
                        start.wrapping_add((others * tiles + k) * TILE).cast();
                    // SAFETY: `with_copies` saw that the operand has this tile, and no other block,
                    // each of whole tiles, has it.
                    pack_tile(s, block, along, side, at, unsafe { &mut *out });
                }
            }
        }
    }
}

impl<const P: usize> Source for Block<'_, P> {
    fn end(&self) -> (usize, usize) {
        (self.rows.end, self.tiles.lanes.min(self.panels.end * LANES))
    }

    #[inline(always)]
    fn load<S: Simd>(&mut self, s: S, row: usize, panel: usize) -> S::F {
        self.row(row, panel).load(s, 0)
    }
}

/// Rows of a block, one after the other.
pub(crate) struct Rect<'b, const P: usize> {
    rows: Range<usize>,
    row_stride: usize,
    across: Across<'b, P>,
}

// Methods of their own, not iterators: those hand themselves to closures, which are compiled without
// the ISA's features.
impl<'b, const P: usize> Rect<'b, P> {
    /// The next row and its number.
    #[inline(always)]
    pub fn next_row(&mut self) -> Option<(usize, Across<'b, P>)> {
        if self.rows.start >= self.rows.end {
            return None;
        }
        let Across { at, panel_stride, ref panels, written, .. } = self.across;
        let panels = panels.clone();
        let row = Across { at, panel_stride, panels, written, _borrow: PhantomData };
        for at in &mut self.across.at {
            *at = at.wrapping_add(self.row_stride);
        }
        self.rows.start += 1;
        Some((self.rows.start - 1, row))
    }
}

/// A row of one panel after the other.
pub(crate) struct Across<'b, const P: usize> {
    at: [*mut f32; P],
    panel_stride: usize,
    panels: Range<usize>,
    written: usize,
    _borrow: PhantomData<&'b mut [f32]>,
}

impl<'b, const P: usize> Across<'b, P> {
    /// That of the next panel, and its number.
    #[inline(always)]
    pub fn next_panel(&mut self) -> Option<(usize, Row<'b, P>)> {
        if self.panels.start >= self.panels.end {
            return None;
        }
        let (at, width) = (self.at, self.written - self.panels.start * LANES);
        for at in &mut self.at {
            *at = at.wrapping_add(self.panel_stride);
        }
        self.panels.start += 1;
        Some((self.panels.start - 1, Row { at, width: width.min(LANES), _borrow: PhantomData }))
    }
}

/// 16 lanes of a row in each of P planes.
pub(crate) struct Row<'b, const P: usize> {
    at: [*mut f32; P],
    /// Lanes that exist.
    width: usize,
    _borrow: PhantomData<&'b mut [f32]>,
}

impl<const P: usize> Row<'_, P> {
    /// Whether all lanes exist: where planes are several they are panels, whose padding is written.
    #[inline(always)]
    fn is_whole(&self) -> bool {
        P > 1 || self.width == LANES
    }

    /// Reads; lanes beyond the edge are zero.
    #[inline(always)]
    pub fn load<S: Simd>(&self, s: S, plane: usize) -> S::F {
        let at = self.at[plane];
        // SAFETY: `Block::rect` checked that the row lies in its block, which lies inside the
        // borrowed planes and overlaps no other block; `width` lanes of it belong to the plane, 16
        // of one in panels.
        unsafe {
            if self.is_whole() {
                return s.load(&*at.cast::<[f32; LANES]>());
            }
            s.load_part(std::slice::from_raw_parts(at, self.width))
        }
    }

    /// Writes; lanes beyond the edge are dropped.
    #[inline(always)]
    pub fn store<S: Simd>(&mut self, s: S, plane: usize, v: S::F) {
        let at = self.at[plane];
        // SAFETY: as in `load`; the row is borrowed exclusively.
        unsafe {
            if self.is_whole() {
                return s.store(v, &mut *at.cast::<[f32; LANES]>());
            }
            s.store_part(v, std::slice::from_raw_parts_mut(at, self.width));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buffer, Context, Isa, panel_len};
    use std::sync::Mutex;

    #[test]
    fn blocks_cover_everything_once_and_threads_have_even_shares() {
        let units = [(16, 1), (32, 2)];
        for (rows, lanes, threads) in [(1, 1, 1), (1200, 1200, 2), (784, 10, 3), (33, 500, 2)] {
            for (unit, by_panels, blocks) in units.into_iter().flat_map(|unit| {
                [(unit, true, (96, 6)), (unit, false, (96, 6)), (unit, true, (unit.0, unit.1))]
            }) {
                let context = Context::new(Isa::Portable, threads).unwrap();
                let mut c = Buffer::zeroed(panel_len(rows, lanes));
                let tiles = Tiles::panels([PanelsMut::new(&mut c, rows, lanes)]);
                let panels = tiles.panels_count();
                let found = Mutex::new(Vec::new());
                // So many terms that the threads share the work.
                tiles.for_each_block(&context.pool, (blocks, unit), by_panels, 1 << 20, |block| {
                    found.lock().unwrap().push((block.rows(), block.panels()));
                });
                let found = found.into_inner().unwrap();
                let mut times = vec![0; rows * panels];
                for (r, p) in &found {
                    assert!(r.len() <= blocks.0 && p.len() <= blocks.1, "{found:?}");
                    assert!(r.start % unit.0 == 0 && p.start % unit.1 == 0, "{found:?}");
                    r.clone().for_each(|r| p.clone().for_each(|p| times[r * panels + p] += 1));
                }
                assert!(times.iter().all(|&times| times == 1), "{found:?}");
                // The ranges of the threads begin where even shares do, to a unit.
                let (all, unit) = if by_panels { (panels, unit.1) } else { (rows, unit.0) };
                for thread in 0..threads {
                    let start = thread * all.div_ceil(unit) / threads * unit;
                    assert!((start * threads).abs_diff(thread * all) <= unit * threads);
                    let begins = |(r, p): &(Range<usize>, Range<usize>)| {
                        start == if by_panels { p.start } else { r.start }
                    };
                    assert!(start >= all || found.iter().any(begins), "{start}: {found:?}");
                }
            }
        }
    }
}
