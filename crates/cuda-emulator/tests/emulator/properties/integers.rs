//! Integers and bits.

use super::random::{binary, ternary, unary};

#[test]
fn arithmetic() {
    binary("add.u32", |a: u32, b: u32| a.wrapping_add(b));
    binary("sub.s64", |a: i64, b: i64| a.wrapping_sub(b));
    binary("mul.lo.s32", |a: i32, b: i32| a.wrapping_mul(b));
    binary("mul.hi.u32", |a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32);
    binary("mul.hi.s64", |a: i64, b: i64| ((i128::from(a) * i128::from(b)) >> 64) as i64);
    binary("mul.wide.s32", |a: i32, b: i32| i64::from(a) * i64::from(b));
    ternary("mad.lo.u64", |a: u64, b: u64, c: u64| a.wrapping_mul(b).wrapping_add(c));
    ternary("mad.wide.u32", |a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c));
    binary("add.sat.s32", |a: i32, b: i32| a.saturating_add(b));
    ternary("sad.s32", |a: i32, b: i32, c: i32| c.wrapping_add(a.abs_diff(b) as i32));
}

#[test]
fn quotients_and_remainders() {
    binary("{ .reg .b32 %odd; or.b32 %odd, %b, 1; div.u32 %r, %a, %odd; }", |a: u32, b: u32| a / (b | 1));
    binary("{ .reg .b32 %odd; or.b32 %odd, %b, 1; rem.s32 %r, %a, %odd; }", |a: i32, b: i32| {
        a.wrapping_rem(b | 1)
    });
    binary("{ .reg .b64 %odd; or.b64 %odd, %b, 1; div.s64 %r, %a, %odd; }", |a: i64, b: i64| {
        a.wrapping_div(b | 1)
    });
    binary("{ .reg .b64 %odd; or.b64 %odd, %b, 1; rem.u64 %r, %a, %odd; }", |a: u64, b: u64| a % (b | 1));
}

#[test]
fn shifts_of_any_count() {
    binary("shl.b32", |a: u32, n: u32| if n < 32 { a << n } else { 0 });
    binary("shr.u64", |a: u64, n: u32| if n < 64 { a >> n } else { 0 });
    binary("shr.s32", |a: i32, n: u32| a >> n.min(31));
    binary("shr.s16", |a: i16, n: u32| a >> n.min(15));
    ternary("shf.l.wrap.b32", |a: u32, b: u32, n: u32| {
        (((u64::from(b) << 32 | u64::from(a)) << (n % 32)) >> 32) as u32
    });
    ternary("shf.r.clamp.b32", |a: u32, b: u32, n: u32| {
        ((u64::from(b) << 32 | u64::from(a)) >> n.min(32)) as u32
    });
}

#[test]
fn fields_and_bytes() {
    let extract = |a: u32, position: u32, length: u32| {
        let (position, length) = (position & 0xff, length & 0xff);
        if position > 31 || length == 0 {
            0
        } else {
            (u64::from(a >> position) & ((1u64 << length.min(32)) - 1)) as u32
        }
    };
    ternary("bfe.u32", extract);
    ternary("bfe.u32 %r, %a, 3, 7;", move |a: u32, _: u32, _: u32| extract(a, 3, 7));
    ternary("dp4a.s32.s32", |a: u32, b: u32, c: u32| {
        a.to_le_bytes()
            .into_iter()
            .zip(b.to_le_bytes())
            .fold(c, |sum, (a, b)| sum.wrapping_add((i32::from(a as i8) * i32::from(b as i8)) as u32))
    });
    ternary("lop3.b32 %r, %a, %b, %c, 0xCA;", |a: u32, b: u32, c: u32| a & b | !a & c);
    ternary("prmt.b32", |a: u32, b: u32, c: u32| {
        let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
        u32::from_le_bytes([0, 4, 8, 12].map(|shift| {
            let choice = c >> shift & 15;
            let byte = bytes[(choice & 7) as usize];
            if choice & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 }
        }))
    });
    unary("brev.b64", |a: u64| a.reverse_bits());
    unary("popc.b64", |a: u64| a.count_ones());
    unary("clz.b32", |a: u32| a.leading_zeros());
    unary("bfind.u32", |a: u32| if a == 0 { u32::MAX } else { 31 - a.leading_zeros() });
    unary("bfind.shiftamt.s32", |a: i32| {
        let a = if a < 0 { !a } else { a };
        if a == 0 { u32::MAX } else { a.leading_zeros() }
    });
}

#[test]
fn comparisons() {
    binary("setp.lt.s32", |a: i32, b: i32| a < b);
    binary("setp.hs.u32", |a: u32, b: u32| a >= b);
    binary("setp.ne.s64", |a: i64, b: i64| a != b);
    binary("max.s64", |a: i64, b: i64| a.max(b));
    binary("min.u16", |a: u16, b: u16| a.min(b));
    ternary("selp.b64", |a: u64, b: u64, c: bool| if c { a } else { b });
}
