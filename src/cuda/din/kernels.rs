//! The kernels of DIN's backward pass, and what they take.

use crate::cuda::kernel::{ByType, Kernel};
use crate::cuda::twin::twins;

/// Threads per block, of kernels in which a warp is a block, and of the others.
const WARP: u32 = 32;
pub(super) const THREADS: u32 = 128;
/// Rows that a thread adds up: `ROWS_PER_SUM` in `kernels/din/backward.cuh`.
pub(super) const ROWS_PER_SUM: usize = 64;
/// Columns of a block of `din_backward_history`.
pub(super) const COLUMNS: usize = 32;

/// Lays out a layer.
pub(super) const FOLD: ByType = ByType([
    Kernel::new("din_backward", "din_backward_fold_f32", THREADS, 30),
    Kernel::new("din_backward", "din_backward_fold_f16", THREADS, 29),
    Kernel::new("din_backward", "din_backward_fold_bf16", THREADS, 28),
]);
/// Prepares candidates.
pub(super) const CANDIDATES: ByType = ByType([
    Kernel::new("din_backward", "din_backward_candidates_f32", THREADS, 32),
    Kernel::new("din_backward", "din_backward_candidates_f16", THREADS, 32),
    Kernel::new("din_backward", "din_backward_candidates_bf16", THREADS, 32),
]);
/// Writes gradients and statistics of the network.
pub(super) const WRITE: ByType = ByType([
    Kernel::new("din_backward", "din_backward_write_f32", THREADS, 31),
    Kernel::new("din_backward", "din_backward_write_f16", THREADS, 31),
    Kernel::new("din_backward", "din_backward_write_bf16", THREADS, 31),
]);
/// Softmax states of runs, then of candidates.
pub(super) const RUN_STATES: Kernel = Kernel::new("din_backward", "din_backward_run_states", THREADS, 34);
pub(super) const STATES: Kernel = Kernel::new("din_backward", "din_backward_states", THREADS, 32);
/// Merges statistics.
pub(super) const MOMENTS: Kernel = Kernel::new("din_backward", "din_backward_moments", THREADS, 47);
pub(super) const CLEAR: Kernel = Kernel::new("din_backward", "din_backward_clear", THREADS, 8);
/// Prepares behaviours.
pub(super) const BEHAVIOURS: ByType = ByType([
    Kernel::new("din_backward_pairs", "din_backward_behaviours_f32", WARP, 78),
    Kernel::new("din_backward_pairs", "din_backward_behaviours_f16", WARP, 72),
    Kernel::new("din_backward_pairs", "din_backward_behaviours_bf16", WARP, 64),
]);
/// Computes the network for the pairs of a part.
pub(super) const PAIRS: ByType = ByType([
    Kernel::new("din_backward_pairs", "din_backward_pairs_f32", WARP, 118),
    Kernel::new("din_backward_pairs", "din_backward_pairs_f16", WARP, 120),
    Kernel::new("din_backward_pairs", "din_backward_pairs_bf16", WARP, 118),
]);
/// The gradients of the weights of the first layer, and of others.
pub(super) const FIRST: ByType = ByType([
    Kernel::new("din_backward_sums", "din_backward_first_f32", WARP, 194),
    Kernel::new("din_backward_sums", "din_backward_first_f16", WARP, 190),
    Kernel::new("din_backward_sums", "din_backward_first_bf16", WARP, 200),
]);
pub(super) const OUTER: ByType = ByType([
    Kernel::new("din_backward_sums", "din_backward_outer_f32", WARP, 118),
    Kernel::new("din_backward_sums", "din_backward_outer_f16", WARP, 118),
    Kernel::new("din_backward_sums", "din_backward_outer_bf16", WARP, 118),
]);
/// The gradients of behaviours.
pub(super) const HISTORY: ByType = ByType([
    Kernel::new("din_backward_sums", "din_backward_history_f32", WARP, 116),
    Kernel::new("din_backward_sums", "din_backward_history_f16", WARP, 108),
    Kernel::new("din_backward_sums", "din_backward_history_bf16", WARP, 96),
]);
/// The gradients of candidates.
pub(super) const TARGETS: Kernel = Kernel::new("din_backward_sums", "din_backward_targets", THREADS, 32);
pub(super) const SUMS: Kernel = Kernel::new("din_backward_sums", "din_backward_sums", THREADS, 32);

twins! {
    /// `kernels/din/backward.cuh`
    #[derive(Default)]
    pub(in crate::cuda) struct DinBackwardLayer {
        pub(in crate::cuda::din) units: u32,
        pub(in crate::cuda::din) units4: u32,
        pub(in crate::cuda::din) activation: u32,
        pub(in crate::cuda::din) alpha_shared: u32,
        pub(in crate::cuda::din) vectors: u32,
        pub(in crate::cuda::din) sums: u32,
        pub(in crate::cuda::din) forward: u32,
        pub(in crate::cuda::din) back: u32,
        pub(in crate::cuda::din) before: u32,
        pub(in crate::cuda::din) grads: u32,
        pub(in crate::cuda::din) inputs: u32,
    }

    /// `kernels/din/backward.cuh`
    #[derive(Default)]
    pub(in crate::cuda) struct DinBackwardParams {
        pub(in crate::cuda::din) weights: [u64; 3],
        pub(in crate::cuda::din) biases: [u64; 3],
        pub(in crate::cuda::din) gains: [u64; 3],
        pub(in crate::cuda::din) shifts: [u64; 3],
        pub(in crate::cuda::din) alphas: [u64; 3],
        pub(in crate::cuda::din) output_weight: u64,
        pub(in crate::cuda::din) output_bias: u64,
        pub(in crate::cuda::din) network: u64,
        pub(in crate::cuda::din) states: u64,
        pub(in crate::cuda::din) target_totals: u64,
        pub(in crate::cuda::din) pieces: u64,
        pub(in crate::cuda::din) users: u64,
        pub(in crate::cuda::din) history: u64,
        pub(in crate::cuda::din) targets: u64,
        pub(in crate::cuda::din) grad_out: u64,
        pub(in crate::cuda::din) candidates: u64,
        pub(in crate::cuda::din) blocks: u64,
        pub(in crate::cuda::din) work: u64,
        pub(in crate::cuda::din) scratch: u64,
        pub(in crate::cuda::din) pair_numbers: u64,
        pub(in crate::cuda::din) tile_sums: u64,
        pub(in crate::cuda::din) run_states: u64,
        pub(in crate::cuda::din) target_parts: u64,
        pub(in crate::cuda::din) weight_parts: u64,
        pub(in crate::cuda::din) carried: u64,
        pub(in crate::cuda::din) from: u64,
        pub(in crate::cuda::din) to: u64,
        pub(in crate::cuda::din) threads: u64,
        pub(in crate::cuda::din) layers: [DinBackwardLayer; 3],
        pub(in crate::cuda::din) first_weights: u32,
        pub(in crate::cuda::din) difference: u32,
        pub(in crate::cuda::din) difference_back: u32,
        pub(in crate::cuda::din) tile: u32,
        pub(in crate::cuda::din) scratch_size: u32,
        pub(in crate::cuda::din) inputs_place: u32,
        pub(in crate::cuda::din) others_place: u32,
        pub(in crate::cuda::din) block: u32,
        pub(in crate::cuda::din) block_parts: u32,
        pub(in crate::cuda::din) block_turned: u32,
        pub(in crate::cuda::din) block_terms: u32,
        pub(in crate::cuda::din) layer_count: u32,
        pub(in crate::cuda::din) deepest: u32,
        pub(in crate::cuda::din) width: u32,
        pub(in crate::cuda::din) width4: u32,
        pub(in crate::cuda::din) tile_sums_stride: u32,
        pub(in crate::cuda::din) output_sums: u32,
        pub(in crate::cuda::din) output_bias_place: u32,
        pub(in crate::cuda::din) candidate: u32,
        pub(in crate::cuda::din) softmax: u32,
        pub(in crate::cuda::din) mode: u32,
        pub(in crate::cuda::din) layer: u32,
        pub(in crate::cuda::din) piece_count: u32,
        pub(in crate::cuda::din) user_count: u32,
        pub(in crate::cuda::din) items: u32,
        pub(in crate::cuda::din) per_split: u32,
        pub(in crate::cuda::din) unit_groups: u32,
        pub(in crate::cuda::din) input_groups: u32,
        pub(in crate::cuda::din) rows: u32,
        pub(in crate::cuda::din) stride: u32,
        pub(in crate::cuda::din) adds: u32,
        pub(in crate::cuda::din) keeps: u32,
        pub(in crate::cuda::din) narrow: u32,
        pub(in crate::cuda::din) wants_targets: u32,
        pub(in crate::cuda::din) before: f32,
    }
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    let alone = [RUN_STATES, STATES, MOMENTS, CLEAR, TARGETS, SUMS];
    let by_type = [&FOLD, &CANDIDATES, &WRITE, &BEHAVIOURS, &PAIRS, &FIRST, &OUTER, &HISTORY];
    by_type.iter().flat_map(|kernels| kernels.0).chain(alone).collect()
}
