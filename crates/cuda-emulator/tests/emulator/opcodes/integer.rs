//! Integer arithmetic with 16, 32 and 64 bits: PTX ISA, "Integer Arithmetic Instructions".

use crate::support::{Gpu, Table};

#[test]
fn sums_and_differences_wrap() {
    let mut table = Table::new();
    table.binary("add.s16", |a: i16, b: i16| a.wrapping_add(b));
    table.binary("add.u16", |a: u16, b: u16| a.wrapping_add(b));
    table.binary("add.s32", |a: i32, b: i32| a.wrapping_add(b));
    table.binary("add.u32", |a: u32, b: u32| a.wrapping_add(b));
    table.binary("add.s64", |a: i64, b: i64| a.wrapping_add(b));
    table.binary("add.u64", |a: u64, b: u64| a.wrapping_add(b));
    table.binary("sub.s16", |a: i16, b: i16| a.wrapping_sub(b));
    table.binary("sub.u16", |a: u16, b: u16| a.wrapping_sub(b));
    table.binary("sub.s32", |a: i32, b: i32| a.wrapping_sub(b));
    table.binary("sub.u32", |a: u32, b: u32| a.wrapping_sub(b));
    table.binary("sub.s64", |a: i64, b: i64| a.wrapping_sub(b));
    table.binary("sub.u64", |a: u64, b: u64| a.wrapping_sub(b));
    table.run(&Gpu::new());
}

#[test]
fn saturating_sums_stop_at_the_limits() {
    let mut table = Table::new();
    table.binary("add.sat.s32", |a: i32, b: i32| a.saturating_add(b));
    table.binary("sub.sat.s32", |a: i32, b: i32| a.saturating_sub(b));
    table.run(&Gpu::new());
}

#[test]
fn immediates_have_the_type_of_the_instruction() {
    let mut table = Table::new();
    table.unary("add.s32 %r, %a, -1;", |a: i32| a.wrapping_sub(1));
    table.unary("add.s64 %r, %a, -16;", |a: i64| a.wrapping_sub(16));
    table.unary("add.s16 %r, %a, -5;", |a: i16| a.wrapping_sub(5));
    table.unary("and.b32 %r, %a, -16;", |a: u32| a & 0xffff_fff0);
    table.unary("xor.b64 %r, %a, 0xffffffff00000000;", |a: u64| a ^ 0xffff_ffff_0000_0000);
    table.unary("add.u32 %r, %a, 0b1011;", |a: u32| a.wrapping_add(11));
    table.unary("add.u32 %r, %a, 017;", |a: u32| a.wrapping_add(15));
    table.unary("sub.u32 %r, 4294967295U, %a;", |a: u32| u32::MAX - a);
    table.unary("add.s32 %r, %a, (3 + 4) * 2;", |a: i32| a.wrapping_add(14));
    table.unary("add.s32 %r, %a, 1 << 4;", |a: i32| a.wrapping_add(16));
    table.unary("add.s32 %r, %a, ~0;", |a: i32| a.wrapping_sub(1));
    table.run(&Gpu::new());
}

#[test]
fn products_return_the_low_the_high_or_all_bits() {
    let mut table = Table::new();
    table.binary("mul.lo.s16", |a: i16, b: i16| a.wrapping_mul(b));
    table.binary("mul.lo.u16", |a: u16, b: u16| a.wrapping_mul(b));
    table.binary("mul.lo.s32", |a: i32, b: i32| a.wrapping_mul(b));
    table.binary("mul.lo.u32", |a: u32, b: u32| a.wrapping_mul(b));
    table.binary("mul.lo.s64", |a: i64, b: i64| a.wrapping_mul(b));
    table.binary("mul.lo.u64", |a: u64, b: u64| a.wrapping_mul(b));
    table.binary("mul.hi.s16", |a: i16, b: i16| ((i32::from(a) * i32::from(b)) >> 16) as i16);
    table.binary("mul.hi.u16", |a: u16, b: u16| ((u32::from(a) * u32::from(b)) >> 16) as u16);
    table.binary("mul.hi.s32", |a: i32, b: i32| ((i64::from(a) * i64::from(b)) >> 32) as i32);
    table.binary("mul.hi.u32", |a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32);
    table.binary("mul.hi.s64", |a: i64, b: i64| ((i128::from(a) * i128::from(b)) >> 64) as i64);
    table.binary("mul.hi.u64", |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64);
    table.binary("mul.wide.s16", |a: i16, b: i16| i32::from(a) * i32::from(b));
    table.binary("mul.wide.u16", |a: u16, b: u16| u32::from(a) * u32::from(b));
    table.binary("mul.wide.s32", |a: i32, b: i32| i64::from(a) * i64::from(b));
    table.binary("mul.wide.u32", |a: u32, b: u32| u64::from(a) * u64::from(b));
    table.run(&Gpu::new());
}

#[test]
fn multiply_adds_wrap() {
    let mut table = Table::new();
    table.ternary("mad.lo.s16", |a: i16, b: i16, c: i16| a.wrapping_mul(b).wrapping_add(c));
    table.ternary("mad.lo.u16", |a: u16, b: u16, c: u16| a.wrapping_mul(b).wrapping_add(c));
    table.ternary("mad.lo.s32", |a: i32, b: i32, c: i32| a.wrapping_mul(b).wrapping_add(c));
    table.ternary("mad.lo.u32", |a: u32, b: u32, c: u32| a.wrapping_mul(b).wrapping_add(c));
    table.ternary("mad.lo.s64", |a: i64, b: i64, c: i64| a.wrapping_mul(b).wrapping_add(c));
    table.ternary("mad.lo.u64", |a: u64, b: u64, c: u64| a.wrapping_mul(b).wrapping_add(c));
    table.ternary("mad.hi.s32", |a: i32, b: i32, c: i32| {
        (((i64::from(a) * i64::from(b)) >> 32) as i32).wrapping_add(c)
    });
    table.ternary("mad.hi.u32", |a: u32, b: u32, c: u32| {
        (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c)
    });
    table.ternary("mad.hi.u64", |a: u64, b: u64, c: u64| {
        (((u128::from(a) * u128::from(b)) >> 64) as u64).wrapping_add(c)
    });
    table.ternary("mad.hi.sat.s32", |a: i32, b: i32, c: i32| {
        (((i64::from(a) * i64::from(b)) >> 32) as i32).saturating_add(c)
    });
    table.ternary("mad.wide.s16", |a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).wrapping_add(c));
    table.ternary("mad.wide.u16", |a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).wrapping_add(c));
    table.ternary("mad.wide.s32", |a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c));
    table.ternary("mad.wide.u32", |a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c));
    table.run(&Gpu::new());
}

/// The divisor is made odd and thus never zero, because the result of a division by zero is unspecified. The smallest number
/// divided by -1 wraps, as on hardware.
#[test]
fn quotients_truncate_and_remainders_follow_the_dividend() {
    let mut table = Table::new();
    macro_rules! divisions {
        ($($type:ty, $ptx:literal, $bits:literal;)*) => {$(
            let odd = |text: &str| format!("{{ .reg .{0} %odd; or.{0} %odd, %b, 1; {1}.{2} %r, %a, %odd; }}", $bits, text, $ptx);
            table.binary(&odd("div"), |a: $type, b: $type| a.wrapping_div(b | 1));
            table.binary(&odd("rem"), |a: $type, b: $type| a.wrapping_rem(b | 1));
        )*};
    }
    divisions! {
        i16, "s16", "b16";
        u16, "u16", "b16";
        i32, "s32", "b32";
        u32, "u32", "b32";
        i64, "s64", "b64";
        u64, "u64", "b64";
    }
    table.rows("div.s32", &[([7i32, 2], 3), ([-7, 2], -3), ([7, -2], -3), ([-7, -2], 3), ([6, 6], 1)]);
    table.rows("rem.s32", &[([7i32, 2], 1), ([-7, 2], -1), ([7, -2], 1), ([-7, -2], -1), ([6, 6], 0)]);
    // The results are unspecified; the launch must succeed.
    table.rows("div.s32", &[([7i32, 0], -1), ([0, 0], -1), ([i32::MIN, -1], i32::MIN)]);
    table.rows("rem.s32", &[([7i32, 0], 7), ([0, 0], 0), ([i32::MIN, -1], 0)]);
    table.run(&Gpu::new());
}

#[test]
fn one_operand_arithmetic() {
    let mut table = Table::new();
    table.unary("abs.s16", |a: i16| a.wrapping_abs());
    table.unary("abs.s32", |a: i32| a.wrapping_abs());
    table.unary("abs.s64", |a: i64| a.wrapping_abs());
    table.unary("neg.s16", |a: i16| a.wrapping_neg());
    table.unary("neg.s32", |a: i32| a.wrapping_neg());
    table.unary("neg.s64", |a: i64| a.wrapping_neg());
    table.run(&Gpu::new());
}

#[test]
fn minimum_and_maximum_are_signed_or_unsigned() {
    let mut table = Table::new();
    macro_rules! extremes {
        ($($type:ty, $min:literal, $max:literal;)*) => {$(
            table.binary($min, |a: $type, b: $type| a.min(b));
            table.binary($max, |a: $type, b: $type| a.max(b));
        )*};
    }
    extremes! {
        i16, "min.s16", "max.s16";
        u16, "min.u16", "max.u16";
        i32, "min.s32", "max.s32";
        u32, "min.u32", "max.u32";
        i64, "min.s64", "max.s64";
        u64, "min.u64", "max.u64";
    }
    table.run(&Gpu::new());
}
