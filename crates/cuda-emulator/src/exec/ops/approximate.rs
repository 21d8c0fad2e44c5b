//! Approximate instructions of "Floating Point Instructions": rcp, sqrt, rsqrt, sin, cos, lg2, ex2, tanh, div
//! (`.approx`, `.full`), and the half precision ex2 and tanh.
//!
//! By default the result is the exact value, correctly rounded. The other modes go to the limits of the error that the
//! PTX ISA specifies for each instruction.

use super::Decoded;
use crate::exec::approximation::{ErrorBound, approximate, exp2};
use crate::exec::code::Action;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::exec::lanes::{unary_slow, vectorised};
use crate::exec::options::Approximation;
use crate::exec::registers::{LANES, Registers, Row, Typed, lanes};
use crate::exec::rounding::{Finish, Narrow};
use crate::ptx::types::{Meaning, Type};
use half::{bf16, f16};

const SINGLE: Type = Type { meaning: Meaning::Float, bits: 32 };

/// A function and its maximum error.
#[derive(Clone, Copy)]
struct Function {
    exact: fn(f64) -> f64,
    bound: fn(f64) -> ErrorBound,
    /// Whether the result for an argument has no error.
    errorless: fn(f64) -> bool,
    /// The rounded exact result, computed with operations that vectorise; without it the result of `exact` is rounded.
    fast: Option<fn(f32) -> f32>,
}

fn function(opcode: &str) -> Option<Function> {
    let relative = |_| ErrorBound::Relative(RELATIVE_23);
    const RELATIVE_23: f64 = 1.0 / 8_388_608.0;
    let new = |exact, bound, fast| Function { exact, bound, errorless: is_special, fast };
    Some(match opcode {
        "rcp" => new(|x| 1.0 / x, |_| ErrorBound::Ulp(1), Some(|x| 1.0 / x)),
        "sqrt" => new(f64::sqrt, relative, Some(f32::sqrt)),
        "rsqrt" => new(
            |x| 1.0 / x.sqrt(),
            // 2^-22.9
            |_| ErrorBound::Relative(1.277_7e-7),
            Some(|x| (1.0 / f64::from(x).sqrt()) as f32),
        ),
        "sin" => new(sine, circular, None),
        "cos" => new(cosine, circular, None),
        "lg2" => new(f64::log2, logarithm, None),
        "ex2" => Function {
            errorless: |x| is_special(x) || is_power(x),
            ..new(f64::exp2, |_| ErrorBound::Ulp(2), Some(|x| if x.is_nan() { x } else { exp2(x) as f32 }))
        },
        // 2^-11
        "tanh" => new(f64::tanh, |_| ErrorBound::Relative(1.0 / 2048.0), None),
        _ => return None,
    })
}

/// Whether `ex2` of `x` is an exact power of two in hardware: `x` is an integer, and the result is a normal f32.
///
/// The PTX ISA promises two ulp everywhere and lists only 2^±0 = 1 as exact. But NVIDIA's own `expf` (`math_functions.hpp`
/// up to CUDA 7) is `exp2f(fraction) * exp2f(integer)`, each one `ex2.approx`, with a documented error of 2 ulp in all: the
/// fraction's factor may use up all of it, so the integer's has none. (The integer part of the argument becomes the exponent,
/// and the table's entry for a fraction of 0 is that of 2^0.) Compilers and kernels rely on it when they rescale by
/// `ex2(old maximum - new maximum)`. Below -126, where the form without `.ftz` squares the result for half the argument,
/// nothing is known, and the documented error applies.
fn is_power(x: f64) -> bool {
    x.fract() == 0.0 && (-126.0..=127.0).contains(&x)
}

fn sine(x: f64) -> f64 {
    if x.is_infinite() { f64::NAN } else { x.sin() }
}

fn cosine(x: f64) -> f64 {
    if x.is_infinite() { f64::NAN } else { x.cos() }
}

/// 2^-20.5 for |x| up to 2π, 2^-14.7 up to 100π; unspecified beyond.
fn circular(x: f64) -> ErrorBound {
    if x.abs() <= std::f64::consts::TAU {
        ErrorBound::Absolute(6.743_5e-7)
    } else {
        ErrorBound::Absolute(3.757e-5)
    }
}

/// 2^-22, absolute between 0.5 and 2, relative elsewhere.
fn logarithm(x: f64) -> ErrorBound {
    const LEAST: f64 = 1.0 / 4_194_304.0;
    if x > 0.5 && x < 2.0 { ErrorBound::Absolute(LEAST) } else { ErrorBound::Relative(LEAST) }
}

/// Whether the PTX ISA specifies the result exactly, in a table of special values.
fn is_special(x: f64) -> bool {
    x == 0.0 || !x.is_finite()
}

/// rcp and sqrt with `.approx`; some of the modifiers have already been taken.
pub(super) fn decode(d: &mut Decoder<'_>, form: &mut Form<'_>, finish: Finish) -> Decoded {
    if !form.flag("approx") {
        return form.error("missing .approx or rounding modifier");
    }
    single(d, form, finish)
}

/// ex2, lg2, rsqrt, sin, cos, tanh.
pub(super) fn transcendental(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    if !form.flag("approx") {
        return form.error("missing .approx");
    }
    let finish = Finish { ftz: form.flag("ftz"), sat: false };
    let t = form.instruction.modifiers.iter().find_map(|m| Type::named(m));
    match (form.opcode(), t) {
        ("ex2" | "tanh", Some(t)) if super::half::takes(t) => half(d, form, finish),
        ("rsqrt", Some(Type { meaning: Meaning::Float, bits: 64 })) => root_double(d, form, finish),
        ("tanh", _) if finish.ftz => form.error("tanh does not support .ftz"),
        _ => single(d, form, finish),
    }
}

fn single(d: &mut Decoder<'_>, form: &mut Form<'_>, finish: Finish) -> Decoded {
    let Some(f) = function(form.opcode()) else { return form.unsupported() };
    if form.kind()? != SINGLE || finish.sat {
        return form.unsupported();
    }
    let [o, a] = form.operands()?;
    let a = d.source(form, a, SINGLE)?;
    let o = d.destination(form, o, SINGLE)?;
    let action = match (form.opcode(), f.fast) {
        ("ex2", _) => build(o, a, f, finish, |x| if x.is_nan() { x } else { exp2(x) as f32 }),
        ("rcp", _) => build(o, a, f, finish, |x| 1.0 / x),
        ("sqrt", _) => build(o, a, f, finish, f32::sqrt),
        ("rsqrt", _) => build(o, a, f, finish, |x| (1.0 / f64::from(x).sqrt()) as f32),
        _ => by_lane(o, a, f, finish),
    };
    Ok((Class::Special, action))
}

/// With a fast path for the default mode.
fn build(
    o: u32,
    a: u32,
    f: Function,
    finish: Finish,
    fast: impl Fn(f32) -> f32 + Copy + Send + Sync + 'static,
) -> Action {
    Action::Access(Box::new(move |m, r, mask| {
        if m.launch.options.approximation != Approximation::Nearest {
            slow(r, [o, a], f, finish, m.launch.options.approximation, mask);
            return Ok(());
        }
        vectorised(
            #[inline(always)]
            || {
                let x = r.row::<u32>(a);
                let mut out: Row<u32> = [0; LANES];
                for lane in 0..LANES {
                    out[lane] = finish.output(fast(finish.input(f32::from_bits(x[lane])))).to_bits();
                }
                r.put(o, &out, mask);
            },
        );
        Ok(())
    }))
}

fn by_lane(o: u32, a: u32, f: Function, finish: Finish) -> Action {
    Action::Access(Box::new(move |m, r, mask| {
        slow(r, [o, a], f, finish, m.launch.options.approximation, mask);
        Ok(())
    }))
}

fn slow(r: &mut Registers, [o, a]: [u32; 2], f: Function, finish: Finish, mode: Approximation, mask: u32) {
    let x = *r.row::<u32>(a);
    let mut out = [0; LANES];
    for lane in lanes(mask) {
        let v = finish.input(f32::from_bits(x[lane]));
        out[lane] = finish.output(one::<f32>(f, v, mode, u64::from(v.to_bits()))).to_bits();
    }
    r.put(o, &out, mask);
}

fn one<T: Narrow>(f: Function, x: T, mode: Approximation, argument: u64) -> T {
    let x = x.wide();
    let mode = if (f.errorless)(x) { Approximation::Nearest } else { mode };
    approximate((f.exact)(x), (f.bound)(x), mode, argument)
}

/// "ex2" and "tanh" on f16, bf16 and pairs.
fn half(d: &mut Decoder<'_>, form: &mut Form<'_>, finish: Finish) -> Decoded {
    let t = form.kind()?;
    let float = matches!(t.meaning, Meaning::Float | Meaning::FloatPair);
    if finish.ftz && (float || form.opcode() == "tanh") {
        // "ex2": .ftz is for bf16, where it is the only form.
        return form.unsupported();
    }
    if !finish.ftz && !float && form.opcode() == "ex2" {
        return form.error("missing .ftz");
    }
    let bound: fn(f64) -> ErrorBound = match (form.opcode(), float) {
        // 2^-9.9, 2^-7, 2^-10.987, 2^-8
        ("ex2", true) => |_| ErrorBound::Relative(1.046_6e-3),
        ("ex2", false) => |_| ErrorBound::Relative(1.0 / 128.0),
        (_, true) => |_| ErrorBound::Absolute(4.926_8e-4),
        (_, false) => |_| ErrorBound::Absolute(1.0 / 256.0),
    };
    let Some(f) = function(form.opcode()) else { return form.unsupported() };
    let f = Function { bound, ..f };
    let [o, a] = form.operands()?;
    let a = d.source(form, a, t)?;
    let o = d.destination(form, o, t)?;
    fn cells<T: Narrow + Typed<Cell = u32>>(o: u32, a: u32, f: Function, pair: bool) -> Action {
        Action::Access(Box::new(move |m, r, mask| {
            let mode = m.launch.options.approximation;
            let x = *r.row::<u32>(a);
            let mut out = [0; LANES];
            for lane in lanes(mask) {
                let apply = |bits: u32| {
                    one::<T>(f, T::from_cell(bits & 0xffff), mode, u64::from(bits & 0xffff)).into_cell()
                };
                out[lane] = apply(x[lane]) | if pair { apply(x[lane] >> 16) << 16 } else { 0 };
            }
            r.put(o, &out, mask);
            Ok(())
        }))
    }
    let pair = t.bits == 32;
    let action = if float { cells::<f16>(o, a, f, pair) } else { cells::<bf16>(o, a, f, pair) };
    Ok((Class::Special, action))
}

/// "div.approx" and "div.full", with a maximum error of 2 ulp. If the divisor's magnitude exceeds 2^126, `.approx` returns
/// 0, or NaN if the dividend is infinite.
pub(super) fn division(d: &mut Decoder<'_>, form: &mut Form<'_>, finish: Finish) -> Decoded {
    let Some(kind) = form.any(&["approx", "full"]) else {
        return form.error("missing .approx, .full or rounding modifier");
    };
    if form.kind()? != SINGLE || finish.sat {
        return form.unsupported();
    }
    let approx = kind == "approx";
    let [o, a, b] = form.operands()?;
    let (a, b) = (d.source(form, a, SINGLE)?, d.source(form, b, SINGLE)?);
    let o = d.destination(form, o, SINGLE)?;
    let action = Action::Access(Box::new(move |m, r, mask| {
        let mode = m.launch.options.approximation;
        let (x, y) = (*r.row::<u32>(a), *r.row::<u32>(b));
        let mut out = [0; LANES];
        for lane in lanes(mask) {
            let argument = u64::from(x[lane]) << 32 | u64::from(y[lane]);
            let (x, y) = (finish.input(f32::from_bits(x[lane])), finish.input(f32::from_bits(y[lane])));
            let huge = approx && y.is_finite() && y.abs() > TWO_126;
            let q = if huge {
                if x.is_infinite() { f32::NAN } else { 0f32.copysign(x) * y.signum() }
            } else {
                let q = f64::from(x) / f64::from(y);
                let mode = if is_special(f64::from(x))
                    || is_special(f64::from(y))
                    || q.abs() > f64::from(f32::MAX)
                {
                    Approximation::Nearest
                } else {
                    mode
                };
                if mode == Approximation::Nearest {
                    x / y
                } else {
                    approximate(q, ErrorBound::Ulp(2), mode, argument)
                }
            };
            out[lane] = finish.output(q).to_bits();
        }
        r.put(o, &out, mask);
        Ok(())
    }));
    Ok((Class::Special, action))
}

/// 2^126.
const TWO_126: f32 = f32::from_bits(0x7e80_0000);

/// The upper 32 bits of an f64, which are all that the coarse approximations read and return.
fn coarse(x: f64) -> f64 {
    f64::from_bits(x.to_bits() & 0xffff_ffff_0000_0000)
}

/// Flushes a subnormal f64 to zero.
fn flush_double(x: f64) -> f64 {
    if x.is_subnormal() { 0f64.copysign(x) } else { x }
}

/// "rcp.approx.ftz.f64": the upper half of the reciprocal.
pub(super) fn reciprocal_double(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let t = Type { meaning: Meaning::Float, bits: 64 };
    if !form.flag("approx") || !form.flag("ftz") || form.kind()? != t {
        return form.unsupported();
    }
    let [o, a] = form.operands()?;
    let a = d.source(form, a, t)?;
    let o = d.destination(form, o, t)?;
    let action = unary_slow(o, [a], |x: f64| coarse(flush_double(1.0 / flush_double(coarse(x)))));
    Ok((Class::Special, action))
}

/// "rsqrt.approx.f64", "rsqrt.approx.ftz.f64".
fn root_double(d: &mut Decoder<'_>, form: &mut Form<'_>, finish: Finish) -> Decoded {
    let t = form.kind()?;
    let [o, a] = form.operands()?;
    let a = d.source(form, a, t)?;
    let o = d.destination(form, o, t)?;
    let ftz = finish.ftz;
    let action = unary_slow(o, [a], move |x: f64| {
        coarse(1.0 / if ftz { flush_double(coarse(x)) } else { coarse(x) }.sqrt())
    });
    Ok((Class::Special, action))
}
