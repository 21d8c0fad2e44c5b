//! SDIM: the gradients of behaviours, gathered from those of their buckets.

use crate::cuda::batch::CudaJagged;
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::{ByType, Kernel};
use crate::cuda::memory::Region;
use crate::cuda::sdim::encode::Hashing;
use crate::cuda::sdim::shares::{MOST_WARPS, SHARED, WARP_COLUMNS, shared_bytes};
use crate::cuda::sdim::signatures::{Codes, Sizes, TILE_ROWS};
use crate::cuda::twin::twins;
use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::Sdim;
use crate::plan::{Cut, Pace};

/// Gathers the gradients of behaviours; the launch chooses the threads.
const GATHER: ByType = ByType([
    Kernel::new("sdim_gather", "sdim_gather_f32", 512, 96),
    Kernel::new("sdim_gather", "sdim_gather_f16", 512, 98),
    Kernel::new("sdim_gather", "sdim_gather_bf16", 512, 96),
]);
/// Behaviours per step of the plan where signatures are given: those that a block of the paper's sizes takes at a time.
const STEP: usize = 32;
/// What pieces cost, in cycles; a block that hashes splits the rotations first. Nothing is combined.
const PACE: Pace = Pace {
    resident: 1,
    step: 3000,
    row: 0,
    piece: 6000,
    combine: 0,
    slot: 0,
    fewest_steps: 1,
    shrinks: false,
};
/// Threads per block where signatures are given, and the fewest where rows are hashed.
const THREADS: usize = 256;

twins! {
    /// `kernels/sdim/gather.cu`
    pub(in crate::cuda) struct SdimGatherParams {
        pieces: u64,
        rows: u64,
        rotations: u64,
        codes: u64,
        grad_table: u64,
        out: u64,
        record: u64,
        weights: u64,
        width: u32,
        groups: u32,
        bits: u32,
        code_bytes: u32,
        narrow: u32,
        vectors: u32,
        row_vectors: u32,
        stages: u32,
    }
}

/// Bytes of shared memory per block that hashes, with so many tiles in flight.
fn shared<T: Element>(op: &Sdim, stages: usize) -> usize {
    shared_bytes::<T>(op.width.next_multiple_of(WARP_COLUMNS), op.groups, op.bits, stages, true)
}

/// Whether the kernel can hash rows as it goes.
pub(super) fn hashes<T: Element>(op: &Sdim) -> bool {
    op.width <= WARP_COLUMNS * MOST_WARPS && shared::<T>(op, 1) <= SHARED
}

/// Threads of a block that hashes: each row of a tile is copied by whole warps' worth of them.
fn threads(op: &Sdim) -> usize {
    let warps = op.width.div_ceil(WARP_COLUMNS);
    32 * warps * (THREADS / 32).div_ceil(warps)
}

/// Writes the gradients of behaviours, times their weights if they have any, from those of the tables of their users at `grad_table`.
pub(super) fn gather<T: Element, G: Element>(
    gpu: &Cuda,
    call: &Call<'_>,
    op: &Sdim,
    histories: &CudaJagged,
    (rows, hashing, weights): (Region<T>, Hashing, Option<Region<f32>>),
    grad_table: Region<f32>,
    out: Region<G>,
) -> Result<()> {
    let sizes = Sizes::of(call.operation, op)?;
    // The kernel counts the bytes of a row in 32 bits.
    fit(call.operation, "width", op.width.saturating_mul(size_of::<f32>()))?;
    let stages = if shared::<T>(op, 2) <= SHARED { 2 } else { 1 };
    let resident = match hashing {
        Hashing::Rotations(_) => gpu.resident(GATHER.of::<T>(), threads(op), shared::<T>(op, stages)),
        Hashing::Codes(_) => gpu.resident(GATHER.of::<T>(), THREADS, 0),
    };
    let cut = Cut {
        rows_per_target: 1,
        tile_rows: 1,
        // A block that hashes splits the rotations first, which pays off for more than a tile.
        step: if matches!(hashing, Hashing::Rotations(_)) { TILE_ROWS } else { STEP },
        longest: 1 << 30,
        pace: PACE.on(resident),
    };
    let plan = histories.per_user.plan(gpu, call.operation, &cut)?;
    let (rotations, codes) = match hashing {
        Hashing::Rotations(rotations) => (rotations, Codes::default()),
        Hashing::Codes(codes) => (0, codes),
    };
    let params = SdimGatherParams {
        pieces: plan.pieces.pointer(),
        rows: rows.pointer,
        rotations,
        codes: codes.pointer,
        grad_table: grad_table.pointer,
        out: out.pointer,
        record: codes.record,
        weights: weights.map_or(0, |weights| weights.pointer),
        width: sizes.width,
        groups: sizes.groups,
        bits: sizes.bits,
        code_bytes: codes.bytes,
        narrow: u32::from(T::DTYPE == G::DTYPE),
        vectors: grad_table.vectors(op.width, 16).into(),
        row_vectors: rows.vectors(op.width, 16).into(),
        stages: stages as u32,
    };
    let launch = GATHER.of::<T>().blocks(plan.plan.pieces.len());
    let launch = match hashing {
        Hashing::Rotations(_) => launch.with_threads(threads(op)).with_shared(shared::<T>(op, stages)),
        Hashing::Codes(_) => launch.with_threads(THREADS),
    };
    call.launch(&launch, &params)
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    GATHER.0.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_whole_rows_of_threads() {
        for width in 1..=256 {
            let threads = threads(&Sdim::new(width));
            assert!((THREADS..=512).contains(&threads), "{width}");
            assert!(threads.is_multiple_of(width.next_multiple_of(WARP_COLUMNS)), "{width}");
        }
    }

    #[test]
    fn the_sizes_of_the_paper_are_hashed_with_two_tiles_in_flight() {
        assert!(hashes::<f32>(&Sdim::new(64)) && shared::<f32>(&Sdim::new(64), 2) <= 80 << 10);
        assert!(!hashes::<f32>(&Sdim::new(257)) && !hashes::<f32>(&Sdim::new(256).with_groups(100, 4)));
    }
}
