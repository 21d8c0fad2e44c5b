//! The gradients of keys, values and bias, and partial results of those of the queries.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::weighting_of;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::THREADS;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::target_attention::added::{self, AddedParams};
use crate::webgpu::target_attention::attend::split_scale;
use crate::webgpu::target_attention::backward::rows::{Job, PackedRows, Window};

params! {
    /// Twin of the struct in shaders/target_attention/backward_scores.wgsl.
    struct BackwardParams {
        first_piece: u32,
        first_tile: u32,
        last_tile: u32,
        kv_heads: u32,
        group_heads: u32,
        width: u32,
        value_width: u32,
        value_stride: u32,
        first_history: u32,
        keys_base: u32,
        values_base: u32,
        bias_base: u32,
        grad_keys_base: u32,
        grad_values_base: u32,
        first_grad_out: u32,
        first_state: u32,
        first_bias: u32,
        factor: f32,
        query_factor: f32,
        divisor: f32,
        tile: u32,
        shares: u32,
        weighting: u32,
        has_bias: u32,
        wants: u32,
        aliased: u32,
        has_places: u32,
        last_position: u32,
    }
}

/// `group4`: vec4s of rows per thread; 1 for a tile of 4 rows, otherwise 2. `positions`: whether rows of positions are added to those
/// of the history.
fn backward_kernel(group4: u32, positions: bool, history: Format) -> Kernel {
    const KEYS: &str = include_str!("../../../../shaders/target_attention/keys.wgsl");
    const VALUES: &str = include_str!("../../../../shaders/target_attention/values.wgsl");
    const SUMS: &str = include_str!("../../../../shaders/tin/rows.wgsl");
    const SCORES: &str = include_str!("../../../../shaders/target_attention/backward_scores.wgsl");
    const BACKWARD: &str = include_str!("../../../../shaders/target_attention/backward.wgsl");
    let [keys, values, added] = added::slots(positions, history);
    Kernel {
        name: "target_attention/backward",
        params: &BackwardParams::BLOCK,
        threads: THREADS,
        sources: if positions { &[SUMS, SCORES, BACKWARD] } else { &[KEYS, VALUES, SCORES, BACKWARD] },
        constants: vec![("GROUP4", group4)],
        slots: vec![
            Slot::plain("pieces", "vec4<u32>"),
            Slot::plain("rows", "vec4<f32>"),
            keys,
            values,
            added,
            Slot::write("grad_keys", "f32"),
            Slot::write("grad_values", "f32"),
            Slot::write("partial", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let each = |format| {
        [(1, false), (2, false), (1, true), (2, true)]
            .map(|(group4, positions)| backward_kernel(group4, positions, format))
    };
    Format::ALL.into_iter().flat_map(each).collect()
}

/// What the dispatches of all windows share.
pub(super) struct History<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) rows: &'a PackedRows,
    /// Partial results of the queries, then the gradients of the bias of a window.
    pub(super) partial: &'a Binding,
    pub(super) first_bias: u32,
}

/// The gradients that are asked for.
pub(super) struct Written<'a> {
    pub(super) queries: bool,
    pub(super) keys: Option<&'a Binding>,
    pub(super) values: Option<&'a Binding>,
    pub(super) bias: bool,
}

impl Written<'_> {
    /// The bits of `wants` in the shader.
    fn bits(&self, aliased: bool) -> u32 {
        let values = if aliased { self.keys.is_some() } else { self.values.is_some() };
        let bits = [self.queries, self.keys.is_some(), values, self.bias];
        bits.iter().enumerate().map(|(bit, &wanted)| u32::from(wanted) << bit).sum()
    }
}

impl History<'_> {
    /// Computes what is asked for of one window.
    pub(super) fn gradients<T: Element>(&self, window: &Window<'_>, written: &Written<'_>) -> Result<()> {
        let Job { gpu, operation, op, plan, aliased, .. } = *self.job;
        if written.bits(aliased) == 0 {
            return Ok(());
        }
        let (no_keys, no_values) = (gpu.no_output(operation)?, gpu.no_output(operation)?);
        let (grad_keys, grad_values) =
            (written.keys.unwrap_or(&no_keys), written.values.unwrap_or(&no_values));
        let Window { keys, values, added, .. } = window;
        let vectors = keys.has_whole_vec4s(op.width) && values.has_whole_vec4s(op.value_width);
        let (group4, positions) = (if plan.tile_rows == 4 { 1 } else { 2 }, self.job.added.is_positions());
        let kernel = backward_kernel(group4, positions, Format::of::<T>(vectors));
        let AddedParams { has_bias, has_places, last_position } = self.job.added.params();
        let (weighting, divisor) = weighting_of(op.weighting);
        let (query_factor, factor) = split_scale(op.effective_scale());
        let groups = (window.pieces.len() * op.kv_heads) as u64;
        for first_tile in (0..plan.most_tiles.max(1)).step_by(plan.tiles_per_dispatch) {
            let params = BackwardParams {
                first_piece: window.pieces.start as u32,
                first_tile: first_tile as u32,
                last_tile: (first_tile + plan.tiles_per_dispatch) as u32,
                kv_heads: op.kv_heads as u32,
                group_heads: (op.heads / op.kv_heads) as u32,
                width: op.width as u32,
                value_width: op.value_width as u32,
                value_stride: (op.kv_heads * op.value_width) as u32,
                first_history: window.span.start as u32,
                keys_base: keys.base,
                values_base: values.base,
                bias_base: added.base,
                grad_keys_base: grad_keys.base,
                grad_values_base: grad_values.base,
                first_grad_out: self.rows.first_grad_out,
                first_state: self.rows.first_state,
                first_bias: self.first_bias,
                factor,
                query_factor,
                // 0 stands for the length of the user's history.
                divisor: divisor.unwrap_or(0.0),
                tile: plan.tile_rows as u32,
                shares: plan.shares as u32,
                weighting,
                has_bias,
                wants: written.bits(aliased),
                aliased: aliased.into(),
                has_places,
                last_position,
            };
            let bindings =
                [&self.job.pieces, &self.rows.all, keys, values, added, grad_keys, grad_values, self.partial];
            gpu.dispatch(operation, &kernel, &params, &bindings, groups)?;
        }
        Ok(())
    }
}
