//! The reference of look-ups in embedding tables. Formula: [`Lookup`].

use crate::error::Result;
use crate::host::{Host, filled};
use crate::jagged::Jagged;
use crate::ops::*;

/// The rows or pooled bags `[N or bags, Σ width]` of the tables, and of the second tables if there are any.
///
/// # Errors
/// Those of [`Lookup::check`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by [`IdPolicy`].
pub fn lookup(
    op: &Lookup,
    bags: Bags<'_, Jagged>,
    inputs: &LookupInputs<'_, Host>,
) -> Result<(Vec<f64>, Option<Vec<f64>>)> {
    const NAME: &str = "lookup";
    let features = inputs.tables.len();
    let rows = inputs.ids.len() / features.max(1);
    let single;
    let (bags_of_rows, mean) = match bags {
        Bags::Each => {
            single = Jagged::from_lengths(&vec![1; rows])?;
            (&single, false)
        }
        Bags::Sum(bags) => (bags, false),
        Bags::Mean(bags) => (bags, true),
    };
    op.check(&bags, inputs)?;
    check_host_ids(NAME, "ids", op.ids, inputs.tables, &inputs.ids[..bags_of_rows.total() * features])?;
    let pooled = |tables: &[Table<'_, Host>]| -> Result<Vec<f64>> {
        let width = total_width(tables);
        let mut out = filled(NAME, bags_of_rows.users().saturating_mul(width), 0.0)?;
        for (rows, out) in bags_of_rows.ranges().zip(out.chunks_exact_mut(width)) {
            let mut start = 0;
            for (feature, table) in tables.iter().enumerate() {
                let divisor =
                    if mean { counted(op, inputs, feature, rows.clone()).max(1) as f64 } else { 1.0 };
                let sum = &mut out[start..start + table.width];
                start += table.width;
                for l in rows.clone() {
                    let place = l * features + feature;
                    let weight = weight_of(inputs, place, table.rows);
                    for (sum, value) in sum.iter_mut().zip(table_row(table, inputs.ids[place])) {
                        *sum += weight * value;
                    }
                }
                sum.iter_mut().for_each(|sum| *sum /= divisor);
            }
        }
        Ok(out)
    };
    let second = (!inputs.second_tables.is_empty()).then(|| pooled(inputs.second_tables));
    Ok((pooled(inputs.tables)?, second.transpose()?))
}

/// How many of the ids of a feature count in the mean of a bag.
pub(super) fn counted(
    op: &Lookup,
    inputs: &LookupInputs<'_, Host>,
    feature: usize,
    rows: std::ops::Range<usize>,
) -> usize {
    let features = inputs.tables.len();
    let counts = |l: &usize| {
        op.ids != IdPolicy::Skip
            || (inputs.ids[l * features + feature] as usize) < inputs.tables[feature].rows
    };
    rows.filter(counts).count()
}

/// The weight of an id: 1 without weights, and 0 outside its table of so many rows.
pub(super) fn weight_of(inputs: &LookupInputs<'_, Host>, place: usize, rows: usize) -> f64 {
    match &inputs.weights {
        _ if inputs.ids[place] as usize >= rows => 0.0,
        Some(weights) => weights[place].into(),
        None => 1.0,
    }
}

/// `[R_1[ids[0]] ‖ R_2[ids[1]] ‖ …]`.
pub(super) fn concatenate(tables: &[Table<'_, Host>], ids: &[u32]) -> Vec<f64> {
    tables.iter().zip(ids).flat_map(|(table, &id)| table_row(table, id)).collect()
}

/// One row of a table, widened; zeros for an id outside it (impossible with `IdPolicy::Error`).
pub(super) fn table_row(table: &Table<'_, Host>, id: u32) -> Vec<f64> {
    let id = id as usize;
    if id >= table.rows {
        return vec![0.0; table.width];
    }
    let range = id * table.width..(id + 1) * table.width;
    match &table.data {
        TableData::F32(data) => data[range].iter().map(|&value| value.into()).collect(),
        TableData::F16(data) => data[range].iter().map(|value| value.to_f64()).collect(),
        TableData::Bf16(data) => data[range].iter().map(|value| value.to_f64()).collect(),
        TableData::Int8 { codes, scale, offset } => {
            let value = |&code: &i8| f64::from(scale[id]) * f64::from(code) + f64::from(offset[id]);
            codes[range].iter().map(value).collect()
        }
    }
}
