//! The first layer's input: pixels to f32 panels, with dropout.
//!
//! Bias, ReLU and the dropout of hidden layers have no pass of their own: they are epilogues of
//! [`crate::gemm`].

use crate::Context;
use crate::isa::{Kernel, dispatch};
use crate::matrix::PanelsMut;
use crate::random::Dropout;
use crate::simd::{LANES, Simd};

/// X [D, B] ← dropout(pixel · scale + shift) from `pixels` [B, D], row-major; padding is zero.
///
/// The product and the sum are rounded separately, as NumPy rounds them.
///
/// # Panics
/// Unless `pixels` holds B · D values.
pub fn load_pixels(
    context: &Context,
    pixels: &[u8],
    scale: f32,
    shift: f32,
    dropout: Option<Dropout>,
    mut x: PanelsMut,
) {
    let (size, batch) = (x.rows(), x.lanes());
    assert_eq!(pixels.len(), size * batch, "pixels of the batch");
    let len = (size * LANES).max(1);
    context.pool.for_each_chunk(x.data(), len, |panel, out| {
        let examples = &pixels[panel * LANES * size..batch.min((panel + 1) * LANES) * size];
        let first = panel * LANES;
        dispatch(context.isa, Load { examples, size, scale, shift, dropout, first, out });
    });
}

struct Load<'a> {
    examples: &'a [u8],
    size: usize,
    scale: f32,
    shift: f32,
    dropout: Option<Dropout>,
    first: usize,
    out: &'a mut [f32],
}

impl Kernel for Load<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut examples: [&[u8]; LANES] = [&[]; LANES];
        for (slot, example) in examples.iter_mut().zip(self.examples.chunks_exact(self.size)) {
            *slot = example;
        }
        for (row, out) in self.out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mut values = [0.0; LANES];
            for (value, example) in values.iter_mut().zip(examples) {
                if let Some(&pixel) = example.get(row) {
                    *value = f32::from(pixel) * self.scale + self.shift;
                }
            }
            let mut v = s.load(&values);
            if let Some(dropout) = &self.dropout {
                v = dropout.apply(s, row, self.first, v);
            }
            s.store(v, out);
        }
    }
}
