//! Search. Vector instructions compare the scores of a block with the worst score that each candidate keeps; only the few
//! behaviours that pass are added to the candidate's list.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::cpu::decoupled::best::{Best, Floor};
use crate::cpu::decoupled::scores::{BLOCK, Scorer, blocks};
use crate::cpu::threads::for_each;
use crate::cpu::vector::{Instructions, Kernel, LANES, Lanes, Row};
use crate::host::Host;
use crate::jagged::Batch;
use crate::ops::*;
use crate::plan::{self, Piece, Plan};

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
#[derive(Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) instructions: Instructions,
    pub(super) op: &'a Decoupled,
    pub(super) inputs: &'a SearchInputs<'a, Host>,
    pub(super) top_k: usize,
}

impl Search<'_> {
    /// Searches the histories of a batch, cut by [`pieces::cut`](crate::cpu::pieces::cut). Calls `finish` once per tile, with
    /// its candidates, their best behaviours and its output.
    pub(super) fn run<O: Send>(
        self,
        batch: &Batch,
        plan: &Plan,
        outputs: Vec<O>,
        finish: impl Fn(Range<usize>, Vec<Best>, O) + Send + Sync,
    ) {
        let tile = |(tile, output): (&plan::Tile, O)| Tile {
            floors: (0..tile.rows).map(|_| Floor::new()).collect(),
            found: Mutex::new(Found {
                best: vec![Best::new(self.top_k); tile.rows],
                pieces_left: tile.slots.max(1),
                output: Some(output),
            }),
        };
        let tiles: Vec<Tile<O>> = plan.tiles.iter().zip(outputs).map(tile).collect();
        for_each(plan.pieces.iter().collect(), |piece: &Piece| {
            let (tile, rows) = (&tiles[piece.tile], plan.tiles[piece.tile]);
            let first = rows.first_target + rows.first_row;
            let targets = first..first + rows.rows;
            let best = self.instructions.run(SearchPiece {
                search: self,
                targets: targets.clone(),
                history: piece.history.clone(),
                first: batch.histories().range(rows.user).start,
                floors: &tile.floors,
            });
            // If another thread panicked, the panic resurfaces where the threads are joined.
            let mut found = tile.found.lock().unwrap_or_else(PoisonError::into_inner);
            for ((all, own), floor) in found.best.iter_mut().zip(&best).zip(&tile.floors) {
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
}

/// One piece: searches a span of a user's history for some of the user's candidates.
struct SearchPiece<'a> {
    search: Search<'a>,
    targets: Range<usize>,
    history: Range<usize>,
    /// The user's first behaviour.
    first: usize,
    floors: &'a [Floor],
}

impl Kernel for SearchPiece<'_> {
    type Output = Vec<Best>;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Vec<Best> {
        let Search { op, inputs, top_k, .. } = self.search;
        let mut scorer = Scorer::new(l, op, inputs, self.targets.clone());
        let mut best = vec![Best::new(top_k); self.targets.len()];
        // The score that a candidate's behaviours must reach. Every score reaches NaN, and a NaN score reaches anything. A
        // score must beat the worst of a full list, because later positions lose ties, and reach (not beat) the floor of
        // other pieces, which may cover later positions.
        let mut own = vec![f32::NAN; self.targets.len()];
        let mut block_scores = [[0.0; LANES]; BLOCK];
        for (block, next) in blocks(&self.history) {
            scorer.gather(l, block.clone(), next);
            let scores = &mut block_scores[..block.len()];
            for group in 0..scorer.groups() {
                scorer.scores(l, group, scores);
                let first = group * LANES;
                let count = LANES.min(best.len() - first);
                // Lanes without a candidate score 0 and reach no bar.
                let mut bars = [f32::INFINITY; LANES];
                for lane in 0..count {
                    bars[lane] = own[first + lane].max(self.floors[first + lane].get());
                }
                for start in (0..scores.len()).step_by(COMPARED_TOGETHER) {
                    let few = &scores[start..scores.len().min(start + COMPARED_TOGETHER)];
                    if !any_reaches(l, few, &bars) {
                        continue;
                    }
                    let position = (block.start - self.first + start) as u32;
                    for (position, scores) in (position..).zip(few) {
                        if any_reaches(l, std::slice::from_ref(scores), &bars) {
                            keep(scores, position, &mut bars, &mut own[first..], &mut best[first..]);
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
    let (bars, zero, one) = (l.load(bars), l.splat(0.0), l.splat(1.0));
    let mut any = zero;
    for scores in scores {
        // "Not below", so that NaN counts as reaching its bar.
        any = l.max(any, l.if_less(l.load(scores), bars, zero, one));
    }
    l.sum(any) != 0.0
}

/// Keeps the scores of one behaviour that reach their bars.
fn keep(scores: &Row, position: u32, bars: &mut Row, own: &mut [f32], best: &mut [Best]) {
    for (lane, best) in best.iter_mut().enumerate().take(LANES) {
        if scores[lane] < bars[lane] {
            continue;
        }
        if best.push(scores[lane], position) {
            own[lane] = best.worst().next_up();
            bars[lane] = bars[lane].max(own[lane]);
        }
    }
}
