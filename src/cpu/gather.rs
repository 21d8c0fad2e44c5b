//! Weighted sums of rows from anywhere in memory, kept in registers.

use crate::cpu::vector::{LANES, Lanes};

/// `out = Σ weight·row`, where `row(k)` gives the `k`-th weight and row, as wide as `out`. Every sum is taken in the
/// order of `k`. Rows that are too wide for the registers are read in several passes.
#[inline(always)]
pub(super) fn sum_rows<'a, L: Lanes>(
    l: L,
    count: usize,
    row: impl Fn(usize) -> (f32, &'a [f32]),
    out: &mut [f32],
) {
    let width = out.len();
    if width < LANES {
        out.fill(0.0);
        for (weight, row) in (0..count).map(row) {
            out.iter_mut().zip(row).for_each(|(out, value)| *out += weight * value);
        }
        return;
    }
    let mut start = 0;
    while start < width {
        // Where no whole vector is left, the last one again, shifted to the end: the same sums once more.
        start = start.min(width - LANES);
        start += match (width - start) / LANES * L::REGISTERS {
            8.. if L::REGISTERS == 1 => sum_columns::<L, 8>(l, count, &row, start, out),
            8.. if L::REGISTERS == 2 => sum_columns::<L, 4>(l, count, &row, start, out),
            4.. if L::REGISTERS == 1 => sum_columns::<L, 4>(l, count, &row, start, out),
            4.. if L::REGISTERS == 2 => sum_columns::<L, 2>(l, count, &row, start, out),
            2.. if L::REGISTERS == 1 => sum_columns::<L, 2>(l, count, &row, start, out),
            _ => sum_columns::<L, 1>(l, count, &row, start, out),
        };
    }
}

/// The sums of `V` vectors of columns, from column `start` on; returns how many columns that is.
#[inline(always)]
fn sum_columns<'a, L: Lanes, const V: usize>(
    l: L,
    count: usize,
    row: &impl Fn(usize) -> (f32, &'a [f32]),
    start: usize,
    out: &mut [f32],
) -> usize {
    let mut sums = [l.splat(0.0); V];
    for (weight, row) in (0..count).map(row) {
        let weight = l.splat(weight);
        let (row, _) = row[start..start + V * LANES].as_chunks::<LANES>();
        for v in 0..V {
            sums[v] = l.mul_add(weight, l.load(&row[v]), sums[v]);
        }
    }
    let (out, _) = out[start..start + V * LANES].as_chunks_mut::<LANES>();
    for v in 0..V {
        l.store(&mut out[v], sums[v]);
    }
    V * LANES
}
