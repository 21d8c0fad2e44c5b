//! Packs candidates for the search kernels, and computes the lengths of rows.

use crate::error::Result;
use crate::gpu::fit;
use crate::ops::{Search, SearchScore};
use crate::webgpu::batch::DevicePlan;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::params::{Params, params};
use crate::webgpu::search::numbers::{BoundNumbers, NAME, Numbers, Stored};
use crate::webgpu::selection::Pieces;
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/search/lengths.wgsl.
    struct SearchLengthsParams {
        threads: u32,
        width: u32,
        rows_base: u32,
    }
}

params! {
    /// Twin of the struct in shaders/search/pack_rows.wgsl.
    struct SearchPackRowsParams {
        threads: u32,
        width: u32,
        rows_base: u32,
        scale_base: u32,
        offset_base: u32,
        factor: f32,
        tile_rows: u32,
        has_lengths: u32,
    }
}

params! {
    /// Twin of the struct in shaders/search/pack_words.wgsl.
    struct SearchPackWordsParams {
        threads: u32,
        words: u32,
        last_mask: u32,
        rows_base: u32,
        tile_rows: u32,
    }
}

/// The length of a row, and what it needs.
pub(in crate::webgpu) const ROW_LENGTH: &str = include_str!("../../../shaders/search/row_length.wgsl");
pub(in crate::webgpu) const POWERS: &str = include_str!("../../../shaders/shared/powers.wgsl");

fn lengths_kernel(rows: Format) -> Kernel {
    Kernel {
        name: "search/lengths",
        params: &SearchLengthsParams::BLOCK,
        threads: THREADS,
        sources: &[POWERS, ROW_LENGTH, include_str!("../../../shaders/search/lengths.wgsl")],
        constants: vec![],
        slots: vec![Slot::read("rows", rows), Slot::write("lengths", "vec2<f32>")],
    }
}

fn pack_rows_kernel(stored: Stored) -> Kernel {
    Kernel {
        name: "search/pack_rows",
        params: &SearchPackRowsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/search/pack_rows.wgsl")],
        constants: vec![("INT8", u32::from(stored.int8))],
        slots: vec![
            Slot::plain("tiles", "vec4<u32>"),
            Slot::read("rows", stored.format),
            Slot::plain("scale", "f32"),
            Slot::plain("offset", "f32"),
            Slot::plain("lengths", "vec2<f32>"),
            Slot::write("packed", "vec4<f32>"),
        ],
    }
}

fn pack_words_kernel() -> Kernel {
    Kernel {
        name: "search/pack_words",
        params: &SearchPackWordsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/search/pack_words.wgsl")],
        constants: vec![],
        slots: vec![Slot::plain("tiles", "vec4<u32>"), Slot::words("rows", 32), Slot::write("packed", "u32")],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let lengths = Stored::without_scales().map(|stored| lengths_kernel(stored.format));
    lengths.chain(Stored::all().map(pack_rows_kernel)).chain([pack_words_kernel()]).collect()
}

/// Writes what cosines multiply `count` rows with to `lengths`, `[count, 2]`.
pub(super) fn write_lengths(
    gpu: &Wgpu,
    operation: &'static str,
    rows: &BoundNumbers,
    (count, width): (usize, usize),
    lengths: &Binding,
) -> Result<()> {
    let params = SearchLengthsParams {
        threads: fit(operation, "rows", count)?,
        width: width as u32,
        rows_base: rows.data.base,
    };
    let kernel = lengths_kernel(rows.stored.format);
    gpu.dispatch(operation, &kernel, &params, &[&rows.data, lengths], groups_of(count))
}

/// Packs the rows of candidates: `[tiles, ⌈a/4⌉ + 1, tile_rows]` vec4s. With cosines `lengths` holds their powers and factors;
/// otherwise all have the given `factor`.
fn pack_rows(
    gpu: &Wgpu,
    operation: &'static str,
    (plan, tile_rows): (&DevicePlan, usize),
    rows: &BoundNumbers,
    width: usize,
    (factor, lengths): (f32, Option<&Binding>),
) -> Result<Binding> {
    let threads = plan.plan.tiles.len() * tile_rows * (width.div_ceil(4) + 1);
    let packed = gpu.scratch(operation, threads as u64 * 4)?;
    let params = SearchPackRowsParams {
        threads: fit(operation, "queries", threads)?,
        width: width as u32,
        rows_base: rows.data.base,
        scale_base: rows.scale.base,
        offset_base: rows.offset.base,
        factor,
        tile_rows: tile_rows as u32,
        has_lengths: u32::from(lengths.is_some()),
    };
    let nothing = gpu.nothing();
    let lengths = lengths.unwrap_or(&nothing);
    let bindings = [&plan.tiles, &rows.data, &rows.scale, &rows.offset, lengths, &packed];
    gpu.dispatch(operation, &pack_rows_kernel(rows.stored), &params, &bindings, groups_of(threads))?;
    Ok(packed)
}

/// Packs the candidates of a search by numbers, whose tiles have so many packed rows each.
pub(in crate::webgpu) fn pack_candidates(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Search,
    plan: (&DevicePlan, usize),
    (queries, candidates): (&Numbers<'_>, usize),
) -> Result<Binding> {
    let rows = queries.bind(gpu, (operation, "queries"), (0, candidates), op.width)?;
    let (factor, lengths) = match op.score {
        SearchScore::Dot { scale } => (scale, None),
        _ => {
            let lengths = gpu.scratch(operation, 2 * candidates as u64)?;
            write_lengths(gpu, operation, &rows, (candidates, op.width), &lengths)?;
            (1.0, Some(lengths))
        }
    };
    pack_rows(gpu, operation, plan, &rows, op.width, (factor, lengths.as_ref()))
}

/// The words of a row.
pub(super) struct Words {
    pub(super) count: usize,
    pub(super) bits: usize,
    /// The bits of the last word that count.
    pub(super) last_mask: u32,
}

/// Packs the words of candidates: `[tiles, words, packed rows]`.
pub(super) fn pack_words(gpu: &Wgpu, pieces: &Pieces, rows: &Binding, words: &Words) -> Result<Binding> {
    let threads = pieces.packed_rows() * words.count;
    let packed = gpu.scratch(NAME, threads as u64)?;
    let params = SearchPackWordsParams {
        threads: fit(NAME, "queries", threads)?,
        words: words.count as u32,
        last_mask: words.last_mask,
        rows_base: rows.base,
        tile_rows: pieces.lists.packed_rows() as u32,
    };
    let bindings = [&pieces.plan.tiles, rows, &packed];
    gpu.dispatch(NAME, &pack_words_kernel(), &params, &bindings, groups_of(threads))?;
    Ok(packed)
}
