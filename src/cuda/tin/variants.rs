//! The kernels of TIN, and which ones a call uses.

use crate::cuda::kernel::Kernel;
use crate::cuda::target_attention::backward::variants::Variant as BackwardVariant;
use crate::cuda::target_attention::backward::variants::{STREAMED, STREAMED_WIDTH, ScoredBy};
use crate::cuda::target_attention::variants::{LOAD, Method, THREADS, Variant};
use crate::element::DType;
use crate::jagged::Batch;
use crate::plan::best_tile_rows;

/// Adds positions to candidates, and checks those that are given.
pub(super) const PREPARE: Kernel = Kernel::new("tin", "tin_prepare", 256, 20);
/// Combines the partial results of pieces.
pub(super) const COMBINE: Kernel = Kernel::new("tin", "tin_combine", 128, 32);
/// What softmax subtracts in each candidate.
pub(super) const STATES: Kernel = Kernel::new("tin_backward", "tin_states", 128, 34);
/// Counts the positions of behaviours.
pub(super) const COUNT: Kernel = Kernel::new("tin_backward", "tin_count_positions", 256, 16);
/// Completes the gradients of candidates.
pub(super) const TARGETS: Kernel = Kernel::new("tin_backward", "tin_target_gradient", 256, 16);
/// Adds the sums of some positions to those of all.
pub(super) const ADD: Kernel = Kernel::new("tin_backward", "tin_add_positions", 256, 16);
/// Stores the sums of positions in the gradient's type.
pub(super) const WRITE: Kernel = Kernel::new("tin_backward", "tin_write_positions", 256, 11);

/// Method, symbol, registers, chunk, tile rows, step. They take all storage types.
#[rustfmt::skip]
pub(in crate::cuda) static VARIANTS: [Variant; 12] = [
    row(Method::FmaVectors, "tin_fma_wide_64_rows_8", 104, 64, 8, 128),
    row(Method::FmaVectors, "tin_fma_wide_64_rows_32", 110, 64, 32, 64),
    row(Method::FmaVectors, "tin_fma_wide_128_rows_8", 111, 128, 8, 64),
    row(Method::FmaVectors, "tin_fma_wide_128_rows_32", 113, 128, 32, 32),
    row(Method::FmaScalars, "tin_fma_any_64_rows_8", 108, 64, 8, 128),
    row(Method::FmaScalars, "tin_fma_any_64_rows_32", 104, 64, 32, 64),
    row(Method::Stream, "tin_stream_32_rows_1", 98, 32, 1, 128),
    row(Method::Stream, "tin_stream_32_rows_4", 116, 32, 4, 64),
    row(Method::Stream, "tin_stream_64_rows_1", 98, 64, 1, 64),
    row(Method::Stream, "tin_stream_64_rows_4", 116, 64, 4, 32),
    row(Method::Stream, "tin_stream_128_rows_1", 110, 128, 1, 32),
    row(Method::Stream, "tin_stream_128_rows_4", 118, 128, 4, 16),
];

/// Symbol, registers, columns, tile rows, step, rows that a thread scores. Of those for the same width, the first that holds all
/// candidates of a user is taken, or the last.
#[rustfmt::skip]
pub(in crate::cuda) static BACKWARD_VARIANTS: [BackwardVariant; 8] = [
    by_threads("tin_backward_fma_64_rows_8", 141, [64, 8, 64, 2]),
    by_threads("tin_backward_fma_64_rows_32", 200, [64, 32, 64, 4]),
    by_threads("tin_backward_fma_128_rows_32", 200, [128, 32, 32, 4]),
    by_threads("tin_backward_fma_256_rows_16", 196, [256, 16, 16, 1]),
    by_lanes("tin_backward_stream_64_rows_1", 108, [64, 1, 64, 0]),
    by_lanes("tin_backward_stream_64_rows_4", 128, [64, 4, 64, 0]),
    by_lanes("tin_backward_stream_128_rows_1", 116, [128, 1, 64, 0]),
    by_lanes("tin_backward_stream_128_rows_4", 128, [128, 4, 64, 0]),
];

const fn row(
    method: Method,
    symbol: &'static str,
    registers: u32,
    chunk: usize,
    tile_rows: usize,
    step: usize,
) -> Variant {
    let file = if matches!(method, Method::Stream) { "tin_stream" } else { "tin_fma" };
    let kernel = Kernel::new(file, symbol, THREADS, registers);
    Variant { kernel, method, dtype: DType::F32, chunk, tile_rows, step }
}

const fn by_threads(symbol: &'static str, registers: u32, sizes: [usize; 4]) -> BackwardVariant {
    let kernel = Kernel::new("tin_backward_fma", symbol, THREADS, registers);
    BackwardVariant::new(kernel, ScoredBy::Threads, sizes)
}

const fn by_lanes(symbol: &'static str, registers: u32, sizes: [usize; 4]) -> BackwardVariant {
    let kernel = Kernel::new("tin_backward_stream", symbol, THREADS, registers);
    BackwardVariant::new(kernel, ScoredBy::Lanes, sizes)
}

/// The kernel that attends. `vectors`: rows are aligned to four numbers.
pub(super) fn choose(width: usize, batch: &Batch, vectors: bool) -> &'static Variant {
    let most = batch.targets().max_length();
    let (method, chunk) = if vectors && width <= STREAMED_WIDTH && most <= STREAMED {
        (Method::Stream, width.next_power_of_two().max(32))
    } else if vectors {
        (Method::FmaVectors, if width > 64 { 128 } else { 64 })
    } else {
        (Method::FmaScalars, 64)
    };
    let is_for = |row: &&Variant| (row.method, row.chunk) == (method, chunk);
    let sizes: Vec<usize> = VARIANTS.iter().filter(is_for).map(|row| row.tile_rows).collect();
    let tile_rows = match method {
        Method::Stream if most <= 1 => 1,
        Method::Stream => STREAMED,
        _ => best_tile_rows(batch, 1, &sizes, LOAD),
    };
    let mut rows = VARIANTS.iter().filter(is_for);
    rows.find(|row| row.tile_rows == tile_rows).expect("a row for every method, chunk and size")
}

/// The kernel that computes gradients of rows that are at most 256 wide. `vectors`: all rows are aligned to four numbers.
pub(super) fn choose_backward(width: usize, batch: &Batch, vectors: bool) -> &'static BackwardVariant {
    let most = batch.targets().max_length();
    let streams = vectors && width <= STREAMED_WIDTH && most <= STREAMED;
    let scored_by = if streams { ScoredBy::Lanes } else { ScoredBy::Threads };
    let columns = width.next_power_of_two().max(64);
    let is_for = |row: &&BackwardVariant| (row.scored_by(), row.columns) == (scored_by, columns);
    let last = BACKWARD_VARIANTS.iter().rfind(is_for).expect("a row for every width");
    BACKWARD_VARIANTS.iter().filter(is_for).find(|row| most <= row.tile_rows).unwrap_or(last)
}

/// All kernels of this stem.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    let variants = VARIANTS.iter().map(|variant| variant.kernel);
    let backward = BACKWARD_VARIANTS.iter().map(|variant| variant.kernel);
    let others = [PREPARE, COMBINE, STATES, COUNT, TARGETS, ADD, WRITE];
    variants.chain(backward).chain(others).collect()
}
