//! Search: scores are compared with each candidate's worst kept one in vectors; the few that pass are kept, the
//! others forgotten.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::best::{Best, Floor};
use super::scores::{BLOCK, Scorer, blocks};
use crate::cpu::tiles::for_each;
use crate::cpu::vector::{Instructions, Kernel, LANES, Lanes, Row};
use crate::host::Host;
use crate::jagged::Batch;
use crate::ops::*;
use crate::plan::{self, Piece, Plan};

/// Candidates of one user whose history is searched in several parts.
struct Tile<O> {
    floors: Vec<Floor>,
    found: Mutex<Found<O>>,
}

/// What the parts that are finished have found.
struct Found<O> {
    best: Vec<Best>,
    parts_left: usize,
    output: Option<O>,
}

/// What to search for.
#[derive(Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) instructions: Instructions,
    pub(super) op: &'a Decoupled,
    pub(super) inputs: &'a SearchInputs<'a, Host>,
    pub(super) top_k: usize,
}

impl Search<'_> {
    /// Searches the histories of a batch, cut by [`pieces::cut`](crate::cpu::pieces::cut), and calls `finish` for each
    /// tile with its candidates, their best behaviours and its output.
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
                parts_left: tile.slots.max(1),
                output: Some(output),
            }),
        };
        let tiles: Vec<Tile<O>> = plan.tiles.iter().zip(outputs).map(tile).collect();
        for_each(plan.pieces.iter().collect(), |piece: &Piece| {
            let (tile, rows) = (&tiles[piece.tile], plan.tiles[piece.tile]);
            let first = rows.first_target + rows.first_row;
            let targets = first..first + rows.rows;
            let best = self.instructions.run(SearchPart {
                search: self,
                targets: targets.clone(),
                history: piece.history.clone(),
                first: batch.histories().range(rows.user).start,
                floors: &tile.floors,
            });
            // Another thread's panic, should there be one, comes out where the threads are joined.
            let mut found = tile.found.lock().unwrap_or_else(PoisonError::into_inner);
            for ((all, part), floor) in found.best.iter_mut().zip(&best).zip(&tile.floors) {
                all.merge(part);
                floor.set(all.worst());
            }
            found.parts_left -= 1;
            if found.parts_left == 0
                && let Some(output) = found.output.take()
            {
                let best = std::mem::take(&mut found.best);
                drop(found);
                finish(targets, best, output);
            }
        });
    }
}

/// Searches a part of one user's history for some of the user's candidates.
struct SearchPart<'a> {
    search: Search<'a>,
    targets: Range<usize>,
    history: Range<usize>,
    /// The user's first behaviour.
    first: usize,
    floors: &'a [Floor],
}

impl Kernel for SearchPart<'_> {
    type Output = Vec<Best>;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Vec<Best> {
        let Search { op, inputs, top_k, .. } = self.search;
        let mut scorer = Scorer::new(l, op, inputs, self.targets.clone());
        let mut best = vec![Best::new(top_k); self.targets.len()];
        // What a candidate's score must reach; with NaN, or as NaN, every score does. A score must beat the worst of a
        // full list, as later positions lose ties, and reach the floor of other parts, which may lie behind.
        let mut own = vec![f32::NAN; self.targets.len()];
        let mut block_scores = [[0.0; LANES]; BLOCK];
        for (block, next) in blocks(&self.history) {
            scorer.gather(l, block.clone(), next);
            let scores = &mut block_scores[..block.len()];
            for group in 0..scorer.groups() {
                scorer.scores(l, group, scores);
                let first = group * LANES;
                let count = LANES.min(best.len() - first);
                // Lanes without a candidate score 0.
                let mut bars = [f32::INFINITY; LANES];
                for lane in 0..count {
                    bars[lane] = own[first + lane].max(self.floors[first + lane].get());
                }
                for start in (0..scores.len()).step_by(TOGETHER) {
                    let few = &scores[start..scores.len().min(start + TOGETHER)];
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

/// How many behaviours are compared before the question whether any passes.
const TOGETHER: usize = 8;

/// Whether any score reaches its bar.
#[inline(always)]
fn any_reaches<L: Lanes>(l: L, scores: &[Row], bars: &Row) -> bool {
    let (bars, zero, one) = (l.load(bars), l.splat(0.0), l.splat(1.0));
    let mut any = zero;
    for scores in scores {
        // "Not below", which NaN is not.
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
