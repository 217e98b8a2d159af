//! Matrix products for training, multithreaded, in panel order.
//!
//! A dense layer needs three. With W [inputs, outputs], X and dZ panel matrices whose lanes
//! are the batch's examples:
//!
//! | | product | sum over | A is walked |
//! |---|---|---|---|
//! | [`forward`] | Z = Wᵀ·X | inputs: rows of W, rows of X | along its rows |
//! | [`input_gradient`] | dX = W·dZ | outputs: lanes of W, rows of dZ | along its lanes |
//! | [`weight_gradient`], [`weight_update`] | dW = X·dZᵀ | examples: lanes of X, rows of dZᵀ | along its lanes |
//!
//! The second operand always lies in memory in the order in which the microkernel reads it.
//! W is never packed or transposed; dZ alone is transposed, once per layer.
//!
//! ```text
//! LOOP 3  tasks: blocks of C's rows × panels          shared by the threads, outputs only
//!   LOOP 2  K in blocks of kc                         often one: the sum stays in registers
//!     LOOP 1  groups of panels of B, a tile wide      A's block stays in L2
//!       LOOP 0  tiles of MR rows × the group → microkernel, at the end of K the epilogue
//! ```
//!
//! A thread owns a range of the units, W's panels, in [`forward`] and in [`weight_update`], and a
//! range of the inputs in [`input_gradient`]: most of what it reads it wrote itself. The
//! optimiser's part of a tile runs right after it, or between the multiply-adds of the next one
//! (`Isa::defers`). What of A, B and C the next tile needs is fetched while this one runs.
//!
//! **Numerics**: every element of C is one chain of fused multiply-adds in ascending k. C is
//! kept in f32 between K blocks, which does not break the chain, so neither block sizes nor
//! threads nor the ISA change a bit. |C − exact| ≤ K·ε·(|A|·|B|) with ε = 2⁻²⁴.
//!
//! **bf16**: the operands of all three are of one form, and their sums are those of [`crate::bf16`], as
//! independent of all this. A tile unit ([`crate::amx`]) takes the place of the microkernel; its tile of
//! C is 32 rows × 2 panels, the sums of all K.

mod blocking;
mod epilogue;
mod microkernel;
mod pack;
mod tiles;

pub use pack::transpose;

use crate::Context;
use crate::activation::{self, Activation};
use crate::amx;
use crate::bf16::{Copies, round_and_pack};
use crate::buffer::Buffer;
use crate::isa::{Kernel, dispatch};
use crate::matrix::{MatMut, MatRef, Panels, PanelsMut, panel_len};
use crate::random::Dropout;
use crate::simd::{LANES, Simd};
use crate::update::{Rule, Step};
use blocking::Blocking;
use epilogue::{Activate, ActivateGradient, Epilogue, Scaled, Store, Update};
use microkernel::{Acc, Aside, Idle, Lanes, Operands, Pairs, Rows, Walk, microkernel, parts};
use pack::{PACKED_DEPTH, PACKED_PANELS, Pack, PackedB};
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use tiles::{Block, Tiles};

/// The operands A and B of a product, as the table of the module's documentation names them.
pub struct Factors<'a> {
    numbers: Numbers<'a>,
    a: Panels<'a>,
    b: Panels<'a>,
}

/// What the operands' values are.
enum Numbers<'a> {
    F32,
    Bf16 {
        /// What the sums are multiplied by.
        scale: f32,
        /// Of C.
        copies: Copies<'a>,
    },
}

impl<'a> Factors<'a> {
    /// Of f32.
    pub fn f32(a: Panels<'a>, b: Panels<'a>) -> Self {
        Self { numbers: Numbers::F32, a, b }
    }

    /// Of bf16, packed by [`crate::bf16::pack`] along what the product sums over. The sums are multiplied
    /// by `scale`: whole numbers, such as pixels, are exact. What becomes of C is copied to `copies`.
    pub fn bf16(scale: f32, a: Panels<'a>, b: Panels<'a>, copies: Copies<'a>) -> Self {
        Self { numbers: Numbers::Bf16 { scale, copies }, a, b }
    }

    /// Those of C, which are then somebody else's work.
    fn take_copies(&mut self) -> Copies<'a> {
        match &mut self.numbers {
            Numbers::F32 => Copies::default(),
            Numbers::Bf16 { copies, .. } => std::mem::take(copies),
        }
    }

    /// Whether there are copies of C.
    fn has_copies(&self) -> bool {
        matches!(&self.numbers, Numbers::Bf16 { copies, .. } if !copies.is_empty())
    }

    /// Rows and lanes of C, where A in f32 is walked as `walk` says.
    ///
    /// # Panics
    /// If A and B differ in the terms that the product sums over.
    fn shape<W: Walk>(&self, _walk: W) -> (usize, usize) {
        let Factors { numbers, a, b } = self;
        let in_blocks = W::IN_BLOCKS || matches!(numbers, Numbers::Bf16 { .. });
        let (rows, depth) = if in_blocks { (a.lanes(), a.rows()) } else { (a.rows(), a.lanes()) };
        assert_eq!(depth, b.rows(), "terms of A and B");
        (rows, b.lanes())
    }

    /// C ← `epilogue` of A∘B.
    fn product<const P: usize>(
        self,
        context: &Context,
        walk: impl Walk,
        epilogue: impl Epilogue<P>,
        c: Tiles<P>,
    ) {
        let Factors { numbers, a, b } = self;
        let (depth, beta) = (b.rows(), 0.0);
        match numbers {
            Numbers::F32 => Product { walk, a, depth, beta, epilogue }.compute(context, b, c),
            Numbers::Bf16 { scale, copies } => {
                let epilogue = Scaled { scale, of: epilogue };
                let c = c.with_copies(copies);
                Product { walk: Pairs, a, depth, beta, epilogue }.compute(context, b, c);
            }
        }
    }
}

/// A layer: Y = mask ⊙ f(Wᵀ·X + b), of W and X. `bias` has one value per output; without an activation f is the
/// identity. Where Y has copies it is rounded to bf16 itself.
///
/// # Panics
/// If the shapes of W [inputs, outputs], X [inputs, batch] and Y [outputs, batch] do not fit.
pub fn forward(
    context: &Context,
    mut factors: Factors,
    bias: &[f32],
    activation: Option<Activation>,
    dropout: Option<Dropout>,
    mut y: PanelsMut,
) {
    if activation == Some(Activation::Tanh) {
        let copies = factors.take_copies();
        forward(context, factors, bias, None, None, y.reborrow());
        activation::forward(context, activation, dropout, y.reborrow());
        return round_and_pack(context, y, copies);
    }
    assert_eq!((y.rows(), y.lanes()), factors.shape(Rows), "shape of Y");
    let bias = &bias[..y.rows()];
    let round = factors.has_copies();
    let epilogue = Activate { bias, relu: activation.is_some(), dropout, round };
    factors.product(context, Rows, epilogue, Tiles::panels([y]));
}

/// The gradient of a layer's input, of W and dZ, taken through activation and dropout of the layer below, whose
/// output Y = mask ⊙ f(Z) is: dZ_below = (W·dZ) ⊙ mask ⊙ f′(Z). Where it has copies it is rounded to bf16
/// itself.
///
/// # Panics
/// If the shapes of W [inputs, outputs], dZ [outputs, batch], Y and dX [inputs, batch] do not fit.
pub fn input_gradient(
    context: &Context,
    mut factors: Factors,
    y: Panels,
    activation: Activation,
    dropout: Option<Dropout>,
    mut dx: PanelsMut,
) {
    assert_eq!((dx.rows(), dx.lanes()), factors.shape(Lanes), "shape of dX");
    assert_eq!((y.rows(), y.lanes()), (dx.rows(), dx.lanes()), "shape of Y");
    match activation {
        Activation::Relu => {
            let scale = dropout.map_or(1.0, |dropout| dropout.scale());
            let epilogue = ActivateGradient { y, scale, round: factors.has_copies() };
            factors.product(context, Lanes, epilogue, Tiles::panels([dx]));
        }
        Activation::Tanh => {
            let copies = factors.take_copies();
            factors.product(context, Lanes, Store, Tiles::panels([dx.reborrow()]));
            activation::backward(context, activation, dropout, y, dx.reborrow());
            round_and_pack(context, dx, copies);
        }
    }
}

/// The gradient of the weights: dW = X·dZᵀ; dZᵀ [batch, outputs], the second factor, comes from
/// [`transpose`].
///
/// # Panics
/// If the shapes of X [inputs, batch], dZᵀ and dW [inputs, outputs] do not fit.
pub fn weight_gradient(context: &Context, factors: Factors, dw: PanelsMut) {
    assert_eq!((dw.rows(), dw.lanes()), factors.shape(Lanes), "shape of dW");
    factors.product(context, Lanes, Store, Tiles::panels([dw]));
}

/// What [`weight_update`] does with a gradient.
#[derive(Clone, Copy, Debug)]
pub struct WeightStep {
    /// The optimiser.
    pub rule: Rule,
    /// Added to the gradient, times the weights.
    pub weight_decay: f32,
    /// Limit of the norm of each unit's incoming weights.
    pub max_norm: Option<f32>,
}

/// [`weight_gradient`] and an optimiser step on W in one: the gradient never reaches memory. Gives
/// the bits of [`crate::update::step`] on the gradient of [`weight_gradient`] and, with a limit, of
/// [`crate::update::max_norm`] on its result.
///
/// `moments` are as long as W, in its order. Copies are of the new W. Returns whether everything was finite: gradients,
/// weights, second moments, and norms where they are limited.
///
/// # Panics
/// If the shapes of X [inputs, batch], dZᵀ and W [inputs, outputs] do not fit, or the rule's
/// moments are missing.
pub fn weight_update(
    context: &Context,
    factors: Factors,
    step: WeightStep,
    w: PanelsMut,
    moments: &mut [&mut [f32]],
) -> bool {
    assert_eq!((w.rows(), w.lanes()), factors.shape(Lanes), "shape of W");
    let WeightStep { rule, weight_decay, max_norm } = step;
    assert_eq!(moments.len(), rule.moments(), "moments of the rule");
    let (rows, lanes) = (w.rows(), w.lanes());
    let diverged = AtomicBool::new(false);
    let step = Step::new(rule, weight_decay);
    let epilogue = Update { step, max_norm, diverged: &diverged };
    match moments {
        [v] => {
            let planes = [w, PanelsMut::new(v, rows, lanes)];
            factors.product(context, Lanes, epilogue, Tiles::panels(planes));
        }
        [v, u] => {
            let [v, u] = [v, u].map(|m| PanelsMut::new(m, rows, lanes));
            factors.product(context, Lanes, epilogue, Tiles::panels([w, v, u]));
        }
        _ => unreachable!("a rule has one or two moments"),
    }
    !diverged.into_inner()
}

/// Which operand of the row-major [`gemm`] is stored transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A [m, k], B [k, n].
    Nn,
    /// A [m, k], B stored as [n, k].
    Nt,
    /// A stored as [k, m], B [k, n].
    Tn,
}

/// Memory for the packed A of [`gemm`], reused from call to call.
#[derive(Default)]
pub struct Packed {
    a: Option<Buffer>,
}

impl Packed {
    /// At least `len` values.
    fn reserve(&mut self, len: usize) -> &mut Buffer {
        if self.a.as_ref().is_none_or(|a| a.len() < len) {
            self.a = Some(Buffer::zeroed(len));
        }
        self.a.as_mut().expect("just filled")
    }
}

/// C ← A·B + beta·C for row-major matrices. C is not read when `beta` is 0.
///
/// A is packed first; B is packed by the tasks, each its own panels, just before they are used.
///
/// # Panics
/// If the shapes do not fit `layout`.
pub fn gemm(
    context: &Context,
    layout: Layout,
    a: MatRef,
    b: MatRef,
    beta: f32,
    c: MatMut,
    packed: &mut Packed,
) {
    let a = Pack { src: a, transposed: layout != Layout::Tn };
    let b = Pack { src: b, transposed: layout == Layout::Nt };
    let ((depth, m), (depth_of_b, n)) = (a.shape(), b.shape());
    assert_eq!(depth, depth_of_b, "k of A and B");
    assert_eq!((c.rows(), c.cols()), (m, n), "shape of C");

    let packed_a = packed.reserve(panel_len(depth, m));
    pack::pack(context, &a, PanelsMut::new(packed_a, depth, m));
    let a = Panels::new(packed_a, depth, m);
    let product = Product { walk: Rows, a, depth, beta, epilogue: Store };
    let c = Tiles::row_major(c);
    let (rows, panels) = (c.rows(), c.panels_count());
    let tasks = context.pool.threads() * TASKS_PER_THREAD;
    let nc = panels.div_ceil(tasks).clamp(1, PACKED_PANELS);
    let mc = rows.div_ceil(tasks.div_ceil(panels.div_ceil(nc).max(1)));
    let mc = mc.next_multiple_of(LANES).clamp(MIN_ROWS, rows.max(MIN_ROWS));
    let blocks = ((mc, nc), (LANES, 1));
    c.for_each_block(&context.pool, blocks, true, depth, |block| {
        dispatch(context.isa, PackingTask { product: &product, b: &b, block });
    });
}

/// Fewest rows of a task: two panels of A.
const MIN_ROWS: usize = 2 * LANES;
/// Tasks wanted per thread, so that a delayed thread holds up the others little.
const TASKS_PER_THREAD: usize = 8;

/// Values of B that stay in L2 beside a block of A: 768 KiB. A longer B comes from the last cache, and is
/// fetched ahead.
const STAYING: usize = 192 << 10;

/// C ← epilogue(A∘B + beta·C), where `walk` says whether A∘B is Aᵀ·B or A·B.
struct Product<'a, W, E> {
    walk: W,
    a: Panels<'a>,
    /// K.
    depth: usize,
    beta: f32,
    epilogue: E,
}

impl<W: Walk, E> Product<'_, W, E> {
    /// The product with a B in panels, in parallel.
    fn compute<const P: usize>(self, context: &Context, b: Panels, c: Tiles<P>)
    where
        E: Epilogue<P>,
    {
        self.compute_as(context.isa.defers(), context, b, c);
    }

    /// The same, with a deferred epilogue as it is for this processor or for others.
    fn compute_as<const P: usize>(self, defers: bool, context: &Context, b: Panels, c: Tiles<P>)
    where
        E: Epilogue<P>,
    {
        let (rows, panels, threads) = (c.rows(), c.panels_count(), context.pool.threads());
        if rows == 0 || panels == 0 {
            return;
        }
        let blocking = Blocking::of(context.isa);
        let tiles = if W::PAIRS { context.isa.tiles() } else { None };
        let kc = if E::ONE_PASS { self.depth.max(1) } else { blocking.kc };
        let tasks = threads * TASKS_PER_THREAD;
        // Split one side, and the other as well where that alone gives too few tasks. The sizes
        // depend on the thread count; the result does not.
        let row_blocks = if E::WEIGHTS { tasks.div_ceil(panels.min(tasks)) } else { tasks };
        let mc = rows.div_ceil(row_blocks).min(blocking.mc(self.depth) / LANES * LANES);
        // Blocks of whole microtiles where there are enough; of whole tiles of C's copies in any case.
        let (unit, wide) = match (W::PAIRS, tiles) {
            (false, _) => ((LANES, 1), MAX_NP),
            (true, None) => ((2 * LANES, 2), 2 * MAX_NP),
            (true, Some(_)) => ((amx::ROWS, amx::PANELS), amx::PANELS),
        };
        let mc = mc.next_multiple_of(unit.0).max(MIN_ROWS);
        let mc = if self.epilogue.whole_panels() { rows.next_multiple_of(unit.0) } else { mc };
        let panel_blocks = if E::WEIGHTS { tasks } else { tasks.div_ceil(rows.div_ceil(mc)) };
        let nc = (panels.div_ceil(panel_blocks) / wide * wide).max(wide);
        // LOOP 3
        c.for_each_block(&context.pool, ((mc, nc), unit), E::WEIGHTS, self.depth, |block| {
            dispatch(context.isa, Task { product: &self, b, kc, block, unit: tiles, defers });
        });
    }
}

/// A block of C under work.
///
/// A deferred epilogue of a tile runs in the shadow of the next tile's multiply-adds, a row at a
/// time, where they leave units of the processor free ([`crate::Isa::defers`]).
struct Work<'t, 'a, W, E, const P: usize> {
    product: &'t Product<'a, W, E>,
    block: Block<'t, P>,
    /// The sums of the finished tile.
    sums: Sums,
    /// What of it has yet to go through the epilogue or, before the last k, to C.
    unfinished: TileRows,
    last: bool,
    /// What of the tile under work has yet to be fetched.
    unfetched: TileRows,
    /// Rows to be fetched and to be finished in one part.
    step: usize,
    /// What the epilogue has seen of the finished rows.
    seen: Seen,
    /// Whether a deferred epilogue is ([`crate::Isa::defers`]).
    defers: bool,
    /// What of the operands is fetched ahead.
    ahead: Ahead,
}

/// Cache lines of an operand that later tiles need: `lines` of them in a part, from `at` on, and `stride`
/// values further in the next part.
#[derive(Clone, Copy)]
struct Ahead {
    at: *const f32,
    lines: usize,
    stride: usize,
}

impl Ahead {
    const NONE: Self = Self { at: std::ptr::null(), lines: 0, stride: 0 };

    /// What the next tile of rows walks through while this one does from `k` on.
    #[inline(always)]
    fn of_a<W: Walk, E>(product: &Product<W, E>, k: usize, tile: &Range<usize>) -> Self {
        let rows = product.a.rows();
        let (at, stride) = if W::IN_BLOCKS {
            // Two tiles share a panel, and fetch half of the next one each.
            let (panel, half) = (tile.start / LANES + 1, tile.start % LANES);
            ((panel * rows + k + half) * LANES, LANES * LANES)
        } else {
            ((k / LANES * rows + tile.end) * LANES, rows * LANES)
        };
        Self { at: product.a.data().as_ptr().wrapping_add(at), lines: tile.len(), stride }
    }

    #[inline(always)]
    fn part<S: Simd>(&mut self, s: S) {
        for line in 0..self.lines {
            s.prefetch_far(self.at.wrapping_add(line * LANES));
        }
        self.at = self.at.wrapping_add(self.stride);
    }
}

/// A tile in memory, row by row, aligned to cache lines.
#[repr(align(64))]
struct Sums([[f32; LANES]; MAX_SUMS]);

/// A vector in memory: between the parts the registers belong to the multiply-adds.
#[repr(align(64))]
struct Seen([f32; LANES]);

// Loops, not iterator closures: a closure is compiled without the ISA's features.
impl Sums {
    /// Where a sum over k begins: zeros, or what is `resumed`.
    #[inline(always)]
    fn load<S: Simd, const MR: usize, const NP: usize>(
        &self,
        s: S,
        resumed: bool,
    ) -> Acc<S, MR, NP> {
        let mut acc = [[s.splat(0.0); NP]; MR];
        if resumed {
            for (r, acc) in acc.iter_mut().enumerate() {
                for (p, acc) in acc.iter_mut().enumerate() {
                    *acc = s.load(&self.0[r * NP + p]);
                }
            }
        }
        acc
    }

    /// Takes a tile's sums, from which a loop finishes them: in registers each would need code of
    /// its own.
    #[inline(always)]
    fn store<S: Simd, const MR: usize, const NP: usize>(&mut self, s: S, acc: Acc<S, MR, NP>) {
        for (r, acc) in acc.into_iter().enumerate() {
            for (p, acc) in acc.into_iter().enumerate() {
                s.store(acc, &mut self.0[r * NP + p]);
            }
        }
    }
}

/// Calls a method in the instance for a tile's (panels, rows), of which there is one for each shape
/// whose rows are `$taken` and whose sums fit the registers.
macro_rules! of_shape {
    ($tile:expr, $S:ident, $taken:expr, $self:ident.$method:ident $args:tt) => {
        of_shape!(@ $tile, $S, $taken, $self.$method $args;
            1: 1 2 3 4 5 6 7 8;
            2: 1 2 3 4 5 6 7 8;
            3: 1 2 3 4 5 6 7 8;
        )
    };
    (@ $tile:expr, $S:ident, $taken:expr, $self:ident.$method:ident $args:tt;
        $($np:literal: $($mr:literal)+;)+) => {
        match $tile {
            $($(($np, $mr) if $np <= $S::TILE.panels
                && $np * $mr <= $S::TILE.accumulators
                && $taken.contains(&$mr) =>
            {
                $self.$method::<$S, $mr, $np> $args
            })+)+
            (panels, rows) => unreachable!("a tile of {rows} rows, {panels} panels"),
        }
    };
}

/// Rows of the highest tile, panels of the widest, and room for the sums of both, in vectors.
const MAX_MR: usize = 8;
const MAX_NP: usize = 3;
const MAX_SUMS: usize = MAX_MR * MAX_NP;

/// The rows of a tile that are still to come, each in all of its panels.
#[derive(Clone, Default)]
struct TileRows {
    rows: Range<usize>,
    panels: Range<usize>,
    /// Sums of the rows before.
    sums: usize,
}

impl TileRows {
    #[inline(always)]
    fn new(rows: Range<usize>, panels: Range<usize>) -> Self {
        Self { rows, panels, sums: 0 }
    }

    /// The next `count` rows, if there are as many.
    #[inline(always)]
    fn take(&mut self, count: usize) -> Self {
        let (start, panels) = (self.rows.start, self.panels.clone());
        let rows = start..self.rows.end.min(start + count);
        let taken = Self { panels, sums: self.sums, rows: rows.clone() };
        self.rows.start = rows.end;
        self.sums += rows.len() * self.panels.len();
        taken
    }

    /// Their sums' indices.
    #[inline(always)]
    fn indices(&self) -> Range<usize> {
        self.sums..self.sums + self.rows.len() * self.panels.len()
    }
}

impl<'t, 'a, W: Walk, E: Epilogue<P>, const P: usize> Work<'t, 'a, W, E, P> {
    fn new(product: &'t Product<'a, W, E>, block: Block<'t, P>, defers: bool) -> Self {
        let sums = Sums([[0.0; LANES]; MAX_SUMS]);
        let (unfinished, unfetched) = Default::default();
        let seen = Seen([0.0; LANES]);
        let (last, step, ahead) = (false, 0, Ahead::NONE);
        Self { product, block, sums, unfinished, last, unfetched, step, seen, defers, ahead }
    }

    /// One pass over `k` for a tile that begins at `panel`; `b` are its micropanels [k, 16].
    #[inline(always)]
    fn tile<S: Simd>(
        &mut self,
        s: S,
        rows: Range<usize>,
        panel: usize,
        k: Range<usize>,
        b: &[&[f32]],
    ) {
        let Product { walk, a, depth, beta, .. } = *self.product;
        let tile = TileRows::new(rows.clone(), panel..panel + b.len());
        let last = k.end == depth;
        let resumed = k.start > 0 || beta != 0.0;
        if resumed {
            let factor = s.splat(if k.start > 0 { 1.0 } else { beta });
            let mut sums = self.sums.0.iter_mut();
            let mut c = self.block.rect(tile.rows.clone(), tile.panels.clone());
            while let Some((_, mut panels)) = c.next_row() {
                while let Some((_, out)) = panels.next_panel()
                    && let Some(sum) = sums.next()
                {
                    s.store(s.mul(factor, out.load(s, 0)), sum);
                }
            }
        }
        let deferred = E::DEFERRED && S::TILE.spare_registers && self.defers;
        // What a tile's epilogue needs is fetched while the tile before runs, or this one where the
        // epilogue waits for the next.
        let (first, end) = (rows.start == self.block.rows().start, self.block.rows().end);
        let fetched = match deferred {
            true => rows.clone(),
            false if first => rows.start..end.min(rows.end + rows.len()),
            false => rows.end..end.min(rows.end + rows.len()),
        };
        let parts = parts(k.len()).max(1);
        self.step = rows.len().max(fetched.len()).div_ceil(parts);
        self.unfetched = TileRows::new(fetched, tile.panels.clone());
        let shape = (b.len(), rows.len());
        let operands = Operands { a, b, row: rows.start, k };
        if !W::PAIRS && rows.len() >= S::TILE.full_rows {
            of_shape!(shape, S, (S::TILE.full_rows..=MAX_MR), self.full(s, &operands, resumed));
        } else {
            self.finish(s);
            s.call(LowTile { walk, shape, operands, resumed, sums: &mut self.sums });
        }
        (self.unfinished, self.last) = (tile, last);
        if !deferred {
            self.finish(s);
        }
    }

    /// The sums of a tile, with the work that is left of the one before in their shadow.
    #[inline(always)]
    fn full<S: Simd, const MR: usize, const NP: usize>(
        &mut self,
        s: S,
        operands: &Operands,
        resumed: bool,
    ) {
        let acc: Acc<S, MR, NP> = self.sums.load(s, resumed);
        let acc = microkernel(s, self.product.walk, operands, self, acc);
        self.finish(s);
        self.sums.store(s, acc);
    }

    /// Finishes the rows that are left.
    #[inline(always)]
    fn finish<S: Simd>(&mut self, s: S) {
        self.finish_rows(s, MAX_MR);
    }

    /// Finishes `count` rows, if as many are left.
    #[inline(always)]
    fn finish_rows<S: Simd>(&mut self, s: S, count: usize) {
        let tile = self.unfinished.take(count);
        if tile.rows.is_empty() {
            return;
        }
        let sums = &self.sums.0[tile.indices()];
        let c = self.block.rect(tile.rows, tile.panels);
        if E::ONE_PASS || self.last {
            let seen = s.load(&self.seen.0);
            let seen = self.product.epilogue.finish_all(s, c, sums, seen);
            s.store(seen, &mut self.seen.0);
        } else {
            Store.finish_all(s, c, sums, s.splat(0.0));
        }
    }

    /// Finishes the block.
    #[inline(always)]
    fn end<S: Simd>(&mut self, s: S) {
        self.finish(s);
        self.product.epilogue.seen(s, s.load(&self.seen.0));
    }
}

impl<W: Walk, E: Epilogue<P>, const P: usize> Aside for Work<'_, '_, W, E, P> {
    #[inline(always)]
    fn part<S: Simd>(&mut self, s: S) {
        if !S::TILE.spare_registers {
            return;
        }
        self.ahead.part(s);
        if E::WEIGHTS {
            let fetched = self.unfetched.take(self.step);
            for row in fetched.rows {
                self.block.prefetch(s, row, fetched.panels.clone());
            }
        }
        if E::DEFERRED {
            self.finish_rows(s, self.step);
        }
    }
}

/// The sums of a tile with fewer rows than [`crate::simd::RegisterTile::full_rows`], or of pairs. A
/// function of its own, the same for all epilogues: such tiles are few, and their shapes are most of
/// all shapes. With all tiles of pairs in each epilogue the crate would take twice as long to compile.
struct LowTile<'t, W> {
    walk: W,
    shape: (usize, usize),
    operands: Operands<'t>,
    resumed: bool,
    sums: &'t mut Sums,
}

impl<W: Walk> Kernel for LowTile<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let lowest_full = if W::PAIRS { MAX_MR + 1 } else { S::TILE.full_rows };
        of_shape!(self.shape, S, (1..lowest_full), self.sum(s));
    }
}

impl<W: Walk> LowTile<'_, W> {
    #[inline(always)]
    fn sum<S: Simd, const MR: usize, const NP: usize>(self, s: S) {
        let acc: Acc<S, MR, NP> = self.sums.load(s, self.resumed);
        self.sums.store(s, microkernel(s, self.walk, &self.operands, &mut Idle, acc));
    }
}

/// Most rows of a tile as wide as the micropanels `b`.
#[inline(always)]
fn mr<S: Simd>(b: &[&[f32]]) -> usize {
    // Eight sums are enough to hide the latency of the multiply-adds, and 8 rows divide a panel.
    (S::TILE.accumulators / b.len()).min(MAX_MR)
}

/// The part of a product that one thread computes.
struct Task<'t, 'a, W, E, const P: usize> {
    product: &'t Product<'a, W, E>,
    b: Panels<'t>,
    kc: usize,
    block: Block<'t, P>,
    unit: Option<amx::Unit>,
    defers: bool,
}

impl<W: Walk, E: Epilogue<P>, const P: usize> Kernel for Task<'_, '_, W, E, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if W::PAIRS
            && S::BESIDE_TILES
            && let Some(unit) = self.unit
        {
            return self.run_on_tiles(s, unit);
        }
        let (depth, rows, panels) = (self.product.depth, self.block.rows(), self.block.panels());
        let group = if W::IN_BLOCKS { LANES } else { rows.len().max(1) };
        let mut work = Work::new(self.product, self.block, self.defers);
        // LOOP 2; with K = 0 one pass still writes beta·C through the epilogue.
        for first in (0..depth.max(1)).step_by(self.kc) {
            let k = first..depth.min(first + self.kc);
            // LOOP 1
            for panels in blocking::tiles(panels.clone(), S::TILE.panels) {
                let mut b: [&[f32]; MAX_NP] = [&[]; MAX_NP];
                for (b, panel) in b.iter_mut().zip(panels.clone()) {
                    let start = (panel * depth + first) * LANES;
                    *b = &self.b.data()[start..][..k.len() * LANES];
                }
                let b = &b[..panels.len()];
                if k.len() == depth && self.b.data().len() > STAYING {
                    let next = self.b.data()[panels.end * depth * LANES..].as_ptr();
                    let tiles = rows.len().div_ceil(S::TILE.full_rows);
                    let lines = (panels.len() * depth).div_ceil((tiles * parts(depth)).max(1));
                    work.ahead = Ahead { at: next, lines, stride: lines * LANES };
                }
                // LOOP 0
                for first in rows.clone().step_by(group) {
                    for tile in blocking::tiles(first..rows.end.min(first + group), mr::<S>(b)) {
                        if !E::WEIGHTS && self.b.data().len() <= STAYING {
                            work.ahead = Ahead::of_a(self.product, k.start, &tile);
                        }
                        work.tile(s, tile, panels.start, k.clone(), b);
                    }
                }
                if k.end == depth && self.product.epilogue.whole_panels() {
                    work.finish(s);
                    for panel in panels {
                        self.product.epilogue.panel(s, &mut work.block, panel);
                    }
                }
            }
        }
        work.end(s);
        if W::PAIRS {
            work.block.copy(s);
        }
    }
}

impl<W: Walk, E: Epilogue<P>, const P: usize> Task<'_, '_, W, E, P> {
    /// The sums of 2 × 2 tiles of C at a time, each over all k.
    #[inline(always)]
    fn run_on_tiles<S: Simd>(self, s: S, unit: amx::Unit) {
        let Task { product, b, mut block, .. } = self;
        let (k, all) = (product.depth / LANES, product.depth * LANES);
        let (mut tiles, mut sums) = (unit.tiles(), amx::Sums::zeroed());
        let mut seen = s.splat(0.0);
        for first_panel in block.panels().step_by(amx::PANELS) {
            let panels = first_panel..block.panels().end.min(first_panel + amx::PANELS);
            let b = &b.data()[first_panel * all..][..panels.len() * all];
            for first in block.rows().step_by(amx::ROWS) {
                let rows = first..block.rows().end.min(first + amx::ROWS);
                if E::WEIGHTS {
                    // The sums leave the lines time to come.
                    for row in rows.clone() {
                        block.prefetch(s, row, panels.clone());
                    }
                }
                let a = &product.a.data()[first / LANES * all..];
                tiles.multiply(k, &a[..rows.len().div_ceil(LANES) * all], b, &mut sums);
                for (panel, sums) in panels.clone().zip(sums.0.chunks(amx::ROWS)) {
                    for (row, c) in rows.clone().zip(sums) {
                        let mut out = block.row(row, panel);
                        seen = product.epilogue.finish(s, &mut out, (row, panel), s.load(c), seen);
                    }
                }
            }
            if product.epilogue.whole_panels() {
                for panel in panels {
                    product.epilogue.panel(s, &mut block, panel);
                }
            }
        }
        product.epilogue.seen(s, seen);
        block.copy(s);
    }
}

/// The part of a product with a row-major B that one thread computes.
struct PackingTask<'t, 'a> {
    product: &'t Product<'a, Rows, Store>,
    b: &'t Pack<'a>,
    block: Block<'t, 1>,
}

impl Kernel for PackingTask<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (depth, rows, panels) = (self.product.depth, self.block.rows(), self.block.panels());
        let mut work = Work::new(self.product, self.block, false);
        let mut packed = PackedB::new();
        for first in (0..depth.max(1)).step_by(PACKED_DEPTH) {
            let k = first..depth.min(first + PACKED_DEPTH);
            for (i, panel) in panels.clone().enumerate() {
                self.b.panel(s, panel, k.clone(), packed.reset(i, k.len()));
            }
            // A tile of A stays in L1 while the panels pass.
            let b: [&[f32]; PACKED_PANELS] = std::array::from_fn(|i| packed.panel(i));
            for first in rows.clone().step_by(LANES) {
                for group in blocking::tiles(0..panels.len(), S::TILE.panels) {
                    let b = &b[group.clone()];
                    for tile in blocking::tiles(first..rows.end.min(first + LANES), mr::<S>(b)) {
                        work.tile(s, tile, panels.start + group.start, k.clone(), b);
                    }
                }
            }
        }
        work.end(s);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    /// Both ways to run an optimiser on this machine's instruction sets: at once, and between the
    /// multiply-adds of the next tile.
    #[test]
    fn an_update_has_the_same_bits_deferred_and_at_once() {
        let (inputs, outputs) = (77, 90);
        for batch in [1, 16, 40, 200] {
            let values = |len: usize, seed: usize| {
                let mut buffer = Buffer::zeroed(len);
                let value = |i: usize| ((i * 7919 + seed) % 1009) as f32 / 1009.0 - 0.5;
                buffer.iter_mut().enumerate().for_each(|(i, x)| *x = value(i));
                buffer
            };
            let (x, dz) =
                (values(panel_len(inputs, batch), 1), values(panel_len(batch, outputs), 2));
            let mut first: Option<Vec<u32>> = None;
            for isa in Isa::available().filter(|&isa| isa != Isa::Amx) {
                for (defers, threads) in [(true, 1), (false, 1), (true, 2), (false, 2)] {
                    let context = Context::new(isa, threads).unwrap();
                    let mut planes = [3, 4, 5].map(|seed| values(panel_len(inputs, outputs), seed));
                    planes[2].iter_mut().for_each(|u| *u = u.abs());
                    let (a, b) = (Panels::new(&x, inputs, batch), Panels::new(&dz, batch, outputs));
                    let rule = Rule::Adam {
                        learning_rate: 1e-2,
                        beta1: 0.9,
                        beta2: 0.99,
                        epsilon: 1e-8,
                        corrections: [0.5, 0.25],
                    };
                    let diverged = AtomicBool::new(false);
                    let step = Step::new(rule, 1e-3);
                    let epilogue = Update { step, max_norm: None, diverged: &diverged };
                    let product = Product { walk: Lanes, a, depth: batch, beta: 0.0, epilogue };
                    let c = planes.each_mut().map(|plane| PanelsMut::new(plane, inputs, outputs));
                    product.compute_as(defers, &context, b, Tiles::panels(c));
                    assert!(!diverged.into_inner());
                    let found: Vec<_> =
                        planes.iter().flat_map(|p| p.iter()).map(|x| x.to_bits()).collect();
                    assert!(
                        *first.get_or_insert_with(|| found.clone()) == found,
                        "{isa}, {defers}"
                    );
                }
            }
        }
    }
}
