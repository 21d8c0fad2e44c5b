//! bf16 arithmetic, scalar and packed: PTX ISA, "Half Precision Floating Point Instructions".

use half::bf16;

use crate::support::rounding::{BF16, Mode, fma, round, sum};
use crate::support::{Gpu, Pair, Table};

fn nearest(x: f64) -> bf16 {
    bf16::from_f64(round(x, BF16, Mode::Nearest))
}

fn add(a: bf16, b: bf16) -> bf16 {
    nearest(sum(a.to_f64(), b.to_f64()))
}

fn sub(a: bf16, b: bf16) -> bf16 {
    nearest(sum(a.to_f64(), -b.to_f64()))
}

fn mul(a: bf16, b: bf16) -> bf16 {
    nearest(a.to_f64() * b.to_f64())
}

fn mul_add(a: bf16, b: bf16, c: bf16) -> bf16 {
    bf16::from_f64(fma(a.to_f64(), b.to_f64(), c.to_f64(), BF16, Mode::Nearest))
}

fn relu(a: bf16) -> bf16 {
    if a.is_nan() {
        bf16::NAN
    } else if a.to_f32() <= 0.0 {
        bf16::ZERO
    } else {
        a
    }
}

fn minimum(a: bf16, b: bf16) -> bf16 {
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

fn maximum(a: bf16, b: bf16) -> bf16 {
    -minimum(-a, -b)
}

fn each(f: impl Fn(bf16, bf16) -> bf16) -> impl Fn(Pair<bf16>, Pair<bf16>) -> Pair<bf16> {
    move |a, b| Pair(f(a.0, b.0), f(a.1, b.1))
}

fn each_of_three(
    f: impl Fn(bf16, bf16, bf16) -> bf16,
) -> impl Fn(Pair<bf16>, Pair<bf16>, Pair<bf16>) -> Pair<bf16> {
    move |a, b, c| Pair(f(a.0, b.0, c.0), f(a.1, b.1, c.1))
}

#[test]
fn fused_multiply_adds_round_once() {
    let mut table = Table::new();
    table.ternary("fma.rn.bf16", mul_add);
    table.ternary("fma.rn.bf16x2", each_of_three(mul_add));
    table.ternary("fma.rn.relu.bf16", |a, b, c| relu(mul_add(a, b, c)));
    table.ternary("fma.rn.relu.bf16x2", each_of_three(|a, b, c| relu(mul_add(a, b, c))));
    table.run(&Gpu::new());
}

#[test]
fn sums_and_products_round_to_nearest_on_sm_90() {
    let mut table = Table::new().target("sm_90");
    for (name, f) in [("add", add as fn(bf16, bf16) -> bf16), ("sub", sub), ("mul", mul)] {
        table.binary(&format!("{name}.bf16"), f);
        table.binary(&format!("{name}.rn.bf16"), f);
        table.binary(&format!("{name}.bf16x2"), each(f));
    }
    table.run(&Gpu::sm_90());
}

#[test]
fn minimum_and_maximum_ignore_nan_and_order_zeros() {
    let mut table = Table::new();
    let strict = |f: fn(bf16, bf16) -> bf16| {
        move |a: bf16, b: bf16| if a.is_nan() || b.is_nan() { bf16::NAN } else { f(a, b) }
    };
    for (name, f) in [("min", minimum as fn(bf16, bf16) -> bf16), ("max", maximum)] {
        table.binary(&format!("{name}.bf16"), f);
        table.binary(&format!("{name}.bf16x2"), each(f));
        table.binary(&format!("{name}.NaN.bf16"), strict(f));
        table.binary(&format!("{name}.NaN.bf16x2"), each(strict(f)));
    }
    table.run(&Gpu::new());
}

#[test]
fn signs() {
    let mut table = Table::new();
    table.unary("neg.bf16", |a: bf16| -a);
    table.unary("neg.bf16x2", |a: Pair<bf16>| Pair(-a.0, -a.1));
    table.unary("abs.bf16", |a: bf16| bf16::from_bits(a.to_bits() & 0x7fff));
    table.unary("abs.bf16x2", |a: Pair<bf16>| {
        Pair(bf16::from_bits(a.0.to_bits() & 0x7fff), bf16::from_bits(a.1.to_bits() & 0x7fff))
    });
    table.run(&Gpu::new());
}
