//! Search. Vector instructions compare the scores of a block with the worst score that each candidate keeps; only the few
//! behaviours that pass are added to the candidate's list.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::cpu::pieces;
use crate::cpu::selection::best::{Best, Floor};
use crate::cpu::threads::{for_each, split_rows};
use crate::cpu::vector::{Instructions, Kernel, LANES, Lanes, Row};
use crate::host::Host;
use crate::jagged::Batch;
use crate::ops::{EMPTY_SLOT, SelectionMut};
use crate::plan::{self, Piece, Plan};

/// The number of behaviours in a block.
pub(in crate::cpu) const BLOCK: usize = 64;

/// Scores of behaviours against sixteen candidates at a time. A block of behaviours is read once, and all candidates score it
/// from the L1 cache. Every function must be `#[inline(always)]`, as in a [`Kernel`].
pub(in crate::cpu) trait Scoring: Sync {
    /// Candidates of one user, and scratch for a block of the history.
    type Block;

    /// The candidates.
    fn start<L: Lanes>(&self, l: L, targets: Range<usize>) -> Self::Block;

    /// Reads a block of behaviours, at most [`BLOCK`] of them, before the `next` one; returns how many may be kept. Scores are of
    /// those.
    fn read<L: Lanes>(&self, l: L, block: &mut Self::Block, rows: Range<usize>, next: Range<usize>) -> usize;

    /// The place in the block of the behaviour with the `index`-th score.
    #[inline(always)]
    fn place(_block: &Self::Block, index: usize) -> usize {
        index
    }

    /// Computes the scores of the block's first behaviours against the candidates of a group of [`LANES`]. Lanes without a
    /// candidate hold any number. Equal rows have equal scores.
    fn scores<L: Lanes>(&self, l: L, block: &Self::Block, group: usize, scores: &mut [Row]);
}

/// Cuts a span of a history into blocks; each comes with the block after it.
pub(in crate::cpu) fn blocks(history: &Range<usize>) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let end = history.end;
    let next = move |start: usize| end.min(start + BLOCK);
    history.clone().step_by(BLOCK).map(move |start| (start..next(start), next(start)..next(next(start))))
}

/// The search state of one tile, shared by its pieces.
struct Tile<O> {
    floors: Vec<Floor>,
    found: Mutex<Found<O>>,
}

/// What the finished pieces have found.
struct Found<O> {
    best: Vec<Best>,
    pieces_left: usize,
    output: Option<O>,
}

/// The arguments of a search.
pub(in crate::cpu) struct Selecting<'a, S> {
    pub(in crate::cpu) instructions: Instructions,
    pub(in crate::cpu) scoring: &'a S,
    pub(in crate::cpu) top_k: usize,
}

impl<S: Scoring> Selecting<'_, S> {
    /// Searches the histories of a batch and writes the selection.
    pub(in crate::cpu) fn write(&self, batch: &Batch, out: SelectionMut<'_, Host>) {
        let plan = pieces::cut(batch, pieces::ROWS, pieces::STEP);
        let top_k = self.top_k;
        let rows = || plan.tiles.iter().map(|tile| tile.rows);
        let positions = split_rows(rows(), out.positions.into_slice(), top_k);
        let scores = split_rows(rows(), out.scores.into_slice(), top_k);
        let counts = split_rows(rows(), out.counts.into_slice(), 1);
        let outputs = positions.into_iter().zip(scores).zip(counts).collect();
        self.run(batch, &plan, outputs, |_, best, ((positions, scores), counts)| {
            positions.fill(EMPTY_SLOT);
            scores.fill(f32::NEG_INFINITY);
            let slots = positions.chunks_exact_mut(top_k).zip(scores.chunks_exact_mut(top_k));
            for ((best, count), (positions, scores)) in best.into_iter().zip(counts).zip(slots) {
                let best = best.into_sorted();
                *count = best.len() as u32;
                for (best, slot) in best.zip(positions.iter_mut().zip(scores)) {
                    (*slot.0, *slot.1) = best;
                }
            }
        });
    }

    /// Searches the histories of a batch, cut by [`pieces::cut`]. Calls `finish` once per tile, with its candidates, their best
    /// behaviours and its output.
    pub(in crate::cpu) fn run<O: Send>(
        &self,
        batch: &Batch,
        plan: &Plan,
        outputs: Vec<O>,
        finish: impl Fn(Range<usize>, Vec<Best>, O) + Send + Sync,
    ) {
        find_best(
            plan,
            (1, self.top_k),
            outputs,
            |part| {
                let first = batch.histories().range(part.user).start;
                self.instructions.run(SearchPiece { scoring: self.scoring, top_k: self.top_k, part, first })
            },
            finish,
        );
    }
}

/// What is searched at a time: a span of a user's history, for some of the user's candidates.
pub(in crate::cpu) struct Part<'a> {
    pub(in crate::cpu) user: usize,
    pub(in crate::cpu) targets: Range<usize>,
    pub(in crate::cpu) history: Range<usize>,
    /// Of each list of the candidates.
    pub(in crate::cpu) floors: &'a [Floor],
}

/// Searches all parts of a plan. `search` gives so many `lists` for each candidate of a part. Calls `finish` once per tile, with its
/// candidates, their lists and the tile's output.
pub(in crate::cpu) fn find_best<O: Send>(
    plan: &Plan,
    (lists, top_k): (usize, usize),
    outputs: Vec<O>,
    search: impl Fn(Part<'_>) -> Vec<Best> + Send + Sync,
    finish: impl Fn(Range<usize>, Vec<Best>, O) + Send + Sync,
) {
    let tile = |(tile, output): (&plan::Tile, O)| Tile {
        floors: (0..tile.rows * lists).map(|_| Floor::new()).collect(),
        found: Mutex::new(Found {
            best: (0..tile.rows * lists).map(|_| Best::new(top_k)).collect(),
            pieces_left: tile.slots.max(1),
            output: Some(output),
        }),
    };
    let tiles: Vec<Tile<O>> = plan.tiles.iter().zip(outputs).map(tile).collect();
    for_each(plan.pieces.iter().collect(), |piece: &Piece| {
        let (tile, rows) = (&tiles[piece.tile], plan.tiles[piece.tile]);
        let first = rows.first_target + rows.first_row;
        let targets = first..first + rows.rows;
        let history = piece.history.clone();
        let best = search(Part { user: rows.user, targets: targets.clone(), history, floors: &tile.floors });
        // If another thread panicked, the panic resurfaces where the threads are joined.
        let mut found = tile.found.lock().unwrap_or_else(PoisonError::into_inner);
        for ((all, own), floor) in found.best.iter_mut().zip(best).zip(&tile.floors) {
            all.combine(own);
            floor.set(all.worst());
        }
        found.pieces_left -= 1;
        if found.pieces_left == 0
            && let Some(output) = found.output.take()
        {
            let best = std::mem::take(&mut found.best);
            drop(found);
            finish(targets, best, output);
        }
    });
}

/// One piece: searches a span of a user's history for some of the user's candidates.
struct SearchPiece<'a, S> {
    scoring: &'a S,
    top_k: usize,
    part: Part<'a>,
    /// The user's first behaviour.
    first: usize,
}

impl<S: Scoring> Kernel for SearchPiece<'_, S> {
    type Output = Vec<Best>;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Vec<Best> {
        let Self { scoring, top_k, part: Part { targets, history, floors, .. }, first: user } = self;
        let mut block = scoring.start(l, targets.clone());
        let mut best: Vec<Best> =
            targets.clone().map(|_| Best::with_room_for(top_k, history.len())).collect();
        // The score that a candidate's behaviours must reach. Every score reaches NaN, and a NaN score reaches anything. A
        // score must beat the worst of a full list, because later positions lose ties, and reach (not beat) the floor of
        // other pieces, which may cover later positions.
        let mut own = vec![f32::NAN; targets.len()];
        let mut block_scores = [[0.0; LANES]; BLOCK];
        for (rows, next) in blocks(&history) {
            let count = scoring.read(l, &mut block, rows.clone(), next);
            let scores = &mut block_scores[..count];
            for first in (0..targets.len()).step_by(LANES) {
                scoring.scores(l, &block, first / LANES, scores);
                let count = LANES.min(targets.len() - first);
                // Lanes without a candidate reach no bar.
                let mut bars = [f32::INFINITY; LANES];
                for lane in 0..count {
                    bars[lane] = own[first + lane].max(floors[first + lane].get());
                }
                let lanes = u32::MAX >> (u32::BITS as usize - count);
                for start in (0..scores.len()).step_by(COMPARED_TOGETHER) {
                    let few = &scores[start..scores.len().min(start + COMPARED_TOGETHER)];
                    if !any_reaches(l, few, &bars) {
                        continue;
                    }
                    for (index, scores) in (start..).zip(few) {
                        let reached = reaching(scores, &bars) & lanes;
                        if reached != 0 {
                            let position = (rows.start - user + S::place(&block, index)) as u32;
                            let lists = (&mut own[first..], &mut best[first..]);
                            keep(scores, reached, position, &mut bars, lists);
                        }
                    }
                }
            }
        }
        best
    }
}

/// The number of behaviours that are compared with the bars before one branch on whether any reaches its bar.
const COMPARED_TOGETHER: usize = 8;

/// Whether any score reaches its bar.
#[inline(always)]
fn any_reaches<L: Lanes>(l: L, scores: &[Row], bars: &Row) -> bool {
    let (bars, mut any, one) = (l.load(bars), l.splat(0.0), l.splat(1.0));
    for scores in scores {
        // "Not below", so that NaN counts as reaching its bar.
        any = l.if_less(l.load(scores), bars, any, one);
    }
    l.sum(any) != 0.0
}

/// A bit for each lane whose score reaches its bar.
#[inline(always)]
fn reaching(scores: &Row, bars: &Row) -> u32 {
    let mut reached = 0;
    for (lane, (score, bar)) in scores.iter().zip(bars).enumerate() {
        let is_below = score < bar;
        reached |= u32::from(!is_below) << lane;
    }
    reached
}

/// Keeps the scores of one behaviour that reach their bars: those of the lanes in `reached`.
#[inline(always)]
fn keep(
    scores: &Row,
    mut reached: u32,
    position: u32,
    bars: &mut Row,
    (own, best): (&mut [f32], &mut [Best]),
) {
    while reached != 0 {
        let lane = reached.trailing_zeros() as usize;
        reached &= reached - 1;
        if best[lane].push(scores[lane], position) {
            own[lane] = best[lane].worst().next_up();
            bars[lane] = bars[lane].max(own[lane]);
        }
    }
}
