//! How the backward pass cuts a batch: spans of histories, each against all candidates of its user.

use std::ops::Range;

use crate::cuda::driver::Allocation;
use crate::cuda::handle::Cuda;
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::gpu::fit;
use crate::jagged::Batch;

/// The span is its user's only one: its block writes the gradients of the queries itself.
const DIRECT: u64 = u64::MAX;

twins! {
    /// A span of one user's behaviours, against all of the user's candidates: `kernels/target_attention/backward.cuh`.
    pub(in crate::cuda) struct AttentionSpan {
        history_start: u64,
        first_target: u64,
        first_partial: u64,
        length: u32,
        targets: u32,
        history_length: u32,
        unused: u32,
    }

    /// A candidate whose user's history is cut: `kernels/target_attention/backward.cu`.
    pub(in crate::cuda) struct SplitTarget {
        first_partial: u64,
        target: u64,
        stride: u32,
        slots: u32,
    }
}

/// How a batch is cut into spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::cuda) struct SpanCut {
    /// Query heads that share a key/value head, and the rows of them in a tile.
    pub(in crate::cuda) rows_per_target: usize,
    pub(in crate::cuda) tile_rows: usize,
    /// Behaviours per step of the kernel.
    pub(in crate::cuda) step: usize,
    /// Spans that keep the device busy.
    pub(in crate::cuda) wanted: usize,
    /// The longest span, in behaviours.
    pub(in crate::cuda) longest: usize,
}

/// The smallest number of steps that is worth a span: with fewer, starting it and combining its result cost more than they gain.
const FEWEST_STEPS: usize = 4;

/// The spans of a batch.
#[derive(Debug, Default)]
pub(super) struct Spans {
    pub(super) spans: Vec<AttentionSpan>,
    /// Whole histories, of the users that have candidates.
    pub(super) users: Vec<AttentionSpan>,
    pub(super) split_targets: Vec<SplitTarget>,
    /// Rows of partial results, counted in candidates.
    pub(super) partial_targets: usize,
}

/// Spans, and their lists on the device.
#[derive(Debug)]
pub(in crate::cuda) struct DeviceSpans {
    /// The behaviours of each span.
    pub(in crate::cuda) ranges: Vec<Range<usize>>,
    pub(in crate::cuda) span_count: usize,
    pub(in crate::cuda) user_count: usize,
    pub(in crate::cuda) split_count: usize,
    pub(in crate::cuda) partial_targets: usize,
    pub(in crate::cuda) spans: Allocation,
    pub(in crate::cuda) users: Allocation,
    pub(in crate::cuda) split_targets: Allocation,
}

impl Spans {
    /// Cuts every history into spans of nearly equal length: about `cut.wanted` in all, of whole steps. `cut.longest` limits them
    /// so that few numbers are added in a row, or is larger so that partial results stay small.
    pub(super) fn new(operation: &'static str, batch: &Batch, cut: &SpanCut) -> Result<Self> {
        let behaviours = batch.histories().total_length();
        // Rows of several tiles go through memory at every step, and gain nothing from a longer span.
        let most_rows = batch.targets().max_length().saturating_mul(cut.rows_per_target);
        let fewest = if most_rows > cut.tile_rows { 1 } else { FEWEST_STEPS };
        let steps = behaviours.div_ceil(cut.wanted.max(1)).div_ceil(cut.step).max(fewest);
        let longest = steps.saturating_mul(cut.step).min(cut.longest.next_multiple_of(cut.step));
        let mut all = Self::default();
        for (history, targets) in batch.requests() {
            let rows = targets.len().saturating_mul(cut.rows_per_target);
            let count = history.len().div_ceil(longest).max(1);
            // More rows than a tile has are added up in memory, in f32.
            let direct = count == 1 && (rows <= cut.tile_rows || history.is_empty());
            let targets_here = fit(operation, "candidates of a user", targets.len())?;
            let history_length = fit(operation, "length of one user", history.len())?;
            fit(operation, "query rows of a user", rows)?;
            let span = |from: usize, to: usize, first_partial: u64| -> Result<AttentionSpan> {
                Ok(AttentionSpan {
                    history_start: from as u64,
                    first_target: targets.start as u64,
                    first_partial,
                    length: fit(operation, "length of one user", to - from)?,
                    targets: targets_here,
                    history_length,
                    unused: 0,
                })
            };
            if !targets.is_empty() {
                all.users.push(span(history.start, history.end, DIRECT)?);
            }
            let first_partial = all.partial_targets;
            let steps = history.len().div_ceil(cut.step);
            let edge = |span: usize| history.end.min(history.start + steps * span / count * cut.step);
            for index in 0..count {
                let partial = first_partial + index * targets.len();
                let partial = if direct { DIRECT } else { partial as u64 };
                all.spans.push(span(edge(index), edge(index + 1), partial)?);
            }
            if direct {
                continue;
            }
            all.partial_targets = all.partial_targets.saturating_add(count.saturating_mul(targets.len()));
            for (index, target) in targets.enumerate() {
                all.split_targets.push(SplitTarget {
                    first_partial: (first_partial + index) as u64,
                    target: target as u64,
                    stride: targets_here,
                    slots: fit(operation, "partial results", count)?,
                });
            }
        }
        Ok(all)
    }

    pub(super) fn upload(self, gpu: &Cuda, operation: &'static str) -> Result<DeviceSpans> {
        let range = |span: &AttentionSpan| {
            let start = span.history_start as usize;
            start..start + span.length as usize
        };
        Ok(DeviceSpans {
            ranges: self.spans.iter().map(range).collect(),
            span_count: self.spans.len(),
            user_count: self.users.len(),
            split_count: self.split_targets.len(),
            partial_targets: self.partial_targets,
            spans: gpu.list(operation, &self.spans)?,
            users: gpu.list(operation, &self.users)?,
            split_targets: gpu.list(operation, &self.split_targets)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jagged::Jagged;

    #[test]
    fn every_behaviour_and_every_row_has_one_owner() {
        let histories = [0, 1, 63, 64, 5000, 300, 70_000, 0];
        let targets = [1, 0, 3, 40, 5, 33, 2, 0];
        let batch =
            Batch::new(Jagged::from_lengths(&histories).unwrap(), Jagged::from_lengths(&targets).unwrap());
        let batch = batch.unwrap();
        for (wanted, longest) in [(1, 1 << 20), (64, 1024), (1 << 20, 1024), (64, 64)] {
            let cut = SpanCut { rows_per_target: 2, tile_rows: 32, step: 64, wanted, longest };
            let all = Spans::new("test", &batch, &cut).unwrap();
            let mut behaviour = 0;
            for span in &all.spans {
                assert_eq!(span.history_start, behaviour);
                assert!(span.length as usize <= longest.max(64 * FEWEST_STEPS));
                behaviour += u64::from(span.length);
            }
            assert_eq!(behaviour as usize, batch.histories().total());
            let mut rows = vec![0; all.partial_targets];
            let mut owners = vec![0; batch.targets().total()];
            for split in &all.split_targets {
                owners[split.target as usize] += 1;
                for slot in 0..split.slots {
                    rows[split.first_partial as usize + (slot * split.stride) as usize] += 1;
                }
            }
            assert!(rows.iter().all(|&owners| owners == 1));
            for span in all.spans.iter().filter(|span| span.first_partial == DIRECT) {
                let first = span.first_target as usize;
                owners[first..first + span.targets as usize].iter_mut().for_each(|owners| *owners += 1);
            }
            assert!(owners.iter().all(|&owners| owners == 1));
        }
    }
}
