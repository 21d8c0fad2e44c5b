//! What channels keep: a list of slots for each channel of each candidate.

use std::ops::Range;

use crate::element::Element;
use crate::error::Result;
use crate::ops::{InterestChannels, KeptAmong};
use crate::webgpu::binding::Binding;
use crate::webgpu::interest_channels::axes::{Axes, STATES};
use crate::webgpu::interest_channels::search::Found;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::output::Output;
use crate::webgpu::params::{Params, params};
use crate::webgpu::selected::inputs::PARTS;
use crate::webgpu::selected::parts::{Parts, SLOTS, lanes};
use crate::webgpu::selected::sums::SlotNumbers;
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/interest_channels/keep.wgsl.
    struct ChannelKeepParams {
        threads: u32,
        channels: u32,
        width: u32,
        top_k: u32,
        first_list: u32,
        first_history: u32,
        rows_base: u32,
    }
}

params! {
    /// Twin of the struct in shaders/interest_channels/write_kept.wgsl.
    struct ChannelWriteParams {
        top_k: u32,
        out_top_k: u32,
        first_list: u32,
        positions_base: u32,
        scores_base: u32,
        counts_base: u32,
    }
}

params! {
    /// Twin of the struct in shaders/interest_channels/products.wgsl.
    struct ChannelProductsParams {
        heads: u32,
        kv_heads: u32,
        top_k: u32,
        parts: u32,
        part: u32,
        width: u32,
        lanes: u32,
        first_list: u32,
        rows_base: u32,
        vectors_base: u32,
    }
}

fn keep_kernel(rows: Format, among: KeptAmong) -> Kernel {
    Kernel {
        name: "interest_channels/keep",
        params: &ChannelKeepParams::BLOCK,
        threads: THREADS,
        sources: &[STATES, include_str!("../../../shaders/interest_channels/keep.wgsl")],
        constants: vec![("ALL", u32::from(among == KeptAmong::All))],
        slots: vec![
            Slot::plain("tiles", "vec4<u32>"),
            Slot::plain("positions", "u32"),
            Slot::plain("scores", "u32"),
            Slot::read("axes", Format::f32(rows.vectors)),
            Slot::plain("states", "vec2<u32>"),
            Slot::read("rows", rows),
            Slot::write("kept", "vec2<u32>"),
            Slot::write("weights", "u32"),
        ],
    }
}

fn write_kernel() -> Kernel {
    Kernel {
        name: "interest_channels/write_kept",
        params: &ChannelWriteParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/interest_channels/write_kept.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("kept", "vec2<u32>"),
            Slot::plain("found", "u32"),
            Slot::write("positions", "u32"),
            Slot::write("scores", "u32"),
            Slot::write("counts", "u32"),
        ],
    }
}

fn products_kernel(rows: Format, slots: usize) -> Kernel {
    Kernel {
        name: "interest_channels/products",
        params: &ChannelProductsParams::BLOCK,
        threads: THREADS,
        sources: &[PARTS, include_str!("../../../shaders/interest_channels/products.wgsl")],
        constants: vec![("SLOTS", slots as u32)],
        slots: vec![
            Slot::plain("tiles", "vec4<u32>"),
            Slot::plain("kept", "vec2<u32>"),
            Slot::read("vectors", Format::f32(rows.vectors)),
            Slot::read("rows", rows),
            Slot::write("products", "u32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let each = |rows: Format| {
        let keep = [KeptAmong::Routed, KeptAmong::All].map(|among| keep_kernel(rows, among));
        keep.into_iter().chain(SLOTS.map(|slots| products_kernel(rows, slots)))
    };
    Format::ALL.into_iter().flat_map(each).chain([write_kernel()]).collect()
}

/// Where what channels keep is written for the caller.
pub(super) struct KeptOutputs {
    pub(super) positions: Output,
    pub(super) scores: Output,
    pub(super) counts: Output,
}

/// The lists of a group of candidates.
pub(super) struct Lists<'a> {
    pub(super) gpu: &'a Wgpu,
    pub(super) operation: &'static str,
    pub(super) op: &'a InterestChannels,
    pub(super) top_k: usize,
    pub(super) parts: Parts,
    pub(super) axes: &'a Axes<'a>,
    /// A tile for each list of the batch.
    pub(super) tiles: &'a Binding,
    pub(super) lists: Range<usize>,
    /// Rows of the history, and which is the first.
    pub(super) rows: &'a Binding,
    pub(super) first_history: usize,
}

impl Lists<'_> {
    /// What a search found, without behaviours of other channels: rows, and scores divided by the lengths of histories.
    pub(super) fn keep<T: Element>(&self, found: &Found) -> Result<[Binding; 2]> {
        let Self { gpu, operation, op, top_k, axes, tiles, rows, .. } = *self;
        let threads = self.lists.len() * top_k;
        let kept = gpu.scratch(operation, 2 * threads as u64)?;
        let weights = gpu.scratch(operation, threads as u64)?;
        let params = ChannelKeepParams {
            threads: threads as u32,
            channels: op.channels as u32,
            width: op.width as u32,
            top_k: top_k as u32,
            first_list: self.lists.start as u32,
            first_history: self.first_history as u32,
            rows_base: rows.base,
        };
        let kernel = keep_kernel(rows.format_of_rows::<T>(op.width), op.among);
        let Found { positions, scores } = found;
        let bindings = [tiles, positions, scores, &axes.rows, &axes.states, rows, &kept, &weights];
        gpu.dispatch(operation, &kernel, &params, &bindings, groups_of(threads))?;
        Ok([kept, weights])
    }

    /// Writes what channels keep for the caller.
    pub(super) fn write(&self, kept: &Binding, found: &Found, out: &KeptOutputs) -> Result<()> {
        let KeptOutputs { positions, scores, counts } = out;
        let params = ChannelWriteParams {
            top_k: self.top_k as u32,
            out_top_k: self.op.top_k as u32,
            first_list: self.lists.start as u32,
            positions_base: positions.binding.base,
            scores_base: scores.binding.base,
            counts_base: counts.binding.base,
        };
        let bindings = [kept, &found.positions, &positions.binding, &scores.binding, &counts.binding];
        let groups = self.lists.len() as u64;
        self.gpu.dispatch(self.operation, &write_kernel(), &params, &bindings, groups)
    }

    /// The products of the rows of lists, from `first` on, with what they keep, divided by the lengths of histories: `[lists, K]`.
    pub(super) fn products<T: Element>(
        &self,
        kept: &Binding,
        (vectors, first): (&Binding, usize),
    ) -> Result<Binding> {
        let Self { gpu, operation, op, top_k, tiles, rows, .. } = *self;
        let Parts { slots, part, parts } = self.parts;
        let out = gpu.scratch(operation, (self.lists.len() * top_k) as u64)?;
        let params = ChannelProductsParams {
            heads: 1,
            kv_heads: 1,
            top_k: top_k as u32,
            parts: parts as u32,
            part: part as u32,
            width: op.width as u32,
            lanes: lanes(op.width, 16),
            first_list: self.lists.start as u32,
            rows_base: rows.base,
            vectors_base: vectors.base + (first * op.width) as u32,
        };
        let kernel = products_kernel(rows.format_of_rows::<T>(op.width), slots);
        let groups = (self.lists.len() * parts) as u64;
        gpu.dispatch(operation, &kernel, &params, &[tiles, kept, vectors, rows, &out], groups)?;
        Ok(out)
    }

    /// Numbers of what is kept.
    pub(super) fn numbers<'n>(&self, kept: &'n Binding, numbers: &'n Binding) -> SlotNumbers<'n> {
        SlotNumbers { top_k: self.top_k, heads: 1, kv_heads: 1, kept, numbers, first: 0 }
    }

    /// `Σ number·e` of what each list keeps: `[lists, d]`.
    pub(super) fn sums<T: Element>(&self, kept: &Binding, numbers: &Binding) -> Result<Binding> {
        let Self { gpu, operation, op, .. } = *self;
        let out = gpu.scratch(operation, (self.lists.len() * op.width) as u64)?;
        let (lists, rows) = ((self.lists.len(), self.parts), (self.rows, op.width));
        self.numbers(kept, numbers).sum_rows::<T>(gpu, (operation, "sums"), lists, rows, 1.0, &out)?;
        Ok(out)
    }
}
