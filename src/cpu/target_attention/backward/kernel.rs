//! The gradients of one span of behaviours.

use crate::cpu::target_attention::backward::pass::{Pass, SpanRows};
use crate::cpu::target_attention::backward::query_rows::{
    Block, BlockGradients, BlockScores, QueryRows, Sums,
};
use crate::cpu::target_attention::backward::softmax_state::SoftmaxState;
use crate::cpu::target_attention::lane_rows::KeyBlock;
use crate::cpu::vector::{Kernel, LANES, Lanes, NarrowRows, Row};
use crate::ops::TargetAttention;

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
        if groups.is_empty() {
            [&mut out.keys, &mut out.values].into_iter().flatten().for_each(NarrowRows::clear);
            out.bias.into_iter().for_each(|bias| bias.fill(0.0));
            return Vec::new();
        }
        let block = (BLOCK / op.width.max(op.value_width)).clamp(TILES, 256) / TILES * TILES;
        let block = block.min(span.history.len());
        let mut scratch = BlockScores::new(block);
        let [mut key_rows, mut value_rows] = [op.width, op.value_width].map(|width| Rows::new(op, width));
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
                keys: out.keys.as_mut().map(|out| key_rows.sums(out, first, rows.len())),
                values: out.values.as_mut().map(|out| value_rows.sums(out, first, rows.len())),
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
            for (sums, out) in [(&key_rows, &mut out.keys), (&value_rows, &mut out.values)] {
                if let Some(out) = out {
                    sums.write(l, out, first, rows.len());
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

/// Where the gradients of a block's keys, or values, are added up: in place if they are stored as whole vectors of `f32`, which saves
/// writing them twice.
struct Rows {
    kv_heads: usize,
    width: usize,
    /// `[behaviours, H_kv, vectors]`, filled up to whole vectors.
    scratch: Vec<Row>,
}

impl Rows {
    fn new(op: &TargetAttention, width: usize) -> Self {
        Self { kv_heads: op.kv_heads, width, scratch: Vec::new() }
    }

    /// The sums of `count` behaviours from `first` on. They hold anything: the first query rows of a head overwrite them.
    fn sums<'a>(&'a mut self, out: &'a mut NarrowRows<'_>, first: usize, count: usize) -> Sums<'a> {
        let vectors = self.width.div_ceil(LANES);
        let stride = self.kv_heads * vectors;
        let row = self.kv_heads * self.width;
        let rows = match out {
            NarrowRows::F32(out) if self.width.is_multiple_of(LANES) => {
                out[first * row..(first + count) * row].as_chunks_mut().0
            }
            _ => {
                self.scratch.resize(count * stride, [0.0; LANES]);
                &mut self.scratch[..]
            }
        };
        Sums { rows, vectors, stride }
    }

    /// Writes the sums, unless they are in place.
    #[inline(always)]
    fn write<L: Lanes>(&self, l: L, out: &mut NarrowRows<'_>, first: usize, count: usize) {
        if self.scratch.is_empty() {
            return;
        }
        let (first, count) = (first * self.kv_heads, count * self.kv_heads);
        if self.width.is_multiple_of(LANES) {
            return out.write(l, first * self.width, self.scratch.as_flattened());
        }
        for (i, row) in self.scratch.chunks(self.width.div_ceil(LANES)).enumerate().take(count) {
            out.write(l, (first + i) * self.width, &row.as_flattened()[..self.width]);
        }
    }
}
