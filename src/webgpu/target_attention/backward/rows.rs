//! What the backward pass reads of the candidates, packed: queries, gradients of the output, and the states of softmax.

use std::ops::Range;

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::TargetAttention;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::Region;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;
use crate::webgpu::target_attention::added::{self, Added, AddedParams};
use crate::webgpu::target_attention::attend::split_scale;
use crate::webgpu::target_attention::backward::plan::BackwardPlan;
use crate::webgpu::target_attention::pack_queries::{pack_rows, packed_vec4s};

params! {
    /// Twin of the struct in shaders/target_attention/backward_states.wgsl.
    struct BackwardStatesParams {
        first_piece: u32,
        splits: u32,
        kv_heads: u32,
        group_heads: u32,
        width: u32,
        first_history: u32,
        keys_base: u32,
        values_base: u32,
        bias_base: u32,
        lse_base: u32,
        factor: f32,
        tile: u32,
        chunk: u32,
        shares: u32,
        has_bias: u32,
        has_places: u32,
        last_position: u32,
    }
}

params! {
    /// Twin of the struct in shaders/target_attention/backward_rows.wgsl.
    struct BackwardRowsParams {
        threads: u32,
        kv_heads: u32,
        group_heads: u32,
        value_width: u32,
        out_base: u32,
        grad_out_base: u32,
        lse_base: u32,
        grad_lse_base: u32,
        has_grad_lse: u32,
        tile: u32,
        shares: u32,
    }
}

/// `positions`: whether rows of positions are added to those of the history.
fn states_kernel(positions: bool, history: Format) -> Kernel {
    const KEYS: &str = include_str!("../../../../shaders/target_attention/keys.wgsl");
    const SUMS: &str = include_str!("../../../../shaders/tin/rows.wgsl");
    const STATES: &str = include_str!("../../../../shaders/target_attention/backward_states.wgsl");
    let [keys, values, added] = added::slots(positions, history);
    let second = positions.then_some(values);
    let before = [Slot::plain("pieces", "vec4<u32>"), Slot::plain("rows", "vec4<f32>"), keys];
    let after = [added, Slot::plain("lse_bits", "u32"), Slot::write("states", "f32")];
    Kernel {
        name: "target_attention/backward_states",
        params: &BackwardStatesParams::BLOCK,
        threads: THREADS,
        sources: if positions { &[SUMS, STATES] } else { &[KEYS, STATES] },
        constants: vec![],
        slots: before.into_iter().chain(second).chain(after).collect(),
    }
}

fn rows_kernel(saved: Format, grad_out: Format) -> Kernel {
    Kernel {
        name: "target_attention/backward_rows",
        params: &BackwardRowsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/target_attention/backward_rows.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("tiles", "vec4<u32>"),
            Slot::read("saved", saved),
            Slot::read("grad_out", grad_out),
            Slot::plain("lse_bits", "u32"),
            Slot::read("grad_lse", Format::f32(false)),
            Slot::plain("span_states", "f32"),
            Slot::write("states", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let each = |format: Format| {
        let states = [false, true].map(|positions| states_kernel(positions, format));
        // What comes in is of the storage type of what was saved, or f32.
        let wide = Some(Format::f32(format.vectors)).filter(|&wide| wide != format);
        let rows = [Some(format), wide].into_iter().flatten().map(move |grad| rows_kernel(format, grad));
        states.into_iter().chain(rows)
    };
    Format::ALL.into_iter().flat_map(each).collect()
}

/// The packed rows of all tiles, in one buffer.
pub(super) struct PackedRows {
    pub(super) all: Binding,
    /// Where the gradients of the output and the states begin, in vec4s.
    pub(super) first_grad_out: u32,
    pub(super) first_state: u32,
}

/// What softmax needs of the forward pass, and the gradients that come in.
pub(super) struct Saved<'a, Q: Element, T: Element> {
    pub(super) out: Region<'a, T>,
    pub(super) lse: Region<'a, f32>,
    pub(super) grad_out: Region<'a, Q>,
    pub(super) grad_lse: Option<Region<'a, f32>>,
}

/// The histories of some pieces, as bound for them.
pub(super) struct Window<'a> {
    pub(super) pieces: &'a Range<usize>,
    pub(super) span: &'a Range<usize>,
    pub(super) keys: Binding,
    /// Values, or the table of positions.
    pub(super) values: Binding,
    /// Bias, or positions.
    pub(super) added: Binding,
}

/// What every dispatch reads.
pub(super) struct Job<'a> {
    pub(super) gpu: &'a Wgpu,
    pub(super) operation: &'static str,
    pub(super) op: &'a TargetAttention,
    pub(super) added: Added<'a>,
    /// Whether the keys are the values.
    pub(super) aliased: bool,
    pub(super) plan: &'a BackwardPlan,
    pub(super) tiles: Binding,
    pub(super) pieces: Binding,
}

impl Job<'_> {
    fn sizes(&self, width: usize) -> [usize; 4] {
        [self.op.heads, self.op.kv_heads, width, self.plan.tile_rows]
    }

    /// Packs queries and gradients of the output; leaves room for the states.
    pub(super) fn pack<Q: Element>(
        &self,
        queries: Region<'_, Q>,
        grad_out: Region<'_, Q>,
    ) -> Result<PackedRows> {
        let Self { gpu, operation, op, .. } = *self;
        let tiles = (&self.tiles, self.plan.tile_count());
        let (queries_sizes, grads_sizes) = (self.sizes(op.width), self.sizes(op.value_width));
        let [first_grad_out, first_state, vec4s] = packed_parts(op, self.plan);
        let all = gpu.scratch(operation, u64::from(fit(operation, "queries", vec4s)?) * 4)?;
        let (first_grad_out, first_state) = (first_grad_out as u32, first_state as u32);
        let part = |first| part(&all, first);
        pack_rows(
            gpu,
            (operation, "queries"),
            tiles,
            queries_sizes,
            split_scale(op.effective_scale()).0,
            queries,
            &part(0),
        )?;
        pack_rows(
            gpu,
            (operation, "grad_out.out"),
            tiles,
            grads_sizes,
            1.0,
            grad_out,
            &part(first_grad_out),
        )?;
        Ok(PackedRows { first_grad_out, first_state, all })
    }

    /// Computes the softmax states of the spans again, of rows that need it.
    pub(super) fn span_states<T: Element>(
        &self,
        rows: &PackedRows,
        lse: &Binding,
        states: &Binding,
        window: &Window<'_>,
    ) -> Result<()> {
        let Self { gpu, operation, op, plan, .. } = *self;
        let Window { keys, values, added, .. } = window;
        let AddedParams { has_bias, has_places, last_position } = self.added.params();
        let params = BackwardStatesParams {
            first_piece: window.pieces.start as u32,
            splits: plan.states.splits as u32,
            kv_heads: op.kv_heads as u32,
            group_heads: (op.heads / op.kv_heads) as u32,
            width: op.width as u32,
            first_history: window.span.start as u32,
            keys_base: keys.base,
            values_base: values.base,
            bias_base: added.base,
            lse_base: lse.base,
            factor: split_scale(op.effective_scale()).1,
            tile: plan.tile_rows as u32,
            chunk: plan.states.chunk as u32,
            shares: plan.shares as u32,
            has_bias,
            has_places,
            last_position,
        };
        let positions = self.added.is_positions();
        let vectors = keys.has_whole_vec4s(op.width) && (!positions || values.has_whole_vec4s(op.width));
        let kernel = states_kernel(positions, Format::of::<T>(vectors));
        let second = positions.then_some(values);
        let groups = (window.pieces.len() * op.kv_heads * plan.states.splits) as u64;
        let before = [&self.pieces, &rows.all, keys];
        let bindings: Vec<_> = before.into_iter().chain(second).chain([added, lse, states]).collect();
        gpu.dispatch(operation, &kernel, &params, &bindings, groups)
    }

    /// Writes the states of all rows.
    pub(super) fn row_states<Q: Element, T: Element>(
        &self,
        rows: &PackedRows,
        saved: &Saved<'_, Q, T>,
        span_states: &Binding,
    ) -> Result<()> {
        let Self { gpu, operation, op, plan, .. } = *self;
        let out = gpu.bind(operation, "saved.out", &saved.out)?;
        let grad_out = gpu.bind(operation, "grad_out.out", &saved.grad_out)?;
        let lse = gpu.bind(operation, "saved.lse", &saved.lse)?;
        let grad_lse = match &saved.grad_lse {
            Some(grad_lse) => gpu.bind(operation, "grad_out.lse", grad_lse)?,
            None => gpu.nothing(),
        };
        let threads = plan.tile_count() * op.kv_heads * plan.tile_rows;
        let params = BackwardRowsParams {
            threads: fit(operation, "queries", threads)?,
            kv_heads: op.kv_heads as u32,
            group_heads: (op.heads / op.kv_heads) as u32,
            value_width: op.value_width as u32,
            out_base: out.base,
            grad_out_base: grad_out.base,
            lse_base: lse.base,
            grad_lse_base: grad_lse.base,
            has_grad_lse: u32::from(saved.grad_lse.is_some()),
            tile: plan.tile_rows as u32,
            shares: plan.shares as u32,
        };
        let vectors = out.has_whole_vec4s(op.value_width) && grad_out.has_whole_vec4s(op.value_width);
        let kernel = rows_kernel(Format::of::<T>(vectors), Format::of::<Q>(vectors));
        let states = part(&rows.all, rows.first_state);
        let bindings = [&self.tiles, &out, &grad_out, &lse, &grad_lse, span_states, &states];
        gpu.dispatch(operation, &kernel, &params, &bindings, groups_of(threads))
    }
}

/// Where the packed gradients of the output, and the states, begin, and where they end, in vec4s.
pub(super) fn packed_parts(op: &TargetAttention, plan: &BackwardPlan) -> [usize; 3] {
    let packed =
        |width: usize| packed_vec4s(plan.tile_count(), [op.heads, op.kv_heads, width, plan.tile_rows]);
    // Bindings start at multiples of 256 bytes.
    let first_grad_out = packed(op.width).next_multiple_of(16);
    let first_state = (first_grad_out + packed(op.value_width)).next_multiple_of(16);
    [first_grad_out, first_state, first_state + 3 * plan.tile_count() * op.kv_heads * plan.tile_rows / 4]
}

/// The part of a binding from a vec4 on, which is a multiple of 16.
fn part(all: &Binding, first: u32) -> Binding {
    let skipped = u64::from(first) * 16;
    Binding { offset: all.offset + skipped, size: all.size - skipped, ..all.clone() }
}
