//! Embedding tables on the CPU: rows widened to `f32`, and look-ups of them.

use std::ops::Range;

use crate::cpu::tiles::for_each;
use crate::cpu::vector::add;
use crate::error::Result;
use crate::jagged::Jagged;
use crate::memory::Host;
use crate::ops::*;

/// Writes `[R_1[ids[0]] ‖ R_2[ids[1]] ‖ …]`. An id outside its table (which only `IdPolicy::Zero` lets through) reads
/// zeros.
pub(super) fn concatenate(tables: &[Table<'_, Host>], ids: &[u32], mut out: &mut [f32]) {
    for (table, &id) in tables.iter().zip(ids) {
        let (row, rest) = std::mem::take(&mut out).split_at_mut(table.width);
        read_row(table, id as usize, row);
        out = rest;
    }
}

fn read_row(table: &Table<'_, Host>, id: usize, out: &mut [f32]) {
    if id >= table.rows {
        return out.fill(0.0);
    }
    let range = id * table.width..(id + 1) * table.width;
    match &table.data {
        TableData::F32(data) => out.copy_from_slice(&data[range]),
        TableData::F16(data) => {
            out.iter_mut().zip(&data[range]).for_each(|(out, value)| *out = value.to_f32())
        }
        TableData::Bf16(data) => {
            out.iter_mut().zip(&data[range]).for_each(|(out, value)| *out = value.to_f32())
        }
        TableData::Int8 { codes, scale, offset } => {
            for (out, &code) in out.iter_mut().zip(&codes[range]) {
                *out = scale[id] * f32::from(code) + offset[id];
            }
        }
    }
}

pub(super) fn lookup(
    op: &Lookup,
    bags: &Bags<'_, Jagged>,
    inputs: &LookupInputs<'_, Host>,
    outputs: LookupOutputs<'_, Host>,
) -> Result<()> {
    let rows = op.check(bags, inputs)?;
    op.check_outputs(rows, inputs, &outputs)?;
    let features = inputs.tables.len();
    let bag = |i: usize| match bags {
        Bags::Each => i..i + 1,
        Bags::Sum(bags) | Bags::Mean(bags) => bags.range(i),
    };
    let used = if rows == 0 { 0 } else { bag(rows - 1).end };
    check_host_ids("lookup", "ids", op.ids, inputs.tables, &inputs.ids[..used * features])?;
    let first = outputs.out.into_slice().chunks_exact_mut(total_width(inputs.tables).max(1));
    let second: Vec<Option<&mut [f32]>> = match outputs.second {
        Some(second) => {
            second.into_slice().chunks_exact_mut(total_width(inputs.second_tables)).map(Some).collect()
        }
        None => (0..rows).map(|_| None).collect(),
    };
    let mean = matches!(bags, Bags::Mean(_));
    let items = first.zip(second).enumerate().collect();
    for_each(items, |(i, (first, second)): (usize, (&mut [f32], Option<&mut [f32]>))| {
        pool(inputs.tables, &inputs.ids, bag(i), mean, first);
        if let Some(second) = second {
            pool(inputs.second_tables, &inputs.ids, bag(i), mean, second);
        }
    });
    Ok(())
}

/// The sum or mean of the rows of one bag.
fn pool(tables: &[Table<'_, Host>], ids: &[u32], bag: Range<usize>, mean: bool, out: &mut [f32]) {
    let ids = &ids[bag.start * tables.len()..bag.end * tables.len()];
    if bag.len() == 1 {
        return concatenate(tables, ids, out);
    }
    out.fill(0.0);
    let mut row = vec![0.0; out.len()];
    for ids in ids.chunks_exact(tables.len()) {
        concatenate(tables, ids, &mut row);
        add(out, &row);
    }
    if mean && !bag.is_empty() {
        out.iter_mut().for_each(|value| *value /= bag.len() as f32);
    }
}
