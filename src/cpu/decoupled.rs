//! Decoupled search and aggregation on the CPU: a tile of candidates shares each gather of attention rows, and a heap
//! of the best `K` keeps scores from ever being stored.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::cpu::lookup::concatenate;
use crate::cpu::pooling::{CHUNK, Pooling};
use crate::cpu::tiles::{Tile, for_each, split, tiles};
use crate::cpu::vector::dot;
use crate::error::Result;
use crate::jagged::Batch;
use crate::memory::{Host, ViewMut};
use crate::ops::*;

/// A behaviour and its score. The order is "worse than": lower score, then later position, NaN worst of all. So the
/// top of a heap is the worst of those kept.
#[derive(Clone, Copy, PartialEq)]
struct Scored {
    score: f32,
    position: u32,
}

impl Eq for Scored {}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = match (self.score.is_nan(), other.score.is_nan()) {
            (false, false) => other.score.partial_cmp(&self.score).unwrap_or(Ordering::Equal),
            (mine, others) => mine.cmp(&others),
        };
        by_score.then(self.position.cmp(&other.position))
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

pub(super) fn search(
    op: &Decoupled,
    batch: &Batch,
    inputs: &SearchInputs<'_, Host>,
    out: SelectionMut<'_, Host>,
) -> Result<()> {
    const NAME: &str = "decoupled_search";
    let top_k = op.check_search(batch, inputs)?;
    op.check_search_outputs(batch, top_k, &out)?;
    op.check_host_ids(NAME, batch, inputs.attention, &inputs.ids, &inputs.target_ids)?;
    let tiles = tiles(batch);
    let positions = split(&tiles, out.positions.into_slice(), top_k);
    let scores = split(&tiles, out.scores.into_slice(), top_k);
    let counts = split(&tiles, out.counts.into_slice(), 1);
    let items = tiles.into_iter().zip(positions).zip(scores.into_iter().zip(counts)).collect();
    for_each(items, |((tile, positions), (scores, counts))| {
        for (i, best) in best_of_tile(op, &tile, inputs, top_k).into_iter().enumerate() {
            let slots = i * top_k..(i + 1) * top_k;
            let (positions, scores) = (&mut positions[slots.clone()], &mut scores[slots]);
            positions.fill(EMPTY_SLOT);
            scores.fill(f32::NEG_INFINITY);
            counts[i] = best.len() as u32;
            for ((position, score), best) in positions.iter_mut().zip(scores).zip(best) {
                (*position, *score) = (best.position, best.score);
            }
        }
    });
    Ok(())
}

/// For each candidate of a tile, its best behaviours, best first.
fn best_of_tile(
    op: &Decoupled,
    tile: &Tile,
    inputs: &SearchInputs<'_, Host>,
    top_k: usize,
) -> Vec<Vec<Scored>> {
    let top_k = top_k.min(tile.history.len());
    let mut heaps: Vec<BinaryHeap<Scored>> =
        tile.targets.clone().map(|_| BinaryHeap::with_capacity(top_k)).collect();
    for_each_chunk(op, tile, inputs, |candidate, start, scores, _| {
        let heap = &mut heaps[candidate];
        for (position, &score) in (start..).zip(&*scores) {
            let scored = Scored { score, position: position as u32 };
            if heap.len() < top_k {
                heap.push(scored);
            } else if let Some(mut worst) = heap.peek_mut()
                && scored < *worst
            {
                *worst = scored;
            }
        }
    });
    heaps.into_iter().map(BinaryHeap::into_sorted_vec).collect()
}

/// Scores a tile chunk by chunk: for each chunk and candidate, calls `with` with the candidate within the tile, the
/// position of the chunk's first behaviour, the scores, and the chunk's ids.
fn for_each_chunk(
    op: &Decoupled,
    tile: &Tile,
    inputs: &SearchInputs<'_, Host>,
    mut with: impl FnMut(usize, usize, &mut [f32], &[u32]),
) {
    let features = op.features();
    let width = total_width(inputs.attention);
    // Candidates with the factors folded in, so that a score is one dot product.
    let mut queries = vec![0.0; tile.targets.len() * width];
    for (m, query) in tile.targets.clone().zip(queries.chunks_exact_mut(width)) {
        concatenate(inputs.attention, &inputs.target_ids[m * features..(m + 1) * features], query);
        let mut query = query.iter_mut();
        for (table, scale) in inputs.attention.iter().zip(&op.scales) {
            query.by_ref().take(table.width).for_each(|value| *value *= scale);
        }
    }
    let mut rows = vec![0.0; CHUNK * width];
    let mut scores = [0.0; CHUNK];
    for start in tile.history.clone().step_by(CHUNK) {
        let end = tile.history.end.min(start + CHUNK);
        let ids = &inputs.ids[start * features..end * features];
        for (ids, row) in ids.chunks_exact(features).zip(rows.chunks_exact_mut(width)) {
            concatenate(inputs.attention, ids, row);
        }
        for (candidate, query) in queries.chunks_exact(width).enumerate() {
            let scores = &mut scores[..end - start];
            for (score, row) in scores.iter_mut().zip(rows.chunks_exact(width)) {
                *score = dot(query, row);
            }
            with(candidate, start - tile.history.start, scores, ids);
        }
    }
}

pub(super) fn aggregate(
    op: &Decoupled,
    batch: &Batch,
    inputs: &AggregateInputs<'_, Host>,
    selection: &Selection<'_, Host>,
    out: ViewMut<'_, Host, f32>,
) -> Result<()> {
    const NAME: &str = "decoupled_aggregate";
    let top_k = op.check_aggregate(batch, inputs, selection)?;
    op.check_output(NAME, batch, inputs.representation, out.len())?;
    op.check_host_selection(NAME, batch, selection, top_k)?;
    op.check_host_ids(NAME, batch, inputs.representation, &inputs.ids, &inputs.target_ids)?;
    let tiles = tiles(batch);
    let width = total_width(inputs.representation);
    let out = split(&tiles, out.into_slice(), width);
    for_each(tiles.into_iter().zip(out).collect(), |(tile, out)| {
        for (m, out) in tile.targets.clone().zip(out.chunks_exact_mut(width)) {
            let kept = (m * top_k..).take(selection.counts[m] as usize);
            let best: Vec<Scored> = kept
                .map(|slot| Scored { score: selection.scores[slot], position: selection.positions[slot] })
                .collect();
            aggregate_candidate(op, &tile, inputs, m, &best, out);
        }
    });
    Ok(())
}

pub(super) fn attend(
    op: &Decoupled,
    batch: &Batch,
    inputs: &DecoupledInputs<'_, Host>,
    out: ViewMut<'_, Host, f32>,
) -> Result<()> {
    const NAME: &str = "decoupled_attend";
    op.check_attend(batch, inputs)?;
    op.check_output(NAME, batch, inputs.representation, out.len())?;
    op.check_host_ids(NAME, batch, inputs.attention, &inputs.ids, &inputs.target_ids)?;
    let DecoupledInputs { attention, representation, ids, target_ids } = *inputs;
    let search = SearchInputs { attention, ids, target_ids };
    let aggregate = AggregateInputs { representation, ids, target_ids };
    let tiles = tiles(batch);
    let width = total_width(representation);
    let out = split(&tiles, out.into_slice(), width);
    for_each(tiles.into_iter().zip(out).collect(), |(tile, out)| match op.top_k {
        Some(top_k) => {
            let best = best_of_tile(op, &tile, &search, top_k);
            for ((m, best), out) in tile.targets.clone().zip(best).zip(out.chunks_exact_mut(width)) {
                aggregate_candidate(op, &tile, &aggregate, m, &best, out);
            }
        }
        None => attend_to_all(op, &tile, &search, &aggregate, out),
    });
    Ok(())
}

/// Without a top-K: every behaviour takes part, in one pass over the history.
fn attend_to_all(
    op: &Decoupled,
    tile: &Tile,
    search: &SearchInputs<'_, Host>,
    aggregate: &AggregateInputs<'_, Host>,
    out: &mut [f32],
) {
    let features = op.features();
    let width = total_width(aggregate.representation);
    let mut pooling: Vec<Pooling> =
        tile.targets.clone().map(|_| Pooling::new(Weighting::Softmax, width)).collect();
    let mut rows = vec![0.0; CHUNK * width];
    for_each_chunk(op, tile, search, |candidate, _, scores, ids| {
        if candidate == 0 {
            for (ids, row) in ids.chunks_exact(features).zip(rows.chunks_exact_mut(width)) {
                concatenate(aggregate.representation, ids, row);
            }
        }
        pooling[candidate].add(scores, |l| &rows[l * width..(l + 1) * width]);
    });
    for ((m, pooling), out) in tile.targets.clone().zip(pooling).zip(out.chunks_exact_mut(width)) {
        out.copy_from_slice(&pooling.finish().0);
        multiply_by_target(op, aggregate, m, out);
    }
}

/// The softmax-weighted sum over the kept behaviours of candidate `m`.
fn aggregate_candidate(
    op: &Decoupled,
    tile: &Tile,
    inputs: &AggregateInputs<'_, Host>,
    m: usize,
    best: &[Scored],
    out: &mut [f32],
) {
    let features = op.features();
    let width = out.len();
    let mut pooling = Pooling::new(Weighting::Softmax, width);
    let mut rows = vec![0.0; CHUNK.min(best.len()) * width];
    let mut scores = [0.0; CHUNK];
    for chunk in best.chunks(CHUNK) {
        for ((kept, row), score) in chunk.iter().zip(rows.chunks_exact_mut(width)).zip(&mut scores) {
            let l = tile.history.start + kept.position as usize;
            concatenate(inputs.representation, &inputs.ids[l * features..(l + 1) * features], row);
            *score = kept.score;
        }
        pooling.add(&mut scores[..chunk.len()], |i| &rows[i * width..(i + 1) * width]);
    }
    out.copy_from_slice(&pooling.finish().0);
    multiply_by_target(op, inputs, m, out);
}

fn multiply_by_target(op: &Decoupled, inputs: &AggregateInputs<'_, Host>, m: usize, out: &mut [f32]) {
    if !op.multiply_target {
        return;
    }
    let features = op.features();
    let mut target = vec![0.0; out.len()];
    concatenate(inputs.representation, &inputs.target_ids[m * features..(m + 1) * features], &mut target);
    out.iter_mut().zip(target).for_each(|(out, target)| *out *= target);
}
