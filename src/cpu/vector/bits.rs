//! Integer arithmetic on one register, for which instruction sets have instructions of their own.

#[cfg(target_arch = "x86_64")]
use std::any::Any;

use pulp::Simd;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};

/// `a₀·b₀ + a₁·b₁` of the two signed halves of each lane.
#[inline(always)]
pub(super) fn pair_products<S: Simd>(simd: S, a: S::u32s, b: S::u32s) -> S::u32s {
    #[cfg(target_arch = "x86_64")]
    {
        let simd: &dyn Any = &simd;
        if let Some(simd) = simd.downcast_ref::<V4>() {
            let products = simd.multiply_wrapping_add_adjacent_i16x32(bytemuck::cast(a), bytemuck::cast(b));
            return bytemuck::cast(products);
        }
        if let Some(simd) = simd.downcast_ref::<V3>() {
            let products = simd.multiply_wrapping_add_adjacent_i16x16(bytemuck::cast(a), bytemuck::cast(b));
            return bytemuck::cast(products);
        }
    }
    let _ = simd;
    let (mut sums, a, b) = (a, [a], [b]);
    let (a, b): (&[[i16; 2]], &[[i16; 2]]) = (bytemuck::cast_slice(&a), bytemuck::cast_slice(&b));
    let places: &mut [i32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut sums));
    for (sum, (a, b)) in places.iter_mut().zip(a.iter().zip(b)) {
        *sum = i32::from(a[0]) * i32::from(b[0]) + i32::from(a[1]) * i32::from(b[1]);
    }
    sums
}

/// For each byte the number of its bits that are 1.
#[inline(always)]
pub(super) fn count_in_bytes<S: Simd>(simd: S, x: S::u32s) -> S::u32s {
    #[cfg(target_arch = "x86_64")]
    {
        let nibbles = simd.splat_u32s(0x0f0f_0f0f);
        let (low, high) = (simd.and_u32s(x, nibbles), simd.and_u32s(shifted(simd, x, 4), nibbles));
        let any: &dyn Any = &simd;
        if let Some(v4) = any.downcast_ref::<V4>() {
            let table = bytemuck::cast([NIBBLES; 4]);
            let low = v4.avx512bw._mm512_shuffle_epi8(table, bytemuck::cast(low));
            let high = v4.avx512bw._mm512_shuffle_epi8(table, bytemuck::cast(high));
            return simd.add_u32s(bytemuck::cast(low), bytemuck::cast(high));
        }
        if let Some(v3) = any.downcast_ref::<V3>() {
            let table = bytemuck::cast([NIBBLES; 2]);
            let low = v3.avx2._mm256_shuffle_epi8(table, bytemuck::cast(low));
            let high = v3.avx2._mm256_shuffle_epi8(table, bytemuck::cast(high));
            return simd.add_u32s(bytemuck::cast(low), bytemuck::cast(high));
        }
    }
    // Counts of pairs, of nibbles, of bytes: Warren, "Hacker's Delight", 2nd ed., §5-1.
    let pairs = simd.sub_u32s(x, simd.and_u32s(shifted(simd, x, 1), simd.splat_u32s(0x5555_5555)));
    let in_pairs = simd.splat_u32s(0x3333_3333);
    let nibbles =
        simd.add_u32s(simd.and_u32s(pairs, in_pairs), simd.and_u32s(shifted(simd, pairs, 2), in_pairs));
    simd.and_u32s(simd.add_u32s(nibbles, shifted(simd, nibbles, 4)), simd.splat_u32s(0x0f0f_0f0f))
}

/// The number of bits of each number of four bits.
#[cfg(target_arch = "x86_64")]
const NIBBLES: [u8; 16] = [0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4];

/// The sum of the four bytes of each lane.
#[inline(always)]
pub(super) fn sum_of_bytes<S: Simd>(simd: S, x: S::u32s) -> S::u32s {
    let even = simd.splat_u32s(0x00ff_00ff);
    let pairs = simd.add_u32s(simd.and_u32s(x, even), simd.and_u32s(shifted(simd, x, 8), even));
    simd.add_u32s(simd.and_u32s(pairs, simd.splat_u32s(0xffff)), shifted(simd, pairs, 16))
}

#[inline(always)]
fn shifted<S: Simd>(simd: S, x: S::u32s, by: u32) -> S::u32s {
    simd.wrapping_dyn_shr_u32s(x, simd.splat_u32s(by))
}
