//! Rounding of exact or nearly exact f64 values to narrower formats ("Floating Point Instructions": rounding
//! modifiers).
//!
//! Sums are rounded to odd first, which makes the second rounding, to a format of at most 51 bits, correct
//! (S. Boldo, G. Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).

use half::{bf16, f16};

/// Rounding direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// `.rn`, ties to even.
    Nearest,
    /// `.rna`, ties away from zero.
    NearestAway,
    /// `.rz`
    Zero,
    /// `.rm`
    Down,
    /// `.rp`
    Up,
}

/// A binary floating-point format that is a subset of f64.
pub(crate) trait Narrow: Copy {
    /// Bits of the significand, including the hidden bit.
    const PRECISION: i32;
    /// Exponent of the smallest normal number.
    const LEAST: i32;
    /// The largest finite number.
    const MAX: f64;
    /// Converts a value that the format can represent.
    fn from_exact(x: f64) -> Self;
    fn wide(self) -> f64;
}

impl Narrow for f32 {
    const PRECISION: i32 = 24;
    const LEAST: i32 = -126;
    const MAX: f64 = f32::MAX as f64;
    #[inline(always)]
    fn from_exact(x: f64) -> Self {
        canonical(x as f32)
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Narrow for f16 {
    const PRECISION: i32 = 11;
    const LEAST: i32 = -14;
    const MAX: f64 = 65504.0;
    #[inline(always)]
    fn from_exact(x: f64) -> Self {
        if x.is_nan() { f16::from_bits(0x7fff) } else { half_bits(x as f32) }
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(half_value(self))
    }
}

impl Narrow for bf16 {
    const PRECISION: i32 = 8;
    const LEAST: i32 = -126;
    const MAX: f64 = 3.389_531_389_251_535_5e38;
    #[inline(always)]
    fn from_exact(x: f64) -> Self {
        if x.is_nan() {
            bf16::from_bits(0x7fff)
        } else {
            bf16::from_bits(((x as f32).to_bits() >> 16) as u16)
        }
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(brain_value(self))
    }
}

/// Rounds to a narrower format.
#[inline(always)]
pub(crate) fn narrow<T: Narrow>(x: f64, mode: Rounding) -> T {
    T::from_exact(rounded(x, T::PRECISION, T::LEAST, T::MAX, mode))
}

/// `x` rounded to `precision` bits with a minimum exponent of `least`, as f64.
#[inline(always)]
pub(crate) fn rounded(x: f64, precision: i32, least: i32, max: f64, mode: Rounding) -> f64 {
    if !x.is_finite() || x == 0.0 {
        return x;
    }
    let exponent = ((x.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(least);
    let quantum = exponent - (precision - 1);
    let r = integral(x * power_of_two(-quantum), mode) * power_of_two(quantum);
    if r.abs() <= max {
        return r;
    }
    let away = match mode {
        Rounding::Nearest | Rounding::NearestAway => true,
        Rounding::Zero => false,
        Rounding::Down => r < 0.0,
        Rounding::Up => r > 0.0,
    };
    if away { f64::INFINITY.copysign(r) } else { max.copysign(r) }
}

/// 2 to a power between -1022 and 1023.
#[inline(always)]
pub(crate) fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// Rounds to an integer, keeping the sign of zero.
#[inline(always)]
pub(crate) fn integral(x: f64, mode: Rounding) -> f64 {
    match mode {
        Rounding::Nearest => x.round_ties_even(),
        Rounding::NearestAway => x.round(),
        Rounding::Zero => x.trunc(),
        Rounding::Down => x.floor(),
        Rounding::Up => x.ceil(),
    }
}

/// Rounds to odd: moves an inexact `value` with an even significand to its odd neighbour on the side of the exact result.
#[inline(always)]
pub(crate) fn odd(value: f64, error: f64) -> f64 {
    if error == 0.0 || !value.is_finite() || value.to_bits() & 1 == 1 {
        return value;
    }
    let outward = (error > 0.0) == (value > 0.0);
    f64::from_bits(if outward { value.to_bits() + 1 } else { value.to_bits() - 1 })
}

/// The rounding error of `sum = a + b`; exact unless the sum overflows (Knuth's TwoSum).
#[inline(always)]
pub(crate) fn sum_error(a: f64, b: f64, sum: f64) -> f64 {
    let part = sum - a;
    (a - (sum - part)) + (b - part)
}

/// `a + b` rounded to odd.
#[inline(always)]
pub(crate) fn sum_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    odd(sum, sum_error(a, b, sum))
}

/// A sum in a narrow format; the sign of an exact zero follows the rounding mode.
#[inline(always)]
pub(crate) fn narrow_sum<T: Narrow>(a: f64, b: f64, mode: Rounding) -> T {
    let sum = sum_odd(a, b);
    if sum == 0.0 && mode == Rounding::Down && (a != 0.0 || a.is_sign_negative() != b.is_sign_negative()) {
        return T::from_exact(-0.0);
    }
    narrow(sum, mode)
}

/// `a * b + c` in a narrow format: the product of two such numbers is exact in f64.
#[inline(always)]
pub(crate) fn narrow_fma<T: Narrow>(a: T, b: T, c: T, mode: Rounding) -> T {
    narrow_sum(a.wide() * b.wide(), c.wide(), mode)
}

/// `a / b` in a narrow format.
#[inline(always)]
pub(crate) fn narrow_quotient<T: Narrow>(a: T, b: T, mode: Rounding) -> T {
    let (a, b) = (a.wide(), b.wide());
    let q = a / b;
    if !q.is_finite() || q == 0.0 || b.is_infinite() {
        return narrow(q, mode);
    }
    // The remainder is exact; its sign and that of b give the side of q on which the exact quotient lies.
    let remainder = (-q).mul_add(b, a);
    narrow(odd(q, remainder * b.signum()), mode)
}

/// The square root in a narrow format.
#[inline(always)]
pub(crate) fn narrow_root<T: Narrow>(a: T, mode: Rounding) -> T {
    let a = a.wide();
    let root = a.sqrt();
    if !root.is_finite() || root == 0.0 {
        return narrow(root, mode);
    }
    narrow(odd(root, (-root).mul_add(root, a)), mode)
}

/// f16 to f32, exactly, using only operations that vectorise.
#[inline(always)]
pub(crate) fn half_value(h: f16) -> f32 {
    let bits = u32::from(h.to_bits());
    let magnitude = (bits & 0x7fff) << 13;
    // Scaling by 2^112 adjusts the exponent to f32's bias, and is correct for subnormals too.
    let scaled = (f32::from_bits(magnitude) * f32::from_bits(0x7780_0000)).to_bits();
    let value = if magnitude >= 0x7c00 << 13 { magnitude | 0x7f80_0000 } else { scaled };
    f32::from_bits(value | (bits & 0x8000) << 16)
}

/// f32 to f16, rounded to nearest even, using only operations that vectorise.
#[inline(always)]
pub(crate) fn half_bits(x: f32) -> f16 {
    let bits = x.to_bits();
    let sign = bits >> 16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    // Below the smallest normal number: adding 0.5 aligns the unit of f16's subnormals with f32's last place.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let tie_to_even = magnitude >> 13 & 1;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + tie_to_even) >> 13;
    let finite = if magnitude < 113 << 23 { subnormal } else { normal };
    let value = if magnitude > 0x7f80_0000 {
        0x7fff
    } else if magnitude >= 0x477f_f000 {
        0x7c00
    } else {
        finite
    };
    let sign = if magnitude > 0x7f80_0000 { 0 } else { sign };
    f16::from_bits((sign | value) as u16)
}

/// bf16 to f32, exactly.
#[inline(always)]
pub(crate) fn brain_value(h: bf16) -> f32 {
    f32::from_bits(u32::from(h.to_bits()) << 16)
}

/// f32 to bf16, rounded to nearest even.
#[inline(always)]
pub(crate) fn brain_bits(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let value = if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fff } else { rounded };
    bf16::from_bits(value as u16)
}

/// `.ftz`: subnormals become zeros of the same sign.
#[inline(always)]
pub(crate) fn flush(x: f32) -> f32 {
    if x.to_bits() & 0x7f80_0000 == 0 { f32::from_bits(x.to_bits() & 0x8000_0000) } else { x }
}

/// Replaces any NaN by the canonical NaN of the device.
#[inline(always)]
pub(crate) fn canonical(x: f32) -> f32 {
    // Works on the bits, because the compiler may replace a NaN result of arithmetic by any other NaN.
    let bits = x.to_bits();
    f32::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fff_ffff } else { bits })
}

/// `.sat`: clamps to [0, 1]; NaN becomes 0.
#[inline(always)]
pub(crate) fn saturate(x: f32) -> f32 {
    if x > 0.0 { if x < 1.0 { x } else { 1.0 } } else { 0.0 }
}

/// `.ftz` and `.sat`.
#[derive(Clone, Copy)]
pub(crate) struct Finish {
    pub(crate) ftz: bool,
    pub(crate) sat: bool,
}

impl Finish {
    #[inline(always)]
    pub(crate) fn input(self, x: f32) -> f32 {
        if self.ftz { flush(x) } else { x }
    }

    #[inline(always)]
    pub(crate) fn output(self, x: f32) -> f32 {
        let x = if self.ftz { flush(x) } else { x };
        if self.sat { saturate(x) } else { canonical(x) }
    }

    pub(crate) fn plain(self) -> bool {
        !self.ftz && !self.sat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_conversions_agree_with_the_half_crate() {
        for bits in 0..=u16::MAX {
            let h = f16::from_bits(bits);
            if !h.is_nan() {
                assert_eq!(half_value(h).to_bits(), f32::from(h).to_bits());
                assert_eq!(half_bits(half_value(h)), h);
            }
        }
        let mut x = 12345u32;
        for _ in 0..200_000 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let v = f32::from_bits(x);
            if !v.is_nan() {
                assert_eq!(half_bits(v).to_bits(), f16::from_f32_const(v).to_bits(), "{v:e}");
                assert_eq!(narrow::<f16>(f64::from(v), Rounding::Nearest).to_bits(), half_bits(v).to_bits());
                assert_eq!(brain_bits(v), bf16::from_f32(v));
                assert_eq!(narrow::<bf16>(f64::from(v), Rounding::Nearest), brain_bits(v), "{v:e}");
            }
        }
    }

    #[test]
    fn narrow_fma_agrees_with_the_processor() {
        let mut x = 1u64;
        let mut next = || {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f32::from_bits((x >> 32) as u32)
        };
        for _ in 0..200_000 {
            let (a, b, c) = (next(), next(), next());
            let expected = canonical(a.mul_add(b, c));
            assert_eq!(narrow_fma(a, b, c, Rounding::Nearest).to_bits(), expected.to_bits());
            assert_eq!(narrow_quotient(a, b, Rounding::Nearest).to_bits(), canonical(a / b).to_bits());
            assert_eq!(narrow_root(a, Rounding::Nearest).to_bits(), canonical(a.sqrt()).to_bits());
        }
    }
}
