//! Composite integer instructions: carries, absolute differences, 24-bit products, dot products of bytes and half words. PTX
//! ISA, "Extended-Precision Integer Arithmetic Instructions" and "Integer Arithmetic Instructions".

use crate::support::{Gpu, Row, Table, Width, Word};

/// Rows with three or four 32-bit operands and two results, for instructions that use the carry.
fn carry_rows(oracle: impl Fn([u32; 4]) -> [u32; 2]) -> Vec<Row> {
    let edges = [0u32, 1, 2, 0x7fff_ffff, 0x8000_0000, u32::MAX, 0x1234_5678];
    let mut rows = Vec::new();
    for a in edges {
        for b in edges {
            for c in edges {
                for d in [0, 1, u32::MAX] {
                    let operands = [a, b, c, d];
                    rows.push(Row {
                        operands: operands.map(u64::from).to_vec(),
                        results: oracle(operands)
                            .map(|r| crate::support::Expect::Bits(u64::from(r)))
                            .to_vec(),
                    });
                }
            }
        }
    }
    rows
}

fn halves(wide: u64) -> [u32; 2] {
    [wide as u32, (wide >> 32) as u32]
}

fn joined(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[test]
fn carries_are_passed_to_the_next_instruction() {
    let four = [Width::B32; 4];
    let two = [Width::B32; 2];
    let mut table = Table::new();
    table.raw(
        "add.cc.u32 %r, %a, %c; addc.u32 %r1, %b, %d;",
        &four,
        &two,
        carry_rows(|[a, b, c, d]| halves(joined(a, b).wrapping_add(joined(c, d)))),
    );
    table.raw(
        "sub.cc.u32 %r, %a, %c; subc.u32 %r1, %b, %d;",
        &four,
        &two,
        carry_rows(|[a, b, c, d]| halves(joined(a, b).wrapping_sub(joined(c, d)))),
    );
    table.raw(
        "mad.lo.cc.u32 %r, %a, %b, %c; madc.hi.u32 %r1, %a, %b, %d;",
        &four,
        &two,
        carry_rows(|[a, b, c, d]| halves((u64::from(a) * u64::from(b)).wrapping_add(joined(c, d)))),
    );
    // A carry that propagates through three words.
    table.raw(
        "add.cc.u32 %r, %a, %b; addc.cc.u32 %r1, %c, %d; addc.u32 %r1, 0, 0;",
        &four,
        &two,
        carry_rows(|[a, b, c, d]| {
            let wide = u128::from(joined(a, c)) + u128::from(joined(b, d));
            [wide as u32, (wide >> 64) as u32]
        }),
    );
    table.raw(
        "add.cc.u32 %r, %a, %b; addc.u32 %r1, %c, %d;",
        &four,
        &two,
        carry_rows(|[a, b, c, d]| halves(joined(a, c).wrapping_add(joined(b, d)))),
    );
    table.run(&Gpu::new());
}

#[test]
fn absolute_differences_accumulate() {
    let mut table = Table::new();
    table.ternary("sad.u16", |a: u16, b: u16, c: u16| c.wrapping_add(a.abs_diff(b)));
    table.ternary("sad.s16", |a: i16, b: i16, c: i16| c.wrapping_add(a.abs_diff(b) as i16));
    table.ternary("sad.u32", |a: u32, b: u32, c: u32| c.wrapping_add(a.abs_diff(b)));
    table.ternary("sad.s32", |a: i32, b: i32, c: i32| c.wrapping_add(a.abs_diff(b) as i32));
    table.ternary("sad.u64", |a: u64, b: u64, c: u64| c.wrapping_add(a.abs_diff(b)));
    table.ternary("sad.s64", |a: i64, b: i64, c: i64| c.wrapping_add(a.abs_diff(b) as i64));
    table.run(&Gpu::new());
}

/// Operands are the low 24 bits.
#[test]
fn products_of_24_bits() {
    let low_u = |a: u32| u64::from(a & 0x00ff_ffff);
    let low_s = |a: i32| i64::from(a << 8 >> 8);
    let mut table = Table::new();
    table.binary("mul24.lo.u32", |a: u32, b: u32| (low_u(a) * low_u(b)) as u32);
    table.binary("mul24.hi.u32", |a: u32, b: u32| ((low_u(a) * low_u(b)) >> 16) as u32);
    table.binary("mul24.lo.s32", |a: i32, b: i32| (low_s(a) * low_s(b)) as i32);
    table.binary("mul24.hi.s32", |a: i32, b: i32| ((low_s(a) * low_s(b)) >> 16) as i32);
    table.ternary("mad24.lo.s32", |a: i32, b: i32, c: i32| ((low_s(a) * low_s(b)) as i32).wrapping_add(c));
    table.ternary("mad24.lo.u32", |a: u32, b: u32, c: u32| ((low_u(a) * low_u(b)) as u32).wrapping_add(c));
    table.run(&Gpu::new());
}

/// Byte `i` of a word, extended according to the type.
fn byte(word: u32, i: u32, signed: bool) -> i64 {
    let byte = (word >> (8 * i)) as u8;
    if signed { i64::from(byte as i8) } else { i64::from(byte) }
}

fn half_word(word: u32, i: u32, signed: bool) -> i64 {
    let half = (word >> (16 * i)) as u16;
    if signed { i64::from(half as i16) } else { i64::from(half) }
}

#[test]
fn dot_products_of_four_bytes() {
    let mut table = Table::new();
    for (types, a_signed, b_signed) in [
        ("s32.s32", true, true),
        ("s32.u32", true, false),
        ("u32.s32", false, true),
        ("u32.u32", false, false),
    ] {
        table.ternary(&format!("dp4a.{types}"), |a: u32, b: u32, c: u32| {
            (0..4).fold(i64::from(c), |sum, i| sum + byte(a, i, a_signed) * byte(b, i, b_signed)) as u32
        });
    }
    table.rows(
        "dp4a.s32.s32",
        &[([0x8080_8080u32, 0x8080_8080, 0], 65536), ([0x0102_0304, 0xff01_ff01, 10], 12), ([0, 0, 7], 7)],
    );
    table.run(&Gpu::new());
}

#[test]
fn dot_products_of_two_half_words_and_two_bytes() {
    let mut table = Table::new();
    for (types, a_signed, b_signed) in [
        ("s32.s32", true, true),
        ("s32.u32", true, false),
        ("u32.s32", false, true),
        ("u32.u32", false, false),
    ] {
        for (part, first) in [("lo", 0), ("hi", 2)] {
            table.ternary(&format!("dp2a.{part}.{types}"), |a: u32, b: u32, c: u32| {
                (0..2).fold(i64::from(c), |sum, i| {
                    sum + half_word(a, i, a_signed) * byte(b, first + i, b_signed)
                }) as u32
            });
        }
    }
    table.run(&Gpu::new());
}

#[test]
fn vectors_are_packed_and_unpacked() {
    let mut table = Table::new();
    table.binary("mov.b64 %r, {%a, %b};", |low: u32, high: u32| joined(low, high));
    table.binary("mov.b32 %r, {%a, %b};", |low: u16, high: u16| u32::from(low) | u32::from(high) << 16);
    let split = |a: u64| Row {
        operands: vec![a],
        results: halves(a).map(|r| crate::support::Expect::Bits(r.into())).to_vec(),
    };
    table.raw(
        "mov.b64 {%r, %r1}, %a;",
        &[Width::B64],
        &[Width::B32; 2],
        u64::edges().into_iter().map(split).collect(),
    );
    table.unary("{ .reg .b32 %low; mov.b64 {%low, %r}, %a; }", |a: u64| (a >> 32) as u32);
    table.unary("mov.b64 {_, %r}, %a;", |a: u64| (a >> 32) as u32);
    table.unary("{ .reg .b16 %low; mov.b32 {%low, %r}, %a; }", |a: u32| (a >> 16) as u16);
    let quarters = |a: u64| Row {
        operands: vec![a],
        results: (0..4).map(|i| crate::support::Expect::Bits(a >> (16 * i) & 0xffff)).collect(),
    };
    table.raw(
        "mov.b64 {%r, %r1, %r2, %r3}, %a;",
        &[Width::B64],
        &[Width::B16; 4],
        u64::edges().into_iter().map(quarters).collect(),
    );
    table.run(&Gpu::new());
}
