//! A span of behaviours and a tile of candidates: the outer loops of the backward pass, in vector instructions.

use std::ops::Range;

use crate::cpu::din::block::{Block, CandidateSums, Pairs, Weighting, add};
use crate::cpu::din::layers::{BLOCK, Candidate, Layers};
use crate::cpu::din::softmax::Normaliser;
use crate::cpu::din::sums::{Sums, Wanted};
use crate::cpu::vector::{Kernel, LANES, Lanes, Matrix, Row, WideRows};

/// Behaviours of a span: they and their gradients stay in the L2 cache while the candidates pass.
pub(super) const SPAN: usize = 4 * BLOCK;

/// Candidates of a tile: the gradients of a span are summed within a tile, then over tiles.
pub(super) const TILE: usize = 64;

/// The most behaviours that are a span of their own with softmax, so that the first pass over them need not be computed again.
const LONGEST: usize = 16 * BLOCK;

/// The most numbers of the rows of such a span: pieces that share it each have gradients of all of them.
const SHARED: usize = 1 << 16;

/// The most numbers that a thread keeps of such a span.
const KEPT: usize = 1 << 21;

/// How long a history may be to be one span, with softmax, if its candidates may be in several pieces.
pub(super) fn longest_span(layers: &Layers, width: usize) -> usize {
    // Rows with their gradients, and units before and after an activation, with two gates each.
    let numbers = |units: usize| units.next_multiple_of(LANES);
    let kept = 3 * numbers(width) + layers.units.iter().map(|&units| 4 * numbers(units)).sum::<usize>();
    let fitting = LONGEST.min(SHARED / width).min(KEPT / kept);
    fitting / BLOCK * BLOCK
}

/// What a piece works with.
pub(super) struct Scratch {
    /// Of a span: behaviours, their gradients over all tiles so far, and over this one.
    pub(super) history: Matrix,
    pub(super) grads: Matrix,
    pub(super) tile_grads: Matrix,
    /// Of a tile: candidates, and the gradients of their outputs.
    pub(super) targets: Matrix,
    pub(super) grad_out: Matrix,
    pub(super) candidate: Candidate,
    pub(super) own: CandidateSums,
    pub(super) block: Block,
}

impl Scratch {
    /// For spans of up to `longest` behaviours that are scored at once, and others.
    pub(super) fn new(layers: &Layers, width: usize, longest: usize) -> Self {
        let [history, grads, tile_grads] = [0; 3].map(|_| Matrix::zeros(longest.max(SPAN), width));
        let [targets, grad_out] = [0; 2].map(|_| Matrix::zeros(TILE, width));
        let (outer, units) = (Matrix::zeros(layers.units[0], width), Matrix::zeros(1, layers.units[0]));
        let own = CandidateSums { outer, units, any: false };
        let (candidate, block) = (Candidate::new(layers), Block::new(layers, width, longest.div_ceil(BLOCK)));
        Self { history, grads, tile_grads, targets, grad_out, candidate, own, block }
    }
}

/// Rows as `f32`, padded.
pub(super) struct Widen<'a> {
    pub(super) from: WideRows<'a>,
    pub(super) rows: Range<usize>,
    pub(super) width: usize,
    pub(super) out: &'a mut Matrix,
}

impl Kernel for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let width = self.width;
        for (row, out) in self.rows.zip(self.out.rows_mut()) {
            self.from.widen_to(l, row * width..(row + 1) * width, &mut out.as_flattened_mut()[..width]);
        }
    }
}

/// Adds a span of behaviours to the normalisers of a tile of candidates.
pub(super) struct Normalise<'a> {
    pub(super) layers: &'a Layers,
    pub(super) weighting: Weighting,
    pub(super) scratch: &'a mut Scratch,
    /// The number of behaviours.
    pub(super) rows: usize,
    pub(super) normalisers: &'a mut [Normaliser],
}

impl Kernel for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { layers, weighting, scratch, rows, normalisers } = self;
        let Scratch { history, targets, grad_out, candidate, block, .. } = scratch;
        let n = history.vectors();
        for (i, normaliser) in normalisers.iter_mut().enumerate() {
            candidate.set(l, layers, targets.row(i), false);
            let pairs = Pairs { layers, candidate, grad_out: grad_out.row(i), weighting };
            for rows in history.data()[..rows * n].chunks(BLOCK * n) {
                let (scores, grad_weights) = block.score(l, &pairs, 0, rows);
                normaliser.add(&Normaliser::new(l, scores, grad_weights));
            }
        }
    }
}

/// A span of behaviours and a tile of candidates.
pub(super) struct Backward<'a> {
    pub(super) layers: &'a Layers,
    pub(super) wanted: &'a Wanted,
    /// Of each candidate.
    pub(super) weightings: &'a [Weighting],
    /// The number of behaviours.
    pub(super) rows: usize,
    pub(super) scratch: &'a mut Scratch,
    pub(super) sums: &'a mut Sums,
    /// The gradients of the part's candidates, if wanted; the tile's begin with row `first`.
    pub(super) targets: &'a mut Matrix,
    pub(super) first: usize,
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { layers, wanted, weightings, rows, scratch, sums, targets: grad_targets, first } = self;
        let Scratch { history, grads, tile_grads, targets, grad_out, candidate, own, block } = scratch;
        let n = history.vectors();
        tile_grads.data_mut()[..rows * n].fill([0.0; LANES]);
        for (i, &weighting) in weightings.iter().enumerate() {
            candidate.set(l, layers, targets.row(i), wanted.history);
            own.outer.data_mut().fill([0.0; LANES]);
            own.units.data_mut().fill([0.0; LANES]);
            own.any = false;
            let mut pairs = Pairs { layers, candidate, grad_out: grad_out.row(i), weighting };
            let history = &history.data()[..rows * n];
            if let Weighting::SoftmaxOfSpan = weighting {
                pairs.weighting = block.score_span(l, &pairs, history);
            }
            let blocks = history.chunks(BLOCK * n).zip(tile_grads.data_mut().chunks_mut(BLOCK * n));
            for (at, (rows, grads)) in blocks.enumerate() {
                block.backward(l, &pairs, wanted, (at, rows), (sums, own, grads));
            }
            if !own.any {
                continue;
            }
            own.finish(l, layers, wanted, targets.row(i), sums);
            if wanted.targets {
                own.add_target(l, layers, grad_targets.row_mut(first + i));
            }
        }
        if wanted.history {
            add(l, &mut grads.data_mut()[..rows * n], tile_grads.data());
        }
    }
}

impl CandidateSums {
    /// Adds the candidate's part of the gradients of the first layer's bias and weight, in the folded blocks.
    #[inline(always)]
    fn finish<L: Lanes>(&self, l: L, layers: &Layers, wanted: &Wanted, q: &[Row], sums: &mut Sums) {
        if wanted.deepest == 0 {
            add(l, sums.layers[0].bias.data_mut(), self.units.data());
        }
        if !wanted.weights[0] {
            return;
        }
        for unit in 0..layers.units[0] {
            let total = l.splat(self.units.row(0).as_flattened()[unit]);
            let outer = self.outer.row(unit);
            let target = sums.per_target.row_mut(unit).iter_mut();
            let behaviour = sums.per_behaviour.row_mut(unit).iter_mut();
            let pair = sums.per_pair.row_mut(unit).iter_mut();
            for (((outer, q), target), (behaviour, pair)) in
                outer.iter().zip(q).zip(target).zip(behaviour.zip(pair))
            {
                let (outer, q) = (l.load(outer), l.load(q));
                l.store(target, l.mul_add(total, q, l.load(target)));
                l.store(behaviour, l.add(l.load(behaviour), outer));
                l.store(pair, l.mul_add(outer, q, l.load(pair)));
            }
        }
    }

    /// Adds the gradient of the candidate's row: `(W_q + W_d)ᵀ·Σ_l dy + Σ_h W_p[h] ⊙ G[h]`.
    #[inline(always)]
    fn add_target<L: Lanes>(&self, l: L, layers: &Layers, out: &mut [Row]) {
        for (v, out) in out.iter_mut().enumerate() {
            let mut sum = l.splat(0.0);
            for unit in 0..layers.units[0] {
                let total = l.splat(self.units.row(0).as_flattened()[unit]);
                sum = l.mul_add(total, l.load(&layers.per_target[0].row(unit)[v]), sum);
                let pair = l.load(&layers.per_pair[0].row(unit)[v]);
                sum = l.mul_add(pair, l.load(&self.outer.row(unit)[v]), sum);
            }
            l.store(out, l.add(l.load(out), sum));
        }
    }
}
