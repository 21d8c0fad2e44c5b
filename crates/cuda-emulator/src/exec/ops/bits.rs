//! Bit manipulation from "Integer Arithmetic Instructions" and "Data Movement": popc, clz, bfind, brev, bfe, bfi,
//! bmsk, szext, fns, prmt.

use super::Decoded;
use crate::exec::code::Action;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::exec::lanes::{binary, compute, ternary, ternary_slow, unary};
use crate::exec::registers::lanes;
use crate::ptx::LoadError;
use crate::ptx::types::{Meaning, Type};

const WORD: Type = Type { meaning: Meaning::Bits, bits: 32 };

type Built = Result<Action, LoadError>;

pub(super) fn decode(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let action = match form.opcode() {
        "popc" | "clz" | "brev" => counts(d, form),
        "bfind" => find_highest(d, form),
        "bfe" => extract_field(d, form),
        "bfi" => insert_field(d, form),
        "bmsk" => mask(d, form),
        "szext" => extend(d, form),
        "fns" => nth_set_bit(d, form),
        "prmt" => permute(d, form),
        _ => return form.unsupported(),
    };
    Ok((Class::Integer, action?))
}

/// popc, clz and brev.
fn counts(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Built {
    let t = form.kind()?;
    let [o, a] = form.operands()?;
    let a = d.source(form, a, t)?;
    let o = d.destination(form, o, if form.opcode() == "brev" { t } else { WORD })?;
    Ok(match (form.opcode(), t.meaning, t.bits) {
        ("popc", Meaning::Bits, 32) => unary(o, [a], u32::count_ones),
        ("popc", Meaning::Bits, 64) => unary(o, [a], u64::count_ones),
        ("clz", Meaning::Bits, 32) => unary(o, [a], u32::leading_zeros),
        ("clz", Meaning::Bits, 64) => unary(o, [a], u64::leading_zeros),
        ("brev", Meaning::Bits, 32) => unary(o, [a], u32::reverse_bits),
        ("brev", Meaning::Bits, 64) => unary(o, [a], u64::reverse_bits),
        _ => return form.unsupported(),
    })
}

/// "bfind".
fn find_highest(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Built {
    let shift = form.flag("shiftamt");
    let t = form.kind()?;
    let [o, a] = form.operands()?;
    let a = d.source(form, a, t)?;
    let o = d.destination(form, o, WORD)?;
    // The position of the highest bit that differs from the sign; all ones if there is none.
    let find = move |x: u64, width: u32| {
        if x == 0 {
            return u32::MAX;
        }
        let place = 63 - x.leading_zeros();
        if shift { width - 1 - place } else { place }
    };
    Ok(match (t.meaning, t.bits) {
        (Meaning::Unsigned, 32) => unary(o, [a], move |x: u32| find(u64::from(x), 32)),
        (Meaning::Unsigned, 64) => unary(o, [a], move |x: u64| find(x, 64)),
        (Meaning::Signed, 32) => unary(o, [a], move |x: i32| find(u64::from((x ^ x >> 31) as u32), 32)),
        (Meaning::Signed, 64) => unary(o, [a], move |x: i64| find((x ^ x >> 63) as u64, 64)),
        _ => return form.unsupported(),
    })
}

/// "bfe".
fn extract_field(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Built {
    let t = form.kind()?;
    let [o, a, b, c] = form.operands()?;
    let rows = [d.source(form, a, t)?, d.source(form, b, WORD)?, d.source(form, c, WORD)?];
    let o = d.destination(form, o, t)?;
    Ok(match (t.meaning, t.bits) {
        (Meaning::Unsigned, 32) => {
            ternary(o, rows, |a: u32, p: u32, n: u32| extract(u64::from(a), p, n, 32, false) as u32)
        }
        (Meaning::Signed, 32) => {
            ternary(o, rows, |a: u32, p: u32, n: u32| extract(u64::from(a), p, n, 32, true) as u32)
        }
        (Meaning::Unsigned, 64) => ternary(o, rows, |a: u64, p: u32, n: u32| extract(a, p, n, 64, false)),
        (Meaning::Signed, 64) => ternary(o, rows, |a: u64, p: u32, n: u32| extract(a, p, n, 64, true)),
        _ => return form.unsupported(),
    })
}

/// "bfi".
fn insert_field(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Built {
    let t = form.kind()?;
    let [o, a, b, c, n] = form.operands()?;
    let (a, b) = (d.source(form, a, t)?, d.source(form, b, t)?);
    let (c, n) = (d.source(form, c, WORD)?, d.source(form, n, WORD)?);
    let o = d.destination(form, o, t)?;
    Ok(match (t.meaning, t.bits) {
        (Meaning::Bits, 32) => compute(move |r, mask| {
            let mut out = [0; 32];
            for lane in 0..32 {
                let at = |row| r.row::<u32>(row)[lane];
                out[lane] = insert(u64::from(at(a)), u64::from(at(b)), at(c), at(n), 32) as u32;
            }
            r.put(o, &out, mask);
        }),
        (Meaning::Bits, 64) => compute(move |r, mask| {
            let mut out = [0; 32];
            for lane in 0..32 {
                let at = |row| r.row::<u64>(row)[lane];
                let word = |row| r.row::<u32>(row)[lane];
                out[lane] = insert(at(a), at(b), word(c), word(n), 64);
            }
            r.put(o, &out, mask);
        }),
        _ => return form.unsupported(),
    })
}

/// "bmsk".
fn mask(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Built {
    let wrap = match form.any(&["clamp", "wrap"]) {
        Some(mode) => mode == "wrap",
        None => return form.error("missing .clamp or .wrap"),
    };
    if form.kind()? != WORD {
        return form.unsupported();
    }
    let [o, a, b] = form.operands()?;
    let rows = [d.source(form, a, WORD)?, d.source(form, b, WORD)?];
    let o = d.destination(form, o, WORD)?;
    Ok(binary(o, rows, move |a: u32, b: u32| {
        let (a, b) = if wrap { (a & 31, b & 31) } else { (a.min(32), b.min(32)) };
        (((1u64 << b) - 1) << a) as u32
    }))
}

/// "szext".
fn extend(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Built {
    let wrap = match form.any(&["clamp", "wrap"]) {
        Some(mode) => mode == "wrap",
        None => return form.error("missing .clamp or .wrap"),
    };
    let t = form.kind()?;
    let signed = match (t.meaning, t.bits) {
        (Meaning::Signed, 32) => true,
        (Meaning::Unsigned, 32) => false,
        _ => return form.unsupported(),
    };
    let [o, a, b] = form.operands()?;
    let rows = [d.source(form, a, t)?, d.source(form, b, WORD)?];
    let o = d.destination(form, o, t)?;
    Ok(binary(o, rows, move |a: u32, n: u32| {
        let n = if wrap { n & 31 } else { n.min(32) };
        extract(u64::from(a), 0, n, 32, signed) as u32
    }))
}

/// "fns".
fn nth_set_bit(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Built {
    if form.kind()? != WORD {
        return form.unsupported();
    }
    let [o, a, b, c] = form.operands()?;
    let signed = Type { meaning: Meaning::Signed, bits: 32 };
    let rows = [d.source(form, a, WORD)?, d.source(form, b, WORD)?, d.source(form, c, signed)?];
    Ok(ternary_slow(d.destination(form, o, WORD)?, rows, find_nth))
}

/// "bfe": position and length are taken modulo 256; bits above the field are its sign or zero.
#[inline(always)]
fn extract(a: u64, position: u32, length: u32, width: u32, signed: bool) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    let top = width - 1;
    let sign_place = (position + length).saturating_sub(1).min(top);
    let sign = signed && length != 0 && a >> sign_place & 1 == 1;
    let field = if position < 64 { a >> position } else { 0 };
    let available = width.saturating_sub(position).min(length);
    let mask = if available >= 64 { u64::MAX } else { (1 << available) - 1 };
    field & mask | if sign { !mask } else { 0 }
}

/// "bfi".
#[inline(always)]
fn insert(a: u64, b: u64, position: u32, length: u32, width: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if position >= width {
        return b;
    }
    let field = if length >= 64 { u64::MAX } else { (1 << length) - 1 };
    let mask = field << position;
    b & !mask | a << position & mask
}

/// "fns": the n-th set bit from `base`, upwards for positive `n`, downwards for negative `n`.
fn find_nth(mask: u32, base: u32, n: i32) -> u32 {
    if base > 31 {
        return u32::MAX;
    }
    match n {
        0 => {
            if mask >> base & 1 == 1 {
                base
            } else {
                u32::MAX
            }
        }
        1.. => lanes(mask & u32::MAX << base).nth(n as usize - 1).map_or(u32::MAX, |l| l as u32),
        _ => {
            let below = mask & (u32::MAX >> (31 - base));
            let list: Vec<usize> = lanes(below).collect();
            let skip = n.unsigned_abs() as usize;
            if skip <= list.len() { list[list.len() - skip] as u32 } else { u32::MAX }
        }
    }
}

/// "prmt": selects bytes of two words.
fn permute(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Built {
    if form.kind()? != WORD {
        return form.unsupported();
    }
    let mode = form.any(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]);
    let [o, a, b, c] = form.operands()?;
    let rows = [d.source(form, a, WORD)?, d.source(form, b, WORD)?, d.source(form, c, WORD)?];
    let o = d.destination(form, o, WORD)?;
    Ok(ternary(o, rows, move |a: u32, b: u32, c: u32| {
        let bytes = u64::from(b) << 32 | u64::from(a);
        let s = c & 3;
        let mut out = 0;
        for i in 0..4u32 {
            let (pick, sign) = match mode {
                None => (c >> (4 * i) & 7, c >> (4 * i) & 8 != 0),
                Some("f4e") => (s + i, false),
                Some("b4e") => ((s + 8 - i) & 7, false),
                Some("rc8") => (s, false),
                Some("ecl") => (i.max(s), false),
                Some("ecr") => (i.min(s), false),
                Some(_) => ((s & 1) * 2 + (i & 1), false),
            };
            let byte = (bytes >> (8 * pick)) as u8;
            let byte = if sign { ((byte as i8) >> 7) as u8 } else { byte };
            out |= u32::from(byte) << (8 * i);
        }
        out
    }))
}
