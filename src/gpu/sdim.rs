//! How the backward pass of SDIM's `attend` is cut, so that its memory is bounded on any device.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::error::Result;
use crate::gpu::sync::lock;
use crate::jagged::{Batch, Jagged};
use crate::ops::Sdim;

/// The parts in which the gradients of a batch are computed, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AttendCut {
    /// Through tables of sums and of their gradients; otherwise through the sums that each candidate reads.
    pub(crate) by_tables: bool,
    /// The users of each part.
    pub(crate) users: Vec<Range<usize>>,
}

impl AttendCut {
    /// Parts that take at most `most` bytes each, but for single users that take more: `hashed` bytes for the signatures of a behaviour and
    /// of a candidate, and what follows.
    ///
    /// Without tables, every behaviour is compared with every candidate, and each candidate has a row per group. Tables cost a
    /// pass over all their buckets, whether candidates read them or not. They are taken where that is less, and a table fits, or is
    /// no larger than the rows of some user's candidates.
    pub(crate) fn new(op: &Sdim, batch: &Batch, most: usize, hashed: [usize; 2]) -> Self {
        let row = op.width.saturating_mul(size_of::<f32>());
        // The table and its gradient.
        let tables = op.groups.saturating_mul(op.buckets()).saturating_mul(row).saturating_mul(2);
        let (histories, targets) = (batch.histories(), batch.targets());
        let buckets = op.buckets().saturating_mul(batch.users()).saturating_mul(op.width);
        let rows = histories.total_length().saturating_add(targets.total()).saturating_mul(op.width);
        let pairs = usize::try_from(batch.pairs()).unwrap_or(usize::MAX);
        let of_candidates = |count: usize| count.saturating_mul(op.groups).saturating_mul(row);
        let fits = tables <= most.max(of_candidates(targets.max_length()));
        let by_tables = fits && buckets <= pairs.saturating_add(rows);
        let bytes = |user: usize| {
            let [own_rows, own_targets] = [histories, targets].map(|side| side.range(user).len());
            let codes =
                own_rows.saturating_mul(hashed[0]).saturating_add(own_targets.saturating_mul(hashed[1]));
            codes.saturating_add(if by_tables { tables } else { of_candidates(own_targets) })
        };
        // The rows of a part are hashed with those between them.
        let joins = histories.offsets().is_some() || hashed[0] == 0;
        let (mut users, mut taken) = (Vec::<Range<usize>>::new(), 0usize);
        for user in 0..batch.users() {
            let needed = bytes(user);
            match users.last_mut() {
                Some(part) if joins && taken.saturating_add(needed) <= most => {
                    part.end = user + 1;
                    taken += needed;
                }
                _ => {
                    users.push(user..user + 1);
                    taken = needed;
                }
            }
        }
        Self { by_tables, users }
    }
}

/// Some users of a batch, with the rows in the whole that theirs are among.
#[derive(Debug)]
pub(crate) struct UserRows {
    pub(crate) histories: Range<usize>,
    pub(crate) targets: Range<usize>,
    pub(crate) batch: Batch,
}

impl UserRows {
    pub(crate) fn new(batch: &Batch, users: &Range<usize>) -> Result<Self> {
        let [(histories, own_histories), (targets, own_targets)] =
            [batch.histories(), batch.targets()].map(|side| part_of(side, users));
        Ok(Self { histories, targets, batch: Batch::new(own_histories, own_targets)? })
    }
}

/// The rows that those of some users are among, and where the users' rows are in them.
fn part_of(jagged: &Jagged, users: &Range<usize>) -> (Range<usize>, Jagged) {
    let all = || users.clone().map(move |user| jagged.range(user));
    let ranges = || all().filter(|range| !range.is_empty());
    let start = ranges().map(|range| range.start).min().unwrap_or(jagged.range(users.start).start);
    let end = ranges().map(|range| range.end).max().unwrap_or(start);
    let own = all().map(|range| match range.is_empty() {
        true => 0..0,
        false => range.start - start..range.end - start,
    });
    (start..end, Jagged::from_ranges(own.collect(), end - start))
}

/// The parts of a batch by cut, as the device keeps them. None is given up: a captured graph may read it.
#[derive(Debug)]
pub(crate) struct PartCache<P>(Mutex<HashMap<AttendCut, Arc<Vec<P>>>>);

impl<P> Default for PartCache<P> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<P> PartCache<P> {
    /// The parts of this cut of `batch`, made at its first use.
    pub(crate) fn get_or_make(
        &self,
        batch: &Batch,
        cut: &AttendCut,
        make: impl Fn(UserRows) -> Result<P>,
    ) -> Result<Arc<Vec<P>>> {
        if let Some(parts) = lock(&self.0).get(cut) {
            return Ok(parts.clone());
        }
        let part = |users| make(UserRows::new(batch, users)?);
        let parts = Arc::new(cut.users.iter().map(part).collect::<Result<Vec<P>>>()?);
        Ok(lock(&self.0).entry(cut.clone()).or_insert(parts).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(histories: &[usize], targets: &[usize]) -> Batch {
        Batch::new(Jagged::from_lengths(histories).unwrap(), Jagged::from_lengths(targets).unwrap()).unwrap()
    }

    #[test]
    fn parts_cover_all_users_within_memory() {
        let op = Sdim::new(64);
        let batch = batch(&[1000, 0, 50, 2000, 7], &[3, 1, 0, 9, 2]);
        let table = 2 * 16 * 8 * 64 * 4;
        for (most, parts) in [(5 * table, 1), (2 * table, 3), (table, 5)] {
            let cut = AttendCut::new(&op, &batch, most, [0, 0]);
            assert!(cut.by_tables && cut.users.len() == parts, "{cut:?}");
            assert_eq!(cut.users.iter().cloned().flatten().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        }
        // Not even one table fits, nor all candidates.
        let cut = AttendCut::new(&op, &batch, 40_000, [0, 0]);
        assert_eq!((cut.by_tables, cut.users), (false, vec![0..3, 3..4, 4..5]));
        // Signatures count, too.
        let cut = AttendCut::new(&op, &batch, 5 * table, [64, 64]);
        assert_eq!(cut.users, [0..3, 3..5]);
    }

    #[test]
    fn large_tables_of_short_histories_are_not_filled() {
        let op = Sdim::new(8).with_groups(1, 12);
        assert!(!AttendCut::new(&op, &batch(&[70, 3], &[4, 18]), 1 << 26, [0, 0]).by_tables);
        assert!(AttendCut::new(&op, &batch(&[70_000, 3], &[4, 18]), 1 << 26, [0, 0]).by_tables);
    }

    #[test]
    fn parts_keep_the_rows_of_their_users() {
        let whole = batch(&[10, 0, 5, 2], &[3, 1, 0, 4]);
        let part = UserRows::new(&whole, &(1..3)).unwrap();
        assert_eq!((part.histories, part.targets), (10..15, 3..4));
        assert_eq!((part.batch.histories().total(), part.batch.targets().total()), (5, 1));
        assert_eq!(part.batch.histories().offsets(), Some(&[0, 0, 5][..]));
    }

    #[test]
    fn parts_keep_sub_ranges() {
        let histories = Jagged::from_starts(&[90, 40, 0, 50], &[5, 6, 0, 3], 100).unwrap();
        let whole = Batch::new(histories, Jagged::from_lengths(&[3, 1, 0, 4]).unwrap()).unwrap();
        let part = UserRows::new(&whole, &(1..4)).unwrap();
        assert_eq!((part.histories, part.targets), (40..53, 3..8));
        let ranges: Vec<Range<usize>> = part.batch.histories().ranges().collect();
        assert_eq!(ranges, [0..6, 6..6, 10..13]);
    }
}
