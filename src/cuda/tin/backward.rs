//! Gradients of TIN: those of target attention whose keys are sums, of queries in `f32`; then the candidates' and the positions'.

use std::ops::Range;

use bytemuck::Zeroable;

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::target_attention::backward::variants::{COMBINE, ROWS_PER_BLOCK, Variant};
use crate::cuda::target_attention::backward::{
    AttentionBackwardParams, AttentionSpan, AttentionStatesParams, CombineQueriesParams, DeviceSpans,
    check_width, cut, partial_row, storage_code,
};
use crate::cuda::tin::positions::{PositionSums, TinCountParams};
use crate::cuda::tin::rows::{Rows, TinPositions, TinPrepareParams, target_bytes};
use crate::cuda::tin::variants::{COUNT, STATES, TARGETS, choose_backward};
use crate::cuda::twin::twins;
use crate::element::{DType, Element};
use crate::error::Result;
use crate::gpu::fit;
use crate::memory::View;
use crate::ops::{TargetAttention, Tin, TinGradients, TinInputs, TinSaved};

const NAME: &str = "tin_backward";
const WORD: usize = size_of::<f32>();
/// The most bytes of `f32` gradients of behaviours in scratch memory, unless one span has more.
const MOST_ROWS: usize = 256 << 20;
/// Where a part reads the gradients of behaviours from the output, the most rows: a `u32` counts them.
const MOST_COUNTED: usize = u32::MAX as usize / 2;

/// Bits of the kernel's `Aligned`: queries, `grad_out` and gradients of queries.
const ROWS_ALIGNED: u32 = 1 | 8 | 16;
/// Keys and values.
const KEYS_ALIGNED: u32 = 2 | 4;
/// Gradients of keys and values.
const GRADS_ALIGNED: u32 = 32 | 64;

twins! {
    /// `kernels/tin/backward.cuh`
    pub(in crate::cuda) struct TinBackwardParams {
        attention: AttentionBackwardParams,
        positions: TinPositions,
        sums: u64,
    }

    /// `kernels/tin/backward.cu`
    pub(in crate::cuda) struct TinStatesParams {
        states: AttentionStatesParams,
        positions: TinPositions,
    }

    /// `kernels/tin/backward.cu`
    pub(in crate::cuda) struct TinTargetGradientParams {
        grad_out: u64,
        pooled: u64,
        grads: u64,
        out: u64,
        length: u64,
        storage: u32,
        grad_storage: u32,
    }
}

/// Addresses of what comes in and of what is written, 0 if it is not asked for.
struct Pointers<G: Element> {
    pooled: u64,
    lse: u64,
    grad_out: u64,
    targets: u64,
    history: Region<G>,
    positions: u64,
}

/// Scratch memory: `f32` for each number of the candidates, but `ids`, their positions, and `states`, softmax states.
struct Scratch {
    sums: u64,
    grad_pooled: u64,
    grad_sums: u64,
    ids: u64,
    states: u64,
    partial: u64,
}

/// One call.
struct Backward<'a, T: Element, G: Element> {
    gpu: &'a Cuda,
    op: &'a Tin,
    batch: &'a CudaBatch,
    rows: Rows<T>,
    pointers: Pointers<G>,
    variant: &'static Variant,
    spans: &'a DeviceSpans,
    /// Whether rows of behaviours and positions, and gradients of behaviours, are aligned to four numbers.
    vectors: [bool; 2],
}

pub(super) fn backward<T: Element, G: Element>(
    gpu: &Cuda,
    op: &Tin,
    batch: &CudaBatch,
    inputs: &TinInputs<'_, CudaMemory, T>,
    (saved, grad_out): (&TinSaved<'_, CudaMemory, T>, View<'_, CudaMemory, T>),
    grads: &TinGradients<'_, CudaMemory, G>,
) -> Result<()> {
    op.check_backward(batch.as_ref(), inputs, saved, grad_out.len(), grads)?;
    check_width(NAME, op.width)?;
    let rows = Rows::new(gpu, NAME, inputs)?;
    let pointers = Pointers {
        pooled: gpu.region(NAME, &saved.pooled)?.pointer,
        lse: gpu.region(NAME, &saved.lse)?.pointer,
        grad_out: gpu.region(NAME, &grad_out)?.pointer,
        targets: gpu.asked(NAME, grads.targets.as_ref())?.pointer,
        history: gpu.asked(NAME, grads.history.as_ref())?,
        positions: gpu.asked(NAME, grads.positions.as_ref())?.pointer,
    };
    let vectors =
        [rows.vectors(op.width, 4 * size_of::<T>()), pointers.history.vectors(op.width, 4 * size_of::<G>())];
    let variant = choose_backward(op.width, batch.as_ref(), vectors == [true; 2]);
    let attention = TargetAttention::new(op.width).with_scale(op.effective_scale());
    let spans = batch.spans(gpu, NAME, &cut(gpu, &attention, batch.as_ref(), variant))?;
    Backward { gpu, op, batch, rows, pointers, variant, spans: &spans, vectors }.run()
}

impl<T: Element, G: Element> Backward<'_, T, G> {
    fn run(&self) -> Result<()> {
        let Self { gpu, op, batch, .. } = *self;
        let ends = batch.history_ends(gpu, NAME)?;
        let (edges, edge_count) = batch.history_edges(gpu, NAME)?;
        let mut call = gpu.begin(NAME);
        let mut positions = self.rows.device_positions(NAME, op, ends.pointer())?;
        let scratch = self.scratch(&mut call)?;
        let Scratch { sums, grad_pooled, ids, .. } = scratch;
        let grad_out = self.pointers.grad_out;
        let more = TinPrepareParams { grad_out, grad_pooled, ids, ..Zeroable::zeroed() };
        self.rows.prepare(&call, op, batch, (positions, sums), more)?;
        let Pointers { targets, history, positions: asked, .. } = &self.pointers;
        if [*targets, history.pointer, *asked] == [0; 3] {
            return call.finish();
        }
        if positions.of_history == 0 {
            let histories = batch.as_ref().histories();
            positions.of_history = call.scratch(histories.total().saturating_mul(WORD))?;
            let params = TinCountParams {
                offsets: edges.pointer(),
                positions: positions.of_history,
                last: positions.last,
                unused: 0,
            };
            call.launch(&COUNT.blocks(edge_count), &params)?;
        }
        call.clear_rows(&batch.as_ref().histories().gaps(), *history, op.width);
        let params = TinBackwardParams { attention: self.attention(&scratch)?, positions, sums: 0 };
        self.states(&call, &params)?;
        let sums = self.behaviours(&mut call, &params)?;
        self.targets(&call, &params)?;
        if let Some(mut sums) = sums {
            let candidates = batch.as_ref().targets().total();
            sums.add(&call, op, (ids, scratch.grad_sums), candidates)?;
            if G::DTYPE != DType::F32 {
                sums.write(&call, *asked, storage_code::<G>())?;
            }
        }
        call.finish()
    }

    fn asks_targets(&self) -> bool {
        self.pointers.targets != 0 || self.pointers.positions != 0
    }

    fn scratch(&self, call: &mut Call<'_>) -> Result<Scratch> {
        let numbers = target_bytes(self.op, self.batch);
        let candidates = self.batch.as_ref().targets().total();
        let attention = TargetAttention::new(self.op.width);
        let partial = if self.asks_targets() { self.spans.partial_targets } else { 0 };
        Ok(Scratch {
            sums: call.scratch(numbers)?,
            grad_pooled: call.scratch(numbers)?,
            grad_sums: call.scratch(numbers)?,
            ids: call.scratch(candidates.saturating_mul(WORD))?,
            states: call.scratch(candidates.saturating_mul(4 * WORD))?,
            partial: call.scratch(partial.saturating_mul(partial_row(&attention)))?,
        })
    }

    /// The parameters of target attention, for all spans, without the gradients of behaviours.
    fn attention(&self, scratch: &Scratch) -> Result<AttentionBackwardParams> {
        let [vectors, grad_vectors] = self.vectors;
        let whole = self.op.width.is_multiple_of(4);
        let bits = [(whole, ROWS_ALIGNED), (vectors, KEYS_ALIGNED), (grad_vectors, GRADS_ALIGNED)];
        let width = fit(NAME, "width", self.op.width)?;
        Ok(AttentionBackwardParams {
            spans: self.spans.spans.pointer(),
            queries: scratch.sums,
            keys: self.rows.history.pointer,
            values: self.rows.history.pointer,
            bias: 0,
            grad_out: scratch.grad_pooled,
            states: scratch.states,
            grad_queries: if self.asks_targets() { scratch.grad_sums } else { 0 },
            grad_keys: 0,
            grad_values: 0,
            grad_bias: 0,
            partial: scratch.partial,
            kv_heads: 1,
            group_heads: 1,
            width,
            value_width: width,
            weighting: 0,
            storage: storage_code::<T>(),
            grad_storage: storage_code::<G>(),
            aliased: 1,
            aligned: bits.into_iter().filter(|(is_aligned, _)| *is_aligned).map(|(_, bits)| bits).sum(),
            scale: self.op.effective_scale(),
            divisor: 1.0,
            by_length: 0,
        })
    }

    /// Computes what softmax subtracts in each candidate.
    fn states(&self, call: &Call<'_>, params: &TinBackwardParams) -> Result<()> {
        let candidates = self.batch.as_ref().targets().total();
        let attention = &params.attention;
        let states = AttentionStatesParams {
            users: self.spans.users.pointer(),
            queries: attention.queries,
            keys: attention.keys,
            bias: 0,
            out: self.pointers.pooled,
            lse: self.pointers.lse,
            grad_out: attention.grad_out,
            grad_lse: 0,
            states: attention.states,
            rows: candidates as u64,
            user_count: fit(NAME, "users", self.spans.user_count)?,
            kv_heads: 1,
            group_heads: 1,
            width: attention.width,
            value_width: attention.value_width,
            storage: attention.storage,
            scale: attention.scale,
            scored_by: self.variant.scored_by() as u32,
        };
        let params = TinStatesParams { states, positions: params.positions };
        call.launch(&STATES.blocks(candidates.div_ceil(ROWS_PER_BLOCK)), &params)
    }

    /// Computes the gradients of behaviours, and what spans add to those of candidates; returns the sums by position, if they are asked for.
    fn behaviours(&self, call: &mut Call<'_>, params: &TinBackwardParams) -> Result<Option<PositionSums>> {
        let Self { op, spans, .. } = *self;
        let row = op.width * WORD;
        let output = self.pointers.history.pointer;
        let asks_positions = self.pointers.positions != 0;
        // Sums by position are of f32: of the output, if it is that.
        let is_whole = output != 0 && G::DTYPE == DType::F32;
        let most = if !asks_positions || is_whole { MOST_COUNTED } else { (MOST_ROWS / row).max(1) };
        let parts = parts(&spans.ranges, most, asks_positions);
        let rows_of = |part: &Range<usize>| spans.ranges[part.start].start..spans.ranges[part.end - 1].end;
        let longest = parts.iter().map(|part| rows_of(part).len()).max().unwrap_or(0);
        let mut sums = None;
        let mut copies = 0;
        if asks_positions {
            let most = longest.max(self.batch.as_ref().targets().total());
            let out = if G::DTYPE == DType::F32 { self.pointers.positions } else { 0 };
            sums = Some(PositionSums::new(call, op, out, most)?);
            copies = if is_whole { 0 } else { call.scratch(longest.saturating_mul(row))? };
        }
        for part in &parts {
            let rows = rows_of(part);
            // Kernels count rows from the first of the batch.
            let before = (rows.start * row) as u64;
            let copied = if copies == 0 { 0 } else { copies.wrapping_sub(before) };
            let mut params = *params;
            let attention = &mut params.attention;
            attention.spans += (part.start * size_of::<AttentionSpan>()) as u64;
            (attention.grad_keys, params.sums) = if output == 0 { (copied, 0) } else { (output, copied) };
            if output == 0 {
                params.attention.grad_storage = storage_code::<f32>();
            }
            let shared = self.variant.dynamic_shared(true);
            call.launch(&self.variant.kernel.blocks(part.len()).with_shared(shared), &params)?;
            if let Some(sums) = &mut sums {
                let ids = params.positions.of_history + (rows.start * WORD) as u64;
                let from = if is_whole { output + before } else { copies };
                sums.add(call, op, (ids, from), rows.len())?;
            }
        }
        Ok(sums)
    }

    /// Completes the gradients of candidates.
    fn targets(&self, call: &Call<'_>, params: &TinBackwardParams) -> Result<()> {
        if !self.asks_targets() {
            return Ok(());
        }
        let attention = &params.attention;
        let combine = CombineQueriesParams {
            targets: self.spans.split_targets.pointer(),
            partial: attention.partial,
            grad_queries: attention.grad_queries,
            heads: 1,
            width: attention.width,
            storage: storage_code::<f32>(),
            unused: 0,
        };
        call.launch(&COMBINE.blocks(self.spans.split_count), &combine)?;
        let length = self.batch.as_ref().targets().total().saturating_mul(self.op.width);
        let params = TinTargetGradientParams {
            grad_out: self.pointers.grad_out,
            pooled: if self.op.multiply_target { self.pointers.pooled } else { 0 },
            grads: attention.grad_queries,
            out: self.pointers.targets,
            length: length as u64,
            storage: storage_code::<T>(),
            grad_storage: storage_code::<G>(),
        };
        call.launch(&TARGETS.blocks(length.div_ceil(TARGETS.threads as usize)), &params)
    }
}

/// Spans that are computed together, of at most so many rows, but at least one. If they are to be `runs`, their rows are consecutive.
fn parts(spans: &[Range<usize>], most: usize, runs: bool) -> Vec<Range<usize>> {
    let (mut parts, mut first, mut rows) = (Vec::new(), 0, 0usize);
    for (span, own) in spans.iter().enumerate() {
        let is_apart = runs && span > first && own.start != spans[span - 1].end;
        if span > first && (is_apart || rows + own.len() > most) {
            parts.push(first..span);
            (first, rows) = (span, 0);
        }
        rows += own.len();
    }
    if first < spans.len() {
        parts.push(first..spans.len());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_span_is_in_one_part() {
        let spans = [0..0, 0..5, 5..9, 9..9, 9..30, 30..31, 50..52, 40..44, 44..50];
        for (most, runs) in [1, 4, 9, 21, 100].into_iter().flat_map(|most| [(most, true), (most, false)]) {
            let parts = parts(&spans, most, runs);
            assert_eq!(parts.iter().cloned().flatten().collect::<Vec<_>>(), (0..9).collect::<Vec<_>>());
            for part in parts.iter().filter(|part| part.len() > 1) {
                let own = &spans[part.clone()];
                assert!(own.iter().map(|span| span.len()).sum::<usize>() <= most);
                assert!(!runs || own.windows(2).all(|pair| pair[0].end == pair[1].start));
            }
        }
        assert!(parts(&[], 5, true).is_empty());
    }
}
