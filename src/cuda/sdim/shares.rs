//! How many warps and blocks fill a bucket table.

use crate::cuda::sdim::signatures::TILE_ROWS;
use crate::element::Element;
use crate::ops::Sdim;

/// A warp's share of a table in `kernels/sdim/encode.cu`, and the most warps per block.
const WARP_BUCKETS: usize = 64;
pub(super) const WARP_COLUMNS: usize = 16;
pub(super) const MOST_WARPS: usize = 16;
/// Shared memory that a block may have on every device from Ampere on, less what the driver reserves.
pub(super) const SHARED: usize = 96 << 10;

/// How a table is divided among the warps of a block, and among blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) bucket_warps: usize,
    pub(super) column_warps: usize,
    pub(super) bucket_blocks: usize,
    pub(super) column_blocks: usize,
}

impl Shares {
    /// For given signatures: as many buckets per block as possible, because each block of further buckets reads the rows
    /// again; then as many columns.
    pub(super) fn of_given(op: &Sdim) -> Self {
        let buckets = (op.groups * op.buckets()).div_ceil(WARP_BUCKETS);
        let columns = op.width.div_ceil(WARP_COLUMNS);
        let bucket_blocks = buckets.div_ceil(MOST_WARPS);
        let bucket_warps = buckets.div_ceil(bucket_blocks);
        let column_blocks = columns.div_ceil(MOST_WARPS / bucket_warps);
        let column_warps = columns.div_ceil(column_blocks);
        Self { bucket_warps, column_warps, bucket_blocks, column_blocks }
    }

    /// For rows that are hashed as they are read: all columns, and as many groups per block as possible. `None` if not
    /// even one group fits, or not the shared memory.
    pub(super) fn of_hashed<T: Element>(op: &Sdim) -> Option<Self> {
        let buckets = (op.groups * op.buckets()).div_ceil(WARP_BUCKETS);
        let columns = op.width.div_ceil(WARP_COLUMNS);
        if columns > MOST_WARPS {
            return None;
        }
        let bucket_blocks = buckets.div_ceil(MOST_WARPS / columns);
        let bucket_warps = buckets.div_ceil(bucket_blocks);
        let shares = Self { bucket_warps, column_warps: columns, bucket_blocks, column_blocks: 1 };
        (shares.shared::<T>(op, 1, true) <= SHARED).then_some(shares)
    }

    pub(super) fn blocks(&self) -> usize {
        self.bucket_blocks * self.column_blocks
    }

    pub(super) fn threads(&self) -> usize {
        32 * self.bucket_warps * self.column_warps
    }

    /// Tiles in flight, as many as shared memory has space for.
    pub(super) fn stages<T: Element>(&self, op: &Sdim, hashing: bool) -> usize {
        if self.shared::<T>(op, 2, hashing) <= SHARED { 2 } else { 1 }
    }

    /// Bytes of shared memory per block with so many tiles in flight.
    pub(super) fn shared<T: Element>(&self, op: &Sdim, stages: usize, hashing: bool) -> usize {
        // The buckets of a warp are those of whole groups.
        let groups = (self.bucket_warps * WARP_BUCKETS / op.buckets()).min(op.groups);
        shared_bytes::<T>(self.column_warps * WARP_COLUMNS, groups, op.bits, stages, hashing)
    }
}

/// Bytes of shared memory per block, an upper bound of `shared_bytes` in `kernels/sdim/encode.cu` and `gather.cu`.
pub(in crate::cuda) fn shared_bytes<T: Element>(
    columns: usize,
    groups: usize,
    bits: usize,
    stages: usize,
    hashing: bool,
) -> usize {
    let tile = TILE_ROWS * (columns * size_of::<T>() + 16);
    let codes = (groups * (TILE_ROWS + 8) * 2 + groups / 8 * 8).next_multiple_of(16);
    // Two parts; the padding between two bits is at most 31 words.
    let rotations = 2 * bits * (groups * (columns + 8) * 2 + 31 * 4);
    stages * tile + codes + if hashing { rotations } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::f16;

    const SHAPES: [(usize, usize, usize); 9] = [
        (64, 16, 3),
        (128, 16, 3),
        (128, 32, 3),
        (256, 100, 4),
        (1, 1, 1),
        (300, 3, 6),
        (7, 100, 6),
        (48, 1000, 1),
        (5000, 1, 1),
    ];

    fn covers(shares: &Shares, op: &Sdim) -> bool {
        shares.bucket_warps * shares.bucket_blocks * WARP_BUCKETS >= op.groups << op.bits
            && shares.column_warps * shares.column_blocks * WARP_COLUMNS >= op.width
            && shares.threads() <= 32 * MOST_WARPS
    }

    #[test]
    fn shares_cover_the_table_and_fit_a_block() {
        for (width, groups, bits) in SHAPES {
            let op = Sdim::new(width).with_groups(groups, bits);
            let shares = Shares::of_given(&op);
            assert!(covers(&shares, &op) && shares.shared::<f32>(&op, 1, false) <= SHARED, "{op:?}");
            for shares in [Shares::of_hashed::<f32>(&op), Shares::of_hashed::<f16>(&op)].into_iter().flatten()
            {
                assert!(covers(&shares, &op) && shares.column_blocks == 1, "{op:?}");
            }
        }
    }

    #[test]
    fn rows_of_up_to_256_numbers_are_hashed_as_they_are_read() {
        for (width, groups, bits) in SHAPES {
            let op = Sdim::new(width).with_groups(groups, bits);
            let one_pass = Shares::of_hashed::<f32>(&op).is_some() && Shares::of_hashed::<f16>(&op).is_some();
            assert_eq!(one_pass, width <= 256, "{op:?}");
        }
        // The paper's sizes: one block, small enough for two per multiprocessor.
        let op = Sdim::new(64);
        let shares = Shares::of_hashed::<f32>(&op).expect("room");
        assert!(shares.blocks() == 1 && shares.shared::<f32>(&op, 2, true) <= 80 << 10);
    }
}
