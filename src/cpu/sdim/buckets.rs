//! Which sum a bucket has: a table has one for each, and without a table only the buckets that candidates read have one.

use crate::ops::Sdim;

/// The row of a bucket that has no sum.
pub(super) const NO_ROW: usize = usize::MAX;

/// The mapping from a user's buckets to its sums.
pub(super) trait BucketRows: Sync {
    /// The row of the bucket's sum, or [`NO_ROW`] if no candidate reads the bucket.
    fn sum_row(&self, group: usize, signature: u32) -> usize;

    /// The rows of the sums of signatures `[n, G]`.
    #[inline(always)]
    fn sum_rows(&self, groups: usize, signatures: &[u32], rows: &mut Vec<usize>) {
        rows.resize(signatures.len(), 0);
        for (rows, signatures) in rows.chunks_exact_mut(groups).zip(signatures.chunks_exact(groups)) {
            for (group, (row, &signature)) in rows.iter_mut().zip(signatures).enumerate() {
                *row = self.sum_row(group, signature);
            }
        }
    }
}

/// Every bucket has a sum: a table `[G, 2^τ, d]`.
pub(super) struct EveryBucket {
    pub(super) buckets: usize,
}

impl BucketRows for EveryBucket {
    #[inline(always)]
    fn sum_row(&self, group: usize, signature: u32) -> usize {
        group * self.buckets + signature as usize
    }
}

/// The buckets that some candidates read: one open-addressing hash table per group, from a signature to its sum. If that
/// would be larger than the number of buckets, it is a direct-mapped table of all buckets.
pub(super) struct WantedBuckets {
    /// `[G, capacity]`: a signature and the row of its sum; the row of an empty entry is [`FREE`](Self::FREE).
    entries: Vec<(u32, u32)>,
    /// A power of two; 0 without candidates.
    capacity: usize,
    /// Whether every signature has an entry of its own.
    is_direct: bool,
    count: usize,
}

impl WantedBuckets {
    const FREE: u32 = u32::MAX;

    /// The buckets of the candidates' signatures `[n, G]`.
    pub(super) fn new(op: &Sdim, signatures: &[u32]) -> Self {
        // At most half full, unless it is direct-mapped. Without candidates there is no entry: groups may be any number then.
        let most = 2 * signatures.len() / op.groups;
        let capacity = if most == 0 { 0 } else { op.buckets().min(most.next_power_of_two()) };
        let (entries, is_direct) = (vec![(0, Self::FREE); op.groups * capacity], capacity == op.buckets());
        let mut wanted = Self { entries, capacity, is_direct, count: 0 };
        for signatures in signatures.chunks_exact(op.groups) {
            for (group, &signature) in signatures.iter().enumerate() {
                let entry = wanted.find(group, signature);
                if wanted.entries[entry].1 == Self::FREE {
                    wanted.entries[entry] = (signature, wanted.count as u32);
                    wanted.count += 1;
                }
            }
        }
        wanted
    }

    /// The number of sums.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The entry of a signature, or the empty entry where it would be inserted.
    #[inline(always)]
    fn find(&self, group: usize, signature: u32) -> usize {
        // Not a remainder: a division takes as long as adding a row.
        let mask = self.capacity - 1;
        let mut probe = signature as usize & mask;
        loop {
            let (stored, row) = self.entries[group * self.capacity + probe];
            if row == Self::FREE || stored == signature {
                return group * self.capacity + probe;
            }
            probe = (probe + 1) & mask;
        }
    }
}

impl BucketRows for &WantedBuckets {
    #[inline(always)]
    fn sum_row(&self, group: usize, signature: u32) -> usize {
        if self.count == 0 {
            return NO_ROW;
        }
        let entry = match self.is_direct {
            true => group * self.capacity + signature as usize,
            false => self.find(group, signature),
        };
        let (_, row) = self.entries[entry];
        if row == WantedBuckets::FREE { NO_ROW } else { row as usize }
    }
}
