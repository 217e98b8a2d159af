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

/// How values become inputs.
#[derive(Clone, Copy, Debug)]
pub enum Scaling<'a> {
    /// x = value · scale + shift, the same for all: pixels.
    Uniform {
        /// Factor.
        scale: f32,
        /// Summand.
        shift: f32,
    },
    /// xⱼ = (valueⱼ − meanⱼ) · scaleⱼ, each `[D]`: features. The difference comes first: it is exact
    /// where a value lies near a mean that is large.
    Each {
        /// Subtrahend.
        mean: &'a [f32],
        /// Factor.
        scale: &'a [f32],
    },
}

impl Scaling<'_> {
    /// Values as they are.
    pub const NONE: Scaling<'static> = Scaling::Uniform { scale: 1.0, shift: 0.0 };

    /// 16 values from position `at` of an example on.
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, at: usize, v: S::F) -> S::F {
        match *self {
            Scaling::Uniform { scale, shift } => s.add(s.mul(v, s.splat(scale)), s.splat(shift)),
            Scaling::Each { mean, scale } => {
                s.mul(s.sub(v, load_from(s, mean, at)), load_from(s, scale, at))
            }
        }
    }
}

/// 16 of `values` from `at` on, zeros behind the last.
#[inline(always)]
fn load_from<S: Simd, T: Value>(s: S, values: &[T], at: usize) -> S::F {
    let rest = &values[at..];
    match rest.first_chunk() {
        Some(values) => T::load(s, values),
        None => {
            let mut edge = [T::default(); LANES];
            edge[..rest.len()].copy_from_slice(rest);
            T::load(s, &edge)
        }
    }
}

/// X [D, B] ← dropout(scaling(value)); padding is zero.
///
/// `example(i, space)` returns the D values of example i, its own or written to `space`, a part of
/// `staging` [B, D]; threads gather and convert 16 examples at a time, while they are in cache.
/// The product and the sum, or difference, are rounded separately, as NumPy rounds them.
///
/// # Panics
/// If `staging` is shorter than B · D, or an example or the scaling does not have D values.
pub fn load<'s, T: Value>(
    context: &Context,
    example: impl Fn(usize, &'s mut [T]) -> &'s [T] + Sync,
    staging: &'s mut [T],
    scaling: Scaling,
    dropout: Option<Dropout>,
    mut x: PanelsMut,
) {
    let (size, batch) = (x.rows(), x.lanes());
    if let Scaling::Each { mean, scale } = scaling {
        assert_eq!((mean.len(), scale.len()), (size, size), "a mean and a scale for each value");
    }
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
        dispatch(context.isa, Load { examples, scaling, dropout, first, out });
    });
}

struct Load<'a, T> {
    /// Empty in padding lanes.
    examples: [&'a [T]; LANES],
    scaling: Scaling<'a>,
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
                let v = load_from(s, example, block * LANES);
                *values = self.scaling.apply(s, block * LANES, v);
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
