//! Cuts a batch into pieces, spreads them over threads, and merges the partial results of long histories.
//!
//! The batch alone decides how it is cut, so results do not depend on the number of threads.

use std::ops::Range;

use crate::cpu::tiles::{for_each, map};
use crate::jagged::Batch;
use crate::plan::{Cut, Piece, Plan};

/// How many rows of output share a load of the history: enough that a history longer than the cache is read from memory
/// seldom, few enough that their sums stay in it.
pub(super) const ROWS: usize = 64;

/// Behaviours that a piece has at least a few times: with less, starting it takes a notable part of its time.
pub(super) const STEP: usize = 512;

/// Pieces enough for more threads than today's machines have.
const WANTED: usize = 512;

/// Some candidates of one user, and a part of the user's history.
pub(super) struct Part {
    pub(super) targets: Range<usize>,
    pub(super) history: Range<usize>,
}

/// A batch, cut into tiles of `candidates` and parts of at least a few times `step` behaviours.
pub(super) fn cut(batch: &Batch, candidates: usize, step: usize) -> Plan {
    let cut = Cut { rows_per_target: 1, tile_rows: candidates, step, wanted: WANTED, longest: usize::MAX };
    Plan::new(batch, &cut)
}

/// Computes every piece, merges those of one tile in the order of the history, and finishes each tile into its output.
pub(super) fn run<R: Send, O: Send>(
    plan: &Plan,
    outputs: Vec<O>,
    compute: impl Fn(Part) -> R + Send + Sync,
    merge: impl Fn(&mut R, R) + Send + Sync,
    finish: impl Fn(R, O) + Send + Sync,
) {
    let part = |piece: &Piece| {
        let tile = &plan.tiles[piece.tile];
        let first = tile.first_target + tile.first_row;
        Part { targets: first..first + tile.rows, history: piece.history.clone() }
    };
    let mut outputs: Vec<Option<O>> = outputs.into_iter().map(Some).collect();
    let of_whole = |piece: &Piece| if piece.slot.is_none() { outputs[piece.tile].take() } else { None };
    let outputs_of_whole: Vec<Option<O>> = plan.pieces.iter().map(of_whole).collect();
    let results = map(plan.pieces.iter().zip(outputs_of_whole).collect(), |(piece, output)| {
        let result = compute(part(piece));
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
        let merged = results.into_iter().reduce(|mut all, next| {
            merge(&mut all, next);
            all
        });
        if let Some(merged) = merged {
            finish(merged, output);
        }
    });
}
