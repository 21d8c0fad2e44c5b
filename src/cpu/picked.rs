//! Rows picked from anywhere in a matrix: their products with a row, and their weighted sum.

use crate::cpu::gather::{AHEAD, WeightedRows, sum_rows};
use crate::cpu::softmax::PART;
use crate::cpu::tables;
use crate::cpu::vector::{Lanes, WideRows, add_lanes, dot_lanes, prefetch_parts, prefetch_rows};
use crate::host::Host;
use crate::ops::Table;

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

/// Where the rows of all behaviours are.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// Rows of any storage type.
    Rows(WideRows<'a>),
    /// Tables, and the ids of their rows that make a behaviour's, `[N, F]`.
    Tables(&'a [Table<'a, Host>], &'a [u32]),
}

impl Source<'_> {
    /// Whether rows can be read where they are.
    pub(super) fn is_in_place(&self) -> bool {
        matches!(self, Self::Rows(WideRows::F32(_)))
    }

    /// Prefetches the rows of some behaviours, of `width` numbers.
    #[inline(always)]
    fn prefetch(&self, behaviours: impl Iterator<Item = usize>, width: usize) {
        match *self {
            Self::Rows(WideRows::F32(rows)) => prefetch_rows(rows, width, behaviours),
            Self::Rows(WideRows::F16(rows)) => prefetch_rows(rows, width, behaviours),
            Self::Rows(WideRows::Bf16(rows)) => prefetch_rows(rows, width, behaviours),
            Self::Tables(tables, ids) => {
                for behaviour in behaviours {
                    tables::prefetch_rows(tables, ids_of(ids, tables, behaviour));
                }
            }
        }
    }

    /// Reads the row of a behaviour.
    #[inline(always)]
    fn read<L: Lanes>(&self, l: L, behaviour: usize, out: &mut [f32]) {
        let width = out.len();
        match *self {
            Self::Rows(rows) => rows.widen_to(l, behaviour * width..(behaviour + 1) * width, out),
            Self::Tables(tables, ids) => {
                tables::read_rows(l, tables, ids_of(ids, tables, behaviour), out, width);
            }
        }
    }
}

/// The ids of a behaviour's rows.
#[inline(always)]
fn ids_of<'a>(ids: &'a [u32], tables: &[Table<'_, Host>], behaviour: usize) -> &'a [u32] {
    &ids[behaviour * tables.len()..(behaviour + 1) * tables.len()]
}

/// Rows of all behaviours, and those of one candidate's.
pub(super) struct Side<'a> {
    source: Source<'a>,
    /// The numbers of a behaviour's row.
    stride: usize,
    /// Whether rows are read where they are, or else from here, where the candidate's are copied as `f32`.
    in_place: bool,
    wide: Vec<f32>,
}

impl<'a> Side<'a> {
    pub(super) fn new(source: Source<'a>, stride: usize, in_place: bool) -> Self {
        Self { source, stride, in_place, wide: Vec::new() }
    }

    /// Prefetches the rows of the first [`AHEAD`] behaviours.
    #[inline(always)]
    pub(super) fn prefetch(&self, behaviours: &[usize]) {
        self.source.prefetch(behaviours.iter().copied().take(AHEAD), self.stride);
    }

    /// Copies the behaviours' rows, as `f32`.
    #[inline(always)]
    pub(super) fn widen<L: Lanes>(&mut self, l: L, behaviours: &[usize]) {
        let stride = self.stride;
        self.wide.resize(behaviours.len() * stride, 0.0);
        for first in (0..behaviours.len()).step_by(AHEAD) {
            let end = behaviours.len().min(first + AHEAD);
            self.prefetch(&behaviours[end..]);
            let wide = &mut self.wide[first * stride..end * stride];
            for (&behaviour, out) in behaviours[first..end].iter().zip(wide.chunks_exact_mut(stride)) {
                self.source.read(l, behaviour, out);
            }
        }
    }

    /// Columns of the rows in these places.
    #[inline(always)]
    pub(super) fn picked<'s>(&'s self, rows: &'s [usize], offset: usize, width: usize) -> Picked<'s> {
        let (data, is_far) = match self.source {
            Source::Rows(WideRows::F32(rows)) if self.in_place => (rows, true),
            _ => (&self.wide[..], false),
        };
        Picked { data, stride: self.stride, offset, width, rows, is_far }
    }
}

/// Whole rows of a matrix.
pub(super) fn picked<'a>(data: &'a [f32], width: usize, rows: &'a [usize]) -> Picked<'a> {
    Picked { data, stride: width, offset: 0, width, rows, is_far: true }
}
