//! Bringing operands into panel order.

use crate::Context;
use crate::matrix::{MatRef, Panels, PanelsMut};
use crate::simd::LANES;

/// Panels packed together: 256 consecutive bytes of a source row are used at once.
const GROUP: usize = 4;

/// dst [k, n] ← src [k, n], row-major.
pub(crate) fn pack(context: &Context, src: MatRef, mut dst: PanelsMut) {
    let (rows, lanes) = (src.rows(), src.cols());
    let panel_len = (rows * LANES).max(1);
    context.pool.for_each_chunk(dst.data(), GROUP * panel_len, |group, out| {
        for row in 0..rows {
            for (i, out) in out.chunks_exact_mut(panel_len).enumerate() {
                let src = &src.row(row)[(group * GROUP + i) * LANES..];
                let out = &mut out.as_chunks_mut::<LANES>().0[row];
                match src.first_chunk::<LANES>() {
                    Some(src) => *out = *src,
                    None => {
                        *out = [0.0; LANES];
                        out[..lanes % LANES].copy_from_slice(src);
                    }
                }
            }
        }
    });
}

/// dst [k, n] ← srcᵀ, where src is row-major [n, k].
pub(crate) fn pack_transposed(context: &Context, src: MatRef, mut dst: PanelsMut) {
    let (rows, lanes) = (src.cols(), src.rows());
    let panel_len = (rows * LANES).max(1);
    context.pool.for_each_chunk(dst.data(), panel_len, |panel, out| {
        let first = panel * LANES;
        let width = LANES.min(lanes - first);
        let mut block = [[0.0; LANES]; LANES];
        for (i, out) in out.chunks_mut(LANES * LANES).enumerate() {
            let out = out.as_chunks_mut::<LANES>().0;
            for (lane, block) in block[..width].iter_mut().enumerate() {
                let src = &src.row(first + lane)[i * LANES..][..out.len()];
                block[..out.len()].copy_from_slice(src);
            }
            transpose_block(&block, out);
        }
    });
}

/// dst [lanes, rows] ← srcᵀ; both panel matrices. Padding lanes of `dst` become zero.
///
/// # Panics
/// Unless `dst` has the transposed shape.
pub fn transpose(context: &Context, src: Panels, mut dst: PanelsMut) {
    assert_eq!((dst.rows(), dst.lanes()), (src.lanes(), src.rows()), "shape of the transpose");
    let panel_len = (dst.rows() * LANES).max(1);
    context.pool.for_each_chunk(dst.data(), GROUP * panel_len, |group, out| {
        for (i, out) in out.chunks_mut(panel_len).enumerate() {
            let first = (group * GROUP + i) * LANES;
            let width = LANES.min(src.rows() - first);
            let mut block = [[0.0; LANES]; LANES];
            for (panel, out) in out.chunks_mut(LANES * LANES).enumerate() {
                for (lane, block) in block[..width].iter_mut().enumerate() {
                    *block = *src.row(first + lane, panel);
                }
                transpose_block(&block, out.as_chunks_mut::<LANES>().0);
            }
        }
    });
}

/// out[j][i] ← block[i][j] for the rows that `out` has.
fn transpose_block(block: &[[f32; LANES]; LANES], out: &mut [[f32; LANES]]) {
    for (j, out) in out.iter_mut().enumerate().take(LANES) {
        for (out, row) in out.iter_mut().zip(block) {
            *out = row[j];
        }
    }
}
