//! The backward passes of decoupled embeddings: what comes in, what is asked for, and their checks.

use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::jagged::Batch;
use crate::memory::{Memory, ViewMut};
use crate::ops::decoupled::inputs::*;
use crate::ops::decoupled::parameters::{Decoupled, total};
use crate::ops::lookup::{Table, TableGradient, check_float_table_gradients, total_width};
use crate::ops::selection::Selection;
use crate::ops::shape::{copy_views, dim, expect, product, size, sum};

const SEARCH: &str = "decoupled_search_backward";
const AGGREGATE: &str = "decoupled_aggregate_backward";
const ATTEND: &str = "decoupled_attend_backward";

/// What the backward pass of `attend` need not compute again. The forward pass saves nothing by itself.
#[non_exhaustive]
pub struct DecoupledSaved<'a, S: Memory> {
    /// What the search kept; with a `top_k` only. Without, the backward pass searches again.
    pub selection: Option<Selection<'a, S>>,
}

/// The gradients of `search` that are asked for: those of attention tables.
#[non_exhaustive]
pub struct SearchGradients<'a, S: Memory> {
    /// One place for each attention table, `None` where none is asked for; or an empty list.
    pub attention: Vec<Option<TableGradient<'a, S>>>,
}

/// The gradients of `aggregate` that are asked for.
#[non_exhaustive]
pub struct AggregateGradients<'a, S: Memory> {
    /// One place for each representation table, `None` where none is asked for; or an empty list.
    pub representation: Vec<Option<TableGradient<'a, S>>>,
    /// `[M, K]`: of the selection's scores; zeros in empty slots and where a score is `-∞`.
    pub scores: Option<ViewMut<'a, S, f32>>,
}

/// The gradients of `attend` that are asked for.
#[non_exhaustive]
pub struct DecoupledGradients<'a, S: Memory> {
    /// One place for each attention table, `None` where none is asked for; or an empty list.
    pub attention: Vec<Option<TableGradient<'a, S>>>,
    /// The same for representation tables.
    pub representation: Vec<Option<TableGradient<'a, S>>>,
}

copy_views!(DecoupledSaved);

impl<S: Memory> Default for DecoupledSaved<'_, S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, S: Memory> DecoupledSaved<'a, S> {
    /// Nothing.
    pub fn new() -> Self {
        Self { selection: None }
    }

    /// Gives what the search of the same inputs kept.
    pub fn with_selection(self, selection: Selection<'a, S>) -> Self {
        Self { selection: Some(selection) }
    }
}

impl<S: Memory> Default for SearchGradients<'_, S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, S: Memory> SearchGradients<'a, S> {
    /// Asks for nothing.
    pub fn new() -> Self {
        Self { attention: Vec::new() }
    }

    /// Asks for gradients of attention tables: one place for each table, `None` where none is asked for.
    pub fn with_attention(self, tables: impl IntoIterator<Item = Option<TableGradient<'a, S>>>) -> Self {
        Self { attention: tables.into_iter().collect() }
    }
}

impl<S: Memory> Default for AggregateGradients<'_, S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, S: Memory> AggregateGradients<'a, S> {
    /// Asks for nothing.
    pub fn new() -> Self {
        Self { representation: Vec::new(), scores: None }
    }

    /// Asks for gradients of representation tables: one place for each table, `None` where none is asked for.
    pub fn with_representation(self, tables: impl IntoIterator<Item = Option<TableGradient<'a, S>>>) -> Self {
        Self { representation: tables.into_iter().collect(), ..self }
    }

    /// Asks for the gradient of the selection's scores, `[M, K]`.
    pub fn with_scores(self, scores: ViewMut<'a, S, f32>) -> Self {
        Self { scores: Some(scores), ..self }
    }
}

impl<S: Memory> Default for DecoupledGradients<'_, S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, S: Memory> DecoupledGradients<'a, S> {
    /// Asks for nothing.
    pub fn new() -> Self {
        Self { attention: Vec::new(), representation: Vec::new() }
    }

    /// Asks for gradients of attention tables: one place for each table, `None` where none is asked for.
    pub fn with_attention(self, tables: impl IntoIterator<Item = Option<TableGradient<'a, S>>>) -> Self {
        Self { attention: tables.into_iter().collect(), ..self }
    }

    /// The same for representation tables.
    pub fn with_representation(self, tables: impl IntoIterator<Item = Option<TableGradient<'a, S>>>) -> Self {
        Self { representation: tables.into_iter().collect(), ..self }
    }
}

impl Decoupled {
    /// The most rows that the gradient of a table can have, unless the table has fewer: for each user its behaviours, of which
    /// each candidate keeps up to `K`, and its candidates. Sparse gradients need room for so many rows, or for the table's.
    pub fn gradient_capacity(&self, batch: &Batch) -> usize {
        let rows = batch.requests().map(|(history, targets)| {
            let kept = targets.len().saturating_mul(self.top_k.unwrap_or(usize::MAX).min(history.len()));
            kept.min(history.len()).saturating_add(targets.len())
        });
        rows.fold(0, usize::saturating_add)
    }

    /// Checks the backward pass of `search` and returns `K`.
    ///
    /// # Errors
    /// Those of [`check_search`](Self::check_search); [`Error::Shape`] for a selection or a gradient of the wrong size, or a list
    /// of gradients of the wrong length; [`Error::Unsupported`] for the gradient of an int8 table; [`Error::Limit`] for more
    /// behaviours, or candidates times `K`, than a `u32` can count.
    pub fn check_search_backward<S: Memory>(
        &self,
        batch: &Batch,
        inputs: &SearchInputs<'_, S>,
        selection: &Selection<'_, S>,
        grad_scores: usize,
        grads: &SearchGradients<'_, S>,
    ) -> Result<usize> {
        let top_k = self.check_search_in(SEARCH, batch, inputs)?;
        let shape = [dim("M", batch.targets().rows()), dim("K", top_k)];
        selection.check(SEARCH, batch.targets().rows(), top_k)?;
        expect(SEARCH, "grad_scores", grad_scores, &shape)?;
        self.check_positions(SEARCH, batch)?;
        self.check_tables(SEARCH, "grads.attention", batch, &grads.attention, inputs.attention)?;
        Ok(top_k)
    }

    /// Checks the backward pass of `aggregate` and returns `K`.
    ///
    /// # Errors
    /// Those of [`check_aggregate`](Self::check_aggregate), and the others of
    /// [`check_search_backward`](Self::check_search_backward).
    pub fn check_aggregate_backward<S: Memory>(
        &self,
        batch: &Batch,
        inputs: &AggregateInputs<'_, S>,
        selection: &Selection<'_, S>,
        grad_out: usize,
        grads: &AggregateGradients<'_, S>,
    ) -> Result<usize> {
        let top_k = self.check_aggregate_in(AGGREGATE, batch, inputs, selection)?;
        let candidates = dim("M", batch.targets().rows());
        let width = dim("Σ r", total_width(inputs.representation));
        expect(AGGREGATE, "grad_out", grad_out, &[candidates, width])?;
        if let Some(scores) = &grads.scores {
            expect(AGGREGATE, "grads.scores", scores.len(), &[candidates, dim("K", top_k)])?;
        }
        self.check_positions(AGGREGATE, batch)?;
        let (gradients, tables) = (&grads.representation, inputs.representation);
        self.check_tables(AGGREGATE, "grads.representation", batch, gradients, tables)?;
        Ok(top_k)
    }

    /// Checks the backward pass of `attend`.
    ///
    /// # Errors
    /// Those of [`check_attend`](Self::check_attend), and the others of [`check_search_backward`](Self::check_search_backward);
    /// [`Error::Shape`] for histories that share rows, without a selection; [`Error::Parameter`] for a selection without a `top_k`.
    pub fn check_attend_backward<S: Memory>(
        &self,
        batch: &Batch,
        inputs: &DecoupledInputs<'_, S>,
        saved: &DecoupledSaved<'_, S>,
        grad_out: usize,
        grads: &DecoupledGradients<'_, S>,
    ) -> Result<()> {
        self.check_attend_in(ATTEND, batch, inputs)?;
        let candidates = dim("M", batch.targets().rows());
        match (&saved.selection, self.top_k) {
            // The gradients of behaviours are those of rows of the history.
            (None, _) => batch.histories().check_disjoint(ATTEND)?,
            (Some(selection), Some(top_k)) => {
                selection.check(ATTEND, batch.targets().rows(), top_k)?;
            }
            (Some(_), None) => {
                let (expected, got) = ("none, as all behaviours are kept".into(), "a selection".into());
                return Err(Error::Parameter {
                    operation: ATTEND,
                    argument: "saved.selection",
                    expected,
                    got,
                });
            }
        }
        let width = dim("Σ r", total_width(inputs.representation));
        expect(ATTEND, "grad_out", grad_out, &[candidates, width])?;
        self.check_positions(ATTEND, batch)?;
        self.check_tables(ATTEND, "grads.attention", batch, &grads.attention, inputs.attention)?;
        let (gradients, tables) = (&grads.representation, inputs.representation);
        self.check_tables(ATTEND, "grads.representation", batch, gradients, tables)
    }

    /// Checks the gradients of tables.
    fn check_tables<S: Memory>(
        &self,
        operation: &'static str,
        argument: &'static str,
        batch: &Batch,
        gradients: &[Option<TableGradient<'_, S>>],
        tables: &[Table<'_, S>],
    ) -> Result<()> {
        check_float_table_gradients(operation, argument, gradients, tables, self.gradient_capacity(batch))
    }

    /// Checks that the positions of ids fit: behaviours and candidates, or kept behaviours and candidates.
    fn check_positions(&self, operation: &'static str, batch: &Batch) -> Result<()> {
        let limit = u64::from(u32::MAX);
        let candidates = batch.targets().total() as u64;
        let kept = if self.top_k.is_some() { self.kept(batch) } else { 0 };
        let behaviours = kept.max(batch.histories().total() as u64);
        let needed = sum([behaviours, candidates]);
        if needed > limit {
            return Err(Error::Limit { operation, argument: "history_ids", needed, limit });
        }
        Ok(())
    }

    /// Multiplications and additions of a backward pass (exponentials not counted), which for every kept behaviour and candidate
    /// computes a product of rows and adds a row to a gradient, and for attention one to that of the candidate too:
    /// `Σ kept·(4·Σ r + 4·Σ a)`. `widths` are those of the tables whose gradients are asked for. At most `u64::MAX`.
    pub fn backward_flops(&self, batch: &Batch, widths: &[usize]) -> u64 {
        product(&[4, self.kept(batch), total(widths)])
    }

    /// The fewest bytes that a backward pass from a selection moves, the sort apart: a position, a score and a row of each table
    /// for each behaviour kept (without a `top_k`, for each behaviour), and each of the `touched` rows of the gradients. `T` is
    /// the storage type of the tables. At most `u64::MAX`.
    pub fn backward_bytes<T: Scalar>(&self, batch: &Batch, touched: usize, widths: &[usize]) -> u64 {
        let kept = match self.top_k {
            Some(_) => self.kept(batch),
            None => batch.histories().total_length() as u64,
        };
        let read = product(&[kept, sum([product(&[total(widths), size::<T>()]), 8])]);
        sum([read, product(&[touched as u64, total(widths), size::<f32>()])])
    }
}
