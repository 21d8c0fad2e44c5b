//! What belongs to behaviours: sums over the slots that keep them, sorted by behaviour, as the gradients of tables are sums by id.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::groups_of;
use crate::webgpu::lookup::backward::sorted_runs;
use crate::webgpu::lookup::runs::{self, Heads, Runs};
use crate::webgpu::lookup::sort::{IdList, Sort, SortedBindings};
use crate::webgpu::selected::backward::call::{Call, NAME};
use crate::webgpu::selected::backward::candidates::Slots;
use crate::webgpu::selected::backward::kernels::{SelectedWindowsParams, windows_kernel};
use crate::webgpu::shader::Format;

/// The gradients of a group's behaviours.
pub(super) struct HistoryGradients<'a, T: Element> {
    slots: &'a Slots<'a, T>,
    /// The slots in the order of behaviours.
    runs: Runs,
}

/// What a behaviour's row is a sum of.
struct Sum<'a> {
    /// Numbers of a row, and of a head's part of it; 0 where the row is the numbers themselves.
    width: usize,
    part_width: usize,
    /// Which kind of numbers.
    kind: usize,
    rows: &'a Binding,
    factor: f32,
    /// Added to what is there.
    adds: bool,
}

impl<'a, T: Element> HistoryGradients<'a, T> {
    /// Sorts the slots.
    pub(super) fn new(slots: &'a Slots<'a, T>) -> Result<Self> {
        let Call { gpu, op, .. } = *slots.call;
        let length = slots.targets.len() * op.top_k;
        // Kernels count up to the end of the last workgroup.
        fit(NAME, "positions", length.saturating_add(1 << 15))?;
        let sort = Sort::new(gpu, NAME, length, slots.rows)?;
        // The second word of each slot.
        let ids = &slots.kept;
        sort.load(&IdList { ids, features: 2, feature: 1, first: 0, length, report: None })?;
        let runs = sorted_runs(&sort, [length, slots.rows])?;
        Ok(Self { slots, runs })
    }

    /// Adds up what is asked for of keys, values and bias, which hold zeros.
    pub(super) fn write(&self, [keys, values, bias]: [Option<Binding>; 3]) -> Result<()> {
        let Call { op, asked, .. } = *self.slots.call;
        let nothing = self.slots.call.gpu.nothing();
        let of_values = Sum {
            width: op.kv_heads * op.value_width,
            part_width: op.value_width,
            kind: 0,
            rows: &self.slots.grad_out,
            factor: 1.0,
            adds: false,
        };
        if let Some(out) = &keys {
            if asked.is_aliased {
                self.sum(&of_values, out)?;
            }
            let of_keys = Sum {
                width: op.kv_heads * op.width,
                part_width: op.width,
                kind: 1,
                rows: &self.slots.inputs.queries,
                factor: op.effective_scale(),
                adds: asked.is_aliased,
            };
            self.sum(&of_keys, out)?;
        }
        if let Some(out) = &values {
            self.sum(&of_values, out)?;
        }
        if let Some(out) = &bias {
            let (width, rows) = (op.heads, &nothing);
            self.sum(&Sum { width, part_width: 0, kind: 1, rows, factor: 1.0, adds: false }, out)?;
        }
        Ok(())
    }

    fn sum(&self, sum: &Sum<'_>, out: &Binding) -> Result<()> {
        let Call { gpu, op, .. } = *self.slots.call;
        let Runs { sorted: SortedBindings { ids, starts, positions, .. }, live, places, .. } = &self.runs;
        runs::check_room(gpu, NAME, *places, sum.width)?;
        let heads = Heads::new(gpu, NAME, &self.runs, sum.width)?;
        let threads = heads.window_threads();
        let params = SelectedWindowsParams {
            threads: threads as u32,
            ids_base: ids.base,
            starts_base: starts.base,
            positions_base: positions.base,
            out_base: out.base,
            width: sum.width as u32,
            part_width: sum.part_width as u32,
            dense: 1,
            heads: op.heads as u32,
            group_heads: (op.heads / op.kv_heads) as u32,
            top_k: op.top_k as u32,
            first_number: self.slots.first_of(sum.kind),
            rows_base: sum.rows.base,
            adds: u32::from(sum.adds),
            factor: sum.factor,
        };
        let whole = sum.part_width > 0 && sum.rows.has_whole_vec4s(sum.part_width);
        let kernel = windows_kernel(Format::of::<T>(whole));
        let numbers = &self.slots.numbers;
        let bindings = [live, ids, starts, positions, numbers, sum.rows, out, &heads.binding];
        gpu.dispatch(NAME, &kernel, &params, &bindings, groups_of(threads))?;
        heads.add_up(gpu, (out, true))?;
        gpu.give_back(&heads.binding.buffer);
        Ok(())
    }
}
