//! Attention over a selection whose values, and keys where that is asked for, are rows of embedding tables: inputs, gradients, and
//! their checks.

use crate::element::Element;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::jagged::Batch;
use crate::memory::{Memory, View, ViewMut};
use crate::ops::lookup::{
    IdPolicy, Table, TableGradient, check_float_table_gradients, check_host_ids, check_tables, total_width,
};
use crate::ops::selected::backward::{SelectedAttentionGradOut, expect_gradient};
use crate::ops::selected::inputs::SelectedAttentionOutputs;
use crate::ops::selected::parameters::SelectedAttention;
use crate::ops::selection::Selection;
use crate::ops::shape::{copy_views, dim, expect};

pub(super) const NAME: &str = "selected_table_attention";
pub(super) const BACKWARD: &str = "selected_table_attention_backward";

/// Where the keys of attention over a selection from tables come from.
#[non_exhaustive]
pub enum SelectedKeys<'a, S: Memory, T: Element> {
    /// `[N, H_kv, d]`: rows of all behaviours, of which those that are kept are read.
    Rows(View<'a, S, T>),
    /// One table per feature, read by the ids of the values: rows concatenated to `[H_kv, d]`.
    Tables(&'a [Table<'a, S>]),
    /// The values are the keys.
    Values,
}

/// The inputs of attention over a selection whose values are rows of embedding tables.
#[non_exhaustive]
pub struct SelectedTableInputs<'a, S: Memory, T: Element> {
    /// `[M, H, d]`.
    pub queries: View<'a, S, T>,
    /// Where the keys come from.
    pub keys: SelectedKeys<'a, S, T>,
    /// One table per feature; the value of a behaviour is its rows, concatenated to `[H_kv, d_v]`.
    pub values: &'a [Table<'a, S>],
    /// `[N, F]`, one row per behaviour.
    pub history_ids: View<'a, S, u32>,
    /// `[N, H]`: added to the scores. One of `-∞` removes the behaviour.
    pub bias: Option<View<'a, S, f32>>,
    /// `[H, 3]`: `γ₁`, `γ₂`, `γ₃` of each head; `None`: 1, 0, 0.
    pub gammas: Option<View<'a, S, f32>>,
    /// What a search kept, `[M, K]`, or a selection of the caller's. Its scores are the similarities `R`.
    pub selection: Selection<'a, S>,
}

/// The gradients that the backward pass writes: those that are asked for. `G` is the storage type of queries and keys, or `f32`.
#[non_exhaustive]
pub struct SelectedTableGradients<'a, S: Memory, G: Element> {
    /// `[M, H, d]`.
    pub queries: Option<ViewMut<'a, S, G>>,
    /// `[N, H_kv, d]`; only with keys that are rows. Zeros for behaviours that no candidate keeps.
    pub keys: Option<ViewMut<'a, S, G>>,
    /// Only with tables of keys: one place for each, `None` where none is asked for; or an empty list.
    pub key_tables: Vec<Option<TableGradient<'a, S>>>,
    /// One place for each table of values; or an empty list. Where the values are the keys, the sums of both gradients.
    pub values: Vec<Option<TableGradient<'a, S>>>,
    /// `[N, H]`; only with a bias.
    pub bias: Option<ViewMut<'a, S, f32>>,
    /// `[H, 3]`, the sum over all candidates; only with `gammas`.
    pub gammas: Option<ViewMut<'a, S, f32>>,
    /// `[M, K]`: of the selection's scores; zeros in empty slots and where a behaviour is removed.
    pub similarities: Option<ViewMut<'a, S, f32>>,
}

copy_views!(SelectedKeys<T>, SelectedTableInputs<T>);

impl<'a, S: Memory, T: Element> SelectedTableInputs<'a, S, T> {
    /// Queries `[M, H, d]`, keys, one table of values per feature, and the ids of behaviours `[N, F]`.
    pub fn new(
        queries: View<'a, S, T>,
        keys: SelectedKeys<'a, S, T>,
        values: &'a [Table<'a, S>],
        history_ids: View<'a, S, u32>,
        selection: Selection<'a, S>,
    ) -> Self {
        Self { queries, keys, values, history_ids, bias: None, gammas: None, selection }
    }

    /// Adds a bias `[N, H]` to the scores.
    pub fn with_bias(self, bias: View<'a, S, f32>) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// Sets how scores and similarities add up: `γ₁`, `γ₂`, `γ₃` of each head, `[H, 3]`.
    pub fn with_gammas(self, gammas: View<'a, S, f32>) -> Self {
        Self { gammas: Some(gammas), ..self }
    }
}

impl<'a, S: Memory, G: Element> SelectedTableGradients<'a, S, G> {
    /// Asks for nothing.
    pub fn new() -> Self {
        Self {
            queries: None,
            keys: None,
            key_tables: Vec::new(),
            values: Vec::new(),
            bias: None,
            gammas: None,
            similarities: None,
        }
    }

    /// Asks for the gradient of the queries, `[M, H, d]`.
    pub fn with_queries(self, queries: ViewMut<'a, S, G>) -> Self {
        Self { queries: Some(queries), ..self }
    }

    /// Asks for the gradient of keys that are rows, `[N, H_kv, d]`.
    pub fn with_keys(self, keys: ViewMut<'a, S, G>) -> Self {
        Self { keys: Some(keys), ..self }
    }

    /// Asks for gradients of tables of keys: one place for each table, `None` where none is asked for.
    pub fn with_key_tables(self, tables: impl IntoIterator<Item = Option<TableGradient<'a, S>>>) -> Self {
        Self { key_tables: tables.into_iter().collect(), ..self }
    }

    /// The same for tables of values.
    pub fn with_values(self, tables: impl IntoIterator<Item = Option<TableGradient<'a, S>>>) -> Self {
        Self { values: tables.into_iter().collect(), ..self }
    }

    /// Asks for the gradient of the bias, `[N, H]`.
    pub fn with_bias(self, bias: ViewMut<'a, S, f32>) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// Asks for the gradient of `γ₁`, `γ₂`, `γ₃`, `[H, 3]`.
    pub fn with_gammas(self, gammas: ViewMut<'a, S, f32>) -> Self {
        Self { gammas: Some(gammas), ..self }
    }

    /// Asks for the gradient of the similarities, `[M, K]`.
    pub fn with_similarities(self, similarities: ViewMut<'a, S, f32>) -> Self {
        Self { similarities: Some(similarities), ..self }
    }
}

impl<S: Memory, G: Element> Default for SelectedTableGradients<'_, S, G> {
    fn default() -> Self {
        Self::new()
    }
}

impl SelectedAttention {
    /// Checks parameters and inputs from tables against a batch.
    ///
    /// # Errors
    /// Those of [`check`](Self::check); [`Error::Parameter`] for [`IdPolicy::Skip`]; [`Error::Shape`] for a table whose buffers do not
    /// have its size, for tables whose widths do not add up to those of the heads, and for tables of keys that are not one for each table
    /// of values, with as many rows. An id outside its table is [`Error::IndexOutOfRange`] where [`ids`](Self::ids) says so.
    pub fn check_tables<S: Memory, T: Element>(
        &self,
        batch: &Batch,
        inputs: &SelectedTableInputs<'_, S, T>,
    ) -> Result<()> {
        self.check_tables_in(NAME, batch, inputs)
    }

    /// The same for the call that is named.
    pub(crate) fn check_tables_in<S: Memory, T: Element>(
        &self,
        operation: &'static str,
        batch: &Batch,
        inputs: &SelectedTableInputs<'_, S, T>,
    ) -> Result<()> {
        self.validate(operation)?;
        if self.ids == IdPolicy::Skip {
            let (expected, got) = ("IdPolicy::Error or IdPolicy::Zero".into(), "IdPolicy::Skip".into());
            return Err(Error::Parameter { operation, argument: "ids", expected, got });
        }
        let (n, m) = (dim("N", batch.histories().rows()), dim("M", batch.targets().rows()));
        let features = inputs.values.len();
        let shape = [m, dim("H", self.heads), dim("d", self.width)];
        expect(operation, "queries", inputs.queries.len(), &shape)?;
        check_tables(operation, "values", inputs.values, features.max(1))?;
        self.check_width(operation, ("values", "H_kv·d_v"), inputs.values, self.value_width)?;
        match &inputs.keys {
            SelectedKeys::Rows(keys) => {
                let shape = [n, dim("H_kv", self.kv_heads), dim("d", self.width)];
                expect(operation, "keys", keys.len(), &shape)?;
            }
            SelectedKeys::Tables(tables) => {
                check_tables(operation, "keys", tables, features)?;
                self.check_width(operation, ("keys", "H_kv·d"), tables, self.width)?;
                if let Some((key, value)) =
                    tables.iter().zip(inputs.values).find(|(key, value)| key.rows != value.rows)
                {
                    return Err(Error::Shape {
                        operation,
                        argument: "keys",
                        expected: format!("{} rows, as in `values`", value.rows),
                        got: format!("{} rows", key.rows),
                    });
                }
            }
            SelectedKeys::Values if self.value_width != self.width => {
                let (d, d_v) = (self.width, self.value_width);
                return Err(Error::Shape {
                    operation,
                    argument: "keys",
                    expected: format!("keys of their own, as d = {d} is not d_v = {d_v}"),
                    got: "the values as keys".into(),
                });
            }
            SelectedKeys::Values => {}
        }
        expect(operation, "history_ids", inputs.history_ids.len(), &[n, dim("F", features)])?;
        let given = [inputs.bias, inputs.gammas].map(|view| view.map(|view| view.len()));
        self.check_rest(operation, batch, given, &inputs.selection)
    }

    /// Checks that the rows of a behaviour make the rows of all heads.
    fn check_width<S: Memory>(
        &self,
        operation: &'static str,
        (argument, letters): (&'static str, &str),
        tables: &[Table<'_, S>],
        width: usize,
    ) -> Result<()> {
        let (needed, got) = (self.kv_heads.saturating_mul(width), total_width(tables));
        if needed == got {
            return Ok(());
        }
        let (expected, got) =
            (format!("widths that add up to {letters} = {needed}"), format!("widths that add up to {got}"));
        Err(Error::Shape { operation, argument, expected, got })
    }

    /// Checks the outputs of attention from tables.
    ///
    /// # Errors
    /// As [`check_outputs`](Self::check_outputs).
    pub fn check_table_outputs<S: Memory, T: Element>(
        &self,
        batch: &Batch,
        outputs: &SelectedAttentionOutputs<'_, S, T>,
    ) -> Result<()> {
        self.check_outputs_in(NAME, batch, outputs)
    }

    /// Checks on the host that every id is inside its table, if the policy asks for it.
    pub(crate) fn check_history_ids<T: Element>(
        &self,
        operation: &'static str,
        batch: &Batch,
        inputs: &SelectedTableInputs<'_, Host, T>,
    ) -> Result<()> {
        let ids = &inputs.history_ids[..batch.histories().total() * inputs.values.len()];
        check_host_ids(operation, "history_ids", self.ids, inputs.values, ids)
    }

    /// The most rows that the gradient of a table can have, unless the table has fewer: for each user its behaviours, of which each
    /// candidate keeps up to `K`. Sparse gradients need room for so many rows, or for the table's.
    pub fn gradient_capacity(&self, batch: &Batch) -> usize {
        let rows = batch.requests().map(|(history, targets)| {
            targets.len().saturating_mul(self.top_k.min(history.len())).min(history.len())
        });
        rows.fold(0, usize::saturating_add)
    }

    /// Checks parameters, inputs from tables, what comes into the backward pass and what it is to write.
    ///
    /// # Errors
    /// Those of [`check_tables`](Self::check_tables); [`Error::Shape`] for a view of the wrong size, a gradient asked for of an input that is
    /// not there, or a list of gradients of the wrong length; [`Error::Unsupported`] for the gradient of an int8 table;
    /// [`Error::Limit`] for more behaviours than a `u32` can count.
    pub fn check_tables_backward<S: Memory, T: Element, G: Element>(
        &self,
        batch: &Batch,
        inputs: &SelectedTableInputs<'_, S, T>,
        grad_out: &SelectedAttentionGradOut<'_, S, T>,
        grads: &SelectedTableGradients<'_, S, G>,
    ) -> Result<()> {
        self.check_tables_in(BACKWARD, batch, inputs)?;
        batch.histories().check_disjoint(BACKWARD)?;
        let grad_lse = grad_out.lse.map(|lse| lse.len());
        self.check_grad_out(BACKWARD, batch, grad_out.out.len(), grad_lse)?;
        let length = |view: &Option<ViewMut<'_, S, G>>| view.as_ref().map(ViewMut::len);
        let numbers = |view: &Option<ViewMut<'_, S, f32>>| view.as_ref().map(ViewMut::len);
        let keys = match &inputs.keys {
            SelectedKeys::Rows(keys) => Some(keys.len()),
            _ => None,
        };
        let asked = |argument, got, needed| expect_gradient(BACKWARD, argument, got, needed);
        asked("grads.queries", length(&grads.queries), Some(inputs.queries.len()))?;
        asked("grads.keys", length(&grads.keys), keys)?;
        asked("grads.bias", numbers(&grads.bias), inputs.bias.map(|bias| bias.len()))?;
        asked("grads.gammas", numbers(&grads.gammas), inputs.gammas.map(|gammas| gammas.len()))?;
        let slots = inputs.selection.scores.len();
        asked("grads.similarities", numbers(&grads.similarities), Some(slots))?;
        let (capacity, limit) = (self.gradient_capacity(batch), u64::from(u32::MAX));
        let key_tables: &[Table<'_, S>] = match inputs.keys {
            SelectedKeys::Tables(tables) => tables,
            _ => &[],
        };
        let (key_grads, value_grads) = (&grads.key_tables, &grads.values);
        check_float_table_gradients(BACKWARD, "grads.key_tables", key_grads, key_tables, capacity)?;
        check_float_table_gradients(BACKWARD, "grads.values", value_grads, inputs.values, capacity)?;
        match batch.histories().total() as u64 {
            needed if needed > limit => {
                Err(Error::Limit { operation: BACKWARD, argument: "history_ids", needed, limit })
            }
            _ => Ok(()),
        }
    }
}
