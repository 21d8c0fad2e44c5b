//! The search for what channels keep.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::{InterestChannels, KeptAmong};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::binding::Binding;
use crate::webgpu::interest_channels::axes::Axes;
use crate::webgpu::launch::THREADS;
use crate::webgpu::memory::Region;
use crate::webgpu::params::{Params, params};
use crate::webgpu::search::rows::{NUMBERS, ROW_SCORES};
use crate::webgpu::selection::{
    Combined, IN_MEMORY, IN_WORKGROUP, Lists, ORDER, PIECES, Pieces, SCORES, SELECT, combine,
};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

/// The name of the operation, for errors and the trace.
pub(super) const NAME: &str = "interest_channels";

params! {
    /// Twin of the struct in shaders/interest_channels/search.wgsl.
    struct ChannelSearchParams {
        first_piece: u32,
        first_history: u32,
        top_k: u32,
        first_whole: u32,
        width: u32,
        rows_base: u32,
        blocks: u32,
        tiles: u32,
    }
}

fn search_kernel(lists: Lists, history: Format, among: KeptAmong) -> Kernel {
    const CHANNELS: &str = include_str!("../../../shaders/interest_channels/search.wgsl");
    let mut slots = vec![
        Slot::plain("pieces", "vec4<u32>"),
        Slot::plain("queries", "mat4x4<f32>"),
        Slot::read("rows", history),
    ];
    slots.extend(lists.slots());
    let mut constants = lists.constants(false);
    // Its rows are no wider than 16,384, which four sums share.
    constants.extend([("COSINE", 0), ("WIDE", 0), ("ROUTED", u32::from(among == KeptAmong::Routed))]);
    Kernel {
        name: "interest_channels/search",
        params: &ChannelSearchParams::BLOCK,
        threads: THREADS,
        sources: match lists.in_memory {
            false => &[ORDER, SCORES, SELECT, IN_WORKGROUP, PIECES, NUMBERS, ROW_SCORES, CHANNELS],
            true => &[ORDER, SCORES, SELECT, IN_MEMORY, PIECES, NUMBERS, ROW_SCORES, CHANNELS],
        },
        constants,
        slots,
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let mut kernels = Vec::new();
    for lists in Lists::all() {
        for format in Format::ALL {
            kernels
                .extend([KeptAmong::Routed, KeptAmong::All].map(|among| search_kernel(lists, format, among)));
        }
    }
    kernels
}

/// The lists of a workgroup: as many as a candidate has channels, if there is room.
fn lists_of(top_k: usize, channels: usize) -> Lists {
    let counts = Lists::counts(top_k);
    let enough = counts.iter().copied().find(|&count| count >= channels);
    Lists::new(top_k, enough.or(counts.last().copied()).unwrap_or(1))
}

/// What was found: `[M, c, K]` each, empty slots last. Among all, behaviours of other channels are still there.
pub(super) struct Found {
    pub(super) positions: Binding,
    pub(super) scores: Binding,
}

/// Finds the best `top_k` behaviours of each channel, or among all along each axis.
pub(super) fn find<T: Element>(
    gpu: &Wgpu,
    op: &InterestChannels,
    top_k: usize,
    batch: &WgpuBatch,
    axes: &Axes<'_>,
    history: Region<'_, T>,
) -> Result<Found> {
    let (channels, width) = (op.channels, op.width);
    let lists = lists_of(top_k, channels);
    let tile_rows = lists.packed_rows();
    let (blocks, tiles) = (channels.div_ceil(tile_rows), channels.div_ceil(lists.count));
    let iterations = blocks * (width.div_ceil(4) + 1) + lists.count;
    let window = gpu.rows_per_binding::<T>(width);
    let rows = (tiles * lists.count, channels);
    let pieces = Pieces::of_lists(gpu, NAME, batch, (top_k, lists), rows, iterations, window)?;
    let packed = axes.pack(tile_rows)?;
    for (range, span) in pieces.plan.plan.windows(window) {
        let rows = gpu.bind(NAME, "history", &history.rows(span.start, span.len(), width))?;
        let params = ChannelSearchParams {
            first_piece: range.start as u32,
            first_history: span.start as u32,
            top_k: top_k as u32,
            first_whole: pieces.plan.plan.slots as u32,
            width: width as u32,
            rows_base: rows.base,
            blocks: blocks as u32,
            tiles: tiles as u32,
        };
        let mut bindings = vec![&pieces.plan.pieces, &packed, &rows];
        bindings.extend(pieces.bindings());
        let kernel = search_kernel(lists, rows.format_of_rows::<T>(width), op.among);
        gpu.dispatch(NAME, &kernel, &params, &bindings, range.len() as u64)?;
    }
    let lists = batch.as_ref().targets().total() * channels;
    let slots = fit(NAME, "lists", lists.saturating_mul(top_k))?;
    let found =
        Found { positions: gpu.scratch(NAME, slots.into())?, scores: gpu.scratch(NAME, slots.into())? };
    let counts = gpu.scratch(NAME, lists as u64)?;
    let to = Combined { positions: &found.positions, scores: &found.scores, counts: &counts };
    combine(gpu, NAME, &pieces, false, &to)?;
    gpu.give_back(&packed.buffer);
    pieces.bindings().for_each(|binding| gpu.give_back(&binding.buffer));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_as_many_as_channels_if_there_is_room() {
        for (top_k, channels, count) in
            [(100, 4, 4), (100, 1, 4), (100, 5, 8), (100, 33, 8), (200, 8, 4), (300, 4, 2), (2000, 4, 1)]
        {
            assert_eq!(lists_of(top_k, channels).count, count, "{top_k} {channels}");
        }
    }
}
