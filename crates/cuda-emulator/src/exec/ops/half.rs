//! "Half Precision Floating Point Instructions": add, sub, mul, fma, neg, abs, min, max for f16, bf16 and their
//! pairs, each rounded once.
//!
//! add, sub and mul of bf16 require sm_90 on hardware; like fma, they round once.

use super::Decoded;
use crate::exec::code::Action;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::exec::lanes::{binary, ternary, unary};
use crate::exec::registers::Typed;
use crate::exec::rounding::{Narrow, Rounding, narrow_fma, narrow_sum};
use crate::ptx::types::{Meaning, Type};
use half::{bf16, f16};

/// The modifiers that affect the result.
#[derive(Clone, Copy)]
struct How {
    ftz: bool,
    sat: bool,
    relu: bool,
}

/// One of the two formats.
pub(super) trait Half: Narrow + Typed<Cell = u32> + Send + Sync {
    const ONE: u32;
    const NAN: u32 = 0x7fff;
    const INFINITY: u32;
    fn bits(self) -> u32;
    fn of_bits(bits: u32) -> Self;
}

impl Half for f16 {
    const ONE: u32 = 0x3c00;
    const INFINITY: u32 = 0x7c00;
    #[inline(always)]
    fn bits(self) -> u32 {
        u32::from(self.to_bits())
    }
    #[inline(always)]
    fn of_bits(bits: u32) -> Self {
        f16::from_bits(bits as u16)
    }
}

impl Half for bf16 {
    const ONE: u32 = 0x3f80;
    const INFINITY: u32 = 0x7f80;
    #[inline(always)]
    fn bits(self) -> u32 {
        u32::from(self.to_bits())
    }
    #[inline(always)]
    fn of_bits(bits: u32) -> Self {
        bf16::from_bits(bits as u16)
    }
}

impl How {
    #[inline(always)]
    fn input<T: Half>(self, x: T) -> T {
        if self.ftz && x.bits() & T::INFINITY == 0 { T::of_bits(x.bits() & 0x8000) } else { x }
    }

    #[inline(always)]
    fn output<T: Half>(self, x: T) -> T {
        let x = self.input(x);
        let (nan, negative) = (x.bits() & 0x7fff > T::INFINITY, x.bits() & 0x8000 != 0);
        if self.sat {
            if nan || negative { T::of_bits(0) } else { T::of_bits(x.bits().min(T::ONE)) }
        } else if self.relu && (nan || negative) {
            // "relu": clamps negative values to 0 and keeps the canonical NaN.
            T::of_bits(if nan { T::NAN } else { 0 })
        } else {
            x
        }
    }
}

/// An operation on both halves of a pair, or on a single value.
macro_rules! each {
    ($pair:expr, $T:ty, $build:ident, $o:expr, $rows:expr, |$($x:ident),*| $body:expr) => {
        if $pair {
            $build($o, $rows, move |$($x: [$T; 2]),*| {
                let one = move |$($x: $T),*| -> $T { $body };
                [one($($x[0]),*), one($($x[1]),*)]
            })
        } else {
            $build($o, $rows, move |$($x: $T),*| -> $T { $body })
        }
    };
}

pub(super) fn decode(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let rounding = form.rounding();
    if rounding.is_some_and(|r| r != Rounding::Nearest) {
        return form.unsupported();
    }
    // `.noftz` is the default.
    form.flag("noftz");
    let how = How { ftz: form.flag("ftz"), sat: form.flag("sat"), relu: form.flag("relu") };
    let nan = form.flag("NaN");
    let xor_sign = form.flag("xorsign");
    if xor_sign && !form.flag("abs") {
        return form.error(".xorsign requires .abs");
    }
    let t = form.kind()?;
    let opcode = form.opcode();
    let float = matches!(t.meaning, Meaning::Float | Meaning::FloatPair);
    if (nan || xor_sign) && !matches!(opcode, "min" | "max") {
        return form.error(".NaN and .xorsign are supported on min and max only");
    }
    if how.relu && opcode != "fma" || how.sat && (!float || !matches!(opcode, "add" | "sub" | "mul" | "fma"))
    {
        return form.error(".relu or .sat is not supported here");
    }
    if how.ftz && !float {
        return form.error(".ftz requires f16");
    }
    if opcode == "fma" && rounding.is_none() {
        return form.error("missing rounding modifier");
    }
    let o;
    let mut rows = [0; 3];
    let count = match opcode {
        "fma" => 3,
        "abs" | "neg" => 1,
        _ => 2,
    };
    match form.instruction.operands.as_slice() {
        [first, rest @ ..] if rest.len() == count => {
            for (row, operand) in rows.iter_mut().zip(rest) {
                *row = d.source(form, operand, t)?;
            }
            o = d.destination(form, first, t)?;
        }
        _ => return form.error("wrong number of operands"),
    }
    let pair = matches!(t.meaning, Meaning::FloatPair | Meaning::BrainPair);
    let extreme = Extreme { larger: opcode == "max", nan, xor_sign };
    let action = if float {
        build::<f16>(opcode, pair, o, rows, how, extreme)
    } else {
        build::<bf16>(opcode, pair, o, rows, how, extreme)
    };
    match action {
        Some(action) => Ok((Class::Half, action)),
        None => form.unsupported(),
    }
}

#[derive(Clone, Copy)]
struct Extreme {
    larger: bool,
    nan: bool,
    xor_sign: bool,
}

fn build<T: Half>(opcode: &str, pair: bool, o: u32, rows: [u32; 3], how: How, e: Extreme) -> Option<Action> {
    let two = [rows[0], rows[1]];
    let nearest = Rounding::Nearest;
    Some(match opcode {
        "add" => each!(pair, T, binary, o, two, |a, b| {
            how.output(narrow_sum::<T>(how.input(a).wide(), how.input(b).wide(), nearest))
        }),
        "sub" => each!(pair, T, binary, o, two, |a, b| {
            how.output(narrow_sum::<T>(how.input(a).wide(), -how.input(b).wide(), nearest))
        }),
        "mul" => each!(pair, T, binary, o, two, |a, b| {
            let exact = how.input(a).wide() * how.input(b).wide();
            how.output(crate::exec::rounding::narrow::<T>(exact, nearest))
        }),
        "fma" => each!(pair, T, ternary, o, rows, |a, b, c| {
            how.output(narrow_fma(how.input(a), how.input(b), how.input(c), nearest))
        }),
        "neg" => each!(pair, T, unary, o, [rows[0]], |a| T::of_bits(how.input(a).bits() ^ 0x8000)),
        "abs" => each!(pair, T, unary, o, [rows[0]], |a| T::of_bits(how.input(a).bits() & 0x7fff)),
        "min" | "max" => each!(pair, T, binary, o, two, |a, b| pick(how.input(a), how.input(b), e)),
        _ => return None,
    })
}

/// The minimum or maximum, ordered as for f32.
fn pick<T: Half>(a: T, b: T, e: Extreme) -> T {
    let nan = |x: T| x.bits() & 0x7fff > T::INFINITY;
    if nan(a) || nan(b) {
        return match (nan(a), nan(b), e.nan) {
            (true, false, false) => b,
            (false, true, false) => a,
            _ => T::of_bits(T::NAN),
        };
    }
    let sign = if e.xor_sign { (a.bits() ^ b.bits()) & 0x8000 } else { 0 };
    let (a, b) =
        if e.xor_sign { (T::of_bits(a.bits() & 0x7fff), T::of_bits(b.bits() & 0x7fff)) } else { (a, b) };
    let key = |x: T| {
        let bits = x.bits() as i32;
        if bits & 0x8000 != 0 { !(bits & 0x7fff) } else { bits }
    };
    let value = if (key(a) < key(b)) != e.larger { a } else { b };
    T::of_bits(value.bits() | sign)
}

/// Whether arithmetic on this type belongs here.
pub(super) fn takes(t: Type) -> bool {
    matches!(t.meaning, Meaning::FloatPair | Meaning::Brain | Meaning::BrainPair)
        || (t.meaning, t.bits) == (Meaning::Float, 16)
}
