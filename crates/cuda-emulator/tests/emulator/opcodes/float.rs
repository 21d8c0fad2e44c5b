//! Single and double precision where the result is fully specified: PTX ISA, "Floating Point Instructions".

use crate::support::rounding::{MODES, Mode, add_f32, div_f32, flush, fma_f32, mul_f32, saturate, sqrt_f32};
use crate::support::{Gpu, Row, Table, Word};

#[test]
fn sums_round_in_every_direction() {
    let mut table = Table::new();
    table.binary("add.f32", |a: f32, b: f32| a + b);
    table.binary("sub.f32", |a: f32, b: f32| a - b);
    for (name, mode) in MODES {
        table.binary(&format!("add.{name}.f32"), move |a: f32, b: f32| add_f32(a, b, mode));
        table.binary(&format!("sub.{name}.f32"), move |a: f32, b: f32| add_f32(a, -b, mode));
    }
    // 1 plus the smallest number: rounding up gives the next float, rounding down or towards zero gives 1.
    let tiny = f32::from_bits(1);
    table
        .rows("add.rp.f32", &[([1.0f32, tiny], 1.0f32.next_up()), ([-1.0, -tiny], -1.0), ([1.0, -1.0], 0.0)]);
    table.rows(
        "add.rm.f32",
        &[([1.0f32, tiny], 1.0f32), ([-1.0, -tiny], (-1.0f32).next_down()), ([1.0, -1.0], -0.0)],
    );
    table.rows("add.rz.f32", &[([f32::MAX, f32::MAX], f32::MAX), ([1.0, -tiny], 1.0f32.next_down())]);
    table.run(&Gpu::new());
}

#[test]
fn products_round_in_every_direction() {
    let mut table = Table::new();
    table.binary("mul.f32", |a: f32, b: f32| a * b);
    for (name, mode) in MODES {
        table.binary(&format!("mul.{name}.f32"), move |a: f32, b: f32| mul_f32(a, b, mode));
    }
    table.run(&Gpu::new());
}

#[test]
fn fused_multiply_adds_round_once() {
    let mut table = Table::new();
    for (name, mode) in MODES {
        table.ternary(&format!("fma.{name}.f32"), move |a: f32, b: f32, c: f32| fma_f32(a, b, c, mode));
    }
    table.ternary("mad.rn.f32", |a: f32, b: f32, c: f32| fma_f32(a, b, c, Mode::Nearest));
    let a = 1.0 + f32::EPSILON;
    table.rows("fma.rn.f32", &[([a, a, -(1.0 + 2.0 * f32::EPSILON)], f32::EPSILON * f32::EPSILON)]);
    table.run(&Gpu::new());
}

#[test]
fn subnormals_are_flushed_with_ftz_only() {
    let mut table = Table::new();
    table.binary("add.ftz.f32", |a: f32, b: f32| flush(flush(a) + flush(b)));
    table.binary("sub.ftz.f32", |a: f32, b: f32| flush(flush(a) - flush(b)));
    // A result is flushed if it is subnormal after rounding. Products that round up to the smallest normal number are
    // unspecified.
    table.rows(
        "mul.ftz.f32",
        &[
            ([f32::MIN_POSITIVE, 0.5f32], 0.0f32),
            ([-f32::MIN_POSITIVE, 0.5], -0.0),
            ([f32::from_bits(0x007f_ffff), 2.0], 0.0),
            ([f32::MIN_POSITIVE, 1.0], f32::MIN_POSITIVE),
        ],
    );
    table.rows(
        "mul.f32",
        &[
            ([f32::MIN_POSITIVE, 0.5f32], f32::from_bits(0x0040_0000)),
            ([f32::from_bits(1), 1.0], f32::from_bits(1)),
        ],
    );
    table.rows(
        "fma.rn.ftz.f32",
        &[
            ([f32::from_bits(1), 1.0f32, 0.0], 0.0f32),
            ([1.0, 1.0, f32::from_bits(1)], 1.0),
            ([f32::MIN_POSITIVE, 0.25, 0.0], 0.0),
        ],
    );
    table.unary("abs.ftz.f32", |a: f32| flush(a).abs());
    table.unary("neg.ftz.f32", |a: f32| -flush(a));
    table.binary("min.ftz.f32", |a: f32, b: f32| minimum(flush(a), flush(b)));
    table.binary("max.ftz.f32", |a: f32, b: f32| maximum(flush(a), flush(b)));
    table.run(&Gpu::new());
}

#[test]
fn saturation_clamps_to_the_unit_interval() {
    let mut table = Table::new();
    table.binary("add.sat.f32", |a: f32, b: f32| saturate(a + b));
    table.binary("sub.sat.f32", |a: f32, b: f32| saturate(a - b));
    table.binary("mul.sat.f32", |a: f32, b: f32| saturate(a * b));
    table.ternary("fma.rn.sat.f32", |a: f32, b: f32, c: f32| saturate(fma_f32(a, b, c, Mode::Nearest)));
    table.binary("add.rz.ftz.sat.f32", |a: f32, b: f32| {
        saturate(flush(add_f32(flush(a), flush(b), Mode::Zero)))
    });
    table.rows(
        "add.sat.f32",
        &[([f32::NAN, 1.0f32], 0.0f32), ([-3.0, 1.0], 0.0), ([0.25, 0.5], 0.75), ([1.0, 1.0], 1.0)],
    );
    table.run(&Gpu::new());
}

#[test]
fn divisions_and_roots_round_in_every_direction() {
    let mut table = Table::new();
    table.binary("div.rn.f32", |a: f32, b: f32| a / b);
    table.unary("rcp.rn.f32", |a: f32| 1.0 / a);
    table.unary("sqrt.rn.f32", |a: f32| a.sqrt());
    for (name, mode) in MODES {
        table.binary(&format!("div.{name}.f32"), move |a: f32, b: f32| div_f32(a, b, mode));
        table.unary(&format!("rcp.{name}.f32"), move |a: f32| div_f32(1.0, a, mode));
        table.unary(&format!("sqrt.{name}.f32"), move |a: f32| sqrt_f32(a, mode));
    }
    table.binary("div.rn.ftz.f32", |a: f32, b: f32| flush(flush(a) / flush(b)));
    table.unary("sqrt.rn.ftz.f32", |a: f32| flush(a).sqrt());
    table.unary("rcp.rn.ftz.f32", |a: f32| flush(1.0 / flush(a)));
    table.run(&Gpu::new());
}

/// NaN is ignored if the other operand is a number; -0 is less than +0.
fn minimum(a: f32, b: f32) -> f32 {
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

fn maximum(a: f32, b: f32) -> f32 {
    -minimum(-a, -b)
}

#[test]
fn minimum_and_maximum_ignore_nan_and_order_zeros() {
    let mut table = Table::new();
    table.binary("min.f32", minimum);
    table.binary("max.f32", maximum);
    table.binary(
        "min.NaN.f32",
        |a: f32, b: f32| if a.is_nan() || b.is_nan() { f32::NAN } else { minimum(a, b) },
    );
    table.binary(
        "max.NaN.f32",
        |a: f32, b: f32| if a.is_nan() || b.is_nan() { f32::NAN } else { maximum(a, b) },
    );
    table.rows(
        "min.f32",
        &[([0.0f32, -0.0], -0.0f32), ([-0.0, 0.0], -0.0), ([f32::NAN, 2.0], 2.0), ([2.0, f32::NAN], 2.0)],
    );
    table.rows("max.f32", &[([0.0f32, -0.0], 0.0f32), ([-0.0, 0.0], 0.0), ([f32::NAN, -2.0], -2.0)]);
    // The result of two NaNs is the canonical one.
    table.rows("max.f32", &[([0x7fc0_1234u32, 0xffc0_0001], 0x7fff_ffffu32)]);
    table.rows("min.NaN.f32", &[([0x7fc0_1234u32, 0x3f80_0000], 0x7fff_ffffu32)]);
    let wide_min = |a: f64, b: f64| match (a.is_nan(), b.is_nan()) {
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
    table.binary("min.f64", wide_min);
    table.binary("max.f64", move |a: f64, b: f64| -wide_min(-a, -b));
    table.run(&Gpu::new());
}

#[test]
fn sign_instructions_change_the_sign_only() {
    let mut table = Table::new();
    table.unary("abs.f32", |a: f32| a.abs());
    table.unary("neg.f32", |a: f32| -a);
    table.unary("abs.f64", |a: f64| a.abs());
    table.unary("neg.f64", |a: f64| -a);
    table.binary("copysign.f32", |a: f32, b: f32| b.copysign(a));
    table.binary("copysign.f64", |a: f64, b: f64| b.copysign(a));
    table.run(&Gpu::new());
}

#[test]
fn properties_are_distinguished() {
    let mut table = Table::new();
    macro_rules! properties {
        ($($type:ty, $ptx:literal;)*) => {$(
            table.unary(concat!("testp.finite.", $ptx), |a: $type| a.is_finite());
            table.unary(concat!("testp.infinite.", $ptx), |a: $type| a.is_infinite());
            table.unary(concat!("testp.number.", $ptx), |a: $type| !a.is_nan());
            table.unary(concat!("testp.notanumber.", $ptx), |a: $type| a.is_nan());
            table.unary(concat!("testp.normal.", $ptx), |a: $type| a.is_normal() || a == 0.0);
            table.unary(concat!("testp.subnormal.", $ptx), |a: $type| a.is_subnormal());
        )*};
    }
    properties! { f32, "f32"; f64, "f64"; }
    table.run(&Gpu::new());
}

#[test]
fn double_precision_rounds_to_nearest() {
    let mut table = Table::new();
    table.binary("add.f64", |a: f64, b: f64| a + b);
    table.binary("add.rn.f64", |a: f64, b: f64| a + b);
    table.binary("sub.f64", |a: f64, b: f64| a - b);
    table.binary("mul.f64", |a: f64, b: f64| a * b);
    table.binary("mul.rn.f64", |a: f64, b: f64| a * b);
    table.ternary("fma.rn.f64", |a: f64, b: f64, c: f64| a.mul_add(b, c));
    table.ternary("mad.rn.f64", |a: f64, b: f64, c: f64| a.mul_add(b, c));
    table.binary("div.rn.f64", |a: f64, b: f64| a / b);
    table.unary("rcp.rn.f64", |a: f64| 1.0 / a);
    table.unary("sqrt.rn.f64", |a: f64| a.sqrt());
    table.run(&Gpu::new());
}

/// Cases in which the nearest double is known to be below or above the exact value.
#[test]
fn double_precision_rounds_in_every_direction() {
    let (third, up_third) = (1.0f64 / 3.0, (1.0f64 / 3.0).next_up());
    let tiny = f64::from_bits(1);
    let mut table = Table::new();
    table.rows("div.rz.f64", &[([1.0f64, 3.0], third), ([-1.0, 3.0], -third)]);
    table.rows("div.rm.f64", &[([1.0f64, 3.0], third), ([-1.0, 3.0], -up_third)]);
    table.rows("div.rp.f64", &[([1.0f64, 3.0], up_third), ([-1.0, 3.0], -third)]);
    table.rows("rcp.rp.f64", &[([3.0f64], up_third), ([-3.0], -third), ([4.0], 0.25)]);
    table.rows("rcp.rm.f64", &[([3.0f64], third), ([-3.0], -up_third)]);
    table.rows("add.rp.f64", &[([1.0f64, tiny], 1.0f64.next_up()), ([-1.0, -tiny], -1.0), ([1.0, 2.0], 3.0)]);
    table.rows(
        "add.rm.f64",
        &[([1.0f64, tiny], 1.0f64), ([-1.0, -tiny], (-1.0f64).next_down()), ([1.0, -1.0], -0.0)],
    );
    table.rows("sub.rz.f64", &[([1.0f64, tiny], 1.0f64.next_down()), ([-1.0, -tiny], -(1.0f64.next_down()))]);
    let a = 1.0 + f64::EPSILON;
    // (1 + e)² is 1 + 2e + e².
    table.rows("mul.rp.f64", &[([a, a], 1.0 + 3.0 * f64::EPSILON), ([-a, a], -(1.0 + 2.0 * f64::EPSILON))]);
    table.rows("mul.rm.f64", &[([a, a], 1.0 + 2.0 * f64::EPSILON), ([-a, a], -(1.0 + 3.0 * f64::EPSILON))]);
    table.rows(
        "fma.rp.f64",
        &[([1.0f64, 1.0, tiny], 1.0f64.next_up()), ([a, a, -1.0], (2.0 * f64::EPSILON).next_up())],
    );
    table.rows("fma.rz.f64", &[([1.0f64, 1.0, -tiny], 1.0f64.next_down())]);
    // The double nearest to the square root of two is above it.
    let two = 2.0f64.sqrt();
    table.rows("sqrt.rm.f64", &[([2.0f64], two.next_down()), ([4.0], 2.0)]);
    table.rows("sqrt.rp.f64", &[([2.0f64], two)]);
    table.run(&Gpu::new());
}

#[test]
fn literals_are_accepted_as_operands() {
    let mut table = Table::new();
    table.unary("add.f32 %r, %a, 0f3F800000;", |a: f32| a + 1.0);
    table.unary("mul.f32 %r, %a, 0fBF000000;", |a: f32| a * -0.5);
    table.unary("fma.rn.f32 %r, %a, 0f40000000, 0f3F800000;", |a: f32| fma_f32(a, 2.0, 1.0, Mode::Nearest));
    table.unary("add.f64 %r, %a, 0d3FF0000000000000;", |a: f64| a + 1.0);
    table.unary("max.f32 %r, %a, 0f00000000;", |a: f32| maximum(a, 0.0));
    table.run(&Gpu::new());
}

/// Ties, and sums that require a single rounding.
#[test]
fn ties_go_to_even() {
    let ulp = f32::EPSILON;
    let rows: Vec<Row> =
        [(1.0f32, ulp / 2.0, 1.0f32), (1.0 + ulp, ulp / 2.0, 1.0 + 2.0 * ulp), (1.0, ulp * 0.75, 1.0 + ulp)]
            .map(|(a, b, sum)| Row {
                operands: vec![a.bits(), b.bits()],
                results: vec![crate::support::Expect::Bits(sum.bits())],
            })
            .to_vec();
    let mut table = Table::new();
    table.raw("add.rn.f32", &[f32::WIDTH; 2], &[f32::WIDTH], rows);
    table.run(&Gpu::new());
}
