//! Sums of rows, each times a number that belongs to a slot: over the slots of a list, and over those that keep a behaviour.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::lookup::backward::sorted_runs;
use crate::webgpu::lookup::runs::{self, Heads, RUNS, Runs, WINDOW_SUMS};
use crate::webgpu::lookup::sort::{IdList, Sort, SortedBindings};
use crate::webgpu::params::{Params, params};
use crate::webgpu::selected::inputs::{PARTS, WEIGHTED_ROWS};
use crate::webgpu::selected::parts::{Parts, SLOTS, lanes};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;
use crate::webgpu::sum_parts::{Mode, Rows};

params! {
    /// Twin of the struct in shaders/selected/backward_queries.wgsl.
    struct SelectedQueriesParams {
        heads: u32,
        kv_heads: u32,
        top_k: u32,
        parts: u32,
        part: u32,
        value_width: u32,
        value_lanes: u32,
        values_base: u32,
        first_grad: u32,
        out_base: u32,
        scale: f32,
    }
}

params! {
    /// Twin of the struct in shaders/selected/gradient_windows.wgsl.
    struct SelectedWindowsParams {
        threads: u32,
        ids_base: u32,
        starts_base: u32,
        positions_base: u32,
        out_base: u32,
        width: u32,
        part_width: u32,
        dense: u32,
        heads: u32,
        group_heads: u32,
        top_k: u32,
        first_number: u32,
        rows_base: u32,
        first_column: u32,
        adds: u32,
        factor: f32,
    }
}

fn queries_kernel(keys: Format, slots: usize) -> Kernel {
    Kernel {
        name: "selected/backward_queries",
        params: &SelectedQueriesParams::BLOCK,
        threads: THREADS,
        sources: &[PARTS, WEIGHTED_ROWS, include_str!("../../../shaders/selected/backward_queries.wgsl")],
        constants: vec![("SLOTS", slots as u32)],
        slots: vec![
            Slot::plain("kept", "vec2<u32>"),
            Slot::plain("grads", "u32"),
            Slot::read("values", keys),
            Slot::write("out", "f32"),
        ],
    }
}

fn windows_kernel(rows: Format) -> Kernel {
    Kernel {
        name: "selected/gradient_windows",
        params: &SelectedWindowsParams::BLOCK,
        threads: THREADS,
        sources: &[RUNS, include_str!("../../../shaders/selected/gradient_windows.wgsl"), WINDOW_SUMS],
        constants: vec![("VECTORS", u32::from(rows.vectors))],
        slots: vec![
            Slot::plain("live", "u32"),
            Slot::plain("ids", "u32"),
            Slot::plain("starts", "u32"),
            Slot::plain("positions", "u32"),
            Slot::plain("numbers", "u32"),
            Slot::read("rows", rows),
            Slot::write("out", "f32"),
            Slot::write("heads", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let each = |rows: Format| {
        let of_parts = SLOTS.map(|slots| queries_kernel(rows, slots));
        of_parts.into_iter().chain([windows_kernel(rows)])
    };
    Format::ALL.into_iter().flat_map(each).collect()
}

/// What belongs to the slots of lists.
#[derive(Debug, Clone, Copy)]
pub(in crate::webgpu) struct SlotNumbers<'a> {
    /// Slots of a list, and its heads, of which so many groups read rows of their own.
    pub(in crate::webgpu) top_k: usize,
    pub(in crate::webgpu) heads: usize,
    pub(in crate::webgpu) kv_heads: usize,
    /// `[lists, K]`: (anything, row), `NONE` where a slot keeps nothing.
    pub(in crate::webgpu) kept: &'a Binding,
    /// `[lists, K, heads]` from `first` on: bits of numbers, `NONE` where a slot adds nothing.
    pub(in crate::webgpu) numbers: &'a Binding,
    pub(in crate::webgpu) first: u32,
}

impl SlotNumbers<'_> {
    /// Writes `scale · Σ number·row` of the kept rows of each of so many lists and its heads, `[lists, heads, width]`; `rows` are those
    /// that are kept, of `width` numbers for each group of heads.
    pub(in crate::webgpu) fn sum_rows<T: Element>(
        &self,
        gpu: &Wgpu,
        (operation, argument): (&'static str, &'static str),
        (lists, parts): (usize, Parts),
        (rows, width): (&Binding, usize),
        scale: f32,
        out: &Binding,
    ) -> Result<()> {
        let Parts { slots, part, parts } = parts;
        let row = self.heads * width;
        let words = lists * parts * row;
        fit(operation, argument, words)?;
        let partial = match parts {
            1 => None,
            _ => Some(gpu.scratch(operation, words as u64)?),
        };
        let written = partial.as_ref().unwrap_or(out);
        let params = SelectedQueriesParams {
            heads: self.heads as u32,
            kv_heads: self.kv_heads as u32,
            top_k: self.top_k as u32,
            parts: parts as u32,
            part: part as u32,
            value_width: width as u32,
            value_lanes: lanes(width, 64),
            values_base: rows.base,
            first_grad: self.first,
            out_base: written.base,
            scale,
        };
        let kernel = queries_kernel(rows.format_of_rows::<T>(width), slots);
        let groups = (lists * parts * self.heads) as u64;
        gpu.dispatch(operation, &kernel, &params, &[self.kept, self.numbers, rows, written], groups)?;
        let Some(partial) = &partial else { return Ok(()) };
        let ranges: Vec<u32> =
            (0..lists).flat_map(|list| [list * parts, (list + 1) * parts].map(|edge| edge as u32)).collect();
        let rows = Rows { out, rows: lists, width: row, out_width: row, first_column: 0 };
        rows.sum_parts(gpu, operation, &gpu.list(operation, &ranges)?, partial, Mode::Sum)
    }
}

/// The slots of lists in the order of the behaviours that they keep.
#[derive(Debug)]
pub(in crate::webgpu) struct ByBehaviour<'a> {
    gpu: &'a Wgpu,
    operation: &'static str,
    runs: Runs,
}

/// What the rows of behaviours are sums of.
#[derive(Debug, Clone, Copy)]
pub(in crate::webgpu) struct OfBehaviours<'a> {
    /// Numbers of a row, and of a head's part of it; 0 where the row is the numbers themselves.
    pub(in crate::webgpu) width: usize,
    pub(in crate::webgpu) part_width: usize,
    /// `[lists, heads, part_width]`, from this number on.
    pub(in crate::webgpu) rows: &'a Binding,
    pub(in crate::webgpu) first_row: u32,
    pub(in crate::webgpu) factor: f32,
    /// Added to what is there.
    pub(in crate::webgpu) adds: bool,
    /// Of the columns, where the rows are of `width` of those of a behaviour.
    pub(in crate::webgpu) first_column: usize,
    /// Whether a run has the row of its id, or else its own in the order of the runs.
    pub(in crate::webgpu) dense: bool,
}

impl<'a> ByBehaviour<'a> {
    /// Sorts the slots of so many lists, `kept`, by behaviour, of which there are `rows`.
    pub(in crate::webgpu) fn new(
        gpu: &'a Wgpu,
        operation: &'static str,
        slots: &SlotNumbers<'_>,
        lists: usize,
        rows: usize,
    ) -> Result<Self> {
        let length = lists * slots.top_k;
        // Kernels count up to the end of the last workgroup.
        fit(operation, "positions", length.saturating_add(1 << 15))?;
        let sort = Sort::new(gpu, operation, length, rows)?;
        // The second word of each slot.
        let ids = slots.kept;
        sort.load(&IdList { ids, features: 2, feature: 1, first: 0, length, report: None })?;
        Ok(Self::of_runs(gpu, operation, sorted_runs(&sort, [length, rows])?))
    }

    /// Slots that are sorted: by id, for instance.
    pub(in crate::webgpu) fn of_runs(gpu: &'a Wgpu, operation: &'static str, runs: Runs) -> Self {
        Self { gpu, operation, runs }
    }

    /// Writes the sums to the rows of behaviours, of which those that no slot keeps stay as they are.
    pub(in crate::webgpu) fn sum<T: Element>(
        &self,
        slots: &SlotNumbers<'_>,
        sum: &OfBehaviours<'_>,
        out: &Binding,
    ) -> Result<()> {
        let Self { gpu, operation, .. } = *self;
        let Runs { sorted: SortedBindings { ids, starts, positions, .. }, live, places, .. } = &self.runs;
        runs::check_room(gpu, operation, *places, sum.width)?;
        let heads = Heads::new(gpu, operation, &self.runs, sum.width)?;
        let threads = heads.window_threads();
        let params = SelectedWindowsParams {
            threads: threads as u32,
            ids_base: ids.base,
            starts_base: starts.base,
            positions_base: positions.base,
            out_base: out.base,
            width: sum.width as u32,
            part_width: sum.part_width as u32,
            dense: u32::from(sum.dense),
            heads: slots.heads as u32,
            group_heads: (slots.heads / slots.kv_heads) as u32,
            top_k: slots.top_k as u32,
            first_number: slots.first,
            rows_base: sum.rows.base + sum.first_row,
            first_column: sum.first_column as u32,
            adds: u32::from(sum.adds),
            factor: sum.factor,
        };
        let aligned = sum.first_row.is_multiple_of(4) && sum.first_column.is_multiple_of(4);
        let whole = sum.part_width > 0 && sum.rows.has_whole_vec4s(sum.part_width) && aligned;
        let kernel = windows_kernel(Format::of::<T>(whole));
        let bindings = [live, ids, starts, positions, slots.numbers, sum.rows, out, &heads.binding];
        gpu.dispatch(operation, &kernel, &params, &bindings, groups_of(threads))?;
        heads.add_up(gpu, (out, sum.dense))?;
        gpu.give_back(&heads.binding.buffer);
        Ok(())
    }
}
