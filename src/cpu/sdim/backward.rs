//! SDIM's gradients on the CPU.
//!
//! The gradient of a bucket row depends on its candidates only through the sum of their gradients, so the backward pass of the
//! gather begins as an `encode` of the gradients of the output, by the signatures of the candidates; then each bucket row turns
//! its sum into its gradient. The backward pass of `encode` gathers, for every behaviour, the gradients of its buckets.

use std::ops::Range;

use crate::cpu::gather::{WeightedRows, sum_rows};
use crate::cpu::sdim::buckets::{BucketRows, EveryBucket, NO_ROW, WantedBuckets};
use crate::cpu::sdim::hash_rows::HashRows;
use crate::cpu::sdim::query::user_groups;
use crate::cpu::sdim::signatures::Signatures;
use crate::cpu::sdim::sums::{BLOCK, Behaviours, Weights};
use crate::cpu::spans::{Span, spans, split_ranges};
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
    Sdim::check_no_users(NAME, inputs)?;
    op.check_grad_out(NAME, targets, grad_out.len())?;
    op.check_grad_table(NAME, targets.users(), grad_table.len())?;
    let signatures = Signatures::new(NAME, op, targets.total(), &inputs.hash)?;
    let rows = inputs.targets.map(|rows| WideRows::new(rows.as_slice()));
    let codes = HashRows { signatures: &signatures, rows, range: 0..targets.total() }.run_with(instructions);
    let grads = grad_table.into_slice();
    grads.fill(0.0);
    let computed = Signatures::computed(op, &codes);
    let weights = Weights::default();
    let rows =
        Behaviours { op: *op, rows: WideRows::new(grad_out.as_slice()), signatures: &computed, weights };
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
    rows.add_to(instructions, targets.ranges(), bucket_rows, grads.chunks_exact_mut(length).collect(), None);
    let users = grads.chunks_exact_mut(length).zip(table.chunks_exact(length)).zip(targets.ranges());
    for_each(users.collect(), |((grads, table), targets): ((&mut [f32], &[f32]), Range<usize>)| {
        let bucket_rows = EveryBucket { buckets: op.buckets() };
        let mut is_read = vec![false; op.groups * op.buckets()];
        for codes in codes[targets.start * op.groups..targets.end * op.groups].chunks_exact(op.groups) {
            let rows = codes.iter().enumerate().map(|(group, &code)| bucket_rows.sum_row(group, code));
            rows.for_each(|row| is_read[row] = true);
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
    op.check_grad_history(NAME, histories, grad_history.len())?;
    op.check_grad_table(NAME, histories.users(), grad_table.len())?;
    let signatures = Signatures::new(NAME, op, histories.total(), &inputs.hash)?;
    let (rows, weights) = (WideRows::new(inputs.history.as_slice()), Weights::new(&inputs.weights, false));
    let behaviours = Behaviours { op: *op, rows, signatures: &signatures, weights };
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
    let out = split_ranges(histories.ranges(), out, behaviours.op.width);
    gather(instructions, behaviours, histories.ranges(), bucket_rows, (grads, out));
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
        weights: Weights::default(),
    };
    let rows = inputs.targets.map(|rows| WideRows::new(rows.as_slice()));
    let hash = HashRows { signatures: &target_signatures, rows, range: 0..targets.total() };
    let codes = hash.run_with(instructions);
    let computed = Signatures::computed(op, &codes);
    let grad_outs =
        Behaviours { rows: WideRows::new(grad_out.as_slice()), signatures: &computed, ..behaviours };
    let out = NarrowRows::new(grad_history.into_slice());
    gather_wanted(instructions, batch, (&behaviours, &grad_outs), &codes, out);
    Ok(())
}

/// The most signatures that are kept between the two passes over the behaviours of some users: 32 MiB.
const MOST_KEPT: usize = 1 << 24;

/// [`gather`] from the gradients of the buckets that candidates read, for as many users at a time as memory is set aside for.
/// Behaviours are hashed once, unless there are very many of them.
fn gather_wanted(
    instructions: Instructions,
    batch: &Batch,
    (behaviours, grad_outs): (&Behaviours<'_>, &Behaviours<'_>),
    codes: &[u32],
    out: NarrowRows<'_>,
) {
    let op = &behaviours.op;
    let (histories, targets) = (batch.histories(), batch.targets());
    let mut out = split_ranges(histories.ranges(), out, op.width).into_iter();
    for users in user_groups(op, targets) {
        let of_user = |user| {
            let targets = targets.range(user);
            WantedBuckets::new(op, &codes[targets.start * op.groups..targets.end * op.groups])
        };
        let buckets: Vec<WantedBuckets> = users.clone().map(of_user).collect();
        let sums_of = |rows: &Behaviours<'_>, jagged: &Jagged, kept: Option<&mut [u16]>| {
            let zeros = |buckets: &WantedBuckets| vec![0.0; buckets.count() * op.width];
            let mut sums: Vec<Vec<f32>> = buckets.iter().map(zeros).collect();
            let runs = users.clone().map(|user| jagged.range(user));
            let slices = sums.iter_mut().map(|sums| &mut sums[..]).collect();
            rows.add_to(instructions, runs, |i| &buckets[i], slices, kept);
            sums
        };
        let all = histories.range(users.start).start..histories.range(users.end - 1).end;
        let count = all.len().saturating_mul(op.groups);
        // Signatures are kept by row: those of one user after the other.
        let is_run = histories.offsets().is_some();
        let keeps = is_run && behaviours.signatures.reads_rows() && count <= MOST_KEPT;
        let mut kept = vec![0; if keeps { count } else { 0 }];
        let sums = sums_of(behaviours, histories, keeps.then_some(&mut kept[..]));
        let mut grads = sums_of(grad_outs, targets, None);
        let kept = Signatures::kept(op, &kept, all.start);
        let signatures = if keeps { &kept } else { behaviours.signatures };
        let behaviours = Behaviours { signatures, ..*behaviours };
        for_each(grads.iter_mut().zip(&sums).collect(), |(grads, sums): (&mut Vec<f32>, &Vec<f32>)| {
            for (grad, sum) in grads.chunks_exact_mut(op.width).zip(sums.chunks_exact(op.width)) {
                bucket_gradient(op, sum, grad);
            }
        });
        let runs = users.clone().map(|user| histories.range(user));
        let grads = grads.iter().map(|grads| &grads[..]).collect();
        let out = out.by_ref().take(users.len()).collect();
        gather(instructions, &behaviours, runs, |i| &buckets[i], (grads, out));
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
    let length = dot(row, row).sqrt();
    if length < Sdim::MIN_NORM.into() {
        grad.fill(0.0);
        return;
    }
    // Divided by the length and not multiplied by its inverse: rows of one number have a gradient of exactly 0.
    let (along, factor) = (dot(row, grad) / length, 1.0 / (length * groups));
    for (grad, x) in grad.iter_mut().zip(row) {
        *grad = ((f64::from(*grad) - f64::from(*x) / length * along) * factor) as f32;
    }
}

/// `⟨a, b⟩`, in partial sums: one chain of additions would be several times as slow.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    const CHAINS: usize = 8;
    let product = |(a, b): (&f32, &f32)| f64::from(*a) * f64::from(*b);
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<CHAINS>(), b.as_chunks::<CHAINS>());
    let mut sums = [0.0; CHAINS];
    for (a, b) in a.iter().zip(b) {
        sums.iter_mut().zip(a.iter().zip(b).map(product)).for_each(|(sum, product)| *sum += product);
    }
    sums.iter().sum::<f64>() + a_tail.iter().zip(b_tail).map(product).sum::<f64>()
}

/// For every behaviour of some users, the sum of the gradients of its buckets, into the rows of its history.
fn gather<M: BucketRows>(
    instructions: Instructions,
    behaviours: &Behaviours<'_>,
    histories: impl Iterator<Item = Range<usize>> + Clone,
    bucket_rows: impl Fn(usize) -> M + Sync,
    (grads, mut out): (Vec<&[f32]>, Vec<NarrowRows<'_>>),
) {
    let spans = spans(histories, 8 * BLOCK);
    // The spans of a history are in order.
    let own = |span: &Span| out[span.owner].split_off(span.rows.len() * behaviours.op.width);
    let out: Vec<NarrowRows<'_>> = spans.iter().map(own).collect();
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
        let Behaviours { op: Sdim { width, groups, .. }, rows, signatures, weights } = *self.behaviours;
        let (mut widened, mut projections, mut words) = (Vec::new(), Vec::new(), Vec::new());
        let mut sum_rows_of_block = Vec::new();
        let mut sums = vec![0.0; BLOCK.min(self.rows.len()) * width];
        for start in self.rows.clone().step_by(BLOCK) {
            let end = self.rows.end.min(start + BLOCK);
            let numbers = if signatures.reads_rows() { start * width..end * width } else { 0..0 };
            let block = rows.widen(l, numbers, &mut widened);
            words.resize((end - start) * groups, 0);
            signatures.fill(l, start, block, &mut projections, &mut words);
            self.bucket_rows.sum_rows(groups, &words, &mut sum_rows_of_block);
            let sums = &mut sums[..(end - start) * width];
            for (sum, rows) in sums.chunks_exact_mut(width).zip(sum_rows_of_block.chunks_exact_mut(groups)) {
                // Those that have a row, in their order.
                let mut count = 0;
                for k in 0..groups {
                    rows[count] = rows[k];
                    count += usize::from(rows[k] != NO_ROW);
                }
                sum_rows(l, count, &BucketRowsOf { grads: self.grads, width, rows: &rows[..count] }, sum);
            }
            if !weights.are_one() {
                weights.multiply(start, width, sums);
            }
            self.out.write(l, (start - self.rows.start) * width, sums);
        }
    }
}

/// The bucket rows of one behaviour.
struct BucketRowsOf<'a> {
    grads: &'a [f32],
    width: usize,
    rows: &'a [usize],
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
