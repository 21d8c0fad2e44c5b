//! Widening `f16` and `bf16` to `f32`.

use std::ops::Range;

use half::{bf16, f16};

use super::lanes::Lanes;
use crate::element::{DType, Element};

/// The elements as `f32`: the slice itself if they are `f32`, otherwise widened into `scratch`. Takes the lanes so that it
/// is compiled with their instructions.
#[inline(always)]
fn widen_lanes<'a, L: Lanes, T: Element>(_: L, elements: &'a [T], scratch: &'a mut Vec<f32>) -> &'a [f32] {
    if T::DTYPE == DType::F32 {
        return bytemuck::cast_slice(elements);
    }
    scratch.clear();
    match T::DTYPE {
        DType::F16 => scratch.extend(bytemuck::cast_slice::<T, f16>(elements).iter().map(|&x| widen_f16(x))),
        _ => scratch.extend(bytemuck::cast_slice::<T, bf16>(elements).iter().map(|&x| widen_bf16(x))),
    }
    scratch
}

/// Elements of a storage type, to be read as `f32`. A kernel that takes this instead of a type parameter is compiled once, and
/// in this crate.
#[derive(Debug, Clone, Copy)]
pub(in crate::cpu) enum WideRows<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl<'a> WideRows<'a> {
    pub(in crate::cpu) fn new<T: Element>(elements: &'a [T]) -> Self {
        match T::DTYPE {
            DType::F32 => Self::F32(bytemuck::cast_slice(elements)),
            DType::F16 => Self::F16(bytemuck::cast_slice(elements)),
            DType::Bf16 => Self::Bf16(bytemuck::cast_slice(elements)),
        }
    }

    /// Some of the elements, as [`widen_lanes`] gives them.
    #[inline(always)]
    pub(in crate::cpu) fn widen<'s, L: Lanes>(
        &self,
        l: L,
        range: Range<usize>,
        scratch: &'s mut Vec<f32>,
    ) -> &'s [f32]
    where
        'a: 's,
    {
        match self {
            Self::F32(elements) => &elements[range],
            Self::F16(elements) => widen_lanes(l, &elements[range], scratch),
            Self::Bf16(elements) => widen_lanes(l, &elements[range], scratch),
        }
    }

    /// Writes some of the elements as `f32`, with the instructions of the lanes.
    #[inline(always)]
    pub(in crate::cpu) fn widen_to<L: Lanes>(&self, l: L, range: Range<usize>, out: &mut [f32]) {
        match self {
            Self::F32(elements) => widen_to(l, &elements[range], out),
            Self::F16(elements) => widen_to(l, &elements[range], out),
            Self::Bf16(elements) => widen_to(l, &elements[range], out),
        }
    }

    /// Some of the elements, for use outside of kernels.
    pub(in crate::cpu) fn to_vec(self, range: Range<usize>) -> Vec<f32> {
        match self {
            Self::F32(elements) => elements[range].to_vec(),
            Self::F16(elements) => elements[range].iter().map(|&x| widen_f16(x)).collect(),
            Self::Bf16(elements) => elements[range].iter().map(|&x| widen_bf16(x)).collect(),
        }
    }
}

/// Writes the elements as `f32`, with the instructions of the lanes.
#[inline(always)]
pub(in crate::cpu) fn widen_to<L: Lanes, T: Element>(_: L, elements: &[T], out: &mut [f32]) {
    match T::DTYPE {
        DType::F32 => out.copy_from_slice(bytemuck::cast_slice(elements)),
        DType::F16 => {
            for (out, &x) in out.iter_mut().zip(bytemuck::cast_slice::<T, f16>(elements)) {
                *out = widen_f16(x);
            }
        }
        DType::Bf16 => {
            for (out, &x) in out.iter_mut().zip(bytemuck::cast_slice::<T, bf16>(elements)) {
                *out = widen_bf16(x);
            }
        }
    }
}

#[inline(always)]
fn widen_bf16(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// Without branches, so that it compiles to vector instructions. The shifted bits are a number that is too small by a
/// factor of 2¹¹², and multiplying by it is exact, for subnormals too. Infinity and NaN get all exponent bits set afterwards.
#[inline(always)]
fn widen_f16(x: f16) -> f32 {
    const SCALE: f32 = f32::from_bits((127 + 112) << 23);
    const INFINITY_READ_AS_NUMBER: f32 = 65536.0;
    let bits = u32::from(x.to_bits());
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * SCALE;
    let exponent = if magnitude >= INFINITY_READ_AS_NUMBER { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | exponent | (bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            for (got, exact) in [(widen_f16(half), half.to_f32()), (widen_bf16(brain), brain.to_f32())] {
                assert!(got.to_bits() == exact.to_bits() || got.is_nan() && exact.is_nan(), "{bits:#06x}");
            }
        }
    }
}
