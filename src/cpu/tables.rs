//! Rows of embedding tables as `f32`. An id outside its table (impossible with `IdPolicy::Error`) reads zeros.

use crate::cpu::gather::{AHEAD, WeightedRows, sum_rows};
use crate::cpu::vector::{self, LANES, Lanes, dot_lanes, widen_to};
use crate::host::Host;
use crate::ops::{Table, TableData};

/// Reads row `id` into `out`.
#[inline(always)]
pub(super) fn read_row<L: Lanes>(l: L, table: &Table<'_, Host>, id: u32, out: &mut [f32]) {
    let id = id as usize;
    if id >= table.rows {
        return out.fill(0.0);
    }
    let range = id * table.width..(id + 1) * table.width;
    match &table.data {
        TableData::F32(data) => copy(l, &data[range], out),
        TableData::F16(data) => widen_to(l, &data[range], out),
        TableData::Bf16(data) => widen_to(l, &data[range], out),
        TableData::Int8 { codes, scale, offset } => {
            let (scale, offset) = (scale[id], offset[id]);
            for (out, &code) in out.iter_mut().zip(&codes[range]) {
                *out = scale * f32::from(code) + offset;
            }
        }
    }
}

/// Prefetches the rows that every `stride`-th id names.
#[inline(always)]
fn prefetch_ids(table: &Table<'_, Host>, ids: &[u32], stride: usize) {
    let (width, rows) = (table.width, ids.iter().step_by(stride).map(|&id| id as usize));
    match &table.data {
        TableData::F32(data) => vector::prefetch_rows(data, width, rows),
        TableData::F16(data) => vector::prefetch_rows(data, width, rows),
        TableData::Bf16(data) => vector::prefetch_rows(data, width, rows),
        TableData::Int8 { codes, scale, offset } => {
            vector::prefetch_rows(codes, width, rows.clone());
            vector::prefetch_rows(scale, 1, rows.clone());
            vector::prefetch_rows(offset, 1, rows);
        }
    }
}

/// The ids of up to [`AHEAD`] rows from the `k`-th on, `features` ids each.
#[inline(always)]
fn ids_from(ids: &[u32], k: usize, features: usize) -> &[u32] {
    let start = ids.len().min(k * features);
    &ids[start..ids.len().min(start + AHEAD * features)]
}

/// Reads `[R_1[ids[0]] ‖ R_2[ids[1]] ‖ …]` for each row of ids `[n, F]` into `out`.
#[inline(always)]
pub(super) fn read_rows<L: Lanes>(
    l: L,
    tables: &[Table<'_, Host>],
    ids: &[u32],
    out: &mut [f32],
    width: usize,
) {
    let mut start = 0;
    for (feature, table) in tables.iter().enumerate() {
        for (ids, out) in ids.chunks_exact(tables.len()).zip(out.chunks_exact_mut(width)) {
            read_row(l, table, ids[feature], &mut out[start..start + table.width]);
        }
        start += table.width;
    }
}

/// Prefetches the rows that ids `[n, F]` name.
#[inline(always)]
pub(super) fn prefetch_rows(tables: &[Table<'_, Host>], ids: &[u32]) {
    for (feature, table) in tables.iter().enumerate() {
        prefetch_ids(table, ids.get(feature..).unwrap_or_default(), tables.len());
    }
}

/// Computes `Σ weight·[R_1[ids[0]] ‖ R_2[ids[1]] ‖ …]` over the first `count` rows of ids `[n, F]`; without weights, the
/// sum. Ids after the first `count` rows, if any, are those of the next call, to prefetch.
#[inline(always)]
pub(super) fn pool<L: Lanes>(
    l: L,
    tables: &[Table<'_, Host>],
    ids: &[u32],
    count: usize,
    weights: Option<&[f32]>,
    scratch: &mut Vec<f32>,
    mut out: &mut [f32],
) {
    for (feature, table) in tables.iter().enumerate() {
        let (own, rest) = std::mem::take(&mut out).split_at_mut(table.width);
        out = rest;
        let ids = ids.get(feature..).unwrap_or_default();
        match &table.data {
            TableData::F32(data) => {
                scratch.clear();
                scratch.resize(table.width, 0.0);
                let rows = TableRows { table, data, ids, features: tables.len(), weights, zeros: scratch };
                sum_rows(l, count, &rows, own);
            }
            _ => pool_widened(l, table, ids, tables.len(), count, weights, scratch, own),
        }
    }
}

/// Adds `⟨[R_1[ids[0]] ‖ R_2[ids[1]] ‖ …], row⟩` to `out` for each row of ids `[n, F]`.
#[inline(always)]
pub(super) fn add_dots<L: Lanes>(
    l: L,
    tables: &[Table<'_, Host>],
    ids: &[u32],
    row: &[f32],
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    let (features, mut start) = (tables.len(), 0);
    for (feature, table) in tables.iter().enumerate() {
        let width = table.width;
        let own = &row[start..start + width];
        start += width;
        let ids = ids.get(feature..).unwrap_or_default();
        scratch.clear();
        scratch.resize(width, 0.0);
        for first in (0..out.len()).step_by(AHEAD) {
            let end = out.len().min(first + AHEAD);
            prefetch_ids(table, ids_from(ids, end, features), features);
            for (k, out) in (first..end).zip(&mut out[first..end]) {
                let id = ids[k * features];
                *out += match &table.data {
                    TableData::F32(data) if (id as usize) < table.rows => {
                        dot_lanes(l, &data[id as usize * width..][..width], own)
                    }
                    _ => {
                        read_row(l, table, id, scratch);
                        dot_lanes(l, scratch, own)
                    }
                };
            }
        }
    }
}

/// Rows of an `f32` table, read in place.
struct TableRows<'a> {
    table: &'a Table<'a, Host>,
    data: &'a [f32],
    ids: &'a [u32],
    features: usize,
    weights: Option<&'a [f32]>,
    zeros: &'a [f32],
}

impl WeightedRows for TableRows<'_> {
    #[inline(always)]
    fn get(&self, k: usize) -> (f32, &[f32]) {
        let id = self.ids[k * self.features] as usize;
        let width = self.table.width;
        let row = if id < self.table.rows { &self.data[id * width..(id + 1) * width] } else { self.zeros };
        (self.weights.map_or(1.0, |weights| weights[k]), row)
    }

    #[inline(always)]
    fn prefetch(&self, k: usize) {
        prefetch_ids(self.table, ids_from(self.ids, k, self.features), self.features);
    }
}

/// As [`pool`], for one table of another storage type: rows are widened into scratch first.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the arguments of `pool`, for one of the tables")]
fn pool_widened<L: Lanes>(
    l: L,
    table: &Table<'_, Host>,
    ids: &[u32],
    features: usize,
    count: usize,
    weights: Option<&[f32]>,
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    let width = table.width;
    scratch.clear();
    scratch.resize((AHEAD + 1) * width, 0.0);
    let (sums, rows) = scratch.split_at_mut(width);
    out.fill(0.0);
    for start in (0..count).step_by(AHEAD) {
        let block = start..count.min(start + AHEAD);
        prefetch_ids(table, ids_from(ids, block.end, features), features);
        for (k, row) in block.clone().zip(rows.chunks_exact_mut(width)) {
            read_row(l, table, ids[k * features], row);
        }
        let weights = weights.map(|weights| &weights[block.clone()]);
        sum_rows(l, block.len(), &WidenedRows { rows, width, weights }, sums);
        for (out, sum) in out.iter_mut().zip(&*sums) {
            *out += sum;
        }
    }
}

/// Rows widened into scratch.
struct WidenedRows<'a> {
    rows: &'a [f32],
    width: usize,
    weights: Option<&'a [f32]>,
}

impl WeightedRows for WidenedRows<'_> {
    #[inline(always)]
    fn get(&self, k: usize) -> (f32, &[f32]) {
        (self.weights.map_or(1.0, |weights| weights[k]), &self.rows[k * self.width..(k + 1) * self.width])
    }

    /// Nothing to do: the rows were just written.
    #[inline(always)]
    fn prefetch(&self, _: usize) {}
}

/// Copies a row. Not `copy_from_slice`, whose call costs more than copying a row.
#[inline(always)]
fn copy<L: Lanes>(l: L, from: &[f32], to: &mut [f32]) {
    let ((from, from_tail), (to, to_tail)) = (from.as_chunks::<LANES>(), to.as_chunks_mut::<LANES>());
    for (from, to) in from.iter().zip(to) {
        l.store(to, l.load(from));
    }
    for (from, to) in from_tail.iter().zip(to_tail) {
        *to = *from;
    }
}
