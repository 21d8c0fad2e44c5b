//! The backward pass of look-ups: what comes in, what is asked for, and their checks.

use crate::error::{Error, Result};
use crate::jagged::Jagged;
use crate::memory::{Memory, View, ViewMut};
use crate::ops::lookup::inputs::{Bags, LookupInputs, total_width};
use crate::ops::lookup::parameters::Lookup;
use crate::ops::lookup::sorted_ids::SortedIds;
use crate::ops::lookup::sparse_gradient::{TableGradient, check_table_gradients};
use crate::ops::shape::{dim, expect};

const NAME: &str = "lookup_backward";

/// What a backward pass need not compute again. The forward pass saves nothing.
#[non_exhaustive]
pub struct LookupSaved<'a, S: Memory> {
    /// The ids of each feature in order, or an empty list: then they are sorted by the call, in memory of its own.
    pub sorted: &'a [SortedIds<'a, S>],
}

/// The gradients that come in.
#[non_exhaustive]
pub struct LookupGradOut<'a, S: Memory> {
    /// `[N or bags, Σ width]`, of the output.
    pub out: View<'a, S, f32>,
    /// The same of the second output; required if, and only if, there are second tables.
    pub second: Option<View<'a, S, f32>>,
}

/// The gradients asked for: those of tables, and of weights.
#[non_exhaustive]
pub struct LookupGradients<'a, S: Memory> {
    /// One place for each table, `None` where none is asked for; or an empty list.
    pub tables: Vec<Option<TableGradient<'a, S>>>,
    /// The same for the second tables.
    pub second_tables: Vec<Option<TableGradient<'a, S>>>,
    /// `[N, F]`, of the weights; rows that belong to no bag are left as they are.
    pub weights: Option<ViewMut<'a, S, f32>>,
}

impl<S: Memory> Default for LookupSaved<'_, S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, S: Memory> LookupSaved<'a, S> {
    /// Nothing.
    pub fn new() -> Self {
        Self { sorted: &[] }
    }

    /// Gives the ids of each feature in order, as [`sort_ids`](crate::LookupOps::sort_ids) made them from the same ids. (Ids in order
    /// that belong to other ids give other gradients, unnoticed.)
    pub fn with_sorted(self, sorted: &'a [SortedIds<'a, S>]) -> Self {
        Self { sorted }
    }
}

impl<'a, S: Memory> LookupGradOut<'a, S> {
    /// The gradient of the output, `[N or bags, Σ width]`.
    pub fn new(out: View<'a, S, f32>) -> Self {
        Self { out, second: None }
    }

    /// Adds the gradient of the second output.
    pub fn with_second(self, second: View<'a, S, f32>) -> Self {
        Self { second: Some(second), ..self }
    }
}

impl<S: Memory> Default for LookupGradients<'_, S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, S: Memory> LookupGradients<'a, S> {
    /// Asks for nothing.
    pub fn new() -> Self {
        Self { tables: Vec::new(), second_tables: Vec::new(), weights: None }
    }

    /// Asks for gradients of tables: one place for each table, `None` where none is asked for.
    pub fn with_tables(self, tables: impl IntoIterator<Item = Option<TableGradient<'a, S>>>) -> Self {
        Self { tables: tables.into_iter().collect(), ..self }
    }

    /// The same for the second tables.
    pub fn with_second_tables(self, tables: impl IntoIterator<Item = Option<TableGradient<'a, S>>>) -> Self {
        Self { second_tables: tables.into_iter().collect(), ..self }
    }

    /// Asks for the gradient of the weights, `[N, F]`.
    pub fn with_weights(self, weights: ViewMut<'a, S, f32>) -> Self {
        Self { weights: Some(weights), ..self }
    }
}

impl Lookup {
    /// Checks a backward pass and returns the number of rows of ids that it is about.
    ///
    /// # Errors
    /// Those of [`Lookup::check`]; [`Error::Shape`] for bags that are sub-ranges, a gradient of the wrong size, a second one that is missing or has no tables,
    /// a list of the wrong length, or ids in order of the wrong size; [`Error::Limit`] for more rows of ids, or bags, than a `u32` can count.
    pub fn check_backward<S: Memory, J: AsRef<Jagged>>(
        &self,
        bags: &Bags<'_, J>,
        inputs: &LookupInputs<'_, S>,
        saved: &LookupSaved<'_, S>,
        grad_out: &LookupGradOut<'_, S>,
        grads: &LookupGradients<'_, S>,
    ) -> Result<usize> {
        let rows = self.check_in(NAME, bags, inputs)?;
        if let Bags::Sum(bags) | Bags::Mean(bags) = bags {
            (*bags).as_ref().check_offsets(NAME, "bags")?;
        }
        let wrong = |argument, expected: String, got: String| {
            Err(Error::Shape { operation: NAME, argument, expected, got })
        };
        let shape = |tables| [dim("N or bags", rows), dim("Σ width", total_width::<S>(tables))];
        expect(NAME, "grad_out", grad_out.out.len(), &shape(inputs.tables))?;
        match (&grad_out.second, inputs.second_tables) {
            (None, []) => {}
            (Some(_), []) => {
                return wrong(
                    "grad_second",
                    "none, as there are no second tables".into(),
                    "a gradient".into(),
                );
            }
            (None, _) => {
                return wrong("grad_second", "a gradient for the second tables".into(), "none".into());
            }
            (Some(second), tables) => {
                expect(NAME, "grad_second", second.len(), &shape(tables))?;
            }
        }
        let used = match bags {
            Bags::Each => rows,
            Bags::Sum(bags) | Bags::Mean(bags) => (*bags).as_ref().total(),
        };
        let limit = u64::from(u32::MAX);
        for (argument, needed) in [("ids", used as u64), ("bags", rows as u64)] {
            if needed > limit {
                return Err(Error::Limit { operation: NAME, argument, needed, limit });
            }
        }
        let features = inputs.tables.len();
        if !saved.sorted.is_empty() && saved.sorted.len() != features {
            let expected = format!("none, or {features}, one per feature");
            return wrong("sorted", expected, format!("{}", saved.sorted.len()));
        }
        saved.sorted.iter().try_for_each(|sorted| sorted.check(NAME))?;
        check_table_gradients(NAME, "grads.tables", &grads.tables, inputs.tables, used)?;
        check_table_gradients(NAME, "grads.second_tables", &grads.second_tables, inputs.second_tables, used)?;
        match (&grads.weights, &inputs.weights) {
            (None, _) => {}
            (Some(_), None) => {
                return wrong("grads.weights", "none, as there are no weights".into(), "a gradient".into());
            }
            (Some(grad), Some(_)) => {
                let shape = [dim("N", inputs.ids.len() / features), dim("F", features)];
                expect(NAME, "grads.weights", grad.len(), &shape)?;
            }
        }
        Ok(used)
    }

    /// The fewest bytes that a backward pass moves, the sort apart: each of `ids` ids per feature with its position, each of
    /// `rows` rows of the gradient that comes in, and each of the `touched` rows of the gradients. `widths` are those of one or both
    /// sets of tables. At most `u64::MAX`.
    pub fn backward_bytes(&self, ids: usize, rows: usize, touched: usize, widths: &[usize]) -> u64 {
        let width = widths.iter().fold(0u64, |sum, &width| sum.saturating_add(width as u64));
        let numbers = (rows as u64).saturating_add(touched as u64).saturating_mul(width);
        let indices = (ids as u64).saturating_mul(widths.len() as u64).saturating_mul(2);
        numbers.saturating_add(indices).saturating_mul(size_of::<f32>() as u64)
    }
}
