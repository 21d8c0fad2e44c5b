//! Cuts a jagged batch into equal pieces of work and says how partial results merge.
//!
//! Candidates of one user are grouped into tiles that read the history together; long histories are cut into parts,
//! so that one user of 100,000 behaviours and hundreds of short ones both keep a device busy. A tile that needs only
//! one piece has no partial results: its piece writes the output itself.

use std::ops::Range;

use crate::jagged::Batch;

/// How to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Cut {
    /// Rows of output (of one key/value head) per candidate: the query heads that share a key/value head.
    pub(crate) rows_per_target: usize,
    /// Rows of output a tile holds, at most.
    pub(crate) tile_rows: usize,
    /// Behaviours a kernel takes at a time; parts are whole steps, except a user's last.
    pub(crate) step: usize,
    /// How many pieces keep the device busy.
    pub(crate) wanted: usize,
    /// The longest part allowed, in behaviours; at least a step.
    pub(crate) longest: usize,
}

/// Rows of output of one user that read the history together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tile {
    pub(crate) user: usize,
    /// The user's first candidate.
    pub(crate) first_target: usize,
    /// The tile's first row, counted from that candidate's first.
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    /// Where its partial results begin, and how many there are: 0 where the only piece writes the output.
    pub(crate) first_slot: usize,
    pub(crate) slots: usize,
}

/// One tile against a part of its user's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) tile: usize,
    pub(crate) history: Range<usize>,
    /// Where the partial result goes; `None` where this is the tile's only piece.
    pub(crate) slot: Option<usize>,
}

/// The work of one batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    pub(crate) tiles: Vec<Tile>,
    /// By user, then by part of the history, then by tile: pieces that read the same behaviours are neighbours.
    pub(crate) pieces: Vec<Piece>,
    /// How many partial results there are.
    pub(crate) slots: usize,
}

/// The fewest steps that are worth a piece of their own: below, starting it and merging its result cost more than
/// they gain.
pub(crate) const FEWEST_STEPS: usize = 4;

impl Plan {
    pub(crate) fn new(batch: &Batch, cut: &Cut) -> Self {
        let tiles_of = |targets: usize| (targets * cut.rows_per_target).div_ceil(cut.tile_rows);
        let work: usize =
            batch.requests().map(|(history, targets)| history.len() * tiles_of(targets.len())).sum();
        let steps = work.div_ceil(cut.wanted.max(1)).div_ceil(cut.step).max(FEWEST_STEPS);
        let longest = (steps * cut.step).min(cut.longest / cut.step * cut.step).max(cut.step);
        let mut plan = Self::default();
        for (user, (history, targets)) in batch.requests().enumerate() {
            let rows = targets.len() * cut.rows_per_target;
            let parts = history.len().div_ceil(longest).max(1);
            let first_tile = plan.tiles.len();
            for first_row in (0..rows).step_by(cut.tile_rows) {
                let slots = if parts > 1 { parts } else { 0 };
                plan.tiles.push(Tile {
                    user,
                    first_target: targets.start,
                    first_row,
                    rows: cut.tile_rows.min(rows - first_row),
                    first_slot: plan.slots,
                    slots,
                });
                plan.slots += slots;
            }
            for part in 0..parts {
                // Even parts, in whole steps: the longest and the shortest differ by one step.
                let steps = history.len().div_ceil(cut.step);
                let edge = |part: usize| history.end.min(history.start + steps * part / parts * cut.step);
                for tile in first_tile..plan.tiles.len() {
                    let slot = (parts > 1).then(|| plan.tiles[tile].first_slot + part);
                    plan.pieces.push(Piece { tile, history: edge(part)..edge(part + 1), slot });
                }
            }
        }
        plan
    }

    /// Groups consecutive pieces so that the behaviours of each group span at most `rows` rows (or one piece): a
    /// device binds no more of a buffer at a time. Each group comes with the rows it spans.
    #[cfg(any(test, feature = "wgpu"))]
    pub(crate) fn windows(&self, rows: usize) -> Vec<(Range<usize>, Range<usize>)> {
        let mut windows: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        for (index, piece) in self.pieces.iter().enumerate() {
            let history = &piece.history;
            if let Some((pieces, span)) = windows.last_mut() {
                let joined = span.start.min(history.start)..span.end.max(history.end);
                if joined.len() <= rows {
                    (pieces.end, *span) = (index + 1, joined);
                    continue;
                }
            }
            windows.push((index..index + 1, history.clone()));
        }
        windows
    }
}

/// The tile size among `sizes` (ascending) that costs least: a large tile loads the history less often, a small one
/// leaves fewer of its rows empty. `load` is what loading a behaviour costs, in units of computing one row with it.
#[cfg(any(test, feature = "cuda", feature = "wgpu"))]
pub(crate) fn best_tile_rows(batch: &Batch, rows_per_target: usize, sizes: &[usize], load: usize) -> usize {
    let cost = |size: usize| -> usize {
        let user = |(history, targets): (Range<usize>, Range<usize>)| {
            (targets.len() * rows_per_target).div_ceil(size) * history.len() * (size + load)
        };
        batch.requests().map(user).sum()
    };
    sizes.iter().copied().min_by_key(|&size| cost(size)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jagged::Jagged;

    fn batch(histories: &[usize], targets: &[usize]) -> Batch {
        Batch::new(Jagged::from_lengths(histories).unwrap(), Jagged::from_lengths(targets).unwrap()).unwrap()
    }

    const CUT: Cut = Cut { rows_per_target: 2, tile_rows: 8, step: 64, wanted: 16, longest: 1 << 20 };

    /// Every row of output meets every behaviour of its user exactly once, and slots are used exactly once.
    fn assert_complete(batch: &Batch, cut: &Cut) {
        let plan = Plan::new(batch, cut);
        let mut slots = vec![0; plan.slots];
        let mut met = 0;
        for piece in &plan.pieces {
            let tile = plan.tiles[piece.tile];
            let (history, targets) = batch.requests().nth(tile.user).unwrap();
            assert!(tile.rows >= 1 && tile.rows <= cut.tile_rows);
            assert_eq!(tile.first_target, targets.start);
            assert!(tile.first_row + tile.rows <= targets.len() * cut.rows_per_target);
            assert!(piece.history.start >= history.start && piece.history.end <= history.end);
            assert!(piece.history.len() <= cut.longest.max(cut.step));
            assert_eq!(piece.slot.is_none(), tile.slots == 0);
            met += piece.history.len() * tile.rows;
            if let Some(slot) = piece.slot {
                assert!((tile.first_slot..tile.first_slot + tile.slots).contains(&slot));
                slots[slot] += 1;
            }
        }
        assert!(slots.iter().all(|&uses| uses == 1));
        assert_eq!(met as u64, batch.pairs() * cut.rows_per_target as u64);
        let rows: usize = plan.tiles.iter().map(|tile| tile.rows).sum();
        assert_eq!(rows, batch.targets().total() * cut.rows_per_target);
    }

    #[test]
    fn every_pair_is_covered_once() {
        for histories in [vec![0, 1, 63, 64, 65, 5000], vec![100_000, 10, 20, 0, 30, 1], vec![0; 6]] {
            let batch = batch(&histories, &[1, 0, 3, 4, 5, 9]);
            assert_complete(&batch, &CUT);
            assert_complete(&batch, &Cut { longest: 64, ..CUT });
            assert_complete(&batch, &Cut { rows_per_target: 3, tile_rows: 4, wanted: 1, ..CUT });
        }
        assert_eq!(Plan::new(&batch(&[], &[]), &CUT), Plan::default());
    }

    #[test]
    fn a_long_history_is_cut_and_a_short_one_is_not() {
        let plan = Plan::new(&batch(&[100_000, 50], &[4, 4]), &CUT);
        let long = plan.pieces.iter().filter(|piece| plan.tiles[piece.tile].user == 0);
        let lengths: Vec<usize> = long.map(|piece| piece.history.len()).collect();
        assert!(lengths.len() >= CUT.wanted - 1);
        assert!(lengths.iter().max().unwrap() - lengths.iter().min().unwrap() <= 2 * CUT.step);
        assert_eq!(plan.tiles.last().unwrap().slots, 0);
    }

    #[test]
    fn windows_span_no_more_than_allowed() {
        let plan = Plan::new(&batch(&[1000, 0, 3000, 200], &[9, 1, 2, 1]), &Cut { longest: 512, ..CUT });
        let windows = plan.windows(600);
        assert!(windows.iter().all(|(_, span)| span.len() <= 600));
        let pieces: Vec<usize> = windows.iter().flat_map(|(pieces, _)| pieces.clone()).collect();
        assert_eq!(pieces, (0..plan.pieces.len()).collect::<Vec<_>>());
        for (pieces, span) in windows {
            for piece in &plan.pieces[pieces] {
                assert!(piece.history.start >= span.start && piece.history.end <= span.end);
            }
        }
    }

    #[test]
    fn tiles_fit_the_candidates() {
        assert_eq!(best_tile_rows(&batch(&[100], &[1]), 1, &[4, 8, 16, 32], 8), 4);
        assert_eq!(best_tile_rows(&batch(&[100], &[32]), 1, &[4, 8, 16, 32], 8), 32);
        assert_eq!(best_tile_rows(&batch(&[100], &[500]), 1, &[4, 8, 16, 32], 8), 32);
        assert_eq!(best_tile_rows(&batch(&[], &[]), 1, &[4, 8], 8), 4);
    }
}
