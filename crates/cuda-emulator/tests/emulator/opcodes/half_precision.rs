//! f16 arithmetic, scalar and packed: PTX ISA, "Half Precision Floating Point Instructions".

use half::f16;

use crate::support::rounding::{F16, Mode, fma, round, sum};
use crate::support::{Gpu, Pair, Table};

/// Rounds an exact or sticky double to the nearest f16. Doubles represent all f16 values, so the last step is exact.
fn nearest(x: f64) -> f16 {
    f16::from_f64(round(x, F16, Mode::Nearest))
}

fn add(a: f16, b: f16) -> f16 {
    nearest(sum(a.to_f64(), b.to_f64()))
}

fn sub(a: f16, b: f16) -> f16 {
    nearest(sum(a.to_f64(), -b.to_f64()))
}

fn mul(a: f16, b: f16) -> f16 {
    nearest(a.to_f64() * b.to_f64())
}

fn mul_add(a: f16, b: f16, c: f16) -> f16 {
    f16::from_f64(fma(a.to_f64(), b.to_f64(), c.to_f64(), F16, Mode::Nearest))
}

fn flush(a: f16) -> f16 {
    if a.is_normal() || a.is_nan() || a.is_infinite() { a } else { f16::ZERO.copysign(a) }
}

fn saturate(a: f16) -> f16 {
    if a.is_nan() || a.to_f32() <= 0.0 {
        f16::ZERO
    } else if a.to_f32() > 1.0 {
        f16::ONE
    } else {
        a
    }
}

fn relu(a: f16) -> f16 {
    if a.is_nan() {
        f16::NAN
    } else if a.to_f32() <= 0.0 {
        f16::ZERO
    } else {
        a
    }
}

fn minimum(a: f16, b: f16) -> f16 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => {
            if a < b {
                a
            } else {
                b
            }
        }
    }
}

fn maximum(a: f16, b: f16) -> f16 {
    -minimum(-a, -b)
}

/// Applies a function to both halves.
fn each(f: impl Fn(f16, f16) -> f16) -> impl Fn(Pair<f16>, Pair<f16>) -> Pair<f16> {
    move |a, b| Pair(f(a.0, b.0), f(a.1, b.1))
}

fn each_of_three(f: impl Fn(f16, f16, f16) -> f16) -> impl Fn(Pair<f16>, Pair<f16>, Pair<f16>) -> Pair<f16> {
    move |a, b, c| Pair(f(a.0, b.0, c.0), f(a.1, b.1, c.1))
}

#[test]
fn sums_and_products_round_to_nearest() {
    let mut table = Table::new();
    for (name, f) in [("add", add as fn(f16, f16) -> f16), ("sub", sub), ("mul", mul)] {
        table.binary(&format!("{name}.f16"), f);
        table.binary(&format!("{name}.rn.f16"), f);
        table.binary(&format!("{name}.f16x2"), each(f));
        table.binary(&format!("{name}.rn.f16x2"), each(f));
        table.binary(&format!("{name}.ftz.f16"), move |a, b| flush(f(flush(a), flush(b))));
        table.binary(&format!("{name}.sat.f16"), move |a, b| saturate(f(a, b)));
        table.binary(
            &format!("{name}.ftz.sat.f16x2"),
            each(move |a, b| saturate(flush(f(flush(a), flush(b))))),
        );
    }
    // A tie rounds to the even neighbour; the largest number plus half its ulp overflows.
    table.rows(
        "add.f16",
        &[
            ([f16::from_f32(2048.0), f16::ONE], f16::from_f32(2048.0)),
            ([f16::MAX, f16::from_f32(16.0)], f16::INFINITY),
        ],
    );
    table.rows(
        "add.f16",
        &[
            ([f16::from_f32(2050.0), f16::ONE], f16::from_f32(2052.0)),
            ([f16::MAX, f16::from_f32(15.0)], f16::MAX),
        ],
    );
    table.run(&Gpu::new());
}

#[test]
fn fused_multiply_adds_round_once() {
    let mut table = Table::new();
    table.ternary("fma.rn.f16", mul_add);
    table.ternary("fma.rn.f16x2", each_of_three(mul_add));
    table.ternary("fma.rn.ftz.f16", |a, b, c| flush(mul_add(flush(a), flush(b), flush(c))));
    table.ternary("fma.rn.sat.f16", |a, b, c| saturate(mul_add(a, b, c)));
    table.ternary("fma.rn.sat.f16x2", each_of_three(|a, b, c| saturate(mul_add(a, b, c))));
    table.ternary("fma.rn.relu.f16", |a, b, c| relu(mul_add(a, b, c)));
    table.ternary("fma.rn.relu.f16x2", each_of_three(|a, b, c| relu(mul_add(a, b, c))));
    // A product whose low bits f16 would round away: (1 + e)² - 1 - 2e = e².
    let a = f16::from_f32(1.0 + 1.0 / 1024.0);
    table
        .rows("fma.rn.f16", &[([a, a, f16::from_f32(-(1.0 + 2.0 / 1024.0))], f16::from_f32(2f32.powi(-20)))]);
    table.run(&Gpu::new());
}

#[test]
fn minimum_and_maximum_ignore_nan_and_order_zeros() {
    let mut table = Table::new();
    let strict = |f: fn(f16, f16) -> f16| {
        move |a: f16, b: f16| if a.is_nan() || b.is_nan() { f16::NAN } else { f(a, b) }
    };
    for (name, f) in [("min", minimum as fn(f16, f16) -> f16), ("max", maximum)] {
        table.binary(&format!("{name}.f16"), f);
        table.binary(&format!("{name}.f16x2"), each(f));
        table.binary(&format!("{name}.NaN.f16"), strict(f));
        table.binary(&format!("{name}.NaN.f16x2"), each(strict(f)));
        table.binary(&format!("{name}.ftz.f16"), move |a, b| f(flush(a), flush(b)));
    }
    table.run(&Gpu::new());
}

#[test]
fn signs() {
    let mut table = Table::new();
    table.unary("neg.f16", |a: f16| -a);
    table.unary("neg.f16x2", |a: Pair<f16>| Pair(-a.0, -a.1));
    table.unary("abs.f16", |a: f16| f16::from_bits(a.to_bits() & 0x7fff));
    table.unary("abs.f16x2", |a: Pair<f16>| {
        Pair(f16::from_bits(a.0.to_bits() & 0x7fff), f16::from_bits(a.1.to_bits() & 0x7fff))
    });
    table.unary("neg.ftz.f16", |a: f16| -flush(a));
    table.run(&Gpu::new());
}

#[test]
fn tangents_stay_within_the_documented_error() {
    let mut table = Table::new();
    table.rows(
        "tanh.approx.f16",
        &[([f16::ZERO], f16::ZERO), ([f16::INFINITY], f16::ONE), ([f16::NEG_INFINITY], f16::NEG_ONE)],
    );
    for a in [0.1f32, 0.5, -0.75, 1.0, 2.0, -3.0] {
        let exact = f64::from(f16::from_f32(a).to_f32()).tanh();
        let text = format!(
            "{{ .reg .b16 %t; .reg .f32 %x, %y; .reg .pred %close; tanh.approx.f16 %t, %a; cvt.f32.f16 %x, %t; \
             sub.f32 %y, %x, 0f{:08X}; abs.f32 %y, %y; setp.le.f32 %close, %y, 0f3A800000; selp.b32 %r, 1, 0, %close; }}",
            (exact as f32).to_bits()
        );
        table.rows(&text, &[([f16::from_f32(a)], 1u32)]);
    }
    table.run(&Gpu::new());
}
