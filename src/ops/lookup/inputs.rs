//! Tables, bags, inputs and outputs of look-ups.

use crate::error::{Error, Result};
use crate::memory::{Memory, View, ViewMut};
use crate::ops::shape::{copy_views, dim, expect};

/// How rows are pooled; `J` is a backend's jagged type.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Bags<'a, J> {
    /// No pooling: one output row per row of ids.
    Each,
    /// One output row per bag: the sum of its rows.
    Sum(&'a J),
    /// One output row per bag: the mean of its rows.
    Mean(&'a J),
}

/// What happens to an id that is not below its table's number of rows. Memory outside the table is never read, and
/// ids are never rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum IdPolicy {
    /// The call fails with [`Error::IndexOutOfRange`]; on a GPU the next `synchronize` or `download` does.
    #[default]
    Error,
    /// The id reads a row of zeros, which counts in a mean.
    Zero,
}

/// An embedding table.
#[non_exhaustive]
pub struct Table<'a, S: Memory> {
    /// `V`: the number of rows.
    pub rows: usize,
    /// The number of elements per row.
    pub width: usize,
    /// The elements.
    pub data: TableData<'a, S>,
}

/// How a table stores its `[rows, width]` elements.
#[non_exhaustive]
pub enum TableData<'a, S: Memory> {
    /// 32-bit floats.
    F32(View<'a, S, f32>),
    /// 16-bit IEEE floats.
    F16(View<'a, S, half::f16>),
    /// bfloat16.
    Bf16(View<'a, S, half::bf16>),
    /// `value = scale[row]·code + offset[row]`.
    Int8 {
        /// `[rows, width]`.
        codes: View<'a, S, i8>,
        /// `[rows]`.
        scale: View<'a, S, f32>,
        /// `[rows]`.
        offset: View<'a, S, f32>,
    },
}

/// The inputs of a look-up.
#[non_exhaustive]
pub struct LookupInputs<'a, S: Memory> {
    /// `[N, F]`.
    pub ids: View<'a, S, u32>,
    /// `F` tables.
    pub tables: &'a [Table<'a, S>],
    /// Another `F` tables with the same numbers of rows, read in the same pass over the ids; may be empty.
    pub second_tables: &'a [Table<'a, S>],
}

/// The outputs of a look-up.
#[non_exhaustive]
pub struct LookupOutputs<'a, S: Memory> {
    /// `[N or bags, Σ width]`.
    pub out: ViewMut<'a, S, f32>,
    /// The same from the second tables; required if, and only if, there are second tables.
    pub second: Option<ViewMut<'a, S, f32>>,
}

copy_views!(Table, TableData, LookupInputs);

impl<'a, S: Memory> Table<'a, S> {
    /// A table of `rows` rows of `width` elements.
    pub fn new(rows: usize, width: usize, data: TableData<'a, S>) -> Self {
        Self { rows, width, data }
    }
}

impl<'a, S: Memory> LookupInputs<'a, S> {
    /// Ids `[N, F]` and the `F` tables that they are looked up in.
    pub fn new(ids: View<'a, S, u32>, tables: &'a [Table<'a, S>]) -> Self {
        Self { ids, tables, second_tables: &[] }
    }

    /// Sets second tables: another `F` tables with the same numbers of rows, read in the same pass over the ids.
    pub fn with_second_tables(self, second_tables: &'a [Table<'a, S>]) -> Self {
        Self { second_tables, ..self }
    }
}

impl<'a, S: Memory> LookupOutputs<'a, S> {
    /// Writes the rows of the tables.
    pub fn new(out: ViewMut<'a, S, f32>) -> Self {
        Self { out, second: None }
    }

    /// Also writes the rows of the second tables.
    pub fn with_second(self, second: ViewMut<'a, S, f32>) -> Self {
        Self { second: Some(second), ..self }
    }
}

/// The sum of the widths of some tables.
pub(crate) fn total_width<S: Memory>(tables: &[Table<'_, S>]) -> usize {
    tables.iter().fold(0, |sum, table| sum.saturating_add(table.width))
}

/// Checks that there is one table per feature, and that the buffers of each have the right sizes.
pub(in crate::ops) fn check_tables<S: Memory>(
    operation: &'static str,
    argument: &'static str,
    tables: &[Table<'_, S>],
    features: usize,
) -> Result<()> {
    if tables.len() != features {
        let (expected, got) =
            (format!("{features} tables, one per feature"), format!("{} tables", tables.len()));
        return Err(Error::Shape { operation, argument, expected, got });
    }
    for table in tables {
        let shape = [dim("rows", table.rows), dim("width", table.width)];
        if table.width == 0 {
            let (expected, got) = ("a width of at least 1".into(), "0".into());
            return Err(Error::Shape { operation, argument, expected, got });
        }
        match &table.data {
            TableData::F32(data) => expect(operation, argument, data.len(), &shape)?,
            TableData::F16(data) => expect(operation, argument, data.len(), &shape)?,
            TableData::Bf16(data) => expect(operation, argument, data.len(), &shape)?,
            TableData::Int8 { codes, scale, offset } => {
                expect(operation, argument, codes.len(), &shape)?;
                expect(operation, argument, scale.len(), &shape[..1])?;
                expect(operation, argument, offset.len(), &shape[..1])?
            }
        };
    }
    Ok(())
}
