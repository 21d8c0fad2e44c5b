//! The gradients of one span of behaviours.

use crate::cpu::target_attention::backward::pass::{Pass, SpanRows};
use crate::cpu::target_attention::backward::query_rows::{
    Block, BlockGradients, BlockScores, QueryRows, Sums,
};
use crate::cpu::target_attention::backward::softmax_state::SoftmaxState;
use crate::cpu::target_attention::lane_rows::KeyBlock;
use crate::cpu::vector::{Kernel, LANES, Lanes, NarrowRows, Row};

/// The number of key elements in a block: keys, values, their gradients and the scores stay in the L2 cache, with the query
/// rows.
const BLOCK: usize = 4096;

/// The rows of a block are a multiple of this, and so of the rows of a product's tile, of which then none is computed in vain.
const TILES: usize = 24;

/// The gradients of a span's rows, where asked for.
pub(super) struct SpanGradients<'a> {
    pub(super) keys: Option<NarrowRows<'a>>,
    pub(super) values: Option<NarrowRows<'a>>,
    pub(super) bias: Option<&'a mut [f32]>,
}

/// Writes the gradients of one span; returns what it adds to those of the user's queries, `[C, H, d]`, or nothing if they
/// are not asked for.
pub(super) struct SpanKernel<'a> {
    pub(super) pass: &'a Pass<'a>,
    pub(super) rows: SpanRows,
    pub(super) states: Option<&'a [SoftmaxState]>,
    pub(super) out: SpanGradients<'a>,
}

impl Kernel for SpanKernel<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Vec<f32> {
        let Self { pass, rows: span, states, mut out } = self;
        let Pass { op, inputs, queries: asks_queries, .. } = pass;
        let mut groups = QueryRows::of(pass, &span, states);
        let block = (BLOCK / op.width.max(op.value_width)).clamp(TILES, 256) / TILES * TILES;
        let block = block.min(span.history.len());
        let mut scratch = BlockScores::new(block);
        let sums = |width: usize| Sums::new(block, op.kv_heads, width);
        let mut key_sums = out.keys.is_some().then(|| sums(op.width));
        let mut value_sums = out.values.is_some().then(|| sums(op.value_width));
        let (key_width, value_width) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
        let (mut key_scratch, mut value_scratch) = (Vec::new(), Vec::new());
        // Only gradients of scores depend on values.
        let reads_values = *asks_queries || out.keys.is_some() || out.bias.is_some();
        for start in span.history.clone().step_by(block.max(1)) {
            let rows = start..span.history.end.min(start + block);
            let first = start - span.history.start;
            scratch.truncate(rows.len());
            let keys = inputs.keys.widen(l, rows.start * key_width..rows.end * key_width, &mut key_scratch);
            let values = match &inputs.values {
                Some(_) if !reads_values => &[],
                Some(values) => {
                    values.widen(l, rows.start * value_width..rows.end * value_width, &mut value_scratch)
                }
                None => keys,
            };
            let block = Block { keys: KeyBlock { keys, bias: inputs.bias, first: rows.start }, values };
            let own = first * op.heads..(first + rows.len()) * op.heads;
            let mut grads = BlockGradients {
                keys: key_sums.as_mut(),
                values: value_sums.as_mut(),
                bias: out.bias.as_mut().map(|bias| &mut bias[own]),
                queries: *asks_queries,
                are_aliased: inputs.values.is_none(),
            };
            if let Some(bias) = &mut grads.bias {
                bias.fill(0.0);
            }
            for group in &mut groups {
                group.add_block(l, op, block, &mut scratch, &mut grads);
            }
            for (out, sums, width) in
                [(&mut out.keys, &key_sums, op.width), (&mut out.values, &value_sums, op.value_width)]
            {
                if let (Some(out), Some(sums)) = (out, sums) {
                    let count = rows.len() * op.kv_heads;
                    write_rows(l, (&sums.rows, sums.vectors), count, width, first * op.kv_heads, out);
                }
            }
        }
        let mut partial = vec![0.0; if *asks_queries { span.targets.len() * op.heads * op.width } else { 0 }];
        for group in groups.iter().filter(|_| *asks_queries) {
            group.write_queries(op, &mut partial);
        }
        partial
    }
}

/// Writes `count` rows that are filled up to whole vectors, from row `first` of `out` on.
#[inline(always)]
fn write_rows<L: Lanes>(
    l: L,
    (rows, vectors): (&[Row], usize),
    count: usize,
    width: usize,
    first: usize,
    out: &mut NarrowRows<'_>,
) {
    if width.is_multiple_of(LANES) {
        return out.write(l, first * width, rows[..count * vectors].as_flattened());
    }
    for (i, row) in rows.chunks(vectors).enumerate().take(count) {
        out.write(l, (first + i) * width, &row.as_flattened()[..width]);
    }
}
