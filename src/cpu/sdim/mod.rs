//! SDIM on the CPU.

mod backward;
mod buckets;
mod hash_rows;
mod items;
mod query;
mod signatures;
mod sums;

use std::ops::Range;

use crate::cpu::Cpu;
use crate::cpu::threads::for_each;
use crate::cpu::vector::{Instructions, NarrowRows, WideRows, add, with_default_floats};
use crate::element::{Element, GradientOf, Signature};
use crate::error::Result;
use crate::host::Host;
use crate::jagged::{Batch, Jagged};
use crate::memory::{View, ViewMut};
use crate::ops::{Change, Sdim, SdimAttendInputs, SdimEncodeInputs, SdimOps, SdimQueryInputs};
use buckets::{EveryBucket, WantedBuckets};
use hash_rows::{HashRows, ROWS};
use query::{Average, Tile, tiles, user_groups};
use signatures::Signatures;
use sums::{Behaviours, Weights};

impl SdimOps for Cpu {
    fn sdim_signatures_into<T: Element, W: Signature>(
        &self,
        op: &Sdim,
        rows: View<'_, Host, T>,
        rotations: View<'_, Host, f32>,
        out: ViewMut<'_, Host, W>,
    ) -> Result<()> {
        let count = op.check_signatures(rows.len(), rotations.len())?;
        op.check_signatures_output::<W>(count, out.len())?;
        with_default_floats(|| {
            signatures(self.instructions, op, rows.as_slice(), rotations.as_slice(), out.into_slice());
        });
        Ok(())
    }

    fn sdim_encode_into<T: Element>(
        &self,
        op: &Sdim,
        histories: &Jagged,
        inputs: SdimEncodeInputs<'_, Host, T>,
        table: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        with_default_floats(|| encode(self.instructions, Change::Encode, op, histories, &inputs, table))
    }

    fn sdim_append<T: Element>(
        &self,
        op: &Sdim,
        new: &Jagged,
        inputs: SdimEncodeInputs<'_, Host, T>,
        table: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        with_default_floats(|| encode(self.instructions, Change::Append, op, new, &inputs, table))
    }

    fn sdim_remove<T: Element>(
        &self,
        op: &Sdim,
        gone: &Jagged,
        inputs: SdimEncodeInputs<'_, Host, T>,
        table: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        with_default_floats(|| encode(self.instructions, Change::Remove, op, gone, &inputs, table))
    }

    fn sdim_decay(
        &self,
        op: &Sdim,
        table: ViewMut<'_, Host, f32>,
        factors: View<'_, Host, f32>,
    ) -> Result<()> {
        with_default_floats(|| decay(op, table.into_slice(), factors.as_slice()))
    }

    fn sdim_add_tables(
        &self,
        op: &Sdim,
        table: ViewMut<'_, Host, f32>,
        other: View<'_, Host, f32>,
    ) -> Result<()> {
        op.check_add(table.len(), other.len())?;
        with_default_floats(|| add(table.into_slice(), other.as_slice()));
        Ok(())
    }

    fn sdim_query_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &Jagged,
        inputs: SdimQueryInputs<'_, Host, T>,
        out: ViewMut<'_, Host, T>,
    ) -> Result<()> {
        with_default_floats(|| query(self.instructions, op, targets, &inputs, out))
    }

    fn sdim_attend_into<T: Element>(
        &self,
        op: &Sdim,
        batch: &Batch,
        inputs: SdimAttendInputs<'_, Host, T>,
        out: ViewMut<'_, Host, T>,
    ) -> Result<()> {
        with_default_floats(|| attend(self.instructions, op, batch, &inputs, out))
    }

    fn sdim_query_backward_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &Jagged,
        inputs: SdimQueryInputs<'_, Host, T>,
        grad_out: View<'_, Host, T>,
        grad_table: ViewMut<'_, Host, f32>,
    ) -> Result<()> {
        with_default_floats(|| {
            backward::query(self.instructions, op, targets, &inputs, (grad_out, grad_table))
        })
    }

    fn sdim_encode_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Sdim,
        histories: &Jagged,
        inputs: SdimEncodeInputs<'_, Host, T>,
        grad_table: View<'_, Host, f32>,
        grad_history: ViewMut<'_, Host, G>,
    ) -> Result<()> {
        let grads = (grad_table, grad_history);
        with_default_floats(|| backward::encode(self.instructions, op, histories, &inputs, grads))
    }

    fn sdim_attend_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Sdim,
        batch: &Batch,
        inputs: SdimAttendInputs<'_, Host, T>,
        grad_out: View<'_, Host, T>,
        grad_history: ViewMut<'_, Host, G>,
    ) -> Result<()> {
        let grads = (grad_out, grad_history);
        with_default_floats(|| backward::attend(self.instructions, op, batch, &inputs, grads))
    }
}

/// Hashes rows `[rows, d]`, whose lengths were checked before.
pub(super) fn signatures<T: Element, W: Signature>(
    instructions: Instructions,
    op: &Sdim,
    rows: &[T],
    rotations: &[f32],
    out: &mut [W],
) {
    let signatures = Signatures::from_rotations(op, rotations);
    let count = rows.len() / op.width;
    let rows = Some(WideRows::new(rows));
    let blocks = (0..count).step_by(ROWS).zip(out.chunks_mut(ROWS.saturating_mul(op.groups))).collect();
    for_each(blocks, |(first, out): (usize, &mut [W])| {
        let range = first..count.min(first + ROWS);
        let words = HashRows { signatures: &signatures, rows, range }.run_with(instructions);
        out.iter_mut().zip(words).for_each(|(out, word)| *out = W::from_u32(word));
    });
}

/// Fills tables, or changes what they hold.
pub(super) fn encode<T: Element>(
    instructions: Instructions,
    change: Change,
    op: &Sdim,
    histories: &Jagged,
    inputs: &SdimEncodeInputs<'_, Host, T>,
    table: ViewMut<'_, Host, f32>,
) -> Result<()> {
    op.check_encode(change.name(), histories, inputs)?;
    op.check_table(change.name(), histories.slot_count(), table.len())?;
    // Checked before the table is written: an error leaves the table unchanged.
    let signatures = Signatures::new(change.name(), op, histories.total(), &inputs.hash)?;
    let mut sums = tables_of(histories, table.into_slice(), op.table_length(1)?);
    if !change.appends() {
        sums.iter_mut().for_each(|table| table.fill(0.0));
    }
    let weights = Weights::new(&inputs.weights, change.subtracts());
    let rows = WideRows::new(inputs.history.as_slice());
    let behaviours = Behaviours { op: *op, rows, signatures: &signatures, weights };
    let bucket_rows = |_| EveryBucket { buckets: op.buckets() };
    behaviours.add_to(instructions, histories.ranges(), bucket_rows, sums, None);
    Ok(())
}

/// The table that each range writes, of `length` numbers.
fn tables_of<'a>(histories: &Jagged, table: &'a mut [f32], length: usize) -> Vec<&'a mut [f32]> {
    let Some(slots) = histories.slots() else { return table.chunks_exact_mut(length).collect() };
    let mut order: Vec<usize> = (0..slots.len()).collect();
    order.sort_unstable_by_key(|&user| slots[user]);
    let mut tables: Vec<&mut [f32]> = slots.iter().map(|_| &mut [][..]).collect();
    let (mut rest, mut first) = (table, 0);
    for user in order {
        let skipped = (slots[user] as usize - first) * length;
        let (own, later) = std::mem::take(&mut rest)[skipped..].split_at_mut(length);
        (tables[user], rest, first) = (own, later, slots[user] as usize + 1);
    }
    tables
}

/// Multiplies the tables of users by one factor, or each by its own.
fn decay(op: &Sdim, table: &mut [f32], factors: &[f32]) -> Result<()> {
    op.check_decay(table.len(), factors.len())?;
    let tables = table.chunks_exact_mut(op.table_length(1)?).enumerate().collect();
    for_each(tables, |(user, table): (usize, &mut [f32])| {
        let factor = factors[if factors.len() == 1 { 0 } else { user }];
        table.iter_mut().for_each(|x| *x *= factor);
    });
    Ok(())
}

pub(super) fn query<T: Element>(
    instructions: Instructions,
    op: &Sdim,
    targets: &Jagged,
    inputs: &SdimQueryInputs<'_, Host, T>,
    out: ViewMut<'_, Host, T>,
) -> Result<()> {
    const NAME: &str = "sdim_query";
    op.check_query(NAME, targets, inputs)?;
    op.check_output(NAME, targets, out.len())?;
    if let Some(users) = &inputs.users {
        Sdim::check_host_users(NAME, users, op.tables(NAME, inputs.table.len())?)?;
    }
    let signatures = Signatures::new(NAME, op, targets.total(), &inputs.hash)?;
    let rows = inputs.targets.map(|rows| WideRows::new(rows.as_slice()));
    let user = |b: usize| inputs.users.map_or(b, |users| users[b] as usize);
    let requests = targets.ranges().enumerate().map(|(b, targets)| (user(b), targets));
    let tiles = tiles(op, requests, NarrowRows::new(out.into_slice()));
    average(instructions, &signatures, rows, (&inputs.table, op.table_length(1)?), tiles);
    Ok(())
}

/// Hashes the candidates of tiles, and averages the sums of their buckets in the table of their user.
fn average(
    instructions: Instructions,
    signatures: &Signatures<'_>,
    rows: Option<WideRows<'_>>,
    (table, length): (&[f32], usize),
    tiles: Vec<Tile<'_>>,
) {
    let op = &signatures.op;
    for_each(tiles, |(user, range, out)| {
        let wanted = HashRows { signatures, rows, range }.run_with(instructions);
        let sums = &table[user * length..(user + 1) * length];
        let bucket_rows = EveryBucket { buckets: op.buckets() };
        instructions.run(Average { op, signatures: &wanted, sums, bucket_rows, out });
    });
}

/// Without a table: sums exist only for the buckets that a user's candidates read.
pub(super) fn attend<T: Element>(
    instructions: Instructions,
    op: &Sdim,
    batch: &Batch,
    inputs: &SdimAttendInputs<'_, Host, T>,
    out: ViewMut<'_, Host, T>,
) -> Result<()> {
    const NAME: &str = "sdim_attend";
    op.check_attend(NAME, batch, inputs)?;
    op.check_output(NAME, batch.targets(), out.len())?;
    let (histories, targets) = (batch.histories(), batch.targets());
    let history_signatures = Signatures::new(NAME, op, histories.total(), &inputs.history_hash)?;
    let target_signatures = Signatures::new(NAME, op, targets.total(), &inputs.target_hash)?;
    let behaviours = Behaviours {
        op: *op,
        rows: WideRows::new(inputs.history.as_slice()),
        signatures: &history_signatures,
        weights: Weights::default(),
    };
    let rows = inputs.targets.map(|rows| WideRows::new(rows.as_slice()));
    average_wanted(
        instructions,
        batch,
        &behaviours,
        (&target_signatures, rows),
        NarrowRows::new(out.into_slice()),
    );
    Ok(())
}

/// Adds up the buckets that candidates read, for as many users at a time as memory is set aside for, and averages them.
fn average_wanted(
    instructions: Instructions,
    batch: &Batch,
    behaviours: &Behaviours<'_>,
    (signatures, rows): (&Signatures<'_>, Option<WideRows<'_>>),
    mut out: NarrowRows<'_>,
) {
    let op = &signatures.op;
    let (histories, targets) = (batch.histories(), batch.targets());
    for users in user_groups(op, targets) {
        let all = targets.range(users.start).start..targets.range(users.end - 1).end;
        let wanted = HashRows { signatures, rows, range: all.clone() }.run_with(instructions);
        let signatures = |targets: &Range<usize>| {
            &wanted[(targets.start - all.start) * op.groups..(targets.end - all.start) * op.groups]
        };
        let buckets: Vec<WantedBuckets> =
            users.clone().map(|user| WantedBuckets::new(op, signatures(&targets.range(user)))).collect();
        let mut sums: Vec<Vec<f32>> =
            buckets.iter().map(|buckets| vec![0.0; buckets.count() * op.width]).collect();
        behaviours.add_to(
            instructions,
            users.clone().map(|user| histories.range(user)),
            |i| &buckets[i],
            sums.iter_mut().map(|sums| &mut sums[..]).collect(),
            None,
        );
        let out = out.split_off(all.len() * op.width);
        let targets = users.map(|user| targets.range(user)).enumerate();
        for_each(tiles(op, targets, out), |(i, tile, out)| {
            let (signatures, sums) = (signatures(&tile), &sums[i][..]);
            instructions.run(Average { op, signatures, sums, bucket_rows: &buckets[i], out });
        });
    }
}
