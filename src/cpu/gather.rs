//! Weighted sums of rows gathered from anywhere in memory; the sums stay in registers.

use crate::cpu::vector::{LANES, Lanes};

/// Rows and their weights. (A trait instead of a closure, because every function of a kernel must be inlined.)
pub(super) trait WeightedRows {
    /// The `k`-th weight and row.
    fn get(&self, k: usize) -> (f32, &[f32]);

    /// Prefetches the [`AHEAD`] rows from the `k`-th on.
    fn prefetch(&self, k: usize);
}

/// The number of rows that are prefetched together; they are read after as many other rows.
pub(super) const AHEAD: usize = 32;

/// `out = Σ weight·row` over the first `count` rows, which are at least as wide as `out`. Each column is summed in the
/// order of the rows. Rows too wide for the registers are read in several passes.
#[inline(always)]
pub(super) fn sum_rows<L: Lanes, R: WeightedRows>(l: L, count: usize, rows: &R, out: &mut [f32]) {
    let width = out.len();
    if width < LANES {
        out.fill(0.0);
        for k in 0..count {
            let (weight, row) = rows.get(k);
            for (out, value) in out.iter_mut().zip(row) {
                *out += weight * value;
            }
        }
        return;
    }
    let mut start = 0;
    while start < width {
        // If less than a vector is left, redo the last whole vector, aligned to the end: it computes the same sums again.
        start = start.min(width - LANES);
        let vectors = (width - start) / LANES;
        start += match L::REGISTERS {
            1 if vectors >= 8 => sum_columns::<L, R, 8>(l, count, rows, start, out),
            1 | 2 if vectors >= 4 => sum_columns::<L, R, 4>(l, count, rows, start, out),
            _ if vectors >= 2 => sum_columns::<L, R, 2>(l, count, rows, start, out),
            _ => sum_columns::<L, R, 1>(l, count, rows, start, out),
        };
    }
}

/// Sums `V` vectors of columns from column `start` on; returns the number of columns.
#[inline(always)]
fn sum_columns<L: Lanes, R: WeightedRows, const V: usize>(
    l: L,
    count: usize,
    rows: &R,
    start: usize,
    out: &mut [f32],
) -> usize {
    let mut sums = [l.splat(0.0); V];
    for first in (0..count).step_by(AHEAD) {
        rows.prefetch(first + AHEAD);
        for k in first..count.min(first + AHEAD) {
            let (weight, row) = rows.get(k);
            let weight = l.splat(weight);
            let (row, _) = row[start..start + V * LANES].as_chunks::<LANES>();
            for v in 0..V {
                sums[v] = l.mul_add(weight, l.load(&row[v]), sums[v]);
            }
        }
    }
    let (out, _) = out[start..start + V * LANES].as_chunks_mut::<LANES>();
    for v in 0..V {
        l.store(&mut out[v], sums[v]);
    }
    V * LANES
}
