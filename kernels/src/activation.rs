//! What follows a hidden layer's product: the activation f and dropout.
//!
//! Y = mask ⊙ f(Z), dZ = dY ⊙ mask ⊙ f′(Z). Both derivatives are functions of f(Z), so Z is not kept.
//!
//! ReLU and its dropout are epilogues of [`crate::gemm`] and have no pass of their own in training.
//! tanh, some forty operations a value, is a pass over the product.

use crate::Context;
use crate::isa::{Kernel, dispatch};
use crate::matrix::{Panels, PanelsMut};
use crate::pool::chunks;
use crate::random::Dropout;
use crate::simd::{LANES, Simd};
use crate::tanh::tanh;
use std::{fmt, str::FromStr};

/// The activation f of the hidden layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// max(z, 0); f′ = 1 where f > 0, else 0.
    #[default]
    Relu,
    /// tanh z, see [`mod@crate::tanh`]; f′ = 1 − f².
    Tanh,
}

impl Activation {
    /// Every activation.
    pub const ALL: [Activation; 2] = [Activation::Relu, Activation::Tanh];

    /// f(z) for 16 values.
    #[inline(always)]
    pub(crate) fn forward<S: Simd>(self, s: S, z: S::F) -> S::F {
        match self {
            // NaN is the second operand, so it stays NaN and is noticed in the loss.
            Activation::Relu => s.max(s.splat(0.0), z),
            Activation::Tanh => tanh(s, z),
        }
    }

    /// dY·f′(z) for 16 values, from `y` = f(z).
    #[inline(always)]
    pub(crate) fn backward<S: Simd>(self, s: S, y: S::F, dy: S::F) -> S::F {
        let zero = s.splat(0.0);
        match self {
            Activation::Relu => s.select(s.gt(y, zero), dy, zero),
            Activation::Tanh => s.mul(dy, s.fma(s.sub(zero, y), y, s.splat(1.0))),
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Activation::Relu => "relu",
            Activation::Tanh => "tanh",
        })
    }
}

impl FromStr for Activation {
    type Err = String;

    /// Parses `relu` or `tanh`.
    fn from_str(name: &str) -> Result<Activation, String> {
        let found = Self::ALL.into_iter().find(|activation| activation.to_string() == name);
        found.ok_or_else(|| format!("unknown activation '{name}', expected relu or tanh"))
    }
}

/// Y ← mask ⊙ f(Y), in place; without an activation f is the identity.
///
/// # Panics
/// If Y does not have the lanes that `dropout` was made for.
pub fn forward(
    context: &Context,
    activation: Option<Activation>,
    dropout: Option<Dropout>,
    mut y: PanelsMut,
) {
    assert!(dropout.is_none_or(|dropout| dropout.width() == y.lanes()), "lanes of Y");
    let (len, cost) = ((y.rows() * LANES).max(1), 16 * y.data().len() / LANES);
    context.pool.for_each_part(chunks(y.data(), len), cost, |panel, values| {
        dispatch(context.isa, Forward { activation, dropout, panel, values });
    });
}

struct Forward<'a> {
    activation: Option<Activation>,
    dropout: Option<Dropout>,
    panel: usize,
    values: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (row, values) in self.values.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mut y = s.load(values);
            if let Some(activation) = self.activation {
                y = activation.forward(s, y);
            }
            if let Some(dropout) = &self.dropout {
                y = dropout.apply(s, row, self.panel * LANES, y);
            }
            s.store(y, values);
        }
    }
}

/// dZ ← dY ⊙ mask ⊙ f′(Z), in place of dY, from Y = mask ⊙ f(Z).
///
/// # Panics
/// If the shapes differ, or are not those that `dropout` was made for.
pub fn backward(
    context: &Context,
    activation: Activation,
    dropout: Option<Dropout>,
    y: Panels,
    mut dz: PanelsMut,
) {
    assert_eq!((y.rows(), y.lanes()), (dz.rows(), dz.lanes()), "shapes of Y and dZ");
    assert!(dropout.is_none_or(|dropout| dropout.width() == y.lanes()), "lanes of Y");
    let (len, cost) = ((dz.rows() * LANES).max(1), 16 * dz.data().len() / LANES);
    context.pool.for_each_part(chunks(dz.data(), len), cost, |panel, values| {
        dispatch(context.isa, Backward { activation, dropout, panel, y, values });
    });
}

struct Backward<'a> {
    activation: Activation,
    dropout: Option<Dropout>,
    panel: usize,
    y: Panels<'a>,
    values: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (row, values) in self.values.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mut y = s.load(self.y.row(row, self.panel));
            if let Some(dropout) = &self.dropout {
                y = s.div(y, s.splat(dropout.scale()));
            }
            let mut dz = self.activation.backward(s, y, s.load(values));
            if let Some(dropout) = &self.dropout {
                dz = dropout.apply(s, row, self.panel * LANES, dz);
            }
            s.store(dz, values);
        }
    }
}
