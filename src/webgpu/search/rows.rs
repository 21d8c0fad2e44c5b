//! Search by rows of numbers: dot products and cosines.

use crate::error::Result;
use crate::ops::{Search, SearchScore};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::launch::THREADS;
use crate::webgpu::memory::Region;
use crate::webgpu::params::{Params, params};
use crate::webgpu::search::numbers::{NAME, Numbers, Stored, part};
use crate::webgpu::search::pack::{pack_rows, write_lengths};
use crate::webgpu::selection::{
    IN_MEMORY, IN_WORKGROUP, Lists, MOST_STEPS_OF_ROW, ORDER, PIECES, Pieces, SELECT, check_width,
};
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

fn rows_kernel(lists: Lists, stored: Stored, is_cosine: bool) -> Kernel {
    const ROWS: &str = include_str!("../../../shaders/search/rows.wgsl");
    const DOT: &str = include_str!("../../../shaders/search/dot.wgsl");
    const COSINE: &str = include_str!("../../../shaders/search/cosine.wgsl");
    const NUMBERS: &str = include_str!("../../../shaders/search/numbers.wgsl");
    const INT8: &str = include_str!("../../../shaders/search/numbers_int8.wgsl");
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
        (false, true, _) => &[ORDER, SELECT, IN_WORKGROUP, PIECES, NUMBERS, COSINE, ROWS],
        (false, false, false) => &[ORDER, SELECT, IN_WORKGROUP, PIECES, NUMBERS, DOT, ROWS],
        (false, false, true) => &[ORDER, SELECT, IN_WORKGROUP, PIECES, INT8, DOT, ROWS],
        (true, true, _) => &[ORDER, SELECT, IN_MEMORY, PIECES, NUMBERS, COSINE, ROWS],
        (true, false, false) => &[ORDER, SELECT, IN_MEMORY, PIECES, NUMBERS, DOT, ROWS],
        (true, false, true) => &[ORDER, SELECT, IN_MEMORY, PIECES, INT8, DOT, ROWS],
    };
    let mut constants = lists.constants(false);
    constants.push(("COSINE", u32::from(is_cosine)));
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
        kernels.extend(Stored::all().map(|stored| rows_kernel(lists, stored, false)));
        kernels.extend(Stored::without_scales().map(|stored| rows_kernel(lists, stored, true)));
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
    let rows = queries.bind(gpu, "queries", (0, candidates), width)?;
    let (factor, is_cosine) = match op.score {
        SearchScore::Dot { scale } => (scale, false),
        _ => (1.0, true),
    };
    let lengths_of = |count: usize| is_cosine.then(|| gpu.scratch(NAME, 2 * count as u64)).transpose();
    let query_lengths = lengths_of(candidates)?;
    if let Some(lengths) = &query_lengths {
        write_lengths(gpu, &rows, (candidates, width), lengths)?;
    }
    let packed = pack_rows(gpu, &pieces, &rows, width, (factor, query_lengths.as_ref()))?;
    let windows = pieces.plan.plan.windows(window);
    let most = windows.iter().map(|(_, span)| span.len()).max().unwrap_or(0);
    let key_lengths = lengths_of(most)?;
    for (range, span) in windows {
        let rows = keys.bind(gpu, "keys", (span.start, span.len()), width)?;
        // Of a cosine the lengths, otherwise the bias.
        let extra = match (&key_lengths, bias) {
            (Some(lengths), _) => {
                write_lengths(gpu, &rows, (span.len(), width), lengths)?;
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
        let kernel = rows_kernel(pieces.lists, rows.stored, is_cosine);
        gpu.dispatch(NAME, &kernel, &params, &bindings, range.len() as u64)?;
    }
    Ok(pieces)
}
