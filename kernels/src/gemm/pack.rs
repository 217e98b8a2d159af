//! Bringing operands into panel order.

use crate::Context;
use crate::matrix::{MatRef, Panels, PanelsMut};
use crate::simd::LANES;

/// dst [k, n] ← src [k, n], row-major.
pub(crate) fn pack(context: &Context, src: MatRef, mut dst: PanelsMut) {
    let (rows, lanes) = (src.rows(), src.cols());
    let len = (rows * LANES).max(1);
    context.pool.for_each_chunk(dst.data(), len, |panel, out| {
        let first = panel * LANES;
        let width = LANES.min(lanes - first);
        for (row, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let src = &src.row(row)[first..first + width];
            match src.first_chunk::<LANES>() {
                Some(src) => *out = *src,
                None => {
                    *out = [0.0; LANES];
                    out[..width].copy_from_slice(src);
                }
            }
        }
    });
}

/// dst [k, n] ← srcᵀ, where src is row-major [n, k].
pub(crate) fn pack_transposed(context: &Context, src: MatRef, mut dst: PanelsMut) {
    let (rows, lanes) = (src.cols(), src.rows());
    let len = (rows * LANES).max(1);
    context.pool.for_each_chunk(dst.data(), len, |panel, out| {
        let first = panel * LANES;
        let width = LANES.min(lanes - first);
        // The lanes' rows advance together, so each cache line of `src` is used up at once.
        let sources: [&[f32]; LANES] =
            std::array::from_fn(|i| if i < width { src.row(first + i) } else { &[] });
        for (row, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            for (out, source) in out.iter_mut().zip(sources) {
                *out = source.get(row).copied().unwrap_or(0.0);
            }
        }
    });
}

/// dst [lanes, rows] ← srcᵀ; both panel matrices. Padding lanes of `dst` become zero.
///
/// # Panics
/// Unless `dst` has the transposed shape.
pub fn transpose(context: &Context, src: Panels, mut dst: PanelsMut) {
    assert_eq!((dst.rows(), dst.lanes()), (src.lanes(), src.rows()), "shape of the transpose");
    let len = (dst.rows() * LANES).max(1);
    context.pool.for_each_chunk(dst.data(), len, |panel, out| {
        let first = panel * LANES;
        let width = LANES.min(src.rows() - first);
        for (block, out) in out.chunks_mut(LANES * LANES).enumerate() {
            let out = out.as_chunks_mut::<LANES>().0;
            for i in 0..LANES {
                let values = if i < width { src.row(first + i, block) } else { &[0.0; LANES] };
                for (out, value) in out.iter_mut().zip(values) {
                    out[i] = *value;
                }
            }
        }
    });
}
