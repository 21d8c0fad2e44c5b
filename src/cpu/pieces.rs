//! Cutting a batch into pieces, spreading the pieces over threads, and combining the partial results of long histories.
//!
//! The batch alone decides how it is cut, so results do not depend on the number of threads.

use std::ops::Range;

use crate::cpu::threads::{for_each, map};
use crate::jagged::Batch;
use crate::plan::{Cut, Pace, Piece, Plan};

/// The number of output rows in a tile: enough that a history larger than the cache is rarely read from memory again,
/// few enough that the tile's sums stay in cache.
pub(super) const ROWS: usize = 64;

/// The step of the plan: a piece has at least a few times this many behaviours. With fewer, the overhead of a piece
/// is noticeable.
pub(super) const STEP: usize = 512;

/// What pieces cost, in eighths of a step, on more threads than current machines have.
const PACE: Pace =
    Pace { resident: 512, step: 8, row: 0, piece: 1, combine: 0, slot: 0, fewest_steps: 4, shrinks: false };

/// The rows that a piece works on: some candidates of one user, and a span of the user's history.
pub(super) struct PieceRows {
    pub(super) user: usize,
    pub(super) targets: Range<usize>,
    pub(super) history: Range<usize>,
}

/// Cuts a batch into tiles of `candidates` and spans of at least a few times `step` behaviours.
pub(super) fn cut(batch: &Batch, candidates: usize, step: usize) -> Plan {
    let cut = Cut { rows_per_target: 1, tile_rows: candidates, step, longest: usize::MAX, pace: PACE };
    Plan::new(batch, &cut)
}

/// Computes every piece, combines the results of each tile in the order of the history, and finishes each tile into its
/// output.
pub(super) fn run<R: Send, O: Send>(
    plan: &Plan,
    outputs: Vec<O>,
    compute: impl Fn(PieceRows) -> R + Send + Sync,
    combine: impl Fn(&mut R, R) + Send + Sync,
    finish: impl Fn(R, O) + Send + Sync,
) {
    let rows = |piece: &Piece| {
        let tile = &plan.tiles[piece.tile];
        let first = tile.first_target + tile.first_row;
        PieceRows { user: tile.user, targets: first..first + tile.rows, history: piece.history.clone() }
    };
    let mut outputs: Vec<Option<O>> = outputs.into_iter().map(Some).collect();
    // A tile's only piece writes the output itself.
    let own_output = |piece: &Piece| if piece.slot.is_none() { outputs[piece.tile].take() } else { None };
    let own_outputs: Vec<Option<O>> = plan.pieces.iter().map(own_output).collect();
    let results = map(plan.pieces.iter().zip(own_outputs).collect(), |(piece, output)| {
        let result = compute(rows(piece));
        match output {
            None => Some(result),
            Some(output) => {
                finish(result, output);
                None
            }
        }
    });
    let mut slots: Vec<Option<R>> = (0..plan.slots).map(|_| None).collect();
    for (piece, result) in plan.pieces.iter().zip(results) {
        if let Some(slot) = piece.slot {
            slots[slot] = result;
        }
    }
    let mut slots = slots.into_iter().flatten();
    let mut tiles = Vec::new();
    for (tile, output) in plan.tiles.iter().zip(outputs) {
        if let Some(output) = output {
            tiles.push((slots.by_ref().take(tile.slots).collect::<Vec<R>>(), output));
        }
    }
    for_each(tiles, |(results, output)| {
        let combined = results.into_iter().reduce(|mut all, next| {
            combine(&mut all, next);
            all
        });
        if let Some(combined) = combined {
            finish(combined, output);
        }
    });
}
