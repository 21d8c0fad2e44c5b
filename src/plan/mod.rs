//! Cutting a jagged batch into pieces of equal work, and assigning slots to their partial results.
//!
//! The candidates of one user are grouped into tiles that read the history together. Long histories are cut into spans,
//! so that both one user of 100,000 behaviours and hundreds of short histories keep a device busy. A piece is one tile
//! against one span. If a tile has a single piece, there are no partial results: the piece writes the output itself.

use std::ops::Range;

use crate::jagged::Batch;
use crate::plan::pace::Share;

mod pace;

pub(crate) use pace::Pace;

/// The parameters of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Cut {
    /// Output rows per candidate: the query heads that share a key/value head.
    pub(crate) rows_per_target: usize,
    /// The largest number of output rows in a tile.
    pub(crate) tile_rows: usize,
    /// Behaviours per step of the kernel. Spans are whole steps, except the last of a user.
    pub(crate) step: usize,
    /// The longest span allowed, in behaviours; at least one step.
    pub(crate) longest: usize,
    /// What pieces cost, and how many run at a time.
    pub(crate) pace: Pace,
}

/// Output rows of one user that read the history together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tile {
    pub(crate) user: usize,
    /// The user's first candidate.
    pub(crate) first_target: usize,
    /// The tile's first row, counted from the first row of that candidate.
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    /// The first slot of its partial results, and their number: 0 if the only piece writes the output.
    pub(crate) first_slot: usize,
    pub(crate) slots: usize,
}

/// One tile against one span of its user's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) tile: usize,
    pub(crate) history: Range<usize>,
    /// The slot of the partial result; `None` if this is the tile's only piece.
    pub(crate) slot: Option<usize>,
}

/// The work of one batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    pub(crate) tiles: Vec<Tile>,
    /// Ordered by user, then by span, then by tile, so that pieces that read the same behaviours are adjacent.
    pub(crate) pieces: Vec<Piece>,
    /// The number of partial results.
    pub(crate) slots: usize,
}

/// Rows of nobody that cost less than another dispatch.
#[cfg(any(test, feature = "wgpu"))]
const LONGEST_GAP: usize = 1 << 12;

impl Plan {
    pub(crate) fn new(batch: &Batch, cut: &Cut) -> Self {
        Self::over(batch, cut, |history| history)
    }

    /// A plan over a part of each history.
    pub(crate) fn over(batch: &Batch, cut: &Cut, part: impl Fn(Range<usize>) -> Range<usize>) -> Self {
        let part_of = |(history, targets): (Range<usize>, Range<usize>)| (part(history), targets);
        let requests: Vec<_> = batch.requests().map(part_of).collect();
        let share = |(history, targets): &(Range<usize>, Range<usize>)| Share {
            steps: history.len().div_ceil(cut.step),
            // Saturating: a batch exists before the buffers whose sizes would bound these numbers.
            rows: targets.len().saturating_mul(cut.rows_per_target),
        };
        let shares: Vec<Share> = requests.iter().map(share).collect();
        let chosen = cut.pace.choose(&shares, cut.tile_rows, (cut.longest / cut.step).max(1));
        let (tile_rows, longest) = (chosen.tile_rows, chosen.longest.saturating_mul(cut.step));
        let mut plan = Self::default();
        for (user, (history, targets)) in requests.into_iter().enumerate() {
            let rows = targets.len() * cut.rows_per_target;
            let spans = history.len().div_ceil(longest).max(1);
            let first_tile = plan.tiles.len();
            for first_row in (0..rows).step_by(tile_rows) {
                let slots = if spans > 1 { spans } else { 0 };
                plan.tiles.push(Tile {
                    user,
                    first_target: targets.start,
                    first_row,
                    rows: tile_rows.min(rows - first_row),
                    first_slot: plan.slots,
                    slots,
                });
                plan.slots += slots;
            }
            for span in 0..spans {
                // Equal spans of whole steps: the longest and the shortest differ by one step.
                let steps = history.len().div_ceil(cut.step);
                let edge = |span: usize| history.end.min(history.start + steps * span / spans * cut.step);
                for tile in first_tile..plan.tiles.len() {
                    let slot = (spans > 1).then(|| plan.tiles[tile].first_slot + span);
                    plan.pieces.push(Piece { tile, history: edge(span)..edge(span + 1), slot });
                }
            }
        }
        plan
    }

    /// Groups consecutive pieces so that the behaviours of each group span at most `rows` rows (or one piece), which is as
    /// much as a device binds of a buffer at a time. Each group comes with the rows it spans.
    #[cfg(any(test, feature = "wgpu"))]
    pub(crate) fn windows(&self, rows: usize) -> Vec<(Range<usize>, Range<usize>)> {
        self.windows_with_gaps(rows, usize::MAX)
    }

    /// The same where each row of a window costs something, not only those of histories: longer gaps between them end a window.
    #[cfg(any(test, feature = "wgpu"))]
    pub(crate) fn dense_windows(&self, rows: usize) -> Vec<(Range<usize>, Range<usize>)> {
        self.windows_with_gaps(rows, LONGEST_GAP)
    }

    #[cfg(any(test, feature = "wgpu"))]
    fn windows_with_gaps(&self, rows: usize, longest_gap: usize) -> Vec<(Range<usize>, Range<usize>)> {
        let mut windows: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        for (index, piece) in self.pieces.iter().enumerate() {
            let history = &piece.history;
            if let Some((pieces, span)) = windows.last_mut() {
                let joined = span.start.min(history.start)..span.end.max(history.end);
                let gap = joined.len().saturating_sub(span.len() + history.len());
                if joined.len() <= rows && gap <= longest_gap {
                    (pieces.end, *span) = (index + 1, joined);
                    continue;
                }
            }
            windows.push((index..index + 1, history.clone()));
        }
        windows
    }
}

/// The tile size among `sizes` (ascending) that costs least: a large tile loads the history less often, a small one has
/// fewer empty rows. `load` is the cost of loading a behaviour, in units of computing one row with it.
#[cfg(any(test, feature = "cuda", feature = "wgpu"))]
pub(crate) fn best_tile_rows(batch: &Batch, rows_per_target: usize, sizes: &[usize], load: usize) -> usize {
    let cost = |size: usize| -> usize {
        let user = |(history, targets): (Range<usize>, Range<usize>)| {
            let tiles = targets.len().saturating_mul(rows_per_target).div_ceil(size);
            tiles.saturating_mul(history.len()).saturating_mul(size + load)
        };
        batch.requests().map(user).fold(0, usize::saturating_add)
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

    const CUT: Cut = Cut { rows_per_target: 2, tile_rows: 8, step: 64, longest: 1 << 20, pace: PACE };
    const PACE: Pace = Pace {
        resident: 16,
        step: 100,
        row: 10,
        piece: 200,
        combine: 300,
        slot: 10,
        fewest_steps: 2,
        shrinks: true,
    };

    /// Every output row meets every behaviour of its user exactly once, and every slot is used exactly once.
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
            assert_complete(&batch, &Cut { rows_per_target: 3, tile_rows: 4, pace: Pace::WHOLE, ..CUT });
        }
        assert_eq!(Plan::new(&batch(&[], &[]), &CUT), Plan::default());
    }

    #[test]
    fn a_long_history_is_cut_and_a_short_one_is_not() {
        let plan = Plan::new(&batch(&[100_000, 50], &[4, 4]), &CUT);
        let long = plan.pieces.iter().filter(|piece| plan.tiles[piece.tile].user == 0);
        let lengths: Vec<usize> = long.map(|piece| piece.history.len()).collect();
        assert!(lengths.len() >= PACE.resident - 1);
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
    fn long_gaps_end_windows_whose_rows_cost_something() {
        let starts = [90_000, 0, 100, 5000, 40_000];
        let histories = Jagged::from_starts(&starts, &[10, 50, 0, 300, 70], 100_000).unwrap();
        let batch = Batch::new(histories, Jagged::from_lengths(&[1; 5]).unwrap()).unwrap();
        let plan = Plan::new(&batch, &CUT);
        let spans = |windows: Vec<(Range<usize>, Range<usize>)>| -> Vec<Range<usize>> {
            windows.into_iter().map(|(_, span)| span).collect()
        };
        assert_eq!(spans(plan.windows(usize::MAX)), std::slice::from_ref(&(0..90_010)));
        assert_eq!(spans(plan.windows(6000)), [90_000..90_010, 0..5300, 40_000..40_070]);
        let dense = [90_000..90_010, 0..50, 5000..5300, 40_000..40_070];
        assert_eq!(spans(plan.dense_windows(usize::MAX)), dense);
    }

    #[test]
    fn tiles_fit_the_candidates() {
        assert_eq!(best_tile_rows(&batch(&[100], &[1]), 1, &[4, 8, 16, 32], 8), 4);
        assert_eq!(best_tile_rows(&batch(&[100], &[32]), 1, &[4, 8, 16, 32], 8), 32);
        assert_eq!(best_tile_rows(&batch(&[100], &[500]), 1, &[4, 8, 16, 32], 8), 32);
        assert_eq!(best_tile_rows(&batch(&[], &[]), 1, &[4, 8], 8), 4);
    }
}
