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

/// Cuts the rows of an output into runs of `lengths` rows. Rows behind the last belong to nobody and are left out.
pub(super) fn split_rows<T>(
    lengths: impl Iterator<Item = usize>,
    mut rows: &mut [T],
    width: usize,
) -> Vec<&mut [T]> {
    let cut = |length: usize| {
        let (head, tail) = std::mem::take(&mut rows).split_at_mut(length * width);
        rows = tail;
        head
    };
    lengths.map(cut).collect()
}

/// Cuts the rows of an output where the tiles are cut.
pub(super) fn split<'a, T>(tiles: &[Tile], rows: &'a mut [T], width: usize) -> Vec<&'a mut [T]> {
    split_rows(tiles.iter().map(|tile| tile.targets.len()), rows, width)
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

/// The results of `work` on every item, in their order.
#[cfg(feature = "rayon")]
pub(super) fn map<I: Send, R: Send>(items: Vec<I>, work: impl Fn(I) -> R + Send + Sync) -> Vec<R> {
    items.into_par_iter().map(work).collect()
}

/// The results of `work` on every item, in their order.
#[cfg(not(feature = "rayon"))]
pub(super) fn map<I, R>(items: Vec<I>, work: impl Fn(I) -> R) -> Vec<R> {
    items.into_iter().map(work).collect()
}

/// How many threads `for_each` uses.
pub(super) fn threads() -> usize {
    #[cfg(feature = "rayon")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "rayon"))]
    1
}
