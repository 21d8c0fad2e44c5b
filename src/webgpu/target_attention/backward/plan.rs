//! How the backward pass cuts a batch: spans of histories, each of which goes over all candidates of its user, and tiles of
//! candidates.

use std::ops::Range;

use crate::jagged::Batch;
use crate::ops::TargetAttention;
use crate::plan::best_tile_rows;
use crate::webgpu::launch::MOST_ITERATIONS;

/// The cost of loading a behaviour, in output rows.
const LOAD: usize = 6;

/// Pieces that keep a large GPU busy: a few for each of the several hundred workgroups that run at a time.
const PIECES: usize = 1024;

/// The fewest and the most blocks of a span: with fewer, its partial results cost too much compared with its keys; with more, a sum
/// over its blocks is too long.
const BLOCKS: [usize; 2] = [2, 64];

/// Blocks of a span of a user without candidates, whose gradients are zeros.
const EMPTY_BLOCKS: usize = 2;

/// The most parts in which a block is added up for the queries.
const MOST_SHARES: usize = 8;

/// What a batch is cut for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The most rows of histories in a span.
    pub(super) window: usize,
    /// The most bytes of partial results, and of packed rows; one user's may be more.
    pub(super) bytes: usize,
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
    /// Where the user's history ends.
    end: usize,
}

/// A span of a user's history.
#[derive(Debug, Clone)]
struct Piece {
    history: Range<usize>,
    /// The length of the user's whole history.
    length: usize,
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
    /// The candidates of the users.
    pub(super) targets: Range<usize>,
    /// Parts of each block that are added up for the queries on their own.
    pub(super) shares: usize,
    /// The number of partial results, rows as wide as a query.
    pub(super) parts: usize,
    /// The most tiles of a user.
    pub(super) most_tiles: usize,
    /// The tiles of each user that one dispatch goes over.
    pub(super) tiles_per_dispatch: usize,
    pub(super) states: StatesPlan,
    tiles: Vec<Tile>,
    pieces: Vec<Piece>,
}

/// How softmax states are computed again.
#[derive(Debug, Clone, Copy)]
pub(super) struct StatesPlan {
    /// Rows that a workgroup looks at together; a divisor of the tile's.
    pub(super) chunk: usize,
    /// Workgroups among which the chunks of a user are divided, for each span.
    pub(super) splits: usize,
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
    fn new(op: &TargetAttention, batch: &Batch) -> Self {
        let group_heads = op.heads / op.kv_heads;
        let tile_rows = best_tile_rows(batch, group_heads, &[4, 8, 16, 32], LOAD);
        let columns4 = [op.width.div_ceil(4), op.value_width.div_ceil(4)];
        Self { tile_rows, block: (2048 / tile_rows).min(256), columns4, group_heads }
    }

    /// The tiles of a user.
    fn tiles_of(&self, targets: usize) -> usize {
        targets.saturating_mul(self.group_heads).div_ceil(self.tile_rows)
    }

    /// The behaviours of a block, which are fewer where a binding does not hold that many.
    fn block(&self, limits: Limits) -> usize {
        self.block.min(limits.window).max(1)
    }

    /// Blocks × tiles that a thread may go over.
    fn units(&self, shares: usize) -> usize {
        (MOST_ITERATIONS / self.iterations(shares)).max(1)
    }

    /// The most blocks of a span.
    fn most_blocks(&self, limits: Limits) -> usize {
        self.units(1)
            .min(self.units(self.shares()))
            .min(BLOCKS[1])
            .min((limits.window / self.block(limits)).max(1))
    }

    /// The parts of a block in which the sums for the queries give work to all threads.
    fn shares(&self) -> usize {
        let items = self.columns4[0] * self.tile_rows.div_ceil(8);
        (64 / items).clamp(1, MOST_SHARES).next_power_of_two()
    }

    /// The loop iterations of a thread for a block and a tile, where every sum is computed again without what is left out.
    fn iterations(&self, shares: usize) -> usize {
        let Self { tile_rows, block, columns4: [keys, values], group_heads } = *self;
        let history = |columns4: usize| (block / 8 * columns4).div_ceil(64) * (tile_rows / 4 + tile_rows + 4);
        let share = block / 4 / shares;
        let queries = (keys * tile_rows.div_ceil(8) * shares).div_ceil(64) * (share + 6 * share + 4);
        let bias = (block * group_heads).div_ceil(64) * (tile_rows.div_ceil(group_heads) + 2);
        // Twice, because ends of loops count, and loops of branches that are not taken.
        2 * (keys + values + history(keys) + history(values) + queries + bias + 8)
    }

    /// How the states are computed again of spans of so many behaviours, where those of all rows are.
    fn states(&self, span: usize, most_rows: usize) -> StatesPlan {
        let row = span.div_ceil(64) * (self.columns4[0] + 2) + 2 * 64 + 4;
        let iterations = |chunk: usize| 2 * (chunk * row + 4);
        let mut chunk = self.tile_rows;
        while chunk > 1 && iterations(chunk) > MOST_ITERATIONS {
            chunk /= 2;
        }
        let chunks_each = (MOST_ITERATIONS / iterations(chunk)).max(1);
        StatesPlan { chunk, splits: most_rows.div_ceil(chunk).div_ceil(chunks_each).max(1) }
    }
}

/// The users that are computed together, one group after the other: as many as the limits allow.
pub(super) fn groups(op: &TargetAttention, batch: &Batch, limits: Limits) -> Vec<Range<usize>> {
    let shape = Shape::new(op, batch);
    let most = shape.most_blocks(limits);
    let mut groups: Vec<Range<usize>> = Vec::new();
    let (mut packed, mut partial) = (0, 0);
    for (user, (history, targets)) in batch.requests().enumerate() {
        let rows = shape.tiles_of(targets.len()).saturating_mul(shape.tile_rows * op.kv_heads);
        let own_packed = rows.saturating_mul((shape.columns4[0] + shape.columns4[1] + 1) * 16);
        let spans = history.len().div_ceil(shape.block(limits) * most);
        let own_partial = targets.len().saturating_mul(op.heads * spans).saturating_mul((op.width + 2) * 4);
        packed = own_packed.saturating_add(packed);
        partial = own_partial.saturating_add(partial);
        match groups.last_mut() {
            Some(group) if packed.max(partial) <= limits.bytes => group.end = user + 1,
            _ => {
                groups.push(user..user + 1);
                (packed, partial) = (own_packed, own_partial);
            }
        }
    }
    groups
}

impl BackwardPlan {
    /// The plan for some of the users. Tiles have one shape for the whole batch.
    pub(super) fn new(op: &TargetAttention, batch: &Batch, users: Range<usize>, limits: Limits) -> Self {
        let group_heads = op.heads / op.kv_heads;
        let shape = Shape::new(op, batch);
        let tile_rows = shape.tile_rows;
        let tiles_of = |targets: usize| shape.tiles_of(targets);
        let requests = || batch.requests().skip(users.start).take(users.len());
        let mut shares = if limits.queries { shape.shares() } else { 1 };
        let most_tiles = requests().map(|(_, targets)| tiles_of(targets.len())).max().unwrap_or(0);
        // Spans come first: of more tiles than a thread may go over, a dispatch takes a part.
        let (block, most) = (shape.block(limits), shape.most_blocks(limits));
        let work = |(history, targets): (Range<usize>, Range<usize>)| {
            history.len().div_ceil(block).saturating_mul(tiles_of(targets.len()))
        };
        let work = requests().map(work).fold(0, usize::saturating_add);
        let mut wanted = work.div_ceil(PIECES.div_ceil(op.kv_heads)).max(BLOCKS[0]);
        let blocks_of = |wanted: usize, targets: usize| match tiles_of(targets) {
            0 => EMPTY_BLOCKS.min(most),
            tiles => (wanted / tiles).clamp(BLOCKS[0].min(most), most),
        };
        let spans_of = |wanted: usize, history: usize, targets: usize| {
            history.div_ceil(block * blocks_of(wanted, targets))
        };
        let states = |wanted: usize| {
            let user = |(history, targets): (Range<usize>, Range<usize>)| {
                spans_of(wanted, history.len(), targets.len()).saturating_mul(targets.len() * op.heads)
            };
            requests().map(user).fold(0, usize::saturating_add)
        };
        let row = if limits.queries { op.width } else { 0 };
        let fits = |wanted: usize, shares: usize| {
            states(wanted).saturating_mul((shares * row + 2) * 4) <= limits.bytes
        };
        if !fits(wanted, shares) {
            shares = 1;
        }
        while !fits(wanted, shares) && wanted < most.saturating_mul(most_tiles) {
            wanted = wanted.saturating_mul(2);
        }
        let mut plan = Self {
            tile_rows,
            targets: requests()
                .fold(0..0, |all, (_, own)| if all.is_empty() { own } else { all.start..own.end }),
            shares,
            parts: 0,
            most_tiles,
            tiles_per_dispatch: 1,
            states: StatesPlan { chunk: 1, splits: 1 },
            tiles: Vec::new(),
            pieces: Vec::new(),
        };
        for (history, targets) in requests() {
            let spans = spans_of(wanted, history.len(), targets.len());
            plan.add_user(&history, &targets, (spans, block), (group_heads, op.heads));
        }
        let longest = plan.pieces.iter().map(|piece| piece.history.len()).max().unwrap_or(0);
        plan.tiles_per_dispatch =
            (shape.units(shares) / longest.div_ceil(block).max(1)).clamp(1, most_tiles.max(1));
        plan.states = shape.states(longest, most_tiles * tile_rows);
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
            let (first_target, end) = (targets.start, history.end);
            self.tiles.push(Tile { first_target, first_row, rows: own, first_part, spans, end });
        }
        let blocks = history.len().div_ceil(block);
        let edge = |span: usize| history.end.min(history.start + blocks * span / spans * block);
        for span in 0..spans {
            self.pieces.push(Piece {
                history: edge(span)..edge(span + 1),
                length: history.len(),
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

    /// Per tile: `[first candidate, first row, rows, 0] [first partial result, spans, 0, history end]`.
    pub(super) fn tile_words(&self) -> Vec<u32> {
        let words = |tile: &Tile| {
            [tile.first_target, tile.first_row, tile.rows, 0, tile.first_part, tile.spans, 0, tile.end]
                .map(|value| value as u32)
        };
        self.tiles.iter().flat_map(words).collect()
    }

    /// Per piece: `[rows, first tile, first partial result, first candidate] [history start, history end, span, spans]
    /// [length of the user's whole history, 0, 0, 0]`.
    pub(super) fn piece_words(&self) -> Vec<u32> {
        let words = |piece: &Piece| {
            let Range { start, end } = piece.history;
            let user = [piece.rows, piece.first_tile, piece.first_part, piece.first_target];
            let span = [start, end, piece.span, piece.spans];
            [user, span, [piece.length, 0, 0, 0]].map(|words| words.map(|value| value as u32))
        };
        self.pieces.iter().flat_map(words).flatten().collect()
    }

    /// Groups consecutive pieces whose histories follow one another and span at most `rows` rows. Each group comes with the rows it spans,
    /// all of which are written.
    pub(super) fn windows(&self, rows: usize) -> Vec<(Range<usize>, Range<usize>)> {
        let mut windows: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        for (index, Piece { history, .. }) in self.pieces.iter().enumerate() {
            if let Some((pieces, span)) = windows.last_mut()
                && history.start == span.end
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jagged::Jagged;

    const PARTIAL_BYTES: usize = 64 << 20;

    fn plans(op: &TargetAttention, histories: &[usize], targets: &[usize]) -> Vec<BackwardPlan> {
        let jagged = |lengths: &[usize]| Jagged::from_lengths(lengths).expect("lengths");
        let batch = Batch::new(jagged(histories), jagged(targets)).expect("a batch");
        let limits = Limits { window: 1 << 19, bytes: PARTIAL_BYTES, queries: true };
        let groups = groups(op, &batch, limits);
        assert!(groups.is_sorted_by(|a, b| a.end == b.start), "{groups:?}");
        assert_eq!((groups[0].start, groups[groups.len() - 1].end), (0, histories.len()));
        groups.into_iter().map(|users| BackwardPlan::new(op, &batch, users, limits)).collect()
    }

    fn shapes() -> impl Iterator<Item = (TargetAttention, Vec<usize>, Vec<usize>)> {
        let batches = [
            (vec![10_000], vec![1000]),
            (vec![100_000, 30_000], vec![100, 0]),
            (vec![100_000; 8], vec![1; 8]),
            (vec![5000; 40], vec![40; 40]),
            (vec![3, 0, 7], vec![1, 2, 0]),
            // A history of nobody among many long ones.
            ([vec![60_000], vec![30_000; 200]].concat(), [vec![0], vec![50; 200]].concat()),
        ];
        let ops = [(4, 1, 1), (64, 1, 1), (64, 4, 4), (64, 8, 2), (128, 2, 1), (256, 1, 1)];
        ops.into_iter().flat_map(move |(width, heads, kv_heads)| {
            let op = TargetAttention { heads, kv_heads, ..TargetAttention::new(width) };
            batches.clone().map(|(histories, targets)| (op, histories, targets))
        })
    }

    #[test]
    fn partial_results_stay_small_where_a_history_is_cut() {
        for (op, histories, targets) in shapes() {
            for plan in plans(&op, &histories, &targets) {
                let bytes = plan.parts * op.width * 4;
                assert!(bytes <= PARTIAL_BYTES, "{op:?} {histories:?} {targets:?}: {bytes}");
            }
        }
    }

    #[test]
    fn no_thread_loops_longer_than_a_device_allows() {
        for (op, histories, targets) in shapes() {
            for plan in plans(&op, &histories, &targets) {
                let needed = most_iterations(&op, &plan);
                assert!(needed <= MOST_ITERATIONS, "{op:?} {histories:?} {targets:?}: {needed}");
            }
        }
    }

    fn most_iterations(op: &TargetAttention, plan: &BackwardPlan) -> usize {
        let (width4, tile_rows) = (op.width.div_ceil(4), plan.tile_rows);
        let group_heads = op.heads / op.kv_heads;
        let block = (2048 / tile_rows).min(256);
        let shape = Shape { tile_rows, block, columns4: [width4; 2], group_heads };
        let of_piece = |piece: &Piece| {
            let length = piece.history.len();
            if piece.rows == 0 {
                return length * (2 * op.width.div_ceil(64) + group_heads.div_ceil(64) + 4);
            }
            let tiles = plan.tiles_per_dispatch.min(piece.rows.div_ceil(tile_rows));
            let gradients = length.div_ceil(block) * tiles * shape.iterations(plan.shares);
            let chunks = piece.rows.div_ceil(plan.states.chunk).div_ceil(plan.states.splits);
            gradients.max(2 * chunks * plan.states.chunk * (length / 64 * (width4 + 1) + 2 * 64))
        };
        plan.pieces.iter().map(of_piece).max().unwrap_or(0)
    }
}
