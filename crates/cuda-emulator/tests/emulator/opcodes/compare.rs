//! Comparisons and selections: PTX ISA, "Comparison and Selection Instructions" and "Half Precision Comparison
//! Instructions".

use half::{bf16, f16};

use crate::support::{Expect, Gpu, Outcome, Row, Table, Width, Word};

/// All comparisons of unsigned, signed and untyped integers.
#[test]
fn integers_compare_by_their_type() {
    let mut table = Table::new();
    macro_rules! orders {
        ($($type:ty, $ptx:literal;)*) => {$(
            table.binary(concat!("setp.lt.", $ptx), |a: $type, b: $type| a < b);
            table.binary(concat!("setp.le.", $ptx), |a: $type, b: $type| a <= b);
            table.binary(concat!("setp.gt.", $ptx), |a: $type, b: $type| a > b);
            table.binary(concat!("setp.ge.", $ptx), |a: $type, b: $type| a >= b);
        )*};
    }
    macro_rules! equalities {
        ($($type:ty, $ptx:literal;)*) => {$(
            table.binary(concat!("setp.eq.", $ptx), |a: $type, b: $type| a == b);
            table.binary(concat!("setp.ne.", $ptx), |a: $type, b: $type| a != b);
        )*};
    }
    macro_rules! unsigned_names {
        ($($type:ty, $ptx:literal;)*) => {$(
            table.binary(concat!("setp.lo.", $ptx), |a: $type, b: $type| a < b);
            table.binary(concat!("setp.ls.", $ptx), |a: $type, b: $type| a <= b);
            table.binary(concat!("setp.hi.", $ptx), |a: $type, b: $type| a > b);
            table.binary(concat!("setp.hs.", $ptx), |a: $type, b: $type| a >= b);
        )*};
    }
    orders! { i16, "s16"; u16, "u16"; i32, "s32"; u32, "u32"; i64, "s64"; u64, "u64"; }
    equalities! {
        i16, "s16"; u16, "u16"; i32, "s32"; u32, "u32"; i64, "s64"; u64, "u64"; u16, "b16"; u32, "b32"; u64, "b64";
    }
    unsigned_names! { u16, "u16"; u32, "u32"; u64, "u64"; }
    table.run(&Gpu::new());
}

/// Ordered comparisons are false for NaN, unordered ones true; -0 equals +0.
#[test]
fn floats_compare_ordered_and_unordered() {
    let mut table = Table::new();
    macro_rules! comparisons {
        ($($type:ty, $ptx:literal;)*) => {$(
            table.binary(concat!("setp.eq.", $ptx), |a: $type, b: $type| a == b);
            table.binary(concat!("setp.ne.", $ptx), |a: $type, b: $type| a != b && !a.is_nan() && !b.is_nan());
            table.binary(concat!("setp.lt.", $ptx), |a: $type, b: $type| a < b);
            table.binary(concat!("setp.le.", $ptx), |a: $type, b: $type| a <= b);
            table.binary(concat!("setp.gt.", $ptx), |a: $type, b: $type| a > b);
            table.binary(concat!("setp.ge.", $ptx), |a: $type, b: $type| a >= b);
            table.binary(concat!("setp.equ.", $ptx), |a: $type, b: $type| a == b || a.is_nan() || b.is_nan());
            table.binary(concat!("setp.neu.", $ptx), |a: $type, b: $type| a != b);
            table.binary(concat!("setp.ltu.", $ptx), |a: $type, b: $type| !(a >= b));
            table.binary(concat!("setp.leu.", $ptx), |a: $type, b: $type| !(a > b));
            table.binary(concat!("setp.gtu.", $ptx), |a: $type, b: $type| !(a <= b));
            table.binary(concat!("setp.geu.", $ptx), |a: $type, b: $type| !(a < b));
            table.binary(concat!("setp.num.", $ptx), |a: $type, b: $type| !a.is_nan() && !b.is_nan());
            table.binary(concat!("setp.nan.", $ptx), |a: $type, b: $type| a.is_nan() || b.is_nan());
        )*};
    }
    comparisons! { f32, "f32"; f64, "f64"; f16, "f16"; }
    table.run(&Gpu::new());
}

#[test]
fn bf16_compares_on_sm_90() {
    let mut table = Table::new().target("sm_90");
    table.binary("setp.lt.bf16", |a: bf16, b: bf16| a < b);
    table.binary("setp.geu.bf16", |a: bf16, b: bf16| !(a < b));
    table.run(&Gpu::sm_90());
}

#[test]
fn subnormal_operands_count_as_zero_with_ftz() {
    let flush = crate::support::rounding::flush;
    let mut table = Table::new();
    table.binary("setp.eq.ftz.f32", |a: f32, b: f32| flush(a) == flush(b));
    table.binary("setp.lt.ftz.f32", |a: f32, b: f32| flush(a) < flush(b));
    table.binary("setp.gtu.ftz.f32", |a: f32, b: f32| !(flush(a) <= flush(b)));
    table.binary("set.ge.ftz.u32.f32", |a: f32, b: f32| if flush(a) >= flush(b) { u32::MAX } else { 0 });
    table.run(&Gpu::new());
}

#[test]
fn comparisons_combine_with_a_predicate() {
    let mut table = Table::new();
    table.ternary("setp.lt.and.s32", |a: i32, b: i32, c: bool| (a < b) & c);
    table.ternary("setp.lt.or.s32", |a: i32, b: i32, c: bool| (a < b) | c);
    table.ternary("setp.lt.xor.s32", |a: i32, b: i32, c: bool| (a < b) ^ c);
    table.ternary("setp.lt.and.s32 %r, %a, %b, !%c;", |a: i32, b: i32, c: bool| (a < b) & !c);
    table.ternary("setp.ge.or.f32 %r, %a, %b, !%c;", |a: f32, b: f32, c: bool| (a >= b) | !c);
    // The second destination combines the negated comparison with the same operator.
    let mut rows = Vec::new();
    for a in u32::edges() {
        for b in u32::edges() {
            for c in [false, true] {
                let results = vec![((a < b) & c).expect(), ((a >= b) & c).expect()];
                rows.push(Row { operands: vec![a.bits(), b.bits(), c.bits()], results });
            }
        }
    }
    let operands = [Width::B32, Width::B32, Width::Pred];
    table.raw("setp.lt.and.u32 %r|%r1, %a, %b, %c;", &operands, &[Width::Pred; 2], rows);
    let mut rows = Vec::new();
    for a in f32::edges() {
        for b in f32::edges() {
            rows.push(Row {
                operands: vec![a.bits(), b.bits()],
                results: vec![(a < b).expect(), (!(a < b)).expect()],
            });
        }
    }
    table.raw("setp.lt.f32 %r|%r1, %a, %b;", &[Width::B32; 2], &[Width::Pred; 2], rows);
    table.run(&Gpu::new());
}

#[test]
fn set_writes_ones_or_one_point_zero() {
    let mut table = Table::new();
    let all = |yes: bool| if yes { u32::MAX } else { 0 };
    let one = |yes: bool| if yes { 1.0f32 } else { 0.0 };
    table.binary("set.lt.u32.s32", move |a: i32, b: i32| all(a < b));
    table.binary("set.eq.s32.u64", move |a: u64, b: u64| all(a == b));
    table.binary("set.gt.f32.u32", move |a: u32, b: u32| one(a > b));
    table.binary("set.leu.f32.f32", move |a: f32, b: f32| one(!(a > b)));
    table.binary("set.num.u32.f64", move |a: f64, b: f64| all(!a.is_nan() && !b.is_nan()));
    table.binary("set.ne.u32.u16", move |a: u16, b: u16| all(a != b));
    table.ternary("set.lt.and.u32.s32", move |a: i32, b: i32, c: bool| all((a < b) & c));
    table.ternary("set.lt.xor.f32.s32 %r, %a, %b, !%c;", move |a: i32, b: i32, c: bool| one((a < b) ^ !c));
    let half = |yes: bool| if yes { f16::ONE } else { f16::ZERO };
    table.binary("set.eq.f16.f16", move |a: f16, b: f16| half(a == b));
    table.binary("set.ltu.f16.f16", move |a: f16, b: f16| half(!(a >= b)));
    table.binary("set.lt.u32.f16", move |a: f16, b: f16| all(a < b));
    table.run(&Gpu::new());
}

#[test]
fn packed_halves_are_compared_separately() {
    use crate::support::Pair;
    let one = |yes: bool| if yes { f16::ONE } else { f16::ZERO };
    let mut table = Table::new();
    table.binary("set.eq.f16x2.f16x2", move |a: Pair<f16>, b: Pair<f16>| {
        Pair(one(a.0 == b.0), one(a.1 == b.1))
    });
    table.binary("set.gtu.f16x2.f16x2", move |a: Pair<f16>, b: Pair<f16>| {
        Pair(one(!(a.0 <= b.0)), one(!(a.1 <= b.1)))
    });
    let mut rows = Vec::new();
    for a in Pair::<f16>::edges() {
        for b in Pair::<f16>::edges() {
            rows.push(Row {
                operands: vec![a.bits(), b.bits()],
                results: vec![(a.0 < b.0).expect(), (a.1 < b.1).expect()],
            });
        }
    }
    table.raw("setp.lt.f16x2 %r|%r1, %a, %b;", &[Width::B32; 2], &[Width::Pred; 2], rows);
    table.run(&Gpu::new());
}

#[test]
fn selections_copy_bits_unchanged() {
    let mut table = Table::new();
    for text in ["selp.b16", "selp.u16", "selp.s16"] {
        table.ternary(text, |a: u16, b: u16, c: bool| if c { a } else { b });
    }
    for text in ["selp.b32", "selp.u32", "selp.s32"] {
        table.ternary(text, |a: u32, b: u32, c: bool| if c { a } else { b });
    }
    for text in ["selp.b64", "selp.u64", "selp.s64"] {
        table.ternary(text, |a: u64, b: u64, c: bool| if c { a } else { b });
    }
    let signalling = 0x7f80_0001u64;
    let choices = [(0u64, 1.0f32.bits()), (1, signalling)];
    let rows = choices.map(|(c, result)| Row {
        operands: vec![signalling, 1.0f32.bits(), c],
        results: vec![Expect::Bits(result)],
    });
    table.raw("selp.f32", &[Width::B32, Width::B32, Width::Pred], &[Width::B32], rows.to_vec());
    table.ternary("selp.f64", |a: f64, b: f64, c: bool| if c { a } else { b });
    table.ternary("slct.u32.s32", |a: u32, b: u32, c: i32| if c >= 0 { a } else { b });
    table.ternary("slct.u64.f32", |a: u64, b: u64, c: f32| if c >= 0.0 { a } else { b });
    table.ternary(
        "slct.ftz.u32.f32",
        |a: u32, b: u32, c: f32| if crate::support::rounding::flush(c) >= 0.0 { a } else { b },
    );
    table.run(&Gpu::new());
}

#[test]
fn three_input_logic_with_a_predicate_result() {
    let mut rows = Vec::new();
    for a in [0u32, 1, 0xffff_0000, u32::MAX] {
        for b in [0u32, 0xffff, 0xffff_0000] {
            for q in [false, true] {
                let d = a & b;
                rows.push(Row {
                    operands: vec![a.bits(), b.bits(), q.bits()],
                    results: vec![d.expect(), ((d != 0) | q).expect()],
                });
            }
        }
    }
    let mut table = Table::new().target("sm_80").version("8.2");
    let operands = [Width::B32, Width::B32, Width::Pred];
    table.raw("lop3.or.b32 %r|%r1, %a, %b, 0, 0xC0, %c;", &operands, &[Width::B32, Width::Pred], rows);
    table.run(&Gpu::new());
}
