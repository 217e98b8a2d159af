//! bf16: rounding against the definition, and every product against the numerical contract, in exact
//! integer arithmetic.

mod common;

use common::{Data, EPS, Panel, assert_within, provide_tiles, same_bits_everywhere};
use limbeck_kernels::bf16::{
    Along, Copies, Operand, SMALLEST, Side, pack, round, round_all, words,
};
use limbeck_kernels::gemm::{
    Factors, WeightStep, forward, input_gradient, weight_gradient, weight_update,
};
use limbeck_kernels::random::{Dropout, Key};
use limbeck_kernels::update::Rule;
use limbeck_kernels::{Activation, Context};

/// The nearest bf16 by distance in f64, of two equally near ones the even one.
fn nearest(x: f32) -> f32 {
    if x.is_nan() || x.is_infinite() {
        return x;
    }
    if f64::from(x).abs() < 2f64.powi(-50) {
        return 0.0;
    }
    let low = x.to_bits() & 0xffff_0000;
    let value = |bits: u32| match f32::from_bits(bits) {
        // The next step of the largest exponent.
        v if v.is_infinite() => f64::from(v.signum()) * 2f64.powi(128),
        v => f64::from(v),
    };
    let distance = |bits: u32| (value(bits) - f64::from(x)).abs();
    let high = low + 0x1_0000;
    let up =
        distance(high) < distance(low) || distance(high) == distance(low) && low >> 16 & 1 == 1;
    f32::from_bits(if up { high } else { low })
}

#[test]
fn rounding_is_to_the_nearest_everywhere() {
    // Every upper half, with lower halves around the ties.
    let lower = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    let values: Vec<f32> = (0..1 << 16)
        .flat_map(|upper: u32| lower.map(|lower| f32::from_bits(upper << 16 | lower)))
        .collect();
    for &x in &values {
        let (got, want) = (round(x), nearest(x));
        let same = got.to_bits() == want.to_bits() || got == 0.0 && want == 0.0;
        assert!(same || got.is_nan() && want.is_nan(), "{x:e}: {got:e}, expected {want:e}");
    }
    let want: Vec<u32> = values.iter().map(|&x| round(x).to_bits()).collect();
    let got = same_bits_everywhere("round", |context| {
        let mut values = values.clone();
        round_all(context, &mut values);
        values.into_iter().map(|x| if x.is_nan() { f32::NAN } else { x }).collect()
    });
    for ((got, want), x) in got.iter().zip(want).zip(values) {
        assert_eq!(got.to_bits(), want, "{x:e}");
    }
}

/// Halves of a word, the first one first.
fn halves(word: f32) -> [f32; 2] {
    [word.to_bits() << 16, word.to_bits() & 0xffff_0000].map(f32::from_bits)
}

/// A matrix as an operand.
fn packed(context: &Context, src: &Panel, side: Side, along: Along) -> Panel {
    let (depth, others) = along.of(src.rows, src.lanes);
    let mut operand = Panel::unwritten(words(depth), others);
    pack(context, src.view(), Operand { along, side, words: &mut operand.buffer });
    operand
}

#[test]
fn operands_hold_rounded_neighbours_and_zeros_for_terms_beyond_the_edge() {
    let mut data = Data::new(20);
    for (rows, lanes) in [(1, 1), (2, 2), (3, 5), (16, 16), (17, 31), (30, 33), (31, 100), (5, 47)]
    {
        let mut src = data.panel(rows, lanes);
        // Padding that holds anything is no term of a sum.
        let padded: Vec<_> =
            (0..src.buffer.len()).filter(|i| i / (16 * rows) * 16 + i % 16 >= lanes).collect();
        padded.iter().for_each(|&i| src.buffer[i] = 3.0);
        for along in [Along::Rows, Along::Lanes] {
            // The value of one of the row's or lane's terms.
            let (depth, others) = along.of(rows, lanes);
            let at = |of: usize, term: usize| match along {
                _ if term >= depth => 0.0,
                Along::Rows => round(src.view().get(term, of)),
                Along::Lanes => round(src.view().get(of, term)),
            };
            assert_eq!(words(depth), 16 * depth.div_ceil(32));
            same_bits_everywhere("operands", |context| {
                let a = packed(context, &src, Side::A, along);
                let b = packed(context, &src, Side::B, along);
                for (operand, is_a) in [(&a, true), (&b, false)] {
                    for (index, &word) in operand.buffer.iter().enumerate() {
                        let (tile, row, column) = (index / 256, index / 16 % 16, index % 16);
                        let (block, k) = (tile / (words(depth) / 16), tile % (words(depth) / 16));
                        let (of, pair) = if is_a { (row, column) } else { (column, row) };
                        let (of, term) = (16 * block + of, 2 * (16 * k + pair));
                        if of >= others {
                            continue;
                        }
                        let want = [at(of, term), at(of, term + 1)];
                        assert_eq!(halves(word), want, "{rows}×{lanes}, {along:?}, word {index}");
                    }
                }
                [&a.buffer[..], &b.buffer[..]].concat()
            });
        }
    }
}

/// Units of exact sums: bf16 of numbers in ±(2⁻²⁴ … 1) are multiples of 2⁻³¹, their products of 2⁻⁶².
const UNIT: i32 = -62;

/// A multiple of the unit as the nearest f32, of two equally near ones the even one.
fn to_f32(exact: i128) -> f32 {
    let size = exact.unsigned_abs();
    let bits = 128 - size.leading_zeros();
    let excess = bits.saturating_sub(24);
    let (mut kept, rest) = (size >> excess, size & ((1 << excess) - 1));
    let half = 1_u128 << excess >> 1;
    if excess > 0 && (rest > half || rest == half && kept & 1 == 1) {
        kept += 1;
    }
    let value = kept as f64 * 2f64.powi(excess as i32 + UNIT);
    (if exact < 0 { -value } else { value }) as f32
}

fn to_units(x: f32) -> i128 {
    let units = f64::from(x) * 2f64.powi(-UNIT);
    assert!(units.fract() == 0.0 && units.abs() < 2f64.powi(100));
    units as i128
}

/// C of the contract for the terms a(k)·b(k), each operation exact and then rounded.
fn exact(depth: usize, a: impl Fn(usize) -> f32, b: impl Fn(usize) -> f32) -> f32 {
    let mut c = 0.0f32;
    for block in (0..depth).step_by(32) {
        let mut chains = [0.0f32; 2];
        for k in block..depth.min(block + 32) {
            // Multiples of 2⁻³¹.
            let [a, b] = [a(k), b(k)].map(|x| (f64::from(x) * 2f64.powi(31)) as i128);
            chains[k % 2] = to_f32(a * b + to_units(chains[k % 2]));
        }
        let both = to_f32(to_units(chains[0]) + to_units(chains[1]));
        c = to_f32(to_units(c) + to_units(both));
    }
    c
}

/// The same with the standard library's fused multiply-add, for numbers of any size.
fn fused(depth: usize, a: impl Fn(usize) -> f32, b: impl Fn(usize) -> f32) -> f32 {
    let mut c = 0.0f32;
    for block in (0..depth).step_by(32) {
        let mut chains = [0.0f32; 2];
        for k in block..depth.min(block + 32) {
            chains[k % 2] = a(k).mul_add(b(k), chains[k % 2]);
        }
        c += chains[0] + chains[1];
    }
    c
}

type Contract = fn(usize, &dyn Fn(usize) -> f32, &dyn Fn(usize) -> f32) -> f32;

/// (inputs, outputs, batch) around blocks of 32, tiles and panels, and deeper than a K block.
const LAYERS: [(usize, usize, usize); 14] = [
    (1, 1, 1),
    (2, 3, 2),
    (31, 17, 33),
    (32, 16, 32),
    (33, 30, 31),
    (64, 100, 17),
    (65, 10, 128),
    (100, 31, 5),
    (784, 10, 3),
    (17, 65, 97),
    (96, 33, 64),
    (11, 129, 47),
    (3, 2, 1000),
    (5000, 3, 2),
];

/// All three products of a layer against a contract, on every instruction set.
fn products_follow(contract: Contract, mut draw: impl FnMut(usize, usize) -> Panel) {
    provide_tiles();
    for shape in LAYERS {
        let (inputs, outputs, batch) = shape;
        let [w, x, dz] = [(inputs, outputs), (inputs, batch), (outputs, batch)]
            .map(|(rows, lanes)| draw(rows, lanes));
        let of = |panel: &Panel, row: usize, lane: usize| round(panel.view().get(row, lane));
        let check =
            |name: &str, got: Vec<f32>, columns: usize, want: &dyn Fn(usize, usize) -> f32| {
                for (i, got) in got.iter().enumerate() {
                    let want = want(i / columns, i % columns);
                    assert!(
                        got.to_bits() == want.to_bits(),
                        "{name} {shape:?}, value {i}: {got:e}, expected {want:e}"
                    );
                }
            };
        let got = same_bits_everywhere("forward", |context| {
            let (w, x) = (
                packed(context, &w, Side::A, Along::Rows),
                packed(context, &x, Side::B, Along::Rows),
            );
            let mut y = Panel::unwritten(outputs, batch);
            let bias = vec![0.0; outputs];
            forward(
                context,
                Factors::bf16(1.0, w.view(), x.view(), Copies::default()),
                &bias,
                None,
                None,
                y.view_mut(),
            );
            y.row_major()
        });
        check("forward", got, batch, &|unit, i| {
            // Adding the bias turns −0 into 0.
            contract(inputs, &|k| of(&w, k, unit), &|k| of(&x, k, i)) + 0.0
        });
        let y = Panel::from_row_major(inputs, batch, &vec![1.0; inputs * batch]);
        let got = same_bits_everywhere("input gradient", |context| {
            let w = packed(context, &w, Side::A, Along::Lanes);
            let dz = packed(context, &dz, Side::B, Along::Rows);
            let mut dx = Panel::unwritten(inputs, batch);
            let f = Activation::Relu;
            input_gradient(
                context,
                Factors::bf16(1.0, w.view(), dz.view(), Copies::default()),
                y.view(),
                f,
                None,
                dx.view_mut(),
            );
            dx.row_major()
        });
        check("input gradient", got, batch, &|input, i| {
            contract(outputs, &|k| of(&w, input, k), &|k| of(&dz, k, i))
        });
        let got = same_bits_everywhere("weight gradient", |context| {
            let x = packed(context, &x, Side::A, Along::Lanes);
            let dz = packed(context, &dz, Side::B, Along::Lanes);
            let mut dw = Panel::unwritten(inputs, outputs);
            weight_gradient(
                context,
                Factors::bf16(1.0, x.view(), dz.view(), Copies::default()),
                dw.view_mut(),
            );
            dw.assert_padding_is_zero("weight gradient");
            dw.row_major()
        });
        check("weight gradient", got, outputs, &|input, unit| {
            contract(batch, &|k| of(&x, input, k), &|k| of(&dz, unit, k))
        });
    }
}

#[test]
fn products_are_those_of_exact_arithmetic() {
    let mut data = Data::new(21);
    products_follow(|depth, a, b| exact(depth, a, b), |rows, lanes| data.panel(rows, lanes));
}

/// From below the smallest to where sums overflow, and what is not finite.
#[test]
fn products_of_numbers_of_all_sizes_follow_the_contract() {
    let mut data = Data::new(22);
    products_follow(
        |depth, a, b| fused(depth, a, b),
        |rows, lanes| {
            let value = |_| {
                let exponent = (data.bits() % 112) as i32 - 52;
                data.value().signum() * (1.0 + data.value().abs()) * 2f32.powi(exponent)
            };
            let values: Vec<f32> = (0..rows * lanes).map(value).collect();
            Panel::from_row_major(rows, lanes, &values)
        },
    );
}

/// What a product leaves in bf16 are the operands that its result would be packed to; activations and
/// gradients are rounded themselves, weights are not.
#[test]
fn copies_are_what_packing_gives() {
    provide_tiles();
    let mut data = Data::new(24);
    for (inputs, outputs, batch) in LAYERS.into_iter().chain([(120, 200, 130), (300, 97, 40)]) {
        let [w, x, dz, y] = [(inputs, outputs), (inputs, batch), (outputs, batch), (inputs, batch)]
            .map(|(rows, lanes)| data.panel(rows, lanes));
        let bias = data.values(outputs);
        let what = format!("{inputs} × {outputs}, {batch}");
        // C and its copies as `product` leaves them in place of `c`: C is `of` what it is without copies,
        // and they are what packing C gives.
        let check = |context: &Context,
                     sides: [Side; 2],
                     mut c: Panel,
                     of: fn(f32) -> f32,
                     product: &dyn Fn(Copies, &mut Panel)| {
            let bits = |of: &[f32]| of.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let mut plain = Panel { buffer: c.buffer.clone(), ..c };
            product(Copies::default(), &mut plain);
            let mut copies = [Along::Rows, Along::Lanes].map(|along| {
                let (depth, others) = along.of(c.rows, c.lanes);
                Panel::unwritten(words(depth), others)
            });
            let [rows, lanes] = &mut copies;
            let rows = (sides[0], Some(&mut rows.buffer[..]));
            let lanes = (sides[1], Some(&mut lanes.buffer[..]));
            product(Copies::new(rows, lanes), &mut c);
            plain.buffer.iter_mut().for_each(|x| *x = of(*x));
            assert!(bits(&c.buffer) == bits(&plain.buffer), "{what}");
            let mut all = c.buffer.to_vec();
            for ((copy, side), along) in copies.iter().zip(sides).zip([Along::Rows, Along::Lanes]) {
                let want = packed(context, &c, side, along);
                assert!(bits(&copy.buffer) == bits(&want.buffer), "{what}, {along:?}");
                all.extend_from_slice(&copy.buffer);
            }
            all
        };
        for f in [Activation::Relu, Activation::Tanh] {
            same_bits_everywhere(&what, |context| {
                let a = packed(context, &w, Side::A, Along::Rows);
                let b = packed(context, &x, Side::B, Along::Rows);
                let c = Panel::unwritten(outputs, batch);
                check(context, [Side::B, Side::A], c, round, &|copies, c| {
                    let factors = Factors::bf16(0.5, a.view(), b.view(), copies);
                    forward(context, factors, &bias, Some(f), None, c.view_mut());
                })
            });
            same_bits_everywhere(&what, |context| {
                let a = packed(context, &w, Side::A, Along::Lanes);
                let b = packed(context, &dz, Side::B, Along::Rows);
                let c = Panel::unwritten(inputs, batch);
                check(context, [Side::B, Side::B], c, round, &|copies, c| {
                    let factors = Factors::bf16(1.0, a.view(), b.view(), copies);
                    input_gradient(context, factors, y.view(), f, None, c.view_mut());
                })
            });
        }
        for max_norm in [None, Some(0.7)] {
            let rule = Rule::Sgd { learning_rate: 0.1, momentum: 0.9 };
            let step = WeightStep { rule, weight_decay: 0.01, max_norm };
            same_bits_everywhere(&what, |context| {
                let a = packed(context, &x, Side::A, Along::Lanes);
                let b = packed(context, &dz, Side::B, Along::Lanes);
                let c = Panel { buffer: w.buffer.clone(), ..w };
                check(context, [Side::A, Side::A], c, |w| w, &|copies, c| {
                    let factors = Factors::bf16(0.1, a.view(), b.view(), copies);
                    let mut v = vec![0.0; c.buffer.len()];
                    let moments = &mut [&mut v[..]];
                    assert!(weight_update(context, factors, step, c.view_mut(), moments));
                })
            });
        }
    }
}

#[test]
fn sums_are_scaled_before_the_bias_and_within_the_bound() {
    provide_tiles();
    let mut data = Data::new(23);
    let (inputs, outputs, batch) = (784, 30, 33);
    // Pixels, and weights as large as a net's.
    let pixels: Vec<f32> = (0..inputs * batch).map(|_| (data.bits() % 256) as f32).collect();
    let x = Panel::from_row_major(inputs, batch, &pixels);
    let w = data.panel(inputs, outputs);
    let bias = data.values(outputs);
    let dropout = Dropout::new(Key::new(7, 3, 0), 0.5, batch);
    let got = same_bits_everywhere("scaled", |context| {
        let (w, x) =
            (packed(context, &w, Side::A, Along::Rows), packed(context, &x, Side::B, Along::Rows));
        let mut y = Panel::unwritten(outputs, batch);
        let relu = Some(Activation::Relu);
        let dropout = Some(dropout);
        forward(
            context,
            Factors::bf16(1.0 / 255.0, w.view(), x.view(), Copies::default()),
            &bias,
            relu,
            dropout,
            y.view_mut(),
        );
        y.row_major()
    });
    let mut want = Vec::new();
    let mut bound = Vec::new();
    for (unit, &b) in bias.iter().enumerate() {
        for i in 0..batch {
            let terms = (0..inputs).map(|k| {
                let w = f64::from(w.view().get(k, unit));
                w * f64::from(pixels[k * batch + i]) / 255.0
            });
            let (sum, size) =
                terms.fold((0.0, 0.0), |(sum, size), term: f64| (sum + term, size + term.abs()));
            let b = f64::from(b);
            let kept = if dropout.keeps(unit, i) { f64::from(dropout.scale()) } else { 0.0 };
            want.push((sum + b).max(0.0) * kept);
            // The weights' rounding, 2⁻⁹; the sum's; and those of scale, bias and dropout.
            let roundings = 17.0 + (inputs as f64 / 32.0).ceil() + 4.0;
            bound.push(kept * (size * 2f64.powi(-9) + roundings * EPS * (size * 1.01 + b.abs())));
        }
    }
    assert_within("scaled", &got, &want, &bound);
}

#[test]
fn what_is_not_finite_stays_visible() {
    provide_tiles();
    for (bad, seen) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::MAX, "inf")] {
        let x = Panel::from_row_major(3, 2, &[1.0, bad, 0.5, 0.25, 2.0, 1.0]);
        let w = Panel::from_row_major(3, 1, &[1.0, 0.5, 0.25]);
        let got = same_bits_everywhere("not finite", |context| {
            let (w, x) = (
                packed(context, &w, Side::A, Along::Rows),
                packed(context, &x, Side::B, Along::Rows),
            );
            let mut y = Panel::unwritten(1, 2);
            let relu = Some(Activation::Relu);
            forward(
                context,
                Factors::bf16(1.0, w.view(), x.view(), Copies::default()),
                &[0.0],
                relu,
                None,
                y.view_mut(),
            );
            y.row_major().into_iter().map(|y| if y.is_nan() { f32::NAN } else { y }).collect()
        });
        assert_eq!(got[0], 1.75);
        assert_eq!(got[1].to_string(), seen, "{bad}");
    }
    assert_eq!(
        [round(SMALLEST), round(-SMALLEST), round(SMALLEST * 0.999)],
        [SMALLEST, -SMALLEST, 0.0]
    );
}
