//! The matrix products of the kernels. Two multiply rows in memory with sixteen lanes (candidates or behaviours), one gives rows
//! again. All keep a tile of sums in registers: every number of a row is broadcast, every vector is loaded once per tile.

use std::array;

use super::lanes::{LANES, Lanes, Row};

/// For each of the `count` rows of `rows`, `stride` apart, calls `each` with its index and
/// `Σ_j rows[i][j] · columns[j]`.
#[inline(always)]
pub(in crate::cpu) fn product<L: Lanes>(
    l: L,
    rows: &[f32],
    stride: usize,
    count: usize,
    columns: &[Row],
    mut each: impl FnMut(usize, L::V),
) {
    // The most rows for which the sums, the lanes and the broadcast fit in registers, and so do the row pointers.
    match L::REGISTERS {
        1 => tiles::<L, 8>(l, rows, stride, count, columns, &mut each),
        2 => tiles::<L, 6>(l, rows, stride, count, columns, &mut each),
        _ => tiles::<L, 3>(l, rows, stride, count, columns, &mut each),
    }
}

#[inline(always)]
fn tiles<L: Lanes, const R: usize>(
    l: L,
    rows: &[f32],
    stride: usize,
    count: usize,
    columns: &[Row],
    each: &mut impl FnMut(usize, L::V),
) {
    for first in (0..count).step_by(R) {
        // Past the last row, the last one is read again and its sums are dropped.
        let row: [&[f32]; R] =
            array::from_fn(|i| &rows[(first + i).min(count - 1) * stride..][..columns.len()]);
        let mut sums = [l.splat(0.0); R];
        for (j, column) in columns.iter().enumerate() {
            let column = l.load(column);
            for i in 0..R {
                sums[i] = l.mul_add(l.splat(row[i][j]), column, sums[i]);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            if first + i < count {
                each(first + i, sum);
            }
        }
    }
}

/// For each `j` below `width`, calls `each` with `j` and `Σ_i rows[i][j] · weights[i]`. The rows are `stride` apart.
#[inline(always)]
pub(in crate::cpu) fn weighted_sum<L: Lanes>(
    l: L,
    rows: &[f32],
    stride: usize,
    width: usize,
    weights: &[Row],
    mut each: impl FnMut(usize, L::V),
) {
    let mut j = match L::REGISTERS {
        1 => sums::<L, 16>(l, rows, stride, 0..width, weights, &mut each),
        2 => sums::<L, 6>(l, rows, stride, 0..width, weights, &mut each),
        _ => sums::<L, 3>(l, rows, stride, 0..width, weights, &mut each),
    };
    if L::REGISTERS < 4 {
        j = sums::<L, 4>(l, rows, stride, j..width, weights, &mut each);
    }
    sums::<L, 1>(l, rows, stride, j..width, weights, &mut each);
}

/// Computes the sums of all whole groups of `R` columns in `columns`; returns the first column that is left.
#[inline(always)]
fn sums<L: Lanes, const R: usize>(
    l: L,
    rows: &[f32],
    stride: usize,
    columns: std::ops::Range<usize>,
    weights: &[Row],
    each: &mut impl FnMut(usize, L::V),
) -> usize {
    let mut first = columns.start;
    while first + R <= columns.end {
        let mut sums = [l.splat(0.0); R];
        for (row, weight) in rows.chunks(stride).zip(weights) {
            let weight = l.load(weight);
            let row: &[f32; R] = row[first..first + R].try_into().expect("R numbers");
            for i in 0..R {
                sums[i] = l.mul_add(l.splat(row[i]), weight, sums[i]);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            each(first + i, sum);
        }
        first += R;
    }
    first
}

/// For each row of `factors` and each vector of a row of `others`, `[n, vectors]`, calls `each` with the row, the vector's index
/// and `Σ_lane factors[row][lane] · others[lane][vector]` over the `n` lanes.
#[inline(always)]
pub(in crate::cpu) fn product_of_lanes<L: Lanes>(
    l: L,
    factors: &[Row],
    (others, vectors): (&[Row], usize),
    mut each: impl FnMut(usize, usize, L::V),
) {
    match L::REGISTERS {
        1 => lanes::<L, 8>(l, factors, (others, vectors), &mut each),
        2 => lanes::<L, 6>(l, factors, (others, vectors), &mut each),
        _ => lanes::<L, 3>(l, factors, (others, vectors), &mut each),
    }
}

#[inline(always)]
fn lanes<L: Lanes, const R: usize>(
    l: L,
    factors: &[Row],
    (others, vectors): (&[Row], usize),
    each: &mut impl FnMut(usize, usize, L::V),
) {
    let (tiles, last) = factors.as_chunks::<R>();
    for (tile, factors) in tiles.iter().enumerate() {
        for vector in 0..vectors {
            let sums = sums_of_lanes::<L, R>(l, factors, (others, vectors), vector);
            for (i, sum) in sums.into_iter().enumerate() {
                each(tile * R + i, vector, sum);
            }
        }
    }
    if last.is_empty() {
        return;
    }
    // Past the last row there are zeros, whose sums are dropped.
    let factors: [Row; R] = array::from_fn(|i| last.get(i).copied().unwrap_or([0.0; LANES]));
    for vector in 0..vectors {
        let sums = sums_of_lanes::<L, R>(l, &factors, (others, vectors), vector);
        for (i, sum) in sums.into_iter().enumerate().take(last.len()) {
            each(tiles.len() * R + i, vector, sum);
        }
    }
}

#[inline(always)]
fn sums_of_lanes<L: Lanes, const R: usize>(
    l: L,
    factors: &[Row; R],
    (others, vectors): (&[Row], usize),
    vector: usize,
) -> [L::V; R] {
    let mut sums = [l.splat(0.0); R];
    for (lane, other) in others[vector..].iter().step_by(vectors).take(LANES).enumerate() {
        let other = l.load(other);
        for i in 0..R {
            sums[i] = l.mul_add(l.splat(factors[i][lane]), other, sums[i]);
        }
    }
    sums
}
