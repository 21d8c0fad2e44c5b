//! Logic and shifts: PTX ISA, "Logic and Shift Instructions".

use crate::support::{Gpu, Table};

#[test]
fn logic_is_bitwise() {
    let mut table = Table::new();
    table.binary("and.pred", |a: bool, b: bool| a & b);
    table.binary("or.pred", |a: bool, b: bool| a | b);
    table.binary("xor.pred", |a: bool, b: bool| a ^ b);
    table.unary("not.pred", |a: bool| !a);
    table.unary("mov.pred", |a: bool| a);
    table.binary("and.b16", |a: u16, b: u16| a & b);
    table.binary("and.b32", |a: u32, b: u32| a & b);
    table.binary("and.b64", |a: u64, b: u64| a & b);
    table.binary("or.b16", |a: u16, b: u16| a | b);
    table.binary("or.b32", |a: u32, b: u32| a | b);
    table.binary("or.b64", |a: u64, b: u64| a | b);
    table.binary("xor.b16", |a: u16, b: u16| a ^ b);
    table.binary("xor.b32", |a: u32, b: u32| a ^ b);
    table.binary("xor.b64", |a: u64, b: u64| a ^ b);
    table.unary("not.b16", |a: u16| !a);
    table.unary("not.b32", |a: u32| !a);
    table.unary("not.b64", |a: u64| !a);
    table.unary("cnot.b16", |a: u16| u16::from(a == 0));
    table.unary("cnot.b32", |a: u32| u32::from(a == 0));
    table.unary("cnot.b64", |a: u64| u64::from(a == 0));
    table.run(&Gpu::new());
}

#[test]
fn moves_copy_every_bit() {
    let mut table = Table::new();
    for text in ["mov.b16", "mov.u16", "mov.s16"] {
        table.unary(text, |a: u16| a);
    }
    for text in ["mov.b32", "mov.u32", "mov.s32"] {
        table.unary(text, |a: u32| a);
    }
    for text in ["mov.b64", "mov.u64", "mov.s64"] {
        table.unary(text, |a: u64| a);
    }
    // A move preserves the payload of a NaN.
    table.rows("mov.f32", &[([0x7f80_1234u32], 0x7f80_1234u32), ([0xffc0_0001], 0xffc0_0001), ([1], 1)]);
    table.rows("mov.f64", &[([0x7ff0_0000_0000_1234u64], 0x7ff0_0000_0000_1234u64), ([1], 1)]);
    table.unary("mov.f32 %r, 0f40490FDB;", |_: u32| 0x4049_0fdbu32);
    table.unary("mov.f32 %r, 1.5;", |_: u32| 1.5f32);
    table.unary("mov.f64 %r, 0d400921FB54442D18;", |_: u32| 0x4009_21fb_5444_2d18u64);
    table.unary("mov.f64 %r, -2.5e-3;", |_: u32| -2.5e-3f64);
    table.run(&Gpu::new());
}

/// Shift counts are unsigned 32-bit numbers, clamped to the width.
#[test]
fn shifts_by_more_than_the_width_give_zeros_or_sign_bits() {
    let mut table = Table::new();
    table.binary("shl.b16", |a: u16, n: u32| if n < 16 { a << n } else { 0 });
    table.binary("shl.b32", |a: u32, n: u32| if n < 32 { a << n } else { 0 });
    table.binary("shl.b64", |a: u64, n: u32| if n < 64 { a << n } else { 0 });
    for kind in ["u", "b"] {
        table.binary(&format!("shr.{kind}16"), |a: u16, n: u32| if n < 16 { a >> n } else { 0 });
        table.binary(&format!("shr.{kind}32"), |a: u32, n: u32| if n < 32 { a >> n } else { 0 });
        table.binary(&format!("shr.{kind}64"), |a: u64, n: u32| if n < 64 { a >> n } else { 0 });
    }
    table.binary("shr.s16", |a: i16, n: u32| a >> n.min(15));
    table.binary("shr.s32", |a: i32, n: u32| a >> n.min(31));
    table.binary("shr.s64", |a: i64, n: u32| a >> n.min(63));
    table.unary("shl.b32 %r, %a, 31;", |a: u32| a << 31);
    table.unary("shr.s32 %r, %a, 32;", |a: i32| a >> 31);
    table.run(&Gpu::new());
}

/// `a` is the low word of the pair, `b` the high word.
#[test]
fn funnel_shifts_wrap_or_clamp() {
    let pair = |a: u32, b: u32| u64::from(b) << 32 | u64::from(a);
    let left = move |a: u32, b: u32, n: u32| ((pair(a, b) << n) >> 32) as u32;
    let right = move |a: u32, b: u32, n: u32| (pair(a, b) >> n) as u32;
    let mut table = Table::new();
    table.ternary("shf.l.wrap.b32", move |a: u32, b: u32, n: u32| left(a, b, n % 32));
    table.ternary("shf.r.wrap.b32", move |a: u32, b: u32, n: u32| right(a, b, n % 32));
    table.ternary("shf.l.clamp.b32", move |a: u32, b: u32, n: u32| left(a, b, n.min(32)));
    table.ternary("shf.r.clamp.b32", move |a: u32, b: u32, n: u32| right(a, b, n.min(32)));
    table.rows(
        "shf.l.wrap.b32",
        &[([0x89ab_cdefu32, 0x0123_4567, 8], 0x2345_6789u32), ([1, 2, 32], 2), ([1, 2, 0], 2)],
    );
    table.rows(
        "shf.l.clamp.b32",
        &[([0x89ab_cdefu32, 0x0123_4567, 8], 0x2345_6789u32), ([1, 2, 32], 1), ([1, 2, 99], 1)],
    );
    table.rows(
        "shf.r.clamp.b32",
        &[([0x89ab_cdefu32, 0x0123_4567, 8], 0x6789_abcdu32), ([1, 2, 32], 2), ([1, 2, 99], 2)],
    );
    table.run(&Gpu::new());
}

/// All 256 functions, on words that contain all eight combinations of bits.
#[test]
fn three_input_logic_follows_its_truth_table() {
    let mut table = Table::new();
    for lut in 0..256u32 {
        let expected = |a: u32, b: u32, c: u32| {
            (0..32).fold(0u32, |out, bit| {
                let row = (a >> bit & 1) << 2 | (b >> bit & 1) << 1 | (c >> bit & 1);
                out | (lut >> row & 1) << bit
            })
        };
        let (a, b, c) = (0xf0f0_1234u32, 0xcccc_fedc, 0xaaaa_9669);
        table.rows(&format!("lop3.b32 %r, %a, %b, %c, {lut};"), &[([a, b, c], expected(a, b, c))]);
    }
    table.ternary("lop3.b32 %r, %a, %b, %c, 0x80;", |a: u32, b: u32, c: u32| a & b & c);
    table.ternary("lop3.b32 %r, %a, %b, %c, 0xFE;", |a: u32, b: u32, c: u32| a | b | c);
    table.ternary("lop3.b32 %r, %a, %b, %c, 0x40;", |a: u32, b: u32, c: u32| a & b & !c);
    table.ternary("lop3.b32 %r, %a, %b, %c, 0x1A;", |a: u32, b: u32, c: u32| (a & b | c) ^ a);
    table.ternary("lop3.b32 %r, %a, %b, %c, 0x96;", |a: u32, b: u32, c: u32| a ^ b ^ c);
    table.run(&Gpu::new());
}
