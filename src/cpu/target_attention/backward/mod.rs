//! Gradients of target attention on the CPU.
//!
//! A task owns a span of one user's behaviours: it computes the scores of a block of them against sixteen query rows again,
//! turns them into weights and into the gradients of the scores, and adds those to the gradients of the block's keys and
//! values, while all of it is in cache. So keys and values are read once, and their gradients written once, by one task. What
//! a span adds to the gradients of the queries is a partial result; those are added in the order of the history.

mod gathered;
mod kernel;
mod pass;
mod query_rows;
mod softmax_state;

pub(in crate::cpu) use gathered::{GatheredAttention, GatheredGradients};

use crate::cpu::spans::{Span, spans, split_numbers, split_ranges};
use crate::cpu::target_attention::backward::kernel::{SpanGradients, SpanKernel};
use crate::cpu::target_attention::backward::pass::{Pass, SpanRows};
use crate::cpu::target_attention::backward::softmax_state::softmax_states;
use crate::cpu::target_attention::lane_rows::WideInputs;
use crate::cpu::threads::{for_each, map};
use crate::cpu::vector::{Instructions, Kernel, Lanes, NarrowRows, WideRows, add};
use crate::element::Element;
use crate::error::Result;
use crate::host::Host;
use crate::jagged::Batch;
use crate::memory::ViewMut;
use crate::ops::{
    TargetAttention, TargetAttentionGradOut, TargetAttentionGradients, TargetAttentionInputs,
    TargetAttentionSaved, Weighting,
};

/// A span has at least about this many behaviours, so that its partial result is small compared with its keys.
const LEAST: usize = 2048;

pub(super) fn backward<T: Element, G: Element>(
    instructions: Instructions,
    batch: &Batch,
    pass: (&TargetAttention, TargetAttentionInputs<'_, Host, T>),
    (saved, grad_out): (TargetAttentionSaved<'_, Host, T>, TargetAttentionGradOut<'_, Host, T>),
    grads: TargetAttentionGradients<'_, Host, G>,
) -> Result<()> {
    let (op, inputs) = pass;
    op.check_backward(batch, &inputs, &saved, &grad_out, &grads)?;
    let saved = saved.out.zip(saved.lse).filter(|_| op.weighting == Weighting::Softmax);
    let pass = Pass {
        op,
        inputs: WideInputs::new(&inputs),
        saved: saved.map(|(out, lse)| (WideRows::new(out.as_slice()), lse.as_slice())),
        grad_out: WideRows::new(grad_out.out.as_slice()),
        grad_lse: grad_out.lse.map(|lse| lse.as_slice()),
        queries: grads.queries.is_some(),
    };
    let spans = spans(batch.histories().ranges(), LEAST);
    let mut keys = by_span(&spans, grads.keys, op.kv_heads * op.width);
    let mut values = by_span(&spans, grads.values, op.kv_heads * op.value_width);
    let ranges = spans.iter().map(|span| span.rows.clone());
    let mut bias = grads.bias.map(|bias| split_numbers(ranges, bias.into_slice(), op.heads));
    let out = |_| SpanGradients {
        keys: keys.as_mut().and_then(|keys| keys.next()),
        values: values.as_mut().and_then(|values| values.next()),
        bias: bias.as_mut().and_then(|bias| bias.next()),
    };
    let out = spans.iter().map(out).collect();
    let partials = span_gradients(instructions, batch, &pass, &spans, out);
    if let Some(queries) = grads.queries {
        let row = op.heads * op.width;
        let users = batch.targets().ranges().map(|targets| targets.len());
        let out = NarrowRows::new(queries.into_slice()).split(users, row);
        add_partials(instructions, &spans, partials, out);
    }
    Ok(())
}

/// The rows of each span, where asked for.
fn by_span<'a, G: Element>(
    spans: &[Span],
    grads: Option<ViewMut<'a, Host, G>>,
    width: usize,
) -> Option<impl Iterator<Item = NarrowRows<'a>> + use<'a, G>> {
    let ranges = spans.iter().map(|span| span.rows.clone());
    grads.map(|grads| split_ranges(ranges, NarrowRows::new(grads.into_slice()), width).into_iter())
}

/// Computes the gradients of each span; returns what each adds to the gradients of its user's queries.
fn span_gradients(
    instructions: Instructions,
    batch: &Batch,
    pass: &Pass<'_>,
    spans: &[Span],
    out: Vec<SpanGradients<'_>>,
) -> Vec<Vec<f32>> {
    let rows = |span: &Span| SpanRows {
        history: span.rows.clone(),
        targets: batch.targets().range(span.owner),
        length: batch.histories().range(span.owner).len(),
    };
    let states = softmax_states(instructions, pass, spans, rows);
    map(spans.iter().zip(out).collect(), |(span, out): (&Span, SpanGradients<'_>)| {
        let states = states[span.owner].as_deref();
        instructions.run(SpanKernel { pass, rows: rows(span), states, out })
    })
}

/// Adds the partial results of each user into its gradients.
fn add_partials(
    instructions: Instructions,
    spans: &[Span],
    partials: Vec<Vec<f32>>,
    out: Vec<NarrowRows<'_>>,
) {
    let mut partials = spans.iter().zip(partials).peekable();
    let user = |(user, out)| {
        let mut own = Vec::new();
        while let Some((_, partial)) = partials.next_if(|(span, _)| span.owner == user) {
            own.push(partial);
        }
        (own, out)
    };
    let users: Vec<(Vec<Vec<f32>>, NarrowRows<'_>)> = out.into_iter().enumerate().map(user).collect();
    for_each(users, |(partials, out)| instructions.run(AddPartials { partials, out }));
}

/// Adds what the spans of one user add to the gradients of its queries, in their order.
struct AddPartials<'a> {
    partials: Vec<Vec<f32>>,
    out: NarrowRows<'a>,
}

impl Kernel for AddPartials<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) {
        let sum = self.partials.into_iter().reduce(|mut sum, next| {
            add(&mut sum, &next);
            sum
        });
        if let Some(sum) = sum {
            self.out.write(l, 0, &sum);
        }
    }
}
