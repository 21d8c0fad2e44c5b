//! Single and double precision, bit for bit.

use super::random::{binary, ternary, unary};
use crate::support::rounding::{MODES, add_f32, div_f32, flush, fma_f32, mul_f32, sqrt_f32};

#[test]
fn nearest() {
    binary("add.rn.f32", |a: f32, b: f32| a + b);
    binary("sub.rn.f32", |a: f32, b: f32| a - b);
    binary("mul.rn.f32", |a: f32, b: f32| a * b);
    ternary("fma.rn.f32", |a: f32, b: f32, c: f32| a.mul_add(b, c));
    binary("div.rn.f32", |a: f32, b: f32| a / b);
    unary("sqrt.rn.f32", |a: f32| a.sqrt());
    unary("rcp.rn.f32", |a: f32| 1.0 / a);
    binary("add.f64", |a: f64, b: f64| a + b);
    binary("mul.f64", |a: f64, b: f64| a * b);
    ternary("fma.rn.f64", |a: f64, b: f64, c: f64| a.mul_add(b, c));
    binary("div.rn.f64", |a: f64, b: f64| a / b);
    unary("sqrt.rn.f64", |a: f64| a.sqrt());
}

#[test]
fn directed() {
    for (name, mode) in MODES {
        binary(&format!("add.{name}.f32"), move |a: f32, b: f32| add_f32(a, b, mode));
        binary(&format!("mul.{name}.f32"), move |a: f32, b: f32| mul_f32(a, b, mode));
        ternary(&format!("fma.{name}.f32"), move |a: f32, b: f32, c: f32| fma_f32(a, b, c, mode));
        binary(&format!("div.{name}.f32"), move |a: f32, b: f32| div_f32(a, b, mode));
        unary(&format!("sqrt.{name}.f32"), move |a: f32| sqrt_f32(a, mode));
    }
}

#[test]
fn comparisons_and_extremes() {
    binary("setp.leu.f32", |a: f32, b: f32| !(a > b));
    binary("setp.neu.f64", |a: f64, b: f64| a != b);
    let least = |a: f32, b: f32| match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => a.min(b),
    };
    binary("min.f32", least);
    binary("max.f32", move |a: f32, b: f32| -least(-a, -b));
    binary(
        "min.NaN.f32",
        move |a: f32, b: f32| if a.is_nan() || b.is_nan() { f32::NAN } else { least(a, b) },
    );
    binary("add.ftz.f32", |a: f32, b: f32| flush(flush(a) + flush(b)));
    binary("add.sat.f32", |a: f32, b: f32| crate::support::rounding::saturate(a + b));
    binary("copysign.f32", |a: f32, b: f32| b.copysign(a));
}
