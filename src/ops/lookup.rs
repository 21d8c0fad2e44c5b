//! Embedding tables and look-ups of their rows.

use crate::device::{Buffer, DeviceOps, unsupported};
use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::jagged::Jagged;
use crate::memory::{Memory, View, ViewMut};
use crate::ops::shape::{copy_views, dim, elements, expect, product, size, sum};

/// Reads table rows by id.
///
/// The rows of `F` features are concatenated: `out[i] = [R_1[ids[i,1]] ‖ … ‖ R_F[ids[i,F]]]`. With bags, the output is the
/// sum or mean of these rows over each bag; an empty bag gives zeros. Sums are computed by parts: their error does not grow with
/// the length of a bag. A sum, and a decoded int8 number, must be within `f32`; the numbers of a mean may have any size.
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{Bags, Cpu, Host, IdPolicy, Lookup, LookupInputs, Table, TableData};
///
/// let backend = Cpu::new();
/// let (item, category) = ([0.0_f32, 0.1, 1.0, 1.1, 2.0, 2.1], [70.0_f32, 80.0]);
/// let tables = [
///     Table::new(3, 2, TableData::F32(Host::view(&item))),
///     Table::new(2, 1, TableData::F32(Host::view(&category))),
/// ];
/// let ids = [2, 0, 99, 1]; // two rows of (item, category); 99 is outside its table
/// let op = Lookup::default().with_ids(IdPolicy::Zero);
/// let (out, _) = backend.lookup(&op, Bags::Each, LookupInputs::new(Host::view(&ids), &tables))?;
/// assert_eq!(*out, [2.0, 2.1, 70.0, 0.0, 0.0, 80.0]);
/// # Ok::<(), longseq::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Lookup {
    /// What happens to ids outside their table.
    pub ids: IdPolicy,
}

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

impl Lookup {
    /// Sets what happens to ids outside their table.
    pub fn with_ids(self, ids: IdPolicy) -> Self {
        Self { ids }
    }

    /// `rows·Σ width`: the number of elements of the output for `rows` rows or bags.
    ///
    /// # Errors
    /// [`Error::Limit`] if it exceeds the address space.
    pub fn output_length<S: Memory>(&self, rows: usize, tables: &[Table<'_, S>]) -> Result<usize> {
        elements("lookup", "out", &[dim("rows", rows), dim("Σ width", total_width(tables))])
    }

    /// Checks the inputs of a look-up and returns the number of output rows: rows of ids, or bags.
    ///
    /// # Errors
    /// [`Error::Shape`] for a buffer or list of the wrong size; [`Error::Limit`] for sizes that exceed the address space.
    pub fn check<S: Memory, J: AsRef<Jagged>>(
        &self,
        bags: &Bags<'_, J>,
        inputs: &LookupInputs<'_, S>,
    ) -> Result<usize> {
        const NAME: &str = "lookup";
        let features = inputs.tables.len();
        check_tables(NAME, "tables", inputs.tables, features.max(1))?;
        if !inputs.second_tables.is_empty() {
            check_tables(NAME, "second_tables", inputs.second_tables, features)?;
            for (first, second) in inputs.tables.iter().zip(inputs.second_tables) {
                if first.rows != second.rows {
                    let expected = format!("{} rows, as in `tables`", first.rows);
                    let got = format!("{} rows", second.rows);
                    return Err(Error::Shape { operation: NAME, argument: "second_tables", expected, got });
                }
            }
        }
        let rows = match bags {
            Bags::Each => inputs.ids.len() / features,
            Bags::Sum(bags) | Bags::Mean(bags) => (*bags).as_ref().rows(),
        };
        expect(NAME, "ids", inputs.ids.len(), &[dim("N", rows), dim("F", features)])?;
        Ok(match bags {
            Bags::Each => rows,
            Bags::Sum(bags) | Bags::Mean(bags) => (*bags).as_ref().users(),
        })
    }

    /// The fewest bytes to move: each of `ids` ids per feature, the row that it names, and each of `rows` output rows. `T`
    /// is the storage type of the tables; `widths` are those of one or both sets of tables. At most `u64::MAX`.
    pub fn bytes<T: Scalar>(&self, ids: usize, rows: usize, features: usize, widths: &[usize]) -> u64 {
        let width = sum(widths.iter().map(|&width| width as u64));
        let id = sum([product(&[features as u64, size::<u32>()]), product(&[width, size::<T>()])]);
        sum([product(&[ids as u64, id]), product(&[rows as u64, width, size::<f32>()])])
    }

    /// Checks the outputs for `rows` rows or bags.
    ///
    /// # Errors
    /// [`Error::Shape`] for an output of the wrong size, a second output without second tables, or second tables without
    /// a second output.
    pub fn check_outputs<S: Memory>(
        &self,
        rows: usize,
        inputs: &LookupInputs<'_, S>,
        outputs: &LookupOutputs<'_, S>,
    ) -> Result<()> {
        const NAME: &str = "lookup";
        let wrong = |expected: &str, got: &str| {
            let (expected, got) = (expected.into(), got.into());
            Err(Error::Shape { operation: NAME, argument: "second", expected, got })
        };
        let shape = |tables| [dim("N or bags", rows), dim("Σ width", total_width::<S>(tables))];
        expect(NAME, "out", outputs.out.len(), &shape(inputs.tables))?;
        match (&outputs.second, inputs.second_tables) {
            (None, []) => {}
            (Some(_), []) => return wrong("none, as there are no second tables", "an output"),
            (None, _) => return wrong("an output for the second tables", "none"),
            (Some(second), tables) => {
                expect(NAME, "second", second.len(), &shape(tables))?;
            }
        }
        Ok(())
    }
}

/// The sum of the widths of some tables.
pub(crate) fn total_width<S: Memory>(tables: &[Table<'_, S>]) -> usize {
    tables.iter().fold(0, |sum, table| sum.saturating_add(table.width))
}

/// Checks that there is one table per feature, and that the buffers of each have the right sizes.
pub(super) fn check_tables<S: Memory>(
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

/// Checks on the host that every id is inside its feature's table, if the policy asks for it.
pub(crate) fn check_host_ids(
    operation: &'static str,
    argument: &'static str,
    policy: IdPolicy,
    tables: &[Table<'_, Host>],
    ids: &[u32],
) -> Result<()> {
    if policy == IdPolicy::Zero {
        return Ok(());
    }
    // Finding the largest id of each feature is many times faster than finding the first one outside.
    let features = tables.len();
    let largest = |feature: usize| ids.iter().skip(feature).step_by(features).max();
    let is_outside = |(feature, table): (usize, &Table<'_, Host>)| {
        largest(feature).is_some_and(|&id| id as usize >= table.rows)
    };
    if !tables.iter().enumerate().any(is_outside) {
        return Ok(());
    }
    let outside = |(position, &id): (usize, &u32)| {
        let rows = tables[position % features].rows;
        (id as usize >= rows).then_some((position as u64, u64::from(id), rows as u64))
    };
    match ids.iter().enumerate().find_map(outside) {
        None => Ok(()),
        Some((position, id, rows)) => {
            Err(Error::IndexOutOfRange { operation, argument, position, id, bound: rows })
        }
    }
}

/// Look-ups in embedding tables on a device; see [`Lookup`].
///
/// Methods that a backend does not implement return [`Unsupported`](crate::Error::Unsupported).
pub trait LookupOps: DeviceOps {
    /// Looks rows up and writes them into given outputs; see [`Lookup`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Bags, Cpu, Host, Lookup, LookupInputs, LookupOutputs, Table, TableData};
    ///
    /// let backend = Cpu::new();
    /// let (attention, representation) = ([1.0_f32, 2.0, 3.0], [10.0_f32, 20.0, 30.0]);
    /// let first = [Table::new(3, 1, TableData::F32(Host::view(&attention)))];
    /// let second = [Table::new(3, 1, TableData::F32(Host::view(&representation)))];
    /// let inputs = LookupInputs::new(Host::view(&[2, 1]), &first).with_second_tables(&second);
    /// let (mut a, mut r) = ([0.0; 2], [0.0; 2]);
    /// let outputs = LookupOutputs::new(Host::view_mut(&mut a)).with_second(Host::view_mut(&mut r));
    /// backend.lookup_into(&Lookup::default(), Bags::Each, inputs, outputs)?;
    /// assert_eq!((a, r), ([3.0, 2.0], [30.0, 20.0]));
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Lookup::check`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by [`IdPolicy`].
    fn lookup_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, Self::Jagged>,
        inputs: LookupInputs<'_, Self::Memory>,
        outputs: LookupOutputs<'_, Self::Memory>,
    ) -> Result<()> {
        let _ = (op, bags, inputs, outputs);
        Err(unsupported(self, "lookup"))
    }

    /// Looks rows up: `[N or bags, Σ width]` from the tables, and from the second tables if there are any; see [`Lookup`].
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Bags, Cpu, Host, Jagged, Lookup, LookupInputs, Table, TableData};
    ///
    /// let backend = Cpu::new();
    /// // Two rows of two numbers: value = scale[row]·code + offset[row].
    /// let (codes, scale, offset) = ([2_i8, 4, -1, 1], [0.5_f32, 2.0], [0.0, 3.0]);
    /// let data = TableData::Int8 {
    ///     codes: Host::view(&codes),
    ///     scale: Host::view(&scale),
    ///     offset: Host::view(&offset),
    /// };
    /// let tables = [Table::new(2, 2, data)];
    /// let bags = backend.jagged(&Jagged::from_lengths(&[3, 0])?)?; // a bag of three ids, and an empty one
    /// let inputs = LookupInputs::new(Host::view(&[0, 1, 1]), &tables);
    /// let (sums, _) = backend.lookup(&Lookup::default(), Bags::Sum(&bags), inputs)?;
    /// assert_eq!(*sums, [3.0, 12.0, 0.0, 0.0]);
    /// let (means, _) = backend.lookup(&Lookup::default(), Bags::Mean(&bags), inputs)?;
    /// assert_eq!(*means, [1.0, 4.0, 0.0, 0.0]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`lookup_into`](Self::lookup_into).
    #[expect(clippy::type_complexity, reason = "the call returns a pair of buffers, the second optional")]
    fn lookup(
        &self,
        op: &Lookup,
        bags: Bags<'_, Self::Jagged>,
        inputs: LookupInputs<'_, Self::Memory>,
    ) -> Result<(Buffer<Self, f32>, Option<Buffer<Self, f32>>)> {
        // Checked before anything is allocated, here and in the other calls that allocate.
        let rows = op.check(&bags, &inputs)?;
        let mut out = self.zeros(op.output_length(rows, inputs.tables)?)?;
        let mut second = match inputs.second_tables {
            [] => None,
            tables => Some(self.zeros(op.output_length(rows, tables)?)?),
        };
        let outputs = LookupOutputs {
            out: self.view_mut(&mut out),
            second: second.as_mut().map(|second| self.view_mut(second)),
        };
        self.lookup_into(op, bags, inputs, outputs)?;
        Ok((out, second))
    }
}
