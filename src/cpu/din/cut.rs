//! Cutting a batch into a fixed number of pieces, each with gradients of the weights of its own.

use std::ops::Range;

use crate::jagged::Batch;

/// The most pieces, and so the most partial gradients of the weights. A constant, so that results do not depend on the number of
/// threads: enough for those of current machines, few enough that partial gradients of a large network fit in memory.
const PIECES: usize = 64;

/// The fewest pairs of a piece: with fewer, setting partial gradients to zero and adding them up is noticeable.
const LEAST_PAIRS: usize = 4096;

/// Some consecutive behaviours of one user, with all candidates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) user: usize,
    pub(super) history: Range<usize>,
    pub(super) targets: Range<usize>,
    /// Whether these are all of the user's behaviours.
    pub(super) is_whole: bool,
}

/// Cuts a batch into pieces of about equally many pairs. Every user, also without behaviours, has at least one part; parts are in
/// the order of their behaviours, whose edges are multiples of `step` from a user's first.
pub(super) fn cut(batch: &Batch, step: usize) -> Vec<Vec<Part>> {
    let pairs =
        |(history, targets): (Range<usize>, Range<usize>)| history.len().saturating_mul(targets.len());
    let total = batch.requests().map(pairs).fold(0, usize::saturating_add);
    let wanted = total.div_ceil(PIECES).max(LEAST_PAIRS);
    let (mut pieces, mut piece, mut left) = (Vec::new(), Vec::new(), wanted);
    for (user, (history, targets)) in batch.requests().enumerate() {
        let mut start = history.start;
        loop {
            // A user without candidates costs nothing.
            let fitting = left.div_ceil(targets.len().max(1)).div_ceil(step).saturating_mul(step);
            let rest = history.end - start;
            let fits = targets.is_empty() || rest < fitting.saturating_add(step);
            let end = if fits { history.end } else { start + fitting };
            let is_whole = start == history.start && end == history.end;
            piece.push(Part { user, history: start..end, targets: targets.clone(), is_whole });
            left = left.saturating_sub((end - start).saturating_mul(targets.len()));
            if left == 0 {
                pieces.push(std::mem::take(&mut piece));
                left = wanted;
            }
            start = end;
            if start == history.end {
                break;
            }
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jagged::Jagged;

    #[test]
    fn pieces_cover_every_behaviour_once_and_are_few() {
        let step = 64;
        for (histories, targets) in [
            (vec![], vec![]),
            (vec![0, 5, 0], vec![1, 0, 0]),
            (vec![1000], vec![16]),
            (vec![100_000, 3, 0, 70_000], vec![100, 3, 2, 0]),
            (vec![37; 5000], vec![1; 5000]),
            (vec![64, 63, 65, 129, 1], vec![5000, 3000, 1, 700, 9]),
        ] {
            let batch = Batch::new(
                Jagged::from_lengths(&histories).unwrap(),
                Jagged::from_lengths(&targets).unwrap(),
            )
            .unwrap();
            let pieces = cut(&batch, step);
            assert!(pieces.len() <= PIECES + 1, "{}", pieces.len());
            assert!(pieces.iter().all(|piece| !piece.is_empty()));
            let parts: Vec<&Part> = pieces.iter().flatten().collect();
            let (mut end, mut seen) = (0, Vec::new());
            for part in &parts {
                let (history, targets) = batch.requests().nth(part.user).unwrap();
                assert_eq!(part.history.start, end);
                assert_eq!(part.targets, targets);
                assert_eq!(part.is_whole, part.history == history);
                assert!(part.history.end == history.end || part.history.len().is_multiple_of(step));
                end = part.history.end;
                seen.push(part.user);
            }
            seen.dedup();
            assert_eq!(seen, (0..batch.users()).collect::<Vec<_>>());
            assert_eq!(end, batch.histories().total());
        }
    }
}
