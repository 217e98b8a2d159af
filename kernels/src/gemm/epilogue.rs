//! What is done to a tile of C while it is still in registers.

use crate::matrix::Panels;
use crate::random::Dropout;
use crate::simd::{LANES, Simd};

/// A function of one finished vector of C: `row` and 16 lanes of `panel`.
pub(crate) trait Epilogue: Sync {
    /// Must be `#[inline(always)]`.
    fn apply<S: Simd>(&self, s: S, row: usize, panel: usize, c: S::F) -> S::F;
}

/// C as it is.
pub(crate) struct Identity;

impl Epilogue for Identity {
    #[inline(always)]
    fn apply<S: Simd>(&self, _: S, _: usize, _: usize, c: S::F) -> S::F {
        c
    }
}

/// A layer's output: Y = dropout(relu(Z + b)); b has one value per row.
pub(crate) struct Activate<'a> {
    pub bias: &'a [f32],
    pub relu: bool,
    pub dropout: Option<Dropout>,
}

impl Epilogue for Activate<'_> {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, row: usize, panel: usize, c: S::F) -> S::F {
        let mut y = s.add(c, s.splat(self.bias[row]));
        if self.relu {
            // NaN is the second operand, so it stays NaN and is noticed in the loss.
            y = s.max(s.splat(0.0), y);
        }
        match &self.dropout {
            Some(dropout) => dropout.apply(s, row, panel * LANES, y),
            None => y,
        }
    }
}

/// The gradient through relu and dropout: dZ = dY · scale where Y > 0, else 0.
///
/// Y is the layer's output after dropout: it is positive exactly where the unit was active and
/// kept, so no mask needs to be stored.
pub(crate) struct ActivateGradient<'a> {
    pub y: Panels<'a>,
    pub scale: f32,
}

impl Epilogue for ActivateGradient<'_> {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, row: usize, panel: usize, c: S::F) -> S::F {
        let active = s.gt(s.load(self.y.row(row, panel)), s.splat(0.0));
        s.select(active, s.mul(c, s.splat(self.scale)), s.splat(0.0))
    }
}
