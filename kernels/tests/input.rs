//! Examples to f32 panels, with dropout.

mod common;

use common::{Data, Panel, load, same_bits_everywhere};
use limbeck_kernels::input::Scaling;
use limbeck_kernels::random::{Dropout, Key};
use limbeck_kernels::reference;

/// What [batch, size] values become, row-major [size, batch].
fn expected<T: Copy + Into<f64>>(values: &[T], size: usize, scale: f32, shift: f32) -> Vec<f32> {
    let inputs = reference::load(values, scale, shift);
    let batch = values.len() / size;
    (0..size * batch).map(|i| inputs[i % batch * size + i / batch]).collect()
}

#[test]
fn pixels_are_scaled_and_shifted_with_two_roundings() {
    let mut data = Data::new(40);
    // [0, 1], [−1, 1], standardised MNIST, and factors for which a fused multiply-add differs.
    let factors = [(1.0 / 255.0, 0.0), (2.0 / 255.0, -1.0), (0.012_728_7, -0.424_213), (0.1, 1e-3)];
    let (scale, shift) = factors[2];
    let fused = (0..=255u8).map(|p| f32::from(p).mul_add(scale, shift));
    let twice = reference::load(&(0..=255).collect::<Vec<u8>>(), scale, shift);
    assert!(fused.zip(twice).any(|(fused, twice)| fused != twice), "the factors tell them apart");

    for (size, batch) in [(1, 1), (3, 16), (28, 17), (784, 5), (97, 128), (300, 50)] {
        let pixels: Vec<u8> = (0..size * batch).map(|_| data.bits() as u8).collect();
        for (scale, shift) in factors {
            let name = format!("{batch} examples of {size} pixels · {scale} + {shift}");
            let got = same_bits_everywhere(&name, |context| {
                let mut x = Panel::unwritten(size, batch);
                load(context, &pixels, Scaling::Uniform { scale, shift }, None, x.view_mut());
                x.assert_padding_is_zero(&name);
                x.row_major()
            });
            assert_eq!(got, expected(&pixels, size, scale, shift), "{name}");
        }
    }
}

#[test]
fn every_pixel_value_is_loaded() {
    let pixels: Vec<u8> = (0..=255).collect();
    for (scale, shift) in [(1.0, 0.0), (1.0 / 255.0, -0.5)] {
        let got = same_bits_everywhere("every pixel", |context| {
            let mut x = Panel::unwritten(256, 1);
            load(context, &pixels, Scaling::Uniform { scale, shift }, None, x.view_mut());
            x.row_major()
        });
        assert_eq!(got, expected(&pixels, 256, scale, shift));
    }
}

#[test]
fn real_values_are_loaded_alike() {
    let mut data = Data::new(42);
    for (size, batch) in [(1, 1), (3, 16), (1040, 5), (97, 33)] {
        let values = data.values(size * batch);
        for (scale, shift) in [(1.0, 0.0), (0.1, 1e-3)] {
            let name = format!("{batch} examples of {size} values · {scale} + {shift}");
            let got = same_bits_everywhere(&name, |context| {
                let mut x = Panel::unwritten(size, batch);
                load(context, &values, Scaling::Uniform { scale, shift }, None, x.view_mut());
                x.assert_padding_is_zero(&name);
                x.row_major()
            });
            assert_eq!(got, expected(&values, size, scale, shift), "{name}");
        }
    }
}

#[test]
fn each_feature_has_a_scale_of_its_own() {
    let mut data = Data::new(43);
    for (size, batch) in [(1, 1), (3, 16), (1040, 5), (97, 33)] {
        let values = data.values(size * batch);
        // A mean that is large beside the deviations: x − mean comes first.
        let mean: Vec<f32> = data.values(size).iter().map(|m| 1e3 * m).collect();
        let scale = data.values(size);
        let values: Vec<f32> = values.iter().enumerate().map(|(i, v)| mean[i % size] + v).collect();
        let name = format!("{batch} examples of {size} standardised values");
        let got = same_bits_everywhere(&name, |context| {
            let mut x = Panel::unwritten(size, batch);
            let scaling = Scaling::Each { mean: &mean, scale: &scale };
            load(context, &values, scaling, None, x.view_mut());
            x.assert_padding_is_zero(&name);
            x.row_major()
        });
        let element = |i: usize| (values[i % batch * size + i / batch], i / batch);
        for (i, got) in got.into_iter().enumerate() {
            let (value, feature) = element(i);
            assert_eq!(got, (value - mean[feature]) * scale[feature], "{name}: element {i}");
        }
    }
}

#[test]
fn dropout_zeroes_or_scales_each_input() {
    let mut data = Data::new(41);
    for (size, batch) in [(1, 1), (50, 5), (31, 16), (40, 37)] {
        let pixels: Vec<u8> = (0..size * batch).map(|_| data.bits() as u8 | 1).collect();
        let dropout = Dropout::new(Key::new(3, 0, 9), 0.2, batch);
        let scaling = Scaling::Uniform { scale: 0.01, shift: 0.5 };
        assert_eq!(dropout.scale(), 1.25);
        let got = same_bits_everywhere("input dropout", |context| {
            let mut x = Panel::unwritten(size, batch);
            load(context, &pixels, scaling, Some(dropout), x.view_mut());
            x.assert_padding_is_zero("input dropout");
            x.row_major()
        });
        let whole = expected(&pixels, size, 0.01, 0.5);
        for (i, (got, whole)) in got.into_iter().zip(whole).enumerate() {
            let kept = dropout.keeps(i / batch, i % batch);
            assert_eq!(got, if kept { whole * 1.25 } else { 0.0 }, "element {i}");
        }
    }
}
