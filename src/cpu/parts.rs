//! Cuts long runs of rows into parts, so that one long history keeps every thread busy.

use std::ops::Range;

/// Into how many parts a batch is cut, about. The batch alone decides: results do not depend on the number of threads.
const PARTS: usize = 64;

/// Some rows of one owner: a user's behaviours, a bag's ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Which of the runs it is a part of.
    pub(super) owner: usize,
    pub(super) rows: Range<usize>,
}

/// Cuts runs of rows where they are longer than a fair share of all rows and than `least`. Every run has at least one
/// part; parts come in the order of their rows.
pub(super) fn parts(runs: impl Iterator<Item = Range<usize>> + Clone, least: usize) -> Vec<Part> {
    let total: usize = runs.clone().map(|run| run.len()).sum();
    let longest = total.div_ceil(PARTS).max(least).max(1);
    let cut = |(owner, run): (usize, Range<usize>)| {
        let count = run.len().div_ceil(longest).max(1);
        // In two steps: the product of a length and a count could overflow.
        let edge = move |i: usize| run.start + run.len() / count * i + (run.len() % count).min(i);
        (0..count).map(move |i| Part { owner, rows: edge(i)..edge(i + 1) })
    };
    runs.enumerate().flat_map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_every_row_once_in_order() {
        for lengths in [vec![], vec![0], vec![1, 0, 5], vec![100_000, 3, 0, 900], vec![7; 300]] {
            let mut end = 0;
            let runs = lengths.iter().map(|length| {
                end += length;
                end - length..end
            });
            let runs: Vec<Range<usize>> = runs.collect();
            for least in [0, 1, 10, 1000] {
                let parts = parts(runs.iter().cloned(), least);
                assert!(parts.is_sorted_by_key(|part| part.owner));
                for (owner, run) in runs.iter().enumerate() {
                    let own: Vec<&Part> = parts.iter().filter(|part| part.owner == owner).collect();
                    assert_eq!(own.first().unwrap().rows.start, run.start);
                    assert_eq!(own.last().unwrap().rows.end, run.end);
                    assert!(own.windows(2).all(|pair| pair[0].rows.end == pair[1].rows.start));
                    assert!(own.len() == 1 || own.iter().all(|part| 2 * part.rows.len() >= least));
                }
                assert!(parts.len() <= runs.len() + PARTS);
            }
        }
    }
}
