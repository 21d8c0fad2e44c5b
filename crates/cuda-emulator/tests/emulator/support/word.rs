//! Register contents: conversion between Rust values and the bits of a PTX register, edge values, and expected results.

use half::{bf16, f16};

/// Register widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Pred,
    B16,
    B32,
    B64,
}

impl Width {
    pub(crate) fn register(self) -> &'static str {
        match self {
            Width::Pred => ".pred",
            Width::B16 => ".b16",
            Width::B32 => ".b32",
            Width::B64 => ".b64",
        }
    }
}

/// The expected contents of a result register.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Expect {
    Bits(u64),
    /// Any NaN of the format: PTX does not specify the payload in most cases.
    NanF16,
    NanBf16,
    NanF32,
    NanF64,
    /// A single-precision number in this closed range.
    F32(f32, f32),
    F64(f64, f64),
    /// Each half of the register separately.
    Halves(HalfExpect, HalfExpect),
}

/// One half of a packed register.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum HalfExpect {
    Bits(u16),
    NanF16,
    NanBf16,
}

impl HalfExpect {
    fn holds(self, got: u16) -> bool {
        match self {
            HalfExpect::Bits(bits) => bits == got,
            HalfExpect::NanF16 => f16::from_bits(got).is_nan(),
            HalfExpect::NanBf16 => bf16::from_bits(got).is_nan(),
        }
    }
}

impl Expect {
    pub(crate) fn holds(self, got: u64) -> bool {
        match self {
            Expect::Bits(bits) => bits == got,
            Expect::NanF16 => got >> 16 == 0 && f16::from_bits(got as u16).is_nan(),
            Expect::NanBf16 => got >> 16 == 0 && bf16::from_bits(got as u16).is_nan(),
            Expect::NanF32 => got >> 32 == 0 && f32::from_bits(got as u32).is_nan(),
            Expect::NanF64 => f64::from_bits(got).is_nan(),
            Expect::F32(low, high) => got >> 32 == 0 && (low..=high).contains(&f32::from_bits(got as u32)),
            Expect::F64(low, high) => (low..=high).contains(&f64::from_bits(got)),
            Expect::Halves(low, high) => {
                got >> 32 == 0 && low.holds(got as u16) && high.holds((got >> 16) as u16)
            }
        }
    }
}

/// A value that fits into one register.
pub(crate) trait Word: Copy + 'static {
    const WIDTH: Width;
    fn bits(self) -> u64;
    fn from_bits(bits: u64) -> Self;
    /// Values at which the behaviour of instructions changes.
    fn edges() -> Vec<Self>;
}

/// A result an oracle may return.
pub(crate) trait Outcome {
    const RESULT: Width;
    fn expect(self) -> Expect;
}

macro_rules! integer_word {
    ($($type:ty, $unsigned:ty, $width:ident, [$($edge:expr),*];)*) => {$(
        impl Word for $type {
            const WIDTH: Width = Width::$width;
            fn bits(self) -> u64 { u64::from(self as $unsigned) }
            fn from_bits(bits: u64) -> Self { bits as Self }
            fn edges() -> Vec<Self> {
                let mut edges = vec![0, 1, 2, 3, 7, 100, Self::MAX, Self::MAX - 1, Self::MIN, Self::MIN + 1, (0 as $type).wrapping_sub(1)];
                edges.extend([$($edge as $type),*]);
                edges
            }
        }
        impl Outcome for $type {
            const RESULT: Width = Width::$width;
            fn expect(self) -> Expect { Expect::Bits(self.bits()) }
        }
    )*};
}

integer_word! {
    u16, u16, B16, [0x00ffu16, 0x8000u16, 0x5a3cu16, 12345u16];
    i16, u16, B16, [-2i16, 0x00ffi16, 12345i16, -12345i16];
    u32, u32, B32, [31u32, 32u32, 33u32, 0x00ff_00ffu32, 0x8000_0000u32, 0x1234_5678u32, 0xdead_beefu32, 65536u32];
    i32, u32, B32, [-2i32, -32i32, 65536i32, 0x1234_5678i32, -1_000_003i32];
    u64, u64, B64, [63u64, 64u64, 65u64, 0xffff_ffffu64, 1u64 << 32, 1u64 << 63, 0x0123_4567_89ab_cdefu64, 0xdead_beef_0bad_f00du64];
    i64, u64, B64, [-2i64, -64i64, 0xffff_ffffi64, 1i64 << 32, -(1i64 << 32), 0x0123_4567_89ab_cdefi64];
}

macro_rules! float_word {
    ($($type:ty, $width:ident, $nan:ident, $from:expr, $tiny:expr;)*) => {$(
        impl Word for $type {
            const WIDTH: Width = Width::$width;
            fn bits(self) -> u64 { u64::from(self.to_bits()) }
            fn from_bits(bits: u64) -> Self { <$type>::from_bits(bits as _) }
            fn edges() -> Vec<Self> {
                let from: fn(f64) -> $type = $from;
                let mut edges: Vec<$type> =
                    [0.0, 1.0, 1.5, 2.0, 3.0, 0.1, 1.0 / 3.0, 100.7, 8191.5, f64::INFINITY].into_iter().map(from).collect();
                edges.extend([<$type>::MAX, <$type>::MIN_POSITIVE, <$type>::EPSILON, <$type>::NAN]);
                edges.extend($tiny.map(|bits| <$type>::from_bits(bits)));
                let negative: Vec<$type> = edges.iter().map(|&x| -x).collect();
                edges.extend(negative);
                edges
            }
        }
        impl Outcome for $type {
            const RESULT: Width = Width::$width;
            fn expect(self) -> Expect {
                if self.is_nan() { Expect::$nan } else { Expect::Bits(self.bits()) }
            }
        }
    )*};
}

float_word! {
    f16, B16, NanF16, f16::from_f64, [0x0001u16, 0x03ff, 0x3c01];
    bf16, B16, NanBf16, bf16::from_f64, [0x0001u16, 0x007f, 0x3f81];
    f32, B32, NanF32, |x| x as f32, [0x0000_0001u32, 0x007f_ffff, 0x3f80_0001, 0x4b00_0001];
    f64, B64, NanF64, |x| x, [1u64, 0x000f_ffff_ffff_ffff, 0x3ff0_0000_0000_0001, 0x3ff0_0000_1000_0000];
}

impl Word for bool {
    const WIDTH: Width = Width::Pred;
    fn bits(self) -> u64 {
        u64::from(self)
    }
    fn from_bits(bits: u64) -> Self {
        bits != 0
    }
    fn edges() -> Vec<Self> {
        vec![false, true]
    }
}

impl Outcome for bool {
    const RESULT: Width = Width::Pred;
    fn expect(self) -> Expect {
        Expect::Bits(u64::from(self))
    }
}

/// Two 16-bit values in one register, the first in the low half.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pair<T>(pub(crate) T, pub(crate) T);

/// A 16-bit element type of packed pairs.
pub(crate) trait HalfWord: Word {
    fn expect_half(self) -> HalfExpect;
}

macro_rules! half_word {
    ($($type:ty, $nan:ident;)*) => {$(
        impl HalfWord for $type {
            fn expect_half(self) -> HalfExpect {
                if self.is_nan() { HalfExpect::$nan } else { HalfExpect::Bits(self.to_bits()) }
            }
        }
    )*};
}

half_word! {
    f16, NanF16;
    bf16, NanBf16;
}

impl<T: HalfWord> Word for Pair<T> {
    const WIDTH: Width = Width::B32;
    fn bits(self) -> u64 {
        self.0.bits() | self.1.bits() << 16
    }
    fn from_bits(bits: u64) -> Self {
        Pair(T::from_bits(bits & 0xffff), T::from_bits(bits >> 16 & 0xffff))
    }
    /// Each edge value once in either half, paired with another edge value.
    fn edges() -> Vec<Self> {
        let edges = T::edges();
        (0..edges.len()).map(|i| Pair(edges[i], edges[(i * 7 + 3) % edges.len()])).collect()
    }
}

impl<T: HalfWord> Outcome for Pair<T> {
    const RESULT: Width = Width::B32;
    fn expect(self) -> Expect {
        Expect::Halves(self.0.expect_half(), self.1.expect_half())
    }
}
