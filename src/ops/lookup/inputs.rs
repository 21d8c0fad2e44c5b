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
    /// The id is left out: it adds nothing, and does not count in a mean; without bags its row is zeros. (Published models pad
    /// with −1 or `u32::MAX`.) For look-ups and sorted ids; decoupled embeddings refuse it.
    Skip,
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
    /// `[N, F]`: a factor on the row of each id, for [`Bags::Sum`].
    pub weights: Option<View<'a, S, f32>>,
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
        Self { ids, tables, second_tables: &[], weights: None }
    }

    /// Sets second tables: another `F` tables with the same numbers of rows, read in the same pass over the ids.
    pub fn with_second_tables(self, second_tables: &'a [Table<'a, S>]) -> Self {
        Self { second_tables, ..self }
    }

    /// Multiplies the row of each id by a weight `[N, F]`, in both sets of tables; only for [`Bags::Sum`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Bags, Cpu, Host, IdPolicy, Jagged, Lookup, LookupInputs, Table, TableData};
    ///
    /// let backend = Cpu::new();
    /// let tables = [Table::new(2, 2, TableData::F32(Host::view(&[1.0, 2.0, 10.0, 20.0])))];
    /// let bags = backend.jagged(&Jagged::from_lengths(&[2, 1])?)?;
    /// let ids = [0, 1, u32::MAX]; // the last one is padding
    /// let inputs = LookupInputs::new(Host::view(&ids), &tables).with_weights(Host::view(&[0.5, 2.0, 7.0]));
    /// let op = Lookup::default().with_ids(IdPolicy::Skip);
    /// let (sums, _) = backend.lookup(&op, Bags::Sum(&bags), inputs)?;
    /// assert_eq!(*sums, [20.5, 41.0, 0.0, 0.0]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    pub fn with_weights(self, weights: View<'a, S, f32>) -> Self {
        Self { weights: Some(weights), ..self }
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

/// Checks the weights of ids: `[N, F]`, and only for sums.
pub(in crate::ops) fn check_weights<S: Memory, J>(
    operation: &'static str,
    bags: &Bags<'_, J>,
    inputs: &LookupInputs<'_, S>,
    rows: usize,
) -> Result<()> {
    let Some(weights) = &inputs.weights else { return Ok(()) };
    let got = match bags {
        Bags::Sum(_) => {
            let shape = [dim("N", rows), dim("F", inputs.tables.len())];
            return expect(operation, "weights", weights.len(), &shape).map(|_| ());
        }
        Bags::Each => "Bags::Each",
        Bags::Mean(_) => "Bags::Mean",
    };
    let expected = "Bags::Sum: a weighted mean is the sum with weights that are divided by their sum".into();
    Err(Error::Parameter { operation, argument: "weights", expected, got: got.into() })
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
