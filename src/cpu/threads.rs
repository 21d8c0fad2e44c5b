//! Spreading work over threads. All of them compute in the default floating-point mode.

#[cfg(feature = "rayon")]
use rayon::prelude::*;

#[cfg(feature = "rayon")]
use crate::cpu::vector::with_default_floats;

/// Splits the rows of an output into spans of `lengths` rows. Rows after the last span belong to no user and are left out.
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

/// Runs `work` on every item, in any order.
pub(super) fn for_each<I: Send>(items: Vec<I>, work: impl Fn(I) + Send + Sync) {
    map(items, work);
}

/// The results of `work` on every item, in the order of the items.
pub(super) fn map<I: Send, R: Send>(items: Vec<I>, work: impl Fn(I) -> R + Send + Sync) -> Vec<R> {
    // A single item is not worth waking another thread for.
    #[cfg(feature = "rayon")]
    if items.len() > 1 && rayon::current_num_threads() > 1 {
        return items.into_par_iter().map(|item| with_default_floats(|| work(item))).collect();
    }
    items.into_iter().map(work).collect()
}

/// The number of threads that [`for_each`] and [`map`] use.
pub(super) fn count() -> usize {
    #[cfg(feature = "rayon")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "rayon"))]
    1
}
