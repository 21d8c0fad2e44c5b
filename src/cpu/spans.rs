//! Cutting long runs of rows into spans, so that one long history keeps every thread busy.

use std::ops::Range;

use crate::cpu::vector::NarrowRows;

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

/// Splits the rows of an output by the ranges of histories or their spans, which share no rows and may be in any order. Rows between them
/// become zeros; rows after the last belong to no user and are left out.
pub(super) fn split_ranges<'a>(
    ranges: impl Iterator<Item = Range<usize>>,
    mut rows: NarrowRows<'a>,
    width: usize,
) -> Vec<NarrowRows<'a>> {
    let ranges: Vec<Range<usize>> = ranges.collect();
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    order.sort_by_key(|&index| ranges[index].start);
    let mut parts: Vec<Option<NarrowRows<'a>>> = ranges.iter().map(|_| None).collect();
    let mut end = 0;
    for index in order {
        let Range { start, end: own_end } = ranges[index];
        // An empty range may be anywhere.
        if own_end > start {
            rows.split_off((start - end) * width).clear();
            end = own_end;
        }
        parts[index] = Some(rows.split_off((own_end - start) * width));
    }
    parts.into_iter().flatten().collect()
}

/// [`split_ranges`] of `f32` rows.
pub(super) fn split_numbers<'a>(
    ranges: impl Iterator<Item = Range<usize>>,
    rows: &'a mut [f32],
    width: usize,
) -> impl Iterator<Item = &'a mut [f32]> {
    let part = |rows: NarrowRows<'a>| match rows {
        NarrowRows::F32(rows) => Some(rows),
        _ => None,
    };
    split_ranges(ranges, NarrowRows::F32(rows), width).into_iter().filter_map(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_in_no_range_are_zeros_and_those_after_the_last_are_left() {
        let mut rows = [7.0; 22];
        let ranges = [6..8, 8..8, 1..3, 3..4, 4..4, 0..0];
        let parts: Vec<&mut [f32]> = split_numbers(ranges.iter().cloned(), &mut rows, 2).collect();
        assert_eq!(parts.iter().map(|part| part.len() / 2).collect::<Vec<_>>(), [2, 0, 2, 1, 0, 0]);
        for (i, part) in parts.into_iter().enumerate() {
            part.fill(i as f32 + 1.0);
        }
        let expected = [0.0, 3.0, 3.0, 4.0, 0.0, 0.0, 1.0, 1.0, 7.0, 7.0, 7.0].map(|row| [row; 2]);
        assert_eq!(rows, *expected.as_flattened());
    }

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
