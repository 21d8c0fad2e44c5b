//! Cuts a batch into tiles and spreads them over threads.

use std::ops::Range;

#[cfg(feature = "rayon")]
use rayon::prelude::*;

use crate::jagged::Batch;

/// A few candidates of one user, which share each load of the user's history.
pub(super) struct Tile {
    /// The user's behaviours.
    pub(super) history: Range<usize>,
    /// Some of the user's candidates.
    pub(super) targets: Range<usize>,
}

/// How many candidates share a load of the history: enough that loading is a small part of the work, few enough
/// that one user's candidates keep several threads busy.
const CANDIDATES: usize = 16;

/// Cuts a batch into tiles, in the order of the candidates.
pub(super) fn tiles(batch: &Batch) -> Vec<Tile> {
    let mut tiles = Vec::new();
    for (history, targets) in batch.requests() {
        for start in targets.clone().step_by(CANDIDATES) {
            let targets = start..targets.end.min(start + CANDIDATES);
            tiles.push(Tile { history: history.clone(), targets });
        }
    }
    tiles
}

/// Cuts the rows of an output where the tiles are cut. Rows behind the last tile belong to nobody and are left out.
pub(super) fn split<'a, T>(tiles: &[Tile], mut rows: &'a mut [T], width: usize) -> Vec<&'a mut [T]> {
    let cut = |tile: &Tile| {
        let (head, tail) = std::mem::take(&mut rows).split_at_mut(tile.targets.len() * width);
        rows = tail;
        head
    };
    tiles.iter().map(cut).collect()
}

/// Runs `work` on every item, in any order.
#[cfg(feature = "rayon")]
pub(super) fn for_each<I: Send>(items: Vec<I>, work: impl Fn(I) + Send + Sync) {
    // One piece of work is not worth waking a thread.
    if items.len() == 1 {
        return items.into_iter().for_each(work);
    }
    items.into_par_iter().for_each(work);
}

/// Runs `work` on every item, in any order.
#[cfg(not(feature = "rayon"))]
pub(super) fn for_each<I>(items: Vec<I>, work: impl Fn(I)) {
    items.into_iter().for_each(work);
}

/// How many threads `for_each` uses.
pub(super) fn threads() -> usize {
    #[cfg(feature = "rayon")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "rayon"))]
    1
}
