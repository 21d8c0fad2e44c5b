//! Histograms of similarities: those of a selection, and those of the newest behaviours.

use std::ops::Range;

use crate::cpu::search::WithScores;
use crate::cpu::selection::{BLOCK, Scoring, blocks};
use crate::cpu::threads::{for_each, split_rows};
use crate::cpu::vector::{Instructions, Kernel, LANES, Lanes};
use crate::host::Host;
use crate::jagged::Batch;
use crate::ops::*;

/// The candidates of a task that counts.
const COUNTED: usize = 64;

/// Histograms of a selection that is checked.
pub(super) fn count(
    instructions: Instructions,
    op: &SimilarityHistogram,
    batch: &Batch,
    selection: &Selection<'_, Host>,
    out: &mut [u32],
) {
    let candidates = batch.targets().total();
    let rows = out[..candidates * op.bins()].chunks_mut(COUNTED * op.bins());
    let slots = selection.scores[..candidates * op.top_k].chunks(COUNTED.saturating_mul(op.top_k));
    let counts = selection.counts[..candidates].chunks(COUNTED);
    let tasks = slots.zip(counts).zip(rows);
    let task = |((similarities, counts), out)| Count { op, similarities, counts, out };
    for_each(tasks.map(task).collect(), |task: Count<'_>| instructions.run(task));
}

/// The histograms of some candidates.
struct Count<'a> {
    op: &'a SimilarityHistogram,
    similarities: &'a [f32],
    counts: &'a [u32],
    out: &'a mut [u32],
}

impl Kernel for Count<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Self { op, similarities, counts, out } = self;
        let rows = similarities.chunks(op.top_k).zip(counts).zip(out.chunks_mut(op.bins()));
        for ((similarities, &count), out) in rows {
            out.fill(0);
            for &similarity in &similarities[..count as usize] {
                add(op.steps, similarity, out);
            }
        }
    }
}

/// Counts a similarity in its bin, as [`SimilarityHistogram::bin`] has it; there is no instruction for rounding up in every set.
#[inline(always)]
fn add(steps: usize, similarity: f32, bins: &mut [u32]) {
    // Neither NaN nor −∞.
    if similarity > f32::NEG_INFINITY {
        let largest = steps as f32;
        let scaled = (similarity * largest).clamp(-largest, largest);
        let truncated = scaled as i32;
        let up = i32::from(scaled > truncated as f32);
        bins[(truncated + up + steps as i32) as usize] += 1;
    }
}

/// Histograms of the newest behaviours.
pub(super) struct CountNewest<'a> {
    pub(super) instructions: Instructions,
    pub(super) op: &'a SimilarityHistogram,
    pub(super) batch: &'a Batch,
    pub(super) out: &'a mut [u32],
}

impl WithScores for CountNewest<'_> {
    fn run<S: Scoring>(self, scoring: &S) {
        let Self { instructions, op, batch, out } = self;
        let mut chunks = Vec::new();
        for (history, targets) in batch.requests() {
            let newest = history.end.saturating_sub(op.top_k).max(history.start)..history.end;
            for first in targets.clone().step_by(COUNTED) {
                chunks.push((newest.clone(), first..targets.end.min(first + COUNTED)));
            }
        }
        let out = split_rows(chunks.iter().map(|(_, targets)| targets.len()), out, op.bins());
        let task = |((history, targets), out)| CountScores { op, scoring, history, targets, out };
        let tasks = chunks.into_iter().zip(out).map(task).collect();
        for_each(tasks, |task: CountScores<'_, S>| instructions.run(task));
    }
}

/// The histograms of some candidates of one user, over some of its behaviours.
struct CountScores<'a, S> {
    op: &'a SimilarityHistogram,
    scoring: &'a S,
    history: Range<usize>,
    targets: Range<usize>,
    out: &'a mut [u32],
}

impl<S: Scoring> Kernel for CountScores<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { op, scoring, history, targets, out } = self;
        out.fill(0);
        let mut block = scoring.start(l, targets.clone());
        let mut block_scores = [[0.0; LANES]; BLOCK];
        for (rows, next) in blocks(&history) {
            let count = scoring.read(l, &mut block, rows, next);
            let scores = &mut block_scores[..count];
            for (group, out) in out.chunks_mut(LANES * op.bins()).enumerate() {
                scoring.scores(l, &block, group, scores);
                for scores in &*scores {
                    for (&score, bins) in scores.iter().zip(out.chunks_mut(op.bins())) {
                        add(op.steps, score, bins);
                    }
                }
            }
        }
    }
}
