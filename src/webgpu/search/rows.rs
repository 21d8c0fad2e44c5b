//! Search by rows of numbers: dot products and cosines.

use crate::error::Result;
use crate::ops::{Search, SearchScore};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::launch::{MOST_STEPS_OF_ROW, THREADS, check_width};
use crate::webgpu::memory::Region;
use crate::webgpu::params::{Params, params};
use crate::webgpu::search::numbers::{NAME, Numbers, Stored, part};
use crate::webgpu::search::pack::{pack_candidates, write_lengths};
use crate::webgpu::selection::{IN_MEMORY, IN_WORKGROUP, Lists, ORDER, PIECES, Pieces, SCORES, SELECT};
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/search/rows.wgsl.
    struct SearchRowsParams {
        first_piece: u32,
        first_history: u32,
        top_k: u32,
        first_whole: u32,
        width: u32,
        rows_base: u32,
        scale_base: u32,
        offset_base: u32,
        bias_base: u32,
        has_bias: u32,
    }
}

/// The sources of scores of rows, besides those of cosines.
pub(in crate::webgpu) const DOT: &str = include_str!("../../../shaders/search/dot.wgsl");
pub(in crate::webgpu) const NUMBERS: &str = include_str!("../../../shaders/search/numbers.wgsl");
pub(in crate::webgpu) const INT8: &str = include_str!("../../../shaders/search/numbers_int8.wgsl");
pub(in crate::webgpu) const ROW_SCORES: &str = include_str!("../../../shaders/search/row_scores.wgsl");

/// Whether a row has more than the 4096 numbers of which `shaders/search/row_scores.wgsl` adds up products in one sum.
pub(in crate::webgpu) fn is_wide(width: usize) -> bool {
    width > 4096
}

fn rows_kernel(lists: Lists, stored: Stored, is_cosine: bool, is_wide: bool) -> Kernel {
    const ROWS: &str = include_str!("../../../shaders/search/rows.wgsl");
    const COSINE: &str = include_str!("../../../shaders/search/cosine.wgsl");
    let mut slots = vec![
        Slot::plain("pieces", "vec4<u32>"),
        Slot::plain("queries", "mat4x4<f32>"),
        Slot::read("rows", stored.format),
    ];
    slots.push(match is_cosine {
        true => Slot::plain("lengths", "vec2<f32>"),
        false => Slot::plain("bias", "f32"),
    });
    if stored.int8 {
        slots.extend([Slot::plain("scale", "f32"), Slot::plain("offset", "f32")]);
    }
    slots.extend(lists.slots());
    let sources: &'static [&'static str] = match (lists.in_memory, is_cosine, stored.int8) {
        (false, true, _) => &[ORDER, SCORES, SELECT, IN_WORKGROUP, PIECES, NUMBERS, COSINE, ROW_SCORES, ROWS],
        (false, false, false) => {
            &[ORDER, SCORES, SELECT, IN_WORKGROUP, PIECES, NUMBERS, DOT, ROW_SCORES, ROWS]
        }
        (false, false, true) => &[ORDER, SCORES, SELECT, IN_WORKGROUP, PIECES, INT8, DOT, ROW_SCORES, ROWS],
        (true, true, _) => &[ORDER, SCORES, SELECT, IN_MEMORY, PIECES, NUMBERS, COSINE, ROW_SCORES, ROWS],
        (true, false, false) => &[ORDER, SCORES, SELECT, IN_MEMORY, PIECES, NUMBERS, DOT, ROW_SCORES, ROWS],
        (true, false, true) => &[ORDER, SCORES, SELECT, IN_MEMORY, PIECES, INT8, DOT, ROW_SCORES, ROWS],
    };
    let mut constants = lists.constants(false);
    constants.extend([("COSINE", u32::from(is_cosine)), ("WIDE", u32::from(is_wide))]);
    Kernel {
        name: "search/rows",
        params: &SearchRowsParams::BLOCK,
        threads: THREADS,
        sources,
        constants,
        slots,
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let mut kernels = Vec::new();
    for lists in Lists::all() {
        for is_wide in [false, true] {
            kernels.extend(Stored::all().map(|stored| rows_kernel(lists, stored, false, is_wide)));
            kernels.extend(Stored::without_scales().map(|stored| rows_kernel(lists, stored, true, is_wide)));
        }
    }
    kernels
}

/// Keeps the best behaviours of every piece.
pub(super) fn search(
    gpu: &Wgpu,
    op: &Search,
    batch: &WgpuBatch,
    [queries, keys]: [Numbers<'_>; 2],
    bias: Option<Region<'_, f32>>,
) -> Result<Pieces> {
    let width = op.width;
    check_width(NAME, width, 4 * MOST_STEPS_OF_ROW)?;
    let window = keys.rows_per_binding(gpu, width);
    let pieces = Pieces::new(gpu, NAME, batch, op.top_k, width.div_ceil(4), window)?;
    let candidates = batch.as_ref().targets().total();
    let plan = (&*pieces.plan, pieces.lists.packed_rows());
    let packed = pack_candidates(gpu, NAME, op, plan, (&queries, candidates))?;
    let is_cosine = op.score == SearchScore::Cosine;
    // Of a cosine the lengths of all rows are computed.
    let plan = &pieces.plan.plan;
    let windows = if is_cosine { plan.dense_windows(window) } else { plan.windows(window) };
    let most = windows.iter().map(|(_, span)| span.len()).max().unwrap_or(0);
    let key_lengths = is_cosine.then(|| gpu.scratch(NAME, 2 * most as u64)).transpose()?;
    for (range, span) in windows {
        let rows = keys.bind(gpu, (NAME, "keys"), (span.start, span.len()), width)?;
        // Of a cosine the lengths, otherwise the bias.
        let extra = match (&key_lengths, bias) {
            (Some(lengths), _) => {
                write_lengths(gpu, NAME, &rows, (span.len(), width), lengths)?;
                lengths.clone()
            }
            (None, Some(bias)) => gpu.bind(NAME, "bias", &part(&bias, span.start, span.len()))?,
            (None, None) => gpu.nothing(),
        };
        let params = SearchRowsParams {
            first_piece: range.start as u32,
            first_history: span.start as u32,
            top_k: op.top_k as u32,
            first_whole: pieces.plan.plan.slots as u32,
            width: width as u32,
            rows_base: rows.data.base,
            scale_base: rows.scale.base,
            offset_base: rows.offset.base,
            bias_base: extra.base,
            has_bias: u32::from(bias.is_some()),
        };
        let mut bindings = vec![&pieces.plan.pieces, &packed, &rows.data, &extra];
        if rows.stored.int8 {
            bindings.extend([&rows.scale, &rows.offset]);
        }
        bindings.extend(pieces.bindings());
        let kernel = rows_kernel(pieces.lists, rows.stored, is_cosine, is_wide(width));
        gpu.dispatch(NAME, &kernel, &params, &bindings, range.len() as u64)?;
    }
    Ok(pieces)
}
