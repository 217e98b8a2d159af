//! What is done to the finished rows of C.

use super::tiles::{Block, Rect, Row};
use crate::bf16::round_lanes;
use crate::matrix::Panels;
use crate::random::Dropout;
use crate::simd::{LANES, Simd};
use crate::update::{Step, limit_norms, watch};
use std::sync::atomic::{AtomicBool, Ordering};

/// What becomes of a finished row of 16 lanes; there are P planes to write.
pub(crate) trait Epilogue<const P: usize>: Sync {
    /// Whether plane 0 holds something else until the product is finished, so that the sum must
    /// stay in registers from the first k to the last.
    const ONE_PASS: bool = false;
    /// Whether it is so much work, or waits so long for memory, that it is better done between
    /// the multiply-adds of the next tile than at once, where the processor gains by that
    /// ([`crate::Isa::defers`]).
    const DEFERRED: bool = false;
    /// Whether C are weights or their gradient: so large that its cache lines must be fetched
    /// ahead, and shared out to the threads by panels. The thread that computes a unit in the
    /// forward product then also updates its weights, which stay in its cache.
    const WEIGHTS: bool = false;

    /// Whether [`Epilogue::panel`] has work to do; each task is then given whole panels.
    fn whole_panels(&self) -> bool {
        false
    }

    /// All rows of `panel` are finished. Must be `#[inline(always)]`.
    #[inline(always)]
    fn panel<S: Simd>(&self, s: S, block: &mut Block<P>, panel: usize) {
        let _ = (s, block, panel);
    }

    /// Row `out`, which is (`row`, `panel`) of C, is `c`. Must be `#[inline(always)]`.
    ///
    /// Takes and returns what was seen of the rows before it, from 0 on: see [`Epilogue::seen`].
    fn finish<S: Simd>(
        &self,
        s: S,
        out: &mut Row<P>,
        at: (usize, usize),
        c: S::F,
        seen: S::F,
    ) -> S::F;

    /// The rows `c`, one after the other, each in its panels, are `sums`.
    #[inline(always)]
    fn finish_all<S: Simd>(
        &self,
        s: S,
        mut c: Rect<P>,
        sums: &[[f32; LANES]],
        mut seen: S::F,
    ) -> S::F {
        let mut sums = sums.iter();
        while let Some((row, mut panels)) = c.next_row() {
            while let Some((panel, mut out)) = panels.next_panel()
                && let Some(sum) = sums.next()
            {
                seen = self.finish(s, &mut out, (row, panel), s.load(sum), seen);
            }
        }
        seen
    }

    /// All rows of a block are finished.
    #[inline(always)]
    fn seen<S: Simd>(&self, s: S, seen: S::F) {
        let _ = (s, seen);
    }
}

/// Another epilogue, of the sums times `scale`.
pub(crate) struct Scaled<E> {
    pub scale: f32,
    pub of: E,
}

impl<E: Epilogue<P>, const P: usize> Epilogue<P> for Scaled<E> {
    const ONE_PASS: bool = E::ONE_PASS;
    const DEFERRED: bool = E::DEFERRED;
    const WEIGHTS: bool = E::WEIGHTS;

    fn whole_panels(&self) -> bool {
        self.of.whole_panels()
    }

    #[inline(always)]
    fn panel<S: Simd>(&self, s: S, block: &mut Block<P>, panel: usize) {
        self.of.panel(s, block, panel);
    }

    #[inline(always)]
    fn finish<S: Simd>(
        &self,
        s: S,
        out: &mut Row<P>,
        at: (usize, usize),
        c: S::F,
        seen: S::F,
    ) -> S::F {
        self.of.finish(s, out, at, s.mul(c, s.splat(self.scale)), seen)
    }

    #[inline(always)]
    fn seen<S: Simd>(&self, s: S, seen: S::F) {
        self.of.seen(s, seen);
    }
}

/// C, in plane 0, as it is.
pub(crate) struct Store;

impl<const P: usize> Epilogue<P> for Store {
    const WEIGHTS: bool = true;

    #[inline(always)]
    fn finish<S: Simd>(
        &self,
        s: S,
        out: &mut Row<P>,
        _: (usize, usize),
        c: S::F,
        seen: S::F,
    ) -> S::F {
        out.store(s, 0, c);
        seen
    }
}

/// A layer's output: Y = dropout(relu(Z + b)); b has one value per row.
pub(crate) struct Activate<'a> {
    pub bias: &'a [f32],
    pub relu: bool,
    pub dropout: Option<Dropout>,
    /// Whether Y is rounded to bf16.
    pub round: bool,
}

impl Epilogue<1> for Activate<'_> {
    #[inline(always)]
    fn finish<S: Simd>(
        &self,
        s: S,
        out: &mut Row<1>,
        (row, panel): (usize, usize),
        c: S::F,
        seen: S::F,
    ) -> S::F {
        let mut y = s.add(c, s.splat(self.bias[row]));
        if self.relu {
            // NaN is the second operand, so it stays NaN and is noticed in the loss.
            y = s.max(s.splat(0.0), y);
        }
        if let Some(dropout) = &self.dropout {
            y = dropout.apply(s, row, panel * LANES, y);
        }
        if self.round {
            y = round_lanes(s, y);
        }
        out.store(s, 0, y);
        seen
    }
}

/// The gradient through relu and dropout: dZ = dY · scale where Y > 0, else 0.
///
/// Y is the layer's output after dropout: it is positive exactly where the unit was active and
/// kept, so no mask needs to be stored.
pub(crate) struct ActivateGradient<'a> {
    pub y: Panels<'a>,
    pub scale: f32,
    /// Whether dZ is rounded to bf16.
    pub round: bool,
}

impl Epilogue<1> for ActivateGradient<'_> {
    #[inline(always)]
    fn finish<S: Simd>(
        &self,
        s: S,
        out: &mut Row<1>,
        (row, panel): (usize, usize),
        c: S::F,
        seen: S::F,
    ) -> S::F {
        let active = s.gt(s.load(self.y.row(row, panel)), s.splat(0.0));
        let dz = s.select(active, s.mul(c, s.splat(self.scale)), s.splat(0.0));
        out.store(s, 0, if self.round { round_lanes(s, dz) } else { dz });
        seen
    }
}

/// An optimiser step in place of the weight gradient, which never reaches memory: plane 0 are the
/// weights, the others their moments.
pub(crate) struct Update<'a> {
    pub step: Step,
    /// Limit of the norm of a unit's incoming weights.
    pub max_norm: Option<f32>,
    /// Set when a gradient is not finite, or when what the step makes of it is not.
    pub diverged: &'a AtomicBool,
}

impl<const P: usize> Epilogue<P> for Update<'_> {
    const ONE_PASS: bool = true;
    const DEFERRED: bool = true;
    const WEIGHTS: bool = true;

    fn whole_panels(&self) -> bool {
        self.max_norm.is_some()
    }

    #[inline(always)]
    fn panel<S: Simd>(&self, s: S, block: &mut Block<P>, panel: usize) {
        if let Some(limit) = self.max_norm
            && !limit_norms(s, limit, block.panel(0, panel))
        {
            self.diverged.store(true, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn finish<S: Simd>(
        &self,
        s: S,
        out: &mut Row<P>,
        _: (usize, usize),
        g: S::F,
        seen: S::F,
    ) -> S::F {
        let u = if P > 2 { out.load(s, 2) } else { s.splat(0.0) };
        let [w, v, u] = self.step.apply(s, [out.load(s, 0), g, out.load(s, 1), u]);
        out.store(s, 0, w);
        out.store(s, 1, v);
        // NaN and ∞ of g and v reach w under every rule. Adam's u also overflows where g² does,
        // and then holds w in place for ever.
        if P > 2 {
            out.store(s, 2, u);
            return watch(s, u, watch(s, w, seen));
        }
        watch(s, w, seen)
    }

    #[inline(always)]
    fn seen<S: Simd>(&self, s: S, seen: S::F) {
        if !s.all_finite(seen) {
            self.diverged.store(true, Ordering::Relaxed);
        }
    }
}
