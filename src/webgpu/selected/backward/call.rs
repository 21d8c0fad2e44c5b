//! What the passes of gradients of attention over a selection share.

use crate::element::Element;
use crate::ops::SelectedAttention;
use crate::webgpu::binding::Binding;
use crate::webgpu::memory::Region;
use crate::webgpu::selected::groups::Limits;
use crate::webgpu::selected::inputs::Inputs;
use crate::webgpu::selected::parts::Parts;
use crate::webgpu::state::Wgpu;

pub(super) const NAME: &str = "selected_attention_backward";
pub(super) const OF_TABLES: &str = "selected_table_attention_backward";

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) queries: bool,
    pub(super) keys: bool,
    pub(super) values: bool,
    pub(super) bias: bool,
    pub(super) gammas: bool,
    pub(super) similarities: bool,
    /// The keys are the values, and get the gradients of both.
    pub(super) is_aliased: bool,
    /// Tables that get something from gradients of scores, and from weights.
    pub(super) tables: [bool; 2],
}

impl Asked {
    /// Whether anything depends on the gradients of scores.
    pub(super) fn scores(self) -> bool {
        self.queries || self.keys || self.bias || self.gammas || self.similarities || self.tables[0]
    }

    /// Whether a behaviour gets anything.
    pub(super) fn history(self) -> bool {
        self.keys || self.values || self.bias
    }

    /// The kinds of numbers that slots have.
    pub(super) fn kinds(self) -> usize {
        if self.similarities { 3 } else { 2 }
    }

    pub(super) fn is_any(self) -> bool {
        self.scores() || self.values || self.tables[1]
    }
}

/// What the slots of all candidates have, where tables get gradients.
pub(super) struct AllSlots {
    /// As [`Slots::numbers`](super::candidates::Slots), and how many there are of a kind.
    pub(super) numbers: Binding,
    pub(super) count: usize,
    /// `[M, K, F]`: the ids of what they keep.
    pub(super) ids: Binding,
    pub(super) features: usize,
}

/// A call.
#[derive(Clone, Copy)]
pub(super) struct Call<'a, T: Element> {
    pub(super) gpu: &'a Wgpu,
    pub(super) operation: &'static str,
    pub(super) op: &'a SelectedAttention,
    pub(super) inputs: Inputs<'a, T>,
    pub(super) grad_out: Region<'a, T>,
    pub(super) grad_lse: Option<Region<'a, f32>>,
    pub(super) asked: Asked,
    pub(super) parts: Parts,
    pub(super) all: Option<&'a AllSlots>,
}

impl<T: Element> Call<'_, T> {
    /// What may be computed at a time.
    pub(super) fn limits(&self) -> Limits {
        let Self { gpu, op, asked, parts, .. } = *self;
        // The largest of what is kept of a candidate: α and products of its slots, or partial gradients of its queries.
        let pairs = op.top_k.saturating_mul(op.heads).saturating_mul(16);
        let queries = if parts.parts > 1 { parts.parts * op.heads * op.width * 4 } else { 0 };
        let mut rows = self.inputs.rows_per_binding(gpu, op);
        for (asked, width) in [
            (asked.keys, op.kv_heads * op.width),
            (asked.values, op.kv_heads * op.value_width),
            (asked.bias, op.heads),
        ] {
            if asked {
                rows = rows.min(gpu.rows_per_binding::<f32>(width));
            }
        }
        let largest = gpu.limits().max_storage_buffer_binding_size;
        Limits::new(rows, pairs.max(queries).max(self.inputs.gathered_bytes(op)), largest, true)
    }

    /// The buffers that kernels read.
    pub(super) fn buffers(&self) -> Vec<&wgpu::Buffer> {
        let mut buffers = self.inputs.buffers();
        buffers.push(self.grad_out.buffer);
        buffers.extend(self.grad_lse.map(|grad_lse| grad_lse.buffer));
        buffers
    }
}

/// A binding from so many words on.
pub(super) fn from_word(binding: &Binding, words: usize) -> Binding {
    Binding { base: binding.base + words as u32, ..binding.clone() }
}
