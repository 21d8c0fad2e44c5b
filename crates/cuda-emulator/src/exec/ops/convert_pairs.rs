//! "cvt" to packed halves and "cvt.pack".

use super::Decoded;
use super::conversion::{How, bounded};
use crate::exec::code::Action;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::exec::lanes::{binary, ternary};
use crate::exec::registers::Typed;
use crate::exec::rounding::{Narrow, Rounding, brain_bits, half_bits, narrow};
use crate::ptx::types::{Meaning, Type};
use half::{bf16, f16};

/// `cvt.rn.f16x2.f32 d, a, b`: `a` goes to the high half.
pub(super) fn pack_floats(
    d: &mut Decoder<'_>,
    form: &mut Form<'_>,
    how: How,
    to: Type,
    from: Type,
) -> Decoded {
    let Some(mode @ (Rounding::Nearest | Rounding::Zero)) = how.float else {
        return form.error("missing .rn or .rz");
    };
    if (from.meaning, from.bits) != (Meaning::Float, 32) || how.integer.is_some() || how.finish.ftz {
        return form.unsupported();
    }
    let [o, a, b] = form.operands()?;
    let rows = [d.source(form, a, from)?, d.source(form, b, from)?];
    let o = d.destination(form, o, to)?;
    fn pair<T: Narrow + Typed<Cell = u32>>(o: u32, rows: [u32; 2], mode: Rounding, how: How) -> Action {
        let one = move |x: f32| narrow::<T>(bounded(f64::from(x), how), mode);
        binary(o, rows, move |a: f32, b: f32| [one(b), one(a)])
    }
    let plain = mode == Rounding::Nearest && !how.relu && !how.finish.sat;
    let action = match to.meaning {
        Meaning::FloatPair if plain => binary(o, rows, |a: f32, b: f32| [half_bits(b), half_bits(a)]),
        Meaning::BrainPair if plain => binary(o, rows, |a: f32, b: f32| [brain_bits(b), brain_bits(a)]),
        Meaning::FloatPair => pair::<f16>(o, rows, mode, how),
        _ => pair::<bf16>(o, rows, mode, how),
    };
    Ok((Class::Convert, action))
}

/// "cvt.pack": packs two saturated integers, followed by the low bits of a third operand.
pub(super) fn pack_integers(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    if !form.flag("sat") {
        return form.error("missing .sat");
    }
    let Some(to) = form.any(&["u16", "s16", "u8", "s8", "u4", "s4", "u2", "s2"]) else {
        return form.error("missing type");
    };
    let from = form.kind()?;
    if (from.meaning, from.bits) != (Meaning::Signed, 32) {
        return form.unsupported();
    }
    let bits: u32 = to[1..].parse().unwrap_or(16);
    let (least, most) =
        if to.starts_with('s') { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
    let field = move |x: i32| x.clamp(least, most) as u32 & ((1u32 << bits) - 1);
    let action = if bits == 16 {
        let [o, a, b] = form.operands()?;
        let rows = [d.source(form, a, from)?, d.source(form, b, from)?];
        binary(d.destination(form, o, from)?, rows, move |a: i32, b: i32| field(a) << 16 | field(b))
    } else {
        if form.kind()? != (Type { meaning: Meaning::Bits, bits: 32 }) {
            return form.unsupported();
        }
        let [o, a, b, c] = form.operands()?;
        let rows = [d.source(form, a, from)?, d.source(form, b, from)?, d.source(form, c, from)?];
        let o = d.destination(form, o, from)?;
        ternary(o, rows, move |a: i32, b: i32, c: u32| c << (2 * bits) | field(a) << bits | field(b))
    };
    Ok((Class::Convert, action))
}
