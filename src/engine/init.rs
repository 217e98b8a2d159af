//! Initial parameters.

use crate::engine::activation::{self, Activation};
use crate::engine::params::LayerParams;
use limbeck_kernels::PanelsMut;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Fills `params`: W ~ U(−a, a) with the a of [`activation::initial_bound`], b = 0.
///
/// The paper does not say how it initialised. Uniform rather than normal because it needs no
/// transcendental function, whose last bit differs between platforms.
///
/// The draw is ChaCha8, seeded with `seed`, one stream per layer, in the order of the model
/// file ([outputs, inputs]).
pub fn uniform(seed: u64, activation: Activation, layers: &[LayerParams], params: &mut [f32]) {
    params.fill(0.0);
    for (i, layer) in layers.iter().enumerate() {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(i as u64);
        let bound = activation::initial_bound(activation, layer.inputs, layer.outputs);
        let draw = |_| {
            // 24 bits, at the middle of their interval: symmetric about zero.
            let unit = (f64::from(rng.next_u32() >> 8) + 0.5) / f64::from(1u32 << 24);
            ((2.0 * unit - 1.0) * bound) as f32
        };
        let weight: Vec<f32> = (0..layer.inputs * layer.outputs).map(draw).collect();
        PanelsMut::new(&mut params[layer.weight.clone()], layer.inputs, layer.outputs)
            .copy_from_lane_major(&weight);
    }
}
