//! No kernel touches a byte beside the slices that it is given: every operand lies against a page
//! that may not be accessed, once at its end and once at its start, for every tail length, on every
//! instruction set. A stray access ends the test program with SIGSEGV.
//!
//! Under Miri, which sees stray accesses and data races itself, the operands are ordinary
//! allocations and the shapes few.
#![cfg(unix)]

mod common;

use common::{Data, contexts, provide_tiles};
use limbeck_kernels::bf16::{Along, Copies, Operand, Side, pack, words};
use limbeck_kernels::exp::exp_in_place;
use limbeck_kernels::gemm::{self, Factors, Layout, Packed, WeightStep};
use limbeck_kernels::input::Scaling;
use limbeck_kernels::random::{Dropout, Key};
use limbeck_kernels::softmax::{Distillation, Loss, log_softmax, softmax};
use limbeck_kernels::tanh::tanh_in_place;
use limbeck_kernels::update::{self, Rule};
use limbeck_kernels::{
    Activation, Context, MatMut, MatRef, Panels, PanelsMut, activation, input, panel_len, reduce,
};
use pages::Guarded;

/// Where a slice lies.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In the middle of a page.
    Middle,
    /// From the start of a page, behind one that may not be accessed.
    Start,
    /// Up to the end of a page, before one that may not be accessed.
    End,
}

#[cfg(not(miri))]
mod pages {
    use super::Place;
    use std::ops::{Deref, DerefMut};
    use std::ptr::{self, NonNull};

    /// A slice of values on pages of its own.
    pub struct Guarded<T> {
        pages: NonNull<libc::c_void>,
        bytes: usize,
        start: NonNull<T>,
        len: usize,
    }

    impl<T: Copy> Guarded<T> {
        pub fn new(values: &[T], place: Place) -> Self {
            // SAFETY: asks for a number.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
            let size = size_of_val(values);
            let inner = (size + 2 * align_of::<T>()).next_multiple_of(page);
            let bytes = inner + 2 * page;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: new pages at an address of the system's choice.
            let pages =
                unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
            assert_ne!(pages, libc::MAP_FAILED, "mmap");
            // SAFETY: the pages between the first and the last of this mapping.
            let opened = unsafe {
                libc::mprotect(pages.byte_add(page), inner, libc::PROT_READ | libc::PROT_WRITE)
            };
            assert_eq!(opened, 0, "mprotect");
            let offset = match place {
                Place::Middle => align_of::<T>(),
                Place::Start => 0,
                Place::End => inner - size,
            };
            // SAFETY: within the mapping, which has room for `size` bytes from here on.
            let start: *mut T = unsafe { pages.byte_add(page + offset) }.cast();
            // SAFETY: `start` is aligned, because pages, `offset` and `size` are, and has room.
            unsafe { ptr::copy_nonoverlapping(values.as_ptr(), start, values.len()) };
            let [pages, start] = [pages, start.cast()].map(|p| NonNull::new(p).expect("a mapping"));
            Self { pages, bytes, start: start.cast(), len: values.len() }
        }
    }

    impl<T> Drop for Guarded<T> {
        fn drop(&mut self) {
            // SAFETY: mapped in `new`, and nothing refers to it any more.
            unsafe { libc::munmap(self.pages.as_ptr(), self.bytes) };
        }
    }

    impl<T> Deref for Guarded<T> {
        type Target = [T];
        fn deref(&self) -> &[T] {
            // SAFETY: `len` values copied in `new`, owned by self.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
        }
    }

    impl<T> DerefMut for Guarded<T> {
        fn deref_mut(&mut self) -> &mut [T] {
            // SAFETY: `len` values copied in `new`, owned by self and borrowed exclusively.
            unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
        }
    }
}

#[cfg(miri)]
mod pages {
    use super::Place;
    use std::ops::{Deref, DerefMut};

    /// A slice of values, exactly as long as its allocation.
    pub struct Guarded<T>(Box<[T]>);

    impl<T: Copy> Guarded<T> {
        pub fn new(values: &[T], _: Place) -> Self {
            Self(values.into())
        }
    }

    impl<T> Deref for Guarded<T> {
        type Target = [T];
        fn deref(&self) -> &[T] {
            &self.0
        }
    }

    impl<T> DerefMut for Guarded<T> {
        fn deref_mut(&mut self) -> &mut [T] {
            &mut self.0
        }
    }
}

/// The operands of a kernel, all in one kind of place.
struct Operands {
    data: Data,
    place: Place,
}

impl Operands {
    fn put<T: Copy>(&self, values: &[T]) -> Guarded<T> {
        Guarded::new(values, self.place)
    }

    fn values(&mut self, len: usize) -> Guarded<f32> {
        let values = self.data.values(len);
        self.put(&values)
    }

    /// A panel matrix with zeros for padding.
    fn panels(&mut self, rows: usize, lanes: usize) -> Guarded<f32> {
        let panel = self.data.panel(rows, lanes);
        self.put(&panel.buffer)
    }

    /// A matrix as an operand of bf16.
    fn packed(
        &mut self,
        context: &Context,
        values: &[f32],
        (rows, lanes): (usize, usize),
        side: Side,
        along: Along,
    ) -> Guarded<f32> {
        let (depth, others) = along.of(rows, lanes);
        let mut packed = self.values(panel_len(words(depth), others));
        let src = Panels::new(values, rows, lanes);
        pack(context, src, Operand { along, side, words: &mut packed });
        packed
    }

    /// Takes a step of W; what it leaves of W and the moments.
    fn updated(
        &mut self,
        context: &Context,
        factors: Factors,
        rule: Rule,
        w: &mut [f32],
        (inputs, outputs): (usize, usize),
    ) -> Vec<f32> {
        let (mut v, mut u) = (self.panels(inputs, outputs), self.put(&vec![0.5; w.len()]));
        let moments: &mut [&mut [f32]] = &mut [&mut v, &mut u];
        let moments = &mut moments[..rule.moments()];
        let step = WeightStep { rule, weight_decay: 0.01, max_norm: Some(0.5) };
        let to = PanelsMut::new(w, inputs, outputs);
        assert!(gemm::weight_update(context, factors, step, to, moments));
        [&w[..], &v, &u].concat()
    }

    /// Room for both operands that a matrix can be.
    fn copies(&mut self, rows: usize, lanes: usize) -> [Guarded<f32>; 2] {
        [Along::Rows, Along::Lanes].map(|along| {
            let (depth, others) = along.of(rows, lanes);
            self.values(panel_len(words(depth), others))
        })
    }
}

/// Runs a kernel on every context with its operands in each place; all must give the same bits.
/// `LIMBECK_GUARD_THREADS` limits the threads, for tests/sanitizers.sh.
fn everywhere(name: &str, kernel: impl Fn(&Context, &mut Operands) -> Vec<f32>) {
    let most = std::env::var("LIMBECK_GUARD_THREADS").map_or(3, |most| most.parse().unwrap());
    for context in contexts().into_iter().filter(|context| context.pool.threads() <= most) {
        let run = |place| {
            let found = kernel(&context, &mut Operands { data: Data::new(7), place });
            found.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let want = run(Place::Middle);
        for place in [Place::Start, Place::End] {
            assert_eq!(run(place), want, "{name} on {} at the {place:?}", context.isa);
        }
    }
}

/// All of a test's sizes; under Miri every `every`th.
fn some<T>(sizes: impl Iterator<Item = T>, every: usize) -> impl Iterator<Item = T> {
    sizes.step_by(if cfg!(miri) { every } else { 1 })
}

/// Rows and lanes: each tail of 16 lanes behind none, one and two whole panels, and of rows.
fn shapes() -> impl Iterator<Item = (usize, usize)> {
    some((1..=48).map(|lanes| (5, lanes)).chain((1..=33).map(|rows| (rows, 19))), 23)
}

/// What the negative control's second process is told by.
#[cfg(not(miri))]
const OVERREAD: &str = "LIMBECK_GUARD_OVERREAD";

/// The guards themselves: a second process that reads one value too far dies of it.
#[cfg(not(miri))]
#[test]
fn a_stray_access_is_caught() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    if let Ok(place) = std::env::var(OVERREAD) {
        let place = if place == "start" { Place::Start } else { Place::End };
        let slice = Guarded::new(&[1.0f32; 5], place);
        let stray = match place {
            Place::Start => slice.as_ptr().wrapping_sub(1),
            _ => slice.as_ptr().wrapping_add(slice.len()),
        };
        // SAFETY: none: the address is mapped without access, which is what is tried.
        unsafe { stray.read_volatile() };
        return;
    }
    for place in ["start", "end"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_stray_access_is_caught"])
            .env(OVERREAD, place)
            .output()
            .unwrap();
        let (status, told) = (output.status, String::from_utf8_lossy(&output.stderr));
        let killed = [libc::SIGSEGV, libc::SIGBUS].map(Some).contains(&status.signal());
        // A sanitizer takes the signal and reports it.
        let reported = told.contains("Sanitizer") && told.contains("SEGV");
        assert!(killed || reported, "{place}: {status}: {told}");
    }
}

#[test]
fn exponentials_and_tanh() {
    for len in some(0..=50, 19) {
        everywhere(&format!("e^x and tanh x of {len}"), |context, operands| {
            let mut x = operands.values(len);
            exp_in_place(context.isa, &mut x);
            tanh_in_place(context.isa, &mut x);
            x.to_vec()
        });
    }
}

#[test]
fn activations() {
    for (rows, lanes) in shapes() {
        everywhere(&format!("f of [{rows}, {lanes}]"), |context, operands| {
            let dropout = Some(Dropout::new(Key::new(1, 2, 3), 0.4, lanes));
            let (mut y, mut dz) = (operands.panels(rows, lanes), operands.panels(rows, lanes));
            let to = PanelsMut::new(&mut y, rows, lanes);
            activation::forward(context, Some(Activation::Tanh), dropout, to);
            let (of, to) = (Panels::new(&y, rows, lanes), PanelsMut::new(&mut dz, rows, lanes));
            activation::backward(context, Activation::Tanh, dropout, of, to);
            [&y[..], &dz].concat()
        });
    }
}

#[test]
fn inputs() {
    for (size, batch) in shapes() {
        let name = format!("{batch} examples of {size}");
        let dropout = Dropout::new(Key::new(1, 1, 3), 0.4, batch);
        everywhere(&name, |context, operands| {
            let pixels: Vec<u8> = (0..size * batch).map(|i| i as u8).collect();
            let pixels = operands.put(&pixels);
            let reals = operands.values(size * batch);
            let (pixels, reals) = (&pixels[..], &reals[..]);
            let (means, scales) = (operands.values(size), operands.values(size));
            let uniform = Scaling::Uniform { scale: 0.1, shift: 0.2 };
            let mut all = Vec::new();
            for dropped in [None, Some(dropout)] {
                // Every example from its slice, then every example through the staging space.
                let mut staging = operands.put(&vec![0u8; size * batch]);
                let mut x = operands.values(panel_len(size, batch));
                let own = |i: usize| &pixels[i * size..][..size];
                let to = PanelsMut::new(&mut x, size, batch);
                input::load(context, |i, _| own(i), &mut staging, uniform, dropped, to);
                all.extend_from_slice(&x);
                let mut staging = operands.put(&vec![0f32; size * batch]);
                let to = PanelsMut::new(&mut x, size, batch);
                input::load(
                    context,
                    |i, space| {
                        space.copy_from_slice(&reals[i * size..][..size]);
                        space
                    },
                    &mut staging,
                    Scaling::Each { mean: &means, scale: &scales },
                    dropped,
                    to,
                );
                all.extend_from_slice(&x);
            }
            all
        });
    }
}

#[test]
fn softmax_and_losses() {
    for (classes, batch) in shapes() {
        everywhere(&format!("{batch} examples of {classes} classes"), |context, operands| {
            let (z, v) = (operands.panels(classes, batch), operands.panels(classes, batch));
            let labels: Vec<u16> = (0..batch).map(|i| (i % classes) as u16).collect();
            let labels = operands.put(&labels);
            let logits = Panels::new(&z, classes, batch);
            let mut out = operands.values(z.len());
            softmax(context, logits, 3.0, PanelsMut::new(&mut out, classes, batch));
            let mut all = out.to_vec();
            log_softmax(context, logits, 3.0, PanelsMut::new(&mut out, classes, batch));
            all.extend_from_slice(&out);
            for temperature in [1.0, 4.0, f32::INFINITY] {
                let task = Distillation {
                    teacher: Some(Panels::new(&v, classes, batch)),
                    labels: Some(&labels),
                    temperature,
                    soft_weight: 0.9,
                    hard_weight: 0.1,
                };
                let mut losses = operands.put(&vec![Loss::default(); logits.panels()]);
                let d_logits = PanelsMut::new(&mut out, classes, batch);
                task.gradient(context, logits, &mut losses, d_logits);
                all.extend_from_slice(&out);
                all.extend(losses.iter().map(|loss| (loss.soft + loss.hard) as f32));
            }
            all
        });
    }
}

#[test]
fn sums_and_norms() {
    for (rows, lanes) in shapes() {
        everywhere(&format!("[{rows}, {lanes}]"), |context, operands| {
            let dz = operands.panels(rows, lanes);
            let mut sums = operands.values(rows);
            reduce::row_sums(context, Panels::new(&dz, rows, lanes), &mut sums);
            let labels = vec![0; lanes];
            let errors = reduce::errors(context, Panels::new(&dz, rows, lanes), &labels);
            let mut w = operands.panels(rows, lanes);
            update::max_norm(context, 0.5, PanelsMut::new(&mut w, rows, lanes));
            [&sums[..], &w, &[errors as f32]].concat()
        });
    }
}

/// One with one moment, one with two.
const RULES: [Rule; 2] = [
    Rule::Nesterov { learning_rate: 0.05, momentum: 0.9 },
    Rule::Adam {
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        corrections: [0.1, 1e-3],
    },
];

#[test]
fn steps_and_averages() {
    for len in some((0..=5).map(|vectors| 16 * vectors).chain([(1 << 14) + 16]), 5) {
        for rule in RULES {
            everywhere(&format!("{rule:?} of {len}"), |context, operands| {
                let mut w = operands.values(len);
                let (grads, mut v) = (operands.values(len), operands.values(len));
                let positive: Vec<f32> = v.iter().map(|v| v.abs()).collect();
                let mut u = operands.put(&positive);
                let moments: &mut [&mut [f32]] = &mut [&mut v, &mut u];
                let moments = &mut moments[..rule.moments()];
                assert!(update::step(context, rule, 0.01, &mut w, &grads, moments));
                let mut average = operands.values(len);
                update::average(context, &w, 0.1, &mut average);
                update::add(context, &w, &mut v);
                [&w[..], &v, &u, &average].concat()
            });
        }
    }
}

/// M, N and K: each tail of the tile's rows, of its panels and of the depth.
fn products() -> impl Iterator<Item = (usize, usize, usize)> {
    let rows = (1..=33).map(|m| (m, 19, 7));
    let columns = (1..=65).map(|n| (9, n, 7));
    let depths = (0..=33).map(|k| (9, 19, k));
    let large = [(1, 1, 1), (49, 49, 49), (17, 97, 300)];
    some(rows.chain(columns).chain(depths).chain(large), 41)
}

#[test]
fn products_of_panels() {
    for (inputs, batch, outputs) in products() {
        let name = format!("{inputs} inputs, {batch} examples, {outputs} outputs");
        if outputs == 0 {
            continue;
        }
        everywhere(&name, |context, operands| {
            let (mut w, x) = (operands.panels(inputs, outputs), operands.panels(inputs, batch));
            let bias = operands.values(outputs);
            let mut y = operands.values(panel_len(outputs, batch));
            let dropout = Dropout::new(Key::new(1, 2, 3), 0.4, batch);
            gemm::forward(
                context,
                Factors::f32(Panels::new(&w, inputs, outputs), Panels::new(&x, inputs, batch)),
                &bias,
                Some(Activation::Relu),
                Some(dropout),
                PanelsMut::new(&mut y, outputs, batch),
            );
            let mut all = y.to_vec();
            let dz = operands.panels(outputs, batch);
            let dz = Panels::new(&dz, outputs, batch);
            let mut dx = operands.values(panel_len(inputs, batch));
            gemm::input_gradient(
                context,
                Factors::f32(Panels::new(&w, inputs, outputs), dz),
                Panels::new(&x, inputs, batch),
                Activation::Relu,
                Some(dropout),
                PanelsMut::new(&mut dx, inputs, batch),
            );
            all.extend_from_slice(&dx);
            let mut transposed = operands.values(panel_len(batch, outputs));
            gemm::transpose(context, dz, PanelsMut::new(&mut transposed, batch, outputs));
            let transposed = Panels::new(&transposed, batch, outputs);
            let mut dw = operands.values(panel_len(inputs, outputs));
            let x = Panels::new(&x, inputs, batch);
            gemm::weight_gradient(
                context,
                Factors::f32(x, transposed),
                PanelsMut::new(&mut dw, inputs, outputs),
            );
            all.extend_from_slice(&dw);
            for rule in RULES {
                let factors = Factors::f32(x, transposed);
                all.extend(operands.updated(context, factors, rule, &mut w, (inputs, outputs)));
            }
            all
        });
    }
}

#[test]
fn products_of_bf16_and_their_copies() {
    provide_tiles();
    for (inputs, batch, outputs) in products() {
        let name = format!("bf16, {inputs} inputs, {batch} examples, {outputs} outputs");
        if inputs == 0 || batch == 0 || outputs == 0 {
            continue;
        }
        everywhere(&name, |context, operands| {
            let (mut w, x) = (operands.panels(inputs, outputs), operands.panels(inputs, batch));
            let dz = operands.panels(outputs, batch);
            let bias = operands.values(outputs);
            let mut all = Vec::new();

            let a = operands.packed(context, &w, (inputs, outputs), Side::A, Along::Rows);
            let b = operands.packed(context, &x, (inputs, batch), Side::B, Along::Rows);
            let (a, b) =
                (Panels::new(&a, words(inputs), outputs), Panels::new(&b, words(inputs), batch));
            let mut y = operands.values(panel_len(outputs, batch));
            let [mut rows, mut lanes] = operands.copies(outputs, batch);
            let both = Copies::new((Side::B, Some(&mut rows)), (Side::A, Some(&mut lanes)));
            let (factors, relu) = (Factors::bf16(0.5, a, b, both), Some(Activation::Relu));
            let to = PanelsMut::new(&mut y, outputs, batch);
            gemm::forward(context, factors, &bias, relu, None, to);
            all.extend([&y[..], &rows, &lanes].concat());

            let a = operands.packed(context, &w, (inputs, outputs), Side::A, Along::Lanes);
            let b = operands.packed(context, &dz, (outputs, batch), Side::B, Along::Rows);
            let (a, b) =
                (Panels::new(&a, words(outputs), inputs), Panels::new(&b, words(outputs), batch));
            let mut dx = operands.values(panel_len(inputs, batch));
            let [mut rows, mut lanes] = operands.copies(inputs, batch);
            let both = Copies::new((Side::B, Some(&mut rows)), (Side::B, Some(&mut lanes)));
            let (factors, f) = (Factors::bf16(1.0, a, b, both), Activation::Relu);
            let to = PanelsMut::new(&mut dx, inputs, batch);
            let y = Panels::new(&x, inputs, batch);
            gemm::input_gradient(context, factors, y, f, None, to);
            all.extend([&dx[..], &rows, &lanes].concat());

            let a = operands.packed(context, &x, (inputs, batch), Side::A, Along::Lanes);
            let b = operands.packed(context, &dz, (outputs, batch), Side::B, Along::Lanes);
            let (a, b) =
                (Panels::new(&a, words(batch), inputs), Panels::new(&b, words(batch), outputs));
            for rule in RULES {
                let [mut rows, mut lanes] = operands.copies(inputs, outputs);
                let both = Copies::new((Side::A, Some(&mut rows)), (Side::A, Some(&mut lanes)));
                let factors = Factors::bf16(1.0, a, b, both);
                all.extend(operands.updated(context, factors, rule, &mut w, (inputs, outputs)));
                all.extend([&rows[..], &lanes].concat());
            }
            all
        });
    }
}

#[test]
fn products_of_row_major_matrices() {
    for (m, n, k) in products() {
        for layout in [Layout::Nn, Layout::Nt, Layout::Tn] {
            for beta in [0.0, 0.5] {
                everywhere(&format!("{layout:?}, {m}×{n}×{k}"), |context, operands| {
                    // Rows further apart than they are long; the last one ends the slice.
                    let mut matrix = |rows: usize, cols: usize| {
                        let stride = cols + 3;
                        let len = if rows == 0 { 0 } else { (rows - 1) * stride + cols };
                        (operands.values(len), stride)
                    };
                    let of_a = if layout == Layout::Tn { (k, m) } else { (m, k) };
                    let of_b = if layout == Layout::Nt { (n, k) } else { (k, n) };
                    let (a, a_stride) = matrix(of_a.0, of_a.1);
                    let (b, b_stride) = matrix(of_b.0, of_b.1);
                    let (mut c, c_stride) = matrix(m, n);
                    gemm::gemm(
                        context,
                        layout,
                        MatRef::new(&a, of_a.0, of_a.1, a_stride),
                        MatRef::new(&b, of_b.0, of_b.1, b_stride),
                        beta,
                        MatMut::new(&mut c, m, n, c_stride),
                        &mut Packed::default(),
                    );
                    c.to_vec()
                });
            }
        }
    }
}
