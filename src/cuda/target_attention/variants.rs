//! The kernels of target attention, and which one a call uses.

use crate::cuda::kernel::{ByType, Kernel};
use crate::element::{DType, Element};
use crate::jagged::Batch;
use crate::ops::{TargetAttention, Weighting};
use crate::plan::{Pace, best_tile_rows};

/// Threads per block of the kernels that attend.
pub(in crate::cuda) const THREADS: u32 = 128;
/// What loading a behaviour costs, in output rows.
pub(in crate::cuda) const LOAD: usize = 6;

/// Combines the partial results of pieces.
pub(in crate::cuda) const COMBINE: ByType = ByType([
    Kernel::new("target_attention", "combine_pieces_f32", 128, 32),
    Kernel::new("target_attention", "combine_pieces_f16", 128, 32),
    Kernel::new("target_attention", "combine_pieces_bf16", 128, 32),
]);

/// Merges results of disjoint histories.
pub(in crate::cuda) const MERGE: ByType = ByType([
    Kernel::new("target_attention", "merge_pairs_f32", 256, 23),
    Kernel::new("target_attention", "merge_pairs_f16", 256, 23),
    Kernel::new("target_attention", "merge_pairs_bf16", 256, 23),
]);

/// How a kernel computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cuda) enum Method {
    /// On matrix units.
    Mma,
    /// For one to four rows, without staging.
    Stream,
    /// Multiply-adds on rows aligned to 16 bytes.
    FmaVectors,
    /// Multiply-adds on rows of any alignment.
    FmaScalars,
}

/// A kernel that attends: a row of the table below.
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct Variant {
    pub(in crate::cuda) kernel: Kernel,
    pub(in crate::cuda) method: Method,
    /// How rows are stored, where the kernel is for one type.
    pub(in crate::cuda) dtype: DType,
    /// Columns of keys or values that a block holds at a time.
    pub(in crate::cuda) chunk: usize,
    /// Output rows per block.
    pub(in crate::cuda) tile_rows: usize,
    /// Behaviours per step.
    pub(in crate::cuda) step: usize,
}

/// Method, symbol, registers, storage type, chunk, tile rows, step.
#[rustfmt::skip]
pub(in crate::cuda) static VARIANTS: [Variant; 28] = [
    row(Method::Mma, "split_history_mma_64_rows_8_f16", 76, DType::F16, 64, 8, 64),
    row(Method::Mma, "split_history_mma_64_rows_32_f16", 128, DType::F16, 64, 32, 64),
    row(Method::Mma, "split_history_mma_64_rows_64_f16", 189, DType::F16, 64, 64, 64),
    row(Method::Mma, "split_history_mma_128_rows_8_f16", 72, DType::F16, 128, 8, 64),
    row(Method::Mma, "split_history_mma_128_rows_32_f16", 146, DType::F16, 128, 32, 64),
    row(Method::Mma, "split_history_mma_64_rows_8_bf16", 76, DType::Bf16, 64, 8, 64),
    row(Method::Mma, "split_history_mma_64_rows_32_bf16", 128, DType::Bf16, 64, 32, 64),
    row(Method::Mma, "split_history_mma_64_rows_64_bf16", 189, DType::Bf16, 64, 64, 64),
    row(Method::Mma, "split_history_mma_128_rows_8_bf16", 72, DType::Bf16, 128, 8, 64),
    row(Method::Mma, "split_history_mma_128_rows_32_bf16", 146, DType::Bf16, 128, 32, 64),
    row(Method::FmaVectors, "split_history_fma_wide_32_rows_8_f32", 90, DType::F32, 32, 8, 128),
    row(Method::FmaVectors, "split_history_fma_wide_32_rows_32_f32", 89, DType::F32, 32, 32, 64),
    row(Method::FmaVectors, "split_history_fma_wide_64_rows_8_f32", 88, DType::F32, 64, 8, 128),
    row(Method::FmaVectors, "split_history_fma_wide_64_rows_32_f32", 96, DType::F32, 64, 32, 64),
    row(Method::FmaVectors, "split_history_fma_wide_128_rows_8_f32", 111, DType::F32, 128, 8, 64),
    row(Method::FmaVectors, "split_history_fma_wide_128_rows_32_f32", 111, DType::F32, 128, 32, 32),
    row(Method::FmaScalars, "split_history_fma_any_64_rows_8_f32", 103, DType::F32, 64, 8, 128),
    row(Method::FmaScalars, "split_history_fma_any_64_rows_32_f32", 96, DType::F32, 64, 32, 64),
    row(Method::FmaScalars, "split_history_fma_any_64_rows_8_f16", 103, DType::F16, 64, 8, 128),
    row(Method::FmaScalars, "split_history_fma_any_64_rows_32_f16", 96, DType::F16, 64, 32, 64),
    row(Method::FmaScalars, "split_history_fma_any_64_rows_8_bf16", 103, DType::Bf16, 64, 8, 128),
    row(Method::FmaScalars, "split_history_fma_any_64_rows_32_bf16", 96, DType::Bf16, 64, 32, 64),
    row(Method::Stream, "stream_history_32_rows_1_f32", 88, DType::F32, 32, 1, 128),
    row(Method::Stream, "stream_history_32_rows_4_f32", 122, DType::F32, 32, 4, 64),
    row(Method::Stream, "stream_history_64_rows_1_f32", 88, DType::F32, 64, 1, 64),
    row(Method::Stream, "stream_history_64_rows_4_f32", 122, DType::F32, 64, 4, 32),
    row(Method::Stream, "stream_history_128_rows_1_f32", 89, DType::F32, 128, 1, 32),
    row(Method::Stream, "stream_history_128_rows_4_f32", 126, DType::F32, 128, 4, 16),
];

const fn row(
    method: Method,
    symbol: &'static str,
    registers: u32,
    dtype: DType,
    chunk: usize,
    tile_rows: usize,
    step: usize,
) -> Variant {
    let file = match method {
        Method::Mma => "target_attention_mma",
        Method::Stream => "target_attention_stream",
        Method::FmaVectors | Method::FmaScalars => "target_attention_fma",
    };
    Variant { kernel: Kernel::new(file, symbol, THREADS, registers), method, dtype, chunk, tile_rows, step }
}

impl Variant {
    /// The variant for an operation on this batch. `vectors`: all rows are aligned to 16 bytes.
    pub(in crate::cuda) fn choose<T: Element>(
        op: &TargetAttention,
        batch: &Batch,
        vectors: bool,
    ) -> &'static Self {
        let method = Self::method::<T>(op, batch, vectors);
        let widest = op.width.max(op.value_width);
        let chunk = match method {
            Method::Mma if widest <= 64 => 64,
            Method::Mma => 128,
            Method::Stream => widest.next_power_of_two().max(32),
            Method::FmaVectors if widest <= 32 => 32,
            Method::FmaVectors if widest > 64 => 128,
            Method::FmaVectors | Method::FmaScalars => 64,
        };
        let is_for = |row: &&Self| (row.method, row.dtype, row.chunk) == (method, T::DTYPE, chunk);
        let sizes: Vec<usize> = VARIANTS.iter().filter(is_for).map(|row| row.tile_rows).collect();
        let group_heads = op.heads / op.kv_heads;
        let tile_rows = match method {
            // On matrix units rows are cheap.
            Method::Mma => best_tile_rows(batch, group_heads, &sizes, 4 * LOAD),
            Method::Stream => {
                if most_rows(op, batch) == 1 {
                    1
                } else {
                    4
                }
            }
            Method::FmaVectors | Method::FmaScalars => best_tile_rows(batch, group_heads, &sizes, LOAD),
        };
        let mut rows = VARIANTS.iter().filter(is_for);
        rows.find(|row| row.tile_rows == tile_rows).expect("a row for every method, type, chunk and size")
    }

    fn method<T: Element>(op: &TargetAttention, batch: &Batch, vectors: bool) -> Method {
        let widest = op.width.max(op.value_width);
        // Only weights of softmax are known to stay within the range of f16.
        let in_range = op.weighting == Weighting::Softmax || T::DTYPE == DType::Bf16;
        match T::DTYPE {
            DType::F32 if vectors && widest <= 128 && most_rows(op, batch) <= 4 => Method::Stream,
            DType::F32 if vectors => Method::FmaVectors,
            DType::F16 | DType::Bf16 if vectors && widest <= 128 && in_range => Method::Mma,
            _ => Method::FmaScalars,
        }
    }

    /// The most behaviours of a piece, so that no chain of additions is much longer than a thousand.
    pub(in crate::cuda) fn longest(&self) -> usize {
        match self.method {
            // The matrix units add 16 at a time.
            Method::Mma => 1 << 14,
            // Four warps or more share the behaviours.
            Method::Stream => 1 << 12,
            Method::FmaVectors | Method::FmaScalars => (1 << 10) * 32 / self.tile_rows,
        }
    }

    /// What pieces cost: 2.5 cycles for each instruction of a warp, as counted for rows of 64 numbers (`kernels/evidence.md`).
    pub(in crate::cuda) fn pace(&self) -> Pace {
        let Self { chunk, tile_rows, step, .. } = *self;
        let step = match self.method {
            Method::Mma => 600 + 70 * tile_rows,
            Method::Stream => 1000,
            Method::FmaVectors | Method::FmaScalars => step * tile_rows * chunk / 16,
        };
        Pace {
            resident: 1,
            step,
            row: 0,
            piece: 2500,
            combine: 4500,
            slot: 60,
            fewest_steps: 1,
            shrinks: false,
        }
    }

    /// Bytes of dynamic shared memory per block. `aliased`: the keys are the values. The kernel's own layout, which
    /// `contracts/` compares with this, is exported as `<symbol>_layout`.
    pub(in crate::cuda) fn dynamic_shared(&self, width: usize, aliased: bool) -> usize {
        let Self { chunk, tile_rows, step, .. } = *self;
        match self.method {
            Method::Mma => {
                let stages = if chunk == 64 { 3 } else { 2 };
                let tiles = stages * if aliased { 1 } else { 2 };
                // Keys and values, queries, weights in two halves; per row, four warps' maxima, max and sum, head.
                let halves = tiles * step * chunk + tile_rows * chunk + 2 * step * tile_rows;
                halves * 2 + 7 * tile_rows * 4
            }
            Method::Stream => 0,
            Method::FmaVectors | Method::FmaScalars => {
                const PADDING: usize = 4;
                let (parts, pitch) = (32 / tile_rows, chunk + PADDING);
                // Two tiles of the history, queries with each or once, the weights of each of four warps.
                let queries = if width > chunk { 2 } else { 1 } * tile_rows * pitch;
                let floats = 2 * step * pitch + queries + 4 * 8 * (step / parts + PADDING);
                floats * 4
            }
        }
    }
}

/// The most output rows of a user for one key/value head.
fn most_rows(op: &TargetAttention, batch: &Batch) -> usize {
    batch.targets().max_length().saturating_mul(op.heads / op.kv_heads)
}

/// All kernels of this stem.
#[cfg(test)]
pub(in crate::cuda) fn table() -> Vec<Kernel> {
    let variants: Vec<Kernel> = VARIANTS.iter().map(|variant| variant.kernel).collect();
    [&variants[..], &COMBINE.0, &MERGE.0].concat()
}
