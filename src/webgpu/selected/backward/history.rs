//! What belongs to behaviours: sums over the slots that keep them, sorted by behaviour, as the gradients of tables are sums by id.

use crate::element::Element;
use crate::error::Result;
use crate::webgpu::binding::Binding;
use crate::webgpu::selected::backward::call::Call;
use crate::webgpu::selected::backward::candidates::Slots;
use crate::webgpu::selected::sums::{ByBehaviour, OfBehaviours};

/// The gradients of a group's behaviours.
pub(super) struct HistoryGradients<'a, T: Element> {
    slots: &'a Slots<'a, T>,
    order: ByBehaviour<'a>,
}

impl<'a, T: Element> HistoryGradients<'a, T> {
    /// Sorts the slots.
    pub(super) fn new(slots: &'a Slots<'a, T>) -> Result<Self> {
        let (Call { gpu, operation, .. }, numbers) = (*slots.call, slots.numbers(0));
        let order = ByBehaviour::new(gpu, operation, &numbers, slots.targets.len(), slots.rows)?;
        Ok(Self { slots, order })
    }

    /// Adds up what is asked for of keys, values and bias, which hold zeros.
    pub(super) fn write(&self, [keys, values, bias]: [Option<Binding>; 3]) -> Result<()> {
        let Call { op, asked, .. } = *self.slots.call;
        let nothing = self.slots.call.gpu.nothing();
        let of_values = OfBehaviours {
            width: op.kv_heads * op.value_width,
            part_width: op.value_width,
            rows: &self.slots.grad_out,
            first_row: 0,
            factor: 1.0,
            adds: false,
            first_column: 0,
            dense: true,
        };
        if let Some(out) = &keys {
            if asked.is_aliased {
                self.sum(0, &of_values, out)?;
            }
            let of_keys = OfBehaviours {
                width: op.kv_heads * op.width,
                part_width: op.width,
                rows: &self.slots.inputs.queries,
                factor: op.effective_scale(),
                adds: asked.is_aliased,
                ..of_values
            };
            self.sum(1, &of_keys, out)?;
        }
        if let Some(out) = &values {
            self.sum(0, &of_values, out)?;
        }
        if let Some(out) = &bias {
            self.sum(1, &OfBehaviours { width: op.heads, part_width: 0, rows: &nothing, ..of_values }, out)?;
        }
        Ok(())
    }

    fn sum(&self, kind: usize, sum: &OfBehaviours<'_>, out: &Binding) -> Result<()> {
        self.order.sum::<T>(&self.slots.numbers(kind), sum, out)
    }
}
