//! Rows picked from anywhere in a matrix: their products with a row, and their weighted sum.

use crate::cpu::gather::{AHEAD, WeightedRows, sum_rows};
use crate::cpu::softmax::PART;
use crate::cpu::vector::{Lanes, WideRows, add_lanes, dot_lanes, prefetch_parts, prefetch_rows};

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

/// Rows of all behaviours, of any storage type, and those of one candidate's.
pub(super) struct Side<'a> {
    rows: WideRows<'a>,
    /// The numbers of a behaviour's row.
    stride: usize,
    /// The candidate's rows as `f32`, unless they are so already.
    wide: Vec<f32>,
}

impl<'a> Side<'a> {
    pub(super) fn new(rows: WideRows<'a>, stride: usize) -> Self {
        Self { rows, stride, wide: Vec::new() }
    }

    /// Prefetches the rows of the first [`AHEAD`] behaviours.
    #[inline(always)]
    pub(super) fn prefetch(&self, behaviours: &[usize]) {
        let each = behaviours.iter().copied().take(AHEAD);
        match self.rows {
            WideRows::F32(rows) => prefetch_rows(rows, self.stride, each),
            WideRows::F16(rows) => prefetch_rows(rows, self.stride, each),
            WideRows::Bf16(rows) => prefetch_rows(rows, self.stride, each),
        }
    }

    /// Widens the behaviours' rows.
    #[inline(always)]
    pub(super) fn widen<L: Lanes>(&mut self, l: L, behaviours: &[usize]) {
        let stride = self.stride;
        self.wide.resize(behaviours.len() * stride, 0.0);
        for first in (0..behaviours.len()).step_by(AHEAD) {
            let end = behaviours.len().min(first + AHEAD);
            self.prefetch(&behaviours[end..]);
            let wide = &mut self.wide[first * stride..end * stride];
            for (&row, out) in behaviours[first..end].iter().zip(wide.chunks_exact_mut(stride)) {
                self.rows.widen_to(l, row * stride..(row + 1) * stride, out);
            }
        }
    }

    /// Columns of the rows in these places.
    #[inline(always)]
    pub(super) fn picked<'s>(&'s self, rows: &'s [usize], offset: usize, width: usize) -> Picked<'s> {
        let (data, is_far) = match self.rows {
            WideRows::F32(rows) => (rows, true),
            _ => (&self.wide[..], false),
        };
        Picked { data, stride: self.stride, offset, width, rows, is_far }
    }
}

/// Whole rows of a matrix.
pub(super) fn picked<'a>(data: &'a [f32], width: usize, rows: &'a [usize]) -> Picked<'a> {
    Picked { data, stride: width, offset: 0, width, rows, is_far: true }
}
