//! "Floating Point Instructions" for f64: add, sub, mul, fma, mad, div, abs, neg, min, max, rcp, sqrt, copysign.

use super::Decoded;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::exec::lanes::{binary, binary_slow, ternary, ternary_slow, unary, unary_slow};
use crate::exec::rounding::{Rounding, sum_error};
use crate::ptx::types::{Meaning, Type};

const DOUBLE: Type = Type { meaning: Meaning::Float, bits: 64 };

pub(super) fn decode(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let rounding = form.rounding();
    let mode = rounding.unwrap_or(Rounding::Nearest);
    let nearest = mode == Rounding::Nearest;
    if form.opcode() == "rcp" && rounding.is_none() {
        return super::approximate::reciprocal_double(d, form);
    }
    if form.kind()? != DOUBLE {
        return form.unsupported();
    }
    let required = matches!(form.opcode(), "fma" | "mad" | "div" | "rcp" | "sqrt");
    let allowed = required || matches!(form.opcode(), "add" | "sub" | "mul");
    if required && rounding.is_none() || rounding.is_some() && !allowed {
        return form.error("missing or unexpected rounding modifier");
    }
    let action = match form.opcode() {
        "fma" | "mad" => {
            let [o, a, b, c] = form.operands()?;
            let rows = [d.source(form, a, DOUBLE)?, d.source(form, b, DOUBLE)?, d.source(form, c, DOUBLE)?];
            let o = d.destination(form, o, DOUBLE)?;
            if nearest {
                ternary(o, rows, f64::mul_add)
            } else {
                ternary_slow(o, rows, move |a: f64, b: f64, c: f64| {
                    directed(a.mul_add(b, c), fma_error(a, b, c), mode)
                })
            }
        }
        "abs" | "neg" | "rcp" | "sqrt" => {
            let [o, a] = form.operands()?;
            let a = d.source(form, a, DOUBLE)?;
            let o = d.destination(form, o, DOUBLE)?;
            match (form.opcode(), nearest) {
                ("abs", _) => unary(o, [a], f64::abs),
                ("neg", _) => unary(o, [a], |x: f64| -x),
                ("rcp", true) => unary(o, [a], |x: f64| 1.0 / x),
                ("sqrt", true) => unary(o, [a], f64::sqrt),
                ("rcp", false) => unary_slow(o, [a], move |x: f64| quotient(1.0, x, mode)),
                _ => unary_slow(o, [a], move |x: f64| {
                    let root = x.sqrt();
                    directed(root, (-root).mul_add(root, x), mode)
                }),
            }
        }
        opcode => {
            let [o, a, b] = form.operands()?;
            let rows = [d.source(form, a, DOUBLE)?, d.source(form, b, DOUBLE)?];
            let o = d.destination(form, o, DOUBLE)?;
            match (opcode, nearest) {
                ("add", true) => binary(o, rows, |a: f64, b: f64| a + b),
                ("sub", true) => binary(o, rows, |a: f64, b: f64| a - b),
                ("mul", true) => binary(o, rows, |a: f64, b: f64| a * b),
                ("div", true) => binary(o, rows, |a: f64, b: f64| a / b),
                ("add", false) => binary_slow(o, rows, move |a: f64, b: f64| sum(a, b, mode)),
                ("sub", false) => binary_slow(o, rows, move |a: f64, b: f64| sum(a, -b, mode)),
                ("mul", false) => {
                    binary_slow(o, rows, move |a: f64, b: f64| directed(a * b, a.mul_add(b, -(a * b)), mode))
                }
                ("div", false) => binary_slow(o, rows, move |a: f64, b: f64| quotient(a, b, mode)),
                ("min", _) => binary(o, rows, |a: f64, b: f64| pick(a, b, false)),
                ("max", _) => binary(o, rows, |a: f64, b: f64| pick(a, b, true)),
                ("copysign", _) => binary(o, rows, |a: f64, b: f64| b.copysign(a)),
                _ => return form.unsupported(),
            }
        }
    };
    Ok((Class::Double, action))
}

fn pick(a: f64, b: f64, larger: bool) -> f64 {
    if a.is_nan() || b.is_nan() {
        return if a.is_nan() { b } else { a };
    }
    if (a.total_cmp(&b) == std::cmp::Ordering::Less) != larger { a } else { b }
}

fn sum(a: f64, b: f64, mode: Rounding) -> f64 {
    let s = a + b;
    if s == 0.0 && a != 0.0 && mode == Rounding::Down {
        return -0.0;
    }
    directed(s, sum_error(a, b, s), mode)
}

fn quotient(a: f64, b: f64, mode: Rounding) -> f64 {
    let q = a / b;
    if b.is_infinite() || q.is_infinite() {
        return directed(q, 0.0, mode);
    }
    directed(q, (-q).mul_add(b, a) * b.signum(), mode)
}

/// Adjusts a result rounded to nearest to another rounding direction, given the sign of its error. On overflow, or if the
/// error term underflows, the nearest value is kept.
fn directed(nearest: f64, error: f64, mode: Rounding) -> f64 {
    if !nearest.is_finite() || error == 0.0 || error.is_nan() {
        return nearest;
    }
    match mode {
        Rounding::Up if error > 0.0 => nearest.next_up(),
        Rounding::Down if error < 0.0 => nearest.next_down(),
        Rounding::Zero if error > 0.0 && nearest < 0.0 => nearest.next_up(),
        Rounding::Zero if error < 0.0 && nearest > 0.0 => nearest.next_down(),
        _ => nearest,
    }
}

/// The sign of `a * b + c` minus its rounded value, from exact transformations.
fn fma_error(a: f64, b: f64, c: f64) -> f64 {
    let result = a.mul_add(b, c);
    let product = a * b;
    let low = a.mul_add(b, -product);
    // product + c + low - result, added exactly (Shewchuk's expansions).
    let two = |x: f64, y: f64| (x + y, sum_error(x, y, x + y));
    let (s, s0) = two(c, low);
    let (t, t0) = two(product, s);
    let (u, u0) = two(t, -result);
    let (v, v0) = two(t0, s0);
    let (w, w0) = two(u, v);
    [w, w0 + u0 + v0].into_iter().find(|x| *x != 0.0).unwrap_or(0.0)
}
