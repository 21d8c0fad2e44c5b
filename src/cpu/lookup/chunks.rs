//! The pieces of work of a look-up of bags.

use crate::jagged::Jagged;
use std::ops::Range;

/// About how many rows make a chunk; a bag of more than twice as many is cut.
pub(super) const ROWS: usize = 1024;

/// The rows of a chunk of a bag that is cut: they are added up in one chain, and the sums of the chunks by pairs.
const CUT_ROWS: usize = 256;

/// Some whole bags, or a span of a long one.
pub(super) struct Chunk {
    pub(super) bags: Range<usize>,
    pub(super) rows: Range<usize>,
}

/// Cuts a batch of bags.
pub(super) fn cut(bags: &Jagged) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for (bag, rows) in bags.ranges().enumerate() {
        if let Some(last) = chunks.last_mut()
            && last.rows.end == rows.start
            && last.rows.start == bags.range(last.bags.start).start
            && last.rows.len() + last.bags.len() + rows.len() < ROWS
        {
            (last.bags.end, last.rows.end) = (bag + 1, rows.end);
            continue;
        }
        let count = if rows.len() < 2 * ROWS { 1 } else { rows.len() / CUT_ROWS };
        let edge = |i: usize| if i == count { rows.end } else { rows.start + i * CUT_ROWS };
        chunks.extend((0..count).map(|i| Chunk { bags: bag..bag + 1, rows: edge(i)..edge(i + 1) }));
    }
    chunks
}
