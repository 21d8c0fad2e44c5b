//! Sums of products of bytes and counts of bits, where AVX-512 has instructions of its own for them (VNNI, VPOPCNTDQ: since Ice Lake
//! and Zen 4). pulp does not have these; each call works on a whole block of rows, because such a function is not inlined.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::lanes::{Integers, Lanes};

/// What shows that the instructions are there. (Elsewhere nothing can.)
#[cfg(target_arch = "x86_64")]
type Proof = ();
#[cfg(not(target_arch = "x86_64"))]
type Proof = std::convert::Infallible;

/// Products of 8-bit codes, four at a time. A row's codes are stored with 128 added, as bytes without sign.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct ByteProducts(Proof);

impl ByteProducts {
    /// Where kernels use AVX-512 and the processor has VNNI.
    pub(in crate::cpu) fn of<L: Lanes>(_: L) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if L::REGISTERS == 1
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
        {
            return Some(Self(()));
        }
        None
    }

    /// Stores rows of codes as `[rows, ⌈width/4⌉]`, and the square of the length of each, exactly.
    pub(in crate::cpu) fn read(self, codes: &[i8], width: usize, out: &mut [i32], squares: &mut [i32]) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `self` is made where the processor has the instructions.
        unsafe {
            read_rows(codes, width, out, squares);
        }
        #[cfg(not(target_arch = "x86_64"))]
        match (self.0, codes, width, out, squares) {}
    }

    /// What a lane's sums start with, so that they are those of codes without the 128 that is added to a row's.
    pub(in crate::cpu) fn correction(self, codes: &[i8]) -> i32 {
        -128 * codes.iter().map(|&code| i32::from(code)).sum::<i32>()
    }

    /// For each of the first rows as [`read`](Self::read) stores them, as many as there are results: per lane, `Σ_j row[j] · column[j]`
    /// over the codes, four to a column.
    pub(in crate::cpu) fn products(
        self,
        rows: &[i32],
        columns: &[Integers],
        corrections: &Integers,
        out: &mut [Integers],
    ) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `self` is made where the processor has the instructions.
        unsafe {
            byte_products(rows, columns, corrections, out);
        }
        #[cfg(not(target_arch = "x86_64"))]
        match (self.0, rows, columns, corrections, out) {}
    }
}

/// Counts of bits.
#[derive(Clone, Copy)]
pub(super) struct BitCounts(Proof);

impl BitCounts {
    /// Where kernels use AVX-512 and the processor has VPOPCNTDQ.
    pub(super) fn of<L: Lanes>(_: L) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if L::REGISTERS == 1
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vpopcntdq")
        {
            return Some(Self(()));
        }
        None
    }

    /// As [`differing_bits`](super::differing_bits).
    pub(super) fn differing(self, rows: &[i32], columns: &[Integers], out: &mut [Integers]) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `self` is made where the processor has the instructions.
        unsafe {
            differing_bits(rows, columns, out);
        }
        #[cfg(not(target_arch = "x86_64"))]
        match (self.0, rows, columns, out) {}
    }
}

/// Rows that are computed together: enough sums that do not wait for each other.
#[cfg(target_arch = "x86_64")]
const ROWS: usize = 8;

/// The first rows from `first` on; past the last of `count` rows, the last one again, whose sums are dropped.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn tile(rows: &[i32], width: usize, first: usize, count: usize) -> [&[i32]; ROWS] {
    std::array::from_fn(|i| &rows[(first + i).min(count - 1) * width..][..width])
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn read_rows(codes: &[i8], width: usize, out: &mut [i32], squares: &mut [i32]) {
    let out = out.chunks_exact_mut(width.div_ceil(4));
    for ((codes, out), square) in codes.chunks_exact(width).zip(out).zip(squares) {
        let (whole, rest) = codes.as_chunks::<64>();
        let (whole_out, rest_out) = bytemuck::cast_slice_mut::<i32, u8>(out).as_chunks_mut::<64>();
        let mut sums = [_mm512_setzero_si512(); 2];
        for (codes, out) in whole.iter().zip(&mut *whole_out) {
            *out = add_squares(codes, &mut sums);
        }
        if !rest.is_empty() {
            let mut codes = [0; 64];
            codes[..rest.len()].copy_from_slice(rest);
            let stored = add_squares(&codes, &mut sums);
            // Of an odd width the last bytes are multiplied with zeros.
            let bytes = rest.len().next_multiple_of(4);
            if bytes == 64 {
                whole_out[whole.len()] = stored;
            } else {
                rest_out[..bytes].copy_from_slice(&stored[..bytes]);
            }
        }
        *square = _mm512_reduce_add_epi32(_mm512_sub_epi32(sums[0], sums[1]));
    }
}

/// Stores codes with 128 added, and adds their squares: the difference of both sums.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_squares(codes: &[i8; 64], sums: &mut [__m512i; 2]) -> [u8; 64] {
    let codes: __m512i = bytemuck::cast(*codes);
    let added = _mm512_set1_epi8(i8::MIN);
    let bytes = _mm512_xor_si512(codes, added);
    sums[0] = _mm512_dpbusd_epi32(sums[0], bytes, codes);
    sums[1] = _mm512_dpbusd_epi32(sums[1], added, codes);
    bytemuck::cast(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn byte_products(rows: &[i32], columns: &[Integers], corrections: &Integers, out: &mut [Integers]) {
    let count = out.len();
    for first in (0..count).step_by(ROWS) {
        let row = tile(rows, columns.len(), first, count);
        let mut sums = [bytemuck::cast::<_, __m512i>(*corrections); ROWS];
        for (j, column) in columns.iter().enumerate() {
            let column = bytemuck::cast(*column);
            for i in 0..ROWS {
                sums[i] = _mm512_dpbusd_epi32(sums[i], _mm512_set1_epi32(row[i][j]), column);
            }
        }
        for (out, sum) in out[first..].iter_mut().zip(sums) {
            *out = bytemuck::cast(sum);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vpopcntdq")]
fn differing_bits(rows: &[i32], columns: &[Integers], out: &mut [Integers]) {
    let count = out.len();
    for first in (0..count).step_by(ROWS) {
        let row = tile(rows, columns.len(), first, count);
        let mut sums = [_mm512_setzero_si512(); ROWS];
        for (j, column) in columns.iter().enumerate() {
            let column = bytemuck::cast(*column);
            for i in 0..ROWS {
                let differing = _mm512_xor_si512(_mm512_set1_epi32(row[i][j]), column);
                sums[i] = _mm512_add_epi32(sums[i], _mm512_popcnt_epi32(differing));
            }
        }
        for (out, sum) in out[first..].iter_mut().zip(sums) {
            *out = bytemuck::cast(sum);
        }
    }
}
