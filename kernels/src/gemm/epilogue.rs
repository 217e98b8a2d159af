//! What is done to a finished tile of C, row by row, while it is in the nearest cache.

use super::tiles::Block;
use crate::matrix::Panels;
use crate::random::Dropout;
use crate::simd::{LANES, Simd};
use crate::update::Rule;
use std::sync::atomic::{AtomicBool, Ordering};

/// Takes a finished vector of the product: `row` and 16 lanes of `panel`, P planes to write.
pub(crate) trait Epilogue<const P: usize>: Sync {
    /// Whether plane 0 holds something else until the product is finished, so that the sum must
    /// stay in registers from the first k to the last.
    const ONE_PASS: bool = false;
    /// Whether the planes' old values are wanted, or the planes are too large for a near cache:
    /// they are then fetched ahead.
    const FETCH: bool = false;

    /// Must be `#[inline(always)]`.
    fn finish<S: Simd>(&self, s: S, block: &mut Block<P>, row: usize, panel: usize, c: S::F);
}

/// C as it is.
pub(crate) struct Store;

impl Epilogue<1> for Store {
    const FETCH: bool = true;

    #[inline(always)]
    fn finish<S: Simd>(&self, s: S, block: &mut Block<1>, row: usize, panel: usize, c: S::F) {
        block.store(s, 0, row, panel, c);
    }
}

/// A layer's output: Y = dropout(relu(Z + b)); b has one value per row.
pub(crate) struct Activate<'a> {
    pub bias: &'a [f32],
    pub relu: bool,
    pub dropout: Option<Dropout>,
}

impl Epilogue<1> for Activate<'_> {
    #[inline(always)]
    fn finish<S: Simd>(&self, s: S, block: &mut Block<1>, row: usize, panel: usize, c: S::F) {
        let mut y = s.add(c, s.splat(self.bias[row]));
        if self.relu {
            // NaN is the second operand, so it stays NaN and is noticed in the loss.
            y = s.max(s.splat(0.0), y);
        }
        if let Some(dropout) = &self.dropout {
            y = dropout.apply(s, row, panel * LANES, y);
        }
        block.store(s, 0, row, panel, y);
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

impl Epilogue<1> for ActivateGradient<'_> {
    #[inline(always)]
    fn finish<S: Simd>(&self, s: S, block: &mut Block<1>, row: usize, panel: usize, c: S::F) {
        let active = s.gt(s.load(self.y.row(row, panel)), s.splat(0.0));
        let dz = s.select(active, s.mul(c, s.splat(self.scale)), s.splat(0.0));
        block.store(s, 0, row, panel, dz);
    }
}

/// An optimiser step in place of the weight gradient, which never reaches memory: plane 0 are the
/// weights, the others their moments.
pub(crate) struct Update<'a> {
    pub rule: Rule,
    pub weight_decay: f32,
    /// Set when a gradient is not finite.
    pub diverged: &'a AtomicBool,
}

impl<const P: usize> Epilogue<P> for Update<'_> {
    const ONE_PASS: bool = true;
    const FETCH: bool = true;

    #[inline(always)]
    fn finish<S: Simd>(&self, s: S, block: &mut Block<P>, row: usize, panel: usize, g: S::F) {
        if !s.all_finite(g) {
            self.diverged.store(true, Ordering::Relaxed);
        }
        let w = block.load(s, 0, row, panel);
        let v = block.load(s, 1, row, panel);
        let u = if P > 2 { block.load(s, 2, row, panel) } else { v };
        let (w, v, u) = self.rule.apply(s, self.weight_decay, w, g, v, u);
        block.store(s, 0, row, panel, w);
        block.store(s, 1, row, panel, v);
        if P > 2 {
            block.store(s, 2, row, panel, u);
        }
    }
}
