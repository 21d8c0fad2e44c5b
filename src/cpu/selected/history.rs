//! The gradients of the behaviours' rows: each adds up what the candidates that keep it give, in their order.

use std::borrow::Cow;
use std::ops::Range;

use crate::cpu::picked::picked;
use crate::cpu::selected::pass::{Found, Pass};
use crate::cpu::sorted_entries::Sorted;
use crate::cpu::spans::{spans, split_numbers, split_ranges};
use crate::cpu::threads::{for_each, map};
use crate::cpu::vector::{Instructions, Kernel, Lanes, NarrowRows, WideRows, add_lanes};
use crate::error::Result;
use crate::jagged::Batch;
use crate::ops::SelectedAttention;

/// The gradients that are asked for.
pub(super) struct HistoryGradients<'a> {
    /// `[N, H_kv, d]`.
    pub(super) keys: Option<NarrowRows<'a>>,
    /// `[N, H_kv, d_v]`.
    pub(super) values: Option<NarrowRows<'a>>,
    /// `[N, H]`.
    pub(super) bias: Option<&'a mut [f32]>,
}

impl HistoryGradients<'_> {
    /// Whether nothing is asked for.
    fn is_empty(&self) -> bool {
        self.keys.is_none() && self.values.is_none() && self.bias.is_none()
    }
}

/// A user's entries, by row of a head.
pub(super) struct UserEntries {
    pub(super) grads: Sorted,
    pub(super) weights: Sorted,
}

/// The least behaviours of a task.
const LEAST: usize = 1024;

/// Sorts what the candidates of each user give to its behaviours.
pub(super) fn sort(batch: &Batch, pass: &Pass<'_>, found: &[Vec<Found>]) -> Result<Vec<UserEntries>> {
    let op = pass.op;
    let users = batch.histories().ranges().zip(found).collect();
    let sorted = map(users, |(history, found): (Range<usize>, &Vec<Found>)| -> Result<UserEntries> {
        let rows = history.len() * op.kv_heads;
        let grads = Sorted::new(pass.operation, rows, found.iter().flat_map(|found| &found.grads))?;
        let weights = Sorted::new(pass.operation, rows, found.iter().flat_map(|found| &found.weights))?;
        Ok(UserEntries { grads, weights })
    });
    sorted.into_iter().collect()
}

/// Writes the gradients of all users' behaviours. `queries` and `grad_out` are those of the candidates.
pub(super) fn write_history(
    instructions: Instructions,
    batch: &Batch,
    pass: &Pass<'_>,
    users: &[UserEntries],
    [queries, grad_out]: [&[f32]; 2],
    out: HistoryGradients<'_>,
) {
    let op = pass.op;
    if out.is_empty() {
        return;
    }
    let spans = spans(batch.histories().ranges(), LEAST);
    let ranges = || spans.iter().map(|span| span.rows.clone());
    let by_span = |rows, width: usize| split_ranges(ranges(), rows, op.kv_heads * width).into_iter();
    let mut keys = out.keys.map(|rows| by_span(rows, op.width));
    let mut values = out.values.map(|rows| by_span(rows, op.value_width));
    let mut bias = out.bias.map(|rows| split_numbers(ranges(), rows, op.heads));
    let mut tasks = Vec::with_capacity(spans.len());
    for span in &spans {
        let first = batch.histories().range(span.owner).start;
        tasks.push(SpanGradients {
            pass,
            queries,
            grad_out,
            entries: &users[span.owner],
            rows: span.rows.start - first..span.rows.end - first,
            out: HistoryGradients {
                keys: keys.as_mut().and_then(Iterator::next),
                values: values.as_mut().and_then(Iterator::next),
                bias: bias.as_mut().and_then(Iterator::next),
            },
        });
    }
    for_each(tasks, |task: SpanGradients<'_>| instructions.run(task));
}

/// The first numbers as `f32`.
pub(super) fn wide(rows: WideRows<'_>, length: usize) -> Cow<'_, [f32]> {
    match rows {
        WideRows::F32(rows) => Cow::Borrowed(rows),
        _ => Cow::Owned(rows.to_vec(0..length)),
    }
}

/// The gradients of a span of a user's behaviours.
struct SpanGradients<'a> {
    pass: &'a Pass<'a>,
    queries: &'a [f32],
    grad_out: &'a [f32],
    entries: &'a UserEntries,
    /// Among the user's behaviours.
    rows: Range<usize>,
    out: HistoryGradients<'a>,
}

impl Kernel for SpanGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { pass, queries, grad_out, entries, rows, mut out } = self;
        let op = pass.op;
        let mut sums = Sums::new(op, pass.inputs.values.is_none());
        out.keys.iter_mut().chain(&mut out.values).for_each(NarrowRows::clear);
        if let Some(bias) = &mut out.bias {
            write_bias(&entries.grads, (op.heads, op.kv_heads), &rows, bias);
        }
        let first = rows.start * op.kv_heads;
        for row in first..rows.end * op.kv_heads {
            let (grads, weights) = (entries.grads.of(row), entries.weights.of(row));
            if let Some(keys) = &mut out.keys
                && sums.add_to_keys(l, (queries, grads), (grad_out, weights), op.effective_scale())
            {
                keys.write(l, (row - first) * op.width, &sums.keys);
            }
            if let Some(values) = &mut out.values
                && !weights.0.is_empty()
            {
                let rows = picked(grad_out, op.value_width, weights.0);
                rows.weighted_sum(l, weights.1, &mut sums.part, &mut sums.values);
                values.write(l, (row - first) * op.value_width, &sums.values);
            }
        }
    }
}

/// Scratch of one row's sums.
pub(super) struct Sums {
    is_aliased: bool,
    pub(super) keys: Vec<f32>,
    values: Vec<f32>,
    pub(super) part: Vec<f32>,
}

impl Sums {
    pub(super) fn new(op: &SelectedAttention, is_aliased: bool) -> Self {
        let (keys, values) = (vec![0.0; op.width], vec![0.0; op.value_width]);
        Self { is_aliased, keys, values, part: Vec::new() }
    }

    /// Computes the gradient of a row of keys; returns whether anything contributes to it.
    #[inline(always)]
    pub(super) fn add_to_keys<L: Lanes>(
        &mut self,
        l: L,
        (queries, grads): (&[f32], (&[usize], &[f32])),
        (grad_out, weights): (&[f32], (&[usize], &[f32])),
        scale: f32,
    ) -> bool {
        let has_values = self.is_aliased && !weights.0.is_empty();
        // Zeros where nothing scores.
        let rows = picked(queries, self.keys.len(), grads.0);
        rows.weighted_sum(l, grads.1, &mut self.part, &mut self.keys);
        self.keys.iter_mut().for_each(|value| *value *= scale);
        if has_values {
            let rows = picked(grad_out, self.values.len(), weights.0);
            rows.weighted_sum(l, weights.1, &mut self.part, &mut self.values);
            add_lanes(l, &mut self.keys, &self.values);
        }
        has_values || !grads.0.is_empty()
    }
}

/// Writes the gradients of the bias of some behaviours: sums of those of the scores, for each head.
fn write_bias(grads: &Sorted, (heads, kv_heads): (usize, usize), rows: &Range<usize>, out: &mut [f32]) {
    let mut sums = vec![0.0f64; heads];
    for (behaviour, out) in rows.clone().zip(out.chunks_exact_mut(heads)) {
        sums.fill(0.0);
        for row in behaviour * kv_heads..(behaviour + 1) * kv_heads {
            let (queries, factors) = grads.of(row);
            for (query, factor) in queries.iter().zip(factors) {
                sums[query % heads] += f64::from(*factor);
            }
        }
        out.iter_mut().zip(&sums).for_each(|(out, sum)| *out = *sum as f32);
    }
}
