//! "Integer Arithmetic Instructions": add, sub, mul, mad, sad, div, rem, abs, neg, min, max, mul24, mad24, and
//! the dot products dp4a and dp2a.

use super::Decoded;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::exec::lanes::{binary, binary_slow, ternary, unary};
use crate::exec::registers::Typed;
use crate::ptx::types::{Meaning, Type};

/// Expands the body with the Rust type of a PTX integer type.
macro_rules! with_integer {
    ($form:expr, $t:expr, $T:ident => $body:expr) => {
        match ($t.meaning, $t.bits) {
            (Meaning::Unsigned, 16) => {
                type $T = u16;
                $body
            }
            (Meaning::Signed, 16) => {
                type $T = i16;
                $body
            }
            (Meaning::Unsigned, 32) => {
                type $T = u32;
                $body
            }
            (Meaning::Signed, 32) => {
                type $T = i32;
                $body
            }
            (Meaning::Unsigned, 64) => {
                type $T = u64;
                $body
            }
            (Meaning::Signed, 64) => {
                type $T = i64;
                $body
            }
            _ => return $form.unsupported(),
        }
    };
}

pub(super) fn decode(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let action = match form.opcode() {
        "mul" | "mad" => return multiply(d, form),
        "mul24" | "mad24" => return multiply_24(d, form),
        "sad" => {
            let t = form.kind()?;
            let [o, a, b, c] = form.operands()?;
            let unsigned = Type { meaning: Meaning::Unsigned, bits: t.bits };
            let rows = [d.source(form, a, t)?, d.source(form, b, t)?, d.source(form, c, unsigned)?];
            let o = d.destination(form, o, t)?;
            with_integer!(form, t, T => ternary(o, rows, |a: T, b: T, c: T| {
                c.wrapping_add(if a < b { b.wrapping_sub(a) } else { a.wrapping_sub(b) })
            }))
        }
        "abs" | "neg" => {
            let t = form.kind()?;
            let [o, a] = form.operands()?;
            let a = d.source(form, a, t)?;
            let o = d.destination(form, o, t)?;
            match (form.opcode(), t.meaning, t.bits) {
                ("abs", Meaning::Signed, 16) => unary(o, [a], i16::wrapping_abs),
                ("abs", Meaning::Signed, 32) => unary(o, [a], i32::wrapping_abs),
                ("abs", Meaning::Signed, 64) => unary(o, [a], i64::wrapping_abs),
                ("neg", Meaning::Signed, 16) => unary(o, [a], i16::wrapping_neg),
                ("neg", Meaning::Signed, 32) => unary(o, [a], i32::wrapping_neg),
                ("neg", Meaning::Signed, 64) => unary(o, [a], i64::wrapping_neg),
                _ => return form.unsupported(),
            }
        }
        opcode => {
            let saturate = matches!(opcode, "add" | "sub") && form.flag("sat");
            let t = form.kind()?;
            if saturate && t != (Type { meaning: Meaning::Signed, bits: 32 }) {
                return form.error(".sat requires .s32");
            }
            let [o, a, b] = form.operands()?;
            let rows = [d.source(form, a, t)?, d.source(form, b, t)?];
            let o = d.destination(form, o, t)?;
            match opcode {
                "add" if saturate => binary(o, rows, i32::saturating_add),
                "sub" if saturate => binary(o, rows, i32::saturating_sub),
                "add" => with_integer!(form, t, T => binary(o, rows, |a: T, b: T| a.wrapping_add(b))),
                "sub" => with_integer!(form, t, T => binary(o, rows, |a: T, b: T| a.wrapping_sub(b))),
                "min" => with_integer!(form, t, T => binary(o, rows, |a: T, b: T| a.min(b))),
                "max" => with_integer!(form, t, T => binary(o, rows, |a: T, b: T| a.max(b))),
                // Division by zero "yields an unspecified, machine-specific value": here all ones, and the dividend for
                // rem.
                "div" => with_integer!(form, t, T => binary_slow(o, rows, |a: T, b: T| {
                    if b == 0 { !0 } else { a.wrapping_div(b) }
                })),
                "rem" => with_integer!(form, t, T => binary_slow(o, rows, |a: T, b: T| {
                    if b == 0 { a } else { a.wrapping_rem(b) }
                })),
                _ => return form.unsupported(),
            }
        }
    };
    Ok((Class::Integer, action))
}

/// The product of two integers with twice the width, for `.hi` and `.wide`.
trait Product: Typed {
    type Wide: Typed;
    fn wide(self, other: Self) -> Self::Wide;
    fn high(self, other: Self) -> Self;
}

macro_rules! product {
    ($($t:ty, $wide:ty, $exact:ty;)*) => {$(
        impl Product for $t {
            type Wide = $wide;
            #[inline(always)]
            fn wide(self, other: Self) -> $wide {
                (self as $wide).wrapping_mul(other as $wide)
            }
            #[inline(always)]
            fn high(self, other: Self) -> Self {
                ((self as $exact * other as $exact) >> <$t>::BITS) as Self
            }
        }
    )*};
}

product! {
    u16, u32, u32;
    i16, i32, i32;
    u32, u64, u64;
    i32, i64, i64;
    u64, u64, u128;
    i64, i64, i128;
}

fn multiply(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let part = form.any(&["lo", "hi", "wide"]);
    let saturate = form.opcode() == "mad" && form.flag("sat");
    let t = form.kind()?;
    let wide = part == Some("wide");
    if wide && t.bits == 64 {
        return form.unsupported();
    }
    let result = if wide { Type { meaning: t.meaning, bits: t.bits * 2 } } else { t };
    if form.opcode() == "mul" {
        let [o, a, b] = form.operands()?;
        let rows = [d.source(form, a, t)?, d.source(form, b, t)?];
        let o = d.destination(form, o, result)?;
        let action = match part {
            Some("lo") => with_integer!(form, t, T => binary(o, rows, |a: T, b: T| a.wrapping_mul(b))),
            Some("hi") => with_integer!(form, t, T => binary(o, rows, |a: T, b: T| a.high(b))),
            Some("wide") => with_integer!(form, t, T => binary(o, rows, |a: T, b: T| a.wide(b))),
            _ => return form.error("missing .lo, .hi or .wide"),
        };
        return Ok((Class::Integer, action));
    }
    let [o, a, b, c] = form.operands()?;
    let rows = [d.source(form, a, t)?, d.source(form, b, t)?, d.source(form, c, result)?];
    let o = d.destination(form, o, result)?;
    let action = match part {
        Some("hi") if saturate && t == (Type { meaning: Meaning::Signed, bits: 32 }) => {
            ternary(o, rows, |a: i32, b: i32, c: i32| a.high(b).saturating_add(c))
        }
        _ if saturate => return form.error(".sat requires .hi.s32"),
        Some("lo") => with_integer!(form, t, T => {
            ternary(o, rows, |a: T, b: T, c: T| a.wrapping_mul(b).wrapping_add(c))
        }),
        Some("hi") => with_integer!(form, t, T => {
            ternary(o, rows, |a: T, b: T, c: T| a.high(b).wrapping_add(c))
        }),
        Some("wide") => with_integer!(form, t, T => {
            ternary(o, rows, |a: T, b: T, c: <T as Product>::Wide| a.wide(b).wrapping_add(c))
        }),
        _ => return form.error("missing .lo, .hi or .wide"),
    };
    Ok((Class::Integer, action))
}

/// 24-bit products: `.lo` returns bits 0 to 31 of the 48-bit product, `.hi` bits 16 to 47.
fn multiply_24(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let high = form.any(&["lo", "hi"]) == Some("hi");
    let saturate = form.opcode() == "mad24" && form.flag("sat");
    let t = form.kind()?;
    let signed = match (t.meaning, t.bits) {
        (Meaning::Signed, 32) => true,
        (Meaning::Unsigned, 32) => false,
        _ => return form.unsupported(),
    };
    if saturate && !(high && signed) {
        return form.error(".sat requires .hi.s32");
    }
    let product = move |a: u32, b: u32| {
        let wide = if signed {
            (i64::from((a << 8) as i32 >> 8) * i64::from((b << 8) as i32 >> 8)) as u64
        } else {
            u64::from(a & 0xff_ffff) * u64::from(b & 0xff_ffff)
        };
        (if high { wide >> 16 } else { wide }) as u32
    };
    let action = if form.opcode() == "mul24" {
        let [o, a, b] = form.operands()?;
        let rows = [d.source(form, a, t)?, d.source(form, b, t)?];
        binary(d.destination(form, o, t)?, rows, product)
    } else {
        let [o, a, b, c] = form.operands()?;
        let rows = [d.source(form, a, t)?, d.source(form, b, t)?, d.source(form, c, t)?];
        ternary(d.destination(form, o, t)?, rows, move |a: u32, b: u32, c: u32| {
            let p = product(a, b);
            if saturate { (p as i32).saturating_add(c as i32) as u32 } else { p.wrapping_add(c) }
        })
    };
    Ok((Class::Integer, action))
}

/// "dp4a" and "dp2a": the dot product of bytes with bytes or 16-bit values, added to a 32-bit value.
pub(super) fn dot_product(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let high = form.opcode() == "dp2a" && {
        match form.any(&["lo", "hi"]) {
            Some(part) => part == "hi",
            None => return form.error("missing .lo or .hi"),
        }
    };
    let (ta, tb) = (form.kind()?, form.kind()?);
    let signed = |t: Type| match (t.meaning, t.bits) {
        (Meaning::Signed, 32) => Some(true),
        (Meaning::Unsigned, 32) => Some(false),
        _ => None,
    };
    let (Some(sa), Some(sb)) = (signed(ta), signed(tb)) else { return form.unsupported() };
    let [o, a, b, c] = form.operands()?;
    let rows = [d.source(form, a, ta)?, d.source(form, b, tb)?, d.source(form, c, ta)?];
    let o = d.destination(form, o, ta)?;
    let byte = |x: u32, i: u32, signed: bool| {
        let b = (x >> (8 * i)) as u8;
        if signed { i32::from(b as i8) } else { i32::from(b) }
    };
    let action = if form.opcode() == "dp4a" {
        ternary(o, rows, move |a: u32, b: u32, c: u32| {
            (0..4).fold(c, |sum, i| sum.wrapping_add((byte(a, i, sa) * byte(b, i, sb)) as u32))
        })
    } else {
        ternary(o, rows, move |a: u32, b: u32, c: u32| {
            (0..2).fold(c, |sum, i| {
                let h = (a >> (16 * i)) as u16;
                let h = if sa { i32::from(h as i16) } else { i32::from(h) };
                sum.wrapping_add(h.wrapping_mul(byte(b, i + if high { 2 } else { 0 }, sb)) as u32)
            })
        })
    };
    Ok((Class::Integer, action))
}
