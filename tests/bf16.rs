//! A training step in bf16 against f64 arithmetic that rounds where the documentation says.

mod common;

use common::{Minibatch, best, engine_step, engine_step_in, small_net, uniform};
use limbeck::engine::config::Precision;
use limbeck::engine::loss::LossSpec;
use limbeck::engine::mlp::Mlp;
use limbeck::engine::reference::Net;
use limbeck_kernels::bf16::round;
use limbeck_kernels::random::{Dropout, Key};
use ndarray::{Array2, Axis};

const SIZE: usize = 37;

fn batch(widths: &[usize], dropped: bool) -> Minibatch {
    let drop = |i: usize| Dropout::new(Key::new(5, i as u64, 0), [0.2, 0.5][i.min(1)], SIZE);
    let byte = |x: f64| ((x + 1.0) * 127.9) as u8;
    let classes = widths[widths.len() - 1];
    Minibatch {
        size: SIZE,
        pixels: uniform(1, SIZE * widths[0]).into_iter().map(byte).collect(),
        dropout: (0..widths.len() - 1).map(|i| dropped.then(|| drop(i))).collect(),
        teacher: Some(uniform(2, SIZE * classes).into_iter().map(|z| 4.0 * z as f32).collect()),
        labels: Some((0..SIZE).map(|i| (i % classes) as u16).collect()),
        objective: LossSpec { temperature: 4.0, soft_weight: 1.0, hard_weight: 0.3 },
    }
}

fn rounded(values: Array2<f64>) -> Array2<f64> {
    values.mapv(|x| f64::from(round(x as f32)))
}

/// The gradients of a ReLU net by f64 arithmetic, with the weights, each hidden layer's output and each
/// dZ rounded; pixels are whole numbers, and their scale multiplies the sums.
fn reference(model: &Mlp, batch: &Minibatch) -> Vec<f64> {
    let net = Net::new(model);
    let exact = batch.exact(model);
    let last = net.layers() - 1;
    let weight = |i: usize| rounded(net.weight(&net.params, i).to_owned());
    let mask = |i: usize| exact.masks.get(i).and_then(Option::as_ref);
    // Dropout's factor of the inputs multiplies the sums too.
    let dropout = batch.dropout[0].as_ref();
    let scale = model.input.scale * dropout.map_or(1.0, |dropout| dropout.scale());
    let scale = |i: usize| if i == 0 { f64::from(scale) } else { 1.0 };
    let pixels = Array2::from_shape_fn((batch.size, net.widths[0]), |(example, feature)| {
        let kept = dropout.is_none_or(|dropout| dropout.keeps(feature, example));
        f64::from(batch.pixels[example * net.widths[0] + feature]) * f64::from(u8::from(kept))
    });
    let mut activations = vec![pixels];
    for i in 0..=last {
        let z = activations[i].dot(&weight(i)) * scale(i) + net.bias(&net.params, i);
        activations.push(if i == last {
            z
        } else {
            let y = z.mapv(|z| z.max(0.0));
            rounded(match mask(i + 1) {
                Some(mask) => y * mask,
                None => y,
            })
        });
    }
    let mut dz = exact.d_logits(&activations[last + 1]);
    let mut grads = vec![0.0; net.params.len()];
    for i in (0..=last).rev() {
        dz = rounded(dz);
        let [start, bias, end] = net.place(i);
        let dw = activations[i].t().dot(&dz) * scale(i);
        grads[start..bias].iter_mut().zip(&dw).for_each(|(g, dw)| *g = *dw);
        grads[bias..end].iter_mut().zip(&dz.sum_axis(Axis(0))).for_each(|(g, db)| *g = *db);
        if i > 0 {
            let factor = batch.dropout[i].map_or(1.0, |dropout| f64::from(dropout.scale()));
            let active = activations[i].mapv(|y| if y > 0.0 { factor } else { 0.0 });
            dz = dz.dot(&weight(i).t()) * active;
        }
    }
    grads
}

/// ‖a − b‖ / ‖b‖.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

/// The sums' own rounding, 2⁻²⁴ each, is far below that of an operand, 2⁻⁹, and only now and then moves one
/// across the middle between two bf16. A rounding too many or too few would be seen.
#[test]
fn gradients_are_those_of_f64_with_rounded_operands() {
    let context = best(2);
    for (widths, dropped) in
        [(&[60, 40, 10][..], false), (&[60, 40, 10], true), (&[49, 33, 35, 7], true)]
    {
        let model = small_net(widths, 3);
        let batch = batch(widths, dropped);
        let of = |precision| {
            let step = engine_step_in(precision, &context, &model, &batch);
            Net::flatten(&model, &step.grads)
        };
        let (got, want) = (of(Precision::Bf16), reference(&model, &batch));
        let full = Net::flatten(&model, &engine_step(&context, &model, &batch).grads);
        for i in 0..widths.len() - 1 {
            let [start, bias, end] = Net::new(&model).place(i);
            for (what, range) in [("weights", start..bias), ("biases", bias..end)] {
                let (got, want, full) =
                    (&got[range.clone()], &want[range.clone()], &full[range.clone()]);
                let (off, coarse) = (distance(got, want), distance(full, want));
                assert!(off < 2e-4, "{widths:?} {what} of layer {i}: {off:e}");
                assert!(coarse > 5.0 * off, "{widths:?} {what} of layer {i}: {coarse:e}, {off:e}");
            }
        }
    }
}
