//! The reference of the gradients of look-ups in embedding tables. Formula: [`lookup_backward`].

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::host::{Host, filled, reserve};
use crate::jagged::Jagged;
use crate::ops::*;
use crate::reference::lookup::{counted, table_row, weight_of};

const NAME: &str = "lookup_backward";

/// The exact gradient of an embedding table: the rows that the result depends on.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SparseGradientReference {
    /// The ids of the rows, ascending, each once. A row may be zeros; every other row of the table has no gradient.
    pub ids: Vec<u32>,
    /// `[ids.len(), width]`.
    pub rows: Vec<f64>,
}

/// Exact gradients of a look-up.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LookupGradientReference {
    /// One for each table.
    pub tables: Vec<SparseGradientReference>,
    /// One for each second table.
    pub second_tables: Vec<SparseGradientReference>,
    /// `[N, F]`: zeros for ids outside their tables, and in rows that belong to no bag. Empty without weights.
    pub weights: Vec<f64>,
}

/// The gradients of [`lookup`](crate::reference::lookup) in `f64`.
///
/// `grad_out` is the gradient of the output, `[N or bags, Σ width]`; `grad_second` that of the second output, which is given if, and
/// only if, there are second tables. With `g_r` the part of an output row's gradient that belongs to a table:
///
/// ```text
/// dtable[id] = Σ_{rows l with this id} g_l                     each
/// dtable[id] = Σ_{rows l with this id} g_bag(l)                sum
/// dtable[id] = Σ_{rows l with this id} w_l · g_bag(l)          sum with weights
/// dtable[id] = Σ_{rows l with this id} g_bag(l) / |bag(l)|     mean
/// dw[l,f]    = ⟨R_f[ids[l,f]], g_bag(l)⟩                       the same of the second tables added
/// ```
///
/// An id that occurs several times, in a bag too, counts as often. An id outside its table has no gradient; it counts in `|bag|` with
/// [`IdPolicy::Zero`], and not with [`IdPolicy::Skip`]. The gradient of an int8 table is that of its decoded rows. Nothing is saved by the
/// forward pass.
///
/// # Errors
/// Those of [`Lookup::check`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by [`IdPolicy`]; [`Error::Shape`] for a `grad_out` or
/// `grad_second` of the wrong length, or a `grad_second` that is missing or has no tables.
pub fn lookup_backward(
    op: &Lookup,
    bags: Bags<'_, Jagged>,
    inputs: &LookupInputs<'_, Host>,
    grad_out: &[f64],
    grad_second: Option<&[f64]>,
) -> Result<LookupGradientReference> {
    let features = inputs.tables.len();
    let rows = op.check_in(NAME, &bags, inputs)?;
    let single;
    let (bags, mean) = match bags {
        Bags::Each => {
            single = Jagged::from_lengths(&vec![1; rows])?;
            (&single, false)
        }
        Bags::Sum(bags) => (bags, false),
        Bags::Mean(bags) => (bags, true),
    };
    check_gradients(rows, inputs, grad_out, grad_second)?;
    check_host_ids(NAME, "ids", op.ids, inputs.tables, &inputs.ids[..bags.total() * features])?;
    let scatter = |tables: &[Table<'_, Host>], grad: &[f64]| -> Result<Vec<SparseGradientReference>> {
        let width = total_width(tables);
        let mut sums = TableSums::of(NAME, tables);
        for (bag, rows) in bags.ranges().enumerate() {
            let mut start = bag * width;
            for (feature, table) in tables.iter().enumerate() {
                let divisor =
                    if mean { counted(op, inputs, feature, rows.clone()).max(1) as f64 } else { 1.0 };
                let grad = &grad[start..start + table.width];
                start += table.width;
                for place in rows.clone().map(|l| l * features + feature) {
                    let weight = weight_of(inputs, place, table.rows) / divisor;
                    sums.add(feature, inputs.ids[place], weight, grad)?;
                }
            }
        }
        sums.finish()
    };
    let second = grad_second.unwrap_or_default();
    Ok(LookupGradientReference {
        tables: scatter(inputs.tables, grad_out)?,
        second_tables: scatter(inputs.second_tables, second)?,
        weights: weight_gradient(bags, inputs, [grad_out, second])?,
    })
}

/// The gradient of the weights, from those of the output and of the second one.
fn weight_gradient(bags: &Jagged, inputs: &LookupInputs<'_, Host>, grads: [&[f64]; 2]) -> Result<Vec<f64>> {
    let (Some(weights), features) = (&inputs.weights, inputs.tables.len()) else { return Ok(Vec::new()) };
    let mut out = filled(NAME, weights.len(), 0.0)?;
    for (tables, grad) in [inputs.tables, inputs.second_tables].into_iter().zip(grads) {
        let width = total_width(tables);
        for (bag, rows) in bags.ranges().enumerate() {
            for l in rows {
                let mut start = bag * width;
                for (feature, table) in tables.iter().enumerate() {
                    let (place, grad) = (l * features + feature, &grad[start..start + table.width]);
                    start += table.width;
                    // Zeros outside do not hide what is no number in the gradient: such an id has none.
                    if (inputs.ids[place] as usize) < table.rows {
                        let row = table_row(table, inputs.ids[place]);
                        out[place] += row.iter().zip(grad).map(|(a, b)| a * b).sum::<f64>();
                    }
                }
            }
        }
    }
    Ok(out)
}

/// Checks the gradients that come in, of `rows` output rows.
fn check_gradients(
    rows: usize,
    inputs: &LookupInputs<'_, Host>,
    grad_out: &[f64],
    grad_second: Option<&[f64]>,
) -> Result<()> {
    let wrong = |expected: &str, got: &str| {
        let (expected, got) = (expected.into(), got.into());
        Err(Error::Shape { operation: NAME, argument: "grad_second", expected, got })
    };
    let shape = |tables| [dim("N or bags", rows), dim("Σ width", total_width::<Host>(tables))];
    expect(NAME, "grad_out", grad_out.len(), &shape(inputs.tables))?;
    match (grad_second, inputs.second_tables) {
        (None, []) => {}
        (Some(_), []) => return wrong("none, as there are no second tables", "a gradient"),
        (None, _) => return wrong("a gradient for the second tables", "none"),
        (Some(grad), tables) => {
            expect(NAME, "grad_second", grad.len(), &shape(tables))?;
        }
    }
    Ok(())
}

/// Sums of gradients by table and id.
pub(super) struct TableSums {
    operation: &'static str,
    tables: Vec<Sums>,
}

/// The sums of one table: those of its `count` rows that something was added to.
struct Sums {
    count: usize,
    width: usize,
    rows: BTreeMap<u32, Vec<f64>>,
}

impl TableSums {
    /// No sums.
    pub(super) fn of(operation: &'static str, tables: &[Table<'_, Host>]) -> Self {
        let sums =
            |table: &Table<'_, Host>| Sums { count: table.rows, width: table.width, rows: BTreeMap::new() };
        Self { operation, tables: tables.iter().map(sums).collect() }
    }

    /// How many tables there are.
    pub(super) fn len(&self) -> usize {
        self.tables.len()
    }

    /// Adds `weight · grad` to the row `id` of a table. An id outside the table has none.
    pub(super) fn add(&mut self, table: usize, id: u32, weight: f64, grad: &[f64]) -> Result<()> {
        let sums = &mut self.tables[table];
        if id as usize >= sums.count {
            return Ok(());
        }
        let zeros = filled(self.operation, sums.width, 0.0)?;
        let row = sums.rows.entry(id).or_insert(zeros);
        row.iter_mut().zip(grad).for_each(|(sum, grad)| *sum += weight * grad);
        Ok(())
    }

    /// Adds the parts of `weight · grad`, `[Σ width]`, to one row of each table.
    pub(super) fn add_concatenated(&mut self, ids: &[u32], weight: f64, grad: &[f64]) -> Result<()> {
        let mut start = 0;
        for (table, &id) in (0..self.tables.len()).zip(ids) {
            let end = start + self.tables[table].width;
            self.add(table, id, weight, &grad[start..end])?;
            start = end;
        }
        Ok(())
    }

    /// The gradients of the tables.
    pub(super) fn finish(self) -> Result<Vec<SparseGradientReference>> {
        let finish = |sums: Sums| {
            let mut ids = reserve(self.operation, sums.rows.len())?;
            let mut rows = reserve(self.operation, sums.rows.len().saturating_mul(sums.width))?;
            for (id, row) in sums.rows {
                ids.push(id);
                rows.extend(row);
            }
            Ok(SparseGradientReference { ids, rows })
        };
        self.tables.into_iter().map(finish).collect()
    }
}
