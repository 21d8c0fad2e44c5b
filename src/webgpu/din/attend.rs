//! The call, and the kernel that scores and pools.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::{activation_code, check_din, fit};
use crate::memory::ViewMut;
use crate::ops::{Din, DinInputs, DinPooling};
use crate::plan::Cut;
use crate::webgpu::batch::{DevicePlan, WgpuBatch};
use crate::webgpu::binding::Binding;
use crate::webgpu::din::fold::fold;
use crate::webgpu::din::layout::{BEHAVIOURS, Layout, TILE};
use crate::webgpu::din::targets::prepare_targets;
use crate::webgpu::launch::{MOST_ITERATIONS, THREADS, check_width, longest_piece};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::pace::PACE;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;
use crate::webgpu::target_attention::combine::{Combine, MAX_COLUMNS, column_vec4s};

const NAME: &str = "din";

/// The longest piece, in behaviours: short enough for exact sums.
const LONGEST: usize = 2048;

params! {
    /// Twin of the struct in shaders/din/attend.wgsl.
    struct DinAttendParams {
        first_piece: u32,
        width: u32,
        first_column: u32,
        value_columns: u32,
        columns: u32,
        first_history: u32,
        history_base: u32,
        output_bias_base: u32,
        out_base: u32,
        first_stats: u32,
        weighting: u32,
        units4_0: u32,
        units4_1: u32,
        units4_2: u32,
        activation_0: u32,
        activation_1: u32,
        activation_2: u32,
        first_block_1: u32,
        first_block_2: u32,
        second_place: u32,
        parallel: u32,
        candidate_lanes: u32,
    }
}

fn attend_kernel(layers: usize, behaviours: usize, history: Format) -> Kernel {
    Kernel {
        name: "din/attend",
        params: &DinAttendParams::BLOCK,
        threads: THREADS,
        sources: &[
            include_str!("../../../shaders/din/attend.wgsl"),
            include_str!("../../../shaders/din/network.wgsl"),
        ],
        constants: vec![
            ("LAYERS", layers as u32),
            ("BEHAVIOURS", behaviours as u32),
            ("GROUP4", if behaviours == 4 { 1 } else { 2 }),
        ],
        slots: vec![
            Slot::plain("pieces", "vec4<u32>"),
            Slot::plain("targets", "vec4<f32>"),
            Slot::read("history", history),
            Slot::plain("blocks", "mat4x4<f32>"),
            Slot::plain("vectors", "vec4<f32>"),
            Slot::read("output_bias", Format::f32(false)),
            Slot::write("out", "f32"),
            Slot::write("partial", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let each = |format: Format| {
        (1..=Din::MAX_HIDDEN)
            .flat_map(move |layers| BEHAVIOURS.map(|behaviours| attend_kernel(layers, behaviours, format)))
    };
    Format::ALL.into_iter().flat_map(each).collect()
}

/// Softmax, or the score itself, as target_attention/combine.wgsl numbers weightings.
fn weighting(pooling: DinPooling) -> u32 {
    match pooling {
        DinPooling::Softmax => 0,
        DinPooling::Sum => 3,
    }
}

/// What the dispatches of one call share.
struct Job<'a, T: Element> {
    gpu: &'a Wgpu,
    op: &'a Din,
    plan: &'a DevicePlan,
    layout: &'a Layout,
    activations: [u32; Din::MAX_HIDDEN],
    /// Rows of the histories that are bound at a time.
    window: usize,
    history: Region<'a, T>,
    packed: &'a Binding,
    blocks: &'a Binding,
    vectors: &'a Binding,
    output_bias: &'a Binding,
    partial: &'a Binding,
    out: &'a Binding,
}

pub(super) fn attend<T: Element>(
    gpu: &Wgpu,
    op: &Din,
    batch: &WgpuBatch,
    inputs: &DinInputs<'_, WgpuMemory, T>,
    out: ViewMut<'_, WgpuMemory, T>,
) -> Result<()> {
    let units = check_din(NAME, op, batch.as_ref(), inputs, out.len())?;
    let width = op.width;
    let layout = Layout::new(width, &units, batch.as_ref());
    let history = Region::of(inputs.history);
    let window = gpu.rows_per_binding::<T>(width);
    let bytes = TILE * (MAX_COLUMNS.min(width) + 2) * 4;
    // Twice the iterations, for candidates that are computed again.
    check_width(NAME, width, layout.widest(MOST_ITERATIONS / 2))?;
    let steps = (MOST_ITERATIONS / (2 * layout.iterations_per_step())).max(1);
    let wanted = (steps * layout.behaviours / layout.parallel).min(LONGEST).min(window);
    let longest = longest_piece(batch.as_ref(), 1, TILE, bytes, wanted, window);
    let cut = Cut { rows_per_target: 1, tile_rows: TILE, step: layout.behaviours, longest, pace: PACE };
    let plan = batch.plan(gpu, NAME, &cut)?;
    if plan.plan.tiles.is_empty() {
        return Ok(());
    }
    let candidates = batch.as_ref().targets().total();
    fit(NAME, "out", candidates.saturating_mul(width))?;
    // All memory is allocated first, so that a call that runs out of memory does nothing.
    let output_bias = gpu.bind(NAME, "output_bias", &Region::of(inputs.output_bias))?;
    let sums = plan.plan.slots * TILE;
    let partial = gpu.scratch(NAME, (sums * (MAX_COLUMNS.min(width) + 2)) as u64)?;
    let read = [history.buffer, &output_bias.buffer];
    let out = gpu.output(NAME, "out", &out, candidates * width, &read, &[])?;
    let blocks = gpu.scratch(NAME, layout.blocks.saturating_mul(16) as u64)?;
    let vectors = gpu.scratch(NAME, 4 * layout.first_vector(Din::MAX_HIDDEN) as u64)?;
    let packed = gpu.scratch(NAME, candidates.saturating_mul(4 * layout.target_vec4s()) as u64)?;

    for layer in 0..units.len() {
        fold(gpu, NAME, inputs, &layout, layer, [&blocks, &vectors])?;
    }
    let memory = [&blocks, &vectors, &packed];
    prepare_targets(gpu, NAME, Region::of(inputs.targets), candidates, &layout, memory)?;
    let mut activations = [0; Din::MAX_HIDDEN];
    let codes = inputs.hidden.iter().map(|layer| activation_code(&layer.activation));
    activations.iter_mut().zip(codes).for_each(|(activation, code)| *activation = code);
    let job = Job {
        gpu,
        op,
        plan: &plan,
        layout: &layout,
        activations,
        window,
        history,
        packed: &packed,
        blocks: &blocks,
        vectors: &vectors,
        output_bias: &output_bias,
        partial: &partial,
        out: &out.binding,
    };
    // Rows wider than a workgroup sums take several dispatches, each of which scores again.
    for first_column in (0..width).step_by(MAX_COLUMNS) {
        job.columns(first_column)?;
    }
    gpu.finish(out)
}

impl<T: Element> Job<'_, T> {
    /// Computes up to [`MAX_COLUMNS`] columns of the output.
    fn columns(&self, first_column: usize) -> Result<()> {
        let Self { gpu, plan, layout, .. } = *self;
        let width = self.op.width;
        let columns = MAX_COLUMNS.min(width - first_column);
        let u = |value: usize| value as u32;
        let first_stats = u(plan.plan.slots * TILE * columns);
        let weighting = weighting(self.op.pooling);
        let params = DinAttendParams {
            first_piece: 0,
            width: u(width),
            first_column: u(first_column),
            value_columns: u(columns),
            columns: u(column_vec4s(columns)),
            first_history: 0,
            history_base: 0,
            output_bias_base: self.output_bias.base,
            out_base: self.out.base,
            first_stats,
            weighting,
            units4_0: u(layout.units4[0]),
            units4_1: u(layout.units4[1]),
            units4_2: u(layout.units4[2]),
            activation_0: self.activations[0],
            activation_1: self.activations[1],
            activation_2: self.activations[2],
            first_block_1: u(layout.first_block[1]),
            first_block_2: u(layout.first_block[2]),
            second_place: u(layout.second_place),
            parallel: u(layout.parallel),
            candidate_lanes: u(layout.candidate_lanes()),
        };
        for (pieces, span) in plan.plan.windows(self.window) {
            let history = gpu.bind(NAME, "history", &self.history.rows(span.start, span.len(), width))?;
            let format = history.format_of_rows::<T>(width);
            let kernel = attend_kernel(layout.units.len(), layout.behaviours, format);
            let params = DinAttendParams {
                first_piece: u(pieces.start),
                first_history: u(span.start),
                history_base: history.base,
                ..params
            };
            let bindings = [
                &plan.pieces,
                self.packed,
                &history,
                self.blocks,
                self.vectors,
                self.output_bias,
                self.out,
                self.partial,
            ];
            gpu.dispatch(NAME, &kernel, &params, &bindings, pieces.len() as u64)?;
        }
        let combine = Combine {
            kv_heads: 1,
            group_heads: 1,
            value_width: width,
            first_column,
            value_columns: columns,
            first_stats,
            tile_rows: TILE,
            weighting,
            has_lse: false,
        };
        // The kernel binds an output for log-sum-exps even if it writes none.
        let tiles = (&plan.split_tiles, plan.split_count);
        combine.run(gpu, NAME, tiles, self.partial, self.out, &gpu.no_output(NAME)?)
    }
}
