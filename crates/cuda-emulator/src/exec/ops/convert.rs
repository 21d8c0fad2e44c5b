//! "Data Movement: cvt" and "cvt.pack": between integers, floats and packed halves.

use super::conversion::{How, bounded, take};
use super::{Decoded, convert_pairs};
use crate::exec::code::Action;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::exec::lanes::{unary, unary_slow};
use crate::exec::rounding::{
    Rounding, brain_bits, brain_value, canonical, flush, half_bits, half_value, integral, narrow, rounded,
};
use crate::ptx::LoadError;
use crate::ptx::types::{Meaning, Type};
use half::{bf16, f16};

fn is_integer(t: Type) -> bool {
    matches!(t.meaning, Meaning::Signed | Meaning::Unsigned)
}

pub(super) fn decode(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    if form.flag("pack") {
        return convert_pairs::pack_integers(d, form);
    }
    let how = take(form);
    let (to, from) = (form.kind()?, form.kind()?);
    if matches!(to.meaning, Meaning::FloatPair | Meaning::BrainPair) {
        return convert_pairs::pack_floats(d, form, how, to, from);
    }
    let [o, a] = form.operands()?;
    let a = wide_source(d, form, a, from)?;
    let o = wide_destination(d, form, o, to)?;
    let action = match (is_integer(to), is_integer(from)) {
        (true, true) => between_integers(form, how, to, from, o, a)?,
        (true, false) => to_integer(form, how, to, from, o, a)?,
        (false, true) => from_integer(form, how, to, from, o, a)?,
        (false, false) => between_floats(form, how, to, from, o, a)?,
    };
    Ok((Class::Convert, action))
}

/// The register may be wider than the source type; the low bits are used.
fn wide_source(
    d: &mut Decoder<'_>,
    form: &Form<'_>,
    o: &crate::ptx::ast::Operand,
    t: Type,
) -> Result<(u32, bool), LoadError> {
    if let crate::ptx::ast::Operand::Name(name) = o
        && let Some(crate::exec::decode::Symbol::Register(r)) = d.lookup(name)
    {
        if r.bits < t.bits || r.bits == 1 {
            return form
                .error(format!("{name}: a register of {} bits for a type of {} bits", r.bits, t.bits));
        }
        return Ok((r.index, r.bits == 64));
    }
    let bits = t.bits.max(16);
    Ok((d.source(form, o, Type { bits, ..t })?, bits == 64))
}

/// The register may be wider than the destination type; the value is sign- or zero-extended as the type requires.
fn wide_destination(
    d: &mut Decoder<'_>,
    form: &Form<'_>,
    o: &crate::ptx::ast::Operand,
    t: Type,
) -> Result<(u32, u32), LoadError> {
    let r = d.register(form, o)?;
    if r.bits < t.bits || r.bits == 1 {
        return form.error(format!("{o:?}: a register of {} bits for a type of {} bits", r.bits, t.bits));
    }
    Ok((r.index, r.bits))
}

/// Reads an integer of the given type from a cell.
fn integer_reader(t: Type) -> impl Fn(u64) -> i128 + Copy {
    let unused = 64 - t.bits;
    let signed = t.meaning == Meaning::Signed;
    move |cell: u64| {
        if signed {
            i128::from((cell << unused) as i64 >> unused)
        } else {
            i128::from(cell << unused >> unused)
        }
    }
}

/// The cell of an integer result in a register of `bits`.
fn integer_writer(to: Type, bits: u32) -> impl Fn(i128) -> u64 + Copy {
    let (unused, spare) = (64 - to.bits, 64 - bits);
    let signed = to.meaning == Meaning::Signed;
    move |x: i128| {
        let x = x as u64;
        let x = if signed { ((x << unused) as i64 >> unused) as u64 } else { x << unused >> unused };
        x << spare >> spare
    }
}

fn limits(t: Type) -> (i128, i128) {
    if t.meaning == Meaning::Signed {
        (-(1 << (t.bits - 1)), (1 << (t.bits - 1)) - 1)
    } else {
        (0, (1 << t.bits) - 1)
    }
}

/// A conversion between cells of any two banks.
fn on_cells(
    (o, o_bits): (u32, u32),
    (a, a_long): (u32, bool),
    slow: bool,
    f: impl Fn(u64) -> u64 + Copy + Send + Sync + 'static,
) -> Action {
    match (o_bits == 64, a_long, slow) {
        (true, true, _) => unary_slow(o, [a], f),
        (true, false, false) => unary(o, [a], move |x: u32| f(u64::from(x))),
        (true, false, true) => unary_slow(o, [a], move |x: u32| f(u64::from(x))),
        (false, true, _) => unary_slow(o, [a], move |x: u64| f(x) as u32),
        (false, false, _) => unary_slow(o, [a], move |x: u32| f(u64::from(x)) as u32),
    }
}

fn between_integers(
    form: &Form<'_>,
    how: How,
    to: Type,
    from: Type,
    o: (u32, u32),
    a: (u32, bool),
) -> Result<Action, LoadError> {
    if how.integer.is_some() || how.float.is_some() || how.finish.ftz || how.relu {
        return form.unsupported();
    }
    if !how.finish.sat {
        // Fast paths for common conversions.
        let plain = |bits: u32, long: bool| (bits == 64) == long;
        let signed = from.meaning == Meaning::Signed;
        match (to.bits, from.bits) {
            (64, 32) if signed && !a.1 => return Ok(unary(o.0, [a.0], |x: i32| i64::from(x))),
            (64, 32) if !a.1 => return Ok(unary(o.0, [a.0], |x: u32| u64::from(x))),
            (32, 64) if o.1 == 32 => return Ok(unary(o.0, [a.0], |x: u64| x as u32)),
            (32, 16) if o.1 == 32 && plain(16, a.1) && signed => {
                return Ok(unary(o.0, [a.0], |x: i16| i32::from(x)));
            }
            (32, 16) if o.1 == 32 && plain(16, a.1) => return Ok(unary(o.0, [a.0], |x: u16| u32::from(x))),
            (16, 32) if o.1 == 16 && !a.1 => return Ok(unary(o.0, [a.0], |x: u32| x as u16)),
            (64, 64) => return Ok(unary(o.0, [a.0], |x: u64| x)),
            _ => {}
        }
    }
    let (read, write) = (integer_reader(from), integer_writer(to, o.1));
    let (least, most) = limits(to);
    let sat = how.finish.sat;
    Ok(on_cells(o, a, true, move |cell| {
        let x = read(cell);
        write(if sat { x.clamp(least, most) } else { x })
    }))
}

/// Any float as f64, exactly.
fn float_reader(form: &Form<'_>, t: Type) -> Result<fn(u64) -> f64, LoadError> {
    Ok(match (t.meaning, t.bits) {
        (Meaning::Float, 16) => |c| f64::from(half_value(f16::from_bits(c as u16))),
        (Meaning::Float, 32) => |c| f64::from(f32::from_bits(c as u32)),
        (Meaning::Float, 64) => f64::from_bits,
        (Meaning::Brain, 16) => |c| f64::from(brain_value(bf16::from_bits(c as u16))),
        _ => return form.unsupported(),
    })
}

/// "cvt" from a float: rounded, then clamped to the range. NaN becomes 0, or the value with only the top bit set if source
/// or result has 64 bits.
fn to_integer(
    form: &Form<'_>,
    how: How,
    to: Type,
    from: Type,
    o: (u32, u32),
    a: (u32, bool),
) -> Result<Action, LoadError> {
    let Some(mode) = how.integer else { return form.error("missing .rni, .rzi, .rmi or .rpi") };
    if how.float.is_some() || how.relu {
        return form.unsupported();
    }
    let ftz = how.finish.ftz;
    if ftz && (from.meaning, from.bits) != (Meaning::Float, 32) {
        return form.error(".ftz requires .f32");
    }
    let read = float_reader(form, from)?;
    let write = integer_writer(to, o.1);
    let (least, most) = limits(to);
    let nan = if from.bits == 64 || to.bits == 64 { 1i128 << (to.bits - 1) } else { 0 };
    Ok(on_cells(o, a, true, move |cell| {
        let x = read(cell);
        if x.is_nan() {
            return write(nan);
        }
        let x = if ftz { f64::from(flush(x as f32)) } else { x };
        write((integral(x, mode) as i128).clamp(least, most))
    }))
}

/// Rounds an integer to f64, only once.
fn round_integer(x: i128, mode: Rounding) -> f64 {
    // 64-bit integers have more bits than f64's significand.
    let magnitude = x.unsigned_abs();
    let excess = (128 - magnitude.leading_zeros()).saturating_sub(53);
    if excess == 0 {
        return x as f64;
    }
    let kept = magnitude >> excess;
    let lost = magnitude & ((1 << excess) - 1);
    let half = 1u128 << (excess - 1);
    let up = match mode {
        Rounding::Nearest | Rounding::NearestAway => lost > half || lost == half && kept & 1 == 1,
        Rounding::Zero => false,
        Rounding::Down => x < 0 && lost != 0,
        Rounding::Up => x > 0 && lost != 0,
    };
    let rounded = (kept + u128::from(up)) as f64 * (1u128 << excess) as f64;
    if x < 0 { -rounded } else { rounded }
}

/// An integer as f64, with the lowest bit set if bits were lost (rounding to odd), so that rounding to a narrower format is
/// correct.
fn sticky(x: i128) -> f64 {
    let magnitude = x.unsigned_abs();
    let excess = (128 - magnitude.leading_zeros()).saturating_sub(53);
    let kept = magnitude >> excess;
    let lost = magnitude & ((1 << excess) - 1) != 0;
    let value = (kept | u128::from(lost)) as f64 * (1u128 << excess) as f64;
    if x < 0 { -value } else { value }
}

fn from_integer(
    form: &Form<'_>,
    how: How,
    to: Type,
    from: Type,
    o: (u32, u32),
    a: (u32, bool),
) -> Result<Action, LoadError> {
    let Some(mode) = how.float else { return form.error("missing .rn, .rz, .rm or .rp") };
    if how.integer.is_some() || how.relu || mode == Rounding::NearestAway {
        return form.unsupported();
    }
    let sat = how.finish.sat;
    if !sat
        && mode == Rounding::Nearest
        && (to.meaning, to.bits, from.bits) == (Meaning::Float, 32, 32)
        && !a.1
    {
        return Ok(match from.meaning {
            Meaning::Signed => unary(o.0, [a.0], |x: i32| x as f32),
            _ => unary(o.0, [a.0], |x: u32| x as f32),
        });
    }
    let read = integer_reader(from);
    let clamp = move |x: i128| if sat { x.clamp(0, 1) } else { x };
    Ok(match (to.meaning, to.bits) {
        (Meaning::Float, 64) => on_cells(o, a, true, move |c| round_integer(clamp(read(c)), mode).to_bits()),
        (Meaning::Float, 32) => {
            on_cells(o, a, true, move |c| u64::from(narrow::<f32>(sticky(clamp(read(c))), mode).to_bits()))
        }
        (Meaning::Float, 16) => {
            on_cells(o, a, true, move |c| u64::from(narrow::<f16>(sticky(clamp(read(c))), mode).to_bits()))
        }
        (Meaning::Brain, 16) => {
            on_cells(o, a, true, move |c| u64::from(narrow::<bf16>(sticky(clamp(read(c))), mode).to_bits()))
        }
        _ => return form.unsupported(),
    })
}

fn between_floats(
    form: &Form<'_>,
    how: How,
    to: Type,
    from: Type,
    o: (u32, u32),
    a: (u32, bool),
) -> Result<Action, LoadError> {
    let single = |t: Type| (t.meaning, t.bits) == (Meaning::Float, 32);
    if how.finish.ftz && !single(to) && !single(from) {
        return form.error(".ftz requires .f32");
    }
    let shrinks = to.bits < from.bits || to.meaning == Meaning::Tensor;
    if to.meaning == from.meaning && to.bits == from.bits {
        // Conversions within a format: `.rni`, `.rzi`, … round to an integral value.
        if how.float.is_some() || how.relu {
            return form.unsupported();
        }
    } else if how.integer.is_some() {
        return form.error("rounding to an integer requires equal types");
    } else if shrinks != how.float.is_some() {
        return form.error("missing or unexpected rounding modifier");
    }
    if how.relu && !(matches!(to.bits, 16) && single(from) || to.meaning == Meaning::Tensor) {
        return form.error(".relu is not supported here");
    }
    let plain = !how.finish.sat && !how.finish.ftz && !how.relu && how.integer.is_none();
    let nearest = how.float == Some(Rounding::Nearest);
    match (to.meaning, to.bits, from.meaning, from.bits) {
        (Meaning::Float, 32, Meaning::Float, 16) if plain && !a.1 => {
            return Ok(unary(o.0, [a.0], |x: f16| canonical(half_value(x))));
        }
        (Meaning::Float, 32, Meaning::Brain, 16) if plain && !a.1 => {
            return Ok(unary(o.0, [a.0], |x: bf16| canonical(brain_value(x))));
        }
        (Meaning::Float, 16, Meaning::Float, 32) if plain && nearest && o.1 == 16 => {
            return Ok(unary(o.0, [a.0], half_bits));
        }
        (Meaning::Brain, 16, Meaning::Float, 32) if plain && nearest && o.1 == 16 => {
            return Ok(unary(o.0, [a.0], brain_bits));
        }
        (Meaning::Float, 32, Meaning::Float, 32)
            if how.finish.sat && !how.finish.ftz && how.integer.is_none() =>
        {
            return Ok(unary(o.0, [a.0], crate::exec::rounding::saturate));
        }
        _ => {}
    }
    let read = float_reader(form, from)?;
    let mode = how.float.unwrap_or(Rounding::Nearest);
    let input = move |cell: u64| {
        let x = read(cell);
        let x = if how.finish.ftz && single(from) { f64::from(flush(x as f32)) } else { x };
        bounded(if let Some(mode) = how.integer { integral(x, mode) } else { x }, how)
    };
    Ok(match (to.meaning, to.bits) {
        (Meaning::Float, 64) => on_cells(o, a, true, move |c| input(c).to_bits()),
        (Meaning::Float, 32) => on_cells(o, a, true, move |c| {
            let x = narrow::<f32>(input(c), mode);
            u64::from(if how.finish.ftz { flush(x) } else { x }.to_bits())
        }),
        (Meaning::Float, 16) => {
            on_cells(o, a, true, move |c| u64::from(narrow::<f16>(input(c), mode).to_bits()))
        }
        (Meaning::Brain, 16) => {
            on_cells(o, a, true, move |c| u64::from(narrow::<bf16>(input(c), mode).to_bits()))
        }
        // "tf32": f32 with a fraction of 10 bits; the low bits are zero.
        (Meaning::Tensor, 32) if single(from) => on_cells(o, a, true, move |c| {
            let x = rounded(input(c), 11, -126, TENSOR_MAX, mode);
            u64::from(canonical(x as f32).to_bits())
        }),
        _ => return form.unsupported(),
    })
}

/// The largest finite tf32 number: 2^127 (2 - 2^-10).
const TENSOR_MAX: f64 = 3.401_162_134_214_653_5e38;
