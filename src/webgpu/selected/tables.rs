//! Keys and values that are rows of embedding tables: those of the slots of some candidates are gathered as `f32`, so that each slot has a
//! row of its own, which the kernels read instead of those of behaviours.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::{SelectedAttention, SelectedKeys, SelectedTableInputs, Table};
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::lookup::{Gather, Pooling};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::selected::groups::Group;
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;
use crate::webgpu::tables::{BoundTable, buffers_of};

params! {
    /// Twin of the struct in shaders/selected/slots.wgsl.
    struct SelectedSlotsParams {
        threads: u32,
        features: u32,
        ids_base: u32,
        slot_ids_base: u32,
    }
}

fn slots_kernel() -> Kernel {
    Kernel {
        name: "selected/slots",
        params: &SelectedSlotsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/selected/slots.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("kept", "vec2<u32>"),
            Slot::plain("ids", "u32"),
            Slot::write("own_kept", "vec2<u32>"),
            Slot::write("behaviours", "u32"),
            Slot::write("slot_ids", "u32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    vec![slots_kernel()]
}

/// Where keys come from.
#[derive(Clone, Copy)]
pub(super) enum KeyRows<'a, T: Element> {
    Given(Region<'a, T>),
    Tables(&'a [Table<'a, WgpuMemory>]),
    Values,
}

/// Where keys and values come from.
#[derive(Clone, Copy)]
pub(super) struct TableRows<'a, T: Element> {
    pub(super) keys: KeyRows<'a, T>,
    pub(super) values: &'a [Table<'a, WgpuMemory>],
    /// `[N, F]`.
    pub(super) ids: Region<'a, u32>,
}

/// The rows of slots.
pub(super) struct SlotRows {
    /// `[C, K]`: (similarity, slot or `NONE`).
    pub(super) kept: Binding,
    pub(super) keys: Binding,
    pub(super) values: Binding,
    pub(super) bias: Option<Binding>,
}

impl<'a, T: Element> TableRows<'a, T> {
    pub(super) fn of(inputs: &SelectedTableInputs<'a, WgpuMemory, T>) -> Self {
        let keys = match inputs.keys {
            SelectedKeys::Rows(keys) => KeyRows::Given(Region::of(keys)),
            SelectedKeys::Tables(tables) => KeyRows::Tables(tables),
            SelectedKeys::Values => KeyRows::Values,
        };
        Self { keys, values: inputs.values, ids: Region::of(inputs.history_ids) }
    }

    /// The buffers that kernels read.
    pub(super) fn buffers(&self) -> Vec<&'a wgpu::Buffer> {
        let mut buffers = buffers_of(self.values);
        buffers.push(self.ids.buffer);
        match self.keys {
            KeyRows::Given(keys) => buffers.push(keys.buffer),
            KeyRows::Tables(tables) => buffers.extend(buffers_of(tables)),
            KeyRows::Values => {}
        }
        buffers
    }

    /// Behaviours whose ids, and keys that are rows, the device binds at a time.
    pub(super) fn rows_per_binding(&self, gpu: &Wgpu, op: &SelectedAttention) -> usize {
        let ids = gpu.rows_per_binding::<u32>(self.values.len());
        match self.keys {
            KeyRows::Given(_) => ids.min(gpu.rows_per_binding::<T>(op.kv_heads * op.width)),
            _ => ids,
        }
    }

    /// Gathers the rows of `kept`, the slots of a group, whose ids go to `slot_ids`.
    pub(super) fn gather(
        &self,
        gpu: &Wgpu,
        (operation, op): (&'static str, &SelectedAttention),
        group: &Group,
        (kept, slot_ids): (&Binding, &Binding),
        bias: Option<Region<'_, f32>>,
    ) -> Result<SlotRows> {
        let (first, rows, features) = (group.history.start, group.history.len(), self.values.len());
        let slots = group.targets.len() * op.top_k;
        let threads = fit(operation, "history_ids", slots.saturating_mul(features))?;
        fit(operation, "history_ids", rows.saturating_mul(features))?;
        let ids = gpu.bind(operation, "history_ids", &self.ids.rows(first, rows, features))?;
        let (own_kept, behaviours) =
            (gpu.scratch(operation, 2 * slots as u64)?, gpu.scratch(operation, slots as u64)?);
        let params = SelectedSlotsParams {
            threads,
            features: features as u32,
            ids_base: ids.base,
            slot_ids_base: slot_ids.base,
        };
        let bindings = [kept, &ids, &own_kept, &behaviours, slot_ids];
        gpu.dispatch(operation, &slots_kernel(), &params, &bindings, groups_of(threads as usize))?;
        let gather = |ids, features: usize, width: usize| Gather {
            operation,
            ids,
            features,
            rows: slots,
            pooling: Pooling::Each,
            width,
            multiply: false,
            padded: false,
            report: None,
        };
        let of_tables = |tables: &[Table<'_, WgpuMemory>], width: usize| -> Result<Binding> {
            let out = gpu.scratch(operation, slots.saturating_mul(width) as u64)?;
            gather(slot_ids, features, width).run(gpu, tables, &[], &out)?;
            Ok(out)
        };
        let of_rows = |table: BoundTable, width: usize| -> Result<Binding> {
            let out = gpu.scratch(operation, slots.saturating_mul(width) as u64)?;
            gather(&behaviours, 1, width).bound(gpu, &table, &out)?;
            Ok(out)
        };
        let (key_row, value_row) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
        let values = of_tables(self.values, value_row)?;
        let keys = match self.keys {
            KeyRows::Given(keys) => {
                fit(operation, "keys", rows.saturating_mul(key_row))?;
                let keys = gpu.bind(operation, "keys", &keys.rows(first, rows, key_row))?;
                of_rows(BoundTable::of_rows::<T>(gpu, keys, rows as u32, key_row), key_row)?
            }
            KeyRows::Tables(tables) => of_tables(tables, key_row)?,
            KeyRows::Values => values.clone(),
        };
        let bias = match bias {
            Some(bias) => {
                fit(operation, "bias", rows.saturating_mul(op.heads))?;
                let bias = gpu.bind(operation, "bias", &bias.rows(first, rows, op.heads))?;
                Some(of_rows(BoundTable::of_rows::<f32>(gpu, bias, rows as u32, op.heads), op.heads)?)
            }
            None => None,
        };
        Ok(SlotRows { kept: own_kept, keys, values, bias })
    }
}
