//! Gradients of decoupled embeddings over all behaviours: the chunks of behaviours that have gradients at a time, their spans and tiles.

use std::ops::Range;

use crate::jagged::Batch;

/// The most candidates of a tile: `kernels/decoupled/chunks.cuh`, `shaders/decoupled/all_pairs.wgsl`.
pub(crate) const TILE_CANDIDATES: usize = 16;
/// The most behaviours of a span.
pub(crate) const SPAN: usize = 256;
/// The numbers of the gradients of behaviours that are held at a time, and of partial sums of candidates.
const HELD: usize = 1 << 22;
/// The pairs whose weights are.
const PAIRS: usize = 1 << 21;
/// Behaviours that are held however wide their rows are, and the most that are however narrow.
const ROWS: [usize; 2] = [512, 1 << 16];

/// What a chunk may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ChunkLimits {
    /// Behaviours.
    pub(crate) rows: usize,
    /// Pairs of a behaviour and a candidate.
    pub(crate) pairs: usize,
    /// Partial rows of candidates.
    pub(crate) partials: usize,
}

/// The chunks of a batch, and the lists that kernels read.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    /// At least one.
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) spans: Vec<ChunkSpan>,
    pub(crate) tiles: Vec<ChunkTile>,
    pub(crate) merges: Vec<ChunkMerge>,
}

/// Behaviours of a batch whose gradients are held at a time; those of users without candidates may be among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) behaviours: Range<usize>,
    pub(crate) pairs: usize,
    pub(crate) partials: usize,
    pub(crate) spans: Range<usize>,
    pub(crate) tiles: Range<usize>,
    pub(crate) merges: Range<usize>,
}

/// Behaviours of one user, against all of the user's candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkSpan {
    /// The first, counted from that of the chunk.
    pub(crate) row: u32,
    pub(crate) rows: u32,
    pub(crate) first_target: u32,
    pub(crate) targets: u32,
    /// Where its pairs, `[targets, rows]`, and its partial results, `[targets]`, begin.
    pub(crate) pairs: u32,
    pub(crate) partial: u32,
}

/// A span and up to [`TILE_CANDIDATES`] candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkTile {
    /// Of all spans of the batch.
    pub(crate) span: u32,
    /// Counted from the first candidate of the user.
    pub(crate) first_row: u32,
}

/// Up to [`TILE_CANDIDATES`] candidates, whose partial results of the spans of a chunk are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkMerge {
    pub(crate) first_target: u32,
    pub(crate) rows: u32,
    /// The first of the first span; from a span to the next.
    pub(crate) partial: u32,
    pub(crate) step: u32,
    pub(crate) spans: u32,
}

impl ChunkLimits {
    /// For rows of these widths, of attention and of representation.
    pub(crate) fn new(widths: [usize; 2]) -> Self {
        let all = widths.iter().fold(0usize, |sum, &width| sum.saturating_add(width)).max(1);
        Self {
            rows: (HELD / all).clamp(ROWS[0], ROWS[1]),
            pairs: PAIRS,
            partials: (HELD / widths[0].max(widths[1]).max(1)).max(1),
        }
    }
}

impl Chunks {
    /// Cuts a batch whose rows a `u32` can count.
    pub(crate) fn new(batch: &Batch, limits: &ChunkLimits) -> Self {
        let mut all = Self::default();
        let mut chunk = Chunk::default();
        let is_run = batch.histories().offsets().is_some();
        for (history, targets) in batch.requests().filter(|(_, targets)| !targets.is_empty()) {
            let mut start = history.start;
            let mut part = all.spans.len();
            while start < history.end {
                // The rows of a chunk are added up as a run: among them must be none of another chunk.
                if !chunk.spans.is_empty() && !is_run && start != chunk.behaviours.end {
                    all.end_part(part, &mut chunk);
                    all.end_chunk(&mut chunk);
                    part = all.spans.len();
                }
                let is_new = chunk.spans.is_empty();
                if is_new {
                    chunk.behaviours = start..start;
                }
                let room = limits.rows.saturating_sub(start - chunk.behaviours.start);
                let pairs = limits.pairs.saturating_sub(chunk.pairs) / targets.len();
                let fits = chunk.partials + targets.len() <= limits.partials;
                let rows = SPAN.min(history.end - start).min(room).min(pairs);
                if (rows == 0 || !fits) && !is_new {
                    all.end_part(part, &mut chunk);
                    all.end_chunk(&mut chunk);
                    part = all.spans.len();
                    continue;
                }
                all.add_span(start..start + rows.max(1), &targets, &mut chunk);
                start += rows.max(1);
            }
            all.end_part(part, &mut chunk);
        }
        if !chunk.spans.is_empty() || all.chunks.is_empty() {
            all.end_chunk(&mut chunk);
        }
        all
    }

    fn add_span(&mut self, rows: Range<usize>, targets: &Range<usize>, chunk: &mut Chunk) {
        let span = self.spans.len();
        self.spans.push(ChunkSpan {
            row: (rows.start - chunk.behaviours.start) as u32,
            rows: rows.len() as u32,
            first_target: targets.start as u32,
            targets: targets.len() as u32,
            pairs: chunk.pairs as u32,
            partial: chunk.partials as u32,
        });
        let firsts = (0..targets.len()).step_by(TILE_CANDIDATES);
        self.tiles.extend(firsts.map(|first| ChunkTile { span: span as u32, first_row: first as u32 }));
        chunk.behaviours.end = rows.end;
        chunk.spans.end = self.spans.len();
        chunk.tiles.end = self.tiles.len();
        chunk.pairs += rows.len() * targets.len();
        chunk.partials += targets.len();
    }

    /// Ends the spans of a user in a chunk, of which that at `first` is the first.
    fn end_part(&mut self, first: usize, chunk: &mut Chunk) {
        let Some(&ChunkSpan { first_target, targets, partial, .. }) = self.spans.get(first) else { return };
        let spans = (self.spans.len() - first) as u32;
        let merge = |row: u32| ChunkMerge {
            first_target: first_target + row,
            rows: (targets - row).min(TILE_CANDIDATES as u32),
            partial: partial + row,
            step: targets,
            spans,
        };
        self.merges.extend((0..targets).step_by(TILE_CANDIDATES).map(merge));
        chunk.merges.end = self.merges.len();
    }

    fn end_chunk(&mut self, chunk: &mut Chunk) {
        self.chunks.push(chunk.clone());
        let next = |range: &Range<usize>| range.end..range.end;
        *chunk = Chunk {
            spans: next(&chunk.spans),
            tiles: next(&chunk.tiles),
            merges: next(&chunk.merges),
            ..Chunk::default()
        };
    }

    /// The most of something that any chunk has.
    pub(crate) fn most(&self, of: impl Fn(&Chunk) -> usize) -> usize {
        self.chunks.iter().map(of).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jagged::Jagged;

    fn batch(histories: &[usize], targets: &[usize]) -> Batch {
        let jagged = |lengths| Jagged::from_lengths(lengths).expect("lengths");
        Batch::new(jagged(histories), jagged(targets)).expect("a batch")
    }

    #[test]
    fn chunks_hold_every_pair_once() {
        let batch = batch(&[700, 0, 9, 5000, 3], &[20, 3, 0, 1, 40]);
        for limits in [
            ChunkLimits::new([16, 32]),
            ChunkLimits { rows: 300, pairs: 2000, partials: 100 },
            ChunkLimits { rows: 1, pairs: 1, partials: 1 },
        ] {
            let all = Chunks::new(&batch, &limits);
            let mut pairs = 0;
            for chunk in &all.chunks {
                let spans = &all.spans[chunk.spans.clone()];
                assert!(spans.len() == 1 || chunk.behaviours.len() <= limits.rows, "{chunk:?}");
                assert!(spans.len() == 1 || chunk.pairs <= limits.pairs, "{chunk:?}");
                assert!(spans.len() == 1 || chunk.partials <= limits.partials, "{chunk:?}");
                let own = |span: &ChunkSpan| span.rows as usize * span.targets as usize;
                assert_eq!(spans.iter().map(own).sum::<usize>(), chunk.pairs);
                let partials = &all.merges[chunk.merges.clone()];
                let merged = partials.iter().map(|merge| (merge.rows * merge.spans) as usize).sum::<usize>();
                assert_eq!(merged, chunk.partials);
                pairs += chunk.pairs;
            }
            assert_eq!(pairs as u64, batch.pairs());
        }
    }

    #[test]
    fn chunks_of_sub_ranges_share_no_rows() {
        let histories = Jagged::from_starts(&[500, 0, 300, 310], &[20, 40, 10, 9], 600).expect("ranges");
        let targets = Jagged::from_lengths(&[2, 3, 1, 4]).expect("lengths");
        let all = Chunks::new(&Batch::new(histories, targets).expect("a batch"), &ChunkLimits::new([4, 4]));
        let rows: Vec<Range<usize>> = all.chunks.iter().map(|chunk| chunk.behaviours.clone()).collect();
        assert_eq!(rows, [500..520, 0..40, 300..319]);
        assert_eq!(all.chunks.iter().map(|chunk| chunk.spans.len()).collect::<Vec<_>>(), [1, 1, 2]);
        let merged: u32 = all.merges.iter().map(|merge| merge.rows * merge.spans).sum();
        assert_eq!(merged, 10);
    }

    #[test]
    fn an_empty_batch_has_a_chunk() {
        assert_eq!(Chunks::new(&batch(&[], &[]), &ChunkLimits::new([1, 1])).chunks, [Chunk::default()]);
    }
}
