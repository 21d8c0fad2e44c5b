//! Communication within a warp: shfl.sync, vote.sync, match.sync, redux.sync, activemask, elect.sync.
//!
//! All `.sync` forms wait for the lanes of the membermask. A lane that reads from an inactive lane gets an undefined value
//! on a device; here that is a finding.

use super::Decoded;
use crate::exec::code::{Access, Action};
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::exec::fault::fault;
use crate::exec::finding::FindingKind;
use crate::exec::lanes::vectorised;
use crate::exec::registers::{Cell, Registers, Row, lanes};
use crate::ptx::ast::Operand;
use crate::ptx::types::{Meaning, Type};

const WORD: Type = Type { meaning: Meaning::Bits, bits: 32 };

pub(super) fn decode(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    if form.opcode() == "activemask" {
        return active(d, form);
    }
    if !form.flag("sync") {
        return form.error("only the .sync forms exist on sm_70 and later");
    }
    match form.opcode() {
        "shfl" => shuffle(d, form),
        "vote" => vote(d, form),
        "match" => find_equal(d, form),
        "redux" => reduce(d, form),
        "elect" => elect(d, form),
        _ => form.unsupported(),
    }
}

fn converged(members: u32, run: Access) -> Decoded {
    Ok((Class::Warp, Action::Converged { members, aligned: false, run }))
}

/// `d|p` or `d`.
fn with_predicate(o: &Operand) -> (&Operand, Option<&Operand>) {
    match o {
        Operand::Pair(o, p) => (o, Some(p)),
        o => (o, None),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Up,
    Down,
    Butterfly,
    Index,
}

/// The lane that `lane` reads from, and whether it is in range; otherwise the lane reads its own value.
#[inline(always)]
fn source(mode: Mode, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let least = lane & segment;
    let most = least | clamp & !segment;
    let (j, inside) = match mode {
        Mode::Up => (lane.wrapping_sub(b), lane.wrapping_sub(b) as i32 >= most as i32),
        Mode::Down => (lane + b, lane + b <= most),
        Mode::Butterfly => (lane ^ b, lane ^ b <= most),
        Mode::Index => (least | b & !segment, (least | b & !segment) <= most),
    };
    (if inside { j & 31 } else { lane }, inside)
}

/// "shfl.sync".
fn shuffle(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let mode = match form.any(&["up", "down", "bfly", "idx"]) {
        Some("up") => Mode::Up,
        Some("down") => Mode::Down,
        Some("bfly") => Mode::Butterfly,
        Some(_) => Mode::Index,
        None => return form.error("missing mode"),
    };
    if form.kind()? != WORD {
        return form.unsupported();
    }
    let [o, a, b, c, members] = form.operands()?;
    let (o, p) = with_predicate(o);
    let p = p.map(|p| d.predicate_destination(form, p)).transpose()?;
    let (a, b, c) = (d.source(form, a, WORD)?, d.source(form, b, WORD)?, d.source(form, c, WORD)?);
    let members = d.source(form, members, WORD)?;
    let o = d.destination(form, o, WORD)?;
    converged(
        members,
        Box::new(move |_, r, mask| {
            let (from, shift, clamp) = (r.row::<u32>(a), r.row::<u32>(b), r.row::<u32>(c));
            let named = r.row::<u32>(members);
            let mut out = [0; 32];
            let (mut valid, mut absent) = (0u32, 0u32);
            let mut sources = [0u32; 32];
            vectorised(
                #[inline(always)]
                || {
                    for lane in 0..32 {
                        let (j, inside) = source(mode, lane as u32, shift[lane], clamp[lane]);
                        sources[lane] = j;
                        valid |= u32::from(inside) << lane;
                        absent |= u32::from((mask & named[lane]) >> j & 1 == 0) << lane;
                    }
                    for lane in 0..32 {
                        out[lane] = from[(sources[lane] & 31) as usize];
                    }
                },
            );
            if let Some(lane) = lanes(absent & mask).next() {
                let j = sources[lane];
                let message =
                    format!("reads from lane {j}, which is not active (active lanes: {mask:#010x})");
                return fault(FindingKind::Undefined, lane, None, message);
            }
            r.put(o, &out, mask);
            if let Some(p) = p {
                r.put_predicate(p, valid, mask);
            }
            Ok(())
        }),
    )
}

/// Runs `each` for every set of lanes with the same membermask. There is nearly always only one.
fn each_set(r: &mut Registers, members: u32, mask: u32, mut each: impl FnMut(&mut Registers, u32)) {
    let named = *r.row::<u32>(members);
    if named == [named[0]; 32] {
        return each(r, mask);
    }
    let mut left = mask;
    while left != 0 {
        let first = named[left.trailing_zeros() as usize];
        let set = lanes(left).filter(|l| named[*l] == first).fold(0, |set, l| set | 1 << l);
        each(r, set);
        left &= !set;
    }
}

/// "vote.sync".
fn vote(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let Some(mode) = form.any(&["all", "any", "uni", "ballot"]) else { return form.error("missing mode") };
    let t = form.kind()?;
    let [o, a, members] = form.operands()?;
    let (a, members) = (d.predicate(form, a)?, d.source(form, members, WORD)?);
    if mode == "ballot" {
        if t != WORD {
            return form.unsupported();
        }
        let o = d.destination(form, o, WORD)?;
        return converged(
            members,
            Box::new(move |_, r, mask| {
                each_set(r, members, mask, |r, set| {
                    let bits = r.guarded(set, a);
                    r.put(o, &[bits; 32], set);
                });
                Ok(())
            }),
        );
    }
    if t.meaning != Meaning::Predicate {
        return form.unsupported();
    }
    let o = d.predicate_destination(form, o)?;
    converged(
        members,
        Box::new(move |_, r, mask| {
            each_set(r, members, mask, |r, set| {
                let bits = r.guarded(set, a);
                let holds = match mode {
                    "all" => bits == set,
                    "any" => bits != 0,
                    _ => bits == set || bits == 0,
                };
                r.put_predicate(o, if holds { u32::MAX } else { 0 }, set);
            });
            Ok(())
        }),
    )
}

/// "match.sync".
fn find_equal(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let Some(mode) = form.any(&["any", "all"]) else { return form.error("missing mode") };
    let t = form.kind()?;
    if t.meaning != Meaning::Bits || t.bits < 32 {
        return form.unsupported();
    }
    let [o, a, members] = form.operands()?;
    let (o, p) = with_predicate(o);
    if p.is_some() && mode == "any" {
        return form.error("only .all supports a predicate");
    }
    let p = p.map(|p| d.predicate_destination(form, p)).transpose()?;
    let (a, members) = (d.source(form, a, t)?, d.source(form, members, WORD)?);
    let o = d.destination(form, o, WORD)?;
    fn masks<C: Cell + PartialEq>(values: &Row<C>, set: u32) -> Row<u32> {
        std::array::from_fn(|i| lanes(set).filter(|l| values[*l] == values[i]).fold(0, |m, l| m | 1 << l))
    }
    converged(
        members,
        Box::new(move |_, r, mask| {
            each_set(r, members, mask, |r, set| {
                let mut out =
                    if t.bits == 64 { masks(r.row::<u64>(a), set) } else { masks(r.row::<u32>(a), set) };
                if mode == "all" {
                    let equal = out[set.trailing_zeros() as usize] == set;
                    out = [if equal { set } else { 0 }; 32];
                    if let Some(p) = p {
                        r.put_predicate(p, if equal { u32::MAX } else { 0 }, set);
                    }
                }
                r.put(o, &out, set);
            });
            Ok(())
        }),
    )
}

/// "redux.sync".
fn reduce(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let Some(op) = form.any(&["add", "min", "max", "and", "or", "xor"]) else {
        return form.error("missing operation");
    };
    let t = form.kind()?;
    let f: fn(u32, u32) -> u32 = match (op, t.meaning) {
        ("add", Meaning::Unsigned | Meaning::Signed) => u32::wrapping_add,
        ("min", Meaning::Unsigned) => u32::min,
        ("max", Meaning::Unsigned) => u32::max,
        ("min", Meaning::Signed) => |a, b| (a as i32).min(b as i32) as u32,
        ("max", Meaning::Signed) => |a, b| (a as i32).max(b as i32) as u32,
        ("and", Meaning::Bits) => |a, b| a & b,
        ("or", Meaning::Bits) => |a, b| a | b,
        ("xor", Meaning::Bits) => |a, b| a ^ b,
        _ => return form.unsupported(),
    };
    if t.bits != 32 {
        return form.unsupported();
    }
    let [o, a, members] = form.operands()?;
    let (a, members) = (d.source(form, a, t)?, d.source(form, members, WORD)?);
    let o = d.destination(form, o, t)?;
    converged(
        members,
        Box::new(move |_, r, mask| {
            each_set(r, members, mask, |r, set| {
                let values = r.row::<u32>(a);
                let result = lanes(set).map(|l| values[l]).reduce(f).unwrap_or(0);
                r.put(o, &[result; 32], set);
            });
            Ok(())
        }),
    )
}

/// "elect.sync": elects the lowest lane of the set.
fn elect(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let [o, members] = form.operands()?;
    let (o, Some(p)) = with_predicate(o) else { return form.error("expected a predicate") };
    let members = d.source(form, members, WORD)?;
    let (o, p) = (d.destination(form, o, WORD)?, d.predicate_destination(form, p)?);
    converged(
        members,
        Box::new(move |_, r, mask| {
            each_set(r, members, mask, |r, set| {
                let leader = set.trailing_zeros();
                r.put(o, &[leader; 32], set);
                r.put_predicate(p, 1 << leader, set);
            });
            Ok(())
        }),
    )
}

/// "activemask": the lanes that execute this together.
fn active(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    if form.kind()? != WORD {
        return form.unsupported();
    }
    let [o] = form.operands()?;
    let o = d.destination(form, o, WORD)?;
    Ok((Class::Warp, crate::exec::lanes::compute(move |r, mask| r.put(o, &[mask; 32], mask))))
}
