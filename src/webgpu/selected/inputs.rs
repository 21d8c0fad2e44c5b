//! What the kernels of attention over a selection read.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::{SelectedAttention, SelectedAttentionInputs, SelectedTableInputs};
use crate::webgpu::binding::Binding;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::selected::groups::Group;
use crate::webgpu::selected::tables::{SlotRows, TableRows};
use crate::webgpu::shader::Format;
use crate::webgpu::state::Wgpu;

/// The sources of kernels that compute a part of a candidate's slots.
pub(in crate::webgpu) const PARTS: &str = include_str!("../../../shaders/selected/parts.wgsl");
pub(in crate::webgpu) const SCORES: &str = include_str!("../../../shaders/selected/scores.wgsl");
pub(in crate::webgpu) const REDUCE: &str = include_str!("../../../shaders/selected/reduce.wgsl");
pub(in crate::webgpu) const WEIGHTED_ROWS: &str =
    include_str!("../../../shaders/selected/weighted_rows.wgsl");

/// The formats of what candidates have, and of keys and values: the same, or rows that were gathered as `f32`.
pub(super) fn formats() -> impl Iterator<Item = [Format; 2]> {
    let gathered = Format::ALL.map(|format| [format, Format::f32(format.vectors)]);
    let gathered = gathered.into_iter().filter(|[format, rows]| format != rows);
    Format::ALL.map(|format| [format; 2]).into_iter().chain(gathered)
}

/// Keys and values.
#[derive(Clone, Copy)]
enum RowsOf<'a, T: Element> {
    Behaviours { keys: Region<'a, T>, values: Region<'a, T> },
    Tables(TableRows<'a, T>),
}

/// The inputs of a call, besides the selection.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a, T: Element> {
    pub(super) queries: Region<'a, T>,
    rows: RowsOf<'a, T>,
    bias: Option<Region<'a, f32>>,
    gammas: Option<Region<'a, f32>>,
}

/// Those of a group.
pub(super) struct GroupInputs {
    /// `[C, K]`: (similarity, row of keys, values and bias, or `NONE`).
    pub(super) kept: Binding,
    pub(super) queries: Binding,
    pub(super) keys: Binding,
    pub(super) values: Binding,
    pub(super) bias: Binding,
    pub(super) gammas: Binding,
    pub(super) has_bias: bool,
    pub(super) has_gammas: bool,
    /// Keys and values were gathered as `f32`.
    pub(super) are_gathered: bool,
}

impl<'a, T: Element> Inputs<'a, T> {
    pub(super) fn of(inputs: &SelectedAttentionInputs<'a, WgpuMemory, T>) -> Self {
        let keys = Region::of(inputs.keys);
        Self {
            queries: Region::of(inputs.queries),
            rows: RowsOf::Behaviours { keys, values: inputs.values.map_or(keys, Region::of) },
            bias: inputs.bias.map(Region::of),
            gammas: inputs.gammas.map(Region::of),
        }
    }

    pub(super) fn of_tables(inputs: &SelectedTableInputs<'a, WgpuMemory, T>) -> Self {
        Self {
            queries: Region::of(inputs.queries),
            rows: RowsOf::Tables(TableRows::of(inputs)),
            bias: inputs.bias.map(Region::of),
            gammas: inputs.gammas.map(Region::of),
        }
    }

    /// The buffers that kernels read.
    pub(super) fn buffers(&self) -> Vec<&'a wgpu::Buffer> {
        let mut buffers = vec![self.queries.buffer];
        match &self.rows {
            RowsOf::Behaviours { keys, values } => buffers.extend([keys.buffer, values.buffer]),
            RowsOf::Tables(tables) => buffers.extend(tables.buffers()),
        }
        buffers.extend([self.bias, self.gammas].iter().flatten().map(|region| region.buffer));
        buffers
    }

    /// Behaviours that the device binds at a time.
    pub(super) fn rows_per_binding(&self, gpu: &Wgpu, op: &SelectedAttention) -> usize {
        let rows = match &self.rows {
            RowsOf::Behaviours { .. } => {
                gpu.rows_per_binding::<T>(op.kv_heads * op.width.max(op.value_width))
            }
            RowsOf::Tables(tables) => tables.rows_per_binding(gpu, op),
        };
        match self.bias {
            Some(_) => rows.min(gpu.rows_per_binding::<f32>(op.heads)),
            None => rows,
        }
    }

    /// The bytes of the largest of what is gathered for a candidate.
    pub(super) fn gathered_bytes(&self, op: &SelectedAttention) -> usize {
        match &self.rows {
            RowsOf::Behaviours { .. } => 0,
            RowsOf::Tables(tables) => {
                let row = op.kv_heads.saturating_mul(op.width.max(op.value_width)).max(op.heads);
                op.top_k.saturating_mul(row.max(tables.values.len())).saturating_mul(4)
            }
        }
    }

    /// Binds those of a group, of which the selection keeps `kept`: (similarity, row of the group's history). Rows of tables are gathered,
    /// by ids that go to `slot_ids`, if that is given.
    pub(super) fn bind(
        &self,
        gpu: &Wgpu,
        (operation, op): (&'static str, &SelectedAttention),
        group: &Group,
        kept: &Binding,
        slot_ids: Option<&Binding>,
    ) -> Result<GroupInputs> {
        let (first, rows, candidates) = (group.history.start, group.history.len(), group.targets.len());
        let (key_row, value_row) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
        fit(operation, "queries", candidates * op.heads * op.width.max(op.value_width))?;
        let queries = self.queries.rows(group.targets.start, candidates, op.heads * op.width);
        let are_gathered = matches!(self.rows, RowsOf::Tables(_));
        let of_slots = match &self.rows {
            RowsOf::Behaviours { keys, values } => {
                fit(operation, "keys", rows * key_row.max(value_row).max(op.heads))?;
                let bias =
                    |bias: Region<'_, f32>| gpu.bind(operation, "bias", &bias.rows(first, rows, op.heads));
                SlotRows {
                    kept: kept.clone(),
                    keys: gpu.bind(operation, "keys", &keys.rows(first, rows, key_row))?,
                    values: gpu.bind(operation, "values", &values.rows(first, rows, value_row))?,
                    bias: self.bias.map(bias).transpose()?,
                }
            }
            RowsOf::Tables(tables) => {
                let words = (candidates * op.top_k).saturating_mul(tables.values.len());
                let own = match slot_ids {
                    Some(ids) => ids.clone(),
                    None => gpu.scratch(operation, words as u64)?,
                };
                tables.gather(gpu, (operation, op), group, (kept, &own), self.bias)?
            }
        };
        let gammas = |gammas: Region<'_, f32>| gpu.bind(operation, "gammas", &gammas);
        Ok(GroupInputs {
            kept: of_slots.kept,
            queries: gpu.bind(operation, "queries", &queries)?,
            keys: of_slots.keys,
            values: of_slots.values,
            bias: of_slots.bias.unwrap_or_else(|| gpu.nothing()),
            gammas: self.gammas.map_or_else(|| Ok(gpu.nothing()), gammas)?,
            has_bias: self.bias.is_some(),
            has_gammas: self.gammas.is_some(),
            are_gathered,
        })
    }
}

impl GroupInputs {
    /// Whether queries, keys and values are read as vec4s: all or none, for fewer variants.
    pub(super) fn has_whole_vec4s(&self, op: &SelectedAttention) -> bool {
        let keys = self.queries.has_whole_vec4s(op.width) && self.keys.has_whole_vec4s(op.width);
        keys && self.values.has_whole_vec4s(op.value_width)
    }

    /// The formats of queries, and of keys and values.
    pub(super) fn formats<T: Element>(&self, whole: bool) -> [Format; 2] {
        let queries = Format::of::<T>(whole);
        [queries, if self.are_gathered { Format::f32(whole) } else { queries }]
    }
}
