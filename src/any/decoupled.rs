//! Decoupled embeddings.

use crate::any::backend::{AnyBackend, call};
use crate::any::memory::{AnyBatch, AnyMemory};
use crate::any::open::{opens, opens_lists};
use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::{
    AggregateGradients, AggregateInputs, Decoupled, DecoupledGradients, DecoupledInputs, DecoupledOps,
    DecoupledSaved, SearchGradients, SearchInputs, Selection, SelectionBuffers, SelectionMut, Table,
};

opens_lists! {
    SearchInputs { history_ids, target_ids; attention } as [], of Table;
    AggregateInputs { history_ids, target_ids; representation } as [], of Table;
    DecoupledInputs { history_ids, target_ids; attention, representation } as [], of Table;
}

opens! {
    DecoupledSaved { selection } as ["saved"];
    SearchGradients { attention } as ["grads"];
    AggregateGradients { representation, scores } as ["grads"];
    DecoupledGradients { attention, representation } as ["grads"];
}

impl DecoupledOps for AnyBackend {
    fn decoupled_search_into(
        &self,
        op: &Decoupled,
        batch: &AnyBatch,
        inputs: SearchInputs<'_, AnyMemory>,
        out: SelectionMut<'_, AnyMemory>,
    ) -> Result<()> {
        call!("decoupled_search", self.decoupled_search_into(op; batch, inputs.lend(), out))
    }

    fn decoupled_search(
        &self,
        op: &Decoupled,
        batch: &AnyBatch,
        inputs: SearchInputs<'_, AnyMemory>,
    ) -> Result<SelectionBuffers<AnyMemory>> {
        call!("decoupled_search", self.decoupled_search(op; batch, inputs.lend()))
    }

    fn decoupled_aggregate_into(
        &self,
        op: &Decoupled,
        batch: &AnyBatch,
        inputs: AggregateInputs<'_, AnyMemory>,
        selection: Selection<'_, AnyMemory>,
        out: ViewMut<'_, AnyMemory, f32>,
    ) -> Result<()> {
        call!("decoupled_aggregate", self.decoupled_aggregate_into(op; batch, inputs.lend(), selection, out))
    }

    fn decoupled_attend_into(
        &self,
        op: &Decoupled,
        batch: &AnyBatch,
        inputs: DecoupledInputs<'_, AnyMemory>,
        out: ViewMut<'_, AnyMemory, f32>,
    ) -> Result<()> {
        call!("decoupled_attend", self.decoupled_attend_into(op; batch, inputs.lend(), out))
    }

    fn decoupled_search_backward_into(
        &self,
        op: &Decoupled,
        batch: &AnyBatch,
        inputs: SearchInputs<'_, AnyMemory>,
        selection: Selection<'_, AnyMemory>,
        grad_scores: View<'_, AnyMemory, f32>,
        grads: SearchGradients<'_, AnyMemory>,
    ) -> Result<()> {
        call!("decoupled_search_backward", self.decoupled_search_backward_into(op; batch, inputs.lend(), selection, grad_scores, grads))
    }

    fn decoupled_aggregate_backward_into(
        &self,
        op: &Decoupled,
        batch: &AnyBatch,
        inputs: AggregateInputs<'_, AnyMemory>,
        selection: Selection<'_, AnyMemory>,
        grad_out: View<'_, AnyMemory, f32>,
        grads: AggregateGradients<'_, AnyMemory>,
    ) -> Result<()> {
        call!("decoupled_aggregate_backward", self.decoupled_aggregate_backward_into(op; batch, inputs.lend(), selection, grad_out, grads))
    }

    fn decoupled_attend_backward_into(
        &self,
        op: &Decoupled,
        batch: &AnyBatch,
        inputs: DecoupledInputs<'_, AnyMemory>,
        saved: DecoupledSaved<'_, AnyMemory>,
        grad_out: View<'_, AnyMemory, f32>,
        grads: DecoupledGradients<'_, AnyMemory>,
    ) -> Result<()> {
        call!("decoupled_attend_backward", self.decoupled_attend_backward_into(op; batch, inputs.lend(), saved, grad_out, grads))
    }
}
