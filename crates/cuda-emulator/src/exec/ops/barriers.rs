//! "Parallel Synchronization and Communication Instructions": bar, barrier, bar.warp.sync, membar, fence.

use super::Decoded;
use crate::exec::code::{Action, BarrierForm, Reduction, ReductionKind};
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::ptx::ast::Operand;
use crate::ptx::types::{Meaning, Type};

const WORD: Type = Type { meaning: Meaning::Bits, bits: 32 };

pub(super) fn decode(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    // `bar` is `barrier.aligned`.
    let mut aligned = form.opcode() == "bar";
    if form.flag("warp") {
        return warp(d, form);
    }
    form.flag("cta");
    let Some(kind) = form.any(&["sync", "arrive", "red"]) else { return form.unsupported() };
    let operation = if kind == "red" { form.any(&["popc", "and", "or"]) } else { None };
    aligned |= form.flag("aligned");
    let operands = form.instruction.operands.as_slice();
    let mut simple =
        BarrierForm { number: 0, threads: None, aligned, wait: kind != "arrive", reduction: None };
    let (number, threads) = match (kind, operands) {
        ("sync", [a]) => (a, None),
        ("sync" | "arrive", [a, b]) => (a, Some(b)),
        ("red", [o, rest @ ..]) => {
            let (a, b, c) = match rest {
                [a, c] => (a, None, c),
                [a, b, c] => (a, Some(b), c),
                _ => return form.error("wrong number of operands"),
            };
            let source = d.predicate(form, c)?;
            let (kind, destination) = match operation {
                Some("popc") => {
                    let t = form.kind()?;
                    (ReductionKind::Count, d.destination(form, o, t)?)
                }
                Some(operation) => {
                    if form.kind()?.meaning != Meaning::Predicate {
                        return form.unsupported();
                    }
                    let kind = if operation == "and" { ReductionKind::And } else { ReductionKind::Or };
                    (kind, d.predicate_destination(form, o)?)
                }
                None => return form.error("missing operation"),
            };
            simple.reduction = Some(Reduction { kind, destination, source });
            (a, b)
        }
        _ => return form.error("wrong number of operands"),
    };
    let number = d.source(form, number, WORD)?;
    let threads = threads.map(|t: &Operand| d.source(form, t, WORD)).transpose()?;
    Ok((Class::Barrier, Action::Barrier(BarrierForm { number, threads, ..simple })))
}

/// "bar.warp.sync": waits for the lanes of the membermask and orders their memory accesses.
fn warp(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    if !form.flag("sync") {
        return form.unsupported();
    }
    let [members] = form.operands()?;
    let members = d.source(form, members, WORD)?;
    let run = Box::new(|m: &mut crate::exec::machine::Machine<'_>, _: &mut _, _| {
        m.synchronise(1 << m.warp);
        Ok(())
    });
    Ok((Class::Barrier, Action::Converged { members, aligned: false, run }))
}

/// "membar" and "fence": earlier accesses are visible to every thread that observes a later strong access.
pub(super) fn fence(_: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    if form.opcode() == "membar" {
        if form.any(&["cta", "gl", "sys"]).is_none() {
            return form.error("missing level");
        }
    } else {
        form.any(&["sc", "acq_rel", "acquire", "release"]);
        if form.any(&["cta", "cluster", "gpu", "sys"]).is_none() {
            return form.unsupported();
        }
    }
    form.operands::<0>()?;
    let action = Action::Access(Box::new(|m, _, _| {
        m.fence();
        Ok(())
    }));
    Ok((Class::Barrier, action))
}
