//! Products of 8-bit codes and differences of bits, for rows in memory against sixteen lanes, as in `product.rs`.

use std::array;

use super::bytes::BitCounts;
use super::lanes::{Integers, Lanes};

/// For each of the first rows of pairs of 16-bit integers, as many as there are results: per lane, `Σ_j row[j] · column[j]` over the
/// pairs, both of each.
#[inline(always)]
pub(in crate::cpu) fn pair_products<L: Lanes>(
    l: L,
    rows: &[i32],
    columns: &[Integers],
    out: &mut [Integers],
) {
    // As in `product`: the sums, the lanes and a broadcast fit in registers.
    match L::REGISTERS {
        1 => tiles::<L, 8>(l, rows, columns, out),
        2 => tiles::<L, 4>(l, rows, columns, out),
        _ => tiles::<L, 2>(l, rows, columns, out),
    }
}

#[inline(always)]
fn tiles<L: Lanes, const R: usize>(l: L, rows: &[i32], columns: &[Integers], out: &mut [Integers]) {
    let count = out.len();
    for first in (0..count).step_by(R) {
        // Past the last row, the last one is read again and its sums are dropped.
        let row: [&[i32]; R] =
            array::from_fn(|i| &rows[(first + i).min(count - 1) * columns.len()..][..columns.len()]);
        let mut sums = [l.splat_integer(0); R];
        for (j, column) in columns.iter().enumerate() {
            let column = l.load_integers(column);
            for i in 0..R {
                sums[i] = l.add_pair_products(l.splat_integer(row[i][j]), column, sums[i]);
            }
        }
        for (out, sum) in out[first..].iter_mut().zip(sums) {
            l.store_integers(out, sum);
        }
    }
}

/// The number of words whose differing bits, counted by bytes, a byte holds: 8 each.
const WORDS: usize = 31;

/// For each of the first rows of words, as many as there are results: per lane, the number of bits in which the row and the columns
/// differ.
#[inline(always)]
pub(in crate::cpu) fn differing_bits<L: Lanes>(
    l: L,
    rows: &[i32],
    columns: &[Integers],
    out: &mut [Integers],
) {
    if let Some(counts) = BitCounts::of(l) {
        return counts.differing(rows, columns, out);
    }
    const R: usize = 2;
    let count = out.len();
    for first in (0..count).step_by(R) {
        let row: [&[i32]; R] =
            array::from_fn(|i| &rows[(first + i).min(count - 1) * columns.len()..][..columns.len()]);
        let mut sums = [l.splat_integer(0); R];
        for start in (0..columns.len()).step_by(WORDS) {
            let end = columns.len().min(start + WORDS);
            let mut bytes = [l.splat_integer(0); R];
            for (j, column) in (start..end).zip(&columns[start..end]) {
                let column = l.load_integers(column);
                for i in 0..R {
                    bytes[i] = l.add_differing_bits(l.splat_integer(row[i][j]), column, bytes[i]);
                }
            }
            for i in 0..R {
                sums[i] = l.add_bytes(bytes[i], sums[i]);
            }
        }
        for (out, sum) in out[first..].iter_mut().zip(sums) {
            l.store_integers(out, sum);
        }
    }
}
