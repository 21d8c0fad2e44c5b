//! f16 and bf16 arithmetic, bit for bit.

use half::{bf16, f16};

use super::random::{binary, ternary};
use crate::support::Pair;
use crate::support::rounding::{BF16, F16, Mode, fma, round, sum};

fn half(x: f64) -> f16 {
    f16::from_f64(round(x, F16, Mode::Nearest))
}

fn brain(x: f64) -> bf16 {
    bf16::from_f64(round(x, BF16, Mode::Nearest))
}

#[test]
fn f16_arithmetic() {
    binary("add.f16", |a: f16, b: f16| half(sum(a.to_f64(), b.to_f64())));
    binary("mul.f16", |a: f16, b: f16| half(a.to_f64() * b.to_f64()));
    let mul_add =
        |a: f16, b: f16, c: f16| f16::from_f64(fma(a.to_f64(), b.to_f64(), c.to_f64(), F16, Mode::Nearest));
    ternary("fma.rn.f16", mul_add);
    ternary("fma.rn.f16x2", move |a: Pair<f16>, b: Pair<f16>, c: Pair<f16>| {
        Pair(mul_add(a.0, b.0, c.0), mul_add(a.1, b.1, c.1))
    });
    binary("sub.f16x2", |a: Pair<f16>, b: Pair<f16>| {
        Pair(half(sum(a.0.to_f64(), -b.0.to_f64())), half(sum(a.1.to_f64(), -b.1.to_f64())))
    });
}

#[test]
fn bf16_arithmetic() {
    let mul_add = |a: bf16, b: bf16, c: bf16| {
        bf16::from_f64(fma(a.to_f64(), b.to_f64(), c.to_f64(), BF16, Mode::Nearest))
    };
    ternary("fma.rn.bf16", mul_add);
    ternary("fma.rn.bf16x2", move |a: Pair<bf16>, b: Pair<bf16>, c: Pair<bf16>| {
        Pair(mul_add(a.0, b.0, c.0), mul_add(a.1, b.1, c.1))
    });
    binary("cvt.rn.bf16x2.f32", |a: f32, b: f32| Pair(brain(b.into()), brain(a.into())));
    binary("cvt.rn.f16x2.f32", |a: f32, b: f32| Pair(half(b.into()), half(a.into())));
}
