//! Histograms of the similarities of each user's newest behaviours: they are scored as a search scores them, and counted.

use crate::error::Result;
use crate::gpu::fit;
use crate::memory::ViewMut;
use crate::ops::{Search, SearchScore, SimilarityHistogram, SimilarityInputs};
use crate::plan::{Cut, Pace, best_tile_rows};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::launch::{MOST_ITERATIONS, MOST_STEPS_OF_ROW, THREADS, check_width};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::pace::PACE;
use crate::webgpu::params::{Params, params};
use crate::webgpu::search::numbers::{Numbers, Stored, part};
use crate::webgpu::search::pack::{POWERS, ROW_LENGTH, pack_candidates};
use crate::webgpu::search::rows::{DOT, INT8, NUMBERS, ROW_SCORES, is_wide};
use crate::webgpu::selected::histogram::BINS_OF;
use crate::webgpu::selection::{LOAD, SCORES, STEP};
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;

const NAME: &str = "newest_histogram";

/// Workgroups that a device runs at a time: fewer than elsewhere, because each adds to all bins of its candidates.
const WORKGROUPS: usize = 256;

/// The bins of all candidates of a tile that fit workgroup memory.
const TILE_BINS: usize = 2 * SimilarityHistogram::MAX_STEPS + 1;

params! {
    /// Twin of the struct in shaders/selected/newest.wgsl.
    struct NewestHistogramParams {
        first_piece: u32,
        first_history: u32,
        width: u32,
        rows_base: u32,
        scale_base: u32,
        offset_base: u32,
        bias_base: u32,
        has_bias: u32,
        steps: u32,
        bins: u32,
        out_base: u32,
    }
}

/// `group4`: vec4s of candidates per thread.
fn newest_kernel(group4: u32, stored: Stored, is_cosine: bool, is_wide: bool) -> Kernel {
    const COSINE: &str = include_str!("../../../shaders/selected/newest_cosine.wgsl");
    const NEWEST: &str = include_str!("../../../shaders/selected/newest.wgsl");
    let mut slots = vec![
        Slot::plain("pieces", "vec4<u32>"),
        Slot::plain("queries", "mat4x4<f32>"),
        Slot::read("rows", stored.format),
    ];
    if !is_cosine {
        slots.push(Slot::plain("bias", "f32"));
    }
    if stored.int8 {
        slots.extend([Slot::plain("scale", "f32"), Slot::plain("offset", "f32")]);
    }
    slots.push(Slot::write("out", "atomic<u32>"));
    Kernel {
        name: "selected/newest",
        params: &NewestHistogramParams::BLOCK,
        threads: THREADS,
        sources: match (is_cosine, stored.int8) {
            (true, _) => &[SCORES, NUMBERS, POWERS, ROW_LENGTH, COSINE, ROW_SCORES, BINS_OF, NEWEST],
            (false, false) => &[SCORES, NUMBERS, DOT, ROW_SCORES, BINS_OF, NEWEST],
            (false, true) => &[SCORES, INT8, DOT, ROW_SCORES, BINS_OF, NEWEST],
        },
        constants: vec![("GROUP4", group4), ("COSINE", u32::from(is_cosine)), ("WIDE", u32::from(is_wide))],
        slots,
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let each = |(group4, is_wide)| {
        let dots = Stored::all().map(move |stored| newest_kernel(group4, stored, false, is_wide));
        let cosines = Stored::without_scales();
        dots.chain(cosines.map(move |stored| newest_kernel(group4, stored, true, is_wide)))
    };
    [(1, false), (2, false), (1, true), (2, true)].into_iter().flat_map(each).collect()
}

/// The candidates of a tile, whose bins all fit.
fn tile_sizes(bins: usize) -> &'static [usize] {
    match TILE_BINS / bins {
        0..4 => &[1],
        4..8 => &[4],
        _ => &[4, 8],
    }
}

pub(super) fn count(
    gpu: &Wgpu,
    (op, search): (&SimilarityHistogram, &Search),
    batch: &WgpuBatch,
    inputs: &SimilarityInputs<'_, WgpuMemory>,
    out: &ViewMut<'_, WgpuMemory, u32>,
) -> Result<()> {
    op.check_newest(search, batch.as_ref(), inputs)?;
    op.check_output(NAME, batch.as_ref(), out.len())?;
    batch.check_owner(gpu, NAME)?;
    let (candidates, bins, width) = (batch.as_ref().targets().total(), op.bins(), search.width);
    if candidates == 0 {
        return Ok(());
    }
    // For a cosine a thread goes over each of its four rows three times.
    let is_cosine = search.score == SearchScore::Cosine;
    check_width(NAME, width, 4 * MOST_STEPS_OF_ROW / if is_cosine { 5 } else { 1 })?;
    let [queries, keys] = [Numbers::of(&inputs.queries), Numbers::of(&inputs.keys)];
    let bias = inputs.bias.map(Region::of);
    let mut read = [queries.buffers(), keys.buffers()].concat();
    read.extend(bias.map(|bias| bias.buffer));
    let out = gpu.output(NAME, "out", out, candidates * bins, &read, &[])?;
    fit(NAME, "out", candidates * bins)?;
    gpu.clear(NAME, &out.binding, candidates * bins);
    let tile_rows = best_tile_rows(batch.as_ref(), 1, tile_sizes(bins), LOAD);
    let window = keys.rows_per_binding(gpu, width);
    // Iterations of a step: each row at most nine times, and the candidates.
    let step = width.div_ceil(4) * if is_cosine { 9 } else { 1 } + 64;
    let longest = ((MOST_ITERATIONS - 4096) / step).max(1).saturating_mul(STEP).min(window.max(1));
    let cut = Cut {
        rows_per_target: 1,
        tile_rows,
        step: STEP,
        longest,
        pace: Pace { combine: 0, slot: 0, ..PACE.on(WORKGROUPS) },
    };
    let plan = batch.newest_plan(gpu, NAME, &cut, op.top_k)?;
    let packed_rows = tile_rows.max(4);
    let packed = pack_candidates(gpu, NAME, search, (&plan, packed_rows), (&queries, candidates))?;
    for (range, span) in plan.plan.windows(window) {
        let rows = keys.bind(gpu, (NAME, "keys"), (span.start, span.len()), width)?;
        let nothing = gpu.nothing();
        let bias = bias.map(|bias| gpu.bind(NAME, "bias", &part(&bias, span.start, span.len())));
        let bias = bias.transpose()?;
        let params = NewestHistogramParams {
            first_piece: range.start as u32,
            first_history: span.start as u32,
            width: width as u32,
            rows_base: rows.data.base,
            scale_base: rows.scale.base,
            offset_base: rows.offset.base,
            bias_base: bias.as_ref().map_or(0, |bias| bias.base),
            has_bias: u32::from(bias.is_some()),
            steps: op.steps as u32,
            bins: bins as u32,
            out_base: out.binding.base,
        };
        let mut bindings = vec![&plan.pieces, &packed, &rows.data];
        if !is_cosine {
            bindings.push(bias.as_ref().unwrap_or(&nothing));
        }
        if rows.stored.int8 {
            bindings.extend([&rows.scale, &rows.offset]);
        }
        bindings.push(&out.binding);
        let group4 = if tile_rows > 4 { 2 } else { 1 };
        let kernel = newest_kernel(group4, rows.stored, is_cosine, is_wide(width));
        gpu.dispatch(NAME, &kernel, &params, &bindings, range.len() as u64)?;
    }
    gpu.finish(out)
}
