//! The first layer's input: examples to f32 panels, with dropout.

use crate::Context;
use crate::isa::{Kernel, dispatch};
use crate::matrix::PanelsMut;
use crate::pool::{Parts, chunks};
use crate::random::Dropout;
use crate::simd::{LANES, Simd};

/// What inputs are stored as.
pub trait Value: Copy + Default + Send + Sync {
    /// 16 of them as numbers.
    fn load<S: Simd>(s: S, values: &[Self; LANES]) -> S::F;
}

impl Value for u8 {
    #[inline(always)]
    fn load<S: Simd>(s: S, values: &[u8; LANES]) -> S::F {
        s.load_bytes(values)
    }
}

impl Value for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, values: &[f32; LANES]) -> S::F {
        s.load(values)
    }
}

/// X [D, B] ← dropout(value · scale + shift); padding is zero.
///
/// `example(i, space)` returns the D values of example i, its own or written to `space`, a part of
/// `staging` [B, D]; threads gather and convert 16 examples at a time, while they are in cache.
/// The product and the sum are rounded separately, as NumPy rounds them.
///
/// # Panics
/// If `staging` is shorter than B · D or an example does not have D values.
pub fn load<'s, T: Value>(
    context: &Context,
    example: impl Fn(usize, &'s mut [T]) -> &'s [T] + Sync,
    staging: &'s mut [T],
    scale: f32,
    shift: f32,
    dropout: Option<Dropout>,
    mut x: PanelsMut,
) {
    let (size, batch) = (x.rows(), x.lanes());
    if size == 0 {
        return;
    }
    let staging = chunks(&mut staging[..size * batch], size * LANES);
    let cost = 8 * x.data().len() / LANES;
    let parts = chunks(x.data(), size * LANES).zip(staging);
    context.pool.for_each_part(parts, cost, |panel, (out, staging)| {
        let first = panel * LANES;
        let mut examples: [&[T]; LANES] = [&[]; LANES];
        for (i, (slot, space)) in
            examples.iter_mut().zip(staging.chunks_exact_mut(size)).enumerate()
        {
            *slot = example(first + i, space);
            assert_eq!(slot.len(), size, "values of example {}", first + i);
        }
        dispatch(context.isa, Load { examples, scale, shift, dropout, first, out });
    });
}

struct Load<'a, T> {
    /// Empty in padding lanes.
    examples: [&'a [T]; LANES],
    scale: f32,
    shift: f32,
    dropout: Option<Dropout>,
    /// The first lane.
    first: usize,
    out: &'a mut [f32],
}

impl<T: Value> Kernel for Load<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.out.as_chunks_mut::<LANES>().0;
        for (block, rows) in rows.chunks_mut(LANES).enumerate() {
            let mut values = [s.splat(0.0); LANES];
            for (values, example) in values.iter_mut().zip(self.examples) {
                if example.is_empty() {
                    continue;
                }
                let stored = &example[block * LANES..];
                let v = match stored.first_chunk() {
                    Some(stored) => T::load(s, stored),
                    None => {
                        let mut edge = [T::default(); LANES];
                        edge[..stored.len()].copy_from_slice(stored);
                        T::load(s, &edge)
                    }
                };
                *values = s.add(s.mul(v, s.splat(self.scale)), s.splat(self.shift));
            }
            let values = s.transpose(values);
            for (i, (row, mut v)) in rows.iter_mut().zip(values).enumerate() {
                if let Some(dropout) = &self.dropout {
                    v = dropout.apply(s, block * LANES + i, self.first, v);
                }
                s.store(v, row);
            }
        }
    }
}
