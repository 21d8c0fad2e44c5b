//! SDIM on the CPU: signatures first, then every (user, group) fills its own part of the table.

use std::borrow::Cow;
use std::ops::Range;

use crate::cpu::tiles::for_each;
use crate::cpu::vector::{add, add_scaled, dot, store, widen};
use crate::element::{Element, Signature};
use crate::error::{Error, Result};
use crate::jagged::{Batch, Jagged};
use crate::memory::{Host, View, ViewMut};
use crate::ops::{Hash, Sdim, SdimHistory, SdimInputs, SdimQuery};

/// How many rows one piece of work hashes.
const ROWS: usize = 256;

/// Hashes rows `[rows, d]`; the lengths are checked already.
pub(super) fn signatures<T: Element, W: Signature>(op: &Sdim, rows: &[T], rotations: &[f32], out: &mut [W]) {
    let pieces = rows.chunks(ROWS * op.width).zip(out.chunks_mut(ROWS * op.groups)).collect();
    for_each(pieces, |(rows, out)| {
        let mut room = Vec::new();
        let mut projections = vec![0.0; op.groups * op.bits];
        let rows = widen(rows, &mut room);
        for (x, out) in rows.chunks_exact(op.width).zip(out.chunks_exact_mut(op.groups)) {
            projections.fill(0.0);
            for (x, rotations) in x.iter().zip(rotations.chunks_exact(projections.len())) {
                add_scaled(&mut projections, *x, rotations);
            }
            for (out, bits) in out.iter_mut().zip(projections.chunks_exact(op.bits)) {
                let signature = bits.iter().enumerate().map(|(t, &bit)| u32::from(bit > 0.0) << t).sum();
                *out = W::from_u32(signature);
            }
        }
    });
}

/// The signatures of the first `count` rows: computed, or given and then checked.
fn hash<'a, T: Element>(
    operation: &'static str,
    op: &Sdim,
    count: usize,
    rows: Option<View<'_, Host, T>>,
    hash: &Hash<'a, Host>,
) -> Result<Cow<'a, [u16]>> {
    let used = count * op.groups;
    let given: Cow<'a, [u16]> = match hash {
        Hash::Rotations(rotations) => {
            let mut computed = vec![0; used];
            if let Some(rows) = rows {
                signatures(op, &rows[..count * op.width], rotations, &mut computed);
            }
            return Ok(computed.into());
        }
        Hash::Signatures8(given) => given[..used].iter().map(|&word| word.into()).collect(),
        Hash::Signatures16(given) => given.as_slice()[..used].into(),
    };
    match given.iter().position(|&signature| usize::from(signature) >= op.buckets()) {
        None => Ok(given),
        Some(position) => Err(Error::IndexOutOfRange {
            operation,
            argument: "signatures",
            position: position as u64,
            id: given[position].into(),
            rows: op.buckets() as u64,
        }),
    }
}

pub(super) fn encode<T: Element>(
    op: &Sdim,
    histories: &Jagged,
    inputs: &SdimHistory<'_, Host, T>,
    table: ViewMut<'_, Host, f32>,
) -> Result<()> {
    const NAME: &str = "sdim_encode";
    op.check_encode(NAME, histories, inputs)?;
    op.check_table(NAME, histories.users(), table.len())?;
    // Checked before the table is touched: an error leaves it as it was.
    let signatures = hash(NAME, op, histories.total(), Some(inputs.rows), &inputs.hash)?;
    let table = table.into_slice();
    table.fill(0.0);
    add_behaviours(op, histories, &inputs.rows, &signatures, table);
    Ok(())
}

pub(super) fn append<T: Element>(
    op: &Sdim,
    new: &Jagged,
    inputs: &SdimHistory<'_, Host, T>,
    table: ViewMut<'_, Host, f32>,
) -> Result<()> {
    const NAME: &str = "sdim_append";
    op.check_encode(NAME, new, inputs)?;
    op.check_table(NAME, new.users(), table.len())?;
    let signatures = hash(NAME, op, new.total(), Some(inputs.rows), &inputs.hash)?;
    add_behaviours(op, new, &inputs.rows, &signatures, table.into_slice());
    Ok(())
}

fn add_behaviours<T: Element>(
    op: &Sdim,
    histories: &Jagged,
    rows: &[T],
    signatures: &[u16],
    table: &mut [f32],
) {
    let groups = table.chunks_exact_mut(op.buckets() * op.width).enumerate().collect();
    for_each(groups, |(i, buckets): (usize, &mut [f32])| {
        let (user, group) = (i / op.groups, i % op.groups);
        let mut room = Vec::new();
        for l in histories.range(user) {
            let row = widen(&rows[l * op.width..(l + 1) * op.width], &mut room);
            let bucket = usize::from(signatures[l * op.groups + group]);
            add(&mut buckets[bucket * op.width..(bucket + 1) * op.width], row);
        }
    });
}

pub(super) fn query<T: Element>(
    op: &Sdim,
    targets: &Jagged,
    inputs: &SdimQuery<'_, Host, T>,
    out: ViewMut<'_, Host, T>,
) -> Result<()> {
    const NAME: &str = "sdim_query";
    op.check_query(targets, inputs)?;
    op.check_output(NAME, targets, out.len())?;
    let signatures = hash(NAME, op, targets.total(), inputs.targets, &inputs.hash)?;
    let table_length = op.table_length(1)?;
    let users = targets.ranges().enumerate().flat_map(|(user, targets)| targets.map(move |m| (m, user)));
    let items = users.zip(out.into_slice().chunks_exact_mut(op.width)).collect();
    for_each(items, |((m, user), out): ((usize, usize), &mut [T])| {
        let table = &inputs.table[user * table_length..(user + 1) * table_length];
        let mut mean = vec![0.0; op.width];
        for (group, buckets) in table.chunks_exact(op.buckets() * op.width).enumerate() {
            let bucket = usize::from(signatures[m * op.groups + group]);
            add_bucket(op, &mut mean, &buckets[bucket * op.width..(bucket + 1) * op.width]);
        }
        store(out, &mean);
    });
    Ok(())
}

pub(super) fn attend<T: Element>(
    op: &Sdim,
    batch: &Batch,
    inputs: &SdimInputs<'_, Host, T>,
    out: ViewMut<'_, Host, T>,
) -> Result<()> {
    const NAME: &str = "sdim_attend";
    op.check_attend(batch, inputs)?;
    op.check_output(NAME, batch.targets(), out.len())?;
    let histories = batch.histories();
    let history = hash(NAME, op, histories.total(), Some(inputs.history.rows), &inputs.history.hash)?;
    let targets = hash(NAME, op, batch.targets().total(), inputs.targets, &inputs.hash)?;
    let requests = batch.requests().flat_map(|(history, targets)| targets.map(move |m| (m, history.clone())));
    let items = requests.zip(out.into_slice().chunks_exact_mut(op.width)).collect();
    for_each(items, |((m, range), out): ((usize, Range<usize>), &mut [T])| {
        let wanted = &targets[m * op.groups..(m + 1) * op.groups];
        let mut sums = vec![0.0; op.groups * op.width];
        let mut room = Vec::new();
        for l in range {
            let row = widen(&inputs.history.rows[l * op.width..(l + 1) * op.width], &mut room);
            let signatures = &history[l * op.groups..(l + 1) * op.groups];
            let pairs = signatures.iter().zip(wanted);
            for (sum, (signature, wanted)) in sums.chunks_exact_mut(op.width).zip(pairs) {
                if signature == wanted {
                    add(sum, row);
                }
            }
        }
        let mut mean = vec![0.0; op.width];
        sums.chunks_exact(op.width).for_each(|sum| add_bucket(op, &mut mean, sum));
        store(out, &mean);
    });
    Ok(())
}

/// `mean += normalise(bucket)/G`.
fn add_bucket(op: &Sdim, mean: &mut [f32], bucket: &[f32]) {
    let norm = if op.normalise { dot(bucket, bucket).sqrt().max(Sdim::MIN_NORM) } else { 1.0 };
    add_scaled(mean, 1.0 / (norm * op.groups as f32), bucket);
}
