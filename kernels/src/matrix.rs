//! Matrix views: row-major for the outside, panel-major for everything that is hot.
//!
//! A **panel matrix** [rows, lanes] is stored as `[lanes/16][rows][16]`: the lanes are cut into
//! panels of 16 and each panel is contiguous. The last panel is padded with zeros.
//!
//! | matrix | rows | lanes |
//! |---|---|---|
//! | weights W | inputs | outputs |
//! | activations, logits and their gradients | features | examples of the batch |
//!
//! With this pairing the forward pass and the input gradient read both operands as they lie in
//! memory; only the weight gradient needs one operand transposed (see [`crate::gemm`]).

use crate::simd::LANES;

/// Length in f32 of a panel matrix, padding included.
///
/// # Panics
/// If it exceeds the address space: a length that wrapped would let kernels write beside the memory.
pub const fn panel_len(rows: usize, lanes: usize) -> usize {
    let row = lanes.div_ceil(LANES).checked_mul(LANES).expect("a row of panels");
    row.checked_mul(rows).expect("a panel matrix that fits the address space")
}

/// A panel matrix [rows, lanes], read.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    data: &'a [f32],
    rows: usize,
    lanes: usize,
}

/// A panel matrix [rows, lanes], written.
pub struct PanelsMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    lanes: usize,
}

impl<'a> Panels<'a> {
    /// The first [`panel_len`] values of `data` as a matrix.
    ///
    /// # Panics
    /// If `data` is shorter than that.
    pub fn new(data: &'a [f32], rows: usize, lanes: usize) -> Self {
        let data = &data[..panel_len(rows, lanes)];
        Self { data, rows, lanes }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Lanes, without padding.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Panels of 16 lanes.
    pub fn panels(&self) -> usize {
        self.lanes.div_ceil(LANES)
    }

    /// All values, padding included.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// The 16 lanes of `row` in `panel`.
    #[inline(always)]
    pub fn row(&self, row: usize, panel: usize) -> &'a [f32; LANES] {
        let start = (panel * self.rows + row) * LANES;
        self.data[start..].first_chunk().expect("a row within the matrix")
    }

    /// One value.
    pub fn get(&self, row: usize, lane: usize) -> f32 {
        self.row(row, lane / LANES)[lane % LANES]
    }

    /// Copies to `out` as row-major [lanes, rows]: PyTorch's order for weights [outputs, inputs],
    /// and one example after the other for activations.
    ///
    /// # Panics
    /// If `out` does not hold rows · lanes values.
    pub fn to_lane_major(&self, out: &mut [f32]) {
        assert_eq!(out.len(), self.rows * self.lanes, "values in the lane-major copy");
        let rows = self.rows.max(1);
        let panels = self.data.chunks_exact(rows * LANES);
        for (panel, out) in panels.zip(out.chunks_mut(rows * LANES)) {
            let panel = panel.as_chunks::<LANES>().0;
            for (lane, out) in out.chunks_exact_mut(rows).enumerate() {
                out.iter_mut().zip(panel).for_each(|(out, row)| *out = row[lane]);
            }
        }
    }
}

impl<'a> PanelsMut<'a> {
    /// The first [`panel_len`] values of `data` as a matrix.
    ///
    /// # Panics
    /// If `data` is shorter than that.
    pub fn new(data: &'a mut [f32], rows: usize, lanes: usize) -> Self {
        let data = &mut data[..panel_len(rows, lanes)];
        Self { data, rows, lanes }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Lanes, without padding.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Reads the matrix.
    pub fn as_ref(&self) -> Panels<'_> {
        Panels { data: self.data, rows: self.rows, lanes: self.lanes }
    }

    /// The same matrix, for a shorter time.
    pub fn reborrow(&mut self) -> PanelsMut<'_> {
        PanelsMut { data: self.data, rows: self.rows, lanes: self.lanes }
    }

    /// All values, padding included.
    pub fn data(&mut self) -> &mut [f32] {
        self.data
    }

    /// Fills from row-major [lanes, rows]; padding lanes become zero. The inverse of
    /// [`Panels::to_lane_major`].
    ///
    /// # Panics
    /// If `values` does not hold rows · lanes values.
    pub fn copy_from_lane_major(&mut self, values: &[f32]) {
        assert_eq!(values.len(), self.rows * self.lanes, "values in the lane-major copy");
        let rows = self.rows.max(1);
        let panels = self.data.chunks_exact_mut(rows * LANES);
        for (panel, values) in panels.zip(values.chunks(rows * LANES)) {
            panel.fill(0.0);
            let panel = panel.as_chunks_mut::<LANES>().0;
            for (lane, values) in values.chunks_exact(rows).enumerate() {
                panel.iter_mut().zip(values).for_each(|(row, value)| row[lane] = *value);
            }
        }
    }
}

/// A row-major matrix [rows, cols] whose rows start `stride` values apart.
#[derive(Clone, Copy)]
pub struct MatRef<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    stride: usize,
}

/// A row-major matrix, written.
pub struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    stride: usize,
}

/// Panics unless a row-major matrix of this shape fits `len` values.
fn check(len: usize, rows: usize, cols: usize, stride: usize) {
    assert!(cols <= stride, "{cols} columns do not fit a row stride of {stride}");
    let need = match rows.checked_sub(1) {
        None => Some(0),
        Some(above) => above.checked_mul(stride).and_then(|start| start.checked_add(cols)),
    };
    let need = need.expect("a matrix that fits the address space");
    assert!(
        len >= need,
        "a {rows}×{cols} matrix of stride {stride} needs {need} values, found {len}"
    );
}

impl<'a> MatRef<'a> {
    /// A view of `data`.
    ///
    /// # Panics
    /// If the shape does not fit `data`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        check(data.len(), rows, cols, stride);
        Self { data, rows, cols, stride }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// One row.
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.stride..][..self.cols]
    }
}

impl<'a> MatMut<'a> {
    /// A view of `data`.
    ///
    /// # Panics
    /// If the shape does not fit `data`.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> Self {
        check(data.len(), rows, cols, stride);
        Self { data, rows, cols, stride }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Values between the starts of two rows.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// All values from the first to the last of the matrix.
    pub fn data(&mut self) -> &mut [f32] {
        self.data
    }
}
