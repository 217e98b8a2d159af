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
//!   LOOP 2  K in blocks of kc                         B's micropanel stays in L1
//!     LOOP 1  panels of B
//!       LOOP 0  tiles of at most MR rows → microkernel, at the end of K the epilogue
//! ```
//!
//! **Numerics**: every element of C is one chain of fused multiply-adds in ascending k. C is
//! kept in f32 between K blocks, which does not break the chain, so neither block sizes nor
//! threads nor the ISA change a bit. |C − exact| ≤ K·ε·(|A|·|B|) with ε = 2⁻²⁴.

mod blocking;
mod epilogue;
mod microkernel;
mod pack;
mod tiles;

pub use pack::transpose;

use crate::Context;
use crate::buffer::Buffer;
use crate::isa::{Kernel, dispatch};
use crate::matrix::{MatMut, MatRef, Panels, PanelsMut, panel_len};
use crate::random::Dropout;
use crate::simd::{LANES, Simd};
use crate::update::Rule;
use blocking::Blocking;
use epilogue::{Activate, ActivateGradient, Epilogue, Store, Update};
use microkernel::{Walk, microkernel};
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use tiles::{Block, Tiles};

/// A layer: Y = dropout(relu(Wᵀ·X + b)). `bias` has one value per output.
///
/// # Panics
/// If the shapes of W [inputs, outputs], X [inputs, batch] and Y [outputs, batch] do not fit.
pub fn forward(
    context: &Context,
    w: Panels,
    x: Panels,
    bias: &[f32],
    relu: bool,
    dropout: Option<Dropout>,
    y: PanelsMut,
) {
    assert_eq!(w.rows(), x.rows(), "inputs of W and X");
    assert_eq!((y.rows(), y.lanes()), (w.lanes(), x.lanes()), "shape of Y");
    let bias = &bias[..w.lanes()];
    let epilogue = Activate { bias, relu, dropout };
    Product { walk: Walk::Rows, a: w, b: x, beta: 0.0, epilogue }
        .compute(context, Tiles::panels([y]));
}

/// The gradient of a layer's input, taken through the activation Y of the layer below:
/// dZ_below = (W·dZ) · `scale` where Y > 0, else 0. `scale` is that layer's dropout scale.
///
/// # Panics
/// If the shapes of W [inputs, outputs], dZ [outputs, batch], Y and dX [inputs, batch] do not fit.
pub fn input_gradient(
    context: &Context,
    w: Panels,
    dz: Panels,
    y: Panels,
    scale: f32,
    dx: PanelsMut,
) {
    assert_eq!(w.lanes(), dz.rows(), "outputs of W and dZ");
    assert_eq!((dx.rows(), dx.lanes()), (w.rows(), dz.lanes()), "shape of dX");
    assert_eq!((y.rows(), y.lanes()), (dx.rows(), dx.lanes()), "shape of Y");
    let epilogue = ActivateGradient { y, scale };
    Product { walk: Walk::Lanes, a: w, b: dz, beta: 0.0, epilogue }
        .compute(context, Tiles::panels([dx]));
}

/// The gradient of the weights: dW = X·dZᵀ; `dz_transposed` [batch, outputs] comes from
/// [`transpose`].
///
/// # Panics
/// If the shapes of X [inputs, batch], dZᵀ and dW [inputs, outputs] do not fit.
pub fn weight_gradient(context: &Context, x: Panels, dz_transposed: Panels, dw: PanelsMut) {
    assert_eq!(x.lanes(), dz_transposed.rows(), "examples of X and dZ");
    assert_eq!((dw.rows(), dw.lanes()), (x.rows(), dz_transposed.lanes()), "shape of dW");
    Product { walk: Walk::Lanes, a: x, b: dz_transposed, beta: 0.0, epilogue: Store }
        .compute(context, Tiles::panels([dw]));
}

/// [`weight_gradient`] and an optimiser step on W in one: the gradient never reaches memory. Gives
/// the bits of [`crate::update::step`] on the gradient of [`weight_gradient`].
///
/// `moments` are as long as W, in its order. Returns whether every gradient was finite.
///
/// # Panics
/// If the shapes of X [inputs, batch], dZᵀ and W [inputs, outputs] do not fit, or the rule's
/// moments are missing.
pub fn weight_update(
    context: &Context,
    x: Panels,
    dz_transposed: Panels,
    rule: Rule,
    weight_decay: f32,
    w: PanelsMut,
    moments: &mut [&mut [f32]],
) -> bool {
    assert_eq!(x.lanes(), dz_transposed.rows(), "examples of X and dZ");
    assert_eq!((w.rows(), w.lanes()), (x.rows(), dz_transposed.lanes()), "shape of W");
    assert_eq!(moments.len(), rule.moments(), "moments of the rule");
    let (rows, lanes) = (w.rows(), w.lanes());
    let diverged = AtomicBool::new(false);
    let epilogue = Update { rule, weight_decay, diverged: &diverged };
    let product = Product { walk: Walk::Lanes, a: x, b: dz_transposed, beta: 0.0, epilogue };
    match moments {
        [v] => product.compute(context, Tiles::panels([w, PanelsMut::new(v, rows, lanes)])),
        [v, u] => {
            let moments = [v, u].map(|m| PanelsMut::new(m, rows, lanes));
            let [v, u] = moments;
            product.compute(context, Tiles::panels([w, v, u]));
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

/// Memory for the packed operands of [`gemm`], reused from call to call.
#[derive(Default)]
pub struct Packed {
    a: Option<Buffer>,
    b: Option<Buffer>,
}

/// Grows `buffer` to at least `len` values.
fn reserve(buffer: &mut Option<Buffer>, len: usize) -> &mut Buffer {
    if buffer.as_ref().is_none_or(|b| b.len() < len) {
        *buffer = Some(Buffer::zeroed(len));
    }
    buffer.as_mut().expect("just filled")
}

/// C ← A·B + beta·C for row-major matrices. C is not read when `beta` is 0.
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
    let (m, k) = if layout == Layout::Tn { (a.cols(), a.rows()) } else { (a.rows(), a.cols()) };
    let (k_of_b, n) =
        if layout == Layout::Nt { (b.cols(), b.rows()) } else { (b.rows(), b.cols()) };
    assert_eq!(k, k_of_b, "k of A and B");
    assert_eq!((c.rows(), c.cols()), (m, n), "shape of C");

    let packed_a = reserve(&mut packed.a, panel_len(k, m));
    let packed_b = reserve(&mut packed.b, panel_len(k, n));
    let pack_a = if layout == Layout::Tn { pack::pack } else { pack::pack_transposed };
    let pack_b = if layout == Layout::Nt { pack::pack_transposed } else { pack::pack };
    pack_a(context, a, PanelsMut::new(packed_a, k, m));
    pack_b(context, b, PanelsMut::new(packed_b, k, n));
    let (a, b) = (Panels::new(packed_a, k, m), Panels::new(packed_b, k, n));
    Product { walk: Walk::Rows, a, b, beta, epilogue: Store }.compute(context, Tiles::row_major(c));
}

/// Fewest rows of a task: two panels of A.
const MIN_ROWS: usize = 2 * LANES;
/// Tasks wanted per thread, so that a delayed thread holds up the others little.
const TASKS_PER_THREAD: usize = 16;

/// C ← epilogue(A∘B + beta·C), where `walk` says whether A∘B is Aᵀ·B or A·B.
struct Product<'a, E> {
    walk: Walk,
    a: Panels<'a>,
    b: Panels<'a>,
    beta: f32,
    epilogue: E,
}

impl<E> Product<'_, E> {
    fn compute<const P: usize>(self, context: &Context, c: Tiles<P>)
    where
        E: Epilogue<P>,
    {
        let (rows, panels, threads) = (c.rows(), c.panels_count(), context.pool.threads());
        if rows == 0 || panels == 0 {
            return;
        }
        // Split the rows, and the panels as well where the rows alone give too few tasks. The
        // sizes depend on the thread count; the result does not.
        let Blocking { kc, mc } = Blocking::of(context.isa);
        let kc = if E::ONE_PASS { self.b.rows().max(1) } else { kc };
        let tasks = threads * TASKS_PER_THREAD;
        let mc = rows.div_ceil(tasks).next_multiple_of(LANES).clamp(MIN_ROWS, mc);
        let panel_blocks =
            if threads == 1 { 1 } else { tasks.div_ceil(rows.div_ceil(mc)).min(panels) };
        c.for_each_block(&context.pool, mc, panels.div_ceil(panel_blocks), |block| {
            dispatch(context.isa, Task { product: &self, kc, block });
        });
    }
}

/// The part of a product that one thread computes.
struct Task<'t, 'a, E, const P: usize> {
    product: &'t Product<'a, E>,
    kc: usize,
    block: Block<'t, P>,
}

impl<E: Epilogue<P>, const P: usize> Kernel for Task<'_, '_, E, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let depth = self.product.b.rows();
        // A tile that is walked along A's rows must lie in one panel of A.
        let group = match self.product.walk {
            Walk::Rows => LANES,
            Walk::Lanes => self.block.rows().len(),
        };
        // With K = 0 one pass still writes beta·C through the epilogue.
        for first in (0..depth.max(1)).step_by(self.kc) {
            let k = first..depth.min(first + self.kc);
            for panel in self.block.panels() {
                let rows = self.block.rows();
                for first in rows.clone().step_by(group) {
                    for tile in blocking::tiles(first..rows.end.min(first + group), S::MR) {
                        self.tile(s, tile, panel, k.clone());
                    }
                }
            }
        }
    }
}

impl<E: Epilogue<P>, const P: usize> Task<'_, '_, E, P> {
    /// Chooses the microkernel for the tile's height.
    #[inline(always)]
    fn tile<S: Simd>(&mut self, s: S, rows: Range<usize>, panel: usize, k: Range<usize>) {
        macro_rules! heights {
            ($($mr:literal)+) => {
                match rows.len() {
                    $($mr if $mr <= S::MR => self.tile_of::<S, $mr>(s, rows.start, panel, k),)+
                    height => unreachable!("a tile of {height} rows"),
                }
            };
        }
        heights!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
    }

    /// One pass over `k` for C's rows `row` … `row + MR` in `panel`.
    #[inline(always)]
    fn tile_of<S: Simd, const MR: usize>(
        &mut self,
        s: S,
        row: usize,
        panel: usize,
        k: Range<usize>,
    ) {
        let Product { walk, a, b, beta, ref epilogue } = *self.product;
        let (continues, last) = (k.start > 0, k.end == b.rows());
        // Loops, not iterator closures: a closure is compiled without the ISA's features.
        let mut acc = [s.splat(0.0); MR];
        if continues || beta != 0.0 {
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = self.block.load(s, 0, row + r, panel);
                if !continues {
                    *acc = s.mul(s.splat(beta), *acc);
                }
            }
        }
        let acc = microkernel(s, walk, (a, b), row, panel, k, acc);
        for (r, acc) in acc.into_iter().enumerate() {
            if last {
                epilogue.finish(s, &mut self.block, row + r, panel, acc);
            } else {
                self.block.store(s, 0, row + r, panel, acc);
            }
        }
    }
}
