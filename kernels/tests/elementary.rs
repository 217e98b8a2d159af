//! e^x and tanh x against f64, and the same bits on every instruction set.

mod common;

use common::is_full;
use limbeck_kernels::reference::ulps;
use limbeck_kernels::{Context, Isa, LANES, exp, tanh};

/// A function, and what its documentation says of its error.
struct Function {
    name: &'static str,
    in_place: fn(Isa, &mut [f32]),
    exact: fn(f32) -> f64,
    /// The bound, in ULP.
    bound: f64,
    /// The largest error over all f32, and where it is.
    worst: (&'static str, f32),
}

const FUNCTIONS: [Function; 2] = [
    Function {
        name: "exp",
        in_place: exp::exp_in_place,
        exact: exact_exp,
        bound: exp::ULPS,
        worst: ("0.9781", 5.227424),
    },
    Function {
        name: "tanh",
        in_place: tanh::tanh_in_place,
        exact: |x| f64::from(x).tanh(),
        bound: tanh::ULPS,
        worst: ("2.4984", 4.5050907),
    },
];

/// e^x in f64, with an error far below an ULP of f32; 2¹²⁸ where f32 has infinity.
fn exact_exp(x: f32) -> f64 {
    let x = f64::from(x);
    if x.abs() < 2f64.powi(-20) {
        // The next term is below 2⁻⁶² of the sum.
        1.0 + x * (1.0 + x / 2.0)
    } else if x > 89.0 {
        2f64.powi(128)
    } else if x < -150.0 {
        0.0
    } else {
        x.exp()
    }
}

impl Function {
    fn of(&self, isa: Isa, mut x: [f32; LANES]) -> [f32; LANES] {
        (self.in_place)(isa, &mut x);
        x
    }

    /// The largest error of 16 arguments, with its argument; NaN must give NaN.
    fn worst_of(&self, isa: Isa, x: [f32; LANES]) -> (f64, f32) {
        let mut worst = (0.0, 0.0);
        for (x, got) in x.into_iter().zip(self.of(isa, x)) {
            let name = self.name;
            if x.is_nan() {
                assert!(got.is_nan(), "{name}({x}) = {got} on {isa}");
                continue;
            }
            let error = ulps((self.exact)(x), got);
            assert!(error < self.bound, "{name}({x:e}) = {got:e} on {isa}: {error} ULP");
            if error > worst.0 {
                worst = (error, x);
            }
        }
        worst
    }
}

fn vector(first: u32) -> [f32; LANES] {
    std::array::from_fn(|i| f32::from_bits(first + i as u32))
}

/// Every 61st vector of arguments on the best ISA; with `LIMBECK_FULL` all 2³² arguments.
#[test]
fn errors_are_below_the_documented_bounds() {
    let context = Context::new(Isa::best(), 2).unwrap();
    let every = if is_full() { 1 } else { 61 };
    for function in FUNCTIONS {
        const TASK: u32 = 1 << 20;
        let found = context.pool.map(1 << 12, |task| {
            let mut here = (0.0, 0.0);
            for first in (0..TASK).step_by(LANES * every) {
                let error = function.worst_of(context.isa, vector(task as u32 * TASK + first));
                if error.0 > here.0 {
                    here = error;
                }
            }
            here
        });
        let (error, x) = found.into_iter().fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
        if is_full() {
            let (worst, at) = function.worst;
            assert_eq!((format!("{error:.4}").as_str(), x), (worst, at), "{}", function.name);
        }
    }
}

#[test]
fn the_same_bits_on_every_isa() {
    for function in FUNCTIONS {
        for first in (0..u32::MAX - 16).step_by(16_001) {
            let want = function.of(Isa::Portable, vector(first));
            for isa in Isa::available() {
                for (want, got) in want.into_iter().zip(function.of(isa, vector(first))) {
                    assert!(want.to_bits() == got.to_bits() || want.is_nan() && got.is_nan());
                }
            }
        }
    }
}

#[test]
fn special_values_of_exp() {
    let smallest = f32::from_bits(1);
    let cases = [
        (0.0, 1.0),
        (-0.0, 1.0),
        (smallest, 1.0),
        (1.0, std::f32::consts::E),
        // e^x is 1.009·2⁻¹⁴⁹ and 0.496·2⁻¹⁴⁹: the smallest subnormal, and nothing.
        (-103.27, smallest),
        (-103.98, 0.0),
        (-104.0, 0.0),
        (-1e30, 0.0),
        (f32::NEG_INFINITY, 0.0),
        // The largest argument with e^x < 2¹²⁸ stays finite, the next does not.
        (f32::from_bits(0x42b1_7218), f32::INFINITY),
        (1e30, f32::INFINITY),
        (f32::INFINITY, f32::INFINITY),
    ];
    let [function, _] = FUNCTIONS;
    for isa in Isa::available() {
        for (x, want) in cases {
            assert_eq!(function.of(isa, [x; LANES]), [want; LANES], "exp({x}) on {isa}");
        }
        assert!(function.of(isa, [f32::from_bits(0x42b1_7217); LANES])[0].is_finite());
        assert!(function.of(isa, [f32::NAN; LANES]).iter().all(|y| y.is_nan()));
    }
}

#[test]
fn special_values_of_tanh() {
    let smallest = f32::from_bits(1);
    let cases = [
        (0.0, 0.0),
        // x³/3 is far below the last bit.
        (smallest, smallest),
        (f32::MIN_POSITIVE, f32::MIN_POSITIVE),
        (1e-10, 1e-10),
        // 1 − tanh x is below 2⁻²⁵ from x = 9.0109 on.
        (9.02, 1.0),
        (10.0, 1.0),
        (1e30, 1.0),
        (f32::INFINITY, 1.0),
    ];
    let [_, function] = FUNCTIONS;
    for isa in Isa::available() {
        for (x, want) in cases {
            for sign in [1.0, -1.0] {
                let [got, ..] = function.of(isa, [sign * x; LANES]);
                assert_eq!(got.to_bits(), (sign * want).to_bits(), "tanh({}) on {isa}", sign * x);
            }
        }
        assert!(function.of(isa, [f32::NAN; LANES]).iter().all(|y| y.is_nan()));
        // Odd, and never beyond ±1.
        for first in (0..0x7f80_0000).step_by(160_001) {
            let (x, minus_x) = (vector(first), vector(first).map(|x| -x));
            let (y, minus_y) = (function.of(isa, x), function.of(isa, minus_x));
            assert!(y.iter().zip(minus_y).all(|(y, minus_y)| y.to_bits() == (-minus_y).to_bits()));
            assert!(y.iter().all(|y| y.is_nan() || (0.0..=1.0).contains(y)));
        }
    }
}
