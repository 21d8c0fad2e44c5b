//! Decoupled embeddings, plainly. Formula: [`Decoupled`].

use super::{dot, softmax};
use crate::error::{Error, Result};
use crate::jagged::{Batch, Jagged};
use crate::memory::Host;
use crate::ops::*;

/// An exact selection.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectionReference {
    /// `[M, K]`: positions within the user's history, [`EMPTY_SLOT`] behind the last one kept.
    pub positions: Vec<u32>,
    /// `[M, K]`: their scores, `-∞` behind the last one kept.
    pub scores: Vec<f64>,
    /// `[M]`.
    pub counts: Vec<u32>,
}

/// Looked-up rows, `[N or bags, Σ width]`, from the tables and from the second tables.
///
/// # Errors
/// Those of [`Lookup::check`]; [`Error::IndexOutOfRange`] by [`IdPolicy`].
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
    check_ids(NAME, "ids", op.ids, inputs.tables, &inputs.ids[..bags_of_rows.total() * features])?;
    let pooled = |tables: &[Table<'_, Host>]| -> Vec<f64> {
        let bag = |rows: std::ops::Range<usize>| {
            let mut sum = vec![0.0; total_width(tables)];
            let divisor = if mean { rows.len().max(1) as f64 } else { 1.0 };
            for l in rows {
                let concatenated = concatenate(tables, &inputs.ids[l * features..(l + 1) * features]);
                for (sum, value) in sum.iter_mut().zip(concatenated) {
                    *sum += value / divisor;
                }
            }
            sum
        };
        bags_of_rows.ranges().flat_map(bag).collect()
    };
    Ok((pooled(inputs.tables), (!inputs.second_tables.is_empty()).then(|| pooled(inputs.second_tables))))
}

/// The best behaviours of each candidate.
///
/// # Errors
/// Those of [`Decoupled::check_search`]; [`Error::IndexOutOfRange`] by [`IdPolicy`].
pub fn decoupled_search(
    op: &Decoupled,
    batch: &Batch,
    inputs: &SearchInputs<'_, Host>,
) -> Result<SelectionReference> {
    const NAME: &str = "decoupled_search";
    let slots = op.selection_length(batch)?;
    let candidates = batch.targets().rows();
    let top_k = op.check_search(batch, inputs)?;
    check_both_ids(NAME, op, batch, inputs.attention, inputs.ids, inputs.target_ids)?;
    let mut kept = SelectionReference {
        positions: vec![EMPTY_SLOT; slots],
        scores: vec![f64::NEG_INFINITY; slots],
        counts: vec![0; candidates],
    };
    for (history, targets) in batch.requests() {
        for m in targets {
            let best = ranked(&scores_of(op, inputs, history.clone(), m), top_k);
            kept.counts[m] = best.len() as u32;
            for (slot, (position, score)) in best.into_iter().enumerate() {
                kept.positions[m * top_k + slot] = position as u32;
                kept.scores[m * top_k + slot] = score;
            }
        }
    }
    Ok(kept)
}

/// The softmax-weighted sum over a selection, `[M, Σ r]`.
///
/// # Errors
/// Those of [`Decoupled::check_aggregate`]; [`Error::IndexOutOfRange`] for ids by [`IdPolicy`], and always for a
/// count above `K` or a counted position outside its history.
pub fn decoupled_aggregate(
    op: &Decoupled,
    batch: &Batch,
    inputs: &AggregateInputs<'_, Host>,
    selection: &Selection<'_, Host>,
) -> Result<Vec<f64>> {
    const NAME: &str = "decoupled_aggregate";
    let mut out = vec![0.0; op.output_length(batch, inputs.representation)?];
    let top_k = op.check_aggregate(batch, inputs, selection)?;
    check_selection(NAME, batch, selection, top_k)?;
    check_both_ids(NAME, op, batch, inputs.representation, inputs.ids, inputs.target_ids)?;
    for (history, targets) in batch.requests() {
        for m in targets {
            let slots = m * top_k..m * top_k + selection.counts[m] as usize;
            let kept =
                selection.positions[slots.clone()].iter().map(|&position| history.start + position as usize);
            let scores: Vec<f64> = selection.scores[slots].iter().map(|&score| score.into()).collect();
            aggregate_into(op, inputs, m, kept, &scores, &mut out);
        }
    }
    Ok(out)
}

/// Search and aggregation in one, without rounding the scores to `f32` in between, `[M, Σ r]`.
///
/// # Errors
/// Those of [`Decoupled::check_attend`]; [`Error::IndexOutOfRange`] by [`IdPolicy`].
pub fn decoupled_attend(
    op: &Decoupled,
    batch: &Batch,
    inputs: &DecoupledInputs<'_, Host>,
) -> Result<Vec<f64>> {
    const NAME: &str = "decoupled_attend";
    let mut out = vec![0.0; op.output_length(batch, inputs.representation)?];
    op.check_attend(batch, inputs)?;
    check_both_ids(NAME, op, batch, inputs.attention, inputs.ids, inputs.target_ids)?;
    let DecoupledInputs { attention, representation, ids, target_ids } = *inputs;
    let search = SearchInputs { attention, ids, target_ids };
    let aggregate = AggregateInputs { representation, ids, target_ids };
    for (history, targets) in batch.requests() {
        for m in targets {
            let scores = scores_of(op, &search, history.clone(), m);
            let best = ranked(&scores, op.top_k.unwrap_or(usize::MAX));
            let kept = best.iter().map(|&(position, _)| history.start + position);
            let scores: Vec<f64> = best.iter().map(|&(_, score)| score).collect();
            aggregate_into(op, &aggregate, m, kept, &scores, &mut out);
        }
    }
    Ok(out)
}

/// The scores of one candidate against each behaviour of a history.
fn scores_of(
    op: &Decoupled,
    inputs: &SearchInputs<'_, Host>,
    history: std::ops::Range<usize>,
    m: usize,
) -> Vec<f64> {
    let features = op.features();
    let score = |l: usize| {
        let term = |f: usize| {
            let target = table_row(&inputs.attention[f], inputs.target_ids[m * features + f]);
            let behaviour = table_row(&inputs.attention[f], inputs.ids[l * features + f]);
            f64::from(op.scales[f]) * dot(&target, &behaviour)
        };
        (0..features).map(term).sum()
    };
    history.map(score).collect()
}

/// The `top_k` best (position, score): score descending, then position ascending, NaN last.
fn ranked(scores: &[f64], top_k: usize) -> Vec<(usize, f64)> {
    let mut order: Vec<(usize, f64)> = scores.iter().copied().enumerate().collect();
    order.sort_by(|a, b| match (a.1.is_nan(), b.1.is_nan()) {
        // Not total_cmp: it would put -0 behind +0, which are equal scores.
        (false, false) => b.1.partial_cmp(&a.1).unwrap_or(std::cmp::Ordering::Equal).then(a.0.cmp(&b.0)),
        (a_nan, b_nan) => a_nan.cmp(&b_nan).then(a.0.cmp(&b.0)),
    });
    order.truncate(top_k);
    order
}

fn aggregate_into(
    op: &Decoupled,
    inputs: &AggregateInputs<'_, Host>,
    m: usize,
    kept: impl Iterator<Item = usize>,
    scores: &[f64],
    out: &mut [f64],
) {
    let features = op.features();
    let width = total_width(inputs.representation);
    let out = &mut out[m * width..(m + 1) * width];
    for (l, w) in kept.zip(softmax(scores).0) {
        // A score of -∞ takes no part, whatever its row holds.
        if w == 0.0 {
            continue;
        }
        let behaviour = concatenate(inputs.representation, &inputs.ids[l * features..(l + 1) * features]);
        for (out, r) in out.iter_mut().zip(behaviour) {
            *out += w * r;
        }
    }
    if op.multiply_target {
        let target = concatenate(inputs.representation, &inputs.target_ids[m * features..(m + 1) * features]);
        for (out, r) in out.iter_mut().zip(target) {
            *out *= r;
        }
    }
}

/// `[R_1[ids[0]] ‖ R_2[ids[1]] ‖ …]`.
fn concatenate(tables: &[Table<'_, Host>], ids: &[u32]) -> Vec<f64> {
    tables.iter().zip(ids).flat_map(|(table, &id)| table_row(table, id)).collect()
}

/// One row of a table, widened; zeros for an id outside it (which only `IdPolicy::Zero` lets through).
fn table_row(table: &Table<'_, Host>, id: u32) -> Vec<f64> {
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

fn check_both_ids(
    operation: &'static str,
    op: &Decoupled,
    batch: &Batch,
    tables: &[Table<'_, Host>],
    ids: &[u32],
    target_ids: &[u32],
) -> Result<()> {
    let features = op.features();
    check_ids(operation, "ids", op.ids, tables, &ids[..batch.histories().total() * features])?;
    check_ids(operation, "target_ids", op.ids, tables, &target_ids[..batch.targets().total() * features])
}

fn check_ids(
    operation: &'static str,
    argument: &'static str,
    policy: IdPolicy,
    tables: &[Table<'_, Host>],
    ids: &[u32],
) -> Result<()> {
    if policy == IdPolicy::Zero {
        return Ok(());
    }
    for (position, &id) in ids.iter().enumerate() {
        let rows = tables[position % tables.len()].rows as u64;
        if u64::from(id) >= rows {
            let (position, id) = (position as u64, id.into());
            return Err(Error::IndexOutOfRange { operation, argument, position, id, rows });
        }
    }
    Ok(())
}

fn check_selection(
    operation: &'static str,
    batch: &Batch,
    selection: &Selection<'_, Host>,
    top_k: usize,
) -> Result<()> {
    let wrong = |argument, position: usize, id: u32, rows: usize| {
        let (position, id, rows) = (position as u64, id.into(), rows as u64);
        Err(Error::IndexOutOfRange { operation, argument, position, id, rows })
    };
    for (history, targets) in batch.requests() {
        for m in targets {
            let count = selection.counts[m];
            if count as usize > top_k {
                return wrong("counts", m, count, top_k + 1);
            }
            let slots = m * top_k..m * top_k + count as usize;
            for (slot, &position) in slots.clone().zip(&selection.positions[slots]) {
                if position as usize >= history.len() {
                    return wrong("positions", slot, position, history.len());
                }
            }
        }
    }
    Ok(())
}
