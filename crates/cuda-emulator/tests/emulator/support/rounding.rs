//! Rounding from exact or sticky doubles to narrow formats, implemented independently of any library.

/// PTX's rounding modifiers, in the order `.rn .rz .rm .rp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Nearest,
    Zero,
    Down,
    Up,
}

pub(crate) const MODES: [(&str, Mode); 4] =
    [("rn", Mode::Nearest), ("rz", Mode::Zero), ("rm", Mode::Down), ("rp", Mode::Up)];

/// A binary format: significand bits including the hidden bit, and the exponents of the smallest and largest normal powers
/// of two.
#[derive(Clone, Copy)]
pub(crate) struct Format {
    precision: i32,
    smallest: i32,
    largest: i32,
}

pub(crate) const F16: Format = Format { precision: 11, smallest: -14, largest: 15 };
pub(crate) const BF16: Format = Format { precision: 8, smallest: -126, largest: 127 };
pub(crate) const F32: Format = Format { precision: 24, smallest: -126, largest: 127 };
pub(crate) const TF32: Format = Format { precision: 11, smallest: -126, largest: 127 };

/// `x` rounded to `format`, as a double.
pub(crate) fn round(x: f64, format: Format, mode: Mode) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let exponent = ((x.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(format.smallest);
    let quantum = 2f64.powi(exponent - (format.precision - 1));
    let scaled = x / quantum;
    let whole = match mode {
        Mode::Nearest => scaled.round_ties_even(),
        Mode::Zero => scaled.trunc(),
        Mode::Down => scaled.floor(),
        Mode::Up => scaled.ceil(),
    };
    let rounded = (whole * quantum).copysign(x);
    let most = (2.0 - 2f64.powi(1 - format.precision)) * 2f64.powi(format.largest);
    if rounded.abs() <= most {
        return rounded;
    }
    let away = match mode {
        Mode::Nearest => true,
        Mode::Zero => false,
        Mode::Down => x < 0.0,
        Mode::Up => x > 0.0,
    };
    if away { f64::INFINITY.copysign(x) } else { most.copysign(x) }
}

/// `x + error` rounded to odd: rounding the result to a format of up to 51 bits gives the same as rounding the exact value.
pub(crate) fn sticky(x: f64, error: f64) -> f64 {
    if error == 0.0 || !x.is_finite() || error.is_nan() || x.to_bits() & 1 == 1 {
        return x;
    }
    if x == 0.0 {
        return error;
    }
    if (error > 0.0) == (x > 0.0) { f64::from_bits(x.to_bits() + 1) } else { f64::from_bits(x.to_bits() - 1) }
}

/// `a + b`, sticky. The error is exact by Knuth's two-sum.
pub(crate) fn sum(a: f64, b: f64) -> f64 {
    let s = a + b;
    let b_part = s - a;
    sticky(s, (a - (s - b_part)) + (b - b_part))
}

/// `a / b` for narrow operands, sticky.
pub(crate) fn quotient(a: f64, b: f64) -> f64 {
    let q = a / b;
    if !q.is_finite() || q == 0.0 {
        return q;
    }
    sticky(q, (-q).mul_add(b, a) / b)
}

/// The square root of a narrow operand, sticky.
pub(crate) fn root(x: f64) -> f64 {
    let r = x.sqrt();
    if !r.is_finite() || r == 0.0 {
        return r;
    }
    sticky(r, (-r).mul_add(r, x))
}

/// Sets the sign of a sum that is exactly zero: negative only if rounding down or if both terms are -0.
pub(crate) fn signed_zero(exact: f64, a: f64, b: f64, mode: Mode) -> f64 {
    if exact != 0.0 {
        return exact;
    }
    let (a_minus, b_minus) = (a.is_sign_negative(), b.is_sign_negative());
    if a_minus == b_minus {
        return if a_minus { -0.0 } else { 0.0 };
    }
    if mode == Mode::Down { -0.0 } else { 0.0 }
}

/// A rounded f32 sum; product, fused multiply-add, quotient and square root follow.
pub(crate) fn add_f32(a: f32, b: f32, mode: Mode) -> f32 {
    let (a, b) = (f64::from(a), f64::from(b));
    round(signed_zero(sum(a, b), a, b, mode), F32, mode) as f32
}

pub(crate) fn mul_f32(a: f32, b: f32, mode: Mode) -> f32 {
    round(f64::from(a) * f64::from(b), F32, mode) as f32
}

pub(crate) fn fma_f32(a: f32, b: f32, c: f32, mode: Mode) -> f32 {
    fma(f64::from(a), f64::from(b), f64::from(c), F32, mode) as f32
}

/// A fused multiply-add; the product of two narrow operands is exact in a double.
pub(crate) fn fma(a: f64, b: f64, c: f64, format: Format, mode: Mode) -> f64 {
    let product = a * b;
    round(signed_zero(sum(product, c), product, c, mode), format, mode)
}

pub(crate) fn div_f32(a: f32, b: f32, mode: Mode) -> f32 {
    round(quotient(f64::from(a), f64::from(b)), F32, mode) as f32
}

pub(crate) fn sqrt_f32(x: f32, mode: Mode) -> f32 {
    round(root(f64::from(x)), F32, mode) as f32
}

/// `.ftz`: subnormal numbers become zeros of the same sign.
pub(crate) fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

/// `.sat`: clamps to [0, 1]; NaN becomes +0.
pub(crate) fn saturate(x: f32) -> f32 {
    if x.is_nan() || x <= 0.0 { 0.0 } else { x.min(1.0) }
}
