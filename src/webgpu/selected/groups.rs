//! Candidates that are computed together: as many as the device's bindings and the memory between two passes allow.

use std::ops::Range;

use crate::jagged::Batch;

/// Bytes of what a group's passes leave for one another.
const GROUP_BYTES: u64 = 64 << 20;

/// Candidates, and the behaviours of their users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::webgpu) struct Group {
    pub(in crate::webgpu) targets: Range<usize>,
    pub(in crate::webgpu) history: Range<usize>,
}

/// What a group may have.
#[derive(Debug, Clone, Copy)]
pub(in crate::webgpu) struct Limits {
    /// Behaviours that are bound at a time.
    pub(in crate::webgpu) rows: usize,
    pub(in crate::webgpu) candidates: usize,
    /// A user's candidates are not divided, and users without candidates are in a group too.
    pub(in crate::webgpu) whole_users: bool,
}

impl Limits {
    /// For candidates of which each has at most so many bytes in one binding.
    pub(in crate::webgpu) fn new(
        rows: usize,
        candidate_bytes: usize,
        largest_binding: u64,
        whole_users: bool,
    ) -> Self {
        let bytes = GROUP_BYTES.min(largest_binding / 2) as usize;
        Self { rows, candidates: (bytes / candidate_bytes.max(1)).max(1), whole_users }
    }

    /// Divides a batch. A user alone may exceed the limits.
    pub(in crate::webgpu) fn groups(&self, batch: &Batch) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for (history, targets) in batch.requests() {
            let most = if self.whole_users { targets.len().max(1) } else { self.candidates };
            let mut first = targets.start;
            while first < targets.end || self.whole_users && targets.is_empty() {
                let part = first..targets.end.min(first + most);
                first = part.end;
                self.add(&mut groups, history.clone(), part);
                if targets.is_empty() {
                    break;
                }
            }
        }
        groups
    }

    /// Adds candidates to the last group, or to a new one.
    fn add(&self, groups: &mut Vec<Group>, history: Range<usize>, targets: Range<usize>) {
        if let Some(last) = groups.last_mut()
            && targets.end - last.targets.start <= self.candidates
            && let Some(joined) = self.joined(&last.history, &history)
        {
            (last.history, last.targets.end) = (joined, targets.end);
            return;
        }
        groups.push(Group { targets, history });
    }

    /// The rows of two histories, if a group may have both: groups of whole users write all of their rows, so that none may lie between.
    fn joined(&self, first: &Range<usize>, second: &Range<usize>) -> Option<Range<usize>> {
        let rows = match (first.is_empty(), second.is_empty()) {
            (_, true) => first.clone(),
            (true, _) => second.clone(),
            _ if self.whole_users && first.end != second.start => return None,
            _ => first.start.min(second.start)..first.end.max(second.end),
        };
        (rows.len() <= self.rows).then_some(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jagged::Jagged;

    fn batch(histories: &[usize], targets: &[usize]) -> Batch {
        Batch::new(Jagged::from_lengths(histories).unwrap(), Jagged::from_lengths(targets).unwrap()).unwrap()
    }

    #[test]
    fn groups_of_whole_users_write_rows_of_their_own() {
        let histories = Jagged::from_starts(&[30, 0, 10, 40], &[5, 8, 0, 4], 50).unwrap();
        let batch = Batch::new(histories, Jagged::from_lengths(&[2, 1, 3, 0]).unwrap()).unwrap();
        let whole = Limits { rows: 100, candidates: 100, whole_users: true }.groups(&batch);
        let history: Vec<Range<usize>> = whole.iter().map(|group| group.history.clone()).collect();
        assert_eq!(history, [30..35, 0..8, 40..44]);
        let read = Limits { rows: 100, candidates: 100, whole_users: false }.groups(&batch);
        assert_eq!(read, [Group { targets: 0..6, history: 0..35 }]);
    }

    #[test]
    fn groups_have_every_candidate_once() {
        let batch = batch(&[5, 0, 7, 3, 4], &[2, 1, 0, 9, 3]);
        for whole_users in [false, true] {
            for (rows, candidates) in [(1, 1), (8, 4), (12, 100), (100, 100)] {
                let groups = Limits { rows, candidates, whole_users }.groups(&batch);
                let targets: Vec<usize> = groups.iter().flat_map(|group| group.targets.clone()).collect();
                assert_eq!(targets, (0..15).collect::<Vec<_>>());
                for (history, targets) in batch.requests() {
                    let of = |group: &&Group| {
                        group.targets.start < targets.end && targets.start < group.targets.end
                    };
                    for group in groups.iter().filter(of) {
                        assert!(group.history.start <= history.start && history.end <= group.history.end);
                    }
                    assert!(!whole_users || groups.iter().filter(of).count() <= 1);
                }
                if whole_users {
                    let rows: Vec<usize> = groups.iter().flat_map(|group| group.history.clone()).collect();
                    assert_eq!(rows, (0..19).collect::<Vec<_>>());
                }
            }
        }
        let all = Limits { rows: 100, candidates: 100, whole_users: true }.groups(&batch);
        assert_eq!(all, [Group { targets: 0..15, history: 0..19 }]);
    }
}
