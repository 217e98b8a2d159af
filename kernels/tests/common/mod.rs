//! What the kernels' tests share: every instruction set with several thread counts, seeded data,
//! panel matrices, and error bounds.
#![allow(dead_code, reason = "each test binary uses a part")]

use limbeck_kernels::random::Dropout;
use limbeck_kernels::{
    Buffer, Context, Isa, Panels, PanelsMut, Pool, amx,
    input::{self, Scaling, Value},
    panel_len,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::io::Write;
use std::sync::Once;

pub use limbeck_kernels::reference::EPSILON as EPS;

/// Whether the tests that are sampled by default run in full, as `.ci/run` has them.
pub fn is_full() -> bool {
    std::env::var_os("LIMBECK_FULL").is_some()
}

/// Whether `LIMBECK_REQUIRE` lists it.
fn is_required(isa: Isa) -> bool {
    let required = std::env::var("LIMBECK_REQUIRE").unwrap_or_default();
    required.split(',').any(|name| name.trim() == isa.to_string())
}

/// Makes tiles available, by emulation unless the machine has them or `LIMBECK_REQUIRE` lists them.
pub fn provide_tiles() {
    if !is_required(Isa::Amx) {
        amx::emulate();
    }
}

/// Every available instruction set with 1, 2 and 3 threads, which share even the smallest job.
///
/// A missing one is named on stderr, or fails the test if `LIMBECK_REQUIRE` lists it.
pub fn contexts() -> Vec<Context> {
    static REPORT: Once = Once::new();
    let missing = || Isa::ALL.into_iter().filter(|isa| !isa.is_available());
    if let Some(isa) = missing().find(|isa| is_required(*isa)) {
        panic!("LIMBECK_REQUIRE asks for {isa}, which this CPU does not have");
    }
    // Not eprintln!, which the test harness hides when the test passes.
    REPORT.call_once(|| {
        for isa in missing() {
            writeln!(std::io::stderr(), "skipped: {isa}, which this CPU does not have")
                .expect("stderr");
        }
    });
    Isa::available()
        .flat_map(|isa| {
            (1..=3).map(move |threads| Context { isa, pool: Pool::new(threads).unwrap().eager() })
        })
        .collect()
}

/// Runs `work` on every context and asserts that all give the bits of the first, which it returns.
pub fn same_bits_everywhere(what: &str, mut work: impl FnMut(&Context) -> Vec<f32>) -> Vec<f32> {
    let mut first: Option<Vec<f32>> = None;
    for context in contexts() {
        let got = work(&context);
        let want = first.get_or_insert_with(|| got.clone());
        assert_eq!(got.len(), want.len());
        let (isa, threads) = (context.isa, context.pool.threads());
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            assert_eq!(
                got.to_bits(),
                want.to_bits(),
                "{what}: value {i} on {isa} with {threads} threads is {got}, on the first {want}"
            );
        }
    }
    first.expect("at least the portable ISA")
}

/// Asserts |got − want| ≤ bound elementwise; the bound has room for f64's own rounding.
pub fn assert_within(what: &str, got: &[f32], want: &[f64], bound: &[f64]) {
    assert_eq!((got.len(), bound.len()), (want.len(), want.len()), "{what}: lengths");
    for (i, ((&got, &want), &bound)) in got.iter().zip(want).zip(bound).enumerate() {
        let error = (f64::from(got) - want).abs();
        assert!(
            error <= bound * (1.0 + 1e-6),
            "{what}: value {i} is {got}, expected {want}: error {error:e} above {bound:e}"
        );
    }
}

/// X from `values` [B, D]; every other example is written to the staging space.
pub fn load<T: Value>(
    context: &Context,
    values: &[T],
    scaling: Scaling,
    dropout: Option<Dropout>,
    x: PanelsMut,
) {
    let size = x.rows();
    let example = |i: usize| &values[i * size..][..size];
    let mut staging = vec![T::default(); values.len()];
    input::load(
        context,
        |i, space| {
            if i % 2 == 0 {
                return example(i);
            }
            space.copy_from_slice(example(i));
            space
        },
        &mut staging,
        scaling,
        dropout,
        x,
    );
}

/// A seeded source of test data.
pub struct Data(ChaCha8Rng);

impl Data {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    pub fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Uniform in ±(2⁻²⁴ … 1), never zero.
    pub fn value(&mut self) -> f32 {
        let bits = self.bits();
        let magnitude = ((bits >> 8) + 1) as f32 * EPS as f32;
        if bits & 1 == 0 { magnitude } else { -magnitude }
    }

    pub fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.value()).collect()
    }

    /// Integers in −4 … 4 without zero.
    pub fn integers(&mut self, len: usize) -> Vec<f32> {
        const INTEGERS: [f32; 8] = [-4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0];
        (0..len).map(|_| INTEGERS[(self.bits() >> 29) as usize]).collect()
    }

    /// A panel matrix of [`Data::value`]s.
    pub fn panel(&mut self, rows: usize, lanes: usize) -> Panel {
        Panel::from_row_major(rows, lanes, &self.values(rows * lanes))
    }
}

/// An owned panel matrix.
pub struct Panel {
    pub buffer: Buffer,
    pub rows: usize,
    pub lanes: usize,
}

impl Panel {
    /// Filled with NaN, padding too: whatever is not written is found.
    pub fn unwritten(rows: usize, lanes: usize) -> Self {
        let mut buffer = Buffer::zeroed(panel_len(rows, lanes));
        buffer.fill(f32::NAN);
        Self { buffer, rows, lanes }
    }

    /// From row-major [rows, lanes]; padding is zero.
    pub fn from_row_major(rows: usize, lanes: usize, values: &[f32]) -> Self {
        let mut buffer = Buffer::zeroed(panel_len(rows, lanes));
        for row in 0..rows {
            for lane in 0..lanes {
                buffer[(lane / 16 * rows + row) * 16 + lane % 16] = values[row * lanes + lane];
            }
        }
        Self { buffer, rows, lanes }
    }

    pub fn view(&self) -> Panels<'_> {
        Panels::new(&self.buffer, self.rows, self.lanes)
    }

    pub fn view_mut(&mut self) -> PanelsMut<'_> {
        PanelsMut::new(&mut self.buffer, self.rows, self.lanes)
    }

    /// Row-major [rows, lanes], without padding.
    pub fn row_major(&self) -> Vec<f32> {
        let view = self.view();
        let row = |row| (0..self.lanes).map(move |lane| view.get(row, lane));
        (0..self.rows).flat_map(row).collect()
    }

    /// The padding lanes' values.
    pub fn padding(&self) -> Vec<f32> {
        let view = self.view();
        let row = |row| (self.lanes..view.panels() * 16).map(move |lane| view.get(row, lane));
        (0..self.rows).flat_map(row).collect()
    }

    pub fn assert_padding_is_zero(&self, what: &str) {
        assert!(self.padding().iter().all(|&x| x == 0.0), "{what}: padding is not zero");
    }
}

pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

pub fn magnitudes(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x).abs()).collect()
}
