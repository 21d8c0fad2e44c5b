//! "Data Movement": mov (values, addresses, packing and unpacking), cvta and isspacep; also reads of the clock registers.

use super::Decoded;
use crate::exec::code::Action;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form, Symbol};
use crate::exec::lanes::{compute, unary};
use crate::exec::memory_map::{LOCAL_BASE, PARAMETER_BASE, SHARED_BASE, WINDOW};
use crate::exec::registers::FULL;
use crate::ptx::Space;
use crate::ptx::ast::Operand;
use crate::ptx::types::{Meaning, Type};

pub(super) fn mov(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let t = form.kind()?;
    let [o, a] = form.operands()?;
    let action = match (o, a) {
        (Operand::Vector(parts), _) => return unpack(d, form, t, parts, a),
        (_, Operand::Vector(parts)) => return pack(d, form, t, o, parts),
        _ if t.meaning == Meaning::Predicate => {
            let (a, o) = (d.predicate(form, a)?, d.predicate_destination(form, o)?);
            compute(move |r, mask| {
                let bits = r.guarded(FULL, a);
                r.put_predicate(o, bits, mask);
            })
        }
        (_, Operand::Name(name)) if is_clock(name) && d.lookup(name).is_none() => {
            return clock(d, form, t, o, name);
        }
        _ if t.bits < 16 => return form.unsupported(),
        _ => {
            // A 16-bit move from a 32-bit special register reads its low half.
            let a = match a {
                Operand::Name(name) if name.starts_with('%') && t.bits == 16 && d.lookup(name).is_none() => {
                    let word = Type { meaning: Meaning::Bits, bits: 32 };
                    d.source(form, a, word)?
                }
                _ => d.source(form, a, t)?,
            };
            let o = d.destination(form, o, t)?;
            match t.bits {
                64 => unary(o, [a], |x: u64| x),
                16 => unary(o, [a], |x: u16| x),
                _ => unary(o, [a], |x: u32| x),
            }
        }
    };
    Ok((Class::Move, action))
}

fn is_clock(name: &str) -> bool {
    matches!(
        name,
        "%clock" | "%clock_hi" | "%clock64" | "%globaltimer" | "%globaltimer_lo" | "%globaltimer_hi"
    )
}

/// Clocks count the warp instructions of the worker thread. They increase monotonically; nothing else is guaranteed.
fn clock(d: &mut Decoder<'_>, form: &Form<'_>, t: Type, o: &Operand, name: &str) -> Decoded {
    let o = d.destination(form, o, t)?;
    let high = name.ends_with("_hi");
    let action = match t.bits {
        64 if matches!(name, "%clock64" | "%globaltimer") => Action::Access(Box::new(move |m, r, mask| {
            r.put(o, &[m.clock(); 32], mask);
            Ok(())
        })),
        32 => Action::Access(Box::new(move |m, r, mask| {
            let now = if high { m.clock() >> 32 } else { m.clock() };
            r.put(o, &[now as u32; 32], mask);
            Ok(())
        })),
        _ => return form.unsupported(),
    };
    Ok((Class::Move, action))
}

/// `mov.b32 d, {a, b}`: the first element goes to the low bits.
fn pack(d: &mut Decoder<'_>, form: &Form<'_>, t: Type, o: &Operand, parts: &[Operand]) -> Decoded {
    let part = Type { meaning: Meaning::Bits, bits: t.bits / parts.len().max(1) as u32 };
    if t.meaning != Meaning::Bits || !matches!(parts.len(), 2 | 4) || part.bits < 8 {
        return form.unsupported();
    }
    let rows = parts.iter().map(|p| d.source(form, p, part)).collect::<Result<Vec<_>, _>>()?;
    let o = d.destination(form, o, t)?;
    let action = compute(move |r, mask| {
        let mut out = [0u64; 32];
        for (i, row) in rows.iter().enumerate() {
            let row = r.row::<u32>(*row);
            for lane in 0..32 {
                out[lane] |= u64::from(row[lane]) << (i as u32 * part.bits);
            }
        }
        if t.bits == 64 {
            r.put(o, &out, mask);
        } else {
            r.put(o, &out.map(|x| x as u32), mask);
        }
    });
    Ok((Class::Move, action))
}

/// `mov.b32 {a, b}, d`.
fn unpack(d: &mut Decoder<'_>, form: &Form<'_>, t: Type, parts: &[Operand], a: &Operand) -> Decoded {
    let part = Type { meaning: Meaning::Bits, bits: t.bits / parts.len().max(1) as u32 };
    if t.meaning != Meaning::Bits || !matches!(parts.len(), 2 | 4) || part.bits < 8 {
        return form.unsupported();
    }
    let a = d.source(form, a, t)?;
    let rows = parts.iter().map(|p| d.destination(form, p, part)).collect::<Result<Vec<_>, _>>()?;
    let action = compute(move |r, mask| {
        let value: [u64; 32] = if t.bits == 64 { *r.row::<u64>(a) } else { r.row::<u32>(a).map(u64::from) };
        let keep = (1u64 << part.bits) - 1;
        for (i, row) in rows.iter().enumerate() {
            let out = value.map(|x| (x >> (i as u32 * part.bits) & keep) as u32);
            r.put(*row, &out, mask);
        }
    });
    Ok((Class::Move, action))
}

/// The base of a space's window in the generic address space; 0 for device and constant memory.
fn window(form: &mut Form<'_>) -> Option<u64> {
    Some(match form.any(&["global", "const", "shared", "shared::cta", "local", "param", "param::entry"])? {
        "shared" | "shared::cta" => SHARED_BASE,
        "local" => LOCAL_BASE,
        "param" | "param::entry" => PARAMETER_BASE,
        _ => 0,
    })
}

/// "cvta": converts between generic addresses and addresses of a space.
pub(super) fn convert_address(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let to = form.flag("to");
    let Some(base) = window(form) else { return form.error("missing state space") };
    let t = form.kind()?;
    if t.bits != 64 || t.meaning != Meaning::Unsigned {
        return form.error("only .u64 addresses are supported");
    }
    let [o, a] = form.operands()?;
    let a = d.source(form, a, t)?;
    let o = d.destination(form, o, t)?;
    let action = if to {
        unary(o, [a], move |x: u64| x.wrapping_sub(base))
    } else {
        unary(o, [a], move |x: u64| x.wrapping_add(base))
    };
    Ok((Class::Move, action))
}

/// "isspacep": whether a generic address is in a space's window.
pub(super) fn is_space(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let constant = form.instruction.modifiers.iter().any(|m| m == "const");
    let Some(base) = window(form) else { return form.error("missing state space") };
    if constant {
        return form.unsupported();
    }
    let [p, a] = form.operands()?;
    let a = d.source(form, a, Type { meaning: Meaning::Unsigned, bits: 64 })?;
    let p = d.predicate_destination(form, p)?;
    let action = compute(move |r, mask| {
        let mut bits = 0;
        for (lane, x) in r.row::<u64>(a).iter().enumerate() {
            let inside = if base == 0 {
                ![SHARED_BASE, LOCAL_BASE, PARAMETER_BASE].iter().any(|b| x.wrapping_sub(*b) < WINDOW)
            } else {
                x.wrapping_sub(base) < WINDOW
            };
            bits |= u32::from(inside) << lane;
        }
        r.put_predicate(p, bits, mask);
    });
    Ok((Class::Move, action))
}

/// The space of a symbol, for checks of explicit spaces.
pub(super) fn space_of(symbol: &Symbol) -> Option<Space> {
    match symbol {
        Symbol::Shared { .. } | Symbol::DynamicShared => Some(Space::Shared),
        Symbol::Local { space, .. } | Symbol::Variable { space, .. } => Some(*space),
        Symbol::KernelParameter { .. } => Some(Space::Param),
        Symbol::Register(_) | Symbol::Label(_) | Symbol::Targets(_) => None,
    }
}
