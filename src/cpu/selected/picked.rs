//! Rows picked from anywhere in a matrix: their products with a row, and their weighted sum.

use crate::cpu::gather::{AHEAD, WeightedRows, sum_rows};
use crate::cpu::softmax::PART;
use crate::cpu::vector::{Lanes, add_lanes, dot_lanes, prefetch_parts};

/// The same columns of some rows.
#[derive(Clone, Copy)]
pub(super) struct Picked<'a> {
    pub(super) data: &'a [f32],
    /// The numbers of a row of the matrix.
    pub(super) stride: usize,
    /// The first column, and their number: at least one.
    pub(super) offset: usize,
    pub(super) width: usize,
    pub(super) rows: &'a [usize],
    /// Whether the rows are to be prefetched: those that were just written are in cache.
    pub(super) is_far: bool,
}

impl<'a> Picked<'a> {
    #[inline(always)]
    fn row(&self, k: usize) -> &'a [f32] {
        let start = self.rows[k] * self.stride + self.offset;
        &self.data[start..start + self.width]
    }

    /// Prefetches the [`AHEAD`] rows from the `first` on.
    #[inline(always)]
    pub(super) fn prefetch(&self, first: usize) {
        if self.is_far {
            let end = self.rows.len().min(first + AHEAD);
            let rows = self.rows[first.min(end)..end].iter().copied();
            let data = self.data.get(self.offset..).unwrap_or_default();
            prefetch_parts(data, self.stride, self.width, rows);
        }
    }

    /// `out[k] = ⟨row k, with⟩`.
    #[inline(always)]
    pub(super) fn products<L: Lanes>(&self, l: L, with: &[f32], out: &mut Vec<f32>) {
        out.clear();
        for first in (0..self.rows.len()).step_by(AHEAD) {
            self.prefetch(first + AHEAD);
            for k in first..self.rows.len().min(first + AHEAD) {
                out.push(dot_lanes(l, self.row(k), with));
            }
        }
    }

    /// `out = Σ weight·row`, by parts that are added up in order.
    #[inline(always)]
    pub(super) fn weighted_sum<L: Lanes>(&self, l: L, weights: &[f32], part: &mut Vec<f32>, out: &mut [f32]) {
        let first = self.rows.len().min(PART);
        let rows = Weighted { picked: Picked { rows: &self.rows[..first], ..*self }, weights };
        sum_rows(l, first, &rows, out);
        for (rows, weights) in self.rows.chunks(PART).zip(weights.chunks(PART)).skip(1) {
            part.clear();
            part.resize(out.len(), 0.0);
            let rows = Weighted { picked: Picked { rows, ..*self }, weights };
            sum_rows(l, weights.len(), &rows, part);
            add_lanes(l, out, part);
        }
    }
}

/// Rows and their weights.
struct Weighted<'a> {
    picked: Picked<'a>,
    weights: &'a [f32],
}

impl WeightedRows for Weighted<'_> {
    #[inline(always)]
    fn get(&self, k: usize) -> (f32, &[f32]) {
        (self.weights[k], self.picked.row(k))
    }

    #[inline(always)]
    fn prefetch(&self, k: usize) {
        self.picked.prefetch(k);
    }
}
