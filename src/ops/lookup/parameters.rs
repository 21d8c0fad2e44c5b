//! Look-ups of rows of embedding tables: the formula and the rules of shapes.

use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::jagged::Jagged;
use crate::memory::Memory;
use crate::ops::lookup::inputs::{
    Bags, IdPolicy, LookupInputs, LookupOutputs, Table, check_tables, check_weights, total_width,
};
use crate::ops::shape::{dim, elements, expect, product, size, sum};

/// Reads table rows by id.
///
/// The rows of `F` features are concatenated: `out[i] = [R_1[ids[i,1]] ‖ … ‖ R_F[ids[i,F]]]`. With bags, the output is the
/// sum or mean of these rows over each bag; an empty bag gives zeros. Sums are computed by parts: their error does not grow with
/// the length of a bag. A sum, and a decoded int8 number, must be within `f32`; the numbers of a mean may have any size.
///
/// With weights `w [N, F]` ([`LookupInputs::with_weights`]; PyTorch's and FBGEMM's `per_sample_weights`, for several features):
///
/// ```text
/// out[bag] = [Σ_{l in bag} w[l,1]·R_1[ids[l,1]] ‖ … ‖ Σ_{l in bag} w[l,F]·R_F[ids[l,F]]]
/// ```
///
/// They are defined for sums alone. A mean divides by the number of ids in the bag, of each feature by itself those inside its table with
/// [`IdPolicy::Skip`]; where all are outside it is zeros. An id outside its table adds nothing to a weighted sum, whatever its weight.
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
    /// [`Error::Shape`] for a buffer or list of the wrong size; [`Error::Parameter`] for weights without [`Bags::Sum`];
    /// [`Error::Limit`] for sizes that exceed the address space.
    pub fn check<S: Memory, J: AsRef<Jagged>>(
        &self,
        bags: &Bags<'_, J>,
        inputs: &LookupInputs<'_, S>,
    ) -> Result<usize> {
        self.check_in("lookup", bags, inputs)
    }

    /// The same for the call that is named.
    pub(crate) fn check_in<S: Memory, J: AsRef<Jagged>>(
        &self,
        operation: &'static str,
        bags: &Bags<'_, J>,
        inputs: &LookupInputs<'_, S>,
    ) -> Result<usize> {
        let features = inputs.tables.len();
        check_tables(operation, "tables", inputs.tables, features.max(1))?;
        if !inputs.second_tables.is_empty() {
            check_tables(operation, "second_tables", inputs.second_tables, features)?;
            for (first, second) in inputs.tables.iter().zip(inputs.second_tables) {
                if first.rows != second.rows {
                    let expected = format!("{} rows, as in `tables`", first.rows);
                    let got = format!("{} rows", second.rows);
                    return Err(Error::Shape { operation, argument: "second_tables", expected, got });
                }
            }
        }
        let rows = match bags {
            Bags::Each => inputs.ids.len() / features,
            Bags::Sum(bags) | Bags::Mean(bags) => {
                (*bags).as_ref().check_no_slots(operation, "bags")?;
                (*bags).as_ref().rows()
            }
        };
        expect(operation, "ids", inputs.ids.len(), &[dim("N", rows), dim("F", features)])?;
        check_weights(operation, bags, inputs, rows)?;
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

/// Checks on the host that every id is inside its feature's table, if the policy asks for it.
pub(crate) fn check_host_ids(
    operation: &'static str,
    argument: &'static str,
    policy: IdPolicy,
    tables: &[Table<'_, Host>],
    ids: &[u32],
) -> Result<()> {
    if policy != IdPolicy::Error {
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
