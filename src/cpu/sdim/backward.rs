//! SDIM's gradients on the CPU.
//!
//! The gradient of a bucket row depends on its candidates only through the sum of their gradients, so the backward pass of the
//! gather begins as an `encode` of the gradients of the output, by the signatures of the candidates; then each bucket row turns
//! its sum into its gradient. The backward pass of `encode` gathers, for every behaviour, the gradients of its buckets.

use std::ops::Range;

use crate::cpu::gather::{WeightedRows, sum_rows};
use crate::cpu::sdim::hash_rows::HashRows;
use crate::cpu::sdim::query::user_groups;
use crate::cpu::sdim::signatures::Signatures;
use crate::cpu::sdim::sums::{BLOCK, Behaviours, BucketRows, EveryBucket, WantedBuckets};
use crate::cpu::spans::{Span, spans};
use crate::cpu::threads::for_each;
use crate::cpu::vector::{Instructions, Kernel, Lanes, NarrowRows, WideRows};
use crate::element::Element;
use crate::error::Result;
use crate::host::Host;
use crate::jagged::{Batch, Jagged};
use crate::memory::{View, ViewMut};
use crate::ops::{Sdim, SdimAttendInputs, SdimEncodeInputs, SdimQueryInputs};

pub(super) fn query<T: Element>(
    instructions: Instructions,
    op: &Sdim,
    targets: &Jagged,
    inputs: &SdimQueryInputs<'_, Host, T>,
    (grad_out, grad_table): (View<'_, Host, T>, ViewMut<'_, Host, f32>),
) -> Result<()> {
    const NAME: &str = "sdim_query_backward";
    op.check_query(NAME, targets, inputs)?;
    op.check_grad_out(NAME, targets, grad_out.len())?;
    op.check_grad_table(NAME, targets.users(), grad_table.len())?;
    let signatures = Signatures::new(NAME, op, targets.total(), &inputs.hash)?;
    let rows = inputs.targets.map(|rows| WideRows::new(rows.as_slice()));
    let codes = HashRows { signatures: &signatures, rows, range: 0..targets.total() }.run_with(instructions);
    let grads = grad_table.into_slice();
    grads.fill(0.0);
    let computed = Signatures::computed(op, &codes);
    let rows = Behaviours { op: *op, rows: WideRows::new(grad_out.as_slice()), signatures: &computed };
    let table_length = op.table_length(1)?;
    add_grads(instructions, &rows, targets, &codes, (&inputs.table, grads, table_length));
    Ok(())
}

/// Adds the gradients of the candidates up, by bucket, and turns the sums into the gradients of the bucket rows. Tables of one
/// user have `length` numbers.
fn add_grads(
    instructions: Instructions,
    rows: &Behaviours<'_>,
    targets: &Jagged,
    codes: &[u32],
    (table, grads, length): (&[f32], &mut [f32], usize),
) {
    let op = &rows.op;
    let bucket_rows = |_| EveryBucket { buckets: op.buckets() };
    rows.add_to(instructions, targets.ranges(), bucket_rows, grads.chunks_exact_mut(length).collect());
    let users = grads.chunks_exact_mut(length).zip(table.chunks_exact(length)).zip(targets.ranges());
    for_each(users.collect(), |((grads, table), targets): ((&mut [f32], &[f32]), Range<usize>)| {
        let bucket_rows = EveryBucket { buckets: op.buckets() };
        let mut is_read = vec![false; op.groups * op.buckets()];
        for (i, &code) in codes[targets.start * op.groups..targets.end * op.groups].iter().enumerate() {
            if let Some(row) = bucket_rows.sum_row(i % op.groups, code) {
                is_read[row] = true;
            }
        }
        let rows = grads.chunks_exact_mut(op.width).zip(table.chunks_exact(op.width)).zip(is_read);
        for ((grad, sum), _) in rows.filter(|(_, is_read)| *is_read) {
            bucket_gradient(op, sum, grad);
        }
    });
}

pub(super) fn encode<T: Element, G: Element>(
    instructions: Instructions,
    op: &Sdim,
    histories: &Jagged,
    inputs: &SdimEncodeInputs<'_, Host, T>,
    (grad_table, grad_history): (View<'_, Host, f32>, ViewMut<'_, Host, G>),
) -> Result<()> {
    const NAME: &str = "sdim_encode_backward";
    op.check_encode(NAME, histories, inputs)?;
    op.check_grad_table(NAME, histories.users(), grad_table.len())?;
    op.check_grad_history(NAME, histories, grad_history.len())?;
    let signatures = Signatures::new(NAME, op, histories.total(), &inputs.hash)?;
    let behaviours =
        Behaviours { op: *op, rows: WideRows::new(inputs.history.as_slice()), signatures: &signatures };
    let grads = grad_table.as_slice().chunks_exact(op.table_length(1)?).collect();
    gather_all(instructions, &behaviours, histories, grads, NarrowRows::new(grad_history.into_slice()));
    Ok(())
}

/// [`gather`] from the gradients of whole tables.
fn gather_all(
    instructions: Instructions,
    behaviours: &Behaviours<'_>,
    histories: &Jagged,
    grads: Vec<&[f32]>,
    out: NarrowRows<'_>,
) {
    let bucket_rows = |_| EveryBucket { buckets: behaviours.op.buckets() };
    gather(instructions, behaviours, histories.ranges(), bucket_rows, grads, out);
}

pub(super) fn attend<T: Element, G: Element>(
    instructions: Instructions,
    op: &Sdim,
    batch: &Batch,
    inputs: &SdimAttendInputs<'_, Host, T>,
    (grad_out, grad_history): (View<'_, Host, T>, ViewMut<'_, Host, G>),
) -> Result<()> {
    const NAME: &str = "sdim_attend_backward";
    op.check_attend(NAME, batch, inputs)?;
    let (histories, targets) = (batch.histories(), batch.targets());
    op.check_grad_out(NAME, targets, grad_out.len())?;
    op.check_grad_history(NAME, histories, grad_history.len())?;
    let history_signatures = Signatures::new(NAME, op, histories.total(), &inputs.history_hash)?;
    let target_signatures = Signatures::new(NAME, op, targets.total(), &inputs.target_hash)?;
    let behaviours = Behaviours {
        op: *op,
        rows: WideRows::new(inputs.history.as_slice()),
        signatures: &history_signatures,
    };
    let rows = inputs.targets.map(|rows| WideRows::new(rows.as_slice()));
    let hash = HashRows { signatures: &target_signatures, rows, range: 0..targets.total() };
    let codes = hash.run_with(instructions);
    let computed = Signatures::computed(op, &codes);
    let grad_outs = Behaviours { op: *op, rows: WideRows::new(grad_out.as_slice()), signatures: &computed };
    let out = NarrowRows::new(grad_history.into_slice());
    gather_wanted(instructions, batch, (&behaviours, &grad_outs), &codes, out);
    Ok(())
}

/// [`gather`] from the gradients of the buckets that candidates read, for as many users at a time as memory is set aside for.
fn gather_wanted(
    instructions: Instructions,
    batch: &Batch,
    (behaviours, grad_outs): (&Behaviours<'_>, &Behaviours<'_>),
    codes: &[u32],
    mut out: NarrowRows<'_>,
) {
    let op = &behaviours.op;
    let (histories, targets) = (batch.histories(), batch.targets());
    for users in user_groups(op, targets) {
        let of_user = |user| {
            let targets = targets.range(user);
            WantedBuckets::new(op, &codes[targets.start * op.groups..targets.end * op.groups])
        };
        let buckets: Vec<WantedBuckets> = users.clone().map(of_user).collect();
        let sums_of = |rows: &Behaviours<'_>, jagged: &Jagged| {
            let zeros = |buckets: &WantedBuckets| vec![0.0; buckets.count() * op.width];
            let mut sums: Vec<Vec<f32>> = buckets.iter().map(zeros).collect();
            let runs = users.clone().map(|user| jagged.range(user));
            let slices = sums.iter_mut().map(|sums| &mut sums[..]).collect();
            rows.add_to(instructions, runs, |i| &buckets[i], slices);
            sums
        };
        let (sums, mut grads) = (sums_of(behaviours, histories), sums_of(grad_outs, targets));
        for_each(grads.iter_mut().zip(&sums).collect(), |(grads, sums): (&mut Vec<f32>, &Vec<f32>)| {
            for (grad, sum) in grads.chunks_exact_mut(op.width).zip(sums.chunks_exact(op.width)) {
                bucket_gradient(op, sum, grad);
            }
        });
        let runs = users.map(|user| histories.range(user));
        let rows = runs.clone().map(|run| run.len()).sum::<usize>() * op.width;
        let grads = grads.iter().map(|grads| &grads[..]).collect();
        gather(instructions, behaviours, runs, |i| &buckets[i], grads, out.split_off(rows));
    }
}

/// Turns the sum of the gradients of the candidates that read a bucket row into the gradient of the row, in `f64`: the square
/// of its length may exceed `f32`.
fn bucket_gradient(op: &Sdim, row: &[f32], grad: &mut [f32]) {
    let groups = op.groups as f64;
    if !op.normalise {
        grad.iter_mut().for_each(|grad| *grad = (f64::from(*grad) / groups) as f32);
        return;
    }
    let dot = |other: &[f32]| row.iter().zip(other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let length = dot(row).sqrt();
    if length < Sdim::MIN_NORM.into() {
        grad.fill(0.0);
        return;
    }
    let along = dot(grad) / length;
    for (grad, x) in grad.iter_mut().zip(row) {
        *grad = ((f64::from(*grad) - f64::from(*x) / length * along) / length / groups) as f32;
    }
}

/// For every behaviour of some users, the sum of the gradients of its buckets, into consecutive rows.
fn gather<M: BucketRows>(
    instructions: Instructions,
    behaviours: &Behaviours<'_>,
    histories: impl Iterator<Item = Range<usize>> + Clone,
    bucket_rows: impl Fn(usize) -> M + Sync,
    grads: Vec<&[f32]>,
    out: NarrowRows<'_>,
) {
    let spans = spans(histories, 8 * BLOCK);
    let lengths = spans.iter().map(|span| span.rows.len());
    let out = out.split(lengths, behaviours.op.width);
    for_each(spans.iter().zip(out).collect(), |(span, out): (&Span, NarrowRows<'_>)| {
        instructions.run(Gather {
            behaviours,
            rows: span.rows.clone(),
            bucket_rows: bucket_rows(span.owner),
            grads: grads[span.owner],
            out,
        });
    });
}

/// [`gather`] for some behaviours of one user.
struct Gather<'a, M> {
    behaviours: &'a Behaviours<'a>,
    rows: Range<usize>,
    bucket_rows: M,
    /// The gradients of the user's bucket rows.
    grads: &'a [f32],
    out: NarrowRows<'a>,
}

impl<M: BucketRows> Kernel for Gather<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) {
        // Without behaviours, groups may be any number.
        if self.rows.is_empty() {
            return;
        }
        let Sdim { width, groups, .. } = self.behaviours.op;
        let (mut widened, mut projections, mut signatures) = (Vec::new(), Vec::new(), Vec::new());
        let mut rows = BucketRowsOf { grads: self.grads, width, rows: Vec::with_capacity(groups) };
        let mut sum = vec![0.0; width];
        for start in self.rows.clone().step_by(BLOCK) {
            let end = self.rows.end.min(start + BLOCK);
            let block = self.behaviours.rows.widen(l, start * width..end * width, &mut widened);
            signatures.resize((end - start) * groups, 0);
            self.behaviours.signatures.fill(l, start, block, &mut projections, &mut signatures);
            for (i, signatures) in signatures.chunks_exact(groups).enumerate() {
                rows.rows.clear();
                for (group, &signature) in signatures.iter().enumerate() {
                    rows.rows.extend(self.bucket_rows.sum_row(group, signature));
                }
                sum_rows(l, rows.rows.len(), &rows, &mut sum);
                self.out.write(l, (start + i - self.rows.start) * width, &sum);
            }
        }
    }
}

/// The bucket rows of one behaviour.
struct BucketRowsOf<'a> {
    grads: &'a [f32],
    width: usize,
    rows: Vec<usize>,
}

impl WeightedRows for BucketRowsOf<'_> {
    #[inline(always)]
    fn get(&self, k: usize) -> (f32, &[f32]) {
        (1.0, &self.grads[self.rows[k] * self.width..(self.rows[k] + 1) * self.width])
    }

    /// Nothing to do: a user's bucket rows are few, and stay in cache.
    #[inline(always)]
    fn prefetch(&self, _: usize) {}
}
