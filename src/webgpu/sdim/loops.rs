//! What a thread's loops can go over: some devices end longer ones early, without a word.

use crate::error::Result;
use crate::jagged::Jagged;
use crate::ops::Sdim;
use crate::webgpu::launch::{MOST_ITERATIONS, check_loops, check_width};

/// Rows that sdim/signatures.wgsl hashes, four rotations and four numbers at a time.
pub(super) fn check_hashed(operation: &'static str, op: &Sdim) -> Result<()> {
    check_width(operation, op.width, 4 * (MOST_ITERATIONS / op.bits.div_ceil(4).max(1)))
}

/// Bucket rows that sdim/query.wgsl reads, 64 at a time: it goes over a row twice for its norm,
/// once of them in parts, and then over the 64.
pub(super) fn check_read(operation: &'static str, op: &Sdim) -> Result<()> {
    let besides = 68;
    check_loops(operation, "groups", op.groups, MOST_ITERATIONS / (besides + 2) * 64)?;
    if !op.normalise {
        return Ok(());
    }
    let of_64 = MOST_ITERATIONS / op.groups.div_ceil(64).max(1);
    check_width(operation, op.width, (of_64 - besides) / 3 + 1)
}

/// Buckets of a behaviour, whose gradients sdim/gather.wgsl adds up.
pub(super) fn check_gathered(operation: &'static str, op: &Sdim) -> Result<()> {
    check_loops(operation, "groups", op.groups, MOST_ITERATIONS)
}

/// Candidates of a user, among which `lanes` threads of sdim/bucket_gradients.wgsl look for one that reads a bucket.
pub(super) fn check_candidates(operation: &'static str, targets: &Jagged, lanes: u32) -> Result<()> {
    let most = targets.ranges().map(|range| range.len()).max().unwrap_or(0);
    check_loops(operation, "targets", most, MOST_ITERATIONS * lanes as usize)
}
