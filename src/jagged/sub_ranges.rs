//! Ranges of rows that are anywhere: with gaps, in any order, overlapping.

use std::ops::Range;

/// Ranges that are not one after the other from 0. An empty one is at the end of the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SubRanges {
    pub(super) ranges: Vec<Range<usize>>,
    /// The largest end.
    pub(super) end: usize,
    /// Two users that share a row, and the row.
    pub(super) shared: Option<([usize; 2], usize)>,
}

impl SubRanges {
    /// The ranges, or their offsets where they are one after the other from 0.
    pub(super) fn or_offsets(mut ranges: Vec<Range<usize>>) -> Result<Self, Vec<usize>> {
        let mut end = 0;
        for range in &mut ranges {
            if range.start >= range.end {
                *range = end..end;
            }
            end = range.end;
        }
        let mut offsets = Vec::with_capacity(ranges.len() + 1);
        offsets.push(0);
        for range in &ranges {
            if range.start != offsets[offsets.len() - 1] {
                let (end, shared) =
                    (ranges.iter().map(|range| range.end).max().unwrap_or(0), shared(&ranges));
                return Ok(Self { ranges, end, shared });
            }
            offsets.push(range.end);
        }
        Err(offsets)
    }

    /// The rows before the end that are in no range, of ranges that share none.
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    pub(super) fn gaps(&self) -> Vec<Range<usize>> {
        let (mut gaps, mut end) = (Vec::new(), 0);
        for range in self.ascending() {
            if range.start > end {
                gaps.push(end..range.start);
            }
            end = range.end;
        }
        gaps
    }

    /// The ranges that are not empty, by where they start.
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    pub(super) fn ascending(&self) -> Vec<Range<usize>> {
        let mut ranges: Vec<_> = self.ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
        ranges.sort_by_key(|range| range.start);
        ranges
    }
}

/// Two ranges that share a row, and the row.
fn shared(ranges: &[Range<usize>]) -> Option<([usize; 2], usize)> {
    let mut order: Vec<usize> = (0..ranges.len()).filter(|&user| !ranges[user].is_empty()).collect();
    order.sort_by_key(|&user| ranges[user].start);
    // Of ranges that share no row, each ends before the next starts.
    let shares = |pair: &&[usize]| ranges[pair[1]].start < ranges[pair[0]].end;
    let pair = order.windows(2).find(shares)?;
    let users = [pair[0].min(pair[1]), pair[0].max(pair[1])];
    Some((users, ranges[pair[1]].start))
}
