//! Approximate instructions: within their documented error, and exact for the values that the PTX ISA lists.

use crate::support::rounding::flush;
use crate::support::{Expect, Gpu, Near, Outcome, Row, Table, Width, Word};

/// Arguments spread over the range in which the documented bound holds.
fn spread(low: f32, high: f32) -> Vec<f32> {
    (0..=400).map(|i| low + (high - low) * i as f32 / 400.0).collect()
}

fn near_rows(arguments: Vec<f32>, oracle: impl Fn(f64) -> Near) -> Vec<Row> {
    arguments
        .into_iter()
        .map(|a| Row { operands: vec![a.bits()], results: vec![oracle(f64::from(a)).expect()] })
        .collect()
}

const ONE: [Width; 1] = [Width::B32];
const SMALLEST: f32 = f32::from_bits(1);

/// Maximum relative error of `ex2.approx`.
const EX2_ERROR: f64 = 1.0 / (1 << 22) as f64;

#[test]
fn powers_of_two() {
    let mut table = Table::new();
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for text in ["ex2.approx.f32", "ex2.approx.ftz.f32"] {
        table.raw(
            text,
            &ONE,
            &ONE,
            near_rows(spread(-125.0, 127.5), |a| Near::relative(a.exp2(), EX2_ERROR)),
        );
        table.rows(
            text,
            &[
                ([0.0f32], 1.0f32),
                ([-0.0], 1.0),
                ([inf], inf),
                ([-inf], 0.0),
                ([nan], nan),
                ([SMALLEST], 1.0),
            ],
        );
        table.rows(text, &[([200.0f32], inf), ([-200.0], 0.0), ([128.0], inf)]);
    }
    // A subnormal result is flushed with .ftz only. 2^-130 is 2^19 times the smallest number.
    table.rows("ex2.approx.f32", &[([-130.0f32], f32::from_bits(1 << 19)), ([-149.0], SMALLEST)]);
    table.rows("ex2.approx.ftz.f32", &[([-130.0f32], 0.0f32), ([-149.0], 0.0)]);
    table.run(&Gpu::new());
}

#[test]
fn powers_of_two_of_halves() {
    use half::f16;
    let mut table = Table::new();
    let rows = f16::edges().into_iter().filter(|a| a.to_f32().abs() < 14.0).map(|a| {
        // The documented bound, 2^-9.9, plus the rounding to f16.
        let exact = a.to_f64().exp2();
        let near =
            [-1.0, 0.0, 1.0].map(|side| f16::from_f64(exact * (1.0 + side * 2f64.powf(-9.9))).to_bits());
        (a, near)
    });
    for (a, near) in rows {
        let text = format!(
            "{{ .reg .pred %low, %high; .reg .b16 %x; ex2.approx.f16 %x, %a; setp.ge.u16 %low, %x, {}; setp.le.u16 %high, %x, {}; \
             and.pred %low, %low, %high; selp.u16 %r, 1, 0, %low; }}",
            near[0], near[2]
        );
        table.rows(&text, &[([a], 1u16)]);
    }
    table.run(&Gpu::new());
}

#[test]
fn logarithms() {
    let mut table = Table::new();
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let small = 2f64.powf(-22.6);
    for text in ["lg2.approx.f32", "lg2.approx.ftz.f32"] {
        table.raw(text, &ONE, &ONE, near_rows(spread(0.5, 2.0), |a| Near::absolute(a.log2(), small)));
        let wide =
            spread(-120.0, 127.0).into_iter().map(f32::exp2).filter(|a| !(0.5..=2.0).contains(a)).collect();
        table.raw(text, &ONE, &ONE, near_rows(wide, |a| Near::relative(a.log2(), 2f64.powf(-22.0))));
        table.rows(
            text,
            &[
                ([0.0f32], -inf),
                ([-0.0], -inf),
                ([inf], inf),
                ([-inf], nan),
                ([-1.0], nan),
                ([nan], nan),
                ([1.0], 0.0),
            ],
        );
    }
    table.rows("lg2.approx.f32", &[([SMALLEST], -149.0f32)]);
    table.rows("lg2.approx.ftz.f32", &[([SMALLEST], -inf)]);
    table.run(&Gpu::new());
}

#[test]
fn sines_and_cosines() {
    let mut table = Table::new();
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let error = 2f64.powf(-20.5);
    let turn = std::f32::consts::PI * 2.0;
    for text in ["sin.approx.f32", "sin.approx.ftz.f32"] {
        table.raw(text, &ONE, &ONE, near_rows(spread(-turn, turn), |a| Near::absolute(a.sin(), error)));
        table.rows(text, &[([0.0f32], 0.0f32), ([-0.0], -0.0), ([inf], nan), ([-inf], nan), ([nan], nan)]);
    }
    for text in ["cos.approx.f32", "cos.approx.ftz.f32"] {
        table.raw(text, &ONE, &ONE, near_rows(spread(-turn, turn), |a| Near::absolute(a.cos(), error)));
        table.rows(
            text,
            &[
                ([0.0f32], 1.0f32),
                ([-0.0], 1.0),
                ([inf], nan),
                ([-inf], nan),
                ([nan], nan),
                ([SMALLEST], 1.0),
            ],
        );
    }
    table.run(&Gpu::new());
}

#[test]
fn hyperbolic_tangent() {
    let mut table = Table::new();
    table.raw(
        "tanh.approx.f32",
        &ONE,
        &ONE,
        near_rows(spread(-8.0, 8.0), |a| Near::relative(a.tanh(), 2f64.powi(-11))),
    );
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    table.rows(
        "tanh.approx.f32",
        &[([0.0f32], 0.0f32), ([-0.0], -0.0), ([inf], 1.0), ([-inf], -1.0), ([nan], nan)],
    );
    table.run(&Gpu::new());
}

/// One unit in the last place.
const ULP: f64 = f32::EPSILON as f64;

#[test]
fn reciprocals_and_roots() {
    let mut table = Table::new();
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let positive: Vec<f32> =
        spread(-100.0, 100.0).into_iter().map(f32::exp2).chain(spread(1.0, 2.0)).collect();
    let both: Vec<f32> = positive.iter().flat_map(|&a| [a, -a]).collect();
    for text in ["rcp.approx.f32", "rcp.approx.ftz.f32"] {
        table.raw(text, &ONE, &ONE, near_rows(both.clone(), |a| Near::relative(1.0 / a, ULP)));
        table.rows(text, &[([0.0f32], inf), ([-0.0], -inf), ([inf], 0.0), ([-inf], -0.0), ([nan], nan)]);
    }
    for text in ["rsqrt.approx.f32", "rsqrt.approx.ftz.f32"] {
        table.raw(
            text,
            &ONE,
            &ONE,
            near_rows(positive.clone(), |a| Near::relative(1.0 / a.sqrt(), 2f64.powf(-22.4))),
        );
        table.rows(
            text,
            &[([0.0f32], inf), ([-0.0], -inf), ([inf], 0.0), ([-inf], nan), ([-1.0], nan), ([nan], nan)],
        );
    }
    for text in ["sqrt.approx.f32", "sqrt.approx.ftz.f32"] {
        table.raw(
            text,
            &ONE,
            &ONE,
            near_rows(positive.clone(), |a| Near::relative(a.sqrt(), 2f64.powi(-23))),
        );
        table.rows(
            text,
            &[([0.0f32], 0.0f32), ([-0.0], -0.0), ([inf], inf), ([-inf], nan), ([-1.0], nan), ([nan], nan)],
        );
    }
    table.rows("rcp.approx.ftz.f32", &[([SMALLEST], inf), ([-SMALLEST], -inf), ([3e38f32], 0.0)]);
    table.rows("rsqrt.approx.ftz.f32", &[([SMALLEST], inf), ([-SMALLEST], -inf)]);
    table.rows("sqrt.approx.ftz.f32", &[([SMALLEST], 0.0f32), ([-SMALLEST], -0.0)]);
    table.run(&Gpu::new());
}

#[test]
fn double_precision_roots() {
    let mut table = Table::new();
    let within = |exact: f64| Expect::F64(exact * (1.0 - 2f64.powi(-20)), exact * (1.0 + 2f64.powi(-20)));
    let rows = [1.0f64, 2.0, 0.3, 1e200, 1e-200, 7.25]
        .map(|a| Row { operands: vec![a.bits()], results: vec![within(1.0 / a.sqrt())] });
    table.raw("rsqrt.approx.f64", &[Width::B64], &[Width::B64], rows.to_vec());
    table.rows("rsqrt.approx.f64", &[([0.0f64], f64::INFINITY), ([-1.0], f64::NAN), ([f64::INFINITY], 0.0)]);
    table.run(&Gpu::new());
}

#[test]
fn quotients() {
    let numbers: Vec<f32> =
        spread(-40.0, 40.0).into_iter().step_by(7).map(f32::exp2).flat_map(|a| [a * 1.1, -a * 1.7]).collect();
    let mut rows = Vec::new();
    for &a in &numbers {
        for &b in numbers.iter().step_by(3) {
            let near = Near::relative(f64::from(a) / f64::from(b), 2.0 * ULP);
            rows.push(Row { operands: vec![a.bits(), b.bits()], results: vec![near.expect()] });
        }
    }
    let mut table = Table::new();
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for text in ["div.approx.f32", "div.approx.ftz.f32", "div.full.f32", "div.full.ftz.f32"] {
        table.raw(text, &[Width::B32; 2], &ONE, rows.clone());
        table.rows(
            text,
            &[
                ([1.0f32, 0.0], inf),
                ([-1.0, 0.0], -inf),
                ([0.0, 0.0], nan),
                ([inf, inf], nan),
                ([1.0, inf], 0.0),
                ([nan, 1.0], nan),
            ],
        );
    }
    table.rows("div.approx.ftz.f32", &[([SMALLEST, 1.0f32], 0.0f32), ([1.0, SMALLEST], inf)]);
    assert_eq!(flush(SMALLEST), 0.0);
    table.run(&Gpu::new());
}
