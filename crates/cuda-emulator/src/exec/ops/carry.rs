//! "Extended-Precision Integer Arithmetic Instructions": add.cc, addc, sub.cc, subc, mad.cc, madc.
//!
//! The carry bit of the condition code is a predicate register, with one bit per lane.

use super::Decoded;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::exec::lanes::compute;
use crate::exec::registers::{Registers, Row, lanes};
use crate::ptx::types::Meaning;

/// Whether an instruction reads or writes the carry.
pub(super) fn takes(form: &Form<'_>) -> bool {
    matches!(form.opcode(), "addc" | "subc" | "madc") || form.instruction.modifiers.iter().any(|m| m == "cc")
}

fn cells(r: &Registers, row: u32, long: bool) -> Row<u64> {
    if long { *r.row::<u64>(row) } else { r.row::<u32>(row).map(u64::from) }
}

pub(super) fn decode(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let part = form.any(&["lo", "hi"]);
    let write = form.flag("cc");
    let t = form.kind()?;
    if !matches!(t.meaning, Meaning::Signed | Meaning::Unsigned) || t.bits < 32 {
        return form.unsupported();
    }
    let opcode = form.opcode();
    let read = opcode.ends_with('c');
    let product = opcode.starts_with("mad");
    if product != part.is_some() {
        return form.unsupported();
    }
    let operands = form.instruction.operands.as_slice();
    let [o, sources @ ..] = operands else { return form.error("missing operands") };
    if sources.len() != if product { 3 } else { 2 } {
        return form.error("wrong number of operands");
    }
    let rows = sources.iter().map(|s| d.source(form, s, t)).collect::<Result<Vec<_>, _>>()?;
    let o = d.destination(form, o, t)?;
    let carry = d.carry();
    let (long, bits) = (t.bits == 64, t.bits);
    let signed = t.meaning == Meaning::Signed;
    let subtract = opcode.starts_with("sub");
    let high = part == Some("hi");
    let multiply = move |a: u64, b: u64| {
        let wide = if signed {
            let extend = |x: u64| i128::from((x << (64 - bits)) as i64 >> (64 - bits));
            (extend(a) * extend(b)) as u128
        } else {
            u128::from(a) * u128::from(b)
        };
        let wide = if high { wide >> bits } else { wide };
        (wide as u64) << (64 - bits) >> (64 - bits)
    };
    let action = compute(move |r, mask| {
        let sources: Vec<Row<u64>> = rows.iter().map(|row| cells(r, *row, long)).collect();
        let taken = if read { r.predicates[carry as usize] } else { 0 };
        let mut out = [0u64; 32];
        let mut carries = 0;
        for lane in lanes(mask) {
            let (a, b) = if product {
                (multiply(sources[0][lane], sources[1][lane]), sources[2][lane])
            } else {
                (sources[0][lane], sources[1][lane])
            };
            let c = u128::from(taken >> lane & 1);
            let (a, b) = (u128::from(a), u128::from(b));
            let wide = if subtract { a.wrapping_sub(b).wrapping_sub(c) } else { a + b + c };
            out[lane] = (wide as u64) << (64 - bits) >> (64 - bits);
            carries |= ((wide >> bits & 1) as u32) << lane;
        }
        if long {
            r.put(o, &out, mask);
        } else {
            r.put(o, &out.map(|x| x as u32), mask);
        }
        if write {
            r.put_predicate(carry, carries, mask);
        }
    });
    Ok((Class::Integer, action))
}
