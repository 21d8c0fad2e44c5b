//! What the kernels of attention over a selection read.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::{SelectedAttention, SelectedAttentionInputs};
use crate::webgpu::binding::Binding;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::selected::groups::Group;
use crate::webgpu::state::Wgpu;

/// The sources of kernels that compute a part of a candidate's slots.
pub(in crate::webgpu) const PARTS: &str = include_str!("../../../shaders/selected/parts.wgsl");
pub(in crate::webgpu) const SCORES: &str = include_str!("../../../shaders/selected/scores.wgsl");
pub(in crate::webgpu) const REDUCE: &str = include_str!("../../../shaders/selected/reduce.wgsl");
pub(in crate::webgpu) const WEIGHTED_ROWS: &str =
    include_str!("../../../shaders/selected/weighted_rows.wgsl");

/// The inputs of a call, besides the selection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inputs<'a, T: Element> {
    pub(super) queries: Region<'a, T>,
    keys: Region<'a, T>,
    values: Region<'a, T>,
    bias: Option<Region<'a, f32>>,
    gammas: Option<Region<'a, f32>>,
}

/// Those of a group.
pub(super) struct GroupInputs {
    pub(super) queries: Binding,
    pub(super) keys: Binding,
    pub(super) values: Binding,
    pub(super) bias: Binding,
    pub(super) gammas: Binding,
    pub(super) has_bias: bool,
    pub(super) has_gammas: bool,
}

impl<'a, T: Element> Inputs<'a, T> {
    pub(super) fn of(inputs: &SelectedAttentionInputs<'a, WgpuMemory, T>) -> Self {
        let keys = Region::of(inputs.keys);
        Self {
            queries: Region::of(inputs.queries),
            keys,
            values: inputs.values.map_or(keys, Region::of),
            bias: inputs.bias.map(Region::of),
            gammas: inputs.gammas.map(Region::of),
        }
    }

    /// The buffers that kernels read.
    pub(super) fn buffers(&self) -> Vec<&'a wgpu::Buffer> {
        let mut buffers = vec![self.queries.buffer, self.keys.buffer, self.values.buffer];
        buffers.extend([self.bias, self.gammas].iter().flatten().map(|region| region.buffer));
        buffers
    }

    /// Behaviours that the device binds at a time.
    pub(super) fn rows_per_binding(&self, gpu: &Wgpu, op: &SelectedAttention) -> usize {
        let rows = gpu.rows_per_binding::<T>(op.kv_heads * op.width.max(op.value_width));
        match self.bias {
            Some(_) => rows.min(gpu.rows_per_binding::<f32>(op.heads)),
            None => rows,
        }
    }

    /// Binds those of a group.
    pub(super) fn bind(
        &self,
        gpu: &Wgpu,
        operation: &'static str,
        op: &SelectedAttention,
        group: &Group,
    ) -> Result<GroupInputs> {
        let (first, rows) = (group.history.start, group.history.len());
        let (key_row, value_row) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
        fit(operation, "keys", rows * key_row.max(value_row).max(op.heads))?;
        let candidates = group.targets.len();
        fit(operation, "queries", candidates * op.heads * op.width.max(op.value_width))?;
        let queries = self.queries.rows(group.targets.start, candidates, op.heads * op.width);
        let nothing = || Ok(gpu.nothing());
        let bias = |bias: Region<'_, f32>| gpu.bind(operation, "bias", &bias.rows(first, rows, op.heads));
        let gammas = |gammas: Region<'_, f32>| gpu.bind(operation, "gammas", &gammas);
        Ok(GroupInputs {
            queries: gpu.bind(operation, "queries", &queries)?,
            keys: gpu.bind(operation, "keys", &self.keys.rows(first, rows, key_row))?,
            values: gpu.bind(operation, "values", &self.values.rows(first, rows, value_row))?,
            bias: self.bias.map_or_else(nothing, bias)?,
            gammas: self.gammas.map_or_else(nothing, gammas)?,
            has_bias: self.bias.is_some(),
            has_gammas: self.gammas.is_some(),
        })
    }
}

impl GroupInputs {
    /// Whether queries, keys and values are read as vec4s: all or none, for fewer variants.
    pub(super) fn has_whole_vec4s(&self, op: &SelectedAttention) -> bool {
        let keys = self.queries.has_whole_vec4s(op.width) && self.keys.has_whole_vec4s(op.width);
        keys && self.values.has_whole_vec4s(op.value_width)
    }
}
