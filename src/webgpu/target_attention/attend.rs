//! Attention over a batch, for every operation that needs it.

use std::ops::Range;

use crate::element::Element;
use crate::error::Result;
use crate::gpu::{fit, weighting_of};
use crate::jagged::Batch;
use crate::ops::Weighting;
use crate::plan::{Cut, best_tile_rows};
use crate::webgpu::batch::{DevicePlan, WgpuBatch};
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{MOST_ITERATIONS, THREADS, check_width, longest_piece};
use crate::webgpu::memory::Region;
use crate::webgpu::pace::PACE;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;
use crate::webgpu::target_attention::added::{self, Added, AddedParams};
use crate::webgpu::target_attention::combine::{self, MAX_COLUMNS, column_vec4s};
use crate::webgpu::target_attention::pack_queries::pack_queries;

/// The cost of loading a behaviour, in output rows.
const LOAD: usize = 6;

params! {
    /// Twin of the struct in shaders/target_attention/score_dot.wgsl.
    struct AttendParams {
        first_piece: u32,
        kv_heads: u32,
        group_heads: u32,
        width: u32,
        value_width: u32,
        value_stride: u32,
        first_column: u32,
        value_columns: u32,
        first_history: u32,
        keys_base: u32,
        values_base: u32,
        bias_base: u32,
        out_base: u32,
        lse_base: u32,
        first_stats: u32,
        divisor: f32,
        factor: f32,
        tile: u32,
        columns: u32,
        weighting: u32,
        has_bias: u32,
        has_lse: u32,
        has_places: u32,
        last_position: u32,
    }
}

/// `group4`: vec4s of rows per thread; 1 for a tile of 4 rows, otherwise 2. `quads`: whether quads exchange what they share,
/// which requires at least four vec4s of columns, so that the threads of a quad have the same behaviours. `positions`: whether
/// rows of positions are added to those of the history.
fn attend_kernel(group4: u32, quads: bool, positions: bool, history: Format) -> Kernel {
    const KEYS: &str = include_str!("../../../shaders/target_attention/keys.wgsl");
    const VALUES: &str = include_str!("../../../shaders/target_attention/values.wgsl");
    const SUMS: &str = include_str!("../../../shaders/tin/rows.wgsl");
    const SCORE: &str = include_str!("../../../shaders/target_attention/score_dot.wgsl");
    const ATTEND: &str = include_str!("../../../shaders/target_attention/attend.wgsl");
    const AGAIN: &str = include_str!("../../../shaders/target_attention/attend_again.wgsl");
    const BY_QUAD: &str = include_str!("../../../shaders/target_attention/blocks_by_quad.wgsl");
    const ALONE: &str = include_str!("../../../shaders/target_attention/blocks_alone.wgsl");
    let [keys, values, added] = added::slots(positions, history);
    Kernel {
        name: "target_attention/attend",
        params: &AttendParams::BLOCK,
        threads: THREADS,
        sources: match (positions, quads) {
            (false, true) => &[KEYS, VALUES, SCORE, ATTEND, AGAIN, BY_QUAD],
            (false, false) => &[KEYS, VALUES, SCORE, ATTEND, AGAIN, ALONE],
            (true, true) => &[SUMS, SCORE, ATTEND, AGAIN, BY_QUAD],
            (true, false) => &[SUMS, SCORE, ATTEND, AGAIN, ALONE],
        },
        constants: vec![("GROUP4", group4), ("QUADS", u32::from(quads))],
        slots: vec![
            Slot::plain("pieces", "vec4<u32>"),
            Slot::plain("queries", "vec4<f32>"),
            keys,
            values,
            added,
            Slot::write("out", "f32"),
            Slot::write("lse_bits", "u32"),
            Slot::write("partial", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let each = |format, positions| {
        [(1, false), (1, true), (2, false), (2, true)]
            .map(|(group4, quads)| attend_kernel(group4, quads, positions, format))
    };
    Format::ALL.into_iter().flat_map(|format| [each(format, false), each(format, true)].concat()).collect()
}

/// The tiles that fit a workgroup with so many vec4s of columns.
fn tiles_for(columns: usize) -> &'static [usize] {
    match columns {
        0..=16 => &[4, 8, 16, 32],
        17..=32 => &[4, 8, 16],
        _ => &[4, 8],
    }
}

/// Behaviours per step.
fn step_of(tile: usize) -> usize {
    256 / tile.div_ceil(8)
}

/// The factor on queries and the factor on scores whose product is the scale. What multiplies a query is a power of two, or at
/// most 1, so that neither overflows nor underflows where the products and the scores do not.
pub(super) fn split_scale(scale: f32) -> (f32, f32) {
    /// A smaller scale is split in half, a larger one, up to 1, multiplies the queries.
    const SMALL: f32 = -32.0;
    /// From here on, products that count in the scores (by 2^-24) may be subnormal numbers.
    const LARGE: i32 = 102;
    let exponent = scale.abs().log2();
    if !exponent.is_finite() || (SMALL..=0.0).contains(&exponent) {
        return (scale, 1.0);
    }
    let whole = exponent as i32;
    let on_queries = 2.0f32.powi(if exponent < 0.0 { whole / 2 } else { (whole - LARGE).max(0) });
    (on_queries, scale / on_queries)
}

/// One attention as the kernels see it, whichever operation it serves.
pub(in crate::webgpu) struct Attention {
    pub(in crate::webgpu) operation: &'static str,
    pub(in crate::webgpu) heads: usize,
    pub(in crate::webgpu) kv_heads: usize,
    pub(in crate::webgpu) width: usize,
    pub(in crate::webgpu) value_width: usize,
    pub(in crate::webgpu) scale: f32,
    pub(in crate::webgpu) weighting: Weighting,
    /// Whether the rows of a span are computed to bind them, so that those in gaps between histories cost something.
    pub(in crate::webgpu) computes_rows: bool,
}

/// Binds the keys and values of a span of the histories; of behaviours that have positions their rows, and the table of positions.
pub(in crate::webgpu) type History<'a> = dyn Fn(&Range<usize>) -> Result<[Binding; 2]> + 'a;

/// What the dispatches of one attention share.
struct Job<'a> {
    attention: &'a Attention,
    gpu: &'a Wgpu,
    plan: &'a DevicePlan,
    tile_rows: usize,
    /// Rows of the histories that are bound at a time.
    window: usize,
    packed: &'a Binding,
    history: &'a History<'a>,
    added: &'a Added<'a>,
    out: &'a Binding,
    /// The output for log-sum-exps, and whether the call has one.
    lse: (&'a Binding, bool),
}

impl Attention {
    /// The longest piece: short enough for exact sums, and for a thread's loops, also where rows are computed again.
    fn longest_piece(&self, batch: &Batch, tile_rows: usize, columns: usize, window: usize) -> usize {
        const LONGEST: usize = 2048;
        let threads = THREADS as usize;
        let score = self.width.div_ceil(4) + 1;
        // Iterations for 64 behaviours: in the tile, and for a row that is computed again.
        let step = step_of(tile_rows);
        let tile = score + threads.div_ceil(4) + 1;
        let row = 2 * score + threads.min(columns) + 4;
        let steps = (MOST_ITERATIONS / (tile + tile_rows * row)).max(1);
        let wanted = (steps * threads / step * step).clamp(step, LONGEST.max(step));
        let bytes = self.kv_heads.saturating_mul(tile_rows * (self.value_width.min(MAX_COLUMNS) + 2) * 4);
        longest_piece(batch, self.heads / self.kv_heads, tile_rows, bytes, wanted.min(window), window)
    }

    /// Fails for rows of keys too wide for a thread that computes all rows of a tile again.
    fn check_width(&self, tile_rows: usize, columns: usize) -> Result<()> {
        let threads = THREADS as usize;
        let besides = threads.div_ceil(4) + 1 + tile_rows * (threads.min(columns) + 4);
        let score = MOST_ITERATIONS.saturating_sub(besides) / (1 + 2 * tile_rows);
        check_width(self.operation, self.width, 4 * score.saturating_sub(1))
    }

    /// `history` is called for consecutive windows of at most `window` rows, each before its dispatch.
    #[expect(clippy::too_many_arguments, reason = "the operation's inputs and outputs, one each")]
    pub(in crate::webgpu) fn run<Q: Element, K: Element>(
        &self,
        gpu: &Wgpu,
        batch: &WgpuBatch,
        queries: Region<'_, Q>,
        window: usize,
        history: &History<'_>,
        added: &Added<'_>,
        out: &Binding,
        lse: Option<&Binding>,
    ) -> Result<()> {
        let operation = self.operation;
        let group_heads = self.heads / self.kv_heads;
        let columns = column_vec4s(self.value_width.min(MAX_COLUMNS));
        let tile_rows = best_tile_rows(batch.as_ref(), group_heads, tiles_for(columns), LOAD);
        self.check_width(tile_rows, columns)?;
        let window = added.window(gpu, self.heads, window);
        let cut = Cut {
            rows_per_target: group_heads,
            tile_rows,
            step: step_of(tile_rows),
            longest: self.longest_piece(batch.as_ref(), tile_rows, columns, window),
            pace: PACE.on(PACE.resident / self.kv_heads),
        };
        let plan = batch.plan(gpu, operation, &cut)?;
        if plan.plan.tiles.is_empty() {
            return Ok(());
        }
        let rows = batch.as_ref().targets().total();
        fit(operation, "out", rows.saturating_mul(self.heads * self.value_width))?;
        let sizes = [self.heads, self.kv_heads, self.width, tile_rows];
        let packed = pack_queries(gpu, operation, &plan, sizes, split_scale(self.scale).0, queries)?;
        for first_column in (0..self.value_width).step_by(MAX_COLUMNS) {
            let no_lse = gpu.no_output(operation)?;
            let job = Job {
                attention: self,
                gpu,
                plan: &plan,
                tile_rows,
                window,
                packed: &packed,
                history,
                added,
                out,
                lse: (lse.unwrap_or(&no_lse), lse.is_some()),
            };
            gpu.part(|| job.columns::<K>(first_column))?;
        }
        Ok(())
    }
}

impl Job<'_> {
    /// Computes up to [`MAX_COLUMNS`] columns of the output.
    fn columns<K: Element>(&self, first_column: usize) -> Result<()> {
        let Self { attention, gpu, plan, tile_rows, .. } = *self;
        let Attention { operation, kv_heads, value_width, .. } = *attention;
        let value_columns = MAX_COLUMNS.min(value_width - first_column);
        let sums = plan.plan.slots * kv_heads * tile_rows;
        let first_stats = fit(operation, "partial results", sums * value_columns)?;
        let partial = gpu.scratch(operation, (sums * (value_columns + 2)) as u64)?;
        let u = |value: usize| value as u32;
        let columns = column_vec4s(value_width.min(MAX_COLUMNS));
        let (weighting, divisor) = weighting_of(attention.weighting);
        let AddedParams { has_bias, has_places, last_position } = self.added.params();
        let params = AttendParams {
            first_piece: 0,
            kv_heads: u(kv_heads),
            group_heads: u(attention.heads / kv_heads),
            width: u(attention.width),
            value_width: u(value_width),
            value_stride: u(kv_heads * value_width),
            first_column: u(first_column),
            value_columns: u(value_columns),
            first_history: 0,
            keys_base: 0,
            values_base: 0,
            bias_base: 0,
            out_base: self.out.base,
            lse_base: self.lse.0.base,
            first_stats,
            // 0 stands for the length of the user's history.
            divisor: divisor.unwrap_or(0.0),
            factor: split_scale(attention.scale).1,
            tile: u(tile_rows),
            columns: u(columns),
            weighting,
            has_bias,
            has_lse: u32::from(self.lse.1),
            has_places,
            last_position,
        };
        let quads = gpu.uses_subgroups() && columns >= 4;
        let windows = match attention.computes_rows {
            true => plan.plan.dense_windows(self.window),
            false => plan.plan.windows(self.window),
        };
        for (pieces, span) in windows {
            self.pieces::<K>(params, quads, &pieces, &span, &partial)?;
        }
        let combine = combine::Combine {
            kv_heads,
            group_heads: attention.heads / kv_heads,
            value_width,
            first_column,
            value_columns,
            first_stats,
            tile_rows,
            weighting,
            has_lse: self.lse.1,
        };
        let tiles = (&plan.split_tiles, plan.split_count);
        combine.run(gpu, operation, tiles, &partial, self.out, self.lse.0)
    }

    /// Attends over the pieces of one window of the histories.
    fn pieces<K: Element>(
        &self,
        params: AttendParams,
        quads: bool,
        pieces: &Range<usize>,
        span: &Range<usize>,
        partial: &Binding,
    ) -> Result<()> {
        let Self { attention, gpu, plan, .. } = *self;
        let operation = attention.operation;
        let [keys, values] = (self.history)(span)?;
        let added = self.added.bind(gpu, operation, attention.heads, span, &plan.tiles)?;
        // Keys and values are both read as vec4s or neither, for fewer variants.
        let vectors = keys.has_whole_vec4s(attention.width) && values.has_whole_vec4s(attention.value_width);
        let group4 = if self.tile_rows == 4 { 1 } else { 2 };
        let kernel = attend_kernel(group4, quads, self.added.is_positions(), Format::of::<K>(vectors));
        let params = AttendParams {
            first_piece: pieces.start as u32,
            first_history: span.start as u32,
            keys_base: keys.base,
            values_base: values.base,
            bias_base: added.base,
            ..params
        };
        let bindings = [&plan.pieces, self.packed, &keys, &values, &added, self.out, self.lse.0, partial];
        let groups = (pieces.len() * attention.kv_heads) as u64;
        gpu.dispatch(operation, &kernel, &params, &bindings, groups)
    }
}
