//! "Logic and Shift Instructions" (and, or, xor, not, cnot, lop3, shf, shl, shr) on bits and predicates.

use super::Decoded;
use crate::exec::code::Action;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::exec::lanes::{binary, compute, ternary, unary};
use crate::exec::registers::FULL;
use crate::ptx::LoadError;
use crate::ptx::types::{Meaning, Type};

const WORD: Type = Type { meaning: Meaning::Bits, bits: 32 };

pub(super) fn decode(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let action = match form.opcode() {
        "and" | "or" | "xor" | "not" | "cnot" => {
            let t = form.kind()?;
            match t.meaning {
                Meaning::Predicate => return on_predicates(d, form),
                Meaning::Bits => {}
                _ => return form.unsupported(),
            }
            if matches!(form.opcode(), "not" | "cnot") {
                let [o, a] = form.operands()?;
                let a = d.source(form, a, t)?;
                let o = d.destination(form, o, t)?;
                match (form.opcode(), t.bits) {
                    ("not", 16) => unary(o, [a], |x: u16| !x),
                    ("not", 32) => unary(o, [a], |x: u32| !x),
                    ("not", 64) => unary(o, [a], |x: u64| !x),
                    ("cnot", 16) => unary(o, [a], |x: u16| u16::from(x == 0)),
                    ("cnot", 32) => unary(o, [a], |x: u32| u32::from(x == 0)),
                    ("cnot", 64) => unary(o, [a], |x: u64| u64::from(x == 0)),
                    _ => return form.unsupported(),
                }
            } else {
                let [o, a, b] = form.operands()?;
                let rows = [d.source(form, a, t)?, d.source(form, b, t)?];
                let o = d.destination(form, o, t)?;
                match (form.opcode(), t.bits) {
                    ("and", 16 | 32) => binary(o, rows, |a: u32, b: u32| a & b),
                    ("and", 64) => binary(o, rows, |a: u64, b: u64| a & b),
                    ("or", 16 | 32) => binary(o, rows, |a: u32, b: u32| a | b),
                    ("or", 64) => binary(o, rows, |a: u64, b: u64| a | b),
                    ("xor", 16 | 32) => binary(o, rows, |a: u32, b: u32| a ^ b),
                    ("xor", 64) => binary(o, rows, |a: u64, b: u64| a ^ b),
                    _ => return form.unsupported(),
                }
            }
        }
        "shl" | "shr" => shift(d, form)?,
        "shf" => funnel_shift(d, form)?,
        "lop3" => return look_up(d, form),
        _ => return form.unsupported(),
    };
    Ok((Class::Integer, action))
}

/// "shl" and "shr".
fn shift(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Result<Action, LoadError> {
    let t = form.kind()?;
    let [o, a, b] = form.operands()?;
    let rows = [d.source(form, a, t)?, d.source(form, b, WORD)?];
    let o = d.destination(form, o, t)?;
    // Shift amounts greater than the width are clamped to the width.
    Ok(match (form.opcode(), t.meaning, t.bits) {
        ("shl", Meaning::Bits, 16) => binary(o, rows, |a: u16, n: u32| if n < 16 { a << n } else { 0 }),
        ("shl", Meaning::Bits, 32) => binary(o, rows, |a: u32, n: u32| if n < 32 { a << n } else { 0 }),
        ("shl", Meaning::Bits, 64) => binary(o, rows, |a: u64, n: u32| if n < 64 { a << n } else { 0 }),
        ("shr", Meaning::Bits | Meaning::Unsigned, 16) => {
            binary(o, rows, |a: u16, n: u32| if n < 16 { a >> n } else { 0 })
        }
        ("shr", Meaning::Bits | Meaning::Unsigned, 32) => {
            binary(o, rows, |a: u32, n: u32| if n < 32 { a >> n } else { 0 })
        }
        ("shr", Meaning::Bits | Meaning::Unsigned, 64) => {
            binary(o, rows, |a: u64, n: u32| if n < 64 { a >> n } else { 0 })
        }
        ("shr", Meaning::Signed, 16) => binary(o, rows, |a: i16, n: u32| a >> n.min(15)),
        ("shr", Meaning::Signed, 32) => binary(o, rows, |a: i32, n: u32| a >> n.min(31)),
        ("shr", Meaning::Signed, 64) => binary(o, rows, |a: i64, n: u32| a >> n.min(63)),
        _ => return form.unsupported(),
    })
}

/// "shf".
fn funnel_shift(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Result<Action, LoadError> {
    let left = form.any(&["l", "r"]) == Some("l");
    let wrap = match form.any(&["wrap", "clamp"]) {
        Some(mode) => mode == "wrap",
        None => return form.error("missing .wrap or .clamp"),
    };
    if form.kind()? != WORD {
        return form.unsupported();
    }
    let [o, a, b, c] = form.operands()?;
    let rows = [d.source(form, a, WORD)?, d.source(form, b, WORD)?, d.source(form, c, WORD)?];
    let o = d.destination(form, o, WORD)?;
    Ok(ternary(o, rows, move |low: u32, high: u32, n: u32| {
        let n = if wrap { n & 31 } else { n.min(32) };
        let both = u64::from(high) << 32 | u64::from(low);
        if left { ((both << n) >> 32) as u32 } else { (both >> n) as u32 }
    }))
}

fn on_predicates(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let action = if form.opcode() == "not" {
        let [o, a] = form.operands()?;
        let (o, a) = (d.predicate_destination(form, o)?, d.predicate(form, a)?);
        compute(move |r, mask| {
            let bits = !r.guarded(FULL, a);
            r.put_predicate(o, bits, mask);
        })
    } else {
        let [o, a, b] = form.operands()?;
        let (a, b) = (d.predicate(form, a)?, d.predicate(form, b)?);
        let o = d.predicate_destination(form, o)?;
        let f: fn(u32, u32) -> u32 = match form.opcode() {
            "and" => |a, b| a & b,
            "or" => |a, b| a | b,
            "xor" => |a, b| a ^ b,
            _ => return form.unsupported(),
        };
        compute(move |r, mask| {
            let bits = f(r.guarded(FULL, a), r.guarded(FULL, b));
            r.put_predicate(o, bits, mask);
        })
    };
    Ok((Class::Integer, action))
}

/// "lop3": a logical function of three inputs, given by its truth table.
fn look_up(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let combine = form.any(&["or", "and"]);
    if form.kind()? != WORD {
        return form.unsupported();
    }
    let operands = &form.instruction.operands;
    let (o, p, rest) = match (operands.as_slice(), combine) {
        ([o, rest @ ..], None) => (o, None, rest),
        ([crate::ptx::ast::Operand::Pair(o, p), rest @ ..], Some(_)) => (&**o, Some(&**p), rest),
        _ => return form.unsupported(),
    };
    let (abc, table, q) = match rest {
        [a, b, c, table] if p.is_none() => ([a, b, c], table, None),
        [a, b, c, table, q] if p.is_some() => ([a, b, c], table, Some(d.predicate(form, q)?)),
        _ => return form.error("wrong number of operands"),
    };
    let crate::ptx::ast::Operand::Integer(table @ 0..=255) = *table else {
        return form.error("the look-up table must be a constant from 0 to 255");
    };
    let rows = [d.source(form, abc[0], WORD)?, d.source(form, abc[1], WORD)?, d.source(form, abc[2], WORD)?];
    let o = d.destination(form, o, WORD)?;
    let logic = move |a: u32, b: u32, c: u32| {
        (0..8u32).filter(|i| table >> i & 1 == 1).fold(0, |sum, i| {
            let pick = |x: u32, bit: u32| if i >> bit & 1 == 1 { x } else { !x };
            sum | pick(a, 2) & pick(b, 1) & pick(c, 0)
        })
    };
    let action = match (p, q) {
        (Some(p), Some(q)) => {
            let p = d.predicate_destination(form, p)?;
            let and = combine == Some("and");
            compute(move |r, mask| {
                let mut out = [0; 32];
                let mut bits = 0;
                for lane in 0..32 {
                    let at = |row: u32| r.row::<u32>(row)[lane];
                    out[lane] = logic(at(rows[0]), at(rows[1]), at(rows[2]));
                    bits |= u32::from(out[lane] != 0) << lane;
                }
                let q = r.guarded(FULL, q);
                r.put(o, &out, mask);
                r.put_predicate(p, if and { bits & q } else { bits | q }, mask);
            })
        }
        _ => ternary(o, rows, logic),
    };
    Ok((Class::Integer, action))
}
