//! Bringing operands into panel order.

use crate::Context;
use crate::isa::{Kernel, dispatch};
use crate::matrix::{MatRef, Panels, PanelsMut};
use crate::pool::chunks;
use crate::simd::{LANES, Simd};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Panels of a row-major source: 16 columns, or 16 rows, become a panel's lanes.
pub(crate) struct Pack<'a> {
    pub src: MatRef<'a>,
    /// Whether the source's rows are the panels' lanes.
    pub transposed: bool,
}

impl Pack<'_> {
    /// Rows and lanes of the panel matrix.
    pub fn shape(&self) -> (usize, usize) {
        let (rows, cols) = (self.src.rows(), self.src.cols());
        if self.transposed { (cols, rows) } else { (rows, cols) }
    }

    /// Rows `k` of `panel`, to `out` [k, 16]; padding lanes become zero.
    #[inline(always)]
    pub fn panel<S: Simd>(&self, s: S, panel: usize, k: Range<usize>, out: &mut [f32]) {
        let (_, lanes) = self.shape();
        let width = LANES.min(lanes - panel * LANES);
        let rows = out.as_chunks_mut::<LANES>().0;
        if !self.transposed {
            for (row, out) in k.zip(rows) {
                s.store(s.load_part(&self.src.row(row)[panel * LANES..]), out);
            }
            return;
        }
        for (block, rows) in rows.chunks_mut(LANES).enumerate() {
            let first = k.start + block * LANES;
            let mut values = [s.splat(0.0); LANES];
            for (lane, values) in values.iter_mut().enumerate().take(width) {
                *values = s.load_part(&self.src.row(panel * LANES + lane)[first..]);
            }
            let values = s.transpose(values);
            for (row, v) in rows.iter_mut().zip(values) {
                s.store(v, row);
            }
        }
    }
}

/// Most panels of B that a task of the row-major product packs at a time,
pub(crate) const PACKED_PANELS: usize = 3;
/// and their depth: together 48 KiB.
pub(crate) const PACKED_DEPTH: usize = 256;

/// A task's own panels of B, on its stack, aligned to cache lines.
#[repr(align(64))]
pub(crate) struct PackedB {
    panels: [MaybeUninit<[f32; PACKED_DEPTH * LANES]>; PACKED_PANELS],
    /// Depth of each panel that is initialised.
    depths: [usize; PACKED_PANELS],
}

impl PackedB {
    #[inline(always)]
    pub fn new() -> Self {
        Self {
            panels: [const { MaybeUninit::uninit() }; PACKED_PANELS],
            depths: [0; PACKED_PANELS],
        }
    }

    /// Panel `i`, made `depth` deep and zeroed.
    #[inline(always)]
    pub fn reset(&mut self, i: usize, depth: usize) -> &mut [f32] {
        assert!(depth <= PACKED_DEPTH);
        self.depths[i] = depth;
        let start = self.panels[i].as_mut_ptr().cast::<f32>();
        // SAFETY: the first depth · 16 values of the panel exist and are written before they are
        // borrowed.
        unsafe {
            start.write_bytes(0, depth * LANES);
            std::slice::from_raw_parts_mut(start, depth * LANES)
        }
    }

    /// Panel `i` [depth, 16].
    #[inline(always)]
    pub fn panel(&self, i: usize) -> &[f32] {
        let start = self.panels[i].as_ptr().cast::<f32>();
        // SAFETY: `reset` has initialised this many values.
        unsafe { std::slice::from_raw_parts(start, self.depths[i] * LANES) }
    }
}

/// One panel of a [`Pack`], whole.
struct PackPanel<'a> {
    pack: &'a Pack<'a>,
    panel: usize,
    out: &'a mut [f32],
}

impl Kernel for PackPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.pack.panel(s, self.panel, 0..self.pack.shape().0, self.out);
    }
}

/// dst ← all panels of `pack`.
pub(crate) fn pack(context: &Context, pack: &Pack, mut dst: PanelsMut) {
    let panel_len = (dst.rows() * LANES).max(1);
    let cost = 2 * dst.data().len() / LANES;
    context.pool.for_each_part(chunks(dst.data(), panel_len), cost, |panel, out| {
        dispatch(context.isa, PackPanel { pack, panel, out });
    });
}

/// dst [lanes, rows] ← srcᵀ; both panel matrices. Padding lanes of `dst` become zero.
///
/// # Panics
/// Unless `dst` has the transposed shape.
pub fn transpose(context: &Context, src: Panels, mut dst: PanelsMut) {
    assert_eq!((dst.rows(), dst.lanes()), (src.lanes(), src.rows()), "shape of the transpose");
    let panel_len = (dst.rows() * LANES).max(1);
    let cost = 2 * dst.data().len() / LANES;
    context.pool.for_each_part(chunks(dst.data(), panel_len), cost, |panel, out| {
        dispatch(context.isa, TransposePanel { src, panel, out });
    });
}

/// 16 rows of `src` as a panel.
struct TransposePanel<'a> {
    src: Panels<'a>,
    panel: usize,
    out: &'a mut [f32],
}

impl Kernel for TransposePanel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let first = self.panel * LANES;
        let width = LANES.min(self.src.rows() - first);
        for (panel, out) in self.out.chunks_mut(LANES * LANES).enumerate() {
            let mut values = [s.splat(0.0); LANES];
            for (i, values) in values.iter_mut().enumerate().take(width) {
                *values = s.load(self.src.row(first + i, panel));
            }
            let values = s.transpose(values);
            for (row, v) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(values) {
                s.store(v, row);
            }
        }
    }
}
