//! "Comparison and Selection Instructions": setp, set, selp, slct; and "Half Precision Comparison Instructions".

use super::Decoded;
use crate::exec::code::Action;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::exec::lanes::{Done, compare, select, ternary};
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

/// A comparison of values of one type.
#[derive(Clone, Copy)]
struct Operator {
    name: &'static str,
    ftz: bool,
}

impl Operator {
    fn take(form: &mut Form<'_>) -> Result<Self, LoadError> {
        let Some(name) = form.any(&OPERATORS) else { return form.error("missing comparison operator") };
        let name = OPERATORS.iter().find(|o| **o == name).copied().unwrap_or("eq");
        Ok(Self { name, ftz: false })
    }
}

impl Operator {
    /// Expresses the operator by `eq`, `ne`, `lt`, `le` or `num`, with the operands swapped or the result negated.
    ///
    /// "Comparison and Selection Instructions": the unordered operators hold where an operand is NaN, so each is the
    /// negation of an ordered one.
    fn reduced(self, rows: [u32; 2]) -> (&'static str, [u32; 2], u32) {
        let [a, b] = rows;
        match self.name {
            "gt" => ("lt", [b, a], 0),
            "ge" => ("le", [b, a], 0),
            "equ" => ("ne", rows, FULL),
            "neu" => ("eq", rows, FULL),
            "ltu" => ("le", [b, a], FULL),
            "leu" => ("lt", [b, a], FULL),
            "gtu" => ("le", rows, FULL),
            "geu" => ("lt", rows, FULL),
            "nan" => ("num", rows, FULL),
            name => (name, rows, 0),
        }
    }
}

/// A comparison of integers. Two loops per type serve all operators.
fn integers<T: Typed + Ord>(
    form: &Form<'_>,
    op: Operator,
    rows: [u32; 2],
    done: Done,
) -> Result<Action, LoadError> {
    let [a, b] = rows;
    let (less, rows, flip) = match op.name {
        "eq" => (false, rows, 0),
        "ne" => (false, rows, FULL),
        "lt" => (true, rows, 0),
        "ge" => (true, rows, FULL),
        "gt" => (true, [b, a], 0),
        "le" => (true, [b, a], FULL),
        _ => return form.error("the comparison operator does not match the type"),
    };
    Ok(if less {
        compare(rows, flip, |a: T, b: T| a < b, done)
    } else {
        compare(rows, flip, |a: T, b: T| a == b, done)
    })
}

/// A comparison of floats, read out of the cells by `view`. `.ne` holds only where both are numbers.
fn floats<T: Typed, F: PartialOrd>(
    form: &Form<'_>,
    op: Operator,
    rows: [u32; 2],
    done: Done,
    view: impl Fn(T) -> F + Copy + Send + Sync + 'static,
) -> Result<Action, LoadError> {
    let (name, rows, flip) = op.reduced(rows);
    Ok(match name {
        "eq" => compare(rows, flip, move |a: T, b: T| view(a) == view(b), done),
        "ne" => compare(rows, flip, move |a: T, b: T| view(a) < view(b) || view(a) > view(b), done),
        "lt" => compare(rows, flip, move |a: T, b: T| view(a) < view(b), done),
        "le" => compare(rows, flip, move |a: T, b: T| view(a) <= view(b), done),
        "num" => compare(rows, flip, move |a: T, b: T| view(a) <= view(b) || view(a) > view(b), done),
        _ => return form.error("the comparison operator does not match the type"),
    })
}

fn build(form: &Form<'_>, t: Type, op: Operator, rows: [u32; 2], done: Done) -> Result<Action, LoadError> {
    // The unsigned names are aliases, and for unsigned types only.
    let op = match (op.name, t.meaning) {
        ("lo", Meaning::Unsigned) => Operator { name: "lt", ..op },
        ("ls", Meaning::Unsigned) => Operator { name: "le", ..op },
        ("hi", Meaning::Unsigned) => Operator { name: "gt", ..op },
        ("hs", Meaning::Unsigned) => Operator { name: "ge", ..op },
        _ => op,
    };
    let ftz = op.ftz;
    if t.meaning == Meaning::Bits && !matches!(op.name, "eq" | "ne") {
        return form.error("bit types support .eq and .ne only");
    }
    if ftz && !matches!(t.meaning, Meaning::Float | Meaning::FloatPair) {
        return form.error(".ftz does not match the type");
    }
    match (t.meaning, t.bits) {
        // The upper half of a 16-bit register's cell is zero.
        (Meaning::Bits | Meaning::Unsigned, 16 | 32) => integers::<u32>(form, op, rows, done),
        (Meaning::Bits | Meaning::Unsigned, 64) => integers::<u64>(form, op, rows, done),
        (Meaning::Signed, 16) => integers::<i16>(form, op, rows, done),
        (Meaning::Signed, 32) => integers::<i32>(form, op, rows, done),
        (Meaning::Signed, 64) => integers::<i64>(form, op, rows, done),
        (Meaning::Float, 32) if ftz => floats(form, op, rows, done, |x: f32| flush(x)),
        (Meaning::Float, 32) => floats(form, op, rows, done, |x: f32| x),
        (Meaning::Float, 64) => floats(form, op, rows, done, |x: f64| x),
        (Meaning::Float, 16) => floats(form, op, rows, done, move |x: u32| flushed_half(x, ftz)),
        (Meaning::Brain, 16) => floats(form, op, rows, done, |x: bf16| brain_value(x)),
        _ => form.unsupported(),
    }
}

/// The f16 in the low half of a cell.
fn flushed_half(cell: u32, ftz: bool) -> f32 {
    if ftz && cell & 0x7c00 == 0 { 0.0 } else { half_value(f16::from_bits(cell as u16)) }
}

/// The Boolean operator that combines the comparison with the third operand.
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

/// "setp": `p|q = (a op b) bool c`; q gets the negated comparison.
pub(super) fn set_predicate(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let mut op = Operator::take(form)?;
    let joined = form.any(&["and", "or", "xor"]);
    op.ftz = form.flag("ftz");
    let t = form.kind()?;
    let (po, a, b, c) = match (form.instruction.operands.as_slice(), joined) {
        ([po, a, b], None) => (po, a, b, Guard::ALWAYS),
        ([po, a, b, c], Some(_)) => (po, a, b, d.predicate(form, c)?),
        _ => return form.error("wrong number of operands"),
    };
    let join = join(joined.unwrap_or("and"));
    let rows = [d.source(form, a, t)?, d.source(form, b, t)?];
    let (p, q) = match po {
        Operand::Pair(p, q) => (d.predicate_destination(form, p)?, Some(d.predicate_destination(form, q)?)),
        p => (d.predicate_destination(form, p)?, None),
    };
    if matches!(t.meaning, Meaning::FloatPair | Meaning::BrainPair) {
        let Some(q) = q else { return form.error("packed comparisons need two destination predicates") };
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
    let halves = |shift: u32, done: Done| {
        if t.meaning == Meaning::FloatPair {
            floats(form, op, rows, done, move |x: u32| flushed_half(x >> shift, op.ftz))
        } else {
            floats(form, op, rows, done, move |x: u32| brain_value(bf16::from_bits((x >> shift) as u16)))
        }
    };
    let [low, high] = done;
    let (first, second) = (halves(0, low)?, halves(16, high)?);
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
        _ => return form.error("wrong number of operands"),
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
        // 32-bit integer results of packed comparisons have all ones in the halves for which the comparison is true.
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
        // The destination may be a source, and the second half still needs the old bits.
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
        // Negative zero counts as zero, so flushing matters for negative subnormals only.
        (Meaning::Float, 32, 16 | 32) if ftz => pick::<u32, f32>(o, rows, |c| flush(c) >= 0.0),
        (Meaning::Float, 32, 64) if ftz => pick::<u64, f32>(o, rows, |c| flush(c) >= 0.0),
        (Meaning::Float, 32, 16 | 32) => pick::<u32, f32>(o, rows, |c| c >= 0.0),
        (Meaning::Float, 32, 64) => pick::<u64, f32>(o, rows, |c| c >= 0.0),
        _ => return form.unsupported(),
    };
    Ok((Class::Move, action))
}
