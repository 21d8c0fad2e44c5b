//! The element types of buffers.

use bytemuck::Pod;
pub use half::{bf16, f16};

mod sealed {
    pub trait Sealed {}
}
use sealed::Sealed;

/// A storage type for keys, values, weights and outputs, at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit IEEE 754.
    F32,
    /// 16-bit IEEE 754: 11 significant bits, up to 65,504.
    F16,
    /// bfloat16, the upper half of an `f32`: 8 significant bits, the range of `f32`.
    Bf16,
}

/// A type that a buffer may hold: `f32`, `f16`, `bf16`, `u8`, `u16`, `u32` or `i8`.
pub trait Scalar: Sealed + Pod + Send + Sync + std::fmt::Debug + PartialEq {
    /// The Rust name of the type, for error messages.
    const NAME: &'static str;
}

/// A floating-point storage type. Arithmetic is always done in `f32` or wider.
pub trait Element: Scalar {
    /// The same type as a run-time value.
    const DTYPE: DType;
    /// Widens exactly.
    fn to_f32(self) -> f32;
    /// Rounds to the nearest, ties to even.
    fn from_f32(value: f32) -> Self;
}

/// A type in which a backward pass may write the gradient of something stored as `T`: `T` itself, or `f32`, which mixed-precision
/// training needs.
pub trait GradientOf<T: Element>: Element {}

impl<T: Element> GradientOf<T> for f32 {}
impl GradientOf<f16> for f16 {}
impl GradientOf<bf16> for bf16 {}

/// A storage type for SDIM signatures: `u8` for at most 8 bits per group, `u16` for at most 16.
pub trait Signature: Scalar {
    /// The number of bits that fit.
    const BITS: usize;
    /// Widens exactly.
    fn to_u32(self) -> u32;
    /// Truncates to the lower bits.
    fn from_u32(value: u32) -> Self;
}

macro_rules! scalar {
    ($($type:ident)*) => {$(
        impl Sealed for $type {}
        impl Scalar for $type {
            const NAME: &'static str = stringify!($type);
        }
    )*};
}
scalar!(f32 f16 bf16 u8 u16 u32 i8);

impl Element for f32 {
    const DTYPE: DType = DType::F32;
    fn to_f32(self) -> f32 {
        self
    }
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Element for f16 {
    const DTYPE: DType = DType::F16;
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }
}

impl Element for bf16 {
    const DTYPE: DType = DType::Bf16;
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }
}

impl Signature for u8 {
    const BITS: usize = 8;
    fn to_u32(self) -> u32 {
        self.into()
    }
    fn from_u32(value: u32) -> Self {
        value as u8
    }
}

impl Signature for u16 {
    const BITS: usize = 16;
    fn to_u32(self) -> u32 {
        self.into()
    }
    fn from_u32(value: u32) -> Self {
        value as u16
    }
}
