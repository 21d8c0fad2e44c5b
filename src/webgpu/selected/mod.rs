//! Attention over a selection, its gradients, and histograms of similarities.
//!
//! A workgroup computes one head of a candidate, whose kept rows it gathers: several threads share a row, so that loads are coalesced.
//! Candidates are computed in groups (`groups.rs`), so that neither histories nor what passes leave for one another exceed a binding.

mod attend;
mod backward;
pub(in crate::webgpu) mod groups;
mod histogram;
pub(in crate::webgpu) mod inputs;
mod newest;
pub(in crate::webgpu) mod parts;
pub(in crate::webgpu) mod sums;
mod tables;

use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::memory::ViewMut;
use crate::ops::*;
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::memory::WgpuMemory;
use crate::webgpu::shader::Kernel;
use crate::webgpu::state::Wgpu;

impl SelectedOps for Wgpu {
    fn selected_attention_into<T: Element>(
        &self,
        op: &SelectedAttention,
        batch: &WgpuBatch,
        inputs: SelectedAttentionInputs<'_, WgpuMemory, T>,
        outputs: SelectedAttentionOutputs<'_, WgpuMemory, T>,
    ) -> Result<()> {
        self.call(|gpu| attend::attend(gpu, op, batch, &inputs, outputs))
    }

    fn selected_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &SelectedAttention,
        batch: &WgpuBatch,
        inputs: SelectedAttentionInputs<'_, WgpuMemory, T>,
        grad_out: SelectedAttentionGradOut<'_, WgpuMemory, T>,
        grads: SelectedAttentionGradients<'_, WgpuMemory, G>,
    ) -> Result<()> {
        self.call(|gpu| backward::backward(gpu, op, batch, (&inputs, &grad_out), grads))
    }

    fn selected_table_attention_into<T: Element>(
        &self,
        op: &SelectedAttention,
        batch: &WgpuBatch,
        inputs: SelectedTableInputs<'_, WgpuMemory, T>,
        outputs: SelectedAttentionOutputs<'_, WgpuMemory, T>,
    ) -> Result<()> {
        self.call(|gpu| attend::attend_to_tables(gpu, op, batch, &inputs, outputs))
    }

    fn selected_table_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &SelectedAttention,
        batch: &WgpuBatch,
        inputs: SelectedTableInputs<'_, WgpuMemory, T>,
        grad_out: SelectedAttentionGradOut<'_, WgpuMemory, T>,
        grads: SelectedTableGradients<'_, WgpuMemory, G>,
    ) -> Result<()> {
        self.call(|gpu| backward::backward_of_tables(gpu, op, batch, (&inputs, &grad_out), grads))
    }

    fn similarity_histogram_into(
        &self,
        op: &SimilarityHistogram,
        batch: &WgpuBatch,
        selection: Selection<'_, WgpuMemory>,
        out: ViewMut<'_, WgpuMemory, u32>,
    ) -> Result<()> {
        self.call(|gpu| histogram::count(gpu, op, batch, &selection, &out))
    }

    fn newest_histogram_into(
        &self,
        op: &SimilarityHistogram,
        search: &Search,
        batch: &WgpuBatch,
        inputs: SimilarityInputs<'_, WgpuMemory>,
        out: ViewMut<'_, WgpuMemory, u32>,
    ) -> Result<()> {
        self.call(|gpu| newest::count(gpu, (op, search), batch, &inputs, &out))
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let attention = [attend::variants(), backward::variants(), sums::variants(), tables::variants()];
    [attention.concat(), histogram::variants(), newest::variants()].concat()
}
