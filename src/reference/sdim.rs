//! The reference of SDIM. Formula: [`Sdim`].

use crate::element::{Element, Signature};
use crate::error::{Error, Result};
use crate::host::{Host, filled};
use crate::jagged::{Batch, Jagged};
use crate::memory::View;
use crate::ops::{Hash, Sdim, SdimAttendInputs, SdimEncodeInputs, SdimQueryInputs};
use crate::reference::arithmetic::row;
use crate::reference::widened::{sdim_encode_in_f32, sdim_in_f32, sdim_query_in_f32, wide};

/// A projection `⟨x, R[:,g,t]⟩`, and the scale of its rounding errors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Projection {
    /// `Σ_i x_i·r_i`.
    pub value: f64,
    /// `Σ_i |x_i·r_i|`: an `f32` sum in any order is off by less than about `d·2⁻²⁴` times this.
    pub magnitude: f64,
}

/// The projections whose signs are the signatures of rows `[rows, d]`: `[rows, G, τ]`.
///
/// # Errors
/// Those of [`Sdim::check_signatures`].
pub fn sdim_projections<T: Element>(op: &Sdim, rows: &[T], rotations: &[f32]) -> Result<Vec<Projection>> {
    let count = op.check_signatures(rows.len(), rotations.len())?;
    Ok(projections(op, count, &wide("sdim_signatures", rows)?, rotations))
}

/// [`sdim_projections`] of widened rows.
fn projections(op: &Sdim, count: usize, rows: &[f32], rotations: &[f32]) -> Vec<Projection> {
    let functions = op.groups * op.bits;
    let mut projections = Vec::with_capacity(count * functions);
    for i in 0..count {
        let x = row(rows, i, op.width);
        for function in 0..functions {
            let term = |j: usize| x[j] * f64::from(rotations[j * functions + function]);
            projections.push(Projection {
                value: (0..op.width).map(term).sum(),
                magnitude: (0..op.width).map(|j| term(j).abs()).sum(),
            });
        }
    }
    projections
}

/// The signatures of rows `[rows, d]`: `[rows, G]`.
///
/// # Errors
/// Those of [`Sdim::check_signatures`].
pub fn sdim_signatures<T: Element>(op: &Sdim, rows: &[T], rotations: &[f32]) -> Result<Vec<u32>> {
    let projections = sdim_projections(op, rows, rotations)?;
    let signature =
        |bits: &[Projection]| bits.iter().enumerate().map(|(t, p)| u32::from(p.value > 0.0) << t).sum();
    Ok(projections.chunks(op.bits).map(signature).collect())
}

/// Bucket tables `[B, G, 2^τ, d]`.
///
/// # Errors
/// Those of [`Sdim::check_encode`]; [`Error::IndexOutOfRange`] for a given signature of `2^τ` or more, and for an id without an item.
pub fn sdim_encode<T: Element>(
    op: &Sdim,
    histories: &Jagged,
    inputs: &SdimEncodeInputs<'_, Host, T>,
) -> Result<Vec<f64>> {
    const NAME: &str = "sdim_encode";
    sdim_encode_in_f32(NAME, inputs, |inputs| encode(NAME, op, histories, inputs))
}

/// [`sdim_encode`] of widened inputs.
fn encode(
    operation: &'static str,
    op: &Sdim,
    histories: &Jagged,
    inputs: &SdimEncodeInputs<'_, Host, f32>,
) -> Result<Vec<f64>> {
    op.check_encode(operation, histories, inputs)?;
    let signatures = hash(operation, op, histories.total(), Some(inputs.history), &inputs.hash)?;
    let mut table = filled(operation, op.table_length(histories.slot_count())?, 0.0)?;
    for (b, history) in histories.ranges().enumerate() {
        for l in history {
            let s = row(&inputs.history, l, op.width);
            let weight = weight(inputs, l);
            for g in 0..op.groups {
                let bucket = bucket(op, histories.slot(b), g, signatures[l * op.groups + g]);
                for (j, s) in s.iter().enumerate() {
                    table[bucket + j] += weight * s;
                }
            }
        }
    }
    Ok(table)
}

/// The weight of behaviour `l`.
pub(super) fn weight(inputs: &SdimEncodeInputs<'_, Host, f32>, l: usize) -> f64 {
    inputs.weights.as_ref().map_or(1.0, |weights| weights[l].into())
}

/// Bucket tables `[B, G, 2^τ, d]` without some behaviours that are in them: [`sdim_remove`](crate::SdimOps::sdim_remove).
///
/// # Errors
/// Those of [`sdim_encode`], and [`Error::Shape`] for a table of the wrong length.
pub fn sdim_remove<T: Element>(
    op: &Sdim,
    gone: &Jagged,
    inputs: &SdimEncodeInputs<'_, Host, T>,
    table: &[f64],
) -> Result<Vec<f64>> {
    const NAME: &str = "sdim_remove";
    let removed = sdim_encode_in_f32(NAME, inputs, |inputs| encode(NAME, op, gone, inputs))?;
    op.check_table(NAME, gone.slot_count(), table.len())?;
    Ok(table.iter().zip(removed).map(|(table, removed)| table - removed).collect())
}

/// Bucket tables `[B, G, 2^τ, d]` times one factor, or times the factor of each user: [`sdim_decay`](crate::SdimOps::sdim_decay).
///
/// # Errors
/// Those of [`Sdim::check_decay`].
pub fn sdim_decay(op: &Sdim, table: &[f64], factors: &[f32]) -> Result<Vec<f64>> {
    let tables = op.check_decay(table.len(), factors.len())?;
    let length = table.len() / tables.max(1);
    let factor = |i: usize| f64::from(factors[if factors.len() == 1 { 0 } else { i / length }]);
    Ok(table.iter().enumerate().map(|(i, x)| x * factor(i)).collect())
}

/// The gather from given tables, `[M, d]`.
///
/// # Errors
/// Those of [`Sdim::check_query`]; [`Error::IndexOutOfRange`] for a given signature of `2^τ` or more, for an id without an item, and for a user without a table.
pub fn sdim_query<T: Element>(
    op: &Sdim,
    targets: &Jagged,
    inputs: &SdimQueryInputs<'_, Host, T>,
) -> Result<Vec<f64>> {
    sdim_query_in_f32("sdim_query", inputs, |inputs| query(op, targets, inputs))
}

/// [`sdim_query`] of widened inputs.
fn query(op: &Sdim, targets: &Jagged, inputs: &SdimQueryInputs<'_, Host, f32>) -> Result<Vec<f64>> {
    const NAME: &str = "sdim_query";
    op.check_query(NAME, targets, inputs)?;
    let signatures = hash(NAME, op, targets.total(), inputs.targets, &inputs.hash)?;
    if let Some(users) = &inputs.users {
        Sdim::check_host_users(NAME, users, op.tables(NAME, inputs.table.len())?)?;
    }
    let bucket_row = |b: usize, g, signature| {
        let user = inputs.users.map_or(b, |users| users[b] as usize);
        row(&inputs.table, bucket(op, user, g, signature) / op.width, op.width)
    };
    gather(NAME, op, targets, &signatures, bucket_row)
}

/// Encode and query in one, without rounding the table to `f32` in between, `[M, d]`.
///
/// # Errors
/// Those of [`Sdim::check_attend`]; [`Error::IndexOutOfRange`] for a given signature of `2^τ` or more, and for an id without an item.
pub fn sdim_attend<T: Element>(
    op: &Sdim,
    batch: &Batch,
    inputs: &SdimAttendInputs<'_, Host, T>,
) -> Result<Vec<f64>> {
    sdim_in_f32("sdim_attend", inputs, |inputs| attend(op, batch, inputs))
}

/// [`sdim_attend`] of widened inputs.
fn attend(op: &Sdim, batch: &Batch, inputs: &SdimAttendInputs<'_, Host, f32>) -> Result<Vec<f64>> {
    const NAME: &str = "sdim_attend";
    op.check_attend(NAME, batch, inputs)?;
    let of_history = hash(NAME, op, batch.histories().total(), Some(inputs.history), &inputs.history_hash)?;
    let signatures = hash(NAME, op, batch.targets().total(), inputs.targets, &inputs.target_hash)?;
    // No table: it may be larger than memory where its rows that are asked for are not.
    let bucket_row = |b, g, signature| {
        let mut sum = vec![0.0; op.width];
        for l in batch.histories().range(b).filter(|l| of_history[l * op.groups + g] == signature) {
            sum.iter_mut().zip(row(&inputs.history, l, op.width)).for_each(|(sum, s)| *sum += s);
        }
        sum
    };
    gather(NAME, op, batch.targets(), &signatures, bucket_row)
}

/// The mean of the normalised buckets of each candidate; `bucket_row(b, g, signature)` gives one of them.
fn gather(
    operation: &'static str,
    op: &Sdim,
    targets: &Jagged,
    signatures: &[u32],
    bucket_row: impl Fn(usize, usize, u32) -> Vec<f64>,
) -> Result<Vec<f64>> {
    let mut out = filled(operation, targets.rows() * op.width, 0.0)?;
    for (b, rows) in targets.ranges().enumerate() {
        for m in rows {
            for g in 0..op.groups {
                let sum = bucket_row(b, g, signatures[m * op.groups + g]);
                let norm = sum.iter().map(|s| s * s).sum::<f64>().sqrt();
                // Not f64::max: it would turn NaN into the other number.
                let norm = if norm < Sdim::MIN_NORM.into() { Sdim::MIN_NORM.into() } else { norm };
                let divisor = if op.normalise { norm } else { 1.0 };
                for (j, s) in sum.iter().enumerate() {
                    out[m * op.width + j] += s / divisor / op.groups as f64;
                }
            }
        }
    }
    Ok(out)
}

/// The index at which the bucket row `[b, g, signature, :]` starts.
pub(super) fn bucket(op: &Sdim, b: usize, g: usize, signature: u32) -> usize {
    ((b * op.groups + g) * op.buckets() + signature as usize) * op.width
}

/// The signatures of the first `count` rows: computed, given, or those of their items. The last two are checked.
pub(super) fn hash(
    operation: &'static str,
    op: &Sdim,
    count: usize,
    rows: Option<View<'_, Host, f32>>,
    hash: &Hash<'_, Host>,
) -> Result<Vec<u32>> {
    let (given, ids) = match hash {
        Hash::Rotations(rotations) => {
            return match rows {
                Some(rows) => sdim_signatures(op, &rows[..count * op.width], rotations),
                None => Ok(Vec::new()),
            };
        }
        Hash::Signatures8(given) => (words(given), None),
        Hash::Signatures16(given) => (words(given), None),
        Hash::Items8 { signatures, ids } => (words(signatures), Some(ids)),
        Hash::Items16 { signatures, ids } => (words(signatures), Some(ids)),
    };
    // The rows of `given` that are read.
    let used: Vec<usize> = match ids {
        None => (0..count).collect(),
        Some(ids) => ids[..count].iter().map(|&id| id as usize).collect(),
    };
    let outside = |argument, position: usize, id: usize, bound: usize| {
        let [position, id, bound] = [position, id, bound].map(|number| number as u64);
        Err(Error::IndexOutOfRange { operation, argument, position, id, bound })
    };
    let rows = given.len() / op.groups;
    if let Some(position) = used.iter().position(|&row| row >= rows) {
        return outside("ids", position, used[position], rows);
    }
    let places = || used.iter().flat_map(|row| row * op.groups..(row + 1) * op.groups);
    match places().filter(|&place| given[place] as usize >= op.buckets()).min() {
        Some(position) => outside("signatures", position, given[position] as usize, op.buckets()),
        None => Ok(places().map(|place| given[place]).collect()),
    }
}

fn words<W: Signature>(signatures: &[W]) -> Vec<u32> {
    signatures.iter().map(|word| word.to_u32()).collect()
}
