//! Cutting a batch into a fixed number of pieces, each with gradients of the weights of its own: between behaviours, or where
//! softmax needs all behaviours of a candidate at once, between candidates.

use std::ops::Range;

use crate::jagged::Batch;

/// The most pieces, and so the most partial gradients of the weights. A constant, so that results do not depend on the number of
/// threads: enough for those of current machines, few enough that partial gradients of a large network fit in memory.
const PIECES: usize = 64;

/// The fewest pairs of a piece: with fewer, setting partial gradients to zero and adding them up is noticeable.
const LEAST_PAIRS: usize = 4096;

/// Some consecutive behaviours of one user with all candidates, or all behaviours with some consecutive candidates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) user: usize,
    pub(super) history: Range<usize>,
    pub(super) targets: Range<usize>,
    /// Whether these are all of the user's behaviours.
    pub(super) is_whole: bool,
    /// Whether these are all of the user's candidates.
    pub(super) has_all_targets: bool,
}

/// Cuts a batch into pieces of about equally many pairs. Every user, also without behaviours, has at least one part. Parts are in
/// the order of their behaviours, whose edges are multiples of `step` from a user's first, then of their candidates: those of
/// histories of up to `longest_span` behaviours are cut, and not the behaviours.
pub(super) fn cut(batch: &Batch, step: usize, longest_span: usize) -> Vec<Vec<Part>> {
    let pairs =
        |(history, targets): (Range<usize>, Range<usize>)| history.len().saturating_mul(targets.len());
    let total = batch.requests().map(pairs).fold(0, usize::saturating_add);
    let wanted = total.div_ceil(PIECES).max(LEAST_PAIRS);
    let (mut pieces, mut piece, mut left) = (Vec::new(), Vec::new(), wanted);
    for (user, (history, targets)) in batch.requests().enumerate() {
        let by_targets = !history.is_empty() && history.len() <= longest_span;
        // The rows that are cut, how many of the others each is paired with, and the step of edges.
        let (rows, others, step) =
            if by_targets { (&targets, history.len(), 1) } else { (&history, targets.len(), step) };
        let mut start = rows.start;
        loop {
            // A user without candidates costs nothing.
            let fitting = left.div_ceil(others.max(1)).div_ceil(step).saturating_mul(step);
            let rest = rows.end - start;
            let end =
                if others == 0 || rest < fitting.saturating_add(step) { rows.end } else { start + fitting };
            let is_all = start == rows.start && end == rows.end;
            let (history, targets) =
                if by_targets { (history.clone(), start..end) } else { (start..end, targets.clone()) };
            let (is_whole, has_all_targets) = (by_targets || is_all, !by_targets || is_all);
            piece.push(Part { user, history, targets, is_whole, has_all_targets });
            left = left.saturating_sub((end - start).saturating_mul(others));
            if left == 0 {
                pieces.push(std::mem::take(&mut piece));
                left = wanted;
            }
            start = end;
            if start == rows.end {
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
            for longest_span in [0, 64, 1000] {
                let pieces = cut(&batch, step, longest_span);
                assert!(pieces.len() <= PIECES + 1, "{}", pieces.len());
                assert!(pieces.iter().all(|piece| !piece.is_empty()));
                let parts: Vec<&Part> = pieces.iter().flatten().collect();
                let mut parts = parts.into_iter().peekable();
                for (user, (history, targets)) in batch.requests().enumerate() {
                    let mut pairs = 0;
                    let (mut behaviours, mut candidates) = (history.start, targets.start);
                    while let Some(part) = parts.next_if(|part| part.user == user) {
                        pairs += part.history.len() * part.targets.len();
                        assert_eq!(part.is_whole, part.history == history);
                        assert_eq!(part.has_all_targets, part.targets == targets);
                        assert!(part.is_whole || part.has_all_targets && history.len() > longest_span);
                        assert!(part.history.end == history.end || part.history.len().is_multiple_of(step));
                        if part.has_all_targets {
                            assert_eq!(part.history.start, behaviours);
                        } else {
                            assert_eq!(part.targets.start, candidates);
                        }
                        (behaviours, candidates) = (part.history.end, part.targets.end);
                    }
                    assert_eq!(pairs, history.len() * targets.len());
                    assert_eq!((behaviours, candidates), (history.end, targets.end));
                }
                assert_eq!(parts.next(), None);
            }
        }
    }
}
