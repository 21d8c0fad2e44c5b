//! The gradient of an embedding table: of the rows that were read, or of all.

use crate::error::{Error, Result};
use crate::memory::{Memory, View, ViewMut};
use crate::ops::lookup::inputs::{Table, TableData};
use crate::ops::shape::{copy_views, dim, expect};

/// The gradient of an embedding table's rows that a result depends on; every other row of the table has none.
///
/// The number of rows, `count`, is known to the device alone, so there is room for `capacity` of them. What lies beyond `count` is
/// not written, and not read.
#[non_exhaustive]
pub struct SparseGradient<'a, S: Memory> {
    /// `[capacity]`: the ids of the rows, ascending, each once.
    pub ids: View<'a, S, u32>,
    /// `[capacity, width]`: the gradient of each row; it may be zeros.
    pub rows: View<'a, S, f32>,
    /// `[1]`: how many rows there are.
    pub count: View<'a, S, u32>,
}

/// A [`SparseGradient`] to be written.
#[non_exhaustive]
pub struct SparseGradientMut<'a, S: Memory> {
    /// `[capacity]`.
    pub ids: ViewMut<'a, S, u32>,
    /// `[capacity, width]`.
    pub rows: ViewMut<'a, S, f32>,
    /// `[1]`.
    pub count: ViewMut<'a, S, u32>,
}

/// The owned buffers of a [`SparseGradient`]; [`LookupOps::sparse_gradient`](crate::LookupOps::sparse_gradient) allocates them.
#[non_exhaustive]
pub struct SparseGradientBuffers<S: Memory> {
    /// `[capacity]`.
    pub ids: S::Buffer<u32>,
    /// `[capacity, width]`.
    pub rows: S::Buffer<f32>,
    /// `[1]`.
    pub count: S::Buffer<u32>,
}

/// Where a backward pass writes the gradient of one table.
#[non_exhaustive]
pub enum TableGradient<'a, S: Memory> {
    /// The rows that were read: for large tables, and for [`update_rows`](crate::LookupOps::update_rows).
    Sparse(SparseGradientMut<'a, S>),
    /// `[rows, width]`: all of them, for small tables. Rows that were not read get zeros.
    Dense(ViewMut<'a, S, f32>),
}

copy_views!(SparseGradient);

impl<'a, S: Memory> SparseGradient<'a, S> {
    /// Ids `[capacity]`, rows `[capacity, width]`, count `[1]`.
    pub fn new(ids: View<'a, S, u32>, rows: View<'a, S, f32>, count: View<'a, S, u32>) -> Self {
        Self { ids, rows, count }
    }
}

impl<'a, S: Memory> SparseGradientMut<'a, S> {
    /// Ids `[capacity]`, rows `[capacity, width]`, count `[1]`.
    pub fn new(ids: ViewMut<'a, S, u32>, rows: ViewMut<'a, S, f32>, count: ViewMut<'a, S, u32>) -> Self {
        Self { ids, rows, count }
    }
}

impl<S: Memory> SparseGradientBuffers<S> {
    /// Buffers `[capacity]`, `[capacity, width]` and `[1]`.
    pub fn new(ids: S::Buffer<u32>, rows: S::Buffer<f32>, count: S::Buffer<u32>) -> Self {
        Self { ids, rows, count }
    }

    /// Views of the buffers for reading.
    pub fn gradient(&self) -> SparseGradient<'_, S> {
        let (ids, rows) = (View::new(S::data(&self.ids)), View::new(S::data(&self.rows)));
        SparseGradient::new(ids, rows, View::new(S::data(&self.count)))
    }

    /// Views of the buffers for writing.
    pub fn gradient_mut(&mut self) -> SparseGradientMut<'_, S> {
        let (ids, rows) =
            (ViewMut::new(S::data_mut(&mut self.ids)), ViewMut::new(S::data_mut(&mut self.rows)));
        SparseGradientMut::new(ids, rows, ViewMut::new(S::data_mut(&mut self.count)))
    }

    /// Where a backward pass writes: [`gradient_mut`](Self::gradient_mut).
    pub fn table_gradient(&mut self) -> TableGradient<'_, S> {
        TableGradient::Sparse(self.gradient_mut())
    }
}

impl<'a, S: Memory> From<SparseGradientMut<'a, S>> for TableGradient<'a, S> {
    fn from(gradient: SparseGradientMut<'a, S>) -> Self {
        Self::Sparse(gradient)
    }
}

/// Checks the lists of gradients: none, or one place for each table, where there is a table.
pub(crate) fn check_table_gradients<S: Memory>(
    operation: &'static str,
    argument: &'static str,
    gradients: &[Option<TableGradient<'_, S>>],
    tables: &[Table<'_, S>],
    ids: usize,
) -> Result<()> {
    if !gradients.is_empty() && gradients.len() != tables.len() {
        let (expected, got) =
            (format!("none, or {}, one per table", tables.len()), format!("{}", gradients.len()));
        return Err(Error::Shape { operation, argument, expected, got });
    }
    for (gradient, table) in gradients.iter().zip(tables) {
        match gradient {
            None => {}
            Some(TableGradient::Dense(rows)) => {
                expect(
                    operation,
                    argument,
                    rows.len(),
                    &[dim("rows", table.rows), dim("width", table.width)],
                )?;
            }
            Some(TableGradient::Sparse(gradient)) => {
                let capacity = gradient.ids.len();
                if capacity < ids.min(table.rows) {
                    let expected = format!("a capacity of at least {} rows", ids.min(table.rows));
                    return Err(Error::Shape {
                        operation,
                        argument,
                        expected,
                        got: format!("{capacity} rows"),
                    });
                }
                let shape = [dim("capacity", capacity), dim("width", table.width)];
                expect(operation, argument, gradient.rows.len(), &shape)?;
                expect(operation, argument, gradient.count.len(), &[dim("count", 1)])?;
            }
        }
    }
    Ok(())
}

/// The same, where the gradient of an 8-bit table is refused.
pub(in crate::ops) fn check_float_table_gradients<S: Memory>(
    operation: &'static str,
    argument: &'static str,
    gradients: &[Option<TableGradient<'_, S>>],
    tables: &[Table<'_, S>],
    ids: usize,
) -> Result<()> {
    check_table_gradients(operation, argument, gradients, tables, ids)?;
    let is_int8 = |table: &Table<'_, S>| matches!(table.data, TableData::Int8 { .. });
    match gradients.iter().zip(tables).position(|(asked, table)| asked.is_some() && is_int8(table)) {
        None => Ok(()),
        Some(feature) => Err(Error::Unsupported {
            operation,
            what: format!("{argument}[{feature}], the gradient of an int8 table,"),
            supported: "gradients of f32, f16 and bf16 tables; int8 tables are read".into(),
        }),
    }
}
