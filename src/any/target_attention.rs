//! Target attention and its merge.

use crate::any::backend::{AnyBackend, call};
use crate::any::memory::{AnyBatch, AnyMemory};
use crate::any::open::opens;
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::ops::{
    PartialAttention, PartialAttentionGradients, TargetAttention, TargetAttentionGradOut,
    TargetAttentionGradients, TargetAttentionInputs, TargetAttentionOps, TargetAttentionOutputs,
    TargetAttentionSaved,
};

opens! {
    TargetAttentionInputs<T> { queries, keys, values, bias } as [];
    TargetAttentionOutputs<T> { out, lse } as [];
    PartialAttention<T> { out, lse } as ["first", "second"];
    TargetAttentionSaved<T> { out, lse } as ["saved"];
    TargetAttentionGradOut<T> { out, lse } as ["grad_out"];
    TargetAttentionGradients<T> { queries, keys, values, bias } as ["grads"];
    PartialAttentionGradients<T> { out, lse } as ["first_grads", "second_grads"];
}

impl TargetAttentionOps for AnyBackend {
    fn target_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        batch: &AnyBatch,
        inputs: TargetAttentionInputs<'_, AnyMemory, T>,
        outputs: TargetAttentionOutputs<'_, AnyMemory, T>,
    ) -> Result<()> {
        call!("target_attention", self.target_attention_into(op; batch, inputs, outputs))
    }

    fn merge_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, AnyMemory, T>,
        second: PartialAttention<'_, AnyMemory, T>,
        outputs: TargetAttentionOutputs<'_, AnyMemory, T>,
    ) -> Result<()> {
        call!("merge_attention", self.merge_attention_into(op; first, second, outputs))
    }

    fn target_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &TargetAttention,
        batch: &AnyBatch,
        inputs: TargetAttentionInputs<'_, AnyMemory, T>,
        saved: TargetAttentionSaved<'_, AnyMemory, T>,
        grad_out: TargetAttentionGradOut<'_, AnyMemory, T>,
        grads: TargetAttentionGradients<'_, AnyMemory, G>,
    ) -> Result<()> {
        call!("target_attention_backward", self.target_attention_backward_into(op; batch, inputs, saved, grad_out, grads))
    }

    fn merge_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &TargetAttention,
        first: PartialAttention<'_, AnyMemory, T>,
        second: PartialAttention<'_, AnyMemory, T>,
        grad_out: TargetAttentionGradOut<'_, AnyMemory, T>,
        first_grads: PartialAttentionGradients<'_, AnyMemory, G>,
        second_grads: PartialAttentionGradients<'_, AnyMemory, G>,
    ) -> Result<()> {
        call!("merge_attention_backward", self.merge_attention_backward_into(op; first, second, grad_out, first_grads, second_grads))
    }
}
