//! Cutting long runs of rows into spans, so that one long history keeps every thread busy.

use std::ops::Range;

/// About how many spans a batch is cut into. A constant, so that results do not depend on the number of threads.
const SPANS: usize = 64;

/// Some rows of one owner: a user's behaviours, a bag's ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    /// The index of the owner's run.
    pub(super) owner: usize,
    pub(super) rows: Range<usize>,
}

/// Cuts the runs that are longer than both an equal share of all rows and `least`. Every run has at least one span;
/// spans are in the order of their rows.
pub(super) fn spans(runs: impl Iterator<Item = Range<usize>> + Clone, least: usize) -> Vec<Span> {
    let total: usize = runs.clone().map(|run| run.len()).sum();
    let longest = total.div_ceil(SPANS).max(least).max(1);
    let cut = |(owner, run): (usize, Range<usize>)| {
        let count = run.len().div_ceil(longest).max(1);
        // In two steps: the product of a length and a count could overflow.
        let edge = move |i: usize| run.start + run.len() / count * i + (run.len() % count).min(i);
        (0..count).map(move |i| Span { owner, rows: edge(i)..edge(i + 1) })
    };
    runs.enumerate().flat_map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_every_row_once_in_order() {
        for lengths in [vec![], vec![0], vec![1, 0, 5], vec![100_000, 3, 0, 900], vec![7; 300]] {
            let mut end = 0;
            let runs = lengths.iter().map(|length| {
                end += length;
                end - length..end
            });
            let runs: Vec<Range<usize>> = runs.collect();
            for least in [0, 1, 10, 1000] {
                let spans = spans(runs.iter().cloned(), least);
                assert!(spans.is_sorted_by_key(|span| span.owner));
                for (owner, run) in runs.iter().enumerate() {
                    let own: Vec<&Span> = spans.iter().filter(|span| span.owner == owner).collect();
                    assert_eq!(own.first().unwrap().rows.start, run.start);
                    assert_eq!(own.last().unwrap().rows.end, run.end);
                    assert!(own.windows(2).all(|pair| pair[0].rows.end == pair[1].rows.start));
                    assert!(own.len() == 1 || own.iter().all(|span| 2 * span.rows.len() >= least));
                }
                assert!(spans.len() <= runs.len() + SPANS);
            }
        }
    }
}
