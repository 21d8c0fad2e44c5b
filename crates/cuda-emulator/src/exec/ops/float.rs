//! "Floating Point Instructions" for f32: add, sub, mul, fma, mad, div, abs, neg, min, max, rcp, sqrt (rounded
//! forms), copysign, testp.
//!
//! NaN results are 0x7fffffff, as the PTX ISA specifies for f32. `.ftz` flushes inputs and results. Instructions without a
//! rounding modifier round to nearest; they are never fused.

use super::Decoded;
use crate::exec::code::Action;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::exec::lanes::{Done, binary, binary_slow, compare, ternary, ternary_slow, unary, unary_slow};
use crate::exec::rounding::{
    Finish, Rounding, canonical, narrow, narrow_fma, narrow_quotient, narrow_root, narrow_sum,
};
use crate::ptx::types::{Meaning, Type};

const SINGLE: Type = Type { meaning: Meaning::Float, bits: 32 };

pub(super) fn decode(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let rounding = form.rounding();
    let finish = Finish { ftz: form.flag("ftz"), sat: form.flag("sat") };
    let action = match form.opcode() {
        "min" | "max" => return extreme(d, form, finish),
        "div" if finish.sat || rounding.is_none() => return super::approximate::division(d, form, finish),
        "rcp" | "sqrt" if rounding.is_none() => return super::approximate::decode(d, form, finish),
        "fma" | "mad" if rounding.is_none() => return form.error("missing rounding modifier"),
        "abs" | "neg" if rounding.is_some() => return form.unsupported(),
        "copysign" if rounding.is_some() || !finish.plain() => return form.unsupported(),
        _ if form.kind()? != SINGLE => return form.unsupported(),
        "fma" | "mad" => {
            let [o, a, b, c] = form.operands()?;
            let rows = [d.source(form, a, SINGLE)?, d.source(form, b, SINGLE)?, d.source(form, c, SINGLE)?];
            multiply_add(d.destination(form, o, SINGLE)?, rows, rounding.unwrap_or(Rounding::Nearest), finish)
        }
        opcode @ ("rcp" | "sqrt" | "abs" | "neg") => {
            let [o, a] = form.operands()?;
            let a = d.source(form, a, SINGLE)?;
            one(opcode, d.destination(form, o, SINGLE)?, a, rounding.unwrap_or(Rounding::Nearest), finish)
        }
        opcode @ ("add" | "sub" | "mul" | "div" | "copysign") => {
            let [o, a, b] = form.operands()?;
            let rows = [d.source(form, a, SINGLE)?, d.source(form, b, SINGLE)?];
            two(opcode, d.destination(form, o, SINGLE)?, rows, rounding.unwrap_or(Rounding::Nearest), finish)
        }
        _ => return form.unsupported(),
    };
    if finish.sat && !matches!(form.opcode(), "add" | "sub" | "mul" | "fma" | "mad") {
        return form.error(".sat is not supported here");
    }
    Ok((Class::Float, action))
}

fn multiply_add(o: u32, rows: [u32; 3], mode: Rounding, finish: Finish) -> Action {
    if mode != Rounding::Nearest {
        ternary_slow(o, rows, move |a: f32, b: f32, c: f32| {
            finish.output(narrow_fma(finish.input(a), finish.input(b), finish.input(c), mode))
        })
    } else if finish.plain() {
        ternary(o, rows, |a: f32, b: f32, c: f32| canonical(a.mul_add(b, c)))
    } else {
        ternary(o, rows, move |a: f32, b: f32, c: f32| {
            finish.output(finish.input(a).mul_add(finish.input(b), finish.input(c)))
        })
    }
}

fn one(opcode: &str, o: u32, a: u32, mode: Rounding, finish: Finish) -> Action {
    match (opcode, mode) {
        ("abs", _) => unary(o, [a], move |x: f32| finish.input(x).abs()),
        ("neg", _) => unary(o, [a], move |x: f32| -finish.input(x)),
        ("rcp", Rounding::Nearest) => unary(o, [a], move |x: f32| finish.output(1.0 / finish.input(x))),
        (_, Rounding::Nearest) => unary(o, [a], move |x: f32| finish.output(finish.input(x).sqrt())),
        ("rcp", _) => {
            unary_slow(o, [a], move |x: f32| finish.output(narrow_quotient(1.0, finish.input(x), mode)))
        }
        _ => unary_slow(o, [a], move |x: f32| finish.output(narrow_root(finish.input(x), mode))),
    }
}

fn two(opcode: &str, o: u32, rows: [u32; 2], mode: Rounding, finish: Finish) -> Action {
    match (opcode, mode, finish.plain()) {
        ("add", Rounding::Nearest, true) => binary(o, rows, |a: f32, b: f32| canonical(a + b)),
        ("sub", Rounding::Nearest, true) => binary(o, rows, |a: f32, b: f32| canonical(a - b)),
        ("mul", Rounding::Nearest, true) => binary(o, rows, |a: f32, b: f32| canonical(a * b)),
        // The sign is that of the first source.
        ("copysign", ..) => binary(o, rows, |a: f32, b: f32| b.copysign(a)),
        ("div", Rounding::Nearest, _) => {
            binary(o, rows, move |a: f32, b: f32| finish.output(finish.input(a) / finish.input(b)))
        }
        ("div", ..) => binary_slow(o, rows, move |a: f32, b: f32| {
            finish.output(narrow_quotient(finish.input(a), finish.input(b), mode))
        }),
        ("mul", ..) => binary_slow(o, rows, move |a: f32, b: f32| {
            let exact = f64::from(finish.input(a)) * f64::from(finish.input(b));
            finish.output(narrow(exact, mode))
        }),
        _ => {
            let sign = if opcode == "sub" { -1.0 } else { 1.0 };
            binary_slow(o, rows, move |a: f32, b: f32| {
                let (a, b) = (f64::from(finish.input(a)), f64::from(finish.input(b)));
                finish.output(narrow_sum(a, b * sign, mode))
            })
        }
    }
}

/// The minimum or maximum, with -0 less than +0. NaN only if both inputs are NaN, or if either is and `nan` is set.
#[inline(always)]
pub(super) fn pick(a: f32, b: f32, larger: bool, nan: bool) -> f32 {
    if a.is_nan() || b.is_nan() {
        return match (a.is_nan(), b.is_nan(), nan) {
            (true, false, false) => b,
            (false, true, false) => a,
            _ => f32::from_bits(0x7fff_ffff),
        };
    }
    // Sign and magnitude to two's complement, whose order is that of the numbers.
    let key = |x: f32| {
        let bits = x.to_bits() as i32;
        bits ^ ((bits >> 31) as u32 >> 1) as i32
    };
    if (key(a) < key(b)) != larger { a } else { b }
}

/// min and max of two or three inputs.
fn extreme(d: &mut Decoder<'_>, form: &mut Form<'_>, finish: Finish) -> Decoded {
    let nan = form.flag("NaN");
    let xor_sign = form.flag("xorsign");
    if xor_sign && !form.flag("abs") {
        return form.error(".xorsign requires .abs");
    }
    if form.kind()? != SINGLE || finish.sat {
        return form.unsupported();
    }
    let larger = form.opcode() == "max";
    if form.instruction.operands.len() == 4 && !xor_sign {
        let [o, a, b, c] = form.operands()?;
        let rows = [d.source(form, a, SINGLE)?, d.source(form, b, SINGLE)?, d.source(form, c, SINGLE)?];
        let o = d.destination(form, o, SINGLE)?;
        let action = ternary(o, rows, move |a: f32, b: f32, c: f32| {
            pick(pick(finish.input(a), finish.input(b), larger, nan), finish.input(c), larger, nan)
        });
        return Ok((Class::Float, action));
    }
    let [o, a, b] = form.operands()?;
    let rows = [d.source(form, a, SINGLE)?, d.source(form, b, SINGLE)?];
    let o = d.destination(form, o, SINGLE)?;
    let action = match (xor_sign, finish.ftz || nan, larger) {
        (false, false, true) => binary(o, rows, |a: f32, b: f32| pick(a, b, true, false)),
        (false, false, false) => binary(o, rows, |a: f32, b: f32| pick(a, b, false, false)),
        (false, ..) => {
            binary(o, rows, move |a: f32, b: f32| pick(finish.input(a), finish.input(b), larger, nan))
        }
        (true, ..) => binary(o, rows, move |a: f32, b: f32| {
            let (a, b) = (finish.input(a), finish.input(b));
            let sign = (a.to_bits() ^ b.to_bits()) & 0x8000_0000;
            let value = pick(a.abs(), b.abs(), larger, nan);
            if value.is_nan() { value } else { f32::from_bits(value.to_bits() | sign) }
        }),
    };
    Ok((Class::Float, action))
}

/// "testp": tests properties of f32 and f64.
pub(super) fn test(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let Some(property) = form.any(&["finite", "infinite", "number", "notanumber", "normal", "subnormal"])
    else {
        return form.error("missing property");
    };
    let t = form.kind()?;
    let [p, a] = form.operands()?;
    let a = d.source(form, a, t)?;
    let p = d.predicate_destination(form, p)?;
    let done: Done = Box::new(move |r, bits, mask| r.put_predicate(p, bits, mask));
    macro_rules! test {
        ($t:ty) => {
            compare(
                [a, a],
                0,
                move |x: $t, _: $t| match property {
                    "finite" => x.is_finite(),
                    "infinite" => x.is_infinite(),
                    "number" => !x.is_nan(),
                    "notanumber" => x.is_nan(),
                    // Zeros count as normal.
                    "normal" => x.is_normal() || x == 0.0,
                    _ => x.is_subnormal(),
                },
                done,
            )
        };
    }
    match (t.meaning, t.bits) {
        (Meaning::Float, 32) => Ok((Class::Float, test!(f32))),
        (Meaning::Float, 64) => Ok((Class::Double, test!(f64))),
        _ => form.unsupported(),
    }
}
