//! The kernels of target attention's gradients, and which one a call uses.

use crate::cuda::kernel::Kernel;
use crate::jagged::Batch;
use crate::ops::TargetAttention;

const FILE: &str = "target_attention_backward";

/// What softmax subtracts in each query row.
pub(in crate::cuda) const STATES: Kernel = Kernel::new(FILE, "attention_states", 128, 37);
/// Adds what spans add to the gradients of queries.
pub(in crate::cuda) const COMBINE: Kernel = Kernel::new(FILE, "combine_queries", 128, 39);
/// The gradients of a merge.
pub(in crate::cuda) const MERGE: Kernel = Kernel::new(FILE, "merge_backward", 128, 29);
/// Rows per block of `STATES` and `MERGE`.
pub(super) const ROWS_PER_BLOCK: usize = 4;

/// The widest row that the kernels take.
pub(super) const MOST_WIDTH: usize = 256;
/// Rows that are padded by so many numbers.
const PADDING: usize = 4;

/// A kernel that computes gradients: a row of the table below.
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct Variant {
    pub(in crate::cuda) kernel: Kernel,
    /// Columns of the keys and values.
    pub(in crate::cuda) columns: usize,
    /// Query rows per tile.
    pub(in crate::cuda) tile_rows: usize,
    /// Behaviours per step.
    pub(in crate::cuda) step: usize,
    /// Rows that a thread scores; 0: the kernel keeps behaviours in registers.
    score_rows: usize,
}

/// The most query rows for the kernels that stream, and their widest row.
const STREAMED: (usize, usize) = (4, 128);

/// Symbol, registers, columns, tile rows, step, rows that a thread scores. Of those for the same width, the first that holds all rows
/// of a user is taken, or the last.
pub(in crate::cuda) static VARIANTS: [Variant; 9] = [
    row("backward_fma_32_rows_32", 158, [32, 32, 64, 4]),
    row("backward_fma_64_rows_8", 141, [64, 8, 64, 2]),
    row("backward_fma_64_rows_32", 196, [64, 32, 64, 4]),
    row("backward_fma_128_rows_32", 168, [128, 32, 32, 4]),
    row("backward_fma_256_rows_16", 167, [256, 16, 16, 1]),
    row("backward_stream_64_rows_1", 79, [64, 1, 64, 0]),
    row("backward_stream_64_rows_4", 122, [64, 4, 64, 0]),
    row("backward_stream_128_rows_1", 79, [128, 1, 64, 0]),
    row("backward_stream_128_rows_4", 122, [128, 4, 64, 0]),
];

const fn row(symbol: &'static str, registers: u32, sizes: [usize; 4]) -> Variant {
    let [columns, tile_rows, step, score_rows] = sizes;
    let file =
        if score_rows == 0 { "target_attention_backward_stream" } else { "target_attention_backward_fma" };
    let kernel = Kernel::new(file, symbol, 128, registers);
    Variant { kernel, columns, tile_rows, step, score_rows }
}

impl Variant {
    /// The variant for an operation on this batch, whose rows are at most [`MOST_WIDTH`] wide. `aligned`: all rows are aligned to
    /// four numbers.
    pub(super) fn choose(op: &TargetAttention, batch: &Batch, aligned: bool) -> &'static Self {
        let widest = op.width.max(op.value_width);
        let rows = batch.targets().max_length().saturating_mul(op.heads / op.kv_heads);
        let streams = aligned && rows <= STREAMED.0 && widest <= STREAMED.1;
        let narrowest = if streams { 64 } else { 32 };
        let columns = widest.next_power_of_two().max(narrowest);
        let is_for = |row: &&Self| row.columns == columns && row.is_streaming() == streams;
        let last = VARIANTS.iter().rfind(is_for).expect("a row for every width");
        VARIANTS.iter().filter(is_for).find(|row| rows <= row.tile_rows).unwrap_or(last)
    }

    /// Whether the kernel keeps behaviours in registers.
    pub(super) fn is_streaming(&self) -> bool {
        self.score_rows == 0
    }

    /// The most behaviours of a span, so that no chain of additions is much longer than a thousand.
    pub(super) fn longest(&self) -> usize {
        // Eight or four behaviours at a time are added to sums of their own.
        if self.is_streaming() { 1 << 12 } else { 1 << 10 }
    }

    /// Bytes of dynamic shared memory per block. `aliased`: the keys are the values. The kernel's own layout, which
    /// `contracts/` compares with this, is exported as `<symbol>_layout`.
    pub(in crate::cuda) fn dynamic_shared(&self, aliased: bool) -> usize {
        let Self { columns, tile_rows, step, score_rows, .. } = *self;
        if self.is_streaming() {
            return 0;
        }
        let (pitch, weight_pitch) = (columns + PADDING, tile_rows + PADDING);
        let history = if aliased { 1 } else { 2 } * step * pitch;
        let floats = history + 2 * tile_rows * pitch + 2 * step * weight_pitch + 4 * tile_rows;
        floats * size_of::<f32>() + step * tile_rows / score_rows
    }
}

/// All kernels of the gradients.
#[cfg(test)]
pub(in crate::cuda) fn table() -> Vec<Kernel> {
    let variants: Vec<Kernel> = VARIANTS.iter().map(|variant| variant.kernel).collect();
    [&variants[..], &[STATES, COMBINE, MERGE]].concat()
}
