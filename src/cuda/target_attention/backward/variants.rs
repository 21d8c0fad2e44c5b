//! The kernels of target attention's gradients, and which one a call uses.

use crate::cuda::kernel::Kernel;
use crate::element::{DType, Element};
use crate::jagged::Batch;
use crate::ops::TargetAttention;

const FILE: &str = "target_attention_backward";

/// What softmax subtracts in each query row.
pub(in crate::cuda) const STATES: Kernel = Kernel::new(FILE, "attention_states", 128, 48);
/// Adds what spans add to the gradients of queries.
pub(in crate::cuda) const COMBINE: Kernel = Kernel::new(FILE, "combine_queries", 128, 39);
/// The gradients of a merge.
pub(in crate::cuda) const MERGE: Kernel = Kernel::new(FILE, "merge_backward", 128, 29);
/// Rows per block of `STATES` and `MERGE`.
pub(in crate::cuda) const ROWS_PER_BLOCK: usize = 4;

/// The widest row that the kernels take.
pub(super) const MOST_WIDTH: usize = 256;
/// Rows that are padded by so many numbers.
const PADDING: usize = 4;

/// How the kernel computes, and adds the products of a score: `ScoredBy` of `kernels/target_attention/backward.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::cuda) enum ScoredBy {
    /// Multiply-adds on rows in shared memory.
    Threads = 0,
    /// Multiply-adds on behaviours in registers.
    Lanes = 1,
    /// Matrix units.
    MatrixUnits = 2,
}

/// How all rows are aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alignment {
    /// Not at all.
    None,
    /// To four numbers.
    Fours,
    /// To four numbers; those that are read, to 16 bytes.
    Vectors,
}

/// A kernel that computes gradients: a row of the table below.
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct Variant {
    pub(in crate::cuda) kernel: Kernel,
    scored_by: ScoredBy,
    /// How the rows that are read are stored; `None`: the kernel takes all types.
    dtype: Option<DType>,
    /// Columns of the keys and values.
    pub(in crate::cuda) columns: usize,
    /// Query rows per tile.
    pub(in crate::cuda) tile_rows: usize,
    /// Behaviours per step.
    pub(in crate::cuda) step: usize,
    /// Rows that a thread scores, of the kernels with rows in shared memory.
    score_rows: usize,
}

/// The most query rows for the kernels that stream.
pub(in crate::cuda) const STREAMED: usize = 4;
/// The widest row for those and for matrix units.
pub(in crate::cuda) const STREAMED_WIDTH: usize = 128;

/// Symbol, registers, columns, tile rows, step, rows that a thread scores. Of those for the same width, the first that holds all rows
/// of a user is taken, or the last.
#[rustfmt::skip]
pub(in crate::cuda) static VARIANTS: [Variant; 17] = [
    row("backward_fma_32_rows_32", 160, [32, 32, 64, 4]),
    row("backward_fma_64_rows_8", 143, [64, 8, 64, 2]),
    row("backward_fma_64_rows_32", 196, [64, 32, 64, 4]),
    row("backward_fma_128_rows_32", 200, [128, 32, 32, 4]),
    row("backward_fma_256_rows_16", 196, [256, 16, 16, 1]),
    row("backward_stream_64_rows_1", 80, [64, 1, 64, 0]).by(ScoredBy::Lanes, None),
    row("backward_stream_64_rows_4", 122, [64, 4, 64, 0]).by(ScoredBy::Lanes, None),
    row("backward_stream_128_rows_1", 80, [128, 1, 64, 0]).by(ScoredBy::Lanes, None),
    row("backward_stream_128_rows_4", 122, [128, 4, 64, 0]).by(ScoredBy::Lanes, None),
    row("backward_mma_64_rows_8_f16", 142, [64, 8, 64, 0]).by(ScoredBy::MatrixUnits, Some(DType::F16)),
    row("backward_mma_64_rows_32_f16", 181, [64, 32, 64, 0]).by(ScoredBy::MatrixUnits, Some(DType::F16)),
    row("backward_mma_128_rows_8_f16", 210, [128, 8, 64, 0]).by(ScoredBy::MatrixUnits, Some(DType::F16)),
    row("backward_mma_128_rows_16_f16", 237, [128, 16, 64, 0]).by(ScoredBy::MatrixUnits, Some(DType::F16)),
    row("backward_mma_64_rows_8_bf16", 142, [64, 8, 64, 0]).by(ScoredBy::MatrixUnits, Some(DType::Bf16)),
    row("backward_mma_64_rows_32_bf16", 181, [64, 32, 64, 0]).by(ScoredBy::MatrixUnits, Some(DType::Bf16)),
    row("backward_mma_128_rows_8_bf16", 210, [128, 8, 64, 0]).by(ScoredBy::MatrixUnits, Some(DType::Bf16)),
    row("backward_mma_128_rows_16_bf16", 237, [128, 16, 64, 0]).by(ScoredBy::MatrixUnits, Some(DType::Bf16)),
];

const fn row(symbol: &'static str, registers: u32, sizes: [usize; 4]) -> Variant {
    Variant::new(
        Kernel::new("target_attention_backward_fma", symbol, 128, registers),
        ScoredBy::Threads,
        sizes,
    )
}

impl Variant {
    /// A kernel for all storage types: columns, tile rows, step, rows that a thread scores.
    pub(in crate::cuda) const fn new(kernel: Kernel, scored_by: ScoredBy, sizes: [usize; 4]) -> Self {
        let [columns, tile_rows, step, score_rows] = sizes;
        Self { kernel, scored_by, dtype: None, columns, tile_rows, step, score_rows }
    }

    const fn by(mut self, scored_by: ScoredBy, dtype: Option<DType>) -> Self {
        self.kernel.file = match scored_by {
            ScoredBy::Threads => "target_attention_backward_fma",
            ScoredBy::Lanes => "target_attention_backward_stream",
            ScoredBy::MatrixUnits => "target_attention_backward_mma",
        };
        Self { scored_by, dtype, ..self }
    }

    /// The variant for an operation on this batch, whose rows are at most [`MOST_WIDTH`] wide.
    pub(super) fn choose<T: Element>(
        op: &TargetAttention,
        batch: &Batch,
        alignment: Alignment,
    ) -> &'static Self {
        let widest = op.width.max(op.value_width);
        let rows = batch.targets().max_length().saturating_mul(op.heads / op.kv_heads);
        let (scored_by, dtype) = match alignment {
            Alignment::Vectors if T::DTYPE != DType::F32 && widest <= STREAMED_WIDTH => {
                (ScoredBy::MatrixUnits, Some(T::DTYPE))
            }
            Alignment::Fours | Alignment::Vectors if rows <= STREAMED && widest <= STREAMED_WIDTH => {
                (ScoredBy::Lanes, None)
            }
            _ => (ScoredBy::Threads, None),
        };
        let narrowest = if scored_by == ScoredBy::Threads { 32 } else { 64 };
        let columns = widest.next_power_of_two().max(narrowest);
        let is_for = |row: &&Self| (row.scored_by, row.dtype, row.columns) == (scored_by, dtype, columns);
        let last = VARIANTS.iter().rfind(is_for).expect("a row for every width");
        VARIANTS.iter().filter(is_for).find(|row| rows <= row.tile_rows).unwrap_or(last)
    }

    /// How the kernel adds the products of a score.
    pub(in crate::cuda) fn scored_by(&self) -> ScoredBy {
        self.scored_by
    }

    /// The most behaviours of a span, so that no chain of additions is much longer than a thousand.
    pub(super) fn longest(&self) -> usize {
        match self.scored_by {
            ScoredBy::Threads => 1 << 10,
            // Eight or four behaviours at a time are added to sums of their own.
            ScoredBy::Lanes => 1 << 12,
            // Matrix units add eight products at a time, twice.
            ScoredBy::MatrixUnits => 1 << 12,
        }
    }

    /// Bytes of dynamic shared memory per block. `aliased`: the keys are the values. The kernel's own layout, which
    /// `contracts/` compares with this, is exported as `<symbol>_layout`.
    pub(in crate::cuda) fn dynamic_shared(&self, aliased: bool) -> usize {
        let Self { columns, tile_rows, step, score_rows, .. } = *self;
        let tiles = if aliased { 1 } else { 2 };
        match self.scored_by {
            ScoredBy::Threads => {
                let (pitch, weight_pitch) = (columns + PADDING, tile_rows + PADDING);
                let history = tiles * step * pitch;
                let floats = history + 2 * tile_rows * pitch + 2 * step * weight_pitch + 4 * tile_rows;
                floats * size_of::<f32>() + step * tile_rows / score_rows
            }
            ScoredBy::Lanes => 0,
            ScoredBy::MatrixUnits => {
                const STAGES: usize = 2;
                // Keys and values, queries and their gradients in 16 bits; gradients of scores in two parts; of each row its
                // state, head and place.
                let halves = (STAGES * tiles * step + 2 * tile_rows) * columns;
                halves * 2 + step * tile_rows * 8 + tile_rows * 24
            }
        }
    }
}

/// All kernels of the gradients.
#[cfg(test)]
pub(in crate::cuda) fn table() -> Vec<Kernel> {
    let variants: Vec<Kernel> = VARIANTS.iter().map(|variant| variant.kernel).collect();
    [&variants[..], &[STATES, COMBINE, MERGE]].concat()
}
