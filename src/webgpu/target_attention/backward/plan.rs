//! How the backward pass cuts a batch: spans of histories, each of which goes over all candidates of its user, and tiles of
//! candidates.

use std::ops::Range;

use crate::jagged::Batch;
use crate::ops::TargetAttention;
use crate::plan::best_tile_rows;
use crate::webgpu::launch::MOST_ITERATIONS;
use crate::webgpu::target_attention::attend::PIECES;

/// The cost of loading a behaviour, in output rows.
const LOAD: usize = 6;

/// The fewest and the most blocks of a span: with fewer, its partial results cost too much compared with its keys; with more, a sum
/// over its blocks is too long.
const BLOCKS: [usize; 2] = [2, 64];

/// The most parts in which a block is added up for the queries.
const MOST_SHARES: usize = 8;

/// What a batch is cut for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The most rows of histories in a span.
    pub(super) window: usize,
    /// The most bytes of partial results, if they can be kept below that.
    pub(super) partial_bytes: usize,
    /// Whether the gradients of the queries are asked for.
    pub(super) queries: bool,
}

/// Rows of a user (candidates × heads that share a key/value head) that are packed together.
#[derive(Debug, Clone, Copy)]
struct Tile {
    first_target: usize,
    first_row: usize,
    rows: usize,
    /// Of the user: the first partial result, and its spans.
    first_part: usize,
    spans: usize,
}

/// A span of a user's history.
#[derive(Debug, Clone)]
struct Piece {
    history: Range<usize>,
    /// All rows of the user.
    rows: usize,
    first_tile: usize,
    first_part: usize,
    first_target: usize,
    span: usize,
    spans: usize,
}

/// The work of one backward pass.
#[derive(Debug)]
pub(super) struct BackwardPlan {
    pub(super) tile_rows: usize,
    /// Parts of each block that are added up for the queries on their own.
    pub(super) shares: usize,
    /// The number of partial results, rows as wide as a query.
    pub(super) parts: usize,
    /// The most tiles of a user.
    pub(super) most_tiles: usize,
    /// The tiles of each user that one dispatch goes over.
    pub(super) tiles_per_dispatch: usize,
    /// Workgroups among which the tiles of a span are divided where softmax states are computed again.
    pub(super) splits: usize,
    tiles: Vec<Tile>,
    pieces: Vec<Piece>,
}

/// How one kernel goes over blocks and tiles.
struct Shape {
    tile_rows: usize,
    /// Behaviours of a block.
    block: usize,
    /// vec4s of a query and of a value.
    columns4: [usize; 2],
    group_heads: usize,
}

impl Shape {
    /// The parts of a block in which the sums for the queries give work to all threads.
    fn shares(&self) -> usize {
        let items = self.columns4[0] * self.tile_rows.div_ceil(8);
        (64 / items).clamp(1, MOST_SHARES).next_power_of_two()
    }

    /// The loop iterations of a thread for a block and a tile.
    fn iterations(&self, shares: usize) -> usize {
        let Self { tile_rows, block, columns4: [keys, values], group_heads } = *self;
        let history = |columns4: usize| (block / 8 * columns4).div_ceil(64) * (tile_rows / 4 + 2);
        let queries = (keys * tile_rows.div_ceil(8) * shares).div_ceil(64) * (block / 4 / shares + 2);
        let bias = (block * group_heads).div_ceil(64) * (tile_rows.div_ceil(group_heads) + 2);
        // Twice, because ends of loops count, and loops of branches that are not taken.
        2 * (keys + values + history(keys) + history(values) + queries + bias + 8)
    }

    /// The same where the softmax states of all rows are computed again.
    fn state_iterations(&self) -> usize {
        2 * self.tile_rows * (self.block / 64 * (self.columns4[0] + 1) + 2 * 64 + 4)
    }
}

impl BackwardPlan {
    pub(super) fn new(op: &TargetAttention, batch: &Batch, limits: Limits) -> Self {
        let group_heads = op.heads / op.kv_heads;
        let tile_rows = best_tile_rows(batch, group_heads, &[4, 8, 16, 32], LOAD);
        let columns4 = [op.width.div_ceil(4), op.value_width.div_ceil(4)];
        let shape = Shape { tile_rows, block: (2048 / tile_rows).min(256), columns4, group_heads };
        let mut shares = if limits.queries { shape.shares() } else { 1 };
        let tiles_of = |targets: usize| targets.saturating_mul(group_heads).div_ceil(tile_rows);
        let most_tiles = batch.targets().ranges().map(|targets| tiles_of(targets.len())).max().unwrap_or(0);
        let units = (MOST_ITERATIONS / shape.iterations(shares)).max(1);
        let tiles_per_dispatch = most_tiles.clamp(1, units);
        // A span is so many blocks; blocks are shorter where a binding does not hold one.
        let block = shape.block.min(limits.window).max(1);
        let most = (units / tiles_per_dispatch).clamp(1, BLOCKS[1]).min((limits.window / block).max(1));
        let work = |(history, targets): (Range<usize>, Range<usize>)| {
            history.len().div_ceil(block).saturating_mul(tiles_of(targets.len()))
        };
        let work = batch.requests().map(work).fold(0, usize::saturating_add);
        let mut wanted = work.div_ceil(PIECES.div_ceil(op.kv_heads)).max(BLOCKS[0]);
        let blocks_of = |wanted: usize, targets: usize| {
            (wanted / tiles_of(targets).max(1)).clamp(BLOCKS[0].min(most), most)
        };
        let spans_of = |wanted: usize, history: usize, targets: usize| {
            history.div_ceil(block * blocks_of(wanted, targets))
        };
        let states = |wanted: usize| {
            let user = |(history, targets): (Range<usize>, Range<usize>)| {
                spans_of(wanted, history.len(), targets.len()).saturating_mul(targets.len() * op.heads)
            };
            batch.requests().map(user).fold(0, usize::saturating_add)
        };
        let row = if limits.queries { op.width } else { 0 };
        let fits = |wanted: usize, shares: usize| {
            states(wanted).saturating_mul((shares * row + 2) * 4) <= limits.partial_bytes
        };
        if !fits(wanted, shares) {
            shares = 1;
        }
        while !fits(wanted, shares) && wanted < most.saturating_mul(most_tiles) {
            wanted = wanted.saturating_mul(2);
        }
        let mut plan = Self {
            tile_rows,
            shares,
            parts: 0,
            most_tiles,
            tiles_per_dispatch,
            splits: 1,
            tiles: Vec::new(),
            pieces: Vec::new(),
        };
        for (history, targets) in batch.requests() {
            let spans = spans_of(wanted, history.len(), targets.len());
            plan.add_user(&history, &targets, (spans, block), (group_heads, op.heads));
        }
        let longest = plan.pieces.iter().map(|piece| piece.history.len().div_ceil(block)).max().unwrap_or(1);
        let state_tiles = (MOST_ITERATIONS / shape.state_iterations() / longest.max(1)).max(1);
        plan.splits = most_tiles.div_ceil(state_tiles).max(1);
        plan
    }

    /// Adds a user's tiles and pieces; spans are equal, in blocks.
    fn add_user(
        &mut self,
        history: &Range<usize>,
        targets: &Range<usize>,
        (spans, block): (usize, usize),
        (group_heads, heads): (usize, usize),
    ) {
        let (rows, first_tile, first_part) = (targets.len() * group_heads, self.tiles.len(), self.parts);
        for first_row in (0..rows).step_by(self.tile_rows) {
            let own = self.tile_rows.min(rows - first_row);
            self.tiles.push(Tile { first_target: targets.start, first_row, rows: own, first_part, spans });
        }
        let blocks = history.len().div_ceil(block);
        let edge = |span: usize| history.end.min(history.start + blocks * span / spans * block);
        for span in 0..spans {
            self.pieces.push(Piece {
                history: edge(span)..edge(span + 1),
                rows,
                first_tile,
                first_part,
                first_target: targets.start,
                span,
                spans,
            });
        }
        self.parts += spans * targets.len() * heads * self.shares;
    }

    pub(super) fn tile_count(&self) -> usize {
        self.tiles.len()
    }

    /// Per tile: `[first candidate, first row, rows, 0] [first partial result, spans, 0, 0]`.
    pub(super) fn tile_words(&self) -> Vec<u32> {
        let words = |tile: &Tile| {
            [tile.first_target, tile.first_row, tile.rows, 0, tile.first_part, tile.spans, 0, 0]
                .map(|value| value as u32)
        };
        self.tiles.iter().flat_map(words).collect()
    }

    /// Per piece: `[rows, first tile, first partial result, first candidate] [history start, history end, span, spans]`.
    pub(super) fn piece_words(&self) -> Vec<u32> {
        let words = |piece: &Piece| {
            let Range { start, end } = piece.history;
            let user = [piece.rows, piece.first_tile, piece.first_part, piece.first_target];
            let span = [start, end, piece.span, piece.spans];
            [user, span].map(|words| words.map(|value| value as u32))
        };
        self.pieces.iter().flat_map(words).flatten().collect()
    }

    /// Groups consecutive pieces whose histories span at most `rows` rows. Each group comes with the rows it spans.
    pub(super) fn windows(&self, rows: usize) -> Vec<(Range<usize>, Range<usize>)> {
        let mut windows: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        for (index, Piece { history, .. }) in self.pieces.iter().enumerate() {
            if let Some((pieces, span)) = windows.last_mut()
                && history.end - span.start <= rows
            {
                (pieces.end, span.end) = (index + 1, history.end);
                continue;
            }
            windows.push((index..index + 1, history.clone()));
        }
        windows
    }
}
