//! The kernels of `kernels/decoupled/all_pairs.cu` and `kernels/decoupled/all_sums.cu`, and what they take.

use crate::cuda::kernel::Kernel;
use crate::cuda::twin::twins;

const PAIRS_FILE: &str = "decoupled_all_pairs";
const SUMS_FILE: &str = "decoupled_all_sums";
/// The softmax of each tile.
pub(super) const STATES: Kernel = Kernel::new(PAIRS_FILE, "decoupled_all_states", 128, 56);
/// Adds the states of spans to those of candidates.
pub(super) const MERGE_STATES: Kernel = Kernel::new(PAIRS_FILE, "decoupled_merge_states", 32, 45);
/// Weights and gradients of scores.
pub(super) const PAIRS: Kernel = Kernel::new(PAIRS_FILE, "decoupled_all_pairs", 128, 64);
/// Sums over candidates.
pub(super) const BEHAVIOURS: Kernel = Kernel::new(SUMS_FILE, "decoupled_all_behaviours", 128, 64);
/// Sums over the behaviours of a span.
pub(super) const CANDIDATES: Kernel = Kernel::new(SUMS_FILE, "decoupled_all_candidates", 128, 48);
/// Adds the sums of spans to the candidates' rows.
pub(super) const MERGE_SUMS: Kernel = Kernel::new(SUMS_FILE, "decoupled_merge_sums", 128, 32);
/// The ids of what is kept.
pub(super) const IDS: Kernel = Kernel::new(SUMS_FILE, "decoupled_all_ids", 128, 20);
/// Scales columns of rows.
pub(super) const SCALE: Kernel = Kernel::new(SUMS_FILE, "decoupled_scale", 128, 16);
/// Adds rows to those of the same id, or clears.
pub(super) const ADD_ROWS: Kernel = Kernel::new(SUMS_FILE, "decoupled_add_rows", 128, 20);

twins! {
    /// `kernels/decoupled/all_pairs.cu`
    pub(in crate::cuda) struct DecoupledPairsParams {
        pub(super) spans: u64,
        pub(super) tiles: u64,
        pub(super) queries: u64,
        pub(super) grads: u64,
        pub(super) keys: u64,
        pub(super) values: u64,
        pub(super) states: u64,
        pub(super) partial: u64,
        pub(super) kept: u64,
        pub(super) weights: u64,
        pub(super) score_grads: u64,
        pub(super) attention_width: u32,
        pub(super) representation_width: u32,
        pub(super) factor: f32,
        pub(super) unused: u32,
    }

    /// `kernels/decoupled/all_pairs.cu`
    pub(in crate::cuda) struct DecoupledMergeStatesParams {
        pub(super) merges: u64,
        pub(super) partial: u64,
        pub(super) states: u64,
    }

    /// `kernels/decoupled/all_sums.cu`
    pub(in crate::cuda) struct DecoupledPairSumsParams {
        pub(super) spans: u64,
        pub(super) tiles: u64,
        pub(super) factors: u64,
        pub(super) weights: u64,
        pub(super) rows: u64,
        pub(super) out: u64,
        pub(super) width: u32,
        pub(super) column_blocks: u32,
    }

    /// `kernels/decoupled/all_sums.cu`
    pub(in crate::cuda) struct DecoupledMergeSumsParams {
        pub(super) merges: u64,
        pub(super) partial: u64,
        pub(super) out: u64,
        pub(super) width: u32,
        pub(super) blocks: u32,
    }

    /// `kernels/decoupled/all_sums.cu`
    pub(in crate::cuda) struct DecoupledAllIdsParams {
        pub(super) kept: u64,
        pub(super) states: u64,
        pub(super) ids: u64,
        pub(super) target_ids: u64,
        pub(super) behaviour_ids: u64,
        pub(super) candidate_ids: u64,
        pub(super) behaviours: u64,
        pub(super) candidates: u64,
        pub(super) features: u32,
        pub(super) unused: u32,
    }

    /// `kernels/decoupled/all_sums.cu`
    pub(in crate::cuda) struct DecoupledScaleParams {
        pub(super) data: u64,
        pub(super) factors: u64,
        pub(super) items: u64,
        pub(super) row_width: u32,
        pub(super) first_column: u32,
        pub(super) width: u32,
        pub(super) scale: f32,
    }

    /// `kernels/decoupled/all_sums.cu`
    pub(in crate::cuda) struct DecoupledAddRowsParams {
        pub(super) rows: u64,
        pub(super) ids: u64,
        pub(super) count: u64,
        pub(super) out: u64,
        pub(super) out_ids: u64,
        pub(super) out_count: u64,
        pub(super) items: u64,
        pub(super) width: u32,
        pub(super) unused: u32,
    }
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    vec![STATES, MERGE_STATES, PAIRS, BEHAVIOURS, CANDIDATES, MERGE_SUMS, IDS, SCALE, ADD_ROWS]
}
