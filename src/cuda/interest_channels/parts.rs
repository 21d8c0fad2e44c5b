//! How a batch is cut: parts of candidates whose scratch memory stays small, and pieces of candidates and behaviours for blocks.

use std::ops::Range;

use crate::cuda::driver::Allocation;
use crate::cuda::handle::Cuda;
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::gpu::fit;
use crate::jagged::Batch;

/// As in `kernels/interest_channels/route.cu`: the behaviours of a block, and the axes that it multiplies at a time.
const BEHAVIOURS: usize = 256;
const ROWS: usize = 16;
/// The most bytes of scratch memory of a part that has more than one candidate.
const MOST_BYTES: usize = 64 << 20;

twins! {
    /// `kernels/interest_channels/route.cu`
    pub(in crate::cuda) struct ChannelPiece {
        history_start: u64,
        first_pair: u64,
        first_target: u64,
        targets: u32,
        length: u32,
        first_position: u32,
        history_length: u32,
    }
}

/// What decides how a batch is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::cuda) struct ChannelsCut {
    /// Axes of a candidate.
    pub(super) channels: usize,
    /// Bytes of scratch memory for a pair of a candidate and a behaviour, and for a candidate.
    pub(super) pair_bytes: usize,
    pub(super) target_bytes: usize,
}

/// Candidates that are computed together. Their pairs with behaviours are counted from 0, those of a candidate being adjacent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) targets: Range<usize>,
    pub(super) pieces: Range<usize>,
    pub(super) pairs: usize,
}

/// The parts of a batch.
#[derive(Debug, Default)]
struct Parts {
    parts: Vec<Part>,
    pieces: Vec<ChannelPiece>,
    /// Of each candidate: its pair with its user's first behaviour.
    first_pairs: Vec<u64>,
}

/// Parts, and their lists on the device.
#[derive(Debug)]
pub(in crate::cuda) struct DeviceParts {
    pub(super) parts: Vec<Part>,
    pub(super) pieces: Allocation,
    pub(super) first_pairs: Allocation,
}

impl Parts {
    fn new(operation: &'static str, batch: &Batch, cut: &ChannelsCut) -> Result<Self> {
        let mut all = Self::default();
        let mut bytes = usize::MAX;
        for (history, targets) in batch.requests() {
            let each = history.len().saturating_mul(cut.pair_bytes).saturating_add(cut.target_bytes).max(1);
            let mut next = targets.start;
            while next < targets.end {
                let mut room = MOST_BYTES.saturating_sub(bytes) / each;
                if room == 0 {
                    let pieces = all.pieces.len()..all.pieces.len();
                    all.parts.push(Part { targets: next..next, pieces, pairs: 0 });
                    bytes = 0;
                    room = (MOST_BYTES / each).max(1);
                }
                let end = targets.end.min(next.saturating_add(room));
                all.add(operation, cut, &history, next..end)?;
                bytes = bytes.saturating_add((end - next).saturating_mul(each));
                next = end;
            }
        }
        Ok(all)
    }

    /// Adds candidates of a user to the last part.
    fn add(
        &mut self,
        operation: &'static str,
        cut: &ChannelsCut,
        history: &Range<usize>,
        targets: Range<usize>,
    ) -> Result<()> {
        let Some(part) = self.parts.last_mut() else { return Ok(()) };
        let length = fit(operation, "length of one user", history.len())?;
        let of_piece = (ROWS / cut.channels).max(1);
        let pair = |m: usize| part.pairs as u64 + (m - targets.start) as u64 * u64::from(length);
        self.first_pairs.extend(targets.clone().map(pair));
        for position in (0..history.len()).step_by(BEHAVIOURS) {
            for first in targets.clone().step_by(of_piece) {
                self.pieces.push(ChannelPiece {
                    history_start: (history.start + position) as u64,
                    first_pair: pair(first),
                    first_target: (first - part.targets.start) as u64,
                    targets: of_piece.min(targets.end - first) as u32,
                    length: BEHAVIOURS.min(history.len() - position) as u32,
                    first_position: position as u32,
                    history_length: length,
                });
            }
        }
        part.pairs = part.pairs.saturating_add(targets.len().saturating_mul(history.len()));
        part.pieces.end = self.pieces.len();
        part.targets.end = targets.end;
        Ok(())
    }
}

impl DeviceParts {
    pub(in crate::cuda) fn new(
        gpu: &Cuda,
        operation: &'static str,
        batch: &Batch,
        cut: &ChannelsCut,
    ) -> Result<Self> {
        let Parts { parts, pieces, first_pairs } = Parts::new(operation, batch, cut)?;
        let (pieces, first_pairs) = (gpu.list(operation, &pieces)?, gpu.list(operation, &first_pairs)?);
        Ok(Self { parts, pieces, first_pairs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jagged::Jagged;

    /// Every pair of a candidate and a behaviour is in one piece, and has a place of its own in its part.
    fn assert_complete(histories: &[usize], targets: &[usize], cut: &ChannelsCut) -> usize {
        let jagged = |lengths: &[usize]| Jagged::from_lengths(lengths).unwrap();
        let batch = Batch::new(jagged(histories), jagged(targets)).unwrap();
        let all = Parts::new("test", &batch, cut).unwrap();
        let mut next = [0, 0];
        let mut behaviours = vec![0; batch.targets().total()];
        for part in &all.parts {
            assert_eq!([part.targets.start, part.pieces.start], next);
            next = [part.targets.end, part.pieces.end];
            let mut places = vec![0; part.pairs];
            for piece in &all.pieces[part.pieces.clone()] {
                for target in 0..piece.targets as usize {
                    let m = part.targets.start + piece.first_target as usize + target;
                    let first = piece.first_pair as usize + target * piece.history_length as usize;
                    assert_eq!(first as u64, all.first_pairs[m]);
                    let owner = batch.requests().find(|(_, targets)| targets.contains(&m)).unwrap();
                    assert_eq!(owner.0.len(), piece.history_length as usize);
                    assert_eq!(owner.0.start + piece.first_position as usize, piece.history_start as usize);
                    let first = first + piece.first_position as usize;
                    places[first..first + piece.length as usize].iter_mut().for_each(|place| *place += 1);
                    behaviours[m] += piece.length as usize;
                }
            }
            assert!(places.iter().all(|&pieces| pieces == 1));
        }
        assert_eq!(next, [batch.targets().total(), all.pieces.len()]);
        let expected = batch.requests().flat_map(|(history, targets)| targets.map(move |_| history.len()));
        assert!(behaviours.into_iter().eq(expected));
        all.parts.len()
    }

    #[test]
    fn every_pair_is_covered_once() {
        let (histories, targets) = ([0, 1, 255, 256, 257, 3000, 0], [3, 0, 5, 2, 4, 9, 0]);
        let cut = ChannelsCut { channels: 4, pair_bytes: 8, target_bytes: 1000 };
        assert_eq!(assert_complete(&histories, &targets, &cut), 1);
        assert_eq!(assert_complete(&[], &[], &cut), 0);
        assert_eq!(assert_complete(&[9], &[0], &cut), 0);
        // Parts of several candidates, some in the middle of a user's, and of one each.
        let large = ChannelsCut { channels: 33, pair_bytes: MOST_BYTES / 7000, ..cut };
        assert!((5..23).contains(&assert_complete(&histories, &targets, &large)));
        assert_eq!(
            assert_complete(&histories, &targets, &ChannelsCut { target_bytes: MOST_BYTES, ..cut }),
            23
        );
        let most = ChannelsCut { target_bytes: usize::MAX, ..cut };
        assert_eq!(assert_complete(&histories, &targets, &most), 23);
    }
}
