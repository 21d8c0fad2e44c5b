//! Gradients of target attention: the states of softmax, the spans, the sums of their partial results; gradients of merges.

mod spans;
pub(in crate::cuda) mod variants;

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::twin::twins;
use crate::element::{DType, Element};
use crate::error::{Error, Result};
use crate::gpu::{fit, weighting_of};
use crate::jagged::Batch;
use crate::ops::{
    PartialAttention, PartialAttentionGradients, TargetAttention, TargetAttentionGradOut,
    TargetAttentionGradients, TargetAttentionInputs, TargetAttentionSaved, Weighting,
};

use variants::{Alignment, COMBINE, MERGE, MOST_WIDTH, ROWS_PER_BLOCK, STATES, ScoredBy, Variant};

#[cfg(test)]
pub(in crate::cuda) use spans::SplitTarget;
pub(in crate::cuda) use spans::{AttentionSpan, DeviceSpans, SpanCut};

const NAME: &str = "target_attention_backward";
/// Spans per multiprocessor: a few for each of the two blocks that it runs at a time.
const SPANS: usize = 8;
/// The most bytes of partial results, unless every user's history is one span.
const MOST_PARTIAL: usize = 64 << 20;

twins! {
    /// `kernels/target_attention/backward.cu`
    pub(in crate::cuda) struct AttentionStatesParams {
        pub(in crate::cuda) users: u64,
        pub(in crate::cuda) queries: u64,
        pub(in crate::cuda) keys: u64,
        pub(in crate::cuda) bias: u64,
        pub(in crate::cuda) out: u64,
        pub(in crate::cuda) lse: u64,
        pub(in crate::cuda) grad_out: u64,
        pub(in crate::cuda) grad_lse: u64,
        pub(in crate::cuda) states: u64,
        pub(in crate::cuda) rows: u64,
        pub(in crate::cuda) user_count: u32,
        pub(in crate::cuda) kv_heads: u32,
        pub(in crate::cuda) group_heads: u32,
        pub(in crate::cuda) width: u32,
        pub(in crate::cuda) value_width: u32,
        pub(in crate::cuda) storage: u32,
        pub(in crate::cuda) scale: f32,
        pub(in crate::cuda) scored_by: u32,
    }

    /// `kernels/target_attention/backward_rows.cuh`
    pub(in crate::cuda) struct AttentionBackwardParams {
        pub(in crate::cuda) spans: u64,
        pub(in crate::cuda) queries: u64,
        pub(in crate::cuda) keys: u64,
        pub(in crate::cuda) values: u64,
        pub(in crate::cuda) bias: u64,
        pub(in crate::cuda) grad_out: u64,
        pub(in crate::cuda) states: u64,
        pub(in crate::cuda) grad_queries: u64,
        pub(in crate::cuda) grad_keys: u64,
        pub(in crate::cuda) grad_values: u64,
        pub(in crate::cuda) grad_bias: u64,
        pub(in crate::cuda) partial: u64,
        pub(in crate::cuda) kv_heads: u32,
        pub(in crate::cuda) group_heads: u32,
        pub(in crate::cuda) width: u32,
        pub(in crate::cuda) value_width: u32,
        pub(in crate::cuda) weighting: u32,
        pub(in crate::cuda) storage: u32,
        pub(in crate::cuda) grad_storage: u32,
        pub(in crate::cuda) aliased: u32,
        pub(in crate::cuda) aligned: u32,
        pub(in crate::cuda) scale: f32,
        pub(in crate::cuda) divisor: f32,
        pub(in crate::cuda) by_length: u32,
    }

    /// `kernels/target_attention/backward.cu`
    pub(in crate::cuda) struct CombineQueriesParams {
        pub(in crate::cuda) targets: u64,
        pub(in crate::cuda) partial: u64,
        pub(in crate::cuda) grad_queries: u64,
        pub(in crate::cuda) heads: u32,
        pub(in crate::cuda) width: u32,
        pub(in crate::cuda) storage: u32,
        pub(in crate::cuda) unused: u32,
    }

    /// `kernels/target_attention/backward.cu`
    pub(in crate::cuda) struct MergeBackwardParams {
        first: u64,
        second: u64,
        first_lse: u64,
        second_lse: u64,
        grad_out: u64,
        grad_lse: u64,
        first_out: u64,
        second_out: u64,
        first_grad_lse: u64,
        second_grad_lse: u64,
        rows: u64,
        width: u32,
        storage: u32,
        grad_storage: u32,
        unused: u32,
    }
}

/// All bits of the kernel's `Aligned`.
const ALL_ALIGNED: u32 = 127;

/// The code of a storage type.
pub(in crate::cuda) fn storage_code<T: Element>() -> u32 {
    match T::DTYPE {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Bf16 => 2,
    }
}

/// The rows that kernels read and write; a pointer of 0: not asked for.
struct Rows<T: Element, G: Element> {
    queries: Region<T>,
    keys: Region<T>,
    values: Region<T>,
    grad_out: Region<T>,
    grad_queries: Region<G>,
    grad_keys: Region<G>,
    grad_values: Region<G>,
}

impl<T: Element, G: Element> Rows<T, G> {
    fn new(
        gpu: &Cuda,
        inputs: &TargetAttentionInputs<'_, CudaMemory, T>,
        grad_out: &TargetAttentionGradOut<'_, CudaMemory, T>,
        grads: &TargetAttentionGradients<'_, CudaMemory, G>,
    ) -> Result<Self> {
        let keys = gpu.region(NAME, &inputs.keys)?;
        Ok(Self {
            queries: gpu.region(NAME, &inputs.queries)?,
            keys,
            values: inputs.values.map_or(Ok(keys), |values| gpu.region(NAME, &values))?,
            grad_out: gpu.region(NAME, &grad_out.out)?,
            grad_queries: gpu.asked(NAME, grads.queries.as_ref())?,
            grad_keys: gpu.asked(NAME, grads.keys.as_ref())?,
            grad_values: gpu.asked(NAME, grads.values.as_ref())?,
        })
    }

    /// Which of them are aligned to four numbers, a bit for each of the kernel's `Aligned`.
    fn aligned(&self, op: &TargetAttention) -> u32 {
        let (read, written) = (4 * size_of::<T>(), 4 * size_of::<G>());
        let aligned = [
            self.queries.vectors(op.width, read),
            self.keys.vectors(op.width, read),
            self.values.vectors(op.value_width, read),
            self.grad_out.vectors(op.value_width, read),
            self.grad_queries.vectors(op.width, written),
            self.grad_keys.vectors(op.width, written),
            self.grad_values.vectors(op.value_width, written),
        ];
        (0..).zip(aligned).map(|(bit, is_aligned)| u32::from(is_aligned) << bit).sum()
    }

    /// What the rows that are read, and written, allow.
    fn alignment(&self, op: &TargetAttention) -> Alignment {
        let read = [
            self.queries.vectors(op.width, 16),
            self.keys.vectors(op.width, 16),
            self.values.vectors(op.value_width, 16),
            self.grad_out.vectors(op.value_width, 16),
        ];
        match self.aligned(op) {
            ALL_ALIGNED if read == [true; 4] => Alignment::Vectors,
            ALL_ALIGNED => Alignment::Fours,
            _ => Alignment::None,
        }
    }
}

/// How the batch is cut into spans.
pub(in crate::cuda) fn cut(gpu: &Cuda, op: &TargetAttention, batch: &Batch, variant: &Variant) -> SpanCut {
    // Bytes of partial results, were every behaviour a span of its own; and how long spans must be that they stay few.
    let bytes = u128::from(batch.pairs()) * partial_row(op) as u128;
    let shortest = usize::try_from(bytes.div_ceil(MOST_PARTIAL as u128)).unwrap_or(usize::MAX / 2).max(1);
    let wanted = (SPANS * gpu.multiprocessors()).div_ceil(op.kv_heads);
    SpanCut {
        rows_per_target: op.heads / op.kv_heads,
        tile_rows: variant.tile_rows,
        step: variant.step,
        wanted: wanted.min(batch.histories().total_length() / shortest),
        longest: shortest.max(variant.longest()),
    }
}

/// Bytes of what a span adds to the gradients of a candidate's queries.
pub(in crate::cuda) fn partial_row(op: &TargetAttention) -> usize {
    op.heads.saturating_mul(op.width.next_multiple_of(4) * size_of::<f32>())
}

pub(super) fn backward<T: Element, G: Element>(
    gpu: &Cuda,
    op: &TargetAttention,
    batch: &CudaBatch,
    inputs: &TargetAttentionInputs<'_, CudaMemory, T>,
    (saved, grad_out): (TargetAttentionSaved<'_, CudaMemory, T>, TargetAttentionGradOut<'_, CudaMemory, T>),
    grads: &TargetAttentionGradients<'_, CudaMemory, G>,
) -> Result<()> {
    op.check_backward(batch.as_ref(), inputs, &saved, &grad_out, grads)?;
    check_width(NAME, op.width.max(op.value_width))?;
    let (weighting, divisor) = weighting_of(op.weighting);
    let rows = Rows::new(gpu, inputs, &grad_out, grads)?;
    let grad_bias = gpu.asked(NAME, grads.bias.as_ref())?;
    let asked =
        [rows.grad_queries.pointer, rows.grad_keys.pointer, rows.grad_values.pointer, grad_bias.pointer];
    if asked == [0; 4] {
        return Ok(());
    }
    let variant = Variant::choose::<T>(op, batch.as_ref(), rows.alignment(op));
    let spans = batch.spans(gpu, NAME, &cut(gpu, op, batch.as_ref(), variant))?;
    let asks_queries = rows.grad_queries.pointer != 0;
    let mut call = gpu.begin(NAME);
    let query_rows = batch.as_ref().targets().total() * op.heads;
    let states = match op.weighting {
        Weighting::Softmax => call.scratch(query_rows.saturating_mul(4 * size_of::<f32>()))?,
        _ => 0,
    };
    let partial_targets = if asks_queries { spans.partial_targets } else { 0 };
    let partial = call.scratch(partial_targets.saturating_mul(partial_row(op)))?;
    let params = AttentionBackwardParams {
        spans: spans.spans.pointer(),
        queries: rows.queries.pointer,
        keys: rows.keys.pointer,
        values: rows.values.pointer,
        bias: gpu.optional(NAME, inputs.bias.as_ref())?,
        grad_out: rows.grad_out.pointer,
        states,
        grad_queries: rows.grad_queries.pointer,
        grad_keys: rows.grad_keys.pointer,
        grad_values: rows.grad_values.pointer,
        grad_bias: grad_bias.pointer,
        partial,
        kv_heads: fit(NAME, "kv_heads", op.kv_heads)?,
        group_heads: fit(NAME, "heads", op.heads / op.kv_heads)?,
        width: op.width as u32,
        value_width: op.value_width as u32,
        weighting,
        storage: storage_code::<T>(),
        grad_storage: storage_code::<G>(),
        aliased: u32::from(inputs.values.is_none()),
        aligned: rows.aligned(op),
        scale: op.effective_scale(),
        divisor: divisor.unwrap_or(1.0),
        by_length: u32::from(divisor.is_none()),
    };
    if states != 0 {
        let scored_by = variant.scored_by();
        prepare(gpu, &call, &params, (&saved, &grad_out), (&spans, query_rows, scored_by))?;
    }
    let gaps = batch.as_ref().histories().gaps();
    call.clear_rows(&gaps, rows.grad_keys, op.kv_heads * op.width);
    call.clear_rows(&gaps, rows.grad_values, op.kv_heads * op.value_width);
    call.clear_rows(&gaps, grad_bias, op.heads);
    let blocks = spans.span_count.saturating_mul(op.kv_heads);
    let shared = variant.dynamic_shared(inputs.values.is_none());
    call.launch(&variant.kernel.blocks(blocks).with_shared(shared), &params)?;
    let combine = CombineQueriesParams {
        targets: spans.split_targets.pointer(),
        partial,
        grad_queries: params.grad_queries,
        heads: fit(NAME, "heads", op.heads)?,
        width: params.width,
        storage: params.grad_storage,
        unused: 0,
    };
    let split = if asks_queries { spans.split_count } else { 0 };
    call.launch(&COMBINE.blocks(split.saturating_mul(op.heads)), &combine)?;
    call.finish()
}

/// Refuses rows that the kernels are too narrow for.
pub(in crate::cuda) fn check_width(operation: &'static str, widest: usize) -> Result<()> {
    if widest <= MOST_WIDTH {
        return Ok(());
    }
    Err(Error::Unsupported {
        operation,
        what: format!("rows of {widest} numbers"),
        supported: format!("rows of up to {MOST_WIDTH} on Cuda"),
    })
}

/// Computes what softmax subtracts in each query row. `scored_by`: how the kernel that follows adds the products of a score.
fn prepare<T: Element>(
    gpu: &Cuda,
    call: &Call<'_>,
    params: &AttentionBackwardParams,
    (saved, grad_out): (&TargetAttentionSaved<'_, CudaMemory, T>, &TargetAttentionGradOut<'_, CudaMemory, T>),
    (spans, rows, scored_by): (&DeviceSpans, usize, ScoredBy),
) -> Result<()> {
    let states = AttentionStatesParams {
        users: spans.users.pointer(),
        queries: params.queries,
        keys: params.keys,
        bias: params.bias,
        out: gpu.optional(NAME, saved.out.as_ref())?,
        lse: gpu.optional(NAME, saved.lse.as_ref())?,
        grad_out: params.grad_out,
        grad_lse: gpu.optional(NAME, grad_out.lse.as_ref())?,
        states: params.states,
        rows: rows as u64,
        user_count: fit(NAME, "users", spans.user_count)?,
        kv_heads: params.kv_heads,
        group_heads: params.group_heads,
        width: params.width,
        value_width: params.value_width,
        storage: params.storage,
        scale: params.scale,
        scored_by: scored_by as u32,
    };
    call.launch(&STATES.blocks(rows.div_ceil(ROWS_PER_BLOCK)), &states)
}

pub(super) fn merge_backward<T: Element, G: Element>(
    gpu: &Cuda,
    op: &TargetAttention,
    [first, second]: [PartialAttention<'_, CudaMemory, T>; 2],
    grad_out: TargetAttentionGradOut<'_, CudaMemory, T>,
    [first_grads, second_grads]: [&PartialAttentionGradients<'_, CudaMemory, G>; 2],
) -> Result<()> {
    const NAME: &str = "merge_attention_backward";
    let rows = op.check_merge_backward([&first, &second], &grad_out, [first_grads, second_grads])?;
    let params = MergeBackwardParams {
        first: gpu.region(NAME, &first.out)?.pointer,
        second: gpu.region(NAME, &second.out)?.pointer,
        first_lse: gpu.region(NAME, &first.lse)?.pointer,
        second_lse: gpu.region(NAME, &second.lse)?.pointer,
        grad_out: gpu.region(NAME, &grad_out.out)?.pointer,
        grad_lse: gpu.optional(NAME, grad_out.lse.as_ref())?,
        first_out: gpu.asked(NAME, first_grads.out.as_ref())?.pointer,
        second_out: gpu.asked(NAME, second_grads.out.as_ref())?.pointer,
        first_grad_lse: gpu.asked(NAME, first_grads.lse.as_ref())?.pointer,
        second_grad_lse: gpu.asked(NAME, second_grads.lse.as_ref())?.pointer,
        rows: rows as u64,
        width: fit(NAME, "value_width", op.value_width)?,
        storage: storage_code::<T>(),
        grad_storage: storage_code::<G>(),
        unused: 0,
    };
    let call = gpu.begin(NAME);
    call.launch(&MERGE.blocks(rows.div_ceil(ROWS_PER_BLOCK)), &params)?;
    call.finish()
}

impl CudaBatch {
    /// The spans of a cut, made at their first use.
    pub(in crate::cuda) fn spans(
        &self,
        gpu: &Cuda,
        operation: &'static str,
        cut: &SpanCut,
    ) -> Result<std::sync::Arc<DeviceSpans>> {
        self.cached_spans(gpu, operation, cut, || {
            spans::Spans::new(operation, self.as_ref(), cut)?.upload(gpu, operation)
        })
    }
}
