//! "Comparison and Selection Instructions": setp, set, selp, slct; and "Half Precision Comparison Instructions".

use super::Decoded;
use crate::exec::code::Action;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::exec::lanes::{compare, select, ternary};
use crate::exec::registers::{FULL, Guard, Registers, Typed};
use crate::exec::rounding::{brain_value, flush, half_value};
use crate::ptx::LoadError;
use crate::ptx::ast::Operand;
use crate::ptx::types::{Meaning, Type};
use half::{bf16, f16};

const OPERATORS: [&str; 18] = [
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu",
    "num", "nan",
];

/// What is done with the bits of a comparison: a second predicate or a value.
type Done = Box<dyn Fn(&mut Registers, u32, u32) + Send + Sync>;

/// A comparison of values of one type.
#[derive(Clone, Copy)]
struct Operator {
    name: &'static str,
    ftz: bool,
}

impl Operator {
    fn take(form: &mut Form<'_>) -> Result<Self, LoadError> {
        let Some(name) = form.any(&OPERATORS) else { return form.error("comparison operator missing") };
        let name = OPERATORS.iter().find(|o| **o == name).copied().unwrap_or("eq");
        Ok(Self { name, ftz: false })
    }
}

/// Expands to one comparison loop for each operator, so that each vectorises.
macro_rules! ordered {
    ($form:expr, $op:expr, $rows:expr, $done:expr, $T:ty, $view:expr) => {{
        let (rows, done, view) = ($rows, $done, $view);
        match $op.name {
            "eq" => compare(rows, move |a: $T, b: $T| view(a) == view(b), done),
            "ne" => compare(rows, move |a: $T, b: $T| differ(view(a), view(b)), done),
            "lt" => compare(rows, move |a: $T, b: $T| view(a) < view(b), done),
            "le" => compare(rows, move |a: $T, b: $T| view(a) <= view(b), done),
            "gt" => compare(rows, move |a: $T, b: $T| view(a) > view(b), done),
            "ge" => compare(rows, move |a: $T, b: $T| view(a) >= view(b), done),
            _ => return $form.error("comparison operator does not fit the type"),
        }
    }};
}

/// ".ne" holds only where both are numbers.
fn differ<T: PartialOrd>(a: T, b: T) -> bool {
    a.partial_cmp(&b).is_some_and(std::cmp::Ordering::is_ne)
}

/// Operators that hold where an operand is NaN: each is the opposite of one that does not.
macro_rules! unordered {
    ($form:expr, $op:expr, $rows:expr, $done:expr, $T:ty, $view:expr) => {{
        let (op, done) = opposite($op, $done);
        let view = $view;
        match op.name {
            "num" => compare($rows, move |a: $T, b: $T| !(view(a).is_nan() || view(b).is_nan()), done),
            _ => ordered!($form, op, $rows, done, $T, view),
        }
    }};
}

/// An operator that is false for NaN, and what turns its bits into those of the operator asked for.
fn opposite(op: Operator, done: Done) -> (Operator, Done) {
    let name = match op.name {
        "equ" => "ne",
        "neu" => "eq",
        "ltu" => "ge",
        "leu" => "gt",
        "gtu" => "le",
        "geu" => "lt",
        "nan" => "num",
        _ => return (op, done),
    };
    (Operator { name, ..op }, Box::new(move |r, bits, mask| done(r, !bits, mask)))
}

fn build(form: &Form<'_>, t: Type, op: Operator, rows: [u32; 2], done: Done) -> Result<Action, LoadError> {
    // The unsigned names are other spellings for unsigned types only.
    let op = match (op.name, t.meaning) {
        ("lo", Meaning::Unsigned) => Operator { name: "lt", ..op },
        ("ls", Meaning::Unsigned) => Operator { name: "le", ..op },
        ("hi", Meaning::Unsigned) => Operator { name: "gt", ..op },
        ("hs", Meaning::Unsigned) => Operator { name: "ge", ..op },
        _ => op,
    };
    let ftz = op.ftz;
    if t.meaning == Meaning::Bits && !matches!(op.name, "eq" | "ne") {
        return form.error("bit types compare with .eq and .ne only");
    }
    if ftz && !matches!(t.meaning, Meaning::Float | Meaning::FloatPair) {
        return form.error(".ftz does not fit the type");
    }
    Ok(match (t.meaning, t.bits) {
        (Meaning::Bits | Meaning::Unsigned, 16) => ordered!(form, op, rows, done, u16, |x: u16| x),
        (Meaning::Bits | Meaning::Unsigned, 32) => ordered!(form, op, rows, done, u32, |x: u32| x),
        (Meaning::Bits | Meaning::Unsigned, 64) => ordered!(form, op, rows, done, u64, |x: u64| x),
        (Meaning::Signed, 16) => ordered!(form, op, rows, done, i16, |x: i16| x),
        (Meaning::Signed, 32) => ordered!(form, op, rows, done, i32, |x: i32| x),
        (Meaning::Signed, 64) => ordered!(form, op, rows, done, i64, |x: i64| x),
        (Meaning::Float, 32) if ftz => unordered!(form, op, rows, done, f32, |x: f32| flush(x)),
        (Meaning::Float, 32) => unordered!(form, op, rows, done, f32, |x: f32| x),
        (Meaning::Float, 64) => unordered!(form, op, rows, done, f64, |x: f64| x),
        (Meaning::Float, 16) => unordered!(form, op, rows, done, f16, move |x: f16| flushed_half(x, ftz)),
        (Meaning::Brain, 16) => unordered!(form, op, rows, done, bf16, |x: bf16| brain_value(x)),
        _ => return form.unsupported(),
    })
}

fn flushed_half(x: f16, ftz: bool) -> f32 {
    let v = half_value(x);
    if ftz && x.to_bits() & 0x7c00 == 0 { 0.0 } else { v }
}

/// The Boolean operator that joins a third operand.
fn join(name: &str) -> fn(u32, u32) -> u32 {
    match name {
        "and" => |a, b| a & b,
        "or" => |a, b| a | b,
        _ => |a, b| a ^ b,
    }
}

pub(super) fn class(t: Type) -> Class {
    match (t.meaning, t.bits) {
        (Meaning::Float, 32) => Class::Float,
        (Meaning::Float, 64) => Class::Double,
        (Meaning::Float | Meaning::Brain | Meaning::FloatPair | Meaning::BrainPair, _) => Class::Half,
        _ => Class::Integer,
    }
}

/// "setp": `p|q = (a op b) bool c`; q gets the comparison's opposite.
pub(super) fn set_predicate(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let mut op = Operator::take(form)?;
    let joined = form.any(&["and", "or", "xor"]);
    op.ftz = form.flag("ftz");
    let t = form.kind()?;
    let (po, a, b, c) = match (form.instruction.operands.as_slice(), joined) {
        ([po, a, b], None) => (po, a, b, Guard::ALWAYS),
        ([po, a, b, c], Some(_)) => (po, a, b, d.predicate(form, c)?),
        _ => return form.error("another number of operands expected"),
    };
    let join = join(joined.unwrap_or("and"));
    let rows = [d.source(form, a, t)?, d.source(form, b, t)?];
    let (p, q) = match po {
        Operand::Pair(p, q) => (d.predicate_destination(form, p)?, Some(d.predicate_destination(form, q)?)),
        p => (d.predicate_destination(form, p)?, None),
    };
    if matches!(t.meaning, Meaning::FloatPair | Meaning::BrainPair) {
        let Some(q) = q else { return form.error("packed comparisons write two predicates") };
        let done = |p: u32| -> Done {
            Box::new(move |r: &mut Registers, bits, mask| {
                let c = r.guarded(FULL, c);
                r.put_predicate(p, join(bits, c), mask);
            })
        };
        let action = packed(form, t, op, rows, [done(p), done(q)])?;
        return Ok((Class::Half, action));
    }
    let done: Done = match (joined, q) {
        (None, None) => Box::new(move |r, bits, mask| r.put_predicate(p, bits, mask)),
        _ => Box::new(move |r, bits, mask| {
            let c = r.guarded(FULL, c);
            r.put_predicate(p, join(bits, c), mask);
            if let Some(q) = q {
                r.put_predicate(q, join(!bits, c), mask);
            }
        }),
    };
    let action = build(form, t, op, rows, done)?;
    Ok((class(t), action))
}

/// Compares the halves of packed operands.
fn packed(
    form: &Form<'_>,
    t: Type,
    op: Operator,
    rows: [u32; 2],
    done: [Done; 2],
) -> Result<Action, LoadError> {
    let [low, high] = done;
    let (first, second) = if t.meaning == Meaning::FloatPair {
        (
            unordered!(form, op, rows, low, [f16; 2], move |x: [f16; 2]| flushed_half(x[0], op.ftz)),
            unordered!(form, op, rows, high, [f16; 2], move |x: [f16; 2]| flushed_half(x[1], op.ftz)),
        )
    } else {
        (
            unordered!(form, op, rows, low, [bf16; 2], |x: [bf16; 2]| brain_value(x[0])),
            unordered!(form, op, rows, high, [bf16; 2], |x: [bf16; 2]| brain_value(x[1])),
        )
    };
    let (Action::Compute(first), Action::Compute(second)) = (first, second) else {
        return form.unsupported();
    };
    Ok(Action::Compute(Box::new(move |r, mask| {
        first(r, mask);
        second(r, mask);
    })))
}

/// "set": the comparison as a value: all ones for integer results, 1.0 for float results.
pub(super) fn set(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let mut op = Operator::take(form)?;
    let joined = form.any(&["and", "or", "xor"]);
    op.ftz = form.flag("ftz");
    let (result, t) = (form.kind()?, form.kind()?);
    let (o, a, b, c) = match (form.instruction.operands.as_slice(), joined) {
        ([o, a, b], None) => (o, a, b, Guard::ALWAYS),
        ([o, a, b, c], Some(_)) => (o, a, b, d.predicate(form, c)?),
        _ => return form.error("another number of operands expected"),
    };
    let join = join(joined.unwrap_or("and"));
    let rows = [d.source(form, a, t)?, d.source(form, b, t)?];
    let o = d.destination(form, o, result)?;
    let value = match (result.meaning, result.bits) {
        (Meaning::Float, 32) => 0x3f80_0000,
        (Meaning::Unsigned | Meaning::Signed, 32) => u32::MAX,
        (Meaning::Float | Meaning::FloatPair, _) if result.bits != 64 => 0x3c00,
        (Meaning::Brain | Meaning::BrainPair, _) => 0x3f80,
        (Meaning::Unsigned | Meaning::Signed, 16) => 0xffff,
        _ => return form.unsupported(),
    };
    if matches!(t.meaning, Meaning::FloatPair | Meaning::BrainPair) {
        // 32-bit integer results of packed comparisons have all ones in the half that holds.
        let value =
            if matches!(result.meaning, Meaning::Unsigned | Meaning::Signed) { 0xffff } else { value };
        let done = |shift: u32| -> Done {
            Box::new(move |r: &mut Registers, bits, mask| {
                let bits = join(bits, r.guarded(FULL, c));
                let mut out = *r.row::<u32>(o);
                for (lane, cell) in out.iter_mut().enumerate() {
                    let half = if bits >> lane & 1 == 1 { value } else { 0 };
                    *cell = *cell & !(0xffff << shift) | half << shift;
                }
                r.put(o, &out, mask);
            })
        };
        // Where the destination is a source, the second half still needs the old bits.
        let copy = [d.new_register(32).index, d.new_register(32).index];
        let action = packed(form, t, op, copy, [done(0), done(16)])?;
        let Action::Compute(compare) = action else { return form.unsupported() };
        let action = Action::Compute(Box::new(move |r, mask| {
            let (a, b) = (*r.row::<u32>(rows[0]), *r.row::<u32>(rows[1]));
            r.put(copy[0], &a, FULL);
            r.put(copy[1], &b, FULL);
            compare(r, mask);
        }));
        return Ok((Class::Half, action));
    }
    let done: Done = Box::new(move |r, bits, mask| {
        let bits = join(bits, r.guarded(FULL, c));
        let mut out = [0u32; 32];
        for (lane, cell) in out.iter_mut().enumerate() {
            *cell = if bits >> lane & 1 == 1 { value } else { 0 };
        }
        r.put(o, &out, mask);
    });
    Ok((class(t), build(form, t, op, rows, done)?))
}

/// "selp": `d = p ? a : b`.
pub(super) fn select_by_predicate(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let t = form.kind()?;
    if !matches!(t.meaning, Meaning::Bits | Meaning::Unsigned | Meaning::Signed | Meaning::Float) {
        return form.unsupported();
    }
    let [o, a, b, p] = form.operands()?;
    let rows = [d.source(form, a, t)?, d.source(form, b, t)?];
    let p = d.predicate(form, p)?;
    let o = d.destination(form, o, t)?;
    Ok((Class::Move, if t.bits == 64 { select::<u64>(o, rows, p) } else { select::<u32>(o, rows, p) }))
}

/// "slct": `d = c >= 0 ? a : b`.
pub(super) fn select_by_sign(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let ftz = form.flag("ftz");
    let (t, sign) = (form.kind()?, form.kind()?);
    let [o, a, b, c] = form.operands()?;
    let rows = [d.source(form, a, t)?, d.source(form, b, t)?, d.source(form, c, sign)?];
    let o = d.destination(form, o, t)?;
    fn pick<T: Typed, S: Typed>(o: u32, rows: [u32; 3], positive: fn(S) -> bool) -> Action {
        ternary(o, rows, move |a: T, b: T, c: S| if positive(c) { a } else { b })
    }
    let action = match (sign.meaning, sign.bits, t.bits) {
        (Meaning::Signed, 32, 16 | 32) if !ftz => pick::<u32, i32>(o, rows, |c| c >= 0),
        (Meaning::Signed, 32, 64) if !ftz => pick::<u64, i32>(o, rows, |c| c >= 0),
        // Negative zero counts as zero; flushing changes only which zero it is, except below it.
        (Meaning::Float, 32, 16 | 32) if ftz => pick::<u32, f32>(o, rows, |c| flush(c) >= 0.0),
        (Meaning::Float, 32, 64) if ftz => pick::<u64, f32>(o, rows, |c| flush(c) >= 0.0),
        (Meaning::Float, 32, 16 | 32) => pick::<u32, f32>(o, rows, |c| c >= 0.0),
        (Meaning::Float, 32, 64) => pick::<u64, f32>(o, rows, |c| c >= 0.0),
        _ => return form.unsupported(),
    };
    Ok((Class::Move, action))
}
