//! Attention over a selection, and histograms of similarities.

use crate::any::backend::{AnyBackend, call};
use crate::any::memory::{AnyBatch, AnyMemory, Kind};
use crate::any::open::{Held, Open, opens};
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::memory::ViewMut;
use crate::ops::{
    Search, SelectedAttention, SelectedAttentionGradOut, SelectedAttentionGradients, SelectedAttentionInputs,
    SelectedAttentionOutputs, SelectedKeys, SelectedOps, SelectedTableGradients, SelectedTableInputs,
    Selection, SimilarityHistogram, SimilarityInputs, Table,
};

opens! {
    SelectedAttentionInputs<T> { queries, keys, values, bias, gammas, selection } as [];
    SelectedAttentionOutputs<T> { out, lse } as [];
    SelectedAttentionGradOut<T> { out, lse } as ["grad_out"];
    SelectedAttentionGradients<T> { queries, keys, values, bias, gammas, similarities } as ["grads"];
    SelectedTableGradients<T> { queries, keys, key_tables, values, bias, gammas, similarities } as ["grads"];
}

/// Its lists are the tables of values and, where there are any, of keys.
impl<'a, S: Kind, T: Element> Open<S> for SelectedTableInputs<'a, AnyMemory, T> {
    type Opened = Held<SelectedTableInputs<'a, S, T>, [Vec<Table<'a, S>>; 2]>;

    fn open(self, operation: &'static str, _: &'static str) -> Result<Self::Opened> {
        let Self { queries, keys, values, history_ids, bias, gammas, selection } = self;
        let (keys, key_tables) = match keys {
            SelectedKeys::Rows(rows) => (SelectedKeys::Rows(rows.open(operation, "keys")?), Vec::new()),
            SelectedKeys::Tables(tables) => (SelectedKeys::Tables(&[]), tables.open(operation, "keys")?),
            SelectedKeys::Values => (SelectedKeys::Values, Vec::new()),
        };
        let rest = SelectedTableInputs {
            queries: queries.open(operation, "queries")?,
            keys,
            values: &[],
            history_ids: history_ids.open(operation, "history_ids")?,
            bias: bias.open(operation, "bias")?,
            gammas: gammas.open(operation, "gammas")?,
            selection: selection.open(operation, "selection")?,
        };
        Ok(Held { rest, lists: [values.open(operation, "values")?, key_tables] })
    }
}

impl<'a, S: Kind, T: Element> Held<SelectedTableInputs<'a, S, T>, [Vec<Table<'a, S>>; 2]> {
    /// The inputs for the call.
    fn lend(&self) -> SelectedTableInputs<'_, S, T> {
        let [values, key_tables] = &self.lists;
        let keys = match self.rest.keys {
            SelectedKeys::Tables(_) => SelectedKeys::Tables(key_tables),
            keys => keys,
        };
        SelectedTableInputs { keys, values, ..self.rest }
    }
}

impl SelectedOps for AnyBackend {
    fn selected_attention_into<T: Element>(
        &self,
        op: &SelectedAttention,
        batch: &AnyBatch,
        inputs: SelectedAttentionInputs<'_, AnyMemory, T>,
        outputs: SelectedAttentionOutputs<'_, AnyMemory, T>,
    ) -> Result<()> {
        call!("selected_attention", self.selected_attention_into(op; batch, inputs, outputs))
    }

    fn selected_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &SelectedAttention,
        batch: &AnyBatch,
        inputs: SelectedAttentionInputs<'_, AnyMemory, T>,
        grad_out: SelectedAttentionGradOut<'_, AnyMemory, T>,
        grads: SelectedAttentionGradients<'_, AnyMemory, G>,
    ) -> Result<()> {
        call!("selected_attention_backward", self.selected_attention_backward_into(op; batch, inputs, grad_out, grads))
    }

    fn selected_table_attention_into<T: Element>(
        &self,
        op: &SelectedAttention,
        batch: &AnyBatch,
        inputs: SelectedTableInputs<'_, AnyMemory, T>,
        outputs: SelectedAttentionOutputs<'_, AnyMemory, T>,
    ) -> Result<()> {
        call!("selected_table_attention", self.selected_table_attention_into(op; batch, inputs.lend(), outputs))
    }

    fn selected_table_attention_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &SelectedAttention,
        batch: &AnyBatch,
        inputs: SelectedTableInputs<'_, AnyMemory, T>,
        grad_out: SelectedAttentionGradOut<'_, AnyMemory, T>,
        grads: SelectedTableGradients<'_, AnyMemory, G>,
    ) -> Result<()> {
        call!("selected_table_attention_backward", self.selected_table_attention_backward_into(op; batch, inputs.lend(), grad_out, grads))
    }

    fn similarity_histogram_into(
        &self,
        op: &SimilarityHistogram,
        batch: &AnyBatch,
        selection: Selection<'_, AnyMemory>,
        out: ViewMut<'_, AnyMemory, u32>,
    ) -> Result<()> {
        call!("similarity_histogram", self.similarity_histogram_into(op; batch, selection, out))
    }

    fn newest_histogram_into(
        &self,
        op: &SimilarityHistogram,
        search: &Search,
        batch: &AnyBatch,
        inputs: SimilarityInputs<'_, AnyMemory>,
        out: ViewMut<'_, AnyMemory, u32>,
    ) -> Result<()> {
        call!("newest_histogram", self.newest_histogram_into(op, search; batch, inputs, out))
    }
}
