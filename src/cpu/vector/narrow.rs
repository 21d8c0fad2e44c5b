//! Rounding `f32` rows to a storage type, many numbers at a time.

use std::ops::Range;

use half::{bf16, f16};

use super::lanes::Lanes;
use super::prefetch::prefetch_rows;
use super::widen::widen_to;
use crate::element::{DType, Element};

/// Rows of a storage type, to be written from `f32`. A kernel that takes this instead of a type parameter is compiled once.
pub(in crate::cpu) enum NarrowRows<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
    Bf16(&'a mut [bf16]),
}

impl<'a> NarrowRows<'a> {
    pub(in crate::cpu) fn new<T: Element>(rows: &'a mut [T]) -> Self {
        match T::DTYPE {
            DType::F32 => Self::F32(bytemuck::cast_slice_mut(rows)),
            DType::F16 => Self::F16(bytemuck::cast_slice_mut(rows)),
            DType::Bf16 => Self::Bf16(bytemuck::cast_slice_mut(rows)),
        }
    }

    /// Splits off the first `count` elements.
    pub(in crate::cpu) fn split_off(&mut self, count: usize) -> Self {
        fn cut<'a, T>(rows: &mut &'a mut [T], count: usize) -> &'a mut [T] {
            let (head, tail) = std::mem::take(rows).split_at_mut(count);
            *rows = tail;
            head
        }
        match self {
            Self::F32(rows) => Self::F32(cut(rows, count)),
            Self::F16(rows) => Self::F16(cut(rows, count)),
            Self::Bf16(rows) => Self::Bf16(cut(rows, count)),
        }
    }

    /// Splits into spans of `lengths` rows of `width`. Rows after the last span belong to no user and are left out.
    pub(in crate::cpu) fn split(mut self, lengths: impl Iterator<Item = usize>, width: usize) -> Vec<Self> {
        lengths.map(|length| self.split_off(length * width)).collect()
    }

    /// Sets all elements to zero.
    pub(in crate::cpu) fn clear(&mut self) {
        match self {
            Self::F32(rows) => rows.fill(0.0),
            Self::F16(rows) => rows.fill(f16::ZERO),
            Self::Bf16(rows) => rows.fill(bf16::ZERO),
        }
    }

    /// Reads some elements, with the instructions of the lanes.
    #[inline(always)]
    pub(in crate::cpu) fn read<L: Lanes>(&self, l: L, range: Range<usize>, out: &mut [f32]) {
        match self {
            Self::F32(rows) => widen_to(l, &rows[range], out),
            Self::F16(rows) => widen_to(l, &rows[range], out),
            Self::Bf16(rows) => widen_to(l, &rows[range], out),
        }
    }

    /// Prefetches rows of `width` elements.
    #[inline(always)]
    pub(in crate::cpu) fn prefetch(&self, width: usize, indices: impl Iterator<Item = usize>) {
        match self {
            Self::F32(rows) => prefetch_rows(rows, width, indices),
            Self::F16(rows) => prefetch_rows(rows, width, indices),
            Self::Bf16(rows) => prefetch_rows(rows, width, indices),
        }
    }

    /// Writes numbers from element `start` on, rounded to the nearest, ties to even. Takes the lanes so that it is compiled
    /// with their instructions.
    #[inline(always)]
    pub(in crate::cpu) fn write<L: Lanes>(&mut self, _: L, start: usize, numbers: &[f32]) {
        let end = start + numbers.len();
        match self {
            Self::F32(rows) => rows[start..end].copy_from_slice(numbers),
            Self::F16(rows) => {
                let rows = rows[start..end].iter_mut();
                rows.zip(numbers).for_each(|(out, &number)| *out = narrow_f16(number));
            }
            Self::Bf16(rows) => {
                let rows = rows[start..end].iter_mut();
                rows.zip(numbers).for_each(|(out, &number)| *out = narrow_bf16(number));
            }
        }
    }
}

/// The bits of a quiet NaN of both 16-bit types, without a sign.
const NAN: u32 = 0x7fff;

#[inline(always)]
fn narrow_bf16(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let bits = if x.is_nan() { bits >> 16 | NAN } else { rounded };
    bf16::from_bits(bits as u16)
}

/// Without branches, so that it compiles to vector instructions. The exponent's bias differs by 112. Adding 1/2 to a number
/// below `2⁻¹⁴` rounds it to a multiple of `2⁻²⁴`, the step of subnormal `f16`, and leaves the multiple in the lowest bits.
#[inline(always)]
fn narrow_f16(x: f32) -> f16 {
    const LEAST_NORMAL: u32 = (127 - 14) << 23;
    /// Halfway between the largest number and the next power of two: from here on, rounds to infinity.
    const INFINITE: u32 = 0x477f_f000;
    let (sign, magnitude) = (x.to_bits() >> 16 & 0x8000, x.to_bits() & 0x7fff_ffff);
    let normal = magnitude.wrapping_add(0xfff + (magnitude >> 13 & 1)).wrapping_sub(112 << 23) >> 13;
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let finite = if magnitude < LEAST_NORMAL { subnormal } else { normal };
    let number = if magnitude >= INFINITE { 0x7c00 } else { finite };
    f16::from_bits((sign | if x.is_nan() { NAN } else { number }) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_as_half_does() {
        let all = (0..=u32::MAX).step_by(if cfg!(target_arch = "aarch64") { 9973 } else { 401 });
        // Around every number of both types, and halfway between.
        let near = |bits: u32| [-1i32, 0, 1].map(|step| bits.wrapping_add_signed(step));
        let halves = (0..=u16::MAX).flat_map(|bits| {
            let half = f16::from_bits(bits).to_f32().to_bits();
            let brain = u32::from(bits) << 16;
            [half, half.wrapping_add(1 << 12), brain, brain | 1 << 15].into_iter().flat_map(near)
        });
        for x in all.chain(halves).map(f32::from_bits) {
            let (half, brain) = (f16::from_f32(x), bf16::from_f32(x));
            let (got_half, got_brain) = (narrow_f16(x), narrow_bf16(x));
            if x.is_nan() {
                assert!(got_half.is_nan() && got_brain.is_nan(), "{x:e}");
            } else {
                assert_eq!(
                    (got_half.to_bits(), got_brain.to_bits()),
                    (half.to_bits(), brain.to_bits()),
                    "{x:e}"
                );
            }
        }
    }
}
