//! What each idea is worth: the teacher's training step, from three nested loops to the engine.
//!
//! 784-1200-1200-10, batch 128, dropout 0.2/0.5/0.5, SGD with momentum, random data. The variants
//! take turns and must find the same loss; those of the engine the same bits.

use limbeck_kernels::gemm::{self, Factors, Layout, Packed, WeightStep};
use limbeck_kernels::input::Scaling;
use limbeck_kernels::matrix::panel_len;
use limbeck_kernels::random::{Dropout, Key};
use limbeck_kernels::softmax::{Distillation, Loss};
use limbeck_kernels::update::{self, Rule};
use limbeck_kernels::{
    Activation, Buffer, Context, Isa, MatMut, MatRef, Panels, PanelsMut, input, peak, reduce,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::time::{Duration, Instant};

const WIDTHS: [usize; 4] = [784, 1200, 1200, 10];
const LAYERS: usize = WIDTHS.len() - 1;
const BATCH: usize = 128;
const RATES: [f32; 3] = [0.2, 0.5, 0.5];
const RULE: Rule = Rule::Sgd { learning_rate: 1e-3, momentum: 0.9 };
const ROUNDS: usize = 15;
/// Steps of a turn. The first is not counted: the caches are full of what others left there, and
/// the threads may sleep.
const STEPS: u64 = 5;

/// Pixels [B, D] and labels.
struct Data {
    pixels: Vec<u8>,
    labels: Vec<u16>,
}

fn dropout(layer: usize, step: u64) -> Dropout {
    Dropout::new(Key::new(0, layer as u64, step), RATES[layer], BATCH)
}

/// Row-major [inputs, outputs] weights of He's uniform initialisation.
fn initial() -> Vec<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let pairs = WIDTHS.windows(2);
    let layer = |w: &[usize]| {
        let scale = (6.0 / w[0] as f32).sqrt() / (1_u32 << 31) as f32;
        (0..w[0] * w[1]).map(|_| rng.next_u32() as i32 as f32 * scale).collect()
    };
    pairs.map(layer).collect()
}

/// C [m, n] = A·B, row-major, with the operands stored as `Layout` says.
type Multiply<'a> =
    dyn FnMut(Layout, (usize, usize, usize), &[f32], &[f32], &mut [f32]) + Send + 'a;

/// Three nested loops, in the order that reads and writes rows.
fn naive(layout: Layout, (m, n, k): (usize, usize, usize), a: &[f32], b: &[f32], c: &mut [f32]) {
    c.fill(0.0);
    match layout {
        Layout::Nn | Layout::Tn => {
            for p in 0..k {
                for i in 0..m {
                    let a = if layout == Layout::Nn { a[i * k + p] } else { a[p * m + i] };
                    let (b, c) = (&b[p * n..][..n], &mut c[i * n..][..n]);
                    c.iter_mut().zip(b).for_each(|(c, b)| *c += a * b);
                }
            }
        }
        Layout::Nt => {
            for i in 0..m {
                for j in 0..n {
                    let (a, b) = (&a[i * k..][..k], &b[j * k..][..k]);
                    c[i * n + j] = a.iter().zip(b).map(|(a, b)| a * b).sum();
                }
            }
        }
    }
}

/// A trainer of row-major matrices with a pass over memory for each operation.
struct RowMajor {
    w: Vec<Vec<f32>>,
    v: Vec<Vec<f32>>,
    bias: Vec<Vec<f32>>,
    v_bias: Vec<Vec<f32>>,
    /// [B, width]: inputs, then each layer's output.
    y: Vec<Vec<f32>>,
    dz: Vec<Vec<f32>>,
    dw: Vec<f32>,
}

impl RowMajor {
    fn new() -> Self {
        let zeros = |layer: usize| vec![0.0; WIDTHS[layer] * WIDTHS[layer + 1]];
        let units = |layer: usize| vec![0.0; WIDTHS[layer + 1]];
        let batch = |layer: usize| vec![0.0; BATCH * WIDTHS[layer]];
        Self {
            w: initial(),
            v: (0..LAYERS).map(zeros).collect(),
            bias: (0..LAYERS).map(units).collect(),
            v_bias: (0..LAYERS).map(units).collect(),
            y: (0..=LAYERS).map(batch).collect(),
            dz: (0..=LAYERS).map(batch).collect(),
            dw: vec![0.0; WIDTHS[1] * WIDTHS[2]],
        }
    }

    fn step(&mut self, data: &Data, step: u64, multiply: &mut Multiply) -> f64 {
        for (y, &pixel) in self.y[0].iter_mut().zip(&data.pixels) {
            *y = f32::from(pixel) * (1.0 / 255.0);
        }
        drop(&mut self.y[0], WIDTHS[0], dropout(0, step));
        for i in 0..LAYERS {
            let (inputs, outputs) = (WIDTHS[i], WIDTHS[i + 1]);
            let (below, above) = self.y.split_at_mut(i + 1);
            let z = &mut above[0];
            multiply(Layout::Nn, (BATCH, outputs, inputs), &below[i], &self.w[i], z);
            for row in z.chunks_exact_mut(outputs) {
                row.iter_mut().zip(&self.bias[i]).for_each(|(z, b)| *z += b);
            }
            if i + 1 < LAYERS {
                z.iter_mut().for_each(|z| *z = z.max(0.0));
                drop(z, outputs, dropout(i + 1, step));
            }
        }
        let loss = self.loss(data);
        for i in (0..LAYERS).rev() {
            let (inputs, outputs) = (WIDTHS[i], WIDTHS[i + 1]);
            let (below, above) = self.dz.split_at_mut(i + 1);
            let dz = &above[0];
            if i > 0 {
                let dx = &mut below[i];
                multiply(Layout::Nt, (BATCH, inputs, outputs), dz, &self.w[i], dx);
                let scale = dropout(i, step).scale();
                for (dx, &y) in dx.iter_mut().zip(&self.y[i]) {
                    *dx = if y > 0.0 { *dx * scale } else { 0.0 };
                }
            }
            let dw = &mut self.dw[..inputs * outputs];
            multiply(Layout::Tn, (inputs, outputs, BATCH), &self.y[i], dz, dw);
            sgd(&mut self.w[i], &mut self.v[i], dw);
            let mut db = vec![0.0; outputs];
            for row in dz.chunks_exact(outputs) {
                db.iter_mut().zip(row).for_each(|(sum, dz)| *sum += dz);
            }
            sgd(&mut self.bias[i], &mut self.v_bias[i], &db);
        }
        loss
    }

    /// Mean cross-entropy; writes its gradient.
    fn loss(&mut self, data: &Data) -> f64 {
        let classes = WIDTHS[LAYERS];
        let mut loss = 0.0;
        let rows = self.y[LAYERS].chunks_exact(classes);
        let gradients = self.dz[LAYERS].chunks_exact_mut(classes);
        for ((z, d), &label) in rows.zip(gradients).zip(&data.labels) {
            let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = z.iter().map(|z| (z - max).exp()).sum();
            loss += f64::from(sum.ln() + max - z[usize::from(label)]);
            for (class, (d, z)) in d.iter_mut().zip(z).enumerate() {
                let target = f32::from(u8::from(class == usize::from(label)));
                *d = ((z - max).exp() / sum - target) / BATCH as f32;
            }
        }
        loss / BATCH as f64
    }
}

fn drop(values: &mut [f32], width: usize, dropout: Dropout) {
    for (example, row) in values.chunks_exact_mut(width).enumerate() {
        for (unit, value) in row.iter_mut().enumerate() {
            *value = if dropout.keeps(unit, example) { *value * dropout.scale() } else { 0.0 };
        }
    }
}

fn sgd(w: &mut [f32], v: &mut [f32], g: &[f32]) {
    for ((w, v), g) in w.iter_mut().zip(v).zip(g) {
        *v = 0.9 * *v + g;
        *w -= 1e-3 * *v;
    }
}

/// The engine's way: panels, fused epilogues.
struct Engine {
    w: Vec<Buffer>,
    v: Vec<Buffer>,
    bias: Vec<Buffer>,
    v_bias: Vec<Buffer>,
    y: Vec<Buffer>,
    dz: Vec<Buffer>,
    dw: Buffer,
    transposed: Buffer,
    staging: Vec<u8>,
    losses: Vec<Loss>,
}

impl Engine {
    fn new() -> Self {
        let weights = |(layer, values): (usize, Vec<f32>)| {
            let (inputs, outputs) = (WIDTHS[layer], WIDTHS[layer + 1]);
            let lane_major: Vec<f32> =
                (0..inputs * outputs).map(|i| values[i % inputs * outputs + i / inputs]).collect();
            let mut panels = Buffer::zeroed(panel_len(inputs, outputs));
            PanelsMut::new(&mut panels, inputs, outputs).copy_from_lane_major(&lane_major);
            panels
        };
        let w: Vec<Buffer> = initial().into_iter().enumerate().map(weights).collect();
        let units = |layer: usize| Buffer::zeroed(WIDTHS[layer + 1].next_multiple_of(16));
        let batch = |layer: usize| Buffer::zeroed(panel_len(WIDTHS[layer], BATCH));
        Self {
            v: w.iter().map(|w| Buffer::zeroed(w.len())).collect(),
            dw: Buffer::zeroed(w.iter().map(|w| w.len()).max().unwrap_or(0)),
            w,
            bias: (0..LAYERS).map(units).collect(),
            v_bias: (0..LAYERS).map(units).collect(),
            y: (0..=LAYERS).map(batch).collect(),
            dz: (0..=LAYERS).map(batch).collect(),
            transposed: Buffer::zeroed(panel_len(BATCH, WIDTHS[1])),
            staging: vec![0; BATCH * WIDTHS[0]],
            losses: vec![Loss::default(); BATCH / 16],
        }
    }

    fn step(&mut self, context: &Context, data: &Data, step: u64, fused: bool) -> f64 {
        let size = WIDTHS[0];
        input::load(
            context,
            |i, _| &data.pixels[i * size..][..size],
            &mut self.staging,
            Scaling::Uniform { scale: 1.0 / 255.0, shift: 0.0 },
            Some(dropout(0, step)),
            PanelsMut::new(&mut self.y[0], size, BATCH),
        );
        for i in 0..LAYERS {
            let (inputs, outputs) = (WIDTHS[i], WIDTHS[i + 1]);
            let (below, above) = self.y.split_at_mut(i + 1);
            let hidden = i + 1 < LAYERS;
            gemm::forward(
                context,
                Factors::f32(
                    Panels::new(&self.w[i], inputs, outputs),
                    Panels::new(&below[i], inputs, BATCH),
                ),
                &self.bias[i],
                hidden.then_some(Activation::Relu),
                hidden.then(|| dropout(i + 1, step)),
                PanelsMut::new(&mut above[0], outputs, BATCH),
            );
        }
        let classes = WIDTHS[LAYERS];
        let task = Distillation {
            teacher: None,
            labels: Some(&data.labels),
            temperature: 1.0,
            soft_weight: 0.0,
            hard_weight: 1.0,
        };
        let logits = Panels::new(&self.y[LAYERS], classes, BATCH);
        let d_logits = PanelsMut::new(&mut self.dz[LAYERS], classes, BATCH);
        task.gradient(context, logits, &mut self.losses, d_logits);
        for i in (0..LAYERS).rev() {
            let (inputs, outputs) = (WIDTHS[i], WIDTHS[i + 1]);
            let (below, above) = self.dz.split_at_mut(i + 1);
            let dz = Panels::new(&above[0], outputs, BATCH);
            let x = Panels::new(&self.y[i], inputs, BATCH);
            if i > 0 {
                let w = Panels::new(&self.w[i], inputs, outputs);
                let dx = PanelsMut::new(&mut below[i], inputs, BATCH);
                gemm::input_gradient(
                    context,
                    Factors::f32(w, dz),
                    x,
                    Activation::Relu,
                    Some(dropout(i, step)),
                    dx,
                );
            }
            gemm::transpose(context, dz, PanelsMut::new(&mut self.transposed, BATCH, outputs));
            let dz_transposed = Panels::new(&self.transposed, BATCH, outputs);
            let moments = &mut [&mut self.v[i][..]];
            if fused {
                let w = PanelsMut::new(&mut self.w[i], inputs, outputs);
                let step = WeightStep { rule: RULE, weight_decay: 0.0, max_norm: None };
                gemm::weight_update(context, Factors::f32(x, dz_transposed), step, w, moments);
            } else {
                let dw = PanelsMut::new(&mut self.dw, inputs, outputs);
                gemm::weight_gradient(context, Factors::f32(x, dz_transposed), dw);
                let dw = &self.dw[..self.w[i].len()];
                update::step(context, RULE, 0.0, &mut self.w[i], dw, moments);
            }
            let mut db = vec![0.0; self.bias[i].len()];
            reduce::row_sums(context, dz, &mut db[..outputs]);
            let moments = &mut [&mut self.v_bias[i][..]];
            update::step(context, RULE, 0.0, &mut self.bias[i], &db, moments);
        }
        self.losses.iter().map(|loss| loss.hard).sum::<f64>() / BATCH as f64
    }
}

fn main() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut pixels = vec![0; BATCH * WIDTHS[0]];
    rng.fill_bytes(&mut pixels);
    let labels = (0..BATCH).map(|_| (rng.next_u32() % WIDTHS[LAYERS] as u32) as u16).collect();
    let data = Data { pixels, labels };
    let available = std::thread::available_parallelism().map_or(1, |n| n.get());
    let one = Context::new(Isa::best(), 1).expect("one thread");
    let all = Context::new(Isa::best(), available).expect("threads");

    let (mut loops, mut packing) = (RowMajor::new(), RowMajor::new());
    let [mut unfused, mut fused, mut threaded] = [(); 3].map(|()| Engine::new());
    let mut packed = Packed::default();
    let mut multiply =
        |layout, (m, n, k): (usize, usize, usize), a: &[f32], b: &[f32], c: &mut [f32]| {
            let (a_cols, b_cols) = (
                if layout == Layout::Tn { m } else { k },
                if layout == Layout::Nt { k } else { n },
            );
            let a = MatRef::new(a, a.len() / a_cols, a_cols, a_cols);
            let b = MatRef::new(b, b.len() / b_cols, b_cols, b_cols);
            gemm::gemm(&one, layout, a, b, 0.0, MatMut::new(c, m, n, n), &mut packed);
        };
    let mut times: [Vec<f64>; 5] = Default::default();
    let mut peaks: [Vec<f64>; 2] = Default::default();
    for round in 0..ROUNDS as u64 {
        // Seconds of a step, and the last loss.
        let time = |step: &mut dyn FnMut(u64) -> f64| {
            let mut loss = step(round * STEPS);
            let start = Instant::now();
            for number in 1..STEPS {
                loss = step(round * STEPS + number);
            }
            (start.elapsed().as_secs_f64() / (STEPS - 1) as f64, loss)
        };
        let probe = Duration::from_millis(3);
        peaks[0].push(peak::flops(&one, probe));
        peaks[1].push(peak::flops(&all, probe));
        let found = [
            time(&mut |number| loops.step(&data, number, &mut naive)),
            time(&mut |number| packing.step(&data, number, &mut multiply)),
            time(&mut |number| unfused.step(&one, &data, number, false)),
            time(&mut |number| fused.step(&one, &data, number, true)),
            all.pool.install(|| time(&mut |number| threaded.step(&all, &data, number, true))),
        ];
        for (times, (seconds, loss)) in times.iter_mut().zip(found) {
            times.push(seconds);
            assert!((loss - found[0].1).abs() < 1e-4 * found[0].1, "losses {found:?}");
        }
        assert!(found[2].1 == found[3].1 && found[3].1 == found[4].1, "bits of {found:?}");
    }
    let median = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let flop = 2.0 * BATCH as f64 * (2 * 784 * 1200 + 3 * 1200 * 1200 + 3 * 1200 * 10) as f64;
    println!("{}, {ROUNDS} rounds of {} steps, medians\n", one.isa, STEPS - 1);
    println!("| step | ms | GFLOP/s | share of peak | gain |\n|---|---|---|---|---|");
    let names = [
        "nested loops, a pass for each operation, 1 thread".to_string(),
        "+ microkernel, operands packed for each product".to_string(),
        "+ weights and activations kept in panels; bias, ReLU, dropout fused".to_string(),
        "+ optimiser fused into the weight gradient".to_string(),
        format!("+ {available} threads"),
    ];
    let mut before = None;
    for (i, (name, times)) in names.iter().zip(&times).enumerate() {
        let seconds = median(times);
        let rate = flop / seconds;
        let peak = median(&peaks[usize::from(i == 4)]);
        let gain = before.map_or(String::new(), |before: f64| format!("{:.2}×", before / seconds));
        println!(
            "| {name} | {:.2} | {:.1} | {:.0} % | {gain} |",
            1e3 * seconds,
            rate / 1e9,
            100.0 * rate / peak
        );
        before = Some(seconds);
    }
}
